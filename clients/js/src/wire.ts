/**
 * The wire: packets, commands, and the reader that makes packets of a byte stream.
 *
 * Rule: bytes in, bytes out; neither sockets nor clocks. All integers are little-endian.
 */

import { ProtocolError } from "./errors.js";

/** The largest legal length field of a gateway that is not told otherwise, in bytes. */
export const MAX_PACKET = 512 * 1024;

export const MAX_ID = 0xffff_ffff;

export const DIAL = 0;
export const ACCEPT = 1;
export const CONNECT = 2;
export const REFUSE = 3;
export const CLOSE = 4;
export const PING = 5;

/** A packet from the gateway; `connId` 0 is a command. */
export interface Packet {
  readonly connId: number;
  readonly message: Uint8Array;
}

/** A command from the gateway. What a kind does not have is 0. */
export interface Command {
  readonly kind: typeof ACCEPT | typeof CONNECT | typeof REFUSE | typeof CLOSE | typeof PING;
  readonly connId: number;
  readonly remoteId: number;
}

/** Bytes of a packet before its message. */
export const HEAD = 8;

/** Bytes that are set aside for a packet, whatever it announces, before so many have come. */
const FIRST_ROOM = 64 * 1024;

/** A whole packet. */
export function encodePacket(connId: number, message: Uint8Array): Uint8Array<ArrayBuffer> {
  const packet = new Uint8Array(HEAD + message.length);
  const view = new DataView(packet.buffer);
  view.setUint32(0, 4 + message.length, true);
  view.setUint32(4, connId, true);
  packet.set(message, HEAD);
  return packet;
}

function encodeCommand(kind: number, ...numbers: number[]): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(1 + 4 * numbers.length);
  const view = new DataView(message.buffer);
  message[0] = kind;
  numbers.forEach((number, place) => view.setUint32(1 + 4 * place, number, true));
  return encodePacket(0, message);
}

export const encodeDial = (remoteId: number) => encodeCommand(DIAL, remoteId);
export const encodeClose = (connId: number) => encodeCommand(CLOSE, connId);
export const encodePing = () => encodeCommand(PING);

/**
 * The message of a packet with connId 0. What stands behind the arguments is ignored.
 *
 * @throws ProtocolError: a gateway does not send that.
 */
export function decodeCommand(message: Uint8Array): Command {
  const kind = message[0];
  const view = new DataView(message.buffer, message.byteOffset, message.length);
  const bad = () =>
    new ProtocolError(
      kind === undefined
        ? "the gateway sent a command without a type"
        : `the gateway sent a command of type ${kind} in ${message.length} bytes`,
    );
  const number = (place: number) => {
    if (message.length < 5 + 4 * place) throw bad();
    return view.getUint32(1 + 4 * place, true);
  };
  switch (kind) {
    case ACCEPT:
    case CONNECT:
      return { kind, remoteId: number(1), connId: number(0) };
    case REFUSE:
      return { kind, connId: 0, remoteId: number(0) };
    case CLOSE:
      return { kind, connId: number(0), remoteId: 0 };
    case PING:
      return { kind, connId: 0, remoteId: 0 };
    default:
      throw bad();
  }
}

/**
 * Makes packets of a byte stream that is cut anywhere.
 *
 * It holds at most one packet that is not whole, and room for 64 KiB or twice what has come of it.
 * After an error it stays broken.
 */
export class FrameReader {
  readonly #maxPacket: number;
  readonly #head = new Uint8Array(HEAD);
  #headSize = 0;
  #body: Uint8Array | undefined;
  #size = 0; // of the message that is not whole
  #got = 0; // of it

  /** @param maxPacket The largest legal length field, in bytes. */
  constructor(maxPacket: number = MAX_PACKET) {
    this.#maxPacket = maxPacket;
  }

  /** Bytes of a packet that is not whole. */
  get pending(): number {
    return this.#headSize + this.#got;
  }

  /**
   * The packets that are whole with these bytes. Their messages share no memory with `data`.
   *
   * @throws ProtocolError: a length is none. The packets before it have been yielded.
   */
  *feed(data: Uint8Array): Generator<Packet, void, undefined> {
    let at = 0;
    while (true) {
      if (!this.#body) {
        at += this.#takeHead(data, at);
        if (this.#headSize < HEAD) return;
        const view = new DataView(this.#head.buffer);
        this.#size = view.getUint32(0, true) - 4;
        this.#body = new Uint8Array(Math.min(this.#size, FIRST_ROOM));
        this.#got = 0;
      }
      const taken = Math.min(this.#size - this.#got, data.length - at);
      const room = this.#room(this.#body, this.#got + taken);
      room.set(data.subarray(at, at + taken), this.#got);
      this.#got += taken;
      at += taken;
      if (this.#got < this.#size) return;
      this.#body = undefined;
      this.#headSize = this.#got = 0;
      yield { connId: new DataView(this.#head.buffer).getUint32(4, true), message: room };
    }
  }

  /** Take what there is of the 8 bytes, and check the length as soon as it is there. */
  #takeHead(data: Uint8Array, at: number): number {
    const taken = Math.min(HEAD - this.#headSize, data.length - at);
    this.#head.set(data.subarray(at, at + taken), this.#headSize);
    this.#headSize += taken;
    if (this.#headSize >= 4) {
      const length = new DataView(this.#head.buffer).getUint32(0, true);
      if (length < 4 || length > this.#maxPacket) {
        const problem = length < 4 ? "below 4" : `over ${this.#maxPacket}`;
        throw new ProtocolError(`the gateway announced a packet of ${length}, ${problem}`);
      }
    }
    return taken;
  }

  /** The body, with room for so many bytes. */
  #room(body: Uint8Array, size: number): Uint8Array {
    if (size <= body.length) return body;
    const larger = new Uint8Array(Math.min(this.#size, Math.max(size, 2 * body.length)));
    larger.set(body.subarray(0, this.#got));
    this.#body = larger;
    return larger;
  }
}

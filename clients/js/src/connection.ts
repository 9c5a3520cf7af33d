/**
 * A virtual connection: messages to and from one game server.
 *
 * Rule: what is unread is bounded, in messages and in bytes, of one and of all together; past that
 * a connection is closed, and its siblings do not notice.
 */

import {
  BadText,
  ConnectionClosed,
  FastwayError,
  MessageTooLarge,
  ReceiveQueueFull,
} from "./errors.js";
import type { Settings, Waiting } from "./options.js";
import { call, Waiter } from "./waiting.js";

/** What may be sent. Text goes as UTF-8. */
export type Message = string | ArrayBuffer | ArrayBufferView;

/** What a connection stands on. */
export interface Carrier {
  readonly settings: Settings;
  /** Send a packet. Throws SendQueueFull, or why the gateway is lost. */
  send(connId: number, message: Uint8Array): void;
  /** Until not too much waits to be sent; undefined: that is so. */
  drained(waiting: Waiting): Promise<void> | undefined;
  /** Tell the gateway that it is closed. */
  hangUp(connId: number): void;
  readonly unread: Unread;
}

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** What a message that waits costs beside its bytes, about. */
const OVERHEAD = 64;

/** What is unread on all virtual connections of a gateway, in bytes. */
export class Unread {
  #size = 0;
  readonly #holders = new Set<Connection>();

  constructor(private readonly limit: number) {}

  get size(): number {
    return this.#size;
  }

  /** @internal */
  changed(conn: Connection, by: number): void {
    this.#size += by;
    if (conn.unread) this.#holders.add(conn);
    else this.#holders.delete(conn);
    while (this.#size > this.limit && this.#holders.size) this.#worst().drop();
  }

  /** What closed ones left goes first, then the one that holds most pays. */
  #worst(): Connection {
    let worst: Connection | undefined;
    for (const one of this.#holders) {
      if (
        !worst ||
        (one.open === worst.open ? one.unreadBytes > worst.unreadBytes : !one.open)
      ) {
        worst = one;
      }
    }
    return worst!;
  }
}

/**
 * A message channel to a game server, over the connection to the gateway.
 *
 * `for await (const message of conn)` yields its messages as bytes, and ends when it is closed in
 * good order, by either end; otherwise it throws why.
 */
export class Connection implements AsyncIterable<Uint8Array> {
  /** Called once, as soon as it is closed; what is unread may then still be read. */
  onclose: ((why: ConnectionClosed) => unknown) | null = null;

  readonly #carrier: Carrier;
  #queue: Uint8Array[] = [];
  #next = 0; // of the queue
  #bytes = 0;
  #closed: ConnectionClosed | undefined;
  readonly #readers: Waiter<Uint8Array>[] = [];
  readonly #watchers: ((why: ConnectionClosed) => void)[] = [];

  /** @internal */
  constructor(
    carrier: Carrier,
    /** The gateway's number of it. */
    readonly connId: number,
    /** The game server's id. */
    readonly remoteId: number,
    /** The game server dialled. */
    readonly incoming: boolean,
  ) {
    this.#carrier = carrier;
  }

  /** It can be sent to. */
  get open(): boolean {
    return !this.#closed;
  }

  /** Why it is closed; undefined while it is open. */
  get closed(): ConnectionClosed | undefined {
    return this.#closed;
  }

  /** Messages that wait to be received. */
  get unread(): number {
    return this.#queue.length - this.#next;
  }

  /** Bytes of them. */
  get unreadBytes(): number {
    return this.#bytes;
  }

  /** Why it was closed, when it is. */
  whenClosed(): Promise<ConnectionClosed> {
    if (this.#closed) return Promise.resolve(this.#closed);
    return new Promise((resolve) => this.#watchers.push(resolve));
  }

  /**
   * Send a message. It leaves at once; what is returned is done when not too much waits to be sent
   * (`sendHigh`), so that a sender who awaits it is no faster than the network.
   *
   * @throws MessageTooLarge, SendQueueFull: it was not sent; why it is closed.
   */
  async send(message: Message, waiting: Waiting = {}): Promise<void> {
    waiting.signal?.throwIfAborted();
    if (this.#closed) throw this.#closed;
    this.#carrier.send(this.connId, checked(message, this.#carrier.settings.maxPacket - 4));
    await this.#carrier.drained(waiting);
  }

  /**
   * Send a message and wait for nothing.
   *
   * @returns Whether it was sent: false where it is closed or too much waits.
   * @throws MessageTooLarge
   */
  tell(message: Message): boolean {
    const bytes = checked(message, this.#carrier.settings.maxPacket - 4);
    if (this.#closed) return false;
    try {
      this.#carrier.send(this.connId, bytes);
    } catch (error) {
      if (error instanceof FastwayError) return false;
      throw error;
    }
    return true;
  }

  /**
   * The next message.
   *
   * @throws why it is closed, when all has been read; a FastwayError after `timeout`.
   */
  async receive(waiting: Waiting = {}): Promise<Uint8Array> {
    waiting.signal?.throwIfAborted();
    const message = this.#take();
    if (message) return message;
    if (this.#closed) throw this.#closed;
    const reader = new Waiter<Uint8Array>();
    this.#readers.push(reader);
    reader.within(
      this.#carrier.settings.clock,
      waiting,
      () => new FastwayError(`no message within ${waiting.timeout} ms`),
      () => this.#readers.splice(this.#readers.indexOf(reader), 1),
    );
    return reader.promise;
  }

  /**
   * The next message as text.
   *
   * @throws BadText: it is no UTF-8, and closes the connection; else as `receive`.
   */
  async receiveText(waiting: Waiting = {}): Promise<string> {
    const message = await this.receive(waiting);
    try {
      return DECODER.decode(message);
    } catch (error) {
      const bad = new BadText(error);
      if (this.#closed) this.#closed = bad;
      this.#hangUp(bad);
      this.#empty();
      throw bad;
    }
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<Uint8Array> {
    return this.#iterate(() => this.receive());
  }

  /** Its messages as text, as `for await` over itself yields bytes. */
  texts(): AsyncIterableIterator<string> {
    return this.#iterate(() => this.receiveText());
  }

  /** Close it, in good order. What is unread is gone. Again does nothing. */
  close(): void {
    this.#hangUp(new ConnectionClosed("closed here"));
    this.#empty();
  }

  async *#iterate<T>(receive: () => Promise<T>): AsyncGenerator<T, undefined> {
    while (true) {
      let message: T;
      try {
        message = await receive();
      } catch (error) {
        if (error === this.#closed && this.#closed?.orderly) return;
        throw error;
      }
      yield message;
    }
  }

  // What its gateway tells it.

  /** @internal A message has come. */
  deliver(message: Uint8Array): void {
    const reader = this.#readers.shift();
    if (reader) {
      reader.resolve(message);
      return;
    }
    const { receiveQueue, receiveBuffer } = this.#carrier.settings;
    const size = this.#bytes + message.length;
    if (this.unread >= receiveQueue || (this.unread > 0 && size > receiveBuffer)) {
      this.#hangUp(new ReceiveQueueFull(this.unread + 1, size));
      return;
    }
    this.#queue.push(message);
    this.#bytes = size;
    this.#carrier.unread.changed(this, message.length + OVERHEAD);
  }

  /** @internal It is over, as the gateway knows. */
  end(why: ConnectionClosed): void {
    if (this.#closed) return;
    this.#closed = why;
    for (const reader of this.#readers.splice(0)) reader.reject(why);
    for (const watcher of this.#watchers.splice(0)) watcher(why);
    call(this.onclose, why);
  }

  /** @internal What it holds is too much for all together. */
  drop(): void {
    const full = new ReceiveQueueFull(this.unread, this.#bytes);
    if (this.#closed) this.#closed = full;
    this.#hangUp(full);
    this.#empty();
  }

  #hangUp(why: ConnectionClosed): void {
    if (this.#closed) return;
    this.#carrier.hangUp(this.connId);
    this.end(why);
  }

  #take(): Uint8Array | undefined {
    const message = this.#queue[this.#next];
    if (!message) return undefined;
    this.#next += 1;
    if (this.#next === this.#queue.length || this.#next >= 64) {
      this.#queue.splice(0, this.#next);
      this.#next = 0;
    }
    this.#bytes -= message.length;
    this.#carrier.unread.changed(this, -message.length - OVERHEAD);
    return message;
  }

  #empty(): void {
    const size = this.#bytes + this.unread * OVERHEAD;
    this.#queue = [];
    this.#next = this.#bytes = 0;
    this.#carrier.unread.changed(this, -size);
  }
}

/**
 * A message's bytes.
 *
 * @throws TypeError: it is none; MessageTooLarge.
 */
function checked(message: Message, limit: number): Uint8Array {
  let bytes: Uint8Array;
  if (typeof message === "string") {
    bytes = ENCODER.encode(message);
  } else if (ArrayBuffer.isView(message)) {
    bytes = new Uint8Array(message.buffer, message.byteOffset, message.byteLength);
  } else if (message instanceof ArrayBuffer) {
    bytes = new Uint8Array(message);
  } else {
    throw new TypeError(`a message is text or bytes, not ${message}`);
  }
  if (bytes.length > limit) throw new MessageTooLarge(bytes.length, limit);
  return bytes;
}


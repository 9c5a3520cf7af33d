/**
 * One WebSocket to a gateway: what its bytes mean, from its opening to its end.
 *
 * Rule: it ends once, with a reason, and then all that stands on it has ended. It knows nothing of
 * coming back.
 */

import { type Carrier, Connection, type Unread } from "./connection.js";
import {
  type CloseCode,
  ConnectFailed,
  ConnectionClosed,
  ConnectTimeout,
  DialRefused,
  FastwayError,
  GatewayLost,
  PingTimeout,
  ProtocolError,
  SendQueueFull,
} from "./errors.js";
import type { Settings, Waiting, WebSocketLike } from "./options.js";
import { Waiter } from "./waiting.js";
import {
  ACCEPT,
  CLOSE,
  CONNECT,
  decodeCommand,
  encodeClose,
  encodeDial,
  encodePacket,
  encodePing,
  FrameReader,
  HEAD,
  type Packet,
  PING,
  REFUSE,
} from "./wire.js";

export const SUBPROTOCOL = "fastway";

/** Virtual connections of one gateway that are open, or not yet said to be closed. */
const MAX_CONNECTIONS = 65_536;

/** Dials and pings that are not answered, given up or not. */
const MAX_REQUESTS = 10_000;

/** Between looks at how much waits to be sent: WebSocket tells nobody. */
const LOOK = 20;

/** How late a timer may be. One that is later was held back: the machine slept, the page was hidden. */
const LATE = 2000;

/** How long after an error its close may come. */
const CLOSE_FOLLOWS = 50;

const OPEN = 1; // a WebSocket's readyState

/** How the WebSocket is closed, for the gateway's log. */
const ORDERLY = 1000;
const BROKEN = 4400;
const SILENT = 4408;

/** Who hears of it. */
export interface Owner {
  opened(): void;
  /** It is over; a ConnectFailed if it had never been open. */
  ended(error: GatewayLost | ConnectFailed): void;
  /** A game server dialled. Returns whether there is room for that. */
  accepted(conn: Connection): boolean;
}

interface Dial {
  readonly remoteId: number;
  readonly waiter: Waiter<Connection>;
}

export class Link implements Carrier {
  readonly #socket: WebSocketLike;
  readonly #reader: FrameReader;
  /** undefined: closed here, and the gateway has not agreed yet. */
  readonly #conns = new Map<number, Connection | undefined>();
  /** The highest id seen: those below may be of connections long closed. */
  #highest = 0;
  readonly #dials: Dial[] = [];
  readonly #pings: (() => void)[] = [];
  readonly #pingers = new Set<Waiter<number>>();
  #senders: Waiter<void>[] = [];
  #looking: unknown;
  #error: GatewayLost | ConnectFailed | undefined;
  #isOpen = false;
  #heard = 0;
  #timer: unknown;

  /** @throws SyntaxError: that is no URL of a WebSocket. */
  constructor(
    readonly url: string,
    readonly settings: Settings,
    readonly unread: Unread,
    private readonly owner: Owner,
  ) {
    this.#reader = new FrameReader(settings.maxPacket);
    const socket = new settings.WebSocket(url, SUBPROTOCOL);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#opened();
    socket.onmessage = ({ data }) => this.#received(data);
    socket.onclose = ({ code, reason }) => this.#gone({ code: code ?? 1006, reason: reason ?? "" });
    // A close follows at once; but of one that was never open, not everywhere.
    socket.onerror = () => {
      if (this.#isOpen) return;
      settings.clock.clearTimeout(this.#timer);
      this.#timer = settings.clock.setTimeout(
        () => this.#gone({ code: 1006, reason: "" }),
        CLOSE_FOLLOWS,
      );
    };
    const timeout = settings.connectTimeout;
    this.#timer = settings.clock.setTimeout(
      () => this.#end(new ConnectTimeout(url, timeout), SILENT),
      timeout,
    );
  }

  /** Bytes that wait to be sent. */
  get waiting(): number {
    return this.#socket.bufferedAmount;
  }

  /** The open virtual connections. */
  get connections(): Connection[] {
    return [...this.#conns.values()].filter((conn) => conn !== undefined);
  }

  /** End it, with what has been sent still on its way; `gone` is called when the far end agreed. */
  close(error: GatewayLost, gone: () => void): void {
    const socket = this.#socket;
    this.#end(error, ORDERLY);
    socket.onclose = gone;
  }

  // Requests.

  /** Ask for a virtual connection. */
  dial(remoteId: number, waiting: Waiting, late: () => Error): Promise<Connection> {
    const waiter = new Waiter<Connection>();
    if (this.#dials.length >= MAX_REQUESTS) throw this.#tooMany("dials");
    this.#send(encodeDial(remoteId));
    this.#dials.push({ remoteId, waiter });
    return waiter.within(this.settings.clock, waiting, late).promise;
  }

  /** Milliseconds until the gateway answers. */
  ping(waiting: Waiting): Promise<number> {
    const waiter = new Waiter<number>();
    const { clock } = this.settings;
    const begun = clock.now();
    this.#ping(() => waiter.resolve(clock.now() - begun));
    this.#pingers.add(waiter);
    const late = () => new PingTimeout(waiting.timeout!);
    void waiter.promise.catch(() => {}).finally(() => this.#pingers.delete(waiter));
    return waiter.within(clock, waiting, late).promise;
  }

  send(connId: number, message: Uint8Array): void {
    const { waiting } = this;
    const { sendBuffer } = this.settings;
    const size = message.length + HEAD;
    if (waiting > 0 && waiting + size > sendBuffer) throw new SendQueueFull(waiting, sendBuffer);
    this.#send(encodePacket(connId, message));
  }

  drained(waiting: Waiting): Promise<void> | undefined {
    if (this.#error || this.waiting <= this.settings.sendHigh) return undefined;
    const waiter = new Waiter<void>();
    this.#senders.push(waiter);
    this.#look();
    const late = () => new FastwayError(`not sent within ${waiting.timeout} ms`);
    return waiter.within(this.settings.clock, waiting, late).promise;
  }

  hangUp(connId: number): void {
    if (this.#error || !this.#conns.get(connId)) return;
    this.#conns.set(connId, undefined);
    // One that is going tells that by itself.
    if (this.#socket.readyState === OPEN) this.#socket.send(encodeClose(connId));
  }

  #ping(answered: () => void): void {
    if (this.#pings.length >= MAX_REQUESTS) throw this.#tooMany("pings");
    this.#send(encodePing());
    this.#pings.push(answered);
  }

  #tooMany(what: string): FastwayError {
    return new FastwayError(`${MAX_REQUESTS} ${what} are not answered yet`);
  }

  #send(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#error) throw this.#error;
    if (this.#socket.readyState !== OPEN) {
      throw new GatewayLost({ code: 1006, reason: "" }, undefined, "the gateway is being lost");
    }
    this.#socket.send(bytes);
  }

  /** Look from time to time whether those who wait to send may go on. */
  #look(): void {
    const { clock, sendHigh } = this.settings;
    this.#looking ??= clock.setTimeout(() => {
      this.#looking = undefined;
      if (this.waiting <= sendHigh) for (const one of this.#senders.splice(0)) one.resolve();
      this.#senders = this.#senders.filter((one) => !one.settled);
      if (this.#senders.length) this.#look();
    }, LOOK);
  }

  // What the WebSocket says.

  #opened(): void {
    this.settings.clock.clearTimeout(this.#timer);
    this.#isOpen = true;
    this.#rest();
    this.owner.opened();
  }

  #received(data: unknown): void {
    this.#heard = this.settings.clock.now();
    try {
      if (typeof data === "string") throw new ProtocolError("the gateway sent text");
      for (const packet of this.#reader.feed(new Uint8Array(data as ArrayBuffer))) {
        if (packet.connId) this.#message(packet);
        else this.#command(packet.message);
        if (this.#error) return; // who was told has closed it
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      const close = { code: 1002, reason: error.message };
      this.#end(new GatewayLost(close, error, error.message), BROKEN);
    }
  }

  #gone(close: CloseCode): void {
    const lost = this.#isOpen ? new GatewayLost(close) : new ConnectFailed(this.url, close);
    this.#end(lost, ORDERLY);
  }

  #message({ connId, message }: Packet): void {
    const conn = this.#conns.get(connId);
    if (conn) conn.deliver(message);
    else if (!this.#conns.has(connId)) this.#stranger("a message", connId);
  }

  #command(message: Uint8Array): void {
    const { kind, connId, remoteId } = decodeCommand(message);
    switch (kind) {
      case ACCEPT: {
        const { waiter } = this.#answered("an Accept", remoteId);
        const conn = this.#open(connId, remoteId, false);
        if (waiter.settled) conn.close();
        else waiter.resolve(conn);
        break;
      }
      case CONNECT: {
        const conn = this.#open(connId, remoteId, true);
        if (!this.owner.accepted(conn)) conn.close();
        break;
      }
      case REFUSE:
        this.#answered("a Refuse", remoteId).waiter.reject(new DialRefused(remoteId));
        break;
      case CLOSE: {
        if (!this.#conns.has(connId)) this.#stranger("a Close", connId);
        const conn = this.#conns.get(connId);
        this.#conns.delete(connId);
        conn?.end(new ConnectionClosed("closed by the server"));
        break;
      }
      case PING:
        this.#pings.shift()?.();
    }
  }

  #open(connId: number, remoteId: number, incoming: boolean): Connection {
    if (connId === 0 || this.#conns.has(connId)) {
      throw new ProtocolError(`the gateway opened ${connId}, which is open or reserved`);
    }
    if (this.#conns.size >= MAX_CONNECTIONS) {
      throw new ProtocolError(`the gateway opened more than ${MAX_CONNECTIONS} connections`);
    }
    this.#highest = Math.max(this.#highest, connId);
    const conn = new Connection(this, connId, remoteId, incoming);
    this.#conns.set(connId, conn);
    return conn;
  }

  /** The dial that an answer is to: they come in order. */
  #answered(what: string, remoteId: number): Dial {
    const place = this.#dials.findIndex((dial) => dial.remoteId === remoteId);
    if (place < 0) {
      throw new ProtocolError(`the gateway sent ${what} of ${remoteId}, which was not dialled`);
    }
    return this.#dials.splice(place, 1)[0]!;
  }

  /** A gateway may still speak of a connection that is closed here: packets crossed. */
  #stranger(what: string, connId: number): void {
    if (connId > this.#highest) {
      throw new ProtocolError(`the gateway sent ${what} for ${connId}, which never was here`);
    }
  }

  // The heartbeat: a ping, its answer, a rest.

  #rest(): void {
    const { clock, pingInterval } = this.settings;
    if (pingInterval) this.#timer = clock.setTimeout(() => this.#beat(), pingInterval);
  }

  #beat(): void {
    if (this.#socket.readyState !== OPEN) return; // its close is on its way
    try {
      this.#ping(() => {
        this.settings.clock.clearTimeout(this.#timer);
        this.#rest();
      });
    } catch {
      this.#rest(); // MAX_REQUESTS wait for an answer: their owner sees to that
      return;
    }
    this.#listen();
  }

  /** Until the answer. Whatever else comes meanwhile is a sign of life, too. */
  #listen(): void {
    const { clock, pingTimeout } = this.settings;
    const begun = clock.now();
    this.#timer = clock.setTimeout(() => {
      const late = clock.now() > begun + pingTimeout + LATE;
      if (late || this.#heard > begun) this.#listen();
      else this.#end(new PingTimeout(pingTimeout), SILENT);
    }, pingTimeout);
  }

  #end(error: GatewayLost | ConnectFailed, code: number): void {
    if (this.#error) return;
    this.#error = error;
    const { clock } = this.settings;
    clock.clearTimeout(this.#timer);
    clock.clearTimeout(this.#looking);
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onerror = socket.onclose = null;
    if (socket.readyState <= OPEN) socket.close(code);
    const conns = this.connections;
    this.#conns.clear();
    // First, so that who hears of its end below finds a gateway that is down, or coming back.
    this.owner.ended(error);
    const dials = this.#dials.splice(0).map((dial) => dial.waiter);
    for (const one of [...dials, ...this.#pingers, ...this.#senders.splice(0)]) one.reject(error);
    if (error instanceof GatewayLost) for (const conn of conns) conn.end(error);
  }
}

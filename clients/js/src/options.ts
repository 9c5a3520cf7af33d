/**
 * What a gateway is told, and what it stands on: a WebSocket and a clock, which tests replace.
 *
 * Rule: a value that makes no sense is refused where it is given. Times are in milliseconds.
 */

import { type ConnectFailed, FastwayError, type GatewayLost } from "./errors.js";
import { MAX_ID, MAX_PACKET } from "./wire.js";

/** What is used of a WebSocket: that of browsers, of node 22 and later, of the package ws. */
export interface WebSocketLike {
  binaryType: string;
  readonly readyState: number;
  readonly bufferedAmount: number;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

export type WebSocketConstructor = new (url: string, protocol: string) => WebSocketLike;

/** What is used of time and of chance. */
export interface Clock {
  now(): number;
  setTimeout(call: () => void, delay: number): unknown;
  clearTimeout(timer: unknown): void;
  /** From 0 on, less than 1. */
  random(): number;
}

/** When to connect again. */
export interface Reconnect {
  /** The least delay before an attempt. 500 */
  first?: number;
  /** No delay is more; at least twice `first`. 30 000 */
  most?: number;
  /** What each further failure multiplies the delay by. 1.5 */
  factor?: number;
  /** How long a connection must have lasted to make up for failures. 10 000 */
  steady?: number;
  /** Failures in a row after which it gives up. Infinity */
  attempts?: number;
  /** Whether to come back after this. Default: unless it was kicked (code 4403). */
  when?: (error: GatewayLost | ConnectFailed) => boolean;
}

export interface Options {
  /** Come back to a gateway that is lost, or not there yet. false */
  reconnect?: boolean | Reconnect;
  /** How long an attempt to connect may take. 10 000 */
  connectTimeout?: number;
  /** How long a dial may take, where it is not told itself. 10 000 */
  dialTimeout?: number;
  /** Between an answer and the next ping; 0: none. 10 000 */
  pingInterval?: number;
  /** Within which a ping must be answered, or something else come. 10 000 */
  pingTimeout?: number;
  /** The largest legal length field, in bytes, as the gateway's `max-packet`. 524 288 */
  maxPacket?: number;
  /** Messages that may wait unread on one virtual connection. 1000 */
  receiveQueue?: number;
  /** Bytes of them; one message may always wait. 1 MiB */
  receiveBuffer?: number;
  /** Bytes that may wait unread on all of them. 16 MiB */
  receiveTotal?: number;
  /** Virtual connections that may wait to be accepted; further ones are closed. 100 */
  acceptQueue?: number;
  /** Bytes that wait to be sent over which `send` makes its callers wait. 256 KiB */
  sendHigh?: number;
  /** Bytes that may wait to be sent at all. 16 MiB */
  sendBuffer?: number;
  /** What speaks WebSocket. Default: `globalThis.WebSocket`. */
  WebSocket?: WebSocketConstructor;
  /** For tests. */
  clock?: Clock;
}

/** Until when something is waited for. */
export interface Waiting {
  /** What is waited for fails with the signal's reason. */
  signal?: AbortSignal | undefined;
  timeout?: number | undefined;
}

type Numbers = Exclude<keyof Options, "reconnect" | "WebSocket" | "clock">;

/** Options with nothing left open. */
export type Settings = Readonly<Record<Numbers, number>> & {
  readonly WebSocket: WebSocketConstructor;
  readonly clock: Clock;
  readonly reconnect: Readonly<Required<Reconnect>> | undefined;
};

const KIB = 1024;
const MIB = 1024 * KIB;

/** The longest delay that timers know. */
export const MAX_DELAY = 0x7fff_ffff;

/** Name, default, least, most. */
const NUMBERS: readonly (readonly [Numbers, number, number, number])[] = [
  ["connectTimeout", 10_000, 1, MAX_DELAY],
  ["dialTimeout", 10_000, 1, MAX_DELAY],
  ["pingInterval", 10_000, 0, MAX_DELAY],
  ["pingTimeout", 10_000, 1, MAX_DELAY],
  ["maxPacket", MAX_PACKET, 13, 0x7fff_ffff],
  ["receiveQueue", 1000, 1, Infinity],
  ["receiveBuffer", MIB, 1, Infinity],
  ["receiveTotal", 16 * MIB, 1, Infinity],
  ["acceptQueue", 100, 0, Infinity],
  ["sendHigh", 256 * KIB, 0, Infinity],
  ["sendBuffer", 16 * MIB, 0, Infinity],
];

const KICKED = 4403;

const SYSTEM: Clock = {
  // Monotonic: a clock that is set loses nobody.
  now: () => performance.now(),
  setTimeout: (call, delay) => setTimeout(call, delay),
  clearTimeout: (timer) => clearTimeout(timer as number),
  random: () => Math.random(),
};

/**
 * @throws RangeError: a number is out of its bounds; TypeError: something is no number.
 * @throws FastwayError: nothing speaks WebSocket here.
 */
export function settings(options: Options): Settings {
  const numbers = {} as Record<Numbers, number>;
  for (const [name, otherwise, least, most] of NUMBERS) {
    numbers[name] = number(name, options[name] ?? otherwise, least, most);
  }
  const socket =
    options.WebSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
  if (!socket) {
    throw new FastwayError("there is no WebSocket here: node has one from 22 on, or give one");
  }
  return {
    ...numbers,
    WebSocket: socket,
    clock: options.clock ?? SYSTEM,
    reconnect: reconnect(options.reconnect),
  };
}

function reconnect(given: boolean | Reconnect | undefined): Settings["reconnect"] {
  if (!given) return undefined;
  const { first, most, factor, steady, attempts, when } = given === true ? {} : given;
  const least = number("reconnect.first", first ?? 500, 1, MAX_DELAY / 2);
  return {
    first: least,
    most: number("reconnect.most", most ?? Math.max(30_000, 2 * least), 2 * least, MAX_DELAY),
    factor: number("reconnect.factor", factor ?? 1.5, 1, 1000),
    steady: number("reconnect.steady", steady ?? 10_000, 0, Infinity),
    attempts: number("reconnect.attempts", attempts ?? Infinity, 1, Infinity),
    when: when ?? (({ code }) => code !== KICKED),
  };
}

function number(name: string, value: unknown, least: number, most: number): number {
  if (typeof value !== "number") throw new TypeError(`${name} is a number, not ${value}`);
  if (!(value >= least && value <= most)) {
    throw new RangeError(`${name} is ${least} to ${most}, not ${value}`);
  }
  return value;
}

/**
 * @throws RangeError: that is no id.
 */
export function checkedId(id: number): number {
  if (!Number.isInteger(id) || id < 0 || id > MAX_ID) {
    throw new RangeError(`an id is a whole number from 0 to ${MAX_ID}, not ${id}`);
  }
  return id;
}

/**
 * What a gateway is told, and what it stands on: a WebSocket and a clock, which tests replace.
 *
 * Rule: a value that makes no sense is refused where it is given. Times are in milliseconds.
 */
import { FastwayError } from "./errors.js";
import { MAX_ID, MAX_PACKET } from "./wire.js";
const KIB = 1024;
const MIB = 1024 * KIB;
/** The longest delay that timers know. */
export const MAX_DELAY = 0x7fff_ffff;
/** Name, default, least, most. */
const NUMBERS = [
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
const SYSTEM = {
    // Monotonic: a clock that is set loses nobody.
    now: () => performance.now(),
    setTimeout: (call, delay) => setTimeout(call, delay),
    clearTimeout: (timer) => clearTimeout(timer),
    random: () => Math.random(),
};
/**
 * @throws RangeError: a number is out of its bounds; TypeError: something is no number.
 * @throws FastwayError: nothing speaks WebSocket here.
 */
export function settings(options) {
    const numbers = {};
    for (const [name, otherwise, least, most] of NUMBERS) {
        numbers[name] = number(name, options[name] ?? otherwise, least, most);
    }
    const socket = options.WebSocket ?? globalThis.WebSocket;
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
function reconnect(given) {
    if (!given)
        return undefined;
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
function number(name, value, least, most) {
    if (typeof value !== "number")
        throw new TypeError(`${name} is a number, not ${value}`);
    if (!(value >= least && value <= most)) {
        throw new RangeError(`${name} is ${least} to ${most}, not ${value}`);
    }
    return value;
}
/**
 * @throws RangeError: that is no id.
 */
export function checkedId(id) {
    if (!Number.isInteger(id) || id < 0 || id > MAX_ID) {
        throw new RangeError(`an id is a whole number from 0 to ${MAX_ID}, not ${id}`);
    }
    return id;
}

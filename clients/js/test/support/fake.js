/** A clock that the test turns, and a WebSocket whose far end is the test. */

export class FakeClock {
  #now = 0;
  #timers = new Map();
  #last = 0;
  chance = 0;

  now() {
    return this.#now;
  }

  random() {
    return this.chance;
  }

  setTimeout(call, delay) {
    this.#last += 1;
    this.#timers.set(this.#last, { call, at: this.#now + delay });
    return this.#last;
  }

  clearTimeout(timer) {
    this.#timers.delete(timer);
  }

  /** Timers that wait. */
  get waiting() {
    return this.#timers.size;
  }

  /** Let time pass: timers fire in order, and what they started goes on between them. */
  async turn(ms) {
    const end = this.#now + ms;
    await settle();
    while (true) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end);
      if (!due.length) break;
      const [id, { call, at }] = due.reduce((a, b) => (b[1].at < a[1].at ? b : a));
      this.#timers.delete(id);
      this.#now = Math.max(at, this.#now);
      call();
      await settle();
    }
    this.#now = end;
  }

  /** The machine sleeps: time passes, and what was due fires late. */
  async sleep(ms) {
    this.#now += ms;
    await this.turn(0);
  }
}

/** Let promises that can go on do so. */
export async function settle() {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

/** A class of WebSockets of which the test has all that were made, in `all`. */
export function fakeSockets() {
  return class FakeSocket {
    static all = [];
    static get last() {
      return FakeSocket.all.at(-1);
    }

    readyState = 0;
    bufferedAmount = 0;
    binaryType = "blob";
    onopen = null;
    onmessage = null;
    onclose = null;
    onerror = null;
    sent = [];
    closes = [];

    constructor(url, protocol) {
      this.url = url;
      this.protocol = protocol;
      FakeSocket.all.push(this);
    }

    send(bytes) {
      if (this.readyState !== 1) throw new Error("sent while it is not open");
      this.sent.push(hex(bytes));
    }

    close(code) {
      this.closes.push(code);
      this.readyState = 2;
    }

    /** All that was sent since the last time, packet by packet. */
    take() {
      return this.sent.splice(0);
    }

    // The far end.

    open() {
      this.readyState = 1;
      this.onopen?.({});
    }

    push(...packets) {
      for (const packet of packets) {
        const bytes = typeof packet === "string" ? unhex(packet) : packet;
        this.onmessage?.({ data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) });
      }
    }

    end(code = 1006, reason = "") {
      this.readyState = 3;
      this.onerror?.({});
      this.onclose?.({ code, reason });
    }
  };
}

// The wire, written down a second time.

export function hex(bytes) {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
}

export function unhex(text) {
  return new Uint8Array(Buffer.from(text, "hex"));
}

export function packet(connId, message = "") {
  const body = Buffer.from(message);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(4 + body.length, 0);
  head.writeUInt32LE(connId, 4);
  return Buffer.concat([head, body]).toString("hex");
}

export function command(kind, ...numbers) {
  const message = Buffer.alloc(1 + 4 * numbers.length);
  message[0] = kind;
  numbers.forEach((number, place) => message.writeUInt32LE(number, 1 + 4 * place));
  return packet(0, message);
}

export const dial = (remoteId) => command(0, remoteId);
export const accept = (connId, remoteId) => command(1, connId, remoteId);
export const connected = (connId, remoteId) => command(2, connId, remoteId);
export const refuse = (remoteId) => command(3, remoteId);
export const close = (connId) => command(4, connId);
export const PING = command(5);

/** Chance that is the same in every run: mulberry32. */
export function seeded(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** The error with which a promise fails. */
export async function fails(promise, kind) {
  try {
    await promise;
  } catch (error) {
    if (kind && error.constructor !== kind) throw error;
    return error;
  }
  throw new Error(`no ${kind?.name ?? "error"}`);
}

// A client of pomelo's protocol for browsers: what nano, pitaya and fastway.app speak by WebSocket.
//
//   const peer = await connect("ws://127.0.0.1:3250/", { user: { token: "t" } });
//   peer.on("onLine", (message) => console.log(message));
//   const answer = await peer.request("chat.join", { name: "Ann" });
//   peer.notify("chat.say", "hello");
//   await peer.closed; // why it is over
//
// Rule: one packet is one WebSocket message out; several may be in one that comes. Bodies are JSON.

const HANDSHAKE = 1;
const ACK = 2;
const HEARTBEAT = 3;
const DATA = 4;
const KICK = 5;

const REQUEST = 0;
const NOTIFY = 1;
const RESPONSE = 2;
const PUSH = 3;

const CODED = 0x01; // the route is a code of the dictionary
const GZIP = 0x10; // pitaya's: the payload is compressed
const ERROR = 0x20; // pitaya's: the answer is an error

const utf8 = new TextEncoder();
const text = new TextDecoder("utf-8", { fatal: true });

/** The server did not do what was asked; `code` and `message` are its own. */
export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.name = "Refused";
    this.code = code;
  }
}

/** A connected peer, or a Refused or an Error that says why there is none. */
export function connect(url, { user = undefined, timeout = 10_000 } = {}) {
  return new Promise((resolve, reject) => {
    const peer = new Peer(new WebSocket(url), user, resolve);
    const timer = setTimeout(() => peer.close("no answer to the handshake"), timeout);
    peer.closed.then((why) => reject(peer.refused ?? new Error(why)));
    peer.ready.then(() => clearTimeout(timer));
  });
}

class Peer {
  #socket;
  #handlers = new Map();
  #asked = new Map();
  #mid = 0;
  #codes = {}; // route -> code
  #routes = {}; // code -> route
  #beat = 0; // milliseconds between heartbeats; 0: none
  #beatTimer = null;
  #silence = null;
  #why = "the connection was lost";
  #end;
  #begin;

  constructor(socket, user, resolve) {
    this.refused = null;
    this.closed = new Promise((done) => (this.#end = done));
    this.ready = new Promise((done) => (this.#begin = done));
    this.ready.then(() => resolve(this));
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      const said = { sys: { type: "browser-chat", version: "1" }, user };
      this.#send(HANDSHAKE, utf8.encode(JSON.stringify(said)));
    };
    socket.onmessage = ({ data }) => {
      try {
        this.#take(new Uint8Array(data));
      } catch (error) {
        this.close(`the server sent what is no packet: ${error.message}`);
      }
    };
    socket.onclose = () => this.#over();
  }

  /** Calls `handler` with each message of a route; one handler for each. */
  on(route, handler) {
    this.#handlers.set(route, handler);
  }

  /** The answer to a request; fails with a Refused, or an Error when the connection ends. */
  request(route, message = null) {
    const mid = ++this.#mid;
    return new Promise((resolve, reject) => {
      this.#asked.set(mid, { resolve, reject });
      this.#say(REQUEST, mid, route, message);
    });
  }

  /** Says something that is not answered. */
  notify(route, message = null) {
    this.#say(NOTIFY, 0, route, message);
  }

  close(why = "closed here") {
    this.#why = why;
    this.#socket.close();
    this.#over();
  }

  #over() {
    clearTimeout(this.#beatTimer);
    clearTimeout(this.#silence);
    for (const { reject } of this.#asked.values()) reject(new Error(this.#why));
    this.#asked.clear();
    this.#end(this.#why);
  }

  // What goes out.

  #send(kind, body = new Uint8Array()) {
    if (this.#socket.readyState !== WebSocket.OPEN) throw new Error(this.#why);
    const size = body.length;
    const packet = new Uint8Array(4 + size);
    packet.set([kind, size >> 16, size >> 8, size]);
    packet.set(body, 4);
    this.#socket.send(packet);
  }

  #say(kind, mid, route, message) {
    const code = this.#codes[route]; // code 0 is never sent by clients
    const head = [(kind << 1) | (code ? CODED : 0)];
    if (kind === REQUEST) {
      for (; mid > 0x7f; mid = Math.floor(mid / 128)) head.push((mid & 0x7f) | 0x80);
      head.push(mid);
    }
    if (code) {
      head.push(code >> 8, code & 0xff);
    } else {
      const name = utf8.encode(route);
      if (name.length > 255) throw new RangeError("a route has at most 255 bytes");
      head.push(name.length, ...name);
    }
    const payload = utf8.encode(JSON.stringify(message));
    const body = new Uint8Array(head.length + payload.length);
    body.set(head);
    body.set(payload, head.length);
    this.#send(DATA, body);
  }

  // What comes in.

  #take(data) {
    for (let at = 0; at < data.length; ) {
      const size = (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3];
      const body = data.subarray(at + 4, at + 4 + size);
      if (body.length !== size) throw new RangeError("it is cut off");
      this.#alive();
      this.#packet(data[at], body);
      at += 4 + size;
    }
  }

  #packet(kind, body) {
    if (kind === DATA) this.#data(body);
    else if (kind === HANDSHAKE) this.#welcome(JSON.parse(text.decode(body)));
    else if (kind === HEARTBEAT) this.#answerBeat();
    else if (kind === KICK) {
      const reason = body.length ? JSON.parse(text.decode(body)) : {};
      this.close(`the server ended it: ${reason.reason ?? "it did not say why"}`);
    }
  }

  #welcome({ code, sys = {}, error = {} }) {
    if (code !== 200) {
      this.refused = new Refused(error.code ?? code, error.msg ?? "not let in");
      this.close(this.refused.message);
      return;
    }
    this.#beat = (sys.heartbeat ?? 0) * 1000;
    this.#codes = sys.dict ?? {};
    this.#routes = Object.fromEntries(Object.entries(this.#codes).map(([name, n]) => [n, name]));
    this.#send(ACK);
    this.#alive();
    this.#begin();
  }

  #data(body) {
    const flag = body[0];
    const kind = (flag >> 1) & 7;
    let at = 1;
    if (flag & GZIP) throw new Error("it is compressed"); // unless the server's `compress` is off
    if (kind === RESPONSE) {
      let mid = 0;
      for (let scale = 1; ; scale *= 128) {
        const byte = body[at++];
        mid += (byte & 0x7f) * scale;
        if (!(byte & 0x80)) break;
      }
      this.#answer(mid, flag & ERROR, this.#message(body, at));
    } else if (kind === PUSH) {
      let route;
      if (flag & CODED) {
        route = this.#routes[(body[at] << 8) | body[at + 1]];
        at += 2;
      } else {
        const size = body[at++];
        route = text.decode(body.subarray(at, at + size));
        at += size;
      }
      this.#handlers.get(route)?.(this.#message(body, at));
    }
  }

  #message(body, at) {
    return at < body.length ? JSON.parse(text.decode(body.subarray(at))) : null;
  }

  #answer(mid, isError, message) {
    const asked = this.#asked.get(mid);
    this.#asked.delete(mid);
    if (isError) asked?.reject(new Refused(message.code, message.msg));
    else asked?.resolve(message);
  }

  // Signs of life: the server beats first, and hears from this side an interval later.

  #answerBeat() {
    if (!this.#beat || this.#beatTimer !== null) return;
    this.#beatTimer = setTimeout(() => {
      this.#beatTimer = null;
      this.#send(HEARTBEAT);
    }, this.#beat);
  }

  #alive() {
    if (!this.#beat) return;
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.close("the server is silent"), 2.5 * this.#beat);
  }
}

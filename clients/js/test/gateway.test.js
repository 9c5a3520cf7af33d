/** A gateway and its connections, on a WebSocket and a clock of the test's own. */

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";

import {
  BadText,
  connect,
  ConnectFailed,
  ConnectionClosed,
  ConnectTimeout,
  DialRefused,
  DialTimeout,
  FastwayError,
  Gateway,
  GatewayClosed,
  GatewayLost,
  MessageTooLarge,
  PingTimeout,
  ProtocolError,
  ReceiveQueueFull,
  SendQueueFull,
} from "../dist/index.js";
import {
  accept,
  close,
  command,
  connected,
  dial,
  FakeClock,
  fails,
  fakeSockets,
  packet,
  PING,
  refuse,
  seeded,
  settle,
  unhex,
} from "./support/fake.js";

const URL = "ws://game.example/";
const text = (bytes) => Buffer.from(bytes).toString();

/** A gateway that is not up yet. */
function begin(options = {}) {
  const clock = new FakeClock();
  const sockets = fakeSockets();
  const gateway = new Gateway(URL, { WebSocket: sockets, clock, ...options });
  return { clock, sockets, gateway };
}

/** One that is up. */
function up(options) {
  const all = begin(options);
  const socket = all.sockets.last;
  socket.open();
  return { ...all, socket };
}

/** One with a virtual connection. */
async function dialled(options) {
  const all = up(options);
  const dialling = all.gateway.dial(1);
  await settle();
  all.socket.push(accept(9527, 1));
  const conn = await dialling;
  all.socket.take();
  return { ...all, conn };
}

// Connecting.

test("connect: the subprotocol, binary, and done when it is open", async () => {
  const sockets = fakeSockets();
  const connecting = connect(URL, { WebSocket: sockets, clock: new FakeClock() });
  const socket = sockets.last;
  assert.deepEqual([socket.url, socket.protocol, socket.binaryType], [URL, "fastway", "arraybuffer"]);
  socket.open();
  const gateway = await connecting;
  assert.ok(gateway.up);
  assert.equal(gateway.maxMessage, 524_284);
  assert.deepEqual(socket.take(), [], "a client says nothing first");
});

test("connect fails without a gateway, and makes one attempt", async () => {
  const sockets = fakeSockets();
  const clock = new FakeClock();
  const connecting = connect(URL, { WebSocket: sockets, clock });
  sockets.last.end();
  const error = await fails(connecting, ConnectFailed);
  assert.equal(error.code, 1006);
  assert.equal(error.url, URL);
  await clock.turn(1e6);
  assert.equal(sockets.all.length, 1);
  assert.equal(clock.waiting, 0);
});

test("an error that no close follows fails the attempt, too", async () => {
  const sockets = fakeSockets();
  const clock = new FakeClock();
  const failed = fails(connect(URL, { WebSocket: sockets, clock }), ConnectFailed);
  sockets.last.readyState = 3;
  sockets.last.onerror({});
  await clock.turn(50);
  await failed;
  assert.equal(clock.waiting, 0);
});

test("connect gives up after its timeout, and by its signal", async () => {
  const sockets = fakeSockets();
  const clock = new FakeClock();
  const connecting = connect(URL, { WebSocket: sockets, clock, connectTimeout: 700 });
  const late = fails(connecting, ConnectTimeout);
  await clock.turn(700);
  assert.match((await late).message, /within 700 ms/);
  assert.deepEqual(sockets.last.closes, [4408]);

  const controller = new AbortController();
  const aborted = connect(URL, { WebSocket: sockets, clock, signal: controller.signal });
  const told = fails(aborted);
  controller.abort(new Error("enough"));
  assert.equal((await told).message, "enough");
  assert.deepEqual(sockets.last.closes, [1000]);
  const before = sockets.all.length;
  await fails(connect(URL, { WebSocket: sockets, clock, signal: controller.signal }));
  assert.equal(sockets.all.length, before, "a signal that was given before: nothing begins");
});

test("options that make no sense are refused", () => {
  const more = { WebSocket: fakeSockets(), clock: new FakeClock() };
  for (const [options, kind] of [
    [{ maxPacket: 12 }, RangeError],
    [{ maxPacket: "1" }, TypeError],
    [{ receiveQueue: 0 }, RangeError],
    [{ pingTimeout: NaN }, RangeError],
    [{ connectTimeout: Infinity }, RangeError],
    [{ reconnect: { first: 0 } }, RangeError],
    [{ reconnect: { first: 100, most: 150 } }, RangeError],
  ]) {
    assert.throws(() => new Gateway(URL, { ...more, ...options }), kind, JSON.stringify(options));
  }
  assert.equal(more.WebSocket.all.length, 0);
});

test("without a WebSocket it says where one is", { skip: "WebSocket" in globalThis }, () => {
  assert.throws(() => new Gateway(URL), /node has one from 22 on/);
});

// Dialling.

test("dials are answered in order, accepted and refused", async () => {
  const { gateway, socket } = up();
  const dials = [gateway.dial(1), gateway.dial(2), gateway.dial(1), gateway.dial(0)];
  await settle();
  assert.deepEqual(socket.take(), [dial(1), dial(2), dial(1), dial(0)]);
  socket.push(accept(5, 1), refuse(2), refuse(1), accept(6, 0));
  const first = await dials[0];
  assert.deepEqual([first.connId, first.remoteId, first.incoming], [5, 1, false]);
  const error = await fails(dials[1], DialRefused);
  assert.equal(error.remoteId, 2);
  assert.ok(error instanceof FastwayError);
  assert.equal(error.name, "DialRefused");
  await fails(dials[2], DialRefused);
  assert.equal((await dials[3]).connId, 6);
  assert.deepEqual(gateway.connections.map((one) => one.connId), [5, 6]);
});

test("answers that come out of order find their dials", async () => {
  const { gateway, socket } = up();
  const dials = [gateway.dial(1), gateway.dial(2)];
  await settle();
  socket.push(accept(5, 2), refuse(1));
  assert.equal((await dials[1]).connId, 5);
  await fails(dials[0], DialRefused);
});

test("a dial that nobody waits for any more is closed when it is accepted", async () => {
  const { gateway, socket, clock } = up({ dialTimeout: 3000 });
  const late = fails(gateway.dial(1), DialTimeout);
  await clock.turn(3000);
  assert.match((await late).message, /no answer within 3000 ms/);
  const controller = new AbortController();
  const aborted = fails(gateway.dial(1, { signal: controller.signal }));
  await settle();
  controller.abort();
  assert.equal((await aborted).name, "AbortError");
  const kept = gateway.dial(1, { timeout: 1e9 });
  await settle();
  socket.take();
  socket.push(accept(5, 1), accept(6, 1), accept(7, 1));
  assert.equal((await kept).connId, 7);
  assert.deepEqual(socket.take(), [close(5), close(6)]);
});

test("a signal is heard whenever it is given, and forgotten when all is over", async () => {
  const { gateway, socket } = up();
  const early = new AbortController();
  const aborted = fails(gateway.dial(1, { signal: early.signal }));
  early.abort();
  assert.equal((await aborted).name, "AbortError");
  const { signal } = new AbortController();
  const dialling = gateway.dial(1, { signal });
  await settle();
  assert.equal(getEventListeners(signal, "abort").length, 1);
  socket.push(accept(5, 1), accept(6, 1));
  await dialling;
  assert.equal(getEventListeners(signal, "abort").length, 0);
});

test("ids that are none are refused", async () => {
  const { gateway, socket } = up();
  for (const id of [-1, 1.5, 2 ** 32, NaN, "1", undefined]) await fails(gateway.dial(id), RangeError);
  assert.deepEqual(socket.take(), []);
});

// Messages.

test("messages go both ways, as bytes and as text", async () => {
  const { conn, socket } = await dialled();
  await conn.send("grüße");
  await conn.send(Uint8Array.of(1, 2));
  await conn.send(new Uint16Array([1, 2]).subarray(1));
  await conn.send(Uint8Array.of(9).buffer);
  await conn.send("");
  assert.ok(conn.tell("told"));
  assert.deepEqual(socket.take(), [
    packet(9527, "grüße"),
    packet(9527, Buffer.from([1, 2])),
    packet(9527, Buffer.from([2, 0])),
    packet(9527, Buffer.from([9])),
    packet(9527),
    packet(9527, "told"),
  ]);
  socket.push(packet(9527, "eins") + packet(9527, "zwei"), packet(9527), packet(9527, "drei"));
  assert.equal(text(await conn.receive()), "eins");
  assert.equal(await conn.receiveText(), "zwei");
  assert.equal(await conn.receiveText(), "");
  const seen = [];
  for await (const message of conn) {
    seen.push(text(message));
    if (seen.length === 1) socket.push(packet(9527, "vier"), close(9527));
  }
  assert.deepEqual(seen, ["drei", "vier"]);
  assert.equal(conn.open, false);
});

test("what is sent stays as it was, whatever is done to it afterwards", async () => {
  const { conn, socket } = await dialled();
  const bytes = Uint8Array.of(1);
  const sending = conn.send(bytes);
  bytes[0] = 2;
  await sending;
  assert.deepEqual(socket.take(), [packet(9527, Buffer.from([1]))]);
});

test("what cannot be sent is refused, and the connection lives", async () => {
  const { conn, socket } = await dialled({ maxPacket: 100 });
  const error = await fails(conn.send("x".repeat(97)), MessageTooLarge);
  assert.deepEqual([error.size, error.limit], [97, 96]);
  assert.throws(() => conn.tell("ü".repeat(49)), MessageTooLarge);
  await fails(conn.send(5), TypeError);
  await conn.send("x".repeat(96));
  assert.equal(socket.take().length, 1);
});

test("receive gives up after a timeout, and by a signal, and loses no message", async () => {
  const { conn, socket, clock } = await dialled();
  const late = fails(conn.receive({ timeout: 50 }), FastwayError);
  await clock.turn(50);
  assert.match((await late).message, /no message within 50 ms/);
  const controller = new AbortController();
  const aborted = fails(conn.receive({ signal: controller.signal }));
  controller.abort();
  assert.equal((await aborted).name, "AbortError");
  socket.push(packet(9527, "here"));
  assert.equal(await conn.receiveText(), "here");
});

test("text that is none closes that connection with BadText", async () => {
  const { conn, socket } = await dialled();
  socket.push(packet(9527, Buffer.from([0xff])), packet(9527, "more"));
  const error = await fails((async () => { for await (const _ of conn.texts()); })(), BadText);
  assert.equal(error, conn.closed);
  assert.deepEqual(socket.take(), [close(9527)]);
  await fails(conn.receive(), BadText);
});

test("so does text that waited when the server had closed; a mark of byte order is text", async () => {
  const { conn, socket } = await dialled();
  socket.push(packet(9527, "\ufeffx"), packet(9527, Buffer.from([0xff])), close(9527));
  assert.equal(await conn.receiveText(), "\ufeffx");
  await fails(conn.receiveText(), BadText);
  await fails(conn.receive(), BadText);
  assert.deepEqual(socket.take(), []);
});

// Closing.

test("closed by the server: what is unread can be read; onclose has a code", async () => {
  const { conn, socket, gateway } = await dialled();
  const told = [];
  conn.onclose = ({ code, reason }) => told.push([code, reason]);
  const when = conn.whenClosed();
  socket.push(packet(9527, "last"), close(9527));
  assert.deepEqual(told, [[1000, ""]]);
  assert.equal((await when).orderly, true);
  assert.equal(await conn.receiveText(), "last");
  await fails(conn.receive(), ConnectionClosed);
  await fails(conn.send("x"), ConnectionClosed);
  assert.equal(conn.tell("x"), false);
  assert.deepEqual(socket.take(), [], "nothing is sent to one that is closed");
  assert.deepEqual(gateway.connections, []);
  assert.ok(gateway.up);
});

test("closed here: told once, what is on its way is dropped, the id may come again", async () => {
  const { conn, socket, gateway } = await dialled();
  socket.push(packet(9527, "read"), packet(9527, "unread"), packet(9527, "unread"));
  await conn.receive();
  let told = 0;
  conn.onclose = () => (told += 1);
  conn.close();
  conn.close();
  assert.equal(told, 1);
  assert.deepEqual([conn.unread, conn.unreadBytes], [0, 0]);
  assert.deepEqual(socket.take(), [close(9527)]);
  for await (const _ of conn) assert.fail("it ends at once");
  socket.push(packet(9527, "crossed"), close(9527));
  const again = gateway.dial(1);
  await settle();
  socket.push(accept(9527, 1), packet(9527, "new"));
  assert.equal(await (await again).receiveText(), "new");
  assert.equal(told, 1);
});

test("a reader that waits is told of the end", async () => {
  const { conn, socket } = await dialled();
  const waiting = fails(conn.receive(), ConnectionClosed);
  socket.push(close(9527));
  assert.equal((await waiting).message, "closed by the server");
});

test("what a handler throws harms nothing, and is not swallowed", async (t) => {
  const { conn, socket, gateway } = await dialled();
  const thrown = [];
  t.mock.method(globalThis, "queueMicrotask", (task) => thrown.push(task));
  conn.onclose = () => { throw new Error("mine"); };
  socket.push(close(9527), connected(3, 1));
  assert.equal(thrown.length, 1);
  assert.throws(thrown[0], /mine/);
  assert.ok(gateway.up);
});

// Being dialled.

test("connections that servers dial are accepted: a handler, one by one, all", async () => {
  const { gateway, socket } = up();
  socket.push(connected(3, 7), packet(3, "hello"));
  const first = await gateway.accept();
  assert.deepEqual([first.connId, first.remoteId, first.incoming], [3, 7, true]);
  assert.equal(await first.receiveText(), "hello");
  const seen = [];
  const loop = (async () => {
    for await (const conn of gateway.accepts()) {
      seen.push(conn.connId);
      if (seen.length === 2) break;
    }
  })();
  await settle();
  socket.push(connected(4, 7) + connected(5, 8));
  await loop;
  socket.push(connected(6, 1));
  gateway.onaccept = (conn) => seen.push(conn.connId);
  socket.push(connected(7, 1));
  assert.deepEqual(seen, [4, 5, 6, 7]);
});

test("who is not accepted waits, up to a bound; those that ended make room", async () => {
  const { gateway, socket } = up({ acceptQueue: 2 });
  socket.push(connected(1, 7), connected(2, 7), connected(3, 7));
  assert.deepEqual(socket.take(), [close(3)]);
  socket.push(close(1), connected(4, 7));
  assert.deepEqual(socket.take(), []);
  assert.equal((await gateway.accept()).connId, 2);
  assert.equal((await gateway.accept()).connId, 4);
});

test("accepts ends with the gateway: in order, or by throwing", async () => {
  const closed = up();
  const over = (async () => { for await (const _ of closed.gateway.accepts()); return "over"; })();
  void closed.gateway.close();
  assert.equal(await over, "over");
  const lost = up();
  const thrown = fails(lost.gateway.accepts().next(), GatewayLost);
  lost.socket.end(1001, "the gateway stops");
  assert.equal((await thrown).reason, "the gateway stops");
});

// Back-pressure.

test("send waits while too much waits to be sent, and goes on when it does not", async () => {
  const { conn, socket, clock } = await dialled({ sendHigh: 1000 });
  socket.bufferedAmount = 1000;
  await conn.send("not too much");
  socket.bufferedAmount = 1001;
  let done = 0;
  const sending = [conn.send("a"), conn.send("b")].map((one) => one.then(() => (done += 1)));
  assert.equal(socket.take().length, 3, "they have been sent");
  await clock.turn(1000);
  assert.equal(done, 0);
  socket.bufferedAmount = 1000;
  await clock.turn(20);
  assert.equal(done, 2);
  await Promise.all(sending);
  assert.equal(clock.waiting, 1, "nobody looks any more: only the ping waits");
});

test("a send that waits can be given up, and ends with the gateway", async () => {
  const { conn, socket, clock } = await dialled({ sendHigh: 0 });
  socket.bufferedAmount = 1;
  const controller = new AbortController();
  const aborted = fails(conn.send("x", { signal: controller.signal }));
  const late = fails(conn.send("x", { timeout: 100 }), FastwayError);
  const lost = fails(conn.send("x"), GatewayLost);
  controller.abort();
  assert.equal((await aborted).name, "AbortError");
  await clock.turn(100);
  await late;
  socket.end();
  await lost;
  assert.equal(clock.waiting, 0);
});

test("who does not wait at all is stopped by a bound", async () => {
  const { conn, socket } = await dialled({ sendBuffer: 1000, sendHigh: 500 });
  socket.bufferedAmount = 900;
  const error = await fails(conn.send("x".repeat(100)), SendQueueFull);
  assert.deepEqual([error.waiting, error.limit], [900, 1000]);
  assert.equal(conn.tell("x".repeat(100)), false);
  assert.deepEqual(socket.take(), []);
  assert.ok(conn.tell("x"));
  assert.ok(conn.open);
  socket.bufferedAmount = 0;
  assert.ok(conn.tell("x".repeat(5000)), "one message may always go");
});

test("too many unread messages close that connection, and no other", async () => {
  const { gateway, socket } = up({ receiveQueue: 3 });
  const dials = [gateway.dial(1), gateway.dial(1)];
  await settle();
  socket.push(accept(1, 1), accept(2, 1));
  const [slow, other] = await Promise.all(dials);
  socket.take();
  const told = [];
  slow.onclose = (why) => told.push(why.constructor);
  for (const message of "abcd") socket.push(packet(1, message));
  assert.deepEqual(told, [ReceiveQueueFull]);
  assert.deepEqual(socket.take(), [close(1)]);
  socket.push(packet(1, "e"), packet(2, "fine"));
  const seen = [];
  const error = await fails((async () => { for await (const m of slow.texts()) seen.push(m); })(), ReceiveQueueFull);
  assert.deepEqual(seen, ["a", "b", "c"], "what waits can still be read");
  assert.deepEqual([error.messages, error.size, error.code], [4, 4, 1008]);
  assert.equal(await other.receiveText(), "fine");
});

test("so do too many unread bytes, where one message may always wait", async () => {
  const { conn, socket } = await dialled({ receiveBuffer: 10 });
  socket.push(packet(9527, "x".repeat(50)));
  assert.ok(conn.open);
  assert.equal(conn.unreadBytes, 50);
  await conn.receive();
  socket.push(packet(9527, "12345"), packet(9527, "67890"));
  assert.ok(conn.open);
  socket.push(packet(9527, "!"));
  assert.equal(conn.closed.constructor, ReceiveQueueFull);
});

test("past the bound of all, closed ones go first, then the largest", async () => {
  const { gateway, socket } = up({ receiveTotal: 3000 });
  const dials = [1, 2, 3].map(() => gateway.dial(1));
  await settle();
  socket.push(accept(1, 1), accept(2, 1), accept(3, 1));
  const [gone, small, large] = await Promise.all(dials);
  socket.push(packet(1, "x".repeat(500)), close(1));
  socket.push(packet(2, "x".repeat(900)), packet(3, "x".repeat(1000)));
  socket.push(packet(2, "x".repeat(500)));
  assert.equal(gone.unread, 0);
  await fails(gone.receive(), ReceiveQueueFull);
  assert.ok(small.open && large.open);
  socket.push(packet(2, "x".repeat(500)));
  assert.equal(small.closed.constructor, ReceiveQueueFull);
  assert.equal(small.unread, 0);
  assert.equal(large.unread, 1);
  assert.ok(large.open);
});

// Pings.

test("pings keep it alive: one, its answer, a rest", async () => {
  const { socket, clock } = up({ pingInterval: 1000, pingTimeout: 300 });
  for (let round = 0; round < 3; round += 1) {
    await clock.turn(999);
    assert.deepEqual(socket.take(), []);
    await clock.turn(1);
    assert.deepEqual(socket.take(), [PING]);
    await clock.turn(200);
    socket.push(PING);
  }
});

test("a gateway that does not answer is lost", async () => {
  const { socket, clock, gateway } = up({ pingInterval: 1000, pingTimeout: 300 });
  await clock.turn(1299);
  assert.ok(gateway.up);
  await clock.turn(1);
  assert.equal(gateway.closed.constructor, PingTimeout);
  assert.equal(gateway.closed.code, 4408);
  assert.deepEqual(socket.closes, [4408]);
  assert.equal(clock.waiting, 0);
});

test("other messages are signs of life while the answer is behind them", async () => {
  const { conn, socket, clock, gateway } = await dialled({ pingInterval: 1000, pingTimeout: 300 });
  await clock.turn(1100);
  for (let round = 0; round < 10; round += 1) {
    socket.push(packet(9527, "x"));
    await conn.receive();
    await clock.turn(200);
  }
  assert.ok(gateway.up);
  assert.deepEqual(socket.take(), [PING], "one ping");
  await clock.turn(800);
  assert.equal(gateway.closed.constructor, PingTimeout);
});

test("after a sleep the answer that waits is heard before it is judged", async () => {
  const { socket, clock, gateway } = up({ pingInterval: 1000, pingTimeout: 300 });
  await clock.turn(1000);
  await clock.sleep(3_600_000);
  assert.ok(gateway.up);
  socket.push(PING);
  await clock.turn(400);
  assert.ok(gateway.up);
});

test("pings of the application are answered in order, or not in time", async () => {
  const { gateway, socket, clock } = up({ pingInterval: 0 });
  const pings = [gateway.ping(), gateway.ping({ timeout: 10 })];
  const late = fails(pings[1], PingTimeout);
  await clock.turn(7);
  socket.push(PING);
  assert.equal(await pings[0], 7);
  await clock.turn(10);
  await late;
  assert.ok(gateway.up);
  const lost = fails(gateway.ping(), GatewayLost);
  socket.end();
  await lost;
  assert.equal(clock.waiting, 0);
});

// The end of a gateway.

test("a lost gateway ends all that stands on it, with its code and reason", async () => {
  const { conn, socket, gateway, clock } = await dialled();
  const dialling = fails(gateway.dial(2), GatewayLost);
  const reading = fails(conn.receive(), GatewayLost);
  const iterating = fails(conn[Symbol.asyncIterator]().next(), GatewayLost);
  const told = [];
  conn.onclose = ({ code, reason }) => told.push([code, reason]);
  gateway.onclose = ({ code }) => told.push(code);
  await settle();
  socket.end(4403, "kicked by the operator");
  const error = await reading;
  assert.deepEqual([error.code, error.reason], [4403, "kicked by the operator"]);
  assert.equal(error.orderly, false);
  assert.equal(await dialling, error);
  assert.equal(await iterating, error);
  assert.deepEqual(told, [4403, [4403, "kicked by the operator"]]);
  assert.equal(gateway.up, false);
  assert.equal(await gateway.whenClosed(), error);
  assert.equal(await fails(gateway.dial(1)), error);
  assert.equal(clock.waiting, 0);
});

test("close: what waits fails, loops end in order, and the far end is waited for", async () => {
  const { conn, socket, gateway, clock } = await dialled();
  const dialling = fails(gateway.dial(2), GatewayClosed);
  const loop = (async () => { for await (const _ of conn); return "over"; })();
  await settle();
  let done = false;
  const closing = gateway.close().then(() => (done = true));
  assert.deepEqual(socket.closes, [1000]);
  await dialling;
  assert.equal(await loop, "over");
  await settle();
  assert.equal(done, false);
  socket.end(1000);
  await closing;
  await gateway.close();
  assert.equal(clock.waiting, 0);
  assert.equal(gateway.closed.orderly, true);
  await fails(gateway.accept(), GatewayClosed);
});

test("close does not wait for ever, and ends one that is not up", async () => {
  const { gateway, clock } = up();
  const closing = gateway.close();
  await clock.turn(5000);
  await closing;
  const other = begin({ reconnect: true });
  const waiting = fails(other.gateway.whenUp(), GatewayClosed);
  void other.gateway.close();
  await waiting;
  await other.clock.turn(1e6);
  assert.equal(other.sockets.all.length, 1);
});

test("a gateway that breaks the protocol is lost, and closed", async () => {
  for (const bad of [
    "03000000",
    "01000800",
    command(0, 1),
    command(6),
    packet(0),
    accept(1, 9),
    refuse(9),
    packet(5, "a stranger"),
    close(5),
    connected(0, 1),
    connected(5, 1) + connected(5, 1),
  ]) {
    const { gateway, socket } = up();
    socket.push(bad);
    assert.equal(gateway.closed?.constructor, GatewayLost, bad);
    assert.equal(gateway.closed.cause.constructor, ProtocolError);
    assert.deepEqual(socket.closes, [4400]);
  }
  const closing = await dialled();
  closing.conn.close();
  closing.socket.push(connected(9527, 1));
  assert.equal(closing.gateway.closed.cause.constructor, ProtocolError, "it is not closed yet");
  const { gateway, socket } = up();
  socket.onmessage({ data: "text" });
  assert.equal(gateway.closed.cause.constructor, ProtocolError);
});

test("ids wrap: an old one may be spoken of, a new one begins low", async () => {
  const { gateway, socket } = up();
  socket.push(connected(0xffff_fff0, 1), close(0xffff_fff0), close(17));
  socket.push(connected(3, 1), packet(0xffff_fff0, "crossed"), packet(3, "new"));
  assert.ok(gateway.up);
  await gateway.accept();
  assert.equal(await (await gateway.accept()).receiveText(), "new");
});

test("a stream that is cut anywhere: byte by byte, and by chance", async () => {
  const random = seeded(7);
  const stream = unhex(
    accept(1, 1) + packet(1, "eins") + connected(2, 9) + packet(2, "zwei") + packet(1, "x".repeat(70_000)) +
      PING + close(2) + packet(1, "ende") + close(1),
  );
  for (let round = 0; round < 20; round += 1) {
    const { gateway, socket } = up();
    const dialling = gateway.dial(1);
    await settle();
    const most = round === 0 ? 1 : 1 + random() ** 3 * 30_000;
    for (let at = 0; at < stream.length; ) {
      const piece = stream.subarray(at, at + Math.ceil(random() * most));
      socket.push(piece);
      at += piece.length;
    }
    const sizes = [];
    for await (const message of await dialling) sizes.push(message.length);
    assert.deepEqual(sizes, [4, 70_000, 4]);
    const incoming = await gateway.accept();
    assert.equal(await incoming.receiveText(), "zwei");
    await fails(incoming.receive(), ConnectionClosed);
    assert.ok(gateway.up);
  }
});

// Coming back.

test("it comes back, later and later, and says so", async () => {
  const { gateway, sockets, clock } = up({ reconnect: { first: 100, most: 1000, factor: 2 } });
  const told = [];
  gateway.onup = () => told.push("up");
  gateway.ondown = (error, delay) => told.push([error.name, delay]);
  await clock.turn(10_000);
  sockets.last.push(PING);
  sockets.last.end(1001, "the gateway stops");
  for (const delay of [100, 100, 200, 400, 500, 500]) {
    assert.equal(told.at(-1)[1], delay);
    const before = sockets.all.length;
    await clock.turn(delay - 1);
    assert.equal(sockets.all.length, before);
    await clock.turn(1);
    assert.equal(sockets.all.length, before + 1);
    sockets.last.end();
  }
  assert.equal(told[0][0], "GatewayLost");
  assert.equal(told[1][0], "ConnectFailed");
  await clock.turn(500);
  sockets.last.open();
  assert.equal(told.at(-1), "up");
  assert.ok(gateway.up);
});

test("the delay is spread by chance, and never over the most", async () => {
  for (const [chance, delay] of [[0, 500], [0.5, 750], [0.999, 999.5]]) {
    const { gateway, sockets, clock } = begin({ reconnect: true });
    clock.chance = chance;
    let told = 0;
    gateway.ondown = (_, ms) => (told = ms);
    sockets.last.end();
    assert.ok(Math.abs(told - delay) < 0.6, `${told}`);
    for (let failure = 0; failure < 50; failure += 1) {
      await clock.turn(told);
      sockets.last.end();
    }
    assert.ok(told <= 30_000 && told >= 15_000);
  }
});

test("a gateway that lets in and drops at once is a failure; a steady one is not", async () => {
  const { gateway, sockets, clock } = begin({
    reconnect: { first: 100, most: 10_000, factor: 2, steady: 5000 },
    pingInterval: 0,
  });
  const delays = [];
  gateway.ondown = (_, delay) => delays.push(delay);
  for (let round = 0; round < 3; round += 1) {
    sockets.last.open();
    await clock.turn(4999);
    sockets.last.end();
    await clock.turn(delays.at(-1));
  }
  sockets.last.open();
  await clock.turn(5000);
  sockets.last.end();
  assert.deepEqual(delays, [100, 200, 400, 100]);
});

test("while it is away a dial waits, and what was there has ended", async () => {
  const { conn, gateway, socket, sockets, clock } = await dialled({ reconnect: true, dialTimeout: 2000 });
  let again;
  conn.onclose = () => (again = gateway.dial(1)); // as an application would
  socket.push(packet(9527, "unread"));
  socket.end();
  assert.equal(conn.closed.constructor, GatewayLost);
  assert.equal(await conn.receiveText(), "unread");
  await fails(conn.receive(), GatewayLost);
  await clock.turn(500);
  sockets.last.open();
  await settle();
  assert.deepEqual(sockets.last.take(), [dial(1)]);
  sockets.last.push(accept(1, 1), packet(1, "back"));
  assert.equal(await (await again).receiveText(), "back");
  sockets.last.end();
  const late = fails(gateway.dial(1), DialTimeout);
  await clock.turn(800);
  sockets.last.open();
  await settle();
  assert.deepEqual(sockets.last.take(), [dial(1)]);
  await clock.turn(1199);
  assert.ok(clock.waiting > 1);
  await clock.turn(1);
  assert.match((await late).message, /within 2000 ms/, "waiting for both together");
  sockets.last.end();
  const never = fails(gateway.dial(1), DialTimeout);
  await clock.turn(2000);
  assert.match((await never).message, /within 2000 ms/);
});

test("who closes the gateway while it is told hears no more", () => {
  const { gateway, socket } = up();
  let told = 0;
  gateway.onaccept = () => {
    told += 1;
    void gateway.close();
  };
  socket.push(connected(1, 1) + connected(2, 1));
  assert.equal(told, 1);
});

test("a new link knows nothing of the old one's ids and bytes", async () => {
  const { socket, sockets, gateway, clock } = await dialled({ reconnect: true });
  socket.push(packet(9527, "half").slice(0, 18));
  socket.end();
  await clock.turn(500);
  sockets.last.open();
  sockets.last.push(connected(9527, 3), packet(9527, "whole"));
  assert.equal(await (await gateway.accept()).receiveText(), "whole");
  socket.onmessage?.({ data: new ArrayBuffer(3) });
  assert.ok(gateway.up);
});

test("connect with reconnect waits for a gateway that is not there yet", async () => {
  const sockets = fakeSockets();
  const clock = new FakeClock();
  const connecting = connect(URL, { WebSocket: sockets, clock, reconnect: true });
  sockets.last.end();
  await clock.turn(500);
  sockets.last.open();
  assert.ok((await connecting).up);
  assert.equal(sockets.all.length, 2);
});

test("it gives up after so many attempts, and where it is not wanted", async () => {
  const few = begin({ reconnect: { attempts: 3 } });
  const over = fails(few.gateway.whenUp(), ConnectFailed);
  for (let attempt = 0; attempt < 3; attempt += 1) {
    few.sockets.last.end();
    await few.clock.turn(10_000);
  }
  await over;
  assert.equal(few.sockets.all.length, 3);

  const kicked = up({ reconnect: true });
  kicked.socket.end(4403, "kicked by the operator");
  assert.equal(kicked.gateway.closed.code, 4403);

  const own = up({ reconnect: { when: ({ code }) => code === 1001 } });
  own.socket.end(1001);
  assert.equal(own.gateway.closed, undefined);
  await own.clock.turn(1000);
  own.sockets.last.end(1006);
  assert.equal(own.gateway.closed.code, 1006);
});

test("retry tries at once, where an attempt is waited for", async () => {
  const { gateway, sockets, clock } = begin({ reconnect: { first: 5000 } });
  gateway.retry();
  assert.equal(sockets.all.length, 1, "one attempt at a time");
  sockets.last.end();
  gateway.retry();
  assert.equal(sockets.all.length, 2);
  await clock.turn(5000);
  assert.equal(sockets.all.length, 2);
  sockets.last.open();
  gateway.retry();
  assert.equal(sockets.all.length, 2);
});

test("closed while it waits to come back, it does not", async () => {
  const { gateway, sockets, clock } = up({ reconnect: true });
  sockets.last.end();
  await gateway.close();
  await clock.turn(1e6);
  assert.equal(sockets.all.length, 1);
  assert.equal(clock.waiting, 0);
});

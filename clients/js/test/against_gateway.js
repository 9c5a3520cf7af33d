/**
 * The client against a gateway and game servers that a test of Python's runs: see tests/test_js.py.
 *
 *     node against_gateway.js MODULE URL
 *
 * Servers: 1 echoes; 2 dials who talks to it; 3 closes after a message; 4 floods; 5 restarts the
 * gateway.
 */

import assert from "node:assert/strict";
import { after, test } from "node:test";

const [, , module, url] = process.argv;
const { connect, ConnectFailed, ConnectionClosed, DialRefused, GatewayLost, ReceiveQueueFull } = await import(module);

const gateway = await connect(url, { connectTimeout: 30_000, dialTimeout: 30_000 });
after(() => gateway.close());

test("a gateway that is not there is told at once", async () => {
  const error = await connect("ws://127.0.0.1:1/", { connectTimeout: 30_000 }).catch((why) => why);
  assert.equal(error.constructor, ConnectFailed);
});

test("messages of all sizes come back as they were", async () => {
  const conn = await gateway.dial(1);
  const texts = ["hello", "", "grüße, 世界, 🎲", "x".repeat(100_000), "ü".repeat(50_000)];
  for (const text of texts) {
    await conn.send(text);
    assert.equal(await conn.receiveText(), text);
  }
  for (const size of [1, 125, 126, 16_383, 16_384, 65_536, gateway.maxMessage]) {
    const bytes = new Uint8Array(size).map((_, place) => place % 251);
    await conn.send(bytes);
    assert.deepEqual(await conn.receive(), bytes);
  }
  conn.close();
});

test("a crowd of messages keeps its order, with back-pressure", async () => {
  const conn = await gateway.dial(1);
  const count = 3000;
  const sending = (async () => {
    for (let number = 0; number < count; number += 1) {
      await conn.send(`${number} `.padEnd(1 + (number % 4000), "."));
    }
  })();
  let next = 0;
  for await (const message of conn.texts()) {
    assert.ok(message.startsWith(`${next} `.slice(0, 1 + (next % 4000))));
    next += 1;
    if (next === count) break;
  }
  await sending;
  conn.close();
});

test("a server that is not there, and one dial too many, are refused", async () => {
  const error = await gateway.dial(99).catch((why) => why);
  assert.ok(error instanceof DialRefused);
  const conns = [];
  while (conns.length < 16) conns.push(await gateway.dial(1));
  await assert.rejects(gateway.dial(1), DialRefused);
  conns.pop().close();
  // Its Close is answered before the dial behind it.
  conns.push(await gateway.dial(1));
  for (const conn of conns) conn.close();
});

test("a server dials the client", async () => {
  const conn = await gateway.dial(2);
  await conn.send("call me");
  const incoming = await gateway.accept({ timeout: 30_000 });
  assert.ok(incoming.incoming);
  assert.equal(incoming.remoteId, 2);
  await incoming.send("hello?");
  assert.equal(await incoming.receiveText(), "you called: hello?");
  incoming.close();
  conn.close();
});

test("a server closes: the loop ends", async () => {
  const conn = await gateway.dial(3);
  await conn.send("bye");
  const seen = [];
  for await (const message of conn.texts()) seen.push(message);
  assert.deepEqual(seen, ["bye"]);
  assert.equal(conn.closed.code, 1000);
});

test("the gateway answers pings", async () => {
  const trip = await gateway.ping({ timeout: 30_000 });
  assert.ok(trip > 0 && trip < 30_000);
});

test("a connection that is flooded is closed, and its sibling lives", async (t) => {
  const small = await connect(url, { receiveQueue: 20, connectTimeout: 30_000 });
  t.after(() => small.close());
  const [flood, echo] = [await small.dial(4), await small.dial(1)];
  await flood.send("5000");
  const why = await flood.whenClosed();
  assert.ok(why instanceof ReceiveQueueFull, String(why));
  await echo.send("still here");
  assert.equal(await echo.receiveText(), "still here");
});

test("it comes back to a gateway that restarts", async (t) => {
  const keeping = await connect(url, { reconnect: { first: 50, most: 500 }, connectTimeout: 30_000 });
  t.after(() => keeping.close());
  const conn = await keeping.dial(5);
  const echo = await keeping.dial(1);
  const reading = echo.receive().catch((error) => error);
  const downs = [];
  keeping.ondown = ({ code, reason }) => downs.push([code, reason]);
  await conn.send("restart");
  // Its server may have gone first, which is a close in good order.
  assert.ok((await reading) instanceof ConnectionClosed);
  let again;
  while (!again) {
    try {
      again = await keeping.dial(1);
    } catch (error) {
      if (!(error instanceof DialRefused || error instanceof GatewayLost)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20)); // the servers come back, too
    }
  }
  await again.send("back");
  assert.equal(await again.receiveText(), "back");
  assert.deepEqual(downs[0], [1001, "the gateway stops"]);
  assert.ok((await gateway.whenClosed()) instanceof GatewayLost, "the other one does not come back");
});

/** Packets and the reader, with the vectors that Python's tests read too. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { ProtocolError } from "../dist/index.js";
import { decodeCommand, encodeClose, encodeDial, encodePacket, encodePing, FrameReader } from "../dist/wire.js";
import { hex, packet, seeded, unhex } from "./support/fake.js";

const VECTORS = JSON.parse(
  readFileSync(new URL("../../../tests/vectors/wire.json", import.meta.url), "utf8"),
);
const ENCODERS = { Dial: encodeDial, Close: encodeClose, Ping: encodePing };

/** What a reader makes of these pieces: [connId, message] each. */
function read(pieces, maxPacket) {
  const reader = new FrameReader(maxPacket);
  const found = [];
  for (const piece of pieces) {
    for (const { connId, message } of reader.feed(piece)) found.push([connId, hex(message)]);
  }
  return { found, pending: reader.pending };
}

test("commands are the bytes of the specification", () => {
  for (const { name, kind, numbers, bytes } of VECTORS.commands) {
    if (name in ENCODERS) assert.equal(hex(ENCODERS[name](...numbers)), bytes, name);
    const [[connId, message]] = read([unhex(bytes)]).found;
    assert.equal(connId, 0);
    if (kind === 0) {
      assert.throws(() => decodeCommand(unhex(message)), ProtocolError, "a gateway does not dial");
      continue;
    }
    const command = decodeCommand(unhex(message));
    assert.equal(command.kind, kind);
    const ids = { 1: "both", 2: "both", 3: "remote", 4: "conn", 5: "none" }[kind];
    assert.equal(command.connId, ids === "both" || ids === "conn" ? numbers[0] : 0, name);
    assert.equal(command.remoteId, ids === "both" ? numbers[1] : ids === "remote" ? numbers[0] : 0);
  }
});

test("packets are the bytes of the specification, both ways", () => {
  for (const { conn_id, message, bytes } of VECTORS.packets) {
    assert.equal(hex(encodePacket(conn_id, unhex(message))), bytes);
    assert.deepEqual(read([unhex(bytes)]), { found: [[conn_id, message]], pending: 0 });
  }
});

test("what stands behind a command's arguments is ignored", () => {
  assert.deepEqual(decodeCommand(unhex("0437250000ffff")), { kind: 4, connId: 9527, remoteId: 0 });
  assert.equal(decodeCommand(unhex("05ffff")).kind, 5);
});

test("commands that a gateway does not send are refused", () => {
  for (const bad of ["", "00", "0001000000", "01", "0137250000010000", "023725", "03010000", "04372500", "06", "ff"]) {
    assert.throws(() => decodeCommand(unhex(bad)), ProtocolError, bad);
  }
});

test("a stream may be cut anywhere: byte by byte, and by chance", () => {
  const random = seeded(20261121);
  const packets = VECTORS.packets.map((one) => [one.conn_id, one.message]);
  for (let size = 0; size < 300_000; size = size * 3 + 7) {
    packets.push([size + 1, Buffer.alloc(size, size % 251).toString("hex")]);
  }
  const stream = unhex(packets.map(([id, message]) => packet(id, unhex(message))).join(""));
  const bytes = [...stream.subarray(0, 4000)].map((byte) => Uint8Array.of(byte));
  const whole = { found: packets, pending: 0 };
  assert.deepEqual(read([stream]), whole);
  assert.deepEqual(read([...bytes, stream.subarray(4000)]), whole);
  for (let round = 0; round < 30; round += 1) {
    const pieces = [];
    const most = 10 ** (1 + 5 * random());
    for (let at = 0; at < stream.length; ) {
      const piece = stream.subarray(at, at + Math.floor(random() * most));
      pieces.push(piece);
      at += piece.length;
    }
    assert.deepEqual(read(pieces), whole);
  }
});

test("a length is refused as soon as its four bytes are there", () => {
  for (const [bytes, most] of [["03000000", 13], ["00000000", 13], ["0e000000", 13], ["ffffffff", 2 ** 31 - 1]]) {
    const reader = new FrameReader(most);
    const pieces = [...unhex(bytes)].map((byte) => Uint8Array.of(byte));
    for (const piece of pieces.slice(0, 3)) assert.deepEqual([...reader.feed(piece)], []);
    assert.throws(() => [...reader.feed(pieces[3])], ProtocolError);
    assert.throws(() => [...reader.feed(unhex(packet(1)))], ProtocolError, "it stays broken");
  }
  assert.equal(read([unhex(packet(1, "123456789"))], 13).found.length, 1, "at the limit");
});

test("the packets before a bad length are read", () => {
  const reader = new FrameReader();
  const found = [];
  assert.throws(() => {
    for (const one of reader.feed(unhex(packet(7, "a") + "03000000"))) found.push(one);
  }, ProtocolError);
  assert.deepEqual(found.map((one) => one.connId), [7]);
});

test("a message shares no memory with what came", () => {
  const data = unhex(packet(1, "abc"));
  const [{ message }] = [...new FrameReader().feed(data)];
  data.fill(0);
  assert.equal(Buffer.from(message).toString(), "abc");
  assert.equal(message.byteLength, message.buffer.byteLength);
});

test("a packet that is announced takes no memory before it comes", () => {
  const reader = new FrameReader(0x7fff_ffff);
  const before = process.memoryUsage().arrayBuffers;
  assert.deepEqual([...reader.feed(unhex("ffffff7f01000000"))], []);
  assert.deepEqual([...reader.feed(new Uint8Array(100_000))], []);
  assert.ok(process.memoryUsage().arrayBuffers - before < 2_000_000);
  assert.equal(reader.pending, 100_008);
});

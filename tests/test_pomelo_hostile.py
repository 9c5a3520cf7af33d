"""Hostile peers of pomelo's dialect, in all formats and on WebSockets (tests.support.hostile)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone

from fastway.app import Bounds, Session
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.pomelo_packets import (
    ACK,
    DATA,
    GZIP,
    HANDSHAKE,
    HEARTBEAT,
    KICK,
    NOTIFY,
    PUSH,
    REQUEST,
    RESPONSE,
    packet,
)
from fastway.formats import MessagePack, ProtocolBuffers
from tests.support.hostile import Hostile, Row, masked
from tests.support.logs import LogLines

IN = packet(HANDSHAKE) + packet(ACK)
BEAT = packet(HEARTBEAT)
LIMIT = 64 * 1024


def asked(body: bytes, route: bytes = b"echo", flag: int = REQUEST, mid: bytes = b"\7") -> bytes:
    """A packet with a request."""
    return packet(DATA, bytes((flag,)) + mid + bytes((len(route),)) + route + body)


def told(body: bytes, route: bytes = b"echo", flag: int = NOTIFY) -> bytes:
    return asked(body, route, flag, b"")


def answer(body: bytes, flag: int = RESPONSE) -> bytes:
    return packet(DATA, bytes((flag, 7)) + body)


BAD = answer(b'{"code":"PIT-400","msg":"bad message"}', RESPONSE | 0x20)
NONE = answer(b'{"code":"PIT-404","msg":"not found"}', RESPONSE | 0x20)
ASKS = asked(b'"hi"'), answer(b'"hi"')

BOMB = zlib.compress(bytes(16 << 20))
FULL = zlib.compress(b'"' + bytes(LIMIT - 100) + b'"')


def packets() -> Iterator[Row]:
    """What is no packet, and what comes at another time."""
    for kind in (0, 6, 0x84, 255):
        yield Row(f"a packet of type {kind}", bytes((kind, 0, 0, 0)), f"a packet of type {kind}")
    for size in (LIMIT + 1, 0xFFFFFF):
        for kind in (HANDSHAKE, HEARTBEAT, DATA):
            head = (kind << 24 | size).to_bytes(4, "big")
            yield Row(f"{size} bytes of {kind}", head, f"a packet of {size} bytes")
            yield Row(f"{size} bytes of {kind}, later", IN + head, f"a packet of {size} bytes")
    yield Row("data first", ASKS[0], "data before the handshake")
    yield Row("data before the ack", packet(HANDSHAKE) + ASKS[0], "data before the handshake")
    yield Row("an ack first", packet(ACK), "an ack without a handshake")
    yield Row("an ack first, then all", packet(ACK) + IN, "an ack without a handshake")
    yield Row("handshake twice", IN + IN)
    yield Row("data behind a second handshake", IN + packet(HANDSHAKE) + ASKS[0], "data before")
    yield Row("handshakes", packet(HANDSHAKE) * 11, "more than 10 handshakes")
    yield Row("a flood of them", [IN] * 5 + [packet(HANDSHAKE) * 10_000], "more than 10")
    for what, body in (
        ("junk", b"\xff" * 1000),
        ("deep", b"[" * 60_000),
        ("deep in an object", b'{"user":' * 8000),
        ("of a number", b"9" * 60_000),
        ("of half a JSON", b'{"user":{"a"'),
        ("of the largest size", b'{"user":"' + b"x" * (LIMIT - 11) + b'"}'),
        ("with another type", b'{"sys":5,"user":[{}]}'),
    ):
        yield Row(f"a handshake {what}", packet(HANDSHAKE, body) + packet(ACK))
    yield Row("an ack with a body", packet(HANDSHAKE) + packet(ACK, b"x" * 60_000))
    yield Row("acks", IN + packet(ACK) * 10_000)
    yield Row("heartbeats first", BEAT * 10_000 + IN)
    yield Row("heartbeats with bodies", IN + packet(HEARTBEAT, b"x" * 60_000) * 5)
    yield Row("a kick", IN + packet(KICK, b'{"reason":"go"}'))
    yield Row("kicks first", packet(KICK) * 10_000 + IN)


def messages() -> Iterator[Row]:
    """What is no message, and whom nobody knows."""
    for body in (b"", b"\0"):
        yield Row(f"a message of {len(body)}", IN + packet(DATA, body), "a message of")
    for kind in (0x08, 0x0A, 0x0C, 0x0E):
        said = IN + packet(DATA, bytes((kind, 1, 1, 97)))
        yield Row(f"a message of type {kind}", said, f"a message of type {kind >> 1}")
    yield Row("a response to nobody", IN + packet(DATA, b"\4\1{}") * 1000)
    yield Row("a push", IN + told(b"1", flag=PUSH) * 1000)
    yield Row("a mid without end", IN + packet(DATA, b"\0" + b"\xff" * 100), "that does not end")
    yield Row("a mid of 11 bytes", IN + packet(DATA, b"\0" + b"\x80" * 10 + b"\1\1a"), "not end")
    long = b"\x87" + b"\x80" * 8 + b"\0"
    yield Row("a mid of 10 bytes", IN + asked(b"1", mid=long), answers=answer(b"1"))
    yield Row("mid 0, which nobody can answer", IN + asked(b"1", mid=b"\0"))
    yield Row("no route", IN + packet(DATA, b"\0\1"), "without a route")
    yield Row("half a route", IN + packet(DATA, b"\0\1\xffabc"), "ends within its route")
    yield Row("half a code", IN + packet(DATA, b"\3\0"), "ends within the code")
    yield Row("an unknown code", IN + packet(DATA, b"\3\xff\xffx"), "the code 65535")
    yield Row("half a code, at the end of a read", IN + bytes.fromhex("040000020300"), "within")
    for route in (b"", b"nobody", b"\xff\xfe", b"\0" * 255, "é😀".encode(), b"echo\n[31m"):
        yield Row(f"the route {route!r}", IN + asked(b"1", route), answers=NONE)
        yield Row(f"the route {route!r}, told", IN + told(b"1", route) * 500)


def bodies() -> Iterator[Row]:
    """What is no message of the handler's, in JSON."""
    for what, body in (
        ("deep lists", b"[" * 60_000),
        ("deep lists that end", b"[" * 20_000 + b"]" * 20_000),
        ("deep objects", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
        ("half of it", b'{"a":'),
        ("more behind it", b"1 2"),
        ("no UTF-8", b'"\xff\xfe"'),
        ("half a surrogate pair", b'"\\ud83d"'),
        ("half of one in UTF-8", b'"\xed\xa0\xbd"'),
        ("nothing but zeros", bytes(60_000)),
        ("NaN", b"NaN"),
        ("a long name", b'{"' + b"x" * 60_000),
    ):
        yield Row(what, IN + asked(body), answers=BAD)
        yield Row(f"{what}, told", IN + told(body))
    for body in (b'"x"', b"{}", b"[1.5]", b'["1"]', b"[" + b"9" * 60_000 + b"]", b"[null]"):
        yield Row(f"no numbers: {body[:9]!r}", IN + asked(body, b"sum"), answers=BAD)
    yield Row("nothing", IN + asked(b""), answers=answer(b"null"))
    yield Row("many lists", IN + asked(b"[" + b"[]," * 19_000 + b"1]"), answers=b"[],1]")
    keys = b",".join(b'"%d":0' % n for n in range(5000))
    yield Row("many keys", IN + asked(b"{%b}" % keys), answers=b'"4999":0}')
    yield Row("5000 requests in one read", IN + ASKS[0] * 5000, answers=ASKS[1] * 5000)
    yield Row("5000 that are refused", IN + asked(b"[", b"sum") * 5000, answers=BAD * 5000)
    singly = (IN + ASKS[0])[:400]
    yield Row("byte by byte", [singly[at : at + 1] for at in range(len(singly))])


def compressed() -> Iterator[Row]:
    """pitaya's bit."""
    zipped, bit = REQUEST | GZIP, NOTIFY | GZIP
    for flag, say in ((zipped, asked), (bit, told)):
        yield Row("a bomb", IN + say(BOMB, flag=flag), "compressed message of more than 65536")
        gzip = zlib.compressobj(wbits=31)
        bomb = gzip.compress(bytes(16 << 20)) + gzip.flush()
        yield Row("a bomb of gzip", IN + say(bomb, flag=flag), "compressed message of more")
        yield Row("a cut one", IN + say(FULL[:-3], flag=flag), "cut off")
        yield Row("none", IN + say(b"hello", flag=flag), "and is not")
        yield Row("nothing", IN + say(b"", flag=flag), "cut off")
        wrong = bytearray(FULL)
        wrong[-1] ^= 1
        yield Row("a wrong sum", IN + say(bytes(wrong), flag=flag), "and is not")
        many = IN + say(FULL, flag=flag) * (60_000 // len(FULL))
        yield Row("many that fit, in one read", many, "too much at once")
    deep = zlib.compress(b"[" * 60_000)
    yield Row("a deep one", IN + asked(deep, flag=zipped), answers=BAD)
    nested = zlib.compress(zlib.compress(b"1"))
    yield Row("one in one", IN + asked(nested, flag=zipped), answers=BAD)
    good = zlib.compress(b'"hi"')
    yield Row("a good one", IN + asked(good, flag=zipped), answers=ASKS[1])
    yield Row("more behind it", IN + asked(good + b"more", flag=zipped), answers=ASKS[1])
    yield Row("both bits", IN + asked(good, flag=zipped | 0x20), answers=ASKS[1])
    yield Row("an answer of an error", IN + packet(DATA, b"\x34\1" + BOMB))
    yield Row("a push", IN + told(good, flag=PUSH | GZIP))


def frames() -> Iterator[Row]:
    """WebSockets: whatever the kind of a message, they are one stream."""

    def one(data: bytes) -> bytes:
        return masked(2, data)

    yield Row("packets in text and in binary", masked(1, IN) + one(ASKS[0]), answers=ASKS[1])
    cut = len(IN + ASKS[0]) - 3
    halves = (IN + ASKS[0])[:cut], (IN + ASKS[0])[cut:]
    yield Row("half a packet in text", masked(1, halves[0]) + one(halves[1]), answers=ASKS[1])
    pieces = masked(2, IN, last=False) + masked(9, b"hi") + masked(0, ASKS[0])
    yield Row("a ping amid a message", pieces, answers=b"\x8a\2hi")
    yield Row("a bad packet", one(IN) + one(b"\x84\0\0\0"), "a packet of type 132", code=1002)
    no_text = one(IN), masked(1, b"\4\0\xff\xfe")
    yield Row("text that is none, and nothing yet", [*no_text], "not UTF-8", code=1007)
    yield Row("an unmasked frame", b"\x82\1x", "mask", code=1002)
    yield Row("a reserved bit", b"\xc2\x80" + bytes(4), "reserved", code=1002)
    yield Row("a reserved opcode", masked(3, b""), "opcode", code=1002)
    yield Row("a long ping", masked(9, b"x" * 126), "control frame", code=1002)
    yield Row("half a ping", masked(9, b"x", last=False), "control frame", code=1002)
    yield Row(
        "a message amid another", masked(2, b"", last=False) * 2, "inside another", code=1002
    )
    yield Row("the end of none", masked(0, b"x"), "continues no message", code=1002)
    size = b"\x82\xff\x7f" + b"\xff" * 7
    yield Row("a frame of exabytes", one(IN) + size, "bytes is over", code=1009)
    yield Row("a close of one byte", masked(8, b"x"), "Close", code=1002)
    yield Row("pings", [one(IN), *[masked(9, b"x" * 100) * 500] * 20], answers=b"\x8a\x64xxx")
    yield Row("empty messages", [one(IN), masked(2, b"") * 10_000])


def recorded() -> Iterator[Row]:
    """Protocol Buffers."""
    deep = b""
    for _ in range(2000):
        inner = b"\x2a" + _varint(len(deep)) + deep  # Value: struct_value
        field = b"\x0a\0" + b"\x12" + _varint(len(inner)) + inner
        deep = b"\x0a" + _varint(len(field)) + field
    bad = answer(b"\x0a\7PIT-400\x12\x0bbad message", RESPONSE | 0x20)
    for what, body in (
        ("junk", b"\xff" * 60_000),
        ("half a field", b"\x0a\x7f"),
        ("a length of exabytes", b"\x0a" + b"\xff" * 9 + b"\1"),
        ("a group", b"\x0b" * 30_000),
        ("deep", deep[:LIMIT]),
        ("no UTF-8", b"\x0a\7\x0a\2\xff\xfe\x12\1\x10"),
    ):
        yield Row(what, IN + asked(body, b"pb"), answers=bad)
    yield Row("unknown fields", IN + asked(b"\x78\1" * 20_000, b"pb"), answers=answer(b""))


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


def packed() -> Iterator[Row]:
    """MessagePack."""
    for what, body in (
        ("deep lists", b"\x91" * 60_000),
        ("deep maps", b"\x81\xa1a" * 20_000),
        ("deep keys", b"\x81" * 60_000),
        ("a list of 4 G", b"\xdd\xff\xff\xff\xff"),
        ("a map of 4 G", b"\xdf\xff\xff\xff\xff"),
        ("a string of 4 G", b"\xdb\xff\xff\xff\xffx"),
        ("bytes of 4 G", b"\xc6\xff\xff\xff\xffx"),
        ("an ext of 4 G", b"\xc9\xff\xff\xff\xff\1x"),
        ("the unused byte", b"\xc1"),
        ("no UTF-8", b"\xa2\xff\xfe"),
        ("more behind it", b"\1\2"),
        ("nothing", b""),
        ("half a float", b"\xcb\0"),
        ("a time that is none", b"\xd7\xff" + b"\xff" * 8),
        ("a map in a key", b"\x81\x81\1\1\1"),
    ):
        yield Row(what, IN + asked(body), answers=bytes((RESPONSE | 0x20, 7)))
    for ext in (b"\xd4\5\0", b"\xc7\0\x7f"):
        yield Row(f"an ext {ext!r}", IN + asked(ext))


class PomeloHostile(Hostile):
    def test_json(self) -> None:
        """On a port of pitaya's profile, which says why."""
        self.app_with()
        dialect = Pomelo(profile="pitaya", heartbeat=0)
        rows = [*packets(), *messages(), *bodies(), *compressed()]
        self.rows(dialect, rows, begins=IN, asks=ASKS)

    def test_nano(self) -> None:
        """On one of nano's, which says nothing; there are no bits there."""
        self.app_with()
        rows = [row._replace(answers=b"") for row in (*packets(), *messages(), *bodies())]
        rows.append(Row("bits", IN + asked(BOMB[:60_000], flag=REQUEST | GZIP)))
        self.rows(Pomelo(heartbeat=0), rows, begins=IN, asks=ASKS)

    def test_websocket(self) -> None:
        self.app_with()
        dialect = Pomelo(profile="pitaya", heartbeat=0)
        self.rows(dialect, frames(), begins=IN, asks=ASKS, websocket=True)

    def test_protocol_buffers(self) -> None:
        app = self.app_with()

        @app.handler("pb")
        def pb(message: Struct) -> Struct:
            message.DiscardUnknownFields()
            return message

        dialect = Pomelo(profile="pitaya", heartbeat=0, format=ProtocolBuffers(Message))
        asks = asked(b"", b"pb"), answer(b"")
        self.rows(dialect, recorded(), begins=IN, asks=asks)

    def test_message_pack(self) -> None:
        self.app_with()
        dialect = Pomelo(profile="pitaya", heartbeat=0, format=MessagePack(Any))
        self.rows(dialect, packed(), begins=IN, asks=(asked(b"\5"), answer(b"\5")))

    def test_behind_a_handshake(self) -> None:
        """What is kept behind a handshake that is not decided is bounded, and then handled as if
        it had come now."""
        app = self.app_with()
        gate: Deferred[None] = Deferred()
        app.handshake(lambda session, user: gate)
        dialect = Pomelo(profile="pitaya", heartbeat=0)
        peers = [self.join(dialect) for _ in range(3)]
        said = ASKS[0] * 1000, told(FULL, flag=NOTIFY | GZIP) * 500, b"x" * 320_000
        for peer, data in zip(peers, said, strict=True):
            peer.say(IN + data)
            peer.say(b"")
        self.assertEqual([peer.connected for peer in peers], [True, True, True])
        peers[2].say(b"x" * 10_000)
        self.assertFalse(peers[2].connected)
        app.quiet.flush()
        with LogLines() as log:
            gate.callback(None)
            self.clock.advance(0)
        self.assertIn("too much at once", "".join(log.lines))
        self.assertEqual(b"".join(peers[0].take()).count(ASKS[1]), 1000)
        self.assertEqual(app.counts.lost, {"bad_frame": 2})

    def test_slow(self) -> None:
        """Whoever says it all too slowly is lost: a handshake, an ack, or a sign of life. Half a
        packet is none."""
        app = self.app_with(Bounds(handshake_timeout=5))
        dialect = Pomelo(heartbeat=4)
        long = packet(DATA, b"x" * 60_000)
        for what, begins, drips, why in (
            ("nothing", b"", b"", "handshake_timeout"),
            ("byte by byte", b"", packet(HANDSHAKE, b"x" * 60_000), "handshake_timeout"),
            ("no ack", packet(HANDSHAKE), BEAT * 100, "handshake_timeout"),
            ("silent", IN, b"", "silent"),
            ("half a packet", IN, long, "silent"),
            ("half a packet, again and again", IN + long[:100], long, "silent"),
        ):
            with self.subTest(what=what):
                app.counts.lost.clear()
                peer = self.join(dialect)
                peer.say(begins)
                for at in range(26):
                    self.assertEqual(app.counts.lost, {})
                    self.clock.advance(0.5)
                    if not peer.connected:
                        break
                    peer.say(drips[at : at + 1])
                self.assertEqual(app.counts.lost, {why: 1})
                self.assertFalse(peer.connected)
        peer = self.join(dialect)
        peer.say(IN)
        for _ in range(100):  # lies that are signs of life all the same
            self.clock.advance(4)
            peer.say(packet(HEARTBEAT, b"dead"))
        self.assertTrue(peer.connected)

    def test_floods(self) -> None:
        """What waits of one peer is bounded, however it comes; who does not read is lost."""
        app = self.app_with(Bounds(waiting=100_000, queued=50_000, strand=100, requests=10))
        gate: Deferred[None] = Deferred()
        sessions: list[Session] = []
        app.opened(sessions.append)
        app.route("wait", lambda message: gate)
        dialect = Pomelo(profile="pitaya", heartbeat=0)
        bystander = self.join(dialect)
        bystander.say(IN)
        bystander.take()
        big = b'"%b"' % (b"x" * 2000)
        for what, data in (
            ("requests", asked(b"1", b"wait") * 100),
            ("notes", told(b"1", b"wait") * 100),
            ("large ones", told(big, b"wait") * 20),
        ):
            with self.subTest(what=what):
                peer = self.join(dialect)
                peer.say(IN)
                offered = 0
                while peer.producerState == "producing" and offered < 100:
                    peer.say(data)
                    offered += 1
                self.assertLess(offered, 20)
                link = peer.link
                self.assertLess(link._queued + link._kept, 50_000 + 2 * len(data))
                self.assertLess(len(link._backlog or ()), 200)
                bystander.say(ASKS[0])
                self.assertEqual(b"".join(bystander.take()), ASKS[1])
                peer.end(ConnectionDone())
        frozen = self.join(dialect)
        frozen.say(IN)
        frozen.stop_reading()
        for _ in range(100):
            if frozen.connected:
                frozen.say(asked(big) * 5)
        self.assertEqual(app.counts.lost, {"slow_reader": 1})
        gate.callback(None)
        self.clock.advance(0)
        self.assertEqual((app.counts.pending, app.running, len(app.sessions)), (0, 0, 1))

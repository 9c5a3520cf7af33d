"""Hostile peers of hotpot's dialect, in its three envelopes and on WebSockets
(tests.support.hostile)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.struct_pb2 import Struct
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone

from fastway.app import Bounds
from fastway.dialect.hotpot import Hotpot
from fastway.dialect.pomelo_packets import varint
from tests.support.hostile import Hostile, Row, masked
from tests.support.hotpot import framed

LIMIT = 60_000


def said(name: str, data: bytes) -> bytes:
    """A message in JSON, framed."""
    return framed(b'{"type":"%b","data":%b}' % (name.encode(), data))


def error(code: int) -> bytes:
    return b'{"type":"Error","code":%d,' % code


ASKS = said("Echo", b'"hi"'), said("Echo", b'"hi"')


def lengths(width: int, limit: int) -> Iterator[Row]:
    for size in (0, limit + 1, (1 << 8 * width) - 1):
        data = size.to_bytes(width, "big")
        yield Row(f"{size} bytes", data, f"a message of {size} bytes: it is 1 to {limit}")
        good = framed(b'{"type":"Echo","data":1}', width)
        yield Row(
            f"{size} bytes, later", good + data + good, f"a message of {size} bytes", answers=good
        )
    yield Row("the largest, of nothing", limit.to_bytes(width, "big") + bytes(limit))


def envelopes() -> Iterator[Row]:
    """JSON that is no message: nothing is said, and all goes on."""
    for what, payload in (
        ("no JSON", b"what?"),
        ("zeros", bytes(LIMIT)),
        ("no UTF-8", b'{"type":"Echo","data":"\xff\xfe"}'),
        ("no type", b'{"data":1}'),
        ("no data", b'{"type":"Echo"}'),
        ("no name", b'{"type":"","data":1}'),
        ("a list as its name", b'{"type":["Echo"],"data":1}'),
        ("null as its name", b'{"type":null,"data":1}'),
        ("a long name", b'{"type":"%b","data":1}' % (b"x" * 256)),
        ("half of it", b'{"type":"Echo","data":{'),
        ("more behind it", b'{"type":"Echo","data":1}}'),
        ("a list", b'["Echo",1]'),
        ("a deep one", b"[" * LIMIT),
        ("deep beside the data", b'{"type":"Echo","x":%b,"data":1}' % (b"[" * 29_000)),
        ("deep objects", b'{"type":' * 7000),
        ("half a surrogate as its name", b'{"type":"\\ud83d","data":1}'),
    ):
        yield Row(what, framed(payload))
        yield Row(f"{what}, many", framed(payload) * (LIMIT // len(payload)))


def bodies() -> Iterator[Row]:
    deep = 20_000
    for what, data in (
        ("deep lists", b"[" * deep + b"]" * deep),
        ("deep objects", b'{"a":' * 9000 + b"1" + b"}" * 9000),
        ("half a surrogate", b'{"a":"\\ud83d"}'),
    ):
        # The library itself reads no deeper than it would, and drops that; else it is refused.
        yield Row(what, said("Echo", data))
    for data in (b'"x"', b"{}", b"[1.5]", b"[null]", b"[" + b"9" * 50_000 + b"]"):
        yield Row(f"no numbers: {data[:9]!r}", said("Sum", data), answers=error(400))
    yield Row("nobody", said("Nobody", b"1"), answers=error(404))
    yield Row("nobody of many", b"".join(said(f"N{n}", b"1") for n in range(2000)))
    yield Row("a route's own name", said("room.join", b"1"), answers=error(404))
    yield Row("signs in a name", said("\u202eecho\u2028", b"1"), answers=error(404))
    yield Row("lists", said("Echo", b"[" + b"[]," * 19_000 + b"1]"), answers=b"[],1]")
    keys = b",".join(b'"%d":0' % n for n in range(5000))
    yield Row("keys", said("Echo", b"{%b}" % keys), answers=b'"4999":0}')
    yield Row("JSON in a string", said("Echo", b'"' + b"[" * 30_000 + b'"'), answers=b"[[[[")
    yield Row("an Error of a client", framed(error(7) + b'"msg":"bad"}') * 100)
    yield Row("a Ping", said("Ping", b"{}"), answers=said("Pong", b"{}"))
    yield Row("Pings with much", said("Ping", b'"' + b"x" * 50_000 + b'"'))
    yield Row("Pongs", said("Pong", b"{}") * 2000)
    yield Row("2000 in one read", ASKS[0] * 2000, answers=ASKS[1] * 2000)
    yield Row("2000 that are refused", said("Sum", b"[x") * 2000 + said("Sum", b"1") * 2000)
    whole = ASKS[0] * 3
    yield Row("byte by byte", [whole[at : at + 1] for at in range(len(whole))], answers=whole)


def wrapped(name: bytes, data: bytes) -> bytes:
    """A message in Protocol Buffers, framed."""
    return framed(b"\x0a" + varint(len(name)) + name + b"\x12" + varint(len(data)) + data)


def recorded() -> Iterator[Row]:
    deep = b""
    for _ in range(2000):  # a Struct in a Value in a Struct, and so on
        inner = b"\x2a" + varint(len(deep)) + deep
        field = b"\x0a\0\x12" + varint(len(inner)) + inner
        deep = b"\x0a" + varint(len(field)) + field
    for what, payload in (
        ("junk", b"\xff" * LIMIT),
        ("half a field", b"\x0a\x7fE"),
        ("a length of exabytes", b"\x0a" + b"\xff" * 9 + b"\1"),
        ("groups", b"\x0b" * LIMIT),
        ("no name", b"\x12\1x"),
        ("a long name", b"\x0a\x80\x02" + b"x" * 256),
        ("a name that is no text", b"\x0a\2\xff\xfe"),
    ):
        yield Row(what, framed(payload))
    for what, data in (
        ("junk as data", b"\xff" * 50_000),
        ("half a field in it", b"\x0a\x7f"),
        ("deep data", deep[:50_000]),
    ):
        yield Row(what, wrapped(b"Pb", data), answers=b"\x0a\5Error\x12\x10\x08\x90\x03")
    yield Row("unknown fields", wrapped(b"Pb", b"\x78\1" * 20_000), answers=framed(b"\x0a\2Pb"))
    yield Row("names again and again", framed(b"\x0a\2Pb" * 10_000), answers=b"Pb")


def extended(name: bytes, data: bytes) -> bytes:
    """A message in MessagePack, framed."""
    head = b"\x92" + bytes((0xA0 | len(name),)) + name
    return framed(head + b"\xc8" + len(data).to_bytes(2, "big") + b"\x1b" + data)


def packed() -> Iterator[Row]:
    for what, payload in (
        ("deep lists", b"\x91" * LIMIT),
        ("deep maps", b"\x81" * LIMIT),
        ("a list of 4 G", b"\xdd\xff\xff\xff\xff"),
        ("a map of 4 G", b"\xdf\xff\xff\xff\xff"),
        ("a name of 4 G", b"\x92\xdb\xff\xff\xff\xffEcho"),
        ("an ext of 4 G", b"\x92\xa4Echo\xc9\xff\xff\xff\xff\x1b"),
        ("bytes of 4 G", b"\x92\xa4Echo\xc6\xff\xff\xff\xff"),
        ("bytes", b"\x92\xa4Echo\xc4\1\5"),
        ("another ext", b"\x92\xa4Echo\xd4\1\5"),
        ("one", b"\x91\xa4Echo"),
        ("three", b"\x93\xa4Echo\xd4\x1b\5\1"),
        ("a number as its name", b"\x92\5\xd4\x1b\5"),
        ("no UTF-8", b"\x92\xa2\xff\xfe\xd4\x1b\5"),
        ("more behind it", b"\x92\xa4Echo\xd4\x1b\5\5"),
        ("the unused byte", b"\xc1"),
        ("nothing but zeros", bytes(LIMIT)),
    ):
        yield Row(what, framed(payload))
    for what, data in (
        ("deep data", b"\x91" * 50_000),
        ("deep maps", b"\x81\xa1a" * 16_000),
        ("a list of 4 G", b"\xdd\xff\xff\xff\xff"),
        ("a map of 4 G", b"\xdf\xff\xff\xff\xff"),
        ("a string of 4 G", b"\xdb\xff\xff\xff\xff"),
        ("the unused byte", b"\xc1"),
        ("no UTF-8", b"\xa2\xff\xfe"),
        ("nothing", b""),
        ("more behind it", b"\1\2"),
        ("a time that is none", b"\xd7\xff" + b"\xff" * 8),
        ("a map as a key", b"\x81\x81\1\1\1"),
    ):
        answers = b"\x92\xa5Error\xc7"
        yield Row(f"{what}, as data", extended(b"Echo", data), answers=answers)
    nest = extended(b"Echo", b"\xd4\x1b\x91")
    yield Row("an ext in one", nest)


def frames(kind: int, other: int) -> Iterator[Row]:
    """WebSockets: a message is one of ours, of the port's kind."""
    good = b'{"type":"Echo","data":1}'
    ask = masked(kind, good)
    yield Row("good ones", ask * 100, answers=bytes((0x80 | kind, len(good))) + good)
    yield Row("the other kind", ask + masked(other, good), "the other kind", code=1003)
    yield Row("the other kind, empty", masked(other, b""), "the other kind", code=1003)
    yield Row("too large", masked(kind, b"x" * (LIMIT + 1)), "is over", code=1009)
    size = bytes((0x80 | kind,)) + b"\xff\x7f" + b"\xff" * 7
    yield Row("a frame of exabytes", size, "is over", code=1009)
    part = masked(kind, b"x" * 40_000, last=False)
    yield Row("too large in parts", part + masked(0, b"x" * 40_000), "is over", code=1009)
    empty = masked(kind, b"", last=False) + masked(0, b"", last=False) * 20_000
    yield Row("empty parts", [empty, masked(0, good)], answers=good)
    yield Row("empty messages", masked(kind, b"") * 10_000)
    yield Row("dropped ones", masked(kind, b"what?") * 5000)
    yield Row("with a length before it", masked(kind, framed(good)))
    if kind == 1:
        no_text = ask + masked(1, b"\xff\xfe")
        yield Row("text that is none", no_text, "not UTF-8", code=1007, answers=good)
    yield Row("an unmasked frame", bytes((0x80 | kind, 1)) + b"x", "not masked", code=1002)
    yield Row("a reserved bit", b"\xc2\x80" + bytes(4), "reserved", code=1002)
    yield Row("the end of none", masked(0, b"x"), "continues no message", code=1002)
    inside = masked(kind, b"x", last=False) + ask
    yield Row("a message in another", inside, "inside another", code=1002)
    pings = [masked(9, b"x" * 100) * 500] * 20
    yield Row("pings", [*pings, ask], answers=good)


class HotpotHostile(Hostile):
    def test_json(self) -> None:
        self.app_with()
        rows = [*lengths(2, LIMIT), *envelopes(), *bodies()]
        self.rows(Hotpot(keepalive=None, max_message=LIMIT), rows, begins=b"", asks=ASKS)

    def test_wide(self) -> None:
        """With lengths of four bytes."""
        self.app_with()
        asks = framed(ASKS[0][2:], 4), framed(ASKS[1][2:], 4)
        dialect = Hotpot(keepalive=None, length_bytes=4)
        self.rows(dialect, lengths(4, 4096), begins=b"", asks=asks)

    def test_silent(self) -> None:
        """Where refusals are not told."""
        self.app_with()
        rows = [row._replace(answers=b"") for row in bodies()]
        dialect = Hotpot(keepalive=None, max_message=LIMIT, refusals="silent")
        self.rows(dialect, rows, begins=b"", asks=ASKS)

    def test_protocol_buffers(self) -> None:
        app = self.app_with()

        @app.handler("pb")
        def pb(message: Struct) -> bytes:
            return b""

        asks = wrapped(b"Pb", b""), framed(b"\x0a\2Pb")
        dialect = Hotpot(keepalive=None, max_message=LIMIT, format="protobuf")
        self.rows(dialect, recorded(), begins=b"", asks=asks)

    def test_message_pack(self) -> None:
        self.app_with()
        ask = framed(b"\x92\xa4Echo\xd4\x1b\5")
        dialect = Hotpot(keepalive=None, max_message=LIMIT, format="msgpack")
        self.rows(dialect, packed(), begins=b"", asks=(ask, ask))

    def test_websocket(self) -> None:
        for text in (False, True):
            self.app_with()
            dialect = Hotpot(keepalive=None, max_message=LIMIT, text=text)
            rows = frames(1, 2) if text else frames(2, 1)
            self.rows(dialect, rows, begins=b"", asks=ASKS, websocket=True)

    def test_slow(self) -> None:
        """Half a message is no sign of life, nor are those of a WebSocket; a dropped one is."""
        pong, what = said("Pong", b"{}"), framed(b"what?")
        begun, goes_on = masked(2, b"x", last=False), masked(0, b"x", last=False)
        for case, websocket, first, drip, lives in (
            ("nothing", False, b"", b"", False),
            ("half a message", False, b"\x80\0", b"x", False),
            ("pings of a WebSocket", True, b"", masked(9, b""), False),
            ("half a message of one", True, begun, goes_on, False),
            ("what is no message", False, b"", what, True),
            ("Pongs that nobody asked for", False, b"", pong, True),
        ):
            with self.subTest(case=case):
                app = self.app_with()
                peer = self.join(Hotpot(keepalive=(1, 3), max_message=LIMIT), websocket)
                peer.say(first)
                for _ in range(20):
                    self.clock.advance(0.5)
                    if peer.connected:
                        peer.say(drip)
                self.assertEqual(peer.connected, lives, case)
                self.assertEqual(app.counts.lost, {} if lives else {"silent": 1})

    def test_floods(self) -> None:
        """What waits of one peer is bounded; one that does not read is lost, and only it."""
        app = self.app_with(Bounds(waiting=100_000, queued=50_000, strand=100, requests=10))
        gate: Deferred[Any] = Deferred()
        app.route("wait", lambda message: gate)
        dialect = Hotpot(keepalive=None, max_message=LIMIT)
        bystander = self.join(dialect)
        big = b'"%b"' % (b"x" * 2000)
        for what, data in (
            ("small ones", said("Wait", b"1") * 100),
            ("large ones", said("Wait", big) * 20),
        ):
            with self.subTest(what=what):
                peer = self.join(dialect)
                offered = 0
                while peer.producerState == "producing" and offered < 100:
                    peer.say(data)
                    offered += 1
                self.assertLess(offered, 20)
                link = peer.link
                self.assertLess(link._queued + link._kept, 50_000 + 2 * len(data))
                bystander.say(ASKS[0])
                self.assertEqual(b"".join(bystander.take()), ASKS[1])
                peer.end(ConnectionDone())
        frozen = self.join(dialect)
        frozen.stop_reading()
        for _ in range(100):
            if frozen.connected:
                frozen.say(said("Echo", big) * 5)
        self.assertEqual(app.counts.lost, {"slow_reader": 1})
        gate.callback(None)
        self.clock.advance(0)
        self.assertEqual((app.counts.pending, app.running, len(app.sessions)), (0, 0, 1))

"""Hostile peers of teleport, v6 and v2.5: what each of them gets, and that nobody else notices.

Each row is bytes that a peer may send. It is told a few codes or nothing, and its connection
lives, or ends with a reason in the log; another session goes on, no traceback is logged, and
memory stays within a few frames.
"""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Iterator
from struct import pack
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Bounds, Refused, SessionEnded
from fastway.app.link import Link
from fastway.app.ports import LinkFactory
from fastway.dialect import Dialect
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport2 import PULL, Packet, Teleport2
from fastway.dialect.teleport2 import PUSH as PUSH2
from fastway.dialect.teleport2 import REPLY as REPLY2
from fastway.dialect.teleport2 import write as write_packet
from fastway.dialect.teleport_fields import read_status
from fastway.dialect.teleport_frames import AUTH_CALL, AUTH_REPLY, CALL, FRAMINGS, PUSH, REPLY
from fastway.dialect.teleport_frames import Frame as F
from tests.support.logs import LogLines
from tests.support.teleport import KNOWN, Memory

LIMIT = 64 * 1024
"""Bytes of a frame, in all of these."""

MEMORY = 24 * LIMIT
"""What one row may take while it is handled."""

HUGE = 1 << 30
J, S, P, Z = b"jspz"


class Row(NamedTuple):
    """One peer.

    Attributes:
        ends: What the log says of why it was lost; "": it was not.
        codes: Of the answers that it got; 0: one that is no error.
    """

    what: str
    data: bytes
    ends: str = ""
    codes: tuple[int, ...] = ()


def packed(body: bytes, times: int) -> bytes:
    """Compressed so often."""
    for _ in range(times):
        body = gzip.compress(body, 9, mtime=0)
    return body


BOMB = packed(bytes(16 << 20), 1)
NESTED = {times: packed(bytes(16 << 20), times) for times in (2, 3, 8)}
DEEP = b"[" * 30_000
KEYS = b"&".join(b"%x=%x" % (n, n) for n in range(10_000))[:60_000]


class _Sealed(NamedTuple):
    """A filter that writes what it is given, as it stands."""

    data: bytes

    def pack(self, data: bytes) -> bytes:
        return self.data

    def unpack(self, data: bytes, limit: int) -> bytes:
        return data


def frame(proto: str, frame: F, payload: bytes | None = None, cut: int | None = None) -> bytes:
    """Its bytes; `payload`: instead of what went through its filters."""
    filters: dict[int, Any] = dict(KNOWN)
    if payload is not None:
        filters |= {one: _Sealed(payload) for one in frame.filters}
    return FRAMINGS[proto][0].write(frame, filters, HUGE)[:cut]


def size(proto: str, number: int) -> bytes:
    """A head that says so many bytes; frames that are not raw do not count four of them."""
    return pack(">I", (number if proto == "raw" else max(0, number - 4)) & 0xFFFFFFFF)


def all_frames(proto: str) -> Iterator[Row]:
    """What can be said in each kind of frame."""

    def row(what: str, one: F, ends: str = "", *codes: int, **how: Any) -> Row:
        return Row(what, frame(proto, one, **how), ends, codes)

    call = F(CALL, 1, b"/echo", codec=J)
    # What is compressed.
    for times, data in ((1, BOMB), *NESTED.items()):
        bomb = call._replace(filters=b"g" * times)
        yield row(f"a bomb {times} deep", bomb, "compressed message of more", payload=data)
    yield row("nine filters", call._replace(filters=b"m" * 9), "9 filters: at most 8")
    many = call._replace(filters=b"g" * 255)
    yield row("255 filters", many, "at most 8", payload=b"x" * 100)
    yield row("an unknown filter", call._replace(filters=b"z"), "filter 122", payload=b"x")
    yield row("no gzip", call._replace(filters=b"g"), "is not", payload=b"x" * 100)
    yield row("half a gzip", call._replace(filters=b"g"), "cut off", payload=BOMB[:10])
    more = gzip.compress(b"x") + b"more"
    yield row("more behind a gzip", call._replace(filters=b"g"), "more behind", payload=more)
    yield row("a wrong md5", call._replace(filters=b"m"), "md5", payload=b"x" * 100)
    yield row("no md5", call._replace(filters=b"m"), "md5", payload=b"x")
    # Bodies.
    yield row("deep JSON", call._replace(body=DEEP), "", 400)
    lists = b"[" + b"[]," * 19_000 + b"1]"
    yield row("many small lists", call._replace(body=lists), "", 0)
    yield row("half of JSON", call._replace(body=b'{"a":'), "", 400)
    yield row("no UTF-8", call._replace(body=b'"\xff\xfe"'), "", 400)
    yield row("a long number", call._replace(method=b"/number", body=b"9" * 60_000), "", 400)
    plain = call._replace(method=b"/number", codec=S)
    yield row("a long number, plain", plain._replace(body=b"9" * 60_000), "", 400)
    yield row("plain, no UTF-8", call._replace(codec=S, body=b"\xff\xfe"), "", 400)
    form = b"&".join(b"%x=" % n for n in range(9000))
    yield row("a form of 9000 fields", call._replace(codec=ord("f"), body=form), "", 400)
    yield row("a form, no UTF-8", call._replace(codec=ord("f"), body=b"\xff=1"), "", 400)
    percents = call._replace(codec=ord("f"), body=b"a=" + b"%" * 60_000)
    yield row("a form of nothing but %, whose answer is none", percents, "", 400)
    yield row("an unknown codec", call._replace(codec=Z, body=b"x"), "", 400)
    yield row("a body without a codec", call._replace(codec=0, body=b"x"), "without a codec")
    yield row("a deep PUSH", F(PUSH, 1, b"/echo", codec=J, body=DEEP))
    yield row("a PUSH to nobody", F(PUSH, 1, b"/nobody", codec=J, body=b"1"))
    # Answers that nobody waits for, and what is of no type.
    yield Row("answers to nobody", frame(proto, F(REPLY, 7, codec=J, body=b"1")) * 500)
    lost = F(REPLY, 7, status=b"code=1&" * 1100, codec=J)
    yield row("a long error to nobody", lost)
    for mtype in (0, AUTH_CALL, AUTH_REPLY, 6, 255):
        yield row(f"type {mtype}", call._replace(mtype=mtype), f"type {mtype}")
    # Numbers that come again, or are odd.
    twice = frame(proto, call._replace(body=b"1")) * 2
    yield Row("one number twice", twice, "", (0, 0))
    yield row("a number below 0", call._replace(seq=-(2**31), body=b"1"), "", 0)
    # Names.
    yield row("an empty name", call._replace(method=b""), "", 400)
    yield row("a name without end", call._replace(method=b"/" * 255), "", 404)
    yield row("a name with controls", call._replace(method=b"/\x00\r\n\x1b[31m"), "", 404)
    # Meta.
    yield row("ten thousand keys", call._replace(meta=KEYS), "more than 1000 pairs")
    yield row("a long key", call._replace(meta=b"k" * 65_000, body=b"1"), "", 0)
    yield row("nothing but %", call._replace(meta=b"%" * 60_000, body=b"1"), "", 0)
    yield row("meta, no UTF-8", call._replace(meta=b"%ff%fe=%c0%80", body=b"1"), "", 0)
    asks = b"X-Accept-Body-Codec="
    for said in (b"102", b"112"):
        yield row("wants what the answer is not in", call._replace(meta=asks + said), "", 400)
    for said in (b"999999999999999999", b"-1", b"%D9%A1", b"0", b"122"):
        yield row(f"wants codec {said!r}", call._replace(meta=asks + said, body=b"1"), "", 0)
    # Heartbeats.
    beat = F(CALL, 1, b"/heartbeat", codec=J)
    for said in (b"-1", b"1e9", b"9" * 1000, b"nan", b"%D9%A3"):
        yield row(f"a beat of {said[:9]!r}", beat._replace(meta=b"hb_=" + said), "", 400)
    yield row("a beat of no time", beat._replace(meta=b"hb_=0"), "", 0)
    yield row("a beat without a codec", beat._replace(codec=0), "", 0)
    # Sizes.
    whole = frame(proto, call._replace(body=b"1"))
    for number in (0, 3, 4):
        yield Row(f"a size of {number}", size(proto, number) + b"\0" * 16, "not even a head")
    for number in (LIMIT + 1, 1 << 31, 0xFFFFFFFF):
        yield Row(f"a size of {number}", size(proto, number), "at most")
    yield Row("a size alone", whole[:4])
    yield Row("half a frame", whole[:-1])
    yield Row("most of a frame", (size(proto, LIMIT) + b"\0" + b"x" * LIMIT)[: LIMIT - 1])
    yield Row("filters without end", size(proto, 6) + b"\xff" + b"g", "within its filters")


def raw_frames() -> Iterator[Row]:
    """What only raw frames can say."""

    def row(what: str, payload: bytes, ends: str = "within its fields", *codes: int) -> Row:
        return Row(what, pack(">IB", 5 + len(payload), 0) + payload, ends, codes)

    good = b"\x011\x01\x05/echo\x00\x06code=0\x00\x00j1"
    for at in range(16):
        yield row(f"{at} bytes of a frame", good[:at], "base 36" if at == 1 else "within its")
    yield row("a name that is too long", b"\x011\x01\xff/echo")
    yield row("a status that is too long", b"\x011\x01\x01/\xff\xffcode=0")
    yield row("meta that is too long", b"\x011\x01\x01/\x00\x00\xff\xffk")
    for seq in (b"", b"-", b"zzzzzzz", b"1_0", b" 1", b"+", b"\xd9\xa1", b"1" * 255):
        text = bytes((len(seq),)) + seq
        yield row(f"seq {seq[:9]!r}", text + good[2:], "base 36")
    yield row("a version, as Go's README has it", b"\x06" + good, "base 36")
    yield row("a name, no UTF-8", b"\x011\x01\x03/\xff\xfe" + good[9:], "", 404)
    yield row("no status", b"\x011\x01\x05/echo\x00\x00\x00\x00j1", "", 0)


def json_frames() -> Iterator[Row]:
    def row(what: str, payload: bytes, ends: str, *codes: int) -> Row:
        return Row(what, pack(">IB", 1 + len(payload), 0) + payload, ends, codes)

    good = b'{"seq":1,"mtype":1,"serviceMethod":"/echo","meta":"","bodyCodec":106,"body":"1"}'
    for what, payload in (
        ("nothing", b""),
        ("no JSON", b"\xff" * 100),
        ("deep JSON", DEEP),
        ("deep fields", b'{"seq":' + DEEP),
        ("a list", b"[1]"),
        ("half", good[:-5]),
    ):
        yield row(what, payload, "no JSON")
    yield row("bodies that begin and do not end", b'{"body":"' * 3000, "no JSON")
    many = b'{"seq":1' + b',"body":"' * 3000 + b'"}'
    yield row("many bodies", many, "a body without a codec")
    for name, value in (
        ("seq", b'"1"'),
        ("seq", b"1e400"),
        ("seq", b"9" * 5000),
        ("seq", b"2147483648"),
        ("mtype", b"256"),
        ("mtype", b"true"),
        ("bodyCodec", b"-1"),
        ("bodyCodec", b"null"),
    ):
        swapped = good.replace(b'"%b":' % name.encode(), b'"%b":%b,"x":' % (name.encode(), value))
        yield row(f"{name} {value[:9]!r}", swapped, name)
    yield row("a name that is a number", good.replace(b'"/echo"', b"1"), "serviceMethod")
    yield row("a name of halves", good.replace(b"/echo", b"/\\ud800"), "", 404)
    yield row("meta that is a list", good.replace(b'"meta":""', b'"meta":[1]'), "meta")
    yield row("a deep body", good.replace(b'"1"', b"[" * 90 + b"]" * 90), "", 0)
    yield row("a body of escapes", good.replace(b'"1"', b'"' + b"\\u0000" * 9000 + b'"'), "", 400)


def pb_frames() -> Iterator[Row]:
    def row(what: str, payload: bytes, ends: str) -> Row:
        return Row(what, pack(">IB", 1 + len(payload), 0) + payload, ends)

    for what, payload, ends in (
        ("half a number", b"\x08\xff", "within a field"),
        ("a number without end", b"\x08" + b"\xff" * 60_000, "64 bits"),
        ("a length that lies", b"\x3a\xff\xff\xff\xff\x0f", "no Protocol Buffers"),
        ("a group", b"\x0b\x0c", "no Protocol Buffers"),
        ("field 0", b"\x00\x01", "no Protocol Buffers"),
        ("a name that is a number", b"\x18\x01\x10\x01", "field 3 is a number"),
        ("a type that is text", b"\x12\x01\x01", "field 2 is no number"),
        ("a codec of 300", b"\x10\x01\x30\xac\x02", "8 bits"),
        ("thousands of fields", b"\x10\x07" * 30_000, "type 7"),
        ("half a fixed one", b"\x0d\x01", "no Protocol Buffers"),
    ):
        yield row(what, payload, ends)


def packets() -> Iterator[Row]:
    """Those of v2.5."""

    def row(what: str, one: Packet, ends: str = "", *codes: int) -> Row:
        return Row(what, write_packet(one, HUGE), ends, codes)

    def swap(what: str, body: bytes, ends: str, one: Packet) -> Row:
        plain = write_packet(one._replace(gzip=0, codec=0, body=b""), HUGE)
        told = write_packet(one._replace(codec=0, body=b""), HUGE)
        head = told[:-4] if one.gzip else plain[:-4]
        return Row(what, head + pack(">IB", 1 + len(body), one.codec) + body, ends)

    for header in (J, P):
        pull = Packet(PULL, 1, "/echo", header=header, codec=J, body=b"1")
        name = chr(header)
        small = pull._replace(gzip=5)
        yield swap(f"{name}: a bomb", BOMB, "compressed body of more", small)
        yield swap(f"{name}: no gzip", b"x" * 50, "is not", small)
        yield row(f"{name}: deep JSON", pull._replace(body=DEEP), "", 400)
        yield row(f"{name}: an unknown codec", pull._replace(codec=Z), "", 400)
        yield row(f"{name}: codec 0", pull._replace(codec=0, body=b""), "", 200)
        yield row(f"{name}: no UTF-8", pull._replace(codec=S, body=b"\xff"), "", 400)
        for kind in (0, 4, -1, 2**31 - 1):
            yield row(f"{name}: type {kind}", pull._replace(type=kind), f"type {kind}")
        answer = Packet(REPLY2, 9, "/echo", code=200, header=header, codec=J, body=b"1")
        yield Row(f"{name}: answers to nobody", write_packet(answer, HUGE) * 500)
        yield row(f"{name}: a PUSH to nobody", pull._replace(type=PUSH2, uri="/nobody"))
        yield row(f"{name}: a deep PUSH", pull._replace(type=PUSH2, body=DEEP))
        yield Row(f"{name}: a number twice", write_packet(pull, HUGE) * 2, "", (200, 200))
        yield row(f"{name}: seq of 64 bits", pull._replace(seq=2**64 - 1), "", 200)
        yield row(f"{name}: a URI that is none", pull._replace(uri="/%zz"), "", 400)
        yield row(f"{name}: no URI", pull._replace(uri=""), "", 404)
        keys = KEYS.decode()
        uri = "/echo?" + keys[:20_000]
        yield row(f"{name}: thousands of keys", pull._replace(uri=uri), "1000 pairs")
        yield row(f"{name}: a long URI", pull._replace(uri="/" * 60_000), "", 404)
        level = pull._replace(gzip=-(2**31))
        yield row(f"{name}: a level of -2^31", level, "", 200)
    good = write_packet(Packet(PULL, 1, "/echo", codec=J, body=b"1"), HUGE)
    for number in (LIMIT + 1, 1 << 31, 0xFFFFFFFF):
        yield Row(f"a header of {number}", pack(">I", number), "at most")
        yield Row(f"a body of {number}", good[:-6] + pack(">I", number), "at most")
    yield Row("no header", bytes(8), "without a header")
    yield Row("half a packet", good[:-1])
    for what, head, ends in (
        ("an unknown codec of headers", b"z{}", "header codec 122"),
        ("no JSON", b"j{", "no JSON"),
        ("deep JSON", b"j" + DEEP, "no JSON"),
        ("a list", b"j[]", "no JSON"),
        ("half a field", b"p\x08", "within a field"),
        ("a seq that is text", b'j{"seq":"1"}', "seq"),
        ("a seq below 0", b'j{"seq":-1}', "seq"),
        ("a URI that is a number", b'j{"type":1,"uri":1}', "uri"),
        ("a URI that is a number, p", b"p\x10\x01\x18\x01", "uri"),
        ("a type that is text", b"p\x12\x01\x01", "type"),
    ):
        yield Row(what, pack(">I", len(head)) + head + bytes(4), ends)


HTTP = (
    Row("a head without end", b"POST /echo HTTP/1.1\r\nX: " + b"x" * 20_000, "a head of more"),
    Row(
        "three thousand headers",
        b"POST /echo HTTP/1.1\r\n" + b"a:b\r\n" * 3000 + b"\r\n",
        "1000 pairs",
    ),
    Row(
        "a length that lies", b"POST /e HTTP/1.1\r\nContent-Length: 4000000000\r\n\r\n", "at most"
    ),
    Row("half a body", b"POST /e HTTP/1.1\r\nContent-Length: 9\r\n\r\n1"),
    Row(
        "a bomb",
        b"POST /echo HTTP/1.1\r\nX-Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
        % (len(BOMB), BOMB),
        "compressed message of more",
    ),
    Row("two lengths", b"POST / HTTP/1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "none"),
    Row("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", "no request"),
    Row("an answer to nobody", b"HTTP/1.1 200 OK\r\nX-Seq: 9\r\n\r\n"),
)


class Hostile(SynchronousTestCase):
    """One App with a good session, and hostile ones beside it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.waits: list[Deferred[Any]] = []
        self.hosts = 0
        self.app = self.app_with()

    def app_with(self, **bounds: Any) -> App:
        app = App(clock=self.clock, bounds=Bounds(**bounds))

        @app.handler("echo")
        def echo(message: Any) -> int:
            return 1

        @app.handler("number")
        def number(message: int) -> int:
            return 1

        @app.handler("wait")
        async def wait() -> None:
            self.waits.append(Deferred())
            await self.waits[-1]

        self.lost = app.counts.lost
        return app

    def join(self, dialect: Dialect) -> StringTransport:
        """A peer that is in, as far as it needs nothing to be."""
        link = LinkFactory(self.app, dialect).buildProtocol(None)
        self.hosts += 1  # lines about one host are summed up
        host = IPv4Address("TCP", f"10.0.{self.hosts // 256}.{self.hosts % 256}", 4711)
        transport = StringTransport(peerAddress=host)
        transport.link = link  # type: ignore[attr-defined]
        transport.abortConnection = lambda: self.end(transport, ConnectionLost())  # type: ignore
        link.makeConnection(transport)
        self.clock.pump([0])
        return transport

    def end(self, transport: Any, why: Exception) -> None:
        transport.disconnecting = True
        transport.link.connectionLost(Failure(why))

    def say(self, transport: Any, data: bytes) -> None:
        """In reads as they come, while it is read from."""
        for at in range(0, len(data), 65536):
            if not transport.disconnecting and transport.producerState == "producing":
                transport.link.dataReceived(data[at : at + 65536])
        self.clock.pump([0] * 3)

    def check(self, dialect: Dialect, rows: list[Row]) -> None:
        """What each row says."""
        client = App(clock=self.clock)
        connecting = client.connect(Memory(self.app, dialect, self.clock), dialect)
        self.clock.pump([0] * 5)
        good = self.successResultOf(connecting)
        for row in rows:
            self.lost.clear()
            transport: Any = self.join(dialect)
            tracemalloc.start()
            try:
                with LogLines() as log:
                    self.say(transport, row.data)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            said = self.codes(dialect, transport.value())
            lines = [line for line in log.lines if " lost: " in line]
            if row.ends:
                self.assertEqual(self.lost, {"bad_frame": 1}, row.what)
                self.assertEqual((len(lines), transport.disconnecting), (1, True), row.what)
                self.assertIn(row.ends, lines[0])
            else:
                self.assertEqual((lines, transport.disconnecting), ([], False), row.what)
            self.assertEqual(said, list(row.codes), row.what)
            self.assertLess(peak, MEMORY, row.what)
            self.assertEqual([e for e in log.events if "log_failure" in e], [], row.what)
            self.end(transport, ConnectionDone())
            self.assertEqual(len(self.app.sessions), 1, row.what)
        asked = good.request("echo", 1)
        self.clock.pump([0] * 5)
        self.assertEqual(self.successResultOf(asked), 1)
        self.assertEqual(self.app.counts.pending, 0)

    def codes(self, dialect: Dialect, data: bytes) -> list[int]:
        """What it was told: codes, and 0 where all is well."""
        wire: Any = dialect.client()
        codes: list[int] = []
        if isinstance(dialect, Teleport2):
            return list(self.codes_of_packets(data))
        framing = wire._settings.framing
        while data:
            length = framing.size(data, 0)
            one = framing.read(data[:length], KNOWN, HUGE)
            refused = read_status(one.status)
            codes.append(0 if refused is None else refused.code)
            data = data[length:]
        return codes

    def codes_of_packets(self, data: bytes) -> Iterator[int]:
        from fastway.dialect.teleport2 import read, size_of

        while data:
            length = size_of(data, 0, len(data), HUGE)
            yield read(data[:length], HUGE).code
            data = data[length:]

    def test_raw(self) -> None:
        self.check(Teleport(max_frame=LIMIT), [*all_frames("raw"), *raw_frames()])

    def test_json(self) -> None:
        self.check(Teleport(proto="json", max_frame=LIMIT), [*all_frames("json"), *json_frames()])

    def test_pb(self) -> None:
        self.check(Teleport(proto="pb", max_frame=LIMIT), [*all_frames("pb"), *pb_frames()])

    def test_http(self) -> None:
        self.check(Teleport(proto="http", max_frame=LIMIT), list(HTTP))

    def test_v2(self) -> None:
        self.check(Teleport2(max_frame=LIMIT), list(packets()))

    def test_messages(self) -> None:
        """Over WebSocket, where a message is a frame, and its body alone is compressed."""
        for proto in ("json", "pb"):
            for what, one, data in (
                ("a bomb", F(CALL, 1, b"/echo", codec=J, filters=b"g"), BOMB),
                ("a nested one", F(CALL, 1, b"/echo", codec=J, filters=b"gg"), NESTED[2]),
                ("many filters", F(CALL, 1, b"/echo", codec=J, filters=b"g" * 9), BOMB),
                ("unknown ones", F(CALL, 1, b"/echo", codec=J, filters=b"z"), b"x"),
                ("no codec", F(CALL, 1, b"/echo"), b"x"),
                ("keys", F(CALL, 1, b"/echo", meta=KEYS, codec=J), b"1"),
            ):
                filters = {one: _Sealed(data) for one in one.filters}
                message = FRAMINGS[proto][1].write(one._replace(body=data), filters, HUGE)
                self.message(proto, what, message)
        deep = b'{"seq":1,"mtype":1,"serviceMethod":"/echo","bodyCodec":106,"xferPipe":%b}'
        for pipe in (b'["g"]', b"[256]", b"[-1]", b"[1e9]", b"[true]", DEEP, b"[[1]]"):
            self.message("json", repr(pipe[:9]), deep % pipe)

    def message(self, proto: str, what: str, data: bytes) -> None:
        wire = Teleport(proto=proto, max_frame=LIMIT).server(whole=True)
        wire.begin(0.0)
        wire.receive(b"", 0.0)
        tracemalloc.start()
        try:
            heard = wire.receive(data, 0.0)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual((heard, wire.error is None), ([], False), what)
        self.assertLess(peak, MEMORY, what)

    # What takes time.

    def lose(self, transport: Any, reason: str) -> None:
        self.assertEqual(self.lost, {reason: 1})
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.app.sessions, {})
        self.lost.clear()

    def test_handshakes(self) -> None:
        """Who does not say who he is, not in time, or much behind it."""
        dialect = Teleport(auth=True, max_frame=LIMIT)
        hello = frame("raw", F(AUTH_CALL, 1, codec=S, body=b"tok"))
        call = frame("raw", F(CALL, 2, b"/echo", codec=J, body=b"1"))
        self.app.handshake(lambda session, user: Deferred())
        for what, data, reason in (
            ("nothing", b"", "handshake_timeout"),
            ("half", hello[:-1], "handshake_timeout"),
            ("hello, and no decision", hello, "handshake_timeout"),
            ("a few behind it", hello + call * 100, "handshake_timeout"),
            ("a flood behind it", hello + call * 100_000, "bad_frame"),
            ("a call first", call, "bad_frame"),
            ("an answer first", frame("raw", F(AUTH_REPLY, 1, codec=S)), "bad_frame"),
            (
                "a hello in no codec",
                frame("raw", F(AUTH_CALL, 1, codec=Z, body=b"x")),
                "bad_frame",
            ),
            ("a deep hello", frame("raw", F(AUTH_CALL, 1, codec=J, body=DEEP)), "bad_frame"),
        ):
            transport = self.join(dialect)
            tracemalloc.start()
            self.flood(transport, data)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertLess(peak, MEMORY, what)
            for _ in range(0 if transport.disconnecting else 110):
                self.clock.advance(0.1)
            self.lose(transport, reason)
            self.end(transport, ConnectionDone())
        self.assertEqual(self.flushLoggedErrors(), [])

    def flood(self, transport: Any, data: bytes) -> None:
        """As a transport that heeds no pause: who is at his handshake is not asked to."""
        for at in range(0, len(data), 65536):
            if not transport.disconnecting:
                transport.link.dataReceived(data[at : at + 65536])

    def test_floods(self) -> None:
        """Of calls and of pushes: so many run, and the rest waits in the network."""
        for mtype in (CALL, PUSH):
            self.app = self.app_with()
            transport = self.join(Teleport(max_frame=LIMIT))
            calls = frame("raw", F(mtype, 1, b"/wait", codec=J)) * 100_000
            tracemalloc.start()
            self.say(transport, calls)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertLess(peak, 4 * MEMORY)  # a read of small ones
            self.assertEqual((self.app.running, transport.producerState), (64, "paused"))
            other = self.join(Teleport())
            self.say(other, frame("raw", F(CALL, 1, b"/echo", codec=J, body=b"1")))
            self.assertEqual(self.codes(Teleport(), other.value()), [0])
            self.end(transport, ConnectionDone())
            while self.waits:
                self.waits.pop().callback(None)
                self.clock.pump([0])
            self.assertEqual((self.app.running, self.app.counts.pending), (0, 0))

    def test_who_does_not_read(self) -> None:
        """Whatever is answered at once is not kept for ever either."""
        for one in (
            F(CALL, 1, b"/heartbeat", codec=J),
            F(CALL, 1, b"", codec=J),
            F(CALL, 1, b"/no", codec=J),
            F(CALL, 1, b"/echo", codec=J, body=b"1"),
        ):
            self.app = self.app_with(waiting=LIMIT)
            transport: Any = self.join(Teleport(max_frame=LIMIT))
            transport.link.pauseProducing()
            tracemalloc.start()
            self.say(transport, frame("raw", one) * 100_000)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertLess(peak, 4 * MEMORY)
            self.lose(transport, "slow_reader")

    def test_servers(self) -> None:
        """What a hostile server answers its client, who waits for an answer and a second one."""
        good = F(REPLY, 1, codec=J, body=b"1")
        for what, answers, lost, kind in (
            ("twice", [good, good._replace(body=b"2")], False, None),
            ("none of JSON", [good._replace(body=DEEP)], False, Refused),
            ("an unknown codec", [good._replace(codec=Z)], False, Refused),
            ("no body at all", [good._replace(codec=0, body=b"")], False, None),
            ("a codec and no body", [good._replace(codec=0)], True, SessionEnded),
            ("a long error", [good._replace(status=b"code=1&" * 1100)], True, SessionEnded),
            ("an odd error", [good._replace(status=b"code=x&msg=%ff")], False, Refused),
            (
                "an error of any length",
                [good._replace(status=b"code=" + b"9" * 60_000)],
                False,
                Refused,
            ),
            ("thousands of keys", [good._replace(meta=KEYS)], True, SessionEnded),
            ("a hello", [F(AUTH_CALL, 1, codec=S)], True, SessionEnded),
            ("what says yes", [F(AUTH_REPLY, 1, codec=S)], True, SessionEnded),
            ("of others", [good._replace(seq=9), good._replace(seq=-1)], False, Deferred),
        ):
            session, transport = self.client()
            asked, other = session.request("echo", 1), session.request("echo", 2)
            for one in answers:
                self.say(transport, frame("raw", one))
            self.assertEqual(transport.disconnecting, lost, what)
            if lost:
                self.end(transport, ConnectionDone())
            if kind is None:
                self.successResultOf(asked)
            elif kind is Deferred:
                self.assertNoResult(asked)
            else:
                self.failureResultOf(asked, kind)
            self.end(transport, ConnectionDone())
            for one in (asked, other):
                one.addErrback(lambda _: None)
        session, transport = self.client()
        asked = session.request("echo", 1)
        bomb = F(REPLY, 1, codec=J, filters=b"gg")
        tracemalloc.start()
        self.say(transport, frame("raw", bomb, payload=NESTED[2]))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.end(transport, ConnectionDone())
        self.failureResultOf(asked, SessionEnded)
        self.assertLess(peak, MEMORY)
        self.assertEqual(self.flushLoggedErrors(), [])

    def client(self) -> tuple[Any, Any]:
        """A session with a server that is a transport."""
        made: list[Any] = []
        dialect = Teleport(max_frame=LIMIT)
        link = Link(self.app, dialect, dialect.client(), made.append)
        transport: Any = StringTransport()
        transport.link = link
        transport.abortConnection = lambda: self.end(transport, ConnectionLost())
        link.makeConnection(transport)
        return made[0], transport

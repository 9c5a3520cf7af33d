"""Tests of teleport's httproto: its frames, an App that speaks it, and plain clients of HTTP.

What is compared byte by byte was recorded from unmodified Go peers.
"""

from __future__ import annotations

import gzip
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Body, NotInDialect, Refused, Request, Session
from fastway.app.ports import LinkFactory
from fastway.dialect import Answer, BadFrame, FrameRefused, Message
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport_fields import read_meta, read_status
from fastway.dialect.teleport_frames import AUTH_CALL, CALL, PUSH, REPLY, Frame
from fastway.dialect.teleport_http import HttpFrames
from fastway.formats import Text
from tests.support.errors import raised
from tests.support.logs import LogLines
from tests.support.teleport import KNOWN, LIMIT, Memory, client, heard, server

GO_CALL = (
    b"POST /math/add HTTP/1.1\r\nAccept-Encoding: gzip\r\nContent-Length: 7\r\n"
    b"Content-Type: application/json;charset=utf-8\r\nUser-Agent: erpc-httproto/1.1\r\n"
    b"X-Mtype: 1\r\nX-Seq: 1\r\n\r\n[1,2,3]"
)
GO_REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Type: application/json;charset=utf-8\r\n"
    b"X-Mtype: 2\r\nX-Seq: 7\r\n\r\n3"
)
GO_ERROR = (
    b"HTTP/1.1 299 Business Error\r\nContent-Length: 55\r\nContent-Type: application/json\r\n"
    b'X-Mtype: 2\r\nX-Seq: 8\r\n\r\n{"code":1001,"msg":"division by zero","cause":"B is 0"}'
)
GO_GZIP = (
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 25\r\n"
    b"Content-Type: application/json;charset=utf-8\r\nX-Content-Encoding: gzip\r\nX-Mtype: 2\r\n"
    b"X-Seq: 7\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\xff2\x06\x04\0\0\xff\xff\x9b\x8e\xd2m\x01\0\0\0"
)
FAILED = b"code=1001&msg=division%20by%20zero&cause=B%20is%200"


def write(frame: Frame, limit: int = LIMIT) -> bytes:
    return HttpFrames().write(frame, KNOWN, limit)


def read(data: bytes) -> Frame:
    return HttpFrames().read(data, KNOWN, LIMIT)


class Frames(SynchronousTestCase):
    """`HttpFrames`."""

    def test_recorded(self) -> None:
        """The bytes of Go, both ways."""
        call = Frame(CALL, 1, b"/math/add", codec=106, body=b"[1,2,3]")
        reply = Frame(REPLY, 7, codec=106, body=b"3")
        error = Frame(REPLY, 8, status=FAILED)
        for frame, data in ((call, GO_CALL), (reply, GO_REPLY), (error, GO_ERROR)):
            self.assertEqual(write(frame), data)
            self.assertEqual(read(data), frame)
        self.assertEqual(read(GO_GZIP), reply._replace(filters=b"g"))
        packed = write(reply._replace(filters=b"g"))
        self.assertEqual(read(packed), reply._replace(filters=b"g"))

    def test_errors_that_are_packed(self) -> None:
        frame = Frame(REPLY, 1, status=FAILED, filters=b"g")
        data = write(frame)
        self.assertNotIn(b"division", data)
        self.assertEqual(read(data), frame)

    def test_meta(self) -> None:
        """A query first, then headers; what is HTTP's own is none, either way."""
        data = (
            b"POST http://game:9090/math/a%20dd?k=v%20w&k HTTP/1.1\r\nHost: game\r\n"
            b"Accept: */*\r\nx-seq: -5\nX-Real-IP:  192.0.2.7 \r\n\r\n"
        )
        frame = read(data)
        self.assertEqual((frame.method, frame.seq, frame.mtype), (b"/math/a dd", -5, CALL))
        meta = [("k", "v w"), ("k", ""), ("Accept", "*/*"), ("X-Real-IP", "192.0.2.7")]
        self.assertEqual(read_meta(frame.meta), meta)
        again = write(Frame(CALL, 1, b"/a dd?b", meta=b"Host=a&x-real-ip=%C3%A9&k="))
        self.assertIn(b"POST /a%20dd%3Fb HTTP/1.1\r\n", again)
        self.assertNotIn(b"Host", again)
        self.assertEqual(read(again).method, b"/a dd?b")
        self.assertEqual(read_meta(read(again).meta), [("k", ""), ("x-real-ip", "é")])

    def test_what_does_not_fit(self) -> None:
        for error, frame in (
            (NotInDialect, Frame(PUSH, 1, b"/a")),
            (FrameRefused, Frame(CALL, 1, b"/a", codec=116, body=b"1")),
            (FrameRefused, Frame(CALL, 1, b"/a", filters=b"m")),
            (FrameRefused, Frame(CALL, 1, b"/a", filters=b"gg")),
            (FrameRefused, Frame(CALL, 1, b"/a", meta=b"a%0D%0Ab=c")),
            (FrameRefused, Frame(CALL, 1, b"/a", meta=b"a=" + b"b" * 20000)),
            (FrameRefused, Frame(CALL, 1, b"/a", codec=106, body=b"1" * 2000)),
        ):
            raised(error, write, frame, 1024 if frame.body else LIMIT)

    def test_no_header_is_smuggled(self) -> None:
        """Ends of lines are spaces, as Go has it; of an answer what is no name is left out."""
        for mtype in (CALL, REPLY):
            data = write(Frame(mtype, 1, b"/a", meta=b"a=b%0D%0AX-Seq:%209"))
            self.assertIn(b"a: b  X-Seq: 9\r\n", data)
            self.assertEqual(read(data).seq, 1)
        answer = write(Frame(REPLY, 1, meta=b"a%0D%0Ab=c&%C3%A9=1&k=v"))
        self.assertEqual(read_meta(read(answer).meta), [("k", "v")])

    def test_bad(self) -> None:
        """One line of ours for each."""
        ok = b"POST /a HTTP/1.1\r\n%b\r\n\r\n"
        for head in (
            b"Content-Length: 1\r\nContent-Length: 2",
            b"Content-Length: -1",
            b"Content-Length: 1e3",
            b"Content-Length: 99999999999",
            b"Transfer-Encoding: chunked",
            b"Origin: http://evil.example",
            b"no header",
            b" folded: 1",
            b"X-Seq: 2147483648",
            b"X-Seq: 1.5",
            b"X-Mtype: 256",
            b"X-Mtype: -1",
            b"X-Content-Encoding: deflate",
            b"X-Content-Encoding: gzip\r\nX-Content-Encoding: gzip",
        ):
            self.bad(ok % head)
        for data in (
            b"\r\n\r\n",
            b"POST\r\n\r\n",
            b"POST /a\r\n\r\n",
            b"POST /a b HTTP/1.1\r\n\r\n",
            b"GET /math/add HTTP/1.1\r\n\r\n",
            b"POST /a HTTP/2\r\n\r\n",
            b"POST http://[ HTTP/1.1\r\n\r\n",
            b"POST /\xff HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 299 No\r\nContent-Length: 3\r\n\r\n[1]",
            b'HTTP/1.1 299 No\r\nContent-Length: 12\r\n\r\n{"code":"x"}',
            b"a" * 20000,
        ):
            self.bad(data)

    def bad(self, data: bytes) -> None:
        wire = server(Teleport(proto="http"))
        self.assertEqual(wire.receive(data, 0.0), [], data)
        self.assertIsInstance(wire.error, BadFrame, data)

    def test_settings(self) -> None:
        for settings in (
            {"mapper": "rpc"},
            {"heartbeat": 5},
            {"pipe": "m"},
            {"pipe": "gg"},
            {"codecs": {"t": Text()}},
        ):
            raised(ValueError, Teleport, proto="http", **settings)
        dialect = Teleport(proto="http", pipe="g", heartbeat=5, heartbeat_call=True)
        self.assertIsNone(dialect.websocket)

    def test_types(self) -> None:
        """They go in X-Mtype; without one a request is a CALL."""
        for mtype in (CALL, AUTH_CALL):
            frame = Frame(mtype, 1, b"/", codec=115, body=b"tok")
            self.assertEqual(read(write(frame)), frame)
        self.assertIsNotNone(read_status(read(GO_ERROR).status))

    @given(st.lists(st.integers(1, 60), max_size=20))
    def test_cuts(self, cuts: list[int]) -> None:
        """However it is cut, the same is read."""
        calls, answers = GO_CALL * 3, GO_REPLY.replace(b"Seq: 7", b"Seq: 1") + GO_ERROR
        for wire, data, count in (
            (server(Teleport(proto="http")), calls, 3),
            (client(Teleport(proto="http")), answers, 1),
        ):
            wire.request("a", b"1")
            pieces, at = [], 0
            for cut in cuts:
                pieces.append(data[at : at + cut])
                at += cut
            events = heard(wire, [*pieces, data[at:]])
            self.assertIsNone(wire.error)
            self.assertEqual(len(events), count)
            self.assertTrue(all(isinstance(one, (Message, Answer)) for one in events))

    @given(
        st.binary(max_size=300), st.sampled_from([GO_CALL, GO_REPLY, GO_GZIP]), st.integers(0, 150)
    )
    def test_anything(self, noise: bytes, frame: bytes, at: int) -> None:
        """Nothing is raised, whatever comes."""
        wire = server(Teleport(proto="http"))
        wire.receive(frame[:at] + noise + frame[at:], 0.0)
        wire.receive(b"\r\n\r\n", 0.0)


class Apps(SynchronousTestCase):
    """Two of ours, and a client of HTTP."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = App(clock=self.clock)
        self.app = App(clock=self.clock)
        self.server.route("math.add", lambda numbers: sum(numbers))

        @self.server.handler("math.div")
        def div(request: Request) -> int:
            request.answer_meta.append(("seen", dict(request.meta).get("k", "")))
            numbers: list[int] = request.decode(list[int])
            if not numbers[1]:
                raise Refused(1001, "division by zero", "b is 0")
            return numbers[0] // numbers[1]

        @self.server.handler("ask")
        async def ask(session: Session) -> Any:
            return await session.request("name")

        self.app.route("name", lambda: "ann")

    def connect(self, **settings: Any) -> Session:
        dialect = Teleport(proto="http", **settings)
        connecting = self.app.connect(Memory(self.server, dialect, self.clock), dialect)
        self.clock.pump([0] * 10)
        session = self.successResultOf(connecting)
        assert isinstance(session, Session)
        return session

    def test_both_ways(self) -> None:
        """Questions to either end, errors, meta, codecs, gzip, auth; no PUSH."""
        self.server.handshake(lambda session, user: session.bind(user))
        for settings in ({}, {"pipe": "g"}, {"auth": True, "user": "ann"}):
            session = self.connect(**settings)
            heard: list[tuple[str, str]] = []
            asked = [
                session.request("math.add", [1, 2]),
                session.request("math.div", [6, 3], meta=[("k", "é")], answer_meta=heard),
                session.request("ask"),
                session.request("math.add", Body(b"[3]", "j")),
            ]
            no = session.request("math.div", [1, 0])
            self.clock.pump([0] * 10)
            self.assertEqual([self.successResultOf(one) for one in asked], [3, 2, "ann", 3])
            self.assertEqual(heard, [("seen", "é")])
            refused = self.failureResultOf(no, Refused).value
            self.assertEqual((refused.code, refused.data), (1001, "b is 0"))
            raised(NotInDialect, session.send, "math.add", [1])
            session.close()
            self.clock.pump([0] * 10)

    def test_plain_clients(self) -> None:
        """One that knows nothing of teleport, and one that asks by hand."""
        link = LinkFactory(self.server, Teleport(proto="http")).buildProtocol(None)
        transport = StringTransport()
        link.makeConnection(transport)
        self.clock.pump([0])
        for body, packed in ((b"[1,2]", b""), (gzip.compress(b"[4,5]"), b"gzip")):
            more = b"X-Content-Encoding: gzip\r\n" if packed else b""
            link.dataReceived(
                b"POST /math/add HTTP/1.1\r\nhost: a\r\ncontent-type: Application/JSON\r\n"
                b"content-length: %d\r\n%b\r\n%b" % (len(body), more, body)
            )
        self.clock.pump([0])
        first, _, rest = transport.value().partition(b"\r\n\r\n")
        self.assertIn(b"HTTP/1.1 200 OK", first)
        self.assertEqual(rest[:1], b"3")
        self.assertEqual(read(rest[1:]).body, b"9")

    def test_pages(self) -> None:
        """No page in a browser can ask: what it says of itself ends the connection."""
        link = LinkFactory(self.server, Teleport(proto="http")).buildProtocol(None)
        transport = StringTransport()
        link.makeConnection(transport)
        with LogLines() as log:
            link.dataReceived(b"POST /math/add HTTP/1.1\r\nOrigin: http://a\r\n\r\n")
        self.assertTrue(transport.disconnecting)
        self.assertIn("a page in a browser", " ".join(log.lines))

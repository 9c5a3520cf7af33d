"""Tests of fastway.dialect.teleport_thrift_frames, beside thrift's own library."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from thrift.protocol.THeaderProtocol import THeaderProtocol
from thrift.Thrift import TMessageType
from thrift.transport.THeaderTransport import THeaderClientType
from thrift.transport.TTransport import TMemoryBuffer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, NotInDialect, Refused, Request, Session
from fastway.dialect import Answer, BadFrame, FrameRefused, Message
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport_frames import AUTH_CALL, CALL, PUSH, REPLY, Frame
from fastway.dialect.teleport_thrift_frames import ThriftFrames
from tests.support.core import DETERMINISTIC
from tests.support.errors import raised
from tests.support.teleport import KNOWN, LIMIT, Memory, client, heard, server

GO_CALL = bytes.fromhex(  # spec teleport.md 4, T-1
    "000000630fff000000000001000f000001040954702d53746174757306636f64653d300754702d4d657461000c"
    "54702d426f6479436f646563016a0b54702d586665725069706500000080010001000000084d6174682e416464"
    "00000001000000055b312c325d"
)
CALLED = Frame(CALL, 1, b"Math.Add", codec=106, body=b"[1,2]")


def read(data: bytes, limit: int = LIMIT) -> Frame:
    assert ThriftFrames().size(data, 0) == len(data)
    return ThriftFrames().read(data, KNOWN, limit)


def write(frame: Frame, limit: int = LIMIT) -> bytes:
    return ThriftFrames().write(frame, KNOWN, limit)


def theirs(data: bytes = b"") -> tuple[THeaderProtocol, TMemoryBuffer]:
    """Thrift's own end of it."""
    buffer = TMemoryBuffer(data) if data else TMemoryBuffer()
    return THeaderProtocol(buffer, [THeaderClientType.HEADERS]), buffer


class Frames(SynchronousTestCase):
    def test_recorded(self) -> None:
        """The bytes of Go, both ways, and all that a frame can say."""
        self.assertEqual(read(GO_CALL), CALLED)
        self.assertEqual(write(CALLED), GO_CALL)
        for frame in (
            Frame(REPLY, -1, status=b"code=404&msg=no&cause="),
            Frame(PUSH, 2**31 - 1, b"Push.Say", meta=b"k=" + b"v" * 300, codec=115, body=b"hi"),
            Frame(REPLY, 7, codec=106, body=b"3" * 1000, filters=b"gm"),
            Frame(CALL, 1, b"A.B", meta=b"k=" + b"v" * 60_000),
        ):
            self.assertEqual(read(write(frame)), frame)

    def test_of_thrift(self) -> None:
        """Its library writes what we read, and reads what we write."""
        protocol, buffer = theirs()
        protocol.trans.set_header(b"Tp-Status", b"code=0")
        protocol.trans.set_header(b"Tp-BodyCodec", b"j")
        protocol.trans.set_header(b"other", b"x" * 200)
        protocol.writeMessageBegin("Math.Add", TMessageType.CALL, 1)
        protocol.writeBinary(b"[1,2]")
        protocol.writeMessageEnd()
        protocol.trans.flush()
        self.assertEqual(read(buffer.getvalue()), CALLED)
        protocol, _ = theirs(write(Frame(PUSH, 9, b"a.b", meta=b"k=v", codec=115, body=b"hi")))
        self.assertEqual(protocol.readMessageBegin(), ("a.b", TMessageType.ONEWAY, 9))
        self.assertEqual(protocol.readBinary(), b"hi")
        said = {b"Tp-Status": b"code=0", b"Tp-Meta": b"k=v", b"Tp-BodyCodec": b"s"}
        self.assertEqual(protocol.trans.get_headers(), {**said, b"Tp-XferPipe": b""})

    def test_what_does_not_fit(self) -> None:
        for error, frame, limit in (
            (NotInDialect, Frame(AUTH_CALL, 1, b"", codec=115, body=b"tok"), LIMIT),
            (FrameRefused, CALLED, len(GO_CALL) - 1),
            (FrameRefused, Frame(CALL, 1, b"a", meta=b"x" * 300_000), LIMIT),
        ):
            raised(error, write, frame, limit)

    def test_bad(self) -> None:
        """One line of ours for each."""
        for at, wrong in (
            (4, "0e"),  # no header
            (12, "00ff"),  # longer than the frame
            (14, "02"),  # the compact protocol
            (15, "01"),  # through a transform
            (15, "ffffffffff"),
            (17, "ff7f"),  # more pairs than there are
            (18, "7f"),  # a name that is longer
            (74, "00"),  # no message of the binary protocol
            (77, "03"),  # an exception
            (78, "7fffffff"),
            (94, "00000004"),  # more behind the body
            (94, "00000006"),
        ):
            data = bytearray(GO_CALL)
            data[at : at + len(wrong) // 2] = bytes.fromhex(wrong)
            wire = server(Teleport(proto="thrift"))
            self.assertEqual(wire.receive(bytes(data), 0.0), [], at)
            self.assertIsInstance(wire.error, BadFrame, at)
        for length in range(10):
            raised(BadFrame, read, length.to_bytes(4, "big") + GO_CALL[4 : 4 + length])
        raised(BadFrame, read, write(CALLED._replace(meta=b"x" * 70_000)))

    @given(st.lists(st.integers(1, 60), max_size=20))
    @DETERMINISTIC
    def test_cuts(self, cuts: list[int]) -> None:
        """However it is cut, the same is read."""
        wire, asks = server(Teleport(proto="thrift")), client(Teleport(proto="thrift"))
        asks.request("a", b"1")
        answers = write(Frame(REPLY, 1, codec=106, body=b"3")) * 2
        for end, data, count in ((wire, GO_CALL * 3, 3), (asks, answers, 1)):
            pieces, at = [], 0
            for cut in cuts:
                pieces.append(data[at : at + cut])
                at += cut
            events = heard(end, [*pieces, data[at:]])
            self.assertIsNone(end.error)
            self.assertEqual(len(events), count)
            self.assertTrue(all(isinstance(one, (Message, Answer)) for one in events))

    @given(st.binary(max_size=100), st.integers(0, 110), st.integers(0, 110))
    @DETERMINISTIC
    def test_anything(self, noise: bytes, at: int, end: int) -> None:
        """Nothing is raised, whatever comes."""
        wire = server(Teleport(proto="thrift"))
        wire.receive(GO_CALL[:at] + noise + GO_CALL[end:] + GO_CALL, 0.0)


class Apps(SynchronousTestCase):
    def test_settings(self) -> None:
        for settings in ({"auth": True}, {"user": "ann"}):
            raised(ValueError, Teleport, proto="thrift", **settings)
        dialect = Teleport(proto="thrift")
        self.assertIsNone(dialect.websocket)
        raised(NotInDialect, dialect.with_user, "ann")

    def test_both_ways(self) -> None:
        """Questions to either end, pushes, errors, meta, filters."""
        clock = Clock()
        near, far = App(clock=clock), App(clock=clock)
        told: list[Any] = []
        near.route("math.add", lambda numbers: sum(numbers))

        @near.handler("math.fail")
        def fail(request: Request) -> None:
            raise Refused(1001, "no", dict(request.meta)["k"])

        @near.handler("ask")
        async def ask(session: Session) -> Any:
            session.send("told", "ü")
            return await session.request("name")

        far.route("told", told.append)
        far.route("name", lambda: "ann")
        for settings in ({}, {"pipe": "gm", "mapper": "rpc"}):
            dialect = Teleport(proto="thrift", **settings)  # type: ignore[arg-type]
            connecting = far.connect(Memory(near, dialect, clock), dialect)
            clock.pump([0] * 10)
            session = self.successResultOf(connecting)
            asked = [session.request("math.add", [1, 2]), session.request("ask")]
            no = session.request("math.fail", meta=[("k", "é")])
            clock.pump([0] * 10)
            self.assertEqual([self.successResultOf(one) for one in asked], [3, "ann"])
            refused = self.failureResultOf(no, Refused).value
            self.assertEqual((refused.code, refused.data), (1001, "é"))
            session.close()
            clock.pump([0] * 10)
        self.assertEqual(told, ["ü"] * 2)

"""Tests of teleport in the words of thrift, with bytes as a Go peer wrote them."""

from __future__ import annotations

import gzip
from struct import pack
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Refused, Session
from fastway.dialect import BadFrame, FrameRefused, Message, NotInDialect
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport_frames import AUTH_CALL, CALL, PUSH, REPLY, Frame
from fastway.dialect.teleport_theader import ThriftFrames
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised
from tests.support.teleport import BYTES, KNOWN, LIMIT, Memory, client, server

T_1 = BYTES["T-1"]
FRAMES = ThriftFrames()


def read(data: bytes) -> Frame:
    return FRAMES.read(data, KNOWN, LIMIT)


def write(frame: Frame) -> bytes:
    return FRAMES.write(frame, KNOWN, LIMIT)


def thrift(**more: Any) -> Teleport:
    return Teleport(proto="thrift", mapper="rpc", **more)


def made(head: bytes, said: bytes | None = None) -> bytes:
    """A frame with that head, and the message of T-1 if no other is said."""
    head += bytes(-len(head) % 4)
    said = T_1[74:] if said is None else said
    return pack(">IHHiH", 10 + len(head) + len(said), 0xFFF, 0, 1, len(head) // 4) + head + said


class Frames(SynchronousTestCase):
    def test_recorded(self) -> None:
        """What a Go peer wrote is read, and written."""
        frame = Frame(CALL, 1, b"Math.Add", b"code=0", b"", 106, b"[1,2]")
        self.assertEqual((read(T_1), write(frame)), (frame, T_1))
        key, asked = client(thrift()).request("math.add", b"[1,2]")
        self.assertEqual((key, asked), (1, T_1))
        (event,) = server(thrift()).receive(T_1, 0.0)
        assert isinstance(event, Message)
        self.assertEqual((event.route, event.body), ("math.add", b"[1,2]"))

    def test_head(self) -> None:
        """What stands beside a message has any order, and may lack; the first unknown kind of it
        is its end, as for Go."""
        body = b"\x0cTp-BodyCodec\x01s"
        status = b"\x09Tp-Status\x06code=1"
        self.assertEqual(read(made(b"\0\0\1\2" + body + status)).status, b"code=1")
        for head in (b"\0\0\1\1" + body, b"\0\0\1\1" + body + b"\2\x7f", b"\0\0\1\0\1\1" + body):
            frame = read(made(head))
            self.assertEqual((frame.codec, frame.status, frame.meta), (115, b"code=0", b""))
        self.assertEqual(read(made(b"\0\0")).codec, 0)

    def test_bad(self) -> None:
        """What is none has a reason of one line."""
        begin, said = b"\0\0\1\1", T_1[74:]
        for what, data, problem in (
            ("no THeader", T_1[:4] + b"\x0f\xfe" + T_1[6:], "no THeader"),
            ("no THeader, but a message", pack(">I", len(said)) + said, "no THeader"),
            ("the compact protocol", made(b"\2\0"), "binary protocol"),
            ("compressed by thrift", made(b"\0\1\1"), "or compressed"),
            ("an exception", made(b"\0\0", b"\x80\1\0\3" + said[4:]), "no call"),
            ("another version", made(b"\0\0", b"\x80\2\0\1" + said[4:]), "no call"),
            ("more behind", made(b"\0\0", said + b"x"), "more behind"),
            ("a head without an end", T_1[:12] + b"\xff\xff" + T_1[14:], "no THeader"),
            ("many things beside", made(begin[:3] + b"\xff" * 8 + b"\x7f"), "within"),
            ("a long name", made(begin + b"\xff\xff\xff\x7f"), "within"),
            ("a number without end", made(begin + b"\xff" * 12), "64 bits"),
            ("a long method", made(b"\0\0", said[:4] + b"\xff" * 4 + said[8:]), "within"),
            ("a negative size", made(b"\0\0", said[:20] + b"\xff" * 4 + said[24:]), "within"),
            ("much meta", made(begin + b"\x07Tp-Meta\x80\x80\x06" + bytes(98304)), "a field of"),
            ("an unknown filter", made(begin + b"\x0bTp-XferPipe\x01z"), "filter 122"),
            ("many filters", made(begin + b"\x0bTp-XferPipe\x09" + b"m" * 9), "at most 8"),
        ):
            error = raised(BadFrame, read, data)
            self.assertIn(problem, str(error), what)
        for end in range(18, len(T_1)):
            raised(BadFrame, read, T_1[:end])
        for size in (0, 9):
            raised(BadFrame, FRAMES.size, pack(">I", size), 0)

    def test_bomb(self) -> None:
        """What is unpacked has a bound."""
        frame = Frame(CALL, 1, b"A", codec=106, body=b"x", filters=b"m")
        bomb = gzip.compress(bytes(LIMIT + 1))
        data = write(frame).replace(write(frame)[-17:], bomb, 1).replace(b"\1m", b"\1g")
        data = pack(">I", len(data) - 4) + data[4 : -len(bomb) - 4] + pack(">I", len(bomb)) + bomb
        self.assertIn("a compressed message of more", str(raised(BadFrame, read, data)))

    def test_not_sent(self) -> None:
        """What the wire has no word for, or is too long, is not sent."""
        raised(NotInDialect, write, Frame(AUTH_CALL, 1))
        raised(FrameRefused, write, Frame(CALL, 1, b"A", body=bytes(LIMIT)))
        for settings in ({"auth": True}, {"user": "ann"}):
            raised(ValueError, thrift, **settings)
        self.assertIn("http, thrift, not", str(raised(ValueError, Teleport, proto="avro")))
        self.assertIsNone(thrift().websocket)

    @DETERMINISTIC
    @given(
        st.builds(
            Frame,
            st.sampled_from((CALL, REPLY, PUSH)),
            st.integers(-(2**31), 2**31 - 1),
            st.binary(max_size=300),
            st.binary(max_size=300),
            st.binary(max_size=300),
            st.integers(0, 255),
            st.binary(max_size=300),
            st.sampled_from((b"", b"g", b"mg")),
        ),
        st.data(),
    )
    def test_any(self, frame: Frame, data: st.DataObject) -> None:
        """Each comes out as it went in, cut however; with a byte changed it is a frame or none."""
        said = write(frame)
        self.assertEqual((FRAMES.size(said, 0), read(said)), (len(said), frame))
        told, dialect = [], thrift()
        for pieces in ([T_1 + said], cut(T_1 + said, [data.draw(st.integers(0, 400))] * 3)):
            wire = server(dialect)
            events = [one for piece in pieces for one in wire.receive(piece, 0.0)]
            told.append((events, str(wire.error), wire.data_to_send()))
        self.assertEqual(told[0], told[1])
        broken = bytearray(said)
        broken[data.draw(st.integers(4, len(said) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            read(bytes(broken))
        except BadFrame as error:
            self.assertNotIn("\n", str(error))


class Apps(SynchronousTestCase):
    def test_both_ways(self) -> None:
        """Two applications ask, refuse, push, and say what stands beside it."""
        clock = Clock()
        near, far = App(clock=clock), App(clock=clock)
        heard: list[Any] = []
        far.route("cli.told", lambda message: heard.append(message))
        far.route("cli.hello", lambda message: f"hello {message}")

        @near.handler("math.add")
        async def add(session: Session, numbers: list[int]) -> Any:
            if not numbers:
                raise Refused(1001, "nothing", "at all")
            session.send("cli.told", numbers)
            return [sum(numbers), await session.request("cli.hello", "ann")]

        dialect = thrift(pipe="gm")
        connecting = far.connect(Memory(near, dialect, clock), dialect)
        clock.pump([0] * 5)
        session = self.successResultOf(connecting)
        asked, refused = session.request("math.add", [1, 2]), session.request("math.add", [])
        clock.pump([0] * 8)
        self.assertEqual((self.successResultOf(asked), heard), ([3, "hello ann"], [[1, 2]]))
        failure = self.failureResultOf(refused, Refused).value
        self.assertEqual((failure.code, failure.text, failure.data), (1001, "nothing", "at all"))
        near.stop()
        clock.pump([0] * 5)

"""Frames whose messages stay whole, against a peer that is not ours, and by hand."""

from __future__ import annotations

import os
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping, TextMessage

from fastway.errors import Reason
from fastway.websocket.frames import Frames
from fastway.websocket.whole import ClientWholeFrames, WholeFrames

MESSAGES = st.lists(
    st.tuples(st.booleans(), st.binary(max_size=300), st.integers(1, 4)), max_size=8
)


def cuts(data: bytes, at: list[int]) -> list[bytes]:
    """`data` in pieces."""
    points = sorted({0, len(data), *(one % (len(data) + 1) for one in at)})
    return [data[begin:end] for begin, end in pairwise(points)]


class WholeTests(SynchronousTestCase):
    """Both sides."""

    @settings(max_examples=60, deadline=None)
    @given(MESSAGES, st.lists(st.integers(0, 5000), max_size=10))
    def test_messages(self, messages: list[tuple[bool, bytes, int]], at: list[int]) -> None:
        """Messages of a peer's, in fragments and cuts, with Pings between, come out whole."""
        peer = Connection(ConnectionType.CLIENT)
        wanted, wire = [], b""
        for text, payload, fragments in messages:
            body: bytes | str = payload.hex() if text else payload
            wanted.append(body.encode() if isinstance(body, str) else body)
            size = max(1, len(body) // fragments + 1)
            parts = [body[i : i + size] for i in range(0, len(body), size)] or [body]
            for number, part in enumerate(parts):
                last = number == len(parts) - 1
                kind = TextMessage if text else BytesMessage
                wire += peer.send(kind(part, message_finished=last))  # type: ignore[arg-type]
                wire += peer.send(Ping(b"p"))
        frames = WholeFrames(10_000)
        got = []
        for piece in cuts(wire, at):
            self.assertEqual(frames.receive(piece), b"")
            got += frames.take()
        self.assertEqual((got, frames.error), (wanted, None))
        self.assertEqual(bool(frames.pong), bool(messages))

    def test_both_sides(self) -> None:
        """What one side wraps the other takes, of every length of head."""
        for size in (0, 1, 125, 126, 65535, 65536, 70_000):
            payload = os.urandom(size)
            for sender, taker in (
                (ClientWholeFrames(100_000), WholeFrames(100_000)),
                (WholeFrames(100_000), ClientWholeFrames(100_000)),
            ):
                taker.receive(sender.wrap(payload))
                self.assertEqual(taker.take(), [payload])

    def test_kinds(self) -> None:
        """A message of a kind that is not taken ends it; what is sent has its own kind."""
        sends = {"text": ClientWholeFrames(99, text=True), "binary": ClientWholeFrames(99)}
        for kind, other in (("text", "binary"), ("binary", "text")):
            frames = WholeFrames(99, frozenset({kind}))
            frames.receive(sends[kind].wrap(b"good"))
            frames.receive(sends[other].wrap(b"bad"))
            self.assertEqual(frames.take(), [b"good"])
            assert frames.error is not None
            self.assertIs(frames.error.reason, Reason.NOT_BINARY)
        self.assertEqual(sends["text"].wrap(b"")[0], 0x81)

    def test_limit(self) -> None:
        """The bound is that of a message, whether in one frame or in many; what came before it is
        told, and nothing behind it."""
        sender = ClientWholeFrames(99)
        for size, fits in ((10, True), (11, False)):
            whole = sender.wrap(b"x" * size)
            frames = WholeFrames(10)
            frames.receive(sender.wrap(b"first") + whole + sender.wrap(b"last"))
            told = [b"first", b"x" * size, b"last"] if fits else [b"first"]
            self.assertEqual((frames.take(), frames.error is None), (told, fits))
        peer = Connection(ConnectionType.CLIENT)
        frames = WholeFrames(10)
        for number in range(11):
            frames.receive(peer.send(BytesMessage(b"x", message_finished=False)))
            self.assertEqual(frames.error is None, number < 10)
        assert frames.error is not None
        self.assertIs(frames.error.reason, Reason.FRAME_TOO_LARGE)

    def test_stream(self) -> None:
        """Where messages are a stream pieces are told as they come, and bounded by the frame."""
        sender = ClientWholeFrames(99)
        frames = WholeFrames(200, whole=False)
        data = sender.wrap(b"0123456789")
        for byte in data + data:
            frames.receive(bytes((byte,)))
        self.assertEqual(b"".join(frames.take()), b"0123456789" * 2)
        frames.receive(sender.wrap(b"x" * 201))
        self.assertIsNotNone(frames.error)

    def test_empty_fragments(self) -> None:
        """Fragments of nothing are kept as nothing, however many."""
        peer = Connection(ConnectionType.CLIENT)
        frames = WholeFrames(10)
        for _ in range(1000):
            frames.receive(peer.send(BytesMessage(b"", message_finished=False)))
        self.assertLessEqual(len(frames._parts), 1)
        frames.receive(peer.send(BytesMessage(b"end")))
        self.assertEqual(frames.take(), [b"end"])

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.booleans(),
                st.text("a\u00e9\u20ac\U0001f600", max_size=6).map(str.encode)
                | st.sampled_from((b"\xff", b"a\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xc0\x80")),
                st.lists(st.integers(0, 30), max_size=3),
            ),
            max_size=5,
        ),
        st.lists(st.integers(0, 500), max_size=8),
        st.booleans(),
    )
    def test_utf8(
        self, messages: list[tuple[bool, bytes, list[int]]], at: list[int], whole: bool
    ) -> None:
        """Text that is none is refused with 1007, wherever it is cut; what came before it is
        told, and nothing behind it. Binary messages may be anything."""
        wire, wanted, fails = b"", [], False
        for text, payload, inside in messages:
            parts = cuts(payload, inside) or [b""]
            for number, part in enumerate(parts):
                first = (0 if number else 1 if text else 2) | (0x80 * (number == len(parts) - 1))
                wire += bytes((first, 0x80 | len(part))) + bytes(4) + part
                wire += bytes((0x89, 0x80)) + bytes(4)
            fails = fails or (text and payload.decode("utf-8", "replace").encode() != payload)
            if not fails:
                wanted.append(payload)
        frames = WholeFrames(1000, whole=whole)
        got = []
        for piece in cuts(wire, at):
            frames.receive(piece)
            got += frames.take()
        if whole:
            self.assertEqual(got, wanted)
        else:
            self.assertTrue(b"".join(got).startswith(b"".join(wanted)))
        self.assertEqual(frames.error is not None, fails)
        if frames.error is not None:
            self.assertIs(frames.error.reason, Reason.NOT_UTF8)

    def test_refused_as_soon_as_it_shows(self) -> None:
        """Text that cannot become any is not waited for."""
        frames = ClientWholeFrames(1000), WholeFrames(1000)
        head = b"\x01\x02", b"\x01\x82" + bytes(4)
        for side, begin in zip(frames, head, strict=True):
            side.receive(begin + b"\xe2\x82")
            self.assertIsNone(side.error)
            side.receive((b"\x00\x01" if begin == head[0] else b"\x00\x81" + bytes(4)) + b"x")
            self.assertIsNotNone(side.error)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes are messages or an error; a stream finds the same wrong, but for text."""
        frames, stream = WholeFrames(16 * 1024 * 1024), Frames()
        frames.receive(data)
        stream.receive(data)
        if stream.error is None:
            self.assertIsNone(frames.error)

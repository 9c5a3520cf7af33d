"""What is read and answered in a short way: the same as in the long one, whatever comes.

Rule: each peer's bytes go to two wires, of which one has no short way.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.dialect import Dialect, Message, Wire
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport2 import Teleport2
from fastway.dialect.teleport2_quick import Quick

ROUTES = ("room.echo", "heartbeat", "a")
BODIES = st.sampled_from([b"", b"null", b'{"a":1}', b"x" * 200])
GREETING = bytes.fromhex("0100000002000000")
CHANGES = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=2)


def nothing(*_: object) -> int:
    """Takes nothing in a short way."""
    return 0


def no_answer(*_: object) -> None:
    """Answers nothing so."""


def served(dialect: Dialect) -> Wire:
    for route in ROUTES:
        dialect.wire_name(route)
    wire = dialect.server()
    wire.begin(0.0)
    wire.receive(b"", 0.0)
    if isinstance(dialect, Pomelo):
        wire.receive(GREETING[:4], 0.0)
        wire.accept()
        wire.receive(GREETING[4:], 0.0)
        wire.data_to_send()
    return wire


def told(wire: Wire, pieces: list[bytes]) -> tuple[Any, ...]:
    """All that comes of bytes, and of answers to what they ask."""
    events: list[Any] = []
    answers = []
    for now, piece in enumerate(pieces):
        events += wire.receive(piece, float(now))
    for event in events:
        if type(event) is Message and event.token is not None:
            for body in (b"", b'{"a":1}'):
                try:
                    answers.append(wire.reply(event.token, body))
                except Exception as error:
                    answers.append(repr(error).encode())
    said = [(type(event).__name__, *event) for event in events]
    return said, answers, wire.data_to_send(), repr(wire.error), wire.deadline


def asked(dialect: Any, asks: list[tuple[str, bytes]], skip: int) -> bytes:
    """What a client says."""
    wire = dialect.client()
    wire.begin(0.0)
    wire.receive(b"", 0.0)
    for _ in range(skip):
        wire.request("a", b"")
    return b"".join(wire.request(route, body)[1] for route, body in asks)


CASES = st.tuples(
    st.lists(st.tuples(st.sampled_from((*ROUTES, "no.such")), BODIES), min_size=1, max_size=3),
    st.sampled_from([0, 1, 40, 200]),
    CHANGES,
    st.integers(0, 120),
)


class ShortTests(SynchronousTestCase):
    def same(self, dialect: Any, case: Any, *long: Any) -> None:
        """The same comes of a case when `long` is in force."""
        asks, skip, changes, cut = case
        data = bytearray(asked(dialect, asks, skip))
        for at, byte in changes:
            if at < len(data):
                data[at] = byte
        pieces = [bytes(data[:cut]), bytes(data[cut:])]
        short = told(served(dialect), pieces)
        with ExitStack() as stack:
            for patch in long:
                stack.enter_context(patch)
            self.assertEqual(short, told(served(dialect), pieces))

    @given(CASES)
    def test_pomelo(self, case: Any) -> None:
        self.same(
            Pomelo(), case, mock.patch("fastway.dialect.pomelo_wires.read_requests", nothing)
        )

    @given(CASES, st.booleans())
    def test_teleport(self, case: Any, pong: bool) -> None:
        # Its long way is that of frames of a class that is not Raw.
        self.same(
            Teleport(pong=pong),
            case,
            mock.patch("fastway.dialect.teleport_wires.Raw", type("None", (), {})),
        )

    @given(CASES)
    def test_teleport2(self, case: Any) -> None:
        self.same(
            Teleport2(),
            case,
            mock.patch.object(Quick, "read", nothing),
            mock.patch.object(Quick, "answer", no_answer),
        )

    def test_taken(self) -> None:
        """What most say is taken so: the tests above compare something."""
        for path, dialect in (
            ("fastway.dialect.pomelo_wires.read_message", Pomelo()),
            ("fastway.dialect.teleport_frames.Raw.read", Teleport()),
            ("fastway.dialect.teleport2.read", Teleport2()),
        ):
            data = asked(dialect, [("room.echo", b"{}")] * 2, 1)
            with mock.patch(path, side_effect=AssertionError):
                events = served(dialect).receive(data, 1.0)
            routes = [getattr(event, "route", "") for event in events[-2:]]
            self.assertEqual(routes, ["room.echo"] * 2)

"""What is read, answered and run in a short way: the same as in the long one, whatever comes.

Rule: each peer's bytes go to wires with the short way in C, in Python, and without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest import mock, skipUnless

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway import formats
from fastway.app import handling
from fastway.dialect import Body, Dialect, Message, Wire
from fastway.dialect.hotpot import Hotpot
from fastway.dialect.in_c import IN_C
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.pomelo_packets import read_requests, response_packet
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport2 import Teleport2
from fastway.dialect.teleport2_quick import Quick
from fastway.dialect.teleport_quick import read_calls, write_answer

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


def asked(dialect: Any, asks: Sequence[tuple[str, bytes, bool]], skip: int) -> bytes:
    """What a client says."""
    wire = dialect.client()
    wire.begin(0.0)
    wire.receive(b"", 0.0)
    for _ in range(skip):
        wire.request("a", b"")
    said = []
    for route, body, asks_it in asks:
        said.append(wire.request(route, body)[1] if asks_it else wire.send(route, body))
    return b"".join(said)


CASES = st.tuples(
    st.lists(
        st.tuples(st.sampled_from((*ROUTES, "no.such")), BODIES, st.booleans()),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([0, 1, 40, 200]),
    CHANGES,
    st.integers(0, 120),
)

VALUES = st.recursive(
    st.sampled_from([None, True, 0, -1.5, 1e300, "", "a\n\u00e9\u2028\U0001f600\ud800"]),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text('a"', max_size=2), one),
    max_leaves=8,
)
NAMES = st.sampled_from(["Echo", "A", "No", "Ping", "Error", "", "\u00e9", "x" * 255, "x" * 256])


@st.composite
def hotpot_bytes(draw: Callable[..., Any]) -> bytes:
    """Messages of hotpot, and what is nearly one."""
    said = bytearray()
    for _ in range(draw(st.integers(1, 3))):
        message = {"type": draw(NAMES), "data": draw(VALUES)}
        if draw(st.integers(0, 9)) == 0:
            message.update(draw(st.sampled_from([{"code": 1, "msg": ""}, {"more": 0}])))
        tight = draw(st.sampled_from([None, (",", ":")]))
        text = json.dumps(message, ensure_ascii=draw(st.booleans()), separators=tight)
        payload = bytearray(text.encode("utf-8", "surrogatepass"))
        for at, byte in draw(CHANGES):
            if at < len(payload):
                payload[at] = byte
        said += len(payload).to_bytes(2, "big") + payload
    return bytes(said)


def without(module: str, **python: Any) -> Any:
    """What stands in a module of the dialects for what is in C."""
    return mock.patch.multiple("fastway.dialect." + module, **python)


def in_python() -> ExitStack:
    """Nothing of the dialects is done in C."""
    stack = ExitStack()
    for patch in (
        without("pomelo_wires", _read_requests=read_requests, _response_packet=response_packet),
        without("teleport_wires", _read_calls=read_calls, _write_answer=write_answer),
        without("teleport2_quick", _read_pulls=None, _write_reply=None),
        without("hotpot", _read_named=None, _write_named=None),
    ):
        stack.enter_context(patch)
    return stack


class ShortTests(SynchronousTestCase):
    def same(self, dialect: Any, pieces: list[bytes], long: Any = None) -> None:
        """The same comes of bytes in C, in Python, and in the long way."""
        short = told(served(dialect), pieces)
        with in_python():
            self.assertEqual(told(served(dialect), pieces), short)
        with long or ExitStack():
            self.assertEqual(told(served(dialect), pieces), short)

    def pieces(self, dialect: Any, case: Any) -> list[bytes]:
        asks, skip, changes, cut = case
        data = bytearray(asked(dialect, asks, skip))
        for at, byte in changes:
            if at < len(data):
                data[at] = byte
        return [bytes(data[:cut]), bytes(data[cut:])]

    @given(CASES)
    def test_pomelo(self, case: Any) -> None:
        dialect = Pomelo()
        long = without("pomelo_wires", _read_requests=nothing, _response_packet=no_answer)
        self.same(dialect, self.pieces(dialect, case), long)

    @given(CASES, st.booleans())
    def test_teleport(self, case: Any, pong: bool) -> None:
        dialect = Teleport(pong=pong)
        long = without("teleport_wires", _read_calls=nothing, _write_answer=no_answer)
        self.same(dialect, self.pieces(dialect, case), long)

    @given(CASES)
    def test_teleport2(self, case: Any) -> None:
        dialect = Teleport2()
        long = mock.patch.multiple(Quick, read=nothing, answer=no_answer)
        self.same(dialect, self.pieces(dialect, case), long)

    @given(hotpot_bytes(), st.integers(0, 120), st.sampled_from([2, 4]))
    def test_hotpot(self, data: bytes, cut: int, width: int) -> None:
        for pieces in ([data], [data[:cut], data[cut:]]):
            self.same(Hotpot(length_bytes=width), pieces)
        found, dialect = [], Hotpot()
        for way in (ExitStack(), in_python()):
            with way:
                wire = dialect.client()
                found.append((wire.receive(data, 1.0), repr(wire.error)))
        self.assertEqual(repr(found[0]), repr(found[1]))

    @given(
        st.sampled_from([0, 1, 35, 36, 127, 128, 1295, 1296, 2**31 - 1, 2**64 - 1]),
        st.sampled_from([0, ord("j"), 255]),
        st.sampled_from(["Room.echo", "A", "Error", "no\u00e9"]),
        st.integers(0, 3) | st.integers(900, 1030),
        st.sampled_from([bytes, Body]),
    )
    def test_written(self, number: int, codec: int, name: str, size: int, kind: Any) -> None:
        """What is answered is the same, and what is too long for that."""
        tokens = (
            (Pomelo(max_packet=1024), number),
            (Teleport(max_frame=1024), (number % 2**31, codec, b"", False)),
            (Teleport2(max_frame=1024), (number, "/room/echo", 0, ord("j"), codec)),
            (Hotpot(max_message=1000), name),
        )
        for dialect, token in tokens:
            found = []
            for way in (ExitStack(), in_python()):
                with way:
                    try:
                        body = kind(b'{"a":1}'.ljust(size))
                        found.append(repr(served(dialect).reply(token, body)))
                    except Exception as error:
                        found.append(repr(error))
            self.assertEqual(*found)

    @skipUnless(IN_C, "the native relay is not built")
    def test_in_c(self) -> None:
        """What most say is taken in C."""
        calls = [("room.echo", b"{}", True)] * 2
        for module, name, dialect, data in (
            ("pomelo_wires", "read_requests", Pomelo(), b""),
            ("teleport_wires", "read_calls", Teleport(), b""),
            ("teleport2_quick", "read_pulls", Teleport2(), b""),
            ("hotpot", "read_named", Hotpot(), b'\0\x19{"type":"Echo","data":{}}' * 2),
        ):
            data = data or asked(dialect, calls, 1)
            take = mock.Mock(side_effect=IN_C[name])
            with without(module, **{"_" + name: take}):
                events = served(dialect).receive(data, 1.0)
            self.assertEqual(len([one for one in events if type(one) is Message]), 2)
            arguments = take.call_args.args
            self.assertEqual(IN_C[name](*arguments[:-1], []), len(data))

    @skipUnless(IN_C, "the native relay is not built")
    def test_mistakes(self) -> None:
        """Of who calls: an exception, and nothing else."""
        wrong: list[tuple[Any, ...]] = [(), (b"", 1, [], {}, []), (b"", 1, {}, {}, ()), (1,) * 5]
        for name, call in IN_C.items():
            for arguments in [*wrong, (None,) * 3, ("",) * 4, ("",) * 5, ("",) * 7]:
                with pytest.raises(TypeError):
                    call(*arguments)
            if name in ("read_requests", "read_calls", "read_pulls"):
                with pytest.raises(OverflowError):
                    call(b"", -1, {}, {}, [])

    @given(
        st.lists(
            st.sampled_from([b"null", b"nul", b"[{", b"<", b">", b"&", b"\xc3\xa9", b"x" * 90])
        ),
        st.sampled_from([0, 1, 100, 101, 3000, 5990, 6000]),
        st.booleans(),
    )
    def test_looked_at(self, parts: list[bytes], more: int, html: bool) -> None:
        """What is said of JSON that is written, and of what came."""
        for fill in (b"x", b"["):
            data = b"".join(parts) + fill * more
            self.assertEqual(formats.is_plain_json(data, html), formats.is_plain(data, html))
            self.assertEqual(formats.is_shallow_json(data), formats.is_shallow(data))

    def test_taken(self) -> None:
        """What most say is taken so: the tests above compare something."""
        for path, dialect in (
            ("fastway.dialect.pomelo_wires.read_message", Pomelo()),
            ("fastway.dialect.teleport_frames.Raw.read", Teleport()),
            ("fastway.dialect.teleport2.read", Teleport2()),
        ):
            data = asked(dialect, [("room.echo", b"{}", True)] * 2, 1)
            with mock.patch(path, side_effect=AssertionError):
                events = served(dialect).receive(data, 1.0)
            routes = [getattr(event, "route", "") for event in events[-2:]]
            self.assertEqual(routes, ["room.echo"] * 2)


class _Given:
    """What a coroutine waits for."""

    def __await__(self) -> Any:
        got = yield self
        return got


class StepTests(SynchronousTestCase):
    def test_first_step(self) -> None:
        """Of a coroutine that ends, waits or raises: in C and in Python."""
        given = _Given()

        async def ends(what: Any) -> Any:
            return what

        async def waits() -> Any:
            return await given

        async def fails(error: BaseException) -> None:
            raise error

        steps: tuple[Any, ...] = (handling._step, handling.first_step)
        for step in steps:
            for what in (None, 1, (1, 2), StopIteration(3), ValueError):
                self.assertIs(step(ends(what), None, list), what)
            waiting = waits()
            self.assertEqual(step(waiting, "c", lambda *all: all), (waiting, given, "c"))
            with pytest.raises(StopIteration) as ended:
                waiting.send("got")
            self.assertEqual(ended.value.value, "got")
            for error in (ValueError("x"), KeyboardInterrupt(), GeneratorExit()):
                with pytest.raises(type(error)) as raised:
                    step(fails(error), None, list)
                self.assertIs(raised.value, error)
            with pytest.raises(RuntimeError):  # else it would seem to be an end
                step(fails(StopIteration(1)), None, list)
            over = ends(1)
            step(over, None, list)
            with pytest.raises(RuntimeError):
                step(over, None, list)
            waiting = waits()
            with pytest.raises(TypeError):
                step(waiting, None, int)  # nothing can be made of it
            waiting.close()

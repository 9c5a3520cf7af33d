"""The listening side with many streams: whose place it is, how much is done in a turn, figures."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from fastway.errors import Reason, StreamLost
from fastway.snet import carrier
from fastway.snet.config import SnetConfig
from fastway.snet.interfaces import IBounded
from fastway.snet.session import Fault
from fastway.snet.slices import SLICE, Slices
from tests.support.errors import raised
from tests.support.snet import Listening, Resumable, Wire, acked_of
from tests.support.snet_golden import Script
from tests.support.tapes import Tape


def reasons(tape: Tape) -> list[Reason]:
    """Why its stream was lost."""
    return [cast(StreamLost, loss.value).reason for loss in tape.losses]


class Turns:
    """Counts a clock's turns, until `stop`.

    Attributes:
        number: The turn.
    """

    def __init__(self, clock: Clock) -> None:
        self.number = 0
        self._clock = clock
        self._call = clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self.number += 1
        now = self._clock.seconds()
        due = any(call.getTime() <= now for call in self._clock.getDelayedCalls())
        self._call = self._clock.callLater(0 if due else 0.001, self._turn)

    def stop(self) -> None:
        self._call.cancel()


class ListenCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(carrier, "acked_bytes", acked_of)


class SlicesTests(SynchronousTestCase):
    """Slices alone."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.slices = Slices(self.clock)
        self.made: list[int] = []

    def test_now(self) -> None:
        """A slice of calls is made at once; the rest waits its turn, in order, and so do later
        ones, of which none goes first."""
        for size in (SLICE - 1, SLICE, SLICE + 1):
            self.made.clear()
            for number in range(size):
                self.slices.now(lambda n=number: self.made.append(n))  # type: ignore[misc]
            self.assertEqual(len(self.made), min(size, SLICE))
            self.clock.advance(0)
            self.assertEqual(self.made, list(range(size)))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_turn(self) -> None:
        """No turn makes more than a slice, whether calls wait or come in it."""
        turns = Turns(self.clock)
        made: list[int] = []

        def call(again: int = 0) -> None:
            made.append(turns.number)
            if again:
                self.slices.later(call)
                self.slices.now(call)

        for _ in range(3 * SLICE):
            self.slices.now(lambda: call(1))
        self.clock.advance(0)
        self.assertEqual(len(made), 9 * SLICE)
        self.assertEqual(max(made.count(turn) for turn in made), SLICE)
        self.assertEqual(made, sorted(made))

    def test_later(self) -> None:
        """A later call is never made within the call that asks for it."""
        self.slices.later(lambda: self.made.append(1))
        self.assertEqual(self.made, [])
        self.clock.advance(0)
        self.assertEqual(self.made, [1])

    def test_fault(self) -> None:
        """A call that fails costs nobody else's."""
        self.slices.later(lambda: 1 // 0)
        self.slices.later(lambda: self.made.append(1))
        raised(ZeroDivisionError, self.clock.advance, 0)
        self.clock.advance(0)
        self.assertEqual([self.made, self.clock.getDelayedCalls()], [[1], []])


class MassTests(ListenCase):
    """Thousands of streams that are cut, or lost, at one moment."""

    def many(self, size: int, **config: Any) -> tuple[Listening, list[Resumable], list[Any]]:
        tapes = [Resumable() for _ in range(size)]
        bench = Listening(*tapes, config=SnetConfig(**config))
        streams = [bench.new() for _ in range(size)]
        bench.turn()
        return bench, tapes, streams

    def slices_of(self, bench: Listening, when: list[int]) -> Turns:
        """The turns from now on; `when` must get the turn of each event."""
        self.addCleanup(
            lambda: self.assertLessEqual(max(when.count(turn) for turn in set(when)), SLICE)
        )
        return Turns(bench.clock)

    def test_cut(self) -> None:
        """Streams that are all cut in one turn are told in slices, each once and in order."""
        bench, tapes, streams = self.many(1000)
        told: list[tuple[int, int]] = []
        turns = self.slices_of(bench, when := [])
        for number, tape in enumerate(tapes):
            tape.on_cut = lambda n=number: told.append((turns.number, n))
        for _, wire in streams:
            wire.broken()
        self.assertEqual(len(told), SLICE)
        self.assertEqual({stream.carrier for stream in bench.snet.streams.values()}, {None})
        bench.clock.advance(0)
        when += [turn for turn, _ in told]
        self.assertEqual([number for _, number in told], list(range(1000)))
        self.assertEqual(len(bench.snet.waiting), 1000)
        self.assertEqual(bench.snet.stats.cut, 1000)

    def test_resumed_before_it_was_told(self) -> None:
        """A protocol hears of the cut before the resume, also when that comes first."""
        bench, tapes, streams = self.many(SLICE + 2)
        for _, wire in streams:
            wire.broken()
        script, _ = streams[-1]
        self.assertEqual(tapes[-1].events, [])
        tapes[-1].wire.write(b"meanwhile")
        wire = bench.resume(script)
        self.assertEqual(tapes[-1].events, ["cut", (0.0, 0)])
        self.assertEqual(bench.take(script, wire), b"meanwhile")
        bench.turn()
        self.assertEqual(tapes[-1].events, ["cut", (0.0, 0)])
        self.assertNotIn(tapes[-1].wire, bench.snet.waiting)
        self.assertEqual(len(bench.snet.waiting), SLICE + 1)

    def test_aborted_before_it_was_told(self) -> None:
        """Who hears of the cut by the resume, and will not have it, is lost and nothing else."""
        bench, tapes, streams = self.many(SLICE + 1)
        for _, wire in streams:
            wire.broken()
        last = tapes[-1]
        last.on_cut = last.wire.abortConnection
        again = bench.resume(streams[-1][0])
        bench.turn()
        self.assertEqual([again.closed, len(last.losses), last.events], [True, 1, ["cut"]])
        self.assertEqual(len(bench.snet.streams), SLICE)

    def test_closed_before_it_was_told(self) -> None:
        """A stream that is closed before it was told is lost, and never told of the cut."""
        bench, tapes, streams = self.many(SLICE + 1)
        for _, wire in streams:
            wire.broken()
        tapes[-1].wire.abortConnection()
        bench.turn()
        self.assertEqual([tapes[-1].events, len(tapes[-1].losses)], [[], 1])
        self.assertEqual(len(bench.snet.waiting), SLICE)

    def test_waited_out(self) -> None:
        """Streams whose time is over at once are lost in slices, the one cut longest first."""
        bench, tapes, streams = self.many(1000, wait_timeout=3.0)
        for _, wire in streams:
            wire.broken()
        bench.turn()
        bench.pass_time(2.75)
        self.assertEqual(len(bench.snet.waiting), 1000)
        turns = self.slices_of(bench, when := [])
        lost: list[int] = []
        for number, tape in enumerate(tapes):

            def connection_lost(reason: Any, number: int = number, tape: Tape = tape) -> None:
                when.append(turns.number)
                lost.append(number)
                tape.losses.append(reason)

            cast(Any, tape).connectionLost = connection_lost
        bench.pass_time(0.5)
        self.assertEqual(lost, list(range(1000)))
        self.assertEqual(
            {reason for tape in tapes for reason in reasons(tape)}, {Reason.NOT_RESUMED}
        )
        self.assertEqual([dict(bench.snet.waiting), bench.snet.streams], [{}, {}])
        bench.snet.doStop()
        turns.stop()
        self.assertEqual(bench.calls, [])

    def test_each_has_its_time(self) -> None:
        """Those cut later are lost later; who came back, and is cut again, waits anew."""
        bench, tapes, streams = self.many(3, wait_timeout=2.0)
        for number, (_, wire) in enumerate(streams):
            wire.broken()
            bench.pass_time(0.5)
            if number == 1:
                bench.resume(streams[0][0]).broken()
        for passed, left in ((0.75, 3), (0.375, 2), (0.5, 0)):
            bench.pass_time(passed)
            self.assertEqual(len(bench.snet.waiting), left, passed)
        self.assertEqual([reasons(tape) for tape in tapes], [[Reason.NOT_RESUMED]] * 3)

    def test_a_close_has_its_own_time(self) -> None:
        """A stream that closes, and is cut before all was taken, may come back for LINGER seconds
        though the wait timeout is less."""
        bench, (tape, other), streams = self.many(2, wait_timeout=1.0)
        (script, wire), (_, other_wire) = streams
        wire.prompt = False
        tape.wire.write(b"last words")
        tape.wire.loseConnection()
        wire.broken()
        other_wire.broken()
        bench.pass_time(2.0)
        self.assertEqual([tape.losses, reasons(other)], [[], [Reason.NOT_RESUMED]])
        again = bench.resume(script)
        self.assertEqual(bench.take(script, again), b"last words")

    def test_stopped(self) -> None:
        """When nobody listens any more all that are cut are lost, in slices, and time stops."""
        bench, tapes, streams = self.many(300)
        for _, wire in streams:
            wire.broken()
        bench.turn()
        turns = self.slices_of(bench, when := [])
        for tape in tapes:
            cast(Any, tape).connectionLost = lambda reason: when.append(turns.number)
        bench.snet.doStop()
        bench.clock.advance(0)
        turns.stop()
        self.assertEqual([len(when), bench.snet.streams, bench.calls], [300, {}, []])


@implementer(IBounded)
class Bounded(Listening):
    """A listening side around a factory that makes two protocols at a time."""

    @property
    def full(self) -> bool:
        return len([tape for tape in self.all if not tape.losses]) >= 2

    def __init__(self, config: SnetConfig | None = None) -> None:
        self.all: list[Resumable] = []
        super().__init__(config=config)

    def buildProtocol(self, addr: Any) -> Any:
        if self.full:
            return None
        self.all.append(Resumable())
        return self.all[-1]


class RoomTests(ListenCase):
    """A stream without a connection does not take a place from who has one."""

    def test_a_newcomer(self) -> None:
        """On a full port the stream cut longest gives way, before the newcomer is made."""
        bench = Bounded()
        streams = [bench.new(), bench.new()]
        streams[1][1].broken()
        bench.pass_time(0.125)
        streams[0][1].broken()
        bench.new()
        self.assertEqual([reasons(tape) for tape in bench.all], [[], [Reason.CROWDED_OUT], []])
        self.assertEqual([len(bench.snet.streams), len(bench.snet.waiting)], [2, 1])
        bench.turn()
        self.assertEqual([len(tape.losses) for tape in bench.all], [0, 1, 0])
        self.assertEqual(bench.asks(streams[1][0])[1], bytes(24))
        bench.resume(streams[0][0], b"back")
        self.assertEqual(bench.all[0].received, b"back")

    def test_nobody_is_cut(self) -> None:
        """On a port that is full of live streams the newcomer is turned away, and nobody lost."""
        bench = Bounded()
        bench.new()
        bench.new()
        _, wire = bench.new()
        self.assertTrue(wire.closed)
        self.assertEqual([tape.losses for tape in bench.all], [[], []])

    def test_room(self) -> None:
        """While there is room nobody gives way."""
        bench = Bounded()
        _, wire = bench.new()
        wire.broken()
        bench.new()
        self.assertEqual([tape.losses for tape in bench.all], [[], []])
        self.assertEqual(len(bench.snet.streams), 2)

    def test_coming_back(self) -> None:
        """Who comes back to a full port has its place still."""
        bench = Bounded()
        script, wire = bench.new()
        bench.new()
        wire.broken()
        bench.resume(script, b"back")
        self.assertEqual([tape.losses for tape in bench.all], [[], []])
        self.assertEqual(bench.all[0].received, b"back")

    def test_half_a_newcomer(self) -> None:
        """A connection takes nobody's place before its handshake is done."""
        bench = Bounded()
        bench.new()
        _, wire = bench.new()
        wire.broken()
        for _ in range(3):
            bench.dial().feed(Script().hello())
        self.assertEqual([tape.losses for tape in bench.all], [[], []])

    def test_without_a_bound(self) -> None:
        """A factory that says nothing of a bound has no cut stream lost for a newcomer."""
        bench = Listening(Resumable(), Resumable())
        _, wire = bench.new()
        tape = bench.snet.streams[1]
        wire.broken()
        bench.new()
        bench.new()
        self.assertIsNone(tape.lost)


class FiguresTests(ListenCase):
    def test_figures(self) -> None:
        """Each figure is of what it says, and stays what it was."""
        bench = Listening(*[Resumable() for _ in range(4)])
        made: list[tuple[Script, Wire]] = [bench.new() for _ in range(4)]
        streams = list(bench.snet.streams.values())
        before = bench.snet.figures()
        streams[0].write(b"12345")
        made[0][1].broken()
        bench.resume(made[0][0])
        made[1][1].broken()
        streams[1].write(b"123")
        streams[2].pauseProducing()
        bench.resume(made[2][0], b"1234567")
        streams[3].abortConnection()
        bench.dial()
        bench.dial().feed(b"x")
        bench.turn()
        figures = dataclasses.asdict(bench.snet.figures())
        expected = {
            "live": 2,
            "waiting": 1,
            "made": 4,
            "cut": 3,
            "resumed": 2,
            "taken_over": 1,
            "replayed": 5,
            "replayable": 5,
            "pending": 3,
            "unread": 7,
            "handshakes": 1,
            "refused": {Fault.FIRST_BYTE: 1},
        }
        self.assertEqual(figures, expected)
        self.assertEqual((before.live, before.cut, dict(before.refused)), (4, 0, {}))
        text = str(bench.snet.figures())
        self.assertIn("2 streams live, 1 cut and waiting, 4 since start", text)
        self.assertIn("5 bytes kept, 3 bytes wait, 7 bytes unread", text)
        self.assertIn(f"1 failed (1 {Fault.FIRST_BYTE.value})", text)

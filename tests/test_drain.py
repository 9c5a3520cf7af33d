"""The drain's machine alone: its steps on a clock, over clients that are numbers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import CommandError
from fastway.ops.drain import BATCH, EACH, LEAST, SETTLE, Drain, DrainFigures, Plan, State
from fastway.ops.status import drain_row
from tests.support.errors import raised
from tests.support.logs import LogLines

PLAN = Plan(delay=5, grace=10, spread=20, timeout=60)


class Fake:
    """A gateway whose clients are numbers.

    Attributes:
        here: Clients that are connected -> virtual connections.
        lingering: Lost ones that are not gone.
        done: What the drain had it do, each with the time.
    """

    def __init__(self, clock: Clock, clients: dict[int, int] | None = None) -> None:
        self.clock = clock
        self.here = {} if clients is None else clients
        self.servers = 2
        self.lingers = False
        self.lingering: set[int] = set()
        self.done: list[tuple[float, str]] = []
        self.lost: list[tuple[float, int]] = []
        self.told: list[tuple[float, float, bool]] = []

    def note(self, what: str) -> None:
        self.done.append((self.clock.seconds(), what))

    def tell(self, seconds: float, until: float, again: bool) -> None:
        self.told.append((seconds, until, again))
        self.note("tell")

    def untell(self) -> None:
        self.note("untell")

    def close_ports(self) -> None:
        self.note("close")

    def clients(self) -> int:
        return len(self.here) + len(self.lingering)

    def links(self) -> Iterable[int]:
        return iter(self.here)

    def is_idle(self, link: int) -> bool:
        return not self.here.get(link)

    def lose(self, link: int) -> None:
        self.lost.append((self.clock.seconds(), link))
        if self.here.pop(link, None) is not None and self.lingers:
            self.lingering.add(link)

    def lose_rest(self) -> None:
        self.note("rest")
        self.here.clear()
        self.servers = 0

    def is_empty(self) -> bool:
        return not (self.servers or self.clients())

    def stop(self) -> None:
        self.note("stop")


class DrainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)

    def drain(
        self, clients: dict[int, int], plan: Plan = PLAN, seed: int = 1
    ) -> tuple[Drain[int], Fake]:
        gateway = Fake(self.clock, clients)
        return Drain(self.clock, plan, gateway, Random(seed)), gateway

    def run_on(self, seconds: float, step: float = 0.01) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def figures(self, drain: Drain[int]) -> DrainFigures:
        figures = drain.figures()
        assert figures is not None
        return figures

    def test_order(self) -> None:
        """Told, ports, clients without virtual connections, the others, servers, the end."""
        drain, gateway = self.drain({number: number % 2 for number in range(40)})
        self.assertIsNone(drain.figures())
        drain.begin()
        self.assertEqual(gateway.told, [(15, 60, False)])
        self.run_on(4.9)
        self.assertIs(drain.state, State.DELAY)
        self.assertEqual(gateway.done, [(1000, "tell")])
        self.run_on(0.2)
        self.assertIs(drain.state, State.GRACE)
        self.run_on(9.8)
        self.assertEqual(gateway.lost, [])
        self.run_on(0.2)
        self.assertIs(drain.state, State.SPREAD)
        self.run_on(21)
        whats = [what for _, what in gateway.done]
        self.assertEqual(whats, ["tell", "close", "rest", "stop"])
        self.assertApproximates(gateway.done[1][0], 1005, 0.1)
        self.assertIs(drain.state, State.DONE)
        idle = [link for _, link in gateway.lost[:20]]
        self.assertEqual(sorted(idle), list(range(0, 40, 2)))
        self.assertNotEqual(idle, sorted(idle))
        self.assertEqual(len({link for _, link in gateway.lost}), 40)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_jitter(self) -> None:
        """Each client goes within its own share of the time, and not at its edge."""
        drain, gateway = self.drain(dict.fromkeys(range(40), 1))
        drain.begin()
        self.run_on(36)
        places = []
        for number, (when, _) in enumerate(gateway.lost):
            place = (when - 1015) / 0.5 - number
            self.assertGreater(place, -0.05, number)
            self.assertLess(place, 1.05, number)
            places.append(place)
        self.assertGreater(max(places) - min(places), 0.5)

    def test_crowd(self) -> None:
        """5000 have 3 ms each where 30 s are more; few at a time, with one call on the clock."""
        for count, seconds in ((20_000, 20_000 * EACH), (5000, LEAST), (1, LEAST)):
            drain, gateway = self.drain(
                {number: number % 3 for number in range(count)}, Plan(5, 10, 0, 120), count
            )
            start = self.clock.seconds() + 15
            drain.begin()
            self.run_on(15.1)
            while drain.state is State.SPREAD:
                before = len(gateway.lost)
                self.clock.advance(0.05)
                self.assertLessEqual(len(gateway.lost) - before, 0.05 * count / seconds + 3)
                self.assertLessEqual(len(self.clock.getDelayedCalls()), 2)
            self.assertEqual(len(gateway.lost), count)
            if count > 1:
                took = gateway.lost[-1][0] - start
                self.assertApproximates(took, seconds, 0.2)
            self.run_on(1)
            self.assertIs(drain.state, State.DONE)

    def test_late_turn(self) -> None:
        """After a long turn of the reactor the clients that are due go in slices."""
        drain, gateway = self.drain(dict.fromkeys(range(200), 0))
        drain.begin()
        self.clock.advance(5)
        self.clock.advance(10)
        turns: list[int] = []
        later = self.clock.callLater

        def note(*told: Any) -> Any:
            turns.append(len(gateway.lost))
            return later(*told)

        self.patch(self.clock, "callLater", note)
        self.clock.advance(19)
        self.assertGreaterEqual(len(gateway.lost), 189)
        steps = [after - before for before, after in zip([0, *turns], turns, strict=False)]
        self.assertEqual(max(steps), BATCH)

    def test_timeout(self) -> None:
        """A spread ends early enough for its goodbyes; whatever is left at the timeout goes."""
        drain, gateway = self.drain(dict.fromkeys(range(100_000), 0), Plan(5, 10, 0, 60))
        drain.begin()
        self.run_on(60 - SETTLE + 1, 0.05)
        self.assertEqual(len(gateway.lost), 100_000)
        drain, gateway = self.drain({1: 1}, Plan(5, 10, 20, 30))
        gateway.lingers = True
        drain.begin()
        self.run_on(29.9)
        self.assertEqual(drain.state, State.SPREAD)
        self.assertEqual(self.figures(drain).left, 1)
        self.run_on(0.2)
        self.assertIs(drain.state, State.SERVERS)
        self.run_on(SETTLE - 0.5)
        self.assertIs(drain.state, State.SERVERS)
        self.run_on(1)
        self.assertEqual(gateway.done[-1][1], "stop")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lingering(self) -> None:
        """Servers stay until the last client has taken what is left for it."""
        drain, gateway = self.drain({1: 1})
        gateway.lingers = True
        drain.begin()
        self.run_on(40)
        self.assertEqual(gateway.servers, 2)
        gateway.lingering.clear()
        self.run_on(0.2)
        self.assertEqual(gateway.servers, 0)
        self.assertIs(drain.state, State.DONE)

    def test_late_comers(self) -> None:
        """Who was at a handshake when the spread began goes before the servers."""
        drain, gateway = self.drain({1: 1})
        gateway.lingers = True
        drain.begin()
        self.run_on(20)
        gateway.here[2] = 0
        self.run_on(20)
        self.assertEqual(sorted(link for _, link in gateway.lost), [1, 2])
        self.assertIs(drain.state, State.SPREAD)

    def test_idle_no_more(self) -> None:
        """A client that dials before its turn counts as busy."""
        drain, gateway = self.drain({1: 0, 2: 0, 3: 1})
        drain.begin()
        self.run_on(15.01)
        (first,) = {1, 2} & set(gateway.here) if gateway.lost else {1}
        gateway.here[first] = 1
        other = 3 - first
        self.run_on(21)
        order = [link for _, link in gateway.lost]
        self.assertLess(order.index(other), order.index(first))

    def test_nobody(self) -> None:
        """Without clients servers go as soon as the spread would begin."""
        drain, gateway = self.drain({})
        drain.begin()
        self.run_on(15.2)
        self.assertEqual([what for _, what in gateway.done], ["tell", "close", "rest", "stop"])

    def test_undo(self) -> None:
        """A drain is taken back until the ports are closed, and can begin again."""
        drain, gateway = self.drain({1: 1})
        self.assertIn("does not drain", str(raised(CommandError, drain.undo)))
        drain.begin()
        self.assertIn("drains already", str(raised(CommandError, drain.begin)))
        self.run_on(4)
        drain.undo()
        self.assertEqual([what for _, what in gateway.done], ["tell", "untell"])
        self.assertIsNone(drain.figures())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        drain.begin()
        self.run_on(5.1)
        self.assertIn("too late", str(raised(CommandError, drain.undo)))
        self.assertIs(drain.state, State.GRACE)

    def test_again(self) -> None:
        """Of a successor is told when the ports are closed: not to come back here at once."""
        drain, gateway = self.drain({1: 1})
        drain.begin(again=True)
        self.run_on(6)
        (first, second) = gateway.told
        self.assertEqual(first, (15, 60, False))
        self.assertEqual((second[0], second[2]), (10, True))
        self.assertApproximates(second[1], 55, 0.1)

    def test_stop(self) -> None:
        """A gateway that stops in the middle hears no more of it."""
        for seconds in (1, 7, 20):
            drain, gateway = self.drain(dict.fromkeys(range(10), 1))
            drain.begin()
            self.run_on(seconds)
            done = list(gateway.done)
            drain.stop()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.assertEqual(gateway.done, done)

    def test_figures(self) -> None:
        """How far it is, and until when, for the operator."""
        drain, gateway = self.drain(dict.fromkeys(range(10), 1))
        drain.begin()
        self.run_on(25)
        figures = self.figures(drain)
        self.assertEqual(figures.clients, 10)
        self.assertEqual(figures.left, len(gateway.here))
        self.assertIn(figures.left, (4, 5, 6))
        self.assertApproximates(figures.seconds, 35, 0.1)
        self.assertApproximates(figures.until, time.time() + 35, 5)
        row = drain_row(DrainFigures(State.SPREAD, 10, 4, 35, 86399))
        self.assertEqual(
            row,
            "drain: spread, clients are lost one by one; 4 of 10 clients left; "
            "over within 35 s, at 23:59:59 UTC",
        )

    def test_log(self) -> None:
        """A drain is a handful of lines, however many clients there are; while they go it is told
        how far it is, a tenth of the time apart, and at most once a second."""
        drain, _ = self.drain(dict.fromkeys(range(1000), 1))
        with LogLines() as log:
            drain.begin()
            self.run_on(40)
        told = [line for line in log.lines if "have their turn" in line]
        self.assertEqual(len(log.lines), 5 + len(told))
        self.assertIn(len(told), (9, 10))
        self.assertEqual(told, log.lines[3:-2])
        left = [int(line.split()[1]) for line in told]
        for number, count in enumerate(left):
            self.assertApproximates(count, 900 - 100 * number, 20)
        self.assertIn("within 18.0 s", told[0])
        drain, _ = self.drain(dict.fromkeys(range(1000), 1), replace(PLAN, spread=4))
        with LogLines() as log:
            drain.begin()
            self.run_on(40)
        self.assertIn(len([line for line in log.lines if "have their turn" in line]), (3, 4))
        self.assertIn("1000 clients are lost over 4.0 s", log.lines[2])
        self.assertIn("over after", log.lines[-1])

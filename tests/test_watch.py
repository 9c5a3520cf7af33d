"""What is watched on request: the reactor's turns, and where threads are made."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, cast
from unittest import mock

from twisted.internet import reactor as _reactor
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway.ops import watch
from fastway.ops.watch import ThreadWatch, Timed, TurnWatch

reactor = cast(Any, _reactor)


class TurnWatchTests(TestCase):
    def setUp(self) -> None:
        self.turns = TurnWatch(reactor)
        self.addCleanup(self.turns.stop)

    async def answered(self) -> None:
        """The reactor has turned, and the watch has had time to ask and be answered."""
        for _ in range(3):
            await deferToThread(time.sleep, TurnWatch.INTERVAL)

    async def test_long_turn(self) -> None:
        """A turn over the bound is found, with the line that took it."""
        self.turns.start()
        self.turns.start()
        await self.answered()
        before = self.turns.long_turns
        self.block()
        while self.turns.long_turns == before:
            await self.answered()
        self.assertGreater(self.turns.longest, TurnWatch.LONG)
        report = self.turns.report(1000)
        self.assertIn("in block\n", report)
        self.assertIn("time.sleep(0.35)", report)
        self.assertRegex(report, r"\Aturns longer than 0.1 s: [1-9]")

    def block(self) -> None:
        time.sleep(0.35)

    async def test_rows(self) -> None:
        """The report has as many stacks as asked for, the most frequent first."""
        self.turns._stacks.update({"rare\n": 1, "often\n": 5})
        self.assertIn("0.25 s here:\noften", self.turns.report(1))
        self.assertNotIn("rare", self.turns.report(1))
        self.assertIn("rare", self.turns.report(2))
        self.assertNotIn("often", self.turns.report(0))

    async def test_bounded(self) -> None:
        """Beyond the bound, new stacks are only counted."""
        self.patch(watch, "MAX_STACKS", 1)
        frame = sys._getframe()
        self.turns._note(frame)
        self.turns._note(frame)
        self.assertEqual(self.turns.dropped, 1)
        self.assertIn("dropped: 1", self.turns.report(1))

    async def test_stop(self) -> None:
        """After stop the thread goes by itself; it can be started again."""
        for _ in range(2):
            self.turns.start()
            (thread,) = [t for t in threading.enumerate() if t.name == "fastway-turns"]
            self.turns.stop()
            await deferToThread(thread.join, 5)
            self.assertFalse(thread.is_alive())
        self.turns.stop()

    async def test_stop_waits_for_nobody(self) -> None:
        """stop returns at once, also while the thread waits for the reactor."""
        self.turns.start()
        time.sleep(TurnWatch.INTERVAL * 1.5)
        with mock.patch.object(threading.Thread, "join") as join:
            self.turns.stop()
        join.assert_not_called()


class ThreadWatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.original = threading.Thread.start
        self.addCleanup(setattr, threading.Thread, "start", self.original)

    def make_thread(self) -> None:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

    def test_off(self) -> None:
        """Until it is started it changes nothing."""
        ThreadWatch()
        self.assertIs(threading.Thread.start, self.original)

    def test_nests(self) -> None:
        """Two that watch at a time end in any order, and then all is as it was."""
        for order in ((0, 1), (1, 0)):
            both = ThreadWatch(), ThreadWatch()
            for each in both:
                each.start()
                each.start()
            self.make_thread()
            both[order[0]].stop()
            self.make_thread()
            both[order[1]].stop()
            self.assertIs(threading.Thread.start, self.original)
            self.make_thread()
            self.assertEqual(sum(both[order[0]].sites.values()), 1)
            self.assertEqual(sum(both[order[1]].sites.values()), 2)

    def test_behind_somebody(self) -> None:
        """Who stands in front of it meanwhile stays there, and is not taken away."""
        ours = ThreadWatch()
        ours.start()
        behind = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            behind(thread)

        threading.Thread.start = start  # type: ignore[assignment, method-assign]
        ours.stop()
        self.assertIs(threading.Thread.start, start)
        self.make_thread()
        self.assertEqual(ours.report(5), "made while watched: 0\n")
        ours.start()
        self.make_thread()
        self.assertIn("1 made here:", ours.report(5))
        threading.Thread.start = behind  # type: ignore[method-assign]
        ours.stop()
        self.assertIs(threading.Thread.start, self.original)

    def test_bounded(self) -> None:
        """Beyond the bound new places are not kept."""
        self.patch(watch, "MAX_STACKS", 1)
        ours = ThreadWatch()
        for stack in ("a", "b", "a"):
            ours.note(stack)
        self.assertEqual(ours.sites, {"a": 2})


class TimedTests(SynchronousTestCase):
    def test_ends_by_itself(self) -> None:
        """It is on for so long after it was asked last."""
        clock = Clock()
        heard: list[str] = []

        class Heard:
            def start(self) -> None:
                heard.append("on")

            def stop(self) -> None:
                heard.append("off")

        timed = Timed(clock, Heard(), 10)
        timed.stop()
        timed.ask()
        clock.advance(9)
        timed.ask()
        clock.advance(9)
        self.assertEqual(heard, ["on"])
        clock.advance(1)
        self.assertEqual(heard, ["on", "off"])
        timed.ask()
        timed.stop()
        self.assertEqual(heard, ["on", "off"] * 2)
        self.assertEqual(clock.getDelayedCalls(), [])

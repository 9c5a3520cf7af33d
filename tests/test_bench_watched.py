"""The bench of watching: turns are measured inside of a gateway, all questions are answered."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench import watched

if sys.platform != "linux":
    __test__ = False


class Poller:
    """Answers at once."""

    extra = "its own"

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        return [(most, int(timeout))]


class LongestTests(SynchronousTestCase):
    def test_turns(self) -> None:
        """The longest time between two polls is told once, then it begins anew."""
        reactor = SimpleNamespace(_poller=Poller())
        table: list[Any] = []
        commands = SimpleNamespace(reactor=reactor, register=lambda *row: table.append(row))
        watched.register(commands)
        ((_, _, longest),) = table
        longest()
        poller = reactor._poller
        self.assertEqual(poller.extra, "its own")
        for seconds in (0.0, 0.03, 0.0):
            began = time.thread_time()
            while time.thread_time() - began < seconds:
                pass
            self.assertEqual(poller.poll(3.0, 7), [(7, 3)])
        cpu, wall = map(float, longest().split())
        self.assertGreaterEqual(cpu, 30)
        self.assertGreaterEqual(wall, cpu - 1)
        self.assertEqual(longest(), "0.000 0.000")
        self.assertIs(reactor._poller, poller)


class TurnTests(SynchronousTestCase):
    def test_questions(self) -> None:
        """A gateway with everything open answers all questions, and each has a row."""
        self.patch(watched, "TRIES", 1)
        self.patch(watched, "LOOKUPS", ())
        sleep = time.sleep
        self.patch(time, "sleep", lambda seconds: sleep(seconds / 4))
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            watched.turns(argparse.Namespace(links=20), ["python"])
        rows = [row.split("\t") for row in told.getvalue().splitlines()]
        names = ["nothing", *watched.QUESTIONS, "everybody watches", "all links end at once"]
        self.assertEqual([row[0] for row in rows[1:]], names)
        self.assertTrue(all(float(row[2]) > 0 and float(row[3]) > 0 for row in rows[1:]))

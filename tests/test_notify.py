"""What systemd is told, heard on sockets of the two kinds of names."""

from __future__ import annotations

import os
import re
import socket
import time
from itertools import pairwise

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.ops.notify import Notify, Watchdog, of_environment
from fastway.wheel import STALL, Wheel
from tests.support.files import scratch
from tests.support.logs import LogLines
from tests.support.processes import PATIENCE


class NotifyTests(SynchronousTestCase):
    def listen(self, place: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.settimeout(PATIENCE)
        sock.bind(place)
        return sock

    def test_tell(self) -> None:
        """A datagram of lines, to a path or to an abstract name."""
        path = os.path.join(scratch(self), "socket")
        name = f"fastway-{os.getpid()}"
        for place, told in ((path, path), (f"\0{name}", f"@{name}")):
            sock = self.listen(place)
            Notify(told).tell(READY=1, STATUS="all is well")
            self.assertEqual(sock.recv(1000), b"READY=1\nSTATUS=all is well")

    def test_environment(self) -> None:
        """Who asks stands in NOTIFY_SOCKET; nobody asks without it."""
        path = os.path.join(scratch(self), "socket")
        sock = self.listen(path)
        self.patch(os, "environ", {"NOTIFY_SOCKET": path})
        of_environment().tell(STOPPING=1)
        self.assertEqual(sock.recv(1000), b"STOPPING=1")
        self.patch(os, "environ", {})
        with LogLines() as log:
            of_environment().tell(STOPPING=1)
        self.assertEqual(log.lines, [])

    def test_nobody_hears(self) -> None:
        """That is a line in the log and no more: nobody listens, a bad name, a full queue."""
        directory = scratch(self)
        path = os.path.join(directory, "socket")
        self.listen(path)
        with LogLines() as log:
            for place in (os.path.join(directory, "none"), "x" * 200, "a\0b"):
                Notify(place).tell(READY=1)
            for _ in range(1000):
                Notify(path).tell(STATUS="x" * 1000)
                if len(log.lines) > 3:
                    break
        self.assertEqual(len(log.lines), 4)
        self.assertIn("systemd was not told 'READY=1'", log.lines[0])

    def test_reloads(self) -> None:
        """A reload begins with the time of its beginning, on the clock that systemd goes by."""
        path = os.path.join(scratch(self), "socket")
        sock = self.listen(path)
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        Notify(path).reloads()
        told = sock.recv(1000).decode()
        found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", told)
        assert found is not None, told
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.assertLessEqual(before, int(found[1]))
        self.assertLessEqual(int(found[1]), after)


class WatchdogTests(SynchronousTestCase):
    def watch(self, seconds: float) -> tuple[Clock, Wheel, list[float]]:
        """A wheel with a watchdog, and when it spoke."""
        clock = Clock()
        wheel = Wheel(clock)
        notify = Notify(watchdog=seconds)
        times: list[float] = []

        def tell(**fields: object) -> None:
            self.assertEqual(fields, {"WATCHDOG": 1})
            times.append(clock.seconds())

        self.patch(notify, "tell", tell)
        Watchdog(notify).start(wheel)
        return clock, wheel, times

    def test_turns(self) -> None:
        """It speaks at the start, and then twice as often as is asked for."""
        clock, wheel, times = self.watch(10.0)
        clock.pump([0.05] * 400)
        self.assertEqual(len(times), 4)
        for before, after in pairwise(times):
            self.assertLess(abs(after - before - 5.0), 0.2)
        wheel.stop()
        clock.advance(20)
        self.assertEqual(len(times), 4)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_hangs(self) -> None:
        """While the reactor does not turn nothing is said."""
        clock, _, times = self.watch(4 * STALL)
        clock.pump([0.1] * 30)
        count = len(times)
        clock.advance(100.0)  # one turn, which came that late
        self.assertEqual(len(times), count)

    def test_not_asked(self) -> None:
        """Where nobody asks there is no timer."""
        clock, wheel, times = self.watch(0.0)
        self.assertEqual((len(wheel), times, clock.getDelayedCalls()), (0, [], []))

    def test_environment(self) -> None:
        """It stands in WATCHDOG_USEC, and is this process's unless WATCHDOG_PID is another."""
        pid = str(os.getpid())
        for given, seconds in (
            ({}, 0),
            ({"WATCHDOG_USEC": "30000000"}, 30),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": pid}, 30),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0),
            ({"WATCHDOG_USEC": "soon"}, 0),
            ({"WATCHDOG_USEC": "-1"}, 0),
        ):
            self.patch(os, "environ", given)
            self.assertEqual(of_environment().watchdog, seconds, given)

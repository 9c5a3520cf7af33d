"""How much one turn of the reactor hears."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.ops import turns
from fastway.ops.turns import bound_turns

try:
    from twisted.internet.epollreactor import EPollReactor
except ImportError:
    EPollReactor = None  # type: ignore[assignment,misc]


class Reader:
    """A socket that has something to read, for ever."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heard = 0

    def fileno(self) -> int:
        return self.sock.fileno()

    def logPrefix(self) -> str:
        return "reader"

    def doRead(self) -> None:
        self.heard += 1

    def connectionLost(self, reason: Any) -> None: ...


class TurnTests(SynchronousTestCase):
    """A reactor of its own, that is not started."""

    if EPollReactor is None:
        skip = "there is no epoll here"

    def setUp(self) -> None:
        self.reactor: Any = EPollReactor()
        self.sockets: list[socket.socket] = []
        self.addCleanup(self.close)

    def close(self) -> None:
        self.reactor.removeAll()
        self.reactor._poller.close()
        for sock in self.sockets:
            sock.close()

    def readers(self, count: int) -> list[Reader]:
        readers = []
        for _ in range(count):
            near, far = socket.socketpair()
            self.sockets += [near, far]
            far.send(b"x")
            readers.append(Reader(near))
            self.reactor.addReader(readers[-1])
        return readers

    def test_bounded(self) -> None:
        """A turn hears of so many and no more; after some turns all are heard as often."""
        most = 20
        self.patch(turns, "EVENTS", most)
        readers = self.readers(3 * most)
        self.assertTrue(bound_turns(self.reactor))
        self.assertTrue(bound_turns(self.reactor))
        for turn in range(1, 7):
            self.reactor.doIteration(0)
            self.assertEqual(sum(reader.heard for reader in readers), turn * most)
        self.assertEqual({reader.heard for reader in readers}, {2})

    def test_changes(self) -> None:
        """Readers come and go as before."""
        bound_turns(self.reactor)
        one, two = self.readers(2)
        self.reactor.doIteration(0)
        self.reactor.removeReader(one)
        self.reactor.doIteration(0)
        self.assertEqual((one.heard, two.heard), (1, 2))

    def test_others(self) -> None:
        """What is no epoll reactor is left alone."""
        clock: Any = Clock()
        self.assertFalse(bound_turns(clock))
        self.assertIsNone(turns.time_turns(clock))
        turns.leave_turns(clock)

    def test_timed(self) -> None:
        """Turns are measured from one question to the poller to the next, waits left out."""
        now = 0.0
        self.patch(turns, "perf_counter", lambda: now)
        self.assertIsNone(turns.time_turns(self.reactor))
        bound_turns(self.reactor)
        told = turns.time_turns(self.reactor)
        assert told is not None
        (reader,) = self.readers(1)

        def wait(timeout: float, most: int) -> list[tuple[int, int]]:
            nonlocal now
            now += 100
            return []

        for seconds in (0.0, turns.SHORT, 0.015, 0.3, 5.0):
            now += seconds
            self.reactor.doIteration(0)
            poller = self.reactor._poller
            real, poller._poller = poller._poller, SimpleNamespace(poll=wait)
            poller.poll(0, 1)
            poller._poller = real
        figures = told.figures()
        self.assertEqual(sum(figures.counts), 10)
        self.assertEqual(figures.counts[-2:], (1, 1))
        self.assertEqual(figures.counts[turns.LENGTHS.index(0.02)], 1)
        self.assertAlmostEqual(figures.total, 5.316)
        self.assertEqual(reader.heard, 5)

    def test_users(self) -> None:
        """They are measured for as long as anybody wants to know."""
        bound_turns(self.reactor)
        told = turns.time_turns(self.reactor)
        self.assertIs(turns.time_turns(self.reactor), told)
        self.assertTrue(bound_turns(self.reactor))
        for _ in range(2):
            self.assertIsInstance(self.reactor._poller, turns.TimedPoller)
            turns.leave_turns(self.reactor)
        self.assertIs(type(self.reactor._poller), turns.BoundedPoller)
        turns.leave_turns(self.reactor)
        (reader,) = self.readers(1)
        self.reactor.doIteration(0)
        self.assertEqual(reader.heard, 1)

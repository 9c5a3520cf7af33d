"""How much one turn of the reactor hears."""

from __future__ import annotations

import socket
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

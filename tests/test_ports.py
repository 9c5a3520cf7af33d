"""Tests of fastway.gateway.ports: what a port of the Python path does with a crowd."""

from __future__ import annotations

from functools import partial

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import Reason
from fastway.gateway.ports import Ends
from tests.support.golden import close
from tests.support.sockets import SocketTestCase
from tests.support.waits import until


class EndsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.ends = Ends(self.clock)
        self.ended: list[int] = []

    def add(self, *numbers: int) -> None:
        for number in numbers:
            self.ends.add(partial(self.ended.append, number))

    def turn(self) -> None:
        """One turn of the reactor: what it schedules comes in the next."""
        (call,) = self.clock.calls
        self.clock.calls.clear()
        call.func()

    def test_a_few(self) -> None:
        """Few are ended at once, and nothing is left to do."""
        self.add(*range(Ends.SLICE))
        self.assertEqual(self.ended, list(range(Ends.SLICE)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_crowd(self) -> None:
        """Of a crowd one slice is ended in a turn, in order."""
        crowd = 3 * Ends.SLICE + 1
        self.add(*range(crowd))
        for turn in range(1, 4):
            self.assertEqual(self.ended, list(range(turn * Ends.SLICE)))
            self.turn()
        self.assertEqual(self.ended, list(range(crowd)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_time_goes_by(self) -> None:
        """What comes later is at once again; behind those who wait nobody is."""
        self.add(*range(Ends.SLICE + 1))
        self.clock.rightNow += 2 * Ends.SECONDS
        self.add(1000)
        self.assertEqual(len(self.ended), Ends.SLICE)
        self.turn()
        self.assertEqual(self.ended[-2:], [Ends.SLICE, 1000])
        self.clock.advance(2 * Ends.SECONDS)
        self.add(1001)
        self.assertEqual(self.ended[-1], 1001)

    def test_an_end_ends_another(self) -> None:
        """What an end makes end comes behind those who wait."""
        self.add(*range(Ends.SLICE))
        self.ends.add(lambda: self.add(7))
        self.add(8)
        self.turn()
        self.turn()
        self.assertEqual(self.ended[-2:], [8, 7])

    def test_a_bug(self) -> None:
        """One that fails keeps nobody from his end."""
        self.add(*range(Ends.SLICE))
        self.ends.add(partial(self.ended.remove, -1))
        self.add(9)
        with pytest.raises(ValueError, match="not in list"):
            self.turn()
        self.turn()
        self.assertEqual(self.ended[-1], 9)


class CrowdTests(SocketTestCase):
    async def test_reset_at_once(self) -> None:
        """Connections that break in one turn all end, and their peers hear of each."""
        self.patch(Ends, "SLICE", 2)
        self.patch(Ends, "SECONDS", 3600.0)
        sockets = self.listen()
        server = await sockets.server()
        clients = [await sockets.client() for _ in range(9)]
        ids = [await sockets.pair(client, server) for client in clients]
        for client in clients[:6]:
            client.wire.abortConnection()
        for client in clients[6:]:
            client.wire.loseWriteConnection()
        await until("all ends", lambda: all(client.link.lost for client in clients))
        self.assertEqual(
            [client.link.lost for client in clients],
            [Reason.CONNECTION_LOST] * 6 + [Reason.PEER_CLOSED] * 3,
        )
        closes = [await server.read(13) for _ in ids]
        self.assertEqual(sorted(closes), sorted(map(close, ids)))
        await server.expect_alive()

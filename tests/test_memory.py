"""Memory goes back to the system when a crowd is gone."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fastway.gateway import memory, service
from fastway.gateway.memory import CROWD, EVERY, Tide
from tests.support.ends import Harness
from tests.support.golden import packet


class TideTests(SynchronousTestCase):
    def test_falls_once(self) -> None:
        """A fall to an eighth of high water is told once, until it was high again."""
        tide = Tide(1000)
        self.assertFalse(any(map(tide.fell, (0, 500, 10, 1000, 20, 8000, 4000, 1000))))
        self.assertTrue(tide.fell(999))
        self.assertFalse(any(map(tide.fell, (998, 0, 900, 0))))
        self.assertFalse(tide.fell(9000))
        self.assertTrue(tide.fell(0))

    def test_give_back(self) -> None:
        """It may be called anywhere."""
        memory.give_back()


class GatewayTests(SynchronousTestCase):
    def test_after_a_crowd(self) -> None:
        """What waited is given back some time after it was taken, and only then."""
        calls: list[None] = []
        self.patch(service, "give_back", lambda: calls.append(None))
        harness = Harness()
        server = harness.server()
        clients = [harness.client() for _ in range(20)]
        for client in clients:
            conn_id = harness.pair(client, server)
            client.transport.fill()
            server.send(packet(conn_id, bytes(500_000)) + packet(conn_id, bytes(500_000)))
        self.assertGreater(harness.service.waiting_bytes, CROWD)
        harness.pass_time(EVERY + 1)
        self.assertEqual(calls, [])
        for client in clients:
            client.transport.drain()
        self.assertEqual(harness.service.waiting_bytes, 0)
        harness.pass_time(EVERY + 1)
        self.assertEqual(calls, [None])
        harness.pass_time(60)
        self.assertEqual(calls, [None])

    def test_nobody_waits_for_it_at_the_end(self) -> None:
        """A service that stops leaves no call behind."""
        harness = Harness()
        harness.service.count(False, 0, 2 * CROWD)
        harness.service.count(False, 0, -2 * CROWD)
        self.assertEqual(len(harness.clock.getDelayedCalls()), 1)
        harness.service.stopService()
        self.assertEqual(harness.clock.getDelayedCalls(), [])

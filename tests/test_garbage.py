"""The collector of garbage: what it leaves out, and what becomes of that."""

from __future__ import annotations

import gc
import sys
import weakref
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from fastway.ops import garbage
from tests.support.ends import Harness
from tests.support.golden import PING, dial


class Ring:
    """A cycle of its own."""

    def __init__(self) -> None:
        self.itself = self


class GarbageTests(SynchronousTestCase):
    def setUp(self) -> None:
        thresholds, callbacks = gc.get_threshold(), gc.callbacks[:]

        def restore() -> None:
            gc.set_threshold(*thresholds)
            gc.callbacks[:] = callbacks

        self.addCleanup(restore)
        self.patch(garbage, "_blocks", 0)
        garbage.keep_collections_short()

    def ring(self) -> weakref.ref[Ring]:
        """One that the collector has left out before it became garbage."""
        ring = Ring()
        gc.collect()
        return weakref.ref(ring)

    def test_left_out(self) -> None:
        """What was looked through is not looked through again; all else is."""
        old = self.ring()
        young = weakref.ref(Ring())
        gc.collect()
        self.assertIsNotNone(old())
        self.assertIsNone(young())
        old().__dict__.clear()
        self.assertIsNone(old())

    def test_far_more(self) -> None:
        """Once there is far more than there was, all is looked through; then it begins anew."""
        old = self.ring()
        more = 2 * sys.getallocatedblocks() + garbage.MARGIN + 100_000
        with patch("sys.getallocatedblocks", return_value=more):
            gc.collect()
            self.assertIsNotNone(old())
            gc.collect()
            self.assertIsNone(old())
            old = self.ring()
            gc.collect()
        self.assertIsNotNone(old())

    def test_by_itself(self) -> None:
        """It needs no more than objects that come and stay: of each some ten thousand."""
        looked: list[int] = []

        def note(phase: str, info: dict[str, int]) -> None:
            if phase == "start" and info["generation"] == 2:
                looked.append(sum(len(gc.get_objects(generation=one)) for one in range(3)))

        gc.callbacks.insert(0, note)
        kept = [[number] for number in range(100_000)]
        self.assertGreaterEqual(len(looked), 4)
        self.assertLess(max(looked), 40_000)
        self.assertEqual(len(kept), 100_000)

    def test_all_objects(self) -> None:
        """Who counts objects sees those too, and leaves it as it was."""
        ring = Ring()
        gc.collect()
        self.assertFalse(any(one is ring for one in gc.get_objects()))
        self.assertTrue(any(one is ring for one in garbage.all_objects()))
        self.assertFalse(any(one is ring for one in gc.get_objects()))

    def test_links(self) -> None:
        """Links that were left out are gone when they end."""
        harness = Harness()
        server = harness.server(1)
        clients = [harness.client() for _ in range(20)]
        for client in clients:
            client.send(PING + dial(1))
        links = [weakref.ref(client.link) for client in clients]
        gc.collect()
        for client in clients:
            client.gone()
        server.gone()
        harness.clock.advance(100)
        clients.clear()
        del client, server
        self.assertEqual([link for link in links if link() is not None], [])

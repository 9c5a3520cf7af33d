"""The bench of nano's cluster: each kind of load, and a backend that is none.

Rule: nothing here asks how fast anything is.
"""

from __future__ import annotations

import sys

import pytest
from twisted.trial.unittest import TestCase

import bench.cluster
from bench.cluster import measure
from bench.gateways import Failure
from bench.table import Case
from tests.support.waits import reactor

OURS = [sys.executable, "-m", "bench.cluster", "--serve", "{port}", "{master}"]


class ClusterBenchTests(TestCase):
    def setUp(self) -> None:
        for name, value in (("PARTS", 1), ("WARM", 0.01)):
            self.patch(bench.cluster, name, value)

    async def test_all_loads(self) -> None:
        """Requests and pushes have their figure, of each backend."""
        for load in ("ask 3", "tell 3"):
            results = await measure(reactor, Case("", load, ()), {"one": OURS}, 0.05)
            self.assertEqual(list(results), ["one"])
            self.assertGreater(results["one"]["us"], 0)

    async def test_none(self) -> None:
        """A backend that does not start is none."""
        dead = [sys.executable, "-c", ""]
        with pytest.raises(Failure, match="does not join"):
            await measure(reactor, Case("", "ask 1", ()), {"dead": dead}, 0.05)

"""The bench of messages: every way gives back what it was given, and says what it cost.

Rule: nothing here asks how fast anything is.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.gateways import Failure
from bench.messages import BASE, GO, WAYS, Way, build_go, each, measure, measure_go
from tests.support.errors import raised
from tests.support.files import scratch


class MessageBenchTests(SynchronousTestCase):
    def test_ways(self) -> None:
        """Each has its figures; a message that comes back otherwise ends it."""
        for load, make in WAYS.items():
            made = make()
            self.assertIn(BASE, made)
            for way in made.values():
                result = measure(way, 0.0)
                self.assertEqual(set(result), {"encode", "decode", "bytes"})
            self.assertEqual(measure(made[BASE], 0)["bytes"], {"line": 85, "room": 1561}[load])
        liar = Way(1, lambda _: b"1", lambda _: 2)
        self.assertIn("comes back otherwise", str(raised(Failure, measure, liar, 0.0)))

    def test_each(self) -> None:
        """A call is called for that long."""
        calls: list[int] = []
        self.assertGreater(each(0.001, lambda: calls.append(1)), 0.0)
        self.assertTrue(calls)

    def test_go(self) -> None:
        """Go's figures of the same messages, where there is a Go."""
        program = build_go(Path(scratch(self)))
        if program is None:
            raise self.skipTest("there is no go")
        for load in WAYS:
            results = measure_go(program, load, 0.001)
            self.assertEqual(tuple(results), GO)
            self.assertGreater(min(one["decode"] for one in results.values()), 0.0)
        raised(Failure, measure_go, Path("/bin/false"), "line", 0.0)

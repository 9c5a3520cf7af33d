"""The commands that look into the process: cpuprof, and the lookups."""

from __future__ import annotations

import cProfile
import gc
import os
import pstats
import re
import stat
import threading
import tracemalloc
from typing import Any, cast

from fastway.ops import profiles
from fastway.ops.profiles import THREADS_WATCHED, TURNS_WATCHED
from tests.support.commands import CommandsTestCase


class ProfileTests(CommandsTestCase):
    def test_cpuprof(self) -> None:
        """A profile from start to stop is one that pstats opens, with what ran in between."""
        self.assertIn("cpuprof stop", self.answer("cpuprof start"))
        self.harness.client()
        path = os.path.join(self.directory, "fastway.cpu.prof")
        self.assertIn(path, self.answer("cpuprof stop"))
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        profile = cast(Any, pstats.Stats(path))
        self.assertIn("add_client", {function for _, _, function in profile.stats})

    def test_cpuprof_order(self) -> None:
        """stop without start, and start twice, fail and say what to do."""
        self.assertIn("cpuprof start begins one", self.problem("cpuprof stop"))
        self.answer("cpuprof start")
        self.assertIn("already", self.problem("cpuprof start"))
        self.answer("cpuprof stop")
        self.assertIn("cpuprof start begins one", self.problem("cpuprof stop"))

    def test_cpuprof_refused(self) -> None:
        """A profiler that Python refuses (another one is active) leaves none behind."""

        class Busy(cProfile.Profile):
            def enable(self, *_: Any, **__: Any) -> None:
                raise ValueError("Another profiling tool is already active")

        with_profile = cProfile.Profile
        self.patch(cProfile, "Profile", Busy)
        self.assertIn("already active", self.problem("cpuprof start"))
        self.patch(cProfile, "Profile", with_profile)
        self.answer("cpuprof start")
        self.answer("cpuprof stop")

    def test_levels(self) -> None:
        """Every lookup goes without a level and with one of up to four digits, not with five."""
        self.addCleanup(tracemalloc.stop)
        for what in ("block", "gc", "goroutine", "heap", "threadcreate"):
            for level in ("", " 0", " 1", " 12", " 123", " 1234"):
                self.answer(f"lookup {what}{level}")
            for level in (" 12345", " -1", " x", " 1 2", "1"):
                self.assertIn("unknown command", self.problem(f"lookup {what}{level}"))
        for line in ("lookup", "lookup stack", "lookup 1"):
            self.assertIn("unknown command", self.problem(line))

    def test_gc(self) -> None:
        """lookup gc tells the collector's state in the log, in no file."""
        text = self.answer("lookup gc")
        self.assertIn(f"thresholds: {gc.get_threshold()}", text)
        for generation in range(3):
            self.assertIn(f"generation {generation}: collections ", text)
        self.assertEqual(os.listdir(self.directory), ["fastway.answer"])

    def test_heap(self) -> None:
        """lookup heap without a level works; the second one lists lines that allocate."""
        self.addCleanup(tracemalloc.stop)
        if tracemalloc.is_tracing():
            tracemalloc.stop()
        self.assertIn("lookup heap 0 ends it", self.answer("lookup heap"))
        first = self.report("heap.prof")
        self.assertRegex(first, r"\Aresident: [1-9]\d+ bytes\n")
        self.assertRegex(first, r"(?m)^\d+\tdict$")
        self.assertTrue(tracemalloc.is_tracing())
        kept = [bytes(1000) for _ in range(1000)]
        self.answer("lookup heap 3")
        second = self.report("heap.prof")
        self.assertIn("test_profiles.py", second)
        self.assertEqual(len(re.findall(r"(?m)^/.*: size=", second)), 3)
        self.assertEqual(len(re.findall(r"(?m)^\d+\t", second)), 3)
        del kept
        self.assertIn("not traced any more", self.answer("lookup heap 0"))
        self.assertFalse(tracemalloc.is_tracing())

    def test_goroutine(self) -> None:
        """lookup goroutine shows this thread's stack, the calls to come, and the links."""
        client = self.harness.client()
        self.reactor.callLater(1000, self.harness.turn)
        self.assertIn("1 links", self.answer("lookup goroutine"))
        text = self.report("goroutine.prof")
        self.assertIn("test_goroutine", text)
        self.assertIn("MainThread", text)
        self.assertRegex(text, r"in 1000\.000 s: Harness.turn")
        self.assertIn(f"client 1 {client.link.facts.name}", text)
        self.assertIn("readers: ", text)

    def test_goroutine_rows(self) -> None:
        """The detail level is the number of rows."""
        for _ in range(3):
            self.harness.client()
        for level, rows in ((0, 0), (1, 1), (2, 2), (9, 3)):
            self.answer(f"lookup goroutine {level}")
            text = self.report("goroutine.prof")
            self.assertIn("links: 3\n", text)
            self.assertEqual(len(re.findall(r"(?m)^client \d", text)), rows)

    def test_heap_in_slices(self) -> None:
        """Neither the counting of objects nor that of allocations is one long turn."""
        self.addCleanup(tracemalloc.stop)
        self.patch(profiles, "OBJECTS", 50)  # most are frozen: see conftest
        for least in (20, 50):
            work = self.commands.profiles.heap(None)
            steps = sum(1 for _ in work)
            self.assertGreater(steps, least)
            kept = [[number] for number in range(5000)]
        del kept

    def test_heap_says_what_it_cost(self) -> None:
        """The answer says how long the longest turn was."""
        self.addCleanup(tracemalloc.stop)
        self.assertRegex(self.answer("lookup heap"), r"; it took a turn of \d+ ms; alloc")

    def test_block(self) -> None:
        """lookup block watches for a stated time from then on, and not before or after."""
        turns = self.commands.profiles.turns
        self.assertFalse(self.watched("fastway-turns"))
        self.assertIn("watching for 60 s from now", self.answer("lookup block"))
        self.assertIn("turns longer than 0.1 s: 0", self.report("block.prof"))
        self.assertTrue(self.watched("fastway-turns"))
        turns._stacks["somewhere\n"] += 2
        self.reactor.advance(TURNS_WATCHED - 1)
        self.assertIn("watching for 60 s more", self.answer("lookup block"))
        self.assertIn("0.10 s here:\nsomewhere", self.report("block.prof"))
        self.reactor.advance(TURNS_WATCHED - 1)
        self.assertTrue(turns.on)
        self.reactor.advance(1)
        self.assertFalse(turns.on)
        self.assertIn("watching for 60 s from now", self.answer("lookup block"))
        self.assertIn("somewhere", self.report("block.prof"))

    def watched(self, name: str) -> bool:
        return name in [thread.name for thread in threading.enumerate()]

    def test_threadcreate(self) -> None:
        """lookup threadcreate shows the threads, and where they were made since it was asked."""
        original = threading.Thread.start
        self.assertIn("watching for 600 s from now", self.answer("lookup threadcreate"))
        self.report("threadcreate.prof")
        made_by_this_line = threading.Thread(target=int)
        made_by_this_line.start()
        made_by_this_line.join()
        self.answer("lookup threadcreate 1000")
        text = self.report("threadcreate.prof")
        self.assertIn("MainThread", text)
        self.assertIn("in test_threadcreate", text)
        self.assertIn("made_by_this_line.start()", text)
        self.assertIn("1 made here:", text)
        self.reactor.advance(THREADS_WATCHED)
        self.assertIs(threading.Thread.start, original)

    def test_stop(self) -> None:
        """What an operator began is ended with the service."""
        original = threading.Thread.start
        self.answer("cpuprof start")
        self.answer("lookup heap")
        self.answer("lookup block")
        self.answer("lookup threadcreate")
        self.commands.stop()
        self.assertIs(threading.Thread.start, original)
        self.assertFalse(self.commands.profiles.turns.on)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertFalse(tracemalloc.is_tracing())
        self.assertIn("no profile", self.problem("cpuprof stop"))

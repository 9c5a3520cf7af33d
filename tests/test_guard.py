"""A process without memory ends, with one line."""

from __future__ import annotations

import subprocess
import sys

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from fastway.ops.guard import MANY, SECONDS, Guard
from tests.support.processes import PATIENCE

FAILS = """
from fastway.ops.guard import Guard
from twisted.internet import reactor
from twisted.logger import globalLogBeginner
globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
def fail():
    reactor.callLater(0, fail)
    raise MemoryError
Guard().start()
reactor.callWhenRunning(fail)
reactor.run()
"""


class GuardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.guard = Guard(self.said.append, lambda: self.now)
        self.guard.start()
        self.addCleanup(self.guard.stop)
        self.log = Logger("guarded")

    def meet(self, error: type[Exception] = MemoryError) -> None:
        try:
            raise error
        except Exception:
            self.log.failure("failed")
        self.flushLoggedErrors(error)

    def test_many(self) -> None:
        """MANY lacks of memory within SECONDS are the end, not one less."""
        for _ in range(MANY - 1):
            self.meet()
            self.now += SECONDS / (MANY - 1)
        self.assertEqual(self.said, [])
        self.meet()
        self.assertEqual(self.said, ["out of memory; it cannot go on"])

    def test_few(self) -> None:
        """A lack now and then, and any number of other errors, are not."""
        for _ in range(20):
            self.meet()
            self.meet(ValueError)
            self.now += SECONDS / (MANY - 1) + 0.1
        self.assertEqual(self.said, [])

    def test_process(self) -> None:
        """A reactor that can do nothing any more ends with status 1 and one line."""
        done = subprocess.run(
            [sys.executable, "-c", FAILS],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(
            (done.returncode, done.stderr),
            (1, "fastway: out of memory; it cannot go on\n"),
        )

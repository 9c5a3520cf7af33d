"""Ends a process that cannot go on, with one line.

Rule: better no gateway than one that lives and does not forward; whoever started it starts
another. Twisted logs an error of its loop and goes round, for ever if memory is what is missing.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import cast

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

MANY = 5
"""Errors for lack of memory,"""

SECONDS = 10.0
"""within so many seconds, that end the process."""


def end_process(problem: str) -> None:
    """Say why on standard error, and be gone: no clean-up that may need memory."""
    try:
        os.write(2, f"fastway: {problem}\n".encode())
    finally:
        os._exit(1)


@implementer(ILogObserver)
class Guard:
    """Counts MemoryErrors that reach the log.

    Args:
        end: What is called with one line.
        seconds: A clock that never goes back.
    """

    def __init__(
        self,
        end: Callable[[str], None] = end_process,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._end = end
        self._seconds = seconds
        self._times: deque[float] = deque(maxlen=MANY)

    def start(self) -> None:
        """Look at all that is logged from now on."""
        globalLogPublisher.addObserver(cast(ILogObserver, self))

    def stop(self) -> None:
        globalLogPublisher.removeObserver(cast(ILogObserver, self))

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is None or not cast(Failure, failure).check(MemoryError):
            return
        now = self._seconds()
        self._times.append(now)
        if len(self._times) == MANY and now - self._times[0] <= SECONDS:
            self._end("out of memory; it cannot go on")

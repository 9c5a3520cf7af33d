"""When to connect again: one back-off for everything that reconnects.

Rule: whoever connects and is soon turned away waits as long as one who gets no connection: only a
connection that was *steady* makes up for failures. No clock and no I/O: the caller tells the time.

    reconnect = Reconnect(growing(0.5, 30.0))
    reconnect.began(now)                # connected, and logged in
    pause = reconnect.ended(now)        # that connection is gone; seconds until the next attempt
    pause = reconnect.failed()          # an attempt got no connection
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

STEADY = 10.0
"""Seconds that a connection must have lasted to be a steady one. A gateway that is full, stops, or
crashes as soon as it has work, loses those that it let in sooner than that."""

Backoff = Callable[[int], float]
"""Failures since the last steady connection, from 0 on -> seconds until the next attempt."""

MOST_GROWTH = 100
"""Failures that a delay still grows by: floats overflow past some thousands."""


def growing(
    first: float,
    most: float,
    factor: float = 1.5,
    random: Callable[[], float] = random.random,
) -> Backoff:
    """Delays that grow, each made up to twice as long by chance.

    The chance keeps a thousand peers that were lost in the same instant from coming back in the
    same instant, and keeps them apart in every further attempt.

    Args:
        first: Seconds; no delay is less. It is that of the first failure, and of none.
        most: Seconds; no delay is more, and at least `2 * first`.
        factor: What each further failure multiplies the delay by, up to half of `most`.
        random: Chance: from 0 on, less than 1.

    Raises:
        ValueError: that cannot be.
    """
    if not (first > 0 and 2 * first <= most < math.inf and 1 <= factor < math.inf):
        raise ValueError("delays grow from over 0 seconds to at least twice as many")

    def delay(failures: int) -> float:
        growth = min(max(failures - 1, 0), MOST_GROWTH)
        return min(first * factor**growth, most / 2) * (1 + random())

    return delay


class Reconnect:
    """Says how long to wait before each attempt to connect again.

    Args:
        backoff: `growing`, or any function of the failures.
        steady: Seconds that a connection must have lasted to be a steady one.
        at_once: After a steady connection the next attempt is made at once, for one's own network
            may have broken. Otherwise `backoff(0)` is waited: where a gateway went, everybody has
            lost it in the same instant.

    Attributes:
        failures: Attempts without a connection, and connections that were not steady, since the
            last that was.
    """

    __slots__ = ("_at_once", "_backoff", "_began", "_steady", "failures")

    def __init__(self, backoff: Backoff, steady: float = STEADY, at_once: bool = False) -> None:
        self.failures = 0
        self._backoff = backoff
        self._steady = steady
        self._at_once = at_once
        self._began = math.inf

    def began(self, now: float) -> None:
        """There is a connection, with all its handshakes done. Failures count on: it may be one
        that does not last."""
        self._began = now

    def ended(self, now: float, got_something: bool = False) -> float:
        """The connection is gone.

        Args:
            got_something: It was of use, however short it was: it counts as steady.

        Returns:
            Seconds until the next attempt.

        Raises:
            ValueError: the backoff gave something else.
        """
        began, self._began = self._began, math.inf
        if got_something or now - began >= self._steady:
            self.failures = 0
            return 0.0 if self._at_once else self._pause()
        return self.failed()

    def failed(self) -> float:
        """An attempt got no connection.

        Returns:
            Seconds until the next attempt.

        Raises:
            ValueError: the backoff gave something else.
        """
        self.failures += 1
        return self._pause()

    def _pause(self) -> float:
        pause = float(self._backoff(self.failures))
        if not 0 <= pause < math.inf:
            raise ValueError(f"a backoff gives seconds from 0 on, not {pause}")
        return pause

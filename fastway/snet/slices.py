"""Calls that can come in masses, made a few in each turn of the reactor.

Rule: order is kept and every call is made. When thousands of streams are cut or lost at once, the
others wait for a slice at a time, not for all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

SLICE = 64
"""Calls in one turn: each is some tens of microseconds of a protocol's work and a log line."""

Call = Callable[[], object]


class Slices:
    """Makes at most SLICE calls a turn of the clock."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: deque[Call] = deque()
        self._made = 0
        """Calls made in this turn."""
        self._scheduled = False

    def now(self, call: Call) -> None:
        """Make the call at once; if this turn has had its slice, in a later one."""
        if self._waiting or self._made == SLICE:
            self.later(call)
            return
        self._made += 1
        self._schedule()
        call()

    def later(self, call: Call) -> None:
        """Make the call in a later turn, never within this one."""
        self._waiting.append(call)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._made = 0
        waiting = self._waiting
        try:
            while waiting and self._made < SLICE:
                self._made += 1
                waiting.popleft()()
        finally:
            if self._made:  # to go on, and to begin the next turn's count
                self._schedule()

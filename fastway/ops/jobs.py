"""Work in slices, a little of it in each turn of the reactor, whoever asked for it.

Rule: all that is under way has one share of a turn together, so that many who ask make each other
wait, and not the gateway.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fastway.ops.snapshot import Slices, T

TURN = 0.003
"""Seconds of one turn of the reactor that all of it may take."""


class Jobs:
    """What is under way.

    Args:
        clock: The reactor, or a test's.
        after: Called at the end of a turn's share.
    """

    def __init__(self, clock: IReactorTime, after: Callable[[], object] = lambda: None) -> None:
        self.timer: Callable[[], float] = time.perf_counter
        """Measures the turns, in seconds."""
        self._clock = clock
        self._after = after
        self._queue: deque[tuple[Deferred[Any], Slices[Any]]] = deque()
        self._next: IDelayedCall | None = None

    def begin(self, work: Slices[T]) -> Deferred[T]:
        """Do some of it now if nothing else is under way, and the rest in turns to come.

        Returns:
            What fires with its value, or fails with what it raised. To cancel it closes the work.
        """
        done: Deferred[T] = Deferred(lambda _: work.close())
        self._queue.append((done, work))
        if self._next is None:
            self._go_on()
        return done

    def stop(self) -> None:
        """Cancel all of it."""
        for done, _ in list(self._queue):
            done.addErrback(lambda failure: failure.trap(CancelledError))
            done.cancel()
        self._queue.clear()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _go_on(self) -> None:
        """A turn's share: a slice of each in order, until the time is over."""
        self._next = None
        until = self.timer() + TURN
        queue = self._queue
        while queue:
            done, work = queue.popleft()
            if done.called:  # cancelled
                continue
            try:
                next(work)
            except StopIteration as end:
                done.callback(end.value)
            except (Exception, SystemExit):
                done.errback()
            else:
                queue.append((done, work))
            if self.timer() >= until:
                break
        if queue and self._next is None:
            self._next = self._clock.callLater(0, self._go_on)
        self._after()

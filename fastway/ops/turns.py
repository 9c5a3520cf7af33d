"""Turns of Twisted's reactor that end: however many connections have something, timers come in
between.

Rule: only the length of a turn changes, and is measured if somebody asks. What one turn leaves,
epoll tells in the next, first those that have waited longest.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from twisted.internet.interfaces import IReactorCore

from fastway.histogram import Histogram

EVENTS = 256
"""Connections of which a turn hears; Twisted asks for all, each of which costs 10 to 100 µs."""


class BoundedPoller:
    """What a reactor polls, asked for a few events at a time.

    Args:
        poller: A `select.epoll`.
    """

    __slots__ = ("_poller", "close", "fileno", "modify", "register", "unregister")

    def __init__(self, poller: Any) -> None:
        self._poller = poller
        self.register = poller.register
        self.modify = poller.modify
        self.unregister = poller.unregister
        self.fileno = poller.fileno
        self.close = poller.close

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        """The events that are there, or that come within `timeout` seconds, at most EVENTS."""
        events: list[tuple[int, int]] = self._poller.poll(timeout, min(most, EVENTS))
        return events


SHORT = 0.001

LENGTHS = (SHORT, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
"""Seconds that a turn may take: nobody notices the first, everybody the last."""


class TimedPoller(BoundedPoller):
    """The same, and turns are measured: from when it has answered until it is asked again.

    Attributes:
        turns: Their lengths.
        users: Who wants to know.
    """

    __slots__ = ("_began", "turns", "users")

    def __init__(self, poller: Any) -> None:
        super().__init__(poller)
        self.turns = Histogram(LENGTHS)
        self.users = 0
        self._began = perf_counter()

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        took = perf_counter() - self._began
        if took <= SHORT:  # nearly all
            self.turns.counts[0] += 1
            self.turns.total += took
        else:
            self.turns.add(took)
        try:
            return BoundedPoller.poll(self, timeout, most)
        finally:
            self._began = perf_counter()


def time_turns(reactor: Any) -> Histogram | None:
    """Measure the turns of a reactor whose turns are bound, until `leave_turns`; None: of another.

    It costs 0.3 µs a turn.
    """
    poller = getattr(reactor, "_poller", None)
    if not isinstance(poller, BoundedPoller):
        return None
    if not isinstance(poller, TimedPoller):
        poller = reactor._poller = TimedPoller(poller._poller)
    poller.users += 1
    return poller.turns


def leave_turns(reactor: Any) -> None:
    """One less wants them measured."""
    poller = getattr(reactor, "_poller", None)
    if isinstance(poller, TimedPoller):
        poller.users -= 1
        if not poller.users:
            reactor._poller = BoundedPoller(poller._poller)


def bound_turns(reactor: IReactorCore) -> bool:
    """Let a reactor hear of EVENTS connections a turn.

    Returns:
        Whether it can: it is Twisted's epoll reactor. Others go on as they are.
    """
    try:
        from twisted.internet.epollreactor import EPollReactor
    except ImportError:  # not on Linux
        return False
    if type(reactor) is not EPollReactor:
        return False
    if not isinstance(reactor._poller, BoundedPoller):
        reactor._poller = BoundedPoller(reactor._poller)
    return True

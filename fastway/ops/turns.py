"""Turns of Twisted's reactor that end: however many connections have something, timers come in
between.

Rule: only the length of a turn changes. What one turn leaves, epoll tells in the next, first those
that have waited longest.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorCore

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

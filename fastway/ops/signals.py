"""What signals do to a gateway.

Rule: a signal never kills what it is to command. SIGUSR1 is caught before the pid file tells
anybody where to send it, and ignored where it is not caught; the first SIGTERM or SIGINT begins a
clean stop, any further one hurries it. Where a SIGTERM drains, the first of them does so instead.

A handler only hands on to the reactor: Python runs it in the middle of whatever is going on.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM)


def shield() -> None:
    """Let SIGUSR1 be ignored, not kill, while no gateway catches it: before and after."""
    with suppress(ValueError):  # not the main thread
        if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)


class Signals:
    """The signals of one gateway.

    Args:
        reactor: What runs the actions. Its own handlers of SIGTERM and SIGINT are stood in
            front of, once it runs; where it has none, or an embedding program has others, those
            stay.
        hurry: Called, once, for a signal that comes when a stop was asked for already.
        drain: Called for a SIGTERM before that; whether it is to be no stop.
    """

    def __init__(
        self,
        reactor: Any,
        hurry: Callable[[], object],
        drain: Callable[[], bool] = lambda: False,
    ) -> None:
        self._reactor = reactor
        self._hurry = hurry
        self._drain = drain
        self._old: dict[int, Any] = {}
        self._old_stops: dict[int, Any] = {}
        self._actions: dict[int, Callable[[], object]] = {}
        self._due: set[int] = set()
        """Signals whose action is on its way through the reactor."""
        self._catching = False
        self._asked = 0
        self.stopping = False
        """The gateway stops, whoever asked for it."""

    def catch(self, actions: Mapping[signal.Signals, Callable[[], object]]) -> None:
        """Catch signals from now on; in a thread that is not the main one nothing is caught."""
        self._catching = True
        self._asked = 0
        self.stopping = False
        self._actions = {int(number): action for number, action in actions.items()}
        for number in actions:
            self._stand_in(number, self._caught, self._old)
        self._reactor.callWhenRunning(self._catch_stops)

    def release(self) -> None:
        """Put everything back as it was; but if a signal asked for the end, ignore further ones.

        The process is about to end then, and what the reactor does at another is a traceback.
        """
        self._catching = False
        if self._asked:
            self._old_stops = dict.fromkeys(self._old_stops, signal.SIG_IGN)
        self._put_back(self._old_stops)
        self._put_back(self._old)

    def _stand_in(self, number: int, handler: Any, old: dict[int, Any]) -> None:
        with suppress(ValueError):  # not the main thread: an embedded gateway has no signals
            old[number] = signal.signal(number, handler)

    def _put_back(self, old: dict[int, Any]) -> None:
        while old:
            number, handler = old.popitem()
            signal.signal(number, handler)

    def _caught(self, number: int, _: object) -> None:
        # However many come until the reactor turns, they are one, as the kernel's are.
        if number not in self._due:
            self._due.add(number)
            self._reactor.callFromThread(self._act, number)

    def _act(self, number: int) -> None:
        self._due.discard(number)
        self._actions[number]()

    def _catch_stops(self) -> None:
        if not self._catching:
            return
        _stay_calm()
        for number in STOPS:
            handler = signal.getsignal(number)
            if getattr(handler, "__self__", None) is self._reactor:
                self._stand_in(number, self._stop_signal, self._old_stops)

    def _stop_signal(self, number: int, _: object) -> None:
        self._reactor.callFromThread(self._stop_asked, number)

    def _stop_asked(self, number: int) -> None:
        calm = not (self._asked or self.stopping)
        if number == signal.SIGTERM and calm and self._drain():
            return
        self._asked += 1
        if self._asked == 1 and not self.stopping:
            self._old_stops[number](number, None)
        elif self._asked <= 2:
            self._hurry()


def _stay_calm() -> None:
    """Let Python not complain when signals come faster than the reactor's waker is read.

    It complains by way of a lock that it takes in the C handler; the next signal may come while
    that is held, and then the process waits for itself for ever (CPython 3.11, seen).
    """
    with suppress(ValueError):  # not the main thread
        waker = signal.set_wakeup_fd(-1)
        if waker >= 0:
            signal.set_wakeup_fd(waker, warn_on_full_buffer=False)

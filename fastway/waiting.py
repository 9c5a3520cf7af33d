"""What waits, and the framework that it waits in: Twisted or asyncio.

Rule: the endpoint library's logic stands on these few verbs and on nothing else of a framework, so
that it exists once. Whoever fires what a caller waits for survives whatever the caller then does:
cancel its neighbours, close what is being closed, wait anew.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

TURNS = 2
"""Turns of the loop that who takes gets before too much waits, where turns are (asyncio)."""


class Waiter(Protocol):
    """What one caller awaits: a Deferred, or what is like one in asyncio."""

    @property
    def called(self) -> Any:
        """It has its result, or was cancelled."""

    def callback(self, result: Any) -> object: ...

    def errback(self, fail: Any) -> object: ...

    def cancel(self) -> object: ...

    def __await__(self) -> Any: ...


class Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> object: ...


class Loop(Protocol):
    """A framework, as far as it is needed.

    Attributes:
        cancelled: What a coroutine that is cancelled meets.
        turns: Who is told runs in a later turn of the loop, not at once.
    """

    cancelled: type[BaseException]
    turns: bool

    def seconds(self) -> float:
        """A clock that never goes back."""

    def call_later(self, seconds: float, call: Callable[..., object], *args: Any) -> Timer:
        """The timer may be cancelled once, before it is due."""

    def waiter(self, cancel: Callable[[Any], object] | None = None) -> Any:
        """A new Waiter; `cancel` is called with it when its caller cancels it."""

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Waiter:
        """Run a coroutine that raises nothing, at once or soon."""

    def log_failure(self, text: str) -> None:
        """Log the exception that is being handled."""

    def log_info(self, text: str) -> None: ...

    def log_warn(self, text: str) -> None: ...


class Waiters:
    """Callers that wait for one thing each; cancelling one takes it out."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: dict[Any, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, cancelled: Callable[[], object] | None = None) -> Any:
        """One more that waits; `cancelled` is called if it is cancelled."""

        def cancel(gone: Any) -> None:
            self._waiting.pop(gone, None)
            if cancelled is not None:
                cancelled()

        waiter = self._loop.waiter(cancel)
        self._waiting[waiter] = None
        return waiter

    def first(self) -> Any:
        """Take out the one that waits longest; None: nobody waits."""
        for waiter in self._waiting:
            del self._waiting[waiter]
            return waiter
        return None

    def fail(self, waiter: Any, error: Exception) -> None:
        """That one fails, if it still waits."""
        if self._waiting.pop(waiter, self) is None and not waiter.called:
            waiter.errback(error)

    def callback(self, value: object) -> None:
        """Everybody who waits now gets `value`."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            if not waiter.called:  # one that came before may have cancelled it
                waiter.callback(value)

    def errback(self, error: Exception) -> None:
        """Everybody who waits now fails."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            if not waiter.called:
                waiter.errback(error.with_traceback(None))  # else each adds its frames to it


def sleeping(loop: Loop, seconds: float) -> Any:
    """A Waiter that gets None after so many seconds."""
    waiter = loop.waiter(lambda _: timer.cancel())
    timer = loop.call_later(seconds, waiter.callback, None)
    return waiter


def watch(
    waiter: Any, done: Callable[[Any], object], failed: Callable[[Exception], object]
) -> None:
    """Call one of the two with what becomes of a Waiter; neither raises."""
    if hasattr(waiter, "addCallbacks"):
        waiter.addCallbacks(done, lambda failure: failed(failure.value))
        return

    def look(future: Any) -> None:
        if not future.cancelled():
            error = future.exception()
            if error is None:
                done(future.result())
            else:
                failed(error)

    waiter.add_done_callback(look)

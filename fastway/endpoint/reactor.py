"""Twisted as the framework that the library's logic runs in."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime

from fastway.logs import make_logger

log = make_logger("fastway.endpoint")


class TwistedLoop:
    """A reactor, or a `task.Clock`, as `waiting.Loop`."""

    cancelled: type[BaseException] = CancelledError
    turns = False

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock

    def seconds(self) -> float:
        return self.clock.seconds()

    def call_later(self, seconds: float, call: Callable[..., object], *args: Any) -> Any:
        return self.clock.callLater(seconds, call, *args)

    def waiter(self, cancel: Callable[[Any], object] | None = None) -> Any:
        return Deferred(cancel)  # type: ignore[arg-type]

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return ensureDeferred(coroutine)

    def log_failure(self, text: str) -> None:
        log.failure("{text}", text=text)

    def log_info(self, text: str) -> None:
        log.info("{text}", text=text)

    def log_warn(self, text: str) -> None:
        log.warn("{text}", text=text)


def the_reactor() -> IReactorTime:
    """The global reactor, imported when it is first needed: importing installs it."""
    from twisted.internet import reactor

    return cast(IReactorTime, reactor)

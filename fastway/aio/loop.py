"""asyncio as the framework that the library's logic runs in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger("fastway")


class AioWaiter(asyncio.Future[Any]):
    """A future as `waiting.Waiter`."""

    # No __init__ and no frames of Python's: one is made for each message that is waited for.

    on_cancel: Callable[[Any], object] | None = None

    called = property(asyncio.Future.done)
    callback = asyncio.Future.set_result

    def errback(self, error: BaseException) -> None:
        self.set_exception(error)
        self.exception()  # nobody has to look at it

    def cancel(self, msg: Any = None) -> bool:
        if self.on_cancel is not None and not self.done():
            self.on_cancel(self)
        return super().cancel(msg)


class AioLoop:
    """An event loop as `waiting.Loop`."""

    cancelled: type[BaseException] = asyncio.CancelledError
    turns = True

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._tasks: set[asyncio.Task[Any]] = set()

    def seconds(self) -> float:
        return self.loop.time()

    def call_later(self, seconds: float, call: Callable[..., object], *args: Any) -> Any:
        return self.loop.call_later(seconds, call, *args)

    def waiter(self, cancel: Callable[[Any], object] | None = None) -> AioWaiter:
        waiter = AioWaiter(loop=self.loop)
        waiter.on_cancel = cancel
        return waiter

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)  # the loop itself keeps none
        task.add_done_callback(self._tasks.discard)
        return task

    def log_failure(self, text: str) -> None:
        log.exception("%s", text)

    def log_info(self, text: str) -> None:
        log.info("%s", text)

    def log_warn(self, text: str) -> None:
        log.warning("%s", text)

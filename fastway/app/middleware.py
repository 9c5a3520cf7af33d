"""Middleware that many applications want: a time for handlers, and how often they may be called.

    app.middleware(within(5.0))
    app.middleware(at_most(1000, {"math.add": 100}))

Rule: who is over a limit is told so, and nobody else notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from fastway.app.handlers import Handler, Request
from fastway.dialect import Refused

Middleware: TypeAlias = "Callable[[Request, Handler], Awaitable[Any]]"

TOO_LATE = 408
OVERLOAD = 500


def within(seconds: float) -> Middleware:
    """Handlers have so long; then what they wait for is cancelled, and who asked is told 408.

    One that never waits cannot be ended.

    Raises:
        ValueError: that is no time.
    """
    if not seconds > 0:
        raise ValueError(f"{seconds} s: give a time that is longer than none")

    def late(*_: object) -> Failure:
        return Failure(Refused(TOO_LATE, "Handle Timeout"))

    async def limit(request: Request, call_next: Handler) -> Any:
        app: Any = request.session.app
        if not app.tasks:
            handling: Deferred[Any] = ensureDeferred(call_next(request))  # type: ignore[arg-type]
            return await handling.addTimeout(seconds, app.clock, late)
        task = asyncio.ensure_future(call_next(request))
        try:
            await asyncio.wait({task}, timeout=seconds)
            if task.done():
                return task.result()
            raise Refused(TOO_LATE, "Handle Timeout")
        finally:
            task.cancel()

    return limit


class _Window:
    """So many in each so many seconds."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self._seconds = seconds
        self._began = -seconds
        self._count = 0

    def takes(self, now: float) -> bool:
        if now - self._began >= self._seconds:
            self._began, self._count = now, 0
        self._count += 1
        return self._count <= self.limit


def at_most(
    total: int = 0, routes: Mapping[str, int] | None = None, seconds: float = 1.0
) -> Middleware:
    """So many messages of all sessions together; those beyond are refused, as teleport's
    overloader has it. `Bounds.messages` is of each session, and refuses nothing.

    Args:
        total: In each so many seconds; 0: no limit.
        routes: Likewise, of some routes.

    Raises:
        ValueError: that cannot be.
    """
    limits = dict(routes or {})
    if total < 0 or not seconds > 0 or any(limit < 1 for limit in limits.values()):
        raise ValueError("a limit is 1 message at least, in more than 0 seconds")
    whole = _Window(total, seconds) if total else None
    parts = {route: _Window(limit, seconds) for route, limit in limits.items()}

    async def limit(request: Request, call_next: Handler) -> Any:
        app: Any = request.session.app
        now = app.clock.seconds()
        if whole is not None and not whole.takes(now):
            raise Refused(OVERLOAD, f"qps overload, total_limit={whole.limit}")
        part = parts.get(request.route)
        if part is not None and not part.takes(now):
            raise Refused(OVERLOAD, f"qps overload, handler_limit={part.limit}")
        return await call_next(request)

    return limit

"""Middleware that many applications want: a time for handlers, how often they may be called, and
lines about those that are slow.

    app.middleware(timed(slow=0.5))
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

from fastway.address import host_of
from fastway.app.handlers import Handler, Request
from fastway.dialect import Refused
from fastway.logs import escaped, make_logger

log = make_logger("fastway.app")

Middleware: TypeAlias = "Callable[[Request, Handler], Awaitable[Any]]"

SHOWN = 500
"""Characters of a body that are logged."""

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


def timed(slow: float, *, details: bool = False) -> Middleware:
    """A line of the log for each message: at debug, and at warn where it took so long; of those
    that follow soon only the number.

    Args:
        slow: Seconds, what the handler waits for included.
        details: With what came: meta, and the body, as far as it is short.

    Raises:
        ValueError: that is no time.
    """
    if not slow > 0:
        raise ValueError(f"{slow} s: give a time that is longer than none")

    async def limit(request: Request, call_next: Handler) -> Any:
        app: Any = request.session.app
        began = app.clock.seconds()
        try:
            return await call_next(request)
        finally:
            seconds = app.clock.seconds() - began
            peer = request.session.peer
            form = "{what} {route!r} of {peer} took {seconds:.6f} s{details}"
            fields = {
                "what": "request" if request.asked else "message",
                "route": request.route,
                "peer": peer,
                "seconds": seconds,
                "details": _details(request) if details else "",
            }
            if seconds >= slow:
                app.quiet.warn(log, "slow messages", host_of(peer), form, **fields)
            else:
                log.debug(form, **fields)

    return limit


def _details(request: Request) -> str:
    meta = "".join(f" {name}={value}" for name, value in request.meta)
    body = request.body[:SHOWN].decode("utf-8", "replace")
    more = "..." if len(request.body) > SHOWN else ""
    return f":{escaped(meta[:SHOWN])} {escaped(body)}{more}"


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

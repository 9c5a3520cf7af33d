"""Passing on what an App has no handler for, and the answers back.

    backend = await redial(backends, endpoint, Teleport())
    pass_on(app, lambda request: backend)

Rule: bodies are not understood: they go as they came, in the codec that they came in, and so do
the answers. Who asked hears of a far end that is gone as 502, whatever became of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable

from twisted.internet.error import ConnectError

from fastway.app.app import App
from fastway.app.handlers import Request
from fastway.app.session import Session
from fastway.dialect import Body, Meta, Refused
from fastway.errors import FastwayError
from fastway.logs import escaped, make_logger

log = make_logger("fastway.app")

REAL_IP = "X-Real-IP"
BAD_GATEWAY = 502


def real_ip(request: Request) -> Meta:
    """What came beside a message, and who sent it, unless a proxy before this one said so."""
    if any(name == REAL_IP for name, _ in request.meta):
        return request.meta
    return (*request.meta, (REAL_IP, request.session.peer))


def pass_on(
    app: App,
    to: Callable[[Request], Session | Awaitable[Session]],
    *,
    meta: Callable[[Request], Meta] | None = real_ip,
    timeout: float | None = 30.0,
) -> None:
    """Have all that an App has no handler for go to another peer, and its answers come back.

    Args:
        to: Whose a message is, where it may be looked up or connected to first. A Refused that it
            raises is the answer.
        meta: What goes beside it; None: nothing, for dialects that have no place for it.
        timeout: Seconds that an answer may take.
    """

    async def forward(request: Request, body: Body) -> Body | None:
        """Hand it on to another peer, and the answer back."""
        beside = () if meta is None else meta(request)
        try:
            found = to(request)
            session = await found if isawaitable(found) else found
            if not request.asked:
                await session.send(request.route, body, meta=beside)
                return None
            answer: Body = await session.request(
                request.route,
                body,
                into=Body,
                timeout=timeout,
                meta=beside,
                answer_meta=request.answer_meta,
            )
            return answer
        except Refused as refused:
            if 100 <= refused.code < 200:  # teleport's own, of its far end
                raise _gone(request, str(refused)) from None
            raise
        except (FastwayError, ConnectError) as error:
            raise _gone(request, str(error) or type(error).__name__) from None

    app.unknown(forward)


def _gone(request: Request, problem: str) -> Refused:
    log.info(
        "{route!r} of {peer} cannot be passed on: {problem}",
        route=request.route,
        peer=request.session.peer,
        problem=escaped(problem[:200]),
    )
    return Refused(BAD_GATEWAY, "Bad Gateway")

"""A message's way to its handler, and the answer's back.

Rule: what a handler raises is logged with its route and session, as often as a log can bear, and
answered without its text; whatever it is, the strand goes on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from inspect import isawaitable
from types import CoroutineType
from typing import Any, TypeAlias, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.python.failure import Failure

from fastway.address import host_of
from fastway.app.bounds import Counts
from fastway.app.handlers import (
    Answering,
    Handler,
    Middleware,
    Request,
    Route,
    onion,
    ready,
)
from fastway.app.messages import BadBody, BadHandler, Sent, Wanted, check_call, decode
from fastway.app.session import Session, SessionEnded
from fastway.app.strand import Job
from fastway.dialect import Message, Refused
from fastway.logs import Throttle, escaped, make_logger

log = make_logger("fastway.app")

F = TypeVar("F", bound=Callable[..., Any])

NOT_FOUND = 404
FAILED = 500
KICKED = 403
BUSY = 503

Elsewhere: TypeAlias = "Callable[[Session, Message, Answering], Job | None]"


class Handling:
    """Routes, what stands around them, and what runs of them.

    Args:
        tasks, clock: As `App` has them.

    Attributes:
        counts: What it did.
        elsewhere: Whom messages without a handler are offered: takes the session, the message and
            who answers it, gives a job for the session's strand, or None: it is nobody's. A
            cluster's gate.
        is_included: Another App has taken what this one has.
    """

    def __init__(self, tasks: bool, clock: IReactorTime | None) -> None:
        self.tasks = tasks
        self.counts = Counts()
        self.elsewhere: Elsewhere | None = None
        self.is_included = False
        self._clock = clock
        self._quiet: Throttle | None = None
        self._routes: dict[str, Route] = {}
        self._unknown: Route | None = None
        self._sent: dict[str, Sent] = {}
        self._refusals: dict[str, dict[int, str]] = {}
        self._middleware: list[Middleware] = []
        self._chain: Handler | None = None
        self._running = 0
        self._idle: list[Deferred[None]] = []

    @property
    def clock(self) -> Any:
        """The reactor, or a test's clock."""
        if self._clock is None:
            from twisted.internet import reactor

            self._clock = cast(IReactorTime, reactor)
        return self._clock

    @property
    def quiet(self) -> Throttle:
        """For lines of the log that strangers can cause."""
        if self._quiet is None:
            self._quiet = Throttle(self.clock)
        return self._quiet

    @property
    def is_clockless(self) -> bool:
        """Nobody has said what timers go by."""
        return self._clock is None

    def use_clock(self, clock: Any) -> None:
        """Timers go by this from now on; to be called before the App starts."""
        self._clock = clock

    def handler(self, route: str) -> Callable[[F], F]:
        """Decorates what handles messages of a route; what it returns is the answer.

        Its parameters are filled by their annotations: `Session`, `Request`, and one message.

        Raises:
            BadHandler: it cannot be called, or the route has a handler.
        """

        check_route(route)

        def register(call: F) -> F:
            self.route(route, call)
            return call

        return register

    def route(self, route: str, call: Callable[..., Any]) -> None:
        """Have a callable handle messages of a route; `handler` as a verb.

        Raises:
            BadHandler: as there.
        """
        self._add_route(route, ready(call))

    def _add_route(self, route: str, known: Route) -> None:
        check_route(route)
        self.check_open()
        if route in self._routes:
            raise BadHandler(f"{route} has a handler already")
        self._routes[route] = known

    def check_open(self) -> None:
        """See that what is registered here is seen.

        Raises:
            BadHandler: it would not be.
        """
        if self.is_included:
            raise BadHandler("this App is included in another already: give it all it has before")

    def sends(self, route: str, kind: Any, *, answer: Any = None, text: str = "") -> None:
        """Declare what peers are told by themselves of a route, for `fastway describe`.

        Nothing is checked when it is sent, which then costs what it did; a `Player` checks it, so
        that a test finds what is not as declared.

        Args:
            kind: The type of the message; None: it has none.
            answer: The type of what they answer, where they are asked; None: they are not.
            text: A sentence for whoever writes a client.

        Raises:
            BadHandler: it is declared otherwise already.
        """
        check_route(route)
        self.check_open()
        sent = Sent(kind, answer, text)
        if self._sent.setdefault(route, sent) != sent:
            raise BadHandler(f"{route} is declared already, and otherwise")

    def refusal(self, code: int, text: str, *routes: str) -> None:
        """Declare a Refused that handlers of these routes raise, for `fastway describe`.

        Without a route it is any handler that may, and the handshake. What the framework refuses
        by itself (400, 404, 500) needs no word.
        """
        self.check_open()
        for route in routes or ("",):
            self._refusals.setdefault(route, {})[code] = text

    def unknown(self, call: F) -> F:
        """Decorates what handles messages of all other routes; it is told by a `Request`."""
        self.check_open()
        self._unknown = ready(call)
        return call

    def middleware(self, call: F) -> F:
        """Decorates what stands around all handlers: `async def (request, call_next)`.

        Those that were given first are outermost. What it returns is the answer. That of an App
        which another includes stands around its own handlers, within that of the other.

        Raises:
            BadHandler: it cannot be called so.
        """
        self.check_open()
        check_call(call, "the request", "call_next")
        self._middleware.append(call)
        self._chain = None
        return call

    @property
    def routes(self) -> dict[str, Wanted]:
        """What is handled, and how."""
        return {route: known.wanted for route, known in self._routes.items()}

    @property
    def others(self) -> Wanted | None:
        """How messages of all other routes are handled; None: they are refused."""
        return None if self._unknown is None else self._unknown.wanted

    @property
    def sent(self) -> dict[str, Sent]:
        """What `sends` has declared."""
        return self._sent

    @property
    def refusals(self) -> dict[str, dict[int, str]]:
        """What `refusal` has declared, by routes; under "" what any of them may."""
        return self._refusals

    def handles(self, route: str) -> bool:
        """There is a handler for that route, be it the one of all others."""
        return route in self._routes or self._unknown is not None

    @property
    def running(self) -> int:
        """Handlers that have not ended."""
        return self._running

    # A message's way to its handler, and the answer's back.

    def handle(
        self, session: Session, event: Message, answer: Answering
    ) -> Coroutine[Any, Any, None] | None:
        """Handle a message: a job for its strand.

        Args:
            answer: Who sends the answer.
        """
        known = self._routes.get(event.route)
        if known is None:
            if self.elsewhere is not None:
                job = self.elsewhere(session, event, answer)
                if job is not None:
                    return job()
            known = self._unknown
            if known is None:
                self.counts.unknown += 1
                log.debug(
                    "no handler for {route!r} of {peer}", route=event.route, peer=session.peer
                )
                answer.refuse(event, Refused(NOT_FOUND, "not found"))
                return None
        request: Any = None
        self._running += 1
        try:
            if self._middleware or known.within:
                request = Request(session, event)
                made: Any = self._through(request)
            else:
                form, body = event.format, event.body
                if form is known.form and len(body) <= known.short:  # most are: no call for them
                    try:
                        message = known.quick(body)
                    except Exception:
                        message = decode(body, form, known.wanted.kind)
                else:
                    message = known.decode(body, form)
                if known.lone is not None:
                    made = known.lone(message)
                elif known.plain is not None:
                    made = known.plain(session, message)
                else:
                    if known.needs_request:
                        request = Request(session, event)
                    made = known.invoke(session, request, message)
            if type(made) is CoroutineType and not self.tasks:
                context = copy_context()
                made = context.run(_step, made, context, _Begun)
                waits = type(made) is _Begun  # most have ended
            else:
                waits = isawaitable(made)
                if waits:
                    made = self.in_task(made)
            if waits:
                self._running += 1
                return self._finish(session, event, request, made, answer)
            answer.reply(event, made, () if request is None else request.answer_meta)
        except BaseException as error:  # whatever it is, the strand must go on
            self._failed(session, event, error, answer)
        finally:
            self._running -= 1
            if self._idle and not self._running:
                self._now_idle()
        return None

    async def _finish(
        self, session: Session, event: Message, request: Any, made: Any, answer: Answering
    ) -> None:
        try:
            result = await made
            answer.reply(event, result, request.answer_meta if request else ())
        except GeneratorExit:  # it waited for what nobody can fire any more
            answer.refuse(event, Refused(FAILED, "internal error"))
        except BaseException as error:
            self._failed(session, event, error, answer)
        finally:
            self._ended()

    def _ended(self) -> None:
        """A handler has."""
        self._running -= 1
        if not self._running and self._idle:
            self._now_idle()

    def _now_idle(self) -> None:
        idle, self._idle = self._idle, []
        for done in idle:
            if not done.called:
                done.callback(None)

    def _through(self, request: Request) -> Any:
        if self._chain is None:
            chain: Handler = self._innermost
            for call in reversed(self._middleware):
                chain = partial(onion, call, chain)
            self._chain = chain
        return self._chain(request)

    async def _innermost(self, request: Request) -> Any:
        known = self._routes.get(request.route) or self._unknown
        assert known is not None
        inner: Handler = partial(_invoke, known)
        for call in reversed(known.within):
            inner = partial(onion, call, inner)
        return await inner(request)

    def _failed(
        self, session: Session, event: Message, error: BaseException, answer: Answering
    ) -> None:
        if isinstance(error, Refused):
            if isinstance(error, BadBody):
                self.counts.bad += 1
                known = event.route if event.route in self._routes else "others"
                self.quiet.warn(
                    log,
                    f"bad messages to {known!r}",
                    host_of(session.peer),
                    "{route!r} of {peer} is no such message: {detail}",
                    route=event.route,
                    peer=session.peer,
                    detail=escaped(error.detail[:500]),
                )
            refused = error
        elif isinstance(error, SessionEnded) and session.ended is not None:
            refused = Refused(0, "gone")  # it was telling who is gone
        else:
            self.counts.failed += 1
            known = repr(event.route if event.route in self._routes else "others")
            self.log_failure(known, f"{event.route!r} of {escaped(repr(session))} failed")
            refused = Refused(FAILED, "internal error")
        answer.refuse(event, refused)

    def log_failure(self, what: str, text: str, failure: Failure | None = None) -> None:
        """Log the failure of something, whole; of those that follow soon only the number.

        Args:
            what: Of what, in words of the application's own: who causes it has no part in them.
            failure: None: the exception that is being handled.
        """
        self.quiet.failure(log, what, "{text}", failure, text=text)

    def in_task(self, made: Awaitable[Any]) -> Awaitable[Any]:
        """What is to be awaited instead: an asyncio task, where handlers run as such."""
        if self.tasks and not isinstance(made, Deferred):
            reactor: Any = sys.modules.get("twisted.internet.reactor")
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                if not has_loop(reactor):  # it would wait for ever
                    if isinstance(made, CoroutineType):
                        made.close()
                    raise
                loop = reactor._asyncioEventloop  # it takes tasks before it runs
            return Deferred.fromFuture(asyncio.ensure_future(made, loop=loop))
        return made


async def _invoke(known: Route, request: Request) -> Any:
    made = known.invoke(request.session, request, request.decode(known.wanted.kind))
    return await made if isawaitable(made) else made


class _Begun:
    """The rest of a coroutine whose first step was made, by hand: that is a tenth of the cost."""

    __slots__ = ("_context", "_coroutine", "_waits")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits: Any, context: Context) -> None:
        self._coroutine = coroutine
        self._waits = waits
        self._context = context

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, waits, run = self._coroutine, self._waits, self._context.run
        while True:
            error: BaseException | None = None
            try:
                got = yield waits
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as thrown:
                error = thrown
            try:
                waits = run(coroutine.send, got) if error is None else run(coroutine.throw, error)
            except StopIteration as ended:
                return ended.value


def has_loop(reactor: object) -> bool:
    """It is Twisted's asyncio reactor, which has one of asyncio's, running or about to."""
    if not IReactorCore.providedBy(reactor):
        return False
    from twisted.internet.asyncioreactor import AsyncioSelectorReactor

    return isinstance(reactor, AsyncioSelectorReactor)


def first_step(
    coroutine: Coroutine[Any, Any, Any], context: Context, begun: Callable[..., Any]
) -> Any:
    """What it returned; or `begun`, of it, what it waits for, and `context`."""
    try:
        waits = coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    return begun(coroutine, waits, context)


_step: Callable[..., Any] = first_step
with suppress(ImportError):  # it may not be built
    from fastway.relay import _core

    _step = _core.first_step


def check_route(route: object) -> None:
    """Raises BadHandler: it is no name."""
    if not isinstance(route, str) or not route:
        what = getattr(route, "__qualname__", repr(route))
        raise BadHandler(f"{what} is no route: give a name, such as room.join")


def name_of(call: Callable[..., Any]) -> str:
    """What a function of the application's is called, for its log."""
    return getattr(call, "__qualname__", type(call).__qualname__)

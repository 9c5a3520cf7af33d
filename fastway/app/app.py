"""An application: its handlers, and what happens to a message on its way to one.

    app = App()

    @app.handler("room.join")
    async def join(session: Session, message: Join) -> Joined: ...

    await app.listen("tcp:3250", Pomelo())

Rule: no bytes and no transports here. An App is an object: two in one process share nothing. What
a peer sends never becomes a traceback; what a handler raises is logged with its route and session,
as often as a log can bear, and answered without its text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from itertools import count
from types import CoroutineType
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, ensureDeferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from fastway.address import host_of
from fastway.app.bounds import Bounds, Counts, State, Users
from fastway.app.group import Group
from fastway.app.handlers import Answering, Handler, Outgoing, Request, Route, onion, ready
from fastway.app.messages import BadBody, BadHandler, Wanted
from fastway.app.session import Carrier, Session, SessionEnded
from fastway.app.strand import Strand
from fastway.dialect import Dialect, Hello, Message, Refused
from fastway.errors import FastwayError, LocalError
from fastway.logs import Throttle, escaped, make_logger

log = make_logger("fastway.app")

F = TypeVar("F", bound=Callable[..., Any])

NOT_FOUND = 404
FAILED = 500
KICKED = 403
BUSY = 503

_session_ids = count(1)


@dataclass(slots=True, eq=False)
class _Timer:
    """What is called in time.

    Attributes:
        strand: What it runs in; None: as it comes.
        passing: It is forgotten when it has run: its App runs already.
        busy: It runs, or waits for its strand.
        armed: What the clock has of it.
    """

    call: Callable[[], Any]
    seconds: float
    again: bool
    strand: Strand | None
    passing: bool
    busy: bool = False
    armed: Any = None


class App:
    """A game server.

    Args:
        users: What becomes of a user's earlier session when another is bound to him.
        bounds: What one connection may cost.
        strand: What messages of all sessions run in, one at a time; None: each session has its
            own, so that one that waits keeps nobody else.
        tasks: Handlers run as asyncio tasks, so that they may await what is asyncio's; the
            reactor must be Twisted's asyncio reactor.
        clock: What timers go by; None: the global reactor.

    Attributes:
        counts: What it did.
        sessions: Those that are open, by their ids.
    """

    def __init__(
        self,
        *,
        users: Users | str = Users.KICK,
        bounds: Bounds | None = None,
        strand: Strand | None = None,
        tasks: bool = False,
        clock: IReactorTime | None = None,
    ) -> None:
        self.users = Users(users)
        self.bounds = bounds or Bounds()
        self.strand = strand
        self.tasks = tasks
        self.counts = Counts()
        self.sessions: dict[int, Session] = {}
        self.state = State.NEW
        self._clock = clock
        self._routes: dict[str, Route] = {}
        self._middleware: list[Callable[[Request, Handler], Awaitable[Any]]] = []
        self._chain: Handler | None = None
        self._handshake: Callable[..., Any] | None = None
        self._opened: list[Callable[[Session], Any]] = []
        self._closed: list[Callable[[Session], Any]] = []
        self._outgoing: list[Callable[[Outgoing], object]] = []
        self._unknown: Route | None = None
        self._groups: dict[str, Group] = {}
        self._users: dict[Any, Group] = {}
        self._timers: list[_Timer] = []
        self._outer: App | None = None
        self._prefix = ""
        self._components: list[Component] = []
        self._running = 0
        self._idle: list[Deferred[None]] = []
        self._listening: list[Any] = []
        self.links: Any = None
        self._quiet: Throttle | None = None

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

    # What an application is made of.

    def handler(self, route: str) -> Callable[[F], F]:
        """Decorates what handles messages of a route; what it returns is the answer.

        Its parameters are filled by their annotations: `Session`, `Request`, and one message.

        Raises:
            BadHandler: it cannot be called, or the route has a handler.
        """

        _check_route(route)

        def register(call: F) -> F:
            self.route(route, call)
            return call

        return register

    def route(self, route: str, call: Callable[..., Any]) -> None:
        """Have a callable handle messages of a route; `handler` as a verb.

        Raises:
            BadHandler: as there.
        """
        _check_route(route)
        if route in self._routes:
            raise BadHandler(f"{route} has a handler already")
        self._routes[route] = ready(call)

    def unknown(self, call: F) -> F:
        """Decorates what handles messages of all other routes; it is told by a `Request`."""
        self._unknown = ready(call)
        return call

    def middleware(self, call: F) -> F:
        """Decorates what stands around all handlers: `async def (request, call_next)`.

        Those that were given first are outermost. What it returns is the answer.
        """
        self._middleware.append(call)
        self._chain = None
        return call

    def handshake(self, call: F) -> F:
        """Decorates what lets peers in: `(session, user)`; `user` is what the peer says of itself.

        What it returns is told to the peer, where its dialect has a place. A Refused, or any other
        exception, ends the connection as the dialect has it.
        """
        self._handshake = call
        return call

    def opened(self, call: F) -> F:
        """Decorates what is called with each new session, before its first message."""
        self._opened.append(call)
        return call

    def closed(self, call: F) -> F:
        """Decorates what is called with each session that has ended, behind its last message."""
        self._closed.append(call)
        return call

    def outgoing(self, call: F) -> F:
        """Decorates what sees each message before it is encoded: `(out: Outgoing)`.

        It may change it; a Refused that it raises keeps it from being sent. Groups then encode for
        each member.
        """
        self._outgoing.append(call)
        return call

    def every(self, seconds: float, *, strand: Strand | None = None) -> Callable[[F], F]:
        """Decorates what is called every so often while the App runs, never twice at a time."""
        return self._timer(seconds, True, strand)

    def after(self, seconds: float, *, strand: Strand | None = None) -> Callable[[F], F]:
        """Decorates what is called once, so long after the App has started."""
        return self._timer(seconds, False, strand)

    def _timer(self, seconds: float, again: bool, strand: Strand | None) -> Callable[[F], F]:
        if not seconds > 0:
            raise BadHandler(f"{seconds} s: give a time that is longer than none")

        def register(call: F) -> F:
            passing = not again and self.state is State.RUNNING
            self._add_timer(_Timer(call, seconds, again, strand or self.strand, passing))
            return call

        return register

    def _add_timer(self, timer: _Timer) -> None:
        self._timers.append(timer)
        if self.state is State.RUNNING:
            self._arm(timer)

    def cancel(self, call: Callable[[], Any]) -> None:
        """End the timers of a call: of `every`, or of an `after` that is still to come."""
        for timer in tuple(self._timers):
            if timer.call == call:
                self._timers.remove(timer)
                self._disarm(timer)
        if self._outer is not None:
            self._outer.cancel(call)

    def include(self, part: App | Component, prefix: str = "") -> None:
        """Take in the handlers of a Component, or the routes, hooks and timers of another App.

        Args:
            prefix: What stands before its routes, with a dot between.

        Raises:
            BadHandler: a route has a handler already.
        """
        if isinstance(part, Component):
            name = prefix or part.name
            for route, call in part.handlers():
                self.route(f"{name}.{route}" if name else route, call)
            self._add_component(part)
            part.app = self
            return
        if not isinstance(part, App):
            raise BadHandler(f"{part!r} is neither a Component nor an App; give one, made")
        for route, known in part._routes.items():
            self.route(f"{prefix}.{route}" if prefix else route, known.wanted.call)
        part._outer, part._prefix = self, prefix
        for name, group in part._groups.items():
            group.app = self
            self._groups.setdefault(f"{prefix}.{name}" if prefix else name, group)
        for call in part._middleware:
            self.middleware(call)
        self._opened += part._opened
        self._closed += part._closed
        self._outgoing += part._outgoing
        for timer in part._timers:
            self._add_timer(timer)
        for component in part._components:
            self._add_component(component)

    def _add_component(self, component: Component) -> None:
        self._components.append(component)
        if self.state is State.RUNNING:
            component.start()
            component.ready()

    @property
    def routes(self) -> dict[str, Wanted]:
        """What is handled, and how."""
        return {route: known.wanted for route, known in self._routes.items()}

    def group(self, name: str) -> Group:
        """The group of that name; the same each time. An included App has those of its App."""
        if self._outer is not None:
            return self._outer.group(f"{self._prefix}.{name}" if self._prefix else name)
        found = self._groups.get(name)
        if found is None:
            found = self._groups[name] = Group(self, name)
        return found

    @property
    def groups(self) -> dict[str, Group]:
        """Those that have been asked for by name."""
        return self._groups

    def user(self, user: Any) -> Group:
        """The sessions of a user: empty when he is not here. To be asked for anew each time."""
        if self._outer is not None:
            return self._outer.user(user)
        return self._users.get(user) or Group(self)

    # Its life.

    def start(self) -> None:
        """Begin: timers run, components are started. Listening and connecting do so by themselves.

        Raises:
            what a component raises.
        """
        if self.state is State.RUNNING:
            return
        if self.state is State.DRAINING:
            raise LocalError("the App is draining; stop it first")
        was, self.state = self.state, State.RUNNING
        begun: list[Component] = []
        try:
            for component in self._components:
                component.start()
                begun.append(component)
            for component in self._components:
                component.ready()
        except BaseException:
            self.state = was
            for component in reversed(begun):
                component.stop()
            raise
        for timer in self._timers:
            self._arm(timer)

    def listen(
        self,
        endpoint: IStreamServerEndpoint | str,
        dialect: Dialect,
        *,
        native: bool | None = None,
    ) -> Deferred[Any]:
        """Take connections at an endpoint, in a dialect.

        Args:
            endpoint: Any of Twisted's; or text: host:port, :port, or an endpoint string such as
                `tcp:3250`, `ws:3251:path=/game` or `ssl:...`.
            native: Whether the C relay carries its connections, which costs half as much: it can
                where text says TCP or `ws:`. None: where it can; True: else fail.

        Returns:
            The port; `stop` closes it too. Fails as the endpoint does, with a ConfigError or
            StartError for text, a NoNative, and a BadHandler when two routes have one name in that
            dialect.
        """
        from fastway.app.listen import opening

        try:
            open_port = opening(self, endpoint, dialect, native)
        except FastwayError:
            return fail()
        try:
            self.start()
        except Exception:
            return fail()
        return open_port().addCallback(self._listens)

    def _listens(self, port: Any) -> Any:
        self._listening.append(port)
        return port

    def connect(
        self, endpoint: IStreamClientEndpoint, dialect: Dialect, timeout: float | None = 30.0
    ) -> Deferred[Session]:
        """Connect to a server: both ends have handlers.

        Returns:
            The session, once the server let it in. Fails as the endpoint does; with a Refused when
            the server says why not, with a SessionEnded when it says nothing; and as `listen`
            where routes have no names in that dialect.
        """
        from fastway.app.ports import ConnectFactory

        try:
            factory = ConnectFactory(self, dialect, timeout)
        except LocalError:
            return fail()
        try:
            self.start()
        except Exception:
            return fail()
        return factory.connect(endpoint)

    @property
    def running(self) -> int:
        """Handlers that have not ended."""
        return self._running

    def drain(self, seconds: float = 30.0) -> Deferred[None]:
        """Stop well: no new connections, what runs may end, then all sessions are closed.

        Args:
            seconds: After which those that still run are not waited for.

        Returns:
            Fires when it is done; `stop` is called then.
        """
        return ensureDeferred(self._drain(seconds))

    async def _drain(self, seconds: float) -> None:
        if self.state is not State.RUNNING:
            return
        self.state = State.DRAINING
        for component in reversed(self._components):
            component.drain()
        for link in () if self.links is None else tuple(self.links.links):
            link.drain()
        try:
            await self._close_ports()
        except Exception:
            log.failure("a port cannot be closed")
        await self._until_idle(seconds)
        self.stop()

    async def _until_idle(self, seconds: float) -> None:
        end = self.clock.seconds() + seconds
        while self._running and self.state is State.DRAINING and self.clock.seconds() < end:
            idle: Deferred[None] = Deferred()
            idle.addTimeout(end - self.clock.seconds(), self.clock)
            idle.addErrback(lambda _: None)
            self._idle.append(idle)
            await idle
            await deferLater(self.clock, 0)  # what waited for it begins now

    def stop(self) -> Deferred[None]:
        """End: ports and sessions are closed, timers too. Fires when the ports are."""
        if self.state in (State.NEW, State.STOPPED):
            return _done()
        self.state = State.STOPPED
        for timer in self._timers:
            self._disarm(timer)
        self._timers = [timer for timer in self._timers if not timer.passing]
        if self._quiet is not None:
            self._quiet.flush()
        for session in tuple(self.sessions.values()):
            session.close()
        for link in () if self.links is None else tuple(self.links.links):
            link.close()  # those at their handshakes
        closing = self._close_ports()
        for component in reversed(self._components):
            component.stop()
        self._now_idle()
        if self.links is not None and self.links.relay is not None:
            self.links.relay.stop()
        return closing

    def _close_ports(self) -> Deferred[None]:
        listening, self._listening = self._listening, []
        return ensureDeferred(_all(maybeDeferred(port.stopListening) for port in listening))

    # Of carriers: what happens to their sessions.

    def new_session(self, carrier: Carrier, concurrent: int = 1) -> Session:
        """A session that nobody knows yet."""
        strand = self.strand or Strand(self.bounds.strand, concurrent)
        return Session(self, carrier, next(_session_ids), strand)

    @property
    def is_full(self) -> bool:
        """There are as many sessions as may be."""
        return 0 < self.bounds.sessions <= len(self.sessions)

    def refuses(self, session: Session) -> str:
        """Why a session is not let in now: a word; empty: it is."""
        if session.session_id in self.sessions:
            return ""
        if self.state in (State.DRAINING, State.STOPPED):
            return str(self.state.value)
        return "full" if self.is_full else ""

    def hello(self, session: Session, hello: Hello) -> Deferred[Any] | None:
        """Whether a peer is let in: fires with what it is told; fails: it is not.

        Returns:
            None: there is no handshake hook, it is.
        """
        if self._handshake is None:
            return None
        return self._as_deferred(self._handshake, session, hello.user)

    def open(self, session: Session) -> None:
        """A session is ready: `opened` hooks run before its first message."""
        self.sessions[session.session_id] = session
        counts = self.counts
        counts.opened += 1
        counts.came[session.dialect] += 1
        counts.here[session.dialect] += 1
        if self._opened:
            self._run_hooks(session, self._opened)

    def close(self, session: Session, ended: SessionEnded) -> None:
        """A session is over: it leaves everything; then hooks run, if it was opened."""
        was_open = self.sessions.pop(session.session_id, None) is not None
        if was_open:
            self.counts.closed += 1
            self.counts.here[session.dialect] -= 1
        self._leave_user(session)
        session.end(ended)
        if was_open and self._closed:
            self._run_hooks(session, self._closed)

    def _run_hooks(self, session: Session, hooks: Iterable[Callable[[Session], Any]]) -> None:
        """In a wide strand nothing of the session runs beside them; one that all share goes on."""
        strand, job = session.strand, partial(self._hooks, session, hooks)
        if strand is self.strand:
            strand.run(job)
        else:
            strand.run_alone(job)

    def _hooks(
        self, session: Session, hooks: Iterable[Callable[[Session], Any]]
    ) -> Coroutine[Any, Any, None] | None:
        """Call them one after the other: a job for a strand."""
        left = iter(tuple(hooks))
        for hook in left:
            made = self._hook(session, hook)
            if made is not None:
                return self._await_hooks(session, hook, made, left)
        return None

    def _hook(self, session: Session, hook: Callable[[Session], Any]) -> Awaitable[Any] | None:
        """What of it is to be awaited."""
        try:
            made = hook(session)
            return self.in_task(made) if isawaitable(made) else None
        except BaseException:
            self._hook_failed(session, hook)
            return None

    def _hook_failed(self, session: Session, hook: Callable[[Session], Any]) -> None:
        who = escaped(repr(session))
        self.log_failure(f"the hook {name_of(hook)}", f"the hook {name_of(hook)} failed for {who}")

    async def _await_hooks(
        self,
        session: Session,
        hook: Callable[[Session], Any],
        made: Awaitable[Any] | None,
        left: Iterator[Callable[[Session], Any]],
    ) -> None:
        while True:
            try:
                if made is not None:
                    await made
            except GeneratorExit:  # it waited for what nobody can fire any more
                return
            except BaseException:
                self._hook_failed(session, hook)
            found = next(left, None)
            if found is None:
                return
            hook = found
            made = self._hook(session, hook)

    def bind(self, session: Session, user: Any) -> None:
        """`Session.bind`."""
        if user == session.user:
            return
        mine = self._users.get(user) if user is not None else None
        if mine and self.users is Users.REFUSE:
            raise Refused(409, "this user is here already")
        others = tuple(mine or ()) if self.users is Users.KICK else ()
        self._leave_user(session)
        session.user = user
        if user is None:
            return
        if mine is None:
            mine = self._users[user] = Group(self)
        mine.add(session)
        for other in others:
            mine.discard(other)
            other.kick({"reason": "replaced by a newer session"})

    def _leave_user(self, session: Session) -> None:
        """Its user has one session less."""
        mine = self._users.get(session.user) if session.user is not None else None
        if mine is not None:
            mine.discard(session)
            if not mine:
                del self._users[session.user]

    @property
    def has_outgoing(self) -> bool:
        """Each message that is sent is looked at."""
        return bool(self._outgoing)

    def outgoing_message(self, session: Session, route: str, message: Any) -> Outgoing | None:
        """A message as hooks leave it; None: it is not sent."""
        out = Outgoing(session, route, message)
        try:
            for hook in self._outgoing:
                hook(out)
        except Refused:
            return None
        return out

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
            known = self._unknown
            if known is None:
                self.counts.unknown += 1
                log.debug(
                    "no handler for {route!r} of {peer}", route=event.route, peer=session.peer
                )
                answer.refuse(event, Refused(NOT_FOUND, "not found"))
                return None
        runs = False
        try:
            if self._middleware:
                request = Request(session, event)
                made: Any = self._through(request)
            else:
                request = Request(session, event) if known.needs_request else None  # type: ignore
                message = known.decode(event.body, event.format)
                made = known.invoke(session, request, message)
            if type(made) is CoroutineType and not self.tasks:
                self._running += 1
                runs = True
                context = copy_context()
                try:
                    waits = context.run(made.send, None)
                except StopIteration as ended:  # as most do
                    made = ended.value
                else:
                    runs = False
                    made = _Begun(made, waits, context)
                    return self._finish(session, event, request, made, answer)
            elif isawaitable(made):
                made = self.in_task(made)
                self._running += 1
                return self._finish(session, event, request, made, answer)
            answer.reply(event, made, request.answer_meta if request else ())
        except BaseException as error:  # whatever it is, the strand must go on
            self._failed(session, event, error, answer)
        finally:
            if runs:
                self._ended()
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
        made = known.invoke(request.session, request, request.decode(known.wanted.kind))
        return await made if isawaitable(made) else made

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

    def _as_deferred(self, call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        try:
            made = call(*args)
        except BaseException:
            return fail()
        if isawaitable(made):
            return ensureDeferred(self._awaited(made))
        return _done(made)

    async def _awaited(self, made: Awaitable[Any]) -> Any:
        return await self.in_task(made)

    def in_task(self, made: Awaitable[Any]) -> Awaitable[Any]:
        """What is to be awaited instead: an asyncio task, where handlers run as such."""
        if self.tasks and not isinstance(made, Deferred):
            return Deferred.fromFuture(asyncio.ensure_future(made))
        return made

    # Timers.

    def _arm(self, timer: _Timer) -> None:
        timer.armed = self.clock.callLater(timer.seconds, self._due, timer)

    def _disarm(self, timer: _Timer) -> None:
        armed, timer.armed = timer.armed, None
        if armed is not None and armed.active():
            armed.cancel()

    def _due(self, timer: _Timer) -> None:
        timer.armed = None
        if timer.again:
            self._arm(timer)
        elif timer.passing:
            self._timers.remove(timer)
        if timer.busy:
            return
        timer.busy = True
        (timer.strand or Strand()).run(partial(self._run_timer, timer))

    def _run_timer(self, timer: _Timer) -> Coroutine[Any, Any, None] | None:
        try:
            made = timer.call()
            if isawaitable(made):
                return self._await_timer(timer, self.in_task(made))
        except BaseException:
            self._timer_failed(timer)
        timer.busy = False
        return None

    async def _await_timer(self, timer: _Timer, made: Awaitable[Any]) -> None:
        try:
            await made
        except GeneratorExit:
            pass
        except BaseException:
            self._timer_failed(timer)
        finally:
            timer.busy = False

    def _timer_failed(self, timer: _Timer) -> None:
        what = f"the timer {name_of(timer.call)}"
        self.log_failure(what, f"{what} failed")


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


class Component:
    """A part of an application: handlers that share something, and its life.

        class Room(Component):
            name = "room"

            @handles("join")
            async def join(self, session: Session, message: Join) -> Joined: ...

        app.include(Room())

    Attributes:
        name: What stands before its routes, with a dot between; empty: nothing.
        app: Who included it.
    """

    name = ""
    app: App

    def handlers(self) -> Iterable[tuple[str, Callable[..., Any]]]:
        """Its routes and handlers."""
        for name in dir(type(self)):
            for kind in type(self).__mro__:  # who overrides a handler need not say so again
                routes = getattr(vars(kind).get(name), "_fastway_routes", None)
                if routes:
                    for route in routes:
                        yield route, getattr(self, name)
                    break

    def start(self) -> None:
        """The App starts: all handlers are known, nobody is connected."""

    def ready(self) -> None:
        """All components have started; ports are opened next."""

    def drain(self) -> None:
        """The App takes nobody new."""

    def stop(self) -> None:
        """The App has stopped."""


def _check_route(route: object) -> None:
    if not isinstance(route, str) or not route:
        what = getattr(route, "__qualname__", repr(route))
        raise BadHandler(f"{what} is no route: give a name, such as room.join")


def handles(route: str) -> Callable[[F], F]:
    """Decorates a method of a Component: it handles `NAME.route`.

    Raises:
        BadHandler: that is no route.
    """
    _check_route(route)

    def mark(call: F) -> F:
        call._fastway_routes = (*getattr(call, "_fastway_routes", ()), route)  # type: ignore
        return call

    return mark


def name_of(call: Callable[..., Any]) -> str:
    """What a function of the application's is called, for its log."""
    return getattr(call, "__qualname__", type(call).__qualname__)


def _done(result: Any = None) -> Deferred[Any]:
    done: Deferred[Any] = Deferred()
    done.callback(result)
    return done


async def _all(waits: Iterable[Deferred[Any]]) -> None:
    for one in list(waits):
        await one

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

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from inspect import isawaitable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IProtocolFactory,
    IReactorCore,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.task import deferLater

from fastway.app.bounds import Bounds, State, Users
from fastway.app.group import Group
from fastway.app.handling import F, check_route, has_loop, name_of
from fastway.app.hosting import Hosting
from fastway.app.messages import BadHandler, check_call
from fastway.app.session import Session
from fastway.app.strand import Strand
from fastway.dialect import Dialect
from fastway.errors import FastwayError, LocalError
from fastway.logs import make_logger

log = make_logger("fastway.app")


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


class App(Hosting):
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
        super().__init__(Users(users), bounds or Bounds(), strand, tasks, clock)
        self._groups: dict[str, Group] = {}
        self._timers: list[_Timer] = []
        self._outer: App | None = None
        self._parts: list[App] = []
        self._prefix = ""
        self._components: list[Component] = []
        self._listening: list[Any] = []
        self.links: Any = None

    # What an application is made of, beside handlers and hooks.

    def every(self, seconds: float, *, strand: Strand | None = None) -> Callable[[F], F]:
        """Decorates what is called every so often while the App runs, never twice at a time."""
        return self._timer(seconds, True, strand)

    def after(self, seconds: float, *, strand: Strand | None = None) -> Callable[[F], F]:
        """Decorates what is called once, so long after the App has started."""
        return self._timer(seconds, False, strand)

    def _timer(self, seconds: float, again: bool, strand: Strand | None) -> Callable[[F], F]:
        if not seconds > 0:
            raise BadHandler(f"{seconds} s: give a time that is longer than none")
        self.check_open()

        def register(call: F) -> F:
            check_call(call)
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
        """Take in the handlers of a Component, or all that another App has.

        Of an App that is its routes with the middleware around them, its hooks, timers, groups
        and components. What is registered with it later would be seen by nobody, and is refused.

        Args:
            prefix: What stands before its routes, with a dot between.

        Raises:
            BadHandler: a route has a handler already; both have a handshake, or a handler of all
                other routes, which with a prefix there cannot be.
        """
        self.check_open()
        if isinstance(part, Component):
            name = prefix or part.name
            for route, call in part.handlers():
                self.route(f"{name}.{route}" if name else route, call)
            self._add_component(part)
            part.app = self
            for route, kind in part.sends.items():
                self.sends(route, kind)
            return
        if not isinstance(part, App):
            raise BadHandler(f"{part!r} is neither a Component nor an App; give one, made")
        part.check_open()
        self._check_part(part, prefix)
        around = tuple(part._middleware)
        for route, known in part._routes.items():
            guarded = replace(known, within=(*around, *known.within))
            self._add_route(f"{prefix}.{route}" if prefix else route, guarded)
        if part._unknown is not None:
            self._unknown = replace(part._unknown, within=(*around, *part._unknown.within))
        self._handshake = self._handshake or part._handshake
        for route, sent in part._sent.items():
            self.sends(route, sent.kind, answer=sent.answer, text=sent.text)
        for route, refusals in part._refusals.items():
            for inner in (route,) if route else part._routes:
                name = f"{prefix}.{inner}" if prefix else inner
                for code, text in refusals.items():
                    self.refusal(code, text, name)
        part._outer, part._prefix, part.is_included = self, prefix, True
        self._parts.append(part)
        self._share()
        for name, group in part._groups.items():
            group.app = self
            self._groups.setdefault(f"{prefix}.{name}" if prefix else name, group)
        self._opened += part._opened
        self._closed += part._closed
        self._outgoing += part._outgoing
        for timer in part._timers:
            self._add_timer(timer)
        for component in part._components:
            self._add_component(component)

    def _share(self) -> None:
        """Parts see the sessions and the counts of the whole."""
        for part in self._parts:
            part.sessions, part.counts = self.sessions, self.counts
            part._share()

    def _check_part(self, part: App, prefix: str) -> None:
        """See that nothing of another App would be lost. Raises BadHandler, as `include`."""
        if part is self:
            raise BadHandler("an App cannot include itself")
        if part._handshake is not None and self._handshake is not None:
            raise BadHandler("both Apps have a handshake: one of them lets in for both")
        if part._unknown is not None and (prefix or self._unknown is not None):
            raise BadHandler(
                "the App that is included handles all other routes, which is for the one that "
                "includes it: register that there"
            )

    def _add_component(self, component: Component) -> None:
        self._components.append(component)
        if self.state is State.RUNNING:
            component.start()
            component.ready()

    def group(self, name: str) -> Group:
        """The group of that name; the same each time. An included App has those of its App."""
        if self._outer is not None:
            return self._outer.group(f"{self._prefix}.{name}" if self._prefix else name)
        found = self._groups.get(name)
        if found is None:
            found = self._groups[name] = Group(self, name)
        return found

    @property
    def clock(self) -> Any:
        """The reactor, or a test's clock. An included App has that of its App."""
        return super().clock if self._outer is None else self._outer.clock

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
            LocalError: handlers are to be tasks, and the reactor has no loop for them.
            what a component raises.
        """
        if self._outer is not None:
            self._outer.start()  # which has its timers and its components
            return
        if self.state is State.RUNNING:
            return
        if self.state is State.DRAINING:
            raise LocalError("the App is draining; stop it first")
        if self.tasks and IReactorCore.providedBy(self.clock) and not has_loop(self.clock):
            raise LocalError(
                "App(tasks=True) needs Twisted's asyncio reactor: fastway serve --asyncio, or "
                "asyncioreactor.install() before all else that is Twisted's"
            )
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
        site: IProtocolFactory | None = None,
    ) -> Deferred[Any]:
        """Take connections at an endpoint, in a dialect.

        Args:
            endpoint: Any of Twisted's; or text: host:port, :port, or an endpoint string such as
                `tcp:3250`, `ws:3251:path=/game` or `ssl:...`.
            native: Whether the C relay carries its connections, which costs half as much: it can
                where text says TCP or `ws:`. None: where it can; True: else fail.
            site: Of a port of WebSockets: a web server (`twisted.web.server.Site`) that has all
                requests for something else. Such a port is not native.

        Returns:
            The port; `stop` closes it too. Fails as the endpoint does, with a ConfigError or
            StartError for text, a NoNative, and a BadHandler when two routes have one name in that
            dialect.
        """
        from fastway.app.listen import opening

        try:
            open_port = opening(self, endpoint, dialect, native, site)
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
            return succeed(None)
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


class Component:
    """A part of an application: handlers that share something, and its life.

        class Room(Component):
            name = "room"

            @handles("join")
            async def join(self, session: Session, message: Join) -> Joined: ...

        app.include(Room())

    Attributes:
        name: What stands before its routes, with a dot between; empty: nothing.
        sends: Routes of what it tells peers by itself, and the types (`App.sends`).
        app: Who included it.
    """

    name = ""
    sends: Mapping[str, Any] = {}
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


def handles(route: str) -> Callable[[F], F]:
    """Decorates a method of a Component: it handles `NAME.route`.

    Raises:
        BadHandler: that is no route.
    """
    check_route(route)

    def mark(call: F) -> F:
        call._fastway_routes = (*getattr(call, "_fastway_routes", ()), route)  # type: ignore
        return call

    return mark


async def _all(waits: Iterable[Deferred[Any]]) -> None:
    for one in list(waits):
        await one

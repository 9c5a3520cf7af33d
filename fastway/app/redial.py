"""A session with a server that outlives its connections, as teleport's redial.

    session = await redial(app, endpoint, Teleport(user="token"))
    await session.request("math.add", [1, 2], into=int)  # also while there is no connection

It is one Session all the time: its id, its user, its state, its groups stay. `Client` is for who
wants a new one each time.

Rule: nothing is ever sent twice. What was asked when a connection is lost fails at once, for
nobody knows whether it was done. What is said and asked while there is none waits, and goes out
once there is one, in order; how much of it, the bounds of the App say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from inspect import isawaitable
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from fastway.app.app import App
from fastway.app.bounds import State
from fastway.app.link import Link
from fastway.app.messages import encode
from fastway.app.ports import ConnectFactory
from fastway.app.session import Lane, Rooms, Session, SessionEnded
from fastway.dialect import BodyFormat, Dialect, Meta
from fastway.errors import LocalError, RequestsFull, RequestTimeout
from fastway.logs import escaped, make_logger
from fastway.reconnect import Backoff, Reconnect, growing

log = make_logger("fastway.app")

EACH = 64
"""Bytes that each message which waits counts beside its body."""

Up = Callable[[Session], object]


def redial(
    app: App,
    endpoint: IStreamClientEndpoint,
    dialect: Dialect,
    *,
    times: int | None = None,
    backoff: Backoff | None = None,
    up: Up | None = None,
    timeout: float = 30.0,
) -> Deferred[Session]:
    """Connect to a server, and again whenever the connection is lost.

    Args:
        times: Attempts, beside the first, until it is given up: then the session ends. None: as
            long as it takes.
        backoff: Failures since the last steady connection -> seconds until the next attempt; the
            first follows at once. None: 0.1 s, growing to 30.
        up: Called at each connection, the first too, before what waits goes out; it may be
            `async`, and then only its first step is before that.
        timeout: Seconds that an attempt may take, the handshake included.

    Returns:
        The session, at the first connection; it lives until it is closed here, its App stops, or
        it is given up. Fails as `App.connect` does, with the last of the attempts.
    """
    try:
        app.start()
    except Exception:
        return fail()
    return _Lasting(app, endpoint, dialect, times, backoff, up, timeout).first


class _Said(NamedTuple):
    """What is said while there is no connection."""

    route: str
    body: bytes
    meta: Meta


class _Asked:
    """What is asked meanwhile: `ask` asks a link with the seconds that are left."""

    def __init__(self, ask: Callable[[Link, float | None], Deferred[Any]]) -> None:
        self.ask = ask
        self.timer: Any = None
        self.asking: Deferred[Any] | None = None
        self.done: Deferred[Any] = Deferred(self._cancelled)

    def _cancelled(self, _: object) -> None:
        self.stop()
        if self.asking is not None:
            self.asking.cancel()

    def stop(self) -> None:
        """The time it has is another's."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()

    def settle(self, result: Any) -> None:
        self.stop()
        if not self.done.called:
            self.done.callback(result)


class _Lasting:
    """What carries the session: the link of now, or what waits for the next.

    Attributes:
        first: Fires with the session at the first connection.
    """

    lane: Lane | None = None

    def __init__(
        self,
        app: App,
        endpoint: IStreamClientEndpoint,
        dialect: Dialect,
        times: int | None,
        backoff: Backoff | None,
        up: Up | None,
        timeout: float,
    ) -> None:
        self.address = "?"
        self.dialect = dialect.name
        self._app = app
        self._endpoint = endpoint
        self._speaks = dialect
        self._format: BodyFormat = dialect.client().format
        self._times = times
        self._up = up
        self._timeout = timeout
        self._reconnect = Reconnect(backoff or growing(0.1, 30.0), at_once=True)
        self._attempts = 0
        self._session: Session | None = None
        self._link: Link | None = None
        self._kept: deque[_Said | _Asked] = deque()
        self._size = 0
        self._asking = 0
        """Of what is kept, requests."""
        self._rooms = Rooms()
        self._connecting: Deferred[Any] | None = None
        self._later: Any = None
        self._over = False
        self.first: Deferred[Session] = Deferred(self._cancelled)
        self._dial()

    def _cancelled(self, first: Deferred[Session]) -> None:
        first.errback(CancelledError())
        self.close()

    # Connections.

    def _dial(self) -> None:
        self._later = None
        if self._app.state is not State.RUNNING:
            self._end(SessionEnded("closed here"))
            return
        try:
            factory = ConnectFactory(self._app, self._speaks, self._timeout, self)
        except LocalError:
            self._failed(Failure())
            return
        self._connecting = connecting = factory.connect(self._endpoint)
        connecting.addCallbacks(self._connected, self._failed)

    def session_of(self, link: Link) -> Session:
        """A link is ready: its session, which stays that of the next."""
        if self._session is None:
            self._session = self._app.new_session(self, self._speaks.concurrent)
        self.address = link.address
        return self._session

    def _connected(self, session: Session) -> None:
        self._connecting = None
        self._attempts = 0
        self._reconnect.began(self._app.clock.seconds())
        if self._up is not None:
            ensureDeferred(self._greet(self._up, session))
        self._send_kept()
        if not self.first.called:
            self.first.callback(session)

    def is_up(self, link: Link) -> None:
        """That link carries it from now on."""
        self._link = link

    async def _greet(self, up: Up, session: Session) -> None:
        try:
            made = up(session)
            if isawaitable(made):
                await self._app.in_task(made)
        except SessionEnded:
            pass  # it was telling who is gone, and comes again
        except Exception:
            log.failure("what greets a server failed")

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        if self._over or failure.check(CancelledError):
            return
        self._attempts += 1
        problem = escaped((failure.getErrorMessage() or type(failure.value).__name__)[:200])
        if self._times is not None and self._attempts > self._times:
            if not self.first.called:
                self.first.errback(failure)
            self._end(SessionEnded(f"it does not come back: {problem}"))
            return
        self._again(problem, self._reconnect.failed())

    def _again(self, problem: str, pause: float) -> None:
        log.info("no connection: {problem}; again in {pause:.1f} s", problem=problem, pause=pause)
        self._later = self._app.clock.callLater(pause, self._dial)

    def keeps(self, link: Link, why: SessionEnded) -> bool:
        """A link is lost: whether the session goes on."""
        if self._link is not link:
            return not self._over
        self._link = None
        if self._over or self._app.state is not State.RUNNING:
            self._gone(why)
            return False
        self._again(escaped(str(why)), self._reconnect.ended(self._app.clock.seconds()))
        return True

    def _send_kept(self) -> None:
        while self._kept and self._link is not None:
            one = self._kept.popleft()
            if isinstance(one, _Asked):
                self._asking -= 1
                self._ask_now(one, self._link)
                continue
            self._size -= len(one.body) + EACH
            try:
                self._link.tell(self._link.pack(*one))
            except Exception:
                log.failure("{route!r} cannot be said", route=one.route)
        if not self._kept:
            self._size = 0
            self._rooms.fire()

    def _ask_now(self, asked: _Asked, link: Link) -> None:
        if asked.done.called:
            return
        left = None if asked.timer is None else asked.timer.getTime() - self._app.clock.seconds()
        asked.stop()
        asked.asking = asked.ask(link, left)
        asked.asking.addBoth(asked.settle)

    # What sessions want of what carries them.

    @property
    def shape(self) -> _Lasting:
        return self

    def pack(self, route: str, message: Any, meta: Meta = ()) -> Any:
        if self._link is not None:
            return self._link.pack(route, message, meta)
        return _Said(route, encode(message, self._format), meta)

    def tell(self, packet: Any) -> None:
        if not isinstance(packet, _Said):
            if self._link is not None:
                self._link.tell(packet)
            return
        if self._over:
            return
        self._kept.append(packet)
        self._size += len(packet.body) + EACH
        if 0 < self._app.bounds.waiting < self._size:
            self._app.counts.lost["slow_reader"] += 1
            self._end(SessionEnded("too much waits for it while there is no connection"))

    def room(self) -> Deferred[None] | None:
        if self._link is not None:
            return self._link.room()
        if self._size <= self._app.bounds.enough or self._over:
            return None
        return self._rooms.wait()

    def request(
        self,
        route: str,
        message: Any,
        into: Any,
        timeout: float | None,
        meta: Meta,
        heard: list[tuple[str, str]] | None = None,
    ) -> Deferred[Any]:
        def ask(link: Link, left: float | None) -> Deferred[Any]:
            return link.request(route, message, into, left, meta, heard)

        return self._ask(ask, route, timeout)

    def next(self, route: str, into: Any, timeout: float | None) -> Deferred[Any]:
        return self._ask(lambda link, left: link.next(route, into, left), route, timeout)

    def _ask(
        self,
        ask: Callable[[Link, float | None], Deferred[Any]],
        route: str,
        timeout: float | None,
    ) -> Deferred[Any]:
        if self._link is not None:
            return ask(self._link, timeout)
        limit = self._app.bounds.asked
        if 0 < limit <= self._asking:
            return fail(RequestsFull(self._asking, limit))
        asked = _Asked(ask)
        if timeout is not None:
            late = Failure(RequestTimeout(route, timeout))
            asked.timer = self._app.clock.callLater(timeout, self._too_late, asked, late)
        self._kept.append(asked)
        self._asking += 1
        asked.done.addBoth(partial(self._forget, asked))
        return asked.done

    def _too_late(self, asked: _Asked, late: Failure) -> None:
        asked.settle(late)

    def _forget(self, asked: _Asked, result: Any) -> Any:
        if asked in self._kept:
            self._kept.remove(asked)
            self._asking -= 1
        return result

    def close(self) -> None:
        self._close(Link.close)

    def abort(self) -> None:
        self._close(Link.abort)

    def kick(self, reason: Any = None) -> None:
        self._close(partial(Link.kick, reason=reason))

    def _close(self, how: Callable[[Link], None]) -> None:
        """End it for good."""
        link, self._over = self._link, True
        if link is None:
            self._end(SessionEnded("closed here"))
        else:
            how(link)

    def _end(self, why: SessionEnded) -> None:
        """There is no connection, and will be none."""
        self._over = True
        if self._later is not None:
            self._later.cancel()
            self._later = None
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        if self._session is not None and self._session.ended is None:
            self._app.close(self._session, why)
        self._gone(why)

    def _gone(self, why: SessionEnded) -> None:
        """Whoever waits is told."""
        if not self.first.called:
            self.first.errback(why)
        kept, self._kept = self._kept, deque()
        for one in kept:
            if isinstance(one, _Asked):
                one.settle(Failure(SessionEnded(str(why), why.cause)))
        self._rooms.fire()

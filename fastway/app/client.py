"""A client of an application server that comes back: one session after the other.

    client = Client(app, endpoint, Pomelo(user={"token": "t"}))
    client.startService()
    session = await client.when_up()

Rule: a client stops with its App. A session is never brought back to life: what it was asked has
failed, and nothing is sent twice. Whoever greets a server anew does so in `up`, which is called
with each new session.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from fastway.app.app import App
from fastway.app.bounds import State
from fastway.app.session import Session
from fastway.dialect import Dialect, Refused
from fastway.errors import GatewayDown, LocalError
from fastway.logs import escaped, make_logger
from fastway.reconnect import Backoff, Reconnect, growing

log = make_logger("fastway.app")


class Client(Service):
    """Keeps one session with a server.

    Args:
        app: Whose handlers the server's messages go to.
        endpoint: Where the server is.
        dialect: What it speaks.
        up: Called with each new session, before anybody who waits for one; it may be `async`, and
            then nobody waits for its end.
        backoff: Failures since the last steady session -> seconds until the next attempt.
        timeout: Seconds that an attempt may take, the handshake included.

    Attributes:
        session: The one that is up now.
        attempts: Those that came to nothing, since the last that did not.
    """

    def __init__(
        self,
        app: App,
        endpoint: IStreamClientEndpoint,
        dialect: Dialect,
        *,
        up: Callable[[Session], object] | None = None,
        backoff: Backoff | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.session: Session | None = None
        self.attempts = 0
        self._app = app
        self._endpoint = endpoint
        self._dialect = dialect
        self._up = up
        self._timeout = timeout
        self._reconnect = Reconnect(backoff or growing(0.5, 30.0))
        self._connecting: Deferred[Any] | None = None
        self._later: Any = None
        self._waiting: list[tuple[Deferred[Session], int | None]] = []

    def startService(self) -> None:
        super().startService()
        if self._connecting is None and self.session is None and self._later is None:
            self._connect()

    def stopService(self) -> Deferred[None]:
        """Close the session, or give up the attempt to have one; fires when it is gone."""
        super().stopService()
        if self._later is not None:
            self._later.cancel()
            self._later = None
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        waiting, self._waiting = self._waiting, []
        for done, _ in waiting:
            done.errback(LocalError("the client is stopped"))
        session = self.session
        if session is None:
            gone: Deferred[None] = Deferred()
            gone.callback(None)
            return gone
        session.close()
        return session.when_ended().addCallback(lambda _: None)

    def when_up(self, attempts: int | None = None) -> Deferred[Session]:
        """Fires with the session as soon as there is one.

        Args:
            attempts: Fail with GatewayDown after so many that came to nothing; None: never.

        Fails with LocalError when it is not started, or is stopped.
        """
        if self.session is not None:
            done: Deferred[Session] = Deferred()
            done.callback(self.session)
            return done
        if not self.running:
            return fail(LocalError("the client is not started"))
        done = Deferred(self._forget)
        self._waiting.append((done, None if attempts is None else self.attempts + attempts))
        return done

    def _forget(self, done: Deferred[Session]) -> None:
        self._waiting = [one for one in self._waiting if one[0] is not done]

    def _again(self) -> None:
        self._later = None
        if self._app.state is State.STOPPED:
            self.stopService()
        else:
            self._connect()

    def _connect(self) -> None:
        connecting = self._app.connect(self._endpoint, self._dialect, self._timeout)
        self._connecting = connecting
        connecting.addCallbacks(self._connected, self._failed)

    def _connected(self, session: Session) -> None:
        self._connecting = None
        if not self.running:
            session.close()
            return
        self.session = session
        self.attempts = 0
        self._reconnect.began(self._app.clock.seconds())
        session.when_ended().addCallback(self._ended, session)
        if self.session is not session:
            return  # it is over already
        if self._up is not None:
            ensureDeferred(self._greet(self._up, session))
        waiting, self._waiting = self._waiting, []
        for done, _ in waiting:
            done.callback(session)

    async def _greet(self, up: Callable[[Session], object], session: Session) -> None:
        try:
            made = up(session)
            if isawaitable(made):
                await self._app.in_task(made)
        except Exception:
            if session.ended is None:  # else it was telling who is gone, and comes again
                log.failure("what greets a server failed")

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        if not self.running or failure.check(CancelledError):
            return
        self.attempts += 1
        problem = failure.getErrorMessage() or type(failure.value).__name__
        pause = self._reconnect.failed()
        log.info(
            "no session: {problem}; again in {pause:.1f} s",
            problem=escaped(problem[:200]),
            pause=pause,
        )
        late = [one for one in self._waiting if one[1] is not None and self.attempts >= one[1]]
        self._waiting = [one for one in self._waiting if one not in late]
        self._later = self._app.clock.callLater(pause, self._again)
        for done, _ in late:
            refused = failure.check(Refused)
            done.errback(failure if refused else GatewayDown(problem))

    def _ended(self, _: object, session: Session) -> None:
        self.session = None
        pause = self._reconnect.ended(self._app.clock.seconds())
        if self.running:
            log.info(
                "session ended: {why}; again in {pause:.1f} s",
                why=escaped(str(session.ended)),
                pause=pause,
            )
            self._later = self._app.clock.callLater(pause, self._again)

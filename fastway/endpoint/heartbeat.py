"""Pings to a gateway, and what becomes of one that does not answer.

Rule: at most one timer runs, and none once the link has ended. A ping that somebody waits for is
answered, or ends the link, or is asked about again.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from fastway.endpoint.config import EndpointConfig
from fastway.endpoint.core import EndpointCore
from fastway.endpoint.unread import Unread
from fastway.errors import EndpointEnded, LoginFailed, PingTimeout
from fastway.waiting import Loop, Timer, Waiters

ANSWER_TIMEOUT = 5.0
"""Seconds in which a gateway must answer a login, or a ping where no `ping_interval` is set."""


class Resumable(Protocol):
    """A transport whose network may be cut and come back."""

    resumable: bool

    def resume_now(self) -> None: ...


class Body(Protocol):
    """What is to be kept alive: a `link.Link`."""

    core: EndpointCore
    config: EndpointConfig
    loop: Loop
    unread: Unread

    @property
    def face(self) -> Any: ...

    @property
    def up(self) -> bool: ...

    @property
    def ended(self) -> EndpointEnded | None: ...

    @property
    def transport(self) -> Resumable | None: ...

    def write(self, data: bytes) -> None: ...

    def now_up(self) -> None: ...

    def end(self, reason: EndpointEnded) -> None: ...


class Heartbeat:
    """The pings of one link.

    Attributes:
        round_trip: Seconds that the last answered ping took; None before.
        pongs: Who waits for the next answer.
    """

    def __init__(self, body: Body) -> None:
        self.round_trip: float | None = None
        self.pongs = Waiters(body.loop)
        self._body = body
        self._sent: deque[float] = deque()
        self._timer: Timer | None = None
        self._cut = False
        """Over snet: there is no connection now, and no ping is late."""
        self._resume_tried = False
        """Over snet: a resume was forced since the last answered ping."""

    def await_login(self) -> None:
        """The gateway is to send a challenge."""
        self._start(ANSWER_TIMEOUT, self._late)

    def rest(self) -> None:
        """Wait until the next ping is due."""
        if self._body.config.ping_interval:
            self._start(self._body.config.ping_interval, self.beat)

    def beat(self) -> None:
        """Send a ping."""
        self.stop()
        self._sent.append(self._body.loop.seconds())
        self._body.write(self._body.core.ping())
        if not self._cut and self._body.ended is None:
            self._start(self._answer_timeout, self._late)

    def wait(self) -> Any:
        """A Waiter of the seconds that the next answered ping takes; sends one if none is out."""
        if not self._body.core.pinging:
            self.beat()
        waiter = self.pongs.wait()
        if self._body.ended is not None:  # writing it ended the link
            self.pongs.errback(self._body.ended)
        return waiter

    def ponged(self) -> None:
        """A ping was answered."""
        self.round_trip = self._body.loop.seconds() - self._sent.popleft()
        self._resume_tried = False
        self.stop()
        self.rest()
        self._body.now_up()
        self.pongs.callback(self.round_trip)

    def cut(self) -> None:
        """There is no network for now."""
        self._cut = True
        self.stop()

    def resumed(self) -> None:
        """There is one again."""
        self._cut = False
        if self._body.core.pinging or not self._body.up:
            self._start(self._answer_timeout, self._late)
        else:
            self.rest()

    def stop(self) -> None:
        """No timer runs."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _start(self, seconds: float, call: Any) -> None:
        self.stop()

        def due() -> None:
            self._timer = None
            call()

        self._timer = self._body.loop.call_later(seconds, due)

    @property
    def _answer_timeout(self) -> float:
        config = self._body.config
        return config.ping_timeout if config.ping_interval else ANSWER_TIMEOUT

    def _late(self) -> None:
        body = self._body
        read_for = body.loop.seconds() - body.unread.reading_since
        if body.unread.paused or read_for < self._answer_timeout:
            # It is this end that does not read, or did not: the answer may be behind the rest.
            self._wait_longer()
            return
        if not body.up:
            if body.core.logged_in:
                problem = "the gateway did not answer the login in time"
            else:
                problem = "the gateway sent no challenge in time: is that its server port?"
            body.end(LoginFailed(problem))
            return
        transport = body.transport
        if transport is not None and transport.resumable and not self._resume_tried:
            self._resume_tried = True
            transport.resume_now()
            return
        if self._asked_to_go_on():
            if body.ended is None:
                self._wait_longer()
            return
        body.end(PingTimeout(self._answer_timeout))

    def _wait_longer(self) -> None:
        if self._body.config.ping_interval:
            self.rest()
        else:  # it was asked for: no other will follow
            self._start(self._answer_timeout, self._late)

    def _asked_to_go_on(self) -> bool:
        callback = self._body.config.timeout_callback
        try:
            return callback is not None and callback(self._body.face)
        except Exception:
            self._body.loop.log_failure(f"timeout_callback failed: {callback!r}")
            return False

"""snet on asyncio: the dialling side of a stream that lives on while its connections come and go.

Rule: the stream's bytes come out exactly as they went in, or it is lost with a reason. What the
bytes mean is `snet.session`'s, and how a stream goes on over its connections is `snet.flow`'s, as
with Twisted.
The laws are docs/snet.md's: one attempt at a time, each in its time; no more on its way than the
peer can be sent again; a close delivers what was written.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from fastway.aio.carrier import Attempt, Carrier
from fastway.errors import FastwayError, GatewayUnreachable, Reason, StreamLost
from fastway.reconnect import Backoff, Reconnect, growing
from fastway.snet.config import (
    FIRST_DELAY,
    HURRY,
    LINGER,
    MOST_DELAY,
    STEADY,
    SnetConfig,
)
from fastway.snet.flow import Flow
from fastway.snet.outbox import CallLater
from fastway.snet.session import Fault, HandshakeFailed, Made, Resumed

if TYPE_CHECKING:
    from fastway.aio.connect import Gateway

log = logging.getLogger("fastway")


class Rider(Protocol):
    """What runs over a stream: asyncio's protocol, that is also told what happens to the network.

    `connection_lost` gets a StreamLost when it could not go on.
    """

    def connection_made(self, transport: Any) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def stream_cut(self) -> None: ...

    def stream_resumed(self, seconds: float, replayed: int) -> None: ...


class Stream(Flow):
    """The stream, as a transport of asyncio: what `connect.Wire` writes to.

    There is no half-close, because snet has no word for it; nor for a close: to the peer it is a
    cut that cannot be resumed. `close` delivers what was written all the same, over another
    connection if this one breaks before the peer's host has it, for LINGER seconds.

    Attributes:
        session: Its counts and what is kept to be sent again.
        cut_since: When its connection broke, in the loop's seconds; None while it has one.
        lost: It is over.
    """

    def __init__(
        self, gateway: Gateway, config: SnetConfig, rider: Rider, backoff: Backoff
    ) -> None:
        super().__init__()
        self.lost = False
        self.session = None  # type: ignore[assignment]  # until it begins
        self._loop = asyncio.get_running_loop()
        self._gateway = gateway
        self._config = config
        self._rider = rider
        self._full = False
        """Its rider was told so."""
        self._lingering = False
        """The deadline is that of a close."""
        self._deadline: asyncio.TimerHandle | None = None
        self._reconnect = Reconnect(backoff, STEADY, at_once=True)
        self._read = 0
        """Bytes of the stream that had come when the last handshake was done."""
        self._got_across = False
        """That handshake showed that the connection before it took bytes to the peer."""
        self._attempt: Attempt | None = None
        self._call: asyncio.TimerHandle | None = None
        """The next attempt, which ends the one that is under way then."""
        self._when = 0.0
        self._no_hurry = -math.inf
        """Until when no further attempt is made because somebody asks for it."""
        self._extra: dict[str, Any] = {}
        self.leaving: set[Carrier] = set()

    # Its beginning, and how it goes on.

    def begin(self, carrier: Carrier, result: Made | Resumed) -> None:
        """`carrier` carries it first."""
        self._begin(result.session)
        self._reconnect.began(self._loop.time())
        self._use(carrier)
        self._tell(self._rider.connection_made, self)
        if result.rest:
            self.carried(result.rest)

    def _resumed(self, carrier: Carrier, resumed: Made | Resumed) -> None:
        assert isinstance(resumed, Resumed) and self.cut_since is not None
        self._no_more_attempts()
        session = self.session
        now = self._loop.time()
        self._read, peer_read = session.read, session.peer_read
        try:
            replay = session.resume(resumed)
        except HandshakeFailed as error:
            carrier.abort()
            self._not_resumed(error)
            return
        self._reconnect.began(now)
        self._got_across = session.peer_read > peer_read
        self._go_on(carrier, resumed, replay, now)

    def _lose(self, reason: Reason, detail: str = "") -> None:
        self._finish(None if self._delivers else StreamLost(reason, detail))

    # What its rider calls.

    def close(self) -> None:
        """Close it after what was written."""
        self._leave()

    def abort(self) -> None:
        """Close it now; what waits is dropped."""
        self.disconnecting = True
        self._finish(None, abort=True)

    def is_closing(self) -> bool:
        """It is closed, or about to be."""
        return self.disconnecting or self.lost

    def pause_reading(self) -> None:
        """Read nothing for now."""
        self._pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio's transports: of the connection in use, or of the last one's addresses."""
        carrier = self.carrier
        if carrier is not None:
            return carrier.transport.get_extra_info(name, default)
        return self._extra.get(name, default)

    # What `Flow` asks for.

    @property
    def _call_later(self) -> CallLater:
        return self._loop.call_later

    def _hand_over(self, data: bytes) -> None:
        self._tell(self._rider.data_received, data)

    def tell_full(self) -> None:
        if not self._full:
            self._full = True
            self._tell(self._rider.pause_writing)

    def _drained(self) -> None:
        if self._full:
            self._full = False
            self._tell(self._rider.resume_writing)

    def _hold_back(self, carrier: Carrier) -> None:
        carrier.transport.pause_reading()

    def _read_from(self, carrier: Carrier) -> None:
        carrier.transport.resume_reading()

    def _hurry(self) -> None:
        if self._attempt is not None or self._call is not None:
            when = max(self._loop.time(), self._no_hurry)
            self._try_by(when)
            self._no_hurry = max(self._no_hurry, self._when + HURRY)

    def _tell_resumed(self, seconds: float, replayed: int) -> None:
        log.info(
            "snet stream to %s resumed after %.1f s, %d bytes sent again",
            self._gateway,
            seconds,
            replayed,
        )
        self._tell(self._rider.stream_resumed, seconds, replayed)

    @property
    def _lingers(self) -> bool:
        return self._lingering

    def _linger(self) -> None:
        self._lingering = True
        self._set_deadline(LINGER)

    def _no_deadline(self) -> None:
        self._set_deadline(None)

    def _tell(self, call: Callable[..., object], *args: object) -> None:
        if self.lost:
            return
        try:
            call(*args)
        except Exception:
            # As asyncio's own transports do: its rider's fault ends the connection.
            log.exception("unhandled error in %r", self._rider)
            self.abort()

    # Connections.

    def _use(self, carrier: Carrier) -> None:
        for name in ("peername", "sockname"):
            self._extra[name] = carrier.transport.get_extra_info(name)
        super()._use(carrier)

    def _now_cut(self) -> None:
        now = self.cut_since = self._loop.time()
        if not self._lingers:
            self._set_deadline(self._config.wait_timeout)
        self.tell_full()
        self._tell(self._rider.stream_cut)
        if self.lost:
            return
        got_something = self._got_across or self.session.read > self._read
        self._got_across = False
        self._try_by(now + self._reconnect.ended(now, got_something))

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self._loop.call_later(seconds, self._lose, Reason.NOT_RESUMED)

    # Attempts to resume.

    def _try_by(self, when: float) -> None:
        """Make the next attempt then, if it is not to be made sooner anyway."""
        if self._call is not None:
            if self._when <= when:
                return
            self._call.cancel()
        self._when = when
        self._call = self._loop.call_at(when, self._try)

    def _no_more_attempts(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()

    def _try(self) -> None:
        self._no_more_attempts()
        self._attempt = Attempt(
            self._gateway,
            self._config,
            self.leaving,
            self._shaken,
            self._not_resumed,
            self.session,
        )

    def _shaken(self, carrier: Carrier, resumed: Made | Resumed) -> None:
        self._attempt = None
        self._resumed(carrier, resumed)

    def _not_resumed(self, error: Exception) -> None:
        self._attempt = None
        if self.lost:
            return
        if isinstance(error, HandshakeFailed):
            if error.fault is Fault.REFUSED:
                self._lose(Reason.RESUME_REFUSED)
                return
            if error.fault in (Fault.GAP, Fault.BAD_COUNTS):
                self._lose(Reason.RESUME_IMPOSSIBLE, str(error))
                return
        pause = self._reconnect.failed()
        log.info(
            "snet stream to %s: attempt %d to resume failed: %s",
            self._gateway,
            self._reconnect.failures,
            error,
        )
        self._try_by(self._loop.time() + pause)

    # Closing.

    def _finish(self, error: Exception | None, abort: bool = False) -> None:
        if self.lost:
            return
        self.lost = True
        self._set_deadline(None)
        self._out.drop()
        self._in.take()
        self._drop_carrier()
        self._no_more_attempts()
        if abort or error is not None:
            for carrier in list(self.leaving):
                carrier.abort()
        # Never within the call that closed it, as asyncio's own.
        self._loop.call_soon(self._rider.connection_lost, error)


async def open_stream(
    gateway: Gateway, config: SnetConfig, rider: Rider, backoff: Backoff | None = None
) -> Stream:
    """Dial a stream; `rider.connection_made` has been called with it when this returns.

    Args:
        backoff: Failures since the last steady connection -> seconds until the next attempt; None:
            0.1 s, growing to 5 s, with chance in it.

    Raises:
        GatewayUnreachable: there is no connection, or the peer does not speak snet.
    """
    connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stream = Stream(
        gateway, config, rider, growing(FIRST_DELAY, MOST_DELAY) if backoff is None else backoff
    )

    def done(carrier: Carrier, result: Made | Resumed) -> None:
        stream.begin(carrier, result)
        if not connected.done():
            connected.set_result(None)

    def failed(error: Exception) -> None:
        if not isinstance(error, GatewayUnreachable):
            problem = f"no snet stream: {error}" if isinstance(error, FastwayError) else str(error)
            error = GatewayUnreachable(str(gateway), problem, error)
        if not connected.done():
            connected.set_exception(error)
            connected.exception()  # who waited may be cancelled in this very turn

    attempt = Attempt(gateway, config, stream.leaving, done, failed)
    try:
        await connected
    except asyncio.CancelledError:
        attempt.cancel()
        if stream.session is not None:
            stream.abort()
        raise
    return stream

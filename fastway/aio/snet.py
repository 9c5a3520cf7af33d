"""snet on asyncio: the dialling side of a stream that lives on while its connections come and go.

Rule: the stream's bytes come out exactly as they went in, or it is lost with a reason. What the
bytes mean is `snet.session`'s; what waits is `snet.outbox`'s and `snet.inbox`'s, as with Twisted.
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
from fastway.snet.inbox import Inbox
from fastway.snet.outbox import Outbox
from fastway.snet.session import Fault, HandshakeFailed, Made, Resumed, Session

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


class Stream:
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
        self.cut_since: float | None = None
        self.lost = False
        self.session: Session = None  # type: ignore[assignment]  # until it begins
        self._loop = asyncio.get_running_loop()
        self._gateway = gateway
        self._config = config
        self._rider = rider
        self._carrier: Carrier | None = None
        self._in: Inbox
        self._out: Outbox
        self._paused = False
        self._full = False
        """Its rider was told so."""
        self._handing_over = False
        self._disconnecting = False
        self._closing = False
        """This side has closed its half of the connection, and waits for the peer to do so."""
        self._settled = False
        """The peer's host had all that was written when the connection went."""
        self._lingers = False
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

    @property
    def replayable(self) -> int:
        """Bytes kept to be sent again."""
        return self.session.replayable

    @property
    def pending(self) -> int:
        """Bytes that wait for a connection, or for room in it."""
        return self._out.size

    @property
    def unread(self) -> int:
        """Bytes that came and wait for the rider to read on."""
        return self._in.size

    @property
    def acked(self) -> int | None:
        """Bytes of the stream that the peer's host has; None where nobody tells."""
        unacked = None if self._carrier is None else self._carrier.unacked()
        return None if unacked is None else self.session.wrote - unacked

    # Its beginning, and how it goes on.

    def begin(self, carrier: Carrier, result: Made | Resumed) -> None:
        """`carrier` carries it first."""
        self.session = result.session
        self._in, self._out = Inbox(self.session), Outbox(self.session)
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
        seconds, self.cut_since = now - self.cut_since, None
        self._closing = False
        if not self._lingers:
            self._set_deadline(None)
        elif resumed.read == session.wrote:  # the peer has all
            carrier.abort()
            self._finish(None)
            return
        self._use(carrier)
        if replay:
            self._out.room -= len(replay)
            carrier.write(replay)
        log.info(
            "snet stream to %s resumed after %.1f s, %d bytes sent again",
            self._gateway,
            seconds,
            len(replay),
        )
        self._tell(self._rider.stream_resumed, seconds, len(replay))
        if resumed.rest and self._carrier is carrier:
            self.carried(resumed.rest)
        self.pump()

    def _lose(self, reason: Reason, detail: str = "") -> None:
        # What was written before this side closed it was still to be delivered, if it could be.
        closed = self._disconnecting and not self._out.size
        self._finish(None if closed else StreamLost(reason, detail))

    # What a carrier calls.

    def carried(self, data: bytes) -> None:
        """Bytes came over the connection in use."""
        if self._disconnecting or self.lost:
            self.session.receive(data)
        elif self._paused or self._in.size:
            self._in.add(data)
        else:
            data = self.session.receive(data)
            if data:
                self._tell(self._rider.data_received, data)

    def carrier_ended(self, carrier: Carrier, unacked: int | None, orderly: bool) -> None:
        """The connection is over.

        Args:
            unacked: Bytes that its peer's host had not acknowledged; None where nobody tells.
            orderly: The peer closed it.
        """
        if carrier is not self._carrier:
            return
        if unacked is None:
            self._settled = orderly and self._closing
        else:
            self._settled = unacked <= 0  # an acknowledged FIN counts as a byte
        self._drop_carrier(abort=False)
        if self._disconnecting and self._settled and not self._out.size:
            self._finish(None)
        else:
            self._now_cut()

    def tell_full(self) -> None:
        """Let the rider write no more."""
        if not self._full:
            self._full = True
            self._tell(self._rider.pause_writing)

    def pump(self) -> None:
        """Hand what waits to the connection as far as it goes."""
        carrier = self._carrier
        if carrier is None or not self._out.flow(carrier, self._loop.call_later, self.pump):
            return
        if self.lost:
            return
        if self._full:
            self._full = False
            self._tell(self._rider.resume_writing)
        if self._disconnecting:
            self._close_if_done()

    # What its rider calls.

    def write(self, data: bytes) -> None:
        """Send bytes; while there is no connection they wait here."""
        if not data or self._closing or self.lost:
            return
        carrier = self._carrier
        out = self._out
        size = len(data)
        if not out.size and carrier is not None and size <= out.room and not carrier.full:
            out.room -= size
            carrier.write(self.session.send(data))
            return
        out.add(data)
        self.pump()
        if out.size:
            self.tell_full()

    def close(self) -> None:
        """Close it after what was written."""
        if not self._disconnecting and not self.lost:
            self._disconnecting = True
            self._in.take()  # not delivered any more; but it counts as read
            self._close_if_done()

    def abort(self) -> None:
        """Close it now; what waits is dropped."""
        self._disconnecting = True
        self._finish(None, abort=True)

    def is_closing(self) -> bool:
        """It is closed, or about to be."""
        return self._disconnecting or self.lost

    def pause_reading(self) -> None:
        """Read nothing for now."""
        self._paused = True
        if self._carrier is not None and not self._disconnecting:
            self._carrier.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._paused = False
        if not self._in.size:
            self._read_on()
        elif not self._handing_over:
            # Never within the call that resumed: that may be the rider's, amid its last data.
            self._handing_over = True
            self._loop.call_soon(self._hand_over_unread)

    def resume_now(self) -> None:
        """Give up the connection in use, which may be dead, and get a new one at once."""
        if self.lost:
            return
        if self._carrier is not None:
            self._drop_carrier()
            self._now_cut()
        if self._attempt is not None or self._call is not None:
            when = max(self._loop.time(), self._no_hurry)
            self._try_by(when)
            self._no_hurry = max(self._no_hurry, self._when + HURRY)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio's transports: of the connection in use, or of the last one's addresses."""
        carrier = self._carrier
        if carrier is not None:
            return carrier.transport.get_extra_info(name, default)
        return self._extra.get(name, default)

    # Reading.

    def _read_on(self) -> None:
        if self._carrier is not None and not self._closing:
            self._carrier.transport.resume_reading()

    def _hand_over_unread(self) -> None:
        self._handing_over = False
        if self._paused or not self._in.size or self.lost:
            return
        unread = self._in.take()
        if unread:
            self._tell(self._rider.data_received, unread)
        if not self._paused and not self.lost:
            self._read_on()

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
        self._carrier = carrier
        carrier.stream = self
        for name in ("peername", "sockname"):
            self._extra[name] = carrier.transport.get_extra_info(name)
        self._out.begin(carrier)
        if self._paused and not self._disconnecting:
            carrier.transport.pause_reading()

    def _drop_carrier(self, abort: bool = True) -> None:
        carrier, self._carrier = self._carrier, None
        self._out.end()
        self._in.end()
        if carrier is not None:
            carrier.stream = None
            if abort:
                carrier.abort()

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

    def _close_if_done(self) -> None:
        if self._closing or self.lost or self._out.size:
            return
        carrier = self._carrier
        if carrier is None:
            # Cut: with nothing to send again there is nothing to wait for.
            if self._settled or self.session.replayable == 0:
                self._finish(None)
            return
        self._closing = True
        if not self._lingers:
            self._lingers = True
            self._set_deadline(LINGER)
        carrier.half_close()

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

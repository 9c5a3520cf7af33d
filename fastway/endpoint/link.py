"""One connection to a gateway, inside: the wire state put to work with a transport and a clock.

Rule: what the bytes mean is `core`'s, what framework runs it is the shell's (`connection` for
Twisted, `fastway.aio` for asyncio), what the application sees is `face`'s. Every queue has a
bound. When it ends, everything is marked first and told then: nobody who is told of the end can
still send to a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from fastway.causes import cause_of
from fastway.endpoint.channel import Channel, Drained
from fastway.endpoint.config import (
    EndpointConfig,
    NetworkCut,
    NetworkEvent,
    NetworkLost,
    NetworkResumed,
)
from fastway.endpoint.control import Control
from fastway.endpoint.core import (
    Closed,
    ConnState,
    Dial,
    EndpointCore,
    LoggedIn,
    Message,
    Opened,
    Pong,
    Refused,
)
from fastway.endpoint.heartbeat import Heartbeat
from fastway.endpoint.unread import Unread
from fastway.errors import (
    NO_CLOSE,
    ConnectionEnded,
    DialRefused,
    DialTimeout,
    EndpointEnded,
    FastwayError,
    LocalError,
    LoginFailed,
    MessageTooLarge,
    NotOpen,
    PingTimeout,
    SendQueueFull,
    StreamLost,
    WebSocketClosed,
)
from fastway.waiting import Loop, Timer, Waiters

LINGER = 5.0
"""Seconds that a closed connection's gateway gets to take what was written."""


class Transport(Protocol):
    """What a link writes to.

    Attributes:
        resumable: Its network may be cut and come back (snet).
        address: The gateway's.
        below: What the framework knows it as.
    """

    resumable: bool

    @property
    def below(self) -> Any: ...

    @property
    def address(self) -> Any: ...

    def write(self, data: bytes) -> object: ...

    def pause(self) -> None:
        """Read nothing for now."""

    def resume(self) -> None:
        """Read on."""

    def close(self) -> None:
        """Close it after what was written; `full_now` and `drained` are not called any more."""

    def abort(self) -> None:
        """Close it now, closed before or not."""

    def resume_now(self) -> None:
        """Get another network connection at once, if it is resumable."""


class Owner(Protocol):
    """What the application has of a link: `face.Face`."""

    def make_connection(self, conn_id: int, remote_id: int) -> Any:
        """A virtual connection opened."""

    def opened(self, conn: Any) -> None:
        """It is one that the other side dialled."""

    def end_accepting(self, reason: EndpointEnded) -> None:
        """There will be no more."""


class Link:
    """One connection to a gateway.

    Attributes:
        ended: Why it ended; None while it lives.
        up: It is logged in; a client is at once.
        full: The transport's buffer is full: what is sent now has to wait.
        streams: Transports that want to know when this one's fills and drains.
        unread: What waits unread on its virtual connections.
        heart: Its pings.
        control: A server's control connection, before there is one too; None if it wants none.
    """

    def __init__(
        self, core: EndpointCore, config: EndpointConfig, loop: Loop, face: Owner
    ) -> None:
        self.core = core
        self.config = config
        self.loop = loop
        self.face = face
        self.transport: Transport | None = None
        self.conns: dict[int, Channel[Any]] = {}
        self.ended: EndpointEnded | None = None
        self.up = False
        self.full = False
        self.streams: set[Drained] = set()
        self.gone = False
        self.unread = Unread(self)
        self.heart = Heartbeat(self)
        self.closers = Waiters(loop)
        self.leavers = Waiters(loop)
        self.risers = Waiters(loop)
        self._dials: dict[Dial, Any] = {}
        self._senders = Waiters(loop)
        self._unsent = 0
        self._linger: Timer | None = None
        wanted = core.is_server and config.control
        self.control: Control | None = Control(self) if wanted else None

    # What the shell calls.

    def connected(self, transport: Transport) -> None:
        """There is a transport now."""
        self.transport = transport
        if self.ended is not None:  # closed while it was connecting
            transport.abort()
            return
        if self.core.is_server:
            self.heart.await_login()
        else:
            self.heart.rest()
            self.now_up()

    def received(self, data: bytes) -> None:
        """The gateway said something."""
        if self.ended is not None:
            return
        core = self.core
        conns = self.conns
        for event in core.receive_data(data):
            if isinstance(event, Message):
                conn = conns.get(event.conn_id)
                if conn is not None:
                    conn.deliver(event.data)
                elif self.control is not None and event.conn_id == self.control.conn_id:
                    self.control.received(event.data)
            elif isinstance(event, Opened):
                self._opened(event)
            elif isinstance(event, Closed):
                core.told_closed(event.conn_id)
                self._closed(event)
            elif isinstance(event, Refused):
                self._refused(event.dial)
            elif isinstance(event, Pong):
                self.heart.ponged()
            elif isinstance(event, LoggedIn):
                # The gateway says nothing when it agrees; a ping makes it speak.
                self.write(core.data_to_send())
                self.heart.beat()
            if self.ended is not None:  # what was called closed it
                return
        self.write(core.data_to_send())
        if core.error is not None:
            self._broke_protocol(core.error)

    def lost(self, cause: Exception | None, dropped: bool) -> None:
        """The transport is gone.

        Args:
            cause: Why; None for an orderly end.
            dropped: It was orderly or the peer just went: nothing says what else is wrong.
        """
        self.gone = True
        if cause is None:
            self.core.receive_eof()  # else it broke, wherever it was
        error = self.core.error
        if error is not None:
            self._broke_protocol(error)
        elif not self.up and dropped:
            told = isinstance(cause, WebSocketClosed) and cause.text
            problem = str(cause) if told else "is the key right, and the id free?"
            self.end(LoginFailed(f"the gateway did not take the login: {problem}"))
        elif cause is None:
            self.end(EndpointEnded(f"closed by the gateway{self._bye}"))
        elif isinstance(cause, WebSocketClosed) and cause.code != NO_CLOSE:
            bye = self._bye or f": {cause}"
            self.end(EndpointEnded(f"closed by the gateway{bye}", cause))
        else:
            if isinstance(cause, StreamLost):
                self._network(NetworkLost(cause))
            why = cause_of(cause, None if self.transport is None else self.transport.below)
            self.end(
                EndpointEnded(f"the connection to the gateway broke: {why}{self._bye}", cause)
            )
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self.leavers.callback(None)

    @property
    def _bye(self) -> str:
        """What the gateway said before it went, as the end of a sentence."""
        bye = None if self.control is None else self.control.bye
        return "" if bye is None else f": {bye.reason}"

    def full_now(self) -> None:
        """The transport's buffer is full."""
        self.full = True
        for stream in list(self.streams):
            try:
                stream.endpoint_full()
            except Exception:
                self.loop.log_failure(f"{stream!r} failed to pause")

    def drained(self) -> None:
        """It has room again."""
        self.full = False
        self._unsent = 0
        self._senders.callback(None)
        if self.control is not None and self.ended is None:
            self.control.pump()
        for stream in list(self.streams):
            try:
                stream.endpoint_drained()
            except Exception:
                self.loop.log_failure(f"{stream!r} failed to go on")

    def network_cut(self) -> None:
        """A resumable transport has no connection."""
        self.heart.cut()
        self._network(NetworkCut())

    def network_resumed(self, seconds: float, replayed: int) -> None:
        """It has one again."""
        if self.ended is not None:
            return
        self.heart.resumed()
        self._network(NetworkResumed(seconds, replayed))

    # What the application asks for.

    def check_speaking(self) -> None:
        """
        Raises:
            EndpointEnded: it has ended.
            LocalError: it is not connected, or not logged in, yet.
        """
        if self.ended is not None:
            raise self.ended.with_traceback(None)
        # What is written before the login's answer would be taken for it.
        if self.transport is None or not self.core.logged_in:
            raise LocalError("the connection is not logged in yet: wait for when_up")

    def dial(self, remote_id: int, timeout: float | None) -> Any:
        """A Waiter of the connection; raises as `check_speaking`, and ValueError."""
        self.check_speaking()
        dial, data = self.core.dial(remote_id)
        timer: Timer | None = None

        def forget() -> None:
            dial.abandoned = True
            self._dials.pop(dial, None)
            if timer is not None:
                timer.cancel()

        answer = self.loop.waiter(lambda _: forget())
        if timeout is None:
            self._dials[dial] = answer
        else:

            def too_late() -> None:
                nonlocal timer
                timer = None
                dial.abandoned = True
                if self._dials.pop(dial, None) is not None and not answer.called:
                    answer.errback(DialTimeout(remote_id, timeout))

            timer = self.loop.call_later(timeout, too_late)
            self._dials[dial] = _Timed(answer, timer)
        self.write(data)
        return answer

    def ping(self) -> Any:
        """A Waiter of the seconds that the next answered ping takes; sends one if none is out."""
        self.check_speaking()
        return self.heart.wait()

    def shut(self) -> None:
        """The application closes it: what was sent is still written."""
        if self.ended is None:
            if self.transport is not None and self.transport.resumable:
                # To the gateway it is a cut; nobody should wait for the end of that.
                for conn_id in list(self.conns):
                    self.write(self.core.close(conn_id))
            self.end(EndpointEnded("closed here"))

    # What a virtual connection asks for.

    def send(self, conn: Channel[Any], data: bytes) -> Any:
        """Send a message; a Waiter until there is room again, or None while there is."""
        packet = self._packet(conn, data)
        if not self.full:
            if self.transport is not None:
                self.transport.write(packet)
            return self._wait_to_send() if self.full else None
        if self._unsent + len(packet) > self.config.send_buffer:
            raise SendQueueFull(self._unsent, self.config.send_buffer)
        self._unsent += len(packet)
        self.write(packet)
        return self._wait_to_send()

    def post(self, conn: Channel[Any], data: bytes) -> bool:
        """Send a message if there is room."""
        try:
            packet = self._packet(conn, data)
        except ConnectionEnded:
            return False
        if not self.has_room(len(packet)):
            return False
        self.write(packet)
        return True

    @property
    def max_message(self) -> int:
        """Bytes of the largest message."""
        return self.core.max_message

    def has_room(self, size: int) -> bool:
        """So many bytes may be sent without waiting; they count from now on."""
        if self.full:
            if self._unsent + size > self.config.send_buffer:
                return False
            self._unsent += size
        return True

    def check_size(self, size: int) -> None:
        """
        Raises:
            MessageTooLarge: a message of `size` bytes does not fit a packet.
        """
        if size > self.core.max_message:
            raise MessageTooLarge(size, self.core.max_message)

    @property
    def paused(self) -> bool:
        """The gateway is not read from, because too much is unread here."""
        return self.unread.paused

    def is_open(self, conn: Channel[Any]) -> bool:
        """It can be sent to: it has not ended, and its end is not about to be told."""
        return conn.ended is None and self.core.conns.get(conn.conn_id) is ConnState.OPEN

    @property
    def all_told(self) -> bool:
        """No connection's end is about to be told."""
        return self.core.all_told

    def write_packets(self, packets: Iterable[bytes]) -> None:
        """Write whole packets, of connections that are open, in pieces."""
        self.write(b"".join(packets))

    def write_message(self, conn: Channel[Any], data: bytes) -> None:
        """Send bytes as one message, whatever the format, and however much waits already.

        Nothing is sent if it is closed: a transport does not tell its writers.
        """
        if self.is_open(conn):
            self.write(self.core.send(conn.conn_id, data))

    def close(self, conn: Channel[Any], reason: FastwayError) -> None:
        """Close a virtual connection; a second time does nothing."""
        if self.mark_closed(conn, reason):
            self.tell_closed(conn)

    def mark_closed(self, conn: Channel[Any], reason: FastwayError) -> bool:
        """Close it and tell nobody here yet; False when it is closed already."""
        if self.conns.get(conn.conn_id) is not conn:  # its number may be another's by now
            return False
        del self.conns[conn.conn_id]
        conn.mark_ended(reason)
        self.write(self.core.close(conn.conn_id))
        return True

    def tell_closed(self, conn: Channel[Any]) -> None:
        """Tell who waits for the end of one that was marked."""
        conn.tell_ended()
        self.unread.closed(conn)

    # Inside.

    def _wait_to_send(self) -> Any:
        waiter = self._senders.wait()
        if self.ended is not None:  # a stream that was told of the full buffer closed it
            self._senders.errback(self.ended)
        return waiter

    def _packet(self, conn: Channel[Any], data: bytes) -> bytes:
        try:
            return self.core.send(conn.conn_id, data)
        except NotOpen:
            # Its Close came in the read that is being handled, and is about to be told.
            raise ConnectionEnded("closed by the far end") from None

    def write(self, data: bytes) -> None:
        """Write bytes; nothing once it has ended."""
        if data and self.ended is None and self.transport is not None:
            self.transport.write(data)

    def _closed(self, event: Closed) -> None:
        control = self.control
        why = ""
        if control is not None:
            if event.conn_id == control.conn_id:
                control.closed()
                return
            why = control.conn_closed(event.conn_id, event.extra)
        conn = self.conns.pop(event.conn_id, None)
        if conn is not None:
            problem = f"closed by the far end: {why}" if why else "closed by the far end"
            conn.mark_ended(ConnectionEnded(problem))
            self.tell_closed(conn)

    def _refused(self, dial: Dial) -> None:
        if self.control is not None and dial is self.control.dial:
            self.control.refused()
            return
        answer = self._dials.pop(dial, None)
        if answer is not None and not answer.called:
            answer.errback(DialRefused(dial.remote_id))

    def _opened(self, event: Opened) -> None:
        control = self.control
        if control is not None and event.dial is not None and event.dial is control.dial:
            control.opened(event.conn_id)
            return
        conn = self.face.make_connection(event.conn_id, event.remote_id)
        self.conns[event.conn_id] = conn
        if control is not None:
            control.conn_opened(event.conn_id, event.extra)
            if self.ended is not None:  # who was told what the gateway broke closed this
                return
        if event.dial is None:
            self.face.opened(conn)
            return
        answer = self._dials.pop(event.dial, None)
        if answer is not None and not answer.called:
            answer.callback(conn)
        else:  # given up by a callback of what came in the same read
            self.close(conn, ConnectionEnded("its dial was given up"))

    def _broke_protocol(self, error: Exception) -> None:
        hint = ""
        if self.core.silent and not self.core.is_server and self.heart.round_trip is None:
            hint = "; is that its client port?"  # the other one says a challenge first
        self.end(EndpointEnded(f"the gateway broke the protocol: {error}{hint}", error))

    def now_up(self) -> None:
        """The login was taken."""
        if not self.up:
            self.up = True
            if self.control is not None:
                self.control.begin()
            self.risers.callback(self.face)

    def _network(self, event: NetworkEvent) -> None:
        callback = self.config.network_callback
        if callback is not None and self.ended is None:
            try:
                callback(self.face, event)
            except Exception:
                self.loop.log_failure(f"network_callback failed: {callback!r}")

    # The end.

    def end(self, reason: EndpointEnded) -> None:
        """It is over; a second time does nothing."""
        if self.ended is not None:
            return
        self.ended = reason
        conns, self.conns = list(self.conns.values()), {}
        dials, self._dials = list(self._dials.values()), {}
        for conn in conns:
            conn.mark_ended(
                ConnectionEnded(f"its connection to the gateway ended: {reason}", reason)
            )
        self.heart.stop()
        self.unread.stop()
        self._close_transport(reason)
        for conn in conns:
            conn.tell_ended()
        for answer in dials:
            if not answer.called:
                answer.errback(reason.with_traceback(None))
        if self.control is not None:
            self.control.link_ended(reason)
        self.face.end_accepting(reason)
        self.heart.pongs.errback(reason)
        self._senders.errback(reason)
        self.risers.errback(reason)
        self.closers.callback(reason)

    def _close_transport(self, reason: EndpointEnded) -> None:
        transport = self.transport
        if transport is None:
            return
        if isinstance(reason, PingTimeout) or reason.cause is not None:
            transport.abort()
            return
        if self.unread.paused:
            transport.resume()  # TLS reads the peer's end before it closes
        transport.close()
        if not self.gone:
            self._linger = self.loop.call_later(LINGER, self._lingered)

    def _lingered(self) -> None:
        self._linger = None
        if self.transport is not None:
            self.transport.abort()


class _Timed:
    """A dial's answer that must come in time."""

    __slots__ = ("_answer", "_timer")

    def __init__(self, answer: Any, timer: Timer) -> None:
        self._answer = answer
        self._timer = timer

    @property
    def called(self) -> Any:
        return self._answer.called

    def callback(self, result: Any) -> None:
        self._timer.cancel()
        self._answer.callback(result)

    def errback(self, error: Exception) -> None:
        self._timer.cancel()
        self._answer.errback(error)

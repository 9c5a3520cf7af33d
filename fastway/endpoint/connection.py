"""An endpoint on Twisted: one connection to a gateway, many virtual connections on it.

Rule: what the bytes mean is `core`'s; this module has the transport, the clock, and the queues,
each of which has a bound. When an endpoint ends, everything that waits for it fails at once with
the reason.

    endpoint = await connect_client(clientFromString(reactor, "tcp:127.0.0.1:9010"), reactor)
    conn = await endpoint.dial(1)
    await conn.send(b"hello")
    print(await conn.receive())
    conn.close()
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast
from typing import Protocol as TypingProtocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import (
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.causes import cause_of
from fastway.endpoint.core import (
    Closed,
    Dial,
    EndpointCore,
    LoggedIn,
    Message,
    Opened,
    Pong,
    Refused,
)
from fastway.endpoint.formats import Bytes, MessageFormat
from fastway.errors import (
    BadMessage,
    ConnectionEnded,
    DialRefused,
    DialTimeout,
    EndpointEnded,
    FastwayError,
    LocalError,
    LoginFailed,
    NotOpen,
    PingTimeout,
    ReceiveQueueFull,
    SendQueueFull,
    StreamLost,
)
from fastway.logs import make_logger
from fastway.snet.interfaces import IResumableProtocol, IResumableTransport
from fastway.wire import MAX_PACKET

ANSWER_TIMEOUT = 5.0
"""Seconds in which a gateway must answer a login, or a ping where no `ping_interval` is set."""


LINGER = 5.0
"""Seconds that a closed endpoint's gateway gets to take what was written."""

log = make_logger(__name__)

Listener = Callable[["VirtualConnection"], object]
"""What takes the virtual connections that the other side dials; its result is not looked at."""


@dataclass(frozen=True, slots=True)
class NetworkCut:
    """The connection to the gateway broke; snet tries to resume it. What is sent waits."""


@dataclass(frozen=True, slots=True)
class NetworkResumed:
    """The connection was resumed, and nothing is missing.

    Attributes:
        seconds: How long there was none.
        replayed: Bytes that were sent again.
    """

    seconds: float
    replayed: int


@dataclass(frozen=True, slots=True)
class NetworkLost:
    """The connection could not be resumed: the endpoint ends.

    Attributes:
        cause: Why.
    """

    cause: Exception


NetworkEvent = NetworkCut | NetworkResumed | NetworkLost


class Overflow(Enum):
    """What happens when `receive_queue` messages of one virtual connection are unread."""

    CLOSE = "close"
    """That connection is closed, as the original does; nothing else notices."""
    PAUSE = "pause"
    """The whole endpoint is not read from until half of them are read: nothing is lost, but
    every other virtual connection of the endpoint waits too."""


@dataclass(slots=True)
class EndpointConfig:
    """How an endpoint behaves.

    Attributes:
        max_packet: The largest legal length field, in bytes, as the gateway's.
        message_format: What messages are to the application.
        receive_queue: Messages that may wait unread on one virtual connection.
        overflow: What happens past that.
        accept_queue: Virtual connections that may wait to be accepted; further ones are closed.
        send_buffer: Bytes that may be sent without waiting for `send` while the transport is full.
        ping_interval: Seconds between pings; 0: none. The gateway loses who says nothing for its
            idle timeout (30 s by default).
        ping_timeout: Seconds within which a ping must be answered.
        timeout_callback: Called with the endpoint when it was not; returns whether to go on.
            None: the endpoint ends with PingTimeout. Over snet a resume is tried first.
        network_callback: Called with the endpoint and what happened to its connection, where
            that is one that can be resumed (snet).
    """

    max_packet: int = MAX_PACKET
    message_format: MessageFormat = field(default_factory=Bytes)
    receive_queue: int = 1000
    overflow: Overflow = Overflow.CLOSE
    accept_queue: int = 1000
    send_buffer: int = 16 * 1024 * 1024
    ping_interval: float = 10.0
    ping_timeout: float = 10.0
    timeout_callback: Callable[[Endpoint], bool] | None = None
    network_callback: Callable[[Endpoint, NetworkEvent], object] | None = None

    def __post_init__(self) -> None:
        if self.ping_interval < 0 or self.ping_interval > 1800:
            raise ValueError("ping_interval is 0 to 1800 seconds")
        if self.ping_interval and self.ping_timeout <= 0:
            raise ValueError("ping_timeout must be over 0 seconds")
        if self.receive_queue < 1 or self.accept_queue < 1:
            raise ValueError("receive_queue and accept_queue are at least 1")
        if self.max_packet < 13:
            raise ValueError("max_packet is at least 13 bytes: a command must fit")


class EndpointStream(TypingProtocol):
    """What wants to know when the endpoint's transport fills and drains."""

    def endpoint_full(self) -> None: ...

    def endpoint_drained(self) -> None: ...


class Waiters:
    """Deferreds that wait for one thing each; cancelling one takes it out."""

    def __init__(self) -> None:
        self._waiting: dict[Deferred[Any], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, cancelled: Callable[[], None] | None = None) -> Deferred[Any]:
        """One more that waits; `cancelled` is called if it is cancelled."""

        def cancel(gone: Deferred[Any]) -> None:
            self._waiting.pop(gone, None)
            if cancelled is not None:
                cancelled()

        deferred: Deferred[Any] = Deferred(cancel)
        self._waiting[deferred] = None
        return deferred

    def first(self) -> Deferred[Any] | None:
        """Take out the one that waits longest."""
        for deferred in self._waiting:
            del self._waiting[deferred]
            return deferred
        return None

    def callback(self, value: object) -> None:
        waiting, self._waiting = self._waiting, {}
        for deferred in waiting:
            deferred.callback(value)

    def errback(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, {}
        for deferred in waiting:
            deferred.errback(error)


class VirtualConnection:
    """A message channel to the far end of a virtual connection.

    Attributes:
        conn_id: The gateway's number for it.
        remote_id: The id of the far end: a server's for a client, a client's for a server.
        endpoint: The endpoint that it runs over.
        state: The application's own; nothing here looks at it.
        ended: Why it is closed; None while it is open.
    """

    __slots__ = (
        "_closers",
        "_message_received",
        "_queue",
        "_readers",
        "conn_id",
        "ended",
        "endpoint",
        "remote_id",
        "state",
    )

    def __init__(self, endpoint: Endpoint, conn_id: int, remote_id: int) -> None:
        self.endpoint = endpoint
        self.conn_id = conn_id
        self.remote_id = remote_id
        self.state: Any = None
        self.ended: FastwayError | None = None
        self._queue: deque[Any] | None = None
        self._readers: Waiters | None = None
        self._closers: Waiters | None = None
        self._message_received: Callable[[bytes], None] | None = None

    def __repr__(self) -> str:
        state = "open" if self.ended is None else "closed"
        return f"<VirtualConnection {self.conn_id} to {self.remote_id}, {state}>"

    def send(self, message: Any) -> Deferred[None]:
        """Send a message.

        Returns:
            Fires when the endpoint can take more; wait for it and no more than one message a
            sender is ever queued. It does not tell that the far end got the message.

        Raises:
            ConnectionEnded: it is closed.
            MessageTooLarge: it does not fit `max_packet`.
            SendQueueFull: nobody waited, and `send_buffer` bytes wait already.
            Whatever the message format raises for a message that it cannot encode.
        """
        if self.ended is not None:
            raise self.ended.with_traceback(None)
        return self.endpoint._send(self, self.endpoint.config.message_format.encode(message))

    def receive(self) -> Deferred[Any]:
        """The next message. What came before a close is still received.

        Fails with the ConnectionEnded, or its cause's error, when there is none and will be none.
        """
        queue = self._queue
        if queue:
            message = queue.popleft()
            if not queue:
                self._queue = None
            self.endpoint.unread(self, len(queue))
            return succeed(message)
        if self.ended is not None:
            return fail(self.ended)
        if self._readers is None:
            self._readers = Waiters()
        return self._readers.wait()

    def __aiter__(self) -> VirtualConnection:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except ConnectionEnded:
            raise StopAsyncIteration from None

    def close(self) -> None:
        """Close it; both ends are told by the gateway. A second time does nothing."""
        self.endpoint._close(self, ConnectionEnded("closed here"))

    def when_closed(self) -> Deferred[FastwayError]:
        """Fires once with the reason when it is closed."""
        if self.ended is not None:
            return succeed(self.ended)
        if self._closers is None:
            self._closers = Waiters()
        return cast("Deferred[FastwayError]", self._closers.wait())

    # What the endpoint calls.

    def _deliver(self, data: bytes) -> None:
        if self._message_received is not None:
            self._message_received(data)
            return
        try:
            message = self.endpoint.config.message_format.decode(data)
        except Exception as error:
            self.endpoint._close(self, BadMessage(error))
            return
        readers = self._readers
        reader = readers.first() if readers is not None else None
        if reader is not None:
            reader.callback(message)
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(message)
        self.endpoint.unread(self, len(self._queue))

    def _end(self, reason: FastwayError) -> None:
        if self.ended is not None:
            return
        self.ended = reason
        readers, self._readers = self._readers, None
        if readers is not None:
            readers.errback(reason)
        closers, self._closers = self._closers, None
        if closers is not None:
            closers.callback(reason)


class Acceptor:
    """Where the virtual connections that the other side dials are taken: an endpoint, a pool.

    Args:
        limit: Connections that may wait to be accepted; further ones are closed.
    """

    def __init__(self, limit: int) -> None:
        self._accept_limit = limit
        self._accepted: deque[VirtualConnection] = deque()
        self._acceptors = Waiters()
        self._listener: Listener | None = None
        self._no_more: EndpointEnded | None = None

    def accept(self) -> Deferred[VirtualConnection]:
        """The next virtual connection that the other side dialled.

        A pool's come over whichever gateway; `conn.endpoint.name` tells which. Fails with
        EndpointEnded when this is over.
        """
        if self._accepted:
            return succeed(self._accepted.popleft())
        if self._no_more is not None:
            return fail(self._no_more)
        return cast("Deferred[VirtualConnection]", self._acceptors.wait())

    def __aiter__(self) -> AsyncIterator[VirtualConnection]:
        return self

    async def __anext__(self) -> VirtualConnection:
        try:
            return await self.accept()
        except EndpointEnded:
            raise StopAsyncIteration from None

    def listen(self, listener: Listener | None) -> None:
        """Hand each connection that the other side dials to `listener`, not to `accept`.

        What it raises is logged, and closes that connection only.
        """
        self._listener = listener
        while self._listener is not None and self._accepted:
            hand_over(self._listener, self._accepted.popleft())

    def _to_accept(self, conn: VirtualConnection) -> None:
        if self._listener is not None:
            hand_over(self._listener, conn)
            return
        acceptor = self._acceptors.first()
        if acceptor is not None:
            acceptor.callback(conn)
        elif len(self._accepted) >= self._accept_limit:
            conn.endpoint._close(conn, ConnectionEnded("too many wait to be accepted"))
        else:
            self._accepted.append(conn)

    def _end_accepting(self, reason: EndpointEnded) -> None:
        self._no_more = reason
        self._accepted.clear()
        self._acceptors.errback(reason)


@implementer(IPushProducer, IResumableProtocol)
class Endpoint(Protocol, Acceptor):
    """One connection to a gateway, as a client or as a server.

    Made by `connect_client` and `connect_server`, or by an `EndpointFactory`.

    Attributes:
        config: How it behaves.
        ended: Why it ended; None while it lives.
        round_trip: Seconds that the last answered ping took; None before.
        ready: It is logged in; a client is at once.
        name: What its owner calls the gateway.
        clock: What its timers run on.
        streams: Transports that want to know when this one's fills and drains.
        full: The transport's buffer is full: what is sent now has to wait.
    """

    def __init__(self, core: EndpointCore, config: EndpointConfig, clock: IReactorTime) -> None:
        Acceptor.__init__(self, config.accept_queue)
        self.config = config
        self.ended: FastwayError | None = None
        self.round_trip: float | None = None
        self._core = core
        self.clock = clock
        self._conns: dict[int, VirtualConnection] = {}
        self._dials: dict[Dial, Deferred[VirtualConnection]] = {}
        self._closers = Waiters()
        self._senders = Waiters()
        self._pongs = Waiters()
        self.streams: set[EndpointStream] = set()
        self.full = False
        self._unsent = 0
        self._overfull: set[VirtualConnection] = set()
        self._resumed = -math.inf
        self._ping_call: Any = None
        self._pings_sent: deque[float] = deque()
        self._unready = Waiters()
        self._leavers = Waiters()
        self._gone = False
        self._linger: Any = None
        self._cut = False
        """Over snet: there is no connection now, and no ping is late."""
        self._resume_tried = False
        """Over snet: a resume was forced since the last answered ping."""
        self.name = ""
        self.ready = False

    # What the application calls.

    def dial(self, remote_id: int, timeout: float | None = None) -> Deferred[VirtualConnection]:
        """Ask for a virtual connection to a server's id, or a client's. Several at once are fine.

        Args:
            timeout: Seconds to wait for the answer; None: as long as the endpoint lives.

        Returns:
            Fires with the connection; fails with DialRefused, DialTimeout, or why the endpoint
            ended. Cancelling it gives up; if the gateway accepts later, that is closed at once.

        Raises:
            ValueError: that is no id.
            LocalError: the endpoint is not connected, or not logged in, yet.
        """
        if self.ended is not None:
            return fail(self.ended)
        self._check_speaking()
        dial, data = self._core.dial(remote_id)
        timer: Any = None

        def give_up(_: Deferred[VirtualConnection]) -> None:
            dial.abandoned = True
            self._dials.pop(dial, None)

        answer: Deferred[VirtualConnection] = Deferred(give_up)
        self._dials[dial] = answer
        if timeout is not None:

            def too_late() -> None:
                dial.abandoned = True
                if self._dials.pop(dial, None) is not None:
                    answer.errback(DialTimeout(remote_id, timeout))

            timer = self.clock.callLater(timeout, too_late)

            def answered(result: Any) -> Any:
                if timer.active():
                    timer.cancel()
                return result

            answer.addBoth(answered)
        self._write(data)
        return answer

    def connection(self, conn_id: int) -> VirtualConnection | None:
        """The open virtual connection with that number, or None."""
        return self._conns.get(conn_id)

    @property
    def connections(self) -> list[VirtualConnection]:
        """All open virtual connections."""
        return list(self._conns.values())

    @property
    def server_id(self) -> int | None:
        """Its id as a server; None for a client."""
        return self._core.server_id

    @property
    def max_message(self) -> int:
        """Bytes of the largest message."""
        return self._core.max_message

    @property
    def gateway(self) -> Any:
        """The gateway's address."""
        return cast(Any, self.transport).getPeer()

    def close(self) -> None:
        """End it: what was sent is still written. A second time does nothing."""
        if self.ended is None:
            if IResumableTransport.providedBy(self.transport):
                # To the gateway it is a cut; nobody should wait for the end of that.
                for conn_id in list(self._conns):
                    self._write(self._core.close(conn_id))
            self._end(EndpointEnded("closed here"))

    def when_closed(self) -> Deferred[FastwayError]:
        """Fires once with the reason when the endpoint ends."""
        if self.ended is not None:
            return succeed(self.ended)
        return cast("Deferred[FastwayError]", self._closers.wait())

    def when_gone(self) -> Deferred[None]:
        """Fires once its transport is gone: after `when_closed`, when all has been written."""
        return succeed(None) if self._gone else cast("Deferred[None]", self._leavers.wait())

    def ping(self) -> Deferred[float]:
        """Fires with the seconds that the next answered ping took; sends one if none is out.

        Raises:
            LocalError: the endpoint is not connected, or not logged in, yet.
        """
        if self.ended is not None:
            return fail(self.ended)
        self._check_speaking()
        if not self._core.pinging:
            self._ping()
        return cast("Deferred[float]", self._pongs.wait())

    def when_ready(self) -> Deferred[Endpoint]:
        """Fires with this endpoint once it is logged in; cancelling it ends the endpoint."""
        if self.ready:
            return succeed(self)
        if self.ended is not None:
            return fail(self.ended)
        return cast("Deferred[Endpoint]", self._unready.wait(self.close))

    # What Twisted calls.

    def connectionMade(self) -> None:
        transport = cast(Any, self.transport)
        if self.ended is not None:  # closed while it was connecting
            transport.abortConnection()
            return
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        if self._core.is_server:
            self._ping_call = self.clock.callLater(ANSWER_TIMEOUT, self._ping_late)
        else:
            self._begin()
            self._now_ready()

    def dataReceived(self, data: bytes) -> None:
        if self.ended is not None:
            return
        core = self._core
        for event in core.receive_data(data):
            if isinstance(event, Message):
                conn = self._conns.get(event.conn_id)
                if conn is not None:
                    conn._deliver(event.data)
            elif isinstance(event, Opened):
                self._opened(event)
            elif isinstance(event, Closed):
                conn = self._conns.pop(event.conn_id, None)
                if conn is not None:
                    self._forget(conn, ConnectionEnded("closed by the far end"))
            elif isinstance(event, Refused):
                answer = self._dials.pop(event.dial, None)
                if answer is not None:
                    answer.errback(DialRefused(event.dial.remote_id))
            elif isinstance(event, Pong):
                self._ponged()
            elif isinstance(event, LoggedIn):
                # The gateway says nothing when it agrees; a ping makes it speak.
                self._write(core.data_to_send())
                self._ping()
            if self.ended is not None:  # a callback closed the endpoint
                return
        self._write(core.data_to_send())
        if core.error is not None:
            self._end(EndpointEnded(f"the gateway broke the protocol: {core.error}", core.error))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        if reason.check(ConnectionDone):
            self._core.receive_eof()  # else it broke, wherever it was
        error = self._core.error
        if error is not None:
            self._end(EndpointEnded(f"the gateway broke the protocol: {error}", error))
        elif not self.ready and reason.check(ConnectionClosed, StreamLost):
            self._end(LoginFailed("the gateway did not take the login: is the key right?"))
        elif reason.check(ConnectionDone):
            self._end(EndpointEnded("closed by the gateway"))
        elif isinstance(reason.value, StreamLost):
            self._network(NetworkLost(reason.value))
            self._end(
                EndpointEnded(f"the connection to the gateway broke: {reason.value}", reason.value)
            )
        else:
            cause = cast(Exception, reason.value)
            why = cause_of(cause, self.transport)
            self._end(EndpointEnded(f"the connection to the gateway broke: {why}", cause))
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._leavers.callback(None)

    # A resumable transport, as IResumableProtocol.

    def stream_cut(self) -> None:
        self._cut = True
        self._stop_ping_call()
        self._network(NetworkCut())

    def stream_resumed(self, seconds: float, replayed: int) -> None:
        self._cut = False
        if self.ended is not None:
            return
        if self._core.pinging or not self.ready:
            self._ping_call = self.clock.callLater(self._answer_timeout, self._ping_late)
        else:
            self._begin()
        self._network(NetworkResumed(seconds, replayed))

    def _network(self, event: NetworkEvent) -> None:
        callback = self.config.network_callback
        if callback is not None and self.ended is None:
            try:
                callback(self, event)
            except Exception:
                log.failure("{callback} failed", callback=callback)

    # The transport's buffer, as IPushProducer.

    def pauseProducing(self) -> None:
        self.full = True
        for stream in list(self.streams):
            stream.endpoint_full()

    def resumeProducing(self) -> None:
        self.full = False
        self._unsent = 0
        self._senders.callback(None)
        for stream in list(self.streams):
            stream.endpoint_drained()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost follows."""

    # Inside.

    def _check_speaking(self) -> None:
        # What is written before the login's answer would be taken for it.
        if self.transport is None or not self._core.logged_in:
            raise LocalError("the endpoint is not logged in yet: wait for when_ready")

    def _write(self, data: bytes) -> None:
        if data and self.ended is None and self.transport is not None:
            self.transport.write(data)

    def _begin(self) -> None:
        if self.config.ping_interval:
            self._ping_call = self.clock.callLater(self.config.ping_interval, self._ping)

    def _now_ready(self) -> None:
        if not self.ready:
            self.ready = True
            self._unready.callback(self)

    def _stop_ping_call(self) -> None:
        if self._ping_call is not None and self._ping_call.active():
            self._ping_call.cancel()
        self._ping_call = None

    def _ping(self) -> None:
        self._stop_ping_call()
        self._pings_sent.append(self.clock.seconds())
        self._write(self._core.ping())
        if not self._cut:
            self._ping_call = self.clock.callLater(self._answer_timeout, self._ping_late)

    @property
    def _answer_timeout(self) -> float:
        return self.config.ping_timeout if self.config.ping_interval else ANSWER_TIMEOUT

    def _ping_late(self) -> None:
        self._ping_call = None
        if self._overfull or self.clock.seconds() - self._resumed < self._answer_timeout:
            # It is this end that does not read, or did not: the answer may be behind the rest.
            self._begin()
            return
        if not self.ready:
            self._end(LoginFailed("the gateway did not answer the login in time"))
            return
        if IResumableTransport.providedBy(self.transport) and not self._resume_tried:
            self._resume_tried = True
            cast(Any, self.transport).resume_now()
            return
        if self._asked_to_go_on():
            if self.ended is None:
                self._begin()
            return
        self._end(PingTimeout(self._answer_timeout))

    def _asked_to_go_on(self) -> bool:
        callback = self.config.timeout_callback
        try:
            return callback is not None and callback(self)
        except Exception:
            log.failure("{callback} failed", callback=callback)
            return False

    def _ponged(self) -> None:
        self.round_trip = self.clock.seconds() - self._pings_sent.popleft()
        self._resume_tried = False
        self._stop_ping_call()
        self._begin()
        self._now_ready()
        self._pongs.callback(self.round_trip)

    def _opened(self, event: Opened) -> None:
        conn = VirtualConnection(self, event.conn_id, event.remote_id)
        self._conns[event.conn_id] = conn
        if event.dial is not None:
            answer = self._dials.pop(event.dial, None)
            if answer is not None:
                answer.callback(conn)
            else:  # given up by a callback of what came in the same read
                self._close(conn, ConnectionEnded("its dial was given up"))
            return
        self._to_accept(conn)

    def write_message(self, conn: VirtualConnection, data: bytes) -> None:
        """Send bytes as one message, whatever the format, and however much waits already.

        Nothing is sent if it is closed: a transport does not tell its writers.
        """
        with suppress(ConnectionEnded):
            self._write(self._packet(conn, data))

    def _packet(self, conn: VirtualConnection, data: bytes) -> bytes:
        try:
            return self._core.send(conn.conn_id, data)
        except NotOpen:
            # Its Close came in the read that is being handled, and is about to be told.
            raise ConnectionEnded("closed by the far end") from None

    def _send(self, conn: VirtualConnection, data: bytes) -> Deferred[None]:
        packet = self._packet(conn, data)
        if self.full:
            if self._unsent + len(packet) > self.config.send_buffer:
                raise SendQueueFull(self._unsent, self.config.send_buffer)
            self._unsent += len(packet)
        self._write(packet)
        return cast("Deferred[None]", self._senders.wait()) if self.full else succeed(None)

    def _close(self, conn: VirtualConnection, reason: FastwayError) -> None:
        if self._conns.pop(conn.conn_id, None) is not None:
            self._write(self._core.close(conn.conn_id))
            self._forget(conn, reason)

    def _forget(self, conn: VirtualConnection, reason: FastwayError) -> None:
        conn._end(reason)
        self._read(conn)

    def unread(
        self, conn: VirtualConnection, messages: int, overflow: Overflow | None = None
    ) -> None:
        """`messages` of a connection wait to be read: more than before, or fewer."""
        limit = self.config.receive_queue
        if messages > limit and conn.ended is None:
            if (overflow or self.config.overflow) is Overflow.CLOSE:
                self._close(conn, ReceiveQueueFull(limit))
            elif conn not in self._overfull:
                self._overfull.add(conn)
                if len(self._overfull) == 1:
                    cast(Any, self.transport).pauseProducing()
        elif 2 * messages <= limit:
            self._read(conn)

    def _read(self, conn: VirtualConnection) -> None:
        """A connection does not keep the endpoint from reading any more."""
        if conn in self._overfull:
            self._overfull.discard(conn)
            if not self._overfull and self.ended is None:
                cast(Any, self.transport).resumeProducing()
                self._resumed = self.clock.seconds()

    def _end(self, reason: EndpointEnded) -> None:
        if self.ended is not None:
            return
        self.ended = reason
        self._stop_ping_call()
        transport = cast(Any, self.transport)
        if transport is not None:
            transport.unregisterProducer()
            if isinstance(reason, PingTimeout) or reason.cause is not None:
                transport.abortConnection()
            else:
                if self._overfull:
                    transport.resumeProducing()  # TLS reads the peer's end before it closes
                transport.loseConnection()
                if not self._gone:
                    self._linger = self.clock.callLater(LINGER, transport.abortConnection)
        conns, self._conns = list(self._conns.values()), {}
        dials, self._dials = list(self._dials.values()), {}
        for conn in conns:
            conn._end(ConnectionEnded(f"its endpoint ended: {reason}", reason))
        for answer in dials:
            answer.errback(reason)
        self._end_accepting(reason)
        self._pongs.errback(reason)
        self._senders.errback(reason)
        self._unready.errback(reason)
        self._closers.callback(reason)


def hand_over(listener: Listener, conn: VirtualConnection) -> None:
    """Call a listener; its fault is not the endpoint's."""
    try:
        listener(conn)
    except Exception:
        log.failure("{listener} failed with {conn}", listener=listener, conn=conn)
        conn.close()


def the_reactor() -> IReactorTime:
    """The global reactor, imported when it is first needed: importing installs it."""
    from twisted.internet import reactor

    return cast(IReactorTime, reactor)


class EndpointFactory(Factory):
    """Makes an Endpoint of each connection to a gateway.

    Args:
        config: How they behave.
        server_id: A server's id; None: they are clients.
        key: The server key.
        clock: The reactor; a test's Clock.
        made: Called with each endpoint, before anything happens on it.
    """

    noisy = False

    def __init__(
        self,
        config: EndpointConfig | None = None,
        server_id: int | None = None,
        key: bytes = b"",
        clock: IReactorTime | None = None,
        made: Callable[[Endpoint], None] | None = None,
    ) -> None:
        self.config = EndpointConfig() if config is None else config
        self.server_id = server_id
        self.key = key
        self.clock = the_reactor() if clock is None else clock
        self.made = made

    def buildProtocol(self, addr: object) -> Endpoint:
        core = EndpointCore(self.config.max_packet, self.server_id, self.key)
        endpoint = Endpoint(core, self.config, self.clock)
        if self.made is not None:
            self.made(endpoint)
        return endpoint


def connect_client(
    gateway: IStreamClientEndpoint,
    config: EndpointConfig | None = None,
    clock: IReactorTime | None = None,
    made: Callable[[Endpoint], None] | None = None,
) -> Deferred[Endpoint]:
    """Connect to a gateway's client port.

    Args:
        gateway: Any Twisted client endpoint: TCP, TLS, a unix socket.
        made: Called with the endpoint before anything happens on it.

    Returns:
        Fires with the Endpoint; fails as the Twisted endpoint does. Cancelling gives up.
    """
    return _connect(gateway, EndpointFactory(config, clock=clock, made=made))


def connect_server(
    gateway: IStreamClientEndpoint,
    server_id: int,
    key: bytes = b"",
    config: EndpointConfig | None = None,
    clock: IReactorTime | None = None,
    made: Callable[[Endpoint], None] | None = None,
) -> Deferred[Endpoint]:
    """Connect to a gateway's server port and log in.

    Args:
        made: Called with the endpoint before anything happens on it.

    Returns:
        Fires with the Endpoint once the gateway has taken the login; fails with LoginFailed when
        it did not, and as the Twisted endpoint does. Cancelling gives up.
    """
    return _connect(gateway, EndpointFactory(config, server_id, key, clock, made))


def _connect(gateway: IStreamClientEndpoint, factory: EndpointFactory) -> Deferred[Endpoint]:
    connecting = cast("Deferred[Endpoint]", gateway.connect(factory))

    def connected(endpoint: Endpoint) -> Deferred[Endpoint]:
        return endpoint.when_ready()

    return connecting.addCallback(connected)

"""A virtual connection as a Twisted transport, so that any Twisted protocol runs over a gateway.

Rule: a stream over a virtual connection is an honest ITransport. Its bytes travel as messages
whose borders mean nothing. What a stream holds is bounded, and a stream that makes its endpoint
wait does so for a bounded time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from attrs import frozen
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProducer,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.endpoint.connection import EndpointStream, Overflow, VirtualConnection
from fastway.errors import ConnectionEnded, FastwayError, ReaderStuck
from fastway.logs import make_logger
from fastway.producer import Membrane

log = make_logger(__name__)

PIECE = 64 * 1024
"""Bytes of a stream that travel as one message at most."""


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """How streams over virtual connections behave.

    Attributes:
        most_unread: Bytes that may wait for a protocol that has paused its stream. Past that the
            whole endpoint is not read from, so what waits is at most this and one read of the
            gateway's connection.
        stuck_timeout: Seconds that a stream may make its endpoint wait. Then that stream is
            closed with ReaderStuck. Less than the gateway's write timeout (30 s by default),
            which would cost the whole endpoint.

    Raises:
        ValueError: one of them is not over 0.
    """

    most_unread: int = 256 * 1024
    stuck_timeout: float = 10.0

    def __post_init__(self) -> None:
        if not (self.most_unread > 0 and self.stuck_timeout > 0):
            raise ValueError("most_unread and stuck_timeout must be over 0")


@implementer(IAddress)
@frozen
class FastwayAddress:
    """One end of a virtual connection.

    Attributes:
        gateway: The gateway's own address.
        link_id: The id of that end: of a server or a client; None for one's own id as a client,
            which a gateway does not tell.
        conn_id: The virtual connection; 0 for a listening port.
    """

    gateway: Any
    link_id: int | None
    conn_id: int


class Channel:
    """The few verbs by which a stream reaches its virtual connection, and what that runs over."""

    __slots__ = ("_conn", "_endpoint")

    def __init__(self, conn: VirtualConnection) -> None:
        self._conn = conn
        self._endpoint = conn.endpoint

    @property
    def clock(self) -> IReactorTime:
        return self._endpoint.clock

    @property
    def full(self) -> bool:
        """What is written now has to wait."""
        return self._endpoint.full

    def peer(self) -> FastwayAddress:
        return FastwayAddress(self._endpoint.gateway, self._conn.remote_id, self._conn.conn_id)

    def host(self) -> FastwayAddress:
        return FastwayAddress(self._endpoint.gateway, self._endpoint.server_id, self._conn.conn_id)

    def take_over(self, received: Callable[[bytes], None]) -> bytes:
        """Have what comes from now on handed to `received`, whatever the message format.

        Returns:
            What came before.
        """
        conn = self._conn
        early, conn._queue = conn._queue, None
        conn._message_received = received
        return b"".join(map(self._endpoint.config.message_format.encode, early or ()))

    def when_closed(self, closed: Callable[[FastwayError], None]) -> None:
        """Call `closed` with the reason when it is closed; now, if it is."""
        self._conn.when_closed().addCallback(closed)

    def write(self, data: bytes) -> None:
        """Send bytes, however much waits; nothing, if it is closed."""
        if self._conn.ended is None:
            piece = min(PIECE, self._endpoint.max_message)
            for start in range(0, len(data), piece):
                self._endpoint.write_message(self._conn, data[start : start + piece])

    def close(self, reason: FastwayError | None = None) -> None:
        """Close it; to the far end every close is the same."""
        if reason is None:
            self._conn.close()
        else:
            self._endpoint._close(self._conn, reason)

    def hold(self) -> None:
        """Let the endpoint not be read from, whatever its `overflow` says."""
        past = self._endpoint.config.receive_queue + 1
        self._endpoint.unread(self._conn, past, Overflow.PAUSE)

    def let_go(self) -> None:
        """The endpoint may be read from, if nobody else holds it."""
        self._endpoint.unread(self._conn, 0, Overflow.PAUSE)

    def watch(self, stream: EndpointStream) -> None:
        """Tell the stream when the endpoint's transport is full, and when it has drained."""
        self._endpoint.streams.add(stream)

    def unwatch(self, stream: EndpointStream) -> None:
        self._endpoint.streams.discard(stream)


@implementer(ITransport, IConsumer, IPushProducer)
class VirtualTransport:
    """A byte stream over one virtual connection.

    Writing while the endpoint's own transport is full pauses the registered producer; without a
    producer the bytes wait in memory, as with any Twisted transport. While it is paused
    (pauseProducing) bytes wait here, within the bounds of its StreamConfig: past them the whole
    endpoint is not read from, so its other connections wait too, until this one is read or
    closed.

    The wire has one word for every close, so the far end of a stream that is closed, aborted, or
    whose protocol has raised hears of a ConnectionDone. This end hears of a ConnectionDone only
    if it was an orderly close; what a protocol or a producer raises is a ConnectionLost.

    Args:
        gone: Called once its protocol has heard of its loss.
    """

    disconnecting = False

    def __init__(
        self,
        conn: VirtualConnection,
        config: StreamConfig | None = None,
        gone: Callable[[], object] | None = None,
    ) -> None:
        self.conn = conn
        self._channel = Channel(conn)
        self._config = StreamConfig() if config is None else config
        self._gone = gone
        self._protocol: IProtocol | None = None
        self._membrane = Membrane(self, self._channel.clock)
        self._paused = False
        self._unread = bytearray()
        self._stuck_call: Any = None
        """What ends it if it makes the endpoint wait for too long; None: it does not."""
        self._handing_over = False
        self._lost: Exception | None = None
        """Why it is over, whether its protocol has heard of it or not."""

    def attach(self, protocol: IProtocol) -> None:
        """Let the protocol run over this transport from now on."""
        self._protocol = protocol
        self._unread += self._channel.take_over(self._received)
        self._count_unread()
        self._channel.when_closed(self._closed)
        protocol.makeConnection(self)
        self._hand_over_soon()

    # ITransport

    def write(self, data: bytes) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        self._channel.write(bytes(data))
        if self._channel.full:
            self._membrane.full()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close it after what was written, and when the producer is done."""
        self.disconnecting = True
        # As with Twisted's own transports nothing is delivered any more.
        self._drop_unread()
        if not self._membrane.producing:
            self._channel.close()

    def abortConnection(self) -> None:
        """Close it now. What was written goes out all the same: it cannot be called back."""
        self.disconnecting = True
        self._finish(ConnectionAborted())
        self._drop_unread()
        self._channel.close()

    def getPeer(self) -> FastwayAddress:
        return self._channel.peer()

    def getHost(self) -> FastwayAddress:
        return self._channel.host()

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._membrane.register(producer, streaming)
        if self._membrane.producing:
            self._channel.watch(self)

    def unregisterProducer(self) -> None:
        self._membrane.unregister()

    # What its membrane calls.

    def has_room(self) -> bool:
        """Whether what is written now need not wait."""
        return not self._channel.full

    def producer_done(self) -> None:
        """Its producer has written all it has."""
        self._channel.unwatch(self)
        if self.disconnecting:
            self._channel.close()

    def failed(self, culprit: object) -> None:
        """What runs over it has raised: that ends it, as with Twisted's own transports."""
        failure = Failure()
        log.failure("unhandled error in {culprit}", failure=failure, culprit=culprit)
        error = cast(Exception, failure.value)
        self._break(ConnectionEnded(f"unhandled error in {culprit}", error))

    # What the endpoint calls while there is a producer.

    def endpoint_full(self) -> None:
        """The endpoint's transport is full."""
        self._membrane.full()

    def endpoint_drained(self) -> None:
        """The endpoint's transport is empty."""
        self._membrane.drained()

    # IPushProducer

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._hand_over_soon()

    def stopProducing(self) -> None:
        self.loseConnection()

    # Reading.

    def _received(self, data: bytes) -> None:
        if self.disconnecting:
            return
        if self._paused or self._unread:
            self._unread += data
            self._count_unread()
        else:
            self._hand_over(data)

    def _hand_over_soon(self) -> None:
        # Never within the call that resumed: that may be the protocol's, amid its last data.
        if self._unread and not self._paused and not self._handing_over:
            self._handing_over = True
            self._channel.clock.callLater(0, self._hand_over_unread)

    def _hand_over_unread(self) -> None:
        self._handing_over = False
        if self._unread and not self._paused:
            data, self._unread = bytes(self._unread), bytearray()
            self._hand_over(data)
            self._count_unread()
        if self._lost is not None and not self._unread:
            self._tell_lost()

    def _hand_over(self, data: bytes) -> None:
        if self._protocol is not None and data:
            try:
                self._protocol.dataReceived(data)
            except Exception:
                self.failed(self._protocol)

    def _count_unread(self) -> None:
        # A stream loses nothing: whatever the configuration says, the endpoint waits.
        if not self._unread:
            self._channel.let_go()
            if self._stuck_call is not None:
                self._stuck_call.cancel()
                self._stuck_call = None
        elif (
            len(self._unread) > self._config.most_unread
            and self._stuck_call is None
            and self._lost is None
        ):
            self._channel.hold()
            timeout = self._config.stuck_timeout
            self._stuck_call = self._channel.clock.callLater(timeout, self._stuck, timeout)

    def _drop_unread(self) -> None:
        self._unread.clear()
        self._count_unread()
        if self._lost is not None:
            self._tell_lost_soon()

    def _stuck(self, timeout: float) -> None:
        self._stuck_call = None
        reason = ReaderStuck(len(self._unread), timeout)
        log.warn("{conn} closed: {problem}", conn=self.conn, problem=str(reason))
        self._break(reason)

    # The end.

    def _break(self, reason: ConnectionEnded) -> None:
        """It cannot go on, and nothing more is delivered."""
        self.disconnecting = True
        if self._lost is not None:  # what came before the loss is what was at fault
            self._lost = ConnectionLost(str(reason))
        self._channel.close(reason)
        self._drop_unread()

    def _closed(self, reason: FastwayError) -> None:
        cause = getattr(reason, "cause", None)
        self._finish(ConnectionDone() if cause is None else ConnectionLost(str(reason)))

    def _finish(self, error: Exception) -> None:
        if self._lost is not None:
            return
        self._lost = error
        self._channel.unwatch(self)
        self._membrane.stop()
        if self._stuck_call is not None:  # the endpoint waits for it no longer
            self._stuck_call.cancel()
            self._stuck_call = None
        if not self._unread:
            self._tell_lost_soon()

    def _tell_lost_soon(self) -> None:
        # Never within the call that closed it, as with Twisted's own transports.
        self._channel.clock.callLater(0, self._tell_lost)

    def _tell_lost(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is None or self._lost is None:
            return
        try:
            protocol.connectionLost(Failure(self._lost))
        except Exception:
            log.failure("unhandled error in {culprit}", culprit=protocol)
        if self._gone is not None:
            self._gone()

"""A virtual connection as a Twisted transport, so that any Twisted protocol runs over a gateway.

Rule: a stream over a virtual connection is an honest ITransport. Its bytes travel as messages
whose borders mean nothing. What a stream holds is bounded, and a stream that makes its endpoint
wait does so for a bounded time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from attrs import frozen
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProducer,
    IProtocol,
    IPushProducer,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.address import address_name
from fastway.endpoint.connection import VirtualConnection
from fastway.errors import ConnectionEnded, ReceiveQueueFull
from fastway.logs import make_logger
from fastway.producer import Membrane

log = make_logger(__name__)

PIECE = 64 * 1024
"""Bytes of a stream that travel as one message at most."""


@implementer(IAddress)
@frozen
class FastwayAddress:
    """One end of a virtual connection.

    Attributes:
        gateway: The gateway's own address.
        link_id: The id of that end: of a server or a client; None for one's own id as a client,
            which a gateway does not tell.
        conn_id: The virtual connection; 0 for a listening port.
        host: The player's own address, where the gateway tells it (`control`).
        port: Of that address.
    """

    gateway: Any
    link_id: int | None
    conn_id: int
    host: str = ""
    port: int = 0

    @property
    def text(self) -> str | None:
        """What logs call it where there is no address of its own."""
        if self.host:
            return None
        who = "a client" if self.link_id is None else f"id {self.link_id}"
        return who if self.gateway is None else f"{who} at {address_name(self.gateway)}"


@implementer(ITransport, IConsumer, IPushProducer)
class VirtualTransport:
    """A byte stream over one virtual connection.

    Writing while the endpoint's own transport is full pauses the registered producer; without a
    producer the bytes wait in memory, as with any Twisted transport. While it is paused
    (pauseProducing) bytes wait, within `EndpointConfig.stream_buffer`: past it the gateway is not
    read from, so its other connections wait too, until this one is read, or is closed after
    `pause_timeout`.

    The wire has one word for every close, so the far end of a stream that is closed, aborted, or
    whose protocol has raised hears of a ConnectionDone. This end hears of a ConnectionDone only
    if it was an orderly close; what a protocol or a producer raises is a ConnectionLost.

    Args:
        gone: Called once its protocol has heard of its loss.
    """

    disconnecting = False

    def __init__(
        self,
        conn: VirtualConnection[Any],
        gone: Callable[[], object] | None = None,
    ) -> None:
        self.conn = conn
        self._gone = gone
        self._protocol: IProtocol | None = None
        self._membrane = Membrane(self, conn.gateway.clock)
        self._paused = False
        self._handing_over = False
        self._lost: Exception | None = None
        """Why it is over, whether its protocol has heard of it or not."""

    def attach(self, protocol: IProtocol) -> None:
        """Let the protocol run over this transport from now on."""
        self._protocol = protocol
        self.conn.take_over(self)
        self.conn.on_end(self._closed)
        protocol.makeConnection(self)
        self._hand_over_soon()

    # ITransport

    def write(self, data: bytes) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        data = bytes(data)
        link = self.conn.link
        piece = min(PIECE, link.max_message)
        for start in range(0, len(data), piece):
            link.write_message(self.conn, data[start : start + piece])
        if link.full:
            self._membrane.full()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close it after what was written, and when the producer is done."""
        self.disconnecting = True
        # As with Twisted's own transports nothing is delivered any more.
        self._drop_unread()
        if not self._membrane.producing:
            self.conn.close()

    def abortConnection(self) -> None:
        """Close it now. What was written goes out all the same: it cannot be called back."""
        self.disconnecting = True
        self._finish(ConnectionAborted())
        self._drop_unread()
        self.conn.close()

    def getPeer(self) -> FastwayAddress:
        conn = self.conn
        facts = conn.facts
        host, port = ("", 0) if facts is None else (facts.addr, facts.port)
        return FastwayAddress(conn.gateway.address, conn.remote_id, conn.conn_id, host, port)

    def getHost(self) -> FastwayAddress:
        gateway = self.conn.gateway
        return FastwayAddress(gateway.address, gateway.server_id, self.conn.conn_id)

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._membrane.register(producer, streaming)
        if self._membrane.producing:
            self.conn.link.streams.add(self)

    def unregisterProducer(self) -> None:
        self._membrane.unregister()

    # What its membrane calls.

    def has_room(self) -> bool:
        """Whether what is written now need not wait."""
        return not self.conn.link.full

    def producer_done(self) -> None:
        """Its producer has written all it has."""
        self.conn.link.streams.discard(self)
        if self.disconnecting:
            self.conn.close()

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

    # What the virtual connection calls.

    def received(self, data: bytes) -> bool:
        if self.disconnecting:
            return True
        if self._paused or self.conn.unread:
            return False
        self._hand_over(data)
        return True

    def dropped(self) -> None:
        self.disconnecting = True
        self._lost = ConnectionLost(str(self.conn.ended))
        self._tell_lost_soon()

    # Reading.

    def _hand_over_soon(self) -> None:
        # Never within the call that resumed: that may be the protocol's, amid its last data.
        if self.conn.unread and not self._paused and not self._handing_over:
            self._handing_over = True
            self.conn.gateway.clock.callLater(0, self._hand_over_unread)

    def _hand_over_unread(self) -> None:
        self._handing_over = False
        if self.conn.unread and not self._paused:
            self._hand_over(self.conn.take_all_raw())
        if self._lost is not None and not self.conn.unread:
            self._tell_lost()

    def _hand_over(self, data: bytes) -> None:
        if self._protocol is not None and data:
            try:
                self._protocol.dataReceived(data)
            except Exception:
                self.failed(self._protocol)

    def _drop_unread(self) -> None:
        self.conn.drop_unread()
        if self._lost is not None:
            self._tell_lost_soon()

    # The end.

    def _break(self, reason: ConnectionEnded) -> None:
        """It cannot go on, and nothing more is delivered."""
        self.disconnecting = True
        if self._lost is not None:  # what came before the loss is what was at fault
            self._lost = ConnectionLost(str(reason))
        self.conn.link.close(self.conn, reason)
        self._drop_unread()

    def _closed(self, conn: VirtualConnection[Any]) -> None:
        reason = conn.ended
        if isinstance(reason, ReceiveQueueFull):  # its reader took nothing for too long
            log.warn("{conn} closed: {problem}", conn=conn, problem=str(reason))
            self.disconnecting = True
            conn.drop_unread()
        cause = getattr(reason, "cause", None)
        self._finish(ConnectionDone() if cause is None else ConnectionLost(str(reason)))

    def _finish(self, error: Exception) -> None:
        if self._lost is not None:
            return
        self._lost = error
        self.conn.link.streams.discard(self)
        self._membrane.stop()
        if not self.conn.unread:
            self._tell_lost_soon()

    def _tell_lost_soon(self) -> None:
        # Never within the call that closed it, as with Twisted's own transports.
        self.conn.gateway.clock.callLater(0, self._tell_lost)

    def _tell_lost(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is None or self._lost is None:
            return
        self.conn.let_go()
        try:
            protocol.connectionLost(Failure(self._lost))
        except Exception:
            log.failure("unhandled error in {culprit}", culprit=protocol)
        if self._gone is not None:
            self._gone()

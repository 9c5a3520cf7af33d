"""Virtual connections as Twisted transports, so that any Twisted protocol runs over a gateway.

Rule: a stream over a virtual connection is an honest ITransport. Its bytes travel as messages
whose borders mean nothing.

    endpoint = DialEndpoint(client_endpoint, remote_id=1)     # IStreamClientEndpoint
    endpoint = AcceptEndpoint(server_endpoint)                # IStreamServerEndpoint

As strings (twisted/plugins/fastway_endpoints.py):

    clientFromString(reactor, r"fastway:tcp\\:127.0.0.1\\:9010:server=1")
    serverFromString(reactor, r"fastway:tcp\\:127.0.0.1\\:9020:id=1:key=secret")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast
from typing import Protocol as TypingProtocol

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IListeningPort,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.endpoint.config import EndpointConfig
from fastway.endpoint.connect import connect_client
from fastway.endpoint.connection import GatewayConnection, VirtualConnection
from fastway.endpoint.pool import GatewayPool
from fastway.errors import DialFailed
from fastway.logs import make_logger

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
    """

    gateway: Any
    link_id: int | None
    conn_id: int


@implementer(ITransport, IConsumer, IPushProducer)
class VirtualTransport:
    """A byte stream over one virtual connection.

    Writing while the endpoint's own transport is full pauses the registered producer; without a
    producer the bytes wait in memory, as with any Twisted transport. While it is paused
    (pauseProducing) up to `EndpointConfig.receive_queue` messages wait; past that the whole
    endpoint is not read from until half of them are taken, so its other connections wait too.
    """

    disconnecting = False

    def __init__(self, conn: VirtualConnection[Any]) -> None:
        self.conn = conn
        self._protocol: IProtocol | None = None
        self._producer: Any = None
        self._streaming = False
        self._producer_paused = False
        self._paused = False
        self._handing_over = False
        self._pulling = False
        self._lost = False

    def attach(self, protocol: IProtocol) -> None:
        """Let the protocol run over this transport from now on."""
        self._protocol = protocol
        # What came before there was a protocol, while the connection waited to be accepted, is
        # handed over too.
        self.conn.take_over(self._received)
        self.conn.on_end(self._closed)
        protocol.makeConnection(self)
        self._hand_over_soon()

    # ITransport

    def write(self, data: bytes) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        if self.conn.ended is not None:
            return
        link = self.conn.link
        piece = min(PIECE, link.max_message)
        for start in range(0, len(data), piece):
            link.write_message(self.conn, bytes(data[start : start + piece]))
        if link.full:
            self.endpoint_full()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close it after what was written, and when the producer is done."""
        self.disconnecting = True
        # As with Twisted's own transports nothing is delivered any more.
        self.conn.drop_unread()
        if self._producer is None:
            self.conn.close()
        if self._lost:
            self._tell_lost_soon()

    def abortConnection(self) -> None:
        """Close it now."""
        self.disconnecting = True
        self._finish(ConnectionAborted())
        self.conn.close()

    def getPeer(self) -> FastwayAddress:
        return FastwayAddress(self.conn.gateway.address, self.conn.remote_id, self.conn.conn_id)

    def getHost(self) -> FastwayAddress:
        return FastwayAddress(
            self.conn.gateway.address, self.conn.gateway.server_id, self.conn.conn_id
        )

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError(f"{self._producer!r} is registered already")
        if self._lost:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._producer_paused = False
        self.conn.link.streams.add(self)
        if not streaming:
            self._pull()
        elif self.conn.link.full:
            self.endpoint_full()

    def unregisterProducer(self) -> None:
        self._producer = None
        self.conn.link.streams.discard(self)
        if self.disconnecting:
            self.conn.close()

    def endpoint_full(self) -> None:
        """The endpoint's transport is full."""
        # Once only: a producer may count (twisted.web's do).
        if self._producer is not None and self._streaming and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def endpoint_drained(self) -> None:
        """The endpoint's transport is empty."""
        if not self._streaming:
            self._pull()
        elif self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()

    def _pull(self) -> None:
        """Ask a pull producer for more, a piece a turn, while there is room."""
        if not self._pulling:
            self._pulling = True
            self.conn.link.loop.call_later(0, self._pull_one)

    def _pull_one(self) -> None:
        self._pulling = False
        if self._producer is None or self._streaming or self.conn.link.full:
            return
        self._producer.resumeProducing()
        self._pull()

    # IPushProducer

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._hand_over_soon()

    def stopProducing(self) -> None:
        self.loseConnection()

    # What the virtual connection tells.

    def _hand_over_soon(self) -> None:
        # Never within the call that resumed: that may be the protocol's, amid its last data.
        if self.conn.unread and not self._paused and not self._handing_over:
            self._handing_over = True
            self.conn.link.loop.call_later(0, self._hand_over_unread)

    def _hand_over_unread(self) -> None:
        self._handing_over = False
        if self.conn.unread and not self._paused:
            self._hand_over(self.conn.take_raw())
            self._hand_over_soon()
        if self._lost and not self.conn.unread:
            self._tell_lost()

    def _received(self, data: bytes) -> bool:
        if self.disconnecting:
            return True
        if self._paused or self.conn.unread:
            return False
        self._hand_over(data)
        return True

    def _hand_over(self, data: bytes) -> None:
        if self._protocol is not None and data:
            try:
                self._protocol.dataReceived(data)
            except Exception:
                # As Twisted's own transports do: the protocol's fault ends its connection.
                log.failure("unhandled error in {protocol}", protocol=self._protocol)
                self.abortConnection()

    def _closed(self, conn: VirtualConnection[bytes]) -> None:
        reason = conn.ended
        cause = getattr(reason, "cause", None)
        error: Exception = ConnectionDone() if cause is None else ConnectionLost(str(reason))
        self._finish(error)

    def _finish(self, error: Exception) -> None:
        if self._lost:
            return
        self._lost = True
        self._error = error
        producer, self._producer = self._producer, None
        self.conn.link.streams.discard(self)
        if producer is not None:
            producer.stopProducing()
        if isinstance(error, ConnectionAborted):
            self.conn.drop_unread()
        if not self.conn.unread:
            self._tell_lost_soon()

    def _tell_lost_soon(self) -> None:
        # Never within the call that closed it, as with Twisted's own transports.
        self.conn.link.loop.call_later(0, self._tell_lost)

    def _tell_lost(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(self._error))


def run_protocol(conn: VirtualConnection[Any], factory: IProtocolFactory) -> IProtocol | None:
    """Let a protocol of `factory` run over a virtual connection; None when the factory declines.

    Nothing may have been received from the connection yet. Whatever the factory or the protocol
    raises closes the connection.
    """
    transport = VirtualTransport(conn)
    try:
        protocol = factory.buildProtocol(transport.getPeer())
        if protocol is not None:
            transport.attach(protocol)
    except Exception:
        conn.close()
        raise
    if protocol is None:
        conn.close()
    return protocol


@implementer(IStreamClientEndpoint)
class DialEndpoint:
    """Dials one remote id over an endpoint that is there already.

    Args:
        endpoint: A client's or a server's endpoint.
        remote_id: Whom to dial.
        timeout: Seconds to wait for the answer; None: for ever.
    """

    def __init__(
        self, endpoint: GatewayConnection, remote_id: int, timeout: float | None = None
    ) -> None:
        self._endpoint = endpoint
        self._remote_id = remote_id
        self._timeout = timeout

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol; fails with DialRefused and so on. Can be cancelled."""

        def connected(conn: VirtualConnection[Any]) -> IProtocol:
            protocol = run_protocol(conn, factory)
            if protocol is None:
                raise DialFailed(self._remote_id, "the factory made no protocol")
            return protocol

        return self._endpoint.dial(self._remote_id, self._timeout).addCallback(connected)


@implementer(IStreamClientEndpoint)
class GatewayDialEndpoint:
    """Connects to a gateway as a client, dials one server, and ends both together.

    Args:
        gateway: The gateway's client port.
        remote_id: The server to dial.
    """

    def __init__(
        self,
        gateway: IStreamClientEndpoint,
        remote_id: int,
        config: EndpointConfig | None = None,
        clock: Any = None,
    ) -> None:
        self._gateway = gateway
        self._remote_id = remote_id
        self._config = config
        self._clock = clock

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol; fails as the gateway's endpoint or the dial does."""

        def connected(endpoint: GatewayConnection) -> Deferred[IProtocol]:
            def failed(failure: Failure) -> Failure:
                endpoint.close()
                return failure

            def dialled(conn: VirtualConnection[Any]) -> IProtocol:
                conn.when_closed().addCallback(lambda _: endpoint.close())
                protocol = run_protocol(conn, factory)
                if protocol is None:
                    raise DialFailed(self._remote_id, "the factory made no protocol")
                return protocol

            dialling = endpoint.dial(self._remote_id).addCallback(dialled)
            return dialling.addErrback(failed)

        return connect_client(self._gateway, self._config, self._clock).addCallback(connected)


class Accepting(TypingProtocol):
    """Where virtual connections come from: an Endpoint or a GatewayPool."""

    @property
    def server_id(self) -> int | None: ...

    def listen(self, listener: Callable[[VirtualConnection[Any]], object] | None) -> None: ...


@implementer(IListeningPort)
class VirtualPort:
    """Where virtual connections that the other side dials are handed to a factory."""

    def __init__(self, source: Accepting, factory: IProtocolFactory) -> None:
        self._source = source
        self._factory = factory

    def startListening(self) -> None:
        self._factory.doStart()
        self._source.listen(self._opened)

    def _opened(self, conn: VirtualConnection[Any]) -> None:
        try:
            run_protocol(conn, self._factory)
        except Exception:  # the factory's fault is not the endpoint's
            log.failure("no protocol from {factory}", factory=self._factory)

    def stopListening(self) -> Deferred[None]:
        """Further virtual connections are closed; those that are open go on."""
        self._source.listen(lambda conn: conn.close())
        self._factory.doStop()
        return succeed(None)

    def getHost(self) -> FastwayAddress:
        gateway = getattr(self._source, "address", None)
        return FastwayAddress(gateway, self._source.server_id, 0)


@implementer(IStreamServerEndpoint)
class AcceptEndpoint:
    """Listens on an endpoint that is there already."""

    def __init__(self, endpoint: GatewayConnection) -> None:
        self._endpoint = endpoint

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        port = VirtualPort(self._endpoint, factory)
        port.startListening()
        return succeed(cast(IListeningPort, port))


class PoolPort(VirtualPort):
    """A VirtualPort that also starts and stops the pool that it listens over."""

    def __init__(self, pool: GatewayPool, factory: IProtocolFactory) -> None:
        super().__init__(pool, factory)
        self._pool = pool

    def stopListening(self) -> Deferred[Any]:
        """Leave the gateways: what is open is closed."""
        super().stopListening()
        return maybeDeferred(self._pool.stopService)


@implementer(IStreamServerEndpoint)
class PoolEndpoint:
    """Listens over all gateways of a pool, which it starts and stops."""

    def __init__(self, pool: GatewayPool) -> None:
        self._pool = pool

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Fires at once: gateways may come later."""
        port = PoolPort(self._pool, factory)
        port.startListening()
        self._pool.startService()
        return succeed(cast(IListeningPort, port))

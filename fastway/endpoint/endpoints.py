"""Twisted's endpoints whose connections are virtual ones.

    endpoint = DialEndpoint(client_endpoint, remote_id=1)     # IStreamClientEndpoint
    endpoint = AcceptEndpoint(server_endpoint)                # IStreamServerEndpoint

As strings (twisted/plugins/fastway_endpoints.py):

    clientFromString(reactor, r"fastway:tcp\\:127.0.0.1\\:9010:server=1")
    serverFromString(reactor, r"fastway:tcp\\:127.0.0.1\\:9020:id=1:key=secret")

Rule: a factory is started and stopped as by Twisted's own endpoints, once each, and what it raises
costs nobody else anything. One port at a time listens on an endpoint or a pool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, execute, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.endpoint.accept import Serving
from fastway.endpoint.config import EndpointConfig
from fastway.endpoint.connect import connect_client
from fastway.endpoint.connection import GatewayConnection, VirtualConnection
from fastway.endpoint.pool import GatewayPool
from fastway.endpoint.transport import FastwayAddress, VirtualTransport
from fastway.errors import DialFailed
from fastway.logs import make_logger

log = make_logger(__name__)


class Use:
    """One use of a factory: starts it now, and stops it once."""

    def __init__(self, factory: IProtocolFactory) -> None:
        self.factory = factory
        self._over = False
        factory.doStart()

    def over(self) -> None:
        """A second time does nothing."""
        if not self._over:
            self._over = True
            self.factory.doStop()

    def failed(self, failure: Failure) -> Failure:
        """The same, as an errback."""
        self.over()
        return failure


def run_protocol(
    conn: VirtualConnection[Any],
    factory: IProtocolFactory,
    use: Use | None = None,
) -> IProtocol | None:
    """Let a protocol of `factory` run over a virtual connection; None when the factory declines.

    Whatever the factory or the protocol's connectionMade raises closes the connection.

    Args:
        use: Is over when the protocol has heard of its loss.
    """
    transport = VirtualTransport(conn, None if use is None else use.over)
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


def _dialled(conn: VirtualConnection[Any], remote_id: int, use: Use) -> IProtocol:
    protocol = run_protocol(conn, use.factory, use)
    if protocol is None:
        raise DialFailed(remote_id, "the factory made no protocol")
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
        self,
        endpoint: GatewayConnection,
        remote_id: int,
        timeout: float | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._remote_id = remote_id
        self._timeout = timeout

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol; fails as the dial does, with DialRefused and so on, or with
        DialFailed or its own error where the factory makes none. Can be cancelled."""
        use = Use(factory)
        dialling = maybeDeferred(self._endpoint.dial, self._remote_id, self._timeout)
        made = dialling.addCallback(_dialled, self._remote_id, use)
        return made.addErrback(use.failed)


@implementer(IStreamClientEndpoint)
class GatewayDialEndpoint:
    """Connects to a gateway as a client, dials one server, and ends both together.

    Args:
        gateway: The gateway's client port.
        remote_id: The server to dial.
        config: How the connection to the gateway behaves.
        clock: The reactor.
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
        """Fires with the protocol; fails as the gateway's endpoint does, and as DialEndpoint."""
        use = Use(factory)

        def connected(endpoint: GatewayConnection) -> Deferred[IProtocol]:
            def failed(failure: Failure) -> Failure:
                endpoint.close()
                return failure

            def dialled(conn: VirtualConnection[Any]) -> IProtocol:
                conn.when_ended().addCallback(lambda _: endpoint.close())
                return _dialled(conn, self._remote_id, use)

            dialling = maybeDeferred(endpoint.dial, self._remote_id)
            return dialling.addCallback(dialled).addErrback(failed)

        connecting = maybeDeferred(connect_client, self._gateway, self._config, self._clock)
        return connecting.addCallback(connected).addErrback(use.failed)


Source = GatewayConnection | GatewayPool
"""Where virtual connections come from."""


def _turn_away(conn: VirtualConnection[Any]) -> None:
    """What listens where a port was closed."""
    conn.close()


def _make_free(source: Source) -> None:
    """What a closed port left there is in nobody's way."""
    if source.listener is _turn_away:
        source.listen(None)


@implementer(IListeningPort)
class VirtualPort:
    """Where virtual connections that the other side dials are handed to a factory."""

    def __init__(self, source: Source, factory: IProtocolFactory) -> None:
        self._source = source
        self._factory = factory
        self._use: Use | None = None

    def startListening(self) -> None:
        """Take what the other side dials, also what waits to be accepted.

        Raises:
            AlreadyListening: another port, or the application's own function, does.
        """
        source = self._source
        _make_free(source)
        source.check_free("a port")
        self._use = Use(self._factory)
        source.listen(self._opened)

    def _opened(self, conn: VirtualConnection[Any]) -> None:
        try:
            run_protocol(conn, self._factory)
        except Exception:  # the factory's fault is not the endpoint's
            log.failure("no protocol from {factory}", factory=self._factory)

    def stopListening(self) -> Deferred[None]:
        """Further virtual connections are closed; those that are open go on."""
        if self._source.listener == self._opened:
            self._source.listen(None)
            self._source.listen(_turn_away)
        if self._use is not None:
            self._use.over()
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
        """Fires with the port; fails with AlreadyListening if somebody listens there."""
        return _listening(VirtualPort(self._endpoint, factory))


class PoolPort(VirtualPort):
    """A VirtualPort that also starts and stops the pool that it listens over."""

    def __init__(self, pool: GatewayPool, factory: IProtocolFactory) -> None:
        super().__init__(pool, factory)
        self._pool = pool

    def startListening(self) -> None:
        super().startListening()
        self._pool.startService()

    def stopListening(self) -> Deferred[Any]:
        """Leave the gateways: what is open is closed."""
        super().stopListening()
        return maybeDeferred(self._pool.stopService)


@implementer(IStreamServerEndpoint)
class PoolEndpoint:
    """Listens over all gateways of a pool, which it starts and stops."""

    def __init__(self, pool: GatewayPool) -> None:
        self.pool = pool

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Fires at once, for gateways may come later; fails with AlreadyListening if somebody
        listens on the pool."""
        return _listening(PoolPort(self.pool, factory))

    def serve(self, handler: Callable[[VirtualConnection[Any]], Any], **how: Any) -> Serving[Any]:
        """Start the pool and run a handler for each who dials, as `GatewayPool.serve` does.

        Stopping is `pool.stopService()`.

        Raises:
            AlreadyListening: somebody listens on the pool.
            LocalError: connections are taken in another way already.
        """
        _make_free(self.pool)
        serving = self.pool.serve(handler, **how)
        self.pool.startService()
        return serving


def _listening(port: VirtualPort) -> Deferred[IListeningPort]:
    started: Deferred[Any] = execute(port.startListening)
    return started.addCallback(lambda _: cast(IListeningPort, port))

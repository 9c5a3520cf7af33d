"""Connecting to a gateway with Twisted.

Rule: `Wire` is the protocol that a reactor knows; it tells a link what happens and lets it write.
What connects is any client endpoint of Twisted: TCP, TLS, a unix socket, snet around one of them,
a WebSocket; or the URL of a WebSocket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import (
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.endpoint.config import EndpointConfig
from fastway.endpoint.connection import GatewayConnection
from fastway.endpoint.core import EndpointCore, checked_key, checked_server_id
from fastway.endpoint.reactor import the_reactor
from fastway.errors import (
    EndpointEnded,
    NoTls,
    StreamLost,
    UnnamedCertificate,
    WebSocketClosed,
)
from fastway.snet.interfaces import IResumableProtocol, IResumableTransport
from fastway.verify import names_nobody
from fastway.websocket.client import Url, is_url


@implementer(IPushProducer, IResumableProtocol, IHandshakeListener)
class Wire(Protocol):
    """One connection to a gateway, as Twisted knows it, and as a link writes to it.

    Attributes:
        gateway: What the application has of it.
    """

    resumable = False

    def __init__(self, gateway: GatewayConnection) -> None:
        self.gateway = gateway
        self.write: Callable[[bytes], object] = bytes  # the transport's own, once there is one
        self._link = gateway.link
        self._secured = False
        self._registered = False

    # What Twisted calls.

    def connectionMade(self) -> None:
        transport = cast(Any, self.transport)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        self.resumable = IResumableTransport.providedBy(transport)
        self.write = transport.write
        if self._link.ended is None:
            transport.registerProducer(self, True)
            self._registered = True
        self._link.connected(self)

    def handshakeCompleted(self) -> None:
        """TLS is up; what was written so far has not gone out."""
        self._secured = True
        if names_nobody(self.transport):
            error = UnnamedCertificate()
            self._link.end(EndpointEnded(f"the connection to the gateway broke: {error}", error))

    def dataReceived(self, data: bytes) -> None:
        self._link.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        orderly = reason.check(ConnectionDone) is not None
        dropped = orderly or bool(reason.check(ConnectionClosed, StreamLost, WebSocketClosed))
        if dropped and not self._secured and ISSLTransport.providedBy(self.transport):
            # It says nothing of a key that was never sent.
            self._link.lost(NoTls(), False)
            return
        self._link.lost(None if orderly else cast(Exception, reason.value), dropped)

    # Its buffer, as IPushProducer.

    def pauseProducing(self) -> None:
        self._link.full_now()

    def resumeProducing(self) -> None:
        self._link.drained()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost follows."""

    # IResumableProtocol

    def stream_cut(self) -> None:
        self._link.network_cut()

    def stream_resumed(self, seconds: float, replayed: int) -> None:
        self._link.network_resumed(seconds, replayed)

    # What the link calls.

    @property
    def below(self) -> Any:
        return self.transport

    @property
    def address(self) -> Any:
        return cast(Any, self.transport).getPeer()

    def pause(self) -> None:
        cast(Any, self.transport).pauseProducing()

    def resume(self) -> None:
        cast(Any, self.transport).resumeProducing()

    def close(self) -> None:
        self._unregister()
        cast(Any, self.transport).loseConnection()

    def abort(self) -> None:
        self._unregister()
        cast(Any, self.transport).abortConnection()

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            cast(Any, self.transport).unregisterProducer()

    def resume_now(self) -> None:
        cast(Any, self.transport).resume_now()


class GatewayFactory(Factory):
    """Makes a GatewayConnection of each connection to a gateway; `Wire.gateway` has it.

    Args:
        config: How they behave.
        server_id: A server's id; None: they are clients.
        key: The server key; text is UTF-8.
        clock: The reactor; a test's Clock.
        made: Called with each GatewayConnection, before anything happens on it.
    """

    noisy = False

    def __init__(
        self,
        config: EndpointConfig | None = None,
        server_id: int | None = None,
        key: bytes | str = b"",
        clock: IReactorTime | None = None,
        made: Callable[[GatewayConnection], None] | None = None,
    ) -> None:
        self.config = EndpointConfig() if config is None else config
        self.server_id = None if server_id is None else checked_server_id(server_id)
        self.key = checked_key(key)
        self.clock = the_reactor() if clock is None else clock
        self.made = made

    def buildProtocol(self, addr: object) -> Wire:
        core = EndpointCore(self.config.max_packet, self.server_id, self.key)
        gateway = GatewayConnection(core, self.config, self.clock)
        if self.made is not None:
            self.made(gateway)
        return Wire(gateway)


def connect_client(
    gateway: IStreamClientEndpoint | str,
    config: EndpointConfig | None = None,
    clock: IReactorTime | None = None,
    made: Callable[[GatewayConnection], None] | None = None,
) -> Deferred[GatewayConnection]:
    """Connect to a gateway's client port.

    Args:
        gateway: Any Twisted client endpoint: TCP, TLS, a unix socket; or `ws://host:port/path`,
            or `wss://host/path`.
        made: Called with the connection before anything happens on it.

    Returns:
        Fires with the GatewayConnection; fails as the Twisted endpoint does. Cancelling gives up.
    """
    return _connect(gateway, GatewayFactory(config, clock=clock, made=made))


def connect_server(
    gateway: IStreamClientEndpoint | str,
    server_id: int,
    key: bytes | str = b"",
    config: EndpointConfig | None = None,
    clock: IReactorTime | None = None,
    made: Callable[[GatewayConnection], None] | None = None,
) -> Deferred[GatewayConnection]:
    """Connect to a gateway's server port and log in.

    Args:
        gateway: As `connect_client`'s.
        made: Called with the connection before anything happens on it.

    Returns:
        Fires with the GatewayConnection once the gateway has taken the login; fails with
        LoginFailed when it did not, and as the Twisted endpoint does. Cancelling gives up.
    """
    return _connect(gateway, GatewayFactory(config, server_id, key, clock, made))


def _connect(
    gateway: IStreamClientEndpoint | str, factory: GatewayFactory
) -> Deferred[GatewayConnection]:
    endpoint = checked_gateway(gateway, factory.clock)
    connecting = cast("Deferred[Wire]", endpoint.connect(factory))
    return connecting.addCallback(lambda wire: wire.gateway.when_up())


def checked_gateway(
    gateway: IStreamClientEndpoint | str, clock: IReactorTime
) -> IStreamClientEndpoint:
    """
    Args:
        clock: The reactor.

    Raises:
        TypeError: it is text that is no URL of a WebSocket: with asyncio that may be a gateway.
        ValueError: it is such a URL, and wrong.
    """
    if not isinstance(gateway, str):
        return gateway
    if is_url(gateway):
        from fastway.websocket.url import UrlEndpoint

        return UrlEndpoint(clock, Url.parse(gateway))
    raise TypeError(
        f"a gateway is a client endpoint, such as clientFromString(reactor, "
        f'"tcp:HOST:PORT"), or ws://host:port/path, not {gateway!r}'
    )

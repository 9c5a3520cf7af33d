"""What may lie between an end and its port, as options of a gateway and as what its peers speak.

Rule: a transport is one entry of `TRANSPORTS`. The gateway is made from options, as an operator
makes it; of its peers nothing is the gateway's own but snet.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, cast

from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from fastway.address import address_name
from fastway.assemble import make_router_service
from fastway.errors import ConfigError
from fastway.gateway import GatewayLink, PortConfig, RouterService
from fastway.router import Limits, Side
from fastway.snet import SnetClientEndpoint, SnetConfig
from tests.support.golden import FIRST, KEY
from tests.support.options import LOOPBACK, settings
from tests.support.sockets import Peer, Sockets
from tests.support.tls import make
from tests.support.waits import reactor, until
from tests.support.websocket import ACCEPT, MASK, request

CLAIMED = "203.0.113.9"
"""Where a client is that comes by a proxy,"""
PROXY = "127.0.0.1"
"""and where the proxy is."""


# What a peer speaks: layers, each a protocol to what is below it and a transport to what is above.


class Layer(Protocol):
    """A layer that changes nothing.

    Attributes:
        upper: What is above.
        below: Bytes that were written to what is below since it is ready.
    """

    def __init__(self, upper: Any, ready: Deferred[Any]) -> None:
        self.upper = upper
        self.below = 0
        self._ready = ready

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("transport", "upper"):
            raise AttributeError(name)
        return getattr(self.transport, name)

    def is_ready(self) -> None:
        """What is above may speak."""
        self.upper.makeConnection(self)
        self._ready.callback(self.upper)

    def write(self, data: bytes) -> None:
        self.below += len(data)
        cast(Any, self.transport).write(data)

    def dataReceived(self, data: bytes) -> None:
        self.upper.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._ready.called:
            self._ready.errback(reason)
        elif self.upper.transport is self:
            self.upper.connectionLost(reason)


class NoDelay(Layer):
    """TCP as games use it."""

    def connectionMade(self) -> None:
        cast(Any, self.transport).setTcpNoDelay(True)
        self.is_ready()


class ProxyLayer(Layer):
    """A proxy that tells of a client by a PROXY header, which is `head` of its port."""

    head: Callable[[str, int, int], bytes]

    def connectionMade(self) -> None:
        wire = cast(Any, self.transport)
        wire.write(type(self).head(CLAIMED, wire.getHost().port, wire.getPeer().port))
        self.is_ready()


def _proxy_1(host: str, source: int, port: int) -> bytes:
    return f"PROXY TCP4 {host} {PROXY} {source} {port}\r\n".encode()


def _proxy_2(host: str, source: int, port: int) -> bytes:
    addresses = bytes(map(int, f"{host}.{PROXY}".split(".")))
    block = addresses + source.to_bytes(2, "big") + port.to_bytes(2, "big")
    extra = b"\x02\x00\x0cgame.example"  # the name that a client asked for
    size = (len(block) + len(extra)).to_bytes(2, "big")
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + size + block + extra


class Proxy1(ProxyLayer):
    head = staticmethod(_proxy_1)


class Proxy2(ProxyLayer):
    head = staticmethod(_proxy_2)


def _masked(data: bytes) -> bytes:
    """A binary frame; masked at once, as half a megabyte is no work for a loop."""
    size = len(data)
    if size < 126:
        head = bytes((0x82, 0x80 | size))
    elif size < 1 << 16:
        head = b"\x82\xfe" + size.to_bytes(2, "big")
    else:
        head = b"\x82\xff" + size.to_bytes(8, "big")
    mask = (MASK * (size // 4 + 1))[:size]
    masked = int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")
    return head + MASK + masked.to_bytes(size, "big")


class WebLayer(Layer):
    """A WebSocket's client: each write is a frame, a large one several, and a FIN is a Close.

    Attributes:
        MOST: Bytes of a message; the gateway takes more.
        told: The codes of Closes that came.
    """

    MOST = 1 << 20
    CLOSE = b"\x88\x82" + MASK + bytes((0x03 ^ MASK[0], 0xE8 ^ MASK[1]))

    def __init__(self, upper: Any, ready: Deferred[Any]) -> None:
        super().__init__(upper, ready)
        self._held = b""
        self._open = False
        self._closed = False
        self.told: list[int] = []

    def connectionMade(self) -> None:
        cast(Any, self.transport).write(request(sec_websocket_protocol="fastway"))

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), self.MOST):
            super().write(_masked(data[at : at + self.MOST]))

    def loseWriteConnection(self) -> None:
        if not self._closed:
            self._closed = True
            super().write(self.CLOSE)

    loseConnection = loseWriteConnection

    def dataReceived(self, data: bytes) -> None:
        self._held += data
        if not self._open:
            head, end, rest = self._held.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._refused(head)
                return
            assert f"Sec-WebSocket-Accept: {ACCEPT}".encode() in head, head
            self._open, self._held = True, rest
            self.is_ready()
        came = b""
        while (found := self._frame()) is not None:
            opcode, payload = found
            if opcode == 8:
                self.told.append(int.from_bytes(payload[:2], "big"))
                self.loseWriteConnection()
            else:
                assert opcode == 2, opcode
                came += payload
        if came:
            self.upper.dataReceived(came)

    def _refused(self, head: bytes) -> None:
        line = head.partition(b"\r")[0].decode()
        self._ready.errback(ConnectionRefusedError(line))
        cast(Any, self.transport).abortConnection()

    def _frame(self) -> tuple[int, bytes] | None:
        data = self._held
        if len(data) < 2:
            return None
        assert data[0] & 0xF0 == 0x80 and data[1] < 128, data[:2]
        at = {126: 4, 127: 10}.get(data[1], 2)
        size = data[1] if at == 2 else int.from_bytes(data[2:at], "big")
        if len(data) < at + size:
            return None
        self._held = data[at + size :]
        return data[0] & 15, data[at : at + size]


class TlsEnd(Layer):
    """What is above TLS: a FIN is TLS's own end."""

    def connectionMade(self) -> None:
        self.is_ready()

    def loseWriteConnection(self) -> None:
        cast(Any, self.transport).loseConnection()


class Layered:
    """An endpoint with a layer above another's connections."""

    def __init__(self, below: Any, layer: Callable[..., Layer]) -> None:
        self._below = below
        self._layer = layer

    def connect(self, upper: Factory) -> Deferred[Any]:
        def build(_: Any) -> Any:
            return self._layer(upper.buildProtocol(cast(Any, None)), ready)

        ready: Deferred[Any] = Deferred()
        factory = cast(Any, Factory())
        factory.noisy = False
        factory.buildProtocol = build
        below: Deferred[Any] = self._below.connect(factory)
        below.addErrback(ready.errback)
        return ready


def web(below: Any) -> Any:
    return Layered(below, WebLayer)


def tls(below: Any) -> Any:
    return Layered(wrapClientTLS(ssl.CertificateOptions(verify=False), below), TlsEnd)


def snet(below: Any) -> Any:
    return SnetClientEndpoint(below, reactor, SnetConfig())


def by_proxy_1(below: Any) -> Any:
    return Layered(below, Proxy1)


def by_proxy_2(below: Any) -> Any:
    return Layered(below, Proxy2)


Wrap = Callable[[Any], Any]


@dataclass(frozen=True)
class Transport:
    """What clients and servers come over.

    Attributes:
        options: The gateway's; `{cert}` and `{key}` are files.
        client: What clients put above TCP, the lowest first.
        server: The same of game servers.
        web: Clients come to the gateway's port for pages.
    """

    name: str
    options: tuple[str, ...] = ()
    client: tuple[Wrap, ...] = ()
    server: tuple[Wrap, ...] = ()
    web: bool = False

    @property
    def by_proxy(self) -> bool:
        return by_proxy_1 in self.client or by_proxy_2 in self.client

    @property
    def survives(self) -> bool:
        """A client's connection that ends or breaks is no end, but the beginning of a wait."""
        return snet in self.client

    def keeps(self, side: Side) -> bool:
        """The same of that side."""
        return snet in (self.client if side is Side.CLIENT else self.server)

    @property
    def halves(self) -> bool:
        """Who ends what it sends may go on reading."""
        return snet not in self.client and (tls not in self.client or self.web)


@functools.cache
def _files() -> tuple[str, str]:
    """A certificate for 127.0.0.1 and its key."""
    directory = cast(Any, _files).directory = tempfile.TemporaryDirectory()
    names = "cert.pem", "key.pem"
    cert, key = (os.path.join(directory.name, name) for name in names)
    make("127.0.0.1", ["127.0.0.1"]).write(cert, key)
    return cert, key


def _tls_options(side: str) -> tuple[str, ...]:
    return f"--{side}-tls-cert={{cert}}", f"--{side}-tls-key={{key}}"


_WS = ("--client-ws-addr=127.0.0.1:0",)
_WSS = ("--client-wss-addr=127.0.0.1:0", *_tls_options("client"))
_SNET_WS = ("--client-ws-addr=snet+127.0.0.1:0", "--client-snet-wait-timeout=0.1s")
_SNET_WSS = (
    "--client-wss-addr=snet+127.0.0.1:0",
    "--client-snet-wait-timeout=0.1s",
    *_tls_options("client"),
)
_TLS = (*_tls_options("client"), *_tls_options("server"))
_PROXY = tuple(f"--{side}-proxy-from=127.0.0.1" for side in ("client", "server"))
_SNET = (
    *(f"--{side}-snet-enable" for side in ("client", "server")),
    *(f"--{side}-snet-wait-timeout=0.1s" for side in ("client", "server")),
)

TRANSPORTS = [
    Transport("tcp"),
    Transport("ws", _WS, (web,), web=True),
    Transport("tls", _TLS, (tls,), (tls,)),
    Transport("wss", _WSS, (tls, web), web=True),
    Transport("proxy", _PROXY, (by_proxy_1,), (by_proxy_2,)),
    Transport("proxy_wss", (*_PROXY, *_WSS), (by_proxy_2, tls, web), (by_proxy_1,), web=True),
    Transport("snet", _SNET, (snet,), (snet,)),
    Transport("snet_tls", (*_TLS, *_SNET), (tls, snet), (tls, snet)),
    Transport("snet_ws", _SNET_WS, (web, snet), web=True),
    Transport(
        "snet_proxy_wss",
        (*_PROXY, *_SNET_WSS),
        (by_proxy_2, tls, web, snet),
        (by_proxy_1,),
        web=True,
    ),
]


# The gateway.


class Assembled(Sockets):
    """Both ports of a gateway that is made from a transport's options.

    Args:
        config: As of `Sockets`; bounds replace what the options made of them.
    """

    def __init__(
        self,
        transport: Transport,
        relay: bool,
        *,
        limits: Limits | None = None,
        client: PortConfig | None = None,
        server: PortConfig | None = None,
    ) -> None:
        self.transport = transport
        self.peers: list[Peer] = []
        self.service = service = assemble(transport, relay)
        service.startService()
        service.router.conn_range.last = FIRST - 1
        if limits is not None:
            service.router.limits = limits
        self.ports = (service.ports[2 if transport.web else 0], service.ports[1])
        self.clients, self.servers = (cast(Any, port.factory) for port in self.ports)
        for factory, config in ((self.clients, client), (self.servers, server)):
            for item in fields(PortConfig) if config is not None else ():
                setattr(factory.config, item.name, getattr(config, item.name))
        for port in service.ports:
            port.open(reactor, service.native)
        self.client_port, self.server_port = (port.listening for port in self.ports)

    async def dial_port(self, port: Any) -> Peer:
        made: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        made = Layered(made, NoDelay)
        is_server = port is self.server_port
        for wrap in self.transport.server if is_server else self.transport.client:
            made = wrap(made)
        peer = cast(Peer, await made.connect(Factory.forProtocol(Peer)))
        self.peers.append(peer)
        return peer

    async def _find_link(self, peer: Peer) -> None:
        own = peer.wire.getHost()
        is_client = peer.wire.getPeer().port == cast(Any, self.client_port).getHost().port
        name = f"{CLAIMED}:{own.port}" if self.transport.by_proxy else address_name(own)
        factory = self.clients if is_client else self.servers

        def links() -> list[GatewayLink]:
            found = [
                one
                for one in self.service.connected
                if one.facts.name == name and cast(object, one.factory) is factory
            ]
            return [one for one in found if one.known or not is_client]

        await until("the gateway to accept", links)
        (peer.link,) = links()
        peer.before = peer.link.counts().bytes_in

    async def stop(self) -> None:
        await super().stop()
        for port in self.service.ports:
            await port.close()
        self.service.native = None


def assemble(transport: Transport, relay: bool) -> RouterService:
    """The gateway's inside.

    Raises:
        ConfigError: that lane does not take that transport.
    """
    cert, key = _files() if any("{" in option for option in transport.options) else ("", "")
    told = [option.format(cert=cert, key=key) for option in transport.options]
    password = f"--server-auth-password={KEY.decode()}"
    lane = f"--relay={'on' if relay else 'off'}"
    return make_router_service(settings(*LOOPBACK, password, lane, *told), reactor)


@functools.cache
def why_not(transport: Transport, relay: bool) -> str:
    """Why that lane does not take that transport; empty: it does."""
    try:
        assemble(transport, relay)
    except (ConfigError, UsageError) as error:
        return str(error)
    return ""

"""Ports behind proxies, for tests: in memory on a clock, and of a whole gateway over sockets.

Rule: a proxy is whoever says a header and is then the client.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint, IUNIXTransport
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from fastway.config.values import parse_networks
from fastway.errors import Reason
from fastway.gateway import Facts, GatewayFactory, GatewayLink
from fastway.gateway.proxied import Proxies, ProxyFactory
from fastway.ops.snapshot import Source, finish
from fastway.ops.status import status_rows
from fastway.router import Side
from fastway.service import GatewayService
from tests.support.ends import Harness, LinkTransport
from tests.support.service import ServiceTestCase
from tests.support.sockets import Peer
from tests.support.waits import reactor, until

# In memory.

PROXY = "10.0.0.2"
TRUSTED = "10.0.0.0/8, unix"


class Comer:
    """A connection to a port behind proxies.

    Attributes:
        protocol: None: the port did not take it at all.
    """

    def __init__(self, bed: Bed, address: IAddress) -> None:
        self.bed = bed
        self.transport = LinkTransport(peerAddress=address)
        if isinstance(address, UNIXAddress):
            alsoProvides(self.transport, IUNIXTransport)
        before = set(bed.harness.service.connected)
        protocol = bed.outermost.buildProtocol(address)
        self.protocol = cast(Any, protocol)
        self._before = before
        if protocol is not None:
            protocol.makeConnection(self.transport)

    @property
    def links(self) -> list[GatewayLink]:
        now = self.bed.harness.service.connected
        return [link for link in now if link not in self._before]

    @property
    def link(self) -> GatewayLink:
        (link,) = self.links
        return link

    @property
    def facts(self) -> Facts:
        return self.link.facts

    @property
    def refused(self) -> bool:
        return self.protocol is None or self.transport.aborted

    def send(self, data: bytes) -> None:
        if not self.refused:
            self.protocol.dataReceived(data)
            service = self.bed.harness.service
            while service.turn_due:
                service.turn()

    def take(self) -> bytes:
        data = cast(bytes, self.transport.value())
        self.transport.clear()
        return data

    def end(self, error: Exception | None = None) -> None:
        self.transport.connected = False
        self.protocol.connectionLost(Failure(ConnectionDone() if error is None else error))


class Bed:
    """A port that has proxies.

    Args:
        layered: The header is read by a layer below the port's factory.
    """

    def __init__(
        self,
        layered: bool,
        sources: str = TRUSTED,
        direct: bool = False,
        factory: GatewayFactory | None = None,
        harness: Harness | None = None,
    ) -> None:
        self.harness = harness or Harness()
        self.factory = factory or self.harness.clients
        self.proxies = Proxies(parse_networks(sources), direct, "--client-proxy-from")
        self.factory.proxies = self.proxies
        self.outermost: Any = self.factory
        if layered:
            self.outermost = ProxyFactory(self.factory, self.factory, self.proxies)
        self._port = 40000

    def comer(self, host: str = PROXY) -> Comer:
        self._port += 1
        if host == "unix":
            return Comer(self, UNIXAddress(None))
        kind = IPv6Address if ":" in host else IPv4Address
        return Comer(self, kind("TCP", host, self._port))

    @property
    def turned_away(self) -> dict[Reason, int]:
        return dict(self.harness.router.stats.turned_away)


# Over sockets.

FROM = "--client-proxy-from=127.0.0.1"


class Heading(ProtocolWrapper):
    """Says a header before its protocol hears of the connection."""

    def makeConnection(self, transport: Any) -> None:
        transport.write(cast(Any, self.factory).header)
        super().makeConnection(transport)


@implementer(IStreamClientEndpoint)
class Headed:
    """An endpoint whose connections begin with a header.

    Attributes:
        made: Its connections.
    """

    def __init__(self, port: int, header: bytes) -> None:
        self.endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self.header = header
        self.made: list[Any] = []

    def connect(self, factory: Any) -> Any:
        wrapping: Any = WrappingFactory(factory)
        wrapping.protocol = Heading
        wrapping.noisy = False
        wrapping.header = self.header

        def connected(made: Any) -> Any:
            self.made.append(made)
            return made.wrappedProtocol

        return self.endpoint.connect(wrapping).addCallback(connected)


class ProxiedTestCase(ServiceTestCase):
    relay = False

    def begin(self, *options: str) -> GatewayService:
        """A gateway whose packets take this case's path, where they can."""
        return self.start(f"--relay={'auto' if self.relay else 'off'}", *options)

    def port(self, service: GatewayService, name: str = "client") -> int:
        return cast(int, cast(Any, service.ports[name].getHost()).port)

    async def come(
        self, service: GatewayService, name: str = "client", source: str = "127.0.0.1"
    ) -> Peer:
        """Somebody connects, from that address."""
        endpoint = TCP4ClientEndpoint(
            reactor, "127.0.0.1", self.port(service, name), bindAddress=(source, 0)
        )
        peer = cast(Peer, await endpoint.connect(Factory.forProtocol(Peer)))
        self.addCleanup(peer.wire.abortConnection)
        return peer

    def links(self, service: GatewayService, side: Side = Side.CLIENT) -> list[GatewayLink]:
        return [one for one in service.router_service.connected if one.side is side]

    def link(self, service: GatewayService) -> GatewayLink:
        (link,) = self.links(service)
        return link

    def rows(self, service: GatewayService) -> list[str]:
        """What `status` says of proxies."""
        shot = finish(Source(service.router_service).snapshot())
        return [row for row in status_rows(shot) if "proxy of" in row]

    def ended(self, service: GatewayService, count: int) -> bool:
        """So many links are lost, known or not."""
        stats = service.router_service.router.stats
        return sum(stats.lost.values()) + sum(stats.turned_away.values()) == count

    @staticmethod
    def counts(what: Counter[Any], count: int) -> bool:
        return sum(what.values()) == count

    async def gone(self, service: GatewayService) -> None:
        await until("their ends", lambda: not service.router_service.connected)

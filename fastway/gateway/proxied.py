"""Ports behind proxies: who has to send a PROXY header, and what becomes known by it.

Rule: here is who is believed; how headers look is `fastway.proxy`'s. A listed peer sends a header
before all else, TLS and snet too, or is lost; of anybody else none is read, so nobody can claim
an address that an operator has not allowed to.

There are two ways to the same: where a port's links stand on their connections themselves the
header is their first preface; where layers of Twisted's are in between it is read below these, by
a layer, and the client's address passes through them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast
from typing import Protocol as Interface

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import alsoProvides, directlyProvides, providedBy

from fastway.causes import cause_of
from fastway.errors import Reason, RemoteError
from fastway.gateway.bounds import PortConfig
from fastway.gateway.facts import Facts, ToldAddress, facts_of
from fastway.gateway.gate import Door, Gate
from fastway.gateway.limits import Entry
from fastway.gateway.preface import Done
from fastway.logs import NO_ID, Throttle, make_logger
from fastway.networks import Networks, peer_of
from fastway.proxy import NOBODY, Header, HeaderReader
from fastway.router import Router, Side
from fastway.tcp import transport_name
from fastway.wheel import Wheel

log = make_logger("fastway.gateway")

TIMEOUT = 5.0
"""Seconds that a header may take."""

_OWN = {
    Reason.HANDSHAKE_TIMEOUT: Reason.PROXY_TIMEOUT,
    Reason.PEER_CLOSED: Reason.PROXY_TRUNCATED,
}
"""What an end means while a header is under way."""


@dataclass(frozen=True, slots=True)
class ProxyFigures:
    """Headers of one port since the start.

    Attributes:
        clients: Those that told of a client.
        probes: Those of a proxy that spoke for itself.
    """

    clients: int
    probes: int

    def __str__(self) -> str:
        return f"{self.clients} clients, {self.probes} checks of the proxies' own"


class Proxies:
    """Who must send a PROXY header to a port.

    Args:
        sources: These.
        direct: All others may come without one; otherwise nobody else may come.
        given: The option that names them, as the operator wrote it.
    """

    def __init__(self, sources: Networks, direct: bool = False, given: str = "") -> None:
        self.sources = sources
        self.direct = direct
        self.clients = 0
        self.probes = 0
        self.problem = f"{given or 'the list of proxies'} does not name it"

    def awaits(self, address: IAddress | None) -> bool:
        """Who comes from there must send a header, and a layer has not read it yet."""
        return not isinstance(address, ToldAddress) and peer_of(address) in self.sources

    def refuses(self, address: IAddress | None) -> bool:
        """Who comes from there may not come in at all."""
        if self.direct or isinstance(address, ToldAddress):
            return False
        return peer_of(address) not in self.sources

    def preface(self) -> ProxyPreface:
        """What reads it."""
        return ProxyPreface(self)

    def figures(self) -> ProxyFigures:
        """What there was."""
        return ProxyFigures(self.clients, self.probes)


@dataclass(frozen=True, slots=True)
class Proxied(Done):
    """The header is there."""

    header: Header = NOBODY
    proxies: Proxies | None = None

    def told(self, facts: Facts) -> Facts:
        header, proxies = self.header, self.proxies
        assert proxies is not None
        if header.source in ("", facts.name):
            # Its own address too: HAProxy's checks in version 1, which has no word for them.
            proxies.probes += 1
            return replace(facts, probe=True)
        proxies.clients += 1
        tls = header.tls
        return replace(
            facts,
            name=header.source,
            via=facts.name,
            sni=header.authority,
            tls="" if tls is None else tls.version,
            identity=tls.name if tls is not None and tls.verified else "",
        )


class ProxyPreface:
    """A proxy's header."""

    __slots__ = ("_proxies", "_reader")

    seconds = TIMEOUT

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies
        self._reader = HeaderReader()

    def begin(self) -> bytes:
        return b""

    def feed(self, data: bytes) -> Done | bytes:
        found = self._reader.feed(data)
        if found is None:
            return b""
        header, rest = found
        return Proxied(rest, header=header, proxies=self._proxies)

    def refuse(self, reason: Reason) -> bytes:
        return b""

    def why(self, reason: Reason) -> Reason:
        if reason is Reason.PEER_CLOSED and not self._reader.began:
            return reason  # a check that only connects
        return _OWN.get(reason, reason)


# The layer.


class ProxiedService(Interface):
    """What the layer needs of the service that all ports share (`service.RouterService`)."""

    router: Router
    wheel: Wheel
    gate: Gate


class ProxiedPort(Interface):
    """What the layer needs of its port (`factories.GatewayFactory`)."""

    side: Side
    config: PortConfig
    quiet: Throttle
    door: Door

    @property
    def service(self) -> ProxiedService: ...

    def trusts(self, addr: IAddress | None) -> bool:
        """A port behind proxies takes nobody else, if it is so."""


class ProxyFactory(WrappingFactory):
    """The layer: reads the header below the other layers of a port.

    Args:
        wrapped: Makes what runs inside.
        port: Makes the port's links.
        proxies: Who must send one.

    Attributes:
        waiting: Connections whose header is under way, the oldest first.
    """

    noisy = False

    def __init__(self, wrapped: IProtocolFactory, port: ProxiedPort, proxies: Proxies) -> None:
        super().__init__(wrapped)
        self.port = port
        self.proxies = proxies
        self.waiting: dict[ProxyConnection, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self.proxies.awaits(addr):
            return ProxyConnection(self)
        if not self.port.trusts(addr):
            return None
        return cast(Any, self.wrappedFactory).buildProtocol(addr)

    def stopFactory(self) -> None:
        for connection in list(self.waiting):
            connection.lose(Reason.SHUTDOWN)

    def begins(self, connection: ProxyConnection) -> None:
        """One more header is under way; past the bound the oldest has to go."""
        self.waiting[connection] = None
        if len(self.waiting) > self.port.config.max_handshakes:
            next(iter(self.waiting)).lose(Reason.TOO_MANY_HANDSHAKES)


class ProxyConnection(ProtocolWrapper):
    """One connection: first its header, then whatever the other layers make of it.

    Attributes:
        slot: The wheel's note.
    """

    factory: ProxyFactory
    wrappedProtocol: Any

    def __init__(self, factory: ProxyFactory) -> None:
        super().__init__(cast(Any, factory), cast(Any, None))
        self.slot = -1
        self._preface: ProxyPreface | None = factory.proxies.preface()
        self._facts = Facts("?")
        self._peer: ToldAddress | None = None
        self._admitted: Entry | None = None
        self._bytes_in = 0
        self._since = 0.0

    def logPrefix(self) -> str:
        return "connection"

    def makeConnection(self, transport: Any) -> None:
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)
        self._facts = facts_of(transport.getPeer(), transport_name(transport))
        wheel = self.factory.port.service.wheel
        self._since = wheel.seconds()
        wheel.watch(self, self._since + TIMEOUT)
        self.factory.begins(self)

    def getPeer(self) -> Any:
        return cast(Any, self.transport).getPeer() if self._peer is None else self._peer

    def dataReceived(self, data: bytes) -> None:
        if self._preface is None:
            if self.wrappedProtocol is not None:
                self.wrappedProtocol.dataReceived(data)
            return
        self._bytes_in += len(data)
        try:
            result = self._preface.feed(data)
        except RemoteError as error:
            self.lose(error.reason, str(error))
            return
        if not isinstance(result, Done):
            return
        self._facts = facts = result.told(self._facts)
        entry = None if facts.probe else self.factory.port.door.admit_told(facts.host)
        if isinstance(entry, Reason):
            self.lose(entry)
            return
        self._admitted = entry
        self._over()
        self._begin(ToldAddress(facts), result.rest)

    def _begin(self, peer: ToldAddress, rest: bytes) -> None:
        """The others see a connection of the client."""
        self._peer = peer
        protocol = cast(Any, self.factory.wrappedFactory).buildProtocol(peer)
        if protocol is None:
            cast(Any, self.transport).abortConnection()
            return
        if IHalfCloseableProtocol.providedBy(protocol):
            alsoProvides(self, IHalfCloseableProtocol)
        self.wrappedProtocol = protocol
        protocol.makeConnection(self)
        if rest:
            self.dataReceived(rest)

    def readConnectionLost(self) -> None:
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.readConnectionLost()

    def writeConnectionLost(self) -> None:
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.port.service.gate.leave(self._admitted)
        protocol, self.wrappedProtocol = self.wrappedProtocol, None
        if protocol is not None:
            protocol.connectionLost(reason)
        elif reason.check(ConnectionDone):
            self.lose(Reason.PEER_CLOSED)
        else:
            error = cast(Exception, reason.value)
            known = type(error) is ConnectionLost
            self.lose(Reason.CONNECTION_LOST, "" if known else cause_of(error))

    def check(self, now: float) -> float | None:
        """The header takes too long."""
        self.lose(Reason.HANDSHAKE_TIMEOUT)
        return None

    def lose(self, reason: Reason, detail: str = "") -> None:
        """End it before its header is whole."""
        preface = self._preface
        if preface is None:
            return
        self._over()
        port = self.factory.port
        reason = preface.why(reason)
        cast(Any, self.transport).abortConnection()
        log_early_end(port, self._facts, reason, detail, self._since, self._bytes_in)

    def _over(self) -> None:
        """The header is whole, or will never be."""
        self._preface = None
        self.factory.waiting.pop(self, None)
        self.factory.port.service.wheel.forget(self)


def log_early_end(
    port: ProxiedPort, facts: Facts, reason: Reason, detail: str, since: float, bytes_in: int
) -> None:
    """Count and log the end of a connection in a layer, before it has a link."""
    port.service.router.stats.strangers[port.side, reason] += 1
    if (facts.probe or not (bytes_in or detail)) and reason in _SILENT:
        return
    port.quiet.info(
        log,
        f"{port.side.value} lost: {reason.value}",
        facts.host,
        "{side} {id} {addr} lost: {reason}"
        + (": {detail} " if detail else " ")
        + "(after {seconds:.1f} s, with {bytes_in} bytes)",
        side=port.side.value,
        id=NO_ID,
        addr=facts.name,
        transport=facts.transport,
        via=facts.via,
        reason=reason.value,
        detail=detail,
        reason_code=reason.code,
        seconds=round(port.service.wheel.seconds() - since, 3),
        bytes_in=bytes_in,
    )


_SILENT = (Reason.PEER_CLOSED, Reason.CONNECTION_LOST, Reason.SHUTDOWN)
"""Ends of those who said nothing, or are a proxy's own checks, that are worth no line."""

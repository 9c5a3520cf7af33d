"""The Twisted factories that make links, one for each port.

Rule: a factory says what the links of its port are (side, bounds, prefaces) and who is turned away
at the door; it decides nothing about a link that is in.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from fastway.address import address_name
from fastway.errors import Reason
from fastway.gateway.bounds import PortConfig, server_port_config
from fastway.gateway.direct import DirectLink
from fastway.gateway.facts import Direct, Facts, ToldAddress, facts_of
from fastway.gateway.gate import Door
from fastway.gateway.identities import Identities
from fastway.gateway.lane import End, Lane
from fastway.gateway.limits import LimitValues
from fastway.gateway.link import ClientLink, GatewayLink, ServerLink
from fastway.gateway.preface import KeyHandshake, PrefaceFactory
from fastway.gateway.proxied import Proxies
from fastway.gateway.service import RouterService
from fastway.gateway.stream import StreamLane
from fastway.logs import make_logger
from fastway.networks import packed_address
from fastway.router import Side
from fastway.snet.interfaces import IBounded

log = make_logger("fastway.gateway")

MOMENT = 2.0
"""Seconds that whoever comes for TLS has at the least, before a later one takes his place. With
limit-tls-rate and limit-handshakes as they are by default he has more."""

LOOKS = 8
"""Of how many it is seen at once whether they may have to go."""


class TurnedAway(Protocol):
    """A connection over max_links: closed at once. Not None, which wrapping factories choke on."""

    def connectionMade(self) -> None:
        cast(Any, self.transport).abortConnection()


class GatewayFactory(Factory):
    """Makes the links of one port.

    Args:
        service: The router service that all ports share.
        config: The port's bounds.
        prefaces: What comes before its links may talk, in that order.

    Attributes:
        proxies: Who must send a PROXY header before all that; None: nobody may.
        side: Whose port it is.
        direct: Where its connections lead, if they know no packets (`leads_to`).
        holds: Over its bounds a link holds those who send to it; otherwise it is lost.
        link: What its links are.
        links: Connections that are open, those at their prefaces included.
        handshakes: Links at their prefaces, and those that were refused there until they are gone;
            the oldest first.
        door: Who may come in by it.
    """

    noisy = False
    side: Side
    holds: bool
    link: type[GatewayLink]

    def __init__(
        self,
        service: RouterService,
        config: PortConfig,
        prefaces: tuple[PrefaceFactory, ...] = (),
    ) -> None:
        self.service = service
        self.config = config
        self.prefaces = prefaces
        self.proxies: Proxies | None = None
        self.quiet = service.quiet
        self.direct: Direct | None = None
        self.links = 0
        self.handshakes: dict[GatewayLink, float] = {}
        self.door = Door(service.gate, self)

    @property
    def full(self) -> bool:
        """Whether max_links connections are open, cut ones included."""
        return 0 < self.config.max_links <= self.links

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        door = self.door
        entry = None
        if not (door.at_accept or isinstance(addr, ToldAddress)):
            entry = door.admit(packed_address(getattr(addr, "host", "")) or b"")
            door.rests()
        if isinstance(entry, Reason):
            return TurnedAway()
        if not self.admits(addr):
            door.gate.leave(entry)
            return TurnedAway()
        lane = StreamLane(self)
        lane.admitted = entry
        return lane

    def admits(self, addr: IAddress | None) -> bool:
        """There is room for one more; then it counts, until its link is gone."""
        if self.service.stopping or not self.trusts(addr):
            return False
        if self.full:
            self.turn_away(
                Reason.TOO_MANY_LINKS,
                addr,
                f"{self.links} connections are open, max-{self.side.value}s is",
                self.config.max_links,
            )
            return False
        self.links += 1
        return True

    def trusts(self, addr: IAddress | None) -> bool:
        """A port behind proxies takes nobody else, if it is so."""
        if self.proxies is None or not self.proxies.refuses(addr):
            return True
        self.turn_away(Reason.PROXY_UNTRUSTED, addr, self.proxies.problem)
        return False

    def turn_away(
        self, reason: Reason, addr: IAddress | None, problem: str, limit: int | None = None
    ) -> None:
        """Count and log a connection that is closed at once."""
        host = "?" if addr is None else getattr(addr, "host", "")
        name = "?" if addr is None else address_name(addr)
        self.turned_away(reason, host, name, problem, limit)

    def turned_away(
        self, reason: Reason, host: str, name: str, problem: str, limit: int | None = None
    ) -> None:
        """The same, by the names of who it was: his address, and how the line has it."""
        self.service.turned_away += 1
        self.service.router.stats.strangers[self.side, reason] += 1
        self.quiet.warn(
            log,
            f"{self.side.value} turned away",
            host,
            "{side} ? {addr} turned away: {problem}" + ("" if limit is None else " {limit}"),
            side=self.side.value,
            addr=name,
            problem=problem,
            limit=limit,
            reason_code=reason.code,
        )

    def connected(self, lane: Lane, addr: IAddress | None, transport: str) -> None:
        """A lane of this port is connected: it gets its link."""
        if not (lane.native or self.holds) and lane.descriptor > self.service.most_files():
            self.links -= 1
            self.out_of_files(addr)
            lane.close(End.ABORT)
            return
        link = self.link(self, lane, facts_of(addr, transport))
        cast(Any, lane).link = link
        link.begin((*self._header_of(addr), *lane.prefaces, *self.prefaces))

    def _header_of(self, addr: IAddress | None) -> tuple[PrefaceFactory, ...]:
        """A PROXY header, if who comes from there must send one: before TLS and all else."""
        if self.proxies is None or not self.proxies.awaits(addr):
            return ()
        return (self.proxies.preface,)

    def refuses(self, facts: Facts) -> str:
        """Why who is so may not come in; empty: it may."""
        return ""

    def set_limits(self, values: LimitValues) -> None:
        """What its links may do from now on; servers are not limited."""

    def out_of_files(self, addr: IAddress | None) -> None:
        """Turn a client away, because the last descriptors are kept for servers."""
        kept = self.service.keep_files
        problem = "the last descriptors are for servers, keep-files is"
        self.turn_away(Reason.NO_DESCRIPTOR, addr, problem, kept)

    def crowded(self, now: float) -> bool:
        """The oldest of those at their prefaces, who would have to go for one more, had no MOMENT
        yet; or it is this side that they wait for: those come behind the others then."""
        for _ in range(LOOKS):
            if len(self.handshakes) < self.config.max_handshakes:
                return False
            oldest, since = next(iter(self.handshakes.items()))
            if not oldest.lane.away:
                return now - since < MOMENT
            del self.handshakes[oldest]
            self.handshakes[oldest] = now
        return True

    def handshake_begins(self, link: GatewayLink) -> None:
        """One more is at its prefaces; past the bound the oldest of them has to go, also one that
        was refused and takes its time to read why."""
        self.handshakes[link] = self.service.wheel.seconds()
        if len(self.handshakes) > self.config.max_handshakes:
            oldest = next(iter(self.handshakes))
            del self.handshakes[oldest]
            if oldest.lost is None:
                self.service.router.lose(oldest, Reason.TOO_MANY_HANDSHAKES)
            else:
                oldest.lane.close(End.ABORT)


@implementer(IBounded)
class ClientFactory(GatewayFactory):
    """A client port. On a server port no newcomer takes the place of a cut server: it has proved
    nothing yet."""

    side = Side.CLIENT
    holds = False
    link = ClientLink

    def __init__(self, service: RouterService, config: PortConfig | None = None) -> None:
        super().__init__(service, PortConfig() if config is None else config)

    def set_limits(self, values: LimitValues) -> None:
        config = self.config
        config.max_handshakes = values.handshakes
        config.packet_rate = values.client_packet_rate
        config.byte_rate = values.client_byte_rate
        config.dial_rate = values.client_dial_rate

    def leads_to(self, name: str, server_id: int) -> None:
        """Make it a direct port: its connections know no packets, and lead to that server."""
        self.direct = Direct(name, server_id)
        self.link = DirectLink


class ServerFactory(GatewayFactory):
    """A server port.

    Args:
        key: What servers must prove to hold.

    Attributes:
        identities: Which ids a certificate allows; None: any.
    """

    side = Side.SERVER
    holds = True
    link = ServerLink

    def __init__(
        self, service: RouterService, key: bytes, config: PortConfig | None = None
    ) -> None:
        config = server_port_config() if config is None else config
        super().__init__(service, config, (lambda: KeyHandshake(self.key),))
        self.key = key
        self.identities: Identities | None = None

    def refuses(self, facts: Facts) -> str:
        if self.identities is None or facts.server_id is None:
            return ""
        return self.identities.problem(facts.identity, facts.sha256, facts.server_id)

    def recheck(self) -> None:
        """Lose servers that may not be here any more: other identities came into use."""
        for link in list(self.service.connected):
            if link.factory is self and link.known and link.lost is None:
                link.recheck()

"""The gateway's links when their sockets are the core's.

Rule: what a link is, who may do what and why it is lost stays in `gateway` and `router`; here is
only what the core does in their place. A link hands over once it may talk, a client at once, a
server after its handshake. From then on the core counts, queues, holds and watches the deadlines.
"""

from __future__ import annotations

from typing import Any, cast

from fastway.errors import FrameTooLarge, FrameTooShort, Reason
from fastway.gateway import (
    ClientFactory,
    ClientLink,
    GatewayFactory,
    GatewayLink,
    RouterService,
    ServerLink,
)
from fastway.relay import PoolConfig
from fastway.relay.transport import Relay, RelayPort, RelayTransport
from fastway.router import Link
from fastway.wire import MIN_LENGTH, Run


class Counted:
    """A counter of a link that the core keeps; `place` is where in `RelayTransport.counts`."""

    def __init__(self, place: int) -> None:
        self.place = place

    def __get__(self, link: Any, owner: Any = None) -> int:
        transport: RelayTransport | None = link.transport
        return 0 if transport is None else transport.count(self.place)

    def __set__(self, link: Any, value: int) -> None:
        """The core has counted it."""


class Relayed(GatewayLink):
    """A link on a RelayTransport."""

    bytes_in = cast(int, Counted(1))
    packets_out = cast(int, Counted(2))
    bytes_out = cast(int, Counted(3))
    waiting_packets = cast(int, Counted(4))
    waiting_bytes = cast(int, Counted(5))
    _touched = False

    wire: RelayTransport

    def makeConnection(self, transport: Any) -> None:
        self.wire = transport
        super().makeConnection(transport)

    @property
    def packets_in(self) -> int:
        return self.wire.count(0) + self.routed

    def hand_over(self) -> None:
        """The link may talk: what comes from now on is the core's to forward."""
        data = self.reader.take_pending()
        self.reader = cast(Any, None)
        self.service.wheel.forget(self)  # the core watches the deadlines
        self.wire.start(data)

    # What the core reports.

    def packets_came(self, runs: list[Run]) -> None:
        """Commands, strays, and packets for links outside of the core."""
        service = self.service
        service.router.receive(self, runs)
        service.flush(self)

    def bad_length(self, length: int) -> None:
        limit = self.config.max_packet
        error = FrameTooShort(length) if length < MIN_LENGTH else FrameTooLarge(length, limit)
        self._lose(error.reason, str(error))

    def went_idle(self) -> None:
        self._lose(Reason.IDLE_TIMEOUT)

    def got_stuck(self) -> None:
        self._lose(Reason.WRITE_TIMEOUT)

    def no_memory(self) -> None:
        self._lose(Reason.NO_MEMORY)

    def lost_for_bounds(self) -> None:
        _, _, _, _, packets, size, _, _ = self.wire.counts
        self._lose(Reason.SLOW_READER, f"{packets} packets, {size} bytes")

    def taken(self) -> None:
        """Half of what waited when it held somebody is taken."""
        if self._below_half():
            self._release_held()
        else:
            self.wire.tell_taken(self.waiting_bytes // 2)

    def _lose(self, reason: Reason, detail: str = "") -> None:
        self.service.router.lose(self, reason, detail)
        self.service.flush()

    # What the router and the service call.

    def send(self, data: bytes, packets: int) -> None:
        if self.wire.send(data, packets) and not self._touched:
            self._touched = True
            self.service.touched.append(self)

    def flush(self, source: GatewayLink | None) -> None:
        """The core writes at the end of its turn; it said that this one is over its bounds."""
        self._touched = False
        if self.lost is None and self.wire.over_bounds():
            self.went_over_bounds(source)

    @property
    def saturated(self) -> bool:
        return self.wire.saturated()

    @property
    def held(self) -> bool:
        return bool(self._held_by) or bool(self.wire.count(7))

    def hold(self, source: GatewayLink) -> None:
        """Stop reading from `source`, which is not the core's or got here through the router."""
        super().hold(source)
        if self._holding:
            self.wire.tell_taken(self.waiting_bytes // 2)

    def check(self, now: float) -> float | None:
        if self.lost is None and self.wire.started:
            return None
        return super().check(now)


class RelayedClient(Relayed, ClientLink):
    """A client in the core."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.hand_over()

    def went_over_bounds(self, source: GatewayLink | None) -> None:
        """The core judges, and says so."""

    # Of the two ends of a virtual connection one is a client: it tells the core of the pair.

    def pair(self, conn_id: int, peer: Link) -> None:
        self.peers[conn_id] = peer
        if isinstance(peer, Relayed):
            self.wire.pair(conn_id, peer.wire)

    def unpair(self, conn_id: int) -> None:
        del self.peers[conn_id]
        self.wire.unpair(conn_id)


class RelayedServer(Relayed, ServerLink):
    """A server in the core; its handshake and what came right behind it are Python's."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self._handshake is None and self.lost is None and not self.wire.started:
            self.hand_over()
            for conn_id, peer in self.peers.items():
                peer.pair(conn_id, self)


class GatewayRelay(Relay):
    """The relay of one RouterService.

    Args:
        reactor: What it runs on.
        service: Whose links it carries.
        pool: Where all queues come from.
    """

    def __init__(
        self, reactor: Any, service: RouterService, pool: PoolConfig | None = None
    ) -> None:
        super().__init__(reactor, service.wheel, pool)
        self.service = service
        self.turned = self._count
        self._counted = (0, 0, 0, 0)
        self._ports: dict[GatewayFactory, int] = {}

    def listen(self, fd: int, family: int, factory: GatewayFactory) -> RelayPort:
        """Listen with a bound, listening socket; the factory then makes links for the core."""
        client = isinstance(factory, ClientFactory)
        if factory not in self._ports:
            config = factory.config
            self._ports[factory] = self.core.port(
                max_packet=config.max_packet,
                read_size=config.read_size,
                idle_timeout=config.idle_timeout,
                queue_packets=config.queue_packets,
                queue_bytes=config.queue_bytes,
                write_timeout=config.write_timeout,
                holds=not client,
            )
        factory.link_class = RelayedClient if client else RelayedServer
        return self.adopt_port(fd, family, factory, self._ports[factory])

    def status(self) -> list[str]:
        """Rows for the operator: what the core carries, and its memory pool."""
        _, _, _, _, links, pairs, *_ = self.core.totals()
        used, plain, failed, classes = self.core.pool()
        config = self.pool
        limit = f" of {config.limit}" if config.limit else ""
        rows = [
            f"relay: {links} links, {pairs} virtual connections in native code",
            f"memory pool: {config.type}, {used}{limit} bytes of chunks used, "
            f"{plain} chunks outside of pages, {failed} requests failed",
        ]
        for size, pages, taken, free in classes:
            if pages or taken or free:
                rows.append(f"chunks of {size}: {pages} pages, {taken} used, {free} free")
        return rows

    def _count(self, totals: tuple[int, ...]) -> None:
        packets, size, pings, holds = self._counted
        stats = self.service.router.stats
        stats.packets += totals[0] - packets
        stats.bytes += totals[1] - size
        stats.pings += totals[2] - pings
        self.service.holds += totals[3] - holds
        self._counted = totals[0], totals[1], totals[2], totals[3]

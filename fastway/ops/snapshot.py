"""All figures of a running gateway at one moment, as a tree of values.

Rule: whoever shows figures (`status`, `links`, metrics, pages) renders what is here; this is the
only place of `ops` that reads a link or a service, and it changes nothing.

Totals are counters of the gateway: none is summed over the links. What has to look at many things
does so in slices: a generator that yields every so often, so that whoever drives it can let the
gateway forward in between. `finish` drives one to its end at once.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from typing import TYPE_CHECKING, Any, TypeVar

from fastway import __version__, usage
from fastway.address import address_name
from fastway.errors import Reason
from fastway.histogram import Distribution
from fastway.logs import escaped
from fastway.ops.drain import DrainFigures
from fastway.ops.logs import ACCESS, dropped
from fastway.router import Refusal, Side

if TYPE_CHECKING:
    from fastway.gateway import GatewayLink, RouterService
    from fastway.gateway.gate import LimitFigures

SLICE = 64
"""Links that are looked at between two yields: well below a millisecond."""

T = TypeVar("T")
Slices = Generator[None, None, T]
"""Work in slices, whose value is a T."""


def finish(work: Slices[T]) -> T:
    """Do all of it now."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def in_slices(items: Iterable[T]) -> Iterator[tuple[bool, T]]:
    """Each item with whether it ends a slice: `for pause, item in ...: ...; if pause: yield`."""
    for number, item in enumerate(items, 1):
        yield number % SLICE == 0, item


@dataclass(frozen=True, slots=True)
class PortTotals:
    """A port that listens.

    Attributes:
        name: What operators call it.
        addr: Where it listens.
        links: Connections that are open, those at their handshakes included.
        handshakes: Those that are at them.
        layers: What stands between connections and links, the innermost first.
    """

    name: str
    side: str
    addr: str
    links: int
    handshakes: int
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SideTotals:
    """Links of one side that are logged in."""

    connected: int
    since_start: int


@dataclass(frozen=True, slots=True)
class LinkTotals:
    """Links that got their ids, and connections that did not. All but `connected` only grow.

    Attributes:
        connected: Side and transport -> links that are there.
        since_start: The same -> links that came.
        lasted: Side -> how long those were connected that went, in seconds.
        lost: Side and reason -> links that went.
        strangers: Side and reason -> connections that went before they had an id.
    """

    connected: Mapping[tuple[str, str], int]
    since_start: Mapping[tuple[str, str], int]
    lasted: Mapping[str, Distribution]
    lost: Mapping[tuple[Side, Reason], int]
    strangers: Mapping[tuple[Side, Reason], int]


@dataclass(frozen=True, slots=True)
class ProcessTotals:
    """What this process takes of the system; 0 where the system does not tell.

    Attributes:
        cpu: Seconds of all threads.
        started: When, in seconds since 1970.
        files: Descriptors that are open; 0 before Linux 6.2.
        max_files: And how many may be.
        memory: Bytes resident.
    """

    cpu: float
    started: float
    files: int
    max_files: int
    memory: int


@dataclass(frozen=True, slots=True)
class RouterTotals:
    """Virtual connections, and what went over them. All but `open` only grow.

    Attributes:
        answers: Side that dialled, and why it was refused, None: it was not -> dials.
    """

    open: int
    accepted: int
    packets: int
    bytes: int
    dials: int
    refused: Mapping[Refusal, int]
    strays: int
    foreign_closes: int
    pings: int
    answers: Mapping[tuple[Side, Refusal | None], int]


@dataclass(frozen=True, slots=True)
class QueueTotals:
    """What waits for all links together, and links that are not read from because of that.

    Attributes:
        input: Bytes that came and wait: of packets that are not whole, or for their turn.
        limit: Bytes that may wait in all; 0: no limit.
        held: Not read from now.
        holds: How often that began.
        server_packets: Of the packets those that wait for game servers,
        server_bytes: and their bytes;
        server_input: of what came and waits that of game servers.
    """

    packets: int
    bytes: int
    input: int
    limit: int
    held: int
    holds: int
    server_packets: int
    server_bytes: int
    server_input: int


@dataclass(frozen=True, slots=True)
class LimitTotals:
    """What limits did.

    Attributes:
        gate: To those who connect.
        slowed: Links that are not read from now, because they sent more than they may.
        slows: How often that began.
    """

    gate: LimitFigures
    slowed: int
    slows: int


@dataclass(frozen=True, slots=True)
class LayerTotals:
    """A layer of one port.

    Attributes:
        port: The port's name.
        name: The layer's.
        figures: Its own, a frozen dataclass whose str is one line; in a brief snapshot what it
            has without a look at many things, which has the same names.
    """

    port: str
    side: str
    name: str
    figures: Any


@dataclass(frozen=True, slots=True)
class ChunkTotals:
    """Chunks of one size, in bytes, of the relay's pool."""

    size: int
    pages: int
    used: int
    free: int


@dataclass(frozen=True, slots=True)
class RelayTotals:
    """The native relay: its links and its memory pool.

    Attributes:
        shed: Links lost because all together held too much.
        used: Bytes of chunks that are handed out; `limit` at most, unless that is 0.
        plain: Chunks that are not of a page.
        failed: Requests over the limit.
    """

    links: int
    pairs: int
    shed: int
    pool: str
    used: int
    limit: int
    plain: int
    failed: int
    chunks: tuple[ChunkTotals, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A gateway at one moment.

    Attributes:
        path: The path that packets take: native or Python, and why.
        uptime: Seconds since the start.
        server_ids: Different ids that servers have.
        turned_away: Connections closed at the door, over the greatest number of links.
        lost: Links lost since the start by reason, failed handshakes included.
        memory: Bytes resident; 0 where the system does not tell.
        log_dropped: Lines of the log that could not be written,
        access_dropped: and of the access log.
        relay: None on the Python path.
        state: starting, running, draining or stopping.
        shut: Names of the ports that do not listen.
        links: More about `clients` and `servers`, and about those who never were.
        process: What it takes of the system.
        turns: How long turns of the reactor take, in seconds; None: nobody measures that.
        needs_server: Without a game server nobody should be sent here.
        reloads: Times that something was read anew and used, and that it could not be: options and
            identities. Those of certificates are figures of `layers`.
        drain: How far a drain is; None: there is none.
    """

    version: str
    path: str
    pid: int
    uptime: float
    ports: tuple[PortTotals, ...]
    clients: SideTotals
    servers: SideTotals
    server_ids: int
    router: RouterTotals
    queues: QueueTotals
    limits: LimitTotals
    turned_away: int
    lost: Mapping[Reason, int]
    layers: tuple[LayerTotals, ...]
    memory: int
    log_dropped: int
    access_dropped: int
    relay: RelayTotals | None
    state: str
    shut: tuple[str, ...]
    links: LinkTotals
    process: ProcessTotals
    turns: Distribution | None
    needs_server: bool
    reloads: Mapping[str, tuple[int, int]]
    drain: DrainFigures | None = None


@dataclass(frozen=True, slots=True)
class LinkRow:
    """One link.

    Attributes:
        link_id: 0 before it is known.
        addr: The peer's address, fit for a line of text.
        transport: What carries it, as `gateway.facts` names it.
        via: The proxy that it came through; empty without one.
        port: The direct port that it came in by; empty: it is none.
        user: The name of the player, if a game server told it, fit for a line of text.
        seconds: Since it connected.
        held: It is not read from.
        cut: Seconds for which its stream has been without a connection, or None.
        lost: Why it was lost; it lingers.
        tls: The version of TLS; empty without. What follows is fit for a line of text.
        sni: The host name that it asked for.
        identity: Whom its certificate names.
        sha256: Its certificate's fingerprint, in hex.
    """

    side: str
    link_id: int
    addr: str
    transport: str
    via: str
    conns: int
    seconds: float
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    waiting_packets: int
    waiting_bytes: int
    held: bool
    cut: float | None
    lost: Reason | None
    tls: str = ""
    sni: str = ""
    identity: str = ""
    sha256: str = ""
    port: str = ""
    user: str = ""


@dataclass(slots=True)
class Source:
    """What figures are taken of.

    Attributes:
        service: What all ports share.
        memory: Tells the resident memory in bytes.
        turns: Tells how long turns of the reactor take.
        needs_server: Without a game server nobody should be sent here.
        options: Tells how often the options were read anew and used, and how often not; None: they
            never are.
        drain: Tells how far a drain is.
    """

    service: RouterService
    memory: Callable[[], int] = lambda: 0
    turns: Callable[[], Distribution | None] = lambda: None
    needs_server: bool = False
    options: Callable[[], tuple[int, int] | None] = lambda: None
    drain: Callable[[], DrainFigures | None] = lambda: None

    def snapshot(self, brief: bool = False) -> Slices[Snapshot]:
        """The gateway's figures.

        Args:
            brief: Only what costs the same however many links and streams there are.
        """
        service = self.service
        router = service.router
        stats = router.stats
        layers = []
        for port in service.ports:
            for layer, factory in zip(port.layers, port.wrapped, strict=True):
                told = getattr(factory, "counts", factory.figures) if brief else factory.figures
                side = port.factory.side.value
                layers.append(LayerTotals(port.name, side, layer.name, told()))
                yield
        servers = stats.gained[Side.SERVER] - sum(
            count for (side, _), count in stats.lost.items() if side is Side.SERVER
        )
        memory = self.memory()
        return Snapshot(
            version=__version__,
            path=service.path,
            pid=os.getpid(),
            uptime=service.clock.seconds() - service.started,
            ports=tuple(
                PortTotals(
                    port.name,
                    port.factory.side.value,
                    address_name(port.listening.getHost()),
                    port.factory.links,
                    len(port.factory.handshakes),
                    tuple(layer.name for layer in port.layers),
                )
                for port in service.ports
                if port.listening is not None
            ),
            clients=SideTotals(len(router.clients), stats.gained[Side.CLIENT]),
            servers=SideTotals(servers, stats.gained[Side.SERVER]),
            server_ids=len(router.servers),
            router=RouterTotals(
                open=len(router.conn_ids),
                accepted=stats.accepted,
                packets=stats.packets,
                bytes=stats.bytes,
                dials=stats.dials,
                refused=dict(stats.refused),
                strays=stats.strays,
                foreign_closes=stats.foreign_closes,
                pings=stats.pings,
                answers=self._answers(),
            ),
            queues=self._queues(),
            limits=self.limits(),
            turned_away=service.turned_away,
            lost=self._lost(),
            layers=tuple(layers),
            memory=memory,
            log_dropped=dropped(),
            access_dropped=dropped(ACCESS),
            relay=self._relay(),
            state=service.state,
            shut=tuple(port.name for port in service.ports if port.listening is None),
            links=self._links(),
            process=ProcessTotals(
                cpu=time.process_time(),
                started=usage.started(),
                files=usage.open_files(),
                max_files=usage.max_files(),
                memory=memory,
            ),
            turns=self.turns(),
            needs_server=self.needs_server,
            reloads=self._reloads(),
            drain=self.drain(),
        )

    def links(self) -> Slices[Iterator[GatewayLink]]:
        """All links, clients first, by id; those that are not known yet come before the others."""
        runs: list[list[tuple[str, int, int]]] = [[]]
        numbered = list(self.service.connected)
        for number, link in enumerate(numbered):
            runs[-1].append((link.side.value, link.link_id, number))
            if len(runs[-1]) == SLICE:
                runs[-1].sort()
                runs.append([])
                yield
        runs[-1].sort()
        return (numbered[number] for _, _, number in merge(*runs))

    def row(self, link: GatewayLink) -> LinkRow | None:
        """A link's figures; None if it has gone."""
        if link not in self.service.connected:
            return None
        now = self.service.wheel.seconds()
        counts = link.counts()
        return LinkRow(
            side=link.side.value,
            link_id=link.link_id if link.known else 0,
            addr=escaped(link.facts.name),
            transport=link.facts.transport,
            via=escaped(link.facts.via),
            conns=len(link.peers),
            seconds=now - link.since,
            packets_in=counts.packets_in,
            bytes_in=counts.bytes_in,
            packets_out=counts.packets_out,
            bytes_out=counts.bytes_out,
            waiting_packets=counts.waiting_packets,
            waiting_bytes=counts.waiting_bytes,
            held=bool(counts.held),
            cut=None if link.cut_since is None else now - link.cut_since,
            lost=link.lost,
            tls=link.facts.tls,
            sni=escaped(link.facts.sni),
            identity=escaped(link.facts.identity),
            sha256=link.facts.sha256,
            port=link.facts.port,
            user=escaped(link.user or ""),
        )

    def limits(self) -> LimitTotals:
        """What limits did."""
        service = self.service
        native = None if service.native is None else service.native.totals()
        return LimitTotals(
            service.gate.figures(),
            service.slowed + (0 if native is None else native.slowed),
            service.slows + (0 if native is None else native.slows),
        )

    def _queues(self) -> QueueTotals:
        waiting = self.service.waiting()
        return QueueTotals(
            packets=waiting.packets,
            bytes=waiting.bytes,
            input=waiting.input,
            limit=0 if self.service.memory_limit == sys.maxsize else self.service.memory_limit,
            held=waiting.held,
            holds=self.service.holds,
            server_packets=waiting.server_packets,
            server_bytes=waiting.server_bytes,
            server_input=waiting.server_input,
        )

    def _lost(self) -> dict[Reason, int]:
        lost: Counter[Reason] = Counter()
        stats = self.service.router.stats
        for (_, reason), count in stats.lost.items():
            lost[reason] += count
        lost.update(stats.turned_away)
        return dict(lost)

    def _links(self) -> LinkTotals:
        tally, stats = self.service.tally, self.service.router.stats
        return LinkTotals(
            connected={way: came - tally.went[way] for way, came in tally.came.items()},
            since_start=dict(tally.came),
            lasted={side.value: lasted.figures() for side, lasted in tally.lasted.items()},
            lost=dict(stats.lost),
            strangers=dict(stats.strangers),
        )

    def _reloads(self) -> dict[str, tuple[int, int]]:
        options = self.options()
        told = {} if options is None else {"options": options}
        for port in self.service.ports:
            identities = getattr(port.factory, "identities", None)
            if identities is not None:
                told["identities"] = identities.rereads, identities.failures
        return told

    def _answers(self) -> dict[tuple[Side, Refusal | None], int]:
        stats = self.service.router.stats
        answers: dict[tuple[Side, Refusal | None], int] = {
            (Side.CLIENT, None): stats.accepted - stats.accepted_servers,
            (Side.SERVER, None): stats.accepted_servers,
        }
        for key, count in stats.refusals.items():
            answers[key] = count
        return answers

    def _relay(self) -> RelayTotals | None:
        native = self.service.native
        if native is None:
            return None
        totals = native.totals()
        used, plain, failed, classes = native.core.pool()
        return RelayTotals(
            links=totals.links,
            pairs=totals.pairs,
            shed=totals.shed,
            pool=native.pool.type,
            used=used,
            limit=native.pool.limit,
            plain=plain,
            failed=failed,
            chunks=tuple(ChunkTotals(*row) for row in classes),
        )

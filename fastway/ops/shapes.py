"""What the admin API says and takes, as classes: its JSON and its schemas are made of them.

Rule: here are shapes only; what is in the snapshot already is used as it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fastway.gateway.ends import End
from fastway.histogram import Distribution
from fastway.ops.drain import DrainFigures
from fastway.ops.snapshot import (
    LinkRow,
    PortTotals,
    ProcessTotals,
    QueueTotals,
    RelayTotals,
    SideTotals,
)


@dataclass(frozen=True, slots=True)
class Ready:
    """Whether players should be sent here.

    Attributes:
        ok: They should.
        why: Else why not.
    """

    ok: bool
    why: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Links of one side that were lost for one reason.

    Attributes:
        side: client or server.
        reason: As programs name it (docs/reasons.md).
        text: The same as a sentence.
        count: So many.
    """

    side: str
    reason: str
    text: str
    count: int


@dataclass(frozen=True, slots=True)
class Refused:
    """What was refused for one reason.

    Attributes:
        reason: As programs name it.
        text: The same as a sentence.
        count: So often.
    """

    reason: str
    text: str
    count: int


@dataclass(frozen=True, slots=True)
class Carried:
    """Links of one side that one transport carries.

    Attributes:
        side: client or server.
        transport: What carries them.
        connected: Those that are there.
        since_start: Those that came.
    """

    side: str
    transport: str
    connected: int
    since_start: int


@dataclass(frozen=True, slots=True)
class Routed:
    """Virtual connections, and what went over them. All but `open` only grow.

    Attributes:
        open: Virtual connections now.
        accepted: Those that were ever open.
        packets: Packets forwarded.
        bytes: Their bytes.
        dials: Dials, answered ones and others.
        refused: Why dials were refused.
        strays: Packets on connection ids that are not in use.
        foreign_closes: Closes of somebody else's virtual connection.
        pings: Pings that were answered.
    """

    open: int
    accepted: int
    packets: int
    bytes: int
    dials: int
    refused: tuple[Refused, ...]
    strays: int
    foreign_closes: int
    pings: int


@dataclass(frozen=True, slots=True)
class Limited:
    """What limits did.

    Attributes:
        connections: Of clients, that count now.
        entries: Addresses and sites that are told apart now,
        table: of so many at the most.
        overflowed: Connections that found no room among those.
        refused: Connections that were refused.
        rests: How often a port let those wait who came.
        dry_run: Nothing is refused, and nobody waits;
        dry: what would have been refused,
        dry_rests: and how often somebody would have waited.
        slowed: Links that are not read from now, because they sent more than they may.
        slows: How often that began.
    """

    connections: int
    entries: int
    table: int
    overflowed: int
    refused: tuple[Refused, ...]
    rests: int
    dry_run: bool
    dry: tuple[Refused, ...]
    dry_rests: int
    slowed: int
    slows: int


@dataclass(frozen=True, slots=True)
class LayerText:
    """A layer of one port.

    Attributes:
        port: The port's name.
        side: client or server.
        name: The layer's: tls, ws, snet, proxy.
        text: Its figures, one line.
    """

    port: str
    side: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """A gateway at one moment.

    Attributes:
        time: That moment, in seconds since 1970.
        version: The program's.
        path: The path that packets take: native or Python, and why.
        pid: The process.
        uptime: Seconds since the start.
        state: starting, running, draining or stopping.
        ready: What /ready says.
        ports: Ports that listen.
        shut: Names of those that do not.
        clients: Clients that are logged in.
        servers: Game servers that are.
        server_ids: Different ids that these have.
        transports: Both, by what carries them.
        router: Virtual connections.
        queues: What waits for all links together.
        limits: What limits did.
        turned_away: Connections closed at the door, over the greatest number of links.
        lost: Links lost since the start.
        strangers: Connections that ended before they had an id.
        layers: What stands between connections and links.
        memory: Bytes resident; 0 where the system does not tell.
        log_dropped: Lines of the log that could not be written.
        log_level: The least level that is logged.
        relay: The native relay; null on the Python path.
        process: What the process takes of the system.
        turns: How long turns of the reactor took, in seconds; null: nobody measures that. It is
            measured while somebody reads /v1/events.
        drain: How far a drain is; null: there is none.
        metrics: There is a port with /metrics too.
        viewers: Who reads /v1/events.
    """

    time: float
    version: str
    path: str
    pid: int
    uptime: float
    state: str
    ready: Ready
    ports: tuple[PortTotals, ...]
    shut: tuple[str, ...]
    clients: SideTotals
    servers: SideTotals
    server_ids: int
    transports: tuple[Carried, ...]
    router: Routed
    queues: QueueTotals
    limits: Limited
    turned_away: int
    lost: tuple[Lost, ...]
    strangers: tuple[Lost, ...]
    layers: tuple[LayerText, ...]
    memory: int
    log_dropped: int
    log_level: str
    relay: RelayTotals | None
    process: ProcessTotals
    turns: Distribution | None
    drain: DrainFigures | None
    metrics: bool
    viewers: int


@dataclass(frozen=True, slots=True)
class Links:
    """Some links.

    Attributes:
        links: They, in the order that was asked for.
        total: Links that are there,
        found: of which so many are what was looked for.
        next: Give it as `after` for those that follow; null: there are none.
    """

    links: tuple[LinkRow, ...]
    total: int
    found: int
    next: str | None


@dataclass(frozen=True, slots=True)
class Peer:
    """The far end of one virtual connection.

    Attributes:
        conn_id: The virtual connection.
        side: client or server.
        id: Its id.
    """

    conn_id: int
    side: str
    id: int


@dataclass(frozen=True, slots=True)
class Link:
    """One link, and whom it talks to.

    Attributes:
        link: Its figures.
        peers: Its first virtual connections.
    """

    link: LinkRow
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class SameId:
    """The links of one id: one client, or all game servers that have it.

    Attributes:
        links: They.
    """

    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Ends:
    """The last connections that ended.

    Attributes:
        closed: They, the newest first.
        next: Give it as `after` for older ones; null: there are none.
    """

    closed: tuple[End, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class AddressRow:
    """One address of clients.

    Attributes:
        address: An IPv4 address, or the network that an IPv6 address counts with.
        count: Connections that it has now.
        refused: Of its last connections, those that limits refused.
    """

    address: str
    count: int
    refused: int


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where clients are from.

    Attributes:
        addresses: They, in the order that was asked for.
        found: How many there are.
        entries: Addresses and sites that limits tell apart now,
        table: of so many at the most.
    """

    addresses: tuple[AddressRow, ...]
    found: int
    entries: int
    table: int


@dataclass(frozen=True, slots=True)
class OptionRow:
    """One option.

    Attributes:
        name: Its name.
        value: What it is, as it would be written; keys and tokens as (hidden).
        default: What it would be if nobody had said anything.
        source: Who said it; empty: nobody.
        topic: Where the manual has it.
        help: What it is.
        live: POST /v1/limits changes it.
    """

    name: str
    value: str
    default: str
    source: str
    topic: str
    help: str
    live: bool


@dataclass(frozen=True, slots=True)
class Config:
    """How it is set up.

    Attributes:
        options: All options, in the manual's order.
    """

    options: tuple[OptionRow, ...]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the log.

    Attributes:
        time: When, in seconds since 1970.
        level: debug, info, warn, error or critical.
        system: What part of the program says it.
        text: What it says, fit for a line of text.
    """

    time: float
    level: str
    system: str
    text: str


@dataclass(frozen=True, slots=True)
class LogLines:
    """Lines of the log.

    Attributes:
        lines: They, the oldest first.
        missed: Lines before these that are not here.
    """

    lines: tuple[LogLine, ...]
    missed: int


@dataclass(frozen=True, slots=True)
class NewEnds:
    """Connections that ended since the last such event.

    Attributes:
        closed: They, the oldest first.
        missed: Ends before these that are not here.
    """

    closed: tuple[End, ...]
    missed: int


@dataclass(frozen=True, slots=True)
class Done:
    """A change was made.

    Attributes:
        text: What happened, for an operator.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why not.

    Attributes:
        error: One line.
    """

    error: str


# What changes take.


@dataclass(frozen=True, slots=True)
class KickBody:
    """Whom to kick.

    Attributes:
        side: client or server.
        id: Its id; of game servers all that have it.
        code: The close code that a WebSocket client is told.
        reason: The text that it is told, and that the log has.
    """

    side: Literal["client", "server"]
    id: int
    code: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DrainBody:
    """How to drain.

    Attributes:
        again: A successor listens at the same addresses.
    """

    again: bool = False


@dataclass(frozen=True, slots=True)
class Nothing:
    """No fields."""


@dataclass(frozen=True, slots=True)
class LevelBody:
    """What to log.

    Attributes:
        level: The least level.
    """

    level: Literal["debug", "info", "warn", "error", "critical"]


LimitsBody = Mapping[str, str | int | float | bool]
"""What to allow from now on, until the next start: names of options (docs/options.md), also
without their limit-, and values as one would write them. Empty: nothing changes."""


@dataclass(frozen=True, slots=True)
class ProfileBody:
    """What to look into.

    Attributes:
        kind: cpuprof takes a profile until it is stopped; the others are those of `lookup`.
        action: Of cpuprof.
        rows: Rows of the report, of the others; -1: as many as the command has by itself.
    """

    kind: Literal["cpuprof", "block", "gc", "goroutine", "heap", "threadcreate"]
    action: Literal["", "start", "stop"] = ""
    rows: int = -1

"""Who is connected, who talks to whom, and what each may do (spec sections 2 and 4).

Rule: this module knows a link as something to send to and to lose. It has no clock and no
sockets, and it decides everything: ids, dials, ownership, limits, closes. A test's link is a
list.

A virtual connection has no object of its own: it is its id in `Router.conn_ids` and an entry
`conn_id -> the other link` in the `peers` of both its ends. One look-up there answers who gets a
packet, whether its sender owns the connection, and how many connections a link has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from fastway.errors import BadCommand, Reason, RemoteError
from fastway.wire import (
    HEAD,
    MAX_ID,
    CommandType,
    Run,
    decode_command,
    encode_accept,
    encode_close,
    encode_connect,
    encode_refuse,
)


class Side(Enum):
    """Which port a link came in by. The ids of the two sides are different things."""

    CLIENT = "client"
    SERVER = "server"


class IdConflict(Enum):
    """What happens when a server brings an id that is in use."""

    REPLACE = "replace"  # the newer gets new dials, the older keeps what it has
    EVICT = "evict"  # the older is lost
    REJECT = "reject"  # the newer is lost


class Refusal(Enum):
    """Why a dial was refused. The dialler only sees that it was."""

    UNKNOWN = "no such remote"
    LIMIT = "the client has all the connections it may dial"
    REMOTE_LIMIT = "the dialled client has all the connections it may have"
    BUSY = "far too much waits for the remote already"
    NO_ID = "no connection id is free"


@dataclass(slots=True)
class Limits:
    """What a link may do.

    Attributes:
        client_max_conn: A client's dial is refused while it has this many virtual connections,
            whoever dialled them. 0: no limit.
        client_max_total: A server's dial to a client is refused while that client has this many.
            0: no limit.
        server_id_conflict: See `IdConflict`.
    """

    client_max_conn: int = 16
    client_max_total: int = 1024
    server_id_conflict: IdConflict = IdConflict.REPLACE


@dataclass(slots=True)
class Stats:
    """Counters since the start. All only grow.

    gained = live + lost, for each side; dials = accepted + refused;
    accepted = open virtual connections + closed.
    """

    gained: Counter[Side] = field(default_factory=Counter)
    """Links that got or brought their id."""
    lost: Counter[tuple[Side, Reason]] = field(default_factory=Counter)
    """Such links that went."""
    turned_away: Counter[Reason] = field(default_factory=Counter)
    """Connections that went before they had an id: handshakes that failed."""
    dials: int = 0
    accepted: int = 0
    refused: Counter[Refusal] = field(default_factory=Counter)
    closed: int = 0
    packets: int = 0
    """Packets forwarded over virtual connections."""
    bytes: int = 0
    """Their bytes, heads included."""
    strays: int = 0
    """Packets on a connection id that is not in use, each answered by a Close."""
    foreign_closes: int = 0
    """Closes of somebody else's virtual connection, without effect."""
    pings: int = 0


class Link:
    """One physical connection, as the router sees it.

    The shell's subclass supplies `send` and `disconnect`.

    Attributes:
        link_id: The id by which the other side dials it; 0 before it is known.
        peers: conn_id -> the link at the other end, for each virtual connection.
        known: It has its id, so the router knows it.
        lost: Why it was lost; None while it lives. Nothing is sent to a lost link.
        routed: Whole packets of it that came to the router, commands included.
    """

    __slots__ = ("known", "link_id", "lost", "peers", "routed")

    side: Side

    def __init__(self) -> None:
        self.link_id = 0
        self.known = False
        self.peers: dict[int, Link] = {}
        self.lost: Reason | None = None
        self.routed = 0

    @property
    def packets_in(self) -> int:
        """Whole packets that came from it, whoever forwarded them."""
        return self.routed

    def send(self, data: bytes, packets: int) -> None:
        """Take `packets` whole packets for the peer; must not call back into the router."""
        raise NotImplementedError

    def disconnect(self, reason: Reason, detail: str) -> None:
        """The router has forgotten this link: end the physical connection."""
        raise NotImplementedError

    @property
    def saturated(self) -> bool:
        """So much waits for it that no further virtual connection should reach it."""
        return False

    def pair(self, conn_id: int, peer: Link) -> None:
        """A virtual connection with `peer` is open from now on."""
        self.peers[conn_id] = peer

    def unpair(self, conn_id: int) -> None:
        """That virtual connection is closed."""
        del self.peers[conn_id]


class IdRange:
    """Ids from `low` to `high`, round and round: those of one gateway of many.

    A sixteenth of a range stays free, so that an id costs at most 16 looks on average however
    the ids in use lie; a range of fewer than 16 can be used up.

    Args:
        low: The first id, at least 1.
        high: The last one, at most 2**32 - 1.

    Attributes:
        last: The id that was taken last.

    Raises:
        ValueError: that is no range of ids.
    """

    __slots__ = ("capacity", "high", "last", "low")

    def __init__(self, low: int = 1, high: int = MAX_ID) -> None:
        if not 1 <= low <= high <= MAX_ID:
            raise ValueError(f"{low}..{high} is no range of ids within 1..{MAX_ID}")
        self.low = low
        self.high = high
        self.last = low - 1
        size = high - low + 1
        self.capacity = size - size // 16
        """So many ids may be in use."""

    def take(self, live: Collection[int]) -> int:
        """The id after the last that is not in `live`; 0: too many are in use."""
        if len(live) >= self.capacity:
            return 0
        last = self.last
        while True:
            last = last + 1 if last < self.high else self.low
            if last not in live:
                self.last = last
                return last


class Router:
    """All links and virtual connections of one gateway.

    Args:
        limits: What links may do.
        conn_range: The ids of its virtual connections.
        client_range: The ids of its clients.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        conn_range: IdRange | None = None,
        client_range: IdRange | None = None,
    ) -> None:
        self.limits = Limits() if limits is None else limits
        self.conn_range = IdRange() if conn_range is None else conn_range
        self.client_range = IdRange() if client_range is None else client_range
        self.stats = Stats()
        self.clients: dict[int, Link] = {}
        self.servers: dict[int, list[Link]] = {}
        """server id -> its links, the newest last; the newest gets the dials."""
        self.conn_ids: set[int] = set()
        """The ids of all open virtual connections."""

    def links(self) -> Iterator[Link]:
        """All links that are logged in: clients first, then servers, by age."""
        yield from self.clients.values()
        for same_id in self.servers.values():
            yield from same_id

    def add_client(self, link: Link) -> None:
        """A client connected: it gets its id. If none is free it is lost right here."""
        client_id = self.client_range.take(self.clients)
        if not client_id:
            self.lose(link, Reason.NO_ID)
            return
        link.link_id = client_id
        self.clients[link.link_id] = link
        link.known = True
        self.stats.gained[Side.CLIENT] += 1

    def add_server(self, link: Link, server_id: int) -> None:
        """A server proved the key. Under IdConflict.REJECT it may be lost right here."""
        link.link_id = server_id
        link.known = True
        older = list(self.servers.get(server_id, ()))
        self.stats.gained[Side.SERVER] += 1
        if older and self.limits.server_id_conflict is IdConflict.REJECT:
            self.lose(link, Reason.ID_IN_USE)
            return
        self.servers.setdefault(server_id, []).append(link)
        if self.limits.server_id_conflict is IdConflict.EVICT:
            for other in older:
                self.lose(other, Reason.EVICTED)

    def find(self, side: Side, link_id: int) -> Link | None:
        """The live link that a dial of `link_id` on `side` reaches."""
        if side is Side.CLIENT:
            return self.clients.get(link_id)
        same_id = self.servers.get(link_id)
        return same_id[-1] if same_id else None

    def receive(self, link: Link, runs: Iterable[Run]) -> None:
        """Packets came from `link`: forward them, carry out the commands.

        A link that breaks the rules is lost, and the rest of its packets with it.
        """
        if link.lost is not None:
            return
        peers = link.peers
        packets = size = 0
        for conn_id, data, count in runs:
            link.routed += count
            peer = peers.get(conn_id)
            if peer is not None:
                peer.send(data, count)
                packets += count
                size += len(data)
                continue
            if conn_id:
                self._stray(link, conn_id, count)
            else:
                try:
                    self._command(link, data)
                except RemoteError as error:
                    self.lose(link, error.reason, str(error))
            if link.lost is not None:
                break
        self.stats.packets += packets
        self.stats.bytes += size

    def close(self, link: Link, conn_id: int) -> None:
        """`link` closes a virtual connection: both ends are told. No effect unless it owns it."""
        peer = link.peers.get(conn_id)
        if peer is None:
            if conn_id in self.conn_ids:
                self.stats.foreign_closes += 1
            return
        self._unpair(link, peer, conn_id)
        close = encode_close(conn_id)
        link.send(close, 1)
        peer.send(close, 1)

    def lose(self, link: Link, reason: Reason, detail: str = "") -> None:
        """Forget a link, tell the other end of each of its connections, and disconnect it.

        The one way by which links go, whoever found out first. A second call does nothing.
        """
        if link.lost is not None:
            return
        link.lost = reason
        self._forget(link)
        for conn_id, peer in list(link.peers.items()):
            self._unpair(link, peer, conn_id)
            peer.send(encode_close(conn_id), 1)
        if link.known:
            self.stats.lost[link.side, reason] += 1
        else:
            self.stats.turned_away[reason] += 1
        link.disconnect(reason, detail)

    def _forget(self, link: Link) -> None:
        if link.side is Side.CLIENT:
            if self.clients.get(link.link_id) is link:
                del self.clients[link.link_id]
            return
        same_id = self.servers.get(link.link_id, [])
        if link in same_id:
            same_id.remove(link)
            if not same_id:
                del self.servers[link.link_id]

    def _stray(self, link: Link, conn_id: int, count: int) -> None:
        if conn_id in self.conn_ids:
            self.lose(link, Reason.NOT_OWNER, f"virtual connection {conn_id}")
            return
        self.stats.strays += count
        link.send(encode_close(conn_id) * count, count)

    def _command(self, link: Link, frame: bytes) -> None:
        command = decode_command(frame)
        if command.kind is CommandType.PING:
            self.stats.pings += 1
            link.send(frame, 1)
        elif command.kind is CommandType.DIAL:
            self._dial(link, command.remote_id)
        elif command.kind is CommandType.CLOSE:
            self.close(link, command.conn_id)
        else:
            raise BadCommand(command.kind, len(frame) - HEAD)

    def _dial(self, link: Link, remote_id: int) -> None:
        stats = self.stats
        stats.dials += 1
        remote = self.find(
            Side.SERVER if link.side is Side.CLIENT else Side.CLIENT,
            remote_id,
        )
        refusal = self._refusal(link, remote)
        conn_id = 0 if refusal is not None else self.conn_range.take(self.conn_ids)
        if remote is None or not conn_id:
            stats.refused[refusal or Refusal.NO_ID] += 1
            link.send(encode_refuse(remote_id), 1)
            return
        self.conn_ids.add(conn_id)
        stats.accepted += 1
        link.pair(conn_id, remote)
        remote.pair(conn_id, link)
        link.send(encode_accept(conn_id, remote_id), 1)
        remote.send(encode_connect(conn_id, link.link_id), 1)

    def _refusal(self, link: Link, remote: Link | None) -> Refusal | None:
        if remote is None:
            return Refusal.UNKNOWN
        limits = self.limits
        if link.side is Side.CLIENT:
            if limits.client_max_conn and len(link.peers) >= limits.client_max_conn:
                return Refusal.LIMIT
        elif limits.client_max_total and len(remote.peers) >= limits.client_max_total:
            return Refusal.REMOTE_LIMIT
        if remote.saturated:
            return Refusal.BUSY
        return None

    def _unpair(self, link: Link, peer: Link, conn_id: int) -> None:
        self.conn_ids.discard(conn_id)
        link.unpair(conn_id)
        peer.unpair(conn_id)
        self.stats.closed += 1

"""Who is connected, who talks to whom, and what each may do (spec sections 2 and 4).

Rule: this module knows a link as something to send to and to lose. It has no clock and no
sockets, and it decides everything: ids, dials, ownership, limits, closes. A test's link is a
list.

A virtual connection has no object of its own: it is its id in `Router.conn_ids` and an entry
`conn_id -> the other link` in the `peers` of both its ends. One look-up there answers who gets a
packet, whether its sender owns the connection, and how many connections a link has.

Nothing takes long at once: what would is cut into steps, and the shell calls `Router.work` between
its turns until `Router.unfinished` is false.

It is one file, a little long, because all of it reads and changes the same few tables.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Protocol, TypeVar, cast

from fastway.control import SERVICE_ID
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
    encode_packet,
    encode_refuse,
)

T = TypeVar("T")

SLICE = 64
"""Steps of one job that are done at once: ends told of a lost link, dials answered in a row."""


class Side(Enum):
    """Which port a link came in by. The ids of the two sides are different things."""

    CLIENT = "client"
    SERVER = "server"


_CLIENT, _SERVER = Side.CLIENT, Side.SERVER
_DIAL, _CLOSE, _PING = CommandType.DIAL, CommandType.CLOSE, CommandType.PING
"""Names for the hot path: 50 ns less than through the class, three times in a dial."""


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
    RATE = "the client dials more often than it may"
    GONE = "the dialler was lost before the answer came"

    @property
    def code(self) -> str:
        """How metrics name it."""
        return self.name.lower()


@dataclass(slots=True)
class Limits:
    """What a link may do.

    Attributes:
        client_max_conn: A client's dial is refused while it has this many virtual connections,
            whoever dialled them. 0: no limit.
        client_max_total: A server's dial to a client is refused while that client has this many.
            0: no limit.
        server_id_conflict: See `IdConflict`.
        client_max_dials: Dials of one client that may wait for their answers; with one more it
            is lost. Of these at most `client_max_conn`, less the connections it has, are being
            looked up: the others are refused as soon as those before them are answered.
        server_max_dials: The same of a server, whose dials are all looked up at once.
    """

    client_max_conn: int = 16
    client_max_total: int = 1024
    server_id_conflict: IdConflict = IdConflict.REPLACE
    client_max_dials: int = 1024
    server_max_dials: int = 65_536


@dataclass(slots=True)
class Stats:
    """Counters since the start. All only grow.

    At every moment: gained = live + lost, for each side;
    dials = accepted + refused + `Router.dials_waiting`;
    accepted = closed + the open virtual connections, `len(Router.conn_ids)`. One whose end was
    lost is open until the other end has been told.
    """

    gained: Counter[Side] = field(default_factory=Counter)
    """Links that got or brought their id."""
    lost: Counter[tuple[Side, Reason]] = field(default_factory=Counter)
    """Such links that went."""
    strangers: Counter[tuple[Side, Reason]] = field(default_factory=Counter)
    """Connections that went before they had an id: handshakes that failed."""
    dials: int = 0
    accepted: int = 0
    accepted_servers: int = 0
    """Of these, dials of servers."""
    refusals: Counter[tuple[Side, Refusal]] = field(default_factory=Counter)
    """Refused dials, by who dialled."""
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

    @property
    def turned_away(self) -> Counter[Reason]:
        """`strangers` of both sides."""
        return _of_both(self.strangers)

    @property
    def refused(self) -> Counter[Refusal]:
        """`refusals` of both sides."""
        return _of_both(self.refusals)


def _of_both(counts: Counter[tuple[Side, T]]) -> Counter[T]:
    both: Counter[T] = Counter()
    for (_, what), count in counts.items():
        both[what] += count
    return both


class Service(Protocol):
    """The gateway's end of a link's control connection, which is in no table of connections.

    Attributes:
        conn_id: Its virtual connection.
        busy: What its link sends has to wait, until it calls for the rest.
    """

    conn_id: int

    @property
    def busy(self) -> bool: ...

    def receive(self, packets: bytes, count: int) -> tuple[bytes, int]:
        """Packets came over it. Returns those that have to wait, and how many they are."""

    def connecting(self, conn_id: int, remote: Link) -> tuple[bytes, int]:
        """Packets that tell of a new connection and its far end, a Connect among them."""

    def closing(self, conn_id: int, reason: Reason) -> tuple[bytes, int]:
        """Packets that tell why a connection closes, a Close among them."""

    def losing(self, reason: Reason) -> None:
        """Its link is about to be lost."""

    def over(self) -> None:
        """Nothing more comes over it, and nothing may be sent."""


_NOBODY = cast("dict[int, Link]", MappingProxyType({}))
"""The peers of every link that never had one: a crowd that only connects has no dicts."""


class Link:
    """One physical connection, as the router sees it.

    The shell's subclass supplies `send` and `disconnect`.

    Attributes:
        link_id: The id by which the other side dials it; 0 before it is known.
        peers: conn_id -> the link at the other end, for each virtual connection.
        known: It has its id, so the router knows it.
        lost: Why it was lost; None while it lives. Nothing is sent to a lost link.
        dials: Its dials that wait for their answers, the oldest first; None: none does.
        dialled: All that it ever made,
        refused: and those of them that were refused, or that it did not live to see answered.
        routed: Whole packets of it that came to the router, commands included.
        service: Its control connection; None: it has none.
        dialable: Others may dial it.
    """

    __slots__ = (
        "dialled",
        "dials",
        "known",
        "link_id",
        "lost",
        "peers",
        "refused",
        "routed",
        "service",
    )

    side: Side
    dialable = True

    def __init__(self) -> None:
        self.link_id = 0
        self.known = False
        self.peers = _NOBODY
        self.lost: Reason | None = None
        self.dials: deque[Pending] | None = None
        self.dialled = self.refused = 0
        self.routed = 0
        self.service: Service | None = None

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

    def may_dial(self) -> bool:
        """It dials, and has not done so too often."""
        return True

    def pair(self, conn_id: int, peer: Link) -> None:
        """A virtual connection with `peer` is open from now on."""
        if self.peers is _NOBODY:
            self.peers = {}
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


class Pending:
    """A dial whose answer is not known yet.

    A look-up returns a new one for each such dial, keeps it, and calls `resolve` when it knows:
    later, or even before it returns. It must do so at some time, because the router has no clock
    and the dials behind it wait.

    Attributes:
        resolved: The answer is known.
    """

    __slots__ = ("_link", "_refusal", "_remote", "_remote_id", "_router", "resolved")

    def __init__(self) -> None:
        self.resolved = False
        self._remote: Link | None = None
        self._refusal: Refusal | None = None
        self._remote_id = 0
        self._link: Link | None = None
        self._router: Router | None = None

    def resolve(self, remote: Link | None) -> None:
        """The dial reaches `remote`, if that still lives; None: there is no such remote.

        The dialler and the remote may be sent to before this returns, so not to be called from
        within a link's `send`. A second call does nothing, and so does one for a dialler that
        was lost.
        """
        if self.resolved:
            return
        self.resolved = True
        self._remote = remote
        if self._router is not None and self._link is not None:
            self._router._resolved(self._link, self)


LookUp = Callable[[Link, int], "Link | Pending | None"]
"""Who a dial reaches: called with the dialler and the id that it dialled."""


class Router:
    """All links and virtual connections of one gateway.

    Args:
        limits: What links may do.
        conn_range: The ids of its virtual connections.
        client_range: The ids of its clients.
        look_up: Finds whom a dial reaches; None: this router's own tables, as `find`. It must
            not raise.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        conn_range: IdRange | None = None,
        client_range: IdRange | None = None,
        look_up: LookUp | None = None,
    ) -> None:
        self.limits = Limits() if limits is None else limits
        self.conn_range = IdRange() if conn_range is None else conn_range
        self.client_range = IdRange() if client_range is None else client_range
        self.look_up = look_up
        self.stats = Stats()
        self.clients: dict[int, Link] = {}
        self.servers: dict[int, list[Link]] = {}
        """server id -> its links, the newest last; the newest gets the dials."""
        self.conn_ids: set[int] = set()
        """The ids of all open virtual connections."""
        self.services: dict[int, Link] = {}
        """conn_id -> the link, for each control connection."""
        self.make_service: Callable[[Link, int], Service | None] | None = None
        """Makes the control connection of a link, or will not; None: there are none."""
        self.client_service_id: int | None = None
        """What clients dial for theirs; None: they have none."""
        self.introduce: Callable[[Link, Link, int], bytes] | None = None
        """What a server is told first, by the gateway, over the connection of a client; empty:
        nothing."""
        self.commands = 0
        """Commands, and runs of strays, that were carried out since the start."""
        self.dials_waiting = 0
        """Dials that are not answered yet, of all links."""
        self.jobs: deque[Iterator[None]] = deque()
        """What was begun and is not finished, the oldest first; each does a step when asked. Empty
        unless `unfinished`."""

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
        if side is _CLIENT:
            return self.clients.get(link_id)
        same_id = self.servers.get(link_id)
        return same_id[-1] if same_id else None

    def receive(self, link: Link, runs: Iterable[Run], most: int = MAX_ID) -> list[Run]:
        """Packets came from `link`: forward them, carry out the commands.

        A link that breaks the rules is lost, and the rest of its packets with it.

        Args:
            most: Commands, and runs of strays, that may be carried out now.

        Returns:
            What is left, beginning with a command: the runs for the next call.
        """
        if link.lost is not None:
            return []
        if link.service is not None and link.service.busy:
            return list(runs)
        stats = self.stats
        peers = link.peers
        packets = size = 0
        rest = iter(runs)
        for conn_id, data, count in rest:
            peer = peers.get(conn_id) if conn_id else None
            if peer is not None and peer.lost is None:
                peer.send(data, count)
                packets += count
                size += len(data)
                continue
            if packets:
                # What follows may look at the counters.
                link.routed += packets
                stats.packets += packets
                stats.bytes += size
                packets = size = 0
            if peer is not None:
                link.routed += count
                continue  # it was lost, and this end has not been told yet
            if most <= 0:
                return [(conn_id, data, count), *rest]
            service = link.service
            if service is not None and service.conn_id == conn_id:
                left, waiting = service.receive(data, count)
                most -= count - waiting
                self.commands += count - waiting
                link.routed += count - waiting
                if link.lost is not None:
                    return []
                if waiting:
                    return [(conn_id, left, waiting), *rest]
                if service.busy:
                    return list(rest)
                peers = link.peers
                continue
            most -= 1
            self.commands += 1
            link.routed += count
            if conn_id:
                self._stray(link, conn_id, count)
            else:
                try:
                    self._command(link, data)
                except RemoteError as error:
                    self.lose(link, error.reason, str(error))
            if link.lost is not None:
                return []
            peers = link.peers
        if packets:
            link.routed += packets
            stats.packets += packets
            stats.bytes += size
        return []

    def close(self, link: Link, conn_id: int) -> None:
        """`link` closes a virtual connection: both ends are told. No effect unless it owns it."""
        peer = link.peers.get(conn_id)
        if peer is None:
            if link.service is not None and link.service.conn_id == conn_id:
                self.end_service(link)
            elif conn_id in self.conn_ids or conn_id in self.services:
                self.stats.foreign_closes += 1
            return
        self._unpair(link, peer, conn_id)
        reason = Reason.PEER_CLOSED if link.side is _CLIENT else Reason.SERVER_CLOSED
        _tell_close(link, conn_id, reason)
        _tell_close(peer, conn_id, reason)

    def end_service(self, link: Link) -> None:
        """A link's control connection ends; the link is told, and may ask for another."""
        service, link.service = link.service, None
        if service is None:
            return
        del self.services[service.conn_id]
        if link.lost is None:
            link.send(encode_close(service.conn_id), 1)
        service.over()

    def lose(self, link: Link, reason: Reason, detail: str = "") -> None:
        """Forget a link, tell the other end of each of its connections, and disconnect it.

        The one way by which links go, whoever found out first. A second call does nothing. Of
        many ends the first are told at once and the others by `work`. Until then their
        connections are open: what they send over them is dropped, and they may close them.
        """
        if link.lost is not None:
            return
        if link.service is not None:
            link.service.losing(reason)
        link.lost = reason
        self.end_service(link)
        self._forget(link)
        if link.dials is not None:
            self.stats.refusals[link.side, Refusal.GONE] += len(link.dials)
            self.dials_waiting -= len(link.dials)
            link.refused += len(link.dials)
            link.dials = None
        if link.known:
            self.stats.lost[link.side, reason] += 1
        else:
            self.stats.strangers[link.side, reason] += 1
        if link.peers:
            self.begin(self._tell_ends(link))
        link.disconnect(reason, detail)

    @property
    def unfinished(self) -> bool:
        """Something is left for `work`."""
        return bool(self.jobs)

    def work(self, steps: int = SLICE) -> bool:
        """Go on with what was begun; links may be sent to. Returns `unfinished`.

        Args:
            steps: How many to do at most: a step tells one end of a lost link, or answers one
                dial that has waited.
        """
        jobs = self.jobs
        while jobs and steps > 0:
            if _step(jobs[0]):
                steps -= 1
            else:
                jobs.popleft()
        return bool(jobs)

    def begin(self, job: Iterator[None]) -> None:
        """Do the first steps of a job, and the others by `work`."""
        for _ in range(SLICE):
            if not _step(job):
                return
        self.jobs.append(job)

    def _tell_ends(self, link: Link) -> Iterator[None]:
        """Close the virtual connections of a lost link, one a step."""
        # A copy of the ids, about 10 ns each: ends may close some of them meanwhile.
        for conn_id in list(link.peers):
            peer = link.peers.get(conn_id)
            if peer is not None:
                self._unpair(link, peer, conn_id)
                _tell_close(peer, conn_id, link.lost or Reason.CONNECTION_LOST)
            yield

    def _forget(self, link: Link) -> None:
        if link.side is _CLIENT:
            if self.clients.get(link.link_id) is link:
                del self.clients[link.link_id]
            return
        same_id = self.servers.get(link.link_id, [])
        if link in same_id:
            same_id.remove(link)
            if not same_id:
                del self.servers[link.link_id]

    def _stray(self, link: Link, conn_id: int, count: int) -> None:
        if conn_id in self.conn_ids or conn_id in self.services:
            self.lose(link, Reason.NOT_OWNER, f"virtual connection {conn_id}")
            return
        self.stats.strays += count
        link.send(encode_close(conn_id) * count, count)

    def _command(self, link: Link, frame: bytes) -> None:
        kind, conn_id, remote_id = decode_command(frame)
        if kind is _DIAL:
            self.dial(link, remote_id)
        elif kind is _CLOSE:
            self.close(link, conn_id)
        elif kind is _PING:
            self.stats.pings += 1
            link.send(frame, 1)
        else:
            raise BadCommand(kind, len(frame) - HEAD)

    def dial(self, link: Link, remote_id: int) -> None:
        """`link` dials. It is sent the answer, mostly at once; see `Pending`."""
        if remote_id == (SERVICE_ID if link.side is _SERVER else self.client_service_id):
            self._serve(link, remote_id)
            return
        self.stats.dials += 1
        link.dialled += 1
        refusal = None if link.may_dial() else Refusal.RATE
        if self.look_up is None and link.dials is None:
            self._answer(link, remote_id, self._find_remote(link, remote_id), refusal)
        else:
            self._ask(link, remote_id, refusal)

    def _serve(self, link: Link, remote_id: int) -> None:
        """`link` asks for a control connection: no dial of another, and answered before those."""
        conn_id = 0
        if self.make_service is not None and link.service is None:
            conn_id = self._take_conn_id()
            link.service = self.make_service(link, conn_id) if conn_id else None
        if link.service is None or link.service.conn_id != conn_id:
            link.send(encode_refuse(remote_id), 1)
            return
        self.services[conn_id] = link
        link.send(encode_accept(conn_id, remote_id), 1)

    def _take_conn_id(self) -> int:
        """An id that is free; 0: too many are in use."""
        for _ in range(len(self.services) + 1):
            conn_id = self.conn_range.take(self.conn_ids)
            if conn_id not in self.services:
                return conn_id
        return 0

    def _find_remote(self, link: Link, remote_id: int) -> Link | None:
        return self.find(_SERVER if link.side is _CLIENT else _CLIENT, remote_id)

    def _answer(
        self, link: Link, remote_id: int, remote: Link | None, refusal: Refusal | None = None
    ) -> None:
        """Accept a dial or refuse it."""
        stats = self.stats
        if refusal is None:
            refusal = self._refusal(link, remote)
        conn_id = 0 if refusal is not None else self._take_conn_id()
        if remote is None or not conn_id:
            stats.refusals[link.side, refusal or Refusal.NO_ID] += 1
            link.refused += 1
            link.send(encode_refuse(remote_id), 1)
            return
        self.conn_ids.add(conn_id)
        stats.accepted += 1
        if link.side is _SERVER:
            stats.accepted_servers += 1
        link.pair(conn_id, remote)
        remote.pair(conn_id, link)
        link.send(encode_accept(conn_id, remote_id), 1)
        if remote.service is None:
            remote.send(encode_connect(conn_id, link.link_id), 1)
        else:
            remote.send(*remote.service.connecting(conn_id, link))
        if self.introduce is not None and link.side is _CLIENT:
            message = self.introduce(link, remote, conn_id)
            if message:
                remote.send(encode_packet(conn_id, message), 1)

    def _ask(self, link: Link, remote_id: int, refusal: Refusal | None) -> None:
        """A dial whose answer may have to wait: for its look-up, or for the dials before it."""
        limits = self.limits
        client = link.side is _CLIENT
        waiting = 0 if link.dials is None else len(link.dials)
        found: Link | Pending | None = None
        self.dials_waiting += 1
        if waiting >= (limits.client_max_dials if client else limits.server_max_dials):
            link.refused += 1
            self.lose(link, Reason.TOO_MANY_DIALS, f"{waiting} dials")
        elif client and 0 < limits.client_max_conn <= len(link.peers) + waiting:
            refusal = refusal or Refusal.LIMIT
        elif refusal is None:
            found = (self.look_up or self._find_remote)(link, remote_id)
        if link.lost is not None:
            self.dials_waiting -= 1
            self.stats.refusals[link.side, Refusal.GONE] += 1
            return
        if isinstance(found, Pending):
            dial = found
        elif link.dials is None:
            self.dials_waiting -= 1
            self._answer(link, remote_id, found, refusal)
            return
        else:
            dial = Pending()
            dial.resolve(found)
        dial._router = self
        dial._link = link
        dial._remote_id = remote_id
        dial._refusal = refusal
        if link.dials is None:
            link.dials = deque()
        link.dials.append(dial)
        if dial.resolved:
            self._resolved(link, dial)

    def _resolved(self, link: Link, dial: Pending) -> None:
        """The answer to a dial that waits is known: give it, if its turn has come."""
        if link.dials is not None and link.dials[0] is dial:
            self.begin(self._answer_dials(link))

    def _answer_dials(self, link: Link) -> Iterator[None]:
        """Answer the dials of a link whose turn has come, one a step."""
        while link.dials is not None and link.dials[0].resolved:
            dial = link.dials.popleft()
            if not link.dials:
                link.dials = None
            self.dials_waiting -= 1
            self._answer(link, dial._remote_id, dial._remote, dial._refusal)
            yield

    def _refusal(self, link: Link, remote: Link | None) -> Refusal | None:
        if remote is None or remote.lost is not None or not remote.dialable:
            return Refusal.UNKNOWN
        limits = self.limits
        if link.side is _CLIENT:
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


def _tell_close(link: Link, conn_id: int, reason: Reason) -> None:
    """Tell one end that a virtual connection is closed."""
    if link.lost is not None:
        return
    if link.service is None:
        link.send(encode_close(conn_id), 1)
    else:
        link.send(*link.service.closing(conn_id, reason))


def _step(job: Iterator[None]) -> bool:
    """Have a job do its next step; False: it is done."""
    return next(job, _DONE) is not _DONE


_DONE = object()

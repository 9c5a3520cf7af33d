"""The gateway's end of control connections: who hears what of whom, and when.

Rule: what requests mean is `requests`'; here they meet the router, the lanes and the clock. A
control connection ends alone: nothing that comes over it costs its link. (spec control.md)

What is on its way to an end is counted from above: those events at the last mark that are perhaps
not taken yet, and those since. So an event costs a look at the lane only once in a while.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fastway import __version__
from fastway.control import (
    Bye,
    Draining,
    LostEvents,
    Moved,
    Want,
    encode,
)
from fastway.errors import BadControl, Cause, Reason
from fastway.gateway.bounds import COMMANDS_EACH
from fastway.gateway.lane import Lane, Waiter
from fastway.gateway.link import Farewell, GatewayLink
from fastway.gateway.players import address_of, player_facts
from fastway.gateway.requests import (
    CLIENT_VERBS,
    CLIENT_WANTS,
    SERVER_VERBS,
    SERVER_WANTS,
    Requests,
    Terms,
)
from fastway.logs import Throttle, make_logger
from fastway.router import Link, Router, Side
from fastway.wheel import Wheel
from fastway.wire import HEAD, encode_close, encode_connect, encode_packet

log = make_logger("fastway.gateway")

RATE = 1000
"""Requests of one link that are carried out in one second."""

LEAST_PACKET = 4 * 1024
"""Where packets are smaller there is no control connection: facts would not fit."""

AGAIN = 1.0
"""Seconds until it is looked again whether one that lost events reads."""


@dataclass(slots=True)
class ControlConfig:
    """The bounds of control connections, and what they may.

    Attributes:
        gateway: What servers are told of its name.
        queue: Messages that may wait for one end; past that it loses events.
        queue_bytes: Their bytes.
        groups: Groups that a server may have.
        group_members: Members that one may have.
        kick_servers: Ids of servers that may kick any client.
    """

    gateway: str = "fastway"
    queue: int = 1000
    queue_bytes: int = 4 * 1024 * 1024
    groups: int = 10_000
    group_members: int = 100_000
    kick_servers: Container[int] = field(default_factory=frozenset)


class ControlService(Protocol):
    """What control connections need of the service that all ports share."""

    clock: IReactorTime
    router: Router
    wheel: Wheel
    quiet: Throttle

    def flush(self, source: Lane | None = None) -> None:
        """End a batch that `source` made."""

    def wait_for_turn(self, lane: Waiter) -> None:
        """`lane.go_on` is to be called in another turn."""


class Controls:
    """All control connections of a gateway.

    Args:
        service: What all ports share.

    Attributes:
        config: Their bounds.
        draining: What all were told of the gateway's end; None: it goes on.
        wall: The time of day, in seconds since 1970.
        lost: Events that were dropped since the start, of all ends.
    """

    def __init__(self, service: ControlService, wall: Callable[[], float] = time.time) -> None:
        self.service = service
        self.config = ControlConfig()
        self.draining: Draining | None = None
        self.wall = wall
        self.lost = 0
        service.router.make_service = self.make

    def make(self, link: Link, conn_id: int) -> ControlEnd | None:
        """The control connection of a link that asks for one."""
        if not isinstance(link, GatewayLink) or link.factory.config.max_packet < LEAST_PACKET:
            return None
        return ControlEnd(self, link, conn_id)

    def ends(self) -> list[ControlEnd]:
        """All that there are."""
        links = list(self.service.router.services.values())
        return [link.service for link in links if isinstance(link.service, ControlEnd)]

    def tell_drain(self, at: float, until: float | None, again: bool = False) -> None:
        """Tell all who want to know, now or later, that the gateway will close.

        Args:
            at: When it begins, in seconds since 1970.
            until: When it is done, if that is known.
            again: A successor listens at the same address.
        """
        self.draining = Draining(at, until, again)
        self.service.router.begin(self._tell_all(self.draining))
        self.service.flush()

    def drain_is_over(self) -> None:
        """It goes on after all: nobody else is told."""
        self.draining = None

    def _tell_all(self, draining: Draining) -> Iterator[None]:
        for end in self.ends():
            end.tell(Want.DRAIN, draining)
            yield

    def moved(self, link: GatewayLink) -> None:
        """A client came back from another address."""
        event = Moved(link.link_id, address_of(link.facts)[0])
        for peer in dict.fromkeys(link.peers.values()):
            if isinstance(peer.service, ControlEnd):
                peer.service.tell(Want.MOVED, event)

    def facts(self, link: GatewayLink) -> bytes:
        """The facts of a client as a JSON object; made once as long as they are the same."""
        spoken = link.spoken
        if spoken is None or spoken[0] is not link.facts or spoken[1] is not link.user:
            age = self.service.wheel.seconds() - link.since
            since = round(self.wall() - age, 3) if spoken is None else spoken[2]
            told = player_facts(link.link_id, link.facts, link.user, since)
            spoken = link.spoken = link.facts, link.user, since, encode(told.fields())
        return spoken[3]


class ControlEnd:
    """The gateway's end of one control connection.

    Attributes:
        link: Whose it is.
        conn_id: Its virtual connection.
        slot: The wheel's note.
    """

    costs = COMMANDS_EACH

    __slots__ = (
        "_before",
        "_hub",
        "_job",
        "_lost",
        "_mark",
        "_parked",
        "_requests",
        "_since",
        "_timer",
        "_used",
        "_window",
        "conn_id",
        "link",
        "slot",
    )

    def __init__(self, hub: Controls, link: GatewayLink, conn_id: int) -> None:
        self.link = link
        self.conn_id = conn_id
        self.slot = -1
        self._hub = hub
        config = hub.config
        server = link.side is Side.SERVER
        terms = Terms(
            config.gateway if server else "fastway",
            __version__,
            link.factory.config.max_packet,
            config.groups,
            config.group_members,
        )
        self._requests = (
            Requests(self, terms, SERVER_VERBS, SERVER_WANTS)
            if server
            else Requests(self, terms, CLIENT_VERBS, CLIENT_WANTS)
        )
        self._job: Iterator[None] | None = None
        """What is left of a request,"""
        self._timer: IDelayedCall | None = None
        """or it asked too much in this second,"""
        self._parked: Waiter | None = None
        """for which its lane waits."""
        self._window = 0.0
        self._used = 0
        """Requests since then, within a second."""
        self._mark = 0
        """Up to here its lane had been sent bytes;"""
        self._before = (0, 0)
        """messages, and their bytes, that were among them and may wait,"""
        self._since = (0, 0)
        """and those that came since."""
        self._lost = 0
        """Events that it was not told, and does not know of."""

    # What the router calls.

    @property
    def busy(self) -> bool:
        return self._job is not None or self._timer is not None

    def receive(self, packets: bytes, count: int) -> tuple[bytes, int]:
        at = 0
        while count and not self._requests.over:
            if self.busy or not self._may_ask():
                return packets[at:], count
            following = at + 4 + int.from_bytes(packets[at : at + 4], "little")
            message = packets[at + HEAD : following]
            at = following
            count -= 1
            try:
                self._job = self._requests.receive(message)
            except BadControl as error:
                self._broke(error)
            if self._job is not None:
                self._hub.service.wait_for_turn(self)
        return b"", 0

    def connecting(self, conn_id: int, remote: Link) -> tuple[bytes, int]:
        want = self._requests.want
        if not want or not isinstance(remote, GatewayLink):
            return encode_connect(conn_id, remote.link_id), 1
        inline = Want.INLINE in want
        if Want.OPEN not in want and not (inline and Want.CLOSED not in want):
            return encode_connect(conn_id, remote.link_id), 1
        event = b'{"op":"open","conn":%d,' % conn_id + self._hub.facts(remote)[1:]
        if not self._room(len(event)):
            return encode_connect(conn_id, remote.link_id), 1
        if inline:
            return encode_connect(conn_id, remote.link_id, event), 1
        connect = encode_connect(conn_id, remote.link_id)
        return encode_packet(self.conn_id, event) + connect, 2

    def closing(self, conn_id: int, reason: Reason) -> tuple[bytes, int]:
        self._requests.groups.conn_closed(conn_id)
        want = self._requests.want
        if not want:
            return encode_close(conn_id), 1
        inline = Want.INLINE in want
        if Want.CLOSED not in want and not (inline and Want.OPEN not in want):
            return encode_close(conn_id), 1
        event = b'{"op":"closed","conn":%d,"reason":"%s"}' % (conn_id, reason.code.encode())
        if not self._room(len(event)):
            return encode_close(conn_id), 1
        if inline:
            return encode_close(conn_id, event), 1
        return encode_packet(self.conn_id, event) + encode_close(conn_id), 2

    def losing(self, reason: Reason) -> None:
        if reason.cause is Cause.GATEWAY and not reason.aborts and self._requests.want is not None:
            farewell = self.link.farewell
            code = reason.close_code if farewell is None else farewell.close_code
            self.say(encode(Bye(code, reason.code).fields()))

    def over(self) -> None:
        self._requests.over = True
        self._requests.groups.clear()
        self._job = None
        self._hub.service.wheel.forget(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._free()

    # What the link calls.

    def park(self, lane: Waiter) -> bool:
        """Its lane has more, which has to wait for this; False: it has not."""
        if not self.busy:
            return False
        self._parked = lane
        return True

    # Events.

    def tell(self, want: Want, event: Draining | Moved) -> None:
        """Tell it, if it wants to know."""
        if self._requests.want and want in self._requests.want:
            message = encode(event.fields())
            if self._room(len(message)):
                self.say(message)

    def _room(self, size: int) -> bool:
        """An event of so many bytes may go on its way; else it is lost."""
        if not self._fits(size):
            self._lost += 1
            self._hub.lost += 1
            if self._lost == 1:
                wheel = self._hub.service.wheel
                wheel.watch(self, wheel.seconds() + AGAIN)
            return False
        if self._lost:
            self._tell_lost()
        self._count(size)
        return True

    def _fits(self, size: int) -> bool:
        config = self._hub.config
        if self._below(self._since, config, 2) and self._below(self._both, config, 1, size):
            return True
        added, taken = self.link.lane.progress()
        if taken >= self._mark:
            self._before = (0, 0)
            if added == taken:
                self._since = (0, 0)
        if self._before == (0, 0) and not self._below(self._since, config, 2):
            self._mark, self._before, self._since = added, self._since, (0, 0)
        return self._below(self._both, config, 1, size)

    @property
    def _both(self) -> tuple[int, int]:
        before, since = self._before, self._since
        return before[0] + since[0], before[1] + since[1]

    @staticmethod
    def _below(waiting: tuple[int, int], config: ControlConfig, part: int, size: int = 0) -> bool:
        return part * waiting[0] < config.queue and part * waiting[1] + size <= config.queue_bytes

    def _count(self, size: int) -> None:
        self._since = self._since[0] + 1, self._since[1] + size

    def _tell_lost(self) -> None:
        lost, self._lost = self._lost, 0
        self._hub.service.wheel.forget(self)
        self.say(encode(LostEvents(lost).fields()))

    def check(self, now: float) -> float | None:
        """It lost events; if it reads again it is told."""
        if not self._fits(0):
            return now + AGAIN
        self._tell_lost()
        self._hub.service.flush()
        return None

    # What is asked: see requests.World.

    def say(self, message: bytes) -> None:
        self._count(len(message))
        self.link.send(encode_packet(self.conn_id, message), 1)

    def greeted(self) -> None:
        if self._hub.draining is not None:
            self.tell(Want.DRAIN, self._hub.draining)

    def unix(self) -> float:
        return round(self._hub.wall(), 3)

    def conns(self) -> Mapping[int, Any]:
        return self.link.peers

    def client(self, conn_id: int) -> int:
        return self.link.peers[conn_id].link_id

    def _client(self, client: int) -> GatewayLink | None:
        return cast("GatewayLink | None", self._hub.service.router.clients.get(client))

    def facts(self, client: int) -> bytes | None:
        link = self._client(client)
        return None if link is None else self._hub.facts(link)

    def may_kick(self, client: int) -> bool:
        if self.link.link_id in self._hub.config.kick_servers:
            return True
        link = self._client(client)
        if link is None:
            return any(peer.link_id == client for peer in self.link.peers.values())
        # The fewer are looked through: a client has some, a server perhaps all.
        return self.link in link.peers.values()

    def kick(self, client: int, code: int, text: str) -> None:
        link = self._client(client)
        if link is not None:
            link.farewell = Farewell(code, text)
            detail = f"server {self.link.link_id}" + (f": {text}" if text else "")
            self._hub.service.router.lose(link, Reason.KICKED_BY_SERVER, detail)

    def name(self, client: int, user: str) -> None:
        link = self._client(client)
        if link is not None:
            link.user = user

    def multicast(self, conn_ids: array[int], message: bytes) -> list[int]:
        missing: list[int] = []
        peers = self.link.peers
        packets = 0
        for conn_id in self.link.lane.multicast(conn_ids, message):
            peer = peers.get(conn_id)
            if peer is None or peer.lost is not None:
                missing.append(conn_id)
            else:
                peer.send(encode_packet(conn_id, message), 1)
                packets += 1
        stats = self._hub.service.router.stats
        stats.packets += packets
        stats.bytes += packets * (HEAD + len(message))
        return missing

    # Inside.

    def _may_ask(self) -> bool:
        """This second has room for another request; else it waits for the next one."""
        clock = self._hub.service.clock
        now = clock.seconds()
        if not self._window <= now < self._window + 1:
            self._window, self._used = now, 0
        if self._used < RATE:
            self._used += 1
            return True
        self._timer = clock.callLater(self._window + 1 - now, self._next_second)
        return False

    def _next_second(self) -> None:
        self._timer = None
        self._free()

    def go_on(self) -> None:
        """The next step of what is left of a request."""
        job = self._job
        if job is None:
            return
        if next(job, job) is job:
            self._job = None
            self._free()
        else:
            self._hub.service.wait_for_turn(self)
        self._hub.service.flush(self.link.lane)

    def _free(self) -> None:
        lane, self._parked = self._parked, None
        if lane is not None:
            self._hub.service.wait_for_turn(lane)

    def _broke(self, error: BadControl) -> None:
        link = self.link
        self._hub.service.quiet.warn(
            log,
            f"{link.side.value} control",
            link.facts.host,
            "{side} {id} {addr}: its control connection is closed: {problem}",
            side=link.side.value,
            id=link.link_id,
            addr=link.facts.name,
            problem=str(error),
        )
        self._hub.service.router.end_service(link)

"""A link: one physical connection as the router and the operator see it.

Rule: here is what a link is (its facts), how it gets in, and what its ends mean; what it may do is
the router's, and how its bytes move its lane's.

States: opening (its prefaces are under way) -> known (it has its id) -> lost, in which it gets up
to LINGER seconds to take what is on its way -> gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress

from fastway.address import address_name
from fastway.causes import cause_of
from fastway.errors import (
    FrameTooLarge,
    FrameTooShort,
    Reason,
    RemoteError,
    StreamLost,
)
from fastway.gateway.bounds import LINGER, PortConfig
from fastway.gateway.ends import End as EndRow
from fastway.gateway.ends import Ender
from fastway.gateway.facts import Direct, Facts, facts_of
from fastway.gateway.gate import Door
from fastway.gateway.lane import Counts, End, Framing, Lane, Turned, Waiter
from fastway.gateway.limits import Bucket
from fastway.gateway.preface import (
    SECURE_TIMEOUT,
    TIMEOUT,
    Chain,
    PrefaceFactory,
    ToldRefused,
)
from fastway.gateway.tally import Tally
from fastway.logs import NO_ID, Throttle, escaped, make_logger
from fastway.router import IdConflict, Link, Router, Side
from fastway.wheel import Wheel
from fastway.wire import MIN_LENGTH, Run

log = make_logger("fastway.gateway")

SILENT = (Reason.PEER_CLOSED, Reason.CONNECTION_LOST)
"""Ends that are worth no line where nothing ever came, or a proxy spoke for itself: its health
checks."""


_CONFLICT = {
    IdConflict.REPLACE: "new dials go to it, the older keeps what it has",
    IdConflict.EVICT: "the older is lost",
    IdConflict.REJECT: "it is lost",
}


class Farewell(NamedTuple):
    """What a WebSocket client is told in place of a Reason's."""

    close_code: int
    value: str


class Moves(Protocol):
    """Who is told of streams that came back from elsewhere."""

    def moved(self, link: GatewayLink) -> None: ...


class Parks(Protocol):
    """A control connection, to a lane."""

    def park(self, lane: Waiter) -> bool: ...


class LinkService(Protocol):
    """What a link needs of the service that all ports share (`service.RouterService`).

    Attributes:
        connected: Links that are not gone.
        turned: Links that have something to do at the end of the batch.
        stopping: The gateway stops.
        tally: Where those count that came in.
        enders: Who is told of links that are lost.
    """

    enders: list[Ender]
    router: Router
    wheel: Wheel
    tally: Tally
    turned: list[Turned]
    stopping: bool

    @property
    def control(self) -> Moves: ...

    @property
    def connected(self) -> set[GatewayLink]: ...

    def flush(self) -> None:
        """End a batch."""

    def link_gone(self) -> None:
        """Another one is gone."""


class LinkPort(Protocol):
    """What a link needs of its port (`factories.GatewayFactory`).

    Attributes:
        side: Whose port it is.
        prefaces: What comes before a link may talk, behind what its proxy says.
        quiet: For lines that strangers can cause.
        links: Connections that are open.
        handshakes: Those of them that are at their prefaces.
        door: Who may come in by it.
        direct: Where its connections lead, if they know no packets.
    """

    side: Side
    direct: Direct | None
    config: PortConfig
    prefaces: tuple[PrefaceFactory, ...]
    quiet: Throttle
    links: int
    handshakes: dict[GatewayLink, float]
    door: Door

    @property
    def service(self) -> LinkService: ...

    def handshake_begins(self, link: GatewayLink) -> None:
        """One more is at its prefaces."""

    def refuses(self, facts: Facts) -> str:
        """Why who is so may not come in; empty: it may."""


class GatewayLink(Link):
    """One connection of one port.

    Attributes:
        facts: Who it is.
        lane: What carries its bytes.
        since: When it connected, in the wheel's time.
        slot: The wheel's note.
        user: The name of the player, if a server told it.
        farewell: What it is told at its end, in place of the reason's.
        spoken: Its facts as servers are told them: of which, whose user, since when, the JSON.
    """

    __slots__ = (
        "__weakref__",
        "_chain",
        "_told",
        "factory",
        "facts",
        "farewell",
        "lane",
        "since",
        "slot",
        "spoken",
        "user",
    )

    def __init__(self, factory: LinkPort, lane: Lane, facts: Facts) -> None:
        super().__init__()
        self.factory = factory
        self.lane = lane
        self.facts = facts
        self.since = factory.service.wheel.seconds()
        self.slot = -1
        self.user: str | None = None
        self.farewell: Farewell | None = None
        self.spoken: tuple[Facts, str | None, float, bytes] | None = None
        self._chain: Chain | None = None
        self._told = False
        """The log has a line about it."""

    @property
    def packets_in(self) -> int:
        return self.lane.counts().packets_in + self.routed

    @property
    def cut_since(self) -> float | None:
        """When its resumable transport was cut, in the wheel's time."""
        since: float | None = getattr(self.lane, "cut_since", None)
        return since

    @property
    def resumes(self) -> int:
        """How often its resumable transport came back."""
        resumes: int = getattr(self.lane, "resumes", 0)
        return resumes

    def counts(self) -> Counts:
        """What came and went, and waits."""
        counts = self.lane.counts()
        return counts._replace(packets_in=counts.packets_in + self.routed)

    def begin(self, prefaces: Sequence[PrefaceFactory]) -> None:
        """Its lane is connected: say what comes first, or let it in.

        A TLS handshake counts among its prefaces: with a deadline of its own, and one of those of
        which so many may be under way.

        Args:
            prefaces: Those that come before it may talk.
        """
        service = self.factory.service
        service.connected.add(self)
        securing = self.lane.securing
        if not securing:
            self._is_known_by(self.lane.secured())  # of the connection below a stream
        if not (securing or prefaces):
            self._admit(b"")
            return
        self._chain = Chain(self.facts, prefaces, self._was_told)
        first = self._chain.begin()
        if first:
            self.lane.write(first)
        self._watch(SECURE_TIMEOUT if securing and not self._chain.timed else self._chain.seconds)
        log.debug("{side} ? {addr} connected", side=self.side.value, addr=self.facts.name)
        self.factory.handshake_begins(self)

    def _watch(self, seconds: float) -> None:
        """What it is at now may take so long."""
        wheel = self.factory.service.wheel
        wheel.forget(self)
        wheel.watch(self, wheel.seconds() + seconds)

    def _is_known_by(self, told: dict[str, str]) -> None:
        """More is known of it."""
        if told:
            self.facts = replace(self.facts, **cast(Any, told))
            if self._chain is not None:
                self._chain.facts = self.facts

    def _was_told(self, facts: Facts) -> Reason | None:
        """A proxy told whom it is from: why those may not come in, if so."""
        if self.lane.admitted is not None:
            return None  # its own address was asked
        entry = self.factory.door.admit_told(facts.host)
        if isinstance(entry, Reason):
            return entry
        self.lane.admitted = entry
        return None

    def recheck(self) -> bool:
        """It may be here, or it is lost: what is known of it, or who may come in, has changed."""
        problem = self.factory.refuses(self.facts)
        if problem:
            self._lose(Reason.NOT_ALLOWED, f"{self.facts.server_id}: {problem}")
        return not problem

    def _admit(self, rest: bytes, framing: Framing | None = None) -> None:
        service = self.factory.service
        router = service.router
        if not self.recheck():
            return
        if self.side is Side.CLIENT:
            router.add_client(self)
        else:
            server_id = self.facts.server_id
            assert server_id is not None
            older = router.find(Side.SERVER, server_id)
            fields: dict[str, Any] = {"id": server_id, "addr": self.facts.name}
            fields.update(side=self.side.value, **self.facts.fields)
            fields["via"] = self.facts.via
            who = ", as {identity}" if self.facts.identity else ""
            log.info("{side} {id} {addr}" + self._way + " logged in" + who, **fields)
            self._told = True
            if isinstance(older, GatewayLink):
                log.info(
                    "{side} {id} {addr} has the id of {older}: {conflict}",
                    older=older.facts.name,
                    conflict=_CONFLICT[router.limits.server_id_conflict],
                    **fields,
                )
            router.add_server(self, server_id)
        self._came_in()
        if self.lost is None:
            self.lane.start(rest, framing)

    def _came_in(self) -> None:
        """It counts, if it got its id; it may be lost already."""
        if self.known:
            self.factory.service.tally.comes(self.side, self.facts.transport)

    # What the lane reports.

    def bytes_came(self, data: bytes) -> None:
        chain = self._chain
        if chain is None or self.lost is not None:
            return
        timed = chain.timed
        try:
            answer, rest = chain.feed(data)
        except RemoteError as error:
            self._chain = None
            self.facts = chain.facts
            if error.answer:
                self.lane.write(error.answer)
            detail = "" if str(error) == error.reason.value else str(error)
            self._lose(error.reason, detail)
            if isinstance(error, ToldRefused) and not error.answer:
                self.lane.close(End.ABORT)
            return
        if answer:
            self.lane.write(answer)
        self.facts = chain.facts
        if rest is None:
            if chain.timed is not timed:
                self._watch(chain.seconds)
            return
        if chain.secure is not None:
            connection, chain.secure = chain.secure, None
            self.lane.secure(connection, rest)
            first = chain.begin()
            if first:
                self.lane.write(first)
            self.is_secure()
            return
        self._chain = None
        self.factory.handshakes.pop(self, None)
        self.factory.service.wheel.forget(self)
        self._admit(rest, chain.framing)

    def is_secure(self) -> None:
        if self._chain is None or self.lost is not None:
            return
        self._is_known_by(self.lane.secured())
        if self._chain.over:
            self.bytes_came(b"")
        else:
            self._watch(TIMEOUT)

    def packets_came(self, runs: Iterable[Run], most: int) -> list[Run]:
        return self.factory.service.router.receive(self, runs, most)

    def parks(self, lane: Waiter) -> bool:
        return self.service is not None and cast(Parks, self.service).park(lane)

    def comes_from(self, address: IAddress) -> None:
        name = address_name(address)
        if name == self.facts.name:
            return
        self.facts = replace(self.facts, name=name, via=self.facts.name)
        if self._chain is not None:
            self._chain.facts = self.facts

    def peer_ended(self) -> None:
        self._lose(Reason.PEER_CLOSED)

    def broke(self, length: int) -> None:
        limit = self.factory.config.max_packet
        error = FrameTooShort(length) if length < MIN_LENGTH else FrameTooLarge(length, limit)
        self._lose(error.reason, str(error))

    def misframed(self, error: RemoteError) -> None:
        self._lose(error.reason, str(error))

    def went_idle(self) -> None:
        self._lose(Reason.IDLE_TIMEOUT)

    def got_stuck(self) -> None:
        self._lose(Reason.WRITE_TIMEOUT)

    def went_over(self, packets: int, size: int) -> None:
        self._lose(Reason.SLOW_READER, f"{packets} packets, {size} bytes")

    def had_no_memory(self) -> None:
        self._lose(Reason.NO_MEMORY)

    def was_cut(self) -> None:
        if not self.known:
            # Who has proved nothing does not take the place of one who may come back.
            self.factory.service.router.lose(self, Reason.CONNECTION_LOST)
            self.lane.close(End.ABORT)
            return
        log.info(
            "{side} {id} {addr} cut: it may come back",
            side=self.side.value,
            id=self.link_id,
            addr=self.facts.name,
        )

    def came_back(self, address: IAddress, seconds: float, replayed: int) -> None:
        server_id, before = self.facts.server_id, self.facts.host
        self.facts = replace(facts_of(address, self.facts.transport), server_id=server_id)
        self._is_known_by(self.lane.secured())
        if not self.recheck():
            return
        if self.side is Side.CLIENT and self.facts.host != before:
            self.factory.service.control.moved(self)
            self.factory.service.flush()
        log.info(
            "{side} {id} {addr} resumed after {seconds:.1f} s, {replayed} bytes sent again",
            side=self.side.value,
            id=self.link_id,
            addr=self.facts.name,
            seconds=seconds,
            replayed=replayed,
        )

    def gone(self, error: Exception | None) -> None:
        service = self.factory.service
        service.wheel.forget(self)
        service.connected.discard(self)
        self.factory.handshakes.pop(self, None)
        self.factory.links -= 1
        if isinstance(error, StreamLost):
            self._lose(error.reason, error.detail)
        elif error is None:
            self._lose(Reason.PEER_CLOSED)
        else:
            self._lose(
                Reason.CONNECTION_LOST, "" if type(error) is ConnectionLost else cause_of(error)
            )
        service.link_gone()

    def _lose(self, reason: Reason, detail: str = "") -> None:
        service = self.factory.service
        if self._chain is not None:
            reason = self._chain.why(reason)
        service.router.lose(self, reason, detail)
        service.flush()

    # What the router calls.

    def send(self, data: bytes, packets: int) -> None:
        self.lane.send(data, packets)

    def pair(self, conn_id: int, peer: Link) -> None:
        super().pair(conn_id, peer)
        if not self._told:
            self._introduce()

    @property
    def saturated(self) -> bool:
        return self.lane.saturated()

    def disconnect(self, reason: Reason, detail: str) -> None:
        self._tell_end(reason, detail)
        chain, self._chain = self._chain, None
        wheel = self.factory.service.wheel
        if self.known:
            lasted = wheel.seconds() - self.since
            self.factory.service.tally.goes(self.side, self.facts.transport, lasted)
        wheel.forget(self)
        if reason.aborts or self not in self.factory.service.connected:
            self.lane.close(End.ABORT)
            return
        # What was sent to it before is still delivered, if it takes it within LINGER.
        wheel.watch(self, wheel.seconds() + LINGER)
        answer = b"" if chain is None else chain.refuse(reason)
        if answer:
            self.lane.write(answer)
        half = reason.ours or reason is Reason.HANDSHAKE_REFUSED
        self.lane.close(End.HALF if half else End.CLOSE, self.farewell or reason)

    # Time.

    def check(self, now: float) -> float | None:
        """Its prefaces, or its goodbye, take too long."""
        if self.lost is not None:
            self.lane.close(End.ABORT)
        elif self._chain is not None:
            self._lose(Reason.HANDSHAKE_TIMEOUT)
        return None

    # The log.

    @property
    def _way(self) -> str:
        """How it came, in a line that tells who came; a format."""
        return self._port + (" via {via}" if self.facts.via else "")

    @property
    def _port(self) -> str:
        """The direct port in lines of the log; a format."""
        return " of {port}" if self.facts.port else ""

    def _introduce(self) -> None:
        """A client is worth a line once it has a virtual connection."""
        self._told = True
        text = "{side} {id} {addr}" + self._way + " connected"
        fields: dict[str, Any] = {
            "side": self.side.value,
            "id": self.link_id,
            "addr": self.facts.name,
            "transport": self.facts.transport,
            "via": self.facts.via,
            "port": self.facts.port,
            **self.facts.fields,
        }
        if any(one.logs for one in self.factory.service.enders):  # one line for each, at its end
            log.debug(text, **fields)
            return
        kind = f"{self.side.value} connected"
        self.factory.quiet.info(log, kind, self.facts.host, text, **fields)

    def _tell_end(self, reason: Reason, detail: str) -> None:
        enders = self.factory.service.enders
        if not enders and not log.tells_info:
            return
        counts = self.counts()
        listed = False
        if enders and (self.known or counts.bytes_in):
            end = self._end_row(counts, reason, detail)
            heard = bool(counts.bytes_in or counts.bytes_out)
            worth = self.known and not self.facts.probe and heard
            for one in enders:
                if worth or not one.logs:
                    one.ended(end)
                    listed = listed or one.logs
        if log.tells_debug or (log.tells_info and not listed):
            self._log_lost(counts, reason, detail, listed)

    def _end_row(self, counts: Counts, reason: Reason, detail: str) -> EndRow:
        facts = self.facts
        return EndRow(
            time=time.time(),
            side=self.side.value,
            id=self.link_id if self.known else 0,
            addr=escaped(facts.name),
            via=escaped(facts.via),
            transport=facts.transport,
            port=facts.port,
            user=escaped(self.user or ""),
            identity=escaped(facts.identity),
            tls=facts.tls,
            sni=escaped(facts.sni),
            seconds=round(self.factory.service.wheel.seconds() - self.since, 3),
            reason=reason.code,
            text=reason.value,
            detail=escaped(detail),
            packets_in=counts.packets_in,
            bytes_in=counts.bytes_in,
            packets_out=counts.packets_out,
            bytes_out=counts.bytes_out,
            most_waiting=counts.most_waiting,
            dials=self.dialled,
            refused_dials=self.refused,
            resumes=self.resumes,
        )

    def _log_lost(self, counts: Counts, reason: Reason, detail: str, listed: bool) -> None:
        quiet, host = self.factory.quiet, self.facts.host
        kind = f"{self.side.value} lost: {reason.value}"
        dumb = self.facts.probe or not (counts.bytes_in or detail)
        say: Callable[..., None]
        if listed or (reason in SILENT and dumb and not self._told):
            if not log.tells_debug:
                return
            say = log.debug
        elif self.side is Side.SERVER and self.known:
            say = log.info
        elif quiet.counts(kind, host):
            return
        else:
            say = partial(quiet.info, log, kind, host)
        fields: dict[str, Any] = {
            "side": self.side.value,
            "id": self.link_id if self.known else NO_ID,
            "addr": self.facts.name,
            "transport": self.facts.transport,
            "via": self.facts.via,
            "port": self.facts.port,
            "reason": reason.value,
            "detail": detail,
            "reason_code": reason.code,
            "seconds": round(self.factory.service.wheel.seconds() - self.since, 3),
            "packets_in": counts.packets_in,
            "bytes_in": counts.bytes_in,
            "packets_out": counts.packets_out,
            "bytes_out": counts.bytes_out,
            "user": self.user,
            **self.facts.fields,
        }
        text = (
            "{side} {id} {addr}"
            + self._port
            + ("" if self.user is None else " ({user})")
            + " lost: {reason}"
            + (": {detail} " if detail else " ")
            + "(after {seconds:.1f} s; in {packets_in} packets, {bytes_in} bytes; "
            "out {packets_out} packets, {bytes_out} bytes)"
        )
        say(text, **fields)


class ClientLink(GatewayLink):
    """A client. Of the two ends of a virtual connection one is: it tells the lanes."""

    __slots__ = ("_dial_rate",)

    side = Side.CLIENT

    def __init__(self, factory: LinkPort, lane: Lane, facts: Facts) -> None:
        super().__init__(factory, lane, facts)
        self._dial_rate: Bucket | None = None

    def may_dial(self) -> bool:
        rate = self.factory.config.dial_rate
        if not rate:
            return True
        if self._dial_rate is None:
            self._dial_rate = Bucket()
        now = self.factory.service.wheel.seconds()
        if self._dial_rate.wait(rate, now) > 0:
            return False
        self._dial_rate.take(rate, 1, now)
        return True

    def pair(self, conn_id: int, peer: Link) -> None:
        GatewayLink.pair(self, conn_id, peer)
        self.lane.pair(conn_id, peer.lane)  # type: ignore[attr-defined]

    def unpair(self, conn_id: int) -> None:
        GatewayLink.unpair(self, conn_id)
        self.lane.unpair(conn_id)


class ServerLink(GatewayLink):
    """A game server."""

    __slots__ = ()

    side = Side.SERVER

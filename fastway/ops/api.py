"""The admin API: the one table of its paths, and what each of them answers.

Rule: an answer is one of the shapes, made of the snapshot or by a verb. Nothing here knows HTTP
but statuses; who may ask, and how, is `fastway.ops.admin`'s business.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastway.config.table import OPTIONS, SECRETS
from fastway.gateway.ends import End
from fastway.logs import escaped, threshold
from fastway.networks import packed_address
from fastway.ops import shapes
from fastway.ops.closed import ROOM as ENDS
from fastway.ops.closed import Closed
from fastway.ops.events import Viewers
from fastway.ops.health import problem
from fastway.ops.limits import FIXED, shown_limits
from fastway.ops.pick import SORTS, WORDS, Wanted, key_after, pick
from fastway.ops.snapshot import Slices, Snapshot, finish, in_slices
from fastway.ops.status import status_rows
from fastway.ops.tail import ROOM as LINES
from fastway.ops.tail import Tail

if TYPE_CHECKING:
    from fastway.config import Settings
    from fastway.ops.commands import Commands

HIDDEN = "(hidden)"

PEERS = 100
"""Virtual connections of one link that are listed."""

SAME = 20
"""Game servers of one id that are."""

MOST = 1000
"""Rows of one answer."""


class NotFound(Exception):
    """What was asked for is not there; the text says so in one line."""


class BadQuery(Exception):
    """A parameter cannot be used; the text says why in one line."""


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a path or a query.

    Attributes:
        default: As it would be written; None: it must be there.
        words: All that it may be; empty: anything.
        low: The least number that it may be,
        high: and the greatest; both 0: it is text.
    """

    name: str
    meaning: str
    default: str | None = ""
    words: tuple[str, ...] = ()
    low: int = 0
    high: int = 0

    def read(self, text: str) -> Any:
        """Its value.

        Raises:
            BadQuery: it cannot be that.
        """
        if self.high:
            if not (text.isascii() and text.isdigit() and len(text) < 12):
                raise BadQuery(f"{self.name} must be a number")
            if not self.low <= int(text) <= self.high:
                raise BadQuery(f"{self.name} must be from {self.low} to {self.high}")
            return int(text)
        if self.words and text not in self.words:
            words = ", ".join(word for word in self.words if word)
            raise BadQuery(f"{self.name} must be one of {words}")
        return text


@dataclass(frozen=True, slots=True)
class Route:
    """One path and method.

    Attributes:
        name: The method of Api that answers.
        words: What it does, in a few words.
        answer: The shape of the answer; None: it is no JSON.
        body: The shape of the body; None: there is none.
        failed: The status of an answer that a CommandError is.
    """

    method: str
    path: str
    name: str
    words: str
    answer: Any
    params: tuple[Param, ...] = ()
    body: Any = None
    failed: int = 409

    def match(self, path: str) -> dict[str, str] | None:
        """The parameters in a path; None: it is another."""
        found = {}
        mine, given = self.path.split("/"), path.split("/")
        if len(mine) != len(given):
            return None
        for part, text in zip(mine, given, strict=True):
            if part.startswith("{"):
                found[part[1:-1]] = text
            elif part != text:
                return None
        return found


_SIDES = ("client", "server")


def _limit(default: int, most: int) -> Param:
    return Param("limit", "rows at the most", str(default), low=1, high=most)


def _after(what: str) -> Param:
    return Param("after", f"what the answer before had as `next`: {what} that follow")


ROUTES = (
    Route(
        "GET",
        "/v1/status",
        "status",
        "the gateway's figures",
        shapes.Status,
        (Param("format", "text: the rows of `fastway status`", "json", ("json", "text")),),
    ),
    Route(
        "GET",
        "/v1/links",
        "links",
        "who is connected, a page at a time",
        shapes.Links,
        (
            Param("side", "only those", "", ("", *_SIDES)),
            Param("search", "part of an address, a player's name, an identity or an id", ""),
            Param("sort", "by what", "id", tuple(SORTS)),
            Param(
                "order",
                "if not given: asc for id, addr and transport, else desc",
                "",
                ("", "asc", "desc"),
            ),
            _limit(100, MOST),
            _after("links"),
        ),
    ),
    Route(
        "GET",
        "/v1/links/{side}/{id}",
        "link",
        "one client, or the game servers of one id, and whom they talk to",
        shapes.SameId,
        (
            Param("side", "whose id", None, _SIDES),
            Param("id", "the id", None, low=0, high=2**32 - 1),
        ),
    ),
    Route(
        "GET",
        "/v1/closed",
        "closed_ends",
        f"the last {ENDS} connections that ended, and why, the newest first",
        shapes.Ends,
        (_limit(100, ENDS), _after("older ones")),
    ),
    Route(
        "GET",
        "/v1/addresses",
        "addresses",
        "where clients are from, those with the most first",
        shapes.Addresses,
        (Param("sort", "by what", "count", ("count", "refused")), _limit(100, MOST)),
    ),
    Route("GET", "/v1/config", "config", "all options, without keys", shapes.Config),
    Route(
        "GET",
        "/v1/log",
        "log",
        f"the last lines of the log, of {LINES} that are kept",
        shapes.LogLines,
        (_limit(100, LINES),),
    ),
    Route(
        "GET",
        "/v1/events",
        "events",
        "Server-Sent Events: `status` each second, `log` and `closed` when there is something new",
        None,
    ),
    Route("GET", "/v1/openapi.json", "openapi", "this API as an OpenAPI 3.1 document", None),
    Route(
        "POST",
        "/v1/kick",
        "kick",
        "lose a client, or the game servers of an id",
        shapes.Done,
        body=shapes.KickBody,
        failed=400,
    ),
    Route(
        "POST",
        "/v1/drain",
        "drain",
        "empty the gateway step by step, then stop it",
        shapes.Done,
        body=shapes.DrainBody,
    ),
    Route(
        "POST",
        "/v1/undrain",
        "undrain",
        "take that back, while the ports are open",
        shapes.Done,
        body=shapes.Nothing,
    ),
    Route(
        "POST",
        "/v1/reload",
        "reload",
        "what SIGHUP does",
        shapes.Done,
        body=shapes.Nothing,
    ),
    Route(
        "POST",
        "/v1/loglevel",
        "loglevel",
        "log what has at least that level, until the next start",
        shapes.Done,
        body=shapes.LevelBody,
    ),
    Route(
        "POST",
        "/v1/limits",
        "limits",
        "change limits until the next start, and tell them; `{}` only tells",
        shapes.Done,
        body=shapes.LimitsBody,
        failed=400,
    ),
    Route(
        "POST",
        "/v1/profile",
        "profile",
        "look into the process; the report is in the run directory",
        shapes.Done,
        body=shapes.ProfileBody,
    ),
)

Told = Mapping[str, Any]
"""Parameters by name; a body as `body`."""


def make_status(shot: Snapshot, metrics: bool = False, viewers: int = 0) -> shapes.Status:
    """A snapshot as the API tells it."""
    router, totals = shot.router, shot.limits
    gate, why = totals.gate, problem(shot)
    return shapes.Status(
        time=time.time(),
        version=shot.version,
        path=shot.path,
        pid=shot.pid,
        uptime=shot.uptime,
        state=shot.state,
        ready=shapes.Ready(not why, why),
        ports=shot.ports,
        shut=shot.shut,
        clients=shot.clients,
        servers=shot.servers,
        server_ids=shot.server_ids,
        transports=tuple(
            shapes.Carried(side, transport, shot.links.connected.get((side, transport), 0), came)
            for (side, transport), came in shot.links.since_start.items()
        ),
        router=shapes.Routed(
            open=router.open,
            accepted=router.accepted,
            packets=router.packets,
            bytes=router.bytes,
            dials=router.dials,
            refused=_refused(router.refused),
            strays=router.strays,
            foreign_closes=router.foreign_closes,
            pings=router.pings,
        ),
        queues=shot.queues,
        limits=shapes.Limited(
            connections=gate.connections,
            entries=gate.entries,
            table=gate.table,
            overflowed=gate.overflowed,
            refused=_refused(gate.refused),
            rests=gate.rests,
            dry_run=gate.dry_run,
            dry=_refused(gate.dry),
            dry_rests=gate.dry_rests,
            slowed=totals.slowed,
            slows=totals.slows,
        ),
        turned_away=shot.turned_away,
        lost=_lost(shot.links.lost),
        strangers=_lost(shot.links.strangers),
        layers=tuple(
            shapes.LayerText(layer.port, layer.side, layer.name, str(layer.figures))
            for layer in shot.layers
        ),
        memory=shot.memory,
        log_dropped=shot.log_dropped,
        log_level=threshold.level.name,
        relay=shot.relay,
        process=shot.process,
        turns=shot.turns,
        drain=shot.drain,
        metrics=metrics,
        viewers=viewers,
    )


def _refused(counts: Mapping[Any, int]) -> tuple[shapes.Refused, ...]:
    return tuple(shapes.Refused(why.code, why.value, count) for why, count in counts.items())


def _lost(counts: Mapping[tuple[Any, Any], int]) -> tuple[shapes.Lost, ...]:
    return tuple(
        shapes.Lost(side.value, why.code, why.value, count)
        for (side, why), count in counts.items()
    )


class Api:
    """The answers.

    Args:
        commands: The gateway's, with its figures and verbs.
        settings: What it was told.
        clock: The reactor.
        watched: Called with True when the first watches, and with False when nobody does.

    Attributes:
        closed: The last ends.
        tail: The last lines of the log.
        viewers: Who watches.
        jobs: What takes long.
    """

    def __init__(
        self,
        commands: Commands,
        settings: Callable[[], Settings],
        clock: Any,
        watched: Callable[[bool], object] = lambda _: None,
    ) -> None:
        self.closed = Closed()
        self.tail = Tail()
        self.viewers = Viewers(clock, self.brief, self.closed, self.tail, watched)
        self.jobs = commands.jobs
        self._source = commands.source
        self._verbs = commands.verbs
        self._settings = settings

    @property
    def _metrics(self) -> bool:
        return bool(self._settings().metrics.address)

    def brief(self) -> shapes.Status:
        """What costs the same however many there are."""
        shot = finish(self._source.snapshot(brief=True))
        return make_status(shot, self._metrics, len(self.viewers))

    # What is told.

    def status(self, told: Told) -> Slices[shapes.Status | str]:
        if told["format"] == "json":
            return self.brief()
        shot = yield from self._source.snapshot()
        return "\n".join([*status_rows(shot), ""])

    def links(self, told: Told) -> Slices[shapes.Links]:
        sort = told["sort"]
        down = told["order"] == "desc" if told["order"] else sort not in WORDS
        try:
            after = key_after(sort, down, told["after"]) if told["after"] else None
        except ValueError as error:
            raise BadQuery(str(error)) from None
        search = told["search"].lower()
        return pick(self._source, Wanted(told["side"], search, sort, down, told["limit"], after))

    def link(self, told: Told) -> shapes.SameId:
        side, link_id = told["side"], told["id"]
        router = self._source.service.router
        if side == "client":
            client = router.clients.get(link_id)
            links: list[Any] = [] if client is None else [client]
        else:
            links = list(router.servers.get(link_id, ()))[:SAME]
        found = []
        for link in links:
            row = self._source.row(link)
            if row is not None:
                peers = tuple(
                    shapes.Peer(conn_id, peer.side.value, peer.link_id)
                    for conn_id, peer in list(link.peers.items())[:PEERS]
                )
                found.append(shapes.Link(row, peers))
        if not found:
            raise NotFound(f"no {side} {link_id} is connected")
        return shapes.SameId(tuple(found))

    def closed_ends(self, told: Told) -> shapes.Ends:
        ring, limit = self.closed.ring, told["limit"]
        text = told["after"]
        if text and not (text.isascii() and text.isdigit() and len(text) < 20):
            raise BadQuery("after is not what an answer had as next")
        rows: list[End] = []
        following = None
        for number, end in ring.before(int(text) if text else ring.count):
            if len(rows) == limit:
                following = str(number + 1)
                break
            rows.append(end)
        return shapes.Ends(tuple(rows), following)

    def addresses(self, told: Told) -> Slices[shapes.Addresses]:
        gate = self._source.service.gate
        prefix = gate.values.ipv6_prefix
        counts: Counter[str] = Counter()
        for pause, link in in_slices(list(self._source.service.connected)):
            if link.side.value == "client":
                counts[place(link.facts.host, prefix)] += 1
            if pause:
                yield
        refused: Counter[str] = Counter()
        for pause, (address, count) in in_slices(list(gate.refusals.items())):
            refused[place_of(address, prefix)] += count
            if pause:
                yield
        first, then = (counts, refused) if told["sort"] == "count" else (refused, counts)
        names: list[tuple[int, int, str]] = []
        fresh: list[tuple[int, int, str]] = []
        for pause, name in in_slices(list(counts | refused)):
            fresh.append((-first[name], -then[name], name))
            if pause:
                names = sorted(names + fresh)[: told["limit"]]
                fresh = []
                yield
        names = sorted(names + fresh)[: told["limit"]]
        figures = gate.figures()
        return shapes.Addresses(
            tuple(
                shapes.AddressRow(escaped(name), counts[name], refused[name])
                for _, _, name in names
            ),
            len(counts.keys() | refused.keys()),
            figures.entries,
            figures.table,
        )

    def config(self, told: Told) -> shapes.Config:
        given = self._settings().values.given
        now = shown_limits(self._source.service.gate.values)
        rows = []
        for option in OPTIONS:
            where, value = given.get(option.name, ("", option.default))
            if option.name in now and option.parse(value) != option.parse(now[option.name]):
                where, value = "the command limits", now[option.name]
            if option.name in SECRETS and value:
                value = HIDDEN
            topic = option.topic.partition(":")[0]
            live = option.name in now and option.name not in FIXED
            about = escaped(value), option.default, where, topic, option.help, live
            rows.append(shapes.OptionRow(option.name, *about))
        return shapes.Config(tuple(rows))

    def log(self, told: Told) -> shapes.LogLines:
        ring = self.tail.ring
        lines = tuple(ring.since(0, told["limit"]))
        return shapes.LogLines(lines, ring.count - len(lines))

    # What is done.

    def kick(self, told: Told) -> shapes.Done:
        body = told["body"]
        return shapes.Done(self._verbs.kick(body.side, body.id, body.code, body.reason))

    def drain(self, told: Told) -> shapes.Done:
        return shapes.Done(self._verbs.drain(told["body"].again))

    def undrain(self, told: Told) -> shapes.Done:
        return shapes.Done(self._verbs.undrain())

    def reload(self, told: Told) -> shapes.Done:
        return shapes.Done(self._verbs.reload(said=True))

    def loglevel(self, told: Told) -> shapes.Done:
        return shapes.Done(self._verbs.loglevel(told["body"].level))

    def limits(self, told: Told) -> shapes.Done:
        changes = [(name, written(value)) for name, value in told["body"].items()]
        return shapes.Done(self._verbs.limits(changes))

    def profile(self, told: Told) -> Slices[shapes.Done]:
        body = told["body"]
        text = self._verbs.profile(body.kind, body.action, body.rows if body.rows >= 0 else None)
        if not isinstance(text, str):
            text = yield from text
        return shapes.Done(text)


def written(value: str | int | float | bool) -> str:
    """A value of JSON as an operator would write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def place(host: str, prefix: int) -> str:
    """An IPv4 address, the network of an IPv6 address, or what else a link is from."""
    if ":" not in host:
        return host
    packed = packed_address(host)
    return host if packed is None else place_of(packed, prefix)


def place_of(packed: bytes, prefix: int) -> str:
    """The same of an address in 4 or 16 bytes."""
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    if len(packed) != 16:
        return "?"
    shift = 128 - prefix
    number = int.from_bytes(packed, "big") >> shift << shift
    return f"{socket.inet_ntop(socket.AF_INET6, number.to_bytes(16, 'big'))}/{prefix}"

"""The access log: one line for each connection, at its end.

Rule: what a line has is a row of `Ended`, in that order, whichever format; docs/logs.md says what
each means. A line is made when a link is lost, whatever the level of the log, and written by a
thread of its own (`fastway.ops.logs`).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from fastway.errors import ConfigError, Reason
from fastway.logs import addresses, make_logger
from fastway.ops.lines import as_json, utc
from fastway.ops.logs import ACCESS, FLUSH, FileSink, LineWriter
from fastway.router import Side

if TYPE_CHECKING:
    from fastway.gateway import GatewayLink
    from fastway.gateway.lane import Counts

log = make_logger(__name__)

BOUND = 8 * 1024 * 1024
"""Bytes of lines that may wait: those of 20 000 connections that end at once."""

LULL = 0.05
"""Seconds after which a line is written: in one go with those that came since."""


class Ended(NamedTuple):
    """A connection that had its id, and ended.

    Attributes:
        time: When it was lost, in ISO 8601.
        start: When it connected: `seconds` before.
        seconds: How long it was connected.
        side: client or server.
        id: By which the other side dials it.
        addr: The peer's address, a player's as `log-address` has it.
        via: The proxy that it came through.
        transport: What carried it, as `fastway.gateway.facts` names it.
        port: The direct port that it came in by.
        packets_in: Whole packets that came; of a direct port, what was read at once.
        bytes_in: All that came.
        packets_out: Packets that were meant for it,
        bytes_out: and their bytes.
        most_waiting: The most bytes that waited because it took no more.
        dials: Virtual connections that it asked for,
        refused_dials: and how many of them it was refused.
        resumes: How often its snet stream came back.
        reason_code: Why it ended.
        tls: The version of TLS.
        sni: The host name that it asked for by TLS.
        identity: Whom its certificate names.
        user: The name of the player, if a server told it.
        detail: More about the reason.
    """

    time: str
    start: str
    seconds: float
    side: str
    id: int
    addr: str
    via: str
    transport: str
    port: str
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    most_waiting: int
    dials: int
    refused_dials: int
    resumes: int
    reason_code: str
    tls: str
    sni: str
    identity: str
    user: str
    detail: str


def ended(link: GatewayLink, counts: Counts, reason: Reason, detail: str, now: float) -> Ended:
    """What there is to say about a link that is lost.

    Args:
        now: Seconds since 1970.
    """
    facts = link.facts
    seconds = link.factory.service.wheel.seconds() - link.since
    name = facts.name
    if link.side is Side.CLIENT:
        name = "" if addresses.kept == "none" else addresses.shown(name)
    return Ended(
        utc(now),
        utc(now - seconds),
        round(seconds, 3),
        link.side.value,
        link.link_id,
        name,
        facts.via,
        facts.transport,
        facts.port,
        counts.packets_in,
        counts.bytes_in,
        counts.packets_out,
        counts.bytes_out,
        counts.most_waiting,
        link.dialled,
        link.refused,
        link.resumes,
        reason.code,
        facts.tls,
        facts.sni,
        facts.identity,
        link.user or "",
        detail,
    )


def json_row(row: Ended) -> str:
    """An object with all of it; what there is not is an empty text."""
    return as_json(row._asdict()) + "\n"


def text_row(row: Ended) -> str:
    """`name=value`, with a space between two; what there is not is `-`."""
    return _pairs(zip(Ended._fields, row, strict=True))


def _pairs(fields: Iterable[tuple[str, str | float]]) -> str:
    return " ".join([f"{name}={_shown(value)}" for name, value in fields]) + "\n"


_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")
"""What needs no quotes: printable ASCII without space, quote, equals sign and backslash."""


def _shown(value: str | float) -> str:
    if not isinstance(value, str):
        return str(value)
    if not value:
        return "-"
    return value if value != "-" and _PLAIN.fullmatch(value) else as_json(value)


_ROWS: dict[str, Callable[[Ended], str]] = {"text": text_row, "json": json_row}


def _notice(kind: str) -> Callable[[int, str], str]:
    """Makes the one line that is about no connection: lines were dropped."""

    def made(count: int, fault: str) -> str:
        told: dict[str, str | float] = {
            "time": utc(time.time()),
            "dropped": count,
            "problem": fault or "its reader does not keep up",
        }
        return as_json(told) + "\n" if kind == "json" else _pairs(told.items())

    return made


class AccessLog:
    """The access log's file.

    Args:
        path: Where.
        kind: text or json.
        where: How the operator gave the path.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(
        self, path: str, kind: Literal["text", "json"], where: str = "--access-log"
    ) -> None:
        self.path = os.path.abspath(path)
        self._kind = kind
        self._where = where
        self._row = _ROWS[kind]
        self._writer = self._open()

    def _open(self) -> LineWriter:
        self._sink = FileSink(self.path, self._where)
        return LineWriter(self._sink, _notice(self._kind), ACCESS, BOUND, LULL)

    def ended(self, link: GatewayLink, counts: Counts, reason: Reason, detail: str) -> None:
        """A link is lost."""
        self._writer.write(self._row(ended(link, counts, reason, detail, time.time())))

    def reopen(self) -> str:
        """Open the file anew, after logrotate moved it; if it cannot be, go on in the old one.
        Returns what came of it."""
        try:
            new = self._writer if self._sink.is_at(self.path) else self._open()
        except ConfigError as error:
            log.error("the old access log stays open: {problem}", problem=str(error))
            return f"the old access log stays open: {error}"
        old, self._writer = self._writer, new
        if new is not old:
            old.close(0, new)  # its thread writes on what waits
        log.info("access log reopened")
        return "access log reopened"

    def close(self, seconds: float = FLUSH) -> bool:
        """Write what waits, for so many seconds at the most; returns whether all was written."""
        return self._writer.close(seconds)

"""The access log: one line for each connection, at its end.

Rule: what a line has is in `fields`, in that order, whichever format; docs/logs.md says what
each means. A line is made when a link is lost, whatever the level of the log, and written by a
thread of its own (`fastway.ops.logs`).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Literal

from fastway.errors import ConfigError
from fastway.gateway.ends import End
from fastway.logs import addresses, make_logger
from fastway.ops.lines import as_json, utc
from fastway.ops.logs import ACCESS, FLUSH, FileSink, LineWriter
from fastway.router import Side

log = make_logger(__name__)

BOUND = 8 * 1024 * 1024
"""Bytes of lines that may wait: those of 20 000 connections that end at once."""

LULL = 0.05
"""Seconds after which a line is written: in one go with those that came since."""

Line = dict[str, "str | float"]


def fields(end: End) -> Line:
    """What a line has, in its order."""
    name = end.addr
    if end.side == Side.CLIENT.value:
        name = "" if addresses.kept == "none" else addresses.shown(name)
    return {
        "time": utc(end.time),
        "start": utc(end.time - end.seconds),
        "seconds": end.seconds,
        "side": end.side,
        "id": end.id,
        "addr": name,
        "via": end.via,
        "transport": end.transport,
        "port": end.port,
        "packets_in": end.packets_in,
        "bytes_in": end.bytes_in,
        "packets_out": end.packets_out,
        "bytes_out": end.bytes_out,
        "most_waiting": end.most_waiting,
        "dials": end.dials,
        "refused_dials": end.refused_dials,
        "resumes": end.resumes,
        "reason_code": end.reason,
        "tls": end.tls,
        "sni": end.sni,
        "identity": end.identity,
        "user": end.user,
        "detail": end.detail,
    }


def json_row(line: Line) -> str:
    """An object with all of it; what there is not is an empty text."""
    return as_json(line) + "\n"


def text_row(line: Line) -> str:
    """`name=value`, with a space between two; what there is not is `-`."""
    return " ".join([f"{name}={_shown(value)}" for name, value in line.items()]) + "\n"


_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")
"""What needs no quotes: printable ASCII without space, quote, equals sign and backslash."""


def _shown(value: str | float) -> str:
    if not isinstance(value, str):
        return str(value)
    if not value:
        return "-"
    return value if value != "-" and _PLAIN.fullmatch(value) else as_json(value)


_ROWS: dict[str, Callable[[Line], str]] = {"text": text_row, "json": json_row}


def _notice(kind: str) -> Callable[[int, str], str]:
    """Makes the one line that is about no connection: lines were dropped."""

    def made(count: int, fault: str) -> str:
        problem = fault or "its reader does not keep up"
        return _ROWS[kind]({"time": utc(time.time()), "dropped": count, "problem": problem})

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

    logs = True

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

    def ended(self, end: End) -> None:
        """A link is lost."""
        self._writer.write(self._row(fields(end)))

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

"""Some of all links: searched, sorted, a page at a time.

Rule: all are looked at in slices, and of these only a page is kept and shown. A page goes on
behind the last row of the one before, as that was: what changes its place meanwhile may be seen
twice or not at all, and nobody's place is remembered.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastway.ops.shapes import Links
from fastway.ops.snapshot import Slices, Source, in_slices

if TYPE_CHECKING:
    from fastway.gateway import GatewayLink

Key = tuple[Any, str, int, str, float]
"""What a link is sorted by: a value, then side, id, address, and since when it is there."""

SORTS: dict[str, Callable[[GatewayLink], Any]] = {
    "id": lambda _: "",
    "addr": lambda link: link.facts.name,
    "transport": lambda link: link.facts.transport,
    "conns": lambda link: len(link.peers),
    "seconds": lambda link: -link.since,
    "packets_in": lambda link: link.counts().packets_in,
    "bytes_in": lambda link: link.counts().bytes_in,
    "packets_out": lambda link: link.counts().packets_out,
    "bytes_out": lambda link: link.counts().bytes_out,
    "waiting_bytes": lambda link: link.counts().waiting_bytes,
}

WORDS = ("id", "addr", "transport")
"""Those that begin with the first; all others with the greatest."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which links, in which order.

    Attributes:
        side: client or server; empty: both.
        search: Part of an address, a player's name, an identity or an id, in lower case.
        sort: One of SORTS.
        descending: The greatest first.
        limit: So many.
        after: Those behind this.
    """

    side: str = ""
    search: str = ""
    sort: str = "id"
    descending: bool = False
    limit: int = 100
    after: Key | None = None

    def has(self, link: GatewayLink) -> bool:
        """It is one of them."""
        if self.side and link.side.value != self.side:
            return False
        text = self.search
        if not text:
            return True
        facts = link.facts
        return (
            text in facts.name.lower()
            or text in (link.user or "").lower()
            or text in facts.identity.lower()
            or (link.known and text in str(link.link_id))
        )


def key_of(link: GatewayLink, sort: str) -> Key:
    """What it is sorted by."""
    link_id = link.link_id if link.known else 0
    return SORTS[sort](link), link.side.value, link_id, link.facts.name, link.since


def cursor_of(wanted: Wanted, key: Key) -> str:
    """What leads to the rows behind one."""
    text = json.dumps([wanted.sort, wanted.descending, *key], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def key_after(sort: str, descending: bool, cursor: str) -> Key:
    """The key that a cursor was made of.

    Raises:
        ValueError: it was not made here, or for another order.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        told = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
        its_sort, its_order, value, side, link_id, addr, since = told
    except (ValueError, TypeError, UnicodeError, binascii.Error, RecursionError):
        raise ValueError("after is not what an answer had as next") from None
    if (its_sort, its_order) != (sort, descending):
        raise ValueError("after is of another order; begin anew without it")
    kinds: tuple[tuple[Any, Any], ...] = (
        (value, str if sort in WORDS else (int, float)),
        (side, str),
        (link_id, int),
        (addr, str),
        (since, (int, float)),
    )
    if any(isinstance(one, bool) or not isinstance(one, kind) for one, kind in kinds):
        raise ValueError("after is not what an answer had as next")
    return value, side, link_id, addr, since


def pick(source: Source, wanted: Wanted) -> Slices[Links]:
    """Those links."""
    most = wanted.limit + 1  # one more tells whether there are any behind
    best: list[tuple[Key, int, GatewayLink]] = []
    fresh: list[tuple[Key, int, GatewayLink]] = []
    after, down = wanted.after, wanted.descending
    links = list(source.service.connected)
    found = 0

    def keep() -> None:
        best.extend(fresh)
        fresh.clear()
        best.sort(key=lambda row: row[:2], reverse=down)
        del best[most:]

    for pause, (number, link) in in_slices(enumerate(links)):
        if wanted.has(link):
            found += 1
            key = key_of(link, wanted.sort)
            if after is None or (key < after if down else key > after):
                fresh.append((key, number, link))
        if pause:
            keep()
            yield
    keep()
    following = cursor_of(wanted, best[-2][0]) if len(best) == most else None
    rows = []
    for pause, (_, _, link) in in_slices(best[: wanted.limit]):
        row = source.row(link)
        if row is not None:
            rows.append(row)
        if pause:
            yield
    return Links(tuple(rows), len(links), found, following)

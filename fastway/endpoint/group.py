"""A group of virtual connections that are told the same: a room, a party, everybody.

Rule: telling never waits, and one member's state is never another's trouble: who has ended is
forgotten, who cannot take it is skipped or closed, everybody else gets it. The message is encoded
once for each format, and its size checked before anybody gets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from fastway.endpoint.channel import Carrier, Channel, close_all
from fastway.endpoint.mirror import LEAST, Mirror
from fastway.formats import Encoded
from fastway.wire import packet_head

C = TypeVar("C", bound=Channel[Any])

PIECE = 256 * 1024
"""Bytes of packets that are written as one."""


class Slow(Enum):
    """What becomes of a member that cannot take a message, because `send_buffer` bytes wait."""

    SKIP = "skip"
    """It misses this message."""
    CLOSE = "close"
    """It is closed: it would not know what it missed."""


class Group(Generic[C]):
    """An ordered set of virtual connections, of one gateway or of several.

    It may be changed while it is iterated over or told: what `tell` began with is what it tells.
    Who ends has left before anybody is told; when a gateway is lost, all of its members have.

    Args:
        slow: What becomes of members that cannot take a message.

    Attributes:
        missed: Messages that members did not get because they were slow.
    """

    def __init__(self, members: Iterable[C] = (), *, slow: Slow = Slow.SKIP) -> None:
        self.slow = slow
        self.missed = 0
        self._members: dict[C, None] = {}
        self._mirrors: dict[Carrier, Mirror] = {}
        self._circle = _Circle(self._members)
        self._whole: _Whole[C] | None = None
        """What is known to be true of all members, as long as nothing changes."""
        for conn in members:
            self.add(conn)

    def add(self, conn: C) -> bool:
        """Take a connection in, at the end; False when it has ended. Twice is once."""
        if conn.ended is not None:
            return False
        if conn not in self._members:
            self._members[conn] = None
            self._circle.changes += 1
            conn.enter(self._circle)
        return True

    def discard(self, conn: C) -> None:
        """Leave a connection out, if it is in."""
        if self._members.pop(conn, self) is None:
            self._circle.changes += 1
            conn.leave(self._circle)

    def clear(self) -> None:
        """Leave all out; nobody is closed."""
        for conn in self:
            self.discard(conn)
        mirrors, self._mirrors = self._mirrors, {}
        for mirror in mirrors.values():
            mirror.close()

    def __del__(self) -> None:
        # Anywhere, in any thread, and perhaps of one that could not even be made.
        mine = vars(self)
        for conn in mine.get("_members", ()):
            conn.leave(self._circle)
        for mirror in mine.get("_mirrors", {}).values():
            mirror.end()

    def close(self) -> None:
        """Close all members; all are closed before anybody is told."""
        close_all(self, "closed here")

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, conn: object) -> bool:
        return conn in self._members

    def __iter__(self) -> Iterator[C]:
        """The members of now, in the order in which they came."""
        return iter(tuple(self._members))

    def __repr__(self) -> str:
        return f"<Group of {len(self)}>"

    def tell(
        self,
        message: Any,
        *,
        but: C | Iterable[C] | None = None,
        to: Iterable[C] | None = None,
    ) -> int:
        """Send a message to all members, and never wait.

        Args:
            message: In the members' format, or Encoded.
            but: Who does not get it.
            to: Only these, as far as they are members.

        Returns:
            How many got it.

        Raises:
            MessageTooLarge: it does not fit `max_packet`; nobody got it.
            Whatever a message format raises for a message that it cannot encode; nobody got it.
        """
        left_out = _left_out(but)
        if to is None:
            told = self._tell_whole(message, left_out)
            if told is not None:
                return told
        members = [
            conn
            for conn in (self._members if to is None else _once(to, self._members))
            if conn.link.is_open(conn)
        ]
        if left_out:
            members = [conn for conn in members if conn not in left_out]
        encoded = _encode(message, members)
        pushed = self._push(members, encoded)
        told = len(pushed)
        batches: dict[Carrier, _Batch] = {}
        slow: list[C] = []
        for conn in members:
            if conn in pushed:
                continue
            if conn.ended is not None:  # closed by whoever was told that the buffer is full
                continue
            link = conn.link
            batch = batches.get(link)
            if batch is None:
                batch = batches[link] = _Batch(link)
            if batch.add(conn.conn_id, encoded[id(conn.message_format)]):
                told += 1
            else:
                slow.append(conn)
        for batch in batches.values():
            batch.write()
        self._missed(slow)
        return told

    def _missed(self, slow: list[C]) -> None:
        self.missed += len(slow)
        if self.slow is Slow.CLOSE:
            close_all(slow, "too slow for its group")

    def _tell_whole(self, message: Any, left_out: set[C]) -> int | None:
        """Tell all where every gateway's copy is known to be whole: nobody is looked at.

        Returns:
            How many got it. None: nobody did, for one has to look.
        """
        whole = self._whole
        if whole is None or whole.changes != self._circle.changes:
            return None
        out: dict[Carrier, list[C]] = {}
        for conn in left_out:
            if conn in self._members:
                out.setdefault(conn.link, []).append(conn)
        if not all(part.mirror.can_push_whole(out.get(part.link, ())) for part in whole.parts):
            return None
        encoded = []
        for part in whole.parts:
            encoded.append(part.conns[0].encode(message))
            part.link.check_size(len(encoded[-1]))
        told = 0
        for part, data in zip(whole.parts, encoded, strict=True):
            left = out.get(part.link, [])
            if part.mirror.push_whole(data, part.conns, left, self._missed):
                told += len(part.conns) - len(left)
            else:
                told += self.tell(Encoded(data), but=left, to=part.conns)
        return told

    def _push(self, members: list[C], encoded: dict[int, bytes]) -> set[C]:
        """Tell those whose gateway keeps a copy of the group; the others are to be told singly."""
        pushed: set[C] = set()
        if len(members) < LEAST:
            return pushed
        parts: list[_Part[C]] = []
        changes = self._circle.changes
        by_link: dict[Carrier, list[C]] = {}
        for conn in members:
            by_link.setdefault(conn.link, []).append(conn)
        for link, here in by_link.items():
            if len(here) < LEAST or link.control is None or not link.control.up:
                continue
            copies = {encoded[id(conn.message_format)] for conn in here}
            if len(copies) == 1:
                (data,) = copies
                everybody = (conn for conn in self._members if conn.link is link)
                mirror = self._mirror(link)
                pushed.update(mirror.push(data, here, everybody, self._missed))
                if mirror.is_whole(here) and len({id(conn.message_format) for conn in here}) == 1:
                    parts.append(_Part(link, mirror, here))
        whole = sum(len(part.conns) for part in parts) == len(self._members)
        self._whole = _Whole(changes, parts) if whole else None
        return pushed

    def _mirror(self, link: Carrier) -> Mirror:
        mirror = self._mirrors.get(link)
        if mirror is None:
            # Those of gateways that are gone are of no use to anybody.
            self._mirrors = {one: its for one, its in self._mirrors.items() if one.control.up}
            mirror = self._mirrors[link] = Mirror(link, link.control)
        return mirror


class _Circle:
    """What members know of their group: not the group itself, which may so be dropped.

    Attributes:
        changes: Counts who came and went, and what else of them changed.
    """

    def __init__(self, members: dict[Any, None]) -> None:
        self.changes = 0
        self._members = members

    def reformatted(self) -> None:
        """A member has another format: the connection calls this."""
        self.changes += 1

    def forget(self, conn: Any) -> None:
        """It has ended: the connection calls this."""
        self.changes += 1
        self._members.pop(conn, None)


@dataclass(frozen=True, slots=True)
class _Part(Generic[C]):
    """The members of one gateway, which all are in its copy, and have one format."""

    link: Carrier
    mirror: Mirror
    conns: list[C]


@dataclass(frozen=True, slots=True)
class _Whole(Generic[C]):
    """All members, when a circle had so many changes."""

    changes: int
    parts: list[_Part[C]]


def _left_out(but: C | Iterable[C] | None) -> set[C]:
    if but is None:
        return set()
    return {but} if isinstance(but, Channel) else set(but)


def _once(some: Iterable[C], members: dict[C, None]) -> list[C]:
    return [conn for conn in dict.fromkeys(some) if conn in members]


def _encode(message: Any, members: list[C]) -> dict[int, bytes]:
    """The message in each format that a member has, by the format's `id`."""
    encoded: dict[int, bytes] = {}
    most: dict[Carrier, int] = {}
    for conn in members:
        key = id(conn.message_format)
        data = encoded.get(key)
        if data is None:
            data = encoded[key] = conn.encode(message)
        if len(data) > most.get(conn.link, -1):
            most[conn.link] = len(data)
    for link, size in most.items():
        link.check_size(size)
    return encoded


class _Batch:
    """Packets for one gateway, written in pieces so that each sees whether there is room."""

    __slots__ = ("_link", "_parts", "_size")

    def __init__(self, link: Carrier) -> None:
        self._link = link
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, conn_id: int, data: bytes) -> bool:
        head = packet_head(conn_id, len(data))
        size = len(head) + len(data)
        if not self._link.has_room(size):
            return False
        self._parts.append(head)
        self._parts.append(data)
        self._size += size
        if self._size >= PIECE:
            self.write()
        return True

    def write(self) -> None:
        parts, self._parts = self._parts, []
        self._size = 0
        self._link.write_packets(parts)

"""A server's groups at one gateway: which there are, and who is in them.

Rule: they are told as the gateway has them once it has carried out, in order, all that was asked
of it. What it refused was not asked; what it did not answer in time counts as done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable


class _Change:
    """A join or a leave that is not settled, or that stands behind one that is not."""

    __slots__ = ("conns", "joins", "name", "settled")

    def __init__(self, name: str, conns: Iterable[int], joins: bool) -> None:
        self.name = name
        self.conns = frozenset(conns)
        self.joins = joins
        self.settled = False


class Groups:
    """The groups, by name.

    Args:
        conns: The virtual connections that are open; who is not among them is in no group.
    """

    def __init__(self, conns: Container[int]) -> None:
        self._conns = conns
        self._members: dict[str, set[int]] = {}
        """Those of settled changes; no set is empty."""
        self._groups: dict[int, set[str]] = {}
        """The same, by connection."""
        self._asked: dict[str, deque[_Change]] = {}
        """By group, in the order of the requests."""
        self._changes: dict[int, _Change] = {}
        """By request: those that are not settled."""

    def names(self) -> set[str]:
        """The groups that have members."""
        settled = {name for name in self._members if name not in self._asked}
        return settled | {name for name in self._asked if self.members(name)}

    def members(self, name: str) -> set[int]:
        """The connections in a group; none if there is no such group."""
        members = set(self._members.get(name, ()))
        for change in self._asked.get(name, ()):
            members = members | change.conns if change.joins else members - change.conns
        return {conn_id for conn_id in members if conn_id in self._conns}

    def asked(self, number: int, name: str, conns: Iterable[int], joins: bool) -> None:
        """Request `number` lets connections join, or leave."""
        change = _Change(name, conns, joins)
        self._changes[number] = change
        self._asked.setdefault(name, deque()).append(change)

    def settled(self, number: int, done: bool) -> None:
        """Request `number` is carried out, or not; one that changes no group is ignored."""
        change = self._changes.pop(number, None)
        if change is None:
            return
        asked = self._asked[change.name]
        if done:
            change.settled = True
        else:
            asked.remove(change)
        # An answer may overtake others: what was asked first is applied first.
        while asked and asked[0].settled:
            self._apply(asked.popleft())
        if not asked:
            del self._asked[change.name]

    def _apply(self, change: _Change) -> None:
        for conn_id in change.conns:
            if not change.joins:
                self._remove(change.name, conn_id)
            elif conn_id in self._conns:
                self._members.setdefault(change.name, set()).add(conn_id)
                self._groups.setdefault(conn_id, set()).add(change.name)

    def _remove(self, name: str, conn_id: int) -> None:
        members = self._members.get(name)
        if members is None or conn_id not in members:
            return
        members.remove(conn_id)
        if not members:
            del self._members[name]
        groups = self._groups[conn_id]
        groups.remove(name)
        if not groups:
            del self._groups[conn_id]

    def conn_closed(self, conn_id: int) -> None:
        """A connection is closed: it is in no group any more."""
        for name in list(self._groups.get(conn_id, ())):
            self._remove(name, conn_id)

    def clear(self) -> None:
        """The control connection is over, and with it all groups."""
        for held in (self._members, self._groups, self._asked, self._changes):
            held.clear()

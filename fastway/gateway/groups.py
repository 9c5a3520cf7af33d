"""A game server's groups of its own virtual connections.

Rule: it knows numbers and names, and keeps to its bounds; who may be in one is asked elsewhere.
A group ends with its last member, and a member with its connection.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

TIMES = 4
"""A server's groups together may have so many times the members that one may have."""


class Group:
    """One group.

    Attributes:
        members: In the order in which they joined.
    """

    __slots__ = ("_ids", "members")

    def __init__(self) -> None:
        self.members: dict[int, None] = {}
        self._ids: array[int] | None = None

    @property
    def ids(self) -> array[int]:
        """The same as an array, which is not to be changed."""
        if self._ids is None:
            self._ids = array("I", self.members)
        return self._ids

    def changed(self) -> None:
        """The array is of yesterday."""
        self._ids = None


class Groups:
    """The groups of one server, by name.

    Args:
        most: Groups that there may be.
        most_members: Members that one may have.

    Attributes:
        memberships: Members of all of them.
    """

    __slots__ = ("_groups", "_most", "_most_members", "_names", "memberships")

    def __init__(self, most: int, most_members: int) -> None:
        self._most = most
        self._most_members = most_members
        self._groups: dict[str, Group] = {}
        self._names: dict[int, set[str]] = {}
        self.memberships = 0

    def __len__(self) -> int:
        return len(self._groups)

    def get(self, name: str) -> Group | None:
        return self._groups.get(name)

    def size(self, name: str) -> int:
        """How many members it has; 0 if there is no such group."""
        group = self._groups.get(name)
        return 0 if group is None else len(group.members)

    def problem(self, name: str, count: int) -> str:
        """Why so many may not be added to a group; empty: they may."""
        if name not in self._groups and len(self._groups) >= self._most and count:
            return f"there are {self._most} groups"
        if self.size(name) + count > self._most_members:
            return f"a group has {self._most_members} members at most"
        if self.memberships + count > TIMES * self._most_members:
            return f"all groups have {TIMES * self._most_members} members at most"
        return ""

    def add(self, name: str, conn_ids: Iterable[int]) -> None:
        """Let connections join, which are open."""
        group = self._groups.get(name)
        for conn_id in conn_ids:
            if group is None:
                group = self._groups[name] = Group()
            if conn_id not in group.members:
                group.members[conn_id] = None
                self._names.setdefault(conn_id, set()).add(name)
                self.memberships += 1
                group.changed()

    def remove(self, name: str, conn_ids: Iterable[int]) -> None:
        """Let connections leave."""
        group = self._groups.get(name)
        if group is None:
            return
        for conn_id in conn_ids:
            if conn_id in group.members:
                self._drop(name, group, conn_id)
                names = self._names[conn_id]
                names.discard(name)
                if not names:
                    del self._names[conn_id]

    def conn_closed(self, conn_id: int) -> None:
        """A connection is closed."""
        for name in self._names.pop(conn_id, ()):
            self._drop(name, self._groups[name], conn_id)

    def clear(self) -> None:
        """All end."""
        self._groups.clear()
        self._names.clear()
        self.memberships = 0

    def _drop(self, name: str, group: Group, conn_id: int) -> None:
        del group.members[conn_id]
        group.changed()
        self.memberships -= 1
        if not group.members:
            del self._groups[name]

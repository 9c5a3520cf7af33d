"""Sessions behind a gateway: many on one connection, which one copy of a message can reach.

Rule: a group's members behind gateways are a `Group` of the endpoint library too, which has
gateways that can push do so; what was told before goes out before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

from fastway.endpoint.group import Group, Slow
from fastway.endpoint.mirror import LEAST
from fastway.formats import Encoded


class _Copy:
    """The members of one group that have one shape."""

    def __init__(self) -> None:
        self.group: Group[Any] = Group(slow=Slow.CLOSE)
        self.carriers: list[Any] | None = None
        self.limit = 0
        """Bytes of a message that each of them can be sent."""

    def follow(self, carriers: list[Any]) -> None:
        """Have these as members; the same list again costs nothing."""
        if self.carriers is carriers:
            return
        wanted = dict.fromkeys(carrier.channel for carrier in carriers)
        for channel in self.group:
            if channel not in wanted:
                self.group.discard(channel)
        for channel in wanted:
            self.group.add(channel)
        self.carriers = carriers
        self.limit = min(channel.link.max_message for channel in wanted)


class BehindLane:
    """The lane of an App's sessions behind gateways.

    Args:
        flush: Writes what was told before.
    """

    def __init__(self, flush: Callable[[], object]) -> None:
        self._flush = flush
        self._copies: WeakKeyDictionary[Any, dict[Hashable, _Copy]] = WeakKeyDictionary()

    def multicast(self, carriers: list[Any], packet: bytes, group: object) -> None:
        """See `session.Lane`."""
        if len(carriers) >= LEAST:
            copies = self._copies.setdefault(group, {})
            shape = carriers[0].shape
            copy = copies.get(shape)
            if copy is None:
                copy = copies[shape] = _Copy()
            copy.follow(carriers)
            if len(packet) <= copy.limit:
                self._flush()
                copy.group.tell(Encoded(packet))
                return
        for carrier in carriers:
            carrier.tell(packet)

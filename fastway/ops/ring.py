"""The last of many things, numbered: ends of connections, lines of the log.

Rule: it never holds more than it may, and whoever has read up to a number gets what came after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class Ring(Generic[T]):
    """The last `room` things.

    Attributes:
        count: Things that ever came. The first has number 0, so the next one has this.
    """

    def __init__(self, room: int) -> None:
        self.count = 0
        self._last: deque[T] = deque(maxlen=room)

    def __len__(self) -> int:
        return len(self._last)

    def add(self, thing: T) -> None:
        """One more; the oldest may have to go."""
        self._last.append(thing)
        self.count += 1

    def since(self, number: int, most: int) -> list[T]:
        """The newest of those from `number` on, the oldest first, at most so many."""
        wanted = min(self.count - number, most, len(self._last))
        return list(islice(self._last, len(self._last) - wanted, None)) if wanted > 0 else []

    def before(self, number: int) -> Iterator[tuple[int, T]]:
        """Those with a lower number, and their numbers, the newest first."""
        at = self.count
        for thing in reversed(self._last):
            at -= 1
            if at < number:
                yield at, thing

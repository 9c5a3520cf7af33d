"""What all connections of one App have in common: a wheel of deadlines, and one write a turn.

Rule: what is told to one peer in a turn, by however many handlers, goes out at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from fastway.app.app import App
from fastway.app.behind import BehindLane
from fastway.logs import make_logger
from fastway.wheel import Wheel

log = make_logger("fastway.app")


class Flushed(Protocol):
    """What has something to write: a link."""

    @property
    def address(self) -> str: ...

    def flush(self) -> None:
        """Write it."""

    def lose(self, code: str, problem: str) -> None: ...


class Writes:
    """Links that have something to write by the end of this turn.

    Twisted's write costs a system call and changes of the set of readers; so what is told to one
    peer in a turn, by however many handlers, goes out at once.
    """

    __slots__ = ("_clock", "_depth", "_dirty", "_later")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._depth = 0
        self._dirty: list[Flushed] = []
        self._later: Any = None

    def begin(self) -> None:
        """A turn that ends with `end`."""
        self._depth += 1

    def end(self) -> None:
        self._depth -= 1
        if not self._depth and self._dirty:
            self.flush()

    def add(self, link: Flushed) -> None:
        """That link has something to write."""
        self._dirty.append(link)
        if not self._depth and self._later is None:
            self._later = self._clock.callLater(0, self._flush_later)

    def _flush_later(self) -> None:
        self._later = None
        self.flush()

    def flush(self) -> None:
        """Write it now."""
        dirty, self._dirty = self._dirty, []
        for link in dirty:
            try:
                link.flush()
            except Exception:  # its transport's fault, which is nobody else's
                log.failure("nothing can be written to {peer}", peer=link.address)
                link.lose("failed", "nothing can be written to it")


@dataclass(slots=True)
class Shared:
    """What all links of one App have in common.

    Attributes:
        wheel: Their deadlines.
        writes: What they have to write.
        links: All that are connected.
        behind: Tells many of those that are behind gateways.
        relay: What carries those of native ports (`native.Relay`); None: there are none.
    """

    wheel: Wheel
    writes: Writes
    links: set[Any]
    behind: BehindLane
    relay: Any = None


def shared(app: App) -> Shared:
    """What the links of an App share; made when the first comes."""
    found: Shared | None = app.links
    if found is None:
        writes = Writes(app.clock)
        found = app.links = Shared(Wheel(app.clock), writes, set(), BehindLane(writes.flush))
    return found

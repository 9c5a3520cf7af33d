"""What one port's streams come to, at one moment.

Rule: figures only, frozen, so that whoever shows them needs nothing of the port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastway.snet.session import Fault


@dataclass(frozen=True, slots=True)
class SnetCounts:
    """The listening side's counters: what can be told without a look at each stream.

    Attributes:
        live: Streams that have a connection.
        waiting: Streams that are cut, and may come back.
        made: Streams since the start; this and what follows up to `replayed` only grow.
        cut: Times that a stream lost its connection, take-overs included.
        resumed: Times that one came back.
        taken_over: Of these, while the old connection still looked alive.
        replayed: Bytes that were sent again.
        handshakes: Connections that shake hands, or that close.
        refused: Handshakes that failed, by what was wrong.
    """

    live: int
    waiting: int
    made: int
    cut: int
    resumed: int
    taken_over: int
    replayed: int
    handshakes: int
    refused: Mapping[Fault, int]


@dataclass(frozen=True, slots=True)
class SnetFigures(SnetCounts):
    """All its figures; see `SnetFactory.figures`.

    Attributes:
        replayable: Bytes kept to be sent again.
        pending: Bytes that wait for a connection, or for room in it.
        unread: Bytes that came and wait for who is not read from.
    """

    replayable: int
    pending: int
    unread: int

    def __str__(self) -> str:
        """One line for an operator."""
        most_first = sorted(self.refused.items(), key=lambda row: (-row[1], row[0].value))
        refused = ", ".join(f"{count} {fault.value}" for fault, count in most_first)
        return (
            f"{self.live} streams live, {self.waiting} cut and waiting, {self.made} since start; "
            f"cuts: {self.cut}, resumed: {self.resumed} "
            f"({self.taken_over} while the old connection looked alive), "
            f"{self.replayed} bytes sent again; {self.replayable} bytes kept, "
            f"{self.pending} bytes wait, {self.unread} bytes unread; "
            f"handshakes: {self.handshakes} under way, {sum(self.refused.values())} failed"
            + (f" ({refused})" if refused else "")
        )

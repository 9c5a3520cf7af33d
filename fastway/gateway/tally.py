"""What became of links, counted when they come and when they go: by side and by what carries them.

Rule: plain counters that only grow, and nothing for a packet. Who shows them takes them from
`fastway.ops.snapshot`.
"""

from __future__ import annotations

from collections import Counter

from fastway.histogram import Histogram
from fastway.router import Side

LASTED = (1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 14_400.0, 86_400.0)
"""Seconds that tell connections apart: broken ones from games, and games from servers."""


class Tally:
    """Links that got their ids.

    Attributes:
        came: Side and transport, as `gateway.facts` names it -> such links.
        went: The same of those that were lost.
        lasted: Side -> the seconds for which those were connected.
    """

    __slots__ = ("came", "lasted", "went")

    def __init__(self) -> None:
        self.came: Counter[tuple[str, str]] = Counter()
        self.went: Counter[tuple[str, str]] = Counter()
        self.lasted = {side: Histogram(LASTED) for side in Side}

    def comes(self, side: Side, transport: str) -> None:
        """One more is there."""
        self.came[side.value, transport] += 1

    def goes(self, side: Side, transport: str, seconds: float) -> None:
        """One is lost, after so long."""
        self.went[side.value, transport] += 1
        self.lasted[side].add(seconds)

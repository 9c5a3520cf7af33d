"""How often values were how large: a few counters.

Rule: to add one costs a look into a short list; nothing is kept of a value but its class and sum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram at one moment.

    Attributes:
        bounds: The upper ends of all classes but the last, which has none.
        counts: Values of each class.
        total: The sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Histogram:
    """Counts values in classes.

    Args:
        bounds: The upper end of each class, which belongs to it, in order; one more has the rest.

    Attributes:
        counts: Values of each class.
        total: The sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def figures(self) -> Distribution:
        """What there was."""
        return Distribution(self.bounds, tuple(self.counts), self.total)

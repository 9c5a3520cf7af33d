"""The table of a bench: medians of the runs, and ratios to a base; as Markdown and as SVG.

Law: it knows what was measured, and not how.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.plot import bars, digits

Result = dict[str, Any]
"""The line of `load`; empty: it was not measured."""


@dataclass(frozen=True)
class Figure:
    """A row of the table: `field` of a result, divided by `scale`."""

    label: str
    field: str
    scale: float = 1


@dataclass(frozen=True)
class Case:
    """A load, and what is shown of it. The name of an echo is clients x connections x window.

    Without a load the gateway is left alone.

    Attributes:
        options: More for fastway; other gateways are then left out.
    """

    name: str
    load: str
    figures: tuple[Figure, ...]
    options: tuple[str, ...] = ()


def value(result: Result, figure: Figure) -> float | None:
    read = result.get(figure.field)
    return None if read is None else read / figure.scale


class Table:
    """The results of all runs.

    Attributes:
        results: By case and gateway; one for each run.
    """

    def __init__(self, cases: Sequence[Case], names: Sequence[str], base: str) -> None:
        self.cases = cases
        self.names = names
        self.base = base
        self.results: dict[tuple[str, str], list[Result]] = {
            (case.name, name): [] for case in cases for name in names
        }

    def median(self, case: Case, figure: Figure, name: str) -> float | None:
        values = [value(result, figure) for result in self.results[case.name, name]]
        known = [one for one in values if one is not None]
        return median(known) if known else None

    def ratio(self, case: Case, figure: Figure, name: str) -> float | None:
        """To the base, the median of each run's."""
        ratios = []
        pairs = zip(self.results[case.name, name], self.results[case.name, self.base], strict=True)
        for one, base in pairs:
            above, below = value(one, figure), value(base, figure)
            if above is not None and below:
                ratios.append(above / below)
        return median(ratios) if ratios else None

    def cell(self, case: Case, figure: Figure, name: str) -> str:
        middle, ratio = self.median(case, figure, name), self.ratio(case, figure, name)
        text = "-" if middle is None else digits(middle)
        return text if ratio is None or name == self.base else f"{text} ({digits(ratio)})"

    def lines(self) -> Iterator[str]:
        """Markdown, in columns."""
        rows = [["case", "figure", *self.names]]
        rows += [
            [case.name, figure.label, *(self.cell(case, figure, name) for name in self.names)]
            for case in self.cases
            for figure in case.figures
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        rows.insert(1, ["-" * width for width in widths])
        for row in rows:
            yield f"| {' | '.join(map(str.ljust, row, widths))} |"

    def plot(self) -> str:
        """An SVG of the ratios."""
        groups = [
            (
                f"{case.name}, {figure.label}",
                {name: self.ratio(case, figure, name) for name in self.names},
            )
            for case in self.cases
            for figure in case.figures
        ]
        return bars(f"times the {self.base}, median of the runs", groups)

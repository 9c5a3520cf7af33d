"""Prometheus's text format, version 0.0.4: what `/metrics` answers.

Rule: a page is made when it is asked for; nothing is kept but the text around the numbers. Which
metrics there are is a table's: `fastway.ops.metrics`, `fastway.app.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

from fastway.histogram import Distribution

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Value = int | float | Distribution
Samples = Iterable[tuple[tuple[str, ...], Value]]
"""The values of a metric's labels, in their order, and the number."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: In base units; of a counter it ends in `_total`.
        help: One line of what it means.
        labels: Their names.
        read: Its samples, in what the page is made of; none: there is nothing of the kind.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    read: Callable[[Any], Samples]

    @cached_property
    def head(self) -> str:
        """The lines before its samples."""
        text = self.help.replace("\\", "\\\\").replace("\n", "\\n")
        return f"# HELP {self.name} {text}\n# TYPE {self.name} {self.kind}\n"


def page(shot: Any, metrics: Iterable[Metric]) -> bytes:
    """All metrics that there are samples of in what the page is made of."""
    rows: list[str] = []
    for metric in metrics:
        rows.append(metric.head)
        began = len(rows)
        name, labels = metric.name, metric.labels
        for values, value in metric.read(shot):
            if isinstance(value, Distribution):
                rows += _histogram(name, labels, values, value)
            else:
                rows.append(f"{name}{_labels(labels, values)} {value}\n")
        if len(rows) == began:
            rows.pop()
    return "".join(rows).encode("utf-8", "replace")


@lru_cache(maxsize=4096)
def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    pairs = ",".join(
        f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)
    )
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _histogram(
    name: str, labels: tuple[str, ...], values: tuple[str, ...], told: Distribution
) -> Iterator[str]:
    count = 0
    within = (*labels, "le")
    for bound, more in zip((*told.bounds, None), told.counts, strict=True):
        count += more
        le = "+Inf" if bound is None else f"{bound:g}"
        yield f"{name}_bucket{_labels(within, (*values, le))} {count}\n"
    own = _labels(labels, values)
    yield f"{name}_sum{own} {told.total}\n"
    yield f"{name}_count{own} {count}\n"

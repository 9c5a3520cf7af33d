"""Pages of metrics, read by Prometheus's own parser.

Rule: a page that its parser does not understand, or a metric without kind or meaning, is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Samples = Mapping[tuple[str, ...], float]
"""`name`, then `label=value` of each label by name -> the number."""


def read(page: bytes) -> Samples:
    """All samples of a page."""
    text = page.decode()
    found: dict[tuple[str, ...], float] = {}
    names = set()
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family
        # It leaves `_total` off: a gauge and a counter may be called alike.
        assert (family.name, family.type) not in names, family.name
        names.add((family.name, family.type))
        assert family.samples, family.name
        for sample in family.samples:
            key = (sample.name, *(f"{name}={sample.labels[name]}" for name in sample.labels))
            assert key not in found, key
            found[key] = sample.value
    assert found, text
    return found


def total(samples: Samples, name: str, *labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    return sum(
        value
        for (sample, *told), value in samples.items()
        if sample == name and set(labels) <= set(told)
    )


def names(samples: Samples) -> set[str]:
    """The names of all samples."""
    return {sample for sample, *_ in samples}

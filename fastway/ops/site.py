"""The web server of `/metrics`, `/live` and `/ready`.

Rule: it only reads; a request has no body. Its bounds are those of `fastway.web`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fastway.address import Address
from fastway.ops.health import problem
from fastway.ops.metrics import METRICS
from fastway.ops.snapshot import Snapshot
from fastway.prometheus import page
from fastway.web import BoundedSite, MonitorPages, WebPort


class Pages(MonitorPages):
    """All there is.

    Args:
        snapshot: Takes the gateway's figures.
    """

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        super().__init__(lambda: page(snapshot(), METRICS), lambda: problem(snapshot()))


class MetricsPort(WebPort):
    """Where it listens.

    Args:
        address: That.
        snapshot: Takes the gateway's figures.
    """

    def __init__(self, address: Address, snapshot: Callable[[], Snapshot]) -> None:
        self.address = address
        super().__init__(
            "metrics",
            address.text,
            partial(address.listen, reuse_port=False),
            partial(BoundedSite, Pages(snapshot)),
        )

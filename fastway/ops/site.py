"""The web server of `/metrics`, `/live` and `/ready`.

Rule: it only reads; a request has no body. Its bounds are those of `fastway.web`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.web.resource import Resource

from fastway.address import Address
from fastway.ops.health import problem
from fastway.ops.metrics import METRICS
from fastway.ops.snapshot import Snapshot
from fastway.prometheus import CONTENT_TYPE, page
from fastway.web import TEXT, BoundedSite, WebPort


class Pages(Resource):
    """All there is.

    Args:
        snapshot: Takes the gateway's figures.
    """

    isLeaf = True

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        super().__init__()
        self._snapshot = snapshot
        self._pages = {
            b"/metrics": self._metrics,
            b"/live": self._live,
            b"/ready": self._ready,
        }

    def render(self, request: Any) -> bytes:
        made = self._pages.get(request.uri.partition(b"?")[0])
        kind = TEXT
        if made is None:
            status, content = 404, b"here are /metrics, /live and /ready\n"
        elif request.method not in (b"GET", b"HEAD"):
            status, content = 405, b"only GET and HEAD\n"
            request.setHeader("Allow", "GET, HEAD")
        else:
            status, kind, content = made()
        return request.site.answer(request, status, kind, content)  # type: ignore[no-any-return]

    def _metrics(self) -> tuple[int, str, bytes]:
        return 200, CONTENT_TYPE, page(self._snapshot(), METRICS)

    def _live(self) -> tuple[int, str, bytes]:
        return 200, TEXT, b"live\n"

    def _ready(self) -> tuple[int, str, bytes]:
        why_not = problem(self._snapshot())
        return 503 if why_not else 200, TEXT, f"{why_not or 'ready'}\n".encode()


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

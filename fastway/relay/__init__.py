"""The fast path: packets between two plain TCP links never reach Python.

Rule: this module only says what there is; it loads without the extension and without a reactor.
The core (`relay.c`) moves bytes, `transport` brings it into the reactor, `link` makes it the
gateway's. All decisions stay with the one Router.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zope.interface import Interface

from fastway.errors import ConfigError

POOL_TYPES = ("atom", "chan", "sync")
"""As the core numbers them."""

MAX_PAGE = 1 << 30
"""Bytes of the largest page of the pool."""


class IRelayTransport(Interface):
    """A TCP transport whose socket is the core's, which can also cut and forward its packets.

    Until `start` it is a transport like any other. A protocol whose transport provides this calls
    `start` once its link may talk.
    """

    def start(data: bytes) -> None:
        """From now on what comes is packets; `data` came before and is of a packet not whole."""

    def pair(conn_id: int, other: Any) -> None:
        """Packets of `conn_id` go to the transport `other` and back, if both are started."""

    def unpair(conn_id: int) -> None:
        """No longer."""

    def send(data: bytes, packets: int) -> bool:
        """Queue `packets` whole packets, which are written at the end of the core's turn.

        Returns:
            Whether more waits for it than its port allows.
        """


@dataclass(slots=True)
class PoolConfig:
    """The slab pool, from which all queues of the core are made; sizes are bytes.

    Attributes:
        type: One of POOL_TYPES.
        factor: From one chunk size to the next.
        page_size: Chunks of one size are cut from pages of so much.
        limit: Bytes of chunks in use at a time; 0: no limit.
    """

    type: str = "atom"
    factor: int = 2
    min_chunk: int = 64
    max_chunk: int = 64 * 1024
    page_size: int = 1024 * 1024
    limit: int = 0

    def check(self, where: Callable[[str], str]) -> None:
        """See that the sizes fit together.

        Args:
            where: How the operator spelled an option.

        Raises:
            ConfigError: they do not.
        """
        largest = f"mem-pool-max-chunk, {self.max_chunk}"
        if self.min_chunk > self.max_chunk:
            option, problem = "min-chunk", f"{self.min_chunk} is over {largest}"
        elif self.page_size < self.max_chunk:
            option, problem = (
                "page-size",
                f"{self.page_size} is below {largest}: a page has chunks",
            )
        elif self.page_size > MAX_PAGE:
            option, problem = "page-size", f"{self.page_size} is over 1G"
        elif 0 < self.limit < self.max_chunk:
            option, problem = "limit", f"{self.limit} is below {largest}; 0 is no limit"
        else:
            return
        raise ConfigError(where(f"mem-pool-{option}"), problem)


def missing() -> str:
    """Why the core cannot be used here; empty if it can."""
    if sys.platform != "linux":
        return "the native relay runs on Linux only"
    try:
        from fastway.relay import _core  # noqa: F401
    except ImportError:
        return "the native relay is not built"
    return ""

"""The fast path: packets between two plain TCP links never reach Python.

Rule: this module only says what there is; it loads without the extension and without a reactor.
The core (`relay.c`) moves bytes, `transport` brings it into the reactor, `link` makes it the
gateway's. All decisions stay with the one Router.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from zope.interface import Interface

POOL_TYPES = ("atom", "chan", "sync")
"""As the core numbers them."""


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


def missing() -> str:
    """Why the core cannot be used here; empty if it can."""
    if sys.platform != "linux":
        return "the native relay runs on Linux only"
    try:
        from fastway.relay import _core  # noqa: F401
    except ImportError:
        return "the native relay is not built"
    return ""

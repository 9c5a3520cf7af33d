"""The fast path: packets between two links on TCP, plain or by WebSocket, never reach Python.

Rule: this module only says what there is; it loads without the extension and without a reactor.
The core (`relay.h`) moves bytes; `fastway.gateway.native` brings it into the reactor and makes it
a lane of the gateway's links. All decisions stay with the one Router.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from fastway.relay.sources import digest

POOL_TYPES = ("atom", "chan", "sync")
"""As the core numbers them."""


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


class Totals(NamedTuple):
    """What the core has counted in all; see struct relay_totals of relay.h."""

    packets: int
    bytes: int
    pings: int
    holds: int
    links: int
    pairs: int
    waiting_packets: int
    waiting_bytes: int
    input_bytes: int
    held: int
    shed: int
    slows: int
    slowed: int
    holding_packets: int
    holding_bytes: int
    holding_input: int


def missing() -> str:
    """Why the core cannot be used here; empty if it can."""
    if sys.platform != "linux":
        return "the native relay runs on Linux only"
    try:
        from fastway.relay import _core  # noqa: F401
    except ImportError:
        return "the native relay is not built; install fastway where a C compiler is"
    return stale()


@cache
def stale() -> str:
    """Why a core that is there is none for this Python: it was built before the sources of a
    checkout changed. Empty: it is of these, or there are none, as where fastway is installed."""
    try:
        from fastway.relay import _core
    except ImportError:
        return ""
    wanted = digest(os.path.dirname(__file__))
    if not wanted or wanted == getattr(_core, "SOURCES", ""):
        return ""
    return "the native relay is older than its sources here; pip install -e . builds it anew"

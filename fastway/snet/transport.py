"""Names of `listen` and `dial` for who imported them from here when both sides were one module."""

from __future__ import annotations

from fastway.reconnect import Backoff
from fastway.snet.config import SnetConfig
from fastway.snet.dial import Attempt, Dialler, SnetClientEndpoint
from fastway.snet.listen import SnetFactory, SnetPort, SnetServerEndpoint, SnetStats

__all__ = [
    "Attempt",
    "Backoff",
    "Dialler",
    "SnetClientEndpoint",
    "SnetConfig",
    "SnetFactory",
    "SnetPort",
    "SnetServerEndpoint",
    "SnetStats",
]

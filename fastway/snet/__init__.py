"""snet: byte streams that survive broken connections (docs/snet.md).

    from fastway.snet import SnetClientEndpoint, SnetServerEndpoint

Encryption needs the `cryptography` package: pip install 'fastway[snet]'. What is here is imported
when it is first asked for, so that who speaks no snet pays nothing for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastway.snet.config import SnetConfig as SnetConfig
    from fastway.snet.dial import SnetClientEndpoint as SnetClientEndpoint
    from fastway.snet.listen import SnetFactory as SnetFactory
    from fastway.snet.listen import SnetServerEndpoint as SnetServerEndpoint

_PLACES = {
    "SnetClientEndpoint": "dial",
    "SnetConfig": "config",
    "SnetFactory": "listen",
    "SnetServerEndpoint": "listen",
}

__all__ = ["SnetClientEndpoint", "SnetConfig", "SnetFactory", "SnetServerEndpoint"]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)

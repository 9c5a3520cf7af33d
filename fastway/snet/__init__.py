"""snet: byte streams that survive broken connections (docs/snet.md).

    from fastway.snet import SnetClientEndpoint, SnetServerEndpoint

Encryption needs the `cryptography` package: pip install 'fastway[snet]'. What is here is imported
when it is first asked for, so that who speaks no snet pays nothing for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastway.snet.transport import SnetClientEndpoint as SnetClientEndpoint
    from fastway.snet.transport import SnetConfig as SnetConfig
    from fastway.snet.transport import SnetServerEndpoint as SnetServerEndpoint

__all__ = ["SnetClientEndpoint", "SnetConfig", "SnetServerEndpoint"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fastway.snet import transport

    return getattr(transport, name)

"""The library for clients and game servers: one connection to a gateway, many virtual ones on it.

    from fastway.endpoint import connect_client, connect_server

This is the library on Twisted; `fastway.aio` is the same for asyncio. Both stand on `core` (the
wire state), `channel`, `accept`, `link`, `face`, `group`, `keeper` and `config`, which know
neither: so nothing of Twisted is imported before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastway.control import Bye, Draining, PlayerFacts, TlsFacts
    from fastway.endpoint.accept import Serving
    from fastway.endpoint.client import AnyOf, GatewayClient
    from fastway.endpoint.config import (
        EndpointConfig,
        NetworkCut,
        NetworkEvent,
        NetworkLost,
        NetworkResumed,
        Overflow,
    )
    from fastway.endpoint.connect import GatewayFactory, connect_client, connect_server
    from fastway.endpoint.connection import GatewayConnection, VirtualConnection
    from fastway.endpoint.control import Control
    from fastway.endpoint.endpoints import (
        AcceptEndpoint,
        DialEndpoint,
        GatewayDialEndpoint,
        PoolEndpoint,
    )
    from fastway.endpoint.group import Group, Slow
    from fastway.endpoint.pool import GatewayPool
    from fastway.endpoint.transport import FastwayAddress, VirtualTransport
    from fastway.formats import (
        Bytes,
        Encoded,
        Json,
        MessageFormat,
        MessagePack,
        ProtocolBuffers,
        Text,
    )

_HOMES = {
    "fastway.control": ("Bye", "Draining", "PlayerFacts", "TlsFacts"),
    "fastway.endpoint.accept": ("Serving",),
    "fastway.endpoint.client": ("AnyOf", "GatewayClient"),
    "fastway.endpoint.config": (
        "EndpointConfig",
        "NetworkCut",
        "NetworkEvent",
        "NetworkLost",
        "NetworkResumed",
        "Overflow",
    ),
    "fastway.endpoint.connect": ("GatewayFactory", "connect_client", "connect_server"),
    "fastway.endpoint.connection": ("GatewayConnection", "VirtualConnection"),
    "fastway.endpoint.control": ("Control",),
    "fastway.endpoint.endpoints": (
        "AcceptEndpoint",
        "DialEndpoint",
        "GatewayDialEndpoint",
        "PoolEndpoint",
    ),
    "fastway.endpoint.group": ("Group", "Slow"),
    "fastway.endpoint.pool": ("GatewayPool",),
    "fastway.endpoint.transport": ("FastwayAddress", "VirtualTransport"),
    "fastway.formats": (
        "Bytes",
        "Encoded",
        "Json",
        "MessageFormat",
        "MessagePack",
        "ProtocolBuffers",
        "Text",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

_OLD = {"Endpoint": "GatewayConnection", "EndpointFactory": "GatewayFactory"}
"""Old names, for one release -> what they are now."""


def __getattr__(name: str) -> Any:
    home = _HOME.get(_OLD.get(name, name))
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), _OLD.get(name, name))
    globals()[name] = value
    return value


__all__ = [
    "AcceptEndpoint",
    "AnyOf",
    "Bye",
    "Bytes",
    "Control",
    "DialEndpoint",
    "Draining",
    "Encoded",
    "EndpointConfig",
    "FastwayAddress",
    "GatewayClient",
    "GatewayConnection",
    "GatewayDialEndpoint",
    "GatewayFactory",
    "GatewayPool",
    "Group",
    "Json",
    "MessageFormat",
    "MessagePack",
    "NetworkCut",
    "NetworkEvent",
    "NetworkLost",
    "NetworkResumed",
    "Overflow",
    "PlayerFacts",
    "PoolEndpoint",
    "ProtocolBuffers",
    "Serving",
    "Slow",
    "Text",
    "TlsFacts",
    "VirtualConnection",
    "VirtualTransport",
    "connect_client",
    "connect_server",
]

"""The library for clients and game servers on asyncio; uvloop works too. No Twisted is imported.

    from fastway.aio import connect_server

    async def handler(conn):
        async for message in conn:
            await conn.send(message)

    async with connect_server("127.0.0.1:9020", 1, "fastway") as server:
        server.serve(handler)
        await server.when_ended()

`fastway.endpoint` is the same on Twisted; formats, groups, configuration and errors are shared.
"""

from __future__ import annotations

from fastway.aio.connect import Gateway, connect_client, connect_server
from fastway.aio.connection import GatewayConnection, VirtualConnection
from fastway.aio.pool import GatewayClient, GatewayPool
from fastway.control import Bye, Draining, PlayerFacts, TlsFacts
from fastway.endpoint.accept import Serving
from fastway.endpoint.config import (
    EndpointConfig,
    NetworkCut,
    NetworkEvent,
    NetworkLost,
    NetworkResumed,
    Overflow,
)
from fastway.endpoint.control import Control
from fastway.endpoint.group import Group, Slow
from fastway.formats import (
    Bytes,
    Encoded,
    Json,
    MessageFormat,
    MessagePack,
    ProtocolBuffers,
    Text,
)
from fastway.snet.config import SnetConfig
from fastway.websocket.client import WebSocket

__all__ = [
    "Bye",
    "Bytes",
    "Control",
    "Draining",
    "Encoded",
    "EndpointConfig",
    "Gateway",
    "GatewayClient",
    "GatewayConnection",
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
    "ProtocolBuffers",
    "Serving",
    "Slow",
    "SnetConfig",
    "Text",
    "TlsFacts",
    "VirtualConnection",
    "WebSocket",
    "connect_client",
    "connect_server",
]

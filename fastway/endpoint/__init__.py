"""The library for clients and game servers: one connection to a gateway, many virtual ones on it.

    from fastway.endpoint import connect_client, connect_server

`core` is the wire state, `connection` the endpoint on Twisted, `stream` virtual connections as
Twisted transports, `pool` many gateways. What messages are comes from `fastway.formats`.
"""

from fastway.endpoint.connection import (
    Endpoint,
    EndpointConfig,
    EndpointFactory,
    NetworkCut,
    NetworkEvent,
    NetworkLost,
    NetworkResumed,
    Overflow,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.endpoint.pool import AnyOf, GatewayClient, GatewayPool
from fastway.endpoint.stream import (
    AcceptEndpoint,
    DialEndpoint,
    FastwayAddress,
    GatewayDialEndpoint,
    VirtualTransport,
)
from fastway.formats import (
    Bytes,
    Encoded,
    Json,
    MessageFormat,
    MessagePack,
    ProtocolBuffers,
    Text,
)

__all__ = [
    "AcceptEndpoint",
    "AnyOf",
    "Bytes",
    "DialEndpoint",
    "Encoded",
    "Endpoint",
    "EndpointConfig",
    "EndpointFactory",
    "FastwayAddress",
    "GatewayClient",
    "GatewayDialEndpoint",
    "GatewayPool",
    "Json",
    "MessageFormat",
    "MessagePack",
    "NetworkCut",
    "NetworkEvent",
    "NetworkLost",
    "NetworkResumed",
    "Overflow",
    "ProtocolBuffers",
    "Text",
    "VirtualConnection",
    "VirtualTransport",
    "connect_client",
    "connect_server",
]

"""The library for clients and game servers: one connection to a gateway, many virtual ones on it.

    from fastway.endpoint import connect_client, connect_server

`core` is the wire state, `connection` the endpoint on Twisted, `formats` what messages are,
`transport` virtual connections as Twisted transports, `endpoints` their Twisted endpoints, `pool`
many gateways.
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
from fastway.endpoint.endpoints import (
    AcceptEndpoint,
    DialEndpoint,
    GatewayDialEndpoint,
    PoolEndpoint,
)
from fastway.endpoint.formats import (
    Bytes,
    Json,
    MessageFormat,
    MessagePack,
    ProtocolBuffers,
    Text,
)
from fastway.endpoint.pool import AnyOf, GatewayClient, GatewayPool
from fastway.endpoint.transport import FastwayAddress, StreamConfig, VirtualTransport

__all__ = [
    "AcceptEndpoint",
    "AnyOf",
    "Bytes",
    "DialEndpoint",
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
    "PoolEndpoint",
    "ProtocolBuffers",
    "StreamConfig",
    "Text",
    "VirtualConnection",
    "VirtualTransport",
    "connect_client",
    "connect_server",
]

"""The gateway: links that come in by ports, over lanes, to one Router.

    service = RouterService(reactor)
    reactor.listenTCP(9010, ClientFactory(service))
    reactor.listenTCP(9020, ServerFactory(service, b"key"))

Rule: a link decides, a lane carries, a port lets in; the names here are what others may use.
"""

from fastway.gateway.bounds import PortConfig, server_port_config
from fastway.gateway.factories import ClientFactory, GatewayFactory, ServerFactory, TurnedAway
from fastway.gateway.facts import Facts
from fastway.gateway.link import GatewayLink
from fastway.gateway.ports import Layer, Port
from fastway.gateway.service import RouterService
from fastway.gateway.websocket import WebSocketConfig, WebSocketFactory

__all__ = [
    "ClientFactory",
    "Facts",
    "GatewayFactory",
    "GatewayLink",
    "Layer",
    "Port",
    "PortConfig",
    "RouterService",
    "ServerFactory",
    "TurnedAway",
    "WebSocketConfig",
    "WebSocketFactory",
    "server_port_config",
]

r"""Endpoint strings, so that any program that takes one runs over a gateway unchanged.

    clientFromString(reactor, r"fastway:tcp\:127.0.0.1\:9010:server=1")
    serverFromString(reactor, r"fastway:tcp\:127.0.0.1\:9020:id=1:key=secret")

Rule: the first argument is itself the client endpoint string of the gateway, its colons escaped.
Only what parsing needs is imported until an endpoint is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

if TYPE_CHECKING:
    from fastway.endpoint.endpoints import GatewayDialEndpoint, PoolEndpoint


def _number(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) > 0xFFFFFFFF:
        raise ValueError(f"fastway endpoint: {name}={text} is not an id")
    return int(text)


def _arguments(
    args: tuple[object, ...],
    kwargs: dict[str, object],
    needed: tuple[str, ...],
    others: tuple[str, ...] = (),
) -> dict[str, str]:
    """By name, positional ones first.

    Raises:
        ValueError: one is missing, or is none of these.
    """
    names = needed + others
    given = {name: str(value) for name, value in zip(names, args, strict=False)}
    given.update({name: str(value) for name, value in kwargs.items()})
    wrong = [name for name in given if name not in names] + [
        str(one) for one in args[len(names) :]
    ]
    missing = [name for name in needed if name not in given]
    if wrong or missing:
        problem = f"no argument {wrong[0]!r}" if wrong else f"argument {missing[0]!r} is missing"
        raise ValueError(f"fastway endpoint: {problem}; it takes {', '.join(names)}")
    return given


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ClientParser:
    """`fastway:GATEWAY:server=ID`: connects to a gateway as a client and dials a server."""

    prefix = "fastway"

    def parseStreamClient(
        self, reactor: Any, *args: object, **kwargs: object
    ) -> GatewayDialEndpoint:
        from fastway.endpoint.endpoints import GatewayDialEndpoint

        given = _arguments(args, kwargs, ("gateway", "server"))
        return GatewayDialEndpoint(
            clientFromString(reactor, given["gateway"]),
            _number("server", given["server"]),
            clock=reactor,
        )


@implementer(IPlugin, IStreamServerEndpointStringParser)
class ServerParser:
    """`fastway:GATEWAY:id=ID:key=KEY`: logs in as a server, and again when the gateway returns."""

    prefix = "fastway"

    def parseStreamServer(self, reactor: Any, *args: object, **kwargs: object) -> PoolEndpoint:
        from fastway.endpoint.endpoints import PoolEndpoint
        from fastway.endpoint.pool import GatewayPool

        given = _arguments(args, kwargs, ("gateway", "id"), ("key",))
        gateways = {given["gateway"]: clientFromString(reactor, given["gateway"])}
        server_id = _number("id", given["id"])
        key = given.get("key", "")
        return PoolEndpoint(GatewayPool(gateways, server_id, key, clock=reactor))

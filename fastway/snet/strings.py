r"""Endpoint strings, so that any program that takes one speaks snet unchanged.

    serverFromString(reactor, r"snet:tcp\:9000:encrypt=true")
    clientFromString(reactor, r"snet:tcp\:127.0.0.1\:9000:encrypt=true:buffer=64K")

Rule: the first argument is itself an endpoint string, its colons escaped; the others are those of
`SnetConfig`, in camelCase, as Twisted's own. Only what parsing needs is imported until then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

from fastway.config.table import COUNT, GIB
from fastway.config.values import duration, number, parse_bool, size

if TYPE_CHECKING:
    from fastway.snet.config import SnetConfig
    from fastway.snet.dial import SnetClientEndpoint
    from fastway.snet.listen import SnetServerEndpoint

_SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "encrypt": ("encrypt", parse_bool),
    "buffer": ("buffer", size(1, GIB)),
    "initTimeout": ("init_timeout", duration(0.001)),
    "waitTimeout": ("wait_timeout", duration(0.001)),
    "maxWaiting": ("max_waiting", number(1, COUNT)),
    "maxHandshakes": ("max_handshakes", number(1, COUNT)),
}


def _parse(args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[str, SnetConfig]:
    """The inner endpoint string and the configuration.

    Raises:
        ValueError: an argument is missing, unknown, or cannot be used.
    """
    from fastway.snet.config import SnetConfig

    inner = [str(arg) for arg in args]
    config = SnetConfig()
    for name, text in kwargs.items():
        if ":" in name:  # an inner string whose equals sign is not escaped
            inner.append(f"{name}={text}")
            continue
        if name not in _SETTINGS:
            raise ValueError(
                f"snet endpoint: no argument {name!r}; it takes {', '.join(_SETTINGS)}"
            )
        attribute, parse = _SETTINGS[name]
        try:
            config = dataclasses.replace(config, **{attribute: parse(str(text))})
        except ValueError as error:
            raise ValueError(f"snet endpoint: {name}={text}: {error}") from None
    if len(inner) != 1:
        raise ValueError(
            r"snet endpoint: one endpoint string goes inside, its colons escaped: snet:tcp\:9000"
        )
    return inner[0], config


@implementer(IPlugin, IStreamServerEndpointStringParser)
class ServerParser:
    """`snet:ENDPOINT`: listens for snet streams."""

    prefix = "snet"

    def parseStreamServer(
        self, reactor: Any, *args: object, **kwargs: object
    ) -> SnetServerEndpoint:
        inner, config = _parse(args, kwargs)
        from fastway.snet.listen import SnetServerEndpoint

        return SnetServerEndpoint(serverFromString(reactor, inner), reactor, config)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ClientParser:
    """`snet:ENDPOINT`: dials an snet stream."""

    prefix = "snet"

    def parseStreamClient(
        self, reactor: Any, *args: object, **kwargs: object
    ) -> SnetClientEndpoint:
        inner, config = _parse(args, kwargs)
        from fastway.snet.dial import SnetClientEndpoint

        return SnetClientEndpoint(clientFromString(reactor, inner), reactor, config)

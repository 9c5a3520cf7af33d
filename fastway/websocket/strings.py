r"""Endpoint strings, so that any program that takes one reaches a gateway by WebSocket.

    clientFromString(reactor, "ws:127.0.0.1:9080:path=/game")
    clientFromString(reactor, r"wss:game.example:path=/game?token\=x:trustRoots=ca.pem")
    serverFromString(reactor, "ws:3251:path=/nano:interface=127.0.0.1")
    serverFromString(reactor, "wss:3251:certKey=cert.pem:privateKey=key.pem:origins=*")
    serverFromString(reactor, "ws:3251:trustedProxies=127.0.0.1:trustedProxiesHeader=forwarded")

Rule: host and port first, the port may be left out; the others are named, in camelCase, as
Twisted's own. Only what parsing needs is imported until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

if TYPE_CHECKING:
    from fastway.websocket.forwarded import Trusted
    from fastway.websocket.url import UrlEndpoint

_NAMED = ("path", "origin", "header")
_TLS = ("trustRoots", "certificate", "privateKey")
_TRUSTED = ("trustedProxies", "trustedProxiesHeader", "proxyFrom", "proxyOthers")
_OTHERS = ("refuse", "direct")


def _parse(
    prefix: str, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[list[str], dict[str, str]]:
    """Host and port, and the named arguments.

    Raises:
        ValueError: an argument is missing, or is none.
    """
    where = [str(arg) for arg in args]
    given = {name: str(value) for name, value in kwargs.items()}
    names = _NAMED + (_TLS if prefix == "wss" else ())
    problem = ""
    if where and where[0].startswith("//"):
        problem = f"a URL is no endpoint string; write {prefix}:HOST:PORT:path=/PATH"
    elif not 1 <= len(where) <= 2:
        problem = f"it is {prefix}:HOST:PORT, and arguments with names"
    else:
        wrong = next((name for name in given if name not in names), None)
        if wrong is not None:
            problem = f"no argument {wrong!r}; it takes {', '.join(names)}"
    if problem:
        raise ValueError(f"{prefix} endpoint: {problem}")
    return where, given


class _Parser:
    prefix: str

    def parseStreamClient(self, reactor: Any, *args: object, **kwargs: object) -> UrlEndpoint:
        from fastway.websocket.client import Url, WebSocket
        from fastway.websocket.url import TlsFiles, UrlEndpoint

        where, given = _parse(self.prefix, args, kwargs)
        name, colon, value = given.get("header", "").partition(":")
        host = f"[{where[0]}]" if ":" in where[0] else where[0]
        try:
            if name and not colon:
                raise ValueError(rf"header={name} is not NAME\: VALUE")
            headers = {name.strip(): value.strip()} if name else {}
            wanted = WebSocket(given.get("path", "/"), given.get("origin", ""), headers)
            url = Url.parse(f"{self.prefix}://{':'.join([host, *where[1:]])}{wanted.path}")
        except ValueError as error:
            raise ValueError(f"{self.prefix} endpoint: {error}") from None
        tls = TlsFiles(*(given.get(name, "") for name in _TLS))
        return UrlEndpoint(reactor, url, wanted, tls)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ClientParser(_Parser):
    """`ws:HOST:PORT`: a WebSocket over TCP."""

    prefix = "ws"


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class SecureClientParser(_Parser):
    """`wss:HOST:PORT`: a WebSocket over TLS; the certificate must be for HOST."""

    prefix = "wss"


class _ServerParser:
    prefix: str
    below: str

    def parseStreamServer(
        self, reactor: Any, *args: object, **kwargs: object
    ) -> IStreamServerEndpoint:
        from twisted.internet.endpoints import quoteStringArgument, serverFromString

        from fastway.websocket.listen import MessageEndpoint
        from fastway.websocket.request import Policy, origin_of

        trusted = self._trusted(kwargs)
        given = {name: str(value) for name, value in kwargs.items()}
        path, origins = given.pop("path", ""), given.pop("origins", "same")
        if path and not path.startswith("/"):
            raise ValueError(f"{self.prefix} endpoint: path={path} does not begin with /")
        allowed = tuple(one.strip().lower() for one in origins.split(",") if one.strip())
        for one in allowed:
            if one not in ("same", "*") and origin_of(one) is None:
                raise ValueError(
                    f"{self.prefix} endpoint: origins={one} is none; give same, *, or https://HOST"
                )
        named = [f"{name}={quoteStringArgument(value)}" for name, value in given.items()]
        parts = [self.below, *(quoteStringArgument(str(arg)) for arg in args), *named]
        below = serverFromString(reactor, ":".join(parts))
        return MessageEndpoint(below, Policy(path, allowed), trusted)

    def _trusted(self, kwargs: dict[str, object]) -> Trusted:
        """Whom it believes, as the gateway's options say it; taken out of the arguments.

        Raises:
            ValueError: an argument is none.
        """
        from fastway.config.values import parse_networks
        from fastway.websocket.forwarded import ADDRESS_HEADERS, Trusted

        given = {name: str(kwargs.pop(name)) for name in _TRUSTED if name in kwargs}
        lists = {}
        try:
            for name in ("trustedProxies", "proxyFrom"):
                lists[name] = parse_networks(given.get(name, ""))
        except ValueError as error:
            raise ValueError(f"{self.prefix} endpoint: {name}: {error}") from None
        choices = {"trustedProxiesHeader": tuple(ADDRESS_HEADERS), "proxyOthers": _OTHERS}
        problem = ""
        for (name, words), needs in zip(choices.items(), lists, strict=True):
            if name in given and given[name] not in words:
                problem = f"{name}={given[name]} is none; give {' or '.join(words)}"
            elif name in given and not lists[needs]:
                problem = f"{name} is of no use without {needs}; give that too"
        if lists["proxyFrom"] and self.below != "tcp":
            problem = "a PROXY header comes before TLS; let the proxy end that, and give ws:"
        if problem:
            raise ValueError(f"{self.prefix} endpoint: {problem}")
        return Trusted(
            lists["trustedProxies"],
            given.get("trustedProxiesHeader", "x-forwarded-for"),
            lists["proxyFrom"],
            given.get("proxyOthers") == "direct",
        )


@implementer(IPlugin, IStreamServerEndpointStringParser)
class ServerParser(_ServerParser):
    """`ws:PORT`: WebSockets over TCP; arguments are those of `tcp:`, and `path`, `origins`,
    `trustedProxies`, `trustedProxiesHeader`, `proxyFrom`, `proxyOthers`."""

    prefix = "ws"
    below = "tcp"


@implementer(IPlugin, IStreamServerEndpointStringParser)
class SecureServerParser(_ServerParser):
    """`wss:PORT`: WebSockets over TLS; arguments are those of `ssl:`, and of `ws:` all but the
    last two, for a PROXY header would come before TLS."""

    prefix = "wss"
    below = "ssl"

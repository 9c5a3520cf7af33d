"""Where an App listens: what is given for it becomes a port, on the C relay where that can be.

Rule: what is wrong with it is said before anything is opened, and which way it went is logged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocolFactory,
    IReactorFDSet,
    IStreamServerEndpoint,
)

from fastway import relay
from fastway.address import Address, address_name, parse_address
from fastway.app.app import App
from fastway.app.ports import LinkFactory
from fastway.dialect import Dialect
from fastway.errors import ConfigError, LocalError
from fastway.logs import make_logger
from fastway.websocket.listen import MessageEndpoint

log = make_logger("fastway.app")


class NoNative(LocalError):
    """A port cannot be native. The text is one line."""


def opening(
    app: App,
    where: IStreamServerEndpoint | str,
    dialect: Dialect,
    native: bool | None,
    site: IProtocolFactory | None = None,
) -> Callable[[], Deferred[Any]]:
    """What opens a port (`App.listen`).

    Raises:
        ConfigError: the text is no address, or a site is to be where no WebSockets are.
        NoNative: it has to be, and cannot.
        BadHandler: two routes have one name in that dialect.
    """
    address = parse_address("listen", where) if isinstance(where, str) else None
    if site is not None and not _takes_websockets(where):
        raise ConfigError("site", "it goes with ports of WebSockets alone: ws: and wss:")
    problem = "it was not asked for" if native is False else _problem(app, address, site)
    if problem and native:
        raise NoNative(problem)
    if problem:
        factory = LinkFactory(app, dialect, site)
        reactor = app.clock
    else:
        from fastway.app.native import NativeFactory, NativeReactor, relay_of

        factory = NativeFactory(app, dialect)
        reactor = NativeReactor(relay_of(app, app.clock))

    def listens(port: Any) -> Any:
        tell = log.warn if problem and problem == relay.stale() else log.info
        tell(
            "{dialect} port listens on {at}, {how}",
            dialect=dialect.name,
            at=address_name(port.getHost()),
            how=f"on Twisted's transports: {problem}" if problem else "native",
        )
        return port

    def open_port() -> Deferred[Any]:
        if address is None:
            opened = where.listen(factory)  # type: ignore[union-attr]
        else:
            opened = address.listen(reactor, factory, False)
        return opened.addCallback(listens)

    return open_port


def _takes_websockets(where: IStreamServerEndpoint | str) -> bool:
    if isinstance(where, str):
        return where.strip().startswith(("ws:", "wss:"))
    return isinstance(where, MessageEndpoint)


def _problem(app: App, address: Address | None, site: IProtocolFactory | None) -> str:
    """Why a port there cannot be native; empty: it can."""
    if site is not None:
        return "it has a site"
    if address is None:
        return "an endpoint was given, not text"
    if not (address.is_tcp or address.text.startswith(("tcp:", "ws:"))):
        return "only those of TCP and of ws: are native"
    if not IReactorFDSet.providedBy(app.clock):
        return "this reactor takes no descriptors"
    return relay.missing()

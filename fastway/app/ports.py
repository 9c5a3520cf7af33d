"""Who makes the links of a port, and of a client.

Rule: what an App and a dialect cannot agree on is said here, before anything is opened.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from fastway.app.app import App
from fastway.app.handling import name_of
from fastway.app.link import Link
from fastway.app.messages import BadHandler, check_kind
from fastway.app.session import Session
from fastway.dialect import Dialect
from fastway.errors import ConfigError, LocalError, RequestTimeout
from fastway.logs import make_logger

log = make_logger("fastway.app")


def check_names(app: App, dialect: Dialect) -> None:
    """Tell a dialect what an App handles.

    Raises:
        BadHandler: two routes have one name there, or that of another App has it.
        NotInDialect: one has none.
    """
    names: dict[str, str] = {}
    form = dialect.server().format
    for route, how in app.routes.items():
        try:
            check_kind(form, how.kind)
        except TypeError as error:  # handlers may be for another port, of another format
            log.warn(
                "{route!r} refuses all that comes by this {dialect} port: {problem}",
                route=route,
                dialect=dialect.name,
                problem=error,
            )
        name = dialect.wire_name(route)
        if names.setdefault(name, route) != route:
            raise BadHandler(
                f"{names[name]} and {route} are both {name} in {dialect.name}; "
                "name one of them otherwise"
            )
        other = dialect.app_name(name)
        if other != route:
            raise BadHandler(
                f"{route} is {name} in {dialect.name}, which it takes for {other}; "
                "give each App a dialect of its own"
            )


class LinkFactory(Factory):
    """Links of one port.

    Args:
        site: Of a port of WebSockets: who has all other requests; None: they are refused.

    Raises:
        BadHandler: two routes have one name in that dialect.
    """

    noisy = False
    link: type[Link] = Link

    def __init__(self, app: App, dialect: Dialect, site: Any = None) -> None:
        self.app = app
        self.dialect = dialect
        self.site = site
        check_names(app, dialect)
        traits = getattr(dialect, "traits", None)
        if app.greets is not None and traits is not None and traits.handshake is None:
            log.warn(
                "{hook} is not asked who comes by this {dialect} port: it has no handshake",
                hook=name_of(app.greets.call),
                dialect=dialect.name,
            )

    def buildProtocol(self, addr: IAddress | None) -> Link:
        return self.link(self.app, self.dialect, self.dialect.server())

    def over_websocket(self, policy: Any, trusted: Any = None) -> Factory:
        """The factory of a port of WebSockets (`fastway.websocket.listen`)."""
        from fastway.app.websocket import WebSocketFactory

        sockets = WebSocketFactory(self.app, self.dialect, policy, trusted)
        if self.site is None:
            return sockets
        from fastway.app.site import SiteFactory

        if sockets.trusted.senders:
            raise ConfigError(
                "site", "it reads no PROXY header; take trustedProxies, not proxyFrom"
            )
        return SiteFactory(self.app, sockets, self.site)


def _never_ready(_: object, seconds: float) -> Failure:
    return Failure(RequestTimeout("connect", seconds))


class ConnectFactory(Factory):
    """The link of one client.

    Args:
        keeper: Whose its session is, that outlives it (`redial`).

    Raises:
        BadHandler, NotInDialect: as `check_names`.
    """

    noisy = False

    def __init__(
        self, app: App, dialect: Dialect, timeout: float | None, keeper: Any = None
    ) -> None:
        self.app = app
        self.dialect = dialect
        self.timeout = timeout
        self.keeper = keeper
        check_names(app, dialect)
        self._done: Deferred[Session] = Deferred(self._cancelled)
        self._link: Link | None = None
        self._asks_for: tuple[Any, str] | None = None

    def connect(self, endpoint: IStreamClientEndpoint) -> Deferred[Session]:
        """The session, once it is ready."""
        done = self._done
        connecting = endpoint.connect(self)
        self._connecting = connecting
        connecting.addErrback(self._failed)
        if self.timeout is not None:
            done.addTimeout(self.timeout, self.app.clock, _never_ready)
        return done

    def over_websocket(self, policy: Any, trusted: Any = None) -> Factory:
        raise LocalError("a client does not listen")

    def by_websocket(self, wanted: Any, host: str) -> Factory:
        """This factory, asking for a WebSocket first (`fastway.websocket.dial`)."""
        self._asks_for = wanted, host
        return self

    def buildProtocol(self, addr: IAddress | None) -> Link:
        if self._asks_for is None:
            self._link = Link(self.app, self.dialect, self.dialect.client(), self._is_ready)
        else:
            from fastway.app.websocket import client_link

            wanted, host = self._asks_for
            self._link = client_link(self.app, self.dialect, wanted, host, self._is_ready)
        self._link.keeper = self.keeper
        return self._link

    def _is_ready(self, result: Any) -> None:
        if not self._done.called:
            self._done.callback(result)

    def _failed(self, failure: Failure) -> None:
        if not self._done.called:
            self._done.errback(failure)

    def _cancelled(self, _: object) -> None:
        self._connecting.cancel()
        if self._link is not None:
            self._link.close()

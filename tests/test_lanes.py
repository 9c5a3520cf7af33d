"""Both lanes pass the checks of `tests.support.lanes`: plain, in the frames of a WebSocket, and
inside of TLS."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastway.gateway import GatewayFactory, RouterService
from fastway.relay import missing, openssl
from tests.support import lanes, tls_lanes, web_lanes
from tests.support.sockets import listen_by_relay, listen_with
from tests.support.waits import reactor


class StreamLaneTests(lanes.LaneChecks):
    """The Python lane, over TCP."""

    def open_port(self, service: RouterService, factory: GatewayFactory) -> Any:
        return reactor.listenTCP(0, factory, interface="127.0.0.1")


class NativeLaneTests(lanes.LaneChecks):
    """The native lane."""

    skip = missing() or None

    def open_port(self, service: RouterService, factory: GatewayFactory) -> Any:
        if service.native is None:
            self.by_relay = listen_by_relay(service)
        return self.by_relay(factory)


class WebStreamLaneTests(web_lanes.WebLaneChecks, StreamLaneTests):
    """The Python lane, with frames."""


class WebNativeLaneTests(web_lanes.WebLaneChecks, NativeLaneTests):
    """The native lane, with frames."""


class TlsStreamLaneTests(tls_lanes.TlsLaneChecks):
    """The Python lane, inside of TLS."""

    def open_port(self, service: RouterService, factory: GatewayFactory) -> Any:
        return reactor.listenTCP(0, self.tls(factory), interface="127.0.0.1")


class TlsNativeLaneTests(tls_lanes.TlsLaneChecks):
    """The native lane, inside of TLS."""

    halves = True
    skip = missing() or openssl.problem() or None

    def open_port(self, service: RouterService, factory: GatewayFactory) -> Any:
        if service.native is None:
            listen_by_relay(service)
        native: Any = service.native
        return listen_with(partial(native.listen, tls=self.tls(factory)), factory)

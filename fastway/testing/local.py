"""A real gateway on free ports of 127.0.0.1, in the test's own process and on its reactor.

Rule: when it has stopped, no socket, no delayed call and no connection of it is left.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from fastway.assemble import make_router_service
from fastway.config.settings import PortSettings
from fastway.errors import ConfigError
from fastway.gateway import RouterService
from fastway.snet import SnetClientEndpoint
from fastway.testing.options import HOST, GatewayOptions, client_string, snet_config, web_url

HURRY = 0.5
"""Seconds that a stop waits for connections whose far ends do not close theirs."""


class LocalGateway:
    """`async with LocalGateway(reactor) as gateway:` runs one until the end of the block.

    Elsewhere `await gateway.start()` and `gateway.stop`, a fine `addCleanup`. A second start
    takes the same ports.

    Args:
        reactor: What it runs on.
        key: What game servers prove to hold.
        snet: Speak snet on the client port.
        ws: Have a port for web pages too, by WebSocket.
        client_port: The number of a port; 0: any free one.
        server_port: The same of the server port.
        options: Options of the gateway: see `docs/testing.md`. Those of its log, its files and
            its commands have no effect here.

    Raises:
        ConfigError: an option cannot be used.

    Attributes:
        client_port, server_port: The numbers of its ports, once it was started.
        web_port: That of the first port for web pages; 0 without one.
        web_ports: Those of all such ports, of `client_wss_addr` last.
        direct_ports: Name -> the number, of direct ports.
        web_url: Where the first is, as `connect_client` takes it; "" without one.
        client: Where clients connect, a Twisted client endpoint; it speaks snet if the port does.
        server: Where game servers connect.
        client_string, server_string: The same as endpoint strings.
        key: The key, as `connect_server` takes it.
        service: The gateway's inside, for those who know it; it has no stable interface.
    """

    client: IStreamClientEndpoint
    server: IStreamClientEndpoint
    client_string: str
    server_string: str
    web_url: str
    service: RouterService

    def __init__(
        self,
        reactor: Any,
        key: str | bytes = "secret",
        *,
        snet: bool = False,
        ws: bool = False,
        client_port: int = 0,
        server_port: int = 0,
        **options: object,
    ) -> None:
        self.client_port = client_port
        self.server_port = server_port
        self.web_port = 0
        self.web_ports: list[int] = []
        self.direct_ports: dict[str, int] = {}
        self._reactor = reactor
        self._options = GatewayOptions(key, snet, ws, options)
        self.key = self._options.key
        self._running = False

    def start(self) -> Deferred[LocalGateway]:
        """Fires with this when both ports listen; fails with StartError, and nothing is left."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> LocalGateway:
        if self._running:
            raise ConfigError("start", "it runs already")
        settings = self._options.at(self.client_port, self.server_port, self.web_port)
        self.service = service = make_router_service(settings, self._reactor)
        service.startService()
        self._running = True
        try:
            for port in service.ports:
                await port.open(self._reactor, service.native)
        except BaseException:
            await self.stop()
            raise
        hosts = [cast(Any, port.listening).getHost() for port in service.ports]
        # One that is not the client or server port may have none.
        numbers = [getattr(host, "port", 0) for host in hosts]
        self.client_port, self.server_port, *more = numbers
        self.web_ports = more[: len(settings.websockets)]
        self.web_port = self.web_ports[0] if self.web_ports else 0
        names = [port.direct.name for port in settings.direct]
        self.direct_ports = dict(zip(names, more[len(self.web_ports) :], strict=True))
        self.client, self.client_string = self._way(settings.client, self.client_port)
        self.server, self.server_string = self._way(settings.server, self.server_port)
        self.web_url = web_url(settings, self.web_port)
        return self

    def _way(self, port: PortSettings, number: int) -> tuple[IStreamClientEndpoint, str]:
        endpoint: Any = TCP4ClientEndpoint(self._reactor, HOST, number)
        if port.snet is not None:
            endpoint = SnetClientEndpoint(endpoint, self._reactor, snet_config(port.snet))
        return endpoint, client_string(port, number)

    def stop(self) -> Deferred[None]:
        """Fires within a second, when all its connections are gone; again does nothing."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if not self._running:
            return
        self._running = False
        for port in self.service.ports:
            await port.close()
        stopping = maybeDeferred(self.service.stopService)
        hurry = self._reactor.callLater(HURRY, self.service.abort)
        await stopping
        if hurry.active():
            hurry.cancel()
        self.service.native = None  # its descriptors go with it

    async def __aenter__(self) -> LocalGateway:
        return await self.start()

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

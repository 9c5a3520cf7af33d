"""Gateways on real sockets, and fastway's own endpoints that talk to them.

Rule: all of them are in this process, and gone at the end of the test.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from fastway.endpoint import EndpointConfig, GatewayConnection, connect_client, connect_server
from fastway.testing import LocalGateway
from tests.support.golden import KEY
from tests.support.waits import SECONDS, reactor, until


class OneOf(Factory):
    """Hands out the protocols that it was given, in order; then declines.

    Attributes:
        given: How many it handed out.
    """

    noisy = False

    def __init__(self, *protocols: Any) -> None:
        self._protocols = list(protocols)
        self.given = 0
        self.addresses: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        self.addresses.append(addr)
        if not self._protocols:
            return None
        self.given += 1
        return self._protocols.pop(0)


class GatewayTestCase(TestCase):
    """Tests with gateways and endpoints in this process, which are gone at the end of each."""

    relay = False

    def gateway(self, key: bytes = KEY) -> LocalGateway:
        gateway = LocalGateway(reactor, key, relay="on" if self.relay else "off")
        self.addCleanup(gateway.stop)
        return self.successResultOf(gateway.start())

    def keep(self, endpoint: GatewayConnection) -> GatewayConnection:
        async def leave() -> None:
            endpoint.close()
            await until("its end", lambda: endpoint.link.gone, SECONDS)

        self.addCleanup(lambda: Deferred.fromCoroutine(leave()))
        return endpoint

    async def client(
        self, gateway: LocalGateway, config: EndpointConfig | None = None
    ) -> GatewayConnection:
        return self.keep(await connect_client(gateway.client, config))

    async def server(
        self, gateway: LocalGateway, config: EndpointConfig | None = None, server_id: int = 1
    ) -> GatewayConnection:
        return self.keep(await connect_server(gateway.server, server_id, gateway.key, config))

    async def ends(
        self, config: EndpointConfig | None = None
    ) -> tuple[LocalGateway, GatewayConnection, GatewayConnection]:
        """A gateway, a client, and the server with id 1."""
        gateway = self.gateway()
        return gateway, await self.client(gateway), await self.server(gateway, config)

    async def fails(self, kind: type[Exception], waiting: Any) -> Any:
        """The error of that kind with which a Deferred fails."""
        try:
            result = await waiting
        except kind as error:
            return error
        raise AssertionError(f"no {kind.__name__}, but {result!r}")

    async def idle(self, gateway: LocalGateway) -> None:
        """The gateway comes to hold no virtual connection."""
        await until("no virtual connection", lambda: not gateway.service.router.conn_ids, SECONDS)

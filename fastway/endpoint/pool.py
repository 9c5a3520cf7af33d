"""A game server on all of its gateways, as a service of Twisted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from fastway.endpoint.config import EndpointConfig
from fastway.endpoint.connect import checked_gateway, connect_server
from fastway.endpoint.connection import GatewayConnection, Taking, VirtualConnection
from fastway.endpoint.core import checked_key, checked_server_id
from fastway.endpoint.keeper import Gateways
from fastway.endpoint.reactor import TwistedLoop, the_reactor
from fastway.errors import EndpointEnded, GatewayDown, LocalError
from fastway.reconnect import Backoff


class GatewayPool(Service, Taking, Gateways[VirtualConnection[Any], GatewayConnection]):
    """One game server's connections to every gateway.

    Args:
        gateways: name -> Twisted client endpoint of a gateway's server port, or its URL as
            `connect_server` takes it.
        server_id: This game server's id, the same at all gateways.
        key: The server key; text is UTF-8.
        config: How each connection behaves.
        clock: The reactor.
        backoff: Failures since the last steady connection -> seconds until the next attempt.
    """

    def __init__(
        self,
        gateways: Mapping[str, IStreamClientEndpoint | str],
        server_id: int,
        key: bytes | str = b"",
        config: EndpointConfig | None = None,
        clock: IReactorTime | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.server_id = checked_server_id(server_id)
        self.config = EndpointConfig() if config is None else config
        self._key = checked_key(key)
        self._clock = the_reactor() if clock is None else clock
        loop = TwistedLoop(self._clock)
        Gateways.__init__(self, gateways, loop, self.config.accept_queue, backoff)

    def when_changed(self) -> Deferred[dict[str, GatewayConnection]]:
        """Fires with `up` the next time that a gateway comes or goes.

        Fails with EndpointEnded when the pool is stopped, with LocalError before it is started.
        """
        try:
            return cast("Deferred[dict[str, GatewayConnection]]", self.wait_for_change())
        except (EndpointEnded, LocalError) as error:
            return fail(error)

    def dial(
        self, gateway: str, client_id: int, timeout: float | None = None
    ) -> Deferred[VirtualConnection[Any]]:
        """Dial a client of one gateway: client ids are each gateway's own.

        Fails with GatewayDown when that one is not up, and as GatewayConnection.dial does.
        """
        try:
            return self.find_up(gateway).dial(client_id, timeout)
        except GatewayDown as error:
            return fail(error)

    def startService(self) -> None:
        super().startService()
        self.start()

    def stopService(self) -> Deferred[Any]:
        """Leave all gateways; fires when all connections are gone and all handlers returned."""
        super().stopService()
        return DeferredList(self.leave())

    def checked(self, gateway: IStreamClientEndpoint | str) -> IStreamClientEndpoint:
        return checked_gateway(gateway, self._clock)

    def connect_to(
        self,
        name: str,
        gateway: IStreamClientEndpoint,
        made: Callable[[GatewayConnection], None],
    ) -> Deferred[GatewayConnection]:
        return connect_server(gateway, self.server_id, self._key, self.config, self._clock, made)

"""A client on one of several gateways, as a service of Twisted."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred, fail, maybeDeferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.endpoint.config import EndpointConfig
from fastway.endpoint.connect import checked_gateway, connect_client
from fastway.endpoint.connection import GatewayConnection, VirtualConnection
from fastway.endpoint.keeper import Keeper, default_backoff
from fastway.endpoint.reactor import TwistedLoop, the_reactor
from fastway.errors import DialTimeout, EndpointEnded, GatewayDown, LocalError
from fastway.formats import MessageFormat
from fastway.reconnect import Backoff
from fastway.waiting import Waiters


@implementer(IStreamClientEndpoint)
class AnyOf:
    """Connects to one of several endpoints, tried in random order until one answers."""

    def __init__(self, endpoints: Iterable[IStreamClientEndpoint]) -> None:
        self.endpoints = list(endpoints)
        """May be changed at any time; the next `connect` looks at it anew."""

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the first that answers; fails as the last one did. Can be cancelled."""
        left = random.sample(self.endpoints, len(self.endpoints))
        if not left:
            return fail(GatewayDown("any"))
        attempt: Deferred[IProtocol]
        result: Deferred[IProtocol]

        def cancel(_: Deferred[IProtocol]) -> None:
            left.clear()
            attempt.cancel()

        def try_next() -> None:
            nonlocal attempt
            attempt = maybeDeferred(left.pop().connect, factory)
            attempt.addCallbacks(connected, failed)

        def connected(protocol: IProtocol) -> None:
            result.callback(protocol)

        def failed(failure: Failure) -> None:
            if left:
                try_next()
            elif not result.called:
                result.errback(failure)

        result = Deferred(cancel)
        try_next()
        return result


class GatewayClient(Service):
    """A client that keeps one connection to one of several gateways, and fails over.

    Virtual connections end with the gateway that they run over: dial anew.

    Args:
        gateways: Twisted client endpoints of the gateways' client ports, or their URLs as
            `connect_client` takes them.
        backoff: Failures over the whole list since the last steady connection -> seconds.
    """

    def __init__(
        self,
        gateways: Iterable[IStreamClientEndpoint | str],
        config: EndpointConfig | None = None,
        clock: IReactorTime | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        if isinstance(gateways, str):
            raise TypeError(f"gateways is a list of them, not {gateways!r}")
        self._clock = the_reactor() if clock is None else clock
        self.any_of = AnyOf(checked_gateway(gateway, self._clock) for gateway in gateways)
        loop = TwistedLoop(self._clock)
        self._changes = Waiters(loop)
        self._ended: Exception = LocalError("the client is not started")
        self._keeper: Keeper[GatewayConnection] = Keeper(
            "any",
            lambda made: connect_client(self.any_of, config, self._clock, made),
            lambda: self._changes.callback(None),
            default_backoff() if backoff is None else backoff,
            loop,
        )

    @property
    def gateway(self) -> GatewayConnection | None:
        """The connection that is up now."""
        return self._keeper.gateway

    def startService(self) -> None:
        super().startService()
        self._keeper.start()

    def stopService(self) -> Deferred[Any]:
        """End the connection, or the attempt to make one; fires when it is gone."""
        super().stopService()
        self._ended = EndpointEnded("the client is stopped")
        stopping: Deferred[Any] = self._keeper.stop()
        self._changes.errback(self._ended)
        return stopping

    def when_up(self, attempts: int | None = None) -> Deferred[GatewayConnection]:
        """Fires with the connection as soon as there is one.

        Args:
            attempts: Fail with GatewayDown after this many failed attempts over the whole list;
                None: never.

        Fails with LocalError when it is not started, with EndpointEnded when it is stopped.
        """
        return ensureDeferred(self._when_up(attempts))

    async def _when_up(self, attempts: int | None) -> GatewayConnection:
        before = self._keeper.failed
        while self.gateway is None:
            if not self.running:
                raise self._ended.with_traceback(None)
            if attempts is not None and self._keeper.failed - before >= attempts:
                raise GatewayDown("any")
            await self._changes.wait()
        return self.gateway

    def dial(
        self,
        remote_id: int,
        timeout: float | None = None,
        *,
        message_format: MessageFormat[Any] | None = None,
    ) -> Deferred[VirtualConnection[Any]]:
        """Dial a server over whichever gateway is connected, waiting for one if none is.

        Args:
            timeout: Seconds for both together; then it fails with DialTimeout.
            message_format: What its messages are; None: as configured.
        """
        dialling = ensureDeferred(self._dial(remote_id, message_format))
        if timeout is not None:

            def too_late(_: Any, seconds: float) -> Any:
                raise DialTimeout(remote_id, seconds)

            dialling.addTimeout(timeout, self._clock, too_late)
        return dialling

    async def _dial(
        self, remote_id: int, message_format: MessageFormat[Any] | None
    ) -> VirtualConnection[Any]:
        gateway = await self.when_up()
        conn = await gateway.dial(remote_id)
        if message_format is not None:
            conn.message_format = message_format
        return conn

    # Old names, for one release.

    @property
    def endpoint(self) -> GatewayConnection | None:
        """The old name of `gateway`."""
        return self.gateway

    when_connected = when_up

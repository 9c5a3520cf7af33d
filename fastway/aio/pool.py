"""A game server on all of its gateways, and a client on one of several, with asyncio.

Rule: both are entered with `async with`; leaving closes everything and waits for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar, cast

from fastway.aio.connect import Gateway, checked_gateway, connect
from fastway.aio.connection import GatewayConnection, Taking, VirtualConnection
from fastway.aio.loop import AioLoop
from fastway.endpoint.config import EndpointConfig
from fastway.endpoint.core import checked_key, checked_server_id
from fastway.endpoint.keeper import Gateways, Keeper, default_backoff
from fastway.errors import DialTimeout, EndpointEnded, GatewayDown, GatewayUnreachable, LocalError
from fastway.formats import MessageFormat
from fastway.reconnect import Backoff
from fastway.waiting import Waiters

S = TypeVar("S", bound="Started")


class Started:
    """What runs within `async with`."""

    def start(self) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError

    async def __aenter__(self: S) -> S:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


class GatewayPool(
    Taking[VirtualConnection[Any]], Gateways[VirtualConnection[Any], GatewayConnection], Started
):
    """One game server's connections to every gateway.

    Made within a running loop.

    Args:
        gateways: name -> `Gateway` or its text, of a gateway's server port.
        server_id: This game server's id, the same at all gateways.
        key: The server key.
        config: How each connection behaves.
        backoff: Failures since the last steady connection -> seconds until the next attempt.
    """

    def __init__(
        self,
        gateways: Mapping[str, Gateway | str],
        server_id: int,
        key: bytes | str = b"",
        config: EndpointConfig | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.server_id = checked_server_id(server_id)
        self.config = EndpointConfig() if config is None else config
        self._key = checked_key(key)
        loop = AioLoop(asyncio.get_running_loop())
        super().__init__(gateways, loop, self.config.accept_queue, backoff)

    async def when_changed(self) -> dict[str, GatewayConnection]:
        """Wait for the next time that a gateway comes or goes, and tell `up`.

        Raises:
            EndpointEnded: the pool is stopped.
            LocalError: it is not started.
        """
        await self.wait_for_change()
        return self.up

    async def dial(
        self, gateway: str, client_id: int, timeout: float | None = None
    ) -> VirtualConnection[Any]:
        """Dial a client of one gateway: client ids are each gateway's own.

        Raises:
            GatewayDown: that one is not up.
            As GatewayConnection.dial.
        """
        return await self.find_up(gateway).dial(client_id, timeout)

    async def stop(self) -> None:
        """Leave all gateways; wait until all connections are gone and all handlers returned."""
        await asyncio.gather(*self.leave())

    def connect_to(
        self, name: str, gateway: Any, made: Callable[[GatewayConnection], None]
    ) -> Any:
        return self._loop.spawn(connect(gateway, self.server_id, self._key, self.config, made))

    def add(self, name: str, gateway: Gateway | str) -> None:
        super().add(name, gateway)

    def set_gateways(self, gateways: Mapping[str, Gateway | str]) -> None:
        super().set_gateways(gateways)

    def checked(self, gateway: Gateway | str) -> Gateway:
        return checked_gateway(gateway)


class GatewayClient(Started):
    """A client that keeps one connection to one of several gateways, and fails over.

    Made within a running loop. Virtual connections end with the gateway that they run over: dial
    anew.

    Args:
        gateways: `Gateway`s or their texts, of the gateways' client ports; `gateways` may be
            changed at any time.
        backoff: Failures over the whole list since the last steady connection -> seconds.
    """

    def __init__(
        self,
        gateways: Iterable[Gateway | str],
        config: EndpointConfig | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        if isinstance(gateways, str):
            raise TypeError(f"gateways is a list of them, not {gateways!r}")
        self.gateways = [checked_gateway(gateway) for gateway in gateways]
        self.config = config
        loop = AioLoop(asyncio.get_running_loop())
        self._changes = Waiters(loop)
        self._ended: Exception | None = LocalError("the client is not started")
        self._keeper: Keeper[GatewayConnection] = Keeper(
            "any",
            lambda made: loop.spawn(self._connect(made)),
            lambda: self._changes.callback(None),
            default_backoff() if backoff is None else backoff,
            loop,
        )

    async def _connect(self, made: Callable[[GatewayConnection], None]) -> GatewayConnection:
        error: Exception = GatewayDown("any")
        for gateway in random.sample(self.gateways, len(self.gateways)):
            try:
                return await connect(gateway, None, b"", self.config, made)
            except (GatewayUnreachable, EndpointEnded) as unreachable:
                error = unreachable
        raise error

    @property
    def gateway(self) -> GatewayConnection | None:
        """The connection that is up now."""
        return self._keeper.gateway

    def start(self) -> None:
        """Connect, and connect again; a second time changes nothing."""
        if self._ended is None:
            return
        self._ended = None
        self._keeper.start()

    async def stop(self) -> None:
        """End the connection, or the attempt to make one, and wait until it is gone."""
        self._ended = EndpointEnded("the client is stopped")
        stopping = self._keeper.stop()
        self._changes.errback(self._ended)
        await stopping

    async def when_up(self, attempts: int | None = None) -> GatewayConnection:
        """Wait for the connection.

        Args:
            attempts: Raise GatewayDown after this many failed attempts over the whole list;
                None: never.

        Raises:
            LocalError: it is not started.
            EndpointEnded: it is stopped.
        """
        before = self._keeper.failed
        while self.gateway is None:
            self._check_running()
            if attempts is not None and self._keeper.failed - before >= attempts:
                raise GatewayDown("any")
            await self._changes.wait()
        return self.gateway

    async def dial(
        self,
        remote_id: int,
        timeout: float | None = None,
        *,
        message_format: MessageFormat[Any] | None = None,
    ) -> VirtualConnection[Any]:
        """Dial a server over whichever gateway is connected, waiting for one if none is.

        Args:
            timeout: Seconds for both together.
            message_format: What its messages are; None: as configured.

        Raises:
            DialTimeout: no answer in time.
            As GatewayConnection.dial.
        """
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        while self.gateway is None:
            self._check_running()
            waiter = self._changes.wait()
            if timeout is None or end is None:
                await waiter
                continue
            error = DialTimeout(remote_id, timeout)
            timer = loop.call_at(end, self._changes.fail, waiter, error)
            try:
                await waiter
            finally:
                timer.cancel()
        left = None if end is None else max(0.0, end - loop.time())
        try:
            conn = await self.gateway.dial(remote_id, left)
        except DialTimeout as error:
            raise DialTimeout(remote_id, cast(float, timeout)) from error
        if message_format is not None:
            conn.message_format = message_format
        return conn

    def _check_running(self) -> None:
        if self._ended is not None:
            raise self._ended.with_traceback(None)

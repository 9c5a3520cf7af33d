"""Test cases for the library on asyncio: in memory on a stepped loop, and with a real gateway.

Rule: whatever a loop's exception handler is told, a task that is left, and a coroutine that nobody
awaited fail the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from fastway.aio import (
    EndpointConfig,
    GatewayConnection,
    VirtualConnection,
    connect_client,
    connect_server,
)
from tests.support.aio import AioScripted, Turns
from tests.support.golden import KEY
from tests.support.rows import ACCEPTED
from tests.support.scripted import SERVER_ID
from tests.support.sockets import Sockets
from tests.support.waits import SECONDS, reactor

T = TypeVar("T")

uvloop: Any
try:
    import uvloop
except ImportError:
    uvloop = None


def new_uvloop() -> asyncio.AbstractEventLoop:
    return cast(asyncio.AbstractEventLoop, uvloop.new_event_loop())


class AioCase(TestCase):
    """A test case with a loop that leaves nothing behind."""

    def setUp(self) -> None:
        self.turns = Turns(self.make_loop())
        self.addCleanup(self._close_loop)

    def make_loop(self) -> asyncio.AbstractEventLoop | None:
        return None

    def _close_loop(self) -> None:
        self.assertEqual(self.turns.stop(), [])
        never = [one["message"] for one in self.flushWarnings() if "await" in one["message"]]
        self.assertEqual(never, [])


class MemoryCase(AioCase):
    """A test case that speaks for the gateway, in golden bytes, on a stepped loop."""

    def client(self, **config: Any) -> AioScripted:
        config.setdefault("ping_interval", 0)
        return AioScripted(self.turns, EndpointConfig(**config))

    def server(self, **config: Any) -> AioScripted:
        config.setdefault("ping_interval", 0)
        return AioScripted(self.turns, EndpointConfig(**config), SERVER_ID)

    def connected(self, gateway: AioScripted) -> VirtualConnection[Any]:
        """A virtual connection that the client dialled, FIRST."""
        dialling = self.turns.task(gateway.raw.dial(1))
        gateway.say(ACCEPTED)
        self.turns.turn()
        gateway.heard()
        return dialling.result()

    def cancelled(self, task: asyncio.Task[Any]) -> None:
        self.turns.turn()
        self.assertTrue(task.cancelled(), task)


class SocketCase(AioCase):
    """A test case with a real gateway, at whose end every endpoint is gone."""

    relay = False

    def make_loop(self) -> asyncio.AbstractEventLoop | None:
        return asyncio.new_event_loop()

    def setUp(self) -> None:
        super().setUp()
        self.turns.drive()

    def listen(self, **config: Any) -> Sockets:
        sockets = Sockets(relay=self.relay, **config)
        self.addCleanup(sockets.stop)
        return sockets

    async def run_aio(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What a coroutine of asyncio's comes to."""
        return await self.turns.start(coroutine).addTimeout(SECONDS, reactor)

    def keep(self, gateway: GatewayConnection) -> GatewayConnection:
        def leave() -> Deferred[None]:
            return self.turns.start(gateway.close())

        self.addCleanup(leave)
        return gateway

    def where(self, port: Any) -> str:
        return f"127.0.0.1:{port.getHost().port}"

    async def client(self, sockets: Sockets, **config: Any) -> GatewayConnection:
        where = self.where(sockets.client_port)
        return self.keep(
            await self.run_aio(_made(connect_client(where, EndpointConfig(**config))))
        )

    async def server(self, sockets: Sockets, **config: Any) -> GatewayConnection:
        where = self.where(sockets.server_port)
        config = {"control": False, **config}
        connecting = connect_server(where, SERVER_ID, KEY, EndpointConfig(**config))
        return self.keep(await self.run_aio(_made(connecting)))


async def _made(connecting: Awaitable[T]) -> T:
    return await connecting

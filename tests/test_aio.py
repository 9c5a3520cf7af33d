"""The endpoint on asyncio: the body of tests in memory on a stepped loop and against the real
gateway, on asyncio's own loop and on uvloop; then what is asyncio's own.

Rule: the far end only knows bytes. In memory no time passes and the loop takes the turns that it
is given; whatever a loop's exception handler is told fails the test.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from twisted.trial.unittest import TestCase

from fastway.aio import EndpointConfig, connect_client, connect_server
from tests.support.aio import AioScripted, Turns, with_deferreds
from tests.support.endpoint import (
    EndpointBody,
    ScriptedWorld,
    SocketWorld,
    World,
    many,
)
from tests.support.golden import KEY
from tests.support.paths import on_both_paths
from tests.support.scripted import FAR, SERVER_ID
from tests.support.sockets import Sockets
from tests.support.waits import SECONDS, reactor

uvloop: Any
try:
    import uvloop
except ImportError:
    uvloop = None


class AioCase(TestCase):
    """A test case with a loop that leaves nothing behind."""

    timeout = 30

    def setUp(self) -> None:
        self.turns = Turns(self.make_loop())
        self.addCleanup(self._close_loop)

    def make_loop(self) -> asyncio.AbstractEventLoop | None:
        return None

    def _close_loop(self) -> None:
        self.assertEqual(self.turns.stop(), [])
        never = [one["message"] for one in self.flushWarnings() if "await" in one["message"]]
        self.assertEqual(never, [])


class ScriptedClientTests(EndpointBody, AioCase):
    """A client, in memory."""

    async def open(self, **config: Any) -> World:
        return ScriptedWorld(AioScripted(self.turns, EndpointConfig(**config)), 1)


class ScriptedServerTests(EndpointBody, AioCase):
    """A server, in memory."""

    async def open(self, **config: Any) -> World:
        gateway = AioScripted(self.turns, EndpointConfig(**config), SERVER_ID)
        gateway.log_in()
        return ScriptedWorld(gateway, SERVER_ID)


class AioWorld(SocketWorld):
    """Over TCP, with asyncio's endpoint."""

    @property
    def name(self) -> str:
        transport: Any = self.endpoint.link.transport
        host, port = transport.transport.get_extra_info("sockname")
        return f"{host}:{port}"


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

    async def run_aio(self, coroutine: Any) -> Any:
        """What a coroutine of asyncio's comes to."""
        return await self.turns.start(coroutine).addTimeout(SECONDS, reactor)

    def where(self, port: Any) -> str:
        return f"127.0.0.1:{port.getHost().port}"

    async def client(self, sockets: Sockets, **config: Any) -> Any:
        where = self.where(sockets.client_port)
        endpoint = await self.run_aio(_connect(connect_client(where, EndpointConfig(**config))))
        self.addCleanup(lambda: self.turns.start(endpoint.close()))
        return endpoint

    async def server(self, sockets: Sockets, **config: Any) -> Any:
        where = self.where(sockets.server_port)
        connecting = connect_server(where, SERVER_ID, KEY, EndpointConfig(**config))
        endpoint = await self.run_aio(_connect(connecting))
        self.addCleanup(lambda: self.turns.start(endpoint.close()))
        return endpoint


async def _connect(connecting: Any) -> Any:
    return await connecting


@on_both_paths
class SocketClientTests(EndpointBody, SocketCase):
    """A client of a real gateway."""

    async def open(self, **config: Any) -> World:
        sockets = self.listen(limits=many())
        endpoint = with_deferreds(self.turns, await self.client(sockets, **config))
        return AioWorld(sockets, endpoint, await sockets.server(FAR), 1)


@on_both_paths
class SocketServerTests(EndpointBody, SocketCase):
    """A server of a real gateway."""

    async def open(self, **config: Any) -> World:
        sockets = self.listen(limits=many())
        far = await sockets.client()
        endpoint = with_deferreds(self.turns, await self.server(sockets, **config))
        return AioWorld(sockets, endpoint, far, SERVER_ID)


class UvloopCase(SocketCase):
    """The same on uvloop."""

    if uvloop is None:
        skip = "uvloop is missing"

    def make_loop(self) -> asyncio.AbstractEventLoop | None:
        return cast(asyncio.AbstractEventLoop, uvloop.new_event_loop())


class UvloopClientTests(UvloopCase, SocketClientTests):
    """A client of a real gateway, on uvloop."""


class UvloopServerTests(UvloopCase, SocketServerTests):
    """A server of a real gateway, on uvloop."""

"""The endpoint on asyncio: the body of tests in memory on a stepped loop and against the real
gateway, on asyncio's own loop and on uvloop.

Rule: the far end only knows bytes. In memory no time passes and the loop takes the turns that it
is given.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastway.aio import EndpointConfig
from tests.support.aio import AioScripted, with_deferreds
from tests.support.aio_cases import AioCase, SocketCase, new_uvloop, uvloop
from tests.support.endpoint import (
    EndpointBody,
    ScriptedWorld,
    SocketWorld,
    World,
    many,
)
from tests.support.paths import on_both_paths
from tests.support.scripted import FAR, SERVER_ID


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
        return new_uvloop()


class UvloopClientTests(UvloopCase, SocketClientTests):
    """A client of a real gateway, on uvloop."""


class UvloopServerTests(UvloopCase, SocketServerTests):
    """A server of a real gateway, on uvloop."""

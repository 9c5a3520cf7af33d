"""A game server to try a gateway with: `fastway demo` puts it behind one.

Rule: it is what a user of the endpoint library would write, and reaches the gateway over TCP only.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint

from fastway.endpoint import EndpointConfig, GatewayPool, Text, VirtualConnection
from fastway.errors import FastwayError

SERVER_ID = 1

MAX_NAME = 32

HELP = (
    "type a line and it comes back; /join NAME enters the chat room, /who lists it, /quit leaves"
)


class DemoServer(Service):
    """Echoes every message; who joins the room talks to all who did."""

    def __init__(self, reactor: Any, host: str, port: int, key: bytes) -> None:
        gateways = {f"{host}:{port}": HostnameEndpoint(reactor, host, port)}
        config = EndpointConfig(message_format=Text())
        self.pool = GatewayPool(gateways, SERVER_ID, key, config, reactor)
        self._room: dict[VirtualConnection[Any], str] = {}

    def startService(self) -> None:
        super().startService()
        self.pool.startService()
        ensureDeferred(self._accept())

    def stopService(self) -> Deferred[Any]:
        """Leave the gateway; fires when the connection is gone."""
        super().stopService()
        return self.pool.stopService()

    async def _accept(self) -> None:
        async for conn in self.pool:
            ensureDeferred(self._serve(conn))

    async def _serve(self, conn: VirtualConnection[Any]) -> None:
        try:
            await conn.send(f"welcome, client {conn.remote_id}: {HELP}")
            async for text in conn:
                await self._answer(conn, text)
        except FastwayError:
            pass  # it is closed, and that is all there is to it
        name = self._room.pop(conn, None)
        if name is not None:
            self._say_all(f"* {name} left")

    async def _answer(self, conn: VirtualConnection[Any], text: str) -> None:
        word, _, rest = text.strip().partition(" ")
        if word == "/join" and rest:
            self._room[conn] = rest[:MAX_NAME]
            self._say_all(f"* {self._room[conn]} joined")
        elif word == "/who":
            await conn.send(f"* in the room: {', '.join(self._room.values()) or 'nobody'}")
        elif word == "/quit":
            conn.close()
        elif conn in self._room:
            self._say_all(f"<{self._room[conn]}> {text}")
        else:
            await conn.send(text)

    def _say_all(self, text: str) -> None:
        for conn in list(self._room):
            try:
                conn.send(text).addErrback(lambda _: None)
            except FastwayError:
                conn.close()

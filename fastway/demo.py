"""A game server to try a gateway with: `fastway demo` puts it behind one.

Rule: it is what a user of the endpoint library would write, and reaches the gateway over TCP only.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint

from fastway.endpoint import EndpointConfig, GatewayPool, Group, Text, VirtualConnection

SERVER_ID = 1

MAX_NAME = 32

HELP = (
    "type a line and it comes back; /join NAME enters the chat room, /who lists it, /quit leaves"
)

Guest = VirtualConnection[str]
"""Its `state` is its name in the room; None before it joins."""


class DemoServer(Service):
    """Echoes every message; who joins the room talks to all who did."""

    def __init__(self, reactor: Any, host: str, port: int, key: bytes) -> None:
        gateways = {f"{host}:{port}": HostnameEndpoint(reactor, host, port)}
        config = EndpointConfig(message_format=Text())
        self.pool = GatewayPool(gateways, SERVER_ID, key, config, reactor)
        self.pool.serve(self._serve)
        self._room: Group[Guest] = Group()

    def startService(self) -> None:
        super().startService()
        self.pool.startService()

    def stopService(self) -> Deferred[Any]:
        """Leave the gateway; fires when the connection is gone."""
        super().stopService()
        return self.pool.stopService()

    async def _serve(self, guest: Guest) -> None:
        await guest.send(f"welcome, client {guest.remote_id}: {HELP}")
        try:
            async for text in guest:
                await self._answer(guest, text)
        finally:
            if guest.state is not None:
                self._room.tell(f"* {guest.state} left")

    async def _answer(self, guest: Guest, text: str) -> None:
        word, _, rest = text.strip().partition(" ")
        if word == "/join" and rest:
            guest.state = rest[:MAX_NAME]
            self._room.add(guest)
            self._room.tell(f"* {guest.state} joined")
        elif word == "/who":
            names = ", ".join(one.state for one in self._room)
            await guest.send(f"* in the room: {names or 'nobody'}")
        elif word == "/quit":
            guest.close()
        elif guest.state is not None:
            self._room.tell(f"<{guest.state}> {text}")
        else:
            await guest.send(text)

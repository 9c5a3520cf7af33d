"""A chat room: a game server that tells every message to all who are in the room.

python examples/chat.py
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from fastway.endpoint import (
    EndpointConfig,
    GatewayConnection,
    Text,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.errors import FastwayError
from fastway.testing import LocalGateway

ROOM_ID = 1
TEXT = EndpointConfig(message_format=Text())


class Room:
    def __init__(self) -> None:
        self.names: dict[VirtualConnection[Any], str] = {}

    async def open(self, server: GatewayConnection) -> None:
        async for conn in server:
            ensureDeferred(self.serve(conn))

    async def serve(self, conn: VirtualConnection[Any]) -> None:
        async for text in conn:
            name = self.names.setdefault(conn, text)  # the first message is the name
            self.say_all(f"* {name} is here" if name is text else f"<{name}> {text}")
        if conn in self.names:
            self.say_all(f"* {self.names.pop(conn)} left")

    def say_all(self, text: str) -> None:
        """Nobody is awaited: one who reads slowly must not keep the others waiting."""
        for conn in list(self.names):
            try:
                conn.send(text).addErrback(lambda _: None)
            except FastwayError:
                conn.close()


async def main(reactor: Any) -> None:
    async with LocalGateway(reactor) as gateway:
        server = await connect_server(gateway.server, ROOM_ID, gateway.key, TEXT)
        ensureDeferred(Room().open(server))

        guests: dict[str, VirtualConnection[Any]] = {}

        async def hear() -> None:
            for name, conn in guests.items():
                print(f"{name} hears: {await conn.receive()}")

        for name in ("Ann", "Bob", "Cem"):
            client = await connect_client(gateway.client, TEXT)
            guests[name] = await client.dial(ROOM_ID)
            await guests[name].send(name)
            await hear()
        await guests["Ann"].send("hello")
        await hear()
        guests.pop("Ann").endpoint.close()
        await hear()


if __name__ == "__main__":
    react(main)

"""A chat room: a game server that tells every message to all who are in the room.

python examples/chat.py
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import react

from fastway.endpoint import (
    EndpointConfig,
    Group,
    Text,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.testing import LocalGateway

ROOM_ID = 1
TEXT = EndpointConfig(message_format=Text())

Guest = VirtualConnection[str]

room: Group[Guest] = Group()


async def visit(guest: Guest) -> None:
    name = await guest.receive()
    room.add(guest)
    room.tell(f"* {name} is here")
    async for text in guest:
        room.tell(f"<{name}> {text}")
    room.tell(f"* {name} left")  # who has ended is no member any more


async def main(reactor: Any) -> None:
    async with LocalGateway(reactor) as gateway:
        server = await connect_server(gateway.server, ROOM_ID, gateway.key, TEXT)
        server.serve(visit)

        guests: dict[str, Guest] = {}

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
        await guests.pop("Ann").gateway.close()
        await hear()


if __name__ == "__main__":
    react(main)

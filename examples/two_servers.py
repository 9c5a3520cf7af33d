"""One client talks to two game servers over one connection to the gateway.

python examples/two_servers.py
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import react

from fastway.endpoint import (
    EndpointConfig,
    GatewayConnection,
    Text,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.errors import DialRefused
from fastway.testing import LocalGateway

LOBBY_ID = 1
BATTLE_ID = 2
TEXT = EndpointConfig(message_format=Text())


async def open_server(gateway: LocalGateway, server_id: int, name: str) -> GatewayConnection:
    async def answer(conn: VirtualConnection[str]) -> None:
        async for text in conn:
            await conn.send(f"the {name} heard {text!r}")

    server = await connect_server(gateway.server, server_id, gateway.key, TEXT)
    server.serve(answer)
    return server


async def main(reactor: Any) -> None:
    async with LocalGateway(reactor) as gateway:
        await open_server(gateway, LOBBY_ID, "lobby")
        battle = await open_server(gateway, BATTLE_ID, "battle")

        client = await connect_client(gateway.client, TEXT)
        chat = await client.dial(LOBBY_ID)
        fight = await client.dial(BATTLE_ID)
        print(f"{len(client.connections)} virtual connections over one")
        await chat.send("hello")
        await fight.send("attack")
        print(await chat.receive())
        print(await fight.receive())

        # One server goes; what runs over the other notices nothing.
        await battle.close()
        print(f"battle: {await fight.when_ended()}")
        await chat.send("still there?")
        print(await chat.receive())
        try:
            await client.dial(BATTLE_ID)
        except DialRefused as error:
            print(error)


if __name__ == "__main__":
    react(main)

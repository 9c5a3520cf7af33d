"""A game server and a client on asyncio, without Twisted.

python examples/with_asyncio.py
"""

from __future__ import annotations

import asyncio

from fastway.aio import EndpointConfig, Text, VirtualConnection, connect_client, connect_server
from fastway.testing import LocalGatewayProcess

SERVER_ID = 1
CONFIG = EndpointConfig(message_format=Text())


async def shout(conn: VirtualConnection[str]) -> None:
    """A task for each connection."""
    async for text in conn:
        await asyncio.sleep(0.01)
        await conn.send(text.upper())
    print(f"server: {conn.ended}")


async def play(client_port: str) -> None:
    async with connect_client(client_port, CONFIG) as client:
        conn = await client.dial(SERVER_ID, timeout=5)
        await conn.send("hello")
        print(f"client: {await conn.receive()}")
        try:
            await asyncio.wait_for(conn.receive(), timeout=0.1)
        except asyncio.TimeoutError:
            print("client: nothing more")


async def main() -> None:
    async with LocalGatewayProcess() as gateway:
        server_port = f"{gateway.host}:{gateway.server_port}"
        async with connect_server(server_port, SERVER_ID, gateway.key, CONFIG) as server:
            serving = server.serve(shout)
            await play(f"{gateway.host}:{gateway.client_port}")
            await serving.stop()


if __name__ == "__main__":
    asyncio.run(main())

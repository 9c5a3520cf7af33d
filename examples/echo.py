"""A game server that sends every message back, and a client of it.

python examples/echo.py
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import react

from fastway.endpoint import VirtualConnection, connect_client, connect_server
from fastway.testing import LocalGateway

SERVER_ID = 1


async def echo(conn: VirtualConnection[bytes]) -> None:
    """Each client has a handler of its own; when it returns, the connection is closed."""
    print(f"server: client {conn.remote_id} is here")
    async for message in conn:
        await conn.send(message)
    print(f"server: client {conn.remote_id} left")


async def main(reactor: Any) -> None:
    async with LocalGateway(reactor) as gateway:
        server = await connect_server(gateway.server, SERVER_ID, gateway.key)
        serving = server.serve(echo)

        client = await connect_client(gateway.client)
        conn = await client.dial(SERVER_ID, timeout=5)
        for message in (b"hello", b"", b"x" * 100_000):
            await conn.send(message)
            answer = await conn.receive()
            print(f"client: sent {len(message)} bytes, got {len(answer)} back")
            assert answer == message
        await client.close()

        await serving.stop()  # as soon as no handler runs any more
        await server.close()


if __name__ == "__main__":
    react(main)

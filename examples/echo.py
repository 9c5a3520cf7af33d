"""A game server that sends every message back, and a client of it.

python examples/echo.py
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from fastway.endpoint import GatewayConnection, VirtualConnection, connect_client, connect_server
from fastway.errors import ConnectionEnded
from fastway.testing import LocalGateway

SERVER_ID = 1


async def echo(conn: VirtualConnection[Any]) -> None:
    try:
        async for message in conn:
            await conn.send(message)
    except ConnectionEnded:
        pass  # it was closed while we sent
    print(f"server: client {conn.remote_id} left")


async def serve(server: GatewayConnection) -> None:
    async for conn in server:
        print(f"server: client {conn.remote_id} is here")
        ensureDeferred(echo(conn))


async def main(reactor: Any) -> None:
    async with LocalGateway(reactor) as gateway:
        server = await connect_server(gateway.server, SERVER_ID, gateway.key)
        serving = ensureDeferred(serve(server))

        client = await connect_client(gateway.client)
        conn = await client.dial(SERVER_ID, timeout=5)
        for message in (b"hello", b"", b"x" * 100_000):
            await conn.send(message)
            answer = await conn.receive()
            print(f"client: sent {len(message)} bytes, got {len(answer)} back")
            assert answer == message
        conn.close()
        await conn.when_ended()

        client.close()
        server.close()
        await serving  # the loop over a closed endpoint ends


if __name__ == "__main__":
    react(main)

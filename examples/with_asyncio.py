"""A game server and a client on asyncio: tasks, timeouts, `async with`. No Twisted is imported.

python examples/with_asyncio.py
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastway.aio import EndpointConfig, Text, VirtualConnection, connect_client, connect_server

SERVER_ID = 1
KEY = "secret"
CONFIG = EndpointConfig(message_format=Text())


@asynccontextmanager
async def local_gateway() -> AsyncIterator[tuple[str, str]]:
    """A gateway in a process of its own, until the end of the block: its two ports."""
    command = [sys.executable, str(Path(__file__).with_name("local_gateway.py"))]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None and process.stdout is not None
    client, server = (await process.stdout.readline()).decode().split()
    try:
        yield client, server
    finally:
        process.stdin.close()  # it ends with that
        await process.wait()


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
    async with (
        local_gateway() as (client_port, server_port),
        connect_server(server_port, SERVER_ID, KEY, CONFIG) as server,
    ):
        serving = server.serve(shout)
        await play(client_port)
        await serving.stop()


if __name__ == "__main__":
    asyncio.run(main())

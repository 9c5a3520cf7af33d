"""asyncio code that uses the library: Twisted runs on asyncio's event loop.

python examples/with_asyncio.py
"""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from fastway.endpoint import VirtualConnection, connect_client, connect_server
from fastway.errors import ConnectionEnded
from fastway.testing import LocalGateway

SERVER_ID = 1


async def echo(conn: VirtualConnection[Any]) -> None:
    """An asyncio task: every Deferred of the library becomes a future to be awaited."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            message = await conn.receive().asFuture(loop)
            await asyncio.sleep(0.01)
            await conn.send(message.upper()).asFuture(loop)
    except ConnectionEnded as error:
        print(f"server: {error}")


async def play(gateway: LocalGateway) -> None:
    loop = asyncio.get_running_loop()
    server = await connect_server(gateway.server, SERVER_ID, gateway.key).asFuture(loop)
    accepting = server.accept().asFuture(loop)
    client = await connect_client(gateway.client).asFuture(loop)
    conn = await client.dial(SERVER_ID).asFuture(loop)
    echoing = asyncio.create_task(echo(await accepting))

    await conn.send(b"hello").asFuture(loop)
    answer = await asyncio.wait_for(conn.receive().asFuture(loop), timeout=5)
    print(f"client: {answer.decode()}")
    client.close()
    await echoing


async def main(reactor: Any) -> None:
    async with LocalGateway(reactor) as gateway:
        await Deferred.fromFuture(asyncio.ensure_future(play(gateway)))


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)  # before anything imports the reactor
    react(main)

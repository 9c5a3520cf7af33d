"""A game server dials a client: a push without being asked.

python examples/push.py
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import react

from fastway.endpoint import EndpointConfig, Json, connect_client, connect_server
from fastway.errors import DialRefused
from fastway.testing import LocalGateway

SERVER_ID = 1
JSON = EndpointConfig(message_format=Json())


async def main(reactor: Any) -> None:
    async with LocalGateway(reactor) as gateway:
        server = await connect_server(gateway.server, SERVER_ID, gateway.key, JSON)
        client = await connect_client(gateway.client, JSON)

        # The client says hello, and that tells the server its id at this gateway.
        hello = await client.dial(SERVER_ID)
        await hello.send({"name": "Ann"})
        visit = await server.accept()
        name, client_id = (await visit.receive())["name"], visit.remote_id
        visit.close()
        print(f"server: {name} is client {client_id}")

        # Any time later the server dials that id, and the client accepts.
        push = await server.dial(client_id, timeout=5)
        await push.send({"event": "rain", "in": "Berlin"})
        conn = await client.accept()
        print(f"client: server {conn.remote_id} says {await conn.receive()}")
        await conn.send({"ok": True})
        print(f"server: the answer is {await push.receive()}")

        # A client that is gone cannot be dialled.
        await client.close()
        await push.when_ended()
        try:
            await server.dial(client_id, timeout=5)
        except DialRefused as error:
            print(f"server: {error}")


if __name__ == "__main__":
    react(main)

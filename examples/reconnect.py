"""A game server on two gateways, and a client that moves over when its gateway stops.

python examples/reconnect.py
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater, react

from fastway.endpoint import EndpointConfig, GatewayClient, GatewayPool, Text, VirtualConnection
from fastway.errors import FastwayError
from fastway.testing import LocalGateway

SERVER_ID = 1
TEXT = EndpointConfig(message_format=Text())


async def answer(conn: VirtualConnection[str]) -> None:
    async for text in conn:
        await conn.send(f"{text}, over {conn.gateway.name}")


async def dial(reactor: Any, client: GatewayClient) -> VirtualConnection[str]:
    """Until it works: there may be no gateway, or no server at it, for a moment."""
    while True:
        try:
            return await client.dial(SERVER_ID, timeout=5)
        except FastwayError:
            await deferLater(reactor, 0.1)


async def main(reactor: Any) -> None:
    async with LocalGateway(reactor) as east, LocalGateway(reactor) as west:
        gateways = {"east": east, "west": west}
        servers = {name: gateway.server for name, gateway in gateways.items()}
        pool = GatewayPool(servers, SERVER_ID, east.key, TEXT)
        pool.startService()
        pool.serve(answer)  # goes on while gateways come and go
        print(f"server: up at {sorted(await pool.when_up(2))}")

        client = GatewayClient([east.client, west.client], TEXT)  # any one of them
        client.startService()
        conn = await dial(reactor, client)
        await conn.send("hello")
        first = (await conn.receive()).split()[-1]
        print("client: hello came back over one gateway")

        await gateways[first].stop()
        print(f"client: {await conn.when_ended()}")
        conn = await dial(reactor, client)
        await conn.send("hello")
        assert first not in await conn.receive()
        print(f"client: hello came back over the other; server: up at {len(pool.up)}")

        await gateways[first].start()  # on its old ports
        print(f"server: up at {sorted(await pool.when_up(2))} again")
        await client.stopService()
        await pool.stopService()


if __name__ == "__main__":
    react(main)

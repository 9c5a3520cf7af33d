"""A chat goes on over a network that breaks under every tenth line.

python examples/bad_network.py
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import deferLater, react
from twisted.protocols.portforward import ProxyFactory

from fastway.endpoint import (
    EndpointConfig,
    GatewayConnection,
    NetworkEvent,
    NetworkResumed,
    Text,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.snet import SnetClientEndpoint
from fastway.testing import LocalGateway

ROOM_ID = 1
LINES = 50


class BadNetwork(ProxyFactory):
    """Forwards connections to a port until they are cut."""

    noisy = False

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.connections: list[Any] = []
        self.cuts = 0

    def buildProtocol(self, addr: Any) -> Any:
        connection = super().buildProtocol(addr)
        self.connections.append(connection)
        return connection

    def cut(self) -> None:
        """Break all connections, as a phone does that goes from one network to another."""
        self.cuts += 1
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.transport.abortConnection()


async def answer(conn: VirtualConnection[str]) -> None:
    async for text in conn:
        await conn.send(f"the room heard {text!r}")


def tell(_: GatewayConnection, event: NetworkEvent) -> None:
    """What the application may show its player; it need not do anything."""
    if isinstance(event, NetworkResumed):
        print("the network broke; the connection was resumed")


async def chat(reactor: Any, clock: Any) -> None:
    """One line after the other, ten in a second of `clock`, and each tenth is cut under way."""
    async with LocalGateway(reactor, snet=True) as gateway:
        network = BadNetwork(gateway.client_port)
        port = reactor.listenTCP(0, network, interface="127.0.0.1")

        config = EndpointConfig(message_format=Text(), network_callback=tell)
        server = await connect_server(gateway.server, ROOM_ID, gateway.key, config)
        server.serve(answer)

        through = HostnameEndpoint(reactor, "127.0.0.1", port.getHost().port)
        client = await connect_client(SnetClientEndpoint(through, clock), config)
        room = await client.dial(ROOM_ID)

        for line in range(1, LINES + 1):
            await room.send(f"line {line}")
            if line % 10 == 0:
                network.cut()
            assert await room.receive() == f"the room heard 'line {line}'"
            await deferLater(clock, 0.1, lambda: None)
        print(f"cut {network.cuts} times; every line was heard and answered, in order")
        await client.close()
        await maybeDeferred(port.stopListening)


async def main(reactor: Any) -> None:
    await chat(reactor, reactor)


if __name__ == "__main__":
    react(main)

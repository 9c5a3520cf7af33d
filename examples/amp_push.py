"""A game server calls a client: AMP, Twisted's remote calls, over a virtual connection.

python examples/amp_push.py
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.amp import AMP, Command, Integer, Unicode

from fastway.endpoint import AcceptEndpoint, DialEndpoint, connect_client, connect_server
from fastway.testing import LocalGateway

SERVER_ID = 1


class Heal(Command):
    arguments: ClassVar[Any] = [(b"by", Unicode()), (b"points", Integer())]
    response: ClassVar[Any] = [(b"health", Integer())]


class Player(AMP):
    health = 40

    @Heal.responder
    def heal(self, by: str, points: int) -> dict[str, int]:
        self.health = min(100, self.health + points)
        print(f"client: {by} heals me by {points}")
        return {"health": self.health}


async def main(reactor: Any) -> None:
    async with LocalGateway(reactor) as gateway:
        server = await connect_server(gateway.server, SERVER_ID, gateway.key)
        client = await connect_client(gateway.client)
        await AcceptEndpoint(client).listen(Factory.forProtocol(Player))

        await client.dial(SERVER_ID)  # so that the server learns the client's id
        client_id = (await server.accept()).remote_id

        calls = DialEndpoint(server, client_id, timeout=5)
        player = cast(AMP, await calls.connect(Factory.forProtocol(AMP)))
        for points in (25, 50):
            answer = await player.callRemote(Heal, by="the server", points=points)
            print(f"server: its health is {answer['health']}")


if __name__ == "__main__":
    react(main)

"""A server on asyncio and the control connection of a gateway in a process of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fastway.aio import connect_client, connect_server
from fastway.endpoint import EndpointConfig, Group
from fastway.endpoint.mirror import LEAST
from fastway.relay import missing
from fastway.testing import LocalGatewayProcess
from tests.support.waits import SECONDS


class AioTests(SynchronousTestCase):
    """Both lanes."""

    def test_python(self) -> None:
        self.play("off")

    def test_relay(self) -> None:
        self.play("on")

    if missing():
        test_relay.skip = missing()  # type: ignore[attr-defined]

    def play(self, relay: str) -> None:
        """Facts, a name, a group, a kick, and why."""
        with LocalGatewayProcess(relay=relay, ws=True) as gateway:
            asyncio.run(asyncio.wait_for(self.story(gateway), SECONDS))

    async def story(self, gateway: LocalGatewayProcess) -> None:
        at = f"127.0.0.1:{gateway.client_port}"
        server = await connect_server(
            f"127.0.0.1:{gateway.server_port}", 1, gateway.key, EndpointConfig(accept_queue=100)
        )
        control: Any = await server.when_control()
        clients = [await connect_client(at) for _ in range(LEAST)]
        clients.append(await connect_client(gateway.web_url))
        conns = [await one.dial(1) for one in clients]
        visits: list[Any] = [await server.accept() for _ in conns]
        facts = [visit.facts.transport for visit in visits]
        self.assertEqual(facts, ["tcp"] * LEAST + ["ws"])
        self.assertEqual(visits[0].facts.addr, "127.0.0.1")
        await control.user(visits[0], "ann")
        self.assertEqual((await control.who(visits[0])).user, "ann")
        group = Group(visits)
        group.tell(b"one")
        await control.time()
        group.tell(b"two")
        visits[-1].tell(b"three")
        pushed = await control.push(b"four", everyone=True)
        self.assertEqual(pushed.sent, len(conns))
        for conn in conns:
            wanted = [b"one", b"two", b"three", b"four"]
            if conn is not conns[-1]:
                wanted.remove(b"three")
            self.assertEqual([await conn.receive() for _ in wanted], wanted)
        await control.kick(visits[-1], "no shouting", 4321)
        error = await clients[-1].when_ended()
        self.assertIn("no shouting (4321)", str(error))
        await visits[-1].when_ended()
        self.assertIn("kicked_by_server", str(visits[-1].ended))
        for one in clients:
            await one.close()
        await server.close()

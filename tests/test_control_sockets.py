"""A server that asks a gateway without a control connection for one, over real sockets."""

from __future__ import annotations

from typing import Any

from fastway.endpoint import EndpointConfig, Group
from fastway.endpoint.mirror import LEAST
from tests.support.gateways import GatewayTestCase
from tests.support.paths import on_both_paths


@on_both_paths
class RefusedTests(GatewayTestCase):
    """All works as it did."""

    async def test_nothing_else_notices(self) -> None:
        """It is refused, and players come, talk and go; the gateway counts no dial."""
        gateway, client, server = await self.ends(EndpointConfig(accept_queue=100))
        if await server.when_control() is not None:
            self.skipTest("this gateway has a control connection")
        self.assertIsNone(server.control)
        clients = [client, *[await self.client(gateway) for _ in range(LEAST)]]
        conns = [await one.dial(1) for one in clients]
        visits: list[Any] = [await server.accept() for _ in conns]
        self.assertEqual([visit.facts for visit in visits], [None] * len(visits))
        group = Group(visits)
        self.assertEqual(group.tell(b"hello"), len(visits))
        for conn in conns:
            self.assertEqual(await conn.receive(), b"hello")
        conns[0].close()
        await visits[0].when_ended()
        self.assertEqual(str(visits[0].ended), "closed by the far end")
        stats = gateway.service.router.stats
        self.assertEqual(stats.dials, len(conns))
        self.assertEqual(sum(stats.refused.values()), 0)

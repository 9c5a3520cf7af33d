"""The gateway's control connection and fastway's own endpoints, over real sockets."""

from __future__ import annotations

from typing import Any

from fastway.endpoint import EndpointConfig, Group
from fastway.endpoint.mirror import LEAST
from fastway.errors import RequestRefused
from tests.support.gateways import GatewayTestCase
from tests.support.paths import on_both_paths
from tests.support.waits import SECONDS, until

CONFIG = EndpointConfig(accept_queue=5000)


@on_both_paths
class ControlTests(GatewayTestCase):
    """All that a server can ask, and hears."""

    async def guests(self, gateway: Any, server: Any, count: int) -> tuple[list[Any], list[Any]]:
        """So many clients that have dialled; the two ends of each connection."""
        clients = [await self.client(gateway) for _ in range(count)]
        conns = [await one.dial(1) for one in clients]
        return conns, [await server.accept() for _ in conns]

    async def ready(self) -> tuple[Any, Any, Any]:
        gateway = self.gateway()
        server = await self.server(gateway, CONFIG)
        control = await server.when_control()
        assert control is not None
        return gateway, server, control

    async def test_greets(self) -> None:
        """It greets, and counts nowhere."""
        gateway, _, control = await self.ready()
        self.assertIn("groups", control.welcome.features)
        self.assertEqual(control.welcome.max_packet, 512 * 1024)
        router = gateway.service.router
        self.assertEqual((len(router.services), router.conn_ids), (1, set()))
        stats = router.stats
        self.assertEqual((stats.dials, stats.accepted, stats.packets), (0, 0, 0))
        self.assertGreater(await control.time(), 1_600_000_000)

    async def test_facts(self) -> None:
        """Who comes is known before the server sees it, and why it went."""
        _gateway, server, control = await self.ready()
        (conn,), (visit,) = await self.guests(_gateway, server, 1)
        facts = visit.facts
        self.assertEqual((facts.client, facts.addr), (visit.remote_id, "127.0.0.1"))
        self.assertEqual((facts.transport, facts.tls, facts.user), ("tcp", None, None))
        self.assertGreater(facts.port, 0)
        await control.user(visit, "ann")
        self.assertEqual((await control.who(visit)).user, "ann")
        self.assertEqual((await control.who(visit.remote_id)).port, facts.port)
        conn.close()
        await visit.when_ended()
        self.assertEqual(str(visit.ended), "closed by the far end: peer_closed")
        refused = await self.fails(RequestRefused, control.who(999))
        self.assertEqual(refused.code, "gone")

    async def test_kick(self) -> None:
        """A client of one's own is put out, with all its connections; another is not."""
        gateway, server, control = await self.ready()
        (conn,), (visit,) = await self.guests(gateway, server, 1)
        other = await self.client(gateway)
        link = max(gateway.service.router.clients)
        refused = await self.fails(RequestRefused, control.kick(link))
        self.assertEqual(refused.code, "denied")
        gateway.service.control.config.kick_servers = {1}
        await control.kick(link)
        await other.when_ended()
        await control.kick(visit, "no shouting", 4001)
        await visit.when_ended()
        self.assertIn("kicked_by_server", str(visit.ended))
        await conn.when_ended()

    async def test_groups(self) -> None:
        """A Group's message is one push; each gets it once and in order with the others."""
        gateway, server, control = await self.ready()
        conns, visits = await self.guests(gateway, server, LEAST + 4)
        group = Group(visits)
        heard: list[Any] = [[] for _ in conns]
        for number in range(6):
            group.tell(b"to all %d" % number)
            visits[0].tell(b"single %d" % number)
            if number == 2:
                await control.time()  # the join is answered
        for at, conn in enumerate(conns):
            wanted = 12 if at == 0 else 6
            heard[at] = [await conn.receive() for _ in range(wanted)]
        every = [b"to all %d" % number for number in range(6)]
        self.assertEqual(heard[1:], [every] * (len(conns) - 1))
        mixed = [
            one for number in range(6) for one in (b"to all %d" % number, b"single %d" % number)
        ]
        self.assertEqual(heard[0], mixed)

    async def test_push(self) -> None:
        """To connections, to all but some, large and empty."""
        gateway, server, control = await self.ready()
        conns, visits = await self.guests(gateway, server, 3)
        large = bytes(range(256)) * 1000
        pushed = await control.push(large, conns=visits)
        self.assertEqual((pushed.sent, pushed.missing), (3, ()))
        pushed = await control.push(b"x", everyone=True, but=visits[:1])
        self.assertEqual(pushed.sent, 2)
        self.assertEqual(await control.join("r", visits), 3)
        self.assertEqual(await control.leave("r", visits[:2]), 1)
        pushed = await control.push(b"", group="r")
        self.assertEqual(pushed.sent, 1)
        for conn, rest in zip(conns, ([], [b"x"], [b"x", b""]), strict=True):
            self.assertEqual([await conn.receive() for _ in range(len(rest) + 1)], [large, *rest])
        conns[0].close()
        await visits[0].when_ended()
        stats = gateway.service.router.stats
        await until("counts", lambda: stats.packets >= 6, SECONDS)

    async def test_large_group(self) -> None:
        """A push to more than a slice is in order with what follows."""
        gateway, server, control = await self.ready()
        client = await self.client(gateway)
        gateway.service.router.limits.client_max_conn = 0
        conns = [await client.dial(1) for _ in range(1200)]
        visits = [await server.accept() for _ in conns]
        waits = control.push(b"first", conns=visits)
        for visit in visits:
            visit.tell(b"second")
        self.assertEqual((await waits).sent, len(conns))
        for conn in conns:
            self.assertEqual([await conn.receive(), await conn.receive()], [b"first", b"second"])

    async def test_drain_and_bye(self) -> None:
        """A server is told that the gateway will close, and why its link ends."""
        gateway, server, control = await self.ready()
        for tell in gateway.service.drain_begins:  # as a drain does
            tell(1.5, 60.0, True)
        draining = await control.when_draining()
        self.assertEqual((draining.at, draining.until, draining.again), (1.5, 60.0, True))
        late = await (await self.server(gateway, server_id=2)).when_control()
        assert late is not None
        self.assertEqual((await late.when_draining()).until, 60.0)
        await gateway.stop()
        await server.when_ended()
        self.assertIn("shutdown", str(server.ended))
        self.assertEqual(control.bye.reason, "shutdown")

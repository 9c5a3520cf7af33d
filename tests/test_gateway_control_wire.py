"""What of control connections is on the wire, byte by byte, on both lanes: nothing for who never
asked; events before or inside the commands for who did; and an address that changes by a resume.
"""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from zope.interface import implementer

from fastway.endpoint import EndpointConfig, Group, connect_client
from fastway.endpoint.mirror import LEAST
from fastway.snet import SnetClientEndpoint, SnetConfig
from fastway.testing import LocalGateway
from tests.support.control import said
from tests.support.gateways import GatewayTestCase
from tests.support.golden import PING, accept, close, connect, dial, packet, prove, refuse
from tests.support.paths import on_both_paths
from tests.support.sockets import Peer
from tests.support.waits import SECONDS, reactor, until

HELLO = {"op": "hello", "id": 1, "v": 1}


@on_both_paths
class WireTests(GatewayTestCase):
    """Servers and clients that speak bytes."""

    async def peer(self, endpoint: Any) -> Peer:
        peer = cast(Peer, await endpoint.connect(cast(Any, Factory.forProtocol(Peer))))
        self.addCleanup(peer.wire.abortConnection)
        return peer

    async def logged_in(self, gateway: LocalGateway, server_id: int) -> Peer:
        server = await self.peer(gateway.server)
        server.send(prove(await server.read(8), server_id) + PING)
        await server.expect(PING)
        return server

    async def dials(self, client: Peer, server_id: int) -> int:
        """The number of the connection."""
        client.send(dial(server_id))
        answer = await client.read(17)
        conn_id = int.from_bytes(answer[9:13], "little")
        self.assertEqual(answer, accept(conn_id, server_id))
        return conn_id

    async def neighbour(self, gateway: LocalGateway) -> None:
        """Another server, which has all that there is, and uses it."""
        server = await self.server(gateway, EndpointConfig(accept_queue=100), server_id=2)
        control = await server.when_control()
        assert control is not None
        client = await self.client(gateway)
        gateway.service.router.limits.client_max_conn = 0
        conns = [await client.dial(2) for _ in range(LEAST)]
        group = Group([await server.accept() for _ in conns])
        for number in range(5):
            group.tell(b"%d" % number)
            await control.user(next(iter(group)), "ann")
        self.assertEqual(
            [await conns[0].receive() for _ in range(5)], [b"0", b"1", b"2", b"3", b"4"]
        )
        gateway.service.control.tell_drain(1.0, 2.0)
        await control.when_draining()
        await control.kick(next(iter(group)))
        await client.when_ended()

    async def test_nothing_for_who_never_asked(self) -> None:
        """All bytes of a session, whoever is beside, and whatever the gateway has to tell."""
        gateway = self.gateway()
        server = await self.logged_in(gateway, 1)
        client = await self.peer(gateway.client)
        for _ in range(2):
            first, second = [await self.dials(client, 1) for _ in range(2)]
            number = max(gateway.service.router.clients)
            await server.expect(connect(first, number) + connect(second, number))
            await self.neighbour(gateway)
            client.send(packet(first, b"hello") + close(second) + PING)
            await client.expect(close(second) + PING)
            server.send(packet(first, b"welcome") + dial(number) + dial(999) + PING)
            await server.expect(packet(first, b"hello") + close(second))
            answers = await server.read(17 + 13 + 9)
            back = int.from_bytes(answers[9:13], "little")
            self.assertEqual(answers, accept(back, number) + refuse(999) + PING)
            await client.expect(packet(first, b"welcome") + connect(back, 1))
            server.send(close(back) + close(first))
            await server.expect(close(back) + close(first))
            await client.expect(close(back) + close(first))
            client.wire.loseConnection()
            client = await self.peer(gateway.client)
        await gateway.stop()
        await server.expect_end()

    async def asked(self, gateway: LocalGateway, want: list[str]) -> tuple[Peer, int]:
        """A server that has its control connection, and its number."""
        server = await self.logged_in(gateway, 1)
        server.send(dial(0))
        answer = await server.read(17)
        control = int.from_bytes(answer[9:13], "little")
        self.assertEqual(answer, accept(control, 0))
        server.send(packet(control, said({**HELLO, "want": want})))
        self.assertTrue((await self.told(server, control))["ok"])
        return server, control

    async def told(self, server: Peer, conn_id: int, behind: bytes = b"") -> Any:
        """The object in the next packet, behind those bytes of its message."""
        head = await server.read(8)
        self.assertEqual(int.from_bytes(head[4:], "little"), conn_id)
        message = await server.read(int.from_bytes(head[:4], "little") - 4)
        self.assertEqual(message[: len(behind)], behind)
        return json.loads(message[len(behind) :])

    async def test_events(self) -> None:
        """Each is a packet of its own, right before its command."""
        gateway = self.gateway()
        server, control = await self.asked(gateway, ["open", "closed"])
        client = await self.peer(gateway.client)
        conn_id = await self.dials(client, 1)
        event = await self.told(server, control)
        number = max(gateway.service.router.clients)
        self.assertEqual((event["op"], event["conn"], event["client"]), ("open", conn_id, number))
        await server.expect(connect(conn_id, number))
        client.send(packet(conn_id, b"hello"))
        await server.expect(packet(conn_id, b"hello"))
        client.wire.loseConnection()
        event = await self.told(server, control)
        self.assertEqual(event, {"op": "closed", "conn": conn_id, "reason": "peer_closed"})
        await server.expect(close(conn_id))

    async def test_inline(self) -> None:
        """They stand behind the arguments of the commands, and nowhere else."""
        gateway = self.gateway()
        server, _ = await self.asked(gateway, ["open", "closed", "inline"])
        client = await self.peer(gateway.client)
        conn_id = await self.dials(client, 1)
        number = max(gateway.service.router.clients)
        event = await self.told(server, 0, connect(conn_id, number)[8:])
        self.assertEqual((event["op"], event["conn"], event["client"]), ("open", conn_id, number))
        client.send(packet(conn_id, b"hello"))
        await server.expect(packet(conn_id, b"hello"))
        client.send(close(conn_id))
        event = await self.told(server, 0, close(conn_id)[8:])
        self.assertEqual(event, {"op": "closed", "conn": conn_id, "reason": "peer_closed"})
        server.send(PING)
        await server.expect(PING)


@implementer(IStreamClientEndpoint)
class Wandering:
    """Connects from another address each time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.times = 0
        self.wires: list[Any] = []

    def connect(self, factory: Any) -> Any:
        self.times += 1
        source = f"127.0.0.{self.times}"
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port, bindAddress=(source, 0))
        return where.connect(factory).addCallback(self._keep)

    def _keep(self, protocol: Any) -> Any:
        self.wires.append(protocol.transport)
        return protocol


class MovedTests(GatewayTestCase):
    async def test_resumed_from_elsewhere(self) -> None:
        """All servers that the player has, and no others, hear of the new address; nothing is
        missing of what was said meanwhile."""
        gateway = LocalGateway(reactor, snet=True)
        self.addCleanup(gateway.stop)
        await gateway.start()
        servers: list[Any] = [
            await self.server(gateway, server_id=server_id) for server_id in (1, 2, 3)
        ]
        for server in servers:
            assert await server.when_control() is not None
        wanders = Wandering(gateway.client_port)
        snet = SnetClientEndpoint(cast(Any, wanders), reactor, SnetConfig())
        client = self.keep(await connect_client(snet))
        conns = [await client.dial(server_id) for server_id in (1, 2)]
        visits = [await server.accept() for server in servers[:2]]
        self.assertEqual([visit.facts.addr for visit in visits], ["127.0.0.1"] * 2)
        other = self.keep(await connect_client(gateway.client))
        (await other.dial(3)).send(b"beside")
        beside = await servers[2].accept()
        wanders.wires[0].abortConnection()
        for conn, visit in zip(conns, visits, strict=True):
            conn.send(b"from there")
            visit.tell(b"to there")
        for conn, visit in zip(conns, visits, strict=True):
            self.assertEqual(await visit.receive(), b"from there")
            self.assertEqual(await conn.receive(), b"to there")
        await until(
            "the address", lambda: {one.facts.addr for one in visits} == {"127.0.0.2"}, SECONDS
        )
        self.assertEqual([visit.facts.port for visit in visits], [0, 0])
        self.assertEqual(wanders.times, 2)
        self.assertEqual(beside.facts.addr, "127.0.0.1")
        self.assertGreater(beside.facts.port, 0)
        facts = await servers[0].control.who(visits[0])
        self.assertEqual(facts.addr, "127.0.0.2")

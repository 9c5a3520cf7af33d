"""The demo game server behind a gateway, with clients of the endpoint library."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import maybeDeferred

from fastway.demo import HELP, MAX_NAME, DemoServer
from fastway.endpoint import EndpointConfig, Text, VirtualConnection
from fastway.errors import ConnectionEnded, DialRefused
from fastway.testing import LocalGateway
from tests.support.gateways import GatewayTestCase
from tests.support.golden import KEY
from tests.support.waits import reactor, until


class DemoTests(GatewayTestCase):
    async def start(self) -> LocalGateway:
        """A gateway with the demo server behind it."""
        gateway = self.gateway()
        port = gateway.server_port
        self.demo = DemoServer(reactor, "127.0.0.1", port, KEY)
        self.demo.startService()
        self.addCleanup(lambda: maybeDeferred(self.demo.stopService))
        await self.demo.pool.when_up()
        return gateway

    async def join(self, gateway: LocalGateway) -> VirtualConnection[Any]:
        """A client that dialled and was welcomed by its id."""
        client = await self.client(gateway, EndpointConfig(message_format=Text()))
        conn = await client.dial(1)
        newest = max(gateway.service.router.clients)
        self.assertEqual(await conn.receive(), f"welcome, client {newest}: {HELP}")
        return conn

    async def enter(self, gateway: LocalGateway, *names: str) -> list[VirtualConnection[Any]]:
        """Clients in the room, who have heard of each other."""
        room: list[VirtualConnection[Any]] = []
        for name in names:
            room.append(await self.join(gateway))
            room[-1].send(f"/join {name}")
            for conn in room:
                self.assertEqual(await conn.receive(), f"* {name} joined")
        return room

    async def test_echo(self) -> None:
        """Who dials is welcomed by its client id, and lines come back as they are."""
        gateway = await self.start()
        conn = await self.join(gateway)
        for line in ("hello", "", "grüße 你", " spaces ", "/join", "/nonsense", "x" * 100_000):
            conn.send(line)
            self.assertEqual(await conn.receive(), line)

    async def test_chat(self) -> None:
        """Who joined the room is heard by all in it, and by nobody else."""
        gateway = await self.start()
        ann, bob = await self.enter(gateway, "Ann", "Bob")
        eve = await self.join(gateway)
        ann.send("hello")
        self.assertEqual([await ann.receive(), await bob.receive()], ["<Ann> hello"] * 2)
        bob.send("hi Ann")
        self.assertEqual([await ann.receive(), await bob.receive()], ["<Bob> hi Ann"] * 2)
        eve.send("to myself")
        self.assertEqual(await eve.receive(), "to myself")

    async def test_who(self) -> None:
        """/who lists the room to anybody; a second /join renames; a name has an end."""
        gateway = await self.start()
        eve = await self.join(gateway)
        eve.send("/who")
        self.assertEqual(await eve.receive(), "* in the room: nobody")
        ann, bob = await self.enter(gateway, "Ann", "Bob")
        eve.send("/who")
        self.assertEqual(await eve.receive(), "* in the room: Ann, Bob")
        bob.send("/join " + "b" * 100)
        self.assertEqual(await ann.receive(), f"* {'b' * MAX_NAME} joined")
        eve.send("/who")
        self.assertEqual(await eve.receive(), f"* in the room: Ann, {'b' * MAX_NAME}")

    async def test_quit(self) -> None:
        """/quit closes that virtual connection in order, and the room hears of it."""
        gateway = await self.start()
        ann, bob = await self.enter(gateway, "Ann", "Bob")
        ann.send("/quit")
        error = await self.fails(ConnectionEnded, ann.receive())
        self.assertIs(error.cause, None)
        self.assertEqual(await bob.receive(), "* Ann left")
        self.assertIs(ann.endpoint.ended, None)

    async def test_leaving(self) -> None:
        """Who closes, and whose connection to the gateway goes, is missed by the room."""
        gateway = await self.start()
        ann, bob, cat = await self.enter(gateway, "Ann", "Bob", "Cat")
        ann.close()
        self.assertEqual([await bob.receive(), await cat.receive()], ["* Ann left"] * 2)
        bob.endpoint.close()
        self.assertEqual(await cat.receive(), "* Bob left")
        cat.send("/who")
        self.assertEqual(await cat.receive(), "* in the room: Cat")

    async def test_last_words(self) -> None:
        """A line sent right before the close is still said to the room."""
        gateway = await self.start()
        ann, bob = await self.enter(gateway, "Ann", "Bob")
        ann.send("bye")
        ann.close()
        self.assertEqual([await bob.receive(), await bob.receive()], ["<Ann> bye", "* Ann left"])

    async def test_bad_text(self) -> None:
        """Bytes that are no text close that connection, and the room goes on."""
        gateway = await self.start()
        (ann,) = await self.enter(gateway, "Ann")
        stranger = await (await self.client(gateway)).dial(1)
        await stranger.receive()
        stranger.send(b"\xff\xfe")
        await self.fails(ConnectionEnded, stranger.receive())
        ann.send("still here")
        self.assertEqual(await ann.receive(), "<Ann> still here")

    async def test_refused(self) -> None:
        """A dial of a server that is not there is refused."""
        gateway = await self.start()
        client = await self.client(gateway)
        await self.fails(DialRefused, client.dial(99))

    async def test_stop(self) -> None:
        """A demo server that stops leaves the gateway and closes what it served."""
        gateway = await self.start()
        ann, bob = await self.enter(gateway, "Ann", "Bob")
        await self.demo.stopService()
        await until("its leaving", lambda: not gateway.service.router.servers)
        for conn in (ann, bob):
            await self.fails(ConnectionEnded, conn.receive())

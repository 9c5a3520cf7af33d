"""A whole gateway is drained: real ports and ends on both paths, its time turned by the test."""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from typing import Any, cast

from twisted.internet.defer import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock

from fastway.endpoint import (
    GatewayClient,
    GatewayConnection,
    GatewayPool,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.errors import CommandError, EndpointEnded, FastwayError, Reason, WebSocketClosed
from fastway.gateway.bounds import LINGER
from fastway.ops.drain import State
from fastway.ops.health import problem
from fastway.ops.snapshot import finish
from fastway.ops.status import status_rows
from fastway.router import Side
from fastway.service import GatewayService
from fastway.snet import SnetClientEndpoint
from fastway.snet.config import SnetConfig
from tests.support.errors import raised
from tests.support.gateways import OneOf
from tests.support.logs import LogLines
from tests.support.paths import on_both_paths
from tests.support.proxied import Headed
from tests.support.service import ServiceTestCase
from tests.support.sockets import Peer
from tests.support.tls import make
from tests.support.waits import later, reactor, until

STEP = 0.05


async def answer(conn: VirtualConnection[Any]) -> None:
    async for message in conn:
        await conn.send(message)


class Drained(GatewayService):
    """A gateway whose drain goes by a clock of its own, and that does not stop the reactor.

    Attributes:
        turned: The drain's time.
        over: The process was to stop.
    """

    turned: Clock
    over: bool


class DrainCase(ServiceTestCase):
    relay = False

    def open(self, *arguments: str) -> Drained:
        """A gateway whose clients are lost from 15 s on, over 10 s."""
        relay = "on" if self.relay else "off"
        service = cast(
            Drained,
            self.start(
                f"--relay={relay}",
                f"--pid-file=gateway{len(self.files())}",
                "--drain-spread=10",
                *arguments,
            ),
        )
        service.turned = service._drain._clock = Clock()
        service.over = False
        service.drained = lambda: setattr(service, "over", True)
        return service

    def at(self, service: GatewayService, port: str = "client") -> Any:
        return TCP4ClientEndpoint(reactor, "127.0.0.1", self.number(service, port))

    def number(self, service: GatewayService, port: str = "client") -> int:
        return cast(int, cast(Any, service.ports[port].getHost()).port)

    def keep(self, end: GatewayConnection) -> GatewayConnection:
        async def leave() -> None:
            end.close()
            await until("its end", lambda: end.link.gone)

        self.addCleanup(lambda: ensureDeferred(leave()))
        return end

    async def client(self, service: GatewayService) -> GatewayConnection:
        return self.keep(await connect_client(self.at(service)))

    async def server(self, service: GatewayService) -> GatewayConnection:
        server = self.keep(await connect_server(self.at(service, "server"), 1))
        server.serve(answer)
        return server

    async def turn(self, service: Drained, seconds: float) -> None:
        """Let the drain's time go on, and the reactor turn meanwhile."""
        for _ in range(round(seconds / STEP)):
            service.turned.advance(STEP)
            await later(0)

    async def turns_of(self, service: Drained, clients: int) -> None:
        """Let the drain's time go on until so many clients had their turn: its steps begin when
        the ports are closed, and that takes turns of the reactor."""

        def had() -> bool:
            service.turned.advance(STEP)
            return self.lost(service)[Side.CLIENT, Reason.DRAIN] == clients

        await until("their turns", had)

    async def to_the_end(self, service: Drained) -> None:
        def over() -> bool:
            service.turned.advance(STEP)
            return service.over

        await until("the end", over, 3 * LINGER)
        self.assertEqual(service.turned.getDelayedCalls(), [])

    def lost(self, service: GatewayService) -> Counter[tuple[Side, Reason]]:
        return service.router_service.router.stats.lost


@on_both_paths
class DrainTests(DrainCase):
    async def test_steps(self) -> None:
        """A pair talks and dials until its turn; nobody else comes in; servers are last."""
        service = self.open()
        server = await self.server(service)
        idle, busy = await self.client(service), await self.client(service)
        conn = await busy.dial(1)
        number = self.number(service)
        with LogLines() as log:
            self.assertIn("ports are closed in 5 s", service.drain())
            self.assertTrue(service.draining)
            late = await self.client(service)
            await self.turn(service, 5.1)
            self.assertEqual(service.ports, {})
            with socket.socket() as sock:
                self.assertEqual(sock.connect_ex(("127.0.0.1", number)), errno.ECONNREFUSED)
            await self.assertFailure(
                connect_client(TCP4ClientEndpoint(reactor, "127.0.0.1", number)),
                ConnectionRefusedError,
            )
            other = await late.dial(1)
            for one in (conn, other):
                await one.send(b"in grace")
                self.assertEqual(await one.receive(), b"in grace")
            await self.turn(service, 9)
            self.assertEqual(len(service.router_service.router.clients), 3)
            order = []
            for end, name in ((idle, "idle"), (busy, "busy"), (late, "late"), (server, "server")):
                end.when_ended().addCallback(lambda _, name: order.append(name), name)
            sent = taken = 0
            while busy.ended is None:
                service.turned.advance(STEP)
                try:
                    await conn.send(b"%d" % sent)
                    sent += 1
                    self.assertEqual(await conn.receive(), b"%d" % taken)
                    taken += 1
                except FastwayError:
                    break
            # Of what was answered nothing is lost; the last may have had no answer.
            self.assertLessEqual(sent - taken, 1)
            self.assertGreater(taken, 2)
            await self.to_the_end(service)
        await until("all ends", lambda: len(order) == 4)
        self.assertEqual((order[0], order[-1]), ("idle", "server"))
        self.assertEqual(
            self.lost(service),
            {(Side.CLIENT, Reason.DRAIN): 3, (Side.SERVER, Reason.DRAIN): 1},
        )
        steps = [line for line in log.lines if line.startswith("drain: ")]
        self.assertEqual(len([line for line in steps if "have their turn" not in line]), 5)

    async def test_undrain(self) -> None:
        """The commands: a drain is taken back in its first step, not later; status has it."""
        service = self.open()
        told: list[tuple[float, float | None, bool]] = []
        undone: list[int] = []
        service.router_service.drain_begins.append(lambda *how: told.append(how))
        service.router_service.drain_is_undone.append(lambda: undone.append(1))
        client = await self.client(service)

        def answer_to(line: str) -> str:
            with LogLines() as log:
                service.commands.run(line)
            return "\n".join(log.lines)

        def row() -> list[str]:
            rows = status_rows(finish(service.commands.source.snapshot()))
            return [one for one in rows if one.startswith("drain: ")]

        def ready() -> str:
            return problem(finish(service.commands.source.snapshot()))

        self.assertEqual((row(), ready()), ([], ""))
        self.assertIn("does not drain", answer_to("undrain"))
        self.assertIn("drain: ports are closed in 5 s", answer_to("drain"))
        self.assertEqual(len(told), 1)
        self.assertFalse(told[0][2])
        self.assertEqual(ready(), "the gateway is draining")
        self.assertIn("ports are still open; 1 of 1 clients left", row()[0])
        self.assertIn("drains already", answer_to("drain"))
        await self.turn(service, 4)
        self.assertIn("taken back", answer_to("undrain"))
        self.assertEqual((undone, service.draining), ([1], False))
        self.assertEqual(ready(), "")
        await self.turn(service, 30)
        self.assertIsNone(client.ended)
        self.assertIn("ports are closed in 5 s", answer_to("drain again"))
        await self.turn(service, 6)
        self.assertEqual([again for _, _, again in told], [False, False, True])
        self.assertIn("too late", answer_to("undrain"))
        self.assertIn("ports are closed; 1 of 1", row()[0])
        self.assertIn("too late", str(raised(CommandError, service.undrain)))

    async def test_stop_in_the_middle(self) -> None:
        """A stop does not wait for a drain, and the gateway can start anew."""
        service = self.open()
        client = await self.client(service)
        service.drain()
        await self.turn(service, 16)
        await service.stopService()
        self.assertEqual(service.turned.getDelayedCalls(), [])
        self.assertIsNotNone(client.ended)
        service.startService()
        self.assertFalse(service.draining)
        self.assertIs(service._drain.state, State.OFF)
        await self.client(service)

    async def test_signal(self) -> None:
        """The first SIGTERM drains where it should, the second stops; undrain forgets the first;
        a drain that somebody else began goes on at the first."""
        self.assertFalse(self.open()._drain_at_signal())
        service = self.open("--drain-timeout=60")
        self.assertTrue(service._drain_at_signal())
        self.assertTrue(service.draining)
        self.assertFalse(service._drain_at_signal())
        service.undrain()
        service.drain()
        self.assertTrue(service._drain_at_signal())
        self.assertFalse(service._drain_at_signal())

    async def test_websocket(self) -> None:
        """A web client is told 1012 and why, behind what was sent to it before."""
        service = self.open("--client-ws-addr=127.0.0.1:0")
        server = await self.server(service)
        url = f"ws://127.0.0.1:{self.number(service, 'web client')}/"
        client = self.keep(await connect_client(url))
        conn = await client.dial(1)
        service.drain()
        await self.turn(service, 14)
        await until("the Connect", lambda: len(server.connections) == 1)
        (back,) = server.connections
        data = bytes(300_000)
        await back.send(data)
        await self.turns_of(service, 1)
        self.assertEqual(await conn.receive(), data)
        error = await client.when_ended()
        cause = cast(EndpointEnded, error).cause
        assert isinstance(cause, WebSocketClosed)
        self.assertEqual((cause.code, cause.text), (1012, Reason.DRAIN.value))
        await self.to_the_end(service)

    async def test_direct(self) -> None:
        """A direct connection gets all that was sent before its turn, and a FIN."""
        service = self.open("--direct=web=127.0.0.1:0->1")
        await self.server(service)
        peer = Peer()
        await self.at(service, "direct web").connect(OneOf(peer))
        peer.send(b"before")
        service.drain()
        await self.turn(service, 14)
        peer.send(b" and in grace")
        await until("the echo", lambda: bytes(peer.received) == b"before and in grace")
        await self.turns_of(service, 1)
        await until("its end", lambda: peer.ended is not None)
        self.assertEqual(self.lost(service)[Side.CLIENT, Reason.DRAIN], 1)
        await self.to_the_end(service)

    async def test_tls_behind_proxies(self) -> None:
        """On a port with PROXY headers and TLS they have the grace too, and all that was sent
        comes before an orderly end."""
        own = make("localhost", ["localhost"])
        own.write(os.path.join(self.directory, "own.pem"))
        service = self.open(
            f"--client-tls-cert={self.directory}/own.pem", "--client-proxy-from=127.0.0.1"
        )
        server = await self.server(service)
        there = wrapClientTLS(
            optionsForClientTLS("localhost", own.private),
            Headed(self.number(service), b"PROXY TCP4 192.0.2.7 127.0.0.1 9 9\r\n"),
        )
        clients = [self.keep(await connect_client(there)) for _ in range(2)]
        conns = [await client.dial(1) for client in clients]
        service.drain()
        await self.turn(service, 14)
        self.assertEqual(service.ports, {})
        for conn in conns:
            await conn.send(b"in grace")
            self.assertEqual(await conn.receive(), b"in grace")
        data = bytes(300_000)
        for back in server.connections:
            await back.send(data)
        await self.turns_of(service, 2)
        for client, conn in zip(clients, conns, strict=True):
            self.assertEqual(await conn.receive(), data)
            error = cast(EndpointEnded, await client.when_ended())
            self.assertIsInstance(error.cause, (ConnectionDone, type(None)))
        self.assertEqual(self.lost(service)[Side.CLIENT, Reason.DRAIN], 2)
        await self.to_the_end(service)

    async def test_timeout(self) -> None:
        """Who does not close its end holds up the servers, and nothing past the timeout."""
        service = self.open("--drain-timeout=26")
        server = await self.server(service)
        with socket.create_connection(("127.0.0.1", self.number(service))):
            await until("the client", lambda: len(service.router_service.router.clients) == 1)
            service.drain()
            await self.turn(service, 25.8)
            self.assertIs(service._drain.state, State.SPREAD)
            self.assertIsNone(server.ended)
            await self.turn(service, 0.5)
            await until("the server's end", lambda: server.ended is not None)
            await self.to_the_end(service)


class SnetTests(DrainCase):
    async def test_snet(self) -> None:
        """A stream has its service until its turn, and ends as others do."""
        service = self.open("--client-snet-enable")
        await self.server(service)
        client = self.keep(
            await connect_client(SnetClientEndpoint(self.at(service), reactor, SnetConfig()))
        )
        conn = await client.dial(1)
        service.drain()
        await self.turn(service, 14)
        await conn.send(b"in grace")
        self.assertEqual(await conn.receive(), b"in grace")
        await self.turns_of(service, 1)
        self.assertEqual(self.lost(service)[Side.CLIENT, Reason.DRAIN], 1)
        await self.to_the_end(service)


@on_both_paths
class TwoGatewaysTests(DrainCase):
    async def test_move(self) -> None:
        """Of two gateways one is drained: at the end all clients are on the other, each request
        was answered once at most, and a client that asks again has every answer."""
        first, second = self.open(), self.open()
        both = {"first": self.at(first, "server"), "second": self.at(second, "server")}
        pool = GatewayPool(both, 1, backoff=lambda _: 0.05)
        pool.serve(answer)
        pool.startService()
        self.addCleanup(pool.stopService)
        await pool.when_up(2)
        ends = [self.at(first), self.at(second)]
        clients = [GatewayClient(ends, backoff=lambda _: 0.05) for _ in range(20)]
        answers: list[Counter[bytes]] = [Counter() for _ in clients]
        asked: list[Counter[bytes]] = [Counter() for _ in clients]
        going = True

        async def ask(number: int, client: GatewayClient) -> None:
            conn: VirtualConnection[bytes] | None = None
            request = 0
            while going:
                text = b"%d of %d" % (request, number)
                try:
                    if conn is None:
                        conn = await client.dial(1)
                    asked[number][text] += 1
                    await conn.send(text)
                    answers[number][await conn.receive()] += 1
                    request += 1
                except FastwayError:
                    conn = None
                await later(0.01)
            if conn is not None:
                conn.close()

        for client in clients:
            client.startService()
            self.addCleanup(client.stopService)
            await client.when_up()
        work = [ensureDeferred(ask(number, client)) for number, client in enumerate(clients)]
        await until("the talk", lambda: all(sum(one.values()) > 2 for one in answers))
        self.assertTrue(first.router_service.router.clients)
        first.drain()
        await self.turn(first, 26)
        await self.to_the_end(first)
        await until("all on one", lambda: len(second.router_service.router.clients) == 20)
        before = [sum(one.values()) for one in answers]
        await until(
            "the talk to go on",
            lambda: all(sum(o.values()) > b for o, b in zip(answers, before, strict=True)),
        )
        going = False
        for one in work:
            await one
        for had, wanted in zip(answers, asked, strict=True):
            self.assertEqual(set(had.values()), {1})
            self.assertEqual(set(had), {text for text in wanted if text in had})
            self.assertLessEqual(len(wanted) - len(had), 1)
        self.assertEqual(sorted(pool.up), ["second"])

"""Tests of snet where it meets the rest: the gateway's ports, its options, the endpoint library.

The streams themselves are tested in test_snet_stream and test_snet_sockets.
"""

from __future__ import annotations

import itertools
import socket
import sys
from typing import Any, cast

from twisted.internet.defer import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, clientFromString, serverFromString
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway import snet
from fastway.address import parse_address
from fastway.endpoint import (
    EndpointConfig,
    GatewayConnection,
    GatewayPool,
    NetworkCut,
    NetworkLost,
    NetworkResumed,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.errors import (
    ConfigError,
    ConnectionEnded,
    EndpointEnded,
    PingTimeout,
    Reason,
    StreamLost,
)
from fastway.gateway import (
    ClientFactory,
    GatewayLink,
    PortConfig,
    RouterService,
    ServerFactory,
)
from fastway.ops.snapshot import finish
from fastway.router import Side
from fastway.service import GatewayService
from fastway.snet import carrier, config, listen, transport
from fastway.snet import dial as dial_side
from fastway.snet.config import SnetConfig
from fastway.snet.crypto import check_stream_cipher
from fastway.snet.dial import SnetClientEndpoint
from fastway.snet.listen import SnetFactory, SnetServerEndpoint
from fastway.snet.session import Fault
from fastway.snet.strings import ClientParser, ServerParser
from tests.support.errors import failure_of, raised
from tests.support.files import scratch
from tests.support.golden import KEY, close, dial, packet, prove
from tests.support.logs import LogLines
from tests.support.options import LOOPBACK, settings
from tests.support.snet import Bench, Wire, acked_of
from tests.support.snet_golden import Script
from tests.support.snet_sockets import Proxy, raw_client
from tests.support.waits import later, reactor, until

PING = b"\5\0\0\0" + b"\0\0\0\0" + b"\5"


class Gateway(Bench):
    """A gateway whose both ports speak snet, on a clock, with scripts for clients."""

    def __init__(
        self,
        client: PortConfig | None = None,
        server: PortConfig | None = None,
        config: SnetConfig | None = None,
    ) -> None:
        super().__init__(config)
        self.service = RouterService(self.clock)
        self.service.startService()
        self.clients = SnetFactory(ClientFactory(self.service, client), self.clock, self.config)
        self.servers = SnetFactory(
            ServerFactory(self.service, KEY, server), self.clock, self.config
        )
        for factory in (self.clients, self.servers):
            factory.doStart()

    def new(self, factory: SnetFactory) -> tuple[Script, Wire]:
        script = Script()
        wire = self.wire(factory.buildProtocol(None))
        wire.feed(script.hello())
        wire.feed(script.accept(wire.take()))
        return script, wire

    def resume(self, factory: SnetFactory, script: Script) -> Wire:
        wire = self.wire(factory.buildProtocol(None))
        wire.feed(script.claim())
        answer = wire.take()
        read = int.from_bytes(answer[8:16], "little")
        wire.feed(script.prove(answer[16:]) + bytes(script.wrote[read:]))
        return wire

    def server(self, server_id: int = 1) -> tuple[Script, Wire]:
        script, wire = self.new(self.servers)
        challenge = script.take(wire.take())
        wire.feed(script.send(prove(challenge, server_id)))
        return script, wire

    def pair(self) -> tuple[Script, Wire, Script, Wire, int]:
        """A client and a server with a virtual connection."""
        client, client_wire = self.new(self.clients)
        server, server_wire = self.server()
        client_wire.feed(client.send(dial(1)))
        accepted = client.take(client_wire.take())
        server.take(server_wire.take())
        conn_id = int.from_bytes(accepted[9:13], "little")
        return client, client_wire, server, server_wire, conn_id

    @property
    def lost(self) -> dict[tuple[Side, Reason], int]:
        return dict(self.service.router.stats.lost)

    def links(self) -> str:
        return ", ".join(
            f"{link.side.value} {link.link_id}" for link in self.service.router.links()
        )


class GatewayTests(SynchronousTestCase):
    """The gateway's own law over a stream that is cut and resumed."""

    def setUp(self) -> None:
        self.patch(carrier, "acked_bytes", acked_of)

    def test_7_a_silent_client_is_lost_though_its_stream_lives(self) -> None:
        """The idle timeout holds for a live but silent client."""
        gateway = Gateway()
        _, wire = gateway.new(gateway.clients)
        gateway.pass_time(29)
        self.assertEqual(gateway.links(), "client 1")
        gateway.pass_time(2)
        self.assertEqual(gateway.lost, {(Side.CLIENT, Reason.IDLE_TIMEOUT): 1})
        self.assertTrue(wire.fin)

    def test_7_the_time_cut_counts_towards_the_wait_timeout_only(self) -> None:
        """The idle time stands still while a client is cut, and goes on where it was."""
        gateway = Gateway()
        script, wire = gateway.new(gateway.clients)
        gateway.pass_time(20)
        wire.broken()
        gateway.pass_time(50)
        gateway.resume(gateway.clients, script)
        gateway.pass_time(9)
        self.assertEqual(gateway.links(), "client 1")
        gateway.pass_time(2)
        self.assertEqual(gateway.lost, {(Side.CLIENT, Reason.IDLE_TIMEOUT): 1})

    def test_many_cuts_do_not_keep_a_silent_client(self) -> None:
        """Coming back is not being heard of: silence adds up over the connections."""
        gateway = Gateway()
        script, wire = gateway.new(gateway.clients)
        for _ in range(3):
            gateway.pass_time(9)
            wire.broken()
            gateway.pass_time(5)
            wire = gateway.resume(gateway.clients, script)
        gateway.pass_time(4)
        self.assertEqual(gateway.lost, {(Side.CLIENT, Reason.IDLE_TIMEOUT): 1})

    def test_not_resumed(self) -> None:
        """After the wait timeout the link is lost with that reason, and its peers hear of it."""
        gateway = Gateway()
        _, wire, server, server_wire, conn_id = gateway.pair()
        wire.broken()
        gateway.pass_time(10)
        self.assertEqual(server_wire.take(), b"")
        server_wire.feed(server.send(PING))
        for _ in range(6):
            gateway.pass_time(9)
            server_wire.feed(server.send(PING))
        self.assertEqual(gateway.lost, {(Side.CLIENT, Reason.NOT_RESUMED): 1})
        self.assertIn(close(conn_id), server.take(server_wire.take()))

    def test_messages_wait_and_arrive(self) -> None:
        """What a server sends to a cut client waits, and comes once and in order."""
        gateway = Gateway()
        client, wire, server, server_wire, conn_id = gateway.pair()
        messages = [packet(conn_id, bytes([n])) for n in range(50)]
        for number, message in enumerate(messages):
            if number == 10:
                wire.broken()
            server_wire.feed(server.send(message))
        got = client.take(wire.take())
        wire = gateway.resume(gateway.clients, client)
        got += client.take(wire.take())
        self.assertEqual(got, b"".join(messages))

    def test_what_was_on_its_way_is_sent_again(self) -> None:
        """Both sides' bytes that a broken connection swallowed come after the resume."""
        gateway = Gateway()
        client, wire, server, server_wire, conn_id = gateway.pair()
        server_wire.feed(server.send(packet(conn_id, b"down")))
        wire.take()  # swallowed
        client.send(packet(conn_id, b"up"))  # swallowed too
        wire.broken()
        wire = gateway.resume(gateway.clients, client)
        self.assertEqual(client.take(wire.take()), packet(conn_id, b"down"))
        self.assertEqual(server.take(server_wire.take()), packet(conn_id, b"up"))

    def test_too_much_waits(self) -> None:
        """A cut client has the bounds of every client: past them it is a slow reader."""
        gateway = Gateway(PortConfig(queue_packets=10))
        _, wire, server, server_wire, conn_id = gateway.pair()
        wire.broken()
        server_wire.feed(server.send(packet(conn_id, b"x") * 11))
        gateway.turn()
        self.assertEqual(gateway.lost, {(Side.CLIENT, Reason.SLOW_READER): 1})
        self.assertEqual(len(gateway.clients.streams), 0)

    def test_flood_of_a_cut_server(self) -> None:
        """A client that floods a cut server is not read from until that has come back."""
        gateway = Gateway(server=PortConfig(queue_packets=10))
        client, wire, server, server_wire, conn_id = gateway.pair()
        server_wire.broken()
        wire.feed(client.send(packet(conn_id, b"x") * 11))
        self.assertFalse(wire.reading)
        server_wire = gateway.resume(gateway.servers, server)
        self.assertTrue(wire.reading)
        self.assertEqual(server.take(server_wire.take()), packet(conn_id, b"x") * 11)

    def test_write_timeout_stands_still(self) -> None:
        """A link with bytes waiting is not lost for taking nothing while it is cut."""
        gateway = Gateway(PortConfig(idle_timeout=0, write_timeout=10))
        client, wire, server, server_wire, conn_id = gateway.pair()
        wire.fill()
        server_wire.feed(server.send(packet(conn_id, b"x")))
        gateway.pass_time(6)
        wire.broken()
        gateway.pass_time(20)
        self.assertEqual(gateway.links(), "client 1, server 1")
        wire = gateway.resume(gateway.clients, client)
        self.assertEqual(client.take(wire.take()), packet(conn_id, b"x"))

    def test_write_timeout_of_a_live_one(self) -> None:
        """Who acknowledges something now and then is not lost; who takes nothing is."""
        gateway = Gateway(PortConfig(idle_timeout=0, write_timeout=10))
        _, wire, server, server_wire, conn_id = gateway.pair()
        wire.prompt = False
        server_wire.feed(server.send(packet(conn_id, bytes(1000))))
        wire.fill()
        for _ in range(4):
            gateway.pass_time(8)
            wire.ack(1)
            server_wire.feed(server.send(PING))
        self.assertEqual(gateway.links(), "client 1, server 1")
        gateway.pass_time(21)
        self.assertEqual(gateway.lost, {(Side.CLIENT, Reason.WRITE_TIMEOUT): 1})

    def test_cut_in_the_server_handshake(self) -> None:
        """Who has not proved the key is lost when it is cut, and takes nobody's place."""
        config = SnetConfig(max_waiting=1)
        gateway = Gateway(config=config)
        server, server_wire = gateway.server()
        server_wire.broken()
        for _ in range(3):
            _, wire = gateway.new(gateway.servers)
            wire.broken()
        gateway.turn()
        away = gateway.service.router.stats.turned_away
        self.assertEqual(dict(away), {Reason.CONNECTION_LOST: 3})
        self.assertEqual(len(gateway.servers.streams), 1)
        gateway.resume(gateway.servers, server)
        self.assertEqual(gateway.links(), "server 1")

    def test_burst_for_one_that_reads(self) -> None:
        """A client that takes a burst bit by bit is no slow reader; one that stops is."""
        gateway = Gateway(PortConfig(queue_packets=10), config=SnetConfig(buffer=1000))
        _, wire, server, server_wire, conn_id = gateway.pair()
        wire.prompt = False
        for _ in range(2):  # the first fills the stream, the second waits
            server_wire.feed(server.send(packet(conn_id, bytes(92)) * 40))
        for _ in range(3):
            gateway.pass_time(0.125)
            wire.ack(500)
        gateway.pass_time(0.25)
        self.assertEqual(gateway.links(), "client 1, server 1")
        gateway.pass_time(1)
        self.assertEqual(gateway.lost, {(Side.CLIENT, Reason.SLOW_READER): 1})

    def test_burst_over_the_bytes(self) -> None:
        """The bound in bytes is hard, however well it reads."""
        gateway = Gateway(PortConfig(queue_bytes=5000), config=SnetConfig(buffer=1000))
        _, wire, server, server_wire, conn_id = gateway.pair()
        wire.prompt = False
        for _ in range(2):
            server_wire.feed(server.send(packet(conn_id, bytes(92)) * 60))
            wire.ack(500)
            gateway.turn()
        gateway.pass_time(0.25)
        self.assertEqual(gateway.lost, {(Side.CLIENT, Reason.SLOW_READER): 1})

    def test_cut_clients_take_nobodys_place(self) -> None:
        """On a full client port the client cut longest gives way to each newcomer; who has a
        connection stays, and while all have one the newcomer is turned away."""
        gateway = Gateway(PortConfig(max_links=3))
        streams = [gateway.new(gateway.clients) for _ in range(3)]
        for number in (1, 0):
            streams[number][1].broken()
            gateway.pass_time(1)
        for known in ("client 1, client 3, client 4", "client 3, client 4, client 5"):
            gateway.new(gateway.clients)
            self.assertEqual(gateway.links(), known)
        self.assertEqual(gateway.lost, {(Side.CLIENT, Reason.CROWDED_OUT): 2})
        self.assertEqual(gateway.service.turned_away, 0)
        _, wire = gateway.new(gateway.clients)
        gateway.turn()
        self.assertEqual([wire.closed, gateway.service.turned_away], [True, 1])
        self.assertEqual(gateway.links(), "client 3, client 4, client 5")

    def test_strangers_take_no_servers_place(self) -> None:
        """On a full server port no newcomer, who has proved nothing yet, costs a cut server."""
        gateway = Gateway(server=PortConfig(max_links=1))
        server, server_wire = gateway.server()
        server_wire.broken()
        _, wire = gateway.new(gateway.servers)
        gateway.turn()
        self.assertEqual([wire.closed, gateway.service.turned_away], [True, 1])
        gateway.resume(gateway.servers, server)
        self.assertEqual([gateway.links(), gateway.lost], ["server 1", {}])

    def test_kick_while_cut(self) -> None:
        """A cut link that is kicked is forgotten at once; coming back is refused."""
        gateway = Gateway()
        script, wire = gateway.new(gateway.clients)
        wire.half_close()
        link = gateway.service.router.clients[1]
        gateway.service.router.lose(link, Reason.KICKED)
        gateway.turn()
        self.assertEqual(len(gateway.clients.streams), 0)
        wire = gateway.wire(gateway.clients.buildProtocol(None))
        wire.feed(script.claim())
        self.assertEqual(wire.take(), bytes(24))

    def test_stop(self) -> None:
        """A gateway that stops does not wait for who is cut: nobody could come back."""
        gateway = Gateway()
        _, wire, _, server_wire, _ = gateway.pair()
        wire.broken()
        for factory in (gateway.clients, gateway.servers):
            factory.doStop()
        stopping = gateway.service.stopService()
        server_wire.half_close()
        gateway.turn()
        self.assertTrue(stopping is None or stopping.called)
        self.assertEqual(gateway.calls, [])

    def test_log(self) -> None:
        """Cut and resumed are a line each, with the address now in use."""
        gateway = Gateway()
        script, wire = gateway.new(gateway.clients)
        with LogLines() as log:
            wire.broken()
            gateway.pass_time(3)
            gateway.resume(gateway.clients, script)
        self.assertEqual(len(log.lines), 2)
        self.assertRegex(log.lines[0], r"^client 1 \S+ cut: it may come back$")
        self.assertRegex(log.lines[1], r"^client 1 \S+ resumed after 3\.0 s, 0 bytes sent again$")
        self.assertNotEqual(log.lines[0].split()[2], log.lines[1].split()[2])
        link = cast(GatewayLink, gateway.service.router.clients[1])
        self.assertEqual(link.resumes, 1)


class LiveTestCase(TestCase):
    def gateway(self, *arguments: str) -> GatewayService:
        """A gateway on free ports of this machine, for the length of the test."""
        told = settings(
            "--pid-file=", "--command-file=", "--server-auth-password=secret", *arguments
        )
        service = GatewayService(told, reactor)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def dialler(
        self, service: GatewayService, side: str, config: SnetConfig | None = None, port: int = 0
    ) -> Any:
        """The endpoint of a port, or of the proxy in front of it."""
        port = port or cast(Any, service.ports[side].getHost()).port
        tcp = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        if config is None:
            return tcp
        return SnetClientEndpoint(tcp, reactor, config)

    async def client(
        self, endpoint: Any, config: EndpointConfig | None = None
    ) -> GatewayConnection:
        client = await connect_client(endpoint, config, reactor)
        self.addCleanup(self.leave, client)
        return client

    async def known(
        self, endpoint: Any, config: EndpointConfig | None = None
    ) -> GatewayConnection:
        """A client that the gateway has heard of: its proof has arrived."""
        client = await self.client(endpoint, config)
        await client.ping()
        return client

    async def server(
        self, endpoint: Any, server_id: int = 1, config: EndpointConfig | None = None
    ) -> GatewayConnection:
        server = await connect_server(endpoint, server_id, b"secret", config, reactor)
        self.addCleanup(self.leave, server)
        return server

    def leave(self, endpoint: GatewayConnection) -> Any:
        endpoint.close()
        return endpoint.when_gone()

    def proxy(self, service: GatewayService, side: str) -> Proxy:
        proxy = Proxy(cast(Any, service.ports[side].getHost()).port)
        self.addCleanup(lambda: ensureDeferred(proxy.stop()))
        return proxy


def streams_of(service: GatewayService, side: str = "client") -> SnetFactory:
    """The streams of a port that speaks snet."""
    (port,) = (port for port in service.router_service.ports if port.name == side)
    (streams,) = port.wrapped
    return cast(SnetFactory, streams)


async def echo(conn: VirtualConnection[Any]) -> None:
    async for message in conn:
        await conn.send(message)


class MixTests(LiveTestCase):
    async def test_ports_in_any_mix(self) -> None:
        """Each port speaks plain TCP, snet, or encrypted snet, whatever the other does."""
        for ways in itertools.product((None, False, True), repeat=2):
            arguments = list(LOOPBACK)
            configs: list[SnetConfig | None] = []
            for side, encrypt in zip(("client", "server"), ways, strict=True):
                configs.append(None if encrypt is None else SnetConfig(encrypt=encrypt))
                if encrypt is not None:
                    arguments.append(f"--{side}-snet-enable")
                if encrypt:
                    arguments.append(f"--{side}-snet-encrypt")
            service = self.gateway(*arguments)
            server = await self.server(self.dialler(service, "server", configs[1]))
            server.listen(lambda conn: ensureDeferred(echo(conn)))
            client = await self.client(self.dialler(service, "client", configs[0]))
            conn = await client.dial(1)
            for message in (b"", b"x", bytes(range(256)) * 400):
                await conn.send(message)
                self.assertEqual(await conn.receive(), message, ways)

    async def test_options_arrive(self) -> None:
        """Every option of a port reaches its streams, and those of the other port do not."""
        service = self.gateway(
            *LOOPBACK,
            "-ClientSnetEnable",
            "-ClientSnetEncrypt",
            "-ClientSnetBuffer=5K",
            "-ClientSnetInitTimeout=3s",
            "-ClientSnetWaitTimeout=2m",
            "--client-snet-max-waiting=7",
            "--client-snet-max-handshakes=8",
            "--server-snet-enable",
        )
        self.assertEqual(streams_of(service).config, SnetConfig(True, 5120, 3.0, 120.0, 7, 8))
        self.assertEqual(
            streams_of(service, "server").config,
            SnetConfig(False, 1024 * 1024, 10.0, 60.0, 1000, 1000),
        )

    async def test_7_idle_timeout(self) -> None:
        """On real sockets: a cut longer than the idle timeout costs nothing, silence does."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable", "--client-idle-timeout=500ms")
        proxy = self.proxy(service, "client")
        silent = EndpointConfig(ping_interval=0)
        await self.known(self.dialler(service, "client", SnetConfig(), proxy.port), silent)
        (link,) = cast(Any, service.router_service.router.clients.values())
        proxy.down = True
        proxy.cut()
        await until("the cut", lambda: link.cut_since is not None)
        await later(0.8)
        self.assertIsNone(link.lost)
        proxy.down = False
        await until("the resume", lambda: link.cut_since is None, 5)
        await until("the idle timeout", lambda: link.lost is not None)
        self.assertIs(link.lost, Reason.IDLE_TIMEOUT)

    async def test_dead_connections_become_cuts(self) -> None:
        """The kernel is told to break the connection of a dead host before its client is idle."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable", "--client-idle-timeout=12s")
        await self.known(self.dialler(service, "client", SnetConfig()))
        (link,) = service.router_service.router.clients.values()
        handle = cast(Any, link).lane.transport.carrier.transport.getHandle()
        self.assertEqual(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        told = [
            handle.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
                socket.TCP_USER_TIMEOUT,
            )
        ]
        self.assertEqual(told, [4, 2, 2, 8000])

    async def test_endpoint_string(self) -> None:
        """`--client-addr snet:...` is as good as the flags, `status` included."""
        service = self.gateway(
            "--client-addr=snet:tcp\\:0\\:interface=127.0.0.1:encrypt=true:buffer=1K",
            LOOPBACK[1],
        )
        await until("the port", lambda: "client" in service.ports)
        self.assertEqual(streams_of(service).config.buffer, 1024)
        client = await self.client(self.dialler(service, "client", SnetConfig(encrypt=True)))
        await client.ping()
        self.assertIn("snet of clients: 1 streams live", finish(service.commands.status()))

    async def test_status(self) -> None:
        """`status` counts streams live, cut, resumed, refused by reason, and bytes sent again."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable")
        proxy = self.proxy(service, "client")
        client = await self.client(self.dialler(service, "client", SnetConfig(), proxy.port))
        await client.ping()
        proxy.cut()
        snet = streams_of(service)
        await until("the resume", lambda: snet.stats.resumed == 1)
        stranger = Script()
        stranger.conn_id, stranger.key = 99, b"k" * 8
        peer = await raw_client(cast(Any, service.ports["client"].getHost()).port)
        self.assertEqual(await peer.ask(stranger), bytes(24))
        peer.wire.abortConnection()
        rows = finish(service.commands.status()).splitlines()
        (row,) = [row for row in rows if row.startswith("snet")]
        self.assertIn("snet of clients: 1 streams live, 0 cut and waiting, 1 since start", row)
        self.assertIn("cuts: 1, resumed: 1 (0 while the old connection looked alive)", row)
        self.assertIn(f"1 failed (1 {Fault.UNKNOWN_STREAM.value})", row)
        self.assertIn("bytes sent again", row)

    async def test_links(self) -> None:
        """`links` tells who is cut, and for how long."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable", f"--run-dir={scratch(self)}")
        proxy = self.proxy(service, "client")
        client = await self.client(self.dialler(service, "client", SnetConfig(), proxy.port))
        await client.ping()
        proxy.down = True
        proxy.cut()
        (link,) = service.router_service.router.clients.values()
        await until("the cut", lambda: cast(Any, link).cut_since is not None)
        path = finish(service.commands.links()).split()[-1]
        with open(path, encoding="utf-8") as file:
            self.assertTrue(file.read().endswith("\tcut 0 s\n"))
        proxy.down = False
        await client.ping()
        finish(service.commands.links())
        with open(path, encoding="utf-8") as file:
            self.assertNotIn("cut", file.read())


class EndpointTests(LiveTestCase):
    """The endpoint library over snet."""

    def events(self) -> tuple[list[object], EndpointConfig]:
        heard: list[object] = []
        config = EndpointConfig(
            ping_interval=0, network_callback=lambda _, event: heard.append(event)
        )
        return heard, config

    async def test_events(self) -> None:
        """The application hears of a cut and of a resume; virtual connections go on."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable")
        proxy = self.proxy(service, "client")
        heard, config = self.events()
        server = await self.server(self.dialler(service, "server"))
        server.listen(lambda conn: ensureDeferred(echo(conn)))
        client = await self.client(
            self.dialler(service, "client", SnetConfig(), proxy.port), config
        )
        conn = await client.dial(1)
        for number in range(3):
            proxy.cut(number)
            await conn.send(b"%d" % number)
            self.assertEqual(await conn.receive(), b"%d" % number)
            await until("the resume", lambda: len(heard) >= 2 * number + 2)  # noqa: B023
        self.assertEqual([type(event) for event in heard], [NetworkCut, NetworkResumed] * 3)
        resumed = cast(NetworkResumed, heard[1])
        self.assertGreaterEqual(resumed.seconds, 0)
        self.assertIsNone(client.ended)

    async def test_server_is_cut(self) -> None:
        """A game server that is cut gets all that was sent to it meanwhile."""
        service = self.gateway(*LOOPBACK, "--server-snet-enable", "--server-snet-encrypt")
        proxy = self.proxy(service, "server")
        server = await self.server(
            self.dialler(service, "server", SnetConfig(encrypt=True), proxy.port)
        )
        client = await self.client(self.dialler(service, "client"))
        conn = await client.dial(1)
        visit = await server.accept()
        proxy.cut()
        for number in range(100):
            await conn.send(b"%d" % number)
        self.assertEqual(
            [await visit.receive() for _ in range(100)], [b"%d" % n for n in range(100)]
        )

    async def test_lost(self) -> None:
        """A gateway that does not know the stream any more: lost, ended, with the reason."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable")
        heard, config = self.events()
        client = await self.known(self.dialler(service, "client", SnetConfig()), config)
        conn_over = client.when_ended()
        service.router_service.router.lose(service.router_service.router.clients[1], Reason.KICKED)
        ended = await conn_over
        self.assertIsInstance(ended, EndpointEnded)
        self.assertIn(Reason.RESUME_REFUSED.value, str(ended))
        self.assertEqual([type(event) for event in heard], [NetworkCut, NetworkLost])
        self.assertIs(cast(NetworkLost, heard[1]).cause, cast(EndpointEnded, ended).cause)

    async def test_lost_amid_a_packet(self) -> None:
        """A stream that is lost within a packet is lost, not a fault of the gateway's."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable")
        heard, config = self.events()
        client = await self.known(self.dialler(service, "client", SnetConfig()), config)
        (link,) = service.router_service.router.clients.values()
        cast(Any, link).lane.transport.write(packet(9, b"never whole")[:-1])
        session = cast(Any, client.link.transport).transport.session
        before = session.read
        await until("the piece", lambda: session.read > before)
        cast(Any, link).lane.transport.abortConnection()
        ended = await client.when_ended()
        self.assertIsInstance(cast(EndpointEnded, ended).cause, StreamLost)
        self.assertEqual([type(event) for event in heard], [NetworkCut, NetworkLost])

    async def test_callback_fails(self) -> None:
        """A callback's fault is logged, and the endpoint goes on."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable")
        proxy = self.proxy(service, "client")

        def callback(endpoint: GatewayConnection, event: object) -> None:
            raise ZeroDivisionError

        config = EndpointConfig(network_callback=callback)
        client = await self.known(
            self.dialler(service, "client", SnetConfig(), proxy.port), config
        )
        proxy.cut()
        await client.ping()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertIsNone(client.ended)

    async def test_ping_timeout_resumes_early(self) -> None:
        """A connection that swallows everything is replaced when a ping is not answered."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable")
        proxy = self.proxy(service, "client")
        heard, config = self.events()
        config.ping_interval = config.ping_timeout = 0.1
        client = await self.known(
            self.dialler(service, "client", SnetConfig(), proxy.port), config
        )
        proxy.freeze()
        await until("the resume", lambda: len(heard) == 2, 5)
        self.assertEqual([type(event) for event in heard], [NetworkCut, NetworkResumed])
        stats = streams_of(service).stats
        await until("the take-over", lambda: stats.resumed == 1)
        self.assertEqual(stats.taken_over, 1)
        await client.ping()

    async def test_ping_timeout_twice(self) -> None:
        """When a resume did not help the endpoint ends, as it does without snet."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable")
        heard, config = self.events()
        config.ping_interval = config.ping_timeout = 0.1
        client = await self.known(self.dialler(service, "client", SnetConfig()), config)
        (link,) = service.router_service.router.clients.values()
        self.patch(cast(Any, link).lane, "dataReceived", lambda data: None)
        ended = await client.when_ended()
        self.assertIsInstance(ended, PingTimeout)
        self.assertEqual([type(event) for event in heard], [NetworkCut, NetworkResumed])

    async def test_close_is_heard_at_once(self) -> None:
        """Closing an endpoint closes its virtual connections: nobody waits for the timeout."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable")
        server = await self.server(self.dialler(service, "server"))
        client = await self.client(self.dialler(service, "client", SnetConfig()))
        await client.dial(1)
        visit = await server.accept()
        client.close()
        error = await failure_of(ConnectionEnded, visit.receive())
        self.assertIsNone(error.cause)
        await client.when_gone()

    async def test_pool(self) -> None:
        """A pool over snet stays up through cuts."""
        service = self.gateway(*LOOPBACK, "--server-snet-enable")
        proxy = self.proxy(service, "server")
        pool = GatewayPool(
            {"one": self.dialler(service, "server", SnetConfig(), proxy.port)},
            1,
            b"secret",
            clock=reactor,
        )
        pool.startService()
        self.addCleanup(pool.stopService)
        up = await pool.when_up()
        proxy.cut()
        await up["one"].ping()
        self.assertEqual(pool.up, up)

    async def test_wrong_encryption(self) -> None:
        """Ends that differ in `encrypt` do not understand each other, and end with a reason."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable", "--client-snet-encrypt")
        client = await self.client(self.dialler(service, "client", SnetConfig()))
        ended = await failure_of(EndpointEnded, client.ping())
        self.assertIn("snet", str(ended))

    async def test_no_snet_at_all(self) -> None:
        """A plain client of an snet port is disconnected, and refused by name in the counters."""
        service = self.gateway(*LOOPBACK, "--client-snet-enable")
        client = await self.client(self.dialler(service, "client"))
        await failure_of(EndpointEnded, client.ping())
        refused = streams_of(service).stats.refused
        self.assertEqual(dict(refused), {Fault.FIRST_BYTE: 1})


class NameTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Every public name is what its own module has, from wherever it could be imported."""
        for name, place in (
            ("SnetClientEndpoint", dial_side),
            ("SnetConfig", config),
            ("SnetFactory", listen),
            ("SnetServerEndpoint", listen),
        ):
            for module in (snet, transport):
                self.assertIs(getattr(module, name), getattr(place, name))
        self.assertIs(transport.Dialler, dial_side.Dialler)
        self.assertIs(transport.SnetPort, listen.SnetPort)
        self.assertFalse(hasattr(snet, "no_such_name"))


class StringTests(SynchronousTestCase):
    def test_arguments(self) -> None:
        """Every setting can stand in a string, for both sides."""
        text = (
            "snet:tcp\\:127.0.0.1\\:9000:encrypt=yes:buffer=64K:initTimeout=5s:"
            "waitTimeout=2m:maxWaiting=3:maxHandshakes=4"
        )
        expected = SnetConfig(True, 65536, 5.0, 120.0, 3, 4)
        client = clientFromString(Clock(), text)
        self.assertIsInstance(client, SnetClientEndpoint)
        self.assertEqual(cast(Any, client)._config, expected)
        server = serverFromString(Clock(), text.replace("127.0.0.1\\:", ""))
        self.assertIsInstance(server, SnetServerEndpoint)
        self.assertEqual(cast(Any, server)._config, expected)
        self.assertEqual((ClientParser.prefix, ServerParser.prefix), ("snet", "snet"))

    def test_faults(self) -> None:
        """What cannot be used is said by name, for a program and for the gateway's operator."""
        for text, words in (
            ("snet:tcp:9000", "its colons escaped"),
            ("snet:tcp\\:9000:encrypt=perhaps", "encrypt=perhaps"),
            ("snet:tcp\\:9000:buffer=0", "buffer"),
            ("snet:tcp\\:9000:bufer=1K", "no argument 'bufer'; it takes encrypt, buffer"),
            ("snet:encrypt=true", "one endpoint string goes inside"),
        ):
            self.assertIn(words, str(raised(ValueError, serverFromString, Clock(), text)))
            address = parse_address("--client-addr", text)
            error = raised(ConfigError, address.check, Clock(), False)
            self.assertIn(words, str(error))

    def test_loopback(self) -> None:
        """Whether strangers reach a port is seen through the snet around it."""
        for text, expected in (
            ("snet:tcp\\:9000\\:interface=127.0.0.1", True),
            ("snet:tcp\\:9000\\:interface\\=127.0.0.1", True),
            ("snet:tcp\\:9000", False),
            ("snet:unix\\:/run/fastway.sock", True),
            ("snet:tcp\\:9000\\:interface=10.0.0.1", False),
        ):
            self.assertIs(parse_address("--server-addr", text).loopback, expected, text)


class OptionTests(SynchronousTestCase):
    def refused(self, *arguments: str) -> ConfigError:
        return raised(ConfigError, self.make, *LOOPBACK, "--pid-file=", *arguments)

    def make(self, *arguments: str) -> GatewayService:
        return GatewayService(settings(*arguments), Clock())

    def test_encrypt_alone(self) -> None:
        """Encryption that would not happen is refused, by the name that was given."""
        error = self.refused("--server-snet-encrypt")
        self.assertEqual(error.option, "--server-snet-encrypt")
        self.assertIn("--server-snet-enable", error.problem)

    def test_twice(self) -> None:
        """Snet in the address and in flags would be snet in snet, or settings without effect."""
        for flag in ("--client-snet-enable", "--client-snet-buffer=1K"):
            address = "--client-addr=snet:tcp\\:0"
            error = raised(ConfigError, self.make, "--pid-file=", LOOPBACK[1], address, flag)
            self.assertEqual(error.option, flag.partition("=")[0])
            self.assertIn("give it there", error.problem)

    def test_no_cryptography(self) -> None:
        """Without RC4 the operator is told at the start what to do, by the option that needs it;
        without encryption it is not needed."""
        check_stream_cipher()  # so that the module is there to be taken away
        name = "cryptography.hazmat.primitives.ciphers"
        self.addCleanup(sys.modules.__setitem__, name, sys.modules[name])
        sys.modules[name] = cast(Any, None)
        error = self.refused("--client-snet-enable", "--client-snet-encrypt")
        self.assertEqual(error.option, "--client-snet-encrypt")
        self.assertIn("pip install 'fastway[snet]'", error.problem)
        address = parse_address("--client-addr", "snet:tcp\\:0:encrypt=true")
        error = raised(ConfigError, address.check, Clock(), False)
        self.assertIn("pip install 'fastway[snet]'", error.problem)
        self.make(*LOOPBACK, "--pid-file=", "--client-snet-enable")
        parse_address("--client-addr", "snet:tcp\\:0").check(Clock(), False)

"""Virtual connections as Twisted transports, their endpoints, and strings, over a real gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import CancelledError, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IListeningPort,
    IPushProducer,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols import amp
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data, File
from zope.interface import implementer
from zope.interface.verify import verifyObject

from fastway.address import address_name
from fastway.endpoint import (
    AcceptEndpoint,
    DialEndpoint,
    EndpointConfig,
    FastwayAddress,
    GatewayConnection,
    GatewayDialEndpoint,
    GatewayPool,
    Json,
    PoolEndpoint,
    VirtualConnection,
    VirtualTransport,
)
from fastway.errors import ConnectionEnded, DialFailed, DialRefused, DialTimeout, EndpointEnded
from tests.support.checks import BEYOND_TCP, check_transport
from tests.support.errors import raised
from tests.support.files import scratch
from tests.support.gateways import GatewayTestCase, OneOf
from tests.support.golden import KEY
from tests.support.logs import LogLines
from tests.support.paths import on_both_paths
from tests.support.tapes import Tape, arrival, ends, noise
from tests.support.waits import SECONDS, later, reactor, turns, until


class Made(Factory):
    """Makes a protocol by a call, which may raise."""

    noisy = False

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def buildProtocol(self, addr: Any) -> Any:
        return self._make()


@on_both_paths
class TransportTests(GatewayTestCase):
    async def test_tcp(self) -> None:
        """Twisted's own TCP transport passes the checks: they ask for nothing special."""

        async def make_pair(one: Protocol, two: Protocol) -> None:
            port = reactor.listenTCP(0, OneOf(two), interface="127.0.0.1")
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
            await endpoint.connect(OneOf(one))
            await until("the other end", lambda: two.transport is not None)
            await port.stopListening()

        await check_transport(self, make_pair, BEYOND_TCP)

    async def virtual(
        self, dialler: GatewayConnection, remote: GatewayConnection, remote_id: int
    ) -> None:
        """The checks over virtual connections that `dialler` dials."""

        async def make_pair(one: Protocol, two: Protocol) -> None:
            port = await AcceptEndpoint(remote).listen(OneOf(two))
            await DialEndpoint(dialler, remote_id).connect(OneOf(one))
            await until("the other end", lambda: two.transport is not None)
            await maybeDeferred(port.stopListening)

        await check_transport(self, make_pair)

    async def test_client_dials(self) -> None:
        """A client's stream to a server that it dialled passes the checks."""
        sockets, client, server = await self.ends()
        await self.virtual(client, server, 1)
        self.assertEqual([client.ended, server.ended], [None, None])
        await self.idle(sockets)

    async def test_server_dials(self) -> None:
        """A server's stream to a client that it dialled passes the checks."""
        sockets, client, server = await self.ends()
        (client_id,) = sockets.service.router.clients
        await self.virtual(server, client, client_id)
        self.assertEqual([client.ended, server.ended], [None, None])
        await self.idle(sockets)

    async def test_accepting_end_first(self) -> None:
        """The checks hold with the accepting end in the other role."""
        _, client, server = await self.ends()

        async def make_pair(one: Protocol, two: Protocol) -> None:
            port = await AcceptEndpoint(server).listen(OneOf(one))
            await DialEndpoint(client, 1).connect(OneOf(two))
            await until("the other end", lambda: one.transport is not None)
            await maybeDeferred(port.stopListening)

        await check_transport(self, make_pair)

    async def test_small_bounds(self) -> None:
        """The checks hold when one byte may wait, whatever the bounds of messages are."""
        _, client, server = await self.ends(EndpointConfig(receive_queue=2, stream_buffer=1))
        await self.virtual(client, server, 1)

    async def test_small_packets(self) -> None:
        """A stream cuts its bytes into messages that fit `max_packet`."""
        sockets = self.gateway()
        config = EndpointConfig(max_packet=1000)
        client = await self.client(sockets, config)
        server = await self.server(sockets, config)
        one, two = Tape(), Tape()
        await AcceptEndpoint(server).listen(OneOf(two))
        await DialEndpoint(client, 1).connect(OneOf(one))
        one.wire.write(noise(50_000))
        await arrival(two, noise(50_000))

    async def test_addresses(self) -> None:
        """getPeer is the far end's id, getHost one's own: a client does not know its own."""
        sockets, client, server = await self.ends()
        one, two = Tape(), Tape()
        accepting = OneOf(two)
        port = await AcceptEndpoint(server).listen(accepting)
        await DialEndpoint(client, 1).connect(OneOf(one))
        await until("the other end", lambda: two.transport)
        (client_id,) = sockets.service.router.clients
        (conn_id,) = sockets.service.router.conn_ids
        here, there = client.gateway, server.gateway
        self.assertEqual(one.wire.getPeer(), FastwayAddress(here, 1, conn_id))
        self.assertEqual(one.wire.getHost(), FastwayAddress(here, None, conn_id))
        self.assertEqual(two.wire.getPeer(), FastwayAddress(there, client_id, conn_id))
        self.assertEqual(two.wire.getHost(), FastwayAddress(there, 1, conn_id))
        self.assertEqual(accepting.addresses, [two.wire.getPeer()])
        self.assertEqual(port.getHost(), FastwayAddress(there, 1, 0))
        self.assertIsInstance(one.wire, VirtualTransport)

    async def test_gateway_gone(self) -> None:
        """When the gateway goes both ends are told, and their producers stop."""
        sockets, client, server = await self.ends()
        one, two = Tape(), Tape()
        await AcceptEndpoint(server).listen(OneOf(two))
        await DialEndpoint(client, 1).connect(OneOf(one))
        await until("the other end", lambda: two.transport)
        one.wire.write(b"x")
        await arrival(two, b"x")
        await sockets.stop()
        await ends(one, two)
        for tape in (one, two):
            self.assertEqual(len(tape.losses), 1)
            self.assertTrue(tape.losses[0].check(ConnectionDone, ConnectionLost))

    async def test_protocol_fault(self) -> None:
        """A protocol that raises loses its connection, is told so, and its siblings go on."""
        _, client, server = await self.ends()

        def fault(data: bytes) -> None:
            raise ZeroDivisionError("a fault of the protocol")

        bad, good, one, two = Tape(), Tape(), Tape(), Tape()
        bad.on_data = fault
        await AcceptEndpoint(server).listen(OneOf(bad, good))
        await DialEndpoint(client, 1).connect(OneOf(one))
        await DialEndpoint(client, 1).connect(OneOf(two))
        one.wire.write(b"x")
        await ends(one, bad)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        two.wire.write(b"y")
        await arrival(good, b"y")

    async def test_paused(self) -> None:
        """A paused stream makes the endpoint wait past its bound; siblings go on after resume."""
        _, client, server = await self.ends(EndpointConfig(receive_queue=1, stream_buffer=4))
        tapes = [Tape() for _ in range(4)]
        await AcceptEndpoint(server).listen(OneOf(*tapes[2:]))
        for tape in tapes[:2]:
            await DialEndpoint(client, 1).connect(OneOf(tape))
        one, two, slow, brisk = tapes
        await until("both", lambda: brisk.transport)
        slow.wire.pauseProducing()
        for number in range(4):
            one.wire.write(bytes([number]))
        two.wire.write(b"before")
        await arrival(brisk, b"before")
        one.wire.write(bytes([4]))
        await until(
            "the endpoint to wait",
            lambda: cast(Any, server.link.transport).transport not in reactor.getReaders(),
        )
        two.wire.write(b" after")
        await turns()
        self.assertEqual(brisk.received, b"before")
        slow.wire.resumeProducing()
        await arrival(slow, bytes(range(5)))
        await arrival(brisk, b"before after")

    async def test_paused_and_gone(self) -> None:
        """A stream that made the endpoint wait and is then ended does not hold it any longer."""
        _, client, server = await self.ends(EndpointConfig(stream_buffer=2))
        for end in ("abortConnection", "loseConnection"):
            tapes = [Tape() for _ in range(4)]
            one, two, slow, brisk = tapes
            endpoint = AcceptEndpoint(server)
            port = await endpoint.listen(OneOf(slow, brisk))
            for tape in (one, two):
                await DialEndpoint(client, 1).connect(OneOf(tape))
            await until("both", tapes[3].is_connected)
            slow.wire.pauseProducing()
            for _ in range(5):
                one.wire.write(b"x")
            await until(
                "the wait",
                lambda: cast(Any, server.link.transport).transport not in reactor.getReaders(),
            )
            two.wire.write(b"sibling")
            getattr(slow.wire, end)()
            await arrival(brisk, b"sibling")
            await ends(slow, one)
            await maybeDeferred(port.stopListening)

    async def test_full_endpoint(self) -> None:
        """While the endpoint's transport is full producers rest; no stream asks in vain."""
        _, client, server = await self.ends()
        one, two = Tape(), Tape()
        await AcceptEndpoint(server).listen(OneOf(two))
        await DialEndpoint(client, 1).connect(OneOf(one))

        @implementer(IPushProducer)
        class Told:
            def __init__(self) -> None:
                self.calls: list[str] = []

            def pauseProducing(self) -> None:
                self.calls.append("pause")

            def resumeProducing(self) -> None:
                self.calls.append("resume")

            def stopProducing(self) -> None:
                self.calls.append("stop")

        for streaming in (True, False):
            producer = Told()
            client.link.full_now()
            one.wire.registerProducer(producer, streaming)
            await turns(5)
            self.assertEqual(producer.calls, ["pause"] if streaming else [])
            self.assertEqual(
                [call.func for call in reactor.getDelayedCalls() if call.getTime() <= 0], []
            )
            client.link.drained()
            await later(0)
            self.assertIn("resume", producer.calls)
            one.wire.unregisterProducer()

    async def test_lines(self) -> None:
        """A LineReceiver that pauses itself with each line loses and doubles none."""

        class Lines(LineReceiver):
            delimiter = b"\n"

            def __init__(self) -> None:
                self.lines: list[bytes] = []

            def lineReceived(self, line: bytes) -> None:
                self.lines.append(line)
                self.pauseProducing()
                reactor.callLater(0, self.resumeProducing)

        _, client, server = await self.ends()
        one, lines = Tape(), Lines()
        await AcceptEndpoint(server).listen(OneOf(lines))
        await DialEndpoint(client, 1).connect(OneOf(one))
        sent = [b"%d" % number for number in range(200)]
        text = b"\n".join(sent) + b"\n"
        for start in range(0, len(text), 7):
            one.wire.write(text[start : start + 7])
        await until("all lines", lambda: len(lines.lines) >= 200, SECONDS)
        await turns(3)
        self.assertEqual(lines.lines, sent)


class EndpointTests(GatewayTestCase):
    async def test_interfaces(self) -> None:
        """The endpoints are Twisted's, and so is the port."""
        sockets, client, server = await self.ends()
        tcp = sockets.client
        verifyObject(IStreamClientEndpoint, DialEndpoint(client, 1))
        verifyObject(IStreamClientEndpoint, GatewayDialEndpoint(tcp, 1))
        verifyObject(IStreamServerEndpoint, AcceptEndpoint(server))
        verifyObject(IStreamServerEndpoint, PoolEndpoint(GatewayPool({}, 1)))
        port = await AcceptEndpoint(server).listen(OneOf())
        verifyObject(IListeningPort, port)

    async def test_dial_fails(self) -> None:
        """A refused dial is DialRefused, a late one DialTimeout, a dead endpoint EndpointEnded."""
        sockets, client, _ = await self.ends()
        error = await self.fails(DialRefused, DialEndpoint(client, 9).connect(OneOf(Tape())))
        self.assertEqual(error.remote_id, 9)
        cast(Any, sockets.service.ports[0].listening).stopReading()
        late = DialEndpoint(client, 1, timeout=0)
        await self.fails(DialTimeout, late.connect(OneOf(Tape())))
        client.close()
        await self.fails(EndpointEnded, DialEndpoint(client, 1).connect(OneOf(Tape())))
        await self.idle(sockets)

    async def test_dial_cancelled(self) -> None:
        """A cancelled connect makes no protocol and leaves no virtual connection."""
        sockets, client, server = await self.ends()
        port_factory, factory = OneOf(Tape()), OneOf(Tape())
        await AcceptEndpoint(server).listen(port_factory)
        connecting = DialEndpoint(client, 1).connect(factory)
        connecting.cancel()
        await self.fails(CancelledError, connecting)
        await until("its coming and going", lambda: port_factory.given)
        await self.idle(sockets)
        self.assertEqual(factory.given, 0)

    async def test_no_protocol(self) -> None:
        """A factory that makes no protocol, or raises, fails the connect and closes it."""
        sockets, client, server = await self.ends()
        gateway = sockets.client

        def fault() -> None:
            raise ZeroDivisionError("a fault of the factory")

        class Faulty(Protocol):
            def connectionMade(self) -> None:
                raise ZeroDivisionError("a fault of the protocol")

        await AcceptEndpoint(server).listen(Made(Tape))
        for endpoint in (DialEndpoint(client, 1), GatewayDialEndpoint(gateway, 1)):
            await self.fails(DialFailed, endpoint.connect(OneOf()))
            await self.idle(sockets)
            await self.fails(ZeroDivisionError, endpoint.connect(Made(fault)))
            await self.idle(sockets)
            await self.fails(ZeroDivisionError, endpoint.connect(Made(Faulty)))
            await self.idle(sockets)
        self.assertIs(client.ended, None)
        await until("one client", lambda: len(sockets.service.router.clients) == 1, SECONDS)

    async def test_no_protocol_accepted(self) -> None:
        """A listening factory that declines or raises closes that one; the rest go on."""
        _, client, server = await self.ends()
        good = Tape()
        made: list[Any] = [None, ZeroDivisionError("a fault of the factory"), good]

        def make() -> Any:
            one = made.pop(0)
            if isinstance(one, Exception):
                raise one
            return one

        await AcceptEndpoint(server).listen(Made(make))
        for _ in range(2):
            one = Tape()
            await DialEndpoint(client, 1).connect(OneOf(one))
            await ends(one)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        two = Tape()
        await DialEndpoint(client, 1).connect(OneOf(two))
        two.wire.write(b"x")
        await arrival(good, b"x")

    async def test_listen_late(self) -> None:
        """What was dialled, sent and closed before `listen` is served all the same."""
        sockets, client, server = await self.ends()
        one, two = Tape(), Tape()
        await DialEndpoint(client, 1).connect(OneOf(one))
        for number in range(20):
            one.wire.write(b"%d," % number)
        one.wire.loseConnection()
        await ends(one)
        await self.idle(sockets)
        await until("the packets", lambda: not server.connections)
        await AcceptEndpoint(server).listen(OneOf(two))
        await ends(two)
        await arrival(two, b"".join(b"%d," % number for number in range(20)))
        self.assertEqual([loss.type for loss in two.losses], [ConnectionDone])

    async def test_listen_late_and_open(self) -> None:
        """What came before `listen` comes before what comes after it."""
        _, client, server = await self.ends()
        one, two = Tape(), Tape()
        await DialEndpoint(client, 1).connect(OneOf(one))
        one.wire.write(b"early ")
        await server.ping()
        await AcceptEndpoint(server).listen(OneOf(two))
        one.wire.write(b"late")
        await arrival(two, b"early late")

    async def test_stop_listening(self) -> None:
        """After stopListening what is dialled is closed, and what is open goes on."""
        _, client, server = await self.ends()
        one, two, late = Tape(), Tape(), Tape()
        factory = OneOf(two, Tape())
        port = await AcceptEndpoint(server).listen(factory)
        await DialEndpoint(client, 1).connect(OneOf(one))
        await until("the other end", lambda: two.transport)
        await maybeDeferred(port.stopListening)
        await DialEndpoint(client, 1).connect(OneOf(late))
        await ends(late)
        self.assertEqual(factory.given, 1)
        one.wire.write(b"still here")
        await arrival(two, b"still here")

    async def test_gateway_dial(self) -> None:
        """GatewayDialEndpoint's connection to the gateway ends with the protocol's."""
        sockets = self.gateway()
        server = await self.server(sockets)
        clients = sockets.service.router.clients
        await AcceptEndpoint(server).listen(Made(Tape))
        for end in ("loseConnection", "abortConnection"):
            one = Tape()
            endpoint = GatewayDialEndpoint(sockets.client, 1)
            self.assertIs(await endpoint.connect(OneOf(one)), one)
            self.assertEqual(len(clients), 1)
            getattr(one.wire, end)()
            await ends(one)
            await until("the client to be gone", lambda: not clients, SECONDS)

    async def test_gateway_dial_uses_its_factory(self) -> None:
        """A factory is started by connect, and stopped once its protocol has heard of the loss,
        or when nothing comes of it."""
        sockets = self.gateway()
        server = await self.server(sockets)
        await AcceptEndpoint(server).listen(Made(Tape))
        one = Tape()
        factory, refused, cancelled = OneOf(one), OneOf(Tape()), OneOf(Tape())
        endpoint = GatewayDialEndpoint(sockets.client, 1)
        connecting = endpoint.connect(factory)
        self.assertEqual(factory.numPorts, 1)
        await connecting
        one.wire.loseConnection()
        self.assertEqual(factory.numPorts, 1)
        await ends(one)
        self.assertEqual(factory.numPorts, 0)
        nobody = GatewayDialEndpoint(sockets.client, 9)
        await self.fails(DialRefused, nobody.connect(refused))
        connecting = endpoint.connect(cancelled)
        connecting.cancel()
        await self.fails(Exception, connecting)
        self.assertEqual([refused.numPorts, cancelled.numPorts], [0, 0])
        await self.idle(sockets)

    async def test_gateway_dial_fails(self) -> None:
        """It fails as the gateway's endpoint or the dial does, and leaves no connection."""
        sockets = self.gateway()
        clients = sockets.service.router.clients
        endpoint = GatewayDialEndpoint(sockets.client, 9)
        await self.fails(DialRefused, endpoint.connect(OneOf(Tape())))
        await until("the client to be gone", lambda: not clients, SECONDS)
        await self.fails(
            ConnectError,
            GatewayDialEndpoint(TCP4ClientEndpoint(reactor, "127.0.0.1", 1), 9).connect(OneOf()),
        )
        connecting = endpoint.connect(OneOf(Tape()))
        connecting.cancel()
        await self.fails(Exception, connecting)
        await until("the client to be gone", lambda: not clients, SECONDS)
        await turns(3)

    async def test_other_format(self) -> None:
        """A stream is bytes, whatever messages are to the endpoint's other connections."""
        sockets = self.gateway()
        config = EndpointConfig(message_format=Json())
        client, server = await self.client(sockets, config), await self.server(sockets, config)
        one, two = Tape(), Tape()
        await AcceptEndpoint(server).listen(OneOf(two))
        await DialEndpoint(client, 1).connect(OneOf(one))
        one.wire.write(b"\xff no JSON {")
        await arrival(two, b"\xff no JSON {")


class StringTests(GatewayTestCase):
    async def test_both(self) -> None:
        """Client and server strings make endpoints that reach each other over a gateway."""
        sockets = self.gateway()
        client_port = sockets.client_port
        server_port = sockets.server_port
        listening = serverFromString(
            reactor, rf"fastway:tcp\:127.0.0.1\:{server_port}:id=7:key={KEY.decode()}"
        )
        one, two, again = Tape(), Tape(), Tape()
        port = await listening.listen(OneOf(two, again))
        await until("the login", lambda: sockets.service.router.servers, SECONDS)
        dialling = clientFromString(reactor, rf"fastway:tcp\:127.0.0.1\:{client_port}:server=7")
        await dialling.connect(OneOf(one))
        one.wire.write(b"hello")
        await arrival(two, b"hello")
        two.wire.write(b"hi")
        await arrival(one, b"hi")
        self.assertEqual(port.getHost(), FastwayAddress(None, 7, 0))
        self.assertEqual(address_name(port.getHost()), "id 7")
        await maybeDeferred(port.stopListening)
        await ends(one, two)
        self.assertEqual(dict(sockets.service.router.servers), {})

    async def test_serve(self) -> None:
        """A handler over a string: what `serverFromString` makes has `serve`."""
        sockets = self.gateway()
        text = rf"fastway:tcp\:127.0.0.1\:{sockets.server_port}:id=7:key={KEY.decode()}"
        listening = cast(PoolEndpoint, serverFromString(reactor, text))
        ended: list[Any] = []

        async def handler(conn: VirtualConnection[bytes]) -> None:
            conn.on_end(ended.append)
            async for message in conn:
                await conn.send(message.upper())

        serving = listening.serve(handler, limit=5)
        await until("the login", lambda: sockets.service.router.servers, SECONDS)
        client = await self.client(sockets)
        conn = await client.dial(7)
        await conn.send(b"hello")
        self.assertEqual(await conn.receive(), b"HELLO")
        self.assertEqual(serving.running, 1)
        await listening.pool.stopService()
        self.assertEqual((serving.running, len(ended)), (0, 1))
        self.assertIsInstance(await conn.when_ended(), ConnectionEnded)
        self.assertEqual(dict(sockets.service.router.servers), {})

    def test_positional(self) -> None:
        """Arguments may be given by position or by name; the key may be left out."""
        for text in ("fastway:unix:1", "fastway:gateway=tcp\\:a\\:1:server=4294967295"):
            if text.startswith("fastway:unix"):
                text = text.replace("unix", r"unix\:/tmp/x")
            self.assertIsInstance(clientFromString(reactor, text), GatewayDialEndpoint)
        for text in (r"fastway:tcp\:a\:1:0", r"fastway:tcp\:a\:1:id=1:key=k"):
            self.assertIsInstance(serverFromString(reactor, text), PoolEndpoint)

    def test_wrong(self) -> None:
        """What is wrong in a string is named, with what it takes."""
        for text, words in (
            (r"fastway:tcp\:a\:1", ["'server' is missing", "gateway, server"]),
            (r"fastway:server=1", ["'gateway' is missing"]),
            (r"fastway:tcp\:a\:1:server=x", ["server=x is not an id"]),
            (r"fastway:tcp\:a\:1:server=-1", ["server=-1 is not an id"]),
            (r"fastway:tcp\:a\:1:server=4294967296", ["server=4294967296 is not an id"]),
            (r"fastway:tcp\:a\:1:server=1:id=2", ["no argument 'id'"]),
            (r"fastway:tcp\:a\:1:1:2", ["no argument '2'"]),
        ):
            error = raised(ValueError, clientFromString, reactor, text)
            for word in words:
                self.assertIn(word, str(error))
        for text, words in (
            (r"fastway:tcp\:a\:1", ["'id' is missing", "gateway, id, key"]),
            (r"fastway:tcp\:a\:1:id=", ["id= is not an id"]),
            (r"fastway:tcp\:a\:1:id=1:kee=x", ["no argument 'kee'"]),
            (r"fastway:tcp\:a\:1:server=1", ["no argument 'server'"]),
        ):
            error = raised(ValueError, serverFromString, reactor, text)
            for word in words:
                self.assertIn(word, str(error))

    def test_unknown_gateway(self) -> None:
        """A gateway that is no endpoint string is a ValueError."""
        raised(ValueError, clientFromString, reactor, "fastway:nonsense:server=1")
        raised(ValueError, serverFromString, reactor, "fastway:nonsense:id=1")


@implementer(IAgentEndpointFactory)
class OverGateway:
    """Every URI is the server behind one endpoint."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: Any) -> Any:
        return self._endpoint


class Add(amp.Command):
    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
    response = [(b"sum", amp.Integer())]


class Adder(amp.AMP):
    """Adds, for whichever end asks."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = False

    @Add.responder
    def add(self, a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.lost = True


@on_both_paths
class ProtocolTests(GatewayTestCase):
    """Protocols of Twisted's own, unchanged, over a gateway."""

    async def test_web(self) -> None:
        """A web site is served through a gateway: small pages, 1 MB, files, one connection."""
        sockets, client, server = await self.ends()
        path = f"{scratch(self)}/file"
        with open(path, "wb") as file:
            file.write(noise(1 << 20))
        root = Resource()
        root.putChild(b"hello", Data(b"hello", "text/plain"))
        root.putChild(b"big", Data(noise(1_000_000), "application/octet-stream"))
        root.putChild(b"file", File(path))
        site = Site(root)
        site.noisy = False
        port = await AcceptEndpoint(server).listen(site)
        self.addCleanup(port.stopListening)
        bodies = {b"/hello": b"hello", b"/big": noise(1_000_000), b"/file": noise(1 << 20)}
        for endpoint in (
            DialEndpoint(client, 1),
            GatewayDialEndpoint(sockets.client, 1),
        ):
            pool = HTTPConnectionPool(reactor, persistent=True)
            agent = Agent.usingEndpointFactory(reactor, OverGateway(endpoint), pool)
            for _ in range(2):
                for name, body in bodies.items():
                    response: Any = await agent.request(b"GET", b"http://game" + name)
                    self.assertEqual(response.code, 200)
                    self.assertEqual(await readBody(response), body)
            self.assertEqual(len(sockets.service.router.conn_ids), 1)
            await pool.closeCachedConnections()
            await self.idle(sockets)

    async def test_web_not_persistent(self) -> None:
        """A site that closes after its answer delivers all of it."""
        _, client, server = await self.ends()
        root = Resource()
        root.putChild(b"big", Data(noise(1_000_000), "application/octet-stream"))
        site = Site(root)
        site.noisy = False
        port = await AcceptEndpoint(server).listen(site)
        self.addCleanup(port.stopListening)
        tape = Tape()
        await DialEndpoint(client, 1).connect(OneOf(tape))
        tape.wire.write(b"GET /big HTTP/1.0\r\n\r\n")
        await ends(tape)
        head, _, body = bytes(tape.received).partition(b"\r\n\r\n")
        self.assertIn(b" 200 OK", head)
        self.assertEqual(body, noise(1_000_000))

    async def test_amp(self) -> None:
        """AMP calls go from server to client and from client to server, at the same time."""
        _, client, server = await self.ends()
        here, there = Adder(), Adder()
        await AcceptEndpoint(server).listen(OneOf(there))
        await DialEndpoint(client, 1).connect(OneOf(here))
        await until("the other end", lambda: there.transport is not None)
        calls = [
            (end, number, end.callRemote(Add, a=number, b=1))
            for number in range(50)
            for end in (here, there)
        ]
        for _, number, answer in calls:
            self.assertEqual(await answer, {"sum": number + 1})
        cast(Any, there.transport).loseConnection()
        await until("both ends", lambda: here.lost and there.lost)

    async def test_amp_loss(self) -> None:
        """A call that is out when the connection goes fails."""
        _, client, server = await self.ends()
        here, there = Adder(), Tape()
        await AcceptEndpoint(server).listen(OneOf(there))
        await DialEndpoint(client, 1).connect(OneOf(here))
        answer = here.callRemote(Add, a=1, b=1)
        await until("the call", lambda: there.received)
        there.wire.loseConnection()
        await self.fails(ConnectionDone, answer)

    async def test_quiet(self) -> None:
        """Streams that come and go in order log nothing."""
        _, client, server = await self.ends()
        with LogLines() as log:
            for _ in range(5):
                log.events.clear()  # the first dial introduces the client
                one, two = Tape(), Tape()
                port = await AcceptEndpoint(server).listen(OneOf(two))
                await DialEndpoint(client, 1).connect(OneOf(one))
                one.wire.write(b"x")
                await arrival(two, b"x")
                two.wire.loseConnection()
                await ends(one, two)
                await maybeDeferred(port.stopListening)
        self.assertEqual(log.lines, [])

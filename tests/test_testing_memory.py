"""The gateway in memory: what runs over it, what the clock does to it, and what can go wrong.

Rule: no test here waits for anything; only the checks of the transports have the reactor for a
clock.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    NoProtocol,
)
from twisted.internet.interfaces import IHalfCloseableProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, ServerFactory, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from fastway.endpoint import (
    AcceptEndpoint,
    DialEndpoint,
    Endpoint,
    EndpointConfig,
    GatewayPool,
    NetworkCut,
    NetworkResumed,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.errors import (
    ConfigError,
    ConnectionEnded,
    DialRefused,
    DialTimeout,
    EndpointEnded,
    LoginFailed,
    PingTimeout,
    Reason,
)
from fastway.router import Side
from fastway.testing import MemoryEndpoint, MemoryGateway, memory
from fastway.testing.network import Network
from tests.support.checks import BEYOND_TCP, check_transport
from tests.support.errors import raised
from tests.support.gateways import OneOf
from tests.support.golden import PING, dial, packet
from tests.support.tapes import Tape
from tests.support.waits import reactor, until

SERVER_ID = 1


class TransportTests(TestCase):
    async def test_transports(self) -> None:
        """They do what Twisted's TCP transports do, both ends."""
        network = Network(reactor)

        async def make_pair(one: Protocol, two: Protocol) -> None:
            endpoint = MemoryEndpoint(network, network.address())
            endpoint.factory = OneOf(two)
            await endpoint.connect(OneOf(one))

        async def make_far_pair(one: Protocol, two: Protocol) -> None:
            await make_pair(two, one)

        await check_transport(self, make_pair, BEYOND_TCP)
        await check_transport(self, make_far_pair, BEYOND_TCP)
        await until("no link", lambda: not network.links)


@implementer(IHalfCloseableProtocol)
class HalfTape(Tape):
    """One that hears of its peer's half of the end.

    Attributes:
        halves: What it heard.
    """

    def __init__(self) -> None:
        super().__init__()
        self.halves: list[str] = []

    def readConnectionLost(self) -> None:
        self.halves.append("read")

    def writeConnectionLost(self) -> None:
        self.halves.append("write")


class EndTests(SynchronousTestCase):
    """Ends that the checks of transports leave out."""

    def connect(self, one: Tape, two: Tape) -> Clock:
        clock = Clock()
        network = Network(clock)
        endpoint = MemoryEndpoint(network, network.address())
        endpoint.factory = OneOf(two)
        endpoint.connect(OneOf(one))
        clock.advance(0)
        return clock

    def test_half_close(self) -> None:
        """Who half-closes still hears the other end, and the end when that closes too."""
        one, two = HalfTape(), HalfTape()
        clock = self.connect(one, two)
        one.wire.write(b"all I say")
        one.wire.loseWriteConnection()
        clock.advance(0)
        self.assertEqual((one.halves, two.halves), (["write"], ["read"]))
        two.wire.write(b"answer")
        two.wire.loseConnection()
        clock.advance(0)
        self.assertEqual((one.received, two.received), (b"answer", b"all I say"))
        self.assertEqual(one.halves, ["write", "read"])
        one.wire.loseConnection()
        clock.advance(0)
        self.assertEqual([len(one.losses), len(two.losses)], [1, 1])

    def test_write_to_nobody(self) -> None:
        """Who writes to an end that is gone loses its connection, though it does not read."""
        one, two = Tape(), Tape()
        clock = self.connect(one, two)
        two.wire.pauseProducing()
        one.wire.loseConnection()
        clock.advance(0)
        self.assertEqual([len(one.losses), len(two.losses)], [1, 0])
        two.wire.write(b"are you")
        clock.advance(0)
        two.wire.write(b"there?")
        clock.advance(0)
        (loss,) = two.losses
        self.assertTrue(loss.check(ConnectionLost))


class MemoryTestCase(SynchronousTestCase):
    """A gateway in memory, and endpoints on it."""

    def gateway(self, **options: Any) -> MemoryGateway:
        gateway = MemoryGateway(**options)
        self.addCleanup(gateway.stop)
        return gateway

    def client(self, gateway: MemoryGateway, config: EndpointConfig | None = None) -> Endpoint:
        return gateway.run(connect_client(gateway.client, config, clock=gateway.clock))

    def server(
        self,
        gateway: MemoryGateway,
        server_id: int = SERVER_ID,
        config: EndpointConfig | None = None,
    ) -> Endpoint:
        connecting = connect_server(
            gateway.server, server_id, gateway.key, config, clock=gateway.clock
        )
        return gateway.run(connecting)

    def echo(self, gateway: MemoryGateway) -> Endpoint:
        """A server that sends all back."""

        async def answer(conn: VirtualConnection[Any]) -> None:
            try:
                async for message in conn:
                    await conn.send(message)
            except ConnectionEnded:
                pass

        server = self.server(gateway)
        server.listen(lambda conn: ensureDeferred(answer(conn)))
        return server

    def tape(self, gateway: MemoryGateway) -> Tape:
        """A client that only knows bytes."""
        tape = Tape()
        gateway.run(gateway.client.connect(OneOf(tape)))
        return tape

    def lost(self, gateway: MemoryGateway, reason: Reason) -> int:
        """Clients that the gateway lost for a reason."""
        return gateway.service.router.stats.lost[Side.CLIENT, reason]


class RunTests(MemoryTestCase):
    """What runs over it."""

    def test_echo(self) -> None:
        """Dial, accept, and messages of all sizes there and back, in order."""
        gateway = self.gateway()
        self.echo(gateway)
        client = self.client(gateway)
        conn = gateway.run(client.dial(SERVER_ID))
        self.assertEqual(conn.remote_id, SERVER_ID)

        async def talk() -> list[bytes]:
            for message in sent:
                await conn.send(message)
            return [await conn.receive() for _ in sent]

        sent = [b"", b"hello", bytes(client.max_message), *[b"%d" % n for n in range(500)]]
        self.assertEqual(gateway.run(talk()), sent)
        self.assertEqual(gateway.clock.seconds(), 0)

    def test_endpoints(self) -> None:
        """They are Twisted's client endpoints, and addresses are those of TCP."""
        gateway = self.gateway()
        for endpoint in (gateway.client, gateway.server):
            verifyObject(IStreamClientEndpoint, endpoint)
        client = self.client(gateway)
        self.assertEqual((client.gateway.host, client.gateway.port), ("127.0.0.1", 9010))
        (link,) = gateway.links(client)
        self.assertIn("9010", repr(link))

    def test_nothing_by_itself(self) -> None:
        """Nothing happens within a call: it takes a turn."""
        gateway = self.gateway()
        connecting = connect_client(gateway.client, clock=gateway.clock)
        self.assertNoResult(connecting)
        gateway.pump()
        client = self.successResultOf(connecting)
        ping = client.ping()
        self.assertNoResult(ping)
        gateway.clock.advance(0)
        self.assertEqual(self.successResultOf(ping), 0)

    def test_streams(self) -> None:
        """Twisted protocols run over virtual connections, and are cut by those."""
        gateway = self.gateway()
        server, client = self.server(gateway), self.client(gateway)
        one, two = Tape(), Tape()
        gateway.run(AcceptEndpoint(server).listen(OneOf(two)))
        gateway.run(DialEndpoint(client, SERVER_ID).connect(OneOf(one)))
        one.wire.write(bytes(300_000))
        gateway.pump()
        self.assertEqual(two.received, bytes(300_000))
        gateway.cut(one)
        gateway.pump()
        self.assertEqual([len(one.losses), len(two.losses)], [1, 1])

    def test_many(self) -> None:
        """Many clients at once: each gets its own answers, in its own order."""
        gateway = self.gateway()
        self.echo(gateway)

        async def talk(number: int) -> list[bytes]:
            client = await connect_client(gateway.client, clock=gateway.clock)
            conn = await client.dial(SERVER_ID)
            for message in range(20):
                await conn.send(b"%d of %d" % (message, number))
            return [await conn.receive() for _ in range(20)]

        all_heard = gateway.run(gatherResults([ensureDeferred(talk(n)) for n in range(200)]))
        for number, heard in enumerate(all_heard):
            self.assertEqual(heard, [b"%d of %d" % (n, number) for n in range(20)])
        self.assertEqual(len(gateway.links(gateway.client)), 200)
        self.assertEqual(len(gateway.links(gateway.server)), 1)
        self.assertEqual(len(gateway.links()), 201)

    def test_always_the_same(self) -> None:
        """The same calls give the same, to the order of events among clients."""

        def once() -> list[tuple[float, int, bytes]]:
            gateway = self.gateway()
            self.echo(gateway)
            heard = []

            async def talk(number: int) -> None:
                client = await connect_client(gateway.client, clock=gateway.clock)
                conn = await client.dial(SERVER_ID)
                for size in range(0, 40_000, 7000):
                    await conn.send(bytes(size * (number % 3)))
                    heard.append((gateway.clock.seconds(), number, await conn.receive()))

            gateway.run(gatherResults([ensureDeferred(talk(n)) for n in range(10)]))
            return heard

        self.assertEqual(once(), once())

    def test_snet(self) -> None:
        """With snet a cut is resumed, and nothing is missing."""
        gateway = self.gateway(snet=True)
        self.echo(gateway)
        events: list[Any] = []
        config = EndpointConfig(network_callback=lambda _, event: events.append(event))
        client = self.client(gateway, config)
        conn = gateway.run(client.dial(SERVER_ID))
        for number in range(3):
            conn.send(b"%d" % number)
            gateway.cut(client)
        heard = gateway.run(gatherResults([conn.receive() for _ in range(3)]), seconds=5)
        self.assertEqual(heard, [b"0", b"1", b"2"])
        self.assertEqual([type(event) for event in events], [NetworkCut, NetworkResumed])
        self.assertEqual(len(gateway.links(client)), 1)
        self.assertEqual(gateway.links(gateway.client), gateway.links(client))

    def test_cut_twice(self) -> None:
        """A stream that is cut has no connection until it is resumed: nothing more to be cut."""
        gateway = self.gateway(snet=True)
        client = self.client(gateway)
        gateway.cut(client)
        gateway.stop()
        gateway.pump()
        self.assertEqual(gateway.links(client), [])
        gateway.cut(client)
        gateway.advance(61)
        self.assertIsNotNone(client.ended)

    def test_both_sides_snet(self) -> None:
        """The gateway's own option does it for the server port, encrypted too."""
        gateway = self.gateway(
            snet=True, client_snet_encrypt=True, server_snet_enable=True, server_snet_buffer="64K"
        )
        server = self.echo(gateway)
        conn = gateway.run(self.client(gateway).dial(SERVER_ID))
        gateway.cut(server)
        conn.send(b"hello")
        self.assertEqual(gateway.run(conn.receive(), seconds=5), b"hello")

    def test_stop_leaves_nothing(self) -> None:
        """After a stop all ends have been told, and nothing waits for the clock."""
        for options in ({}, {"snet": True, "client_snet_wait_timeout": 1}):
            with MemoryGateway(**cast(Any, options)) as gateway:
                server = self.echo(gateway)
                client = self.client(gateway)
                conn = gateway.run(client.dial(SERVER_ID))
            self.assertIsInstance(server.ended, EndpointEnded)
            if not options:
                self.assertIsInstance(client.ended, EndpointEnded)
                self.assertIsInstance(conn.ended, ConnectionEnded)
            gateway.advance(5)
            self.assertIsNotNone(client.ended)
            self.assertEqual(gateway.links(), [])
            for port in gateway.service.ports:
                self.assertEqual(cast(Any, port.outermost).numPorts, 0)
            self.assertEqual(gateway.clock.getDelayedCalls(), [])


class TimeTests(MemoryTestCase):
    """What the clock does."""

    def test_idle(self) -> None:
        """Who says nothing is lost at its idle timeout, and not before."""
        gateway = self.gateway()
        tape = self.tape(gateway)
        gateway.advance(29.75)
        self.assertEqual(tape.losses, [])
        gateway.advance(0.5)
        self.assertEqual(len(tape.losses), 1)
        self.assertEqual(self.lost(gateway, Reason.IDLE_TIMEOUT), 1)

    def test_not_idle(self) -> None:
        """An endpoint pings, so that an hour of nothing else loses nobody."""
        gateway = self.gateway()
        server = self.echo(gateway)
        client = self.client(gateway)
        conn = gateway.run(client.dial(SERVER_ID))
        gateway.advance(3600)
        self.assertEqual((client.ended, server.ended, conn.ended), (None, None, None))
        self.assertEqual(gateway.clock.seconds(), 3600)

    def test_options(self) -> None:
        """Times are the options'."""
        gateway = self.gateway(client_idle_timeout=2.5)
        tape = self.tape(gateway)
        gateway.advance(2.25)
        self.assertEqual(tape.losses, [])
        gateway.advance(0.5)
        self.assertEqual(len(tape.losses), 1)

    def test_run_takes_time(self) -> None:
        """`run` lets as much time pass as is needed, and no more than it was allowed."""
        gateway = self.gateway()
        client = self.client(gateway)
        gateway.stall(client)
        error = raised(DialTimeout, gateway.run, client.dial(1, timeout=3), 10)
        self.assertEqual(error.seconds, 3)
        self.assertEqual(gateway.clock.seconds(), 3)
        waiting: Deferred[None] = Deferred()
        error_ = raised(AssertionError, gateway.run, waiting, 1.125)
        self.assertIn("1.125 s", str(error_))
        self.assertEqual(gateway.clock.seconds(), 4.125)
        self.assertTrue(waiting.called)

    def test_run_without_time(self) -> None:
        """By default none passes."""
        gateway = self.gateway()
        client = self.client(gateway)
        gateway.stall(client)
        raised(AssertionError, gateway.run, client.dial(1, timeout=3))
        self.assertEqual(gateway.clock.seconds(), 0)

    def test_clock(self) -> None:
        """A clock that is given is the one that is turned."""
        clock = Clock()
        clock.advance(100)
        gateway = self.gateway(clock=clock)
        self.assertIs(gateway.clock, clock)
        tape = self.tape(gateway)
        gateway.advance(31)
        self.assertEqual((clock.seconds(), len(tape.losses)), (131, 1))

    def test_never_quiet(self) -> None:
        """Ends that answer each other for ever are an error, not a test that hangs."""
        self.patch(memory, "TURNS", 500)
        gateway = self.gateway()
        tape = self.tape(gateway)
        tape.on_data = tape.wire.write  # the gateway sends each ping back
        tape.wire.write(PING)
        error = raised(AssertionError, gateway.pump)
        self.assertIn("500 turns", str(error))
        tape.on_data = None
        gateway.pump()
        tape.wire.write(PING)
        received = len(tape.received)
        gateway.pump()
        self.assertEqual(len(tape.received), received + len(PING))


class TroubleTests(MemoryTestCase):
    """What goes wrong, on purpose."""

    def test_wrong_key(self) -> None:
        """A server with another key is refused."""
        gateway = self.gateway(key="right")
        connecting = connect_server(gateway.server, 1, b"wrong", clock=gateway.clock)
        raised(LoginFailed, gateway.run, connecting)
        self.assertEqual(gateway.key, b"right")
        self.server(gateway)

    def test_cut_server(self) -> None:
        """When a server's link breaks its connections end, and its clients stay."""
        gateway = self.gateway()
        server = self.echo(gateway)
        client = self.client(gateway)
        conn = gateway.run(client.dial(SERVER_ID))
        gateway.cut(server)
        gateway.pump()
        ended = cast(EndpointEnded, server.ended)
        self.assertIsInstance(ended.cause, ConnectionLost)
        self.assertIsInstance(conn.ended, ConnectionEnded)
        self.assertIsNone(client.ended)
        self.assertEqual(gateway.links(), gateway.links(client))
        raised(DialRefused, gateway.run, client.dial(SERVER_ID))

    def test_cut_one(self) -> None:
        """What is cut is what was named: by a virtual connection, a side, or all."""
        gateway = self.gateway()
        server = self.echo(gateway)
        one, two, three = (self.client(gateway) for _ in range(3))
        gateway.cut(gateway.run(one.dial(SERVER_ID)))
        gateway.pump()
        self.assertIsNotNone(one.ended)
        self.assertEqual((two.ended, three.ended, server.ended), (None, None, None))
        gateway.cut(gateway.client)
        gateway.pump()
        self.assertIsNotNone(two.ended)
        self.assertIsNotNone(three.ended)
        self.assertIsNone(server.ended)
        gateway.cut()
        gateway.pump()
        self.assertIsNotNone(server.ended)
        self.assertEqual(gateway.links(one), [])

    def test_cut_drops(self) -> None:
        """What is on its way when it is cut never arrives."""
        gateway = self.gateway()
        one = self.tape(gateway)
        one.wire.write(PING)
        gateway.cut(one)
        gateway.pump()
        self.assertEqual(one.received, b"")
        self.assertTrue(one.losses[0].check(ConnectionLost))
        self.assertEqual(self.lost(gateway, Reason.CONNECTION_LOST), 1)

    def test_stall(self) -> None:
        """Nothing arrives while it is stalled; afterwards all does, in order."""
        gateway = self.gateway()
        self.echo(gateway)
        client = self.client(gateway)
        conn = gateway.run(client.dial(SERVER_ID))
        gateway.stall(client)
        self.assertTrue(gateway.links(client)[0].stalled)
        for number in range(5):
            conn.send(b"%d" % number)
        waiting = gatherResults([conn.receive() for _ in range(5)])
        gateway.advance(5)
        self.assertNoResult(waiting)
        gateway.resume(client)
        self.assertEqual(gateway.run(waiting), [b"0", b"1", b"2", b"3", b"4"])

    def test_stalled_for_long(self) -> None:
        """A silent network is noticed by both ends, each at its own timeout."""
        gateway = self.gateway()
        client = self.client(gateway)
        gateway.stall(client)
        gateway.advance(19.75)
        self.assertIsNone(client.ended)
        gateway.advance(0.5)
        self.assertIsInstance(client.ended, PingTimeout)
        self.assertEqual(self.lost(gateway, Reason.IDLE_TIMEOUT), 0)
        gateway.advance(15)
        self.assertEqual(self.lost(gateway, Reason.IDLE_TIMEOUT), 1)

    def test_stalled_close(self) -> None:
        """A close does not arrive over a stalled link either."""
        gateway = self.gateway()
        tape = self.tape(gateway)
        gateway.stall(tape)
        tape.wire.loseConnection()
        gateway.pump()
        self.assertEqual(len(tape.losses), 1)
        self.assertEqual(len(gateway.service.router.clients), 1)
        gateway.resume()
        gateway.pump()
        self.assertEqual(len(gateway.service.router.clients), 0)
        self.assertEqual(gateway.links(), [])

    def test_stalled_reset(self) -> None:
        """Nor does a reset: who sends to one that is gone does not notice until then."""
        gateway = self.gateway()
        server = self.server(gateway)
        tape = self.tape(gateway)
        tape.wire.write(dial(SERVER_ID))
        conn = gateway.run(server.accept())
        gateway.stall(tape)
        tape.wire.abortConnection()
        for _ in range(3):
            gateway.run(conn.send(b"are you there?"))
        self.assertIsNone(conn.ended)
        gateway.resume()
        gateway.pump()
        self.assertIsNotNone(conn.ended)

    def test_slow_reader(self) -> None:
        """A client that does not read is lost over its bounds; its neighbours notice nothing."""
        gateway = self.gateway(client_send_buffer="256K")
        server = self.server(gateway)
        slow, quick = self.tape(gateway), self.client(gateway)
        slow.wire.write(dial(SERVER_ID))
        to_slow = gateway.run(server.accept())
        quick.dial(SERVER_ID)
        to_quick = gateway.run(server.accept())
        slow.wire.pauseProducing()
        for _ in range(4):
            gateway.run(to_slow.send(bytes(60_000)))
        self.assertEqual(self.lost(gateway, Reason.SLOW_READER), 0)
        for _ in range(4):
            if to_slow.ended is None:
                gateway.run(to_slow.send(bytes(60_000)))
        self.assertEqual(self.lost(gateway, Reason.SLOW_READER), 1)
        self.assertIsInstance(to_slow.ended, ConnectionEnded)
        self.assertIsNone(to_quick.ended)
        slow.wire.resumeProducing()
        gateway.pump()
        self.assertEqual(len(slow.losses), 1)

    def test_room(self) -> None:
        """As much as a link has room for leaves an end; the rest makes it wait."""
        gateway = self.gateway(room=10_000)
        server = self.server(gateway, config=EndpointConfig(send_buffer=1 << 20))
        gateway.stall(server)
        client = self.client(gateway)
        dialling = client.dial(SERVER_ID)
        gateway.resume(server)
        conn = gateway.run(server.accept())
        gateway.run(dialling)
        gateway.stall(server)
        first, second = conn.send(bytes(9000)), conn.send(bytes(100_000))
        gateway.pump()
        self.successResultOf(first)
        self.assertNoResult(second)
        gateway.resume(server)
        gateway.run(second)

    def test_limits(self) -> None:
        """The gateway's limits hold: connections of the port, dials of a client."""
        gateway = self.gateway(max_clients=2, client_max_conn=1)
        self.echo(gateway)
        client = self.client(gateway)
        gateway.run(client.dial(SERVER_ID))
        raised(DialRefused, gateway.run, client.dial(SERVER_ID))
        self.client(gateway)
        third = self.tape(gateway)
        gateway.pump()
        self.assertEqual(len(third.losses), 1)

    def test_stop_and_start(self) -> None:
        """A gateway that stops refuses connections; a pool is back when it has started."""
        gateway = self.gateway()
        pool = GatewayPool({"it": gateway.server}, 1, gateway.key, clock=gateway.clock)
        pool.startService()
        gateway.run(pool.when_up())
        client = self.client(gateway)
        gateway.stop()
        gateway.stop()
        self.assertIsNotNone(client.ended)
        raised(ConnectionRefusedError, self.client, gateway)
        gateway.advance(10)
        self.assertEqual(dict(pool.up), {})
        gateway.start()
        gateway.start()
        gateway.run(pool.when_up(), seconds=60)
        self.assertEqual(self.client(gateway).ended, None)
        gateway.run(cast("Deferred[None]", pool.stopService()), seconds=10)

    def test_stop_with_stalled(self) -> None:
        """Nor does a stop wait for those who hear nothing."""
        gateway = self.gateway()
        tape = self.tape(gateway)
        gateway.stall()
        gateway.stop()
        self.assertEqual(len(tape.losses), 1)
        self.assertEqual(gateway.links(), [])

    def test_failing_protocol(self) -> None:
        """What a protocol raises is logged and costs its connection, as in Twisted."""
        gateway = self.gateway()

        def fail(_: bytes) -> None:
            raise ZeroDivisionError

        tape = self.tape(gateway)
        tape.on_data = fail
        tape.wire.write(PING)
        gateway.pump()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(tape.losses[0].check(ZeroDivisionError))
        self.assertEqual(self.lost(gateway, Reason.PEER_CLOSED), 1)

    def test_no_protocol(self) -> None:
        """A factory that declines, fails or is cancelled gets no connection, and is stopped."""
        gateway = self.gateway()

        class Declining(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Any:
                if problem is not None:
                    raise problem
                return None

        problem: Exception | None = None
        factory = Declining()
        raised(NoProtocol, gateway.run, gateway.client.connect(factory))
        problem = ZeroDivisionError()
        raised(ZeroDivisionError, gateway.run, gateway.client.connect(factory))
        connecting = gateway.client.connect(factory)
        connecting.cancel()
        self.failureResultOf(connecting, ConnectingCancelledError)
        gateway.pump()
        self.assertEqual((factory.numPorts, gateway.links()), (0, []))

    def test_factory_ends(self) -> None:
        """A factory is started with its first connection and stopped with its last."""
        gateway = self.gateway()
        factory = Factory.forProtocol(Tape)
        factory.noisy = False
        one, two = (gateway.run(gateway.client.connect(factory)) for _ in range(2))
        self.assertEqual(factory.numPorts, 2)
        cast(Any, one).transport.loseConnection()
        cast(Any, two).transport.abortConnection()
        gateway.pump()
        self.assertEqual(factory.numPorts, 0)

    def test_turned_away(self) -> None:
        """Where the listening side has no protocol for it, a connection is refused."""
        clock = Clock()
        endpoint = MemoryEndpoint(Network(clock), Network(clock).address())

        class Full(ServerFactory):
            def buildProtocol(self, addr: object) -> None:
                return None

        endpoint.factory = Full()
        connecting = endpoint.connect(OneOf(Tape()))
        clock.advance(0)
        self.failureResultOf(connecting, ConnectionRefusedError)

    def test_close_at_once(self) -> None:
        """A protocol may close within connectionMade."""
        gateway = self.gateway()
        reasons: list[Failure] = []

        class Brief(Protocol):
            def connectionMade(self) -> None:
                cast(Any, self.transport).loseConnection()

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                reasons.append(reason)

        gateway.run(gateway.client.connect(OneOf(Brief())))
        self.assertEqual([reason.type for reason in reasons], [ConnectionDone])
        self.assertEqual(gateway.links(), [])

    def test_not_ours(self) -> None:
        """What has no connection here cannot be cut."""
        gateway, other = self.gateway(), self.gateway()
        for wrong in (object(), Protocol(), "client"):
            error = raised(ValueError, gateway.cut, wrong)
            self.assertIn("no connection", str(error))
        self.assertEqual(gateway.links(self.client(other)), [])

    def test_bytes(self) -> None:
        """Bytes arrive as they are sent, across the borders of reads and of room."""
        gateway = self.gateway(room=1000)
        server = self.server(gateway)
        tape = self.tape(gateway)
        tape.wire.write(dial(SERVER_ID))
        conn = gateway.run(server.accept())
        data = bytes(range(256)) * 100
        del tape.received[:]
        gateway.run(conn.send(data))
        self.assertEqual(tape.received, packet(conn.conn_id, data))


class OptionTests(SynchronousTestCase):
    def test_wrong(self) -> None:
        """What is wrong with an option is said in one line, in the words of the test."""
        for options, said in (
            (
                {"client_max_con": 3},
                "client_max_con: no such option (did you mean client_max_conn?)",
            ),
            ({"client_idle_timeout": "soon"}, "client_idle_timeout: "),
            (
                {"client_addr": ":9010"},
                "client_addr: a gateway for tests sets it itself; give client_port",
            ),
            ({"server_auth_key": "k"}, "sets it itself; give key"),
            ({"run_dir": "/tmp"}, "run_dir: a gateway for tests sets it itself"),
            ({"metrics_addr": ":0"}, "metrics_addr: a gateway for tests sets it itself"),
            ({"relay": "on"}, "relay: "),
            ({"max_packet": 1}, "max_packet: "),
            ({"client_snet_encrypt": True}, "client_snet_encrypt: nothing would be encrypted"),
        ):
            with self.subTest(options=options):
                text = str(raised(ConfigError, MemoryGateway, **cast(Any, options)))
                self.assertIn(said, text)
                self.assertNotIn("\n", text)

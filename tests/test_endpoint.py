"""The endpoint: one body of tests against a gateway in memory and against the real one over TCP,
as a client and as a server; then what takes a clock, and what takes a kernel.

Rule: the far end only knows bytes, so both directions are held to the spec.
"""

from __future__ import annotations

import builtins
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

import fastway.endpoint as endpoint_library
from fastway.address import address_name
from fastway.endpoint import (
    EndpointConfig,
    GatewayConnection,
    GatewayFactory,
    Json,
    Overflow,
    Text,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.errors import (
    BadMessage,
    ConnectionEnded,
    DialFailed,
    DialRefused,
    DialTimeout,
    EndpointEnded,
    FastwayError,
    FrameTooLarge,
    LocalError,
    LoginFailed,
    MessageTooLarge,
    PingTimeout,
    ReceiveQueueFull,
    SendQueueFull,
    Truncated,
    Unexpected,
)
from fastway.gateway import PortConfig
from fastway.gateway.lane import End
from fastway.router import Limits
from tests.support.errors import raised
from tests.support.golden import (
    FIRST,
    KEY,
    PING,
    accept,
    close,
    connect,
    dial,
    packet,
    prove,
    refuse,
)
from tests.support.paths import on_both_paths
from tests.support.rows import ACCEPTED, CLOSED, CONNECTED, HELLO
from tests.support.scripted import (
    CHALLENGE,
    FAR,
    SERVER_ID,
    ClockTestCase,
    ScriptedFar,
    ScriptedGateway,
)
from tests.support.sockets import Peer, Sockets
from tests.support.waits import reactor, until

Any_ = TypeVar("Any_")


class World:
    """An endpoint that is logged in, and its far end."""

    endpoint: GatewayConnection
    far: ScriptedFar | Peer
    me: int

    async def done(self, waiting: Deferred[Any_]) -> Any_:
        """What the Deferred fires with."""
        raise NotImplementedError

    async def settle(self) -> None:
        """All that the far end said has reached the endpoint."""
        raise NotImplementedError

    async def eventually(self, what: str, condition: Any) -> None:
        raise NotImplementedError

    async def cut(self) -> None:
        """The gateway ends the connection."""
        raise NotImplementedError

    async def dialled(self) -> VirtualConnection[Any]:
        """A virtual connection that this end opened; the far end has taken its Connect."""
        conn = await self.done(self.endpoint.dial(FAR))
        await self.far.expect(connect(conn.conn_id, self.me))
        return conn

    async def accepted(self) -> VirtualConnection[Any]:
        """A virtual connection that the far end opened; it has taken its Accept."""
        self.far.send(dial(self.me))
        conn = await self.done(self.endpoint.accept())
        await self.far.expect(accept(conn.conn_id, self.me))
        return conn


class ScriptedWorld(World):
    """In memory."""

    def __init__(self, gateway: ScriptedGateway, me: int) -> None:
        self.gateway = gateway
        self.endpoint = gateway.endpoint
        self.far = gateway.far
        self.me = me

    async def done(self, waiting: Deferred[Any_]) -> Any_:
        self.gateway.answer()
        if not waiting.called:
            raise AssertionError("it does not fire")
        return await waiting

    async def settle(self) -> None:
        self.gateway.answer()

    async def eventually(self, what: str, condition: Any) -> None:
        self.gateway.answer()
        if not condition():
            raise AssertionError(what)

    async def cut(self) -> None:
        self.gateway.answer()
        self.gateway.gone()


class SocketWorld(World):
    """Over TCP."""

    def __init__(self, sockets: Sockets, endpoint: GatewayConnection, far: Peer, me: int) -> None:
        self.sockets = sockets
        self.endpoint = endpoint
        self.peer = self.far = far
        self.me = me

    async def done(self, waiting: Deferred[Any_]) -> Any_:
        return await waiting.addTimeout(2, reactor)

    async def settle(self) -> None:
        await self.peer.was_read()
        await self.done(self.endpoint.ping())

    async def eventually(self, what: str, condition: Any) -> None:
        await until(what, condition)

    async def cut(self) -> None:
        name = address_name(cast(Any, self.endpoint.link.transport).transport.getHost())
        for link in self.sockets.service.connected:
            if link.facts.name == name:
                link.lane.close(End.CLOSE)
        await until("the end", lambda: self.endpoint.ended)


if TYPE_CHECKING:
    Body = TestCase
else:
    Body = object


class EndpointBody(Body):
    """What an endpoint promises wherever it runs, and whichever side it is."""

    timeout = 30

    async def open(self, **config: Any) -> World:
        raise NotImplementedError

    async def fails(self, world: World, kind: type[Any_], waiting: Deferred[Any]) -> Any_:
        """The error with which a Deferred fails."""
        try:
            result = await world.done(waiting)
        except Exception as error:
            self.assertIsInstance(error, kind)
            return cast(Any_, error)
        raise AssertionError(f"it fired with {result!r}")

    # Dialling and being dialled.

    async def test_dial(self) -> None:
        """A dial fires with an open connection that names itself and its far end."""
        world = await self.open()
        conn = await world.dialled()
        self.assertEqual((conn.conn_id, conn.remote_id), (FIRST, FAR))
        self.assertIs(conn.gateway, world.endpoint)
        self.assertIsNone(conn.ended)
        self.assertIsNone(conn.state)
        self.assertIn("9527 to 1, open", repr(conn))
        self.assertIs(world.endpoint.connection(FIRST), conn)
        self.assertEqual(world.endpoint.connections, [conn])
        self.assertIsNone(world.endpoint.connection(FIRST + 1))

    async def test_refused(self) -> None:
        """A refused dial is an error of its own, which is also a ConnectionRefusedError."""
        world = await self.open()
        error = await self.fails(world, DialRefused, world.endpoint.dial(99))
        self.assertIsInstance(error, OSError)
        self.assertIsInstance(error, builtins.ConnectionRefusedError)
        self.assertIsInstance(error, DialFailed)
        self.assertEqual(error.remote_id, 99)
        self.assertIsNone(world.endpoint.ended)
        await world.dialled()

    async def test_several_dials(self) -> None:
        """Several dials at once, to the same id and to others, each get their own answer."""
        world = await self.open()
        good = [world.endpoint.dial(FAR), world.endpoint.dial(FAR)]
        bad = [world.endpoint.dial(98), world.endpoint.dial(99)]
        good.append(world.endpoint.dial(FAR, timeout=5))
        conns = await world.done(gatherResults(good))
        self.assertEqual([conn.conn_id for conn in conns], [FIRST, FIRST + 1, FIRST + 2])
        for waiting, remote_id in zip(bad, (98, 99), strict=True):
            error = await self.fails(world, DialRefused, waiting)
            self.assertEqual(error.remote_id, remote_id)

    async def test_cancelled_dial(self) -> None:
        """A dial that is given up is closed as soon as it is open; the next gets its own."""
        world = await self.open()
        first, second = world.endpoint.dial(FAR), world.endpoint.dial(FAR, timeout=5)
        first.cancel()
        await self.fails(world, CancelledError, first)
        conn = await world.done(second)
        self.assertEqual(conn.conn_id, FIRST + 1)
        await world.far.expect(
            connect(FIRST, world.me) + connect(FIRST + 1, world.me) + close(FIRST)
        )
        self.assertEqual(world.endpoint.connections, [conn])

    async def test_accept(self) -> None:
        """Who dials this end is accepted, before or after accept was called, in order."""
        world = await self.open()
        waiting = [world.endpoint.accept() for _ in range(2)]
        world.far.send(dial(world.me) * 4)
        conns = await world.done(gatherResults(waiting))
        await world.settle()
        conns += [await world.done(world.endpoint.accept()) for _ in range(2)]
        self.assertEqual([conn.conn_id for conn in conns], [FIRST + n for n in range(4)])
        self.assertEqual({conn.remote_id for conn in conns}, {FAR})

    async def test_accept_cancelled(self) -> None:
        """An accept that is cancelled loses nobody."""
        world = await self.open()
        first, second = world.endpoint.accept(), world.endpoint.accept()
        first.cancel()
        await self.fails(world, CancelledError, first)
        world.far.send(dial(world.me))
        self.assertEqual((await world.done(second)).conn_id, FIRST)

    async def test_accept_queue(self) -> None:
        """As many as accept_queue wait to be accepted; the next is closed, and no other."""
        world = await self.open(accept_queue=2)
        world.far.send(dial(world.me) * 3)
        await world.far.expect(
            b"".join(accept(FIRST + n, world.me) for n in range(3)) + close(FIRST + 2)
        )
        self.assertEqual(len(world.endpoint.connections), 2)
        for number in (FIRST, FIRST + 1):
            self.assertEqual((await world.done(world.endpoint.accept())).conn_id, number)
        self.assertEqual((await world.accepted()).conn_id, FIRST + 3)

    async def test_listen(self) -> None:
        """A listener gets those that wait and those that come; without it, accept does again."""
        world = await self.open()
        world.far.send(dial(world.me) * 2)
        await world.settle()
        got: list[VirtualConnection[Any]] = []
        world.endpoint.listen(got.append)
        self.assertEqual(len(got), 2)
        world.far.send(dial(world.me))
        await world.settle()
        self.assertEqual(len(got), 3)
        world.endpoint.listen(None)
        world.far.send(dial(world.me))
        self.assertEqual((await world.done(world.endpoint.accept())).conn_id, FIRST + 3)

    async def test_coroutines(self) -> None:
        """`async for` over an endpoint and over connections, in plain coroutines."""
        world = await self.open()
        got: list[tuple[int, bytes]] = []

        async def echo(conn: VirtualConnection[Any]) -> None:
            async for message in conn:
                got.append((conn.conn_id, message))
                await conn.send(message)

        async def serve() -> str:
            running = []
            async for conn in world.endpoint:
                running.append(ensureDeferred(echo(conn)))
            await gatherResults(running)
            return "over"

        serving = ensureDeferred(serve())
        world.far.send(dial(world.me) * 2)
        both = accept(FIRST, world.me) + accept(FIRST + 1, world.me)
        await world.far.expect(both)
        for conn_id in (FIRST, FIRST + 1):
            world.far.send(packet(conn_id, b"a") + packet(conn_id, b"b"))
            await world.far.expect(packet(conn_id, b"a") + packet(conn_id, b"b"))
        world.far.send(CLOSED)
        await world.settle()
        self.assertFalse(serving.called)
        await world.cut()
        self.assertEqual(await world.done(serving), "over")
        self.assertEqual(len(got), 4)

    # Messages.

    async def test_send(self) -> None:
        """Messages arrive as they were sent, in order, the empty and the largest one too."""
        world = await self.open(max_packet=2000)
        conn = await world.dialled()
        sent = [b"", b"Hello", bytes(1995), bytes(1996), bytearray(b"x"), memoryview(b"yz")]
        for message in sent:
            await world.done(conn.send(message))
        await world.far.expect(b"".join(packet(FIRST, bytes(message)) for message in sent))

    async def test_too_large(self) -> None:
        """A message that does not fit is refused here, and nothing of it is sent."""
        world = await self.open(max_packet=2000)
        conn = await world.dialled()
        self.assertEqual(world.endpoint.max_message, 1996)
        error = raised(MessageTooLarge, conn.send, bytes(1997))
        self.assertEqual((error.size, error.limit), (1997, 1996))
        raised(TypeError, conn.send, "text")
        await world.done(conn.send(b"on"))
        await world.far.expect(packet(FIRST, b"on"))

    async def test_receive_order(self) -> None:
        """Messages are received in order, before and after receive was called."""
        world = await self.open()
        conn = await world.accepted()
        waiting = [conn.receive() for _ in range(3)]
        world.far.send(b"".join(packet(FIRST, bytes([n])) for n in range(6)))
        got = await world.done(gatherResults(waiting))
        await world.settle()
        got += [await world.done(conn.receive()) for _ in range(3)]
        self.assertEqual(got, [bytes([n]) for n in range(6)])

    async def test_receive_cancelled(self) -> None:
        """A receive that is cancelled loses no message."""
        world = await self.open()
        conn = await world.dialled()
        waiting = [conn.receive() for _ in range(3)]
        waiting[1].cancel()
        await self.fails(world, CancelledError, waiting[1])
        world.far.send(packet(FIRST, b"1") + packet(FIRST, b"2") + packet(FIRST, b"3"))
        self.assertEqual(await world.done(waiting[0]), b"1")
        self.assertEqual(await world.done(waiting[2]), b"2")
        self.assertEqual(await world.done(conn.receive()), b"3")

    async def test_siblings(self) -> None:
        """Each connection gets its own messages only."""
        world = await self.open()
        conns = [await world.dialled(), await world.accepted(), await world.dialled()]
        world.far.send(b"".join(packet(FIRST + n % 3, bytes([n])) for n in range(9)))
        for place, conn in enumerate(conns):
            got = [await world.done(conn.receive()) for _ in range(3)]
            self.assertEqual(got, [bytes([place + 3 * n]) for n in range(3)])

    async def test_format(self) -> None:
        """The message format is used both ways; what it cannot encode, the sender is told."""
        world = await self.open(message_format=Json())
        conn = await world.dialled()
        await world.done(conn.send({"a": 1}))
        await world.far.expect(packet(FIRST, b'{"a":1}'))
        world.far.send(packet(FIRST, b"[1, 2]"))
        self.assertEqual(await world.done(conn.receive()), [1, 2])
        raised(TypeError, conn.send, {1, 2})
        self.assertIsNone(conn.ended)

    async def test_bad_message(self) -> None:
        """What does not decode closes that connection with the reason, and no other."""
        world = await self.open(message_format=Text())
        bad, good = await world.dialled(), await world.dialled()
        world.far.send(packet(FIRST, b"ok") + packet(FIRST, b"\xff") + packet(FIRST, b"late"))
        world.far.send(packet(FIRST + 1, b"on"))
        self.assertEqual(await world.done(good.receive()), "on")
        self.assertEqual(await world.done(bad.receive()), "ok")
        error = await self.fails(world, BadMessage, bad.receive())
        self.assertIsInstance(error.cause, UnicodeDecodeError)
        self.assertIs(bad.ended, error)
        await world.far.expect(CLOSED)
        self.assertEqual(world.endpoint.connections, [good])

    # Closing.

    async def test_far_end_closes(self) -> None:
        """What came before the far end's close is received, then receive fails, orderly."""
        world = await self.open()
        conn = await world.dialled()
        closed = conn.when_ended()
        world.far.send(packet(FIRST, b"1") + packet(FIRST, b"2") + CLOSED)
        reason = await world.done(closed)
        self.assertEqual(await world.done(conn.receive()), b"1")
        self.assertEqual(await world.done(conn.receive()), b"2")
        for _ in range(2):
            error = await self.fails(world, ConnectionEnded, conn.receive())
            self.assertIs(error, reason)
        self.assertIsNone(error.cause)
        self.assertIs(raised(ConnectionEnded, conn.send, b"x"), reason)
        self.assertIs(await world.done(conn.when_ended()), reason)
        self.assertIn("closed", repr(conn))
        self.assertEqual(world.endpoint.connections, [])
        conn.close()
        await world.far.expect(CLOSED)

    async def test_close(self) -> None:
        """Closing here fails what waits at once, tells the far end once, and is final."""
        world = await self.open()
        conn = await world.dialled()
        closed, waiting = conn.when_ended(), conn.receive()
        conn.close()
        self.assertTrue(closed.called and waiting.called)
        error = await self.fails(world, ConnectionEnded, waiting)
        self.assertIs(await world.done(closed), error)
        self.assertIsNone(error.cause)
        world.far.send(packet(FIRST, b"crossing"))
        conn.close()
        self.assertIs(raised(ConnectionEnded, conn.send, b"x"), error)
        self.assertIs(await self.fails(world, ConnectionEnded, conn.receive()), error)
        await world.far.expect(CLOSED)
        await world.settle()
        self.assertIsNone(world.endpoint.ended)
        self.assertIs(conn.ended, error)

    async def test_close_drains(self) -> None:
        """What came before this end closed is still received."""
        world = await self.open()
        conn = await world.dialled()
        world.far.send(packet(FIRST, b"1"))
        await world.settle()
        conn.close()
        self.assertEqual(await world.done(conn.receive()), b"1")
        await self.fails(world, ConnectionEnded, conn.receive())

    async def test_async_for_ends(self) -> None:
        """`async for` gets what came before the close, and ends."""
        world = await self.open()
        conn = await world.dialled()
        world.far.send(packet(FIRST, b"1") + packet(FIRST, b"2") + CLOSED)
        await world.settle()
        self.assertEqual([message async for message in conn], [b"1", b"2"])

    async def test_endpoint_closes(self) -> None:
        """Closing the endpoint fails all that waits at once, with one reason."""
        world = await self.open()
        conn = await world.dialled()
        over, closed = world.endpoint.when_ended(), conn.when_ended()
        waiting: list[Deferred[Any]] = [
            world.endpoint.dial(FAR),
            world.endpoint.dial(FAR, timeout=5),
            world.endpoint.accept(),
            world.endpoint.ping(),
        ]
        message = conn.receive()
        world.endpoint.close()
        reason = await world.done(over)
        self.assertIs(type(reason), EndpointEnded)
        for one in waiting:
            self.assertTrue(one.called)
            self.assertIs(await self.fails(world, EndpointEnded, one), reason)
        error = await self.fails(world, ConnectionEnded, message)
        self.assertIs(error.cause, reason)
        self.assertIs(await world.done(closed), error)
        world.endpoint.close()
        conn.close()
        endpoint = world.endpoint
        for late in (endpoint.dial(FAR), endpoint.accept(), endpoint.ping()):
            self.assertIs(await self.fails(world, EndpointEnded, cast(Any, late)), reason)
        self.assertIs(await world.done(endpoint.when_ended()), reason)
        self.assertIs(raised(ConnectionEnded, conn.send, b"x"), error)
        self.assertEqual(endpoint.connections, [])

    async def test_gateway_ends(self) -> None:
        """When the gateway ends the connection, all that waits fails; what came is received."""
        world = await self.open()
        conn = await world.dialled()
        idle = await world.dialled()
        world.far.send(packet(FIRST, b"last"))
        await world.settle()
        acceptor, message = world.endpoint.accept(), idle.receive()
        await world.cut()
        reason = world.endpoint.ended
        assert isinstance(reason, EndpointEnded)
        self.assertIsNone(reason.cause)
        self.assertIs(await self.fails(world, EndpointEnded, acceptor), reason)
        self.assertIs((await self.fails(world, ConnectionEnded, message)).cause, reason)
        self.assertEqual(await world.done(conn.receive()), b"last")
        await self.fails(world, ConnectionEnded, conn.receive())

    # Bounds.

    async def test_overflow_closes(self) -> None:
        """A connection may hold receive_queue messages; one more closes it, and no other."""
        for size in (2, 3, 4):
            world = await self.open(receive_queue=3)
            conn, sibling = await world.dialled(), await world.dialled()
            world.far.send(b"".join(packet(conn.conn_id, bytes([n])) for n in range(size)))
            world.far.send(packet(sibling.conn_id, b"on"))
            self.assertEqual(await world.done(sibling.receive()), b"on")
            self.assertEqual(conn.ended is None, size < 4)
            got = [await world.done(conn.receive()) for _ in range(size)]
            self.assertEqual(got, [bytes([n]) for n in range(size)])
            if size == 4:
                error = await self.fails(world, ReceiveQueueFull, conn.receive())
                self.assertEqual((error.messages, error.size), (4, 4))
                await world.far.expect(close(conn.conn_id))
            self.assertIsNone(sibling.ended)

    async def test_overflow_pauses(self) -> None:
        """With PAUSE nothing is lost: all wait until half of the messages are read."""
        world = await self.open(receive_queue=4, overflow=Overflow.PAUSE)
        endpoint = world.endpoint
        conn, sibling = await world.dialled(), await world.dialled()
        world.far.send(b"".join(packet(FIRST, bytes([n])) for n in range(4)))
        await world.settle()
        self.assertFalse(endpoint.link.paused)
        world.far.send(packet(FIRST, b"\4"))
        await world.eventually("paused", lambda: endpoint.link.paused)
        world.far.send(packet(FIRST + 1, b"on") + packet(FIRST, b"\5"))
        waiting = sibling.receive()
        got = [await world.done(conn.receive()) for _ in range(2)]
        self.assertFalse(waiting.called)
        self.assertTrue(endpoint.link.paused)
        got.append(await world.done(conn.receive()))
        self.assertEqual(await world.done(waiting), b"on")
        got += [await world.done(conn.receive()) for _ in range(3)]
        self.assertEqual(got, [bytes([n]) for n in range(6)])
        self.assertIsNone(conn.ended)

    async def test_paused_close(self) -> None:
        """Closing the connection that makes all wait lets them go on."""
        world = await self.open(receive_queue=1, overflow=Overflow.PAUSE)
        conn, sibling = await world.dialled(), await world.dialled()
        world.far.send(packet(FIRST, b"1") + packet(FIRST, b"2"))
        await world.eventually("paused", lambda: world.endpoint.link.paused)
        world.far.send(packet(FIRST + 1, b"on"))
        conn.close()
        self.assertEqual(await world.done(sibling.receive()), b"on")

    async def test_ping(self) -> None:
        """A ping tells how long its answer took; several at once share one."""
        world = await self.open()
        first, second = world.endpoint.ping(), world.endpoint.ping()
        took = await world.done(first)
        self.assertGreaterEqual(took, 0)
        self.assertEqual(await world.done(second), took)
        self.assertEqual(world.endpoint.round_trip, took)

    async def test_many(self) -> None:
        """50 virtual connections at once with 2000 random messages lose and mix up nothing."""
        world = await self.open(receive_queue=2000)
        chance = random.Random(1)
        world.far.send(dial(world.me) * 25)
        await world.far.expect(b"".join(accept(FIRST + n, world.me) for n in range(25)))
        conns = [await world.done(world.endpoint.accept()) for _ in range(25)]
        while len(conns) < 50:
            conns.append(await world.dialled())
        there: dict[int, list[bytes]] = defaultdict(list)
        back: dict[int, list[bytes]] = defaultdict(list)
        stream = b""
        for _ in range(1000):
            conn = chance.choice(conns)
            message = chance.randbytes(chance.choice((0, 1, 7, 100, 3000)))
            there[conn.conn_id].append(message)
            conn.send(message)
            stream += packet(conn.conn_id, message)
            conn_id = chance.choice(conns).conn_id
            message = chance.randbytes(chance.choice((0, 1, 7, 100, 3000)))
            back[conn_id].append(message)
            world.far.send(packet(conn_id, message))
        await world.far.expect(stream)
        self.assertEqual(sum(map(len, there.values())), 1000)
        for conn in conns:
            got = [await world.done(conn.receive()) for _ in back[conn.conn_id]]
            self.assertEqual(got, back[conn.conn_id])


class ScriptedClientTests(EndpointBody, TestCase):
    """A client, in memory."""

    async def open(self, **config: Any) -> World:
        return ScriptedWorld(ScriptedGateway(EndpointConfig(**config)), 1)


class ScriptedServerTests(EndpointBody, TestCase):
    """A server, in memory."""

    async def open(self, **config: Any) -> World:
        gateway = ScriptedGateway(EndpointConfig(**config), SERVER_ID)
        gateway.log_in()
        return ScriptedWorld(gateway, SERVER_ID)


class SocketTestCase(TestCase):
    """A test case with a real gateway, at whose end every endpoint is gone."""

    timeout = 30
    relay = False

    def listen(self, **config: Any) -> Sockets:
        sockets = Sockets(relay=self.relay, **config)
        self.addCleanup(sockets.stop)
        return sockets

    async def _gone(self, endpoint: GatewayConnection) -> None:
        endpoint.close()
        await until("the endpoint to be gone", lambda: endpoint.link.gone)

    async def client(self, sockets: Sockets, **config: Any) -> GatewayConnection:
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", sockets.client_port.getHost().port)
        endpoint = await connect_client(where, EndpointConfig(**config))
        self.addCleanup(self._gone, endpoint)
        return endpoint

    async def server(self, sockets: Sockets, key: bytes = KEY, **config: Any) -> GatewayConnection:
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", sockets.server_port.getHost().port)
        endpoint = await connect_server(where, SERVER_ID, key, EndpointConfig(**config))
        self.addCleanup(self._gone, endpoint)
        return endpoint


def many() -> Limits:
    """No limit on virtual connections."""
    return Limits(client_max_conn=0, client_max_total=0)


@on_both_paths
class SocketClientTests(EndpointBody, SocketTestCase):
    """A client of a real gateway."""

    async def open(self, **config: Any) -> World:
        sockets = self.listen(limits=many())
        endpoint = await self.client(sockets, **config)
        return SocketWorld(sockets, endpoint, await sockets.server(FAR), 1)


@on_both_paths
class SocketServerTests(EndpointBody, SocketTestCase):
    """A server of a real gateway."""

    async def open(self, **config: Any) -> World:
        sockets = self.listen(limits=many())
        far = await sockets.client()
        endpoint = await self.server(sockets, **config)
        return SocketWorld(sockets, endpoint, far, SERVER_ID)


class LoginTests(ClockTestCase):
    """A server's login as the endpoint sees it."""

    def test_golden(self) -> None:
        """The challenge is answered with the proof, the id and a ping, whose answer counts."""
        gateway = self.server()
        ready = gateway.endpoint.when_up()
        gateway.say(CHALLENGE[:5])
        self.assertEqual(gateway.heard(), b"")
        gateway.say(CHALLENGE[5:])
        proof = bytes.fromhex("adcfa1211693e4374b111406c62170c5")
        ping = bytes.fromhex("050000000000000005")
        self.assertEqual(gateway.heard(), proof + b"\7\0\0\0" + ping)
        self.assertNoResult(ready)
        gateway.say(ping)
        self.assertIs(self.successResultOf(ready), gateway.endpoint)
        self.assertIs(self.successResultOf(gateway.endpoint.when_up()), gateway.endpoint)
        self.assertEqual(gateway.endpoint.server_id, SERVER_ID)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_packets_behind_the_challenge(self) -> None:
        """Who dials at once is not lost, and the proof is written before any answer to him."""
        gateway = self.server()
        waiting = gateway.endpoint.accept()
        gateway.say(CHALLENGE + CONNECTED + HELLO)
        conn = self.successResultOf(waiting)
        self.assertEqual(self.successResultOf(conn.receive()), b"Hello")
        conn.send(b"Hello")
        self.assertEqual(gateway.heard(), prove(CHALLENGE, SERVER_ID) + PING + HELLO)

    def test_client_is_ready(self) -> None:
        """A client is ready at once, has no id of its own, and writes nothing unasked."""
        gateway = self.client()
        self.assertIs(self.successResultOf(gateway.endpoint.when_up()), gateway.endpoint)
        self.assertIsNone(gateway.endpoint.server_id)
        self.assertEqual(gateway.heard(), b"")

    def test_no_challenge(self) -> None:
        """A gateway that never sends a challenge fails the login after 5 s."""
        gateway = self.server()
        ready = gateway.endpoint.when_up()
        gateway.clock.advance(4.875)
        self.assertNoResult(ready)
        gateway.clock.advance(0.125)
        error = self.assertEnded(gateway, LoginFailed, abort=True)
        self.assertIs(self.failureResultOf(ready).value, error)
        self.assertEqual(gateway.heard(), b"")

    def test_no_answer(self) -> None:
        """A gateway that never answers the proof fails the login, whatever the callback."""
        asked: list[GatewayConnection] = []

        def go_on(endpoint: GatewayConnection) -> bool:
            asked.append(endpoint)
            return True

        gateway = self.server(timeout_callback=go_on)
        gateway.say(CHALLENGE)
        gateway.clock.advance(5)
        self.assertEnded(gateway, LoginFailed, abort=True)
        self.assertEqual(asked, [])

    def test_wrong_key(self) -> None:
        """A gateway that closes after the proof, in whatever way, did not take the login."""
        for error in (None, ConnectionLost()):
            gateway = self.server()
            ready = gateway.endpoint.when_up()
            gateway.say(CHALLENGE)
            gateway.gone(error)
            ended = self.assertEnded(gateway, LoginFailed)
            self.assertIn("key", str(ended))
            self.assertIs(self.failureResultOf(ready).value, ended)
            self.failureResultOf(gateway.endpoint.when_up(), LoginFailed)

    def test_no_handshake(self) -> None:
        """A connection that never came about, over TLS say, is not blamed on the key."""
        gateway = self.server()
        cause = OSError("certificate verify failed")
        gateway.gone(cause)
        ended = self.assertEnded(gateway, EndpointEnded, abort=True)
        self.assertNotIsInstance(ended, LoginFailed)
        self.assertIs(ended.cause, cause)

    def test_cut_challenge(self) -> None:
        """A stream that ends inside the challenge is told as such."""
        gateway = self.server()
        gateway.say(CHALLENGE[:3])
        gateway.gone()
        self.assertIsInstance(self.assertEnded(gateway, EndpointEnded).cause, Truncated)

    def test_given_up(self) -> None:
        """Cancelling the wait for the login ends the endpoint."""
        gateway = self.server()
        ready = gateway.endpoint.when_up()
        ready.cancel()
        self.failureResultOf(ready, CancelledError)
        self.assertEnded(gateway, EndpointEnded)

    def test_too_early(self) -> None:
        """What would be taken for the login's answer is refused, and nothing is written."""
        gateway = self.server()
        raised(LocalError, gateway.endpoint.dial, 1)
        raised(LocalError, gateway.endpoint.ping)
        gateway.log_in()
        gateway.endpoint.dial(1)
        self.assertEqual(gateway.heard(), dial(1))
        unconnected = GatewayFactory(clock=gateway.clock).buildProtocol(None).gateway
        raised(LocalError, unconnected.dial, 1)
        raised(LocalError, unconnected.ping)

    def test_closed_while_connecting(self) -> None:
        """An endpoint that is closed before it is connected lets go of the connection."""
        made: list[GatewayConnection] = []
        for server_id in (None, 1):
            clock = ScriptedGateway().clock
            factory = GatewayFactory(server_id=server_id, clock=clock, made=made.append)
            wire = factory.buildProtocol(None)
            endpoint = wire.gateway
            self.assertIs(made.pop(), endpoint)
            endpoint.close()
            transport = ScriptedGateway().transport
            wire.makeConnection(cast(Any, transport))
            self.assertTrue(transport.aborted)
            self.failureResultOf(endpoint.when_up(), EndpointEnded)


class DialClockTests(ClockTestCase):
    """Dials against the clock, and against what comes in the same read."""

    def test_timeout(self) -> None:
        """A dial that is not answered in time fails; accepted later, it is closed at once."""
        gateway = self.client()
        waiting = gateway.endpoint.dial(1, timeout=2)
        patient = gateway.endpoint.dial(1)
        self.assertEqual(gateway.heard(), dial(1) * 2)
        gateway.clock.advance(1.875)
        self.assertNoResult(waiting)
        gateway.clock.advance(0.125)
        error = self.failureResultOf(waiting, DialTimeout).value
        self.assertIsInstance(error, TimeoutError)
        self.assertEqual((error.remote_id, error.seconds), (1, 2))
        gateway.say(ACCEPTED + HELLO)
        self.assertEqual(gateway.heard(), CLOSED)
        self.assertEqual(gateway.endpoint.connections, [])
        gateway.say(CLOSED + accept(FIRST + 1, 1))
        self.assertEqual(self.successResultOf(patient).conn_id, FIRST + 1)
        self.assertIsNone(gateway.endpoint.ended)

    def test_timer_goes(self) -> None:
        """An answer, a cancel and the endpoint's end each stop a dial's timer."""
        gateway = self.client()
        for answer in (accept(FIRST, 1), refuse(1)):
            waiting = gateway.endpoint.dial(1, timeout=2)
            gateway.say(answer)
            waiting.addErrback(lambda failure: failure.trap(DialRefused))
            self.assertEqual(gateway.clock.getDelayedCalls(), [])
        waiting = gateway.endpoint.dial(1, timeout=2)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])
        waiting = gateway.endpoint.dial(1, timeout=2)
        gateway.endpoint.close()
        self.failureResultOf(waiting, EndpointEnded)
        self.assertEnded(gateway, EndpointEnded)

    def test_given_up_in_the_same_read(self) -> None:
        """A dial given up by what came just before its Accept leaves no connection behind."""
        gateway = self.client()
        first, second = gateway.endpoint.dial(1), gateway.endpoint.dial(2)
        first.addErrback(lambda failure: second.cancel())
        gateway.heard()
        gateway.say(refuse(1) + accept(FIRST, 2))
        self.failureResultOf(second, CancelledError)
        self.assertEqual(gateway.heard(), CLOSED)
        self.assertEqual(gateway.endpoint.connections, [])

    def test_reply_to_one_who_left(self) -> None:
        """Replying to a message whose sender closed in the same read is ConnectionEnded."""
        gateway = self.client()
        conn = self.connected(gateway)
        replied = conn.receive().addCallback(conn.send)
        gateway.say(HELLO + CLOSED)
        self.failureResultOf(replied, ConnectionEnded)
        self.assertEqual(gateway.heard(), b"")
        self.assertIsNone(gateway.endpoint.ended)

    def test_closed_in_the_same_read(self) -> None:
        """Closing the endpoint in a callback drops the rest of the read."""
        gateway = self.client()
        conn = self.connected(gateway)
        conn.receive().addCallback(lambda _: gateway.endpoint.close())
        gateway.say(HELLO * 2 + connect(FIRST + 1, 1) + b"\0\0\0\0")
        self.assertIsNone(self.assertEnded(gateway, EndpointEnded).cause)
        self.assertEqual(gateway.endpoint.connections, [])
        gateway.say(HELLO)
        self.failureResultOf(conn.receive(), ConnectionEnded)

    def test_wrong_ids(self) -> None:
        """What is no id is refused here, and nothing is written or waited for."""
        gateway = self.client()
        for number in (-1, 2**32):
            raised(ValueError, gateway.endpoint.dial, number)
        for wrong in ("1", None, 1.5):
            raised(TypeError, gateway.endpoint.dial, wrong)
        self.assertEqual(gateway.heard(), b"")
        gateway.endpoint.close()
        self.assertEnded(gateway, EndpointEnded)


class EndTests(ClockTestCase):
    """How an endpoint ends."""

    def test_broken_protocol(self) -> None:
        """A gateway that breaks the protocol is aborted; what it said before still counts."""
        broken: list[tuple[bytes, type[FastwayError]]] = [
            (b"\xff\xff\xff\xff", FrameTooLarge),
            (close(FIRST + 1), Unexpected),
            (refuse(1), Unexpected),
        ]
        for data, kind in broken:
            gateway = self.client()
            conn = self.connected(gateway)
            over = gateway.endpoint.when_ended()
            gateway.say(HELLO + data + HELLO)
            error = self.assertEnded(gateway, EndpointEnded, abort=True)
            self.assertIsInstance(error.cause, kind)
            self.assertIs(self.successResultOf(over), error)
            self.assertEqual(self.successResultOf(conn.receive()), b"Hello")
            failed = self.failureResultOf(conn.receive(), ConnectionEnded).value
            self.assertIs(failed.cause, error)

    def test_connection_lost(self) -> None:
        """A connection that breaks is the cause, an orderly end has none, a cut packet has."""
        lost = ConnectionLost()
        for error, data in ((lost, b""), (None, b""), (None, HELLO[:5])):
            gateway = self.client()
            self.connected(gateway)
            gateway.say(data)
            gateway.gone(error)
            cause = self.assertEnded(gateway, EndpointEnded).cause
            if data:
                self.assertIsInstance(cause, Truncated)
            else:
                self.assertIs(cause, error)

    def test_close_writes_what_was_sent(self) -> None:
        """Closing is orderly: what was sent is written before."""
        gateway = self.client()
        conn = self.connected(gateway)
        conn.send(b"Hello")
        gateway.endpoint.close()
        self.assertEnded(gateway, EndpointEnded)
        self.assertEqual(gateway.heard(), HELLO)
        gateway.gone()
        self.assertIn("closed here", str(gateway.endpoint.ended))


class BackpressureTests(ClockTestCase):
    """Sending while the transport is full."""

    def test_waits(self) -> None:
        """`send` fires at once until the transport is full, then when it has drained."""
        gateway = self.client()
        conn = self.connected(gateway)
        self.successResultOf(conn.send(b"a"))
        gateway.transport.stuck = True
        filling = conn.send(b"b")
        waiting = conn.send(b"c")
        self.assertNoResult(filling)
        self.assertNoResult(waiting)
        gateway.transport.drain()
        self.assertIsNone(self.successResultOf(filling))
        self.assertIsNone(self.successResultOf(waiting))
        self.successResultOf(conn.send(b"d"))
        self.assertEqual(
            gateway.heard(),
            b"".join(packet(FIRST, message) for message in (b"a", b"b", b"c", b"d")),
        )

    def test_queue_full(self) -> None:
        """`send_buffer` bytes may be sent without waiting, one more raises and sends nothing."""
        for size, fits in ((41, True), (42, True), (43, False)):
            gateway = self.client(send_buffer=100)
            conn = self.connected(gateway)
            gateway.transport.fill()
            waiting = [conn.send(bytes(42))]
            if fits:
                waiting.append(conn.send(bytes(size)))
            else:
                error = raised(SendQueueFull, conn.send, bytes(size))
                self.assertEqual((error.waiting, error.limit), (50, 100))
            gateway.heard()
            gateway.transport.drain()
            for one in waiting:
                self.successResultOf(one)
            gateway.transport.fill()
            waiting = [conn.send(bytes(92))]
            raised(SendQueueFull, conn.send, b"")
            gateway.transport.drain()
            self.successResultOf(waiting[0])
            self.assertIsNone(conn.ended)

    def test_one_at_a_time(self) -> None:
        """A sender who waits never has more than one message queued."""
        gateway = self.client(send_buffer=100)
        conn = self.connected(gateway)
        gateway.transport.fill()

        async def sender() -> None:
            for number in range(20):
                await conn.send(bytes([number]) * 90)

        sending = ensureDeferred(sender())
        for number in range(20):
            self.assertEqual(gateway.heard(), packet(FIRST, bytes([number]) * 90))
            self.assertNoResult(sending)
            gateway.transport.drain_once()
        self.successResultOf(sending)

    def test_end(self) -> None:
        """Who waits to send when the endpoint ends is told why."""
        gateway = self.client()
        conn = self.connected(gateway)
        gateway.transport.fill()
        waiting = conn.send(b"x")
        gateway.gone(ConnectionLost())
        error = self.failureResultOf(waiting, EndpointEnded).value
        self.assertIs(error, self.assertEnded(gateway, EndpointEnded))

    def test_control_is_not_bounded(self) -> None:
        """A dial, a close and a ping go out however much waits."""
        gateway = self.client(send_buffer=0)
        conn = self.connected(gateway)
        gateway.transport.fill()
        raised(SendQueueFull, conn.send, b"")
        gateway.endpoint.dial(2)
        gateway.endpoint.ping()
        conn.close()
        self.assertEqual(gateway.heard(), dial(2) + PING + CLOSED)


class PingTests(ClockTestCase):
    """Pings against the clock."""

    def test_interval(self) -> None:
        """A ping goes out each interval after the last answer, for a client and a server."""
        for make in (self.client, self.server):
            gateway = make(ping_interval=8, ping_timeout=2)
            if make == self.server:
                gateway.log_in()
            for _ in range(3):
                gateway.clock.advance(7.875)
                self.assertEqual(gateway.heard(), b"")
                gateway.clock.advance(0.125)
                self.assertEqual(gateway.heard(), PING)
                gateway.clock.advance(1.5)
                gateway.say(PING)
                self.assertEqual(gateway.endpoint.round_trip, 1.5)
            self.assertIsNone(gateway.endpoint.ended)

    def test_none(self) -> None:
        """Without an interval nothing is sent unasked; an asked one has 5 s to be answered."""
        gateway = self.client()
        gateway.clock.advance(10000)
        self.assertEqual(gateway.heard(), b"")
        asked = gateway.endpoint.ping()
        self.assertEqual(gateway.heard(), PING)
        gateway.clock.advance(4.5)
        gateway.say(PING)
        self.assertEqual(self.successResultOf(asked), 4.5)
        asked = gateway.endpoint.ping()
        gateway.clock.advance(5)
        self.failureResultOf(asked, PingTimeout)

    def test_timeout(self) -> None:
        """A ping that is not answered ends the endpoint; messages are no answer."""
        gateway = self.client(ping_interval=8, ping_timeout=2)
        conn = self.connected(gateway)
        waiting = conn.receive()
        gateway.clock.advance(8)
        gateway.say(HELLO)
        self.successResultOf(waiting)
        gateway.clock.advance(1.875)
        self.assertIsNone(gateway.endpoint.ended)
        gateway.clock.advance(0.125)
        error = self.assertEnded(gateway, PingTimeout, abort=True)
        self.assertEqual(error.seconds, 2)
        self.assertIs(self.failureResultOf(conn.receive()).value.cause, error)

    def test_callback(self) -> None:
        """The callback is asked with the endpoint: True goes on pinging, False ends it."""
        answers = [True, True, False]
        asked: list[GatewayConnection] = []

        def callback(endpoint: GatewayConnection) -> bool:
            asked.append(endpoint)
            return answers[len(asked) - 1]

        gateway = self.client(ping_interval=8, ping_timeout=2, timeout_callback=callback)
        for times in (1, 2):
            gateway.clock.advance(8)
            self.assertEqual(gateway.heard(), PING)
            gateway.clock.advance(2)
            self.assertEqual(asked, [gateway.endpoint] * times)
            self.assertIsNone(gateway.endpoint.ended)
        gateway.clock.advance(8)
        gateway.clock.advance(2)
        self.assertEqual(len(asked), 3)
        self.assertEnded(gateway, PingTimeout, abort=True)

    def test_callback_closes(self) -> None:
        """A callback may close the endpoint, whatever it returns."""
        for answer in (True, False):

            def callback(endpoint: GatewayConnection, answer: bool = answer) -> bool:
                endpoint.close()
                return answer

            gateway = self.client(ping_interval=8, ping_timeout=2, timeout_callback=callback)
            gateway.clock.advance(8)
            gateway.clock.advance(2)
            self.assertEnded(gateway, EndpointEnded)

    def test_late_answer(self) -> None:
        """A late answer belongs to the ping that it answers."""
        gateway = self.client(ping_interval=8, ping_timeout=2, timeout_callback=lambda _: True)
        gateway.clock.advance(8)
        gateway.clock.advance(2)
        gateway.clock.advance(8)
        self.assertEqual(gateway.heard(), PING * 2)
        gateway.clock.advance(1)
        gateway.say(PING)
        self.assertEqual(gateway.endpoint.round_trip, 11)
        gateway.say(PING)
        self.assertEqual(gateway.endpoint.round_trip, 1)

    def test_unasked(self) -> None:
        """An answer to no ping changes nothing."""
        gateway = self.client(ping_interval=8)
        gateway.say(PING)
        self.assertIsNone(gateway.endpoint.round_trip)
        gateway.clock.advance(8)
        self.assertEqual(gateway.heard(), PING)

    def test_paused(self) -> None:
        """While this end does not read, pings go on and no timeout is raised; later it is."""
        gateway = self.client(
            ping_interval=8,
            ping_timeout=2,
            receive_queue=1,
            overflow=Overflow.PAUSE,
            pause_timeout=60,
        )
        conn = self.connected(gateway)
        gateway.say(HELLO * 2)
        self.assertTrue(gateway.paused)
        for _ in range(3):
            gateway.clock.advance(8)
            self.assertEqual(gateway.heard(), PING)
            gateway.say(PING)
            gateway.clock.advance(2)
            self.assertIsNone(gateway.endpoint.ended)
        for _ in range(2):
            self.successResultOf(conn.receive())
        self.assertFalse(gateway.paused)
        gateway.say(b"")
        self.assertEqual(gateway.endpoint.round_trip, 2)
        gateway.clock.advance(8)
        gateway.clock.advance(2)
        self.assertEnded(gateway, PingTimeout, abort=True)

    def test_just_resumed(self) -> None:
        """The answer may be behind what was not read: reading again gives it time."""
        gateway = self.client(
            ping_interval=8, ping_timeout=2, receive_queue=1, overflow=Overflow.PAUSE
        )
        conn = self.connected(gateway)
        gateway.clock.advance(8)
        gateway.say(HELLO * 2)
        gateway.clock.advance(1.5)
        for _ in range(2):
            self.successResultOf(conn.receive())
        gateway.clock.advance(0.5)
        self.assertIsNone(gateway.endpoint.ended)
        gateway.say(PING)
        self.assertEqual(gateway.endpoint.round_trip, 2)


class PauseTests(ClockTestCase):
    """Overflow.PAUSE, where the kernel cannot blur it."""

    def test_bounds(self) -> None:
        """It pauses past the bound, not at it, and reads again at half of it."""
        for limit in (1, 2, 3, 4):
            gateway = self.client(receive_queue=limit, overflow=Overflow.PAUSE)
            conn = self.connected(gateway)
            gateway.say(HELLO * limit)
            self.assertFalse(gateway.paused)
            gateway.say(HELLO)
            self.assertTrue(gateway.paused)
            left = limit + 1
            while gateway.paused:
                self.successResultOf(conn.receive())
                left -= 1
            self.assertEqual(left, limit // 2)

    def test_two(self) -> None:
        """It reads again only when no connection has too many."""
        gateway = self.client(receive_queue=1, overflow=Overflow.PAUSE)
        gateway.say(CONNECTED + connect(FIRST + 1, 1) + HELLO * 2 + packet(FIRST + 1) * 2)
        one, two = gateway.endpoint.connections
        for _ in range(2):
            self.successResultOf(one.receive())
        self.assertTrue(gateway.paused)
        two.close()
        self.assertFalse(gateway.paused)
        self.assertEqual(gateway.heard(), close(FIRST + 1))

    def test_end_while_paused(self) -> None:
        """An endpoint may end while it is paused; what it had is still received."""
        gateway = self.client(receive_queue=1, overflow=Overflow.PAUSE)
        conn = self.connected(gateway)
        gateway.say(HELLO * 2)
        gateway.endpoint.close()
        self.assertEnded(gateway, EndpointEnded)
        for _ in range(2):
            self.successResultOf(conn.receive())
        self.failureResultOf(conn.receive(), ConnectionEnded)


class NamesTests(ClockTestCase):
    """Names from before 0.2 mean what they meant."""

    def test_classes(self) -> None:
        """The module has the old names; what is none is told."""
        self.assertIs(cast(Any, endpoint_library).Endpoint, GatewayConnection)
        self.assertIs(cast(Any, endpoint_library).EndpointFactory, GatewayFactory)
        for name in endpoint_library.__all__:
            self.assertIsNotNone(getattr(endpoint_library, name))
        raised(AttributeError, getattr, endpoint_library, "Endpoints")

    def test_members(self) -> None:
        """when_closed, when_ready, ready, gateway and conn.endpoint."""
        gateway = self.server()
        endpoint = gateway.endpoint
        self.assertFalse(endpoint.ready)
        ready, over = endpoint.when_ready(), endpoint.when_closed()
        gateway.log_in()
        self.assertTrue(endpoint.ready)
        self.assertIs(self.successResultOf(ready), endpoint)
        self.assertEqual(endpoint.gateway, endpoint.address)
        self.assertEqual(endpoint.address.host, "192.0.2.9")
        conn = self.connected(gateway)
        self.assertIs(conn.endpoint, conn.gateway)
        self.assertIs(conn.gateway, endpoint)
        gone = conn.when_closed()
        gateway.gone()
        self.assertIs(self.successResultOf(over), endpoint.ended)
        self.assertIs(self.successResultOf(gone), conn.ended)
        self.assertTrue(endpoint.up)
        self.assertIn("as server 7, ended", repr(endpoint))


class OwnFormatTests(ClockTestCase):
    """A message format of a connection's own."""

    def test_dialled(self) -> None:
        """`dial` chooses it before anything is received, also for what came in the same read."""
        gateway = self.client(message_format=Text())
        with_own: Deferred[VirtualConnection[Any]] = gateway.endpoint.dial(
            1, message_format=Json()
        )
        without = gateway.endpoint.dial(1)
        gateway.heard()
        gateway.say(ACCEPTED + packet(FIRST, b"[1]") + accept(FIRST + 1, 1))
        gateway.say(packet(FIRST + 1, b"[1]"))
        one, two = self.successResultOf(with_own), self.successResultOf(without)
        self.assertEqual(self.successResultOf(one.receive()), [1])
        self.assertEqual(self.successResultOf(two.receive()), "[1]")
        one.send({"a": 2})
        two.send("b")
        self.assertEqual(gateway.heard(), packet(FIRST, b'{"a":2}') + packet(FIRST + 1, b"b"))
        failed: Deferred[VirtualConnection[Any]] = gateway.endpoint.dial(2, message_format=Json())
        gateway.say(refuse(2))
        self.failureResultOf(failed, DialRefused)

    def test_chosen_later(self) -> None:
        """What waited is decoded in the format that the connection has when it is received."""
        gateway = self.server(message_format=Text())
        gateway.log_in()
        gateway.say(CONNECTED + packet(FIRST, b"[1]") + packet(FIRST, b"[2]"))
        conn = self.successResultOf(gateway.endpoint.accept())
        conn.message_format = Json()
        self.assertEqual(self.successResultOf(conn.receive()), [1])
        conn.message_format = Text()
        self.assertEqual(self.successResultOf(conn.receive()), "[2]")
        waiting = conn.receive()
        conn.message_format = Json()
        gateway.say(packet(FIRST, b"[3]"))
        self.assertEqual(self.successResultOf(waiting), [3])

    def test_cancelled(self) -> None:
        """A dial with a format can be given up like any other."""
        gateway = self.client()
        dialling: Deferred[VirtualConnection[Any]] = gateway.endpoint.dial(
            1, timeout=5, message_format=Json()
        )
        dialling.cancel()
        self.failureResultOf(dialling, CancelledError)
        gateway.heard()
        gateway.say(ACCEPTED)
        self.assertEqual(gateway.heard(), CLOSED)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])


class ConfigTests(ClockTestCase):
    """What cannot be asked for."""

    def test_values(self) -> None:
        """A value that cannot work is refused with the option's name; the bounds are allowed."""
        bad: list[tuple[str, Any]] = [
            ("ping_interval", -1),
            ("ping_interval", 1800.5),
            ("ping_timeout", 0),
            ("ping_timeout", -1),
            ("receive_queue", 0),
            ("accept_queue", 0),
            ("max_packet", 12),
        ]
        for name, value in bad:
            error = raised(ValueError, lambda: EndpointConfig(**{name: value}))  # noqa: B023
            self.assertIn(name, str(error))
        EndpointConfig(ping_interval=1800, receive_queue=1, accept_queue=1, max_packet=13)
        EndpointConfig(ping_interval=0, ping_timeout=0)

    def test_server_id(self) -> None:
        """A server id that is none is refused when the endpoint is made."""
        raised(ValueError, GatewayFactory(server_id=2**32).buildProtocol, None)


@on_both_paths
class SocketTests(SocketTestCase):
    """What takes a real gateway and a kernel."""

    async def test_wrong_key(self) -> None:
        """A wrong key is LoginFailed, not a lost connection."""
        sockets = self.listen()
        try:
            await self.server(sockets, b"guess")
        except LoginFailed as error:
            self.assertIn("key", str(error))
        else:
            self.fail("it logged in")

    async def test_nobody_listens(self) -> None:
        """Without a gateway, connecting fails as the Twisted endpoint does."""
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await port.stopListening()
        for connecting in (connect_client(where), connect_server(where, 1)):
            try:
                await connecting
            except ConnectionRefusedError:
                continue
            self.fail("it connected")

    async def test_cancelled_login(self) -> None:
        """Giving up a login that is under way closes its connection."""
        ends: list[Silent] = []

        class Silent(Protocol):
            over = False

            def connectionMade(self) -> None:
                ends.append(self)

            def connectionLost(self, reason: Any = None) -> None:
                self.over = True

        listening = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await listening.listen(Factory.forProtocol(Silent))
        self.addCleanup(cast(Any, port).stopListening)
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", cast(Any, port).getHost().port)
        connecting = connect_server(where, 1)
        await until("the connection", lambda: ends)
        connecting.cancel()
        try:
            await connecting
        except (CancelledError, EndpointEnded):
            pass
        else:
            self.fail("it logged in")
        await until("the end", lambda: ends[0].over)

    async def test_gateway_stops(self) -> None:
        """When the gateway stops, both ends are told."""
        sockets = self.listen()
        client, server = await self.client(sockets), await self.server(sockets)
        ends = [client.when_ended(), server.when_ended()]
        await sockets.stop()
        for end in ends:
            self.assertIsInstance(await end.addTimeout(2, reactor), EndpointEnded)

    async def test_backpressure(self) -> None:
        """A far end that does not read makes `send` wait, and loses nothing when it reads."""
        sockets = self.listen(server=PortConfig(queue_bytes=256 * 1024))
        far = await sockets.server(FAR)
        endpoint = await self.client(sockets, send_buffer=128 * 1024)
        conn = await endpoint.dial(FAR)
        await far.expect(CONNECTED)
        far.wire.pauseProducing()
        message = bytes(32 * 1024)
        sent, waiting = 0, None
        while waiting is None or waiting.called:
            if waiting is not None:
                await waiting
            waiting = conn.send(message)
            sent += 1
            if sent % 8 == 0 and not endpoint.link.full:
                await until("a turn", lambda: True)
        unsent = [waiting]
        try:
            while True:
                unsent.append(conn.send(message))
                sent += 1
        except SendQueueFull as error:
            self.assertLessEqual(error.waiting, 128 * 1024)
        far.wire.resumeProducing()
        await gatherResults(unsent).addTimeout(5, reactor)
        await far.expect(packet(FIRST, message) * sent)

    async def test_both_ends(self) -> None:
        """50 virtual connections at once, both ends endpoints, 2000 random messages each way."""
        sockets = self.listen(limits=many())
        client, server = await self.client(sockets), await self.server(sockets)
        chance = random.Random(2)
        sent: dict[int, list[bytes]] = defaultdict(list)

        async def echo(conn: VirtualConnection[Any]) -> None:
            async for message in conn:
                await conn.send(message)

        def accepted(conn: VirtualConnection[Any]) -> None:
            echoes.append(ensureDeferred(echo(conn)))

        echoes: list[Deferred[None]] = []
        server.listen(accepted)
        conns = await gatherResults([client.dial(SERVER_ID) for _ in range(25)])
        back = [await server.dial(1) for _ in range(25)]
        for conn in back:
            conn.state = "ours"
        client.listen(None)
        theirs = [await client.accept() for _ in range(25)]
        for conn in theirs:
            accepted(conn)
        ours = conns + back
        self.assertEqual(len({conn.conn_id for conn in ours}), 50)
        for _ in range(2000):
            conn = chance.choice(ours)
            message = chance.randbytes(chance.choice((0, 3, 60, 2000)))
            sent[conn.conn_id].append(message)
            await conn.send(message)
        for conn in ours:
            got = [await conn.receive().addTimeout(2, reactor) for _ in sent[conn.conn_id]]
            self.assertEqual(got, sent[conn.conn_id])
            conn.close()
        await gatherResults(echoes).addTimeout(2, reactor)
        self.assertEqual((client.connections, server.connections), ([], []))

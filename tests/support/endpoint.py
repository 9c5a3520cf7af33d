"""What an endpoint promises, as tests that run wherever it runs: in memory and over sockets, as a
client and as a server, on Twisted and on asyncio.

Rule: a test knows the endpoint, with Deferreds, and its far end, in golden bytes; how either comes
to its next step is its World's business.
"""

from __future__ import annotations

import builtins
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from fastway.address import address_name
from fastway.endpoint import (
    EndpointConfig,
    GatewayConnection,
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
    EndpointEnded,
    MessageTooLarge,
    Reason,
    ReceiveQueueFull,
)
from fastway.gateway.lane import End
from fastway.router import Limits
from fastway.testing import MemoryGateway
from tests.support.errors import raised
from tests.support.golden import FIRST, KEY, accept, close, connect, dial, packet, prove
from tests.support.rows import CLOSED
from tests.support.scripted import FAR, SERVER_ID, ScriptedFar, ScriptedGateway
from tests.support.sockets import Peer, Sockets
from tests.support.waits import SECONDS, reactor, until

Any_ = TypeVar("Any_")


class World:
    """An endpoint that is logged in, and its far end."""

    endpoint: GatewayConnection
    far: ScriptedFar | Peer | MemoryFar
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
        return await waiting.addTimeout(SECONDS, reactor)

    async def settle(self) -> None:
        await self.peer.was_read()
        await self.done(self.endpoint.ping())

    async def eventually(self, what: str, condition: Any) -> None:
        await until(what, condition)

    @property
    def name(self) -> str:
        """What the gateway calls the endpoint."""
        return address_name(cast(Any, self.endpoint.link.transport).transport.getHost())

    async def cut(self) -> None:
        name = self.name
        for link in self.sockets.service.connected:
            if link.facts.name == name:
                link.lane.close(End.CLOSE, Reason.PEER_CLOSED)
        await until("the end", lambda: self.endpoint.ended)


class MemoryFar(Protocol):
    """The far end of a MemoryGateway, that only knows bytes."""

    def __init__(self, gateway: MemoryGateway) -> None:
        self._gateway = gateway
        self.received = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def send(self, data: bytes) -> None:
        cast(Any, self.transport).write(data)

    async def expect(self, data: bytes) -> None:
        """These bytes come next."""
        self._gateway.pump()
        got = bytes(self.received[: len(data)])
        del self.received[: len(data)]
        if got != data:
            raise AssertionError(f"expected {data[:80]!r}, got {got[:80]!r}")


class MemoryWorld(World):
    """Through the real gateway, in memory."""

    def __init__(
        self, endpoint_is_server: bool, config: EndpointConfig, web: bool = False
    ) -> None:
        gateway = self.gateway = MemoryGateway(
            key=KEY, ws=web, client_max_conn=0, client_max_total=0
        )
        gateway.service.router.conn_range.last = FIRST - 1
        self.far = far = MemoryFar(gateway)
        there = gateway.client if endpoint_is_server else gateway.server
        gateway.run(there.connect(Factory.forProtocol(lambda: far)))
        if endpoint_is_server:
            self.me = SERVER_ID
            server = connect_server(gateway.server, SERVER_ID, KEY, config, gateway.clock)
            self.endpoint = gateway.run(server)
        else:
            self.me = 1
            gateway.pump()
            self.far.send(prove(bytes(self.far.received), FAR))
            self.far.received.clear()
            where = gateway.web or gateway.client
            self.endpoint = gateway.run(connect_client(where, config, gateway.clock))

    async def done(self, waiting: Deferred[Any_]) -> Any_:
        self.gateway.pump()
        if not waiting.called:
            raise AssertionError("it does not fire")
        return await waiting

    async def settle(self) -> None:
        self.gateway.pump()

    async def eventually(self, what: str, condition: Any) -> None:
        self.gateway.pump()
        if not condition():
            raise AssertionError(what)

    async def cut(self) -> None:
        name = address_name(cast(Any, self.endpoint.link.transport).transport.getHost())
        for link in self.gateway.service.connected:
            if link.facts.name == name:
                link.lane.close(End.CLOSE, Reason.PEER_CLOSED)
        self.gateway.pump()


if TYPE_CHECKING:
    Body = TestCase
else:
    Body = object


class EndpointBody(Body):
    """What an endpoint promises wherever it runs, and whichever side it is."""

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
            if size == 4:
                await world.eventually("its end", lambda: conn.ended)  # noqa: B023
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
        """50 virtual connections at once with 600 random messages lose and mix up nothing."""
        world = await self.open(receive_queue=600)
        chance = random.Random(1)
        world.far.send(dial(world.me) * 25)
        await world.far.expect(b"".join(accept(FIRST + n, world.me) for n in range(25)))
        conns = [await world.done(world.endpoint.accept()) for _ in range(25)]
        while len(conns) < 50:
            conns.append(await world.dialled())
        there: dict[int, list[bytes]] = defaultdict(list)
        back: dict[int, list[bytes]] = defaultdict(list)
        stream = b""
        for _ in range(300):
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
        self.assertEqual(sum(map(len, there.values())), 300)
        for conn in conns:
            got = [await world.done(conn.receive()) for _ in back[conn.conn_id]]
            self.assertEqual(got, back[conn.conn_id])


def many() -> Limits:
    """No limit on virtual connections."""
    return Limits(client_max_conn=0, client_max_total=0)

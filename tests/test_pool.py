"""Many gateways: a pool on all of them, a client on one, over real sockets."""

from __future__ import annotations

from typing import Any, cast

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, ensureDeferred, fail, maybeDeferred, succeed
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from fastway.endpoint import (
    AnyOf,
    EndpointConfig,
    GatewayClient,
    GatewayConnection,
    GatewayPool,
    VirtualConnection,
)
from fastway.endpoint.keeper import default_backoff
from fastway.errors import (
    ConnectionEnded,
    DialRefused,
    EndpointEnded,
    FastwayError,
    GatewayDown,
    LoginFailed,
)
from fastway.testing import LocalGateway
from tests.support.errors import raised
from tests.support.gateways import GatewayTestCase
from tests.support.golden import KEY
from tests.support.logs import LogLines
from tests.support.waits import later, until


def soon(attempts: int) -> float:
    """A backoff that does not keep a test waiting."""
    return 0.01


async def answer(conn: VirtualConnection[Any]) -> None:
    try:
        async for message in conn:
            await conn.send(message)
    except FastwayError:
        pass


async def echo(pool: GatewayPool) -> None:
    async for conn in pool:
        ensureDeferred(answer(conn))


class PoolTestCase(GatewayTestCase):
    def setUp(self) -> None:
        self.a, self.b = self.gateway(), self.gateway()

    def again(self, gone: LocalGateway) -> LocalGateway:
        """A gateway that was stopped, on its old ports."""
        return self.successResultOf(gone.start())

    def pool(self, *gateways: LocalGateway, key: bytes = KEY, **others: Any) -> GatewayPool:
        """A pool, not started, with server id 1; the gateways are called a and b."""
        names = {self.a: "a", self.b: "b"}
        wanted = {names[one]: one.server for one in gateways}
        pool = GatewayPool(wanted, 1, key, backoff=soon, **others)
        self.addCleanup(lambda: maybeDeferred(pool.stopService) if pool.running else None)
        return pool

    async def deserted(self, sockets: LocalGateway) -> None:
        """Everybody has left that gateway."""
        await until("no link", lambda: not sockets.service.connected)

    async def both(self) -> GatewayPool:
        """A pool that is logged in to both gateways."""
        pool = self.pool(self.a, self.b)
        pool.startService()
        await pool.when_up(2)
        return pool


class GatewayPoolTests(PoolTestCase):
    async def test_accept(self) -> None:
        """Dials over both gateways are accepted, and each connection tells its gateway."""
        pool = await self.both()
        self.assertEqual(pool.gateways, ["a", "b"])
        self.assertEqual(sorted(pool.up), ["a", "b"])
        for name, sockets in (("a", self.a), ("b", self.b), ("a", self.a)):
            conn = await (await self.client(sockets)).dial(1)
            accepted = await pool.accept()
            self.assertEqual(accepted.endpoint.name, name)
            conn.send(b"from " + name.encode())
            self.assertEqual(await accepted.receive(), b"from " + name.encode())

    async def test_accept_first(self) -> None:
        """Who waits first is served first; a cancelled one is passed over; `listen` gets all."""
        pool = await self.both()
        first, gone, second = pool.accept(), pool.accept(), pool.accept()
        gone.addErrback(lambda _: None)
        gone.cancel()
        client = await self.client(self.a)
        ids = [(await client.dial(1)).conn_id for _ in range(3)]
        self.assertEqual([(await first).conn_id, (await second).conn_id], ids[:2])
        await until("the third", lambda: len(pool.up["a"].connections) == 3)
        heard: list[VirtualConnection[Any]] = []
        pool.listen(heard.append)
        self.assertEqual([conn.conn_id for conn in heard], ids[2:])

    async def test_accept_queue(self) -> None:
        """Past `accept_queue` unaccepted connections, over all gateways, further ones close."""
        pool = self.pool(self.a, self.b, config=EndpointConfig(accept_queue=2))
        pool.startService()
        await pool.when_up(2)
        conns = [await (await self.client(one)).dial(1) for one in (self.a, self.b, self.a)]
        await until("the close", lambda: any(conn.ended for conn in conns))
        self.assertEqual(sum(conn.ended is not None for conn in conns), 1)

    async def test_dial(self) -> None:
        """`dial` reaches a client of that gateway; GatewayDown where there is none."""
        pool = await self.both()
        client = await self.client(self.b)
        (client_id,) = self.b.service.router.clients
        dialled = await pool.dial("b", client_id)
        accepted = await client.accept()
        dialled.send(b"hello")
        self.assertEqual(await accepted.receive(), b"hello")
        self.assertEqual((accepted.remote_id, dialled.remote_id), (1, client_id))
        await self.fails(DialRefused, pool.dial("a", client_id, timeout=5))
        error = await self.fails(GatewayDown, pool.dial("c", client_id))
        self.assertEqual(error.name, "c")

    async def test_problems(self) -> None:
        """Why a gateway cannot be had is there until it can be."""
        pool = self.pool(self.a, key=b"wrong")
        pool.startService()
        self.assertEqual(pool.problems, {})
        await pool.when_changed()
        self.assertEqual(
            {name: type(why) for name, why in pool.problems.items()}, {"a": LoginFailed}
        )
        await pool.stopService()
        right = self.pool(self.a)
        await self.a.stop()
        right.startService()
        await right.when_changed()
        self.assertEqual(list(right.problems), ["a"])
        self.again(self.a)
        await right.when_up()
        self.assertEqual(right.problems, {})

    async def test_set_gateways(self) -> None:
        """At run time new names are connected to, missing ones are left, others stay."""
        pool = self.pool(self.a)
        pool.startService()
        (a,) = (await pool.when_up()).values()
        gateways = {"a": self.a.server, "b": self.b.server}
        pool.set_gateways(gateways)
        self.assertIs((await pool.when_up(2))["a"], a)
        del gateways["a"]
        pool.set_gateways(gateways)
        self.assertEqual((pool.gateways, list(pool.up)), (["b"], ["b"]))
        await until("its leaving", lambda: not self.a.service.router.servers)
        self.assertIn(1, self.b.service.router.servers)

    async def test_add_and_remove(self) -> None:
        """add and remove, before the start and after it; a name twice or unknown is an error."""
        pool = self.pool()
        pool.add("a", self.a.server)
        raised(ValueError, pool.add, "a", self.a.server)
        pool.startService()
        await pool.when_up()
        pool.add("b", self.b.server)
        await pool.when_up(2)
        changed = pool.when_changed()
        await pool.remove("a")
        self.assertEqual(list(await changed), ["b"])
        self.assertEqual(pool.gateways, ["b"])
        raised(KeyError, pool.remove, "a")
        await self.fails(GatewayDown, pool.dial("a", 1))
        pool.add("a", self.a.server)
        self.assertEqual(sorted(await pool.when_up(2)), ["a", "b"])

    async def test_restart_under_traffic(self) -> None:
        """A gateway that stops and comes back is used again; nothing comes twice or late."""
        pool = await self.both()
        ensureDeferred(echo(pool))
        conns = [await (await self.client(one)).dial(1) for one in (self.a, self.b)]
        got: list[list[int]] = [[], []]
        ended: list[FastwayError] = []
        stop = False

        async def talk(number: int) -> None:
            conn, count = conns[number], 0
            try:
                while not stop:
                    count += 1
                    await conn.send(b"%d" % count)
                    await conn.send(b"%d" % (count + 1))
                    got[number] += [int(await conn.receive()), int(await conn.receive())]
                    count += 1
                    await later(0)
            except FastwayError as error:
                ended.append(error)

        talks = [ensureDeferred(talk(number)) for number in range(2)]
        await until("traffic", lambda: all(len(one) > 20 for one in got))
        down = pool.when_changed()
        await self.a.stop()
        self.assertEqual(list(await down), ["b"])
        await talks[0]
        self.assertEqual([type(error) for error in ended], [ConnectionEnded])
        await self.fails(GatewayDown, pool.dial("a", 1))
        fresh = self.again(self.a)
        await pool.when_up(2)
        conn = await (await self.client(fresh)).dial(1)
        conn.send(b"hello again")
        self.assertEqual(await conn.receive(), b"hello again")
        seen = len(got[1])
        await until("traffic over b", lambda: len(got[1]) > seen + 20)
        stop = True
        await talks[1]
        for numbers in got:
            self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        self.assertEqual(len(ended), 1)

    async def test_nothing_hangs(self) -> None:
        """Whatever waits when a gateway goes fails, and what waits for the pool goes on."""
        pool = await self.both()
        client = await self.client(self.a)
        dialling = client.dial(1)
        conn, accepted = await dialling, await pool.accept()
        waiting = [
            accepted.receive(),
            conn.receive(),
            client.accept(),
            client.ping(),
            pool.up["a"].ping(),
        ]
        closed = [conn.when_ended(), accepted.when_ended(), client.when_ended()]
        accepting = pool.accept()
        ping = waiting[3:]
        await self.a.stop()
        for one in waiting[:3]:
            await self.fails(FastwayError, one)
        await until("both pings", lambda: all(one.called for one in ping))
        for one in ping:  # answered before the end, or failed by it
            one.addErrback(lambda _: None)
        for reason in closed:
            self.assertIsInstance(await cast(Any, reason), FastwayError)
        self.assertFalse(accepting.called)
        other = await (await self.client(self.b)).dial(1)
        self.assertEqual((await accepting).conn_id, other.conn_id)

    async def test_wrong_key(self) -> None:
        """A login that fails is a warning that names the gateway, and is tried again."""
        pool = self.pool(self.a, key=b"wrong")
        with LogLines() as log:
            pool.startService()
            await until(
                "three warnings",
                lambda: sum("gateway a: " in line for line in log.lines) >= 3,
            )
            cast(Any, self.a.service.ports[1].factory).key = b"wrong"
            await pool.when_up()
        warnings = [event for event in log.events if "gateway a: " in event["log_format"]]
        lines = [line for line in log.lines if line.startswith("gateway a: ")]
        self.assertIn("is the key right", lines[0])
        for event in warnings:
            self.assertEqual(event["log_level"].name, "warn")

    async def test_nobody_there(self) -> None:
        """A gateway that is not there yet is tried until it is."""
        pool = self.pool(self.a)
        await self.a.stop()
        pool.startService()
        for _ in range(5):
            await later(0.01)
        self.assertEqual(pool.up, {})
        self.again(self.a)
        self.assertEqual(list(await pool.when_up()), ["a"])

    async def test_stop(self) -> None:
        """stopService leaves all gateways, fails what waits, and is not the end of the pool."""
        pool = await self.both()
        conn = await (await self.client(self.a)).dial(1)
        accepted = await pool.accept()
        waiting, up = pool.accept(), ensureDeferred(pool.when_up(3))
        with LogLines() as log:
            await pool.stopService()
        self.assertEqual((pool.up, pool.running), ({}, 0))
        self.assertFalse([line for line in log.lines if "Cancelled" in line], log.lines)
        for one in (waiting, up, pool.accept(), accepted.receive(), conn.receive()):
            await self.fails(FastwayError, cast(Any, one))
        async for _ in pool:
            raise AssertionError("a stopped pool accepts nothing")
        await until("their leaving", lambda: not self.a.service.router.servers)
        pool.startService()
        await pool.when_up(2)
        await (await self.client(self.b)).dial(1)
        self.assertEqual((await pool.accept()).endpoint.name, "b")

    async def test_stop_amid_login(self) -> None:
        """A pool that is stopped while it connects or logs in leaves nothing and warns of
        nothing."""
        for turns in range(6):
            pool = self.pool(self.a, self.b)
            with LogLines() as log:
                pool.startService()
                for _ in range(turns):
                    await later(0)
                await pool.stopService()
            self.assertEqual(pool.up, {})
            warnings = [line for line in log.lines if "gateway a: " in line or "Traceback" in line]
            self.assertEqual(warnings, [])
        for sockets in (self.a, self.b):
            await self.deserted(sockets)


class Answering:
    """A client endpoint that answers as it is told, and keeps count."""

    def __init__(self, works: bool = True) -> None:
        self.works = works
        self.calls = 0


@implementer(IStreamClientEndpoint)
class Choice(Answering):
    def connect(self, protocolFactory: Any) -> Any:
        self.calls += 1
        if not self.works:
            return fail(ConnectError(string=f"choice {self.calls}"))
        return succeed(protocolFactory)


class AnyOfTests(SynchronousTestCase):
    def test_random(self) -> None:
        """Each connect begins at a random one, so that many clients spread."""
        choices = [Choice() for _ in range(3)]
        any_of = AnyOf(choices)
        verifyObject(IStreamClientEndpoint, any_of)
        for _ in range(300):
            self.successResultOf(any_of.connect(cast(Any, Protocol)))
        self.assertEqual(sum(one.calls for one in choices), 300)
        self.assertGreater(min(one.calls for one in choices), 40)

    def test_failover(self) -> None:
        """One that fails, or raises, is passed over; each is tried once at most."""

        @implementer(IStreamClientEndpoint)
        class Raising(Choice):
            def connect(self, protocolFactory: Any) -> Any:
                self.calls += 1
                raise ZeroDivisionError

        choices = [Choice(False), Choice(True), Choice(False), Raising()]
        any_of = AnyOf(choices)
        for _ in range(50):
            before = [one.calls for one in choices]
            self.successResultOf(any_of.connect(cast(Any, Protocol)))
            self.assertEqual(choices[1].calls, before[1] + 1)
            for one, calls in zip(choices, before, strict=True):
                self.assertLessEqual(one.calls, calls + 1)
        self.assertTrue(all(one.calls for one in choices))

    def test_all_fail(self) -> None:
        """When all fail, so does it, as the last did; an empty list is GatewayDown."""
        choices = [Choice(False) for _ in range(3)]
        self.failureResultOf(AnyOf(choices).connect(cast(Any, Protocol)), ConnectError)
        self.assertEqual([one.calls for one in choices], [1, 1, 1])
        self.failureResultOf(AnyOf([]).connect(cast(Any, Protocol)), GatewayDown)

    def test_backoff(self) -> None:
        """The default backoff grows from half a second to 15, by chance up to twice as long."""
        delays = [default_backoff()(attempts) for attempts in range(100)]
        self.assertTrue(0.5 <= delays[0] <= 1, delays[0])
        self.assertTrue(all(15 <= delay <= 30 for delay in delays[20:]), delays[20:])
        self.assertGreater(len({default_backoff()(0) for _ in range(20)}), 1)


class GatewayClientTests(PoolTestCase):
    async def test_failover(self) -> None:
        """When its gateway stops the client is soon on the other one, and dials work anew."""
        pool = await self.both()
        ensureDeferred(echo(pool))
        gateways = {one.client: one for one in (self.a, self.b)}
        client = GatewayClient(gateways, backoff=soon)
        client.startService()
        self.addCleanup(client.stopService)
        conn = await client.dial(1)
        conn.send(b"one")
        self.assertEqual(await conn.receive(), b"one")
        here, there = self.a, self.b
        if self.b.service.router.clients:
            here, there = there, here
        first = await client.when_up()
        await here.stop()
        await self.fails(ConnectionEnded, conn.receive())
        self.assertIsInstance(await first.when_ended(), EndpointEnded)
        await until("the other gateway", lambda: there.service.router.clients)
        second = await client.when_up()
        self.assertIsNot(second, first)
        conn = await client.dial(1, timeout=5)
        conn.send(b"two")
        self.assertEqual(await conn.receive(), b"two")

    async def test_waits(self) -> None:
        """A dial before there is a gateway waits for one; `attempts` sets an end to it."""
        await self.a.stop()
        client = GatewayClient([self.a.client], backoff=soon)
        client.startService()
        self.addCleanup(client.stopService)
        await self.fails(GatewayDown, client.when_up(2))
        dialling = client.dial(9)
        self.again(self.a)
        await self.fails(DialRefused, dialling)

    async def test_stop(self) -> None:
        """stopService fires when the connection is gone; it may be started again."""
        client = GatewayClient([self.a.client], backoff=soon)
        client.startService()
        endpoint = await client.when_up()
        await client.stopService()
        self.assertIsInstance(endpoint.ended, EndpointEnded)
        await until("its leaving", lambda: not self.a.service.router.clients)
        client.startService()
        self.assertIsInstance(await client.when_up(), GatewayConnection)
        await client.stopService()


class ServiceTests(PoolTestCase):
    async def test_children(self) -> None:
        """Both are services: they start and stop with the MultiService that they belong to."""
        parent = MultiService()
        pool = self.pool(self.a, self.b)
        client = GatewayClient([self.a.client], backoff=soon)
        for service in (pool, client):
            verifyObject(IService, service)
            service.setServiceParent(parent)
        for _ in range(2):
            parent.startService()
            await pool.when_up(2)
            conn = await client.dial(1)
            (await pool.accept()).send(b"hello")
            self.assertEqual(await conn.receive(), b"hello")
            stopping: Deferred[Any] = maybeDeferred(parent.stopService)
            await stopping
            self.assertEqual(pool.up, {})
            for sockets in (self.a, self.b):
                await self.deserted(sockets)

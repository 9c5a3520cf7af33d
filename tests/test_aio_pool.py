"""The pool and the client that fails over on asyncio, in memory: attempts come when the test says
so, and time passes when it turns it.

Rule: what was stopped has left no task, no timer and no connection when `stop` returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from fastway.aio import (
    EndpointConfig,
    Gateway,
    GatewayClient,
    GatewayConnection,
    GatewayPool,
    connect_client,
    connect_server,
)
from fastway.errors import (
    DialTimeout,
    EndpointEnded,
    GatewayDown,
    GatewayUnreachable,
    LocalError,
)
from tests.support.aio import FakeTransport, Turns
from tests.support.aio_cases import AioCase
from tests.support.errors import raised
from tests.support.golden import FIRST, KEY, PING, accept, connect, dial
from tests.support.scripted import CHALLENGE

QUIET = EndpointConfig(ping_interval=0)


class ByHand:
    """A gateway whose connections come when the test says so.

    Attributes:
        attempts: Those that are under way.
        tried: How many there were.
        pipes: Connections that came about, the newest last.
    """

    snet = None

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.attempts: list[asyncio.Future[None]] = []
        self.tried = 0
        self.pipes: list[FakeTransport] = []
        self.wires: list[Any] = []

    def __eq__(self, other: object) -> bool:
        return self is other

    async def open(self, factory: Callable[[], Any]) -> Any:
        self.tried += 1
        attempt: asyncio.Future[None] = self._turns.loop.create_future()
        self.attempts.append(attempt)
        try:
            await attempt
        except asyncio.CancelledError:
            for _ in range(10):  # giving up takes its time
                await asyncio.sleep(0)
            raise
        finally:
            self.attempts.remove(attempt)
        wire = factory()
        pipe = FakeTransport(self._turns, wire)
        self.pipes.append(pipe)
        self.wires.append(wire)
        wire.connection_made(pipe)
        return wire

    def reach(self, log_in: bool = False) -> None:
        """The attempt that is under way gets through."""
        self.attempts[0].set_result(None)
        self._turns.turn()
        if log_in:
            self.wires[-1].data_received(CHALLENGE)
            self.wires[-1].data_received(PING)
            self._turns.turn()
            self.pipes[-1].clear()

    def refuse(self) -> None:
        """It does not."""
        error = GatewayUnreachable("by hand", "nobody listens", ConnectionRefusedError())
        self.attempts[0].set_exception(error)
        self._turns.turn()

    @property
    def online(self) -> int:
        """Connections that nobody has closed."""
        return sum(not pipe.lost for pipe in self.pipes)


class KeptCase(AioCase):
    """A test case whose attempts are by hand."""

    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = ByHand(self.turns), ByHand(self.turns)

    def made(self, make: Callable[[], Any]) -> Any:
        """Made within the loop."""

        async def within() -> Any:
            return make()

        return self.turns.task(within()).result()

    def stopped(self, kept: Any) -> None:
        """It can be stopped, which leaves nothing at all."""
        self.turns.loop.run_until_complete(kept.stop())
        self.assertEqual(asyncio.all_tasks(self.turns.loop), set())
        self.assertEqual(self.one.online + self.two.online, 0)
        self.assertEqual(self.one.attempts + self.two.attempts, [])
        tried = self.one.tried, self.two.tried
        self.turns.advance(1000)
        self.assertEqual((self.one.tried, self.two.tried), tried)


class KindTests(KeptCase):
    def test_kinds(self) -> None:
        """What is of another kind is refused where it is given, by an error that says so."""
        where: Any = ("127.0.0.1", 9010)
        text: Any = "127.0.0.1:9010"
        calls: list[tuple[str, Callable[[], object]]] = [
            ("a gateway is a Gateway or its text", lambda: GatewayPool({"a": where}, 1)),
            ("a gateway is a Gateway or its text", lambda: GatewayClient([where])),
            ("gateways is a dict of names", lambda: GatewayPool(cast(Any, [text]), 1)),
            ("gateways is a list of them", lambda: GatewayClient(text)),
            ("the key is bytes or text", lambda: GatewayPool({}, 1, cast(Any, None))),
            ("a server id is a whole number", lambda: GatewayPool({}, cast(Any, "1"))),
        ]
        for words, call in calls:
            self.assertIn(words, str(self.made(lambda: raised(TypeError, call))))  # noqa: B023

    def test_connect(self) -> None:
        """So it is where one is connected to."""
        calls: list[tuple[str, Any]] = [
            ("a gateway is a Gateway or its text", connect_client(cast(Any, ("a", 1)))),
            ("the key is bytes or text", connect_server("a:1", 1, cast(Any, None))),
            ("a server id is a whole number", connect_server("a:1", cast(Any, "1"))),
        ]
        for words, connecting in calls:

            async def connect(connecting: Any = connecting) -> None:
                await connecting

            task = self.turns.task(connect())
            self.assertIn(words, str(raised(TypeError, task.result)))


class PoolTests(KeptCase):
    def pool(self, **gateways: Any) -> GatewayPool:
        pool: GatewayPool = self.made(
            lambda: GatewayPool(gateways, 7, KEY, QUIET, lambda failures: failures + 1.0)
        )

        def start() -> None:
            pool.start()
            pool.start()  # a second time changes nothing

        self.made(start)
        self.turns.turn()
        return pool

    def test_up(self) -> None:
        """Each comes up by itself; who dials over any of them is accepted, and tells where."""
        pool = self.pool(east=self.one, west=self.two)
        waiting = self.turns.task(pool.when_up(2))
        self.one.reach(log_in=True)
        self.assertEqual(list(pool.up), ["east"])
        self.assertFalse(waiting.done())
        self.two.reach(log_in=True)
        self.assertEqual(list(waiting.result()), ["east", "west"])
        accepting = self.turns.task(pool.accept())
        self.two.wires[0].data_received(connect(FIRST, 1))
        self.turns.turn()
        self.assertEqual(accepting.result().gateway.name, "west")
        dialling = self.turns.task(pool.dial("east", 3))
        self.assertEqual(self.one.pipes[0].value(), dial(3))
        self.one.wires[0].data_received(accept(FIRST, 3))
        self.turns.turn()
        self.assertEqual(dialling.result().remote_id, 3)
        self.stopped(pool)

    def test_comes_back(self) -> None:
        """It comes back to what it lost and to what it could not reach, by its back-off."""
        pool = self.pool(east=self.one)
        with self.assertLogs("fastway", "WARNING"):
            self.one.refuse()
        self.assertIsInstance(pool.problems["east"], GatewayUnreachable)
        self.turns.advance(1.9)
        self.assertEqual(self.one.tried, 1)
        self.turns.advance(0.2)
        self.assertEqual(self.one.tried, 2)
        self.one.reach(log_in=True)
        self.assertEqual(pool.problems, {})
        self.turns.advance(20)
        changing = self.turns.task(pool.when_changed())
        self.one.pipes[0].gone(None)
        self.turns.turn()
        self.assertEqual(changing.result(), {})
        self.turns.advance(1.1)
        self.assertEqual(self.one.tried, 3)
        down = self.turns.task(pool.dial("east", 3))
        self.assertIsInstance(down.exception(), GatewayDown)
        self.stopped(pool)

    def test_stop_during_an_attempt(self) -> None:
        """Stopped at any point of an attempt, it leaves nothing: before its first turn, while it
        connects, while it logs in, in the turn in which it came up, and while it waits."""
        for point in range(8):
            self.one = ByHand(self.turns)
            pool: GatewayPool = self.made(
                lambda: GatewayPool(
                    cast(Any, {"a": self.one}), 7, KEY, QUIET, lambda failures: 5.0
                )
            )
            self.made(pool.start)
            if point == 0:
                self.stopped(pool)
                continue
            self.turns.turn()
            if point == 2:
                self.one.attempts[0].set_result(None)
            elif point == 3:
                self.one.reach()
            elif point == 4:
                self.one.reach()
                self.one.wires[0].data_received(CHALLENGE)
                self.one.wires[0].data_received(PING)
            elif point == 5:
                self.one.reach()
                self.one.wires[0].data_received(CHALLENGE + PING)
                self.turns.turn(1)
            elif point == 6:
                self.one.refuse()
            elif point == 7:
                self.one.reach()
                self.one.wires[0].data_received(CHALLENGE)
                self.one.pipes[0].gone(None)
            self.stopped(pool)
            self.assertEqual(pool.up, {}, point)

    def test_list(self) -> None:
        """The list may change: what is left is left, what is new is connected to, others stay."""
        pool = self.pool(east=self.one)
        self.one.reach(log_in=True)
        third = ByHand(self.turns)
        self.made(lambda: pool.set_gateways({"east": self.one, "west": self.two}))  # type: ignore[dict-item]
        self.assertEqual((self.one.online, len(self.two.attempts)), (1, 1))
        self.made(lambda: pool.set_gateways({"east": third, "west": self.two}))  # type: ignore[dict-item]
        self.turns.turn()
        self.assertEqual((self.one.online, len(third.attempts)), (0, 1))

        async def remove() -> None:
            await pool.remove("west")

        self.turns.loop.run_until_complete(remove())
        self.assertEqual(self.two.attempts, [])
        self.assertEqual(pool.gateways, ["east"])
        self.stopped(pool)
        self.assertEqual(third.attempts, [])

    def test_stopped(self) -> None:
        """What waits for a pool that is stopped is told; it can be started again."""
        pool = self.pool(east=self.one)
        waiting = [
            self.turns.task(one()) for one in (pool.accept, pool.when_up, pool.when_changed)
        ]
        self.stopped(pool)
        for task in waiting:
            self.assertIsInstance(task.exception(), EndpointEnded)
        self.made(pool.start)
        self.turns.turn()
        self.one.reach(log_in=True)
        self.assertEqual(list(pool.up), ["east"])
        self.stopped(pool)

    def test_not_started(self) -> None:
        """What needs a pool that runs says so instead of waiting."""
        pool = self.made(lambda: GatewayPool({}, 7, KEY, QUIET))
        for one in (pool.accept, pool.when_up, pool.when_changed):
            self.assertIsInstance(self.turns.task(one()).exception(), LocalError)

    def test_with(self) -> None:
        """`async with` starts and stops it, also when its body raises; handlers are waited for."""
        over: list[str] = []

        async def handler(conn: Any) -> None:
            async for _ in conn:
                pass
            await asyncio.sleep(1)
            over.append("handler")

        async def main() -> None:
            async with GatewayPool({"a": self.one}, 7, KEY, QUIET) as pool:  # type: ignore[dict-item]
                pool.serve(handler)
                await pool.when_up()
                await asyncio.sleep(1)
                raise KeyError("a fault")

        task = self.turns.task(main())
        self.one.reach(log_in=True)
        self.one.wires[0].data_received(connect(FIRST, 1))
        self.turns.advance(1)
        self.assertFalse(task.done())
        self.turns.advance(1)
        self.assertIsInstance(task.exception(), KeyError)
        self.assertEqual((over, self.one.online), (["handler"], 0))

    def test_cancelled_program(self) -> None:
        """Cancelling every task, as asyncio.run does at its end, leaves nothing online."""
        pool = self.pool(east=self.one, west=self.two)
        self.one.reach(log_in=True)
        self.two.attempts[0].set_result(None)
        for task in asyncio.all_tasks(self.turns.loop):
            task.cancel()
        self.turns.turn()
        self.assertEqual((self.one.online, self.two.online), (0, 0))
        del pool


class ClientTests(KeptCase):
    def client(self, *gateways: Any, start: bool = True) -> GatewayClient:
        client: GatewayClient = self.made(
            lambda: GatewayClient(gateways, QUIET, lambda failures: failures + 1.0)
        )
        if start:
            self.made(client.start)
            self.made(client.start)  # a second time changes nothing
            self.turns.turn()
        return client

    def test_fails_over(self) -> None:
        """A gateway that cannot be reached is passed over; when one goes it takes another."""
        client = self.client(self.one, self.two)
        waiting = self.turns.task(client.when_up())
        first, second = (self.one, self.two) if self.one.attempts else (self.two, self.one)
        first.refuse()
        second.reach()
        gateway = waiting.result()
        self.assertIs(client.gateway, gateway)
        dialling = self.turns.task(client.dial(1))
        second.wires[0].data_received(accept(FIRST, 1))
        self.turns.turn()
        conn = dialling.result()
        second.pipes[0].gone(None)
        self.turns.turn()
        self.assertIsNotNone(conn.ended)
        self.assertIsNone(client.gateway)
        self.turns.advance(3)
        (again,) = [one for one in (first, second) if one.attempts]
        again.reach()
        self.assertIsInstance(client.gateway, GatewayConnection)
        self.stopped(client)

    def test_attempts(self) -> None:
        """`when_up` gives up after so many attempts over the whole list, or never."""
        client = self.client(self.one)
        patient, hasty = (self.turns.task(client.when_up(count)) for count in (None, 2))
        for _ in range(2):
            self.one.refuse()
            self.turns.advance(5)
        self.assertIsInstance(hasty.exception(), GatewayDown)
        self.one.reach()
        self.assertIs(patient.result(), client.gateway)
        self.stopped(client)

    def test_dial_in_time(self) -> None:
        """A dial's time is for the connection and the answer together."""
        client = self.client(self.one)
        late = self.turns.task(client.dial(1, 2))
        self.turns.advance(2)
        error = late.exception()
        assert isinstance(error, DialTimeout)
        self.assertEqual((error.remote_id, error.seconds), (1, 2))
        late = self.turns.task(client.dial(1, 4))
        self.turns.advance(3)
        self.one.reach()
        self.turns.advance(0.9)
        self.assertFalse(late.done())
        self.turns.advance(0.1)
        error = late.exception()
        assert isinstance(error, DialTimeout)
        self.assertEqual(error.seconds, 4)
        waiting = self.turns.task(client.dial(1, 4))
        self.one.wires[0].data_received(accept(FIRST, 1) + accept(FIRST + 1, 1))
        waiting.cancel()
        self.turns.turn()
        self.assertEqual(client.gateway and client.gateway.connections, [])
        self.stopped(client)

    def test_stopped(self) -> None:
        """Not started, and stopped, it says so; stopped during an attempt it leaves nothing."""
        client = self.client(self.one, start=False)
        for task in (self.turns.task(client.when_up()), self.turns.task(client.dial(1, 5))):
            self.assertIsInstance(task.exception(), LocalError)
        self.made(client.start)
        waiting = [self.turns.task(client.when_up()), self.turns.task(client.dial(1))]
        self.stopped(client)
        for one in waiting:
            self.assertIsInstance(one.exception(), EndpointEnded)
        for same_turn in (False, True):
            self.made(client.start)
            self.turns.turn()
            self.one.attempts[0].set_result(None)
            if not same_turn:
                self.turns.turn(1)
            self.stopped(client)
            self.assertIsNone(client.gateway)

    def test_stopped_and_started_at_once(self) -> None:
        """A stop waits for the run that was stopped, not for the one after it."""
        client = self.client(self.one, start=False)
        self.made(client.start)
        self.turns.turn()
        self.one.reach()

        async def again() -> asyncio.Task[None]:
            stopping = asyncio.create_task(client.stop())
            await asyncio.sleep(0)
            client.start()
            return stopping

        stopping = self.turns.task(again()).result()
        self.turns.turn()
        self.assertTrue(stopping.done())
        self.one.reach()
        self.assertIsNotNone(client.gateway)
        self.stopped(client)

    def test_no_gateways(self) -> None:
        """With nothing on its list it waits for a list."""
        client = self.client()
        waiting = self.turns.task(client.when_up(1))
        self.assertIsInstance(
            waiting.exception() if waiting.done() else GatewayDown("any"), GatewayDown
        )
        client.gateways = [self.one]  # type: ignore[list-item]
        self.turns.advance(3)
        self.one.reach()
        self.assertIsNotNone(client.gateway)
        self.stopped(client)

    def test_text(self) -> None:
        """A gateway that is no text of one is refused where it is given."""

        def wrong() -> None:
            for make in (
                lambda: GatewayClient(["nowhere"]),
                lambda: GatewayPool({"a": "nowhere"}, 1),
            ):
                try:
                    make()
                except ValueError:
                    continue
                self.fail("it was taken")

        self.made(wrong)
        self.assertEqual(Gateway.parse("a:1").host, "a")

"""Many gateways on a Clock: when they are reached again, and what is left when one stops.

Rule: gateways are in memory and speak golden bytes; time passes when a test turns the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from fastway.endpoint import (
    AnyOf,
    EndpointConfig,
    GatewayClient,
    GatewayConnection,
    GatewayPool,
    VirtualConnection,
)
from fastway.errors import DialTimeout, EndpointEnded, FastwayError, GatewayDown, LocalError
from fastway.reconnect import STEADY, growing
from tests.support.ends import LinkTransport
from tests.support.errors import raised
from tests.support.golden import FIRST, KEY, PING, accept, close, connect, packet
from tests.support.logs import LogLines
from tests.support.scripted import CHALLENGE

Conn = VirtualConnection[Any]


@implementer(IStreamClientEndpoint)
class Memory:
    """A gateway's port in memory.

    Args:
        does: What becomes of an attempt: up, fail, hang (until it is cancelled), ghost (connects
            when told, cancelled or not), away (connects, and is gone at once).

    Attributes:
        attempts: When each was made.
        wires: What was connected.
        cancelled: Attempts that were given up.
    """

    def __init__(self, clock: Clock, does: str = "up", server: bool = True) -> None:
        self.clock = clock
        self.does = does
        self.server = server
        self.attempts: list[float] = []
        self.wires: list[Any] = []
        self.cancelled = 0
        self.ghosts: list[Callable[[], None]] = []

    def connect(self, factory: Any) -> Any:
        self.attempts.append(self.clock.seconds())
        if self.does == "fail":
            return fail(ConnectError())
        if self.does == "hang":
            return Deferred(self._cancel)
        if self.does == "ghost":
            late: Deferred[Any] = Deferred(self._cancel)

            def come() -> None:
                wire = self._up(factory)
                if not late.called:
                    late.callback(wire)

            self.ghosts.append(come)
            return late
        wire = self._up(factory)
        if self.does == "away":
            self.clock.callLater(0, self.gone, wire)
        return succeed(wire)

    def _cancel(self, _: Any) -> None:
        self.cancelled += 1

    def _up(self, factory: Any) -> Any:
        wire = factory.buildProtocol(None)
        self.wires.append(wire)
        wire.makeConnection(cast(Any, LinkTransport()))
        if self.server and wire.transport.connected:
            wire.dataReceived(CHALLENGE)
            wire.dataReceived(PING)
        return wire

    def gone(self, wire: Any = None) -> None:
        """The gateway ends a connection, the last one if not told which."""
        wire = self.wires[-1] if wire is None else wire
        if wire.transport.connected:
            wire.transport.connected = False
            wire.connectionLost(Failure(ConnectionDone()))

    def say(self, data: bytes) -> None:
        self.wires[-1].dataReceived(data)


def cancelling(*others: Deferred[Any]) -> Any:
    """A callback that cancels them all."""

    def cancel(_: Any) -> None:
        for other in others:
            other.cancel()

    return cancel


class PoolClockCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = LogLines()
        self.log.__enter__()
        self.addCleanup(self.log.__exit__)
        self.a, self.b = Memory(self.clock), Memory(self.clock)

    def pool(self, gateways: dict[str, Any] | None = None, **config: Any) -> GatewayPool:
        config.setdefault("ping_interval", 0)
        return GatewayPool(
            {"a": self.a, "b": self.b} if gateways is None else gateways,
            7,
            KEY,
            EndpointConfig(**config),
            cast(Any, self.clock),
            growing(1, 60, 2, lambda: 0.0),
        )

    def gaps(self, memory: Memory) -> list[float]:
        return [
            after - before
            for before, after in zip(memory.attempts, memory.attempts[1:], strict=False)
        ]

    def turn(self, seconds: float, step: float = 0.5) -> None:
        self.clock.advance(0)
        for _ in range(int(seconds / step)):
            self.clock.advance(step)
            self.clock.advance(0)  # what was to be at once

    def leave(self, pool: GatewayPool | GatewayClient) -> None:
        """Stop it: every connection and every timer goes."""
        stopping = pool.stopService()
        for memory in (self.a, self.b):
            for wire in memory.wires:
                memory.gone(wire)
        self.clock.advance(0)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BackoffTests(PoolClockCase):
    def test_turned_away(self) -> None:
        """A gateway that takes everybody in and turns them away is tried ever more rarely."""
        for does in ("away", "fail"):
            memory = self.a = Memory(self.clock, does)
            pool = self.pool({"a": memory})
            pool.startService()
            self.turn(200)
            gaps = self.gaps(memory)
            self.assertEqual(gaps[:6], [1, 2, 4, 8, 16, 30], does)
            self.assertEqual(set(gaps[6:]), {30})
            self.leave(pool)

    def test_steady(self) -> None:
        """After a connection that lasted, it starts anew with the shortest wait."""
        memory = self.a = Memory(self.clock, "away")
        pool = self.pool({"a": memory})
        pool.startService()
        self.turn(31)
        memory.does = "up"
        self.turn(30)
        self.assertEqual(list(pool.up), ["a"])
        self.turn(STEADY)
        before = self.clock.seconds()
        memory.gone()
        self.assertEqual(pool.up, {})
        self.turn(2)
        self.assertEqual(memory.attempts[-1] - before, 1)
        self.leave(pool)

    def test_client(self) -> None:
        """A client's backoff counts over its whole list."""
        memory = [Memory(self.clock, "away", False), Memory(self.clock, "fail", False)]
        client = GatewayClient(
            memory, clock=cast(Any, self.clock), backoff=growing(1, 60, 2, lambda: 0.0)
        )
        client.startService()
        self.turn(100)
        self.assertLess(len(memory[0].attempts), 10)
        self.leave(client)

    def test_fails(self) -> None:
        """A backoff that raises, or gives no seconds, is logged, and the gateway tried again after
        the longest delay: what an application's function does wrong must not end a server."""
        for backoff, kind in ((lambda _: -1.0, ValueError), (lambda _: 1 / 0, ZeroDivisionError)):
            memory = Memory(self.clock, "fail")
            pool = GatewayPool({"a": memory}, 7, KEY, None, cast(Any, self.clock), backoff)
            pool.startService()
            self.turn(29.5)
            self.assertEqual(len(memory.attempts), 1)
            self.turn(0.5)
            self.assertEqual(len(memory.attempts), 2)
            self.assertEqual(len(self.flushLoggedErrors(kind)), 2)
            self.leave(pool)


class GhostTests(PoolClockCase):
    """Attempts that are given up leave nobody online."""

    def test_any_of(self) -> None:
        """Cancelling cancels the attempt that is under way, and tries no other."""
        choices = [Memory(self.clock, "hang") for _ in range(3)]
        attempt = AnyOf(choices).connect(cast(Any, Factory.forProtocol(Protocol)))
        attempt.cancel()
        self.failureResultOf(attempt, CancelledError)
        self.assertEqual(sum(one.cancelled for one in choices), 1)
        self.assertEqual(sum(len(one.attempts) for one in choices), 1)

    def test_any_of_later(self) -> None:
        """So it does when the first has failed already."""
        for _ in range(20):
            self.a, self.b = Memory(self.clock, "fail"), Memory(self.clock, "hang")
            attempt = AnyOf([self.a, self.b]).connect(cast(Any, Factory.forProtocol(Protocol)))
            attempt.cancel()
            attempt.addErrback(lambda _: None)
            self.assertEqual(self.b.cancelled, 1)

    def test_stop_amid(self) -> None:
        """Whoever connects although it was given up is cut off at once."""
        for does in ("hang", "ghost"):
            for kind in ("client", "pool"):
                memory = Memory(self.clock, does, kind == "pool")
                service: Any = (
                    GatewayClient([memory], clock=cast(Any, self.clock))
                    if kind == "client"
                    else self.pool({"a": memory})
                )
                service.startService()
                stopping = service.stopService()
                self.clock.advance(0)
                self.successResultOf(stopping)
                self.assertEqual(memory.cancelled, 1)
                for come in memory.ghosts:
                    come()
                for wire in memory.wires:
                    self.assertTrue(wire.transport.aborted, (does, kind))
                self.turn(100)
                self.assertEqual(len(memory.attempts), 1)
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_and_start(self) -> None:
        """A ghost of the run before does not take the place of the one after."""
        memory = Memory(self.clock, "ghost", False)
        client = GatewayClient([memory], clock=cast(Any, self.clock))
        client.startService()
        client.stopService()
        client.startService()
        first, second = memory.ghosts
        second()
        up = self.successResultOf(client.when_up())
        first()
        self.assertIs(client.gateway, up)
        self.assertIs(up, memory.wires[0].gateway)
        self.assertTrue(memory.wires[1].transport.aborted)
        self.assertIsNone(up.ended)
        stopping = client.stopService()
        self.assertNoResult(stopping)
        memory.gone(memory.wires[0])
        self.successResultOf(stopping)

    def test_started_twice(self) -> None:
        """A second start changes nothing: there is one connection."""
        memory = Memory(self.clock, "up", False)
        client = GatewayClient([memory], clock=cast(Any, self.clock))
        client.startService()
        client.startService()
        self.assertEqual(len(memory.wires), 1)
        stopping = client.stopService()
        memory.gone()
        self.successResultOf(stopping)


class PoolTests(PoolClockCase):
    def test_not_started(self) -> None:
        """What needs a pool that runs says so instead of waiting."""
        pool = self.pool()
        self.failureResultOf(pool.accept(), LocalError)
        self.failureResultOf(pool.dial("a", 1), GatewayDown)
        self.failureResultOf(pool.when_changed(), LocalError)
        self.failureResultOf(ensureDeferred(pool.when_up()), LocalError)
        client = GatewayClient([self.a], clock=cast(Any, self.clock))
        self.failureResultOf(client.dial(1), LocalError)
        self.failureResultOf(client.when_up(), LocalError)
        pool.startService()
        waiting = pool.accept()
        self.leave(pool)
        self.failureResultOf(waiting, EndpointEnded)
        self.failureResultOf(pool.accept(), EndpointEnded)
        self.failureResultOf(pool.when_changed(), EndpointEnded)

    def test_changed_address(self) -> None:
        """A name that stands for another address is left and connected to anew; one that stands
        for the same, however often it is made, stays."""

        class Address:
            def __init__(self, memory: Memory, host: str) -> None:
                self.memory = memory
                self.host = host

            def connect(self, factory: Any) -> Any:
                return self.memory.connect(factory)

        pool = self.pool({"a": Address(self.a, "one")})
        pool.startService()
        before = pool.up["a"]
        pool.set_gateways({"a": Address(self.a, "one")})
        self.assertIs(pool.up["a"], before)
        pool.set_gateways({"a": Address(self.b, "two")})
        self.assertIsNotNone(before.ended)
        self.assertIsNot(pool.up["a"], before)
        self.assertEqual((len(self.a.attempts), len(self.b.attempts)), (1, 1))
        self.leave(pool)

    def test_serve(self) -> None:
        """One handler over all gateways; a gateway that goes ends its own; stopping waits for
        those that run."""
        served: list[str] = []
        gate: Deferred[None] = Deferred()

        async def handler(conn: Conn) -> None:
            async for message in conn:
                await conn.send(message)
            served.append(conn.gateway.name)
            if conn.gateway.name == "b":
                await gate

        pool = self.pool()
        serving = pool.serve(handler)
        pool.startService()
        for memory in (self.a, self.b):
            memory.say(connect(FIRST, 1) + packet(FIRST, b"x"))
        self.assertEqual(serving.running, 2)
        self.a.gone()
        self.assertEqual((served, serving.running), (["a"], 1))
        self.turn(2)
        self.a.say(connect(FIRST, 1))
        self.assertEqual(serving.running, 2)
        stopping = pool.stopService()
        for memory in (self.a, self.b):
            memory.gone()
        self.assertEqual(sorted(served), ["a", "a", "b"])
        self.assertNoResult(stopping)
        gate.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        pool.startService()
        self.a.say(connect(FIRST, 1))
        self.assertEqual(serving.running, 1)
        self.leave(pool)

    def test_serve_stopped_and_started(self) -> None:
        """A pool that starts again after serving was stopped accepts again."""
        pool = self.pool()
        serving = pool.serve(print)
        pool.startService()
        serving.stop()
        self.a.say(connect(FIRST, 1))
        self.assertEqual(self.a.wires[-1].transport.value()[-13:], close(FIRST))
        self.leave(pool)
        pool.startService()
        self.a.say(connect(FIRST, 1))
        self.assertEqual(self.successResultOf(pool.accept()).conn_id, FIRST)
        self.leave(pool)

    def test_one_taker(self) -> None:
        """accept, listen and serve do not steal from each other."""
        pool = self.pool()
        pool.listen(print)
        raised(LocalError, pool.serve, print)
        pool.startService()
        self.failureResultOf(pool.accept(), LocalError)
        pool.listen(None)
        waiting = pool.accept()
        raised(LocalError, pool.listen, print)
        raised(LocalError, pool.serve, print)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.leave(pool)

    def test_neighbours(self) -> None:
        """Who hears of a change may cancel the others, leave the gateway, or dial: the pool
        goes on."""
        for verb in range(5):
            self.a, self.b = Memory(self.clock), Memory(self.clock)
            pool = self.pool()
            pool.startService()
            waiting = [pool.when_changed() for _ in range(3)]
            dials = [pool.dial("a", 1) for _ in range(3)]
            dials[0].addErrback(cancelling(dials[2]))

            def changed(_: Any, verb: int = verb, pool: GatewayPool = pool) -> None:
                if verb == 1:
                    pool.remove("a")
                elif verb == 2:
                    pool.set_gateways({})
                elif verb == 3:
                    for name in ("a", "b"):
                        pool.dial(name, 1).addErrback(lambda _: None)
                else:
                    raise ZeroDivisionError

            waiting[0].addCallback(cancelling(*waiting) if verb == 0 else changed)
            all_of_them: list[Deferred[Any]] = [*waiting, *dials]
            for one in all_of_them:
                one.addErrback(lambda _: None)
            self.a.gone()
            self.assertTrue(all(one.called for one in all_of_them))
            self.turn(3)
            self.assertEqual(sorted(pool.up), {1: ["b"], 2: []}.get(verb, ["a", "b"]))
            self.leave(pool)

    def test_ended(self) -> None:
        """Who is told of a connection's end finds that gateway gone from the pool."""
        pool = self.pool()
        pool.startService()
        self.a.say(connect(FIRST, 5))
        conn = self.successResultOf(pool.accept())
        found: list[Any] = []

        def ended(_: Any) -> None:
            found.append(sorted(pool.up))
            found.append(self.failureResultOf(pool.dial("a", 5), GatewayDown))

        conn.on_end(ended)
        self.a.gone()
        self.assertEqual(found[0], ["b"])
        self.assertEqual(len(found), 2)
        self.leave(pool)


class ClientTests(PoolClockCase):
    def client(self, memory: Memory) -> GatewayClient:
        memory.server = False
        return GatewayClient(
            [memory],
            EndpointConfig(ping_interval=0),
            cast(Any, self.clock),
            growing(1, 60, 2, lambda: 0.0),
        )

    def test_dial(self) -> None:
        """A dial waits for a connection and the answer together; old names still work."""
        self.a.does = "hang"
        client = self.client(self.a)
        client.startService()
        dialling = client.dial(1, timeout=3)
        self.clock.advance(3)
        self.failureResultOf(dialling, DialTimeout)
        self.leave(client)
        self.a.does = "up"
        client.startService()
        dialling = client.dial(1, timeout=3)
        self.a.say(accept(FIRST, 1))
        conn = self.successResultOf(dialling)
        self.assertIs(conn.gateway, client.gateway)
        self.assertIs(client.endpoint, client.gateway)
        self.assertIs(self.successResultOf(client.when_connected()), client.gateway)
        self.assertIsInstance(client.gateway, GatewayConnection)
        self.leave(client)

    def test_dial_again(self) -> None:
        """Who is told of a connection's end and dials again waits for the next gateway."""
        client = self.client(self.a)
        client.startService()
        dialling = client.dial(1)
        self.a.say(accept(FIRST, 1))
        conn = self.successResultOf(dialling)
        again: list[Any] = []
        conn.on_end(lambda _: again.append(client.dial(1)))
        self.a.gone()
        self.assertNoResult(again[0])
        self.turn(2)
        self.a.say(accept(FIRST, 1))
        self.assertIsNone(self.successResultOf(again[0]).ended)
        self.leave(client)

    def test_stop_fails_what_waits(self) -> None:
        """Whoever waits for a connection when it stops is told, cancelled neighbours or not."""
        self.a.does = "hang"
        client = self.client(self.a)
        client.startService()
        waiting = [client.when_up() for _ in range(3)]
        dialling = client.dial(1)
        waiting[0].addErrback(lambda _: waiting[1].cancel())
        waiting[1].addErrback(lambda _: None)
        self.leave(client)
        self.failureResultOf(waiting[2], EndpointEnded)
        self.failureResultOf(dialling, FastwayError)
        self.assertTrue(waiting[1].called)

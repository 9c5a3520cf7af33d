"""Where virtual connections that the other side dials are taken: accept, listen, serve.

Rule: each connection is taken once, and none is left behind: by a handler that fails or returns,
by one that is slow, by one who stops.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, inlineCallbacks
from twisted.internet.error import ConnectionLost

from fastway.endpoint import Serving, Text, VirtualConnection
from fastway.errors import ConnectionEnded, EndpointEnded, LocalError
from tests.support.errors import raised
from tests.support.golden import FIRST, close, connect, packet
from tests.support.logs import LogLines
from tests.support.memory import no_collector
from tests.support.rows import CLOSED, CONNECTED, HELLO
from tests.support.scripted import ClockTestCase, ScriptedGateway

Conn = VirtualConnection[Any]


class ServeTestCase(ClockTestCase):
    def serving(self, handler: Callable[[Conn], Any], **others: Any) -> ScriptedGateway:
        """A server that is logged in and serves."""
        config = {name: others.pop(name) for name in list(others) if name in CONFIG}
        gateway = self.server(**config)
        gateway.log_in()
        self.served = gateway.endpoint.serve(handler, **others)
        return gateway

    def come(self, gateway: ScriptedGateway, *numbers: int) -> list[Conn]:
        """These dial, in one read."""
        gateway.say(b"".join(connect(FIRST + n, 1) for n in numbers))
        return [cast(Any, gateway.endpoint.connection(FIRST + n)) for n in numbers]


CONFIG = ("accept_queue", "message_format", "ping_interval")


class HandlerTests(ServeTestCase):
    def test_returns(self) -> None:
        """A handler has its connection until it returns; then it is closed, and no other."""
        gates: dict[int, Deferred[None]] = {}

        async def handler(conn: Conn) -> None:
            await gates.setdefault(conn.conn_id, Deferred())

        gateway = self.serving(handler)
        one, two = self.come(gateway, 0, 1)
        self.assertEqual(self.served.running, 2)
        gates[FIRST].callback(None)
        self.assertIsInstance(one.ended, ConnectionEnded)
        self.assertEqual((self.served.running, two.ended), (1, None))
        self.assertEqual(gateway.heard(), CLOSED)
        self.assertIs(gateway.endpoint.serving, self.served)
        self.assertIsInstance(self.served, Serving)

    def test_echo(self) -> None:
        """The whole of a server: `async for`, send, and the peer's close is no failure."""

        async def echo(conn: Conn) -> None:
            async for message in conn:
                await conn.send(message.upper())

        gateway = self.serving(echo, message_format=Text())
        with LogLines() as log:
            gateway.say(CONNECTED + HELLO + packet(FIRST, b"x") + CLOSED)
            gateway.say(connect(FIRST + 1, 1) + packet(FIRST + 1, b"x"))
            self.assertEqual(gateway.heard(), packet(FIRST + 1, b"X"))
            gateway.say(close(FIRST + 1))
        self.assertEqual((self.served.running, log.lines), (0, []))
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_fails(self) -> None:
        """What a handler raises is logged once, and closes its connection only."""

        async def handler(conn: Conn) -> None:
            if conn.conn_id == FIRST:
                await conn.receive()
                raise ZeroDivisionError
            if conn.conn_id == FIRST + 1:
                raise ZeroDivisionError
            await conn.receive()

        gateway = self.serving(handler)
        _, _, last = self.come(gateway, 0, 1, 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        gateway.say(HELLO)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(gateway.endpoint.connections, [last])
        self.assertEqual(gateway.heard(), close(FIRST + 1) + CLOSED)
        self.assertIsNone(gateway.endpoint.ended)

    def test_peer_left(self) -> None:
        """That the connection ended, or its gateway, is no failure, however the handler hears."""

        async def reading(conn: Conn) -> None:
            await conn.receive()

        async def answering(conn: Conn) -> None:
            await conn.send(await conn.receive())

        async def sending(conn: Conn) -> None:
            while True:
                await conn.send(b"x")

        async def waiting(conn: Conn) -> None:
            await conn.gateway.dial(99)

        def cut(gateway: ScriptedGateway) -> None:
            gateway.gone(ConnectionLost())

        cases: list[tuple[Any, Callable[[ScriptedGateway], None]]] = [
            (reading, lambda gateway: gateway.say(CLOSED)),
            (answering, lambda gateway: gateway.say(HELLO + CLOSED)),
            (reading, cut),
            (waiting, cut),
            (sending, cut),
        ]
        for handler, leave in cases:
            with LogLines() as log:
                gateway = self.serving(handler)
                if handler is sending:
                    gateway.transport.fill()
                self.come(gateway, 0)
                self.assertEqual(self.served.running, 1)
                leave(gateway)
            self.assertEqual((self.served.running, log.lines), (0, []), handler)

    def test_other_ends(self) -> None:
        """That something else ended, while the handler's own is open, is a failure."""

        async def handler(conn: Conn) -> None:
            raise ConnectionEnded("another's")

        gateway = self.serving(handler)
        self.come(gateway, 0)
        self.assertEqual(len(self.flushLoggedErrors(ConnectionEnded)), 1)

    def test_bad_message(self) -> None:
        """A message that does not decode closes its connection, and fills no log."""

        async def handler(conn: Conn) -> None:
            async for _ in conn:
                pass

        with LogLines() as log:
            gateway = self.serving(handler, message_format=Text())
            gateway.say(CONNECTED + packet(FIRST, b"\xff"))
        self.assertEqual((log.lines, gateway.heard()), ([], CLOSED))

    def test_nothing_stays(self) -> None:
        """When a guest has left and his handler has returned, nothing of either is left for the
        collector: the reason of an end keeps no frame that has the connection."""

        async def iterates(conn: Conn) -> None:
            async for _ in conn:
                pass

        async def receives(conn: Conn) -> None:
            while True:
                await conn.receive()

        async def catches(conn: Conn) -> None:
            try:
                await receives(conn)
            except ConnectionEnded:
                return

        for handler in (iterates, receives, catches):
            gateway = self.serving(handler)
            with no_collector():
                guest = weakref.ref(self.come(gateway, 0)[0])
                self.assertIsNotNone(guest())
                gateway.say(CLOSED)
                self.assertIsNone(guest(), handler)
        gateway = self.server()  # and without serve
        gateway.log_in()
        gateway.endpoint.listen(lambda conn: ensureDeferred(iterates(conn)) and None)
        with no_collector():
            guest = weakref.ref(self.come(gateway, 0)[0])
            gateway.say(CLOSED)
            self.assertIsNone(guest())

    def test_awaitables(self) -> None:
        """A function that returns an awaitable is a handler too: a Deferred, a partial."""

        class Called:
            async def __call__(self, conn: Conn) -> None:
                await conn.receive()

        @inlineCallbacks
        def generator(conn: Conn) -> Any:
            yield conn.receive()

        async def two(_: int, conn: Conn) -> None:
            await conn.receive()

        for handler in (
            Called(),
            generator,
            partial(two, 1),
            lambda conn: conn.receive(),
            lambda conn: two(1, conn),
        ):
            gateway = self.serving(cast(Any, handler))
            (conn,) = self.come(gateway, 0)
            self.assertEqual((self.served.running, conn.ended), (1, None))
            gateway.say(HELLO)
            self.assertEqual(self.served.running, 0)
            self.assertIsNotNone(conn.ended)

    def test_taken_over(self) -> None:
        """A plain function that returns has taken the connection: it stays open; what it raises
        closes it."""
        taken: list[Conn] = []
        gateway = self.serving(taken.append)
        (conn,) = self.come(gateway, 0)
        self.assertEqual((taken, conn.ended, self.served.running), ([conn], None, 0))
        gateway = self.serving(lambda conn: 1 / 0)
        self.come(gateway, 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(gateway.endpoint.connections, [])

    def test_queued(self) -> None:
        """Those that wait already when serve is called are served, first, with what they said."""
        gateway = self.server()
        gateway.log_in()
        gateway.say(CONNECTED + HELLO + connect(FIRST + 1, 1) + CLOSED)
        got: list[tuple[int, bytes]] = []

        async def handler(conn: Conn) -> None:
            async for message in conn:
                got.append((conn.conn_id, message))

        serving = gateway.endpoint.serve(handler)
        self.assertEqual(got, [(FIRST, b"Hello")])
        self.assertEqual(serving.running, 1)

    def test_handler_does_everything(self) -> None:
        """A handler may close its connection, its gateway's, stop serving, or serve anew."""

        async def closes(conn: Conn) -> None:
            conn.close()

        async def ends(conn: Conn) -> None:
            conn.gateway.close()

        async def stops(conn: Conn) -> None:
            self.served.stop(0)
            await conn.receive()

        for handler in (closes, ends, stops):
            with LogLines() as log:
                gateway = self.serving(handler)
                gateway.say(CONNECTED + HELLO + connect(FIRST + 1, 1))
                gateway.clock.advance(1)
            self.assertEqual((self.served.running, log.lines), (0, []))
            self.assertEqual(gateway.endpoint.connections, [])


class LimitTests(ServeTestCase):
    def test_limit(self) -> None:
        """As many handlers run as may; others wait, in order, and go on as one returns."""
        gates: list[Deferred[None]] = []
        order: list[int] = []

        async def handler(conn: Conn) -> None:
            order.append(conn.conn_id - FIRST)
            gate: Deferred[None] = Deferred()
            gates.append(gate)
            await gate

        gateway = self.serving(handler, limit=2, accept_queue=2)
        self.come(gateway, 0, 1, 2, 3, 4)
        self.assertEqual((order, self.served.running), ([0, 1], 2))
        self.assertEqual(gateway.heard(), close(FIRST + 4))
        gates[0].callback(None)
        self.come(gateway, 5)
        self.assertEqual(order, [0, 1, 2])
        for gate in gates:
            if not gate.called:
                gate.callback(None)
        self.assertEqual(order, [0, 1, 2, 3, 5])
        self.assertEqual(self.served.running, 0)

    def test_a_thousand_wait(self) -> None:
        """A crowd that waited is served one after the other, not one within the other."""
        gate: Deferred[None] = Deferred()
        served: list[int] = []

        async def handler(conn: Conn) -> None:
            served.append(conn.conn_id)
            if conn.conn_id == FIRST:
                await gate

        gateway = self.serving(handler, limit=1, accept_queue=3000)
        self.come(gateway, *range(3000))
        self.assertEqual(served, [FIRST])
        gate.callback(None)
        self.assertEqual(served, [FIRST + n for n in range(3000)])
        self.assertEqual(gateway.endpoint.connections, [])
        self.assertEqual(len(gateway.heard()), 3000 * len(CLOSED))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_those_who_left_make_room(self) -> None:
        """Who dialled, spoke and left while he waited keeps nobody out; while there is room what
        he said is still received."""
        gate: Deferred[None] = Deferred()
        got: list[tuple[int, bytes]] = []

        async def handler(conn: Conn) -> None:
            if conn.conn_id == FIRST:
                await gate
            async for message in conn:
                got.append((conn.conn_id - FIRST, message))

        gateway = self.serving(handler, limit=1, accept_queue=3)
        self.come(gateway, 0)
        for n in range(1, 101):
            gateway.say(connect(FIRST + n, 1) + packet(FIRST + n, b"x") + close(FIRST + n))
        honest = self.come(gateway, 101, 102)
        self.assertEqual(len(gateway.endpoint._waiting), 3)
        gateway.say(packet(FIRST + 101, b"y"))
        self.assertEqual((gateway.heard(), [conn.ended for conn in honest]), (b"", [None] * 2))
        self.come(gateway, 103)  # in the place of the last that had left
        self.assertEqual(gateway.heard(), b"")
        self.come(gateway, 104)
        self.assertEqual(gateway.heard(), close(FIRST + 104))
        gate.callback(None)
        gateway.say(CLOSED + close(FIRST + 101) + close(FIRST + 102))
        self.assertEqual(got, [(101, b"y")])
        self.assertEqual(len(gateway.endpoint._waiting), 0)
        self.assertEqual(gateway.endpoint._waiting._ended, 0)

    def test_bad_values(self) -> None:
        gateway = self.server()
        for bad in ({"limit": 0}, {"limit": float("nan")}, {"grace": -1}, {"grace": float("nan")}):
            raised(ValueError, gateway.endpoint.serve, print, **bad)
        raised(ValueError, gateway.endpoint.serve, print, grace=float("inf"))
        self.assertIsNone(gateway.endpoint.serving)


class GraceTests(ServeTestCase):
    def test_cancelled(self) -> None:
        """A handler that does not return when its connection has ended is cancelled after the
        grace, not before, and one that has returned is not."""
        cancelled: list[float] = []
        never: Deferred[None] = Deferred()

        async def handler(conn: Conn) -> None:
            if conn.conn_id != FIRST:
                await conn.receive()
            try:
                await never
            except CancelledError:
                cancelled.append(gateway.clock.seconds())
                raise

        gateway = self.serving(handler, grace=3)
        self.come(gateway, 0, 1)
        with LogLines() as log:
            gateway.say(CLOSED + close(FIRST + 1))
            gateway.clock.advance(2.875)
            self.assertEqual((cancelled, self.served.running), ([], 1))
            gateway.clock.advance(0.125)
        self.assertEqual((cancelled, self.served.running), ([3.0], 0))
        self.assertEqual(log.lines, [])
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_ended_before(self) -> None:
        """So is one whose connection had ended before it started."""
        gateway = self.server()
        gateway.log_in()
        gateway.say(CONNECTED + CLOSED)

        async def handler(conn: Conn) -> None:
            await Deferred()

        serving = gateway.endpoint.serve(handler, grace=3)
        self.assertEqual(serving.running, 1)
        gateway.clock.advance(3)
        self.assertEqual(serving.running, 0)

    def test_stop(self) -> None:
        """Stopped, it starts no more: who waits and who comes is closed; the others have the
        grace, then their connections are closed, then they are cancelled."""

        async def handler(conn: Conn) -> None:
            if conn.conn_id == FIRST:
                await Deferred()
            await conn.receive()

        gateway = self.serving(handler, limit=2, grace=3)
        one, two, _ = self.come(gateway, 0, 1, 2)
        idle = self.served.stop(5)
        self.assertTrue(self.served.stopped)
        self.assertEqual(gateway.heard(), close(FIRST + 2))
        self.come(gateway, 3)
        self.assertEqual(gateway.heard(), close(FIRST + 3))
        gateway.clock.advance(4.875)
        self.assertEqual((one.ended, two.ended), (None, None))
        gateway.clock.advance(0.125)
        self.assertEqual(gateway.heard(), CLOSED + close(FIRST + 1))
        self.assertEqual(self.served.running, 1)
        gateway.clock.advance(2.875)
        self.assertNoResult(idle)
        gateway.clock.advance(0.125)
        self.successResultOf(idle)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_stop_early(self) -> None:
        """What stops is over as soon as the last handler returns; its timer goes."""

        async def handler(conn: Conn) -> None:
            await conn.receive()

        gateway = self.serving(handler)
        self.come(gateway, 0)
        idle = self.served.stop()
        gateway.say(HELLO)
        self.successResultOf(idle)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])
        again = self.served.stop()
        gateway.clock.advance(0)
        self.successResultOf(again)

    def test_stop_now(self) -> None:
        """All connections are closed before any handler hears of it."""
        heard: list[bool] = []

        async def handler(conn: Conn) -> None:
            try:
                await conn.receive()
            except ConnectionEnded:
                heard.append(any(one.tell(b"x") for one in conns))

        gateway = self.serving(handler)
        conns = self.come(gateway, 0, 1, 2)
        idle = self.served.stop(0)
        self.assertEqual(heard, [False] * 3)
        self.successResultOf(idle)

    def test_serve_again(self) -> None:
        """After a stop another handler may be given, or a listener."""
        gateway = self.serving(print)
        self.served.stop()
        taken: list[Conn] = []
        gateway.endpoint.serve(taken.append)
        self.come(gateway, 0)
        self.assertEqual(len(taken), 1)

    def test_idle_in_callback(self) -> None:
        """Who waits until none runs may cancel the others that wait."""

        async def handler(conn: Conn) -> None:
            await conn.receive()

        gateway = self.serving(handler)
        self.come(gateway, 0)
        waiting = [self.served.when_idle() for _ in range(3)]
        waiting[0].addCallback(lambda _: [one.cancel() for one in waiting])
        for one in waiting[1:]:
            one.addErrback(lambda _: None)
        gateway.say(HELLO)
        self.assertTrue(all(one.called for one in waiting))


class OneTakerTests(ServeTestCase):
    """One way to take connections at a time."""

    def test_conflicts(self) -> None:
        """accept, listen and serve do not steal from each other, nor wait for ever."""

        async def handler(conn: Conn) -> None: ...

        gateway = self.server()
        gateway.log_in()
        endpoint = gateway.endpoint
        waiting = endpoint.accept()
        raised(LocalError, endpoint.listen, print)
        raised(LocalError, endpoint.serve, handler)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        endpoint.listen(print)
        raised(LocalError, endpoint.serve, handler)
        self.failureResultOf(endpoint.accept(), LocalError)
        endpoint.listen(None)
        serving = endpoint.serve(handler)
        raised(LocalError, endpoint.serve, handler)
        raised(LocalError, endpoint.listen, print)
        self.failureResultOf(endpoint.accept(), LocalError)
        serving.stop()

    def test_async_listener(self) -> None:
        """`listen` refuses what would never run."""

        async def handler(conn: Conn) -> None: ...

        class Called:
            async def __call__(self, conn: Conn) -> None: ...

        gateway = self.server()
        for bad in (handler, Called(), partial(handler)):
            error = raised(TypeError, gateway.endpoint.listen, bad)
            self.assertIn("serve", str(error))

    def test_coroutine_of_a_listener(self) -> None:
        """A listener that returns a coroutine is told, and leaves no zombie."""

        async def handler(conn: Conn) -> None: ...

        gateway = self.server()
        gateway.log_in()
        gateway.endpoint.listen(lambda conn: handler(conn))
        self.come(gateway, 0)
        (failure,) = self.flushLoggedErrors(TypeError)
        self.assertIn("serve", failure.getErrorMessage())
        self.assertEqual(gateway.heard(), CLOSED)
        gateway.endpoint.listen(None)
        gateway.endpoint.listen(lambda conn: ensureDeferred(handler(conn)))
        (conn,) = self.come(gateway, 1)
        self.assertIsNone(conn.ended)

    def test_listener_fails(self) -> None:
        """What a listener raises closes that connection and is logged, those that waited too."""
        gateway = self.server()
        gateway.log_in()
        self.come(gateway, 0)
        taken: list[Conn] = []

        def listener(conn: Conn) -> None:
            if conn.conn_id != FIRST + 1:
                raise ZeroDivisionError
            taken.append(conn)

        gateway.endpoint.listen(listener)
        self.come(gateway, 1, 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(gateway.endpoint.connections, taken)
        self.assertEqual(gateway.heard(), CLOSED + close(FIRST + 2))

    def test_listener_stops_amid(self) -> None:
        """A listener that takes itself away gets no more; the rest wait for accept."""
        gateway = self.server()
        gateway.log_in()
        self.come(gateway, 0, 1)
        got: list[int] = []

        def once(conn: Conn) -> None:
            got.append(conn.conn_id)
            gateway.endpoint.listen(None)

        gateway.endpoint.listen(once)
        self.assertEqual(got, [FIRST])
        self.assertEqual(self.successResultOf(gateway.endpoint.accept()).conn_id, FIRST + 1)

    def test_accept_in_accept(self) -> None:
        """Who accepts may accept the next at once, and cancel who waits behind."""
        gateway = self.server()
        gateway.log_in()
        got: list[Any] = []

        def taken(conn: Conn) -> None:
            got.append(conn.conn_id)
            second.cancel()
            gateway.endpoint.accept().addCallback(lambda conn: got.append(conn.conn_id))

        first, second = gateway.endpoint.accept(), gateway.endpoint.accept()
        second.addErrback(lambda _: None)
        first.addCallback(taken)
        self.come(gateway, 0, 1)
        self.assertEqual(got, [FIRST, FIRST + 1])

    def test_accept_after_the_end(self) -> None:
        """Once it is over nobody waits in accept."""
        gateway = self.server()
        gateway.log_in()
        gateway.gone()
        self.failureResultOf(gateway.endpoint.accept(), EndpointEnded)

"""What is asyncio's own in the library: tasks that are cancelled, who takes as fast as can be, and
handlers that are tasks; in memory.

Rule: no time passes unless a test turns it, and the loop takes the turns that it is given.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import defaultdict
from typing import Any

from fastway.aio import Group, Text, VirtualConnection
from fastway.errors import (
    ConnectionEnded,
    DialTimeout,
    EndpointEnded,
    LoginFailed,
    PingTimeout,
    ReceiveQueueFull,
    SendQueueFull,
)
from tests.support.aio import AioScripted
from tests.support.aio_cases import MemoryCase
from tests.support.golden import FIRST, PING, close, connect, packet, prove, refuse
from tests.support.memory import no_collector
from tests.support.rows import ACCEPTED, CLOSED, CONNECTED, HELLO
from tests.support.scripted import CHALLENGE, SERVER_ID


class CancelTests(MemoryCase):
    """A task that is cancelled while it waits, before and in the very turn of its result, loses no
    message and no connection, and leaves nothing online that nobody has."""

    def test_receive(self) -> None:
        """The message is the next reader's, whether it waits already or not."""
        for when in ("before", "same turn", "same turn, another waits"):
            gateway = self.client()
            conn = self.connected(gateway)
            reading = self.turns.task(conn.receive())
            others = [self.turns.task(conn.receive())] if "another" in when else []
            if when == "before":
                reading.cancel()
                self.turns.turn()
            gateway.say(HELLO)
            reading.cancel()
            self.cancelled(reading)
            others.append(self.turns.task(conn.receive()))
            self.assertEqual(others[0].result(), b"Hello", when)
            for other in others:
                other.cancel()

    def test_receive_and_the_end(self) -> None:
        """Cancelled in the turn of the close: the next one is told of the close."""
        gateway = self.client()
        conn = self.connected(gateway)
        reading = self.turns.task(conn.receive())
        gateway.say(CLOSED)
        reading.cancel()
        self.cancelled(reading)
        late = self.turns.task(conn.receive())
        self.assertIsInstance(late.exception(), ConnectionEnded)

    def test_accept(self) -> None:
        """Who dialled is the next acceptor's, whether it waits already or not."""
        for when in ("before", "same turn", "same turn, another waits"):
            gateway = self.client()
            accepting = self.turns.task(gateway.raw.accept())
            others = [self.turns.task(gateway.raw.accept())] if "another" in when else []
            if when == "before":
                accepting.cancel()
                self.turns.turn()
            gateway.say(CONNECTED)
            accepting.cancel()
            self.cancelled(accepting)
            others.append(self.turns.task(gateway.raw.accept()))
            self.assertEqual(others[0].result().conn_id, FIRST, when)
            for other in others:
                other.cancel()

    def test_dial(self) -> None:
        """A dial that is given up is closed, before its answer and in its very turn."""
        for when in ("before", "same turn"):
            gateway = self.client()
            dialling = self.turns.task(gateway.raw.dial(1))
            gateway.heard()
            if when == "before":
                dialling.cancel()
                self.turns.turn()
            gateway.say(ACCEPTED)
            dialling.cancel()
            self.cancelled(dialling)
            self.assertEqual(gateway.heard(), CLOSED, when)
            self.assertEqual(gateway.raw.connections, [])

    def test_refused_dial(self) -> None:
        """Cancelled in the turn of its refusal, nobody is told of an error never retrieved."""
        gateway = self.client()
        dialling = self.turns.task(gateway.raw.dial(1, 5))
        gateway.say(refuse(1))
        dialling.cancel()
        self.cancelled(dialling)

    def test_send(self) -> None:
        """A send that is cancelled while it waits has been sent, once."""
        gateway = self.client()
        conn = self.connected(gateway)
        for same_turn in (False, True):
            gateway.pipe.fill()
            sending = self.turns.task(conn.send(b"Hello"))
            self.assertFalse(sending.done())
            if same_turn:
                gateway.pipe.drain()
            sending.cancel()
            self.cancelled(sending)
            gateway.pipe.drain()
            self.assertEqual(gateway.heard(), HELLO)
        again = self.turns.task(conn.send(b"Hello"))
        self.assertIsNone(again.result())

    def test_when_ended(self) -> None:
        """Waiting for an end, of either, can be given up; the next one hears of it."""
        gateway = self.client()
        conn = self.connected(gateway)
        waiting = [self.turns.task(one.when_ended()) for one in (conn, gateway.raw)]
        waiting[0].cancel()
        waiting[1].cancel()
        for task in waiting:
            self.cancelled(task)
        again = [self.turns.task(one.when_ended()) for one in (conn, gateway.raw)]
        gateway.say(CLOSED)
        gateway.gone()
        self.assertIs(again[0].result(), conn.ended)
        self.assertIs(again[1].result(), gateway.raw.ended)

    def test_ping(self) -> None:
        """A ping that is given up does not take another's answer."""
        gateway = self.client()
        first, second = (self.turns.task(gateway.raw.ping()) for _ in range(2))
        first.cancel()
        gateway.say(PING)
        self.cancelled(first)
        self.assertEqual(second.result(), 0.0)

    def test_close(self) -> None:
        """A close that is not waited for is a close all the same."""
        gateway = self.client()
        closing = self.turns.loop.create_task(gateway.raw.close())
        self.turns.turn(1)
        closing.cancel()
        self.turns.turn()
        self.assertTrue(gateway.pipe.lost)
        self.assertIsInstance(gateway.raw.ended, EndpointEnded)


class FairnessTests(MemoryCase):
    """Who takes as fast as can be is cut by no burst, and who does not take is."""

    def test_tight_reader(self) -> None:
        """1500 messages in one read, over the bound of 1000, all reach a reader who reads on."""
        gateway = self.client()
        conn = self.connected(gateway)
        got: list[bytes] = []

        async def read() -> None:
            async for message in conn:
                got.append(message)

        reading = self.turns.task(read())
        sent = [b"%d" % number for number in range(1500)]
        for _ in range(3):
            gateway.say(b"".join(packet(FIRST, message) for message in sent))
            self.turns.turn()
        self.assertEqual(got, sent * 3)
        self.assertIsNone(conn.ended)
        self.assertFalse(gateway.paused)
        reading.cancel()

    def test_a_reader_of_each_conn(self) -> None:
        """The same with a handler for each of several connections in the same read."""
        gateway = self.client(receive_queue=10)
        counts: dict[int, int] = defaultdict(int)

        async def read(conn: VirtualConnection[Any]) -> None:
            async for _ in conn:
                counts[conn.conn_id] += 1

        gateway.raw.serve(read)
        numbers = range(FIRST, FIRST + 5)
        gateway.say(b"".join(connect(number, 1) for number in numbers))
        gateway.say(b"".join(packet(number) * 50 for number in numbers))
        self.turns.turn()
        self.assertEqual(counts, dict.fromkeys(numbers, 50))
        self.assertEqual(len(gateway.raw.connections), 5)

    def test_no_reader(self) -> None:
        """Who does not read is closed, with what it held; its neighbour goes on."""
        gateway = self.client(receive_queue=10)
        conn = self.connected(gateway)
        gateway.say(packet(FIRST, b"x") * 11)
        self.turns.turn()
        self.assertIsInstance(conn.ended, ReceiveQueueFull)
        self.assertEqual(gateway.heard(), CLOSED)
        self.assertFalse(gateway.paused)

    def test_tight_acceptor(self) -> None:
        """A burst of dials over the bound all reach who accepts as fast as can be."""
        gateway = self.client(accept_queue=10)
        got: list[int] = []

        async def accept_all() -> None:
            async for conn in gateway.raw:
                got.append(conn.conn_id)

        accepting = self.turns.task(accept_all())
        numbers = list(range(FIRST, FIRST + 50))
        gateway.say(b"".join(connect(number, 1) for number in numbers))
        self.turns.turn()
        self.assertEqual(got, numbers)
        self.assertEqual(len(gateway.raw.connections), 50)
        accepting.cancel()

    def test_no_acceptor(self) -> None:
        """Without one, those that came last are closed."""
        gateway = self.client(accept_queue=10)
        gateway.say(b"".join(connect(FIRST + number, 1) for number in range(12)))
        self.turns.turn()
        self.assertEqual(len(gateway.raw.connections), 10)
        self.assertEqual(gateway.heard(), close(FIRST + 11) + close(FIRST + 10))


class ServeTests(MemoryCase):
    """Handlers that are tasks."""

    def opened(self, gateway: AioScripted, *numbers: int) -> None:
        gateway.say(b"".join(connect(FIRST + number, 1) for number in numbers))
        self.turns.turn()

    def test_returns(self) -> None:
        """A handler that returns closes its connection."""
        gateway = self.client()

        async def handler(conn: VirtualConnection[Any]) -> None:
            await conn.send(await conn.receive())

        serving = gateway.raw.serve(handler)
        self.opened(gateway, 0)
        self.assertEqual(serving.running, 1)
        gateway.say(HELLO)
        self.turns.turn()
        self.assertEqual(gateway.heard(), HELLO + CLOSED)
        self.assertEqual(serving.running, 0)

    def test_raises(self) -> None:
        """What a handler raises is logged once and closes its connection, no other; that its peer
        left is no failure."""
        gateway = self.client()

        async def handler(conn: VirtualConnection[Any]) -> None:
            if await conn.receive() == b"Hello":
                raise RuntimeError("a fault")

        gateway.raw.serve(handler)
        self.opened(gateway, 0, 1, 2)
        with self.assertLogs("fastway", "ERROR") as logs:
            gateway.say(HELLO + close(FIRST + 1))
            self.turns.turn()
        self.assertEqual(len(logs.records), 1)
        self.assertIn("handler failed with", logs.output[0])
        self.assertIn("RuntimeError: a fault", logs.output[0])
        self.assertEqual([conn.conn_id for conn in gateway.raw.connections], [FIRST + 2])

    def test_nothing_stays(self) -> None:
        """When a guest has left and his handler has returned, nothing of either is left for the
        collector."""
        self.turns.loop.set_debug(False)  # which keeps where each task was made

        async def iterates(conn: VirtualConnection[Any]) -> None:
            async for _ in conn:
                pass

        async def receives(conn: VirtualConnection[Any]) -> None:
            while True:
                await conn.receive()

        for handler in (iterates, receives):
            gateway = self.client()
            gateway.raw.serve(handler)
            with no_collector():
                self.opened(gateway, 0)
                guest = weakref.ref(gateway.raw.connections[0])
                gateway.say(CLOSED)
                self.turns.turn()
                self.assertIsNone(guest(), handler)
        gateway = self.client()  # and without serve
        with no_collector():
            self.opened(gateway, 0)
            guest = weakref.ref(gateway.raw.connections[0])
            self.turns.task(iterates(self.turns.task(gateway.raw.accept()).result()))
            gateway.say(CLOSED)
            self.turns.turn()
            self.assertIsNone(guest())

    def test_limit(self) -> None:
        """No more than `limit` run; the next one begins when one is over."""
        gateway = self.client()
        began: list[int] = []

        async def handler(conn: VirtualConnection[Any]) -> None:
            began.append(conn.conn_id - FIRST)
            await conn.receive()

        gateway.raw.serve(handler, limit=2)
        self.opened(gateway, 0, 1, 2)
        self.assertEqual(began, [0, 1])
        gateway.say(HELLO)
        self.turns.turn()
        self.assertEqual(began, [0, 1, 2])

    def test_grace(self) -> None:
        """When its connection ended a handler has its grace, then it is cancelled."""
        gateway = self.client()
        over: list[str] = []

        async def handler(conn: VirtualConnection[Any]) -> None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                over.append("cancelled")
                raise

        serving = gateway.raw.serve(handler, grace=3)
        self.opened(gateway, 0)
        gateway.say(CLOSED)
        self.turns.advance(2.9)
        self.assertEqual(over, [])
        self.turns.advance(0.2)
        self.assertEqual((over, serving.running), (["cancelled"], 0))

    def test_swallows(self) -> None:
        """A handler that swallows its cancellation is cancelled again, and the log says so."""
        gateway = self.client()
        swallowed = 0

        async def stubborn(conn: VirtualConnection[Any]) -> None:
            nonlocal swallowed
            while swallowed < 2:
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    swallowed += 1
            await asyncio.sleep(1000)

        serving = gateway.raw.serve(stubborn, grace=0)
        self.opened(gateway, 0)
        gateway.say(CLOSED)
        with self.assertLogs("fastway", "WARNING") as logs:
            for _ in range(10):
                self.turns.advance(1)
        self.assertEqual((swallowed, serving.running), (2, 0))
        self.assertEqual(len(logs.records), 2)
        self.assertIn("stubborn goes on although it was cancelled", logs.output[0])

    def test_stop(self) -> None:
        """`stop` waits for the handlers, and closes their connections after the grace."""
        gateway = self.client()

        async def handler(conn: VirtualConnection[Any]) -> None:
            async for _ in conn:
                pass

        serving = gateway.raw.serve(handler)
        self.opened(gateway, 0)

        async def stop() -> None:
            await serving.stop(5)

        stopping = self.turns.task(stop())
        self.opened(gateway, 1)
        self.assertEqual([conn.conn_id for conn in gateway.raw.connections], [FIRST])
        self.turns.advance(4.9)
        self.assertFalse(stopping.done())
        self.turns.advance(0.2)
        self.assertTrue(stopping.done())
        self.assertEqual(gateway.raw.connections, [])

    def test_with(self) -> None:
        """Leaving `async with` closes all, and waits for the handlers."""
        gateway = self.client()
        over: list[str] = []

        async def handler(conn: VirtualConnection[Any]) -> None:
            async for _ in conn:
                pass
            await asyncio.sleep(1)
            over.append("handler")

        gateway.raw.serve(handler)
        self.opened(gateway, 0)

        async def leave() -> None:
            async with gateway.raw:
                pass
            over.append("with")

        leaving = self.turns.task(leave())
        self.assertFalse(leaving.done())
        self.turns.advance(1)
        self.assertEqual(over, ["handler", "with"])
        self.assertTrue(gateway.pipe.lost)


class FlowTests(MemoryCase):
    """Time, back-pressure, and the rest that the common tests leave to each framework."""

    def test_with_connection(self) -> None:
        """`async with` of a virtual connection closes it."""
        gateway = self.client()
        conn = self.connected(gateway)

        async def main() -> None:
            async with conn as same:
                await same.send(b"Hello")

        self.turns.task(main()).result()
        self.assertEqual(gateway.heard(), HELLO + CLOSED)

    def test_login(self) -> None:
        """A server is up when its ping is answered; without a challenge the login fails in 5 s."""
        gateway = self.server()
        gateway.say(CHALLENGE)
        self.assertEqual(gateway.heard(), prove(CHALLENGE, SERVER_ID) + PING)
        self.assertFalse(gateway.raw.up)
        gateway.say(PING)
        self.assertTrue(gateway.raw.up)
        silent = self.server()
        self.turns.advance(5)
        self.assertIsInstance(silent.raw.ended, LoginFailed)
        self.assertTrue(silent.pipe.aborted)

    def test_dial_timeout(self) -> None:
        """A dial that is not answered in time fails; accepted later, it is closed at once."""
        gateway = self.client()
        dialling = self.turns.task(gateway.raw.dial(1, 2))
        gateway.heard()
        self.turns.advance(2)
        self.assertIsInstance(dialling.exception(), DialTimeout)
        gateway.say(ACCEPTED)
        self.assertEqual(gateway.heard(), CLOSED)

    def test_back_pressure(self) -> None:
        """`send` waits while the transport is full, up to `send_buffer` bytes of all tasks."""
        gateway = self.client(send_buffer=100)
        conn = self.connected(gateway)
        gateway.pipe.fill()
        first, second = (self.turns.task(conn.send(bytes(42))) for _ in range(2))
        third = self.turns.task(conn.send(b""))
        self.assertFalse(first.done() or second.done())
        self.assertIsInstance(third.exception(), SendQueueFull)
        gateway.pipe.drain()
        self.turns.turn()
        self.assertEqual((first.result(), second.result()), (None, None))

    def test_few_writes(self) -> None:
        """What is sent in one turn is two writes: the first at once, the rest at its end."""
        gateway = self.client()
        conn = self.connected(gateway)
        gateway.say(HELLO)

        async def burst() -> None:
            self.assertEqual(await conn.receive(), b"Hello")
            for number in range(50):
                await conn.send(bytes([number]))
            self.assertEqual(gateway.pipe.value(), packet(FIRST, b"\0"))

        self.turns.task(burst()).result()
        self.assertEqual(gateway.pipe.writes, 2)
        sent = b"".join(packet(FIRST, bytes([number])) for number in range(50))
        self.assertEqual(gateway.heard(), sent)
        gateway.say(HELLO)
        self.turns.task(conn.send(b"x")).result()
        closing = self.turns.task(gateway.raw.close())
        self.assertTrue(closing.done())
        self.assertEqual(gateway.heard(), packet(FIRST, b"x"))

    def test_tight_sender(self) -> None:
        """A task that sends and never waits for anything else meets a transport that is full."""
        gateway = self.client()
        conn = self.connected(gateway)
        gateway.pipe.limit = 64 * 1024

        async def flood() -> None:
            for _ in range(1000):
                await conn.send(bytes(1000))

        flooding = self.turns.task(flood())
        self.assertFalse(flooding.done())
        self.assertLess(len(gateway.heard()), 100_000)
        flooding.cancel()
        self.cancelled(flooding)

    def test_end_while_sending(self) -> None:
        """Who waits to send when the connection breaks is told why."""
        gateway = self.client()
        conn = self.connected(gateway)
        gateway.pipe.fill()
        sending = self.turns.task(conn.send(b"x"))
        gateway.gone(ConnectionResetError())
        self.assertIs(sending.exception(), gateway.raw.ended)

    def test_ping_timeout(self) -> None:
        """A ping that is not answered ends the connection."""
        gateway = self.client(ping_interval=8, ping_timeout=2)
        ending = self.turns.task(gateway.raw.when_ended())
        self.turns.advance(8)
        self.assertEqual(gateway.heard(), PING)
        self.turns.advance(2)
        self.assertIsInstance(ending.result(), PingTimeout)
        self.assertTrue(gateway.pipe.aborted)

    def test_linger(self) -> None:
        """A gateway that does not take the rest keeps a close waiting for 5 s, and no longer."""
        gateway = self.client()
        gateway.pipe.close = lambda: None  # type: ignore[method-assign]
        closing = self.turns.task(gateway.raw.close())
        self.turns.advance(4.9)
        self.assertFalse(closing.done())
        gateway.pipe.abort = lambda: gateway.pipe.gone(None)  # type: ignore[method-assign]
        self.turns.advance(0.2)
        self.assertTrue(closing.done())

    def test_formats(self) -> None:
        """A format chosen in `dial` is that connection's; what was there before is decoded too."""
        gateway = self.client()
        dialling: Any = self.turns.task(gateway.raw.dial(1, message_format=Text()))
        gateway.say(ACCEPTED + HELLO)
        self.turns.turn()
        conn = dialling.result()
        self.assertEqual(self.turns.task(conn.receive()).result(), "Hello")

    def test_group(self) -> None:
        """A group tells all members, in one write."""
        gateway = self.client()
        gateway.say(b"".join(connect(FIRST + number, 1) for number in range(3)))
        group: Group[Any] = Group(gateway.raw.connections)
        self.assertEqual(group.tell(b"all"), 3)
        self.assertEqual(
            gateway.heard(), b"".join(packet(FIRST + number, b"all") for number in range(3))
        )

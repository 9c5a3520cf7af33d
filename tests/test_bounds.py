"""Bounds in bytes and in messages on what waits unread or unsent, and who pays past them.

Rule: nobody can make this end hold more than it was told to; what is over costs the one who holds
most, and nobody who has read.
"""

from __future__ import annotations

import gc
from typing import Any, cast

from twisted.internet.protocol import Protocol

from fastway.endpoint import EndpointConfig, Json, Overflow, VirtualConnection, unread
from fastway.endpoint.transport import VirtualTransport
from fastway.errors import ConnectionEnded, ReceiveQueueFull
from tests.support.errors import raised
from tests.support.golden import FIRST, close, connect, packet
from tests.support.scripted import ClockTestCase, ScriptedGateway

Conn = VirtualConnection[Any]


class BoundsTestCase(ClockTestCase):
    overhead = 0

    def setUp(self) -> None:
        self.patch(unread, "OVERHEAD", self.overhead)

    def crowd(self, count: int, **config: Any) -> tuple[ScriptedGateway, list[Conn]]:
        """A server with so many who dialled it."""
        config.setdefault("accept_queue", max(count, 1))
        gateway = self.server(**config)
        gateway.log_in()
        gateway.say(b"".join(connect(FIRST + n, 1 + n) for n in range(count)))
        return gateway, gateway.endpoint.connections

    def read(self, conn: Conn) -> bytes:
        data: bytes = self.successResultOf(conn.receive())
        return data

    def size(self, gateway: ScriptedGateway) -> int:
        return gateway.endpoint.link.unread.size


class Taking(Protocol):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.got = b""
        self.lost = 0

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost += 1


class BytesTests(BoundsTestCase):
    """`receive_buffer`: of one connection."""

    def test_buffer(self) -> None:
        """As many bytes as may wait do; one more closes the connection, and no other."""
        for size, ends in ((59, False), (60, False), (61, True)):
            gateway, (conn, other) = self.crowd(2, receive_buffer=100)
            gateway.heard()
            gateway.say(packet(FIRST, bytes(40)) + packet(FIRST, bytes(size)))
            gateway.say(packet(FIRST + 1, b"on"))
            self.assertEqual(conn.ended is not None, ends)
            self.assertEqual((self.read(other), other.ended), (b"on", None))
            self.assertEqual([len(self.read(conn)), len(self.read(conn))], [40, size])
            if ends:
                error = self.failureResultOf(conn.receive(), ReceiveQueueFull).value
                self.assertEqual((error.messages, error.size), (2, 101))
                self.assertEqual(gateway.heard(), close(FIRST))
            self.assertEqual(self.size(gateway), 0)

    def test_one_message(self) -> None:
        """One message may always wait, however large."""
        gateway, (conn,) = self.crowd(1, receive_buffer=10)
        gateway.say(packet(FIRST, bytes(500)))
        self.assertIsNone(conn.ended)
        self.read(conn)
        gateway.say(packet(FIRST, bytes(500)))
        self.assertIsNone(conn.ended)
        gateway.say(packet(FIRST, b""))
        self.assertIsInstance(conn.ended, ReceiveQueueFull)

    def test_read_frees(self) -> None:
        """What is read, counts no more; nor what somebody waited for."""
        gateway, (conn,) = self.crowd(1, receive_buffer=100)
        for _ in range(50):
            gateway.say(packet(FIRST, bytes(60)))
            self.assertEqual((self.size(gateway), conn.held), (60, 60))
            self.read(conn)
            waiting = conn.receive()
            gateway.say(packet(FIRST, bytes(90)))
            self.successResultOf(waiting)
        self.assertEqual((self.size(gateway), conn.held, conn.unread), (0, 0, 0))

    def test_empty_messages(self) -> None:
        """Messages without bytes are bounded by their number."""
        gateway, (conn,) = self.crowd(1, receive_queue=3)
        gateway.say(packet(FIRST) * 3)
        self.assertIsNone(conn.ended)
        gateway.say(packet(FIRST))
        self.assertIsInstance(conn.ended, ReceiveQueueFull)

    def test_pauses(self) -> None:
        """With PAUSE nothing is lost: it reads on when half of the bytes are left."""
        gateway, (conn,) = self.crowd(1, receive_buffer=100, overflow=Overflow.PAUSE)
        gateway.say(packet(FIRST, bytes(30)) * 3)
        self.assertFalse(gateway.paused)
        gateway.say(packet(FIRST, bytes(30)))
        self.assertTrue(gateway.paused)
        self.read(conn)
        self.read(conn)
        self.assertTrue(gateway.paused)
        self.read(conn)
        self.assertFalse(gateway.paused)
        self.assertIsNone(conn.ended)

    def test_pause_of_large_messages(self) -> None:
        """Where each is over the bound it reads on when one is left."""
        gateway, (conn,) = self.crowd(1, receive_buffer=10, overflow=Overflow.PAUSE)
        gateway.say(packet(FIRST, bytes(30)) * 3)
        self.read(conn)
        self.assertTrue(gateway.paused)
        self.read(conn)
        self.assertFalse(gateway.paused)

    def test_bad_message_frees(self) -> None:
        """What comes behind a message that does not decode counts no more."""
        gateway, (conn,) = self.crowd(1, message_format=Json())
        gateway.say(packet(FIRST, b"{") + packet(FIRST, b"[]") * 5)
        self.failureResultOf(conn.receive(), ConnectionEnded)
        self.assertEqual((self.size(gateway), conn.unread), (0, 0))
        self.failureResultOf(conn.receive(), ConnectionEnded)


class TotalTests(BoundsTestCase):
    """`receive_total`: of all together."""

    def test_who_holds_most(self) -> None:
        """Past it the one who holds most is closed, whoever's message was the last."""
        gateway, conns = self.crowd(3, receive_total=100, receive_buffer=80)
        gateway.heard()
        for number, size in ((0, 30), (1, 50), (2, 20)):
            gateway.say(packet(FIRST + number, bytes(size)))
        self.assertEqual([conn.ended for conn in conns], [None] * 3)
        gateway.say(packet(FIRST + 2, b"x"))
        self.assertEqual([conn.ended is None for conn in conns], [True, False, True])
        self.assertEqual(gateway.heard(), close(FIRST + 1))

    def test_those_who_left_pay_first(self) -> None:
        """What closed connections left unread goes before anybody who is there is closed; their
        readers are told that something is missing."""
        for gone_how in ("far", "near", "full"):
            gateway, conns = self.crowd(5, receive_total=200, receive_buffer=80)
            for number in (0, 1):
                gateway.say(packet(FIRST + number, bytes(40)) * 2)
                if gone_how == "far":
                    gateway.say(close(FIRST + number))
                elif gone_how == "near":
                    conns[number].close()
                else:
                    gateway.say(packet(FIRST + number, b"xx"))
                self.assertIsNotNone(conns[number].ended)
            for number in (2, 3, 4):
                for _ in range(3):
                    gateway.say(packet(FIRST + number, bytes(20)))
            self.assertEqual([conn.ended for conn in conns[2:]], [None] * 3, gone_how)
            self.assertEqual(self.size(gateway), 180)
            for conn in conns[:2]:
                self.failureResultOf(conn.receive(), ReceiveQueueFull)

    def test_bound_holds(self) -> None:
        """Whatever is opened, sent and closed: no more than the total and one message waits,
        while the application keeps every connection and reads none."""
        total, largest = 10_000, 1000
        for overflow_first in (False, True):
            gateway, _ = self.crowd(
                0, receive_total=total, receive_buffer=3000, accept_queue=10**6
            )
            kept: list[Conn] = []
            gateway.endpoint.listen(kept.append)
            for number in range(300):
                conn_id = FIRST + number
                gateway.say(connect(conn_id, 1))
                for _ in range(1 + number % 4 + 3 * overflow_first):
                    gateway.say(packet(conn_id, bytes(largest)))
                    self.assertLessEqual(self.size(gateway), total + largest)
                    self.assertEqual(self.size(gateway), sum(conn.held for conn in kept))
                if number % 3 == 0 and kept[-1].ended is None:
                    gateway.say(close(conn_id))
            self.assertIsNone(gateway.endpoint.ended)

    def test_forgotten(self) -> None:
        """A closed connection that nobody has any more holds nothing."""
        gateway, conns = self.crowd(2, receive_total=1000)
        gateway.say(packet(FIRST, bytes(400)) + close(FIRST))
        self.assertEqual(self.size(gateway), 400)
        gateway.endpoint.accept().addCallback(lambda _: None)
        conns.clear()
        gc.collect()
        self.assertEqual(self.size(gateway), 0)

    def test_pause(self) -> None:
        """With PAUSE it is not read from until all together hold no more than they may."""
        gateway, conns = self.crowd(3, receive_total=100, overflow=Overflow.PAUSE)
        for number, size in ((0, 30), (1, 50), (2, 21)):
            self.assertFalse(gateway.paused)
            gateway.say(packet(FIRST + number, bytes(size)))
        self.assertTrue(gateway.paused)
        self.read(conns[2])
        self.assertFalse(gateway.paused)
        self.assertEqual([conn.ended for conn in conns], [None] * 3)

    def test_pause_spares_readers(self) -> None:
        """With PAUSE who reads is not closed for one who does not."""
        gateway, (stuck, reader) = self.crowd(
            2, receive_total=100, overflow=Overflow.PAUSE, pause_timeout=5
        )
        gateway.say(packet(FIRST, bytes(90)))
        gateway.say(packet(FIRST + 1, bytes(20)))
        self.assertTrue(gateway.paused)
        gateway.clock.advance(4)
        self.read(reader)
        self.assertFalse(gateway.paused)
        gateway.say(packet(FIRST + 1, bytes(20)))
        gateway.clock.advance(5)
        self.assertEqual((stuck.ended is None, reader.ended), (False, None))
        self.assertFalse(gateway.paused)

    def test_pause_is_cheap(self) -> None:
        """The rest of a read that goes past the total is not looked through for each message."""
        gateway, conns = self.crowd(200, receive_total=100, overflow=Overflow.PAUSE)
        looks = 0

        class Looked(dict):  # type: ignore[type-arg]
            def values(self) -> Any:
                nonlocal looks
                looks += 1
                return super().values()

        gateway.endpoint.link.conns = Looked(gateway.endpoint.link.conns)
        gateway.say(b"".join(packet(conn.conn_id, bytes(60)) for conn in conns))
        self.assertTrue(gateway.paused)
        self.assertLessEqual(looks, 2)


class PauseTimeoutTests(BoundsTestCase):
    """`pause_timeout`: of one who does not read at all."""

    def test_closed(self) -> None:
        """Who has not read for that long is closed, and the others go on."""
        gateway, (stuck, other) = self.crowd(
            2, receive_queue=1, overflow=Overflow.PAUSE, pause_timeout=5
        )
        gateway.say(packet(FIRST) * 2)
        gateway.clock.advance(4.875)
        self.assertTrue(gateway.paused)
        gateway.clock.advance(0.125)
        self.assertFalse(gateway.paused)
        self.assertIsInstance(stuck.ended, ReceiveQueueFull)
        self.assertIsNone(other.ended)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_reading_counts(self) -> None:
        """Who reads slowly is not closed; the time counts from the last message read."""
        gateway, (conn,) = self.crowd(1, receive_queue=8, overflow=Overflow.PAUSE, pause_timeout=5)
        gateway.say(packet(FIRST) * 9)
        for _ in range(4):
            gateway.clock.advance(4)
            self.read(conn)
        self.assertTrue(gateway.paused)
        gateway.clock.advance(4.875)
        self.assertIsNone(conn.ended)
        gateway.clock.advance(0.125)
        self.assertIsInstance(conn.ended, ReceiveQueueFull)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_two(self) -> None:
        """Each has its own time; the timer goes with the last."""
        gateway, (one, two) = self.crowd(
            2, receive_queue=1, overflow=Overflow.PAUSE, pause_timeout=5
        )
        gateway.say(packet(FIRST) * 2 + packet(FIRST + 1) * 2)
        gateway.clock.advance(3)
        self.read(two)  # one is left: half of the bound rounds down to none
        gateway.clock.advance(2)
        self.assertEqual((one.ended is None, two.ended), (False, None))
        self.assertTrue(gateway.paused)
        gateway.clock.advance(3)
        self.assertIsNotNone(two.ended)
        self.assertFalse(gateway.paused)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_reads_at_once(self) -> None:
        """A transport that has more to say as soon as it is read from: one timer, as ever."""
        gateway, (one, two) = self.crowd(
            2, receive_queue=1, overflow=Overflow.PAUSE, pause_timeout=5
        )
        resume = gateway.transport.resumeProducing

        def resume_with_more() -> None:
            resume()
            gateway.say(b"")

        self.patch(gateway.transport, "resumeProducing", resume_with_more)
        gateway.say(packet(FIRST) * 2)
        gateway.say(packet(FIRST + 1) * 2)
        gateway.clock.advance(5)
        self.assertEqual((one.ended is None, two.ended, gateway.paused), (False, None, True))
        self.assertEqual(len(gateway.clock.getDelayedCalls()), 1)
        gateway.clock.advance(5)
        self.assertIsNotNone(two.ended)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_callbacks(self) -> None:
        """Who is told of such an end may read, close, or end all."""
        for how in range(4):
            gateway, (stuck, other) = self.crowd(
                2, receive_queue=1, overflow=Overflow.PAUSE, pause_timeout=5
            )
            gateway.say(packet(FIRST) * 2 + packet(FIRST + 1) * 2)

            def told(
                _: Any, how: int = how, other: Conn = other, gateway: ScriptedGateway = gateway
            ) -> None:
                if how == 0:
                    self.read(other)
                    self.read(other)
                elif how == 1:
                    other.close()
                elif how == 2:
                    gateway.endpoint.close()
                else:
                    gateway.gone()

            stuck.on_end(told)
            gateway.clock.advance(5)
            self.assertIsNotNone(stuck.ended)
            if gateway.endpoint.ended is None:
                self.assertFalse(gateway.paused)
                self.assertEqual(gateway.clock.getDelayedCalls(), [])
            else:
                self.assertEqual(
                    [cast(Any, one).func.__name__ for one in gateway.clock.getDelayedCalls()],
                    ["_lingered"] if how == 2 else [],
                )


class OverheadTests(BoundsTestCase):
    """Messages take room besides their bytes."""

    overhead = 64

    def test_empty(self) -> None:
        """Empty messages count: so many of all together, then who holds most pays."""
        gateway, (one, two) = self.crowd(2, receive_total=640)
        gateway.say(packet(FIRST, b"") * 7 + packet(FIRST + 1, b"") * 3)
        self.assertEqual(gateway.endpoint.link.unread.size, 640)
        self.assertEqual((one.ended, two.ended), (None, None))
        gateway.say(packet(FIRST + 1, b""))
        self.assertIsInstance(one.ended, ReceiveQueueFull)
        self.assertIsNone(two.ended)
        for _ in range(7):
            self.assertEqual(self.read(one), b"")
        self.assertEqual(gateway.endpoint.link.unread.size, 4 * 64)
        two.close()
        for _ in range(4):
            self.read(two)
        self.assertEqual(gateway.endpoint.link.unread.size, 0)


class StreamTests(BoundsTestCase):
    """`stream_buffer`: of a byte stream that is paused."""

    def test_pauses(self) -> None:
        """A paused stream holds that many bytes; one more stops the gateway, nothing is lost."""
        gateway, (conn,) = self.crowd(1, stream_buffer=100, receive_buffer=10)
        taking = Taking()
        stream = VirtualTransport(conn)
        stream.attach(taking)
        stream.pauseProducing()
        gateway.say(packet(FIRST, bytes(50)) * 2)
        self.assertFalse(gateway.paused)
        gateway.say(packet(FIRST, b"x"))
        self.assertTrue(gateway.paused)
        stream.resumeProducing()
        for _ in range(5):
            gateway.clock.advance(0)
        self.assertFalse(gateway.paused)
        self.assertEqual(len(taking.got), 101)
        self.assertEqual((conn.ended, self.size(gateway)), (None, 0))

    def test_stuck(self) -> None:
        """A stream that stays paused past the time is closed, so that the others go on."""
        gateway, (conn, other) = self.crowd(2, stream_buffer=100, pause_timeout=5)
        stream = VirtualTransport(conn)
        stream.attach(Taking())
        stream.pauseProducing()
        gateway.say(packet(FIRST, bytes(60)) * 2)
        gateway.clock.advance(5)
        self.assertFalse(gateway.paused)
        self.assertEqual((conn.ended is None, other.ended), (False, None))

    def test_accepted_late(self) -> None:
        """A stream that is taken over after data came gets the bytes as they were, whatever the
        message format."""
        gateway, (conn,) = self.crowd(1, message_format=Json())
        gateway.say(packet(FIRST, b'{"a": 1}') + packet(FIRST, b"\xff\n[1,  2]"))
        taking = Taking()
        VirtualTransport(conn).attach(taking)
        for _ in range(5):
            gateway.clock.advance(0)
        gateway.say(packet(FIRST, b" {"))
        self.assertEqual(taking.got, b'{"a": 1}\xff\n[1,  2] {')


class ConfigTests(BoundsTestCase):
    def test_bounds(self) -> None:
        """What is no whole number, or too small or too large, is refused with its name."""
        names = ("receive_queue", "receive_buffer", "stream_buffer", "receive_total")
        bad: list[tuple[str, Any]] = [
            (name, value)
            for name in (*names, "accept_queue", "max_packet")
            for value in (0, -1, 1.5, float("nan"), "10", None)
        ]
        bad += [("send_buffer", value) for value in (-1, 1.5, float("nan"), None)]
        bad += [("max_packet", 2**32)]
        for name in ("ping_interval", "ping_timeout", "pause_timeout"):
            bad += [(name, value) for value in (-1, float("nan"), float("inf"), "10", None)]
        bad += [("message_format", Json), ("pause_timeout", 0)]
        for name, value in bad:
            error = raised(ValueError, lambda: EndpointConfig(**{name: value}))  # noqa: B023
            self.assertIn(name, str(error))
        for name in (*names, "accept_queue"):
            least: dict[str, Any] = {name: 1}
            EndpointConfig(**least)
        EndpointConfig(send_buffer=0, max_packet=2**32 - 1, pause_timeout=0.1)

"""What waits: cancelled neighbours, callbacks that raise, and waits that are begun in a callback.

Rule: nothing fires twice, nothing is forgotten, and nobody's callback is another's trouble.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.endpoint import EndpointConfig, GatewayConnection, GatewayFactory, Overflow, Text
from fastway.endpoint.reactor import TwistedLoop
from fastway.errors import (
    BadMessage,
    ConnectionEnded,
    DialRefused,
    EndpointEnded,
    FastwayError,
    PingTimeout,
)
from fastway.waiting import Waiters, sleeping
from tests.support.golden import FIRST, PING, close, connect, packet, refuse
from tests.support.logs import LogLines
from tests.support.rows import CLOSED, HELLO
from tests.support.scripted import ClockTestCase, ScriptedGateway


def silent(waiting: Deferred[Any]) -> Deferred[Any]:
    """Whatever it fails with is no concern of the test."""
    return waiting.addErrback(lambda _: None)


def cancelling(*others: Deferred[Any]) -> Any:
    """A callback that cancels them all."""

    def cancel(_: Any) -> None:
        for other in others:
            other.cancel()

    return cancel


class Blocking:
    """A stream that does something when the gateway's buffer fills or drains."""

    def __init__(self, full: Any = None, drained: Any = None) -> None:
        self.endpoint_full = full or (lambda: None)
        self.endpoint_drained = drained or (lambda: None)


class WaitersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.loop = TwistedLoop(self.clock)
        self.waiters = Waiters(self.loop)

    def test_all(self) -> None:
        """All that wait get the value, in order; then nobody waits."""
        got: list[tuple[int, Any]] = []
        for number in range(3):
            self.waiters.wait().addCallback(lambda value, n=number: got.append((n, value)))
        self.assertEqual(len(self.waiters), 3)
        self.waiters.callback("x")
        self.assertEqual(got, [(0, "x"), (1, "x"), (2, "x")])
        self.assertEqual(len(self.waiters), 0)
        self.waiters.callback("y")
        self.assertEqual(len(got), 3)

    def test_cancelled(self) -> None:
        """Who is cancelled is out, and what was to happen then does, once."""
        happened: list[int] = []
        first, second = self.waiters.wait(lambda: happened.append(1)), self.waiters.wait()
        first.cancel()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual((happened, len(self.waiters)), ([1], 1))
        self.assertIs(self.waiters.first(), second)
        self.assertIsNone(self.waiters.first())

    def test_neighbours(self) -> None:
        """A callback may cancel those behind it and those before it: nobody fires twice."""
        for fails in (False, True):
            waiting = [self.waiters.wait() for _ in range(5)]
            called: list[int] = []

            def cancel(
                _: Any, at: int, waiting: list[Any] = waiting, called: list[int] = called
            ) -> None:
                called.append(at)
                if at == 1:
                    for other in waiting:
                        other.cancel()

            for place, one in enumerate(waiting):
                one.addBoth(cancel, place)
            if fails:
                self.waiters.errback(EndpointEnded("x"))
            else:
                self.waiters.callback(None)
            self.assertEqual(called, [0, 1, 2, 3, 4])
            self.assertEqual(len(self.waiters), 0)

    def test_anew(self) -> None:
        """Who waits anew in a callback waits for the next."""
        again: list[Any] = []
        self.waiters.wait().addCallback(lambda _: again.append(self.waiters.wait()))
        self.waiters.callback(1)
        self.assertNoResult(again[0])
        self.assertEqual(len(self.waiters), 1)
        self.waiters.callback(2)
        self.assertEqual(self.successResultOf(again[0]), 2)

    def test_raises(self) -> None:
        """A callback that raises fails its own Deferred only."""
        first, second = self.waiters.wait(), self.waiters.wait()
        first.addCallback(lambda _: 1 / 0)
        self.waiters.callback(None)
        self.failureResultOf(first, ZeroDivisionError)
        self.assertIsNone(self.successResultOf(second))

    def test_sleeping(self) -> None:
        """It fires in time; cancelled, it leaves no timer."""
        one, other = sleeping(self.loop, 2), sleeping(self.loop, 3)
        other.cancel()
        self.failureResultOf(other, CancelledError)
        self.clock.advance(1.5)
        self.assertNoResult(one)
        self.clock.advance(0.5)
        self.assertIsNone(self.successResultOf(one))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SiblingTests(ClockTestCase):
    """Cancelling a sibling in a callback, wherever a connection fires several."""

    def ends(self, gateway: ScriptedGateway, lost: Exception | None = None) -> None:
        """The gateway's connection breaks: all that is told at the end is told."""
        over = gateway.endpoint.when_ended()
        accepting, gone = gateway.endpoint.accept(), gateway.endpoint.when_gone()
        gateway.gone(lost)
        self.assertIs(self.successResultOf(over), gateway.endpoint.ended)
        self.failureResultOf(accepting, EndpointEnded)
        self.successResultOf(gone)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_dials(self) -> None:
        """The first dial to fail cancels the others, with and without a timeout."""
        for timeout in (None, 5):
            gateway = self.client()
            dials = [gateway.endpoint.dial(1, timeout) for _ in range(3)]
            fired: list[Any] = []
            for one in dials:
                one.addErrback(fired.append)
            dials[0].addBoth(cancelling(*dials))
            self.ends(gateway, ConnectionLost())
            self.assertEqual(len(fired), 3)

    def test_refused(self) -> None:
        """A refused dial cancels the next, whose refusal came with it."""
        gateway = self.client()
        first, second = gateway.endpoint.dial(1), gateway.endpoint.dial(2)
        first.addErrback(cancelling(second))
        gateway.say(refuse(1) + refuse(2))
        self.failureResultOf(second, CancelledError)
        self.assertIsNone(gateway.endpoint.ended)

    def test_senders(self) -> None:
        """Of those who wait to send the first to go on cancels the others: the link lives."""
        gateway = self.client()
        conn = self.connected(gateway)
        gateway.transport.fill()
        sending = [conn.send(b"x") for _ in range(3)]
        sending[0].addCallback(cancelling(*sending[1:]))
        gateway.transport.drain()
        for one in sending[1:]:
            self.failureResultOf(one, CancelledError)
        self.assertIsNone(gateway.endpoint.ended)
        self.successResultOf(conn.send(b"y"))

    def test_senders_at_the_end(self) -> None:
        gateway = self.client()
        conn = self.connected(gateway)
        gateway.transport.fill()
        sending = [conn.send(b"x") for _ in range(3)]
        sending[0].addErrback(cancelling(*sending[1:]))
        for one in sending[1:]:
            silent(one)
        self.ends(gateway)

    def test_pings(self) -> None:
        gateway = self.client()
        pings = [gateway.endpoint.ping() for _ in range(3)]
        pings[0].addCallback(cancelling(pings[2]))
        gateway.say(PING)
        self.successResultOf(pings[1])
        self.failureResultOf(pings[2], CancelledError)

    def test_readers(self) -> None:
        """The first to hear of the close cancels the others."""
        gateway = self.client()
        conn = self.connected(gateway)
        reading = [conn.receive() for _ in range(3)]
        reading[0].addErrback(cancelling(*reading[1:]))
        over = conn.when_ended()
        gateway.say(CLOSED)
        for one in reading[1:]:
            self.failureResultOf(one, CancelledError)
        self.assertIsInstance(self.successResultOf(over), ConnectionEnded)

    def test_reader_of_a_bad_message(self) -> None:
        """Whoever hears that a message did not decode may cancel the one that waited for it."""
        for how in ("on_end", "when_ended", "receive"):
            gateway = self.client(message_format=Text())
            conn = self.connected(gateway)
            first = conn.receive()
            if how == "on_end":
                conn.on_end(cancelling(first))
            elif how == "when_ended":
                conn.when_ended().addCallback(cancelling(first))
            else:
                conn.receive().addErrback(cancelling(first))
            gateway.say(packet(FIRST, b"\xff"))
            self.failureResultOf(first, CancelledError)
            self.assertIsInstance(conn.ended, BadMessage)
            self.assertIsNone(gateway.endpoint.ended)
            self.assertEqual(gateway.heard()[-len(CLOSED) :], CLOSED)

    def test_reader_cancelled_by_its_format(self) -> None:
        """A message whose reader goes while it is decoded is the next one's."""
        gateway = self.client()
        conn = self.connected(gateway)
        first, second = conn.receive(), conn.receive()

        class Cancelling(Text):
            def decode(self, data: bytes, into: type[str] | None = None) -> str:
                first.cancel()
                return data.decode()

        conn.message_format = Cancelling()
        gateway.say(HELLO)
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.successResultOf(second), "Hello")

    def test_when_up(self) -> None:
        """Cancelling a neighbour's wait for the login ends the connection, and no more."""
        gateway = self.server()
        waiting = [gateway.endpoint.when_up() for _ in range(3)]
        waiting[0].addCallback(cancelling(waiting[1]))
        silent(waiting[1])
        gateway.log_in()
        self.assertIs(self.successResultOf(waiting[2]), gateway.endpoint)


class EndedTests(ClockTestCase):
    """`on_end` and `when_ended` of a virtual connection."""

    def test_once(self) -> None:
        """It is called once with the connection, however often given; at once if that is over."""
        gateway = self.client()
        conn = self.connected(gateway)
        got: list[Any] = []
        conn.on_end(got.append)
        conn.on_end(got.append)
        gateway.say(CLOSED)
        self.assertEqual(got, [conn])
        conn.on_end(got.append)
        self.assertEqual(got, [conn, conn])
        conn.close()
        gateway.endpoint.close()
        self.assertEqual(got, [conn, conn])

    def test_taken_back(self) -> None:
        """What is taken back is not called, even by one that is called just before it."""
        gateway = self.client()
        conn = self.connected(gateway)
        got: list[str] = []

        def third(_: Any) -> None:
            got.append("third")

        def first(_: Any) -> None:
            got.append("first")
            conn.not_on_end(third)

        def gone(_: Any) -> None:
            got.append("gone")

        for one in (gone, first, third):
            conn.on_end(one)
        conn.not_on_end(gone)
        conn.not_on_end(print)
        gateway.say(CLOSED)
        self.assertEqual(got, ["first"])

    def test_raises(self) -> None:
        """One that raises is logged; the others are called, of all connections, and the end of
        the gateway's connection is told as ever."""
        gateway = self.server()
        gateway.log_in()
        gateway.say(connect(5, 1) + connect(6, 1))
        got: list[int] = []
        for conn in gateway.endpoint.connections:
            conn.on_end(lambda _: 1 / 0)
            conn.on_end(lambda conn: got.append(conn.conn_id))
        over, gone = gateway.endpoint.when_ended(), gateway.endpoint.when_gone()
        with LogLines() as log:
            gateway.say(close(5))
            self.assertEqual(got, [5])
            gateway.gone()
        self.assertEqual(got, [5, 6])
        self.successResultOf(over)
        self.successResultOf(gone)
        self.assertEqual(len(log.lines), 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_cancelled(self) -> None:
        """A wait for the end that is cancelled leaves nothing on the connection."""
        gateway = self.client()
        conn = self.connected(gateway)
        for _ in range(100):
            waiting = conn.when_ended()
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        self.assertFalse(conn._enders)
        over = gateway.endpoint.when_ended()
        over.cancel()
        self.failureResultOf(over, CancelledError)
        self.assertEqual(len(gateway.endpoint.link.closers), 0)

    def test_neighbours(self) -> None:
        """The first to hear of the end cancels the others' waits for it."""
        gateway = self.client()
        conn = self.connected(gateway)
        waiting = [conn.when_ended() for _ in range(3)]
        waiting[0].addCallback(cancelling(*waiting[1:]))
        gateway.say(CLOSED)
        for one in waiting[1:]:
            self.failureResultOf(one, CancelledError)


class NothingHangsTests(ClockTestCase):
    """Waits that are begun just as the link ends, or while it is not read from."""

    def closing(self, gateway: ScriptedGateway) -> None:
        """The gateway's connection is closed by whoever hears that its buffer is full."""
        gateway.endpoint.link.streams.add(cast(Any, Blocking(gateway.endpoint.close)))
        gateway.transport.stuck = True

    def test_send(self) -> None:
        """A message that fills the buffer, whereupon a stream closes all, fails its sender."""
        gateway = self.client()
        conn = self.connected(gateway)
        self.closing(gateway)
        self.failureResultOf(conn.send(b"x"), EndpointEnded)
        self.assertEnded(gateway, EndpointEnded)

    def test_ping(self) -> None:
        """So does a ping, and no timer is left."""
        gateway = self.client(ping_interval=5)
        self.closing(gateway)
        self.failureResultOf(gateway.endpoint.ping(), EndpointEnded)
        self.assertEnded(gateway, EndpointEnded)

    def test_dial(self) -> None:
        for timeout in (None, 5):
            gateway = self.client()
            self.closing(gateway)
            self.failureResultOf(gateway.endpoint.dial(1, timeout), EndpointEnded)
            self.assertEnded(gateway, EndpointEnded)

    def test_ping_while_paused(self) -> None:
        """A ping that is asked for while the gateway is not read from is not forgotten."""
        for callback in (None, [True, False]):
            answers = list(callback or ())

            def go_on(_: GatewayConnection, answers: list[bool] = answers) -> bool:
                return answers.pop(0)

            gateway = self.client(
                receive_queue=1,
                overflow=Overflow.PAUSE,
                timeout_callback=go_on if answers else None,
            )
            conn = self.connected(gateway)
            asked = gateway.endpoint.ping()
            gateway.say(HELLO * 2)
            gateway.clock.advance(5)
            self.successResultOf(conn.receive())
            self.successResultOf(conn.receive())
            self.assertFalse(gateway.paused)
            self.assertNoResult(asked)
            for _ in range(4):
                gateway.clock.advance(5)
            self.failureResultOf(asked, PingTimeout)

    def test_streams_that_raise(self) -> None:
        """A stream that fails to pause or to go on is logged, and is nobody else's trouble."""
        gateway = self.client()
        conn = self.connected(gateway)
        told: list[str] = []
        streams = gateway.endpoint.link.streams
        for _ in range(3):
            streams.add(cast(Any, Blocking(lambda: 1 / 0, lambda: 1 / 0)))
            streams.add(
                cast(Any, Blocking(lambda: told.append("full"), lambda: told.append("drained")))
            )
        with LogLines():
            gateway.transport.fill()
            sending = conn.send(b"x")
            told.clear()
            gateway.transport.drain()
        self.assertEqual(told, ["drained"] * 3)
        self.successResultOf(sending)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        self.assertIsNone(gateway.endpoint.ended)

    def test_gone(self) -> None:
        """`close` fires when all is written and the transport is gone; so does a second one."""
        gateway = self.client()
        first, second = gateway.endpoint.close(), gateway.endpoint.close()
        waiting = gateway.endpoint.when_gone()
        self.assertNoResult(first)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        gateway.gone()
        self.assertIsNone(self.successResultOf(first))
        self.successResultOf(waiting)
        self.successResultOf(gateway.endpoint.close())

    def test_gone_lingers(self) -> None:
        """A gateway that does not take the rest within 5 s is aborted: `close` fires."""
        gateway = self.client()
        closing = gateway.endpoint.close()
        gateway.clock.advance(4.875)
        self.assertFalse(gateway.transport.aborted)
        gateway.clock.advance(0.125)
        self.assertTrue(gateway.transport.aborted)
        gateway.gone(ConnectionLost())
        self.successResultOf(closing)

    def test_never_connected(self) -> None:
        """`close` of a connection that never was fires at once."""
        gateway = ScriptedGateway(EndpointConfig(ping_interval=0))
        endpoint = GatewayFactory(clock=gateway.clock).buildProtocol(None).gateway
        self.assertNoResult(endpoint.when_gone())
        self.successResultOf(endpoint.close())
        self.assertIsInstance(endpoint.ended, FastwayError)

    def test_refused_twice(self) -> None:
        """Two refusals of two dials in one read fail both."""
        gateway = self.client()
        dials = [gateway.endpoint.dial(1) for _ in range(2)]
        gateway.say(refuse(1) * 2)
        for one in dials:
            self.failureResultOf(one, DialRefused)

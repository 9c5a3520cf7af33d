"""Streams over virtual connections and their endpoints, on a clock, beside a scripted gateway."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IListeningPort
from twisted.trial.unittest import SynchronousTestCase

from fastway.address import address_name
from fastway.endpoint import (
    AcceptEndpoint,
    DialEndpoint,
    EndpointConfig,
    FastwayAddress,
    GatewayPool,
    PoolEndpoint,
    VirtualConnection,
    unread,
)
from fastway.errors import (
    AlreadyListening,
    DialFailed,
    DialRefused,
    LocalError,
    ReceiveQueueFull,
)
from tests.support.control import FACTS, told
from tests.support.controlled import ControlTestCase, inline
from tests.support.errors import raised
from tests.support.gateways import OneOf
from tests.support.golden import FIRST, close, connect, packet
from tests.support.logs import LogLines
from tests.support.memory import no_collector
from tests.support.scripted import FAR, ScriptedGateway
from tests.support.tapes import Pull, Tape, noise


def fault(*_: object) -> None:
    raise ZeroDivisionError("a fault of the protocol")


class StreamCase(SynchronousTestCase):
    """An endpoint that accepts streams 1, 2 and so on; the gateway is the test."""

    config = EndpointConfig(receive_queue=1, ping_interval=0)

    def accept(self, *tapes: Tape, **bounds: Any) -> None:
        self.gateway = ScriptedGateway(replace(self.config, **bounds))
        self.clock = self.gateway.clock
        endpoint = AcceptEndpoint(self.gateway.endpoint)
        self.successResultOf(endpoint.listen(OneOf(*tapes)))
        for conn_id in range(1, len(tapes) + 1):
            self.gateway.say(connect(conn_id, FAR))

    def say(self, conn_id: int, data: bytes) -> None:
        self.gateway.say(packet(conn_id, data))

    def turn(self) -> None:
        for _ in range(3):
            self.clock.advance(0)

    def pass_time(self, seconds: float) -> None:
        """Meanwhile the endpoint reads what it was sent, as soon as it reads."""
        for _ in range(round(seconds * 8)):
            self.clock.advance(0.125)
            self.gateway.say(b"")

    def losses(self, tape: Tape) -> list[Any]:
        return [loss.type for loss in tape.losses]


class BoundTests(StreamCase):
    """What a stream that is not read from may hold, and for how long."""

    def test_bytes(self) -> None:
        """A paused stream may have so many bytes unread, in as many pieces as they come; with
        one more the endpoint is not read from until the stream is."""
        tape, sibling = Tape(), Tape()
        self.accept(tape, sibling, stream_buffer=3000)
        tape.wire.pauseProducing()
        for number in range(3000):
            self.say(1, bytes([number & 255]))
        self.assertFalse(self.gateway.paused)
        self.say(2, b"on ")
        self.assertEqual(sibling.received, b"on ")
        self.say(1, b"!")
        self.assertTrue(self.gateway.paused)
        self.say(2, b"and on")
        self.assertEqual(sibling.received, b"on ")
        tape.within("resumeProducing")
        self.assertEqual(tape.received, b"")
        self.turn()
        self.gateway.say(b"")
        self.assertFalse(self.gateway.paused)
        wanted = bytes(number & 255 for number in range(3000)) + b"!"
        self.assertEqual([tape.received, tape.faults], [wanted, []])
        self.assertEqual(sibling.received, b"on and on")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_default(self) -> None:
        """By default it is 256 KiB."""
        tape = Tape()
        self.accept(tape)
        tape.wire.pauseProducing()
        self.say(1, noise(200 * 1024))
        self.say(1, noise(56 * 1024))
        self.assertFalse(self.gateway.paused)
        self.say(1, b"x")
        self.assertTrue(self.gateway.paused)

    def test_stuck(self) -> None:
        """A stream that makes its endpoint wait for too long is closed, alone, and says why; the
        others get what waited."""
        stuck, sibling = Tape(), Tape()
        self.accept(stuck, sibling, stream_buffer=10, pause_timeout=5.0)
        conn = stuck.wire.conn
        stuck.wire.pauseProducing()
        self.say(1, bytes(11))
        self.say(2, b"waits")
        self.gateway.heard()
        self.pass_time(4.875)
        self.assertEqual([stuck.losses, sibling.received], [[], b""])
        with LogLines() as log:
            self.pass_time(0.25)
        self.assertEqual(sibling.received, b"waits")
        self.assertFalse(self.gateway.paused)
        self.assertEqual(self.gateway.heard(), close(1))
        self.turn()
        self.assertEqual([self.losses(stuck), stuck.received], [[ConnectionLost], b""])
        text = "too much was unread: 1 messages, 11 bytes"
        self.assertIn(text, str(stuck.losses[0].value))
        self.assertEqual([text in line for line in log.lines], [True])
        self.assertIsInstance(conn.ended, ReceiveQueueFull)
        self.assertEqual(conn.ended.size, 11)
        self.assertEqual([sibling.losses, self.clock.getDelayedCalls()], [[], []])
        self.say(2, b" on")
        self.assertEqual(sibling.received, b"waits on")

    def test_slow(self) -> None:
        """Each time that it is read on the time begins anew; a stream within its bound has no
        time set."""
        tape = Tape()
        self.accept(tape, stream_buffer=10, pause_timeout=5.0)
        for _ in range(4):
            tape.wire.pauseProducing()
            self.gateway.say(packet(1, bytes(11)) + packet(1, bytes(5)))  # in one read
            self.assertTrue(self.gateway.paused)
            self.pass_time(4.5)
            tape.wire.resumeProducing()
            self.turn()
            self.assertFalse(self.gateway.paused)
        tape.wire.pauseProducing()
        self.say(1, bytes(10))
        self.pass_time(100.0)
        self.assertEqual([len(tape.received), tape.losses], [64, []])

    def test_ended_while_it_holds(self) -> None:
        """A stream that ends while its endpoint waits for it leaves nothing scheduled."""
        ends: list[Callable[[Tape], object]] = [
            lambda tape: tape.within("loseConnection"),
            lambda tape: tape.within("abortConnection"),
            lambda tape: self.gateway.gone(ConnectionLost()),
            lambda tape: self.gateway.endpoint.close(),
        ]
        for end in ends:
            tape = Tape()
            self.accept(tape, stream_buffer=10)
            tape.wire.pauseProducing()
            self.say(1, bytes(11))
            end(tape)
            if self.gateway.endpoint.ended is not None:
                tape.wire.resumeProducing()
                if self.gateway.transport.connected:
                    self.gateway.gone()
            self.turn()
            self.assertEqual([len(tape.losses), tape.faults], [1, []])
            self.assertEqual(self.clock.getDelayedCalls(), [])


class RestTests(StreamCase):
    """What a stream that has ended leaves unread counts, and goes first."""

    def test_dropped(self) -> None:
        """Where all hold too much a closed stream's rest is dropped, and its protocol told."""
        self.patch(unread, "OVERHEAD", 0)
        tape, sibling = Tape(), Tape()
        self.accept(tape, sibling, receive_total=100)
        for one in (tape, sibling):
            one.wire.pauseProducing()
        self.say(1, bytes(60))
        self.gateway.say(close(1))
        self.turn()
        self.assertEqual(tape.losses, [])
        self.say(2, bytes(40))
        self.assertEqual(self.gateway.endpoint.link.unread.size, 100)
        self.say(2, b"x")
        self.turn()
        self.assertEqual([self.losses(tape), tape.received], [[ConnectionLost], b""])
        self.assertIsInstance(tape.wire.conn.ended, ReceiveQueueFull)
        self.assertEqual(self.gateway.endpoint.link.unread.size, 41)
        self.assertEqual(sibling.losses, [])
        tape.within("resumeProducing")
        self.turn()
        self.assertEqual([len(tape.losses), self.clock.getDelayedCalls()], [1, []])


class EndTests(StreamCase):
    """How a stream ends that does not end in good order."""

    def test_protocol_fault(self) -> None:
        """A protocol that raises amid what it is sent is told of a ConnectionLost with what it
        raised; the wire has but one word for it."""
        tape = Tape()
        self.accept(tape)
        tape.on_data = fault
        conn = tape.wire.conn
        self.gateway.heard()
        self.say(1, b"x")
        self.assertEqual(self.gateway.heard(), close(1))
        self.turn()
        self.assertEqual(self.losses(tape), [ConnectionLost])
        self.assertIn("unhandled error in", str(tape.losses[0].value))
        self.assertIsInstance(conn.ended.cause, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_producer_fault(self) -> None:
        """The same with a producer."""
        tape = Tape()
        self.accept(tape)
        producer = Pull(tape.wire, [])
        producer.resumeProducing = fault  # type: ignore[method-assign]
        tape.wire.registerProducer(producer, False)
        self.turn()
        self.assertEqual([self.losses(tape), producer.stopped], [[ConnectionLost], 1])
        self.assertEqual(self.gateway.endpoint.link.streams, set())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_fault_after_the_end(self) -> None:
        """One that raises at what came before the far end's close has not had all: that is no
        ConnectionDone."""
        tape = Tape()
        self.accept(tape)
        tape.on_data = fault
        tape.wire.pauseProducing()
        self.say(1, b"x")
        self.gateway.say(close(1))
        self.turn()
        self.assertEqual(tape.losses, [])
        tape.wire.resumeProducing()
        self.turn()
        self.assertEqual(self.losses(tape), [ConnectionLost])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_abort_after_the_end(self) -> None:
        """abortConnection and loseConnection with bytes unread behind the far end's close drop
        them, and tell of the loss."""
        for end in ("abortConnection", "loseConnection"):
            tape = Tape()
            self.accept(tape)
            tape.wire.pauseProducing()
            self.say(1, b"x")
            self.gateway.say(close(1))
            tape.within(end)
            tape.within("resumeProducing")
            self.turn()
            self.assertEqual([self.losses(tape), tape.received], [[ConnectionDone], b""])

    def test_fault_in_connection_lost(self) -> None:
        """What connectionLost raises is logged, and the factory is stopped all the same."""

        class Faulty(Tape):
            def connectionLost(self, reason: Any = None) -> None:
                fault()

        gateway = ScriptedGateway(self.config)
        factory = OneOf(tape := Faulty())
        DialEndpoint(gateway.endpoint, FAR).connect(factory)
        gateway.answer()
        tape.wire.abortConnection()
        gateway.clock.advance(0)
        self.assertEqual(factory.numPorts, 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class FactoryTests(SynchronousTestCase):
    """Factories are started and stopped as Twisted's own endpoints do."""

    def setUp(self) -> None:
        self.gateway = ScriptedGateway(EndpointConfig(ping_interval=0))

    def test_used(self) -> None:
        """From connect on until its protocol has heard of the loss, whoever ends it."""
        for end in ("loseConnection", "abortConnection"):
            factory = OneOf(tape := Tape())
            connecting = DialEndpoint(self.gateway.endpoint, FAR).connect(factory)
            self.assertEqual(factory.numPorts, 1)
            self.gateway.answer()
            self.assertIs(self.successResultOf(connecting), tape)
            getattr(tape.wire, end)()
            self.assertEqual([factory.numPorts, tape.losses], [1, []])
            self.gateway.clock.advance(0)
            self.assertEqual([factory.numPorts, len(tape.losses)], [0, 1])
        kinds = {"loseConnection": ConnectionDone, "abortConnection": ConnectionAborted}
        self.assertEqual(tape.losses[0].type, kinds[end])

    def test_not_used(self) -> None:
        """It is stopped, once, when nothing comes of the dial."""

        class Bad(OneOf):
            def buildProtocol(self, addr: Any) -> Any:
                fault()

        class Faulty(Tape):
            def connectionMade(self) -> None:
                fault()

        endpoint = self.gateway.endpoint
        cases: list[tuple[Any, int, type[Exception]]] = [
            (OneOf(Tape()), 9, DialRefused),
            (OneOf(), FAR, DialFailed),
            (Bad(), FAR, ZeroDivisionError),
            (OneOf(Faulty()), FAR, ZeroDivisionError),
            (OneOf(Tape()), -1, ValueError),
        ]
        for factory, remote_id, error in cases:
            factory.doStart()  # by somebody else, too
            connecting = DialEndpoint(endpoint, remote_id).connect(factory)
            self.gateway.answer()
            self.failureResultOf(connecting, error)
            self.gateway.clock.advance(0)
            self.assertEqual(factory.numPorts, 1)
        factory = OneOf(Tape())
        connecting = DialEndpoint(endpoint, FAR).connect(factory)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(factory.numPorts, 0)


class ListenTests(SynchronousTestCase):
    """Who listens where."""

    def setUp(self) -> None:
        self.gateway = ScriptedGateway(EndpointConfig(ping_interval=0))
        self.endpoint = self.gateway.endpoint
        self.last = 0

    def listen(self, factory: Any) -> IListeningPort:
        return self.successResultOf(AcceptEndpoint(self.endpoint).listen(factory))

    def dialled(self) -> None:
        self.last += 1
        self.gateway.say(connect(self.last, FAR))

    def test_second(self) -> None:
        """A second one is refused, and the first one goes on; once that has stopped, another one
        may listen."""
        first, second = OneOf(Tape(), Tape()), OneOf(Tape())
        port = self.listen(first)
        refused = AcceptEndpoint(self.endpoint).listen(second)
        error: Any = self.failureResultOf(refused, AlreadyListening).value
        self.assertIs(error.source, self.endpoint)
        self.dialled()
        self.assertEqual([first.given, second.given], [1, 0])
        self.assertEqual([first.numPorts, second.numPorts], [1, 0])
        port.stopListening()
        self.dialled()
        self.assertEqual(self.gateway.heard(), close(2))
        again = self.listen(second)
        port.stopListening()  # a second time: it is another's by now
        self.dialled()
        self.assertEqual([first.given, second.given], [1, 1])
        self.assertEqual([first.numPorts, second.numPorts], [0, 1])
        again.stopListening()
        port.startListening()
        self.dialled()
        self.assertEqual([first.given, first.numPorts, second.numPorts], [2, 1, 0])

    def test_beside_a_function(self) -> None:
        """The application's own function is not robbed, either."""
        taken: list[VirtualConnection[Any]] = []
        self.endpoint.listen(taken.append)
        refused = AcceptEndpoint(self.endpoint).listen(OneOf(Tape()))
        self.failureResultOf(refused, AlreadyListening)
        self.dialled()
        self.assertEqual(len(taken), 1)
        self.endpoint.listen(None)
        self.listen(OneOf(Tape()))

    def test_pool(self) -> None:
        """The same with a pool, which runs on."""
        pool = GatewayPool({}, 1, clock=self.gateway.clock)
        first, second = OneOf(), OneOf()
        port = self.successResultOf(PoolEndpoint(pool).listen(first))
        self.failureResultOf(PoolEndpoint(pool).listen(second), AlreadyListening)
        self.assertEqual([pool.running, first.numPorts, second.numPorts], [1, 1, 0])
        port.stopListening()
        self.assertEqual([pool.running, first.numPorts], [0, 0])
        self.successResultOf(PoolEndpoint(pool).listen(second)).stopListening()
        self.assertEqual([pool.running, second.numPorts], [0, 0])

    def test_serve(self) -> None:
        """`serve` starts the pool and runs a handler; one way of taking at a time, and a port
        that was closed is none."""
        pool = GatewayPool({}, 1, clock=self.gateway.clock)
        endpoint = PoolEndpoint(pool)
        port = self.successResultOf(endpoint.listen(OneOf()))
        raised(AlreadyListening, endpoint.serve, print)
        self.assertEqual(pool.running, 1)
        port.stopListening()
        serving = endpoint.serve(print, limit=5, grace=2)
        self.assertEqual([pool.running, pool.serving is serving], [1, True])
        raised(LocalError, endpoint.serve, print)
        self.failureResultOf(endpoint.listen(OneOf()), LocalError)
        self.assertEqual(pool.running, 1)
        stopping = pool.stopService()
        self.gateway.clock.advance(0)
        self.successResultOf(stopping)


class MemoryTests(StreamCase):
    def test_nothing_stays(self) -> None:
        """When a stream's protocol has heard of its loss, nothing is left for the collector, in
        whatever way it ended."""
        ends: list[Callable[[Tape], object]] = [
            lambda _: self.gateway.say(close(1)),
            lambda tape: tape.wire.loseConnection(),
            lambda tape: tape.wire.abortConnection(),
            lambda _: self.gateway.gone(),
        ]
        for end in ends:
            tape = Tape()
            self.accept(tape)
            guest = weakref.ref(self.gateway.endpoint.connections[0])
            with no_collector():
                self.say(1, b"hello")
                end(tape)
                self.gateway.say(b"")
                self.turn()
                self.assertEqual(len(tape.losses), 1)
                del tape
                self.gateway.endpoint.listen(None)
                self.assertIsNone(guest())


class PlayerTests(ControlTestCase):
    """Streams of players of whom the gateway tells."""

    def test_address(self) -> None:
        """getPeer gives the player's own address as the gateway told it, and the factory is told
        of it too; without a word of the gateway it is empty."""
        gateway = self.greeted()
        tapes = [Tape() for _ in range(3)]
        factory = OneOf(*tapes)
        self.successResultOf(AcceptEndpoint(gateway.endpoint).listen(factory))
        facts = {**FACTS, "client": 7, "addr": "2001:db8::9", "port": 4711}
        gateway.tells(told("open", conn=FIRST, **facts))
        gateway.say(connect(FIRST, 7))
        gateway.say(inline(connect(FIRST + 1, 7), told("open", conn=FIRST + 1, **facts)))
        gateway.say(connect(FIRST + 2, 7))
        link = gateway.endpoint.address
        for number, host, port in ((0, "2001:db8::9", 4711), (1, "2001:db8::9", 4711), (2, "", 0)):
            there = FastwayAddress(link, 7, FIRST + number, host, port)
            self.assertEqual(tapes[number].wire.getPeer(), there)
            self.assertEqual(factory.addresses[number], there)
            self.assertEqual(tapes[number].wire.getHost().host, "")
            name = f"[{host}]:{port}" if host else f"id 7 at {address_name(link)}"
            self.assertEqual(address_name(tapes[number].wire.getPeer()), name)
        gateway.tells(told("moved", client=7, addr="198.51.100.4"))
        moved = tapes[0].wire.getPeer()
        self.assertEqual((moved.host, moved.port), ("198.51.100.4", 0))
        gateway.gone()
        gateway.clock.advance(0)
        self.assertEqual(tapes[0].wire.getPeer(), moved)  # what connectionLost may look at

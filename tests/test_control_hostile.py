"""The control connection of a link, when the gateway or its own users do their worst.

Rule: only the control connection ends, or the link with a clear reason if the link's own protocol
is broken; whoever waited is told once, and no timer is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.endpoint import EndpointConfig, GatewayConnection
from fastway.endpoint.connect import GatewayFactory
from fastway.errors import (
    BadControl,
    ConnectionEnded,
    EndpointEnded,
    NoControl,
    Unexpected,
)
from tests.support.control import (
    FACTS,
    UNIX,
    ControlEnd,
    asked,
    denied,
    done,
    told,
    welcome,
)
from tests.support.controlled import CONTROL, ControlledGateway, ControlTestCase, inline
from tests.support.core import DETERMINISTIC
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
    split,
)
from tests.support.scripted import CHALLENGE, SERVER_ID, ScriptedGateway
from tests.support.snet import Dialling


class LyingGatewayTests(ControlTestCase):
    """A gateway that says what it must not."""

    def broken(self, gateway: ScriptedGateway, waits: Any) -> NoControl:
        """It closed the control connection, and nothing but that."""
        error: NoControl = self.fails(NoControl, waits)
        self.assertEqual(gateway.heard(), close(CONTROL))
        self.alone_over(gateway)
        gateway.heard()
        gateway.say(packet(CONTROL, done(1)) + packet(CONTROL, b"\0"))  # they crossed
        gateway.say(close(CONTROL))
        self.alone_over(gateway)
        return error

    def test_lies(self) -> None:
        """Over the control connection: garbage, answers that nobody asked for, wrong ones."""
        for message in (
            b"",
            b"\xff",
            b"{}",
            b"[" * 1000,
            bytes(100_000),
            done(2),
            done(2, unix=-1),
            done(77, unix=1),
            done(1, v=1),
            told("bye", code=1, reason="x") + b"\n",
            told("open", conn=FIRST),
        ):
            gateway = self.greeted()
            waits = gateway.control.time()
            gateway.heard()
            gateway.tells(message)
            self.assertIsInstance(self.broken(gateway, waits).cause, BadControl)

    def test_lies_inline(self) -> None:
        """Behind a command's arguments: the command itself is good."""
        for garbage in (b"x", b"\xff", told("open", conn=FIRST + 5, **FACTS), told("bye")):
            gateway = self.greeted()
            waits = gateway.control.time()
            gateway.heard()
            gateway.say(inline(connect(FIRST, 1), garbage))
            (conn,) = gateway.endpoint.connections
            self.broken(gateway, waits)
            self.assertIsNone(conn.ended)
            gateway = self.greeted()
            gateway.say(connect(FIRST, 1))
            (conn,) = gateway.endpoint.connections
            waits = gateway.control.time()
            gateway.heard()
            gateway.say(inline(close(FIRST), garbage))
            self.assertEqual(str(conn.ended), "closed by the far end")
            self.broken(gateway, waits)

    def test_inline_told_to_the_closer(self) -> None:
        """Who is told of the lie closes the link: the connection is nobody's any more."""
        for accepts in (True, False):
            gateway = self.greeted()
            gateway.control.time().addErrback(lambda _, one=gateway: one.endpoint.close())
            dialling = gateway.endpoint.dial(1)
            if accepts:
                gateway.endpoint.serve(lambda conn: self.fail("served"))
            gateway.say(inline(connect(FIRST, 1), b"x") + accept(FIRST + 1, 1))
            self.fails(EndpointEnded, dialling)
            self.assertEqual(gateway.endpoint.connections, [])
            self.assertFalse(gateway.endpoint._waiting)

    def test_silent(self) -> None:
        """It opens one, and never greets."""
        gateway = self.dialled()
        waits = gateway.endpoint.when_control()
        gateway.say(accept(CONTROL, 0))
        gateway.heard()
        gateway.clock.advance(9.75)
        self.assertNoResult(waits)
        gateway.clock.advance(0.25)
        self.assertEqual(gateway.heard(), close(CONTROL))
        self.assertIsNone(self.successResultOf(waits))
        self.alone_over(gateway)

    def test_bad_greeting(self) -> None:
        """It refuses hello, speaks another version, or speaks before it greets."""
        for message in (denied(1, "unknown"), welcome(1, v=2), told("lost", events=1)):
            gateway = self.dialled()
            waits = gateway.endpoint.when_control()
            gateway.say(accept(CONTROL, 0))
            gateway.heard()
            gateway.say(packet(CONTROL, message))
            self.assertIsNone(self.successResultOf(waits))
            self.assertEqual(gateway.heard(), close(CONTROL))
            self.alone_over(gateway)

    def test_closed_by_it(self) -> None:
        """It closes it: before the greeting, while requests wait, with requests unsent."""
        gateway = self.dialled()
        waits = gateway.endpoint.when_control()
        gateway.say(accept(CONTROL, 0) + close(CONTROL))
        self.assertIsNone(self.successResultOf(waits))
        gateway.heard()
        self.alone_over(gateway)
        gateway = self.greeted()
        control = gateway.control
        requests = [control.time() for _ in range(200)]
        gateway.say(close(CONTROL))
        for one in requests:
            self.assertIsNone(self.fails(NoControl, one).cause)
        gateway.heard()
        raised(NoControl, control.time)
        raised(NoControl, control.push, b"x", everyone=True)
        self.assertEqual((gateway.heard(), control.up), (b"", False))
        self.alone_over(gateway)

    def test_its_number_again(self) -> None:
        """Its number is given to a player when it is over: that one is a player like any."""
        for ends in (close(CONTROL), packet(CONTROL, b"x") + close(CONTROL)):
            gateway = self.greeted()
            gateway.say(ends + connect(CONTROL, 5) + packet(CONTROL, b"hello"))
            (conn,) = gateway.endpoint.connections
            self.assertEqual(self.successResultOf(conn.receive()), b"hello")
            gateway.say(close(CONTROL))
            self.assertIsInstance(conn.ended, ConnectionEnded)
            self.assertEqual(gateway.endpoint.connections, [])

    def test_link_broken(self) -> None:
        """It opens it twice, refuses it too, or gives its number away: no protocol any more."""
        for data in (
            accept(CONTROL + 1, 0),
            refuse(0),
            connect(CONTROL, 5),
            accept(CONTROL, 5),
        ):
            gateway = self.greeted()
            control = gateway.control
            waits = [control.time(), control.when_draining()]
            if data == accept(CONTROL, 5):
                gateway.endpoint.dial(5).addErrback(lambda _: None)
            gateway.say(data)
            ended = self.assertEnded(gateway, EndpointEnded, abort=True)
            self.assertIsInstance(ended.cause, Unexpected)
            self.assertIs(self.fails(NoControl, waits[0]).cause, ended)
            self.assertIs(self.fails(EndpointEnded, waits[1]), ended)

    def test_floods(self) -> None:
        """Events without end: what is kept has a bound, what is not costs nothing."""
        gateway = self.greeted()
        waits = gateway.control.time()
        gateway.heard()
        gateway.say(packet(CONTROL, told("moved", client=7, addr="::1")) * 5000)
        gateway.say(packet(CONTROL, told("lost", events=1)) * 10)
        gateway.say(packet(CONTROL, told("rain")) * 5000)
        self.assertNoResult(waits)
        gateway.say(
            b"".join(packet(CONTROL, told("open", conn=FIRST + n, **FACTS)) for n in range(2000))
        )
        self.broken(gateway, waits)

    def test_never_answers(self) -> None:
        """More than it may leave unanswered: it is told so, and the rest ends."""
        gateway = self.greeted()
        control = gateway.control
        for _ in range(1001):
            control.time().addErrback(lambda _: None)
            gateway.clock.advance(0.125)
            if not control.up:
                break
        gateway.clock.advance(10)
        self.assertFalse(control.up)
        self.assertTrue(gateway.heard().endswith(close(CONTROL)))
        self.alone_over(gateway)

    @DETERMINISTIC
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=12).map(lambda data: packet(CONTROL, data)),
                st.sampled_from(
                    [
                        packet(CONTROL, done(1, v=1)),
                        packet(CONTROL, welcome(1)),
                        packet(CONTROL, done(2, unix=UNIX)),
                        packet(CONTROL, done(3, members=1)),
                        packet(CONTROL, denied(3, "full")),
                        packet(CONTROL, told("open", conn=FIRST, **FACTS)),
                        packet(CONTROL, told("closed", conn=FIRST, reason="x")),
                        packet(CONTROL, told("drain", at=1, until=2, again=False)),
                        inline(connect(FIRST, 1), told("open", conn=FIRST, **FACTS)),
                        inline(connect(FIRST, 1), b"garbage"),
                        inline(close(FIRST), b"garbage"),
                        accept(CONTROL, 0),
                        refuse(0),
                        connect(FIRST, 1),
                        packet(FIRST, b"x"),
                        close(FIRST),
                        close(CONTROL),
                    ]
                ),
            ),
            max_size=10,
        ),
        st.booleans(),
        st.booleans(),
    )
    def test_anything(self, said_by_it: list[bytes], greets: bool, at_once: bool) -> None:
        """Whatever it says: nothing is raised, who waits is told once, and no timer stays."""
        gateway = self.greeted() if greets else self.dialled()
        fired: list[Any] = []
        waiting = [gateway.endpoint.when_control()]
        control = gateway.endpoint.control
        if control is not None:
            (conn, *_) = [*gateway.endpoint.connections, None]
            waiting += [control.time(), control.when_draining()]
            if conn is not None:
                waiting.append(control.join("a", [conn]))
        for one in waiting:
            one.addBoth(fired.append)
        for data in [b"".join(said_by_it)] if at_once else said_by_it:
            gateway.say(data)
        ended = gateway.endpoint.ended
        assert ended is None or isinstance(ended.cause, Unexpected), ended
        gateway.clock.advance(30)
        gateway.gone()
        gateway.clock.advance(30)
        self.assertEqual(len(fired), len(waiting))
        self.assertEqual(gateway.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])


class ReentrancyTests(ControlTestCase):
    """What who is told then does."""

    def test_closes_the_link(self) -> None:
        """In each place in which a callback may."""
        places: list[tuple[Callable[[ControlledGateway], Any], bytes]] = [
            (lambda gateway: gateway.control.time(), packet(CONTROL, done(2, unix=1))),
            (lambda gateway: gateway.control.time(), packet(CONTROL, b"garbage")),
            (lambda gateway: gateway.control.time(), close(CONTROL)),
            (
                lambda gateway: gateway.control.when_draining(),
                packet(CONTROL, told("drain", at=1, until=2, again=True)),
            ),
        ]
        for wait, data in places:
            gateway = self.greeted()
            fired: list[Any] = []
            wait(gateway).addBoth(
                lambda result, seen=fired, one=gateway: (seen.append(result), one.endpoint.close())
            )
            others = [gateway.control.time() for _ in range(3)]
            gateway.say(data + connect(FIRST, 1) + packet(CONTROL, done(3, unix=1)))
            self.assertEqual(len(fired), 1)
            for one in others:
                self.fails(NoControl, one)
            self.assertEqual(gateway.endpoint.connections, [])
            self.assertEnded(gateway, EndpointEnded)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_asks_again(self) -> None:
        """A chain of requests, each made where the last was answered; and a kick there."""
        gateway = self.greeted()
        (conn,) = gateway.guests(1)
        control = gateway.control
        times: list[float] = []

        def again(unix: float) -> None:
            times.append(unix)
            if len(times) < 300:
                control.time().addCallback(again)
            else:
                control.kick(conn).addCallback(lambda _: control.push(b"x", conns=[conn]))

        control.time().addCallback(again)
        for _ in range(1000):
            gateway.settle()
            gateway.clock.advance(0.125)
        self.assertEqual((len(times), gateway.end.kicked), (300, [1]))
        self.assertEqual(gateway.got[conn.conn_id], [b"x"])
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_asks_at_the_end(self) -> None:
        """Who is told of the end asks: that fails at once, and nothing is left."""
        gateway = self.greeted()
        control = gateway.control
        (conn,) = gateway.guests(1)
        errors: list[Any] = []

        def ask(_: Any) -> None:
            try:
                control.time().addErrback(lambda failure: errors.append(failure.value))
            except NoControl as error:
                errors.append(error)

        conn.on_end(ask)
        control.time().addErrback(ask)
        control.when_draining().addErrback(ask)
        gateway.endpoint.when_ended().addCallback(ask)
        gateway.gone()
        self.assertEqual([type(error) for error in errors], [NoControl] * 4)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_cancels_the_neighbours(self) -> None:
        """A waiter's callback cancels the others, of every kind."""
        gateway = self.greeted()
        control = gateway.control
        waits: list[Any] = []

        def cancel(_: Any) -> None:
            for one in waits:
                one.cancel()

        for _ in range(3):
            waits.append(control.time().addBoth(cancel))
            waits.append(control.when_draining().addBoth(cancel))
        gateway.gone()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertFalse(control._waiters)

    def test_closed_by_a_full_transport(self) -> None:
        """Asking fills the transport, and a stream that is told of it closes the link."""
        gateway = self.greeted()

        class Stream:
            def endpoint_full(self) -> None:
                gateway.endpoint.close()

            def endpoint_drained(self) -> None:
                pass

        gateway.endpoint.link.streams.add(Stream())
        gateway.transport.stuck = True
        waits = gateway.control.time()
        self.fails(NoControl, waits)
        self.assertEnded(gateway, EndpointEnded)


class SnetTests(SynchronousTestCase):
    """Over snet: the stream is cut, and comes back."""

    def test_cut_and_resumed(self) -> None:
        """What was asked during the cut is answered after it."""
        made: list[GatewayConnection] = []
        factory = GatewayFactory(
            EndpointConfig(ping_interval=0), SERVER_ID, KEY, Clock(), made.append
        )
        bench = Dialling(factory)
        factory.clock = cast(Any, bench.clock)
        wire = bench.new()
        (gateway,) = made

        def heard() -> bytes:
            return bytes(bench.script.take(wire.take()))

        def say(data: bytes) -> None:
            wire.feed(bench.script.send(data))

        say(CHALLENGE)
        self.assertEqual(heard(), prove(CHALLENGE, SERVER_ID) + PING)
        say(PING)
        self.assertEqual(heard(), dial(0))
        say(accept(CONTROL, 0))
        end = ControlEnd()
        ((_, hello),) = split(heard())
        end.hear(hello)
        say(packet(CONTROL, end.answers.pop(1)))
        control = gateway.control
        assert control is not None
        wire.broken()
        waits = control.time()
        bench.pass_time(1)
        wire = bench.resume()
        ((_, message),) = split(heard())
        fields, _ = asked(message)
        say(packet(CONTROL, done(fields["id"], unix=UNIX)))
        self.assertEqual(self.successResultOf(waits), UNIX)
        self.assertIs(gateway.control, control)

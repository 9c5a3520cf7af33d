"""The control connection of a server's link, over golden bytes on a clock.

Rule: whatever the gateway says, the control connection ends at worst; whoever waited is told, no
timer is left, and players notice nothing.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost

from fastway.control import Bye, Draining, PlayerFacts
from fastway.errors import (
    ConnectionEnded,
    DialRefused,
    EndpointEnded,
    NoControl,
    RequestRefused,
    RequestsFull,
    RequestTimeout,
)
from tests.support.control import FACTS, UNIX, asked, told, welcome
from tests.support.controlled import CONTROL, ControlTestCase, inline
from tests.support.errors import raised
from tests.support.golden import FIRST, PING, accept, close, connect, dial, packet, refuse, split
from tests.support.scripted import CHALLENGE

BYE = told("bye", code=1001, reason="shutdown")
DRAIN = told("drain", at=1, until=61.5, again=True)
WHO = PlayerFacts.read(FACTS)


class OpeningTests(ControlTestCase):
    """From the login to the greeting."""

    def test_asked_after_the_login(self) -> None:
        """It is dialled when the gateway has taken the login, not with it."""
        gateway = self.server(control=True)
        self.assertEqual(gateway.heard(), b"")
        gateway.say(CHALLENGE)
        self.assertTrue(gateway.heard().endswith(PING))
        self.assertFalse(gateway.endpoint.up)
        gateway.say(PING)
        self.assertEqual(gateway.heard(), dial(0))

    def test_never_asked(self) -> None:
        """Clients do not, nor servers that are told not to; it is known at once."""
        client = self.client()
        self.assertIsNone(self.successResultOf(client.endpoint.when_control()))
        gateway = self.server(control=False)
        self.assertIsNone(self.successResultOf(gateway.endpoint.when_control()))
        gateway.log_in()
        for one in (client, gateway):
            self.assertEqual((one.heard(), one.endpoint.control), (b"", None))
            self.assertIsNone(self.successResultOf(one.endpoint.when_control()))

    def test_greeted(self) -> None:
        """hello is the first to be said; `control` is there when it is answered."""
        gateway = self.server(control=True)
        early = gateway.endpoint.when_control()
        gateway.log_in()
        gateway.heard()
        waits = gateway.endpoint.when_control()
        gateway.say(accept(CONTROL, 0))
        ((conn_id, message),) = split(gateway.heard())
        fields, _ = asked(message)
        self.assertEqual((conn_id, fields["op"], fields["v"]), (CONTROL, "hello", 1))
        self.assertEqual(set(fields["want"]), {"open", "closed", "moved", "drain", "inline"})
        self.assertIsNone(gateway.endpoint.control)
        self.assertNoResult(waits)
        self.assertEqual(gateway.endpoint.connections, [])
        gateway.say(packet(CONTROL, welcome(fields["id"])))
        control = self.successResultOf(waits)
        assert control is not None and control.welcome is not None
        self.assertEqual(control.welcome.gateway, "gw1")
        self.assertEqual(repr(control), "<Control, open>")
        for one in (early, gateway.endpoint.when_control()):
            self.assertIs(self.successResultOf(one), control)
        self.assertIs(gateway.endpoint.control, control)
        self.assertEqual((gateway.heard(), gateway.clock.getDelayedCalls()), (b"", []))

    def test_refused(self) -> None:
        """A gateway without one: nothing else notices."""
        gateway = self.dialled()
        waits = gateway.endpoint.when_control()
        gateway.say(refuse(0))
        self.assertIsNone(self.successResultOf(waits))
        self.alone_over(gateway)

    def test_told_of_the_refusal(self) -> None:
        """Who is told of it closes the link: what came in the same read is nobody's."""
        gateway = self.dialled()
        gateway.endpoint.when_control().addCallback(lambda _: gateway.endpoint.close())
        gateway.say(refuse(0) + connect(FIRST, 1) + packet(FIRST, b"x"))
        self.assertEqual(gateway.endpoint.connections, [])
        self.assertFalse(gateway.endpoint._waiting)
        self.assertEnded(gateway, EndpointEnded)

    def test_dialled_by_hand(self) -> None:
        """A server's own Dial(0) is another: it is refused while the first is open."""
        gateway = self.dialled()
        mine = gateway.endpoint.dial(0)
        waits = gateway.endpoint.when_control()
        gateway.say(accept(CONTROL, 0) + refuse(0))
        self.fails(DialRefused, mine)
        gateway.say(packet(CONTROL, welcome(1)))
        self.assertIs(self.successResultOf(waits), gateway.endpoint.control)

    def test_link_ends_first(self) -> None:
        """Whoever waits for it hears None, however far it had come."""
        for told_before in (
            b"",
            CHALLENGE,
            CHALLENGE + PING,
            CHALLENGE + PING + accept(CONTROL, 0),
        ):
            gateway = self.server(control=True)
            waits = gateway.endpoint.when_control()
            gateway.say(told_before)
            gateway.gone()
            self.assertIsNone(self.successResultOf(waits))
            self.assertIsNone(self.successResultOf(gateway.endpoint.when_control()))
            self.assertEqual(gateway.clock.getDelayedCalls(), [])


class FactsTests(ControlTestCase):
    """What is told of players."""

    def test_told_before(self) -> None:
        """The facts are there when a connection is handed over, in events and inline."""
        opens = told("open", conn=FIRST, **FACTS)
        for data in (
            packet(CONTROL, opens) + connect(FIRST, 7),
            inline(connect(FIRST, 7), opens),
        ):
            gateway = self.greeted()
            told_of: list[Any] = []

            def listener(conn: Any, seen: list[Any] = told_of) -> None:
                seen.append(conn.facts)

            gateway.endpoint.listen(listener)
            gateway.say(data)
            self.assertEqual(told_of, [WHO])
            gateway = self.greeted()
            waits = gateway.endpoint.accept()
            gateway.say(data)
            self.assertEqual(self.successResultOf(waits).facts, WHO)

            async def handler(conn: Any, seen: list[Any] = told_of) -> None:
                seen.append(conn.facts)

            gateway = self.greeted()
            gateway.endpoint.serve(handler)
            gateway.say(data)
            self.assertEqual(told_of, [WHO, WHO])
            gateway = self.greeted()
            waits = gateway.endpoint.dial(7)
            gateway.say(packet(CONTROL, opens) + accept(FIRST, 7))
            self.assertEqual(self.successResultOf(waits).facts, WHO)

    def test_without(self) -> None:
        """A gateway that tells nothing of one, and one that has no control connection."""
        gateway = self.greeted()
        gateway.say(connect(FIRST, 7))
        self.assertIsNone(gateway.endpoint.connections[0].facts)
        other = self.dialled()
        other.say(refuse(0) + inline(connect(FIRST, 7), told("open", conn=FIRST, **FACTS)))
        self.assertIsNone(other.endpoint.connections[0].facts)

    def test_moved(self) -> None:
        """All connections of the client that moved know, and no others."""
        gateway = self.greeted()
        for number, client in ((FIRST, 7), (FIRST + 1, 8), (FIRST + 2, 7)):
            gateway.tells(told("open", conn=number, **{**FACTS, "client": client}))
            gateway.say(connect(number, client))
        gateway.say(connect(FIRST + 3, 7))
        gateway.tells(told("moved", client=7, addr="198.51.100.4"))
        facts = [conn.facts for conn in gateway.endpoint.connections]
        self.assertEqual(
            [None if one is None else one.addr for one in facts],
            ["198.51.100.4", "203.0.113.9", "198.51.100.4", None],
        )
        # The event does not tell the port, and the old one is not of the new address.
        ports = [None if one is None else one.port for one in facts]
        self.assertEqual(ports, [0, FACTS["port"], 0, None])
        gateway.tells(told("moved", client=99, addr="::1"))

    def test_closed_why(self) -> None:
        """The reason stands in the error of the connection, however it was told."""
        why = told("closed", conn=FIRST, reason="idle_timeout")
        for data in (packet(CONTROL, why) + close(FIRST), inline(close(FIRST), why)):
            gateway = self.greeted()
            gateway.say(connect(FIRST, 7))
            (conn,) = gateway.endpoint.connections
            waits = conn.receive()
            gateway.say(data)
            error = self.fails(ConnectionEnded, waits)
            self.assertEqual(str(error), "closed by the far end: idle_timeout")
            gateway.say(connect(FIRST, 7))
            (conn,) = gateway.endpoint.connections
            gateway.say(close(FIRST))
            self.assertEqual(str(conn.ended), "closed by the far end")

    def test_bye(self) -> None:
        """What the gateway said before it went is in the reason, whether it closes or breaks."""
        gateway = self.greeted()
        gateway.tells(BYE)
        self.assertEqual(gateway.control.bye, Bye(1001, "shutdown"))
        gateway.gone()
        self.assertEqual(str(gateway.endpoint.ended), "closed by the gateway: shutdown")
        gateway = self.greeted()
        gateway.tells(BYE)
        gateway.gone(ConnectionLost())
        self.assertIn("broke", str(gateway.endpoint.ended))
        self.assertIn("shutdown", str(gateway.endpoint.ended))

    def test_draining(self) -> None:
        """It is told to who waits, and to who asks later."""
        gateway = self.greeted()
        control = gateway.control
        waits, given_up = control.when_draining(), control.when_draining()
        given_up.addErrback(lambda _: None).cancel()
        self.assertIsNone(control.draining)
        gateway.tells(DRAIN)
        draining = Draining(1.0, 61.5, True)
        self.assertEqual(self.successResultOf(waits), draining)
        self.assertEqual(control.draining, draining)
        self.assertEqual(self.successResultOf(control.when_draining()), draining)
        gateway.tells(told("drain", at=2, until=None, again=False))
        self.assertEqual(control.draining, Draining(2.0, None, False))
        gateway.gone()
        self.assertEqual(control.draining, self.successResultOf(control.when_draining()))

    def test_never_draining(self) -> None:
        """Nobody waits for it for ever: the link ends, or only the control connection."""
        gateway = self.greeted()
        control = gateway.control
        waits = control.when_draining()
        gateway.gone()
        for one in (waits, control.when_draining()):
            self.assertIs(self.fails(EndpointEnded, one), gateway.endpoint.ended)
        for ends in (close(CONTROL), packet(CONTROL, b"garbage")):
            gateway = self.greeted()
            control = gateway.control
            waits = control.when_draining()
            gateway.say(ends)
            for one in (waits, control.when_draining()):
                self.fails(NoControl, one)

    def test_lost_events(self) -> None:
        """They are counted, and the log says so."""
        gateway = self.greeted()
        gateway.tells(told("lost", events=3))
        gateway.tells(told("lost", events=4))
        self.assertEqual(gateway.control.lost, 7)


class AskingTests(ControlTestCase):
    """What a server asks."""

    def test_answers(self) -> None:
        """Each verb's answer reaches who asked."""
        gateway = self.greeted()
        one, two = gateway.guests(2)
        control = gateway.control
        named = control.user(one, "ann")
        who = [control.who(one), control.who(1)]
        joined = control.join("room", [one, two])
        left = control.leave("room", iter([two]))
        pushed = control.push(b"x", group="room")
        to_all = control.push(b"y", everyone=True, but=[two])
        to_some = control.push(b"", conns=[two, one])
        kicked = [control.kick(one, "out", 4001), control.kick(2)]
        time = control.time()
        gateway.settle()
        self.assertIsNone(self.successResultOf(named))
        for one_who in who:
            self.assertEqual(self.successResultOf(one_who).user, "ann")
        self.assertEqual(self.successResultOf(joined), 2)
        self.assertEqual(self.successResultOf(left), 1)
        self.assertEqual(
            [self.successResultOf(one).sent for one in (pushed, to_all, to_some)], [1, 1, 2]
        )
        self.assertEqual(
            (gateway.got[one.conn_id], gateway.got[two.conn_id]), ([b"x", b"y", b""], [b""])
        )
        self.assertEqual([self.successResultOf(one) for one in kicked], [None, None])
        self.assertEqual(gateway.end.kicked, [1, 2])
        self.assertEqual(self.successResultOf(time), UNIX)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_refusals(self) -> None:
        """What the gateway will not is told with its code."""
        gateway = self.greeted()
        (conn,) = gateway.guests(1)
        control = gateway.control
        waits = [control.who(99), control.kick(99), control.push(b"x", group="nobody")]
        gateway.settle()
        errors = [self.fails(RequestRefused, one) for one in waits]
        self.assertEqual([error.code for error in errors], ["gone", "denied", "gone"])
        gateway.denies.add("join")
        waits = [control.join("room", [conn])]
        gateway.settle()
        self.assertIn("not now", str(self.fails(RequestRefused, waits[0])))

    def test_nonsense(self) -> None:
        """What cannot be asked raises at once, and nothing is sent."""
        gateway, other = self.greeted(), self.greeted()
        (conn,) = gateway.guests(1)
        (stranger,) = other.guests(1)
        control = gateway.control
        for ask in (
            lambda: control.kick(0),
            lambda: control.kick(conn, code=5000),
            lambda: control.who(-1),
            lambda: control.user(conn, ""),
            lambda: control.user(conn, "a\nb"),
            lambda: control.join("", [conn]),
            lambda: control.push(b"x"),
            lambda: control.push(b"x", group="a", everyone=True),
            # Its numbers are another player's here.
            lambda: control.kick(stranger),
            lambda: control.who(stranger),
            lambda: control.user(stranger, "ann"),
            lambda: control.join("a", [conn, stranger]),
            lambda: control.leave("a", [stranger]),
            lambda: control.push(b"x", conns=[stranger]),
            lambda: control.push(b"x", group="a", but=[stranger]),
        ):
            raised(ValueError, ask)
        self.assertEqual((gateway.heard(), gateway.clock.getDelayedCalls()), (b"", []))

    def test_timeout(self) -> None:
        """No answer within 10 s; one that comes later is nobody's."""
        gateway = self.greeted()
        control = gateway.control
        first = control.time()
        gateway.clock.advance(4)
        second = control.time()
        gateway.clock.advance(5.875)
        self.assertNoResult(first)
        gateway.clock.advance(0.125)
        self.assertEqual(self.fails(RequestTimeout, first).verb, "time")
        self.assertNoResult(second)
        gateway.settle()
        self.assertEqual(self.successResultOf(second), UNIX)
        self.assertIs(gateway.endpoint.control, control)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """Who gave up is not told; the others are."""
        gateway = self.greeted()
        control = gateway.control
        first, second = control.time(), control.time()
        first.addErrback(lambda _: None).cancel()
        gateway.settle()
        self.assertEqual(self.successResultOf(second), UNIX)
        third = control.time()
        third.addErrback(lambda _: None).cancel()
        gateway.clock.advance(10)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])
        self.assertIs(gateway.endpoint.control, control)
        self.assertFalse(control._waiters)

    def test_pace(self) -> None:
        """A thousand at once: never more than 1000 within a second, and all are answered."""
        gateway = self.greeted()
        control = gateway.control
        waits = [control.time() for _ in range(1000)]
        raised(RequestsFull, control.time)
        sent: list[int] = []
        for _ in range(100):
            sent.append(len(split(gateway.transport.value())))
            self.assertLessEqual(sum(sent[-20:]), 1000)
            gateway.settle()
            self.assertLessEqual(len(gateway.clock.getDelayedCalls()), 1)
            gateway.clock.advance(0.05)
        self.assertEqual(sum(sent), 1000)
        self.assertEqual({self.successResultOf(one) for one in waits}, {UNIX})
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_full(self) -> None:
        """Over a full transport nothing is asked, and no timer is busy; it is when it drains."""
        gateway = self.greeted()
        control = gateway.control
        gateway.transport.fill()
        waits = [control.time() for _ in range(3)]
        self.assertEqual(gateway.heard(), b"")
        (timer,) = gateway.clock.getDelayedCalls()
        self.assertEqual(timer.getTime(), gateway.clock.seconds() + 10)
        gateway.clock.advance(9)
        self.assertEqual(gateway.heard(), b"")
        gateway.transport.drain()
        gateway.settle()
        self.assertEqual([self.successResultOf(one) for one in waits], [UNIX] * 3)
        gateway.transport.fill()
        waits = [control.time()]
        gateway.clock.advance(10)
        self.fails(RequestTimeout, waits[0])
        gateway.transport.drain()
        self.assertEqual((gateway.heard(), gateway.clock.getDelayedCalls()), (b"", []))

    def test_hello_over_full(self) -> None:
        """hello waits as well, and the gateway is not blamed for its being late."""
        gateway = self.dialled()
        gateway.transport.fill()
        gateway.say(accept(CONTROL, 0))
        self.assertEqual(gateway.heard(), b"")
        gateway.clock.advance(5)
        gateway.transport.drain()
        self.assertEqual(len(split(gateway.heard())), 1)
        gateway.say(packet(CONTROL, welcome(1)))
        self.assertIsNotNone(gateway.endpoint.control)

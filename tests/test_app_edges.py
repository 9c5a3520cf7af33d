"""Applications at their edges: who acts amid something, who fails in odd ways, what is left."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, cast
from unittest import mock
from weakref import ref

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import (
    App,
    Bounds,
    Component,
    Group,
    Refused,
    Session,
    SessionEnded,
    State,
    Strand,
    handles,
)
from fastway.app.client import Client
from fastway.app.http import push_site
from fastway.app.testing import Player
from fastway.dialect.hotpot import Hotpot
from fastway.dialect.teleport import Teleport
from fastway.errors import LocalError
from tests.support.app_links import Links
from tests.support.words import Words


class Odd(BaseException):
    """What nobody expects."""


class Faults(Links):
    """Whatever a handler does, its strand and all counts go on."""

    def test_odd_exceptions(self) -> None:
        """What is no Exception is a fault as any, at once and later: answered, and behind it all
        goes on."""
        kinds = (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Odd)
        for kind in kinds:
            with self.subTest(kind.__name__):
                self.odd_exception(kind)

    def odd_exception(self, kind: type[BaseException]) -> None:
        app = self.app_with()
        gate: Deferred[None] = Deferred()

        def fails() -> None:
            raise kind("secret")

        async def later() -> None:
            await gate
            raise kind("secret")

        app.route("fails", fails)
        app.route("later", later)
        app.opened(lambda session: fails())
        app.closed(lambda session: fails())
        transport = self.connect()
        self.assertEqual(
            self.tell(transport, "ask 1 fails 0", "ask 2 later 0", "ask 3 echo 3"),
            ["no 1 500 internal error"],
        )
        gate.callback(None)
        self.clock.advance(0)
        self.assertEqual(transport.lines(), ["no 2 500 internal error", "ok 3 3"])
        transport.end(ConnectionDone())
        self.assertEqual(app.running, 0)
        self.assertGreaterEqual(len(self.flushLoggedErrors(kind)), 2)

    def test_hooks_in_order(self) -> None:
        """A hook that waits keeps those behind it; one that fails does not."""
        app = self.app_with()
        order: list[str] = []
        gate: Deferred[None] = Deferred()

        @app.opened
        async def first(session: Session) -> None:
            await gate
            order.append("first")
            raise Odd

        app.opened(lambda session: order.append("second"))
        app.route("note", lambda: order.append("message"))
        transport = self.connect()
        self.tell(transport, "say note 0")
        self.assertEqual(order, [])
        gate.callback(None)
        self.assertEqual(order, ["first", "second", "message"])
        self.flushLoggedErrors(Odd)

    def test_refusals_that_cannot_be_said(self) -> None:
        """A Refused whose text is too long is the handler's fault; nothing waits for ever."""
        app = self.app_with()

        def no() -> None:
            raise Refused(403, "x" * 2000)

        async def later() -> None:
            await self.gates[0]
            no()

        app.route("no", no)
        app.route("later", later)
        self.gates.append(Deferred())
        transport = self.connect()
        self.assertEqual(
            self.tell(transport, "ask 1 no 0", "ask 2 later 0", "ask 3 echo 3"),
            ["no 1 500 internal error"],
        )
        self.gates[0].callback(None)
        self.clock.advance(0)
        self.assertEqual(transport.lines(), ["no 2 500 internal error", "ok 3 3"])
        app.handshake(lambda session, user: no())
        other = self.connect(welcome=False)
        self.assertEqual(self.tell(other, "hi 1"), ["no 0 500 internal error"])
        self.assertFalse(other.connected)
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        app.stop()
        self.assertEqual((app.counts.pending, app.running), (0, 0))

    def test_kick_that_cannot_be_said(self) -> None:
        """It is its sender's error, and the session ends all the same."""
        app = self.app_with()
        transport = self.connect()
        [session] = app.sessions.values()
        with pytest.raises(TypeError):
            session.kick(object())
        self.assertFalse(transport.connected)

    def test_asked_and_gone(self) -> None:
        """A handler that asks back fails when its peer goes, and nothing is pending then."""
        app = self.app_with()

        @app.handler("ask")
        async def ask(session: Session) -> Any:
            return await session.request("name")

        transport = self.connect()
        self.tell(transport, "ask 1 ask 0", "ask 2 echo 0")
        self.assertEqual(app.counts.pending, 2)
        transport.end(ConnectionLost())
        self.assertEqual((app.counts.pending, app.counts.failed, app.running), (0, 0, 0))

    def test_waits_for_nothing(self) -> None:
        """A handler whose Deferred nobody can fire any more is no request that is pending."""
        app = self.app_with()

        @app.handler("forgets")
        async def forgets() -> None:
            await Deferred()

        transport = self.connect()
        self.tell(transport, "ask 1 forgets 0")
        gc.collect()
        self.assertEqual((app.counts.pending, app.running), (0, 0))

    def test_context(self) -> None:
        """What a handler sets of its context no other sees, nor is it lost while it waits."""
        app = self.app_with()
        name: ContextVar[str] = ContextVar("name", default="nobody")

        @app.handler("set")
        async def sets(message: str) -> str:
            name.set(message)
            self.gates.append(Deferred())
            await self.gates[-1]
            return name.get()

        @app.handler("quick")
        async def quick(message: str) -> str:
            was = name.get()
            name.set(message)
            return was

        @app.opened
        async def opened(session: Session) -> None:
            name.set("hook")

        first, second = self.connect(), self.connect()
        self.tell(first, 'ask 1 set "ann"')
        self.tell(second, 'ask 1 set "bob"')
        third = self.connect()
        said = self.tell(third, 'ask 1 quick "eve"', 'ask 2 quick "eve"')
        self.assertEqual(said, ['ok 1 "nobody"', 'ok 2 "nobody"'])
        for gate in reversed(self.gates):
            gate.callback(None)
        self.clock.advance(0)
        self.assertEqual((first.lines(), second.lines()), (['ok 1 "ann"'], ['ok 1 "bob"']))
        self.assertEqual(name.get(), "nobody")

    def test_transport_that_fails(self) -> None:
        """A transport that raises loses its own connection; what others are told goes out."""
        app = self.app_with()
        room = app.group("room")
        app.opened(room.add)
        bad, good = self.connect(), self.connect()

        def write(data: bytes) -> None:
            raise OSError("no")

        bad.write = write
        for number in range(2):
            room.send("on", number)
            self.clock.advance(0)
        self.assertEqual(good.lines(), ["say on 0", "say on 1"])
        self.assertEqual((app.counts.lost, len(room)), ({"failed": 1}, 1))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_who_left_fails(self) -> None:
        """What hears who left a group may fail: the other groups are left all the same."""
        app = self.app_with()

        def left(session: Session) -> None:
            raise ValueError

        transport = self.connect()
        [session] = app.sessions.values()
        groups = [Group(app, "", left), Group(app), Group(app, "", left)]
        for group in groups:
            group.add(session)
        done = session.when_ended()
        transport.end(ConnectionDone())
        self.assertEqual([len(group) for group in groups], [0, 0, 0])
        self.successResultOf(done)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)  # of one kind the first
        app.stop()


class Told(Links):
    """What proxies tell."""

    def test_proxy_header(self) -> None:
        """The peer is whom a PROXY header names, though the connection began before it."""
        for lines, peer in (
            (b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 3250\r\n", "192.0.2.7:4711"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::8 4711 3250\r\n", "[2001:db8::7]:4711"),
        ):
            app = self.app_with()
            seen: list[str] = []
            app.opened(lambda session, seen=seen: seen.append(session.peer))
            app.handshake(lambda session, user, seen=seen: seen.append(session.peer))
            for greets in (True, False):
                made = self.factory(Words(greets=greets))
                wrapper: Any = HAProxyWrappingFactory(made).buildProtocol(
                    IPv4Address("TCP", "127.0.0.1", 5)
                )
                transport = StringTransport()
                wrapper.makeConnection(transport)
                wrapper.dataReceived(lines + b"hi 1\nask 1 echo 1\n"[5 * (not greets) :])
                [session] = app.sessions.values()
                self.assertEqual(session.peer, peer)
                wrapper.connectionLost(Failure(ConnectionDone()))
                self.assertEqual(session.peer, peer)
            self.assertEqual(seen, [peer, peer, "192.168.1.1:54321"])


class Holds(Links):
    """Who is not read from, and until when."""

    def test_answer_between_messages(self) -> None:
        """An answer that frees the strand amid one read loses none of the messages around it."""
        app = self.app_with(bounds=Bounds(strand=2))
        seen: list[int] = []

        @app.handler("ask")
        async def ask(session: Session) -> None:
            await session.request("name")

        app.route("note", lambda number: seen.append(number))
        transport = self.connect()
        self.tell(transport, "say ask 0", *(f"say note {number}" for number in range(3)))
        self.tell(transport, "say note 3", "ok 1 1", "say note 4", "say note 5")
        self.assertEqual(seen, list(range(6)))
        self.assertEqual((app.counts.lost, transport.producerState), ({}, "producing"))

    def test_asking_back_under_two_holds(self) -> None:
        """Who asks back gets the answer also when the rate was what held its peer first."""
        app = self.app_with(bounds=Bounds(strand=2, messages=10.0))

        @app.handler("ask")
        async def ask(session: Session) -> Any:
            self.gates.append(Deferred())
            await self.gates[-1]
            return await session.request("name")

        transport = self.connect()
        self.tell(transport, "ask 1 ask 0", *("say echo 0" for _ in range(2)))
        [session] = app.sessions.values()
        link: Any = session.carrier
        link._allowance = self.clock.seconds() + 1.0
        self.tell(transport, "say echo 0")  # no room
        link._hold(4)
        self.assertEqual(transport.producerState, "paused")
        self.gates[0].callback(None)
        self.assertEqual(transport.producerState, "paused")
        link._release(4)
        self.assertEqual(transport.producerState, "producing")
        self.clock.advance(0)
        self.assertEqual(transport.lines(), ["ask 1 name null"])
        self.tell(transport, "ok 1 5")
        self.assertIn("ok 1 5", transport.lines() or ["ok 1 5"])
        self.assertEqual(app.running, 0)

    def test_rate_holds_who_is_asked(self) -> None:
        """Who is asked something may not flood either: the rate holds, whatever else does."""
        app = self.app_with(bounds=Bounds(strand=1, bytes=1000.0))

        @app.handler("ask")
        async def ask(session: Session) -> Any:
            return await session.request("name")

        transport = self.connect()
        self.tell(transport, "say ask 0", "say echo 0", "say echo 0")
        self.assertEqual(transport.producerState, "producing")
        self.tell(transport, *("beat" for _ in range(500)))
        self.assertEqual(transport.producerState, "paused")
        self.clock.pump([0.1] * 30)
        self.assertEqual(transport.producerState, "producing")
        transport.end(ConnectionDone())
        self.assertEqual(self.calls(), [])

    def calls(self) -> list[Any]:
        """What the clock still has, besides the wheel's next turn."""
        self.clock.advance(0.2)
        return list(self.clock.getDelayedCalls())

    def test_rate_and_gone(self) -> None:
        """Who went while the rate held him leaves nothing to the clock."""
        self.app_with(bounds=Bounds(bytes=10.0))
        transport = self.connect()
        self.tell(transport, f"say echo {'1' * 900}")
        transport.end(ConnectionDone())
        self.assertEqual(self.calls(), [])

    def test_bytes_that_wait(self) -> None:
        """Large messages that wait for a handler are bounded by their bytes, not by their number
        alone; all are handled in order."""
        app = self.app_with(bounds=Bounds(queued=10_000))
        seen: list[int] = []
        app.route("note", lambda number: seen.append(int(number[:4])))
        transport = self.connect(Words(max_frame=6000))
        self.tell(transport, "say wait 0")
        told = 0
        while transport.producerState == "producing" and told < 100:
            self.tell(transport, f'say note "{told:04}{"x" * 5000}"')
            told += 1
        self.assertEqual(told, 2 + 1 - 1)
        self.tell(transport, *(f'say note "{number:04}{"x" * 5000}"' for number in range(2, 9)))
        self.gates[0].callback(None)
        self.assertEqual((seen, transport.producerState), (list(range(9)), "producing"))

    def test_bytes_of_who_is_asked(self) -> None:
        """Who sends much instead of an answer is lost before it takes much memory."""
        app = self.app_with(bounds=Bounds(queued=10_000))

        @app.handler("ask")
        async def ask(session: Session) -> Any:
            return await session.request("name")

        transport = self.connect(Words(max_frame=6000))
        self.tell(transport, "ask 1 ask 0")
        told = 0
        while transport.connected and told < 100:
            self.tell(transport, f'say note "{"x" * 5000}"')
            told += 1
        self.assertTrue(3 < told < 12, told)
        self.assertEqual(app.counts.lost, {"flood": 1})

    def test_held_is_not_silent(self) -> None:
        """Who is not read from is not called silent for that, and gets beats meanwhile."""
        app = self.app_with(bounds=Bounds(requests=1))
        transport = self.connect(Words(beats=1.0))
        self.tell(transport, "ask 1 wait 1")
        self.assertEqual(transport.producerState, "paused")
        self.clock.pump([0.1] * 100)
        self.assertEqual((app.counts.lost, transport.connected), ({}, True))
        self.assertGreaterEqual(transport.lines().count("beat"), 8)
        self.gates[0].callback(None)
        self.clock.pump([0.1] * 40)
        self.assertEqual(app.counts.lost, {"silent": 1})

    def test_held_in_other_dialects(self) -> None:
        """So in dialects that ping, and in those whose heartbeats are calls; which are sent on."""
        for dialect, says in (
            (Hotpot(keepalive=(2, 4)), b"Ping"),
            (Teleport(heartbeat=3, heartbeat_call=True), b"heartbeat"),
        ):
            app = self.app_with(bounds=Bounds(requests=1))
            [transport] = [self.join(cast(Any, dialect))]
            [session] = app.sessions.values()
            session.carrier._hold(1)  # type: ignore[attr-defined]
            transport.take()
            for _ in range(300):
                self.clock.advance(0.1)
            said = b"".join(transport.take())
            self.assertEqual((app.counts.lost, transport.connected), ({}, True))
            self.assertGreater(said.count(says), 5, said)
            session.carrier._release(1)  # type: ignore[attr-defined]
            self.clock.pump([0.1] * 150)
            self.assertEqual((app.counts.lost, transport.connected), ({"silent": 1}, False))

    def test_sync_answers_do_not_pause(self) -> None:
        """Requests that are answered at once never stop the reading, even at the bound."""
        self.app_with(bounds=Bounds(requests=1))
        transport = self.connect()
        pauses: list[int] = []
        transport.pauseProducing = lambda: pauses.append(1)
        lines = [f"ask {key} echo {key}" for key in range(5)]
        self.assertEqual(len(self.tell(transport, *lines)), 5)
        self.assertEqual(pauses, [])

    def test_strand_is_fair(self) -> None:
        """Of those that a full strand keeps, none gets all the room each time."""
        app = self.app_with()
        strand = Strand(limit=4)
        app.opened(lambda session: setattr(session, "strand", strand))
        order: list[str] = []

        @app.handler("note")
        async def note(name: str) -> None:
            order.append(name)
            self.gates.append(Deferred())
            await self.gates[-1]

        loud, quiet = self.connect(), self.connect()
        self.tell(loud, *('say note "loud"' for _ in range(100)))
        self.tell(quiet, *('say note "quiet"' for _ in range(3)))
        for number in range(20):
            self.gates[number].callback(None)
        self.assertEqual(order.count("quiet"), 3)
        self.assertEqual(order.count("loud"), 18)

    def test_no_bound(self) -> None:
        """0 is no bound, for strands too."""
        app = self.app_with(bounds=Bounds(strand=0, queued=0, requests=0))

        @app.handler("ask")
        async def ask(session: Session) -> Any:
            return await session.request("name")

        transport = self.connect()
        self.tell(transport, "ask 1 ask 0", *("say echo 0" for _ in range(2000)))
        self.assertEqual((app.counts.lost, transport.producerState), ({}, "producing"))
        self.assertEqual(self.tell(transport, "ok 1 7"), ["ok 1 7"])


class Wide(Links):
    """Sessions whose requests may overtake each other."""

    def test_hooks_are_alone(self) -> None:
        """`opened` has ended before the first message, and `closed` begins behind the last."""
        app = self.app_with()
        order: list[str] = []
        gates: list[Deferred[None]] = [Deferred() for _ in range(2)]

        @app.opened
        async def opened(session: Session) -> None:
            await gates[0]
            order.append("opened")

        @app.handler("note")
        async def note(number: int) -> None:
            order.append(f"begin {number}")
            await gates[1]
            order.append(f"end {number}")

        app.closed(lambda session: order.append("closed"))
        transport = self.connect(Words(concurrent=3))
        self.tell(transport, *(f"say note {number}" for number in range(4)))
        self.assertEqual(order, [])
        gates[0].callback(None)
        self.assertEqual(order, ["opened", "begin 0", "begin 1", "begin 2"])
        transport.end(ConnectionDone())
        gates[1].callback(None)
        self.assertEqual(order[-1], "closed")
        self.assertEqual(sorted(order[4:-1]), sorted([*(f"end {n}" for n in range(4)), "begin 3"]))

    def test_wide_and_shared(self) -> None:
        """In a wide strand of all sessions the hook of one keeps no other from being served."""
        app = self.app_with(strand=Strand(width=2))
        first = self.connect()
        app.opened(lambda session: Deferred())
        self.connect()
        self.assertEqual(self.tell(first, "ask 1 echo 1"), ["ok 1 1"])

    def test_many_alone(self) -> None:
        """Thousands of them in one wide strand run in order, and deep on no stack."""
        strand, order = Strand(limit=0, width=2), []
        gate: Deferred[None] = Deferred()

        async def first() -> None:
            await gate

        strand.run(first)
        for number in range(5000):
            strand.run_alone(lambda number=number: order.append(number))  # type: ignore[misc]
        gate.callback(None)
        self.assertEqual((order, strand.idle), (list(range(5000)), True))


class Left(Links):
    """What nobody needs any more goes, without the collector."""

    def test_no_cycles(self) -> None:
        """A link that is gone, its session and its wire go at once; also one that asked, was
        held, failed, or never was let in."""
        acts: tuple[Callable[[Any, Any], object], ...] = (
            lambda session, transport: None,
            lambda session, transport: self.tell(transport, "ask 1 echo 1"),
            lambda session, transport: session.send("on", 1),
            lambda session, transport: session.request("name").addErrback(lambda _: None),
            lambda session, transport: session.bind(7),
            lambda session, transport: session.close(),
            lambda session, transport: session.kick("x"),
            lambda session, transport: self.tell(transport, "nonsense"),
            lambda session, transport: session.when_ended(),
            lambda session, transport: self.app.group("room").add(session),
        )
        for number, act in enumerate(acts):
            app = self.app_with()
            transport = self.connect()
            [session] = app.sessions.values()
            link: Any = session.carrier
            gc.collect()
            gc.disable()
            try:
                act(session, transport)
                transport.end(ConnectionDone())
                self.clock.advance(0.2)
                gone = [ref(session)]
                wire = sys_refs(link.wire)
                transport.link = transport.producer = None  # as real ones do
                del session, link
                self.assertEqual([one() for one in gone], [None], number)
                self.assertEqual(wire(), 0, number)
            finally:
                gc.enable()

    def test_users_of_who_never_came_in(self) -> None:
        """Who is bound at his handshake and goes before he is ready leaves no user behind."""
        app = self.app_with()
        app.handshake(lambda session, user: session.bind(user))
        for number in range(3):
            transport = self.connect(welcome=False)
            gate: Deferred[Any] = Deferred()
            app.handshake(lambda session, user, gate=gate: (session.bind(user), gate)[1])
            self.tell(transport, f"hi {number}")
            transport.end(ConnectionLost())
            gate.callback(None)
        self.assertEqual(app._users, {})

    def test_push_to_all(self) -> None:
        """A push to everybody leaves nothing with those it told."""
        app = self.app_with()
        ann = Player(app)
        body = json.dumps({"all": True, "route": "on", "message": 1}).encode()
        head = (
            "POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        channel = push_site(app, "t").buildProtocol(None)
        channel.makeConnection(StringTransport())
        channel.dataReceived(head.encode() + body)
        self.assertEqual(ann.heard, [("on", 1)])
        self.assertFalse(ann.session._groups)


def sys_refs(of: Any) -> Callable[[], int]:
    """Tells how many objects of that one's identity live, by looking where the collector does."""
    kind, number = type(of), id(of)
    return lambda: sum(1 for one in gc.get_objects() if type(one) is kind and id(one) == number)


class Users(SynchronousTestCase):
    """Users, when several things happen at once."""

    def test_user_in_closed(self) -> None:
        """`closed` is told whose session it was, and that he is not here any more."""
        app = App(clock=Clock())
        seen: list[Any] = []
        app.closed(lambda session: seen.append((session.user, len(app.user(session.user)))))
        ann, bob = Player(app), Player(app)
        ann.session.bind("ann")
        ann.leave()
        bob.session.bind("bob")
        Player(app).session.bind("bob")
        self.assertEqual(seen, [("ann", 0), ("bob", 1)])

    def test_closed_amid_bind(self) -> None:
        """A `closed` hook of who is kicked closes the new one: nobody is left as that user."""
        app = App(clock=Clock())
        first, second = Player(app), Player(app)

        @app.closed
        def ends(session: Session) -> None:
            if session is first.session:
                second.session.close()

        first.session.bind(7)
        second.session.bind(7)
        self.assertEqual((app._users, app.sessions), ({}, {}))

    def test_refused_at_the_handshake(self) -> None:
        """A player who is bound and then refused, or closed, is nobody's session."""
        app = App(clock=Clock())

        @app.handshake
        def login(session: Session, user: Any) -> None:
            session.bind("ann")
            if user == 1:
                raise Refused(401)
            session.close()

        for user, error in ((1, Refused), (2, SessionEnded)):
            with pytest.raises(error):
                Player(app, user)
        self.assertEqual((app._users, app.sessions), ({}, {}))

    def test_full(self) -> None:
        """A player is refused as any peer when all places are taken."""
        app = App(clock=Clock(), bounds=Bounds(sessions=1))
        Player(app)
        with pytest.raises(Refused, match="full"):
            Player(app)

    def test_asked_and_gone(self) -> None:
        """What a player was asked fails when he leaves, as on a connection."""
        app = App(clock=Clock())
        ann = Player(app)
        asked = ann.session.request("name")
        ann.leave()
        self.failureResultOf(asked, SessionEnded)
        self.assertEqual(app.clock.getDelayedCalls(), [])


class Lives(Links):
    """Starting, stopping, draining, timers, parts."""

    def test_stop_by_a_timer(self) -> None:
        """A timer may stop the App: then it does not come again."""
        app = App(clock=Clock())
        app.every(1.0)(app.stop)
        app.start()
        app.clock.advance(1.0)
        self.assertEqual((app.state, app.clock.getDelayedCalls()), (State.STOPPED, []))

    def test_stop_by_a_hook(self) -> None:
        """So may a `closed` hook: parts are stopped once."""
        stops: list[int] = []

        class Part(Component):
            def stop(self) -> None:
                stops.append(1)

        app = App(clock=Clock())
        app.include(Part())
        app.closed(lambda session: app.stop())
        Player(app), Player(app)
        app.stop()
        self.assertEqual((stops, app.sessions), ([1], {}))

    def test_timers_while_it_runs(self) -> None:
        """`after` while the App runs is forgotten when it was called; `cancel` ends both kinds."""
        app = App(clock=Clock())
        told: list[str] = []
        app.start()
        for _ in range(10):
            app.after(1.0)(lambda: told.append("after"))

        @app.every(1.0)
        def tick() -> None:
            told.append("tick")
            if told.count("tick") == 2:
                app.cancel(tick)

        app.cancel(app.after(1.5)(lambda: told.append("never")))
        app.clock.pump([0.5] * 10)
        self.assertEqual(
            (told.count("after"), told.count("tick"), "never" in told), (10, 2, False)
        )
        self.assertEqual((app._timers, app.clock.getDelayedCalls()), ([], []))

    def test_every_in_a_busy_strand(self) -> None:
        """A timer in a strand that is busy waits for its turn; it does not skip it."""
        app = App(clock=Clock())
        strand, ticks = Strand(), []
        gate: Deferred[None] = Deferred()

        async def job() -> None:
            await gate

        app.every(1.0, strand=strand)(lambda: ticks.append(1))
        app.start()
        strand.run(job)
        app.clock.pump([1.0] * 3)
        gate.callback(None)
        self.assertEqual(len(ticks), 1)

    def test_drain_and_what_waits(self) -> None:
        """Requests that wait behind others are answered before sessions are closed; new ones are
        not taken, nor are new sessions."""
        app = self.app_with()
        transport, asks = self.connect(), self.connect(welcome=False)
        app.start()
        self.tell(transport, "ask 1 wait 1", "ask 2 wait 2", "ask 3 echo 3")
        drained = app.drain(10.0)
        self.tell(transport, "ask 4 echo 4")
        self.assertEqual(self.tell(asks, "hi 1"), ["no 0 503 draining"])
        self.gates[0].callback(None)
        self.clock.advance(0)
        self.assertNoResult(drained)
        self.gates[1].callback(None)
        self.clock.advance(0)
        self.clock.advance(0)
        self.successResultOf(drained)
        self.assertEqual(transport.lines(), ["ok 1 1", "ok 2 2", "ok 3 3"])
        self.assertEqual((app.counts.pending, transport.connected), (0, False))

    def test_stop_amid_drain(self) -> None:
        """Stopping ends a drain at once, and leaves the clock nothing."""
        app = self.app_with()
        transport = self.connect()
        app.start()
        self.tell(transport, "ask 1 wait 1")
        drained = app.drain(10.0)
        app.stop()
        self.clock.pump([0.1] * 3)
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.gates[0].callback(None)

    def test_component_that_does_not_start(self) -> None:
        """Its exception is what listening fails with; what had started is stopped, and it may be
        tried again."""
        life: list[str] = []

        class Part(Component):
            def __init__(self, name: str, works: bool) -> None:
                self.name, self.works = name, works

            def start(self) -> None:
                life.append(f"start {self.name}")
                if not self.works:
                    raise OSError("no database")

            def stop(self) -> None:
                life.append(f"stop {self.name}")

        app = App(clock=Clock())
        bad = Part("b", False)
        app.include(Part("a", True))
        app.include(bad)
        self.failureResultOf(app.listen(cast(Any, None), Words()), OSError)
        self.assertEqual((app.state, life), (State.NEW, ["start a", "start b", "stop a"]))
        bad.works = True
        app.start()
        self.assertEqual(app.state, State.RUNNING)

    def test_include_while_it_runs(self) -> None:
        """Timers and components of what is included later begin at once."""
        life: list[str] = []

        class Part(Component):
            def start(self) -> None:
                life.append("start")

            def ready(self) -> None:
                life.append("ready")

        inner, outer = App(), App(clock=Clock())
        inner.include(Part())
        inner.after(1.0)(lambda: life.append("timer"))
        outer.start()
        outer.include(inner)
        outer.clock.advance(1.0)
        self.assertEqual(life, ["start", "ready", "timer"])

    def test_included_groups(self) -> None:
        """Groups and users of a part are those of the App that has it, with its hooks."""
        inner, outer = App(), App(clock=Clock())
        before = inner.group("room")
        outer.outgoing(lambda out: setattr(out, "message", "changed"))
        outer.include(inner, "chat")
        ann = Player(outer)
        ann.session.bind("ann")
        before.add(ann.session)
        self.assertIs(inner.group("room"), before)
        self.assertIs(outer.group("chat.room"), before)
        before.send("on", 1)
        inner.user("ann").send("on", 1)
        self.assertEqual(ann.heard, [("on", "changed")] * 2)

    def test_included_sight(self) -> None:
        """A part, and a part of a part, sees sessions, counts and the clock of the whole."""
        inmost, inner, outer = App(), App(), App(clock=Clock())

        @inmost.handler("who")
        def who() -> list[int]:
            return [len(inmost.sessions), inmost.counts.opened]

        inner.include(inmost, "b")
        outer.include(inner, "a")
        Player(outer)
        self.assertEqual(Player(outer).request("a.b.who"), [2, 2])
        self.assertIs(inmost.clock, outer.clock)
        inmost.start()  # as its `connect` does
        self.assertEqual((outer.state, inmost.state), (State.RUNNING, State.NEW))

    def test_overridden_handler(self) -> None:
        """Who overrides a handler of a component keeps its route."""

        class Base(Component):
            name = "a"

            @handles("who")
            def who(self) -> str:
                return "base"

        class Derived(Base):
            def who(self) -> str:
                return f"derived from {super().who()}"

        app = App(clock=Clock())
        app.include(Derived())
        self.assertEqual(Player(app).request("a.who"), "derived from base")

    def test_client_stops_with_its_app(self) -> None:
        """A client whose App has stopped does not start it again."""

        class Never:
            def connect(self, factory: Any) -> Deferred[Any]:
                done: Deferred[Any] = Deferred()
                done.errback(ConnectionLost())
                return done

        app = App(clock=Clock())
        client = Client(app, cast(Any, Never()), Words(), backoff=lambda _: 1.0)
        client.startService()
        waits = client.when_up()
        app.clock.advance(1.0)
        app.stop()
        app.clock.pump([1.0] * 5)
        self.assertEqual(app.state, State.STOPPED)
        self.failureResultOf(waits, LocalError)


class Tasks(SynchronousTestCase):
    """Handlers as asyncio tasks."""

    def run_in_loop(self, main: Callable[[], Any]) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(asyncio.wait_for(main(), 30))
        finally:
            loop.close()

    def test_both_kinds(self) -> None:
        """A task awaits what is asyncio's, and also what sessions give: requests and room."""
        app = App(clock=Clock(), tasks=True)

        @app.handler("ask")
        async def ask(session: Session) -> list[Any]:
            await asyncio.sleep(0)
            first = await session.request("name", into=str)
            await session.send("on", first)
            try:
                await session.request("nobody", timeout=1.0)
            except Exception as error:
                return [first, type(error).__name__]
            return []

        @app.middleware
        async def around(request: Any, call_next: Any) -> Any:
            await asyncio.sleep(0)
            return await call_next(request)

        async def main() -> None:
            ann = Player(app)
            answers = iter(["ann"])
            ann.answers["name"] = lambda _: next(answers)
            asked = ann.ask("ask")
            for _ in range(10):
                await asyncio.sleep(0)
            app.clock.advance(1.0)
            result = await asked.asFuture(asyncio.get_running_loop())
            self.assertEqual(result, ["ann", "RequestTimeout"])
            self.assertEqual(ann.heard, [("on", "ann")])

        self.run_in_loop(main)

    def test_no_loop(self) -> None:
        """Another reactor has no loop for tasks: the App does not start. Where none runs beside a
        test's clock a handler fails, and does not wait for ever."""
        app = App(clock=cast(Any, MemoryReactorClock()), tasks=True)
        problem = self.failureResultOf(app.listen("127.0.0.1:0", Words()), LocalError).value
        self.assertIn("needs Twisted's asyncio reactor: fastway serve --asyncio", str(problem))
        self.assertEqual(app.state, State.NEW)
        app = App(clock=Clock(), tasks=True)

        @app.handler("sleep")
        async def sleeps() -> None:
            await asyncio.sleep(0)

        refused = self.failureResultOf(Player(app).ask("sleep"), Refused).value
        self.assertEqual(refused.code, 500)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_before_the_loop(self) -> None:
        """A task of a reactor that has its loop, and does not run yet, waits for it."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        app = App(clock=Clock(), tasks=True)

        @app.handler("sleep")
        async def sleeps() -> str:
            await asyncio.sleep(0)
            return "awake"

        reactor = AsyncioSelectorReactor.__new__(AsyncioSelectorReactor)  # it has no descriptors
        reactor._asyncioEventloop = loop
        with mock.patch.dict(sys.modules, {"twisted.internet.reactor": reactor}):
            asked = Player(app).ask("sleep")
        self.assertNoResult(asked)
        self.assertEqual(loop.run_until_complete(asked.asFuture(loop)), "awake")

    def test_cancelled(self) -> None:
        """A task that is cancelled is a fault as any; its context is its own."""
        app = App(clock=Clock(), tasks=True)
        name: ContextVar[str] = ContextVar("name", default="nobody")

        @app.handler("set")
        async def sets(text: str) -> str:
            was = name.get()
            name.set(text)
            await asyncio.sleep(0)
            return was

        @app.handler("cancels")
        async def cancels() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            ann = Player(app)
            for text in ("a", "b"):
                self.assertEqual(await ann.ask("set", text).asFuture(loop), "nobody")
            with pytest.raises(Refused):
                await ann.ask("cancels").asFuture(loop)
            self.assertEqual(await ann.ask("set", "c").asFuture(loop), "nobody")
            self.assertEqual((app.running, app.counts.pending), (0, 0))

        self.run_in_loop(main)
        self.assertEqual(len(self.flushLoggedErrors(asyncio.CancelledError)), 1)

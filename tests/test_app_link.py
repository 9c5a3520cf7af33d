"""Links of an application, in a dialect of tests: each case in memory, and on the relay."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fastway.app import (
    App,
    Bounds,
    NotInDialect,
    NotReady,
    Refused,
    Session,
    SessionEnded,
    Strand,
)
from fastway.app.link import Link
from fastway.app.messages import BadHandler
from fastway.app.ports import LinkFactory
from fastway.app.testing import Player
from fastway.dialect.hotpot import Hotpot
from fastway.dialect.pomelo import Pomelo, PomeloJson
from fastway.dialect.pomelo_packets import ACK, DATA, HANDSHAKE, packet
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport2 import Teleport2
from fastway.errors import RequestsFull, RequestTimeout
from fastway.formats import Json, ProtocolBuffers, Text
from tests.support.app_links import Links, NativeLinks
from tests.support.logs import LogLines
from tests.support.words import Words

Message: Any = importlib.import_module("google.protobuf.message").Message


class Messages(Links):
    """What comes, and what is answered."""

    apart: dict[str, Any] = {}
    """How to connect so that writes can be told apart."""

    def test_one_write_for_a_turn(self) -> None:
        """Requests of one read are answered in order, in one write."""
        self.app_with()
        transport = self.connect(**self.apart)
        transport.take()
        transport.say(b"".join(b"ask %d echo %d\n" % (key, key) for key in range(5)))
        self.assertEqual(transport.take(), [b"".join(b"ok %d %d\n" % (k, k) for k in range(5))])

    def test_byte_by_byte(self) -> None:
        """However it is cut, it is the same."""
        self.app_with()
        transport = self.connect(welcome=False)
        for byte in b'hi 1\nask 1 echo "a"\nsay echo 1\nask 2 nobody 1\n':
            transport.say(bytes((byte,)))
        self.assertEqual(transport.lines(), ["welcome null", 'ok 1 "a"', "no 2 404 not found"])
        counts = self.app.counts
        self.assertEqual((counts.messages, counts.requests, counts.unknown), (3, 2, 1))

    def test_handler_at_the_same_turn_tells_others(self) -> None:
        """What a handler tells other sessions goes out with its own turn."""
        app = self.app_with()
        room = app.group("room")
        app.opened(room.add)
        app.route("all", lambda: room.send("on", 1))
        first, second = self.connect(), self.connect()
        self.assertEqual(self.tell(first, "say all 1"), ["say on 1"])
        self.assertEqual(second.lines(), ["say on 1"])

    def test_sent_outside_of_a_turn(self) -> None:
        """What a timer tells goes out in the next turn, as one write."""
        app = self.app_with()
        transport = self.connect(**self.apart)
        transport.take()
        [session] = app.sessions.values()
        session.send("on", 1)
        session.send("on", 2)
        self.clock.advance(0)
        self.assertEqual(transport.take(), [b"say on 1\nsay on 2\n"])

    def test_what_cannot_be_sent(self) -> None:
        """Too large, nothing beside words, and no message: each is its sender's error."""
        app = self.app_with()
        transport = self.connect()
        [session] = app.sessions.values()
        for problem, call in (
            (Exception, lambda: session.send("on", "x" * 2000)),
            (NotInDialect, lambda: session.send("on", 1, meta=(("a", "b"),))),
            (TypeError, lambda: session.send("on", object())),
        ):
            with pytest.raises(problem):
                call()
        self.assertEqual(self.tell(transport, "ask 1 echo 1"), ["ok 1 1"])

    def test_two_routes_with_one_name(self) -> None:
        """Routes that one dialect cannot tell apart are refused when it is to listen."""
        app = self.app_with()
        app.route("Echo", lambda: None)
        with pytest.raises(BadHandler, match="echo and Echo are both echo in words"):
            LinkFactory(app, Words())

    def test_messages_that_cannot_be(self) -> None:
        """Of a handler whose messages a port's format cannot make is warned when it listens."""

        class Mine: ...

        odd: tuple[tuple[Any, Any], ...] = (
            (Mine, PomeloJson()),
            (set[int], PomeloJson()),
            (int, Text()),
            (int, Json()),
            (dict, ProtocolBuffers(Message)),
        )

        def handler(message: Any) -> None: ...

        for kind, form in odd:
            with self.subTest(kind=kind, form=form):
                app = self.app_with()
                handler.__annotations__["message"] = kind
                app.route("odd", handler)
                with LogLines() as log:
                    LinkFactory(app, Pomelo(format=form))
                [line] = log.lines
                self.assertIn("'odd' refuses all that comes by this pomelo port: ", line)
        for kind in (Any, None, bytes, str, list[int], dict[str, int], int | None):
            app = self.app_with()
            handler.__annotations__["message"] = kind
            app.route("even", handler)
            with LogLines() as log:
                LinkFactory(app, Pomelo())
            self.assertEqual(log.lines, [])

    def test_handshake_that_is_not(self) -> None:
        """Where a dialect has none, nobody is asked: that is said when a port opens, for an App
        that counts on it."""
        asks, lets_all = App(clock=Clock()), App(clock=Clock())

        @asks.handshake
        def login(session: Session, user: Any) -> None: ...

        for app, dialect, warned in (
            (asks, Hotpot(), True),
            (asks, Teleport(), True),
            (asks, Teleport2(), True),
            (asks, Teleport(auth=True), False),
            (asks, Pomelo(), False),
            (asks, Words(), False),
            (lets_all, Hotpot(), False),
        ):
            with LogLines() as log:
                LinkFactory(app, dialect)
            self.assertEqual(len(log.lines), warned, dialect.name)
            if warned:
                self.assertIn("login is not asked who comes by this", log.lines[0])
                self.assertIn(f"{dialect.name} port: it has no handshake", log.lines[0])


class Handshakes(Links):
    """Before a peer may talk."""

    def test_hook_that_waits(self) -> None:
        """What comes behind the hello waits for the hook, and nothing more is read."""
        app = self.app_with()
        gate: Deferred[Any] = Deferred()
        app.handshake(lambda session, user: gate)
        transport = self.connect(welcome=False)
        self.assertEqual(self.tell(transport, "hi 1", "ask 1 echo 1"), [])
        self.assertEqual(transport.producerState, "paused")
        gate.callback({"level": 1})
        self.assertEqual(transport.lines(), ['welcome {"level": 1}', "ok 1 1"])
        self.assertEqual(transport.producerState, "producing")

    def test_refused(self) -> None:
        """Who is refused is told so and closed; no session was opened, no hook ran."""
        app = self.app_with()
        ends: list[Session] = []
        app.closed(ends.append)

        @app.handshake
        async def no(session: Session, user: Any) -> None:
            raise Refused(401, "who?")

        transport = self.connect(welcome=False)
        self.assertEqual(self.tell(transport, "hi 1", "ask 1 echo 1"), ["no 0 401 who?"])
        self.assertFalse(transport.connected)
        self.assertEqual((ends, app.counts.opened, app.counts.lost), ([], 0, {"refused": 1}))

    def test_flood_of_refused(self) -> None:
        """Who comes again and again is a line of the log, and then a number."""
        app = self.app_with()

        @app.handshake
        def no(session: Session, user: Any) -> None:
            raise Refused(401) if user else ValueError

        with LogLines() as log:
            for user in (0, 1):
                for _ in range(20):
                    transport = self.connect(welcome=False)
                    self.assertEqual(len(self.tell(transport, f"hi {user}")), 1)
                    self.assertFalse(transport.connected)
            self.assertEqual(len(log.lines), 2)
            self.assertIn(" failed", log.lines[0])
            self.assertIn(" lost: refused: 500: internal error", log.lines[1])
            del log.events[:]
            self.clock.advance(10)
            self.assertEqual(
                log.lines,
                [
                    "ValueError of a handshake: 19 more from all addresses in 10 s",
                    "lost (refused): 39 more from 192.168.1.1 in 10 s",
                ],
            )
        self.assertEqual(app.counts.lost, {"refused": 40})
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_hook_that_fails(self) -> None:
        """Its fault is logged, and told without its text."""
        app = self.app_with()

        @app.handshake
        def bad(session: Session, user: Any) -> None:
            raise ValueError("secret")

        transport = self.connect(welcome=False)
        self.assertEqual(self.tell(transport, "hi 1"), ["no 0 500 internal error"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_welcome_that_cannot_be_said(self) -> None:
        """What the hook returns may be too large, or nothing that can be said: its fault."""
        for user in ("x" * 2000, object()):
            app = self.app_with()
            app.handshake(lambda session, _, user=user: user)
            transport = self.connect(welcome=False)
            self.assertEqual(self.tell(transport, "hi 1"), ["no 0 500 internal error"])
            self.assertEqual(len(self.flushLoggedErrors()), 1)
            self.assertEqual((app.sessions, transport.connected), ({}, False))

    def test_greeting_that_cannot_be_said(self) -> None:
        """A client that cannot say who it is ends, and who waits for it is told."""
        app = self.app_with()
        dialect = Words(user=object())
        told: list[Any] = []
        link = Link(app, dialect, dialect.client(), told.append)
        transport = self.reach(link)
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertFalse(transport.connected)
        [failure] = told
        failure.trap(SessionEnded)

    def test_too_slow(self) -> None:
        """Who is not ready in time is lost: one that says nothing, and one whose hook waits."""
        for says in ("", "hi 1\n"):
            with self.subTest(says=says):
                app = self.app_with()
                app.handshake(lambda session, user: Deferred())
                transport = self.connect(welcome=False)
                transport.say(says.encode())
                self.clock.pump([0.5] * 18)
                self.assertTrue(transport.connected)
                self.clock.pump([0.5] * 4)
                self.assertEqual(app.counts.lost, {"handshake_timeout": 1})
                self.assertFalse(transport.connected)

    def test_gone_meanwhile(self) -> None:
        """A peer that goes while its hook waits leaves nothing, whatever the hook then says."""
        for result in (1, Failure(Refused(401))):
            app = self.app_with()
            gate: Deferred[Any] = Deferred()
            app.handshake(lambda session, user, gate=gate: gate)
            transport = self.connect(welcome=False)
            self.tell(transport, "hi 1")
            transport.end(ConnectionLost())
            gate.callback(result)
            self.assertEqual((app.sessions, app.counts.opened), ({}, 0))

    def test_full(self) -> None:
        """As many sessions as may be: the next is told so, in its dialect."""
        self.app_with(bounds=Bounds(sessions=1))
        self.connect()
        second = self.connect(welcome=False)
        self.assertEqual(self.tell(second, "hi 1"), ["no 0 503 full"])
        third = self.connect(Words(greets=False))
        self.assertFalse(third.connected)
        self.assertEqual(len(self.app.sessions), 1)


class Early(Links):
    """Who is told something while his handshake is decided."""

    def deciding(self, **settings: Any) -> tuple[App, Deferred[Any], list[Session]]:
        """An App whose hook binds and groups a session, and then waits."""
        app = self.app_with(**settings)
        gate: Deferred[Any] = Deferred()
        sessions: list[Session] = []

        @app.handshake
        async def hook(session: Session, user: Any) -> Any:
            sessions.append(session)
            session.bind("ann")
            app.group("room").add(session)
            session.send("on", "hook")
            return await gate

        return app, gate, sessions

    def test_in_order(self) -> None:
        """Nothing goes out before the answer to the handshake; then all does, in order."""
        app, gate, sessions = self.deciding()
        app.opened(lambda session: session.send("on", "opened"))
        transport = self.connect(welcome=False)
        self.assertEqual(self.tell(transport, "hi 1"), [])
        for count in range(2):
            self.assertEqual(app.group("room").send("on", f"room {count}"), 1)
            self.assertEqual(app.user("ann").send("on", f"user {count}"), 1)
        self.clock.advance(1)
        self.assertEqual(transport.lines(), [])
        gate.callback("in")
        self.assertEqual(app.group("room").send("on", "room 2"), 1)
        self.assertEqual(app.user("ann").send("on", "user 2"), 1)
        sessions[0].send("on", "end")
        self.clock.advance(0)
        said = "hook", "room 0", "user 0", "room 1", "user 1", "opened", "room 2", "user 2", "end"
        self.assertEqual(transport.lines(), ['welcome "in"', *(f'say on "{one}"' for one in said)])
        self.assertEqual(app.counts.sent, len(said))

    def test_until_the_ack(self) -> None:
        """In pomelo a client is ready with its ack; the server's answer comes before all else."""
        app, gate, _ = self.deciding()
        transport = self.join(Pomelo(heartbeat=0))  # type: ignore[arg-type]
        transport.say(packet(HANDSHAKE))
        app.group("room").send("on", 1)
        gate.callback(None)
        self.clock.advance(0)
        [welcome] = transport.take()
        self.assertEqual((welcome[0], b'"code":200' in welcome), (HANDSHAKE, True))
        app.group("room").send("on", 2)
        self.clock.advance(0)
        self.assertEqual(transport.take(), [])
        transport.say(packet(ACK))
        pushes = [packet(DATA, b"\6\2on" + said) for said in (b'"hook"', b"1", b"2")]
        self.assertEqual(b"".join(transport.take()), b"".join(pushes))

    def test_bounded(self) -> None:
        """What is kept back counts as what waits; over the bound he is lost."""
        app, gate, _ = self.deciding(bounds=Bounds(waiting=5000))
        transport = self.connect(welcome=False)
        self.tell(transport, "hi 1")
        told = 0
        while len(app.group("room")) and told < 100:
            told += app.group("room").send("on", "x" * 500)
            self.clock.advance(0)
        self.assertEqual((told, transport.connected), (10, False))
        self.assertEqual(app.counts.lost, {"slow_reader": 1})
        gate.callback(None)
        self.assertEqual((app.sessions, app.user("ann").send("on", 1)), ({}, 0))

    def test_not_let_in(self) -> None:
        """Who is refused hears nothing of what was kept back for him."""
        app, gate, _ = self.deciding()
        transport = self.connect(welcome=False)
        self.tell(transport, "hi 1")
        gate.errback(Refused(401, "who?"))
        self.assertEqual(transport.lines(), ["no 0 401 who?"])
        self.assertEqual((transport.connected, len(app.group("room"))), (False, 0))

    def test_kicked(self) -> None:
        """Who is kicked at his handshake, as by a newer one of the same user, is not let in."""
        app, gate, sessions = self.deciding()
        first = self.connect(welcome=False)
        self.tell(first, "hi 1")
        second = self.connect(welcome=False)
        self.tell(second, "hi 1")
        self.assertEqual(first.lines(), ["no 0 403 replaced by a newer session"])
        self.assertFalse(first.connected)
        gate.callback(None)
        self.assertEqual(second.lines(), ["welcome null", 'say on "hook"'])
        self.assertEqual((list(app.sessions.values()), app.counts.opened), ([sessions[1]], 1))

    def test_asked(self) -> None:
        """Nothing can be asked yet, nor waited for: it could not be answered."""
        app = self.app_with()
        asked: list[Deferred[Any]] = []

        @app.handshake
        def hook(session: Session, user: Any) -> None:
            asked.extend((session.request("name"), session.next("name")))

        transport = self.connect(welcome=False)
        self.assertEqual(self.tell(transport, "hi 1"), ["welcome null"])
        for one in asked:
            self.failureResultOf(one, NotReady)
        player = Player(app)
        for one in asked[2:]:
            self.failureResultOf(one, NotReady)
        player.answers["name"] = str.upper
        self.assertEqual(self.successResultOf(player.session.request("name", "ann")), "ANN")


class Bounded(Links):
    """Nothing that a peer does, or leaves undone, grows past its bound."""

    def test_unanswered_requests(self) -> None:
        """Past the bound a session is not read from; it goes on as answers go out."""
        app = self.app_with(bounds=Bounds(requests=2))
        transport = self.connect(Words(concurrent=9))
        self.tell(transport, *(f"ask {key} wait {key}" for key in range(5)))
        self.assertEqual((len(self.gates), transport.producerState), (2, "paused"))
        self.gates[0].callback(None)
        self.clock.advance(0)
        self.assertEqual((transport.lines(), len(self.gates)), (["ok 0 0"], 3))
        for number in range(1, 5):
            self.gates[number].callback(None)
        self.clock.advance(0)
        self.assertEqual(transport.lines(), [f"ok {key} {key}" for key in range(1, 5)])
        self.assertEqual(transport.producerState, "producing")
        self.assertEqual(app.running, 0)

    def test_strand_with_no_room(self) -> None:
        """A full strand holds those who feed it, and nobody else; all is handled, in order."""
        app = self.app_with()
        strand = Strand(limit=4)
        app.opened(lambda session: setattr(session, "strand", strand))
        seen: list[int] = []
        app.route("note", lambda number: seen.append(number))
        first = self.connect()
        self.tell(first, "say wait 0", *(f"say note {number}" for number in range(10)))
        self.assertEqual((strand.waiting, first.producerState), (4, "paused"))
        app._opened.clear()
        other = self.connect()
        self.assertEqual(self.tell(other, "ask 1 echo 1"), ["ok 1 1"])
        self.gates[0].callback(None)
        self.assertEqual((seen, first.producerState), (list(range(10)), "producing"))

    def test_answer_comes_though_it_is_held(self) -> None:
        """A handler that asks back gets its answer, though its session's messages wait."""
        app = self.app_with(bounds=Bounds(strand=2))

        @app.handler("ask")
        async def ask(session: Session) -> Any:
            return await session.request("name")

        transport = self.connect()
        lines = ["ask 1 ask 0", *("say echo 0" for _ in range(4))]
        self.assertEqual(self.tell(transport, *lines), ["ask 1 name null"])
        self.assertEqual(transport.producerState, "producing")
        self.assertEqual(self.tell(transport, 'ok 1 "ann"'), ['ok 1 "ann"'])

    def test_flood_behind_an_answer(self) -> None:
        """But who floods instead of answering is lost."""
        app = self.app_with(bounds=Bounds(strand=2))

        @app.handler("ask")
        async def ask(session: Session) -> Any:
            return await session.request("name")

        transport = self.connect()
        self.tell(transport, "ask 1 ask 0", *("say echo 0" for _ in range(20)))
        self.assertEqual(app.counts.lost, {"flood": 1})
        self.assertFalse(transport.connected)
        self.flushLoggedErrors(SessionEnded)

    def test_slow_reader(self) -> None:
        """What waits for one that does not read is bounded; over it he is lost, and only he."""
        app = self.app_with(bounds=Bounds(waiting=5000, enough=1000))
        room = app.group("room")
        app.opened(room.add)
        slow, quick = self.connect(), self.connect()
        slow.stop_reading()
        told = heard = 0
        while slow.connected and told < 100:
            room.send("on", "x" * 500)
            self.clock.advance(0)
            told += 1
            heard += len(quick.lines())
        self.assertTrue(10 <= told < 50, told)
        self.assertEqual(app.counts.lost, {"slow_reader": 1})
        self.assertEqual((heard, len(room)), (told, 1))

    def test_bounds_that_change(self) -> None:
        """An App's new bounds hold for who comes then, on each kind of port."""
        app = self.app_with(bounds=Bounds(waiting=5000))
        self.connect().stop_reading()
        app.bounds = Bounds(waiting=50_000)
        self.connect().stop_reading()
        told = []
        for session in list(app.sessions.values()):
            told.append(0)
            while session.ended is None and told[-1] < 200:
                session.send("on", "x" * 500)
                told[-1] += 1
                self.clock.advance(0)
        self.assertEqual(app.counts.lost, {"slow_reader": 2})
        self.assertTrue(10 <= told[0] < 50 < 90 <= told[1] < 200, told)

    def test_await_send(self) -> None:
        """Who awaits `send` waits while a peer does not read, and goes on when it does or ends."""
        app = self.app_with(bounds=Bounds(enough=100))
        transport = self.connect()
        sent: list[int] = []

        @app.handler("many")
        async def many(session: Session) -> None:
            for number in range(40):
                await session.send("on", "x" * 500)
                sent.append(number)

        transport.stop_reading()
        self.tell(transport, "say many 0")
        self.assertTrue(len(sent) < 20, sent)
        self.clock.advance(1.0)
        self.assertTrue(len(sent) < 20, sent)
        transport.read_on()
        self.assertEqual((len(transport.lines()), sent), (40, list(range(40))))

    def test_rate(self) -> None:
        """Who says more a second than he may is not read from until he may again."""
        app = self.app_with(bounds=Bounds(messages=10.0))
        transport = self.connect()
        answers = self.tell(transport, *(f"ask {key} echo {key}" for key in range(30)))
        self.assertTrue(10 <= len(answers) <= 12, answers)
        self.assertEqual(transport.producerState, "paused")
        self.clock.pump([0.1] * 25)
        self.assertEqual(len(answers) + len(transport.lines()), 30)
        self.clock.pump([0.1] * 20)
        self.assertEqual(transport.producerState, "producing")
        self.assertEqual(app.counts.lost, {})

    def test_byte_rate(self) -> None:
        """Likewise for bytes."""
        self.app_with(bounds=Bounds(bytes=1000.0))
        transport = self.connect()
        self.tell(transport, *(f"say echo {'1' * 500}" for _ in range(5)))
        self.assertEqual(transport.producerState, "paused")
        self.clock.pump([0.1] * 20)
        self.assertEqual(transport.producerState, "producing")


class Asking(Links):
    """Requests the other way."""

    def asked(self, **bounds: Any) -> tuple[Session, Any]:
        app = self.app_with(bounds=Bounds(**bounds))
        transport = self.connect()
        [session] = app.sessions.values()
        return session, transport

    def test_answers(self) -> None:
        """Answers come in any order; one that refuses fails; one to nothing is ignored."""
        session, transport = self.asked()
        first, second = session.request("a", into=int), session.request("b")
        third = session.request("c", into=int)
        self.clock.advance(0)
        self.assertEqual(len(transport.lines()), 3)
        self.tell(transport, "no 2 403 not you", "ok 9 1", 'ok 3 "text"', "ok 1 5")
        self.assertEqual(self.successResultOf(first), 5)
        self.assertEqual(self.failureResultOf(second, Refused).value.code, 403)
        self.failureResultOf(third, Refused)
        self.assertTrue(transport.connected)

    def test_time_and_cancel(self) -> None:
        """No answer in time fails; a late one, and one that was cancelled, are ignored."""
        session, transport = self.asked()
        late = session.request("a", timeout=5.0)
        given_up = session.request("b", timeout=5.0)
        given_up.cancel()
        self.failureResultOf(given_up)
        self.clock.advance(5.0)
        self.failureResultOf(late, RequestTimeout)
        self.tell(transport, "ok 1 1", "ok 2 1")
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()][2:], [])

    def test_end(self) -> None:
        """When the connection ends all that was asked fails at once, and nothing is sent."""
        session, transport = self.asked()
        waits = [session.request("a"), session.request("b", timeout=None)]
        transport.end(ConnectionLost())
        for one in waits:
            self.failureResultOf(one, SessionEnded)
        for call in (session.request, session.send):
            with pytest.raises(SessionEnded):
                call("c")

    def test_bound(self) -> None:
        """More than so many at a time are not asked."""
        session, _ = self.asked(asked=2)
        session.request("a").addErrback(lambda _: None)
        session.request("a").addErrback(lambda _: None)
        self.failureResultOf(session.request("a"), RequestsFull)


class Ends(Links):
    """How a session ends, and who is told."""

    def ended(self, act: Callable[[Session, Any], object]) -> tuple[Any, Session]:
        app = self.app_with()
        told: list[Session] = []
        app.closed(told.append)
        transport = self.connect()
        [session] = app.sessions.values()
        waits = [session.when_ended(), session.when_ended()]
        act(session, transport)
        self.clock.advance(0)
        self.assertEqual((told, app.sessions), ([session], {}))
        self.assertFalse(transport.connected)
        ended = session.ended
        assert ended is not None
        for done in (*waits, session.when_ended()):
            why = self.successResultOf(done)
            self.assertEqual((str(why), why.cause), (str(ended), ended.cause))
        return transport, session

    def test_close(self) -> None:
        """What was told before goes out; the hook runs once."""

        def act(session: Session, _: Any) -> None:
            session.send("on", 1)
            session.close()
            session.close()

        transport, session = self.ended(act)
        self.assertEqual(transport.lines(), ["say on 1"])
        self.assertIn("closed here", str(session.ended))

    def test_kick(self) -> None:
        """It is told why, behind what was told before."""

        def act(session: Session, _: Any) -> None:
            session.send("on", 1)
            session.kick("dup")

        transport, _ = self.ended(act)
        self.assertEqual(transport.lines(), ["say on 1", 'bye "dup"'])

    def test_peer_closes(self) -> None:
        """In order: there is no cause. Broken: there is."""
        _, session = self.ended(lambda _, transport: transport.end(ConnectionDone()))
        assert session.ended is not None
        self.assertIsNone(session.ended.cause)
        _, session = self.ended(lambda _, transport: transport.end(ConnectionLost()))
        assert session.ended is not None
        self.assertIsInstance(session.ended.cause, ConnectionLost)

    def test_bad_frame(self) -> None:
        """What precedes it in one read is handled and answered; then the connection goes."""
        transport, session = self.ended(
            lambda _, transport: transport.say(b"ask 1 echo 1\nnonsense\nsay a 1\n")
        )
        self.assertEqual(transport.lines(), ["ok 1 1"])
        self.assertIn("says nothing", str(session.ended))

    def test_stop(self) -> None:
        """The App's stop ends all connections, also those at their handshakes."""
        app = self.app_with()
        app.start()
        there, asks = self.connect(), self.connect(welcome=False)
        app.stop()
        self.assertEqual((there.connected, asks.connected, app.sessions), (False, False, {}))

    def test_kicked_by_the_peer(self) -> None:
        """It says so, and why."""
        _, session = self.ended(lambda _, transport: transport.say(b'bye "tired"\n'))
        self.assertIn("tired", str(session.ended))

    def test_never_reads(self) -> None:
        """A peer that does not take what it was told is aborted after a while."""

        def act(session: Session, transport: Any) -> None:
            transport.stop_reading()
            for _ in range(40):
                session.send("on", "x" * 500)
            session.close()
            self.assertTrue(transport.connected)
            self.clock.pump([0.1] * 60)

        self.ended(act)

    def test_beats(self) -> None:
        """Beats go out in time; who gives no sign of life is lost, who does is not."""
        app = self.app_with()
        dialect = Words(beats=2.0)
        silent, alive = self.connect(dialect), self.connect(dialect)
        for _ in range(40):
            self.clock.advance(0.5)
            if int(self.clock.seconds() * 2) % 8 == 0:
                alive.say(b"beat\n")
        self.assertEqual((silent.connected, alive.connected), (False, True))
        self.assertEqual(app.counts.lost, {"silent": 1})
        self.assertEqual(silent.lines(), ["beat"] * 2)

    def test_closing_hook_after_messages(self) -> None:
        """`closed` runs behind the messages that came before, also those that wait."""
        app = self.app_with()
        order: list[Any] = []
        app.route("note", order.append)
        app.closed(lambda session: order.append("closed"))
        transport = self.connect()
        self.tell(transport, "say wait 0", "say note 1")
        transport.end(ConnectionDone())
        self.assertEqual(order, [])
        self.gates[0].callback(None)
        self.assertEqual(order, [1, "closed"])


class Days(Links):
    """Random days."""

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.differing_executors],  # on two transports
    )
    @given(
        st.lists(
            st.binary(max_size=60)
            | st.sampled_from(
                [
                    b"ask 1 echo 1\n",
                    b"ask 2 wait 2\n",
                    b"say echo {}\n",
                    b"ok 1 1\n",
                    b"beat\n",
                    b"hi 1\n",
                ]
            ),
            max_size=12,
        ),
        st.integers(0, 5),
    )
    def test_any_bytes(self, pieces: list[bytes], lets_go: int) -> None:
        """Whatever comes, nothing is raised or logged as a fault, and nothing stays behind."""
        app = self.app_with()
        transport = self.connect(Words(beats=1.0))
        for piece in pieces:
            if transport.connected:
                transport.say(piece)
            self.clock.advance(0.1)
        for gate in self.gates[:lets_go]:
            gate.callback(None)
        transport.end(ConnectionLost())
        for gate in self.gates:  # more may come while it goes on
            if not gate.called:
                gate.callback(None)
        self.clock.pump([0.5] * 10)
        self.assertEqual((app.sessions, app.running), ({}, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])


class NativeMessages(NativeLinks, Messages):
    """The same on the relay."""

    apart = {"kind": socket.SOCK_SEQPACKET}


class NativeHandshakes(NativeLinks, Handshakes):
    """The same on the relay."""


class NativeEarly(NativeLinks, Early):
    """The same."""


class NativeBounded(NativeLinks, Bounded):
    """The same on the relay."""


class NativeAsking(NativeLinks, Asking):
    """The same on the relay."""


class NativeEnds(NativeLinks, Ends):
    """The same on the relay."""


class NativeDays(NativeLinks, Days):
    """The same on the relay."""

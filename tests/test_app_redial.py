"""Sessions that outlive their connections: identity, what was under way, what waits."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, BadHandler, Bounds, Session, SessionEnded
from fastway.app.redial import redial
from fastway.dialect import Dialect
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.teleport import Teleport
from fastway.errors import RequestsFull, RequestTimeout
from tests.support.app_memory import Memory
from tests.support.errors import raised


class Redials(SynchronousTestCase):
    """A server whose connections break, and one session with it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = App(clock=self.clock)
        self.heard: list[Any] = []
        self.server.route("add", lambda numbers: sum(numbers))
        self.server.route("note", self.heard.append)
        self.server.route("never", lambda: Deferred())
        self.app = self.app_with()

    def app_with(self, **settings: Any) -> App:
        app = App(clock=self.clock, bounds=Bounds(**settings))
        self.hooks: list[str] = []
        app.opened(lambda session: self.hooks.append("opened"))
        app.closed(lambda session: self.hooks.append("closed"))
        return app

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.clock.pump([0] * 12)

    def begin(self, dialect: Dialect | None = None, **settings: Any) -> Deferred[Session]:
        dialect = dialect or Teleport()
        self.endpoint = Memory(self.server, dialect, self.clock)
        settings.setdefault("backoff", lambda failures: 1.0)
        connecting = redial(self.app, self.endpoint, dialect, **settings)
        self.turn()
        return connecting

    def session(self, dialect: Dialect | None = None, **settings: Any) -> Session:
        session = self.successResultOf(self.begin(dialect, **settings))
        assert isinstance(session, Session)
        return session

    def lose(self) -> None:
        self.endpoint.halves[-1].both_end()

    def test_identity(self) -> None:
        """The same session, with all that it is, at the next connection; it opens once."""
        session = self.session()
        room = self.app.group("room")
        room.add(session)
        session.bind("ann")
        session.state = {"gold": 3}
        self.lose()
        self.assertEqual(self.server.sessions, {})
        self.assertIsNone(session.ended)
        self.turn(1.0)
        self.assertEqual(len(self.server.sessions), 1)
        self.assertEqual(self.app.sessions, {session.session_id: session})
        self.assertEqual((list(room), list(self.app.user("ann"))), ([session], [session]))
        self.assertEqual(session.state, {"gold": 3})
        asked = session.request("add", [1, 2], into=int)
        self.turn()
        self.assertEqual(self.successResultOf(asked), 3)
        self.assertEqual(self.hooks, ["opened"])

    def test_who_hears(self) -> None:
        """What a server pushes by its later connections is of the same session."""
        got: list[Session] = []

        @self.app.handler("hear")
        def hear(session: Session) -> None:
            got.append(session)

        session = self.session()
        for _ in range(2):
            [there] = self.server.sessions.values()
            there.send("hear")
            self.turn()
            self.lose()
            self.turn(1.0)
        self.assertEqual(got, [session, session])

    def test_under_way(self) -> None:
        """What was asked fails at once, and is not asked again."""
        session = self.session()
        asked = session.request("never")
        self.turn()
        self.lose()
        self.failureResultOf(asked, SessionEnded)
        self.turn(1.0)
        self.assertEqual(self.server.counts.requests, 1)

    def test_waits(self) -> None:
        """What is said and asked meanwhile goes out once, in order, behind what greets."""
        greeted: list[Session] = []

        def up(session: Session) -> None:
            greeted.append(session)
            session.send("note", "greeting")

        session = self.session(up=up)
        self.lose()
        room = self.app.group("room")
        room.add(session)
        session.send("note", 1, meta=[("k", "v")])
        asked = session.request("add", [2, 2])
        room.send("note", 2)
        self.assertNoResult(asked)
        self.turn(1.0)
        self.assertEqual(self.heard, ["greeting", "greeting", 1, 2])
        self.assertEqual(self.successResultOf(asked), 4)
        self.assertEqual(greeted, [session, session])
        self.turn(60.0)
        self.assertEqual(self.server.counts.requests, 1)

    def test_next_waits(self) -> None:
        """So does who waits for what the server says next."""
        session = self.session()
        self.lose()
        news = session.next("news")
        self.turn(1.0)
        [there] = self.server.sessions.values()
        there.send("news", "all")
        self.turn()
        self.assertEqual(self.successResultOf(news), "all")

    def test_time_runs(self) -> None:
        """A request's time goes by while there is no connection, and goes on behind it."""
        session = self.session(backoff=lambda failures: 3.0)
        self.lose()
        soon = session.request("never", timeout=2.0)
        later = session.request("never", timeout=5.0)
        forgotten = session.request("never")
        forgotten.cancel()
        self.failureResultOf(forgotten, CancelledError)
        self.turn(2.0)
        self.failureResultOf(soon, RequestTimeout)
        self.turn(1.0)
        self.assertEqual(self.server.counts.requests, 1)
        self.turn(1.9)
        self.assertNoResult(later)
        self.turn(0.2)
        self.failureResultOf(later, RequestTimeout)

    def test_bounds(self) -> None:
        """What waits is bounded: requests fail, and too much that is said ends it."""
        self.app = self.app_with(asked=2, waiting=1000, enough=100)
        session = self.session()
        self.lose()
        asked = [session.request("never", timeout=None) for _ in range(3)]
        self.failureResultOf(asked[2], RequestsFull)
        room = session.send("note", "x" * 200)
        self.assertIsInstance(room, Deferred)
        raised(TypeError, session.send, "note", object())
        session.send("note", "x" * 900)
        self.assertIn("too much", str(session.ended))
        for one in asked[:2]:
            self.failureResultOf(one, SessionEnded)
        self.successResultOf(room)
        self.turn(10.0)
        self.assertEqual((len(self.endpoint.halves), self.hooks), (1, ["opened", "closed"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_given_up(self) -> None:
        """After so many attempts the session ends, and whoever waits is told."""
        session = self.session(times=2)
        self.lose()
        self.endpoint.broken = True
        asked = session.request("add", [1], timeout=None)
        self.turn(1.0)
        self.turn(1.0)
        self.assertIsNone(session.ended)
        self.turn(1.0)
        self.assertIn("refused", str(session.ended))
        self.failureResultOf(asked, SessionEnded)
        self.assertEqual(self.app.sessions, {})

    def test_never_there(self) -> None:
        """So is the first connection: with what the last attempt met."""
        self.endpoint = Memory(self.server, Teleport(), self.clock)
        self.endpoint.broken = True
        connecting = redial(
            self.app, self.endpoint, Teleport(), times=1, backoff=lambda failures: 1.0
        )
        self.assertNoResult(connecting)
        self.turn(1.0)
        self.failureResultOf(connecting, ConnectionRefusedError)
        self.app.route("/add", len)
        self.app.route("add", len)
        connecting = redial(self.app, self.endpoint, Teleport(), times=0)
        self.failureResultOf(connecting, BadHandler)

    def test_not_let_in(self) -> None:
        """A server that does not let in is one that is not there."""
        pomelo = Pomelo(refusals="reply")
        session = self.session(pomelo, times=1)

        @self.server.handshake
        def no(session: Session, user: Any) -> None:
            raise ValueError

        self.lose()
        for _ in range(2):
            self.turn(1.0)
        self.assertIn("does not come back", str(session.ended))
        self.flushLoggedErrors(ValueError)

    def test_closed_here(self) -> None:
        """Up, amid a pause, amid an attempt; by its App as well: it is over for good."""
        for how in (Session.close, Session.abort, lambda session: self.app.stop()):
            for when in range(3):
                self.app = self.app_with()
                session = self.session()
                if when:
                    self.lose()
                if when == 2:
                    self.server.state = type(self.server.state).DRAINING
                    self.clock.advance(1.0)
                how(session)
                self.turn()
                self.turn(6.0)
                self.assertIsNotNone(session.ended)
                self.assertEqual((self.app.sessions, self.hooks), ({}, ["opened", "closed"]))
                self.assertEqual(self.clock.getDelayedCalls(), [])
                self.server.state = type(self.server.state).RUNNING
        self.app = self.app_with()
        self.endpoint.broken = True
        waiting = redial(self.app, self.endpoint, Teleport())
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

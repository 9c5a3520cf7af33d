"""Clients of an application: connecting, asking, and coming back."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Refused, Session, SessionEnded
from fastway.app.client import Client
from fastway.dialect.pomelo import Pomelo
from fastway.errors import GatewayDown, LocalError, RequestTimeout
from tests.support.app_memory import Memory
from tests.support.words import Words


class Clients(SynchronousTestCase):
    """Two Apps, one connected to the other."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = App(clock=self.clock)
        self.app = App(clock=self.clock)
        self.endpoint = Memory(self.server, Words(), self.clock)
        self.server.handshake(lambda session, user: session.bind(user) or f"hello, {user}")
        self.server.route("add", lambda numbers: sum(numbers))
        self.app.route("name", lambda: "ann")

    def turn(self) -> None:
        self.clock.pump([0] * 8)

    def connect(self, **settings: Any) -> Session:
        connecting = self.app.connect(self.endpoint, Words(user="ann"), **settings)
        self.turn()
        return self.successResultOf(connecting)


class Connecting(Clients):
    """`App.connect`."""

    def test_both_ways(self) -> None:
        """Either end asks the other; both are told of the end."""
        session = self.connect()
        [other] = self.server.sessions.values()
        self.assertEqual(other.user, "ann")
        added, name = session.request("add", [1, 2], into=int), other.request("name", into=str)
        self.turn()
        self.assertEqual(self.successResultOf(added), 3)
        self.assertEqual(self.successResultOf(name), "ann")
        other.kick("enough")
        self.turn()
        self.assertIn("enough", str(session.ended))
        self.assertEqual((self.app.sessions, self.server.sessions), ({}, {}))

    def test_no_connection(self) -> None:
        """What the endpoint meets is what fails."""
        self.endpoint.broken = True
        connecting = self.app.connect(self.endpoint, Words())
        self.failureResultOf(connecting, ConnectionRefusedError)

    def test_never_ready(self) -> None:
        """A server that says nothing is given up, and its connection closed."""
        self.server.handshake(lambda session, user: Deferred())
        connecting = self.app.connect(self.endpoint, Words(), timeout=3.0)
        self.turn()
        self.clock.advance(3.0)
        self.failureResultOf(connecting, RequestTimeout)
        self.turn()
        self.assertFalse(self.endpoint.halves[0].connected)

    def test_refused(self) -> None:
        """A server that does not let in: it fails with what that said."""

        def no(session: Session, user: Any) -> None:
            raise ValueError

        self.server.handshake(no)
        connecting = self.app.connect(self.endpoint, Words())
        self.turn()
        self.assertIn("internal error", str(self.failureResultOf(connecting, Refused).value))
        self.flushLoggedErrors(ValueError)

    def test_not_let_in(self) -> None:
        """A dialect's own word for it is the Refused that the server raised."""

        def no(session: Session, user: Any) -> None:
            raise Refused(401, "who?")

        self.server.handshake(no)
        pomelo = Pomelo(refusals="reply")
        endpoint = Memory(self.server, pomelo, self.clock)
        connecting = self.app.connect(endpoint, pomelo)
        self.turn()
        refused = self.failureResultOf(connecting, Refused).value
        self.assertEqual((refused.code, refused.text), (401, "who?"))
        self.assertEqual(self.app.counts.lost, {"not_let_in": 1})


class ComingBack(Clients):
    """`Client` keeps one session."""

    def client(self, **settings: Any) -> Client:
        client = Client(
            self.app, self.endpoint, Words(user="ann"), backoff=lambda failures: 1.0, **settings
        )
        self.addCleanup(client.stopService)
        client.startService()
        self.turn()
        return client

    def test_again(self) -> None:
        """A lost session is followed by another; what was asked fails at once, and is not sent
        again."""
        greeted: list[Session] = []
        client = self.client(up=greeted.append)
        first = self.successResultOf(client.when_up())
        asked = first.request("add", [1])
        self.endpoint.halves[0].both_end()
        self.failureResultOf(asked, SessionEnded)
        self.assertIsNone(client.session)
        up = client.when_up()
        self.clock.advance(1.0)
        self.turn()
        second = self.successResultOf(up)
        self.assertEqual(greeted, [first, second])
        self.assertEqual(self.server.counts.requests, 0)

    def test_attempts(self) -> None:
        """Who waits for so many attempts is told; others go on waiting, until there is one."""
        self.endpoint.broken = True
        client = self.client()
        waits, patient = client.when_up(attempts=2), client.when_up()
        self.clock.advance(1.0)
        self.assertNoResult(waits)
        self.clock.advance(1.0)
        self.failureResultOf(waits, GatewayDown)
        self.endpoint.broken = False
        self.clock.advance(1.0)
        self.turn()
        self.assertIs(self.successResultOf(patient), client.session)
        self.assertEqual(client.attempts, 0)

    def test_greeting_that_fails(self) -> None:
        """What greets may fail: the session is there all the same."""

        def bad(session: Session) -> None:
            raise ValueError

        client = self.client(up=bad)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.successResultOf(client.when_up())

    def test_greeting_that_asks(self) -> None:
        """What greets may await; its failure is logged, but not that the session has ended."""
        greeted: list[Any] = []

        async def up(session: Session) -> None:
            greeted.append(await session.request("add", [1, 2]))
            await session.request("add", ["wrong"])

        client = self.client(up=up)
        self.turn()
        self.assertEqual(greeted, [3])
        self.assertEqual(len(self.flushLoggedErrors(Refused)), 1)
        self.flushLoggedErrors(TypeError)
        self.server.route("never", lambda: Deferred())
        client = self.client(up=lambda session: session.request("never"))
        self.endpoint.halves[-1].both_end()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertIsNone(client.session)

    def test_stop(self) -> None:
        """Stopped, it leaves nothing: up, while it waits, and amid an attempt."""
        client = self.client()
        stopped = client.stopService()
        self.turn()
        self.successResultOf(stopped)
        self.failureResultOf(client.when_up(), LocalError)
        self.endpoint.broken = True
        client.startService()
        waits = client.when_up()
        self.successResultOf(client.stopService())
        self.failureResultOf(waits, LocalError)
        self.endpoint.broken = False
        self.server.handshake(lambda session, user: Deferred())
        client.startService()
        self.turn()
        self.successResultOf(client.stopService())
        self.turn()
        self.clock.advance(0.2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

"""Waiting for what a peer says next (`Session.next`), and the end at once (`Session.abort`)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, BadBody, Bounds, Session, SessionEnded, Strand
from fastway.app.link import Link
from fastway.app.ports import LinkFactory
from fastway.app.testing import Player
from fastway.errors import RequestsFull, RequestTimeout
from tests.support.errors import raised
from tests.support.words import Words


class Peer:
    """A peer in words, in memory."""

    def __init__(self, app: App) -> None:
        known = set(app.sessions)
        self.transport = StringTransport()
        self.aborted = False
        for name, why in (("loseConnection", ConnectionDone), ("abortConnection", ConnectionLost)):
            setattr(self.transport, name, lambda why=why: self.end(why()))
        self.link: Link = LinkFactory(app, Words(greets=False)).buildProtocol(None)
        self.link.makeConnection(self.transport)
        [self.session] = [one for key, one in app.sessions.items() if key not in known]

    def end(self, why: Exception) -> None:
        if self.transport.connected:
            self.transport.connected = False
            self.aborted = isinstance(why, ConnectionLost)
            self.link.connectionLost(Failure(why))

    def say(self, *lines: str) -> list[str]:
        self.link.dataReceived("".join(f"{line}\n" for line in lines).encode())
        text: str = self.transport.value().decode()
        self.transport.clear()
        return text.splitlines()


class NextTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.app = App(clock=self.clock, bounds=Bounds(asked=3, strand=2))
        self.heard: list[Any] = []
        self.app.route("joined", self.heard.append)
        self.peer = Peer(self.app)
        self.session: Session = self.peer.session

    def test_takes_it_from_handlers(self) -> None:
        first = self.session.next("joined")
        second = self.session.next("joined", into=list[int])
        self.assertNoResult(first)
        self.peer.say("say other 1", "say joined 1", "say joined [2]", "say joined 3")
        self.assertEqual(self.successResultOf(first), 1)
        self.assertEqual(self.successResultOf(second), [2])
        self.assertEqual(self.heard, [3])
        self.assertEqual(self.app.counts.messages, 4)
        self.assertLess(len(self.clock.getDelayedCalls()), 2)  # that of the wheel

    def test_one_after_the_other(self) -> None:
        """Who waits again as soon as it came misses nothing of the same read."""
        heard: list[Any] = []

        async def listen() -> None:
            while True:
                heard.append(await self.session.next("joined", timeout=None))

        listening = Deferred.fromCoroutine(listen())
        self.peer.say(*(f"say joined {number}" for number in range(50)))
        self.assertEqual(heard, list(range(50)))
        self.peer.end(ConnectionDone())
        self.failureResultOf(listening, SessionEnded)

    def test_passes_the_strand(self) -> None:
        """A handler that waits for what comes behind more than its strand takes is not locked."""
        got: list[Any] = []

        async def ask() -> str:
            got.append(await self.session.next("confirm"))
            return "done"

        self.app.route("ask", ask)
        lines = [f"say joined {number}" for number in range(3)]
        self.assertEqual(self.peer.say("ask 1 ask 0", *lines, "say confirm 7"), ['ok 1 "done"'])
        self.assertEqual((got, self.heard), ([7], [0, 1, 2]))

    def test_fails(self) -> None:
        """Not of that type, too late, gone, nobody's any more, too many."""
        bad = self.session.next("joined", into=int)
        self.peer.say('say joined "x"')
        self.failureResultOf(bad, BadBody)
        late = self.session.next("joined", timeout=5.0)
        given_up = self.session.next("joined")
        given_up.addErrback(lambda failure: failure.trap(CancelledError) and None)
        given_up.cancel()
        self.clock.advance(5.0)
        self.failureResultOf(late, RequestTimeout)
        self.peer.say("say joined 2")
        self.assertEqual(self.heard, [2])
        waiting = [self.session.next(route) for route in "abc"]
        self.failureResultOf(self.session.next("d"), RequestsFull)
        self.peer.end(ConnectionLost())
        for one in waiting:
            self.failureResultOf(one, SessionEnded)
        raised(SessionEnded, self.session.next, "a")
        self.assertLess(len(self.clock.getDelayedCalls()), 2)  # that of the wheel

    def test_beside_requests(self) -> None:
        asked, waiting = self.session.request("a"), self.session.next("a")
        self.peer.say("say a 1", "ok 1 2")
        self.assertEqual(self.successResultOf(asked), 2)
        self.assertEqual(self.successResultOf(waiting), 1)

    def test_player(self) -> None:
        """Players are waited for likewise."""
        app = App()
        app.route("joined", self.heard.append)
        ann = Player(app)
        waiting = ann.session.next("joined", into=int)
        late = ann.session.next("never", timeout=1.0)
        ann.send("joined", 1)
        ann.send("joined", 2)
        self.assertEqual(self.successResultOf(waiting), 1)
        self.assertEqual(self.heard, [2])
        app.clock.advance(1.0)
        self.failureResultOf(late, RequestTimeout)
        gone = ann.session.next("joined")
        ann.session.abort()
        self.failureResultOf(gone, SessionEnded)


class AbortTests(SynchronousTestCase):
    def test_abort(self) -> None:
        """What was told is sent before a close, and not before an abort."""
        for name in ("close", "abort"):
            app = App(clock=Clock())
            peer = Peer(app)
            peer.session.send("on", 1)
            getattr(peer.session, name)()
            getattr(peer.session, name)()
            self.assertEqual(peer.transport.value(), b"say on 1\n" if name == "close" else b"")
            self.assertEqual(peer.aborted, name == "abort")
            self.assertEqual(str(peer.session.ended), "closed here")
            self.assertEqual(app.counts.lost, {})

    def test_impatient(self) -> None:
        """Who does not read can be ended at once, behind a close too."""
        app = App(clock=Clock(), strand=Strand())
        peer = Peer(app)
        peer.link.pauseProducing()
        peer.session.send("on", 1)
        peer.session.close()
        self.assertIsNone(peer.session.ended)
        peer.session.abort()
        self.assertIsNotNone(peer.session.ended)
        self.assertEqual(peer.transport.value(), b"")

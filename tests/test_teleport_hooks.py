"""What teleport's hooks are here: their order, and what an error in each does, over memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Outgoing, Refused, Request, Session
from fastway.app.redial import redial
from fastway.dialect.teleport import Teleport
from tests.support.errors import raised
from tests.support.teleport import Memory


class Hooks(SynchronousTestCase):
    """A server and a client, both with hooks that note what they see."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.seen: list[str] = []
        self.no: set[str] = set()
        """Hooks that refuse."""
        self.server, self.app = self.noting("S"), self.noting("C")
        self.app.route("hello", lambda name: f"hello {name}")

        @self.server.handler("add")
        def add(request: Request, numbers: list[int]) -> int:
            self.note("S handler")
            request.answer_meta.append(("n", str(len(numbers))))
            return sum(numbers)

        @self.server.handler("ask")
        async def ask(session: Session, name: str) -> Any:
            return await session.request("hello", name)

        @self.server.handshake
        def handshake(session: Session, user: Any) -> None:
            self.note("S handshake")

    def noting(self, who: str) -> App:
        app = App(clock=self.clock)
        app.opened(lambda session: self.note(f"{who} opened"))
        app.closed(lambda session: self.note(f"{who} closed"))

        @app.middleware
        async def outer(request: Request, call_next: Any) -> Any:
            self.note(f"{who} read {request.route}")
            result = await call_next(request)
            self.note(f"{who} write reply")
            return result

        @app.middleware
        async def inner(request: Request, call_next: Any) -> Any:
            self.note(f"{who} inner")
            return await call_next(request)

        @app.outgoing
        def outgoing(out: Outgoing) -> None:
            self.note(f"{who} write {out.route}")
            out.meta = [*out.meta, ("by", who)]

        return app

    def note(self, what: str) -> None:
        self.seen.append(what)
        if what in self.no:
            raise Refused(1007, what, "cause")

    def turn(self) -> None:
        self.clock.pump([0] * 12)

    def dial(self) -> Deferred[Session]:
        dialect = Teleport(auth=True, user="tok")
        connecting = redial(self.app, Memory(self.server, dialect, self.clock), dialect, times=0)
        self.turn()
        return connecting

    def connect(self) -> Session:
        session = self.successResultOf(self.dial())
        assert isinstance(session, Session)
        return session

    def asked(self, asking: Deferred[Any]) -> Any:
        self.turn()
        return self.successResultOf(asking)

    def test_order(self) -> None:
        """Of a connection, a call, a push, a question back, and the end."""
        session = self.connect()
        self.assertEqual(self.seen, ["S handshake", "S opened", "C opened"])
        self.seen.clear()
        heard: list[tuple[str, str]] = []
        self.assertEqual(self.asked(session.request("add", [1, 2], answer_meta=heard)), 3)
        read = ["S read add", "S inner", "S handler", "S write reply"]
        self.assertEqual(self.seen, ["C write add", *read])
        self.assertEqual(heard, [("n", "2")])
        self.seen.clear()
        session.send("add", [1])
        self.turn()
        self.assertEqual(self.seen, ["C write add", *read])
        self.seen.clear()
        self.assertEqual(self.asked(session.request("ask", "ann")), "hello ann")
        there = ["S read ask", "S inner", "S write hello"]
        back = ["C read hello", "C inner", "C write reply", "S write reply"]
        self.assertEqual(self.seen, ["C write ask", *there, *back])
        self.seen.clear()
        session.close()
        self.turn()
        self.assertEqual(sorted(self.seen), ["C closed", "S closed"])

    def test_errors(self) -> None:
        """A status for who asked; what is behind it is not called."""
        session = self.connect()
        for hook, last in (
            ("C write add", "C write add"),
            ("S read add", "S read add"),
            ("S inner", "S inner"),
            ("S write reply", "S write reply"),
        ):
            self.seen.clear()
            self.no = {hook}
            asking = session.request("add", [1])
            self.turn()
            refused = self.failureResultOf(asking, Refused).value
            self.assertEqual((refused.code, refused.text, refused.data), (1007, hook, "cause"))
            self.assertEqual(self.seen[-1], last)
            session.send("add", [1])
            self.turn()
            self.assertEqual(self.seen[-1], last)
        self.no = set()
        self.assertEqual(self.asked(session.request("add", [1])), 1)

    def test_outgoing_meta(self) -> None:
        """What goes beside a message may be added to, of groups too."""
        got: list[Any] = []
        self.app.route("note", len)

        @self.app.handler("news")
        def news(request: Request) -> None:
            got.append(list(request.meta))

        self.connect()
        room = self.server.group("room")
        [there] = self.server.sessions.values()
        room.add(there)
        room.send("news", meta=[("k", "v")])
        there.send("news")
        self.turn()
        self.assertEqual(got, [[("k", "v"), ("by", "S")], [("by", "S")]])
        self.no = {"S write news"}
        self.assertEqual(room.send("news"), 0)

    def test_meta_of_errors(self) -> None:
        """What an error has beside it, is seen both ways; one that is too long says its code."""
        meta = [("k", "v"), ("k", "é")]
        fates: list[Refused] = []

        @self.server.handler("fails")
        def fails() -> None:
            raise fates.pop()

        session = self.connect()
        for beside, seen in ((meta, meta), ([("k", "x" * 70_000)], []), ([("k", "\ud800")], [])):
            fates.append(Refused(1001, "no", "why", beside))
            heard: list[tuple[str, str]] = []
            asking = session.request("fails", answer_meta=heard)
            self.turn()
            refused = self.failureResultOf(asking, Refused).value
            self.assertEqual((refused.code, refused.meta, heard), (1001, seen, seen))

    def test_connections(self) -> None:
        """Who is not let in, and hooks of connections that fail."""
        self.no = {"S handshake"}
        refused = self.failureResultOf(self.dial(), Refused).value
        self.assertEqual(refused.text, "S handshake")
        self.assertEqual(self.seen, ["S handshake"])
        self.no = {"S opened", "C opened", "S closed"}
        session = self.connect()
        self.assertEqual(self.asked(session.request("add", [1])), 1)
        session.close()
        self.turn()
        self.assertTrue(self.flushLoggedErrors(Refused))
        raised(Exception, session.request, "add", [1])


class Both(SynchronousTestCase):
    """One App that is a server and a client at once."""

    def test_both(self) -> None:
        """Its handlers are for all of its peers; `sessions` has them all."""
        clock = Clock()
        apps = [App(clock=clock) for _ in range(3)]
        for number, app in enumerate(apps):
            self.serve(app, number)

        sessions = []
        for near, far in ((apps[0], apps[1]), (apps[1], apps[2])):
            connecting = near.connect(Memory(far, Teleport(), clock), Teleport())
            clock.pump([0] * 10)
            sessions.append(self.successResultOf(connecting))
        self.assertEqual([len(app.sessions) for app in apps], [1, 2, 1])
        asking = sessions[0].request("pass")
        clock.pump([0] * 30)
        self.assertEqual(self.successResultOf(asking), 1)

    def serve(self, app: App, number: int) -> None:
        app.route("who", lambda: number)

        @app.handler("pass")
        async def passes(session: Session) -> Any:
            """On to whoever else is here; the last asks who asked him."""
            others = [one for one in app.sessions.values() if one is not session]
            return await (others[0].request("pass") if others else session.request("who"))

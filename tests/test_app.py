"""Applications, by players: handlers, middleware, hooks, users, groups, strands, timers, life."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import (
    App,
    BadBody,
    BadHandler,
    Component,
    Group,
    Outgoing,
    Refused,
    Request,
    Session,
    SessionEnded,
    State,
    Strand,
    handles,
)
from fastway.app.testing import NotAnswered, Player
from fastway.errors import RequestTimeout
from fastway.formats import Json
from tests.support.logs import LogLines


class Join(Struct):
    name: str


class Joined(Struct):
    members: list[str]


class Line(Struct):
    name: str
    content: str


def chat() -> App:
    """The room of the guide."""
    app = App(clock=Clock())
    room = app.group("lobby")

    @app.handler("room.join")
    async def join(session: Session, message: Join) -> Joined:
        session.state = message.name
        room.send("onNewUser", message)
        room.add(session)
        return Joined([member.state for member in room])

    @app.handler("room.message")
    async def say(session: Session, line: Line) -> None:
        if session not in room:
            raise Refused(403, "join first")
        room.send("onMessage", line)

    return app


class Rooms(SynchronousTestCase):
    """The chat of the guide."""

    def test_chat(self) -> None:
        """Who joins is told who is there; what one says all hear, once."""
        app = chat()
        ann, bob = Player(app), Player(app)
        ann.request("room.join", Join("ann"), into=Joined)
        joined = bob.request("room.join", Join("bob"), into=Joined)
        self.assertEqual(joined.members, ["ann", "bob"])
        bob.send("room.message", Line("bob", "hi"))
        line = ("onMessage", {"name": "bob", "content": "hi"})
        self.assertEqual(ann.heard, [("onNewUser", {"name": "bob"}), line])
        self.assertEqual(bob.heard, [line])

    def test_who_leaves_is_forgotten(self) -> None:
        """A member that ends is in no group any more, before anybody is told."""
        app = chat()
        ann, bob = Player(app), Player(app)
        ann.request("room.join", Join("ann"))
        bob.request("room.join", Join("bob"))
        seen: list[int] = []
        app.closed(lambda session: seen.append(len(app.group("lobby"))))
        ann.leave()
        self.assertEqual(seen, [1])
        bob.send("room.message", Line("bob", "alone"))
        self.assertEqual(len(ann.told("onMessage")), 0)
        with pytest.raises(SessionEnded):
            ann.send("room.message", Line("ann", "hi"))

    def test_refused_and_bad(self) -> None:
        """A Refused is told with its code; a body of another type is a 400 that says no more."""
        app = chat()
        ann = Player(app)
        self.assertEqual(self.code(ann, "room.message", Line("ann", "x")), 403)
        self.assertEqual(self.code(ann, "room.join", {"name": 5}), 400)
        self.assertEqual(self.code(ann, "no.such", 1), 404)
        self.assertEqual((app.counts.bad, app.counts.unknown, app.counts.refused), (1, 1, 3))

    def code(self, player: Player, route: str, message: Any) -> Any:
        return self.failureResultOf(player.ask(route, message), Refused).value.code

    def test_flood_of_bad_messages(self) -> None:
        """The log has the first of an address, and how many followed; peers are told each."""
        clock = Clock()
        app = App(clock=clock)

        @app.handler("sum")
        def sum_of(numbers: list[int]) -> int:
            return sum(numbers)

        ann, bob = Player(app, address="192.0.2.1:5"), Player(app, address="192.0.2.2:5")
        with LogLines() as log:
            for _ in range(100):
                self.assertEqual(self.code(ann, "sum", "x"), 400)
            self.assertEqual(self.code(bob, "sum", [None]), 400)
            self.assertEqual(len(log.lines), 2)
            self.assertIn("'sum' of 192.0.2.1:5 is no such message: ", log.lines[0])
            self.assertIn("at `$[0]`", log.lines[1])
            clock.advance(10)
            self.assertEqual(
                log.lines[2:], ["bad messages to 'sum': 99 more from 192.0.2.1 in 10 s"]
            )
            app.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(app.counts.bad, 101)

    def test_fault(self) -> None:
        """A handler's fault is logged once and told without its text; the session goes on."""
        app = App(clock=Clock())

        @app.handler("bad")
        async def bad() -> None:
            raise ValueError("a secret")

        @app.handler("good")
        def good(text: str) -> str:
            return text.upper()

        ann = Player(app)
        refused = self.failureResultOf(ann.ask("bad"), Refused).value
        self.assertEqual((refused.code, "secret" in str(refused)), (500, False))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(ann.request("good", "hi"), "HI")
        self.assertEqual(app.counts.failed, 1)

    def test_flood_of_faults(self) -> None:
        """The log has the first of each kind whole, whoever caused it, then how many followed."""
        clock = Clock()
        app = App(clock=clock)

        @app.handler("bad")
        def bad(what: str) -> None:
            raise KeyError if what == "key" else ValueError

        @app.handler("slow")
        async def slow() -> None:
            raise ValueError

        @app.unknown
        def others(request: Request) -> None:
            raise ValueError

        @app.opened
        def hook(session: Session) -> None:
            raise ValueError

        players = [Player(app, address=f"192.0.2.{number}:5") for number in range(20)]
        with LogLines() as log:
            for number, player in enumerate(players):
                for route in ("bad", "slow", f"x{number}"):
                    self.assertEqual(self.code(player, route, "x"), 500)
            self.assertEqual(self.code(players[0], "bad", "key"), 500)
            self.assertEqual(len(log.lines), 4)
            self.assertIn("'bad' of <Session ", log.lines[0])
            self.assertEqual(app.counts.failed, 61)
            del log.events[:]
            clock.advance(10)
            where = "test_flood_of_faults.<locals>.hook"
            self.assertEqual(
                sorted(line.replace("Rooms.", "") for line in log.lines),
                [
                    "ValueError of 'bad': 19 more from all addresses in 10 s",
                    "ValueError of 'others': 19 more from all addresses in 10 s",
                    "ValueError of 'slow': 19 more from all addresses in 10 s",
                    f"ValueError of the hook {where}: 19 more from all addresses in 10 s",
                ],
            )
            del log.events[:]
            clock.advance(30)
            self.assertEqual(self.code(players[1], "bad", "x"), 500)
            self.assertEqual(len(log.lines), 1)
        self.assertEqual(len(self.flushLoggedErrors()), 6)
        app.stop()


class Handlers(SynchronousTestCase):
    """How handlers are called, and which cannot be."""

    def test_parameters(self) -> None:
        """Parameters are filled by annotation, in any order; none is needed."""
        app = App(clock=Clock())
        seen: list[Any] = []
        app.route("none", lambda: seen.append("none"))

        @app.handler("all")
        def all_of_them(request: Request, numbers: list[int], session: Session) -> int:
            seen.append((request.route, session.peer))
            return sum(numbers)

        @app.handler("raw")
        def raw(body: bytes) -> int:
            return len(body)

        ann = Player(app, address="192.0.2.1:5")
        ann.send("none", {"a": 1})
        self.assertEqual(ann.request("all", [1, 2]), 3)
        self.assertEqual(ann.request("raw", [1, 2]), 5)
        self.assertEqual(ann.request("all", None), 0)  # Go's empty list
        self.assertEqual(seen[:2], ["none", ("all", "192.0.2.1:5")])

    def test_awaits_that_fail(self) -> None:
        """What a handler awaits may fail, the first and the next: it can mend that, and an answer
        that is late is of its own request."""
        app = App(clock=Clock())
        gates: list[Deferred[Any]] = []

        async def wait() -> Any:
            gates.append(Deferred())
            return await gates[-1]

        @app.handler("mends")
        async def mends(text: str) -> str:
            for _ in range(2):
                try:
                    return str(await wait())
                except ValueError as error:
                    text += f" {error}"
            raise Refused(1, text)

        player = Player(app)
        first, second = player.ask("mends", "a"), player.ask("mends", "b")
        gates[0].errback(ValueError("one"))
        gates[1].errback(ValueError("two"))
        self.assertEqual(self.failureResultOf(first, Refused).value.text, "a one two")
        gates[2].errback(ValueError("three"))
        gates[3].callback("four")
        self.assertEqual((self.successResultOf(second), app.running), ("four", 0))

    def test_format_of_ones_own(self) -> None:
        """A format that is made of another has the last word, of short messages too."""

        class Loud(Json[Any]):
            def decode(self, data: bytes, into: Any = None) -> Any:
                return super().decode(data.lower(), into)

        app = App(clock=Clock())
        seen: list[str] = []

        @app.handler("text")
        def text(message: str) -> None:
            seen.append(message)

        for form in (Loud(Any), Json(Any), Loud(Any)):
            Player(app, format=form).send("text", "ABC")
        self.assertEqual(seen, ["abc", "ABC", "abc"])

    def test_bad_handlers(self) -> None:
        """What cannot be called is refused when it is registered, by its name."""
        app = App()

        def two(first: int, second: int) -> None: ...
        def by_name(*, number: int) -> None: ...
        def many(*numbers: int) -> None: ...
        def once() -> None: ...
        def some() -> Any:
            yield 1

        async def few() -> Any:
            yield 1

        for call, problem in (
            (some, "it does not yield"),
            (few, "it does not yield"),
            (two, "first and second would both be the message; annotate"),
            (by_name, "by name"),
            (many, r"\*numbers"),
        ):
            with self.subTest(problem), pytest.raises(BadHandler, match=problem):
                app.route("a", call)
        app.route("a", once)
        with pytest.raises(BadHandler, match="a has a handler already"):
            app.route("a", once)
        with pytest.raises(BadHandler, match="no route"):
            app.route("", once)
        decorators: tuple[Any, ...] = (app.handler, handles)
        for decorator in decorators:  # without its parentheses
            with pytest.raises(BadHandler, match="once is no route: give a name"):
                decorator(once)
        part: Any = Component  # not made
        with pytest.raises(BadHandler, match="is neither a Component nor an App"):
            app.include(part)

    def test_bad_hooks(self) -> None:
        """So are hooks, middleware and timers, which would fail for everybody."""
        app = App()

        def nothing() -> None: ...
        def one(session: Any) -> None: ...
        def two(session: Any, user: Any) -> None: ...

        for register, call, given in (
            (app.handshake, one, "the session and the user"),
            (app.middleware, one, "the request and call_next"),
            (app.opened, nothing, "the session"),
            (app.closed, two, "the session"),
            (app.outgoing, two, "the message"),
            (app.every(1.0), one, "nothing"),
            (app.after(1.0), one, "nothing"),
        ):
            problem = f"{call.__name__} is called with {given}: "
            with self.subTest(given), pytest.raises(BadHandler, match=problem):
                register(call)
        self.assertEqual((app._timers, app.greets, app._opened), ([], None, []))
        app.closed(print)  # and whoever takes anything

    def test_two_apps(self) -> None:
        """Two Apps share nothing."""
        one, other = chat(), chat()
        ann, bob = Player(one), Player(other)
        ann.request("room.join", Join("ann"))
        self.assertEqual(bob.request("room.join", Join("bob"))["members"], ["bob"])

    def test_components(self) -> None:
        """A component's handlers stand behind its name; its life goes with the App's, in order."""
        life: list[str] = []

        class Part(Component):
            def __init__(self, name: str) -> None:
                self.name = name

            def start(self) -> None:
                life.append(f"start {self.name}")

            def ready(self) -> None:
                life.append(f"ready {self.name}")

            def drain(self) -> None:
                life.append(f"drain {self.name}")

            def stop(self) -> None:
                life.append(f"stop {self.name}")

            @handles("add")
            async def add(self, numbers: list[int]) -> int:
                return sum(numbers)

        app = App(clock=Clock())
        app.include(Part("a"))
        app.include(Part("b"))
        self.assertEqual(Player(app).request("b.add", [1, 2]), 3)
        self.successResultOf(app.drain())
        begun = ["start a", "start b", "ready a", "ready b"]
        self.assertEqual(life, [*begun, "drain b", "drain a", "stop b", "stop a"])
        self.assertEqual(app.state, State.STOPPED)

    def test_include_app(self) -> None:
        """Another App's routes and hooks are taken in; a route twice is refused."""
        inner, outer = chat(), App(clock=Clock())
        outer.include(inner, "deep")
        ann = Player(outer)
        self.assertEqual(ann.request("deep.room.join", Join("ann"))["members"], ["ann"])
        with pytest.raises(BadHandler):
            outer.include(inner, "deep")

    def test_include_middleware(self) -> None:
        """That of a part stands around its own handlers alone, within that of who has it."""
        seen: list[str] = []

        def noting(name: str) -> App:
            app = App(clock=Clock())

            @app.middleware
            async def around(request: Request, call_next: Any) -> Any:
                seen.append(f"{name} {request.route}")
                return await call_next(request)

            app.route("do", lambda: name)
            return app

        inmost, inner, outer = noting("inmost"), noting("inner"), App(clock=Clock())
        inner.include(inmost, "b")
        outer.include(inner, "a")
        outer.route("plain", lambda: "plain")
        ann = Player(outer)
        self.assertEqual([ann.request(one) for one in ("plain", "a.do")], ["plain", "inner"])
        self.assertEqual(seen, ["inner a.do"])
        seen.clear()

        @outer.middleware
        async def around(request: Request, call_next: Any) -> Any:
            seen.append("outer")
            return await call_next(request)

        self.assertEqual(ann.request("a.b.do"), "inmost")
        self.assertEqual(seen, ["outer", "inner a.b.do", "inmost a.b.do"])

    def test_include_hooks(self) -> None:
        """A part's handshake lets in, its handler of other routes is that of all; where there are
        two of them it is said, as it is when a part is given more than was taken."""
        part, app = App(clock=Clock()), App(clock=Clock())

        @part.handshake
        def login(session: Session, user: str) -> str:
            if user != "ann":
                raise Refused(401, "who are you?")
            return f"hello, {user}"

        @part.middleware
        async def around(request: Request, call_next: Any) -> Any:
            return ["within", await call_next(request)]

        @part.unknown
        def others(request: Request) -> str:
            return request.route

        app.include(part)
        ann = Player(app, "ann")
        self.assertEqual((ann.welcome, ann.request("what")), ("hello, ann", ["within", "what"]))
        with pytest.raises(Refused):
            Player(app, "eve")

        def handshake(other: App) -> None:
            other.handshake(login)

        def unknown(other: App) -> None:
            other.unknown(lambda: None)

        for give, prefix, problem in (
            (handshake, "", "both Apps have a handshake"),
            (unknown, "", "handles all other routes"),
        ):
            other = App()
            give(other)
            with pytest.raises(BadHandler, match=problem):
                app.include(other, prefix)
        fresh, other = App(), App()
        unknown(other)
        with pytest.raises(BadHandler, match="handles all other routes"):
            fresh.include(other, "deep")
        with pytest.raises(BadHandler, match="itself"):
            app.include(app)
        for register in (
            lambda: part.route("late", lambda: None),
            lambda: part.unknown(lambda: None),
            lambda: part.middleware(around),
            lambda: part.handshake(login),
            lambda: part.opened(lambda session: None),
            lambda: part.closed(lambda session: None),
            lambda: part.outgoing(lambda out: None),
            lambda: part.every(1.0),
            lambda: part.sends("late", str),
            lambda: part.refusal(1, "late"),
            lambda: part.include(App()),
            lambda: App().include(part),
        ):
            with pytest.raises(BadHandler, match="included in another"):
                register()
        self.assertEqual(list(app.routes), [])


class Middleware(SynchronousTestCase):
    """What stands around handlers, at the handshake, and before what is sent."""

    def test_onion(self) -> None:
        """The first is outermost; it sees the answer, may refuse, and may change the body."""
        app = App(clock=Clock())
        seen: list[str] = []

        @app.middleware
        async def outer(request: Request, call_next: Any) -> Any:
            seen.append(f"in {request.route}")
            result = await call_next(request)
            seen.append(f"out {result}")
            return result

        @app.middleware
        async def inner(request: Request, call_next: Any) -> Any:
            if request.route == "admin":
                raise Refused(401, "log in first")
            request.body = request.body.replace(b"1", b"2")
            return await call_next(request)

        @app.handler("add")
        async def add(numbers: list[int]) -> int:
            return sum(numbers)

        app.route("admin", lambda: seen.append("never"))
        ann = Player(app)
        self.assertEqual(ann.request("add", [1, 1]), 4)
        self.failureResultOf(ann.ask("admin"), Refused)
        self.assertEqual(seen, ["in add", "out 4", "in admin"])

    def test_handshake(self) -> None:
        """Who is refused has no session; who is let in is bound, and told what it returns."""
        app = App(clock=Clock())

        @app.handshake
        async def login(session: Session, user: Any) -> dict[str, int]:
            if user != "ann":
                raise Refused(401, "who?")
            session.bind(user)
            return {"level": 3}

        opened: list[Any] = []
        app.opened(lambda session: opened.append(session.user))
        with pytest.raises(Refused):
            Player(app, "eve")
        ann = Player(app, "ann")
        self.assertEqual((ann.welcome, opened, len(app.sessions)), ({"level": 3}, ["ann"], 1))
        self.assertEqual(list(app.user("ann")), [ann.session])

    def test_outgoing(self) -> None:
        """A hook changes what is sent to one, or keeps it; groups ask for each member."""
        app = App(clock=Clock())

        @app.outgoing
        def look(out: Outgoing) -> None:
            if out.session.state == "deaf":
                raise Refused(0)
            out.message = f"{out.message} for {out.session.state}"

        ann, bob, eve = Player(app), Player(app), Player(app)
        ann.session.state, bob.session.state, eve.session.state = "ann", "deaf", "eve"
        group = Group(app)
        for player in (ann, bob, eve):
            group.add(player.session)
        self.assertEqual(group.send("on", "hi"), 2)
        bob.session.send("on", "you")
        self.assertEqual([ann.heard, bob.heard], [[("on", "hi for ann")], []])


class Users(SynchronousTestCase):
    """One user, several sessions."""

    def bound(self, users: str) -> tuple[App, Player, Player]:
        app = App(users=users, clock=Clock())
        first, second = Player(app), Player(app)
        first.session.bind(7)
        return app, first, second

    def test_kick(self) -> None:
        """The earlier session is told and ended; the user is the later one from then on."""
        app, first, second = self.bound("kick")
        second.session.bind(7)
        self.assertIn("newer", str(first.kicked))
        self.assertEqual(list(app.user(7)), [second.session])
        second.leave()
        self.assertEqual(len(app.user(7)), 0)

    def test_refuse(self) -> None:
        """The later session is refused, and is nobody."""
        app, first, second = self.bound("refuse")
        with pytest.raises(Refused):
            second.session.bind(7)
        self.assertEqual((list(app.user(7)), second.session.user), ([first.session], None))

    def test_allow(self) -> None:
        """Both are he; a push reaches both."""
        app, first, second = self.bound("allow")
        second.session.bind(7)
        app.user(7).send("on", 1)
        self.assertEqual([first.heard, second.heard], [[("on", 1)]] * 2)
        first.session.bind(None)
        self.assertEqual(list(app.user(7)), [second.session])


class Strands(SynchronousTestCase):
    """What runs at the same time."""

    def waiting_app(self, **settings: Any) -> tuple[App, list[Deferred[Any]]]:
        app = App(clock=Clock(), **settings)
        waits: list[Deferred[Any]] = []

        @app.handler("wait")
        async def wait(name: str) -> str:
            waits.append(Deferred())
            await waits[-1]
            return name

        app.route("quick", lambda: "quick")
        return app, waits

    def test_own_strand(self) -> None:
        """A session's messages wait for its earlier ones; another's do not."""
        app, waits = self.waiting_app()
        ann, bob = Player(app), Player(app)
        slow, next_one = ann.ask("wait", "a"), ann.ask("quick")
        self.assertEqual(bob.request("quick"), "quick")
        self.assertNoResult(next_one)
        with pytest.raises(NotAnswered):
            ann.request("quick")
        waits[0].callback(None)
        self.assertEqual(self.successResultOf(slow), "a")
        self.assertEqual(self.successResultOf(next_one), "quick")

    def test_shared_strand(self) -> None:
        """Sessions of one strand wait for each other."""
        app, waits = self.waiting_app()
        ann, bob = Player(app), Player(app)
        ann.session.strand = bob.session.strand = Strand()
        ann.ask("wait", "a")
        other = bob.ask("quick")
        self.assertNoResult(other)
        waits[0].callback(None)
        self.assertEqual(self.successResultOf(other), "quick")

    def test_asking_back_cannot_lock(self) -> None:
        """A handler that asks its own peer gets the answer while its strand waits."""
        app = App(clock=Clock())

        @app.handler("ask")
        async def ask(session: Session, text: str) -> str:
            answer: str = await session.request("cli.hello", text, into=str)
            return answer

        ann = Player(app)
        ann.answers["cli.hello"] = lambda text: f"hello, {text}"
        self.assertEqual(ann.request("ask", "bob"), "hello, bob")
        bob = Player(app)
        asked = bob.ask("ask", "nobody")
        app.clock.advance(31)
        self.assertEqual(self.failureResultOf(asked, Refused).value.code, 500)
        self.assertEqual(len(self.flushLoggedErrors(RequestTimeout)), 1)

    def test_bad_answer(self) -> None:
        """An answer of another type is a BadBody."""
        app = App(clock=Clock())
        ann = Player(app)
        ann.answers["number"] = lambda _: "none"
        self.failureResultOf(ann.session.request("number", into=int), BadBody)

    def test_order_and_depth(self) -> None:
        """Ten thousand jobs that wait run in order, and deep on no stack."""
        strand, order = Strand(limit=20_000), []
        gate: Deferred[None] = Deferred()

        async def first() -> None:
            await gate

        strand.run(first)
        for number in range(10_000):
            strand.run(lambda number=number: order.append(number))  # type: ignore[misc]
        self.assertEqual(strand.waiting, 10_000)
        gate.callback(None)
        self.assertEqual((order, strand.idle), (list(range(10_000)), True))

    def test_width(self) -> None:
        """A wide strand runs so many at the same time."""
        strand, begun = Strand(width=2), []
        gates: list[Deferred[None]] = [Deferred() for _ in range(3)]

        def job(number: int) -> Any:
            async def run() -> None:
                begun.append(number)
                await gates[number]

            return run

        for number in range(3):
            strand.run(job(number))
        self.assertEqual(begun, [0, 1])
        gates[1].callback(None)
        self.assertEqual(begun, [0, 1, 2])

    def test_awaiting_what_is_no_deferred(self) -> None:
        """A handler that awaits something else fails with what is wrong, and nothing hangs."""
        app = App(clock=Clock())

        class Odd:
            def __await__(self) -> Any:
                yield 5

        @app.handler("odd")
        async def odd() -> None:
            await Odd()

        ann = Player(app)
        self.failureResultOf(ann.ask("odd"), Refused)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class Time(SynchronousTestCase):
    """Timers, and the end."""

    def test_timers(self) -> None:
        """`every` runs again and again, never twice at a time; `after` once; a fault ends none."""
        app = App(clock=Clock())
        ticks: list[str] = []
        waits: list[Deferred[None]] = []

        @app.every(1.0)
        def tick() -> None:
            ticks.append("tick")
            raise ValueError

        @app.every(1.0)
        async def slow() -> None:
            ticks.append("slow")
            waits.append(Deferred())
            await waits[-1]

        app.after(2.5)(lambda: ticks.append("once"))
        app.start()
        app.clock.pump([0.5] * 8)
        self.assertEqual((ticks.count("tick"), ticks.count("slow")), (4, 1))
        self.assertEqual(ticks.count("once"), 1)
        waits[0].callback(None)
        app.clock.pump([0.5] * 2)
        self.assertEqual(ticks.count("slow"), 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)  # of one kind the first
        app.stop()
        self.assertEqual(app.clock.getDelayedCalls(), [])

    def draining(self) -> tuple[App, Deferred[None], Deferred[Any], Player]:
        app = App(clock=Clock())
        gate: Deferred[None] = Deferred()

        @app.handler("wait")
        async def wait() -> str:
            await gate
            return "done"

        ann = Player(app)
        return app, gate, ann.ask("wait"), ann

    def test_drain(self) -> None:
        """What runs may end; then sessions are closed."""
        app, gate, asked, ann = self.draining()
        drained = app.drain(10.0)
        self.assertNoResult(drained)
        gate.callback(None)
        app.clock.advance(0)
        self.successResultOf(drained)
        self.assertEqual(self.successResultOf(asked), "done")
        self.assertIsNotNone(ann.session.ended)

    def test_drain_does_not_wait_for_ever(self) -> None:
        """Who takes too long is closed; his answer goes nowhere."""
        app, gate, asked, _ = self.draining()
        drained = app.drain(10.0)
        app.clock.advance(11.0)
        self.successResultOf(drained)
        self.failureResultOf(asked, SessionEnded)
        gate.callback(None)
        self.assertEqual((app.running, app.state), (0, State.STOPPED))

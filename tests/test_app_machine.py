"""A whole App for days of fake time: peers of several dialects that do what they like, handlers
that wait, fail, ask back and close; and in the evening all is given back, and all counts add up.

By hand: FASTWAY_DAYS=2000 pytest tests/test_app_machine.py
"""

from __future__ import annotations

import os
import random
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Bounds, FrameRefused, NotInDialect, Refused, Session, Strand
from fastway.app.ports import LinkFactory
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.pomelo_packets import ACK, DATA, HANDSHAKE, HEARTBEAT, NOTIFY, packet, varint
from fastway.errors import RequestsFull, RequestTimeout
from fastway.websocket.request import Policy
from tests.support.words import Words

DAYS = int(os.environ.get("FASTWAY_DAYS", "14"))
STEPS = 600
HIGH = 4096
"""Bytes in a transport from which on it asks its producer to stop."""
UPGRADE = (
    b"GET /game HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Fault(Exception):
    """A handler's own."""


class Odd(BaseException):
    """And one that is no Exception."""


class Soon:
    """Calls what it is given in the next turn of a clock, all by one timer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: list[Callable[[], object]] = []

    def __call__(self, call: Callable[[], object]) -> None:
        if not self._calls:
            self._clock.callLater(0, self._turn)
        self._calls.append(call)

    def _turn(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            call()


class Line:
    """A transport in memory that does as TCP does: what is not read waits, ends come later.

    Attributes:
        out: What the peer has not taken.
        reads: The peer takes what comes.
        leaky: Like TLS: what has come is told though it is paused.
    """

    disconnecting = False

    def __init__(self, soon: Soon, link: Any, leaky: bool) -> None:
        self.soon, self.link, self.leaky = soon, link, leaky
        self.out = b""
        self.taken = b""
        self.coming: list[bytes] = []
        self.reads = True
        self.paused = False
        self.gone = False
        self.most = 0
        self._producer: Any = None
        self._full = False
        link.makeConnection(self)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 1)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self.soon(self.deliver)

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        if self.gone:
            return
        self.out += data
        self.most = max(self.most, len(self.out))
        if len(self.out) > HIGH and not self._full and self._producer is not None:
            self._full = True
            self._producer.pauseProducing()
        if self.reads:
            self.soon(self.take)

    def take(self) -> None:
        if not self.reads or self.gone:
            return
        self.taken += self.out
        self.out = b""
        if self._full and self._producer is not None:
            self._full = False
            self._producer.resumeProducing()
        if self.disconnecting:
            self.end(ConnectionDone())

    def loseConnection(self) -> None:
        self.disconnecting = True
        self.soon(self.take)

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.soon(lambda: self.end(ConnectionLost()))

    def end(self, why: Exception) -> None:
        if not self.gone:
            self.gone = True
            self._producer = None
            link, self.link = self.link, None
            link.connectionLost(Failure(why))

    def say(self, data: bytes) -> None:
        """The peer says something."""
        if not self.disconnecting:
            self.coming.append(data)
            self.deliver()

    def deliver(self) -> None:
        while self.coming and not self.gone and (self.leaky or not self.paused):
            self.link.dataReceived(self.coming.pop(0))


class Peer:
    """One that speaks a dialect, mostly.

    Args:
        frames: It speaks in a WebSocket's frames.
    """

    def __init__(self, day: Day, line: Line, frames: bool) -> None:
        self.day, self.line, self.frames = day, line, frames
        self.number = 0
        self.key = 0
        if frames:
            self.cut(UPGRADE)
            day.clock.advance(0)

    def cut(self, data: bytes) -> None:
        """Say it in pieces."""
        dice = self.day.dice
        while data:
            size = dice.choice((1, 3, 20, 1000, len(data)))
            self.line.say(data[:size])
            data = data[size:]

    def say(self, data: bytes) -> None:
        if self.frames:
            size = len(data)
            head = bytes((0x82, 0x80 | min(size, 126)))
            head += size.to_bytes(2, "big") if size > 125 else b""
            data = head + b"\0\0\0\0" + data
        self.cut(data)

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def hello(self) -> None:
        raise NotImplementedError

    def message(self, route: str, body: str, asks: bool) -> bytes:
        raise NotImplementedError

    def alive(self) -> bytes:
        raise NotImplementedError

    def answers(self) -> None:
        """What it was asked."""


class WordsPeer(Peer):
    dialect = Words(beats=2.0, max_frame=3000)

    def hello(self) -> None:
        self.say(b'hi "ann"\n')

    def message(self, route: str, body: str, asks: bool) -> bytes:
        if not asks:
            return f"say {route} {body}\n".encode()
        self.key += 1
        return f"ask {self.key} {route} {body}\n".encode()

    def alive(self) -> bytes:
        return b"beat\n"

    def answers(self) -> None:
        taken, self.line.taken = self.line.taken, b""
        for line in taken.decode("latin-1").split("\n"):
            if " name " in line and "ask " in line:
                key = line.partition("ask ")[2].split(" ")[0]
                said = self.day.dice.choice(("ok {} 5", "no {} 403 not you", "", "ok {} nonsense"))
                if said:
                    self.say(said.format(key).encode() + b"\n")


class PomeloPeer(Peer):
    dialect = Pomelo(heartbeat=2.0, dictionary={"note": 1}, max_packet=3000, refusals="reply")

    def hello(self) -> None:
        self.say(packet(HANDSHAKE, b'{"sys":{},"user":"ann"}'))
        self.say(packet(ACK))

    def message(self, route: str, body: str, asks: bool) -> bytes:
        name = b"\0\1" if route == "note" else bytes((len(route),)) + route.encode()
        bit = 1 if route == "note" else 0
        if not asks:
            return packet(DATA, bytes((NOTIFY | bit,)) + name + body.encode())
        self.key += 1
        return packet(DATA, bytes((bit,)) + varint(self.key) + name + body.encode())

    def alive(self) -> bytes:
        return packet(HEARTBEAT)


class Day:
    """One of them."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        self.clock = Clock()
        self.soon = Soon(self.clock)
        self.app = App(
            clock=self.clock,
            users=dice.choice(("kick", "refuse", "allow")),
            strand=Strand(8, dice.choice((1, 3))) if dice.random() < 0.15 else None,
            bounds=Bounds(
                requests=8,
                asked=4,
                waiting=20_000,
                enough=2000,
                messages=dice.choice((0.0, 40.0)),
                bytes=dice.choice((0.0, 20_000.0)),
                sessions=dice.choice((0, 6)),
                strand=8,
                queued=4000,
                handshake_timeout=3.0,
            ),
        )
        self.gates: list[Deferred[Any]] = []
        self.peers: list[Peer] = []
        self.lines: list[Line] = []
        self.shared = [Strand(8) for _ in range(2)]
        self.moved: set[int] = set()
        self.wide: set[int] = set()
        self.notes: dict[int, list[Any]] = defaultdict(list)
        self.left: Counter[int] = Counter()
        self.build(self.app)
        words, pomelo = WordsPeer.dialect, PomeloPeer.dialect
        wide = Words(beats=2.0, max_frame=3000, concurrent=4)
        self.ports: list[tuple[type[Peer], Any, bool]] = []
        for kind, dialect in ((WordsPeer, words), (PomeloPeer, pomelo), (WordsPeer, wide)):
            factory: Any = LinkFactory(self.app, dialect)
            self.ports.append((kind, factory, False))
            self.ports.append((kind, factory.over_websocket(Policy("/game", (), "")), True))

    def build(self, app: App) -> None:
        dice, notes = self.dice, self.notes
        rooms = [app.group("hall"), app.group("den")]

        def gate() -> Deferred[Any]:
            made: Deferred[Any] = Deferred()
            if dice.random() < 0.5:
                self.clock.callLater(dice.random() * 8, open_gate, made)
            else:
                self.gates.append(made)
            return made

        def open_gate(made: Deferred[Any]) -> None:
            if not made.called:
                made.callback(None)

        async def perhaps() -> None:
            if dice.random() < 0.3:
                await gate()

        @app.handshake
        async def login(session: Session, user: Any) -> Any:
            await perhaps()
            if dice.random() < 0.1:
                raise Refused(401, "no" * dice.choice((1, 5000)))
            if dice.random() < 0.3:
                session.bind(dice.randrange(4))
            if dice.random() < 0.05:
                raise Fault
            if dice.random() < 0.05:
                session.close()

        @app.opened
        async def opened(session: Session) -> None:
            if session.strand.width > 1:
                self.wide.add(session.session_id)
            await perhaps()
            notes[session.session_id].append("opened")
            if dice.random() < 0.05:
                raise Odd

        @app.closed
        async def closed(session: Session) -> None:
            assert session.ended is not None
            assert not any(session in room for room in rooms)
            assert session not in app.user(session.user)
            await perhaps()
            self.left[session.session_id] += 1
            notes[session.session_id].append("closed")

        @app.handler("note")
        async def note(session: Session, number: int) -> None:
            notes[session.session_id].append(number)
            await perhaps()

        @app.handler("wait")
        async def wait(session: Session, number: int) -> int:
            notes[session.session_id].append(number)
            await gate()
            return number

        app.route("echo", lambda message=None: message)

        @app.handler("fault")
        async def fault() -> None:
            await perhaps()
            raise dice.choice((Fault, Odd, Refused(403, "no" * dice.choice((1, 5000)))))

        @app.handler("ask")
        async def ask(session: Session) -> Any:
            await perhaps()
            try:
                wants = dice.choice(("request", "request", "next"))
                if wants == "next":
                    return await session.next("echo", timeout=dice.choice((1.0, 5.0)))
                return await session.request("name", into=int, timeout=dice.choice((1.0, 20.0)))
            except (RequestsFull, RequestTimeout, NotInDialect):
                raise Refused(504) from None

        @app.handler("end")
        async def end(session: Session) -> str:
            await perhaps()
            victim = dice.choice((session, *app.sessions.values()))
            dice.choice((victim.close, victim.kick))()
            return "done"

        @app.handler("room")
        def room(session: Session) -> int:
            chosen = dice.choice(rooms)
            dice.choice((chosen.add, chosen.add, chosen.discard))(session)
            return len(chosen)

        @app.handler("tell")
        async def tell(session: Session) -> None:
            dice.choice(rooms).send("on", "x" * dice.choice((1, 500)), but=session)
            app.user(dice.randrange(4)).send("on", 1)

        @app.handler("many")
        async def many(session: Session) -> None:
            patient = dice.random() < 0.5
            for _ in range(30):
                room = session.send("on", "x" * 900)
                if patient:
                    await room

        @app.handler("who")
        def who(session: Session) -> None:
            session.bind(dice.choice((None, 0, 1, 2, 3)))

        @app.handler("strand")
        def strand(session: Session) -> None:
            self.moved.add(session.session_id)
            session.strand = dice.choice(self.shared)

        @app.handler("later")
        def later() -> None:
            app.after(dice.random() * 3)(lambda: dice.choice(rooms).send("on", 2))

        @app.every(0.7)
        async def tick() -> None:
            await perhaps()
            dice.choice(rooms).send("on", 3)

        @app.middleware
        async def around(request: Any, call_next: Any) -> Any:
            if dice.random() < 0.05:
                await gate()
            return await call_next(request)

    def step(self) -> None:
        dice = self.dice
        act = dice.random()
        if act < 0.08 and len(self.peers) < 8:
            kind, factory, frames = dice.choice(self.ports)
            line = Line(self.soon, factory.buildProtocol(None), dice.random() < 0.3)
            self.lines.append(line)
            peer = kind(self, line, frames)
            if dice.random() < 0.95:
                peer.hello()
            self.peers.append(peer)
        elif act < 0.14:
            self.clock.advance(dice.choice((0, 0.01, 0.3, 1.0)))
        elif act < 0.2 and self.gates:
            made = self.gates.pop(dice.randrange(len(self.gates)))
            if not made.called:
                made.callback(None)
        elif self.peers:
            self.act(dice.choice(self.peers))
        for peer in self.peers:
            peer.answers()
            if dice.random() < 0.3:
                peer.say(peer.alive())
        self.clock.advance(0.01)
        self.peers = [peer for peer in self.peers if not peer.line.gone]

    def act(self, peer: Peer) -> None:
        dice, line = self.dice, peer.line
        act = dice.random()
        if act < 0.015:
            line.end(dice.choice((ConnectionDone, ConnectionLost))())
        elif act < 0.06:
            line.reads = not line.reads
            line.take()
        elif act < 0.063:
            peer.say(bytes(dice.randrange(256) for _ in range(dice.choice((1, 5, 300)))))
        elif act < 0.067 and peer.frames:
            line.say(bytes(dice.randrange(256) for _ in range(30)))
        elif act < 0.085:
            for _ in range(60):  # a flood
                peer.say(peer.message("note", str(peer.next_number()), False))
        elif act < 0.1:
            for _ in range(6):
                peer.say(peer.message("echo", f'"{"x" * 2000}"', False))
        elif act < 0.5:
            route = dice.choice(("note", "wait"))
            peer.say(peer.message(route, str(peer.next_number()), dice.random() < 0.6))
        else:
            routes = "echo fault ask end room room tell tell many who strand later nobody"
            route = dice.choice(routes.split())
            body = dice.choice(("null", "1", '"a"', "nonsense"))
            peer.say(peer.message(route, body, dice.random() < 0.6))

    def evening(self) -> None:
        """All go home."""
        dice, clock = self.dice, self.clock
        how = dice.choice(("leave", "stop", "drain"))
        if how == "leave":
            for line in self.lines:
                line.end(ConnectionLost())
        elif how == "stop":
            self.app.stop()
        else:
            self.app.drain(5.0)
        for turn in range(300):
            clock.advance(0.5)
            gates, self.gates = self.gates, []
            for made in gates:
                if not made.called:
                    made.callback(None)
            if turn == 60:
                self.app.stop()


class DaysTests(SynchronousTestCase):
    """Many days, each of its own chance."""

    def test_days(self) -> None:
        totals: Counter[str] = Counter()
        for seed in range(DAYS):
            with self.subTest(seed=seed):
                totals.update(self.one(seed))
        # Days that say something: all of these happen.
        for what in ("opened", "requests", "refused", "failed", "unknown", "bad", "bad_frame"):
            self.assertGreater(totals[what], 0, what)

    def one(self, seed: int) -> dict[str, int]:
        day = Day(seed)
        day.app.start()
        for _ in range(STEPS):
            day.step()
        day.evening()
        app, counts = day.app, day.app.counts
        self.assertEqual((app.sessions, app._users, app.running), ({}, {}, 0))
        self.assertEqual([len(group) for group in app.groups.values()], [0, 0])
        self.assertEqual((counts.pending, counts.opened), (0, counts.closed))
        self.assertEqual(set(counts.here.values()) | {0}, {0})
        self.assertEqual(sum(counts.came.values()), counts.opened)
        self.assertEqual((app.links.links, len(app.links.wheel)), (set(), 0))
        self.assertEqual(day.clock.getDelayedCalls(), [])
        for strand in (*day.shared, *((app.strand,) if app.strand else ())):
            self.assertTrue(strand.idle)
            self.assertFalse(strand._feeders)
        for line in day.lines:
            self.assertTrue(line.gone)
            self.assertLess(line.most, 100_000)
        for session_id, notes in day.notes.items():
            self.assertEqual((notes.count("opened"), day.left[session_id]), (1, 1), session_id)
            if app.strand is None or app.strand.width == 1:
                self.assertEqual(notes[0], "opened")
            if session_id not in day.moved and app.strand is None:
                self.assertEqual(notes[-1], "closed")
                if session_id not in day.wide:
                    self.assertEqual(notes[1:-1], sorted(notes[1:-1]))
        self.flushLoggedErrors(Fault, Odd, FrameRefused)
        self.assertEqual(self.flushLoggedErrors(), [])
        figures = {name: getattr(counts, name) for name in counts.__slots__}
        totals = {name: value for name, value in figures.items() if type(value) is int}
        return {**totals, **counts.lost}


class CrowdTests(SynchronousTestCase):
    """One group of very many: one of them floods, one does not read, one lies."""

    def test_nobody_notices(self) -> None:
        """All others hear all, in order and in the turn in which it is told; what the three cost
        is bounded, and each of them ends by its own rule."""
        members = int(os.environ.get("FASTWAY_MEMBERS", "1000"))
        clock = Clock()
        soon = Soon(clock)
        bounds = Bounds(waiting=20_000, messages=100.0, bytes=50_000.0, queued=4000, strand=50)
        app = App(clock=clock, bounds=bounds)
        room = app.group("room")
        app.opened(room.add)
        app.route("echo", lambda message: message)
        app.route("tell", lambda number: room.send("on", number))
        waits: list[Deferred[None]] = []

        @app.handler("wait")
        async def wait() -> None:
            waits.append(Deferred())
            await waits[-1]

        factory = LinkFactory(app, Words(max_frame=3000))
        lines = [Line(soon, factory.buildProtocol(None), False) for _ in range(members)]
        for line in lines:
            line.say(b"hi 1\n")
        clock.advance(0)
        flooding, frozen, lying, *others = lines
        links = [line.link for line in lines[:3]]
        frozen.reads = False
        flooding.say(b"say wait 0\n")
        offered = 0
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(25):
                for _ in range(20):  # as much as it is read from
                    if not flooding.coming:
                        flooding.say(b'say echo "%s"\n' % (b"x" * 1000))
                        offered += 1
                lying.say(b"ok %d 1\nno 7 1 x\nask -1 echo 1\n" % number)
                if number == 12:
                    lying.say(b"\xff\xfe\0 nonsense\n")
                others[0].say(b"say tell %d\n" % number)
                clock.advance(0.1)
                for line in others:
                    assert line.taken.endswith(b"say on %d\n" % number)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        said = b"".join(b"say on %d\n" % number for number in range(25))
        told = {line.taken.removeprefix(b"welcome null\n") for line in others}
        self.assertEqual(told, {said})
        self.assertTrue(lying.gone)
        self.assertEqual(app.counts.lost, {"bad_frame": 1})
        # The flooding one is not read from; what waits of it is bounded, as is what the frozen
        # one does not take.
        self.assertLess(offered, 40)
        self.assertLess(links[0]._queued + links[0]._kept, 20_000)
        self.assertLess(grown, 400 * members + 300_000)
        for _ in range(200):
            room.send("on", "x" * 500)
            clock.advance(0.01)
        self.assertEqual(app.counts.lost, {"bad_frame": 1, "slow_reader": 1})
        self.assertLess(frozen.most + links[1]._waiting, 20_000 + 2 * HIGH)
        self.assertEqual(len(room), members - 2)

"""Applications that speak hotpot, and their clients: in memory with a clock, and over sockets."""

from __future__ import annotations

import importlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.test import iosim
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway.app import (
    App,
    BadHandler,
    Bounds,
    NotInDialect,
    Refused,
    Request,
    Session,
    SessionEnded,
    Strand,
)
from fastway.app.messages import BadBody
from fastway.app.ports import ConnectFactory, LinkFactory
from fastway.dialect.hotpot import Hotpot
from fastway.websocket.client import WebSocket
from fastway.websocket.request import Policy
from tests.support.core import DETERMINISTIC
from tests.support.errors import failure_of, raised
from tests.support.hotpot import FORMATS, ROWS, framed
from tests.support.waits import reactor, until
from tests.support.words import Words

StringValue: Any = importlib.import_module("google.protobuf.wrappers_pb2").StringValue


class Join(Struct):
    Message: str


class Joined(Struct):
    Message: str
    N: int


class Said(Struct):
    Message: str


def chat(app: App) -> App:
    """The chat of the vectors."""
    room = app.group("room")

    @app.handler("room.join")
    def join(session: Session, message: Join) -> Joined:
        session.state = message.Message
        room.send("Said", Said(f"{message.Message} joined"))
        room.add(session)
        return Joined(message.Message, len(room))

    @app.handler("room.say")
    def say(session: Session, message: Join) -> None:
        if session not in room:
            raise Refused(403, "join first")
        room.send("room.said", Said(f"{session.state}: {message.Message}"))

    @app.handler("echo")
    def echo(message: Any) -> Any:
        return message

    @app.handler("fail")
    def fail() -> None:
        raise Refused(7, "bad")

    @app.handler("broken")
    def broken() -> None:
        raise ZeroDivisionError

    @app.handler("bye")
    def bye(session: Session) -> None:
        session.send("Said", Said("bye"))
        session.close()

    return app


class Connections(SynchronousTestCase):
    """Two Apps and what is between them, in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = App(clock=self.clock)
        self.app = App(clock=self.clock)
        self.pumps: list[Any] = []

    def connect(self, dialect: Hotpot, *, websocket: bool = False, app: Any = None) -> Session:
        port: Any = LinkFactory(self.server, dialect)
        asking = ConnectFactory(app or self.app, dialect, None)
        if websocket:
            port = port.over_websocket(Policy("", (), ""))
            asking.by_websocket(WebSocket(subprotocol=""), "game.example")
        waiting = asking._done
        near, far = port.buildProtocol(None), asking.buildProtocol(None)
        address = IPv4Address("TCP", "192.0.2.1", 1)
        near_end = iosim.FakeTransport(near, True, address, address)
        far_end = iosim.FakeTransport(far, False, address, address)
        self.pumps.append(iosim.connect(near, near_end, far, far_end))
        self.turn()
        session: Session = self.successResultOf(waiting)
        return session

    def turn(self, seconds: float = 0.0) -> None:
        """What waits is told and heard."""
        self.clock.advance(seconds)
        for _ in range(3):
            for pump in self.pumps:
                pump.flush(advanceClock=False)
            self.clock.advance(0)


class ChatTests(Connections):
    def test_a_room(self) -> None:
        """The dialogue of the vectors, in all envelopes that structs go into."""
        chat(self.server)
        heard: list[Any] = []
        self.app.route("Said", lambda message: heard.append(message["Message"]))
        for format, websocket in (("json", False), ("json", True), ("msgpack", False)):
            dialect = Hotpot(format=format, text=websocket)
            ann = self.connect(dialect, websocket=websocket)
            ann.send("room.join", Join("ann"))
            joined = ann.next("Joined", into=Joined)
            self.turn()
            self.assertEqual(self.successResultOf(joined), Joined("ann", 1))
            bob = self.connect(dialect, websocket=websocket)
            bob.send("Join", Join("bob"))
            joined = bob.next("Joined", into=Joined)
            bob.send("Say", Join("hello"))
            self.turn()
            self.assertEqual(self.successResultOf(joined), Joined("bob", 2))
            self.assertEqual(sorted(heard), ["bob joined", "bob: hello", "bob: hello"])
            bob.send("bye")
            self.turn()
            self.assertEqual(heard.pop(), "bye")
            self.assertIsNotNone(bob.ended)
            self.assertEqual(len(self.server.groups["room"]), 1)
            ann.close()
            self.turn()
            self.assertEqual(len(self.server.groups["room"]), 0)
            heard.clear()
        self.assertEqual(self.server.counts.lost, {})

    def test_protobuf(self) -> None:
        @self.server.handler("echo.text")
        def echo(message: StringValue) -> Any:
            return StringValue(value=message.value.upper())

        peer = self.connect(Hotpot(format="protobuf", length_bytes=4))
        peer.send("Text", StringValue(value="hé"))
        answer = peer.next("StringValue", into=StringValue)
        self.turn()
        self.assertEqual(self.successResultOf(answer).value, "HÉ")

    def test_unnamed_answers(self) -> None:
        """What has no type of its own comes back under the name that it answers."""
        chat(self.server)
        peer = self.connect(Hotpot())
        for message in ({"a": 1}, [1, 2], "text", 1.5, True):
            peer.send("Echo", message)
            answer = peer.next("Echo")
            self.turn()
            self.assertEqual(self.successResultOf(answer), message)

    def test_refusals(self) -> None:
        """Error, in all envelopes; to who waits, and else to a handler of that name."""
        errors: list[Any] = []

        @self.app.handler("Error")
        def error(message: dict[str, Any]) -> None:
            errors.append((message["code"], message["msg"]))

        chat(self.server)
        for format in ("json", "msgpack"):
            peer = self.connect(Hotpot(format=format))
            waiting = [peer.next(name) for name in ("Joined", "Said")]
            for name, body in (("Fail", None), ("Say", Join("x")), ("Nobody", 1), ("Join", [1])):
                peer.send(name, body)
            peer.send("Broken")
            self.turn()
            for one, code in zip(waiting, (7, 403), strict=True):
                self.assertEqual(self.failureResultOf(one, Refused).value.code, code)
            self.assertEqual(
                errors, [(404, "not found"), (400, "bad message"), (500, "internal error")]
            )
            errors.clear()
            asked = peer.next("Error", into=dict[str, Any])
            peer.send("Fail")
            self.turn()
            self.assertEqual(self.successResultOf(asked)["code"], 7)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)  # the first

    def test_bad_answer(self) -> None:
        chat(self.server)
        peer = self.connect(Hotpot())
        peer.send("Join", Join("ann"))
        joined = peer.next("Joined", into=list[int])
        self.turn()
        self.failureResultOf(joined, BadBody)

    def test_not_there(self) -> None:
        peer = self.connect(Hotpot())
        self.failureResultOf(peer.request("Join", 1), NotInDialect)
        [session] = self.server.sessions.values()
        self.failureResultOf(session.request("Join", 1), NotInDialect)

    def test_kick(self) -> None:
        """There is no word for it: it ends behind what was told."""
        heard: list[Any] = []
        self.app.route("Said", heard.append)
        peer = self.connect(Hotpot())
        [session] = self.server.sessions.values()
        session.send("Said", 1)
        session.kick("why")
        self.turn()
        self.assertEqual(heard, [1])
        self.assertIsNotNone(peer.ended)

    def test_clashes(self) -> None:
        """Two routes of one name are found at listen, and at connect."""
        self.app.route("room.join", lambda: None)
        self.app.route("hall.join", lambda: None)
        endpoint: Any = None
        for failing in (
            self.app.listen(endpoint, Hotpot()),
            self.app.connect(endpoint, Hotpot()),
        ):
            error = self.failureResultOf(failing, BadHandler).value
            self.assertIn("room.join and hall.join are both Join", str(error))
        LinkFactory(self.app, Hotpot(names={"hall.join": "JoinHall"}))
        shared = Hotpot(names={"hall.join": "JoinHall"})
        LinkFactory(self.app, shared)
        LinkFactory(chat(App()), shared)
        other = App()
        other.route("bar.join", lambda: None)
        error = raised(BadHandler, LinkFactory, other, shared)
        self.assertIn("bar.join is Join in hotpot, which it takes for room.join", str(error))

    def test_next_by_either_name(self) -> None:
        """Of the wire, and of the application, whether it has a handler or not."""
        chat(self.server)
        peer = self.connect(Hotpot())
        for name in ("room.joined", "Joined", "room.joined"):
            peer.send("room.join", Join("ann"))
            joined = peer.next(name, into=Joined)
            self.turn()
            self.assertEqual(self.successResultOf(joined).Message, "ann")
        self.failureResultOf(peer.next("Ping"), NotInDialect)


class StrandTests(Connections):
    """What hotpot's groups are: strands. (Delegate, SelfSupport)"""

    def test_delegate(self) -> None:
        """Sessions of one room run one handler at a time, in the order of their messages."""
        gates: list[Deferred[None]] = []
        ran: list[str] = []
        rooms = {"red": Strand(), "blue": Strand()}

        @self.server.handler("enter")
        def enter(session: Session, room: str) -> None:
            session.strand = rooms[room]

        @self.server.handler("leave")
        def leave(session: Session) -> None:
            session.strand = Strand()

        @self.server.handler("act")
        async def act(what: str) -> None:
            ran.append(f"{what} begins")
            gates.append(Deferred())
            await gates[-1]
            ran.append(f"{what} ends")

        dialect = Hotpot(keepalive=(1, 3))
        ann, bob, eve = (self.connect(dialect) for _ in range(3))
        for peer, room in ((ann, "red"), (bob, "red"), (eve, "blue")):
            peer.send("Enter", room)
            self.turn()
        for peer, what in ((ann, "a1"), (bob, "b1"), (eve, "e1"), (ann, "a2")):
            peer.send("Act", what)
            self.turn()
        self.assertEqual(ran, ["a1 begins", "e1 begins"])
        # Meanwhile they live, a Ping being no message of the room.
        for _ in range(20):
            self.turn(0.5)
        self.assertIsNone(ann.ended or bob.ended or eve.ended)
        for number in (0, 2, 3):
            gates[number].callback(None)
        self.assertEqual(ran[2:], ["a1 ends", "b1 begins", "b1 ends", "a2 begins", "a2 ends"])
        bob.send("Leave")
        self.turn()
        bob.send("Act", "b2")
        ann.send("Act", "a3")
        self.turn()
        self.assertEqual(sorted(ran[-2:]), ["a3 begins", "b2 begins"])
        for gate in gates:
            if not gate.called:
                gate.callback(None)

    def test_nothing_is_lost(self) -> None:
        """Ten thousand messages and timers, while a handler fails now and then."""
        count = [0, 0]
        self.server.bounds = Bounds(strand=50)
        room = Strand(50)

        @self.server.opened
        def opened(session: Session) -> None:
            session.strand = room

        @self.server.handler("count")
        async def add(number: int) -> None:
            count[0] += 1
            if number % 100 == 0:
                raise Refused(1)

        @self.server.every(0.1, strand=room)
        def tick() -> None:
            count[1] += 1

        self.server.start()
        errors: list[Any] = []
        self.app.route("Error", lambda message: errors.append(message["code"]))
        peers = [self.connect(Hotpot()) for _ in range(2)]
        for start in range(0, 5000, 250):
            for peer in peers:
                for number in range(start, start + 250):
                    peer.send("Count", number)
            self.turn(0.1)
        self.assertEqual((count, len(errors)), ([10_000, 20], 100))


class HookTests(Connections):
    def test_hooks(self) -> None:
        """Received and Send, agent.open and agent.closed, as they are here."""
        seen: list[Any] = []

        @self.server.middleware
        async def received(request: Request, call_next: Any) -> Any:
            seen.append((request.route, request.body))
            if request.route == "drop":
                return None
            request.body = request.body.replace(b"ann", b"bnn")
            return await call_next(request)

        @self.server.outgoing
        def send(out: Any) -> None:
            if out.route == "secret":
                raise Refused(1)

        self.server.opened(lambda session: seen.append("open"))
        self.server.closed(lambda session: seen.append(session.state))
        chat(self.server)
        self.server.route("drop", lambda: seen.append("not dropped"))
        heard: list[Any] = []

        @self.app.unknown
        def other(request: Request) -> None:
            heard.append((request.route, request.body))

        peer = self.connect(Hotpot(names={"drop": "drop"}))
        peer.send("drop", 1)
        peer.send("Join", Join("ann"))
        self.turn()
        [session] = self.server.sessions.values()
        session.send("secret", 1)
        session.send("open", 1)
        self.turn()
        peer.close()
        self.turn()
        self.assertEqual(
            seen, ["open", ("drop", b"1"), ("room.join", b'{"Message":"ann"}'), "bnn"]
        )
        self.assertEqual(heard, [("Joined", b'{"Message":"bnn","N":1}'), ("Open", b"1")])

    def test_limit(self) -> None:
        """Exactly as many as may be; Go admits one more."""
        self.server.bounds = Bounds(sessions=1)
        first = self.connect(Hotpot())
        link: Any = LinkFactory(self.server, Hotpot()).buildProtocol(None)
        transport = StringTransport()
        link.makeConnection(transport)
        self.assertTrue(transport.disconnecting)
        self.assertEqual((transport.value(), len(self.server.sessions)), (b"", 1))
        self.assertIsNone(first.ended)


class LinkTests(SynchronousTestCase):
    """One connection, of somebody else's client."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.app = chat(App(clock=self.clock))
        self.ended: list[SessionEnded | None] = []
        self.app.closed(lambda session: self.ended.append(session.ended))

    def raw(self) -> None:
        """An App whose messages are bytes, in whatever format."""
        self.clock = Clock()
        self.app = App(clock=self.clock)

        @self.app.handler("echo")
        def echo(data: bytes) -> bytes:
            return data

    def open(self, dialect: Hotpot, *, websocket: bool = False) -> None:
        factory: Any = LinkFactory(self.app, dialect)
        if websocket:
            factory = factory.over_websocket(Policy("", (), ""))
        self.link: Any = factory.buildProtocol(None)
        self.transport = StringTransport()
        self.link.makeConnection(self.transport)
        if websocket:
            self.link.dataReceived(
                b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
            )
            self.assertTrue(self.take().startswith(b"HTTP/1.1 101 "))

    def take(self) -> bytes:
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def say(self, data: bytes) -> bytes:
        self.link.dataReceived(data)
        return self.take()

    def test_keepalive(self) -> None:
        """(1, 3): Pings at 2 and 3 seconds, and the end behind 4."""
        self.open(Hotpot(keepalive=(1, 3)))
        said = []
        for step in range(1, 60):
            self.clock.advance(0.1)
            if self.take():
                said.append(round(step / 10))
        self.assertEqual(said, [2, 3])
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.app.counts.lost, {"silent": 1})

    def test_lives(self) -> None:
        """Whoever answers lives; control frames of a WebSocket are no life."""
        for websocket, lives in ((False, True), (True, False)):
            self.open(Hotpot(keepalive=(1, 3)), websocket=websocket)
            for _ in range(100):
                self.clock.advance(0.1)
                if self.transport.disconnecting:
                    break
                if not websocket and self.take():
                    self.say(ROWS["H-5"])
                if websocket:
                    self.say(b"\x89\x80abcd")
            self.assertEqual(not self.transport.disconnecting, lives)

    def test_bad_lengths(self) -> None:
        """One line in the log, and nobody else notices."""
        for said in (b"\x00\x00", b"\x10\x01x"):
            self.open(Hotpot())
            self.say(ROWS["H-2"] + said)
            self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.app.counts.lost, {"bad_frame": 2})
        self.assertEqual(self.app.counts.messages, 2)

    def test_garbage(self) -> None:
        """No message is dropped, as in Go; the connection lives and answers the next."""
        self.raw()
        for format in FORMATS:
            self.open(Hotpot(format=format))
            for said in (b"what?", b"\xff" * 100, b'{"type":5}'):
                self.assertEqual(self.say(framed(said)), b"")
            ping = self.link.wire._settings.envelope
            said = framed(ping.wrap(ping.head("Ping"), ping.nothing))
            self.assertEqual(self.say(said), said.replace(b"Ping", b"Pong"))

    def masked(self, kind: int, payload: bytes) -> bytes:
        size = len(payload)
        head = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        return bytes((0x80 | kind,)) + head + bytes(4) + payload

    def test_websocket(self) -> None:
        """One message, one frame of the dialect's kind; the vector's."""
        for text, kind in ((True, 1), (False, 2)):
            self.open(Hotpot(text=text), websocket=True)
            said = self.say(self.masked(kind, ROWS["H-4"][2:]))
            self.assertEqual(said, bytes((0x80 | kind,)) + ROWS["H-16"][1:])
            two = self.masked(kind, ROWS["H-1"]) * 2
            self.assertEqual(self.say(two).count(b'"Echo"'), 2)
            parts = self.masked(kind, ROWS["H-1"][:9]), self.masked(0, ROWS["H-1"][9:])
            split = bytes((parts[0][0] & 0x7F,)) + parts[0][1:] + parts[1]
            self.assertEqual(self.say(split).count(b'"Echo"'), 1)

    def test_websocket_ends(self) -> None:
        """Another kind is 1003, too large is 1009; the reason is logged."""
        for text, kind in ((True, 2), (False, 1)):
            self.open(Hotpot(text=text), websocket=True)
            said = self.say(self.masked(kind, ROWS["H-1"]))
            self.assertEqual((said[0], said[2:4]), (0x88, (1003).to_bytes(2, "big")))
            self.assertIn("a message of the other kind came", str(self.link._why))
            self.assertTrue(self.transport.disconnecting)
        for size, code in ((4096, None), (4097, 1009)):
            self.open(Hotpot(), websocket=True)
            said = self.say(self.masked(2, b"x" * size))
            self.assertEqual(said[2:4] if said else None, code and code.to_bytes(2, "big"))
        self.open(Hotpot(), websocket=True)
        self.say(
            self.masked(0x2, b"x" * 3000)[:1].replace(b"\x82", b"\x02")
            + self.masked(2, b"x" * 3000)[1:]
        )
        said = self.say(self.masked(0, b"x" * 3000))
        self.assertEqual(said[2:4], (1009).to_bytes(2, "big"))
        self.assertEqual(self.app.counts.lost, {"bad_frame": 4})

    def test_large_answers(self) -> None:
        """Over TCP an answer that is too large is its handler's error, and no end."""
        self.app.route("much", lambda: "x" * 5000)
        self.open(Hotpot())
        said = self.say(framed(b'{"type":"Much","data":1}'))
        self.assertIn(b'"code":500', said)
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.open(Hotpot(), websocket=True)
        self.assertGreater(len(self.say(self.masked(2, b'{"type":"Much","data":1}'))), 5000)

    def test_mixed_group(self) -> None:
        """One message to members of three kinds: each hears it in its own dialect."""
        room = self.app.group("all")
        self.app.opened(room.add)
        said = []
        for dialect in (Hotpot(), Hotpot(format="msgpack"), Words(greets=False)):
            link: Any = LinkFactory(self.app, dialect).buildProtocol(None)
            transport = StringTransport()
            link.makeConnection(transport)
            said.append(transport)
        self.assertEqual(room.send("onMessage", {"a": 1}), 3)
        self.clock.advance(0)
        self.assertEqual(
            [transport.value() for transport in said],
            [
                framed(b'{"type":"OnMessage","data":{"a":1}}'),
                framed(b"\x92\xa9OnMessage\xd6\x1b\x81\xa1a\x01"),
                b'say onMessage {"a":1}\n',
            ],
        )

    @DETERMINISTIC
    @given(
        st.lists(
            st.one_of(
                st.sampled_from(sorted(ROWS)).map(ROWS.__getitem__),
                st.binary(max_size=60),
                st.binary(min_size=1, max_size=60).map(framed),
                st.floats(0.0, 30.0),
            ),
            max_size=12,
        ),
        st.sampled_from(FORMATS),
    )
    def test_anything(self, said: list[Any], format: str) -> None:
        """Whatever one peer says and when, nothing is logged as ours, and others are answered."""
        self.raw()
        dialect = Hotpot(format=format, keepalive=(1, 3))
        self.open(Hotpot(keepalive=None))
        other, theirs = self.link, self.transport
        self.open(dialect)
        for one in said:
            if isinstance(one, float):
                self.clock.advance(one)
            elif not self.transport.disconnecting:
                self.link.dataReceived(one)
        self.assertEqual(self.flushLoggedErrors(), [])
        theirs.clear()
        other.dataReceived(ROWS["H-2"])
        self.assertEqual(theirs.value(), ROWS["H-2"])
        self.assertEqual(len(self.app.sessions), 2 - self.link._gone)

    def test_storm(self) -> None:
        """Connections that go at once leave nothing."""
        dialect = Hotpot()
        for _ in range(200):
            self.open(dialect)
            self.link.connectionLost()
        self.assertEqual((len(self.app.sessions), len(self.ended)), (0, 200))
        self.assertEqual(len(self.app.links.links), 0)

    def test_pings_flood(self) -> None:
        """Who pings and does not read is ended."""
        self.app.bounds = Bounds(waiting=10_000)
        self.open(Hotpot())
        self.link.pauseProducing()
        for _ in range(20):
            self.link.dataReceived(ROWS["H-4"] * 50)
        self.assertEqual(self.app.counts.lost, {"slow_reader": 1})


class SocketTests(TestCase):
    """Over TCP and WebSocket, on 127.0.0.1."""

    async def talk(self, server: str, client: str, dialect: Hotpot, theirs: Hotpot) -> None:
        app = chat(App(clock=reactor))
        other = App(clock=reactor)
        port = await app.listen(serverFromString(reactor, server), dialect)
        try:
            address = client.format(port.getHost().port)
            peer = await other.connect(clientFromString(reactor, address), theirs)
            peer.send("Join", Join("ann"))
            joined = await peer.next("Joined", into=Joined, timeout=60)
            self.assertEqual(joined, Joined("ann", 1))
            large = "é" * 1500
            peer.send("Say", Join(large))
            said = await peer.next("Said", into=Said, timeout=60)
            self.assertEqual(said.Message, f"ann: {large}")
            peer.send("Fail")
            error = await failure_of(Refused, peer.next("Joined", timeout=60))
            self.assertEqual((error.code, error.text), (7, "bad"))
            peer.send("Bye")
            self.assertEqual(await peer.next("Said", into=Said, timeout=60), Said("bye"))
            await peer.when_ended()
        finally:
            other.stop()
            await app.stop()
            await until("the wheels stand still", lambda: not reactor.getDelayedCalls()[1:])

    def over(self, server: str, client: str, **settings: Any) -> Deferred[None]:
        talk = self.talk(server, client, Hotpot(**settings), Hotpot(**settings))
        return Deferred.fromCoroutine(talk)

    def test_tcp(self) -> Deferred[None]:
        return self.over("tcp:0:interface=127.0.0.1", "tcp:127.0.0.1:{}", format="msgpack")

    def test_websocket(self) -> Deferred[None]:
        server = "ws:0:interface=127.0.0.1:path=/game"
        return self.over(server, "ws:127.0.0.1:{}:path=/game", text=True)

"""Tests of Apps that speak teleport: all that a peer sees, over memory and turned clocks."""

from __future__ import annotations

from functools import partial
from typing import Any

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from wsproto import ConnectionType, WSConnection
from wsproto.events import BytesMessage
from wsproto.events import Request as Ask

from fastway.app import App, Bounds, Refused, Request, Session, SessionEnded
from fastway.app.link import Link
from fastway.app.ports import LinkFactory
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport_fields import read_status
from fastway.dialect.teleport_frames import CALL, PUSH, REPLY, Frame
from fastway.errors import RequestTimeout
from fastway.websocket.request import Policy
from tests.support.logs import LogLines
from tests.support.teleport import BYTES, VECTORS, Memory, read, written


class Numbers(Struct):
    a: int
    b: int


class Servers(SynchronousTestCase):
    """One App that serves, and one that connects."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.gates: list[Deferred[Any]] = []
        self.server = self.app_with()
        self.app = App(clock=self.clock)

    def app_with(self, **settings: Any) -> App:
        app = App(clock=self.clock, **settings)
        app.route("math.add", _add)
        app.route("math.div", _div)
        app.route("echo.any", _echo)
        app.route("echo.meta", _meta)
        app.route("echo.fails", _fails)

        @app.handler("echo.wait")
        async def wait(message: Any) -> Any:
            gate: Deferred[Any] = Deferred()
            self.gates.append(gate)
            await gate
            return message

        return app

    def turn(self) -> None:
        self.clock.pump([0] * 12)

    def connect(self, near: Teleport | None = None, far: Teleport | None = None) -> Session:
        endpoint = Memory(self.server, near or Teleport(), self.clock)
        connecting = self.app.connect(endpoint, far or Teleport())
        self.turn()
        return self.successResultOf(connecting)

    def asked(self, session: Session, *args: Any, **settings: Any) -> Any:
        asking = session.request(*args, **settings)
        self.turn()
        return self.successResultOf(asking)

    def refused(self, session: Session, *args: Any, **settings: Any) -> Refused:
        asking = session.request(*args, **settings)
        self.turn()
        refused = self.failureResultOf(asking, Refused).value
        assert isinstance(refused, Refused)
        return refused


def _add(numbers: list[int]) -> int:
    return sum(numbers)


def _div(numbers: Numbers) -> int:
    if not numbers.b:
        raise Refused(1001, "division by zero", "B is 0")
    return numbers.a // numbers.b


def _echo(message: Any) -> Any:
    return message


def _meta(request: Request) -> list[Any]:
    request.answer_meta.append(("seen", dict(request.meta).get("k", "")))
    return list(request.meta)


def _fails() -> None:
    raise RuntimeError("the secret of the house")


class Talks(Servers):
    """Two of ours."""

    def test_settings(self) -> None:
        """All frames, with and without filters, in both mappers."""
        for settings in (
            {},
            {"proto": "json"},
            {"proto": "pb"},
            {"mapper": "rpc"},
            {"pipe": "gm"},
            {"proto": "json", "pipe": "mg"},
            {"proto": "pb", "pipe": "g", "ignore_case": True},
            {"names": {"math.add": "/v2/sum"}},
        ):
            session = self.connect(Teleport(**settings), Teleport(**settings))
            self.assertEqual(self.asked(session, "math.add", [1, 2, 3], into=int), 6)
            value = {"a": 'b~é <&> + " \\ \n 😀', "n": [None, 1.5]}
            self.assertEqual(self.asked(session, "echo.any", value), value)
            self.assertEqual(self.refused(session, "math.div", Numbers(1, 0)).data, "B is 0")
            session.close()
            self.turn()
        self.assertEqual((self.server.sessions, self.app.sessions), ({}, {}))

    def test_errors(self) -> None:
        """What a caller is told, in Go's words; nothing of what was raised."""
        session = self.connect()
        for route, message, code, text, data in (
            ("math.div", Numbers(1, 0), 1001, "division by zero", "B is 0"),
            ("no.such", 1, 404, "Not Found", ""),
            ("math.add", "text", 400, "Bad Message", ""),
            ("echo.fails", None, 500, "Internal Server Error", ""),
        ):
            refused = self.refused(session, route, message)
            self.assertEqual((refused.code, refused.text, refused.data), (code, text, data))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.asked(session, "math.add", [1]), 1)

    def test_pushes_that_fail(self) -> None:
        """They are logged, and nothing else happens."""
        session = self.connect()
        with LogLines() as log:
            session.send("math.add", "text")
            session.send("no.such")
            self.turn()
        self.assertIn("no such message", " ".join(log.lines))
        counts = self.server.counts
        self.assertEqual((counts.bad, counts.unknown, counts.requests), (1, 1, 0))
        self.assertEqual(self.asked(session, "math.add", [1]), 1)

    def test_meta(self) -> None:
        session = self.connect()
        meta = [("k", "a/b~é"), ("k", ""), ("", "x")]
        self.assertEqual(
            self.asked(session, "echo.meta", meta=meta), [list(pair) for pair in meta]
        )

    def test_asked_for_codec(self) -> None:
        session = self.connect()
        text = self.asked(session, "math.add", [1, 1], meta=[("X-Accept-Body-Codec", "115")])
        self.assertEqual(text, "2")

    def test_codecs(self) -> None:
        for codec, message in (("s", "text"), ("f", {"a": "1 2", "b": ["x", "y"]})):
            session = self.connect(far=Teleport(codec=codec))
            self.assertEqual(self.asked(session, "echo.any", message), message)

    def test_the_server_asks(self) -> None:
        """Back, from a handler: nothing waits for itself."""

        @self.server.handler("echo.ask")
        async def ask(session: Session, name: str) -> str:
            answer: str = await session.request("cli.hello", name, into=str)
            return answer

        @self.app.handler("Cli.Hello")
        async def hello(session: Session, name: str) -> str:
            total = await session.request("math.add", [1, 2])
            return f"hello {name}, {total}"

        session = self.connect()
        self.assertEqual(self.asked(session, "echo.ask", "you"), "hello you, 3")

    def test_overtaking(self) -> None:
        """Answers come when they are done; with `concurrent=1`, in order."""
        for concurrent, running in ((64, 2), (1, 1)):
            self.gates.clear()
            session = self.connect(Teleport(concurrent=concurrent))
            first, second = (session.request("echo.wait", number) for number in (1, 2))
            self.turn()
            self.assertEqual(len(self.gates), running)
            if running == 2:
                self.gates[1].callback(None)
                self.turn()
                self.assertEqual(self.successResultOf(second), 2)
                self.assertNoResult(first)
                self.gates[0].callback(None)
                self.turn()
            else:
                for number in range(2):
                    self.gates[number].callback(None)
                    self.turn()
                self.assertEqual(self.successResultOf(second), 2)
            self.assertEqual(self.successResultOf(first), 1)

    def test_a_thousand(self) -> None:
        """At once, on one session; answered from the last to the first."""
        self.server = self.app_with(bounds=Bounds(requests=0))
        session = self.connect(Teleport(concurrent=1000))
        asked = [session.request("echo.wait", number) for number in range(1000)]
        self.turn()
        self.assertEqual(len(self.gates), 1000)
        for gate in reversed(self.gates):
            gate.callback(None)
        self.turn()
        self.assertEqual([self.successResultOf(one) for one in asked], list(range(1000)))

    def test_a_thousand_in_bounds(self) -> None:
        """64 run at a time, and all are answered."""
        session = self.connect()
        asked = [session.request("echo.wait", number) for number in range(1000)]
        self.turn()
        self.assertEqual(len(self.gates), 64)
        done = 0
        while done < len(self.gates):
            done, before = len(self.gates), done
            for gate in self.gates[before:done]:
                gate.callback(None)
            self.turn()
        self.assertEqual([self.successResultOf(one) for one in asked], list(range(1000)))

    def test_mute_server(self) -> None:
        """A caller gives up; the answer that comes late is none of anybody's business."""
        session = self.connect()
        asking = session.request("echo.wait", 1, timeout=5.0)
        self.turn()
        self.clock.advance(5.0)
        self.failureResultOf(asking, RequestTimeout)
        self.gates[0].callback(None)
        self.turn()
        self.assertEqual(self.asked(session, "math.add", [1]), 1)

    def test_lost(self) -> None:
        session = self.connect()
        asking = session.request("echo.wait", 1)
        self.turn()
        for link in tuple(self.server.links.links):
            link.close()
        self.turn()
        self.failureResultOf(asking, SessionEnded)

    def test_groups(self) -> None:
        """What a group is told is packed once for all of one port."""
        packed: list[bytes] = []
        dialect = Teleport()
        heard: list[Any] = []
        self.app.route("room.said", heard.append)
        group = self.server.group("room")

        def packs(pack: Any, *args: Any) -> bytes:
            packed.append(pack(*args))
            return packed[-1]

        for _ in range(3):
            self.connect(dialect)
        for member in self.server.sessions.values():
            group.add(member)
            carrier: Any = member.carrier
            carrier.pack = partial(packs, carrier.pack)
        group.send("room.said", {"text": "all"})
        self.turn()
        self.assertEqual((len(packed), heard), (1, [{"text": "all"}] * 3))

    def test_auth(self) -> None:
        @self.server.handshake
        async def lets_in(session: Session, user: Any) -> str:
            if user != "tok":
                raise Refused(403, "auth fail", "wrong token")
            session.bind(user)
            return "pass"

        near = Teleport(auth=True)
        session = self.connect(near, Teleport(user="tok"))
        self.assertEqual(self.asked(session, "math.add", [1]), 1)
        [other] = self.server.sessions.values()
        self.assertEqual(other.user, "tok")
        connecting = self.app.connect(Memory(self.server, near, self.clock), Teleport(user="no"))
        self.turn()
        refused: Any = self.failureResultOf(connecting, Refused).value
        self.assertEqual((refused.code, refused.text), (403, "auth fail"))
        self.assertEqual(len(self.server.sessions), 1)

    def test_heartbeats(self) -> None:
        """Both live for an hour; who stops is ended."""
        session = self.connect(Teleport(heartbeat=5), Teleport(heartbeat=3, heartbeat_call=True))
        for _ in range(3600):
            self.clock.advance(1.0)
        self.assertIsNone(session.ended)
        [other] = self.server.sessions.values()
        carrier: Any = session.carrier
        carrier.transport.other.arrives = lambda data: None
        for _ in range(8):
            self.clock.advance(1.0)
        self.assertIn("silent", str(other.ended))


class Hostile(Servers):
    """What comes over one connection, in bytes."""

    def link(self, dialect: Teleport | None = None, **settings: Any) -> StringTransport:
        self.server = self.app_with(**settings)
        link = LinkFactory(self.server, dialect or Teleport()).buildProtocol(None)
        transport = StringTransport()
        self.made: Link = link
        link.makeConnection(transport)
        return transport

    def told(self, transport: StringTransport, *frames: bytes) -> list[Frame]:
        for data in frames:
            self.made.dataReceived(data)
        self.turn()
        said, frames_back = transport.value(), []
        transport.clear()
        while said:
            size = int.from_bytes(said[:4], "big")
            frames_back.append(read(said[:size]))
            said = said[size:]
        return frames_back

    def test_recorded(self) -> None:
        """The bytes that Go's server answers."""
        transport = self.link()
        for asked, answer in (("V6-1", "V6-6"), ("V6-8", None)):
            self.made.dataReceived(BYTES[asked])
            self.turn()
            if answer is not None:
                self.assertEqual(transport.value(), BYTES[answer])
            transport.clear()
        missing = written(Frame(CALL, 1, b"/no", codec=106, body=b"1"))
        self.made.dataReceived(missing)
        self.turn()
        self.assertEqual(transport.value(), BYTES["V6-7"])

    def test_rows(self) -> None:
        """Spec teleport.md 3.2: what is answered, and that the connection lives."""
        transport = self.link()
        for what, frame, code in (
            ("unknown", Frame(CALL, 1, b"/math/add?x=1", codec=106, body=b"[1]"), 404),
            ("other case", Frame(CALL, 1, b"/Math/Add", codec=106, body=b"[1]"), 404),
            ("no method", Frame(CALL, 1, b"", codec=106, body=b"[1]"), 400),
            ("no text", Frame(CALL, 1, b"\xff\xfe", codec=106), 404),
            ("no list", Frame(CALL, 1, b"/math/add", codec=106, body=b"{"), 400),
            ("deep", Frame(CALL, 1, b"/echo/any", codec=106, body=b"[" * 100_000), 400),
            ("unknown codec", Frame(CALL, 1, b"/math/add", codec=120, body=b"<a/>"), 400),
            ("no codec", Frame(CALL, 1, b"/math/add", codec=0), 500),
            ("no zero value", Frame(CALL, 1, b"/math/div", codec=106), 400),
            ("zero value", Frame(CALL, 1, b"/math/add", codec=106), None),
            ("status of an error", Frame(CALL, 1, b"/math/add", b"code=9", codec=106), None),
            ("raises", Frame(CALL, 1, b"/echo/fails", codec=106), 500),
        ):
            [answer] = self.told(transport, written(frame))
            refused = read_status(answer.status)
            self.assertEqual((answer.mtype, refused and refused.code), (REPLY, code), what)
            self.assertNotIn(b"secret", answer.status)
            if refused is not None:
                self.assertEqual((answer.codec, answer.body), (0, b""))
        self.flushLoggedErrors(RuntimeError)
        for frame in (
            Frame(PUSH, 1, b"/math/add", codec=120, body=b"<a/>"),
            Frame(PUSH, 1, b"/no", codec=106),
            Frame(REPLY, 99, codec=106, body=b"1"),
        ):
            self.assertEqual(self.told(transport, written(frame)), [])
        self.assertFalse(transport.disconnecting or transport.disconnected)

    def test_no_codec_for_an_answer(self) -> None:
        """Never a body without a codec, on which a Go peer hangs."""
        transport = self.link()
        self.server.route("one", lambda: 1)
        self.server.route("data", lambda: b"1")
        for route in (b"/one", b"/data"):
            [answer] = self.told(transport, written(Frame(CALL, 1, route)))
            refused = read_status(answer.status)
            assert refused is not None
            self.assertEqual((refused.code, answer.codec, answer.body), (500, 0, b""))

    def test_an_answer_that_is_too_long(self) -> None:
        transport = self.link(Teleport(max_frame=1024))
        self.server.route("long", lambda: "x" * 2000)
        [answer] = self.told(transport, written(Frame(CALL, 1, b"/long", codec=106)))
        refused = read_status(answer.status)
        assert refused is not None
        self.assertEqual(refused.code, 500)
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_bad_frames(self) -> None:
        """The reason is logged, and that connection ends; nothing is told."""
        bomb = written(Frame(CALL, 1, b"/a", codec=106, body=b" " * 900_000, filters=b"ggg"))
        for what, data in (
            ("not even a head", bytes(4)),
            ("at most", b"\x7f\xff\xff\xff"),
            ("message type", written(Frame(9, 1, b"/a"))),
            ("without a codec", written(Frame(CALL, 1, b"/a", body=b"1"))),
            ("filter", b"\0\0\0\x09\1z123"),
            ("more than 4096 bytes", bomb),
        ):
            dialect = Teleport(max_frame=4096 if "4096" in what else 1 << 20)
            transport = self.link(dialect)
            with LogLines() as log:
                self.assertEqual(self.told(transport, data), [], what)
            self.assertTrue(transport.disconnecting, what)
            self.assertIn(what, " ".join(log.lines))
            self.assertEqual(self.server.counts.lost["bad_frame"], 1)

    def test_slow_handshake(self) -> None:
        """Byte by byte, for ever: it has ten seconds."""
        transport = self.link(Teleport(auth=True))
        transport.abortConnection = lambda: self.made.connectionLost(  # type: ignore
            Failure(ConnectionLost())
        )
        for byte in BYTES["A-1"][:11]:
            self.made.dataReceived(bytes((byte,)))
            self.clock.advance(1.0)
        self.assertEqual(self.server.counts.lost["handshake_timeout"], 1)
        self.assertEqual(self.server.sessions, {})

    def test_lying_heartbeats(self) -> None:
        """Who announces one a second and sends none is ended; others do not notice."""
        transport = self.link()
        beat = written(Frame(PUSH, 1, b"/heartbeat", meta=b"hb_=1", codec=106))
        self.assertEqual(self.told(transport, beat), [])
        for _ in range(4):
            self.clock.advance(1.0)
        self.assertEqual(self.server.counts.lost["silent"], 1)

    def test_a_flood_is_not_read(self) -> None:
        """Past the bound of unanswered requests it waits in the network."""
        transport = self.link(bounds=Bounds(requests=10))
        call = b"".join(
            written(Frame(CALL, number, b"/echo/wait", codec=106, body=b"1"))
            for number in range(1, 12)
        )
        self.assertEqual(self.told(transport, call), [])
        self.assertEqual(transport.producerState, "paused")
        for gate in list(self.gates):
            gate.callback(None)
        self.turn()
        self.assertEqual(transport.producerState, "producing")


class WebSockets(Servers):
    """Messages of WebSocket, by a client that is not ours."""

    def told(self, dialect: Teleport, *messages: bytes) -> list[bytes]:
        """What it is answered; each in a message of its own."""
        policy = Policy("/ws", ("*",), "")
        link = LinkFactory(self.server, dialect).over_websocket(policy).buildProtocol(None)
        transport = StringTransport()
        assert link is not None
        link.makeConnection(transport)
        peer = WSConnection(ConnectionType.CLIENT)
        said: list[bytes] = []
        asks = [Ask(host="game.example", target="/ws"), *map(BytesMessage, messages)]
        for one in asks:
            link.dataReceived(peer.send(one))
            self.turn()
            peer.receive_data(transport.value())
            transport.clear()
            said += [bytes(e.data) for e in peer.events() if isinstance(e, BytesMessage)]
        return said

    def test_recorded(self) -> None:
        """What Go's client asks first, and the bytes that Go's server answers."""
        [talk] = [one for one in VECTORS["talks"] if one["websocket"]]
        units = [(who, bytes.fromhex(unit)) for _, who, unit in talk["frames"]]
        self.assertEqual([who for who, _ in units[:2]], ["C", "S"])
        self.assertEqual(self.told(Teleport(proto="json"), units[0][1]), [units[1][1]])

    def test_all(self) -> None:
        """Each of the three, with a status where there is one or where nobody else looks."""
        for proto in ("raw", "json", "pb"):
            message = proto != "raw"
            ok = Frame(CALL, 1, b"/math/add", codec=106, body=b"[1,2]", filters=b"g")
            no = Frame(CALL, 2, b"/no", codec=106, body=b"1")
            asked = [written(one, proto, message=message) for one in (ok, no)]
            said = [
                read(one, proto, message=message)
                for one in self.told(Teleport(proto=proto), *asked)
            ]
            self.assertEqual([(one.seq, one.body) for one in said], [(1, b"3"), (2, b"")])
            self.assertEqual(said[0].filters, b"g")
            refused = read_status(said[1].status)
            assert refused is not None
            self.assertEqual(refused.code, 404)

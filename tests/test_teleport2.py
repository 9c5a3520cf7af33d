"""Tests of fastway.dialect.teleport2: recorded packets, both ends, bad input, an App in memory."""

from __future__ import annotations

import json
import os
import tracemalloc
import zlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Refused, Request, Session
from fastway.dialect import Answer, BadFrame, FrameRefused, Message, NotInDialect, Ready
from fastway.dialect.teleport2 import PULL, PUSH, REPLY, Packet, Teleport2, Teleport2Wire
from fastway.dialect.teleport2 import read as read_packet
from fastway.dialect.teleport2 import write as write_packet
from fastway.formats import Bytes
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised
from tests.support.teleport import Memory

with open(os.path.join(os.path.dirname(__file__), "vectors", "teleport2.json")) as file:
    VECTORS: dict[str, Any] = json.load(file)

BYTES: dict[str, bytes] = {one["name"]: bytes.fromhex(one["bytes"]) for one in VECTORS["frames"]}
LIMIT = 1 << 20
J, P, S = b"jps"


def read(data: bytes) -> Packet:
    return read_packet(data, LIMIT)


def written(packet: Packet) -> bytes:
    return write_packet(packet, LIMIT)


def ready(wire: Teleport2Wire) -> Teleport2Wire:
    wire.begin(0.0)
    assert wire.receive(b"", 0.0) == [Ready()]
    return wire


def server(**settings: Any) -> Teleport2Wire:
    return ready(Teleport2(**settings).server())


def client(**settings: Any) -> Teleport2Wire:
    return ready(Teleport2(**settings).client())


class VectorTests(SynchronousTestCase):
    def test_packets(self) -> None:
        """Each is read, and written in the same bytes, but for the streams that Go never ends."""
        for name, data in BYTES.items():
            packet = read(data)
            if packet.gzip:
                self.assertEqual(packet.body, b"[1,2]")
            else:
                self.assertEqual(written(packet), data, name)
            self.assertEqual(read(written(packet)), packet, name)

    def test_some_by_hand(self) -> None:
        """Readings of the specification that the code could not have had from itself."""
        for name, packet in (
            ("V25-2", Packet(PULL, 0, "/home/add?x=1", header=P, codec=J, body=b"[1,2]")),
            ("V25-4", Packet(PUSH, 300, "/msg/say", header=P, codec=S, body=b"hi")),
            ("V25-6", Packet(REPLY, 7, "/nope", 0, 404, "Not Found", P)),
            ("V25-8", Packet(PULL, 1, "/home/add", -1, header=P, codec=J, body=b"[1,2]")),
            ("V25-10", Packet(REPLY, 1, "/home/add", 0, 200, "OK", P, J)),
            ("V25-12", Packet(PUSH, 0, "/p", header=P)),
        ):
            self.assertEqual(read(BYTES[name]), packet, name)

    def test_said_by_us(self) -> None:
        far = client()
        far.request("a", b"")
        self.assertEqual(far.request("home.add", b"[1,2]"), (2, BYTES["V25-1"]))
        far = client(header="p")
        asked = far.request("home.add", b"[1,2]", [("x", "1")])
        self.assertEqual(asked, (1, BYTES["V25-2"]))
        self.assertEqual(far.request("home.add", b"[1,2]"), (2, BYTES["V25-3"]))
        self.assertEqual(far.send("p", b""), BYTES["V25-12"])
        near = server()
        (event,) = near.receive(BYTES["V25-2"], 0.0)
        assert isinstance(event, Message)
        self.assertEqual((event.route, event.meta), ("home.add", [("x", "1")]))
        token = event.token._replace(seq=5)
        self.assertEqual(near.reply(token, b"3"), BYTES["V25-5"])
        token = token._replace(seq=7, uri="/nope")
        self.assertEqual(near.refuse(token, Refused(404, "not found")), BYTES["V25-6"])
        token = token._replace(seq=1, uri="/home/add")
        self.assertEqual(near.reply(token, b""), BYTES["V25-10"])

    def sides(self) -> list[tuple[str, list[bytes]]]:
        found = []
        for talk in VECTORS["talks"]:
            for key in sorted({(one[0], one[1]) for one in talk["frames"]}):
                units = [bytes.fromhex(u) for n, who, u in talk["frames"] if (n, who) == key]
                found.append((key[1], units))
        return found

    def test_talks(self) -> None:
        """Said again in the same bytes; and told alike byte by byte, and in thirds."""
        for who, units in self.sides():
            for unit in units:
                packet = read(unit)
                if not packet.gzip or not packet.body:
                    self.assertEqual(written(packet), unit)
            dialect = Teleport2()

            def new(who: str = who, dialect: Teleport2 = dialect) -> Teleport2Wire:
                wire = ready(dialect.server() if who == "C" else dialect.client())
                wire._asked.update(range(50))
                return wire

            said = b"".join(units)
            whole = new().receive(said, 0.0)
            self.assertEqual(len(whole), len(units))
            for size in (1, 3):
                wire = new()
                pieces = [said[at : at + size] for at in range(0, len(said), size)]
                again = [one for piece in pieces for one in wire.receive(piece, 0.0)]
                self.assertEqual([str(one) for one in again], [str(one) for one in whole])


class WireTests(SynchronousTestCase):
    def test_counters(self) -> None:
        """PULL and PUSH count apart, from 0; a server's pushes are all the same."""
        far = client()
        self.assertEqual([read(far.request("a", b"")[1]).seq for _ in range(3)], [0, 1, 2])
        self.assertEqual([read(far.send("a", b"")).seq for _ in range(2)], [0, 1])
        dialect = Teleport2()
        one, other = ready(dialect.server()), ready(dialect.server())
        one.send("a", b"1")
        self.assertEqual((one.shape, one.send("a", b"1")), (other.shape, other.send("a", b"1")))
        self.assertNotEqual(client().shape, client().shape)

    def test_answers(self) -> None:
        """In the header codec, the gzip and the codec of the question, and in any order."""
        for settings in ({}, {"header": "p"}, {"gzip": 5}, {"gzip": -2}, {"codec": "s"}):
            near, far = server(), client(**settings)
            asked = b"".join(far.request("a", b"x" * n)[1] for n in (1, 500))
            tokens = [one.token for one in near.receive(asked, 0.0)]  # type: ignore
            self.assertEqual(read(near.reply(tokens[0], b"1"))[6:8], tokens[0][3:])
            said = [near.reply(one, b"x" * one.seq) for one in reversed(tokens)]
            answers = far.receive(b"".join(said), 0.0)
            self.assertEqual([one[:2] for one in answers], [(2, b"x"), (1, b"")])
            self.assertEqual(far.receive(said[0], 0.0), [])

    def test_refusals(self) -> None:
        near, far = server(), client()
        for refused, code, text in (
            (Refused(1001, "no way", "data"), 1001, "no way"),
            (Refused(0, "x"), 500, "x"),
            (Refused(200, "x"), 500, "x"),
            (Refused(2**40, "x"), 500, "x"),
            (Refused(500, "internal error"), 500, "Internal Server Error"),
            (Refused(5, "\ud800" * 5000), 5, "?" * 1000),
        ):
            key, asked = far.request("a", b"")
            (event,) = near.receive(asked, 0.0)
            assert isinstance(event, Message)
            (answer,) = far.receive(near.refuse(event.token, refused), 0.0)
            assert isinstance(answer, Answer)
            assert answer.refused is not None
            self.assertEqual(
                (answer.key, answer.refused.code, answer.refused.text), (key, code, text)
            )
        near = server(max_frame=1024)
        long = client().request("a", b"", [("k", "x" * 900)])[1]
        (event,) = near.receive(long, 0.0)
        assert isinstance(event, Message)
        self.assertEqual(read(near.refuse(event.token, Refused(9, "y" * 900))).code, 9)

    def test_bad(self) -> None:
        """Spec teleport.md 2.2: the connection is closed; nothing is answered."""
        good = BYTES["V25-1"]
        gzipped = written(Packet(PULL, 0, "/a", 5, codec=J, body=b"[]"))
        for what, data in {
            "no header": bytes(8),
            "4 GiB": b"\xff" * 8,
            "a body of 4 GiB": good[:41] + b"\xff" * 4,
            "header codec": good[:4] + b"s" + good[5:],
            "no JSON": good.replace(b'{"seq"', b'["seq"'),
            "type": good.replace(b'"type":1', b'"type":4'),
            "no type": good.replace(b'"type":1', b'"typo":1'),
            "gzip": gzipped.replace(b"\x1f\x8b", b"[]"),
            "gzip of text": good.replace(b'"seq":1', b'"gzip":1').replace(
                b"\0\0\0\x25", b"\0\0\0\x26"
            ),
            "seq": good.replace(b'"seq":1', b'"seq":-'),
            "no protobuf": BYTES["V25-3"][:5] + b"\xff" * 15 + BYTES["V25-3"][20:],
            "a bomb": write_packet(
                Packet(PULL, 0, "/a", 9, codec=J, body=bytes(9_000_000)), LIMIT
            ),
        }.items():
            wire = server()
            self.assertEqual(wire.receive(data + good, 0.0), [], what)
            self.assertIsInstance(wire.error, BadFrame, what)
            self.assertEqual((wire.receive(good, 0.0), wire.data_to_send()), ([], []))

    def test_uri(self) -> None:
        wire = server()
        wire.receive(written(Packet(PULL, 3, "/a%zz", codec=J)), 0.0)
        (said,) = wire.data_to_send()
        self.assertEqual(read(said)[:6], (REPLY, 3, "/a%zz", 0, 400, "Bad URI"))
        self.assertEqual(wire.receive(written(Packet(PUSH, 3, "/a%zz")), 0.0), [])
        self.assertEqual((wire.error, wire.data_to_send()), (None, []))

    def test_limit(self) -> None:
        room = 1024 - len(client().send("a", b"x")) + 1
        data = client(max_frame=1024).send("a", b"x" * room)
        self.assertEqual((len(data), len(server(max_frame=1024).receive(data, 0.0))), (1024, 1))
        raised(FrameRefused, client(max_frame=1024).request, "a", b"x" * (room + 1))
        wire = server(max_frame=1024)
        self.assertEqual(wire.receive(client().send("a", b"x" * (room + 1)), 0.0), [])
        self.assertIsInstance(wire.error, BadFrame)

    def test_memory_of_a_bomb(self) -> None:
        data = write_packet(Packet(PULL, 0, "/a", 9, codec=J, body=bytes(50_000_000)), 1 << 30)
        wire = server()
        tracemalloc.start()
        wire.receive(data, 0.0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        self.assertIsNotNone(wire.error)
        self.assertLess(peak, 5 << 20)

    def test_streams_that_go_on(self) -> None:
        """Go's streams have no end; a whole one is taken too."""
        stream = zlib.compressobj(5, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        endless = stream.compress(b"[1]") + stream.flush(zlib.Z_SYNC_FLUSH)
        for body in (endless, endless + stream.flush()):
            plain = written(Packet(PULL, 0, "/a", 0, codec=J, body=body))
            head = b'{"type":1,"uri":"/a","gzip":5}'
            block = plain[-len(body) - 5 :]
            data = (len(head) + 1).to_bytes(4, "big") + b"j" + head + block
            self.assertEqual(read(data).body, b"[1]")

    @DETERMINISTIC
    @given(
        st.lists(
            st.one_of(st.binary(max_size=30), st.sampled_from(sorted(BYTES))),
            min_size=1,
            max_size=4,
        ),
        st.lists(st.integers(0, 200), max_size=5),
    )
    def test_any_bytes(self, parts: list[Any], places: list[int]) -> None:
        said = b""
        for part in parts:
            head = b"" if isinstance(part, str) else (len(part) + 1).to_bytes(4, "big") + b"j"
            said += BYTES[part] if isinstance(part, str) else head + part + bytes(4)
        told, dialect = [], Teleport2()
        for pieces in ([said], cut(said, places)):
            wire = ready(dialect.server())
            events = [one for piece in pieces for one in wire.receive(piece, 0.0)]
            self.assertIn(type(wire.error), (BadFrame, type(None)))
            told.append((events, str(wire.error), wire.data_to_send()))
        self.assertEqual(told[0], told[1])

    def test_names(self) -> None:
        dialect = Teleport2(names={"room.join": "/Enter"})
        for route, name in (
            ("home.add", "/home/add"),
            ("ABcXYz.add_all", "/a_bc_x_yz/add_all"),
            ("Home.AddAll", "/home/add_all"),
            ("room.join", "/Enter"),
            ("/X/y", "/X/y"),
        ):
            self.assertEqual((dialect.wire_name(route), dialect.app_name(name)), (name, route))
        raised(NotInDialect, dialect.wire_name, "a" * 300)

    def test_settings(self) -> None:
        for given_settings in (
            {"header": "s"},
            {"codec": "f"},
            {"codecs": {"xy": Bytes()}},
            {"gzip": 10},
            {"gzip": -3},
            {"concurrent": 0},
            {"max_frame": 10},
            {"names": {"a": "/x", "b": "/x"}},
        ):
            raised(ValueError, Teleport2, **given_settings)


class AppTests(SynchronousTestCase):
    """Two Apps in memory."""

    def test_both_ways(self) -> None:
        clock = Clock()
        near, far = App(clock=clock), App(clock=clock)
        gates: list[Deferred[Any]] = []
        heard: list[Any] = []
        far.route("msg.say", heard.append)
        far.route("cli.hello", lambda name: f"hello {name}")

        @near.handler("home.add")
        def add(numbers: list[int], request: Request, session: Session) -> int:
            session.send("msg.say", list(request.meta))
            return sum(numbers)

        @near.handler("home.ask")
        async def ask(session: Session, name: str) -> Any:
            return await session.request("cli.hello", name)

        @near.handler("home.wait")
        async def wait(message: Any) -> Any:
            gates.append(Deferred())
            await gates[-1]
            return message

        @near.handler("home.fails")
        def fails() -> None:
            raise RuntimeError("the secret")

        every: tuple[dict[str, Any], ...] = ({}, {"header": "p", "gzip": 5})
        for settings in every:
            gates.clear()
            endpoint = Memory(near, Teleport2(), clock)
            connecting = far.connect(endpoint, Teleport2(**settings))
            clock.pump([0] * 8)
            session = self.successResultOf(connecting)
            added = session.request("home.add", [1, 2], meta=[("x", "a b")])
            hello = session.request("home.ask", "you")
            missing, bad, failed = (
                session.request(route, "text") for route in ("no", "home.add", "home.fails")
            )
            waits = [session.request("home.wait", number) for number in range(2)]
            clock.pump([0] * 8)
            for gate in reversed(gates):
                gate.callback(None)
            clock.pump([0] * 8)
            self.assertEqual(self.successResultOf(added), 3)
            self.assertEqual(self.successResultOf(hello), "hello you")
            self.assertEqual(heard.pop(), [["x", "a b"]])
            self.assertEqual([self.successResultOf(one) for one in waits], [0, 1])
            for asked, code, text in (
                (missing, 404, "Not Found"),
                (bad, 400, "Bad Message"),
                (failed, 500, "Internal Server Error"),
            ):
                refused: Any = self.failureResultOf(asked, Refused).value
                self.assertEqual((refused.code, refused.text), (code, text))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)  # of one route the first

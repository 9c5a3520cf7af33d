"""Tests of fastway.dialect.pomelo: what nano, pitaya and their clients say to each other.

The vectors were recorded from nano's Go code and its JavaScript client.
"""

from __future__ import annotations

import json
import os
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message as ProtoMessage
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from twisted.trial.unittest import SynchronousTestCase

from fastway.dialect import (
    Answer,
    BadFrame,
    Event,
    FrameRefused,
    Hello,
    Kicked,
    Message,
    NotInDialect,
    NotLetIn,
    PeerSilent,
    Ready,
    Refused,
)
from fastway.dialect.pomelo import Pomelo, PomeloJson
from fastway.dialect.pomelo_packets import (
    ACK,
    CODED,
    DATA,
    GZIP,
    HANDSHAKE,
    HEARTBEAT,
    KICK,
    NOTIFY,
    PUSH,
    REQUEST,
    RESPONSE,
    TYPE,
    data_packet,
    packet,
    read_message,
    response_head,
    varint,
)
from fastway.dialect.pomelo_wires import (
    MAX_EARLY,
    MAX_HANDSHAKES,
    MAX_HEADS,
    MAX_HELD,
    PomeloClient,
    PomeloServer,
    Routes,
)
from fastway.formats import Bytes, Json, ProtocolBuffers
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised

with open(os.path.join(os.path.dirname(__file__), "vectors", "pomelo.json")) as file:
    VECTORS: dict[str, Any] = json.load(file)

KINDS = {"request": REQUEST, "notify": NOTIFY, "response": RESPONSE, "push": PUSH}
SHAKE, ACKED, BEAT = packet(HANDSHAKE), packet(ACK), packet(HEARTBEAT)
Wire = PomeloServer | PomeloClient


def raw(**settings: Any) -> Pomelo:
    return Pomelo(format=Bytes(), **settings)


def server(dialect: Pomelo | None = None, *, now: float = 0.0) -> PomeloServer:
    """A server's wire whose client is in."""
    wire = (dialect or raw()).server()
    wire.begin(now)
    assert type(wire.receive(SHAKE, now)[0]) is Hello
    wire.accept()
    assert wire.receive(ACKED, now) == [Ready()]
    wire.data_to_send()
    return wire


def client(dialect: Pomelo | None = None, *, now: float = 0.0, **said: Any) -> PomeloClient:
    """A client's wire that is in; `said` is of its server's `sys`."""
    wire = (dialect or raw()).client()
    wire.begin(now)
    assert wire.receive(welcome(**said), now) == [Ready()]
    wire.data_to_send()
    return wire


def welcome(code: int = 200, **said: Any) -> bytes:
    return packet(HANDSHAKE, json.dumps({"code": code, "sys": said}).encode())


def data(text: str) -> bytes:
    """A packet with a message, of hex."""
    return packet(DATA, bytes.fromhex(text))


def heard(wire: Wire, pieces: list[bytes]) -> list[Event]:
    """All events of pieces; whoever says Hello is let in."""
    events = []
    for piece in pieces:
        news = wire.receive(piece, 0.0)
        while news:
            events += news
            if type(news[-1]) is not Hello:
                break
            wire.accept()
            news = wire.receive(b"", 0.0)
    return events


def singly(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


class VectorTests(SynchronousTestCase):
    def test_packets(self) -> None:
        for vector in VECTORS["packets"]:
            written = b"".join(
                packet(kind, bytes.fromhex(body)) for kind, body in vector["packets"]
            )
            self.assertEqual(written.hex(), vector["bytes"], vector["name"])

    def test_messages_are_read(self) -> None:
        routes = Routes({}, VECTORS["dictionary"])
        for vector in VECTORS["messages"]:
            body = bytes.fromhex(vector["bytes"])
            # What is around it does not matter.
            args = (b"\xff" * 3 + body + b"\xff" * 3, 3, 3 + len(body), routes.codes, routes.names)
            if "error" in vector:
                raised(BadFrame, read_message, *args)
                continue
            flag, mid, route, payload = read_message(*args)
            self.assertEqual(
                (flag & TYPE, mid, route, payload),
                (
                    KINDS[vector["kind"]],
                    vector["mid"],
                    vector["route"],
                    vector["payload"].encode(),
                ),
                vector["name"],
            )

    def test_messages_are_written(self) -> None:
        for vector in VECTORS["messages"]:
            if not vector.get("written"):
                continue
            dictionary = VECTORS["dictionary"] if vector["coded"] else {}
            route, payload = vector["route"], vector["payload"].encode()
            ours = raw(dictionary=dictionary)
            match vector["kind"]:
                case "push":
                    written = server(ours).send(route, payload)
                case "response":
                    written = server(ours).reply(vector["mid"], payload)
                case "notify":
                    written = client(dict=dictionary).send(route, payload)
                case _:
                    head = Routes({}, dictionary).head(route)
                    start = bytes((head.request,)) + varint(vector["mid"])
                    written = data_packet(start + head.field, payload, 1000)
            self.assertEqual(written, data(vector["bytes"]), vector["name"])

    def test_mids(self) -> None:
        """Those of a client's own requests grow from 1 and are written as the vectors."""
        ours = client()
        for mid in range(1, 301):
            key, written = ours.request("room.join", b"{}")
            self.assertEqual(key, mid)
        self.assertEqual(written, data(VECTORS["messages"][3]["bytes"]))

    def talks(self) -> list[tuple[str, bytes, bytes]]:
        """What clients and servers said, for each connection."""
        found = []
        for talk in VECTORS["talks"]:
            for number in sorted({one[0] for one in talk["packets"]}):
                sides = [
                    bytes.fromhex("".join(p[2] for p in talk["packets"] if p[:2] == [number, who]))
                    for who in "CS"
                ]
                found.append((f"{talk['title']}, {number}", *sides))
        self.assertEqual(len(found), 6)
        return found

    def dictionary(self, said: bytes) -> dict[str, int]:
        head = json.loads(said[4 : 4 + int.from_bytes(said[1:4], "big")])
        facts: dict[str, Any] = head["sys"]
        self.time = facts["servertime"]
        return facts.get("dict", {})

    def test_talks_are_said(self) -> None:
        """What the peers said is understood, and what is understood is said in the same bytes."""
        for title, asked, answered in self.talks():
            dictionary = self.dictionary(answered)
            ours = raw(dictionary=dictionary, epoch=lambda: self.time)
            said = bytearray()
            ear, mouth = ours.server(), client(dict=dictionary)
            for event in heard(ear, [asked]):
                if isinstance(event, Hello):
                    said += packet(HANDSHAKE, event.data)
                elif isinstance(event, Ready):
                    said += ACKED
                elif isinstance(event, Message) and event.token is None:
                    said += mouth.send(event.route, event.body)
                elif isinstance(event, Message):
                    head = Routes({}, dictionary).head(event.route)
                    start = bytes((head.request,)) + varint(event.token)
                    said += data_packet(start + head.field, event.body, 1000)
            self.assertIsNone(ear.error)
            self.assertEqual(bytes(said), asked, title)

            said = bytearray(b"".join(ear.data_to_send()))
            back = ours.client()
            back.begin(0.0)
            back._asked.update(range(1, 301))
            for event in heard(back, [answered])[1:]:
                if isinstance(event, Answer):
                    said += ear.reply(event.key, event.body)
                elif isinstance(event, Message):
                    said += ear.send(event.route, event.body)
            self.assertIsNone(back.error)
            self.assertEqual(bytes(said), answered, title)

    def test_talks_in_pieces(self) -> None:
        """Byte by byte, and each packet in halves."""
        for title, asked, answered in self.talks():
            ours = raw(dictionary=self.dictionary(answered))
            for said, new in ((asked, ours.server), (answered, ours.client)):
                whole = heard(new(), [said])
                self.assertEqual(heard(new(), singly(said)), whole, title)
                thirds = [said[at : at + 3] for at in range(0, len(said), 3)]
                self.assertEqual(heard(new(), thirds), whole, title)

    def test_users(self) -> None:
        """Those that the recorded clients gave, and the body that came."""
        users = []
        for _, asked, _ in self.talks():
            (hello,) = raw().server().receive(asked, 0.0)
            assert isinstance(hello, Hello)
            users.append(hello.user)
            self.assertTrue(asked.startswith(packet(HANDSHAKE, hello.data)))
        self.assertEqual(users.count({"token": "t"}), 2)
        self.assertEqual(users.count(None), 4)


class StateTests(SynchronousTestCase):
    """What a server makes of each packet, in each of its states (spec nano.md 2.4)."""

    def states(self) -> dict[str, Callable[[], PomeloServer]]:
        def start() -> PomeloServer:
            wire = raw().server()
            wire.begin(0.0)
            return wire

        def handshake() -> PomeloServer:
            wire = start()
            wire.receive(SHAKE, 0.0)
            wire.accept()
            wire.data_to_send()
            return wire

        return {"start": start, "handshake": handshake, "working": server}

    def test_states(self) -> None:
        message = data("0201616869")
        nothing = ([], None)
        hello = ([Hello(None, b"")], None)
        closed = ([], BadFrame)
        table: dict[tuple[str, bytes], tuple[list[Event], type[Exception] | None]] = {
            ("start", SHAKE): hello,
            ("handshake", SHAKE): hello,
            ("working", SHAKE): hello,
            ("start", ACKED): closed,  # the hole of the Go code
            ("handshake", ACKED): ([Ready()], None),
            ("working", ACKED): nothing,
            ("start", message): closed,
            ("handshake", message): closed,
            ("working", message): ([Message("a", b"hi", Bytes())], None),
        }
        for state in self.states():
            table[state, BEAT] = table[state, packet(HEARTBEAT, b"body")] = nothing
            table[state, packet(KICK)] = nothing
        for (state, given_packet), (events, error) in table.items():
            wire = self.states()[state]()
            got = wire.receive(given_packet, 0.0)
            where = f"{state} {given_packet!r}"
            self.assertEqual([type(e) for e in got], [type(e) for e in events], where)
            self.assertEqual([e[:2] for e in got], [e[:2] for e in events], where)
            self.assertEqual(type(wire.error), error or type(None), where)

    def test_handshake_again(self) -> None:
        """Its data is refused until a new ack; it is ready all the while."""
        for data_first in (True, False):
            wire = server()
            self.assertEqual(wire.receive(SHAKE, 0.0), [Hello(None, b"")])
            wire.accept()
            self.assertTrue(wire.ready)
            self.assertTrue(wire.data_to_send()[0].startswith(b"\x01"))
            if data_first:
                wire.receive(data("020161"), 0.0)
                self.assertIsInstance(wire.error, BadFrame)
            else:
                # Ready is told once.
                news = wire.receive(ACKED + data("020161"), 0.0)
                self.assertEqual([type(one) for one in news], [Message])

    def test_handshakes_are_few(self) -> None:
        wire = raw().server()
        events = heard(wire, [SHAKE * (MAX_HANDSHAKES + 1)])
        self.assertEqual(len(events), MAX_HANDSHAKES)
        self.assertIn("handshakes", str(wire.error))

    def test_one_segment(self) -> None:
        """Handshake, ack and data come together, and are told in order, once it is let in."""
        wire = raw().server()
        segment = SHAKE + ACKED + data("0001016178")
        self.assertEqual([type(e) for e in wire.receive(segment, 0.0)], [Hello])
        self.assertEqual(wire.receive(b"", 0.0), [])
        self.assertEqual(wire.receive(BEAT, 0.0), [])
        wire.accept()
        self.assertEqual([type(e) for e in wire.receive(b"", 0.0)], [Ready, Message])

    def test_nothing_behind_hello(self) -> None:
        """Not even what is wrong; but it is seen afterwards."""
        wire = raw().server()
        wire.receive(SHAKE + b"\xff" * 9, 0.0)
        self.assertIsNone(wire.error)
        wire.accept()
        wire.receive(b"", 0.0)
        self.assertIsInstance(wire.error, BadFrame)

    def test_held_is_bounded(self) -> None:
        wire = raw(max_packet=128).server()
        wire.receive(SHAKE, 0.0)
        for _ in range(MAX_HELD // 1000):
            self.assertEqual(wire.receive(b"x" * 1000, 0.0), [])
            self.assertIsNone(wire.error)
        wire.receive(b"x" * 1000, 0.0)
        self.assertIn("too much", str(wire.error))

    def test_reject(self) -> None:
        """As nano: nothing is said; and nothing more is understood."""
        wire = raw().server()
        wire.begin(0.0)
        wire.receive(SHAKE + ACKED + data("020161"), 0.0)
        wire.reject(Refused(403, "no"))
        self.assertEqual(wire.data_to_send(), [])
        self.assertEqual(wire.receive(ACKED + data("020161"), 0.0), [])
        self.assertIsNone(wire.deadline)
        self.assertIsNone(wire.error)
        wire.accept()
        self.assertEqual(wire.data_to_send(), [])

    def test_accept_without_hello(self) -> None:
        wire = server()
        wire.accept()
        self.assertEqual(wire.data_to_send(), [])


class BadInputTests(SynchronousTestCase):
    """Rows of spec nano.md, 1.4 and 3.5: always an error, and nothing more."""

    BAD = {
        "type 0": b"\x00\x00\x00\x00",
        "type 6": b"\x06\x00\x00\x00",
        "type 0x84": b"\x84\x00\x00\x00",
        "65,537 bytes": bytes.fromhex("04010001"),
        "no body": packet(DATA),
        "one byte": data("02"),
        "type 4": data("0801"),
        "type 7": data("0e01"),
        "no route behind the mid": data("0001"),
        "route beyond the end": data("0205612e62"),
        "unknown code": data("03ffff78"),
        "half a code": data("0300"),
        "half a code of a request": data("010100"),
        "no code": data("0101"),
        "endless mid": data("04ffff"),
        "endless mid of a request": data("00ffff"),
        "mid of 11 bytes": data("00" + "80" * 10 + "0101610000"),
    }

    def test_each(self) -> None:
        good = data("02016178")
        for what, bad in self.BAD.items():
            for name, wire in (("server", server()), ("client", client())):
                told = good if name == "server" else data("06016178")
                # What came before is told, though it came in the same read; nothing behind is.
                events = wire.receive(told + bad + told, 0.0)
                self.assertEqual([type(e) for e in events], [Message], what)
                self.assertIsInstance(wire.error, BadFrame, what)
                self.assertNotIn("\n", str(wire.error))
                self.assertEqual(wire.receive(told, 0.0), [], what)
                self.assertIsNone(wire.deadline)

    def test_header_is_enough(self) -> None:
        """A packet that is too long is refused before any byte of its body."""
        wire = server()
        wire.receive(bytes.fromhex("040100"), 0.0)
        self.assertIsNone(wire.error)
        wire.receive(b"\x01", 0.0)
        self.assertIn("65537", str(wire.error))

    def test_limits(self) -> None:
        for limit in (128, 65536):
            wire = server(raw(max_packet=limit))
            body = b"\x02\x01a" + b"x" * (limit - 3)
            (event,) = wire.receive(packet(DATA, body), 0.0)
            assert isinstance(event, Message)
            self.assertEqual(len(event.body), limit - 3)
            wire.receive(packet(DATA, body + b"x"), 0.0)
            self.assertIsInstance(wire.error, BadFrame)

    def test_short_body_behind_its_header(self) -> None:
        """It is not kept until more comes, as the Go decoder has it."""
        wire = server()
        self.assertEqual(wire.receive(bytes.fromhex("04000002"), 0.0), [])
        (event,) = wire.receive(bytes.fromhex("0200"), 0.0)
        self.assertEqual(event[:2], ("", b""))

    def test_wrong_direction(self) -> None:
        """It is ignored, and the connection stays."""
        ours, theirs = server(), client()
        self.assertEqual(ours.receive(data("040161") + data("06016178"), 0.0), [])
        self.assertEqual(theirs.receive(data("0001016178") + data("02016178"), 0.0), [])
        self.assertEqual((ours.error, theirs.error), (None, None))

    def test_request_without_an_answer(self) -> None:
        """Mid 0 cannot be answered; other high bits of a flag mean nothing to nano."""
        wire = server()
        (event,) = wire.receive(data("f000016178"), 0.0)
        assert isinstance(event, Message)
        self.assertIsNone(event.token)

    def test_longest_mids(self) -> None:
        wire = server()
        (event,) = wire.receive(data("00" + "ff" * 9 + "7f" + "0161"), 0.0)
        assert isinstance(event, Message)
        self.assertEqual(event.token, 2**64 - 1)

    def test_route_that_is_no_text(self) -> None:
        """nano has no handler of that name, and says nothing."""
        wire = server()
        (event,) = wire.receive(data("0202ff6178"), 0.0)
        self.assertEqual(event[:2], ("\\xffa", b"x"))
        self.assertIsNone(wire.error)


class SendTests(SynchronousTestCase):
    def test_too_long(self) -> None:
        ours, theirs = server(), client()
        self.assertEqual(len(ours.send("a" * 255, b"")), 4 + 2 + 255)
        for send in (ours.send, theirs.send, theirs.request):
            self.assertIn("256", str(raised(FrameRefused, send, "a" * 256, b"")))
            self.assertIn("258", str(raised(FrameRefused, send, "é" * 129, b"")))
            raised(FrameRefused, send, "\ud800", b"")
            raised(FrameRefused, send, "a", b"x" * 65536)
        self.assertEqual(len(ours.reply(1, b"x" * 65534)), 4 + 65536)
        raised(FrameRefused, ours.reply, 1, b"x" * 65535)
        # A request that was not sent has no mid.
        self.assertEqual(theirs.request("a", b"")[0], 1)

    def test_24_bits(self) -> None:
        wire = server(raw(max_packet=0xFFFFFF))
        self.assertEqual(wire.reply(1, b"x" * 0xFFFFFD)[:4], b"\x04\xff\xff\xff")
        raised(FrameRefused, wire.reply, 1, b"x" * 0xFFFFFE)

    def test_no_bit_of_a_route(self) -> None:
        """A response has none, whatever the dictionary."""
        wire = server(raw(dictionary={"a": 1}))
        for mid in (1, 127, 128, 2**32):
            self.assertEqual(wire.reply(mid, b"x")[4] & CODED, 0)
            self.assertEqual(response_head(mid)[1:], varint(mid))

    def test_not_in_dialect(self) -> None:
        ours, theirs = server(), client()
        raised(NotInDialect, ours.request, "a", b"")
        for send in (ours.send, theirs.send, theirs.request):
            raised(NotInDialect, send, "a", b"", [("name", "value")])
        self.assertEqual(theirs.reply(1, b""), b"")
        self.assertEqual(theirs.refuse(1, Refused(1)), b"")
        self.assertEqual(theirs.kick(), b"")

    def test_shapes(self) -> None:
        """Wires of one port give the same bytes; those of another may not."""
        one, other = raw(), raw(dictionary={"a": 1})
        self.assertEqual(hash(server(one).shape), hash(server(one).shape))
        self.assertEqual(server(one).shape, server(one).shape)
        self.assertNotEqual(server(one).shape, server(other).shape)
        self.assertNotEqual(client(one).shape, client(one).shape)

    def test_heads_are_bounded(self) -> None:
        """An application may make routes up for ever."""
        dialect = raw()
        wire = server(dialect)
        for number in range(MAX_HEADS + 10):
            self.assertIn(b"%d" % number, wire.send(f"r{number}", b""))
        self.assertEqual(len(dialect._settings.routes.heads), MAX_HEADS)


class DialogueTests(SynchronousTestCase):
    """Our client and our server."""

    def pair(self, ours: Pomelo, theirs: Pomelo) -> tuple[PomeloServer, PomeloClient]:
        near, far = ours.server(), theirs.client()
        near.begin(0.0)
        far.begin(0.0)
        self.events: list[Event] = []
        for wire, other in ((far, near), (near, far), (far, near)):
            for unit in wire.data_to_send():
                self.events += heard(other, singly(unit))
        return near, far

    def test_all(self) -> None:
        for dictionary in ({}, {"join": 1, "on": 2}):
            user = {"name": "é😀", "n": [1]}
            ours = Pomelo(dictionary=dictionary, epoch=lambda: 1.9)
            near, far = self.pair(ours, Pomelo(user=user, client_version="1"))
            hello, ready, also = self.events
            assert isinstance(hello, Hello)
            self.assertEqual(hello.user, user)
            said = {"sys": {"type": "fastway", "version": "1"}, "user": user}
            self.assertEqual(json.loads(hello.data), said)
            self.assertEqual([ready, also], [Ready(), Ready()])
            self.assertTrue(near.ready and far.ready)

            key, asked = far.request("join", b"1")
            (event,) = near.receive(asked, 0.0)
            assert isinstance(event, Message)
            self.assertEqual(event[:2], ("join", b"1"))
            self.assertEqual(asked[4] & CODED, bool(dictionary))
            reply = near.reply(event.token, b"2")
            self.assertEqual(far.receive(reply, 0.0), [Answer(key, b"2", far.format)])
            # A second answer is to nothing.
            self.assertEqual(far.receive(reply, 0.0), [])

            (event,) = near.receive(far.send("say", b"3"), 0.0)
            self.assertEqual(event[:2], ("say", b"3"))
            self.assertIsNone(event.token)
            (event,) = far.receive(near.send("on", b"4"), 0.0)
            self.assertEqual(event[:2], ("on", b"4"))
            self.assertIsNone(event.token)

    def test_forget(self) -> None:
        near, far = self.pair(Pomelo(), Pomelo())
        key, _ = far.request("a", b"1")
        far.forget(key)
        far.forget(key)
        self.assertEqual(far.receive(near.reply(key, b"2"), 0.0), [])
        self.assertIsNone(far.error)

    def test_user_back(self) -> None:
        ours = Pomelo(epoch=lambda: 1700000000.5)
        near, far = ours.server(), Pomelo(user=lambda: "later").client()
        near.begin(0.0)
        far.begin(0.0)
        (hello,) = near.receive(b"".join(far.data_to_send()), 0.0)
        assert isinstance(hello, Hello)
        self.assertEqual(hello.user, "later")
        near.accept({"name": "é"})
        (reply,) = near.data_to_send()
        self.assertEqual(
            reply[4:],
            b'{"code":200,"sys":{"heartbeat":30,"servertime":1700000000},'
            b'"user":{"name":"\\u00e9"}}',
        )
        self.assertEqual(far.receive(reply, 0.0), [Ready({"name": "é"})])

    def test_user_too_large(self) -> None:
        wire = Pomelo(max_packet=128).server()
        wire.receive(SHAKE, 0.0)
        raised(FrameRefused, wire.accept, "x" * 100)
        far = Pomelo(max_packet=128, user="x" * 100).client()
        raised(FrameRefused, far.begin, 0.0)

    def test_heartbeat_is_told(self) -> None:
        for seconds, said in ((30.0, b'"heartbeat":30,'), (0.5, b'"heartbeat":0.5,')):
            wire = Pomelo(heartbeat=seconds).server()
            wire.receive(SHAKE, 0.0)
            wire.accept()
            self.assertIn(said, wire.data_to_send()[0])

    def test_kick(self) -> None:
        reasons: list[Any] = [None, "dup", "é", 3, ["a"], {"code": 1}, {"reason": 1, "more": 2}]
        near, far = self.pair(Pomelo(), Pomelo())
        for reason in reasons:
            said = near.kick(reason)
            self.assertIsInstance(json.loads(said[4:]), dict)
            self.assertTrue(said.isascii())
            self.assertEqual(far.receive(said, 0.0), [Kicked(reason)])
        self.assertEqual(near.kick("dup").hex(), VECTORS["packets"][6]["bytes"])
        # Others kick without a word, or not in JSON.
        self.assertEqual(far.receive(packet(KICK), 0.0), [Kicked()])
        self.assertEqual(far.receive(packet(KICK, b"b\xff"), 0.0), [Kicked("b\ufffd")])

    def test_names(self) -> None:
        names = {"room.join": "Join"}
        ours, theirs = raw(names=names, dictionary={"Join": 7}), raw(names=names)
        near, far = self.pair(ours, theirs)
        _, asked = far.request("room.join", b"x")
        self.assertEqual(asked, data("0101000778"))
        self.assertEqual(near.receive(asked, 0.0)[0][0], "room.join")
        plain = server(theirs)
        self.assertEqual(plain.receive(data("02044a6f696e"), 0.0)[0][0], "room.join")
        self.assertEqual(plain.send("room.join", b"x"), data("06044a6f696e78"))
        self.assertEqual(
            (ours.wire_name("room.join"), ours.app_name("Join")), ("Join", "room.join")
        )
        self.assertEqual((ours.wire_name("a"), ours.app_name("a")), ("a", "a"))
        self.assertEqual(near.receive(data("02016178"), 0.0)[0][:2], ("a", b"x"))
        raised(NotInDialect, ours.wire_name, "é" * 128)

    def test_silent_refusals(self) -> None:
        self.assertEqual(server(Pomelo()).refuse(1, Refused(403, "no")), b"")

    def test_told_refusals(self) -> None:
        wire = server(Pomelo(refusals="reply"))
        self.assertEqual(wire.refuse(1, Refused(403, "nö"))[6:], b'{"code":403,"msg":"n\\u00f6"}')
        # There is no message for it in other formats.
        self.assertEqual(server(raw(refusals="reply")).refuse(1, Refused(403, "no")), b"")

    def test_told_rejections(self) -> None:
        for code, told in ((403, 500), (501, 501)):
            near, far = Pomelo(refusals="reply").server(), Pomelo().client()
            near.receive(SHAKE, 0.0)
            near.reject(Refused(code, "no"))
            (said,) = near.data_to_send()
            self.assertEqual(json.loads(said[4:])["code"], told)
            far.begin(0.0)
            self.assertEqual(far.receive(said, 0.0), [])
            assert isinstance(far.error, NotLetIn)
            self.assertEqual((far.error.refused.code, far.error.refused.text), (code, "no"))

    def test_empty_in_json(self) -> None:
        """It is null: the JavaScript clients cannot take nothing at all, and Go drops it."""
        near, far = self.pair(Pomelo(), Pomelo())
        self.assertEqual(near.reply(1, b"")[6:], b"null")
        self.assertTrue(near.send("on", b"").endswith(b"null"))
        key, asked = far.request("a", b"")
        self.assertTrue(asked.endswith(b"null"))
        # nano's own is taken.
        (answer,) = far.receive(data("0401"), 0.0)
        self.assertEqual(answer, Answer(key, b"", far.format))
        self.assertIsNone(far.format.decode(b""))
        self.assertEqual(server().reply(1, b""), data("0401"))

    def test_memory(self) -> None:
        """An idle wire takes little."""
        dialect = Pomelo()
        server(dialect)
        tracemalloc.start()
        try:
            wires = [server(dialect) for _ in range(100)]
            size = tracemalloc.get_traced_memory()[0] / len(wires)
        finally:
            tracemalloc.stop()
        self.assertLess(size, 400)


class ClientTests(SynchronousTestCase):
    def test_greeting(self) -> None:
        wire = Pomelo(client_type="js-websocket", client_version="0.0.1").client()
        wire.begin(0.0)
        (said,) = wire.data_to_send()
        self.assertEqual(
            json.loads(said[4:]), {"sys": {"type": "js-websocket", "version": "0.0.1"}}
        )
        self.assertFalse(wire.ready)
        self.assertIsNone(wire.deadline)

    def test_old_server(self) -> None:
        """nano 0.5.0 tells no dictionary, and uses one: so does a client that has it."""
        ours = raw(dictionary={"on": 2})
        wire = client(ours, heartbeat=30)
        self.assertEqual(wire.receive(data("07000278"), 0.0)[0][:2], ("on", b"x"))
        self.assertEqual(wire.send("on", b""), data("030002"))
        # What a server tells is all that there is.
        told = client(ours, heartbeat=30, dict={})
        self.assertEqual(told.send("on", b""), data("02026f6e"))

    def test_early_pushes(self) -> None:
        """nano does not wait for the handshake."""
        wire = raw().client()
        wire.begin(0.0)
        self.assertEqual(wire.receive(BEAT + data("06016178"), 0.0), [])
        self.assertIsNone(wire.deadline)
        events = wire.receive(welcome() + data("060162"), 0.0)
        self.assertEqual(
            [(type(e), *e[:1]) for e in events], [(Ready, None), (Message, "a"), (Message, "b")]
        )
        self.assertEqual(wire.data_to_send()[1:], [ACKED])

    def test_early_pushes_are_few(self) -> None:
        wire = raw().client()
        wire.receive(data("060161") * MAX_EARLY, 0.0)
        self.assertIsNone(wire.error)
        wire.receive(data("060161"), 0.0)
        self.assertIsInstance(wire.error, BadFrame)

    def test_handshake_again(self) -> None:
        """What it says counts; it is ready only once."""
        wire = client()
        self.assertEqual(wire.receive(welcome(dict={"a": 1}), 0.0), [])
        self.assertEqual(wire.data_to_send(), [ACKED])
        self.assertEqual(wire.send("a", b""), data("030001"))

    def test_not_let_in(self) -> None:
        cases = ((500, 500, ""), (501, 501, "this client is too old for it"), (None, 0, ""))
        for code, told, text in cases:
            wire = raw().client()
            said = packet(HANDSHAKE, json.dumps({"code": code}).encode())
            self.assertEqual(wire.receive(said, 0.0), [])
            assert isinstance(wire.error, NotLetIn)
            self.assertEqual((wire.error.refused.code, wire.error.refused.text), (told, text))

    def test_lies(self) -> None:
        bodies: list[Any] = [
            b"",
            b"{",
            b"[]",
            b'"a"',
            b"\xff",
            b"[" * 60000,
            {"code": 200, "sys": {"dict": []}},
            {"code": 200, "sys": {"dict": "a"}},
            {"code": 200, "sys": {"dict": {"a": -1}}},
            {"code": 200, "sys": {"dict": {"a": 65536}}},
            {"code": 200, "sys": {"dict": {"a": 10**400}}},
            {"code": 200, "sys": {"dict": {"a": "1"}}},
            {"code": 200, "sys": {"dict": {"a": True}}},
        ]
        for body in bodies:
            said = body if isinstance(body, bytes) else json.dumps(body).encode()
            wire = raw().client()
            self.assertEqual(wire.receive(packet(HANDSHAKE, said), 0.0), [], body)
            self.assertIsInstance(wire.error, BadFrame)

    def test_odd_but_understood(self) -> None:
        """What cannot be used is as if it were not there."""
        for facts in ([], None, {"heartbeat": "x"}, {"heartbeat": -1}, {"heartbeat": True}):
            wire = raw().client()
            said = packet(HANDSHAKE, json.dumps({"code": 200, "sys": facts}).encode())
            self.assertEqual(wire.receive(said, 5.0), [Ready()])
            self.assertIsNone(wire.deadline)
        wire = client(heartbeat=10**300)
        assert wire.deadline is not None
        self.assertLess(wire.deadline, 1e6)


class StarxClient:
    """The rules of the JavaScript client's heartbeats, in our words."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.send_at = self.check_at = self.lost_at = float("inf")
        self.sent: list[float] = []
        self.lost = False

    def heard(self, now: float) -> None:
        self.check_at = float("inf")
        if self.send_at == float("inf"):
            self.send_at = now + self.interval
        self.lost_at = now + 2 * self.interval

    def tick(self, now: float) -> bool:
        """Whether it sends."""
        if now >= self.check_at:
            self.lost = self.lost_at - now <= 0.1
            self.check_at = self.lost_at
        if now < self.send_at:
            return False
        self.send_at = float("inf")
        self.lost_at = self.check_at = now + 2 * self.interval
        self.sent.append(now)
        return True


class HeartbeatTests(SynchronousTestCase):
    """Spec nano.md 2.5."""

    def ticks(self, wire: Wire, until: float, start: float = 0.0) -> list[float]:
        """The times of heartbeats, where nothing comes."""
        beats = []
        while wire.deadline is not None and wire.deadline <= until:
            now = wire.deadline
            wire.tick(now)
            beats += [now - start for unit in wire.data_to_send() if unit == BEAT]
        return beats

    def test_idle_client(self) -> None:
        """It is told at H and 2 H, and ends at 3 H, whatever its state."""
        for interval in (0.1, 0.5, 1.0, 30.0):
            for begun in (0.0, 1234.5):
                waiting = raw(heartbeat=interval).server()
                waiting.begin(begun)
                ready = server(raw(heartbeat=interval), now=begun)
                for wire in (waiting, ready):
                    beats = self.ticks(wire, begun + 99 * interval, begun)
                    self.assertEqual(len(beats), 2)
                    self.assertAlmostEqual(beats[0], interval)
                    self.assertAlmostEqual(beats[1], 2 * interval)
                    assert isinstance(wire.error, PeerSilent)
                    self.assertAlmostEqual(wire.error.seconds, 3 * interval)
                    self.assertIsNone(wire.deadline)

    def test_two_intervals(self) -> None:
        """A client that beats every 2 H lives; one that takes 3 H does not."""
        for every, alive in ((1, True), (2, True), (3, False)):
            wire = server(raw(heartbeat=30))
            for tick in range(1, 41):
                wire.tick(tick * 30.0)
                if tick % every == 0:
                    wire.receive(BEAT, tick * 30.0)
            self.assertEqual(wire.error is None, alive)

    def test_just_before_and_behind(self) -> None:
        for silence, alive in ((74.9, True), (75.1, False)):
            wire = server(raw(heartbeat=30))
            wire.receive(BEAT, 90.0 - silence)
            for tick in (30.0, 60.0, 90.0):
                wire.tick(tick)
            self.assertEqual(wire.error is None, alive)

    def test_what_counts(self) -> None:
        """Any packet; not a part of one."""
        for said, alive in (
            (BEAT, True),
            (packet(KICK), True),
            (data("0001016178"), True),
            (b"\x03\x00\x00", False),
        ):
            wire = server(raw(heartbeat=30))
            for tick in (30.0, 60.0, 90.0):
                wire.tick(tick)
                if tick == 60.0:
                    wire.receive(said, 61.0)
            self.assertEqual(wire.error is None, alive, said)

    def test_not_while_it_is_decided(self) -> None:
        """Whoever waits to be let in is not read from, so it cannot give a sign."""
        wire = raw(heartbeat=1).server()
        wire.begin(0.0)
        wire.receive(SHAKE, 0.0)
        self.assertEqual(len(self.ticks(wire, 10.0)), 10)
        wire.accept()
        wire.receive(b"", 10.0)
        self.assertEqual(len(self.ticks(wire, 20.0)), 2)
        self.assertIsInstance(wire.error, PeerSilent)

    def test_late_tick(self) -> None:
        """Ticks that nobody made are left out; the next one is where it would be."""
        wire = server(raw(heartbeat=1))
        wire.tick(0.5)
        self.assertEqual(wire.data_to_send(), [])
        wire.receive(BEAT, 1.5)
        wire.tick(2.25)
        self.assertEqual(wire.data_to_send(), [BEAT])
        self.assertEqual(wire.deadline, 3.0)

    def test_none(self) -> None:
        wire = server(raw(heartbeat=0))
        self.assertIsNone(wire.deadline)
        wire.tick(1e9)
        self.assertEqual(wire.data_to_send(), [])
        self.assertIsNone(client(heartbeat=0).deadline)
        quiet = client()
        self.assertEqual(quiet.receive(BEAT, 1.0), [])
        self.assertIsNone(quiet.deadline)

    def test_client_answers(self) -> None:
        """An interval later, once for all that came meanwhile."""
        wire = client(heartbeat=1)
        wire.receive(BEAT, 0.25)
        wire.receive(BEAT, 0.75)
        self.assertEqual(wire.deadline, 1.25)
        wire.tick(1.0)
        self.assertEqual(wire.data_to_send(), [])
        wire.tick(1.25)
        self.assertEqual(wire.data_to_send(), [BEAT])
        self.assertEqual(wire.deadline, 3.25)

    def test_silent_server(self) -> None:
        """Two intervals behind the last packet, of whatever type."""
        wire = client(heartbeat=1)
        self.assertEqual(wire.deadline, 2.0)
        wire.receive(data("060161"), 1.5)
        self.assertEqual(wire.deadline, 2.0)
        wire.tick(2.0)
        self.assertIsNone(wire.error)
        self.assertEqual(wire.deadline, 3.5)
        wire.tick(3.5)
        assert isinstance(wire.error, PeerSilent)
        self.assertEqual(wire.error.seconds, 2.0)
        self.assertIsNone(wire.deadline)

    def test_both(self) -> None:
        """Our two ends keep each other for 20 intervals, and neither sends more than one each."""
        for interval in (0.1, 1.0, 30.0):
            near, far = server(raw(heartbeat=interval)), client(heartbeat=interval)
            beats: dict[str, int] = {"near": 0, "far": 0}
            while True:
                now = min(near.deadline or 1e9, far.deadline or 1e9)
                if now > 20.5 * interval:
                    break
                for name, wire, other in (("near", near, far), ("far", far, near)):
                    if wire.deadline is not None and wire.deadline <= now:
                        wire.tick(now)
                    for unit in wire.data_to_send():
                        beats[name] += 1
                        other.receive(unit, now)
                self.assertEqual((near.error, far.error), (None, None))
            self.assertEqual(beats["near"], 20)
            self.assertIn(beats["far"], range(9, 21))

    def test_with_starx(self) -> None:
        """The JavaScript client lives with our server, whatever its clock is behind."""
        for shift in (0.0, 0.3, 0.95):
            near, peer = server(raw(heartbeat=1)), StarxClient(1.0)
            for step in range(20 * 20):
                now = step / 20
                near.tick(now)
                for _ in near.data_to_send():
                    peer.heard(now + shift)
                if peer.tick(now):
                    near.receive(BEAT, now)
                self.assertIsNone(near.error)
                self.assertFalse(peer.lost)
            self.assertGreaterEqual(len(peer.sent), 9)


class JsonTests(SynchronousTestCase):
    def test_ascii(self) -> None:
        form = PomeloJson()
        for text in ("é", "消息", "😀", "a😀b\U0010ffffc", "<&>", '"\\\n', "\x7f\u2028"):
            written = form.encode({text: [text]})
            self.assertTrue(written.isascii())
            self.assertEqual(json.loads(written), {text: [text]})
            self.assertEqual(form.decode(written), {text: [text]})
        self.assertEqual(form.encode("😀é"), b'"\\ud83d\\ude00\\u00e9"')

    @DETERMINISTIC
    @given(st.text())
    def test_any_text(self, text: str) -> None:
        form = PomeloJson()
        self.assertEqual(form.decode(form.encode(text)), text)
        # As the JavaScript client writes it: each unit of UTF-16 by itself.
        units = text.encode("utf-16-le")
        pairs = (units[at : at + 2] for at in range(0, len(units), 2))
        single = b"".join(
            unit.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")
            for unit in pairs
        )
        if not set(text) & set('"\\') and all(one >= " " for one in text):
            self.assertEqual(form.decode(b'"' + single + b'"'), text)

    def test_not_mended(self) -> None:
        """Half a pair is no character, nor are other broken bytes."""
        form = PomeloJson()
        for bad in (b'"\xed\xa0\xbd"', b'"\xed\xb8\x80\xed\xa0\xbd"', b'"\xff"', b"{", b"nul"):
            raised(ValueError, form.decode, bad)

    def test_types(self) -> None:
        class Line(Struct):
            name: str

        form = PomeloJson()
        self.assertEqual(form.decode(form.encode(Line("é")), Line), Line("é"))
        broken = b'{"name":"\xed\xa0\xbd\xed\xb8\x80"}'
        self.assertEqual(form.decode(broken, Line), Line("😀"))
        raised(ValueError, form.decode, b'{"name":1}', Line)
        self.assertIsNone(form.decode(b""))


class PitayaTests(SynchronousTestCase):
    def pair(self, **settings: Any) -> tuple[PomeloServer, PomeloClient]:
        ours = Pomelo(profile="pitaya", **settings)
        return server(ours), client(ours)

    def refused(self, wire: PomeloClient, said: bytes) -> Refused:
        wire._asked.add(1)
        (answer,) = wire.receive(said, 0.0)
        assert isinstance(answer, Answer) and answer.refused is not None
        self.assertEqual(answer.key, 1)
        return answer.refused

    def test_handshake(self) -> None:
        formats: tuple[tuple[Any, bytes], ...] = (
            (None, b"json"),
            (ProtocolBuffers(ProtoMessage), b"protobuf"),
        )
        for form, name in formats:
            wire = Pomelo(profile="pitaya", format=form, epoch=lambda: 5).server()
            wire.receive(SHAKE, 0.0)
            wire.accept()
            self.assertEqual(
                wire.data_to_send()[0][4:],
                b'{"code":200,"sys":{"heartbeat":30,"serializer":"%b","servertime":5}}' % name,
            )

    def test_compressed_handshake(self) -> None:
        """pitaya compresses its answer and says so nowhere."""
        said = b'{"code":200,"sys":{"dict":{"a":1},"heartbeat":30}}'
        for packed in (zlib.compress(said), _gzip(said)):
            wire = Pomelo(profile="pitaya").client()
            self.assertEqual(wire.receive(packet(HANDSHAKE, packed), 0.0), [Ready()])
            self.assertEqual(wire.send("a", b"1"), data("03000131"))
            nano = Pomelo().client()
            nano.receive(packet(HANDSHAKE, packed), 0.0)
            self.assertIsInstance(nano.error, BadFrame)

    def test_errors(self) -> None:
        formats: tuple[Any, ...] = (None, Bytes(), ProtocolBuffers(ProtoMessage))
        for form in formats:
            near, far = self.pair(format=form)
            for code, text in ((403, "nö"), (7, ""), (1001, "own"), (500, "x" * 300)):
                said = near.refuse(1, Refused(code, text))
                self.assertEqual(said[4], RESPONSE | 0x20)
                refused = self.refused(far, said)
                self.assertEqual((refused.code, refused.text), (code, text))
        self.assertEqual(
            near.refuse(1, Refused(404, "no")), data("2401" + "0a075049542d343034" + "12026e6f")
        )
        self.assertEqual(
            self.pair()[0].refuse(300, Refused(404, "no")),
            data("24ac02" + b'{"code":"PIT-404","msg":"no"}'.hex()),
        )

    def test_errors_of_others(self) -> None:
        """Whatever is in an answer that is an error, it is one."""
        cases = (
            (b'{"code":"PIT-000","msg":"m"}', 0, "m"),
            (b'{"code":"ROOM-FULL","msg":"m"}', 500, "ROOM-FULL: m"),
            (b'{"code":404,"msg":"m","metadata":{"a":"b"}}', 404, "m"),
            (b"", 500, "an error that is not understood"),
            (b"\xff", 500, "an error that is not understood"),
            (b"[]", 500, "an error that is not understood"),
        )
        for body, code, text in cases:
            refused = self.refused(self.pair()[1], packet(DATA, b"\x24\x01" + body))
            self.assertEqual((refused.code, refused.text), (code, text))
        far = self.pair(format=ProtocolBuffers(ProtoMessage))[1]
        whole = bytes.fromhex("0a075049542d34303412026e6f")
        more = whole + bytes.fromhex("1a060a0161120162")
        self.assertEqual(self.refused(far, packet(DATA, b"\x24\x01" + more)).code, 404)
        for bad in [whole[:at] for at in (1, 2, 5, 10, 11)] + [b"\x0a" + b"\xff" * 9, b"\x08\x01"]:
            self.assertEqual(self.refused(far, packet(DATA, b"\x24\x01" + bad)).code, 500)

    def test_nano_has_no_such_bits(self) -> None:
        far = client()
        far.request("a", b"")
        self.assertEqual(far.receive(data("34017878"), 0.0), [Answer(1, b"xx", far.format)])
        self.assertEqual(server().receive(data("3201617878"), 0.0)[0][:2], ("a", b"xx"))

    def test_compressed(self) -> None:
        near, far = self.pair(compress=True)
        long, short = b'"' + b"x" * 5000 + b'"', b'"x"'
        for body, packed in ((long, GZIP), (short, 0)):
            said = near.send("on", body)
            self.assertEqual(said[4], PUSH | packed)
            self.assertEqual(far.receive(said, 0.0)[0][:2], ("on", body))
            _, said = far.request("ask", body)
            self.assertEqual(said[4], REQUEST | packed)
            self.assertEqual(near.receive(said, 0.0)[0][:2], ("ask", body))
        self.assertLess(len(near.send("on", long)), 200)
        self.assertEqual(near.reply(1, b"")[6:], b"null")
        gzipped = packet(DATA, bytes((NOTIFY | GZIP, 1)) + b"a" + _gzip(long))
        self.assertEqual(near.receive(gzipped, 0.0)[0][1], long)

    def test_compressed_refusal(self) -> None:
        near, far = self.pair(compress=True)
        said = near.refuse(1, Refused(400, "x" * 1000))
        self.assertEqual(said[4], RESPONSE | 0x30)
        self.assertEqual(self.refused(far, said).text, "x" * 1000)

    def test_bombs(self) -> None:
        """They are errors, and never in memory."""
        bomb = zlib.compress(b"x" * 50_000_000)
        self.assertLess(len(bomb), 65000)
        head = bytes((NOTIFY | GZIP, 1)) + b"a"
        good = zlib.compress(b"hello" * 100)
        for what in (bomb, good[:-1], good[:9], b"", b"hello", good[:10] + b"\0\0\0" + good[13:]):
            near = self.pair()[0]
            tracemalloc.start()
            try:
                self.assertEqual(near.receive(packet(DATA, head + what), 0.0), [])
                self.assertLess(tracemalloc.get_traced_memory()[1], 1_000_000)
            finally:
                tracemalloc.stop()
            self.assertIsInstance(near.error, BadFrame)
        near = server(Pomelo(profile="pitaya", max_packet=500))
        self.assertEqual(len(near.receive(packet(DATA, head + good), 0.0)), 1)
        near = server(Pomelo(profile="pitaya", max_packet=499))
        self.assertEqual(near.receive(packet(DATA, head + good), 0.0), [])

    def test_not_for_us(self) -> None:
        """What is of the wrong direction is not even inflated."""
        near, far = self.pair()
        self.assertEqual(near.receive(packet(DATA, b"\x16\x01axx"), 0.0), [])
        self.assertIsNone(near.error)
        self.assertEqual(far.receive(packet(DATA, b"\x12\x01axx"), 0.0), [])
        self.assertIsNone(far.error)

    def test_reject(self) -> None:
        near, far = Pomelo(profile="pitaya").server(), Pomelo(profile="pitaya").client()
        near.receive(SHAKE, 0.0)
        near.reject(Refused(403, "no"))
        (said,) = near.data_to_send()
        self.assertEqual(json.loads(said[4:])["code"], 400)
        far.receive(said, 0.0)
        assert isinstance(far.error, NotLetIn)
        self.assertEqual(far.error.refused.code, 403)
        silent = Pomelo(profile="pitaya", refusals="silent")
        self.assertEqual(server(silent).refuse(1, Refused(1)), b"")


def _gzip(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=31)
    return stream.compress(body) + stream.flush()


class SettingsTests(SynchronousTestCase):
    def test_wrong(self) -> None:
        cases: list[tuple[str, dict[str, Any]]] = [
            ("profile", {"profile": "x"}),
            ("refusals", {"refusals": "x"}),
            ("compress", {"compress": True}),
            ("heartbeat", {"heartbeat": -1}),
            ("heartbeat", {"heartbeat": float("nan")}),
            ("heartbeat", {"heartbeat": float("inf")}),
            ("max_packet", {"max_packet": 127}),
            ("max_packet", {"max_packet": 1 << 24}),
            ("dictionary", {"dictionary": {"a": -1}}),
            ("dictionary", {"dictionary": {"a": 65536}}),
            ("dictionary", {"dictionary": {"a": "1"}}),
            ("dictionary", {"dictionary": {"a": True}}),
            ("dictionary", {"dictionary": {"a": 1, "b": 1}}),
            ("dictionary", {"dictionary": {"": 1}}),
            ("dictionary", {"dictionary": {" a": 1}}),
            ("dictionary", {"dictionary": {"a" * 256: 1}}),
            ("dictionary", {"dictionary": {f"route.{n}": n for n in range(5000)}}),
            ("names", {"names": {"a": "x", "b": "x"}}),
            ("names", {"names": {"a": "x" * 256}}),
        ]
        for name, settings in cases:
            self.assertTrue(str(raised(ValueError, Pomelo, **settings)).startswith(name), settings)

    def test_facts(self) -> None:
        dialect = Pomelo(max_packet=200)
        self.assertEqual((dialect.name, dialect.max_frame, dialect.concurrent), ("pomelo", 204, 1))
        rules = dialect.websocket
        assert rules is not None
        self.assertEqual((rules.text, rules.whole), (False, False))
        self.assertEqual(rules.takes, {"text", "binary"})

    def test_formats(self) -> None:
        body = ProtocolBuffers(StringValue)
        wire = server(Pomelo(format=body))
        (event,) = wire.receive(data("020161" + "0a026869"), 0.0)
        assert isinstance(event, Message)
        self.assertEqual(event.format.decode(event.body).value, "hi")
        self.assertIs(wire.format, body)
        self.assertEqual(wire.reply(1, b""), data("0401"))
        self.assertEqual(server(Pomelo(format=Json())).reply(1, b""), data("04016e756c6c"))


def packets() -> st.SearchStrategy[bytes]:
    """Packets that are right, nearly right, or nothing."""
    body = st.binary(max_size=12)
    flags = st.integers(0, 255).map(lambda flag: bytes((flag,)))
    message = st.tuples(flags, body).map(b"".join)
    right = st.sampled_from([data("0001016178"), data("02016178"), data("06016178")])
    return st.one_of(
        st.sampled_from([SHAKE, ACKED, BEAT, packet(KICK), welcome(heartbeat=1, dict={"a": 1})]),
        right,
        message.map(lambda one: packet(DATA, one)),
        st.tuples(st.integers(1, 5), body).map(lambda one: packet(*one)),
        st.binary(max_size=6),
    )


class AnyBytesTests(SynchronousTestCase):
    def new(self, at_server: bool, profile: str) -> Wire:
        ours = Pomelo(profile=profile, dictionary={"a": 1})
        wire = ours.server() if at_server else ours.client()
        wire.begin(0.0)
        if isinstance(wire, PomeloClient):
            wire._asked.update(range(200))
        return wire

    @DETERMINISTIC
    @given(
        st.lists(packets(), max_size=12).map(b"".join),
        st.lists(st.integers(0, 1000), max_size=6),
        st.booleans(),
        st.sampled_from(["nano", "pitaya"]),
    )
    def test_any(self, said: bytes, places: list[int], at_server: bool, profile: str) -> None:
        """Nothing but `error`, and the same in any pieces."""
        results = []
        for pieces in ([said], cut(said, places), singly(said)):
            wire = self.new(at_server, profile)
            events = heard(wire, pieces)
            wire.tick(1.0)
            results.append(
                (
                    [(type(event), _plain(event)) for event in events],
                    str(wire.error),
                    wire.ready,
                    [unit for unit in wire.data_to_send() if unit[:1] != b"\x01"],
                )
            )
            if wire.error is not None:
                self.assertIsInstance(wire.error, BadFrame | NotLetIn)
        self.assertEqual(results[0], results[1])
        self.assertEqual(results[0], results[2])

    @DETERMINISTIC
    @given(st.binary(max_size=300))
    def test_noise(self, said: bytes) -> None:
        for wire in (server(), client(), server(Pomelo(profile="pitaya"))):
            heard(wire, [said])

    verbs = st.lists(
        st.tuples(
            st.sampled_from(["send", "request", "push"]),
            st.sampled_from(["a", "room.join", "消息", "x" * 255, ""]),
            st.binary(max_size=40),
        ),
        max_size=12,
    )

    @DETERMINISTIC
    @given(verbs, st.lists(st.integers(0, 4000), max_size=8), st.booleans(), st.booleans())
    def test_both_ends(
        self, verbs: list[Any], places: list[int], coded: bool, packed: bool
    ) -> None:
        """What one end says is what the other one hears, in order, however it is cut."""
        ours = Pomelo(
            format=Bytes(),
            dictionary={"a": 1, "room.join": 2} if coded else {},
            profile="pitaya" if packed else "nano",
            compress=packed,
        )
        near, far = server(ours), client(ours, dict={"a": 1, "room.join": 2} if coded else {})
        up, down, asked, pushed = b"", b"", [], []
        for verb, route, body in verbs:
            if verb == "push":
                down += near.send(route, body)
                pushed.append((route, body))
            elif verb == "send":
                up += far.send(route, body)
                asked.append((route, body, None))
            else:
                key, said = far.request(route, body)
                up += said
                asked.append((route, body, key))
        events = heard(near, cut(up, places))
        self.assertEqual([(e.route, e.body, e.token) for e in events], asked)  # type: ignore[union-attr]
        for event in events:
            if isinstance(event, Message) and event.token is not None:
                down += near.reply(event.token, event.body)
                pushed.append((event.token, event.body))
        self.assertEqual([e[:2] for e in heard(far, cut(down, places))], pushed)
        self.assertEqual((near.error, far.error), (None, None))

    def test_linear(self) -> None:
        """Many packets in a read, and one packet in many reads."""
        started = time.monotonic()
        wire = server()
        self.assertEqual(wire.receive(BEAT * 250_000, 0.0), [])
        long = packet(DATA, b"\x02\x01a" + b"x" * 65533)
        self.assertEqual(len(heard(wire, singly(long))), 1)
        held = raw().server()
        heard(held, [SHAKE])
        held.receive(SHAKE, 0.0)
        for _ in range(20_000):
            held.receive(b"\0" * 10, 0.0)
        self.assertIsNone(held.error)
        self.assertLess(time.monotonic() - started, 5)


def _plain(event: Event) -> Any:
    """What can be compared: a Refused only by what it says."""
    if isinstance(event, Answer):
        return event.key, event.body, str(event.refused)
    return event[:2]

"""Tests of fastway.dialect.pomelo: the vectors of nano and its clients, states, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fastway.dialect import (
    Answer,
    BadFrame,
    FrameRefused,
    Hello,
    Message,
    NotInDialect,
    Ready,
    Refused,
)
from fastway.dialect.pomelo_packets import (
    CODED,
    DATA,
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
from fastway.dialect.pomelo_routes import MAX_HEADS, Routes
from fastway.dialect.pomelo_wires import MAX_HANDSHAKES, MAX_HELD, PomeloServer
from fastway.formats import Bytes
from tests.support.errors import raised
from tests.support.pomelo import (
    ACKED,
    BEAT,
    SHAKE,
    VECTORS,
    client,
    data,
    heard,
    raw,
    server,
    singly,
)

KINDS = {"request": REQUEST, "notify": NOTIFY, "response": RESPONSE, "push": PUSH}


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
                asked, answered = (
                    bytes.fromhex("".join(p[2] for p in talk["packets"] if p[:2] == [number, who]))
                    for who in "CS"
                )
                found.append((f"{talk['title']}, {number}", asked, answered))
        self.assertEqual(len(found), 6)
        return found

    def dictionary(self, said: bytes) -> dict[str, int]:
        head = json.loads(said[4 : 4 + int.from_bytes(said[1:4], "big")])
        facts: dict[str, Any] = head["sys"]
        self.time = facts["servertime"]
        dictionary: dict[str, int] = facts.get("dict", {})
        return dictionary

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
        nothing: tuple[list[Any], Any] = ([], None)
        hello: tuple[list[Any], Any] = ([Hello(None, b"")], None)
        closed: tuple[list[Any], Any] = ([], BadFrame)
        table: dict[tuple[str, bytes], tuple[list[Any], Any]] = {
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

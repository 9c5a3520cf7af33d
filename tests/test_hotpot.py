"""Tests of fastway.dialect.hotpot: the vectors of the Go server, envelopes, bad input, time."""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any
from unittest import mock

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.dialect import (
    BadFrame,
    Dialect,
    FrameRefused,
    Message,
    NotInDialect,
    PeerSilent,
    Refused,
)
from fastway.dialect import Wire as AnyWire
from fastway.dialect.hotpot import MAX_HEADS, Hotpot
from fastway.dialect.hotpot_envelopes import (
    MAX_NAME,
    HotpotJson,
    JsonEnvelope,
    QuotedJson,
)
from fastway.errors import NotInstalled
from fastway.formats import Encoded
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised
from tests.support.hotpot import (
    FORMATS,
    ROWS,
    VECTORS,
    Wire,
    begin,
    client,
    framed,
    heard,
    server,
)

StringValue: Any = importlib.import_module("google.protobuf.wrappers_pb2").StringValue


class Joined(msgspec.Struct):
    Message: str
    N: int = 0


def unmasked(data: bytes) -> list[bytes]:
    """The payloads of short or middling WebSocket frames, whoever sent them."""
    payloads = []
    while data:
        size, at = data[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        mask = bytes(4)
        if data[1] & 0x80:
            mask, at = data[at : at + 4], at + 4
        payload = data[at : at + size]
        payloads.append(bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)))
        data = data[at + size :]
    return payloads


class VectorTests(SynchronousTestCase):
    """What the Go server said, and what a client on its codec package said to it."""

    def test_rows_are_written(self) -> None:
        said = {name: server(Hotpot(format=name), whole=True) for name in FORMATS}
        js = said["json"]
        hi = js.format.encode({"Message": "hi"})
        self.assertEqual(js.send("Echo", hi), ROWS["H-1"])
        ok = js.format.encode({"Message": "ok"})
        self.assertEqual(server().send("Echo", ok), ROWS["H-2"])
        self.assertEqual(server(Hotpot(length_bytes=4)).send("Echo", ok), ROWS["H-3"])
        self.assertEqual(server().refuse("Fail", Refused(7, "bad")), ROWS["H-6"])
        self.assertEqual(js.refuse("Fail", Refused(0)), ROWS["H-7"])
        self.assertEqual(js.send("Error", b'{"code":0,"msg":""}'), ROWS["H-7"])
        written = js.format.encode({"Message": '你好<&>"\\\n'})
        self.assertEqual(js.send("Echo", written), ROWS["H-8"])
        hello = b"\x0a\x02hi"
        self.assertEqual(said["protobuf"].send("Echo", hello), ROWS["H-11"])
        inner = b"\x0a\x01n\x12\x01d"
        answer = server(Hotpot(format="protobuf")).send("ProtoWarpper", inner)
        self.assertEqual(answer, ROWS["H-17"])
        for name in ("msgpack", "msgpack#js"):
            pack = server(Hotpot(format=name), whole=True)
            for row, word in (("H-12", "hi"), ("H-13", "123456"), ("H-14", "x" * 300)):
                body = pack.format.encode({"Message": word})
                self.assertTrue(pack.send("Echo", body).startswith(ROWS[row]), row)

    def test_pings_are_written(self) -> None:
        for format, ping, pong in (
            ("json", ROWS["H-4"], ROWS["H-5"]),
            ("protobuf", framed(ROWS["H-9"]), ROWS["H-10"]),
            ("msgpack", framed(ROWS["H-15"]), framed(b"\x92\xa4Pong\xd4\x1b\x80")),
        ):
            wire = server(Hotpot(format=format))
            wire.tick(10.0)
            self.assertEqual(wire.data_to_send(), [ping])
            self.assertEqual(heard(wire, [ping, pong]), [])
            self.assertEqual(wire.data_to_send(), [pong])

    def test_ext_sizes(self) -> None:
        """The shortest form of ext, and all forms are read."""
        dialect = Hotpot(format="msgpack", length_bytes=4, max_message=100_000)
        for size, head in (
            *((2**power, bytes((0xD4 + power,))) for power in range(5)),
            (0, b"\xc7\x00"),
            (3, b"\xc7\x03"),
            (255, b"\xc7\xff"),
            (256, b"\xc8\x01\x00"),
            (65_536, b"\xc9\x00\x01\x00\x00"),
        ):
            said = server(dialect, whole=True).send("E", bytes(size))
            self.assertEqual(said, b"\x92\xa1E" + head + b"\x1b" + bytes(size))
            [message] = heard(client(dialect, whole=True), [said])
            self.assertEqual(message.body, bytes(size))
        for said in (b"\xdc\x00\x02\xd9\x01E\xc7\x01\x1b\x80", b"\x92\xa1E\xc9\0\0\0\x01\x1b\x80"):
            [message] = heard(server(dialect, whole=True), [said])
            self.assertEqual((message.route, message.body), ("E", b"\x80"))

    def talks(self) -> list[tuple[Hotpot, bool, str, list[list[bytes]]]]:
        """For each connection and side: what it said, in units."""
        found = []
        for talk in VECTORS["talks"]:
            whole = talk["websocket"]
            dialect = Hotpot(format=talk["format"], length_bytes=talk["length_bytes"], text=whole)
            for number in {one[0] for one in talk["packets"]}:
                for who in "CS":
                    said = [bytes.fromhex(p[2]) for p in talk["packets"] if p[:2] == [number, who]]
                    units = [unmasked(one) if whole else [one] for one in said]
                    found.append((dialect, whole, who, units))
        self.assertEqual(len(found), 16)
        return found

    def test_talks(self) -> None:
        """What the peers said is understood, and what is understood is said in the same bytes."""
        for dialect, whole, who, reads in self.talks():
            units = [unit for read in reads for unit in read]
            reader = (server if who == "C" else client)(dialect, whole=whole)
            writer: Any = (client if who == "C" else server)(dialect, whole=whole)
            messages = heard(reader, units)
            self.assertEqual(len(messages), len(units))
            for unit, message in zip(units, messages, strict=True):
                if message.refused is not None:
                    self.assertEqual((message.refused.code, message.refused.text), (7, "bad"))
                    self.assertEqual(writer.refuse("", message.refused), unit)
                else:
                    self.assertEqual(writer.send(message.route, message.body), unit)

    def test_talks_in_pieces(self) -> None:
        """However it is cut, it is the same."""
        for dialect, whole, who, reads in self.talks():
            if whole:
                continue
            said = b"".join(unit for read in reads for unit in read)
            side = server if who == "C" else client
            wanted = self.plain(side(dialect), [said])
            singly = [said[at : at + 1] for at in range(len(said))]
            self.assertEqual(self.plain(side(dialect), singly), wanted)

            @DETERMINISTIC
            @given(st.lists(st.integers(0, 10_000), max_size=8))
            def check(places: list[int]) -> None:
                self.assertEqual(self.plain(side(dialect), cut(said, places)), wanted)  # noqa: B023

            check()

    def plain(self, wire: Wire, pieces: list[bytes]) -> list[tuple[str, bytes, str]]:
        return [(one.route, one.body, str(one.refused)) for one in heard(wire, pieces)]

    def test_is_a_dialect(self) -> None:
        dialect: Dialect = Hotpot()
        wires: list[AnyWire] = [dialect.server(), dialect.client(whole=True)]
        self.assertEqual(len({wire.shape for wire in wires}), 2)
        self.assertIs(wires[0].shape, dialect.server().shape)


class JsonTests(SynchronousTestCase):
    """Spec hotpot.md 3.1, row by row."""

    def read(self, text: str) -> Message | None:
        messages = heard(server(whole=True), [text.encode()])
        self.assertLess(len(messages), 2)
        return messages[0] if messages else None

    def test_data(self) -> None:
        """What hotpot hands to a handler as bytes is the body."""
        for data, body, value in (
            ('{ "a" : 1 }', '{ "a" : 1 }', {"a": 1}),
            ("[1, 2]", "[1, 2]", [1, 2]),
            ("12.50", "12.50", 12.5),
            ("true", "true", True),
            ('"a\\"\\u00e9\\n"', 'a"é\n', 'a"é\n'),
            ('"{\\"a\\":1}"', '{"a":1}', {"a": 1}),
            ('""', "", None),
            ("null", "", None),
        ):
            message = self.read(f'{{"type":"Echo","data":{data}}}')
            assert message is not None, data
            self.assertEqual((message.route, message.body.decode()), ("Echo", body))
            self.assertEqual(message.format.decode(message.body), value)

    def test_order(self) -> None:
        """Any order and spaces; other keys are nothing."""
        message = self.read(' { "x":[{}] , "data" : 1 ,\n"type":"Echo", "code":3 } ')
        assert message is not None
        self.assertEqual((message.route, message.body), ("Echo", b"1"))

    def test_dropped(self) -> None:
        """Those are no messages; the connection lives."""
        wire = server(whole=True)
        for text in (
            '{"type":"Echo"}',
            '{"data":1}',
            '{"type":"","data":1}',
            '{"type":null,"data":1}',
            '{"type":{},"data":1}',
            '{"type":"\\ud800","data":1}',
            '{"type":"Echo","data":"\\udfff"}',
            '{"type":"Error","code":7,"msg":"bad"}',
            '{"type":"Ping"}',
            '{"type":"Echo","data":1}x',
            '{"type":"Echo","data":1',
            f'{{"type":"{"x" * (MAX_NAME + 1)}","data":1}}',
            "[]",
            "1",
            "what?",
        ):
            self.assertEqual(wire.receive(text.encode(), 1.0), [], text)
        self.assertEqual(wire.receive(b'{"type":"\xff","data":1}', 1.0), [])
        self.assertEqual(wire.data_to_send(), [])
        self.assertIsNone(wire.error)
        self.assertEqual(len(wire.receive(ROWS["H-1"], 1.0)), 1)

    def test_names(self) -> None:
        """A number or a truth is its text, as Go has it; case counts."""
        for name, route in (("5", "5"), ("1.50", "1.50"), ("true", "true"), ('"\\u0041"', "A")):
            message = self.read(f'{{"type":{name},"data":1}}')
            assert message is not None
            self.assertEqual(message.route, route)
        wire = server(whole=True)
        self.assertEqual(len(wire.receive(b'{"type":"ping","data":1}', 0.0)), 1)

    def test_strings(self) -> None:
        """A body out of a string fits a type by its text, or by what that is in JSON."""
        quoted = QuotedJson()
        self.assertEqual(quoted.decode(b"5", str), "5")
        self.assertEqual(quoted.decode(b"5", int), 5)
        self.assertEqual(quoted.decode(b"5"), 5)
        self.assertEqual(quoted.decode(b"aGk=", bytes), b"hi")
        self.assertEqual(quoted.decode(b'{"Message":"a"}', Joined), Joined("a"))
        self.assertEqual(quoted.decode(b"hi"), "hi")
        raised(ValueError, quoted.decode, b"hi", int)
        self.assertEqual(HotpotJson().decode(b"", list[int]), [])
        raised(ValueError, HotpotJson().decode, b"", Joined)

    def test_floats(self) -> None:
        """Whole, where Go cuts them to six decimals; what Go sends is read as it is."""
        wire = server(whole=True)
        body = wire.format.encode({"X": 3.14159265358979, "Y": 1e21, "Z": 0.1})
        self.assertEqual(
            wire.send("Echo", body),
            b'{"type":"Echo","data":{"X":3.14159265358979,"Y":1e21,"Z":0.1}}',
        )

    def test_empty(self) -> None:
        wire = server(whole=True)
        self.assertEqual(wire.send("Echo", b""), b'{"type":"Echo","data":null}')
        self.assertEqual(wire.send('a"é', b"1"), '{"type":"A\\"é","data":1}'.encode())
        self.assertEqual(wire.send("Error", b"{}"), b'{"type":"Error","data":{}}')

    def test_error_and_data(self) -> None:
        """An Error that has data is a message of the application's."""
        for said, refused in (
            ('{"type":"Error","code":7,"msg":"bad"}', True),
            ('{"type":"Error","code":7,"msg":"bad","data":{}}', False),
        ):
            [message] = heard(client(whole=True), [said.encode()])
            self.assertEqual(message.refused is not None, refused)
        for said in ('{"type":"Error","code":"7","msg":""}', '{"type":"Error","code":7}'):
            self.assertEqual(heard(client(whole=True), [said.encode()]), [])


class OtherEnvelopeTests(SynchronousTestCase):
    def test_no_protobuf(self) -> None:
        """Without the extra the dialect says what installs it."""
        with mock.patch.dict(sys.modules, {"google.protobuf.message": None}):
            error = raised(NotInstalled, lambda: Hotpot(format="protobuf"))
        self.assertIn("pip install 'fastway[protobuf]'", str(error))

    def test_protobuf(self) -> None:
        """A wrapper that cannot be decoded is dropped; unknown fields are nothing."""
        wire = server(Hotpot(format="protobuf"), whole=True)
        for said in (b"\x0a", b"\x0a\x05ab", b"\x0a\x01\xff\x12\x01d", b"\x12\x01d", b"\xff" * 20):
            self.assertEqual(wire.receive(said, 0.0), [], said)
        [message] = heard(wire, [b"\x18\x07\x12\x01d\x0a\x01n"])
        self.assertEqual((message.route, message.body), ("n", b"d"))
        body = wire.format.encode(StringValue(value="é"))
        [message] = heard(client(Hotpot(format="proto")), [framed(wire.send("Said", body))])
        self.assertEqual(message.format.decode(message.body, StringValue).value, "é")

    def test_msgpack(self) -> None:
        """Strict, as Go is: two, a string, and an ext of that type; but nothing behind it."""
        wire = server(Hotpot(format="msgpack"), whole=True)
        for said in (
            "92a450696e67c40180",
            "92a450696e67d41c80",
            "93a450696e67d41b80c0",
            "91a450696e67",
            "92c40450696e67d41b80",
            "92a0d41b80",
            "92a450696e67d41b80c0",
            "92a450696e67d41b",
            "c1",
            "92a450696e67c9ffffffff1b80",
        ):
            self.assertEqual(wire.receive(bytes.fromhex(said), 0.0), [], said)
        self.assertEqual(wire.data_to_send(), [])
        self.assertIsNone(wire.error)

    def test_errors(self) -> None:
        """Ours, where Go has none; a client of ours knows them, a server takes none."""
        for format in FORMATS:
            dialect = Hotpot(format=format)
            for refused in (Refused(7, "bad é"), Refused(-1), Refused(1 << 70, "\ud800")):
                said = server(dialect).refuse("Join", refused)
                [message] = heard(client(dialect), [said])
                assert message.refused is not None
                self.assertEqual(message.route, "Error")
                self.assertEqual(message.refused.code, min(refused.code, (1 << 63) - 1))
                self.assertEqual(message.refused.text, refused.text.replace("\ud800", "?"))
                self.assertEqual(
                    [one.refused for one in heard(server(dialect), [said]) if one.refused], []
                )
            long = server(dialect).refuse("Join", Refused(7, "x" * 5000))
            [message] = heard(client(dialect), [long])
            self.assertEqual((message.refused or Refused(0)).code, 7)
            silent = server(Hotpot(format=format, refusals="silent"))
            self.assertEqual(silent.refuse("Join", Refused(7)), b"")

    def test_not_an_error(self) -> None:
        pack = server(Hotpot(format="msgpack"), whole=True)
        said = pack.send("Error", pack.format.encode([1]))
        [message] = heard(client(Hotpot(format="msgpack"), whole=True), [said])
        self.assertEqual((message.refused, message.body), (None, b"\x91\x01"))


class FramingTests(SynchronousTestCase):
    def test_limits(self) -> None:
        """4096 bytes pass, 4097 and none at all do not."""
        for width in (2, 4):
            dialect = Hotpot(length_bytes=width)
            said = server(dialect).send("E", b'"%b"' % (b"x" * (4096 - 22)))
            self.assertEqual(len(said), width + 4096)
            self.assertEqual(len(heard(client(dialect), [said])), 1)
            raised(FrameRefused, server(dialect).send, "E", b'"%b"' % (b"x" * 4075))
            for size in (0, 4097):
                wire = server(dialect)
                good = ROWS["H-2" if width == 2 else "H-3"]
                [message] = wire.receive(good + size.to_bytes(width, "big") + good, 0.0)
                self.assertIsInstance(message, Message)
                self.assertIsInstance(wire.error, BadFrame)
                self.assertIn(str(size), str(wire.error))
                self.assertIsNone(wire.deadline)
                self.assertEqual(wire.receive(good, 0.0), [])

    def test_byte_order(self) -> None:
        """The other order of the length, of both widths, in any cuts; what is in hotpot's is too
        long there."""
        for width in (2, 4):
            dialect = Hotpot(length_bytes=width, byte_order="little")
            payload = ROWS["H-1"]
            said = server(dialect).send("Echo", b'{"Message":"hi"}')
            self.assertEqual(said, len(payload).to_bytes(width, "little") + payload)
            for pieces in ([said * 3], [bytes([one]) for one in said * 3]):
                self.assertEqual(len(heard(client(dialect), pieces)), 3)
            wire = client(dialect)
            self.assertEqual(wire.receive(ROWS["H-2" if width == 2 else "H-3"], 0.0), [])
            self.assertIsInstance(wire.error, BadFrame)
            self.assertEqual(dialect.traits.settings["byte_order"], "little")
        self.assertNotIn("byte_order", Hotpot().traits.settings)

    def test_whole(self) -> None:
        """Over WebSocket nothing limits what is sent, and nothing stands before it."""
        said = server(whole=True).send("Echo", b'"%b"' % (b"x" * 5000))
        self.assertEqual(len(heard(client(whole=True), [said])), 1)
        self.assertEqual(heard(client(whole=True), [b""]), [])

    def test_linear(self) -> None:
        """A large message byte by byte, and many small ones at once."""
        dialect = Hotpot(length_bytes=4, max_message=2_000_000)
        wire = server(dialect)
        said = wire.send("E", b'"%b"' % (b"x" * 300_000))
        before = time.process_time()
        self.assertEqual(len(heard(wire, [said[i : i + 1] for i in range(len(said))])), 1)
        self.assertEqual(len(heard(wire, [wire.send("E", b"1") * 30_000])), 30_000)
        self.assertLess(time.process_time() - before, 20.0)


class NameTests(SynchronousTestCase):
    def test_routes(self) -> None:
        """The last part with a capital letter, or as it is given; both ways."""
        dialect = Hotpot(names={"room.leave": "bye", "é": "É2"})
        for route, name in (
            ("room.join", "Join"),
            ("Said", "Said"),
            ("room.leave", "bye"),
            ("élan", "Élan"),
            ("a.b_c", "B_c"),
        ):
            self.assertEqual(dialect.wire_name(route), name)
            self.assertEqual(dialect.app_name(name), route)
        self.assertEqual(dialect.app_name("Other"), "Other")
        wire = server(dialect, whole=True)
        [message] = heard(wire, [b'{"type":"Join","data":1}'])
        self.assertEqual(message.route, "room.join")
        self.assertEqual(wire.send("room.leave", b"1"), b'{"type":"bye","data":1}')

    def test_none(self) -> None:
        dialect = Hotpot()
        for route in ("Ping", "room.pong", "room.", "\ud800", "x" * 256):
            raised(NotInDialect, dialect.wire_name, route)
            raised(NotInDialect, server(dialect).send, route, b"1")
        dialect.wire_name("room.join")
        self.assertEqual(dialect.wire_name("room.join"), "Join")
        self.assertEqual(dialect.wire_name("hall.join"), "Join")
        self.assertEqual(dialect.app_name("Join"), "room.join")

    def test_nothing_is_kept(self) -> None:
        """Names of a peer are not, and those of an application up to a bound."""
        dialect = Hotpot()
        wire = server(dialect, whole=True)
        for number in range(MAX_HEADS + 50):
            [message] = heard(wire, [b'{"type":"N%d","data":1}' % number])
            wire.reply(message.token, b"1", kind=int)
        names = dialect._names
        self.assertEqual((len(names.routes), len(names._heads)), (0, 0))
        for number in range(MAX_HEADS + 50):
            wire.send(f"N{number}", b"1")
        self.assertEqual(len(names._heads), MAX_HEADS)

    def test_answers(self) -> None:
        """An answer has the name of its type; of Python's own types, that of the question."""
        wire = server(Hotpot(), whole=True)
        [message] = heard(wire, [b'{"type":"join","data":1}'])
        names = ((Joined, "Joined"), (dict, "join"), (bytes, "join"), (Encoded, "join"))
        for kind, name in names * 2:  # the second time it is known
            said = wire.reply(message.token, b"1", kind=kind)
            self.assertEqual(said, b'{"type":"%b","data":1}' % name.encode())
        self.assertEqual(wire.reply(message.token, b"null", kind=type(None)), b"")
        raised(NotInDialect, wire.reply, message.token, b"1", [("a", "b")])
        [message] = heard(client(whole=True), [b'{"type":"join","data":1}'])
        self.assertIsNone(message.token)

    def test_not_there(self) -> None:
        for wire in (server(), client()):
            raised(NotInDialect, wire.request, "a", b"1")
            raised(NotInDialect, wire.send, "a", b"1", [("a", "b")])
            self.assertEqual(wire.kick("x"), b"")
            wire.forget(1)
            wire.accept()
            wire.reject(Refused(1))

    def test_settings(self) -> None:
        for settings, problem in (
            ({"format": "xml"}, "format"),
            ({"length_bytes": 3}, "length_bytes"),
            ({"byte_order": "network"}, "byte_order"),
            ({"max_message": 65_536}, "max_message"),
            ({"max_message": 63}, "max_message"),
            ({"max_message": 1 << 25, "length_bytes": 4}, "max_message"),
            ({"keepalive": (0, 12)}, "keepalive"),
            ({"keepalive": (5, -1)}, "keepalive"),
            ({"keepalive": (float("nan"), 1)}, "keepalive"),
            ({"refusals": "loud"}, "refusals"),
            ({"names": {"a": "B", "c": "B"}}, "names"),
            ({"names": {"a": "Ping"}}, "names"),
            ({"names": {"a": ""}}, "names"),
            ({"format": "msgpack", "text": True}, "text"),
        ):
            error = raised(ValueError, Hotpot, **settings)
            self.assertIn(problem, str(error))
        self.assertEqual(Hotpot(max_message=100).max_frame, 100)
        self.assertEqual(Hotpot(text=True).websocket.takes, {"text"})
        self.assertEqual(Hotpot().websocket.takes, {"binary"})


class KeepaliveTests(SynchronousTestCase):
    """Spec hotpot.md 4, as the code has it."""

    def pings(self, wire: Wire, until: float) -> list[float]:
        """The times of Pings, where nothing comes."""
        times = []
        while wire.deadline is not None and wire.deadline <= until:
            now = wire.deadline
            wire.tick(now)
            times += [now] * len(wire.data_to_send())
        return times

    def test_silent_client(self) -> None:
        for pair, pings, end in (
            ((5, 12), [10.0], 20.0),
            ((1, 3), [2.0, 3.0], 5.0),
            ((2, 1), [], 4.0),
            ((0.5, 12), [1.0 + 0.5 * step for step in range(24)], 13.0),
        ):
            wire = server(Hotpot(keepalive=pair))
            self.assertEqual(self.pings(wire, 1000.0), pings, pair)
            assert isinstance(wire.error, PeerSilent)
            self.assertEqual(wire.error.seconds, end)
            self.assertIsNone(wire.deadline)

    def test_what_counts(self) -> None:
        """Any message, of whatever it is; not a part of one."""
        for said, alive in (
            (ROWS["H-2"], True),
            (ROWS["H-5"], True),
            (framed(b"garbage"), True),
            (ROWS["H-2"][:-1], False),
            (b"", False),
        ):
            wire = server()
            wire.tick(5.0)
            wire.receive(said, 6.0)
            for tick in (10.0, 15.0, 20.0):
                wire.tick(tick)
            self.assertEqual(wire.error is None, alive, said)
        whole = server(whole=True)
        whole.receive(b"garbage", 6.0)
        whole.tick(20.0)
        self.assertIsNone(whole.error)

    def test_late_tick(self) -> None:
        """Looks that nobody took are left out; the next one is where it would be."""
        wire = server()
        wire.tick(4.9)
        self.assertEqual(wire.data_to_send(), [])
        wire.receive(ROWS["H-2"], 5.0)
        wire.tick(12.5)
        self.assertEqual((wire.data_to_send(), wire.deadline), ([ROWS["H-4"]], 15.0))

    def test_not_read_from(self) -> None:
        """Whoever is not read from cannot give a sign: it is pinged, and not lost for that."""
        wire = server(Hotpot(keepalive=(1, 3)))
        for tick in range(1, 11):
            wire.tick(float(tick), True)
        self.assertEqual((len(wire.data_to_send()), wire.error), (9, None))
        self.assertEqual(self.pings(wire, 100.0), [11.0])
        assert isinstance(wire.error, PeerSilent)
        self.assertEqual(wire.error.seconds, 5.0)

    def test_none(self) -> None:
        for side in (server, client):
            wire: Any = side(Hotpot(keepalive=None))
            self.assertIsNone(wire.deadline)
            wire.tick(1e9)
            self.assertEqual((wire.data_to_send(), wire.error), ([], None))

    def test_a_week(self) -> None:
        """Our two ends keep each other, and say little; a Go server's rules are the server's."""
        for format, days in (("json", 7.0), ("protobuf", 0.1), ("msgpack", 0.1)):
            near, far = Hotpot(format=format).server(), Hotpot(format=format).client()
            begin(near)
            begin(far)
            said = {id(near): 0, id(far): 0}
            week, now = days * 24 * 3600, 0.0
            while now < week:
                now = min(near.deadline or week, far.deadline or week)
                for wire, other in ((near, far), (far, near)):
                    wire.tick(now)
                    for unit in wire.data_to_send():
                        said[id(wire)] += 1
                        other.receive(unit, now)
                        for answer in other.data_to_send():
                            wire.receive(answer, now)
                assert near.error is None and far.error is None, (format, now)
            self.assertEqual(said[id(near)], 0)
            self.assertLess(said[id(far)], week / 5 + 2)

    def test_client_speaks(self) -> None:
        """It pings where it said nothing for a while, however much it is told."""
        wire = client()
        for tick in range(1, 5):
            wire.receive(ROWS["H-2"], tick * 5.0)
            wire.tick(tick * 5.0)
            self.assertEqual(wire.data_to_send(), [ROWS["H-4"]])
        wire.send("Echo", b"1")
        wire.tick(25.0)
        self.assertEqual(wire.data_to_send(), [])
        wire.receive(ROWS["H-4"], 26.0)
        self.assertEqual(wire.data_to_send(), [ROWS["H-5"]])
        wire.tick(30.0)
        self.assertEqual(wire.data_to_send(), [])
        wire.tick(35.0)
        self.assertEqual(wire.data_to_send(), [ROWS["H-4"]])

    def test_silent_server(self) -> None:
        """It is given up; one that never answers Pings, as Go's in MessagePack, is not."""
        wire = client()
        self.assertEqual(self.pings(wire, 1000.0), [5.0, 10.0, 15.0])
        self.assertIsInstance(wire.error, PeerSilent)
        pack = client(Hotpot(format="msgpack"))
        self.assertEqual(len(self.pings(pack, 1000.0)), 200)
        self.assertIsNone(pack.error)
        pack.receive(framed(ROWS["H-15"]), 1000.0)
        self.assertLess(len(self.pings(pack, 2000.0)), 5)
        self.assertIsInstance(pack.error, PeerSilent)


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80).filter(
    lambda name: "." not in name and name not in ("Ping", "Pong", "ping", "pong", "Error", "error")
)


class AnythingTests(SynchronousTestCase):
    """Whatever a peer sends, nothing is raised."""

    @DETERMINISTIC
    @given(st.binary(max_size=300), st.sampled_from(FORMATS), st.booleans(), st.booleans())
    def test_any_bytes(self, data: bytes, format: str, whole: bool, is_server: bool) -> None:
        wire: Any = (server if is_server else client)(Hotpot(format=format), whole=whole)
        self.check(wire, [data, framed(data[:200]), data])

    @DETERMINISTIC
    @given(
        st.sampled_from(sorted(ROWS)),
        st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
        st.sampled_from(FORMATS),
        st.booleans(),
    )
    def test_nearly_right(
        self, row: str, changes: list[tuple[int, int]], format: str, is_server: bool
    ) -> None:
        data = bytearray(ROWS[row])
        for place, byte in changes:
            data[place % len(data)] = byte
        wire: Any = (server if is_server else client)(Hotpot(format=format), whole=True)
        self.check(wire, [bytes(data)])

    def check(self, wire: Any, pieces: list[bytes]) -> None:
        for message in heard(wire, pieces):
            self.assertLessEqual(len(message.route), MAX_NAME)
            if message.token is not None:
                wire.reply(message.token, b"1", kind=int)
                wire.refuse(message.token, Refused(404, "not found"))
            for kind in (None, Joined):
                try:
                    message.format.decode(message.body, kind)
                except Exception as error:
                    self.assertNotIsInstance(error, (RecursionError, MemoryError))
        wire.tick(5.0)
        wire.data_to_send()

    @DETERMINISTIC
    @given(NAMES, st.binary(max_size=100), st.sampled_from(FORMATS), st.booleans())
    def test_back(self, name: str, body: bytes, format: str, whole: bool) -> None:
        """What one end says the other hears, whatever the name and the body."""
        if format == "json":
            body = json.dumps(list(body)).encode()
        dialect = Hotpot(format=format)
        said = server(dialect, whole=whole).send(name, body)
        [message] = heard(client(dialect, whole=whole), [said])
        wanted = name[:1].upper() + name[1:]
        self.assertEqual((message.route, message.body), (wanted, body))

    def test_bombs(self) -> None:
        """Nested, wide, long: dropped or read, in time in proportion."""
        deep = b"[" * 500_000 + b"]" * 500_000
        before = time.process_time()
        envelope = JsonEnvelope()
        self.assertIsNone(envelope.read(b'{"type":"E","data":%b}' % deep, False))
        self.assertIsNone(envelope.read(b'{"type":"E","x":%b,"data":1}' % deep, False))
        read = envelope.read(b'{"type":"E","data":%b}' % (b"[" * 200 + b"]" * 200), False)
        assert read is not None
        raised(ValueError, read.format.decode, read.body)
        wide = b'{"type":"E",%b"data":1}' % b"".join(b'"%d":0,' % n for n in range(100_000))
        self.assertIsNotNone(envelope.read(wide, False))
        wire = server(Hotpot(format="protobuf"), whole=True)
        self.assertEqual(heard(wire, [b"\x1b" * 1_000_000]), [])
        pack = server(Hotpot(format="msgpack"), whole=True)
        self.assertEqual(heard(pack, [b"\x91" * 1_000_000]), [])
        self.assertEqual(heard(pack, [b"\x92" + b"\x91" * 1_000_000]), [])
        self.assertLess(time.process_time() - before, 20.0)

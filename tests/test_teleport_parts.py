"""Tests of what teleport's dialect is made of: names, fields, filters, codecs, frames."""

from __future__ import annotations

import importlib
import tracemalloc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from twisted.trial.unittest import SynchronousTestCase

from fastway.dialect import BadFrame, FrameRefused, Message, NotInDialect, Refused
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport_codecs import Form, Plain, Proto, TeleportJson
from fastway.dialect.teleport_fields import (
    MAX_PAIRS,
    MAX_SEQ,
    read_meta,
    read_seq,
    read_status,
    write_meta,
    write_seq,
    write_status,
)
from fastway.dialect.teleport_filters import FILTERS
from fastway.dialect.teleport_frames import CALL, FRAMINGS, REPLY, Frame
from fastway.dialect.teleport_names import MAX_KEPT, Names, http_part, rpc_part
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised
from tests.support.teleport import BYTES, KNOWN, LIMIT, client, read, server, written

StringValue: Any = importlib.import_module("google.protobuf.wrappers_pb2").StringValue


class Point(Struct):
    x: int
    tags: list[str] = []


class NameTests(SynchronousTestCase):
    """The table of spec teleport.md 6."""

    TABLE = {
        "AaBb": ("aa_bb", "AaBb"),
        "ABcXYz": ("abc_xyz", "ABcXYz"),
        "Aa__Bb": ("aa_bb", "Aa_Bb"),
        "Aa_Bb": ("aa/bb", "Aa.Bb"),
        "ABC_XYZ": ("abc/xyz", "ABC.XYZ"),
        "X1Y2": ("x1_y2", "X1Y2"),
        "HTTPServer": ("httpserver", "HTTPServer"),
        "Aa_": ("aa_", "Aa_"),
    }

    def test_table(self) -> None:
        for name, (http, rpc) in self.TABLE.items():
            self.assertEqual((http_part(name), rpc_part(name)), (http, rpc), name)

    def test_routes(self) -> None:
        for route, http, rpc in (
            ("room.join", "/room/join", "Room.Join"),
            ("room.join_all", "/room/join_all", "Room.JoinAll"),
            ("Room.JoinAll", "/room/join_all", "Room.JoinAll"),
            ("Math.Add", "/math/add", "Math.Add"),
            ("a", "/a", "A"),
            ("/grp/a.b", "/grp/a.b", "/grp/a.b"),
        ):
            for mapper, name in (("http", http), ("rpc", rpc)):
                dialect = Teleport(mapper=mapper)
                self.assertEqual(dialect.wire_name(route), name)
                self.assertEqual(dialect.app_name(name), route)

    def test_names_that_nobody_told(self) -> None:
        """They are routes as the mapper has it, or stay as they are: exactly, as Go looks."""
        dialect = Teleport()
        for name, route in (
            ("/room/join", "room.join"),
            ("/Room/join", "/Room/join"),
            ("/room.join", "/room.join"),
            ("room/join", "room/join"),
            ("//a", ".a"),
            ("/", "/"),
            ("/math/add?x=1", "math.add?x=1"),
        ):
            self.assertEqual(dialect.app_name(name), route)
        dialect.wire_name("room.join")
        self.assertEqual(dialect.app_name("/room.join"), "/room.join")
        rpc = Teleport(mapper="rpc")
        self.assertEqual(rpc.app_name("Room.JoinAll"), "room.join_all")
        self.assertEqual(rpc.app_name("room.join"), "room.join")
        self.assertEqual(rpc.app_name("/heartbeat"), "/heartbeat")

    def test_overrides(self) -> None:
        dialect = Teleport(names={"room.join": "/v2/Enter"})
        self.assertEqual(dialect.wire_name("room.join"), "/v2/Enter")
        self.assertEqual(dialect.app_name("/v2/Enter"), "room.join")
        self.assertEqual(read(client(dialect).send("room.join", b"")).method, b"/v2/Enter")

    def test_ignore_case(self) -> None:
        for ignore, route in ((True, "room.join"), (False, "/ROOM/Join")):
            dialect = Teleport(ignore_case=ignore)
            dialect.wire_name("room.join")
            self.assertEqual(dialect.app_name("/ROOM/Join"), route)
            # Two that only differ in that are one, and so refused when an App listens.
            names = {dialect.wire_name(one) for one in ("/v2/Sum", "/v2/sum")}
            self.assertEqual(len(names), 1 if ignore else 2)

    def test_too_long(self) -> None:
        raised(NotInDialect, Teleport().wire_name, "a" * 255)
        raised(NotInDialect, Teleport().wire_name, "\ud800")
        self.assertEqual(len(Teleport().wire_name("a" * 254)), 255)

    def test_kept_names_are_bounded(self) -> None:
        names = Names("http", {}, False)
        for number in range(MAX_KEPT + 10):
            self.assertEqual(names.field(f"r{number}"), b"/r%d" % number)
            self.assertEqual(names.route(f"/q{number}"), f"q{number}")
        self.assertEqual((len(names._fields), len(names._routes)), (MAX_KEPT, 0))


class FieldTests(SynchronousTestCase):
    def test_seq(self) -> None:
        for seq, text in ((0, b"0"), (1, b"1"), (36, b"10"), (-1, b"-1"), (MAX_SEQ, b"zik0zj")):
            self.assertEqual((write_seq(seq), read_seq(text)), (text, seq))
        self.assertEqual(read_seq(b"ZIK0ZJ"), MAX_SEQ)
        self.assertEqual(read_seq(write_seq(-MAX_SEQ - 1)), -MAX_SEQ - 1)
        for text in (b"", b"zik0zk", b"1_1", b" 1", b"1 ", b"--1", b"\xc2\xb2", b"z" * 255):
            raised(BadFrame, read_seq, text)

    def test_meta(self) -> None:
        """Tilde, plus, percent, empty values, names that come twice, UTF-8."""
        for pairs, text in (
            ([], b""),
            ([("a", "~")], b"a=%7E"),
            ([("a", "+"), ("a", " ")], b"a=%2B&a=%20"),
            ([("k", ""), ("k", "a/b~é")], b"k&k=a%2Fb%7E%C3%A9"),
            ([("%", "*-._")], b"%25=*-._"),
        ):
            self.assertEqual((write_meta(pairs), read_meta(text)), (text, pairs))
        for text, pairs in (
            (b"a=~", [("a", "~")]),
            (b"a=1+2", [("a", "1 2")]),
            (b"a=%", [("a", "%")]),
            (b"a=%zz%4", [("a", "%zz%4")]),
            (b"a==b", [("a", "=b")]),
            (b"&&=", [("", "")]),
            (b"a=%ff", [("a", "\ufffd")]),
        ):
            self.assertEqual(read_meta(text), pairs, text)

    def test_bounds(self) -> None:
        self.assertEqual(len(read_meta(b"a&" * (MAX_PAIRS - 1) + b"a")), MAX_PAIRS)
        raised(BadFrame, read_meta, b"a&" * MAX_PAIRS)
        raised(BadFrame, read_meta, b"a" * 65536)
        raised(FrameRefused, write_meta, [("a", "x" * 65536)])
        raised(FrameRefused, write_meta, [("a", 1)])

    @DETERMINISTIC
    @given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=20))
    def test_any_meta(self, pairs: list[tuple[str, str]]) -> None:
        pairs = [pair for pair in pairs if pair != ("", "")]
        try:
            data = write_meta(pairs)
        except FrameRefused:
            return
        self.assertEqual(read_meta(data), pairs)

    @DETERMINISTIC
    @given(st.binary(max_size=200))
    def test_any_status(self, data: bytes) -> None:
        refused = read_status(data)
        if refused is not None:
            self.assertNotEqual(refused.code, 0)
        self.assertNotEqual(read_status(write_status(refused or Refused(0))), None)


class CodecTests(SynchronousTestCase):
    def test_json(self) -> None:
        form = TeleportJson()
        self.assertEqual(
            form.encode("<a&b>\u2028é"),
            rb'"\u003ca\u0026b\u003e\u2028'.replace(b"x", b"") + 'é"'.encode(),
        )
        self.assertEqual(form.encode(None), b"")
        self.assertEqual(form.encode(Point(1)), b'{"x":1,"tags":[]}')
        self.assertEqual(form.decode(b'{"x":1}', Point), Point(1))
        self.assertEqual(form.decode(b'{"x":1,"tags":null}', Point), Point(1))

    def test_nothing_is_the_zero_value(self) -> None:
        form = TeleportJson()
        for kind, zero in (
            (list[int], []),
            (dict[str, int], {}),
            (str, ""),
            (int, 0),
            (bool, False),
        ):
            self.assertEqual(form.decode(b"", kind), zero)
        self.assertIsNone(form.decode(b""))
        self.assertIsNone(form.decode(b"", Point | None))
        raised(ValueError, form.decode, b"", Point)

    def test_plain(self) -> None:
        form = Plain()
        for value, data in (
            ("é", "é".encode()),
            (1, b"1"),
            (1.5, b"1.5"),
            (True, b"true"),
            (b"\xff", b"\xff"),
        ):
            self.assertEqual(form.encode(value), data)
            if not isinstance(value, bytes):
                self.assertEqual(form.decode(data, type(value)), value)
        self.assertEqual((form.encode(None), form.decode(b"")), (b"", ""))
        self.assertEqual([form.decode(b"", one) for one in (int, bool, float)], [0, False, 0.0])
        for data, kind in (
            (b"x", int),
            (b"1" * 5000, int),
            (b"yes", bool),
            (b"1", list),
            (b"\xff", str),
        ):
            raised((ValueError, KeyError, TypeError), form.decode, data, kind)  # type: ignore
        raised(TypeError, form.encode, [1])

    def test_form(self) -> None:
        form = Form()
        self.assertEqual(form.encode({"b": ["x&y", "z"], "a": "1 2"}), b"a=1+2&b=x%26y&b=z")
        self.assertEqual(form.encode(Point(1, ["a", "b"])), b"tags=a&tags=b&x=1")
        self.assertEqual(form.encode({"t": True}), b"t=true")
        self.assertEqual(form.decode(b"x=1&tags=a", Point), Point(1, ["a"]))
        self.assertEqual(form.decode(b"x=1", Point), Point(1))
        self.assertEqual(form.decode(b"a=1&b=2&b=3"), {"a": "1", "b": ["2", "3"]})
        self.assertEqual(form.decode(b"a=1&b=2&b=3", dict[str, Any]), {"a": "1", "b": ["2", "3"]})
        self.assertEqual(form.decode(b"a=1", dict[str, list[int]]), {"a": [1]})
        self.assertEqual(form.decode(b"a=1&a=2", dict[str, int]), {"a": 1})
        self.assertEqual((form.encode(None), form.decode(b"")), (b"", {}))
        raised(TypeError, form.encode, "text")
        raised(ValueError, form.decode, b"&".join([b"a=1"] * 2000))
        raised(ValueError, form.decode, b"x=a", Point)
        raised(ValueError, form.decode, b"a=%ff")

    def test_protobuf(self) -> None:
        form = Proto()
        data = form.encode(StringValue(value="x"))
        self.assertEqual(form.decode(data, StringValue), StringValue(value="x"))
        self.assertEqual((form.decode(data), form.encode(None)), (data, b""))
        self.assertEqual(form.decode(b"", StringValue), StringValue())
        raised(TypeError, form.encode, {"a": 1})
        raised(TypeError, form.decode, data, dict)


class FilterTests(SynchronousTestCase):
    def test_both(self) -> None:
        for data in (b"", b"x", b"x" * 100_000):
            for one in FILTERS.values():
                self.assertEqual(one.unpack(one.pack(data), 100_000), data)

    def test_gzip(self) -> None:
        gzip = FILTERS["g"]
        packed = gzip.pack(b"x" * 1000)
        self.assertEqual(gzip.unpack(b"", 10), b"")
        for bad in (packed[:-1], packed + b"x", packed[:5], b"x", packed[:-8] + bytes(8)):
            raised(BadFrame, gzip.unpack, bad, 1000)
        raised(BadFrame, gzip.unpack, packed, 999)

    def test_memory_of_a_bomb(self) -> None:
        bomb = FILTERS["g"].pack(bytes(50_000_000))
        tracemalloc.start()
        raised(BadFrame, FILTERS["g"].unpack, bomb, 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        self.assertLess(peak, 5 << 20)


class JsonFrameTests(SynchronousTestCase):
    """Bodies that Go does not escape (spec teleport.md, 4)."""

    def frame(self, body: bytes, codec: int = 106) -> Frame:
        payload = (
            b'{"seq":1,"mtype":1,"serviceMethod":"/a","status":"code=0","meta":"",'
            b'"bodyCodec":%d,"body":%b}'
        ) % (codec, body)
        return read(len(payload + b"x").to_bytes(4, "big") + b"\0" + payload, "json")

    def test_of_go(self) -> None:
        """Quotes, backslashes, ends of lines and any bytes survive."""
        for body in (
            rb'{"a":"quote \" in"}',
            rb'{"a":"back \\ slash"}',
            rb'{"a":"line \n end"}',
            rb'{"a":"\u0001"}',
        ):
            self.assertEqual(self.frame(b'"' + body.replace(b'"', rb"\"") + b'"').body, body)
        for body in (b'\x08\x01\xff"\x00', b"a\\w"):
            said = b'"' + body.replace(b'"', rb"\"") + b'"'
            self.assertEqual(self.frame(said, 112).body, body)

    def test_of_others(self) -> None:
        """Properly escaped, in another order, with spaces, or a JSON value itself."""
        for said, body in (
            (rb'"{\"a\":\"line \\n end\"}"', rb'{"a":"line \n end"}'),
            (rb'"\u0022x\u0022"', b'"x"'),
            (b'[1, {"a": "b"}]', b'[1, {"a": "b"}]'),
            (b"12", b"12"),
            (b"null", b""),
            (b'""', b""),
        ):
            self.assertEqual(self.frame(said).body, body)
        payload = b'{ "body" : "1", "mtype": 3, "seq": 9, "bodyCodec":106,\n"serviceMethod":"/x" }'
        frame = read(len(payload + b"x").to_bytes(4, "big") + b"\0" + payload, "json")
        self.assertEqual(frame, Frame(3, 9, b"/x", b"", b"", 106, b"1"))

    @DETERMINISTIC
    @given(st.binary(max_size=60), st.sampled_from(["json", "pb", "raw"]), st.booleans())
    def test_any_body(self, body: bytes, proto: str, message: bool) -> None:
        frame = Frame(CALL, 1, b"/a", codec=115, body=body)
        again = read(written(frame, proto, message=message), proto, message=message)
        self.assertEqual(again._replace(status=frame.status), frame)

    def test_bad(self) -> None:
        for payload in (
            b"",
            b"[]",
            b"{",
            b'"x"',
            b"{}x",
            b'{"seq":"1","mtype":1}',
            b'{"seq":1,"mtype":256}',
            b'{"seq":2147483648,"mtype":1}',
            b'{"seq":1,"mtype":1,"meta":1}',
            b'{"seq":1,"mtype":1,"bodyCodec":1.5}',
            b'{"seq":1,"mtype":1,"body":"',
            b'{"seq":1,"mtype":1,"body":' + b"[" * 5000,
            b'{"a":' * 5000,
            b'{"seq":%b}' % (b"9" * 100_000),
        ):
            data = (len(payload) + 1).to_bytes(4, "big") + b"\0" + payload
            raised(BadFrame, read, data, "json")
        for ids in ("[300]", '["g"]', "1", "[1,2,3,4,5,6,7,8,9]"):
            said = b'{"seq":1,"mtype":1,"body":"","xferPipe":%b}' % ids.encode()
            raised(BadFrame, read, said, "json", message=True)


class AnyBytesTests(SynchronousTestCase):
    """Whatever comes: events, or an error of one line; and the same however it is cut."""

    GOOD = [BYTES[name] for name in ("V6-1", "V6-2", "V6-5", "V6-9", "H-2", "V6-6")]

    @DETERMINISTIC
    @given(
        st.sampled_from(["raw", "json", "pb"]),
        st.lists(
            st.one_of(st.binary(max_size=40), st.sampled_from(range(6))), min_size=1, max_size=4
        ),
        st.lists(st.integers(0, 300), max_size=6),
    )
    def test_streams(self, proto: str, parts: list[Any], places: list[int]) -> None:
        said = b""
        for part in parts:
            if isinstance(part, int):
                said += written(read(self.GOOD[part]), proto)
            else:
                said += (len(part) + 5).to_bytes(4, "big") + b"\0" + part
        told, dialect = [], Teleport(proto=proto)
        for pieces in ([said], cut(said, places)):
            wire = server(dialect)
            events = [one for piece in pieces for one in wire.receive(piece, 0.0)]
            self.assertIn(type(wire.error), (BadFrame, type(None)))
            self.assertNotIn("\n", str(wire.error))
            told.append((events, str(wire.error), wire.data_to_send()))
        self.assertEqual(told[0], told[1])

    @DETERMINISTIC
    @given(st.sampled_from(["raw", "json", "pb"]), st.booleans(), st.data())
    def test_broken_frames(self, proto: str, message: bool, data: st.DataObject) -> None:
        """A byte of a good frame is another."""
        frame = Frame(CALL, 7, b"/a", b"code=1", b"a=b", 106, b"[1]", b"gm")
        said = bytearray(written(frame, proto, message=message))
        at = data.draw(st.integers(0, len(said) - 1))
        said[at] ^= data.draw(st.integers(1, 255))
        try:
            FRAMINGS[proto][message].read(bytes(said), KNOWN, LIMIT)
        except BadFrame as error:
            self.assertNotIn("\n", str(error))

    def test_messages(self) -> None:
        """Over WebSocket each read is one message, and nothing waits for more."""
        dialect = Teleport(proto="json")
        assert dialect.websocket is not None
        self.assertTrue(dialect.websocket.whole)
        near, far = dialect.server(whole=True), dialect.client(whole=True)
        for wire in (near, far):
            wire.begin(0.0)
            wire.receive(b"", 0.0)
        key, asked = far.request("a", b"1")
        self.assertTrue(asked.startswith(b"{"))
        (event,) = near.receive(asked, 0.0)
        assert isinstance(event, Message)
        (answer,) = far.receive(near.refuse(event.token, Refused(404, "not found")), 0.0)
        self.assertEqual((answer.key, answer.refused.code), (key, 404))  # type: ignore
        near.receive(asked[:-1], 0.0)
        self.assertIsInstance(near.error, BadFrame)
        raw = Teleport().websocket
        assert raw is not None
        self.assertFalse(raw.whole)

    def test_a_frame_that_waits(self) -> None:
        """A megabyte in small pieces costs its length, and nothing is kept but that."""
        wire = server()
        whole = client().send("a", b"x" * 1_000_000)
        tracemalloc.start()
        for at in range(0, len(whole) - 1000, 1000):
            self.assertEqual(wire.receive(whole[at : at + 1000], 0.0), [])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        self.assertLess(peak, 4 << 20)

    def test_replies_that_nobody_asked(self) -> None:
        wire = client()
        for number in range(1000):
            wire.receive(written(Frame(REPLY, number, codec=106, body=b"1")), 0.0)
        self.assertEqual((wire.error, wire._asked, wire._rest), (None, set(), None))

"""Message formats: what is encoded comes out again, and what is no message is refused."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypedDict
from uuid import UUID

import msgpack
import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import fastway.endpoint
from fastway.formats import (
    MAX_DEPTH,
    MAX_NUMBER_KEYS,
    Bytes,
    Encoded,
    Json,
    MessageFormat,
    MessagePack,
    ProtocolBuffers,
    Text,
)
from tests.support.colliding import colliding
from tests.support.core import DETERMINISTIC
from tests.support.errors import raised

StringValue: Any = importlib.import_module("google.protobuf.wrappers_pb2").StringValue
Int32Value: Any = importlib.import_module("google.protobuf.wrappers_pb2").Int32Value
Message: Any = importlib.import_module("google.protobuf.message").Message

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=8
)
msgpack_values = st.recursive(
    scalars | st.binary() | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner) | st.dictionaries(text | st.integers(0, 99) | st.binary(), inner)
    ),
    max_leaves=8,
)
brackets = st.text('[]{}":,\\\\ud8cD0a1e9.- ').map(str.encode)
packed = st.lists(st.sampled_from(range(0x80, 0x100)) | st.integers(0, 3)).map(bytes)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Move(msgspec.Struct, tag=True):
    x: int
    y: float = 0.0
    names: list[str] = []


class Chat(msgspec.Struct, tag=True):
    text: str


class Scores(msgspec.Struct):
    of: dict[int, int]
    names: dict[str, int] = {}


class Tree(msgspec.Struct):
    inner: list[Tree] = []


@dataclass
class Point:
    x: int
    tags: list[str] = field(default_factory=list)


class Named(TypedDict):
    name: str


# Checked by mypy: a format says what its messages are.
typed: MessageFormat[Move] = Json(Move)
packed_type: MessageFormat[Move] = MessagePack(Move)
either: MessageFormat[Move | Chat] = Json(Move | Chat)
plain: MessageFormat[Any] = Json()
anything: Json[Any] = Json(Any)
any_packed: MessagePack[Any] = MessagePack(Any)
strings: MessageFormat[str] = Text()
raw: MessageFormat[bytes] = Bytes()


def several(*forms: Any) -> tuple[Any, ...]:
    """Formats of several types: none to mypy."""
    return forms


def maps(key: int) -> type[Any]:
    """A generated class with a map whose keys are of that type, in a message within itself."""
    file = importlib.import_module("google.protobuf.descriptor_pb2").FileDescriptorProto(
        name=f"map{key}.proto", package="test", syntax="proto3"
    )
    kind = file.message_type.add(name=f"World{key}")
    kind.field.add(name="of", number=1, label=3, type=11, type_name=f".test.World{key}.OfEntry")
    kind.field.add(name="inner", number=2, label=1, type=11, type_name=f".test.World{key}")
    entry = kind.nested_type.add(name="OfEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=key)
    entry.field.add(name="value", number=2, label=1, type=4)
    pool = importlib.import_module("google.protobuf.descriptor_pool").DescriptorPool()
    pool.Add(file)
    made: type[Any] = importlib.import_module("google.protobuf.message_factory").GetMessageClass(
        pool.FindMessageTypeByName(f"test.World{key}")
    )
    return made


class Formats(SynchronousTestCase):
    """Each format, both ways."""

    def same(self, form: MessageFormat[Any], message: Any) -> None:
        data = form.encode(message)
        self.assertIs(type(data), bytes)
        got = form.decode(data)
        self.assertEqual(got, message)
        self.assertIs(type(got), type(message))

    @DETERMINISTIC
    @given(st.binary())
    def test_bytes(self, message: bytes) -> None:
        """Bytes are sent as they are."""
        self.assertEqual(Bytes().encode(message), message)
        self.same(Bytes(), message)

    def test_bytes_alike(self) -> None:
        """What is bytes but not `bytes` is copied: changing it later changes nothing."""
        message = bytearray(b"abc")
        data = Bytes().encode(message)
        message[0] = 0
        self.assertEqual(data, b"abc")
        self.assertEqual(Bytes().encode(memoryview(b"abc")), b"abc")

    def test_bytes_refusals(self) -> None:
        """What is no bytes is refused by name, a number most of all."""
        for message, name in (("text", "str"), (5, "int"), (None, "NoneType"), ([1], "list")):
            self.assertIn(name, str(raised(TypeError, Bytes().encode, message)))

    @DETERMINISTIC
    @given(text)
    def test_text(self, message: str) -> None:
        """Text is UTF-8 on the wire."""
        self.assertEqual(Text().encode(message), message.encode("utf-8"))
        self.same(Text(), message)

    def test_text_refusals(self) -> None:
        """Bytes, lone surrogates, and what is no UTF-8 are refused."""
        self.assertIn("bytes", str(raised(TypeError, Text().encode, b"x")))
        raised(UnicodeEncodeError, Text().encode, "\ud800")
        for data in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf"):
            raised(UnicodeDecodeError, Text().decode, data)

    @DETERMINISTIC
    @given(json_values)
    def test_json(self, message: Any) -> None:
        """What JSON can say comes out again."""
        self.same(Json(), message)

    def test_json_is_compact(self) -> None:
        """JSON goes without spaces and as plain UTF-8."""
        self.assertEqual(Json().encode({"a": [1, "é"]}), '{"a":[1,"é"]}'.encode())

    def test_json_refusals(self) -> None:
        """No NaN and no infinity in either direction, however spelt, and UTF-8 only."""
        for number in (float("nan"), float("inf"), -float("inf")):
            raised(ValueError, Json().encode, number)
        raised(TypeError, Json().encode, b"x")
        raised(TypeError, Json().encode, {1, 2})
        raised(UnicodeEncodeError, Json().encode, "\ud800")
        for data in (b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b"[-1e999]"):
            raised(ValueError, Json().decode, data)
        for data in (b"", b"{", b"1 2", b"\xff", b'"\xed\xa0\x80"', "[1]".encode("utf-16")):
            raised(ValueError, Json().decode, data)

    def test_json_surrogates(self) -> None:
        """Half a character, which no UTF-8 can say, is refused; a whole one in escapes is not."""
        for data in (rb'"\ud800"', rb'["x\uDfff"]', rb'{"\udC00":1}', rb'"\ud83d\ud83d\ude00"'):
            for form in (Json(), anything):
                raised(ValueError, form.decode, data)
        for form in (Json(), anything, Json(str)):
            self.assertEqual(form.decode(rb'"\ud83d\ude00\\ud800"'), "\U0001f600\\ud800")

    def test_json_numbers(self) -> None:
        """Digits without end are refused, and not turned into a number first."""
        for form in several(Json(), anything, Json(int), Json(float)):
            for digits in (4301, 500_000):
                raised(ValueError, form.decode, b"1" * digits)
            raised(ValueError, form.decode, b"1" * 500_000 + b".5")
        for form in (Json(), anything):
            self.assertEqual(form.encode(form.decode(b"1" * 4300)), b"1" * 4300)

    def test_json_numbers_of_old(self) -> None:
        """A Python whose whole numbers have no bound gets one."""
        from fastway.formats import _whole

        self.assertEqual(_whole("12"), 12)
        raised(ValueError, _whole, "1" * 4301)

    def test_json_twice(self) -> None:
        """Of a name that is there twice, the last counts."""
        for form in (Json(), anything):
            self.assertEqual(form.decode(b'{"a":1,"a":2}'), {"a": 2})

    def test_json_depth(self) -> None:
        """Brackets without end are an error and not a crash, whatever hides them."""
        for form in several(Json(), anything, Json(Tree), Json(Move)):
            for piece in (b"[", b'{"a":', b'["]",', rb'["\"]\\",', b'[{"]}":1},', b'{"inner":['):
                for data in (piece * 50_000, piece * (MAX_DEPTH + 1)):
                    self.assertIn("deep", str(raised(ValueError, form.decode, data)))
        whole = b'["]","[",' * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH
        many = b"[" + b",".join([b'{"a":[[["[[[["]]]}'] * 1000) + b"]"
        for form in (Json(), anything):
            for data in (whole, many, b'"' + b"[" * 200_000 + b'"'):
                self.assertEqual(form.encode(form.decode(data)), data)
            raised(ValueError, form.decode, b"[" + whole + b"]")
            raised(ValueError, form.encode, [json.loads(whole)])

    def test_json_types(self) -> None:
        """With a type, messages come out as that, from the bytes plain JSON would write."""
        self.assertEqual(Json(Point).encode(Point(1, ["a"])), b'{"x":1,"tags":["a"]}')
        for form in (Json, MessagePack):
            self.same(form(Move), Move(1, 2.5, ["é"]))
            self.same(form(Move | Chat), Chat("hi"))
            self.same(form(Move | Chat), Move(3))
            self.same(form(Point), Point(1, ["a"]))
            self.same(form(Named), {"name": "ann"})
            self.same(form(list[Move]), [Move(1), Move(2)])
            self.same(form(dict[Colour, int]), {Colour.RED: 1})
            self.same(form(Scores), Scores({2**40: 1}))
            self.same(form(dict[str, object]), {"a": [1, None]})
            self.same(form(set[str]), {"a", "b"})
            self.same(form(Tree), Tree([Tree(), Tree([Tree()])]))
            either_kind: Any = form(Any)
            data = either_kind.encode(Point(1))
            self.assertEqual(either_kind.decode(data), {"x": 1, "tags": []})

    def test_into(self) -> None:
        """What is asked for comes out, if the format knows types."""
        for form in several(anything, any_packed, Json(Chat), MessagePack(Chat)):
            data = form.encode(Point(1))
            self.assertEqual(form.decode(data, Point), Point(1))
            self.assertEqual(form.decode(data, into=dict[str, Any]), {"x": 1, "tags": []})
            raised(ValueError, form.decode, data, Chat)
            raised(TypeError, form.decode, data, set[int])
        self.assertEqual(Bytes().decode(b"a", bytes), b"a")
        self.assertEqual(Text().decode(b"a", into=str), "a")
        for untyped in (Bytes(), Text(), Json(), MessagePack()):
            decode: Callable[..., Any] = untyped.decode
            self.assertIn("Move", str(raised(TypeError, decode, b"\x01", into=Move)))

    def test_types_refusals(self) -> None:
        """Another type, a missing field, a wrong value are refused when they arrive."""
        for data in (b"{}", b'{"type":"Chat","text":"x"}', b'{"type":"Move","x":"1"}', b"[]", b""):
            raised(ValueError, Json(Move).decode, data)
        for data in (b"\x80", b"\x91\x01", b"\xc1", b"", b"\x80\x01"):
            raised(ValueError, MessagePack(Move).decode, data)

    def test_types_that_are_none(self) -> None:
        """What can be no message, or has keys that collide at will, is refused at once."""
        refused = (
            *(object(), Formats, list[Formats], set[int], set[Any], frozenset[int | str], set),
            *(dict[UUID, int], dict[int | UUID, int], dict[tuple[int, int], int]),
            list[set[float]],
        )
        for form in (Json, MessagePack):
            for wrong in refused:
                raised(TypeError, form, wrong)

    def test_json_not_a_number(self) -> None:
        """Neither NaN nor infinity goes out as null, though null itself does."""
        for number in (math.nan, math.inf, -math.inf):
            for message in (Move(1, number), {1: [None, number]}, Point(1, [number])):  # type: ignore[list-item]
                raised(ValueError, anything.encode, message)
        data = b'{"a":null,"b":[null],"c":"null"}'
        self.assertEqual(anything.encode(anything.decode(data)), data)
        self.assertEqual(anything.encode({1: msgspec.Raw(b"null")}), b'{"1":null}')

    def test_number_keys(self) -> None:
        """Numbers are keys, but no more than a peer may make collide."""
        few, many = (dict.fromkeys(colliding(MAX_NUMBER_KEYS + more), 1) for more in (0, 1))
        self.assertEqual(len(many), MAX_NUMBER_KEYS + 1)
        for form in several(MessagePack(), any_packed, MessagePack(dict[int, int])):
            self.assertEqual(form.decode(form.encode(few)), few)
            for message in (many, {float(key): 1 for key in many}, [{}, {1: many}]):
                raised(ValueError, form.decode, msgpack.packb(message))
                self.assertIn("1000", str(raised(ValueError, form.encode, message)))
        for typed in (Json(Scores), MessagePack(Scores)):
            self.assertEqual(typed.decode(typed.encode(Scores(few))), Scores(few))
            raised(ValueError, typed.encode, Scores(many))
        data = msgspec.json.encode(Scores(many))
        self.assertIn("1000", str(raised(ValueError, Json(Scores).decode, data)))
        raised(ValueError, MessagePack(Scores).decode, msgspec.msgpack.encode(Scores(many)))

    def test_names_as_keys(self) -> None:
        """Of text and bytes as keys there may be any number: their hashes are salted."""
        names = {f"p{number}": number for number in range(5000)}
        digits = {str(number): number for number in range(5000)}
        for form in (Json(), anything, Json(dict[str, int]), MessagePack(), any_packed):
            self.same(form, names)
            self.same(form, digits)
        self.same(Json(Scores), Scores({1: 1}, names))
        self.same(MessagePack(), {str(number).encode(): number for number in range(5000)})

    def test_missing_extras(self) -> None:
        """Without the library, a format says in one line what to install, when it is made."""

        class New(msgspec.Struct):
            x: int

        missing: list[tuple[str, Callable[[], object]]] = [
            ("msgpack", MessagePack),
            ("msgspec", lambda: Json(New)),
            ("msgspec", lambda: MessagePack(New)),
        ]
        modules = sys.modules
        for name, make in missing:
            self.patch(sys, "modules", {**modules, name: None})
            error = raised(ImportError, make)
            self.assertEqual(
                str(error), f"this message format needs pip install 'fastway[{name}]'"
            )
            self.assertTrue(error.__suppress_context__)
            self.assertEqual(Json().decode(Json().encode([1])), [1])

    def test_encoded(self) -> None:
        """Bytes that are encoded already are a value of their own."""
        self.assertEqual(Encoded(b"a"), Encoded(b"a"))
        self.assertNotEqual(Encoded(b"a"), b"a")
        raised(AttributeError, setattr, Encoded(b"a"), "data", b"b")

    def test_names(self) -> None:
        """The library's own package has the formats too."""
        for kind in (Bytes, Encoded, Json, MessageFormat, MessagePack, ProtocolBuffers, Text):
            self.assertIs(getattr(fastway.endpoint, kind.__name__), kind)

    @DETERMINISTIC
    @given(msgpack_values)
    def test_message_pack(self, message: Any) -> None:
        """What MessagePack can say comes out again, maps with numbers as keys too."""
        self.same(MessagePack(), message)

    def test_message_pack_bytes(self) -> None:
        """MessagePack is what other languages write."""
        self.assertEqual(MessagePack().encode({"a": 1}), bytes.fromhex("81a16101"))
        self.assertEqual(MessagePack().decode(bytes.fromhex("81a16101")), {"a": 1})

    def test_message_pack_refusals(self) -> None:
        """What is no single MessagePack value is refused, whatever size it announces."""
        raised(TypeError, MessagePack().encode, object())
        raised(OverflowError, MessagePack().encode, 2**64)
        for data in (b"", b"\x01\x01", b"\x92\x01", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xa1\xff"):
            raised(ValueError, MessagePack().decode, data)
            raised(ValueError, any_packed.decode, data)

    def test_message_pack_keys(self) -> None:
        """Keys are scalars: others have hashes that a peer can choose, or none."""
        for key in (msgpack.Timestamp(1), msgpack.ExtType(5, b"x")):
            for data in (b"\x81" + msgpack.packb(key) + b"\x01", b"\x81\x91\x01\x01"):
                for form in (MessagePack(), any_packed, MessagePack(dict[int, Any])):
                    raised(ValueError, form.decode, data)
            self.same(MessagePack(), [key])
        for scalar in (None, True, 7, -7, 1.5, "a", b"a"):
            self.same(MessagePack(), {scalar: [{scalar: 1}]})

    def test_message_pack_depth(self) -> None:
        """Lists and maps in one another have a bound, also where a type has no place for them."""
        for form in several(MessagePack(), any_packed, MessagePack(Tree), MessagePack(Move)):
            for piece in (b"\x91", b"\x81\x01", b"\x92\xc0", b"\x81\xa5inner\x91", b"\x81\xa1z"):
                for times in (50_000, MAX_DEPTH + 1):
                    raised(ValueError, form.decode, piece * times + b"\xc0")
        whole = b"\x91" * MAX_DEPTH + b"\xc0"
        many = b"\xdc\x03\xe8" + b"\x81\xa1a\x90" * 1000
        for form in (MessagePack(), any_packed):
            for data in (whole, many):
                self.assertEqual(form.encode(form.decode(data)), data)
            raised(ValueError, form.decode, b"\x91" + whole)
        unknown = b"\x82\xa4type\xa4Move\xa1z" + b"\x91" * 50_000
        self.assertIn("deep", str(raised(ValueError, MessagePack(Move).decode, unknown)))

    @DETERMINISTIC
    @given(text)
    def test_protocol_buffers(self, value: str) -> None:
        """A generated class's messages come out again."""
        self.same(ProtocolBuffers(StringValue), StringValue(value=value))

    def test_protocol_buffers_bytes(self) -> None:
        """Protocol Buffers are what other languages write."""
        form = ProtocolBuffers(StringValue)
        self.assertEqual(form.encode(StringValue(value="Hello")), b"\x0a\x05Hello")
        self.assertEqual(form.decode(b"\x0a\x05Hello").value, "Hello")

    def test_protocol_buffers_refusals(self) -> None:
        """Another class, a plain value, and what does not parse are refused."""
        form = ProtocolBuffers(StringValue)
        for message, name in ((Int32Value(value=1), "Int32Value"), ("x", "str")):
            error = str(raised(TypeError, form.encode, message))
            self.assertIn(name, error)
            self.assertIn("StringValue", error)
        for data in (b"\x0a\x05Hel", b"\xff", b"\x0a\x01\xff"):
            raised(Exception, form.decode, data)

    def test_protocol_buffers_into(self) -> None:
        """Another generated class may be asked for, and the format may be open for all."""
        form = ProtocolBuffers(Message)
        data = form.encode(Int32Value(value=5))
        self.assertEqual(form.decode(data, Int32Value).value, 5)
        self.assertEqual(ProtocolBuffers(StringValue).decode(data, into=Int32Value).value, 5)
        raised(TypeError, form.decode, data, into=int)
        raised(TypeError, ProtocolBuffers, int)
        raised(TypeError, ProtocolBuffers, StringValue())

    def test_protocol_buffers_keys(self) -> None:
        """Maps with numbers as keys have the same bound, in messages within messages too."""
        kind = maps(4)
        form = ProtocolBuffers(kind)
        few = kind(of={key << 32 | key: 1 for key in range(MAX_NUMBER_KEYS)})
        many = kind(of={key << 32 | key: 1 for key in range(MAX_NUMBER_KEYS + 1)})
        self.same(form, few)
        self.same(form, kind(inner=few, of=few.of))
        for message in (many, kind(inner=kind(inner=many))):
            raised(ValueError, form.decode, message.SerializeToString())
            self.assertIn("1000", str(raised(ValueError, form.encode, message)))
        # A message that comes in pieces is one message.
        piece = kind(inner=kind(of=dict.fromkeys(range(501), 1))).SerializeToString()
        other = kind(inner=kind(of=dict.fromkeys(range(600, 1100), 1))).SerializeToString()
        raised(ValueError, form.decode, piece + other)
        names = maps(9)
        self.same(ProtocolBuffers(names), names(of={str(key): 1 for key in range(5000)}))

    def test_protocol_buffers_depth(self) -> None:
        """Messages within messages without end are refused."""
        kind = maps(4)
        data = b""
        for _ in range(300):
            data = b"\x12" + bytes([len(data) & 127 | 128, len(data) >> 7]) + data
        raised(Exception, ProtocolBuffers(kind).decode, data)

    @DETERMINISTIC
    @given(st.binary(max_size=40) | brackets | packed)
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes decode to a message that can be sent on and is the same, or raise."""
        forms: list[MessageFormat[Any]] = [
            *(Bytes(), Text(), Json(), anything, Json(dict[str, float]), Json(Tree)),
            *(MessagePack(), any_packed, MessagePack(dict[int, Any]), MessagePack(Tree)),
            ProtocolBuffers(StringValue),
        ]
        for form in forms:
            try:
                message = form.decode(data)
            except Exception:
                continue
            sent = form.encode(message)
            self.assertEqual(form.encode(form.decode(sent)), sent)

    @DETERMINISTIC
    @given(json_values)
    def test_any_json(self, message: Any) -> None:
        """What JSON can say, in anybody's spelling, is the same with a type."""
        for ascii_only in (False, True):
            data = json.dumps(message, ensure_ascii=ascii_only).encode()
            self.assertEqual(anything.decode(data), Json().decode(data))
        self.same(anything, message)

    @DETERMINISTIC
    @given(msgpack_values)
    def test_any_message_pack(self, message: Any) -> None:
        """The same of MessagePack."""
        self.same(any_packed, message)

    @DETERMINISTIC
    @given(st.integers(-(2**63), 2**63 - 1), st.floats(-1e300, 1e300), text)
    def test_any_struct(self, x: int, y: float, name: str) -> None:
        """Structs come out again, whatever is in them."""
        for form in (Json(Move), MessagePack(Move)):
            self.same(form, Move(x, y, [name]))

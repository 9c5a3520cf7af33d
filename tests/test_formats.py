"""Message formats: what is encoded comes out again, and what is no message is refused."""

from __future__ import annotations

import importlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.endpoint import Bytes, Json, MessageFormat, MessagePack, ProtocolBuffers, Text
from tests.support.core import DETERMINISTIC
from tests.support.errors import raised

StringValue: Any = importlib.import_module("google.protobuf.wrappers_pb2").StringValue
Int32Value: Any = importlib.import_module("google.protobuf.wrappers_pb2").Int32Value

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


class Formats(SynchronousTestCase):
    """Each format, both ways."""

    def same(self, form: MessageFormat, message: Any) -> None:
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

    def test_json_depth(self) -> None:
        """Brackets without end are an error, not a crash."""
        raised(RecursionError, Json().decode, b"[" * 200_000)

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

    @DETERMINISTIC
    @given(st.binary(max_size=40))
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes decode to a message that can be sent on, or raise an ordinary error."""
        forms = (Bytes(), Text(), Json(), MessagePack(), ProtocolBuffers(StringValue))
        for form in forms:
            try:
                message = form.decode(data)
            except Exception:
                continue
            form.encode(message)

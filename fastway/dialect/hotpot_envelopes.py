"""What hotpot's messages stand in: a name and data, in JSON, Protocol Buffers or MessagePack.

    JSON             {"type":"Echo","data":{"Message":"hi"}}
    Protocol Buffers 1 string name, 2 bytes data
    MessagePack      [name, ext 27: data]

Rule: payloads in, names and bodies out, and back; no lengths and no state. What is no message is
None, as Go drops it, and costs time in proportion to its length. (spec hotpot.md 3)
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from fastway.dialect import BodyFormat, Refused
from fastway.dialect.go_json import GoJson
from fastway.dialect.pomelo_packets import varint
from fastway.errors import NotInstalled
from fastway.formats import MessagePack, ProtocolBuffers

ERROR = "Error"
"""The name of hotpot's only answer of its own; with `code` and `msg`."""

EXT = 27
"""The type of MessagePack's ext that data is in: what msgpack-lite uses for a Buffer."""

MAX_NAME = 255
"""Bytes of a name; longer ones are none."""

MAX_CODE = (1 << 63) - 1
"""The largest code of an Error: Go's int. Its sign may be either."""


class Read(NamedTuple):
    """A message.

    Attributes:
        name: As the wire has it.
        body: Its data.
        format: How that is written.
        refused: It is an Error, which was looked for.
    """

    name: str
    body: bytes
    format: BodyFormat
    refused: Refused | None = None


# A third of the time that Read(...) takes.
_read: Callable[[tuple[Any, ...]], Read] = partial(tuple.__new__, Read)


class Envelope(Protocol):
    """One of the three.

    Attributes:
        format: How data is written.
        nothing: The data of Ping and Pong.
        pongs: Go answers a Ping in it.
    """

    @property
    def format(self) -> BodyFormat: ...

    @property
    def nothing(self) -> bytes: ...

    @property
    def pongs(self) -> bool: ...

    def head(self, name: str) -> bytes:
        """What is sent of a name, for `wrap`; it may be kept. Raises UnicodeEncodeError."""

    def wrap(self, head: bytes, body: bytes) -> bytes:
        """A message."""

    def error(self, refused: Refused) -> bytes:
        """An Error."""

    def read(self, payload: bytes, errors: bool) -> Read | None:
        """A message of the peer; None: it is none.

        Args:
            errors: Whether to look for Errors, which only servers send.
        """


class HotpotJson(GoJson):
    """Messages are plain JSON, or what msgspec makes of it: `pip install 'fastway[app]'`.

    Empty data is null, which hotpot makes of it before a handler sees it.
    """

    def decode(self, data: bytes, into: Any = None) -> Any:
        return super().decode(data or b"null", into)

    def quick(self, into: Any) -> Callable[[bytes], Any] | None:
        return self._decoder(into) if type(self) is HotpotJson else None


class QuotedJson(HotpotJson):
    """As `HotpotJson`, where the data was a string: a body is what stood between its quotes.

    Such a body may be JSON itself, as hotpot's handlers take it. A type that has a place for the
    string gets that; where none is asked for, JSON goes first.
    """

    def decode(self, data: bytes, into: Any = None) -> Any:
        if into is None or into is Any:
            try:
                return super().decode(data)
            except ValueError:
                return data.decode()
        try:
            return super().decode(json.dumps(data.decode()).encode(), into)
        except ValueError:
            return super().decode(data, into)


_QUOTE = ord('"')
_ERROR_HEAD = b'{"type":"Error","data":'


class JsonEnvelope:
    """{"type": name, "data": anything}, and for errors {"type":"Error","code":…,"msg":…}."""

    nothing = b"{}"
    pongs = True

    def __init__(self) -> None:
        self.format: BodyFormat = HotpotJson()
        self._quoted = QuotedJson()
        msgspec = importlib.import_module("msgspec")
        data = ("data", msgspec.Raw, msgspec.Raw())
        usual = msgspec.defstruct("Envelope", [("type", str, ""), data])
        other = msgspec.defstruct("Envelope", [("type", msgspec.Raw, msgspec.Raw()), data])
        self._read = msgspec.json.Decoder(usual).decode
        self._read_other = msgspec.json.Decoder(other).decode
        self._is_other: type[ValueError] = msgspec.ValidationError
        self._read_text = msgspec.json.Decoder(str).decode
        error = msgspec.defstruct("Error", [("code", int), ("msg", str)])
        self._read_error = msgspec.json.Decoder(error).decode

    def head(self, name: str) -> bytes:
        return b'{"type":' + json.dumps(name, ensure_ascii=False).encode() + b',"data":'

    def wrap(self, head: bytes, body: bytes) -> bytes:
        if head == _ERROR_HEAD and body[:1] == b"{" and len(body) > 2:
            return b'{"type":"Error",' + body[1:]
        return b"%b%b}" % (head, body or b"null")

    def error(self, refused: Refused) -> bytes:
        code, text = _facts(refused)
        said = {"type": ERROR, "code": code, "msg": text}
        return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()

    def read(self, payload: bytes, errors: bool) -> Read | None:
        try:
            try:
                said = self._read(payload)
                name = said.type
            except self._is_other:
                said = self._read_other(payload)
                name = self._name(bytes(said.type))
            data = bytes(said.data)
            if not 0 < len(name) <= MAX_NAME:
                return None
            if data:
                if data[0] == _QUOTE:
                    return Read(name, self._read_text(data).encode(), self._quoted)
                return _read((name, b"" if data == b"null" else data, self.format, None))
            if errors and name == ERROR:
                error = self._read_error(payload)
                return Read(name, payload, self.format, Refused(error.code, error.msg))
        except (ValueError, RecursionError):
            pass
        return None

    def _name(self, raw: bytes) -> str:
        """One that is no string: the text of a number or a truth; other things are none."""
        return "" if raw[:1] in (b"{", b"[", b"n", b'"') else raw.decode()


class ProtobufEnvelope:
    """The message ProtoWarpper. An Error is {1 int64 code, 2 string msg}, which Go has none of."""

    nothing = b""
    pongs = True

    def __init__(self) -> None:
        try:
            message = importlib.import_module("google.protobuf.message")
        except ModuleNotFoundError:
            raise NotInstalled("hotpot with Protocol Buffers", "protobuf", "protobuf") from None
        self.format: BodyFormat = ProtocolBuffers(message.Message)
        self._wrapper, self._error = _protobuf_classes()
        self._failed = message.DecodeError

    def head(self, name: str) -> bytes:
        head: bytes = self._wrapper(name=name).SerializeToString()
        return head

    def wrap(self, head: bytes, body: bytes) -> bytes:
        return head + b"\x12" + varint(len(body)) + body if body else head

    def error(self, refused: Refused) -> bytes:
        code, text = _facts(refused)
        said = self._error(code=code, msg=text).SerializeToString()
        return self.wrap(self.head(ERROR), said)

    def read(self, payload: bytes, errors: bool) -> Read | None:
        try:
            said = self._wrapper.FromString(payload)
            name, body = said.name, said.data
            if not 0 < len(name) <= MAX_NAME:
                return None
            if errors and name == ERROR:
                error = self._error.FromString(body)
                return Read(name, body, self.format, Refused(error.code, error.msg))
        except self._failed:
            return None
        return _read((name, body, self.format, None))


class MessagePackEnvelope:
    """[name, ext 27]. An Error is {"code": …, "msg": …}, which Go has none of."""

    nothing = b"\x80"
    pongs = False

    def __init__(self) -> None:
        self.format: BodyFormat = MessagePack(Any)
        struct = importlib.import_module("msgspec").defstruct
        codec = importlib.import_module("msgspec.msgpack")
        self._ext, self._write = codec.Ext, codec.encode
        pair: Any = tuple
        self._read = codec.Decoder(pair[str, codec.Ext]).decode
        error = struct("Error", [("code", int), ("msg", str)])
        self._read_error = codec.Decoder(error).decode

    def head(self, name: str) -> bytes:
        head: bytes = self._write(name)
        return b"\x92" + head

    def wrap(self, head: bytes, body: bytes) -> bytes:
        data: bytes = self._write(self._ext(EXT, body))
        return head + data

    def error(self, refused: Refused) -> bytes:
        code, text = _facts(refused)
        said = self._write({"code": code, "msg": text})
        return self.wrap(self.head(ERROR), said)

    def read(self, payload: bytes, errors: bool) -> Read | None:
        try:
            name, data = self._read(payload)
        except (ValueError, RecursionError):
            return None
        if data.code != EXT or not 0 < len(name) <= MAX_NAME:
            return None
        body: bytes = data.data
        if errors and name == ERROR:
            try:
                error = self._read_error(body)
            except (ValueError, RecursionError):  # a message of the application, of that name
                pass
            else:
                return Read(name, body, self.format, Refused(error.code, error.msg))
        return _read((name, body, self.format, None))


ENVELOPES: dict[str, type[JsonEnvelope | ProtobufEnvelope | MessagePackEnvelope]] = {
    "json": JsonEnvelope,
    "protobuf": ProtobufEnvelope,
    "msgpack": MessagePackEnvelope,
    # As Go calls them too.
    "proto": ProtobufEnvelope,
    "msgpack#js": MessagePackEnvelope,
}


def _facts(refused: Refused) -> tuple[int, str]:
    """Its code and its text, as far as the wire can say them."""
    code = max(-MAX_CODE, min(refused.code, MAX_CODE))
    return code, refused.text.encode(errors="replace").decode()


def _protobuf_classes() -> tuple[Any, Any]:
    """The classes of the wrapper and of an Error."""
    descriptors = importlib.import_module("google.protobuf.descriptor_pb2")
    pool = importlib.import_module("google.protobuf.descriptor_pool").DescriptorPool()
    factory = importlib.import_module("google.protobuf.message_factory")
    file = descriptors.FileDescriptorProto(name="hotpot.proto", syntax="proto3")
    field = descriptors.FieldDescriptorProto
    for message, fields in (
        ("Wrapper", (("name", field.TYPE_STRING), ("data", field.TYPE_BYTES))),
        ("Error", (("code", field.TYPE_INT64), ("msg", field.TYPE_STRING))),
    ):
        made = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields, 1):
            made.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
    pool.Add(file)
    wrapper, error = (
        factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in ("Wrapper", "Error")
    )
    return wrapper, error

"""Frames of teleport v6: raw, JSON and Protocol Buffers, on a stream and in WebSocket messages.

    u32 size, u8 n, n filter ids, what went through the filters       on a stream
    a message of JSON or Protocol Buffers, whose body went through    in a WebSocket message

Rule: bytes only; no state, no names, no formats. Whatever a peer sent costs time in proportion to
its length, and becomes a Frame or a BadFrame. (spec teleport.md, 3 and 4)
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct, error
from typing import Any, NamedTuple, Protocol, TypeAlias

from fastway.dialect import BadFrame, FrameRefused
from fastway.dialect.teleport_fields import MAX_FIELD, OK_STATUS, read_seq, write_seq
from fastway.dialect.teleport_filters import MAX_FILTERS, Filter, pack, unpack
from fastway.formats import Json

CALL, REPLY, PUSH, AUTH_CALL, AUTH_REPLY = 1, 2, 3, 4, 5

HEAD = 4
MIN_SIZE = 5

_size = Struct(">I")
_short = Struct(">H")


class Frame(NamedTuple):
    """One message.

    Attributes:
        mtype: What it is: CALL and so on; others too, as they come.
        status, meta: Text, as it is on the wire.
        codec: The id of how the body is written; 0: there is none.
        filters: What it went through, the outermost first.
    """

    mtype: int
    seq: int
    method: bytes = b""
    status: bytes = OK_STATUS
    meta: bytes = b""
    codec: int = 0
    body: bytes = b""
    filters: bytes = b""


# A third of the time that Frame(...) takes.
_frame: Callable[[tuple[Any, ...]], Frame] = partial(tuple.__new__, Frame)


class Framing(Protocol):
    """How frames are written.

    Attributes:
        streamed: They are parts of a stream; False: each is a message of its own.
    """

    @property
    def streamed(self) -> bool: ...

    def size(self, data: bytes, at: int) -> int:
        """Bytes of the frame whose first four are there, with these."""

    def write(self, frame: Frame, filters: Mapping[int, Filter], limit: int) -> bytes:
        """Raises FrameRefused: it is longer than `limit`."""

    def read(self, data: bytes, filters: Mapping[int, Filter], limit: int) -> Frame:
        """One whole frame. Raises BadFrame."""


class _Streamed:
    """A size, filters, and a payload that went through them."""

    streamed = True
    _beside = 0  # bytes of the size that it does not count

    def size(self, data: bytes, at: int) -> int:
        size: int = _size.unpack_from(data, at)[0] + self._beside
        if size < MIN_SIZE:
            raise BadFrame(f"a frame of {size} bytes, which is not even a head")
        return size

    def write(self, frame: Frame, filters: Mapping[int, Filter], limit: int) -> bytes:
        ids = frame.filters
        payload = self.payload(frame)
        if ids:
            payload = pack(filters, ids, payload)
        size = HEAD + 1 + len(ids) + len(payload)
        if size > limit:
            raise FrameRefused(f"a frame of {size} bytes: at most {limit} are sent")
        return b"".join((_size.pack(size - self._beside), bytes((len(ids),)), ids, payload))

    def read(self, data: bytes, filters: Mapping[int, Filter], limit: int) -> Frame:
        start = HEAD + 1 + data[HEAD]
        if start > len(data):
            raise BadFrame("a frame that ends within its filters")
        ids = data[HEAD + 1 : start]
        payload = data[start:]
        if ids:
            payload = unpack(filters, ids, payload, limit)
        return self.frame(payload, ids)

    def payload(self, frame: Frame) -> bytes:
        raise NotImplementedError

    def frame(self, payload: bytes, filters: bytes) -> Frame:
        raise NotImplementedError


class Raw(_Streamed):
    """The default of Go."""

    def write(self, frame: Frame, filters: Mapping[int, Filter], limit: int) -> bytes:
        if frame.filters:
            return super().write(frame, filters, limit)
        data = self._bytes(frame, 5)
        if len(data) > limit:
            raise FrameRefused(f"a frame of {len(data)} bytes: at most {limit} are sent")
        return data

    def payload(self, frame: Frame) -> bytes:
        return self._bytes(frame, 0)

    def _bytes(self, frame: Frame, before: int) -> bytes:
        """What is in it; behind its size, and that it has no filters, which are `before` bytes."""
        mtype, seq, method, status, meta, codec, body, _ = frame
        number = write_seq(seq)
        fixed = before + 8 + len(number) + len(method) + len(status) + len(meta)
        head = (
            _size.pack(fixed + len(body)) + bytes((0, len(number)))
            if before
            else bytes((len(number),))
        )
        return b"".join(
            (
                head,
                number,
                bytes((mtype, len(method))),
                method,
                _short.pack(len(status)),
                status,
                _short.pack(len(meta)),
                meta,
                bytes((codec,)),
                body,
            )
        )

    def frame(self, payload: bytes, filters: bytes) -> Frame:
        try:
            at = 1 + payload[0]
            seq = read_seq(payload[1:at])
            mtype = payload[at]
            start, at = at + 2, at + 2 + payload[at + 1]
            method = payload[start:at]
            start, at = at + 2, at + 2 + _short.unpack_from(payload, at)[0]
            status = payload[start:at]
            start, at = at + 2, at + 2 + _short.unpack_from(payload, at)[0]
            meta = payload[start:at]
            codec = payload[at]
        except (IndexError, error):
            raise BadFrame("a frame that ends within its fields") from None
        return _frame((mtype, seq, method, status, meta, codec, payload[at + 1 :], filters))


# JSON: bodies may be any bytes, which is no JSON, so only a Go reader and this one take them all.

_TO_ESCAPE = re.compile(rb'["\\\x00-\x1f]')
_BODY = b',"body":"'
_BEHIND = b'","xferPipe":'


def _escaped(found: re.Match[bytes]) -> bytes:
    one = found[0]
    return b"\\" + one if one in b'"\\' else rb"\u00%02x" % ord(one)


def _string(data: bytes) -> bytes:
    return _TO_ESCAPE.sub(_escaped, data)


_json: Any = None


def _read_json(data: bytes, into: Any) -> Any:
    global _json
    if _json is None:
        _json = Json(Any)
    return _json.decode(data, into)


def _fields(payload: bytes) -> tuple[dict[str, Any], bytes]:
    """What a JSON message says, and its body.

    Go escapes nothing in a body but quotes. What is JSON all the same is taken for that, as Go
    itself does; but for a JSON body that would not be JSON then, and all other messages that are
    none, the body is what stands between its quotes, as a Go peer wrote it.
    """
    try:
        said = _read_json(payload, dict[str, Any])
    except Exception:
        return _binary(payload) or _recovered(payload)
    body = said.get("body", "")
    if not isinstance(body, str):
        return said, _bare(payload)
    data = body.encode("utf-8", "surrogatepass")
    if said.get("bodyCodec") == ord("j") and data and not _is_json(data):
        try:
            return _recovered(payload)
        except BadFrame:
            pass
    return said, data


def _binary(payload: bytes) -> tuple[dict[str, Any], bytes] | None:
    """The same, of JSON whose body is no text but escaped as one; None: it is not."""
    try:
        said = json.loads(payload.decode("utf-8", "surrogateescape"), parse_int=_short_number)
        return said, said.get("body", "").encode("utf-8", "surrogateescape")
    except Exception:
        return None


def _short_number(digits: str) -> int:
    return int(digits[:20])


def _is_json(data: bytes) -> bool:
    try:
        _read_json(data, Any)
    except Exception:
        return False
    return True


def _bare(payload: bytes) -> bytes:
    """A body that is no string but a JSON value itself."""
    raw: Any = importlib.import_module("msgspec").Raw
    body = bytes(_read_json(payload, dict.__class_getitem__((str, raw)))["body"])
    return b"" if body == b"null" else body


def _recovered(payload: bytes) -> tuple[dict[str, Any], bytes]:
    start = payload.find(_BODY)
    end = payload.rfind(_BEHIND)
    if end < start or start < 0:
        end = len(payload.rstrip()) - 2
    first = start + len(_BODY)
    if start < 0 or end < first or payload[end : end + 1] != b'"':
        raise BadFrame("a message that is no JSON")
    try:
        said = _read_json(payload[:start] + payload[end + 1 :], dict[str, Any])
    except Exception:
        raise BadFrame("a message that is no JSON") from None
    return said, payload[first:end].replace(b'\\"', b'"')


def _number(said: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = said.get(name, 0)
    if type(value) is not int or not least <= value <= most:
        raise BadFrame(f"a message whose {name} is no number that it can have")
    return value


def _text(said: Mapping[str, Any], name: str, most: int) -> bytes:
    value = said.get(name, "")
    data = value.encode("utf-8", "replace") if isinstance(value, str) else None
    if data is None or len(data) > most:
        raise BadFrame(f"a message whose {name} is no text that it can have")
    return data


def _json_frame(payload: bytes, filters: bytes) -> tuple[Frame, dict[str, Any]]:
    said, body = _fields(payload)
    frame = Frame(
        _number(said, "mtype", 0, 255),
        _number(said, "seq", -(2**31), 2**31 - 1),
        _text(said, "serviceMethod", MAX_FIELD),
        _text(said, "status", MAX_FIELD),
        _text(said, "meta", MAX_FIELD),
        _number(said, "bodyCodec", 0, 255),
        body,
        filters,
    )
    return frame, said


class JsonFrames(_Streamed):
    """Go's jsonproto."""

    _beside = HEAD

    def payload(self, frame: Frame) -> bytes:
        mtype, seq, method, status, meta, codec, body, _ = frame
        return (
            b'{"seq":%d,"mtype":%d,"serviceMethod":"%b","status":"%b","meta":"%b",'
            b'"bodyCodec":%d,"body":"%b"}'
        ) % (seq, mtype, _string(method), _string(status), meta, codec, _string(body))

    def frame(self, payload: bytes, filters: bytes) -> Frame:
        return _json_frame(payload, filters)[0]


class _Message:
    """A WebSocket message; only the body goes through the filters."""

    streamed = False

    def size(self, data: bytes, at: int) -> int:
        return len(data) - at

    def write(self, frame: Frame, filters: Mapping[int, Filter], limit: int) -> bytes:
        if frame.filters:
            frame = frame._replace(body=pack(filters, frame.filters, frame.body))
        data = self.message(frame)
        if len(data) > limit:
            raise FrameRefused(f"a message of {len(data)} bytes: at most {limit} are sent")
        return data

    def read(self, data: bytes, filters: Mapping[int, Filter], limit: int) -> Frame:
        frame = self.frame(data)
        if frame.filters:
            frame = frame._replace(body=unpack(filters, frame.filters, frame.body, limit))
        return frame

    def message(self, frame: Frame) -> bytes:
        raise NotImplementedError

    def frame(self, data: bytes) -> Frame:
        raise NotImplementedError


class JsonMessages(_Message):
    """Go's jsonSubProto. It has no status: an error's stands behind, where Go does not look."""

    def message(self, frame: Frame) -> bytes:
        mtype, seq, method, status, meta, codec, body, ids = frame
        more = b"" if status in (b"", OK_STATUS) else b',"status":"%b"' % _string(status)
        return (
            b'{"seq":%d,"mtype":%d,"serviceMethod":"%b","meta":"%b","bodyCodec":%d,"body":"%b",'
            b'"xferPipe":[%b]%b}'
        ) % (
            seq,
            mtype,
            _string(method),
            meta,
            codec,
            _string(body),
            b",".join(b"%d" % one for one in ids),
            more,
        )

    def frame(self, data: bytes) -> Frame:
        frame, said = _json_frame(data, b"")
        ids = said.get("xferPipe") or []
        if not isinstance(ids, list) or len(ids) > MAX_FILTERS:
            raise BadFrame(f"more than {MAX_FILTERS} filters, or none of them a number")
        if any(type(one) is not int or not 0 <= one <= 255 for one in ids):
            raise BadFrame("a filter that is no number of 8 bits")
        return frame._replace(filters=bytes(ids))


# Protocol Buffers.


def varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


Values: TypeAlias = "tuple[int | bytes, ...]"


def write_field(number: int, value: int | bytes) -> bytes:
    if not value:
        return b""
    if isinstance(value, int):
        return bytes((number << 3,)) + varint(value)
    return bytes((number << 3 | 2,)) + varint(len(value)) + value


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        one = data[at]
        at += 1
        value |= (one & 0x7F) << shift
        shift += 7
        if one < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        if shift > 63:
            raise BadFrame("a number of more than 64 bits")


def read_fields(data: bytes) -> dict[int, int | bytes]:
    """The last of each field counts, and those of other kinds do not."""
    said: dict[int, int | bytes] = {}
    at, end = 0, len(data)
    try:
        while at < end:
            tag, at = read_varint(data, at)
            number, kind = tag >> 3, tag & 7
            if kind == 0:
                value, at = read_varint(data, at)
                if number < 16:
                    said[number] = value
            elif kind == 2:
                size, at = read_varint(data, at)
                start, at = at, at + size
                if number < 16 and at <= end:
                    said[number] = data[start:at]
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:
                raise BadFrame("a message that is no Protocol Buffers")
            if not number or at > end:
                raise BadFrame("a message that is no Protocol Buffers")
    except IndexError:
        raise BadFrame("a message that ends within a field") from None
    return said


def _int(said: Mapping[int, int | bytes], number: int) -> int:
    value = said.get(number, 0)
    if isinstance(value, bytes):
        raise BadFrame(f"field {number} is no number")
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value


def _bytes(said: Mapping[int, int | bytes], number: int) -> bytes:
    value = said.get(number, b"")
    if isinstance(value, int):
        raise BadFrame(f"field {number} is a number")
    return value


def _byte(said: Mapping[int, int | bytes], number: int) -> int:
    value = _int(said, number)
    if not 0 <= value <= 255:
        raise BadFrame(f"field {number} is no number of 8 bits")
    return value


class ProtoFrames(_Streamed):
    """Go's pbproto."""

    _beside = HEAD

    def payload(self, frame: Frame) -> bytes:
        mtype, seq, method, status, meta, codec, body, _ = frame
        values: Values = (seq, mtype, method, status, meta, codec, body)
        return b"".join(write_field(number, value) for number, value in enumerate(values, 1))

    def frame(self, payload: bytes, filters: bytes) -> Frame:
        said = read_fields(payload)
        return Frame(
            _byte(said, 2),
            _int(said, 1),
            _bytes(said, 3),
            _bytes(said, 4),
            _bytes(said, 5),
            _byte(said, 6),
            _bytes(said, 7),
            filters,
        )


class ProtoMessages(_Message):
    """Go's pbSubProto; field 8 is the status of an error, as in `JsonMessages`."""

    def message(self, frame: Frame) -> bytes:
        mtype, seq, method, status, meta, codec, body, ids = frame
        status = b"" if status == OK_STATUS else status
        values: Values = (seq, mtype, method, meta, codec, body, ids, status)
        return b"".join(write_field(number, value) for number, value in enumerate(values, 1))

    def frame(self, data: bytes) -> Frame:
        said = read_fields(data)
        return Frame(
            _byte(said, 2),
            _int(said, 1),
            _bytes(said, 3),
            _bytes(said, 8),
            _bytes(said, 4),
            _byte(said, 5),
            _bytes(said, 6),
            _bytes(said, 7),
        )


FRAMINGS: Mapping[str, tuple[Framing, Framing]] = {
    "raw": (Raw(), Raw()),
    "json": (JsonFrames(), JsonMessages()),
    "pb": (ProtoFrames(), ProtoMessages()),
}
"""Name -> on a stream, in WebSocket messages. Go's raw frames go over WebSocket as they are."""

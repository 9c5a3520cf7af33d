"""Frames of teleport v6 in thrift's THeader: Go's thriftproto. (spec teleport.md, 4)

    u32 size, 0f ff, u16 flags, u32 seq, u16 words of header    what its transport says
    0, 0, Tp-Status, Tp-Meta, Tp-BodyCodec, Tp-XferPipe         binary protocol, no transforms
    80 01 00 type, method, u32 seq, u32 length, body            a message of that protocol

Rule: as that of `teleport_frames`. Nothing of thrift is needed here: what is in a body is its
codec's, and filters are teleport's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct

from fastway.dialect import BadFrame, FrameRefused, NotInDialect
from fastway.dialect.teleport_fields import MAX_FIELD
from fastway.dialect.teleport_filters import Filter, pack, unpack
from fastway.dialect.teleport_frames import CALL, HEAD, PUSH, REPLY, Frame

_TYPES = {1: CALL, 2: REPLY, 4: PUSH}
_NUMBERS = {mtype: number for number, mtype in _TYPES.items()}
_MAGIC = 0x0FFF
_BINARY = 0x80010000

_size = Struct(">I")
_head = Struct(">HHiH")
_two = Struct(">II")
_seq_size = Struct(">iI")

_START = HEAD + _head.size
_STATUS, _META, _CODEC, _PIPE = b"Tp-Status", b"Tp-Meta", b"Tp-BodyCodec", b"Tp-XferPipe"


class ThriftFrames:
    """Go's thriftproto with bodies of any codec: on a stream alone."""

    streamed = True

    def size(self, data: bytes, at: int) -> int:
        size: int = _size.unpack_from(data, at)[0]
        return HEAD + size

    def read(self, data: bytes, filters: Mapping[int, Filter], limit: int) -> Frame:
        if len(data) < _START:
            raise BadFrame("a frame of thrift that is not even a head")
        magic, _, _, words = _head.unpack_from(data, HEAD)
        if magic != _MAGIC:
            raise BadFrame("a frame of thrift that has no header")
        start = _START + 4 * words
        said = _headers(data, start)
        mtype, seq, method, body = _message(data, start)
        meta, codec, ids = said.get(_META, b""), said.get(_CODEC, b"")[:1], said.get(_PIPE, b"")
        if len(meta) > MAX_FIELD:
            raise BadFrame(f"more than {MAX_FIELD} bytes of meta")
        if ids:
            body = unpack(filters, ids, body, limit)
        status = said.get(_STATUS, b"")
        return Frame(mtype, seq, method, status, meta, codec[0] if codec else 0, body, ids)

    def write(self, frame: Frame, filters: Mapping[int, Filter], limit: int) -> bytes:
        mtype, seq, method, status, meta, codec, body, ids = frame
        number = _NUMBERS.get(mtype)
        if number is None:
            raise NotInDialect("thriftproto has no place for who one is")
        if ids:
            body = pack(filters, ids, body)
        pairs = ((_STATUS, status), (_META, meta), (_CODEC, bytes((codec,))), (_PIPE, ids))
        header = b"\0\0\1" + bytes((len(pairs),))
        header += b"".join(_text(one) for pair in pairs for one in pair)
        header += bytes(-len(header) % 4)
        said = _two.pack(_BINARY | number, len(method)) + method + _seq_size.pack(seq, len(body))
        size = _head.size + len(header) + len(said) + len(body)
        if HEAD + size > limit or len(header) // 4 > 0xFFFF:
            raise FrameRefused(f"a frame of {HEAD + size} bytes: at most {limit} are sent")
        head = _head.pack(_MAGIC, 0, seq, len(header) // 4)
        return b"".join((_size.pack(size), head, header, said, body))


def _message(data: bytes, at: int) -> tuple[int, int, bytes, bytes]:
    """Type, seq, method and body."""
    begin = at + _two.size
    if begin > len(data):
        raise BadFrame("a frame of thrift that ends before its message")
    version, length = _two.unpack_from(data, at)
    mtype = _TYPES.get(version & 0xFF)
    if version & 0xFFFFFF00 != _BINARY or mtype is None:
        raise BadFrame("a frame of thrift with no message that is known")
    end = begin + length
    if end + _seq_size.size > len(data):
        raise BadFrame("a frame of thrift that ends within its method")
    seq, size = _seq_size.unpack_from(data, end)
    body = data[end + _seq_size.size :]
    if len(body) != size:
        raise BadFrame(f"a body of {size} bytes, of which {len(body)} are there")
    return mtype, seq, data[begin:end], body


def _headers(data: bytes, end: int) -> dict[bytes, bytes]:
    """What stands in a header, by its names."""
    if end > len(data):
        raise BadFrame("a frame of thrift that ends within its header")
    protocol, at = _varint(data, _START, end)
    transforms, at = _varint(data, at, end)
    if protocol or transforms:
        raise BadFrame("a frame of thrift in another protocol, or through a transform")
    said: dict[bytes, bytes] = {}
    while at < end and data[at] == 1:  # pairs; 0 is padding, and what others say is not for us
        count, at = _varint(data, at + 1, end)
        for _ in range(count):
            name, at = _string(data, at, end)
            said[name], at = _string(data, at, end)
    return said


def _string(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    length, at = _varint(data, at, end)
    if at + length > end:
        raise BadFrame("a frame of thrift that ends within its header")
    return data[at : at + length], at + length


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 35:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise BadFrame("a frame of thrift whose header has no such number")


def _text(data: bytes) -> bytes:
    size, head = len(data), b""
    while size > 0x7F:
        head += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return head + bytes((size,)) + data

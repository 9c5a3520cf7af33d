"""Frames of teleport v6 in the words of thrift: Go's thriftproto, the binary one.

    u32 size, THeader with what stands beside the body, a message of thrift with the body as binary

Rule: as `teleport_frames`. Of thrift there is its head, in the binary protocol and without its own
compression, which Go's peers never have; bodies are the codecs' business. (spec teleport.md, 4)
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct, error

from fastway.dialect import BadFrame, FrameRefused, NotInDialect
from fastway.dialect.teleport_fields import MAX_FIELD, OK_STATUS
from fastway.dialect.teleport_filters import Filter, pack, unpack
from fastway.dialect.teleport_frames import CALL, HEAD, PUSH, REPLY, Frame, read_varint, varint

MAGIC = 0x0FFF
"""Of THeader; flags stand behind it, of which there are none."""

BINARY = 0
"""The protocol that a message is written in, by THeader's numbers."""

INFO = 1
"""The kind of what stands beside it: names and values."""

VERSION = 0x8001_0000
"""Of the binary protocol; the type of the message is in its last byte."""

_TYPES = {CALL: 1, REPLY: 2, PUSH: 4}
_MTYPES = {kind: mtype for mtype, kind in _TYPES.items()}

_STATUS, _META, _CODEC, _PIPE = b"Tp-Status", b"Tp-Meta", b"Tp-BodyCodec", b"Tp-XferPipe"

_begin = Struct(">IHHiH")
_size = Struct(">I")
_seq = Struct(">i")


class ThriftFrames:
    """Go's thriftproto: on a stream alone."""

    streamed = True

    def size(self, data: bytes, at: int) -> int:
        size: int = _size.unpack_from(data, at)[0] + HEAD
        if size < _begin.size:
            raise BadFrame(f"a frame of {size} bytes, which is not even a head")
        return size

    def write(self, frame: Frame, filters: Mapping[int, Filter], limit: int) -> bytes:
        mtype, seq, method, status, meta, codec, body, ids = frame
        kind = _TYPES.get(mtype)
        if kind is None:
            raise NotInDialect("thriftproto has no AUTH")
        if ids:
            body = pack(filters, ids, body)
        head = bytes((BINARY, 0, INFO, 4)) + b"".join(
            varint(len(text)) + text
            for name, value in (
                (_STATUS, status),
                (_META, meta),
                (_CODEC, bytes((codec,))),
                (_PIPE, ids),
            )
            for text in (name, value)
        )
        head += bytes(-len(head) % 4)
        said = b"".join(
            (
                _size.pack(VERSION | kind),
                _size.pack(len(method)),
                method,
                _seq.pack(seq),
                _size.pack(len(body)),
                body,
            )
        )
        size = _begin.size + len(head) + len(said)
        if size > limit:
            raise FrameRefused(f"a frame of {size} bytes: at most {limit} are sent")
        return _begin.pack(size - HEAD, MAGIC, 0, seq, len(head) // 4) + head + said

    def read(self, data: bytes, filters: Mapping[int, Filter], limit: int) -> Frame:
        try:
            beside, at = _beside(data)
            (kind,) = _size.unpack_from(data, at)
            method, at = _sized(data, at + 4)
            (seq,) = _seq.unpack_from(data, at)
            body, at = _sized(data, at + 4)
        except (IndexError, error):
            raise BadFrame("a frame that ends within its fields") from None
        mtype = _MTYPES.get(kind - VERSION)
        if mtype is None:
            raise BadFrame("a message of thrift that is no call, answer or push")
        if at != len(data):
            raise BadFrame("more behind a message of thrift")
        status, meta = beside.get(_STATUS, OK_STATUS), beside.get(_META, b"")
        if max(map(len, (method, status, meta))) > MAX_FIELD:
            raise BadFrame(f"a field of more than {MAX_FIELD} bytes")
        codec, ids = beside.get(_CODEC, b"")[:1], beside.get(_PIPE, b"")
        if ids:
            body = unpack(filters, ids, body, limit)
        return Frame(mtype, seq, method, status, meta, codec[0] if codec else 0, body, ids)


def _beside(data: bytes) -> tuple[dict[bytes, bytes], int]:
    """What stands beside a message, by its names; and where that begins.

    Raises:
        BadFrame, IndexError, struct.error: that is none.
    """
    _, magic, _, _, words = _begin.unpack_from(data)
    end = _begin.size + 4 * words
    if magic != MAGIC or end > len(data):
        raise BadFrame("a frame that is no THeader")
    head = data[:end]
    protocol, at = read_varint(head, _begin.size)
    transforms, at = read_varint(head, at)
    if protocol != BINARY or transforms:
        raise BadFrame("a message of thrift that is not in its binary protocol, or compressed")
    found: dict[bytes, bytes] = {}
    while at < end:
        kind, at = read_varint(head, at)
        if kind != INFO:  # what pads it, or what nobody knows the length of
            break
        count, at = read_varint(head, at)
        for _ in range(count):  # each takes bytes, which end
            name, at = _text(head, at)
            found[name], at = _text(head, at)
    return found, end


def _text(head: bytes, at: int) -> tuple[bytes, int]:
    size, at = read_varint(head, at)
    if size > len(head) - at:
        raise IndexError
    return head[at : at + size], at + size


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    (size,) = _size.unpack_from(data, at)
    at += 4
    if size > len(data) - at:
        raise IndexError
    return data[at : at + size], at + size

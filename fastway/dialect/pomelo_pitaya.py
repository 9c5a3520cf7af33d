"""What pitaya adds to pomelo's messages: compressed payloads, and answers that are errors.

Rule: pure functions of bytes. What a peer compressed costs no more than the limit of a packet.
(its conn/message, util/compression and protos/error.proto: an error is a code, which is text, and
a text; PIT-404 and the like are its own codes)
"""

from __future__ import annotations

import zlib
from typing import Any

from fastway.dialect import BadFrame, BodyFormat, Refused
from fastway.dialect.pomelo_json import PomeloJson
from fastway.dialect.pomelo_packets import GZIP, varint
from fastway.formats import ProtocolBuffers

UNKNOWN = 500
"""The code of an error that has no number."""

_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32
_COMPRESSED = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b")


def looks_compressed(data: bytes) -> bool:
    """Whether these bytes begin as zlib's or gzip's do: nothing else tells it of a handshake."""
    return data.startswith(_COMPRESSED)


def inflate(data: bytes, limit: int) -> bytes:
    """What zlib or gzip packed, as pitaya's versions do; what is behind its end does not count.

    Raises:
        BadFrame: neither did, or it is more than `limit` bytes.
    """
    stream = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        out = stream.decompress(data, limit + 1)
    except zlib.error:
        raise BadFrame("a message that is said to be compressed, and is not") from None
    if len(out) > limit:
        raise BadFrame(f"a compressed message of more than {limit} bytes")
    if not stream.eof:
        raise BadFrame("a compressed message that is cut off")
    return out


def deflate(head: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """A message's head and payload, which is compressed where that makes it shorter."""
    packed = zlib.compress(payload)
    if len(packed) >= len(payload):
        return head, payload
    return bytes((head[0] | GZIP,)) + head[1:], packed


def serializer(format: BodyFormat) -> str:
    """What pitaya's clients call a format."""
    return "protobuf" if isinstance(format, ProtocolBuffers) else "json"


def write_error(refused: Refused, format: BodyFormat) -> bytes:
    """An error, as that format's serializer writes it."""
    code = f"PIT-{refused.code:03}" if 0 <= refused.code < 1000 else str(refused.code)
    if not isinstance(format, ProtocolBuffers):
        return PomeloJson().encode({"code": code, "msg": refused.text})
    return b"".join(
        bytes((number << 3 | 2,)) + varint(len(text)) + text
        for number, text in enumerate((code.encode(), refused.text.encode()), 1)
    )


def read_error(body: bytes, format: BodyFormat) -> Refused:
    """What an error says. There is always something: it is an error, whatever is in it."""
    try:
        binary = isinstance(format, ProtocolBuffers)
        said: Any = _read_texts(body) if binary else PomeloJson().decode(body)
        code, text = str(said.get("code", "")), str(said.get("msg", ""))
    except Exception:
        return Refused(UNKNOWN, "an error that is not understood", body)
    number = code.removeprefix("PIT-")
    if number.isascii() and number.isdigit() and len(number) < 10:
        return Refused(int(number), text, said)
    return Refused(UNKNOWN, f"{code}: {text}", said)


def _read_texts(body: bytes) -> dict[str, str]:
    """Fields 1 and 2 of a Protocol Buffers message that has only maps beside them."""
    names = {1: "code", 2: "msg"}
    texts: dict[str, str] = {}
    at = 0
    while at < len(body):
        tag, size, shift = body[at], 0, 0
        at += 1
        while body[at] > 0x7F:
            size |= (body[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
        size |= body[at] << shift
        at, end = at + 1, at + 1 + size
        if tag & 7 != 2 or end > len(body) or shift > 28:
            raise ValueError("no error of pitaya")
        if tag >> 3 in names:
            texts[names[tag >> 3]] = body[at:end].decode()
        at = end
    return texts

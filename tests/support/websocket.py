"""WebSocket as a client writes and reads it, and the vectors that every machine of frames passes.

Rule: written by the book (RFC 6455) and slowly. Nothing of `fastway.websocket` is used, so that it
tests that, and whatever else does the same.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace

from fastway.errors import Reason

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455, section 1.3,"""

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""and what answers it."""

MASK = b"\x37\xfa\x21\x3d"
"""The mask of its section 5.7."""

HEADERS = {
    "Host": "game.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}

BROWSER = {
    "Host": "game.example",
    "Connection": "keep-alive, Upgrade",
    "Pragma": "no-cache",
    "Cache-Control": "no-cache",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0",
    "Upgrade": "websocket",
    "Origin": "https://game.example",
    "Sec-WebSocket-Version": "13",
    "Accept-Encoding": "gzip, deflate, br",
    "Accept-Language": "en-GB,en;q=0.9",
    "Cookie": "session=caf\xe9",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
    "Sec-WebSocket-Protocol": "chat, fastway",
}
"""What a browser sends."""


def request(
    first: str = "GET / HTTP/1.1", headers: dict[str, str] = HEADERS, **more: str | None
) -> bytes:
    """A request. `more` replaces headers, `_` for `-`; None leaves one out."""
    fields = {name.lower(): value for name, value in headers.items()}
    for name, value in more.items():
        fields.pop(name.replace("_", "-"), None)
        if value is not None:
            fields[name.replace("_", "-")] = value
    lines = [first, *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def frame(
    payload: bytes = b"",
    opcode: int = 2,
    *,
    fin: bool = True,
    mask: bytes | None = MASK,
    bits: int = 0,
    width: int | None = None,
    length: int | None = None,
) -> bytes:
    """A frame.

    Args:
        mask: None: it is not masked.
        bits: The reserved bits, as a number of three.
        width: Bytes of the long form of its length, 0, 2 or 8; None: the shortest.
        length: What it announces, if not the truth.
    """
    size = len(payload) if length is None else length
    if width is None:
        width = 0 if size < 126 else 2 if size < 0x10000 else 8
    first = fin << 7 | bits << 4 | opcode
    second = {0: size, 2: 126, 8: 127}[width] | (0 if mask is None else 0x80)
    head = bytes((first, second)) + (size.to_bytes(width, "big") if width else b"")
    if mask is None:
        return head + payload
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return head + mask + masked


def closing(code: int, text: bytes = b"") -> bytes:
    """A client's Close."""
    return frame(code.to_bytes(2, "big") + text, 8)


@dataclass(frozen=True)
class Vector:
    """What a client sends, and what a server makes of it.

    Attributes:
        payload: The bytes of all messages up to its end.
        pong: The payload of the last Ping's; None: there was none.
        closed: There was a Close, and what came behind it is not looked at.
        broken: Why the rest is not understood.
    """

    name: str
    sent: bytes
    payload: bytes = b""
    pong: bytes | None = None
    closed: bool = False
    broken: Reason | None = None


LIMIT = 1 << 20
"""Bytes that a frame may announce, for the vectors."""

_LONG = bytes(range(256)) * 300


def _broken(name: str, sent: bytes, reason: Reason = Reason.BAD_FRAME) -> Vector:
    """Bytes that are no frames, behind some that are, and before others."""
    return Vector(name, frame(b"before") + sent + frame(b"after"), b"before", broken=reason)


VECTORS = [
    Vector("nothing", b""),
    Vector("the book's Hello, as binary", bytes.fromhex("828537fa213d7f9f4d5158"), b"Hello"),
    Vector("the book's Ping", bytes.fromhex("898537fa213d7f9f4d5158"), pong=b"Hello"),
    Vector("an empty message", frame(), b""),
    Vector("no mask to speak of", frame(b"abc", mask=bytes(4)), b"abc"),
    *(
        Vector(f"{size} bytes", frame(_LONG[:size]), _LONG[:size])
        for size in (1, 3, 4, 5, 124, 125, 126, 127, 128, 65535, 65536, 65537)
    ),
    Vector("two messages", frame(b"ab") + frame(b"cd", mask=b"wxyz"), b"abcd"),
    Vector("half a frame", frame(_LONG[:300])[:200], _LONG[:192]),
    Vector(
        "fragments",
        frame(b"a", fin=False) + frame(b"b", 0, fin=False) + frame(b"c", 0) + frame(b"d"),
        b"abcd",
    ),
    Vector(
        "empty fragments",
        frame(fin=False) + frame(b"", 0, fin=False) * 20 + frame(b"x", 0),
        b"x",
    ),
    Vector(
        "control frames between fragments",
        frame(b"a", fin=False)
        + frame(b"one", 9)
        + frame(b"b", 0, fin=False)
        + frame(b"?", 10)
        + frame(b"two", 9)
        + frame(b"c", 0),
        b"abc",
        pong=b"two",
    ),
    Vector("a Ping of 125 bytes", frame(bytes(125), 9), pong=bytes(125)),
    Vector("an empty Ping", frame(b"", 9), pong=b""),
    Vector("a Pong that nobody asked for", frame(b"hi", 10) + frame(b"x"), b"x"),
    Vector("a Close", frame(b"", 8) + frame(b"x"), closed=True),
    Vector("a Close inside a message", frame(b"a", fin=False) + frame(b"", 8), b"a", closed=True),
    Vector("behind a Close", frame(b"x") + closing(1000) + b"\xff" * 9, b"x", closed=True),
    *(
        Vector(f"a Close with {code}", closing(code, "b\xfce".encode()), closed=True)
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 3000, 4999)
    ),
    Vector("the longest Close", closing(1000, b"x" * 123), closed=True),
    *(
        _broken(f"a Close with {code}", closing(code))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65535)
    ),
    _broken("half a code", frame(b"\x03", 8)),
    *(
        _broken(f"{text!r} in a Close", closing(1000, text), Reason.NOT_UTF8)
        for text in (b"\xff", b"ab\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80")
    ),
    _broken("no mask", frame(b"x", mask=None)),
    _broken("an empty frame without a mask", frame(b"", mask=None)),
    _broken("a Ping without a mask", frame(b"x", 9, mask=None)),
    _broken("text", frame(b"x", 1), Reason.NOT_BINARY),
    _broken("fragments of text", frame(b"x", 1, fin=False), Reason.NOT_BINARY),
    *(_broken(f"reserved bits {bits}", frame(b"x", bits=bits)) for bits in (1, 2, 4, 7)),
    _broken("a reserved bit of a Ping", frame(b"x", 9, bits=4)),
    *(
        _broken(f"opcode {opcode}", frame(b"x", opcode))
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ),
    _broken("a Ping in fragments", frame(b"x", 9, fin=False)),
    _broken("a Close in fragments", frame(b"", 8, fin=False)),
    _broken("a Ping of 126 bytes", frame(bytes(126), 9)),
    _broken("a Ping with a long length", frame(b"x", 9, width=2)),
    _broken("a Pong of 70 000 bytes", frame(bytes(70_000), 10)),
    _broken("nothing to continue", frame(b"x", 0)),
    _broken("the end of nothing", frame(b"x", 0, fin=False)),
    Vector(
        "a message inside a message",
        frame(b"a", fin=False) + frame(b"b") + frame(b"c", 0),
        b"a",
        broken=Reason.BAD_FRAME,
    ),
    _broken("125 in two bytes", frame(bytes(125), width=2)),
    _broken("125 in eight bytes", frame(bytes(125), width=8)),
    _broken("65535 in eight bytes", frame(bytes(65535), width=8)),
    _broken("64 bits of length", frame(b"x", width=8, length=1 << 63)),
    _broken("over the limit", frame(b"x", length=LIMIT + 1), Reason.FRAME_TOO_LARGE),
    _broken("far over it", frame(b"x", length=(1 << 63) - 1), Reason.FRAME_TOO_LARGE),
    Vector("at the limit", frame(b"x", length=LIMIT), b"x"),
]
"""Names are told apart, and all hold however the bytes are cut."""


def server_frames(data: bytes) -> list[tuple[int, bytes]]:
    """The frames that a server sent, as opcode and payload; all are whole and unmasked.

    Raises:
        AssertionError: they are not.
    """
    found = []
    while data:
        opcode, size, at = data[0] & 15, data[1], 2
        assert data[0] & 0xF0 == 0x80 and size < 128, data[:4].hex()
        if size > 125:
            at += 2 if size == 126 else 8
            size, least = int.from_bytes(data[2:at], "big"), 126 if size == 126 else 0x10000
            assert size >= least
        assert len(data) >= at + size, "half a frame"
        found.append((opcode, data[at : at + size]))
        data = data[at + size :]
    return found


# The same the other way round: what a client makes of a server's frames.


def accept_of(request: bytes) -> str:
    """What a request's answer has to show."""
    (key,) = (
        line.partition(b":")[2].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(key + guid).digest()).decode()


def unmasked(data: bytes) -> bytes:
    """A client's frames as a server would have sent them, as far as they are there."""
    made = b""
    while len(data) >= 2:
        width = {126: 2, 127: 8}.get(data[1] & 0x7F, 0)
        at = 2 + width
        size = int.from_bytes(data[2:at], "big") if width else data[1] & 0x7F
        mask, payload = data[at : at + 4], data[at + 4 : at + 4 + size]
        made += bytes((data[0], data[1] & 0x7F)) + data[2:at]
        made += bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        data = data[at + 4 + size :]
    return made + data


SERVER_VECTORS = [
    *(
        replace(vector, sent=unmasked(vector.sent))
        for vector in VECTORS
        if "mask" not in vector.name
    ),
    Vector("the book's Hello of a server, as binary", b"\x82\x05Hello", b"Hello"),
    Vector("the book's Ping of a server", b"\x89\x05Hello", pong=b"Hello"),
    *(
        Vector(
            name,
            frame(b"before", mask=None) + sent + frame(b"after", mask=None),
            b"before",
            broken=Reason.BAD_FRAME,
        )
        for name, sent in (
            ("a mask", frame(b"x")),
            ("an empty frame with a mask", frame(b"")),
            ("a Ping with a mask", frame(b"x", 9)),
            ("a Close with a mask", closing(1000)),
        )
    ),
]
"""What a server sends, and what a client makes of it."""


def client_frames(data: bytes) -> list[tuple[int, bytes]]:
    """The frames that a client sent, as opcode and payload; all are whole and masked.

    Raises:
        AssertionError: they are not.
    """
    found = []
    while data:
        opcode, size, at = data[0] & 15, data[1] - 0x80, 2
        assert data[0] & 0xF0 == 0x80 and size >= 0, data[:4].hex()
        if size > 125:
            at += 2 if size == 126 else 8
            size, least = int.from_bytes(data[2:at], "big"), 126 if size == 126 else 0x10000
            assert size >= least
        mask, payload = data[at : at + 4], data[at + 4 : at + 4 + size]
        assert len(payload) == size, "half a frame"
        found.append((opcode, bytes(b ^ mask[n % 4] for n, b in enumerate(payload))))
        data = data[at + 4 + size :]
    return found

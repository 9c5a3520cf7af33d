"""The HTTP request that asks for a WebSocket, its answer, and the answers that refuse it.

    reader = RequestReader()
    found = reader.feed(data)  # None: more is wanted
    request, rest = found
    answer = accept(request, Policy())  # or HandshakeRefused, whose `answer` is sent instead

Rule: bytes in, bytes out, time linear in the bytes, and never over MAX_REQUEST is kept. Strict:
what could be read in two ways is refused. How long a request may take is the caller's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastway.errors import Reason, RemoteError

MAX_REQUEST = 8 * 1024
"""Bytes of a request, the empty line at its end included."""

MAX_HEADERS = 64
"""Header lines of a request,"""

MAX_NAME = 64
"""bytes of the name of one,"""

MAX_VALUE = 4 * 1024
"""and of its value."""

SUBPROTOCOL = "fastway"

HTTP = b"http/1.1"
"""What a WebSocket begins as, by its name in TLS (ALPN)."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"/[!$-~]*", re.ASCII)  # visible, and no quotation mark nor #
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z_.~-]+)(?::(\d{1,5}))?")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[0-9a-z_.~-]+)(?::(\d{1,5}))?")
_PORTS = {"http": "80", "ws": "80", "https": "443", "wss": "443"}

_ONCE = ("host", "origin", "sec-websocket-key", "sec-websocket-version", "content-length")
"""Headers of which a second one could mean anything; other ones are lists."""

_STATUS = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    426: "Upgrade Required",
    429: "Too Many Requests",
    503: "Service Unavailable",
}

_MORE = {
    405: "Allow: GET\r\n",
    426: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    429: "Retry-After: 10\r\n",
    503: "Retry-After: 10\r\n",
}

_TEXTS = {
    400: "This is no WebSocket handshake that can be answered.",
    403: "Pages of this origin may not connect.",
    404: "There is nothing here.",
    405: "Only GET begins a WebSocket.",
    426: "This is a WebSocket: ask for version 13.",
    429: "Too many connections; try again later.",
    503: "The gateway takes nobody now; try again later.",
}


class HandshakeRefused(RemoteError):
    """A request that is not answered by a WebSocket.

    Args:
        status: The HTTP status, one of those of `refusal`.
        problem: What is wrong, for the log: one line, of bounded length.
    """

    reason = Reason.HANDSHAKE_REFUSED

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(f"{status}: {problem}")
        self.status = status
        self.answer = refusal(status)


def refusal(status: int) -> bytes:
    """The whole answer to a request that is refused: 400, 403, 404, 405, 426, 429 or 503."""
    text = f"{status} {_STATUS[status]}: {_TEXTS[status]}\n"
    connection = "Upgrade, close" if status == 426 else "close"
    return (
        f"HTTP/1.1 {status} {_STATUS[status]}\r\n"
        f"Connection: {connection}\r\n{_MORE.get(status, '')}"
        "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
        f"Cache-Control: no-store\r\nContent-Length: {len(text)}\r\n\r\n{text}"
    ).encode("ascii")


# The request.


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request's head.

    Attributes:
        target: As it was asked for: a path, and perhaps a query.
        version: `HTTP/1.1`.
        headers: Lower-case name -> value; several of one name are joined by a comma.
    """

    method: str
    target: str
    version: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def tokens(self, name: str) -> list[str]:
        """The members of a header that is a list, as they were written."""
        members = self.headers.get(name, "").split(",")
        return [member.strip(" \t") for member in members if member.strip(" \t")]


class RequestReader:
    """Takes a request's bytes until its head is whole. How long that may take is the caller's."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> tuple[Request, bytes] | None:
        """Take bytes of the peer.

        Returns:
            The request and the bytes behind it; None: more is wanted.

        Raises:
            HandshakeRefused: it is none. Nothing more may be fed.
        """
        buffer = self._buffer
        searched = max(0, len(buffer) - 3)
        buffer += data
        if buffer and not 0x41 <= buffer[0] <= 0x5A:
            raise HandshakeRefused(400, "it does not begin as HTTP")
        end = buffer.find(b"\r\n\r\n", searched)
        if end + 4 > MAX_REQUEST or (end < 0 and len(buffer) >= MAX_REQUEST):
            raise HandshakeRefused(400, f"the request is over {MAX_REQUEST} bytes")
        if end < 0:
            return None
        return parse_request(buffer[:end].decode("latin-1")), bytes(buffer[end + 4 :])


def parse_request(head: str) -> Request:
    """A request's head, in Latin-1, without the empty line at its end.

    Raises:
        HandshakeRefused: it is none, or has more than its bounds allow.
    """
    first, *lines = head.split("\r\n")
    method, _, more = first.partition(" ")
    target, _, version = more.partition(" ")
    if not _TOKEN.fullmatch(method) or version not in ("HTTP/1.0", "HTTP/1.1"):
        raise HandshakeRefused(400, "its first line is none of HTTP/1")
    if not _TARGET.fullmatch(target):
        raise HandshakeRefused(400, "its target is no path")
    try:
        headers = parse_headers(lines, _ONCE)
    except ValueError as error:
        raise HandshakeRefused(400, str(error)) from None
    return Request(method, target, version, headers)


def parse_headers(lines: Sequence[str], once: Sequence[str]) -> dict[str, str]:
    """The headers of a head, by their names in lower case; several of one name are joined.

    Args:
        once: Those of which there may be one.

    Raises:
        ValueError: they are none, or more than their bounds allow. The text is one line.
    """
    if len(lines) > MAX_HEADERS:
        raise ValueError(f"it has {len(lines)} headers, over {MAX_HEADERS}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or len(name) > MAX_NAME or not _TOKEN.fullmatch(name):
            raise ValueError("a header has no proper name")
        name, value = name.lower(), value.strip(" \t")
        if len(value) > MAX_VALUE or not _VALUE.fullmatch(value):
            raise ValueError(f"its {name} header has no proper value")
        if name not in headers:
            headers[name] = value
        elif name in once:
            raise ValueError(f"it has two {name} headers")
        else:
            headers[name] += ", " + value
    return headers


# The answer.


@dataclass(frozen=True, slots=True)
class Policy:
    """What a request must ask for.

    Attributes:
        path: The path of its target; empty: any.
        origins: Whose pages may connect: origins in lower case (`https://game.example`), `null`,
            `same` for that of the Host header, `*` for all. A request without an Origin is no
            page's, and may.
        subprotocol: What is agreed to; other offers are refused. Empty: nothing is, and offers
            are ignored.
    """

    path: str = "/"
    origins: tuple[str, ...] = ("same",)
    subprotocol: str = SUBPROTOCOL


def accept(request: Request, policy: Policy) -> bytes:
    """The answer to a request for a WebSocket.

    Raises:
        HandshakeRefused: it is refused.
    """
    headers = request.headers
    if request.method != "GET":
        raise HandshakeRefused(405, f"method {request.method[:20]}")
    if request.version != "HTTP/1.1" or "host" not in headers:
        raise HandshakeRefused(400, "it is not HTTP/1.1 with a Host")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise HandshakeRefused(400, "it has a body")
    host = _HOST.fullmatch(headers["host"].lower())
    if host is None:
        raise HandshakeRefused(400, "its Host is none")
    if policy.path not in ("", request.path):
        raise HandshakeRefused(404, f"path {_shown(request.path)}, not {policy.path}")
    if not (_has(request, "connection", "upgrade") and _has(request, "upgrade", "websocket")):
        raise HandshakeRefused(426, "it does not ask for a WebSocket")
    if headers.get("sec-websocket-version") != "13":
        raise HandshakeRefused(426, "it asks for another version than 13")
    if not _allowed(headers.get("origin"), host, policy.origins):
        shown = _shown(headers["origin"])
        raise HandshakeRefused(403, f"origin {shown}, which client-ws-origins does not name")
    key = headers.get("sec-websocket-key", "")
    if not _is_key(key):
        raise HandshakeRefused(400, "its key is not 16 bytes in base64")
    offered = request.tokens("sec-websocket-protocol")
    agreed = policy.subprotocol
    if agreed and offered and agreed not in offered:
        raise HandshakeRefused(400, f"it offers other subprotocols: {_shown(offered[0])}")
    answer = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n"
    )
    if agreed and offered:
        answer += f"Sec-WebSocket-Protocol: {agreed}\r\n"
    return f"{answer}\r\n".encode("ascii")


def accept_key(key: str) -> str:
    """What a server shows to have read the client's key (RFC 6455, section 4.2.2)."""
    made = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(made).decode("ascii")


def origin_of(text: str) -> str | None:
    """An origin in the one form in which origins are compared, or None: it is none."""
    text = text.lower()
    if text == "null":
        return text
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, host, port = match.groups()
    return f"{scheme}://{host}" if port in (None, _PORTS.get(scheme)) else text


def _allowed(given: str | None, host: re.Match[str], origins: tuple[str, ...]) -> bool:
    if given is None or "*" in origins:
        return True
    origin = origin_of(given)
    if origin is None:
        return False
    if origin in origins:
        return True
    if "same" not in origins or origin == "null":
        return False
    scheme = origin.partition(":")[0]
    return origin == origin_of(f"{scheme}://{host[0]}")


def _has(request: Request, name: str, token: str) -> bool:
    return token in (member.lower() for member in request.tokens(name))


def _is_key(key: str) -> bool:
    try:
        return len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."

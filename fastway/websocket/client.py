"""A WebSocket to a gateway, the client's side: its handshake, and the frames behind it.

    machine = ClientMachine(WebSocket("/game"), "game.example:9080")
    write(machine.begin())
    payload = machine.receive(data)  # then write data_to_send(), and look at `up` and `ended`
    write(machine.wrap(payload))
    write(machine.close())

Rule: bytes in, bytes out; no clock and no socket, time linear in the bytes, and never more is kept
than an answer's head. The answer is a gateway's or it is none: what could be another's is refused.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastway.errors import NoWebSocket, WebSocketRefused
from fastway.websocket.frames import ClientFrames, Frames
from fastway.websocket.machine import Machine
from fastway.websocket.request import (
    MAX_HEADERS,
    MAX_REQUEST,
    SUBPROTOCOL,
    accept_key,
    origin_of,
    parse_headers,
)

HANDSHAKE_TIMEOUT = 10.0
"""Seconds from the connection to the answer's end, TLS included."""

MAX_RETRY = 24 * 3600
"""Seconds that an answer may ask to wait; more is not believed."""

PORTS = {"ws": 80, "wss": 443}

_PATH = re.compile(r"/[!$-~]*", re.ASCII)
_URL = re.compile(
    r"(?P<scheme>wss?)://(?P<host>\[[0-9a-f:.]+\]|[0-9a-z_.~-]+)(?::(?P<port>[0-9]{0,5}))?"
    r"(?P<path>/[^#]*)?(?P<query>\?[^#]*)?",
    re.I | re.ASCII,
)
_HOST = re.compile(r"[!-.0-~]{1,300}", re.ASCII)  # visible, and no slash
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_VALUE = re.compile(r"[\t\x20-\x7e]{0,4096}")
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?")
_OURS = re.compile(
    r"(?i)host|origin|upgrade|connection|content-.*|transfer-encoding|te|trailer|expect"
    r"|sec-websocket-.*"
)
"""Headers that nobody else sets."""
_ONCE = ("upgrade", "sec-websocket-accept", "sec-websocket-protocol", "retry-after", "location")


@dataclass(frozen=True)
class WebSocket:
    """What is asked for, besides the host.

    Attributes:
        path: It, and perhaps a query: `/game?token=x`.
        origin: Whose page this says to be, `https://game.example`; "": no page's.
        headers: Further ones, such as `{"Authorization": "Bearer ..."}`.
        subprotocol: What the server must agree to; empty: nothing is offered.

    Raises:
        ValueError: it cannot be asked for.
    """

    path: str = "/"
    origin: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    subprotocol: str = SUBPROTOCOL

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.path):
            raise ValueError(
                f"a path begins with / and has visible ASCII characters, others as %XX, and no "
                f"fragment; not {self.path!r}"
            )
        if self.origin and origin_of(self.origin) is None:
            raise ValueError(f"an origin is as https://game.example, not {self.origin!r}")
        for name, value in self.headers.items():
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise ValueError(f"header {name!r} has no proper name, or no proper value")
            if _OURS.fullmatch(name):
                raise ValueError(f"header {name!r} is not to be given; it is set here")
        if len(self.headers) > MAX_HEADERS - 8 or len(self.request("h" * 255, "")) > MAX_REQUEST:
            raise ValueError(f"the request is over {MAX_REQUEST} bytes, or {MAX_HEADERS} headers")

    def request(self, host: str, key: str) -> bytes:
        """The request's bytes."""
        headers = {
            "Host": host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
            **({"Sec-WebSocket-Protocol": self.subprotocol} if self.subprotocol else {}),
            **({"Origin": self.origin} if self.origin else {}),
            **self.headers,
        }
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        return f"GET {self.path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("ascii")


@dataclass(frozen=True)
class Url:
    """Where a `ws:` or `wss:` URL leads.

    Attributes:
        host: A name or an address, without brackets.
        path: With the query.
    """

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """
        Raises:
            ValueError: it is none. The text is one line.
        """
        parts = _URL.fullmatch(text)
        if parts is None:
            raise ValueError(
                f"{text!r} is not ws://host:port/path, nor wss://host:port/path, with a name or "
                "an address in ASCII and without a fragment"
            )
        secure = parts["scheme"].lower() == "wss"
        port = int(parts["port"] or PORTS["wss" if secure else "ws"])
        host = parts["host"].strip("[]")
        if not 1 <= port <= 65535:
            raise ValueError(f"{text!r}: a port is 1 to 65535, not {port}")
        if ":" in host:
            try:
                ipaddress.IPv6Address(host)
            except ValueError:
                raise ValueError(f"{text!r}: {host} is no IPv6 address") from None
        path = (parts["path"] or "/") + (parts["query"] or "")
        WebSocket(path)
        return cls(secure, host, port, path)

    def __str__(self) -> str:
        scheme = "wss" if self.secure else "ws"
        return f"{scheme}://{host_header(self.host, self.port, self.secure)}{self.path}"


def is_url(text: str) -> bool:
    """Whether it is meant to be the URL of a WebSocket."""
    return text.lower().startswith(("ws://", "wss://"))


def host_header(host: str, port: int, secure: bool) -> str:
    """What the Host header says, and a URL between `//` and the path.

    Raises:
        ValueError: that is no host.
    """
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    host = checked_host(f"[{host}]" if ":" in host else host)
    return host if port == PORTS["wss" if secure else "ws"] else f"{host}:{port}"


def checked_host(host: str) -> str:
    """What a Host header may say.

    Raises:
        ValueError: it may not.
    """
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is no host")
    return host


class ClientMachine(Machine):
    """One WebSocket, from the connection on.

    Args:
        wanted: What is asked for.
        host: What the Host header says.
        key: What the answer has to prove to have read; None: by chance, as it should be.
        frames: Those behind the handshake, if others than streams have.

    Raises:
        ValueError: that is no host.
    """

    _CUT_SHORT = "closed within the handshake; does that port speak it?"

    def __init__(
        self,
        wanted: WebSocket,
        host: str,
        key: bytes | None = None,
        frames: Frames | None = None,
    ) -> None:
        super().__init__(frames or ClientFrames())
        self._wanted = wanted
        self._host = checked_host(host)
        self._key = base64.b64encode(os.urandom(16) if key is None else key).decode("ascii")
        self._head = bytearray()

    def begin(self) -> bytes:
        """The request."""
        return self._wanted.request(self._host, self._key)

    # The answer.

    def _shake(self, data: bytes) -> bytes | None:
        head = self._head
        searched = max(0, len(head) - 3)
        head += data
        if not b"HTTP/1.".startswith(head[:7]):
            raise NoWebSocket("what is there does not speak HTTP; is that port for web pages?")
        end = head.find(b"\r\n\r\n", searched)
        if end + 4 > MAX_REQUEST or (end < 0 and len(head) >= MAX_REQUEST):
            raise NoWebSocket(f"the answer is over {MAX_REQUEST} bytes")
        if end < 0:
            return None
        text, rest = head[:end].decode("latin-1"), bytes(head[end + 4 :])
        self._head = bytearray()
        self._check(text)
        return rest

    def _check(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise NoWebSocket("the answer's first line is none of HTTP/1")
        minor, status = match[1], int(match[2])
        try:
            headers = parse_headers(lines, _ONCE)
        except ValueError as error:
            raise NoWebSocket(f"the answer cannot be read: {error}") from None
        if status >= 200:
            wait = headers.get("retry-after", "")
            seconds = int(wait) if wait.isascii() and wait.isdecimal() and len(wait) < 7 else None
            location = headers.get("location", "")
            raise WebSocketRefused(
                status,
                None if seconds is None or seconds > MAX_RETRY else seconds,
                location if len(location) <= 200 else f"{location[:200]}...",
            )
        if status != 101 or minor != "1":
            raise NoWebSocket(f"the answer is HTTP/1.{minor} {status}, not HTTP/1.1 101")
        if headers.get("upgrade", "").lower() != "websocket":
            raise NoWebSocket("the answer upgrades to something else")
        connection = headers.get("connection", "").lower().split(",")
        if "upgrade" not in (one.strip(" \t") for one in connection):
            raise NoWebSocket("the answer has no Connection: Upgrade")
        if headers.get("sec-websocket-accept") != accept_key(self._key):
            raise NoWebSocket("the answer does not prove that the request was read")
        if "sec-websocket-extensions" in headers:
            raise NoWebSocket("the answer has extensions that nobody asked for")
        agreed = self._wanted.subprotocol
        if headers.get("sec-websocket-protocol", "") != agreed:
            raise NoWebSocket(
                f"the answer does not agree to the subprotocol {agreed}; is that a gateway?"
                if agreed
                else "the answer agrees to a subprotocol that nobody offered"
            )

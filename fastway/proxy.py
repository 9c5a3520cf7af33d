"""The PROXY header, versions 1 and 2: who the client of a proxy is, in front of all its bytes.

    reader = HeaderReader()
    found = reader.feed(data)  # None: more is wanted
    header, rest = found       # or HeaderRefused
    data = encode_header(header)

Rule: bytes in, values out, and never over MAX_HEADER is kept. Strict, by haproxy's proxy-protocol
text of 2020/03/05: what it does not allow is refused, and nothing is guessed from the first bytes:
who may send a header, and must, is the caller's to know, and how long it may take.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct

from fastway.errors import Reason, RemoteError

MAX_LINE = 107
"""Bytes of a header of version 1, CRLF included."""

MAX_BLOCK = 2048
"""Bytes of one of version 2 behind its first 16."""

MAX_HEADER = 16 + MAX_BLOCK

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""How version 2 begins."""

_FIRST = b"PROXY "
"""How version 1 begins."""

_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|(TCP[46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) "
    rb"(0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n"
)
_FAMILIES = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}

_HEAD = Struct("!12sBBH")
_INET = Struct("!4s4sHH")
_INET6 = Struct("!16s16sHH")
_UNIX = Struct("!108s108s")
_TLV = Struct("!BH")
_SSL = Struct("!BI")

_LOCAL, _PROXY = 0x20, 0x21

_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL_INFO = 0x01, 0x02, 0x03, 0x05, 0x20
_SSL_VERSION, _SSL_CN = 0x21, 0x22
_ONCE = frozenset((_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL_INFO, _SSL_VERSION, _SSL_CN))

_MAPPED = bytes(10) + b"\xff\xff"
"""How an address of IPv4 begins that is written as one of IPv6."""

_CLIENT_SSL, _CERT_CONN, _CERT_SESS = 1, 2, 4

MAX_ID = 128
"""Bytes of a UNIQUE_ID."""

_SHOWN = 20
"""Bytes of what is no header that an error shows."""


class HeaderRefused(RemoteError):
    """What came is no header, or one that breaks the rules.

    Args:
        problem: What is wrong: one line, of bounded length.
        reason: PROXY_NOT_HEADER or PROXY_BAD_HEADER.
    """

    def __init__(self, problem: str, reason: Reason = Reason.PROXY_BAD_HEADER) -> None:
        super().__init__(problem)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Tls:
    """The TLS between a client and the proxy.

    Attributes:
        version: As OpenSSL names it: `TLSv1.3`.
        name: The common name of the client's certificate; empty: none, or none was told.
        verified: The client showed a certificate, now or when its session began, and the proxy
            has verified it.
    """

    version: str
    name: str
    verified: bool


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says.

    Attributes:
        source: The client, as operators write it: `host:port`, `[v6]:port`, the path of a unix
            socket (`unix` where it has none). Empty: the proxy speaks for itself, or does not
            know (LOCAL, UNKNOWN, AF_UNSPEC).
        destination: Where the client connected to; the same.
        alpn: What is spoken inside of the proxy's TLS.
        authority: The host name that the client asked for (SNI).
        unique_id: The proxy's own number of the connection.
        tls: None: there is none, or nothing was told of it.
    """

    source: str = ""
    destination: str = ""
    alpn: bytes = b""
    authority: str = ""
    unique_id: bytes = b""
    tls: Tls | None = None


NOBODY = Header()
"""That of a proxy which speaks for itself."""


class HeaderReader:
    """Takes bytes until a header is whole."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def began(self) -> bool:
        """A part of a header came."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> tuple[Header, bytes] | None:
        """Take bytes of the peer.

        Returns:
            The header and the bytes behind it; None: more is wanted.

        Raises:
            HeaderRefused: nothing more may be fed.
        """
        if self._buffer:
            data = self._buffer + data
        second = data.startswith(SIGNATURE)
        if second:
            size = _size_2(data)
        elif data.startswith(_FIRST):
            size = _size_1(data)
        elif SIGNATURE.startswith(data) or _FIRST.startswith(data):
            size = 0
        else:
            raise HeaderRefused(f"it begins with {data[:_SHOWN]!r}", Reason.PROXY_NOT_HEADER)
        if not size or len(data) < size:
            self._buffer = data  # below MAX_HEADER, in all three cases
            return None
        self._buffer = b""
        header = data[:size]
        return _parse_2(header) if second else _parse_1(header), data[size:]


# Version 1.


def _size_1(data: bytes) -> int:
    """The bytes of the header; 0: nobody knows yet."""
    end = data.find(b"\n", 0, MAX_LINE) + 1
    if not end and len(data) >= MAX_LINE:
        raise HeaderRefused(f"its line is over {MAX_LINE} bytes")
    return end


def _parse_1(line: bytes) -> Header:
    match = _LINE.fullmatch(line)
    if match is None:
        raise HeaderRefused("its line has not the form of version 1")
    family, *ends = match.groups()
    if family is None:
        return NOBODY
    try:
        here, there = (
            socket.inet_pton(_FAMILIES[family], host.decode("ascii")) for host in ends[:2]
        )
    except OSError:
        raise HeaderRefused(f"an address is none of {family.decode()}") from None
    ports = int(ends[2]), int(ends[3])
    if max(ports) > 65535:
        raise HeaderRefused("a port is over 65535")
    return Header(_name(here, ports[0]), _name(there, ports[1]))


# Version 2.


def _size_2(data: bytes) -> int:
    """The bytes of the header; 0: nobody knows yet."""
    if len(data) < _HEAD.size:
        # Refused as soon as it is clear, lest a proxy of the wrong kind wait for its deadline.
        if len(data) > 12:
            _check_command(data[12])
        return 0
    _, command, _, size = _HEAD.unpack_from(data)
    _check_command(command)
    if size > MAX_BLOCK:
        raise HeaderRefused(f"it has {size} bytes behind its first 16, over {MAX_BLOCK}")
    return _HEAD.size + int(size)


def _check_command(command: int) -> None:
    if command >> 4 != 2:
        raise HeaderRefused(f"its version is {command >> 4}, not 2")
    if command not in (_LOCAL, _PROXY):
        raise HeaderRefused(f"its command is {command & 15}")


def _parse_2(data: bytes) -> Header:
    _, command, family, _ = _HEAD.unpack_from(data)
    if command == _LOCAL or family == 0:
        return NOBODY  # whatever is in it
    if family == 0x11:
        shape = _INET
    elif family == 0x21:
        shape = _INET6
    elif family == 0x31:
        shape = _UNIX
    else:
        raise HeaderRefused(f"its addresses are of the kind 0x{family:02x}")
    place = _HEAD.size + shape.size
    if place > len(data):
        raise HeaderRefused("its addresses do not fit its length")
    if shape is _UNIX:
        here, there = (_path(name) for name in _UNIX.unpack_from(data, _HEAD.size))
    else:
        source, destination, *ports = shape.unpack_from(data, _HEAD.size)
        here, there = _name(source, ports[0]), _name(destination, ports[1])
    if place == len(data):
        return Header(here, there)
    return _with_values(data, place, here, there)


def _with_values(data: bytes, place: int, here: str, there: str) -> Header:
    """The header with what stands behind its addresses."""
    alpn = unique_id = b""
    authority = ""
    tls = None
    for kind, at, end in _values(data, place, len(data)):
        if kind == _CRC32C:
            _check_sum(data, at, end)
        elif kind == _ALPN:
            alpn = data[at:end]
        elif kind == _AUTHORITY:
            authority = _text(data[at:end], "host name")
        elif kind == _UNIQUE_ID:
            unique_id = data[at:end]
            if len(unique_id) > MAX_ID:
                raise HeaderRefused(f"its unique id is over {MAX_ID} bytes")
        elif kind == _SSL_INFO:
            tls = _tls(data, at, end)
    return Header(here, there, alpn, authority, unique_id, tls)


def _values(data: bytes, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, begin and end of each value between two places.

    Raises:
        HeaderRefused: they do not fill it, or one stands there twice that may not.
    """
    seen = set()
    while place < end:
        if place + _TLV.size > end:
            raise HeaderRefused("what follows its addresses ends inside a value's head")
        kind, size = _TLV.unpack_from(data, place)
        place += _TLV.size
        if place + size > end:
            raise HeaderRefused(f"its value of type 0x{kind:02x} is longer than what is left")
        if kind in _ONCE:
            if kind in seen:
                raise HeaderRefused(f"it has two values of type 0x{kind:02x}")
            seen.add(kind)
        yield kind, place, place + size
        place += size


def _tls(data: bytes, place: int, end: int) -> Tls | None:
    if end - place < _SSL.size:
        raise HeaderRefused("its TLS value is too short")
    client, failed = _SSL.unpack_from(data, place)
    version = name = ""
    for kind, at, until in _values(data, place + _SSL.size, end):
        if kind == _SSL_VERSION:
            version = _text(data[at:until], "TLS version")
        elif kind == _SSL_CN:
            name = _text(data[at:until], "common name")
    if not client & _CLIENT_SSL:
        return None
    verified = not failed and bool(client & (_CERT_CONN | _CERT_SESS))
    return Tls(version or "TLS", name, verified)


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise HeaderRefused(f"its {what} is not UTF-8") from None


def _name(packed: bytes, port: int) -> str:
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{port}"
    host = socket.inet_ntop(socket.AF_INET6, packed)
    if host.startswith("::ffff:") and "." in host:
        return f"{host[len('::ffff:') :]}:{port}"
    return f"[{host}]:{port}"


def _path(name: bytes) -> str:
    """The path of a unix socket; `@name` of an abstract one."""
    if name[:1] == b"\0" and any(name):
        name = b"@" + name[1:]
    return name.partition(b"\0")[0].decode("utf-8", "replace") or "unix"


# Writing.


def encode_header(header: Header, more: Iterable[tuple[int, bytes]] = ()) -> bytes:
    """A header of version 2.

    Args:
        header: An end that is no IP address is a unix socket's; where only one is known the other
            is all zeros.
        more: Values of other types, which follow.

    Raises:
        ValueError: it is too long.
    """
    family, addresses = _ends(header.source, header.destination)
    parts = [addresses]
    named = (
        (_ALPN, header.alpn),
        (_AUTHORITY, header.authority.encode()),
        (_UNIQUE_ID, header.unique_id),
        (_SSL_INFO, b"" if header.tls is None else _tls_value(header.tls)),
    )
    parts += [_value(kind, data) for kind, data in named if data]
    parts += [_value(kind, data) for kind, data in more]
    block = b"".join(parts)
    if len(block) > MAX_BLOCK or len(header.unique_id) > MAX_ID:
        raise ValueError(f"a header has {len(block)} bytes, over {MAX_BLOCK}")
    return _HEAD.pack(SIGNATURE, _PROXY, family, len(block)) + block


def _value(kind: int, data: bytes) -> bytes:
    return _TLV.pack(kind, len(data)) + data


def _tls_value(tls: Tls) -> bytes:
    client = _CLIENT_SSL | (_CERT_CONN | _CERT_SESS if tls.verified else 0)
    name = _value(_SSL_CN, tls.name.encode()) if tls.name else b""
    return _SSL.pack(client, not tls.verified) + _value(_SSL_VERSION, tls.version.encode()) + name


def _ends(source: str, destination: str) -> tuple[int, bytes]:
    """The kind of two addresses, and their bytes."""
    here, there = _packed(source), _packed(destination)
    if here is None:
        path = b"" if source == "unix" else source.encode()[:108]
        return (0x31, _UNIX.pack(path, b"")) if source else (0, b"")
    host, port = here
    if there is None:
        there = bytes(len(host)), 0
    if len(host) == len(there[0]) == 4:
        return 0x11, _INET.pack(host, there[0], port, there[1])
    return 0x21, _INET6.pack(_wide(host), _wide(there[0]), port, there[1])


def _packed(name: str) -> tuple[bytes, int] | None:
    """An address as operators write it; None: it is no IP address."""
    host, _, port = name.rpartition(":")
    try:
        if not host.startswith("["):
            return socket.inet_pton(socket.AF_INET, host), int(port)
        packed = socket.inet_pton(socket.AF_INET6, host[1:-1].partition("%")[0])
    except (OSError, ValueError):
        return None
    return (packed[12:] if packed.startswith(_MAPPED) else packed), int(port)


def _wide(host: bytes) -> bytes:
    return host if len(host) == 16 else _MAPPED + host


# The checksum.


def _make_table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return tuple(table)


_TABLE = _make_table()


def crc32c(data: bytes, start: int = 0) -> int:
    """The checksum of RFC 4960, appendix B; `start` is that of what stands before."""
    table = _TABLE
    number = start ^ 0xFFFFFFFF
    for byte in data:
        number = number >> 8 ^ table[(number ^ byte) & 0xFF]
    return number ^ 0xFFFFFFFF


def _check_sum(data: bytes, place: int, end: int) -> None:
    """It is that of the whole header, with zeros in its own place."""
    if end - place != 4:
        raise HeaderRefused("its checksum is not 4 bytes")
    told = int.from_bytes(data[place:end], "big")
    if crc32c(data[end:], crc32c(bytes(4), crc32c(data[:place]))) != told:
        raise HeaderRefused("its checksum is wrong")

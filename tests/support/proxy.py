"""PROXY headers as a proxy writes them, and the rules by which one is read, spelled out.

Rule: written by the book (haproxy's proxy-protocol text, 2020/03/05) and slowly. Nothing of
`fastway.proxy` is used, so that it tests that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")

LINE = b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 9010\r\n"
"""A client at 203.0.113.7:5555, in version 1,"""

BLOCK = SIGNATURE + bytes.fromhex("2111000c cb007107 c0000201 15b3 2332")
"""and in version 2."""

CLIENT = "203.0.113.7:5555"

CHECK_LINE = b"PROXY UNKNOWN\r\n"
CHECK = SIGNATURE + bytes.fromhex("20000000")
"""A proxy that speaks for itself."""

ADDRESSES = BLOCK[16:]


def line(source: str, destination: str, port: int = 5555, other: int = 9010) -> bytes:
    """A header of version 1."""
    kind = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {kind} {source} {destination} {port} {other}\r\n".encode()


def block(body: bytes = b"", family: int = 0x11, command: int = 0x21) -> bytes:
    """A header of version 2 around what stands behind its first 16 bytes."""
    head = bytes((command, family)) + len(body).to_bytes(2, "big")
    return SIGNATURE + head + body


def value(kind: int, data: bytes = b"") -> bytes:
    """A type-length-value."""
    return bytes((kind,)) + len(data).to_bytes(2, "big") + data


def tls(
    client: int = 0x07,
    verify: int = 0,
    version: bytes = b"TLSv1.3",
    name: bytes = b"lobby",
    more: bytes = b"",
) -> bytes:
    """The value of a client's TLS."""
    inside = value(0x21, version) + (value(0x22, name) if name else b"") + more
    return value(0x20, bytes((client,)) + verify.to_bytes(4, "big") + inside)


def slow_sum(data: bytes) -> int:
    """CRC32C, bit by bit."""
    number = 0xFFFFFFFF
    for byte in data:
        number ^= byte
        for _ in range(8):
            number = (number >> 1) ^ (0x82F63B78 * (number & 1))
    return number ^ 0xFFFFFFFF


def with_sum(body: bytes, family: int = 0x11, behind: bytes = b"") -> bytes:
    """A header with a checksum between what stands before it and `behind`."""
    blank = block(body + value(3, bytes(4)) + behind, family)
    return block(body + value(3, slow_sum(blank).to_bytes(4, "big")) + behind, family)


@dataclass
class Read:
    """What the rules make of some bytes.

    Attributes:
        refused: `not`: it is no header; `bad`: it breaks the rules; empty: neither.
        size: The bytes of the header; 0: it is not whole.
        source: Empty: there is no client.
        told: The values behind the addresses, as type -> data, those within that of TLS too.
    """

    refused: str = ""
    size: int = 0
    source: str = ""
    destination: str = ""
    told: dict[int, bytes] = field(default_factory=dict)


class Bad(Exception):
    """The rules are broken."""


def read(data: bytes) -> Read:
    """Read a header as a patient person would."""
    try:
        if data[:12] == SIGNATURE[: len(data)]:
            return _read_block(data)
        if data[:6] == b"PROXY "[: len(data)]:
            return _read_line(data)
    except Bad:
        return Read("bad")
    return Read("not")


def _read_line(data: bytes) -> Read:
    end = data[:107].find(b"\n")
    if end < 0:
        if len(data) >= 107:
            raise Bad
        return Read()
    text = data[:end].decode("latin-1")
    if not text.endswith("\r") or "\r" in text[:-1]:
        raise Bad
    words = text[:-1].split(" ")
    if words[1] == "UNKNOWN":
        return Read(size=end + 1)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise Bad
    hosts = [_host(word, words[1]) for word in words[2:4]]
    ports = [_port(word) for word in words[4:]]
    return Read("", end + 1, _show(hosts[0], ports[0]), _show(hosts[1], ports[1]))


def _host(word: str, kind: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if "%" in word:
        raise Bad
    try:
        return ipaddress.IPv4Address(word) if kind == "TCP4" else ipaddress.IPv6Address(word)
    except ValueError:
        raise Bad from None


def _port(word: str) -> int:
    if not (word.isascii() and word.isdecimal()) or str(int(word)) != word or int(word) > 65535:
        raise Bad
    return int(word)


def _show(host: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    if isinstance(host, ipaddress.IPv6Address):
        if host.ipv4_mapped is None:
            return f"[{host}]:{port}"
        host = host.ipv4_mapped
    return f"{host}:{port}"


def _read_block(data: bytes) -> Read:
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        raise Bad
    if len(data) < 16:
        return Read()
    length = int.from_bytes(data[14:16], "big")
    if length > 2048:
        raise Bad
    if len(data) < 16 + length:
        return Read()
    found = Read(size=16 + length)
    body = data[16 : 16 + length]
    if data[12] == 0x20 or data[13] == 0x00:
        return found
    width = {0x11: 4, 0x21: 16, 0x31: 108}.get(data[13])
    if width is None:
        raise Bad
    ports = 0 if width == 108 else 4
    if len(body) < 2 * width + ports:
        raise Bad
    hosts = body[:width], body[width : 2 * width]
    rest = body[2 * width :]
    if width == 108:
        found.source, found.destination = map(_path, hosts)
    else:
        numbers = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
        found.source, found.destination = (
            _show(ipaddress.ip_address(host), port)
            for host, port in zip(hosts, numbers, strict=True)
        )
        rest = rest[4:]
    for kind, content in _values(rest):
        found.told[kind] = content
        if kind == 0x20:
            if len(content) < 5:
                raise Bad
            found.told.update(_values(content[5:]))
    _check(data[: 16 + length], found.told, len(data[: 16 + length]) - len(rest))
    return found


def _path(field: bytes) -> str:
    if field[0] == 0:
        name = field[1:].split(b"\0")[0]
        return f"@{name.decode('utf-8', 'replace')}" if any(field) else "unix"
    return field.split(b"\0")[0].decode("utf-8", "replace")


def _values(data: bytes) -> Iterator[tuple[int, bytes]]:
    known = []
    while data:
        size = int.from_bytes(data[1:3], "big")
        if len(data) < 3 or len(data) < 3 + size:
            raise Bad
        if data[0] in (0x01, 0x02, 0x03, 0x05, 0x20, 0x21, 0x22):
            known.append(data[0])
        yield data[0], data[3 : 3 + size]
        data = data[3 + size :]
    if len(known) != len(set(known)):
        raise Bad


def _check(whole: bytes, told: dict[int, bytes], place: int) -> None:
    for kind in (0x02, 0x21, 0x22):
        try:
            told.get(kind, b"").decode("utf-8")
        except UnicodeDecodeError:
            raise Bad from None
    if len(told.get(0x05, b"")) > 128:
        raise Bad
    if 0x03 not in told:
        return
    if len(told[0x03]) != 4:
        raise Bad
    while whole[place] != 0x03:
        place += 3 + int.from_bytes(whole[place + 1 : place + 3], "big")
    blank = whole[: place + 3] + bytes(4) + whole[place + 7 :]
    if slow_sum(blank) != int.from_bytes(told[0x03], "big"):
        raise Bad

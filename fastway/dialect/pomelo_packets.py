"""Packets and messages of pomelo's wire, as nano and pitaya have them. (spec nano.md, 1 and 3)

    packet  = type, 1 byte; length of the body, 3 bytes, big-endian; body
    message = flag, 1 byte; [mid, a varint]; [route]; payload, to the end of the packet
    route   = length, 1 byte; that many bytes of UTF-8; or 2 bytes of the dictionary

Rule: pure functions of bytes; nothing here knows a state. What a peer wrote is read, or raises
BadFrame; what does not fit is not written, but raises FrameRefused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Any

from fastway.dialect import BadFrame, BodyFormat, Event, FrameRefused, Message

HANDSHAKE, ACK, HEARTBEAT, DATA, KICK = range(1, 6)
"""Types of packets."""

REQUEST, NOTIFY, RESPONSE, PUSH = 0x00, 0x02, 0x04, 0x06
"""Types of messages, where they stand in a flag."""

TYPE, CODED, GZIP, ERROR = 0x0E, 0x01, 0x10, 0x20
"""Bits of a flag: the type; its route is a code; and pitaya's two, which nano ignores."""

HEAD = 4
"""Bytes of a packet before its body."""

MAX_BODY = 0xFFFFFF
"""The largest body that a header can tell, in bytes."""

MAX_ROUTE = 255
"""The longest route that is written out, in bytes of UTF-8."""

MAX_CODE = 0xFFFF
"""The largest code of a dictionary."""

MAX_MID_BYTES = 10
"""Bytes of the longest mid; what is beyond 64 bits of it is lost."""

LEAST = 7
"""Bytes of a request before its route."""

# A third of the time that Message(...) takes.
message_of: Callable[[tuple[Any, ...]], Message] = partial(tuple.__new__, Message)

head_at = Struct(">I").unpack_from
_request_at = Struct(">IBBB").unpack_from
_head = Struct(">I").pack
_DATA = DATA << 24
_WITH_MID = (REQUEST, RESPONSE)
_RESPONSES = [bytes((RESPONSE, mid)) for mid in range(0x80)]


def packet(kind: int, body: bytes = b"", limit: int = MAX_BODY) -> bytes:
    """A packet.

    Raises:
        FrameRefused: the body is longer than `limit`.
    """
    if len(body) > limit:
        raise FrameRefused(f"a packet of {len(body)} bytes; at most {limit} are sent")
    return _head(kind << 24 | len(body)) + body


def data_packet(head: bytes, payload: bytes, limit: int) -> bytes:
    """A packet with a message of what stands before its payload, and that.

    Raises:
        FrameRefused: it is longer than `limit`.
    """
    size = len(head) + len(payload)
    if size > limit:
        raise FrameRefused(f"a message of {size} bytes; at most {limit} are sent")
    return _head(_DATA | size) + head + payload


def bad_header(kind: int, size: int, limit: int) -> BadFrame:
    """What is wrong with the header of a packet."""
    if not HANDSHAKE <= kind <= KICK:
        return BadFrame(f"a packet of type {kind}")
    return BadFrame(f"a packet of {size} bytes; at most {limit} are taken")


def varint(number: int) -> bytes:
    """A mid: 7 bits in each byte, the least significant first; the high bit says that more come.

    Raises:
        FrameRefused: it is not within 64 bits.
    """
    if not 0 <= number < 1 << 64:
        raise FrameRefused(f"{number} is no mid")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def route_field(route: str) -> bytes:
    """A route that is written out.

    Raises:
        FrameRefused: it is too long, or no Unicode.
    """
    try:
        name = route.encode()
    except UnicodeEncodeError:
        raise FrameRefused(f"the route {route!r} is no Unicode") from None
    if len(name) > MAX_ROUTE:
        raise FrameRefused(f"a route of {len(name)} bytes; at most {MAX_ROUTE} are sent")
    return bytes((len(name),)) + name


def response_head(mid: int) -> bytes:
    """What stands before the payload of a response. It never has a route, nor a bit of one."""
    if mid < 0x80:
        return _RESPONSES[mid]
    return b"\x04" + varint(mid)


def response_packet(mid: int, payload: bytes, limit: int) -> bytes:
    """A packet with a response, as `data_packet` of its head: what is answered most.

    Raises:
        FrameRefused: it is longer than `limit`.
    """
    head = _RESPONSES[mid] if mid < 0x80 else response_head(mid)
    size = len(head) + len(payload)
    if size > limit:
        return data_packet(head, payload, limit)
    return _head(_DATA | size) + head + payload


def read_message(
    data: bytes, at: int, stop: int, codes: Mapping[bytes, str], names: Mapping[bytes, str]
) -> tuple[int, int, str, bytes]:
    """The message that lies in `data` from `at` to `stop`: its flag, mid, route and payload.

    Args:
        codes: Routes by the bytes of their codes.
        names: Routes by their bytes, of those that are known; others are decoded.

    Raises:
        BadFrame: it is none.
    """
    if stop - at < 2:
        raise BadFrame(f"a message of {stop - at} bytes")
    flag = data[at]
    kind = flag & TYPE
    at += 1
    mid = 0
    if kind in _WITH_MID:
        mid = data[at]
        at += 1
        if mid > 0x7F:
            mid, at = _long_mid(data, at - 1, stop)
        if kind == RESPONSE:
            return flag, mid, "", data[at:stop]
    elif kind > PUSH:
        raise BadFrame(f"a message of type {kind >> 1}")
    if flag & CODED:
        end = at + 2
        if end > stop:
            raise BadFrame("a message that ends within the code of its route")
        route = codes.get(data[at:end])
        if route is None:
            code = int.from_bytes(data[at:end], "big")
            raise BadFrame(f"a route with the code {code}, which is not in the dictionary")
    else:
        if at == stop:
            raise BadFrame("a message without a route")
        start = at + 1
        end = start + data[at]
        if end > stop:
            raise BadFrame("a message that ends within its route")
        name = data[start:end]
        route = names.get(name)
        if route is None:
            # No handler has such a name; but then the peer is not wrong, as nano has it.
            route = name.decode("utf-8", "backslashreplace")
    return flag, mid, route, data[end:stop]


def read_requests(
    data: bytes,
    limit: int,
    names: Mapping[bytes, str],
    form: BodyFormat,
    events: list[Event],
) -> int:
    """Take the requests that `data` begins with, up to what is not as most are: a request of a
    route that is known by name and written out, whose mid is short.

    Returns:
        Where that is: there is more to be said about it.
    """
    at, end = 0, len(data)
    while end - at >= LEAST:
        word, flag, mid, length = _request_at(data, at)
        size = word - _DATA
        stop = at + HEAD + size
        start = at + LEAST
        body = start + length
        if flag or mid > 0x7F or not 0 < size <= limit or body > stop or stop > end:
            break
        route = names.get(data[start:body])
        if route is None:
            break
        events.append(message_of((route, data[body:stop], form, mid or None, None, (), None)))
        at = stop
    return at


def _long_mid(data: bytes, at: int, stop: int) -> tuple[int, int]:
    mid = shift = 0
    for index in range(at, min(stop, at + MAX_MID_BYTES)):
        byte = data[index]
        mid |= (byte & 0x7F) << shift
        if byte < 0x80:
            return mid & 0xFFFFFFFFFFFFFFFF, index + 1
        shift += 7
    raise BadFrame("a message with a mid that does not end")

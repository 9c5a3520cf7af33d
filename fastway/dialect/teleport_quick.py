"""The raw frames that most are, read and written without calls for the others.

    CALL without filters and meta, of a known method, in a known codec
    REPLY that all is well, without filters and meta

Rule: whatever else it is stays where it is, and `teleport_frames` says what; what is taken here
would be the same there. (spec teleport.md, 3)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Any

from fastway.dialect import BodyFormat, Event, FrameRefused, Message
from fastway.dialect.teleport_fields import OK_STATUS, write_seq
from fastway.dialect.teleport_frames import CALL, REPLY

BEAT_NAMES = frozenset((b"/heartbeat", b"heartbeat"))

LEAST = 14
"""Bytes of a frame in which everything is empty but a seq of one digit."""

_HEAD = 6  # its size, how many filters, how long the seq is
_head = Struct(">IBB").pack
_head_at = Struct(">IBB").unpack_from
_WELL = bytes((REPLY, 0, 0, len(OK_STATUS))) + OK_STATUS + b"\0\0"

# A third of the time that Message(...) takes.
_message: Callable[[tuple[Any, ...]], Message] = partial(tuple.__new__, Message)


def read_calls(
    data: bytes,
    limit: int,
    routes: Mapping[bytes, str],
    formats: Mapping[int, BodyFormat],
    events: list[Event],
) -> int:
    """Take the frames that `data` begins with, up to what is not as most are.

    Returns:
        Where that is.
    """
    at, end = 0, len(data)
    while end - at >= LEAST:
        size, filters, width = _head_at(data, at)
        stop = at + size
        place = at + _HEAD + width
        # Behind its method are two lengths and the codec.
        if filters or not LEAST <= size <= limit or stop > end or place + 7 > stop:
            break
        number = data[at + _HEAD : place]
        start = place + 2
        method_end = start + data[place + 1]
        method = data[start:method_end]
        route = routes.get(method)
        if route is None or data[place] != CALL or method_end + 5 > stop:
            break
        # Its status says nothing.
        place = method_end + 2 + (data[method_end] << 8 | data[method_end + 1])
        if place + 3 > stop or data[place] or data[place + 1] or method in BEAT_NAMES:
            break
        codec = data[place + 2]
        form = formats.get(codec)
        if form is None or not (width < 6 and number.isalnum()):
            break
        token = (int(number, 36), codec, b"", False)
        events.append(_message((route, data[place + 3 : stop], form, token, None, [], None)))
        at = stop
    return at


def write_answer(seq: int, codec: int, body: bytes, limit: int) -> bytes:
    """Raises FrameRefused: it is longer than `limit`."""
    number = write_seq(seq)
    width = len(number)
    size = _HEAD + len(_WELL) + 1 + width + len(body)
    if size > limit:
        raise FrameRefused(f"a frame of {size} bytes: at most {limit} are sent")
    return b"%b%b%b%c%b" % (_head(size, 0, width), number, _WELL, codec, body)

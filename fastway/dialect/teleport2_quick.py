"""The packets of teleport v2.5 that most are, read and written without calls for the others.

    PULL of a known name without a query, its header JSON, nothing compressed
    REPLY to one of these, that all is well

Rule: whatever else it is stays where it is, and `teleport2` says what; what is taken here would be
the same there. (spec teleport.md, 2)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Any

from fastway.dialect import BodyFormat, Event, FrameRefused, Message
from fastway.dialect.in_c import IN_C
from fastway.dialect.teleport_codecs import TeleportJson
from fastway.formats import MAX_DEPTH

OK = 200
_PULL = 1
JSON = ord("j")
HEAD = 4

_read_pulls = IN_C.get("read_pulls")
_write_reply = IN_C.get("write_reply")
_pack = Struct(">I").pack
_size_at = Struct(">I").unpack_from

# A third of the time that Message(...) takes.
_message: Callable[[tuple[Any, ...]], Message] = partial(tuple.__new__, Message)


class Quick:
    """Of one port, or of one client.

    Args:
        routes: Names of the wire, without a query -> routes of the application.
        formats: Codecs of bodies.
        limit: Bytes of a packet.
    """

    def __init__(
        self, routes: Mapping[str, str], formats: Mapping[int, BodyFormat], limit: int
    ) -> None:
        msgspec = importlib.import_module("msgspec")
        numbers = [(name, int, 0) for name in ("seq", "type", "gzip", "status_code")]
        fields = [*numbers, ("uri", str, ""), ("status", str, "")]
        # What is unknown is only checked elsewhere.
        header = msgspec.defstruct("Header", fields, forbid_unknown_fields=True)
        self._header: Callable[[bytes], Any] = msgspec.json.Decoder(header).decode
        self._routes = routes
        self._formats = formats
        self._limit = limit
        self._tails: dict[str, bytes] = {}
        """Known names -> headers of their answers, behind the seq."""

    def read(self, data: bytes, events: list[Event]) -> int:
        """Take the packets that `data` begins with, up to what is not as most are.

        Returns:
            Where that is.
        """
        at, end, limit = 0, len(data), self._limit
        if _read_pulls is not None:
            at = _read_pulls(data, limit, self._routes, self._formats, events)
        while end - at > 2 * HEAD:
            width = _size_at(data, at)[0]
            place = at + HEAD + width
            # Longer headers may be nested too deeply.
            if data[at + HEAD] != JSON or not 2 < width <= MAX_DEPTH or place + HEAD >= end:
                break
            start = place + HEAD
            size = _size_at(data, place)[0]
            stop = start + size
            if not size or stop > end or stop - at > limit:
                break
            try:
                said = self._header(data[at + HEAD + 1 : place])
            except Exception:
                break
            seq, uri = said.seq, said.uri
            if said.type != _PULL or said.gzip or said.status_code or said.status:
                break
            codec = data[start]
            route, form = self._routes.get(uri), self._formats.get(codec)
            if route is None or form is None or not 0 <= seq < 1 << 64:
                break
            token = (seq, uri, 0, JSON, codec)
            events.append(_message((route, data[start + 1 : stop], form, token, None, [], None)))
            at = stop
        return at

    def answer(self, seq: int, uri: str, codec: int, body: bytes) -> bytes | None:
        """A REPLY to what `read` has taken; None: it is not one of those.

        Raises FrameRefused: it is longer than the limit.
        """
        tail = self._tails.get(uri)
        if tail is None:
            if uri not in self._routes:
                return None
            said = {"type": 2, "uri": uri, "status_code": OK, "status": "OK"}
            tail = self._tails[uri] = b"," + TeleportJson().encode(said)[1:]
        if _write_reply is not None:
            data: bytes | None = _write_reply(seq, tail, codec, body, self._limit)
            if data is not None:
                return data
        header = b'j{"seq":%d%b' % (seq, tail) if seq else b"j{%b" % tail[1:]
        size = 2 * HEAD + len(header) + 1 + len(body)
        if size > self._limit:
            raise FrameRefused(f"a packet of {size} bytes: at most {self._limit} are sent")
        return b"%b%b%b%c%b" % (_pack(len(header)), header, _pack(1 + len(body)), codec, body)

"""The dialect of teleport v2.5, whose wire is another than that of v6. (spec teleport.md, 2)

    u32 size, u8 codec, header {seq, type, uri, gzip, status_code, status}
    u32 size, u8 codec, body

Both ends pull, push and reply; replies come in any order. There is no handshake.

Rule: as that of `teleport_wires`. Bodies are compressed as streams that Go never ends; whoever
reads them does not wait for an end.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any, ClassVar, NamedTuple

from fastway.dialect import (
    Answer,
    BadFrame,
    BodyFormat,
    Event,
    FrameRefused,
    Message,
    Meta,
    NotInDialect,
    Ready,
    Refused,
    Traits,
    WebSocketRules,
)
from fastway.dialect.teleport2_quick import HEAD, JSON, OK, Quick
from fastway.dialect.teleport_codecs import CODECS, NO_CODECS, TeleportJson, by_id, codec_of
from fastway.dialect.teleport_fields import MAX_TEXT, read_meta, word_of, write_meta
from fastway.dialect.teleport_frames import read_fields, write_field
from fastway.dialect.teleport_names import Names, check_names
from fastway.errors import RemoteError

__all__ = ["MAX_FRAME", "Teleport2"]

MAX_FRAME = 1024 * 1024
"""Bytes of a packet that is taken; Go has no limit."""

PULL, REPLY, PUSH = 1, 2, 3

_size = Struct(">I")
_GZIP = zlib.MAX_WBITS | 16
_BROKEN = re.compile("%(?![0-9A-Fa-f]{2})")
_NAMES = ("seq", "type", "uri", "gzip", "status_code", "status")


class Packet(NamedTuple):
    """One message.

    Attributes:
        gzip: Go's level; 0: the body is not compressed.
        header: The codec of the header.
        codec: That of the body; 0: there is none.
    """

    type: int
    seq: int
    uri: str
    gzip: int = 0
    code: int = 0
    status: str = ""
    header: int = ord("j")
    codec: int = 0
    body: bytes = b""


class Token(NamedTuple):
    """What an answer has to know of its question."""

    seq: int
    uri: str
    gzip: int
    header: int
    codec: int


@lru_cache(maxsize=1)
def _json() -> TeleportJson:
    return TeleportJson()


def write(packet: Packet, limit: int) -> bytes:
    """Raises FrameRefused: it is longer than `limit`."""
    values: tuple[int | str, ...]
    values = (packet.seq, packet.type, packet.uri, packet.gzip, packet.code, packet.status)
    if packet.header == ord("p"):
        fields = [one.encode() if isinstance(one, str) else one for one in values]
        header = b"".join(write_field(number, one) for number, one in enumerate(fields, 1))
    else:
        said = {name: value for name, value in zip(_NAMES, values, strict=True) if value}
        header = _json().encode(said)
    body, codec = packet.body, packet.codec
    if body and packet.gzip:
        stream = zlib.compressobj(max(packet.gzip, -1), zlib.DEFLATED, _GZIP)
        body = stream.compress(body) + stream.flush()
    block = bytes((codec,)) + body if codec else b""
    size = 2 * HEAD + 1 + len(header) + len(block)
    if size > limit:
        raise FrameRefused(f"a packet of {size} bytes: at most {limit} are sent")
    return b"".join(
        (
            _size.pack(len(header) + 1),
            bytes((packet.header,)),
            header,
            _size.pack(len(block)),
            block,
        )
    )


def size_of(data: bytes, at: int, end: int, limit: int) -> int:
    """Bytes of the packet there, or of as much of it as tells more. Raises BadFrame: too many."""
    size = HEAD
    for _ in range(2):
        if end - at < size:
            return size
        size += int(_size.unpack_from(data, at + size - HEAD)[0])
        if size == HEAD:
            raise BadFrame("a packet without a header")
        if size > limit:
            raise BadFrame(f"a packet of {size} bytes or more: at most {limit} are taken")
        size += HEAD
    return size - HEAD


def read(data: bytes, limit: int) -> Packet:
    """One whole packet. Raises BadFrame."""
    size = _size.unpack_from(data, 0)[0]
    codec, header = data[HEAD], data[HEAD + 1 : HEAD + size]
    if codec == ord("j"):
        said = _json_header(header)
    elif codec == ord("p"):
        fields = read_fields(header)
        said = {name: fields[n] for n, name in enumerate(_NAMES, 1) if n in fields}
    else:
        raise BadFrame(f"header codec {codec}, which is neither JSON nor Protocol Buffers")
    block = data[HEAD + size + HEAD :]
    gzip = _signed(said, "gzip")
    body = block[1:]
    if body and gzip:
        body = _inflated(body, limit)
    return Packet(
        _signed(said, "type"),
        _number(said, "seq"),
        _text(said, "uri"),
        gzip,
        _signed(said, "status_code"),
        _text(said, "status"),
        codec,
        block[0] if block else 0,
        body,
    )


def _json_header(header: bytes) -> dict[str, Any]:
    try:
        said: dict[str, Any] = _json().decode(header, dict[str, Any])
        return said
    except Exception:
        raise BadFrame("a header that is no JSON") from None


def _inflated(body: bytes, limit: int) -> bytes:
    try:
        out = zlib.decompressobj(_GZIP).decompress(body, limit + 1)
    except zlib.error:
        raise BadFrame("a body that is said to be gzip, and is not") from None
    if len(out) > limit:
        raise BadFrame(f"a compressed body of more than {limit} bytes")
    return out


def _number(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name, 0)
    if type(value) is not int or not 0 <= value < 2**64:
        raise BadFrame(f"a header whose {name} is no number of 64 bits")
    return value


def _signed(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name, 0)
    if type(value) is int and 2**63 <= value < 2**64:
        value -= 2**64
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise BadFrame(f"a header whose {name} is no number of 32 bits")
    return value


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name, "")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise BadFrame(f"a header whose {name} is no text")
    return value


@dataclass(frozen=True, eq=False)
class Settings:
    """What the wires of one port, or of one client, have in common; `Teleport2` says what."""

    header: int
    codecs: Mapping[int, BodyFormat]
    codec: int
    gzip: int
    names: Names
    limit: int
    quick: Quick

    def format_of(self, codec: int) -> BodyFormat:
        return self.codecs.get(codec) or NO_CODECS[codec]


class Teleport2Wire:
    """One connection."""

    __slots__ = (
        "_asked",
        "_is_server",
        "_out",
        "_over",
        "_pulls",
        "_pushes",
        "_rest",
        "_settings",
        "_want",
        "deadline",
        "error",
        "format",
        "ready",
    )

    def __init__(self, settings: Settings, is_server: bool) -> None:
        self.ready = False
        self.error: RemoteError | None = None
        self.deadline: float | None = None
        self.format = settings.format_of(settings.codec)
        self._settings = settings
        self._is_server = is_server
        self._out: list[bytes] = []
        self._asked: set[int] = set()
        self._pulls = self._pushes = 0  # the next numbers
        self._rest: bytearray | None = None
        self._want = 0
        self._over = False

    @property
    def shape(self) -> Hashable:
        return self._settings if self._is_server else self

    def begin(self, now: float) -> None:
        """There is no handshake."""

    def receive(self, data: bytes, now: float) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        if not self.ready:
            self.ready = True
            events.append(Ready())
        rest = self._rest
        if rest is not None:
            rest += data
            if len(rest) < self._want:
                return events
            data, self._rest = bytes(rest), None
        at, end, limit = self._settings.quick.read(data, events), len(data), self._settings.limit
        try:
            while at < end:
                size = size_of(data, at, end, limit)
                if end - at < size:
                    self._rest, self._want = bytearray(data[at:]), size
                    break
                self._came(read(data[at : at + size], limit), events)
                at += size
        except RemoteError as error:
            self.error = error.with_traceback(None)
            self._end()
        return events

    def _came(self, packet: Packet, events: list[Event]) -> None:
        settings = self._settings
        form = settings.format_of(packet.codec or settings.codec)
        if packet.type == REPLY:
            if packet.seq in self._asked:
                self._asked.discard(packet.seq)
                refused = None if packet.code == OK else Refused(packet.code, packet.status)
                events.append(Answer(packet.seq + 1, packet.body, form, refused))
            return
        if packet.type not in (PULL, PUSH):
            raise BadFrame(f"packet type {packet.type}, which there is not")
        token = None
        if packet.type == PULL:
            codec = packet.codec or settings.codec
            token = Token(packet.seq, packet.uri, packet.gzip, packet.header, codec)
        path, _, query = packet.uri.partition("?")
        if _BROKEN.search(path):
            if token is not None:
                self._out.append(self.refuse(token, Refused(400, "Bad URI")))
            return
        route = settings.names.route(path)
        events.append(Message(route, packet.body, form, token, None, read_meta(query.encode())))

    def accept(self, user: Any = None) -> None:
        """Nobody asks to be let in."""

    def reject(self, refused: Refused) -> None:
        self._end()

    def _begun(self, type: int, seq: int, route: str, body: bytes, meta: Meta) -> bytes:
        settings = self._settings
        uri = settings.names.field(route).decode()
        if meta:
            uri += "?" + write_meta(meta).decode()
        codec = codec_of(body, settings.codec if body else 0)
        return write(
            Packet(type, seq, uri, settings.gzip, 0, "", settings.header, codec, body),
            settings.limit,
        )

    def send(self, route: str, body: bytes, meta: Meta = ()) -> bytes:
        # A server's have no number, so that one packet is told to many.
        data = self._begun(PUSH, self._pushes, route, body, meta)
        if not self._is_server:
            self._pushes += 1
        return data

    def request(self, route: str, body: bytes, meta: Meta = ()) -> tuple[int, bytes]:
        seq = self._pulls
        data = self._begun(PULL, seq, route, body, meta)
        self._pulls += 1
        self._asked.add(seq)
        return seq + 1, data  # a key is no less than 1

    def forget(self, key: int) -> None:
        self._asked.discard(key - 1)

    def reply(self, token: Any, body: bytes, meta: Meta = (), kind: type = bytes) -> bytes:
        seq, uri, gzip, header, codec = token
        if type(body) is not bytes:
            codec = codec_of(body, codec)
        settings = self._settings
        if header == JSON and codec and not gzip:
            data = settings.quick.answer(seq, uri, codec, body)
            if data is not None:
                return data
        return write(Packet(REPLY, seq, uri, gzip, OK, "OK", header, codec, body), settings.limit)

    def refuse(self, token: Any, refused: Refused) -> bytes:
        seq, uri, gzip, header, _ = token
        code = refused.code if 0 < abs(refused.code) < 2**31 and refused.code != OK else 500
        text = word_of(refused)[:MAX_TEXT].encode("utf-8", "replace").decode()
        packet = Packet(REPLY, seq, uri, gzip, code, text, header)
        try:
            return write(packet, self._settings.limit)
        except FrameRefused:  # its words, or the question's uri, are too long
            return write(packet._replace(uri="", status=""), self._settings.limit)

    def kick(self, reason: Any = None) -> bytes:
        return b""

    def tick(self, now: float, deaf: bool = False) -> None:
        """There are no heartbeats."""

    def _end(self) -> None:
        self._over = True
        self._rest = None

    def data_to_send(self) -> list[bytes]:
        out, self._out = self._out, []
        return out


class Teleport2:
    """What one port, or one client, speaks: teleport v2.5.

    Args:
        header: The letter of how headers are written that are begun here: "j" JSON, "p" Protocol
            Buffers.
        codec, codecs: As `Teleport` has them; there are no forms.
        gzip: Go's level of compression of what is begun here, -2 to 9; 0: none.
        names: What the wire calls routes of the application, where that is not the same.
        concurrent: Messages of one session that may run at the same time.
        max_frame: Bytes of a packet that is taken, or sent, and of a body that is unpacked.

    Raises:
        ValueError: a setting makes no sense; it says which.
    """

    name: ClassVar[str] = "teleport2"
    websocket: ClassVar[WebSocketRules | None] = None

    def __init__(
        self,
        *,
        header: str = "j",
        codec: str = "j",
        codecs: Mapping[str, BodyFormat] | None = None,
        gzip: int = 0,
        names: Mapping[str, str] | None = None,
        concurrent: int = 64,
        max_frame: int = MAX_FRAME,
    ) -> None:
        formats = {"j": TeleportJson(), "p": CODECS["p"], "s": CODECS["s"], **(codecs or {})}
        if header not in ("j", "p"):
            raise ValueError(f"header is j or p, not {header!r}")
        codec_ids = by_id(formats)
        if codec not in formats:
            raise ValueError(f"codec is one of {', '.join(formats)}, not {codec!r}")
        if not -2 <= gzip <= 9:
            raise ValueError(f"gzip is -2 to 9, not {gzip!r}")
        if concurrent < 1:
            raise ValueError(f"concurrent is 1 at least, not {concurrent!r}")
        if not 1024 <= max_frame < 2**31:
            raise ValueError(f"max_frame is 1024 bytes to 2 GiB, not {max_frame!r}")
        names = dict(names or {})
        check_names(names, False)
        self.concurrent = concurrent
        routes = Names("v2", names, False)
        self._settings = Settings(
            header=ord(header),
            codecs=codec_ids,
            codec=ord(codec),
            gzip=gzip,
            names=routes,
            limit=max_frame,
            quick=Quick(routes.texts, codec_ids, max_frame),
        )

    @property
    def max_frame(self) -> int:
        return self._settings.limit

    @property
    def traits(self) -> Traits:
        letters = {"header": chr(self._settings.header), "codec": chr(self._settings.codec)}
        return Traits(settings=letters, asks=frozenset({"server", "client"}))

    def server(self, *, whole: bool = False) -> Teleport2Wire:
        return Teleport2Wire(self._settings, True)

    def client(self, *, whole: bool = False) -> Teleport2Wire:
        return Teleport2Wire(self._settings, False)

    def wire_name(self, route: str) -> str:
        try:
            return self._settings.names.known(route)
        except FrameRefused as error:
            raise NotInDialect(str(error)) from None

    def app_name(self, name: str) -> str:
        return self._settings.names.route(name)

"""A connection in teleport's dialect, at either end: both may call, push and answer.

    AUTH_CALL, AUTH_REPLY              where a port wants to know who comes
    CALL, REPLY, PUSH                  both ways, from then on

Rule: one frame is one bytes object in what is sent; whatever a peer sends, nothing is raised and
it costs time in proportion to its length. An answer echoes the filters of its question, and never
has codec 0 beside a body, on which a Go peer hangs for ever. (spec teleport.md, 3 and 7)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, NamedTuple

from fastway.dialect import (
    Answer,
    BadFrame,
    BodyFormat,
    Event,
    FrameRefused,
    Hello,
    Message,
    Meta,
    NotLetIn,
    PeerSilent,
    Ready,
    Refused,
)
from fastway.dialect.in_c import IN_C
from fastway.dialect.teleport_codecs import codec_of
from fastway.dialect.teleport_fields import (
    MAX_SEQ,
    OK_STATUS,
    read_meta,
    read_status,
    write_meta,
    write_status,
)
from fastway.dialect.teleport_frames import (
    AUTH_CALL,
    AUTH_REPLY,
    CALL,
    HEAD,
    PUSH,
    REPLY,
    Frame,
)
from fastway.dialect.teleport_quick import BEAT_NAMES, read_calls, write_answer
from fastway.dialect.teleport_settings import Settings
from fastway.errors import RemoteError

ACCEPT = "X-Accept-Body-Codec"
RATE = "hb_"

MAX_RATE = 24 * 3600
"""The longest interval of heartbeats that a peer may announce, in seconds."""

PATIENCE = 2
"""Silence that ends a session whose peer sent heartbeats, in its intervals."""

_read_calls = IN_C.get("read_calls", read_calls)
_write_answer = IN_C.get("write_answer", write_answer)

_PLAIN = ord("s")
_DIGITS = re.compile("[0-9]{1,9}")


# A third of the time that Message(...) takes.
_message: Callable[[tuple[Any, ...]], Message] = partial(tuple.__new__, Message)


class Token(NamedTuple):
    """What an answer has to know of its question."""

    seq: int
    codec: int
    filters: bytes
    seals: bool = False


class TeleportWire:
    """One connection.

    Args:
        is_server: It was connected to; that only counts for who authorises whom, and for the seq
            of what is pushed: a server's have none, so that one frame is told to many.
    """

    __slots__ = (
        "_asked",
        "_beat_at",
        "_beats",
        "_held",
        "_held_size",
        "_hello",
        "_is_server",
        "_open",
        "_out",
        "_over",
        "_rate",
        "_rest",
        "_said_ready",
        "_seen",
        "_seq",
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
        self._beats: set[int] = set()  # heartbeats that were asked and are not answered
        self._seq = 0
        self._open = not settings.auth  # nobody has to say who he is, or has done so
        self._said_ready = False
        self._hello: Frame | None = None  # it is being decided
        self._held: list[bytes] = []  # what came meanwhile
        self._held_size = 0
        self._over = False
        self._rest: bytearray | None = None
        self._want = 0
        self._seen = 0.0  # when the peer last called or pushed, or answered a heartbeat
        self._rate = 0  # seconds between heartbeats of the peer, as it says
        self._beat_at: float | None = None

    @property
    def shape(self) -> Hashable:
        return self._settings if self._is_server else self

    # What comes.

    def begin(self, now: float) -> None:
        settings = self._settings
        self._seen = now
        if settings.beat:
            self._beat_at = now + settings.beat
        self._set_deadline()
        if not self._open and not self._is_server:
            user = settings.user() if callable(settings.user) else settings.user
            codec = _PLAIN if isinstance(user, (str, bytes)) else settings.codec
            body = user if isinstance(user, bytes) else settings.format_of(codec).encode(user)
            self._out.append(self._frame(AUTH_CALL, self._next(), body, codec=codec))

    def receive(self, data: bytes, now: float) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        if self.ready and self._rest is None:  # nothing else can be waited for
            settings = self._settings
            if settings.raw:
                names = settings.names
                at = _read_calls(data, settings.limit, names.fields, settings.codecs, events)
                if at:
                    self._seen = now
                    if at == len(data):
                        return events
                    data = data[at:]
        if self._open and not self._said_ready:
            self._said_ready = self.ready = True
            events.append(Ready())
        if self._hello is not None:
            self._hold(data)
            return events
        try:
            if self._held:
                held, self._held = self._held, []
                for piece in held:
                    self._piece(piece, now, events)
            self._piece(data, now, events)
        except RemoteError as error:
            self._fail(error)
        return events

    def _hold(self, data: bytes) -> None:
        """What comes behind an AUTH_CALL that is not decided; messages stay apart."""
        if data:
            self._held.append(data)
            self._held_size += len(data) + 64
            if self._held_size > self._settings.limit + MAX_HELD:
                self._fail(BadFrame("too much behind an AUTH_CALL that is not decided"))

    def _piece(self, data: bytes, now: float, events: list[Event]) -> None:
        rest = self._rest
        if rest is not None:
            rest += data
            if len(rest) < self._want:
                return
            data, self._rest = bytes(rest), None
        self._frames(data, now, events)

    def _frames(self, data: bytes, now: float, events: list[Event]) -> None:
        settings = self._settings
        framing, limit = settings.framing, settings.limit
        at, end, want = 0, len(data), HEAD
        if settings.raw and self._open:
            at = _read_calls(data, limit, settings.names.fields, settings.codecs, events)
            if at:
                self._seen = now
        while at < end and self._hello is None:
            if framing.streamed and end - at < HEAD:
                want = HEAD
                break
            size = framing.size(data, at)
            if size > limit:
                raise BadFrame(f"a frame of {size} bytes: at most {limit} are taken")
            if end - at < size:
                want = size
                break
            whole = data if size == end else data[at : at + size]
            at += size
            self._came(framing.read(whole, settings.filters, limit), now, events)
        if at < end:
            self._rest, self._want = bytearray(data[at:]), want

    def _came(self, frame: Frame, now: float, events: list[Event]) -> None:
        mtype = frame.mtype
        if frame.body and not frame.codec:
            raise BadFrame("a body without a codec")
        if not self._open:
            self._authorises(frame, events)
        elif mtype == REPLY:
            self._answered(frame, now, events)
        elif mtype in (CALL, PUSH):
            self._said(frame, now, events)
        else:
            raise BadFrame(f"message type {mtype}, which has no place here")

    def _said(self, frame: Frame, now: float, events: list[Event]) -> None:
        settings = self._settings
        mtype, seq, method, _, fields, codec, body, filters = frame
        meta = read_meta(fields) if fields else []
        self._seen = now
        if settings.pong and method in BEAT_NAMES:
            self._beaten(frame, meta, now)
            return
        if not method:
            if mtype == CALL:
                cause = "invalid service method for message"
                self._say_no(Token(seq, codec, filters), Refused(400, "Bad Message", cause))
            return
        asked = None
        answer: BodyFormat | None = None
        if settings.secure is not None and settings.secure.marks(meta):
            try:
                body = settings.secure.open(body, codec)
            except Refused as refused:
                if mtype == CALL:
                    self._say_no(Token(seq, codec, filters), refused)
                return
        if mtype == CALL:
            wanted = _accepted(meta, settings.codecs)
            if wanted:
                answer = settings.format_of(wanted)
            asked = Token(seq, wanted or codec, filters)
            if settings.secure is not None and settings.secure.answers(meta):
                if not settings.secure.takes(asked.codec):
                    self._say_no(asked, settings.secure.no_place())
                    return
                asked = asked._replace(seals=True)
        names = settings.names
        route = names.fields.get(method)
        if route is None:
            route = names.route(method.decode("utf-8", "backslashreplace"))
        form = settings.format_of(codec)
        events.append(_message((route, body, form, asked, answer, meta, None)))

    def _answered(self, frame: Frame, now: float, events: list[Event]) -> None:
        """An answer; one to nothing is none of our business."""
        seq = frame.seq
        if seq in self._beats:
            self._beats.clear()
            self._seen = now
        elif seq in self._asked:
            self._asked.discard(seq)
            refused = read_status(frame.status)
            meta = read_meta(frame.meta)
            body, secure = frame.body, self._settings.secure
            if secure is not None and refused is None and secure.marks(meta):
                try:
                    body = secure.open(body, frame.codec)
                except Refused as no:
                    refused = no
            if refused is not None:
                refused.meta = meta
            form = self._settings.format_of(frame.codec)
            events.append(Answer(seq, body, form, refused, meta))

    def _authorises(self, frame: Frame, events: list[Event]) -> None:
        """The first frame, at either end."""
        form = self._settings.format_of(frame.codec)
        if not self._is_server:
            if frame.mtype != AUTH_REPLY:
                raise BadFrame("an AUTH_REPLY was to come first")
            refused = read_status(frame.status)
            if refused is not None:
                raise NotLetIn(refused)
            self._open = self._said_ready = self.ready = True
            events.append(Ready(_decoded(form, frame)))
        elif frame.mtype == AUTH_CALL:
            self._hello = frame
            events.append(Hello(_decoded(form, frame), frame.body))
        else:
            self._say_no(
                None, Refused(401, "Unauthorized", "an AUTH_CALL is to come first"), frame.codec
            )
            raise BadFrame("an AUTH_CALL was to come first")

    def accept(self, user: Any = None) -> None:
        hello = self._hello
        if hello is None or self._over:
            return
        form, codec = self._settings.format_of(hello.codec), hello.codec
        body = user if isinstance(user, bytes) else form.encode(user)
        if body and not codec:
            raise FrameRefused("who asked has no codec for an answer")
        self._out.append(self._frame(AUTH_REPLY, self._next(), body, codec=codec))
        self._hello = None
        self._open = True

    def reject(self, refused: Refused) -> None:
        if self._hello is not None:
            self._say_no(None, refused, self._hello.codec)
        self._end()

    # What is sent.

    def _next(self) -> int:
        seq = self._seq
        while True:
            seq = seq + 1 if seq < MAX_SEQ else 1
            if seq not in self._asked:
                return seq

    def _frame(
        self,
        mtype: int,
        seq: int,
        body: bytes = b"",
        *,
        method: bytes = b"",
        meta: bytes = b"",
        codec: int | None = None,
    ) -> bytes:
        """What is begun here; it has used its seq then."""
        settings = self._settings
        used = settings.codec if codec is None else codec
        if type(body) is not bytes:
            used = codec_of(body, used)
        pipe = settings.pipe
        data = settings.pack(Frame(mtype, seq, method, OK_STATUS, meta, used, body, pipe))
        if seq:
            self._seq = seq
        return data

    def send(self, route: str, body: bytes, meta: Meta = ()) -> bytes:
        if meta:
            body = self._settings.sealed(body, meta)
        seq = 0 if self._is_server else self._next()
        method = self._settings.names.field(route)
        return self._frame(PUSH, seq, body, method=method, meta=_fields(meta))

    def request(self, route: str, body: bytes, meta: Meta = ()) -> tuple[int, bytes]:
        if meta:
            body = self._settings.sealed(body, meta)
        seq = self._next()
        method = self._settings.names.field(route)
        data = self._frame(CALL, seq, body, method=method, meta=_fields(meta))
        self._asked.add(seq)
        return seq, data

    def forget(self, key: int) -> None:
        self._asked.discard(key)

    def reply(self, token: Any, body: bytes, meta: Meta = (), kind: type = bytes) -> bytes:
        seq, codec, filters, seals = token
        settings = self._settings
        if settings.bare and codec and type(body) is bytes and not (meta or filters):
            data: bytes | None = _write_answer(seq, codec, body, settings.limit)
            if data is not None:
                return data
        if type(body) is not bytes:
            codec = codec_of(body, codec)
        if body and not codec:
            raise Refused(500, f"unsupported codec id: {codec}")
        secure = settings.secure
        if secure is not None and (seals or secure.marks(meta)):
            body = secure.seal(body, codec)
            if not secure.marks(meta):
                meta = (*meta, ("X-Secure", "true"))
        return settings.pack(
            Frame(REPLY, seq, b"", OK_STATUS, _fields(meta), codec, body, filters)
        )

    def refuse(self, token: Any, refused: Refused) -> bytes:
        seq, _, filters, _ = token
        return self._no(Frame(REPLY, seq, filters=filters), refused)

    def _no(self, frame: Frame, refused: Refused) -> bytes:
        status = write_status(refused)
        try:
            meta = _fields(refused.meta)
            return self._settings.pack(frame._replace(status=status, meta=meta))
        except FrameRefused:  # its words are too long; what it is always fits
            return self._settings.pack(frame._replace(status=status.partition(b"&")[0]))

    def _say_no(self, token: Token | None, refused: Refused, codec: int = 0) -> None:
        """To a question, or else to who wants to be let in."""
        if token is not None:
            self._out.append(self.refuse(token, refused))
            return
        self._seq = seq = self._next()
        frame = Frame(AUTH_REPLY, seq, codec=codec, filters=self._settings.pipe)
        self._out.append(self._no(frame, refused))

    def kick(self, reason: Any = None) -> bytes:
        return b""

    # Heartbeats.

    def _beaten(self, frame: Frame, meta: Meta, now: float) -> None:
        said = next((value for name, value in meta if name == RATE), "")
        rate = int(said) if _DIGITS.fullmatch(said) else 0 if not said else -1
        if rate < 0:
            if frame.mtype == CALL:
                no = Refused(400, "invalid heartbeat rate")
                self._say_no(Token(frame.seq, frame.codec, frame.filters), no)
            return
        self._rate = min(rate, MAX_RATE) or self._rate
        self._set_deadline()
        if frame.mtype == CALL:
            known = bool(self._settings.codecs.get(frame.codec))
            self._out.append(
                self.reply(
                    Token(frame.seq, frame.codec, frame.filters),
                    b"null" if frame.codec == ord("j") and known else b"",
                )
            )

    def tick(self, now: float, deaf: bool = False) -> None:
        if self.deadline is None or now < self.deadline:
            return
        if deaf or self._hello is not None:
            self._seen = now  # nothing is read from it meanwhile
            self._beats.clear()
        silent = now - self._seen
        if self._rate and silent >= PATIENCE * self._rate:
            self._fail(PeerSilent(silent))
            return
        if self._beat_at is not None and now >= self._beat_at:
            self._beat(now)
        if not self._over:
            self._set_deadline()

    def _beat(self, now: float) -> None:
        settings = self._settings
        beat = settings.beat
        if settings.beat_asks and len(self._beats) >= PATIENCE:
            self._fail(PeerSilent(now - self._seen))
            return
        self._beat_at = now + beat
        if not self.ready:
            return
        seq = self._next()
        mtype = CALL if settings.beat_asks else PUSH
        meta = b"%b=%d" % (RATE.encode(), beat)
        self._out.append(self._frame(mtype, seq, method=b"/heartbeat", meta=meta))
        if settings.beat_asks:
            self._beats.add(seq)

    def _set_deadline(self) -> None:
        lost = self._seen + PATIENCE * self._rate if self._rate else None
        beat = self._beat_at
        self.deadline = beat if lost is None else lost if beat is None else min(beat, lost)

    # The end.

    def _fail(self, error: RemoteError) -> None:
        self.error = error.with_traceback(None)
        self._end()

    def _end(self) -> None:
        self._over = True
        self.deadline = None
        self._rest = None
        self._held = []

    def data_to_send(self) -> list[bytes]:
        out = self._out
        if out:
            self._out = []
            return out
        return []


MAX_HELD = 256 * 1024
"""Bytes, beside one frame, that are kept behind an AUTH_CALL until it is decided; each read counts
as 64 more."""


def _fields(meta: Meta) -> bytes:
    return write_meta(meta) if meta else b""


def _accepted(meta: Meta, codecs: Mapping[int, BodyFormat]) -> int:
    """The codec that a caller wants its answer in; 0: it does not say, or it is not known."""
    for name, value in meta:
        if name == ACCEPT and _DIGITS.fullmatch(value) and int(value) in codecs:
            return int(value)
    return 0


def _decoded(form: BodyFormat, frame: Frame) -> Any:
    try:
        return form.decode(frame.body)
    except Exception:
        raise BadFrame("a body that does not decode, before anybody is let in") from None

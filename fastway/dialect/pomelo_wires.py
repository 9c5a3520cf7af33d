"""The two ends of a connection in pomelo's dialect: packets come, and become events.

Rule: one packet is one bytes object in what is sent; whatever a peer sends, nothing is raised and
it costs time in proportion to its length. A server beats by its own ticks, as Go does; a client
answers to them, as the JavaScript client does. (spec nano.md, 2 and 3)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fastway.dialect import (
    Answer,
    BadFrame,
    BodyFormat,
    Event,
    Hello,
    Kicked,
    Message,
    Meta,
    NotInDialect,
    PeerSilent,
    Ready,
    Refused,
)
from fastway.dialect.in_c import IN_C
from fastway.dialect.pomelo_json import (
    FAILED,
    OLD_CLIENT,
    PITAYA_FAILED,
    read_greeting,
    read_kick,
    read_welcome,
    write_farewell,
    write_greeting,
    write_kick,
    write_refusal,
    write_welcome,
)
from fastway.dialect.pomelo_packets import (
    ACK,
    DATA,
    ERROR,
    GZIP,
    HANDSHAKE,
    HEAD,
    HEARTBEAT,
    KICK,
    MAX_BODY,
    NOTIFY,
    PUSH,
    REQUEST,
    RESPONSE,
    TYPE,
    bad_header,
    data_packet,
    head_at,
    message_of,
    packet,
    read_message,
    read_requests,
    response_head,
    response_packet,
    varint,
)
from fastway.dialect.pomelo_pitaya import (
    deflate,
    inflate,
    looks_compressed,
    read_error,
    write_error,
)
from fastway.dialect.pomelo_routes import Routes
from fastway.errors import RemoteError

MAX_HELD = 256 * 1024
"""Bytes, beside one packet, that are kept behind a handshake until it is decided."""

MAX_HANDSHAKES = 10
"""Handshakes of one connection: each is a question to the application."""

MAX_INFLATED = 1 << 20
"""Bytes, beside one packet, that compressed messages may be which come at once."""

MAX_EARLY = 100
"""Messages of a server that came before it let its client in."""

PATIENCE = 2.5
"""Silence of a client that ends it, at a tick of the server; in intervals."""

_read_requests = IN_C.get("read_requests", read_requests)
_response_packet = IN_C.get("response_packet", response_packet)

_BEAT = packet(HEARTBEAT)
_ACK = packet(ACK)
_HOLD = 1 << 62
_NO_META = "pomelo has no place for meta"


@dataclass(frozen=True, eq=False)
class Settings:
    """What the wires of one port, or of one client, have in common; `Pomelo` says what each is.

    Attributes:
        beat: Seconds between heartbeats of a server; 0: none.
        limit: Bytes of a packet's body, both ways.
        nothing: What is sent for an empty payload.
        bits: What is looked at in a flag beside the type and the route.
        replies: Who is refused is told so.
        welcome: What is said to who is let in, up to the time.
        epoch: Tells that.
        client, user: What a client says of itself; the user may be a function.
    """

    format: BodyFormat
    beat: float
    limit: int
    routes: Routes
    names: Mapping[str, str]
    nothing: bytes
    bits: int
    pitaya: bool
    replies: bool
    compress: bool
    welcome: str
    epoch: Callable[[], float]
    client: Mapping[str, str]
    user: Any

    def welcome_packet(self, user: Any) -> bytes:
        """Lets a client in. Raises FrameRefused: the user does not fit."""
        return packet(HANDSHAKE, write_welcome(self.welcome, self.epoch(), user), self.limit)

    def greeting_packet(self) -> bytes:
        """Asks to be let in. Raises FrameRefused: the user does not fit."""
        user = self.user() if callable(self.user) else self.user
        return packet(HANDSHAKE, write_greeting(self.client, user), self.limit)


class _Wire:
    """What both ends have in common: bytes become packets, and those messages."""

    _takes: ClassVar[tuple[int, ...]]
    _asks: ClassVar[bool]  # the peer does

    __slots__ = (
        "_inflated_bytes",
        "_open",
        "_out",
        "_over",
        "_rest",
        "_routes",
        "_seen",
        "_settings",
        "_want",
        "deadline",
        "error",
        "format",
        "ready",
    )

    def __init__(self, settings: Settings) -> None:
        self.ready = False
        self.error: RemoteError | None = None
        self.deadline: float | None = None
        self.format = settings.format
        self._settings = settings
        self._routes = settings.routes
        self._out: list[bytes] = []
        self._open = False  # messages are told as they come
        self._over = False
        self._rest: bytearray | None = None  # what came, and is not understood yet
        self._want = 0  # so many bytes are to be there before it is looked at
        self._seen = 0.0  # when the last packet was understood
        self._inflated_bytes = 0  # of what is being read

    def begin(self, now: float) -> None:
        raise NotImplementedError

    def receive(self, data: bytes, now: float) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        rest = self._rest
        if rest is not None:
            rest += data
            if len(rest) < self._want:
                if self._want == _HOLD and len(rest) > MAX_HELD + self._settings.limit:
                    self._fail(BadFrame("too much behind a handshake that is not decided"))
                return events
            data, self._rest = bytes(rest), None
        at = 0
        if self._open and self._asks:
            settings = self._settings
            at = _read_requests(data, settings.limit, self._routes.names, settings.format, events)
            if at:
                self._seen = now
            if at == len(data):
                return events
        self._packets(data, at, now, events)
        return events

    def _packets(self, data: bytes, at: int, now: float, events: list[Event]) -> None:
        """What comes from there on."""
        settings, routes = self._settings, self._routes
        end, limit = len(data), settings.limit
        self._inflated_bytes = 0
        try:
            while True:
                if end - at < HEAD:
                    want = HEAD
                    break
                size = head_at(data, at)[0]
                kind = size >> 24
                size &= MAX_BODY
                if size > limit or not 0 < kind <= KICK:
                    raise bad_header(kind, size, limit)
                start = at + HEAD
                stop = start + size
                if stop > end:
                    want = HEAD + size
                    break
                if kind == DATA:
                    message = read_message(data, start, stop, routes.codes, routes.names)
                    at = stop
                    flag, mid, route, body = message
                    if not self._open or flag & settings.bits:
                        self._unusual(flag, mid, route, body, events)
                    elif flag & TYPE in self._takes:
                        events.append(
                            message_of((route, body, settings.format, mid or None, None, (), None))
                        )
                    elif flag & TYPE == RESPONSE:
                        self._answered(mid, body, None, events)
                else:
                    held = self._control(kind, data[start:stop], now, events)
                    at = stop
                    routes = self._routes
                    if held:
                        self._rest, self._want = bytearray(data[at:]), _HOLD
                        self._seen = now
                        return
        except RemoteError as error:
            self._fail(error)
            return
        if at:
            self._seen = now
        if at < end:
            self._rest, self._want = bytearray(data[at:]), want

    def _unusual(self, flag: int, mid: int, route: str, body: bytes, events: list[Event]) -> None:
        """A message that has pitaya's bits, or comes early."""
        raise NotImplementedError

    def _answered(
        self, mid: int, body: bytes, refused: Refused | None, events: list[Event]
    ) -> None:
        """A response; one to nothing, as of a client, is none of our business."""

    def _control(self, kind: int, body: bytes, now: float, events: list[Event]) -> bool:
        """A packet that is no data; True: nothing more is looked at until `accept`."""
        raise NotImplementedError

    def _inflated(self, flag: int, body: bytes) -> bytes:
        """Raises BadFrame: it is no such message, or they are too much together."""
        if not flag & GZIP:
            return body
        body = inflate(body, self._settings.limit)
        self._inflated_bytes += len(body)
        if self._inflated_bytes > self._settings.limit + MAX_INFLATED:
            raise BadFrame("compressed messages that are too much at once")
        return body

    def _packet(self, head: bytes, body: bytes) -> bytes:
        settings = self._settings
        if settings.compress and body:
            head, body = deflate(head, body)
        return data_packet(head, body or settings.nothing, settings.limit)

    def _fail(self, error: RemoteError) -> None:
        self.error = error.with_traceback(None)
        self._end()

    def _end(self) -> None:
        self._over = True
        self.deadline = None
        self._rest = None

    def data_to_send(self) -> list[bytes]:
        out = self._out
        if out:
            self._out = []
            return out
        return []


class PomeloServer(_Wire):
    """A client's connection, at its server."""

    _takes = (REQUEST, NOTIFY)
    _asks = True

    __slots__ = ("_handshakes",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._handshakes = 0

    @property
    def shape(self) -> Hashable:
        return self._settings

    def begin(self, now: float) -> None:
        self._seen = now
        if self._settings.beat:
            self.deadline = now + self._settings.beat

    def _unusual(self, flag: int, mid: int, route: str, body: bytes, events: list[Event]) -> None:
        if not self._open:
            raise BadFrame("data before the handshake is done")
        if flag & TYPE in self._takes:
            body = self._inflated(flag, body)
            events.append(Message(route, body, self.format, mid or None))

    def _control(self, kind: int, body: bytes, now: float, events: list[Event]) -> bool:
        if kind == HANDSHAKE:
            self._handshakes += 1
            if self._handshakes > MAX_HANDSHAKES:
                raise BadFrame(f"more than {MAX_HANDSHAKES} handshakes")
            self._open = False
            events.append(Hello(read_greeting(body), body))
            return True
        if kind == ACK and not self._open:
            if not self._handshakes:
                raise BadFrame("an ack without a handshake")
            self._open = True
            if not self.ready:
                self.ready = True
                events.append(Ready())
        return False

    def accept(self, user: Any = None) -> None:
        if self._want == _HOLD and not self._over:
            self._out.append(self._settings.welcome_packet(user))
            self._want = 0

    def reject(self, refused: Refused) -> None:
        settings = self._settings
        if settings.replies:
            code = OLD_CLIENT if refused.code == OLD_CLIENT else FAILED
            said = write_farewell(PITAYA_FAILED if settings.pitaya else code, refused)
            self._out.append(packet(HANDSHAKE, said, settings.limit))
        self._end()

    def send(self, route: str, body: bytes, meta: Meta = ()) -> bytes:
        if meta:
            raise NotInDialect(_NO_META)
        routes = self._routes
        head = routes.heads.get(route) or routes.head(route)
        return self._packet(head.push, body)

    def request(self, route: str, body: bytes, meta: Meta = ()) -> tuple[int, bytes]:
        raise NotInDialect("a server cannot ask its clients in pomelo")

    def forget(self, key: int) -> None:
        """There is nothing to forget."""

    def reply(self, token: Any, body: bytes, meta: Meta = (), kind: type = bytes) -> bytes:
        settings = self._settings
        if body and not settings.compress:
            data: bytes | None = _response_packet(token, body, settings.limit)
            if data is not None:
                return data
        return self._packet(response_head(token), body)

    def refuse(self, token: Any, refused: Refused) -> bytes:
        settings = self._settings
        if not settings.replies:
            return b""
        head = response_head(token)
        if settings.pitaya:
            head = bytes((head[0] | ERROR,)) + head[1:]
            return self._packet(head, write_error(refused, settings.format))
        if not settings.nothing:
            return b""  # no other format has a word for it
        return self._packet(head, write_refusal(refused))

    def kick(self, reason: Any = None) -> bytes:
        return packet(KICK, write_kick(reason), self._settings.limit)

    def tick(self, now: float, deaf: bool = False) -> None:
        due, beat = self.deadline, self._settings.beat
        if due is None or now < due:
            return
        if deaf or self._want == _HOLD:
            self._seen = now  # nothing is read from it meanwhile
        if now - self._seen >= PATIENCE * beat:
            self._fail(PeerSilent(now - self._seen))
            return
        self._out.append(_BEAT)
        self.deadline = due + beat * (math.floor((now - due) / beat) + 1)


class PomeloClient(_Wire):
    """A connection to a server."""

    _takes = (PUSH,)
    _asks = False

    __slots__ = ("_asked", "_beat", "_beat_at", "_early", "_lost_at", "_mid")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._asked: set[int] = set()
        self._mid = 0
        self._beat = 0.0  # seconds, as the server says
        self._beat_at: float | None = None  # when a heartbeat is to be sent
        self._lost_at: float | None = None  # when to look whether anything came
        self._early: list[Event] = []  # what came before it was ready

    @property
    def shape(self) -> Hashable:
        return self

    def begin(self, now: float) -> None:
        self._seen = now
        self._out.append(self._settings.greeting_packet())

    def _unusual(self, flag: int, mid: int, route: str, body: bytes, events: list[Event]) -> None:
        kind, bits = flag & TYPE, flag & self._settings.bits
        if kind not in (PUSH, RESPONSE):
            return
        if bits:
            body = self._inflated(flag, body)
        if kind == RESPONSE:
            refused = read_error(body, self.format) if bits & ERROR else None
            self._answered(mid, body, refused, events)
        elif self._open:
            events.append(Message(route, body, self.format))
        else:
            # It came before the answer to the handshake, and is told behind Ready.
            if len(self._early) == MAX_EARLY:
                raise BadFrame(f"more than {MAX_EARLY} messages before the handshake is done")
            self._early.append(Message(route, body, self.format))

    def _answered(
        self, mid: int, body: bytes, refused: Refused | None, events: list[Event]
    ) -> None:
        if mid in self._asked:
            self._asked.discard(mid)
            events.append(Answer(mid, body, self.format, refused))

    def _control(self, kind: int, body: bytes, now: float, events: list[Event]) -> bool:
        if kind == HEARTBEAT:
            if self._beat:
                self._lost_at = None
                if self._beat_at is None:
                    self._beat_at = now + self._beat
                self._set_deadline()
        elif kind == HANDSHAKE:
            events += self._let_in(body, now)
        elif kind == KICK:
            events.append(Kicked(read_kick(body)))
        return False

    def _let_in(self, body: bytes, now: float) -> list[Event]:
        settings = self._settings
        if settings.pitaya and looks_compressed(body):
            body = inflate(body, settings.limit)
        beat, dictionary, user = read_welcome(body)
        self._beat = beat
        if dictionary is not None:
            self._routes = Routes(settings.names, dictionary)
        self._out.append(_ACK)
        # nano beats from the start, so that its next heartbeat comes within an interval.
        self._lost_at = now + 2 * beat if beat else None
        self._set_deadline()
        if self._open:
            return []
        self._open = self.ready = True
        early, self._early = self._early, []
        return [Ready(user), *early]

    def accept(self, user: Any = None) -> None:
        """Servers do not ask to be let in."""

    def reject(self, refused: Refused) -> None:
        self._end()

    def send(self, route: str, body: bytes, meta: Meta = ()) -> bytes:
        if meta:
            raise NotInDialect(_NO_META)
        routes = self._routes
        head = routes.heads.get(route) or routes.head(route)
        return self._packet(head.notify, body)

    def request(self, route: str, body: bytes, meta: Meta = ()) -> tuple[int, bytes]:
        if meta:
            raise NotInDialect(_NO_META)
        routes = self._routes
        head = routes.heads.get(route) or routes.head(route)
        mid = self._mid + 1
        data = self._packet(bytes((head.request,)) + varint(mid) + head.field, body)
        self._mid = mid
        self._asked.add(mid)
        return mid, data

    def forget(self, key: int) -> None:
        self._asked.discard(key)

    def reply(self, token: Any, body: bytes, meta: Meta = (), kind: type = bytes) -> bytes:
        return b""

    def refuse(self, token: Any, refused: Refused) -> bytes:
        return b""

    def kick(self, reason: Any = None) -> bytes:
        return b""

    def tick(self, now: float, deaf: bool = False) -> None:
        if deaf:
            self._seen = now
        if self._beat_at is not None and now >= self._beat_at:
            self._out.append(_BEAT)
            self._beat_at = None
            self._lost_at = now + 2 * self._beat
        elif self._lost_at is not None and now >= self._lost_at:
            # Whatever came puts it off; it is only looked at here.
            self._lost_at = self._seen + 2 * self._beat
            if now >= self._lost_at:
                self._fail(PeerSilent(now - self._seen))
                return
        self._set_deadline()

    def _set_deadline(self) -> None:
        beat, lost = self._beat_at, self._lost_at
        self.deadline = beat if lost is None else lost if beat is None else min(beat, lost)

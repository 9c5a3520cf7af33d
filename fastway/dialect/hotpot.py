"""The dialect of hotpot: messages with a name, over TCP or WebSocket. (spec hotpot.md, 2 to 4)

    client  {"type":"Join","data":{…}}                          {"type":"Pong","data":{}}
    server    {"type":"Joined","data":{…}}  {"type":"Ping",…}     {"type":"Error","code":…,"msg":…}

Over TCP a length goes before each, over WebSocket each is a message. A name is that of a Go type:
the route room.join is `Join`. Nothing can be asked: what a handler returns is a message whose name
is that of its type, and whoever waits for one by its name has `Session.next`.

Rule: settings, and what becomes of a connection's bytes; what stands in a message is the
envelopes'. Silence is measured as the Go code does it, not as its README says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from fastway.dialect import (
    BadFrame,
    Body,
    BodyFormat,
    Event,
    FrameRefused,
    Message,
    Meta,
    NotInDialect,
    PeerSilent,
    Ready,
    Refused,
    Traits,
    WebSocketRules,
)
from fastway.dialect.hotpot_envelopes import ENVELOPES, MAX_NAME, Envelope, JsonEnvelope, Read
from fastway.dialect.in_c import IN_C
from fastway.errors import RemoteError
from fastway.formats import Encoded

__all__ = ["MAX_MESSAGE", "Hotpot"]

MAX_MESSAGE = 4096
"""Bytes of a message that hotpot takes unless it is told otherwise."""

MIN_LIMIT, MAX_LIMIT = 64, 16 * 1024 * 1024
"""The least and the largest `max_message`: Ping and an Error have to fit."""

MAX_BEAT = 24 * 3600.0
"""The longest time of `keepalive`, in seconds."""

MAX_HEADS = 1000
"""Names whose heads are kept: an application may make them up."""

PING, PONG = "Ping", "Pong"
_OWN = frozenset((PING, PONG))

_read_named = IN_C.get("read_named")
_write_named = IN_C.get("write_named")

# A third of the time that Message(...) takes.
_message: Callable[[tuple[Any, ...]], Message] = partial(tuple.__new__, Message)


class Hotpot:
    """What one port, or one client, speaks.

    It learns the routes of its App, so each App wants its own where their names differ.

    Args:
        format: What messages stand in, and bodies are written in: "json", "protobuf" or
            "msgpack"; hotpot's names "proto" and "msgpack#js" are the latter two. The Go server
            has no default.
        length_bytes: Of the length before a message over TCP: 2 or 4.
        byte_order: Of that length: "big" as hotpot's, or "little" for servers that changed it.
        max_message: Bytes of a message that is taken, and over TCP of one that is sent. Go's
            server sends more over WebSocket: a client of one may have to take more.
        text: Whether messages over WebSocket are text; those of the other kind are not taken.
        keepalive: (N, X), in seconds: every N seconds a server looks how long its client has said
            nothing. More than N and at most X whole seconds: it sends Ping; more than N + X: that
            is the end. A client says something every 2 N seconds at the latest, and gives up
            on a server in the same time. None: no Pings, and nobody is too silent.
        names: What the wire calls routes of the application, where that is not the last part of
            the route with a capital letter.
        refusals: "reply": a client is told Error for each message that is refused, is no message
            for its handler, or has none. "silent": nothing, as a hotpot that never sends Error.

    Raises:
        ValueError: a setting makes no sense; it says which.
        ImportError: what the format needs is not installed.
    """

    name: ClassVar[str] = "hotpot"
    concurrent: ClassVar[int] = 1

    def __init__(
        self,
        *,
        format: str = "json",
        length_bytes: int = 2,
        byte_order: Literal["big", "little"] = "big",
        max_message: int = MAX_MESSAGE,
        text: bool = False,
        keepalive: tuple[float, float] | None = (5.0, 12.0),
        names: Mapping[str, str] | None = None,
        refusals: str = "reply",
    ) -> None:
        if format not in ENVELOPES:
            raise ValueError(f"format is one of {', '.join(ENVELOPES)}, not {format!r}")
        if length_bytes not in (2, 4):
            raise ValueError(f"length_bytes is 2 or 4, not {length_bytes!r}")
        if byte_order not in ("big", "little"):
            raise ValueError(f"byte_order is big or little, not {byte_order!r}")
        most = min(MAX_LIMIT, (1 << 8 * length_bytes) - 1)
        if not MIN_LIMIT <= max_message <= most:
            raise ValueError(
                f"max_message is {MIN_LIMIT} to {most} bytes with {length_bytes} bytes of length, "
                f"not {max_message!r}"
            )
        if text and not format.startswith("json"):
            raise ValueError(f"text is for json: {format} is not UTF-8")
        if refusals not in ("reply", "silent"):
            raise ValueError(f"refusals is silent or reply, not {refusals!r}")
        every, probe = keepalive or (0.0, 0.0)
        if keepalive and not (0 < every <= MAX_BEAT and 0 <= probe <= MAX_BEAT):
            raise ValueError(
                f"keepalive is two times of at most {MAX_BEAT:g} s, the first over 0, or None, "
                f"not {keepalive!r}"
            )
        names = dict(names or {})
        taken: dict[str, str] = {}
        for route, name in names.items():
            if taken.setdefault(name, route) != route:
                raise ValueError(f"names: {taken[name]!r} and {route!r} are both {name!r}")
        envelope = ENVELOPES[format]()
        self._settings = Settings(
            envelope,
            envelope.read,
            max_message,
            float(every),
            float(probe),
            refusals == "reply",
            envelope.format if type(envelope) is JsonEnvelope and byte_order == "big" else None,
        )
        self._names = Names(envelope, names)
        try:
            for route in names:
                self._names.learn(route)
        except NotInDialect as error:
            raise ValueError(f"names: {error}") from None
        kind = "text" if text else "binary"
        self.websocket = WebSocketRules(text=text, takes=frozenset({kind}))
        self._format = format
        self._framings = (
            Framing(0, 1 << 62, byte_order),
            Framing(length_bytes, max_message, byte_order),
        )

    @property
    def max_frame(self) -> int:
        return self._settings.limit

    @property
    def traits(self) -> Traits:
        framing = self._framings[1]
        settings: dict[str, Any] = {"format": self._format, "length_bytes": framing.width}
        if framing.order != "big":
            settings["byte_order"] = framing.order
        return Traits(settings=settings, asks=frozenset(), by_type=True)

    def server(self, *, whole: bool = False) -> HotpotServer:
        return HotpotServer(self._settings, self._names, self._framings[not whole])

    def client(self, *, whole: bool = False) -> HotpotClient:
        return HotpotClient(self._settings, self._names, self._framings[not whole])

    def wire_name(self, route: str) -> str:
        """Join, for room.join; from now on what comes as Join is that, unless it was another's.

        Raises:
            NotInDialect: it has none.
        """
        return self._names.learn(route)

    def app_name(self, name: str) -> str:
        return self._names.routes.get(name, name)


@dataclass(frozen=True, eq=False)
class Settings:
    """What the wires of one port, or of one client, have in common; `Hotpot` says what each is.

    Attributes:
        read: The envelope's.
        every, probe: N and X; N is 0 where there is no keepalive.
        replies: Who is refused is told so.
        json: How data is written if the envelope is that of JSON, and lengths are in hotpot's
            order: C knows that; else None.
    """

    envelope: Envelope
    read: Callable[[bytes, bool], Read | None]
    limit: int
    every: float
    probe: float
    replies: bool
    json: BodyFormat | None


class Names:
    """Routes of an application, and what the wire calls them.

    Args:
        given: Where that is not the rule.

    Attributes:
        routes: Names of the wire -> routes, where they differ.
        kinds: Types of messages -> heads; as many as MAX_HEADS.
    """

    def __init__(self, envelope: Envelope, given: Mapping[str, str]) -> None:
        self.routes: dict[str, str] = {}
        self.kinds: dict[type, bytes] = {}
        self._envelope = envelope
        self._given = given
        self._heads: dict[str, bytes] = {}

    def name(self, route: str) -> str:
        """What the wire calls a route.

        Raises:
            NotInDialect: it has no name there.
        """
        name = self._given.get(route)
        if name is None:
            last = route.rpartition(".")[2]
            name = last[:1].upper() + last[1:]
        if name in _OWN:
            raise NotInDialect(f"{route} is {name} in hotpot, which is its own")
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            size = 0
        if not 0 < size <= MAX_NAME:
            raise NotInDialect(
                f"{route!r} has no name in hotpot: that is 1 to {MAX_NAME} bytes of UTF-8"
            )
        return name

    def learn(self, route: str) -> str:
        """The application has that route. Raises NotInDialect as `name`."""
        name = self.name(route)
        self.routes.setdefault(name, route)
        return name

    def head(self, route: str) -> bytes:
        """What the envelope makes of a route's name. Raises NotInDialect as `name`."""
        head = self._heads.get(route)
        if head is None:
            head = self._envelope.head(self.name(route))
            if len(self._heads) < MAX_HEADS:
                self._heads[route] = head
        return head

    def head_of_kind(self, kind: type, name: str) -> bytes:
        """That of a type's name; of a type that has none, of the name of what it answers. Raises
        NotInDialect as `name`."""
        if kind.__module__ == "builtins" or kind in (Body, Encoded):
            return self.head_of(name)
        head = self.head(kind.__name__)
        if len(self.kinds) < MAX_HEADS:
            self.kinds[kind] = head
        return head

    def head_of(self, name: str) -> bytes:
        """The same of a name that came; only what the application knows is kept."""
        route = self.routes.get(name)
        return self._envelope.head(name) if route is None else self.head(route)


class Framing:
    """What goes around a payload.

    Args:
        width: Bytes of the length before it; 0: the transport keeps messages apart.
        limit: Bytes of a payload that is sent.
        order: Of the bytes of the length.
    """

    def __init__(self, width: int, limit: int, order: Literal["big", "little"]) -> None:
        self.width = width
        self.order = order
        self.limit = limit

    def frame(self, payload: bytes) -> bytes:
        """Raises FrameRefused: it is too large. Go would close the connection instead."""
        size = len(payload)
        if size > self.limit:
            raise FrameRefused(f"a message of {size} bytes is over {self.limit}")
        return size.to_bytes(self.width, self.order) + payload if self.width else payload


class _Wire:
    """What both ends have in common."""

    _errors: ClassVar[bool]
    _answered: ClassVar[bool]  # what comes is: `reply` and `refuse` are to know its name

    __slots__ = (
        "_events",
        "_framing",
        "_names",
        "_out",
        "_rest",
        "_routes",
        "_seen",
        "_settings",
        "_want",
        "deadline",
        "error",
        "ready",
    )

    def __init__(self, settings: Settings, names: Names, framing: Framing) -> None:
        self.ready = False
        self.error: RemoteError | None = None
        self.deadline: float | None = None
        self._settings = settings
        self._names = names
        self._framing = framing
        self._routes = names.routes
        self._events: list[Event] = []  # to be told next
        self._out: list[bytes] = []
        self._rest: bytearray | None = None  # what came of a message that is not whole
        self._want = 0  # so many bytes are to be there before it is looked at
        self._seen = 0.0  # when the last message came

    @property
    def shape(self) -> Hashable:
        return self._framing

    @property
    def format(self) -> BodyFormat:
        return self._settings.envelope.format

    def begin(self, now: float) -> None:
        self._seen = now
        if self._settings.every:
            self.deadline = now + self._settings.every
        self.ready = True
        self._events.append(Ready())

    def receive(self, data: bytes, now: float) -> list[Event]:
        events = self._events
        if events:
            self._events = []
        elif data:
            events = []
        if not data or self.error is not None:
            return events
        width = self._framing.width
        if not width:
            self._seen = now
            self._take(data, events)
            return events
        rest = self._rest
        if rest is not None:
            rest += data
            if len(rest) < self._want:
                return events
            data, self._rest = bytes(rest), None
        settings, order, at = self._settings, self._framing.order, 0
        if settings.json is not None and _read_named is not None:
            at = _read_named(
                data,
                settings.limit,
                self._routes,
                settings.json,
                width,
                self._answered,
                events,
            )
            if at == len(data):
                self._seen = now
                return events
        end, limit = len(data), settings.limit
        while True:
            start = at + width
            want = width
            if start > end:
                break
            size = int.from_bytes(data[at:start], order)
            if not 0 < size <= limit:
                self._fail(BadFrame(f"a message of {size} bytes: it is 1 to {limit}"))
                return events
            want = width + size
            if at + want > end:
                break
            at += want
            self._take(data[start:at], events)
        if at:
            self._seen = now
        if at < end:
            self._rest, self._want = bytearray(data[at:]), want
        return events

    def _take(self, payload: bytes, events: list[Event]) -> None:
        """One message; what is none is dropped, as Go does it."""
        read = self._settings.read(payload, self._errors)
        if read is None:
            return
        name, body, form, refused = read
        if name in _OWN:
            self._is_alive(name)
            return
        route = self._routes.get(name, name)
        token = name if self._answered else None
        events.append(_message((route, body, form, token, None, (), refused)))

    def _is_alive(self, name: str) -> None:
        if name == PING:
            self._say(PONG)

    def _say(self, name: str) -> None:
        """Ping or Pong."""
        envelope = self._settings.envelope
        payload = envelope.wrap(envelope.head(name), envelope.nothing)
        self._out.append(self._framing.frame(payload))

    def _message(self, head: bytes, body: bytes) -> bytes:
        settings, framing = self._settings, self._framing
        if settings.json is not None and _write_named is not None:
            data: bytes | None = _write_named(head, body, framing.width, framing.limit)
            if data is not None:
                return data
        return framing.frame(settings.envelope.wrap(head, body))

    def _fail(self, error: RemoteError) -> None:
        self.error = error
        self.deadline = None
        self._rest = None

    def accept(self, user: Any = None) -> None:
        """Nobody asks to be let in."""

    def reject(self, refused: Refused) -> None:
        """Nobody asks to be let in."""

    def send(self, route: str, body: bytes, meta: Meta = ()) -> bytes:
        if meta:
            raise NotInDialect("hotpot has no place for meta")
        return self._message(self._names.head(route), body)

    def request(self, route: str, body: bytes, meta: Meta = ()) -> tuple[int, bytes]:
        raise NotInDialect("nothing can be asked in hotpot: send, and wait with `next`")

    def forget(self, key: int) -> None:
        """There is nothing to forget."""

    def reply(self, token: Any, body: bytes, meta: Meta = (), kind: type = bytes) -> bytes:
        """What a handler returned, under the name of its type; under that of what it handled where
        the type is Python's own or the body is encoded already."""
        if kind is type(None):
            return b""
        if meta:
            raise NotInDialect("hotpot has no place for meta")
        names = self._names
        return self._message(names.kinds.get(kind) or names.head_of_kind(kind, token), body)

    def refuse(self, token: Any, refused: Refused) -> bytes:
        settings = self._settings
        if not settings.replies:
            return b""
        said = settings.envelope.error(refused)
        if len(said) > settings.limit:
            said = settings.envelope.error(Refused(refused.code))
        return self._framing.frame(said)

    def kick(self, reason: Any = None) -> bytes:
        return b""

    def tick(self, now: float, deaf: bool = False) -> None:
        due, every = self.deadline, self._settings.every
        if due is None or now < due:
            return
        if deaf:  # nothing is read from it meanwhile; it is pinged all the same
            self._seen = max(self._seen, now - every - 1)
        self._look(now - self._seen)
        if self.error is None:
            self.deadline = due + every * (math.floor((now - due) / every) + 1)

    def _look(self, silence: float) -> None:
        """It is time to look at the peer, which has said nothing for so long."""
        raise NotImplementedError

    def data_to_send(self) -> list[bytes]:
        out = self._out
        if out:
            self._out = []
            return out
        return []


class HotpotServer(_Wire):
    """A client's connection, at its server."""

    _errors = False
    _answered = True

    __slots__ = ()

    def _look(self, silence: float) -> None:
        every, probe = self._settings.every, self._settings.probe
        seconds = math.floor(silence)
        if seconds > every + probe:
            self._fail(PeerSilent(silence))
        elif every < seconds <= probe:
            self._say(PING)


class HotpotClient(_Wire):
    """A connection to a server; hotpot has none, so its rules are ours.

    Go's server sends no Ping in MessagePack, and ends clients that say nothing all the same: so a
    client pings by itself. It does not give up on a server that has never answered, where Go's
    would not.
    """

    _errors = True
    _answered = False

    __slots__ = ("_answers", "_said")

    def __init__(self, settings: Settings, names: Names, framing: Framing) -> None:
        super().__init__(settings, names, framing)
        self._answers = settings.envelope.pongs
        self._said = False  # something, since the last look

    def _is_alive(self, name: str) -> None:
        self._answers = True
        super()._is_alive(name)

    def _say(self, name: str) -> None:
        self._said = True
        super()._say(name)

    def send(self, route: str, body: bytes, meta: Meta = ()) -> bytes:
        self._said = True
        return super().send(route, body, meta)

    def _look(self, silence: float) -> None:
        if self._answers and math.floor(silence) > self._settings.every + self._settings.probe:
            self._fail(PeerSilent(silence))
            return
        if not self._said:
            self._say(PING)
        self._said = False

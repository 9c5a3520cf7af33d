"""Messages of the control connection: what a gateway and a game server say to each other.

Rule: this module knows what messages look like, for both sides, and not when they are said. What
the other side wrote parses, or raises BadControl; nothing else. (spec control.md)

    message = JSON object in UTF-8, at most 64 KiB [ "\\n" payload ]
    request {"op": VERB, "id": N, ...}
    answer  {"id": N, "ok": true, ...}, {"id": N, "ok": false, "error": CODE, "text": ...}
    event   {"op": NAME, ...}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from json import JSONDecoder, JSONEncoder
from typing import Any, ClassVar, NamedTuple, NoReturn, TypeVar

from fastway.errors import BadControl, MessageTooLarge
from fastway.wire import MAX_ID

SERVICE_ID = 0
"""The id that a server dials to reach the gateway itself; no client ever has it."""

VERSION = 1
"""What `hello` agrees on."""

MAX_HEAD = 64 * 1024
"""The largest JSON object, in bytes."""

MAX_DEPTH = 8
"""How deep objects and lists may stand in each other; what is known stands three deep at most."""

MAX_NAME = 128
"""The longest name of a user or a group, in bytes of UTF-8."""

MAX_TEXT = 4096
"""The longest of all other texts, in bytes of UTF-8."""

MAX_COUNT = 2**53
"""The largest number of a request, or of anything that is counted: all JSON libraries have it."""


class Verb(str, Enum):
    """What a server may ask for."""

    HELLO = "hello"
    WHO = "who"
    KICK = "kick"
    USER = "user"
    JOIN = "join"
    LEAVE = "leave"
    PUSH = "push"
    TIME = "time"


class Want(str, Enum):
    """What a server may wish to hear of; the first four are also the names of the events."""

    OPEN = "open"
    CLOSED = "closed"
    MOVED = "moved"
    DRAIN = "drain"
    INLINE = "inline"  # open and closed inside the commands that they speak of


class Code(str, Enum):
    """Why a request is not carried out. A gateway may have more of them."""

    UNKNOWN = "unknown"  # no such verb
    GONE = "gone"  # no such client, connection or group
    INVALID = "invalid"  # an argument is missing or wrong
    DENIED = "denied"  # not this server's to ask
    FULL = "full"  # a bound is reached


TRANSPORTS = frozenset(
    f"{carrier}{stream}" for carrier in ("tcp", "tls", "ws", "wss") for stream in ("", "+snet")
)
"""What may carry a client's link."""


# Messages.


class Parsed(NamedTuple):
    """A message: the object, and a view of the bytes behind its newline, None without one."""

    fields: dict[str, Any]
    payload: memoryview | None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_encode = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_decode = JSONDecoder(parse_constant=_no_constant).decode

# A string, even one that is cut off, matches: so there is nothing to go back to.
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


def encode(fields: Mapping[str, Any], payload: bytes | None = None) -> bytes:
    """A message of an object, with `payload` behind it where there is one, empty or not.

    Raises:
        MessageTooLarge: the object takes more than MAX_HEAD bytes.
        ValueError: a text is not Unicode, a number not finite.
    """
    head = _encode(fields).encode()
    if len(head) > MAX_HEAD:
        raise MessageTooLarge(len(head), MAX_HEAD)
    return head if payload is None else b"\n".join((head, payload))


def parse(message: bytes) -> Parsed:
    """Read a message. The payload is not copied.

    Raises:
        BadControl: it is too large, too deep, no UTF-8, no JSON, or no object.
    """
    end = message.find(b"\n", 0, MAX_HEAD + 1)
    if end < 0 and len(message) > MAX_HEAD:
        raise BadControl(f"the object of a message is over {MAX_HEAD} bytes")
    head = message if end < 0 else message[:end]
    if _too_deep(head):
        raise BadControl(f"a message is nested more than {MAX_DEPTH} deep")
    try:
        fields = _decode(head.decode())
    except UnicodeDecodeError as error:
        raise BadControl(f"a message is no UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise BadControl(f"a message is no JSON: {error}") from None
    if type(fields) is not dict:
        raise BadControl(f"a message is {_kind(fields)}, not an object")
    return Parsed(fields, None if end < 0 else memoryview(message)[end + 1 :])


def _too_deep(head: bytes) -> bool:
    # Nearly always the brackets are too few for it, so most messages are not looked through.
    if head.count(b"{") + head.count(b"[") <= MAX_DEPTH:
        return False
    brackets = _STRINGS.sub(b"", head).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")  # the innermost of each
    # Those that are never closed are no JSON; they only must not reach a parser that recurses.
    return b"[]" in brackets or brackets.count(b"[") > MAX_DEPTH


# Fields: each reads one of an object, or raises BadControl with its name.


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a text"}
    return kinds.get(type(value), "a list" if type(value) is list else "an object")


def _wrong(name: str, value: object, wanted: str) -> BadControl:
    return BadControl(f"{name} is {_kind(value)}, not {wanted}")


def read_int(fields: Mapping[str, Any], name: str, least: int = 0, most: int = MAX_ID) -> int:
    """A whole number, `least` to `most`."""
    value = fields.get(name)
    if type(value) is not int:
        raise _wrong(name, value, "a whole number")
    if not least <= value <= most:
        raise BadControl(f"{name} is not within {least} and {most}")
    return value


def read_number(fields: Mapping[str, Any], name: str) -> float:
    """A number that is finite and not below 0: seconds."""
    value = fields.get(name)
    if type(value) is not int and type(value) is not float:
        raise _wrong(name, value, "a number")
    # Compared before it is made a float, which not every int can be; no NaN is within anything.
    if not 0 <= value <= MAX_COUNT:
        raise BadControl(f"{name} is not within 0 and {MAX_COUNT}")
    return float(value)


def read_text(
    fields: Mapping[str, Any], name: str, default: str | None = None, limit: int = MAX_TEXT
) -> str:
    """A text that fits a line of a log: at most `limit` bytes, no control characters.

    Args:
        default: What a missing one is; None if it must be there.
    """
    value = fields.get(name, default)
    if type(value) is not str:
        raise _wrong(name, value, "a text")
    try:
        return _checked_text(value, limit)
    except ValueError as error:
        raise BadControl(f"{name}: {error}") from None


def read_flag(fields: Mapping[str, Any], name: str, default: bool | None = None) -> bool:
    """true or false."""
    value = fields.get(name, default)
    if type(value) is not bool:
        raise _wrong(name, value, "a boolean")
    return value


def read_name(fields: Mapping[str, Any], name: str) -> str:
    """The name of a user or a group."""
    value = fields.get(name)
    if type(value) is not str:
        raise _wrong(name, value, "a text")
    try:
        return check_name(value)
    except ValueError as error:
        raise BadControl(f"{name}: {error}") from None


def read_ids(
    fields: Mapping[str, Any], name: str, default: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """A list of ids, 1 to 2**32 - 1.

    Args:
        default: What a missing one is; None if it must be there.
    """
    if default is not None and name not in fields:
        return default
    value = fields.get(name)
    if type(value) is not list:
        raise _wrong(name, value, "a list")
    for one in value:
        if type(one) is not int or not 1 <= one <= MAX_ID:
            raise BadControl(f"{name} has something in it that is no id")
    return tuple(value)


def check_name(name: str) -> str:
    """The name of a user or a group, if it may be one.

    Raises:
        ValueError: it has not 1 to 128 bytes of UTF-8, or control characters.
        TypeError: it is no text.
    """
    if not isinstance(name, str):
        raise TypeError(f"a name is a text, not {type(name).__name__}")
    if not name:
        raise ValueError("a name is empty")
    return _checked_text(name, MAX_NAME)


def _checked_text(text: str, limit: int) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair is no text") from None
    if size > limit:
        raise ValueError(f"{size} bytes of UTF-8 are over {limit}")
    if _CONTROLS.search(text):
        raise ValueError("it has control characters")
    return text


# Facts.


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What TLS told of a player; what it did not tell is empty.

    Attributes:
        version: As OpenSSL names it: TLSv1.3.
        sni: The host name that was asked for.
        identity: Whom the client's certificate names.
        sha256: The fingerprint of that certificate, in hex.
    """

    version: str = ""
    sni: str = ""
    identity: str = ""
    sha256: str = ""

    def fields(self) -> dict[str, Any]:
        return {name: value for name in self.__slots__ if (value := getattr(self, name))}

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> TlsFacts:
        return cls(*(read_text(fields, name, "") for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class PlayerFacts:
    """Who is at the client's end of a virtual connection, and how it came (spec, Facts).

    Attributes:
        client: The client's id.
        addr: Its address without the port; `via` tells the proxy's, empty without one.
        port: 0 where there is none, or where nobody tells it, as after it has moved.
        transport: One of TRANSPORTS.
        tls: None without TLS.
        user: The name that a server gave it; None until then.
        since: When it came, in seconds since 1970.
    """

    client: int
    addr: str
    port: int = 0
    via: str = ""
    transport: str = "tcp"
    tls: TlsFacts | None = None
    user: str | None = None
    since: float = 0.0

    def fields(self) -> dict[str, Any]:
        """The JSON object."""
        fields: dict[str, Any] = {"client": self.client, "addr": self.addr, "port": self.port}
        if self.via:
            fields["via"] = self.via
        fields["transport"] = self.transport
        if self.tls is not None:
            fields["tls"] = self.tls.fields()
        fields["user"] = self.user
        fields["since"] = self.since
        return fields

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> PlayerFacts:
        """The facts of a JSON object, which may have more in it.

        Raises:
            BadControl: one of them is missing or wrong; it is named.
        """
        transport = fields.get("transport")
        if type(transport) is not str or transport not in TRANSPORTS:
            raise BadControl("transport is none that is known")
        tls = fields.get("tls")
        if tls is not None and type(tls) is not dict:
            raise _wrong("tls", tls, "an object")
        return cls(
            read_int(fields, "client", 1),
            read_text(fields, "addr"),
            read_int(fields, "port", 0, 0xFFFF),
            read_text(fields, "via", ""),
            transport,
            None if tls is None else TlsFacts.read(tls),
            None if fields.get("user") is None else read_name(fields, "user"),
            read_number(fields, "since"),
        )


# Events: each has its name, makes the object that tells it, and reads it.


@dataclass(frozen=True, slots=True)
class Facts:
    """Who is at the other end of a virtual connection that a client opened."""

    NAME: ClassVar[str] = "open"
    conn_id: int
    facts: PlayerFacts

    def fields(self) -> dict[str, Any]:
        return {"op": self.NAME, "conn": self.conn_id, **self.facts.fields()}

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Facts:
        return cls(read_int(fields, "conn", 1), PlayerFacts.read(fields))


@dataclass(frozen=True, slots=True)
class ClosedWhy:
    """Why a virtual connection is closed: the `code` of a Reason, or one of a later gateway."""

    NAME: ClassVar[str] = "closed"
    conn_id: int
    reason: str

    def fields(self) -> dict[str, Any]:
        return {"op": self.NAME, "conn": self.conn_id, "reason": self.reason}

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> ClosedWhy:
        return cls(read_int(fields, "conn", 1), read_text(fields, "reason"))


@dataclass(frozen=True, slots=True)
class Moved:
    """A client came back from another address, its stream and connections alive."""

    NAME: ClassVar[str] = "moved"
    client: int
    addr: str

    def fields(self) -> dict[str, Any]:
        return {"op": self.NAME, "client": self.client, "addr": self.addr}

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Moved:
        return cls(read_int(fields, "client", 1), read_text(fields, "addr"))


@dataclass(frozen=True, slots=True)
class Draining:
    """The gateway will close.

    Attributes:
        at: When it begins, in seconds since 1970.
        until: When it is done; None if nobody said.
        again: Dial the same address again: a successor listens.
    """

    NAME: ClassVar[str] = "drain"
    at: float
    until: float | None
    again: bool

    def fields(self) -> dict[str, Any]:
        return {"op": self.NAME, "at": self.at, "until": self.until, "again": self.again}

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Draining:
        until = None if fields.get("until") is None else read_number(fields, "until")
        return cls(read_number(fields, "at"), until, read_flag(fields, "again", False))


@dataclass(frozen=True, slots=True)
class Bye:
    """The gateway ends this link: a Reason's `close_code` and `code`."""

    NAME: ClassVar[str] = "bye"
    code: int
    reason: str

    def fields(self) -> dict[str, Any]:
        return {"op": self.NAME, "code": self.code, "reason": self.reason}

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Bye:
        return cls(read_int(fields, "code", 0, 0xFFFF), read_text(fields, "reason"))


@dataclass(frozen=True, slots=True)
class LostEvents:
    """So many events were dropped, because this server did not read."""

    NAME: ClassVar[str] = "lost"
    events: int

    def fields(self) -> dict[str, Any]:
        return {"op": self.NAME, "events": self.events}

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> LostEvents:
        return cls(read_int(fields, "events", 0, MAX_COUNT))


GatewayEvent = Facts | ClosedWhy | Moved | Draining | Bye | LostEvents

_EVENTS: dict[str, type[GatewayEvent]] = {
    kind.NAME: kind for kind in (Facts, ClosedWhy, Moved, Draining, Bye, LostEvents)
}


def read_event(fields: Mapping[str, Any]) -> GatewayEvent | None:
    """The event that an object tells; None for one of a later gateway.

    Raises:
        BadControl: what it must have is missing or wrong.
    """
    kind = _EVENTS.get(read_text(fields, "op"))
    return None if kind is None else kind.read(fields)


InlineEvent = TypeVar("InlineEvent", Facts, ClosedWhy)


def parse_inline(kind: type[InlineEvent], extra: bytes, conn_id: int) -> InlineEvent:
    """The event behind the arguments of a Connect (Facts) or a Close (ClosedWhy) of `conn_id`.

    Raises:
        BadControl: it is no such event, or of another connection.
    """
    fields, payload = parse(extra)
    if payload is not None or fields.get("op") != kind.NAME:
        raise BadControl(f"what follows a command's arguments does not tell {kind.NAME!r}")
    event = kind.read(fields)
    if event.conn_id != conn_id:
        raise BadControl(f"a command for {conn_id} tells of {event.conn_id}")
    return event

"""What a game server asks of the gateway: requests, and what their answers tell.

Rule: nothing here knows when a request is sent, or whether it may be. (spec control.md)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastway.control import (
    MAX_COUNT,
    VERSION,
    PlayerFacts,
    Verb,
    read_ids,
    read_int,
    read_number,
    read_text,
)
from fastway.errors import BadControl, FastwayError
from fastway.wire import MAX_ID


@dataclass(frozen=True, slots=True)
class Welcome:
    """The gateway answered hello.

    Attributes:
        gateway: Its name.
        version: Its program's.
        features: What it can do beyond what every gateway can.
        max_packet: The largest length field that it takes, in bytes.
    """

    gateway: str
    version: str
    features: frozenset[str]
    max_packet: int


@dataclass(frozen=True, slots=True)
class Pushed:
    """A push was carried out: to so many connections, and these were not there."""

    sent: int
    missing: tuple[int, ...]


Result = Welcome | PlayerFacts | Pushed | int | float | None


class Request:
    """A request that is not answered yet. Compared by identity."""

    __slots__ = ("abandoned", "deadline", "message", "number", "verb")

    def __init__(self, verb: Verb, number: int, deadline: float, message: bytes) -> None:
        self.verb = verb
        self.number = number
        self.deadline = deadline
        self.message: bytes | None = message
        """What waits to be sent; None when it is."""
        self.abandoned = False
        """Nobody waits for it any more: no event tells what came of it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a request: its result, or an error.

    `result` is PlayerFacts for `who`, the number of members for `join` and `leave`, Pushed for
    `push`, seconds since 1970 for `time`, None for the others. `error` is RequestRefused,
    RequestTimeout, NoControl or MessageTooLarge.
    """

    request: Request
    result: Result = None
    error: FastwayError | None = None


def checked_id(number: int | None) -> int:
    """The id of a connection or a client, if it may be one.

    Raises:
        ValueError: it is not within 1 and 2**32 - 1.
        TypeError: it is no whole number.
    """
    if type(number) is not int:
        raise TypeError(f"an id is a whole number, not {type(number).__name__}")
    if not 1 <= number <= MAX_ID:
        raise ValueError(f"the id of a connection or a client is 1 to {MAX_ID}, not {number}")
    return number


def checked_ids(numbers: Iterable[int]) -> list[int]:
    return [checked_id(number) for number in numbers]


# What the answers to each verb tell.


def _welcome(fields: Mapping[str, Any]) -> Welcome:
    version = read_int(fields, "v")
    if version != VERSION:
        raise BadControl(f"the gateway speaks version {version}, not {VERSION}")
    features = fields.get("features")
    if type(features) is not list or any(type(one) is not str for one in features):
        raise BadControl("features is not a list of texts")
    return Welcome(
        read_text(fields, "gateway"),
        read_text(fields, "version"),
        frozenset(features),
        read_int(fields, "max_packet", 4),
    )


def _members(fields: Mapping[str, Any]) -> int:
    return read_int(fields, "members", 0, MAX_COUNT)


def _pushed(fields: Mapping[str, Any]) -> Pushed:
    return Pushed(read_int(fields, "sent", 0, MAX_COUNT), read_ids(fields, "missing"))


def _done(_: Mapping[str, Any]) -> None:
    return None


RESULTS: dict[Verb, Callable[[Mapping[str, Any]], Result]] = {
    Verb.HELLO: _welcome,
    Verb.WHO: PlayerFacts.read,
    Verb.KICK: _done,
    Verb.USER: _done,
    Verb.JOIN: _members,
    Verb.LEAVE: _members,
    Verb.PUSH: _pushed,
    Verb.TIME: lambda fields: read_number(fields, "unix"),
}
"""What reads the answer that says yes, by verb; it raises BadControl."""

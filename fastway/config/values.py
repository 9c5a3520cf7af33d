"""From an operator's text to a value: sizes, durations, numbers, words, shares.

Rule: a parser takes text and returns a value, or raises a ValueError whose one line says what
would be right. Every number has a lower and an upper end: none can wrap in C or in a timer.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastway.networks import Network, Networks
from fastway.websocket import origin_of
from fastway.wire import MAX_ID

_SIZE = re.compile(r"(\d+)\s*([KMG]?)i?B?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|us|h|m|s)")
_DURATION_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 0.000001}
_SHARE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*%")
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")

TEN_YEARS = 10 * 365 * 24 * 3600.0
"""Seconds of the longest duration that any option takes."""

MOST_DIRECT = 200
"""Direct ports of one gateway; the native core knows 256 ports."""

Parser = Callable[[str], Any]


def quoted(text: str) -> str:
    """The text as a message shows it, however long it is."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."


def parse_size(text: str) -> int:
    """Bytes: `512K`, `1M`, `64B` or plain bytes (spec section 5).

    Raises:
        ValueError: it is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{quoted(text)} is not a size: give bytes, or a number with K, M or G")
    return int(match[1]) * _SIZE_UNITS[match[2].upper()]


def show_size(size: float) -> str:
    """`64K`, as an operator would write it; exact for whole sizes."""
    for unit in ("G", "M", "K"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{int(size) // _SIZE_UNITS[unit]}{unit}"
    return f"{int(size)}"


def parse_duration(text: str) -> float:
    """Seconds: `30s`, `1m30s`, `500ms` or plain seconds (spec section 5).

    Raises:
        ValueError: it is not a duration.
    """
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
        text += "s"
    pieces = _DURATION.findall(text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        raise ValueError(f"{quoted(text)} is not a duration: give seconds, or 30s, 1m30s, 500ms")
    seconds = float(sum(float(number) * _DURATION_UNITS[unit] for number, unit in pieces))
    if math.isinf(seconds):
        raise ValueError(f"{quoted(text)} is too long a duration")
    return seconds


def show_duration(seconds: float) -> str:
    """`10s`, as an operator would write it."""
    for unit in ("h", "m", "s"):
        if seconds and seconds % _DURATION_UNITS[unit] == 0:
            return f"{seconds / _DURATION_UNITS[unit]:.0f}{unit}"
    return f"{seconds:g}s"


def parse_bool(text: str) -> bool:
    """`true`, `yes`, `on`, `1`, or their opposites.

    Raises:
        ValueError: it is neither.
    """
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{quoted(text)} is neither true nor false")


def parse_int(text: str) -> int:
    """A whole number.

    Raises:
        ValueError: it is not one.
    """
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{quoted(text)} is not a whole number") from None


def show_int(number: float) -> str:
    return f"{number:.0f}"


def parse_rate(text: str) -> float:
    """How many a second: `20`, `0.5`.

    Raises:
        ValueError: it is not a number.
    """
    if re.fullmatch(r"\d{1,12}(\.\d{0,9})?|\.\d{1,9}", text.strip(), re.ASCII):
        return float(text)
    raise ValueError(f"{quoted(text)} is no rate: give a number a second, such as 20 or 0.5")


def show_rate(rate: float) -> str:
    """`20`, as an operator would write it."""
    return f"{rate:.9f}".rstrip("0").rstrip(".")


def _within(
    parse: Parser, show: Callable[[float], str], low: float, high: float, zero: str
) -> Parser:
    def checked(text: str) -> Any:
        value = parse(text)
        if zero and value == 0:
            return value
        if value < low:
            also = f", or 0 for {zero}" if zero else ""
            raise ValueError(f"{quoted(text)} is too small: it must be at least {show(low)}{also}")
        if value > high:
            raise ValueError(f"{quoted(text)} is too large: it can be at most {show(high)}")
        return value

    return checked


def number(low: int, high: int, zero: str = "") -> Parser:
    """A parser of whole numbers from `low` to `high`, or 0 where `zero` says what 0 means."""
    return _within(parse_int, show_int, low, high, zero)


def size(low: int, high: int, zero: str = "") -> Parser:
    """The same of sizes, in bytes."""
    return _within(parse_size, show_size, low, high, zero)


def duration(low: float, high: float = TEN_YEARS, zero: str = "") -> Parser:
    """The same of durations, in seconds."""
    return _within(parse_duration, show_duration, low, high, zero)


def rate(low: float, high: float, zero: str = "") -> Parser:
    """The same of rates, a second."""
    return _within(parse_rate, show_rate, low, high, zero)


def one_of(*words: str) -> Parser:
    """A parser that takes one of `words`."""

    def checked(text: str) -> str:
        if text not in words:
            raise ValueError(f"{quoted(text)} is not one of {', '.join(words)}")
        return text

    return checked


def parse_path(text: str) -> str:
    """The path of a URL, without a query: `/`, `/game`.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"/[!$-;=@-~]*", text, re.ASCII):
        raise ValueError(f"{quoted(text)} is no path of a URL: it begins with / and has no ? or #")
    return text


def parse_addresses(text: str) -> tuple[str, ...]:
    """Addresses, separated by commas or spaces; there may be none."""
    return tuple(text.replace(",", " ").split())


_HOST_NAME = re.compile(r"\[[0-9a-f:.]{2,45}\]|[0-9a-z_-]+(\.[0-9a-z_-]+)*")


def parse_hosts(text: str) -> tuple[str, ...]:
    """Names as they stand in a URL, in lower case and without ports: `admin.example, [fd00::1]`.

    Raises:
        ValueError: one is none.
    """
    found = tuple(text.replace(",", " ").lower().split())
    for host in found:
        if len(host) > 253 or _HOST_NAME.fullmatch(host) is None:
            raise ValueError(
                f"{quoted(host)} is no host's name: give a list such as admin.example, [fd00::1]"
            )
    return found


MOST_PROTOCOLS = 16
"""Of one port: they go into no hello, but each client's is compared with them."""


def parse_protocols(text: str) -> tuple[bytes, ...]:
    """Names of what is spoken inside TLS (RFC 7301), the first choice first: `mqtt, http/1.1`.

    Raises:
        ValueError: one is none, or there are too many.
    """
    found = tuple(dict.fromkeys(text.replace(",", " ").split()))
    for name in found:
        if not re.fullmatch(r"[!-~]{1,255}", name, re.ASCII):
            raise ValueError(
                f"{quoted(name)} is no protocol's name: give a list such as mqtt, http/1.1"
            )
    if len(found) > MOST_PROTOCOLS:
        raise ValueError(f"there are too many: give up to {MOST_PROTOCOLS}")
    return tuple(name.encode("ascii") for name in found)


class DirectPort(NamedTuple):
    """A port whose connections are dialled to one game server.

    Attributes:
        name: What the operator calls it.
        address: Where it listens.
        server_id: Whom its connections reach.
        tls: They speak TLS.
        ws: They speak WebSocket.
    """

    name: str
    address: str
    server_id: int
    tls: bool = False
    ws: bool = False


def parse_direct(text: str) -> tuple[DirectPort, ...]:
    """Direct ports: `web=:8080->7`, `admin=tls+127.0.0.1:8443->8`; several with commas between.

    Raises:
        ValueError: one is none, or two have the same name.
    """
    found: list[DirectPort] = []
    for word in text.split(","):
        word = word.strip()
        if not word:
            continue
        name, equals, rest = word.partition("=")
        where, arrow, number = rest.rpartition("->")
        if not (equals and arrow):
            raise ValueError(
                f"{quoted(word)} is no direct port: give NAME=ADDRESS->SERVER_ID, as web=:8080->7"
            )
        name = name.strip()
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", name):
            raise ValueError(
                f"{quoted(name)} is no name of a port: give up to 32 letters, digits, - and _"
            )
        if any(name == other.name for other in found):
            raise ValueError(f"two ports are called {name}; give each a name of its own")
        number = number.strip()
        if not re.fullmatch(r"\d{1,10}", number, re.ASCII) or int(number) > MAX_ID:
            raise ValueError(
                f"{name}: {quoted(number)} is no server id: it is a number from 0 to {MAX_ID}"
            )
        way, plus, address = where.strip().partition("+")
        if not plus:
            way, address = "", way
        elif way not in ("tls", "ws", "wss"):
            raise ValueError(
                f"{name}: {quoted(way)} is nothing that a direct port speaks: give tls+, ws+, "
                "wss+, or nothing for TCP"
            )
        tls, ws = way in ("tls", "wss"), way in ("ws", "wss")
        if len(found) == MOST_DIRECT:
            raise ValueError(f"there are too many: give up to {MOST_DIRECT}")
        found.append(DirectPort(name, address.strip(), int(number), tls, ws))
    return tuple(found)


def parse_origins(text: str) -> tuple[str, ...]:
    """Origins of web pages, in lower case: `https://game.example`, `same`, `null`, or `*`.

    Raises:
        ValueError: one is none, or there is none.
    """
    found = []
    for word in text.replace(",", " ").split():
        origin = word if word in ("same", "*") else origin_of(word)
        if origin is None:
            raise ValueError(
                f"{quoted(word)} is no origin: give same, * or a list such as "
                "https://game.example, https://play.example:8443"
            )
        found.append(origin)
    if not found:
        raise ValueError("no origin at all could connect: give same, * or a list")
    return tuple(found)


def parse_networks(text: str) -> Networks:
    """Addresses and networks, and `unix`: `10.0.0.0/8, ::1, unix`.

    Raises:
        ValueError: one is none.
    """
    found: list[Network] = []
    for word in text.replace(",", " ").split():
        try:
            found.append("unix" if word == "unix" else ipaddress.ip_network(word))
        except ValueError:
            meant = _meant(word) or "a list such as 10.0.0.0/8, ::1, unix"
            raise ValueError(f"{quoted(word)} is no network: give {meant}") from None
    return Networks(tuple(found))


def _meant(word: str) -> str:
    """What whoever gave bits behind a network's prefix can have meant; empty: it is not that."""
    address = word.partition("/")[0]
    try:
        network = ipaddress.ip_network(word, strict=False)
        if network.network_address == ipaddress.ip_address(address):
            return ""
    except ValueError:
        return ""
    return f"{network}, or {address} alone"


Allowance = tuple[Network, int, float, int]
"""A network, and what each address in it may: connections, connections a second, burst."""

MOST_RATE = 1_000_000.0
"""Of anything, a second."""

_may_connect = _within(parse_int, show_int, 0, 2**31, "")
_may_come = rate(0.01, MOST_RATE, zero="no limit")
_may_burst = _within(parse_int, show_int, 1, MOST_RATE, "")


def parse_allowances(text: str) -> tuple[Allowance, ...]:
    """Networks with values of their own: `100.64.0.0/10=2000:200:400, 2001:db8::/32=0:0`.

    Behind each stand connections, connections a second, and how many of these may come at once
    (without: what comes in four seconds); 0 is no limit.

    Raises:
        ValueError: one is none.
    """
    found: list[Allowance] = []
    for word in text.replace(",", " ").split():
        name, equals, values = word.partition("=")
        try:
            connections, often, *burst = values.split(":")
            if not equals or len(burst) > 1:
                raise ValueError
            network = ipaddress.ip_network(name)
        except ValueError:
            such = "100.64.0.0/10=2000:200:400, which are connections, rate and burst"
            meant = _meant(name) or f"a list such as {such}"
            raise ValueError(
                f"{quoted(word)} is no network with its values: give {meant}"
            ) from None
        second = _may_come(often)
        at_once = _may_burst(burst[0]) if burst else max(1, math.ceil(4 * second))
        found.append((network, _may_connect(connections), second, at_once))
    return tuple(found)


def show_allowances(allowances: Iterable[Allowance]) -> str:
    """The same as text."""
    return ",".join(
        f"{network}={connections}:{show_rate(second)}:{burst}"
        for network, connections, second, burst in allowances
    )


@dataclass(frozen=True)
class Ids:
    """Ids, as ranges: what asks whether one is `in` them."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and any(low <= number <= high for low, high in self.ranges)


MOST_RANGES = 1000
"""Ranges of one option."""

_RANGE = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?", re.ASCII)


def parse_ids(text: str) -> Ids:
    """Ids and ranges of them: `7, 100-199`.

    Raises:
        ValueError: one is none.
    """
    found = []
    for word in text.replace(",", " ").split():
        match = _RANGE.fullmatch(word)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not low <= high <= MAX_ID:
            raise ValueError(f"{quoted(word)} is no id: give a list such as 7, 100-199")
        found.append((low, high))
    if len(found) > MOST_RANGES:
        raise ValueError(f"there are too many: give up to {MOST_RANGES}")
    return Ids(tuple(found))


def parse_id(text: str) -> int | None:
    """An id, or nothing.

    Raises:
        ValueError: it is none.
    """
    if not text.strip():
        return None
    value = parse_int(text)
    if not 0 <= value <= MAX_ID:
        raise ValueError(f"{quoted(text)} is no id: it is 0 to {MAX_ID}, or empty")
    return value


@dataclass(frozen=True)
class Share:
    """A part of something that is known only on the machine itself: over 0, at most 1."""

    part: float


def share_or(parse: Parser) -> Parser:
    """A parser of a Share, `25%`, or of whatever `parse` takes."""

    def checked(text: str) -> Any:
        match = _SHARE.fullmatch(text.strip())
        if match is None:
            return parse(text)
        part = float(match[1]) / 100
        if not 0 < part <= 1:
            raise ValueError(f"{quoted(text)} is no share: it is over 0% and at most 100%")
        return Share(part)

    return checked

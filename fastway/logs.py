"""The loggers of all modules, what they leave out, and what strangers cannot do to the log.

Rule: what is below the level is dropped before an event is made, so that a gateway at `warn`
pays nothing for its connects. Where lines go and how they look is `fastway.ops.logs`' business.
What of addresses may be written is said here once, and done where lines are written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python.failure import Failure

_ORDER = {level: order for order, level in enumerate(LogLevel.iterconstants())}


class Threshold:
    """The least level that fastway's own loggers emit; one for the process."""

    def __init__(self) -> None:
        self.level = LogLevel.info

    def set(self, name: str) -> None:
        """Set it by name: debug, info, warn, error or critical.

        Raises:
            ValueError: it is none of these.
        """
        self.level = LogLevel.lookupByName(name)

    def passes(self, level: Any) -> bool:
        """An event of `level` is logged."""
        return _ORDER[level] >= _ORDER[self.level]


threshold = Threshold()


class LevelLogger(Logger):
    """A Logger that asks the threshold first."""

    def emit(self, level: Any, format: str | None = None, **kwargs: object) -> None:
        if _ORDER[level] >= _ORDER[threshold.level]:
            super().emit(level, format, **kwargs)

    @property
    def tells_info(self) -> bool:
        """What is logged at info is not dropped: for callers whose values cost something."""
        return threshold.passes(LogLevel.info)

    @property
    def tells_debug(self) -> bool:
        """The same of debug."""
        return threshold.passes(LogLevel.debug)


def make_logger(namespace: str) -> LevelLogger:
    """The logger of a module."""
    return LevelLogger(namespace)


class _NoId:
    """What a line says for an id that is not known yet; no number, so none of its fields."""

    def __str__(self) -> str:
        return "?"


NO_ID = _NoId()


_MAPPED = bytes(10) + b"\xff\xff"


class Addresses:
    """What of players' addresses stands in the logs; one for the process.

    Attributes:
        kept: full, prefix or none.
    """

    def __init__(self) -> None:
        self.kept = "full"

    def shown(self, name: str) -> str:
        """An address as it may be written: whole, its /24 or /48 without a port, or `-`."""
        if self.kept == "full":
            return name
        if self.kept == "none":
            return "-"
        host = name[1:].partition("]")[0] if name.startswith("[") else name
        if host.count(":") == 1:
            host = host.partition(":")[0]
        host = host.partition("%")[0].partition("/")[0]
        try:
            if ":" not in host:
                return inet_ntop(AF_INET, inet_pton(AF_INET, host)[:3] + b"\0") + "/24"
            packed = inet_pton(AF_INET6, host)
        except (OSError, ValueError):
            return name  # the path of a socket: nobody's address
        if packed.startswith(_MAPPED):
            return inet_ntop(AF_INET, packed[12:15] + b"\0") + "/24"
        return inet_ntop(AF_INET6, packed[:6] + bytes(10)) + "/48"

    def hidden(self, event: LogEvent) -> LogEvent:
        """An event as it may be written. Whatever has an address is a player's, unless it says
        that it is a server's: those and proxies are machines of the operator's."""
        if self.kept == "full" or event.get("side") == "server":
            return event
        found: LogEvent = {}
        if "addr" in event:
            found["addr"] = self.shown(str(event["addr"]))
        if "address" in event:  # Twisted's, of a connection for which there was no descriptor
            host = event["address"]
            found["address"] = self.shown(str(host[0] if isinstance(host, tuple) else host))
        return {**event, **found} if found else event


addresses = Addresses()


# Lines are for people and terminals: C0, DEL and C1; signs that turn the direction of writing;
# separators that some take for a new line; halves of surrogate pairs.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def escaped(text: str) -> str:
    r"""`text` with each control character spelt out, as `\x1b`: it stays in its line."""
    if text.isprintable():  # C code, for nearly every line
        return text
    return _CONTROLS.sub(lambda found: _spelt(found[0]), text)


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode()


Comer = TypeVar("Comer")

ALL = "all addresses"
"""Who caused a line where it does not matter."""

OTHERS = "other addresses"
"""Who caused a line when the table of a `Throttle` is full."""


@dataclass(slots=True)
class _Heard:
    """A kind of line from one address: since when it is counted, and how many were not said."""

    log: LevelLogger
    level: Any
    since: float
    side: object
    count: int = 0


class Throttle:
    """Lines that strangers can cause: the first at once, of those that follow only the number.

    For each kind of line and each address there is one line, and then for every WINDOW in which
    more came one line that counts them. It wakes only while there is something to be summed up.

        quiet.info(log, "client connected", host, "{side} {id} {addr} connected", ...)

    Args:
        clock: Seconds that never go back, and the timer.
    """

    WINDOW = 10.0
    """Seconds that are summed up in one line."""
    ADDRESSES = 1024
    """Kinds and addresses that are told apart. Past that all others of a kind count as one."""
    LINES = 64
    """Sums that are said in one turn."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._heard: dict[tuple[str, str], _Heard] = {}
        self._tidied = float("-inf")
        self._call: IDelayedCall | None = None

    def info(self, log: LevelLogger, kind: str, host: str, form: str, **fields: object) -> None:
        """Log or count a line at info.

        Args:
            log: Whose line it is.
            kind: What happened, in a few words of the program's own: the subject of the sum.
            host: The address that caused it, without its port.
            form: The line's format, and `fields` its fields.
        """
        if log.tells_info:
            self._say(LogLevel.info, log, kind, host, form, fields)

    def warn(self, log: LevelLogger, kind: str, host: str, form: str, **fields: object) -> None:
        """Log or count a line at warn; see `info`."""
        if threshold.passes(LogLevel.warn):
            self._say(LogLevel.warn, log, kind, host, form, fields)

    def counts(self, kind: str, host: str) -> bool:
        """Count a line at info that would only be counted, so that its fields need not be made;
        False: it is to be said."""
        return self._count((kind, source_of(host)), self._clock.seconds())

    def failure(
        self,
        log: LevelLogger,
        kind: str,
        form: str,
        failure: Failure | None = None,
        **fields: object,
    ) -> None:
        """Log a failure with its traceback, or count it, whoever caused it.

        Args:
            kind: What fails, as for `info`. Failures of one kind and one type are the same.
            failure: None: the exception that is being handled.
        """
        if threshold.passes(LogLevel.critical):
            failure = failure or Failure()
            kind = f"{getattr(failure.type, '__name__', 'failure')} of {kind}"
            self._say(LogLevel.critical, log, kind, ALL, form, {**fields, "log_failure": failure})

    def flush(self) -> None:
        """Say what was counted, and forget everybody: the gateway stops."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        now = self._clock.seconds()
        for (kind, source), heard in self._heard.items():
            if heard.count:
                self._say_sum(kind, source, heard, now)
        self._heard.clear()

    def _say(
        self,
        level: Any,
        log: LevelLogger,
        kind: str,
        host: str,
        form: str,
        fields: dict[str, object],
    ) -> None:
        now = self._clock.seconds()
        key = kind, source_of(host)
        if key not in self._heard and len(self._heard) >= self.ADDRESSES:
            self._tidy(now)
            if len(self._heard) >= self.ADDRESSES:
                key = kind, OTHERS
        if self._count(key, now):
            return
        self._heard[key] = _Heard(log, level, now, fields.get("side"))
        log.emit(level, form, **fields)

    def _count(self, key: tuple[str, str], now: float) -> bool:
        """Only count it, if the first of its kind was said within the window."""
        heard = self._heard.get(key)
        if heard is None or (not heard.count and self._is_over(heard, now)):
            return False
        heard.count += 1
        if self._call is None:
            self._wait(max(heard.since + self.WINDOW - now, 0.0))
        return True

    def _is_over(self, heard: _Heard, now: float) -> bool:
        return not 0 <= now - heard.since < self.WINDOW

    def _tidy(self, now: float) -> None:
        """Forget who was quiet for a window; at most once a second, for it looks at everybody."""
        if 0 <= now - self._tidied < 1:
            return
        self._tidied = now
        for key, heard in list(self._heard.items()):
            if not heard.count and self._is_over(heard, now):
                del self._heard[key]

    def _wait(self, seconds: float) -> None:
        self._call = self._clock.callLater(seconds, self._sum_up)

    def _sum_up(self) -> None:
        self._call = None
        now = self._clock.seconds()
        said = 0
        waits: float | None = None
        for (kind, source), heard in self._heard.items():
            if not heard.count:
                continue
            if self._is_over(heard, now) and said < self.LINES:
                said += 1
                self._say_sum(kind, source, heard, now)
                heard.since, heard.count = now, 0
            else:
                due = max(heard.since + self.WINDOW - now, 0.0)
                waits = due if waits is None else min(waits, due)
        if waits is not None:
            # Sums that are due at nearly the same time share a turn, as far as one is long enough.
            self._wait(0.01 if said == self.LINES else max(waits, 1.0))

    def _say_sum(self, kind: str, source: str, heard: _Heard, now: float) -> None:
        heard.log.emit(
            heard.level,
            "{kind}: {count} more from {addr} in {seconds:.0f} s",
            kind=kind,
            side=heard.side,
            count=heard.count,
            addr=source,
            seconds=round(now - heard.since, 3),
        )


def source_of(host: str) -> str:
    """Whom a `Throttle` takes for one stranger: an address, or the /64 of an IPv6 address."""
    if ":" not in host:
        return host
    try:  # a tenth of the time of an IPv6Address
        packed = inet_pton(AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return host
    if packed.startswith(_MAPPED):
        return inet_ntop(AF_INET, packed[12:])
    return inet_ntop(AF_INET6, packed[:8] + bytes(8)) + "/64"

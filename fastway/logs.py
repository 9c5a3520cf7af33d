"""Where log events go and how they look: text or JSON, one line each.

Rule: what is below the level is dropped before an event is made, so that a gateway at `warn`
pays nothing for its connects.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import IO, Any, cast

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
    globalLogBeginner,
    globalLogPublisher,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from fastway.errors import ConfigError

_ORDER = {level: order for order, level in enumerate(LogLevel.iterconstants())}


class Threshold:
    """The least level that fastway's own loggers emit; one for the process."""

    def __init__(self) -> None:
        self.level = LogLevel.info

    def set(self, name: str) -> None:
        """Set it by name: debug, info, warn, error or critical."""
        self.level = LogLevel.lookupByName(name)


threshold = Threshold()


class LevelLogger(Logger):
    """A Logger that asks the threshold first."""

    def emit(self, level: Any, format: str | None = None, **kwargs: object) -> None:
        if _ORDER[level] >= _ORDER[threshold.level]:
            super().emit(level, format, **kwargs)

    @property
    def tells_info(self) -> bool:
        """What is logged at info is not dropped: for callers whose values cost something."""
        return _ORDER[LogLevel.info] >= _ORDER[threshold.level]


def make_logger(namespace: str) -> LevelLogger:
    """The logger of a module."""
    return LevelLogger(namespace)


class TextLine:
    """An event as Twisted's classic line of text, its text indented where it has several lines.

    Twisted's own formatter takes twice as long as to accept a connection does; here the time is
    formatted once a second, and the text by str.format.
    """

    def __init__(self) -> None:
        self._second = -1
        self._time = ""

    def __call__(self, event: LogEvent) -> str | None:
        form = event.get("log_format")
        calls = not isinstance(form, str) or "()" in form
        if calls or not form or "log_failure" in event or "log_system" in event:
            return formatEventAsClassicLogText(event)
        try:
            when = event["log_time"]
            system = f"{event['log_namespace']}#{event['log_level'].name}"
            text = cast(str, form).format_map(event)
        except Exception:  # Twisted's tells what is wrong with it
            return formatEventAsClassicLogText(event)
        second = int(when)
        if second != self._second:
            self._second, self._time = second, formatTime(when)
        if "\n" in text:
            text = text.replace("\n", "\n\t")
        return f"{self._time} [{system}] {text}\n"


def json_line(event: LogEvent) -> str:
    """An event as one line of JSON: time, level, source, text, and the event's plain fields."""
    when = datetime.fromtimestamp(cast(float, event.get("log_time", 0.0)), timezone.utc)
    level = event.get("log_level")
    line: dict[str, Any] = {
        "time": when.isoformat(timespec="milliseconds"),
        "level": getattr(level, "name", "info"),
        "source": event.get("log_namespace", ""),
        "text": formatEvent(event),
    }
    failure = event.get("log_failure")
    if failure is not None:
        line["traceback"] = cast(Any, failure).getTraceback()
    for name, value in event.items():
        plain = isinstance(value, (str, int, float, bool))
        if plain and not name.startswith("log_") and name not in line:
            line[name] = value
    return json.dumps(line, ensure_ascii=False) + "\n"


def make_observer(stream: IO[str] | LogFile, kind: str) -> ILogObserver:
    """An observer that writes lines of `kind`, text or json, to a stream."""
    formats: dict[str, Callable[[LogEvent], str | None]] = {
        "text": TextLine(),
        "json": json_line,
    }

    def line(event: LogEvent) -> str | None:
        text = formats[kind](event)
        # A file name of the operator's may hold bytes that are no UTF-8.
        if text is None or text.isascii():
            return text
        return text.encode("utf-8", "backslashreplace").decode("utf-8")

    write = FileLogObserver(cast(IO[str], stream), line)

    @implementer(ILogObserver)
    def observer(event: LogEvent) -> None:
        level = cast(Any, event.get("log_level", LogLevel.info))
        if _ORDER[level] >= _ORDER[threshold.level] or event.get("always"):
            write(event)

    return cast(ILogObserver, observer)


def open_logfile(path: str) -> LogFile:
    """A log file to append to, mode 0640, that `reopen` opens anew after a rotation.

    Raises:
        ConfigError: it cannot be written.
    """
    path = os.path.abspath(path)
    # LogFile gives the mode to whatever is there; /dev/null must keep its own.
    mode = 0o640 if os.path.isfile(path) or not os.path.exists(path) else None
    try:
        file: LogFile = LogFile.fromFullPath(path, rotateLength=None, defaultMode=mode)
        return file
    except OSError as error:
        raise ConfigError("--logfile", f"cannot write {path}: {error.strerror}") from None


def check_logfile(path: str) -> None:
    """See that a log file can be written, without making one.

    Raises:
        ConfigError: it cannot.
    """
    directory = os.path.dirname(os.path.abspath(path))
    problem = ""
    if os.path.isdir(path):
        problem = "it is a directory"
    elif not os.path.isdir(directory):
        problem = f"{directory} is not a directory; make it"
    elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
        problem = "this user may not"
    if problem:
        raise ConfigError("--logfile", f"cannot write {path}: {problem}")


def begin(observer: ILogObserver | None) -> None:
    """Make `observer`, or nothing yet, the log of a process that is not under twistd."""
    observers = [] if observer is None else [observer]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)


def add(observer: ILogObserver) -> None:
    globalLogPublisher.addObserver(observer)


def remove(observer: ILogObserver) -> None:
    globalLogPublisher.removeObserver(observer)


def console(kind: str) -> ILogObserver:
    """An observer on standard error, where the original logs too."""
    return make_observer(sys.stderr, kind)

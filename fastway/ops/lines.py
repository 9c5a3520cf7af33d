"""How a log event looks as a line: text, or JSON.

Rule: an event is one line whatever is in its fields. Only a traceback has more, indented.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, cast

from twisted.logger import LogEvent, formatEvent, formatEventAsClassicLogText, formatTime
from twisted.python.reflect import qual

from fastway.logs import escaped

Format = Callable[[LogEvent], "str | None"]

TEXT_ONLY = frozenset({"always", "colon", "culprit", "item", "with_snet"})
"""Fields that only make up the text, or tell observers what to do; all others are documented."""

_LEGACY = frozenset({"failure", "format", "isError", "message", "printed", "system", "time"})
"""What observers of the old kind, as trial's, leave in an event."""


class _Escaping(string.Formatter):
    """str.format with every field escaped."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return escaped(super().format_field(value, format_spec))


class TextLine:
    """An event as Twisted's classic line of text, with nothing in it that moves a cursor.

    Twisted's own formatter takes twice as long as to accept a connection does; here the time is
    formatted once a second, and the text by str.format.
    """

    def __init__(self) -> None:
        self._second = -1
        self._time = ""
        self._escaping = _Escaping()

    def __call__(self, event: LogEvent) -> str | None:
        form = event.get("log_format")
        calls = not isinstance(form, str) or "()" in form
        if calls or not form or "log_failure" in event or "log_system" in event:
            return _classic(event)
        try:
            when = event["log_time"]
            system = f"{event['log_namespace']}#{event['log_level'].name}"
            text = cast(str, form).format_map(event)
            if not text.isprintable():
                text = self._escaping.vformat(cast(str, form), (), event)
        except Exception:  # Twisted's tells what is wrong with it
            return _classic(event)
        second = int(when)
        if second != self._second:
            self._second, self._time = second, formatTime(when)
        if "\n" in text:  # of the format: our own
            text = text.replace("\n", "\n\t")
        return f"{self._time} [{system}] {text}\n"


def _classic(event: LogEvent) -> str | None:
    """Twisted's lines: its messages and tracebacks, indented behind the first line."""
    text = formatEventAsClassicLogText(event)
    if text is None:
        return None
    return "\n".join(
        "\t".join(escaped(piece) for piece in row.split("\t")) for row in text.split("\n")
    )


def json_line(event: LogEvent) -> str:
    """An event as one line of JSON: time, level, system, text, and the event's plain fields."""
    level = event.get("log_level")
    line: dict[str, Any] = {
        "time": utc(cast(float, event.get("log_time", 0.0))),
        "level": getattr(level, "name", "info"),
        "system": system_of(event),
        "text": formatEvent({**event, **_named(event)}),
    }
    failure = event.get("log_failure")
    if failure is not None:
        line["traceback"] = cast(Any, failure).getTraceback()
    for name, value in event.items():
        if name == "why" and "isError" in event:
            continue  # the text once more, as observers of the old kind have it
        if name in TEXT_ONLY or name in _LEGACY or name.startswith("log_") or name in line:
            continue
        if isinstance(value, (str, int, float, bool)):
            line[name] = value
    return as_json(line) + "\n"


_encode = json.JSONEncoder(ensure_ascii=False).encode


def as_json(value: object) -> str:
    """A value as JSON in one line, with nothing in it that moves a cursor."""
    text = _encode(value)
    if not text.isprintable():
        # What JSON lets through (DEL, C1, U+2028, ...) moves a terminal's cursor all the same.
        text = "".join(c if escaped(c) == c else f"\\u{ord(c):04x}" for c in text)
    return text


def utc(seconds: float) -> str:
    """Seconds since 1970 in ISO 8601, with milliseconds."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03}+00:00"


@lru_cache(128)
def _second(seconds: int) -> str:
    """Many lines are of the same."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")


def _named(event: LogEvent) -> dict[str, str]:
    """Whose fault a failure is, by its kind and not by where it lies in memory."""
    faulty = {name: event[name] for name in ("culprit", "item") if name in event}
    return {name: qual(type(it)) for name, it in faulty.items() if not isinstance(it, str)}


def system_of(event: LogEvent) -> str:
    """The module that an event is of; of Twisted's old kind, what that says it is of."""
    space = str(event.get("log_namespace") or "log_legacy")
    if space != "log_legacy":
        return space
    system = str(event.get("log_system") or "-")
    return "twisted" if system == "-" else system


def event_text(event: LogEvent) -> str:
    """What an event says, in one line; of a traceback only its last."""
    form = event.get("log_format")
    try:
        plain = isinstance(form, str) and form and "()" not in form
        text = cast(str, form).format_map(event) if plain else formatEvent(event)
    except Exception:  # Twisted's tells what is wrong with it
        text = formatEvent(event)
    failure = cast(Any, event.get("log_failure"))
    if failure is not None:
        text = f"{text}: {failure.type.__name__}: {failure.value}"
    return escaped(text)


def make_format(kind: str) -> Format:
    """A formatter of its own for `kind`, text or json."""
    return TextLine() if kind == "text" else json_line

"""What fastway logs while a test runs.

Rule: nothing of other parts is kept, except failures; and what a gateway says is, as JSON, what
docs/logs.md says, whichever test made it say so.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache
from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from fastway.ops.lines import json_line
from tests.support.files import CHECKOUT

OTHERS = (
    "fastway.aio",
    "fastway.app",
    "fastway.cluster",
    "fastway.demo",
    "fastway.dialect",
    "fastway.endpoint",
    "fastway.snet.dial",
    "fastway.test",
)
"""What is in no gateway's process."""


@implementer(ILogObserver)
class LogLines:
    """What fastway logs while it is used as a context manager."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __enter__(self) -> LogLines:
        globalLogPublisher.addObserver(cast(ILogObserver, self))
        return self

    def __exit__(self, kind: object = None, *exc: object) -> None:
        globalLogPublisher.removeObserver(cast(ILogObserver, self))
        for event in [] if kind is not None else self.events:
            if not event.get("log_namespace", "").startswith(OTHERS):
                check_json(json_line(event))

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("fastway") or "log_failure" in event:
            self.events.append(event)

    @property
    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]


NUMBERS = {
    "attempt",
    "begins",
    "bytes_in",
    "bytes_out",
    "clients",
    "count",
    "delay",
    "dropped",
    "entries",
    "files",
    "id",
    "idle",
    "limit",
    "links",
    "packets_in",
    "packets_out",
    "pid",
    "replayed",
    "seconds",
    "table",
}
"""Fields of JSON lines that are numbers."""


@cache
def documented_fields(heading: str) -> list[str]:
    """The fields that docs/logs.md names in the table under a heading, in order."""
    with open(os.path.join(CHECKOUT, "docs", "logs.md"), encoding="utf-8") as file:
        section = file.read().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def check_json(line: str) -> dict[str, Any]:
    """See that a line of JSON is as documented: its fields, and their kinds; returns it."""
    found: dict[str, Any] = json.loads(line)
    assert list(found)[:4] == ["time", "level", "system", "text"], line
    assert set(found) <= set(documented_fields("JSON lines of the log")), line
    for name, value in found.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        assert number if name in NUMBERS else isinstance(value, str), (name, value)
    assert "object at 0x" not in line
    return found

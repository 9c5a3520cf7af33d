"""The last lines of the log, for who has no shell where it is written.

Rule: what the log has is here too, and nothing else; a line is made once, when it is said.
"""

from __future__ import annotations

import time
from typing import cast

from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from fastway.logs import threshold
from fastway.ops.lines import event_text, system_of
from fastway.ops.ring import Ring
from fastway.ops.shapes import LogLine

ROOM = 500
"""Lines that are kept."""

LONGEST = 2000
"""Characters of one."""


@implementer(ILogObserver)
class Tail:
    """An observer that keeps lines.

    Attributes:
        ring: They, the oldest first.
    """

    def __init__(self) -> None:
        self.ring: Ring[LogLine] = Ring(ROOM)

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if not (threshold.passes(level) or event.get("always")):
            return
        text = event_text(event)
        self.ring.add(
            LogLine(
                cast(float, event.get("log_time", time.time())),
                level.name,
                system_of(event),
                text if len(text) <= LONGEST else text[:LONGEST] + "...",
            )
        )

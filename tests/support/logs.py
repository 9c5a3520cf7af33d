"""What fastway logs while a test runs.

Rule: nothing of other parts is kept, except failures.
"""

from __future__ import annotations

from typing import cast

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer


@implementer(ILogObserver)
class LogLines:
    """What fastway logs while it is used as a context manager."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __enter__(self) -> LogLines:
        globalLogPublisher.addObserver(cast(ILogObserver, self))
        return self

    def __exit__(self, *exc: object) -> None:
        globalLogPublisher.removeObserver(cast(ILogObserver, self))

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("fastway") or "log_failure" in event:
            self.events.append(event)

    @property
    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

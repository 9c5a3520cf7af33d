"""How much a peer may say in a second.

Rule: a bucket of one second, kept as the time at which it is full again: nothing is done for who
says nothing.
"""

from __future__ import annotations

from typing import Any

from fastway.app.bounds import Bounds


class Rate:
    """What one peer has said.

    Attributes:
        timer: When it is heard again; the caller's.
    """

    __slots__ = ("_bytes", "_each_byte", "_each_message", "_messages", "timer")

    def __init__(self, bounds: Bounds) -> None:
        self._each_message = 1 / bounds.messages if bounds.messages else 0.0
        self._each_byte = 1 / bounds.bytes if bounds.bytes else 0.0
        self._messages = 0.0
        self._bytes = 0.0
        self.timer: Any = None

    def message(self, now: float) -> float:
        """One more: for how many seconds that is too much; 0 or less: it is not."""
        if not self._each_message:
            return 0.0
        self._messages = max(self._messages, now) + self._each_message
        return self._messages - now - 1.0

    def bytes(self, size: int, now: float) -> float:
        """So many more: as `message`."""
        if not self._each_byte:
            return 0.0
        self._bytes = max(self._bytes, now) + size * self._each_byte
        return self._bytes - now - 1.0

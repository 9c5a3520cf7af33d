"""Memory that a crowd took goes back to the system when the crowd is gone.

Rule: nothing is measured here and nothing decided but when; what waits is counted elsewhere.
CPython and glibc keep what was freed for the next crowd, which may never come. The native core's
pool gives back its own pages.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

CROWD = 16 * 1024 * 1024
"""Bytes that must have waited at once for it to be worth the while,"""

LINKS = 100
"""or links that were there at once."""

EVERY = 10.0
"""Seconds between one time and the next; it costs some milliseconds for each 100 MB."""


class Tide:
    """Notes high water, and tells when it has gone down to an eighth."""

    __slots__ = ("_high", "_worth")

    def __init__(self, worth: int) -> None:
        self._worth = worth
        self._high = 0

    def fell(self, level: int) -> bool:
        """The level is this now; whether it has fallen far since it was last high."""
        if level > self._high:
            self._high = level
        elif self._high > self._worth and 8 * level < self._high:
            self._high = level
            return True
        return False


def give_back() -> None:
    """Let the C library return what it holds freed; nothing where it cannot."""
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)

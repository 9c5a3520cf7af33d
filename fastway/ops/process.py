"""What a gateway does with a process that is its own; one embedded in another leaves it alone.

Rule: to be called before anything is scheduled, and once.
"""

from __future__ import annotations

import fcntl
import os
import resource
from contextlib import suppress
from typing import Any

from fastway.ops.garbage import keep_collections_short
from fastway.ops.guard import Guard
from fastway.wheel import make_monotonic

ROOM = 65536
"""Descriptors for which the kernel's table has room from the start; each takes 8 bytes there."""


def own_process(reactor: Any) -> None:
    """Go by a clock that nobody sets, end when there is no memory, and collect little garbage."""
    make_monotonic(reactor)
    Guard().start()
    keep_collections_short()


def raise_file_limit() -> int:
    """Let this process open as many files as it may, as Go does; returns how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    _make_room(min(files, ROOM))
    return files


def _make_room(files: int) -> None:
    """Let the table of descriptors be that large now. Else it doubles whenever it is full, and
    in a process with threads whoever opens the first one too many waits 10 to 20 ms (Linux: all
    cores have to be done with the old one)."""
    with suppress(OSError, ValueError), open(os.devnull, "rb") as spare:
        os.close(fcntl.fcntl(spare, fcntl.F_DUPFD_CLOEXEC, files - 1))

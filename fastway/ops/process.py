"""What a gateway does with a process that is its own; one embedded in another leaves it alone.

Rule: to be called before anything is scheduled, and once.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Any

from fastway.ops.garbage import keep_collections_short
from fastway.ops.guard import Guard
from fastway.wheel import make_monotonic


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
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

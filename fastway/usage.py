"""What this process takes of the system, for a few system calls.

Rule: 0 is what the system does not tell at once; nothing costs more when more is open.
"""

from __future__ import annotations

import os
import resource
import time
from functools import cache


def open_files() -> int:
    """Descriptors that are open; 0 before Linux 6.2, where they would have to be listed."""
    try:
        return os.stat("/proc/self/fd").st_size
    except OSError:
        return 0


def max_files() -> int:
    """Descriptors that may be."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 0


@cache
def started() -> float:
    """When this process began, in seconds since 1970."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = float(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/stat", "rb") as file:
            booted = next(float(line.split()[1]) for line in file if line.startswith(b"btime "))
        return booted + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return time.time() - time.process_time()

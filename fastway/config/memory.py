"""How much memory this process may have: the machine's, or less in a container.

Rule: what the system does not tell counts for nothing; no error leaves this module.
"""

from __future__ import annotations

import os
from collections.abc import Iterator


def memory_size(root: str = "/") -> int:
    """Bytes of memory of this machine, or of the control group that this process is in.

    Args:
        root: Where `proc` and `sys` are.

    Returns:
        0 where the system does not tell.
    """
    found = [_machine(), *_groups(root)]
    return min((size for size in found if size > 0), default=0)


def _machine() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _groups(root: str) -> Iterator[int]:
    """The limits of this process's control group and of all above it, version 2 and 1."""
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            place, file = os.path.join(root, "sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            place, file = os.path.join(root, "sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        # Within a container the path may be the host's, and the container's group the top.
        names = [name for name in path.split("/") if name not in ("", "..")]
        for depth in range(len(names) + 1):
            limit = _read(os.path.join(place, *names[:depth], file)).strip()
            if limit.isdecimal():  # else there is no file, or it says max
                yield int(limit)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""

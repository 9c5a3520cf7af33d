"""What /proc says of a process: its CPU, memory and wake-ups; and what the kernel has dropped.

Law: reads only; a figure of a process is its own, of all its threads.
"""

from __future__ import annotations

import os
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """What all threads have spent."""
    return _scheduled(pid, 0)


def waited_seconds(pid: int) -> float:
    """How long threads could have run while something else had their core."""
    return _scheduled(pid, 1)


def memory(pid: int) -> int:
    """Bytes of its own memory (Pss)."""
    return _number(f"/proc/{pid}/smaps_rollup", "Pss:") * 1024


def resident(pid: int) -> int:
    """Bytes of memory that it has in RAM (RSS); far cheaper to read than `memory`."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def wake_ups(pid: int) -> int:
    """How often one of its threads has waited for something since it began."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(_number(f"{task}/status", "voluntary_ctxt_switches:") for task in tasks)


def packets_dropped() -> int:
    """How many packets the kernel has dropped since it began because its own queue was full
    (/proc/net/softnet_stat); of all processes."""
    rows = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(row.split()[1], 16) for row in rows)


def _scheduled(pid: int, column: int) -> float:
    """Of /proc/PID/task/TID/schedstat, which is in nanoseconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[column]) for task in tasks) / 1e9


def _number(path: str, name: str) -> int:
    rows = Path(path).read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith(name))

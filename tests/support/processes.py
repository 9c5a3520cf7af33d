"""What the tests that start processes share.

Rule: a process gets the settings that its test names, and none of the developer's own.
"""

from __future__ import annotations

import os
import random
import resource
import socket
from collections.abc import Mapping
from contextlib import suppress

from fastway.ops.process import ROOM
from tests.support.files import CHECKOUT

PATIENCE = 60.0
"""Seconds for what takes well under one on an idle machine."""


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with FASTWAY_ `settings` and none but those."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("FASTWAY_")}
    return {**plain, "PYTHONPATH": CHECKOUT, **settings}


def has_room(pid: int) -> bool:
    """The table of a process's descriptors need not grow when a crowd comes, which makes whoever
    is served wait 10 to 20 ms each time."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        size = int(file.read().partition("FDSize:")[2].split()[0])
    return size >= min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], ROOM)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has, and that the system gives nobody by itself."""
    found: list[int] = []
    with_socket: list[socket.socket] = []
    try:
        while len(found) < count:
            one = socket.socket()
            with_socket.append(one)
            with suppress(OSError):
                one.bind(("127.0.0.1", random.randrange(15000, 32000)))
                found.append(one.getsockname()[1])
    finally:
        for one in with_socket:
            one.close()
    return found

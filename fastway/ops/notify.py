"""What systemd is told of a service of `Type=notify` (sd_notify(3)).

Rule: nobody waits for it, and a gateway goes on whether it is heard or not.
"""

from __future__ import annotations

import os
import socket
import time

from fastway.logs import make_logger
from fastway.wheel import Wheel

log = make_logger(__name__)


class Notify:
    """Tells who started this process how it is.

    Args:
        place: A unix datagram socket, `@` first for an abstract name; empty: nobody asks.
        watchdog: Seconds after which a process that has not said that it lives is ended; 0: that
            is not asked for.
    """

    def __init__(self, place: str = "", watchdog: float = 0.0) -> None:
        self.watchdog = watchdog
        self._place = "\0" + place[1:] if place.startswith("@") else place

    def tell(self, **fields: object) -> None:
        """Tell assignments, as `READY=1`."""
        if not self._place:
            return
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(text.encode(), self._place)
        except (OSError, ValueError) as error:
            log.warn("systemd was not told {told!r}: {problem}", told=text, problem=str(error))

    def reloads(self) -> None:
        """It reads its files; `READY=1` is to follow."""
        self.tell(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)


class Watchdog:
    """Says that the gateway lives, by its wheel: where that hangs, nothing is said.

    Attributes:
        slot: The wheel's note.
    """

    def __init__(self, notify: Notify) -> None:
        self.slot = -1
        self._notify = notify
        self._every = notify.watchdog / 2

    def start(self, wheel: Wheel) -> None:
        """From now on, until the wheel is stopped, if that is asked for."""
        if self._every:
            wheel.watch(self, self.check(wheel.seconds()))

    def check(self, now: float) -> float:
        """Say so, twice as often as it is asked for."""
        self._notify.tell(WATCHDOG=1)
        return now + self._every


def of_environment() -> Notify:
    """Whoever started this process, if that asks."""
    return Notify(os.environ.get("NOTIFY_SOCKET", ""), _watchdog())


def _watchdog() -> float:
    """Seconds of the watchdog that is asked for; 0: none is, of this process."""
    text = os.environ.get("WATCHDOG_USEC", "")
    whose = os.environ.get("WATCHDOG_PID", "")
    if whose not in ("", str(os.getpid())) or not (text.isascii() and text.isdigit()):
        return 0.0
    return int(text[:18]) / 1e6

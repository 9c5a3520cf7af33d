"""What systemd is told of a service of `Type=notify` (sd_notify(3)).

Rule: nobody waits for it, and a gateway goes on whether it is heard or not.
"""

from __future__ import annotations

import os
import socket

from fastway.logs import make_logger

log = make_logger(__name__)


class Notify:
    """Tells who started this process how it is.

    Args:
        place: A unix datagram socket, `@` first for an abstract name; empty: nobody asks.
    """

    def __init__(self, place: str = "") -> None:
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


def of_environment() -> Notify:
    """Whoever started this process, if that asks."""
    return Notify(os.environ.get("NOTIFY_SOCKET", ""))

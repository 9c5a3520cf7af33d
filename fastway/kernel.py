"""What the kernel tells of a TCP socket, and can be told about it.

Rule: `None` where the system does not tell; nothing here changes what is sent. Of no framework: a
socket is one of Python's, or what an event loop shows of it.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any, cast


def acked_bytes(sock: Any) -> int | None:
    """Bytes that the peer's host has acknowledged, where the kernel tells (Linux)."""
    # struct tcp_info of linux/tcp.h: tcpi_bytes_acked, a u64 at offset 120.
    return _tcp_info(sock, "=Q", 120)


def round_trip(sock: Any) -> float | None:
    """The kernel's estimate of the round-trip time in seconds, where it tells (Linux)."""
    # tcpi_rtt, microseconds, a u32 at offset 68.
    micros = _tcp_info(sock, "=I", 68)
    return None if micros is None else micros / 1e6


def _tcp_info(sock: Any, layout: str, offset: int) -> int | None:
    if sock is None or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
        return cast(int, struct.unpack_from(layout, info, offset)[0])
    except (OSError, struct.error):
        return None


def notice_death(sock: Any, seconds: float) -> None:
    """Let a TCP connection break whose peer's host gives no sign of life for so long (Linux).

    A silent host is probed; an application that says nothing is no dead host. Elsewhere the
    system's own times hold, which are hours.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not hasattr(socket, "TCP_USER_TIMEOUT"):
            return
        for option, value in (
            (socket.TCP_KEEPIDLE, max(1, round(seconds / 2))),
            (socket.TCP_KEEPINTVL, max(1, round(seconds / 4))),
            (socket.TCP_KEEPCNT, 2),
            (socket.TCP_USER_TIMEOUT, round(seconds * 1000)),
        ):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        pass  # the connection is gone already, which will show


def keep_unsent(sock: Any, size: int) -> None:
    """Let the kernel keep so many bytes at most that are not on their way yet (Linux)."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with suppress(OSError):  # the connection is gone already, which will show
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)

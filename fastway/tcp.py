"""The TCP connection under a Twisted transport: what the kernel tells and can be told of it.

Rule: `None` where the system or the transport does not tell; nothing here changes what is sent.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any, cast

from twisted.internet.interfaces import ISSLTransport, ITCPTransport, IUNIXTransport

from fastway.snet.interfaces import IResumableTransport


def is_plain_tcp(transport: object) -> bool:
    """TCP with nothing on top; a TLS transport provides ITCPTransport too."""
    return ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport)


def transport_name(transport: object) -> str:
    """What carries a connection, as operators read it: tcp, tls, unix, snet+tcp..., or other."""
    if IResumableTransport.providedBy(transport):
        below = getattr(cast(Any, transport).carrier, "transport", None)
        return f"snet+{transport_name(below)}"
    if ISSLTransport.providedBy(transport):
        return "tls"
    if ITCPTransport.providedBy(transport):
        return "tcp"
    return "unix" if IUNIXTransport.providedBy(transport) else "other"


def descriptor(transport: object) -> int:
    """The number of a transport's descriptor; -1 where it does not tell."""
    fileno = getattr(transport, "fileno", None)
    try:
        return -1 if fileno is None else int(fileno())
    except (OSError, TypeError, ValueError):
        return -1


def acked_bytes(transport: object) -> int | None:
    """Bytes that the peer's host has acknowledged, where the kernel tells (Linux)."""
    # struct tcp_info of linux/tcp.h: tcpi_bytes_acked, a u64 at offset 120.
    return _tcp_info(transport, "=Q", 120)


def round_trip(transport: object) -> float | None:
    """The kernel's estimate of the round-trip time in seconds, where it tells (Linux)."""
    # tcpi_rtt, microseconds, a u32 at offset 68.
    micros = _tcp_info(transport, "=I", 68)
    return None if micros is None else micros / 1e6


def _tcp_info(transport: object, layout: str, offset: int) -> int | None:
    get_handle = getattr(transport, "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    if not isinstance(handle, socket.socket) or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
        return cast(int, struct.unpack_from(layout, info, offset)[0])
    except (OSError, struct.error):
        return None


def notice_death(transport: object, seconds: float) -> None:
    """Let a TCP connection break whose peer's host gives no sign of life for so long (Linux).

    A silent host is probed; an application that says nothing is no dead host. Elsewhere the
    system's own times hold, which are hours.
    """
    cast(Any, transport).setTcpKeepAlive(True)
    get_handle = getattr(transport, "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    if not isinstance(handle, socket.socket) or not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    probe = max(1, round(seconds / 4))
    try:
        for option, value in (
            (socket.TCP_KEEPIDLE, max(1, round(seconds / 2))),
            (socket.TCP_KEEPINTVL, probe),
            (socket.TCP_KEEPCNT, 2),
            (socket.TCP_USER_TIMEOUT, round(seconds * 1000)),
        ):
            handle.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        pass  # the connection is gone already, which will show


def keep_unsent(transport: object, size: int) -> None:
    """Let the kernel keep so many bytes at most that are not on their way yet (Linux)."""
    get_handle = getattr(transport, "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    if isinstance(handle, socket.socket) and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with suppress(OSError):  # the connection is gone already, which will show
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)


def renew_producer(transport: object, producer: object) -> None:
    """Let a TLS transport whose peer ended TLS meanwhile notice that nothing waits any more.

    Twisted then closes the TCP connection only when it has no producer, which it does not
    tell the producer (twisted.protocols.tls, 26.10); registering anew calls stopProducing.
    """
    if ISSLTransport.providedBy(transport):
        cast(Any, transport).unregisterProducer()
        cast(Any, transport).registerProducer(producer, True)

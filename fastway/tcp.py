"""The TCP connection under a Twisted transport: what the kernel tells and can be told of it.

Rule: `None` where the system or the transport does not tell; nothing here changes what is sent.
"""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet.interfaces import ISSLTransport, ITCPTransport, IUNIXTransport

from fastway import kernel
from fastway.snet.interfaces import IResumableTransport
from fastway.websocket.interfaces import IWebSocketTransport

_WEB = {"tcp": "ws", "tls": "wss"}
"""What a WebSocket is called over a transport; over others it is `ws+` and their name."""


def is_plain_tcp(transport: object) -> bool:
    """TCP with nothing on top; a TLS transport provides ITCPTransport too."""
    return ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport)


def carrying(transport: object) -> object:
    """The transport of the connection that a stream is on now; None: it is cut. What is no stream
    is its own."""
    if IResumableTransport.providedBy(transport):
        return getattr(cast(Any, transport).carrier, "transport", None)
    return transport


def web_name(below: str) -> str:
    """What a WebSocket over a transport of that name is called."""
    return _WEB.get(below, f"ws+{below}")


def transport_name(transport: object) -> str:
    """What carries a connection, as operators read it: tcp, tls, ws, unix, snet+tcp..., or
    other."""
    if IResumableTransport.providedBy(transport):
        return f"snet+{transport_name(carrying(transport))}"
    if IWebSocketTransport.providedBy(transport):
        return web_name(transport_name(cast(Any, transport).below))
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


def tell_why(transport: object, code: int, text: str) -> None:
    """Let a WebSocket end with that code and text, if there is one now below the transport."""
    carrier = carrying(transport)
    if IWebSocketTransport.providedBy(carrier):
        cast(Any, carrier).ends_with(code, text)


def acked_bytes(transport: object) -> int | None:
    """Bytes that the peer's host has acknowledged, where the kernel tells (Linux)."""
    return kernel.acked_bytes(_socket(transport))


def round_trip(transport: object) -> float | None:
    """The kernel's estimate of the round-trip time in seconds, where it tells (Linux)."""
    return kernel.round_trip(_socket(transport))


def notice_death(transport: object, seconds: float) -> None:
    """Let a TCP connection break whose peer's host gives no sign of life for so long (Linux)."""
    sock = _socket(transport)
    if sock is not None:
        kernel.notice_death(sock, seconds)


def keep_unsent(transport: object, size: int) -> None:
    """Let the kernel keep so many bytes at most that are not on their way yet (Linux)."""
    sock = _socket(transport)
    if sock is not None:
        kernel.keep_unsent(sock, size)


def _socket(transport: object) -> socket.socket | None:
    get_handle = getattr(transport, "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    return handle if isinstance(handle, socket.socket) else None


def renew_producer(transport: object, producer: object) -> None:
    """Let a TLS transport whose peer ended TLS meanwhile notice that nothing waits any more.

    Twisted then closes the TCP connection only when it has no producer, which it does not
    tell the producer (twisted.protocols.tls, 26.10); registering anew calls stopProducing.
    """
    if ISSLTransport.providedBy(transport):
        cast(Any, transport).unregisterProducer()
        cast(Any, transport).registerProducer(producer, True)

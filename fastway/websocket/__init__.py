"""WebSocket (RFC 6455), the server's side: `request` is the handshake, `frames` what follows it.

Rule: sans-IO, no clock, no socket, nothing of the gateway. `tests/support/websocket.py` has the
vectors that any other implementation of the frames has to pass too.
"""

from fastway.websocket.frames import MAX_FRAME, BadFrame, Frames
from fastway.websocket.request import (
    HandshakeRefused,
    Policy,
    Request,
    RequestReader,
    accept,
    forwarded_for,
    origin_of,
    refusal,
)

__all__ = [
    "MAX_FRAME",
    "BadFrame",
    "Frames",
    "HandshakeRefused",
    "Policy",
    "Request",
    "RequestReader",
    "accept",
    "forwarded_for",
    "origin_of",
    "refusal",
]

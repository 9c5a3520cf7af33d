"""WebSocket (RFC 6455): `request` is the server's handshake, `frames` what follows it on both
sides, `client` and `server` are each side as one `machine`, and `forwarded` tells whom a proxy
names.

Rule: sans-IO, no clock, no socket, nothing of the gateway; but for `stream`, a transport of
Twisted for both sides, and `dial`, `url` and `strings`, which connect with Twisted: they are
imported by those who do. `tests/support/websocket.py` has the
vectors that any other implementation of the frames has to pass too.
"""

from fastway.websocket.client import ClientMachine, Url, WebSocket
from fastway.websocket.forwarded import ADDRESS_HEADERS, Trusted, forwarded_for
from fastway.websocket.frames import MAX_FRAME, BadFrame, ClientFrames, Frames
from fastway.websocket.machine import Machine
from fastway.websocket.request import (
    HTTP,
    HandshakeRefused,
    Policy,
    Request,
    RequestReader,
    accept,
    origin_of,
    refusal,
)
from fastway.websocket.server import ServerHandshake, ServerMachine

__all__ = [
    "ADDRESS_HEADERS",
    "HTTP",
    "MAX_FRAME",
    "BadFrame",
    "ClientFrames",
    "ClientMachine",
    "Frames",
    "HandshakeRefused",
    "Machine",
    "Policy",
    "Request",
    "RequestReader",
    "ServerHandshake",
    "ServerMachine",
    "Trusted",
    "Url",
    "WebSocket",
    "accept",
    "forwarded_for",
    "origin_of",
    "refusal",
]

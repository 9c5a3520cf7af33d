"""Hotpot's wires, and its vectors, for tests.

The vectors were recorded from the Go server, and from a client on its codec package.
"""

from __future__ import annotations

import json
import os
from typing import Any

from fastway.dialect import Event, Message, Ready
from fastway.dialect.hotpot import Hotpot, HotpotClient, HotpotServer

with open(os.path.join(os.path.dirname(__file__), "..", "vectors", "hotpot.json")) as file:
    VECTORS: dict[str, Any] = json.load(file)

ROWS = {row["name"]: bytes.fromhex(row["bytes"]) for row in VECTORS["rows"]}

FORMATS = ("json", "protobuf", "msgpack")

Wire = HotpotServer | HotpotClient


def server(dialect: Hotpot | None = None, *, whole: bool = False) -> HotpotServer:
    """A server's wire that is ready."""
    wire = (dialect or Hotpot()).server(whole=whole)
    begin(wire)
    return wire


def client(dialect: Hotpot | None = None, *, whole: bool = False) -> HotpotClient:
    """A client's wire that is ready."""
    wire = (dialect or Hotpot()).client(whole=whole)
    begin(wire)
    return wire


def begin(wire: Wire) -> None:
    wire.begin(0.0)
    assert wire.receive(b"", 0.0) == [Ready()]


def heard(wire: Wire, pieces: list[bytes]) -> list[Message]:
    """All messages of pieces."""
    events: list[Event] = []
    for piece in pieces:
        events += wire.receive(piece, 0.0)
    return [event for event in events if isinstance(event, Message)]


def framed(payload: bytes, width: int = 2) -> bytes:
    return len(payload).to_bytes(width, "big") + payload

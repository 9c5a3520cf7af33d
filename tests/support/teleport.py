"""Teleport's wires, and ends of them in memory, for tests.

The vectors were recorded from unmodified Go peers.
"""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock

from fastway.app import App
from fastway.dialect import Dialect, Event, Hello, Ready
from fastway.dialect.teleport import PROTOS, Teleport
from fastway.dialect.teleport_filters import FILTERS
from fastway.dialect.teleport_frames import Frame
from fastway.dialect.teleport_wires import TeleportWire
from tests.support import app_memory

with open(os.path.join(os.path.dirname(__file__), "..", "vectors", "teleport.json")) as file:
    VECTORS: dict[str, Any] = json.load(file)

BYTES: dict[str, bytes] = {one["name"]: bytes.fromhex(one["bytes"]) for one in VECTORS["frames"]}
KNOWN = {ord(letter): one for letter, one in FILTERS.items()}
LIMIT = 1 << 20


def read(data: bytes, proto: str = "raw", *, message: bool = False) -> Frame:
    """One frame."""
    return PROTOS[proto][message].read(data, KNOWN, LIMIT)


def written(frame: Frame, proto: str = "raw", *, message: bool = False) -> bytes:
    """Its bytes."""
    return PROTOS[proto][message].write(frame, KNOWN, LIMIT)


def server(dialect: Teleport | None = None, *, now: float = 0.0) -> TeleportWire:
    """A server's wire that is ready."""
    return _ready((dialect or Teleport()).server(), now)


def client(dialect: Teleport | None = None, *, now: float = 0.0) -> TeleportWire:
    """A client's wire that is ready."""
    return _ready((dialect or Teleport()).client(), now)


def _ready(wire: TeleportWire, now: float) -> TeleportWire:
    wire.begin(now)
    assert wire.receive(b"", now) == [Ready()]
    return wire


def heard(wire: TeleportWire, pieces: list[bytes]) -> list[Event]:
    """All events of pieces; whoever says Hello is let in."""
    events: list[Event] = []
    for piece in pieces:
        news = wire.receive(piece, 0.0)
        while news:
            events += news
            if type(news[-1]) is not Hello:
                break
            wire.accept()
            news = wire.receive(b"", 0.0)
    return events


class Memory(app_memory.Memory):
    """As that, and connections end in order."""

    def __init__(self, server: App, dialect: Dialect, clock: Clock) -> None:
        super().__init__(server, dialect, clock)
        self.ends = ConnectionDone

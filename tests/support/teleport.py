"""Teleport's wires, and ends of them in memory, for tests.

The vectors were recorded from unmodified Go peers.
"""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.app import App
from fastway.app.ports import LinkFactory
from fastway.dialect import Dialect, Event, Hello, Ready
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport_filters import FILTERS
from fastway.dialect.teleport_frames import FRAMINGS, Frame
from fastway.dialect.teleport_wires import TeleportWire

with open(os.path.join(os.path.dirname(__file__), "..", "vectors", "teleport.json")) as file:
    VECTORS: dict[str, Any] = json.load(file)

BYTES: dict[str, bytes] = {one["name"]: bytes.fromhex(one["bytes"]) for one in VECTORS["frames"]}
KNOWN = {ord(letter): one for letter, one in FILTERS.items()}
LIMIT = 1 << 20


def read(data: bytes, proto: str = "raw", *, message: bool = False) -> Frame:
    """One frame."""
    return FRAMINGS[proto][message].read(data, KNOWN, LIMIT)


def written(frame: Frame, proto: str = "raw", *, message: bool = False) -> bytes:
    """Its bytes."""
    return FRAMINGS[proto][message].write(frame, KNOWN, LIMIT)


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


class Half(StringTransport):
    """One end of a connection in memory: what is written is there in the next turn."""

    other: Half
    protocol: Any
    clock: Clock

    def write(self, data: bytes) -> None:
        self.clock.callLater(0, self.other.arrives, data)

    def arrives(self, data: bytes) -> None:
        if self.connected:
            self.protocol.dataReceived(data)

    def loseConnection(self) -> None:
        self.clock.callLater(0, self.both_end)

    def abortConnection(self) -> None:
        self.both_end()

    def both_end(self) -> None:
        for half in (self, self.other):
            if half.connected:
                half.connected = False
                half.protocol.connectionLost(Failure(ConnectionDone()))


@implementer(IStreamClientEndpoint)
class Memory:
    """An endpoint that leads to a port of an App in memory."""

    def __init__(self, server: App, dialect: Dialect, clock: Clock) -> None:
        self._factory = LinkFactory(server, dialect)
        self._clock = clock

    def connect(self, factory: Any) -> Deferred[Any]:
        ours, theirs = Half(), Half()
        ours.other, theirs.other = theirs, ours
        ours.clock = theirs.clock = self._clock
        ours.protocol = factory.buildProtocol(None)
        theirs.protocol = self._factory.buildProtocol(None)
        theirs.protocol.makeConnection(theirs)
        ours.protocol.makeConnection(ours)
        done: Deferred[Any] = Deferred()
        done.callback(ours.protocol)
        return done

"""Pomelo's wires that are past their handshake, for tests.

The vectors were recorded from nano's Go code and its JavaScript client.
"""

from __future__ import annotations

import json
import os
from typing import Any

from fastway.dialect import (
    Event,
    Hello,
    Ready,
)
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.pomelo_packets import (
    ACK,
    DATA,
    HANDSHAKE,
    HEARTBEAT,
    packet,
)
from fastway.dialect.pomelo_wires import (
    PomeloClient,
    PomeloServer,
)
from fastway.formats import Bytes

with open(os.path.join(os.path.dirname(__file__), "..", "vectors", "pomelo.json")) as file:
    VECTORS: dict[str, Any] = json.load(file)

SHAKE, ACKED, BEAT = packet(HANDSHAKE), packet(ACK), packet(HEARTBEAT)
Wire = PomeloServer | PomeloClient


def raw(**settings: Any) -> Pomelo:
    return Pomelo(format=Bytes(), **settings)


def server(dialect: Pomelo | None = None, *, now: float = 0.0) -> PomeloServer:
    """A server's wire whose client is in."""
    wire = (dialect or raw()).server()
    wire.begin(now)
    assert type(wire.receive(SHAKE, now)[0]) is Hello
    wire.accept()
    assert wire.receive(ACKED, now) == [Ready()]
    wire.data_to_send()
    return wire


def client(dialect: Pomelo | None = None, *, now: float = 0.0, **said: Any) -> PomeloClient:
    """A client's wire that is in; `said` is of its server's `sys`."""
    wire = (dialect or raw()).client()
    wire.begin(now)
    assert wire.receive(welcome(**said), now) == [Ready()]
    wire.data_to_send()
    return wire


def welcome(code: int = 200, **said: Any) -> bytes:
    return packet(HANDSHAKE, json.dumps({"code": code, "sys": said}).encode())


def data(text: str) -> bytes:
    """A packet with a message, of hex."""
    return packet(DATA, bytes.fromhex(text))


def heard(wire: Wire, pieces: list[bytes]) -> list[Event]:
    """All events of pieces; whoever says Hello is let in."""
    events = []
    for piece in pieces:
        news = wire.receive(piece, 0.0)
        while news:
            events += news
            if type(news[-1]) is not Hello:
                break
            wire.accept()
            news = wire.receive(b"", 0.0)
    return events


def singly(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]

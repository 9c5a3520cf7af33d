"""What a client of WebSocket talks to in tests: the gateway's side as a transport, and servers
that break the rules.

Rule: the honest side is the gateway's own machine and transport; whatever lies is written by the
book (`tests.support.websocket`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol

from fastway.websocket import Policy, ServerMachine
from fastway.websocket.stream import Carrier, Stream
from tests.support.waits import reactor
from tests.support.websocket import accept_of

FIRST = "HTTP/1.1 101 Switching Protocols"


class WebFactory(Factory):
    """Runs the protocols of a factory over WebSockets, the server's side."""

    noisy = False

    def __init__(self, factory: Any, clock: Any = reactor) -> None:
        self.clock = clock
        self._factory = factory

    def buildProtocol(self, addr: Any) -> Carrier:
        return Carrier(self, self.clock, ServerMachine(Policy()))

    def secured(self, carrier: Carrier) -> None:
        """It may ask now."""

    def upgraded(self, carrier: Carrier) -> Stream:
        protocol = self._factory.buildProtocol(carrier.below.getPeer())
        stream = carrier.stream = Stream(carrier, protocol, self.clock, lambda: None)
        protocol.makeConnection(stream)
        return stream

    def failed(self, carrier: Carrier, error: Exception) -> None:
        """Nobody waits for it."""


class Script(Protocol):
    """A server of one connection, that says what it is told once the request is there.

    Args:
        answer: The request's bytes -> what it says.
        closes: It closes then.
    """

    def __init__(self, answer: Callable[[bytes], bytes], closes: bool = False) -> None:
        self.heard = bytearray()
        self.behind = bytearray()
        self.gone = False
        self._answer: Callable[[bytes], bytes] | None = answer
        self._closes = closes

    @property
    def wire(self) -> Any:
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        if self._answer is None:
            self.behind += data
            return
        self.heard += data
        if b"\r\n\r\n" in self.heard:
            answer, self._answer = self._answer, None
            self.wire.write(answer(bytes(self.heard)))
            if self._closes:
                self.wire.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.gone = True


def agrees(behind: bytes = b"", **headers: str | None) -> Callable[[bytes], bytes]:
    """An answer as it should be, with bytes behind it, and headers that replace its own."""
    return lambda request: answer_to(request, FIRST, **headers) + behind


def answer_to(request: bytes, first: str = FIRST, **headers: str | None) -> bytes:
    """The answer to a request. `headers` replace its own, `_` for `-`; None leaves one out."""
    fields: dict[str, str] = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-accept": accept_of(request),
        "sec-websocket-protocol": "fastway",
    }
    for name, value in headers.items():
        fields.pop(name.replace("_", "-"), None)
        if value is not None:
            fields[name.replace("_", "-")] = value
    lines = [first, *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

"""What a client of WebSocket talks to in tests: the gateway's side as a transport, and servers
that break the rules.

Rule: `ServerMachine` is the gateway's own request and frames, with the verbs of the client's
machine; whatever lies is written by the book (`tests.support.websocket`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.protocol import Factory, Protocol

from fastway.errors import NO_CLOSE, RemoteError, WebSocketClosed
from fastway.websocket import Frames, Policy, RequestReader, accept
from fastway.websocket.dial import Carrier, Stream
from tests.support.waits import reactor
from tests.support.websocket import accept_of

FIRST = "HTTP/1.1 101 Switching Protocols"


class ServerMachine:
    """One WebSocket, the server's side, with the verbs of `ClientMachine`."""

    def __init__(self) -> None:
        self.up = False
        self.ended: RemoteError | None = None
        self.closing = False
        self._reader = RequestReader()
        self._frames = Frames()
        self._out = b""

    def begin(self) -> bytes:
        return b""

    def receive(self, data: bytes) -> bytes:
        if not self.up:
            found = self._reader.feed(data)
            if found is None:
                return b""
            self._out, data = accept(found[0], Policy()), found[1]
            self.up = True
        payload = self._frames.receive(data)
        if self._frames.error is not None:
            raise AssertionError(str(self._frames.error))
        if self._frames.closed and self.ended is None:
            self.ended = WebSocketClosed(self._frames.code, self._frames.text)
            if not self.closing:
                self.closing = True
                self._out += self._frames.close(1000)
        return payload

    def receive_eof(self) -> None:
        self.ended = self.ended or WebSocketClosed(NO_CLOSE)

    def data_to_send(self, room: bool = True) -> bytes:
        out, self._out = self._out, b""
        return out

    def wrap(self, data: bytes) -> bytes:
        return self._frames.wrap(data)

    def close(self, code: int = 1000, text: str = "") -> bytes:
        if self.closing:
            return b""
        self.closing = True
        return self._frames.close(code, text)


class WebFactory(Factory):
    """Runs the protocols of a factory over WebSockets, the server's side.

    It is the `Attempt` of its carriers.
    """

    noisy = False

    def __init__(self, factory: Any, clock: Any = reactor) -> None:
        self.clock = clock
        self._factory = factory

    def buildProtocol(self, addr: Any) -> Carrier:
        return Carrier(cast(Any, self), cast(Any, ServerMachine()))

    def upgraded(self, carrier: Carrier) -> Stream:
        protocol = self._factory.buildProtocol(carrier.below.getPeer())
        stream = Stream(carrier, protocol, self.clock, lambda: None)
        # The answer goes before what the protocol says at once.
        carrier.below.write(carrier.machine.data_to_send())
        carrier.stream = stream
        protocol.makeConnection(stream)
        return stream

    def failed(self, error: Exception) -> None:
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

"""A client port that speaks snet inside WebSocket, on a clock, with scripts for its clients.

Rule: an end only knows bytes, and time passes when a test turns the clock.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from fastway.gateway import GatewayLink, PortConfig, WebSocketConfig
from fastway.gateway.weblayer import Comer, WebLayer
from fastway.snet.config import SnetConfig
from fastway.snet.listen import SnetFactory
from tests.support.ends import Harness, LinkTransport
from tests.support.snet_golden import Script
from tests.support.websocket import BROWSER, frame, request, server_frames


class WebEnd:
    """A connection to that port.

    Attributes:
        told: The codes and texts of Closes that came.
    """

    def __init__(self, comer: Comer, port: int) -> None:
        self.comer = comer
        self.transport = LinkTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", port))
        self.told: list[tuple[int, str]] = []
        comer.makeConnection(cast(Any, self.transport))

    def send(self, data: bytes) -> None:
        """The gateway reads that in one read."""
        self.comer.dataReceived(data)

    def drip(self, data: bytes) -> None:
        """The gateway reads that byte by byte."""
        for place in range(len(data)):
            self.send(data[place : place + 1])

    def take(self) -> bytes:
        """What was written to it since the last call."""
        data = cast(bytes, self.transport.value())
        self.transport.clear()
        return data

    def messages(self) -> bytes:
        """What was in frames of it."""
        payload = b""
        for opcode, data in server_frames(self.take()):
            if opcode == 8:
                self.told.append((int.from_bytes(data[:2], "big"), data[2:].decode()))
            else:
                assert opcode == 2, opcode
                payload += data
        return payload

    def gone(self, error: Exception | None = None) -> None:
        """Its connection is; None: in order."""
        self.transport.connected = False
        self.comer.connectionLost(Failure(ConnectionDone() if error is None else error))


class SnetInside(Harness):
    """A gateway with that port."""

    def __init__(
        self,
        *,
        client: PortConfig | None = None,
        websocket: WebSocketConfig | None = None,
        snet: SnetConfig | None = None,
    ) -> None:
        super().__init__(client=client)
        self.streams = SnetFactory(self.clients, self.clock, snet)
        self.layer = WebLayer(
            self.streams, self.clients, WebSocketConfig() if websocket is None else websocket
        )
        self.layer.doStart()

    def comer(self) -> WebEnd:
        """Somebody connects, and has asked for nothing."""
        port = self._port()
        return WebEnd(self.layer.buildProtocol(IPv4Address("TCP", "192.0.2.1", port)), port)

    def web(self, **more: str | None) -> WebEnd:
        """A WebSocket in which nothing was said."""
        end = self.comer()
        end.send(request("GET / HTTP/1.1", BROWSER, **more))
        assert end.take().startswith(b"HTTP/1.1 101 ")
        return end

    def stream(self, **more: str | None) -> tuple[Script, WebEnd]:
        """A new stream."""
        script, end = Script(), self.web(**more)
        end.send(frame(script.hello()))
        end.send(frame(script.accept(end.messages())))
        return script, end

    def back(self, script: Script, **more: str | None) -> WebEnd:
        """A stream comes back, and sends again what the gateway lacks."""
        end = self.web(**more)
        end.send(frame(script.claim()))
        answer = end.messages()
        read = int.from_bytes(answer[8:16], "little")
        end.send(frame(script.prove(answer[16:]) + bytes(script.wrote[read:])))
        return end

    @property
    def only(self) -> GatewayLink:
        """The link of the only client."""
        (link,) = self.router.clients.values()
        return cast(GatewayLink, link)

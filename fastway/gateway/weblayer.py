"""WebSocket as a layer of a client port: what is in its messages is a connection for the layer
above it, as snet, whose streams survive one after the other.

Rule: who may come in and who it is is `fastway.gateway.websocket`'s, what a carrier does
`fastway.websocket.stream`'s; here is how long a request may take, how many may be under way, and
who hears of those that come to nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, cast
from typing import Protocol as Interface

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IProtocolFactory,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure

from fastway.causes import cause_of
from fastway.errors import NoWebSocket, Reason, RemoteError
from fastway.gateway.facts import Facts, ToldAddress, facts_of
from fastway.gateway.gate import Gate
from fastway.gateway.limits import Entry
from fastway.gateway.preface import SECURE_TIMEOUT, TIMEOUT, ToldRefused
from fastway.gateway.proxied import ProxiedPort, ProxiedService, log_early_end
from fastway.gateway.websocket import (
    WebSocketConfig,
    WebSocketFigures,
    refusing_status,
    told_by_request,
)
from fastway.tcp import descriptor, transport_name
from fastway.websocket import HandshakeRefused, Request, ServerMachine, refusal
from fastway.websocket.stream import Carrier, Stream


class WebLayerService(ProxiedService, Interface):
    """What the layer needs of the service that all ports share (`service.RouterService`)."""

    clock: IReactorTime
    gate: Gate

    def most_files(self) -> int:
        """The largest descriptor that a client may have."""


class WebLayerPort(ProxiedPort, Interface):
    """What the layer needs of its port (`factories.GatewayFactory`)."""

    @property
    def service(self) -> WebLayerService: ...

    def out_of_files(self, addr: IAddress | None) -> None:
        """Say that one was turned away because the last descriptors are not for it."""


class WebLayer(WrappingFactory):
    """The layer.

    Args:
        wrapped: Makes what runs inside.
        port: Makes the port's links.
        websocket: What it answers to.

    Attributes:
        waiting: Connections without an answer, and refused ones until they are gone, the oldest
            first.
        accepted: Requests that were answered by a WebSocket.
        refused: HTTP status -> those that were answered by it.
        untold: Requests of trusted proxies that named nobody.
    """

    noisy = False

    def __init__(
        self, wrapped: IProtocolFactory, port: WebLayerPort, websocket: WebSocketConfig
    ) -> None:
        super().__init__(wrapped)
        self.port = port
        self.websocket = websocket
        self.waiting: dict[Comer, None] = {}
        self.accepted = 0
        self.refused: Counter[int] = Counter()
        self.untold = 0

    def figures(self) -> WebSocketFigures:
        """What there was."""
        return WebSocketFigures(self.accepted, dict(self.refused), self.untold)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return Comer(self)

    def stopFactory(self) -> None:
        for comer in list(self.waiting):
            self.lose(comer, Reason.SHUTDOWN)

    # What connections call.

    def begins(self, comer: Comer) -> None:
        """One more comes; past the bound the oldest has to go."""
        self.waiting[comer] = None
        comer.watch(SECURE_TIMEOUT if ISSLTransport.providedBy(comer.transport) else TIMEOUT)
        if len(self.waiting) > self.port.config.max_handshakes:
            oldest = next(iter(self.waiting))
            del self.waiting[oldest]
            if oldest.over:
                oldest.abort()
            else:
                self.lose(oldest, Reason.TOO_MANY_HANDSHAKES)

    def secured(self, comer: Carrier) -> None:
        cast(Comer, comer).watch(TIMEOUT)

    def upgraded(self, carrier: Carrier) -> Stream | None:
        comer = cast(Comer, carrier)
        self.over(comer)
        self.accepted += 1
        peer = comer.below.getPeer() if comer.told is None else comer.told
        protocol = cast(Any, self.wrappedFactory).buildProtocol(peer)
        if protocol is None:
            comer.abort()
            return None
        clock = self.port.service.clock
        stream = comer.stream = Stream(comer, protocol, clock, lambda: None, peer)
        protocol.makeConnection(stream)
        return stream

    def failed(self, carrier: Carrier, error: RemoteError) -> None:
        comer = cast(Comer, carrier)
        if comer.over:
            return  # and now its connection is gone too
        if isinstance(error, (HandshakeRefused, ToldRefused)):
            if isinstance(error, HandshakeRefused):
                self.refused[error.status] += 1
            else:
                self.refused[refusing_status(error.reason)] += 1
            detail = "" if str(error) == error.reason.value else str(error)
            comer.log_end(error.reason, detail)
            comer.leave(half=True)
            return
        cause = error.cause if isinstance(error, NoWebSocket) else None
        if cause is None or isinstance(cause, ConnectionDone):
            comer.log_end(Reason.PEER_CLOSED)
        else:
            known = type(cause) is ConnectionLost
            comer.log_end(
                Reason.CONNECTION_LOST, "" if known else cause_of(cause, comer.transport)
            )

    def lose(self, comer: Comer, reason: Reason) -> None:
        """End one before it is answered by a WebSocket."""
        if comer.over:
            return
        comer.log_end(reason)
        if reason is Reason.SHUTDOWN and comer.may_speak:
            self.refused[503] += 1
            comer.below.write(refusal(503))
            comer.leave()
        else:
            comer.abort()

    def over(self, comer: Comer) -> None:
        """It waits no more."""
        self.waiting.pop(comer, None)
        self.port.service.wheel.forget(comer)


class Comer(Carrier):
    """One connection: a request for a WebSocket, then that.

    Attributes:
        facts: Who it is.
        told: Whom it is from, where an HTTP proxy told it.
        slot: The wheel's note.
        over: It was refused, or lost, and the log has a line.
    """

    def __init__(self, layer: WebLayer) -> None:
        port = layer.port
        machine = ServerMachine(layer.websocket.policy, port.config.frame_limit, self._comes_from)
        super().__init__(layer, port.service.clock, machine)
        self.facts = Facts("?")
        self.told: ToldAddress | None = None
        self._admitted: Entry | None = None
        self.slot = -1
        self.over = False
        self._layer = layer
        self._since = 0.0
        self._bytes_in = 0

    def logPrefix(self) -> str:
        return "connection"

    @property
    def may_speak(self) -> bool:
        """What is written to it goes out."""
        return self.secured or not ISSLTransport.providedBy(self.transport)

    # What Twisted calls.

    def connectionMade(self) -> None:
        super().connectionMade()
        port, transport = self._layer.port, cast(Any, self.transport)
        self.facts = facts_of(transport.getPeer(), transport_name(transport))
        self._since = port.service.wheel.seconds()
        if descriptor(transport) > port.service.most_files():
            self.over = True
            port.out_of_files(transport.getPeer())
            self.abort()
        else:
            self._layer.begins(self)

    def dataReceived(self, data: bytes) -> None:
        if self.over:
            return
        self._bytes_in += len(data)
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._layer.port.service.gate.leave(self._admitted)
        super().connectionLost(reason)
        self.stream = None  # no cycle
        self._layer.over(self)

    def _comes_from(self, request: Request) -> None:
        """Its request is good. The limits ask by whom a proxy tells, whose own connections do
        not count."""
        layer = self._layer
        facts = told_by_request(request, self.facts, layer)
        if facts.name == self.facts.name:
            return
        self.facts = facts
        entry = layer.port.door.admit_told(facts.host)
        if isinstance(entry, Reason):
            raise ToldRefused(entry, refusal(refusing_status(entry)))
        self._admitted = entry
        self.told = ToldAddress(facts)

    # Time.

    def watch(self, seconds: float) -> None:
        """What it is at may take so long from now on."""
        wheel = self._layer.port.service.wheel
        wheel.forget(self)
        wheel.watch(self, wheel.seconds() + seconds)

    def check(self, now: float) -> float | None:
        """Its request takes too long."""
        self._layer.lose(self, Reason.HANDSHAKE_TIMEOUT)
        return None

    def log_end(self, reason: Reason, detail: str = "") -> None:
        """It came to nothing."""
        self.over = True
        port = self._layer.port
        port.service.wheel.forget(self)
        log_early_end(port, self.facts, reason, detail, self._since, self._bytes_in)

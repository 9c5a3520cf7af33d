"""WebSocket on a client port: the handshake as a preface, and what the frames are to a lane.

Rule: here is who may come in and who it is; how requests and frames look is `fastway.websocket`'s.
A port that speaks it is a client port in all else: bounds, deadlines, log, router. Where streams
survive inside of it the same is a layer below these (`weblayer`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from fastway.errors import Cause, Reason
from fastway.gateway.bounds import PortConfig
from fastway.gateway.factories import ClientFactory
from fastway.gateway.facts import Facts
from fastway.gateway.preface import Done
from fastway.gateway.service import RouterService
from fastway.logs import make_logger
from fastway.networks import Networks
from fastway.tcp import web_name
from fastway.websocket import (
    ADDRESS_HEADERS,
    Frames,
    HandshakeRefused,
    Policy,
    Request,
    ServerHandshake,
    forwarded_for,
    refusal,
)

log = make_logger("fastway.gateway")

TOO_MANY = (Reason.ADDRESS_CONNECTIONS, Reason.ADDRESS_RATE)
"""Reasons to come back later, and less often."""


@dataclass(frozen=True, slots=True)
class WebSocketConfig:
    """What a port answers to.

    Attributes:
        policy: What requests must ask for.
        proxies: Peers that are believed whom a request is from.
        header: Where they say so: one of `ADDRESS_HEADERS`.
    """

    policy: Policy = field(default_factory=Policy)
    proxies: Networks = Networks()
    header: str = "x-forwarded-for"


@dataclass(frozen=True, slots=True)
class WebSocketFigures:
    """Handshakes of one port since the start.

    Attributes:
        accepted: Those that were answered by a WebSocket.
        refused: HTTP status -> those that were answered by it.
        untold: Good ones of a trusted proxy that named nobody.
    """

    accepted: int
    refused: Mapping[int, int]
    untold: int = 0

    def __str__(self) -> str:
        told = f"{self.accepted} handshakes, {sum(self.refused.values())} refused"
        rows = [f"{count} by {status}" for status, count in sorted(self.refused.items())]
        told = f"{told} ({', '.join(rows)})" if rows else told
        return f"{told}; {self.untold} of a proxy that named no client" if self.untold else told


class WebSocketFactory(ClientFactory):
    """A client port that speaks WebSocket.

    Args:
        websocket: What it answers to.
    """

    def __init__(
        self,
        service: RouterService,
        config: PortConfig | None = None,
        websocket: WebSocketConfig | None = None,
    ) -> None:
        super().__init__(service, config)
        self.websocket = WebSocketConfig() if websocket is None else websocket
        self.prefaces = (lambda: WebSocketPreface(self),)
        self.accepted = 0
        self.refused: Counter[int] = Counter()
        self.untold = 0

    def figures(self) -> WebSocketFigures:
        """What there was."""
        return WebSocketFigures(self.accepted, dict(self.refused), self.untold)


@dataclass(frozen=True, slots=True)
class Upgraded(Done):
    """The handshake is over."""

    request: Request | None = None
    port: WebSocketFactory | None = None

    def told(self, facts: Facts) -> Facts:
        port = self.port
        assert self.request is not None
        assert port is not None
        try:
            return told_by_request(self.request, facts, port)
        except HandshakeRefused as error:
            port.accepted -= 1
            port.refused[error.status] += 1
            raise


class WebSocketPort(Protocol):
    """What there is of a port that answers requests.

    Attributes:
        untold: See `WebSocketFigures`.
    """

    websocket: WebSocketConfig
    untold: int


def told_by_request(request: Request, facts: Facts, port: WebSocketPort) -> Facts:
    """The facts of the connection below a WebSocket with what its request tells.

    Raises:
        HandshakeRefused: a proxy is believed, and what it says can be read in two ways.
    """
    config = port.websocket
    transport = web_name(facts.transport)
    # Behind a PROXY header it is the HTTP proxy whom that names.
    peer = "unix" if facts.transport == "unix" and not facts.via else facts.host
    client = forwarded_for(request, peer, config.proxies, config.header)
    if client is None and peer in config.proxies:
        port.untold += 1
        if port.untold == 1:
            log.warn(
                "{via} is one of trusted-proxies, and names no client in {header}: its clients "
                "are counted against no limit by address. It must write that header "
                "(trusted-proxies-header). `status` counts those that follow",
                via=facts.name,
                header=ADDRESS_HEADERS[config.header],
            )
    if client is None:
        return replace(facts, transport=transport)
    via = f"{facts.name}, {facts.via}" if facts.via else facts.name
    return replace(facts, transport=transport, name=client, via=via)


def refusing_status(reason: Reason) -> int:
    """How HTTP says that somebody may not come in for a reason of the gateway's."""
    return 429 if reason in TOO_MANY else 503


class WebSocketPreface:
    """A client's handshake."""

    __slots__ = ("_accepted", "_factory", "_handshake")

    seconds = None

    def __init__(self, factory: WebSocketFactory) -> None:
        self._factory = factory
        self._handshake = ServerHandshake(factory.websocket.policy)
        self._accepted = False

    def begin(self) -> bytes:
        return b""

    def feed(self, data: bytes) -> Done | bytes:
        factory = self._factory
        try:
            found = self._handshake.feed(data)
        except HandshakeRefused as error:
            factory.refused[error.status] += 1
            raise
        if found is None:
            return b""
        request, answer = found
        factory.accepted += 1
        self._accepted = True
        return Upgraded(
            answer=answer,
            framing=Frames(factory.config.frame_limit),
            request=request,
            port=factory,
        )

    def refuse(self, reason: Reason) -> bytes:
        if reason.cause is not Cause.GATEWAY:
            return b""
        status = refusing_status(reason)
        self._factory.accepted -= self._accepted
        self._factory.refused[status] += 1
        return refusal(status)

    def why(self, reason: Reason) -> Reason:
        return reason

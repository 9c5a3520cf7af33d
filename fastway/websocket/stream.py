"""A WebSocket as a transport of Twisted, on either side: `Carrier` is its connection, `Stream`
what a protocol has of it.

Rule: the protocol sees a transport of bytes once the handshake is done, and no frames. Its buffers
are those of the connection below: who is to pause is told when that is full, and what is not read
here is not read there. Who made a carrier (`dial`, `fastway.gateway.weblayer`) says what a
handshake comes to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast
from typing import Protocol as TypingProtocol

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHandshakeListener,
    IProducer,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.causes import cause_of
from fastway.errors import NO_CLOSE, NoWebSocket, RemoteError, WebSocketClosed
from fastway.logs import make_logger
from fastway.producer import Membrane
from fastway.tcp import is_plain_tcp, renew_producer
from fastway.websocket.interfaces import IWebSocketTransport
from fastway.websocket.machine import Machine

log = make_logger(__name__)

LINGER = 5.0
"""Seconds that the peer gets to answer a Close, and to end its connection."""


class WebSocketConnectionLost(WebSocketClosed, ConnectionLost):
    """A WebSocketClosed as Twisted's protocols know it."""

    def __str__(self) -> str:
        return str(self.args[0])


class CarrierOwner(TypingProtocol):
    """Who makes carriers."""

    def secured(self, carrier: Carrier) -> None:
        """Its TLS is up, and nothing was written to it."""

    def upgraded(self, carrier: Carrier) -> Stream | None:
        """Its handshake is done: what is to run over it, if anything; otherwise it is aborted."""

    def failed(self, carrier: Carrier, error: RemoteError) -> None:
        """Its handshake came to nothing, or its connection went within it."""


@implementer(IHandshakeListener, IPushProducer)
class Carrier(Protocol):
    """The connection below: first its handshake, then the frames.

    Attributes:
        stream: What the application's protocol has of it; None before the handshake is over.
        full: The transport's buffer is full.
        secured: Its TLS is up.
        gone: Its connection is.
    """

    def __init__(self, owner: CarrierOwner, clock: IReactorTime, machine: Machine) -> None:
        self.machine = machine
        self.stream: Stream | None = None
        self.full = False
        self.secured = False
        self.gone = False
        self._owner = owner
        self._clock = clock
        self._leaving = False
        self._registered = False
        self._linger: Any = None

    # What Twisted calls.

    def connectionMade(self) -> None:
        transport = cast(Any, self.transport)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._registered = True
        if not ISSLTransport.providedBy(transport):
            self.begin()

    def handshakeCompleted(self) -> None:
        """TLS is up; nothing was written before, so nobody has seen a token."""
        self.secured = True
        self._owner.secured(self)

    def dataReceived(self, data: bytes) -> None:
        if self._leaving:
            return
        machine = self.machine
        payload = machine.receive(data)
        self._answer()
        if self.stream is None:
            if machine.up:
                self.stream = self._owner.upgraded(self)
            elif machine.ended is not None:
                self._owner.failed(self, machine.ended)
            if self.stream is None:
                return
        if payload:
            self.stream.received(payload)
        if machine.ended is not None:
            self.leave()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._unregister()  # a TLS transport would keep this in a cycle
        error = cast(Exception, reason.value)
        orderly = isinstance(error, ConnectionDone)
        ended = self.machine.ended
        self.machine.receive_eof()
        if self.stream is None:
            tls = ISSLTransport.providedBy(self.transport) and not self.secured
            if orderly and not tls:
                self._owner.failed(self, cast(RemoteError, self.machine.ended))
            else:
                why = NoWebSocket(cause_of(error, self.transport), error)
                self._owner.failed(self, why)
        elif isinstance(ended, WebSocketClosed):
            # What came behind it is only how the connection went.
            told = ended.code == 1000 or self.stream.disconnecting
            lost = WebSocketConnectionLost(ended.code, ended.text)
            self.stream.lost(ConnectionDone() if told else lost)
        elif ended is not None:
            self.stream.lost(ended)
        elif orderly and not self.stream.disconnecting:
            self.stream.lost(WebSocketConnectionLost(NO_CLOSE))
        else:
            self.stream.lost(error)

    # Its buffer, as IPushProducer.

    def pauseProducing(self) -> None:
        self.full = True
        if self.stream is not None:
            self.stream.full()

    def resumeProducing(self) -> None:
        self.full = False
        if self._registered:
            renew_producer(self.transport, self)
        self._answer()
        if self.stream is not None:
            self.stream.drained()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost follows."""

    # What the stream and the owner call.

    def begin(self) -> None:
        """Say what comes first."""
        first = self.machine.begin()
        if first:
            cast(Any, self.transport).write(first)

    @property
    def below(self) -> Any:
        return self.transport

    def write(self, data: bytes) -> None:
        machine = self.machine
        if data and not machine.closing and not self.gone:
            cast(Any, self.transport).write(machine.wrap(data))

    def say_close(self, code: int, text: str) -> None:
        """Say the Close of this side behind what was written; the other side's ends it."""
        transport = cast(Any, self.transport)
        said = self.machine.close(code, text)
        if said:
            transport.write(said)
            transport.resumeProducing()  # the answer is to be read
            self._wait()

    def abort(self) -> None:
        """Disconnect now."""
        if not self.gone:
            cast(Any, self.transport).abortConnection()

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            cast(Any, self.transport).unregisterProducer()

    def _answer(self) -> None:
        out = self.machine.data_to_send(not self.full)
        if out and not self.gone:
            cast(Any, self.transport).write(out)

    def leave(self, half: bool = False) -> None:
        """Nothing more comes that means something: end the connection, behind what waits.

        Args:
            half: The peer has not ended it: read on where that can be, into nothing. Unread bytes
                would make a close a reset, which drops what is on its way.
        """
        if self.gone or self._leaving:
            return
        self._leaving = True
        transport = cast(Any, self.transport)
        self._unregister()
        transport.resumeProducing()  # TLS reads the peer's end before it closes
        if half and is_plain_tcp(transport):
            transport.loseWriteConnection()
        else:
            transport.loseConnection()
        self._wait()

    def _wait(self) -> None:
        if self._linger is None and not self.gone:
            self._linger = self._clock.callLater(LINGER, self._waited)

    def _waited(self) -> None:
        self._linger = None
        if self.full and not self._leaving:
            self._wait()  # as TCP alone, which waits for who takes something at all
        else:
            self.abort()


@implementer(ITransport, IConsumer, IPushProducer, IWebSocketTransport)
class Stream:
    """The bytes in a WebSocket's messages, as a transport of Twisted. Messages have no borders
    here.

    connectionLost is told ConnectionDone after one's own close and after a Close with 1000;
    otherwise a WebSocketConnectionLost, a BadFrame, or what the connection below met.

    Args:
        gone: Called once its protocol has heard of its loss.
        peer: Where its other end is, if not where the connection below comes from.
    """

    disconnecting = False

    def __init__(
        self,
        carrier: Carrier,
        protocol: IProtocol,
        clock: IReactorTime,
        gone: Callable[[], Any],
        peer: IAddress | None = None,
    ) -> None:
        self.carrier = carrier
        self._protocol: IProtocol | None = protocol
        self._clock = clock
        self._gone = gone
        self._peer = peer
        self._goodbye = 1000, ""
        self._membrane = Membrane(self, clock)
        self._paused = False
        self._held = b""
        """What came with the read in which it was paused."""
        self._aborted = False
        self._lost: Exception | None = None

    # ITransport

    def write(self, data: bytes) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        self.carrier.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close it after what was written, and when the producer is done."""
        if self.disconnecting:
            return
        self.disconnecting = True
        self._held = b""  # as with Twisted's own transports nothing is delivered any more
        if not self._membrane.producing:
            self.carrier.say_close(*self._goodbye)

    def abortConnection(self) -> None:
        """Close it now."""
        self.disconnecting = self._aborted = True
        self._held = b""
        self.carrier.abort()

    def getPeer(self) -> IAddress:
        return cast(IAddress, self.below.getPeer()) if self._peer is None else self._peer

    def getHost(self) -> IAddress:
        return cast(IAddress, self.below.getHost())

    def getHandle(self) -> Any:
        """The connection below, for those who ask it what went wrong with TLS."""
        return self.below.getHandle()

    # IWebSocketTransport

    @property
    def below(self) -> Any:
        return self.carrier.below

    def ends_with(self, code: int, text: str) -> None:
        self._goodbye = code, text

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._membrane.register(producer, streaming)

    def unregisterProducer(self) -> None:
        self._membrane.unregister()

    # What its membrane calls.

    def has_room(self) -> bool:
        """Whether what is written now need not wait."""
        return not self.carrier.full

    def producer_done(self) -> None:
        """Its producer has written all it has."""
        if self.disconnecting:
            self.carrier.say_close(*self._goodbye)

    def failed(self, culprit: object) -> None:
        """A producer has raised: that ends it, as with Twisted's own transports."""
        log.failure("unhandled error in {culprit}", culprit=culprit)
        self.abortConnection()

    # IPushProducer

    def pauseProducing(self) -> None:
        self._paused = True
        if not self.disconnecting:
            self.below.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._held:
            # Never within the call that resumed: that may be the protocol's, amid its last data.
            self._clock.callLater(0, self._hand_over)
        elif self._lost is None:
            self.below.resumeProducing()

    def stopProducing(self) -> None:
        self.loseConnection()

    def _hand_over(self) -> None:
        if self._paused:
            return
        held, self._held = self._held, b""
        if held:
            self.received(held)
        if self._lost is not None:
            self._tell_lost()
        elif not self._paused:
            self.below.resumeProducing()

    # What its carrier calls.

    def received(self, data: bytes) -> None:
        if self.disconnecting:
            return
        if self._paused or self._held:
            self._held += data
        elif self._protocol is not None:
            self._protocol.dataReceived(data)

    def full(self) -> None:
        self._membrane.full()

    def drained(self) -> None:
        self._membrane.drained()

    def lost(self, error: Exception) -> None:
        """The connection is gone."""
        self._lost = ConnectionAborted() if self._aborted else error
        self.disconnecting = self.disconnecting or not self._held
        self._membrane.stop()
        if not self._held:
            self._tell_lost()

    def _tell_lost(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is None or self._lost is None:
            return
        try:
            protocol.connectionLost(Failure(self._lost))
        finally:
            self._gone()

"""One connection under a stream: first its handshake, then the stream's bytes.

Rule: a `Carrier` knows neither which stream it carries nor who made it, only what it has to tell
them. It is over when its connection is; the stream goes on to the next one.
"""

from __future__ import annotations

from typing import Any, cast
from typing import Protocol as TypingProtocol

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.causes import cause_of
from fastway.errors import UnnamedCertificate
from fastway.snet.config import MOST_DROPPED, SnetConfig
from fastway.snet.flow import Flow
from fastway.snet.session import (
    DialHandshake,
    Fault,
    HandshakeFailed,
    ListenHandshake,
    Made,
    Resumed,
)
from fastway.tcp import acked_bytes, is_plain_tcp, notice_death, renew_producer, round_trip
from fastway.verify import names_nobody


class CarrierOwner(TypingProtocol):
    """Who makes carriers."""

    config: SnetConfig

    def shaken(self, carrier: Carrier, result: Made | Resumed) -> None:
        """Its handshake is done."""

    def not_shaken(self, carrier: Carrier, error: HandshakeFailed) -> None:
        """Its handshake failed, or the connection went in the middle of it."""

    def carrier_leaves(self, carrier: Carrier) -> None:
        """Its connection is closing; it is to be aborted after LINGER seconds."""

    def carrier_gone(self, carrier: Carrier) -> None:
        """Its connection is gone."""


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class Carrier(Protocol):
    """One connection: first its handshake, then a stream's bytes.

    Attributes:
        stream: The stream that it carries; None before and after.
        full: The transport's buffer is full.
        slot: The wheel's note.
    """

    def __init__(
        self, owner: CarrierOwner, handshake: ListenHandshake | DialHandshake | None
    ) -> None:
        self.owner = owner
        self.handshake = handshake
        self.stream: Flow | None = None
        self.full = False
        self.gone = False
        self.slot = -1
        self._wrote = 0
        self._dropped = 0
        self._acked_before: int | None = None

    # What Twisted calls.

    def connectionMade(self) -> None:
        transport = cast(Any, self.transport)
        if ITCPTransport.providedBy(transport):  # inside TLS too
            transport.setTcpNoDelay(True)
        if is_plain_tcp(transport):
            notice_death(transport, self.owner.config.dead_after)
            # Not of the stream: a dialled connection's SYN counts as a byte.
            self._acked_before = acked_bytes(transport)
        transport.registerProducer(self, True)
        if isinstance(self.handshake, DialHandshake):
            self.write(self.handshake.begin())

    def handshakeCompleted(self) -> None:
        """TLS is up; what was written so far has not gone out."""
        if isinstance(self.handshake, DialHandshake) and names_nobody(self.transport):
            self.fail(HandshakeFailed(Fault.CLOSED, detail=str(UnnamedCertificate())))

    def dataReceived(self, data: bytes) -> None:
        stream = self.stream
        if stream is not None:
            stream.carried(data)
            return
        handshake = self.handshake
        if handshake is None:
            self._dropped += len(data)
            if self._dropped > MOST_DROPPED:
                self.abort()
            return
        try:
            answer, result = handshake.feed(data)
        except HandshakeFailed as error:
            if error.answer:
                self.write(error.answer)
            self.fail(error)
            return
        if answer:
            self.write(answer)
        if result is not None:
            self.handshake = None
            self.owner.shaken(self, result)

    def readConnectionLost(self) -> None:
        # The peer's FIN: a cut, unless this side has closed already. It gets a FIN for it: a reset
        # could cost it what is on its way.
        if self.stream is not None:
            self.stream.carrier_ended(self, self.unacked(), True)
        self.owner.carrier_leaves(self)
        transport = cast(Any, self.transport)
        transport.unregisterProducer()
        transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """This side has closed; its peer's close follows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        # A TLS transport would keep this in a cycle.
        cast(Any, self.transport).unregisterProducer()
        if self.handshake is not None:
            self.handshake = None
            plain = reason.check(ConnectionDone, ConnectionLost)
            detail = "" if plain else cause_of(cast(Exception, reason.value), self.transport)
            self.owner.not_shaken(self, HandshakeFailed(Fault.CLOSED, detail=detail))
        self.owner.carrier_gone(self)
        if self.stream is not None:
            self.stream.carrier_ended(self, None, bool(reason.check(ConnectionDone)))

    def pauseProducing(self) -> None:
        self.full = True
        if self.stream is not None:
            self.stream.tell_full()

    def resumeProducing(self) -> None:
        self.full = False
        renew_producer(self.transport, self)
        if self.stream is not None:
            self.stream.pump()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost follows."""

    def check(self, now: float) -> float | None:
        """The time for its handshake, or for its goodbye, is over."""
        if self.handshake is not None:
            self.fail(HandshakeFailed(Fault.TIMEOUT))
        self.abort()
        return None

    # What the owner and the stream call.

    def write(self, data: bytes) -> None:
        self._wrote += len(data)
        cast(Any, self.transport).write(data)

    def unacked(self) -> int | None:
        """Bytes that the peer's host has not acknowledged; None where nobody tells."""
        if self._acked_before is None:
            return None
        acked = acked_bytes(self.transport)
        return None if acked is None else self._wrote - (acked - self._acked_before)

    def round_trip(self) -> float | None:
        """Seconds, where the kernel tells."""
        return round_trip(self.transport)

    def fail(self, error: HandshakeFailed) -> None:
        """Give up the handshake: disconnect, after the answer if there is one."""
        self.handshake = None
        if error.answer:
            self.half_close()
        else:
            self.abort()
        self.owner.not_shaken(self, error)

    def half_close(self) -> None:
        """Disconnect once the peer has taken all and closed too; the owner sets the time."""
        transport = cast(Any, self.transport)
        transport.unregisterProducer()
        # Read on, into nothing: unread bytes would make close() a reset, which drops what is on
        # its way; and TLS reads the peer's end before it closes.
        transport.resumeProducing()
        if is_plain_tcp(transport):
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def abort(self) -> None:
        """Disconnect now."""
        if not self.gone:
            cast(Any, self.transport).abortConnection()

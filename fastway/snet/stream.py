"""The stream as a Twisted transport: it lives on while its TCP connections come and go.

Rule: a `SnetStream` is an honest ITransport. Who makes carriers and how long a cut stream may wait
is the owner's to say (`listen`, `dial`). It is one file, a little long: all of it is the state of
one object.

What is written is handed to the carrier only as long as the peer's host lacks no more of it than
the replay buffer holds (`outbox`). So a stream with much on its way can be resumed too, unless its
peer does not read what has arrived. What comes while nobody reads here is bounded too (`inbox`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast
from typing import Protocol as TypingProtocol

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProducer,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.errors import Reason, StreamLost
from fastway.logs import make_logger
from fastway.producer import Membrane
from fastway.snet.carrier import Carrier
from fastway.snet.config import LINGER, SnetConfig
from fastway.snet.flow import Flow
from fastway.snet.interfaces import IResumableProtocol, IResumableTransport
from fastway.snet.outbox import CallLater
from fastway.snet.session import Resumed, Session
from fastway.wheel import Wheel

log = make_logger(__name__)


class StreamOwner(TypingProtocol):
    """Who keeps a stream: the listening or the dialling side."""

    clock: IReactorTime
    config: SnetConfig
    wheel: Wheel

    def stream_cut(self, stream: SnetStream) -> None:
        """It has no carrier any more, and should get another."""

    def stream_resumed(self, stream: SnetStream, seconds: float, replayed: int) -> None:
        """It has a carrier again."""

    def stream_gone(self, stream: SnetStream) -> None:
        """It is over."""

    def hurry(self, stream: SnetStream) -> None:
        """It should not wait for its next carrier."""

    def tell(self, call: Callable[[], object]) -> None:
        """Make a call of which many can come at once: now, or after others like it."""

    def tell_later(self, call: Callable[[], object]) -> None:
        """The same, never within this call."""


class StreamConnectionLost(StreamLost, ConnectionLost):
    """A StreamLost as Twisted's protocols know it."""

    def __str__(self) -> str:
        return str(self.args[0])


@implementer(ITransport, IConsumer, IPushProducer, IResumableTransport)
class SnetStream(Flow):
    """A byte stream that survives its connections.

    `getPeer` and `getHost` are those of the connection in use, or of the last one. There is no
    half-close, because snet has no word for it; nor for a close: to the peer it is a cut that
    cannot be resumed. `loseConnection` delivers what was written all the same, over another
    connection if this one breaks before the peer's host has it, for LINGER seconds.

    While it is cut, writes wait here and the producer is paused; without a producer the bytes
    wait in memory, as with any Twisted transport.

    Attributes:
        cut_since: When its carrier went, in the owner's wheel's seconds; None while it has one.
        carrier: The connection in use; None while it is cut.
        close_by: When waiting for the peer to take what was written before a close ends, in the
            wheel's seconds; None before. It is watched for that by the wheel.
        lost: Why it is over; None while it lives.
    """

    __slots__ = (
        "_buffer_size",
        "_host",
        "_membrane",
        "_peer",
        "_protocol",
        "_untold",
        "close_by",
        "owner",
        "slot",
    )

    lost: Exception | None

    def __init__(self, owner: StreamOwner, session: Session) -> None:
        super().__init__()
        self.owner = owner
        self.close_by: float | None = None
        self.lost = None
        self.slot = -1
        self._peer: Any = None
        self._host: Any = None
        self._protocol: IProtocol | None = None
        self._buffer_size = 0
        self._membrane = Membrane(self, owner.clock)
        self._untold = False
        """It was cut, and its protocol has not heard of it yet."""
        self._begin(session)

    def __repr__(self) -> str:
        state = "lost" if self.lost else "live" if self.cut_since is None else "cut"
        return f"<SnetStream {self.session.conn_id}, {state}>"

    @property
    def bufferSize(self) -> int:
        """Bytes read at once, and those that make a connection's buffer full, as Twisted's."""
        return self._buffer_size

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self._buffer_size = size
        if self.carrier is not None and hasattr(self.carrier.transport, "bufferSize"):
            cast(Any, self.carrier.transport).bufferSize = size

    # What the owner calls.

    def begin(self, carrier: Carrier, protocol: IProtocol, rest: bytes) -> None:
        """Let the protocol run over this stream, which `carrier` carries first."""
        self._protocol = protocol
        self._use(carrier)
        try:
            protocol.makeConnection(self)
        except Exception:
            self.failed(protocol)
        if rest:
            self.carried(rest)

    def resume(self, carrier: Carrier, resumed: Resumed) -> None:
        """Go on over another connection; the one in use, if there is one, is closed.

        Raises:
            HandshakeFailed: it cannot be; nothing has changed.
        """
        if self._untold:
            self._tell_cut()
        replay = self.session.resume(resumed)
        now = self.owner.wheel.seconds()
        if self.carrier is not None:
            self._drop_carrier()
            self.cut_since = now
            self._tell("stream_cut")
        if self.lost is not None:  # its protocol would not have it
            carrier.abort()
            return
        self._go_on(carrier, resumed, replay, now)

    def lose(self, reason: Reason, detail: str = "") -> None:
        """It cannot go on."""
        self._finish(None if self._delivers else StreamConnectionLost(reason, detail))

    def tell_lost(self) -> None:
        """Let its protocol know that it is over, if it does not yet; not within its own call."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            try:
                protocol.connectionLost(Failure(cast(Exception, self.lost)))
            except Exception:
                log.failure("unhandled error in {culprit}", culprit=protocol)

    def check(self, now: float) -> float | None:
        """Act if a deadline has passed; otherwise return the next one."""
        if self.lost is not None:
            return None
        due = self.close_by
        if due is None:
            if self.cut_since is None:
                return None
            due = self.cut_since + self.owner.config.wait_timeout
        if now < due:
            return due
        self.lose(Reason.NOT_RESUMED)
        return None

    # ITransport

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close it after what was written, and when the producer is done."""
        self._leave()

    def abortConnection(self) -> None:
        """Close it now; what waits is dropped."""
        self.disconnecting = True
        self._finish(ConnectionAborted())

    def getPeer(self) -> IAddress:
        return cast(IAddress, self._peer)

    def getHost(self) -> IAddress:
        return cast(IAddress, self._host)

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._membrane.register(producer, streaming)

    def unregisterProducer(self) -> None:
        self._membrane.unregister()

    # What its membrane calls.

    def has_room(self) -> bool:
        """Whether what is written now goes to the carrier at once."""
        return not self._out.size and self.carrier is not None and not self.carrier.full

    def producer_done(self) -> None:
        """Its producer has written all it has."""
        if self.disconnecting:
            self._close_if_done()

    def failed(self, culprit: object) -> None:
        """What runs over it has raised: that ends it, as with Twisted's own transports."""
        log.failure("unhandled error in {culprit}", culprit=culprit)
        self.disconnecting = True
        self._finish(ConnectionLost(f"unhandled error in {culprit}"))

    # IPushProducer

    def pauseProducing(self) -> None:
        self._pause_reading()

    def resumeProducing(self) -> None:
        self._resume_reading()

    def stopProducing(self) -> None:
        self.loseConnection()

    # What `Flow` asks for.

    @property
    def _call_later(self) -> CallLater:
        return self.owner.clock.callLater

    def _hand_over(self, data: bytes) -> None:
        try:
            cast(Any, self._protocol).dataReceived(data)
        except Exception:
            self.failed(self._protocol)

    def tell_full(self) -> None:
        self._membrane.full()

    def _drained(self) -> None:
        self._membrane.drained()

    def _hold_back(self, carrier: Carrier) -> None:
        cast(Any, carrier.transport).pauseProducing()

    def _read_from(self, carrier: Carrier) -> None:
        cast(Any, carrier.transport).resumeProducing()

    def _hurry(self) -> None:
        self.owner.hurry(self)

    def _use(self, carrier: Carrier) -> None:
        transport = cast(Any, carrier.transport)
        self._peer, self._host = transport.getPeer(), transport.getHost()
        super()._use(carrier)
        if self._buffer_size:
            self.bufferSize = self._buffer_size

    def _now_cut(self) -> None:
        self.cut_since = self.owner.wheel.seconds()
        self._untold = True
        self._membrane.full()
        self.owner.tell(self._tell_cut)

    def _tell_cut(self) -> None:
        if self._untold:
            self._untold = False
            self._tell("stream_cut")
            if self.lost is None:  # its producer and its protocol would have it
                self.owner.stream_cut(self)

    def _tell(self, event: str, *args: object) -> None:
        if self.lost is None and IResumableProtocol.providedBy(self._protocol):
            try:
                getattr(self._protocol, event)(*args)
            except Exception:
                self.failed(self._protocol)

    def _tell_resumed(self, seconds: float, replayed: int) -> None:
        self.owner.stream_resumed(self, seconds, replayed)
        self._tell("stream_resumed", seconds, replayed)

    # Closing.

    def _close_if_done(self) -> None:
        if not self._membrane.producing:
            super()._close_if_done()

    @property
    def _lingers(self) -> bool:
        return self.close_by is not None

    def _linger(self) -> None:
        wheel = self.owner.wheel
        self.close_by = wheel.seconds() + LINGER
        wheel.watch(self, self.close_by)

    def _no_deadline(self) -> None:
        self.owner.wheel.forget(self)

    def _finish(self, error: Exception | None) -> None:
        if self.lost is not None:
            return
        self.lost = ConnectionDone() if error is None else error
        self.owner.wheel.forget(self)
        self._out.drop()
        self._in.take()
        self._drop_carrier()
        self.owner.stream_gone(self)
        self._membrane.stop()
        # Never within the call that closed it, as with Twisted's own transports.
        self.owner.tell_later(self.tell_lost)

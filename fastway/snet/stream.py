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
from fastway.snet.inbox import Inbox
from fastway.snet.interfaces import IResumableProtocol, IResumableTransport
from fastway.snet.outbox import Outbox
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
class SnetStream:
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
        "__weakref__",
        "_buffer_size",
        "_closing",
        "_handing_over",
        "_host",
        "_in",
        "_membrane",
        "_out",
        "_paused",
        "_peer",
        "_protocol",
        "_settled",
        "_untold",
        "carrier",
        "close_by",
        "cut_since",
        "disconnecting",
        "lost",
        "owner",
        "session",
        "slot",
    )

    def __init__(self, owner: StreamOwner, session: Session) -> None:
        self.owner = owner
        self.session = session
        self.carrier: Carrier | None = None
        self.cut_since: float | None = None
        self.close_by: float | None = None
        self.lost: Exception | None = None
        self.disconnecting = False
        self.slot = -1
        self._peer: Any = None
        self._host: Any = None
        self._protocol: IProtocol | None = None
        self._buffer_size = 0
        self._closing = False
        """This side has closed its half of the carrier, and waits for the peer to do so."""
        self._membrane = Membrane(self, owner.clock)
        self._paused = False
        self._handing_over = False
        self._in = Inbox(session)
        self._out = Outbox(session)
        self._untold = False
        """It was cut, and its protocol has not heard of it yet."""
        self._settled = False
        """The peer's host had all that was written when the carrier went."""

    def __repr__(self) -> str:
        state = "lost" if self.lost else "live" if self.cut_since is None else "cut"
        return f"<SnetStream {self.session.conn_id}, {state}>"

    @property
    def replayable(self) -> int:
        """Bytes kept to be sent again."""
        return self.session.replayable

    @property
    def acked(self) -> int | None:
        """Bytes of the stream that the peer's host has; None where nobody tells."""
        unacked = None if self.carrier is None else self.carrier.unacked()
        return None if unacked is None else self.session.wrote - unacked

    @property
    def pending(self) -> int:
        """Bytes that wait for a connection, or for room in it."""
        return self._out.size

    @property
    def unread(self) -> int:
        """Bytes that came and wait for the protocol to read on."""
        return self._in.size

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
        seconds = 0.0 if self.cut_since is None else now - self.cut_since
        self.cut_since = None
        self._closing = False
        if self.close_by is None:
            self.owner.wheel.forget(self)
        elif resumed.read == self.session.wrote:  # the peer has all
            carrier.abort()
            self._finish(ConnectionDone())
            return
        self._use(carrier)
        if replay:
            self._out.room -= len(replay)
            carrier.write(replay)
        self.owner.stream_resumed(self, seconds, len(replay))
        self._tell("stream_resumed", seconds, len(replay))
        if resumed.rest and self.carrier is carrier:
            self.carried(resumed.rest)
        self.pump()

    def lose(self, reason: Reason, detail: str = "") -> None:
        """It cannot go on."""
        # What was written before this side closed it was still to be delivered, if it could be.
        closed = self.disconnecting and not self._out.size
        self._finish(ConnectionDone() if closed else StreamConnectionLost(reason, detail))

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

    # What a carrier calls.

    def carried(self, data: bytes) -> None:
        """Bytes came over the carrier in use."""
        if self.disconnecting or self.lost is not None:
            self.session.receive(data)
            return
        if self._paused or self._in.size:
            self._in.add(data)
            return
        data = self.session.receive(data)
        if data:
            self._hand_over(data)

    def carrier_ended(self, carrier: Carrier, unacked: int | None, orderly: bool) -> None:
        if carrier is not self.carrier:
            return
        if unacked is None:
            self._settled = orderly and self._closing
        else:
            self._settled = unacked <= 0  # an acknowledged FIN counts as a byte
        self._drop_carrier(abort=False)
        if self.disconnecting and self._settled and not self._out.size:
            self._finish(ConnectionDone())
            return
        self._now_cut()

    def carrier_full(self) -> None:
        """The carrier's buffer is full."""
        self._membrane.full()

    def pump(self) -> None:
        """Hand what waits to the carrier as far as it goes."""
        carrier = self.carrier
        if carrier is None or not self._out.flow(carrier, self.owner.clock.callLater, self.pump):
            return
        if self.lost is None:
            self._membrane.drained()
            if self.disconnecting:
                self._close_if_done()

    # ITransport

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            if not isinstance(data, (bytearray, memoryview)):
                raise TypeError(f"data must be bytes, not {type(data).__name__}")
            data = bytes(data)
        if not data or self._closing or self.lost is not None:
            return
        carrier = self.carrier
        out = self._out
        size = len(data)
        if not out.size and carrier is not None and size <= out.room and not carrier.full:
            out.room -= size
            carrier.write(self.session.send(data))
            return
        out.add(data)
        self.pump()
        if out.size:
            self._membrane.full()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close it after what was written, and when the producer is done."""
        if self.disconnecting or self.lost is not None:
            return
        self.disconnecting = True
        # As with Twisted's own transports nothing is delivered any more; but it counts as read.
        self._in.take()
        self._close_if_done()

    def abortConnection(self) -> None:
        """Close it now; what waits is dropped."""
        self.disconnecting = True
        self._finish(ConnectionAborted())

    def getPeer(self) -> IAddress:
        return cast(IAddress, self._peer)

    def getHost(self) -> IAddress:
        return cast(IAddress, self._host)

    # IResumableTransport

    def resume_now(self) -> None:
        """Give up the connection in use and get a new one at once (the dialling side only)."""
        if self.lost is not None:
            return
        if self.carrier is not None:
            self._drop_carrier()
            self._now_cut()
        self.owner.hurry(self)

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
        self._paused = True
        if self.carrier is not None and not self.disconnecting:
            cast(Any, self.carrier.transport).pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if not self._in.size:
            self._read_on()
        elif not self._handing_over:
            # Never within the call that resumed: that may be the protocol's, amid its last data.
            self._handing_over = True
            self.owner.clock.callLater(0, self._hand_over_unread)

    def stopProducing(self) -> None:
        self.loseConnection()

    # Reading.

    def _read_on(self) -> None:
        if self.carrier is not None and not self._closing:
            cast(Any, self.carrier.transport).resumeProducing()

    def _hand_over_unread(self) -> None:
        self._handing_over = False
        if self._paused or not self._in.size or self.lost is not None:
            return
        unread = self._in.take()
        if unread:
            self._hand_over(unread)
        if not self._paused and self.lost is None:
            self._read_on()

    def _hand_over(self, data: bytes) -> None:
        try:
            cast(Any, self._protocol).dataReceived(data)
        except Exception:
            self.failed(self._protocol)

    # Carriers.

    def _use(self, carrier: Carrier) -> None:
        self.carrier = carrier
        carrier.stream = self
        transport = cast(Any, carrier.transport)
        self._peer, self._host = transport.getPeer(), transport.getHost()
        self._out.begin(carrier)
        if self._buffer_size:
            self.bufferSize = self._buffer_size
        if self._paused and not self.disconnecting:
            transport.pauseProducing()

    def _drop_carrier(self, abort: bool = True) -> None:
        carrier, self.carrier = self.carrier, None
        self._out.end()
        self._in.end()
        if carrier is not None:
            carrier.stream = None
            if abort:
                carrier.abort()

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

    # Closing.

    def _close_if_done(self) -> None:
        if self._closing or self.lost is not None or self._out.size:
            return
        if self._membrane.producing:
            return
        carrier = self.carrier
        if carrier is None:
            # Cut: with nothing to send again there is nothing to wait for.
            if self._settled or self.session.replayable == 0:
                self._finish(ConnectionDone())
            return
        self._closing = True
        if self.close_by is None:
            wheel = self.owner.wheel
            self.close_by = wheel.seconds() + LINGER
            wheel.watch(self, self.close_by)
        carrier.half_close()

    def _finish(self, error: Exception) -> None:
        if self.lost is not None:
            return
        self.lost = error
        self.owner.wheel.forget(self)
        self._out.drop()
        self._in.take()
        self._drop_carrier()
        self.owner.stream_gone(self)
        self._membrane.stop()
        # Never within the call that closed it, as with Twisted's own transports.
        self.owner.tell_later(self.tell_lost)

"""The listening side of snet around any Twisted endpoint.

    SnetServerEndpoint(TCP4ServerEndpoint(reactor, 9000), reactor).listen(factory)

Rule: a wrapped factory's protocols see one transport for as long as the stream lives, however
many connections that takes. Everything that strangers can make grow has a bound here.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from zope.interface import implementer

from fastway.address import address_name
from fastway.errors import Reason
from fastway.logs import Throttle, make_logger
from fastway.snet.carrier import Carrier
from fastway.snet.config import LINGER, SnetConfig
from fastway.snet.figures import SnetCounts, SnetFigures
from fastway.snet.interfaces import IBounded
from fastway.snet.session import Fault, HandshakeFailed, ListenHandshake, Made, Resumed, Session
from fastway.snet.slices import SLICE, Slices
from fastway.snet.stream import SnetStream
from fastway.wheel import Wheel

log = make_logger(__name__)


@dataclass(slots=True)
class SnetStats:
    """Counters of one listening side since the start. All only grow.

    made = live + waiting + ended.
    """

    made: int = 0
    ended: int = 0
    cut: int = 0
    """Times that a stream lost its connection, take-overs included."""
    resumed: int = 0
    taken_over: int = 0
    """Resumes that came while the old connection still looked alive."""
    replayed: int = 0
    """Bytes sent again."""
    refused: Counter[Fault] = field(default_factory=Counter)
    """Handshakes that failed."""


class SnetFactory(Factory):
    """The listening side: wraps the factory whose protocols run over the streams.

    Args:
        wrapped: Builds a protocol for each new stream.
        clock: The reactor, or a test's `task.Clock`.

    Attributes:
        name: What it is called among the layers of a port.
        streams: conn_id -> stream, of all that live.
        waiting: Those that are cut, the one cut longest first.
        handshakes: Connections that shake hands, or that close, the oldest first.
    """

    noisy = False
    name = "snet"

    def __init__(
        self, wrapped: IProtocolFactory, clock: IReactorTime, config: SnetConfig | None = None
    ) -> None:
        self.wrapped = wrapped
        self.clock = clock
        self.config = SnetConfig() if config is None else config
        self.wheel = Wheel(clock)
        self.stats = SnetStats()
        self.streams: dict[int, SnetStream] = {}
        # Ordered, because a dict looks for its first key among all that were taken out before it.
        self.waiting: OrderedDict[SnetStream, None] = OrderedDict()
        self.handshakes: dict[Carrier, None] = {}
        self.slot = -1
        """The wheel's note."""
        self._slices = Slices(clock)
        self._quiet = Throttle(clock)
        self._last_id = 0
        self._stopped = False

    @property
    def replayable(self) -> int:
        """Bytes kept to be sent again, of all streams."""
        return self.figures().replayable

    @property
    def pending(self) -> int:
        """Bytes that wait for a connection, of all streams."""
        return self.figures().pending

    @property
    def unread(self) -> int:
        """Bytes that came and wait for their protocols to read on, of all streams."""
        return self.figures().unread

    def figures(self) -> SnetFigures:
        """What there is now; looks at each stream once."""
        replayable = pending = unread = 0
        for stream in self.streams.values():
            replayable += stream.replayable
            pending += stream.pending
            unread += stream.unread
        counts = self.counts()
        return SnetFigures(
            **{item.name: getattr(counts, item.name) for item in fields(counts)},
            replayable=replayable,
            pending=pending,
            unread=unread,
        )

    def counts(self) -> SnetCounts:
        """The counters alone, however many streams there are."""
        stats = self.stats
        return SnetCounts(
            live=len(self.streams) - len(self.waiting),
            waiting=len(self.waiting),
            made=stats.made,
            cut=stats.cut,
            resumed=stats.resumed,
            taken_over=stats.taken_over,
            replayed=stats.replayed,
            handshakes=len(self.handshakes),
            refused=dict(stats.refused),
        )

    # What Twisted calls.

    def startFactory(self) -> None:
        self._stopped = False
        self.wrapped.doStart()

    def stopFactory(self) -> None:
        """Nobody listens any more, so nobody can come back; live streams go on."""
        self._stopped = True
        for carrier in list(self.handshakes):
            carrier.abort()
        self._lose_late()
        self.wrapped.doStop()
        self._quiet.flush()
        self._settle()

    def buildProtocol(self, addr: IAddress | None) -> Carrier:
        if len(self.handshakes) >= self.config.max_handshakes:
            oldest = next(iter(self.handshakes))
            del self.handshakes[oldest]
            self.wheel.forget(oldest)
            if oldest.handshake is not None:
                oldest.handshake = None
                self.not_shaken(oldest, HandshakeFailed(Fault.CROWDED_OUT))
            oldest.abort()
        config = self.config
        handshake = ListenHandshake(self.find, self.new_id, config.buffer, config.encrypt)
        carrier = Carrier(self, handshake)
        self.handshakes[carrier] = None
        self.wheel.watch(carrier, self.wheel.seconds() + config.init_timeout)
        return carrier

    # What carriers call.

    def find(self, conn_id: int) -> Session | None:
        """The session of a stream that may be resumed."""
        stream = self.streams.get(conn_id)
        return None if stream is None else stream.session

    def new_id(self) -> int:
        """The number of a new stream: counts from 1."""
        self._last_id += 1
        return self._last_id

    def shaken(self, carrier: Carrier, result: Made | Resumed) -> None:
        self.handshakes.pop(carrier, None)
        self.wheel.forget(carrier)
        if isinstance(result, Made):
            self._make(carrier, result)
        else:
            self._resume(carrier, result)

    def not_shaken(self, carrier: Carrier, error: HandshakeFailed) -> None:
        self.stats.refused[error.fault] += 1
        peer = cast(Any, carrier.transport).getPeer()
        text = "snet handshake of {addr} failed: {problem}"
        fields = {
            "addr": address_name(peer),
            "problem": str(error),
            "fault": error.fault.name.lower(),
        }
        if error.fault is Fault.CLOSED and getattr(peer, "probe", False):
            log.debug(text, **fields)  # a proxy's health check
        else:
            host = str(getattr(peer, "host", "?"))
            self._quiet.info(log, "snet handshake failed", host, text, **fields)
        if carrier in self.handshakes:
            # It gets a little time to take the answer.
            self.carrier_leaves(carrier)

    def carrier_leaves(self, carrier: Carrier) -> None:
        if not carrier.gone:
            self.handshakes[carrier] = None
            self.wheel.forget(carrier)
            self.wheel.watch(carrier, self.wheel.seconds() + LINGER)

    def carrier_gone(self, carrier: Carrier) -> None:
        self.handshakes.pop(carrier, None)
        self.wheel.forget(carrier)
        self._settle()

    def _make(self, carrier: Carrier, made: Made) -> None:
        if self.waiting and IBounded.providedBy(self.wrapped) and cast(Any, self.wrapped).full:
            longest = next(iter(self.waiting))
            longest.lose(Reason.CROWDED_OUT, "the port is full, and a newcomer has a connection")
            longest.tell_lost()
        protocol = self.wrapped.buildProtocol(cast(Any, carrier.transport).getPeer())
        if protocol is None:
            carrier.abort()
            return
        stream = SnetStream(self, made.session)
        self.stats.made += 1
        self.streams[made.session.conn_id] = stream
        stream.begin(carrier, protocol, made.rest)

    def _resume(self, carrier: Carrier, resumed: Resumed) -> None:
        stream = self.streams.get(resumed.session.conn_id)
        over = stream is not None and stream.cut_since is None
        try:
            if stream is None:
                raise HandshakeFailed(Fault.UNKNOWN_STREAM)
            stream.resume(carrier, resumed)
        except HandshakeFailed as error:
            self.not_shaken(carrier, error)
            carrier.abort()
            return
        if over:
            self.stats.cut += 1
            self.stats.taken_over += 1

    # What streams call.

    def stream_cut(self, stream: SnetStream) -> None:
        self.stats.cut += 1
        if self._stopped:
            stream.lose(Reason.NOT_RESUMED, "the port is closed")
            return
        self.waiting[stream] = None
        self.wheel.watch(self, cast(float, stream.cut_since) + self.config.wait_timeout)
        if len(self.waiting) > self.config.max_waiting:
            next(iter(self.waiting)).lose(Reason.CROWDED_OUT)

    def stream_resumed(self, stream: SnetStream, seconds: float, replayed: int) -> None:
        self.waiting.pop(stream, None)
        self.stats.resumed += 1
        self.stats.replayed += replayed

    def stream_gone(self, stream: SnetStream) -> None:
        self.waiting.pop(stream, None)
        if self.streams.pop(stream.session.conn_id, None) is not None:
            self.stats.ended += 1
        self._settle()

    def hurry(self, stream: SnetStream) -> None:
        """Only the peer can come back."""

    def tell(self, call: Callable[[], object]) -> None:
        self._slices.now(call)

    def tell_later(self, call: Callable[[], object]) -> None:
        self._slices.later(call)

    # Time.

    def check(self, now: float) -> float | None:
        """Lose who did not come back in time; returns when the next one is due."""
        wait = self.config.wait_timeout
        late: list[SnetStream] = []
        due: float | None = None
        for stream in self.waiting:
            if not self._stopped:
                due = cast(float, stream.cut_since) + wait
                if now < due:
                    break
                if stream.close_by is not None:
                    continue  # it has a deadline of its own
            if len(late) == SLICE:
                self._slices.later(self._lose_late)
                due = None
                break
            late.append(stream)
        else:
            due = None
        for stream in late:
            stream.lose(Reason.NOT_RESUMED, "the port is closed" if self._stopped else "")
        return due

    def _lose_late(self) -> None:
        due = self.check(self.wheel.seconds())
        if due is not None:
            self.wheel.watch(self, due)

    def _settle(self) -> None:
        if self._stopped and not self.streams and not self.handshakes:
            self.wheel.stop()


@implementer(IListeningPort)
class SnetPort:
    """A listening port whose connections carry streams.

    Attributes:
        snet: The factory that keeps them.
    """

    def __init__(self, port: IListeningPort, snet: SnetFactory) -> None:
        self.port = port
        self.snet = snet

    def startListening(self) -> None:
        self.port.startListening()

    def stopListening(self) -> Deferred[None] | None:
        """No more connections: streams that are cut later cannot be resumed."""
        return self.port.stopListening()

    def getHost(self) -> IAddress:
        return self.port.getHost()


@implementer(IStreamServerEndpoint)
class SnetServerEndpoint:
    """Listens for streams on any endpoint.

    Args:
        endpoint: TCP, TLS, a unix socket.
        clock: The reactor.
    """

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        clock: IReactorTime,
        config: SnetConfig | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._clock = clock
        self._config = config

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Fires with a SnetPort; fails as the endpoint does."""
        snet = SnetFactory(factory, self._clock, self._config)
        listening = self.endpoint.listen(snet)
        return listening.addCallback(lambda port: cast(IListeningPort, SnetPort(port, snet)))

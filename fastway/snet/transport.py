"""snet around any Twisted endpoint: the listening side and the dialling side.

Rule: a wrapped factory's protocols see one transport for as long as the stream lives, however
many connections that takes. Everything that strangers can make grow has a bound here.

    SnetServerEndpoint(TCP4ServerEndpoint(reactor, 9000), reactor).listen(factory)
    SnetClientEndpoint(TCP4ClientEndpoint(reactor, "127.0.0.1", 9000), reactor).connect(factory)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionAborted, TimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.address import address_name
from fastway.errors import Reason
from fastway.logs import make_logger
from fastway.snet.crypto import check_stream_cipher
from fastway.snet.session import (
    DialHandshake,
    Fault,
    HandshakeFailed,
    ListenHandshake,
    Made,
    Resumed,
    Session,
)
from fastway.snet.stream import LINGER, Carrier, SnetStream
from fastway.wheel import Wheel

log = make_logger(__name__)


@dataclass(slots=True)
class SnetConfig:
    """How streams behave. Both sides should have the same `encrypt` and `buffer`.

    Attributes:
        encrypt: RC4 with a key that whoever recorded the handshake can find; see `crypto`.
        buffer: Bytes written last that are kept to be sent again, for each stream; also how many
            may be on their way.
        init_timeout: Seconds that a handshake may take.
        wait_timeout: Seconds that a cut stream may take to come back.
        max_waiting: Streams that may be cut at a time; past that the one cut longest is lost.
        max_handshakes: Handshakes under way at a time; past that the oldest is dropped.
        dead_after: Seconds without a sign of life from the peer's host after which a connection
            is taken for broken, so that the stream is cut and can be resumed (plain TCP on
            Linux).

    Raises:
        ValueError: a number is out of bounds, or data cannot be encrypted here.
    """

    encrypt: bool = False
    buffer: int = 32 * 1024
    init_timeout: float = 10.0
    wait_timeout: float = 60.0
    max_waiting: int = 10_000
    max_handshakes: int = 1000
    dead_after: float = 20.0

    def __post_init__(self) -> None:
        if self.buffer < 1 or self.max_waiting < 1 or self.max_handshakes < 1:
            raise ValueError("buffer, max_waiting and max_handshakes are at least 1")
        if self.init_timeout <= 0 or self.wait_timeout <= 0 or self.dead_after <= 0:
            raise ValueError("init_timeout, wait_timeout and dead_after must be over 0 seconds")
        if self.encrypt:
            check_stream_cipher()


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
        streams: conn_id -> stream, of all that live.
        waiting: Those that are cut, the one cut longest first.
        handshakes: Connections that shake hands, or that close, the oldest first.
    """

    noisy = False

    def __init__(
        self, wrapped: IProtocolFactory, clock: IReactorTime, config: SnetConfig | None = None
    ) -> None:
        self.wrapped = wrapped
        self.clock = clock
        self.config = SnetConfig() if config is None else config
        self.wheel = Wheel(clock)
        self.stats = SnetStats()
        self.streams: dict[int, SnetStream] = {}
        self.waiting: dict[SnetStream, None] = {}
        self.handshakes: dict[Carrier, None] = {}
        self._last_id = 0
        self._stopped = False

    @property
    def replayable(self) -> int:
        """Bytes kept to be sent again, of all streams."""
        return sum(stream.replayable for stream in self.streams.values())

    @property
    def pending(self) -> int:
        """Bytes that wait for a connection, of all streams."""
        return sum(stream.pending for stream in self.streams.values())

    # What Twisted calls.

    def startFactory(self) -> None:
        self._stopped = False
        self.wrapped.doStart()

    def stopFactory(self) -> None:
        """Nobody listens any more, so nobody can come back; live streams go on."""
        self._stopped = True
        for carrier in list(self.handshakes):
            carrier.abort()
        for stream in list(self.waiting):
            stream.lose(Reason.NOT_RESUMED, "the port is closed")
        self.wrapped.doStop()
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
        log.info(
            "snet handshake of {addr} failed: {problem}",
            addr=address_name(cast(Any, carrier.transport).getPeer()),
            problem=str(error),
            fault=error.fault.name.lower(),
        )
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
        self.wheel.watch(stream, self.wheel.seconds())
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


Backoff = Callable[[int], float]
"""Failed attempts since the last connection -> seconds until the next."""

STEADY = 1.0
"""Seconds that a connection must have lasted, or else have got something across, for the next
attempt to be made at once."""


class Attempt(Factory):
    """One connection of the dialling side, up to the end of its handshake.

    Attributes:
        done: Fires with the carrier and the handshake's result; fails as the endpoint does, with
            HandshakeFailed, or with Twisted's TimeoutError. Cancelling it ends the attempt.
    """

    noisy = False

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        config: SnetConfig,
        session: Session | None = None,
    ) -> None:
        self.config = config
        self._handshake = DialHandshake(config.buffer, config.encrypt, session)
        self._clock = clock
        self._carrier: Carrier | None = None
        self._leaving: Any = None
        self._over = False
        self.done: Deferred[tuple[Carrier, Made | Resumed]] = Deferred(self._cancelled)
        self.done.addTimeout(config.init_timeout, clock, self._too_late)
        self._connecting = maybeDeferred(endpoint.connect, self)
        self._connecting.addErrback(self._failed)

    def buildProtocol(self, addr: IAddress | None) -> Carrier | None:
        if self._over:
            return None
        self._carrier = Carrier(self, self._handshake)
        return self._carrier

    def shaken(self, carrier: Carrier, result: Made | Resumed) -> None:
        self._over = True
        self.done.callback((carrier, result))

    def not_shaken(self, carrier: Carrier, error: HandshakeFailed) -> None:
        carrier.abort()
        self._failed(Failure(error))

    def carrier_leaves(self, carrier: Carrier) -> None:
        self._leaving = self._clock.callLater(LINGER, carrier.abort)

    def carrier_gone(self, carrier: Carrier) -> None:
        if self._leaving is not None and self._leaving.active():
            self._leaving.cancel()

    def _failed(self, failure: Failure) -> None:
        if not self._over:
            self._over = True
            self.done.errback(failure)

    @staticmethod
    def _too_late(_: object, seconds: float) -> Any:
        raise TimeoutError(string=f"no answer within {seconds:g} s")

    def _cancelled(self, _: object) -> None:
        self._over = True
        self._connecting.cancel()
        if self._carrier is not None:
            self._carrier.handshake = None
            self._carrier.abort()


class Dialler:
    """The dialling side of one stream: makes its connections, one at a time.

    Args:
        endpoint: What to connect to.
        factory: Builds the protocol that runs over the stream.
        backoff: How long to wait between attempts.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        factory: IProtocolFactory,
        clock: IReactorTime,
        config: SnetConfig,
        backoff: Backoff,
    ) -> None:
        self.clock = clock
        self.config = config
        self.wheel = Wheel(clock)
        self._endpoint = endpoint
        self._factory = factory
        self._backoff = backoff
        self._failures = 0
        self._connected = 0.0
        """When the last handshake was done, in the wheel's seconds."""
        self._read = 0
        """Bytes of the stream that had come by then."""
        self._attempt: Deferred[Any] | None = None
        self._call: Any = None

    def connect(self) -> Deferred[IProtocol]:
        """Fires with the protocol; fails as an Attempt does. Can be cancelled."""
        attempt = Attempt(self._endpoint, self.clock, self.config)
        return attempt.done.addCallback(self._made)

    def _made(self, made: tuple[Carrier, Made | Resumed]) -> IProtocol:
        carrier, result = made
        self._factory.doStart()
        try:
            protocol = self._factory.buildProtocol(cast(Any, carrier.transport).getPeer())
            if protocol is None:
                raise ConnectionAborted("the factory made no protocol")
        except Exception:
            carrier.abort()
            self._factory.doStop()
            raise
        self._connected = self.wheel.seconds()
        SnetStream(self, result.session).begin(carrier, protocol, result.rest)
        return protocol

    # What the stream calls.

    def stream_cut(self, stream: SnetStream) -> None:
        now = self.wheel.seconds()
        self.wheel.watch(stream, now)
        if now - self._connected >= STEADY or stream.session.read > self._read:
            self._failures = 0
        else:
            self._failures += 1
        self._try_soon(stream)

    def stream_resumed(self, stream: SnetStream, seconds: float, replayed: int) -> None:
        log.info(
            "snet stream to {addr} resumed after {seconds:.1f} s, {replayed} bytes sent again",
            addr=address_name(stream.getPeer()),
            seconds=seconds,
            replayed=replayed,
        )

    def stream_gone(self, stream: SnetStream) -> None:
        self.wheel.stop()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._attempt is not None:
            self._attempt.cancel()
        self._factory.doStop()

    def hurry(self, stream: SnetStream) -> None:
        if self._call is not None:
            self._call.reset(0)

    # Attempts to resume.

    def _try_soon(self, stream: SnetStream) -> None:
        pause = self._backoff(self._failures) if self._failures else 0.0
        self._call = self.clock.callLater(pause, self._try, stream)

    def _try(self, stream: SnetStream) -> None:
        self._call = None
        self._attempt = attempt = Attempt(
            self._endpoint, self.clock, self.config, stream.session
        ).done
        attempt.addCallback(self._resumed, stream)
        attempt.addErrback(self._not_resumed, stream)

    def _resumed(self, resumed: tuple[Carrier, Made | Resumed], stream: SnetStream) -> None:
        self._attempt = None
        carrier, result = resumed
        self._connected = self.wheel.seconds()
        session = stream.session
        self._read, peer_read = session.read, session.peer_read
        try:
            stream.resume(carrier, cast(Resumed, result))
            if session.peer_read > peer_read:
                self._failures = 0
        except HandshakeFailed:
            carrier.abort()
            raise

    def _not_resumed(self, failure: Failure, stream: SnetStream) -> None:
        self._attempt = None
        if stream.lost is not None:
            return
        error = failure.value
        if isinstance(error, HandshakeFailed):
            if error.fault is Fault.REFUSED:
                stream.lose(Reason.RESUME_REFUSED)
                return
            if error.fault in (Fault.GAP, Fault.BAD_COUNTS):
                stream.lose(Reason.RESUME_IMPOSSIBLE, str(error))
                return
        self._failures += 1
        log.info(
            "snet stream to {addr}: attempt {attempt} to resume failed: {problem}",
            addr=address_name(stream.getPeer()),
            attempt=self._failures,
            problem=failure.getErrorMessage(),
        )
        self._try_soon(stream)


@implementer(IStreamClientEndpoint)
class SnetClientEndpoint:
    """Dials a stream over any endpoint, and dials again whenever its connection breaks.

    Args:
        endpoint: TCP, TLS, a unix socket.
        clock: The reactor.
        backoff: Failed attempts since the last steady connection -> seconds until the next; the
            first attempt after a steady connection is made at once.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        config: SnetConfig | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._config = SnetConfig() if config is None else config
        self._backoff = backoffPolicy(0.1, 5.0, 1.5) if backoff is None else backoff

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol once the stream is there; fails as the endpoint does, with
        HandshakeFailed, or with Twisted's TimeoutError. Can be cancelled."""
        return Dialler(self._endpoint, factory, self._clock, self._config, self._backoff).connect()

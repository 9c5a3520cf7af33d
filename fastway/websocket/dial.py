"""WebSockets to a gateway with Twisted, over any endpoint.

    WebSocketClientEndpoint(any_endpoint, reactor, "game.example").connect(factory)

Rule: the factory's protocol sees a transport of bytes once the handshake is done, and no frames.
Its buffers are those of the connection below: who is to pause is told when that is full, and what
is not read here is not read there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHandshakeListener,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.causes import cause_of
from fastway.errors import NO_CLOSE, NoWebSocket, UnnamedCertificate, WebSocketClosed
from fastway.logs import make_logger
from fastway.producer import Membrane
from fastway.tcp import renew_producer
from fastway.verify import names_nobody
from fastway.websocket.client import (
    HANDSHAKE_TIMEOUT,
    ClientMachine,
    WebSocket,
    checked_host,
)

log = make_logger(__name__)

LINGER = 5.0
"""Seconds that the gateway gets to answer a Close, and to end its connection."""


class WebSocketConnectionLost(WebSocketClosed, ConnectionLost):
    """A WebSocketClosed as Twisted's protocols know it."""

    def __str__(self) -> str:
        return str(self.args[0])


@implementer(IHandshakeListener, IPushProducer)
class Carrier(Protocol):
    """The connection below: first its handshake, then the frames.

    Attributes:
        stream: What the application's protocol has of it; None before the handshake is over.
        full: The transport's buffer is full.
    """

    def __init__(self, attempt: Attempt, machine: ClientMachine) -> None:
        self.machine = machine
        self.stream: Stream | None = None
        self.full = False
        self._attempt = attempt
        self._secured = False
        self._gone = False
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
            transport.write(self.machine.begin())

    def handshakeCompleted(self) -> None:
        """TLS is up; nothing was written before, so nobody has seen a token."""
        self._secured = True
        if names_nobody(self.transport):
            error = UnnamedCertificate()
            self._give_up(NoWebSocket(str(error), error))
        else:
            cast(Any, self.transport).write(self.machine.begin())

    def dataReceived(self, data: bytes) -> None:
        machine = self.machine
        payload = machine.receive(data)
        if self.stream is None:
            if machine.up:
                self.stream = self._attempt.upgraded(self)
            elif machine.ended is not None:
                self._give_up(cast(NoWebSocket, machine.ended))
            if self.stream is None:
                return
        self._answer()
        if payload:
            self.stream.received(payload)
        if machine.ended is not None:
            self._leave()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._unregister()  # a TLS transport would keep this in a cycle
        error = cast(Exception, reason.value)
        orderly = isinstance(error, ConnectionDone)
        ended = self.machine.ended
        self.machine.receive_eof()
        if self.stream is None:
            tls = ISSLTransport.providedBy(self.transport) and not self._secured
            if orderly and not tls:
                self._attempt.failed(cast(NoWebSocket, self.machine.ended))
            else:
                self._attempt.failed(NoWebSocket(cause_of(error, self.transport), error))
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

    # What the stream and the attempt call.

    @property
    def below(self) -> Any:
        return self.transport

    def write(self, data: bytes) -> None:
        machine = self.machine
        if data and not machine.closing and not self._gone:
            cast(Any, self.transport).write(machine.wrap(data))

    def say_close(self) -> None:
        """Say the Close of this side behind what was written; the other side's ends it."""
        transport = cast(Any, self.transport)
        said = self.machine.close()
        if said:
            transport.write(said)
            transport.resumeProducing()  # the answer is to be read
            self._wait()

    def abort(self) -> None:
        """Disconnect now."""
        if not self._gone:
            cast(Any, self.transport).abortConnection()

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            cast(Any, self.transport).unregisterProducer()

    def _give_up(self, error: NoWebSocket) -> None:
        self._attempt.failed(error)
        self.abort()

    def _answer(self) -> None:
        out = self.machine.data_to_send(not self.full)
        if out and not self._gone:
            cast(Any, self.transport).write(out)

    def _leave(self) -> None:
        """Nothing more comes that means something: end the connection, behind what waits."""
        if self._gone or self._leaving:
            return
        self._leaving = True
        transport = cast(Any, self.transport)
        self._unregister()
        transport.resumeProducing()  # TLS reads the peer's end before it closes
        transport.loseConnection()
        self._wait()

    def _wait(self) -> None:
        if self._linger is None and not self._gone:
            self._linger = self._attempt.clock.callLater(LINGER, self._waited)

    def _waited(self) -> None:
        self._linger = None
        if self.full and not self._leaving:
            self._wait()  # as TCP alone, which waits for who takes something at all
        else:
            self.abort()


@implementer(ITransport, IConsumer, IPushProducer)
class Stream:
    """The bytes in a WebSocket's messages, as a transport of Twisted. Messages have no borders
    here.

    connectionLost is told ConnectionDone after one's own close and after a Close with 1000;
    otherwise a WebSocketConnectionLost, a BadFrame, or what the connection below met.

    Args:
        gone: Called once its protocol has heard of its loss.
    """

    disconnecting = False

    def __init__(
        self, carrier: Carrier, protocol: IProtocol, clock: IReactorTime, gone: Callable[[], Any]
    ) -> None:
        self.carrier = carrier
        self._protocol: IProtocol | None = protocol
        self._clock = clock
        self._gone = gone
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
            self.carrier.say_close()

    def abortConnection(self) -> None:
        """Close it now."""
        self.disconnecting = self._aborted = True
        self._held = b""
        self.carrier.abort()

    def getPeer(self) -> IAddress:
        return cast(IAddress, self.carrier.below.getPeer())

    def getHost(self) -> IAddress:
        return cast(IAddress, self.carrier.below.getHost())

    def getHandle(self) -> Any:
        """The connection below, for those who ask it what went wrong with TLS."""
        return self.carrier.below.getHandle()

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
            self.carrier.say_close()

    def failed(self, culprit: object) -> None:
        """A producer has raised: that ends it, as with Twisted's own transports."""
        log.failure("unhandled error in {culprit}", culprit=culprit)
        self.abortConnection()

    # IPushProducer

    def pauseProducing(self) -> None:
        self._paused = True
        if not self.disconnecting:
            self.carrier.below.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._held:
            # Never within the call that resumed: that may be the protocol's, amid its last data.
            self._clock.callLater(0, self._hand_over)
        elif self._lost is None:
            self.carrier.below.resumeProducing()

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
            self.carrier.below.resumeProducing()

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


class Attempt(Factory):
    """One WebSocket, up to the end of its handshake.

    Attributes:
        done: Fires with the application's protocol; fails as the endpoint does, or with
            NoWebSocket. Cancelling it ends the attempt.
    """

    noisy = False

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        machine: ClientMachine,
        factory: IProtocolFactory,
        timeout: float,
    ) -> None:
        self.clock = clock
        self._machine = machine
        self._factory = factory
        self._timeout = timeout
        self._timer: Any = None
        self._carrier: Carrier | None = None
        self._over = False
        self.done: Deferred[IProtocol] = Deferred(self._cancelled)
        self._connecting = maybeDeferred(endpoint.connect, self)
        self._connecting.addErrback(self._not_connected)

    def buildProtocol(self, addr: IAddress | None) -> Carrier | None:
        if self._over:
            return None
        self._carrier = Carrier(self, self._machine)
        self._timer = self.clock.callLater(self._timeout, self._too_late)
        return self._carrier

    def upgraded(self, carrier: Carrier) -> Stream | None:
        """The handshake is done: the application's protocol runs from now on, if there is one."""
        if self._over:
            carrier.abort()
            return None
        self._end()
        factory = self._factory
        factory.doStart()
        try:
            protocol = factory.buildProtocol(carrier.below.getPeer())
            if protocol is None:
                raise ConnectionAborted("the factory made no protocol")
            stream = Stream(carrier, protocol, self.clock, factory.doStop)
            protocol.makeConnection(stream)
        except Exception:
            failure = Failure()
            carrier.abort()
            factory.doStop()
            self.done.errback(failure)
            return None
        carrier.stream = stream
        self.done.callback(protocol)
        return stream

    def failed(self, error: NoWebSocket) -> None:
        """It came to nothing; a second time does nothing."""
        self._not_connected(Failure(error))

    def _not_connected(self, failure: Failure) -> None:
        if not self._over:
            self._end()
            self.done.errback(failure)

    def _too_late(self) -> None:
        self._timer = None
        self.failed(NoWebSocket(f"no answer within {self._timeout:g} s"))
        if self._carrier is not None:
            self._carrier.abort()

    def _end(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancelled(self, _: object) -> None:
        self._end()
        self._connecting.cancel()
        if self._carrier is not None:
            self._carrier.abort()


@implementer(IStreamClientEndpoint)
class WebSocketClientEndpoint:
    """A WebSocket over any endpoint.

    Args:
        endpoint: What to connect to: TCP, TLS, a unix socket.
        clock: The reactor.
        host: What the Host header says.
        wanted: What is asked for.
        timeout: Seconds from the connection to the end of the handshake.

    Raises:
        ValueError: that is no host.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        host: str,
        wanted: WebSocket | None = None,
        timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._host = checked_host(host)
        self._wanted = WebSocket() if wanted is None else wanted
        self._timeout = timeout

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol once the WebSocket is there; fails as the endpoint does, or with
        NoWebSocket: WebSocketRefused where there was an answer. Can be cancelled."""
        machine = ClientMachine(self._wanted, self._host)
        return Attempt(self._endpoint, self._clock, machine, factory, self._timeout).done

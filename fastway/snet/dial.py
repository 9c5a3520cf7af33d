"""The dialling side of snet around any Twisted endpoint.

    SnetClientEndpoint(TCP4ClientEndpoint(reactor, "127.0.0.1", 9000), reactor).connect(factory)

Rule: one attempt at a time, and each has its time; the factory's protocol sees one transport for
as long as the stream lives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, TimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.address import address_name
from fastway.errors import Reason
from fastway.logs import make_logger
from fastway.reconnect import Backoff, Reconnect, growing
from fastway.snet.carrier import Carrier
from fastway.snet.config import FIRST_DELAY, HURRY, LINGER, MOST_DELAY, STEADY, SnetConfig
from fastway.snet.session import DialHandshake, Fault, HandshakeFailed, Made, Resumed, Session
from fastway.snet.stream import SnetStream
from fastway.wheel import Wheel

log = make_logger(__name__)


class Attempt(Factory):
    """One connection of the dialling side, up to the end of its handshake.

    Args:
        leaving: Where its connection stands while it closes in good order, which takes LINGER
            seconds at most.

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
        leaving: set[Carrier],
        session: Session | None = None,
    ) -> None:
        self.config = config
        self._handshake = DialHandshake(config.buffer, config.encrypt, session)
        self._clock = clock
        self._carrier: Carrier | None = None
        self._leaving = leaving
        self._linger: Any = None
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
        self._leaving.add(carrier)
        self._linger = self._clock.callLater(LINGER, carrier.abort)

    def carrier_gone(self, carrier: Carrier) -> None:
        self._leaving.discard(carrier)
        if self._linger is not None and self._linger.active():
            self._linger.cancel()

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
        reconnect: How long to wait between attempts.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        factory: IProtocolFactory,
        clock: IReactorTime,
        config: SnetConfig,
        reconnect: Reconnect,
    ) -> None:
        self.clock = clock
        self.config = config
        self.wheel = Wheel(clock)
        self._endpoint = endpoint
        self._factory = factory
        self._reconnect = reconnect
        self._read = 0
        """Bytes of the stream that had come when the last handshake was done."""
        self._got_across = False
        """That handshake showed that the connection before it took bytes to the peer."""
        self._attempt: Deferred[Any] | None = None
        """The attempt that is under way."""
        self._call: Any = None
        """The next one, which ends the one that is under way then."""
        self._no_hurry = -math.inf
        """Until when no further attempt is made because somebody asks for it, on the clock."""
        self._leaving: set[Carrier] = set()

    def connect(self) -> Deferred[IProtocol]:
        """Fires with the protocol; fails as an Attempt does. Can be cancelled."""
        attempt = Attempt(self._endpoint, self.clock, self.config, self._leaving)
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
        self._reconnect.began(self.wheel.seconds())
        SnetStream(self, result.session).begin(carrier, protocol, result.rest)
        return protocol

    # What the stream calls.

    def stream_cut(self, stream: SnetStream) -> None:
        now = self.wheel.seconds()
        self.wheel.watch(stream, now)
        got_something = self._got_across or stream.session.read > self._read
        self._got_across = False
        self._try_by(self.clock.seconds() + self._reconnect.ended(now, got_something), stream)

    def stream_resumed(self, stream: SnetStream, seconds: float, replayed: int) -> None:
        log.info(
            "snet stream to {addr} resumed after {seconds:.1f} s, {replayed} bytes sent again",
            addr=address_name(stream.getPeer()),
            seconds=seconds,
            replayed=replayed,
        )

    def stream_gone(self, stream: SnetStream) -> None:
        self.wheel.stop()
        self._no_more_attempts()
        if not isinstance(stream.lost, ConnectionDone):
            for carrier in list(self._leaving):
                carrier.abort()
        self._factory.doStop()

    def hurry(self, stream: SnetStream) -> None:
        if self._attempt is None and self._call is None:
            return
        self._try_by(max(self.clock.seconds(), self._no_hurry), stream)
        self._no_hurry = max(self._no_hurry, self._call.getTime() + HURRY)

    def tell(self, call: Callable[[], object]) -> None:
        call()

    def tell_later(self, call: Callable[[], object]) -> None:
        self.clock.callLater(0, call)

    # Attempts to resume.

    def _try_by(self, when: float, stream: SnetStream) -> None:
        """Make the next attempt then, if it is not to be made sooner anyway."""
        call = self._call
        if call is not None:
            if call.getTime() <= when:
                return
            call.cancel()
        pause = max(0.0, when - self.clock.seconds())
        self._call = self.clock.callLater(pause, self._try, stream)

    def _no_more_attempts(self) -> None:
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()

    def _try(self, stream: SnetStream) -> None:
        self._no_more_attempts()
        self._attempt = attempt = Attempt(
            self._endpoint, self.clock, self.config, self._leaving, stream.session
        ).done
        attempt.addCallback(self._resumed, stream)
        attempt.addErrback(self._not_resumed, stream)

    def _resumed(self, resumed: tuple[Carrier, Made | Resumed], stream: SnetStream) -> None:
        self._attempt = None
        self._no_more_attempts()
        carrier, result = resumed
        self._reconnect.began(self.wheel.seconds())
        session = stream.session
        self._read, peer_read = session.read, session.peer_read
        try:
            stream.resume(carrier, cast(Resumed, result))
            self._got_across = session.peer_read > peer_read
        except HandshakeFailed:
            carrier.abort()
            raise

    def _not_resumed(self, failure: Failure, stream: SnetStream) -> None:
        given_up = self._attempt is None and failure.check(CancelledError)
        if given_up or stream.lost is not None:
            return
        self._attempt = None
        error = failure.value
        if isinstance(error, HandshakeFailed):
            if error.fault is Fault.REFUSED:
                stream.lose(Reason.RESUME_REFUSED)
                return
            if error.fault in (Fault.GAP, Fault.BAD_COUNTS):
                stream.lose(Reason.RESUME_IMPOSSIBLE, str(error))
                return
        pause = self._reconnect.failed()
        log.info(
            "snet stream to {addr}: attempt {attempt} to resume failed: {problem}",
            addr=address_name(stream.getPeer()),
            attempt=self._reconnect.failures,
            problem=failure.getErrorMessage(),
        )
        self._try_by(self.clock.seconds() + pause, stream)


@implementer(IStreamClientEndpoint)
class SnetClientEndpoint:
    """Dials a stream over any endpoint, and dials again whenever its connection breaks.

    Args:
        endpoint: TCP, TLS, a unix socket.
        clock: The reactor.
        backoff: Failures since the last steady connection, from 1 on -> seconds until the next
            attempt; None: 0.1 s, growing to 5 s, with chance in it. The first attempt after a
            steady connection is made at once. Steady is one that lasted a second, or took bytes
            of the stream across.
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
        self._backoff = growing(FIRST_DELAY, MOST_DELAY) if backoff is None else backoff

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol once the stream is there; fails as the endpoint does, with
        HandshakeFailed, or with Twisted's TimeoutError. Can be cancelled."""
        reconnect = Reconnect(self._backoff, STEADY, at_once=True)
        return Dialler(self._endpoint, factory, self._clock, self._config, reconnect).connect()

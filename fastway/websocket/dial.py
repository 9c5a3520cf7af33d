"""WebSockets to a gateway with Twisted, over any endpoint.

    WebSocketClientEndpoint(any_endpoint, reactor, "game.example").connect(factory)

Rule: the factory's protocol sees a transport of bytes once the handshake is done (`stream`); what
can go wrong before is told as the endpoint's failure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionAborted
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

from fastway.errors import NoWebSocket, RemoteError, UnnamedCertificate
from fastway.verify import names_nobody
from fastway.websocket.client import (
    HANDSHAKE_TIMEOUT,
    ClientMachine,
    WebSocket,
    checked_host,
)
from fastway.websocket.stream import Carrier, Stream


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
        self._carrier = Carrier(self, self.clock, self._machine)
        self._timer = self.clock.callLater(self._timeout, self._too_late)
        return self._carrier

    def secured(self, carrier: Carrier) -> None:
        if names_nobody(carrier.transport):
            error = UnnamedCertificate()
            self.failed(carrier, NoWebSocket(str(error), error))
        else:
            carrier.begin()

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

    def failed(self, carrier: Carrier | None, error: RemoteError) -> None:
        """It came to nothing; a second time does nothing."""
        self._not_connected(Failure(error))
        if carrier is not None:
            carrier.abort()

    def _not_connected(self, failure: Failure) -> None:
        if not self._over:
            self._end()
            self.done.errback(failure)

    def _too_late(self) -> None:
        self._timer = None
        self.failed(self._carrier, NoWebSocket(f"no answer within {self._timeout:g} s"))

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
        NoWebSocket: WebSocketRefused where there was an answer. Can be cancelled.

        A factory that has `by_websocket(wanted, host)` asks for it itself, and takes whole
        messages: then this is the connection of that."""
        asks = getattr(factory, "by_websocket", None)
        if asks is not None:
            made: IProtocolFactory = asks(replace(self._wanted, subprotocol=""), self._host)
            connecting: Deferred[IProtocol] = self._endpoint.connect(made)
            return connecting
        machine = ClientMachine(self._wanted, self._host)
        return Attempt(self._endpoint, self._clock, machine, factory, self._timeout).done

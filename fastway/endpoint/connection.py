"""The library on Twisted: one connection to a gateway, and the virtual connections on it.

Rule: what is said and when is `link`'s, what waits is a Deferred here. An await of one of them in
a coroutine that asyncio runs needs `fastway.aio` instead.

    gateway = await connect_client(clientFromString(reactor, "tcp:127.0.0.1:9010"))
    conn = await gateway.dial(1)
    await conn.send(b"hello")
    print(await conn.receive())
    conn.close()
"""

from __future__ import annotations

from typing import Any, TypeVar, cast, overload

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime

from fastway.endpoint.accept import Acceptor
from fastway.endpoint.channel import Channel
from fastway.endpoint.config import EndpointConfig
from fastway.endpoint.control import Control
from fastway.endpoint.core import EndpointCore
from fastway.endpoint.face import Face
from fastway.endpoint.reactor import TwistedLoop
from fastway.errors import (
    BadMessage,
    EndpointEnded,
    FastwayError,
)
from fastway.formats import Encoded, MessageFormat

T = TypeVar("T")
U = TypeVar("U")


class VirtualConnection(Channel[T]):
    """A message channel to the far end of a virtual connection.

    Attributes:
        conn_id: The gateway's number for it.
        remote_id: The id of the far end: a server's for a client, a client's for a server.
        state: The application's own; nothing here looks at it.
        ended: Why it is closed; None while it is open.
        facts: What the gateway tells of the player; None where it does not.
        message_format: What its messages are; may be set before the first is received.
    """

    __slots__ = ()

    @property
    def gateway(self) -> GatewayConnection:
        """What it runs over."""
        return cast(GatewayConnection, self.link.face)

    @property
    def endpoint(self) -> GatewayConnection:
        """The old name of `gateway`."""
        return self.gateway

    def send(self, message: T | Encoded) -> Deferred[None]:
        """Send a message.

        Returns:
            Fires when the gateway's connection can take more; wait for it and no more than one
            message a sender is ever queued. It does not tell that the far end got the message.

        Raises:
            ConnectionEnded: it is closed.
            MessageTooLarge: it does not fit `max_packet`.
            SendQueueFull: `send_buffer` bytes of all who send to this gateway wait already.
            Whatever the message format raises for a message that it cannot encode.
        """
        if self.ended is not None:
            raise self.ended.with_traceback(None)
        data = self.encode(message)
        waiter = self.link.send(self, data)
        return succeed(None) if waiter is None else cast("Deferred[None]", waiter)

    def receive(self) -> Deferred[T]:
        """The next message. What came before a close is still received.

        Fails with the ConnectionEnded, or its cause's error, when there is none and will be none;
        with BadMessage when it does not decode.
        """
        if self._queue is not None:
            try:
                return succeed(self.take())
            except BadMessage as error:
                return fail(error)
        if self.ended is not None:
            return fail(self.ended.with_traceback(None))
        reading: Deferred[T] = self.wait_to_read()
        return reading

    def when_ended(self) -> Deferred[FastwayError]:
        """Fires once with the reason when it has ended."""
        if self.ended is not None:
            return succeed(self.ended)

        def tell(conn: Any) -> None:
            ended.callback(conn.ended)

        ended: Deferred[FastwayError] = Deferred(lambda _: self.not_on_end(tell))
        self.on_end(tell)
        return ended

    when_closed = when_ended

    def hand_over(self, data: bytes) -> bool:
        reader = None if self._readers is None else self._readers.first()
        if reader is None:
            return False
        try:
            message = self.decode(data)
        except BadMessage as error:
            if not reader.called:  # who was told of the end may have cancelled it
                reader.errback(error)
        else:
            if reader.called:
                return self.hand_over(data)
            reader.callback(message)
        return True


class Taking(Acceptor[VirtualConnection[Any]]):
    """Takes virtual connections, with Deferreds."""

    def accept(self) -> Deferred[VirtualConnection[Any]]:
        """The next virtual connection that the other side dialled.

        A pool's come over whichever gateway; `conn.gateway.name` tells which. Fails with
        EndpointEnded when this is over, with LocalError when `serve` or `listen` takes them.
        """
        try:
            conn = self.take_waiting()
        except FastwayError as error:
            return fail(error)
        return succeed(conn) if conn is not None else cast(Any, self.wait_to_accept())

    def accepted(self, conn: VirtualConnection[Any]) -> bool:
        self.next_acceptor().callback(conn)
        return True


class GatewayConnection(Taking, Face[VirtualConnection[Any]]):
    """One connection to a gateway, as a client or as a server.

    Made by `connect_client` and `connect_server`, or by a `GatewayFactory`. Virtual connections
    that the other side dials are taken by `serve`, `accept` or `listen`.

    Attributes:
        config: How it behaves.
        name: What its owner calls the gateway.
        clock: What its timers run on.
    """

    def __init__(self, core: EndpointCore, config: EndpointConfig, clock: IReactorTime) -> None:
        super().__init__(core, config, TwistedLoop(clock))
        self.clock = clock

    @overload
    def dial(
        self, remote_id: int, timeout: float | None = None
    ) -> Deferred[VirtualConnection[Any]]: ...

    @overload
    def dial(
        self,
        remote_id: int,
        timeout: float | None = None,
        *,
        message_format: MessageFormat[U],
    ) -> Deferred[VirtualConnection[U]]: ...

    def dial(
        self,
        remote_id: int,
        timeout: float | None = None,
        *,
        message_format: MessageFormat[Any] | None = None,
    ) -> Deferred[VirtualConnection[Any]]:
        """Ask for a virtual connection to a server's id, or a client's. Several at once are fine.

        Args:
            timeout: Seconds to wait for the answer; None: as long as this lives.
            message_format: What its messages are; None: as configured.

        Returns:
            Fires with the connection; fails with DialRefused, DialTimeout, or why this ended.
            Cancelling it gives up; if the gateway accepts later, that is closed at once.

        Raises:
            ValueError: that is no id.
            LocalError: this is not connected, or not logged in, yet; or 65,536 dials are not
                answered.
        """
        try:
            answer = cast("Deferred[VirtualConnection[Any]]", self.link.dial(remote_id, timeout))
        except EndpointEnded as error:
            return fail(error)
        if message_format is not None:

            def choose(conn: VirtualConnection[Any]) -> VirtualConnection[Any]:
                conn.message_format = message_format
                return conn

            answer.addCallback(choose)
        return answer

    def ping(self) -> Deferred[float]:
        """Fires with the seconds that the next answered ping took; sends one if none is out.

        Raises:
            LocalError: this is not connected, or not logged in, yet.
        """
        try:
            return cast("Deferred[float]", self.link.ping())
        except EndpointEnded as error:
            return fail(error)

    def when_control(self) -> Deferred[Control | None]:
        """Fires with `control` once the gateway has greeted; with None where it has none."""
        control = self.link.control
        return succeed(None) if control is None else cast(Any, control.when_offered())

    def close(self) -> Deferred[None]:
        """End it: what was sent is still written. A second time changes nothing.

        Returns:
            Fires when all has been written and the transport is gone; need not be waited for.
        """
        self.link.shut()
        return self.when_gone()

    def when_up(self) -> Deferred[GatewayConnection]:
        """Fires with this once it is logged in; cancelling it ends the connection."""
        if self.up:
            return succeed(self)
        if self.ended is not None:
            return fail(self.ended.with_traceback(None))
        return cast("Deferred[GatewayConnection]", self.link.risers.wait(self.link.shut))

    def when_ended(self) -> Deferred[FastwayError]:
        """Fires once with the reason when it has ended."""
        if self.ended is not None:
            return succeed(self.ended)
        return cast("Deferred[FastwayError]", self.link.closers.wait())

    def when_gone(self) -> Deferred[None]:
        """Fires once its transport is gone: after `when_ended`, when all has been written."""
        if self.link.gone or (self.link.transport is None and self.ended is not None):
            return succeed(None)
        return cast("Deferred[None]", self.link.leavers.wait())

    def make_connection(self, conn_id: int, remote_id: int) -> VirtualConnection[Any]:
        return VirtualConnection(self.link, conn_id, remote_id)

    # Old names, for one release.

    @property
    def ready(self) -> bool:
        """The old name of `up`."""
        return self.up

    when_ready = when_up
    when_closed = when_ended

    @property
    def gateway(self) -> Any:
        """The old name of `address`."""
        return self.address

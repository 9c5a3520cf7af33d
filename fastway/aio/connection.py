"""The library on asyncio: one connection to a gateway, and the virtual connections on it.

Rule: what is said and when is `endpoint.link`'s; here it is awaited as asyncio's programs do. A
task that is cancelled while it waits loses no message and no connection.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Generic, TypeVar, cast, overload

from fastway.aio.loop import AioLoop, AioWaiter
from fastway.endpoint.accept import Acceptor
from fastway.endpoint.channel import Channel
from fastway.endpoint.config import EndpointConfig
from fastway.endpoint.control import Control
from fastway.endpoint.core import EndpointCore
from fastway.endpoint.face import Face
from fastway.errors import FastwayError
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

    async def send(self, message: T | Encoded) -> None:
        """Send a message, and wait until the gateway's connection can take more.

        It does not tell that the far end got the message. Cancelling it takes nothing back.

        Raises:
            ConnectionEnded: it is closed.
            MessageTooLarge: it does not fit `max_packet`.
            SendQueueFull: `send_buffer` bytes wait already, of tasks that wait in `send`.
            Whatever the message format raises for a message that it cannot encode.
        """
        if self.ended is not None:
            raise self.ended.with_traceback(None)
        waiter = self.link.send(self, self.encode(message))
        if waiter is not None:
            await waiter

    async def receive(self) -> T:
        """The next message. What came before a close is still received.

        Raises:
            ConnectionEnded: there is none and will be none.
            BadMessage: it did not decode.
        """
        while not self.unread:
            if self.ended is not None:
                raise self.ended.with_traceback(None)
            waiter = self.wait_to_read()
            try:
                await waiter
            except asyncio.CancelledError:
                # Woken and cancelled at once: the message is somebody else's.
                if _was_woken(waiter) and self.unread:
                    self._wake()
                raise
            except FastwayError:
                if not self.unread:
                    raise
        return self.take()

    async def when_ended(self) -> FastwayError:
        """Wait for its end, and tell the reason."""
        if self.ended is None:
            waiter = self.link.loop.waiter(None)

            def tell(_: Any) -> None:
                if not waiter.done():
                    waiter.callback(None)

            self.on_end(tell)
            try:
                await waiter
            finally:
                self.not_on_end(tell)
        return cast(FastwayError, self.ended)

    async def __aenter__(self) -> VirtualConnection[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def hand_over(self, data: bytes) -> bool:
        # It waits in the queue until the task has run: one that is cancelled first loses nothing.
        self._wake()
        return False

    def _wake(self) -> None:
        reader = self.next_reader()
        if reader is not None:
            reader.callback(None)


C = TypeVar("C", bound=VirtualConnection[Any])


class Taking(Acceptor[C], Generic[C]):
    """Takes virtual connections, in coroutines."""

    async def accept(self) -> C:
        """The next virtual connection that the other side dialled.

        A pool's come over whichever gateway; `conn.gateway.name` tells which.

        Raises:
            EndpointEnded: this is over.
            LocalError: `serve` or `listen` takes them.
        """
        while True:
            conn = self.take_waiting()
            if conn is not None:
                return conn
            waiter = self.wait_to_accept()
            try:
                await waiter
            except asyncio.CancelledError:
                if _was_woken(waiter):
                    self._wake()
                raise

    def accepted(self, conn: C) -> bool:
        self._wake()
        return False

    def _wake(self) -> None:
        acceptor = self.next_acceptor()
        if acceptor is not None:
            acceptor.callback(None)


class GatewayConnection(Taking[VirtualConnection[Any]], Face[VirtualConnection[Any]]):
    """One connection to a gateway, as a client or as a server.

    Made by `connect_client` and `connect_server`. Virtual connections that the other side dials
    are taken by `serve`, `accept` or `listen`. Leaving `async with` closes it.

    Attributes:
        config: How it behaves.
        name: What its owner calls the gateway.
    """

    def __init__(
        self, core: EndpointCore, config: EndpointConfig, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(core, config, AioLoop(loop))

    @overload
    async def dial(
        self, remote_id: int, timeout: float | None = None
    ) -> VirtualConnection[Any]: ...

    @overload
    async def dial(
        self,
        remote_id: int,
        timeout: float | None = None,
        *,
        message_format: MessageFormat[U],
    ) -> VirtualConnection[U]: ...

    async def dial(
        self,
        remote_id: int,
        timeout: float | None = None,
        *,
        message_format: MessageFormat[Any] | None = None,
    ) -> VirtualConnection[Any]:
        """Ask for a virtual connection to a server's id, or a client's. Several at once are fine.

        Cancelling it gives up; if the gateway accepts later, that is closed at once.

        Args:
            timeout: Seconds to wait for the answer; None: as long as this lives.
            message_format: What its messages are; None: as configured.

        Raises:
            DialRefused: nobody has that id.
            DialTimeout: no answer in time.
            EndpointEnded: this has ended.
            LocalError: this is not logged in yet; or 65,536 dials are not answered.
            ValueError: that is no id.
        """
        waiter = self.link.dial(remote_id, timeout)
        try:
            conn: VirtualConnection[Any] = await waiter
        except asyncio.CancelledError:
            if _was_woken(waiter):
                waiter.result().close()
            raise
        if message_format is not None:
            conn.message_format = message_format
        return conn

    async def ping(self) -> float:
        """The seconds that the next answered ping took; sends one if none is out."""
        return cast(float, await self.link.ping())

    async def when_control(self) -> Control | None:
        """Wait until the gateway has greeted: `control`, or None where it has none."""
        control = self.link.control
        return None if control is None else cast("Control | None", await control.when_offered())

    async def close(self) -> None:
        """End it, and wait until what was sent is written and the transport is gone."""
        self.link.shut()
        if not self.link.gone and self.link.transport is not None:
            await self.link.leavers.wait()

    async def when_ended(self) -> FastwayError:
        """Wait for its end, and tell the reason."""
        if self.ended is None:
            await self.link.closers.wait()
        return cast(FastwayError, self.ended)

    async def __aenter__(self) -> GatewayConnection:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        serving = self.serving
        await self.close()
        if serving is not None:
            await serving.when_idle()

    def make_connection(self, conn_id: int, remote_id: int) -> VirtualConnection[Any]:
        return VirtualConnection(self.link, conn_id, remote_id)


def _was_woken(waiter: AioWaiter) -> bool:
    """It has its result: the cancellation came after."""
    return waiter.done() and not waiter.cancelled() and waiter.exception() is None

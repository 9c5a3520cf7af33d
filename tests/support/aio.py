"""asyncio that a test steps: an event loop whose time stands still, a gateway in memory for it,
and its connections with the Deferreds that the common tests know.

Rule: the loop runs only when it is told to, for so many turns; nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from fastway import endpoint as twisted
from fastway.aio import EndpointConfig, GatewayConnection, VirtualConnection
from fastway.aio.connect import Wire
from fastway.endpoint.core import EndpointCore
from tests.support.scripted import ScriptedGateway

T = TypeVar("T")

SOON = 8
"""Turns in which whatever can happen does: a task that awaits a task that awaits a waiter."""


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is the test's."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__()

    def time(self) -> float:
        return self.now


class Turns:
    """Steps a loop; what its coroutines come to, it tells by Deferreds.

    Attributes:
        problems: What the loop's exception handler was told: nothing is to come there.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = SteppedLoop() if loop is None else loop
        self.loop.set_debug(True)
        self.loop.slow_callback_duration = 1e9
        self.problems: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.problems.append(str(context)))
        self._waiting: list[tuple[asyncio.Task[Any], Deferred[Any]]] = []
        self._driver = LoopingCall(self.turn, 2)

    def turn(self, count: int = SOON) -> None:
        """Let so many turns go by."""
        if self.loop.is_running():
            return
        watched = signal.set_wakeup_fd(-1)  # uvloop takes it, and Twisted had it
        try:
            for _ in range(count):
                self.loop.call_soon(self.loop.stop)
                self.loop.run_forever()
        finally:
            signal.set_wakeup_fd(watched)
        for waiting in list(self._waiting):
            if waiting[0].done() and waiting in self._waiting:
                self._waiting.remove(waiting)
                self._tell(*waiting)

    def _tell(self, task: asyncio.Task[Any], deferred: Deferred[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if deferred.called:  # it was cancelled
            return
        if task.cancelled():
            deferred.cancel()
        elif error is not None:
            deferred.errback(Failure(error))
        else:
            deferred.callback(task.result())

    def advance(self, seconds: float) -> None:
        """Let time go by, then some turns."""
        cast(SteppedLoop, self.loop).now += seconds
        self.turn()

    def task(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that has had its first turns."""
        task = self.loop.create_task(coroutine)
        self.turn()
        return task

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """The same as a Deferred; cancelling it cancels the task."""
        task = self.loop.create_task(coroutine)

        def cancel(_: object) -> None:
            task.cancel()

        deferred: Deferred[T] = Deferred(cancel)
        self._waiting.append((task, deferred))
        self.turn()
        return deferred

    def drive(self) -> None:
        """Turn with the reactor from now on: for real sockets."""
        self._driver.start(0)

    def stop(self) -> list[str]:
        """Cancel what runs, close the loop, and tell what went wrong with it."""
        if self._driver.running:
            self._driver.stop()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.turn()
        left = [repr(task) for task in asyncio.all_tasks(self.loop)]
        with contextlib.suppress(RuntimeError):
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        gc.collect()
        return self.problems + left


class FakeTransport:
    """What asyncio gives a protocol, as far as a Wire uses it."""

    def __init__(self, turns: Turns, protocol: asyncio.Protocol) -> None:
        self._loop = turns.loop
        self._protocol = protocol
        self._written = bytearray()
        self.paused = False
        self.closing = False
        self.aborted = False
        self.lost = False
        self.stuck = False
        self.writes = 0
        self.limit = 1 << 30
        """Bytes past which it is full."""

    def write(self, data: bytes) -> None:
        assert not self.lost, "a write to a connection that is gone"
        self.writes += 1
        self._written += data
        if self.stuck or len(self._written) > self.limit:
            self._protocol.pause_writing()

    def value(self) -> bytes:
        return bytes(self._written)

    def clear(self) -> None:
        self._written.clear()
        self.writes = 0

    def fill(self) -> None:
        """From now on the peer takes nothing."""
        self.stuck = True
        self._protocol.pause_writing()

    def drain(self) -> None:
        """The peer takes everything from now on."""
        self.stuck = False
        self._protocol.resume_writing()

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.9", 9010) if name == "peername" else default

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self._loop.call_soon(self.gone, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def gone(self, error: Exception | None) -> None:
        if not self.lost:
            self.closing = self.lost = True
            self._protocol.connection_lost(error)


class AioScripted(ScriptedGateway):
    """A ScriptedGateway whose endpoint is asyncio's.

    Attributes:
        raw: The endpoint under test itself.
        endpoint: The same with Deferreds.
    """

    def __init__(
        self, turns: Turns, config: EndpointConfig | None = None, server_id: int | None = None
    ) -> None:
        self.turns = turns
        super().__init__(config, server_id)

    def connect(self, config: EndpointConfig, server_id: int | None, key: bytes | str) -> None:
        core = EndpointCore(config.max_packet, server_id, key)
        self.raw = GatewayConnection(core, config, self.turns.loop)
        self.aio_wire = Wire(self.raw)
        self.pipe = FakeTransport(self.turns, self.aio_wire)
        self.endpoint = with_deferreds(self.turns, self.raw)
        self.aio_wire.connection_made(cast(Any, self.pipe))

    @property
    def paused(self) -> bool:
        return self.pipe.paused

    def say(self, data: bytes) -> None:
        self._held += data
        if self._held and not self.paused and not self.pipe.closing:
            data, self._held = self._held, b""
            self.aio_wire.data_received(data)

    def heard(self) -> bytes:
        self.turns.turn()  # what was written goes out at the end of a turn
        data = self.pipe.value()
        self.pipe.clear()
        return data

    def gone(self, error: Exception | None = None) -> None:
        self.pipe.gone(error)
        self.turns.turn()

    def answer(self) -> None:
        self.turns.turn()
        while True:
            super().answer()
            self.turns.turn()
            if not self.pipe.value() and (self.paused or self.pipe.closing or not self._held):
                return


class Shown:
    """Something of asyncio's, with Deferreds for its coroutines."""

    def __init__(self, turns: Turns, raw: Any) -> None:
        self.turns = turns
        self.raw = raw

    def __repr__(self) -> str:
        return repr(self.raw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def when_ended(self) -> Deferred[Any]:
        return self.turns.start(self.raw.when_ended())

    def __aiter__(self) -> Any:
        return self


class ShownConnection(Shown):
    """A VirtualConnection with Deferreds."""

    def __init__(self, turns: Turns, raw: VirtualConnection[Any], gateway: ShownGateway) -> None:
        super().__init__(turns, raw)
        self.gateway = gateway

    def send(self, message: Any) -> Deferred[None]:
        sending = self.turns.start(self.raw.send(message))
        if isinstance(sending.called and sending.result, Failure):
            failures: list[Failure] = []
            sending.addErrback(failures.append)
            failures[0].raiseException()
        return sending

    def receive(self) -> Deferred[Any]:
        return self.turns.start(self.raw.receive())

    async def __anext__(self) -> Any:
        try:
            return await self.turns.start(_next(self.raw))
        except Ended:
            raise StopAsyncIteration from None

    def close(self) -> None:
        self.raw.close()
        self.turns.turn()


class ShownGateway(Shown):
    """A GatewayConnection with Deferreds."""

    def __init__(self, turns: Turns, raw: GatewayConnection) -> None:
        super().__init__(turns, raw)
        self._shown: dict[VirtualConnection[Any], ShownConnection] = {}

    def show(self, conn: VirtualConnection[Any]) -> ShownConnection:
        if conn not in self._shown:
            self._shown[conn] = ShownConnection(self.turns, conn, self)
        return self._shown[conn]

    def dial(self, *args: Any, **kwargs: Any) -> Deferred[Any]:
        return self.turns.start(self.raw.dial(*args, **kwargs)).addCallback(self.show)

    def accept(self) -> Deferred[Any]:
        return self.turns.start(self.raw.accept()).addCallback(self.show)

    async def __anext__(self) -> Any:
        try:
            return self.show(await self.turns.start(_next(self.raw)))
        except Ended:
            raise StopAsyncIteration from None

    def listen(self, listener: Any) -> None:
        self.raw.listen(None if listener is None else lambda conn: listener(self.show(conn)))

    def ping(self) -> Deferred[float]:
        return self.turns.start(self.raw.ping())

    def close(self) -> Deferred[None]:
        return self.turns.start(self.raw.close())

    def connection(self, conn_id: int) -> Any:
        conn = self.raw.connection(conn_id)
        return None if conn is None else self.show(conn)

    @property
    def connections(self) -> list[Any]:
        return [self.show(conn) for conn in self.raw.connections]


class Ended(RuntimeError):
    """StopAsyncIteration, which a Deferred would not carry."""


async def _next(raw: Any) -> Any:
    try:
        return await raw.__anext__()
    except StopAsyncIteration:
        raise Ended from None


def with_deferreds(turns: Turns, gateway: GatewayConnection) -> twisted.GatewayConnection:
    """asyncio's connection as the common tests know Twisted's."""
    return cast(twisted.GatewayConnection, ShownGateway(turns, gateway))

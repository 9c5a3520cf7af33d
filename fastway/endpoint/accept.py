"""Where the virtual connections that the other side dials are taken: one gateway's, or a pool's.

Rule: each is taken once: by a handler that `serve` runs, by a listener, or by whoever accepts. Who
comes when as many as `accept_queue` wait is closed, unless one of those has left. A handler's
fault ends its own connection.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from inspect import isawaitable, iscoroutine, iscoroutinefunction
from typing import Any, Generic, TypeVar

from fastway.endpoint.channel import Channel, close_all
from fastway.errors import AlreadyListening, ConnectionEnded, EndpointEnded, LocalError
from fastway.waiting import TURNS, Loop, Timer, Waiters, sleeping

C = TypeVar("C", bound=Channel[Any])

GRACE = 10.0
"""Seconds that a handler has to return once its connection has ended."""

NOBODY_SERVES = "nobody serves any more"

CANCEL_AGAIN = 1.0
"""Seconds, at least, until a handler that goes on all the same is cancelled once more."""

MOST_HANDLERS = 100_000
"""Handlers that run at once, if `serve` is not told otherwise."""


class Queue(Generic[C]):
    """Connections that wait to be accepted, those that have ended meanwhile too: what they said is
    still received, unless their place is needed."""

    def __init__(self) -> None:
        self._conns: deque[C] = deque()
        self._ended = 0

    def __len__(self) -> int:
        return len(self._conns)

    def __iter__(self) -> Iterator[C]:
        return iter(self._conns)

    def append(self, conn: C) -> None:
        self._conns.append(conn)
        if conn.ended is None:
            conn.enter(self)
        else:
            self._ended += 1

    def reformatted(self) -> None:
        """It waits as it is."""

    def forget(self, conn: C) -> None:
        """It has ended: the connection calls this."""
        self._ended += 1

    def popleft(self) -> C:
        conn = self._conns.popleft()
        self._taken(conn)
        return conn

    def _taken(self, conn: C) -> None:
        if conn.ended is None:
            conn.leave(self)
        else:
            self._ended -= 1

    def pop(self) -> C:
        """Take out the one that came last."""
        conn = self._conns.pop()
        self._taken(conn)
        return conn

    def drop_ended(self) -> bool:
        """Give the place of the first that has ended to somebody else; False: none has."""
        if self._ended:
            for conn in self._conns:
                if conn.ended is not None:
                    self._conns.remove(conn)
                    self._ended -= 1
                    return True
        return False

    def clear(self) -> list[C]:
        """All of them, which wait no more."""
        conns = list(self._conns)
        while self._conns:
            self.popleft()
        return conns


class Acceptor(Generic[C]):
    """Takes virtual connections.

    Args:
        loop: What waits run on.
        limit: Connections that may wait to be accepted.
    """

    def __init__(self, loop: Loop, limit: int) -> None:
        self._loop = loop
        self._accept_limit = limit
        self._waiting: Queue[C] = Queue()
        self._acceptors = Waiters(loop)
        self._listener: Callable[[C], object] | None = None
        self._serving: Serving[C] | None = None
        self._starting = False
        self._no_more: Exception | None = None
        self._judging = False

    def listen(self, listener: Callable[[C], object] | None) -> None:
        """Hand each connection that the other side dials to a plain function, not to `accept`.

        What it raises is logged, and closes that connection only. None: they wait again.

        Raises:
            AlreadyListening: there is a listener; `listen(None)` takes it away.
            LocalError: `serve` runs a handler, or somebody waits in `accept`.
            TypeError: it is an `async def`: that is `serve`'s.
        """
        if listener is not None:
            self.check_free("listen")
            if is_async(listener):
                raise TypeError(f"{name_of(listener)} is async: give it to serve")
        self._listener = listener
        while self._listener is not None and self._waiting:
            self._hand_over(self._waiting.popleft())

    def serve(
        self,
        handler: Callable[[C], Any],
        *,
        limit: int = MOST_HANDLERS,
        grace: float = GRACE,
    ) -> Serving[C]:
        """Run `handler(conn)` for each connection that the other side dials, until it is stopped.

        An `async def` (or a function that returns an awaitable) has its connection until it
        returns or raises; then it is closed. What it raises is logged once, unless it is that the
        connection ended. A plain function that returns something else has taken the connection
        over: it stays open.

        Args:
            limit: Handlers that run at once; further connections wait (`accept_queue`).
            grace: Seconds after which a handler is cancelled whose connection has ended; one that
                goes on is cancelled again and again, and the log says so.

        Raises:
            LocalError: connections are taken in another way already.
            TypeError: the handler is none.
        """
        if not callable(handler):
            raise TypeError(f"a handler is a function of a connection, not {handler!r}")
        self.check_free("serve")
        if not limit >= 1 or not 0 <= grace < math.inf:
            raise ValueError("limit is at least 1, and grace at least 0 seconds")
        self._serving = Serving(self._loop, handler, limit, grace, self._served_next)
        self._served_next()
        return self._serving

    @property
    def listener(self) -> Callable[[C], object] | None:
        """What `listen` was given last."""
        return self._listener

    def check_free(self, what: str) -> None:
        """
        Raises:
            AlreadyListening: there is a listener.
            LocalError: connections are taken in another way already.
        """
        if self._listener is not None:
            raise AlreadyListening(self)
        if self._serving is not None and not self._serving.stopped:
            raise LocalError(f"{what}: serve runs a handler already")
        if self._acceptors:
            raise LocalError(f"{what}: somebody waits in accept already")

    def _served_next(self) -> None:
        """One more handler may run, or none any more."""
        serving = self._serving
        if serving is None or self._starting:  # a handler that returned at once is in this loop
            return
        self._starting = True
        try:
            while self._waiting and serving.has_room:
                serving.run(self._waiting.popleft())
        finally:
            self._starting = False
        if serving.stopped and serving is self._serving:
            close_all(self._waiting.clear(), NOBODY_SERVES)

    def __aiter__(self) -> AsyncIterator[C]:
        return self

    async def __anext__(self) -> C:
        try:
            return await self.accept()
        except EndpointEnded:
            raise StopAsyncIteration from None

    # What the shells do each in its way, and what they build it from.

    def accept(self) -> Awaitable[C]:
        """The next virtual connection that the other side dialled."""
        raise NotImplementedError

    def take_waiting(self) -> C | None:
        """The connection that waits longest to be accepted, or None.

        Raises:
            EndpointEnded: there is none, and will be none.
        """
        if self._waiting and self._serving is None:
            return self._waiting.popleft()
        if self._no_more is not None:
            raise self._no_more.with_traceback(None)
        if self._serving is not None or self._listener is not None:
            raise LocalError("accept: connections are taken by serve or listen already")
        return None

    def wait_to_accept(self) -> Any:
        """A Waiter of whoever wants the next connection: `accepted` is what fires it."""
        return self._acceptors.wait()

    def next_acceptor(self) -> Any:
        """The Waiter that waits longest, or None."""
        return self._acceptors.first()

    def accepted(self, conn: C) -> bool:
        """Give a connection to who waits in `accept`; False: it has to wait in the queue."""
        raise NotImplementedError

    # What the link or the pool's gateways call.

    def opened(self, conn: C) -> None:
        """The other side dialled."""
        if self._listener is not None:
            self._hand_over(conn)
        elif self._serving is not None and self._serving.stopped:
            conn.link.close(conn, ConnectionEnded(NOBODY_SERVES))
        elif self._serving is not None and self._serving.has_room:
            self._serving.run(conn)
        elif self._acceptors and self.accepted(conn):
            return
        else:
            self._waiting.append(conn)
            if len(self._waiting) > self._accept_limit:
                self._too_many()

    def _too_many(self) -> None:
        if not self._loop.turns:
            self._close_too_many()
        elif not self._judging:  # who accepts as fast as can be has had no turn yet
            self._judging = True
            self._loop.call_later(0, self._judge, TURNS)

    def _judge(self, turns: int) -> None:
        if turns:
            self._loop.call_later(0, self._judge, turns - 1)
            return
        self._judging = False
        self._close_too_many()

    def _close_too_many(self) -> None:
        while len(self._waiting) > self._accept_limit:
            if self._waiting.drop_ended():
                continue
            conn = self._waiting.pop()
            conn.link.close(conn, ConnectionEnded("too many wait to be accepted"))

    def begin_accepting(self) -> None:
        """A pool starts again."""
        self._no_more = None
        if self._serving is not None and self._serving.stopped:
            self._serving = None

    def end_accepting(self, reason: EndpointEnded) -> None:
        """There will be no more connections."""
        self._no_more = reason
        self._waiting.clear()
        self._acceptors.errback(reason)

    def _hand_over(self, conn: C) -> None:
        """Call the listener; its fault is not the others'."""
        listener = self._listener
        assert listener is not None
        try:
            result = listener(conn)
            if iscoroutine(result):
                result.close()
                raise TypeError("it returned a coroutine, which nobody runs: give it to serve")
        except Exception:
            self._loop.log_failure(f"{name_of(listener)} failed with {conn!r}")
            conn.close()

    @property
    def serving(self) -> Serving[C] | None:
        """What `serve` returned, if it was called."""
        return self._serving


class Serving(Generic[C]):
    """Handlers that run.

    Attributes:
        running: How many.
        stopped: No more are started.
    """

    def __init__(
        self,
        loop: Loop,
        handler: Callable[[C], Any],
        limit: int,
        grace: float,
        room: Callable[[], object],
    ) -> None:
        self.stopped = False
        self._loop = loop
        self._handler = handler
        self._limit = limit
        self._grace = grace
        self._room = room
        self._runs: dict[C, _Run[C]] = {}
        self._idle = Waiters(loop)
        self._closing: Timer | None = None

    @property
    def running(self) -> int:
        return len(self._runs)

    @property
    def has_room(self) -> bool:
        """One more may be started."""
        return not self.stopped and len(self._runs) < self._limit

    def run(self, conn: C) -> None:
        """Start the handler."""
        try:
            result = self._handler(conn)
        except Exception as error:
            self._failed(conn, error)
            conn.close()
            return
        if not isawaitable(result):
            return
        run = self._runs[conn] = _Run(self._loop, conn, self._grace, name_of(self._handler))
        run.start(self._finish(conn, result))

    async def _finish(self, conn: C, result: Any) -> None:
        try:
            await result
        except self._loop.cancelled:
            pass
        except Exception as error:
            self._failed(conn, error)
        except GeneratorExit:
            raise  # it was forgotten, together with its gateway
        except BaseException:
            self._returned(conn)
            raise
        self._returned(conn)

    def _returned(self, conn: C) -> None:
        run = self._runs.pop(conn, None)
        if run is not None:
            run.over()
        conn.close()
        if conn.ended is not None:
            conn.ended.with_traceback(None)  # its frames have `conn`: a cycle for each guest
        if not self._runs:
            self._stop_closing()
            self._idle.callback(None)
        self._room()

    def _failed(self, conn: C, error: Exception) -> None:
        # Its peer left, or the gateway is gone, which is no failure.
        if isinstance(error, (ConnectionEnded, EndpointEnded)) and not conn.link.is_open(conn):
            return
        self._loop.log_failure(f"{name_of(self._handler)} failed with {conn!r}")

    def stop(self, grace: float | None = None) -> Any:
        """Start no more; connections go on for `grace` seconds, then they are closed.

        Those that wait for a handler are closed at once, and so is who dials from now on.

        A handler that does not return then is cancelled after the grace that `serve` was given.

        Args:
            grace: None: what `serve` was given; 0: close them now.

        Returns:
            What can be awaited until the last handler has returned.
        """
        self.stopped = True
        self._room()
        seconds = self._grace if grace is None else grace
        idle = self.when_idle()
        self._stop_closing()
        if self._runs:
            if seconds > 0:
                self._closing = self._loop.call_later(seconds, self._close_late)
            else:
                self.close_all()
        return idle

    def _stop_closing(self) -> None:
        timer, self._closing = self._closing, None
        if timer is not None:
            timer.cancel()

    def _close_late(self) -> None:
        self._closing = None
        self.close_all()

    def close_all(self) -> None:
        """Close the connections of all handlers that run."""
        close_all(list(self._runs), "closed here")

    def when_idle(self) -> Any:
        """What can be awaited until no handler runs."""
        if self._runs:
            return self._idle.wait()
        return sleeping(self._loop, 0)


class _Run(Generic[C]):
    """One handler: it is cancelled when its connection has ended and it does not return."""

    __slots__ = ("_conn", "_grace", "_loop", "_name", "_over", "_task", "_timer")

    def __init__(self, loop: Loop, conn: C, grace: float, name: str) -> None:
        self._loop = loop
        self._conn = conn
        self._grace = grace
        self._name = name
        self._task: Any = None
        self._timer: Any = None
        self._over = False

    def start(self, coroutine: Any) -> None:
        task = self._loop.spawn(coroutine)
        if not self._over:
            self._task = task
            self._conn.on_end(self._ended)

    def _ended(self, _: C) -> None:
        if not self._over and self._timer is None:
            self._timer = self._loop.call_later(self._grace, self._cancel, 1)

    def _cancel(self, times: int) -> None:
        self._timer = None
        if times > 1:
            self._loop.log_warn(f"{self._name} goes on although it was cancelled: {self._conn!r}")
        self._task.cancel()
        if not self._over:
            again = max(self._grace, CANCEL_AGAIN) * times
            self._timer = self._loop.call_later(again, self._cancel, times + 1)

    def over(self) -> None:
        """It has returned."""
        self._over = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def is_async(call: Any) -> bool:
    """Calling it makes a coroutine."""
    return iscoroutinefunction(call) or iscoroutinefunction(type(call).__call__)


def name_of(call: Any) -> str:
    """What a person calls a function."""
    return str(getattr(call, "__qualname__", None) or type(call).__name__)

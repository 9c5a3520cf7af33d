"""Connections that come back: one kept up, and a game server's to every gateway.

Rule: which gateways there are is somebody else's to know. What connects, and what its caller
awaits, is the shell's (`pool` and `client` for Twisted, `fastway.aio` for asyncio).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from fastway.causes import cause_of
from fastway.endpoint.accept import Acceptor
from fastway.endpoint.channel import Channel
from fastway.endpoint.face import Face
from fastway.errors import (
    EndpointEnded,
    GatewayDown,
    GatewayUnreachable,
    LocalError,
    WebSocketRefused,
)
from fastway.reconnect import Backoff, Reconnect, growing
from fastway.waiting import Loop, Waiters, sleeping

G = TypeVar("G", bound=Face[Any])
C = TypeVar("C", bound=Channel[Any])

FIRST_DELAY = 0.5
MAX_DELAY = 30.0
"""Seconds before the first and, in the end, every further attempt to reach a gateway again."""

Connect = Callable[[Callable[[G], None]], Any]
"""Connects; what it returns can be awaited for the connection that is up, and cancelled. Its
argument is to be called with the connection as soon as there is one."""


def default_backoff() -> Backoff:
    """Half a second, growing by half up to 15 s, each made up to twice as long by chance."""
    return growing(FIRST_DELAY, MAX_DELAY)


class Keeper(Generic[G]):
    """Keeps one connection up: connects, waits for its end, waits a while, connects again.

    Args:
        name: The gateway's, for the log.
        changed: Called when `gateway` comes or goes, and when an attempt failed. It may stop it.

    Attributes:
        problem: Why the last attempt failed, if it did.
        failed: Attempts that failed, ever.
    """

    def __init__(
        self,
        name: str,
        connect: Connect[G],
        changed: Callable[[], None],
        backoff: Backoff,
        loop: Loop,
    ) -> None:
        self.problem: Exception | None = None
        self.failed = 0
        self._name = name
        self._connect = connect
        self._changed = changed
        self._reconnect = Reconnect(backoff)
        self._loop = loop
        self._run: object = None
        """What the run that is not stopped is known by."""
        self._waiting: Any = None
        self._over = Waiters(loop)
        """Who waits for the run's end."""
        self._runs: set[object] = set()
        """Those that have not ended, stopped or not."""
        self._newest: G | None = None
        self._up: G | None = None

    @property
    def gateway(self) -> G | None:
        """What is up now; not what has ended, also while its ends are still being told."""
        return self._up if self._up is not None and self._up.ended is None else None

    def start(self) -> None:
        """Begin; a second time changes nothing."""
        if self._run is not None:
            return
        self._run = run = object()
        self._runs.add(run)
        self._loop.spawn(self._keep(run))

    def stop(self) -> Any:
        """What can be awaited until the connection, or the attempt to make one, is gone."""
        # It may be called from within `changed`: then nothing waits, and the run ends by itself.
        self._run = None
        if self._waiting is not None:
            self._waiting.cancel()
        self._down("left")
        newest = self._newest
        if newest is not None:
            newest.link.shut()
        return self._loop.spawn(self._gone(newest, set(self._runs)))

    async def _gone(self, newest: G | None, runs: set[object]) -> None:
        while not runs.isdisjoint(self._runs):  # it may have been started again
            await self._over.wait()
        if newest is not None and newest.link.transport is not None and not newest.link.gone:
            await newest.link.leavers.wait()

    async def _keep(self, run: object) -> None:
        try:
            while self._run is run:
                try:
                    pause = await self._once(run)
                except self._loop.cancelled:
                    raise
                except Exception:  # the backoff is the application's
                    again = f"the backoff failed; the next attempt is made after {MAX_DELAY:g} s"
                    self._loop.log_failure(f"gateway {self._name}: {again}")
                    pause = MAX_DELAY
                if self._run is run:
                    await self._wait(sleeping(self._loop, pause))
        except self._loop.cancelled:
            if self._run is run and self._newest is not None:
                self._newest.link.shut()  # the whole program is being cancelled
        finally:
            self._runs.discard(run)
            self._over.callback(None)

    async def _wait(self, waiter: Any) -> Any:
        self._waiting = waiter
        try:
            return await waiter
        finally:
            if self._waiting is waiter:
                self._waiting = None

    async def _once(self, run: object) -> float:
        """One attempt, and the life of its connection. Seconds until the next."""

        def made(gateway: G) -> None:
            if self._run is run:
                self._newest = gateway
            else:  # its endpoint could not be stopped from connecting
                gateway.link.shut()

        try:
            gateway = await self._wait(self._connect(made))
        except self._loop.cancelled:
            raise
        except Exception as error:
            if self._run is run:  # a cancelled attempt fails as its endpoint likes
                self.failed += 1
                self.problem = error
                self._loop.log_warn(f"gateway {self._name}: {cause_of(error)}")
                self._changed()
            return self._reconnect.failed() + _asked_to_wait(error)
        if self._run is not run:  # stopped in the turn in which it came
            gateway.link.shut()
            return 0.0
        self.problem = None
        self._up = gateway
        self._reconnect.began(self._loop.seconds())
        self._loop.log_info(f"gateway {self._name} is up")
        self._changed()
        if self._run is run:
            reason = gateway.ended
            if reason is None:
                reason = await self._wait(gateway.link.closers.wait())
            self._down(str(reason))
        return self._reconnect.ended(self._loop.seconds())

    def _down(self, reason: str) -> None:
        gateway, self._up = self._up, None
        if gateway is not None:
            self._loop.log_info(f"gateway {self._name} is down: {reason}")
            gateway.link.shut()
            self._changed()


def _asked_to_wait(error: Exception) -> float:
    """Seconds that a gateway asked for by HTTP, as far as that is heard."""
    refused = error.cause if isinstance(error, GatewayUnreachable) else error
    wait = refused.retry_after if isinstance(refused, WebSocketRefused) else None
    return min(wait or 0, MAX_DELAY)


class Gateways(Acceptor[C], Generic[C, G]):
    """One game server's connections to every gateway.

    Attributes:
        started: It is.
        changes: Who waits for a gateway to come or go.
    """

    def __init__(
        self,
        gateways: Mapping[str, Any],
        loop: Loop,
        accept_queue: int,
        backoff: Backoff | None,
    ) -> None:
        super().__init__(loop, accept_queue)
        self.changes = Waiters(loop)
        self.started = False
        self._backoff = default_backoff() if backoff is None else backoff
        self._wanted: dict[str, Any] = self._checked_all(gateways)
        self._keepers: dict[str, Keeper[G]] = {}

    def checked(self, gateway: Any) -> Any:
        """What `connect_to` takes, of what the application gave.

        Raises:
            TypeError, ValueError: it is no gateway.
        """
        raise NotImplementedError

    def _checked_all(self, gateways: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(gateways, Mapping):
            raise TypeError(f"gateways is a dict of names to gateways, not {gateways!r}")
        return {name: self.checked(gateway) for name, gateway in gateways.items()}

    def connect_to(self, name: str, gateway: Any, made: Callable[[G], None]) -> Any:
        """As `Connect`, to one gateway."""
        raise NotImplementedError

    @property
    def gateways(self) -> list[str]:
        """The names of all gateways that it should be connected to."""
        return list(self._wanted)

    @property
    def up(self) -> dict[str, G]:
        """name -> connection to the gateways that it is logged in to now."""
        return {
            name: keeper.gateway
            for name, keeper in self._keepers.items()
            if keeper.gateway is not None
        }

    @property
    def problems(self) -> dict[str, Exception]:
        """name -> why the last attempt failed, of the gateways where it did."""
        return {
            name: keeper.problem
            for name, keeper in self._keepers.items()
            if keeper.problem is not None
        }

    def set_gateways(self, gateways: Mapping[str, Any]) -> None:
        """Replace the list: new names are connected to, missing ones are left, others stay.

        A gateway that stands for another address than before, under the same name, is left and
        connected to anew.
        """
        gateways = self._checked_all(gateways)
        for name in list(self._wanted):
            if name not in gateways or not _same(self._wanted[name], gateways[name]):
                self.remove(name)
        for name, gateway in gateways.items():
            if name not in self._wanted:
                self.add(name, gateway)

    def add(self, name: str, gateway: Any) -> None:
        """Connect to one more gateway.

        Raises:
            TypeError: it is no gateway.
            ValueError: there is one of that name.
        """
        gateway = self.checked(gateway)
        if name in self._wanted:
            raise ValueError(f"gateway {name!r} is in the pool already")
        self._wanted[name] = gateway
        if self.started:
            self._keep(name)

    def remove(self, name: str) -> Any:
        """Leave a gateway. What it returns can be awaited until the connection is gone.

        Raises:
            KeyError: there is none of that name.
        """
        del self._wanted[name]
        keeper = self._keepers.pop(name, None)
        if keeper is not None:
            return keeper.stop()
        gone = self._loop.waiter()
        gone.callback(None)
        return gone

    async def when_up(self, count: int = 1) -> dict[str, G]:
        """Wait until at least `count` gateways are up; a coroutine.

        Raises:
            EndpointEnded: it is stopped.
            LocalError: it is not started.
        """
        while len(self.up) < count:
            await self.wait_for_change()
        return self.up

    def find_up(self, name: str) -> G:
        """
        Raises:
            GatewayDown: that gateway is not up.
        """
        keeper = self._keepers.get(name)
        if keeper is None or keeper.gateway is None:
            raise GatewayDown(name)
        return keeper.gateway

    def wait_for_change(self) -> Any:
        """A Waiter of `up` the next time that a gateway comes or goes.

        Raises:
            EndpointEnded: it is stopped.
            LocalError: it is not started.
        """
        if self._no_more is not None:
            raise self._no_more.with_traceback(None)
        if not self.started:
            raise LocalError("the pool is not started")
        return self.changes.wait()

    def take_waiting(self) -> C | None:
        conn = super().take_waiting()
        if conn is None and not self.started:
            raise LocalError("accept: the pool is not started")
        return conn

    def start(self) -> None:
        """Connect to all gateways; a second time changes nothing."""
        if self.started:
            return
        self.begin_accepting()
        self.started = True
        for name in self._wanted:
            self._keep(name)

    def leave(self) -> list[Any]:
        """Leave all gateways; what can be awaited until all connections are gone, and until the
        handlers of `serve` have returned."""
        ended = EndpointEnded("the pool is stopped")
        self.started = False
        keepers, self._keepers = self._keepers, {}
        leaving = [keeper.stop() for keeper in keepers.values()]
        if self._serving is not None:
            leaving.append(self._serving.when_idle())
        self.end_accepting(ended)
        self.changes.errback(ended)
        return leaving

    def _keep(self, name: str) -> None:
        gateway = self._wanted[name]

        def connect(made: Callable[[G], None]) -> Any:
            def ours(connection: G) -> None:
                connection.name = name
                connection.listen(self.opened)
                made(connection)

            return self.connect_to(name, gateway, ours)

        keeper = self._keepers[name] = Keeper(
            name, connect, lambda: self.changes.callback(self.up), self._backoff, self._loop
        )
        keeper.start()


def _same(one: Any, other: Any) -> bool:
    """They stand for one address, as far as they tell."""
    if one is other or one == other:
        return True
    return type(one) is type(other) and getattr(one, "__dict__", 0) == getattr(
        other, "__dict__", 1
    )

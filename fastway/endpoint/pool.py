"""Many gateways: a game server on all of them, a client on one of them.

Rule: which gateways there are is somebody else's to know; this module keeps connections to those
it is told of, reconnecting with backoff and jitter, and hands out what comes over them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    ensureDeferred,
    fail,
    maybeDeferred,
    succeed,
)
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.causes import cause_of
from fastway.endpoint.connection import (
    Acceptor,
    Endpoint,
    EndpointConfig,
    VirtualConnection,
    Waiters,
    connect_client,
    connect_server,
    the_reactor,
)
from fastway.errors import DialTimeout, EndpointEnded, GatewayDown
from fastway.logs import make_logger

log = make_logger(__name__)

FIRST_DELAY = 0.5
MAX_DELAY = 30.0
"""Seconds before the first and, in the end, every further attempt to reach a gateway again."""

Backoff = Callable[[int], float]

AnyResult = TypeVar("AnyResult")


def default_backoff() -> Backoff:
    """Half a second, growing by half up to 15 s, each made up to twice as long by chance.

    The chance keeps a thousand servers from coming back in the same instant.
    """
    policy = backoffPolicy(FIRST_DELAY, MAX_DELAY / 2, 1.5, jitter=lambda: 0.0)
    return lambda attempts: float(policy(attempts)) * (1 + random.random())


class Keeper:
    """Keeps one endpoint up: connects, waits for its end, waits a while, connects again.

    Not a ClientService: that one calls a connection made before the gateway has taken the login,
    so a wrong key would never back off.

    Args:
        name: The gateway's, for the log.
        connect: Connects; fires when the endpoint is ready. Its argument is to be called with
            the endpoint as soon as there is one.
        changed: Called when `endpoint` comes or goes.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[Callable[[Endpoint], None]], Deferred[Endpoint]],
        changed: Callable[[], None],
        backoff: Backoff,
        clock: IReactorTime,
    ) -> None:
        self.endpoint: Endpoint | None = None
        self.failures = 0
        """Attempts that failed since the last that did not."""
        self.problem: Exception | None = None
        """Why the last attempt failed, if it did."""
        self._name = name
        self._connect = connect
        self._changed = changed
        self._backoff = backoff
        self._clock = clock
        self._run: object = None
        """What the run that is not stopped is known by."""
        self._waiting: Deferred[Any] | None = None
        self._gone: Deferred[Any] = succeed(None)

    def start(self) -> None:
        self._run = run = object()
        ensureDeferred(self._keep(run))

    def stop(self) -> Deferred[Any]:
        """Fires when the connection is gone."""
        # It may be called from within `changed`: then nothing waits, and the run ends by itself.
        self._run = None
        if self._waiting is not None:
            self._waiting.cancel()
        self._down("left")
        return self._gone

    async def _keep(self, run: object) -> None:
        try:
            while self._run is run:
                await self._once(run)
                if self._run is run:
                    pause = self._backoff(self.failures)
                    await self._wait(deferLater(self._clock, pause, lambda: None))
        except CancelledError:
            pass

    async def _wait(self, deferred: Deferred[AnyResult]) -> AnyResult:
        self._waiting = deferred
        try:
            return await deferred
        finally:
            if self._waiting is deferred:
                self._waiting = None

    def _made(self, endpoint: Endpoint) -> None:
        self._gone = endpoint.when_gone()

    async def _once(self, run: object) -> None:
        try:
            endpoint = await self._wait(self._connect(self._made))
        except CancelledError:
            raise
        except Exception as error:
            if self._run is not run:  # a cancelled attempt fails as its endpoint likes
                return
            self.failures += 1
            self.problem = error
            log.warn("gateway {name}: {problem}", name=self._name, problem=cause_of(error))
            self._changed()
            return
        self.failures = 0
        self.problem = None
        self.endpoint = endpoint
        log.info("gateway {name} is up", name=self._name)
        self._changed()
        if self._run is run:
            reason = await self._wait(cast("Deferred[object]", endpoint.when_closed()))
            self._down(str(reason))

    def _down(self, reason: str) -> None:
        endpoint, self.endpoint = self.endpoint, None
        if endpoint is not None:
            log.info("gateway {name} is down: {reason}", name=self._name, reason=reason)
            endpoint.close()
            self._changed()


class GatewayPool(Service, Acceptor):
    """One game server's connections to every gateway.

    Args:
        gateways: name -> Twisted client endpoint of a gateway's server port.
        server_id: This game server's id, the same at all gateways.
        key: The server key.
        config: How each endpoint behaves.
        clock: The reactor.
        backoff: Failed attempts since the last success -> seconds until the next.
    """

    def __init__(
        self,
        gateways: Mapping[str, IStreamClientEndpoint],
        server_id: int,
        key: bytes = b"",
        config: EndpointConfig | None = None,
        clock: IReactorTime | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.server_id = server_id
        self.config = EndpointConfig() if config is None else config
        Acceptor.__init__(self, self.config.accept_queue)
        self._key = key
        self._clock = the_reactor() if clock is None else clock
        self._backoff = default_backoff() if backoff is None else backoff
        self._wanted: dict[str, IStreamClientEndpoint] = dict(gateways)
        self._keepers: dict[str, Keeper] = {}
        self._changes = Waiters()

    # The gateways.

    @property
    def gateways(self) -> list[str]:
        """The names of all gateways that it should be connected to."""
        return list(self._wanted)

    @property
    def up(self) -> dict[str, Endpoint]:
        """name -> endpoint of the gateways that it is logged in to now."""
        return {
            name: keeper.endpoint
            for name, keeper in self._keepers.items()
            if keeper.endpoint is not None
        }

    @property
    def problems(self) -> dict[str, Exception]:
        """name -> why the last attempt failed, of the gateways where it did."""
        return {
            name: keeper.problem
            for name, keeper in self._keepers.items()
            if keeper.problem is not None
        }

    def set_gateways(self, gateways: Mapping[str, IStreamClientEndpoint]) -> None:
        """Replace the list: new names are connected to, missing ones are left, others stay."""
        for name in [name for name in self._wanted if name not in gateways]:
            self.remove(name)
        for name, gateway in gateways.items():
            if name not in self._wanted:
                self.add(name, gateway)

    def add(self, name: str, gateway: IStreamClientEndpoint) -> None:
        """Connect to one more gateway.

        Raises:
            ValueError: there is one of that name.
        """
        if name in self._wanted:
            raise ValueError(f"gateway {name!r} is in the pool already")
        self._wanted[name] = gateway
        if self.running:
            self._keep(name)

    def remove(self, name: str) -> Deferred[Any]:
        """Leave a gateway; fires when the connection is gone.

        Raises:
            KeyError: there is none of that name.
        """
        del self._wanted[name]
        keeper = self._keepers.pop(name, None)
        return succeed(None) if keeper is None else keeper.stop()

    def when_changed(self) -> Deferred[dict[str, Endpoint]]:
        """Fires with `up` the next time that a gateway comes or goes.

        Fails with EndpointEnded when the pool is stopped.
        """
        if self._no_more is not None:
            return fail(self._no_more)
        return cast("Deferred[dict[str, Endpoint]]", self._changes.wait())

    async def when_up(self, count: int = 1) -> dict[str, Endpoint]:
        """Wait until at least `count` gateways are up; raises as `when_changed` fails."""
        while len(self.up) < count:
            await self.when_changed()
        return self.up

    # Virtual connections.

    def dial(
        self, gateway: str, client_id: int, timeout: float | None = None
    ) -> Deferred[VirtualConnection]:
        """Dial a client of one gateway: client ids are each gateway's own.

        Fails with GatewayDown when that one is not up, and as Endpoint.dial does.
        """
        endpoint = self.up.get(gateway)
        if endpoint is None:
            return fail(GatewayDown(gateway))
        return endpoint.dial(client_id, timeout)

    # IService

    def startService(self) -> None:
        super().startService()
        self._no_more = None
        for name in self._wanted:
            self._keep(name)

    def stopService(self) -> Deferred[Any]:
        """Leave all gateways; fires when all connections are gone."""
        super().stopService()
        ended = EndpointEnded("the pool is stopped")
        keepers, self._keepers = self._keepers, {}
        stopping = [keeper.stop() for keeper in keepers.values()]
        self._end_accepting(ended)
        self._changes.errback(ended)
        return DeferredList(stopping)

    # Inside.

    def _keep(self, name: str) -> None:
        gateway = self._wanted[name]

        def connect(made: Callable[[Endpoint], None]) -> Deferred[Endpoint]:
            def ours(endpoint: Endpoint) -> None:
                endpoint.name = name
                endpoint.listen(self._to_accept)
                made(endpoint)

            return connect_server(
                gateway, self.server_id, self._key, self.config, self._clock, ours
            )

        keeper = self._keepers[name] = Keeper(
            name,
            connect,
            lambda: self._changes.callback(self.up),
            self._backoff,
            self._clock,
        )
        keeper.start()


@implementer(IStreamClientEndpoint)
class AnyOf:
    """Connects to one of several endpoints, tried in random order until one answers."""

    def __init__(self, endpoints: Iterable[IStreamClientEndpoint]) -> None:
        self.endpoints = list(endpoints)
        """May be changed at any time; the next `connect` looks at it anew."""

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the first that answers; fails as the last one did."""
        left = random.sample(self.endpoints, len(self.endpoints))
        if not left:
            return fail(GatewayDown("any"))

        def attempt() -> Deferred[IProtocol]:
            return maybeDeferred(left.pop().connect, factory).addErrback(next_one)

        def next_one(failure: Failure) -> Any:
            return attempt() if left else failure

        return attempt()


class GatewayClient(Service):
    """A client that keeps one connection to one of several gateways, and fails over.

    Virtual connections end with the gateway that they run over: dial anew.

    Args:
        gateways: Twisted client endpoints of the gateways' client ports.
        backoff: Failed attempts over the whole list since the last success -> seconds.
    """

    def __init__(
        self,
        gateways: Iterable[IStreamClientEndpoint],
        config: EndpointConfig | None = None,
        clock: IReactorTime | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.any_of = AnyOf(gateways)
        self._clock = the_reactor() if clock is None else clock
        self._changes = Waiters()
        self._ended: EndpointEnded | None = None
        self._keeper = Keeper(
            "any",
            lambda made: connect_client(self.any_of, config, self._clock, made),
            lambda: self._changes.callback(None),
            default_backoff() if backoff is None else backoff,
            self._clock,
        )

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint that is up now."""
        return self._keeper.endpoint

    def startService(self) -> None:
        super().startService()
        self._ended = None
        self._keeper.start()

    def stopService(self) -> Deferred[Any]:
        """End the connection; fires when it is gone."""
        super().stopService()
        ended = self._ended = EndpointEnded("the client is stopped")
        stopping = self._keeper.stop()
        self._changes.errback(ended)
        return stopping

    def when_connected(self, attempts: int | None = None) -> Deferred[Endpoint]:
        """Fires with the endpoint as soon as there is one.

        Args:
            attempts: Fail with GatewayDown after this many failed attempts over the whole list;
                None: never.
        """
        return ensureDeferred(self._when_connected(attempts))

    async def _when_connected(self, attempts: int | None) -> Endpoint:
        before = self._keeper.failures
        while self.endpoint is None:
            if self._ended is not None:
                raise self._ended
            if attempts is not None and self._keeper.failures - before >= attempts:
                raise GatewayDown("any")
            await self._changes.wait()
        return self.endpoint

    def dial(self, remote_id: int, timeout: float | None = None) -> Deferred[VirtualConnection]:
        """Dial a server over whichever gateway is connected, waiting for one if none is.

        Args:
            timeout: Seconds for both together; then it fails with DialTimeout.
        """
        dialling = ensureDeferred(self._dial(remote_id))
        if timeout is not None:

            def too_late(_: Any, seconds: float) -> Any:
                raise DialTimeout(remote_id, seconds)

            dialling.addTimeout(timeout, self._clock, too_late)
        return dialling

    async def _dial(self, remote_id: int) -> VirtualConnection:
        endpoint = await self.when_connected()
        return await endpoint.dial(remote_id)

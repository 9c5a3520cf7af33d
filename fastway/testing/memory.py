"""A gateway without sockets, whose time is a clock that the test turns.

Rule: it is the real router with the real lanes of `fastway.gateway.stream`; only what is below
them, the network and the time, is the test's. The same calls give the same result, always.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fastway.assemble import make_router_service
from fastway.config.settings import WebSocketPortSettings
from fastway.errors import ConfigError
from fastway.gateway import RouterService
from fastway.snet import SnetClientEndpoint
from fastway.testing.network import ROOM, MemoryConnection, MemoryEndpoint, MemoryLink, Network
from fastway.testing.options import HOST, GatewayOptions, snet_config
from fastway.websocket.client import WebSocket
from fastway.websocket.dial import WebSocketClientEndpoint

T = TypeVar("T")

STEP = 0.25
"""Seconds that the clock is turned at once: over a second the gateway takes for a process that was
stopped, in which nobody is called idle."""

TURNS = 1_000_000
"""Turns of the network after which it does not become quiet any more."""

CLIENT_PORT, SERVER_PORT, WEB_PORT = 9010, 9020, 9080
"""What the transports give for the numbers of its ports."""


class MemoryGateway:
    """A gateway in memory, started. `with MemoryGateway() as gateway:` stops it at the end.

    Nothing happens unless the test lets it: `pump` for what needs no time, `advance` for what
    does, `run` for a coroutine or a Deferred.

    Args:
        clock: Its time, to be given to endpoints and pools as their `clock` too; None: one of
            its own.
        key: What game servers prove to hold.
        snet: Speak snet on the client port.
        ws: Have a port for web pages too, by WebSocket.
        room: Bytes that a link holds on their way, in each direction.
        options: Options of the gateway: see `docs/testing.md`. Those of its log, its files and
            its commands have no effect here.

    Raises:
        ConfigError: an option cannot be used.

    Attributes:
        client: Where clients connect, a Twisted client endpoint; it speaks snet if the port does.
        server: Where game servers connect.
        web: Where clients connect by WebSocket, with snet inside of it if that port speaks it;
            None without such a port.
        key: The key, as `connect_server` takes it.
        service: The gateway's inside, for those who know it; it has no stable interface.
    """

    service: RouterService

    def __init__(
        self,
        clock: Clock | None = None,
        key: str | bytes = "secret",
        *,
        snet: bool = False,
        ws: bool = False,
        room: int = ROOM,
        **options: object,
    ) -> None:
        # The native path has sockets of its own.
        self._options = GatewayOptions(key, snet, ws, {"relay": "off", **options})
        settings = self._options.settings
        if settings.relay.mode == "on":
            raise ConfigError("relay", "without sockets packets take the path of Python")
        if settings.direct:
            where = settings.direct[0].where("address")
            raise ConfigError(where, "without sockets there is no direct port")
        for web in settings.websockets:
            if web.tls is not None:
                where = web.where("address")
                raise ConfigError(where, "without sockets there is no TLS; give client_ws_addr")
        self.key = self._options.key
        self.clock = Clock() if clock is None else clock
        self._network = Network(self.clock, room)
        self._ports = [
            MemoryEndpoint(self._network, IPv4Address("TCP", HOST, number))
            for number in (CLIENT_PORT, SERVER_PORT, *range(WEB_PORT, WEB_PORT + 9))[
                : len(settings.ports)
            ]
        ]
        self._ways: list[IStreamClientEndpoint] = []
        for port, endpoint in zip(settings.ports, self._ports, strict=True):
            way: Any = endpoint
            if isinstance(port, WebSocketPortSettings):
                host, wanted = f"{HOST}:{WEB_PORT}", WebSocket(port.path)
                way = WebSocketClientEndpoint(way, self.clock, host, wanted)
            if port.snet is not None:
                way = SnetClientEndpoint(way, self.clock, snet_config(port.snet))
            self._ways.append(way)
        self.client, self.server = self._ways[:2]
        self.web = next(iter(self._ways[2:]), None)
        self._running = False
        self.start()

    # Time.

    def pump(self) -> None:
        """Let everything happen that needs no time, until all is quiet.

        Raises:
            AssertionError: it never is: two ends go on answering each other.
        """
        self.advance(0)

    def advance(self, seconds: float) -> None:
        """Let time pass, in small steps, and everything happen in it.

        Raises:
            AssertionError: as `pump`.
        """
        clock, network = self.clock, self._network
        end = clock.seconds() + seconds
        step = 0.0
        while True:
            with network.bounded(TURNS):
                clock.advance(step)
            step = min(STEP, end - clock.seconds())
            if step <= 0:
                return

    def run(
        self, waiting: Deferred[T] | Coroutine[Deferred[Any], Any, T], seconds: float = 0
    ) -> T:
        """The result of a Deferred or a coroutine, with all that has to happen for it.

        Args:
            seconds: How much time may pass for it, at most; as little as it needs does.

        Raises:
            AssertionError: it has none by then. What it fails with is raised as it is.
        """
        if not isinstance(waiting, Deferred):
            waiting = Deferred.fromCoroutine(waiting)
        results: list[T | Failure] = []
        waiting.addBoth(results.append)
        end = self.clock.seconds() + seconds
        self.pump()
        while not results and self.clock.seconds() < end:
            self.advance(min(STEP, end - self.clock.seconds()))
        if not results:
            waiting.cancel()
            raise AssertionError(f"it is not done after {seconds:g} s of the clock")
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result

    # What goes wrong.

    def links(self, of: object = None) -> list[MemoryLink]:
        """The connections of an endpoint, the oldest first.

        Args:
            of: `gateway.client`, `gateway.server` or `gateway.web`: all that were made through
                it; what `connect_client` or `connect_server` returned, a virtual connection on
                it, a protocol or its transport: the one that it is on; None: all.

        Raises:
            ValueError: it is nothing that has one here.
        """
        if of is None:
            return list(self._network.links)
        for way, port in zip(self._ways, self._ports, strict=True):
            if of is way or of is port:
                return port.links
        transport = _transport_of(of)
        return [one for one in self._network.links if transport in (one.near, one.far)]

    def cut(self, of: object = None) -> None:
        """Break connections: both ends lose them, and what was on its way. See `links`."""
        for link in self.links(of):
            link.cut()

    def stall(self, of: object = None) -> None:
        """Let nothing arrive over connections, in neither direction, until `resume`: a network
        that is silent. See `links`."""
        for link in self.links(of):
            link.stall()

    def resume(self, of: object = None) -> None:
        """Let all arrive that was sent over connections meanwhile. See `links`."""
        for link in self.links(of):
            link.resume()

    # Start and stop.

    def start(self) -> None:
        """Start it again after `stop`: a new gateway, which knows nobody."""
        if self._running:
            return
        self._running = True
        self.service = make_router_service(self._options.settings, self.clock)
        for port, endpoint in zip(self.service.ports, self._ports, strict=True):
            port.outermost.doStart()
            endpoint.factory = port.outermost
        self.service.startService()

    def stop(self) -> None:
        """Stop it in good order: nobody can connect, and all connections end; no time passes."""
        if not self._running:
            return
        self._running = False
        for endpoint in self._ports:
            factory, endpoint.factory = endpoint.factory, None
            if factory is not None:
                factory.doStop()
        stopped: list[object] = []
        maybeDeferred(self.service.stopService).addBoth(stopped.append)
        self.pump()
        if not stopped:
            self.service.abort()
            self.cut()
            self.pump()

    def __enter__(self) -> MemoryGateway:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


BELOW = ("transport", "conn", "link", "below", "carrier")
"""What those that stand on a transport call it, or what is between."""


def _transport_of(of: object) -> MemoryConnection | None:
    """The transport in memory below an endpoint, a virtual connection, a protocol; None: there is
    none now, as of a stream that is cut.

    Raises:
        ValueError: there never was.
    """
    one: Any = of
    for _ in range(8):
        if isinstance(one, MemoryConnection):
            return one
        below = [getattr(one, name, None) for name in BELOW]
        found = next((thing for thing in below if thing is not None), None)
        if found is None:
            break
        one = found
    if one is of:
        raise ValueError(f"{of!r} has no connection to a gateway in memory")
    return None

"""A port of the gateway: an address, the layers between its connections and its links, a factory.

Rule: there are any number of them, of either side; one is listed in `RouterService.ports` and
nowhere else is it known how many. A new kind of port is an entry where the service makes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence, Sized
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
)
from twisted.python.failure import Failure

from fastway.address import Address, address_name
from fastway.gateway.bounds import ACCEPTS
from fastway.gateway.gate import Door, DoorSocket
from fastway.gateway.limits import Entry, LimitValues
from fastway.logs import make_logger
from fastway.relay import PoolConfig, Totals
from fastway.router import Side
from fastway.watched import Readable

log = make_logger("fastway.gateway")


def those_of(port: str) -> str:
    """The links of a port of that name: `web clients`, `direct web`."""
    return port if port.startswith("direct ") else f"{port}s"


class Layer(NamedTuple):
    """What stands between the connections of a port and its links.

    Attributes:
        name: What operators call it.
        wrap: Makes the factory of the connections from that of what runs inside them; None: the
            port's own factory speaks it, on any lane.
        given: The option that asked for it, as the operator wrote it.
        watched: What it is made of, if that may change while the gateway runs.
        native: The native core can have the connections too.
        figured: What has its figures, where that is not the factory.
    """

    name: str
    wrap: Callable[[IProtocolFactory], Any] | None
    given: str = ""
    watched: Readable | None = None
    native: bool = False
    figured: Any = None


class LightServer(tcp.Server):
    """Twisted writes two names of each connection down; here they are made when asked for."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Set by the first write. Attributes that come when many connections are there already
        # would cost each of all that follow a dict of its own (CPython 3.11), 600 bytes.
        self.dataBuffer = b""
        self.offset = 0
        self._admitted = cast(CalmPort, self.server).take_over()

    @property
    def repstr(self) -> str:
        return f"<connection #{self.sessionno} from {self.hostname}>"

    @repstr.setter
    def repstr(self, _: str) -> None:
        """Not kept."""

    @property
    def logstr(self) -> str:
        return self.logPrefix()

    @logstr.setter
    def logstr(self, _: str) -> None:
        """Not kept."""

    def logPrefix(self) -> str:
        return "connection"  # asked at every event

    def connectionLost(self, reason: Failure) -> None:
        if self.disconnected:
            return  # its end waits already
        # From now on nothing is written to it, nor read.
        self.connected, self.disconnected = 0, 1
        port = cast(CalmPort, self.server)
        if port.door is not None:
            port.door.gate.leave(self._admitted)
        port.ends.add(partial(super().connectionLost, reason))

    def readConnectionLost(self, reason: Failure) -> None:
        cast(CalmPort, self.server).ends.add(partial(super().readConnectionLost, reason))


class Ends:
    """Ends of connections: a crowd that breaks at once is let go in slices.

    Twisted hears of all of them in one turn of the reactor, and each costs some 30 µs.
    """

    SLICE = 64
    """Ends in one turn,"""
    SECONDS = 0.005
    """for which so much time is taken."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._began = float("-inf")
        self._room = 0
        self._waiting: deque[Callable[[], object]] = deque()
        self._turn: IDelayedCall | None = None

    def add(self, end: Callable[[], object]) -> None:
        """End one at once, or as soon as those before it are."""
        now = self._clock.seconds()
        if not 0 <= now - self._began < self.SECONDS:
            self._began, self._room = now, self.SLICE
        if self._room > 0 and self._turn is None:
            self._room -= 1
            end()
            return
        self._waiting.append(end)
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        try:
            for _ in range(min(self.SLICE, len(self._waiting))):
                self._waiting.popleft()()
        finally:
            self._turn = self._clock.callLater(0, self._go_on) if self._waiting else None


class CalmPort(tcp.Port):
    """Twisted's port accepts ever more in one turn; here those who are in come first.

    Attributes:
        ends: Those of its connections.
    """

    transport = cast(Any, LightServer)
    ends: Ends
    door: Door | None = None

    @property
    def numberAccepts(self) -> int:
        return ACCEPTS

    @numberAccepts.setter
    def numberAccepts(self, _: int) -> None:
        """However many came."""

    @classmethod
    def adopt(
        cls, reactor: Any, fd: int, family: int, factory: Any, door: Door | None = None
    ) -> CalmPort:
        """Listen with a bound, listening socket, of which a duplicate is taken.

        Args:
            door: Who may come in; None: everybody, or the factory asks by itself.
        """
        port = cast(
            CalmPort, cls._fromListeningDescriptor(reactor, fd, cast(Any, family), factory)
        )
        port.ends = Ends(reactor)
        port.startListening()
        port.socket.setblocking(False)
        if door is not None:
            port.door = door
            port.socket = DoorSocket(port.socket, door)
            port.fileno = port.socket.fileno  # type: ignore[method-assign]
            door.listening = port
            door.at_accept = True
        return port

    def doRead(self) -> None:
        super().doRead()
        if self.door is not None:
            cast(DoorSocket, self.socket).give_back()

    def take_over(self) -> Entry | None:
        """What the door gave for the connection that is made now."""
        return cast(DoorSocket, self.socket).take_over() if self.door is not None else None

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if self.door is not None:
            self.door.close()


class PortFactory(Protocol):
    """What makes a port's links (`factories.GatewayFactory`)."""

    side: Side
    links: int
    door: Door

    @property
    def handshakes(self) -> Sized: ...

    def set_limits(self, values: LimitValues) -> None:
        """What its links may do from now on."""


class Native(Protocol):
    """What carries links of plain TCP in place of the reactor (`native.NativeCore`)."""

    pool: PoolConfig
    core: Any

    def totals(self) -> Totals:
        """What it has counted in all."""

    def stop(self) -> None:
        """All links are gone."""

    def listen(self, fd: int, family: int, factory: Any, tls: Any) -> Any:
        """A port for a bound, listening socket; `tls`: its layer's factory, None: it has none."""

    def set_rates(self, factory: Any) -> None:
        """The rates of a port's links have changed."""


class Port:
    """One port.

    Args:
        name: What operators call it: `client`, `server`.
        address: Where it listens.
        factory: Makes its links.
        layers: Its layers, the innermost first.
        reuse_port: Other processes may listen there too.

    Attributes:
        layers: Its layers, that of an `snet:...` address too.
        wrapped: What has their figures: mostly their factories; that of a layer without one is the
            port's.
        outermost: The factory of its connections.
        listening: Twisted's port, while it is open.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        factory: PortFactory,
        layers: Sequence[Layer] = (),
        reuse_port: bool = False,
    ) -> None:
        self.name = name
        self.address = address
        self.factory = factory
        self.reuse_port = reuse_port
        self.layers = list(layers)
        self.wrapped: list[Any] = []
        self.listening: IListeningPort | None = None
        self.outermost: IProtocolFactory = cast(IProtocolFactory, factory)
        for layer in self.layers:
            if layer.wrap is not None:
                self.outermost = layer.wrap(self.outermost)
            self.wrapped.append(layer.figured or self.outermost)
        self._opening: Deferred[Any] | None = None

    @property
    def plain(self) -> bool:
        """Its links are TCP connections with nothing in between, or only what the native core
        speaks: it can have them."""
        return self.address.is_tcp and all(
            layer.wrap is None or layer.native for layer in self.layers
        )

    def layer(self, name: str) -> Any:
        """The factory of a layer; None: it has none of that name."""
        pairs = zip(self.layers, self.wrapped, strict=True)
        return next((made for layer, made in pairs if layer.name == name), None)

    def open(self, reactor: Any, native: Native | None) -> Deferred[None]:
        """Listen. Fails with StartError or ConfigError; `close` cancels it."""
        door = self.factory.door
        given = self.address.host is None and self.address.text.startswith(("tls:", "ssl:"))
        door.tls = given or any(layer.name == "tls" for layer in self.layers)
        adopt: Any = partial(CalmPort.adopt, reactor, door=door)
        if native is not None and self.plain:
            tls = self.layer("tls")

            def adopt(fd: int, family: int, _: Any) -> Any:
                return native.listen(fd, family, self.factory, tls)

        opening = self.address.listen(reactor, self.outermost, self.reuse_port, adopt)
        self._opening = opening
        return opening.addCallback(self._opened)

    def _opened(self, listening: IListeningPort) -> None:
        self._opening = None
        self.listening = listening
        if hasattr(listening, "stopReading"):
            self.factory.door.listening = listening
        streams = getattr(listening, "snet", None)  # of an endpoint string `snet:...`
        if streams is not None:
            self.layers.append(Layer("snet", type(streams)))
            self.wrapped.append(streams)
        log.info(
            "{port} port listens on {at}{layers}",
            port=self.name,
            at=address_name(listening.getHost()),
            layers="".join(f", with {layer.name}" for layer in self.layers),
            given=self.address.text,
        )

    def close(self) -> Deferred[Any]:
        """Listen no more; links go on. Fires when the socket is closed."""
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        listening, self.listening = self.listening, None
        self.factory.door.close()
        if listening is None:
            return maybeDeferred(lambda: None)
        return maybeDeferred(listening.stopListening)

"""A nano cluster in memory: nodes with clocks of their own, which may freeze, die and come back.

Rule: nodes are the real ones; what is below them, the network and the time, is the test's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.app import App
from fastway.app.turn import Writes
from fastway.cluster.channel import Channel
from fastway.cluster.http2 import Turn
from fastway.cluster.members import MemberInfo
from fastway.cluster.messages import message_class
from fastway.cluster.server import Method, Server
from fastway.logs import Throttle
from fastway.testing.network import MemoryEndpoint, Network
from fastway.wheel import Wheel

T = TypeVar("T")

STEP = 0.1


class _Port:
    def __init__(self, town: Town, address: str) -> None:
        self._town = town
        self._address = address

    def getHost(self) -> IPv4Address:
        return _place(self._address)

    def stopListening(self) -> Deferred[None]:
        self._town.ports.pop(self._address, None)
        return succeed(None)


@implementer(IStreamServerEndpoint)
class Here:
    """Where a node listens."""

    def __init__(self, town: Town, address: str) -> None:
        self._town = town
        self._address = address

    def listen(self, factory: Any) -> Deferred[Any]:
        self._town.ports[self._address] = factory
        return succeed(_Port(self._town, self._address))


class Way(MemoryEndpoint):
    """The way from one node to another."""

    def __init__(self, town: Town, start: str, end: str) -> None:
        super().__init__(town.network, _place(end))
        self.start = start
        self.end = end
        self._town = town

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        self.factory = self._town.ports.get(self.end)
        return super().connect(protocolFactory)

    def _connect(self, factory: Any, connecting: Deferred[Any]) -> None:
        super()._connect(factory, connecting)
        if {self.start, self.end} & self._town.frozen.keys():
            for link in self.links:
                link.stall()


def _place(address: str) -> IPv4Address:
    host, _, port = address.rpartition(":")
    return IPv4Address("TCP", host, int(port))


class Town:
    """Where nodes live.

    Attributes:
        ports: Address -> who takes connections there.
        frozen: Addresses of nodes that do nothing -> since when.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.ports: dict[str, Any] = {}
        self.clocks: dict[str, Clock] = {}
        self.frozen: dict[str, float] = {}
        self._ways: list[Way] = []

    def way(self, start: str, end: str) -> Way:
        way = Way(self, start, end)
        self._ways.append(way)
        return way

    def node(
        self, kind: Callable[..., T], number: int, app: App | None = None, **settings: Any
    ) -> T:
        """A node, not joined: its address is 10.0.0.1:NUMBER, its App's clock its own."""
        address = f"10.0.0.1:{number}"
        clock = self.clocks[address] = Clock()
        clock.advance(self.clock.seconds())
        if app is None:
            app = App()
        app.use_clock(clock)
        return kind(
            app,
            Here(self, address),
            advertise=address,
            dial=lambda there: self.way(address, there),
            **{"heartbeat": 1.0, "deadline": 2.0, "retry": 1.0, **settings},
        )

    def peer(self, number: int, **answers: Any) -> Peer:
        """Who takes calls and makes some, and is no node: a Go member, as far as one sees."""
        return Peer(self, f"10.0.0.1:{number}", answers)

    def turn_of(self, address: str) -> Turn:
        clock = self.clocks.setdefault(address, Clock())
        return Turn(Wheel(clock), Writes(clock), Throttle(clock))

    # Time.

    def pump(self, turns: int = 12) -> None:
        """Let what needs no time happen."""
        for _ in range(turns):
            self._advance(0)

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        for _ in range(round(seconds / STEP)):
            self._advance(STEP)
            self.pump(6)

    def _advance(self, seconds: float) -> None:
        for address, clock in list(self.clocks.items()):
            if address not in self.frozen:
                clock.advance(seconds)
        self.clock.advance(seconds)

    def run(self, work: Deferred[T] | Coroutine[Any, Any, T], seconds: float = 20.0) -> T:
        """The result of what takes time, but not more than that."""
        results: list[Any] = []
        done = work if isinstance(work, Deferred) else ensureDeferred(work)
        done.addBoth(results.append)
        self.pump()
        while not results and seconds > 0:
            seconds -= STEP
            self.advance(STEP)
        if not results:
            raise AssertionError("it does not end")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]  # type: ignore[no-any-return]

    # What befalls nodes.

    def links(self, address: str) -> list[Any]:
        """All links of a node."""
        return [one for way in self._ways if address in (way.start, way.end) for one in way.links]

    def freeze(self, address: str) -> None:
        """It does nothing more, but its kernel still takes what it is sent."""
        self.frozen[address] = self.clock.seconds()
        for link in self.links(address):
            link.stall()

    def thaw(self, address: str) -> None:
        since = self.frozen.pop(address)
        for link in self.links(address):
            link.resume()
        self.clocks[address].advance(self.clock.seconds() - since)

    def kill(self, address: str) -> None:
        """It is gone at once."""
        self.ports.pop(address, None)
        del self.clocks[address]
        for link in self.links(address):
            link.cut()
        self.pump()


class Peer:
    """A peer that is no node.

    Attributes:
        heard: Calls that came: method and message.
        answers: Method -> what it does, in place of saying yes: bytes, a Deferred, or raises.
    """

    def __init__(self, town: Town, address: str, answers: dict[str, Any]) -> None:
        self.town = town
        self.address = address
        self.heard: list[tuple[str, bytes]] = []
        self.answers = answers
        self._turn = town.turn_of(address)
        self._channels: dict[str, Channel] = {}
        names = ("Register", "Unregister", "Heartbeat")
        methods = {f"/clusterpb.Master/{name}".encode(): self._method(name) for name in names}
        for name in (
            "HandleRequest",
            "HandleNotify",
            "HandlePush",
            "HandleResponse",
            "NewMember",
            "DelMember",
            "SessionClosed",
            "CloseSession",
        ):
            methods[f"/clusterpb.Member/{name}".encode()] = self._method(name)
        self.server = Server(methods, self._turn)
        town.ports[address] = self.server

    def _method(self, name: str) -> Method:
        def came(data: bytes, served: Any) -> Any:
            self.heard.append((name, data))
            answer = self.answers.get(name, b"")
            return answer(data) if callable(answer) else answer

        return came

    def call(self, there: str, method: str, message: bytes) -> Deferred[bytes]:
        """Call a node: `Member/HandleRequest`."""
        channel = self._channels.get(there)
        if channel is None:
            way = self.town.way(self.address, there)
            channel = self._channels[there] = Channel(there, way, self._turn, 2.0)
        return channel.call(f"/clusterpb.{method}".encode(), message)

    def told(self, method: str) -> list[bytes]:
        """Messages of the calls of a method."""
        return [data for name, data in self.heard if name == method]

    def ask(self, there: str, number: int, route: str, body: bytes, mid: int) -> bytes:
        """Hand on a request, or a notify if `mid` is 0, of the session of that number."""
        if mid:
            kind, method = "RequestMessage", "Member/HandleRequest"
        else:
            kind, method = "NotifyMessage", "Member/HandleNotify"
        call = made(kind, gateAddr=self.address, sessionId=number, route=route, data=body)
        if mid:
            call = made(
                kind, gateAddr=self.address, sessionId=number, id=mid, route=route, data=body
            )
        return self.town.run(self.call(there, method, call))

    def register(self, master: str, *services: str) -> list[str]:
        """Be a member: the addresses of those who were before."""
        info = MemberInfo("go", self.address, services).message()
        reply = self.town.run(
            self.call(master, "Master/Register", made("RegisterRequest", memberInfo=info))
        )
        return [one.serviceAddr for one in read("RegisterResponse", reply).members]


def made(kind: str, **fields: Any) -> bytes:
    """The bytes of a message."""
    data: bytes = message_class(kind)(**fields).SerializeToString()
    return data


def read(kind: str, data: bytes) -> Any:
    """The message in bytes."""
    return message_class(kind).FromString(data)

"""A proxy on real sockets that cuts what it carries, and a client of snet that is a script.

Rule: neither tells snet anything that a network would not.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.support.snet_golden import Script
from tests.support.sockets import Peer
from tests.support.waits import SECONDS, reactor, until


@implementer(IHalfCloseableProtocol)
class Far(Protocol):
    """The proxy's connection to its target."""

    def __init__(self, near: Near) -> None:
        self.near = near

    def connectionMade(self) -> None:
        self.near.far = self
        if self.near.ended:
            cast(Any, self.transport).abortConnection()
            return
        held, self.near.held = self.near.held, b""
        cast(Any, self.transport).write(held)

    def dataReceived(self, data: bytes) -> None:
        if not self.near.frozen:
            cast(Any, self.near.transport).write(data)

    def readConnectionLost(self) -> None:
        if not self.near.frozen:
            cast(Any, self.transport).loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.near.far = None
        if not self.near.ended:
            cast(Any, self.near.transport).loseConnection()


class Near(Protocol):
    """A connection to the proxy.

    Attributes:
        frozen: Nothing goes on over it, but nobody is told: a phone that changed networks.
    """

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.far: Far | None = None
        self.held = b""
        self.frozen = False
        self.ended = False

    def connectionMade(self) -> None:
        self.proxy.total += 1
        self.proxy.pairs.append(self)
        factory = Factory.forProtocol(cast(Any, lambda: Far(self)))
        factory.noisy = False
        connecting = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.target).connect(factory)
        connecting.addErrback(lambda _: cast(Any, self.transport).abortConnection())

    def dataReceived(self, data: bytes) -> None:
        if self.frozen:
            return
        if self.far is None:
            self.held += data
        else:
            cast(Any, self.far.transport).write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = True
        if self in self.proxy.pairs:
            self.proxy.pairs.remove(self)
        if self.far is not None and not self.frozen:
            cast(Any, self.far.transport).abortConnection()


class Nears(Factory):
    noisy = False

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def buildProtocol(self, addr: Any) -> Near | None:
        return None if self.proxy.down else Near(self.proxy)


class Proxy:
    """Carries TCP connections to a port of 127.0.0.1, and cuts them when told to.

    `stop` must be among the test's cleanups.

    Attributes:
        pairs: The connections that are there, the newest last.
        total: Connections so far.
        down: It takes no connection: closes each at once.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.pairs: list[Near] = []
        self.frozen: list[Near] = []
        self.total = 0
        self.down = False
        factory = Nears(self)
        self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")

    @property
    def port(self) -> int:
        return cast(int, self._port.getHost().port)

    def cut(self, how: int = 0) -> None:
        """Cut all that it carries: 0, both ends by a reset; 1, the near one by a FIN; 2, the far
        one by a reset and the near one by a FIN."""
        for near in list(self.pairs):
            if how % 3 == 0:
                cast(Any, near.transport).abortConnection()
            elif how % 3 == 1 or near.far is None:
                cast(Any, near.transport).loseConnection()
            else:
                cast(Any, near.far.transport).abortConnection()

    def freeze(self) -> None:
        """What it carries now goes nowhere from now on, and no end is told."""
        for near in self.pairs:
            near.frozen = True
            self.frozen.append(near)

    async def stop(self) -> None:
        await maybeDeferred(self._port.stopListening)
        for near in [*self.pairs, *self.frozen]:
            if near.far is not None:
                cast(Any, near.far.transport).abortConnection()
            if not near.ended:
                cast(Any, near.transport).abortConnection()
        await until("the proxy's end", lambda: not self.pairs, SECONDS)


class RawClient(Peer):
    """A client of the listening side over a real socket, that says what the test tells it to."""

    def __init__(self) -> None:
        super().__init__()
        self.script = Script()

    async def new(self) -> Script:
        """Shake hands for a new stream."""
        self.send(self.script.hello())
        self.send(self.script.accept(await self.read(24)))
        return self.script

    async def ask(self, script: Script, **counts: int) -> bytes:
        """Ask for a resume: the answer."""
        self.script = script
        self.send(script.claim(**counts))
        return await self.read(24)

    async def resume(self, script: Script) -> None:
        """Come back, and send again what the other side lacks."""
        answer = await self.ask(script)
        read = int.from_bytes(answer[8:16], "little")
        self.send(script.prove(answer[16:]) + bytes(script.wrote[read:]))

    async def take(self, size: int) -> bytes:
        """So many bytes of the stream."""
        return self.script.take(await self.read(size))


async def raw_client(port: int) -> RawClient:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    factory = Factory.forProtocol(RawClient)
    factory.noisy = False
    return cast(RawClient, await endpoint.connect(factory))

"""A gateway inside the example's own process, on free ports of 127.0.0.1.

It keeps the examples short. A real one runs by itself: `fastway --help`. Run as a program it
prints its two addresses, and ends when its standard input does.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.python.failure import Failure

from fastway.gateway import ClientFactory, RouterService, ServerFactory
from fastway.snet import SnetFactory

KEY = b"secret"


class LocalGateway:
    """`async with LocalGateway(reactor) as gateway:` runs one until the end of the block.

    Args:
        snet: Speak snet on the client port.

    Attributes:
        client: Where clients connect, a Twisted client endpoint.
        server: Where game servers connect.
        server_port: The number of that port.
    """

    def __init__(self, reactor: Any, snet: bool = False) -> None:
        self.reactor = reactor
        self.snet = snet
        self.client_port = 0
        self.server_port = 0

    def start(self) -> None:
        """A second start takes the same ports."""
        self.service = RouterService(self.reactor)
        self.service.startService()
        listen = self.reactor.listenTCP
        factory: Any = ClientFactory(self.service)
        if self.snet:
            factory = SnetFactory(factory, self.reactor)
        clients = listen(self.client_port, factory, interface="127.0.0.1")
        servers = listen(self.server_port, ServerFactory(self.service, KEY), interface="127.0.0.1")
        self.ports = [clients, servers]
        self.client_port, self.server_port = [port.getHost().port for port in self.ports]
        self.client = HostnameEndpoint(self.reactor, "127.0.0.1", self.client_port)
        self.server = HostnameEndpoint(self.reactor, "127.0.0.1", self.server_port)

    async def stop(self) -> None:
        """All its connections end."""
        for port in self.ports:
            await maybeDeferred(port.stopListening)
        await maybeDeferred(self.service.stopService)

    async def __aenter__(self) -> LocalGateway:
        self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()


class UntilTheEnd(Protocol):
    """Standard input, which nobody reads."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)


async def main(reactor: Any) -> None:
    async with LocalGateway(reactor) as gateway:
        print(f"127.0.0.1:{gateway.client_port} 127.0.0.1:{gateway.server_port}", flush=True)
        until_the_end = UntilTheEnd()
        StandardIO(until_the_end)
        await until_the_end.ended


if __name__ == "__main__":
    react(main)

"""Clients of other protocols behind a gateway: a web site and a line protocol, by direct ports.

Neither the servers nor their clients know of fastway: the servers are Twisted factories that
listen on an endpoint string, the clients connect to plain ports.

python examples/direct_port.py
"""

from __future__ import annotations

import warnings
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater, react
from twisted.protocols.basic import LineReceiver
from twisted.web.client import Agent, ResponseNeverReceived, readBody
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from fastway.testing import LocalGateway

SITE_ID, STORE_ID = 80, 79


class Page(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return b"you asked for " + request.path


class Store(LineReceiver):
    """SET name value, GET name, QUIT; it speaks first."""

    values: dict[bytes, bytes] = {}  # noqa: RUF012  one for all connections

    def connectionMade(self) -> None:
        self.sendLine(b"ready")

    def lineReceived(self, line: bytes) -> None:
        command, *rest = line.split()
        if command == b"SET":
            self.values[rest[0]] = rest[1]
            self.sendLine(b"ok")
        elif command == b"GET":
            self.sendLine(self.values.get(rest[0], b"none"))
        else:
            cast(Any, self.transport).loseConnection()


class Asks(LineReceiver):
    """Says some lines, one for each that it hears."""

    def __init__(self) -> None:
        self.lines = [b"SET lamp on", b"GET lamp", b"GET door", b"QUIT"]
        self.heard = False
        self.ended: Deferred[None] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        self.heard = True
        print(f"store: {line.decode()}")
        self.sendLine(self.lines.pop(0))

    def connectionLost(self, *_: object) -> None:
        self.ended.callback(None)


async def main(reactor: Any) -> None:
    direct = [f"web=127.0.0.1:0->{SITE_ID}", f"store=127.0.0.1:0->{STORE_ID}"]
    async with LocalGateway(reactor, key="secret", direct=",".join(direct)) as gateway:
        ports = []
        servers = {SITE_ID: Site(Page()), STORE_ID: Factory.forProtocol(Store)}
        for server_id, factory in servers.items():
            where = quoteStringArgument(gateway.server_string)
            server = serverFromString(reactor, f"fastway:{where}:id={server_id}:key=secret")
            ports.append(await server.listen(factory))

        url = f"http://127.0.0.1:{gateway.direct_ports['web']}/index.html".encode()
        agent = Agent(reactor)
        while True:
            try:
                response = await agent.request(b"GET", url)
                break
            except ResponseNeverReceived:  # `listen` does not wait for the login
                await deferLater(reactor, 0.05)
        print(f"{response.code}: {(await readBody(response)).decode()}")

        store = TCP4ClientEndpoint(reactor, "127.0.0.1", gateway.direct_ports["store"])
        heard = False
        while not heard:
            asks = cast(Asks, await store.connect(Factory.forProtocol(Asks)))
            await asks.ended
            heard = asks.heard
        for port in ports:
            await port.stopListening()


if __name__ == "__main__":
    # Twisted's readBody warns so over plain TCP too.
    warnings.filterwarnings("ignore", "Using readBody with a transport")
    react(main)

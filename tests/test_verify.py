"""Certificates without a name, which Twisted takes for any server."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from fastway.endpoint import connect_client, connect_server
from fastway.errors import EndpointEnded, UnnamedCertificate
from fastway.snet import SnetClientEndpoint
from fastway.snet.session import HandshakeFailed
from tests.support.files import scratch
from tests.support.tls import Made, make
from tests.support.waits import SECONDS, reactor, until


class Heard(Protocol):
    """A server that hears what comes, and says nothing."""

    def __init__(self, heard: bytearray) -> None:
        self.heard = heard
        self.lost = Deferred[None]()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


class VerifyTests(TestCase):
    def serve(self, made: Made) -> str:
        """The endpoint string of a server that shows a certificate, which is trusted."""
        self.heard = bytearray()
        self.servers: list[Heard] = []

        def build() -> Heard:
            self.servers.append(Heard(self.heard))
            return self.servers[-1]

        directory = scratch(self)
        made.save(directory)
        options = made.private.options()
        port = reactor.listenSSL(0, Factory.forProtocol(build), options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"tls:localhost:{port.getHost().port}:trustRoots={directory}"

    async def gone(self) -> None:
        for server in self.servers:
            await server.lost

    async def test_client(self) -> None:
        """A client ends, with the reason, and says nothing to whoever stands there."""
        where = self.serve(make("nobody"))
        client = await connect_client(clientFromString(reactor, where))
        dialling = client.dial(1)
        ended = await client.when_ended()
        assert isinstance(ended, EndpointEnded)
        self.assertIsInstance(ended.cause, UnnamedCertificate)
        self.assertIn("names nobody", str(ended))
        await self.assertFailure(dialling, EndpointEnded)
        await self.gone()
        self.assertEqual(self.heard, b"")
        self.flushLoggedErrors()

    async def test_server(self) -> None:
        """A game server does not log in there."""
        where = self.serve(make("nobody"))
        connecting = connect_server(clientFromString(reactor, where), 1, b"secret")
        error: Any = await self.assertFailure(connecting, EndpointEnded)
        self.assertIn("names nobody", str(error))
        await self.gone()
        self.flushLoggedErrors()

    async def test_snet(self) -> None:
        """Nor is a stream begun."""
        where = self.serve(make("nobody"))
        endpoint = SnetClientEndpoint(clientFromString(reactor, where), reactor)
        error: Any = await self.assertFailure(connect_client(endpoint), HandshakeFailed)
        self.assertIn("names nobody", str(error))
        await self.gone()
        self.assertEqual(self.heard, b"")
        self.flushLoggedErrors()

    async def test_closed_before(self) -> None:
        """A port that closes at what is TLS is not said to refuse the key."""

        class Closing(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()  # type: ignore[union-attr]

        port = reactor.listenTCP(0, Factory.forProtocol(Closing), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        where = f"tls:localhost:{port.getHost().port}"
        connecting = connect_server(clientFromString(reactor, where), 1, b"secret")
        error: Any = await self.assertFailure(connecting, EndpointEnded)
        self.assertIn("does that port speak it?", str(error))
        self.assertNotIn("key", str(error))

    async def test_named(self) -> None:
        """One with the right name is taken."""
        client = await connect_client(
            clientFromString(reactor, self.serve(make("localhost", ["localhost"])))
        )
        client.dial(1).addErrback(lambda _: None)
        await until("the dial", lambda: self.heard, SECONDS)
        self.assertIsNone(client.ended)
        client.close()
        await self.gone()

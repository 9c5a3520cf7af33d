"""Ends on real sockets, and both ports of a gateway on 127.0.0.1.

Rule: a peer only knows bytes, and whatever was opened is gone when the test is.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from fastway.address import address_name
from fastway.gateway import (
    ClientFactory,
    GatewayLink,
    PortConfig,
    RouterService,
    ServerFactory,
    WebSocketFactory,
)
from fastway.gateway.ports import CalmPort
from fastway.relay import PoolConfig
from fastway.router import Limits
from tests.support.golden import FIRST, KEY, PING, close, dial, packet, prove
from tests.support.waits import reactor, until


class Peer(Protocol):
    """A client or a server over a real socket, that only knows bytes.

    Attributes:
        before: What the gateway had of it when its link was found.
    """

    before = 0

    def __init__(self) -> None:
        self.received = bytearray()
        self.total = 0
        self.sent = 0
        self.ended: Failure | None = None
        self.link: GatewayLink = cast(GatewayLink, None)

    @property
    def wire(self) -> Any:
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.total += len(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = reason

    def send(self, data: bytes) -> None:
        self.sent += len(data)
        self.wire.write(data)

    def end(self) -> None:
        """Say nothing more."""
        self.wire.loseWriteConnection()

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        await until(
            f"{size} bytes; got {bytes(self.received[:80])!r} of {len(self.received)}",
            lambda: len(self.received) >= size or self.ended,
        )
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    async def expect(self, data: bytes) -> None:
        """These bytes come next."""
        got = await self.read(len(data))
        if got != data:
            raise AssertionError(f"expected {data[:80]!r}, got {got[:80]!r}")

    async def expect_end(self) -> None:
        """The gateway closes, and nothing came before that was not expected."""
        await until("the end of the connection", lambda: self.ended)
        if self.received:
            raise AssertionError(f"left over: {bytes(self.received[:80])!r}")

    async def expect_alive(self) -> None:
        """Nothing waits, and the gateway answers."""
        self.send(PING)
        await self.expect(PING)

    async def was_read(self) -> None:
        """The gateway has handled all that was sent."""
        whole = self.before + getattr(self.wire, "below", self.sent)  # of what lies between too
        await until(
            "the gateway to read",
            lambda: self.link.counts().bytes_in >= whole or self.link.lost or self.ended,
        )


def listen_with(adopt: Callable[[int, int, Any], Any], factory: Any) -> Any:
    """A port on 127.0.0.1 that `adopt` makes from a bound socket."""
    with socket.socket() as bound:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        bound.listen(1024)
        return adopt(bound.fileno(), bound.family, factory)


def listen_calmly(factory: Any) -> Any:
    """A port on 127.0.0.1 of the Python lane, with the factory's door."""
    return listen_with(partial(CalmPort.adopt, reactor, door=factory.door), factory)


def listen_by_relay(
    service: RouterService, pool: PoolConfig | None = None, on: Any = reactor
) -> Callable[[Any], Any]:
    """What opens ports on 127.0.0.1 whose links are the native core's."""
    from fastway.gateway.native import NativeCore

    native = service.native = NativeCore(on, service, pool)
    return partial(listen_with, native.listen)


class Sockets:
    """Both ports on 127.0.0.1, and the peers that were connected to them.

    `stop` must be among the test's cleanups.

    Args:
        relay: Links are the native core's, unless `listen` makes other ports.
        pool: The core's.
        web: The client port speaks WebSocket.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        client: PortConfig | None = None,
        server: PortConfig | None = None,
        listen: Callable[[Factory], Any] | None = None,
        connect: Callable[[Any, int], Awaitable[Peer]] | None = None,
        relay: bool = False,
        pool: PoolConfig | None = None,
        web: bool = False,
    ) -> None:
        self.service = RouterService(reactor, limits)
        self.service.startService()
        self.service.router.conn_range.last = FIRST - 1
        self.clients = (WebSocketFactory if web else ClientFactory)(self.service, client)
        self.servers = ServerFactory(self.service, KEY, server)
        if relay:
            listen = listen or listen_by_relay(self.service, pool)
        listen = listen or listen_calmly
        self._connect = connect or self._connect_tcp
        self.client_port = listen(self.clients)
        self.server_port = listen(self.servers)
        self.peers: list[Peer] = []

    async def _connect_tcp(self, peers: Any, port: int) -> Peer:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        return cast(Peer, await endpoint.connect(peers))

    async def dial_port(self, port: Any) -> Peer:
        """Connect a peer; its `link` is not known yet."""
        peer = await self._connect(Factory.forProtocol(Peer), port.getHost().port)
        self.peers.append(peer)
        return peer

    async def _find_link(self, peer: Peer) -> None:
        # Both ports: the two ends of two connections may share one of them.
        name = address_name(peer.wire.getHost())
        ports = {self.client_port.getHost().port: self.clients}
        factory = ports.get(peer.wire.getPeer().port, self.servers)

        def links() -> list[GatewayLink]:
            return [
                one
                for one in self.service.connected
                if one.facts.name == name and cast(object, one.factory) is factory
            ]

        await until("the gateway to accept", links)
        (peer.link,) = links()

    async def client(self) -> Peer:
        peer = await self.dial_port(self.client_port)
        await self._find_link(peer)
        return peer

    async def stranger(self) -> Peer:
        peer = await self.dial_port(self.server_port)
        await self._find_link(peer)
        return peer

    async def server(self, server_id: int = 1) -> Peer:
        peer = await self.stranger()
        peer.send(prove(await peer.read(8), server_id))
        await peer.was_read()
        return peer

    async def pair(self, dialler: Peer, remote: Peer) -> int:
        """Open a virtual connection; both ends have taken its Accept and Connect."""
        before = set(self.service.router.conn_ids)
        dialler.send(dial(remote.link.link_id))
        await dialler.read(17)
        await remote.read(17)
        (conn_id,) = self.service.router.conn_ids - before
        return conn_id

    async def stop(self) -> None:
        for port in (self.client_port, self.server_port):
            await maybeDeferred(port.stopListening)
        for peer in self.peers:
            if peer.ended is None:
                peer.wire.abortConnection()
        await maybeDeferred(self.service.stopService)
        await until("all peers to be gone", lambda: all(peer.ended for peer in self.peers))


class SocketTestCase(TestCase):
    """A test case with both ports open."""

    relay = False

    def listen(self, **config: Any) -> Sockets:
        sockets = Sockets(relay=self.relay, **config)
        self.addCleanup(sockets.stop)
        return sockets

    async def cut_slow_client(self, sockets: Sockets, client: Peer, server: Peer) -> int:
        """The client stops reading and the server goes on, until the client is lost.

        Returns:
            Their virtual connection, whose Close the server has got.
        """
        conn_id = await sockets.pair(client, server)
        client.wire.pauseProducing()
        for _ in range(300):
            server.send(packet(conn_id, bytes(200_000)))
            await server.was_read()
            if client.link.lost:
                break
        await server.expect(close(conn_id))
        return conn_id

    async def hold_behind(self, sockets: Sockets, client: Peer, server: Peer) -> bytes:
        """The server stops reading and the client goes on, until the client is held.

        Returns:
            All that the client sent.
        """
        conn_id = await sockets.pair(client, server)
        server.wire.pauseProducing()
        data = b"".join(packet(conn_id, bytes([n]) * 200_000) for n in range(60))
        client.send(data)
        await until("the hold", lambda: client.link.counts().held)
        return data

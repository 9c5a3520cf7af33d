"""The two ports over real TCP on 127.0.0.1, and over TLS: what takes a kernel to show.

Rule: a test waits for what must come, never for a time to pass, except where a time is the point.
"""

from __future__ import annotations

import gc
import os
import socket
import ssl as pyssl
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet import ssl
from twisted.internet.endpoints import SSL4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SkipTest

from fastway.errors import Reason
from fastway.gateway import GatewayLink, PortConfig
from fastway.gateway import link as link_module
from tests.support.golden import (
    FIRST,
    MAX_PACKET,
    close,
    command,
    dial,
    packet,
)
from tests.support.logs import LogLines
from tests.support.paths import on_both_paths
from tests.support.rows import ACCEPTED, CONNECTED, HELLO
from tests.support.sockets import Peer, Sockets, SocketTestCase
from tests.support.tls import make_certificate
from tests.support.waits import SECONDS, reactor, until


class MemoryTests(SocketTestCase):
    """What Twisted keeps with a connection of the Python path."""

    async def test_little_is_kept(self) -> None:
        """Nothing but what it needs: no names for a log, and no attribute that comes later."""
        sockets = self.listen()
        client = await sockets.client()
        transport = cast(Any, client.link.lane).transport
        before = set(vars(transport))
        self.assertFalse(before & {"logstr", "repstr"})
        await client.expect_alive()
        self.assertEqual(set(vars(transport)), before)

    async def test_names(self) -> None:
        """It still has a name when somebody asks."""
        sockets = self.listen()
        client = await sockets.client()
        transport = cast(Any, client.link.lane).transport
        self.assertEqual(repr(transport), "<connection #0 from 127.0.0.1>")
        self.assertEqual(transport.logstr, transport.logPrefix())


@on_both_paths
class SocketTests(SocketTestCase):
    """What a port makes of its sockets."""

    async def test_no_delay(self) -> None:
        """TCP_NODELAY is set on what both ports accept."""
        sockets = self.listen()
        for peer in (await sockets.client(), await sockets.server()):
            with cast(Any, peer.link.lane).socket() as handle:
                delay = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                self.assertNotEqual(delay, 0)

    async def test_read_sizes(self) -> None:
        """Each port reads as many bytes at once as its configuration says."""
        if self.relay:
            raise SkipTest("tests/relay/test_relay.c")
        sockets = self.listen()
        for peer, size in ((await sockets.client(), 2048), (await sockets.server(), 65536)):
            self.assertEqual(cast(Any, peer.link.lane).transport.bufferSize, size)


class TlsByHand:
    """The client end of TLS over a peer's plain socket, that does no more than it is told."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._incoming, self._outgoing = pyssl.MemoryBIO(), pyssl.MemoryBIO()
        context = pyssl.SSLContext(pyssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = pyssl.CERT_NONE
        self.end = context.wrap_bio(self._incoming, self._outgoing)

    def flush(self) -> None:
        self._peer.wire.write(self._outgoing.read())

    async def do(self, step: Callable[[], object]) -> None:
        """Carry out a step that has to read."""
        while True:
            try:
                step()
            except pyssl.SSLWantReadError:
                self.flush()
                await until("bytes", lambda: self._peer.received)
                self._incoming.write(bytes(self._peer.received))
                self._peer.received.clear()
            else:
                self.flush()
                return


class TlsTests(SocketTestCase):
    """Both ports behind TLS: the same bytes."""

    def listen_tls(self, **config: Any) -> Sockets:
        own = make_certificate()
        trust = ssl.Certificate.loadPEM(own.dumpPEM())

        def listen(factory: Factory) -> Any:
            return reactor.listenSSL(0, factory, own.options(), interface="127.0.0.1")

        async def connect_tls(peers: Any, port: int) -> Peer:
            options = ssl.optionsForClientTLS("localhost", trustRoot=trust)
            endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", port, options)
            return cast(Peer, await endpoint.connect(peers))

        return self.listen(listen=listen, connect=connect_tls, **config)

    async def test_dial_and_echo(self) -> None:
        """Handshake, dial, messages both ways and Close over TLS."""
        sockets = self.listen_tls()
        client, server = await sockets.client(), await sockets.server()
        client.send(dial(1))
        await client.expect(ACCEPTED)
        await server.expect(CONNECTED)
        client.send(HELLO)
        await server.expect(HELLO)
        big = packet(FIRST, os.urandom(MAX_PACKET - 4))
        server.send(HELLO + big)
        await client.expect(HELLO + big)
        client.send(close(FIRST))
        await client.expect(close(FIRST))
        await server.expect(close(FIRST))
        await client.expect_alive()

    async def test_ends(self) -> None:
        """The end of a TLS connection is a Close for its peers; so is a broken rule."""
        sockets = self.listen_tls()
        client, other = await sockets.client(), await sockets.client()
        server = await sockets.server()
        conn_id, other_id = await sockets.pair(client, server), await sockets.pair(other, server)
        client.send(packet(conn_id, b"last"))
        client.wire.loseConnection()
        await server.expect(packet(conn_id, b"last") + close(conn_id))
        self.assertIs(client.link.lost, Reason.PEER_CLOSED)
        other.send(command(9))
        await server.expect(close(other_id))
        await other.expect_end()
        self.assertIs(other.link.lost, Reason.BAD_COMMAND)

    async def test_ends_while_much_waits(self) -> None:
        """A peer that ends TLS while its buffer is full is lost as soon as that has drained."""
        sockets = self.listen_tls(client=PortConfig(idle_timeout=0))
        server = await sockets.server()
        plain = Sockets._connect_tcp
        peer = await plain(sockets, Factory.forProtocol(Peer), sockets.client_port.getHost().port)
        sockets.peers.append(peer)
        tls = TlsByHand(peer)
        await tls.do(tls.end.do_handshake)
        tls.end.write(dial(1))
        await tls.do(lambda: tls.end.read(17))
        await server.expect(CONNECTED)
        link = cast(GatewayLink, sockets.service.router.clients[1])
        peer.wire.pauseProducing()
        for _ in range(20):
            server.send(packet(FIRST, bytes(500_000)))
        await until("a full transport", lambda: link.counts().waiting_bytes)
        with pytest.raises(pyssl.SSLWantReadError):
            tls.end.unwrap()  # close_notify, and no FIN
        tls.flush()
        await until(
            "the gateway to see it", lambda: cast(Any, link.lane).transport.transport.disconnecting
        )
        peer.wire.resumeProducing()
        await server.expect(close(FIRST))
        self.assertIs(link.lost, Reason.PEER_CLOSED)

    async def test_kicked_while_held(self) -> None:
        """A held link that is lost ends at once: its transport is read from again."""
        sockets = self.listen_tls(server=PortConfig(queue_bytes=300_000))
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        server.wire.pauseProducing()
        client.send(b"".join(packet(conn_id, bytes(200_000)) for _ in range(60)))
        await until("the hold", lambda: client.link.counts().held)
        self.patch(link_module, "LINGER", 2 * SECONDS)
        began = reactor.seconds()
        sockets.service.router.lose(client.link, Reason.KICKED)
        await until("the end", lambda: client.ended)
        self.assertLess(reactor.seconds() - began, SECONDS)

    async def test_lost_links_are_let_go(self) -> None:
        """Nothing keeps a lost link alive, not even a cycle."""
        sockets = self.listen_tls()
        client = await sockets.client()
        link = weakref.ref(client.link)
        client.link = cast(Any, None)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        client.wire.loseConnection()
        await until("the end", lambda: client.ended and not sockets.service.connected)
        await until("the link to go", lambda: link() is None)

    async def test_no_tls_at_all(self) -> None:
        """A peer that speaks no TLS is a broken connection in one line, no traceback."""
        sockets = self.listen_tls()
        plain = Sockets._connect_tcp
        peer = await plain(sockets, Factory.forProtocol(Peer), sockets.client_port.getHost().port)
        sockets.peers.append(peer)
        await until("the connection", lambda: sockets.service.connected)
        with LogLines() as log:
            peer.send(dial(1))
            await until("the end", lambda: peer.ended and not sockets.service.connected)
        self.assertEqual(len(log.lines), 1)
        self.assertIn("lost: the connection broke", log.lines[0])

    async def test_slow_server(self) -> None:
        """A server that stops reading holds its senders over TLS too, and all arrives."""
        sockets = self.listen_tls(server=PortConfig(queue_bytes=300_000))
        client = await sockets.client()
        server = await sockets.server()
        data = await self.hold_behind(sockets, client, server)
        server.wire.resumeProducing()
        await server.expect(data)
        await client.expect_alive()

    async def test_slow_client(self) -> None:
        """A client that stops reading is cut over TLS too."""
        sockets = self.listen_tls(client=PortConfig(queue_bytes=300_000))
        client, server = await sockets.client(), await sockets.server()
        await self.cut_slow_client(sockets, client, server)
        self.assertIs(client.link.lost, Reason.SLOW_READER)

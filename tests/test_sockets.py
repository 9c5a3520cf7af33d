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
from fastway.gateway.bounds import LINGER
from fastway.router import Limits, Side
from tests.support.golden import (
    FIRST,
    MAX_PACKET,
    PING,
    accept,
    close,
    command,
    connect,
    dial,
    packet,
    prove,
    refuse,
)
from tests.support.logs import LogLines
from tests.support.paths import on_both_paths
from tests.support.rows import ACCEPTED, CONNECTED, HELLO, Act, Row, rows_as_tests
from tests.support.sockets import Peer, Sockets, SocketTestCase
from tests.support.tls import make_certificate
from tests.support.waits import SECONDS, later, reactor, until


@on_both_paths
@rows_as_tests
class RowTests(SocketTestCase):
    """Each row of spec section 4."""

    async def run_row(self, row: Row) -> None:
        sockets = self.listen()
        peers = {
            "client": await sockets.client(),
            "other": await sockets.client(),
            "server": await sockets.server(),
        }
        for who, step in row.steps:
            await self._act(sockets, peers, who, step)
        reasons = {who: peer.link.lost for who, peer in peers.items() if peer.link.lost}
        self.assertEqual(reasons, dict(row.lost))
        for who, peer in peers.items():
            if row.lost.get(who) is not Reason.CONNECTION_LOST:
                await peer.expect(row.gets.get(who, b""))
            if who not in row.lost:
                await peer.expect_alive()
            elif row.lost[who] is not Reason.CONNECTION_LOST:
                await peer.expect_end()

    async def _act(
        self, sockets: Sockets, peers: dict[str, Peer], who: str, step: bytes | Act
    ) -> None:
        if step is Act.LOG_IN:
            peers[who] = await sockets.server(1)
        elif step is Act.FAIL:
            peer = peers[who] = await sockets.stranger()
            peer.send(prove(await peer.read(8), 1, b"guess"))
            await peer.was_read()
        elif step is Act.FIN:
            peers[who].wire.loseWriteConnection()
            await until("the FIN to arrive", lambda: peers[who].link.lost)
        elif step is Act.RESET:
            peers[who].wire.abortConnection()  # Twisted sets SO_LINGER to 0 for it
            await until("the reset to arrive", lambda: peers[who].link.lost)
        else:
            peers[who].send(step)
            await peers[who].was_read()


@on_both_paths
class HandshakeTests(SocketTestCase):
    """Spec section 3."""

    async def test_pieces(self) -> None:
        """The answer may come in pieces, the last one with packets right behind it."""
        sockets = self.listen()
        client = await sockets.client()
        server = await sockets.stranger()
        answer = prove(await server.read(8), 7)
        for piece in (answer[:1], answer[1:17], answer[17:19], answer[19:] + dial(1) + HELLO):
            server.send(piece)
            await server.was_read()
        await server.expect(accept(FIRST, 1))
        await client.expect(connect(FIRST, 7) + HELLO)
        await server.expect_alive()

    async def test_no_answer(self) -> None:
        """Success is not answered."""
        sockets = self.listen()
        server = await sockets.server()
        await server.expect_alive()

    async def test_wrong_proof(self) -> None:
        """A wrong proof closes the connection, without a byte."""
        sockets = self.listen()
        server = await sockets.stranger()
        await server.read(8)
        server.send(bytes(20) + dial(1))
        await server.expect_end()
        self.assertIs(server.link.lost, Reason.AUTH_FAILED)

    async def test_silence(self) -> None:
        """Who does not answer is told nothing and dialled by nobody."""
        sockets = self.listen()
        client = await sockets.client()
        await sockets.stranger()
        client.send(dial(0))
        await client.expect(refuse(0))


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
class DataTests(SocketTestCase):
    """What goes over virtual connections."""

    async def test_both_directions_at_once(self) -> None:
        """Streams both ways over one virtual connection arrive whole and in order."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        up = b"".join(packet(conn_id, b"up %d" % n * 9) for n in range(3000))
        down = b"".join(packet(conn_id, b"down %d" % n * 90) for n in range(300))
        client.send(up)
        server.send(down)
        await server.expect(up)
        await client.expect(down)

    async def test_big_packets(self) -> None:
        """Packets of the largest length, 512 KiB, arrive whole, both ways."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        big = packet(conn_id, os.urandom(MAX_PACKET - 4))
        client.send(big + big)
        await server.expect(big + big)
        server.send(big)
        await client.expect(big)

    async def test_over_the_largest_length(self) -> None:
        """One byte more than the largest length costs the connection before the body is there."""
        sockets = self.listen()
        client = await sockets.client()
        client.send((MAX_PACKET + 1).to_bytes(4, "little"))
        await client.expect_end()
        self.assertIs(client.link.lost, Reason.FRAME_TOO_LARGE)

    async def test_many_small_packets(self) -> None:
        """A pipeline of many small packets to a server arrives whole."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        data = b"".join(packet(conn_id, b"%d" % n) for n in range(20_000))
        client.send(data)
        await server.expect(data)
        self.assertEqual(sockets.service.router.stats.packets, 20_000)

    async def test_burst_to_a_reading_client(self) -> None:
        """A burst of far more packets than may wait does not cut a client that reads."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        data = b"".join(packet(conn_id, b"%d" % n) for n in range(4_000))
        server.send(data)
        await client.expect(data)
        self.assertIsNone(client.link.lost)

    async def test_stream_to_a_reading_client(self) -> None:
        """A long stream of small packets does not cut a client that reads all the time."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        data = b"".join(packet(conn_id, b"%d" % n) for n in range(60_000))
        server.send(data)
        await until(
            "the whole stream",
            lambda: len(client.received) == len(data) or client.link.lost,
        )
        self.assertIsNone(client.link.lost)
        await client.expect(data)

    async def test_many_clients(self) -> None:
        """Thirty clients that talk to one server at once get their own packets back."""
        sockets = self.listen()
        server = await sockets.server()
        clients = [await sockets.client() for _ in range(30)]
        conn_ids = [await sockets.pair(client, server) for client in clients]
        sent = {}
        for client, conn_id in zip(clients, conn_ids, strict=True):
            sent[client] = b"".join(packet(conn_id, os.urandom(30)) for _ in range(20))
            client.send(sent[client])
        server.send(await server.read(sum(map(len, sent.values()))))
        for client, data in sent.items():
            await client.expect(data)

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


@on_both_paths
class EndTests(SocketTestCase):
    """How connections end."""

    async def test_fin_right_behind_data(self) -> None:
        """Much data with the FIN right behind it arrives whole, then the Close."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        data = packet(conn_id, os.urandom(100_000)) * 10
        client.send(data)
        client.wire.loseConnection()
        await server.expect(data + close(conn_id))
        self.assertIs(client.link.lost, Reason.PEER_CLOSED)

    async def test_half_close_gets_what_waits(self) -> None:
        """A client that half-closes still gets what was sent to it before, then the end."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        client.wire.pauseProducing()
        data = packet(conn_id, os.urandom(400_000)) * 8
        server.send(data)
        await server.was_read()
        client.wire.loseWriteConnection()
        await until("the FIN to arrive", lambda: client.link.lost)
        client.wire.resumeProducing()
        await client.expect(data)
        await client.expect_end()

    async def test_half_close_of_one_who_reads_nothing(self) -> None:
        """A half-closer that reads nothing does not keep its virtual connections."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        client.wire.pauseProducing()
        client.send(HELLO)
        client.wire.loseWriteConnection()
        await server.expect(HELLO + close(conn_id))

    async def test_reset_in_the_middle_of_a_packet(self) -> None:
        """A reset in the middle of a packet is a broken connection and a Close, no traceback."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        client.send(HELLO + packet(conn_id, bytes(1000))[:500])
        await client.was_read()
        with LogLines() as log:
            client.wire.abortConnection()
            await server.expect(HELLO + close(conn_id))
        self.assertIs(client.link.lost, Reason.CONNECTION_LOST)
        self.assertEqual(len(log.lines), 1)
        await server.expect_alive()

    async def test_reset_while_being_written_to(self) -> None:
        """A reset while much is on its way to a client harms nobody else."""
        sockets = self.listen()
        client, other = await sockets.client(), await sockets.client()
        server = await sockets.server()
        conn_id = await sockets.pair(client, server)
        client.wire.pauseProducing()
        server.send(packet(conn_id, bytes(500_000)) * 10)
        client.wire.abortConnection()
        await server.expect(close(conn_id))
        await sockets.pair(other, server)

    async def test_stop(self) -> None:
        """stopService ends every connection and fires when they are gone."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        stranger = await sockets.stranger()
        await stranger.read(8)
        conn_id = await sockets.pair(client, server)
        server.send(packet(conn_id, b"bye"))
        await server.was_read()
        stopped = sockets.service.stopService()
        assert stopped is not None
        await stopped
        self.assertEqual(sockets.service.connected, set())
        await client.expect(packet(conn_id, b"bye"))
        peers = (client, server, stranger)
        self.assertEqual([peer.link.lost for peer in peers], [Reason.SHUTDOWN] * 3)
        await until("the ends", lambda: all(peer.ended for peer in peers))

    async def test_turned_away(self) -> None:
        """A connection over max_links is closed without a byte; a free place is given again."""
        sockets = self.listen(client=PortConfig(max_links=1))
        first = await sockets.client()
        further = await sockets.dial_port(sockets.client_port)
        await further.expect_end()
        await first.expect_alive()
        first.wire.loseConnection()
        await until("the first to be gone", lambda: not sockets.service.connected)
        await (await sockets.client()).expect_alive()

    async def test_idle_timeout(self) -> None:
        """On a real clock too: dripping is lost at the idle timeout, packets keep a link."""
        sockets = self.listen(client=PortConfig(idle_timeout=0.5))
        began = reactor.seconds()
        silent, talking = await sockets.client(), await sockets.client()
        data = packet(5, bytes(1000))
        while silent.ended is None and reactor.seconds() < began + SECONDS:
            silent.send(data[:1])
            data = data[1:]
            talking.send(PING)
            await later(0.02)
        self.assertIs(silent.link.lost, Reason.IDLE_TIMEOUT)
        self.assertGreaterEqual(reactor.seconds() - began, 0.49)
        self.assertIsNone(talking.link.lost)


@on_both_paths
class SlowClientTests(SocketTestCase):
    """A client that stops reading, with the kernel's buffers in between."""

    async def test_slow_client_is_cut(self) -> None:
        """It is lost once its bound waits; the server is told and everybody else goes on."""
        sockets = self.listen(client=PortConfig(queue_bytes=300_000))
        slow, other = await sockets.client(), await sockets.client()
        server = await sockets.server()
        slow_id, other_id = await sockets.pair(slow, server), await sockets.pair(other, server)
        slow.wire.pauseProducing()
        most = 0
        for n in range(500):
            server.send(packet(slow_id, bytes(200_000)) + packet(other_id, b"%d" % n))
            await other.expect(packet(other_id, b"%d" % n))
            most = max(most, slow.link.counts().waiting_bytes)
            if slow.link.lost:
                break
        self.assertIs(slow.link.lost, Reason.SLOW_READER)
        # The bound, and what one packet and one read may put on top.
        self.assertLess(most, 300_000 + 200_008 + 65536)
        await server.expect(close(slow_id))
        server.send(packet(other_id, b"on"))
        await other.expect(packet(other_id, b"on"))
        slow.wire.resumeProducing()
        await until("the end of the slow client", lambda: slow.ended)

    async def test_pausing_client_is_not_cut(self) -> None:
        """A client that reads in fits and starts, within its bounds, gets everything in order."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        total = b""
        for n in range(8):
            client.wire.pauseProducing()
            data = packet(conn_id, bytes([n]) * 400_000)
            server.send(data)
            total += data
            await server.was_read()
            client.wire.resumeProducing()
            await later(0.005)
        await client.expect(total)
        self.assertIsNone(client.link.lost)


@on_both_paths
class SlowServerTests(SocketTestCase):
    """A server that stops reading, with the kernel's buffers in between."""

    async def test_pause_and_resume(self) -> None:
        """Its senders are held, others are not; when it reads again all arrives in order."""
        sockets = self.listen(server=PortConfig(queue_bytes=300_000, read_size=65536))
        client, other = await sockets.client(), await sockets.client()
        server, second = await sockets.server(1), await sockets.server(2)
        conn_id, other_id = await sockets.pair(client, server), await sockets.pair(other, second)
        server.wire.pauseProducing()
        data = b"".join(packet(conn_id, bytes([n]) * 200_000) for n in range(60))
        client.send(data)
        await until("the hold", lambda: client.link.counts().held)
        other.send(packet(other_id, b"on"))
        await second.expect(packet(other_id, b"on"))
        await later(0.05)
        self.assertTrue(client.link.counts().held)
        self.assertLess(server.link.counts().waiting_bytes, 300_000 + 200_008 + 2048)
        server.wire.resumeProducing()
        await server.expect(data)
        self.assertFalse(client.link.counts().held)
        self.assertIsNone(server.link.lost)
        await client.expect_alive()

    async def test_nothing_taken(self) -> None:
        """A server that takes nothing is lost after the write timeout, and its senders go on."""
        sockets = self.listen(server=PortConfig(queue_bytes=300_000, write_timeout=0.3))
        client = await sockets.client()
        server = await sockets.server()
        conn_id = await sockets.pair(client, server)
        server.wire.pauseProducing()
        client.send(packet(conn_id, bytes(200_000)) * 60)
        await until("the hold", lambda: client.link.counts().held)
        await until("the loss", lambda: server.link.lost)
        self.assertIs(server.link.lost, Reason.WRITE_TIMEOUT)
        await until("the rest to be read", lambda: client.link.counts().bytes_in == client.sent)
        # The rest of its packets are strays now; each is answered by a Close.
        got = await client.read(13)
        self.assertEqual(got, close(conn_id))
        self.assertIsNone(client.link.lost)

    async def test_something_taken(self) -> None:
        """A server that takes a little now and then is not lost, though it is always full."""
        sockets = self.listen(
            client=PortConfig(read_size=65536),
            server=PortConfig(queue_bytes=300_000, write_timeout=0.4),
        )
        client = await sockets.client()
        server = await sockets.server()
        conn_id = await sockets.pair(client, server)
        server.wire.pauseProducing()
        server.wire.bufferSize = 4096
        client.send(packet(conn_id, bytes(500_000)) * 40)
        await until("the hold", lambda: client.link.counts().held)
        began = reactor.seconds()
        while reactor.seconds() < began + 1.3:
            server.wire.resumeProducing()
            await later(0)
            server.wire.pauseProducing()
            self.assertIsNone(server.link.lost)
            self.assertTrue(client.link.counts().held)
            await later(0.01)
        self.assertGreater(server.total, 0)

    async def test_sender_goes_while_held(self) -> None:
        """A held sender's reset is noticed at the latest when the server reads again."""
        sockets = self.listen(server=PortConfig(queue_bytes=300_000))
        client = await sockets.client()
        server = await sockets.server()
        conn_id = await sockets.pair(client, server)
        server.wire.pauseProducing()
        client.send(packet(conn_id, bytes(200_000)) * 60)
        await until("the hold", lambda: client.link.counts().held)
        client.wire.abortConnection()
        server.wire.resumeProducing()
        await until("the Close", lambda: bytes(server.received[-13:]) == close(conn_id))
        self.assertIs(client.link.lost, Reason.CONNECTION_LOST)
        await until("the end", lambda: not client.link.counts().held)


@on_both_paths
class LimitTests(SocketTestCase):
    """Limits that a router is given."""

    async def test_client_max_conn(self) -> None:
        """n - 1 and n dials are accepted, n + 1 is refused."""
        sockets = self.listen(limits=Limits(client_max_conn=2))
        client, server = await sockets.client(), await sockets.server()
        client.send(dial(1) * 3)
        await client.expect(ACCEPTED + accept(FIRST + 1, 1) + refuse(1))
        await server.expect(CONNECTED + connect(FIRST + 1, 1))
        self.assertEqual(sockets.service.router.stats.gained[Side.CLIENT], 1)


@on_both_paths
class KickTests(SocketTestCase):
    async def test_what_is_on_its_way_reaches_one_who_sends(self) -> None:
        """A kicked client that goes on sending still gets what was on its way to it."""
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        client.wire.pauseProducing()
        data = packet(conn_id, bytes(400_000)) * 4
        server.send(data)
        await server.was_read()
        sockets.service.router.lose(client.link, Reason.KICKED)
        client.send(PING * 10_000)
        client.wire.resumeProducing()
        await client.expect(data)
        await until("the end", lambda: client.ended)
        self.assertEqual(client.received, b"")


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
        began = reactor.seconds()
        sockets.service.router.lose(client.link, Reason.KICKED)
        await until("the end", lambda: client.ended)
        self.assertLess(reactor.seconds() - began, LINGER / 2)

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

"""What a gateway promises its clients and servers (spec/fastway.md), whatever they come over.

Rule: one body for all transports and lanes. A check knows bytes only; where a transport cannot
show something (a half-open TLS connection) the check says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, ClassVar

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SkipTest

from fastway.errors import Reason
from fastway.gateway import PortConfig
from fastway.router import Limits, Side
from tests.support.golden import (
    FIRST,
    MAX_PACKET,
    PING,
    accept,
    close,
    connect,
    dial,
    packet,
    prove,
    refuse,
)
from tests.support.logs import LogLines
from tests.support.rows import ACCEPTED, CONNECTED, HELLO, Act, Row, rows_as_tests
from tests.support.sockets import Peer, Sockets, SocketTestCase
from tests.support.transports import Assembled, Transport
from tests.support.waits import SECONDS, later, reactor, until


class ConformCase(SocketTestCase):
    """A gateway that is made from a transport's options, on one lane."""

    transport: ClassVar[Transport]

    def listen(self, **config: Any) -> Sockets:
        sockets = Assembled(self.transport, self.relay, **config)
        self.addCleanup(sockets.stop)
        return sockets

    def end(self, peer: Peer) -> None:
        """It ends what it sends; where that can be, it goes on reading."""
        if self.transport.keeps(peer.link.side):
            peer.wire.loseConnection()
        else:
            peer.wire.loseWriteConnection()

    def assertGone(self, peer: Peer, reason: Reason) -> None:
        """Lost because its connection ended or broke; a stream had its time to come back."""
        kept = self.transport.keeps(peer.link.side)
        self.assertIs(peer.link.lost, Reason.NOT_RESUMED if kept else reason)


@rows_as_tests
class RowChecks(ConformCase):
    """Each row of spec section 4."""

    gone = (Reason.CONNECTION_LOST, Reason.PEER_CLOSED)

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
        gone = self.gone
        kept = {who: self.transport.keeps(peer.link.side) for who, peer in peers.items()}
        lost = {
            who: Reason.NOT_RESUMED if kept[who] and why in gone else why
            for who, why in row.lost.items()
        }
        self.assertEqual(reasons, lost)
        for who, peer in peers.items():
            reads = row.lost.get(who) not in (gone if kept[who] else gone[:1])
            if reads:
                await peer.expect(row.gets.get(who, b""))
            if who not in row.lost:
                await peer.expect_alive()
            elif reads:
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
            self.end(peers[who])
            await until("the FIN to arrive", lambda: peers[who].link.lost)
        elif step is Act.RESET:
            peers[who].wire.abortConnection()  # Twisted sets SO_LINGER to 0 for it
            await until("the reset to arrive", lambda: peers[who].link.lost)
        else:
            peers[who].send(step)
            await peers[who].was_read()


class HandshakeChecks(ConformCase):
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


class DataChecks(ConformCase):
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


class EndChecks(ConformCase):
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
        self.assertGone(client, Reason.PEER_CLOSED)

    async def test_half_close_gets_what_waits(self) -> None:
        """A client that half-closes still gets what was sent to it before, then the end."""
        if not self.transport.halves:
            raise SkipTest(f"{self.transport.name} has no half-open connections")
        sockets = self.listen()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        client.wire.pauseProducing()
        data = packet(conn_id, os.urandom(400_000)) * 8
        server.send(data)
        await server.was_read()
        self.end(client)
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
        self.end(client)
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
        self.assertGone(client, Reason.CONNECTION_LOST)
        self.assertEqual(len(log.lines), 2 if self.transport.survives else 1)
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
        try:
            further = await sockets.dial_port(sockets.client_port)
        except (ConnectionDone, ConnectionLost):
            pass  # before there was anything to talk over
        else:
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


class SlowClientChecks(ConformCase):
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


class SlowServerChecks(ConformCase):
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
        self.assertGone(client, Reason.CONNECTION_LOST)
        await until("the end", lambda: not client.link.counts().held)


class WriteTimeoutChecks(ConformCase):
    """Servers that take little or nothing, for longer than they may."""

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
        await client.was_read()
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
            await later(0.01)
        # It was never without something that waits, or this would show nothing.
        self.assertGreater(server.link.counts().waiting_bytes, 0)
        self.assertGreater(server.total, 0)


class LimitChecks(ConformCase):
    """Limits that a router is given."""

    async def test_client_max_conn(self) -> None:
        """n - 1 and n dials are accepted, n + 1 is refused."""
        sockets = self.listen(limits=Limits(client_max_conn=2))
        client, server = await sockets.client(), await sockets.server()
        client.send(dial(1) * 3)
        await client.expect(ACCEPTED + accept(FIRST + 1, 1) + refuse(1))
        await server.expect(CONNECTED + connect(FIRST + 1, 1))
        self.assertEqual(sockets.service.router.stats.gained[Side.CLIENT], 1)


class KickChecks(ConformCase):
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


def checks_of(transport: Transport) -> Iterator[type[ConformCase]]:
    """What there is to see over a transport."""
    if not transport.by_proxy or len(transport.client) == 1:
        yield RowChecks  # a proxy's header goes before; what follows it passes them alone
    yield from (HandshakeChecks, DataChecks, EndChecks)
    yield from (SlowClientChecks, SlowServerChecks, LimitChecks, KickChecks)
    if not transport.survives and (transport.server or not transport.client):
        yield WriteTimeoutChecks  # elsewhere servers are as over tcp; of snet: its own tests

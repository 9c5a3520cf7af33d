"""The two ports on fake transports and a fake clock (spec sections 3, 4 and 8).

Rule: no socket and no waiting; what takes real buffers to show is in test_sockets.
"""

from __future__ import annotations

import os
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fastway.address import address_name
from fastway.errors import Reason
from fastway.gateway import (
    PortConfig,
    RouterService,
    TurnedAway,
    server_port_config,
)
from fastway.gateway.bounds import COMMANDS_EACH, COMMANDS_TURN, LINGER, WRITE_PIECE
from fastway.gateway.stream import StreamLane
from fastway.router import IdConflict, Limits, Refusal, Side
from fastway.snet.interfaces import IResumableProtocol
from tests.support.ends import End, Harness
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
    split,
)
from tests.support.logs import LogLines
from tests.support.rows import ACCEPTED, CLOSED, CONNECTED, HELLO, Act, Row, rows_as_tests

AnyEnd = End


class VectorTests(SynchronousTestCase):
    """The harness writes the wire down a second time: it must be the spec's."""

    def test_vectors(self) -> None:
        """The harness's packets are the vectors of spec section 1."""
        self.assertEqual(dial(1).hex(), "09000000000000000001000000")
        self.assertEqual(accept(9527, 1).hex(), "0d00000000000000013725000001000000")
        self.assertEqual(connect(9527, 1).hex(), "0d00000000000000023725000001000000")
        self.assertEqual(refuse(1).hex(), "09000000000000000301000000")
        self.assertEqual(close(9527).hex(), "09000000000000000437250000")
        self.assertEqual(PING.hex(), "050000000000000005")
        self.assertEqual(packet(9527, b"Hello"), HELLO)

    def test_proofs(self) -> None:
        """The harness's proofs are the vectors of spec section 3."""
        challenge = bytes.fromhex("0102030405060708")
        secret = bytes.fromhex("adcfa1211693e4374b111406c62170c5")
        empty = bytes.fromhex("0ee0646c1c77d8131cc8f4ee65c7673b")
        self.assertEqual(prove(challenge, 1, b"secret"), secret + b"\1\0\0\0")
        self.assertEqual(prove(challenge, 258, b""), empty + b"\2\1\0\0")


class RowRunner(SynchronousTestCase):
    """Runs the rows of the table on fake transports."""

    drip = False

    def run_row(self, row: Row) -> None:
        harness = Harness()
        ends: dict[str, AnyEnd] = {
            "client": harness.client(),
            "other": harness.client(),
            "server": harness.server(),
        }
        for who, step in row.steps:
            self._act(harness, ends, who, step)
            for end in ends.values():
                if end.transport.disconnecting and end.transport.connected:
                    end.gone()
        got = {who: end.transport.value() for who, end in ends.items()}
        self.assertEqual(got, {who: row.gets.get(who, b"") for who in ends})
        self.assertEqual(
            {who: end.lost for who, end in ends.items() if end.lost is not None},
            dict(row.lost),
        )
        for who, end in ends.items():
            if who not in row.lost:
                self.assertFalse(end.transport.disconnecting)
                end.take()
                end.send(PING)
                self.assertEqual(end.take(), PING)

    def _act(self, harness: Harness, ends: dict[str, AnyEnd], who: str, step: bytes | Act) -> None:
        if step is Act.LOG_IN:
            ends[who] = harness.server(1)
        elif step is Act.FAIL:
            end = ends[who] = harness.stranger()
            end.send(prove(end.take(), 1, b"guess"))
        elif step is Act.FIN:
            ends[who].half_close()
        elif step is Act.RESET:
            ends[who].gone(ConnectionLost())
        elif self.drip:
            ends[who].drip(step)
        else:
            ends[who].send(step)


@rows_as_tests
class WholeRowTests(RowRunner):
    """Each row of spec section 4, each step in one read."""


@rows_as_tests
class DrippedRowTests(RowRunner):
    """Each row of spec section 4, byte by byte."""

    drip = True


class PacketSizeTests(SynchronousTestCase):
    """The bound on the length field, at the limit and around it."""

    def test_largest_packet(self) -> None:
        """A length of max_packet - 1 and of max_packet is forwarded, whole."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        conn_id = harness.pair(client, server)
        for size in (MAX_PACKET - 5, MAX_PACKET - 4):
            data = packet(conn_id, os.urandom(size))
            for position in range(0, len(data), 65536):
                self.assertEqual(server.transport.writes, 0)
                client.send(data[position : position + 65536])
            self.assertEqual(server.transport.writes, 1)
            self.assertEqual(server.take(), data)

    def test_over_largest_packet(self) -> None:
        """A length of max_packet + 1 costs the connection with its fourth byte, not before."""
        harness = Harness()
        client = harness.client()
        client.drip((MAX_PACKET + 1).to_bytes(4, "little")[:3])
        self.assertIsNone(client.lost)
        client.drip((MAX_PACKET + 1).to_bytes(4, "little")[3:])
        self.assertIs(client.lost, Reason.FRAME_TOO_LARGE)

    def test_ports_have_bounds_of_their_own(self) -> None:
        """Each port's max_packet is its own."""
        harness = Harness(client=PortConfig(max_packet=8), server=PortConfig(max_packet=9))
        client, server = harness.client(), harness.server()
        server.send(dial(1))
        server.send(packet(FIRST, b"12345"))
        self.assertEqual(client.take(), connect(FIRST, 1) + packet(FIRST, b"12345"))
        client.send(packet(FIRST, b"1234"))
        self.assertIsNone(client.lost)
        client.send(packet(FIRST, b"12345"))
        self.assertIs(client.lost, Reason.FRAME_TOO_LARGE)


class HandshakeTests(SynchronousTestCase):
    """Spec section 3, and the 5 seconds."""

    def test_golden_login(self) -> None:
        """The vectors of spec section 3 log a server in, without an answer."""
        challenge = bytes.fromhex("0102030405060708")
        self.patch(os, "urandom", lambda size: challenge[:size])
        for key, proof in (
            (b"secret", "adcfa1211693e4374b111406c62170c5"),
            (b"", "0ee0646c1c77d8131cc8f4ee65c7673b"),
        ):
            harness = Harness(key=key)
            server = harness.stranger()
            self.assertEqual(server.take(), challenge)
            server.send(bytes.fromhex(proof) + b"\7\0\0\0")
            self.assertEqual(server.take(), b"")
            self.assertIs(harness.router.find(Side.SERVER, 7), server.link)

    def test_challenges_differ(self) -> None:
        """Every server gets a challenge of its own, 8 bytes in one write."""
        harness = Harness()
        servers = [harness.stranger() for _ in range(100)]
        self.assertEqual({server.transport.writes for server in servers}, {1})
        challenges = {server.take() for server in servers}
        self.assertEqual(len(challenges), 100)
        self.assertEqual({len(challenge) for challenge in challenges}, {8})

    def test_pieces(self) -> None:
        """The 20 bytes may come one by one."""
        harness = Harness()
        server = harness.stranger()
        server.drip(prove(server.take(), 7) + PING)
        self.assertEqual(server.take(), PING)
        self.assertEqual(server.link.link_id, 7)

    def test_packets_right_behind(self) -> None:
        """Packets in the same read as the proof are carried out."""
        harness = Harness()
        client = harness.client()
        server = harness.stranger()
        server.send(prove(server.take(), 7) + dial(1) + packet(FIRST, b"early") + PING[:5])
        self.assertEqual(server.take(), accept(FIRST, 1))
        self.assertEqual(client.take(), connect(FIRST, 7) + packet(FIRST, b"early"))
        server.send(PING[5:])
        self.assertEqual(server.take(), PING)

    def test_bytes_are_counted_once(self) -> None:
        """The handshake's bytes and those behind it are counted once."""
        harness = Harness()
        server = harness.stranger()
        server.send(prove(server.take(), 7) + PING)
        self.assertEqual(server.link.counts().bytes_in, 29)
        self.assertEqual(server.link.counts().packets_in, 1)

    def test_wrong_proof(self) -> None:
        """A wrong proof costs the connection, and what comes behind it is not carried out."""
        harness = Harness()
        client = harness.client()
        server = harness.stranger()
        answer = bytearray(prove(server.take(), 7))
        answer[15] ^= 1
        server.send(bytes(answer) + dial(1))
        self.assertIs(server.lost, Reason.AUTH_FAILED)
        self.assertTrue(server.transport.disconnecting)
        server.send(prove(b"", 7))
        self.assertEqual(server.take() + client.take(), b"")
        self.assertEqual(harness.router.stats.turned_away[Reason.AUTH_FAILED], 1)
        self.assertEqual(harness.router.servers, {})

    def test_not_dialled_before_login(self) -> None:
        """A server is unknown until the last byte of its answer."""
        harness = Harness()
        client = harness.client()
        server = harness.stranger()
        answer = prove(server.take(), 0)
        server.send(answer[:-1])
        client.send(dial(0))
        self.assertEqual(client.take(), refuse(0))
        server.send(answer[-1:])
        client.send(dial(0))
        self.assertEqual(client.take(), accept(FIRST, 0))

    def test_five_seconds(self) -> None:
        """A handshake that is not done in 5 s costs the connection; dripping gains nothing."""
        harness = Harness()
        silent, dripping, done = harness.stranger(), harness.stranger(), harness.stranger()
        answer = prove(dripping.take(), 7)
        for position in range(19):
            harness.pass_time(0.25)
            dripping.send(answer[position : position + 1])
        self.assertIsNone(silent.lost)
        done.send(prove(done.take(), 8))
        harness.pass_time(0.5)
        self.assertIs(silent.lost, Reason.HANDSHAKE_TIMEOUT)
        self.assertIs(dripping.lost, Reason.HANDSHAKE_TIMEOUT)
        dripping.lane.dataReceived(answer[19:])
        self.assertEqual(list(harness.router.servers), [8])
        harness.pass_time(20)
        self.assertIsNone(done.lost)

    def test_five_seconds_without_idle_timeout(self) -> None:
        """No idle timeout still means 5 s for the handshake."""
        harness = Harness(server=PortConfig(idle_timeout=0))
        server = harness.stranger()
        harness.pass_time(5.25)
        self.assertIs(server.lost, Reason.HANDSHAKE_TIMEOUT)

    def test_goes_before_login(self) -> None:
        """A connection that goes before its login is none that the router had."""
        harness = Harness()
        harness.stranger().gone()
        self.assertEqual(harness.router.stats.turned_away[Reason.PEER_CLOSED], 1)
        self.assertEqual(harness.router.stats.lost.total(), 0)
        self.assertEqual(harness.servers.links, 0)

    def test_evict(self) -> None:
        """Under `evict` the older server of an id is lost and its clients are told."""
        harness = Harness(limits=Limits(server_id_conflict=IdConflict.EVICT))
        client, older = harness.client(), harness.server()
        harness.pair(client, older)
        newer = harness.server()
        self.assertIs(older.lost, Reason.EVICTED)
        self.assertEqual(client.take(), CLOSED)
        harness.pair(client, newer)

    def test_reject(self) -> None:
        """Under `reject` the newer server of an id is lost and the older notices nothing."""
        harness = Harness(limits=Limits(server_id_conflict=IdConflict.REJECT))
        client, older = harness.client(), harness.server()
        harness.pair(client, older)
        newer = harness.stranger()
        newer.send(prove(newer.take(), 1) + dial(1))
        self.assertIs(newer.lost, Reason.ID_IN_USE)
        self.assertEqual(client.take() + older.take() + newer.take(), b"")
        harness.pair(client, older)


class WriteTests(SynchronousTestCase):
    """One read makes one write for each peer that it touches."""

    def test_many_packets_one_write(self) -> None:
        """Many packets for one peer in one read are one write of the same bytes."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        conn_id = harness.pair(client, server)
        data = b"".join(packet(conn_id, bytes([n % 256]) * (n % 100)) for n in range(500))
        client.send(data)
        self.assertEqual(server.transport.writes, 1)
        self.assertEqual(server.take(), data)
        self.assertEqual(client.transport.writes, 0)

    def test_interleaved_packets_one_write_each(self) -> None:
        """Packets for three peers in turns are one write for each, in order."""
        harness = Harness()
        server = harness.server()
        clients = [harness.client() for _ in range(3)]
        conn_ids = [harness.pair(client, server) for client in clients]
        packets = [packet(conn_ids[n % 3], b"%d" % n) for n in range(300)]
        server.send(b"".join(packets))
        for n, client in enumerate(clients):
            self.assertEqual(client.transport.writes, 1)
            self.assertEqual(client.take(), b"".join(packets[n::3]))

    def test_commands_and_packets_one_write(self) -> None:
        """Answers and forwarded packets of one read share its one write for each peer."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        client.send(dial(1) + HELLO + PING + dial(1) + HELLO + CLOSED + dial(2))
        self.assertEqual(client.transport.writes, 1)
        self.assertEqual(server.transport.writes, 1)
        self.assertEqual(
            client.take(), ACCEPTED + PING + accept(FIRST + 1, 1) + CLOSED + refuse(2)
        )
        self.assertEqual(server.take(), CONNECTED + HELLO + connect(FIRST + 1, 1) + HELLO + CLOSED)

    def test_lost_in_the_middle_one_write(self) -> None:
        """A read that ends with the loss of its sender is one write for each peer too."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        harness.pair(client, server)
        client.send(HELLO * 3 + command(9))
        self.assertEqual(server.transport.writes, 1)
        self.assertEqual(server.take(), HELLO * 3 + CLOSED)

    def test_partial_packet_writes_nothing(self) -> None:
        """A packet that is not whole touches nobody."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        harness.pair(client, server)
        client.send(HELLO[:-1])
        self.assertEqual(server.transport.writes, 0)

    def test_counters(self) -> None:
        """Links count the packets and bytes that came from and went to them."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        client.send(dial(1) + HELLO * 3)
        counts, others = client.link.counts(), server.link.counts()
        self.assertEqual((counts.packets_in, counts.bytes_in), (4, 13 + 39))
        self.assertEqual((counts.packets_out, counts.bytes_out), (1, 17))
        self.assertEqual((others.packets_out, others.bytes_out), (4, 17 + 39))
        self.assertEqual(harness.router.stats.packets, 3)

    def test_client_ids_grow_by_one(self) -> None:
        """Client ids start at 1 and grow by one with every connection, gone ones included."""
        harness = Harness()
        first = harness.client()
        first.gone()
        self.assertEqual([first.link.link_id, harness.client().link.link_id], [1, 2])


class IdleTests(SynchronousTestCase):
    """No complete packet for the idle timeout."""

    def test_silent_links_are_lost(self) -> None:
        """A link that sends nothing is lost after 30 s and not before, on either side."""
        harness = Harness()
        ends: list[AnyEnd] = [harness.client(), harness.server()]
        harness.pass_time(29.75)
        self.assertEqual([end.lost for end in ends], [None, None])
        harness.pass_time(0.5)
        self.assertEqual([end.lost for end in ends], [Reason.IDLE_TIMEOUT] * 2)
        self.assertTrue(all(end.transport.disconnecting for end in ends))

    def test_packets_keep_alive(self) -> None:
        """Every complete packet, a Ping too, starts the 30 s anew."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        for _ in range(4):
            harness.pass_time(29.75)
            client.send(PING)
            server.send(packet(5))
        harness.pass_time(29.75)
        self.assertIsNone(client.lost)
        self.assertIsNone(server.lost)
        harness.pass_time(0.5)
        self.assertIs(client.lost, Reason.IDLE_TIMEOUT)
        self.assertIs(server.lost, Reason.IDLE_TIMEOUT)

    def test_dripping_does_not_keep_alive(self) -> None:
        """Bytes that complete no packet do not keep a link."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        data = packet(7, bytes(1000))
        for position in range(60):
            client.send(data[position : position + 1])
            server.send(data[position : position + 1])
            harness.pass_time(0.5)
        harness.pass_time(0.25)
        self.assertIs(client.lost, Reason.IDLE_TIMEOUT)
        self.assertIs(server.lost, Reason.IDLE_TIMEOUT)

    def test_receiving_does_not_keep_alive(self) -> None:
        """What is sent to a link does not keep it."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        harness.pair(client, server)
        for _ in range(30):
            self.assertIsNone(client.lost)
            server.send(HELLO)
            harness.pass_time(1)
        harness.pass_time(0.25)
        self.assertIs(client.lost, Reason.IDLE_TIMEOUT)
        self.assertEqual(server.take(), CLOSED)

    def test_each_side_has_its_own(self) -> None:
        """Each port's idle timeout is its own."""
        harness = Harness(client=PortConfig(idle_timeout=2), server=PortConfig(idle_timeout=7))
        client, server = harness.client(), harness.server()
        harness.pass_time(2.25)
        self.assertIs(client.lost, Reason.IDLE_TIMEOUT)
        harness.pass_time(4.5)
        self.assertIsNone(server.lost)
        harness.pass_time(0.5)
        self.assertIs(server.lost, Reason.IDLE_TIMEOUT)

    def test_zero_is_never(self) -> None:
        """An idle timeout of 0 loses nobody."""
        harness = Harness(client=PortConfig(idle_timeout=0), server=PortConfig(idle_timeout=0))
        client, server = harness.client(), harness.server()
        harness.pass_time(1000)
        self.assertIsNone(client.lost)
        self.assertIsNone(server.lost)

    def test_peers_of_the_idle_are_told(self) -> None:
        """The idle link's peers get a Close at once."""
        harness = Harness(server=PortConfig(idle_timeout=0))
        client, server = harness.client(), harness.server()
        harness.pair(client, server)
        harness.pass_time(30.25)
        self.assertEqual(server.take(), CLOSED)

    def test_stalled_process_loses_nobody(self) -> None:
        """A time in which the process did not run is not held against anybody."""
        harness = Harness()
        client = harness.client()
        harness.pass_time(10)
        harness.clock.advance(600)
        self.assertIsNone(client.lost)
        harness.pass_time(19.5)
        self.assertIsNone(client.lost)
        harness.pass_time(1)
        self.assertIs(client.lost, Reason.IDLE_TIMEOUT)

    def test_slow_losses_skip_nobody(self) -> None:
        """Losses that take their time, as a slow log makes them, let nobody else be forgotten."""
        harness = Harness(client=PortConfig(idle_timeout=2))

        class SlowLog(LogLines):
            def __call__(self, event: LogEvent) -> None:
                harness.clock.rightNow += 0.03

        clients = []
        for _ in range(40):
            clients.append(harness.client())
            harness.clock.advance(0.04)
        with SlowLog():
            harness.pass_time(4)
        self.assertEqual([client.lost for client in clients], [Reason.IDLE_TIMEOUT] * 40)


SMALL = dict[str, Any](queue_packets=10, queue_bytes=1000)


class SlowClientTests(SynchronousTestCase):
    """A client that does not read is lost; nobody else notices more than a Close."""

    def setUp(self) -> None:
        self.harness = Harness(client=PortConfig(**SMALL))
        self.client = self.harness.client()
        self.other = self.harness.client()
        self.server = self.harness.server()
        self.conn_id = self.harness.pair(self.client, self.server)
        self.other_id = self.harness.pair(self.other, self.server)
        self.client.transport.fill()

    def _assert_cut(self) -> None:
        self.assertIsNone(self.client.lost)
        self.harness.turn()
        self.assertIs(self.client.lost, Reason.SLOW_READER)
        self.assertTrue(self.client.transport.aborted)
        self.assertEqual(self.server.take(), close(self.conn_id))
        self.server.send(packet(self.other_id, b"on"))
        self.assertEqual(self.other.take(), packet(self.other_id, b"on"))

    def test_packets_at_the_bound(self) -> None:
        """queue_packets - 1 and queue_packets may wait."""
        for _ in range(9):
            self.server.send(packet(self.conn_id))
        self.harness.turn()
        self.server.send(packet(self.conn_id))
        self.harness.turn()
        self.assertIsNone(self.client.lost)
        self.assertEqual(self.client.link.counts().waiting_packets, 10)
        self.assertEqual(self.client.take(), b"")

    def test_packets_over_the_bound(self) -> None:
        """One packet more than queue_packets costs the client its connection."""
        for _ in range(11):
            self.server.send(packet(self.conn_id))
        self._assert_cut()

    def test_packets_over_the_bound_in_one_read(self) -> None:
        """The packets of one read are counted one by one."""
        self.server.send(packet(self.conn_id) * 11)
        self._assert_cut()

    def test_bytes_at_the_bound(self) -> None:
        """queue_bytes may wait, heads included."""
        self.server.send(packet(self.conn_id, bytes(991)))
        self.harness.turn()
        self.assertIsNone(self.client.lost)
        self.client.transport.drain_once()
        self.assertEqual(self.client.take(), packet(self.conn_id, bytes(991)))
        self.server.send(packet(self.conn_id, bytes(992)))
        self.harness.turn()
        self.assertIsNone(self.client.lost)
        self.assertEqual(self.client.link.counts().waiting_bytes, 1000)

    def test_bytes_over_the_bound(self) -> None:
        """One byte more than queue_bytes costs the client its connection."""
        self.server.send(packet(self.conn_id, bytes(993)))
        self._assert_cut()

    def test_reads_what_fast_servers_send(self) -> None:
        """A client whose transport runs empty again and again is not cut for its packets."""
        clock = self.harness.clock
        lost = []

        def turn(left: int) -> None:
            self.server.send(packet(self.conn_id) * 11)
            self.client.transport.drain_once()
            self.server.send(packet(self.conn_id) * 11)
            lost.append(self.client.lost)
            if left:
                clock.callLater(0, turn, left - 1)

        clock.callLater(0, turn, 20)
        self.harness.turn()
        self.assertEqual(lost, [None] * 21)
        # Now it reads no more, and what waits is over the bound still.
        self.assertIs(self.client.lost, Reason.SLOW_READER)

    def test_bytes_bound_whatever_it_reads(self) -> None:
        """Over queue_bytes a client is cut even when its transport ran empty meanwhile."""
        self.server.send(packet(self.conn_id) * 11)
        self.client.transport.drain_once()
        self.server.send(packet(self.conn_id, bytes(993)))
        self._assert_cut()

    def test_gateway_answers_count(self) -> None:
        """Answers to the client's own commands wait and count like packets."""
        self.client.send(PING * 11)
        self._assert_cut()

    def test_nothing_more_is_sent(self) -> None:
        """A client that was cut gets no more bytes, and its server's packets are strays."""
        self.server.send(packet(self.conn_id) * 11)
        self.harness.turn()
        self.server.take()
        self.server.send(packet(self.conn_id))
        self.assertEqual(self.server.take(), close(self.conn_id))
        self.assertEqual(self.client.take(), b"")
        self.client.gone(ConnectionAborted())
        self.assertEqual(self.harness.router.stats.lost[Side.CLIENT, Reason.SLOW_READER], 1)
        self.assertEqual(self.harness.router.stats.lost.total(), 1)

    def test_burst_that_is_taken(self) -> None:
        """A burst over the bounds that the transport takes within the turn costs nothing."""
        data = packet(self.conn_id, b"burst") * 50
        self.server.send(data)
        self.client.transport.drain()
        self.harness.turn()
        self.assertIsNone(self.client.lost)
        self.assertEqual(self.client.take(), data)
        self.assertEqual(self.client.link.counts().waiting_packets, 0)
        self.assertEqual(self.client.link.counts().waiting_bytes, 0)

    def test_judged_again(self) -> None:
        """A client that took one burst in time is lost for the next if it does not take that."""
        self.server.send(packet(self.conn_id) * 50)
        self.client.transport.drain_once()
        self.harness.turn()
        self.assertIsNone(self.client.lost)
        self.server.send(packet(self.conn_id) * 11)
        self._assert_cut()

    def test_gone_before_it_is_judged(self) -> None:
        """A client that goes by itself before it is judged went by itself."""
        self.server.send(packet(self.conn_id) * 11)
        self.client.gone()
        self.harness.turn()
        self.assertIs(self.client.lost, Reason.PEER_CLOSED)

    def test_order_through_the_queue(self) -> None:
        """What was written, what waited and what came later arrive in order, once each."""
        sent = b""
        for n in range(8):
            data = packet(self.conn_id, bytes([n]) * n)
            self.server.send(data)
            sent += data
        self.client.transport.drain()
        data = packet(self.conn_id, b"last")
        self.server.send(data)
        self.assertEqual(self.client.take(), sent + data)

    def test_full_again_while_draining(self) -> None:
        """A transport that is full again while the queue drains leaves the rest waiting."""
        harness = Harness(client=PortConfig(queue_packets=100))
        client, server = harness.client(), harness.server()
        conn_id = harness.pair(client, server)
        client.transport.fill()
        for n in range(5):
            server.send(packet(conn_id, bytes([n]) * (WRITE_PIECE // 2)))
        client.transport.drain_once()
        first = split(client.take())
        self.assertEqual([message[0] for _, message in first], [0, 1])
        self.assertEqual(client.link.counts().waiting_packets, 3)
        client.transport.drain()
        self.assertEqual([message[0] for _, message in split(client.take())], [2, 3, 4])


class WriteTimeoutTests(SynchronousTestCase):
    """A link with waiting data that takes nothing (see test_sockets for what the kernel tells)."""

    def setUp(self) -> None:
        config = PortConfig(idle_timeout=0, write_timeout=10)
        self.harness = Harness(client=config, server=config)
        self.client, self.server = self.harness.client(), self.harness.server()
        self.conn_id = self.harness.pair(self.client, self.server)

    def test_nothing_taken(self) -> None:
        """Who takes nothing for the write timeout is lost at once, on either side."""
        for end, peer in ((self.client, self.server), (self.server, self.harness.client())):
            end.transport.fill()
            self.harness.pass_time(9.75)
            self.assertIsNone(end.lost)
            self.harness.pass_time(0.5)
            self.assertIs(end.lost, Reason.WRITE_TIMEOUT)
            self.assertTrue(end.transport.aborted)
            self.assertIsNone(peer.lost)

    def test_peers_are_told(self) -> None:
        """Its peers get a Close at once."""
        self.server.transport.fill()
        self.harness.pass_time(10.25)
        self.assertEqual(self.client.take(), close(self.conn_id))

    def test_something_taken(self) -> None:
        """Who takes something within the write timeout has it anew."""
        self.server.transport.fill()
        conns = [(self.client, self.conn_id)]
        for _ in range(19):
            client = self.harness.client()
            conns.append((client, self.harness.pair(client, self.server)))
        self.server.transport.fill()
        for client, conn_id in conns:
            client.send(packet(conn_id, bytes(200_000)))
        for _ in range(5):
            self.harness.pass_time(9.75)
            self.assertIsNone(self.server.lost)
            self.server.transport.drain_once()
        self.assertGreater(self.server.link.counts().waiting_packets, 0)
        self.harness.pass_time(10.25)
        self.assertIs(self.server.lost, Reason.WRITE_TIMEOUT)

    def test_zero_is_never(self) -> None:
        """A write timeout of 0 loses nobody."""
        harness = Harness(server=PortConfig(idle_timeout=0, write_timeout=0))
        server = harness.server()
        server.transport.fill()
        harness.pass_time(1000)
        self.assertIsNone(server.lost)

    def test_nothing_waiting(self) -> None:
        """Who has nothing waiting is not asked to take anything."""
        self.harness.pass_time(1000)
        self.assertIsNone(self.server.lost)

    def test_before_the_idle_timeout(self) -> None:
        """A write timeout that comes before the idle timeout is not put off by it."""
        harness = Harness(client=PortConfig(idle_timeout=30, write_timeout=1))
        client = harness.client()
        harness.pass_time(3)
        client.transport.fill()
        harness.pass_time(1.25)
        self.assertIs(client.lost, Reason.WRITE_TIMEOUT)

    def test_without_write_timeout_idle_goes_on(self) -> None:
        """A full link that sends nothing is idle all the same."""
        harness = Harness(client=PortConfig(idle_timeout=3, write_timeout=0))
        client = harness.client()
        client.transport.fill()
        harness.pass_time(3.25)
        self.assertIs(client.lost, Reason.IDLE_TIMEOUT)


class SlowServerTests(SynchronousTestCase):
    """A server that does not read holds those who send to it, and is not lost for it."""

    write_timeout = 100.0

    def setUp(self) -> None:
        self.harness = Harness(
            server=PortConfig(**SMALL, idle_timeout=0, write_timeout=self.write_timeout),
        )
        self.sender = self.harness.client()
        self.bystander = self.harness.client()
        self.server = self.harness.server()
        self.second = self.harness.server(2)
        self.conn_id = self.harness.pair(self.sender, self.server)
        self.other_id = self.harness.pair(self.bystander, self.server)
        self.server.transport.fill()

    def _flood(self, packets: int = 11) -> None:
        for _ in range(packets):
            self.sender.send(packet(self.conn_id))

    def test_packets_at_the_bound(self) -> None:
        """queue_packets - 1 and queue_packets may wait without holding the sender."""
        self._flood(9)
        self._flood(1)
        self.assertFalse(self.sender.paused)
        self.assertEqual(self.harness.service.holds, 0)

    def test_packets_over_the_bound(self) -> None:
        """One packet more than queue_packets pauses its sender, and only its sender."""
        self._flood(11)
        self.assertTrue(self.sender.paused)
        self.assertTrue(self.sender.link.counts().held)
        self.assertFalse(self.bystander.paused)
        self.assertFalse(self.server.paused)
        self.assertFalse(self.second.paused)
        self.assertEqual(self.harness.service.holds, 1)

    def test_bytes_at_and_over_the_bound(self) -> None:
        """queue_bytes may wait; one byte more pauses the sender."""
        self.sender.send(packet(self.conn_id, bytes(992)))
        self.assertFalse(self.sender.paused)
        self.server.transport.drain_once()
        self.sender.send(packet(self.conn_id, bytes(993)))
        self.assertTrue(self.sender.paused)

    def test_who_sends_next_is_held_too(self) -> None:
        """Every end that sends to the full server is paused when it does; all are resumed."""
        self._flood()
        self.bystander.send(packet(self.other_id))
        self.assertTrue(self.bystander.paused)
        self.server.transport.drain()
        self.assertFalse(self.sender.paused)
        self.assertFalse(self.bystander.paused)
        self.assertEqual(self.harness.service.holds, 2)

    def test_who_sends_elsewhere_is_not_held(self) -> None:
        """An end that sends to others is not paused, even with a connection to the full one."""
        self._flood()
        self.bystander.send(dial(2) + packet(FIRST + 2, b"on"))
        self.assertFalse(self.bystander.paused)
        self.assertEqual(self.second.take(), connect(FIRST + 2, 2) + packet(FIRST + 2, b"on"))

    def test_resumed_below_half_of_the_packets(self) -> None:
        """The sender is resumed below half of queue_packets: not at 5 of 10, but at 4."""
        harness = self._slow_drain(packets=10, size=10_000_000)
        self._drain_to(harness, 5)
        self.assertTrue(self.sender.paused)
        self._drain_to(harness, 4)
        self.assertFalse(self.sender.paused)

    def test_resumed_below_half_of_the_bytes(self) -> None:
        """The sender is resumed below half of queue_bytes, not at half of them."""
        # Each packet is a piece of its own, its head included.
        harness = self._slow_drain(packets=1000, size=10 * WRITE_PIECE)
        self._drain_to(harness, 5)
        self.assertTrue(self.sender.paused)
        self._drain_to(harness, 4)
        self.assertFalse(self.sender.paused)

    def _slow_drain(self, packets: int, size: int) -> Harness:
        """A server with 11 packets waiting, one of each sender, that takes one at a time."""
        harness = Harness(server=PortConfig(queue_packets=packets, queue_bytes=size))
        self.server = harness.server()
        senders = [harness.client() for _ in range(11)]
        conns = [harness.pair(sender, self.server) for sender in senders]
        self.server.transport.fill()
        for sender, conn_id in zip(senders, conns, strict=True):
            sender.send(packet(conn_id, bytes(WRITE_PIECE - 8)))
        self.sender = senders[-1]
        self.assertTrue(self.sender.paused)
        return harness

    def _drain_to(self, harness: Harness, packets: int) -> None:
        while self.server.link.counts().waiting_packets > packets:
            self.assertTrue(self.sender.paused)
            self.server.transport.drain_once()
        self.assertEqual(self.server.link.counts().waiting_packets, packets)

    def test_all_arrives_in_order(self) -> None:
        """Nothing is lost, doubled or reordered by a hold."""
        sent = b""
        got = b""
        number = 0
        self.server.take()
        while number < 200:
            self.assertFalse(self.sender.paused)
            while not self.sender.paused:
                data = packet(self.conn_id, b"%d" % number)
                self.sender.send(data)
                sent += data
                number += 1
            self.server.transport.drain_once()
            self.server.transport.drain_once()
            got += self.server.take()
        self.server.transport.drain()
        self.assertEqual(got + self.server.take(), sent)
        self.assertGreater(self.harness.service.holds, 10)

    def test_held_by_two(self) -> None:
        """An end that two servers hold is resumed when both have drained."""
        self.second.transport.fill()
        self.sender.send(dial(2))
        self._flood()
        self.server.transport.drain()
        self.assertFalse(self.sender.paused)
        self.server.transport.fill()
        both = packet(self.conn_id) * 11 + packet(FIRST + 2) * 11
        self.sender.send(both)
        self.assertTrue(self.sender.paused)
        self.server.transport.drain()
        self.assertTrue(self.sender.paused)
        self.second.transport.drain()
        self.assertFalse(self.sender.paused)

    def test_only_after_the_write_timeout(self) -> None:
        """The full server is lost after the write timeout, and the hold ends with it."""
        self._flood()
        self.harness.pass_time(29)
        self.bystander.send(PING)
        self.harness.pass_time(29)
        self.bystander.send(PING)
        self.harness.pass_time(29)
        self.bystander.send(PING)
        self.harness.pass_time(12.75)
        self.assertIsNone(self.server.lost)
        self.assertTrue(self.sender.paused)
        self.sender.take()
        self.harness.pass_time(0.5)
        self.assertIs(self.server.lost, Reason.WRITE_TIMEOUT)
        self.assertFalse(self.sender.paused)
        self.assertFalse(self.sender.link.counts().held)
        self.assertEqual(self.sender.take(), close(self.conn_id))
        self.sender.send(PING)
        self.assertEqual(self.sender.take(), PING)

    def test_held_is_not_idle(self) -> None:
        """A held end is not lost as idle; its idle time begins anew when it is resumed."""
        self._flood()
        self.harness.pass_time(80)
        self.assertIsNone(self.sender.lost)
        self.assertIs(self.bystander.lost, Reason.IDLE_TIMEOUT)
        self.server.transport.drain()
        self.harness.pass_time(29.75)
        self.assertIsNone(self.sender.lost)
        self.harness.pass_time(0.5)
        self.assertIs(self.sender.lost, Reason.IDLE_TIMEOUT)

    def test_hold_ends_with_the_server(self) -> None:
        """A server that goes by itself no longer holds anybody."""
        self._flood()
        self.sender.take()
        self.server.gone(ConnectionLost())
        self.assertFalse(self.sender.paused)
        self.assertEqual(self.sender.take(), close(self.conn_id))

    def test_held_end_goes(self) -> None:
        """A held end that goes is not resumed later, and the server is told."""
        self._flood()
        self.sender.gone(ConnectionLost())
        self.assertIs(self.sender.lost, Reason.CONNECTION_LOST)
        self.server.transport.drain()
        self.assertTrue(self.sender.paused)
        self.assertEqual(self.server.take()[-13:], close(self.conn_id))

    def test_held_end_is_kicked(self) -> None:
        """A held end can be lost, and is not resumed afterwards."""
        self._flood()
        self.harness.router.lose(self.sender.link, Reason.KICKED)
        self.harness.service.flush()
        self.assertTrue(self.sender.transport.disconnecting)
        self.server.transport.drain()
        self.assertIs(self.sender.lost, Reason.KICKED)

    def test_sender_that_breaks_the_rules_is_not_held(self) -> None:
        """An end that is lost by the read that fills a server is lost, not held."""
        self.sender.send(packet(self.conn_id) * 11 + command(9))
        self.assertIs(self.sender.lost, Reason.BAD_COMMAND)
        self.assertFalse(self.sender.link.counts().held)
        self.assertEqual(self.harness.service.holds, 0)

    def test_other_losses_hold_nobody(self) -> None:
        """A Close that a leaving end makes for a full server holds nobody."""
        self._flood(10)
        self.sender.gone()
        self.assertEqual(self.server.link.counts().waiting_packets, 11)
        self.assertEqual(self.harness.service.holds, 0)

    def test_saturated_server_refuses_dials(self) -> None:
        """With twice its bound waiting a server is still dialled; with more it is not."""
        self.sender.send(packet(self.conn_id) * 20)
        self.bystander.send(dial(1))
        self.assertEqual(self.bystander.take(), accept(FIRST + 2, 1))
        self.assertTrue(self.bystander.paused)
        third = self.harness.client()
        third.send(dial(1))
        self.assertEqual(third.take(), refuse(1))
        self.assertFalse(third.paused)
        self.assertEqual(self.harness.router.stats.refused[Refusal.BUSY], 1)
        self.server.transport.drain()
        third.send(dial(1))
        self.assertEqual(third.take(), accept(FIRST + 3, 1))

    def test_saturated_by_bytes(self) -> None:
        """With more than twice its byte bound waiting a server refuses dials."""
        self.sender.send(packet(self.conn_id, bytes(1993)))
        self.bystander.send(dial(1))
        self.assertEqual(self.bystander.take(), refuse(1))


class MaxLinksTests(SynchronousTestCase):
    """Connections over max_links are closed at once."""

    def test_further_clients_are_turned_away(self) -> None:
        """max_links clients connect, the next is aborted, and a place that is left is free."""
        harness = Harness(client=PortConfig(max_links=2))
        first, _ = harness.client(), harness.client()
        for _ in range(2):
            away = harness.clients.buildProtocol(IPv4Address("TCP", "192.0.2.9", 1))
            self.assertIsInstance(away, TurnedAway)
            transport = StringTransport()
            away.makeConnection(transport)
            self.assertTrue(transport.disconnected)
            away.connectionLost()
        self.assertEqual(harness.service.turned_away, 2)
        self.assertEqual(len(harness.router.clients), 2)
        first.gone()
        harness.client()

    def test_handshakes_count(self) -> None:
        """Connections that have not proved the key count for the server port."""
        harness = Harness(server=PortConfig(max_links=1))
        stranger = harness.stranger()
        away = harness.servers.buildProtocol(None)
        self.assertIsInstance(away, TurnedAway)
        stranger.gone()
        harness.server()

    def test_ports_do_not_share(self) -> None:
        """Clients take no places of servers."""
        harness = Harness(client=PortConfig(max_links=1), server=PortConfig(max_links=1))
        harness.client()
        harness.server()

    def test_said_in_one_line(self) -> None:
        """A connection turned away is one warning with its address and the limit."""
        harness = Harness(client=PortConfig(max_links=1))
        harness.client()
        with LogLines() as log:
            harness.clients.buildProtocol(IPv4Address("TCP", "192.0.2.9", 1))
        self.assertEqual(
            log.lines,
            ["client ? 192.0.2.9:1 turned away: 1 connections are open, max-clients is 1"],
        )
        self.assertIs(log.events[0]["log_level"], LogLevel.warn)


class EndTests(SynchronousTestCase):
    """How links go."""

    def test_half_close(self) -> None:
        """After a FIN: its packets, its Closes, then what waits for it, then the end."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        conn_id = harness.pair(client, server)
        client.transport.fill()
        server.send(packet(conn_id, b"waits"))
        client.send(packet(conn_id, b"said"))
        client.half_close()
        self.assertEqual(server.take(), packet(conn_id, b"said") + close(conn_id))
        self.assertEqual(client.take(), packet(conn_id, b"waits"))
        self.assertTrue(client.transport.disconnecting)
        self.assertFalse(client.transport.aborted)
        self.assertIs(client.lost, Reason.PEER_CLOSED)
        self.assertIsNone(client.transport.producer)
        server.send(packet(conn_id, b"late"))
        self.assertEqual(server.take(), close(conn_id))
        self.assertEqual(client.take(), b"")

    def test_half_close_before_login(self) -> None:
        """A FIN during the handshake ends it."""
        harness = Harness()
        server = harness.stranger()
        server.half_close()
        self.assertTrue(server.transport.disconnecting)
        self.assertEqual(harness.router.stats.turned_away[Reason.PEER_CLOSED], 1)

    def test_interfaces(self) -> None:
        """A lane is what Twisted and snet ask for to get FINs, fullness and cuts told."""
        harness = Harness()
        for end in (harness.client(), harness.server()):
            verifyObject(IHalfCloseableProtocol, end.lane)
            verifyObject(IPushProducer, end.lane)
            verifyObject(IResumableProtocol, end.lane)
            end.lane.writeConnectionLost()
            end.lane.stopProducing()
            self.assertIsNone(end.lost)

    def test_linger(self) -> None:
        """A lost link that does not take what is on its way is aborted after LINGER."""
        harness = Harness()
        client = harness.client()
        client.send(command(9))
        self.assertTrue(client.transport.disconnecting)
        harness.pass_time(LINGER - 0.25)
        self.assertFalse(client.transport.aborted)
        harness.pass_time(0.5)
        self.assertTrue(client.transport.aborted)
        self.assertIs(client.lost, Reason.BAD_COMMAND)

    def test_linger_of_the_idle(self) -> None:
        """A link that is lost by the wheel itself is aborted after LINGER too."""
        harness = Harness()
        client = harness.client()
        harness.pass_time(30.25)
        self.assertTrue(client.transport.disconnecting)
        harness.pass_time(LINGER - 0.5)
        self.assertFalse(client.transport.aborted)
        harness.pass_time(0.75)
        self.assertTrue(client.transport.aborted)

    def test_gone_within_linger(self) -> None:
        """A lost link that goes in time is not aborted, and leaves no timer behind."""
        harness = Harness()
        client = harness.client()
        client.send(command(9))
        client.gone()
        harness.pass_time(LINGER + 1)
        self.assertFalse(client.transport.aborted)
        self.assertEqual(harness.clock.getDelayedCalls(), [])

    def test_batch_of_the_lost_is_sent(self) -> None:
        """What a read collected for a link before the link's own loss still goes out."""
        harness = Harness()
        client = harness.client()
        client.send(PING * 3 + b"\0\0\0\0")
        self.assertEqual(client.take(), PING * 3)
        self.assertTrue(client.transport.disconnecting)

    def test_nothing_after_the_end(self) -> None:
        """Bytes that a transport delivers after the loss are not looked at."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        client.send(command(9))
        client.send(dial(1))
        self.assertEqual(client.take() + server.take(), b"")
        self.assertEqual(client.link.counts().packets_in, 1)

    def test_kick(self) -> None:
        """A kicked link gets what was on its way and goes; its peers get a Close."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        conn_id = harness.pair(client, server)
        harness.router.lose(client.link, Reason.KICKED)
        harness.service.flush()
        self.assertTrue(client.transport.disconnecting)
        self.assertEqual(server.take(), close(conn_id))
        client.gone()
        self.assertEqual(harness.router.stats.lost[Side.CLIENT, Reason.KICKED], 1)
        self.assertEqual(harness.router.stats.lost.total(), 1)

    def test_error_in_the_transport(self) -> None:
        """Another error than a lost connection is a broken connection, with its text."""
        harness = Harness()
        client = harness.client()
        with LogLines() as log:
            client.gone(SSL.Error([("SSL routines", "", "tlsv1 alert unknown ca")]))
        self.assertIs(client.lost, Reason.CONNECTION_LOST)
        self.assertIn("broke: TLS: the other side does not trust the certificate", log.lines[0])

    def test_drained_after_the_loss(self) -> None:
        """A transport that reports room or fullness after the loss changes nothing."""
        harness = Harness()
        client = harness.client()
        client.transport.fill()
        client.send(command(9))
        client.lane.resumeProducing()
        client.lane.pauseProducing()
        harness.pass_time(1)
        self.assertEqual(client.take(), b"")


class TurnTests(SynchronousTestCase):
    """What one turn may cost, whoever asks."""

    def _dials(self, harness: Harness, end: End, count: int) -> int:
        """Answers that it got after `count` dials in one read, without another turn."""
        end.lane.dataReceived(refused * count)
        return len(end.take()) // len(refuse(9))

    def test_one_link(self) -> None:
        """Of one link COMMANDS_EACH commands are carried out a turn; meanwhile it is read once."""
        harness = Harness()
        client = harness.client()
        self.assertEqual(self._dials(harness, client, 90), COMMANDS_EACH)
        self.assertFalse(client.paused)
        self.assertEqual(self._dials(harness, client, 10), 0)
        self.assertTrue(client.paused)
        for turn in range(2, 7):
            harness.service.turn()
            self.assertEqual(len(client.take()) // 13, COMMANDS_EACH, turn)
        harness.service.turn()
        self.assertEqual(client.take(), refuse(9) * (100 - 6 * COMMANDS_EACH))
        self.assertFalse(client.paused)
        self.assertEqual(harness.service.holds, 0)

    def test_all_links(self) -> None:
        """All links together have COMMANDS_TURN commands a turn, and take turns."""
        harness = Harness()
        clients = [harness.client() for _ in range(10)]
        answers = [self._dials(harness, client, 2 * COMMANDS_EACH) for client in clients]
        self.assertEqual(sum(answers), COMMANDS_TURN)
        everybody = [0] * 10
        for _ in range(8):
            before = harness.router.commands
            harness.service.turn()
            self.assertLessEqual(harness.router.commands - before, COMMANDS_TURN)
        for number, client in enumerate(clients):
            everybody[number] = answers[number] + len(client.take()) // 13
        self.assertEqual(everybody, [2 * COMMANDS_EACH] * 10)
        self.assertFalse(harness.service.turn_due)

    def test_forwarding_goes_on(self) -> None:
        """Messages of others pass while somebody's commands wait their turn."""
        harness = Harness()
        client, server, flooder = harness.client(), harness.server(), harness.client()
        conn_id = harness.pair(client, server)
        flooder.lane.dataReceived(refused * 500)
        client.lane.dataReceived(packet(conn_id, b"hello"))
        self.assertEqual(server.take(), packet(conn_id, b"hello"))

    def test_order(self) -> None:
        """What stands behind a command that waits is not forwarded before it."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        conn_id = harness.pair(client, server)
        client.lane.dataReceived(dial(1) * COMMANDS_EACH + packet(conn_id, b"x") + dial(1) + PING)
        self.assertEqual(server.take()[-9:], packet(conn_id, b"x"))
        client.take()
        harness.clock.advance(0)
        self.assertEqual(client.take(), refuse(1) + PING)

    def test_end_behind_commands(self) -> None:
        """A FIN behind commands that wait is heard after them; so is a broken length."""
        for end, reason in ((b"", Reason.PEER_CLOSED), (b"\0\0\0\0", Reason.FRAME_TOO_SHORT)):
            with self.subTest(reason=reason):
                harness = Harness()
                client = harness.client()
                client.lane.dataReceived(refused * 20 + end)
                if not end:
                    client.lane.readConnectionLost()
                self.assertIsNone(client.lost)
                harness.clock.advance(0)
                self.assertIs(client.lost, reason)
                self.assertEqual(client.take(), refuse(9) * 20)

    def test_broken_in_the_next_read(self) -> None:
        """A broken length that comes while commands wait is heard after them, too."""
        harness = Harness()
        client = harness.client()
        client.lane.dataReceived(refused * 20)
        client.lane.dataReceived(b"\0\0\0\0")
        self.assertIsNone(client.lost)
        harness.service.turn()
        self.assertIs(client.lost, Reason.FRAME_TOO_SHORT)
        self.assertEqual(client.take(), refuse(9) * 20)

    def test_gone_with_commands(self) -> None:
        """What came before a connection broke is carried out."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        client.lane.dataReceived(dial(1) * 16 + refused * 10 + dial(1))
        client.gone(ConnectionLost())
        harness.turn()
        self.assertEqual(harness.router.stats.dials, 27)
        self.assertEqual(len(server.take()), 16 * (17 + 13))


class MemoryTests(SynchronousTestCase):
    """What waits for all links together has a bound."""

    def setUp(self) -> None:
        self.harness = Harness()
        self.harness.service.memory_limit = 1_000_000
        self.server = self.harness.server()
        self.clients = [self.harness.client() for _ in range(4)]
        self.conns = [self.harness.pair(client, self.server) for client in self.clients]

    def _wait(self, number: int, size: int) -> None:
        self.clients[number].transport.fill()
        self.server.send(packet(self.conns[number], bytes(size - 8)))

    def test_who_has_most_goes(self) -> None:
        """Over it the client that has most waiting is lost, and only that one."""
        for number, size in enumerate((200_000, 400_000, 300_000)):
            self._wait(number, size)
        self.assertEqual([client.lost for client in self.clients], [None] * 4)
        self._wait(3, 100_000)
        self.assertEqual([client.lost for client in self.clients], [None] * 4)
        self._wait(3, 1000)
        lost = [client.lost for client in self.clients]
        self.assertEqual(lost, [None, Reason.NO_MEMORY, None, None])
        self.assertTrue(self.clients[1].transport.aborted)
        self.assertIsNone(self.server.lost)
        self.harness.check_books()

    def test_unfinished_packets_count(self) -> None:
        """Packets that are not whole are somebody's too."""
        for client, conn_id in zip(self.clients[:3], self.conns[:3], strict=True):
            client.send(packet(conn_id, bytes(400_000))[:350_000])
        lost = [client.lost for client in self.clients]
        self.assertEqual(lost.count(Reason.NO_MEMORY), 1)
        self.assertEqual(lost.count(None), 3)
        self.harness.check_books()

    def test_not_whom_the_core_counts(self) -> None:
        """What waits in the native lane is not reason to lose its links here."""
        self._wait(0, 900_000)
        self.patch(StreamLane, "native", True)
        self._wait(1, 200_000)
        self.assertEqual([client.lost for client in self.clients], [None] * 4)

    def test_servers_last(self) -> None:
        """A server goes only when no client has anything."""
        self._wait(0, 1000)
        self.server.transport.fill()
        flood = [self.harness.client() for _ in range(20)]
        conns = [self.harness.pair(client, self.server) for client in flood]
        self.server.transport.fill()
        for client, conn_id in zip(flood, conns, strict=True):
            if self.server.lost is None:
                client.send(packet(conn_id, bytes(100_000)))
        self.assertIs(self.clients[0].lost, Reason.NO_MEMORY)
        self.assertIs(self.server.lost, Reason.NO_MEMORY)


refused = dial(9)
"""A dial that is refused."""


class StopTests(SynchronousTestCase):
    """RouterService.stopService."""

    def test_waits_for_all_transports(self) -> None:
        """Everything is lost with SHUTDOWN; the Deferred fires when the last transport is gone."""
        harness = Harness()
        ends: list[AnyEnd] = [harness.client(), harness.server(), harness.stranger()]
        fired: list[None] = []
        stopped = harness.service.stopService()
        assert isinstance(stopped, Deferred)
        stopped.addCallback(fired.append)
        self.assertEqual([end.lost for end in ends], [Reason.SHUTDOWN] * 3)
        for end in ends:
            self.assertTrue(end.transport.disconnecting)
            self.assertEqual(fired, [])
            end.gone()
        self.assertEqual(fired, [None])
        self.assertEqual(harness.clock.getDelayedCalls(), [])

    def test_within_linger(self) -> None:
        """A link that takes nothing is aborted after LINGER, so stopping ends."""
        harness = Harness()
        client = harness.client()
        client.transport.fill()
        harness.service.stopService()
        harness.pass_time(LINGER + 0.25)
        self.assertTrue(client.transport.aborted)

    def test_links_that_linger_already(self) -> None:
        """Stopping waits for links that were lost before, and keeps their reason."""
        harness = Harness()
        client = harness.client()
        client.send(command(9))
        stopped = harness.service.stopService()
        assert stopped is not None
        self.assertNoResult(stopped)
        client.gone()
        self.successResultOf(stopped)
        self.assertIs(client.lost, Reason.BAD_COMMAND)

    def test_nobody_connected(self) -> None:
        """With nobody connected stopping is done at once."""
        harness = Harness()
        harness.client().gone()
        self.assertIsNone(harness.service.stopService())
        self.assertEqual(harness.clock.getDelayedCalls(), [])

    def test_turns_away_while_stopping(self) -> None:
        """Who connects while the gateway stops is turned away; after a new start no longer."""
        harness = Harness()
        harness.service.stopService()
        for factory in (harness.clients, harness.servers):
            self.assertIsInstance(factory.buildProtocol(None), TurnedAway)
        harness.service.startService()
        harness.client()

    def test_new_start(self) -> None:
        """A service that was stopped and started again keeps time again."""
        harness = Harness()
        harness.client()
        harness.service.stopService()
        for link in list(harness.service.connected):
            cast(StreamLane, link.lane).connectionLost()
        harness.service.startService()
        client = harness.client()
        harness.pass_time(30.5)
        self.assertIs(client.lost, Reason.IDLE_TIMEOUT)

    def test_counters_add_up(self) -> None:
        """gained = live + lost; dials = accepted + refused; accepted = open + closed."""
        harness = Harness()
        client, other, server = harness.client(), harness.client(), harness.server()
        client.send(dial(1) * 18)
        other.send(dial(1) + dial(9) + close(FIRST + 1))
        server.send(dial(2) + dial(99) + close(FIRST))
        stats = harness.router.stats
        self.assertEqual(stats.dials, stats.accepted + stats.refused.total())
        self.assertEqual(stats.accepted, len(harness.router.conn_ids) + stats.closed)
        client.gone()
        self.assertEqual(stats.gained.total(), stats.lost.total() + 2)
        harness.service.stopService()
        self.assertEqual(stats.gained.total(), stats.lost.total())
        self.assertEqual(stats.accepted, stats.closed)
        self.assertEqual(harness.router.conn_ids, set())


class LogTests(SynchronousTestCase):
    """One line for what happens to a link, none for what it says."""

    def test_a_clients_life(self) -> None:
        """A client is one line when it takes part and one, with the reason, when it is lost."""
        with LogLines() as log:
            harness = Harness()
            harness.server(1)
            client = harness.client()
            client.send(PING)
            client.send(dial(1))
            harness.clock.advance(0.5)
            client.gone()
        self.assertEqual(
            log.lines[1:],
            [
                "client 1 192.0.2.1:50002 connected",
                "client 1 192.0.2.1:50002 lost: closed by the peer "
                "(after 0.5 s; in 2 packets, 22 bytes; out 2 packets, 26 bytes)",
            ],
        )
        self.assertEqual(log.events[2]["reason_code"], "peer_closed")

    def test_a_client_that_is_dialled(self) -> None:
        """A client that a server dials takes part too, and is one line however often."""
        harness = Harness()
        harness.client()
        server = harness.server(1)
        with LogLines() as log:
            server.send(dial(1) * 3)
        self.assertEqual(log.lines, ["client 1 192.0.2.1:50001 connected"])

    def test_a_servers_life(self) -> None:
        """A server is one line each when it logs in and is lost."""
        with LogLines() as log:
            harness = Harness()
            server = harness.server(7)
            server.send(command(9))
            server.gone()
        self.assertEqual(
            log.lines,
            [
                "server 7 192.0.2.1:50001 logged in",
                "server 7 192.0.2.1:50001 lost: sent a command that an end must not send: "
                "command with type 9 in 1 bytes "
                "(after 0.0 s; in 1 packets, 29 bytes; out 0 packets, 0 bytes)",
            ],
        )

    def test_an_id_in_use(self) -> None:
        """A second server with an id is told of, and what becomes of the dials."""
        for conflict, says in (
            (IdConflict.REPLACE, "new dials go to it, the older keeps what it has"),
            (IdConflict.EVICT, "the older is lost"),
            (IdConflict.REJECT, "it is lost"),
        ):
            with self.subTest(conflict=conflict):
                harness = Harness(limits=Limits(server_id_conflict=conflict))
                harness.server(7)
                with LogLines() as log:
                    harness.server(7)
                self.assertEqual(
                    log.lines[1],
                    f"server 7 192.0.2.1:50002 has the id of 192.0.2.1:50001: {says}",
                )

    def test_health_checks(self) -> None:
        """Who comes and goes without a byte leaves no line at info, on either port."""
        harness = Harness()
        with LogLines() as log:
            for end in (harness.client(), harness.stranger(), harness.client()):
                end.half_close()
                end.gone()
            harness.client().gone(ConnectionLost())
        self.assertEqual([e for e in log.events if e["log_level"] is not LogLevel.debug], [])

    def test_a_failed_login(self) -> None:
        """A failed login is one line with the reason, and no login."""
        with LogLines() as log:
            harness = Harness()
            server = harness.stranger()
            server.send(bytes(20))
            server.gone()
        (line,) = log.lines
        self.assertIn("server ? 192.0.2.1:50001 lost: did not prove the server key", line)

    def test_nothing_per_message(self) -> None:
        """Dials, messages, Closes, refusals, strays and holds are not logged."""
        harness = Harness(server=PortConfig(**SMALL))
        client, other, server = harness.client(), harness.client(), harness.server()
        harness.pair(client, harness.server(5))
        with LogLines() as log:
            client.send(dial(1) + HELLO * 5 + PING + dial(9) + packet(5))
            other.send(CLOSED)
            server.transport.fill()
            client.send(HELLO * 20)
            server.transport.drain()
            client.send(CLOSED)
        self.assertEqual(log.lines, [])

    def test_no_traceback_for_what_a_peer_sends(self) -> None:
        """Every way to break the protocol is one line at info, without a failure."""
        with LogLines() as log:
            harness = Harness()
            for data in (b"\0\0\0\0", b"\xff" * 4, packet(0), command(1), command(6), b"GET / HT"):
                client = harness.client()
                client.send(data)
                client.gone()
            harness.server().gone(ConnectionLost())
        # Of those of one address that are alike the first.
        self.assertEqual(len(log.lines), 3 + 2)
        self.assertEqual({event["log_level"] for event in log.events}, {LogLevel.info})
        self.assertFalse([event for event in log.events if "log_failure" in event])

    def test_slow_reader_says_how_much(self) -> None:
        """A slow reader's line says how much waited for it."""
        harness = Harness(client=PortConfig(**SMALL))
        client = harness.client()
        client.transport.fill()
        with LogLines() as log:
            client.send(PING * 12)
            harness.turn()
        (line,) = log.lines
        self.assertIn("lost: more waits for it than its bounds allow: 12 packets, 108 bytes", line)

    def test_addresses(self) -> None:
        """Addresses are written as operators write them."""
        for address, name in (
            (IPv4Address("TCP", "192.0.2.1", 80), "192.0.2.1:80"),
            (IPv6Address("TCP", "2001:db8::1", 80), "[2001:db8::1]:80"),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 80), "192.0.2.1:80"),
            (UNIXAddress(b"/run/fastway.sock"), "/run/fastway.sock"),
            (UNIXAddress(None), "local"),
        ):
            self.assertEqual(address_name(cast(Any, address)), name)


class DefaultTests(SynchronousTestCase):
    """The defaults of spec sections 5 and 8."""

    def test_port_configs(self) -> None:
        """Both ports have the original's bounds, and this project's for bytes and writing."""
        self.assertEqual(
            PortConfig(),
            PortConfig(
                max_packet=524288,
                read_size=2048,
                idle_timeout=30,
                queue_packets=1000,
                queue_bytes=4 * 2**20,
                write_timeout=30,
            ),
        )
        self.assertEqual(
            server_port_config(),
            PortConfig(
                max_packet=524288,
                read_size=65536,
                idle_timeout=30,
                queue_packets=100_000,
                queue_bytes=64 * 2**20,
                write_timeout=30,
            ),
        )

    def test_factories_take_them(self) -> None:
        """A factory without a config has its side's defaults."""
        harness = Harness()
        self.assertEqual(harness.clients.config, PortConfig())
        self.assertEqual(harness.servers.config, server_port_config())
        self.assertIs(harness.client().link.side, Side.CLIENT)
        self.assertEqual(RouterService(Clock()).router.limits.client_max_conn, 16)

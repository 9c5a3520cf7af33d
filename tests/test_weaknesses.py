"""The weaknesses of the original that must not come back (spec section 9), one by one.

Rule: each test is named after its weakness and shows the harm that was done, not the cure. The
key's, the pid file's and the commands' are tested beside their modules.
"""

from __future__ import annotations

import hmac
import tracemalloc

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from fastway.auth import Handshake
from fastway.errors import AuthFailed, Reason
from fastway.gateway import PortConfig
from fastway.router import Limits, Refusal
from fastway.wire import FrameReader
from tests.support.ends import End, Harness
from tests.support.golden import FIRST, accept, close, connect, dial, packet, prove, refuse
from tests.support.rows import CLOSED, HELLO

AnyEnd = End


class OwnershipTests(SynchronousTestCase):
    """Virtual connections of others."""

    def setUp(self) -> None:
        self.harness = Harness()
        self.client, self.stranger = self.harness.client(), self.harness.client()
        self.server, self.other_server = self.harness.server(1), self.harness.server(2)
        self.conn_id = self.harness.pair(self.client, self.server)

    def _assert_owners_go_on(self) -> None:
        self.assertEqual(self.client.take() + self.server.take(), b"")
        self.client.send(packet(self.conn_id, b"up"))
        self.server.send(packet(self.conn_id, b"down"))
        self.assertEqual(self.server.take(), packet(self.conn_id, b"up"))
        self.assertEqual(self.client.take(), packet(self.conn_id, b"down"))

    def test_closing_anothers_connection(self) -> None:
        """A Close from neither owner closes nothing, whichever side it comes from."""
        for end in (self.stranger, self.other_server):
            end.send(close(self.conn_id))
            self._assert_owners_go_on()
            self.assertIsNone(end.lost)
            self.assertEqual(end.take(), b"")
        self.assertEqual(self.harness.router.stats.foreign_closes, 2)

    def test_closing_every_connection(self) -> None:
        """A Close of each id from 0 on, as an attacker would guess them, closes nothing."""
        self.stranger.send(b"".join(close(conn_id) for conn_id in range(FIRST + 100)))
        self._assert_owners_go_on()

    def test_writing_anothers_connection(self) -> None:
        """A packet from neither owner reaches nobody and costs its sender the connection."""
        ends: list[AnyEnd] = [self.stranger, self.other_server]
        for end in ends:
            end.send(packet(self.conn_id, b"forged"))
            self._assert_owners_go_on()
            self.assertIs(end.lost, Reason.NOT_OWNER)

    def test_writing_a_connection_that_was_ones_own(self) -> None:
        """Who has closed a virtual connection cannot write to the one that got its id next."""
        self.client.send(close(self.conn_id))
        self.harness.router.conn_range.last = self.conn_id - 1
        self.stranger.send(dial(2))
        self.assertEqual(self.other_server.take(), connect(self.conn_id, 2))
        self.client.send(packet(self.conn_id, b"late"))
        self.assertIs(self.client.lost, Reason.NOT_OWNER)
        self.assertEqual(self.other_server.take(), b"")


class QueueTests(SynchronousTestCase):
    """What waits for those who do not read."""

    def test_slow_server_is_not_cut_by_a_flooding_client(self) -> None:
        """A client that floods is stopped itself; the server and its other clients stay."""
        harness = Harness(server=PortConfig(queue_packets=100, write_timeout=0))
        flooder, player = harness.client(), harness.client()
        server = harness.server()
        flood_id, play_id = harness.pair(flooder, server), harness.pair(player, server)
        server.transport.fill()
        sent = 0
        while not flooder.paused:
            flooder.send(packet(flood_id, bytes(100)) * 10)
            sent += 10
            self.assertLess(sent, 200)
        harness.pass_time(25)
        self.assertIsNone(server.lost)
        self.assertFalse(player.paused)
        server.send(packet(play_id, b"hit"))
        self.assertEqual(player.take(), packet(play_id, b"hit"))
        server.transport.drain()
        self.assertEqual(server.take(), packet(flood_id, bytes(100)) * sent)
        self.assertFalse(flooder.paused)

    def test_queues_are_bounded_by_bytes(self) -> None:
        """A thousand large packets do not wait for one client: the byte bound cuts first."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        conn_id = harness.pair(client, server)
        client.transport.fill()
        bound = harness.clients.config.queue_bytes
        data = packet(conn_id, bytes(512 * 1024 - 4))
        packets = 0
        while client.lost is None:
            server.send(data)
            packets += 1
            self.assertLessEqual(client.link.counts().waiting_bytes, bound + len(data))
            harness.turn()
        self.assertIs(client.lost, Reason.SLOW_READER)
        self.assertEqual(packets, 8)
        self.assertEqual(client.link.counts().waiting_bytes, 0)

    def test_server_queues_are_bounded_by_bytes(self) -> None:
        """What waits for a server is its byte bound and one read of each sender, at most."""
        harness = Harness(server=PortConfig(queue_packets=100_000, queue_bytes=1_000_000))
        server = harness.server()
        clients = [harness.client() for _ in range(5)]
        conn_ids = [harness.pair(client, server) for client in clients]
        server.transport.fill()
        for client, conn_id in zip(clients, conn_ids, strict=True):
            for _ in range(100):
                if not client.paused:
                    client.send(packet(conn_id, bytes(99_992)))
        self.assertTrue(all(client.paused for client in clients))
        self.assertLessEqual(server.link.counts().waiting_bytes, 1_000_000 + 5 * 100_000)

    def test_pings_are_bounded(self) -> None:
        """A peer that asks for answers and reads none does not fill the gateway's memory."""
        harness = Harness(server=PortConfig(queue_packets=1000))
        server = harness.server()
        server.transport.fill()
        while not server.paused:
            server.send(packet(0, b"\5") * 100)
            self.assertLessEqual(server.link.counts().waiting_packets, 1100)
        harness.pass_time(29.5)
        self.assertIsNone(server.lost)
        harness.pass_time(0.75)
        self.assertIs(server.lost, Reason.WRITE_TIMEOUT)
        self.assertTrue(server.paused)


class IdTests(SynchronousTestCase):
    """Ids and the limits that count them."""

    def test_id_slot_freed_when_the_other_side_is_just_gone(self) -> None:
        """Dials of a server that has just gone take no place of the client's limit."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        for _ in range(5):
            client.send(dial(1) * 16)
            self.assertEqual(len(client.link.peers), 16)
            server.gone(ConnectionLost())
            client.take()
            client.send(dial(1) * 16)
            self.assertEqual(client.take(), refuse(1) * 16)
            self.assertEqual(len(client.link.peers), 0)
            self.assertEqual(harness.router.conn_ids, set())
            server = harness.server()
        client.send(dial(1) * 17)
        self.assertEqual(client.take()[-13:], refuse(1))
        self.assertEqual(len(client.link.peers), 16)

    def test_slot_freed_when_both_go_at_once(self) -> None:
        """Dialled, lost and gone in one read leaves nothing behind."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        client.send(dial(1) * 3 + packet(0))
        server.gone()
        client.gone()
        self.assertEqual(harness.router.conn_ids, set())
        self.assertEqual(server.link.peers, {})
        self.assertEqual(harness.router.stats.accepted, harness.router.stats.closed)

    def test_ids_do_not_wrap_into_live_ones(self) -> None:
        """After 2**32 - 1 ids go on at 1, without 0 and without those still in use."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        harness.router.conn_range.last = 0
        client.send(dial(1) * 2)
        harness.router.conn_range.last = 2**32 - 3
        client.take()
        server.take()
        client.send(dial(1) * 4)
        ids = [2**32 - 2, 2**32 - 1, 3, 4]
        self.assertEqual(client.take(), b"".join(accept(conn_id, 1) for conn_id in ids))
        client.send(packet(1, b"still the first"))
        server.take()
        client.send(packet(2**32 - 1, b"last"))
        self.assertEqual(server.take(), packet(2**32 - 1, b"last"))

    def test_client_ids_do_not_wrap_into_live_ones(self) -> None:
        """Client ids wrap in the same way, and a live client keeps its id."""
        harness = Harness()
        first = harness.client()
        harness.router.client_range.last = 2**32 - 2
        self.assertEqual([harness.client().link.link_id for _ in range(2)], [2**32 - 1, 2])
        self.assertIs(harness.router.clients[1], first.link)

    def test_dial_limit_cannot_be_got_around_from_the_other_side(self) -> None:
        """What servers dial counts for a client's own limit, and is bounded itself."""
        harness = Harness(limits=Limits(client_max_conn=2, client_max_total=5))
        client = harness.client()
        servers = [harness.server(1), harness.server(2)]
        for n in range(5):
            servers[n % 2].send(dial(1))
        self.assertEqual(len(client.link.peers), 5)
        servers[0].take()
        servers[0].send(dial(1))
        self.assertEqual(servers[0].take(), refuse(1))
        self.assertEqual(harness.router.stats.refused[Refusal.REMOTE_LIMIT], 1)
        client.take()
        client.send(dial(1))
        self.assertEqual(client.take(), refuse(1))
        self.assertEqual(harness.router.stats.refused[Refusal.LIMIT], 1)
        client.send(close(FIRST))
        servers[0].take()
        servers[0].send(dial(1))
        self.assertEqual(servers[0].take(), accept(FIRST + 5, 1))

    def test_dial_limit_at_its_edges(self) -> None:
        """n - 1 and n are accepted, n + 1 is refused, and 0 is no limit, for both limits."""
        for limit, accepted in ((3, 3), (1, 1), (0, 50)):
            harness = Harness(limits=Limits(client_max_conn=limit, client_max_total=limit))
            client, other, server = harness.client(), harness.client(), harness.server()
            client.send(dial(1) * 50)
            server.send(dial(2) * 50)
            self.assertEqual(len(client.link.peers), accepted)
            self.assertEqual(len(other.link.peers), accepted)

    def test_dial_limit_by_dialling_and_closing(self) -> None:
        """Dialling and closing over and over neither loses nor gains a place."""
        harness = Harness(limits=Limits(client_max_conn=2))
        client = harness.client()
        harness.server()
        for n in range(0, 200, 2):
            client.send(dial(1) * 3 + close(FIRST + n) * 2 + close(FIRST + n + 1))
        self.assertEqual(client.link.peers, {})
        client.take()
        client.send(dial(1) * 3)
        self.assertEqual(client.take()[-13:], refuse(1))
        self.assertEqual(len(client.link.peers), 2)


class AllocationTests(SynchronousTestCase):
    """Sizes that a peer announces."""

    def _peak(self, limit: int, announced: int) -> int:
        """Bytes allocated at the most while a hundred readers take an announcement."""
        data = announced.to_bytes(4, "little") + b"\1\0\0\0"
        readers = [FrameReader(limit) for _ in range(100)]
        tracemalloc.start()
        try:
            for reader in readers:
                reader.feed(data)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def test_no_allocation_by_announced_size(self) -> None:
        """An announced length costs what was sent, legal or not, never what was announced."""
        for limit, announced in (
            (512 * 1024, 512 * 1024),
            (2**32 - 1, 2**32 - 1),
            (512 * 1024, 2**32 - 1),
            (512 * 1024, 512 * 1024 + 1),
        ):
            self.assertLess(self._peak(limit, announced), 100_000)

    def test_no_allocation_by_announced_size_on_links(self) -> None:
        """A client that announces the largest packet costs the gateway no more than its bytes."""
        harness = Harness()
        client = harness.client()
        client.send(packet(5))
        tracemalloc.start()
        try:
            client.send((512 * 1024).to_bytes(4, "little") + bytes(4))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 20_000)
        self.assertLessEqual(client.link.counts().input_bytes, 8)

    def test_partial_packet_is_all_that_is_held(self) -> None:
        """Of a broken or a whole packet nothing is held."""
        harness = Harness()
        client, server = harness.client(), harness.server()
        harness.pair(client, server)
        client.send(HELLO + HELLO[:5])
        self.assertEqual(client.link.counts().input_bytes, 5)
        client.send(HELLO[5:])
        self.assertEqual(client.link.counts().input_bytes, 0)
        client.send(b"\xff" * 4 + bytes(1000))
        self.assertEqual(client.link.counts().input_bytes, 0)
        self.assertEqual(server.take(), HELLO * 2 + CLOSED)


class ProofTests(SynchronousTestCase):
    """The comparison of proofs."""

    def test_proof_comparison_is_constant_time(self) -> None:
        """Every proof is compared whole, by the standard library's constant-time comparison."""
        compared: list[tuple[int, int]] = []
        compare = hmac.compare_digest

        def watched(one: bytes, two: bytes) -> bool:
            compared.append((len(one), len(two)))
            return compare(one, two)

        self.patch(hmac, "compare_digest", watched)
        challenge = bytes.fromhex("0102030405060708")
        right = prove(challenge, 7)
        for position in (0, 8, 15):
            wrong = bytearray(right)
            wrong[position] ^= 0x80
            failed = False
            try:
                Handshake(b"secret", challenge).feed(bytes(wrong))
            except AuthFailed:
                failed = True
            self.assertTrue(failed)
        self.assertEqual(Handshake(b"secret", challenge).feed(right), (7, b""))
        self.assertEqual(compared, [(16, 16)] * 4)

    def test_nothing_is_compared_before_all_is_there(self) -> None:
        """A prefix of a proof is not judged: nothing is learned from 19 bytes."""
        harness = Harness()
        for first in (0, 255):
            server = harness.stranger()
            server.send(bytes([first]) * 19)
            self.assertIsNone(server.lost)

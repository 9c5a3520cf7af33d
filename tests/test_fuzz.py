"""Any bytes at all, from either side, before and after login.

Rule: whatever a peer sends, nothing is raised, nobody else's traffic changes, and the peer's
link either lives or is lost with a Reason.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import Reason
from fastway.gateway import PortConfig
from tests.support.ends import End, Harness
from tests.support.golden import FIRST, PING, close, command, dial, packet, prove, split

steady = settings(derandomize=True, deadline=None, database=None, max_examples=150)

AnyEnd = End

PAIR = FIRST
"""The virtual connection of the two bystanders."""

OWN = FIRST + 1
"""The virtual connection that the fuzzed link has when it starts."""

conn_ids = st.one_of(
    st.integers(0, 3),
    st.integers(PAIR - 1, PAIR + 6),
    st.sampled_from([2**31, 2**32 - 1]),
)
"""Ids that mean something, and some that do not. PAIR is among them."""

pieces = st.one_of(
    st.binary(max_size=40),
    st.builds(packet, conn_ids, st.binary(max_size=20)),
    st.builds(dial, st.integers(0, 4)),
    st.builds(close, conn_ids),
    st.just(PING),
    st.builds(command, st.integers(0, 255), conn_ids, conn_ids),
    st.builds(
        lambda length, conn_id: struct.pack("<II", length, conn_id),
        st.integers(0, 20) | st.integers(512 * 1024 - 1, 512 * 1024 + 1) | st.just(2**32 - 1),
        conn_ids,
    ),
)
"""What a peer may send: rules kept and rules broken."""

reads = st.lists(st.lists(pieces, max_size=6).map(b"".join), max_size=12)
"""What the gateway reads, one read after the other."""

valid = st.lists(
    st.one_of(
        st.builds(packet, st.sampled_from([OWN, PAIR + 3, 1, 2]), st.binary(max_size=20)),
        st.builds(dial, st.integers(0, 4)),
        st.builds(close, conn_ids),
        st.just(PING),
    ),
    max_size=30,
)
"""Packets that break no rule, unless an id happens to be another's."""


class FuzzTests(SynchronousTestCase):
    """Any bytes at all."""

    def _fuzz(self, kind: str, data: list[bytes]) -> None:
        harness = Harness()
        client, server = harness.client(), harness.server(1)
        self.assertEqual(harness.pair(client, server), PAIR)
        fuzzed: AnyEnd
        if kind == "client":
            fuzzed = harness.client()
            harness.pair(fuzzed, server)
        elif kind == "server":
            fuzzed = harness.server(2)
            harness.pair(fuzzed, client)
        else:
            fuzzed = harness.stranger()
            fuzzed.take()
        for read in data:
            if fuzzed.transport.disconnecting:
                # What a transport may still deliver changes nothing.
                fuzzed.lane.dataReceived(read)
            else:
                fuzzed.send(read)
        harness.turn()
        self._check_link(harness, fuzzed)
        self._check_bystanders(client, server)
        fuzzed.gone()
        self._check_bystanders(client, server)
        self.assertEqual(harness.router.conn_ids, {PAIR})
        self.assertEqual(client.link.peers, {PAIR: server.link})
        self.assertEqual(server.link.peers, {PAIR: client.link})
        stats = harness.router.stats
        self.assertEqual(stats.dials, stats.accepted + stats.refused.total())
        self.assertEqual(stats.accepted, stats.closed + 1)
        self.assertEqual(stats.gained.total(), stats.lost.total() + 2)

    def _check_link(self, harness: Harness, fuzzed: AnyEnd) -> None:
        if fuzzed.lost is None:
            self.assertFalse(fuzzed.transport.disconnecting)
            self.assertLess(fuzzed.link.counts().input_bytes, 512 * 1024 + 4)
        else:
            self.assertIsInstance(fuzzed.lost, Reason)
            self.assertTrue(fuzzed.transport.disconnecting)
            self.assertEqual(fuzzed.link.peers, {})
        split(fuzzed.take())

    def _check_bystanders(self, client: AnyEnd, server: AnyEnd) -> None:
        for end in (client, server):
            self.assertIsNone(end.lost)
            for conn_id, message in split(end.take()):
                self.assertNotEqual(conn_id, PAIR)
                if conn_id == 0:
                    named = struct.unpack_from("<I", message, 1)[0]
                    self.assertIn(message[0], (2, 4))
                    self.assertNotEqual(named, PAIR)
        client.send(packet(PAIR, b"up"))
        server.send(packet(PAIR, b"down"))
        self.assertEqual(server.take(), packet(PAIR, b"up"))
        self.assertEqual(client.take(), packet(PAIR, b"down"))

    @steady
    @given(reads)
    def test_client(self, data: list[bytes]) -> None:
        """Whatever a client sends harms nobody else."""
        self._fuzz("client", data)

    @steady
    @given(reads)
    def test_server(self, data: list[bytes]) -> None:
        """Whatever a server sends after its login harms nobody else."""
        self._fuzz("server", data)

    @steady
    @given(st.lists(st.binary(max_size=30), max_size=5))
    def test_stranger(self, data: list[bytes]) -> None:
        """Whatever comes to the server port without the key harms nobody and logs nobody in."""
        self._fuzz("stranger", data)

    @steady
    @given(st.lists(st.binary(max_size=200), max_size=8))
    def test_plain_noise(self, data: list[bytes]) -> None:
        """Noise without any structure harms nobody, on either port."""
        for kind in ("client", "server", "stranger"):
            self._fuzz(kind, data)

    @steady
    @given(reads, st.integers(0, 20))
    def test_login_with_anything_behind(self, data: list[bytes], cut: int) -> None:
        """A right proof, cut anywhere, with anything behind it logs in and harms nobody."""
        harness = Harness()
        client, server = harness.client(), harness.server(1)
        self.assertEqual(harness.pair(client, server), PAIR)
        fuzzed = harness.stranger()
        answer = prove(fuzzed.take(), 2)
        fuzzed.send(answer[:cut])
        fuzzed.send(answer[cut:] + b"".join(data))
        self._check_link(harness, fuzzed)
        self.assertTrue(fuzzed.link.known)
        self._check_bystanders(client, server)

    @steady
    @given(st.lists(st.tuples(st.integers(0, 3), st.one_of(pieces, st.none())), max_size=40))
    def test_everybody(self, steps: list[tuple[int, bytes | None]]) -> None:
        """Four ends that send anything, full or not, leave a router whose books are right."""
        harness = Harness(server=PortConfig(queue_packets=20, queue_bytes=400))
        ends: list[AnyEnd] = [
            harness.client(),
            harness.client(),
            harness.server(1),
            harness.server(2),
        ]
        harness.pair(ends[0], ends[2])
        harness.pair(ends[1], ends[3])
        for which, piece in steps:
            end = ends[which]
            if end.lost is not None:
                continue
            if piece is None:
                if end.transport.stuck:
                    end.transport.drain()
                else:
                    end.transport.fill()
            elif not end.paused:
                end.send(piece)
            harness.check_books()
            router = harness.router
            live = [one for one in ends if one.lost is None]
            owned = [conn_id for one in live for conn_id in one.link.peers]
            self.assertEqual(sorted(owned), sorted([*router.conn_ids] * 2))
            for one in live:
                for conn_id, peer in one.link.peers.items():
                    self.assertIs(peer.peers[conn_id], one.link)
                    self.assertIsNone(peer.lost)
        for end in ends:
            if end.transport.stuck and end.lost is None:
                end.transport.drain()
            split(end.take())
            harness.check_books()
        for end in ends:
            end.gone()
        harness.check_books()
        self.assertEqual(harness.service.waiting_bytes, 0)


class CutTests(SynchronousTestCase):
    """A stream may be cut anywhere."""

    @steady
    @given(
        st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=30)), min_size=1, max_size=30),
        st.lists(st.integers(0, 1200), max_size=20),
    )
    def test_forwards_do_not_depend_on_the_cuts(
        self, messages: list[tuple[int, bytes]], cuts: list[int]
    ) -> None:
        """However a server's packets are cut, each client gets its own, unchanged, in order."""
        harness = Harness()
        server = harness.server()
        clients = [harness.client() for _ in range(3)]
        ids = [harness.pair(client, server) for client in clients]
        packets = [(which, packet(ids[which], message)) for which, message in messages]
        stream = b"".join(data for _, data in packets)
        places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
        for start, end in pairwise(places):
            server.send(stream[start:end])
        for which, client in enumerate(clients):
            expected = b"".join(data for to, data in packets if to == which)
            self.assertEqual(client.take(), expected)
            self.assertLessEqual(client.transport.writes, len(places))

    @steady
    @given(valid, st.lists(st.integers(1, 40), max_size=60))
    def test_everything_does_not_depend_on_the_cuts(
        self, packets: list[bytes], sizes: list[int]
    ) -> None:
        """A stream of commands and packets does the same whole, cut, and byte by byte."""
        stream = b"".join(packets)
        cut: list[bytes] = []
        rest = stream
        for size in sizes:
            cut.append(rest[:size])
            rest = rest[size:]
        cut.append(rest)
        whole = self._result_of([stream])
        self.assertEqual(self._result_of(cut), whole)
        self.assertEqual(self._result_of([bytes([byte]) for byte in stream]), whole)

    def _result_of(self, reads: list[bytes]) -> list[object]:
        """What everybody got and what became of the sender."""
        harness = Harness()
        client, server = harness.client(), harness.server(1)
        harness.pair(client, server)
        sender, second = harness.client(), harness.server(2)
        harness.pair(sender, server)
        for read in reads:
            if not sender.transport.disconnecting:
                sender.send(read)
        ends: list[AnyEnd] = [client, server, sender, second]
        return [sender.lost, *(end.take() for end in ends)]

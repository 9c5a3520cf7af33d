"""The figures of a gateway as one tree of values, taken in slices."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from fastway import __version__
from fastway.address import Address
from fastway.errors import Reason
from fastway.gateway import Layer, Port
from fastway.ops import logs
from fastway.ops.snapshot import (
    SLICE,
    ChunkTotals,
    LinkRow,
    PortTotals,
    QueueTotals,
    RelayTotals,
    SideTotals,
    Snapshot,
    Source,
    finish,
)
from fastway.ops.status import link_row, status_rows
from fastway.router import Refusal
from fastway.snet.transport import SnetFactory
from tests.support.ends import Harness
from tests.support.golden import dial, packet


class Listening:
    """A port of Twisted's that listens at an address."""

    def __init__(self, host: Any) -> None:
        self.host = host

    def getHost(self) -> Any:
        return self.host


class Native:
    """A native core that has counted."""

    class core:
        @staticmethod
        def pool() -> tuple[Any, ...]:
            return 100, 7, 8, [(64, 1, 2, 3), (128, 0, 0, 0)]

    class pool:
        type = "atom"
        limit = 1000

    def totals(self) -> Any:
        return SimpleNamespace(
            links=4,
            pairs=5,
            waiting_packets=6,
            waiting_bytes=7,
            input_bytes=8,
            held=9,
            shed=10,
            slows=11,
            slowed=12,
            holding_packets=2,
            holding_bytes=3,
            holding_input=4,
        )


class SnapshotTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.harness = Harness()
        self.source = Source(self.harness.service)

    def snapshot(self) -> Snapshot:
        return finish(self.source.snapshot())

    def test_gateway(self) -> None:
        """What a gateway is: version, path, process, time, ports, memory, its log."""
        harness = self.harness
        service = harness.service
        service.path = "Python: why not"
        snet = Layer("snet", lambda factory: SnetFactory(factory, harness.clock))
        client = Address("--client-addr", "127.0.0.1:9010", "127.0.0.1", 9010)
        server = Address("--server-addr", "unix:/run/x", None, 0)
        service.ports += [
            Port("client", client, harness.clients, [snet]),
            Port("server", server, harness.servers),
            Port("closed", server, harness.servers),
        ]
        for port, host in zip(
            service.ports,
            (IPv4Address("TCP", "127.0.0.1", 9010), UNIXAddress(b"/run/x")),
            strict=False,
        ):
            port.listening = cast(Any, Listening(host))
        harness.client()
        harness.stranger()
        self.source = Source(service, lambda: 4096)
        self.harness.clock.advance(75)
        shot = self.snapshot()
        self.assertEqual(
            (shot.version, shot.path, shot.pid, shot.uptime, shot.memory),
            (__version__, "Python: why not", os.getpid(), 75.0, 4096),
        )
        self.assertEqual(
            shot.ports,
            (
                PortTotals("client", "client", "127.0.0.1:9010", 1, 0, ("snet",)),
                PortTotals("server", "server", "/run/x", 1, 1, ()),
            ),
        )
        self.assertEqual(shot.log_dropped, logs.dropped())
        self.assertEqual(shot.access_dropped, logs.dropped(logs.ACCESS))
        self.assertIsNone(shot.relay)
        rows = status_rows(shot)
        self.assertEqual(rows[1], "path: Python: why not")
        self.assertIn(
            "client port: 127.0.0.1:9010, with snet; 1 connections, 0 at their handshakes", rows
        )
        self.assertIn("server port: /run/x; 1 connections, 1 at their handshakes", rows)
        self.assertTrue(any(row.startswith("snet of clients: 0 streams live") for row in rows))

    def test_links_and_router(self) -> None:
        """Who is connected, and what went over virtual connections."""
        harness = self.harness
        clients = [harness.client() for _ in range(3)]
        servers = [harness.server(5), harness.server(5), harness.server(6)]
        stranger = harness.stranger()
        conn_id = harness.pair(clients[0], servers[2])
        clients[0].send(packet(conn_id, b"hello"))
        clients[0].send(dial(99))
        clients[1].gone()
        harness.router.lose(stranger.link, Reason.AUTH_FAILED)
        shot = self.snapshot()
        self.assertEqual(shot.clients, SideTotals(2, 3))
        self.assertEqual((shot.servers, shot.server_ids), (SideTotals(3, 3), 2))
        router = shot.router
        self.assertEqual((router.open, router.accepted, router.dials), (1, 1, 2))
        self.assertEqual((router.packets, router.bytes), (1, 13))
        self.assertEqual(router.refused, {Refusal.UNKNOWN: 1})
        self.assertEqual(shot.lost, {Reason.PEER_CLOSED: 1, Reason.AUTH_FAILED: 1})

    def test_queues(self) -> None:
        """What waits for all links together, and who is held for it."""
        harness = self.harness
        harness.service.memory_limit = 1 << 20
        server = harness.server(5)
        clients = [harness.client() for _ in range(3)]
        conn_ids = [harness.pair(client, server) for client in clients]
        server.transport.fill()
        for client, conn_id in zip(clients, conn_ids, strict=True):
            client.send(packet(conn_id, b"hello"))
        clients[0].send(packet(conn_ids[0], bytes(100))[:30])
        harness.service.native = cast(Any, Native())
        queues = self.snapshot().queues
        self.assertEqual(
            queues,
            QueueTotals(3 + 6, 39 + 7, 30 + 8, 1 << 20, 0 + 9, 0, 3 + 2, 39 + 3, 0 + 4),
        )
        harness.service.native = None
        clients[0].send(packet(conn_ids[0], bytes(100))[30:])
        for _ in range(10):
            if not clients[0].paused:
                clients[0].send(packet(conn_ids[0], bytes(20_000)))
        queues = self.snapshot().queues
        self.assertEqual((queues.held, queues.holds), (1, 1))
        clients[0].gone()
        self.assertEqual(self.snapshot().queues.held, 0)

    def test_frozen(self) -> None:
        """A snapshot is values: it does not change with the gateway, nor can it be changed."""
        self.harness.client().send(dial(99))
        shot = self.snapshot()
        before = repr(shot)
        self.harness.client().send(dial(99))
        self.assertEqual(repr(shot), before)
        for name in ("pid", "router", "lost"):
            with self.assertRaises(dataclasses.FrozenInstanceError):  # noqa: PT027
                setattr(shot, name, 0)

    def test_slices(self) -> None:
        """Over many links there is a pause every few of them, and no look for the totals."""
        for _ in range(5 * SLICE + 1):
            self.harness.client()
        self.assertEqual(sum(1 for _ in self.source.snapshot()), 0)
        self.assertEqual(sum(1 for _ in self.source.links()), 5)

    def test_relay(self) -> None:
        """The core's figures have names, and classes of chunks that nobody used no row."""

        self.harness.service.native = cast(Any, Native())
        relay = self.snapshot().relay
        chunks = ChunkTotals(64, 1, 2, 3), ChunkTotals(128, 0, 0, 0)
        self.assertEqual(relay, RelayTotals(4, 5, 10, "atom", 100, 1000, 7, 8, chunks))
        self.assertEqual(
            status_rows(self.snapshot())[-3:],
            [
                "relay: 4 links, 5 virtual connections in native code; 10 lost for memory",
                "memory pool: atom, 100 of 1000 bytes of chunks used, "
                "7 chunks outside of pages, 8 requests failed",
                "chunks of 64: 1 pages, 2 used, 3 free",
            ],
        )


class LinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.harness = Harness()
        self.source = Source(self.harness.service)

    def test_order(self) -> None:
        """Clients come first, then servers, by id; who is not known yet before the others."""
        ends = [self.harness.server(9), self.harness.stranger(), self.harness.server(3)]
        ends += [cast(Any, self.harness.client()) for _ in range(SLICE + 10)]
        links = list(finish(self.source.links()))
        self.assertEqual(len(links), len(ends))
        ids = [(link.side.value, link.link_id) for link in links]
        self.assertEqual(ids, sorted(ids))
        self.assertEqual(ids[0], ("client", 1))
        self.assertEqual(ids[-3:], [("server", 0), ("server", 3), ("server", 9)])

    def test_row(self) -> None:
        """A link's figures, and its state in words."""
        client, server = self.harness.client(), self.harness.server(5)
        conn_id = self.harness.pair(client, server)
        client.send(packet(conn_id, b"hello"))
        self.harness.pass_time(2)
        row = self.source.row(client.link)
        assert row is not None
        self.assertEqual(
            row,
            LinkRow(
                "client",
                1,
                client.link.facts.name,
                "other",  # it is in memory
                "",
                conns=1,
                seconds=2.0,
                packets_in=2,
                bytes_in=26,
                packets_out=1,
                bytes_out=17,
                waiting_packets=0,
                waiting_bytes=0,
                held=False,
                cut=None,
                lost=None,
            ),
        )
        row = dataclasses.replace(row, transport="tcp")
        text = link_row(row)
        self.assertTrue(text.startswith(f"client\t1\t{row.addr}\t1 conns\t2 s\tin 2 packets 26"))
        self.assertTrue(text.endswith("waiting 0 packets 0 bytes"))
        for changes, end in (
            ({"held": True}, "\tnot read from"),
            ({"held": True, "cut": 12.3}, "\tcut 12 s"),
            ({"cut": 1.0, "lost": Reason.KICKED}, "\tlost"),
            ({"transport": "wss"}, "\tover wss"),
            (
                {"transport": "ws", "via": "10.0.0.2:9", "held": True},
                "\tover ws via 10.0.0.2:9\tnot read from",
            ),
        ):
            changed = dataclasses.replace(row, **cast(Any, changes))
            self.assertTrue(link_row(changed).endswith(f"0 bytes{end}"), end)
        unknown = dataclasses.replace(row, link_id=0)
        self.assertTrue(link_row(unknown).startswith("client\t?\t"))

    def test_gone(self) -> None:
        """A link that went meanwhile has no row."""
        client = self.harness.client()
        client.gone()
        self.assertIsNone(self.source.row(client.link))

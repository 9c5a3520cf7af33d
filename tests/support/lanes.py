"""What every lane promises: one body of checks for all implementations of `fastway.gateway.lane`.

Rule: a lane is made by a real port and has a real peer; whom it reports to is a list. A new lane
passes when a test case made of `LaneChecks` does that says how its port is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, cast

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from fastway.errors import Reason, RemoteError
from fastway.gateway import GatewayFactory, PortConfig, RouterService
from fastway.gateway.lane import NOBODY, End, Lane
from fastway.router import Side
from fastway.wire import Run, bare_messages, split_packets
from tests.support.golden import packet
from tests.support.sockets import Peer
from tests.support.waits import later, reactor, until


class Reports:
    """A lane's owner that is a list.

    Attributes:
        said: (what, arguments) in order, `packets` as one row for all of them.
        came: Bytes before `start`.
        packets: The bytes of all packets that came.
        most: Runs that are taken at a time; the rest is given back.
        ready: Its TLS, if it has any, is up.
    """

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.lost: Reason | None = None
        self.said: list[tuple[str, tuple[Any, ...]]] = []
        self.came = b""
        self.packets = b""
        self.most = 1 << 30
        self.calls = 0
        self.ready = not lane.securing
        self._prefaces = [make() for make in lane.prefaces]

    def bytes_came(self, data: bytes) -> None:
        """As a link does it, as far as the lane's own prefaces go."""
        if not self._prefaces:
            self.came += data
            return
        try:
            done = self._prefaces[0].feed(data)
        except RemoteError as error:
            self.lane.write(error.answer)
            self.misframed(error)
            self.lane.close(End.CLOSE)
            return
        if isinstance(done, bytes):
            self.lane.write(done)
            return
        self._prefaces.clear()
        self.lane.write(done.answer)
        self.lane.secure(done.secure, done.rest)
        self.is_secure()

    def is_secure(self) -> None:
        self.ready = True

    def comes_from(self, address: object) -> None:
        """Tested where there is a proxy."""

    def parks(self, lane: object) -> bool:
        return False

    def packets_came(self, runs: Iterable[Run], most: int) -> list[Run]:
        runs = list(runs)
        self.calls += 1
        taken = min(self.most, len(runs))
        self.packets += b"".join(data for _, data, _ in runs[:taken])
        return runs[taken:]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args: self.said.append((name, args))

    async def any(self) -> None:
        """Until something was said."""
        await until("a report", lambda: self.said)

    def heard(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of each such report."""
        return [args for what, args in self.said if what == name]


class ReportFactory(GatewayFactory):
    """A port whose lanes report to a list."""

    side = Side.CLIENT

    def __init__(self, service: RouterService, config: PortConfig, holds: bool) -> None:
        super().__init__(service, config)
        self.holds = holds
        self.made: list[Reports] = []

    def connected(self, lane: Lane, addr: object, transport: str) -> None:
        cast(Any, lane).link = reports = Reports(lane)
        self.made.append(reports)


class LaneChecks(TestCase):
    """The checks. A subclass says how a port is opened."""

    peer = Peer

    def open_port(self, service: RouterService, factory: GatewayFactory) -> Any:
        """A listening port on 127.0.0.1 whose connections get the lane under test."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.peers: dict[Any, Any] = {}
        self.service = RouterService(reactor)
        self.service.startService()

    async def make(self, holds: bool = False, **config: Any) -> tuple[Any, Reports, Peer]:
        """A lane, whom it reports to, and its peer."""
        factory = ReportFactory(self.service, PortConfig(**config), holds)
        port = self.open_port(self.service, factory)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        peer = cast(Peer, await endpoint.connect(Factory.forProtocol(self.peer)))
        await until("a lane", lambda: factory.made and factory.made[0].ready)
        (reports,) = factory.made
        self.peers[reports.lane] = peer

        async def end() -> None:
            await maybeDeferred(port.stopListening)
            if peer.ended is None:
                peer.wire.abortConnection()
            if not reports.heard("gone"):
                reports.lane.close(End.ABORT)
            await until("the end of the lane", lambda: reports.heard("gone"))
            self.service.wheel.stop()

        self.addCleanup(end)
        return reports.lane, reports, peer

    def start(self, lane: Any, data: bytes = b"") -> None:
        """Start it; `data` came before."""
        lane.start(data)

    def say(self, lane: Any, data: bytes, packets: int = 1) -> None:
        """Send, as the gateway does it."""
        lane.send(data, packets)
        self.service.flush()

    async def test_bytes_before_the_start(self) -> None:
        """Before it is started what comes are bytes, and bytes can be sent."""
        lane, reports, peer = await self.make()
        lane.write(b"challenge")
        await peer.expect(b"challenge")
        peer.send(b"\0\0\0\0\0answer")
        await until("the bytes", lambda: reports.came == b"\0\0\0\0\0answer")
        self.assertEqual((reports.packets, reports.said), (b"", []))

    async def test_start_with_a_rest(self) -> None:
        """What came before the start is the beginning of the first packet."""
        lane, reports, peer = await self.make()
        data = packet(0, b"\0\1\0\0\0") + packet(7, b"seven") * 3
        self.start(lane, data[:10])
        peer.send(data[10:])
        await until("the packets", lambda: reports.packets == data)
        self.assertEqual(reports.came, b"")
        self.assertEqual(lane.counts().bytes_in, peer.sent)

    async def test_start_with_whole_packets(self) -> None:
        """Whole packets that came before the start are reported without more input."""
        lane, reports, _ = await self.make()
        data = packet(9, b"nine") * 4
        self.start(lane, data)
        await until("the packets", lambda: reports.packets == data)

    async def test_cut_anywhere(self) -> None:
        """A packet may come in any pieces."""
        lane, reports, peer = await self.make()
        self.start(lane)
        data = packet(3, b"abc") + packet(4) + packet(5, os.urandom(5000))
        for place in range(0, 40):
            peer.send(data[place : place + 1])
            await later()
        peer.send(data[40:])
        await until("the packets", lambda: reports.packets == data)
        self.assertEqual(lane.counts().input_bytes, 0)

    async def test_what_is_not_whole_counts(self) -> None:
        """Bytes of a packet that is not whole are counted, and not reported."""
        lane, reports, peer = await self.make()
        self.start(lane)
        peer.send(packet(3, bytes(1000))[:700])
        await until("the bytes", lambda: lane.counts().input_bytes == 700)
        self.assertEqual(reports.packets, b"")

    async def test_illegal_length(self) -> None:
        """An illegal length is reported once, after what came before it."""
        for length in (3, 101, 0xFFFFFFFF):
            with self.subTest(length=length):
                lane, reports, peer = await self.make(max_packet=100)
                self.start(lane)
                data = packet(1, bytes(96))
                peer.send(data + length.to_bytes(4, "little"))
                await reports.any()
                self.assertEqual(reports.said, [("broke", (length,))])
                self.assertEqual(reports.packets, data)

    async def test_send(self) -> None:
        """Whole packets arrive in order, and are counted."""
        lane, _, peer = await self.make()
        self.start(lane)
        packets = [packet(number, os.urandom(number * 7)) for number in range(100)]
        for data in packets:
            lane.send(data, 1)
        self.service.flush()
        await peer.expect(b"".join(packets))
        counts = lane.counts()
        self.assertEqual(counts.packets_out, 100)
        self.assertEqual(counts.bytes_out, sum(map(len, packets)))
        self.assertEqual((counts.waiting_packets, counts.waiting_bytes), (0, 0))
        self.assertEqual(counts.most_waiting, 0)

    async def test_fin(self) -> None:
        """The peer's FIN is reported after all that it sent."""
        lane, reports, peer = await self.make()
        self.start(lane)
        data = packet(6, bytes(3000)) * 20
        peer.send(data)
        peer.end()
        await until("the end", lambda: reports.heard("peer_ended"))
        self.assertEqual(reports.packets, data)
        lane.close(End.CLOSE)
        await until("the end", lambda: reports.heard("gone"))
        self.assertEqual(reports.heard("gone"), [(None,)])

    async def test_reset(self) -> None:
        """A connection that breaks is gone, with an error."""
        lane, reports, peer = await self.make()
        self.start(lane)
        peer.wire.abortConnection()
        await until("the end", lambda: reports.heard("gone"))
        ((error,),) = reports.heard("gone")
        self.assertIsInstance(error, Exception)
        self.assertEqual(lane.counts().waiting_bytes, 0)
        self.assertIs(lane.link, NOBODY)

    async def test_close(self) -> None:
        """A close delivers what was sent before, and reads nothing more."""
        lane, reports, peer = await self.make()
        self.start(lane)
        data = packet(8, os.urandom(300_000))
        self.say(lane, data)
        lane.close(End.CLOSE)
        await peer.expect(data)
        await peer.expect_end()
        await until("the end", lambda: reports.heard("gone"))

    async def test_half_close(self) -> None:
        """A half-close delivers what was sent to a peer that goes on sending."""
        lane, reports, peer = await self.make()
        self.start(lane)
        data = packet(8, os.urandom(300_000))
        self.say(lane, data)
        lane.close(End.HALF)
        peer.send(packet(9, bytes(50_000)) * 10)
        await peer.expect(data)
        await peer.expect_end()
        self.assertEqual(reports.packets, b"")

    async def test_abort(self) -> None:
        """An abort drops what waits, at once."""
        lane, reports, peer = await self.make(queue_bytes=1 << 40, queue_packets=1 << 30)
        self.start(lane)
        peer.wire.pauseProducing()
        self.say(lane, packet(8, bytes(30_000_000)))
        lane.close(End.ABORT)
        await until("the end", lambda: reports.heard("gone"))
        self.assertEqual(lane.counts().waiting_bytes, 0)

    async def test_pause(self) -> None:
        """A lane that is paused reads nothing, and everything afterwards."""
        lane, reports, peer = await self.make()
        self.start(lane)
        lane.holds += 1
        lane.pause()
        data = packet(5, b"five") * 100
        peer.send(data)
        await later(0.05)
        self.assertEqual(reports.packets, b"")
        self.assertTrue(lane.counts().held)
        lane.holds -= 1
        lane.resume()
        await until("the packets", lambda: reports.packets == data)

    async def test_idle(self) -> None:
        """No whole packet for the idle timeout is reported, however much drips."""
        lane, reports, peer = await self.make(idle_timeout=0.4)
        self.start(lane)
        began = reactor.seconds()
        data = packet(5, b"five") + packet(6, bytes(1000))
        peer.send(data[:12])
        for place in range(12, 100):
            if reports.said:
                break
            peer.send(data[place : place + 1])
            await later(0.02)
        await until("the report", lambda: reports.said)
        self.assertEqual(reports.said, [("went_idle", ())])
        self.assertGreaterEqual(reactor.seconds() - began, 0.4)

    async def test_not_idle_while_paused(self) -> None:
        """Who is not heard is not idle."""
        lane, reports, _ = await self.make(idle_timeout=0.2)
        self.start(lane)
        lane.holds += 1
        lane.pause()
        await later(0.5)
        self.assertEqual(reports.said, [])
        lane.holds -= 1
        lane.resume()
        await until("the report", lambda: reports.said)

    async def trickle(self, reports: Reports, peer: Peer, piece: bytes, pieces: int) -> float:
        """Send pieces, each when the one before it is there; returns the seconds that it took."""
        began = reactor.seconds()
        for number in range(1, pieces + 1):
            peer.send(piece)

            def there(size: int = number * len(piece)) -> bool:
                return len(reports.packets) >= size

            await until("the piece", there)
        return cast(float, reactor.seconds() - began)

    async def test_packet_rate(self) -> None:
        """Who sends more packets than he may is not read from for a while; nothing is lost."""
        lane, reports, peer = await self.make(packet_rate=80.0, idle_timeout=0)
        self.start(lane)
        took = await self.trickle(reports, peer, packet(5, b"five") * 10, 14)
        # 130 of the 140 came before the last piece was read.
        self.assertGreater(took, (130 - 80) / 80 - 0.01)
        self.assertEqual((reports.packets, reports.said), (packet(5, b"five") * 140, []))
        self.assertGreater(self.slows(), 0)
        await until("to be let go", lambda: not lane.counts().held)

    async def test_byte_rate(self) -> None:
        """Bytes have a rate too, those of a packet that is not whole yet as well."""
        lane, reports, peer = await self.make(byte_rate=20_000, read_size=1000, idle_timeout=0)
        self.start(lane)
        data = packet(5, bytes(3992))
        peer.send(data[:100])
        await until("the beginning", lambda: lane.counts().input_bytes)
        peer.send(data[100:])
        took = await self.trickle(reports, peer, data, 10)
        # 36 000 bytes came before the last piece that it saw was read.
        self.assertGreater(took, (36_000 - 20_000) / 20_000 - 0.3)
        await until("all of it", lambda: len(reports.packets) == 44_000)
        self.assertEqual(reports.said, [])

    async def test_within_its_rate(self) -> None:
        """Who keeps to his rates is never held."""
        lane, reports, peer = await self.make(packet_rate=1000.0, byte_rate=100_000)
        self.start(lane)
        for _ in range(20):
            peer.send(packet(5, b"five") * 5)
            await later()
        await until("the packets", lambda: len(reports.packets) == 100 * 12)
        self.assertEqual(self.slows(), 0)

    async def test_slowed_and_ends(self) -> None:
        """What came before a FIN is handled before it, however slowly."""
        lane, reports, peer = await self.make(packet_rate=30.0, read_size=120)
        self.start(lane)
        data = packet(5, b"five") * 50
        peer.send(data)
        peer.end()
        # TLS of Twisted tells no FIN apart from the end.
        await until("the end", lambda: reports.heard("peer_ended") or reports.heard("gone"))
        self.assertEqual(reports.packets, data)

    async def test_slowed_and_goes(self) -> None:
        """One that is held for its rate and ends leaves nothing."""
        lane, reports, peer = await self.make(packet_rate=1.0)
        self.start(lane)
        peer.send(packet(5, b"five") * 50)
        await until("to be held", lambda: lane.counts().held)
        lane.close(End.ABORT)
        await until("the end", lambda: reports.heard("gone"))
        native = self.service.native
        self.assertEqual(self.service.slowed, 0)
        self.assertFalse(native is not None and native.totals().slowed)

    def slows(self) -> int:
        """How often a lane was held for its rate."""
        native = self.service.native
        return self.service.slows + (0 if native is None else native.totals().slows)

    async def test_stuck(self) -> None:
        """A peer that takes nothing for the write timeout is reported, on any port."""
        for holds in (False, True):
            with self.subTest(holds=holds):
                lane, reports, peer = await self.make(
                    holds, write_timeout=0.3, queue_bytes=1 << 40, idle_timeout=0
                )
                self.start(lane)
                peer.wire.pauseProducing()
                self.say(lane, packet(5, bytes(30_000_000)))
                await reports.any()
                self.assertEqual(reports.said, [("got_stuck", ())])

    async def test_over(self) -> None:
        """More bytes than the bound is reported where senders are not held."""
        lane, reports, peer = await self.make(queue_bytes=100_000, idle_timeout=0)
        self.start(lane)
        peer.wire.pauseProducing()
        for _ in range(200):
            if reports.said:
                break
            self.say(lane, packet(5, bytes(100_000)))
            await later()
        (((packets, size)),) = reports.heard("went_over")
        self.assertGreater(size, 100_000)
        self.assertGreater(packets, 0)

    async def test_burst(self) -> None:
        """A burst of packets costs nobody who reads."""
        lane, reports, peer = await self.make(queue_packets=10, idle_timeout=0)
        self.start(lane)
        for _ in range(30):
            self.say(lane, packet(5, b"five") * 100, 100)
        await peer.expect(packet(5, b"five") * 3000)
        self.assertEqual(reports.said, [])

    async def test_never_over_where_it_holds(self) -> None:
        """A port that holds senders loses nobody for what others send."""
        lane, reports, peer = await self.make(
            True, queue_bytes=100_000, queue_packets=10, idle_timeout=0
        )
        self.start(lane)
        peer.wire.pauseProducing()
        for _ in range(100):
            self.say(lane, packet(5, bytes(100_000)))
        await later(0.05)
        self.assertEqual(reports.said, [])
        self.assertTrue(lane.saturated())
        peer.wire.resumeProducing()
        await until("all of it", lambda: peer.total == 100 * 100_008)
        self.assertFalse(lane.saturated())

    async def test_direct(self) -> None:
        """Of a peer that knows no packets each read is a message, and it gets bare ones."""
        lane, reports, peer = await self.make(read_size=1000, max_packet=504)
        lane.direct(7)
        lane.start(b"")
        peer.send(b"hello")
        await until("a message", lambda: reports.packets)
        self.assertEqual(reports.packets, packet(7, b"hello"))
        data = os.urandom(100_000)
        peer.send(data)
        await until("all", lambda: len(bare_messages(reports.packets)[0]) == 5 + len(data))
        messages = split_packets(reports.packets)
        self.assertEqual(b"".join(messages[1:]), data)
        self.assertLessEqual(max(map(len, messages)), 500)
        self.assertGreaterEqual(len(data) / (len(messages) - 1), 250)
        self.say(lane, packet(7, b"one") + packet(7) + packet(7, b"two"), 3)
        self.say(lane, packet(7))
        await peer.expect(b"onetwo")
        counts = lane.counts()
        self.assertEqual((counts.packets_out, counts.bytes_out), (2, 6))
        self.assertEqual(counts.bytes_in, 5 + len(data))
        self.assertEqual(reports.said, [])

    async def test_direct_from_a_rest(self) -> None:
        """What came before the start is the beginning of the stream."""
        lane, reports, peer = await self.make()
        lane.direct(9)
        lane.start(b"begin")
        peer.send(b"ning")
        await until("all", lambda: bare_messages(reports.packets)[0] == b"beginning")

    async def test_direct_waits(self) -> None:
        """Nothing is read of it before it is started, and nothing is lost."""
        lane, reports, peer = await self.make(queue_bytes=10_000)
        lane.wait()
        data = os.urandom(60_000)
        peer.send(data)
        await later(0.05)
        self.assertEqual((reports.came, reports.packets), (b"", b""))
        self.assertEqual(lane.counts().bytes_in, 0)
        lane.direct(3)
        lane.start(b"")
        await until("all", lambda: bare_messages(reports.packets)[0] == data)
        self.assertFalse(lane.counts().held)

    async def test_direct_fin(self) -> None:
        """Its FIN is told behind all that it said; what it was sent before goes first."""
        lane, reports, peer = await self.make()
        lane.direct(3)
        lane.start(b"")
        data = os.urandom(50_000)
        peer.send(data)
        peer.end()
        await until("the end", lambda: reports.heard("peer_ended"))
        self.assertEqual(bare_messages(reports.packets)[0], data)
        answer = os.urandom(300_000)
        self.say(
            lane,
            b"".join(packet(3, answer[at : at + 1000]) for at in range(0, 300_000, 1000)),
            300,
        )
        lane.close(End.CLOSE)
        await peer.expect(answer)
        await peer.expect_end()

    async def test_direct_idle(self) -> None:
        """Who neither says nor takes anything for the idle timeout is reported."""
        lane, reports, _ = await self.make(idle_timeout=0.4)
        lane.direct(3)
        lane.start(b"")
        began = reactor.seconds()
        await until("the report", lambda: reports.said)
        self.assertEqual(reports.said, [("went_idle", ())])
        self.assertGreaterEqual(reactor.seconds() - began, 0.4)

    async def test_direct_slow(self) -> None:
        """Many small messages for one that does not read are bounded by their bytes."""
        lane, reports, peer = await self.make(
            queue_packets=1 << 31, queue_bytes=1_000_000, idle_timeout=0
        )
        lane.direct(3)
        lane.start(b"")
        peer.wire.pauseProducing()
        sent = 0
        for _ in range(400):
            self.say(lane, packet(3, bytes(100)) * 1000, 1000)
            sent += 100_000
            await later()
            if reports.said or lane.counts().waiting_bytes > 500_000:
                break
        self.assertEqual(reports.said, [])
        self.assertGreater(lane.counts().waiting_packets, 1000)
        peer.wire.resumeProducing()
        await until("all", lambda: peer.total == sent)
        counts = lane.counts()
        self.assertEqual(counts.waiting_bytes, 0)
        self.assertGreater(counts.most_waiting, 300_000)
        self.assertLess(counts.most_waiting, 1_000_000)
        peer.wire.pauseProducing()
        for _ in range(400):
            self.say(lane, packet(3, bytes(100)) * 1000, 1000)
            await later()
            if reports.said:
                break
        self.assertEqual([what for what, _ in reports.said], ["went_over"])

    async def test_a_sender_is_held_for_his_share(self) -> None:
        """Who has more than his share waiting is not read from until it was taken."""
        lane, _, peer = await self.make(True, idle_timeout=0)
        sender, heard, far = await self.make(idle_timeout=0)
        self.start(lane)
        self.start(sender)
        peer.wire.pauseProducing()
        for _ in range(400):
            if sender.holds:
                break
            lane.send(packet(5, bytes(30_000)), 1)
            self.service.flush(sender)
            await later()
        self.assertEqual(sender.holds, 1)
        self.assertLess(lane.counts().waiting_bytes, 1_000_000)
        far.send(packet(6, b"six"))
        await later(0.02)
        self.assertEqual(heard.packets, b"")
        peer.wire.resumeProducing()
        await until("to be let go", lambda: not sender.holds)
        await until("the packet", lambda: heard.packets == packet(6, b"six"))

    async def test_the_end_lets_go(self) -> None:
        """A lane that ends holds nobody, and nobody who ends is kept."""
        lane, reports, peer = await self.make(True, idle_timeout=0)
        one, _, _ = await self.make(idle_timeout=0)
        two, _, _ = await self.make(idle_timeout=0)
        for each in (lane, one, two):
            self.start(each)
        peer.wire.pauseProducing()
        for sender in (one, two):
            for _ in range(400):
                if sender.holds:
                    break
                lane.send(packet(5, bytes(60_000)), 1)
                self.service.flush(sender)
                await later()
        self.assertEqual((one.holds, two.holds), (1, 1))
        two.close(End.ABORT)
        self.assertNotIn(two, lane.shares.senders)
        lane.close(End.ABORT)
        await until("the end", lambda: reports.heard("gone"))
        self.assertEqual(one.holds, 0)
        self.assertFalse(one.counted_at)

"""Direct ports of a gateway on a clock: dials, messages, bounds, ends; and the router's part."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from fastway.config.values import parse_networks
from fastway.errors import Reason
from fastway.gateway import ClientFactory, PortConfig, WebSocketFactory
from fastway.gateway.bounds import LINGER
from fastway.gateway.preface import TIMEOUT
from fastway.gateway.proxied import Proxies
from fastway.ops.snapshot import Source
from fastway.ops.status import link_row
from fastway.router import Pending, Refusal, Router, Side
from fastway.wire import StreamCutter, bare_messages, encode_accept, encode_connect
from tests.support.core import DETERMINISTIC, ListLink, cut
from tests.support.ends import End, Harness
from tests.support.golden import FIRST, close, connect, dial, packet, refuse, split
from tests.support.logs import LogLines
from tests.support.websocket import BROWSER, frame, request, server_frames


class DirectHarness(Harness):
    """A harness with a direct port to server 1, and one to server 9, which is not there."""

    def __init__(self, direct: PortConfig | None = None, **more: Any) -> None:
        super().__init__(**more)
        config = PortConfig(queue_packets=1 << 31) if direct is None else direct
        self.web = ClientFactory(self.service, config)
        self.web.leads_to("web", 1)
        self.nowhere = ClientFactory(self.service, config)
        self.nowhere.leads_to("nowhere", 9)

    def comer(self) -> End:
        """Somebody connects to the direct port."""
        return self._connect(self.web)

    def opened(self) -> tuple[End, End, int]:
        """A connection of the direct port, its server, and the virtual connection."""
        server = self.server()
        end = self.comer()
        ((zero, command),) = split(server.take())
        conn_id = int.from_bytes(command[1:5], "little")
        assert (zero, command[0]) == (0, 2)
        return end, server, conn_id


class RouterTests(SynchronousTestCase):
    """What the router knows of it."""

    def setUp(self) -> None:
        self.router = Router()
        self.server = ListLink(Side.SERVER)
        self.router.add_server(self.server, 1)
        self.link = ListLink(Side.CLIENT)
        self.link.dialable = False
        self.router.add_client(self.link)

    def test_dial(self) -> None:
        """A link is dialled for as if it had sent the command."""
        self.router.dial(self.link, 1)
        self.assertEqual(self.link.sent, [encode_accept(1, 1)])
        self.assertEqual(self.server.sent, [encode_connect(1, 1)])
        self.assertEqual(self.router.stats.dials, 1)
        self.router.dial(self.link, 2)
        self.assertEqual(self.link.sent[1:], [refuse(2)])

    def test_nobody_dials_it(self) -> None:
        """A server that dials its id is refused, and takes no slot."""
        self.router.receive(self.server, [(0, dial(1), 1)])
        self.assertEqual(self.server.sent, [refuse(1)])
        self.assertEqual(self.router.stats.refused, {Refusal.UNKNOWN: 1})
        self.assertFalse(self.link.peers)


class CheckTests(SynchronousTestCase):
    """Checks of a proxy's own."""

    def setUp(self) -> None:
        self.harness = DirectHarness()
        self.harness.web.proxies = Proxies(parse_networks("192.0.2.1"))
        self.harness.nowhere.proxies = self.harness.web.proxies
        self.server = self.harness.server()

    def check(self, more: bytes = b"") -> End:
        end = self.harness.comer()
        end.send(b"PROXY UNKNOWN\r\n" + more)
        return end

    def dialled(self) -> int:
        return len(split(self.server.take()))

    def said(self) -> bytes:
        return b"".join(data for conn_id, data in split(self.server.take()) if conn_id)

    def test_connects(self) -> None:
        """A server does not hear of one that only connects, nor the log."""
        with LogLines() as log:
            end = self.check()
            self.assertEqual(len(self.harness.web.handshakes), 1)
            end.half_close()
            end.gone()
        self.assertEqual(self.dialled(), 0)
        self.assertEqual((log.lines, self.harness.web.links), ([], 0))
        self.assertFalse(self.harness.web.handshakes)
        self.assertEqual(self.harness.router.stats.dials, 0)

    def test_speaks(self) -> None:
        """One that asks something is dialled, with what it asks."""
        late = self.check()
        self.assertEqual(self.dialled(), 0)
        late.drip(b"ask")
        self.check(b"ask")
        self.assertEqual(self.said(), b"askask")
        self.assertEqual(len(self.server.link.peers), 2)
        self.assertFalse(self.harness.web.handshakes)
        self.assertEqual(late.link.facts.transport, "direct+other")

    def test_stays(self) -> None:
        """One that stays may wait for its server to speak."""
        end = self.check()
        self.harness.clock.pump([0.5] * int(2 * TIMEOUT + 2))
        self.assertEqual(self.dialled(), 1)
        self.assertIsNone(end.lost)
        self.assertFalse(self.harness.web.handshakes)
        end.send(b"more")
        ((conn_id, data),) = split(self.server.take())
        self.assertEqual((conn_id in self.harness.router.conn_ids, data), (True, b"more"))

    def test_websocket(self) -> None:
        """The same inside WebSocket."""
        web = WebSocketFactory(self.harness.service)
        web.leads_to("page", 1)
        web.proxies = self.harness.web.proxies
        end = self.harness._connect(web)
        end.send(b"PROXY UNKNOWN\r\n" + request(headers=BROWSER))
        self.assertEqual(self.dialled(), 0)
        end.take()
        end.drip(frame(b"ask"))
        self.assertEqual(self.said(), b"ask")

    def test_nowhere(self) -> None:
        """Where there is no server it is lost, as clients would be."""
        end = self.harness._connect(self.harness.nowhere)
        end.send(b"PROXY UNKNOWN\r\n")
        self.assertIs(end.lost, Reason.NO_SERVER)
        self.assertTrue(end.transport.aborted)

    def test_client(self) -> None:
        """A client is dialled at once."""
        end = self.harness.comer()
        end.send(b"PROXY TCP4 203.0.113.7 192.0.2.9 5 6\r\n")
        self.assertEqual(self.dialled(), 1)


class WireTests(SynchronousTestCase):
    """Messages of a stream, and back."""

    @given(st.binary(max_size=300), st.lists(st.integers(0, 300)), st.integers(1, 40))
    @DETERMINISTIC
    def test_there_and_back(self, data: bytes, places: list[int], size: int) -> None:
        """Each read is messages of the largest size and a rest; together they are the bytes."""
        cutter = StreamCutter(7, size)
        come = b""
        for piece in cut(data, places):
            runs = cutter.feed(piece)
            self.assertEqual(len(runs), bool(piece))
            for conn_id, packets, count in runs:
                messages = [message for _, message in split(packets)]
                self.assertEqual(count, len(messages))
                self.assertEqual({one for one, _ in split(packets)}, {conn_id})
                self.assertEqual([len(one) for one in messages[:-1]], [size] * (count - 1))
                self.assertLessEqual(len(messages[-1]), size)
                self.assertEqual(bare_messages(packets), (piece, count))
                come += piece
        self.assertEqual(come, data)

    def test_empty(self) -> None:
        """Empty messages are nothing."""
        self.assertEqual(bare_messages(packet(3) + packet(3, b"a") + packet(3)), (b"a", 1))
        self.assertEqual(bare_messages(packet(3)), (b"", 0))


class TalkTests(SynchronousTestCase):
    """Bytes and messages."""

    def test_dialled_at_once(self) -> None:
        """The server hears of it before its first byte, and may speak first."""
        harness = DirectHarness()
        server = harness.server()
        end = harness.comer()
        self.assertEqual(server.take(), connect(FIRST, end.link.link_id))
        self.assertEqual(end.take(), b"")
        server.send(packet(FIRST, b"220 hello\r\n") + packet(FIRST) + packet(FIRST, b"x"))
        self.assertEqual(end.take(), b"220 hello\r\nx")
        end.send(b"EHLO\r\n")
        self.assertEqual(server.take(), packet(FIRST, b"EHLO\r\n"))
        harness.check_books()

    def test_counts(self) -> None:
        """What is counted of it are messages that were not empty, and bare bytes."""
        harness = DirectHarness()
        end, server, conn_id = harness.opened()
        end.send(b"abc")
        end.send(b"de")
        server.send(packet(conn_id, b"fgh") + packet(conn_id))
        counts = end.link.counts()
        self.assertEqual((counts.packets_in, counts.bytes_in), (2, 5))
        self.assertEqual((counts.packets_out, counts.bytes_out), (1, 3))
        stats = harness.router.stats
        self.assertEqual((stats.packets, stats.bytes), (4, 5 + 3 + 4 * 8))

    def test_cut(self) -> None:
        """A message has the bytes of a read, and fits a packet."""
        harness = DirectHarness(PortConfig(read_size=1000, max_packet=64))
        end, server, conn_id = harness.opened()
        end.send(bytes(130))
        self.assertEqual(
            server.take(),
            packet(conn_id, bytes(60)) * 2 + packet(conn_id, bytes(10)),
        )

    def test_bytes_that_look_like_commands(self) -> None:
        """Its bytes are never packets: not on another's connection, and no commands."""
        harness = DirectHarness()
        end, server, conn_id = harness.opened()
        data = dial(1) + close(conn_id) + packet(conn_id + 1, b"x") + b"\xff" * 8
        end.send(data)
        self.assertEqual(server.take(), packet(conn_id, data))
        self.assertIsNone(end.lost)
        self.assertEqual(end.take(), b"")

    @given(
        st.lists(st.binary(max_size=80), max_size=12),
        st.lists(st.integers(0, 1500), max_size=12),
        st.integers(17, 90),
    )
    @DETERMINISTIC
    def test_cut_anywhere(self, messages: list[bytes], places: list[int], most: int) -> None:
        """However reads cut them, bytes and messages come as they were, both ways at once."""
        harness = DirectHarness(PortConfig(max_packet=most, queue_packets=1 << 31))
        end, server, conn_id = harness.opened()
        data = b"".join(messages)
        packets = b"".join(packet(conn_id, message) for message in messages)
        for up, down in zip(cut(data, places), cut(packets, places), strict=True):
            if up:
                end.send(up)
            if down:
                server.send(down)
        self.assertEqual(end.take(), data)
        sent = split(server.take())
        self.assertEqual(b"".join(message for _, message in sent), data)
        self.assertLessEqual({one for one, _ in sent}, {conn_id})
        for _, message in sent:
            self.assertTrue(0 < len(message) <= most - 4)
        harness.check_books()

    def test_facts(self) -> None:
        """Log, links and status say which port it is, and how it came."""
        with LogLines() as log:
            harness = DirectHarness()
            end, server, conn_id = harness.opened()
            row = Source(harness.service).row(end.link)
            assert row is not None
            self.assertEqual((row.transport, row.port), ("direct+other", "web"))
            self.assertIn("\tover direct+other of web", link_row(row))
            server.send(close(conn_id))
        lines = [line for line in log.lines if line.startswith("client")]
        who = f"client {end.link.link_id} {end.link.facts.name}"
        self.assertEqual(lines[0], f"{who} of web connected")
        self.assertTrue(
            lines[1].startswith(
                f"{who} of web lost: its game server closed the connection: server 1 "
            ),
            lines,
        )

    def test_several(self) -> None:
        """Connections of several ports to one server are its clients."""
        harness = DirectHarness()
        other = ClientFactory(harness.service, PortConfig())
        other.leads_to("other", 1)
        server = harness.server()
        ends = [harness.comer(), harness._connect(other), harness.client()]
        ends[2].send(dial(1))
        conns = [int.from_bytes(one[1:5], "little") for _, one in split(server.take())]
        ends[2].take()
        for conn_id in conns:
            server.send(packet(conn_id, b"%d" % conn_id))
        took = [end.take() for end in ends]
        self.assertEqual(took[:2], [b"%d" % conn_id for conn_id in conns[:2]])
        self.assertEqual(took[2], packet(conns[2], b"%d" % conns[2]))

    def test_a_server_cannot_dial_it(self) -> None:
        """Its id is one of a client, and nobody is there."""
        harness = DirectHarness()
        end, server, _ = harness.opened()
        server.send(dial(end.link.link_id))
        self.assertEqual(server.take(), refuse(end.link.link_id))
        self.assertEqual(end.take(), b"")


class EndTests(SynchronousTestCase):
    """How it ends."""

    def test_fin(self) -> None:
        """All that it said is delivered, then Close; its own end is in order."""
        harness = DirectHarness()
        end, server, conn_id = harness.opened()
        end.send(b"last")
        end.half_close()
        self.assertEqual(server.take(), packet(conn_id, b"last") + close(conn_id))
        self.assertIs(end.lost, Reason.PEER_CLOSED)
        self.assertTrue(end.transport.disconnecting)

    def test_reset(self) -> None:
        """A connection that breaks closes its virtual connection."""
        harness = DirectHarness()
        end, server, conn_id = harness.opened()
        end.gone(ConnectionLost())
        self.assertEqual(server.take(), close(conn_id))
        self.assertIs(end.lost, Reason.CONNECTION_LOST)
        server.send(packet(conn_id, b"late"))
        self.assertEqual(server.take(), close(conn_id))
        harness.check_books()

    def test_close(self) -> None:
        """The server's Close comes behind all that it said, as a FIN."""
        harness = DirectHarness()
        end, server, conn_id = harness.opened()
        server.send(packet(conn_id, b"bye") + close(conn_id))
        self.assertEqual(end.take(), b"bye")
        self.assertIs(end.lost, Reason.SERVER_CLOSED)
        self.assertTrue(end.transport.disconnecting)
        self.assertFalse(end.transport.aborted)
        self.assertEqual(server.take(), close(conn_id))

    def test_server_lost(self) -> None:
        """What a lost server did not finish is no end in order."""
        harness = DirectHarness()
        end, server, _ = harness.opened()
        server.gone()
        self.assertIs(end.lost, Reason.SERVER_LOST)
        self.assertTrue(end.transport.aborted)

    def test_no_server(self) -> None:
        """Who cannot be connected is reset; a crowd of them is one line."""
        harness = DirectHarness()
        with LogLines() as log:
            for _ in range(30):
                end = harness._connect(harness.nowhere)
                self.assertIs(end.lost, Reason.NO_SERVER)
                self.assertTrue(end.transport.aborted)
                end.gone(ConnectionLost())
        (line,) = log.lines
        self.assertIn(" of nowhere lost: its game server could not be dialled: server 9 ", line)
        self.assertEqual(harness.router.stats.refused, {Refusal.UNKNOWN: 30})
        self.assertFalse(harness.service.connected)

    def test_stop(self) -> None:
        """A gateway that stops ends them as all others."""
        harness = DirectHarness()
        end, server, conn_id = harness.opened()
        server.send(packet(conn_id, b"last"))
        harness.service.stopService()
        self.assertEqual(end.take(), b"last")
        self.assertTrue(end.transport.disconnecting)
        for one in (end, server):
            one.gone()
        self.assertEqual(self.lost(harness)[Reason.SHUTDOWN], 2)

    @staticmethod
    def lost(harness: Harness) -> dict[Reason, int]:
        found: dict[Reason, int] = {}
        for (_, reason), count in harness.router.stats.lost.items():
            found[reason] = found.get(reason, 0) + count
        return found

    def test_crowd(self) -> None:
        """A lost server's direct connections end in steps, and every one does."""
        harness = DirectHarness()
        server = harness.server()
        ends = [harness.comer() for _ in range(300)]
        server.gone()
        while harness.service.turn_due:
            harness.service.turn()
        self.assertEqual({end.lost for end in ends}, {Reason.SERVER_LOST})
        self.assertFalse(harness.router.conn_ids)


class PendingTests(SynchronousTestCase):
    """The answer to its dial has to be waited for."""

    def harness(self) -> tuple[DirectHarness, list[Pending]]:
        harness = DirectHarness()
        asked: list[Pending] = []

        def look_up(*_: object) -> Pending:
            asked.append(Pending())
            return asked[-1]

        harness.router.look_up = look_up
        return harness, asked

    def test_answered(self) -> None:
        """Nothing is read of it before; then it goes on."""
        harness, (*_,) = self.harness()
        harness, asked = self.harness()
        server = harness.server()
        end = harness.comer()
        self.assertTrue(end.paused)
        self.assertEqual(server.take(), b"")
        asked[0].resolve(server.link)
        harness.service.flush()
        self.assertEqual(server.take(), connect(FIRST, end.link.link_id))
        self.assertFalse(end.paused)
        end.send(b"abc")
        self.assertEqual(server.take(), packet(FIRST, b"abc"))
        self.assertEqual(harness.service.held, 0)
        harness.pass_time(TIMEOUT + 1)
        self.assertIsNone(end.lost)

    def test_refused(self) -> None:
        """The answer may be no."""
        harness, asked = self.harness()
        end = harness.comer()
        asked[0].resolve(None)
        harness.service.flush()
        self.assertIs(end.lost, Reason.NO_SERVER)
        self.assertTrue(end.transport.aborted)
        self.assertEqual(harness.service.held, 0)

    def test_too_late(self) -> None:
        """It is not waited for for ever, nor once it has gone."""
        harness, asked = self.harness()
        server = harness.server()
        late, gone = harness.comer(), harness.comer()
        gone.gone(ConnectionLost())
        harness.pass_time(TIMEOUT + 1)
        self.assertIs(late.lost, Reason.NO_SERVER)
        self.assertTrue(late.transport.aborted)
        for one in asked:
            one.resolve(server.link)
        harness.service.flush()
        self.assertEqual(server.take(), b"")
        self.assertEqual(harness.router.stats.refused[Refusal.GONE], 2)
        late.gone()
        self.assertEqual(harness.service.held, 0)


class BoundTests(SynchronousTestCase):
    """What may wait, and for how long."""

    def test_slow_reader(self) -> None:
        """What waits for it is bounded in bytes, however many messages they are."""
        harness = DirectHarness(PortConfig(queue_packets=1 << 31, queue_bytes=100_000))
        end, server, conn_id = harness.opened()
        end.transport.fill()
        for _ in range(50):
            server.send(packet(conn_id, b"x") * 1900)
        harness.check_books()
        waiting = end.link.counts()
        self.assertEqual((waiting.waiting_packets, waiting.waiting_bytes), (95_000, 95_000))
        harness.turn()
        self.assertIsNone(end.lost)
        for _ in range(6):
            server.send(packet(conn_id, b"x") * 1900)
        harness.turn()
        self.assertIs(end.lost, Reason.SLOW_READER)
        self.assertTrue(end.transport.aborted)
        self.assertEqual(server.take(), close(conn_id))

    def test_small_pieces(self) -> None:
        """Many small messages, each sent alone, wait in few pieces, and come in order."""
        harness = DirectHarness()
        end, server, conn_id = harness.opened()
        end.transport.fill()
        for number in range(2000):
            server.send(packet(conn_id, b"%04d" % number))
        harness.check_books()
        self.assertLess(len(end.lane._queue or ()), 5)
        end.transport.drain()
        self.assertEqual(end.take(), b"".join(b"%04d" % number for number in range(2000)))
        harness.check_books()

    def test_server_that_does_not_read(self) -> None:
        """It is held as any client, and goes on where it was."""
        harness = DirectHarness(server=PortConfig(queue_packets=10, queue_bytes=1000))
        end, server, conn_id = harness.opened()
        server.transport.fill()
        sent = 0
        while not end.paused:
            end.send(bytes(100))
            sent += 1
        self.assertTrue(end.link.counts().held)
        harness.check_books()
        server.transport.drain()
        self.assertFalse(end.paused)
        self.assertEqual(server.take(), packet(conn_id, bytes(100)) * sent)

    def test_idle(self) -> None:
        """Bytes count as packets; neither saying nor taking anything is idle."""
        harness = DirectHarness(PortConfig(idle_timeout=30))
        end, server, conn_id = harness.opened()
        server.link.factory.config.idle_timeout = 0
        harness.pass_time(20)
        end.send(b"x")
        harness.pass_time(25)
        server.send(packet(conn_id, b"a line of a long answer"))
        harness.pass_time(25)
        self.assertIsNone(end.lost)
        harness.pass_time(60)
        self.assertIs(end.lost, Reason.IDLE_TIMEOUT)

    def test_idle_from_the_start(self) -> None:
        """Who says nothing at all goes after one idle timeout."""
        harness = DirectHarness(PortConfig(idle_timeout=10))
        end, _, _ = harness.opened()
        harness.pass_time(9.5)
        self.assertIsNone(end.lost)
        harness.pass_time(1)
        self.assertIs(end.lost, Reason.IDLE_TIMEOUT)

    def test_linger(self) -> None:
        """Who takes nothing of what is left is not waited for for ever; a stop waits less."""
        for stopping in (False, True):
            with self.subTest(stopping=stopping):
                harness = DirectHarness(PortConfig(write_timeout=30))
                end, server, conn_id = harness.opened()
                end.transport.fill()
                server.send(packet(conn_id, bytes(1000)) + close(conn_id))
                if stopping:
                    harness.service.stopService()
                harness.pass_time(LINGER + 1)
                self.assertEqual(end.transport.aborted, True)


class LastBytesTests(SynchronousTestCase):
    """What still waits when its server closes."""

    def closed(self) -> tuple[DirectHarness, End, End, bytes]:
        """A connection that its server closed while much waits for it."""
        harness = DirectHarness()
        end, server, conn_id = harness.opened()
        end.transport.fill()
        data = bytes(range(256)) * 100
        for at in range(0, len(data), 5000):
            server.send(packet(conn_id, data[at : at + 5000]))
        server.send(packet(conn_id, b"bye") + close(conn_id))
        self.assertIs(end.lost, Reason.SERVER_CLOSED)
        return harness, end, server, data + b"bye"

    def test_in_order(self) -> None:
        """It waits where it is counted, and is written as it is taken; then comes the FIN."""
        harness, end, _, data = self.closed()
        harness.check_books()
        self.assertEqual(harness.service.waiting_bytes, len(data))
        self.assertFalse(end.transport.disconnecting)
        end.send(b"not read")
        end.transport.drain()
        self.assertEqual(end.take(), data)
        self.assertTrue(end.transport.disconnecting)
        self.assertIsNone(end.transport.producer)
        harness.check_books()
        self.assertEqual(harness.service.waiting_bytes, 0)
        end.gone()
        self.assertNotIn(end.link, harness.service.connected)

    def test_broken(self) -> None:
        """Its loss, or the end of patience, lets go of it."""
        for patience in (False, True):
            with self.subTest(patience=patience):
                harness, end, _, _ = self.closed()
                if patience:
                    harness.pass_time(LINGER + 1)
                    self.assertTrue(end.transport.aborted)
                end.gone(ConnectionLost())
                harness.check_books()
                self.assertEqual(harness.service.waiting_bytes, 0)

    def test_memory(self) -> None:
        """Where all hold too much it goes as any other."""
        harness, end, server, _ = self.closed()
        harness.service.memory_limit = 10_000
        other = harness.comer()
        server.take()
        harness.service.flush()
        self.assertTrue(end.transport.aborted)
        self.assertIsNone(other.lost)
        self.assertEqual(harness.service.waiting_bytes, 0)
        harness.check_books()


class WebTests(SynchronousTestCase):
    """The same of web pages."""

    def test_web_socket(self) -> None:
        """What is in its frames is the stream."""
        harness = DirectHarness()
        web = WebSocketFactory(harness.service, PortConfig())
        web.leads_to("pages", 1)
        server = harness.server()
        end = harness._connect(web)
        self.assertEqual(server.take(), b"")
        end.send(request(headers=BROWSER))
        self.assertTrue(end.take().startswith(b"HTTP/1.1 101 "))
        self.assertEqual(server.take(), connect(FIRST, end.link.link_id))
        self.assertEqual(end.link.facts.transport, "direct+ws+other")
        end.drip(frame(b"hello") + frame(b"you"))
        came = b"".join(message for _, message in split(server.take()))
        self.assertEqual(came, b"helloyou")
        server.send(packet(FIRST, b"abc") + packet(FIRST, b"def") + close(FIRST))
        frames = server_frames(end.take())
        self.assertEqual(b"".join(data for opcode, data in frames if opcode == 2), b"abcdef")
        self.assertEqual(frames[-1][0], 8)
        self.assertEqual(int.from_bytes(frames[-1][1][:2], "big"), 1000)

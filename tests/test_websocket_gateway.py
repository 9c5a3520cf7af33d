"""WebSocket clients of a gateway on a clock: handshakes, frames, bounds, ends."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from fastway.config.values import parse_networks
from fastway.errors import Cause, Reason
from fastway.gateway import PortConfig, WebSocketConfig, WebSocketFactory
from fastway.gateway.preface import TIMEOUT
from fastway.gateway.stream import StreamLane
from fastway.networks import Networks
from fastway.websocket import Policy
from tests.support.core import DETERMINISTIC, cut
from tests.support.ends import End, Harness
from tests.support.golden import PING, close, dial, packet, whole_packets
from tests.support.logs import LogLines
from tests.support.websocket import BROWSER, closing, frame, request, server_frames


class WebHarness(Harness):
    """A harness with a port that speaks WebSocket."""

    def __init__(self, *, websocket: WebSocketConfig | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.web = WebSocketFactory(self.service, more.get("client"), websocket)

    def comer(self) -> End:
        """Somebody connects and has not asked yet."""
        return self._connect(self.web)

    def browser(self) -> End:
        """A client that is in."""
        end = self.comer()
        end.send(request(headers=BROWSER))
        assert end.take().startswith(b"HTTP/1.1 101 ")
        return end


def taken(end: End) -> list[bytes]:
    """The packets that a client was sent, in binary frames."""
    frames = server_frames(end.take())
    assert {opcode for opcode, _ in frames} <= {2}, frames
    return whole_packets(b"".join(payload for _, payload in frames))


def told(end: End) -> tuple[int, str]:
    """The Close with which a client was left."""
    *_, (opcode, payload) = server_frames(end.take())
    assert opcode == 8
    return int.from_bytes(payload[:2], "big"), payload[2:].decode()


class HandshakeTests(SynchronousTestCase):
    """How clients get in, and how not."""

    def test_in(self) -> None:
        """A handshake makes a client, whose transport is ws."""
        harness = WebHarness()
        end = harness.comer()
        end.drip(request(headers=BROWSER)[:-1])
        self.assertFalse(end.link.known)
        self.assertEqual(end.take(), b"")
        end.send(b"\n")
        self.assertTrue(end.take().startswith(b"HTTP/1.1 101 "))
        self.assertTrue(end.link.known)
        self.assertEqual((end.link.facts.transport, end.link.facts.via), ("ws+other", ""))
        self.assertEqual(len(harness.web.handshakes), 0)
        self.assertEqual(str(harness.web.figures()), "1 handshakes, 0 refused")

    def test_refused(self) -> None:
        """A refusal is plain HTTP, and counted; the log has one line for a crowd."""
        harness = WebHarness()
        with LogLines() as log:
            for _ in range(20):
                end = harness.comer()
                end.send(request(origin="https://evil.example\x7f"[:-1]))
                self.assertTrue(end.take().startswith(b"HTTP/1.1 403 "))
                self.assertIs(end.lost, Reason.HANDSHAKE_REFUSED)
                self.assertTrue(end.transport.disconnecting)
                end.gone()
        self.assertEqual(len(log.lines), 1)
        problem = "403: origin 'https://evil.example', which client-ws-origins does not name"
        self.assertIn(problem, log.lines[0])
        end = harness.comer()
        end.send(b"\x16\x03\x01")
        self.assertTrue(end.take().startswith(b"HTTP/1.1 400 "))
        self.assertEqual(
            str(harness.web.figures()), "0 handshakes, 21 refused (1 by 400, 20 by 403)"
        )
        self.assertEqual(harness.router.stats.turned_away[Reason.HANDSHAKE_REFUSED], 21)

    def test_refused_crowd(self) -> None:
        """Those who were refused and do not go are of those of which so many may be there."""
        harness = WebHarness(client=PortConfig(max_handshakes=2))
        ends = [harness.comer() for _ in range(2)]
        for end in ends:
            end.send(request("GET /nothing HTTP/1.1", headers=BROWSER))
            self.assertTrue(end.take().startswith(b"HTTP/1.1 404 "))
        self.assertFalse(any(end.transport.aborted for end in ends))
        third = harness.comer()
        self.assertEqual([end.transport.aborted for end in ends], [True, False])
        third.send(request(headers=BROWSER))
        self.assertTrue(third.link.known)
        self.assertEqual(len(harness.web.handshakes), 1)

    def test_policy(self) -> None:
        """The port says which path, and whose pages."""
        policy = Policy("/ws", ("https://a.example",))
        harness = WebHarness(websocket=WebSocketConfig(policy))
        for path, origin, status in (
            ("/ws", "https://a.example", b"101"),
            ("/", "https://a.example", b"404"),
            ("/ws", "https://game.example", b"403"),
        ):
            end = harness.comer()
            end.send(request(f"GET {path} HTTP/1.1", origin=origin))
            self.assertEqual(end.take()[9:12], status)

    def test_bytes_behind(self) -> None:
        """Nobody knows what bytes mean that come before the answer."""
        harness = WebHarness()
        end = harness.comer()
        end.send(request() + frame(PING))
        self.assertTrue(end.take().startswith(b"HTTP/1.1 400 "))

    def test_half(self) -> None:
        """Half a handshake has its time, and is one of so many."""
        harness = WebHarness(client=PortConfig(max_handshakes=3))
        ends = [harness.comer() for _ in range(4)]
        self.assertIs(ends[0].lost, Reason.TOO_MANY_HANDSHAKES)
        for end in ends[1:]:
            end.send(request()[:30])
        harness.pass_time(TIMEOUT + 0.5)
        self.assertEqual([end.lost for end in ends[1:]], [Reason.HANDSHAKE_TIMEOUT] * 3)
        self.assertTrue(all(end.transport.aborted for end in ends))

    def test_stop(self) -> None:
        """A gateway that stops tells who is at the handshake, and who is in."""
        harness = WebHarness()
        comer, browser = harness.comer(), harness.browser()
        harness.service.stopService()
        self.assertTrue(comer.take().startswith(b"HTTP/1.1 503 "))
        self.assertEqual(told(browser), (1001, "the gateway stops"))
        for end in (comer, browser):
            end.gone()

    def test_forwarded(self) -> None:
        """A trusted proxy tells who it is; nobody else does."""
        proxies = parse_networks("192.0.2.0/24, unix")
        for trusts, name, via in (
            (proxies, "203.0.113.9", "192.0.2.1:50001"),
            (Networks(), "192.0.2.1:50001", ""),
        ):
            harness = WebHarness(websocket=WebSocketConfig(proxies=trusts))
            end = harness.comer()
            end.send(request(x_forwarded_for="6.6.6.6, 203.0.113.9"))
            facts = end.link.facts
            self.assertEqual((facts.name, facts.via), (name, via))
        harness = WebHarness(websocket=WebSocketConfig(proxies=proxies))
        end = harness.comer()
        end.link.comes_from(UNIXAddress("/run/x"))
        self.assertEqual(end.link.facts.name, "/run/x")
        end.link.comes_from(IPv4Address("TCP", "198.51.100.1", 5))
        end.link.bytes_came(request(x_forwarded_for="203.0.113.9"))
        self.assertEqual(end.link.facts.name, "198.51.100.1:5")

    def test_forwarded_header(self) -> None:
        """The header is the one that the operator names; one that nobody can read is refused."""
        proxies = parse_networks("192.0.2.0/24")
        harness = WebHarness(websocket=WebSocketConfig(proxies=proxies, header="forwarded"))
        end = harness.comer()
        end.send(request(x_forwarded_for="6.6.6.6", forwarded="for=203.0.113.9"))
        self.assertEqual(end.link.facts.name, "203.0.113.9")
        broken = harness.comer()
        broken.send(request(forwarded='for="6.6.6.6, for=203.0.113.9'))
        self.assertTrue(broken.take().startswith(b"HTTP/1.1 400 "))
        self.assertEqual(str(harness.web.figures()), "1 handshakes, 1 refused (1 by 400)")

    def test_forwarded_by_none(self) -> None:
        """A trusted proxy that names nobody: one line, and a count."""
        proxies = parse_networks("192.0.2.0/24")
        harness = WebHarness(websocket=WebSocketConfig(proxies=proxies, header="forwarded"))
        with LogLines() as logged:
            for _ in range(3):
                end = harness.comer()
                end.send(request(x_forwarded_for="6.6.6.6"))
        (line,) = [line for line in logged.lines if "trusted-proxies" in line]
        self.assertIn("192.0.2.1:50001 is one of trusted-proxies, and names no client in", line)
        self.assertIn("Forwarded", line)
        told = "3 handshakes, 0 refused; 3 of a proxy that named no client"
        self.assertEqual(str(harness.web.figures()), told)
        self.assertEqual(WebHarness().web.figures().untold, 0)


class PacketTests(SynchronousTestCase):
    """Packets in frames."""

    def setUp(self) -> None:
        self.harness = WebHarness()
        self.server = self.harness.server(7)
        self.end = self.harness.browser()

    def dialled(self) -> int:
        before = set(self.harness.router.conn_ids)
        self.end.send(frame(dial(7)))
        self.end.take()
        self.server.take()
        (conn_id,) = self.harness.router.conn_ids - before
        return conn_id

    def test_echo(self) -> None:
        """A client dials, speaks, hears and is left."""
        conn_id = self.dialled()
        self.end.send(frame(packet(conn_id, b"hi")))
        self.assertEqual(self.server.take(), packet(conn_id, b"hi"))
        self.server.send(packet(conn_id, b"you") + packet(conn_id, b"there"))
        self.assertEqual(
            server_frames(self.end.take())[0][1],
            packet(conn_id, b"you") + packet(conn_id, b"there"),
        )
        self.server.send(close(conn_id))
        self.assertEqual(taken(self.end), [close(conn_id)])
        self.harness.check_books()

    @DETERMINISTIC
    @given(
        st.lists(st.binary(max_size=200), min_size=1, max_size=6),
        st.lists(st.integers(0, 2000), max_size=5),
        st.lists(st.integers(0, 3000), max_size=5),
    )
    def test_no_alignment(self, messages: list[bytes], cuts: list[int], reads: list[int]) -> None:
        """Packets need not begin or end where frames do, nor frames where reads do."""
        harness = WebHarness()
        server, end = harness.server(7), harness.browser()
        end.send(frame(dial(7)))
        end.take(), server.take()
        (conn_id,) = harness.router.conn_ids
        data = b"".join(packet(conn_id, message) for message in messages)
        sent = b"".join(
            frame(piece, mask=bytes((len(piece) & 255, 2, 3, 4))) for piece in cut(data, cuts)
        )
        for piece in cut(sent, reads):
            if piece:
                end.send(piece)
        self.assertEqual(server.take(), data)
        harness.check_books()

    def test_big(self) -> None:
        """What is large comes in frames of at most 16 KiB."""
        conn_id = self.dialled()
        data = packet(conn_id, bytes(100_000))
        self.server.send(data)
        frames = server_frames(self.end.take())
        self.assertEqual(b"".join(payload for _, payload in frames), data)
        self.assertLessEqual(max(len(payload) for _, payload in frames), 16 * 1024)

    def test_ping(self) -> None:
        """Pings are answered, of those of one read the last."""
        self.end.send(frame(b"one", 9) + frame(PING, fin=False) + frame(b"two", 9) + frame(b"", 0))
        self.assertEqual(server_frames(self.end.take()), [(10, b"two"), (2, PING)])

    def test_pings_of_who_does_not_read(self) -> None:
        """One answer waits for a client that takes nothing, however many it asks for."""
        self.end.transport.fill()
        before = len(self.end.transport.value())
        for number in range(1000):
            self.end.send(frame(b"%d" % number, 9))
        self.assertEqual(len(self.end.transport.value()), before)
        self.end.transport.drain()
        self.assertEqual(server_frames(self.end.take()), [(10, b"999")])

    def test_pings_are_no_packets(self) -> None:
        """A client that only pings is idle."""
        for _ in range(5):
            self.harness.pass_time(7)
            if self.end.lost is None:
                self.end.send(frame(b"", 9) + frame(b""))
        self.assertIs(self.end.lost, Reason.IDLE_TIMEOUT)
        self.assertEqual(told(self.end)[0], 4408)

    def test_slow_reader(self) -> None:
        """A client that reads too slowly is lost as any other; what waits is packets."""
        harness = WebHarness(client=PortConfig(queue_bytes=1000))
        server, end = harness.server(7), harness.browser()
        end.send(frame(dial(7)))
        server.take()
        (conn_id,) = harness.router.conn_ids
        end.transport.fill()
        server.send(packet(conn_id, bytes(500)))
        self.assertEqual(end.link.counts().waiting_bytes, 508)
        harness.check_books()
        server.send(packet(conn_id, bytes(500)))
        harness.turn()
        self.assertIs(end.lost, Reason.SLOW_READER)
        self.assertTrue(end.transport.aborted)

    def test_queue_drains_in_frames(self) -> None:
        """What waited for a client comes in frames too."""
        conn_id = self.dialled()
        self.end.transport.fill()
        for number in range(5):
            self.server.send(packet(conn_id, bytes([number])))
        self.end.take()
        self.end.transport.drain()
        self.assertEqual(taken(self.end), [packet(conn_id, bytes([n])) for n in range(5)])

    def test_tiny_frames(self) -> None:
        """A packet byte by byte in frames of its own, and nothing is kept for it."""
        conn_id = self.dialled()
        data = packet(conn_id, b"x" * 50)
        for byte in data[:-1]:
            self.end.send(frame(bytes((byte,))) + frame(b"") * 3)
            self.harness.check_books()
        self.assertEqual(self.server.take(), b"")
        self.end.send(frame(data[-1:]))
        self.assertEqual(self.server.take(), data)


class EndTests(SynchronousTestCase):
    """How clients go."""

    def setUp(self) -> None:
        self.harness = WebHarness()
        self.end = self.harness.browser()

    def test_reasons(self) -> None:
        """A client that breaks the rules is told which; what came before is carried out."""
        for sent, reason in (
            (frame(b"x", mask=None), Reason.BAD_FRAME),
            (frame(b"x", 1), Reason.NOT_BINARY),
            (closing(1000, b"\xff"), Reason.NOT_UTF8),
            (frame(length=1 << 40), Reason.FRAME_TOO_LARGE),
            (frame((1 << 30).to_bytes(4, "little") + bytes(4)), Reason.FRAME_TOO_LARGE),
            (frame(bytes(8)), Reason.FRAME_TOO_SHORT),
            (frame(packet(0, b"\x09")), Reason.BAD_COMMAND),
        ):
            with self.subTest(reason=reason), LogLines() as log:
                end = self.harness.browser()
                end.send(frame(PING) + sent + frame(PING))
                self.assertIs(end.lost, reason)
                frames = server_frames(end.take())
                self.assertEqual(frames[0], (2, PING))
                code = reason.close_code.to_bytes(2, "big")
                self.assertEqual(frames[1:], [(8, code + reason.value.encode())])
                self.assertTrue(end.transport.disconnecting)
                end.gone()
                self.harness.service.quiet.flush()
                self.assertIn(reason.value, log.lines[-1])

    def test_peer_closes(self) -> None:
        """A Close is answered by its code, once what came before it is done."""
        self.end.send(frame(PING) + closing(4321, b"bye") + b"\xff\xff")
        self.assertIs(self.end.lost, Reason.PEER_CLOSED)
        self.assertEqual(server_frames(self.end.take()), [(2, PING), (8, b"\x10\xe1")])
        self.assertTrue(self.end.transport.disconnecting)

    def test_close_behind_commands(self) -> None:
        """A Close waits its turn behind more commands than one turn carries out."""
        self.end.lane.dataReceived(frame(PING * 300) + closing(1000))
        self.assertIsNone(self.end.lost)
        while self.harness.service.turn_due:
            self.harness.service.turn()
        self.assertIs(self.end.lost, Reason.PEER_CLOSED)
        frames = server_frames(self.end.take())
        self.assertEqual(b"".join(payload for _, payload in frames[:-1]), PING * 300)
        self.assertEqual(frames[-1], (8, b"\x03\xe8"))

    def test_bad_frame_behind_commands(self) -> None:
        """The same with what is no frame."""
        self.end.lane.dataReceived(frame(PING * 300) + frame(b"x", 1) + closing(1000))
        self.assertIsNone(self.end.lost)
        while self.harness.service.turn_due:
            self.harness.service.turn()
        self.assertIs(self.end.lost, Reason.NOT_BINARY)

    def test_half_close(self) -> None:
        """A FIN without a Close ends it too."""
        self.end.half_close()
        self.assertIs(self.end.lost, Reason.PEER_CLOSED)
        self.assertTrue(self.end.transport.disconnecting)

    def test_kick(self) -> None:
        """A client that the gateway leaves is told why, behind all that waits for it."""
        self.end.transport.fill()
        server = self.harness.server(7)
        self.end.send(frame(dial(7)))
        self.end.take()
        (conn_id,) = self.harness.router.conn_ids
        server.send(packet(conn_id, b"last"))
        self.harness.router.lose(self.end.link, Reason.KICKED)
        frames = server_frames(self.end.take())
        self.assertIn(packet(conn_id, b"last"), b"".join(payload for _, payload in frames[:-1]))
        self.assertEqual(frames[-1][0], 8)

    def test_nothing_behind_a_close(self) -> None:
        """When the Close is sent nothing more is, whatever comes."""
        self.harness.router.lose(self.end.link, Reason.KICKED)
        self.end.take()
        self.end.lane.dataReceived(frame(PING) + frame(b"?", 9) + closing(1000))
        self.assertEqual(self.end.take(), b"")

    @DETERMINISTIC
    @given(
        st.binary(max_size=60),
        st.integers(0, 200),
        st.integers(0, 20),
        st.lists(st.integers(0, 400), max_size=5),
    )
    def test_fuzz(self, noise: bytes, place: int, removed: int, cuts: list[int]) -> None:
        """Whatever a client sends: it lives or is lost, gets frames, and nobody else notices."""
        harness = WebHarness()
        server, end = harness.server(7), harness.browser()
        good = frame(PING) + frame(b"x", 9) + frame(dial(7)) + frame(bytes(100), fin=False)
        good += frame(PING[:5], 0) + frame(PING[5:], 0)
        for piece in cut(good[:place] + noise + good[place + removed :], cuts):
            if piece and end.lost is None:
                end.send(piece)
        harness.check_books()
        frames = server_frames(end.take())
        if end.lost is not None:
            self.assertIs(end.lost.cause, Cause.PEER)
            self.assertEqual([opcode for opcode, _ in frames].index(8), len(frames) - 1)
        server.take()
        server.send(PING)
        self.assertEqual(server.take(), PING)

    def test_lane(self) -> None:
        """It is the Python lane."""
        self.assertIsInstance(self.end.lane, StreamLane)

"""Ports behind proxies, on a clock: who must send a header, what it makes known, and when not.

Rule: the same cases run where the header is a link's first preface and where a layer reads it.
"""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from fastway.config.values import parse_networks
from fastway.errors import Reason
from fastway.gateway import (
    Facts,
    PortConfig,
    WebSocketConfig,
    WebSocketFactory,
)
from fastway.gateway.facts import ToldAddress, facts_of
from fastway.gateway.preface import TIMEOUT
from fastway.gateway.proxied import Proxies, ProxyFactory
from fastway.gateway.stream import StreamLane
from fastway.ops.snapshot import Source
from fastway.ops.status import link_row
from tests.support.core import DETERMINISTIC, cut
from tests.support.ends import Harness
from tests.support.golden import PING, dial, prove
from tests.support.logs import LogLines
from tests.support.proxied import PROXY, Bed
from tests.support.proxy import (
    ADDRESSES,
    BLOCK,
    CHECK,
    CHECK_LINE,
    CLIENT,
    LINE,
    SIGNATURE,
    block,
    line,
    tls,
    value,
    with_sum,
)
from tests.support.websocket import frame, request


class BothWays(SynchronousTestCase):
    """The port alone."""

    layered = False

    def bed(self, **more: Any) -> Bed:
        return Bed(self.layered, **more)

    def test_client(self) -> None:
        """A client goes by the address that its proxy tells, in either version."""
        for header in (LINE, BLOCK, with_sum(ADDRESSES)):
            bed = self.bed()
            comer = bed.comer()
            comer.send(header + PING)
            self.assertEqual(comer.take(), PING)
            self.assertEqual(comer.facts, Facts(CLIENT, "other", via="10.0.0.2:40001"))
            self.assertTrue(comer.link.known)
            self.assertEqual(str(bed.proxies.figures()), "1 clients, 0 checks of the proxies' own")

    def test_byte_by_byte(self) -> None:
        """One byte at a time; the client is known with the last byte of the header."""
        for header in (LINE, with_sum(ADDRESSES + tls())):
            comer = self.bed().comer()
            for place in range(len(header)):
                self.assertFalse([link for link in comer.links if link.known])
                comer.send(header[place : place + 1])
            self.assertTrue(comer.link.known)

    def test_facts(self) -> None:
        """What the proxy knows of the client's TLS is known; who is not verified is nobody."""
        named = ADDRESSES + value(2, b"game.example")
        for info, tls_version, identity in (
            (tls(), "TLSv1.3", "lobby"),
            (tls(client=5), "TLSv1.3", "lobby"),
            (tls(client=1), "TLSv1.3", ""),
            (tls(verify=1), "TLSv1.3", ""),
            (tls(client=6), "", ""),
            (tls(version=b""), "TLS", "lobby"),
            (b"", "", ""),
        ):
            comer = self.bed().comer()
            comer.send(block(named + info))
            facts = comer.facts
            self.assertEqual((facts.tls, facts.identity), (tls_version, identity))
            self.assertEqual((facts.sni, facts.name), ("game.example", CLIENT))

    def test_families(self) -> None:
        """Clients over IPv6 and by unix sockets; a proxy by a unix socket."""
        unix = b"/run/web".ljust(108, b"\0") * 2
        for host, header, name, via in (
            (PROXY, line("2001:db8::7", "::1"), "[2001:db8::7]:5555", "10.0.0.2:40001"),
            ("::ffff:10.0.0.2", LINE, CLIENT, "10.0.0.2:40001"),
            (PROXY, block(unix, 0x31), "/run/web", "10.0.0.2:40001"),
            ("unix", LINE, CLIENT, "local"),
        ):
            comer = self.bed().comer(host)
            comer.send(header + PING)
            self.assertEqual(comer.take(), PING)
            self.assertEqual((comer.facts.name, comer.facts.via), (name, via))

    def test_untrusted(self) -> None:
        """Who is not listed is refused at the door, whatever it says; the log has one line."""
        bed = self.bed()
        with LogLines() as log:
            for _ in range(50):
                comer = bed.comer("203.0.113.66")
                comer.send(LINE + PING)
                self.assertTrue(comer.refused)
                self.assertEqual(comer.links, [])
                self.assertEqual(comer.take(), b"")
        self.assertEqual(bed.turned_away, {Reason.PROXY_UNTRUSTED: 50})
        self.assertEqual(bed.harness.service.turned_away, 50)
        self.assertEqual(bed.factory.links, 0)
        (event,) = log.events
        self.assertEqual(event["reason_code"], "proxy_untrusted")
        (told,) = log.lines
        self.assertIn("client ? 203.0.113.66:40001 turned away: --client-proxy-from does", told)

    def test_direct(self) -> None:
        """With `direct` others need no header, and one that they send is not read."""
        bed = self.bed(direct=True)
        comer = bed.comer("203.0.113.66")
        comer.send(PING)
        self.assertEqual(comer.take(), PING)
        self.assertEqual((comer.facts.name, comer.facts.via), ("203.0.113.66:40001", ""))
        liar = bed.comer("203.0.113.66")
        link = liar.link
        liar.send(LINE + PING)
        self.assertEqual(liar.take(), b"")
        self.assertIs(link.lost, Reason.FRAME_TOO_LARGE)
        listed = bed.comer()
        listed.send(PING)
        self.assertTrue(listed.refused)

    def test_client_within_the_list(self) -> None:
        """A client whose own address is a listed one needs no second header."""
        comer = self.bed().comer()
        comer.send(line("10.9.9.9", "192.0.2.1") + PING)
        self.assertEqual(comer.take(), PING)
        self.assertEqual(comer.facts.name, "10.9.9.9:5555")

    def test_bad(self) -> None:
        """What is no header, or a bad one, ends the connection at once, with a reason."""
        for sent, reason in (
            (PING, Reason.PROXY_NOT_HEADER),
            (b"GET / HTTP/1.1\r\n", Reason.PROXY_NOT_HEADER),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n", Reason.PROXY_BAD_HEADER),
            (block(ADDRESSES + b"\x04"), Reason.PROXY_BAD_HEADER),
            (SIGNATURE + b"\x31", Reason.PROXY_BAD_HEADER),
        ):
            bed = self.bed()
            with LogLines() as log:
                comer = bed.comer()
                comer.send(sent)
                self.assertTrue(comer.transport.aborted)
                comer.send(LINE + PING)
                comer.end()
            self.assertEqual(comer.take(), b"")
            self.assertEqual(bed.turned_away, {reason: 1})
            (event,) = log.events
            self.assertEqual((event["reason_code"], event["side"]), (reason.code, "client"))
            self.assertIn(f"client ? 10.0.0.2:40001 lost: {reason.value}: ", log.lines[0])
            self.assertEqual(len(bed.harness.service.connected), 0)
            self.assertEqual(bed.factory.links, 0)

    def test_timeout(self) -> None:
        """Half a header, or none, has five seconds."""
        for sent in (b"", b"PROXY", BLOCK[:20]):
            bed = self.bed()
            comer = bed.comer()
            if sent:
                comer.send(sent)
            bed.harness.pass_time(4.75)
            self.assertFalse(comer.refused)
            with LogLines() as log:
                bed.harness.pass_time(0.5)
            self.assertTrue(comer.transport.aborted)
            self.assertEqual(bed.turned_away, {Reason.PROXY_TIMEOUT: 1})
            self.assertEqual([event["reason_code"] for event in log.events], ["proxy_timeout"])

    def test_truncated(self) -> None:
        """Who goes in the middle of a header was cut; who said nothing only looked."""
        for sent, reason, lines in (
            (LINE[:-1], Reason.PROXY_TRUNCATED, 1),
            (BLOCK[:13], Reason.PROXY_TRUNCATED, 1),
            (b"", Reason.PEER_CLOSED, 0),
        ):
            bed = self.bed()
            with LogLines() as log:
                comer = bed.comer()
                if sent:
                    comer.send(sent)
                comer.end()
            self.assertEqual(bed.turned_away, {reason: 1})
            self.assertEqual(len(log.lines), lines)

    def test_reset(self) -> None:
        """A connection that breaks inside a header broke."""
        bed = self.bed()
        with LogLines() as log:
            comer = bed.comer()
            comer.send(LINE[:9])
            comer.end(ConnectionLost())
            bed.comer().end(ConnectionLost())
        self.assertEqual(bed.turned_away, {Reason.CONNECTION_LOST: 2})
        self.assertEqual([event["reason_code"] for event in log.events], ["connection_lost"])

    def test_probes(self) -> None:
        """A proxy that speaks for itself has its own address, is counted, and leaves no line."""
        bed = self.bed()
        for header in (CHECK, CHECK_LINE, block(ADDRESSES, command=0x20), block(b"?", 0)):
            for error in (None, ConnectionLost()):
                with LogLines() as log:
                    comer = bed.comer()
                    comer.send(header)
                    facts = comer.facts
                    self.assertTrue(facts.probe)
                    self.assertEqual((facts.host, facts.via), (PROXY, ""))
                    comer.end(error)
                    bed.harness.service.quiet.flush()
                self.assertEqual(log.lines, [])
        self.assertEqual(bed.proxies.figures().probes, 8)

    def test_probe_by_its_address(self) -> None:
        """Version 1 has no word for a check: HAProxy then names the connection's own address."""
        bed = self.bed()
        with LogLines() as log:
            comer = bed.comer()
            comer.send(line(PROXY, "10.0.0.1", 40001))
            self.assertEqual(comer.facts, Facts("10.0.0.2:40001", "other", probe=True))
            comer.end(ConnectionLost())
        self.assertEqual(log.lines, [])
        near = bed.comer()
        near.send(line(PROXY, "10.0.0.1", 40001))
        self.assertEqual(near.facts.name, "10.0.0.2:40001")
        self.assertFalse(near.facts.probe)
        self.assertEqual(str(bed.proxies.figures()), "1 clients, 1 checks of the proxies' own")

    def test_probe_that_takes_part(self) -> None:
        """UNKNOWN may be somebody who plays: his lines are those of any client."""
        bed = self.bed()
        server = bed.harness.server(7)
        with LogLines() as log:
            comer = bed.comer()
            comer.send(CHECK_LINE + dial(7))
            comer.end()
        server.take()
        self.assertEqual(len(log.lines), 2)
        self.assertIn(" connected", log.lines[0])
        self.assertIn(" lost: closed by the peer", log.lines[1])

    def test_log(self) -> None:
        """The lines about a client name it and its proxy, and so do rows of `links`."""
        bed = self.bed()
        bed.harness.server(7)
        with LogLines() as log:
            comer = bed.comer()
            comer.send(BLOCK + dial(7))
            link = comer.link
            row = Source(bed.harness.service).row(link)
            comer.end()
        connected, lost = log.events
        self.assertEqual(log.lines[0], f"client 1 {CLIENT} via 10.0.0.2:40001 connected")
        for event in (connected, lost):
            self.assertEqual((event["addr"], event["via"]), (CLIENT, "10.0.0.2:40001"))
        assert row is not None
        self.assertIn(f"\t{CLIENT}\t", link_row(row))
        self.assertIn("\tover other via 10.0.0.2:40001", link_row(row))

    def test_crowd(self) -> None:
        """So many headers may be under way; past that the oldest goes, and nobody who is in."""
        harness = Harness(client=PortConfig(max_handshakes=3))
        bed = self.bed(harness=harness)
        known = bed.comer()
        known.send(LINE)
        comers = [bed.comer() for _ in range(4)]
        self.assertTrue(comers[0].transport.aborted)
        self.assertEqual(bed.turned_away, {Reason.TOO_MANY_HANDSHAKES: 1})
        self.assertFalse(any(comer.refused for comer in [known, *comers[1:]]))
        for comer in comers[1:]:
            comer.send(LINE + PING)
            self.assertEqual(comer.take(), PING)

    def test_full(self) -> None:
        """Over max-clients a client behind a proxy is turned away as any other."""
        bed = self.bed(harness=Harness(client=PortConfig(max_links=2)))
        comers = [bed.comer() for _ in range(3)]
        for comer in comers:
            comer.send(LINE + PING)
        self.assertEqual([comer.take() for comer in comers], [PING, PING, b""])
        self.assertTrue(comers[2].transport.aborted)
        self.assertEqual(bed.turned_away, {Reason.TOO_MANY_LINKS: 1})

    def test_server(self) -> None:
        """A server port too: the challenge comes behind the header, and its time begins there."""
        harness = Harness()
        bed = self.bed(harness=harness, factory=harness.servers)
        comer = bed.comer()
        self.assertEqual(comer.take(), b"")
        harness.pass_time(4)
        comer.send(BLOCK)
        challenge = comer.take()
        self.assertEqual(len(challenge), 8)
        harness.pass_time(4)
        with LogLines() as log:
            comer.send(prove(challenge, 3) + PING)
        self.assertEqual(comer.take(), PING)
        self.assertEqual(log.lines[0], f"server 3 {CLIENT} via 10.0.0.2:40001 logged in")
        late = bed.comer()
        late.send(BLOCK)
        link = late.link
        harness.pass_time(TIMEOUT + 0.25)
        self.assertIs(link.lost, Reason.HANDSHAKE_TIMEOUT)

    def test_websocket(self) -> None:
        """WebSocket behind it has its own time, and knows whom either proxy speaks for."""
        harness = Harness()
        trusts = WebSocketConfig(proxies=parse_networks("203.0.113.0/24"))
        web = WebSocketFactory(harness.service, None, trusts)
        bed = self.bed(harness=harness, factory=web)
        comer = bed.comer()
        harness.pass_time(4)
        comer.send(LINE)
        harness.pass_time(4)
        comer.send(request()[:9])
        comer.send(request()[9:])
        self.assertTrue(comer.take().startswith(b"HTTP/1.1 101 "))
        self.assertEqual((comer.facts.name, comer.facts.transport), (CLIENT, "ws+other"))
        comer.send(frame(PING))
        self.assertTrue(comer.take().endswith(PING))
        both = bed.comer()
        both.send(LINE)
        both.send(request(x_forwarded_for="198.51.100.9"))
        self.assertEqual(both.facts.name, "198.51.100.9")
        self.assertEqual(both.facts.via, "203.0.113.7:5555, 10.0.0.2:40002")
        lost = f"client ? {CLIENT} lost: its WebSocket handshake was refused"
        for pieces in ([LINE, b"\x16\x03\x01"], [LINE + b"\x16\x03\x01"]):
            harness.pass_time(11)
            with LogLines() as log:
                refused = bed.comer()
                for piece in pieces:
                    refused.send(piece)
            self.assertIn(lost, log.lines[0])

    def test_unix_and_forwarded(self) -> None:
        """A client that a PROXY header names is not trusted for coming by a unix socket."""
        harness = Harness()
        web = WebSocketFactory(
            harness.service, None, WebSocketConfig(proxies=parse_networks("unix"))
        )
        comer = self.bed(harness=harness, factory=web).comer("unix")
        comer.send(LINE)
        comer.send(request(x_forwarded_for="198.51.100.9"))
        self.assertEqual((comer.facts.name, comer.facts.via), (CLIENT, "local"))
        self.assertEqual(comer.facts.transport, "ws+unix")

    def test_stop(self) -> None:
        """A gateway that stops leaves no header under way."""
        bed = self.bed()
        comer = bed.comer()
        comer.send(LINE[:5])
        if self.layered:
            bed.outermost.doStart()
            bed.outermost.doStop()
        bed.harness.service.stopService()
        self.assertTrue(comer.transport.aborted or comer.transport.disconnecting)
        comer.end()
        self.assertEqual(len(bed.harness.service.connected), 0)


class LayeredBothWays(BothWays):
    """The same where a layer reads the header."""

    layered = True


class CutTests(SynchronousTestCase):
    @DETERMINISTIC
    @given(st.booleans(), st.sampled_from((LINE, BLOCK)), st.lists(st.integers(0, 60), max_size=6))
    def test_cuts(self, layered: bool, header: bytes, places: list[int]) -> None:
        """Wherever the bytes are cut, the client is known and its packets are carried out."""
        comer = Bed(layered).comer()
        for piece in cut(header + PING * 2, places):
            if piece:
                comer.send(piece)
        self.assertEqual(comer.take(), PING * 2)
        self.assertEqual(comer.facts.name, CLIENT)


class LayerTests(SynchronousTestCase):
    """What only the layer does."""

    def test_address(self) -> None:
        """What is inside sees a connection of the client's, from its first moment."""
        seen: list[Any] = []

        class Inside(Protocol):
            def connectionMade(self) -> None:
                seen.append(cast(Any, self.transport).getPeer())

            def dataReceived(self, data: bytes) -> None:
                seen.append(data)

        class Inner(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Protocol:
                seen.append(addr)
                return Inside()

        bed = Bed(True)
        bed.outermost = ProxyFactory(cast(Any, Inner()), bed.factory, bed.proxies)
        bed.comer().send(LINE + b"behind")
        first, second, data = seen
        self.assertIs(first, second)
        self.assertIsInstance(first, ToldAddress)
        self.assertEqual((first.host, first.text, data), ("203.0.113.7", CLIENT, b"behind"))
        told = Facts(CLIENT, "tls", via="10.0.0.2:40001")
        self.assertEqual(facts_of(first, "tls"), told)

    def test_half_close(self) -> None:
        """A FIN is told to what is inside if that knows what it is; else it is the end."""

        @implementer(IHalfCloseableProtocol)
        class Knowing(Protocol):
            ended = 0

            def readConnectionLost(self) -> None:
                self.ended += 1

            def writeConnectionLost(self) -> None:
                self.ended += 10

        for kind, knows in ((Knowing, True), (Protocol, False)):
            bed = Bed(True)
            inner = Factory.forProtocol(kind)
            bed.outermost = ProxyFactory(cast(Any, inner), bed.factory, bed.proxies)
            comer = bed.comer()
            self.assertIsNone(IHalfCloseableProtocol(comer.protocol, None))
            comer.send(LINE)
            half: Any = IHalfCloseableProtocol(comer.protocol, None)
            self.assertIs(half is not None, knows)
            if knows:
                half.readConnectionLost()
                half.writeConnectionLost()
                self.assertEqual(comer.protocol.wrappedProtocol.ended, 11)
            comer.end()

    def test_inside_declines(self) -> None:
        """If nobody is to be inside, the connection ends."""

        class Nobody(Factory):
            def buildProtocol(self, addr: Any) -> None:
                return None

        bed = Bed(True)
        bed.outermost = ProxyFactory(cast(Any, Nobody()), bed.factory, bed.proxies)
        comer = bed.comer()
        comer.send(LINE + PING)
        comer.send(PING)
        self.assertTrue(comer.transport.aborted)
        comer.end()

    def test_direct_is_no_layer(self) -> None:
        """Who needs no header has nothing between it and what is inside."""
        bed = Bed(True, direct=True)
        self.assertIsInstance(bed.comer("203.0.113.66").protocol, StreamLane)


class TrustTests(SynchronousTestCase):
    """Who is listed."""

    def test_refuses(self) -> None:
        """A list, or everybody where others may come direct."""
        proxies = Proxies(parse_networks("10.0.0.0/8"))
        for address, refused in (
            (IPv4Address("TCP", "10.1.1.1", 1), False),
            (IPv6Address("TCP", "::ffff:10.1.1.1", 1), False),
            (IPv4Address("TCP", "11.1.1.1", 1), True),
            (UNIXAddress("/run/x"), True),
            (None, True),
        ):
            self.assertIs(proxies.refuses(address), refused, address)
        self.assertFalse(Proxies(parse_networks("unix")).refuses(UNIXAddress(None)))
        self.assertFalse(Proxies(parse_networks("unix"), True).refuses(None))

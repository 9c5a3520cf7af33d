"""The way in on a clock: who is asked, what is counted and logged, and what proxies tell."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase

from fastway.config.values import parse_networks
from fastway.errors import CommandError, Reason
from fastway.gateway import TurnedAway, WebSocketConfig, WebSocketFactory
from fastway.gateway.factories import MOMENT
from fastway.gateway.gate import CROWD_PAUSE, MINUTE
from fastway.gateway.limits import LimitValues
from fastway.gateway.proxied import Proxies, ProxyFactory
from fastway.gateway.stream import StreamLane
from fastway.ops.limits import OPTIONS, change_limits, words
from fastway.ops.snapshot import Source
from fastway.ops.status import limit_figures
from fastway.router import Refusal
from tests.support.ends import End, Harness, LinkTransport
from tests.support.errors import raised
from tests.support.golden import FIRST, accept, dial, packet, refuse
from tests.support.logs import LogLines
from tests.support.proxy import line
from tests.support.websocket import BROWSER, request

FULL, FAST = Reason.ADDRESS_CONNECTIONS, Reason.ADDRESS_RATE
HERE = "192.0.2.1"
"""Where all ends of a harness are."""


class GateTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.harness = Harness()
        self.service = self.harness.service
        self.gate = self.service.gate

    def allow(self, **values: Any) -> None:
        self.gate.values = LimitValues(**values)
        self.harness.clients.set_limits(self.gate.values)

    def come(self, host: str = HERE, factory: Any = None) -> StreamLane | None:
        """Somebody connects; None: turned away."""
        kind = IPv6Address if ":" in host else IPv4Address
        address: Any = kind("TCP", host, 5555) if host else UNIXAddress("/run/x")
        made = (factory or self.harness.clients).buildProtocol(cast(IAddress, address))
        if isinstance(made, TurnedAway):
            return None
        assert isinstance(made, StreamLane)
        made.makeConnection(cast(Any, LinkTransport(peerAddress=address)))
        return made

    def end(self, lane: StreamLane | None) -> None:
        assert lane is not None
        cast(Any, lane).connectionLost()


class DoorTests(GateTestCase):
    def test_address(self) -> None:
        """Past its connections an address is turned away, until one of them is over."""
        self.allow(address_connections=2)
        lanes = [self.come() for _ in range(3)]
        self.assertIsNone(lanes[2])
        self.assertEqual(self.harness.clients.links, 2)
        self.assertIsNotNone(self.come("192.0.2.2"))
        self.end(lanes[0])
        self.assertIsNotNone(self.come())
        figures = self.gate.figures()
        self.assertEqual((figures.connections, figures.entries), (3, 2))
        self.assertEqual(figures.refused, {FULL: 1})
        self.assertEqual(self.service.turned_away, 1)
        self.assertEqual(self.service.router.stats.turned_away[FULL], 1)

    def test_ipv6(self) -> None:
        """A /64 is one address."""
        self.allow(address_connections=1)
        self.assertIsNotNone(self.come("2001:db8::1"))
        self.assertIsNone(self.come("2001:db8::2"))
        self.assertIsNone(self.come("2001:db8::1%eth0"))
        self.assertIsNotNone(self.come("2001:db8:0:1::2"))

    def test_unix(self) -> None:
        """A unix socket has no address: it counts in all only."""
        self.allow(connections=3, address_connections=1)
        self.assertEqual([self.come("") is not None for _ in range(4)], [True] * 3 + [False])

    def test_servers(self) -> None:
        """Game servers are not counted."""
        self.allow(connections=1, address_connections=1)
        for number in range(5):
            self.harness.server(number + 1)
        self.assertIsNotNone(self.come())

    def test_full_port(self) -> None:
        """Who finds no room on the port does not count."""
        self.allow(address_connections=2)
        self.harness.clients.config.max_links = 1
        lanes = [self.come() for _ in range(4)]
        self.assertEqual([lane is not None for lane in lanes], [True, False, False, False])
        self.assertEqual(self.gate.figures().connections, 1)
        self.assertEqual(self.gate.figures().refused, {})

    def test_nothing_is_left(self) -> None:
        """When all have gone and their buckets are full, nobody is remembered; the wheel rests."""
        self.allow(address_connections=5, address_rate=1.0, address_burst=5)
        lanes = [self.come(f"192.0.2.{number}") for number in range(200) for _ in range(3)]
        self.assertEqual(len(self.gate.table.entries), 200)
        for lane in lanes:
            self.end(lane)
        self.assertEqual(len(self.gate.table.entries), 200)
        self.harness.pass_time(5)
        self.assertEqual(self.gate.table.entries, {})
        self.assertEqual(len(self.service.wheel), 0)

    def test_dry_run(self) -> None:
        """Everything is counted as it would be, told, and nobody is refused."""
        self.allow(address_connections=2, dry_run=True)
        with LogLines() as log:
            lanes = [self.come() for _ in range(5)]
        self.assertNotIn(None, lanes)
        figures = self.gate.figures()
        self.assertEqual((figures.connections, figures.refused, figures.dry), (2, {}, {FULL: 3}))
        self.assertEqual(
            [row for row in log.lines if "turned away" in row],
            [f"client ? 192.0.2.1 would be turned away: {FULL.value}"],
        )
        self.assertEqual(self.service.turned_away, 0)
        for lane in lanes:
            self.end(lane)
        self.assertEqual(self.gate.figures().connections, 0)

    def test_log(self) -> None:
        """The first refusal of an address at warn, then its number each 10 s; one line about all
        each minute."""
        self.allow(address_connections=1)
        self.come()
        self.come("192.0.2.2")
        with LogLines() as log:
            for _ in range(50):
                self.come()
            self.come("192.0.2.2")
        self.assertEqual(
            log.lines,
            [
                f"client ? {host} turned away: {FULL.value}: limit-address-connections"
                for host in (HERE, "192.0.2.2")
            ],
        )
        self.assertEqual({event["log_level"].name for event in log.events}, {"warn"})
        self.assertEqual({event["reason_code"] for event in log.events}, {FULL.code})
        with LogLines() as log:
            self.harness.pass_time(11)
        self.assertEqual(log.lines, [f"client turned away: 49 more from {HERE} in 10 s"])
        with LogLines() as log:
            self.harness.pass_time(MINUTE)
        self.assertEqual(
            [row for row in log.lines if "lost" not in row],
            [
                "51 connections turned away for the limits in 60 s; "
                "2 addresses of 100000 are told apart"
            ],
        )
        with LogLines() as log:
            self.harness.pass_time(2 * MINUTE)
        self.assertEqual([row for row in log.lines if "turned" in row], [])

    def test_sum_of_a_dry_run(self) -> None:
        """A dry run that ends within the minute has a sum of its own: nobody was refused by it."""
        self.allow(address_connections=1, dry_run=True)
        for _ in range(5):
            self.come()
        self.harness.pass_time(20)
        with LogLines() as log:
            self.allow(address_connections=1)
            self.come()
            self.come()
            self.harness.pass_time(MINUTE + 11)
        self.assertEqual(
            [row.partition(";")[0] for row in log.lines if " for the limits in " in row],
            [
                "4 connections would be turned away for the limits in 20 s",
                "2 connections turned away for the limits in 60 s",
            ],
        )

    def test_handshakes(self) -> None:
        """limit-handshakes bounds what is at its prefaces: past it the oldest goes."""
        web = WebSocketFactory(self.service)
        web.set_limits(LimitValues(handshakes=3))
        lanes = [self.come(factory=web) for _ in range(5)]
        lost = [cast(Any, lane).link.lost for lane in lanes]
        self.assertEqual(lost, [Reason.TOO_MANY_HANDSHAKES] * 2 + [None] * 3)


class RestTests(GateTestCase):
    """A port that rests, as a door tells it."""

    class Listening:
        disconnecting = False

        def __init__(self) -> None:
            self.reading = True

        def stopReading(self) -> None:
            self.reading = False

        def startReading(self) -> None:
            self.reading = True

    def setUp(self) -> None:
        super().setUp()
        self.door = self.harness.clients.door
        self.door.listening = self.listening = self.Listening()

    def accept(self) -> int:
        """Accept as many as may be now."""
        count = 0
        while count < 1000 and self.listening.reading and not self.door.rests():
            self.door.admit(b"\xc0\0\2\1")
            count += 1
        return count

    def test_rate(self) -> None:
        """Over the rate of all the port rests; nobody is refused."""
        self.allow(rate=40.0)
        self.assertEqual(self.accept(), 40)
        self.assertFalse(self.listening.reading)
        self.assertEqual((self.gate.figures().rests, self.gate.figures().refused), (1, {}))
        came = 0
        for _ in range(40):
            self.harness.clock.advance(0.25)
            came += self.accept()
        self.assertTrue(399 <= came <= 400, came)

    def test_tls_rate(self) -> None:
        """TLS handshakes have a rate of each port's own, also where nothing else is limited, and
        on ports of servers."""
        for factory in (self.harness.clients, self.harness.servers):
            self.door = factory.door
            self.door.listening = self.listening = self.Listening()
            self.assertEqual(self.accept(), 1000)
            self.door.tls = True
            self.assertEqual(self.accept(), 300)
            self.harness.clock.advance(0.5)
            self.assertIn(self.accept(), (149, 150))
            self.door.tls = False

    def test_crowd(self) -> None:
        """With TLS nobody takes the place of one who came a moment ago, or who waits for this
        side: the port rests until somebody is through or has to go."""
        self.allow(tls_rate=0.0, dry_run=True)
        web = WebSocketFactory(self.service)
        web.set_limits(LimitValues(handshakes=3))
        self.door = web.door
        self.door.listening = self.listening = self.Listening()

        def come() -> Any:
            self.assertFalse(self.door.rests())
            return self.come(factory=web)

        def lost(*lanes: Any) -> list[bool]:
            return [lane.link.lost is Reason.TOO_MANY_HANDSHAKES for lane in lanes]

        first = come()
        self.door.tls = True
        second, third = come(), come()
        self.assertTrue(self.door.rests())
        self.assertFalse(self.listening.reading)
        self.harness.pass_time(MOMENT)
        self.assertTrue(self.listening.reading)
        first.away = True
        fourth = come()
        self.assertEqual(lost(first, second, third, fourth), [False, True, False, False])
        third.away = fourth.away = True
        self.harness.pass_time(MOMENT)
        self.assertTrue(self.door.rests())
        self.end(first)
        self.harness.clock.advance(CROWD_PAUSE)
        self.assertTrue(self.listening.reading)
        fifth = come()
        self.assertEqual(lost(third, fourth, fifth), [False] * 3)
        self.assertEqual(self.gate.figures().dry_rests, 0)

    def test_refused_take_nothing(self) -> None:
        """Who is refused for his address costs others nothing of the rate of all."""
        self.allow(rate=10.0, address_connections=3)
        for _ in range(100):
            self.assertFalse(self.door.rests())
            self.door.admit(b"\xc0\0\2\1")
        for number in range(7):
            self.assertFalse(self.door.rests())
            self.door.admit(bytes((10, 0, 0, number)))
        self.assertTrue(self.door.rests())

    def test_dry_run(self) -> None:
        """A dry run counts who would have waited."""
        self.allow(rate=10.0, dry_run=True)
        self.assertEqual(self.accept(), 1000)
        figures = self.gate.figures()
        self.assertEqual((figures.rests, figures.dry_rests), (0, 990))

    def test_close(self) -> None:
        """A port that rests and is closed never reads again."""
        self.allow(rate=1.0)
        self.accept()
        self.assertFalse(self.listening.reading)
        self.door.close()
        self.harness.clock.advance(5)
        self.assertFalse(self.listening.reading)
        self.assertEqual(self.harness.clock.getDelayedCalls(), [])


class ProxyTests(GateTestCase):
    """Whom a proxy names is asked, and the proxy is not."""

    def ask(self, web: WebSocketFactory, client: str) -> bytes:
        lane = self.come("10.0.0.1", web)
        assert lane is not None
        lane.dataReceived(request(headers=BROWSER, x_forwarded_for=client))
        return cast(bytes, cast(Any, lane.transport).value())

    def web(self) -> WebSocketFactory:
        proxies = parse_networks("10.0.0.0/8")
        web = WebSocketFactory(self.service, None, WebSocketConfig(proxies=proxies))
        web.door.tellers = proxies
        return web

    def test_forwarded(self) -> None:
        """HTTP proxies: 429 with Retry-After for an address, 503 where all is full."""
        self.allow(connections=3, address_connections=2)
        web = self.web()
        answers = [self.ask(web, "203.0.113.7")[:13] for _ in range(3)]
        self.assertEqual(answers, [b"HTTP/1.1 101 "] * 2 + [b"HTTP/1.1 429 "])
        self.assertIn(b"Retry-After: 10\r\n", self.ask(web, "203.0.113.7"))
        self.assertTrue(self.ask(web, "203.0.113.8").startswith(b"HTTP/1.1 101 "))
        full = self.ask(web, "203.0.113.9")
        self.assertTrue(full.startswith(b"HTTP/1.1 503 "), full)
        self.assertIn(b"Retry-After: 10\r\n", full)
        self.assertEqual((web.accepted, web.refused), (3, {429: 2, 503: 1}))
        self.assertEqual(self.gate.figures().refused, {FULL: 2, Reason.TOO_MANY_LINKS: 1})
        for link in list(self.service.connected):
            cast(Any, link.lane).connectionLost()
        self.assertEqual(self.gate.figures().connections, 0)

    def test_untrusted(self) -> None:
        """Who is no proxy counts as himself, whomever he names."""
        self.allow(address_connections=1)
        web = self.web()
        lane = self.come("192.0.2.9", web)
        assert lane is not None
        lane.dataReceived(request(headers=BROWSER, x_forwarded_for="203.0.113.7"))
        self.assertIsNone(self.come("192.0.2.9", web))
        self.assertTrue(self.ask(web, "203.0.113.7").startswith(b"HTTP/1.1 101 "))

    def proxied(self) -> Any:
        clients = self.harness.clients
        sources = parse_networks("10.0.0.0/8")
        clients.proxies = Proxies(sources)
        clients.door.proxies = sources
        return clients

    def test_header(self) -> None:
        """PROXY headers: who is refused is reset; health checks and their proxies do not count."""
        self.allow(address_connections=1)
        clients = self.proxied()
        lanes = [self.come("10.0.0.1", clients) for _ in range(4)]
        for lane, data in zip(
            lanes,
            (
                line("203.0.113.7", "10.0.0.2"),
                line("203.0.113.7", "10.0.0.2"),
                b"PROXY UNKNOWN\r\n",
                line("203.0.113.8", "10.0.0.2"),
            ),
            strict=True,
        ):
            assert lane is not None
            lane.dataReceived(data)
        links = [cast(Any, lane).link for lane in lanes]
        self.assertEqual([link.lost for link in links], [None, FULL, None, None])
        self.assertTrue(cast(Any, cast(StreamLane, lanes[1]).transport).aborted)
        self.assertEqual(self.gate.figures().connections, 2)
        self.assertEqual(self.service.router.stats.turned_away[FULL], 1)
        self.end(lanes[0])
        self.assertEqual(self.gate.figures().connections, 1)

    def test_header_below_layers(self) -> None:
        """The same where layers are in between: what is inside is never made."""
        self.allow(address_connections=1)
        clients = self.proxied()
        clients.door.at_accept = True
        layer = ProxyFactory(clients, clients, clients.proxies)
        made = []
        with LogLines() as logged:
            for _ in range(2):
                connection = cast(Any, layer.buildProtocol(IPv4Address("TCP", "10.0.0.1", 5)))
                transport = LinkTransport(peerAddress=IPv4Address("TCP", "10.0.0.1", 5))
                connection.makeConnection(transport)
                connection.dataReceived(line("203.0.113.7", "10.0.0.2"))
                made.append((connection, transport))
        (told,) = logged.lines
        self.assertTrue(told.startswith("client ? 203.0.113.7:"), told)
        self.assertEqual(logged.events[0]["via"], "10.0.0.1:5")
        self.assertEqual([transport.aborted for _, transport in made], [False, True])
        self.assertEqual(clients.links, 1)
        self.assertEqual(self.gate.figures().connections, 1)
        for connection, _ in made:
            connection.connectionLost()
        self.assertEqual(self.gate.figures().connections, 0)


class DialTests(GateTestCase):
    def test_rate(self) -> None:
        """Dials over the rate are refused, and the client stays."""
        self.allow(client_dial_rate=4.0)
        client, server = self.harness.client(), self.harness.server()
        client.send(dial(1) * 6)
        self.assertEqual(
            client.take(),
            b"".join(accept(FIRST + number, 1) for number in range(4)) + refuse(1) * 2,
        )
        stats = self.service.router.stats
        self.assertEqual(stats.refused, {Refusal.RATE: 2})
        self.assertEqual((stats.dials, stats.accepted), (6, 4))
        server.take()
        self.harness.clock.advance(0.25)
        client.send(dial(1) * 2)
        self.assertEqual(client.take(), accept(FIRST + 4, 1) + refuse(1))

    def test_servers_dial_on(self) -> None:
        """Servers have no such rate."""
        self.allow(client_dial_rate=1.0)
        client, server = self.harness.client(), self.harness.server()
        server.take()
        server.send(dial(client.link.link_id) * 20)
        self.assertEqual(server.take().count(refuse(client.link.link_id)), 0)


class VerbTests(GateTestCase):
    """The command, as whoever offers it calls it."""

    def test_shows(self) -> None:
        """All values, so that they can be given again."""
        self.service.set_limits(
            LimitValues(
                rate=12.5,
                exempt=parse_networks("10.0.0.0/8, unix"),
                allow=((parse_networks("100.64.0.0/10").networks[0], 2000, 200.0, 400),),
            )
        )
        rows = change_limits(self.service, ())
        self.assertEqual([row.partition("=")[0] for row in rows], list(OPTIONS))
        self.assertIn("limit-rate=12.5", rows)
        self.assertIn("limit-exempt=10.0.0.0/8,unix", rows)
        self.assertIn("limit-allow=100.64.0.0/10=2000:200:400", rows)
        self.assertIn("limit-dry-run=false", rows)
        before = self.gate.values
        self.assertEqual(change_limits(self.service, words(" ".join(rows))), rows)
        self.assertEqual(self.gate.values, before)

    def test_changes(self) -> None:
        """Names with and without their beginning; they hold at once."""
        change_limits(
            self.service, words("address-connections=1 LIMIT_DRY_RUN=no client-dial-rate=3")
        )
        values = self.gate.values
        self.assertEqual((values.address_connections, values.client_dial_rate), (1, 3.0))
        self.come()
        self.assertIsNone(self.come())
        change_limits(self.service, words("limit-address-connections=0"))
        self.assertIsNotNone(self.come())

    def test_wrong(self) -> None:
        """What is wrong is one line, and changes nothing."""
        before = self.gate.values
        for text, problem in (
            ("rate", "'rate': give NAME=VALUE with one of limit-connections, "),
            ("max-packet=5", "'max-packet=5': give NAME=VALUE with one of "),
            ("rate=5 burst=7", "'burst=7': give NAME=VALUE with one of "),
            ("rate=fast", "limit-rate: 'fast' is no rate: give a number a second, such as 20"),
            ("rate=5 table=1", "limit-table: '1' is too small: it must be at least 16"),
            ("ipv6-prefix=56", "limit-ipv6-prefix is read at the start only"),
            ("allow=10.0.0.0/8", "limit-allow: '10.0.0.0/8' is no network with its values"),
            ("exempt=10.0.0.1/8", "limit-exempt: '10.0.0.1/8' is no network"),
        ):
            error = raised(
                CommandError, lambda told=text: change_limits(self.service, words(told))
            )
            self.assertNotIn("NAME=VALUE with one of limit-ipv6", str(error))
            self.assertTrue(str(error).startswith(problem), error)
            self.assertEqual(len(str(error).splitlines()), 1)
            self.assertIs(self.gate.values, before)

    def test_figures(self) -> None:
        """What `status` and the command tell."""
        self.allow(address_connections=1)
        source = Source(self.service)
        self.assertEqual(
            limit_figures(source.limits()),
            [
                "limits: 0 connections counted, 0 addresses of 100000 told apart; refused: 0, "
                "times that a port waited: 0",
                "held for their rates now: 0, in all: 0",
            ],
        )
        for _ in range(3):
            self.come()
        self.allow(address_connections=1, dry_run=True)
        self.come()
        self.assertEqual(
            limit_figures(source.limits()),
            [
                "limits: 1 connections counted, 1 addresses of 100000 told apart; refused: 2 "
                f"(2 {FULL.value}), times that a port waited: 0",
                "held for their rates now: 0, in all: 0",
                "dry run of limits is on; would have been refused: 1 "
                f"(1 {FULL.value}), would have waited: 0",
            ],
        )


class RateTests(GateTestCase):
    """Packets and bytes a second on the Python lane, on a clock."""

    def pair(self) -> tuple[End, End, int]:
        client, server = self.harness.client(), self.harness.server()
        conn_id = self.harness.pair(client, server)
        self.harness.clock.advance(2)
        return client, server, conn_id

    def test_packets(self) -> None:
        """Over the rate it is not read from; what was read is passed on; then it goes on."""
        client, server, conn_id = self.pair()
        self.allow(client_packet_rate=10.0)
        client.send(packet(conn_id, b"x") * 9)
        self.assertFalse(client.paused)
        client.send(packet(conn_id, b"x") * 6)
        self.assertTrue(client.paused)
        self.assertEqual(server.take(), packet(conn_id, b"x") * 15)
        self.assertTrue(client.link.counts().held)
        self.assertEqual((self.service.slowed, self.service.slows), (1, 1))
        self.harness.pass_time(0.5)
        self.assertTrue(client.paused)
        self.harness.pass_time(0.25)
        self.assertFalse(client.paused)
        self.assertEqual((self.service.slowed, self.service.slows), (0, 1))
        client.send(packet(conn_id, b"x") * 2)
        self.assertTrue(client.paused)

    def test_bytes(self) -> None:
        """Bytes count also of packets that are not whole."""
        client, _, conn_id = self.pair()
        self.allow(client_byte_rate=1000)
        client.send(packet(conn_id, bytes(5000))[:2500])
        self.assertTrue(client.paused)
        self.harness.pass_time(1.25)
        self.assertTrue(client.paused)
        self.harness.pass_time(0.5)
        self.assertFalse(client.paused)

    def test_is_not_idle(self) -> None:
        """Who is not read from is not called idle; its idle time begins anew."""
        self.harness = Harness()
        self.service, self.gate = self.harness.service, self.harness.service.gate
        client, server, conn_id = self.pair()
        self.allow(client_packet_rate=1.0)
        client.send(packet(conn_id, b"x") * 60)
        for _ in range(58):
            server.send(packet(0, b"\5"))
            self.harness.pass_time(1)
        self.assertTrue(client.paused)
        self.harness.pass_time(3)
        self.assertFalse(client.paused)
        server.send(packet(0, b"\5"))
        self.harness.pass_time(28)
        self.assertIsNone(client.lost)
        self.harness.pass_time(4)
        self.assertIs(client.lost, Reason.IDLE_TIMEOUT)

    def test_other_rates(self) -> None:
        """Other rates let those go on who are held."""
        client, _, conn_id = self.pair()
        self.service.ports.append(cast(Any, self.Port(self.harness.clients)))
        self.service.set_limits(LimitValues(client_packet_rate=1.0))
        client.send(packet(conn_id, b"x") * 100)
        self.assertTrue(client.paused)
        self.service.set_limits(LimitValues())
        self.harness.pass_time(0.25)
        self.assertFalse(client.paused)

    class Port:
        def __init__(self, factory: Any) -> None:
            self.factory = factory

    def test_goes(self) -> None:
        """One that is held and goes is counted no more."""
        client, _, conn_id = self.pair()
        self.allow(client_packet_rate=1.0)
        client.send(packet(conn_id, b"x") * 100)
        client.gone()
        self.assertEqual(self.service.slowed, 0)
        self.harness.check_books()

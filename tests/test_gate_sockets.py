"""The way in over sockets, on both lanes: resets, ports that rest, a flood beside a pair."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from fastway.errors import ConfigError, Reason
from fastway.gateway.limits import LimitValues
from fastway.ops.snapshot import finish
from fastway.relay import missing
from tests.support.errors import raised
from tests.support.golden import PING, packet
from tests.support.logs import LogLines
from tests.support.options import settings
from tests.support.service import ServiceTestCase
from tests.support.sockets import Sockets, SocketTestCase
from tests.support.tls import make
from tests.support.waits import reactor, turns, until

FULL, FAST = Reason.ADDRESS_CONNECTIONS, Reason.ADDRESS_RATE


def has_ipv6() -> bool:
    """This machine has the loopback of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as bound:
            bound.bind(("::1", 0))
    except OSError:
        return False
    return True


class Comer:
    """Somebody who connects, from an address of his own.

    Attributes:
        socket: Connected; the kernel may have accepted it, and the gateway not.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", to: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(5)
        self.socket.bind((host, 0))
        self.socket.connect((to, port))
        self.socket.setblocking(False)

    @property
    def state(self) -> str:
        """open, or how it was ended: reset, closed."""
        try:
            return "open" if self.socket.recv(100) else "closed"
        except BlockingIOError:
            return "open"
        except OSError as error:
            return "reset" if error.errno == errno.ECONNRESET else str(error)

    def answers(self) -> bool:
        """It has got the answer to a Ping."""
        try:
            return self.socket.recv(100) == PING
        except BlockingIOError:
            return False


class GateChecks(SocketTestCase):
    """The checks."""

    timeout = 120

    def setUp(self) -> None:
        self.comers: list[Comer] = []

    def leave(self) -> None:
        for comer in self.comers:
            comer.socket.close()

    def open(self, **values: Any) -> Sockets:
        sockets = self.listen()
        self.addCleanup(self.leave)
        sockets.service.gate.values = LimitValues(**values)
        sockets.clients.set_limits(sockets.service.gate.values)
        self.sockets = sockets
        return sockets

    def come(self, count: int = 1, host: str = "127.0.0.1") -> list[Comer]:
        port = self.sockets.client_port.getHost().port
        comers = [Comer(port, host) for _ in range(count)]
        self.comers += comers
        return comers

    async def told(self, count: int) -> None:
        """The gateway has let in or refused so many."""
        figures = self.sockets.service.gate.figures

        def enough() -> bool:
            return sum(figures().refused.values()) + figures().connections >= count

        await until(f"{count} to be asked", enough, 30)
        await turns(3)

    async def test_reset(self) -> None:
        """Who is refused is reset, and no link was made; who goes makes room."""
        sockets = self.open(address_connections=3)
        comers = self.come(8)
        await self.told(8)
        self.assertEqual([comer.state for comer in comers], ["open"] * 3 + ["reset"] * 5)
        self.assertEqual(sockets.clients.links, 3)
        self.assertEqual(sockets.service.gate.figures().refused, {FULL: 5})
        comers[0].socket.close()
        await until("its end", lambda: sockets.service.gate.figures().connections == 2)
        (other,) = self.come()
        other.socket.send(PING)
        await until("an answer", other.answers)

    async def test_rate(self) -> None:
        """An address that comes too often is refused, others are not."""
        self.open(address_rate=0.01, address_burst=2)
        comers = self.come(4) + self.come(2, "127.0.0.2")
        await self.told(6)
        states = [comer.state for comer in comers]
        self.assertEqual(states, ["open", "open", "reset", "reset", "open", "open"])

    async def test_all_wait(self) -> None:
        """Over the rate of all those who come wait, and are let in when there is time."""
        sockets = self.open(rate=20.0)
        began = reactor.seconds()
        self.come(50)
        figures = sockets.service.gate.figures
        await until("all of them", lambda: figures().connections == 50, 30)
        self.assertGreater(reactor.seconds() - began, 1.0)
        self.assertEqual({comer.state for comer in self.comers}, {"open"})
        self.assertGreater(figures().rests, 0)
        self.assertEqual(figures().refused, {})

    async def test_stops_while_it_rests(self) -> None:
        """A port that rests is closed as any."""
        sockets = self.open(rate=0.1)
        self.come(5)
        await until("a rest", lambda: sockets.service.gate.figures().rests)
        await maybeDeferred(sockets.client_port.stopListening)
        self.assertIsNone(sockets.clients.door.listening)

    async def test_dry_run(self) -> None:
        """A dry run lets all in."""
        sockets = self.open(address_connections=2, rate=1.0, dry_run=True)
        comers = self.come(6)
        await until("all links", lambda: sockets.clients.links == 6)
        self.assertEqual({comer.state for comer in comers}, {"open"})
        self.assertEqual(sockets.service.gate.figures().dry, {FULL: 4})

    async def test_changes(self) -> None:
        """Values that change hold for the next who comes."""
        sockets = self.open(address_connections=1)
        (first, second) = self.come(2)
        await self.told(2)
        sockets.service.gate.values = LimitValues(address_connections=2)
        (third,) = self.come()
        await until("it to be let in", lambda: sockets.clients.links == 2)
        states = [first.state, second.state, third.state]
        self.assertEqual(states, ["open", "reset", "open"])

    async def test_flood(self) -> None:
        """5000 connections from one address beside a steady pair: exactly those are refused that
        have to be, the pair gets every message, and nothing is left."""
        sockets = self.open()
        client, server = await sockets.client(), await sockets.server()
        conn_id = await sockets.pair(client, server)
        sockets.service.gate.values = LimitValues(address_connections=50, table=1000)
        sent = 0

        def talk() -> None:
            nonlocal sent
            client.send(packet(conn_id, sent.to_bytes(8, "big")))
            sent += 1

        refused = 0
        for _ in range(50):
            for _ in self.come(100, "127.0.0.7"):
                talk()
            await until("all to be asked", self.asked(len(self.comers)), 60)
            for comer in self.comers[-100:]:
                state = comer.state
                refused += state == "reset"
                self.assertIn(state, ("open", "reset"))
        figures = sockets.service.gate.figures()
        self.assertEqual((refused, figures.refused), (4950, {FULL: 4950}))
        self.assertEqual((figures.entries, sockets.clients.links), (1, 51))
        self.assertEqual(len(sockets.service.connected), 52)
        await server.expect(
            b"".join(packet(conn_id, number.to_bytes(8, "big")) for number in range(sent))
        )
        await client.expect_alive()
        for comer in self.comers:
            comer.socket.close()
        await until("their ends", lambda: sockets.clients.links == 1)
        await until("to be forgotten", lambda: not sockets.service.gate.table.entries)

    def asked(self, count: int) -> Any:
        table = self.sockets.service.gate

        def all_asked() -> bool:
            figures = table.figures()
            return sum(figures.refused.values()) + figures.connections == count + 1

        return all_asked


class PythonGateTests(GateChecks):
    """On the Python lane."""


class NativeGateTests(GateChecks):
    """On the native lane."""

    relay = True
    skip = missing() or None


del GateChecks


class ServiceTests(ServiceTestCase):
    """A whole gateway, told by options."""

    def begin(self, *arguments: str) -> Any:
        self.service = self.start(*arguments)
        return self.service.router_service

    def leave(self, comers: list[Comer]) -> None:
        for comer in comers:
            comer.socket.close()

    def come(self, count: int, name: str = "client") -> list[Comer]:
        host: Any = self.service.ports[name].getHost()
        comers = [Comer(host.port, host.host, host.host) for _ in range(count)]
        self.addCleanup(self.leave, comers)
        return comers

    async def refused(self, gateway: Any, count: int) -> None:
        figures = gateway.gate.figures
        await until("refusals", lambda: sum(figures().refused.values()) == count)
        await turns(3)

    async def check(self, *arguments: str, name: str = "client") -> Any:
        """Of five that come by a port two are let in."""
        gateway = self.begin("--limit-address-connections=2", *arguments)
        comers = self.come(5, name)
        await self.refused(gateway, 3)
        states = [comer.state for comer in comers]
        self.assertEqual(sorted(states), ["open"] * 2 + ["reset"] * 3)
        self.leave(comers)
        await until("their ends", lambda: not gateway.gate.figures().connections)
        return gateway

    async def test_plain(self) -> None:
        await self.check("--relay=auto")

    async def test_python(self) -> None:
        await self.check("--relay=off")

    async def test_ipv6(self) -> None:
        """A port on IPv6."""
        if not has_ipv6():
            raise SkipTest("this machine has no IPv6")
        await self.check("--client-addr=[::1]:0")
        self.assertEqual(len(self.service.router_service.gate.table.entries), 2)

    async def test_endpoint_string(self) -> None:
        """Of an endpoint string the factory of links asks."""
        gateway = await self.check("--client-addr=tcp:0:interface=127.0.0.1")
        self.assertFalse(gateway.ports[0].factory.door.at_accept)

    async def test_endpoint_string_rests(self) -> None:
        """Over the rate such a port rests too, after those that it accepts at once."""
        address = "--client-addr=tcp:0:interface=127.0.0.1:backlog=1000"
        gateway = self.begin(address, "--limit-rate=100")
        self.come(150)
        figures = gateway.gate.figures
        await until("all of them", lambda: figures().connections == 150, 30)
        self.assertGreater(figures().rests, 0)

    async def test_snet(self) -> None:
        """Below snet: a carrier is never made."""
        await self.check("--client-snet-enable")

    async def test_not_taken(self) -> None:
        """Who is closed because no proxy sent him counts no more, though nobody comes after."""
        gateway = self.begin("--client-snet-enable", "--client-proxy-from=192.0.2.1")
        (comer,) = self.come(1)
        await until("its end", lambda: comer.state == "closed")
        self.assertEqual(gateway.router.stats.turned_away[Reason.PROXY_UNTRUSTED], 1)
        self.assertEqual(gateway.gate.figures().connections, 0)

    async def test_websocket(self) -> None:
        """The port for web pages shares the table with the other."""
        gateway = await self.check("--client-ws-addr=127.0.0.1:0", name="web client")
        before = self.come(2)
        await until("both", lambda: gateway.gate.figures().connections == 2)
        self.come(1, "web client")
        await self.refused(gateway, 4)
        self.leave(before)

    async def test_tls(self) -> None:
        """Before TLS; and the rate of handshakes makes those who come wait."""
        made = make("gateway", ["127.0.0.1"])
        path = os.path.join(self.directory, "gateway.pem")
        made.write(path)
        gateway = await self.check(f"--client-tls-cert={path}", "--limit-tls-rate=5")
        self.assertTrue(gateway.ports[0].factory.door.tls)
        gateway.set_limits(LimitValues(tls_rate=5.0))
        self.come(9)
        figures = gateway.gate.figures
        await until("all of them", lambda: figures().connections == 9, 30)
        self.assertGreater(figures().rests, 0)

    async def test_commands(self) -> None:
        """The command changes what holds, and tells it; `status` has the figures."""
        gateway = self.begin()
        commands = self.service.commands
        answer = commands.limits("address-connections=1 client-packet-rate=50")
        self.assertIn("limit-address-connections=1", answer.splitlines())
        comers = self.come(3)
        await self.refused(gateway, 2)
        rates = [port.factory.config.packet_rate for port in gateway.ports]
        self.assertEqual(rates, [50, 0])
        rows = finish(commands.status()).splitlines()
        self.assertIn(
            "limits: 1 connections counted, 1 addresses of 100000 told apart; refused: 2 "
            f"(2 {FULL.value}), times that a port waited: 0",
            rows,
        )
        with LogLines() as log:
            commands.run("limits rate=often")
            commands.run("limits")
        self.assertIn(
            "command 'limits rate=often' failed: limit-rate: 'often' is no rate: "
            "give a number a second, such as 20 or 0.5",
            log.lines,
        )
        self.assertIn("limits: limit-address-connections=1", log.lines)
        self.leave(comers)

    async def test_rates_of_clients(self) -> None:
        """A client over its rate is held, whichever lane has it; and rates can be changed."""
        for relay in ("auto", "off"):
            self.begin("--client-packet-rate=5", f"--relay={relay}")
            (comer,) = self.come(1)
            comer.socket.send(PING * 20)
            figures = self.service.commands.source.limits
            await until("a hold", lambda: figures().slowed == 1)  # noqa: B023
            self.service.commands.limits("client-packet-rate=0")
            await until("the end of it", lambda: figures().slowed == 0)  # noqa: B023
            self.assertEqual(figures().slows, 1)
            self.leave([comer])
            await self.stop(self.service)


class OptionTests(SynchronousTestCase):
    def test_wrong(self) -> None:
        """What cannot be used is one line that names the option and says what would be right."""
        for argument, problem in (
            ("--limit-rate=-1", "'-1' is no rate: give a number a second, such as 20 or 0.5"),
            ("--limit-rate=1e3", "'1e3' is no rate: give a number a second, such as 20 or 0.5"),
            ("--limit-rate=0.001", "'0.001' is too small: it must be at least 0.01, or 0 for"),
            ("--limit-tls-rate=2000000", "'2000000' is too large: it can be at most 1000000"),
            ("--limit-connections=many", "'many' is not a whole number"),
            ("--limit-address-burst=0", "'0' is too small: it must be at least 1"),
            ("--limit-handshakes=0", "'0' is too small: it must be at least 1"),
            ("--limit-ipv6-prefix=129", "'129' is too large: it can be at most 128"),
            ("--limit-table=15", "'15' is too small: it must be at least 16"),
            ("--limit-exempt=here", "'here' is no network: give a list such as 10.0.0.0/8, ::1"),
            ("--limit-allow=10.0.0.0/8", "'10.0.0.0/8' is no network with its values: give a"),
            ("--limit-allow=10.0.0.0/8=1:2:3:4", "'10.0.0.0/8=1:2:3:4' is no network with its"),
            ("--limit-allow=unix=1:2", "'unix=1:2' is no network with its values: give a list"),
            (
                "--limit-allow=10.0.0.1/8=1:2",
                "'10.0.0.1/8=1:2' is no network with its values: give 10.0.0.0/8, or 10.0.0.1 alo",
            ),
            ("--limit-exempt=::1/64", "'::1/64' is no network: give ::/64, or ::1 alone"),
            ("--limit-exempt=10.0.0.0/33", "'10.0.0.0/33' is no network: give a list such as"),
            ("--client-proxy-from=10.0.0.5/8", "'10.0.0.5/8' is no network: give 10.0.0.0/8, or"),
            ("--limit-allow=10.0.0.0/8=x:2", "'x' is not a whole number"),
            ("--limit-allow=10.0.0.0/8=1:x", "'x' is no rate: give a number a second"),
            ("--client-packet-rate=fast", "'fast' is no rate: give a number a second"),
            ("--client-byte-rate=10", "'10' is too small: it must be at least 64, or 0 for no"),
            ("--client-dial-rate=", "'' is no rate: give a number a second, such as 20 or 0.5"),
        ):
            error = raised(ConfigError, settings, argument)
            option = argument.partition("=")[0]
            self.assertTrue(str(error).startswith(f"{option}: {problem}"), error)
            self.assertEqual(len(str(error).splitlines()), 1)

    def test_allow(self) -> None:
        """Networks with their values; the burst is what comes in four seconds, unless given."""
        told = settings("--limit-allow=100.64.0.0/10=2000:200:400, 2001:db8::/32=0:0,::1=5:.5")
        self.assertEqual(
            [(str(network), *most) for network, *most in told.door.allow],
            [
                ("100.64.0.0/10", 2000, 200.0, 400),
                ("2001:db8::/32", 0, 0.0, 1),
                ("::1/128", 5, 0.5, 2),
            ],
        )

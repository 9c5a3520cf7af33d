"""Options that change in the file while the gateway runs: used, refused, or put off."""

from __future__ import annotations

import os
import signal
from typing import Any, cast

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from fastway import logs
from fastway.address import parse_address
from fastway.config.table import BY_NAME
from fastway.errors import CommandError
from fastway.gateway import ServerFactory, WebSocketFactory
from fastway.gateway.weblayer import WebLayer
from fastway.networks import Networks
from fastway.ops.notify import Notify
from fastway.ops.reload import LIVE, changes
from fastway.ops.snapshot import finish
from fastway.service import GatewayService
from tests.support.errors import raised
from tests.support.logs import LogLines
from tests.support.options import LOOPBACK, parsed, settings
from tests.support.service import ServiceTestCase
from tests.support.waits import later, reactor, until


class ChangeTests(SynchronousTestCase):
    def changed(
        self, *arguments: str, before: tuple[str, ...] = ()
    ) -> tuple[list[str], list[str]]:
        return changes(settings(*before), settings(*arguments))

    def test_nothing(self) -> None:
        """The same options twice are no change, whatever kind of value each has."""
        for option in BY_NAME.values():
            self.assertEqual(option.parse(option.default), option.parse(option.default))
        given = (
            "--limit-exempt=10.0.0.0/8",
            "--limit-allow=192.0.2.0/24=1:2:3",
            "--kick-servers=1-9",
            "--client-ws-addr=:1",
            "--client-ws-origins=https://a.example",
            "--direct=a=:2->1",
            "--memory-limit=10%",
        )
        self.assertEqual(self.changed(*given, before=given), ([], []))

    def test_kinds(self) -> None:
        """What is used at once, and what waits for a restart."""
        self.assertEqual(self.changed("--limit-rate=5"), (["limit-rate"], []))
        self.assertEqual(self.changed("--max-clients=5"), ([], ["max-clients"]))
        self.assertEqual(self.changed("--limit-ipv6-prefix=56"), ([], ["limit-ipv6-prefix"]))
        self.assertTrue(BY_NAME.keys() > LIVE)

    def test_first_proxy(self) -> None:
        """A port that is to read headers, or none any more, is another port."""
        one, two = "--client-proxy-from=127.0.0.1", "--client-proxy-from=10.0.0.0/8"
        name = ["client-proxy-from"]
        self.assertEqual(self.changed(one), ([], name))
        self.assertEqual(self.changed(before=(one,)), ([], name))
        self.assertEqual(self.changed(two, before=(one,)), (name, []))


class ReloadCase(ServiceTestCase):
    environment: dict[str, str]

    def setUp(self) -> None:
        super().setUp()
        self.environment = {}

    def write(self, *lines: str) -> None:
        with open(os.path.join(self.directory, "fastway.toml"), "w", encoding="utf-8") as file:
            file.write("\n".join(lines))

    def open(self, *lines: str, arguments: tuple[str, ...] = ()) -> GatewayService:
        """A gateway of a file with these lines."""
        self.write(*lines)
        options = parsed(
            *LOOPBACK,
            f"--config={os.path.join(self.directory, 'fastway.toml')}",
            f"--run-dir={self.directory}",
            *arguments,
            environment=self.environment,
        )
        service = GatewayService(options.settings, reactor)
        service.reread = options.reread
        self.addCleanup(self.stop, service)
        service.privilegedStartService()
        service.startService()
        return service

    def factory(self, service: GatewayService, name: str) -> Any:
        return next(port.factory for port in service.router_service.ports if port.name == name)


class ReloadTests(ReloadCase):
    def counted(self, service: GatewayService) -> tuple[int, int]:
        """How often the options were read anew and used, and how often not."""
        return finish(service.commands.source.snapshot(brief=True)).reloads["options"]

    async def test_limits(self) -> None:
        """Limits are used, and so is all that goes by them; a row says each."""
        service = self.open("limit-rate = 5")
        self.write("limit-rate = 7", "[client]", "packet-rate = 20")
        self.assertEqual(
            service.reload(), ["client-packet-rate: 20, was 0", "limit-rate: 7, was 5"]
        )
        values = service.router_service.gate.values
        self.assertEqual((values.rate, values.client_packet_rate), (7.0, 20.0))
        self.assertEqual(self.factory(service, "client").config.packet_rate, 20.0)
        self.assertEqual(service.reload(), ["nothing that is used at once has changed"])

    async def test_taken_out(self) -> None:
        """What is not in the file any more has its default."""
        service = self.open("limit-rate = 5")
        self.write()
        self.assertEqual(service.reload(), ["limit-rate: 0, was 5"])
        self.assertEqual(service.router_service.gate.values.rate, 0)

    async def test_command_stays(self) -> None:
        """What the command `limits` set stays until the file says something else of it."""
        service = self.open("limit-rate = 5")
        service.commands.run("limits rate=9 address-rate=3")
        self.write("limit-rate = 5", "limit-handshakes = 50")
        service.reload()
        values = service.router_service.gate.values
        self.assertEqual((values.rate, values.address_rate, values.handshakes), (9.0, 3.0, 50))
        self.write("limit-rate = 6")
        service.reload()
        self.assertEqual(service.router_service.gate.values.rate, 6.0)

    async def test_networks(self) -> None:
        """Trusted networks are used by ports of each kind, origins and the path by web pages'."""
        service = self.open(
            "client-ws-addr = '127.0.0.1:0, snet+127.0.0.1:0'",
            "direct = 'a=ws+127.0.0.1:0->1'",
            "client-proxy-from = '127.0.0.1'",
            "server-proxy-from = '127.0.0.1'",
            "limit-exempt = '127.0.0.1'",
        )
        self.write(
            "client-ws-addr = '127.0.0.1:0, snet+127.0.0.1:0'",
            "direct = 'a=ws+127.0.0.1:0->1'",
            "client-proxy-from = '10.1.0.0/16'",
            "client-proxy-others = 'direct'",
            "server-proxy-from = '10.2.0.0/16'",
            "limit-exempt = '10.3.0.0/16'",
            "trusted-proxies = '10.4.0.0/16'",
            "client-ws-origins = 'https://game.example'",
            "client-ws-path = '/game'",
        )
        self.assertEqual(len(service.reload()), 7)
        self.assertIn("10.3.0.1", service.router_service.gate.values.exempt)
        seen = []
        for port in service.router_service.ports:
            factory = cast(Any, port.factory)
            second = 2 if port.name == "server" else 1
            self.assertIn(f"10.{second}.0.1", factory.door.proxies)
            self.assertIn(f"10.{second}.0.1", factory.proxies.sources)
            self.assertEqual(factory.proxies.direct, port.name != "server")
            for one in (factory, port.layer("ws")):
                if isinstance(one, (WebSocketFactory, WebLayer)):
                    seen.append(port.name)
                    self.assertIn("10.4.0.1", one.websocket.proxies)
                    self.assertIn("10.4.0.1", factory.door.tellers)
                    self.assertEqual(one.websocket.policy.path, "/game")
                    self.assertEqual(one.websocket.policy.origins, ("https://game.example",))
        self.assertEqual(set(seen), {"web client", "web client 2", "direct a"})

    async def test_key(self) -> None:
        """Another key is for whoever logs in from now on, and is shown to nobody."""
        service = self.open("server-auth-password = 'first'")
        self.write("server-auth-password = 'second'")
        with LogLines() as log:
            rows = service.reload()
        self.assertEqual(
            rows, ["server-auth-password: another one; servers that are connected stay"]
        )
        self.assertNotIn("second", "\n".join(log.lines))
        self.assertEqual(cast(ServerFactory, self.factory(service, "server")).key, b"second")

    async def test_no_key(self) -> None:
        """An empty key is refused as at the start, where anybody reaches the port."""
        service = self.open("server-auth-password = 'first'", "limit-rate = 1")
        port = service.router_service.ports[1]
        port.address = parse_address("--server-addr", ":0")
        self.write("limit-rate = 2")
        problem = str(raised(CommandError, service.reload))
        self.assertIn("the old options stay in use: --server-auth-password: it is empty", problem)
        self.assertEqual(cast(ServerFactory, self.factory(service, "server")).key, b"first")
        self.assertEqual(service.router_service.gate.values.rate, 1.0)

    async def test_level(self) -> None:
        """The level of the log, and what of addresses it has."""
        service = self.open()
        self.write("log-level = 'warn'", "log-address = 'none'")
        service.reload()
        self.assertEqual(logs.threshold.level, LogLevel.warn)
        self.assertEqual(logs.addresses.kept, "none")

    async def test_bad(self) -> None:
        """One bad value, or a file that is none, keeps all that is in use; it is one line."""
        service = self.open("limit-rate = 5")
        path = os.path.join(self.directory, "fastway.toml")
        for line, problem in (
            ("limit-connections = 'many'", f"{path}: limit-connections: 'many'"),
            ("limit-connection = 1", f"{path}: limit-connection: no such option (did you mean"),
            ("limit-rate = ", f"--config: {path} is not TOML"),
            ("drain-delay = '1h'", "--drain-timeout: drain-delay, drain-grace"),
        ):
            self.write("limit-rate = 7", line)
            with LogLines() as log:
                told = str(raised(CommandError, service.reload))
            self.assertIn(f"the old options stay in use: {problem}", told)
            self.assertEqual(log.lines, [f"reload: {told}"])
            self.assertEqual(log.events[0]["log_level"], LogLevel.error)
            with LogLines() as log:
                service.commands.run("reload")
            self.assertEqual(log.lines, [f"command 'reload' failed: {told}"])
            os.kill(os.getpid(), signal.SIGHUP)
            await later(0.01)
            self.assertTrue(service.running)
            self.assertEqual(service.router_service.gate.values.rate, 5.0)
        os.remove(path)
        self.assertIn("cannot read", str(raised(CommandError, service.reload)))
        self.assertEqual(self.counted(service), (0, 3 * 4 + 1))
        self.write("limit-rate = 7")
        self.assertEqual(service.reload(), ["limit-rate: 7, was 5"])
        self.assertEqual(self.counted(service), (1, 3 * 4 + 1))

    async def test_restart(self) -> None:
        """What waits for a restart is one line, each time, and is not used."""
        service = self.open()
        self.write("max-clients = 5", "drain-delay = '1s'", "limit-rate = 1")
        for first in ("limit-rate: 1, was 0", "nothing that is used at once has changed"):
            with LogLines() as log:
                rows = service.reload()
            self.assertEqual(rows, [first, "to be used after a restart: max-clients, drain-delay"])
            self.assertEqual(log.lines, [f"reload: {row}" for row in rows])
        self.assertEqual(self.factory(service, "client").config.max_links, 0)

    async def test_not_with_the_rest(self) -> None:
        """What goes only with an option that needs a restart waits with it."""
        service = self.open()
        self.write("client-ws-addr = ':0'", "client-ws-path = '/game'", "limit-rate = 1")
        (_, row) = service.reload()
        for name in ("client-ws-addr", "client-ws-path", "limit-rate"):
            self.assertIn(name, row)
        self.assertEqual(service.router_service.gate.values.rate, 0)

    async def test_precedence(self) -> None:
        """The command line, then the environment, count more than the file, as at the start."""
        self.environment = {"FASTWAY_LIMIT_CONNECTIONS": "4"}
        service = self.open("limit-rate = 5", arguments=("--limit-rate=3",))
        self.write("limit-rate = 6", "limit-connections = 9", "limit-table = 500")
        self.assertEqual(service.reload(), ["limit-table: 500, was 100000"])
        values = service.router_service.gate.values
        self.assertEqual((values.rate, values.connections), (3.0, 4))

    async def test_log_and_files(self) -> None:
        """The log is opened anew first, and what systemd is told frames it all."""
        path = os.path.join(self.directory, "log")
        service = self.open(arguments=(f"--logfile={path}",))
        told: list[str] = []
        service.notify = Notify()
        self.patch(service.notify, "tell", lambda **fields: told.extend(fields))
        os.rename(path, f"{path}.1")
        self.assertEqual(service.reload()[0], "log file reopened")
        self.assertTrue(os.path.exists(path))
        self.assertEqual(told, ["RELOADING", "MONOTONIC_USEC", "READY", "STATUS"])

    async def test_command(self) -> None:
        """The command answers with the rows, and the log has them once."""
        service = self.open()
        self.write("limit-rate = 1")
        with LogLines() as log:
            service.commands.run("reload")
        self.assertEqual(log.lines, ["reload: limit-rate: 1, was 0"])

    async def test_signal(self) -> None:
        """SIGHUP is the same where there is no terminal; on one it ends the gateway still."""
        for terminal in (False, True):
            self.patch(os, "isatty", lambda _: terminal)  # noqa: B023
            before = signal.getsignal(signal.SIGHUP)
            service = self.open()
            self.assertEqual(signal.getsignal(signal.SIGHUP) is before, terminal)
            if not terminal:
                self.write("limit-rate = 1")
                os.kill(os.getpid(), signal.SIGHUP)
                await until(
                    "the limit",
                    lambda: service.router_service.gate.values.rate,  # noqa: B023
                )
            await service.stopService()
            self.assertEqual(service.reload(), ["it does not run"])

    async def test_no_file(self) -> None:
        """Without files there is nothing to read."""
        service = self.start()
        self.assertIn("there is nothing to read anew", service.reload()[0])
        self.assertEqual(finish(service.commands.source.snapshot()).reloads, {"options": (0, 0)})

    async def test_again(self) -> None:
        """What is in use stays after a stop and a start."""
        service = self.open()
        self.write("log-level = 'warn'", "limit-exempt = '10.0.0.0/8'")
        service.reload()
        await service.stopService()
        service.startService()
        self.assertEqual(logs.threshold.level, LogLevel.warn)
        self.assertIsInstance(service.router_service.gate.values.exempt, Networks)
        self.assertTrue(service.router_service.gate.values.exempt)

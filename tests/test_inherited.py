"""Sockets that were opened before the start: taken over from an environment, and listened on."""

from __future__ import annotations

import io
import os
import socket
import stat
from contextlib import redirect_stdout
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway import inherited
from fastway.address import parse_address
from fastway.cli.gateway import check
from fastway.cli.table import CheckOptions
from fastway.endpoint import connect_client, connect_server
from fastway.errors import ConfigError, StartError
from fastway.inherited import Inherited, take_over
from fastway.service import GatewayService
from tests.support.errors import raised
from tests.support.files import scratch
from tests.support.golden import PING
from tests.support.inherited import give, tcp
from tests.support.logs import LogLines
from tests.support.paths import on_both_paths
from tests.support.service import ServiceTestCase
from tests.support.sockets import Peer
from tests.support.waits import later, reactor, until

PID = str(os.getpid())


class TakeOverTests(SynchronousTestCase):
    def take(self, pid: str = PID, count: str = "", names: str = "") -> Inherited:
        given = {"LISTEN_PID": pid, "LISTEN_FDS": count, "LISTEN_FDNAMES": names, "HOME": "/"}
        taken = take_over(given)
        self.assertEqual(given, {"HOME": "/"})
        return taken

    def fds(self, *sockets: socket.socket) -> None:
        """From the first descriptor on these are given."""
        self.patch(inherited, "FIRST", sockets[0].fileno())

    def problem(self, given: Inherited, name: str) -> str:
        return str(raised(ValueError, given.find, name))

    def test_names(self) -> None:
        """Each is found by its name; nothing is said of them to others, who do not get them."""
        sock = tcp(self)
        sock.set_inheritable(True)
        self.fds(sock)
        given = self.take(count="1", names="clients")
        self.assertEqual(given.names, ["clients"])
        self.assertFalse(sock.get_inheritable())
        with given.find("clients") as found:
            self.assertEqual(found.getsockname(), sock.getsockname())
            self.assertNotEqual(found.fileno(), sock.fileno())
        self.assertIn("clients; FileDescriptorName=", self.problem(given, "servers"))

    def test_without_names(self) -> None:
        """Without names it is called as systemd calls it."""
        self.fds(tcp(self))
        self.take(count="1").find("unknown").close()

    def test_same_name(self) -> None:
        """Of two with one name none is chosen."""
        self.fds(tcp(self))
        text = self.problem(self.take(count="2", names="a:a"), "a")
        self.assertIn("2 sockets of that name", text)

    def test_bad_environments(self) -> None:
        """What is wrong is said in one line, whatever is asked for."""
        for told, problem in (
            ({}, "no sockets were given"),
            ({"pid": "1", "count": "1"}, "to process 1, and this is"),
            ({"pid": "", "count": "1"}, "to process ?, and this is"),
            ({"count": "one"}, "LISTEN_FDS is 'one'"),
            ({"count": "-1"}, "LISTEN_FDS is '-1'"),
            ({"count": "9" * 30}, "LISTEN_FDS is '999"),
            ({"count": "2", "names": "a"}, "1 names for 2 sockets"),
        ):
            text = self.problem(self.take(**told), "a")
            self.assertIn(problem, text)
            self.assertNotIn("\n", text)

    def test_bad_sockets(self) -> None:
        """Neither a closed descriptor, a file, a datagram socket nor a connection will do."""
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ends = socket.socketpair()
        for sock in (datagrams, *ends):
            self.addCleanup(sock.close)
        file = os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, file)
        for fd, problem in (
            (file, f"descriptor {file}: is no socket"),
            (1_000_000, "descriptor 1000000: Bad file descriptor"),
            (datagrams.fileno(), "no socket of TCP or of a path; give its unit ListenStream="),
            (ends[0].fileno(), "it does not listen; give its unit Accept=no"),
        ):
            self.assertIn(problem, self.problem(Inherited({"a": [fd]}), "a"))

    def test_once(self) -> None:
        """The process' own environment is read once."""
        self.patch(inherited, "_taken", None)
        self.patch(os, "environ", {"LISTEN_PID": PID, "LISTEN_FDS": "0"})
        self.assertEqual(inherited.unused({"a"}), [])
        self.assertIs(inherited.inherited(), inherited.inherited())
        self.assertEqual(os.environ, {})


class Greeter(Protocol):
    def connectionMade(self) -> None:
        cast(Any, self.transport).write(b"welcome")
        cast(Any, self.transport).loseConnection()


class PathTests(TestCase):
    async def test_path(self) -> None:
        """A path is listened on, and left as it was: its mode, and that it is there."""
        path = os.path.join(scratch(self), "socket")
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen()
        give(self, local=sock)
        address = parse_address("-a", "systemd:local")
        port = await address.listen(reactor, Factory.forProtocol(Greeter), False)
        peer = Peer()
        await UNIXClientEndpoint(reactor, path).connect(Factory.forProtocol(lambda: peer))
        await until("the greeting", lambda: peer.ended is not None)
        self.assertEqual(peer.received, b"welcome")
        await cast("Deferred[None]", port.stopListening())
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)


class AddressTests(SynchronousTestCase):
    def test_form(self) -> None:
        """systemd:NAME is one; Twisted's own strings stay its own."""
        for text, name in (
            ("systemd:clients", "clients"),
            (" systemd:fastway.socket ", "fastway.socket"),
            ("systemd:9000", "9000"),
            ("systemd:domain=INET:index=0", ""),
        ):
            self.assertEqual(parse_address("-a", text).inherited, name)

    def test_facts(self) -> None:
        """What kind of address it is is asked of the socket."""
        path = os.path.join(scratch(self), "socket")
        with socket.socket(socket.AF_UNIX) as local, socket.socket() as wide:
            local.bind(path)
            wide.bind(("0.0.0.0", 0))
            for sock in (local, wide):
                sock.listen()
            give(self, local=local, wide=wide, near=tcp(self))
            for name, is_tcp, loopback in (
                ("near", True, True),
                ("wide", True, False),
                ("local", False, True),
                ("none", True, True),
            ):
                address = parse_address("-a", f"systemd:{name}")
                self.assertEqual((address.is_tcp, address.loopback), (is_tcp, loopback), name)

    def test_problems(self) -> None:
        """No such socket is a start that cannot be; reuse-port is an option that does not go."""
        give(self, clients=tcp(self))
        error = raised(StartError, parse_address("--a", "systemd:x").check, reactor, False)
        self.assertIn("--a: systemd:x: no socket of that name was given, but clients", str(error))
        address = parse_address("--a", "systemd:clients")
        address.check(reactor, False)
        self.assertIn(
            "not with a socket of systemd",
            str(raised(ConfigError, address.check, reactor, True)),
        )


@on_both_paths
class PortTests(ServiceTestCase):
    relay = False

    def open(self, *arguments: str, name: str = "one") -> GatewayService:
        relay = "on" if self.relay else "off"
        return self.start(f"--relay={relay}", f"--pid-file={name}", *arguments)

    async def greet(self, service: GatewayService, clients: socket.socket, number: int) -> None:
        """A client and a server talk, over sockets that were given."""
        there = TCP4ClientEndpoint(reactor, "127.0.0.1", clients.getsockname()[1])
        servers = cast(Any, service.ports["server"].getHost()).port
        server = await connect_server(TCP4ClientEndpoint(reactor, "127.0.0.1", servers), number)
        accepted = server.accept()
        client = await connect_client(there)
        conn = await client.dial(number)
        await conn.send(b"hello")
        self.assertEqual(await (await accepted).receive(), b"hello")
        for end in (client, server):
            end.close()
        await until("both ends", lambda: not service.router_service.connected)

    async def test_serves(self) -> None:
        """It serves there, on the path of a port of its own, also after a stop and a start."""
        clients, servers = tcp(self), tcp(self)
        give(self, clients=clients, servers=servers)
        service = self.open("--client-addr=systemd:clients", "--server-addr=systemd:servers")
        (link,) = (port for port in service.router_service.ports if port.name == "client")
        self.assertTrue(link.plain)
        native = type(service.ports["client"]).__name__ == "NativePort"
        self.assertEqual(native, self.relay)
        await self.greet(service, clients, 1)
        await service.stopService()
        self.assertEqual(service.ports, {})
        service.startService()
        await self.greet(service, clients, 2)

    async def test_same_socket(self) -> None:
        """Two ports cannot have one socket."""
        give(self, clients=tcp(self))
        for more in ("--server-addr", "--metrics-addr", "--client-ws-addr"):
            error = raised(
                ConfigError, self.make, "--client-addr=systemd:clients", f"{more}=systemd:clients"
            )
            self.assertIn("systemd:clients is the", error.problem)

    async def test_check(self) -> None:
        """Where it is not there the options can be right all the same."""
        give(self)
        options = CheckOptions()
        options.environment = {}
        options.parseOptions(
            [
                "--client-addr=systemd:clients",
                "--server-addr=127.0.0.1:0",
                f"--run-dir={self.directory}",
            ]
        )
        output = io.StringIO()
        with redirect_stdout(output):
            self.assertEqual(check(options), 0)
        self.assertRegex(output.getvalue(), r"now +it would not start: --client-addr: systemd:cl")

    async def test_layers(self) -> None:
        """A port for web pages, with snet in it, and the metrics port can be given too."""
        web, inside, metrics = tcp(self), tcp(self), tcp(self)
        give(self, web=web, inside=inside, metrics=metrics)
        service = self.start(
            "--client-ws-addr=systemd:web, snet+systemd:inside", "--metrics-addr=systemd:metrics"
        )
        found = {name: cast(Any, port.getHost()).port for name, port in service.ports.items()}
        for name, sock in (("web client", web), ("web client 2", inside), ("metrics", metrics)):
            self.assertEqual(found[name], sock.getsockname()[1])

    async def test_admin(self) -> None:
        """The admin port too: with a token, whoever made the socket, and on loopback only."""
        path = os.path.join(self.directory, "socket")
        with socket.socket(socket.AF_UNIX) as local, socket.create_server(("", 0)) as wide:
            local.bind(path)
            local.listen()
            give(self, tcp=tcp(self), local=local, wide=wide)
            for name in ("tcp", "local"):
                error = raised(ConfigError, self.make, f"--admin-addr=systemd:{name}")
                self.assertIn("--admin-token-file", error.problem)
            token = "--admin-token=0123456789abcdef"
            error = raised(ConfigError, self.make, "--admin-addr=systemd:wide", token)
            self.assertIn("can be reached from other machines", error.problem)
            with LogLines() as log:
                service = self.open("--admin-addr=systemd:tcp, systemd:local", token)
            self.assertEqual(len([line for line in log.lines if "systemd gave" in line]), 1)
            self.assertLess({"admin", "admin 2"}, set(service.ports))

    async def test_unused(self) -> None:
        """A socket at which nobody is served is a line."""
        give(self, clients=tcp(self), more=tcp(self))
        with LogLines() as log:
            self.open("--client-addr=systemd:clients")
        said = [line for line in log.lines if "systemd gave a socket more" in line]
        self.assertEqual(len(said), 1)

    async def test_overlap(self) -> None:
        """While one drains and stops and another serves with the same socket, nobody of those who
        connect all the time is refused or reset."""
        clients = tcp(self)
        give(self, clients=clients)
        old = self.open("--client-addr=systemd:clients")
        old.drained = lambda: None
        refused: list[str] = []
        made = [0, 0]
        going = True

        async def connect() -> None:
            there = TCP4ClientEndpoint(reactor, "127.0.0.1", clients.getsockname()[1])
            peers: list[Peer] = []
            while going:
                peer = Peer()
                try:
                    await there.connect(Factory.forProtocol(lambda: peer))  # noqa: B023
                except Exception as error:
                    refused.append(repr(error))
                    continue
                made[0] += 1
                peer.wire.write(PING)
                while len(peer.received) < len(PING) and peer.ended is None:
                    await later(0.001)
                made[1] += len(peer.received) == len(PING)
                peers.append(peer)
                peer.wire.loseConnection()
            await until("all ends", lambda: all(peer.ended is not None for peer in peers))

        work = [Deferred.fromCoroutine(connect()) for _ in range(10)]

        async def some(count: int) -> None:
            until_then = made[1] + count
            await until("connections", lambda: made[1] >= until_then)

        await some(20)
        new = self.open("--client-addr=systemd:clients", name="two")
        await some(20)
        await old._close_ports()[0]
        await some(20)
        await old.stopService()
        await some(20)
        going = False
        for one in work:
            await one
        self.assertEqual(refused, [])
        # A connection that the old gateway had when it stopped may have had no answer.
        self.assertLessEqual(made[0] - made[1], len(work))
        self.assertEqual(new.router_service.turned_away, 0)

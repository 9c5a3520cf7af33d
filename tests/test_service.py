"""The whole gateway in this process: it starts, serves, stops, and starts again."""

from __future__ import annotations

import io
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, cast

from twisted.application.service import IService
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import LogLevel, textFileLogObserver
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

import fastway.service
from fastway import __version__
from fastway.address import Address
from fastway.errors import ConfigError, LocalError, StartError
from fastway.gateway import GatewayFactory, Port, ServerFactory
from fastway.gateway import link as link_module
from fastway.gateway.bounds import ACCEPTS
from fastway.ops import logs
from fastway.ops.pidfile import PidFile
from fastway.ops.signals import shield
from fastway.ops.snapshot import finish
from fastway.service import GatewayService, Options, TwistdService, makeService
from tests.support.errors import raised
from tests.support.golden import accept, close, connect, dial, packet, prove
from tests.support.logs import LogLines, check_json
from tests.support.options import LOOPBACK, settings
from tests.support.service import ServiceTestCase
from tests.support.waits import SECONDS, until

reactor = cast(Any, _reactor)


def port_of(service: GatewayService, name: str) -> Port:
    (port,) = (port for port in service.router_service.ports if port.name == name)
    return port


class Wire(Protocol):
    """Bytes of a real connection, each wait an event.

    Attributes:
        ended: Fires when the connection is gone.
    """

    def __init__(self) -> None:
        self._data = b""
        self._wanted: tuple[int, Deferred[bytes]] | None = None
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)
        if self._wanted is not None:
            self._wanted[1].errback(reason)

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def read(self, size: int) -> Deferred[bytes]:
        """The next `size` bytes."""
        wanted: Deferred[bytes] = Deferred()
        self._wanted = size, wanted
        self._look()
        return wanted

    def _look(self) -> None:
        if self._wanted is not None and len(self._data) >= self._wanted[0]:
            (size, wanted), self._wanted = self._wanted, None
            data, self._data = self._data[:size], self._data[size:]
            wanted.callback(data)


class WireFactory(Factory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Wire:
        return Wire()


async def reach(case: TestCase, port: int) -> Wire:
    """Connect to a port of this machine for the length of a test."""
    from twisted.internet.endpoints import TCP4ClientEndpoint

    wire = cast(Wire, await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(WireFactory()))

    def leave() -> Deferred[None]:
        assert wire.transport is not None
        wire.transport.loseConnection()
        return wire.ended

    case.addCleanup(leave)
    return wire


async def log_in(case: TestCase, port: int, server_id: int = 1, key: bytes = b"") -> Wire:
    """A game server that answered the challenge."""
    wire = await reach(case, port)
    wire.send(prove(await wire.read(8), server_id, key))
    return wire


def number(service: GatewayService, side: str) -> int:
    """The port number of a side of a running gateway."""
    return cast(int, cast(Any, service.ports[side].getHost()).port)


def is_free(port: int) -> bool:
    """Nobody listens on a port of this machine."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen()
        except OSError:
            return False
    return True


def turns(count: int = 3) -> Deferred[None]:
    """A few turns of the reactor."""
    done: Deferred[None] = Deferred()

    def turn(left: int) -> None:
        if left:
            reactor.callLater(0, turn, left - 1)
        else:
            done.callback(None)

    turn(count)
    return done


class LifeTests(ServiceTestCase):
    def test_interface(self) -> None:
        """It is a Twisted service."""
        verifyObject(IService, self.make())

    async def test_dial_and_echo(self) -> None:
        """Over real sockets a dial is accepted and packets go both ways, unchanged."""
        service = self.start()
        self.assertEqual(set(service.ports), {"client", "server"})
        server = await log_in(self, number(service, "server"))
        await self.logged_in(service)
        client = await reach(self, number(service, "client"))
        client.send(dial(1))
        answer = await client.read(17)
        conn_id = int.from_bytes(answer[9:13], "little")
        self.assertEqual(answer, accept(conn_id, 1))
        self.assertEqual(await server.read(17), connect(conn_id, 1))
        client.send(packet(conn_id, b"hello"))
        self.assertEqual(await server.read(13), packet(conn_id, b"hello"))
        server.send(packet(conn_id, b"HELLO"))
        self.assertEqual(await client.read(13), packet(conn_id, b"HELLO"))
        client.send(close(conn_id))
        self.assertEqual(await server.read(13), close(conn_id))
        self.assertEqual(await client.read(13), close(conn_id))

    async def logged_in(self, service: GatewayService) -> None:
        """The gateway has taken a server's answer."""
        while not service.router_service.router.servers:
            await turns(1)

    async def test_files(self) -> None:
        """While it runs there is a pid file; afterwards there is nothing."""
        service = self.start()
        self.assertEqual(self.files(), ["fastway.pid"])
        with open(os.path.join(self.directory, "fastway.pid"), "rb") as file:
            self.assertEqual(int(file.read()), os.getpid())
        await service.stopService()
        self.assertEqual(self.files(), [])

    async def test_stop(self) -> None:
        """Stopping closes both ports and every link, and leaves no call to come."""
        await turns(1)
        calls = set(reactor.getDelayedCalls())
        service = self.start()
        ports = [number(service, side) for side in ("client", "server")]
        client = await reach(self, ports[0])
        server = await log_in(self, ports[1])
        await self.logged_in(service)
        self.patch(link_module, "LINGER", 2 * SECONDS)
        before = reactor.seconds()
        await service.stopService()
        await client.ended
        await server.ended
        self.assertLess(reactor.seconds() - before, SECONDS)
        self.assertTrue(all(map(is_free, ports)))
        self.assertEqual(service.ports, {})
        self.assertEqual(service.router_service.connected, set())
        self.assertEqual(set(reactor.getDelayedCalls()), calls)

    async def test_restart(self) -> None:
        """A stopped gateway can be started again, with startService alone, and works."""
        service = self.start()
        await service.stopService()
        service.startService()
        self.assertEqual(self.files(), ["fastway.pid"])
        shown = finish(service.commands.source.snapshot()).ports
        self.assertEqual([port.side for port in shown], ["client", "server"])
        await log_in(self, number(service, "server"))
        await self.logged_in(service)
        await service.stopService()
        self.assertEqual(self.files(), [])

    async def test_no_files(self) -> None:
        """Empty names mean neither a pid file nor a command file."""
        before = signal.getsignal(signal.SIGUSR1)
        service = self.start("--pid-file=", "--command-file=")
        self.assertIs(signal.getsignal(signal.SIGUSR1), before)
        self.assertEqual(self.files(), [])
        await service.stopService()

    async def test_says_where_it_listens(self) -> None:
        """The log says which ports it got, and its process id."""
        with LogLines() as log:
            service = self.start()
        for side in ("client", "server"):
            line = f"{side} port listens on 127.0.0.1:{number(service, side)}"
            self.assertIn(line, log.lines)
        started = [line for line in log.lines if line.startswith("fastway runs as process")]
        self.assertEqual(len(started), 1)
        self.assertIn(f"process {os.getpid()}, version {__version__};", started[0])

    async def test_check_leaves_nothing(self) -> None:
        """check() alone leaves no file and no port."""
        service = self.make()
        service.check()
        self.assertEqual(self.files(), [])
        self.assertEqual(service.ports, {})

    async def test_options_arrive(self) -> None:
        """The options reach ports and router."""
        service = self.make(
            "--client-max-conn=3",
            "--client-max-total=4",
            "--server-id-conflict=evict",
            "--max-packet=1K",
            "--client-buffer-size=4K",
            "--server-idle-timeout=7s",
            "--client-send-chan-size=5",
            "--server-send-buffer=6K",
            "--write-timeout=8",
            "--max-clients=9",
            "--server-auth-key=geheim ü",
        )
        limits = service.router_service.router.limits
        self.assertEqual((limits.client_max_conn, limits.client_max_total), (3, 4))
        self.assertEqual(limits.server_id_conflict.value, "evict")
        client = cast(GatewayFactory, port_of(service, "client").factory).config
        server = cast(GatewayFactory, port_of(service, "server").factory).config
        self.assertEqual((client.max_packet, server.max_packet), (1024, 1024))
        self.assertEqual((client.read_size, server.read_size), (4096, 65536))
        self.assertEqual((client.idle_timeout, server.idle_timeout), (30.0, 7.0))
        self.assertEqual((client.queue_packets, server.queue_packets), (5, 100_000))
        self.assertEqual((client.queue_bytes, server.queue_bytes), (4 * 1024**2, 6144))
        self.assertEqual((client.write_timeout, server.write_timeout), (8.0, 8.0))
        self.assertEqual((client.max_links, server.max_links), (9, 0))
        self.assertEqual(
            cast(ServerFactory, port_of(service, "server").factory).key, "geheim ü".encode()
        )


class SignalTests(ServiceTestCase):
    async def test_command(self) -> None:
        """SIGUSR1 runs the command file of the run directory; after stop it does not."""
        before = signal.getsignal(signal.SIGUSR1)
        service = self.start()
        ran: Deferred[str] = Deferred()
        service.commands.register("shout", "", lambda: ran.callback("ran"))
        with open(os.path.join(self.directory, "fastway.cmd"), "w", encoding="utf-8") as file:
            file.write("shout\n")
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual(await ran, "ran")
        await service.stopService()
        self.assertIs(signal.getsignal(signal.SIGUSR1), before)

    async def test_during_a_stop(self) -> None:
        """A signal that comes while links still linger does not kill the gateway."""
        before = signal.getsignal(signal.SIGUSR1)
        service = self.start()
        client = await reach(self, number(service, "client"))
        while not service.router_service.connected:
            await turns(1)
        caught = signal.getsignal(signal.SIGUSR1)
        stopping = service.stopService()
        self.assertIs(signal.getsignal(signal.SIGUSR1), caught)
        await stopping
        await client.ended
        self.assertIs(signal.getsignal(signal.SIGUSR1), before)

    async def test_caught_before_the_pid_file(self) -> None:
        """When the pid file appears, SIGUSR1 is caught already."""
        seen = []
        before = signal.getsignal(signal.SIGUSR1)

        def write(pid_file: PidFile) -> None:
            seen.append(signal.getsignal(signal.SIGUSR1) is before)

        self.patch(PidFile, "write", write)
        self.start()
        self.assertEqual(seen, [False])

    async def test_start_that_fails(self) -> None:
        """A start that fails leaves the signals as they were."""
        before = signal.getsignal(signal.SIGUSR1)
        held = PidFile(os.path.join(self.directory, "fastway.pid"))
        held.write()
        self.addCleanup(held.remove)
        raised(StartError, self.make().startService)
        self.assertIs(signal.getsignal(signal.SIGUSR1), before)
        await turns()

    async def test_hurry(self) -> None:
        """A second signal during the stop aborts what lingers; one before it does so too."""
        self.patch(link_module, "LINGER", 2 * SECONDS)
        for early in (False, True):
            service = self.start()
            client = await reach(self, number(service, "client"))
            while not service.router_service.connected:
                await turns(1)
            assert client.transport is not None
            client.transport.pauseProducing()  # type: ignore[attr-defined]
            began = reactor.seconds()
            if early:
                service.hurry()
            stopping = service.stopService()
            if not early:
                service.hurry()
                service.hurry()
            await stopping
            self.assertLess(reactor.seconds() - began, SECONDS)
            client.transport.resumeProducing()  # type: ignore[attr-defined]
            await client.ended
            service.hurry()

    async def test_hurry_when_something_hangs(self) -> None:
        """A hurried stop ends within its time although a port does not close."""
        service = self.start()
        port = service.ports["client"]
        close = port.stopListening
        self.addCleanup(close)
        self.patch(port, "stopListening", Deferred)
        stopping = service.stopService()
        service.hurry()
        await stopping
        self.assertEqual(self.files(), [])

    async def test_no_hangup_on_a_terminal(self) -> None:
        """Without a log file SIGHUP stays what it was: a gateway ends with its terminal."""
        before = signal.getsignal(signal.SIGHUP)
        self.start()
        self.assertIs(signal.getsignal(signal.SIGHUP), before)

    async def test_reopen(self) -> None:
        """SIGHUP opens the log file anew after a rename."""
        path = os.path.join(self.directory, "fastway.log")
        service = self.start(f"--logfile={path}")
        os.rename(path, f"{path}.1")
        os.kill(os.getpid(), signal.SIGHUP)
        while not os.path.exists(path):
            await turns(1)
        await service.stopService()
        with open(path, encoding="utf-8") as file:
            self.assertIn("log file reopened", file.read())

    async def test_reopen_fails(self) -> None:
        """When the log file cannot be opened anew, the old one goes on, and says so."""
        path = os.path.join(self.directory, "logs", "fastway.log")
        os.mkdir(os.path.dirname(path))
        service = self.start(f"--logfile={path}")
        os.rename(os.path.dirname(path), os.path.join(self.directory, "moved"))
        service.reload()
        service.commands.run("nonsense")
        await service.stopService()
        with open(os.path.join(self.directory, "moved", "fastway.log"), encoding="utf-8") as file:
            text = file.read()
        self.assertIn("the old log file stays open", text)
        self.assertIn("unknown command 'nonsense'", text)


class LogTests(ServiceTestCase):
    def read(self, path: str) -> str:
        with open(path, encoding="utf-8") as file:
            return file.read()

    async def test_logfile(self) -> None:
        """The log file tells a whole life: ports, process, and the end."""
        path = os.path.join(self.directory, "fastway.log")
        service = self.start(f"--logfile={path}")
        port = number(service, "client")
        await service.stopService()
        text = self.read(path)
        self.assertIn(f"fastway runs as process {os.getpid()}", text)
        self.assertIn("fastway stopped", text)
        self.assertIn(f"client port listens on 127.0.0.1:{port}", text)

    async def test_json(self) -> None:
        """With log-format json every line of the file is an object."""
        path = os.path.join(self.directory, "fastway.log")
        service = self.start(f"--logfile={path}", "--log-format=json")
        await service.stopService()
        texts = [check_json(line)["text"] for line in self.read(path).splitlines()]
        self.assertIn(f"fastway runs as process {os.getpid()}", "\n".join(texts))

    async def test_level(self) -> None:
        """log-level is the threshold from the start on, so a quiet gateway says nothing."""
        path = os.path.join(self.directory, "fastway.log")
        with LogLines() as log:
            service = self.start(f"--logfile={path}", "--log-level=error")
            await service.stopService()
        self.assertEqual(self.read(path), "")
        self.assertEqual(log.lines, [])

    async def test_open_token_is_said(self) -> None:
        """A token that everybody can read is one line, and is used."""
        path = os.path.join(self.directory, "token")
        with open(path, "w", encoding="ascii") as file:
            file.write("0123456789abcdef")
        os.chmod(path, 0o644)
        with LogLines() as log:
            self.start("--admin-addr=127.0.0.1:0", f"--admin-token-file={path}")
        self.assertIn(f"everybody on this machine can read {path}", " ".join(log.lines))

    async def test_empty_key_is_said(self) -> None:
        """A gateway that accepts servers without a key says so at each start."""
        with LogLines() as log:
            self.start("--allow-empty-key")
        self.assertIn("the server key is empty", " ".join(log.lines))


class RefusalTests(ServiceTestCase):
    def refused(self, *arguments: str) -> str:
        """Why a gateway does not start: one line; nothing is left behind."""
        before = self.files()
        service: GatewayService | None = None
        try:
            service = self.make(*arguments)
            service.check()
        except LocalError as error:
            self.assertNotIn("\n", str(error))
            self.assertEqual(self.files(), before)
            return str(error)
        raise AssertionError("it would start")

    def refused_late(self, *arguments: str) -> str:
        """Why it does not start although check() found nothing."""
        before = self.files()
        service: GatewayService | None = None
        try:
            service = self.make(*arguments)
            service.privilegedStartService()
            service.startService()
        except LocalError as error:
            self.assertNotIn("\n", str(error))
            self.assertEqual(self.files(), before)
            if service is not None:
                self.assertEqual(service.ports, {})
            return str(error)
        raise AssertionError("it starts")

    def busy(self) -> int:
        """A port that somebody listens on."""
        sock = socket.socket()
        self.addCleanup(sock.close)
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        return cast(int, sock.getsockname()[1])

    def test_empty_key(self) -> None:
        """An empty key is refused unless servers come from this machine, or it is allowed."""
        for addr in (":0", "0.0.0.0:0", "10.0.0.1:0"):
            problem = self.refused(f"--server-addr={addr}")
            self.assertTrue(problem.startswith("--server-auth-password: it is empty"))
            self.assertIn("--allow-empty-key", problem)
        for more in ("--server-addr=127.0.0.1:0", "--server-auth-key=k", "--allow-empty-key"):
            self.make("--server-addr=:0", more)

    def test_run_dir(self) -> None:
        """A run directory that is missing or a file is refused with option, path and mend."""
        path = os.path.join(self.directory, "file")
        with open(path, "wb"):
            pass
        for run_dir in (path, os.path.join(self.directory, "missing")):
            problem = self.refused(f"--run-dir={run_dir}")
            self.assertIn(f"--run-dir: {run_dir} is not a directory; make it", problem)

    def test_run_dir_forbidden(self) -> None:
        """A run directory that may not be written is refused with option, path and mend."""
        os.chmod(self.directory, 0o500)
        self.assertIn("--run-dir: cannot write to", self.refused())

    if os.geteuid() == 0:
        test_run_dir_forbidden.skip = "root may write everywhere"  # type: ignore[attr-defined]

    async def test_port_in_use(self) -> None:
        """A port in use is found before and at the start; the other port is closed again."""
        for side in ("client", "server"):
            text = f"127.0.0.1:{self.busy()}"
            for problem in (
                self.refused(f"--{side}-addr={text}"),
                self.refused_late(f"--{side}-addr={text}"),
            ):
                self.assertIn(f"--{side}-addr: cannot listen on {text}: ", problem)
                self.assertIn("choose another port", problem)
            await turns()

    async def test_port_in_use_at_restart(self) -> None:
        """A second start that meets a busy port takes its pid file and its other port back."""
        service = self.start()
        port_of(service, "client").address = Address(
            "--client-addr", "127.0.0.1:0", "127.0.0.1", 0
        )
        await service.stopService()
        taken = self.busy()
        port_of(service, "server").address = Address(
            "--server-addr", f"127.0.0.1:{taken}", "127.0.0.1", taken
        )
        raised(StartError, service.startService)
        self.assertEqual(self.files(), [])
        self.assertEqual(service.ports, {})
        await turns()
        self.assertEqual(service.running, 0)

    async def test_same_address_twice(self) -> None:
        """Both sides on one port cannot work, with reuse-port neither."""
        port = self.busy()
        for more in ((), ("--reuse-port",)):
            both = [f"--{side}-addr=127.0.0.1:{port + 1}" for side in ("client", "server")]
            with self.subTest(more=more):
                self.assertIn("server-addr", self.refused_late(*both, *more))
            await turns()

    def test_same_address_for_pages(self) -> None:
        """Nor can pages have a port of others."""
        for side in ("client", "server"):
            both = [f"--{side}-addr=127.0.0.1:9", "--client-ws-addr=127.0.0.1:9"]
            problem = self.refused(*both)
            self.assertEqual(
                problem,
                f"--client-ws-addr: 127.0.0.1:9 is the address of {side}-addr too; give another",
            )
        problem = self.refused("--direct=a=127.0.0.1:9->1,b=127.0.0.1:9->2")
        self.assertEqual(
            problem, "--direct: b: 127.0.0.1:9 is the address of direct port a too; give another"
        )

    async def test_live_pid_file(self) -> None:
        """A live gateway's pid file is respected before and at the start, and stays."""
        path = os.path.join(self.directory, "fastway.pid")
        held = PidFile(path)
        held.write()
        self.addCleanup(held.remove)
        for problem in (self.refused(), self.refused_late()):
            self.assertIn(path, problem)
            self.assertIn("is running", problem)
        self.assertEqual(self.files(), ["fastway.pid"])
        await turns()

    async def test_pid_file_elsewhere(self) -> None:
        """A pid file in a directory that is not there is refused as pid-file's mistake."""
        path = os.path.join(self.directory, "missing", "a.pid")
        self.assertIn("pid-file", self.refused(f"--pid-file={path}"))

    async def test_logfile(self) -> None:
        """A log file that cannot be written stops the start and leaves nothing behind."""
        path = os.path.join(self.directory, "missing", "fastway.log")
        self.assertIn("--logfile: cannot write", self.refused_late(f"--logfile={path}"))
        await turns()

    def test_bad_addresses(self) -> None:
        """An address that is none is refused as it was spelt."""
        self.assertIn("--client-addr: '9000'", self.refused("--client-addr=9000"))
        told = settings(*LOOPBACK[:1], environment={"FASTWAY_SERVER_ADDR": "9000"})
        error = raised(ConfigError, GatewayService, told, reactor)
        self.assertEqual(error.option, "FASTWAY_SERVER_ADDR")

    def test_relay_on(self) -> None:
        """Insisting on the native path is refused where a port's packets would not take it."""
        for arguments, word in (
            (["--client-addr=tcp:0"], "tcp:0 is no host:port address"),
            (["--server-addr=tcp:0:interface=127.0.0.1"], "is no host:port address"),
            (["--client-snet-enable"], "--client-snet-enable makes the client port speak snet"),
            (["--server-snet-enable"], "--server-snet-enable makes the server port speak snet"),
            (["--client-ws-addr=tcp:0"], "tcp:0 is no host:port address"),
        ):
            problem = self.refused("--relay=on", *arguments)
            self.assertTrue(problem.startswith("--relay: "), problem)
            self.assertIn(word, problem)
            self.assertIn("or give auto", problem)
            self.make(*arguments)

    def test_bad_module(self) -> None:
        """A commands module that cannot be loaded is refused."""
        problem = self.refused("--commands-module=no_such_module_here")
        self.assertIn("--commands-module: no_such_module_here", problem)


class SlowAddress(Address):
    """An endpoint that listens later, as endpoint plugins may."""

    listening: Deferred[IListeningPort]

    def listen(
        self,
        reactor: Any,
        factory: IProtocolFactory,
        reuse_port: bool,
        adopt: Callable[[int, int, Any], IListeningPort] | None = None,
    ) -> Deferred[IListeningPort]:
        object.__setattr__(self, "listening", Deferred())
        return self.listening


class LateTests(ServiceTestCase):
    def slow(self) -> tuple[GatewayService, SlowAddress, list[StartError]]:
        """A gateway that has started, but whose server port is not open yet."""
        service = self.make()
        address = SlowAddress("--server-addr", "slow:1", None, 0)
        port_of(service, "server").address = address
        failures: list[StartError] = []
        service.failed = failures.append
        service.privilegedStartService()
        service.startService()
        self.assertEqual(set(service.ports), {"client"})
        return service, address, failures

    async def test_late_failure(self) -> None:
        """A port that fails after the start is logged and handed to `failed`, in one line."""
        _, address, failures = self.slow()
        with LogLines() as log:
            address.listening.errback(StartError("--server-addr: it went wrong"))
        self.assertEqual([str(error) for error in failures], ["--server-addr: it went wrong"])
        (event,) = log.events
        self.assertIs(event["log_level"], LogLevel.critical)
        self.assertEqual(log.lines, ["--server-addr: it went wrong"])

    async def test_late_success(self) -> None:
        """A port that opens late is there from then on, and is closed at the stop."""
        service, address, failures = self.slow()
        port = reactor.listenTCP(0, port_of(service, "server").factory, interface="127.0.0.1")
        address.listening.callback(port)
        self.assertEqual(set(service.ports), {"client", "server"})
        here = number(service, "server")
        await service.stopService()
        self.assertTrue(is_free(here))
        self.assertEqual(failures, [])

    async def test_stop_while_opening(self) -> None:
        """A stop while a port is still being opened is no failure."""
        service, _, failures = self.slow()
        with LogLines() as log:
            await service.stopService()
        self.assertEqual(failures, [])
        self.assertNotIn(LogLevel.critical, [event["log_level"] for event in log.events])


class StormTests(ServiceTestCase):
    """Crowds at the door of the Python lane."""

    async def test_few_at_a_time(self) -> None:
        """However many wait, one turn of a port takes in ACCEPTS of them."""
        service = self.start("--relay=off")
        port = cast(Any, service.ports["client"])
        port.stopReading()
        waiting = [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(30)]
        for sock in waiting:
            self.addCleanup(sock.close)
        connected = service.router_service.connected
        for number in (1, 2, 3):
            port.doRead()
            self.assertEqual(len(connected), number * ACCEPTS)
        port.startReading()
        await until("all of them", lambda: len(connected) == 30)


class TwistdTests(ServiceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.owned: list[object] = []
        self.patch(fastway.service, "own_process", self.owned.append)  # this process is trial's

    def options(self, *arguments: str) -> Options:
        options = Options()
        options.environment = {}
        options.parseOptions([*LOOPBACK, f"--run-dir={self.directory}", *arguments])
        return options

    async def test_make_service(self) -> None:
        """makeService gives a service that starts and stops, and takes the process over."""
        service = makeService(self.options())
        self.assertEqual(self.owned, [reactor])
        self.assertIsInstance(service, TwistdService)
        service.privilegedStartService()
        service.startService()
        self.assertEqual(self.files(), ["fastway.pid"])
        await service.stopService()
        self.assertEqual(self.files(), [])

    def test_exit(self) -> None:
        """What an operator did wrong ends in SystemExit with one line that names fastway."""
        for arguments, problem in (
            (["--log-format=json"], "--log-format: under twistd it goes with --logfile"),
            (["--run-dir=/nonexistent"], "--run-dir: /nonexistent is not a directory"),
        ):
            options = self.options(*arguments)
            text = str(raised(SystemExit, makeService, options))
            self.assertTrue(text.startswith(f"fastway: {problem}"), text)
            self.assertNotIn("\n", text)
        text = str(raised(SystemExit, self.options, "--nope"))
        self.assertTrue(text.startswith("fastway: --nope: no such option"), text)

    async def test_shielded(self) -> None:
        """Under twistd SIGUSR1 does not kill before the gateway catches it, nor after."""
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        makeService(self.options("--command-file="))
        self.assertIs(signal.getsignal(signal.SIGUSR1), signal.SIG_DFL)
        service = makeService(self.options())
        self.assertIs(signal.getsignal(signal.SIGUSR1), signal.SIG_IGN)
        service.startService()
        self.assertTrue(callable(signal.getsignal(signal.SIGUSR1)))
        await service.stopService()
        self.assertIs(signal.getsignal(signal.SIGUSR1), signal.SIG_IGN)
        shield()

    def twistd_log(self) -> io.StringIO:
        """What twistd's own log gets from now on."""
        stream = io.StringIO()
        observer = textFileLogObserver(cast(Any, stream))
        logs.add(observer)
        self.addCleanup(logs.remove, observer)
        return stream

    async def test_lines_once(self) -> None:
        """With a log file a line is there, and not in twistd's log too."""
        stream = self.twistd_log()
        path = os.path.join(self.directory, "fastway.log")
        service = makeService(self.options(f"--logfile={path}"))
        service.privilegedStartService()
        service.startService()
        await service.stopService()
        with open(path, encoding="utf-8") as file:
            self.assertIn("fastway runs as process", file.read())
        lines = [line.partition("] ")[2] for line in stream.getvalue().splitlines()]
        self.assertEqual(lines, [f"the log goes on in {path}"])

    async def test_level_of_twistd_log(self) -> None:
        """--log-level goes for twistd's log too."""
        stream = self.twistd_log()
        service = makeService(self.options("--log-level=warn"))
        service.privilegedStartService()
        service.startService()
        await service.stopService()
        self.assertEqual(stream.getvalue(), "")

    async def test_exit_late(self) -> None:
        """A failure at the start itself is SystemExit with its one line, too."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            text = f"127.0.0.1:{sock.getsockname()[1]}"
            service = TwistdService(self.options(f"--client-addr={text}").settings, reactor)
            error = raised(SystemExit, service.privilegedStartService)
        problem = str(error.code)
        self.assertTrue(problem.startswith(f"fastway: --client-addr: cannot listen on {text}"))
        self.assertNotIn("\n", problem)

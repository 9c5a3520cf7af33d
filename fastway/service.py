"""The gateway as one service: options in, ports, pid file, commands and signals wired together.

Rule: this is the only place that reads options. What an operator did wrong is one line and exit
status 1, under twistd (where it must show before the reactor runs) and without it.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import ILogObserver
from twisted.python.failure import Failure

from fastway import logs
from fastway.address import Address, address_name, parse_address
from fastway.errors import ConfigError, LocalError, StartError
from fastway.options import GatewayOptions
from fastway.pidfile import PidFile

if TYPE_CHECKING:
    from fastway.relay import PoolConfig
    from fastway.snet.transport import SnetConfig

log = logs.make_logger(__name__)


@dataclass(slots=True)
class Attempt:
    """To listen: once it is `late`, an error cannot be raised to the starter any more."""

    error: StartError | None = None
    late: bool = False


class GatewayService(Service):
    """A whole gateway.

    Args:
        options: Parsed options.
        reactor: What it runs on.

    Raises:
        ConfigError, StartError: it cannot be started like this.

    Attributes:
        router_service: What both ports share.
        ports: side -> the listening port, while it runs.
        failed: Called with a StartError when a port fails after startService has returned.
    """

    name = "fastway"

    def __init__(self, options: GatewayOptions, reactor: Any) -> None:
        # Imported here so that `twistd --help` loads none of it.
        from fastway.commands import Commands
        from fastway.gateway import ClientFactory, PortConfig, RouterService, ServerFactory
        from fastway.relay import PoolConfig
        from fastway.router import IdConflict, Limits

        self.options = options
        self.reactor = reactor
        self.failed: Callable[[StartError], None] = lambda _: reactor.stop()
        self.run_dir = options["run-dir"]
        self.router_service = RouterService(
            reactor,
            Limits(
                client_max_conn=options["client-max-conn"],
                client_max_total=options["client-max-total"],
                server_id_conflict=IdConflict(options["server-id-conflict"]),
            ),
        )

        pool = PoolConfig(
            type=options["mem-pool-type"],
            factor=options["mem-pool-factor"],
            min_chunk=options["mem-pool-min-chunk"],
            max_chunk=options["mem-pool-max-chunk"],
            page_size=options["mem-pool-page-size"],
            limit=options["mem-pool-limit"],
        )
        pool.check(self._where)
        self.path = self._make_relay(pool)

        def config(side: str) -> PortConfig:
            return PortConfig(
                max_links=options[f"max-{side}s"],
                max_packet=options["max-packet"],
                read_size=options[f"{side}-buffer-size"],
                idle_timeout=options[f"{side}-idle-timeout"],
                queue_packets=options[f"{side}-send-chan-size"],
                queue_bytes=options[f"{side}-send-buffer"],
                write_timeout=options["write-timeout"],
            )

        key = os.fsencode(options["server-auth-password"])
        self.addresses: dict[str, Address] = {
            side: parse_address(self._where(f"{side}-addr"), options[f"{side}-addr"])
            for side in ("client", "server")
        }
        client, server = self.addresses["client"], self.addresses["server"]
        if client.port and (client.host, client.port) == (server.host, server.port):
            # With reuse-port the kernel would deal connections to either side.
            raise ConfigError(server.option, f"{server.text} is the client-addr too; give another")
        self.factories: dict[str, IProtocolFactory] = {
            "client": ClientFactory(self.router_service, config("client")),
            "server": ServerFactory(self.router_service, key, config("server")),
        }
        for side, factory in self.factories.items():
            snet = self._snet_config(side)
            if snet is not None:
                from fastway.snet.transport import SnetFactory

                streams = SnetFactory(factory, reactor, snet)
                self.factories[side] = self.router_service.snet[side] = streams
        if not key and not options["allow-empty-key"] and not self.addresses["server"].loopback:
            raise ConfigError(
                self._where("server-auth-password"),
                "it is empty, so anybody who reaches the server port could be a server; set it, "
                "or listen on loopback only (--server-addr 127.0.0.1:PORT), "
                "or say --allow-empty-key",
            )
        # Process 1 of a container needs none, and the original writes none.
        wanted = options["pid-file"] and os.getpid() != 1
        self.pid_file = PidFile(self._path("pid-file")) if wanted else None
        self.commands = Commands(
            self.router_service,
            reactor,
            self.run_dir,
            self._path("command-file") if options["command-file"] else "",
        )
        if options["commands-module"]:
            if "" not in sys.path:
                sys.path.insert(0, "")
            self.commands.load(options["commands-module"])
        self.ports: dict[str, IListeningPort] = {}
        self._listening: list[Deferred[Any]] = []
        self._observer: ILogObserver | None = None
        self._logfile: Any = None
        self._old_signals: dict[int, Any] = {}

    def _snet_config(self, side: str) -> SnetConfig | None:
        """How that port speaks snet, if its options make it."""
        options = self.options
        if self.addresses[side].text.startswith("snet:"):
            for name, (where, _) in options.given.items():
                if name.startswith(f"{side}-snet-"):
                    raise ConfigError(
                        where, f"--{side}-addr has snet's settings itself; give it there"
                    )
        if not options[f"{side}-snet-enable"]:
            if options[f"{side}-snet-encrypt"]:
                raise ConfigError(
                    self._where(f"{side}-snet-encrypt"),
                    f"nothing would be encrypted without --{side}-snet-enable; give that too",
                )
            return None
        enabled = self._where(f"{side}-snet-enable")
        try:
            from fastway.snet.transport import SnetConfig
        except ImportError as error:
            raise ConfigError(
                enabled, f"{error}; snet needs: pip install 'fastway[snet]'"
            ) from None
        idle = options[f"{side}-idle-timeout"]
        return SnetConfig(
            encrypt=options[f"{side}-snet-encrypt"],
            buffer=options[f"{side}-snet-buffer"],
            init_timeout=options[f"{side}-snet-init-timeout"],
            wait_timeout=options[f"{side}-snet-wait-timeout"],
            max_waiting=options[f"{side}-snet-max-waiting"],
            max_handshakes=options[f"{side}-snet-max-handshakes"],
            # A dead connection is to be noticed as a cut before its client counts as idle.
            dead_after=min(20.0, idle * 2 / 3) if idle else 20.0,
        )

    def _make_relay(self, pool: PoolConfig) -> str:
        """Make the native relay if it is wanted and can be had; returns the path of packets."""
        from fastway import relay

        wanted = self.options["relay"]
        missing = "--relay off" if wanted == "off" else relay.missing()
        if not missing:
            from fastway.relay.link import GatewayRelay

            self.router_service.relay = GatewayRelay(self.reactor, self.router_service, pool)
            return f"the native relay; its memory pool is {pool.type}"
        if wanted == "on":
            raise ConfigError(
                self._where("relay"),
                f"{missing}; install fastway where a C compiler is, or give auto",
            )
        return f"Python: {missing}"

    def _where(self, name: str) -> str:
        """How the operator spelled an option."""
        return self.options.given.get(name, (f"--{name}", ""))[0]

    def _path(self, name: str) -> str:
        return os.path.normpath(os.path.join(str(self.run_dir), str(self.options[name])))

    def check(self, working_dir: str = "") -> None:
        """See, without leaving a trace, that starting should work.

        Args:
            working_dir: Where the process will be when it starts, if not where it is.

        Raises:
            ConfigError, StartError: it would not; the text is one line for the operator.
        """
        run_dir = os.path.abspath(os.path.join(working_dir, self.run_dir))
        if not os.path.isdir(run_dir):
            raise ConfigError(
                self._where("run-dir"), f"{run_dir} is not a directory; make it, or give another"
            )
        if not os.access(run_dir, os.W_OK | os.X_OK):
            raise ConfigError(
                self._where("run-dir"),
                f"cannot write to {run_dir}; give a directory that this user may write",
            )
        if self.options["logfile"]:
            logs.check_logfile(os.path.join(working_dir, self.options["logfile"]))
        if self.pid_file is not None:
            PidFile(os.path.join(working_dir, self.pid_file.path)).check()
        for address in self.addresses.values():
            address.check(self.reactor, self.options["reuse-port"])

    def privilegedStartService(self) -> None:
        """Open the log and both ports, as root if need be.

        Raises:
            StartError, ConfigError: a port or the log file cannot be had.
        """
        super().privilegedStartService()
        with self._undone_if_it_fails():
            self._start_log()
            self._open_ports()

    def startService(self) -> None:
        """Write the pid file, open log and ports if that is not done, and listen to signals.

        Raises:
            StartError, ConfigError: the pid file, a port or the log file cannot be had.
        """
        # Twisted's own order is privilegedStartService, then this; a second start has only this.
        with self._undone_if_it_fails():
            self._start_log()
            if self.pid_file is not None:
                self.pid_file.write()
            if not self._listening:
                self._open_ports()
        super().startService()
        self.router_service.startService()
        self.commands.start()
        if self.options["allow-empty-key"] and not self.options["server-auth-password"]:
            log.warn("the server key is empty: whoever reaches the server port can be a server")
        self._catch_signals()
        log.info("packets on host:port addresses take the path of {path}", path=self.path)
        log.info(
            "fastway runs as process {pid}; {files} files may be open",
            pid=os.getpid(),
            files=raise_file_limit(),
        )

    @contextmanager
    def _undone_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except LocalError:
            self._close_ports()
            if self.pid_file is not None:
                self.pid_file.remove()
            self._stop_log()
            raise

    def stopService(self) -> Deferred[Any]:
        """Stop listening, lose every link, leave nothing behind; fires within seconds."""
        super().stopService()
        log.info("fastway stops")
        stopping = [
            *self._close_ports(),
            maybeDeferred(self.router_service.stopService),
        ]
        return DeferredList(stopping).addCallback(self._stopped)

    def _stopped(self, _: object) -> None:
        self.commands.stop()
        if self.pid_file is not None:
            self.pid_file.remove()
        # Not before: until the pid file is gone, a SIGUSR1 that is not caught would kill.
        self._restore_signals()
        log.info("fastway stopped")
        self._stop_log()

    # Ports.

    def _open_ports(self) -> None:
        for side, address in self.addresses.items():
            relay = self.router_service.relay
            listening = address.listen(
                self.reactor,
                self.factories[side],
                self.options["reuse-port"],
                None if relay is None or side in self.router_service.snet else relay.listen,
            )
            listening.addCallback(self._port_open, side)
            attempt = Attempt()
            listening.addErrback(self._port_failed, attempt)
            self._listening.append(listening)
            if attempt.error is not None:
                raise attempt.error
            attempt.late = True

    def _port_open(self, port: IListeningPort, side: str) -> None:
        self.ports[side] = port
        streams = getattr(port, "snet", None)
        if streams is not None:
            self.router_service.snet[side] = streams
        log.info(
            "{side} port listens on {addr}{with_snet}",
            side=side,
            addr=address_name(port.getHost()),
            with_snet=", with snet" if side in self.router_service.snet else "",
            given=self.addresses[side].text,
        )

    def _port_failed(self, failure: Failure, attempt: Attempt) -> None:
        attempt.error = StartError(str(failure.value))
        if attempt.late and self._listening:  # else it was cancelled by a stop
            log.critical("{problem}", problem=str(attempt.error))
            self.failed(attempt.error)

    def _close_ports(self) -> list[Deferred[Any]]:
        pending, self._listening = self._listening, []
        for listening in pending:
            listening.cancel()
        ports, self.ports = self.ports, {}
        return [maybeDeferred(port.stopListening) for port in ports.values()]

    # The log.

    def _stop_log(self) -> None:
        if self._observer is not None:
            logs.remove(self._observer)
            self._logfile.close()
            self._observer = self._logfile = None

    def _start_log(self) -> None:
        if self._logfile is not None:
            return
        logs.threshold.set(self.options["log-level"])
        if self.options["logfile"]:
            self._logfile = logs.open_logfile(self.options["logfile"])
            self._observer = logs.make_observer(self._logfile, self.options["log-format"])
            logs.add(self._observer)

    def reopen_log(self) -> None:
        """Open the log file anew, after logrotate moved it."""
        if self._logfile is None:
            log.info("there is no --logfile to reopen")
            return
        try:
            logfile = logs.open_logfile(self._logfile.path)
        except ConfigError as error:
            log.error("the old log file stays open: {problem}", problem=str(error))
            return
        observer = logs.make_observer(logfile, self.options["log-format"])
        logs.add(observer)
        self._stop_log()
        self._logfile, self._observer = logfile, observer
        log.info("log file reopened")

    # Signals.

    def _catch_signals(self) -> None:
        wanted = {}
        if self.options["command-file"]:
            wanted["SIGUSR1"] = self.commands.obey
        wanted["SIGHUP"] = self.reopen_log
        for name, action in wanted.items():
            number = getattr(signal, name, None)
            if number is None:
                continue
            if name == "SIGHUP" and self._logfile is None and not self.options.daemon:
                continue  # a gateway on a terminal ends with it, as the original does

            def caught(_: int, __: object, action: Callable[[], None] = action) -> None:
                self.reactor.callFromThread(action)

            with suppress(ValueError):  # not the main thread: an embedded gateway has no signals
                self._old_signals[number] = signal.signal(number, caught)

    def _restore_signals(self) -> None:
        old, self._old_signals = self._old_signals, {}
        for number, handler in old.items():
            signal.signal(number, handler)


class Options(GatewayOptions):
    """`twistd fastway`'s options: what is wrong with them is one line and exit status 1."""

    daemon = True

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        try:
            super().parseOptions(options)
        except ConfigError as error:
            raise SystemExit(f"fastway: {error}") from None


def raise_file_limit() -> int:
    """Let this process open as many files as it may, as Go does; returns how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class StartExit(StartError, SystemExit):
    """A StartError that ends the process with its text and status 1, without a traceback.

    twistd catches it as an Exception, so it removes its own pid file and, when it is a daemon,
    tells the parent that waits; the interpreter then sees a SystemExit.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.code = f"fastway: {problem}"


class TwistdService(GatewayService):
    """A gateway under twistd, which ends with one line when it cannot start."""

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except LocalError as error:
            raise StartExit(str(error)) from None

    def startService(self) -> None:
        try:
            super().startService()
        except LocalError as error:
            raise StartExit(str(error)) from None


def makeService(options: Options) -> GatewayService:
    """A service of parsed options, for twistd's plugin and for `fastway.tac`.

    Raises:
        SystemExit: it cannot be started like this; the text is one line for the operator.
    """
    from twisted.internet import reactor

    try:
        if options["log-format"] != "text" and not options["logfile"]:
            raise ConfigError("--log-format", "under twistd it goes with --logfile; give that too")
        service = TwistdService(options, reactor)
        # twistd changes to its --rundir later.
        service.check("" if options.parent is None else options.parent["rundir"])
    except LocalError as error:
        raise SystemExit(f"fastway: {error}") from None
    return service

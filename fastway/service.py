"""The gateway as one service: settings in, ports, pid file, commands and signals wired together.

Rule: what an operator did wrong is one line and exit status 1, under twistd (where it must show
before the reactor runs) and without it.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.python.failure import Failure

from fastway import __version__, logs
from fastway.address import Address, parse_address
from fastway.config import Settings
from fastway.config.sources import GatewayOptions, exposed
from fastway.errors import CommandError, ConfigError, LocalError, StartError
from fastway.inherited import inherited, unused
from fastway.ops.access import AccessLog
from fastway.ops.logs import FLUSH, LogFileOutput, TwistdLog, add, check_logfile, remove
from fastway.ops.notify import Notify, Watchdog, of_environment
from fastway.ops.pidfile import PidFile
from fastway.ops.process import own_process, raise_file_limit
from fastway.ops.signals import Signals, shield
from fastway.ops.turns import bound_turns, leave_turns, time_turns

if TYPE_CHECKING:
    from fastway.gateway import Port
    from fastway.ops.adminport import AdminPorts
    from fastway.ops.site import MetricsPort
    from fastway.web import WebPort

log = logs.make_logger(__name__)

HURRY = 0.5
"""Seconds that a stop takes at the most after a second signal asked for it."""


GOODBYES = 15.0
"""Seconds that a drain and the stop after it may take beyond its timeout."""

RUNS = "runs"
"""What systemd shows of a gateway that does,"""

DRAINS = "drains"
"""and of one that does that."""


@dataclass(slots=True)
class Attempt:
    """To listen: once it is `late`, an error cannot be raised to the starter any more."""

    error: StartError | None = None
    late: bool = False


class GatewayService(Service):
    """A whole gateway.

    Args:
        settings: All that it is told.
        reactor: What it runs on.

    Raises:
        ConfigError, StartError: it cannot be started like this.

    Attributes:
        router_service: What all ports share.
        metrics: Where figures and health are told; None: nowhere.
        admin: Where operators see and steer it by HTTP; None: nowhere.
        failed: Called with a StartError when a port fails after startService has returned.
        drained: Called when a drain is over and the process should stop, in order.
        notify: Who is told how it is; nobody, unless the process is its own.
        reread: Reads the options anew, for `reload`; None: there is no file that could change.
    """

    name = "fastway"

    daemon = False
    """There may be no terminal: SIGHUP is then never the end of one."""

    def __init__(self, settings: Settings, reactor: Any) -> None:
        # Imported here so that `twistd --help` loads none of it.
        from fastway.assemble import make_router_service
        from fastway.ops.commands import Commands
        from fastway.ops.drain import Drain, DrainedService, Plan

        self.settings = settings
        self.reactor = reactor
        self.failed: Callable[[StartError], None] = lambda _: reactor.stop()
        self.drained: Callable[[], object] = lambda: reactor.stop()
        self.router_service = make_router_service(settings, reactor)
        self.router_service.failed = self._cannot_go_on
        ops = settings.ops
        # Process 1 of a container needs none, and the original writes none.
        wanted = ops.pid_path and os.getpid() != 1
        self.pid_file = PidFile(ops.pid_path) if wanted else None
        self.commands = Commands(self.router_service, reactor, ops.run_dir, ops.command_path)
        if ops.commands_module:
            if "" not in sys.path:
                sys.path.insert(0, "")
            self.commands.load(ops.commands_module)
        told = settings.drain
        self._drain = Drain(
            reactor,
            Plan(told.delay, told.grace, told.spread, told.limit),
            DrainedService(self.router_service, self._close_ports, lambda: self.drained()),
        )
        self.notify = Notify()
        self.reread: Callable[[], Settings] | None = None
        self.router_service.drain_begins.append(self._tell_of_drain)
        self.router_service.drain_is_undone.append(lambda: self.notify.tell(STATUS=RUNS))
        self._drain_signalled = False
        self.commands.source.drain = self._drain.figures
        self._reloads = (0, 0)
        self.commands.source.options = lambda: self._reloads
        self.commands.serve(self)
        self._turns_wanted = 0
        self.metrics = self._make_metrics()
        self.admin = self._make_admin()
        self._opening: list[Deferred[None]] = []
        self._log_started = False
        self._logfile: LogFileOutput | None = None
        self._access: AccessLog | None = None
        self._signals = Signals(reactor, self.hurry, self._drain_at_signal)
        self._stopping: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None

    def _make_metrics(self) -> MetricsPort | None:
        """Where figures and health are told, if that is asked for.

        Raises:
            ConfigError: not at that address.
        """
        metrics = self.settings.metrics
        if not metrics.address:
            return None
        from fastway.ops.site import MetricsPort
        from fastway.ops.snapshot import finish

        address = parse_address(metrics.where("address"), metrics.address)
        self._check_apart(address)
        source = self.commands.source
        source.needs_server = metrics.needs_server
        return MetricsPort(address, lambda: finish(source.snapshot(brief=True)))

    def _make_admin(self) -> AdminPorts | None:
        """Where operators see and steer it, if that is asked for.

        Raises:
            ConfigError: not so.
        """
        if not self.settings.admin.addresses:
            return None
        from fastway.ops.adminport import AdminPorts
        from fastway.ops.api import Api

        api = Api(self.commands, lambda: self.settings, self.reactor, self._want_turns)
        quiet, path_of = self.router_service.quiet, self.settings.ops.path
        admin = AdminPorts(self.settings.admin, path_of, api, quiet)
        for port in admin.ports:
            if port.address is not None:
                self._check_apart(port.address)
        return admin

    def _check_apart(self, address: Address) -> None:
        """See that nothing else listens there.

        Raises:
            ConfigError: something does.
        """
        others = [port.address for port in self.router_service.ports]
        metrics = getattr(self, "metrics", None)
        for other in others if metrics is None else [*others, metrics.address]:
            if address.is_that_of(other):
                name = other.option.lstrip("-")
                raise ConfigError(
                    address.option, f"{address.text} is the {name} too; give another"
                )

    @property
    def _web_ports(self) -> list[WebPort]:
        """Where operators and their programs ask."""
        ports: list[WebPort] = [] if self.metrics is None else [self.metrics]
        return ports if self.admin is None else [*ports, *self.admin.ports]

    def _want_turns(self, wanted: bool) -> None:
        """Somebody wants to know how long turns of the reactor take, or no more."""
        source = self.commands.source
        if wanted:
            turns = time_turns(self.reactor)
            source.turns = lambda: None if turns is None else turns.figures()
            self._turns_wanted += 1
            return
        leave_turns(self.reactor)
        self._turns_wanted -= 1
        if not self._turns_wanted:
            source.turns = lambda: None

    @property
    def path(self) -> str:
        """The path that packets between plain TCP links take, and why."""
        return self.router_service.path

    @property
    def ports(self) -> dict[str, IListeningPort]:
        """Name -> the port, of all that listen."""
        ports: list[Port | WebPort] = [*self.router_service.ports, *self._web_ports]
        return {port.name: port.listening for port in ports if port.listening is not None}

    @property
    def addresses(self) -> dict[str, Address]:
        """Name -> where it is to listen, of all ports."""
        return {port.name: port.address for port in self.router_service.ports}

    def check(self, working_dir: str = "") -> None:
        """See, without leaving a trace, that starting should work.

        Args:
            working_dir: Where the process will be when it starts, if not where it is.

        Raises:
            ConfigError, StartError: it would not; the text is one line for the operator.
        """
        for error in self.problems(working_dir):
            raise error

    def problems(self, working_dir: str = "") -> Iterator[LocalError]:
        """What `check` would raise, and what it would raise after that was mended."""
        checks: list[Callable[[], None]] = [lambda: self._check_run_dir(working_dir)]
        if self.settings.log.file:
            logfile = os.path.join(working_dir, self.settings.log.file)
            checks.append(lambda: check_logfile(logfile))
        if self.settings.log.access:
            access = os.path.join(working_dir, self.settings.log.access)
            where = self.settings.log.where("access")
            checks.append(lambda: check_logfile(access, where))
        if self.pid_file is not None:
            checks.append(PidFile(os.path.join(working_dir, self.pid_file.path)).check)
        for port in self.router_service.ports:
            checks.append(partial(port.address.check, self.reactor, port.reuse_port))
        if self.metrics is not None:
            checks.append(partial(self.metrics.address.check, self.reactor, False))
        if self.admin is not None:
            checks += [partial(port.check, self.reactor, working_dir) for port in self.admin.ports]
        for check in checks:
            try:
                check()
            except LocalError as error:
                yield error

    def _check_run_dir(self, working_dir: str) -> None:
        ops = self.settings.ops
        run_dir = os.path.abspath(os.path.join(working_dir, ops.run_dir))
        if not os.path.isdir(run_dir):
            raise ConfigError(
                ops.where("run_dir"), f"{run_dir} is not a directory; make it, or give another"
            )
        if not os.access(run_dir, os.W_OK | os.X_OK):
            raise ConfigError(
                ops.where("run_dir"),
                f"cannot write to {run_dir}; give a directory that this user may write",
            )

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
            # Before the pid file tells anybody where to send them.
            self._catch_signals()
            if self.pid_file is not None:
                self.pid_file.write()
            if not self._opening:
                self._open_ports()
        super().startService()
        self._drain_signalled = False
        bound_turns(self.reactor)
        if self.metrics is not None:
            self._want_turns(True)
        if self.admin is not None:
            self.router_service.enders.append(self.admin.api.closed)
        self.router_service.startService()
        self.commands.start()
        if self.settings.server.allow_empty_key and not self.settings.server.key:
            log.warn("the server key is empty: whoever reaches the server port can be a server")
        for problem in exposed(self.settings.values):
            log.warn("{problem}", problem=problem)
        log.info("packets on host:port addresses take the path of {path}", path=self.path)
        log.info(
            "fastway runs as process {pid}, version {version}; {files} files may be open",
            pid=os.getpid(),
            version=__version__,
            files=raise_file_limit(),
        )
        self._tell_ready()
        Watchdog(self.notify).start(self.router_service.wheel)

    def _tell_ready(self) -> None:
        self.notify.tell(READY=1, STATUS=DRAINS if self.draining else RUNS)

    @contextmanager
    def _undone_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except LocalError:
            self._close_ports()
            for port in self._web_ports:
                port.close()
            if self.pid_file is not None:
                self.pid_file.remove()
            self._signals.release()
            self._stop_log()
            raise

    def stopService(self) -> Deferred[Any]:
        """Stop listening, lose every link, leave nothing behind; fires within seconds."""
        super().stopService()
        log.info("fastway stops")
        self.notify.tell(STOPPING=1, STATUS="stops")
        self._drain.stop()
        done = self._stopping = Deferred()
        hurried = self._signals.stopping
        self._signals.stopping = True
        stopping = [
            *self._close_ports(),
            maybeDeferred(self.router_service.stopService),
        ]
        DeferredList(stopping).addCallback(self._stopped)
        if hurried:
            self.hurry()
        return done

    def hurry(self) -> None:
        """Somebody asks a second time: abort what lingers, and wait for HURRY seconds only."""
        self._signals.stopping = True
        if self._stopping is None or self._deadline is not None:
            return
        log.info("fastway stops at once")
        self._deadline = self.reactor.callLater(HURRY, self._stopped, None)
        self.router_service.abort()

    def _stopped(self, _: object) -> None:
        done, self._stopping = self._stopping, None
        if done is None:
            return
        if self.admin is not None:
            self.admin.api.viewers.stop()
            enders, closed = self.router_service.enders, self.admin.api.closed
            enders[:] = [one for one in enders if one is not closed]
        # Until now they have told that the gateway stops.
        closing = DeferredList([port.close() for port in self._web_ports])
        if self.metrics is not None:
            self._want_turns(False)
        hurried, self._deadline = self._deadline, None
        if hurried is not None and hurried.active():
            hurried.cancel()
        self.commands.stop()
        if self.pid_file is not None:
            self.pid_file.remove()
        # Not before: until the pid file is gone, a SIGUSR1 that is not caught would kill.
        self._signals.release()
        log.info("fastway stopped")
        self._stop_log(0.1 if hurried is not None else FLUSH)
        closing.addBoth(lambda _: done.callback(None))

    # The drain.

    @property
    def draining(self) -> bool:
        """Nobody should be sent here any more."""
        return self.router_service.draining

    def drain(self, again: bool = False) -> str:
        """Empty the gateway step by step (`fastway.ops.drain`), then have the process stop.

        Args:
            again: A successor listens at the same addresses.

        Returns:
            What happens, for the operator.

        Raises:
            CommandError: it drains already.
        """
        self._drain.begin(again)
        plan = self._drain.plan
        return (
            f"ports are closed in {plan.delay:g} s, clients lost from "
            f"{plan.delay + plan.grace:g} s on; all is over within {plan.timeout:g} s"
        )

    def undrain(self) -> str:
        """Take a drain back.

        Raises:
            CommandError: there is none, or the ports are closed.
        """
        self._drain.undo()
        self._drain_signalled = False
        return "the drain is taken back; all goes on"

    def _drain_at_signal(self) -> bool:
        """The first SIGTERM drains, if it should; a drain that goes on counts as its own."""
        if not self.settings.drain.timeout or self._drain_signalled:
            return False
        self._drain_signalled = True
        if not self.draining:
            self.drain()
        return True

    def _tell_of_drain(self, at: float, until: float | None, again: bool) -> None:
        seconds = self._drain.plan.timeout + GOODBYES
        self.notify.tell(STATUS=DRAINS, EXTEND_TIMEOUT_USEC=round(seconds * 1e6))

    # Ports.

    def _open_ports(self) -> None:
        native = self.router_service.native
        opens: list[Callable[[], Deferred[None]]] = []
        opens += [partial(port.open, self.reactor) for port in self._web_ports]
        opens += [partial(port.open, self.reactor, native) for port in self.router_service.ports]
        for port_opens in opens:
            attempt = Attempt()
            opening = port_opens()
            opening.addErrback(self._port_failed, attempt)
            self._opening.append(opening)
            if attempt.error is not None:
                raise attempt.error
            attempt.late = True
        addresses = [port.address for port in self.router_service.ports]
        addresses += [] if self.metrics is None else [self.metrics.address]
        if self.admin is not None:
            addresses += [port.address for port in self.admin.ports if port.address is not None]
        if any("systemd:domain" in address.text for address in addresses):
            return  # Twisted's own way to the same sockets
        for name in unused({address.inherited for address in addresses}):
            log.warn(
                "systemd gave a socket {name}, at which nobody is served; give a port the address "
                "systemd:{name}, or take it out of its unit",
                name=name,
            )

    def _port_failed(self, failure: Failure, attempt: Attempt) -> None:
        attempt.error = StartError(str(failure.value))
        if attempt.late and self._opening:  # else it was cancelled by a stop
            self._cannot_go_on(str(attempt.error))

    def _cannot_go_on(self, problem: str) -> None:
        log.critical("{problem}", problem=problem)
        self.failed(StartError(problem))

    def _close_ports(self) -> list[Deferred[Any]]:
        self._opening = []
        return [port.close() for port in self.router_service.ports]

    # The log.

    def _start_log(self) -> None:
        if self._log_started:
            return
        self._log_started = True
        wanted = self.settings.log
        logs.threshold.set(wanted.level)
        logs.addresses.kept = wanted.address
        if wanted.file:
            self._logfile = LogFileOutput(wanted.file, wanted.format)
            add(self._logfile)
        if self.admin is not None:
            add(self.admin.api.tail)
        if wanted.access:
            where = wanted.where("access")
            self._access = AccessLog(wanted.access, wanted.access_format, where)
            self.router_service.enders.append(self._access)

    def _stop_log(self, seconds: float = FLUSH) -> None:
        """Write what waits, for so many seconds at the most."""
        self._log_started = False
        if self.admin is not None:
            remove(self.admin.api.tail)
        until = time.monotonic() + seconds
        access, self._access = self._access, None
        if access is not None:
            self.router_service.enders.remove(access)
            access.close(0)
        if self._logfile is not None:
            remove(self._logfile)
            self._logfile.close(seconds)
            self._logfile = None
        if access is not None:
            access.close(max(until - time.monotonic(), 0.0))

    # The reload.

    def reload(self, said: bool = True) -> list[str]:
        """SIGHUP: open the log file anew, read again what changed in the files of TLS, of
        identities and of the admin token, and use what changed in the options, as far as that
        needs no restart.

        Args:
            said: The log has these rows too; otherwise whoever asks sees to that.

        Returns:
            What has come of it, in rows for the operator.

        Raises:
            CommandError: something in the options, or the admin token, cannot be used. What is in
                use of these stays; all else is read anew all the same.
        """
        if not self.running or self._stopping is not None:
            return ["it does not run"]
        self.notify.reloads()
        rows = self.reopen_logs()
        if self.router_service.watchers:
            self.router_service.refresh()
            rows.append(
                "files of TLS and of identities are read where they changed; the log says what "
                "came of it"
            )
        told: list[str] = []
        waits: list[str] = []
        problems: list[str] = []
        if self.admin is not None:
            try:
                if self.admin.renew():
                    told.append("the admin token is another one")
            except ConfigError as error:
                problems.append(f"the old admin token stays in use: {error}")
        if self.reread is not None:
            try:
                used, waits = self._reread(self.reread)
                told += used
            except ConfigError as error:
                problems.append(f"the old options stay in use: {error}")
        if waits:
            waits = [f"to be used after a restart: {', '.join(waits)}"]
        if said:
            for say, texts in ((log.info, told), (log.warn, waits), (log.error, problems)):
                for text in texts:
                    say("reload: {row}", row=text)
        self._tell_ready()
        if told or waits or problems:
            done, failed = self._reloads
            self._reloads = (done, failed + 1) if problems else (done + 1, failed)
        if problems:
            raise CommandError("; ".join(problems))
        rows += told + waits
        return rows or ["there is nothing to read anew: neither a --config nor a log file"]

    def _hung_up(self) -> None:
        with suppress(CommandError):  # the log has it
            self.reload()

    def _reread(self, reread: Callable[[], Settings]) -> tuple[list[str], list[str]]:
        """Use what changed in the options.

        Returns:
            A row for each that is used, and the names of those that are not yet.

        Raises:
            ConfigError: something in them cannot be used, and nothing has changed.
        """
        from fastway.ops.reload import Reload

        done = Reload(self.router_service, self.settings, reread())
        self.settings = done.settings
        return done.rows or ["nothing that is used at once has changed"], done.waits

    def reopen_logs(self) -> list[str]:
        """Open the log files anew, after logrotate moved them; returns what came of it."""
        rows = [] if self._logfile is None else [self._reopen_log(self._logfile)]
        if self._access is not None:
            rows.append(self._access.reopen())
        return rows

    def _reopen_log(self, old: LogFileOutput) -> str:
        try:
            new = LogFileOutput(old.path, self.settings.log.format) if old.moved() else old
        except ConfigError as error:
            log.error("the old log file stays open: {problem}", problem=str(error))
            return f"the old log file stays open: {error}"
        if new is not old:
            add(new)
            remove(old)
            old.close(0, new)  # its thread writes on what waits
            self._logfile = new
        log.info("log file reopened")
        return "log file reopened"

    # Signals.

    def _catch_signals(self) -> None:
        actions: dict[signal.Signals, Callable[[], object]] = {}
        if self.settings.ops.command_path:
            actions[signal.SIGUSR1] = self.commands.obey
        # A gateway on a terminal ends with it, as the original does.
        files = self._logfile is not None or self._access is not None
        reads = self.reread is not None and not any(map(os.isatty, range(3)))
        if files or self.daemon or self.router_service.watchers or reads:
            actions[signal.SIGHUP] = self._hung_up
        self._signals.catch(actions)


class Options(GatewayOptions):
    """`twistd fastway`'s options: what is wrong with them is one line and exit status 1."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        try:
            super().parseOptions(options)
        except ConfigError as error:
            raise SystemExit(f"fastway: {error}") from None


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

    daemon = True

    _twistd_log: TwistdLog | None = None

    def __init__(self, settings: Settings, reactor: Any) -> None:
        super().__init__(settings, reactor)
        self.failed = self._end

    def _end(self, _: StartError) -> None:
        # twistd has no status for it: what runs last has the last word.
        atexit.register(os._exit, 1)
        self.reactor.stop()

    def _start_log(self) -> None:
        if not self._log_started:
            if self.settings.log.file:
                path = os.path.abspath(self.settings.log.file)
                log.info("the log goes on in {path}", path=path)
            super()._start_log()
            self._twistd_log = TwistdLog(replaced=self._logfile is not None)

    def _stop_log(self, seconds: float = FLUSH) -> None:
        super()._stop_log(seconds)
        if self._twistd_log is not None:
            self._twistd_log.give_back(seconds)
            self._twistd_log = None

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

    inherited()
    try:
        wanted = options.settings.log
        if wanted.format != "text" and not wanted.file:
            raise ConfigError(
                wanted.where("format"), "under twistd it goes with --logfile; give that too"
            )
        service = TwistdService(options.settings, reactor)
        service.notify = of_environment()
        service.reread = options.reread if options.file else None
        if options.settings.ops.command_path:
            shield()
        # twistd changes to its --rundir later.
        service.check("" if options.parent is None else options.parent["rundir"])
        own_process(reactor)
    except LocalError as error:
        raise SystemExit(f"fastway: {error}") from None
    return service

"""What SIGUSR1 makes the gateway do: the commands of spec section 6 and their registry.

Rule: a command never harms the gateway. Whatever is wrong with it, or goes wrong in it, is one
line in the log.

A command is (pattern, description, callback). The pattern is a regular expression matched against
the whole trimmed line; its groups go to the callback, whose text is logged line by line. Add your
own in a module named by `--commands-module`:

    def register(commands):
        commands.register(r"hello (\\w+)", "hello NAME: greets", lambda name: f"hello, {name}")
"""

from __future__ import annotations

import cProfile
import errno
import gc
import importlib
import io
import marshal
import os
import re
import stat
import sys
import threading
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from twisted.logger import Logger

from fastway.errors import CommandError, ConfigError, Reason
from fastway.gateway import GatewayLink, RouterService
from fastway.logs import make_logger, threshold
from fastway.router import Side

log = make_logger(__name__)
answers = Logger(__name__)
"""What an operator asked for is logged whatever the level."""

MAX_COMMAND = 4096
"""Bytes of a command file; a larger one is no command."""

ROWS = 25
"""Rows of a report when the command gives no detail level."""

Callback = Callable[..., "str | None"]


class Commands:
    """The registry, and the reading of the command file.

    Args:
        service: The running gateway's router service.
        reactor: For `lookup goroutine` and `lookup block`.
        run_dir: Where reports are written, mode 0600.
        command_file: What `obey` reads.
    """

    def __init__(
        self, service: RouterService, reactor: Any, run_dir: str = ".", command_file: str = ""
    ) -> None:
        self.service = service
        self.reactor = reactor
        self.run_dir = run_dir
        self.command_file = command_file
        self.turns = TurnWatch(reactor)
        self.threads = ThreadWatch()
        self._table: list[tuple[re.Pattern[str], str, Callback]] = []
        self._profile: cProfile.Profile | None = None
        for pattern, description, callback in (
            (r"help", "help: lists the commands", self.help),
            (r"status", "status: uptime, links, virtual connections, counters", self.status),
            (r"links", "links: every link, into fastway.links.txt", self.links),
            (
                r"kick (client|server) (\d{1,10})",
                "kick client|server ID: loses that link",
                self.kick,
            ),
            (
                r"loglevel (\w+)",
                "loglevel debug|info|warn|error|critical: the least level logged",
                self.loglevel,
            ),
            (
                r"cpuprof (start|stop)",
                "cpuprof start, cpuprof stop: CPU profile, into fastway.cpu.prof "
                "(python -m pstats opens it)",
                self.cpuprof,
            ),
            (
                r"lookup block(?: (\d{1,4}))?",
                "lookup block [ROWS]: where the reactor spent long turns, into fastway.block.prof",
                self.lookup_block,
            ),
            (
                r"lookup gc(?: (\d{1,4}))?",
                "lookup gc: garbage collector and memory, to the log",
                self.lookup_gc,
            ),
            (
                r"lookup goroutine(?: (\d{1,4}))?",
                "lookup goroutine [ROWS]: thread stacks, pending calls, sockets, links, "
                "into fastway.goroutine.prof",
                self.lookup_goroutine,
            ),
            (
                r"lookup heap(?: (\d{1,4}))?",
                "lookup heap [ROWS]: what holds memory, into fastway.heap.prof; "
                "the first starts the tracing, lookup heap 0 ends it",
                self.lookup_heap,
            ),
            (
                r"lookup threadcreate(?: (\d{1,4}))?",
                "lookup threadcreate [ROWS]: where threads were made, "
                "into fastway.threadcreate.prof",
                self.lookup_threadcreate,
            ),
        ):
            self.register(pattern, description, callback)

    def register(self, pattern: str, description: str, callback: Callback) -> None:
        """Add a command; of several patterns that match a line the first registered wins.

        Raises:
            re.error: the pattern is no regular expression.
        """
        self._table.append((re.compile(pattern), description, callback))

    def load(self, module: str) -> None:
        """Let a user's module register its commands.

        Raises:
            ConfigError: it cannot be imported, has no `register`, or that fails.
        """
        try:
            importlib.import_module(module).register(self)
        except Exception as error:
            raise ConfigError("--commands-module", f"{module}: {_problem(error)}") from None

    def start(self) -> None:
        """Begin to watch the reactor's turns and where threads are made."""
        self.turns.start()
        self.threads.start()

    def stop(self) -> None:
        """End what was begun: the watch, a profile, memory tracing."""
        self.turns.stop()
        self.threads.stop()
        if self._profile is not None:
            self._profile.disable()
            self._profile = None
        if tracemalloc.is_tracing():
            tracemalloc.stop()

    def obey(self) -> None:
        """Read the command file and run it; never raises."""
        try:
            line = self.read_command_file()
        except CommandError as error:
            answers.error("no command run: {problem}", problem=str(error), always=True)
        else:
            self.run(line)

    def read_command_file(self) -> str:
        """The command in the command file.

        Raises:
            CommandError: there is none that may be obeyed.
        """
        path = self.command_file
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags)
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                os.close(descriptor)
                raise CommandError(f"{path} is not a regular file")
            with open(descriptor, "rb") as file:
                if about.st_uid not in (0, os.geteuid()):
                    raise CommandError(
                        f"{path} belongs to user {about.st_uid}, "
                        f"not to the gateway's ({os.geteuid()}) or root"
                    )
                if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    raise CommandError(f"{path} can be written by others; chmod go-w {path}")
                data = file.read(MAX_COMMAND + 1)
        except OSError as error:
            problem = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise CommandError(f"cannot read {path}: {problem}") from None
        if len(data) > MAX_COMMAND:
            raise CommandError(f"{path} is over {MAX_COMMAND} bytes")
        try:
            line = data.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise CommandError(f"{path} is not text") from None
        if not line:
            raise CommandError(f"{path} is empty")
        return line

    def run(self, line: str) -> None:
        """Run one command line; its answer, or what is wrong with it, goes to the log."""
        line = line.strip()
        for pattern, _, callback in self._table:
            match = pattern.fullmatch(line)
            if match is None:
                continue
            try:
                answer = callback(*match.groups())
                self.service.flush()
                text = "done" if answer is None else str(answer)
            except (Exception, SystemExit) as error:
                answers.error(
                    "command {command!r} failed: {problem}",
                    command=line,
                    problem=_problem(error),
                    always=True,
                )
                return
            for row in text.splitlines():
                answers.info("{command}: {row}", command=line, row=row, always=True)
            return
        answers.error(
            "unknown command {command!r}; help lists them", command=line[:200], always=True
        )

    # The commands.

    def help(self) -> str:
        return "\n".join(description for _, description, _ in self._table)

    def status(self) -> str:
        service = self.service
        router = service.router
        stats = router.stats
        lost: Counter[Reason] = Counter()
        for (_, reason), count in stats.lost.items():
            lost[reason] += count
        lost.update(stats.turned_away)
        links = list(service.connected)
        servers = sum(map(len, router.servers.values()))
        rows = [
            f"uptime: {service.clock.seconds() - service.started:.0f} s",
            f"clients: {len(router.clients)} connected, {stats.gained[Side.CLIENT]} since start",
            f"servers: {servers} connected with {len(router.servers)} ids, "
            f"{stats.gained[Side.SERVER]} since start",
            f"virtual connections: {len(router.conn_ids)} open, {stats.accepted} since start",
            f"forwarded: {stats.packets} packets, {stats.bytes} bytes",
            f"dials: {stats.dials}, refused: {sum(stats.refused.values())}"
            + _counts({why.value: count for why, count in stats.refused.items()}),
            f"strays answered by a Close: {stats.strays}, "
            f"closes of others' connections ignored: {stats.foreign_closes}, pings: {stats.pings}",
            f"waiting: {sum(link.waiting_packets for link in links)} packets, "
            f"{sum(link.waiting_bytes for link in links)} bytes; "
            f"not read from now: {sum(link.held for link in links)}, holds: {service.holds}",
            f"turned away at the door: {service.turned_away}",
            *(
                f"{layer.name} of {side}s: {layer.figures()}"
                for side, layer in sorted(service.snet.items())
            ),
            f"links lost: {sum(lost.values())}"
            + _counts({reason.value: count for reason, count in lost.items()}),
            f"memory: {resident_memory() // 1024} KiB resident",
        ]
        if service.relay is not None:
            rows += service.relay.status()
        return "\n".join(rows)

    def links(self) -> str:
        service = self.service
        now = service.wheel.seconds()
        rows = []
        for link in sorted(service.connected, key=lambda link: (link.side.value, link.link_id)):
            rows.append(
                f"{link.side.value}\t{link.link_id if link.known else '?'}\t{link.peer_name()}\t"
                f"{len(link.peers)} conns\t{now - link.since:.0f} s\t"
                f"in {link.packets_in} packets {link.bytes_in} bytes\t"
                f"out {link.packets_out} packets {link.bytes_out} bytes\t"
                f"waiting {link.waiting_packets} packets {link.waiting_bytes} bytes" + _state(link)
            )
        path = self._report("links.txt", "".join(f"{row}\n" for row in rows))
        return f"{len(rows)} links written to {path}"

    def kick(self, side: str, link_id: str) -> str:
        router = self.service.router
        number = int(link_id)
        if side == "client":
            client = router.clients.get(number)
            links = [] if client is None else [client]
        else:
            links = list(router.servers.get(number, ()))
        if not links:
            raise CommandError(f"no {side} {number} is connected")
        for link in links:
            router.lose(link, Reason.KICKED)
        return f"{len(links)} kicked"

    def loglevel(self, level: str) -> str:
        try:
            threshold.set(level)
        except ValueError:
            raise CommandError(f"no level {level!r}") from None
        return f"the log level is {level}"

    def cpuprof(self, verb: str) -> str:
        if verb == "start":
            if self._profile is not None:
                raise CommandError("a profile is being taken already")
            started = cProfile.Profile()
            started.enable()
            self._profile = started
            return "profiling; cpuprof stop writes the profile"
        profile, self._profile = self._profile, None
        if profile is None:
            raise CommandError("no profile is being taken; cpuprof start begins one")
        profile.disable()
        profile.create_stats()
        stats = getattr(profile, "stats")  # noqa: B009 - mypy does not know it
        return f"written to {self._report('cpu.prof', marshal.dumps(stats))}"

    def lookup_block(self, level: str | None) -> str:
        path = self._report("block.prof", self.turns.report(_rows(level)))
        return f"{self.turns.long_turns} long turns, written to {path}"

    def lookup_gc(self, level: str | None) -> str:
        rows = [
            f"enabled: {gc.isenabled()}, thresholds: {gc.get_threshold()}, "
            f"allocations since: {gc.get_count()}, uncollectable: {len(gc.garbage)}",
            f"tracked objects: {len(gc.get_objects())}, frozen: {gc.get_freeze_count()}",
            f"memory: {resident_memory() // 1024} KiB resident",
        ]
        for generation, stats in enumerate(gc.get_stats()):
            counts = ", ".join(f"{name} {count}" for name, count in stats.items())
            rows.append(f"generation {generation}: {counts}")
        return "\n".join(rows)

    def lookup_goroutine(self, level: str | None) -> str:
        rows = _rows(level)
        out = io.StringIO()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        frames = sys._current_frames()
        out.write(f"threads: {len(frames)}\n")
        for ident, frame in frames.items():
            out.write(f"\n{names.get(ident, '?')} ({ident})\n")
            out.write("".join(traceback.format_stack(frame)))
        calls = sorted(self.reactor.getDelayedCalls(), key=lambda call: call.getTime())
        out.write(f"\npending calls: {len(calls)}\n")
        now = self.reactor.seconds()
        for call in calls[:rows]:
            out.write(f"in {call.getTime() - now:.3f} s: {_name(getattr(call, 'func', call))}\n")
        for what, selectables in (
            ("readers", self.reactor.getReaders()),
            ("writers", self.reactor.getWriters()),
        ):
            kinds = Counter(type(selectable).__name__ for selectable in selectables)
            out.write(f"\n{what}: {len(selectables)}{_counts(dict(kinds))}\n")
            for selectable in selectables[:rows]:
                out.write(f"{selectable!r}\n")
        links = list(self.service.connected)
        out.write(f"\nlinks: {len(links)}\n")
        for link in links[:rows]:
            out.write(f"{_link_name(link)}\n")
        path = self._report("goroutine.prof", out.getvalue())
        return f"{len(frames)} threads, {len(links)} links, written to {path}"

    def lookup_heap(self, level: str | None) -> str:
        rows = _rows(level)
        if level is not None and rows == 0:
            tracemalloc.stop()
            return "memory is not traced any more"
        out = io.StringIO()
        out.write(f"resident: {resident_memory()} bytes\n")
        objects = Counter(type(thing).__qualname__ for thing in gc.get_objects())
        out.write(f"\ntracked objects: {sum(objects.values())}\n")
        for kind, count in objects.most_common(rows):
            out.write(f"{count}\t{kind}\n")
        note = ""
        if tracemalloc.is_tracing():
            snapshot = tracemalloc.take_snapshot().filter_traces(
                [tracemalloc.Filter(False, tracemalloc.__file__)]
            )
            current, peak = tracemalloc.get_traced_memory()
            out.write(f"\nallocated since the tracing began: {current} bytes, peak {peak}\n")
            for row in snapshot.statistics("lineno")[:rows]:
                out.write(f"{row}\n")
        else:
            tracemalloc.start()
            note = (
                "; allocations are traced from now on and make the gateway slower: "
                "lookup heap again lists them, lookup heap 0 ends it"
            )
            out.write(f"\nallocations by line: not traced until now{note}\n")
        return f"written to {self._report('heap.prof', out.getvalue())}{note}"

    def lookup_threadcreate(self, level: str | None) -> str:
        rows = _rows(level)
        out = io.StringIO()
        threads = threading.enumerate()
        out.write(f"live threads: {len(threads)}\n")
        for thread in threads[:rows]:
            kind = "daemon" if thread.daemon else "not daemon"
            out.write(f"{thread.name} ({thread.native_id}, {kind})\n")
        sites = self.threads.sites
        out.write(f"\nmade since the start: {sum(sites.values())}\n")
        for site, count in sites.most_common(rows):
            out.write(f"\n{count} made here:\n{site}")
        path = self._report("threadcreate.prof", out.getvalue())
        return f"{len(threads)} threads, written to {path}"

    def _report(self, name: str, content: str | bytes) -> str:
        """Write a report whole, mode 0600, in place of an older one; returns its path."""
        path = os.path.join(self.run_dir, f"fastway.{name}")
        new = f"{path}.{os.getpid()}"
        data = content.encode("utf-8", "replace") if isinstance(content, str) else content
        with suppress(FileNotFoundError):
            os.unlink(new)
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
            os.replace(new, path)
        except OSError as error:
            with suppress(OSError):
                os.unlink(new)
            raise CommandError(f"cannot write {path}: {error.strerror}") from None
        return path


def _problem(error: BaseException) -> str:
    """An error's text in one line, and its name where the text alone says little."""
    if isinstance(error, CommandError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split())


def _rows(level: str | None) -> int:
    return ROWS if level is None else int(level)


def _state(link: GatewayLink) -> str:
    if link.lost:
        return "\tlost"
    if link.cut_since is not None:
        return f"\tcut {link.service.wheel.seconds() - link.cut_since:.0f} s"
    return "\tnot read from" if link.held else ""


def _counts(counts: dict[str, int]) -> str:
    """` (3 a, 1 b)`, the most first, or nothing."""
    rows = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    return f" ({', '.join(f'{count} {name}' for name, count in rows)})" if rows else ""


def _name(call: Any) -> str:
    return str(getattr(call, "__qualname__", None) or repr(call))


def _link_name(link: GatewayLink) -> str:
    return f"{link.side.value} {link.link_id if link.known else '?'} {link.peer_name()}"


def resident_memory() -> int:
    """Bytes of memory that this process occupies, 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


class TurnWatch:
    """Finds where the reactor spends long turns.

    A thread asks the reactor for a sign of life every INTERVAL seconds. While the answer is
    overdue by LONG seconds it notes the stack of the reactor's thread, every INTERVAL, and counts
    equal stacks together.
    """

    INTERVAL = 0.05
    LONG = 0.1
    MAX_STACKS = 256
    """Different stacks kept; further ones are only counted."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._stacks: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._reactor_thread = 0
        self.long_turns = 0
        self.longest = 0.0
        self.dropped = 0

    def start(self) -> None:
        """Begin; call it in the reactor's thread."""
        if self._thread is not None:
            return
        self._stop.clear()
        self._reactor_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="fastway-turns", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def report(self, rows: int) -> str:
        """What was found, the most frequent stacks first."""
        samples = sum(self._stacks.values())
        out = [
            f"turns longer than {self.LONG:g} s: {self.long_turns}, "
            f"the longest {self.longest:.3f} s\n"
            f"samples: {samples} (one every {self.INTERVAL:g} s), dropped: {self.dropped}\n"
        ]
        for stack, count in self._stacks.most_common(rows):
            out.append(f"\n{count * self.INTERVAL:.2f} s here:\n{stack}")
        return "".join(out)

    def _watch(self) -> None:
        while not self._stop.wait(self.INTERVAL):
            answered = threading.Event()
            asked = time.monotonic()
            self._reactor.callFromThread(answered.set)
            if answered.wait(self.LONG):
                continue
            while not self._stop.is_set() and not answered.is_set():
                frame = sys._current_frames().get(self._reactor_thread)
                if frame is not None:
                    self._note(frame)
                answered.wait(self.INTERVAL)
            if answered.is_set():
                self.long_turns += 1
                self.longest = max(self.longest, time.monotonic() - asked)

    def _note(self, frame: FrameType) -> None:
        stack = "".join(traceback.format_stack(frame))
        if stack in self._stacks or len(self._stacks) < self.MAX_STACKS:
            self._stacks[stack] += 1
        else:
            self.dropped += 1


class ThreadWatch:
    """Notes where threads are made: it stands in front of `threading.Thread.start`."""

    def __init__(self) -> None:
        self.sites: Counter[str] = Counter()
        """Stack -> threads made there; TurnWatch.MAX_STACKS different ones at most."""
        self._original: Callable[[threading.Thread], None] | None = None

    def start(self) -> None:
        if self._original is not None:
            return
        original = self._original = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            stack = "".join(traceback.format_stack(sys._getframe(1), 12))
            if stack in self.sites or len(self.sites) < TurnWatch.MAX_STACKS:
                self.sites[stack] += 1
            original(thread)

        threading.Thread.start = start  # type: ignore[assignment, method-assign]

    def stop(self) -> None:
        if self._original is not None:
            threading.Thread.start = self._original  # type: ignore[assignment, method-assign]
            self._original = None

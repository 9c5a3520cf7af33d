"""SIGUSR1's commands: the registry, the command file, and every command."""

from __future__ import annotations

import cProfile
import gc
import importlib
import itertools
import os
import pstats
import re
import stat
import sys
import threading
import time
import tracemalloc
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway import commands as module
from fastway import logs
from fastway.commands import MAX_COMMAND, Commands, TurnWatch
from fastway.errors import CommandError, ConfigError, Reason
from tests.support.ends import Harness
from tests.support.errors import raised
from tests.support.files import scratch
from tests.support.golden import close, dial, packet
from tests.support.logs import LogLines

reactor = cast(Any, _reactor)

MODULES = itertools.count()


class CommandsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(logs.threshold, "level", LogLevel.info)
        self.directory = scratch(self)
        self.harness = Harness()
        self.path = os.path.join(self.directory, "fastway.cmd")
        self.commands = Commands(self.harness.service, reactor, self.directory, self.path)
        self.addCleanup(self.commands.stop)

    def events(self, line: str) -> list[LogEvent]:
        """The events of one command; no command raises."""
        with LogLines() as log:
            self.commands.run(line)
        return [event for event in log.events if event["log_namespace"] == module.__name__]

    def answer(self, line: str) -> str:
        """What a command that succeeds answers."""
        rows = []
        for event in self.events(line):
            self.assertIs(event["log_level"], LogLevel.info, formatEvent(event))
            self.assertEqual(event["command"], line)
            rows.append(event["row"])
        self.assertTrue(rows)
        return "\n".join(rows)

    def problem(self, line: str) -> str:
        """The one error line of a command that fails."""
        (event,) = self.events(line)
        self.assertIs(event["log_level"], LogLevel.error)
        text = formatEvent(event)
        self.assertNotIn("\n", text)
        return text

    def report(self, name: str) -> str:
        """A report that was just written, mode 0600, with nothing temporary beside it."""
        path = os.path.join(self.directory, f"fastway.{name}")
        found = [entry for entry in os.listdir(self.directory) if entry.startswith("fastway.")]
        self.assertEqual(found, [f"fastway.{name}"])
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        os.unlink(path)
        return text


class RegistryTests(CommandsTestCase):
    def test_groups(self) -> None:
        """The pattern's groups are the callback's arguments; its text is logged line by line."""
        seen: list[tuple[str | None, ...]] = []

        def callback(*groups: str | None) -> str:
            seen.append(groups)
            return "one\ntwo"

        self.commands.register(r"move (\w+)(?: to (\d+))?", "move: moves", callback)
        self.assertEqual(self.answer("move piece to 7"), "one\ntwo")
        self.assertEqual(self.answer("move piece"), "one\ntwo")
        self.assertEqual(seen, [("piece", "7"), ("piece", None)])

    def test_no_text(self) -> None:
        """A callback without a text is logged as done."""
        self.commands.register("quiet", "quiet: nothing", lambda: None)
        self.assertEqual(self.answer("quiet"), "done")

    def test_whole_line(self) -> None:
        """The pattern must match the whole trimmed line."""
        self.assertIn("lists the commands", self.answer("help"))
        with LogLines() as log:
            self.commands.run("  help \n")
        self.assertIn("help: help: lists the commands", log.lines)
        for line in ("help me", "xhelp", "help\nhelp", "HELP"):
            self.assertIn("unknown command", self.problem(line))

    def test_first_wins(self) -> None:
        """Of several patterns that match, the first registered is run."""
        self.commands.register("twice", "", lambda: "first")
        self.commands.register("twice|help", "", lambda: "second")
        self.assertEqual(self.answer("twice"), "first")
        self.assertNotEqual(self.answer("help"), "second")

    def test_bad_pattern(self) -> None:
        """A pattern that is no regular expression is refused when it is registered."""
        raised(re.error, self.commands.register, "(", "", lambda: None)

    def test_sending(self) -> None:
        """What a command of one's own sends to a link leaves with it."""
        client = self.harness.client()

        def wave() -> None:
            self.harness.router.clients[1].send(packet(1, b"wave"), 1)

        self.commands.register("wave", "", wave)
        self.answer("wave")
        self.assertEqual(client.take(), packet(1, b"wave"))


class LoadTests(CommandsTestCase):
    def load(self, text: str) -> None:
        """Load a commands module with `text`."""
        name = f"fastway_commands_{next(MODULES)}"
        with open(os.path.join(self.directory, f"{name}.py"), "w", encoding="utf-8") as file:
            file.write(text)
        self.patch(sys, "path", [self.directory, *sys.path])
        self.patch(sys, "dont_write_bytecode", True)
        self.addCleanup(sys.modules.pop, name, None)
        importlib.invalidate_caches()
        self.commands.load(name)

    def refused(self, text: str) -> str:
        """Why a module is refused: one line with the option."""
        error = raised(ConfigError, self.load, text)
        self.assertEqual(error.option, "--commands-module")
        self.assertNotIn("\n", str(error))
        return error.problem

    def test_register(self) -> None:
        """The manual's example works, and help lists it."""
        self.load(
            "def register(commands):\n"
            "    commands.register(r'hello (\\w+)', 'hello NAME: greets',"
            " lambda name: f'hello, {name}')\n"
        )
        self.assertEqual(self.answer("hello world"), "hello, world")
        self.assertIn("hello NAME: greets", self.answer("help"))

    def test_missing(self) -> None:
        """A module that is not there is named."""
        error = raised(ConfigError, self.commands.load, "no_such_module_here")
        self.assertEqual(error.option, "--commands-module")
        self.assertIn("no_such_module_here", error.problem)

    def test_bad(self) -> None:
        """A module without register, with a mistake, or that fails, is refused with the reason."""
        self.assertIn("register", self.refused("x = 1\n"))
        self.assertIn("SyntaxError", self.refused("def register(:\n"))
        self.assertIn("ZeroDivisionError", self.refused("1 / 0\n"))

    def test_bad_in_several_lines(self) -> None:
        """A reason of several lines is still one line."""
        self.assertIn("first", self.refused("raise ValueError('first\\nsecond')\n"))


class FailureTests(CommandsTestCase):
    def test_unknown(self) -> None:
        """An unknown command is one line that names it and help."""
        problem = self.problem("reboot now")
        self.assertIn("'reboot now'", problem)
        self.assertIn("help", problem)

    def test_unknown_and_long(self) -> None:
        """However long a line is, the log shows its beginning only."""
        self.assertLess(len(self.problem("x" * MAX_COMMAND)), 300)

    def test_odd_lines(self) -> None:
        """Control characters, braces and nothing at all are one line each."""
        for line in ("", "a\nb", "{command}", "\x1b[2J", "%s", "help help"):
            self.assertIn("unknown command", self.problem(line))

    def test_failing(self) -> None:
        """A command that raises is one line with the error."""
        self.commands.register("divide", "", lambda: str(1 // 0))
        problem = self.problem("divide")
        self.assertIn("'divide' failed", problem)
        self.assertIn("ZeroDivisionError", problem)

    def test_failing_in_several_lines(self) -> None:
        """An error with a text of several lines is one line."""

        def fail() -> None:
            raise ValueError("one\ntwo")

        self.commands.register("fail", "", fail)
        self.assertIn("one", self.problem("fail"))

    def test_exit(self) -> None:
        """A command that wants to exit fails like any other."""

        def leave() -> None:
            raise SystemExit(3)

        self.commands.register("leave", "", leave)
        try:
            problem = self.problem("leave")
        except SystemExit:
            raise AssertionError("it got through") from None
        self.assertIn("SystemExit", problem)

    def test_wrong_arguments(self) -> None:
        """A callback that does not take its pattern's groups fails in one line."""
        self.commands.register("odd (x)", "", lambda: None)
        self.assertIn("TypeError", self.problem("odd x"))

    def test_whatever_the_level(self) -> None:
        """Answers, failures and unknown commands are logged at every log level."""
        self.commands.loglevel("critical")
        self.assertTrue(self.answer("help"))
        self.problem("reboot")
        self.problem("cpuprof stop")


class FileTests(CommandsTestCase):
    def write(self, content: bytes, mode: int = 0o600) -> None:
        with open(self.path, "wb") as file:
            file.write(content)
        os.chmod(self.path, mode)

    def refused(self) -> str:
        """Why the command file is not obeyed: one line that names it."""
        problem = str(raised(CommandError, self.commands.read_command_file))
        with LogLines() as log:
            self.commands.obey()
        (event,) = log.events
        self.assertIs(event["log_level"], LogLevel.error)
        self.assertEqual(formatEvent(event), f"no command run: {problem}")
        self.assertNotIn("\n", problem)
        self.assertIn(self.path, problem)
        return problem

    def test_obey(self) -> None:
        """The file's one line is run, and the file stays."""
        self.write(b"  lookup gc 1\r\n")
        with LogLines() as log:
            self.commands.obey()
        self.assertTrue(log.lines[0].startswith("lookup gc 1: enabled: "))
        self.assertTrue(os.path.exists(self.path))

    def test_modes(self) -> None:
        """Others may read the file; who may write it but the owner makes it no command."""
        for mode in (0o600, 0o644, 0o400, 0o755):
            self.write(b"help", mode)
            self.assertEqual(self.commands.read_command_file(), "help")
        for mode in (0o620, 0o602, 0o666, 0o664):
            self.write(b"help", mode)
            self.assertIn(f"can be written by others; chmod go-w {self.path}", self.refused())

    def test_missing(self) -> None:
        """No file is said with the system's reason."""
        self.assertIn("No such file", self.refused())

    def test_empty(self) -> None:
        """A file with nothing but space is empty."""
        for content in (b"", b" \n\t\n"):
            self.write(content)
            self.assertIn("is empty", self.refused())

    def test_size(self) -> None:
        """A file of the limit is read, one byte more is not, and neither is a huge one."""
        for size in (MAX_COMMAND - 1, MAX_COMMAND):
            self.write(b"x" * size)
            self.assertEqual(self.commands.read_command_file(), "x" * size)
        for size in (MAX_COMMAND + 1, 1_000_000):
            self.write(b"x" * size)
            self.assertIn(f"over {MAX_COMMAND} bytes", self.refused())

    def test_not_text(self) -> None:
        """Bytes that are no UTF-8 are no command."""
        self.write(b"help \xff")
        self.assertIn("is not text", self.refused())

    def test_several_lines(self) -> None:
        """Two lines are no command."""
        self.write(b"help\nhelp\n")
        with LogLines() as log:
            self.commands.obey()
        self.assertEqual(len(log.lines), 1)
        self.assertIn("unknown command", log.lines[0])

    def test_symlink(self) -> None:
        """A symbolic link is not followed."""
        other = os.path.join(self.directory, "other")
        with open(other, "wb") as file:
            file.write(b"help")
        os.symlink(other, self.path)
        self.refused()

    def test_directory(self) -> None:
        """A directory is no command, and leaves no descriptor open."""
        os.mkdir(self.path)
        self.refused()
        before = len(os.listdir("/dev/fd"))
        for _ in range(5):
            self.refused()
        self.assertEqual(len(os.listdir("/dev/fd")), before)

    def test_fifo(self) -> None:
        """A fifo is no command, and nobody waits for its writer."""
        os.mkfifo(self.path, 0o600)
        self.assertIn("not a regular file", self.refused())

    def test_owner(self) -> None:
        """The gateway's user and root may command, others may not."""
        self.write(b"help")
        owner = os.stat(self.path).st_uid
        self.patch(os, "geteuid", lambda: owner + 1000)
        if owner:
            problem = self.refused()
            self.assertIn(f"belongs to user {owner}", problem)
            self.assertIn(str(owner + 1000), problem)
        else:
            self.assertEqual(self.commands.read_command_file(), "help")

    def test_foreign_owner(self) -> None:
        """A file that another user left is not obeyed, not even by root."""
        self.write(b"help")
        os.chown(self.path, 12345, -1)
        problem = self.refused()
        self.assertIn("belongs to user 12345", problem)
        self.assertIn(f"({os.geteuid()}) or root", problem)

    if os.geteuid() != 0:
        test_foreign_owner.skip = "only root can give files away"  # type: ignore[attr-defined]

    def test_forbidden(self) -> None:
        """A file that may not be read is said with the system's reason."""
        self.write(b"help", 0)
        self.assertIn("Permission denied", self.refused())

    if os.geteuid() == 0:
        test_forbidden.skip = "root may read everything"  # type: ignore[attr-defined]


class CommandTests(CommandsTestCase):
    def test_help(self) -> None:
        """help lists every command of the original and of this project, with a description."""
        text = self.answer("help")
        for name in (
            "help",
            "status",
            "links",
            "kick client|server ID",
            "loglevel",
            "cpuprof start, cpuprof stop",
            *(f"lookup {what}" for what in ("block", "gc", "goroutine", "heap", "threadcreate")),
        ):
            self.assertRegex(text, rf"(?m)^{re.escape(name)}.*: \w")

    def test_status(self) -> None:
        """status tells what is: links, connections, traffic, dials and reasons."""
        harness = self.harness
        first, second = harness.client(), harness.client()
        server = harness.server(5)
        stranger = harness.stranger()
        conn_id = harness.pair(first, server)
        harness.pair(second, server)
        first.send(packet(conn_id, b"hello") * 3)
        server.send(packet(conn_id, b"!"))
        first.send(dial(99))
        first.send(packet(4242, b"stray"))
        second.send(close(conn_id))
        second.gone()
        harness.router.lose(stranger.link, Reason.AUTH_FAILED)
        text = self.answer("status")
        rows = dict(row.split(": ", 1) for row in text.splitlines())
        self.assertEqual(rows["clients"], "1 connected, 2 since start")
        self.assertEqual(rows["servers"], "1 connected with 1 ids, 1 since start")
        self.assertEqual(rows["virtual connections"], "1 open, 2 since start")
        self.assertEqual(rows["forwarded"], f"4 packets, {3 * 13 + 9} bytes")
        self.assertEqual(rows["dials"], "3, refused: 1 (1 no such remote)")
        self.assertIn("strays answered by a Close: 1,", text)
        self.assertIn("closes of others' connections ignored: 1,", text)
        self.assertEqual(
            rows["links lost"], "2 (1 closed by the peer, 1 did not prove the server key)"
        )
        self.assertRegex(rows["memory"], r"\A[1-9]\d{3,} KiB resident\Z")

    def test_status_waiting(self) -> None:
        """status counts what waits for links that do not read."""
        client, server = self.harness.client(), self.harness.server(5)
        conn_id = self.harness.pair(client, server)
        server.transport.fill()
        client.send(packet(conn_id, b"hello") * 2)
        self.assertIn("waiting: 2 packets, 26 bytes; not read from now: 0", self.answer("status"))

    def test_status_uptime(self) -> None:
        """Uptime is the time since the service started."""
        self.harness.clock.advance(75)
        self.assertIn("uptime: 75 s", self.answer("status"))

    def test_links(self) -> None:
        """links writes one row for each link: side, id, address, counters."""
        harness = self.harness
        self.assertIn("0 links", self.answer("links"))
        self.assertEqual(self.report("links.txt"), "")
        client, server, stranger = harness.client(), harness.server(5), harness.stranger()
        conn_id = harness.pair(client, server)
        client.send(packet(conn_id, b"hello"))
        self.assertIn("3 links", self.answer("links"))
        rows = [row.split("\t") for row in self.report("links.txt").splitlines()]
        self.assertEqual(
            [row[:2] for row in rows], [["client", "1"], ["server", "?"], ["server", "5"]]
        )
        self.assertEqual(rows[0][2], client.link.peer_name())
        self.assertEqual(rows[1][2], stranger.link.peer_name())
        self.assertEqual(rows[0][3], "1 conns")
        self.assertEqual(rows[0][5], "in 2 packets 26 bytes")

    def test_kick(self) -> None:
        """kick loses that link, for that reason, and nobody else."""
        client, other, server = (
            self.harness.client(),
            self.harness.client(),
            self.harness.server(1),
        )
        conn_id = self.harness.pair(client, server)
        self.assertEqual(self.answer("kick client 1"), "1 kicked")
        self.assertIs(client.lost, Reason.KICKED)
        self.assertEqual(server.take(), close(conn_id))
        self.assertIsNone(other.lost)
        self.assertIsNone(server.lost)
        self.assertEqual(self.answer("kick server 1"), "1 kicked")
        self.assertIs(server.lost, Reason.KICKED)

    def test_kick_same_id(self) -> None:
        """kick server loses every link that has the id."""
        older, newer = self.harness.server(7), self.harness.server(7)
        self.assertEqual(self.answer("kick server 7"), "2 kicked")
        self.assertIs(older.lost, Reason.KICKED)
        self.assertIs(newer.lost, Reason.KICKED)

    def test_kick_nobody(self) -> None:
        """kick of an id that nobody has fails and says so."""
        self.harness.client()
        for line in ("kick client 2", "kick server 1", "kick client 0", "kick client 4294967296"):
            self.assertIn("is connected", self.problem(line))
        for line in ("kick", "kick client", "kick gateway 1", "kick client 12345678901"):
            self.assertIn("unknown command", self.problem(line))

    def test_loglevel(self) -> None:
        """loglevel changes the least level, from the next event on."""
        self.assertEqual(self.answer("loglevel debug"), "the log level is debug")
        self.assertIs(logs.threshold.level, LogLevel.debug)
        self.answer("loglevel error")
        self.assertIs(logs.threshold.level, LogLevel.error)

    def test_loglevel_unknown(self) -> None:
        """A level that is none changes nothing and is named."""
        self.assertIn("no level 'loud'", self.problem("loglevel loud"))
        self.assertIs(logs.threshold.level, LogLevel.info)

    def test_cpuprof(self) -> None:
        """A profile from start to stop is one that pstats opens, with what ran in between."""
        self.assertIn("cpuprof stop", self.answer("cpuprof start"))
        self.harness.client()
        path = os.path.join(self.directory, "fastway.cpu.prof")
        self.assertIn(path, self.answer("cpuprof stop"))
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        profile = cast(Any, pstats.Stats(path))
        self.assertIn("add_client", {function for _, _, function in profile.stats})

    def test_cpuprof_order(self) -> None:
        """stop without start, and start twice, fail and say what to do."""
        self.assertIn("cpuprof start begins one", self.problem("cpuprof stop"))
        self.answer("cpuprof start")
        self.assertIn("already", self.problem("cpuprof start"))
        self.answer("cpuprof stop")
        self.assertIn("cpuprof start begins one", self.problem("cpuprof stop"))

    def test_cpuprof_refused(self) -> None:
        """A profiler that Python refuses (another one is active) leaves none behind."""

        class Busy(cProfile.Profile):
            def enable(self, *_: Any, **__: Any) -> None:
                raise ValueError("Another profiling tool is already active")

        with_profile = cProfile.Profile
        self.patch(cProfile, "Profile", Busy)
        self.assertIn("already active", self.problem("cpuprof start"))
        self.patch(cProfile, "Profile", with_profile)
        self.answer("cpuprof start")
        self.answer("cpuprof stop")

    def test_levels(self) -> None:
        """Every lookup goes without a level and with one of up to four digits, not with five."""
        self.addCleanup(tracemalloc.stop)
        for what in ("block", "gc", "goroutine", "heap", "threadcreate"):
            for level in ("", " 0", " 1", " 12", " 123", " 1234"):
                self.answer(f"lookup {what}{level}")
            for level in (" 12345", " -1", " x", " 1 2", "1"):
                self.assertIn("unknown command", self.problem(f"lookup {what}{level}"))
        for line in ("lookup", "lookup stack", "lookup 1"):
            self.assertIn("unknown command", self.problem(line))

    def test_gc(self) -> None:
        """lookup gc tells the collector's state in the log, in no file."""
        text = self.answer("lookup gc")
        self.assertIn(f"thresholds: {gc.get_threshold()}", text)
        for generation in range(3):
            self.assertIn(f"generation {generation}: collections ", text)
        self.assertEqual(os.listdir(self.directory), [])

    def test_heap(self) -> None:
        """lookup heap without a level works; the second one lists lines that allocate."""
        self.addCleanup(tracemalloc.stop)
        if tracemalloc.is_tracing():
            tracemalloc.stop()
        self.assertIn("lookup heap 0 ends it", self.answer("lookup heap"))
        first = self.report("heap.prof")
        self.assertRegex(first, r"\Aresident: [1-9]\d+ bytes\n")
        self.assertRegex(first, r"(?m)^\d+\tdict$")
        self.assertTrue(tracemalloc.is_tracing())
        kept = [bytes(1000) for _ in range(1000)]
        self.answer("lookup heap 3")
        second = self.report("heap.prof")
        self.assertIn("test_commands.py", second)
        self.assertEqual(len(re.findall(r"(?m)^/.*: size=", second)), 3)
        self.assertEqual(len(re.findall(r"(?m)^\d+\t", second)), 3)
        del kept
        self.assertIn("not traced any more", self.answer("lookup heap 0"))
        self.assertFalse(tracemalloc.is_tracing())

    def test_goroutine(self) -> None:
        """lookup goroutine shows this thread's stack, the calls to come, and the links."""
        client = self.harness.client()
        call = reactor.callLater(1000, self.harness.turn)
        self.addCleanup(call.cancel)
        self.assertIn("1 links", self.answer("lookup goroutine"))
        text = self.report("goroutine.prof")
        self.assertIn("test_goroutine", text)
        self.assertIn("MainThread", text)
        self.assertRegex(text, r"in (999\.\d+|1000\.000) s: Harness.turn")
        self.assertIn(f"client 1 {client.link.peer_name()}", text)
        self.assertIn("readers: ", text)

    def test_goroutine_rows(self) -> None:
        """The detail level is the number of rows."""
        for _ in range(3):
            self.harness.client()
        for level, rows in ((0, 0), (1, 1), (2, 2), (9, 3)):
            self.answer(f"lookup goroutine {level}")
            text = self.report("goroutine.prof")
            self.assertIn("links: 3\n", text)
            self.assertEqual(len(re.findall(r"(?m)^client \d", text)), rows)

    def test_threadcreate(self) -> None:
        """lookup threadcreate shows the threads, and where they were made since the start."""
        original = threading.Thread.start
        self.commands.threads.start()
        self.commands.threads.start()
        made_by_this_line = threading.Thread(target=int)
        made_by_this_line.start()
        made_by_this_line.join()
        self.answer("lookup threadcreate 1000")
        text = self.report("threadcreate.prof")
        self.assertIn("MainThread", text)
        self.assertIn("in test_threadcreate", text)
        self.assertIn("made_by_this_line.start()", text)
        self.assertIn("1 made here:", text)
        self.commands.threads.stop()
        self.assertIs(threading.Thread.start, original)

    def test_report_replaced(self) -> None:
        """A report replaces the one before whole; a link in its place is not written through."""
        other = os.path.join(self.directory, "other")
        with open(other, "w", encoding="utf-8") as file:
            file.write("precious")
        path = os.path.join(self.directory, "fastway.links.txt")
        os.symlink(other, path)
        reader = open(path, encoding="utf-8")  # noqa: SIM115 - it outlives the report
        self.addCleanup(reader.close)
        self.harness.client()
        self.answer("links")
        self.assertFalse(os.path.islink(path))
        self.assertEqual(reader.read(), "precious")
        self.assertIn("client\t1", self.report("links.txt"))

    def test_report_refused(self) -> None:
        """A report that cannot be written is one line with its path, and leaves nothing."""
        path = os.path.join(self.directory, "fastway.block.prof")
        os.mkdir(path)
        self.assertIn(f"cannot write {path}: Is a directory", self.problem("lookup block"))
        self.assertEqual(os.listdir(self.directory), ["fastway.block.prof"])

    def test_stop(self) -> None:
        """What an operator began is ended with the service."""
        self.answer("cpuprof start")
        self.answer("lookup heap")
        self.commands.stop()
        self.assertFalse(tracemalloc.is_tracing())
        self.assertIn("no profile", self.problem("cpuprof stop"))


class TurnWatchTests(TestCase):
    timeout = 10

    def setUp(self) -> None:
        self.turns = TurnWatch(reactor)
        self.addCleanup(self.turns.stop)

    async def answered(self) -> None:
        """The reactor has turned, and the watch has had time to ask and be answered."""
        for _ in range(3):
            await deferToThread(time.sleep, TurnWatch.INTERVAL)

    async def test_long_turn(self) -> None:
        """A turn over the bound is found, with the line that took it."""
        self.turns.start()
        self.turns.start()
        await self.answered()
        before = self.turns.long_turns
        self.block()
        while self.turns.long_turns == before:
            await self.answered()
        self.assertGreater(self.turns.longest, TurnWatch.LONG)
        report = self.turns.report(1000)
        self.assertIn("in block\n", report)
        self.assertIn("time.sleep(0.35)", report)
        self.assertRegex(report, r"\Aturns longer than 0.1 s: [1-9]")

    def block(self) -> None:
        time.sleep(0.35)

    async def test_rows(self) -> None:
        """The report has as many stacks as asked for, the most frequent first."""
        self.turns._stacks.update({"rare\n": 1, "often\n": 5})
        self.assertIn("0.25 s here:\noften", self.turns.report(1))
        self.assertNotIn("rare", self.turns.report(1))
        self.assertIn("rare", self.turns.report(2))
        self.assertNotIn("often", self.turns.report(0))

    async def test_bounded(self) -> None:
        """Beyond the bound, new stacks are only counted."""
        self.patch(TurnWatch, "MAX_STACKS", 1)
        frame = sys._getframe()
        self.turns._note(frame)
        self.turns._note(frame)
        self.assertEqual(self.turns.dropped, 1)
        self.assertIn("dropped: 1", self.turns.report(1))

    async def test_stop(self) -> None:
        """After stop no thread is left; it can be started again."""
        for _ in range(2):
            self.turns.start()
            self.assertIn("fastway-turns", [thread.name for thread in threading.enumerate()])
            self.turns.stop()
            self.assertNotIn("fastway-turns", [thread.name for thread in threading.enumerate()])
        self.turns.stop()

    async def test_start_and_stop_of_commands(self) -> None:
        """Commands watch the reactor between start and stop."""
        harness = Harness()
        commands = Commands(harness.service, reactor)
        commands.start()
        self.addCleanup(commands.stop)
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        await turned
        self.assertIn("fastway-turns", [thread.name for thread in threading.enumerate()])
        commands.stop()
        self.assertNotIn("fastway-turns", [thread.name for thread in threading.enumerate()])

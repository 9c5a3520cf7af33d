"""SIGUSR1's commands: the registry, how they are run, and those about links."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, cast

from twisted.logger import LogLevel, formatEvent

from fastway import __version__, logs
from fastway.errors import CommandError, ConfigError, Reason
from fastway.ops.commands import LOOKS, PAUSE
from fastway.ops.jobs import TURN
from fastway.ops.rundir import MAX_COMMAND
from tests.support.commands import CommandsTestCase
from tests.support.errors import raised
from tests.support.golden import close, dial, packet
from tests.support.logs import LogLines

MODULES = itertools.count()


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
        self.commands.verbs.loglevel("critical")
        self.assertTrue(self.answer("help"))
        self.problem("reboot")
        self.problem("cpuprof stop")


class AnswerFileTests(CommandsTestCase):
    def test_answer(self) -> None:
        """The answer file begins with the id of the command and the process, then the rows."""
        self.commands.register("two", "", lambda: "one\ntwo")
        self.commands.run("#a1B2 two")
        self.assertEqual(self.answer_file(), [f"a1B2 {os.getpid()}", "one", "two"])
        self.commands.run("two")
        self.assertEqual(self.answer_file(), [f"- {os.getpid()}", "one", "two"])

    def test_command_without_its_id(self) -> None:
        """The id is no part of the command in the log."""
        with LogLines() as log:
            self.commands.run("#x  loglevel info")
        self.assertEqual(log.lines, ["loglevel info: the log level is info"])

    def test_ids(self) -> None:
        """1 to 32 letters and digits are an id; with anything else the line is no command."""
        for tag in ("a", "0", "a" * 32):
            self.commands.run(f"#{tag} loglevel info")
            self.assertEqual(self.answer_file()[0], f"{tag} {os.getpid()}")
        for line in (f"#{'a' * 33} help", "# help", "#a-b help", "#\u00e9 help", "#a", "#ahelp"):
            self.assertIn("unknown command", self.problem(line))
            self.assertEqual(self.answer_file()[0], f"- {os.getpid()}")

    def test_error(self) -> None:
        """What fails begins with `error: `, whatever it is that fails."""
        with open(self.path, "wb") as file:
            file.write(b"x\xff\n")
        os.chmod(self.path, 0o600)
        for run, tag, error in (
            (lambda: self.commands.run("#1 kick client 9"), "1", "no client 9 is connected"),
            (lambda: self.commands.run("#2 reboot"), "2", "unknown command 'reboot'; help lists"),
            (self.commands.obey, "-", f"no command run: {self.path} is not text"),
        ):
            run()
            self.answered()
            first, second = self.answer_file()
            self.assertEqual(first, f"{tag} {os.getpid()}")
            self.assertTrue(second.startswith(f"error: {error}"), second)

    def test_control_characters(self) -> None:
        """A row of the answer is a line of plain text."""
        self.commands.register("odd", "", lambda: "a\x1b[2Jb")
        self.commands.run("odd")
        self.assertEqual(self.answer_file()[1:], ["a\\x1b[2Jb"])

    def test_cannot_be_written(self) -> None:
        """An answer file that cannot be written is one line beside the answer."""
        path = os.path.join(self.directory, "fastway.answer")
        os.mkdir(path)
        with LogLines() as log:
            self.commands.run("loglevel info")
        self.assertEqual(
            log.lines,
            ["loglevel info: the log level is info", f"cannot write {path}: Is a directory"],
        )
        os.rmdir(path)

    def test_gone_with_the_gateway(self) -> None:
        """After the stop there is no answer file."""
        self.commands.run("help")
        self.commands.stop()
        self.assertEqual(os.listdir(self.directory), [])


class ObeyTests(CommandsTestCase):
    def write(self, content: bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(content)
        os.chmod(self.path, 0o600)

    def look_again(self) -> None:
        self.reactor.advance(PAUSE)

    def test_obey(self) -> None:
        """The file's one line is run, and the file stays."""
        self.write(b"  lookup gc 1\r\n")
        with LogLines() as log:
            self.commands.obey()
            self.answered()
        self.assertTrue(log.lines[0].startswith("lookup gc 1: enabled: "))
        self.assertTrue(os.path.exists(self.path))

    def test_in_the_middle_of_a_rewrite(self) -> None:
        """A file that is cut off, empty or still growing is looked at again, and run once."""
        pieces = (b"", b"log", b"loglevel in", b"loglevel info\n")
        self.write(b"")
        with LogLines() as log:
            self.commands.obey()
            for piece in pieces:
                self.write(piece)
                self.assertEqual(log.lines, [])
                self.look_again()
            self.reactor.advance(1)
        self.assertEqual(log.lines, ["loglevel info: the log level is info"])

    def test_without_a_line_end(self) -> None:
        """A file without a line end is run when it did not change between two looks."""
        self.write(b"loglevel info")
        with LogLines() as log:
            self.commands.obey()
            self.assertEqual(log.lines, [])
            self.look_again()
        self.assertEqual(log.lines, ["loglevel info: the log level is info"])

    def test_empty_for_good(self) -> None:
        """A file that stays empty is an error, a fraction of a second later."""
        self.write(b"")
        with LogLines() as log:
            self.commands.obey()
            for _ in range(LOOKS):
                self.look_again()
        self.assertEqual(log.lines, [f"no command run: {self.path} is empty"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_many_signals(self) -> None:
        """Signals that come while the file is looked at run what is in it once."""
        self.write(b"loglevel info")
        with LogLines() as log:
            for _ in range(5):
                self.commands.obey()
            self.look_again()
            self.assertEqual(len(log.lines), 1)
            self.commands.obey()
            self.look_again()
        self.assertEqual(len(log.lines), 2)

    def test_refused(self) -> None:
        """What may not be obeyed is one error line that names the file."""
        with LogLines() as log:
            self.commands.obey()
        (event,) = log.events
        self.assertIs(event["log_level"], LogLevel.error)
        self.assertEqual(
            formatEvent(event),
            f"no command run: cannot read {self.path}: No such file or directory",
        )

    def test_stop(self) -> None:
        """A stop while the file is looked at leaves nothing to come."""
        self.write(b"help")
        self.commands.obey()
        self.commands.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class SliceTests(CommandsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.commands.jobs.timer = lambda: self.now

    def work(self, steps: int, seconds: float) -> None:
        """Register `work`: so many steps, each of so many seconds."""

        def work() -> Iterator[None]:
            for _ in range(steps):
                self.now += seconds
                yield
            return "worked"  # type: ignore[return-value]

        self.commands.register("work", "", cast(Any, work))

    def test_turns(self) -> None:
        """What takes long gets a few milliseconds of each turn, and answers when it is done."""
        self.work(10, TURN)
        with LogLines() as log:
            self.commands.run("work")
            turns = 1
            while not log.lines:
                self.assertLessEqual(self.now, turns * TURN * 1.01)
                self.reactor.turn()
                turns += 1
        self.assertEqual(log.lines, ["work: worked"])
        self.assertEqual(turns, 11)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_one_at_a_time(self) -> None:
        """While one is under way another is refused in one line; what is short goes between."""
        self.work(4, TURN)
        self.harness.client()
        with LogLines() as log:
            self.commands.run("#1 work")
            self.commands.run("#2 links")
            self.assertEqual(log.lines[0][:24], "command 'links' failed: ")
            self.assertIn("'work' is still being answered", log.lines[0])
            self.assertEqual(self.answer_file()[0], f"2 {os.getpid()}")
            self.commands.run("kick client 1")
            self.assertIn("kick client 1: 1 kicked", log.lines)
            self.answered()
        self.assertEqual(log.lines[-1], "work: worked")
        self.assertEqual(self.answer_file(), [f"1 {os.getpid()}", "worked"])
        self.assertIn("1 links", self.answer("links"))

    def test_fails_late(self) -> None:
        """What goes wrong in a later turn is one line, and the next report is taken."""

        def work() -> Iterator[None]:
            self.now += TURN
            yield
            raise CommandError("no more")

        self.commands.register("work", "", cast(Any, work))
        self.assertIn("'work' failed: no more", self.problem("work"))
        self.assertIn("failed: no more", self.problem("work"))

    def test_links(self) -> None:
        """Links that come and go while `links` is made harm nothing; what is written is whole."""
        ends = [self.harness.client() for _ in range(300)]
        self.commands.jobs.timer = self.tick
        with LogLines() as log:
            self.commands.run("links")
            self.assertEqual(log.lines, [])
            for number, end in enumerate(ends):
                if number % 3 == 0:
                    end.gone()
                    self.harness.client()
                if number % 100 == 0:
                    self.reactor.turn()
            path = os.path.join(self.directory, "fastway.links.txt")
            self.assertFalse(os.path.exists(path))
            self.answered()
        rows = [row.split("\t") for row in self.report("links.txt").splitlines()]
        self.assertIn(f"links: {len(rows)} links written to {path}", log.lines[-1])
        self.assertGreaterEqual(len(rows), 200)
        ids = [int(row[1]) for row in rows]
        self.assertEqual(ids, sorted(set(ids)))

    def tick(self) -> float:
        """A time in which every slice is a turn's share."""
        self.now += TURN
        return self.now

    def test_stop(self) -> None:
        """A stop in the middle of a report leaves neither a file nor a call."""
        for _ in range(300):
            self.harness.client()
        self.commands.jobs.timer = self.tick
        self.commands.run("links")
        self.assertEqual(len(os.listdir(self.directory)), 1)
        self.commands.stop()
        self.assertEqual(os.listdir(self.directory), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


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
        self.assertEqual(list(rows)[:3], ["version", "path", "uptime"])
        self.assertEqual(rows["version"], f"{__version__}, process {os.getpid()}")
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
        self.assertEqual(rows["log lines dropped"], "0")

    def test_status_waiting(self) -> None:
        """status counts what waits for links that do not read."""
        client, server = self.harness.client(), self.harness.server(5)
        conn_id = self.harness.pair(client, server)
        server.transport.fill()
        client.send(packet(conn_id, b"hello") * 2)
        self.assertIn(
            "waiting: 2 packets, 26 bytes, and 0 bytes that came; not read from now: 0",
            self.answer("status"),
        )

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
        self.assertEqual(rows[0][2], client.link.facts.name)
        self.assertEqual(rows[1][2], stranger.link.facts.name)
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

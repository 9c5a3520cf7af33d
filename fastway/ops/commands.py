"""What SIGUSR1 makes the gateway do: the commands of spec section 6 and their registry.

Rule: a command never harms the gateway. Whatever is wrong with it, or goes wrong in it, is one
line in the log; and what takes long is done in slices, between which the gateway forwards.

A command is (pattern, description, callback). The pattern is a regular expression matched against
the whole trimmed line; its groups go to the callback, whose text is logged line by line. Add your
own in a module named by `--commands-module`:

    def register(commands):
        commands.register(r"hello (\\w+)", "hello NAME: greets", lambda name: f"hello, {name}")

A callback that has much to do is a generator: it yields every millisecond or so, and returns its
text. There is one such report at a time.

The answer is also in the file `fastway.answer`, whole, mode 0600: `ID PID`, then the rows; the
first begins with `error: ` if the command failed. ID is what the command line began with, as in
`#a1B2 status`, or `-`.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from fastway.errors import CommandError, ConfigError
from fastway.logs import escaped
from fastway.ops.jobs import Jobs
from fastway.ops.limits import words
from fastway.ops.profiles import Profiles
from fastway.ops.rundir import CommandFile, RunDir
from fastway.ops.snapshot import Slices, Source, in_slices
from fastway.ops.status import link_row, status_rows
from fastway.ops.verbs import Gateway, Verbs

if TYPE_CHECKING:
    from fastway.gateway import RouterService

answers = Logger(__name__)
"""What an operator asked for is logged whatever the level."""

LOOKS = 10
"""Looks at a command file that somebody is writing."""

PAUSE = 0.02
"""Seconds between them."""

_TAGGED = re.compile(r"#([A-Za-z0-9]{1,32}) +(.*)", re.DOTALL)

Callback = Callable[..., "str | Slices[str] | None"]


@dataclass(slots=True)
class Job:
    """A command that is being carried out.

    Attributes:
        tag: What its answer begins with.
        line: The command.
    """

    tag: str
    line: str


class Commands:
    """The registry, and the obeying of the command file.

    Args:
        service: The running gateway's router service.
        reactor: The timer, and what `lookup goroutine` and `lookup block` look at.
        run_dir: Where answers and reports are written, mode 0600.
        command_file: What `obey` reads.
    """

    def __init__(
        self,
        service: RouterService,
        reactor: Any,
        run_dir: str = ".",
        command_file: str = "",
    ) -> None:
        self.service = service
        self.reactor = reactor
        self.files = RunDir(run_dir)
        self.source = Source(service, self.files.resident_memory)
        self.profiles = Profiles(reactor, self.files, self.source)
        self.verbs = Verbs(service, self.source, self.profiles)
        self.jobs = Jobs(reactor, service.flush)
        """What takes long, of whoever asked."""
        self._file = CommandFile(self.files, command_file)
        self._looks = 0
        self._looking: IDelayedCall | None = None
        self._job: Job | None = None
        self._table: list[tuple[re.Pattern[str], str, Callback]] = []
        for pattern, description, callback in (
            (r"help", "help: lists the commands", self.help),
            (
                r"status",
                "status: version, uptime, links, virtual connections, counters",
                self.status,
            ),
            (r"links", "links: every link, into fastway.links.txt", self.links),
            (
                r"kick (client|server) (\d{1,10})",
                "kick client|server ID: loses that link",
                lambda side, link_id: self.verbs.kick(side, int(link_id)),
            ),
            (
                r"limits(?: +(.*))?",
                "limits [NAME=VALUE ...]: changes limits until the next start, and shows them",
                self.limits,
            ),
            (
                r"loglevel (\w+)",
                "loglevel debug|info|warn|error|critical: the least level logged",
                self.verbs.loglevel,
            ),
        ):
            self.register(pattern, description, callback)
        self.profiles.register(self.register)

    def register(self, pattern: str, description: str, callback: Callback) -> None:
        """Add a command; of several patterns that match a line the first registered wins.

        Raises:
            re.error: the pattern is no regular expression.
        """
        self._table.append((re.compile(pattern), description, callback))

    def serve(self, gateway: Gateway) -> None:
        """Add the commands that are for a gateway as a whole."""
        verbs = self.verbs
        verbs.gateway = gateway
        self.register(
            r"drain( again)?",
            "drain [again]: empties the gateway, then stops it; again: a successor listens there",
            lambda again: verbs.drain(bool(again)),
        )
        self.register(
            r"undrain", "undrain: takes that back, while the ports are open", verbs.undrain
        )
        self.register(r"reload", "reload: does what SIGHUP does", verbs.reload)

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
        """Keep descriptors for the operator."""
        self.files.start()

    def stop(self) -> None:
        """End what was begun: a report, the watches, a profile, memory tracing."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._job = None
        self.jobs.stop()
        self.profiles.stop()
        self.files.stop()
        self.files.remove("answer")

    # The command file.

    def obey(self) -> None:
        """Run what is in the command file, once that is whole; never raises."""
        if self._looking is None:
            self._file.forget()
            self._looks = 0
            self._look()

    def _look(self) -> None:
        self._looking = None
        self._looks += 1
        try:
            line = self._file.look(last=self._looks == LOOKS)
        except CommandError as error:
            answers.error("no command run: {problem}", problem=str(error), always=True)
            self._write("-", f"error: no command run: {error}")
            return
        if line is None:
            self._looking = self.reactor.callLater(PAUSE, self._look)
        else:
            self.run(line)

    # The running of a command.

    def run(self, line: str) -> None:
        """Run one command line; its answer, or what is wrong with it, goes to log and file."""
        tag, line = "-", line.strip()
        tagged = _TAGGED.fullmatch(line)
        if tagged is not None:
            tag, line = tagged[1], tagged[2].strip()
        found = self._find(line)
        if found is None:
            problem = f"unknown command {line[:200]!r}; help lists them"
            answers.error("{problem}", problem=problem, command=line[:200], always=True)
            self._write(tag, f"error: {problem}")
            return
        try:
            callback, groups = found
            answer = callback(*groups)
            self.service.flush()
            if isinstance(answer, Generator):
                self._begin(tag, line, answer)
                return
        except (Exception, SystemExit) as error:
            self._failed(tag, line, error)
        else:
            self._answered(tag, line, answer)

    def _find(self, line: str) -> tuple[Callback, tuple[str | Any, ...]] | None:
        for pattern, _, callback in self._table:
            match = pattern.fullmatch(line)
            if match is not None:
                return callback, match.groups()
        return None

    def _begin(self, tag: str, line: str, work: Slices[str]) -> None:
        if self._job is not None:
            work.close()
            raise CommandError(f"{self._job.line!r} is still being answered; ask again after it")
        job = self._job = Job(tag, line)
        self.jobs.begin(work).addCallbacks(
            self._ended, self._broke, callbackArgs=(job,), errbackArgs=(job,)
        )

    def _ended(self, text: str, job: Job) -> None:
        self._job = None
        self._answered(job.tag, job.line, text)

    def _broke(self, failure: Failure, job: Job) -> None:
        if not failure.check(CancelledError):  # else all is stopped
            self._job = None
            self._failed(job.tag, job.line, cast(BaseException, failure.value))

    def _answered(self, tag: str, line: str, answer: object) -> None:
        text = "done" if answer is None else str(answer)
        for row in text.splitlines():
            answers.info("{command}: {row}", command=line, row=row, always=True)
        self._write(tag, text)

    def _failed(self, tag: str, line: str, error: BaseException) -> None:
        problem = _problem(error)
        answers.error(
            "command {command!r} failed: {problem}", command=line, problem=problem, always=True
        )
        self._write(tag, f"error: {problem}")

    def _write(self, tag: str, text: str) -> None:
        rows = [f"{tag} {os.getpid()}", *map(escaped, text.splitlines())]
        try:
            self.files.write("answer", "".join(f"{row}\n" for row in rows))
        except CommandError as error:
            answers.error("{problem}", problem=str(error), always=True)

    # The commands; those of `profiles` come on top.

    def help(self) -> str:
        return "\n".join(description for _, description, _ in self._table)

    def status(self) -> Slices[str]:
        shot = yield from self.source.snapshot()
        return "\n".join(status_rows(shot))

    def links(self) -> Slices[str]:
        written = 0
        with self.files.report("links.txt") as report:
            links = yield from self.source.links()
            for pause, link in in_slices(links):
                row = self.source.row(link)
                if row is not None:
                    report.write(f"{link_row(row)}\n")
                    written += 1
                if pause:
                    yield
        return f"{written} links written to {report.path}"

    def limits(self, text: str | None = None) -> str:
        return self.verbs.limits(words(text or ""))


def _problem(error: BaseException) -> str:
    """An error's text in one line, and its name where the text alone says little."""
    if isinstance(error, CommandError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split())

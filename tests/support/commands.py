"""Commands of a gateway on fake transports, and what they answer.

Rule: time is a clock's; what a report does over several turns is done when `answered` returns.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from fastway import logs
from fastway.ops import commands as module
from fastway.ops.commands import Commands
from tests.support.ends import Harness
from tests.support.files import scratch
from tests.support.logs import LogLines


class StillReactor(MemoryReactorClock):
    """A reactor that turns when it is told to."""

    def callFromThread(self, call: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        call(*args, **kwargs)

    def turn(self) -> None:
        """One turn: what is due now, and nothing that this brings."""
        for call in [call for call in self.calls if call.getTime() <= self.seconds()]:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


class CommandsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(logs.threshold, "level", LogLevel.info)
        self.directory = scratch(self)
        self.harness = Harness()
        self.path = os.path.join(self.directory, "fastway.cmd")
        self.reactor = StillReactor()
        self.commands = Commands(self.harness.service, self.reactor, self.directory, self.path)
        self.addCleanup(self.commands.stop)

    def answered(self) -> None:
        """The reactor turns until nothing more is to be done at once."""
        while any(call.getTime() <= self.reactor.seconds() for call in self.reactor.calls):
            self.reactor.advance(0)

    def events(self, line: str) -> list[LogEvent]:
        """The events of one command; no command raises."""
        with LogLines() as log:
            self.commands.run(line)
            self.answered()
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

    def answer_file(self) -> list[str]:
        """The lines of fastway.answer."""
        path = os.path.join(self.directory, "fastway.answer")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        self.assertTrue(text.endswith("\n"))
        return text.splitlines()

    def report(self, name: str) -> str:
        """A report that was just written, mode 0600, with nothing temporary beside it."""
        path = os.path.join(self.directory, f"fastway.{name}")
        found = sorted(
            entry for entry in os.listdir(self.directory) if entry.startswith("fastway.")
        )
        self.assertEqual(found, sorted(["fastway.answer", f"fastway.{name}"]))
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        os.unlink(path)
        return text

"""What a log line looks like, which events become one, and where it goes."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from typing import Any, cast

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEventAsClassicLogText,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fastway import logs
from fastway.errors import ConfigError
from tests.support.errors import raised
from tests.support.files import scratch


class LogTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(logs.threshold, "level", LogLevel.info)
        self.log = logs.make_logger("fastway.test")

    def watch(self) -> list[LogEvent]:
        """Every event of this module's loggers from now on, before any observer's choice."""
        events: list[LogEvent] = []

        def observer(event: LogEvent) -> None:
            if event.get("log_namespace") == "fastway.test":
                events.append(event)

        globalLogPublisher.addObserver(cast(ILogObserver, observer))
        self.addCleanup(globalLogPublisher.removeObserver, cast(ILogObserver, observer))
        return events

    def write_to(self, kind: str) -> io.StringIO:
        """What an observer of `kind` writes from now on."""
        stream = io.StringIO()
        observer = logs.make_observer(stream, kind)
        logs.add(observer)
        self.addCleanup(logs.remove, observer)
        return stream


class LineTests(LogTestCase):
    def test_text(self) -> None:
        """A text line has the time, the module, the level and the text."""
        stream = self.write_to("text")
        self.log.info("client {id} connected", id=7)
        self.assertRegex(
            stream.getvalue(),
            r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[fastway.test#info\] "
            r"client 7 connected\n\Z",
        )

    def test_json(self) -> None:
        """A JSON line is one object: time, level, source, text, and the event's plain fields."""
        stream = self.write_to("json")
        self.log.warn(
            "{side} {id} lost: {why}", side="client", id=7, why="a\nb", seconds=1.5, known=True
        )
        (line,) = stream.getvalue().splitlines()
        found = json.loads(line)
        self.assertRegex(found.pop("time"), r"\A\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}\+00:00\Z")
        # Observers of the old kind, as trial's, leave fields of theirs in the event.
        self.assertEqual(
            {name: found[name] for name in found if name not in ("system", "format", "isError")},
            {
                "level": "warn",
                "source": "fastway.test",
                "text": "client 7 lost: a\nb",
                "side": "client",
                "id": 7,
                "why": "a\nb",
                "seconds": 1.5,
                "known": True,
            },
        )

    def test_json_own_names(self) -> None:
        """An event's field never replaces time, level, source or text."""
        event: LogEvent = {
            "log_time": 0.0,
            "log_level": LogLevel.info,
            "log_namespace": "fastway.test",
            "log_format": "hello",
            "level": 9000,
            "time": "never",
            "text": "other",
            "source": "me",
        }
        self.assertEqual(
            json.loads(logs.json_line(event)),
            {
                "time": "1970-01-01T00:00:00.000+00:00",
                "level": "info",
                "source": "fastway.test",
                "text": "hello",
            },
        )

    def test_json_leaves_objects_out(self) -> None:
        """What is no plain value is in the text only."""
        stream = self.write_to("json")
        self.log.info("{thing}", thing=[1, 2])
        found = json.loads(stream.getvalue())
        self.assertEqual(found["text"], "[1, 2]")
        self.assertNotIn("thing", found)

    def test_json_failure(self) -> None:
        """A failure's traceback is a field of its one line."""
        stream = self.write_to("json")
        try:
            raise ValueError("broken")
        except ValueError:
            self.log.failure("it broke", failure=Failure())
        (line,) = stream.getvalue().splitlines()
        found = json.loads(line)
        self.assertEqual(found["level"], "critical")
        self.assertIn("ValueError: broken", found["traceback"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_any_text_can_be_written(self) -> None:
        """A text that is no UTF-8 on the outside costs no line in a log file."""
        path = os.path.join(scratch(self), "a.log")
        file = logs.open_logfile(path)
        self.addCleanup(file.close)
        for kind in ("text", "json"):
            observer = logs.make_observer(file, kind)
            observer(
                {
                    "log_time": 0.0,
                    "log_level": LogLevel.info,
                    "log_namespace": "fastway.test",
                    "log_format": "{name} here",
                    "name": "grüße 你 \udcff",
                }
            )
        with open(path, "rb") as written:
            lines = written.read().splitlines()
        self.assertEqual(len(lines), 2)
        for line in lines:
            self.assertIn("grüße 你".encode(), line)

    def test_console(self) -> None:
        """The console is standard error."""
        stream = io.StringIO()
        self.patch(sys, "stderr", stream)
        observer = logs.console("text")
        observer({"log_time": 0.0, "log_level": LogLevel.info, "log_format": "hello"})
        self.assertIn("hello\n", stream.getvalue())


class TextLineTests(SynchronousTestCase):
    def test_as_twisted(self) -> None:
        """Each line is what Twisted's formatter makes of the event, byte for byte."""
        line = logs.TextLine()
        common: LogEvent = {"log_namespace": "fastway.x", "log_level": LogLevel.info}
        rows: list[tuple[str | None, dict[str, Any]]] = [
            ("plain", {}),
            (
                "{side} {id} {addr} lost (after {seconds:.1f} s; {n!r})",
                {
                    "side": "client",
                    "id": 7,
                    "addr": "[::1]:9",
                    "seconds": 1.25,
                    "n": "x",
                },
            ),
            ("two\nlines {a}", {"a": "and\nmore"}),
            ("{a.real} of {b[k]}", {"a": 5, "b": {"k": "v"}}),
            ("{call()}", {"call": lambda: "called"}),
            ("{missing}", {}),
            ("{broken", {}),
            ("legacy", {"log_system": "-"}),
            ("failed", {"log_failure": Failure(ValueError("x"))}),
            (None, {}),
            ("", {}),
            ("umlaut \u00e4 {{}}", {}),
        ]
        for number, (form, fields) in enumerate(rows):
            for when in (1_700_000_000.5 + number, 1_700_000_000.9 + number):
                event = {**common, **fields, "log_format": form, "log_time": when}
                self.assertEqual(line(dict(event)), formatEventAsClassicLogText(dict(event)), form)

    def test_foreign_events(self) -> None:
        """Events without a level or a time are Twisted's to format."""
        for event in ({"log_format": "x"}, {"log_text": "x"}, {}):
            wanted = formatEventAsClassicLogText(cast(LogEvent, dict(event)))
            self.assertEqual(logs.TextLine()(cast(LogEvent, dict(event))), wanted)


class ThresholdTests(LogTestCase):
    LEVELS = ("debug", "info", "warn", "error", "critical")

    def test_every_level(self) -> None:
        """At each level it and what is above is emitted, and what is below is not."""
        events = self.watch()
        for least, level in enumerate(self.LEVELS):
            logs.threshold.set(level)
            for name in self.LEVELS:
                getattr(self.log, name)(name)
            self.assertEqual([e["log_format"] for e in events], list(self.LEVELS[least:]))
            events.clear()

    def test_dropped_before_emission(self) -> None:
        """What is below the level reaches no observer at all."""
        events = self.watch()
        logs.threshold.set("warn")
        self.log.info("not seen")
        self.assertEqual(events, [])

    def test_unknown_level(self) -> None:
        """A level that is none changes nothing."""
        raised(ValueError, logs.threshold.set, "loud")
        self.assertIs(logs.threshold.level, LogLevel.info)

    def test_observer(self) -> None:
        """Events of other modules, Twisted's too, are held to the level as well."""
        logs.threshold.set("warn")
        stream = self.write_to("text")
        other: Logger = Logger("fastway.test")
        other.info("not seen")
        other.warn("seen")
        self.assertEqual(len(stream.getvalue().splitlines()), 1)
        self.assertIn("[fastway.test#warn] seen", stream.getvalue())

    def test_always(self) -> None:
        """An event marked `always` is written whatever the level."""
        logs.threshold.set("critical")
        stream = self.write_to("text")
        other: Logger = Logger("fastway.test")
        other.info("an answer", always=True)
        self.assertIn("an answer", stream.getvalue())

    def test_no_level(self) -> None:
        """An event without a level counts as info."""
        stream = io.StringIO()
        observer = logs.make_observer(stream, "text")
        observer({"log_time": 0.0, "log_format": "old style"})
        self.assertIn("old style", stream.getvalue())
        logs.threshold.set("warn")
        observer({"log_time": 0.0, "log_format": "dropped"})
        self.assertNotIn("dropped", stream.getvalue())


class LogFileTests(LogTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(scratch(self), "fastway.log")

    def read(self, path: str) -> str:
        with open(path, encoding="utf-8") as file:
            return file.read()

    def event(self, text: str) -> dict[str, Any]:
        return {"log_time": 0.0, "log_level": LogLevel.info, "log_format": text}

    def test_append(self) -> None:
        """What is in the file stays, what is logged comes behind it at once."""
        with open(self.path, "w", encoding="utf-8") as old:
            old.write("old\n")
        file = logs.open_logfile(self.path)
        self.addCleanup(file.close)
        logs.make_observer(file, "text")(self.event("new"))
        self.assertRegex(self.read(self.path), r"\Aold\n.* new\n\Z")

    def test_mode(self) -> None:
        """A new file is for its owner and group only."""
        self.addCleanup(os.umask, os.umask(0))
        logs.open_logfile(self.path).close()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_reopen(self) -> None:
        """After a rename and reopen, old lines are in the old file and new ones in a new one."""
        file = logs.open_logfile(self.path)
        self.addCleanup(file.close)
        observer = logs.make_observer(file, "text")
        observer(self.event("one"))
        os.rename(self.path, f"{self.path}.1")
        observer(self.event("two"))
        file.reopen()
        observer(self.event("three"))
        self.assertRegex(self.read(f"{self.path}.1"), r" one\n.* two\n\Z")
        self.assertRegex(self.read(self.path), r"\A\S+ \S+ three\n\Z")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_mode_of_a_device(self) -> None:
        """What is no file, such as /dev/null, keeps its mode."""
        mode = stat.S_IMODE(os.stat(os.devnull).st_mode)
        modes = {mode}
        self.patch(os, "chmod", lambda _, changed: modes.add(changed))
        logs.open_logfile(os.devnull).close()
        self.assertEqual(modes, {mode})

    def test_never_rotates(self) -> None:
        """Rotation is logrotate's: no size makes it rename the file."""
        file = logs.open_logfile(self.path)
        self.addCleanup(file.close)
        for _ in range(3):
            file.write("x" * 1_000_000)
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["fastway.log"])

    def test_cannot_open(self) -> None:
        """A file that cannot be written is one line with the option, the path and the reason."""
        directory = os.path.dirname(self.path)
        for path in (directory, os.path.join(directory, "missing", "fastway.log")):
            error = raised(ConfigError, logs.open_logfile, path)
            self.assertEqual(error.option, "--logfile")
            self.assertIn(f"cannot write {path}: ", error.problem)
            self.assertNotIn("\n", str(error))

    def test_fifo(self) -> None:
        """A pipe, as /dev/stdout may be, works or is refused with a reason."""
        os.mkfifo(self.path)
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        try:
            file = logs.open_logfile(self.path)
        except ConfigError as error:
            self.assertNotIn("None", error.problem)
        else:
            file.close()

"""How log lines look, and where they go: text and JSON, a file, a pipe that is stuck, twistd."""

from __future__ import annotations

import ast
import errno
import io
import json
import os
import re
import select
import stat
import sys
import threading
import time
from collections import Counter
from typing import Any, cast
from unittest import mock

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    Logger,
    LogLevel,
    formatEventAsClassicLogText,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import ConfigError
from fastway.logs import make_logger, threshold
from fastway.ops import logs
from fastway.ops.lines import TEXT_ONLY, TextLine, json_line
from fastway.ops.logs import BOUND, DescriptorSink, LineWriter, LogFileOutput, LogOutput
from tests.support.errors import raised
from tests.support.files import CHECKOUT, scratch

PATIENCE = 60.0


class MemorySink:
    """Takes everything at once.

    Attributes:
        fault: An error number that writing fails with, until it is 0.
        tries: How often it was written to.
    """

    def __init__(self) -> None:
        self.data = b""
        self.fault = 0
        self.tries = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self.tries += 1
        if self.fault:
            raise OSError(self.fault, os.strerror(self.fault))
        part = data[:1000]  # as a pipe or a disk may
        self.data += part
        return len(part)

    def close(self) -> None:
        self.closed = True


class Written:
    """What an output writes to memory."""

    def __init__(self, kind: str) -> None:
        self.sink = MemorySink()
        self.output = LogOutput(self.sink, kind)

    def getvalue(self) -> str:
        assert self.output.writer.flush(PATIENCE)
        return self.sink.data.decode()


class LogTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(threshold, "level", LogLevel.info)
        self.patch(logs, "_dropped_before", Counter())
        self.log = make_logger("fastway.test")

    def write_to(self, kind: str) -> Written:
        """What an output of `kind` writes from now on."""
        written = Written(kind)
        logs.add(written.output)
        self.addCleanup(written.output.close)
        self.addCleanup(logs.remove, written.output)
        return written

    def wait_for(self, what: str, condition: Any) -> None:
        """Threads have no events of ours: look every few milliseconds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {PATIENCE} s: {what}")
            time.sleep(0.005)


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
        """A JSON line is one object: time, level, system, text, and the event's plain fields."""
        stream = self.write_to("json")
        self.log.warn(
            "{side} {id} lost: {cause}", side="client", id=7, cause="a\nb", seconds=1.5, known=True
        )
        (line,) = stream.getvalue().splitlines()
        found = json.loads(line)
        self.assertRegex(found.pop("time"), r"\A\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}\+00:00\Z")
        self.assertEqual(
            found,
            {
                "level": "warn",
                "system": "fastway.test",
                "text": "client 7 lost: a\nb",
                "side": "client",
                "id": 7,
                "cause": "a\nb",
                "seconds": 1.5,
                "known": True,
            },
        )

    def test_json_own_names(self) -> None:
        """An event's field never replaces time, level, system or text."""
        event: LogEvent = {
            "log_time": 0.0,
            "log_level": LogLevel.info,
            "log_namespace": "fastway.test",
            "log_format": "hello",
            "level": 9000,
            "time": "never",
            "text": "other",
            "system": "me",
        }
        self.assertEqual(
            json.loads(json_line(event)),
            {
                "time": "1970-01-01T00:00:00.000+00:00",
                "level": "info",
                "system": "fastway.test",
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
        event: LogEvent = {"log_format": "a fault of {culprit}, {item!r}", "culprit": self}
        text = json.loads(json_line({**event, "item": object()}))["text"]
        self.assertEqual(text, "a fault of tests.test_ops_logs.LineTests, 'builtins.object'")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_json_without_internals(self) -> None:
        """What old observers leave in an event, and what only makes up the text, is left out."""
        stream = self.write_to("json")

        class Old:
            def __call__(self, event: dict[str, Any]) -> None:
                """An observer of the old kind."""

        old = LegacyLogObserverWrapper(cast(Any, Old()))
        globalLogPublisher.addObserver(cast(ILogObserver, old))
        self.addCleanup(globalLogPublisher.removeObserver, cast(ILogObserver, old))
        globalLogPublisher.removeObserver(stream.output)
        logs.add(stream.output)  # behind the old one
        self.log.warn(
            "lost{colon}{detail}{with_snet}",
            colon=": ",
            detail="x",
            with_snet=", with snet",
            always=True,
            item="thing",
        )
        self.log.error("bad")
        first, second = map(json.loads, stream.getvalue().splitlines())
        self.assertEqual(set(first), {"time", "level", "system", "text", "detail"})
        self.assertEqual(first["text"], "lost: x, with snet")
        self.assertEqual(set(second), {"time", "level", "system", "text"})

    def test_json_control_characters(self) -> None:
        """A line of JSON has no character that moves a cursor, and loses none."""
        stream = self.write_to("json")
        odd = "a\n\x1b[2J\x7f\x9b\u2028\u202e\udcff gr\u00fc\u00dfe"
        self.log.info("{name}", name=odd)
        text = stream.getvalue()
        self.assertTrue(text[:-1].isprintable())
        self.assertEqual(json.loads(text)["name"], odd)
        self.assertIn("gr\u00fc\u00dfe", text)

    def test_any_text_can_be_written(self) -> None:
        """A text that is no UTF-8 on the outside costs no line."""
        for kind in ("text", "json"):
            stream = self.write_to(kind)
            self.log.info("{name} here", name="gr\u00fc\u00dfe \u4f60 \udcff")
            (line,) = stream.getvalue().splitlines()
            self.assertIn("gr\u00fc\u00dfe \u4f60", line)

    def test_console(self) -> None:
        """The console is standard error."""
        stream = io.StringIO()
        self.patch(sys, "stderr", stream)
        output = logs.console("text")
        output({"log_time": 0.0, "log_level": LogLevel.info, "log_format": "hello"})
        self.assertTrue(output.close())
        self.assertIn("hello\n", stream.getvalue())


class TextLineTests(SynchronousTestCase):
    def test_as_twisted(self) -> None:
        """Each line is what Twisted's formatter makes of the event, byte for byte."""
        line = TextLine()
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
            ("two\nlines {a}", {"a": "and more"}),
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
            self.assertEqual(TextLine()(cast(LogEvent, dict(event))), wanted)

    def test_control_characters(self) -> None:
        """Whatever a field holds, the line is one, and moves no cursor."""
        common: LogEvent = {
            "log_namespace": "fastway.x",
            "log_level": LogLevel.info,
            "log_time": 0.0,
        }
        odd = "a\nb\r\x1b[31m\x9b2J\u2028\u202e\x00"
        escaped = r"a\nb\r\x1b[31m\x9b2J\u2028\u202e\x00"

        class Thing:
            name = odd

            def __str__(self) -> str:
                return odd

        for form in ("{a} end", "{b.name} end", "{b} end", "{c[0]} end", "{a!s:.99} end"):
            line = TextLine()({**common, "log_format": form, "a": odd, "b": Thing(), "c": [odd]})
            assert line is not None
            self.assertTrue(line.endswith(f"] {escaped} end\n"), line)

    def test_control_characters_of_others(self) -> None:
        """Events that Twisted formats, tracebacks too, keep their lines and nothing else."""
        for event in (
            {"log_format": "{log_text}", "log_text": "a\x1b[2J\rb", "log_system": "x\x9b"},
            {"log_format": "it broke", "log_failure": Failure(ValueError("a\x1b[2J\u2028b"))},
        ):
            line = TextLine()(cast(LogEvent, {**event, "log_time": 0.0}))
            assert line is not None
            self.assertTrue(line.replace("\n", "").replace("\t", "").isprintable(), line)
            self.assertIn(r"\x1b[2J", line)
            self.assertTrue(all(row.startswith("\t") for row in line.splitlines()[1:]))


class FieldTests(SynchronousTestCase):
    """Every field that fastway gives a line is in the table of docs/logs.md, or no field."""

    def test_documented(self) -> None:
        with open(os.path.join(CHECKOUT, "docs", "logs.md"), encoding="utf-8") as file:
            text = file.read()
        table = text.partition("| field | in | meaning |")[2].partition("\n\n")[0]
        documented = set(re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\| ([^|]*) \|", table))))
        self.assertIn("reason_code", documented)
        used: dict[str, str] = {}
        for directory, _, names in os.walk(os.path.join(CHECKOUT, "fastway")):
            if os.path.basename(directory) in ("app", "cli", "cluster", "dialect", "endpoint"):
                continue  # not in the gateway's process
            for name in names:
                if name.endswith(".py") and name != "demo.py":
                    path = os.path.join(directory, name)
                    used.update(dict.fromkeys(self.fields(path), path))
        self.assertGreater(len(used), 15)
        missing = set(used) - documented - TEXT_ONLY
        self.assertEqual({name: used[name] for name in missing}, {})
        self.assertEqual(documented & TEXT_ONLY, set())

    def fields(self, path: str) -> set[str]:
        """The names of the fields of all log calls of a module."""
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        found = set()
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            logger = node.func.value
            name = logger.id if isinstance(logger, ast.Name) else getattr(logger, "attr", "")
            levels = ("debug", "info", "warn", "error", "critical", "failure", "emit")
            if name in ("log", "answers", "quiet") and node.func.attr in levels:
                found |= {word.arg for word in node.keywords if word.arg}
        return found


class LevelTests(LogTestCase):
    def test_observer(self) -> None:
        """Events of other modules, Twisted's too, are held to the level as well."""
        threshold.set("warn")
        stream = self.write_to("text")
        other: Logger = Logger("fastway.test")
        other.info("not seen")
        other.warn("seen")
        self.assertEqual(len(stream.getvalue().splitlines()), 1)
        self.assertIn("[fastway.test#warn] seen", stream.getvalue())

    def test_always(self) -> None:
        """An event marked `always` is written whatever the level."""
        threshold.set("critical")
        stream = self.write_to("text")
        other: Logger = Logger("fastway.test")
        other.info("an answer", always=True)
        self.assertIn("an answer", stream.getvalue())

    def test_no_level(self) -> None:
        """An event without a level counts as info."""
        written = self.write_to("text")
        written.output({"log_time": 0.0, "log_format": "old style"})
        threshold.set("warn")
        written.output({"log_time": 0.0, "log_format": "dropped"})
        self.assertIn("old style", written.getvalue())
        self.assertNotIn("dropped", written.getvalue())


class WriterTests(LogTestCase):
    def make(self, sink: Any) -> LineWriter:
        writer = LineWriter(sink, lambda count, fault: f"<{count} dropped: {fault}>\n")
        self.addCleanup(writer.close, 0.1)
        return writer

    def test_order(self) -> None:
        """Lines are written whole, in order, whatever pieces the sink takes."""
        sink = MemorySink()
        writer = self.make(sink)
        lines = [f"line {number}\n" for number in range(5000)]
        for line in lines:
            writer.write(line)
        self.assertTrue(writer.flush(PATIENCE))
        self.assertEqual(sink.data.decode(), "".join(lines))
        self.assertEqual(writer.dropped, 0)

    def test_idle(self) -> None:
        """There is no thread before the first line, and none that wakes after the last."""
        before = threading.active_count()
        sink = MemorySink()
        writer = self.make(sink)
        self.assertEqual(threading.active_count(), before)
        writer.write("one\n")
        self.assertTrue(writer.flush(PATIENCE))
        tries = sink.tries
        time.sleep(0.05)
        self.assertEqual(sink.tries, tries)

    def test_stuck_reader(self) -> None:
        """A pipe that nobody reads costs nobody time; what it cannot hold is dropped, and told."""
        reader, writing = os.pipe()
        self.addCleanup(os.close, reader)
        writer = self.make(DescriptorSink(writing, owned=True))
        line = "x" * 999 + "\n"
        began = time.monotonic()
        for _ in range(3000):
            writer.write(line)
        self.assertLess(time.monotonic() - began, PATIENCE)
        self.assertTrue(os.get_blocking(writing))
        dropped = writer.dropped
        self.assertGreater(dropped, 1500)
        self.assertFalse(writer.flush(0.01))
        text = self.read(reader, lambda text: "dropped" in text)
        self.assertTrue(text.endswith(f"<{dropped} dropped: >\n"), text[-100:])
        self.assertEqual(text.count(line), 3000 - dropped)
        self.assertLessEqual(text.count(line) * 1000, BOUND + 2 * 65536 + 1000)
        writer.write("it goes on\n")
        self.assertTrue(self.read(reader, lambda text: "goes on" in text))

    def read(self, reader: int, enough: Any) -> str:
        text = ""
        deadline = time.monotonic() + PATIENCE
        while not enough(text) and time.monotonic() < deadline:
            if select.select([reader], [], [], 0.1)[0]:
                text += os.read(reader, 65536).decode()
        return text

    def test_slow_reader(self) -> None:
        """Lines are dropped and told of in long runs, not every other one."""
        sink = MemorySink()
        writer = self.make(sink)
        self.patch(logs, "BOUND", 100)
        with writer._lock:  # the thread does not get on
            for _ in range(9):
                writer.write("123456789012345\n")
            self.assertEqual(writer.dropped, 3)
        self.assertTrue(writer.flush(PATIENCE))
        self.assertEqual(sink.data.count(b"dropped"), 1)

    def test_full_disk(self) -> None:
        """While the disk is full nothing raises or spins; then all is written, and it is told."""
        for number in (errno.ENOSPC, errno.EIO):
            self.patch(logs, "RETRY", 0.05)
            sink = MemorySink()
            sink.fault = number
            writer = self.make(sink)
            for _ in range(3):
                writer.write("kept\n")
            for _ in range(BOUND // 1000 + 10):
                writer.write("y" * 999 + "\n")
            self.wait_for("some attempts", lambda: sink.tries >= 3)  # noqa: B023
            self.assertLess(sink.tries, 100)
            sink.fault = 0
            self.assertTrue(writer.flush(PATIENCE))
            text = sink.data.decode()
            self.assertTrue(text.startswith("kept\n" * 3))
            last = f"<{writer.dropped} dropped: {os.strerror(number)}>\n"
            self.assertTrue(text.endswith(last), text[-100:])

    def test_bug_in_the_sink(self) -> None:
        """A stream that fails in another way ends neither the thread nor the log."""
        self.patch(logs, "RETRY", 0.01)
        stream = io.StringIO()
        stream.close()
        sink = logs.StreamSink(stream)
        writer = self.make(sink)
        writer.write("kept\n")
        self.assertFalse(writer.flush(0.05))
        sink.stream = opened = io.StringIO()
        self.assertTrue(writer.flush(PATIENCE))
        self.assertEqual(opened.getvalue(), "kept\n")

    def test_close(self) -> None:
        """close writes what waits, closes, and takes nothing more."""
        sink = MemorySink()
        writer = self.make(sink)
        writer.write("last\n")
        self.assertTrue(writer.close())
        self.assertEqual((sink.data, sink.closed), (b"last\n", True))
        writer.write("too late\n")
        self.assertTrue(writer.close())
        self.assertEqual(sink.data, b"last\n")
        unused = MemorySink()
        self.assertTrue(self.make(unused).close())
        self.assertTrue(unused.closed)

    def test_close_when_stuck(self) -> None:
        """close waits for a reader for the time given, and says that not all was written."""
        reader, writing = os.pipe()
        writer = self.make(DescriptorSink(writing, owned=True))
        writer.write("x" * 200_000)
        thread: Any = writer._thread
        with mock.patch.object(thread, "join", wraps=thread.join) as join:
            self.assertFalse(writer.close(0.1))
        join.assert_called_once_with(0.1)
        os.close(reader)  # the thread gets EPIPE, and ends

    def test_close_on_a_full_disk(self) -> None:
        """close does not wait for a disk that is full."""
        sink = MemorySink()
        sink.fault = errno.ENOSPC
        writer = self.make(sink)
        writer.write("lost\n")
        before = logs.dropped()
        self.assertFalse(writer.close())
        self.wait_for("the sink to be closed", lambda: sink.closed)
        self.wait_for("the line to count as dropped", lambda: logs.dropped() == before + 1)

    def test_no_thread_to_be_had(self) -> None:
        """When no thread can be made lines wait, and a later one is written with them."""
        sink = MemorySink()
        writer = self.make(sink)

        def refuse(_: object) -> None:
            raise RuntimeError("can't start new thread")

        with_threads = threading.Thread.start
        self.patch(threading.Thread, "start", refuse)
        writer.write("one\n")
        self.assertFalse(writer.flush(0.01))
        self.patch(threading.Thread, "start", with_threads)
        writer.write("two\n")
        self.assertTrue(writer.flush(PATIENCE))
        self.assertEqual(sink.data, b"one\ntwo\n")

    def test_while_writing(self) -> None:
        """A line from a signal's handler, in the middle of another, is taken too."""
        sink = MemorySink()
        writer = self.make(sink)
        with writer._lock:
            writer.write("inner\n")
        self.assertTrue(writer.flush(PATIENCE))
        self.assertEqual(sink.data, b"inner\n")

    def test_fork(self) -> None:
        """A forked child writes its own lines and none of its parent's."""
        reader, writing = os.pipe()
        self.addCleanup(os.close, reader)
        writer = self.make(DescriptorSink(writing, owned=True))
        writer.write("parent\n")
        self.assertTrue(writer.flush(PATIENCE))
        child = os.fork()
        if child == 0:
            writer.write("child\n")
            os._exit(0 if writer.flush(PATIENCE) else 1)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertEqual(os.read(reader, 100), b"parent\nchild\n")

    def test_total(self) -> None:
        """`dropped` counts for all logs, also those that are closed."""
        before = logs.dropped()
        written = Written("text")
        written.output.writer.dropped += 3
        self.assertEqual(logs.dropped(), before + 3)
        written.output.close()
        written.output.close()
        self.assertEqual(logs.dropped(), before + 3)

    def test_notice(self) -> None:
        """The line that tells of dropped ones is of the log's kind."""
        for kind in ("text", "json"):
            written = Written(kind)
            self.addCleanup(written.output.close)
            written.output.writer._untold = 7
            written.output({"log_time": 0.0, "log_format": "on"})
            first = written.getvalue().splitlines()[0]
            if kind == "json":
                self.assertEqual(json.loads(first)["dropped"], 7)
                first = json.loads(first)["text"]
            self.assertTrue(
                first.endswith("7 lines of this log were dropped: its reader does not keep up")
            )


class LogFileTests(LogTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(scratch(self), "fastway.log")

    def open(self, path: str = "", kind: str = "text") -> LogFileOutput:
        output = LogFileOutput(path or self.path, kind)
        self.addCleanup(output.close)
        return output

    def read(self, path: str) -> str:
        with open(path, encoding="utf-8") as file:
            return file.read()

    def event(self, text: str) -> LogEvent:
        return {"log_time": 0.0, "log_level": LogLevel.info, "log_format": text}

    def test_append(self) -> None:
        """What is in the file stays, what is logged comes behind it."""
        with open(self.path, "w", encoding="utf-8") as old:
            old.write("old\n")
        output = self.open()
        output(self.event("new"))
        output.close()
        self.assertRegex(self.read(self.path), r"\Aold\n.* new\n\Z")

    def test_mode(self) -> None:
        """A new file is for its owner and group only, whatever the umask."""
        for umask in (0, 0o077):
            self.addCleanup(os.umask, os.umask(umask))
            self.open(f"{self.path}{umask}").close()
            self.assertEqual(stat.S_IMODE(os.stat(f"{self.path}{umask}").st_mode), 0o640)

    def test_renamed(self) -> None:
        """After a rename lines go to the old file until another is opened."""
        output = self.open()
        os.rename(self.path, f"{self.path}.1")
        output(self.event("one"))
        new = self.open()
        output.close()
        new(self.event("two"))
        new.close()
        self.assertRegex(self.read(f"{self.path}.1"), r"\A.* one\n\Z")
        self.assertRegex(self.read(self.path), r"\A.* two\n\Z")

    def test_mode_of_a_device(self) -> None:
        """What is no file, such as /dev/null, keeps its mode."""
        mode = stat.S_IMODE(os.stat(os.devnull).st_mode)
        self.open(os.devnull).close()
        self.assertEqual(stat.S_IMODE(os.stat(os.devnull).st_mode), mode)

    def test_cannot_open(self) -> None:
        """A file that cannot be written is one line with the option, the path and the reason."""
        directory = os.path.dirname(self.path)
        os.mkfifo(f"{self.path}.fifo")
        for path in (
            directory,
            os.path.join(directory, "missing", "fastway.log"),
            f"{self.path}.fifo",  # nobody reads it
        ):
            error = raised(ConfigError, LogFileOutput, path, "text")
            self.assertEqual(error.option, "--logfile")
            self.assertIn(f"cannot write {path}: ", error.problem)
            self.assertNotIn("None", error.problem)
            self.assertNotIn("\n", str(error))

    def test_fifo(self) -> None:
        """A pipe that somebody reads is a log file, and one that blocks its writing thread."""
        os.mkfifo(self.path)
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        output = self.open()
        output(self.event("through"))
        self.assertTrue(output.writer.flush(PATIENCE))
        self.assertTrue(os.read(reader, 1000).endswith(b"through\n"))
        sink = cast(DescriptorSink, output.writer._sink)
        self.assertTrue(os.get_blocking(sink.descriptor))


class TwistdLogTests(LogTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stream = io.StringIO()
        self.twistd = textFileLogObserver(cast(Any, self.stream))
        logs.add(self.twistd)
        self.addCleanup(logs.remove, self.twistd)

    def observers(self) -> list[Any]:
        return [
            observer
            for observer in cast(Any, globalLogPublisher)._observers
            if isinstance(observer, (FileLogObserver, LogOutput))
        ]

    def test_level(self) -> None:
        """twistd's own log is held to the level while the gateway runs, and not after."""
        threshold.set("warn")
        others: Logger = Logger("twisted.test")
        taken = logs.TwistdLog(replaced=False)
        self.assertNotIn(self.twistd, self.observers())
        others.info("not seen")
        others.warn("seen")
        taken.give_back()
        others.info("goodbye")
        lines = self.stream.getvalue().splitlines()
        self.assertEqual([line.partition("] ")[2] for line in lines], ["seen", "goodbye"])
        self.assertIn(self.twistd, self.observers())
        taken.give_back()
        self.assertEqual(len(self.observers()), 1)

    def test_replaced(self) -> None:
        """Beside a log file of the gateway's own nothing goes to twistd's."""
        taken = logs.TwistdLog(replaced=True)
        self.log.error("elsewhere")
        self.assertEqual(self.observers(), [])
        taken.give_back()
        self.assertEqual(self.stream.getvalue(), "")
        self.assertEqual(self.observers(), [self.twistd])

    def test_stuck(self) -> None:
        """A stuck stream holds up neither the gateway nor its end: twistd does not get it back."""
        reader, writing = os.pipe()
        stream = os.fdopen(writing, "w")
        logs.remove(self.twistd)
        self.twistd = textFileLogObserver(stream)
        logs.add(self.twistd)
        taken = logs.TwistdLog(replaced=False)
        began = time.monotonic()
        for _ in range(300):
            self.log.info("x" * 1000)
        taken.give_back(0.1)
        self.log.info("goodbye")
        self.assertLess(time.monotonic() - began, PATIENCE)
        self.assertEqual(self.observers(), [])
        os.close(reader)
        self.addCleanup(stream.close)

    def test_rotating_file(self) -> None:
        """twistd's log file goes on rotating itself."""
        path = os.path.join(scratch(self), "twistd.log")
        logs.remove(self.twistd)
        file = LogFile.fromFullPath(path, rotateLength=5000)
        self.addCleanup(file.close)
        logs.add(textFileLogObserver(file))
        taken = logs.TwistdLog(replaced=False)
        for _ in range(3):
            self.log.info("y" * 6000)
            cast(LogOutput, self.observers()[0]).writer.flush(PATIENCE)
        (observer,) = [observer for observer, _ in taken._taken]
        taken.give_back()
        logs.remove(observer)
        self.assertEqual(
            sorted(os.listdir(os.path.dirname(path))),
            ["twistd.log", "twistd.log.1", "twistd.log.2"],
        )

"""Where log lines go: standard error, a file, or what twistd opened.

Rule: the log never stops the gateway. Lines are handed to a thread that writes them; what it
cannot get rid of waits up to a bound, further lines are dropped, counted, and told of in one line
once it goes on. A thread and not O_NONBLOCK: that flag belongs to whoever else has the same pipe
or terminal too.
"""

from __future__ import annotations

import atexit
import os
import stat
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any, Protocol, cast
from weakref import WeakSet

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    globalLogBeginner,
    globalLogPublisher,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from fastway.errors import ConfigError
from fastway.logs import addresses, threshold
from fastway.ops.lines import make_format

LOG = "log"
ACCESS = "access log"
"""Kinds of lines, whose dropped ones are counted apart."""

BOUND = 1024 * 1024
"""Bytes of lines that may wait to be written."""

PIECE = 64 * 1024
"""Bytes written at once."""

RETRY = 1.0
"""Seconds between attempts while writing fails: a full disk, a pipe without a reader."""

FLUSH = 1.0
"""Seconds that a log that is closed may take to write what waits."""


class Sink(Protocol):
    """What lines are written to. It may block, and raise whatever it likes."""

    def write(self, data: bytes) -> int:
        """Write some of `data`; returns how many bytes."""

    def close(self) -> None:
        """It is written to no more."""


class DescriptorSink:
    """A file descriptor.

    Args:
        owned: It is closed at the end.
    """

    def __init__(self, descriptor: int, *, owned: bool = False) -> None:
        self.descriptor = descriptor
        self.owned = owned

    def write(self, data: bytes) -> int:
        return os.write(self.descriptor, data)

    def close(self) -> None:
        if self.owned:
            os.close(self.descriptor)


class FileSink(DescriptorSink):
    """A log file of ours.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(self, path: str, option: str = "--logfile") -> None:
        super().__init__(open_file(path, option), owned=True)

    def is_at(self, path: str) -> bool:
        """It is what is there: nobody has moved it."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.stat(path))
        except OSError:
            return False


class StreamSink:
    """A text stream, or one of Twisted's log files, that is somebody else's."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, data: bytes) -> int:
        self.stream.write(data.decode("utf-8", "replace"))
        self.stream.flush()
        return len(data)

    def close(self) -> None:
        """It is not ours."""


def sink_of(stream: Any) -> Sink:
    """The quickest way to write to a stream that stays open."""
    if isinstance(stream, LogFile):
        return StreamSink(stream)  # it rotates itself
    try:
        stream.flush()
        return DescriptorSink(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return StreamSink(stream)


class LineWriter:
    """Takes lines at once and writes them from a thread of its own.

    The thread is made with the first line, so a process that forks before that takes none along;
    in a child that was forked later the writer begins anew.

    Args:
        sink: What is written to; closed by the thread.
        notice: Makes the line that tells of `count` dropped ones, and of the last error or "".
        kind: Whose lines they are, for `dropped`.
        bound: Bytes of lines that may wait; BOUND if it is not given.
        lull: Seconds for which the thread waits for more once there is a line. To wake it costs as
            much as a line does.

    Attributes:
        dropped: Lines that were dropped since the start.
    """

    def __init__(
        self,
        sink: Sink,
        notice: Callable[[int, str], str],
        kind: str = LOG,
        bound: int | None = None,
        lull: float = 0.0,
    ) -> None:
        self._sink = sink
        self._notice = notice
        self._bound = bound
        self._lull = lull
        self.kind = kind
        self.dropped = 0
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        # Reentrant: a signal's handler may log while this thread is in `write`.
        self._lock = threading.RLock()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._empty = threading.Event()
        self._empty.set()
        self._hurry = threading.Event()
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._untold = 0
        self._fault = ""
        self._asleep = True
        self._closed = False
        self._heir: LineWriter | None = None
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Take a line; neither blocks nor raises."""
        data = line.encode("utf-8", "backslashreplace")
        with self._lock:
            # Once it drops lines it does so until half is written: one notice for many lines.
            bound = BOUND if self._bound is None else self._bound
            if self._untold:
                bound //= 2
            if self._closed or self._size + len(data) > bound:
                self.dropped += 1
                self._untold += 1
                return
            if self._untold:
                self._tell()
            self._lines.append(data)
            self._size += len(data)
            self._wake()

    def _wake(self) -> None:
        """There are lines to write; called with the lock."""
        if not self._asleep or (self._thread is None and not self._start()):
            return
        self._asleep = False
        self._empty.clear()
        self._bell.put(None)

    def _inherit(self, lines: bytes, untold: int, fault: str) -> None:
        """Write what another one could not, and tell of what it dropped."""
        with self._lock:
            self._untold += untold
            self._fault = self._fault or fault
            bound = BOUND if self._bound is None else self._bound
            if self._closed or self._size + len(lines) > bound:
                self.dropped += lines.count(b"\n")
                self._untold += lines.count(b"\n")
            elif lines:
                self._lines.appendleft(lines)
                self._size += len(lines)
            self._wake()

    def flush(self, seconds: float = FLUSH) -> bool:
        """Wait until all is written, up to `seconds`; returns whether it is."""
        return self._empty.wait(seconds) and not self._lines

    def close(self, seconds: float = FLUSH, heir: LineWriter | None = None) -> bool:
        """Take no more; write what waits, but wait for that for `seconds` only.

        Args:
            heir: Gets what cannot be written.

        Returns:
            Whether all was written.
        """
        with self._lock:
            again, self._closed = self._closed, True
            self._heir = self._heir or heir
            thread = self._thread
        self._hurry.set()
        if thread is None:
            if not again:
                self._end()
            return not self._lines
        self._bell.put(None)
        thread.join(seconds)
        return not thread.is_alive() and not self._lines

    def _end(self) -> None:
        """Nothing more is written; what could not be, and what it dropped, stays counted."""
        self._sink.close()
        with self._lock:
            lines = b"".join(self._lines)
            if self._heir is not None:
                self._heir._inherit(lines, self._untold, self._fault)
            else:
                self.dropped += lines.count(b"\n")
        with _books:
            _dropped_before[self.kind] += self.dropped
            _writers.discard(self)

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="fastway-log", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # too many threads: the next line tries again
            return False
        self._thread = thread
        return True

    def _tell(self) -> None:
        count, fault = self._untold, self._fault
        self._untold, self._fault = 0, ""
        data = self._notice(count, fault).encode("utf-8", "backslashreplace")
        self._lines.append(data)
        self._size += len(data)

    def _run(self) -> None:
        while True:
            data = self._take()
            if data is None:
                if self._closed:
                    break
                self._bell.get()
                if self._lull:
                    self._hurry.wait(self._lull)
            elif not self._write(data):
                break
        self._end()

    def _take(self) -> bytes | None:
        with self._lock:
            if not self._lines and self._untold:
                self._tell()
            if not self._lines:
                self._asleep = True
                self._empty.set()
                return None
            pieces = []
            size = 0
            while self._lines and size < PIECE:
                pieces.append(self._lines.popleft())
                size += len(pieces[-1])
        return b"".join(pieces)

    def _write(self, data: bytes) -> bool:
        """Write a piece, however long that takes; False: it is closed and does not go."""
        rest = memoryview(data)
        while rest:
            try:
                written = self._sink.write(bytes(rest))
            except Exception as error:  # of a stream that is not ours, any
                self._fault = getattr(error, "strerror", None) or repr(error)
                if self._closed:
                    start = len(data) - len(rest)
                    if self._heir is not None:  # whole lines for another file
                        start = data.rfind(b"\n", 0, start) + 1
                    with self._lock:  # not written: for `close` to see
                        self._lines.appendleft(data[start:])
                    return False
                self._hurry.wait(RETRY)
                continue
            rest = rest[written:]
            with self._lock:
                self._size -= written
        return True


_writers: WeakSet[LineWriter] = WeakSet()
_dropped_before: Counter[str] = Counter()
"""Of logs that are closed."""
_books = threading.Lock()


def dropped(kind: str = LOG) -> int:
    """Lines of this process's logs that were dropped since the start."""
    with _books:
        mine = (writer.dropped for writer in list(_writers) if writer.kind == kind)
        return _dropped_before[kind] + sum(mine)


def _begin_anew() -> None:
    for writer in list(_writers):
        writer._begin()  # what waits is the parent's to write


os.register_at_fork(after_in_child=_begin_anew)


@implementer(ILogObserver)
class LogOutput:
    """An observer that writes lines of `kind`, text or json, to a sink."""

    def __init__(self, sink: Sink, kind: str) -> None:
        self._format = make_format(kind)
        own = make_format(kind)  # the thread's: a formatter is not for two

        def notice(count: int, fault: str) -> str:
            return own(_notice(count, fault)) or ""

        self.writer = LineWriter(sink, notice)

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if threshold.passes(level) or event.get("always"):
            line = self._format(addresses.hidden(event))
            if line is not None:
                self.writer.write(line)

    def close(self, seconds: float = FLUSH, heir: LogOutput | None = None) -> bool:
        """See `LineWriter.close`."""
        return self.writer.close(seconds, heir.writer if heir is not None else None)


def _notice(count: int, fault: str) -> LogEvent:
    return {
        "log_time": time.time(),
        "log_level": LogLevel.warn,
        "log_namespace": __name__,
        "log_format": "{dropped} lines of this log were dropped: {problem}",
        "dropped": count,
        "problem": fault or "its reader does not keep up",
    }


class LogFileOutput(LogOutput):
    """A log file; `path` is absolute."""

    def __init__(self, path: str, kind: str) -> None:
        self.path = os.path.abspath(path)
        self._sink = FileSink(self.path)
        super().__init__(self._sink, kind)

    def moved(self) -> bool:
        """The file is at its path no more."""
        return not self._sink.is_at(self.path)


def open_file(path: str, option: str = "--logfile") -> int:
    """A log file to append to, mode 0640 if it is a file and no device or pipe.

    Args:
        option: How the operator gave it.

    Raises:
        ConfigError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    try:
        # Not to wait for a pipe's reader; the description is ours alone, and blocks afterwards.
        descriptor = os.open(path, flags | os.O_NONBLOCK, 0o640)
    except OSError as error:
        raise ConfigError(option, f"cannot write {path}: {error.strerror}") from None
    os.set_blocking(descriptor, True)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        with suppress(OSError):  # somebody else's file that this user may write
            os.fchmod(descriptor, 0o640)
    return descriptor


def check_logfile(path: str, option: str = "--logfile") -> None:
    """See that a log file can be written, without making one.

    Args:
        option: How the operator gave it.

    Raises:
        ConfigError: it cannot.
    """
    directory = os.path.dirname(os.path.abspath(path))
    problem = ""
    if os.path.isdir(path):
        problem = "it is a directory"
    elif not os.path.isdir(directory):
        problem = f"{directory} is not a directory; make it"
    elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
        problem = "this user may not"
    if problem:
        raise ConfigError(option, f"cannot write {path}: {problem}")


def begin(observer: ILogObserver | None) -> None:
    """Make `observer`, or nothing yet, the log of a process that is not under twistd."""
    observers = [] if observer is None else [observer]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)


def add(observer: ILogObserver) -> None:
    globalLogPublisher.addObserver(observer)


def remove(observer: ILogObserver) -> None:
    globalLogPublisher.removeObserver(observer)


def console(kind: str) -> LogOutput:
    """An observer on standard error, where the original logs too."""
    return LogOutput(sink_of(sys.stderr), kind)


class TwistdLog:
    """What twistd logs to by itself: taken over while the gateway runs.

    twistd's observer writes at once, whatever the level, beside a --logfile everything a second
    time. In its place there is a LogOutput on the same stream; or nothing, if `replaced`.

    Args:
        replaced: The gateway has a log file of its own.
    """

    def __init__(self, replaced: bool) -> None:
        self._taken: list[tuple[ILogObserver, LogOutput | None]] = []
        for observer in list(cast(Any, globalLogPublisher)._observers):
            if isinstance(observer, FileLogObserver):
                stream = cast(IO[str], cast(Any, observer)._outFile)
                output = None if replaced else LogOutput(sink_of(stream), "text")
                remove(observer)
                if output is not None:
                    add(output)
                self._taken.append((observer, output))

    def give_back(self, seconds: float = FLUSH) -> None:
        """What twistd says last goes its own way, unless that is stuck."""
        taken, self._taken = self._taken, []
        for observer, output in taken:
            if output is not None:
                remove(output)
            if output is None or output.close(seconds):
                add(observer)


@atexit.register
def close_all() -> None:
    """Write what waits, within FLUSH seconds for all logs together."""
    until = time.monotonic() + FLUSH
    for writer in list(_writers):
        writer.close(max(until - time.monotonic(), 0.0))

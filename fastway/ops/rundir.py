"""The files of the run directory: the command that is read, the answers and reports written.

Rule: a file is read whole or not at all, and appears whole or not at all. Two descriptors are kept
for that, so that an operator reaches a gateway that has no other left.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from fastway.errors import CommandError

MAX_COMMAND = 4096
"""Bytes of a command file; a larger one is no command."""

RESERVED = 2
"""Descriptors that are kept: one for a report that is being written, one for the rest."""

PIECE = 32 * 1024
"""Bytes of a report that are written at once."""


class RunDir:
    """One gateway's run directory.

    Args:
        path: The directory.
    """

    def __init__(self, path: str = ".") -> None:
        self.path = path
        self._reserved: list[int] = []
        self._kept = 0

    def start(self) -> None:
        """Keep descriptors from now on."""
        self._kept = RESERVED
        self._refill()

    def stop(self) -> None:
        """Keep none."""
        self._kept = 0
        while self._reserved:
            os.close(self._reserved.pop())

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """As os.open, also when there is no descriptor left.

        Raises:
            OSError: as os.open; EMFILE or ENFILE if those kept are in use too.
        """
        try:
            return os.open(path, flags | os.O_CLOEXEC, mode)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._reserved:
                raise
        os.close(self._reserved.pop())
        try:
            return os.open(path, flags | os.O_CLOEXEC, mode)
        except OSError:
            self._refill()
            raise

    def close(self, descriptor: int) -> None:
        """Close what `open` returned, and keep it if it was one of those."""
        os.close(descriptor)
        self._refill()

    def _refill(self) -> None:
        with suppress(OSError):
            while len(self._reserved) < self._kept:
                self._reserved.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def resident_memory(self) -> int:
        """Bytes of memory that this process occupies, 0 where the system does not tell."""
        try:
            descriptor = self.open("/proc/self/statm", os.O_RDONLY)
            try:
                return int(os.read(descriptor, 256).split()[1]) * os.sysconf("SC_PAGE_SIZE")
            finally:
                self.close(descriptor)
        except (OSError, ValueError, IndexError):
            return 0

    def report(self, name: str) -> Report:
        """A new `fastway.NAME`, to be used as a context manager."""
        return Report(self, os.path.join(self.path, f"fastway.{name}"))

    def write(self, name: str, content: str | bytes) -> str:
        """Write `fastway.NAME` in one go; returns its path.

        Raises:
            CommandError: it cannot be written.
        """
        with self.report(name) as report:
            report.write(content)
        return report.path

    def remove(self, name: str) -> None:
        """Remove `fastway.NAME` if it is there."""
        with suppress(OSError):
            os.unlink(os.path.join(self.path, f"fastway.{name}"))


class Report:
    """A file, mode 0600, that takes the place of an older one once all is written.

    Leaving the context without an error puts it into place; otherwise nothing is left of it.
    Each method raises a CommandError when the file cannot be written.

    Attributes:
        path: Where it will be.
    """

    def __init__(self, files: RunDir, path: str) -> None:
        self.path = path
        self._files = files
        self._new = f"{path}.{os.getpid()}"
        self._buffer: list[bytes] = []
        self._size = 0
        self._descriptor = -1

    def __enter__(self) -> Report:
        with suppress(OSError):
            os.unlink(self._new)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._descriptor = self._try(lambda: self._files.open(self._new, flags))
        return self

    def write(self, content: str | bytes) -> None:
        """Add to it."""
        data = content.encode("utf-8", "replace") if isinstance(content, str) else content
        self._buffer.append(data)
        self._size += len(data)
        if self._size >= PIECE:
            self._flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        done = False
        try:
            if error is None:
                self._flush()
                self._try(lambda: os.fchmod(self._descriptor, 0o600))
                self._try(lambda: os.replace(self._new, self.path))
                done = True
        finally:
            self._files.close(self._descriptor)
            if not done:
                with suppress(OSError):
                    os.unlink(self._new)

    def _flush(self) -> None:
        rest = memoryview(b"".join(self._buffer))
        self._buffer.clear()
        self._size = 0
        while rest:
            rest = rest[self._try(lambda: os.write(self._descriptor, rest)) :]  # noqa: B023

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except OSError as error:
            raise CommandError(f"cannot write {self.path}: {error.strerror}") from None


class CommandFile:
    """The file that a command is read from.

    Whoever writes it may be in the middle of that: a file is taken that ends its line, or that
    has not changed between two looks.

    Args:
        files: Whose descriptors it may use.
        path: The file.
    """

    def __init__(self, files: RunDir, path: str) -> None:
        self.path = path
        self._files = files
        self._before: tuple[object, ...] | None = None

    def forget(self) -> None:
        """The next look is the first of a new command."""
        self._before = None

    def look(self, last: bool = False) -> str | None:
        """The command, or None: look again a little later.

        Args:
            last: There will be no other look.

        Raises:
            CommandError: there is no command that may be obeyed.
        """
        data, state = self._read()
        seen, self._before = self._before, state
        if len(data) > MAX_COMMAND:
            raise CommandError(f"{self.path} is over {MAX_COMMAND} bytes")
        settled = last or (seen == state and data.strip() != b"")
        if not settled and not (data.endswith(b"\n") and data.strip()):
            return None
        try:
            line = data.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise CommandError(f"{self.path} is not text") from None
        if not line:
            raise CommandError(f"{self.path} is empty")
        return line

    def _read(self) -> tuple[bytes, tuple[object, ...]]:
        """What is in the file, and what changes when it is written to."""
        path = self.path
        try:
            descriptor = self._files.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                about = os.fstat(descriptor)
                self._check(about)
                data = os.read(descriptor, MAX_COMMAND + 1)
            finally:
                self._files.close(descriptor)
        except OSError as error:
            problem = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise CommandError(f"cannot read {path}: {problem}") from None
        return data, (about.st_ino, about.st_mtime_ns, about.st_size, data)

    def _check(self, about: os.stat_result) -> None:
        if not stat.S_ISREG(about.st_mode):
            raise CommandError(f"{self.path} is not a regular file")
        if about.st_uid not in (0, os.geteuid()):
            raise CommandError(
                f"{self.path} belongs to user {about.st_uid}, "
                f"not to the gateway's ({os.geteuid()}) or root"
            )
        if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CommandError(f"{self.path} can be written by others; chmod go-w {self.path}")

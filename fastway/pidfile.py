"""The pid file: one gateway for each, mode 0644, written whole, removed at a clean stop.

Rule: a file whose process lives is never touched; one whose process is gone is replaced.
"""

from __future__ import annotations

import os
from contextlib import suppress

from fastway.errors import StartError
from fastway.logs import make_logger

log = make_logger(__name__)


class PidFile:
    """The pid file at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def holder(self) -> int | None:
        """The live process that the file names, or None. This process does not count."""
        try:
            with open(self.path, "rb") as file:
                pid = int(file.read(32))
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise StartError(f"pid-file: cannot read {self.path}: {error.strerror}") from None
        if pid <= 0 or pid == os.getpid():
            return None
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return None
        except OSError:
            pass  # it lives, and belongs to somebody else
        return pid

    def check(self) -> None:
        """See that the file may be written.

        Raises:
            StartError: a live process holds it, or its directory cannot be written.
        """
        pid = self.holder()
        if pid is not None:
            raise StartError(
                f"pid-file: {self.path} names process {pid}, which is running; "
                "stop it, or give another --pid-file or --run-dir"
            )
        directory = os.path.dirname(self.path) or "."
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StartError(
                f"pid-file: cannot write to {os.path.abspath(directory)}; "
                "give a --pid-file or --run-dir that exists and that this user may write"
            )

    def write(self) -> None:
        """Write this process's id.

        Raises:
            StartError: as `check`.
        """
        self.check()
        new = f"{self.path}.{os.getpid()}"
        try:
            with suppress(FileNotFoundError):
                os.unlink(new)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o644)
                file.write(b"%d\n" % os.getpid())
            try:
                os.link(new, self.path)
            except FileExistsError:
                self.check()
                log.warn("pid file {path} was stale, replacing it", path=self.path)
                os.replace(new, self.path)
            else:
                os.unlink(new)
        except StartError:
            with suppress(OSError):
                os.unlink(new)
            raise
        except OSError as error:
            with suppress(OSError):
                os.unlink(new)
            raise StartError(
                f"pid-file: cannot write {self.path}: {error.strerror}; "
                "give another --pid-file or --run-dir"
            ) from None

    def remove(self) -> None:
        """Remove the file if it still names this process."""
        with suppress(OSError, ValueError), open(self.path, "rb") as file:
            if int(file.read(32)) == os.getpid():
                os.unlink(self.path)

"""The pid file: one gateway for each, mode 0644, written whole, removed at a clean stop.

Rule: who has locked the file (flock) holds it. A file that nobody has locked is stale and is
replaced, whoever its number belongs to now: the lock ends with its process, a number is given to
another. One exception, for versions of fastway that did not lock: an unlocked file is respected if
its process lives, is a fastway or twistd by its command line, and is not younger than the file. A
process that is younger cannot have written it: its number was used again.

The file is locked before it appears, and replaced only by who has locked the stale one, so two
that start at once cannot both have it. The lock is of the open file: a child that was forked
without exec keeps it. Where the file system knows no locks the exception alone decides.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress

from fastway.errors import StartError
from fastway.logs import make_logger

log = make_logger(__name__)

ATTEMPTS = 50
"""Looks at a file that somebody else looks at, or replaces, at the same moment."""

PAUSE = 0.01
"""Seconds between them."""

SLACK = 2.0
"""Seconds by which a process may seem younger than the file that it wrote."""


class PidFile:
    """The pid file at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._held = -1
        """The descriptor that is locked, while this process holds the file."""

    def holder(self) -> int | None:
        """The live process that holds the file, or None. This object's own does not count.

        Returns:
            Its number; 0 if the file is locked and names none.

        Raises:
            StartError: the file cannot be read.
        """
        pid = None
        for _ in range(ATTEMPTS):
            descriptor = self._open()
            if descriptor is None:
                return None
            try:
                pid = self._read(descriptor)
                if _lock(descriptor, fcntl.LOCK_SH):
                    return pid if _wrote(pid, os.fstat(descriptor)) else None
                if self._held >= 0 and _is_same(os.fstat(self._held), os.fstat(descriptor)):
                    return None
            finally:
                os.close(descriptor)
            if pid == os.getpid() or _lives(pid):
                return pid
            # Somebody replaces a stale file just now.
            time.sleep(PAUSE)
        return pid or 0

    def check(self) -> None:
        """See that the file may be written.

        Raises:
            StartError: a live process holds it, or its directory cannot be written.
        """
        pid = self.holder()
        if pid is not None:
            whose = f"names process {pid}, which is running" if pid else "is locked by a process"
            raise StartError(
                f"pid-file: {self.path} {whose}; stop it, or give another --pid-file or --run-dir"
            )
        directory = os.path.dirname(self.path) or "."
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StartError(
                f"pid-file: cannot write to {os.path.abspath(directory)}; "
                "give a --pid-file or --run-dir that exists and that this user may write"
            )

    def write(self) -> None:
        """Write this process's id, and hold the file until `remove`.

        Raises:
            StartError: as `check`.
        """
        self.check()
        new = f"{self.path}.{os.getpid()}"
        descriptor = -1
        try:
            with suppress(FileNotFoundError):
                os.unlink(new)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(new, flags, 0o644)
            os.fchmod(descriptor, 0o644)
            os.write(descriptor, b"%d\n" % os.getpid())
            _lock(descriptor, fcntl.LOCK_EX)
            self._put(new)
            self._held, descriptor = descriptor, -1
        except OSError as error:
            raise StartError(
                f"pid-file: cannot write {self.path}: {error.strerror}; "
                "give another --pid-file or --run-dir"
            ) from None
        finally:
            with suppress(OSError):
                os.unlink(new)
            if descriptor >= 0:
                os.close(descriptor)

    def remove(self) -> None:
        """Let go of the file, and remove it if it is still the one that was written."""
        held, self._held = self._held, -1
        if held < 0:
            return
        with suppress(OSError):
            if _is_same(os.fstat(held), os.lstat(self.path)):
                os.unlink(self.path)
        os.close(held)

    def _put(self, new: str) -> None:
        """Put the new, locked file into its place.

        Raises:
            StartError: somebody else was faster.
        """
        for _ in range(ATTEMPTS):
            with suppress(FileExistsError):
                os.link(new, self.path)
                return
            self.check()
            descriptor = self._open()
            try:
                # None: it is gone. Not locked: somebody looks at it. Not here: it was replaced.
                if (
                    descriptor is not None
                    and _lock(descriptor, fcntl.LOCK_EX)
                    and _is_same(os.fstat(descriptor), os.stat(self.path))
                ):
                    log.warn("pid file {path} was stale, replacing it", path=self.path)
                    os.replace(new, self.path)
                    return
            except FileNotFoundError:
                pass
            finally:
                if descriptor is not None:
                    os.close(descriptor)
            time.sleep(PAUSE)
        raise StartError(f"pid-file: {self.path} is being written by others; start once only")

    def _open(self) -> int | None:
        """The file that is there; None if there is none."""
        try:
            return os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from None

    def _read(self, descriptor: int) -> int | None:
        """The number in the file, if there is one."""
        try:
            pid = int(os.pread(descriptor, 32, 0))
        except ValueError:
            return None
        except OSError as error:
            if error.errno == errno.ESPIPE:
                return None
            raise self._unreadable(error) from None
        return pid if pid > 0 else None

    def _unreadable(self, error: OSError) -> StartError:
        return StartError(f"pid-file: cannot read {self.path}: {error.strerror}")


def _lock(descriptor: int, kind: int) -> bool:
    """Lock an open file; False: somebody else has it. True also where there are no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # NFS without locks, for example
    return True


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _lives(pid: int | None) -> bool:
    """There is such a process, and it is not this one."""
    if pid is None or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it lives, and belongs to somebody else
    return True


def _wrote(pid: int | None, file: os.stat_result) -> bool:
    """A live fastway that does not lock may have written that file, which has its number."""
    if pid is None or not _lives(pid):
        return False
    if not os.path.exists("/proc/self/stat"):
        return True  # nothing tells what it is
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
            words = cmdline.read().split(b"\0")
        with open(f"/proc/{pid}/stat", "rb") as about:
            started = int(about.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return False  # gone, or hidden from this user
    if not any(os.path.basename(word).startswith((b"fastway", b"twistd")) for word in words):
        return False
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    return age + SLACK >= time.time() - file.st_mtime

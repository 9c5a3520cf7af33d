"""The run directory: the command that is read, reports that are written, descriptors kept."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import CommandError
from fastway.ops.rundir import MAX_COMMAND, PIECE, CommandFile, RunDir
from tests.support.errors import raised
from tests.support.files import scratch


class CommandFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = scratch(self)
        self.path = os.path.join(self.directory, "fastway.cmd")
        self.files = RunDir(self.directory)
        self.file = CommandFile(self.files, self.path)

    def write(self, content: bytes, mode: int = 0o600) -> None:
        with open(self.path, "wb") as file:
            file.write(content)
        os.chmod(self.path, mode)

    def read(self) -> str | None:
        """What is read at last."""
        return self.file.look(last=True)

    def refused(self) -> str:
        """Why the command file is not obeyed: one line that names it."""
        problem = str(raised(CommandError, self.read))
        self.assertNotIn("\n", problem)
        self.assertIn(self.path, problem)
        return problem

    def test_whole(self) -> None:
        """A line that ends is taken at the first look."""
        self.write(b"  help \r\n")
        self.assertEqual(self.file.look(), "help")

    def test_not_whole(self) -> None:
        """A line that does not end is taken when two looks find the same, and not before."""
        self.write(b"hel")
        self.assertIsNone(self.file.look())
        self.write(b"help")
        self.assertIsNone(self.file.look())
        self.assertEqual(self.file.look(), "help")
        self.file.forget()
        self.assertIsNone(self.file.look())

    def test_rewritten_alike(self) -> None:
        """A file that was written anew between two looks changed, whatever is in it."""
        self.write(b"help")
        self.assertIsNone(self.file.look())
        os.utime(self.path, ns=(0, 0))
        self.assertIsNone(self.file.look())
        self.assertEqual(self.file.look(), "help")

    def test_empty_is_not_whole(self) -> None:
        """A file that is empty twice may be about to be written."""
        for content in (b"", b"\n", b" \n"):
            self.file.forget()
            self.write(content)
            for _ in range(3):
                self.assertIsNone(self.file.look())

    def test_modes(self) -> None:
        """Others may read the file; who may write it but the owner makes it no command."""
        for mode in (0o600, 0o644, 0o400, 0o755):
            self.write(b"help", mode)
            self.assertEqual(self.read(), "help")
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
            self.assertEqual(self.read(), "x" * size)
        for size in (MAX_COMMAND + 1, 1_000_000):
            self.write(b"x" * size)
            self.assertIn(f"over {MAX_COMMAND} bytes", self.refused())

    def test_not_text(self) -> None:
        """Bytes that are no UTF-8 are no command."""
        self.write(b"help \xff")
        self.assertIn("is not text", self.refused())

    def test_several_lines(self) -> None:
        """Two lines are read as they are: no command matches them."""
        self.write(b"help\nhelp\n")
        self.assertEqual(self.read(), "help\nhelp")

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
            self.assertEqual(self.read(), "help")

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


class ReportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = scratch(self)
        self.files = RunDir(self.directory)

    def test_whole(self) -> None:
        """A report appears when all is written, mode 0600 whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        path = os.path.join(self.directory, "fastway.x")
        with self.files.report("x") as report:
            report.write("grüße\n")
            report.write(bytes(PIECE))
            self.assertFalse(os.path.exists(path))
        self.assertEqual(os.listdir(self.directory), ["fastway.x"])
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), "grüße\n".encode() + bytes(PIECE))

    def test_given_up(self) -> None:
        """An error in the middle leaves the older report as it was, and nothing else."""
        self.files.write("x", "old")

        def fail() -> None:
            with self.files.report("x") as report:
                report.write(bytes(2 * PIECE))
                raise ValueError

        raised(ValueError, fail)
        self.assertEqual(os.listdir(self.directory), ["fastway.x"])
        with open(os.path.join(self.directory, "fastway.x"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "old")

    def test_replaced(self) -> None:
        """A report replaces the one before; a link in its place is not written through."""
        other = os.path.join(self.directory, "other")
        with open(other, "w", encoding="utf-8") as file:
            file.write("precious")
        path = os.path.join(self.directory, "fastway.x")
        os.symlink(other, path)
        self.files.write("x", "new")
        self.assertFalse(os.path.islink(path))
        with open(other, encoding="utf-8") as file:
            self.assertEqual(file.read(), "precious")

    def test_leftover(self) -> None:
        """What a crash left under the temporary name is in nobody's way."""
        os.symlink("/nowhere/at/all", os.path.join(self.directory, f"fastway.x.{os.getpid()}"))
        self.files.write("x", "new")
        self.assertEqual(os.listdir(self.directory), ["fastway.x"])

    def test_refused(self) -> None:
        """A report that cannot be written is one line with its path, and leaves nothing."""
        path = os.path.join(self.directory, "fastway.x")
        os.mkdir(path)
        problem = str(raised(CommandError, self.files.write, "x", "new"))
        self.assertEqual(problem, f"cannot write {path}: Is a directory")
        self.assertEqual(os.listdir(self.directory), ["fastway.x"])
        files = RunDir(os.path.join(self.directory, "missing"))
        self.assertIn("No such file", str(raised(CommandError, files.write, "x", "")))

    def test_full_disk(self) -> None:
        """A disk that takes no more is one line, and nothing is left."""

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(os, "write", full)
        problem = str(raised(CommandError, self.files.write, "x", "new"))
        self.assertIn("fastway.x: No space left on device", problem)
        self.assertEqual(os.listdir(self.directory), [])

    def test_memory(self) -> None:
        """The resident memory is that of this process."""
        self.assertGreater(self.files.resident_memory(), 1_000_000)


class DescriptorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = scratch(self)
        self.files = RunDir(self.directory)
        self.files.start()
        self.addCleanup(self.files.stop)
        path = os.path.join(self.directory, "fastway.cmd")
        with open(path, "wb") as file:
            file.write(b"status\n")
        os.chmod(path, 0o600)
        self.command = CommandFile(self.files, path)

    @contextmanager
    def exhausted(self) -> Iterator[None]:
        """There is no descriptor left."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = [os.dup(0)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 8, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            yield
        finally:
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_none_left(self) -> None:
        """Without a free descriptor a command is read, answered and reported, time and again."""
        with self.exhausted():
            for _ in range(3):
                self.assertEqual(self.command.look(), "status")
                self.assertGreater(self.files.resident_memory(), 0)
                with self.files.report("links.txt") as report:
                    report.write("x")
                    self.files.write("answer", "y")
        self.assertIn("fastway.links.txt", os.listdir(self.directory))

    def test_all_in_use(self) -> None:
        """What needs more than those kept is one line, and harms nothing that comes after."""
        with self.exhausted():
            with self.files.report("a"), self.files.report("b"):
                problem = str(raised(CommandError, self.files.write, "c", ""))
            self.files.write("c", "")
            self.assertEqual(self.command.look(), "status")
        self.assertIn("Too many open files", problem)

    def test_stop(self) -> None:
        """After the stop no descriptor is kept."""
        before = len(os.listdir("/dev/fd"))
        self.files.stop()
        self.assertEqual(len(os.listdir("/dev/fd")), before - 2)
        self.files.stop()
        self.files.write("x", "")
        self.assertEqual(len(os.listdir("/dev/fd")), before - 2)

"""The pid file: whose it is, what is in it, and when it goes."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import StartError
from fastway.ops.pidfile import PidFile
from tests.support.errors import raised
from tests.support.files import CHECKOUT, scratch
from tests.support.logs import LogLines


class PidFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = scratch(self)
        self.path = os.path.join(self.directory, "fastway.pid")
        self.pid_file = PidFile(self.path)
        self.addCleanup(lambda: self.pid_file.remove())

    def holding(self, content: bytes) -> None:
        """Somebody else's file with `content` is there."""
        with open(self.path, "wb") as file:
            file.write(content)

    def content(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    def refused(self) -> str:
        """Why it cannot be written: one line, the same from check and write, nothing changed."""
        before = sorted(os.listdir(self.directory))
        problem = str(raised(StartError, self.pid_file.check))
        self.assertEqual(str(raised(StartError, self.pid_file.write)), problem)
        self.assertNotIn("\n", problem)
        self.assertEqual(sorted(os.listdir(self.directory)), before)
        return problem

    def dead_pid(self) -> int:
        """The id of a process that is gone."""
        with subprocess.Popen([sys.executable, "-c", ""]) as child:
            child.wait()
        return child.pid

    def test_content(self) -> None:
        """It holds this process's id and a newline, and no other file is left."""
        self.pid_file.check()
        self.assertEqual(os.listdir(self.directory), [])
        self.pid_file.write()
        self.assertEqual(self.content(), b"%d\n" % os.getpid())
        self.assertEqual(os.listdir(self.directory), ["fastway.pid"])

    def test_mode(self) -> None:
        """Its mode is 0644 whatever the umask: others may read it, nobody else may write it."""
        for umask in (0o077, 0o000, 0o022):
            self.addCleanup(os.umask, os.umask(umask))
            self.pid_file.write()
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o644)
            self.pid_file.remove()

    def test_mode_of_a_stale_file(self) -> None:
        """A world-writable file that is stale is replaced, not written into."""
        self.holding(b"%d\n" % self.dead_pid())
        os.chmod(self.path, 0o666)
        old = os.stat(self.path).st_ino
        os.link(self.path, f"{self.path}.old")
        self.pid_file.write()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o644)
        self.assertNotEqual(os.stat(self.path).st_ino, old)

    def test_whole(self) -> None:
        """It appears with its content: it is linked into place when it is written already."""
        seen = []
        link = os.link

        def look(source: str, target: str) -> None:
            with open(source, "rb") as file:
                seen.append((file.read(), os.path.exists(target)))
            link(source, target)

        self.patch(os, "link", look)
        self.pid_file.write()
        self.assertEqual(seen, [(b"%d\n" % os.getpid(), False)])

    def test_stale(self) -> None:
        """The file of a process that is gone is replaced, and the log says so."""
        self.holding(b"%d\n" % self.dead_pid())
        self.assertIsNone(self.pid_file.holder())
        with LogLines() as log:
            self.pid_file.write()
        self.assertEqual(self.content(), b"%d\n" % os.getpid())
        self.assertEqual(len(log.lines), 1)
        self.assertIn(f"{self.path} was stale", log.lines[0])
        self.assertEqual(os.listdir(self.directory), ["fastway.pid"])

    def process(self, code: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A process that runs `code`, which says that it is there by `wait()`."""
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys\ndef wait(): print('.', flush=True); sys.stdin.read()\n" + code,
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
        )

        def end() -> None:
            child.kill()
            child.communicate()

        self.addCleanup(end)
        assert child.stdout is not None
        self.assertEqual(child.stdout.read(1), b".")
        return child

    def test_held(self) -> None:
        """The file of a gateway that runs is left alone; the refusal names file and mend."""
        other = PidFile(self.path)
        other.write()
        problem = self.refused()
        self.assertTrue(problem.startswith("pid-file: "))
        self.assertIn(self.path, problem)
        self.assertIn("--pid-file or --run-dir", problem)
        self.assertEqual(self.content(), b"%d\n" % os.getpid())
        self.assertIsNone(other.holder())
        other.check()
        other.remove()
        self.pid_file.write()

    def test_held_by_a_process(self) -> None:
        """The lock is another process's, and ends with it, however it ends."""
        child = self.process(
            f"from fastway.ops.pidfile import PidFile\nfile = PidFile({self.path!r})\n"
            "file.write()\nwait()"
        )
        self.assertEqual(self.pid_file.holder(), child.pid)
        self.assertIn(f"process {child.pid}, which is running", self.refused())
        child.kill()
        child.wait()
        self.assertEqual(self.content(), b"%d\n" % child.pid)
        self.assertIsNone(self.pid_file.holder())
        self.pid_file.write()
        self.assertEqual(self.content(), b"%d\n" % os.getpid())

    def test_number_used_again(self) -> None:
        """A stale file whose number another process got is replaced, whatever that process is."""
        for arguments in ((), ("fastway",)):
            child = self.process("wait()", *arguments)
            self.holding(b"%d\n" % child.pid)
            os.utime(self.path, (time.time() - 60,) * 2)  # its gateway wrote it, and died
            self.assertIsNone(self.pid_file.holder())
            self.pid_file.write()
            self.assertEqual(self.content(), b"%d\n" % os.getpid())
            self.pid_file.remove()

    def test_older_version(self) -> None:
        """A file without a lock is respected while a fastway lives that may have written it."""
        for arguments in (("/usr/bin/fastway", "--config"), ("twistd", "-y", "app.tac")):
            child = self.process("wait()", *arguments)
            self.holding(b"%d\n" % child.pid)
            self.assertEqual(self.pid_file.holder(), child.pid)
            self.assertIn(f"process {child.pid}, which is running", self.refused())
            child.kill()
            child.wait()
            self.assertIsNone(self.pid_file.holder())

    def test_another_program(self) -> None:
        """A file without a lock that names a living process that is no fastway is stale."""
        child = self.process("wait()")
        self.holding(b"%d\n" % child.pid)
        self.assertIsNone(self.pid_file.holder())
        self.pid_file.write()
        self.assertEqual(self.content(), b"%d\n" % os.getpid())

    def test_hidden(self) -> None:
        """A process of which this user may see nothing did not write the file."""

        def forbidden(pid: int, number: int) -> None:
            raise PermissionError

        self.holding(b"%d\n" % self.dead_pid())
        self.patch(os, "kill", forbidden)
        self.assertIsNone(self.pid_file.holder())

    def test_no_locks(self) -> None:
        """Where the file system knows no locks, a gateway that lives is respected all the same."""

        def unsupported(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        self.patch(fcntl, "flock", unsupported)
        child = self.process("wait()", "fastway")
        self.holding(b"%d\n" % child.pid)
        self.refused()
        child.kill()
        child.wait()
        self.pid_file.write()
        self.assertEqual(self.content(), b"%d\n" % os.getpid())

    def test_one_of_many(self) -> None:
        """Of several that start at once over a stale file exactly one holds it."""
        self.holding(b"%d\n" % self.dead_pid())
        code = (
            "from fastway.ops.pidfile import PidFile\n"
            "from fastway.errors import StartError\n"
            "print('.', end='', flush=True); sys.stdin.readline()\n"
            f"file = PidFile({self.path!r})\n"
            "try: file.write(); print('held', flush=True)\n"
            "except StartError as error: print(error, flush=True)\n"
            "sys.stdin.read()"
        )
        children = [self.process(code) for _ in range(4)]
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
        said = [(child.stdout.readline(), child.pid) for child in children if child.stdout]
        (held,) = [pid for line, pid in said if line == b"held\n"]
        self.assertEqual(self.content(), b"%d\n" % held)
        self.assertEqual(os.listdir(self.directory), ["fastway.pid"])

    def test_our_own_number(self) -> None:
        """A file with this process's id is stale: in a container every gateway is process 1."""
        self.holding(b"%d\n" % os.getpid())
        self.assertIsNone(self.pid_file.holder())
        self.pid_file.write()
        self.assertEqual(self.content(), b"%d\n" % os.getpid())

    def test_garbage(self) -> None:
        """A file that names no process is replaced, whatever is in it."""
        for content in (
            b"",
            b"\n",
            b"fastway\n",
            b"-1\n",
            b"0\n",
            b"1.5",
            b"\xff\x00",
            b"x" * 100_000,
            b"9" * 20,
            b"9" * 10_000,
        ):
            self.holding(content)
            with self.subTest(content=content[:20]):
                self.assertIsNone(self.pid_file.holder())
                self.pid_file.write()
                self.assertEqual(self.content(), b"%d\n" % os.getpid())
                self.pid_file.remove()

    def test_lost_race(self) -> None:
        """A gateway that takes the file between check and write keeps it, and nothing is left."""
        other = PidFile(self.path)
        link = os.link

        def taken(source: str, target: str) -> None:
            os.link = link
            os.unlink(source)
            other.write()
            raise FileExistsError

        self.patch(os, "link", taken)
        problem = str(raised(StartError, self.pid_file.write))
        self.assertIn("is running", problem)
        self.assertEqual(os.listdir(self.directory), ["fastway.pid"])
        other.remove()
        self.assertEqual(os.listdir(self.directory), [])

    def test_looked_at(self) -> None:
        """Somebody who only looks at a stale file keeps nobody from replacing it."""
        self.holding(b"%d\n" % self.dead_pid())
        with open(self.path, "rb") as looking:
            fcntl.flock(looking, fcntl.LOCK_SH)
            self.patch(time, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
            self.pid_file.write()
        self.assertEqual(self.content(), b"%d\n" % os.getpid())

    def test_leftover(self) -> None:
        """What a crash left under the temporary name is in nobody's way."""
        with open(f"{self.path}.{os.getpid()}", "wb") as file:
            file.write(b"old")
        self.pid_file.write()
        self.assertEqual(self.content(), b"%d\n" % os.getpid())
        self.assertEqual(os.listdir(self.directory), ["fastway.pid"])

    def test_symlink(self) -> None:
        """A symbolic link in its place is replaced; what it points to is not written."""
        other = os.path.join(self.directory, "other")
        with open(other, "wb") as file:
            file.write(b"precious")
        os.symlink(other, self.path)
        self.pid_file.write()
        self.assertFalse(os.path.islink(self.path))
        with open(other, "rb") as file:
            self.assertEqual(file.read(), b"precious")

    def test_directory(self) -> None:
        """A directory in its place is refused with the path."""
        os.mkdir(self.path)
        self.assertIn(f"pid-file: cannot read {self.path}: Is a directory", self.refused())

    def test_no_directory(self) -> None:
        """A directory that is not there is refused with the path and the mend, as pid-file's."""
        self.pid_file = PidFile(os.path.join(self.directory, "missing", "fastway.pid"))
        problem = self.refused()
        self.assertIn(os.path.join(self.directory, "missing"), problem)
        self.assertIn("--run-dir", problem)
        self.assertIn("pid-file", problem)

    def test_under_a_file(self) -> None:
        """A path through something that is no directory is refused with the path."""
        self.holding(b"")
        self.pid_file = PidFile(os.path.join(self.path, "fastway.pid"))
        self.assertIn(self.path, self.refused())

    def test_forbidden(self) -> None:
        """A directory that this user may not write is refused with the mend."""
        os.chmod(self.directory, 0o500)
        self.addCleanup(os.chmod, self.directory, 0o700)
        self.assertIn("this user may write", self.refused())

    if os.geteuid() == 0:
        test_forbidden.skip = "root may write everywhere"  # type: ignore[attr-defined]

    def test_full_disk(self) -> None:
        """A disk that takes no more is one line, and nothing is left."""

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "link", full)
        problem = str(raised(StartError, self.pid_file.write))
        self.assertIn(f"pid-file: cannot write {self.path}: No space left on device", problem)
        self.assertEqual(os.listdir(self.directory), [])

    def test_relative(self) -> None:
        """A name without a directory is in the working directory."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        PidFile("fastway.pid").write()
        self.assertEqual(self.content(), b"%d\n" % os.getpid())

    def test_remove(self) -> None:
        """It is removed if it is ours; once more is no error."""
        self.pid_file.write()
        self.pid_file.remove()
        self.assertEqual(os.listdir(self.directory), [])
        self.pid_file.remove()

    def test_remove_only_ours(self) -> None:
        """A file that somebody else has put into its place stays."""
        self.pid_file.write()
        os.unlink(self.path)
        for content in (b"%d\n" % os.getppid(), b"%d\n" % os.getpid(), b"garbage", b""):
            self.holding(content)
            self.pid_file.remove()
            self.assertEqual(self.content(), content)

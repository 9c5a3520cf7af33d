"""`fastway status`, `links` and `kick`, against a small fake of a gateway's side."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fastway.__main__ import main
from fastway.cli import remote
from fastway.cli.table import RemoteOptions
from fastway.errors import LocalError
from tests.support.errors import raised
from tests.support.files import scratch
from tests.support.processes import PATIENCE

FAKE = textwrap.dedent(
    '''
    """A gateway's side: it answers what is in fastway.cmd, as its argument says."""
    import os, signal, sys, time

    how = sys.argv[1]
    caught = []
    signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))

    def write(name, text):
        with open(f"{name}.new", "w") as file:
            file.write(text)
        os.rename(f"{name}.new", name)

    write("fastway.pid", f"{os.getpid()}\\n")
    print("ready", flush=True)
    told = 0
    while True:
        time.sleep(0.01)
        if len(caught) == told:
            continue
        told = len(caught)
        about = os.stat("fastway.cmd")
        with open("fastway.cmd") as file:
            token, _, command = file.read().strip().removeprefix("#").partition(" ")
        write("seen", f"{oct(about.st_mode & 0o777)} {about.st_uid} {command}\\n")
        pid = os.getpid()
        if how == "ends":
            break
        if how == "silent":
            continue
        if how == "others":
            write("fastway.answer", f"another {pid}\\nnot for you\\n")
            time.sleep(0.2)
            write("fastway.answer", f"{token} 1\\nnor this\\n")
            time.sleep(0.2)
        if how == "refuses":
            write("fastway.answer", f"- {pid}\\nerror: no command run: fastway.cmd is strange\\n")
        elif command == "links":
            write("fastway.links.txt", "client\\t1\\nserver\\t7\\n")
            write("fastway.answer", f"{token} {pid}\\n2 links written to ./fastway.links.txt\\n")
        elif command == "kick client 9":
            write("fastway.answer", f"{token} {pid}\\nerror: no client 9 is connected\\n")
        else:
            write("fastway.answer", f"{token} {pid}\\n{command}: done\\nand more\\n")
    '''
)


class RemoteTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = scratch(self)
        for variable in [name for name in os.environ if name.startswith("FASTWAY_")]:
            self.addCleanup(os.environ.__setitem__, variable, os.environ.pop(variable))

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def write(self, name: str, text: str) -> None:
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def files(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    def gateway(self, how: str = "answers") -> subprocess.Popen[str]:
        """A process that answers commands as FAKE does."""
        process = subprocess.Popen(
            [sys.executable, "-c", FAKE, how],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        with process.stdout:
            self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def says(self, *arguments: str, status: int = 0) -> str:
        """What a command prints: on standard output if it went well, else its error line."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            found = main([*arguments, f"--run-dir={self.directory}"])
        self.assertEqual(found, status, err.getvalue())
        if status:
            self.assertEqual(len(err.getvalue().splitlines()), 1, err.getvalue())
            self.assertTrue(err.getvalue().startswith(f"fastway {arguments[0]}: "))
        return (err if status else out).getvalue()


class AskTests(RemoteTestCase):
    def test_status(self) -> None:
        """The whole answer is printed, and nothing of the exchange is left behind."""
        self.gateway()
        self.assertEqual(self.says("status"), "status: done\nand more\n")
        self.assertEqual(self.files(), ["fastway.pid", "seen"])

    def test_command_file(self) -> None:
        """The command file is there for its reader's user only, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        self.gateway()
        self.says("kick", "server", "7")
        with open(self.path("seen"), encoding="utf-8") as file:
            self.assertEqual(file.read(), f"0o600 {os.geteuid()} kick server 7\n")

    def test_links(self) -> None:
        """The links are printed, not only where they were written to."""
        self.gateway()
        self.assertEqual(self.says("links"), "client\t1\nserver\t7\n")

    def test_kick(self) -> None:
        """A kick says what happened; one that failed is one line and status 1."""
        self.gateway()
        self.assertIn("kick client 8: done", self.says("kick", "client", "8"))
        self.assertIn("no client 9 is connected", self.says("kick", "client", "9", status=1))
        self.assertEqual(self.files(), ["fastway.pid", "seen"])

    def test_drain(self) -> None:
        """A drain, one before a successor, and its undoing are the gateway's commands."""
        self.gateway()
        for words in (("drain",), ("drain", "again"), ("undrain",)):
            self.assertIn(f"{' '.join(words)}: done", self.says(*words))
        self.assertIn("'now' is not again", self.says("drain", "now", status=1))

    def test_bad_kick(self) -> None:
        """A kick of what cannot be is refused before anything is sent."""
        self.assertIn("'player' is neither", self.says("kick", "player", "1", status=1))
        for link_id in ("x", "4294967296"):
            self.assertIn(f"ID: '{link_id}'", self.says("kick", "client", link_id, status=1))

    def test_found_by_options(self) -> None:
        """The gateway is found by its configuration, or without a pid file by its process."""
        process = self.gateway()
        os.rename(self.path("fastway.pid"), self.path("gate.pid"))
        self.write("gate.toml", 'pid-file = "gate.pid"\nmax-packet = "1M"\n')
        for arguments in (
            ("--pid-file=gate.pid",),
            ("-c", self.path("gate.toml")),
            ("--pid", str(process.pid)),
        ):
            self.assertIn("done", self.says("status", *arguments))

    def test_others_answers(self) -> None:
        """An answer to somebody else, or of another process, is not taken for ours."""
        self.gateway("others")
        self.assertEqual(self.says("status"), "status: done\nand more\n")

    def test_old_answer(self) -> None:
        """What an earlier command left behind is not waited for nor printed."""
        process = self.gateway()
        self.write("fastway.answer", f"- {process.pid}\nerror: no command run: old\n")
        self.assertEqual(self.says("status"), "status: done\nand more\n")

    def test_many_at_once(self) -> None:
        """Several commands at the same time all get their own answers."""
        process = self.gateway()
        answers: list[str] = []

        def ask(link_id: int) -> None:
            options = RemoteOptions()
            options.parseOptions([f"--run-dir={self.directory}"])
            answers.append(remote.ask(options, f"kick server {link_id}"))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(
            sorted(answers), [f"kick server {number}: done\nand more" for number in range(5)]
        )
        self.assertIsNone(process.poll())


class RefusalTests(RemoteTestCase):
    def test_nobody(self) -> None:
        """Without a gateway it says where it looked, and how to say where one is."""
        line = self.says("status", status=1)
        self.assertIn(f"there is no {self.path('fastway.pid')}", line)
        self.assertIn("--run-dir or --config", line)
        self.write("fastway.pid", "garbage")
        self.assertIn("holds no process id", self.says("status", status=1))
        self.write("fastway.pid", "999999999")
        self.assertIn("there is no process 999999999", self.says("status", status=1))
        self.assertIn("has no pid file", self.says("status", "--pid-file=", status=1))
        self.assertIn("takes no commands", self.says("status", "--command-file=", status=1))
        self.assertEqual(self.files(), ["fastway.pid"])

    def test_stranger(self) -> None:
        """A process that SIGUSR1 would kill is not sent it: a stale pid file harms nobody."""
        process = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.write("fastway.pid", f"{process.pid}\n")
        line = self.says("status", status=1)
        self.assertIn(f"process {process.pid} does not wait for commands", line)
        self.assertEqual(self.files(), ["fastway.pid"])
        self.assertIsNone(process.poll())

    if not os.path.exists("/proc/self/status"):
        test_stranger.skip = "only Linux tells"  # type: ignore[attr-defined]

    def test_silence(self) -> None:
        """A gateway that does not answer is given up in time, and the command is taken back."""
        self.gateway("silent")
        before = time.monotonic()
        self.assertIn("did not answer in time", self.says("status", "-t", "300ms", status=1))
        self.assertLess(time.monotonic() - before, PATIENCE)
        self.assertNotIn("fastway.cmd", self.files())

    def test_its_end(self) -> None:
        """A gateway that ends instead of answering is noticed at once."""
        process = self.gateway("ends")
        reaper = threading.Thread(target=process.wait)
        reaper.start()
        self.assertIn("ended without an answer", self.says("status", "-t", "1h", status=1))
        reaper.join(PATIENCE)

    def test_refused_file(self) -> None:
        """Why the gateway did not take the command file is said."""
        self.gateway("refuses")
        self.assertIn("fastway.cmd is strange", self.says("status", status=1))

    def test_busy(self) -> None:
        """While others keep the gateway busy it waits, and then says so."""
        self.gateway()
        with remote.alone(self.directory, time.monotonic()):
            line = self.says("status", "--timeout=100ms", status=1)
        self.assertIn("another command is still being answered", line)
        self.assertIn("done", self.says("status"))

    def test_other_user(self) -> None:
        """A process of another user is left alone, with what to do."""

        def denied(pid: int, number: int) -> None:
            raise PermissionError

        self.patch(os, "kill", denied)
        error = raised(LocalError, remote.check_process, 1)
        self.assertIn("as that user or as root", str(error))

    def test_traps(self) -> None:
        """Links and pipes that somebody put into the directory are neither followed nor read."""
        target = self.path("target")
        self.write("target", "precious")
        os.symlink(target, self.path("fastway.cmd"))
        os.symlink(target, self.path(f"fastway.cmd.{os.getpid()}"))
        remote.write_command(self.path("fastway.cmd"), "#x status\n", None)
        with open(target, encoding="utf-8") as file:
            self.assertEqual(file.read(), "precious")
        about = os.lstat(self.path("fastway.cmd"))
        self.assertTrue(stat.S_ISREG(about.st_mode))
        self.assertEqual(stat.S_IMODE(about.st_mode), 0o600)
        os.symlink(target, self.path("answer"))
        raised(OSError, remote.read_whole, self.path("answer"))
        os.mkfifo(self.path("pipe"))
        raised(OSError, remote.read_whole, self.path("pipe"))

    def test_owner(self) -> None:
        """Root gives the command file to the gateway's user, who could not read it otherwise."""
        given: list[Any] = []
        self.patch(os, "fchown", lambda _, user, group: given.append((user, group)))
        remote.write_command(self.path("fastway.cmd"), "", os.geteuid())
        self.assertEqual(given, [])
        remote.write_command(self.path("fastway.cmd"), "", os.geteuid() + 1)
        self.assertEqual(given, [(os.geteuid() + 1, -1)])

    def test_cannot_write(self) -> None:
        """A directory that is not there, or a file that cannot be written, is one line."""
        raised(LocalError, remote.write_command, self.path("missing/x"), "", None)
        error = raised(LocalError, lambda: remote.alone(self.path("no"), 0).__enter__())
        self.assertIn("cannot open", str(error))

    def test_signals(self) -> None:
        """This process, which does not catch SIGUSR1 now, is told from one that does."""
        before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        raised(LocalError, remote.check_process, os.getpid())
        signal.signal(signal.SIGUSR1, lambda *_: None)
        self.assertEqual(remote.check_process(os.getpid()), os.geteuid())

    if not os.path.exists("/proc/self/status"):
        test_signals.skip = "only Linux tells"  # type: ignore[attr-defined]

"""The gateway as a process, started in the three ways: fastway, twistd fastway, the tac file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from twisted.trial.unittest import SynchronousTestCase

from fastway.ops.pidfile import PidFile
from tests.support.files import CHECKOUT, scratch
from tests.support.golden import PING, prove
from tests.support.paths import on_both_paths
from tests.support.processes import PATIENCE, environment, has_room
from tests.support.starts import Start, run_all

TAC = os.path.join(CHECKOUT, "fastway.tac")
CONSOLE = [sys.executable, "-m", "fastway"]

LOOPBACK = {"FASTWAY_CLIENT_ADDR": "127.0.0.1:0", "FASTWAY_SERVER_ADDR": "127.0.0.1:0"}


def wait_for(what: str, condition: Callable[[], object]) -> None:
    """Look every few milliseconds: other processes' files have no events of ours."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        select.select([], [], [], 0.01)


def twistd(*arguments: str) -> list[str]:
    """The command line of twistd, found beside this Python or run by it."""
    beside = os.path.join(os.path.dirname(sys.executable), "twistd")
    start = [sys.executable, beside] if os.path.exists(beside) else ["twistd"]
    return [*start, *arguments]


def alive(pid: int) -> bool:
    """The process is there and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class ProcessTestCase(SynchronousTestCase):
    relay = False

    def setUp(self) -> None:
        self.directory = scratch(self)

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def read(self, name: str) -> str:
        with (
            contextlib.suppress(FileNotFoundError),
            open(self.path(name), encoding="utf-8") as file,
        ):
            return file.read()
        return ""

    def spawn(
        self, command: Sequence[str], settings: Mapping[str, str], output: str = "output"
    ) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to a file; it is killed at the end of the test."""
        with open(self.path(output), "wb") as file:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=environment({"FASTWAY_RELAY": "on" if self.relay else "off", **settings}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

        def end() -> None:
            if process.poll() is None:
                process.kill()
            process.wait()

        self.addCleanup(end)
        return process

    def ports(self, log: str) -> tuple[int, int]:
        """The ports that a gateway's log names, once it runs."""
        wait_for(f"the start, in {log}", lambda: "fastway runs as process" in self.read(log))
        found = []
        for side in ("client", "server"):
            line = self.read(log).partition(f"{side} port listens on 127.0.0.1:")[2]
            found.append(int(line.split()[0]))
        return found[0], found[1]

    def connect(self, port: int) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.addCleanup(sock.close)
        return sock

    def serves(self, ports: tuple[int, int]) -> tuple[socket.socket, socket.socket]:
        """A client and a server that the gateway answers."""
        client, server = self.connect(ports[0]), self.connect(ports[1])
        client.sendall(PING)
        self.assertEqual(client.recv(len(PING), socket.MSG_WAITALL), PING)
        challenge = server.recv(8, socket.MSG_WAITALL)
        server.sendall(prove(challenge, 1, b"") + PING)
        self.assertEqual(server.recv(len(PING), socket.MSG_WAITALL), PING)
        return client, server

    def leave(self, peers: Sequence[socket.socket]) -> None:
        """The gateway has ended both, and they end too: nobody lingers for them."""
        for peer in peers:
            self.assertEqual(peer.recv(1), b"")
            peer.close()

    def command(self, text: str) -> None:
        """Write the command file, its mode independent of the umask."""
        with open(self.path("fastway.cmd"), "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path("fastway.cmd"), 0o600)


@on_both_paths
class ConsoleTests(ProcessTestCase):
    def test_life(self) -> None:
        """`fastway` listens, says where, obeys SIGUSR1, and SIGTERM ends it with status 0."""
        process = self.spawn(CONSOLE, LOOPBACK)
        peers = self.serves(self.ports("output"))
        self.assertEqual(int(self.read("fastway.pid")), process.pid)
        self.assertTrue(has_room(process.pid))
        self.command("lookup gc")
        process.send_signal(signal.SIGUSR1)
        wait_for("the answer", lambda: "lookup gc: generation 2: " in self.read("output"))
        self.command("reboot")
        process.send_signal(signal.SIGUSR1)
        wait_for("the refusal", lambda: "unknown command 'reboot'" in self.read("output"))
        process.send_signal(signal.SIGTERM)
        self.leave(peers)
        self.assertEqual(process.wait(PATIENCE), 0)
        self.assertEqual(sorted(os.listdir(self.directory)), ["fastway.cmd", "output"])
        self.assertNotIn("Traceback", self.read("output"))

    def test_logfile(self) -> None:
        """With --logfile the console stays silent, and SIGHUP opens the file anew."""
        settings = {**LOOPBACK, "FASTWAY_LOGFILE": "a.log"}
        process = self.spawn([*CONSOLE, "--log-format=json"], settings)
        wait_for("the start", lambda: "fastway runs as" in self.read("a.log"))
        os.rename(self.path("a.log"), self.path("a.log.1"))
        process.send_signal(signal.SIGHUP)
        wait_for("the new file", lambda: "log file reopened" in self.read("a.log"))
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), 0)
        self.assertIn("fastway stopped", self.read("a.log"))
        self.assertEqual(self.read("output"), "")
        self.assertFalse(os.path.exists(self.path("fastway.pid")))

    def test_two_on_one_directory(self) -> None:
        """A second gateway on the same directory is refused, and the first goes on; after a
        kill -9 the next one replaces the stale pid file."""
        first = self.spawn(CONSOLE, LOOPBACK, "first")
        ports = self.ports("first")
        second = self.spawn(CONSOLE, LOOPBACK, "second")
        self.assertEqual(second.wait(PATIENCE), 1)
        self.assertIn(f"names process {first.pid}, which is running", self.read("second"))
        self.assertEqual(len(self.read("second").splitlines()), 1)
        self.serves(ports)
        self.assertEqual(int(self.read("fastway.pid")), first.pid)
        first.kill()
        first.wait()
        third = self.spawn(CONSOLE, LOOPBACK, "third")
        self.ports("third")
        self.assertIn("was stale", self.read("third"))
        self.assertEqual(int(self.read("fastway.pid")), third.pid)


@on_both_paths
class SignalTests(ProcessTestCase):
    def test_command_as_the_pid_file_appears(self) -> None:
        """SIGUSR1 at the moment the pid file is there does not kill, however often it comes."""
        process = self.spawn(CONSOLE, LOOPBACK)
        deadline = time.monotonic() + PATIENCE
        while not self.read("fastway.pid").endswith("\n"):
            self.assertLess(time.monotonic(), deadline)
        while "fastway runs as" not in self.read("output"):
            process.send_signal(signal.SIGUSR1)
            self.assertLess(time.monotonic(), deadline)
        self.serves(self.ports("output"))

    def test_command_during_the_stop(self) -> None:
        """SIGUSR1 from the stop's beginning to its end does not kill."""
        process = self.spawn(CONSOLE, LOOPBACK)
        self.ports("output")
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            process.send_signal(signal.SIGUSR1)
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(process.returncode, 0)

    def test_hurry(self) -> None:
        """A second signal ends a stop that waits for a link at once; five more change nothing."""
        for more in (1, 6):
            process = self.spawn(CONSOLE, LOOPBACK, f"output{more}")
            client = self.connect(self.ports(f"output{more}")[0])
            client.sendall(PING)
            client.recv(len(PING), socket.MSG_WAITALL)  # and it does not close
            process.send_signal(signal.SIGTERM)
            wait_for("the stop", lambda: "fastway stops" in self.read(f"output{more}"))  # noqa: B023
            for _ in range(more):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGINT)
                    select.select([], [], [], 0.005)
            self.assertEqual(process.wait(PATIENCE), 0)
            self.assertNotIn("Traceback", self.read(f"output{more}"))
            self.assertIn("fastway stops at once", self.read(f"output{more}"))

    def test_drain(self) -> None:
        """With drain-timeout SIGTERM drains: new ones are refused, the others go on until their
        turn, and the status is 0."""
        self.drain(CONSOLE, (0,))

    def test_twistd_drain(self) -> None:
        """The same under twistd, which ends as the signal would have ended it."""
        self.drain(twistd("-n", "--pidfile=", "fastway"), (0, -signal.SIGTERM))

    def drain(self, command: Sequence[str], status: tuple[int, ...]) -> None:
        drain = {"TIMEOUT": "60s", "DELAY": "0", "GRACE": "100ms", "SPREAD": "100ms"}
        told = {f"FASTWAY_DRAIN_{name}": text for name, text in drain.items()}
        systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(systemd.close)
        systemd.settimeout(PATIENCE)
        systemd.bind(self.path("systemd"))
        told["NOTIFY_SOCKET"] = self.path("systemd")
        process = self.spawn(command, {**LOOPBACK, **told})
        ports = self.ports("output")
        peers = self.serves(ports)
        process.send_signal(signal.SIGTERM)
        wait_for("the ports to close", lambda: "drain: ports are closed" in self.read("output"))
        with socket.socket() as late:
            self.assertEqual(late.connect_ex(("127.0.0.1", ports[0])), errno.ECONNREFUSED)
        self.leave(peers)
        self.assertIn(process.wait(PATIENCE), status)
        self.assertEqual(
            [systemd.recv(1000) for _ in range(3)],
            [
                b"READY=1\nSTATUS=runs",
                b"STATUS=drains\nEXTEND_TIMEOUT_USEC=75000000",
                b"STOPPING=1\nSTATUS=stops",
            ],
        )
        output = self.read("output")
        self.assertIn("lost: the gateway is drained before it stops", output)
        self.assertIn("drain: over after", output)
        self.assertIn("fastway stopped", output)
        self.assertNotIn("Traceback", output)
        self.assertFalse(os.path.exists(self.path("fastway.pid")))

    def test_socket_activation(self) -> None:
        """It serves at a socket that whoever started it had opened, and tells nobody else of it;
        who connects before it runs waits."""
        for command in (CONSOLE, twistd("-n", "--pidfile=", "fastway")):
            given = socket.create_server(("127.0.0.1", 0))
            self.addCleanup(given.close)
            early = self.connect(given.getsockname()[1])
            early.sendall(PING)
            activator = (
                "import os, sys; os.dup2(int(sys.argv[1]), 3);"
                "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1',"
                " LISTEN_FDNAMES='clients'); os.execv(sys.argv[2], sys.argv[2:])"
            )
            name = f"output{given.fileno()}"
            with open(self.path(name), "wb") as file:
                process = subprocess.Popen(
                    [sys.executable, "-c", activator, str(given.fileno()), *command],
                    cwd=self.directory,
                    env=environment({**LOOPBACK, "FASTWAY_CLIENT_ADDR": "systemd:clients"}),
                    stdout=file,
                    stderr=file,
                    pass_fds=[given.fileno()],
                )
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            self.assertEqual(early.recv(len(PING), socket.MSG_WAITALL), PING)
            with open(f"/proc/{process.pid}/fdinfo/3", encoding="ascii") as info:
                (flags,) = (line.split()[1] for line in info if line.startswith("flags:"))
            self.assertTrue(int(flags, 8) & os.O_CLOEXEC)
            process.terminate()
            self.leave([early])
            process.wait(PATIENCE)
            self.assertNotIn("Traceback", self.read(name))

    def test_stop_of_a_drain(self) -> None:
        """A second SIGTERM stops a gateway that drains, and a third hurries that; under twistd
        too."""
        for more, command in ((1, CONSOLE), (2, twistd("-n", "--pidfile=", "fastway"))):
            name = f"output{more}"
            process = self.spawn(command, {**LOOPBACK, "FASTWAY_DRAIN_TIMEOUT": "600s"}, name)
            client = self.connect(self.ports(name)[0])
            client.sendall(PING)
            client.recv(len(PING), socket.MSG_WAITALL)
            process.send_signal(signal.SIGTERM)
            wait_for("the drain", lambda: "drain: nobody should" in self.read(name))  # noqa: B023
            client.sendall(PING)
            self.assertEqual(client.recv(len(PING), socket.MSG_WAITALL), PING)
            for _ in range(more):
                process.send_signal(signal.SIGTERM)
                wait_for("the stop", lambda: "fastway stops" in self.read(name))  # noqa: B023
            if more == 1:
                self.leave([client])
            # twistd ends as the signal would have ended it.
            self.assertIn(process.wait(PATIENCE), (0, *([-signal.SIGTERM] if more > 1 else [])))
            self.assertNotIn("Traceback", self.read(name))

    def test_many_at_once(self) -> None:
        """Signals that come together are a stop, and no traceback."""
        process = self.spawn(CONSOLE, LOOPBACK)
        self.serves(self.ports("output"))
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), 0)
        self.assertNotIn("Traceback", self.read("output"))


@on_both_paths
class LogTests(ProcessTestCase):
    def test_stuck_reader(self) -> None:
        """A gateway whose log nobody reads forwards, answers commands, and stops in time."""
        for command in (CONSOLE, twistd("-n", "--pidfile=", "fastway")):
            reader, writer = os.pipe()
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=environment({"FASTWAY_RELAY": "on" if self.relay else "off", **LOOPBACK}),
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
            )
            os.close(writer)
            self.addCleanup(os.close, reader)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            wait_for("the start", lambda: self.read("fastway.pid").endswith("\n"))
            for number in range(20):  # far more than the pipe takes
                self.command(f"#{number} help\n")
                process.send_signal(signal.SIGUSR1)
                self.answered(number)
            self.command("#99 status\n")
            process.send_signal(signal.SIGUSR1)
            self.answered(99)
            ports = {}
            for row in self.read("fastway.answer").splitlines():
                side, _, addr = row.partition(" port: 127.0.0.1:")
                ports[side] = int(re.split("[,;]", addr)[0]) if addr else 0
            self.serves((ports["client"], ports["server"]))
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)  # its peers do not close
            self.assertIn(process.wait(PATIENCE), (0, -signal.SIGTERM, -signal.SIGINT))

    def answered(self, number: int) -> None:
        wait_for("the answer", lambda: self.read("fastway.answer").startswith(f"{number} "))

    def test_twistd_lines_once(self) -> None:
        """`twistd fastway --logfile a.log` writes each line there, and only there."""
        settings = {**LOOPBACK, "FASTWAY_LOGFILE": "a.log"}
        process = self.spawn(twistd("-n", "--pidfile=", "fastway"), settings)
        self.ports("a.log")
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        ours = set(self.read("a.log").splitlines())
        twistds = set(self.read("output").splitlines())
        self.assertIn("fastway stopped", self.read("a.log"))
        self.assertIn("the log goes on in", self.read("output"))
        self.assertIn("Server Shut Down.", self.read("output"))
        self.assertEqual(ours & twistds, set())
        self.assertNotIn("port listens", self.read("output"))


@on_both_paths
class TwistdTests(ProcessTestCase):
    def test_daemon(self) -> None:
        """`twistd fastway` daemonizes; the process in fastway.pid serves until it is killed."""
        process = self.spawn(twistd("fastway"), LOOPBACK)
        self.assertEqual(process.wait(PATIENCE), 0, self.read("output"))
        wait_for("the pid file", lambda: self.read("fastway.pid").endswith("\n"))
        pid = int(self.read("fastway.pid"))
        self.addCleanup(self.end, pid)
        self.assertNotEqual(pid, process.pid)
        peers = self.serves(self.ports("twistd.log"))
        self.assertTrue(has_room(pid))
        self.assertEqual(os.stat(self.path("fastway.pid")).st_mode & 0o777, 0o644)
        self.command("status")
        os.kill(pid, signal.SIGUSR1)
        wait_for("the answer", lambda: "clients: 1 connected" in self.read("twistd.log"))
        os.kill(pid, signal.SIGTERM)
        self.leave(peers)
        wait_for("its end", lambda: not alive(pid))
        self.assertEqual(
            sorted(os.listdir(self.directory)), ["fastway.cmd", "output", "twistd.log"]
        )
        self.assertNotIn("Traceback", self.read("twistd.log"))
        self.assertEqual(self.read("output"), "")

    def end(self, pid: int) -> None:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)

    def test_tac(self) -> None:
        """`twistd -ny fastway.tac` takes FASTWAY_* and fastway.toml in the working directory."""
        with open(self.path("fastway.toml"), "w", encoding="utf-8") as file:
            file.write('[client]\naddr = "127.0.0.1:0"\n')
        settings = {"FASTWAY_SERVER_ADDR": "127.0.0.1:0", "FASTWAY_RUN_DIR": "run"}
        os.mkdir(self.path("run"))
        process = self.spawn(twistd("-ny", TAC), settings)
        peers = self.serves(self.ports("output"))
        self.assertEqual(int(self.read("run/fastway.pid")), process.pid)
        process.send_signal(signal.SIGTERM)
        self.leave(peers)
        # twistd ends as the signal would have ended it, which systemd takes for a clean end.
        self.assertIn(process.wait(PATIENCE), (0, -signal.SIGTERM))
        self.assertEqual(os.listdir(self.path("run")), [])
        self.assertNotIn("Traceback", self.read("output"))


class OperatorErrorTests(ProcessTestCase):
    """Whatever is wrong, each of the three ways to start says it in one line of standard error."""

    def starts(self) -> list[tuple[str, list[str]]]:
        script = [shutil.which(part) or part for part in twistd()][-1:]
        return [
            ("fastway", CONSOLE[1:]),
            ("twistd -n fastway", [*script, "-n", "--pidfile=", "fastway"]),
            ("twistd -ny fastway.tac", [*script, "-n", "--pidfile=", "-y", TAC]),
        ]

    def check(self, *cases: tuple[Mapping[str, str], Sequence[str]]) -> None:
        """Each case's settings end each start with status 1 and one line that has the words.

        All run at once, each in a directory of its own.
        """
        starts, names = [], []
        for place, (settings, words) in enumerate(cases):
            for name, command in self.starts():
                cwd = self.path(f"{place} {name}")
                os.mkdir(cwd)
                starts.append(Start(command, cwd, {**LOOPBACK, **settings}))
                names.append((name, words))
        problems = []
        for start, (name, words), ended in zip(starts, names, run_all(starts), strict=True):
            wrong = {
                f"status {ended.status}": ended.status != 1,
                "a traceback": "Traceback" in ended.output + ended.errors,
                "not one line": len(ended.errors.splitlines()) != 1,
                "not by fastway": not ended.errors.startswith("fastway: "),
                f"not all of {words}": not all(word in ended.errors for word in words),
                "left behind": os.listdir(start.cwd) != [],
            }
            found = [problem for problem, here in wrong.items() if here]
            if found:
                more = f"{name} with {start.settings}: {', '.join(found)}"
                problems.append(f"{more}:\n{ended.errors[-400:]}")
        self.assertEqual(problems, [], "\n".join(problems))

    def test_options(self) -> None:
        """A bad value, an unknown name, a missing file: the variable or option, and the mend."""
        self.check(
            ({"FASTWAY_MAX_PACKET": "big"}, ["FASTWAY_MAX_PACKET: 'big'", "K, M or G"]),
            ({"FASTWAY_CLIENT_ADR": ":1"}, ["FASTWAY_CLIENT_ADR", "did you mean"]),
            ({"FASTWAY_CONFIG": "missing.toml"}, ["cannot read missing.toml"]),
            ({"FASTWAY_MEM_POOL_TYPE": "slab"}, ["FASTWAY_MEM_POOL_TYPE", "sync, atom, chan"]),
            ({"FASTWAY_CLIENT_SNET_ENCRYPT": "1"}, ["FASTWAY_CLIENT_SNET_ENCRYPT", "enable"]),
        )

    def test_place(self) -> None:
        """A busy port, an open port without a key, a bad run directory, a live pid file."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            busy = f"127.0.0.1:{sock.getsockname()[1]}"
            file, held = self.path("file"), self.path("held")
            with open(file, "wb"):
                pass
            os.mkdir(held)
            pid_file = PidFile(os.path.join(held, "fastway.pid"))
            pid_file.write()
            self.addCleanup(pid_file.remove)
            self.check(
                ({"FASTWAY_CLIENT_ADDR": busy}, ["FASTWAY_CLIENT_ADDR", busy, "another port"]),
                ({"FASTWAY_SERVER_ADDR": ":0"}, ["server-auth-password", "--allow-empty-key"]),
                ({"FASTWAY_RUN_DIR": file}, ["FASTWAY_RUN_DIR", file, "make it"]),
                (
                    {"FASTWAY_RUN_DIR": held},
                    [f"process {os.getpid()}, which is running", "--pid-file or --run-dir"],
                ),
            )

    def test_files(self) -> None:
        """A log file that cannot be written, garbage for a pid file, a host that cannot be."""
        garbage = self.path("garbage")
        os.mkdir(garbage)
        os.mkdir(os.path.join(garbage, "fastway.pid"))
        self.check(
            ({"FASTWAY_LOGFILE": "missing/a.log"}, ["logfile", "missing/a.log"]),
            ({"FASTWAY_RUN_DIR": garbage}, ["pid-file", "Is a directory"]),
            ({"FASTWAY_CLIENT_ADDR": "a..b:1"}, ["FASTWAY_CLIENT_ADDR", "a..b:1"]),
        )

    def test_command_line(self) -> None:
        """What is wrong on the command line is said with the option as it was typed."""
        for arguments, word in (
            (["--client-adr=:1"], "--client-adr: no such option (did you mean --client-addr?)"),
            (["--max-packet"], "--max-packet: needs a value"),
        ):
            for start in (CONSOLE, twistd("-n", "--pidfile=", "fastway")):
                done = subprocess.run(
                    [*start, *arguments],
                    cwd=self.directory,
                    env=environment(LOOPBACK),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
                self.assertEqual(done.returncode, 1)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                self.assertIn(word, done.stderr)

    def test_daemon(self) -> None:
        """A daemon that fails after it left the terminal still ends its starter with the line."""
        done = subprocess.run(
            [*twistd("fastway"), "--logfile=missing/a.log"],
            cwd=self.directory,
            env=environment(LOOPBACK),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("missing/a.log", done.stderr + done.stdout)
        self.assertNotIn("Traceback", done.stderr + done.stdout)
        self.assertFalse(os.path.exists(self.path("fastway.pid")))

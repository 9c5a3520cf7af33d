"""Programs that are forked from a process which has fastway and Twisted imported: a start costs a
tenth of one that begins with nothing, and most tests with processes are made of starts.

Rule: for programs that imports do not matter to. Who started one sees a process as any other, but
that it is fork_client's, whose signals, streams, directory, environment and status are the fork's.
It is killed with that process, and all are when these tests end. What a fork prints is unbuffered
where PYTHONUNBUFFERED says so; other settings of Python's own it does not see.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import io
import marshal
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.support.files import CHECKOUT
from tests.support.processes import environment

MODULES = (
    "fastway.aio",
    "fastway.app.testing",
    "fastway.assemble",
    "fastway.cli.app",
    "fastway.cli.tools",
    "fastway.cluster",
    "fastway.endpoint",
    "fastway.service",
    "fastway.testing",
    "twisted.scripts.twistd",
    "twisted.web.server",
)


def python() -> list[str]:
    """What begins `-m MODULE` or a script's path, and its arguments, in place of `python`."""
    if not hasattr(os, "pidfd_open"):
        return [sys.executable]
    client = os.path.join(CHECKOUT, "tests", "support", "fork_client.py")
    return [sys.executable, "-I", "-S", client, _server()]


@functools.cache
def _server() -> str:
    """The server of this process; returns the path of its socket."""
    directory = tempfile.mkdtemp(prefix="fastway-forks-")
    path = os.path.join(directory, "forks")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(listening.fileno())],
            cwd=directory,
            env=environment({}),
            stdin=subprocess.PIPE,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        )

    atexit.register(process.communicate)  # the end of its input is its end
    return path


@dataclass(frozen=True)
class Fork:
    """A program that runs.

    Attributes:
        ended: A descriptor which may be read from when it has ended.
        client: Who waits for it; may be read from when that is gone.
    """

    pid: int
    ended: int
    client: socket.socket

    @property
    def watched(self) -> tuple[int, socket.socket]:
        return self.ended, self.client

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):  # of a group that it has not made yet
            os.kill(self.pid, signal.SIGKILL)

    def over(self, was_killed: bool) -> None:
        """It has ended, or its client was killed."""
        if was_killed:
            self.kill()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        with suppress(OSError):
            self.client.sendall(status.to_bytes(8, "big", signed=True))
        os.close(self.ended)
        self.client.close()


def serve(listening: socket.socket) -> Sequence[str] | None:
    """Fork for each who connects, until the end of standard input.

    Returns:
        In a fork its command; in this process None, when all forks are killed.
    """
    for module in MODULES:
        importlib.import_module(module)
    # A reactor has descriptors, which forks would share.
    assert "twisted.internet.reactor" not in sys.modules
    gc.freeze()
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    forks: set[Fork] = set()
    while True:
        for key, _ in selector.select():
            if key.fd == 0:
                for fork in forks:
                    fork.kill()
                return None
            if key.fd == listening.fileno():
                client, _ = listening.accept()
                size, streams, _, _ = socket.recv_fds(client, 8, 3)
                with client.makefile("rb") as file:
                    row = file.read(int.from_bytes(size, "big"))
                if not row:  # it was killed
                    client.close()
                    continue
                pid = os.fork()
                if not pid:
                    # Not their numbers alone: these objects would close others of the program's.
                    selector.close()
                    for one in (listening, client, *(fork.client for fork in forks)):
                        one.close()
                    return become(streams, *marshal.loads(row))
                for stream in streams:
                    os.close(stream)
                with suppress(OSError):
                    client.sendall(pid.to_bytes(8, "big"))
                fork = Fork(pid, os.pidfd_open(pid), client)
                forks.add(fork)
                for one in fork.watched:
                    selector.register(one, selectors.EVENT_READ, fork)
            elif key.data in forks:
                fork = key.data
                forks.remove(fork)
                for one in fork.watched:
                    selector.unregister(one)
                fork.over(was_killed=key.fileobj is fork.client)


def become(
    streams: Sequence[int], command: Sequence[str], directory: str, settings: dict[str, str]
) -> Sequence[str]:
    """Make this process that of a command."""
    os.setsid()
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(settings)
    if settings.get("PYTHONUNBUFFERED"):
        for name, number in (("stdout", 1), ("stderr", 2)):
            raw = io.FileIO(number, "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(raw, "utf-8", write_through=True))
    return command


def run(command: Sequence[str]) -> None:
    """Run a command in this process, as Python does."""
    if command[0] == "-m":
        sys.argv = list(command[1:])
        sys.path[0] = os.getcwd()
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(command)
        sys.path[0] = os.path.dirname(os.path.abspath(command[0]))
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    given = serve(socket.socket(fileno=int(sys.argv[1])))
    if given is None:
        shutil.rmtree(os.getcwd(), ignore_errors=True)
    else:
        run(given)

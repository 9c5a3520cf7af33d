"""What runs beside a gateway while it is attacked: the pair, the attackers, and who watches.

Law: the gateway has the first core, everything else the last, where the pair goes first.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.gateways import LAST_CORE, Failure, Running
from bench.process import cpu_seconds, resident, waited_seconds

PATIENCE = 60.0
"""Seconds for attackers to connect."""
SAMPLE = 0.02
"""Seconds between two looks at the gateway's memory."""
ANSWER = 10.0
"""Seconds for a gateway to answer `status`."""
SETTLE = 2.0
"""Seconds after an attack until the memory is read that stays."""
MOST_MEMORY = 3 << 30
"""Bytes of the gateway at which an attack ends early."""


class Ends:
    """A program on the last core that answers each line with one."""

    def __init__(self, command: Sequence[str], first: bool = False) -> None:
        self.name = os.path.basename(command[0])
        self.process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=go_first if first else go_last,
        )

    def say(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b"\n")

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def hear(self, patience: float = PATIENCE) -> str:
        """Its next line.

        Raises:
            Failure: It ended instead, with what it said; or it says nothing.
        """
        assert self.process.stdout is not None and self.process.stderr is not None
        ready, _, _ = select.select([self.process.stdout], [], [], patience)
        line: bytes = self.process.stdout.readline() if ready else b""
        if line:
            return line.decode().strip()
        self.process.kill()
        said = self.process.stderr.read().decode().strip()
        raise Failure(said or f"{self.name}: no answer")

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()


def go_first() -> None:
    """The pair is on time although attackers share its core, where that is allowed."""
    os.sched_setaffinity(0, {LAST_CORE})
    put_first(0)


def put_first(pid: int) -> None:
    """Let a process run before others, where that is allowed. The kernel stops it for 50 ms of a
    second in which it is always busy."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))


def go_last() -> None:
    os.sched_setaffinity(0, {LAST_CORE})
    if not may_go_first():
        os.nice(19)


def may_go_first() -> bool:
    """Whether the kernel lets the pair have precedence; else the attackers give way."""
    try:
        was = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        os.sched_setscheduler(0, *was)
    except PermissionError:
        return False
    return True


class Watch:
    """Looks at a gateway while time passes.

    Attributes:
        peak: The most bytes of memory that were seen.
        stopped: The gateway had MOST_MEMORY.
    """

    def __init__(self, gateway: Running) -> None:
        self.gateway = gateway
        self.peak = 0
        self.stopped = False
        self.commands = itertools.cycle(["status\n", "links\n"])
        self.directory = Path(f"/proc/{gateway.pid}/cwd")

    def pass_time(self, seconds: float, reports: int = 0) -> tuple[float, float]:
        """Let `seconds` pass, or fewer when the memory is over.

        Returns:
            The gateway's share of its core; and the part of the time for which it could have run
            and something else did: what the machine's noise took from it.
        """
        pid, began, asked = self.gateway.pid, time.monotonic(), 0
        cpu, waited = cpu_seconds(pid), waited_seconds(pid)
        while (passed := time.monotonic() - began) < seconds and not self.stopped:
            if reports and passed * reports >= asked:
                self.ask()
                asked += 1
            self.peak = max(self.peak, resident(pid))
            self.stopped = self.peak > MOST_MEMORY
            time.sleep(SAMPLE)
        took = time.monotonic() - began
        return (cpu_seconds(pid) - cpu) / took, (waited_seconds(pid) - waited) / took

    def ask(self) -> None:
        """A report, and another one the next time."""
        written = self.directory / "fastway.cmd.new"
        written.write_text(next(self.commands), encoding="utf-8")
        written.rename(self.directory / "fastway.cmd")
        os.kill(self.gateway.pid, signal.SIGUSR1)

    def log_bytes(self) -> int:
        """What the gateway has written on standard error, which is a file."""
        return os.stat(f"/proc/{self.gateway.pid}/fd/2").st_size

    def status(self) -> str:
        """The answer to `status`; empty: there was none in time."""
        before = self.log_bytes()
        self.commands = itertools.cycle(["status\n"])
        self.ask()
        deadline = time.monotonic() + ANSWER
        while time.monotonic() < deadline:
            time.sleep(SAMPLE)
            with open(f"/proc/{self.gateway.pid}/fd/2", "rb") as log:
                log.seek(before)
                said = log.read().decode(errors="replace")
            if "memory: " in said:
                return said
        return ""

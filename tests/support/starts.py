"""Many command lines at once, each in a process that is forked from one which has fastway and
twistd imported: a start costs a tenth of one that begins with nothing.

Rule: for those that end by themselves. A fork has its own directory, environment, arguments and
output; what Python does at its end, and with an error that nobody caught, is what it always does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.processes import PATIENCE, environment


@dataclass(frozen=True)
class Start:
    """A command line of this Python: `-m MODULE` or a script's path, and its arguments."""

    command: Sequence[str]
    cwd: str
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Ended:
    status: int
    output: str
    errors: str


def run_all(starts: Sequence[Start]) -> list[Ended]:
    """Start them all, and wait until all have ended.

    Raises:
        subprocess.TimeoutExpired: they do not within PATIENCE; all are killed.
    """
    with tempfile.TemporaryDirectory(prefix="fastway-starts-") as directory:
        rows = [asdict(start) | {"settings": environment(start.settings)} for start in starts]
        with subprocess.Popen(
            [sys.executable, "-m", __name__, directory],
            cwd=directory,
            env=environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                statuses, _ = process.communicate(json.dumps(rows), PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                raise
        here = Path(directory)
        return [
            Ended(status, (here / f"{number}.1").read_text(), (here / f"{number}.2").read_text())
            for number, status in enumerate(json.loads(statuses))
        ]


def fork_all(directory: str) -> bool:
    """Fork for each row of standard input, and tell how all ended on standard output.

    Returns:
        This is a fork: it has become a start, whose command is in sys.argv.
    """
    for module in ("fastway.assemble", "fastway.service", "twisted.scripts.twistd"):
        importlib.import_module(module)
    # A reactor has descriptors, which forks would share.
    assert "twisted.internet.reactor" not in sys.modules
    gc.freeze()
    forks = []
    for number, row in enumerate(json.load(sys.stdin)):
        pid = os.fork()
        if not pid:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for stream in (1, 2):
                flags = os.O_WRONLY | os.O_CREAT
                os.dup2(
                    os.open(os.path.join(directory, f"{number}.{stream}"), flags, 0o600), stream
                )
            os.chdir(row["cwd"])
            os.environ.clear()
            os.environ.update(row["settings"])
            sys.argv = row["command"]
            return True
        forks.append(pid)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in forks]
    print(json.dumps(statuses))
    return False


if __name__ == "__main__" and fork_all(sys.argv[1]):
    if sys.argv[0] == "-m":
        sys.argv = sys.argv[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")

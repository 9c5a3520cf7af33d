"""What a thousand calls at once on one session cost both of its ends, in teleport's wire (v6).

    python -m bench.calls [--runs N] [--seconds S] [--server COMMAND] [--client COMMAND]

All are asked before the first is answered; when the last is, the next thousand follow. `--server`
and `--client` run other ends beside ours: `{port}` in a command becomes the port. A server is as
for `bench.app`. A client says `ready`; for each line, which has milliseconds, it works so long,
and says how many calls were answered and the nanoseconds it took.

Each server is alone on the first core while it works; its client is on the last.

Law: as that of `bench.app`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from bench.app import SERVE, Server, Text, take_turns
from bench.gateways import LAST_CORE, ROOT, Failure, run, say_how
from bench.process import cpu_seconds
from bench.table import Case, Figure, Result, Table

AT_ONCE = 1000
FIGURES = (
    Figure("server, µs of CPU each", "server"),
    Figure("client, µs of CPU each", "client"),
    Figure("µs each, by the clock", "clock"),
)
CALL = [sys.executable, "-m", "bench.calls", "--call", "{port}"]


class Caller:
    """The client of one server, which rests unless it is told to work."""

    def __init__(self, server: Server, command: Sequence[str]) -> None:
        self._server = server
        self._process = subprocess.Popen(
            [word.replace("{port}", server.port) for word in command],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {LAST_CORE}),
        )
        self._cpu = [0.0, 0.0]
        self._calls, self._seconds = 0, 0.0
        if self._line() != "ready":
            raise Failure(f"the client of {server.name} is not in")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _spent(self) -> list[float]:
        return [cpu_seconds(pid) for pid in (self._server.pid, self._process.pid)]

    def work(self, milliseconds: int, counts: bool = True) -> None:
        """Raises Failure: an answer is wrong, or missing."""
        assert self._process.stdin is not None
        before = self._spent()
        self._process.stdin.write(f"{milliseconds}\n")
        self._process.stdin.flush()
        said = self._line().split()
        if len(said) != 2:
            raise Failure(f"the client of {self._server.name} has ended")
        if counts:
            pairs = zip(self._cpu, before, self._spent(), strict=True)
            self._cpu = [sum_ + now - then for sum_, then, now in pairs]
            self._calls += int(said[0])
            self._seconds += int(said[1]) / 1e9

    def result(self) -> Result:
        each = 1e6 / max(1, self._calls)
        server, client = self._cpu
        return {"server": server * each, "client": client * each, "clock": self._seconds * each}

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()


def measure(
    servers: dict[str, list[str]], command: list[str], seconds: float
) -> dict[str, Result]:
    """A client with each server, which take turns in short parts."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(Server(*one)) for one in servers.items()]
        for server in made:
            server.wait()
        callers = {one.name: stack.enter_context(Caller(one, command)) for one in made}
        take_turns(list(callers.values()), seconds)
        return {name: caller.result() for name, caller in callers.items()}


def compare(arguments: argparse.Namespace) -> None:
    """Measure, and print the table."""
    servers = {way: [*SERVE, way, "--wire", "teleport"] for way in ("native", "twisted")}
    clients = {"our client": CALL}
    if arguments.server:
        servers["peer"] = shlex.split(arguments.server)
    if arguments.client:
        clients["the peer's client"] = shlex.split(arguments.client)
    cases = [Case(name, "", FIGURES) for name in clients]
    table = Table(cases, list(servers), "peer" if arguments.server else "native")
    say_how(arguments)
    for _ in range(arguments.runs):
        for name, command in clients.items():
            for way, result in measure(servers, command, arguments.seconds).items():
                table.results[name, way].append(result)
    for line in table.lines():
        print(line)


def call(port: str) -> None:
    """Be the client, until the input ends."""
    from twisted.internet.defer import ensureDeferred, gatherResults
    from twisted.internet.endpoints import clientFromString
    from twisted.internet.task import react
    from twisted.internet.threads import deferToThread

    from fastway.app import App
    from fastway.dialect.teleport import Teleport

    async def main(reactor: object) -> None:
        endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{port}")
        session = await App().connect(endpoint, Teleport())
        text = Text("x" * 64)
        print("ready", flush=True)
        while line := await deferToThread(sys.stdin.readline):
            began = time.monotonic_ns()
            end, calls = began + int(line) * 1_000_000, 0
            while time.monotonic_ns() < end:
                asked = [session.request("room.echo", text, into=Text) for _ in range(AT_ONCE)]
                answers = await gatherResults(asked)
                if any(answer != text for answer in answers):
                    return
                calls += len(answers)
            print(calls, time.monotonic_ns() - began, flush=True)

    react(lambda reactor: ensureDeferred(main(reactor)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--runs", type=int, default=3)
    add("--seconds", type=float, default=2.0)
    add("--server", default="", help="the command of another server")
    add("--client", default="", help="the command of another client")
    add("--call", metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        call(arguments.call)
    else:
        run(lambda: compare(arguments))


if __name__ == "__main__":
    main()

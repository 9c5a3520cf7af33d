"""What a request, a push and an idle session cost an application, native and on Twisted.

    python -m bench.app [--runs N] [--seconds S] [--only TEXT] [--peer WIRE=COMMAND]

`app.c` plays the clients, in the wires of pomelo, teleport (v6), teleport2 (v2.5) and hotpot, all
with JSON; the handlers are coroutines with a typed message. `--peer`, once for each wire, runs
another server of it beside ours: `{port}` in its command becomes its port, and it has room.echo
(answers what it is asked; /room/echo in teleport, Echo in hotpot). One of pomelo has room.enter
and room.all as well (tells `on` to all who entered).

Each server is alone on the first core while it works; the clients are on the last. The servers
take turns in short parts of each run.

Law: figures are compared within one run only. CPU is all that a process spends, for each request
or each member told; memory is what its idle sessions add to it, its own alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from bench.gateways import (
    FIRST_CORE,
    LAST_CORE,
    PATIENCE,
    ROOT,
    Failure,
    build,
    choose_cases,
    free_address,
    listens,
    run,
    say_how,
)
from bench.process import cpu_seconds, memory
from bench.table import Case, Figure, Result, Table
from fastway.app import App
from fastway.app.session import Session
from fastway.dialect import Dialect
from fastway.dialect.hotpot import Hotpot
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport2 import Teleport2

CPU = Figure("server, µs of CPU each", "us")
LATENCY = Figure("99 of 100 within, µs", "late")
MEMORY = Figure("KB each", "kb")
CASES = [
    Case("request, 1 in flight", "pomelo ask 100 1", (CPU, LATENCY)),
    Case("request, 10 in flight", "pomelo ask 100 10", (CPU, LATENCY)),
    Case("push to 100", "pomelo tell 100 1", (CPU, LATENCY)),
    Case("push to 100, 8 at a time", "pomelo tell 100 8", (CPU, LATENCY)),
    Case("push to 10000", "pomelo tell 10000 1", (CPU, LATENCY)),
    Case("idle session", "pomelo idle 5000 1", (MEMORY,)),
    Case("teleport v6, 1 in flight", "teleport ask 100 1", (CPU, LATENCY)),
    Case("teleport v6, 10 in flight", "teleport ask 100 10", (CPU, LATENCY)),
    Case("teleport v2.5, 1 in flight", "teleport2 ask 100 1", (CPU, LATENCY)),
    Case("teleport v2.5, 10 in flight", "teleport2 ask 100 10", (CPU, LATENCY)),
    Case("hotpot, 1 in flight", "hotpot ask 100 1", (CPU, LATENCY)),
    Case("hotpot, 10 in flight", "hotpot ask 100 10", (CPU, LATENCY)),
]
WIRES = ("pomelo", "teleport", "teleport2", "hotpot")


class Text(Struct):
    """What is asked, answered and told."""

    text: str


SERVE = [sys.executable, "-m", "bench.app", "--port", "{port}", "--serve"]
PARTS = 4
"""Of the time that is measured: so often each has its turn."""
WARM = 300
"""Milliseconds before it counts."""
SETTLE = 2.0
"""Seconds until the memory of idle sessions is read."""


class Server:
    """One of them, while it runs.

    Args:
        command: `{port}` becomes its port.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.address = free_address()
        self.port = self.address.partition(":")[2]
        self.name = name
        self._process = subprocess.Popen(
            [word.replace("{port}", self.port) for word in command],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, {FIRST_CORE}),
        )
        self.pid = self._process.pid

    def wait(self) -> None:
        """Raises Failure: it does not listen in time."""
        deadline = time.monotonic() + PATIENCE
        while not listens(self.address):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"{self.name} does not listen on {self.address}")
            time.sleep(0.02)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()


class Clients:
    """Those of one server, who rest unless they are told to work."""

    def __init__(self, program: Path, server: Server, load: str) -> None:
        wire, how, count, many = load.split()
        self._server = server
        self._idle = how == "idle"
        self._count = int(count)
        before = memory(server.pid)
        self._process = subprocess.Popen(
            [str(program), server.port, wire, count, how, many],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {LAST_CORE}),
        )
        self._answers, self._seconds, self._cpu = 0, 0.0, 0.0
        self._late: list[float] = []
        self._kb = 0.0
        if self._line() != "ready":
            raise Failure(f"the clients of {server.name} are not in")
        if self._idle:
            time.sleep(SETTLE)
            self._kb = (memory(server.pid) - before) / 1024 / self._count

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def work(self, milliseconds: int, counts: bool = True) -> None:
        """Raises Failure: an answer is wrong, or missing."""
        assert self._process.stdin is not None
        cpu = cpu_seconds(self._server.pid)
        self._process.stdin.write(f"{milliseconds}\n")
        self._process.stdin.flush()
        said = self._line().split()
        if len(said) != 4:
            raise Failure(f"the clients of {self._server.name} have ended")
        if counts:
            self._cpu += cpu_seconds(self._server.pid) - cpu
            self._answers += int(said[0])
            self._late.append(float(said[3]))

    def result(self) -> Result:
        if self._idle:
            return {"kb": self._kb}
        return {
            "us": self._cpu / max(1, self._answers) * 1e6,
            "late": sorted(self._late)[len(self._late) // 2],
        }

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()


class Worker(Protocol):
    """Has a server work."""

    def work(self, milliseconds: int, counts: bool = True) -> None:
        """For so long."""


def take_turns(workers: Sequence[Worker], seconds: float) -> None:
    """Each warm, then in short parts, forth and back."""
    for one in workers:
        one.work(WARM, counts=False)
    for part in range(PARTS):
        for one in workers[:: -1 if part % 2 else 1]:
            one.work(int(seconds * 1000 / PARTS))


def measure(
    program: Path, case: Case, commands: dict[str, list[str]], seconds: float
) -> dict[str, Result]:
    """All servers, which take turns in short parts."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server(*one)) for one in commands.items()]
        for server in servers:
            server.wait()
        clients = {
            server.name: stack.enter_context(Clients(program, server, case.load))
            for server in servers
        }
        if " idle " not in case.load:
            take_turns(list(clients.values()), seconds)
        return {name: one.result() for name, one in clients.items()}


def compare(arguments: argparse.Namespace) -> None:
    """Measure, and print the table."""
    (program,) = build(arguments.build, "-O2", names=("app",))
    cases = choose_cases(arguments.only, CASES)
    peers = dict(arguments.peer)
    ways = ["native", "twisted", *(["peer"] if peers else [])]
    base = "peer" if peers else "native"
    table = Table(cases, ways, base)
    say_how(arguments)
    for _ in range(arguments.runs):
        for case in cases:
            wire = case.load.split()[0]
            commands = {way: [*SERVE, way, "--wire", wire] for way in ("native", "twisted")}
            if wire in peers:
                commands["peer"] = peers[wire]
            results = measure(program, case, commands, arguments.seconds)
            for way in ways:
                table.results[case.name, way].append(results.get(way, {}))
    for line in table.lines():
        print(line)


def dialect(wire: str) -> Dialect:
    """That of a wire, as its peers have it."""
    if wire == "teleport":
        return Teleport()
    if wire == "teleport2":
        return Teleport2()
    if wire == "hotpot":
        return Hotpot(keepalive=(300.0, 600.0))
    return Pomelo(heartbeat=300.0)


def add_room(app: App, echoes: str, enters: str, tells: str) -> None:
    """What servers are measured by: routes that answer what they are asked, take into a group, and
    tell it `on`."""
    room = app.group("room")

    @app.handler(echoes)
    async def echo(message: Text) -> Text:
        return message

    @app.handler(enters)
    def enter(session: Session) -> None:
        room.add(session)

    @app.handler(tells)
    async def tell_all(message: Text) -> None:
        room.send("on", message)


def serve(way: str, port: str, wire: str) -> None:
    """Be a server, until it is stopped."""
    from twisted.internet import reactor

    from fastway.wheel import make_monotonic

    make_monotonic(reactor)
    app = App()
    add_room(app, "room.echo", "room.enter", "room.all")
    app.listen(f"127.0.0.1:{port}", dialect(wire), native=way == "native")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    reactor.run()


def peer(text: str) -> tuple[str, list[str]]:
    """WIRE=COMMAND."""
    wire, _, command = text.partition("=")
    if wire not in WIRES or not command:
        raise argparse.ArgumentTypeError(f"WIRE=COMMAND, a wire of {', '.join(WIRES)}")
    return wire, shlex.split(command)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--runs", type=int, default=3)
    add("--seconds", type=float, default=2.0)
    add("--only", default="", help="cases whose name has this")
    add("--peer", type=peer, action="append", default=[], metavar="WIRE=COMMAND")
    add("--build", type=Path, default=ROOT / "build" / "bench-app")
    add("--serve", choices=("native", "twisted"), help=argparse.SUPPRESS)
    add("--wire", choices=WIRES, default="pomelo", help=argparse.SUPPRESS)
    add("--port", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.serve:
        serve(arguments.serve, arguments.port, arguments.wire)
    else:
        run(lambda: compare(arguments))


if __name__ == "__main__":
    main()

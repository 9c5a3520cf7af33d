"""What a request and a push cost a backend of nano's cluster.

    python -m bench.cluster [--runs N] [--seconds S] [--only TEXT] [--peer COMMAND]

The master, which is the gate too, and its clients are here, on the last core; each backend is
alone on the first while it works, and they take turns in short parts of each run. Bodies are JSON.
`--peer` runs another backend beside ours: `{port}` and `{master}` in its command become its port
and the master's address, and it has Room.Echo (answers what it is asked), Room.Enter and Room.All
(tells `on` to all who entered), each with an answer.

Law: figures are compared within one run only. CPU is all that a process spends, for each request
or each member told.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.task import deferLater, react

from bench.app import add_room
from bench.gateways import (
    FIRST_CORE,
    LAST_CORE,
    PATIENCE,
    ROOT,
    Failure,
    choose_cases,
    free_address,
    say_how,
)
from bench.process import cpu_seconds
from bench.table import Case, Figure, Result, Table
from fastway.app import App
from fastway.app.testing import Player
from fastway.app.turn import shared
from fastway.cluster import NanoMaster, NanoMember

CPU = Figure("backend, µs of CPU each", "us")
CASES = [
    Case("request, 100 clients", "ask 100", (CPU,)),
    Case("request, 1 client", "ask 1", (CPU,)),
    Case("push to 100", "tell 100", (CPU,)),
]
TEXT = "x" * 64
PARTS = 4
"""Of the time that is measured: so often each has its turn."""
WARM = 0.3
"""Seconds before it counts."""


class Backend:
    """One of them, while it runs."""

    def __init__(self, name: str, command: list[str], master: str) -> None:
        self.name = name
        self.address = free_address()
        places = {"{port}": self.address.partition(":")[2], "{master}": master}
        for word, place in places.items():
            command = [part.replace(word, place) for part in command]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, {FIRST_CORE}),
        )
        self.pid = self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()


class Clients:
    """Those of one backend: they ask, each when it is answered, unless they are told to rest."""

    def __init__(self, master: NanoMaster, backend: Backend, load: str) -> None:
        how, count = load.split()
        self._tells = how == "tell"
        self._backend = backend
        self._players = [Player(master.app) for _ in range(int(count))]
        for player in self._players:
            master.bind(player.session, "Room", backend.address)
        self._clock = master.app.clock
        self._end = 0.0
        self._done = 0
        self._cpu = 0.0

    async def enter(self) -> None:
        """Be told what is told to all."""
        for player in self._players:
            await player.ask("Room.Enter", {"text": ""})

    async def work(self, seconds: float, counts: bool = True) -> None:
        """Raises Failure: an answer is wrong."""
        self._end, done, cpu = self._clock.seconds() + seconds, 0, cpu_seconds(self._backend.pid)
        askers = self._players[:1] if self._tells else self._players
        working = [ensureDeferred(self._ask(player)) for player in askers]
        results: Any = await DeferredList(working, consumeErrors=True)
        for ended, result in results:
            if not ended:
                raise Failure(f"{self._backend.name}: {result.getErrorMessage()}")
            done += result
        if counts:
            self._done += done
            self._cpu += cpu_seconds(self._backend.pid) - cpu

    async def _ask(self, player: Player) -> int:
        done = 0
        while self._clock.seconds() < self._end:
            if self._tells:
                await player.ask("Room.All", {"text": TEXT})
                await self._told()
                done += len(self._players)
                continue
            answer = await player.ask("Room.Echo", {"text": TEXT})
            if answer.get("text") != TEXT:
                raise Failure("a wrong answer")
            done += 1
        return done

    async def _told(self) -> None:
        """Until all were."""
        patience = self._clock.seconds() + PATIENCE
        while not all(player.heard for player in self._players):
            if self._clock.seconds() > patience:
                raise Failure("somebody was not told")
            await deferLater(self._clock, 0)
        for player in self._players:
            player.heard.clear()

    def leave(self) -> None:
        for player in self._players:
            player.leave()

    def result(self) -> Result:
        return {"us": self._cpu / max(1, self._done) * 1e6}


async def measure(
    clock: Any, case: Case, commands: dict[str, list[str]], seconds: float
) -> dict[str, Result]:
    """All backends, which take turns in short parts."""
    app = App(clock=clock)
    master = NanoMaster(app, "127.0.0.1:0")
    await master.join()
    with ExitStack() as stack:
        backends = [
            stack.enter_context(Backend(name, command, master.address))
            for name, command in commands.items()
        ]
        try:
            await _until(clock, backends, lambda one: one.address in master.members)
            all_clients = {one.name: Clients(master, one, case.load) for one in backends}
            for clients in all_clients.values():
                if case.load.startswith("tell"):
                    await clients.enter()
                await clients.work(WARM, counts=False)
            for part in range(PARTS):
                for clients in list(all_clients.values())[:: -1 if part % 2 else 1]:
                    await clients.work(seconds / PARTS)
            for clients in all_clients.values():
                clients.leave()
            return {name: clients.result() for name, clients in all_clients.items()}
        finally:
            app.stop()
            await master.leave()
            shared(app).wheel.stop()


async def _until(clock: Any, backends: list[Backend], here: Callable[[Backend], bool]) -> None:
    """Raises Failure: one does not join in time."""
    patience = clock.seconds() + PATIENCE
    for one in backends:
        while not here(one):
            if not one.runs or clock.seconds() > patience:
                raise Failure(f"{one.name} does not join the cluster")
            await deferLater(clock, 0.02)


async def compare(clock: Any, arguments: argparse.Namespace) -> None:
    """Measure, and print the table."""
    os.sched_setaffinity(0, {LAST_CORE})
    cases = choose_cases(arguments.only, CASES)
    here = [sys.executable, "-m", "bench.cluster", "--serve", "{port}", "{master}"]
    commands = {"fastway": here}
    if arguments.peer:
        commands["peer"] = shlex.split(arguments.peer)
    table = Table(cases, list(commands), "peer" if arguments.peer else "fastway")
    say_how(arguments)
    for _ in range(arguments.runs):
        for case in cases:
            results = await measure(clock, case, commands, arguments.seconds)
            for name, result in results.items():
                table.results[case.name, name].append(result)
    for line in table.lines():
        print(line)


async def serve(clock: Any, port: str, master: str) -> None:
    """Be a backend, until it is stopped."""
    app = App(clock=clock)
    add_room(app, "Room.Echo", "Room.Enter", "Room.All")
    await NanoMember(app, f"127.0.0.1:{port}", master=master).join()
    await Deferred()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--runs", type=int, default=3)
    add("--seconds", type=float, default=2.0)
    add("--only", default="", help="cases whose name has this")
    add("--peer", default="", help="the command of another backend, with {port} and {master}")
    add("--serve", nargs=2, metavar=("PORT", "MASTER"), help=argparse.SUPPRESS)
    return parser.parse_args()


async def main(reactor: Any) -> None:
    arguments = parse_arguments()
    if arguments.serve:
        await serve(reactor, *arguments.serve)
        return
    try:
        await compare(reactor, arguments)
    except Failure as failure:
        raise SystemExit(str(failure)) from None


if __name__ == "__main__":
    react(main)

"""What it costs to watch a gateway: CPU of forwards and connections with everything open, beside
one that nobody watches; and how long its reactor stands still for each question.

    python -m bench.watched [--table cost|turns] [--runs N] [--seconds S] [--visits N] [--links N]
                            [--only TEXT] [--lanes relay,python] [--build DIRECTORY]

Watched means: an access log, /metrics read every second, and two viewers of the admin port's
events. The two take turns run by run; the gateway is alone on the first core, everything else on
the last. Turns are measured inside of the gateway, which has N idle links then.

Law: figures are compared within one run only. Of turns the CPU of the reactor's thread is told,
and beside it the wall's time, in which a core is that somebody else had for a while.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.gateways import (
    FASTWAY,
    LAST_CORE,
    PATIENCE,
    ROOT,
    Failure,
    Gateway,
    Running,
    build,
    free_address,
    machine,
    measure,
    run,
    running,
)
from bench.limits import PING, wait_until_quiet

LANES = {"relay": "on", "python": "off"}
ADMIN = "watched.sock"
VIEWERS = 2
LOADS = ("echo -c 100", "echo -c 1000", "echo -c 100 -w 16", "fan-out -c 1000")
VISITS = "a connection comes and goes"
TRIES = 5

QUESTIONS = (
    "/metrics",
    "/v1/status",
    "/v1/links?limit=100",
    "/v1/links?sort=bytes_in&order=desc",
    "/v1/links?search=127.0.0.1",
    "/v1/closed",
    "/v1/addresses",
    "status",
    "links",
    "limits",
    "help",
)
"""Of them those with a slash are asked by HTTP, the others are commands."""

LOOKUPS = ("lookup gc", "lookup goroutine", "lookup threadcreate", "lookup heap", "lookup heap 0")
"""May take longer: they say so."""


# In the gateway, as its commands module.

_longest = [0.0, 0.0]
"""Seconds of CPU, and of the wall's clock."""


def register(commands: Any) -> None:
    """Add the command `longest`: the longest turns since it was asked last, in milliseconds."""

    def longest() -> str:
        reactor = commands.reactor
        if not isinstance(reactor._poller, Longest):
            reactor._poller = Longest(reactor._poller)
        told = " ".join(f"{seconds * 1000:.3f}" for seconds in _longest)
        _longest[:] = 0.0, 0.0
        return told

    commands.register("longest", "longest: the longest turn since, in ms", longest)


class Longest:
    """What a reactor polls; the longest time between two polls is remembered."""

    def __init__(self, poller: Any) -> None:
        self._poller = poller
        self._began = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.thread_time(), time.perf_counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)

    def poll(self, timeout: float, most: int) -> Any:
        for which, (now, began) in enumerate(zip(self._now(), self._began, strict=True)):
            _longest[which] = max(_longest[which], now - began)
        try:
            return self._poller.poll(timeout, most)
        finally:
            self._began = self._now()


# Who watches.


def directory_of(process: Running) -> str:
    return os.readlink(f"/proc/{process.pid}/cwd")


def command(process: Running, line: str) -> str:
    """The answer to a command.

    Raises:
        Failure: there is none, or it failed.
    """
    directory = directory_of(process)
    tag = f"b{time.monotonic_ns()}"
    with open(f"{directory}/command", "w", encoding="utf-8") as file:
        file.write(f"#{tag} {line}\n")
    os.rename(f"{directory}/command", f"{directory}/fastway.cmd")
    os.kill(process.pid, signal.SIGUSR1)
    deadline = time.monotonic() + 3 * PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            text = Path(f"{directory}/fastway.answer").read_text(encoding="utf-8")
            first, _, rest = text.partition("\n")
            if first.split()[0] == tag:
                if rest.startswith("error: "):
                    raise Failure(f"{line}: {rest}")
                return rest
        time.sleep(0.01)
    raise Failure(f"{line}: no answer")


def ask(connection: socket.socket, path: str) -> bytes:
    """What is at that path; the connection is closed."""
    with connection:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = b""
        while data := connection.recv(1 << 16):
            answer += data
    if not answer.startswith(b"HTTP/1.1 200"):
        raise Failure(f"{path}: {answer[:200]!r}")
    return answer


def over_tcp(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE)


def over_unix(process: Running) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(PATIENCE)
    directory = os.open(directory_of(process), os.O_PATH)
    try:  # its path may be longer than an address can be
        made.connect(f"/proc/self/fd/{directory}/{ADMIN}")
    finally:
        os.close(directory)
    return made


class Watchers:
    """One who reads /metrics every second, and viewers of events.

    Attributes:
        read: How often.
        seen: Bytes of events.
    """

    def __init__(self, process: Running, metrics: str) -> None:
        self.read = self.seen = 0
        self._process = process
        self._metrics = metrics
        self._over = threading.Event()
        self._streams: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._scrape)]

    def __enter__(self) -> Watchers:
        for _ in range(VIEWERS):
            stream = over_unix(self._process)
            stream.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if not stream.recv(1 << 16).startswith(b"HTTP/1.1 200"):
                raise Failure("there are no events to see")
            self._streams.append(stream)
            self._threads.append(threading.Thread(target=self._view, args=(stream,)))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for stream in self._streams:
            stream.close()

    def _scrape(self) -> None:
        while not self._over.wait(1.0):
            ask(over_tcp(self._metrics), "/metrics")
            self.read += 1

    def _view(self, stream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := stream.recv(1 << 16):
                self.seen += len(data)


# What it costs.


def gateway(lane: str, *options: str) -> Gateway:
    return Gateway(lane, [*FASTWAY, "--relay", LANES[lane], *options], ROOT)


def watched(lane: str, metrics: str) -> Gateway:
    """A gateway with everything open."""
    options = ["--metrics-addr", metrics, "--admin-addr", f"unix:{ADMIN}"]
    return gateway(lane, *options, "--access-log", "access.log")


def visits(process: Running, count: int) -> float:
    """µs of CPU for each connection that comes, says something and goes."""
    host, _, port = process.client.rpartition(":")
    began = wait_until_quiet(process.pid)
    for _ in range(count):
        with socket.create_connection((host, int(port))) as made:
            made.sendall(PING)
            made.recv(len(PING))
    return (wait_until_quiet(process.pid) - began) / count * 1e6


def costs(arguments: argparse.Namespace, lanes: Sequence[str]) -> None:
    """Print what forwards and connections cost with and without those who watch."""
    load, _ = build(arguments.build, "-O2")
    results: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    timing = ["-k", "", "-d", str(arguments.seconds)]

    def both(lane: str, turn: int, work: Callable[[Running], float]) -> tuple[float, float]:
        found = [0.0, 0.0]
        for which in (turn % 2, 1 - turn % 2):
            metrics = free_address()
            with running(watched(lane, metrics) if which else gateway(lane)) as process:
                with Watchers(process, metrics) if which else contextlib.nullcontext() as who:
                    found[which] = work(process)
                if who is not None and not (who.read and who.seen):
                    raise Failure("nobody has watched: it was over too soon")
        return found[0], found[1]

    for turn in range(arguments.runs):
        for lane in lanes:
            for words in filter(lambda words: arguments.only in words, LOADS):
                pair = both(
                    lane,
                    turn,
                    lambda process, words=words: measure(  # type: ignore[misc]
                        load, [*words.split(), *timing], process
                    )["cpu_us"],
                )
                results[f"a forward, {words}", lane].append(pair)
            if arguments.only in VISITS:
                pair = both(lane, turn, lambda process: visits(process, arguments.visits))
                results[VISITS, lane].append(pair)
    print("case\tlane\tµs of CPU each, alone\twatched\tratio, median of runs\tthe middle half")
    for (name, lane), pairs in results.items():
        alone, seen = (median(pair[which] for pair in pairs) for which in (0, 1))
        ratios = [two / one for one, two in pairs]
        low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        half = f"{low:.3f} to {high:.3f}"
        print(f"{name}\t{lane}\t{alone:.4g}\t{seen:.4g}\t{middle:.3f}\t{half}")


# How long the reactor stands still.


@contextlib.contextmanager
def crowd(process: Running, count: int) -> Iterator[list[socket.socket]]:
    """So many connections that have said something."""
    host, _, port = process.client.rpartition(":")
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            one = socket.create_connection((host, int(port)))
            made.append(one)
            one.sendall(PING)
        for one in made:
            one.recv(len(PING))
        yield made
    finally:
        for one in made:
            one.close()


def turns(arguments: argparse.Namespace, lanes: Sequence[str]) -> None:
    """Print the longest turns while a gateway with many links is asked."""
    print(
        f"question at {arguments.links} links\tlane\tlongest turn, ms of CPU\tof the wall's clock"
    )
    for lane in lanes:
        metrics = free_address()
        one = watched(lane, metrics)
        one = Gateway(lane, [*one.command, "--commands-module", "bench.watched"], ROOT)
        with running(one) as process, crowd(process, arguments.links) as links:

            def longest(
                question: Callable[[], object], process: Running = process, settle: float = 0.1
            ) -> list[float]:
                command(process, "longest")
                question()
                time.sleep(settle)
                return [float(word) for word in command(process, "longest").split()]

            def of(question: str, process: Running = process, metrics: str = metrics) -> object:
                if not question.startswith("/"):
                    return command(process, question)
                admin = question.startswith("/v1")
                return ask(over_unix(process) if admin else over_tcp(metrics), question)

            rows = {"nothing": [longest(lambda: time.sleep(0.5)) for _ in range(TRIES)]}
            for question in QUESTIONS:
                rows[question] = [
                    longest(lambda question=question: of(question))  # type: ignore[misc]
                    for _ in range(TRIES)
                ]
            with Watchers(process, metrics):
                rows["everybody watches"] = [longest(lambda: time.sleep(2.5))]
            for question in LOOKUPS:
                rows[question] = [longest(lambda question=question: of(question))]  # type: ignore[misc]

            def end_all() -> None:
                for one in links:
                    one.close()

            rows["all links end at once"] = [longest(end_all, settle=2.0)]
            for name, tries in rows.items():
                cpu, wall = map(max, zip(*tries, strict=True))
                print(f"{name}\t{lane}\t{cpu:.2f}\t{wall:.2f}", flush=True)


def compare(arguments: argparse.Namespace) -> None:
    os.sched_setaffinity(0, {LAST_CORE})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    lanes = arguments.lanes.split(",")
    print(f"# {machine()}; {arguments.runs} runs, load {os.getloadavg()[0]:.1f}", flush=True)
    if arguments.table != "turns":
        costs(arguments, lanes)
    if arguments.table != "cost":
        turns(arguments, lanes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    add = parser.add_argument
    add("--runs", type=int, default=5, metavar="N")
    add("--seconds", type=float, default=3.0, metavar="S", help="of forwards, in each run")
    add("--visits", type=int, default=2000, metavar="N", help="connections, in each run")
    add("--links", type=int, default=10_000, metavar="N", help="while turns are measured")
    add("--table", choices=("cost", "turns"), help="one of the two")
    add("--only", default="", metavar="TEXT", help="the costs with this in their name")
    add("--lanes", default="relay,python", metavar="NAMES")
    add("--build", type=Path, default=ROOT / "build" / "bench", metavar="DIRECTORY")
    run(lambda: compare(parser.parse_args()))


if __name__ == "__main__":
    main()

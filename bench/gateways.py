"""What gateways cost, side by side: fastway, a floor in C, and any other; one table, TSV, a plot.

    python -m bench.gateways [--runs N] [--seconds S] [--only TEXT] [--options "..."] [--key KEY]
                             [--tree PATH]... [--peer "COMMAND {client} {server}"]...
                             [--base NAME] [--tsv FILE] [--plot FILE.svg] [--build DIRECTORY]

`load.c` makes the load and `floor.c` is the least that a gateway must do; both are built here.
Every measurement has a gateway process of its own, alone on the first core; the load is alone on
the last. The gateways take turns: case by case, run by run. Another checkout of fastway, its
extension built in place, is measured beside this one with `--tree`.

Law: figures are compared within one run only. The table has the median of the runs, and in
brackets the median of each run's ratio to the base.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.process import cpu_seconds, wake_ups
from bench.table import Case, Figure, Result, Table

ROOT = Path(__file__).resolve().parent.parent
CONSOLE = [sys.executable, "-m", "fastway"]
FASTWAY = [*CONSOLE, "--client-addr", "{client}", "--server-addr", "{server}"]
CORES = os.sched_getaffinity(0) if sys.platform == "linux" else {0}
FIRST_CORE, LAST_CORE = min(CORES), max(CORES)
PATIENCE = 60.0
"""Seconds for a gateway to start, and to stop."""


class Failure(Exception):
    """Why there are no figures."""


COLUMNS = """
    run gateway name case clients connections window size unit count seconds per_second cpu_us
    gateway_busy load_busy p50_us p99_us p999_us memory idle_bytes wake_ups
""".split()  # noqa: SIM905
"""Of the TSV."""


CPU = (Figure("µs of CPU a forward", "cpu_us"),)
TRIP = (Figure("round trip, p50, µs", "p50_us"), Figure("round trip, p99, µs", "p99_us"))
CASES = [
    Case("echo 1 x 1 x 1", "echo -c 1", TRIP + CPU),
    Case("echo 100 x 1 x 1", "echo -c 100", CPU),
    Case("echo 1000 x 1 x 1", "echo -c 1000", CPU),
    Case("echo 100 x 1 x 16", "echo -c 100 -w 16", CPU),
    Case("echo 10 x 16 x 64", "echo -c 10 -v 16 -w 64", CPU),
    Case("fan-in 1 x 1 x 900", "fan-in -c 1 -w 900", CPU),
    Case("fan-out 1000 x 1 x 1", "fan-out -c 1000", CPU),
    Case("fan-out 1000 x 1 x 8", "fan-out -c 1000 -w 8", CPU),
    Case("dial+close, 100 at once", "dial -c 100", (Figure("µs of CPU each", "cpu_us"),)),
    Case(
        "10 000 connections",
        "connect -c 10000 -w 32",
        (
            Figure("accepted, seconds", "seconds"),
            Figure("accepted, µs of CPU each", "cpu_us"),
            Figure("idle, KB of memory each", "idle_bytes", 1000),
        ),
    ),
    Case(
        "nobody connected",
        "",
        (
            Figure("wake-ups a second", "wake_ups"),
            Figure("µs of CPU a second", "cpu_us"),
        ),
    ),
]
IDLE_SECONDS = 2.0
"""How long a gateway is left alone, at least,"""
SETTLED = 4.0
"""and before that: one to which somebody connected, as to see that it is up, puts away for two
seconds what that took."""


@dataclass(frozen=True)
class Gateway:
    """A program; `{client}` and `{server}` in its command become the addresses of its ports.

    Attributes:
        tree: The checkout from which a fastway is imported; None: it is not fastway.
        speaks: What the client port speaks: tcp, ws, tls or wss.
    """

    name: str
    command: Sequence[str]
    tree: Path | None = None
    speaks: str = "tcp"


@dataclass(frozen=True)
class Running:
    pid: int
    client: str
    server: str
    speaks: str = "tcp"

    @property
    def ports(self) -> list[str]:
        """The addresses as the programs want them."""
        scheme = "" if self.speaks == "tcp" else f"{self.speaks}:"
        return [scheme + self.client, self.server]


def compiler() -> str | None:
    """The system's C compiler, or CC."""
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return next((name for name in names if name and shutil.which(name)), None)


def openssl(found: str) -> list[str]:
    """What a compiler needs so that the programs speak TLS; nothing: no OpenSSL is there to build
    with (libssl-dev)."""
    flags = ["-DWITH_TLS", "-Wl,--as-needed", "-lssl", "-lcrypto"]
    code = b"#include <openssl/ssl.h>\nint main(void) { return !TLS_client_method(); }"
    command = [found, "-x", "c", "-", "-o", os.devnull, *flags]
    there = subprocess.run(command, input=code, capture_output=True, check=False).returncode == 0
    return flags if there else []


def build(
    directory: Path, *flags: str, names: Sequence[str] = ("load", "floor")
) -> tuple[Path, ...]:
    """Compile the programs of these names.

    Returns:
        Their paths.

    Raises:
        Failure: There is no compiler, or it refuses, or this is not Linux.
    """
    if sys.platform != "linux":
        raise Failure("the bench needs Linux, for epoll and /proc")
    found = compiler()
    if found is None:
        raise Failure("the bench needs a C compiler (cc, gcc or clang), and none is there")
    directory.mkdir(parents=True, exist_ok=True)
    made = tuple(directory.resolve() / name for name in names)
    tls = openssl(found)
    for program in made:
        source = ROOT / "bench" / f"{program.name}.c"
        command = [found, "-std=c11", "-Wall", "-Wextra", *flags, "-o", str(program), str(source)]
        command += tls
        if subprocess.run(command, check=False).returncode:
            raise Failure(f"{source} does not compile")
    return made


def free_address() -> str:
    """On loopback, outside the range from which outgoing connections take their ports."""
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"


def listens(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port))).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def running(gateway: Gateway, core: int = FIRST_CORE, *, ends: bool = False) -> Iterator[Running]:
    """The gateway as a process of its own, in a directory of its own, pinned to `core`.

    Args:
        ends: It may end by itself.

    Raises:
        Failure: It does not listen in time, or ends before it is stopped.
    """
    client, server = free_address(), free_address()
    command = [word.replace("{client}", client) for word in gateway.command]
    command = [word.replace("{server}", server) for word in command]
    plain = {name: text for name, text in os.environ.items() if not name.startswith("FASTWAY_")}
    with (
        tempfile.TemporaryDirectory() as directory,
        open(os.path.join(directory, "output"), "w+b") as output,
        subprocess.Popen(
            command,
            cwd=directory,
            env={**plain, "PYTHONPATH": str(gateway.tree or ROOT)},
            stdout=output,
            stderr=output,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        ) as process,
    ):
        try:
            deadline = time.monotonic() + PATIENCE
            while not (listens(client) and listens(server)):
                if process.poll() is not None:
                    raise Failure(f"{gateway.name} does not start")
                if time.monotonic() > deadline:
                    raise Failure(f"{gateway.name} does not listen on {client} and {server}")
                time.sleep(0.02)
            yield Running(process.pid, client, server, gateway.speaks)
            if not ends and process.poll() is not None:
                raise Failure(f"{gateway.name} ended by itself")
        except Failure as error:
            output.seek(0)
            said = output.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise Failure(f"{error}; its last line: {said}" if said else error) from None
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def measure(
    load: Path, arguments: Sequence[str], gateway: Running, core: int = LAST_CORE
) -> Result:
    """Run `load` once.

    Raises:
        Failure: A message was wrong or missing, or the gateway did not keep up its end; with
            what `load` says.
    """
    command = [str(load), *arguments, "-p", str(gateway.pid), *gateway.ports]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        raise Failure(done.stderr.strip() or f"load ended with status {done.returncode}")
    result: Result = json.loads(done.stdout)
    return result


def idle(gateway: Running, seconds: float) -> Result:
    """Leave the gateway alone, when it has been left alone for a while."""
    time.sleep(SETTLED)
    began, woke, cpu = time.monotonic(), wake_ups(gateway.pid), cpu_seconds(gateway.pid)
    time.sleep(seconds)
    took = time.monotonic() - began
    return {
        "seconds": took,
        "wake_ups": (wake_ups(gateway.pid) - woke) / took,
        "cpu_us": (cpu_seconds(gateway.pid) - cpu) / took * 1e6,
    }


def fastway_gateways(options: Sequence[str], tree: Path = ROOT) -> list[Gateway]:
    """The relay and the Python path, or the Python path alone where there is no relay.

    The names of another tree's begin with that of its directory.
    """
    command = [*FASTWAY, *options]
    of = "" if tree == ROOT else f"{tree.name}-"
    relay = Gateway(f"{of}relay", [*command, "--relay", "on"], tree)
    python = Gateway(f"{of}python", [*command, "--relay", "off"], tree)
    try:
        with running(relay):
            return [relay, python]
    except Failure as failure:
        print(f"# only the Python path is measured: {failure}")
        return [python]


def peer_gateway(command: str) -> Gateway:
    """Somebody else's gateway, named by its program.

    Raises:
        Failure: There is no such program.
    """
    program, *rest = shlex.split(command)
    found = shutil.which(program)
    if found is None:
        raise Failure(f"there is no program {program}")
    return Gateway(os.path.basename(program), [os.path.abspath(found), *rest])


def tree_path(text: str) -> Path:
    """Where another checkout is; for argparse."""
    path = Path(text).resolve()
    if not (path / "fastway" / "__main__.py").is_file():
        raise argparse.ArgumentTypeError(f"{path} is no checkout of fastway")
    return path


def machine() -> str:
    """Where the figures come from."""
    kernel = f"{platform.system()} {platform.release().partition('-')[0]}"
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {kernel}, "
        f"CPython {platform.python_version()}, Twisted {version('twisted')}"
    )


def say_how(arguments: argparse.Namespace, each: str = "measured in each") -> None:
    """Begin a report: where and how it is measured, and what else the machine does."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(
        f"# {machine()}; {arguments.runs} runs, {arguments.seconds:g} s {each}; load {load}",
        flush=True,
    )


def write_row(file: Any, columns: Sequence[str], named: Result) -> None:
    """One line of a TSV; what is not known is empty."""
    values = (named.get(column) for column in columns)
    file.write("\t".join("" if one is None else str(one) for one in values) + "\n")
    file.flush()


def choose_cases(only: str, cases: Sequence[Case] = CASES) -> list[Case]:
    """Those whose name has `only` in it, and that the limit of open files allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    chosen = [case for case in cases if only in case.name]
    for case in list(chosen):
        if most != resource.RLIM_INFINITY and "-c 10000" in case.load and most < 10_100:
            print(f"# left out: {case.name}; ulimit -n allows {most} open files")
            chosen.remove(case)
    if not chosen:
        raise Failure(f"no case to run; there are: {', '.join(case.name for case in cases)}")
    return chosen


def common_arguments(doc: str | None) -> argparse.ArgumentParser:
    """What every bench of gateways takes."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0] if doc else "")
    add = parser.add_argument
    add("--runs", type=int, default=5, metavar="N")
    add("--seconds", type=float, default=0.5, metavar="S", help="measured, for each case")
    add("--only", default="", metavar="TEXT", help="the cases with this in their name")
    add("--options", default="", metavar="TEXT", help="more options for fastway")
    add("--key", default="", help="the server key; a peer must be given it in its command")
    add("--tree", action="append", default=[], type=tree_path, metavar="PATH", help="a checkout")
    add("--tsv", metavar="FILE", help="every result of every run")
    add("--build", type=Path, default=ROOT / "build" / "bench", metavar="DIRECTORY")
    return parser


def parse_arguments() -> argparse.Namespace:
    parser = common_arguments(__doc__)
    add = parser.add_argument
    add("--peer", action="append", default=[], metavar="COMMAND", help="another gateway")
    add("--base", default="floor", metavar="NAME", help="what the ratios are to")
    add("--plot", metavar="FILE", help="the ratios, as SVG")
    return parser.parse_args()


def compare(arguments: argparse.Namespace) -> None:
    """Measure, and print the table."""
    load, floor = build(arguments.build, "-O2")
    options = shlex.split(arguments.options)
    if arguments.key:
        options += ["--server-auth-password", arguments.key]
    gateways = [Gateway("floor", [str(floor), "{client}", "{server}"])]
    for tree in [ROOT, *arguments.tree]:
        gateways += fastway_gateways(options, tree)
    gateways += map(peer_gateway, arguments.peer)
    table = measure_all(load, choose_cases(arguments.only), gateways, arguments)
    if arguments.plot:
        Path(arguments.plot).write_text(table.plot(), encoding="utf-8")


def measure_all(
    load: Path,
    cases: Sequence[Case],
    gateways: Sequence[Gateway],
    arguments: argparse.Namespace,
) -> Table:
    """Measure each case with each gateway, which take turns, and print the table."""
    names = [gateway.name for gateway in gateways]
    if len(set(names)) < len(names) or arguments.base not in names:
        raise Failure(f"names must differ, and {arguments.base} be one: {', '.join(names)}")
    table = Table(cases, names, arguments.base)
    print(
        f"# {machine()}; "
        f"{arguments.runs} runs, {arguments.seconds:g} s measured in each, 64-byte messages",
        flush=True,
    )
    with contextlib.ExitStack() as stack:
        file = arguments.tsv and stack.enter_context(open(arguments.tsv, "w", encoding="utf-8"))
        if file:
            write_row(file, COLUMNS, dict(zip(COLUMNS, COLUMNS, strict=True)))
        for run in range(arguments.runs):
            for case in cases:
                turns = run % len(gateways)
                for gateway in [*gateways[turns:], *gateways[:turns]]:
                    result = measure_one(load, case, gateway, arguments)
                    table.results[case.name, gateway.name].append(result)
                    if file:
                        named = {"run": run + 1, "gateway": gateway.name, "name": case.name}
                        write_row(file, COLUMNS, named | result)
    for line in table.lines():
        print(line)
    return table


def measure_one(load: Path, case: Case, gateway: Gateway, arguments: argparse.Namespace) -> Result:
    """One measurement; nothing where the case has options that the gateway does not know."""
    if case.options and gateway.tree is None:
        return {}
    timing = ["-k", arguments.key, "-d", str(arguments.seconds)]
    try:
        with running(replace(gateway, command=[*gateway.command, *case.options])) as process:
            if case.load:
                return measure(load, [*case.load.split(), *timing], process)
            return idle(process, max(arguments.seconds, IDLE_SECONDS))
    except Failure as error:
        raise Failure(f"{gateway.name}, {case.name}: {error}") from None


def run(program: Callable[[], None]) -> None:
    """Run a bench; what stops it is one line, and its gateways stop too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    try:
        program()
    except Failure as error:
        sys.exit(str(error))


def main() -> None:
    run(lambda: compare(parse_arguments()))


if __name__ == "__main__":
    main()

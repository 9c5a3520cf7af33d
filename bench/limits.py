"""What limits cost: a refused connection beside one that is let in, an entry of the table, a rate.

    python -m bench.limits [--runs N] [--connections N] [--seconds S] [--build DIRECTORY]

The gateway is alone on the first core, everything else on the last; the lanes and the cases take
turns, and medians of the runs are printed. CPU is the gateway's process alone, for each connection
or each packet forwarded.

Law: figures are compared within one run only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shlex
import socket
import time
import timeit
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.gateways import (
    LAST_CORE,
    ROOT,
    Failure,
    build,
    fastway_gateways,
    machine,
    measure,
    run,
    running,
)
from bench.process import cpu_seconds
from fastway.gateway.limits import LimitValues, Table

BATCH = 100
"""Connections that are opened in a row; then all are waited for."""

LIMITS = "--limit-address-connections 50 --limit-address-rate 100000 --limit-address-burst 1000000"

CASES = {
    "let in, no limits": ("", False, False),
    "let in, limits by address": (LIMITS, False, True),
    "refused, no line of the log": (LIMITS, True, False),
    "refused, each another address": (f"{LIMITS} --limit-connections 50", True, True),
}
"""What is done with those who come: (options, whether they are refused, whether each comes from
an address of his own)."""

RATES = {
    "no rate": "",
    "packets and bytes a second": "--client-packet-rate 1000000 --client-byte-rate 1G",
}


PING = b"\5\0\0\0\0\0\0\0\5"


def host(number: int) -> str:
    """An address of loopback."""
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


@contextlib.contextmanager
def come(to: tuple[str, int], count: int, first: int, own: bool) -> Iterator[list[socket.socket]]:
    """So many connections."""
    made = []
    try:
        for number in range(first, first + count):
            sock = socket.socket()
            made.append(sock)
            if own:
                sock.bind((host(number), 0))
            with contextlib.suppress(ConnectionResetError):
                sock.connect(to)
        yield made
    finally:
        for sock in made:
            sock.close()


def wait_for_resets(comers: list[socket.socket]) -> None:
    """All are refused.

    Raises:
        Failure: one is not.
    """
    for comer in comers:
        comer.settimeout(10)
        try:
            comer.recv(1)
        except TimeoutError:
            raise Failure("a connection was not refused") from None
        except OSError:
            pass  # reset, or told so by connect already


def wait_until_quiet(pid: int) -> float:
    """The CPU that a gateway has used when it has nothing more to do but to turn its wheel."""
    before = -1.0
    while (used := cpu_seconds(pid)) - before > 0.001:
        before = used
        time.sleep(0.2)
    return used


def connections(address: str, pid: int, count: int, refused: bool, own: bool) -> float:
    """µs of CPU for each of so many."""
    name, _, port = address.rpartition(":")
    to = name, int(port)
    wait_until_quiet(pid)  # who asked whether it listens is gone
    with come(to, 60 if refused else 0, 0, False):  # more than may come in
        began = wait_until_quiet(pid)
        with contextlib.ExitStack() as stack:
            for first in range(0, count, BATCH):
                comers = stack.enter_context(come(to, BATCH, first, own))
                if refused:
                    wait_for_resets(comers)
                else:
                    comers[-1].sendall(PING)  # they are accepted in order
                    comers[-1].recv(len(PING))
            return (wait_until_quiet(pid) - began) / count * 1e6


def table_costs() -> Iterator[tuple[str, float, float]]:
    """(what, µs to come and go, bytes of an entry) of the table alone."""
    count = 50_000
    values = LimitValues(address_connections=50, address_rate=10.0, table=4 * count)
    v4 = [number.to_bytes(4, "big") for number in range(count)]
    v6 = [b"\x20\x01" + number.to_bytes(4, "big") + bytes(10) for number in range(count)]
    for name, addresses in (("IPv4", v4), ("IPv6, each of a site of its own", v6)):
        tracemalloc.start()
        table = Table(values)
        for address in addresses:
            table.admit(address, 1.0)
        size = tracemalloc.get_traced_memory()[0] / count
        tracemalloc.stop()

        def new(addresses: list[bytes] = addresses) -> None:
            table = Table(values)
            for address in addresses:
                table.leave(table.admit(address, 1.0))  # type: ignore[arg-type]

        def known(addresses: list[bytes] = addresses, table: Table = table) -> None:
            for address in addresses:
                table.leave(table.admit(address, 1000.0))  # type: ignore[arg-type]

        full = Table(LimitValues(address_connections=1))
        full.admit(addresses[0], 1.0)

        def refused(address: bytes = addresses[0], full: Table = full) -> None:
            for _ in range(count):
                full.admit(address, 1.0)

        for what, work in (("new", new), ("known", known), ("refused", refused)):
            took = min(timeit.repeat(work, number=1, repeat=5)) / count * 1e6
            yield f"{name}, {what}", took, size


def compare(arguments: argparse.Namespace) -> None:
    os.sched_setaffinity(0, {LAST_CORE})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    load, _ = build(arguments.build, "-O2")
    print(f"# {machine()}; medians of {arguments.runs} runs")
    results: dict[tuple[str, str], list[float]] = defaultdict(list)
    told = [*(options for options, _, _ in CASES.values()), *RATES.values()]
    gateways = {options: fastway_gateways(shlex.split(options)) for options in told}
    for _ in range(arguments.runs):
        for name, (options, refused, own) in CASES.items():
            for gateway in gateways[options]:
                with running(gateway) as process:
                    count = arguments.connections
                    cost = connections(process.client, process.pid, count, refused, own)
                    results[name, gateway.name].append(cost)
        for name, options in RATES.items():
            for gateway in gateways[options]:
                with running(gateway) as process:
                    timing = ["-k", "", "-d", str(arguments.seconds)]
                    result = measure(load, ["echo", "-c", "100", *timing], process)
                    results[f"a forward, {name}", gateway.name].append(result["cpu_us"])
    print("case\tlane\tµs of CPU each")
    for (name, lane), costs in results.items():
        print(f"{name}\t{lane}\t{median(costs):.2f}")
    print("the table\tµs to come and go\tbytes of an entry")
    for name, took, size in table_costs():
        print(f"{name}\t{took:.2f}\t{size:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    add = parser.add_argument
    add("--runs", type=int, default=5, metavar="N")
    add("--connections", type=int, default=2000, metavar="N")
    add("--seconds", type=float, default=0.5, metavar="S", help="of packets, in each run")
    add("--build", type=Path, default=ROOT / "build" / "bench", metavar="DIRECTORY")
    run(lambda: compare(parser.parse_args()))


if __name__ == "__main__":
    main()

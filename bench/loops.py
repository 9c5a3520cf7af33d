"""What a message costs the endpoint library on Twisted, on asyncio and on uvloop, in one run; TSV.

    python -m bench.loops

Each has a process of its own, pinned to the last core, one client with one virtual connection, and
is measured in turn with the others, `ROUNDS` times; the medians are printed. The gateway and a raw
echo server run on the first core. CPU is the endpoint's process alone. A message is counted when
it is sent and again when it is received; `ratio` compares with Twisted.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

from bench.endpoint import SERVER_ID, echo_server
from bench.gateways import FASTWAY, LAST_CORE, Gateway, running

ROUNDS = 5
WAYS = ["twisted", "asyncio"] + (["uvloop"] if find_spec("uvloop") else [])
CASES = [(1, 64, 20_000), (100, 64, 300_000), (100, 1024, 100_000)]
"""How many are in flight, their bytes, and messages there and back."""


async def echo(conn: Any, window: int, size: int, messages: int) -> None:
    """Send and receive, `window` messages in flight."""
    message = bytes(size)
    for _ in range(messages // window):
        for _ in range(window):
            await conn.send(message)
        for _ in range(window):
            if len(await conn.receive()) != size:
                raise SystemExit("a message came back changed")


async def measure(connect: Callable[[], Awaitable[Any]]) -> None:
    """Print a line for each case: microseconds of CPU for a message, messages a second."""
    gateway = await connect()
    conn = await gateway.dial(SERVER_ID)
    for window, size, messages in CASES:
        await echo(conn, window, size, messages // 10)
        wall, cpu = time.perf_counter(), time.process_time()
        await echo(conn, window, size, messages)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{cpu / messages / 2 * 1e6}\t{2 * messages / wall}", flush=True)
    await gateway.close()


def on_twisted(where: str) -> None:
    from twisted.internet.defer import ensureDeferred
    from twisted.internet.endpoints import clientFromString
    from twisted.internet.task import react

    from fastway.endpoint import EndpointConfig, connect_client

    def main(reactor: Any) -> Any:
        config = EndpointConfig(receive_queue=100_000)
        to = clientFromString(reactor, f"tcp:{where}")
        return ensureDeferred(measure(lambda: connect_client(to, config, reactor)))

    react(main)


def on_asyncio(where: str, uvloop: bool) -> None:
    from fastway.aio import EndpointConfig, connect_client

    async def main() -> None:
        config = EndpointConfig(receive_queue=100_000)
        await measure(lambda: connect_client(where, config))

    if uvloop:
        from uvloop import new_event_loop

        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.close()
    else:
        asyncio.run(main())


def child(way: str, where: str) -> list[tuple[float, float]]:
    """A round of one way: (µs of CPU a message, messages a second) of each case."""
    command = [sys.executable, "-m", "bench.loops", way, where]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
    return [
        (float(cpu), float(rate)) for cpu, rate in (line.split("\t") for line in lines if line)
    ]


def main() -> None:
    os.sched_setaffinity(0, {LAST_CORE})
    if len(sys.argv) > 1:
        way, where = sys.argv[1:]
        if way == "twisted":
            on_twisted(where)
        else:
            on_asyncio(where, way == "uvloop")
        return
    print(f"# CPython {platform.python_version()} on {platform.machine()}")
    with running(Gateway("fastway", FASTWAY)) as gateway, echo_server(gateway):
        rounds = [{way: child(way, gateway.client) for way in WAYS} for _ in range(ROUNDS)]
    print("scenario\ton\tmessages/s\tus CPU/message\tratio")
    for place, (window, size, _) in enumerate(CASES):
        for way in WAYS:
            cpu = statistics.median(one[way][place][0] for one in rounds)
            rate = statistics.median(one[way][place][1] for one in rounds)
            ratio = statistics.median(
                one[way][place][0] / one["twisted"][place][0] for one in rounds
            )
            name = f"echo, {size} B, {window} in flight"
            print(f"{name}\t{way}\t{rate:.0f}\t{cpu:.2f}\t{ratio:.2f}")


if __name__ == "__main__":
    main()

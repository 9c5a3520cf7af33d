"""What snet costs the gateway beside plain TCP: CPU for each forwarded message, memory of an idle
stream, and how long a resume takes; TSV.

    python -m bench.snet

The gateway is pinned to the first core; the players, in this process, and a raw echo server to
the last. CPU is the gateway's. Each run measures every way once; `ratio` compares with plain TCP
on the Python path in the same run, and medians of all runs are printed.
"""

from __future__ import annotations

import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from twisted.internet.defer import DeferredQueue, ensureDeferred, gatherResults
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react

from bench.endpoint import ECHO_SERVER, SERVER_ID, echo
from bench.gateways import FASTWAY, LAST_CORE, Gateway, Running, running
from bench.process import cpu_seconds, memory
from fastway.endpoint import (
    EndpointConfig,
    GatewayConnection,
    NetworkResumed,
    VirtualConnection,
    connect_client,
)
from fastway.snet import SnetClientEndpoint, SnetConfig
from fastway.snet.session import DialHandshake

RUNS = 5
IDLE = 4000
"""Connections of which the memory is taken."""
RESUMES = 200

BASE = "plain TCP, Python path"
WAYS = {
    "plain TCP, relay": None,
    BASE: None,
    "snet": SnetConfig(),
    "snet, encrypted": SnetConfig(encrypt=True),
}
CASES = [(100, 1, 64, 100), (1, 100, 64, 200), (1, 100, 1024, 100)]
"""Players, messages in flight for each, bytes of a message, rounds."""


def options(name: str) -> list[str]:
    config = WAYS[name]
    if config is None:
        return ["--relay=off" if name == BASE else "--relay=auto"]
    return ["--client-snet-enable", *["--client-snet-encrypt"] * config.encrypt]


@contextmanager
def gateway(name: str) -> Iterator[Running]:
    """A gateway that speaks one way, and an echo server behind it."""
    with running(Gateway(name, [*FASTWAY, "--log-level=warn", *options(name)])) as made:
        where = [str(LAST_CORE), *made.server.split(":"), str(SERVER_ID)]
        with subprocess.Popen(
            [sys.executable, "-c", ECHO_SERVER, *where], stdout=subprocess.PIPE
        ) as server:
            assert server.stdout is not None
            server.stdout.readline()
            try:
                yield made
            finally:
                server.kill()


async def player(
    reactor: Any,
    address: str,
    config: SnetConfig | None,
    heard: DeferredQueue[object] | None = None,
) -> tuple[GatewayConnection, VirtualConnection[Any]]:
    """A client, and its virtual connection to the echo server."""
    where = clientFromString(reactor, f"tcp:{address}")
    if config is not None:
        where = SnetClientEndpoint(where, reactor, config)

    def note(_: GatewayConnection, event: object) -> None:
        if heard is not None and isinstance(event, NetworkResumed):
            heard.put(event)

    endpoint = await connect_client(where, EndpointConfig(network_callback=note), reactor)
    return endpoint, await endpoint.dial(SERVER_ID)


async def costs(reactor: Any, name: str) -> list[float]:
    """Microseconds of gateway CPU for each forwarded message, in each case."""
    figures = []
    with gateway(name) as made:
        for players, window, size, rounds in CASES:
            ends = [await player(reactor, made.client, WAYS[name]) for _ in range(players)]
            before = cpu_seconds(made.pid)
            await gatherResults(
                [ensureDeferred(echo(conn, rounds * window, size, window)) for _, conn in ends]
            )
            spent = cpu_seconds(made.pid) - before
            figures.append(spent / (2 * players * rounds * window) * 1e6)
            for endpoint, _ in ends:
                endpoint.close()
                await endpoint.when_gone()
    return figures


async def resumes(reactor: Any, name: str) -> list[float]:
    """Milliseconds from giving up a connection to going on over the next one."""
    heard: DeferredQueue[object] = DeferredQueue()
    took = []
    with gateway(name) as made:
        endpoint, conn = await player(reactor, made.client, WAYS[name], heard)
        transport = cast(Any, endpoint.link.transport).transport
        for _ in range(RESUMES):
            await echo(conn, 1, 64, 1)
            began = time.perf_counter()
            transport.resume_now()
            await heard.get()
            took.append((time.perf_counter() - began) * 1e3)
        endpoint.close()
        await endpoint.when_gone()
    return sorted(took)


def idle_bytes(name: str) -> float:
    """Memory that one more silent connection takes."""
    config = WAYS[name]
    with gateway(name) as made:
        host, port = made.client.split(":")

        def connect() -> socket.socket:
            sock = socket.create_connection((host, int(port)))
            if config is not None:
                handshake = DialHandshake(config.buffer, config.encrypt)
                sock.sendall(handshake.begin())
                proof, _ = handshake.feed(sock.recv(24, socket.MSG_WAITALL))
                sock.sendall(proof)
            return sock

        open_ones = [connect() for _ in range(100)]  # what the first ones load is not theirs
        time.sleep(0.5)
        before = memory(made.pid)
        open_ones += [connect() for _ in range(IDLE)]
        time.sleep(1.0)
        after = memory(made.pid)
        for sock in open_ones:
            sock.close()
    return (after - before) / IDLE


async def run(reactor: Any) -> None:
    print("way\tcase\tus CPU/forward\tratio")
    measured: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    for _ in range(RUNS):
        for name in WAYS:
            measured[name].append(await costs(reactor, name))
    for number, (players, window, size, _) in enumerate(CASES):
        plain = [figures[number] for figures in measured[BASE]]
        for name, runs in measured.items():
            own = [figures[number] for figures in runs]
            ratio = statistics.median(mine / base for mine, base in zip(own, plain, strict=True))
            print(
                f"{name}\techo, {players} players x {window} in flight, {size} B\t"
                f"{statistics.median(own):.2f}\t{ratio:.2f}"
            )
    for name in WAYS:
        print(f"# an idle connection, {name}: {idle_bytes(name):.0f} bytes")
    for name, config in WAYS.items():
        if config is not None:
            took = await resumes(reactor, name)
            print(
                f"# cut to resumed, {name}: median {took[len(took) // 2]:.2f} ms, "
                f"p99 {took[len(took) * 99 // 100]:.2f} ms"
            )


def main() -> None:
    os.sched_setaffinity(0, {LAST_CORE})
    print(f"# CPython {platform.python_version()} on {platform.machine()}; medians of {RUNS} runs")
    react(lambda reactor: ensureDeferred(run(reactor)))


if __name__ == "__main__":
    main()

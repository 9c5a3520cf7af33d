"""What the endpoint library costs for each message, and for each idle virtual connection; TSV.

    python -m bench.endpoint

The endpoint runs in this process, pinned to the last core; the gateway and a raw echo server run
on the first. CPU is this process's own. `ratio` compares with the first row of the same run.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react

from bench.gateways import FASTWAY, FIRST_CORE, LAST_CORE, Gateway, Running, running
from fastway.endpoint import EndpointConfig, GatewayConnection, VirtualConnection, connect_client

SERVER_ID = 1
ECHO_SERVER = """
import os, socket, sys
from fastway.auth import answer_challenge
from fastway.wire import FrameReader
core, host, port, server_id = sys.argv[1:]
os.sched_setaffinity(0, {int(core)})
server = socket.create_connection((host, int(port)))
server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
challenge = server.recv(8, socket.MSG_WAITALL)
server.sendall(answer_challenge(challenge, b"", int(server_id)))
reader = FrameReader()
print("ready", flush=True)
while True:
    data = server.recv(1 << 20)
    if not data:
        break
    packets = [frames for conn_id, frames, _ in reader.feed(data) if conn_id]
    if packets:
        server.sendall(b"".join(packets))
"""


async def echo(conn: VirtualConnection[Any], messages: int, size: int, window: int) -> None:
    """Send and receive, `window` messages in flight."""
    message = bytes(size)
    for _ in range(messages // window):
        for _ in range(window):
            conn.send(message)
        for _ in range(window):
            if len(await conn.receive()) != size:
                raise SystemExit("a message came back changed")


async def run(reactor: Any, gateway: Running) -> None:
    config = EndpointConfig(receive_queue=100_000)
    where = clientFromString(reactor, f"tcp:{gateway.client}")
    endpoint = await connect_client(where, config, reactor)
    conn = await endpoint.dial(SERVER_ID)
    print("scenario\tmessages\tmessages/s\tus CPU/message\tratio")
    first = 0.0

    async def measured(name: str, messages: int, work: Callable[[], Awaitable[Any]]) -> None:
        nonlocal first
        wall, cpu = time.perf_counter(), time.process_time()
        await work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        per = cpu / messages * 1e6
        first = first or per
        print(f"{name}\t{messages}\t{messages / wall:.0f}\t{per:.2f}\t{per / first:.2f}")

    for size in (64, 1024):
        for window, messages in ((1, 10_000), (100, 200_000)):
            await measured(
                f"echo, {size} B, {window} in flight",
                2 * messages,
                lambda m=messages, s=size, w=window: echo(conn, m, s, w),  # type: ignore[misc]
            )
    thousand = await dial_many(endpoint, 1000)
    await measured(
        "echo, 64 B, 1000 connections x 1",
        2 * 100_000,
        lambda: gatherResults([ensureDeferred(echo(one, 100, 64, 1)) for one in thousand]),
    )
    for one in thousand:
        one.close()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    many = await dial_many(endpoint, 10_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"# an idle virtual connection: {(after - before) / len(many):.0f} bytes")
    endpoint.close()


async def dial_many(endpoint: GatewayConnection, count: int) -> list[VirtualConnection[Any]]:
    made: list[VirtualConnection[Any]] = []
    while len(made) < count:
        dialling: list[Deferred[VirtualConnection[Any]]] = [
            endpoint.dial(SERVER_ID) for _ in range(min(500, count - len(made)))
        ]
        made += await gatherResults(dialling)
    return made


@contextmanager
def echo_server(gateway: Running) -> Iterator[None]:
    """A raw game server that sends everything back, on the first core."""
    where = [str(FIRST_CORE), *gateway.server.split(":"), str(SERVER_ID)]
    server = subprocess.Popen([sys.executable, "-c", ECHO_SERVER, *where], stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    try:
        yield
    finally:
        server.kill()
        server.wait()


def main() -> None:
    os.sched_setaffinity(0, {LAST_CORE})
    print(f"# CPython {platform.python_version()} on {platform.machine()}")
    wide = Gateway("fastway", [*FASTWAY, "--client-max-conn", "0"])
    with running(wide) as gateway, echo_server(gateway):
        react(lambda reactor: ensureDeferred(run(reactor, gateway)))


if __name__ == "__main__":
    main()

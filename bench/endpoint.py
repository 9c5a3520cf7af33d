"""What the endpoint library costs for each message, and for each idle virtual connection; TSV.

    python -m bench.endpoint

The endpoint runs in this process, pinned to the last core; the gateway and a raw echo server run
on the first. CPU is this process's own. `ratio` compares with the first row of the same run.

What is told to a crowd, and what a lost gateway costs with one, is measured without a gateway:
what is written goes nowhere.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock, react
from twisted.python.failure import Failure

from bench.gateways import FASTWAY, FIRST_CORE, LAST_CORE, Gateway, Running, running
from fastway.endpoint import (
    EndpointConfig,
    GatewayConnection,
    GatewayFactory,
    Group,
    Json,
    VirtualConnection,
    connect_client,
)
from fastway.wire import (
    HEAD,
    MAX_PACKET,
    PING,
    FrameReader,
    encode_accept,
    encode_connect,
    encode_packet,
)

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


class Nowhere:
    """A transport that takes everything."""

    def write(self, data: bytes) -> None: ...

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def loseConnection(self) -> None: ...


def crowd(count: int) -> tuple[Any, list[VirtualConnection[Any]]]:
    """A connection to a gateway that is not there, with so many guests."""
    config = EndpointConfig(message_format=Json(), ping_interval=0)
    wire = GatewayFactory(config, clock=Clock()).buildProtocol(None)
    wire.makeConnection(cast(Any, Nowhere()))
    made: list[VirtualConnection[Any]] = []
    wire.gateway.listen(made.append)
    wire.dataReceived(b"".join(encode_connect(1 + n, 1) for n in range(count)))
    return wire, made


class Keeper(Nowhere):
    """A transport whose far end has a control connection, and says yes to all."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []

    def write(self, data: bytes) -> None:
        for conn_id, frames, _ in FrameReader().feed(data):
            if conn_id == CONTROL:
                asked = json.loads(frames[HEAD:].partition(b"\n")[0])
                if "id" not in asked:
                    continue
                answer = {"id": asked["id"], "ok": True, **SAYS[asked["op"]]}
                self.answers.append(encode_packet(CONTROL, json.dumps(answer).encode()))

    def answer(self, wire: Any) -> None:
        answers, self.answers = self.answers, []
        wire.dataReceived(b"".join(answers))


CONTROL = 1 << 20
SAYS: dict[str, dict[str, Any]] = {
    "hello": {
        "v": 1,
        "gateway": "",
        "version": "",
        "features": ["groups"],
        "max_packet": MAX_PACKET,
    },
    "join": {"members": 1},
    "push": {"sent": 1, "missing": []},
}


def pushing_crowd(count: int) -> tuple[Any, Keeper, Group[VirtualConnection[Any]]]:
    """The same for a server whose gateway has a copy of their group."""
    keeper = Keeper()
    config = EndpointConfig(message_format=Json(), ping_interval=0, accept_queue=count)
    wire = GatewayFactory(config, 1, clock=Clock()).buildProtocol(None)
    wire.makeConnection(cast(Any, keeper))
    for said in (bytes(8), PING, encode_accept(CONTROL, 0)):
        wire.dataReceived(said)
    keeper.answer(wire)
    made: list[VirtualConnection[Any]] = []
    wire.gateway.listen(made.append)
    wire.dataReceived(b"".join(encode_connect(1 + n, 1 + n) for n in range(count)))
    return wire, keeper, Group(made)


def print_crowds() -> None:
    """Broadcasts and the end of a gateway; the best of some runs each."""
    message = {"players": [{"id": n, "x": n * 0.5, "y": n * 0.25, "hp": 100} for n in range(56)]}
    size = len(Json().encode(message))
    print("crowd\tms CPU")
    for count in (500, 1000):
        _, conns = crowd(count)
        group = Group(conns)

        def send_to_each(conns: list[VirtualConnection[Any]] = conns) -> None:
            for conn in conns:
                conn.send(message)

        def tell(group: Group[VirtualConnection[Any]] = group) -> None:
            group.tell(message)

        for name, call in (("send to each of", send_to_each), ("Group.tell to", tell)):
            print(f"{name} {count}, {size} B of JSON\t{best(call):.2f}")
        wire, keeper, group = pushing_crowd(count)

        def push(
            wire: Any = wire,
            keeper: Keeper = keeper,
            group: Group[VirtualConnection[Any]] = group,
        ) -> None:
            group.tell(message)
            keeper.answer(wire)

        print(f"Group.tell to {count}, which the gateway copies\t{best(push):.2f}")
    took = [lose_a_crowd(2000) for _ in range(5)]
    print(f"a gateway is lost with 2000 guests, who each tell the room\t{min(took):.2f}")


def lose_a_crowd(count: int) -> float:
    """Milliseconds of CPU until all know that the gateway is gone."""
    wire, conns = crowd(count)
    room = Group(conns)

    def left(conn: VirtualConnection[Any]) -> None:
        room.tell({"left": conn.conn_id})

    for conn in conns:
        conn.receive().addErrback(lambda _: None)
        conn.on_end(left)
    return best(lambda: wire.connectionLost(Failure(ConnectionDone())), 1)


def best(call: Callable[[], object], times: int = 20) -> float:
    """Milliseconds of CPU."""
    took = []
    for _ in range(times):
        began = time.process_time()
        call()
        took.append(time.process_time() - began)
    return min(took) * 1e3


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
    print_crowds()
    wide = Gateway("fastway", [*FASTWAY, "--client-max-conn", "0"])
    with running(wide) as gateway, echo_server(gateway):
        react(lambda reactor: ensureDeferred(run(reactor, gateway)))


if __name__ == "__main__":
    main()

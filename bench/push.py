"""What a message to many costs the gateway and the game server: sent singly, and pushed.

    python -m bench.push [--runs N] [--seconds S] [--only TEXT] [--lanes relay,python]
                         [--options "..."] [--key KEY] [--tree PATH]... [--tsv FILE]
                         [--build DIRECTORY]

A game server on the endpoint library tells a Group. It is connected twice: over a link without a
control connection each member's packet is its own (`singly`), over the other the gateway copies
one (`push`). Both have the same clients, each a connection of its own. `sends.c` is the floor: it
does nothing but send the same bytes to as many sockets. They take turns in each run.

The gateway is alone on the first core, the floor too; the server and the clients share the last.
A round goes out when all have the one before; every byte of it is compared.

Law: figures are compared within one run only. CPU is all that a process spends, for each
recipient; in brackets are medians of each run's ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.edge import LANES, listed
from bench.gateways import (
    FASTWAY,
    FIRST_CORE,
    LAST_CORE,
    PATIENCE,
    ROOT,
    Failure,
    Gateway,
    Running,
    build,
    choose_cases,
    common_arguments,
    free_address,
    machine,
    run,
    running,
    write_row,
)
from bench.process import cpu_seconds
from bench.table import Case, Figure, Result, Table
from fastway.wire import HEAD, encode_dial, encode_packet, packet_head

WAYS = {"singly": 1, "push": 2}
"""The ids under which the game server is connected."""
GATEWAY = Figure("gateway, µs of CPU each", "gateway_us")
SERVER = Figure("server, µs of CPU each", "server_us")
CASES = [
    Case(f"{count} x {size} B", f"{count} {size}", (GATEWAY, SERVER))
    for count in (100, 1000)
    for size in (64, 1024, 2048)
]
WARM = 20
"""Rounds before it counts: by then the gateway knows the members."""
COLUMNS = "run gateway name rounds seconds gateway_us server_us".split()  # noqa: SIM905
HERE = b"here"
"""What members say; who says something else says it to all of them."""
SERVER_PROGRAM = """
import os, sys
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react
from fastway.endpoint import EndpointConfig, Group, connect_server
core, key, address, here = sys.argv[1:]
os.sched_setaffinity(0, {int(core)})

async def serve(reactor, server_id, control):
    where = clientFromString(reactor, "tcp:" + address)
    config = EndpointConfig(control=control, send_buffer=64 << 20)
    gateway = await connect_server(where, server_id, key.encode(), config, reactor)
    if control and await gateway.when_control() is None:
        raise SystemExit("the gateway has no control connection")
    group = Group()
    async def hear(conn):
        async for message in conn:
            if message == here.encode():
                group.add(conn)
            elif group.tell(message) != len(group):
                raise SystemExit("somebody was left out")
    gateway.serve(hear)
    print("ready", flush=True)
    await gateway.when_gone()

react(lambda reactor: gatherResults([
    ensureDeferred(serve(reactor, 1, False)), ensureDeferred(serve(reactor, 2, True)),
]))
"""


class Clients:
    """Those who are told, each over a connection of its own, and who says what.

    Args:
        count: How many are told.
        size: Bytes of a message.
    """

    def __init__(self, count: int, size: int) -> None:
        self.rounds = 0
        self._socks: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        self._count = count
        self._size = size
        self._heads: dict[int, bytes] = {}

    def connect(self, address: str) -> socket.socket:
        """Who says what, if all others are connected."""
        host, port = address.split(":")
        sock = socket.create_connection((host, int(port)), PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self._socks) < self._count:
            self._socks[sock.fileno()] = sock
            self._poll.register(sock, select.EPOLLIN)
        else:
            self._socks[-1] = sock
        return sock

    def expect(self, conn_ids: Sequence[int]) -> None:
        """Over which virtual connection each is told."""
        length = HEAD + self._size
        told = zip(self._socks, conn_ids, strict=False)
        self._heads = {fd: packet_head(conn_id, length - HEAD) for fd, conn_id in told if fd >= 0}

    def message(self) -> bytes:
        """Another one each time."""
        self.rounds += 1
        return (b"%08d" % self.rounds * (self._size // 8 + 1))[: self._size]

    def hear(self, message: bytes) -> None:
        """All are told it, and nothing else.

        Raises:
            Failure: somebody is told something else, or not in time.
        """
        left = self._count
        parts: dict[int, bytes] = {}
        while left:
            ready = self._poll.poll(PATIENCE, 256)
            if not ready:
                raise Failure(f"{left} of {self._count} were not told")
            for fd, _ in ready:
                data = parts.pop(fd, b"") + os.read(fd, 1 << 16)
                if len(data) < HEAD + self._size and data:
                    parts[fd] = data
                    continue
                if data != self._heads[fd] + message:
                    raise Failure("somebody was told something else")
                left -= 1

    def close(self) -> None:
        self._poll.close()
        for sock in self._socks.values():
            sock.close()


def receive_packet(sock: socket.socket) -> bytes:
    """Raises:
    Failure: the connection ends, or nothing comes.
    """
    try:
        head = sock.recv(4, socket.MSG_WAITALL)
        rest = sock.recv(int.from_bytes(head, "little"), socket.MSG_WAITALL)
    except OSError as error:
        raise Failure(f"the gateway does not answer: {error}") from None
    if not rest:
        raise Failure("the gateway ended a connection")
    return head + rest


def join(sock: socket.socket, server_id: int, member: bool) -> int:
    """Dial a server, and tell it of oneself; the number of the virtual connection."""
    sock.sendall(encode_dial(server_id))
    answer = receive_packet(sock)
    if len(answer) != HEAD + 9:
        raise Failure(f"server {server_id} was refused")
    conn_id = int.from_bytes(answer[HEAD + 1 : HEAD + 5], "little")
    if member:
        sock.sendall(encode_packet(conn_id, HERE))
    return conn_id


@contextlib.contextmanager
def game_server(gateway: Running, tree: Path, key: str) -> Iterator[int]:
    """The game server's process id."""
    where = [str(LAST_CORE), key, gateway.server, HERE.decode()]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER_PROGRAM, *where],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tree)},
    ) as process:
        try:
            assert process.stdout is not None
            for _ in WAYS:
                if process.stdout.readline() != b"ready\n":
                    raise Failure("the game server does not start")
            yield process.pid
        finally:
            process.kill()


def rounds(
    clients: Clients, say: Callable[[bytes], object], gateway: int, server: int, seconds: float
) -> Result:
    """So many as fit, and what they cost the two processes."""
    before = [cpu_seconds(pid) for pid in (gateway, server)]
    began, count = time.monotonic(), 0
    while not count or time.monotonic() - began < seconds:
        message = clients.message()
        say(message)
        clients.hear(message)
        count += 1
    took = time.monotonic() - began
    each = 1e6 / count / clients._count
    spent = [cpu_seconds(pid) - cpu for pid, cpu in zip((gateway, server), before, strict=True)]
    return {
        "rounds": count,
        "seconds": took,
        "gateway_us": spent[0] * each,
        "server_us": spent[1] * each,
    }


def measure(case: Case, gateway: Gateway, seconds: float, key: str) -> dict[str, Result]:
    """Both ways, through one gateway process, to the same clients."""
    count, size = map(int, case.load.split())
    results = {}
    clients = Clients(count, size)
    with (
        contextlib.closing(clients),
        running(gateway) as process,
        game_server(process, gateway.tree or ROOT, key) as server,
    ):
        socks = [clients.connect(process.client) for _ in range(count + 1)]
        ends = {
            way: [join(sock, server_id, sock is not socks[-1]) for sock in socks]
            for way, server_id in WAYS.items()
        }
        for way, conn_ids in ends.items():
            clients.expect(conn_ids)
            last = conn_ids[-1]

            def say(message: bytes, conn_id: int = last) -> None:
                socks[-1].sendall(encode_packet(conn_id, message))

            for _ in range(WARM):
                rounds(clients, say, process.pid, server, 0)
            results[way] = rounds(clients, say, process.pid, server, seconds)
    return results


def measure_floor(program: Path, case: Case, seconds: float) -> Result:
    count, size = map(int, case.load.split())
    address = free_address()
    clients = Clients(count, size)
    with (
        contextlib.closing(clients),
        subprocess.Popen(
            [str(program), address, str(count), str(HEAD + size)],
            stdout=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, {FIRST_CORE}),
        ) as process,
    ):
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"listening\n":
                raise Failure("the floor does not start")
            socks = [clients.connect(address) for _ in range(count + 1)]
            clients.expect(range(1, count + 1))

            def say(message: bytes) -> None:
                socks[-1].sendall(encode_packet(0, message))

            for _ in range(WARM):
                rounds(clients, say, process.pid, process.pid, 0)
            result = rounds(clients, say, process.pid, process.pid, seconds)
        finally:
            process.kill()
    del result["server_us"]
    return result


def compare(arguments: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    (floor,) = build(arguments.build, "-O2", names=("sends",))
    os.sched_setaffinity(0, {LAST_CORE})
    cases = choose_cases(arguments.only, CASES)
    options = [*shlex.split(arguments.options), "--client-max-conn", "0"]
    options += ["--server-auth-password", arguments.key] if arguments.key else []
    gateways = []
    for tree in [ROOT, *arguments.tree]:
        for lane in arguments.lanes:
            of = ("" if tree == ROOT else f"{tree.name}-") + ("" if lane == "relay" else lane)
            command = [*FASTWAY, *options, "--relay", LANES[lane]]
            gateways.append(Gateway(of and of.rstrip("-") + " ", command, tree))
    ways = [gateway.name + way for gateway in gateways for way in WAYS]
    table = Table(cases, [*ways, "floor"], ways[0])
    print(
        f"# {machine()}; {arguments.runs} runs, {arguments.seconds:g} s measured in each",
        flush=True,
    )
    with contextlib.ExitStack() as stack:
        file = arguments.tsv and stack.enter_context(open(arguments.tsv, "w", encoding="utf-8"))
        if file:
            write_row(file, COLUMNS, dict(zip(COLUMNS, COLUMNS, strict=True)))
        for number in range(arguments.runs):
            for case in cases:
                results = {"floor": measure_floor(floor, case, arguments.seconds)}
                turns = number % len(gateways)
                for gateway in [*gateways[turns:], *gateways[:turns]]:
                    both = measure(case, gateway, arguments.seconds, arguments.key)
                    results |= {gateway.name + way: result for way, result in both.items()}
                for name, result in results.items():
                    table.results[case.name, name].append(result)
                    if file:
                        named = {"run": number + 1, "gateway": name, "name": case.name}
                        write_row(file, COLUMNS, named | result)
    for base in (ways[0], "floor"):
        table.base = base
        print(f"\nRatios to {base}:\n")
        for line in table.lines():
            print(line)


def parse_arguments() -> argparse.Namespace:
    parser = common_arguments(__doc__)
    add = parser.add_argument
    add("--lanes", default="relay", type=lambda text: listed(text, list(LANES)))
    return parser.parse_args()


def main() -> None:
    run(lambda: compare(parse_arguments()))


if __name__ == "__main__":
    main()

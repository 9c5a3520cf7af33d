"""What a message to many costs the gateway and the game server: sent singly, and pushed.

    python -m bench.push [--runs N] [--seconds S] [--only TEXT] [--lanes relay,python]
                         [--options "..."] [--key KEY] [--tree PATH]... [--tsv FILE]
                         [--build DIRECTORY]

A game server on the endpoint library tells a Group. It is connected twice: over a link without a
control connection each member's packet is its own (`singly`), over the other the gateway copies
one (`push`). Both have the same clients, each a connection of its own. `one` is a round in which
nobody is told but who asks, after one of the floor's: what it costs beside that. The floor is
`sends.c`: it does nothing but send the same bytes to as many sockets, of one packet, or of as many
as there are sockets. They take turns in parts of each run.

The gateway is alone on the first core, the floor too; the server and the clients share the last.
A round goes out when all have the one before; every byte of it is compared. The clients wait for
the one who is told last, and not each for itself: nobody else is woken up at the gateway's cost.

Law: figures are compared within one run only. CPU is all that a process spends, for each
recipient; in brackets are medians of each run's ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
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
from fastway.wire import HEAD, CommandType, encode_dial, encode_packet, packet_head

WAYS = {"singly": 1, "push": 2, "one": 3}
"""The ids under which the game server is connected."""
FLOORS = ("floor singly", "floor push")
GATEWAY = Figure("gateway, µs of CPU each", "gateway_us")
SERVER = Figure("server, µs of CPU each", "server_us")
CASES = [
    Case(f"{count} x {size} B", f"{count} {size}", (GATEWAY, SERVER))
    for count in (100, 1000)
    for size in (64, 1024, 2048)
]
WARM = 20
"""Rounds before it counts: by then the gateway knows the members."""
PARTS = 8
"""Of the time that is measured: so often each has its turn."""
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
            elif server_id == 3:
                conn.tell(message)
            elif group.tell(message) != len(group):
                raise SystemExit("somebody was left out")
    gateway.serve(hear)
    print("ready", flush=True)
    await gateway.when_gone()

react(lambda reactor: gatherResults([
    ensureDeferred(serve(reactor, number, number == 2)) for number in (1, 2, 3)
]))
"""


class Way:
    """One way to tell many: those who are told, each over a connection of its own, and who asks
    for it.

    Args:
        socks: Their connections; the last is who asks.
        conn_ids: Over which virtual connection each of them is told.
        size: Bytes of a message.
        pids: The gateway's process, and the game server's.
        asks: The virtual connections over which a round is asked for; None: the last.
        shared: For how many its cost is; None: for those who are told.

    Attributes:
        after: A round of this way comes before each of its own, so that caches are as cold.
    """

    after: Way | None = None

    def __init__(
        self,
        socks: Sequence[socket.socket],
        conn_ids: Sequence[int],
        size: int,
        *pids: int,
        asks: Sequence[int] | None = None,
        shared: int | None = None,
    ) -> None:
        *told, self._sock = socks
        self._asks = conn_ids[-1:] if asks is None else asks
        self._shared = shared or len(told)
        pairs = zip(told, conn_ids, strict=False)
        self._told = [(sock, packet_head(conn_id, size)) for sock, conn_id in pairs][::-1]
        self._size = size
        self._pids = pids
        self._spent = [0.0] * len(pids)
        self._rounds = 0
        self._seconds = 0.0

    def run(self, rounds: int, seconds: float = 0) -> None:
        """At least so many rounds, at least for so long.

        Raises:
            Failure: somebody was told something else, or not in time.
        """
        before = [cpu_seconds(pid) for pid in self._pids]
        began = time.monotonic()
        while rounds > 0 or time.monotonic() - began < seconds:
            if self.after is not None:
                self.after.run(1)
            self._rounds += 1
            rounds -= 1
            message = (b"%08d" % self._rounds * (self._size // 8 + 1))[: self._size]
            self._sock.sendall(b"".join(encode_packet(one, message) for one in self._asks))
            for sock, head in self._told:
                if receive(sock, HEAD + self._size) != head + message:
                    raise Failure("somebody was told something else")
        self._seconds += time.monotonic() - began
        for place, pid in enumerate(self._pids):
            self._spent[place] += cpu_seconds(pid) - before[place]

    def clear(self) -> None:
        """What was until now does not count."""
        self._spent = [0.0] * len(self._pids)
        self._rounds, self._seconds = 0, 0.0

    def result(self) -> Result:
        each = 1e6 / self._rounds / self._shared
        named = zip(("gateway_us", "server_us"), self._spent, strict=False)
        return {
            "rounds": self._rounds,
            "seconds": self._seconds,
            **{name: spent * each for name, spent in named},
        }


@contextlib.contextmanager
def connected(address: str, count: int) -> Iterator[list[socket.socket]]:
    """So many connections."""
    host, port = address.split(":")
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(count):
            sock = socket.create_connection((host, int(port)), PATIENCE)
            socks.append(stack.enter_context(sock))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield socks


def receive(sock: socket.socket, size: int) -> bytes:
    """So many bytes.

    Raises:
        Failure: the connection ends, or they do not come.
    """
    try:
        data = sock.recv(size)
        while len(data) < size:
            more = sock.recv(size - len(data))
            if not more:
                raise Failure("a connection ended")
            data += more
    except OSError as error:
        raise Failure(f"nothing comes: {error}") from None
    return data


def join(sock: socket.socket, server_id: int, member: bool) -> int:
    """Dial a server, and tell it of oneself; the number of the virtual connection."""
    sock.sendall(encode_dial(server_id))
    head = receive(sock, HEAD)
    answer = receive(sock, int.from_bytes(head[:4], "little") - 4)
    if answer[0] != CommandType.ACCEPT:
        raise Failure(f"server {server_id} was refused")
    conn_id = int.from_bytes(answer[1:5], "little")
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
        cwd=tree,  # where it imports from
    ) as process:
        try:
            assert process.stdout is not None
            for _ in WAYS:
                if process.stdout.readline() != b"ready\n":
                    raise Failure("the game server does not start")
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def floors(program: Path, count: int, size: int) -> Iterator[dict[str, Way]]:
    """Nothing but the sending, of packets that came singly and of one."""
    address = free_address()
    with subprocess.Popen(
        [str(program), address, str(count), str(HEAD + size)],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {FIRST_CORE}),
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"listening\n":
                raise Failure("the floor does not start")
            with connected(address, count + 1) as socks:
                ids = range(1, count + 2)
                yield {
                    name: Way(socks, ids, size, process.pid, asks=asks)
                    for name, asks in zip(FLOORS, (ids[:-1], ids[-1:]), strict=True)
                }
        finally:
            process.kill()


@contextlib.contextmanager
def ways(gateway: Gateway, count: int, size: int, key: str) -> Iterator[dict[str, Way]]:
    """Both ways through one gateway, to the same clients."""
    with (
        running(gateway) as process,
        game_server(process, gateway.tree or ROOT, key) as server,
        connected(process.client, count + 1) as socks,
    ):
        made = {}
        for name, server_id in WAYS.items():
            told = socks[-1:] if name == "one" else socks
            ids = [join(sock, server_id, sock is not socks[-1]) for sock in told]
            if name == "one":
                told, ids = told * 2, ids * 2
            place = told, ids, size, process.pid, server
            made[gateway.name + name] = Way(*place, shared=count)
        yield made


def measure(
    program: Path, case: Case, gateways: Sequence[Gateway], seconds: float, key: str
) -> dict[str, Result]:
    """All ways, which take turns in short parts."""
    count, size = map(int, case.load.split())
    with contextlib.ExitStack() as stack:
        all_ways: dict[str, Way] = {}
        for gateway in gateways:
            all_ways |= stack.enter_context(ways(gateway, count, size, key))
        all_ways |= stack.enter_context(floors(program, count, size))
        for name, way in all_ways.items():
            if name.endswith("one"):
                way.after = all_ways[FLOORS[-1]]
            way.run(WARM)
            way.clear()
        for part in range(PARTS):
            for way in list(all_ways.values())[:: -1 if part % 2 else 1]:
                way.run(1, seconds / PARTS)
        return {name: way.result() for name, way in all_ways.items()}


def compare(arguments: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    (program,) = build(arguments.build, "-O2", names=("sends",))
    os.sched_setaffinity(0, {LAST_CORE})
    cases = choose_cases(arguments.only, CASES)
    options = [
        *shlex.split(arguments.options),
        "--client-max-conn",
        "0",
        "--client-idle-timeout",
        "0",
    ]
    options += ["--server-auth-password", arguments.key] if arguments.key else []
    gateways = []
    for tree in [ROOT, *arguments.tree]:
        for lane in arguments.lanes:
            of = ("" if tree == ROOT else f"{tree.name}-") + ("" if lane == "relay" else lane)
            command = [*FASTWAY, *options, "--relay", LANES[lane]]
            gateways.append(Gateway(of and of.rstrip("-") + " ", command, tree))
    names = [gateway.name + way for gateway in gateways for way in WAYS]
    table = Table(cases, [*names, *FLOORS], names[0])
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
                results = measure(program, case, gateways, arguments.seconds, arguments.key)
                for name, result in results.items():
                    table.results[case.name, name].append(result)
                    if file:
                        named = {"run": number + 1, "gateway": name, "name": case.name}
                        write_row(file, COLUMNS, named | result)
    for base in (names[0], *FLOORS):
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

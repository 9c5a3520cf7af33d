"""What the gateway costs for each forwarded message, over real sockets; TSV.

    python -m bench.forward [--quick] [--profile SCENARIO FILE]

The gateway runs in a process pinned to the first core, this load to the second. CPU is the
gateway process's own, from /proc; `forwards/CPU s` is what one core spent on nothing else would
do. Every byte is compared with what was sent. The last column is the cost beside `relay floor`:
Twisted's own port forwarder, which copies bytes between two sockets and knows no packets, fed the
pipelined bytes in the same run. Times on a busy machine vary by a fifth; ratios of one run say
more.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastway.auth import answer_challenge
from fastway.wire import encode_dial, encode_packet

KEY = b"bench"
SERVER_ID = 1


@dataclass
class Figures:
    forwards: int
    wall: float
    cpu: float
    round_trips: list[float]


class Process:
    """A program under load, pinned to the first core."""

    def __init__(self, command: list[str], ports: int, pattern: str) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            command,
            cwd=self.directory.name,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, {0}),
        )
        self.ports: list[int] = []
        assert self.process.stderr is not None
        while len(self.ports) < ports:
            line = self.process.stderr.readline().decode()
            if not line:
                raise SystemExit(f"{command} ended")
            found = re.search(pattern, line)
            if found is not None:
                self.ports.append(int(found[1]))
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        with open(f"/proc/{self.process.pid}/schedstat") as file:
            return int(file.read().split()[0]) / 1e9

    def resident(self) -> int:
        """Bytes of memory that it occupies."""
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def command(self, line: str) -> None:
        """Give a gateway a command by SIGUSR1."""
        path = os.path.join(self.directory.name, "fastway.cmd")
        with open(path, "w") as file:
            file.write(line)
        os.chmod(path, 0o644)
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self.directory.cleanup()


def gateway() -> Process:
    options = ["--client-addr", "127.0.0.1:0", "--server-addr", "127.0.0.1:0"]
    options += ["--server-auth-password", KEY.decode(), "--client-max-conn", "0"]
    command = [sys.executable, "-m", "fastway", *options]
    return Process(command, 2, r"port listens on 127.0.0.1:(\d+)")


FLOOR = """
import sys
from twisted.internet import reactor
from twisted.protocols.portforward import ProxyFactory
port = reactor.listenTCP(0, ProxyFactory("127.0.0.1", int(sys.argv[1])), interface="127.0.0.1")
print("floor on", port.getHost().port, file=sys.stderr, flush=True)
reactor.run()
"""


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise SystemExit("a connection was closed")
        data += piece
    return data


def login(port: int) -> socket.socket:
    server = connect(port)
    server.sendall(answer_challenge(exactly(server, 8), KEY, SERVER_ID))
    return server


def dial(client: socket.socket, server: socket.socket) -> int:
    """A virtual connection; returns its id."""
    client.sendall(encode_dial(SERVER_ID))
    accept, connect_ = exactly(client, 17), exactly(server, 17)
    assert accept[8] == 1
    assert connect_[8] == 2
    assert accept[9:13] == connect_[9:13]
    return int.from_bytes(accept[9:13], "little")


def measure(process: Process, forwards: int, run: Callable[[], list[float]]) -> Figures:
    cpu, wall = process.cpu(), time.perf_counter()
    round_trips = run()
    wall = time.perf_counter() - wall
    return Figures(forwards, wall, process.cpu() - cpu, round_trips)


def stream(sender: socket.socket, receiver: socket.socket, block: bytes, count: int) -> None:
    """Send `block` `count` times, each with its own number in it; compare at the far end."""
    sent, received = hashlib.sha1(), hashlib.sha1()
    size = len(block)

    def send() -> None:
        data = bytearray(block)
        for number in range(count):
            data[8:16] = number.to_bytes(8, "little")  # in the first packet's message
            sent.update(data)
            sender.sendall(data)

    thread = threading.Thread(target=send)
    thread.start()
    left = size * count
    while left:
        data = receiver.recv(min(left, 1 << 20))
        if not data:
            raise SystemExit("the stream was cut")
        received.update(data)
        left -= len(data)
    thread.join()
    if sent.digest() != received.digest():
        raise SystemExit("the stream arrived changed")


def measure_stream(
    process: Process,
    sender: socket.socket,
    receiver: socket.socket,
    packet: bytes,
    messages: int,
) -> Figures:
    """`packet` over and over, in blocks of 64 KiB, as fast as it is read."""
    per_block = max(1, 65536 // len(packet))
    count = messages // per_block

    def run() -> list[float]:
        stream(sender, receiver, packet * per_block, count)
        return []

    return measure(process, count * per_block, run)


def pipelined(process: Process, messages: int, size: int) -> Figures:
    """One client sends to one server as fast as it is read."""
    server, client = login(process.ports[1]), connect(process.ports[0])
    packet = encode_packet(dial(client, server), bytes(size))
    return measure_stream(process, client, server, packet, messages)


def floor(messages: int, size: int) -> Figures:
    """The same bytes through Twisted's port forwarder."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        target = str(listening.getsockname()[1])
        process = Process([sys.executable, "-c", FLOOR, target], 1, r"floor on (\d+)")
        try:
            client = connect(process.ports[0])
            server, _ = listening.accept()
            packet = encode_packet(1, bytes(size))
            return measure_stream(process, client, server, packet, messages)
        finally:
            process.stop()


def downstream(process: Process, messages: int, size: int) -> Figures:
    """One server sends to one client, a window at a time, as the client's queue allows."""
    server, client = login(process.ports[1]), connect(process.ports[0])
    packet = encode_packet(dial(client, server), bytes(size))
    window = max(1, 65536 // len(packet))
    block = packet * window

    def run() -> list[float]:
        for _ in range(messages // window):
            server.sendall(block)
            if exactly(client, len(block)) != block:
                raise SystemExit("the stream arrived changed")
        return []

    return measure(process, messages // window * window, run)


def echo(process: Process, clients: int, messages: int, size: int) -> Figures:
    """Clients with one message in flight each, echoed by one server; two forwards a round."""
    server = login(process.ports[1])
    packets: dict[int, bytes] = {}
    socks: dict[int, socket.socket] = {}
    for number in range(clients):
        client = connect(process.ports[0])
        packets[client.fileno()] = encode_packet(
            dial(client, server), number.to_bytes(4, "little") * (size // 4)
        )
        socks[client.fileno()] = client

    def answer() -> None:
        while True:
            try:
                data = server.recv(1 << 20)
                if not data:
                    return
                server.sendall(data)
            except OSError:
                return

    threading.Thread(target=answer, daemon=True).start()

    def run() -> list[float]:
        poll = select.epoll()
        began: dict[int, float] = {}
        for number, client in socks.items():
            poll.register(number, select.EPOLLIN)
            began[number] = time.perf_counter()
            client.sendall(packets[number])
        trips: list[float] = []
        left = messages
        while left > 0:
            for number, _ in poll.poll():
                client, packet = socks[number], packets[number]
                data = client.recv(65536)
                if len(data) < len(packet):
                    data += exactly(client, len(packet) - len(data))
                if data != packet:
                    raise SystemExit("an echo came back changed")
                now = time.perf_counter()
                trips.append(now - began[number])
                began[number] = now
                client.sendall(packet)
                left -= 1
        for number in socks:  # the last round
            exactly(socks[number], len(packets[number]))
        return trips

    figures = measure(process, 2 * (messages + clients), run)
    server.close()
    return figures


def fan_out(process: Process, clients: int, rounds: int, size: int) -> Figures:
    """One server sends a message to each of many clients, round after round."""
    server = login(process.ports[1])
    socks = [connect(process.ports[0]) for _ in range(clients)]
    packets = [encode_packet(dial(client, server), bytes(size)) for client in socks]
    block = b"".join(packets)

    def run() -> list[float]:
        for _ in range(rounds):
            server.sendall(block)
            for client, packet in zip(socks, packets, strict=True):
                if exactly(client, len(packet)) != packet:
                    raise SystemExit("a message arrived changed")
        return []

    return measure(process, rounds * clients, run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--profile", default="", metavar="FILE", help="write a cProfile of each")
    arguments = parser.parse_args()
    part = 10 if arguments.quick else 1
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    print(f"# CPython {platform.python_version()} on {platform.machine()}, 64 B messages")
    print("scenario\tforwards\tforwards/s\tforwards/CPU s\tus CPU/forward\tp50 us\tp99 us\tratio")
    base = floor(1_000_000 // part, 64)
    scenarios: list[tuple[str, Callable[[Process], Figures] | None]] = [
        ("relay floor", None),
        ("pipelined, client to server", lambda p: pipelined(p, 3_000_000 // part, 64)),
        ("windowed, server to client", lambda p: downstream(p, 1_000_000 // part, 64)),
        ("echo, 1 client x 1", lambda p: echo(p, 1, 20_000 // part, 64)),
        ("echo, 100 clients x 1", lambda p: echo(p, 100, 100_000 // part, 64)),
        ("echo, 1000 clients x 1", lambda p: echo(p, 1000, 100_000 // part, 64)),
        ("fan-out to 100 clients", lambda p: fan_out(p, 100, 2_000 // part, 64)),
        ("fan-out to 1000 clients", lambda p: fan_out(p, 1000, 200 // part, 64)),
    ]
    per_base = base.cpu / base.forwards
    for name, scenario in scenarios:
        if arguments.only not in name:
            continue
        if scenario is None:
            figures = base
        else:
            process = gateway()
            try:
                if arguments.profile:
                    process.command("cpuprof start")
                figures = scenario(process)
                if arguments.profile:
                    process.command("cpuprof stop")
                    made = os.path.join(process.directory.name, "fastway.cpu.prof")
                    os.replace(made, arguments.profile)
            finally:
                process.stop()
        trips = sorted(figures.round_trips)
        p50 = f"{trips[len(trips) // 2] * 1e6:.0f}" if trips else "-"
        p99 = f"{trips[len(trips) * 99 // 100] * 1e6:.0f}" if trips else "-"
        per = figures.cpu / figures.forwards
        print(
            f"{name}\t{figures.forwards}\t{figures.forwards / figures.wall:.0f}\t"
            f"{1 / per:.0f}\t{per * 1e6:.2f}\t{p50}\t{p99}\t{per / per_base:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

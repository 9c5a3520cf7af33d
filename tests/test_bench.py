"""The bench measures what it says: every payload is compared, and a gateway that lies is caught.

Rule: nothing here asks how fast anything is. The C programs run with sanitizers.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from twisted.trial.unittest import SynchronousTestCase

import bench.attack
import bench.gateways
from bench.attack import choose, scenarios
from bench.ends import Ends, Watch
from bench.gateways import (
    CASES,
    FASTWAY,
    ROOT,
    Failure,
    Gateway,
    Running,
    build,
    fastway_gateways,
    idle,
    measure,
    running,
    tree_path,
)
from bench.plot import bars, digits
from bench.table import Case, Figure, Table
from tests.support.benches import DIRECTORY, KEY, QUICK, floor_gateway, programs
from tests.support.files import scratch
from tests.support.golden import accept, close, packet
from tests.support.processes import PATIENCE

FASTWAY_WITH_KEY = Gateway("fastway", [*FASTWAY, "--server-auth-password", KEY])


class LoadTests(SynchronousTestCase):
    """Every case of load, against the floor and against fastway."""

    loads: ClassVar[dict[str, str]] = {
        "echo": "echo -c 5 -v 3 -w 4 -s 100",
        "the shortest message": "echo -c 2 -s 8",
        "messages longer than a read": "echo -c 2 -w 3 -s 70001",
        "the longest message": "echo -c 1 -w 2 -s 524284",
        "fan-in": "fan-in -c 5 -v 2 -w 50",
        "fan-out": "fan-out -c 5 -v 2 -w 3",
        "dial": "dial -c 5",
        "connect": "connect -c 40 -w 8",
    }

    def run_loads(self, gateway: Running) -> None:
        load, *_ = programs()
        spent = 0.0
        for name, arguments in self.loads.items():
            result = measure(load, [*arguments.split(), *QUICK], gateway)
            self.assertGreater(result["count"], 0, name)
            spent += result["cpu_us"] * result["count"]
            self.assertGreater(result["memory"], 0, name)
            self.assertLessEqual(result["p50_us"], result["p99_us"], name)
            self.assertLessEqual(result["p99_us"], result["p999_us"], name)
        # Not each: where the kernel counts by its tick, a short one may have cost none.
        self.assertGreater(spent, 0)

    def test_floor(self) -> None:
        """The floor carries every load, and no sanitizer ends it."""
        with running(floor_gateway()) as gateway:
            self.run_loads(gateway)

    def test_fastway(self) -> None:
        """The gateway carries every load, and lets the server in by its proof only."""
        load, *_ = programs()
        with running(FASTWAY_WITH_KEY) as gateway:
            self.run_loads(gateway)
            with pytest.raises(Failure, match="no answer to the handshake"):
                measure(load, ["echo", "-k", "wrong"], gateway)

    def test_proof(self) -> None:
        """load's own MD5, by the wire's vectors and for keys that fill one block or two."""
        load, *_ = programs()
        challenge = bytes(range(1, 9))

        def prove(key: str) -> str:
            arguments = [str(load), "proof", challenge.hex(), key]
            return subprocess.run(
                arguments, capture_output=True, text=True, check=True
            ).stdout.strip()

        self.assertEqual(prove("secret"), "adcfa1211693e4374b111406c62170c5")
        self.assertEqual(prove(""), "0ee0646c1c77d8131cc8f4ee65c7673b")
        for size in (1, 46, 47, 48, 55, 56, 57, 111, 112):
            expected = hashlib.md5(challenge + b"k" * size).hexdigest()
            self.assertEqual(prove("k" * size), expected, size)


# A gateway that lies: the floor behind a forwarder that changes what the clients get.

Lie = Callable[[int, bytes], bytes]
"""Makes of the nth message to a client, a packet, what the client gets; 0 for a command."""


def whole(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Packets of a stream, to its end."""
    while head := read(4):
        yield head + read(int.from_bytes(head, "little"))


def forward(source: socket.socket, to: socket.socket, lie: Lie | None) -> None:
    def read(size: int) -> bytes:
        return source.recv(size, socket.MSG_WAITALL)

    messages = 0
    try:
        for one in whole(read):
            is_message = one[4:8] != bytes(4)
            messages += is_message
            to.sendall(lie(messages if is_message else 0, one) if lie else one)
    except OSError:  # the load has seen enough, or the lie is to be gone
        pass
    finally:
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def lying(gateway: Running, lie: Lie) -> Iterator[Running]:
    """One client's connection to `gateway`, with `lie` told to it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            host, port = gateway.client.split(":")
            with client, socket.create_connection((host, int(port))) as behind:
                for sock in (client, behind):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                up = threading.Thread(target=forward, args=(client, behind, None))
                up.start()
                forward(behind, client, lie)
                up.join()

        thread = threading.Thread(target=serve)
        thread.start()
        yield Running(gateway.pid, f"127.0.0.1:{listening.getsockname()[1]}", gateway.server)
        thread.join()


def tenth(change: Callable[[bytes], bytes]) -> Lie:
    return lambda number, one: change(one) if number == 10 else one


def flip(place: int) -> Lie:
    """One bit of the packet's byte `place`."""

    def change(one: bytes) -> bytes:
        changed = bytearray(one)
        changed[place] ^= 1
        return bytes(changed)

    return tenth(change)


def answers(to: int, instead: Callable[[int], bytes]) -> Lie:
    """Instead of a command of type `to`, what is made of its first argument."""
    return lambda _, one: (
        instead(struct.unpack_from("<I", one, 9)[0])
        if one[4:9] == bytes([0, 0, 0, 0, to])
        else one
    )


def gone(_: bytes) -> bytes:
    raise ConnectionResetError


class Misled:
    """A message on a connection that is the client's, and not its own."""

    first = b""

    def __call__(self, number: int, one: bytes) -> bytes:
        if number == 1:
            self.first = one[4:8]
        if number > 10 and one[4:8] != self.first:
            return one[:4] + self.first + one[8:]
        return one


class Swapped:
    """The tenth message comes after the eleventh."""

    kept = b""

    def __call__(self, number: int, one: bytes) -> bytes:
        if number == 10:
            self.kept = one
            return b""
        return one + self.kept if number == 11 else one


class LeftOver:
    """A message that comes again when all are in: before the second Ping."""

    last = b""
    pings = 0

    def __call__(self, number: int, one: bytes) -> bytes:
        if number:
            self.last = one
        elif one[8] == 5:
            self.pings += 1
            return self.last + one if self.pings == 2 else one
        return one


class LieTests(SynchronousTestCase):
    """What a gateway must not do ends load with a line that says so."""

    truths: ClassVar[list[str]] = ["echo -v 2 -w 2", "fan-out -v 2 -w 2", "fan-in", "dial"]
    lies: ClassVar[dict[str, tuple[str, Lie, str]]] = {
        "another flow": ("echo -w 2", flip(8), "wrong message at the client"),
        "another number": ("echo -w 2", flip(12), "wrong message at the client"),
        "a bit in the middle": ("echo -w 2", flip(60), "from byte 48 on"),
        "the last byte": ("echo -w 2", flip(-1), "from byte 88 on"),
        "a bit of a fan-out": ("fan-out -w 2", flip(60), "wrong message at the client"),
        "swapped": ("echo -w 2", Swapped(), "flow 0"),
        "twice": ("echo", tenth(lambda one: one + one), "that was not sent"),
        "twice, more in flight": ("echo -w 3", tenth(lambda one: one + one), "flow 0"),
        "not at all": ("echo -t 0.3", tenth(lambda _: b""), "1 dials or messages"),
        "not at all, more in flight": ("echo -w 2", tenth(lambda _: b""), "flow 0"),
        "too short": (
            "echo",
            tenth(lambda one: packet(int.from_bytes(one[4:8], "little"), one[8:-1])),
            "has 92 bytes instead of 93",
        ),
        "left over": ("echo -d 0.03", LeftOver(), "that was not sent"),
        "on the other connection": ("echo -v 2 -w 2", Misled(), "flow 0"),
        "on no connection": ("echo", flip(7), "which was never made"),
        "a connection closed": (
            "echo",
            tenth(lambda one: one + close(int.from_bytes(one[4:8], "little"))),
            "the gateway closed connection",
        ),
        "no packet": ("echo", tenth(lambda _: bytes(4)), "impossible length"),
        "a command of no type": ("echo", tenth(lambda _: packet(0)), "that is none"),
        "gone": ("echo", tenth(gone), "ended the connection"),
        "another server": (
            "dial",
            answers(1, lambda conn_id: accept(conn_id, 2)),
            "an Accept that nobody asked for",
        ),
        "two Accepts": (
            "dial",
            answers(1, lambda conn_id: 2 * accept(conn_id, 1)),
            "an Accept that nobody asked for",
        ),
        "the Close of another": (
            "dial",
            answers(4, lambda conn_id: close(conn_id + 1000)),
            "which was never made",
        ),
    }

    def test_truth(self) -> None:
        """What only passes through the liar is no lie."""
        load, *_ = programs()
        with running(floor_gateway()) as gateway:
            for arguments in self.truths:
                with lying(gateway, lambda _, one: one) as liar:
                    result = measure(load, [*arguments.split(), *QUICK], liar)
                self.assertGreater(result["count"], 0, arguments)

    def test_lies(self) -> None:
        load, *_ = programs()
        with running(floor_gateway()) as gateway:
            for name, (arguments, lie, expected) in self.lies.items():
                kind, *rest = arguments.split()
                with lying(gateway, lie) as liar:
                    try:
                        said = str(measure(load, [kind, "-s", "93", "-d", "5", *rest], liar))
                    except Failure as failure:
                        said = str(failure)
                self.assertIn(expected, said, name)


class PairTests(SynchronousTestCase):
    """The honest pair: what it measures, and that nothing wrong gets by."""

    @contextlib.contextmanager
    def pair(self, gateway: Running, arguments: str = "") -> Iterator[Ends]:
        where = [gateway.client, gateway.server]
        with Ends([str(programs()[2]), *arguments.split(), *where]) as ends:
            self.assertEqual(ends.hear(), "ready")
            yield ends

    def phase(self, ends: Ends) -> dict[str, float]:
        ends.say()
        figures: dict[str, float] = json.loads(ends.hear())
        return figures

    def test_phases(self) -> None:
        """A phase has its own figures, and at the end every message has come."""
        with running(floor_gateway()) as gateway, self.pair(gateway, "-c 3") as ends:
            for _ in range(2):
                time.sleep(0.1)
                figures = self.phase(ends)
                self.assertLessEqual(figures["p50_us"], figures["p99_us"])
                self.assertLess(figures["count"], 1000)
                self.assertGreater(figures["count"], 0)
            self.assertLess(self.phase(ends)["count"], figures["count"])
            ends.end_input()
            self.assertEqual(ends.hear(), "all")

    def test_pause(self) -> None:
        """A pause weighs as much as it lasts, although one message only was on its way."""

        passed = threading.Event()

        def pause(number: int, one: bytes) -> bytes:
            if number == 50:
                time.sleep(0.2)
            if number == 52:
                passed.set()
            return one

        with (
            running(floor_gateway()) as gateway,
            lying(gateway, pause) as liar,
            self.pair(liar) as ends,
        ):
            self.assertTrue(passed.wait(20))
            figures = self.phase(ends)
            self.assertGreater(figures["p99_us"], 100_000)
            self.assertGreater(figures["longest_us"], 190_000)
            ends.end_input()
            self.assertEqual(ends.hear(), "all")

    def test_still_out(self) -> None:
        """What does not come counts with the time it has waited, and is missed at the end."""
        with (
            running(floor_gateway()) as gateway,
            lying(gateway, tenth(lambda _: b"")) as liar,
            self.pair(liar, "-t 0.2") as ends,
        ):
            time.sleep(1)  # far more than what is asked for below: the pair may begin late
            figures = self.phase(ends)
            self.assertEqual(figures["count"], 9)
            self.assertGreater(figures["waiting_us"], 100_000)
            self.assertGreater(figures["p50_us"], 50_000)
            ends.end_input()
            with pytest.raises(Failure, match="a message did not come"):
                ends.hear()

    def test_rate(self) -> None:
        """The server reads no more than it may; at the end it reads all."""
        arguments = "-i 0.001 -s 10000 -c 20 -r 200000"
        with running(floor_gateway()) as gateway, self.pair(gateway, arguments) as ends:
            time.sleep(0.5)
            self.assertLess(self.phase(ends)["count"], 30)
            ends.end_input()
            self.assertEqual(ends.hear(), "all")

    def test_lies(self) -> None:
        """A message that is changed, doubled or another's ends it with a line."""
        lies: dict[str, Lie] = {
            "wrong message at the client": flip(60),
            "that was not sent": tenth(lambda one: one + one),
            "got a message of another": flip(7),
            "closed the connection": tenth(
                lambda one: one + close(int.from_bytes(one[4:8], "little"))
            ),
            "ended the connection": tenth(gone),
        }
        with running(floor_gateway()) as gateway:
            for expected, lie in lies.items():
                said = pytest.raises(Failure, match=expected)
                with lying(gateway, lie) as liar, self.pair(liar, "-i 0.001") as ends, said:
                    ends.hear()


class AttackTests(SynchronousTestCase):
    """Every attack does something, and is over when it is told to be."""

    floods = ("dials", "pings", "strays", "closes", "mix", "churn", "messages")
    others = ("pings -p 512", "storm", "reset -v 2", "server -v 2", "crowd -v 1")

    def attack(self, gateway: Running, arguments: str, lasts: float) -> dict[str, float]:
        where = [gateway.client, gateway.server]
        command = [str(programs()[3]), *arguments.split(), "-c", "5", *where]
        with Ends(command) as ends:
            self.assertEqual(ends.hear(), "ready")
            ends.say()
            self.assertEqual(ends.hear(), "begun")
            time.sleep(lasts)
            ends.say()
            done: dict[str, float] = json.loads(ends.hear())
            self.assertEqual(ends.process.wait(PATIENCE), 0)
        return done

    def test_kinds(self) -> None:
        """Each kind is done to a gateway."""
        with running(floor_gateway()) as gateway:
            for kind in (*self.floods, *self.others):
                done = self.attack(gateway, kind, 0.2)
                self.assertGreater(done["done"] + (kind == "crowd -v 1"), 0, kind)
                self.assertLess(done["seconds"], PATIENCE, kind)

    def test_unread(self) -> None:
        """Who may read nothing receives nothing from the beginning of the attack on."""
        with running(floor_gateway()) as gateway:
            least = self.attack(gateway, "pings -r 0", 0.1)["received"]
            self.assertEqual(least, 5 * 9)  # each one's first Ping
            some = self.attack(gateway, "pings -r 1000", 0.3)["received"]
            self.assertTrue(least < some < 5 * 2000, some)

    def test_cut_off(self) -> None:
        """Attackers who are cut off come back; who idles out is counted."""
        idle = [*FASTWAY, "--client-idle-timeout", "1s", "--relay", "off"]
        with running(Gateway("fastway", [*idle, "--max-packet", "60"])) as gateway:
            done = self.attack(gateway, "messages", 1)
            self.assertGreater(done["lost"], 0)
        with running(Gateway("fastway", idle)) as gateway:
            self.assertEqual(self.attack(gateway, "idle -i 1", 1.5)["done"], 5)

    def test_loopback(self) -> None:
        """Nobody else's gateway is attacked."""
        said = pytest.raises(Failure, match="only a gateway on loopback")
        with Ends([str(programs()[3]), "storm", "10.0.0.1:1", "127.0.0.1:1"]) as ends, said:
            ends.hear()

    def test_choose(self) -> None:
        """By number of the group, or by a text of the name."""
        self.assertEqual({one.group for one in choose(scenarios(), "3,5", False)}, {3, 5})
        self.assertEqual(
            [one.name for one in choose(scenarios(), "storm", True)], ["storm of connections"]
        )
        self.assertEqual({one.group for one in choose(scenarios(), "", True)}, set(range(1, 8)))
        for one in choose(scenarios(), "", False):
            self.assertEqual([one], choose(scenarios(), one.name, False))
        with pytest.raises(Failure, match=r"there are: 1 x dials"):
            choose(scenarios(), "none of them", False)

    def test_reports(self) -> None:
        """Reports are asked for in turn, by the file in the gateway's directory."""
        gateway = fastway_gateways([])[-1]
        with running(gateway) as process:
            log = ""
            for _ in range(20):  # a busy machine asks less often
                Watch(process).pass_time(0.5, reports=10)
                log = Path(f"/proc/{process.pid}/fd/2").read_text(encoding="utf-8")
                if "fastway.links.txt" in log:
                    break
        self.assertIn("uptime", log)
        self.assertIn("fastway.links.txt", log)

    def test_row(self) -> None:
        """Medians of the runs, and the median of their ratios; what is not known is left out."""
        runs = [
            {"p50_us_quiet": 1000 * quiet, "p50_us_attack": 1000 * attack, "came": "all"}
            for quiet, attack in ((1, 4), (10, 20), (3, 9))
        ]
        cells = bench.attack.row("name", "gateway", runs)
        self.assertEqual(cells[2:4], ["3.00 → 9.00 (3.00)", "-"])
        self.assertEqual(cells[bench.attack.HEAD.index("came")], "all")
        cells = bench.attack.row("name", "gateway", [*runs, {"came": "a message did not come"}])
        self.assertIn("a message did not come; all", cells)
        late = {**runs[0], "waiting_us_attack": 5000}
        self.assertIn("1.00 → ≥4.00 (4.00)", bench.attack.row("name", "gateway", [late]))

    def test_command(self) -> None:
        """A line for each scenario and gateway, and every result in the TSV."""
        directory = Path(scratch(self))
        self.patch(bench.attack, "build", lambda *_, **__: programs()[2:4])
        tsv = directory / "tsv"
        peer = f"{programs()[1]} {{client}} {{server}}"
        arguments = ["attack", "--others", "--tree", str(ROOT), "--peer", peer, "--tsv", str(tsv)]
        chosen = ["--only", "10 x mix (read),storm", "--seconds", "0.1", "--settle", "0.1"]
        self.patch(sys, "argv", [*arguments, *chosen])
        with contextlib.redirect_stdout(io.StringIO()) as output:
            bench.attack.main()
        table = [line for line in output.getvalue().splitlines() if line.startswith("|")]
        gateways = [line.split("|")[2].strip() for line in table[2:]]
        self.assertEqual(gateways, ["relay", "python", "floor"][-len(gateways) // 2 :] * 2)
        said, head, *rows = tsv.read_text().splitlines()
        self.assertTrue(said.startswith("# "))
        came = head.split("\t").index("came")
        self.assertEqual([one.split("\t")[came] for one in rows], ["all"] * len(gateways))


class GatewaysTests(SynchronousTestCase):
    """The table, the plot and the command line."""

    def table(self) -> Table:
        case = Case("a case", "echo", (Figure("a figure", "cpu_us", 10), Figure("none", "p50_us")))
        table = Table([case], ["floor", "other"], "floor")
        for floor, other in ((10, 40), (100, 200), (30, 90)):
            table.results["a case", "floor"].append({"cpu_us": floor, "p50_us": None})
            table.results["a case", "other"].append({"cpu_us": other, "p50_us": None})
        return table

    def test_table(self) -> None:
        """Medians of the runs; the ratio is the median of the runs' ratios."""
        self.assertEqual(
            list(self.table().lines()),
            [
                "| case   | figure   | floor | other       |",
                "| ------ | -------- | ----- | ----------- |",
                "| a case | a figure | 3.00  | 9.00 (3.00) |",
                "| a case | none     | -     | -           |",
            ],
        )

    def test_digits(self) -> None:
        self.assertEqual(
            [digits(number) for number in (0.01234, 1.0, 99.94, 123.4, 123456.7)],
            ["0.0123", "1.00", "99.9", "123", "123457"],
        )

    def test_plot(self) -> None:
        """An SVG that names everything; what is not known has no bar."""
        svg = xml.etree.ElementTree.fromstring(self.table().plot())
        texts = ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
        for expected in ("floor", "other", "a case, a figure", "3.00"):
            self.assertIn(expected, texts)
        nothing = xml.etree.ElementTree.fromstring(bars("nothing <measured>", []))
        self.assertIn("nothing <measured>", "".join(nothing.itertext()))

    def test_cases(self) -> None:
        """load knows every case of the table: it gets as far as looking for the gateway."""
        load, *_ = programs()
        nowhere = Running(os.getpid(), "127.0.0.1:1", "127.0.0.1:1")
        for case in filter(lambda case: case.load, CASES):
            with pytest.raises(Failure, match="cannot connect"):
                measure(load, case.load.split(), nowhere)

    def test_idle(self) -> None:
        """A process that sleeps a hundred times a second wakes as often."""
        code = "import time\nwhile True: time.sleep(0.01)"
        with subprocess.Popen([sys.executable, "-c", code]) as process:
            result = idle(Running(process.pid, "", ""), 0.5)
            process.kill()
        self.assertTrue(20 < result["wake_ups"] < 120, result)
        self.assertGreater(result["cpu_us"], 0)

    def test_trees(self) -> None:
        """Another checkout is named by its directory, and imported from there."""
        tree = Path(scratch(self)) / "older"
        package = tree / "fastway"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text("import sys; sys.exit('I am the older one')")
        with contextlib.redirect_stdout(io.StringIO()) as output:
            gateways = fastway_gateways([], tree_path(str(tree)))
        self.assertEqual([(one.name, one.tree) for one in gateways], [("older-python", tree)])
        self.assertIn("I am the older one", output.getvalue())
        with pytest.raises(argparse.ArgumentTypeError, match="no checkout"):
            tree_path(str(package))

    def test_no_compiler(self) -> None:
        """One line says what is missing."""
        self.patch(os, "environ", {"PATH": ""})
        with pytest.raises(Failure, match=r"^the bench needs a C compiler [^\n]*$"):
            build(Path(DIRECTORY.name) / "none")

    def test_command(self) -> None:
        """The table on the output, every result in the TSV, the plot in its file."""
        directory = Path(scratch(self))
        other, tsv, plot = (directory / name for name in ("other", "tsv", "plot.svg"))
        other.symlink_to(programs()[1])
        command = [sys.executable, "-m", "bench.gateways", "--runs", "1", "--seconds", "0.03"]
        command += ["--only", "echo 100 x 1 x 16", "--peer", f"{other} {{client}} {{server}}"]
        command += ["--tsv", str(tsv), "--plot", str(plot), "--build", str(directory)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        table = [line for line in done.stdout.splitlines() if line.startswith("|")]
        names = [cell.strip() for cell in table[0].strip("|").split("|")][2:]
        self.assertIn("python", names)
        self.assertEqual([names[0], names[-1]], ["floor", "other"])
        head, *rows = (line.split("\t") for line in tsv.read_text().splitlines())
        self.assertEqual([row[head.index("gateway")] for row in rows], names)
        self.assertIn("other", plot.read_text())

    def test_no_relay(self) -> None:
        """Where the relay is an option but was not built, the Python path is measured alone."""
        code = (
            "import sys; print('--relay', flush=True); "
            "sys.exit('not built' if 'on' in sys.argv else 0)"
        )
        fastway = [sys.executable, "-c", code]
        self.patch(bench.gateways, "CONSOLE", fastway)
        self.patch(bench.gateways, "FASTWAY", fastway)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            gateways = fastway_gateways([])
        self.assertEqual(gateways, [Gateway("python", [*fastway, "--relay", "off"], ROOT)])
        self.assertIn("only the Python path is measured", output.getvalue())
        self.assertIn("not built", output.getvalue())

    def test_gateway_that_ends(self) -> None:
        """A gateway that does not start, or does not last, is an error with its last words."""
        words = "import sys; sys.exit('no such option')"
        failing = Gateway("failing", [sys.executable, "-c", words])
        with pytest.raises(Failure, match=r"not start.*no such option"), running(failing):
            pass
        ended = pytest.raises(Failure, match="floor ended by itself")
        with ended, running(floor_gateway()) as process:
            os.kill(process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

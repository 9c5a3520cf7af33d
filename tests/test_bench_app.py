"""The bench of applications: each kind of load, native, on Twisted and beside a peer.

Rule: nothing here asks how fast anything is.
"""

from __future__ import annotations

import sys

import pytest
from twisted.trial.unittest import SynchronousTestCase

import bench.app
import bench.calls
from bench.app import Clients, Server, measure
from bench.gateways import Failure
from bench.table import Case
from tests.support.benches import programs

OURS = [sys.executable, "-m", "bench.app", "--port", "{port}", "--serve"]
LIAR = """
import socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    peer, _ = listening.accept()
    if not peer.recv(99):
        continue
    peer.sendall(bytes.fromhex("01000000"))
    while peer.recv(999):
        peer.sendall(bytes.fromhex("0400000804017b22") + b"wrong}")
"""


class AppBenchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.program = programs()[5]
        for name, value in (("PARTS", 1), ("WARM", 1), ("SETTLE", 0.0)):
            self.patch(bench.app, name, value)

    def test_all_loads(self) -> None:
        """Requests, pushes and idle sessions; each has its figures."""
        commands = {way: [*OURS, way] for way in ("native", "twisted")}
        for load, figures in (
            ("pomelo ask 3 5", {"us", "late"}),
            ("pomelo tell 3 2", {"us", "late"}),
            ("pomelo idle 3 1", {"kb"}),
        ):
            results = measure(self.program, Case("", load, ()), commands, 0.05)
            self.assertEqual(list(results), ["native", "twisted"])
            for result in results.values():
                self.assertEqual(set(result), figures)

    def test_wires(self) -> None:
        """Each wire's requests are answered."""
        for wire in bench.app.WIRES[1:]:
            commands = {"native": [*OURS, "native", "--wire", wire]}
            results = measure(self.program, Case("", f"{wire} ask 3 40", ()), commands, 0.05)
            self.assertGreater(results["native"]["us"], 0)

    def test_calls(self) -> None:
        """A thousand calls at once: figures of both ends, and of the time."""
        for name in ("PARTS", "WARM"):
            self.patch(bench.app, name, 1)
        commands = {"native": [*OURS, "native", "--wire", "teleport"]}
        results = bench.calls.measure(commands, bench.calls.CALL, 0.01)
        for figure in bench.calls.FIGURES:
            self.assertGreater(results["native"][figure.field], 0)

    def test_liar(self) -> None:
        """A wrong answer is no answer, and a server that does not start is none."""
        with Server("liar", [sys.executable, "-c", LIAR, "{port}"]) as server:
            server.wait()
            with (
                Clients(self.program, server, "pomelo ask 1 1") as clients,
                pytest.raises(Failure),
            ):
                clients.work(1000)
        with Server("none", [sys.executable, "-c", ""]) as server, pytest.raises(Failure):
            server.wait()

"""The attacks at the door: each does what it says, and who is asked afterwards is believed.

Rule: nothing here asks how fast anything is. The C programs run with sanitizers.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

import bench.attack
import bench.edge
import bench.siege
from bench.attack import choose
from bench.edge import lane_gateways, make_certificate
from bench.ends import Ends, Watch
from bench.gateways import ROOT, Failure, Running, running
from bench.siege import Siege, sieges
from tests.support.benches import floor_gateway, programs, with_tls
from tests.support.files import scratch
from tests.support.processes import PATIENCE


class KnockTests(SynchronousTestCase):
    """Every kind, over what it is about, against the Python lane."""

    def knock(self, gateway: Running, arguments: str, lasts: float) -> dict[str, float]:
        command = [str(programs()[4]), *arguments.split(), "-c", "5", "-r", "200", *gateway.ports]
        with Ends(command) as ends:
            self.assertEqual(ends.hear(), "ready")
            ends.say()
            self.assertEqual(ends.hear(), "begun")
            time.sleep(lasts)
            ends.say()
            done: dict[str, float] = json.loads(ends.hear())
            self.assertEqual(ends.process.wait(PATIENCE), 0)
        return done

    def knock_all(self, speaks: str, *kinds: str) -> dict[str, dict[str, float]]:
        with tempfile.TemporaryDirectory() as directory:
            make_certificate(Path(directory))
            (gateway,) = lane_gateways(ROOT, speaks, ["python"], [], Path(directory))
            with running(gateway) as process:
                found = {kind: self.knock(process, kind, 0.2) for kind in kinds}
                said = Watch(process).status()
        for kind, done in found.items():
            self.assertGreater(done["done"], 0, kind)
            self.assertGreater(done["made"], 0, kind)
        self.assertIn("links lost: ", said)
        self.assertIn("turned away at the door: ", said)
        return found

    def test_ws(self) -> None:
        found = self.knock_all(
            "ws", "silence", "slow", "garbage", "head", "fragments", "pings", "deaf"
        )
        self.assertGreater(found["garbage"]["lost"], 0)
        self.assertGreater(found["head"]["lost"], 0)
        self.assertGreater(found["pings"]["received"], found["deaf"]["received"])
        self.assertEqual(found["fragments"]["lost"], 0)

    def test_tls(self) -> None:
        with_tls()
        found = self.knock_all(
            "tls", "silence", "slow", "half", "garbage", "head", "renew", "keys", "rush"
        )
        self.assertGreater(found["garbage"]["lost"], 0)
        self.assertGreater(found["half"]["received"], 0)
        self.assertLessEqual(found["rush"]["half_in"], found["rush"]["seconds"])

    def test_tcp(self) -> None:
        """What is for proxies is garbage here; a crowd stays."""
        found = self.knock_all("tcp", "cut", "spoof", "fragments", "crowd")
        self.assertEqual(found["crowd"]["lost"], 0)
        self.assertGreater(found["cut"]["lost"], 0)
        self.assertGreater(found["crowd"]["received"], 0)

    def test_loopback(self) -> None:
        """Nobody else's gateway is attacked, and from nowhere else."""
        for more in (
            ["10.0.0.1:1", "127.0.0.1:1"],
            ["-a", "10.0.0.1", "127.0.0.1:1", "127.0.0.1:1"],
        ):
            said = pytest.raises(Failure, match="only a gateway on loopback")
            with Ends([str(programs()[4]), "garbage", *more]) as ends, said:
                ends.hear()


STATUS = """\
client port: 127.0.0.1:9010; 0 connections, 0 at their handshakes
server port: 127.0.0.1:9020; 1 connections, 0 at their handshakes
web client port: 127.0.0.1:9080, with ws; {left} connections, 0 at their handshakes
turned away at the door: 3
ws of web clients: 1 handshakes, 7 refused (7 by 400)
links lost: 7 (7 its WebSocket handshake was refused)
memory: 1 KiB resident
"""


class SiegeTests(SynchronousTestCase):
    """What is asked of a gateway afterwards, and the command."""

    def test_look(self) -> None:
        """The reasons that must be there, and who may be left."""
        siege = Siege(1, "a siege", "garbage", expects=("handshake was refused",))
        found = siege.look(STATUS.format(left=1))
        self.assertNotIn("wrong", found)
        self.assertIn("7 by 400", found["said"])
        self.assertEqual(siege.look(STATUS.format(left=3))["wrong"], "3 connections left")
        other = Siege(1, "another", "garbage", expects=("in time",))
        self.assertEqual(other.look(STATUS.format(left=1))["wrong"], "no in time")
        self.assertEqual(other.look("")["wrong"], "no in time; 0 connections left")

    def test_choose(self) -> None:
        """All names differ, and each thing has a short form."""
        names = [one.name for one in sieges()]
        self.assertEqual(len(set(names)), len(names))
        self.assertEqual({one.group for one in choose(sieges(), "", True)}, set(range(1, 6)))

    def test_command(self) -> None:
        """A line for each scenario and lane, and what `status` said in the TSV."""
        directory = Path(scratch(self))
        self.patch(bench.siege, "build", lambda *_, **__: (programs()[2], programs()[4]))
        tsv = directory / "tsv"
        arguments = ["siege", "--only", "garbage (ws)", "--lanes", "python", "--seconds", "0.2"]
        arguments += ["--settle", "0.3"]
        self.patch(sys, "argv", [*arguments, "--tsv", str(tsv)])
        with contextlib.redirect_stdout(io.StringIO()) as output:
            bench.siege.main()
        table = [line for line in output.getvalue().splitlines() if line.startswith("|")]
        self.assertIn("| garbage (ws) | python-ws |", " ".join(table[-1].split()))
        self.assertIn("handshake was refused", tsv.read_text())

    def test_not_asked(self) -> None:
        """Who is no fastway has no status; `attack` does not ask."""
        self.assertFalse(any(one.asks for one in bench.attack.scenarios()))
        self.assertTrue(all(one.asks for one in sieges()))
        self.assertIsNone(floor_gateway().tree)

"""Every example runs as written, says what it should, and ends by itself."""

from __future__ import annotations

import atexit
import builtins
import importlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar

from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import forks
from tests.support.waits import reactor

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

PATIENCE = 60.0
"""Seconds for all of them together."""

EXPECTED = {
    "amp_push.py": [
        "client: the server heals me by 25",
        "server: its health is 65",
        "client: the server heals me by 50",
        "server: its health is 100",
    ],
    "app_auth.py": [
        "without a token: 401: that is no token of yours",
        "I am bob",
        "bob: 403: for staff only",
        "ann hears: maintenance at 9",
        "told: 2",
        "bob hears: maintenance at 9",
        "bob's first session: the peer ended it: replaced by a newer session",
        "sessions of bob: 1",
    ],
    "app_behind_gateway.py": [
        "Ann is let in: 1 are here",
        "Ann hears: Ann is here",
        "Bob is let in: 2 are here",
        "Ann hears: Bob is here",
        "Bob hears: Bob is here",
        "Cem is let in: 3 are here",
        "Ann hears: Cem is here",
        "Bob hears: Cem is here",
        "Cem hears: Cem is here",
    ],
    "app_chat.py": [
        "Bob is told: 403: join first",
        "Ann joined: Ann",
        "Bob joined: Ann, Bob",
        "Ann hears: * Bob is here",
        "Ann hears: <Ann> hello",
        "Bob hears: <Ann> hello",
        "Ann hears: * Bob left",
    ],
    "app_cluster.py": [
        "the gate sends to others: Room",
        "Ann joined: Ann",
        "Bob joined: Ann, Bob",
        "Ann hears: <Ann> hello",
        "Bob hears: <Ann> hello",
        "Ann asks: Ann",
        "the backend's sessions at the end: 0",
    ],
    "app_dialects.py": [
        "Ann joined: Ann",
        "Bob joined: Ann, Bob",
        "Eve joined: Ann, Bob, Eve",
        "Ann hears by pomelo: <Bob> hello, everybody",
        "Bob hears by teleport: <Bob> hello, everybody",
        "Eve hears by hotpot: <Bob> hello, everybody",
    ],
    "app_push.py": [
        '200 {"sent": 2}',
        '200 {"sent": 1}',
        '200 {"sent": 0}',
        '404 {"error": "no group \'hall\'"}',
        '401 {"error": "give the token: Authorization: Bearer TOKEN"}',
    ],
    "app_requests.py": [
        "the sum is 6",
        "2 ** 5000 has 1506 digits",
        "doubled: [0, 2, 4, 6, 8]",
        "math.add: 400: bad message",
        "math.add: 1001: too many numbers",
        "math.divide: 404: not found",
        "math.guess: 1002: a server cannot ask its clients in pomelo",
        "math.later: no answer within 0.1 s",
        "you picked 7",
    ],
    "chat.py": [
        "Ann hears: * Cem is here",
        "Bob hears: * Cem is here",
        "Cem hears: * Cem is here",
        "Ann hears: <Ann> hello",
        "Bob hears: <Ann> hello",
        "Cem hears: <Ann> hello",
        "Bob hears: * Ann left",
        "Cem hears: * Ann left",
    ],
    "direct_port.py": [
        "200: you asked for /index.html",
        "store: ready",
        "store: ok",
        "store: on",
        "store: none",
    ],
    "echo.py": [
        "server: client 1 is here",
        "client: sent 5 bytes, got 5 back",
        "client: sent 0 bytes, got 0 back",
        "client: sent 100000 bytes, got 100000 back",
        "server: client 1 left",
    ],
    "push.py": [
        "server: Ann is client 1",
        "client: server 1 says {'event': 'rain', 'in': 'Berlin'}",
        "server: the answer is {'ok': True}",
        "server: dial of 1: refused by the gateway",
    ],
    "reconnect.py": [
        "server: up at ['east', 'west']",
        "client: hello came back over one gateway",
        "client: hello came back over the other; server: up at 1",
        "server: up at ['east', 'west'] again",
    ],
    "two_servers.py": [
        "2 virtual connections over one",
        "the lobby heard 'hello'",
        "the battle heard 'attack'",
        "battle: closed by the far end",
        "the lobby heard 'still there?'",
        "dial of 2: refused by the gateway",
    ],
    "web_site.py": ["200: you asked for /index.html"],
    "with_asyncio.py": [
        "client: HELLO",
        "client: nothing more",
        "server: closed by the far end: peer_closed",
    ],
}
TURNED = {
    "bad_network.py": [
        *["the network broke; the connection was resumed"] * 5,
        "cut 5 times; every line was heard and answered, in order",
    ],
}
"""Run here, with a clock that the test turns."""


class ExampleTests(SynchronousTestCase):
    running: ClassVar[dict[str, subprocess.Popen[str]]] = {}
    scratch: ClassVar[tempfile.TemporaryDirectory[str]]
    deadline: ClassVar[float]

    def setUp(self) -> None:
        """All start at once, with the first test; each test collects one."""
        # Not in setUpClass, which trial does not call.
        if self.running:
            return
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        cls = type(self)
        cls.scratch = tempfile.TemporaryDirectory()
        cls.deadline = time.monotonic() + PATIENCE
        for name in EXPECTED:
            self.running[name] = subprocess.Popen(
                [*forks.python(), str(EXAMPLES / name)],
                cwd=cls.scratch.name,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            atexit.register(self.running[name].kill)

    def check(self, name: str) -> None:
        """It prints the expected lines in that order, among others, and nothing is wrong."""
        process = self.running[name]
        out, errors = process.communicate(timeout=max(1.0, self.deadline - time.monotonic()))
        self.assertEqual(errors, "")
        self.assertNotIn("Traceback", out)
        self.assertEqual(process.returncode, 0)
        printed = iter(out.splitlines())
        for line in EXPECTED[name]:
            self.assertIn(line, printed, f"{name} printed:\n{out}")

    def test_amp_push(self) -> None:
        self.check("amp_push.py")

    def test_app_auth(self) -> None:
        self.check("app_auth.py")

    def test_app_behind_gateway(self) -> None:
        self.check("app_behind_gateway.py")

    def test_app_chat(self) -> None:
        self.check("app_chat.py")

    def test_app_cluster(self) -> None:
        self.check("app_cluster.py")

    def test_app_dialects(self) -> None:
        self.check("app_dialects.py")

    def test_app_push(self) -> None:
        self.check("app_push.py")

    def test_app_requests(self) -> None:
        self.check("app_requests.py")

    def test_chat(self) -> None:
        self.check("chat.py")

    def test_direct_port(self) -> None:
        self.check("direct_port.py")

    def test_echo(self) -> None:
        self.check("echo.py")

    def test_push(self) -> None:
        self.check("push.py")

    def test_reconnect(self) -> None:
        self.check("reconnect.py")

    def test_two_servers(self) -> None:
        self.check("two_servers.py")

    def test_web_site(self) -> None:
        self.check("web_site.py")

    def test_with_asyncio(self) -> None:
        self.check("with_asyncio.py")

    def test_none_left_out(self) -> None:
        """Each file has its expected lines, a test, and a line in the README."""
        names = {path.name for path in EXAMPLES.glob("*.py")}
        self.assertEqual(names, {*EXPECTED, *TURNED})
        readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
        for name in names:
            case = self if name in EXPECTED else TurnedTests
            self.assertTrue(hasattr(case, f"test_{Path(name).stem}"), name)
            self.assertIn(f"({name})", readme)


class TurnedTests(TestCase):
    async def run_turned(self, name: str, call: str) -> list[str]:
        """What a function of an example prints, given the reactor and a clock that runs ahead."""
        self.patch(sys, "path", [str(EXAMPLES), *sys.path])
        example = importlib.import_module(Path(name).stem)
        printed: list[str] = []
        self.patch(builtins, "print", lambda *texts: printed.append(" ".join(texts)))
        clock = Clock()
        turning = LoopingCall(clock.advance, 0.05)
        turning.start(0.002)
        try:
            await getattr(example, call)(reactor, clock)
        finally:
            turning.stop()
        return printed

    async def test_bad_network(self) -> None:
        printed = await self.run_turned("bad_network.py", "chat")
        self.assertEqual(printed, TURNED["bad_network.py"])

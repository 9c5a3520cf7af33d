"""The demo game server and the line client, against a gateway over real sockets."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway import demo, logs
from fastway.demo import HELP, PlayClient, demo_server, play
from fastway.service import GatewayService
from tests.harness import LogLines
from tests.test_options import parsed, scratch
from tests.test_process import PATIENCE, environment
from tests.test_service import LOOPBACK, number, turns

reactor = cast(Any, _reactor)


class NoInput:
    """Stands in for standard input and output, which belong to the test runner."""

    def __init__(self, protocol: Any, reactor: Any) -> None:
        self.protocol = protocol


class Player(PlayClient):
    """A line client whose messages are awaited."""

    def __init__(self, server_id: int) -> None:
        super().__init__(reactor, server_id)
        self._heard: list[str] = []
        self._waiting: list[Deferred[str]] = []

    def message_received(self, conn_id: int, message: bytes) -> None:
        super().message_received(conn_id, message)
        if self._waiting:
            self._waiting.pop(0).callback(message.decode())
        else:
            self._heard.append(message.decode())

    def hear(self) -> Deferred[str]:
        """The next message."""
        heard: Deferred[str] = Deferred()
        if self._heard:
            heard.callback(self._heard.pop(0))
        else:
            self._waiting.append(heard)
        return heard


class PlayerFactory(Factory):
    noisy = False

    def __init__(self, server_id: int) -> None:
        self.server_id = server_id

    def buildProtocol(self, addr: IAddress | None) -> Player:
        return Player(self.server_id)


class DemoTestCase(TestCase):
    timeout = 30

    async def start(self, *arguments: str, key: bytes = b"") -> GatewayService:
        """A gateway with the demo server behind it."""
        self.patch(logs.threshold, "level", LogLevel.info)
        self.patch(demo, "StandardIO", NoInput)
        self.printed = io.StringIO()
        self.said = io.StringIO()
        self.patch(sys, "stdout", self.printed)
        self.patch(sys, "stderr", self.said)
        options = parsed(*LOOPBACK, f"--run-dir={scratch(self)}", *arguments)
        service = GatewayService(options, reactor)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        self.server = demo_server(reactor, "127.0.0.1", number(service, "server"), key)
        self.addCleanup(self.server.stopService)
        self.server.startService()
        await self.server.whenConnected()
        while not service.router_service.router.servers:
            await turns(1)
        return service

    async def join(self, service: GatewayService, server_id: int = 1) -> Player:
        """A line client that dialled."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", number(service, "client"))
        player = cast(Player, await endpoint.connect(PlayerFactory(server_id)))
        self.addCleanup(self.leave, player)
        return player

    def leave(self, player: Player) -> None:
        player.end(0)
        assert player.transport is not None
        player.transport.loseConnection()
        if player._quiet is not None and player._quiet.active():
            player._quiet.cancel()


class DemoTests(DemoTestCase):
    async def test_echo(self) -> None:
        """Who dials is welcomed by its client id, and a line comes back as it is, and printed."""
        service = await self.start()
        player = await self.join(service)
        self.assertEqual(await player.hear(), f"welcome, client 1: {HELP}")
        for line in (b"hello", b"", "grüße 你".encode(), b" spaces ", b"x" * 100_000):
            player.line_typed(line)
            self.assertEqual(await player.hear(), line.decode())
        self.assertIn("\nhello\n\ngrüße 你\n spaces \nxxx", self.printed.getvalue())

    async def test_key(self) -> None:
        """The demo server proves the gateway's key."""
        service = await self.start("--server-auth-key=secret", key=b"secret")
        player = await self.join(service)
        self.assertIn("welcome", await player.hear())

    async def test_chat(self) -> None:
        """Who joined the room is heard by all in it; /who lists them; who leaves is missed."""
        service = await self.start()
        one, two, three = [await self.join(service) for _ in range(3)]
        for player in (one, two, three):
            self.assertIn("welcome", await player.hear())
        three.line_typed(b"/who")
        self.assertEqual(await three.hear(), "* in the room: nobody")
        one.line_typed(b"/join Ann")
        self.assertEqual(await one.hear(), "* Ann joined")
        two.line_typed(b"/join Bob")
        self.assertEqual([await one.hear(), await two.hear()], ["* Bob joined"] * 2)
        one.line_typed(b"hello")
        self.assertEqual([await one.hear(), await two.hear()], ["<Ann> hello"] * 2)
        three.line_typed(b"/who")
        self.assertEqual(await three.hear(), "* in the room: Ann, Bob")
        assert two.transport is not None
        two.transport.loseConnection()
        self.assertEqual(await one.hear(), "* Bob left")
        three.line_typed(b"/who")
        self.assertEqual(await three.hear(), "* in the room: Ann")

    async def test_quit(self) -> None:
        """/quit closes the virtual connection: the client ends with status 0, the rest go on."""
        service = await self.start()
        one, two = await self.join(service), await self.join(service)
        self.assertIn("welcome", await one.hear())
        self.assertIn("welcome", await two.hear())
        two.line_typed(b"/join Bob")
        self.assertEqual(await two.hear(), "* Bob joined")
        one.line_typed(b"/join Ann")
        self.assertEqual([await one.hear(), await two.hear()], ["* Ann joined"] * 2)
        one.line_typed(b"/quit")
        self.assertEqual(await one.done, 0)
        self.assertEqual(self.said.getvalue(), "fastway play: closed by the server\n")
        self.assertEqual(await two.hear(), "* Ann left")
        self.assertEqual(len(service.router_service.router.conn_ids), 1)

    async def test_refused(self) -> None:
        """A dial of a server that is not there ends with status 1 and says so."""
        service = await self.start()
        player = await self.join(service, 99)
        self.assertEqual(await player.done, 1)
        self.assertEqual(
            self.said.getvalue(), "fastway play: the gateway refused: no server 99 there\n"
        )

    async def test_gateway_gone(self) -> None:
        """When the gateway goes the client ends with status 1 and says so."""
        service = await self.start()
        player = await self.join(service)
        self.assertIn("welcome", await player.hear())
        service.commands.run("kick client 1")
        self.assertEqual(await player.done, 1)
        self.assertIn("the gateway closed the connection", self.said.getvalue())

    async def test_end_of_input(self) -> None:
        """At the end of its input the client waits for answers, then ends with status 0."""
        self.patch(PlayClient, "QUIET", 0.05)
        service = await self.start()
        player = await self.join(service)
        self.assertIn("welcome", await player.hear())
        player.line_typed(b"last words")
        player.input_over()
        self.assertEqual(await player.hear(), "last words")
        self.assertEqual(await player.done, 0)
        self.assertEqual(self.said.getvalue(), "")

    async def test_comes_back(self) -> None:
        """A demo server that lost the gateway connects again."""
        service = await self.start()

        with LogLines() as log:
            service.commands.run("kick server 1")
            while not any("logged in" in line for line in log.lines):
                await turns(1)
        player = await self.join(service)
        self.assertIn("welcome", await player.hear())


class PlayTests(DemoTestCase):
    async def test_pipe(self) -> None:
        """Lines in a pipe come back on standard output, and the client ends by itself."""
        service = await self.start()
        command = f'printf "one\\ntwo\\n" | "{sys.executable}" -m fastway play --gateway "$GATE"'
        gate = f"127.0.0.1:{number(service, 'client')}"
        output, errors, status = await getProcessOutputAndValue(
            "/bin/sh", ["-c", command], env={**environment({}), "GATE": gate}, reactor=reactor
        )
        self.assertEqual(errors, b"")
        self.assertEqual(status, 0)
        lines = output.decode().splitlines()
        self.assertEqual(lines[0], f"connected to {gate}, dialled server 1")
        self.assertTrue(lines[1].startswith("welcome, client 1"))
        self.assertEqual(lines[2:], ["one", "two"])

    async def test_nobody_there(self) -> None:
        """Without a gateway, or a server, `fastway play` is one line and status 1."""
        service = await self.start()
        gate = f"127.0.0.1:{number(service, 'client')}"
        cases = ((["--gateway", "127.0.0.1:1"], b"127.0.0.1:1"), (["-g", gate, "-d", "9"], b"9"))
        results = await DeferredList(
            [
                getProcessOutputAndValue(
                    sys.executable,
                    ["-m", "fastway", "play", *arguments],
                    env=environment({}),
                    reactor=reactor,
                )
                for arguments, _ in cases
            ]
        )
        for (_, (_, errors, status)), (_, word) in zip(cast(Any, results), cases, strict=True):
            self.assertEqual(status, 1)
            self.assertEqual(len(errors.splitlines()), 1, errors)
            self.assertIn(word, errors)


class OptionTests(SynchronousTestCase):
    def refused(self, *arguments: str) -> str:
        """The one line of a refused command line."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.assertEqual(play(arguments), 1)
        (line,) = said.getvalue().splitlines()
        self.assertTrue(line.startswith("fastway play: "))
        return line

    def test_refused(self) -> None:
        """A gateway or a server id that is none is one line with the option and the value."""
        for gateway in ("", "localhost", "localhost:", "localhost:http", ":-1"):
            self.assertIn(f"--gateway: {gateway!r}", self.refused("--gateway", gateway))
        for server in ("", "x", "-1", "4294967296"):
            self.assertIn(f"--dial: {server!r}", self.refused("--dial", server))
        self.assertIn("--nope", self.refused("--nope"))

    def test_port_limit(self) -> None:
        """A port over 65535 is refused rather than cut down to another one."""
        done = subprocess.run(
            [sys.executable, "-m", "fastway", "play", "--gateway", "127.0.0.1:65537"],
            env=environment({}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertIn("--gateway", done.stderr)

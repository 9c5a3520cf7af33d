"""The client for browsers and node: against a real gateway, and what of it is in the package.

Rule: its own tests, on a WebSocket and a clock of their own, are node's (clients/js/test).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from functools import lru_cache
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway.endpoint import EndpointConfig, GatewayPool, VirtualConnection
from fastway.testing import LocalGateway
from fastway.wire import CommandType, decode_command, encode_packet
from tests.support import golden
from tests.support.files import CHECKOUT, scratch
from tests.support.golden import KEY
from tests.support.processes import free_ports
from tests.support.waits import reactor

CLIENT = os.path.join(CHECKOUT, "clients", "js")
BUILT = os.path.join(CHECKOUT, "fastway", "demo_page", "client")
VECTORS = os.path.join(CHECKOUT, "tests", "vectors", "wire.json")

PRINTS = {
    "clients/js/README.md": [
        "hello\n",
        "3 bytes\n3 bytes\nthree\nclosed 1000 \n",
        "",
        "here I am\n",
    ],
    "docs/edge.md": ["hello\n"],
    "docs/websocket.md": ["hello\n"],
}
"""Page -> what each of its programs prints."""


@lru_cache
def node() -> tuple[str, ...]:
    """The command of a node that has a WebSocket; () if there is none."""
    found = shutil.which("node")
    for more in ((), ("--experimental-websocket",)):
        script = "process.exit(typeof WebSocket === 'function' ? 0 : 1)"
        if (
            found is not None
            and not subprocess.run(
                [found, *more, "-e", script], capture_output=True, check=False
            ).returncode
        ):
            return found, *more
    return ()


class VectorTests(SynchronousTestCase):
    """The vectors that node's tests read, against what this tree has of the wire."""

    def test_vectors(self) -> None:
        """They are the wire as both of Python's writings have it."""
        with open(VECTORS, encoding="utf-8") as file:
            vectors = json.load(file)
        for row in vectors["commands"]:
            data = bytes.fromhex(row["bytes"])
            self.assertEqual(golden.command(row["kind"], *row["numbers"]), data)
            command = decode_command(data)
            self.assertEqual(command.kind, row["kind"])
            self.assertEqual(CommandType(row["kind"]).name, row["name"].upper())
            ids = [command.conn_id, command.remote_id]
            self.assertEqual([number for number in ids if number], row["numbers"])
        for row in vectors["packets"]:
            data, message = bytes.fromhex(row["bytes"]), bytes.fromhex(row["message"])
            self.assertEqual(golden.packet(row["conn_id"], message), data)
            self.assertEqual(encode_packet(row["conn_id"], message), data)


class GatewayTests(TestCase):
    """clients/js/test/against_gateway.js, on both lanes."""

    timeout = 120

    def setUp(self) -> None:
        if not node():
            raise self.skipTest("there is no node with a WebSocket (20.10 or later)")

    async def start(self, relay: str) -> LocalGateway:
        """A gateway for web pages, with the game servers that the script talks to."""
        clients, servers, web = free_ports(3)
        self.web = web
        gateway = LocalGateway(
            reactor,
            KEY,
            client_port=clients,
            server_port=servers,
            client_ws_addr=f"127.0.0.1:{web}",
            relay=relay,
        )
        self.addCleanup(gateway.stop)
        await gateway.start()
        self.local = gateway
        handlers = {1: self.echo, 2: self.call, 3: self.close, 4: self.flood, 5: self.restart}
        for server_id, handler in handlers.items():
            pool = GatewayPool(
                {"local": clientFromString(reactor, f"tcp:127.0.0.1:{servers}")},
                server_id,
                KEY,
                EndpointConfig(receive_buffer=16 << 20),
                backoff=lambda _: 0.05,
            )
            pool.serve(handler)
            pool.startService()
            self.addCleanup(maybeDeferred, pool.stopService)
            await pool.when_up()
        return gateway

    async def echo(self, conn: VirtualConnection[bytes]) -> None:
        async for message in conn:
            await conn.send(message)

    async def call(self, conn: VirtualConnection[bytes]) -> None:
        await conn.receive()
        other: VirtualConnection[bytes] = await conn.gateway.dial(conn.remote_id)
        await other.send(b"you called: " + await other.receive())
        await conn.when_ended()

    async def close(self, conn: VirtualConnection[bytes]) -> None:
        await conn.send(await conn.receive())

    async def flood(self, conn: VirtualConnection[bytes]) -> None:
        for _ in range(int(await conn.receive())):
            await conn.send(b"x")
        await conn.when_ended()

    async def restart(self, conn: VirtualConnection[bytes]) -> None:
        await conn.receive()

        async def again() -> None:
            await self.local.stop()
            await self.local.start()

        self.restarted = Deferred.fromCoroutine(again())

    async def node(self, *arguments: str) -> str:
        """What node prints. It must end by itself, and well."""
        # In a thread: who runs the tests may keep SIGCHLD from the reactor.
        done = await deferToThread(
            subprocess.run, (*node(), *arguments), capture_output=True, timeout=90, check=False
        )
        self.assertEqual(done.returncode, 0, (done.stdout + done.stderr).decode())
        return done.stdout.decode()

    async def run_script(self) -> None:
        script = os.path.join(CLIENT, "test", "against_gateway.js")
        module = f"file://{BUILT}/index.js"
        await self.node(script, module, f"ws://127.0.0.1:{self.web}/")
        await self.restarted

    async def test_python(self) -> None:
        """The script finds what it wants of a gateway that forwards by Python."""
        await self.start("off")
        await self.run_script()

    async def test_relay(self) -> None:
        """And of one whose servers are on the relay."""
        gateway = await self.start("auto")
        if gateway.service.native is None:
            raise self.skipTest("there is no relay here")
        await self.run_script()

    async def test_pages(self) -> None:
        """The programs of the pages run as they are, but for the port, and print what they say."""
        await self.start("auto")
        directory = scratch(self)
        package = os.path.join(directory, "node_modules", "fastway-client")
        shutil.copytree(BUILT, os.path.join(package, "dist"))
        shutil.copy(os.path.join(CLIENT, "package.json"), package)
        for page, prints in PRINTS.items():
            with open(os.path.join(CHECKOUT, page), encoding="utf-8") as file:
                programs = re.findall(r"^ *```js\n(.*?)^ *```", file.read(), re.S | re.M)
            shown = []
            for program in programs:
                path = os.path.join(directory, "program.mjs")
                with open(path, "w", encoding="utf-8") as file:
                    file.write(program.replace("9080", str(self.web)))
                shown.append(await self.node(path))
            self.assertEqual(shown, prints, page)


class BuildTests(SynchronousTestCase):
    """The client as the package has it: the demo's page uses it, and no npm makes it there."""

    def test_licence(self) -> None:
        """npm packs the licence of this project."""
        texts = []
        for place in (CHECKOUT, CLIENT):
            with open(os.path.join(place, "LICENSE"), encoding="utf-8") as file:
                texts.append(file.read())
        self.assertEqual(texts[0], texts[1])

    def test_lock(self) -> None:
        """What is installed for development is pinned, and from no particular registry."""
        with open(os.path.join(CLIENT, "package-lock.json"), encoding="utf-8") as file:
            lock: dict[str, Any] = json.load(file)
        packages = {name: row for name, row in lock["packages"].items() if name}
        self.assertEqual(set(packages), {"node_modules/typescript"})
        for row in packages.values():
            self.assertNotIn("resolved", row)
            self.assertTrue(row["integrity"].startswith("sha512-"))
            self.assertTrue(row["dev"])

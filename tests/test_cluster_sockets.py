"""nano's cluster on sockets: what no memory has, ports that are free or not, names, and serve."""

from __future__ import annotations

import operator
import socket
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.trial.unittest import TestCase

from fastway.app import App
from fastway.app.testing import Player
from fastway.cli import app as tools
from fastway.cli.table import ServeOptions
from fastway.cluster import NanoGate, NanoMaster, NanoMember
from fastway.dialect.pomelo import Pomelo
from fastway.errors import ConfigError, StartError
from tests.support.waits import reactor, until

FREE = "127.0.0.1:0"


class Sockets(TestCase):
    """Nodes on 127.0.0.1."""

    def setUp(self) -> None:
        self.nodes: list[NanoMember] = []
        self.apps: list[App] = []

    async def tearDown(self) -> None:  # type: ignore[override]
        for node in reversed(self.nodes):
            node.app.stop()
            await node.leave()
        for app in [*self.apps, *(node.app for node in self.nodes)]:
            await app.stop()
            if app.links is not None:
                wheel = app.links.wheel
                await until("all is closed", partial(operator.not_, wheel))
                wheel.stop()

    def node(self, kind: Any, app: App | None = None, listen: Any = FREE, **more: Any) -> Any:
        node = kind(app or App(), listen, **more)
        self.nodes.append(node)
        return node

    async def test_roles(self) -> None:
        """A client of a gate, a backend by an endpoint, a master by a name."""
        master = self.node(NanoMaster)
        await master.join()
        name = master.address.replace("127.0.0.1", "localhost")
        back = App()
        back.route("Room.Echo", lambda message: message)
        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        await self.node(NanoMember, back, endpoint, master=name).join()
        gate = self.node(NanoGate, master=name)
        self.assertEqual(gate.address, "")
        await gate.join()
        port = int(gate.address.removeprefix("127.0.0.1:"))  # others are told where it listens
        self.assertEqual((port > 0, list(master.members)[-1]), (True, gate.address))
        port = await gate.app.listen(FREE, Pomelo())
        client = App()
        self.apps.append(client)
        where = clientFromString(reactor, f"tcp:127.0.0.1:{port.getHost().port}")
        session = await client.connect(where, Pomelo())
        self.assertEqual(await session.request("Room.Echo", "x" * 20_000), "x" * 20_000)
        session.close()
        await until("the backend knows", lambda: not back.sessions)

    async def test_port_is_taken(self) -> None:
        """It fails, and leaves nothing."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
            node = self.node(NanoMaster, listen=listen)
            with pytest.raises(StartError):
                await node.join()

    async def test_everywhere(self) -> None:
        """A port of all addresses has to be told how others reach it."""
        node = self.node(NanoMaster, listen=serverFromString(reactor, "tcp:0"))
        with pytest.raises(ConfigError, match="give advertise=host:port"):
            await node.join()
        other = self.node(NanoMaster, listen=":0", advertise="127.0.0.1:34570")
        await other.join()
        self.assertEqual(other.address, "127.0.0.1:34570")

    async def test_serve(self) -> None:
        """`fastway serve` joins, and leaves when it is ended; also while it waits."""
        master = self.node(NanoMaster)
        await master.join()
        app = App()
        app.route("Room.Echo", lambda message: message)
        node = self.node(NanoMember, app, master=master.address)
        options = ServeOptions()
        options.parseOptions(["x:app", "--cluster=x:node", "--drain=0s"])
        self.patch(tools, "app_at", lambda _: app)
        self.patch(tools, "find", lambda _option, _place: node)
        serving: Deferred[int] = ensureDeferred(tools.serve_app(reactor, options))
        await until("it has joined", lambda: node.address in master.members)
        player = Player(master.app)
        self.assertEqual(await player.ask("Room.Echo", "hi"), "hi")
        serving.cancel()
        with pytest.raises(CancelledError):
            await serving
        self.assertEqual(master.members, {})
        player.leave()
        app = App()
        node = self.node(NanoMember, app, master="127.0.0.1:1")
        serving = ensureDeferred(tools.serve_app(reactor, options))
        await until("it waits", lambda: node._problem)
        serving.cancel()
        with pytest.raises(CancelledError):
            await serving

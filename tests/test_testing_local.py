"""Real gateways for tests: in this process, in one of their own, and as pytest's fixtures.

Rule: what a gateway leaves behind is looked for where it would be: sockets, calls, processes,
files.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from typing import Any, cast

from twisted.internet.endpoints import clientFromString, quoteStringArgument
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway.endpoint import Endpoint, connect_client, connect_server
from fastway.errors import ConfigError, GatewayDied, LoginFailed, StartError
from fastway.gateway import link as link_module
from fastway.router import Side
from fastway.testing import LocalGateway, LocalGatewayProcess, beside
from tests.support.errors import failure_of, raised
from tests.support.files import CHECKOUT, scratch
from tests.support.gateways import OneOf
from tests.support.golden import PING
from tests.support.paths import on_both_paths
from tests.support.processes import PATIENCE, environment
from tests.support.sockets import Peer
from tests.support.waits import SECONDS, later, reactor, until


async def echo_once(client: Endpoint, server: Endpoint) -> None:
    """A message goes there and back; both ends leave."""
    conn = await client.dial(1, timeout=PATIENCE)
    visit = await server.accept()
    await conn.send(b"hello")
    await visit.send(await visit.receive())
    assert await conn.receive() == b"hello"
    for end in (client, server):
        end.close()
        await end.when_gone()


def open_sockets() -> Counter[str]:
    """What this process has open, but for files of the reactor's own."""
    gc.collect()
    found = []
    for name in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{name}"
        if os.path.lexists(path):  # the directory's own is gone again
            found.append(os.readlink(path).partition(":")[0])
    return Counter(found)


@on_both_paths
class LocalTests(TestCase):
    """In this process, on both data paths."""

    relay = False

    def make(self, **options: Any) -> LocalGateway:
        gateway = LocalGateway(reactor, relay="on" if self.relay else "off", **options)
        self.addCleanup(gateway.stop)
        return gateway

    async def ends(self, gateway: LocalGateway) -> tuple[Endpoint, Endpoint]:
        server = await connect_server(gateway.server, 1, gateway.key)
        return await connect_client(gateway.client), server

    async def test_block(self) -> None:
        """`async with` runs one, on ports that are free."""
        mode = "on" if self.relay else "off"
        async with LocalGateway(reactor, key="k", relay=mode) as gateway:
            self.assertEqual(gateway.key, b"k")
            self.assertNotIn(gateway.client_port, (0, gateway.server_port))
            await echo_once(*await self.ends(gateway))
            self.assertEqual(gateway.service.native is not None, self.relay)
        await failure_of(ConnectionRefusedError, connect_client(gateway.client))

    async def test_strings(self) -> None:
        """The endpoint strings lead to the same ports."""
        gateway = await self.make().start()
        self.assertEqual(gateway.client_string, f"tcp:127.0.0.1:{gateway.client_port}")
        server = await connect_server(
            clientFromString(reactor, gateway.server_string), 1, b"secret"
        )
        inner = quoteStringArgument(gateway.client_string)
        stream = clientFromString(reactor, f"fastway:{inner}:server=1")
        peer = cast(Peer, await stream.connect(OneOf(Peer())))
        visit = await server.accept()
        peer.send(b"hello")
        self.assertEqual(await visit.receive(), b"hello")
        peer.wire.loseConnection()
        server.close()
        await server.when_gone()
        await until("the end", lambda: peer.ended)

    async def test_wrong_key(self) -> None:
        gateway = await self.make().start()
        await failure_of(LoginFailed, connect_server(gateway.server, 1, b"wrong"))

    async def test_leaves_nothing(self) -> None:
        """With connections open, a stop ends them, and leaves nothing behind."""

        def left() -> tuple[Any, ...]:
            return (
                open_sockets(),
                len(reactor.getDelayedCalls()),
                len(reactor.getReaders()),
                len(reactor.getWriters()),
            )

        await later()
        before = left()
        for _ in range(3):
            gateway = self.make()
            await gateway.start()
            client, server = await self.ends(gateway)
            conn = await client.dial(1)
            await gateway.stop()
            for end in (client, server):
                await end.when_gone()
            self.assertIsNotNone(conn.ended)
        del gateway, client, server, conn
        await until(f"nothing beyond {before}", lambda: left() == before)

    async def test_stop_does_not_wait(self) -> None:
        """A far end that never closes keeps a stop for less than a second or so."""
        gateway = await self.make().start()
        with socket.create_connection(("127.0.0.1", gateway.client_port)):
            await until("its link", lambda: gateway.service.connected)
            self.patch(link_module, "LINGER", 2 * SECONDS)
            began = reactor.seconds()
            await gateway.stop()
            self.assertLess(reactor.seconds() - began, SECONDS)
            self.assertFalse(gateway.service.connected)

    async def test_again(self) -> None:
        """It starts again on the same ports, and its endpoints lead there; it stops once."""
        gateway = await self.make().start()
        old, ports = gateway.client, (gateway.client_port, gateway.server_port)
        await failure_of(ConfigError, gateway.start())
        await gateway.stop()
        await gateway.stop()
        await gateway.start()
        self.assertEqual((gateway.client_port, gateway.server_port), ports)
        client = await connect_client(old)
        client.close()
        await client.when_gone()

    async def test_port_in_use(self) -> None:
        """A port that another has is one line, and what was opened before is closed again."""
        taken = await self.make().start()
        gateway = self.make(server_port=taken.server_port)
        error = await failure_of(StartError, gateway.start())
        self.assertIn(f"server_port: cannot listen on 127.0.0.1:{taken.server_port}", str(error))
        self.assertFalse([port for port in gateway.service.ports if port.listening])
        await taken.stop()
        await gateway.start()
        self.assertEqual(gateway.server_port, taken.server_port)

    async def test_options(self) -> None:
        """Options are those of the gateway."""
        gateway = await self.make(client_idle_timeout=0.2).start()
        client = await connect_client(gateway.client)
        await until("its end", lambda: client.ended)
        await client.when_gone()


class LocalSnetTests(TestCase):
    async def test_snet(self) -> None:
        """With snet the client's way speaks it, as an object and as a string, encrypted too."""
        for options in ({}, {"client_snet_encrypt": True, "client_snet_buffer": "64K"}):
            async with LocalGateway(reactor, snet=True, **cast(Any, options)) as gateway:
                for way in (gateway.client, clientFromString(reactor, gateway.client_string)):
                    server = await connect_server(gateway.server, 1, gateway.key)
                    await echo_once(await connect_client(way), server)
                self.assertEqual(gateway.service.router.stats.gained[Side.CLIENT], 2)


def ping(gateway: LocalGatewayProcess) -> bytes:
    """What the client port answers to a ping."""
    with socket.create_connection((gateway.host, gateway.client_port), PATIENCE) as client:
        client.settimeout(PATIENCE)
        client.sendall(PING)
        answer = b""
        while len(answer) < len(PING):
            answer += client.recv(100)
    return answer


def is_alive(pid: int) -> bool:
    """There is such a process, which is no mere entry of one that ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def said(gateway: LocalGatewayProcess, text: str) -> None:
    """Its log comes to have that."""
    deadline = time.monotonic() + PATIENCE
    while text not in gateway.log:
        if time.monotonic() > deadline:
            raise AssertionError(f"{text!r} is not in {gateway.log!r}")
        time.sleep(0.01)


class ProcessTests(SynchronousTestCase):
    """Beside the test; nothing here runs the reactor."""

    def test_block(self) -> None:
        """It answers within the block, and after it there is no process, no port, no file."""
        with LocalGatewayProcess() as gateway:
            pid, directory = cast(int, gateway.pid), gateway._directory
            self.assertTrue(is_alive(pid))
            self.assertNotEqual(os.getpgid(pid), os.getpgid(0), "Ctrl-C would reach it")
            self.assertEqual(ping(gateway), PING)
            said(gateway, "client port listens on")
            gateway.check()
            raised(ConfigError, gateway.start)
        self.assertFalse(is_alive(pid))
        self.assertFalse(os.path.exists(directory))
        raised(OSError, ping, gateway)
        self.assertIsNone(gateway.pid)
        self.assertIn("fastway stopped", gateway.log)
        gateway.stop()
        gateway.check()

    def test_again(self) -> None:
        """A second start takes the same ports."""
        gateway = LocalGatewayProcess()
        with gateway:
            ports = gateway.client_port, gateway.server_port
        with gateway:
            self.assertEqual((gateway.client_port, gateway.server_port), ports)
            self.assertEqual(ping(gateway), PING)

    def test_options(self) -> None:
        """Options are those of the gateway, and nothing of the developer's environment is."""
        self.patch(os, "environ", {**os.environ, "FASTWAY_CLIENT_ADDR": "nonsense"})
        raised(ConfigError, LocalGatewayProcess, max_clients="many")
        with LocalGatewayProcess("geheim", snet=True, log_level="debug", max_clients=3) as gateway:
            self.assertIn(":buffer=32768", gateway.client_string)
            with open(f"/proc/{gateway.pid}/cmdline", encoding="utf-8") as file:
                command = file.read()
        self.assertIn("--max-clients=3", command)
        self.assertNotIn("geheim", command)

    def test_killed(self) -> None:
        """One that was killed is told in one line, and its log behind that."""
        gateway = LocalGatewayProcess().start()
        said(gateway, "client port listens on")
        pid = cast(int, gateway.pid)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        error = raised(GatewayDied, gateway.check)
        error = raised(GatewayDied, gateway.stop)
        first, *log = str(error).splitlines()
        self.assertEqual(
            first, f"the gateway of the test was killed by SIGKILL (process {pid}); its log:"
        )
        self.assertIn("client port listens on", "\n".join(log))
        self.assertEqual(error.log, "\n".join(log))
        gateway.stop()
        self.assertFalse(is_alive(pid))

    def test_killed_within_the_block(self) -> None:
        """It is told at the end of the block, with what failed for that as its context."""

        def test() -> None:
            with LocalGatewayProcess() as gateway:
                os.kill(cast(int, gateway.pid), signal.SIGTERM)
                os.waitid(os.P_PID, cast(int, gateway.pid), os.WEXITED | os.WNOWAIT)
                ping(gateway)

        error = raised(GatewayDied, test)
        self.assertIn("ended by itself with status 0", str(error))
        self.assertIsInstance(error.__context__, ConnectionError)

    def test_port_in_use(self) -> None:
        """A port that another has: the gateway's own line is in the error."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            number = taken.getsockname()[1]
            gateway = LocalGatewayProcess(client_port=number)
            error = raised(StartError, gateway.start)
        self.assertIn(f"cannot listen on 127.0.0.1:{number}: Address already in use", str(error))
        self.assertIn("ended by itself with status 1", str(error))
        self.assertIsNone(gateway.pid)
        gateway.stop()

    def test_patience(self) -> None:
        """One that does not say in time that it listens is ended."""
        self.patch(beside, "START", 0.0)
        gateway = LocalGatewayProcess()
        error = raised(StartError, gateway.start)
        self.assertIn("does not listen after 0 s", str(error))
        self.assertIsNone(gateway.pid)

    def test_stuck(self) -> None:
        """One that is stuck is ended by force."""
        self.patch(beside, "STOP", 0.1)
        gateway = LocalGatewayProcess().start()
        pid = cast(int, gateway.pid)
        os.kill(pid, signal.SIGSTOP)
        gateway.stop()
        self.assertFalse(is_alive(pid))

    def test_orphan(self) -> None:
        """One whose test was killed ends by itself."""
        program = (
            "import os\n"
            "from fastway.testing import LocalGatewayProcess\n"
            "gateway = LocalGatewayProcess().start()\n"
            "print(gateway.pid, gateway._directory, flush=True)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program],
            env=environment({"TMPDIR": scratch(self)}),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self.assertEqual(ran.returncode, -signal.SIGKILL, ran.stderr)
        pid = int(ran.stdout.split()[0])
        deadline = time.monotonic() + PATIENCE
        while is_alive(pid):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_no_reactor(self) -> None:
        """Neither the import nor a gateway beside installs a reactor."""
        program = (
            "import sys\n"
            "from fastway.testing import LocalGatewayProcess\n"
            "with LocalGatewayProcess():\n"
            "    pass\n"
            "assert 'twisted.internet.reactor' not in sys.modules\n"
            "assert 'pytest' not in sys.modules\n"
        )
        subprocess.run(
            [sys.executable, "-c", program], env=environment({}), check=True, timeout=PATIENCE
        )

    def test_asyncio(self) -> None:
        """`async with` in asyncio code, whose loop goes on meanwhile."""

        async def play() -> tuple[bytes, int]:
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0.001)

            counting = asyncio.create_task(count())
            async with LocalGatewayProcess() as gateway:
                reader, writer = await asyncio.open_connection(gateway.host, gateway.client_port)
                writer.write(PING)
                answer = await reader.readexactly(len(PING))
                writer.close()
            counting.cancel()
            return answer, turns

        answer, turns = asyncio.run(play())
        self.assertEqual(answer, PING)
        self.assertGreater(turns, 5)

    def test_asyncio_cancelled(self) -> None:
        """Who is cancelled while it starts leaves none behind."""
        gateway = LocalGatewayProcess()
        pids: list[int | None] = []

        async def play() -> None:
            entering = asyncio.ensure_future(gateway.__aenter__())
            while gateway.pid is None:
                await asyncio.sleep(0.001)
            pids.append(gateway.pid)
            entering.cancel()
            await asyncio.wait([entering])
            self.assertTrue(entering.cancelled())

        asyncio.run(play())
        self.assertIsNone(gateway.pid)
        self.assertFalse(is_alive(cast(int, pids[0])))


class ProcessEndpointTests(TestCase):
    async def test_library(self) -> None:
        """The endpoint library talks to it as to any other gateway."""
        gateway = LocalGatewayProcess(key=b"k")
        await deferToThread(gateway.start)
        self.addCleanup(gateway.stop)
        server = await connect_server(clientFromString(reactor, gateway.server_string), 1, b"k")
        client = await connect_client(clientFromString(reactor, gateway.client_string))
        await echo_once(client, server)


CONFTEST = 'pytest_plugins = ["fastway.testing.fixtures"]\n'

SYNCHRONOUS = """
    import socket

    import pytest

    PING = bytes([5, 0, 0, 0, 0, 0, 0, 0, 5])


    def test_process(local_gateway):
        with socket.create_connection((local_gateway.host, local_gateway.client_port), 10) as one:
            one.sendall(PING)
            assert one.recv(100) == PING


    @pytest.mark.gateway(client_idle_timeout=5, key="k")
    class TestMarks:
        @pytest.mark.gateway(client_idle_timeout=1)
        def test_memory(self, memory_gateway):
            from twisted.internet.protocol import Factory, Protocol

            assert memory_gateway.key == b"k"
            memory_gateway.run(memory_gateway.client.connect(Factory.forProtocol(Protocol)))
            memory_gateway.advance(0.75)
            assert memory_gateway.links()
            memory_gateway.advance(0.5)
            assert not memory_gateway.links()
    """

TWISTED = """
    import pytest_twisted
    from twisted.internet.endpoints import clientFromString

    from fastway.endpoint import connect_client, connect_server


    @pytest_twisted.ensureDeferred
    async def test_twisted(local_gateway):
        from twisted.internet import reactor

        gateway = clientFromString(reactor, local_gateway.server_string)
        server = await connect_server(gateway, 1, local_gateway.key)
        client = await connect_client(clientFromString(reactor, local_gateway.client_string))
        conn = await client.dial(1)
        assert (await server.accept()).conn_id == conn.conn_id
        for end in (client, server):
            end.close()
            await end.when_gone()
    """

ASYNCIO = """
    import asyncio

    import pytest

    PING = bytes([5, 0, 0, 0, 0, 0, 0, 0, 5])


    @pytest.mark.asyncio
    async def test_asyncio(local_gateway):
        reader, writer = await asyncio.open_connection(
            local_gateway.host, local_gateway.client_port
        )
        writer.write(PING)
        assert await reader.readexactly(9) == PING
        writer.close()
    """

FAILING = """
    import os
    import time


    def test_fails(local_gateway):
        while "listens" not in local_gateway.log:
            time.sleep(0.01)
        assert False


    def test_kills(local_gateway):
        os.kill(local_gateway.pid, 9)
        os.waitid(os.P_PID, local_gateway.pid, os.WEXITED | os.WNOWAIT)
    """


class FixtureTests(SynchronousTestCase):
    def run_pytest(self, tests: str, *plugins: str) -> tuple[int, str]:
        """What pytest says to a file of tests."""
        directory = scratch(self)
        for name, text in (("conftest.py", CONFTEST), ("test_it.py", textwrap.dedent(tests))):
            with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
                file.write(text)
        command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "--rootdir=."]
        for plugin in (
            "cacheprovider",
            "twisted",
            "pytest_twisted",
            "asyncio",
            "hypothesispytest",
        ):
            if plugin not in plugins:
                command += ["-p", f"no:{plugin}"]
        ran = subprocess.run(
            [*command, "-p", "no:cacheprovider"],
            cwd=directory,
            env=environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=3 * PATIENCE,
        )
        return ran.returncode, ran.stdout

    def check_passes(self, count: int, tests: str, *plugins: str) -> None:
        status, said = self.run_pytest(tests, *plugins)
        self.assertIn(f"{count} passed", said)
        self.assertEqual(status, 0)

    def test_synchronous(self) -> None:
        """Plain tests, and marks: the nearer one wins."""
        self.check_passes(2, SYNCHRONOUS)

    def test_twisted(self) -> None:
        """Tests of pytest-twisted."""
        self.check_passes(1, TWISTED, "twisted", "pytest_twisted")

    def test_asyncio(self) -> None:
        """Tests of pytest-asyncio."""
        self.check_passes(1, ASYNCIO, "asyncio")

    def test_failing(self) -> None:
        """A test that fails shows the gateway's log; a gateway that died is an error."""
        status, said = self.run_pytest(FAILING)
        self.assertEqual(status, 1)
        self.assertIn("1 failed, 1 passed, 1 error", said)
        self.assertIn("log of the gateway", said)
        self.assertIn("GatewayDied: the gateway of the test was killed by SIGKILL", said)

    def test_only_there(self) -> None:
        """No other module of the package imports pytest."""
        found = []
        for place, _, files in os.walk(os.path.join(CHECKOUT, "fastway")):
            for name in files:
                if name.endswith(".py"):
                    with open(os.path.join(place, name), encoding="utf-8") as file:
                        if "import pytest" in file.read():
                            found.append(name)
        self.assertEqual(found, ["fixtures.py"])


def missing(module: str) -> str:
    """Why tests that need a package are left out; empty if it is there."""
    from importlib.util import find_spec

    return "" if find_spec(module) else f"there is no {module}"


for _name, _module in (("test_twisted", "pytest_twisted"), ("test_asyncio", "pytest_asyncio")):
    if missing(_module):
        getattr(FixtureTests, _name).skip = missing(_module)
if missing("pytest"):
    FixtureTests.skip = missing("pytest")

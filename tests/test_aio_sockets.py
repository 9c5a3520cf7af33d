"""The library on asyncio over what a network is made of: TLS, unix sockets, IPv6, where nothing
listens; in whole programs; and where a gateway is, as text.

Rule: what fails says why in one line.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import random
import ssl
import subprocess
import sys
from collections import defaultdict
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import ssl as twisted_ssl
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from fastway.aio import (
    Gateway,
    GatewayClient,
    GatewayPool,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.errors import EndpointEnded, GatewayUnreachable, LoginFailed, SendQueueFull
from fastway.gateway import PortConfig
from tests.support.aio_cases import SocketCase, new_uvloop, uvloop
from tests.support.endpoint import many
from tests.support.errors import raised
from tests.support.files import scratch
from tests.support.golden import FIRST, KEY, packet
from tests.support.paths import on_both_paths
from tests.support.processes import PATIENCE, environment
from tests.support.rows import CONNECTED
from tests.support.scripted import FAR, SERVER_ID
from tests.support.sockets import Sockets
from tests.support.tls import make_certificate
from tests.support.waits import reactor, until


async def told(awaitable: Any) -> Any:
    """The error of what is awaited, or its result."""
    try:
        return await awaitable
    except (OSError, ValueError, LoginFailed, GatewayUnreachable) as error:
        return error


class ReachTests(SocketCase):
    """Connecting, and why it fails."""

    def check_line(self, error: Any, *words: str) -> None:
        self.assertIsInstance(error, GatewayUnreachable)
        self.assertNotIn("\n", str(error))
        for word in words:
            self.assertIn(word, str(error))

    async def over(self, sockets: Sockets, gateway: Gateway) -> None:
        """It is a connection that works."""

        async def main() -> None:
            async with connect_client(gateway) as client:
                self.assertGreater(await client.ping(), 0)

        await self.run_aio(main())

    async def test_nobody_listens(self) -> None:
        """Without a gateway it is GatewayUnreachable, with the place and the cause."""
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        where = self.where(port)
        await port.stopListening()
        for connecting in (connect_client(where), connect_server(where, 1)):
            error = await self.run_aio(told(connecting))
            self.check_line(error, f"tcp://{where}: ")
            self.assertIsInstance(error.cause, ConnectionRefusedError)

    async def test_no_name(self) -> None:
        """A host name that is none, or that nobody has, is no connection either."""
        for host in ("a..b", "x" * 70, "no-such-host.invalid"):
            error = await self.run_aio(told(connect_client(Gateway(host, 9010))))
            self.check_line(error, host)

    async def test_silent(self) -> None:
        """A host that does not answer is given up after the timeout."""
        factory = Factory.forProtocol(Protocol)  # accepts, and speaks no TLS
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        gateway = Gateway("127.0.0.1", port.getHost().port, tls=True, timeout=0.1)
        error = await self.run_aio(told(connect_client(gateway)))
        self.check_line(error, "no connection within 0.1 s")

    async def test_wrong_key(self) -> None:
        """A wrong key is LoginFailed."""
        sockets = self.listen()
        connecting = connect_server(self.where(sockets.server_port), 1, "guess")
        error = await self.run_aio(told(connecting))
        self.assertIsInstance(error, LoginFailed)
        self.assertIn("key", str(error))

    async def test_unix(self) -> None:
        """A unix socket is as good; one that is not there is named."""
        path = os.path.join(scratch(self), "gateway")
        sockets = self.listen()
        port = reactor.listenUNIX(path, sockets.clients)
        await self.over(sockets, Gateway.parse(f"unix:{path}"))
        await port.stopListening()
        error = await self.run_aio(told(connect_client(f"unix:{path}")))
        self.check_line(error, f"unix:{path}: ")

    async def test_ipv6(self) -> None:
        """An IPv6 address is as good."""
        sockets = self.listen()
        try:
            port = reactor.listenTCP(0, sockets.clients, interface="::1")
        except Exception as error:
            self.skipTest(f"no IPv6 here: {error}")
        self.addCleanup(port.stopListening)
        await self.over(sockets, Gateway.parse(f"[::1]:{port.getHost().port}"))

    def tls(self, sockets: Sockets, own: Any) -> int:
        port = reactor.listenSSL(0, sockets.clients, own.options(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return cast(int, port.getHost().port)

    def trusting(self, own: Any) -> ssl.SSLContext:
        pem = twisted_ssl.Certificate.loadPEM(own.dumpPEM()).dumpPEM()
        return ssl.create_default_context(cadata=pem.decode())

    async def test_tls(self) -> None:
        """TLS that the certificate's owner speaks, under its name."""
        sockets = self.listen()
        own = make_certificate()
        number = self.tls(sockets, own)
        await self.over(
            sockets,
            Gateway("127.0.0.1", number, tls=self.trusting(own), server_name="localhost"),
        )

    async def test_bad_tls(self) -> None:
        """A certificate of another name, of nobody trusted, or of last year: one line each."""
        sockets = self.listen()
        own = make_certificate()
        number = self.tls(sockets, own)
        context = self.trusting(own)
        connecting = connect_client(
            Gateway("127.0.0.1", number, tls=context, server_name="a.example")
        )
        error = await self.run_aio(told(connecting))
        self.check_line(error, f"tls://127.0.0.1:{number}: ", "a.example")
        error = await self.run_aio(told(connect_client(Gateway("localhost", number, tls=True))))
        self.check_line(error, "self-signed")
        year = datetime.timedelta(days=365)
        late = make_certificate(datetime.datetime.now(datetime.timezone.utc) - year)
        number = self.tls(sockets, late)
        connecting = connect_client(
            Gateway("127.0.0.1", number, tls=self.trusting(late), server_name="localhost")
        )
        error = await self.run_aio(told(connecting))
        self.check_line(error, "expired")

    async def test_cancelled(self) -> None:
        """A connection or a login that is given up, at whatever point, leaves nobody online."""
        sockets = self.listen()
        for side in ("client", "server"):
            for count in range(10):
                if side == "client":
                    connecting = connect_client(self.where(sockets.client_port))
                else:
                    connecting = connect_server(self.where(sockets.server_port), 9, KEY)

                async def main(connecting: Any = connecting) -> Any:
                    return await connecting

                task = self.turns.loop.create_task(main())
                for _ in range(count):
                    self.turns.turn(1)
                    await until("a turn", lambda: True)
                task.cancel()
                await until("its end", task.done)
                if not task.cancelled():
                    await self.run_aio(task.result().close())
        await until("nobody", lambda: not self.online(sockets))

    def online(self, sockets: Sockets) -> list[Any]:
        return list(sockets.service.connected)


class UvloopReachTests(ReachTests):
    """The same on uvloop."""

    if uvloop is None:
        skip = "uvloop is missing"

    def make_loop(self) -> asyncio.AbstractEventLoop:
        return new_uvloop()


@on_both_paths
class TrafficTests(SocketCase):
    """Both ends on asyncio, and a gateway between them."""

    async def test_both_ends(self) -> None:
        """50 virtual connections at once, 2000 random messages, each echoed by a task."""
        sockets = self.listen(limits=many())

        async def echo(conn: VirtualConnection[Any]) -> None:
            async for message in conn:
                await conn.send(message)

        async def main() -> None:
            chance = random.Random(2)
            sent: dict[int, list[bytes]] = defaultdict(list)
            server_port = self.where(sockets.server_port)
            async with (
                connect_server(server_port, SERVER_ID, KEY) as server,
                connect_client(self.where(sockets.client_port)) as client,
            ):
                serving = server.serve(echo)
                conns = await asyncio.gather(*(client.dial(SERVER_ID) for _ in range(50)))
                for _ in range(2000):
                    conn = chance.choice(conns)
                    message = chance.randbytes(chance.choice((0, 3, 60, 2000)))
                    sent[conn.conn_id].append(message)
                    await conn.send(message)
                for conn in conns:
                    got = [await conn.receive() for _ in sent[conn.conn_id]]
                    self.assertEqual(got, sent[conn.conn_id])
                    conn.close()
                while serving.running:
                    await asyncio.sleep(0)
                self.assertEqual((client.connections, server.connections), ([], []))

        await self.run_aio(main())

    async def test_back_pressure(self) -> None:
        """A far end that does not read makes `send` wait, and loses nothing when it reads."""
        sockets = self.listen(server=PortConfig(queue_bytes=256 * 1024))
        far = await sockets.server(FAR)
        client = await self.client(sockets, send_buffer=128 * 1024)
        conn = await self.run_aio(client.dial(FAR))
        await far.expect(CONNECTED)
        far.wire.pauseProducing()
        message = bytes(32 * 1024)
        sent = 0
        refused: list[SendQueueFull] = []

        async def send() -> None:
            nonlocal sent
            try:
                sent += 1
                await conn.send(message)
            except SendQueueFull as error:
                sent -= 1
                refused.append(error)

        sending = []
        while not refused:
            sending.append(self.turns.task(send()))
            await until("a turn", lambda: True)
        far.wire.resumeProducing()
        await until("all", lambda: all(task.done() for task in sending))
        await far.expect(packet(FIRST, message) * sent)

    async def test_pool_and_client(self) -> None:
        """A server on two gateways and a client on either; when one stops, it takes the other."""
        gateways = [self.listen(), self.listen()]

        async def echo(conn: VirtualConnection[Any]) -> None:
            async for message in conn:
                await conn.send(message)

        async def main() -> None:
            servers = {str(n): self.where(one.server_port) for n, one in enumerate(gateways)}
            clients = [self.where(one.client_port) for one in gateways]
            by_port = {one.client_port.getHost().port: one for one in gateways}
            async with (
                GatewayPool(servers, SERVER_ID, KEY, backoff=lambda _: 0.01) as pool,
                GatewayClient(clients, backoff=lambda _: 0.01) as client,
            ):
                pool.serve(echo)
                await pool.when_up(2)
                seen = set()
                for _ in range(2):
                    conn = await client.dial(SERVER_ID, 5)
                    await conn.send(b"hello")
                    self.assertEqual(await conn.receive(), b"hello")
                    port = conn.gateway.address[1]
                    seen.add(port)
                    await asyncio.wrap_future(_stopping(by_port[port]))
                    self.assertIsInstance(await conn.gateway.when_ended(), EndpointEnded)
                    if len(seen) == 2:
                        break
                self.assertEqual(len(seen), 2)

        await self.run_aio(main())


def _stopping(sockets: Sockets) -> Any:
    """Stop a gateway, as a future of another thread's, which any loop can await."""
    from concurrent.futures import Future

    from twisted.internet.defer import Deferred

    done: Future[None] = Future()
    Deferred.fromCoroutine(sockets.stop()).addBoth(lambda _: done.set_result(None))
    return done


PROGRAM = """
import asyncio, gc, sys
from fastway.aio import *
from fastway.errors import *

async def echo(conn):
    async for message in conn:
        await conn.send(message)

async def main(client_port, server_port):
    asyncio.get_running_loop().slow_callback_duration = 60  # of a busy machine it does not tell
    async with connect_server(server_port, 1, "{key}") as server:
        server.serve(echo)
        async with connect_client(client_port, EndpointConfig(message_format=Text())) as client:
            conn = await client.dial(1)
            await conn.send("hello")
            print(await conn.receive())
            tasks = [asyncio.create_task(one) for one in
                     (conn.receive(), client.accept(), client.dial(1), client.when_ended())]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            print(await asyncio.gather(*tasks, return_exceptions=True) and "cancelled")
            left_behind = asyncio.create_task(client.when_ended())
        pool = GatewayPool({{"a": server_port, "b": "127.0.0.1:1"}}, 2, "{key}")
        pool.start()
        await asyncio.sleep(0)
        await pool.stop()
        kept = GatewayClient([client_port])
        kept.start()
        await kept.when_up()
        # left behind too

assert not [name for name in sys.modules if name.partition(".")[0] in ("twisted", "zope")]
{run}
gc.collect()
assert not [name for name in sys.modules if name.partition(".")[0] in ("twisted", "zope")]
"""


@on_both_paths
class ProgramTests(SocketCase):
    """Whole programs in an interpreter that complains of everything."""

    async def program(self, run: str) -> None:
        sockets = self.listen()
        text = PROGRAM.format(key=KEY.decode(), run=run)
        ports = [self.where(sockets.client_port), self.where(sockets.server_port)]
        result = await deferToThread(
            subprocess.run,
            [sys.executable, "-X", "dev", "-W", "error", "-c", text, *ports],
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(result.stdout, "hello\ncancelled\n")

    async def test_asyncio(self) -> None:
        """Nothing is left pending, never retrieved or never awaited, and no Twisted comes in."""
        await self.program("asyncio.run(main(*sys.argv[1:]), debug=True)")

    async def test_by_hand(self) -> None:
        """The same where the program runs its loop itself."""
        await self.program(
            "loop = asyncio.new_event_loop()\n"
            "loop.run_until_complete(main(*sys.argv[1:]))\n"
            "for task in asyncio.all_tasks(loop): task.cancel()\n"
            "loop.run_until_complete(asyncio.sleep(0.1))\n"
            "loop.close()"
        )

    async def test_uvloop(self) -> None:
        """The same on uvloop."""
        if uvloop is None:
            self.skipTest("uvloop is missing")
        await self.program("import uvloop; uvloop.run(main(*sys.argv[1:]), debug=True)")


class ImportTests(SynchronousTestCase):
    def test_no_twisted(self) -> None:
        """Where there is no Twisted, the library for asyncio is imported all the same."""
        text = (
            "import sys\n"
            "sys.modules['twisted'] = sys.modules['zope'] = None\n"
            "import fastway.aio, fastway.aio.snet"
        )
        done = subprocess.run(
            [sys.executable, "-c", text], env=environment({}), capture_output=True, text=True
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class ParseTests(SynchronousTestCase):
    """Where a gateway is, as text."""

    def test_texts(self) -> None:
        """Each form is what it says."""
        self.assertEqual(Gateway.parse("a.example:9010"), Gateway("a.example", 9010))
        self.assertEqual(Gateway.parse("tls://A:1"), Gateway("A", 1, tls=True))
        self.assertEqual(Gateway.parse("[::1]:9010"), Gateway("::1", 9010))
        self.assertEqual(Gateway.parse("unix:/run/a b"), Gateway(path="/run/a b"))
        for text in ("snet+tls://a:1", "tls+snet://a:1"):
            gateway = Gateway.parse(text)
            self.assertTrue(gateway.tls and gateway.snet)
            self.assertEqual(str(gateway), "snet+tls://a:1")
        self.assertIsNotNone(Gateway.parse("snet+unix:/a").snet)

    def test_no_gateways(self) -> None:
        """What is none is refused, in one line that has it."""
        for text in (
            *("", "a", ":1", "a:0", "a:65536", "a:x", "http://a:1", "tcp://a:1/", "a:1?b"),
            *("u@a:1", "a b:1", "::1:9", "[a]:1", "[]:1", "unix:a", "unix:", "tls+tls://a:1"),
            *("tcp+tls://a:1", "a:1\n", "\ta:1", "a:\u0661", "unix:/a\0b", "ws://a:0"),
        ):
            error = raised(ValueError, Gateway.parse, text)
            self.assertIn(repr(text), str(error))
            self.assertNotIn("\n", str(error))
        for port in (0, -1, 65536):
            raised(ValueError, Gateway, "a", port)

    @given(
        st.one_of(
            st.text(),
            st.builds(
                "{}{}:{}".format,
                st.sampled_from(["", "tcp://", "tls://", "snet://", "snet+tls://", "unix:/"]),
                st.one_of(st.text(), st.sampled_from(["[::1]", "[fe80::1%eth0]", "a.example"])),
                st.one_of(st.integers(), st.text(max_size=3)),
            ),
        )
    )
    def test_any(self, text: str) -> None:
        """Any text is a ValueError, or a gateway whose text says the same."""
        try:
            gateway = Gateway.parse(text)
        except ValueError:
            return
        self.assertEqual(Gateway.parse(str(gateway)), gateway)

"""The endpoint library over WebSockets: the body of tests of endpoints, what ends say, pools,
snet, and the tools; with our own gateway, and with a server that others wrote.

Rule: what is the same as over TCP is not tested anew, but by the same tests.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, quoteStringArgument
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway import aio
from fastway.cli import tools
from fastway.endpoint import (
    EndpointConfig,
    GatewayClient,
    GatewayPool,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.errors import (
    ConfigError,
    EndpointEnded,
    FrameTooShort,
    GatewayUnreachable,
    Reason,
    WebSocketClosed,
    WebSocketRefused,
)
from fastway.snet import SnetClientEndpoint
from fastway.snet.config import SnetConfig
from fastway.testing import LocalGateway, LocalGatewayProcess, MemoryGateway
from fastway.websocket import Url, WebSocket
from fastway.websocket.stream import WebSocketConnectionLost
from fastway.websocket.url import TlsFiles, UrlEndpoint
from tests.support import checks
from tests.support.aio import with_deferreds
from tests.support.aio_cases import SocketCase, new_uvloop, uvloop
from tests.support.bridge import Bridge
from tests.support.endpoint import EndpointBody, MemoryWorld, SocketWorld, World, many
from tests.support.errors import failure_of, raised
from tests.support.files import scratch
from tests.support.gateways import GatewayTestCase, OneOf
from tests.support.golden import KEY
from tests.support.scripted import FAR
from tests.support.sockets import Sockets
from tests.support.sockets import SocketTestCase as SocketsCase
from tests.support.tapes import Tape
from tests.support.tls import make
from tests.support.waits import SECONDS, reactor, until
from tests.support.web import Script, WebFactory, agrees
from tests.support.websocket import closing, frame, unmasked


def url_of(sockets: Sockets) -> str:
    return f"ws://127.0.0.1:{sockets.client_port.getHost().port}/"


async def echo(conn: VirtualConnection[Any]) -> None:
    async for message in conn:
        await conn.send(message)


# The body.


class MemoryClientTests(EndpointBody, TestCase):
    """A client of the real gateway without sockets, by WebSocket."""

    async def open(self, **config: Any) -> World:
        world = MemoryWorld(False, EndpointConfig(**config), web=True)
        self.addCleanup(world.gateway.stop)
        return world


class SocketClientTests(EndpointBody, SocketsCase):
    """A client of the real gateway, by WebSocket."""

    async def open(self, **config: Any) -> World:
        sockets = self.listen(limits=many(), web=True)
        endpoint = await connect_client(url_of(sockets), EndpointConfig(**config))

        async def gone() -> None:
            endpoint.close()
            await until("the endpoint to be gone", lambda: endpoint.link.gone)

        self.addCleanup(lambda: Deferred.fromCoroutine(gone()))
        return SocketWorld(sockets, endpoint, await sockets.server(FAR), 1)


class AioWorld(SocketWorld):
    """With asyncio's endpoint."""

    @property
    def name(self) -> str:
        transport: Any = self.endpoint.link.transport
        host, port = transport.transport.get_extra_info("sockname")
        return f"{host}:{port}"


class AioClientTests(EndpointBody, SocketCase):
    """A client of the real gateway with asyncio, by WebSocket."""

    def where(self, port: Any) -> str:
        return f"ws://127.0.0.1:{port.getHost().port}/"

    async def open(self, **config: Any) -> World:
        sockets = self.listen(limits=many(), web=True)
        endpoint = with_deferreds(self.turns, await self.client(sockets, **config))
        return AioWorld(sockets, endpoint, await sockets.server(FAR), 1)


class UvloopClientTests(AioClientTests):
    """The same on uvloop."""

    if uvloop is None:
        skip = "uvloop is missing"

    def make_loop(self) -> asyncio.AbstractEventLoop | None:
        return new_uvloop()


# What ends say.


class EndTests(GatewayTestCase):
    """Why it ended, on Twisted."""

    def web(self, **options: Any) -> LocalGateway:
        gateway = LocalGateway(reactor, KEY, ws=True, relay="off", **options)
        self.addCleanup(gateway.stop)
        return self.successResultOf(gateway.start())

    async def ended(self, endpoint: Any) -> Any:
        return await endpoint.when_ended().addTimeout(SECONDS, reactor)

    async def test_kicked(self) -> None:
        """A reason of the gateway is that of the connection's end, and its code is there."""
        gateway = self.web()
        for reason in (Reason.KICKED, Reason.IDLE_TIMEOUT, Reason.SHUTDOWN):
            client = self.keep(await connect_client(gateway.web_url))
            (link,) = gateway.service.router.clients.values()
            gateway.service.router.lose(link, reason)
            ended = await self.ended(client)
            self.assertIsInstance(ended, EndpointEnded)
            self.assertIn(
                f"closed by the gateway: {reason.value} ({reason.close_code})", str(ended)
            )
            assert isinstance(ended.cause, WebSocketClosed)
            self.assertEqual(ended.cause.code, reason.close_code)
            await until("no client", lambda: not gateway.service.router.clients)

    async def test_closed_here(self) -> None:
        """One's own close is an orderly end for the gateway too."""
        gateway = self.web()
        client = await connect_client(gateway.web_url)
        (link,) = gateway.service.router.clients.values()
        await client.close().addTimeout(SECONDS, reactor)
        await until("its end", lambda: link.lost)
        self.assertIs(link.lost, Reason.PEER_CLOSED)

    async def test_refused(self) -> None:
        """A status in place of a WebSocket."""
        gateway = self.web(client_ws_path="/game")
        self.assertTrue(gateway.web_url.endswith("/game"))
        error = await failure_of(
            WebSocketRefused, connect_client(gateway.web_url.replace("/game", "/other"))
        )
        self.assertEqual(error.status, 404)
        text = f"ws:127.0.0.1:{gateway.web_port}:path=/game:origin=https\\://evil.example"
        error = await failure_of(WebSocketRefused, connect_client(clientFromString(reactor, text)))
        self.assertEqual(error.status, 403)

    async def test_secure(self) -> None:
        """The gateway's own port of wss, by its options; with asyncio too."""
        made = make("localhost", ["localhost", "127.0.0.1"])
        directory = scratch(self)
        cert, key = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
        made.write(cert, key)
        gateway = LocalGateway(
            reactor, client_wss_addr="127.0.0.1:0", client_tls_cert=cert, client_tls_key=key
        )
        self.addCleanup(gateway.stop)
        await gateway.start()
        self.assertTrue(gateway.web_url.startswith("wss://"))
        where = UrlEndpoint(reactor, Url.parse(gateway.web_url), tls=TlsFiles(cert))
        client = self.keep(await connect_client(where))
        self.assertGreater(await client.ping(), 0)
        (link,) = gateway.service.router.clients.values()
        self.assertEqual(cast(Any, link).facts.transport, "wss")
        context = ssl.create_default_context(cafile=cert)
        port = gateway.web_port
        there = aio.Gateway("localhost", port, tls=context, websocket=WebSocket())

        async def main() -> float:
            async with aio.connect_client(there) as other:
                return await other.ping()

        self.assertGreater(await deferToThread(lambda: asyncio.run(main())), 0)

    async def test_broken(self) -> None:
        """What the gateway breaks is what it is told, and what the end is."""
        for behind, kind, said in (
            (frame(b"x"), None, "a frame is masked"),
            (frame(b"\1\0\0\0\0\0\0\0", mask=None), FrameTooShort, "length 1 is below 4"),
            (unmasked(closing(1012)), WebSocketClosed, "it restarts; come again (1012)"),
            (b"", WebSocketClosed, "without a Close"),
        ):
            script = Script(agrees(behind), closes=not behind)
            port = reactor.listenTCP(0, OneOf(script), interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            client = await connect_client(f"ws://127.0.0.1:{port.getHost().port}")
            ended = await self.ended(client)
            self.assertIn(said, str(ended))
            if kind is not None:
                self.assertIsInstance(ended.cause, kind)
            self.assertNotIn("\n", str(ended))
            await client.when_gone()

    async def test_texts(self) -> None:
        """Texts that are no URLs are still refused by type."""
        for text in ("127.0.0.1:9010", "tcp:h:1", "http://h/"):
            error = raised(TypeError, connect_client, text)
            self.assertIn("ws://host:port/path", str(error))
        for wrong in ("ws://h:0/", "wss://"):
            raised(ValueError, connect_client, wrong)
            raised(ValueError, GatewayPool, {"a": wrong}, 1, clock=Clock())

    async def test_dial_string(self) -> None:
        """`fastway:` over `ws:`, so that any protocol runs over it."""
        gateway = self.web()
        (await self.server(gateway)).serve(echo)
        inner = quoteStringArgument(f"ws:127.0.0.1:{gateway.web_port}")
        script = Script(lambda request: b"")
        where = clientFromString(reactor, f"fastway:{inner}:server=1")
        await where.connect(OneOf(script))
        script.wire.write(b"over and over\r\n\r\n")
        await until("the echo", lambda: script.heard)
        script.wire.loseConnection()
        await until("the end", lambda: script.gone)

    async def test_back_pressure(self) -> None:
        """A client that does not read is paused for, and writers wait, as over TCP."""
        gateway = self.web(client_send_buffer="64M", client_send_chan_size=100_000)
        server = await self.server(gateway)
        client = self.keep(await connect_client(gateway.web_url))
        dialling = client.dial(1)
        theirs = await server.accept()
        ours = await dialling
        far = cast(Any, theirs).link.transport
        far.pause()
        waiting = None
        for _ in range(2000):
            waiting = ours.send(bytes(100_000))
            if not waiting.called:
                break
        assert waiting is not None
        self.assertFalse(waiting.called)
        self.assertTrue(client.link.full)
        far.resume()
        await waiting.addTimeout(SECONDS, reactor)


class AioEndTests(SocketCase):
    """Why it ended, and why it did not begin, on asyncio."""

    async def test_kicked(self) -> None:
        sockets = self.listen(web=True)

        async def main() -> Any:
            client = await aio.connect_client(url_of(sockets))
            reactor.callFromThread(self.kick, sockets)
            ended = await client.when_ended()
            await client.close()
            return ended

        ended = await self.run_aio(main())
        self.assertIn("closed by the gateway: kicked by the operator (4403)", str(ended))
        self.assertEqual(ended.cause.code, 4403)

    def kick(self, sockets: Sockets) -> None:
        (link,) = sockets.service.router.clients.values()
        sockets.service.router.lose(link, Reason.KICKED)

    async def unreachable(self, where: str) -> GatewayUnreachable:
        async def main() -> Any:
            try:
                await aio.connect_client(where)
            except GatewayUnreachable as error:
                return error

        error = await self.run_aio(main())
        assert isinstance(error, GatewayUnreachable), error
        self.assertNotIn("\n", str(error))
        self.assertNotIn("secret", str(error))
        return error

    async def test_refused(self) -> None:
        """The status is in the cause; a token is in no text."""
        sockets = self.listen(web=True)
        error = await self.unreachable(url_of(sockets) + "other?token=secret")
        self.assertIn("/other?...: no WebSocket: refused with HTTP status 404", str(error))
        assert isinstance(error.cause, WebSocketRefused)
        self.assertEqual(error.cause.status, 404)

    async def test_not_there(self) -> None:
        """Nobody listens, or who does speaks something else."""
        sockets = self.listen()
        error = await self.unreachable(url_of(sockets))  # the plain client port
        self.assertIn("closed within the handshake", str(error))
        where = url_of(sockets).replace("ws:", "wss:")
        self.assertIn("TLS", str(await self.unreachable(where)))
        number = sockets.client_port.getHost().port
        await sockets.client_port.stopListening()
        self.assertIn("is one there?", str(await self.unreachable(f"ws://127.0.0.1:{number}")))

    async def test_hostile(self) -> None:
        """Answers that are none, and frames that are none."""
        for answer, said in (
            (lambda _: bytes(100_000), "does not speak HTTP"),
            (lambda _: b"HTTP/1.1 101 x\r\n" + b"X: y\r\n" * 5000, "over 8192 bytes"),
            (agrees(sec_websocket_accept="x"), "prove"),
            (agrees(sec_websocket_extensions="x"), "extensions"),
            (agrees(frame(b"x")), "a frame is masked"),
            (agrees(frame(b"x", mask=None, length=1 << 60)), "over"),
            (agrees(unmasked(closing(1013))), "it has no room; try again later (1013)"),
        ):
            script = Script(cast(Any, answer))
            port = reactor.listenTCP(0, OneOf(script), interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            where = f"ws://127.0.0.1:{port.getHost().port}/"

            async def main(where: str = where) -> str:
                try:
                    async with aio.connect_client(where) as client:
                        return str(await client.when_ended())
                except (GatewayUnreachable, EndpointEnded) as error:  # of one read
                    return str(error)

            self.assertIn(said, await self.run_aio(main()))
            await self.gone(script)

    async def gone(self, script: Script) -> None:
        await until("the server's end", lambda: script.gone)

    async def test_silent(self) -> None:
        """An answer that does not come in time is none; who is cancelled before leaves nothing."""
        from fastway.aio import websocket as module

        for patience in (0.05, 30.0):
            self.patch(module, "HANDSHAKE_TIMEOUT", patience)
            script = Script(lambda _: b"HTTP/1.1 101 x\r\n")
            port = reactor.listenTCP(0, OneOf(script), interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            where = f"ws://127.0.0.1:{port.getHost().port}/"
            if patience < 1:
                self.assertIn("no answer within 0.05 s", str(await self.unreachable(where)))
            else:

                async def main(where: str = where, script: Script = script) -> None:
                    task = asyncio.ensure_future(_made(aio.connect_client(where)))
                    while not script.heard:
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task])
                    assert task.cancelled()

                await self.run_aio(main())
            await self.gone(script)

    async def test_close(self) -> None:
        """Leaving says a Close, and is done when the gateway has answered it."""
        sockets = self.listen(web=True)

        async def main() -> None:
            async with aio.connect_client(url_of(sockets)) as client:
                await client.ping()

        await self.run_aio(main())
        await until("its end", lambda: not sockets.service.router.clients)
        self.assertEqual(sockets.service.router.stats.turned_away, {})

    def test_texts(self) -> None:
        """What texts lead to, and what they are shown as."""
        for text, shown in (
            ("ws://h", "ws://h/"),
            ("wss://h:444/a?b", "wss://h:444/a?..."),
            ("snet+wss://[::1]/a", "snet+wss://[::1]/a"),
        ):
            gateway = aio.Gateway.parse(text)
            self.assertEqual(str(gateway), shown)
            assert gateway.websocket is not None
        self.assertEqual(gateway.host, "::1")
        self.assertEqual((gateway.port, gateway.tls), (443, True))
        for wrong in ("ws://", "snet+ws://h:0", "ws+unix:/a", "tls+ws://h"):
            raised(ValueError, aio.Gateway.parse, wrong)
        raised(ValueError, aio.Gateway, "a b", 80, websocket=WebSocket())
        unix = aio.Gateway(path="/run/x", websocket=WebSocket("/game"))
        self.assertEqual(str(unix), "ws+unix:/run/x")


async def _made(connecting: Any) -> Any:
    return await connecting


class Shown:
    """asyncio's transport as Twisted's protocols know theirs, as far as the checks ask."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.raw.write(data)

    def loseConnection(self) -> None:
        self.raw.close()

    def abortConnection(self) -> None:
        self.aborted = True
        self.raw.abort()

    def pauseProducing(self) -> None:
        self.raw.pause_reading()

    def resumeProducing(self) -> None:
        self.raw.resume_reading()


class TapeRider(asyncio.Protocol):
    """Lets a Tape run over a WebSocket of asyncio."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def connection_made(self, transport: Any) -> None:
        self.tape.makeConnection(cast(Any, Shown(transport)))

    def data_received(self, data: bytes) -> None:
        self.tape.dataReceived(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            exc = ConnectionAborted() if self.tape.wire.aborted else ConnectionDone()
        elif isinstance(exc, WebSocketClosed):  # as Twisted's side says it
            exc = WebSocketConnectionLost(exc.code, exc.text)
        elif isinstance(exc, ConnectionError):
            exc = ConnectionLost()
        self.tape.connectionLost(Failure(exc))


class AioTransportTests(SocketCase):
    """The list of checks of transports, on asyncio."""

    async def check(self, tls: bool, dialling_first: bool) -> None:
        made = make("localhost", ["localhost"])
        context: Any = ssl.create_default_context(cadata=made.pem.decode()) if tls else False
        ports: list[Any] = []

        async def make_pair(one: Protocol, two: Protocol) -> None:
            dials, listens = (one, two) if dialling_first else (two, one)
            factory = WebFactory(OneOf(listens))
            if tls:
                port = reactor.listenSSL(0, factory, made.private.options(), 5, "127.0.0.1")
            else:
                port = reactor.listenTCP(0, factory, 5, "127.0.0.1")
            ports.append(port)
            number = port.getHost().port
            gateway = aio.Gateway("localhost", number, tls=context, websocket=WebSocket())
            await self.run_aio(gateway.open(lambda: TapeRider(cast(Tape, dials))))
            await until("the other end", lambda: listens.transport is not None)

        try:
            await checks.check_transport(self, make_pair, checks.NOT_ON_ASYNCIO)
        finally:
            for port in ports:
                await port.stopListening()

    async def test_plain(self) -> None:
        await self.check(False, True)

    async def test_plain_other_end(self) -> None:
        await self.check(False, False)

    async def test_secure(self) -> None:
        await self.check(True, True)


class UvloopTransportTests(AioTransportTests):
    """The same on uvloop."""

    if uvloop is None:
        skip = "uvloop is missing"

    def make_loop(self) -> asyncio.AbstractEventLoop | None:
        return new_uvloop()


# With a server that others wrote.


class BridgeTests(GatewayTestCase):
    """The server of `websockets`, with our gateway's plain ports behind it."""

    def bridge(self, target: int) -> Bridge:
        bridge = Bridge(target)
        self.addCleanup(lambda: deferToThread(bridge.stop))
        return bridge

    async def test_talk(self) -> None:
        """A client, a game server and a stream of one, by Twisted and by asyncio."""
        gateway = self.gateway()
        clients, servers = self.bridge(gateway.client_port), self.bridge(gateway.server_port)
        server = self.keep(await connect_server(servers.url, 1, KEY))
        server.serve(echo)
        client = self.keep(await connect_client(clients.url))
        conn = await client.dial(1)
        for message in (b"", b"hello", os.urandom(126), os.urandom(70_000), os.urandom(500_000)):
            await conn.send(message)
            self.assertEqual(await conn.receive(), message)
        self.assertTrue(await deferToThread(clients.ping))
        self.assertEqual(clients.paths, ["/game?token=x"])

        async def main() -> bytes:
            async with aio.connect_client(clients.url) as other:
                conn = await other.dial(1)
                await conn.send(bytes(300_000))
                return cast(bytes, await conn.receive())

        def run() -> bytes:
            return asyncio.run(main())

        self.assertEqual(await deferToThread(run), bytes(300_000))
        await until("its Close", lambda: clients.said)
        self.assertEqual(clients.said, [(1000, "")])

    async def test_close(self) -> None:
        """What others say with a Close is the reason."""
        gateway = self.gateway()
        bridge = self.bridge(gateway.client_port)
        for code, text, said in (
            (1012, "", "it restarts; come again (1012)"),
            (4501, "somebody else came", "somebody else came (4501)"),
            (1000, "", "closed by the gateway"),
        ):
            client = self.keep(await connect_client(bridge.url))
            await client.ping()
            await deferToThread(bridge.close, code, text)
            ended: Any = await client.when_ended()
            self.assertIn(said, str(ended))
            self.assertEqual(ended.cause is None, code == 1000)

    async def test_pool(self) -> None:
        """A pool comes back over a WebSocket as over TCP, and a client is on it."""
        gateway = self.gateway()
        servers, clients = self.bridge(gateway.server_port), self.bridge(gateway.client_port)
        pool = GatewayPool({"a": servers.url}, 1, KEY, backoff=lambda _: 0.01)
        pool.serve(echo)
        pool.startService()
        self.addCleanup(pool.stopService)
        pool.set_gateways({"a": servers.url})  # the same: it stays
        client = GatewayClient([clients.url], backoff=lambda _: 0.01)
        client.startService()
        self.addCleanup(client.stopService)
        for _ in range(3):
            await pool.when_up()
            conn = await client.dial(1, timeout=SECONDS)
            await conn.send(b"x")
            self.assertEqual(await conn.receive(), b"x")
            before = client.gateway
            await deferToThread(servers.close, 1012)
            await deferToThread(clients.close, 1001)
            assert before is not None
            await before.when_ended().addTimeout(SECONDS, reactor)
            await until("the server's end", lambda: not pool.up or len(servers.paths) > 1)
            servers.paths.clear()
        self.assertEqual(pool.gateways, ["a"])

    async def test_login(self) -> None:
        """A login that is not taken is LoginFailed, as over TCP."""
        from fastway.errors import LoginFailed

        gateway = self.gateway()
        bridge = self.bridge(gateway.server_port)
        error = await failure_of(LoginFailed, connect_server(bridge.url, 1, b"guess"))
        self.assertIn("the gateway did not take the login", str(error))

    async def test_snet(self) -> None:
        """snet runs over it, and survives cuts of it."""
        # Over a WebSocket the kernel tells nothing: what is on its way has to fit the buffer.
        gateway = LocalGateway(
            reactor, KEY, snet=True, relay="off", client_snet_buffer="1M", client_send_buffer="8M"
        )
        self.addCleanup(gateway.stop)
        await gateway.start()
        (await self.server(gateway)).serve(echo)
        bridge = self.bridge(gateway.client_port)
        inner = quoteStringArgument(f"ws:127.0.0.1:{bridge.port}")
        where = clientFromString(reactor, f"snet:{inner}:buffer=1M")
        self.assertIsInstance(where, SnetClientEndpoint)
        client = self.keep(await connect_client(where))
        conn = await client.dial(1)
        for number in range(5):
            sent = bytes([number]) * 100_000
            await conn.send(sent)
            if number % 2:
                await deferToThread(bridge.close, 1001)
            self.assertEqual(await conn.receive().addTimeout(SECONDS, reactor), sent)

        async def main() -> bytes:
            where = aio.Gateway(
                "127.0.0.1", bridge.port, snet=SnetConfig(buffer=1 << 20), websocket=WebSocket()
            )
            async with aio.connect_client(where) as other:
                conn = await other.dial(1)
                await conn.send(bytes(300_000))
                await asyncio.get_running_loop().run_in_executor(None, bridge.close, 1001)
                return cast(bytes, await conn.receive())

        self.assertEqual(await deferToThread(lambda: asyncio.run(main())), bytes(300_000))


# Waiting as told.


class RetryTests(SynchronousTestCase):
    def test_retry_after(self) -> None:
        """Who is told by HTTP when to come again does not come before, within reason."""
        for told, least in ((7, 7), (10_000, 30), (None, 0)):

            class Refusing:
                def __init__(self, told: int | None) -> None:
                    self.clock = Clock()
                    self.attempts: list[float] = []
                    self.told = told

                def connect(self, factory: Any) -> Any:
                    self.attempts.append(self.clock.seconds())
                    failed: Deferred[Any] = Deferred()
                    failed.errback(WebSocketRefused(503, self.told))
                    return failed

            gateway = Refusing(told)
            client = GatewayClient([cast(Any, gateway)], clock=gateway.clock, backoff=lambda _: 1)
            client.startService()
            gateway.clock.pump([0.5] * 200)
            client.stopService()
            first, second, *_ = gateway.attempts
            self.assertEqual(second - first, least + 1)


# Gateways for tests.


class GatewayTests(SynchronousTestCase):
    def test_memory(self) -> None:
        """In memory: there, cut, stopped."""
        with MemoryGateway(ws=True, client_ws_path="/game") as gateway:
            server = gateway.run(
                connect_server(gateway.server, 1, gateway.key, None, gateway.clock)
            )
            server.serve(echo)
            assert gateway.web is not None
            client = gateway.run(connect_client(gateway.web, None, gateway.clock))
            conn = gateway.run(client.dial(1))
            conn.send(b"hello")
            self.assertEqual(gateway.run(conn.receive()), b"hello")
            self.assertEqual(len(gateway.links(gateway.web)), 1)
            self.assertEqual(gateway.links(conn), gateway.links(gateway.web))
            gateway.advance(60)
            self.assertIsNone(client.ended)
            gateway.cut(client)
            gateway.pump()
            self.assertIsNotNone(client.ended)
            client = gateway.run(connect_client(gateway.web, None, gateway.clock))
        self.assertIn("the gateway stops (1001)", str(client.ended))
        with MemoryGateway() as gateway:
            self.assertIsNone(gateway.web)

    def test_process(self) -> None:
        """In a process of its own, on the same port again."""
        with LocalGatewayProcess(ws=True) as gateway:
            url = gateway.web_url
            self.assertEqual(url, f"ws://127.0.0.1:{gateway.web_port}/")

            async def main() -> float:
                async with aio.connect_client(url) as client:
                    return await client.ping()

            self.assertGreater(asyncio.run(main()), 0)
        with gateway:
            self.assertEqual(gateway.web_url, url)
        with LocalGatewayProcess() as gateway:
            self.assertEqual((gateway.web_url, gateway.web_port), ("", 0))


# The tools.


class ToolTests(SynchronousTestCase):
    def test_gateway(self) -> None:
        """A URL is a gateway to the tools; a wrong one is one line."""
        for text in ("ws://127.0.0.1:9080/a?b=c", "wss://game.example", "ws:h:1:path=/x"):
            tools.gateway_endpoint(reactor, "--gateway", text)
        for text in ("ws://", "ws://h:0/", "wss://h/#a", "ws://h:1/ x", "ws:h:1:x=y"):
            error = raised(ConfigError, tools.gateway_endpoint, reactor, "--gateway", text)
            self.assertIn(f"--gateway: {text!r}" if "x" not in text else "--gateway: ", str(error))
            self.assertEqual(len(str(error).splitlines()), 1)

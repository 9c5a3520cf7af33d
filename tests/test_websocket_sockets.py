"""WebSocket over real sockets: a whole gateway, and the `websockets` client in a thread."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar, cast

from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.threads import deferToThread
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from fastway.endpoint import VirtualConnection
from fastway.errors import Reason
from fastway.gateway import Facts
from fastway.router import Side
from fastway.testing import LocalGateway
from tests.support.files import scratch
from tests.support.gateways import GatewayTestCase
from tests.support.golden import KEY, PING, dial, packet
from tests.support.logs import LogLines
from tests.support.paths import on_both_paths
from tests.support.tls import make
from tests.support.waits import SECONDS, reactor, until
from tests.support.websocket import request

T = TypeVar("T")


class Stream:
    """A client's bytes, of which messages are any pieces."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.buffer = b""
        self.largest = 0

    def send(self, data: bytes) -> None:
        self.websocket.send(data)

    def packet(self) -> tuple[int, bytes]:
        """The next packet's conn_id and message."""
        while True:
            size = 4 + int.from_bytes(self.buffer[:4], "little")
            if 8 <= size <= len(self.buffer):
                whole, self.buffer = self.buffer[:size], self.buffer[size:]
                return int.from_bytes(whole[4:8], "little"), whole[8:]
            piece = self.websocket.recv(timeout=SECONDS)
            assert isinstance(piece, bytes)
            self.largest = max(self.largest, len(piece))
            self.buffer += piece

    def dial(self, remote_id: int) -> int:
        """The new connection's id."""
        self.send(dial(remote_id))
        conn_id, command = self.packet()
        assert (conn_id, command[0]) == (0, 1), command
        return int.from_bytes(command[1:5], "little")


class WebTestCase(GatewayTestCase):
    """A gateway with a port for web pages, and a server that echoes and pushes."""

    scheme = "ws"

    async def open(self, **options: Any) -> LocalGateway:
        options.setdefault("client_ws_addr", "127.0.0.1:0")
        gateway = LocalGateway(reactor, KEY, relay="on" if self.relay else "off", **options)
        self.addCleanup(gateway.stop)
        await gateway.start()
        self.port = gateway.web_port
        self.factory = cast(Any, gateway.service.ports[2].factory)
        return gateway

    @staticmethod
    def clients(gateway: LocalGateway) -> list[Facts]:
        """The facts of all clients."""
        links = list(gateway.service.connected)
        return [link.facts for link in links if link.side is Side.CLIENT]

    async def echo(self, gateway: LocalGateway, big: int = 0) -> None:
        async def handle(conn: VirtualConnection[bytes]) -> None:
            if big:
                await conn.send(bytes(big))
            async for message in conn:
                await conn.send(message)

        server = await self.server(gateway)
        server.serve(handle)

    async def browse(self, work: Callable[[Stream], T], **options: Any) -> T:
        """What `work` returns, in a thread, with a client that is connected."""
        options.setdefault(
            "origin", f"{self.scheme.replace('ws', 'http')}://127.0.0.1:{self.port}"
        )
        where = f"{self.scheme}://127.0.0.1:{self.port}{options.pop('path', '/')}"

        def run() -> T:
            options.setdefault("subprotocols", ["fastway"])
            with connect(
                where, proxy=None, max_size=None, close_timeout=3, **options
            ) as websocket:
                return work(Stream(websocket))

        return cast(T, await deferToThread(run))


@on_both_paths
class TalkTests(WebTestCase):
    async def test_echo(self) -> None:
        """Dial, echo, ping; the facts say ws, and the subprotocol is agreed to."""
        gateway = await self.open()
        await self.echo(gateway)

        def work(client: Stream) -> tuple[bytes, str | None, list[str]]:
            conn_id = client.dial(1)
            client.send(packet(conn_id, b"hello"))
            echoed = client.packet()
            client.websocket.ping(b"are you there").wait(SECONDS)
            client.send(PING)
            assert echoed[0] == conn_id
            assert client.packet() == (0, PING[8:])
            facts = [facts.transport for facts in self.clients(gateway)]
            links = list(gateway.service.router.clients.values())
            self.native = [cast(Any, link).lane.native for link in links]
            return echoed[1], client.websocket.subprotocol, facts

        self.assertEqual(await self.browse(work), (b"hello", "fastway", ["ws"]))
        self.assertEqual(self.native, [self.relay])
        await self.idle(gateway)
        await until("its end", lambda: not gateway.service.router.clients)
        self.assertEqual(gateway.service.router.stats.turned_away, {})

    async def test_big(self) -> None:
        """Messages of half a megabyte in both directions; no frame is over 16 KiB."""
        gateway = await self.open()
        await self.echo(gateway, 500_000)
        data = os.urandom(500_000)

        def work(client: Stream) -> int:
            conn_id = client.dial(1)
            assert client.packet() == (conn_id, bytes(500_000))
            client.send(packet(conn_id, data))
            assert client.packet() == (conn_id, data)
            sent = packet(conn_id, data[:1000])
            client.websocket.send([sent[:3], sent[3:700], b"", sent[700:]])
            assert client.packet() == (conn_id, data[:1000])
            return client.largest

        self.assertLessEqual(await self.browse(work), 16 * 1024)

    async def test_closes(self) -> None:
        """Who breaks the rules reads why, and so does who is kicked."""
        gateway = await self.open()

        def breaks(data: bytes | str) -> Callable[[Stream], tuple[int, str]]:
            def work(client: Stream) -> tuple[int, str]:
                try:
                    client.websocket.send(data)
                    client.websocket.recv(timeout=SECONDS)
                except ConnectionClosed as error:
                    assert error.rcvd is not None
                    return error.rcvd.code, error.rcvd.reason
                raise AssertionError("it was not closed")

            return work

        for data, reason in (
            ("text", Reason.NOT_BINARY),
            (bytes([1, 0, 0, 0]) + bytes(60_000), Reason.FRAME_TOO_SHORT),
            (bytes([255, 255, 255, 127]) + bytes(60_000), Reason.FRAME_TOO_LARGE),
            (packet(0, b"\x09"), Reason.BAD_COMMAND),
        ):
            found = await self.browse(breaks(data))
            self.assertEqual(found, (reason.close_code, reason.value))

        def work(client: Stream) -> tuple[int, str]:
            router = gateway.service.router
            (link,) = router.clients.values()
            reactor.callFromThread(router.lose, link, Reason.KICKED)
            return breaks(b"")(client)

        self.assertEqual(await self.browse(work), (4403, Reason.KICKED.value))

    async def test_stop(self) -> None:
        """A gateway that stops says so."""
        gateway = await self.open()
        await self.echo(gateway, 300_000)

        def work(client: Stream) -> tuple[int, str]:
            conn_id = client.dial(1)
            assert client.packet() == (conn_id, bytes(300_000))
            reactor.callFromThread(gateway.stop)
            try:
                while True:
                    client.packet()
            except ConnectionClosed as error:
                assert error.rcvd is not None
                return error.rcvd.code, error.rcvd.reason

        self.assertEqual(await self.browse(work), (1001, Reason.SHUTDOWN.value))

    async def test_page_closes(self) -> None:
        """A page that closes is answered by its own code; what it sent before is carried out."""
        gateway = await self.open()
        await self.echo(gateway)

        def work(client: Stream) -> ClientConnection:
            conn_id = client.dial(1)
            client.send(packet(conn_id, b"x" * 100) * 50 + packet(conn_id, b"half")[:9])
            client.websocket.close(4321, "enough")
            return client.websocket

        closed = (await self.browse(work)).protocol
        assert closed.close_rcvd is not None
        self.assertEqual((closed.close_rcvd.code, closed.close_rcvd_then_sent), (4321, False))
        await self.idle(gateway)
        stats = gateway.service.router.stats
        self.assertEqual(stats.lost[Side.CLIENT, Reason.PEER_CLOSED], 1)
        self.assertGreaterEqual(stats.packets, 50)


@on_both_paths
class DoorTests(WebTestCase):
    async def refused(self, **options: Any) -> int:
        try:
            await self.browse(lambda _: None, **options)
        except InvalidStatus as error:
            return error.response.status_code
        return 101

    async def test_door(self) -> None:
        """The origin, the path, the version: each refusal has its status and is counted."""
        await self.open(client_ws_path="/game", trusted_proxies="127.0.0.1")
        with LogLines():
            for status, options in (
                (101, {"path": "/game?token=x"}),
                (101, {"path": "/game", "origin": None}),
                (403, {"path": "/game", "origin": "https://evil.example"}),
                (404, {"path": "/"}),
                (400, {"path": "/game", "subprotocols": ["mqtt"]}),
            ):
                self.assertEqual(await self.refused(**cast(Any, options)), status)
        self.assertEqual(
            str(self.factory.figures()),
            "2 handshakes, 3 refused (1 by 400, 1 by 403, 1 by 404); "
            "2 of a proxy that named no client",
        )

    async def test_forwarded(self) -> None:
        """Behind a proxy that is trusted a client has the address that it tells."""
        gateway = await self.open(trusted_proxies="127.0.0.0/8")

        def work(client: Stream) -> list[tuple[str, bool]]:
            return [(one.name, one.via.startswith("127.0.0.1:")) for one in self.clients(gateway)]

        headers = {"X-Forwarded-For": "6.6.6.6, 2001:db8::1"}
        found = await self.browse(work, additional_headers=headers)
        self.assertEqual(found, [("[2001:db8::1]", True)])

    async def test_refusal_is_read(self) -> None:
        """A refusal arrives although the request goes on."""
        await self.open()

        def work() -> bytes:
            with socket.create_connection(("127.0.0.1", self.port), SECONDS) as comer:
                comer.sendall(request("POST / HTTP/1.1", content_length="100000") + bytes(60_000))
                found = b""
                while data := comer.recv(65536):
                    found += data
                return found

        self.assertTrue((await deferToThread(work)).startswith(b"HTTP/1.1 405 "))

    async def test_full(self) -> None:
        """Over max-clients nobody comes in."""
        await self.open(max_clients=1)

        def work(_: Stream) -> bytes:
            try:
                with socket.create_connection(("127.0.0.1", self.port), SECONDS) as comer:
                    comer.sendall(request())
                    return comer.recv(65536)
            except ConnectionError:
                return b""

        self.assertEqual(await self.browse(work), b"")


class SecureTests(WebTestCase):
    scheme = "wss"

    async def test_wss(self) -> None:
        """An endpoint string with TLS makes it wss; a Close arrives there too."""
        made = make("127.0.0.1", ["127.0.0.1"])
        directory = scratch(self)
        certificate, key = made.save(directory), os.path.join(directory, "key.pem")
        with open(key, "wb") as file:
            file.write(made.key_pem)
        where = (
            f"ssl:0:interface=127.0.0.1:privateKey={quoteStringArgument(key)}"
            f":certKey={quoteStringArgument(certificate)}"
        )
        gateway = await self.open(client_ws_addr=where)
        await self.echo(gateway, 100_000)
        context = ssl.create_default_context(cafile=certificate)

        def work(client: Stream) -> tuple[list[str], int]:
            conn_id = client.dial(1)
            assert client.packet() == (conn_id, bytes(100_000))
            client.send(packet(conn_id, b"x" * 70_000))
            assert client.packet() == (conn_id, b"x" * 70_000)
            facts = [facts.transport for facts in self.clients(gateway)]
            try:
                client.websocket.send("text")
                client.websocket.recv(timeout=SECONDS)
            except ConnectionClosed as error:
                assert error.rcvd is not None
                return facts, error.rcvd.code
            raise AssertionError("it was not closed")

        self.assertEqual(await self.browse(work, ssl=context), (["wss"], 1003))

    async def test_options(self) -> None:
        """Of several ports each speaks what its option says, with the certificates of clients."""
        made = make("127.0.0.1", ["127.0.0.1"])
        directory = scratch(self)
        certificate, key = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
        made.write(certificate, key)
        gateway = await self.open(
            client_ws_addr="127.0.0.1:0, 127.0.0.1:0",
            client_wss_addr="127.0.0.1:0 127.0.0.1:0",
            client_tls_cert=certificate,
            client_tls_key=key,
        )
        await self.echo(gateway)
        context = ssl.create_default_context(cafile=certificate)
        context.set_alpn_protocols(["h2", "http/1.1"])

        def work(client: Stream) -> tuple[str, str]:
            conn_id = client.dial(1)
            client.send(packet(conn_id, b"hello"))
            assert client.packet() == (conn_id, b"hello")
            (facts,) = self.clients(gateway)
            chosen = getattr(client.websocket.socket, "selected_alpn_protocol", str)()
            return facts.transport, chosen

        seen = []
        for scheme, port in zip(("ws", "ws", "wss", "wss"), gateway.web_ports, strict=True):
            self.scheme, self.port = scheme, port
            more = {"ssl": context} if scheme == "wss" else {}
            seen.append(await self.browse(work, **more))
            await until("it left", lambda: not self.clients(gateway))
        self.assertEqual(seen, [("ws", "")] * 2 + [("wss", "http/1.1")] * 2)

"""What a direct port promises, over real sockets: one body of checks for both lanes.

Rule: servers are the library's and know nothing of direct ports; clients know bytes only.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import Any, cast

from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import blockingCallFromThread, deferToThread
from websockets.sync.client import connect as connect_websocket

from fastway.endpoint import EndpointConfig, GatewayConnection, Overflow, VirtualConnection
from fastway.errors import Reason
from fastway.gateway import GatewayLink, link, preface
from fastway.ops.snapshot import Source, finish
from fastway.ops.status import status_rows
from fastway.router import Side
from fastway.testing import LocalGateway
from tests.support.files import scratch
from tests.support.gateways import GatewayTestCase
from tests.support.golden import KEY
from tests.support.logs import LogLines
from tests.support.sockets import Peer
from tests.support.tls import make
from tests.support.waits import SECONDS, later, reactor, until

MB = 1_000_000

Handler = Callable[[VirtualConnection[bytes]], Coroutine[Any, Any, None]]


async def echo(conn: VirtualConnection[bytes]) -> None:
    async for message in conn:
        await conn.send(message)


def in_order(peer: Peer) -> bool:
    """Its connection ended by a FIN, and not by a reset."""
    assert peer.ended is not None
    return peer.ended.check(ConnectionDone) is not None


class DirectCase(GatewayTestCase):
    """A gateway with two direct ports, to server 1 and to server 2."""

    async def open(self, **options: Any) -> LocalGateway:
        options.setdefault("direct", "web=127.0.0.1:0->1, other=127.0.0.1:0->2")
        options.setdefault("relay", "on" if self.relay else "off")
        self.gateway_here = gateway = LocalGateway(reactor, KEY, **options)
        self.addCleanup(gateway.stop)
        await gateway.start()
        return gateway

    async def serving(
        self, handler: Handler, config: EndpointConfig | None = None, server_id: int = 1
    ) -> GatewayConnection:
        """A game server that runs a handler for each connection."""
        server = await self.server(self.gateway_here, config, server_id)
        server.serve(handler)
        return server

    async def come(self, name: str = "web") -> Peer:
        """A client of a direct port."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.gateway_here.direct_ports[name])
        peer = cast(Peer, await endpoint.connect(Factory.forProtocol(Peer)))

        async def leave() -> None:
            if peer.ended is None:
                peer.wire.abortConnection()
            await until("its end", lambda: peer.ended)

        self.addCleanup(leave)
        return peer

    async def ended(self, peer: Peer) -> None:
        """Until its connection is."""
        await until("its end", lambda: peer.ended)

    def links(self) -> list[GatewayLink]:
        """The links of clients."""
        return [one for one in self.gateway_here.service.connected if one.side is Side.CLIENT]

    def way(self) -> tuple[str, bool]:
        """What carries the only client, which has been answered: before that it may be at its
        handshakes still, and no direct link yet."""
        (link,) = self.links()
        return link.facts.transport, link.lane.native

    def lost(self, reason: Reason) -> int:
        """Clients that were lost for it."""
        return self.gateway_here.service.router.stats.lost[Side.CLIENT, reason]


class DirectChecks(DirectCase):
    """What holds on either lane."""

    async def test_echo(self) -> None:
        """Bytes there and back, on two ports to two servers, each its own stream."""

        async def shout(conn: VirtualConnection[bytes]) -> None:
            async for message in conn:
                await conn.send(message.upper())

        gateway = await self.open()
        await self.serving(echo)
        await self.serving(shout, server_id=2)
        web, other = await self.come(), await self.come("other")
        for word in (b"hello", b"a\0b", os.urandom(5000)):
            web.send(word)
            await web.expect(word)
        other.send(b"hello")
        await other.expect(b"HELLO")
        facts = {(link.facts.port, link.facts.transport) for link in self.links()}
        self.assertEqual(facts, {("web", "direct+tcp"), ("other", "direct+tcp")})
        self.assertEqual({link.lane.native for link in self.links()}, {self.relay})
        self.assertEqual(len(gateway.service.router.conn_ids), 2)

    async def test_server_speaks_first(self) -> None:
        """A server hears of the connection before its first byte."""

        async def greet(conn: VirtualConnection[bytes]) -> None:
            await conn.send(b"220 ready\r\n")
            await echo(conn)

        await self.open()
        await self.serving(greet)
        peer = await self.come()
        await peer.expect(b"220 ready\r\n")

    async def test_much_to_a_slow_server(self) -> None:
        """10 MB to a server that is slow to read arrive as they were, and its end behind them."""
        sums = sha256()
        ended: list[int] = []
        slow = [20]

        async def take(conn: VirtualConnection[bytes]) -> None:
            size = 0
            async for message in conn:
                sums.update(message)
                size += len(message)
                if slow[0] and size > (21 - slow[0]) * 200_000:
                    slow[0] -= 1
                    await later(0.02)
            ended.append(size)

        await self.open(client_buffer_size="16K")
        await self.serving(take, EndpointConfig(overflow=Overflow.PAUSE))
        peer = await self.come()
        data = os.urandom(10 * MB)
        peer.send(data)
        peer.wire.loseConnection()
        await until("the end", lambda: ended, SECONDS)
        self.assertEqual(ended, [len(data)])
        self.assertEqual(sums.digest(), sha256(data).digest())
        self.assertEqual(slow, [0])

    async def test_much_to_a_slow_client(self) -> None:
        """10 MB to a client that is slow to read arrive as they were, and a FIN behind them,
        however long that lasts."""
        for module in ("link", "direct"):
            self.patch(sys.modules[f"fastway.gateway.{module}"], "LINGER", 0.3)
        data = os.urandom(10 * MB)

        async def give(conn: VirtualConnection[bytes]) -> None:
            for at in range(0, len(data), 50_000):
                await conn.send(data[at : at + 50_000])

        await self.open()
        await self.serving(give)
        peer = await self.come()
        # So that the kernel does not have it all.
        peer.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        waiting = 0
        peer.wire.pauseProducing()
        await until("the server's Close", lambda: self.lost(Reason.SERVER_CLOSED), SECONDS)
        while peer.ended is None and peer.total < len(data):
            peer.wire.resumeProducing()
            await later(0.001)
            peer.wire.pauseProducing()
            await later(0.08)
            waiting = max(waiting, *(link.counts().waiting_bytes for link in self.links()), 0)
        peer.wire.resumeProducing()
        await until("the end", lambda: peer.ended, SECONDS)
        self.assertEqual(sha256(peer.received).digest(), sha256(data).digest())
        self.assertLess(waiting, 64 * 2**20)

    async def test_both_ways_at_once(self) -> None:
        """3 MB each way at the same time, through an echo."""
        await self.open()
        await self.serving(echo, EndpointConfig(overflow=Overflow.PAUSE))
        peer = await self.come()
        data = os.urandom(3 * MB)
        peer.send(data)
        await until("all", lambda: peer.total == len(data), SECONDS)
        self.assertEqual(bytes(peer.received), data)

    async def test_client_ends(self) -> None:
        """The client's FIN closes the connection behind all that it said."""
        heard: list[bytes] = []

        async def hear(conn: VirtualConnection[bytes]) -> None:
            async for message in conn:
                heard.append(message)
            heard.append(b"END")

        gateway = await self.open()
        await self.serving(hear)
        peer = await self.come()
        peer.send(b"one " * 20_000)
        peer.wire.loseWriteConnection()
        await until("the end", lambda: heard and heard[-1] == b"END")
        self.assertEqual(b"".join(heard[:-1]), b"one " * 20_000)
        await peer.expect_end()
        await self.idle(gateway)
        self.assertEqual(self.lost(Reason.PEER_CLOSED), 1)

    async def test_server_ends(self) -> None:
        """The server's Close is a FIN behind all that it said."""

        async def leave(conn: VirtualConnection[bytes]) -> None:
            await conn.send(b"bye " * 20_000)

        gateway = await self.open()
        await self.serving(leave)
        peer = await self.come()
        await peer.expect(b"bye " * 20_000)
        await peer.expect_end()
        self.assertTrue(in_order(peer))
        await self.idle(gateway)
        await until("the link to be gone", lambda: not self.links())

    async def test_reset(self) -> None:
        """A client that breaks off closes the connection."""
        ended: list[bool] = []

        async def hear(conn: VirtualConnection[bytes]) -> None:
            async for _ in conn:
                pass
            ended.append(True)

        await self.open()
        await self.serving(hear)
        peer = await self.come()
        peer.send(b"x")
        await until("it", lambda: self.gateway_here.service.router.stats.packets)
        peer.wire.abortConnection()
        await until("the end", lambda: ended)
        self.assertEqual(self.lost(Reason.CONNECTION_LOST), 1)

    async def test_server_vanishes(self) -> None:
        """A lost server's connections are reset: what it did not finish is no end in order."""
        await self.open()
        server = await self.serving(echo)
        await self.serving(echo, server_id=2)
        peer, beside = await self.come(), await self.come("other")
        peer.send(b"x")
        await peer.expect(b"x")
        server.close()
        await until("the end", lambda: peer.ended)
        self.assertFalse(in_order(peer))
        self.assertEqual(self.lost(Reason.SERVER_LOST), 1)
        beside.send(b"still")
        await beside.expect(b"still")

    async def test_no_server(self) -> None:
        """Who comes while its server is not there is reset; once it is there, all is well."""
        with LogLines() as log:
            await self.open()
            for _ in range(20):
                peer = await self.come()
                await self.ended(peer)
                self.assertFalse(in_order(peer))
        told = [line for line in log.lines if "could not be dialled" in line]
        self.assertLessEqual(len(told), 3)
        self.assertIn(" of web lost: its game server could not be dialled: server 1 ", told[0])
        self.assertEqual(self.lost(Reason.NO_SERVER), 20)
        await self.serving(echo)
        peer = await self.come()
        peer.send(b"now")
        await peer.expect(b"now")

    async def test_crowd(self) -> None:
        """500 connections, each with its own echo."""
        await self.open()
        await self.serving(echo)
        port = self.gateway_here.direct_ports["web"]

        def work() -> int:
            socks = [socket.create_connection(("127.0.0.1", port), SECONDS) for _ in range(500)]
            for number, sock in enumerate(socks):
                sock.sendall(b"%06d" % number)
            good = sum(sock.recv(6) == b"%06d" % number for number, sock in enumerate(socks))
            for sock in socks:
                sock.close()
            return good

        self.assertEqual(await deferToThread(work), 500)
        await until("all to be gone", lambda: not self.links(), SECONDS)
        await self.idle(self.gateway_here)
        counts = self.gateway_here.service.waiting()
        self.assertEqual((counts.packets, counts.bytes, counts.input, counts.held), (0, 0, 0, 0))

    async def test_slow_reader(self) -> None:
        """More than may wait for one costs it, and nobody else."""

        async def flood(conn: VirtualConnection[bytes]) -> None:
            first = await conn.receive()
            if first == b"more":
                while conn.ended is None:
                    await conn.send(bytes(100_000))
            await conn.send(first)
            await echo(conn)

        await self.open(direct_send_buffer="1M")
        await self.serving(flood)
        slow, well = await self.come(), await self.come()
        slow.wire.pauseProducing()
        slow.send(b"more")
        await until("its loss", lambda: self.lost(Reason.SLOW_READER), SECONDS)
        well.send(b"well")
        await well.expect(b"well")

    async def test_limits(self) -> None:
        """The bounds of clients are its bounds."""
        await self.open(max_clients=2)
        await self.serving(echo)
        one, _, three = await self.come(), await self.come(), await self.come()
        await until("to be turned away", lambda: three.ended)
        one.send(b"in")
        await one.expect(b"in")

    async def test_idle(self) -> None:
        """Who says nothing and takes nothing is lost."""
        await self.open(client_idle_timeout="500ms")
        await self.serving(echo)
        peer = await self.come()
        await self.ended(peer)
        self.assertEqual(self.lost(Reason.IDLE_TIMEOUT), 1)

    async def test_a_protocol(self) -> None:
        """A Twisted protocol on the server, which knows of nothing, by endpoint string."""

        class Lines(Protocol):
            def dataReceived(self, data: bytes) -> None:
                wire = cast(Any, self.transport)
                wire.write(b"you said " + data)
                if data == b"quit":
                    wire.loseConnection()

        gateway = await self.open()
        where = gateway.server_string.replace(":", "\\:")
        key = KEY.decode()
        listening = serverFromString(reactor, f"fastway:{where}:id=1:key={key}")
        port = await listening.listen(Factory.forProtocol(Lines))
        self.addCleanup(port.stopListening)
        await until("the server", lambda: gateway.service.router.servers)
        peer = await self.come()
        peer.send(b"quit")
        await peer.expect(b"you said quit")
        await peer.expect_end()

    async def test_checks_of_a_proxy(self) -> None:
        """One that only connects reaches no server; one that asks has its answer, whatever the
        port speaks."""
        directory = scratch(self)
        made = make("localhost", ["127.0.0.1"])
        cert, key = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
        made.write(cert, key)
        trusted = ssl.create_default_context(cafile=made.save(os.path.join(directory, "trusted")))
        gateway = await self.open(
            direct="web=127.0.0.1:0->1, tls=tls+127.0.0.1:0->1",
            client_tls_cert=cert,
            client_tls_key=key,
            client_proxy_from="127.0.0.1",
        )
        await self.serving(echo)
        check = b"PROXY UNKNOWN\r\n"
        for word in (b"", b"hello"):
            peer = await self.come()
            peer.send(check)
            await until("it", lambda: [one for one in self.links() if one.facts.probe])
            if word:
                peer.send(word)
                await peer.expect(word)
            peer.wire.loseConnection()
            await until("all to be gone", lambda: not self.links())

        def over_tls() -> bytes:
            where = ("127.0.0.1", gateway.direct_ports["tls"])
            with socket.create_connection(where, SECONDS) as plain:
                plain.sendall(check)
                with trusted.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
                    sock.sendall(b"hello")
                    return sock.recv(5)

        self.assertEqual(await deferToThread(over_tls), b"hello")
        self.assertEqual(gateway.service.router.stats.dials, 2)

    async def test_tls(self) -> None:
        """Inside TLS, and in a WebSocket inside it, what is inside is the stream."""
        for module in (link, preface):  # a thread of a loaded machine may need more than that
            self.patch(module, "TIMEOUT", SECONDS)
        directory = scratch(self)
        made = make("localhost", ["127.0.0.1"])
        cert, key = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
        made.write(cert, key)
        trusted = ssl.create_default_context(cafile=made.save(os.path.join(directory, "trusted")))
        ports = ("tls", "ws", "wss")
        await self.open(
            direct=",".join(f"{name}={name}+127.0.0.1:0->1" for name in ports),
            client_tls_cert=cert,
            client_tls_key=key,
            client_ws_origins="*",
        )
        await self.serving(echo)
        rows = status_rows(finish(Source(self.gateway_here.service).snapshot()))
        self.assertTrue(any(row.startswith("direct wss port: 127.0.0.1:") for row in rows))
        self.assertIn("ws of direct wss: 0 handshakes, 0 refused", rows)
        data = os.urandom(100_000)
        numbers = self.gateway_here.direct_ports

        def over_tls() -> bytes:
            with (
                socket.create_connection(("127.0.0.1", numbers["tls"]), SECONDS) as plain,
                trusted.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
            ):
                sock.sendall(data)
                came = b""
                while len(came) < len(data) and (piece := sock.recv(65536)):
                    came += piece
                carried.append(blockingCallFromThread(reactor, self.way))
                return came

        def over_websocket(scheme: str) -> bytes:
            more: dict[str, Any] = {"ssl": trusted} if scheme == "wss" else {}
            where = f"{scheme}://127.0.0.1:{numbers[scheme]}/"
            with connect_websocket(where, proxy=None, max_size=None, **more) as websocket:
                websocket.send(data)
                came = b""
                while len(came) < len(data):
                    piece = websocket.recv(timeout=SECONDS)
                    assert isinstance(piece, bytes)
                    came += piece
                carried.append(blockingCallFromThread(reactor, self.way))
                return came

        carried: list[tuple[str, bool]] = []
        self.assertEqual(await deferToThread(over_tls), data)
        await until("all to be gone", lambda: not self.links())
        for scheme in ("ws", "wss"):
            self.assertEqual(await deferToThread(over_websocket, scheme), data)
            await until("all to be gone", lambda: not self.links())
        names = ("direct+tls", "direct+ws", "direct+wss")
        self.assertEqual(carried, [(name, self.relay) for name in names])

    async def test_whole_messages(self) -> None:
        """By WebSocket each message of the server comes within one, however long it is, and
        however many wait for a client that is slow."""
        sizes = [10, 16_381, 70_000, *[5000] * 60]

        async def tell(conn: VirtualConnection[bytes]) -> None:
            async for _ in conn:
                for number, size in enumerate(sizes):
                    conn.tell(size.to_bytes(4, "big") + bytes([number]) * size)

        await self.open(direct="ws=ws+127.0.0.1:0->1", client_ws_origins="*")
        await self.serving(tell)
        where = f"ws://127.0.0.1:{self.gateway_here.direct_ports['ws']}/"

        def hear() -> list[int]:
            """The sizes of what comes; a message of the WebSocket holds several, each whole."""
            told: list[int] = []
            with connect_websocket(where, proxy=None, max_size=None) as websocket:
                websocket.send(b"go")
                while len(told) < len(sizes):
                    piece = websocket.recv(timeout=SECONDS)
                    assert isinstance(piece, bytes)
                    while piece:
                        size = int.from_bytes(piece[:4], "big")
                        assert len(piece) >= 4 + size, (len(piece), size)
                        told.append(size)
                        piece = piece[4 + size :]
            return told

        self.assertEqual(await deferToThread(hear), sizes)

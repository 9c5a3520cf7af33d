"""Proxies in front of a whole gateway, over sockets: every port, on both paths.

Rule: the proxy is a socket that says a header and is then the client; real ones are for hands.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from websockets.sync.client import connect

from fastway.cli.gateway import describe
from fastway.endpoint import connect_client, connect_server
from fastway.errors import ConfigError, Reason
from fastway.ops.snapshot import Source
from fastway.ops.status import link_row
from fastway.router import Side
from fastway.service import GatewayService
from fastway.snet.transport import SnetClientEndpoint
from tests.support.errors import raised
from tests.support.golden import PING, dial, packet, prove
from tests.support.logs import LogLines
from tests.support.options import LOOPBACK, settings
from tests.support.paths import on_both_paths
from tests.support.proxied import FROM, Headed, ProxiedTestCase
from tests.support.proxy import (
    ADDRESSES,
    BLOCK,
    CHECK,
    CHECK_LINE,
    CLIENT,
    LINE,
    block,
    line,
    tls,
    value,
    with_sum,
)
from tests.support.service import ServiceTestCase
from tests.support.sockets import Peer
from tests.support.tls import make
from tests.support.waits import SECONDS, reactor, until

T = TypeVar("T")


@on_both_paths
class PortTests(ProxiedTestCase):
    """Client and server ports without more."""

    async def test_client(self) -> None:
        """A client has the address that its proxy tells, and its packets the path they had."""
        with LogLines() as log:
            service = self.begin(FROM)
        (listens,) = (text for text in log.lines if text.startswith("client port listens"))
        self.assertTrue(listens.endswith(", with proxy"), listens)
        for count, header in enumerate((LINE, BLOCK, with_sum(ADDRESSES + tls())), 1):
            peer = await self.come(service)
            peer.send(header + PING)
            await peer.expect(PING)
            link = self.link(service)
            self.assertIs(link.lane.native, self.relay)
            self.assertEqual((link.facts.name, link.facts.transport), (CLIENT, "tcp"))
            self.assertEqual(link.facts.via, f"127.0.0.1:{peer.wire.getHost().port}")
            row = Source(service.router_service).row(link)
            assert row is not None
            self.assertIn(f"over tcp via {link.facts.via}", link_row(row))
            self.assertEqual(
                self.rows(service),
                [f"proxy of clients: {count} clients, 0 checks of the proxies' own"],
            )
            peer.wire.loseConnection()
            await self.gone(service)

    async def test_drip(self) -> None:
        """Byte by byte."""
        service = self.begin(FROM)
        for header in (LINE, with_sum(ADDRESSES)):
            peer = await self.come(service)
            for place in range(len(header)):
                peer.send(header[place : place + 1])
                await until("it", lambda: self.links(service))
                peer.link = link = self.link(service)
                await peer.was_read()
            await peer.expect_alive()
            self.assertEqual(link.facts.name, CLIENT)
            peer.wire.loseConnection()
            await self.gone(service)

    async def test_forward(self) -> None:
        """Packets go both ways; both ends are behind a proxy."""
        service = self.begin(FROM, "--server-proxy-from=127.0.0.0/8", "--server-auth-key=x")
        server = await self.come(service, "server")
        server.send(block(ADDRESSES + value(2, b"lobby.example")))
        server.send(prove(await server.read(8), 7, b"x"))
        client = await self.come(service)
        client.send(LINE + dial(7))
        conn_id = int.from_bytes((await client.read(17))[9:13], "little")
        await server.read(17)
        client.send(packet(conn_id, b"up") * 100)
        await server.expect(packet(conn_id, b"up") * 100)
        server.send(packet(conn_id, bytes(100_000)))
        await client.expect(packet(conn_id, bytes(100_000)))
        (link,) = self.links(service, Side.SERVER)
        self.assertEqual((link.facts.name, link.facts.sni), (CLIENT, "lobby.example"))
        if self.relay:
            self.assertEqual(cast(Any, service.router_service.native).totals().pairs, 1)

    async def test_untrusted(self) -> None:
        """Who comes from elsewhere is refused, whatever it says; others do not notice."""
        service = self.begin(FROM)
        known = await self.come(service)
        known.send(LINE)
        await known.expect_alive()
        with LogLines() as log:
            for _ in range(20):
                liar = await self.come(service, source="127.0.0.66")
                liar.send(LINE + PING)
                await liar.expect_end()
        stats = service.router_service.router.stats
        self.assertEqual(stats.turned_away, {Reason.PROXY_UNTRUSTED: 20})
        self.assertEqual(len(log.lines), 1)
        self.assertIn("client ? 127.0.0.66:", log.lines[0])
        self.assertIn("turned away: --client-proxy-from does not name it", log.lines[0])
        await known.expect_alive()

    async def test_direct(self) -> None:
        """Others may come direct; a header of theirs is a broken packet."""
        service = self.begin(FROM, "--client-proxy-others=direct")
        direct = await self.come(service, source="127.0.0.66")
        await direct.expect_alive()
        self.assertTrue(self.link(service).facts.name.startswith("127.0.0.66:"))
        liar = await self.come(service, source="127.0.0.66")
        liar.send(LINE)
        await liar.expect_end()
        self.assertEqual(
            service.router_service.router.stats.lost[Side.CLIENT, Reason.FRAME_TOO_LARGE], 1
        )
        listed = await self.come(service)
        listed.send(PING)
        await listed.expect_end()
        await direct.expect_alive()

    async def test_bad(self) -> None:
        """What is no header is reset, with one line a kind."""
        service = self.begin(FROM)
        with LogLines() as log:
            for sent in (PING, b"PROXY TCP4 1 2 3 4\r\n", block(ADDRESSES + b"\1")):
                peer = await self.come(service)
                peer.send(sent)
                await peer.expect_end()
                await self.gone(service)
        codes = [event["reason_code"] for event in log.events]
        self.assertEqual(codes, ["proxy_not_header", "proxy_bad_header"])

    async def test_late(self) -> None:
        """Half a header is lost when its time has come."""
        service = self.begin(FROM)
        peer = await self.come(service)
        peer.send(LINE[:20])
        await until("its bytes", lambda: self.links(service) and self.link(service).counts()[1])
        with LogLines() as log:
            self.link(service).check(0.0)  # as the wheel does
        await peer.expect_end()
        self.assertEqual(log.events[0]["reason_code"], "proxy_timeout")

    async def test_truncated(self) -> None:
        """A proxy that goes in the middle."""
        service = self.begin(FROM)
        with LogLines() as log:
            peer = await self.come(service)
            peer.send(BLOCK[:20])
            peer.wire.loseConnection()
            await until("its line", lambda: log.lines)
        self.assertEqual(log.events[0]["reason_code"], "proxy_truncated")

    async def test_checks(self) -> None:
        """Health checks, however they are and however they go, leave no line."""
        service = self.begin(FROM)
        with LogLines() as log:
            for number, sent in enumerate((CHECK, CHECK_LINE, b"", CHECK, CHECK_LINE)):
                peer = await self.come(service)
                if sent:
                    peer.send(sent)
                    await until("it", lambda: [one for one in self.links(service) if one.known])
                if number < 3:
                    peer.wire.loseConnection()
                else:
                    peer.wire.abortConnection()
                await until("its end", partial(self.ended, service, number + 1))
            service.router_service.quiet.flush()
        self.assertEqual(log.lines, [])
        self.assertEqual(
            self.rows(service), ["proxy of clients: 0 clients, 4 checks of the proxies' own"]
        )

    async def test_unix(self) -> None:
        """A proxy by a unix socket."""
        path = os.path.join(self.directory, "gate.sock")
        service = self.begin(f"--client-addr=unix:{path}", "--client-proxy-from=unix")

        def talk() -> bytes:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(SECONDS)
                peer.connect(path)
                peer.sendall(LINE + PING)
                answer = peer.recv(len(PING), socket.MSG_WAITALL)
                told.append(self.link(service).facts.name)
                return answer

        told: list[str] = []
        self.assertEqual(await deferToThread(talk), PING)
        self.assertEqual(told, [CLIENT])


@on_both_paths
class LayerTests(ProxiedTestCase):
    """What else a port speaks comes behind the header."""

    async def in_thread(self, service: GatewayService, work: Callable[[socket.socket], T]) -> T:
        """What `work` returns, with a socket of a thread."""

        def run() -> T:
            where = ("127.0.0.1", self.port(service))
            with socket.create_connection(where, SECONDS) as sock:
                return work(sock)

        return cast(T, await deferToThread(run))

    def certificate(self) -> list[str]:
        """Options that make the client port speak TLS, and ask for a certificate."""
        self.ca = make("authority")
        made = make("localhost", ["localhost"], signer=self.ca)
        path = os.path.join(self.directory, "own")
        made.write(f"{path}.pem", f"{path}.key")
        self.ca.save(self.directory, "ca.pem")
        return [
            f"--client-tls-cert={path}.pem",
            f"--client-tls-key={path}.key",
            f"--client-tls-client-ca={self.directory}/ca.pem",
            "--client-tls-client-auth=optional",
        ]

    def context(self, name: str = "") -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca.pem.decode())
        if name:
            path = os.path.join(self.directory, f"{name}.pem")
            make(name, signer=self.ca).write(path)
            context.load_cert_chain(path)
        return context

    async def test_tls(self) -> None:
        """TLS begins behind the header; its own facts count, and the address is the proxy's."""
        service = self.begin(FROM, *self.certificate())
        context = self.context("player")

        def work(sock: socket.socket) -> bytes:
            header = block(ADDRESSES + value(2, b"told.example"))
            for place in range(len(header)):
                sock.sendall(header[place : place + 1])
            with context.wrap_socket(sock, server_hostname="localhost") as inside:
                inside.sendall(PING)
                answer = inside.recv(len(PING))
                facts.append(self.link(service).facts)
                native.append(self.link(service).lane.native)
                return answer

        facts: list[Any] = []
        native: list[bool] = []
        self.assertEqual(await self.in_thread(service, work), PING)
        self.assertEqual(native, [self.relay])
        self.assertEqual((facts[0].name, facts[0].transport), (CLIENT, "tls"))
        self.assertEqual((facts[0].sni, facts[0].identity), ("localhost", "player"))
        self.assertTrue(facts[0].via.startswith("127.0.0.1:"))

    async def test_tls_in_one_piece(self) -> None:
        """The first bytes of TLS may come with the header."""
        service = self.begin(FROM, *self.certificate())
        context = self.context()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        inside = context.wrap_bio(incoming, outgoing, server_hostname="localhost")

        def work(sock: socket.socket) -> str | None:
            begin = LINE
            while True:
                try:
                    inside.do_handshake()
                    return inside.version()
                except ssl.SSLWantReadError:
                    sock.sendall(begin + outgoing.read())
                    begin = b""
                    incoming.write(sock.recv(65536))

        self.assertEqual(await self.in_thread(service, work), "TLSv1.3")

    async def test_tls_without(self) -> None:
        """TLS without a header is none, from who is listed."""
        service = self.begin(FROM, "--client-proxy-others=direct", *self.certificate())
        context = self.context()

        def work(sock: socket.socket) -> str:
            try:
                context.wrap_socket(sock, server_hostname="localhost").close()
            except OSError:
                return "refused"
            return "in"

        with LogLines() as log:
            self.assertEqual(await self.in_thread(service, work), "refused")
        self.assertEqual(log.events[0]["reason_code"], "proxy_not_header")

    async def test_tls_direct(self) -> None:
        """Others speak TLS at once, where they may come."""
        others = "--client-proxy-others=direct"
        service = self.begin("--client-proxy-from=10.0.0.0/8", others, *self.certificate())
        context = self.context()

        def work(sock: socket.socket) -> bytes:
            with context.wrap_socket(sock, server_hostname="localhost") as inside:
                inside.sendall(PING)
                return inside.recv(len(PING))

        self.assertEqual(await self.in_thread(service, work), PING)

    async def test_checks(self) -> None:
        """Health checks of a port with TLS, or with WebSocket, leave no line either."""
        options = self.certificate(), ["--client-ws-addr=127.0.0.1:0"]
        for more, name in zip(options, ("client", "web client"), strict=True):
            service = self.begin(FROM, *more)
            with LogLines() as log:
                for number, sent in enumerate((CHECK, CHECK_LINE, b"")):
                    peer = await self.come(service, name)
                    if sent:
                        peer.send(sent)
                    peer.wire.loseConnection()
                    await until("its end", partial(self.ended, service, number + 1))
                service.router_service.quiet.flush()
            self.assertEqual(log.lines, [])
            await service.stopService()

    async def test_snet_checks(self) -> None:
        """Of a port with snet neither; who breaks off is told of."""
        service = self.begin(FROM, "--client-snet-enable")
        (layer,) = (
            one for one in service.router_service.ports[0].wrapped if hasattr(one, "streams")
        )
        refused: Counter[Any] = layer.stats.refused
        lines = []
        for number, sent in enumerate((CHECK, CHECK_LINE, LINE), 1):
            with LogLines() as log:
                peer = await self.come(service)
                peer.send(sent)
                peer.wire.loseConnection()
                await until("its end", partial(self.counts, refused, number))
            lines.append(log.lines)
        told = f"snet handshake of {CLIENT} failed: closed in the middle of its handshake"
        self.assertEqual(lines, [[], [], [told]])

    async def test_stop(self) -> None:
        """A gateway that stops leaves no header under way."""
        service = self.begin(FROM, *self.certificate())
        peer = await self.come(service)
        port = cast(Any, service.router_service.ports[0])
        waiting = port.factory.handshakes if self.relay else port.outermost.waiting
        await until("its header", lambda: waiting)
        await service.stopService()
        await peer.expect_end()
        self.assertEqual(len(waiting), 0)

    async def test_websocket(self) -> None:
        """WebSocket behind the header, of a client that did not write this."""
        service = self.begin(FROM, "--client-ws-addr=127.0.0.1:0")
        port = self.port(service, "web client")

        def work() -> tuple[bytes, str, str]:
            sock = socket.create_connection(("127.0.0.1", port), SECONDS)
            sock.sendall(line("2001:db8::5", "2001:db8::1"))
            with connect("ws://game.example/", sock=sock, subprotocols=["fastway"]) as client:  # type: ignore[list-item]
                client.send(PING)
                answer = client.recv(timeout=SECONDS)
                facts = self.link(service).facts
                assert isinstance(answer, bytes)
                return answer, facts.name, facts.transport

        answer, name, transport = await deferToThread(work)
        self.assertEqual((answer, name, transport), (PING, "[2001:db8::5]:5555", "ws"))
        self.assertEqual(
            self.rows(service),
            [
                "proxy of clients: 0 clients, 0 checks of the proxies' own",
                "proxy of web clients: 1 clients, 0 checks of the proxies' own",
            ],
        )

    async def test_wss(self) -> None:
        """All three, one inside the other: the header, TLS, WebSocket."""
        service = self.begin(FROM, "--client-wss-addr=127.0.0.1:0", *self.certificate())
        port = self.port(service, "web client")
        context = self.context("player")

        def work() -> tuple[bytes | str, Any, bool]:
            sock = socket.create_connection(("127.0.0.1", port), SECONDS)
            sock.sendall(LINE)
            with connect(
                "wss://localhost/",
                sock=sock,
                ssl=context,
                server_hostname="localhost",
                subprotocols=["fastway"],  # type: ignore[list-item]
            ) as client:
                client.send(PING)
                answer = client.recv(timeout=SECONDS)
                link = self.link(service)
                return answer, link.facts, link.lane.native

        with LogLines() as log:
            try:
                answer, facts, native = await deferToThread(work)
            except Exception as error:
                raise AssertionError(f"{error!r}; the gateway said: {log.lines}") from error
        self.assertEqual((answer, native), (PING, self.relay))
        self.assertEqual((facts.name, facts.transport), (CLIENT, "wss"))
        self.assertEqual((facts.tls, facts.identity), ("TLSv1.3", "player"))
        self.assertTrue(facts.via.startswith("127.0.0.1:"))

    async def test_snet(self) -> None:
        """snet behind the header; a stream that comes back has the address that it came from."""
        service = self.begin(FROM, "--client-snet-enable", "--server-auth-key=x")
        server = await connect_server(
            TCP4ClientEndpoint(reactor, "127.0.0.1", self.port(service, "server")),
            server_id=1,
            key=b"x",
        )
        headed = Headed(self.port(service), LINE)
        client = await connect_client(SnetClientEndpoint(headed, reactor))
        try:
            await until("its link", lambda: self.links(service))
            link = self.link(service)
            self.assertEqual((link.facts.name, link.facts.transport), (CLIENT, "snet+tcp"))
            headed.header = line("198.51.100.9", "192.0.2.1")
            headed.made[-1].abortConnection()
            await until("its return", lambda: link.facts.name == "198.51.100.9:5555")
            self.assertTrue(link.facts.via.startswith("127.0.0.1:"))
            self.assertIsNone(link.lost)
        finally:
            for end in (client, server):
                end.close()
            await until("their ends", lambda: client.link.gone and server.link.gone)


class OptionTests(ProxiedTestCase):
    """What operators can get wrong."""

    def test_addresses(self) -> None:
        """An address with something in it that would come before the header is refused."""
        for address, side, mend in (
            ("ssl:0:privateKey=x", "client", "give host:port, and --client-tls-cert"),
            ("tls:0:path", "client", "give host:port, and --client-tls-cert"),
            ("snet:tcp\\:0", "client", "give host:port, and --client-snet-enable"),
            ("haproxy:tcp:0", "server", "give what is behind it"),
        ):
            told = settings(
                *LOOPBACK,
                f"--run-dir={self.directory}",
                f"--{side}-addr={address}",
                f"--{side}-proxy-from=10.0.0.0/8",
            )
            error = raised(ConfigError, GatewayService, told, reactor)
            self.assertEqual(error.option, f"--{side}-addr")
            kind = address.partition(":")[0]
            wanted = f"{kind}: does not go with --{side}-proxy-from; {mend}"
            self.assertEqual(error.problem, wanted)

    def test_native(self) -> None:
        """A header keeps nobody from the native path; what does is named."""
        self.make("--relay=off", FROM)
        self.make("--relay=auto", FROM, "--server-proxy-from=::1")
        told = settings(*LOOPBACK, "--relay=on", FROM, "--client-snet-enable")
        error = raised(ConfigError, GatewayService, told, reactor)
        self.assertIn("--client-snet-enable makes the client port speak snet", error.problem)

    def test_check(self) -> None:
        """`fastway check` tells of them."""
        others = "--client-proxy-others=direct"
        rows = describe(self.make(FROM, others, "--server-proxy-from=unix"))
        told = [text for name, text in rows if "PROXY" in text]
        self.assertEqual(
            told,
            [
                "they come by 127.0.0.1/32, with a PROXY header; others come direct",
                "they come by unix, with a PROXY header; others may not",
            ],
        )


class HaproxyStringTests(ServiceTestCase):
    async def test_address(self) -> None:
        """Over a `haproxy:` endpoint string, Twisted's, a client has its address too."""
        service = self.start("--client-addr", "haproxy:tcp:0:interface=127.0.0.1")
        port: Any = service.ports["client"]
        gateway = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        with LogLines() as log:
            peer: Any = await gateway.connect(Factory.forProtocol(Peer))
            peer.send(LINE + PING)
            await peer.expect(PING)
            peer.wire.loseConnection()
            await until("its loss", lambda: any(" lost: " in line for line in log.lines))
        (lost,) = [line for line in log.lines if " lost: " in line]
        self.assertIn(f" {CLIENT} lost: closed by the peer", lost)

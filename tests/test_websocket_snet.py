"""Ports of the gateway that speak snet inside WebSocket: the layer on a clock, then the library's
two faces against it over sockets."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, clientFromString, quoteStringArgument
from twisted.internet.error import ConnectionLost
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from fastway import aio
from fastway.config.values import parse_networks
from fastway.endpoint import connect_client, connect_server
from fastway.errors import (
    ConfigError,
    EndpointEnded,
    GatewayUnreachable,
    Reason,
    WebSocketRefused,
)
from fastway.gateway import PortConfig, WebSocketConfig
from fastway.gateway.limits import LimitValues
from fastway.gateway.preface import TIMEOUT
from fastway.gateway.weblayer import WebLayer
from fastway.ops.snapshot import Source, finish
from fastway.service import GatewayService
from fastway.snet import SnetClientEndpoint, SnetConfig
from fastway.snet.session import Fault
from fastway.testing import LocalGateway, MemoryGateway
from fastway.websocket import Policy, WebSocket
from fastway.websocket.dial import WebSocketClientEndpoint
from fastway.websocket.stream import LINGER
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import failure_of, raised
from tests.support.files import scratch
from tests.support.gateways import GatewayTestCase
from tests.support.golden import KEY, PING, accept, dial, packet
from tests.support.logs import LogLines
from tests.support.options import LOOPBACK, settings
from tests.support.snet_golden import Script
from tests.support.snet_sockets import Proxy
from tests.support.tls import make
from tests.support.waits import SECONDS, reactor, until
from tests.support.web_snet import SnetInside
from tests.support.websocket import BROWSER, closing, frame, request


class InTests(SynchronousTestCase):
    """Who comes in."""

    def test_stream(self) -> None:
        """A request, a stream inside, and packets on it; the link knows what it came over."""
        harness = SnetInside()
        script, end = harness.stream()
        end.send(frame(script.send(PING)))
        self.assertEqual(script.take(end.messages()), PING)
        facts = harness.only.facts
        self.assertEqual((facts.name, facts.transport), ("192.0.2.1:50001", "snet+ws+other"))
        self.assertEqual(str(harness.layer.figures()), "1 handshakes, 0 refused")
        self.assertEqual(len(harness.layer.waiting), 0)

    def test_byte_by_byte(self) -> None:
        """However the bytes are cut."""
        harness = SnetInside()
        end, script = harness.comer(), Script()
        end.drip(request(headers=BROWSER))
        self.assertTrue(end.take().startswith(b"HTTP/1.1 101 "))
        end.drip(frame(script.hello()))
        end.drip(frame(script.accept(end.messages())))
        end.drip(frame(script.send(PING * 2)))
        self.assertEqual(script.take(end.messages()), PING * 2)

    def test_forwarded(self) -> None:
        """A trusted proxy says who it is, also when the stream comes back; nobody else does."""
        trusted = WebSocketConfig(proxies=parse_networks("192.0.2.0/24"))
        harness = SnetInside(websocket=trusted)
        script, end = harness.stream(x_forwarded_for="6.6.6.6, 203.0.113.9")
        link = harness.only
        self.assertEqual((link.facts.name, link.facts.via), ("203.0.113.9", "192.0.2.1:50001"))
        end.send(frame(script.send(PING)))
        self.assertEqual(link.facts.name, "203.0.113.9")
        end.gone(ConnectionLost())
        harness.back(script, x_forwarded_for="198.51.100.7")
        self.assertEqual((link.facts.name, link.facts.via), ("198.51.100.7", "192.0.2.1:50002"))
        self.assertIs(harness.only, link)
        harness = SnetInside()
        harness.stream(x_forwarded_for="203.0.113.9")
        self.assertEqual(
            (harness.only.facts.name, harness.only.facts.via), ("192.0.2.1:50001", "")
        )

    def test_limited(self) -> None:
        """Whom a trusted proxy names is limited, before a WebSocket is made, and counts as long
        as the connection is there; the proxy is not."""
        proxies = parse_networks("192.0.2.0/24")
        harness = SnetInside(websocket=WebSocketConfig(proxies=proxies))
        harness.clients.door.tellers = proxies
        gate = harness.service.gate
        gate.values = LimitValues(connections=3, address_connections=2)
        first, _ = harness.web(x_forwarded_for="6.6.6.6"), harness.web(x_forwarded_for="6.6.6.6")
        third = harness.comer()
        with LogLines() as logged:
            third.send(request(headers=BROWSER, x_forwarded_for="6.6.6.6"))
        answer = third.take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 429 "), answer)
        self.assertIn(b"Retry-After", answer)
        (line,) = logged.lines
        self.assertIn(f"client ? 6.6.6.6 lost: {Reason.ADDRESS_CONNECTIONS.value} (after", line)
        harness.web(x_forwarded_for="7.7.7.7")
        fourth = harness.comer()
        fourth.send(request(headers=BROWSER, x_forwarded_for="8.8.8.8"))
        self.assertTrue(fourth.take().startswith(b"HTTP/1.1 503 "))
        self.assertEqual(gate.figures().connections, 3)
        self.assertEqual((harness.layer.accepted, harness.layer.refused), (3, {429: 1, 503: 1}))
        for end in (first, third, fourth):
            end.gone()
        self.assertEqual(gate.figures().connections, 2)
        harness.stream(x_forwarded_for="6.6.6.6")
        self.assertEqual(gate.figures().connections, 3)
        self.assertEqual(harness.only.facts.name, "6.6.6.6")


class RefusedTests(SynchronousTestCase):
    """Who does not."""

    def test_policy(self) -> None:
        """Path and origin are looked at, refusals are plain HTTP, counted, and a line for all."""
        harness = SnetInside(websocket=WebSocketConfig(Policy("/game", ("https://a.example",))))
        with LogLines() as log:
            for path, origin, status in (
                ("/game", "https://b.example", 403),
                ("/other", "https://a.example", 404),
                ("/game", "https://b.example", 403),
            ):
                end = harness.comer()
                end.send(request(f"GET {path} HTTP/1.1", origin=origin))
                self.assertTrue(end.take().startswith(b"HTTP/1.1 %d " % status))
                self.assertTrue(end.transport.disconnecting)
                end.gone()
        self.assertEqual(len(log.lines), 1)
        self.assertIn("403: origin 'https://b.example'", log.lines[0])
        told = "0 handshakes, 3 refused (2 by 403, 1 by 404)"
        self.assertEqual(str(harness.layer.figures()), told)
        self.assertEqual(harness.router.stats.turned_away[Reason.HANDSHAKE_REFUSED], 3)
        self.assertEqual(len(harness.layer.waiting), 0)

    def test_garbage(self) -> None:
        """What is no HTTP, and what comes before the answer, is 400; a lot of it is not kept."""
        for sent in (
            b"\x16\x03\x01",
            b"\0" + bytes(8),
            b"GET /" + b"x" * 9000,
            request() + frame(b"\0"),
        ):
            harness = SnetInside()
            end = harness.comer()
            end.send(sent)
            self.assertTrue(end.take().startswith(b"HTTP/1.1 400 "))
            end.send(bytes(100_000))  # into nothing
            self.assertEqual(end.take(), b"")
            harness.pass_time(LINGER + 0.5)
            self.assertTrue(end.transport.aborted)

    def test_slow(self) -> None:
        """A request has its time, however much of it there is."""
        harness = SnetInside()
        ends = [harness.comer(), harness.comer()]
        ends[1].send(request()[:-1])
        harness.pass_time(TIMEOUT - 0.5)
        self.assertFalse(any(end.transport.aborted for end in ends))
        with LogLines() as log:
            harness.pass_time(1)
        self.assertTrue(all(end.transport.aborted for end in ends))
        self.assertEqual(harness.router.stats.turned_away[Reason.HANDSHAKE_TIMEOUT], 2)
        self.assertIn(Reason.HANDSHAKE_TIMEOUT.value, log.lines[0])
        for end in ends:
            end.gone(ConnectionLost())
        self.assertEqual(harness.router.stats.turned_away.total(), 2)
        self.assertEqual(len(harness.layer.waiting), 0)

    def test_silent_inside(self) -> None:
        """Who asked and says nothing then has the time of a handshake of snet."""
        harness = SnetInside(snet=SnetConfig(init_timeout=2))
        end = harness.web()
        harness.pass_time(2.5)
        self.assertTrue(end.transport.aborted)
        self.assertEqual(harness.streams.stats.refused[Fault.TIMEOUT], 1)

    def test_crowd(self) -> None:
        """So many may be at it, refused ones that are not gone among them; the oldest goes."""
        harness = SnetInside(client=PortConfig(max_handshakes=3))
        refused = harness.comer()
        refused.send(b"?")
        ends = [harness.comer() for _ in range(3)]
        self.assertTrue(refused.transport.aborted)
        self.assertFalse(any(end.transport.aborted for end in ends))
        harness.comer()
        self.assertTrue(ends[0].transport.aborted)
        self.assertEqual(len(harness.layer.waiting), 3)
        told = harness.router.stats.turned_away
        self.assertEqual(told[Reason.TOO_MANY_HANDSHAKES], 1)

    def test_full(self) -> None:
        """Over max_links the stream is not begun; it counts links, not connections."""
        harness = SnetInside(client=PortConfig(max_links=1))
        harness.stream()
        _, end = harness.stream()
        self.assertTrue(end.transport.aborted)
        self.assertEqual(len(harness.router.clients), 1)

    def test_checks(self) -> None:
        """Who connects and goes is worth no line; who broke off in his request is."""
        harness = SnetInside()
        with LogLines() as log:
            harness.comer().gone()
            harness.comer().gone(ConnectionLost())
            self.assertEqual(log.lines, [])
            end = harness.comer()
            end.send(b"GET ")
            end.gone()
        self.assertEqual(len(log.lines), 1)
        self.assertIn("with 4 bytes", log.lines[0])
        self.assertEqual(len(harness.layer.waiting), 0)

    def test_files(self) -> None:
        """The last descriptors are no client's."""
        harness = SnetInside()
        self.patch(harness.service, "most_files", lambda: -2)
        end = harness.comer()
        self.assertTrue(end.transport.aborted)
        end.gone()
        self.assertEqual(harness.router.stats.turned_away[Reason.NO_DESCRIPTOR], 1)
        self.assertEqual(len(harness.layer.waiting), 0)

    def test_limits(self) -> None:
        """The limits ask by whom an HTTP proxy tells; who is over them is told so by 429, and
        gives his place back."""
        harness = SnetInside(websocket=WebSocketConfig(proxies=parse_networks("192.0.2.0/24")))
        harness.clients.door.tellers = parse_networks("192.0.2.0/24")
        harness.service.set_limits(LimitValues(address_connections=1))
        _, first = harness.stream(x_forwarded_for="203.0.113.9")
        harness.stream(x_forwarded_for="203.0.113.10")
        end = harness.comer()
        with LogLines() as log:
            end.send(request(headers=BROWSER, x_forwarded_for="203.0.113.9"))
        self.assertTrue(end.take().startswith(b"HTTP/1.1 429 "))
        end.gone()
        (told,) = log.lines
        self.assertIn("203.0.113.9", told)
        self.assertIn(Reason.ADDRESS_CONNECTIONS.value, told)
        self.assertEqual(str(harness.layer.figures()), "2 handshakes, 1 refused (1 by 429)")
        first.gone(ConnectionLost())
        harness.stream(x_forwarded_for="203.0.113.9")
        self.assertEqual(harness.service.gate.figures().connections, 2)

    def test_stop(self) -> None:
        """A port that is closed tells who asked for nothing yet to come later."""
        harness = SnetInside()
        end = harness.comer()
        harness.layer.doStop()
        self.assertTrue(end.take().startswith(b"HTTP/1.1 503 "))
        self.assertTrue(end.transport.disconnecting)
        end.gone()
        self.assertEqual(str(harness.layer.figures()), "0 handshakes, 1 refused (1 by 503)")


class CutTests(SynchronousTestCase):
    """What ends a connection does not end the stream."""

    def test_ends(self) -> None:
        """A Close, bad frames, text and a broken connection are cuts: it goes on where it was."""
        for ends in (closing(1000), frame(b"x", mask=None), frame(b"x", 1), b""):
            harness = SnetInside()
            server = harness.server()
            script, end = harness.stream()
            end.send(frame(script.send(dial(1))))
            link, conn_id = harness.only, next(iter(harness.router.conn_ids))
            self.assertEqual(script.take(end.messages()), accept(conn_id, 1))
            server.take()
            end.send(ends)
            end.gone(None if ends else ConnectionLost())
            self.assertIsNotNone(link.cut_since)
            script.send(packet(conn_id, b"from the tunnel"))
            server.send(packet(conn_id, b"meanwhile"))
            end = harness.back(script)
            harness.turn()
            self.assertIsNone(link.cut_since)
            self.assertIsNone(link.lost)
            told = end.messages()
            self.assertEqual(script.take(told), packet(conn_id, b"meanwhile"))
            self.assertEqual(server.take(), packet(conn_id, b"from the tunnel"))

    def test_not_resumed(self) -> None:
        """Who does not come back is lost, as elsewhere."""
        harness = SnetInside(snet=SnetConfig(wait_timeout=3))
        _, end = harness.stream()
        link = harness.only
        end.gone(ConnectionLost())
        harness.pass_time(3.5)
        self.assertIs(link.lost, Reason.NOT_RESUMED)

    def test_told_why(self) -> None:
        """Who is lost here is told why in the Close, behind all that was written."""
        for reason, code in ((Reason.KICKED, 4403), (Reason.SHUTDOWN, 1001)):
            harness = SnetInside()
            server = harness.server()
            script, end = harness.stream()
            conn_id = 1000
            end.send(frame(script.send(dial(1))))
            script.take(end.messages())
            (conn_id,) = harness.router.conn_ids
            server.send(packet(conn_id, b"bye"))
            harness.router.lose(harness.only, reason)
            harness.service.flush()
            self.assertEqual(script.take(end.messages()), packet(conn_id, b"bye"))
            self.assertEqual(end.told, [(code, reason.value)])
            end.send(closing(code))
            self.assertTrue(end.transport.disconnecting)
            end.gone()
            self.assertEqual(len(harness.streams.streams), 0)

    @DETERMINISTIC
    @given(st.binary(max_size=200), st.integers(0, 300), st.lists(st.integers(0, 400), max_size=5))
    def test_noise(self, noise: bytes, place: int, cuts: list[int]) -> None:
        """Whatever comes, wherever: nothing is raised, and others notice nothing."""
        harness = SnetInside()
        other, there = harness.stream()
        script, end = harness.stream()
        good = frame(script.send(PING * 20))
        for piece in cut(good[:place] + noise + good[place:], cuts):
            end.send(piece)
        end.gone(ConnectionLost())
        there.send(frame(other.send(PING)))
        self.assertEqual(other.take(there.messages()), PING)


class MemoryTests(SynchronousTestCase):
    """The library's own client, without sockets."""

    def test_talk(self) -> None:
        """In memory: there, cut in the middle of much, back, and closed."""
        with MemoryGateway(client_ws_addr="snet+127.0.0.1:0", client_ws_path="/game") as gateway:
            server = gateway.run(
                connect_server(gateway.server, 1, gateway.key, None, gateway.clock)
            )

            async def echo(conn: Any) -> None:
                async for message in conn:
                    await conn.send(message)

            server.serve(echo)
            assert gateway.web is not None
            client = gateway.run(connect_client(gateway.web, None, gateway.clock))
            conn = gateway.run(client.dial(1))
            for number in range(5):
                sent = bytes([number]) * 5000
                conn.send(sent)
                gateway.cut(gateway.web)
                self.assertEqual(gateway.run(conn.receive(), 20), sent)
            self.assertIsNone(client.ended)
            (stats,) = [one.stats for one in map(streams_of, gateway.service.ports) if one]
            self.assertEqual((stats.made, stats.resumed), (1, 5))

    def test_no_tls(self) -> None:
        """There is no TLS in memory: that is one line."""
        self.assertEqual(
            str(
                raised(
                    ConfigError,
                    MemoryGateway,
                    client_wss_addr="127.0.0.1:0",
                    client_tls_cert="cert.pem",
                )
            ),
            "client_wss_addr: without sockets there is no TLS; give client_ws_addr",
        )


def streams_of(port: Any) -> Any:
    """What keeps a port's streams; None: it has none."""
    return port.layer("snet")


class OptionTests(SynchronousTestCase):
    """What operators can get wrong."""

    def test_native(self) -> None:
        """On the native path nothing speaks snet, and that is said."""
        told = settings(*LOOPBACK, "--relay=on", "--client-ws-addr=snet+127.0.0.1:0")
        error = raised(ConfigError, GatewayService, told, reactor)
        self.assertEqual(error.option, "--relay")
        self.assertIn(
            "packets of web clients would not take the native path, because --client-ws-addr "
            "snet+127.0.0.1:0 makes the web client port speak snet",
            error.problem,
        )

    def test_layers(self) -> None:
        """Ports of both kinds stand beside each other, and streams have the options' numbers."""
        told = settings(
            *LOOPBACK,
            "--client-ws-addr=127.0.0.1:0, snet+127.0.0.1:0",
            "--client-snet-buffer=5K",
            "--client-snet-wait-timeout=2m",
        )
        service = GatewayService(told, reactor).router_service
        pages, streams = service.ports[2:]
        self.assertEqual([layer.name for layer in pages.layers], ["ws"])
        self.assertEqual([layer.name for layer in streams.layers], ["snet", "ws"])
        config = streams.layer("snet").config
        self.assertEqual((config.buffer, config.wait_timeout), (5120, 120.0))
        self.assertIsInstance(streams.layer("ws"), WebLayer)
        self.assertEqual(streams.address.text, "127.0.0.1:0")


class SocketTests(GatewayTestCase):
    """The library's two faces against such ports, over a network that is cut."""

    BUFFER = 1 << 20  # the kernel tells nothing here, so what is on its way has to fit

    async def open(self, secure: bool = False, **options: Any) -> LocalGateway:
        """A gateway with an echo behind it; `self.proxy` is before its port."""
        directory = scratch(self)
        self.cert = os.path.join(directory, "cert.pem")
        key = os.path.join(directory, "key.pem")
        if secure:
            make("localhost", ["localhost", "127.0.0.1"]).write(self.cert, key)
            options |= {"client_tls_cert": self.cert, "client_tls_key": key}
        options[f"client_{'wss' if secure else 'ws'}_addr"] = "snet+127.0.0.1:0"
        gateway = LocalGateway(
            reactor,
            KEY,
            relay="off",
            client_snet_buffer=self.BUFFER,
            client_send_buffer="8M",
            **options,
        )
        self.addCleanup(gateway.stop)
        await gateway.start()
        self.proxy = Proxy(gateway.web_port)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.proxy.stop()))

        async def echo(conn: Any) -> None:
            async for message in conn:
                await conn.send(message)

        (await self.server(gateway)).serve(echo)
        return gateway

    def link(self, gateway: LocalGateway) -> Any:
        (link,) = gateway.service.router.clients.values()
        return link

    async def with_twisted(self, gateway: LocalGateway, inner: str) -> None:
        where = clientFromString(
            reactor, f"snet:{quoteStringArgument(inner)}:buffer={self.BUFFER}"
        )
        client = self.keep(await connect_client(where))
        conn = await client.dial(1)
        for number in range(6):
            sent = os.urandom(200_000)
            await conn.send(sent)
            self.proxy.cut(number)
            self.assertEqual(await conn.receive().addTimeout(SECONDS, reactor), sent)
        self.assertIsNone(client.ended)
        self.assertIsNone(self.link(gateway).lost)
        self.assertGreaterEqual(streams_of(gateway.service.ports[2]).stats.resumed, 1)

    async def with_asyncio(self, where: aio.Gateway) -> None:
        async def main() -> None:
            async with aio.connect_client(where) as client:
                conn = await client.dial(1)
                for number in range(6):
                    sent = os.urandom(200_000)
                    await conn.send(sent)
                    cast(Any, reactor).callFromThread(self.proxy.cut, number)
                    got = await asyncio.wait_for(conn.receive(), SECONDS)
                    assert got == sent, number

        await deferToThread(lambda: asyncio.run(main()))

    async def test_ws(self) -> None:
        """Cut amid much, both ways of it, and back: every byte, once; figures of both layers."""
        gateway = await self.open()
        await self.with_twisted(gateway, f"ws:127.0.0.1:{self.proxy.port}")
        self.assertEqual(self.link(gateway).facts.transport, "snet+ws")
        config = SnetConfig(buffer=self.BUFFER)
        there = aio.Gateway("127.0.0.1", self.proxy.port, snet=config, websocket=WebSocket())
        await self.with_asyncio(there)
        self.assertTrue(gateway.web_url.startswith("snet+ws://127.0.0.1:"))
        shot = finish(Source(gateway.service).snapshot())
        figures = {layer.name: str(layer.figures) for layer in shot.layers}
        self.assertRegex(figures["ws"], r"^\d+ handshakes, 0 refused$")
        self.assertIn("streams live", figures["snet"])

    async def test_wss(self) -> None:
        """The same inside TLS, whose facts are known."""
        gateway = await self.open(secure=True)
        inner = f"wss:localhost:{self.proxy.port}:trustRoots={quoteStringArgument(self.cert)}"
        await self.with_twisted(gateway, inner)
        facts = self.link(gateway).facts
        self.assertEqual((facts.transport, facts.sni), ("snet+wss", "localhost"))
        self.assertTrue(facts.tls.startswith("TLSv1."))
        there = aio.Gateway(
            "localhost",
            self.proxy.port,
            tls=ssl.create_default_context(cafile=self.cert),
            snet=SnetConfig(buffer=self.BUFFER),
            websocket=WebSocket(),
        )
        await self.with_asyncio(there)

    async def test_refused(self) -> None:
        """Another path is refused as over plain ws, and both faces say so."""
        gateway = await self.open(client_ws_path="/game")
        text = quoteStringArgument(f"ws:127.0.0.1:{self.proxy.port}:path=/other")
        error = await failure_of(
            WebSocketRefused, connect_client(clientFromString(reactor, f"snet:{text}"))
        )
        self.assertEqual(error.status, 404)

        async def main() -> Any:
            try:
                async with aio.connect_client(f"snet+ws://127.0.0.1:{self.proxy.port}/other"):
                    return None
            except GatewayUnreachable as error:
                return error.cause

        self.assertEqual((await deferToThread(lambda: asyncio.run(main()))).status, 404)
        layer = gateway.service.ports[2].layer("ws")
        await until("the ends", lambda: not layer.waiting)
        self.assertEqual(str(layer.figures()), "0 handshakes, 2 refused (2 by 404)")

    async def test_kicked(self) -> None:
        """A kicked client is told by the Close, and its stream is over."""
        gateway = await self.open()
        wanted = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.port)
        endpoint = WebSocketClientEndpoint(wanted, reactor, "game.example")
        client = self.keep(await connect_client(SnetClientEndpoint(endpoint, reactor)))
        await client.ping()
        gateway.service.router.lose(self.link(gateway), Reason.KICKED)
        gateway.service.flush()
        await client.when_ended().addTimeout(SECONDS, reactor)
        streams = streams_of(gateway.service.ports[2])
        await until("the stream's end", lambda: not streams.streams)

    async def test_pages(self) -> None:
        """Who speaks no snet there is not let in, and the log says why."""
        gateway = await self.open()
        with LogLines() as log:
            client = self.keep(await connect_client(f"ws://127.0.0.1:{self.proxy.port}/"))
            await failure_of(EndpointEnded, client.dial(1))
        self.assertEqual(len(gateway.service.router.clients), 0)
        self.assertTrue(any("snet handshake" in line for line in log.lines), log.lines)

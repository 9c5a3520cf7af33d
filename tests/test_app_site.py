"""A web server on a port of WebSockets: whose a connection is, and what becomes of it."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any
from urllib.request import urlopen

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage

from fastway.app import App
from fastway.app.listen import NoNative
from fastway.dialect.hotpot import Hotpot
from fastway.errors import ConfigError
from fastway.web import BoundedSite
from fastway.websocket.request import MAX_REQUEST
from tests.support.files import scratch
from tests.support.tls import make
from tests.support.waits import reactor, until
from tests.support.words import Words


class Count(Resource):
    """`GET` is answered by the App's number of sessions, `POST` by what came."""

    isLeaf = True

    def __init__(self, app: App) -> None:
        super().__init__()
        self.app = app

    def render_GET(self, request: Any) -> bytes:
        return b"%d at %s\n" % (len(self.app.sessions), request.path)

    def render_POST(self, request: Any) -> bytes:
        return bytes(request.content.read())


PAGE = b"GET /count HTTP/1.1\r\nHost: game.example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


def is_up(ws: WSConnection, transport: StringTransport) -> bool:
    """Whether it was told so."""
    ws.receive_data(transport.value())
    return [type(event) for event in ws.events()] == [AcceptConnection]


def fetch(url: str) -> bytes:
    with urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def browse(port: int, cert: str) -> tuple[str | None, bytes]:
    """Ask for a WebSocket as a browser does: what was agreed to inside TLS, and the answer."""
    context = ssl.create_default_context(cafile=cert)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", port), 30) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as secure,
    ):
        asked = Request(host=f"127.0.0.1:{port}", target="/")
        secure.sendall(WSConnection(ConnectionType.CLIENT).send(asked))
        return secure.selected_alpn_protocol(), secure.recv(4096)


class Ports(SynchronousTestCase):
    """A port in memory."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.app = App(clock=self.clock)
        self.app.route("echo", lambda message: message)
        endpoint = serverFromString(self.clock, "ws:3251:path=/game")
        site = Site(Count(self.app), reactor=self.clock)
        self.successResultOf(self.app.listen(endpoint, Words(), site=site))
        self.factory: Any = self.clock.tcpServers[0][1]
        self.factory.doStart()
        self.addCleanup(self.factory.doStop)

    def meet(self, data: bytes, singly: bool = False) -> tuple[Any, StringTransport]:
        link = self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 5))
        transport = StringTransport()
        link.makeConnection(transport)
        for piece in [data[at : at + 1] for at in range(len(data))] if singly else [data]:
            link.dataReceived(piece)
        return link, transport

    def test_both(self) -> None:
        """A session and pages, in one piece and byte by byte; what a connection was first it
        stays."""
        for number, singly in enumerate((False, True), 1):
            ws = WSConnection(ConnectionType.CLIENT)
            asked = ws.send(Request(host="game.example", target="/game"))
            link, transport = self.meet(asked, singly)
            self.assertTrue(is_up(ws, transport))
            link.dataReceived(ws.send(TextMessage('hi "ann"\n')))
            self.assertIn(b"welcome null", transport.value())
            self.assertEqual(len(self.app.sessions), number)
            for page, answer in ((PAGE, b"%d at /count\n" % number), (POST, b"hello")):
                link, transport = self.meet(page, singly)
                self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 "))
                self.assertTrue(transport.value().endswith(answer))
                transport.clear()
                link.dataReceived(asked)
                self.assertTrue(transport.value().endswith(b"%d at /game\n" % number))
                link.connectionLost(Failure(ConnectionDone()))
        for session in list(self.app.sessions.values()):
            session.abort()

    def test_refused_by_either(self) -> None:
        """Who asks for a WebSocket is refused by the port, all others by the site; also those
        whose head has no end."""
        for data, status in (
            (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\n\r\n", b"404"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: upgrade: websocket\r\n\r\n", b"200"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\nUpgrade: websocket", b"200"),
            (b"\x16\x03\x01\r\n\r\n", b"400"),
            (b"GET /" + b"x" * 2 * MAX_REQUEST, b""),
        ):
            link, transport = self.meet(data)
            self.assertEqual(transport.value()[9:12], status)
            link.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.app.sessions, self.factory.undecided), ({}, set()))

    def test_in_time(self) -> None:
        """Who never asks is lost in time, and with the port."""
        for data in (b"", b"GET / HTTP/1.1\r\n"):
            link, transport = self.meet(data)
            self.clock.pump([0.5] * 21)
            self.assertTrue(transport.disconnected)
            link.connectionLost(Failure(ConnectionDone()))
        link, transport = self.meet(b"GET")
        gone, _ = self.meet(b"GET")
        gone.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.factory.undecided, {link})
        self.factory.stopFactory()
        self.assertTrue(transport.disconnected)
        self.factory.startFactory()
        link.connectionLost(Failure(ConnectionDone()))

    def test_wrong(self) -> None:
        """It goes with WebSockets alone, on Twisted's transports, and reads no PROXY header."""
        site = Site(Resource(), reactor=self.clock)
        endpoint = serverFromString(self.clock, "tcp:3252")
        headed = serverFromString(self.clock, "ws:3252:proxyFrom=10.0.0.1")
        for where, more, kind, problem in (
            (":3252", {}, ConfigError, "ports of WebSockets alone"),
            (endpoint, {}, ConfigError, "ports of WebSockets alone"),
            (headed, {}, ConfigError, "take trustedProxies"),
            ("ws:3252", {"native": True}, NoNative, "it has a site"),
        ):
            listening: Any = self.app.listen(where, Words(), site=site, **more)
            with pytest.raises(kind, match=problem):
                self.failureResultOf(listening).raiseException()


class Sockets(TestCase):
    """On 127.0.0.1, as hotpot's clients have it."""

    timeout = 60

    async def test_tls(self) -> None:
        """Browsers offer HTTP inside TLS, and are taken, by a port with a site and without."""
        app, place = App(), scratch(self)
        cert, key = os.path.join(place, "cert.pem"), os.path.join(place, "key")
        make("localhost", ("127.0.0.1",)).write(cert, key)
        where = f"wss:0:interface=127.0.0.1:privateKey={key}:certKey={cert}"
        for site in (None, Site(Resource())):
            port = await app.listen(where, Hotpot(text=True), site=site)
            agreed, said = await deferToThread(browse, port.getHost().port, cert)
            self.assertEqual((agreed, said[:13]), ("http/1.1", b"HTTP/1.1 101 "))
        await app.stop()
        assert app.links is not None
        wheel = app.links.wheel
        await until("all is closed", lambda: not wheel)
        wheel.stop()

    async def test_hotpot(self) -> None:
        """A broadcast by HTTP reaches who is connected to the same port."""
        app, guest = App(), App()
        heard: list[Any] = []
        guest.route("Said", lambda message: heard.append(message))
        room = app.group("room")
        app.opened(room.add)

        class Broadcast(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                return b"%d" % room.send("Said", request.args[b"msg"][0].decode())

        site = BoundedSite(Broadcast(), reactor)
        port = await app.listen("ws:0:interface=127.0.0.1", Hotpot(text=True), site=site)
        where = f"127.0.0.1:{port.getHost().port}"
        peer = await guest.connect(clientFromString(reactor, f"ws:{where}"), Hotpot(text=True))
        await until("it is in the room", lambda: len(room))
        self.assertEqual(await deferToThread(fetch, f"http://{where}/?msg=hi"), b"1")
        await until("it is told", lambda: heard)
        self.assertEqual(heard, ["hi"])
        peer.close()
        await until("it is gone", lambda: not app.sessions)
        for one in (guest, app):
            await one.stop()
            assert one.links is not None
            await until("all is closed", lambda one=one: not one.links.wheel)  # type: ignore[misc]
            one.links.wheel.stop()

"""Applications over WebSocket: handshake, whole messages, close codes, and endpoint strings."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from fastway.app import App, Session
from fastway.app.ports import LinkFactory
from fastway.app.websocket import NoWebSocketDialect
from fastway.config.values import parse_networks
from fastway.proxy import SIGNATURE
from fastway.websocket.forwarded import Trusted
from fastway.websocket.listen import MessageEndpoint, NoMessages
from fastway.websocket.request import Policy
from tests.support.app_links import Links, NativeLinks
from tests.support.logs import LogLines
from tests.support.words import Words


class Peer:
    """A WebSocket client that is not ours, on a link in memory.

    Attributes:
        heard: What came, as events of wsproto's.
    """

    def __init__(self, far: Any, path: str = "/game", origin: str = "", **more: str) -> None:
        self.far = far
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.heard: list[Any] = []
        headers = [(b"Origin", origin.encode())] if origin else []
        headers += [(name.encode(), value.encode()) for name, value in more.items()]
        self.say(Request(host="game.example", target=path, extra_headers=headers))

    def say(self, event: Any) -> None:
        self.far.say(self.ws.send(event))
        self.listen()

    def listen(self) -> None:
        for data in self.far.take():
            self.ws.receive_data(data)
            self.heard += self.ws.events()

    @property
    def gone(self) -> bool:
        return not self.far.connected

    def text(self) -> str:
        """What was said in messages since the last look."""
        said = [one.data for one in self.heard if isinstance(one, (TextMessage, BytesMessage))]
        self.heard = [
            one for one in self.heard if not isinstance(one, (TextMessage, BytesMessage))
        ]
        return "".join(one if isinstance(one, str) else bytes(one).decode() for one in said)


class Ports(Links):
    """A port of an App."""

    def setUp(self) -> None:
        super().setUp()
        self.app_with()

    def factory(self, dialect: Words) -> Any:
        policy = Policy("/game", ("https://game.example",), "")
        return super().factory(dialect).over_websocket(policy)

    def peer(self, *settings: str) -> Peer:
        return Peer(self.join(Words()), *settings)

    def connect(self, *_: Any, **__: Any) -> Peer:
        peer = self.peer()
        self.assertIsInstance(peer.heard.pop(0), AcceptConnection)
        peer.say(TextMessage('hi "ann"\n'))
        self.assertEqual(peer.text(), "welcome null\n")
        return peer

    def test_messages(self) -> None:
        """Text and binary are taken, messages may hold half a line or two; answers are messages
        of their own, and of the dialect's kind."""
        peer = self.connect()
        peer.say(BytesMessage(b"ask 1 ec"))
        peer.say(TextMessage("ho 1\nask 2 echo 2\n"))
        kinds = [type(one) for one in peer.heard]
        self.assertEqual((peer.text(), kinds), ("ok 1 1\nok 2 2\n", [TextMessage] * 2))
        [session] = self.app.sessions.values()
        self.assertEqual(session.dialect, "words")

    def test_told_at_the_handshake(self) -> None:
        """What is kept back until the answer are whole messages, behind it."""
        gate: Deferred[Any] = Deferred()
        room = self.app.group("room")

        @self.app.handshake
        def hook(session: Session, user: Any) -> Deferred[Any]:
            room.add(session)
            return gate

        peer = self.peer()
        peer.say(TextMessage("hi 1\n"))
        for number in range(2):
            room.send("on", number)
            self.clock.advance(0)
        peer.listen()
        self.assertEqual(peer.text(), "")
        gate.callback(None)
        self.clock.advance(0)
        peer.listen()
        self.assertEqual(
            [one.data for one in peer.heard if isinstance(one, TextMessage)],
            ["welcome null\n", "say on 0\n", "say on 1\n"],
        )

    def test_group_of_both(self) -> None:
        """A group's message is made once for all WebSockets, and once for all others."""
        room = self.app.group("room")
        self.app.opened(room.add)
        first, second = self.connect(), self.connect()
        plain: Any = LinkFactory(self.app, Words()).buildProtocol(None)
        transport = StringTransport()
        plain.makeConnection(transport)
        plain.dataReceived(b"hi 1\n")
        transport.clear()
        made: list[Any] = []
        encode = plain.wire.format.encode

        def counted(_: Any, message: Any) -> bytes:
            made.append(message)
            return cast(bytes, encode(message))

        self.patch(type(plain.wire.format), "encode", counted)
        self.assertEqual(room.send("on", 5), 3)
        self.clock.advance(0)
        for peer in (first, second):
            peer.listen()
            self.assertEqual(peer.text(), "say on 5\n")
        self.assertEqual((transport.value(), made), (b"say on 5\n", [5, 5]))

    def test_refused(self) -> None:
        """Another path, another page's origin: plain HTTP, and no session."""
        for settings, status in ((("/other", ""), 404), (("/game", "https://evil.example"), 403)):
            peer = self.peer(*settings)
            event = peer.heard[0]
            assert isinstance(event, RejectConnection)
            self.assertEqual((event.status_code, peer.gone), (status, True))
        self.assertEqual(self.app.counts.lost, {"no_websocket": 2})

    def test_close_codes(self) -> None:
        """A close says 1000; what the dialect does not know, and a bad frame, 1002."""
        for act, code in (
            (lambda peer: next(iter(self.app.sessions.values())).close(), 1000),
            (lambda peer: peer.say(BytesMessage(b"x" * 1001)), 1002),
            (lambda peer: peer.far.say(b"\xff\xff"), 1002),
            (lambda peer: peer.far.say(b"\x81\x81" + bytes(4) + b"\xff"), 1007),
        ):
            peer = self.connect()
            act(peer)
            peer.listen()
            event = peer.heard[-1]
            assert isinstance(event, CloseConnection)
            self.assertEqual((event.code, peer.gone), (code, True))
            self.assertEqual(self.app.sessions, {})

    def test_goes_away(self) -> None:
        """An App that stops says so: 1001, which a client may answer by coming back elsewhere."""
        self.app.start()
        peers = [self.connect() for _ in range(2)]
        self.app.drain()
        for peer in peers:
            peer.listen()
            event = peer.heard[-1]
            assert isinstance(event, CloseConnection)
            self.assertEqual((event.code, peer.gone), (1001, True))

    def test_control_frames(self) -> None:
        """A Ping is answered; a Close is answered, and is the session's end, in order."""
        peer = self.connect()
        [session] = self.app.sessions.values()
        peer.say(Ping(b"there?"))
        self.assertEqual(bytes(cast(Pong, peer.heard.pop()).payload), b"there?")
        peer.say(CloseConnection(1001, "bye"))
        self.assertIsInstance(peer.heard[-1], CloseConnection)
        assert session.ended is not None
        self.assertIsNone(session.ended.cause)
        self.assertEqual(self.app.counts.lost, {})

    def test_of_a_proxy(self) -> None:
        """Sessions have the address that a trusted proxy names, in the header that was chosen;
        of others, and before it is named, that of the connection. So has the log."""
        cases: tuple[tuple[str, str, dict[str, str], str | None], ...] = (
            ("10.1.2.3", "", {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}, "203.0.113.9"),
            ("10.1.2.3", "", {"X-Forwarded-For": "6.6.6.6, 2001:db8::7"}, "[2001:db8::7]"),
            ("10.1.2.3", "forwarded", {"Forwarded": 'for="[2001:db8::9]:7"'}, "[2001:db8::9]"),
            ("10.1.2.3", "forwarded", {"X-Forwarded-For": "203.0.113.9"}, None),
            ("10.1.2.3", "", {}, None),
            ("192.0.2.1", "", {"X-Forwarded-For": "203.0.113.9"}, None),
        )
        for peer, header, headers, client in cases:
            self.app_with()
            factory = super().factory(Words())
            trusted = Trusted(parse_networks("10.0.0.0/8"), header or "x-forwarded-for")
            port = factory.over_websocket(Policy("/game", (), ""), trusted)
            far = self.reach(port.buildProtocol(IPv4Address("TCP", peer, 5)))
            own = far.link.address
            with LogLines() as log:
                met = Peer(far, **headers)
            names_nobody = client is None and peer != "192.0.2.1"
            self.assertEqual(
                [f"{own} is one of" in one for one in log.lines], [True] * names_nobody
            )
            met.say(TextMessage('hi "ann"\n'))
            [session] = self.app.sessions.values()
            self.assertEqual(session.peer, client or own, headers)
            with LogLines() as log:
                met.far.say(b"\xff\xff")
            [line] = log.lines
            self.assertTrue(line.startswith(f"{client or own} lost: WebSocket: "), line)
            self.assertEqual(session.peer, client or own)

    def test_behind_a_header(self) -> None:
        """A PROXY header comes before the request, in any cuts; an HTTP proxy behind it may name
        somebody else. A proxy that speaks for itself is who it is."""
        first = b"PROXY TCP4 203.0.113.9 192.0.2.1 5678 80\r\n"
        second = b"PROXY TCP4 192.0.2.77 192.0.2.1 5678 80\r\n"
        sixth = b"PROXY TCP6 2001:db8::7 ::1 5678 80\r\n"
        local = SIGNATURE + b"\x20\x00\x00\x00"
        http = {"X-Forwarded-For": "198.51.100.7"}
        trusted = Trusted(parse_networks("192.0.2.0/24"), senders=parse_networks("10.0.0.0/8"))
        for sent, headers, client in (
            (first, {}, "203.0.113.9:5678"),
            (first, http, "203.0.113.9:5678"),
            (second, http, "198.51.100.7"),
            (second, {}, "192.0.2.77:5678"),
            (sixth, {}, "[2001:db8::7]:5678"),
            (local, {}, None),
            (local, http, None),
        ):
            self.app_with()
            port = super().factory(Words()).over_websocket(Policy("/game", (), ""), trusted)
            far = self.reach(port.buildProtocol(IPv4Address("TCP", "10.1.1.1", 5)))
            own = far.link.address
            for byte in sent:
                far.say(bytes((byte,)))
            Peer(far, **headers).say(TextMessage('hi "ann"\n'))
            [session] = self.app.sessions.values()
            self.assertEqual(session.peer, client or own, sent)
            session.abort()

    def test_without_a_header(self) -> None:
        """A proxy that sends none is lost, and so is who is no proxy, unless he may come."""
        for direct in (False, True):
            self.app_with()
            trusted = Trusted(senders=parse_networks("10.0.0.0/8"), direct=direct)
            port = super().factory(Words()).over_websocket(Policy("/game", (), ""), trusted)
            far = self.reach(port.buildProtocol(IPv4Address("TCP", "10.1.1.1", 5)))
            with LogLines() as log:
                Peer(far)
            self.assertEqual((len(log.lines), far.connected), (1, False))
            self.assertIn("no PROXY header of a proxy of proxyFrom: it begins with", log.lines[0])
            link = port.buildProtocol(IPv4Address("TCP", "192.0.2.1", 5))
            self.assertEqual(self.app.counts.lost, {"bad_proxy": 1 if direct else 2})
            self.assertIs(link is not None, direct)
            if direct:
                self.assertIsInstance(Peer(self.reach(link)).heard[0], AcceptConnection)
        header = b"PROXY TCP4 203.0.113.9 192.0.2.1 5678 80\r\n"
        link = port.buildProtocol(IPv4Address("TCP", "192.0.2.1", 5))
        far = self.reach(link)
        far.say(header + b"\r\n")
        self.assertTrue(b"".join(far.take()).startswith(b"HTTP/1.1 400 "))

    def test_of_a_proxy_in_two_ways(self) -> None:
        """A Forwarded header that can be read in two ways is answered by 400."""
        trusted = Trusted(parse_networks("10.0.0.0/8"), "forwarded")
        port = super().factory(Words()).over_websocket(Policy("/game", (), ""), trusted)
        far = self.reach(port.buildProtocol(IPv4Address("TCP", "10.0.0.1", 5)))
        event = Peer(far, Forwarded='for="203.0.113.9').heard[0]
        assert isinstance(event, RejectConnection)
        self.assertEqual((event.status_code, far.connected), (400, False))
        self.assertEqual(self.app.counts.lost, {"no_websocket": 1})

    def test_says_nothing(self) -> None:
        """Who never asks, or never greets, is lost in time."""
        self.peer()
        self.join(Words())
        self.clock.pump([0.5] * 25)
        self.assertEqual(self.app.counts.lost, {"handshake_timeout": 2})

    def test_other_protocols(self) -> None:
        """Who speaks something else is answered in HTTP, once, and goes."""
        far = self.join(Words())
        far.say(b"\x01\x00\x00\x00")
        self.assertTrue(b"".join(far.take()).startswith(b"HTTP/1.1 400 "))
        self.assertFalse(far.connected)

    def test_close_behind_answers(self) -> None:
        """Answers to what came with a Close go out before the Close that answers it."""
        peer = self.connect()
        [session] = self.app.sessions.values()
        session.send("on", 1)
        ask = peer.ws.send(TextMessage("ask 1 echo 1\nask 2 echo 2\n"))
        peer.far.say(ask + peer.ws.send(CloseConnection(1001)))
        said = b"".join(peer.far.take())
        texts = [
            said.find(text) for text in (b"say on 1", b"ok 1 1", b"ok 2 2", b"\x88\x02\x03\xe9")
        ]
        self.assertEqual(texts, sorted(texts))
        self.assertNotIn(-1, texts)
        self.assertTrue(said.endswith(b"\x88\x02\x03\xe9"), said)
        self.assertTrue(peer.gone)

    def test_cut_anywhere(self) -> None:
        """Handshake, messages and Close, byte by byte, come to the same as whole."""
        request = b"".join(
            WSConnection(ConnectionType.CLIENT).send(one)
            for one in (Request(host="game.example", target="/game"),)
        )
        ws = WSConnection(ConnectionType.CLIENT)
        ws.send(Request(host="game.example", target="/game"))
        far = self.join(Words())
        for byte in request:
            far.say(bytes((byte,)))
        head = b"".join(far.take())
        self.assertTrue(head.startswith(b"HTTP/1.1 101 "))
        mask = b"\0\0\0\0"
        frames = [(0x01, b'hi "a'), (0x89, b"x"), (0x80, b'nn"\n'), (0x82, b"ask 1 echo 1\n")]
        frames += [(0x88, b"\x03\xe8")]
        for first, payload in frames:
            for byte in bytes((first, 0x80 | len(payload))) + mask + payload:
                far.say(bytes((byte,)))
        said = b"".join(far.take())
        for part in (b"\x8a\x01x", b"welcome null", b"ok 1 1", b"\x88\x02\x03\xe8"):
            self.assertIn(part, said)
        self.assertEqual((self.app.sessions, self.app.counts.lost), ({}, {}))

    def test_pings_of_who_does_not_read(self) -> None:
        """Pongs for who does not read do not pile up: the last goes out when he reads on."""
        if isinstance(self, NativeLinks):
            return  # what waits in the core is bounded there
        peer = self.connect()
        peer.far.stop_reading()
        for number in range(1000):
            peer.far.say(peer.ws.send(Ping(b"%03d" % number)))
        self.assertEqual(peer.far.take(), [])
        peer.far.read_on()
        self.assertEqual(peer.far.take(), [b"\x8a\x03999"])


class NativePorts(NativeLinks, Ports):
    """The same on the relay."""


class Strings(SynchronousTestCase):
    """Endpoint strings of ports."""

    def test_parsed(self) -> None:
        """Arguments of tcp: go on; path and origins are the WebSocket's."""
        reactor = MemoryReactorClock()
        app = App(clock=reactor)
        endpoint = serverFromString(
            reactor, r"ws:3251:interface=127.0.0.1:path=/nano:origins=https\://a.example,same"
        )
        self.successResultOf(app.listen(endpoint, Words()))
        [(port, made, _, interface)] = reactor.tcpServers
        factory: Any = made
        self.assertEqual((port, interface), (3251, "127.0.0.1"))
        policy = factory.policy
        self.assertEqual(policy, Policy("/nano", ("https://a.example", "same"), ""))
        self.assertEqual(factory.trusted, Trusted())
        endpoint = serverFromString(
            reactor, r"ws:3252:trustedProxies=10.0.0.0/8,\:\:1:trustedProxiesHeader=forwarded"
        )
        self.successResultOf(app.listen(endpoint, Words()))
        factory = reactor.tcpServers[1][1]
        self.assertEqual(factory.trusted, Trusted(parse_networks("10.0.0.0/8, ::1"), "forwarded"))
        endpoint = serverFromString(reactor, "ws:3253:proxyFrom=unix,10.0.0.1:proxyOthers=direct")
        self.successResultOf(app.listen(endpoint, Words()))
        factory = reactor.tcpServers[2][1]
        proxies = parse_networks("unix, 10.0.0.1")
        self.assertEqual(factory.trusted, Trusted(senders=proxies, direct=True))

    def test_wrong(self) -> None:
        """What is wrong with one is said in a line."""
        reactor = MemoryReactorClock()
        for text, problem in (
            ("ws:3251:trustedProxies=10.0.0.1/8", "trustedProxies: '10.0.0.1/8' is no network"),
            ("ws:3251:trustedProxies=unix:trustedProxiesHeader=via", "via is none; give x-forw"),
            ("ws:3251:trustedProxiesHeader=forwarded", "without trustedProxies; give that too"),
            ("ws:3251:proxyOthers=direct", "proxyOthers is of no use without proxyFrom"),
            ("ws:3251:proxyFrom=me", "proxyFrom: 'me' is no network"),
            ("ws:3251:proxyFrom=unix:proxyOthers=all", "all is none; give refuse or direct"),
            ("wss:3251:proxyFrom=unix", "a PROXY header comes before TLS"),
            ("ws:3251:path=nano", "does not begin with /"),
            (r"ws:3251:origins=a.example", "origins=a.example is none"),
        ):
            with pytest.raises(ValueError, match=problem):
                serverFromString(reactor, text)

    def test_wrong_factory(self) -> None:
        """Protocols of a stream, and dialects without WebSocket, are refused with what to do."""
        reactor = MemoryReactorClock()
        endpoint = serverFromString(reactor, "ws:3251")
        assert isinstance(endpoint, MessageEndpoint)
        failure = self.failureResultOf(endpoint.listen(Factory()), NoMessages)
        self.assertIn("client-ws-addr", str(failure.value))
        words = Words()
        words.websocket = None
        app = App(clock=reactor)
        self.failureResultOf(app.listen(endpoint, words), NoWebSocketDialect)

"""WebSockets as endpoints of Twisted: on a clock, as a transport, and against servers that lie."""

from __future__ import annotations

import os
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import ssl
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, clientFromString, quoteStringArgument
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway.causes import cause_of, string_problem
from fastway.errors import NoWebSocket, WebSocketClosed, WebSocketRefused
from fastway.websocket import Url, WebSocket
from fastway.websocket import stream as stream_module
from fastway.websocket.dial import WebSocketClientEndpoint
from fastway.websocket.frames import BadFrame
from fastway.websocket.stream import LINGER
from fastway.websocket.url import TlsFiles, UrlEndpoint
from tests.support.checks import check_transport
from tests.support.core import DETERMINISTIC, cut
from tests.support.ends import LinkTransport
from tests.support.errors import failure_of, raised
from tests.support.files import scratch
from tests.support.gateways import OneOf
from tests.support.tapes import Push, Tape
from tests.support.tls import make
from tests.support.waits import SECONDS, reactor, turns, until
from tests.support.web import Script, WebFactory, agrees, answer_to
from tests.support.websocket import client_frames, closing, frame, unmasked


class Counting(Factory):
    """Makes tapes, and counts its starts and stops."""

    noisy = False

    def __init__(self, makes: bool = True) -> None:
        self.running = 0
        self.tapes: list[Tape] = []
        self._makes = makes

    def doStart(self) -> None:
        self.running += 1

    def doStop(self) -> None:
        self.running -= 1

    def buildProtocol(self, addr: Any) -> Tape | None:
        if not self._makes:
            return None
        self.tapes.append(Tape())
        return self.tapes[-1]


class ByHand:
    """An endpoint whose connections the test makes."""

    def __init__(self) -> None:
        self.cancelled = False
        self.factory: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        def cancel(_: Any) -> None:
            self.cancelled = True

        self.factory = factory
        self.connecting: Deferred[Any] = Deferred(cancel)
        return self.connecting


class ClockCase(SynchronousTestCase):
    """A WebSocket on a transport in memory."""

    def dial(self, factory: Counting | None = None) -> Deferred[Any]:
        self.clock = Clock()
        self.below = ByHand()
        self.factory = factory or Counting()
        self.endpoint = WebSocketClientEndpoint(cast(Any, self.below), self.clock, "h:80")
        self.done: Deferred[Any] = self.endpoint.connect(self.factory)
        return self.done

    def connect(self) -> None:
        self.transport = LinkTransport()
        self.carrier = self.below.factory.buildProtocol(None)
        self.carrier.makeConnection(cast(Any, self.transport))
        self.below.connecting.callback(self.carrier)

    def heard(self) -> bytes:
        data = cast(bytes, self.transport.value())
        self.transport.clear()
        return data

    def say(self, data: bytes) -> None:
        self.carrier.dataReceived(data)

    def gone(self, error: Exception | None = None) -> None:
        self.transport.connected = False
        self.carrier.connectionLost(Failure(error or ConnectionDone()))

    def up(self) -> Tape:
        """It is open."""
        self.dial()
        self.connect()
        self.say(answer_to(self.heard()))
        tape = cast(Tape, self.successResultOf(self.done))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return tape

    def lost(self, tape: Tape) -> Any:
        (failure,) = tape.losses
        self.assertEqual(tape.faults, [])
        self.assertEqual(self.factory.running, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return failure.value


class HandshakeTests(ClockCase):
    """Up to the end of the handshake."""

    def test_open(self) -> None:
        """It fires when the answer is there, and what came behind that is delivered."""
        done = self.dial()
        self.connect()
        request = self.heard()
        self.assertTrue(request.startswith(b"GET / HTTP/1.1\r\nHost: h:80\r\n"))
        answer = answer_to(request)
        self.say(answer[:-1])
        self.assertNoResult(done)
        self.say(answer[-1:] + frame(b"hello", mask=None))
        tape = self.successResultOf(done)
        self.assertEqual(tape.received, b"hello")
        self.assertEqual(self.factory.running, 1)
        self.gone()
        self.lost(tape)

    def test_timeout(self) -> None:
        """An answer that is not whole in time is none; every byte of it changes nothing."""
        done = self.dial()
        self.connect()
        self.say(b"HTTP/1.1 101 ")
        for _ in range(9):
            self.clock.advance(1)
            self.say(b"x")
        self.assertNoResult(done)
        self.clock.advance(1)
        error = self.failureResultOf(done, NoWebSocket).value
        self.assertIn("no answer within 10 s", str(error))
        self.assertTrue(self.transport.disconnected)
        self.gone(ConnectionAborted())
        self.assertEqual(self.factory.running, 0)

    def test_refused(self) -> None:
        done = self.dial()
        self.connect()
        self.say(b"HTTP/1.1 503 no\r\nRetry-After: 3\r\n\r\nlater")
        error = self.failureResultOf(done, WebSocketRefused).value
        self.assertEqual((error.status, error.retry_after), (503, 3))
        self.gone(ConnectionAborted())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """The connection ends within the handshake."""
        for error, said in (
            (None, "closed within the handshake"),
            (ConnectionLost(), "reset"),
        ):
            done = self.dial()
            self.connect()
            self.gone(error)
            self.assertIn(said, str(self.failureResultOf(done, NoWebSocket).value))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_connected(self) -> None:
        """What the endpoint below fails with is what is told."""
        endpoint = WebSocketClientEndpoint(
            cast(Any, type("E", (), {"connect": lambda *_: fail(ConnectionRefusedError())})()),
            Clock(),
            "h",
        )
        self.failureResultOf(endpoint.connect(Counting()), ConnectionRefusedError)

    def test_cancelled(self) -> None:
        """It can be given up at any point."""
        done = self.dial()
        done.cancel()
        self.assertTrue(self.below.cancelled)
        self.failureResultOf(done, CancelledError)
        self.assertIsNone(self.below.factory.buildProtocol(None))
        done = self.dial()
        self.connect()
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertTrue(self.transport.disconnected)
        self.say(answer_to(self.heard()))
        self.gone(ConnectionAborted())
        self.assertEqual(self.factory.tapes, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_protocol(self) -> None:
        """A factory that makes none costs the connection."""
        done = self.dial(Counting(makes=False))
        self.connect()
        self.say(answer_to(self.heard()))
        self.failureResultOf(done, ConnectionAborted)
        self.assertTrue(self.transport.disconnected)
        self.assertEqual(self.factory.running, 0)
        self.gone(ConnectionAborted())


class TalkTests(ClockCase):
    """On a clock, once it is open."""

    @DETERMINISTIC
    @given(st.lists(st.integers(0, 9999), max_size=8))
    def test_cuts(self, places: list[int]) -> None:
        """Messages, fragments and Pings, however they are cut."""
        sent = (
            frame(b"one", mask=None)
            + frame(b"t", fin=False, mask=None)
            + frame(b"ping", 9, mask=None)
            + frame(b"wo", 0, mask=None)
        )
        tape = self.up()
        for piece in cut(sent, places):
            if piece:
                self.say(piece)
        self.assertEqual(tape.received, b"onetwo")
        self.assertEqual(client_frames(self.heard()), [(10, b"ping")])
        tape.wire.abortConnection()
        self.gone(ConnectionAborted())
        self.assertIsInstance(self.lost(tape), ConnectionAborted)

    def test_write(self) -> None:
        """Each write is a message; nothing is none."""
        tape = self.up()
        tape.wire.write(b"a")
        tape.wire.write(b"")
        tape.wire.writeSequence([b"b", b"c"])
        self.assertEqual(client_frames(self.heard()), [(2, b"a"), (2, b"bc")])

    def test_close(self) -> None:
        """Its own close: a Close, the answer, the end of the connection, and ConnectionDone."""
        tape = self.up()
        tape.wire.write(b"last")
        tape.wire.loseConnection()
        tape.wire.loseConnection()
        tape.wire.write(b"late")
        self.assertEqual(client_frames(self.heard()), [(2, b"last"), (8, b"\x03\xe8")])
        self.assertFalse(self.transport.disconnecting)
        self.say(frame(b"unheard", mask=None) + unmasked(closing(1000)))
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.heard(), b"")
        self.gone()
        self.assertIsInstance(self.lost(tape), ConnectionDone)
        self.assertEqual(tape.received, b"")

    def test_close_unanswered(self) -> None:
        """Who does not answer a Close is left after LINGER seconds."""
        tape = self.up()
        tape.wire.loseConnection()
        self.clock.advance(LINGER - 0.1)
        self.assertFalse(self.transport.disconnected)
        self.clock.advance(0.1)
        self.assertTrue(self.transport.disconnected)
        self.gone(ConnectionAborted())
        self.assertIsInstance(self.lost(tape), ConnectionAborted)

    def test_close_while_full(self) -> None:
        """While the gateway takes what was written, however slowly, a close waits."""
        tape = self.up()
        self.carrier.pauseProducing()
        tape.wire.loseConnection()
        self.clock.pump([LINGER] * 4)
        self.assertFalse(self.transport.disconnected)
        self.carrier.resumeProducing()
        self.clock.advance(LINGER)
        self.assertTrue(self.transport.disconnected)
        self.gone(ConnectionAborted())
        self.lost(tape)

    def test_closed(self) -> None:
        """The gateway's Close is answered, and its code is the reason; 1000 is a plain end."""
        for code in (1000, 1001, 4403):
            tape = self.up()
            self.say(unmasked(closing(code, b"why")) + b"\xff\xff")
            self.assertEqual(client_frames(self.heard()), [(8, code.to_bytes(2, "big"))])
            self.assertTrue(self.transport.disconnecting)
            tape.wire.write(b"late")
            self.assertEqual(self.heard(), b"")
            self.gone(ConnectionLost() if code == 1001 else None)
            error = self.lost(tape)
            if code == 1000:
                self.assertIsInstance(error, ConnectionDone)
            else:
                self.assertIsInstance(error, WebSocketClosed)
                self.assertEqual((error.code, error.text), (code, "why"))

    def test_closed_and_stays(self) -> None:
        """A gateway that says its Close and leaves the connection open is left."""
        tape = self.up()
        self.say(unmasked(closing(1001)))
        self.clock.advance(LINGER)
        self.assertTrue(self.transport.disconnected)
        self.gone(ConnectionAborted())
        self.assertEqual(self.lost(tape).code, 1001)

    def test_cut(self) -> None:
        """An end without a Close is 1006; a reset is what it is."""
        tape = self.up()
        self.gone()
        self.assertEqual(self.lost(tape).code, 1006)
        tape = self.up()
        self.gone(ConnectionLost())
        self.assertIsInstance(self.lost(tape), ConnectionLost)

    def test_broken(self) -> None:
        """Who breaks the rules is told by a Close; what came before is delivered."""
        tape = self.up()
        self.say(frame(b"a", mask=None) + frame(b"masked"))
        self.assertEqual(tape.received, b"a")
        ((opcode, payload),) = client_frames(self.heard())
        self.assertEqual((opcode, payload[:2]), (8, b"\x03\xea"))
        self.say(frame(b"b", mask=None))
        self.gone()
        self.assertIsInstance(self.lost(tape), BadFrame)
        self.assertEqual(tape.received, b"a")

    def test_full(self) -> None:
        """Who writes is paused while the transport is full; of the Pings meanwhile the last is
        answered when it is not."""
        tape = self.up()
        producer = Push(tape.wire, [])
        tape.wire.registerProducer(producer, True)
        self.carrier.pauseProducing()
        self.assertEqual(producer.pauses, 1)
        for number in range(1000):
            self.say(frame(b"%d" % number, 9, mask=None))
        self.assertEqual(self.heard(), b"")
        self.carrier.resumeProducing()
        self.assertEqual(client_frames(self.heard()), [(10, b"999")])
        tape.wire.unregisterProducer()

    def test_paused(self) -> None:
        """Who does not read makes the connection below not read."""
        tape = self.up()
        tape.wire.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        tape.wire.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")

    def test_paused_in_the_read(self) -> None:
        """What came in the same read as the answer waits, and so does the loss behind it."""

        class Pausing(Tape):
            def connectionMade(self) -> None:
                self.wire.pauseProducing()

        self.dial()
        pausing = Pausing()
        self.factory.buildProtocol = lambda _: pausing  # type: ignore
        self.connect()
        self.say(answer_to(self.heard()) + frame(b"hello", mask=None) + unmasked(closing(1001)))
        self.gone()
        self.assertEqual((pausing.received, pausing.losses), (b"", []))
        pausing.wire.resumeProducing()
        self.assertEqual(pausing.received, b"")
        self.clock.advance(0)
        self.assertEqual(pausing.received, b"hello")
        self.assertEqual(self.lost(pausing).code, 1001)


class TransportTests(TestCase):
    """Over sockets it does what Twisted's transports do."""

    async def check(self, tls: bool, dialling_first: bool) -> None:
        self.patch(stream_module, "LINGER", 1.0)
        made = make("localhost", ["localhost"])
        trust = made.save(scratch(self))
        ports: list[Any] = []

        async def make_pair(one: Protocol, two: Protocol) -> None:
            dials, listens = (one, two) if dialling_first else (two, one)
            factory = WebFactory(OneOf(listens))
            if tls:
                port = reactor.listenSSL(0, factory, made.private.options(), 5, "127.0.0.1")
            else:
                port = reactor.listenTCP(0, factory, 5, "127.0.0.1")
            ports.append(port)
            url = Url(tls, "localhost", port.getHost().port, "/")
            await UrlEndpoint(reactor, url, tls=TlsFiles(trust)).connect(OneOf(dials))
            await until("the other end", lambda: listens.transport is not None)

        try:
            await check_transport(self, make_pair)
        finally:
            for port in ports:
                await port.stopListening()

    async def test_plain(self) -> None:
        await self.check(False, True)

    async def test_plain_other_end(self) -> None:
        await self.check(False, False)

    async def test_secure(self) -> None:
        await self.check(True, True)


class HostileTests(TestCase):
    """Servers that are none, and those that lie."""

    def listen(self, *scripts: Protocol) -> UrlEndpoint:
        port = reactor.listenTCP(0, OneOf(*scripts), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return UrlEndpoint(reactor, Url(False, "127.0.0.1", port.getHost().port, "/"))

    async def gone(self, script: Script) -> None:
        await until("the server's end", lambda: script.gone)

    async def lost(self, tape: Tape) -> None:
        await until("its end", lambda: tape.losses)

    async def test_handshakes(self) -> None:
        """What is no answer ends the attempt with a reason, at once, and the connection."""
        endless = b"HTTP/1.1 101 x\r\n" + b"X: y\r\n" * 100_000
        for answer, said in (
            (lambda _: bytes(100_000), "does not speak HTTP"),
            (lambda _: endless, "over 8192 bytes"),
            (agrees(sec_websocket_accept="x" * 28), "prove"),
            (agrees(sec_websocket_extensions="permessage-deflate"), "extensions"),
            (agrees(sec_websocket_protocol=None), "subprotocol"),
            (lambda _: b"HTTP/1.1 301 x\r\nLocation: ws://127.0.0.1:1/\r\n\r\n", "not followed"),
            (lambda _: b"HTTP/1.1 426 x\r\n\r\n", "426"),
        ):
            script = Script(cast(Any, answer))
            endpoint = self.listen(script)
            error = await failure_of(NoWebSocket, endpoint.connect(Counting()))
            self.assertIn(said, str(error))
            await self.gone(script)

    async def test_frames(self) -> None:
        """Frames that are none end it with a reason, whatever was sent."""
        for behind, said in (
            (frame(b"masked"), "masked"),
            (os.urandom(3).join([b"\xff"] * 50), "reserved bit"),
            (frame(b"x", mask=None, length=1 << 62), "over"),
            (frame(b"x", mask=None, bits=4), "reserved bit"),
            (frame(b"x", 1, mask=None), "text"),
        ):
            tape = Tape()
            script = Script(agrees(frame(b"fine", mask=None) + behind))
            await self.listen(script).connect(OneOf(tape))
            await self.lost(tape)
            self.assertEqual(tape.received, b"fine")
            error = tape.losses[0].value
            self.assertIsInstance(error, BadFrame)
            self.assertIn(said, str(error))
            await self.gone(script)

    async def test_fragments(self) -> None:
        """A message that never ends is a stream: nothing is kept of it."""
        tape = Tape()
        piece = frame(bytes(1000), 0, fin=False, mask=None)
        script = Script(agrees(frame(b"", fin=False, mask=None) + piece * 2000))
        await self.listen(script).connect(OneOf(tape))
        await until("all", lambda: len(tape.received) == 2_000_000)
        await turns()
        self.assertEqual(tape.losses, [])
        tape.wire.abortConnection()
        await until("its end", lambda: script.gone)

    async def test_pings(self) -> None:
        """A flood of Pings by one that reads no Pong takes no memory: they are not kept."""
        tape = Tape()
        pings = frame(bytes(125), 9, mask=None) * 200
        script = Script(agrees())
        await self.listen(script).connect(OneOf(tape))
        script.wire.pauseProducing()
        # All buffers of the kernel are full at some point; then Pongs wait here.
        stream = cast(Any, tape.wire)
        for _ in range(400):
            script.wire.write(pings)
            await turns(1)
            stream.write(bytes(50_000))
        waiting = sum(map(len, stream.carrier.below._tempDataBuffer))
        self.assertLess(waiting, 400 * 60_000)
        self.assertTrue(stream.carrier.full)
        script.wire.resumeProducing()
        tape.wire.abortConnection()
        await until("its end", lambda: script.gone)


class StringTests(TestCase):
    """Endpoint strings, and TLS by them."""

    def parse(self, text: str) -> Any:
        return clientFromString(reactor, text)

    def test_strings(self) -> None:
        """What strings lead to."""
        for text, url, wanted in (
            ("ws:h:9080", "ws://h:9080/", WebSocket()),
            ("ws:h", "ws://h/", WebSocket()),
            ("wss:h", "wss://h/", WebSocket()),
            (r"ws:\:\:1:80:path=/a", "ws://[::1]/a", WebSocket("/a")),
            (
                r"wss:h:443:path=/a?t\=b:origin=https\://o.example:header=X\: y z",
                "wss://h/a?t=b",
                WebSocket("/a?t=b", "https://o.example", {"X": "y z"}),
            ),
        ):
            with self.subTest(text=text):
                found = self.parse(text)
                self.assertEqual(str(found.url), url)
                self.assertEqual(found._wanted, wanted)
                self.assertEqual(vars(found), vars(self.parse(text)))
        self.assertNotIn("secret", repr(self.parse("ws:h:path=/?t=secret")))

    def test_wrong(self) -> None:
        """What is wrong with one is said in one line."""
        directory = scratch(self)
        empty = os.path.join(directory, "empty.pem")
        with open(empty, "wb"):
            pass
        broken = os.path.join(directory, "broken.pem")
        with open(broken, "w") as file:
            file.write("-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n")
        for text, said in (
            (f"wss:h:trustRoots={broken}", "a certificate in it cannot be read"),
            ("ws://h/x", "ws:HOST:PORT:path=/PATH"),
            ("ws:h:80:x:y", "ws:HOST:PORT"),
            ("ws:h:80:pat=/x", "no argument 'pat'"),
            ("ws:h:80:trustRoots=x", "no argument 'trustRoots'"),
            ("ws:h:0", "ws endpoint"),
            ("ws:h:80:path=x", "a path begins with /"),
            ("ws:h:80:origin=x", "an origin is as"),
            ("ws:h:80:header=x", "NAME"),
            (r"ws:h:80:header=Host\: x", "set here"),
            ("wss:h:privateKey=x", "no use without certificate"),
            ("wss:h:trustRoots=/no/such", "trustRoots=/no/such: there is no such file"),
            (f"wss:h:trustRoots={empty}", "no certificate in PEM"),
            (f"wss:h:certificate={empty}", f"certificate={empty}: it has no certificate in PEM"),
        ):
            with self.subTest(text=text):
                error = raised(Exception, self.parse, text)
                line = string_problem(text, error)
                self.assertIn(said, line)
                self.assertNotIn("\n", line)

    async def over(self, hosts: list[str], **tls: Any) -> Any:
        """What comes of `wss:` to a server with a certificate for these hosts."""
        made = make("x", hosts)
        directory = scratch(self)
        trust = made.save(directory)
        options: Any = made.private.options(*tls.pop("authorities", ()))
        self.tape = Tape()
        self.served = Tape()
        factory = WebFactory(OneOf(self.served))
        port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        text = f"wss:localhost:{port.getHost().port}"
        if tls.pop("trusted", True):
            text += f":trustRoots={quoteStringArgument(tls.pop('trust', '') or trust)}"
        for name, value in tls.items():
            text += f":{name}={quoteStringArgument(value)}"
        return await self.parse(text).connect(OneOf(self.tape))

    async def end(self) -> None:
        self.tape.wire.loseConnection()
        await until("the end", lambda: self.tape.losses and self.served.losses, SECONDS)

    async def test_file(self) -> None:
        """A file with the authority's certificate is who is trusted."""
        await self.over(["localhost"])
        self.tape.wire.write(b"hello")
        await until("it", lambda: self.served.received == b"hello")
        await self.end()

    async def test_directory(self) -> None:
        """So is a directory."""
        made = make("localhost", ["localhost"])
        directory = scratch(self)
        made.save(directory, "a.pem")
        tls = TlsFiles(directory)
        self.assertEqual(len(tls._trusted()), 1)
        tls.options("localhost")

    async def test_not_trusted(self) -> None:
        error = await failure_of(NoWebSocket, self.over(["localhost"], trusted=False))
        self.assertIn("self-signed", str(error))

    async def test_other_name(self) -> None:
        error = await failure_of(NoWebSocket, self.over(["other.example"]))
        self.assertIn("for other.example, not for localhost", str(error))

    async def test_no_name(self) -> None:
        """A certificate that names nobody is nobody's, and no request goes there."""
        error = await failure_of(NoWebSocket, self.over([]))
        self.assertIn("names nobody", str(error))
        self.assertIsNone(self.served.transport)
        self.flushLoggedErrors()

    async def test_no_tls(self) -> None:
        """A port that does not talk TLS."""

        class Web(Protocol):
            def dataReceived(self, data: bytes) -> None:
                cast(Any, self.transport).write(b"HTTP/1.1 400 x\r\n\r\n")
                cast(Any, self.transport).loseConnection()

        port = reactor.listenTCP(0, Factory.forProtocol(Web), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        where = self.parse(f"wss:localhost:{port.getHost().port}")
        error = await failure_of(NoWebSocket, where.connect(OneOf(Tape())))
        self.assertIn("TLS", str(error))

    async def test_certificate(self) -> None:
        """A certificate of one's own is shown to who wants one; without it one line says so."""
        authority = make("ca")
        own = make("me", ["me"], signer=authority)
        directory = scratch(self)
        shown, key = os.path.join(directory, "own.pem"), os.path.join(directory, "own.key")
        own.write(shown, key)
        wanted = [ssl.Certificate.loadPEM(authority.pem)]
        await self.over(["localhost"], authorities=wanted, certificate=shown, privateKey=key)
        self.tape.wire.write(b"hello")
        await until("it", lambda: self.served.received == b"hello")
        await self.end()
        # With TLS 1.3 the refusal comes when this side is done with the handshake, and may be lost
        # to a reset.
        await failure_of(NoWebSocket, self.over(["localhost"], authorities=wanted))

    async def test_not_there(self) -> None:
        """Nobody listens: as the endpoint below fails."""
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        for endpoint in (
            self.parse(f"ws:127.0.0.1:{number}"),
            WebSocketClientEndpoint(where, reactor, "h"),
        ):
            error = await failure_of(ConnectionRefusedError, endpoint.connect(OneOf(Tape())))
            self.assertIn("is one there?", cause_of(error))

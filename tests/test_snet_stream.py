"""The snet stream as a Twisted transport: over real connections that hold, and over fake ones that
are cut on a clock."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import ssl
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import (
    SSL4ClientEndpoint,
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from fastway.errors import Reason, StreamLost
from fastway.snet import carrier
from fastway.snet import stream as stream_module
from fastway.snet.config import LINGER, SnetConfig
from fastway.snet.dial import SnetClientEndpoint
from fastway.snet.inbox import MOST_UNREAD
from fastway.snet.interfaces import IResumableTransport
from fastway.snet.listen import SnetServerEndpoint
from fastway.snet.session import Fault
from fastway.snet.stream import StreamConnectionLost
from fastway.wheel import Wheel
from tests.support.checks import check_transport
from tests.support.files import scratch
from tests.support.gateways import OneOf
from tests.support.logs import LogLines
from tests.support.snet import Dialling, Listening, Resumable, Wire, acked_of, linger
from tests.support.snet_golden import Script
from tests.support.tapes import Pull, Tape, noise
from tests.support.tls import make_certificate
from tests.support.waits import reactor, until


class TransportTests(TestCase):
    """The list of checks, over connections that hold."""

    async def check(
        self, server: Any, client: Callable[[Any], Any], encrypt: bool, listening_first: bool
    ) -> None:
        # A close is no word of snet: the listening side waits for the peer to come back.
        config = SnetConfig(encrypt=encrypt, wait_timeout=0.03)
        self.patch(stream_module, "LINGER", 1.0)
        ports: list[Any] = []

        async def stop() -> None:
            for port in ports:
                await maybeDeferred(port.stopListening)

        async def make_pair(one: Protocol, two: Protocol) -> None:
            await stop()
            ports.clear()
            dials, listens = (two, one) if listening_first else (one, two)
            port = await SnetServerEndpoint(server, reactor, config).listen(OneOf(listens))
            ports.append(port)
            cast(Any, port).snet.wheel = Wheel(reactor, 0.01)
            dialler = SnetClientEndpoint(
                client(port.getHost()), reactor, config, lambda failures: 0.005
            )
            await dialler.connect(OneOf(dials))
            await until("the other end", lambda: listens.transport is not None)

        try:
            await check_transport(self, make_pair, told=StreamConnectionLost)
        finally:
            await stop()

    async def over_tcp(self, encrypt: bool, listening_first: bool) -> None:
        server = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")

        def client(host: Any) -> TCP4ClientEndpoint:
            return TCP4ClientEndpoint(reactor, "127.0.0.1", host.port)

        await self.check(server, client, encrypt, listening_first)

    async def test_tcp(self) -> None:
        """Over TCP, plain, a stream passes the checks."""
        await self.over_tcp(False, False)

    async def test_tcp_encrypted_listening_end_first(self) -> None:
        """The checks hold with the listening end in the other role, encrypted."""
        await self.over_tcp(True, True)

    async def over_unix(self, encrypt: bool, listening_first: bool) -> None:
        path = os.path.join(scratch(self), "s")
        server = UNIXServerEndpoint(reactor, path)

        def client(host: Any) -> UNIXClientEndpoint:
            return UNIXClientEndpoint(reactor, path)

        await self.check(server, client, encrypt, listening_first)

    async def test_unix_encrypted(self) -> None:
        """Over a unix socket, encrypted, a stream passes the checks."""
        await self.over_unix(True, False)

    async def test_unix_listening_end_first(self) -> None:
        """Over a unix socket the checks hold with the listening end in the other role."""
        await self.over_unix(False, True)

    async def test_tls(self) -> None:
        """Over TLS a stream passes the checks."""
        own = make_certificate()
        server = SSL4ServerEndpoint(reactor, 0, own.options(), interface="127.0.0.1")
        trust = ssl.Certificate.loadPEM(own.dumpPEM())
        options = ssl.optionsForClientTLS("localhost", trustRoot=trust)

        def client(host: Any) -> SSL4ClientEndpoint:
            return SSL4ClientEndpoint(reactor, "127.0.0.1", host.port, options)

        await self.check(server, client, False, False)


@implementer(IPushProducer)
class Told:
    """A push producer that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.on_pause: Callable[[], object] | None = None

    def pauseProducing(self) -> None:
        self.calls.append("pause")
        if self.on_pause is not None:
            self.on_pause()

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class BenchCase(SynchronousTestCase):
    """Fake connections whose kernel tells what was acknowledged."""

    def setUp(self) -> None:
        self.patch(carrier, "acked_bytes", acked_of)
        self.patch(carrier, "round_trip", lambda transport: 0.002)

    def listening(self, **config: Any) -> tuple[Listening, Resumable, Script, Wire]:
        """A listening side with one stream."""
        tape = Resumable()
        bench = Listening(tape, config=SnetConfig(**config))
        script, wire = bench.new()
        return bench, tape, script, wire

    def dialling(self, **config: Any) -> tuple[Dialling, Resumable, Wire]:
        """A dialling side with one stream, that dials again a second after each failure."""
        tape = Resumable()
        bench = Dialling(OneOf(tape), SnetConfig(**config), lambda failures: 1.0)
        return bench, tape, bench.new()

    def losses(self, tape: Tape) -> list[Any]:
        return [loss.type for loss in tape.losses]

    def nothing_left(self, bench: Listening) -> None:
        """Neither streams nor connections, and once nobody listens nothing is scheduled."""
        bench.turn()
        snet = bench.snet
        self.assertEqual([snet.streams, snet.waiting, snet.handshakes], [{}, {}, {}])
        self.assertEqual([wire.port for wire in bench.wires if not wire.told], [])
        stats = snet.stats
        self.assertEqual(stats.made, stats.ended)
        snet.doStop()
        self.assertEqual(bench.calls, [])


class CutTests(BenchCase):
    """What goes on across cuts."""

    def test_bytes(self) -> None:
        """Bytes go both ways before a cut and after a resume, plain and encrypted."""
        for encrypt in (False, True):
            bench, tape, script, wire = self.listening(encrypt=encrypt)
            wire.feed(script.send(b"one"))
            tape.wire.write(b"eins")
            self.assertEqual(bench.take(script, wire), b"eins")
            wire.broken()
            again = bench.resume(script, b"two")
            again.feed(script.send(b"three"))
            tape.wire.write(b"zwei")
            self.assertEqual(bench.take(script, again), b"zwei")
            self.assertEqual(tape.received, b"onetwothree")

    def test_interface(self) -> None:
        """The transport is an IResumableTransport, live and cut."""
        _, tape, _, wire = self.listening()
        verifyObject(IResumableTransport, tape.wire)
        self.assertIsNone(tape.wire.cut_since)
        wire.broken()
        verifyObject(IResumableTransport, tape.wire)
        self.assertIsNotNone(tape.wire.cut_since)

    def test_lost_bytes_are_sent_again(self) -> None:
        """What the peer did not read is sent again as it went on the wire, and nothing else."""
        for encrypt in (False, True):
            bench, tape, script, wire = self.listening(encrypt=encrypt)
            tape.wire.write(b"arrived")
            self.assertEqual(bench.take(script, wire), b"arrived")
            tape.wire.write(b" lost")
            lost = wire.take()
            wire.broken()
            again = bench.resume(script)
            self.assertEqual(again.sent, lost)
            tape.wire.write(b" new")
            self.assertEqual(bench.take(script, again), b" lost new")

    def test_writes_while_cut(self) -> None:
        """Writes while cut wait, and come behind what is sent again, in order."""
        bench, tape, script, wire = self.listening()
        tape.wire.write(b"lost ")
        wire.broken()
        tape.wire.write(b"first ")
        tape.wire.writeSequence([b"second ", b"third"])
        self.assertEqual(tape.wire.pending, 18)
        again = bench.resume(script)
        self.assertEqual(bench.take(script, again), b"lost first second third")
        self.assertEqual(tape.wire.pending, 0)

    def test_more_while_cut_than_the_window(self) -> None:
        """Writes while cut are not bounded by the replay buffer, which counts what was sent."""
        bench, tape, script, wire = self.listening(buffer=1000)
        wire.broken()
        for _ in range(10):
            tape.wire.write(noise(5000))
        again = bench.resume(script)
        got = bench.take(script, again)
        self.assertEqual(got, noise(5000) * 10)
        self.assertEqual(tape.wire.replayable, 1000)

    def test_writes_in_events(self) -> None:
        """What is written within stream_cut and stream_resumed keeps its place."""
        bench, tape, script, wire = self.listening()
        tape.on_cut = lambda: tape.wire.write(b"cut ")
        tape.on_resumed = lambda: tape.wire.write(b"resumed")
        tape.wire.write(b"lost ")
        wire.broken()
        tape.wire.write(b"waits ")
        again = bench.resume(script)
        self.assertEqual(bench.take(script, again), b"lost cut waits resumed")

    def test_events(self) -> None:
        """A protocol hears of each cut, and of each resume with its seconds and bytes."""
        bench, tape, script, wire = self.listening()
        tape.wire.write(b"12345")
        self.assertEqual(tape.events, [])
        wire.broken()
        self.assertEqual(tape.events, ["cut"])
        bench.pass_time(2.5)
        again = bench.resume(script)
        self.assertEqual(tape.events, ["cut", (2.5, 5)])
        bench.take(script, again)
        again.half_close()
        bench.pass_time(0.5)
        bench.resume(script)
        self.assertEqual(tape.events, ["cut", (2.5, 5), "cut", (0.5, 0)])
        stats = bench.snet.stats
        self.assertEqual((stats.cut, stats.resumed, stats.replayed), (2, 2, 5))

    def test_events_of_a_take_over(self) -> None:
        """A newcomer while the old connection looks alive is a cut of no time."""
        bench, tape, script, _ = self.listening()
        tape.wire.write(b"123")
        bench.pass_time(1.0)
        bench.resume(script)
        self.assertEqual(tape.events, ["cut", (0.0, 3)])

    def test_no_events(self) -> None:
        """A protocol that does not ask for events goes on all the same."""
        tape = Tape()
        bench = Listening(tape)
        script, wire = bench.new()
        wire.broken()
        bench.resume(script, b"on")
        self.assertEqual([tape.received, tape.losses], [b"on", []])

    def test_addresses(self) -> None:
        """getPeer is that of the connection in use, or of the last one."""
        bench, tape, script, wire = self.listening()
        self.assertEqual(tape.wire.getPeer(), wire.getPeer())
        wire.broken()
        self.assertEqual(tape.wire.getPeer(), wire.getPeer())
        again = bench.resume(script)
        self.assertNotEqual(again.getPeer(), wire.getPeer())
        self.assertEqual(tape.wire.getPeer(), again.getPeer())
        self.assertEqual(tape.wire.getHost(), again.getHost())
        over = bench.resume(script)
        self.assertEqual(tape.wire.getPeer(), over.getPeer())

    def test_buffer_size(self) -> None:
        """A bufferSize that was set holds for later connections too."""
        bench, tape, script, wire = self.listening()
        tape.wire.bufferSize = 2048
        self.assertEqual(wire.bufferSize, 2048)
        wire.broken()
        self.assertEqual(bench.resume(script).bufferSize, 2048)

    def test_dialling_side(self) -> None:
        """The dialling side comes back by itself, and nothing is lost or sent twice."""
        bench, tape, wire = self.dialling(encrypt=True)
        tape.wire.write(b"one ")
        self.assertEqual(bench.script.take(wire.take()), b"one ")
        tape.wire.write(b"two ")
        lost = bench.script.send(b"eins ")
        self.assertNotEqual(lost, b"eins ")
        bench.pass_time(2.0)
        wire.broken()
        tape.wire.write(b"three")
        bench.turn()
        again = bench.resume(b"zwei")
        self.assertEqual(bench.script.take(again.take()), b"two three")
        self.assertEqual(tape.received, b"eins zwei")
        self.assertEqual(tape.events, ["cut", (0.0, 4)])

    def test_resume_now(self) -> None:
        """resume_now of the dialling side drops its connection and dials at once."""
        bench, tape, wire = self.dialling()
        bench.pass_time(2.0)
        tape.wire.write(b"lost")
        tape.wire.resume_now()
        self.assertTrue(wire.closed)
        self.assertEqual(tape.events, ["cut"])
        bench.turn()
        self.assertEqual(len(bench.endpoint.asked), 2)
        tape.wire.resume_now()
        bench.turn()
        self.assertEqual(len(bench.endpoint.asked), 2)
        again = bench.resume(b"on")
        self.assertEqual(bench.script.take(again.take()), b"lost")
        self.assertEqual(tape.received, b"on")
        self.assertEqual(tape.losses, [])

    def test_resume_now_when_lost(self) -> None:
        """resume_now of a stream that is over does nothing."""
        bench, tape, _ = self.dialling()
        tape.wire.abortConnection()
        tape.wire.resume_now()
        bench.turn()
        self.assertEqual([len(bench.endpoint.asked), bench.calls], [1, []])

    def test_late_words_of_an_old_connection(self) -> None:
        """What an old connection does once it was replaced has no effect on the stream."""
        bench, tape, script, wire = self.listening()
        over = bench.resume(script)
        self.assertTrue(wire.aborted)
        bench.turn()
        self.assertTrue(wire.told)
        over.feed(script.send(b"on"))
        self.assertEqual([tape.received, tape.losses], [b"on", []])
        self.assertIsNone(tape.wire.cut_since)


class ProducerTests(BenchCase):
    """Producers and consumers across cuts."""

    def test_push(self) -> None:
        """A push producer is paused by a cut and resumed by the resume, once each."""
        bench, tape, script, wire = self.listening()
        producer = Told()
        tape.wire.registerProducer(producer, True)
        self.assertEqual(producer.calls, [])
        wire.broken()
        self.assertEqual(producer.calls, ["pause"])
        tape.wire.write(b"late")
        self.assertEqual(producer.calls, ["pause"])
        again = bench.resume(script)
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.assertEqual(bench.take(script, again), b"late")
        again.fill()
        again.broken()
        self.assertEqual(producer.calls, ["pause", "resume", "pause"])
        bench.resume(script)
        self.assertEqual(producer.calls, ["pause", "resume"] * 2)

    def test_push_registered_while_cut(self) -> None:
        """A push producer that is registered while cut is paused at once."""
        bench, tape, script, wire = self.listening()
        wire.broken()
        producer = Told()
        tape.wire.registerProducer(producer, True)
        self.assertEqual(producer.calls, ["pause"])
        bench.resume(script)
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_push_into_a_full_connection(self) -> None:
        """A push producer rests while the connection is full; what is written then waits here."""
        bench, tape, script, wire = self.listening()
        producer = Told()
        tape.wire.registerProducer(producer, True)
        wire.fill()
        self.assertEqual(producer.calls, ["pause"])
        tape.wire.write(b"waits")
        self.assertEqual(wire.sent, b"")
        wire.drain()
        self.assertEqual(bench.take(script, wire), b"waits")
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_push_when_lost(self) -> None:
        """A producer of a cut stream that is not resumed is told to stop, once."""
        bench, tape, _, wire = self.listening(wait_timeout=1.0)
        producer = Told()
        tape.wire.registerProducer(producer, True)
        wire.broken()
        bench.pass_time(2.0)
        self.assertEqual(producer.calls, ["pause", "stop"])
        self.assertEqual(self.losses(tape), [StreamConnectionLost])

    def test_pull(self) -> None:
        """A pull producer is not asked while cut, and goes on after the resume."""
        bench, tape, script, wire = self.listening()
        pieces = [bytes([number]) for number in range(20)]

        class Cutting(Pull):
            def resumeProducing(self) -> None:
                super().resumeProducing()
                if len(self.pieces) == 12:
                    bench.clock.callLater(0, wire.broken)

        producer = Cutting(tape.wire, list(pieces))
        tape.wire.registerProducer(producer, False)
        bench.turn()
        left = len(producer.pieces)
        self.assertTrue(0 < left <= 12, left)
        bench.pass_time(1.0)
        self.assertEqual(len(producer.pieces), left)
        again = bench.resume(script)
        bench.turn()
        self.assertEqual(bench.take(script, again), b"".join(pieces))
        self.assertEqual([producer.pieces, producer.stopped], [[], 0])

    def test_abort_in_pause(self) -> None:
        """A producer that aborts when the cut pauses it ends the stream, and leaves nothing."""
        bench, tape, _, wire = self.listening()
        producer = Told()
        tape.wire.registerProducer(producer, True)
        producer.on_pause = tape.wire.abortConnection
        wire.broken()
        bench.turn()
        self.assertEqual(self.losses(tape), [ConnectionAborted])
        self.nothing_left(bench)

    def test_abort_in_pause_dialling(self) -> None:
        """The same on the dialling side: nobody dials for a stream that is over."""
        bench, tape, wire = self.dialling()
        producer = Told()
        tape.wire.registerProducer(producer, True)
        producer.on_pause = tape.wire.abortConnection
        wire.broken()
        bench.pass_time(3.0)
        self.assertEqual(self.losses(tape), [ConnectionAborted])
        self.assertEqual([len(bench.endpoint.asked), bench.calls], [1, []])

    def test_pause_across_a_resume(self) -> None:
        """A paused stream is paused over its next connection, and what comes with the end of the
        handshake waits."""
        bench, tape, script, wire = self.listening()
        wire.feed(script.send(b"before "))
        tape.wire.pauseProducing()
        self.assertFalse(wire.reading)
        wire.broken()
        again = bench.resume(script, b"with it ")
        self.assertFalse(again.reading)
        bench.turn()
        self.assertEqual(tape.received, b"before ")
        tape.within("resumeProducing")
        bench.turn()
        self.assertEqual(tape.received, b"before with it ")
        again.feed(script.send(b"after"))
        self.assertEqual(tape.received, b"before with it after")
        self.assertEqual(tape.faults, [])

    def test_pause_while_cut(self) -> None:
        """pauseProducing while cut holds for the next connection; so does resumeProducing."""
        bench, tape, script, wire = self.listening()
        wire.broken()
        tape.wire.pauseProducing()
        again = bench.resume(script, b"one ")
        self.assertEqual([again.reading, tape.received], [False, b""])
        again.broken()
        tape.wire.resumeProducing()
        third = bench.resume(script, b"two")
        bench.turn()
        self.assertEqual([third.reading, tape.received], [True, b"one two"])

    def test_pause_with_the_first_handshake(self) -> None:
        """Who pauses in connectionMade is given what came with the handshake later."""

        class Shy(Resumable):
            def connectionMade(self) -> None:
                self.wire.pauseProducing()

        tape = Shy()
        bench = Listening(tape)
        script, wire = bench.new(b"rest")
        bench.turn()
        self.assertEqual([tape.received, wire.reading], [b"", False])
        tape.wire.resumeProducing()
        bench.turn()
        wire.feed(script.send(b" more"))
        self.assertEqual(tape.received, b"rest more")

    def test_pause_again_before_it_is_handed_over(self) -> None:
        """resumeProducing and pauseProducing in one turn deliver nothing."""
        bench, tape, script, _ = self.listening()
        tape.wire.pauseProducing()
        again = bench.resume(script, b"rest")
        tape.wire.resumeProducing()
        tape.wire.pauseProducing()
        bench.turn()
        self.assertEqual([tape.received, again.reading], [b"", False])


class UnreadTests(BenchCase):
    """A stream that nobody reads holds little of what its connections bring."""

    def come_back(self, bench: Listening, script: Script, data: bytes) -> Wire:
        """Take over with honest counts, and bring new data with the end of the handshake."""
        wire, answer = bench.asks(script, wrote=bench.snet.streams[1].session.read)
        wire.feed(script.prove(answer[16:]) + data)
        return wire

    def test_resumed_again_and_again(self) -> None:
        """However often a client of a paused stream resumes, and whatever it brings each time:
        MOST_UNREAD bytes are kept, and what its present connection brought."""
        bench, tape, script, _ = self.listening()
        tape.wire.pauseProducing()
        most = 0
        for _ in range(50):
            self.come_back(bench, script, noise(60_000))
            most = max(most, tape.wire.unread)
            self.assertEqual(bench.snet.unread, tape.wire.unread)
        self.assertEqual([most, tape.wire.unread], [120_000, 120_000])
        self.assertLessEqual(tape.wire.session.read, MOST_UNREAD)
        self.assertEqual(tape.wire.replayable + tape.wire.pending, 0)
        tape.wire.resumeProducing()
        bench.turn()
        self.assertEqual(tape.received, noise(60_000) * 2)
        self.assertEqual(tape.wire.unread, 0)

    def test_nothing_lost(self) -> None:
        """What was held with a connection that broke is sent again: nothing is missing, nothing
        comes twice, plain and encrypted, at every place of the bound."""
        for encrypt in (False, True):
            for sizes in (
                (MOST_UNREAD, 1, 1),
                (MOST_UNREAD - 1, 1, 1),
                (MOST_UNREAD + 1, 2, 3),
                (10, MOST_UNREAD, 7, MOST_UNREAD),
                (30_000,) * 7,
            ):
                bench, tape, script, wire = self.listening(encrypt=encrypt, buffer=2**20)
                tape.wire.pauseProducing()
                data = b"".join(noise(size) for size in sizes)
                for number, size in enumerate(sizes):
                    if number % 2:
                        wire.broken()
                    wire = bench.resume(script, noise(size))
                tape.wire.resumeProducing()
                bench.turn()
                self.assertEqual(len(tape.received), len(data))
                self.assertEqual(tape.received, data)
                wire.feed(script.send(b"on"))
                self.assertEqual(tape.received, data + b"on")
                self.assertEqual([tape.wire.unread, tape.losses], [0, []])

    def test_the_connection_breaks_as_it_is_read_on(self) -> None:
        """A cut between resumeProducing and the handing over loses and doubles nothing."""
        bench, tape, script, wire = self.listening(buffer=2**20)
        tape.wire.pauseProducing()
        wire = bench.resume(script, noise(100_000))
        tape.wire.resumeProducing()
        wire.broken()
        bench.turn()
        self.assertEqual(tape.received, b"")
        wire = bench.resume(script)
        bench.turn()
        self.assertEqual(tape.received, noise(100_000))
        self.assertTrue(wire.reading)

    def test_closed_unread(self) -> None:
        """A close drops what nobody read, and counts it as read: the counts stay true, and what
        was written is delivered over the next connection."""
        bench, tape, script, _ = self.listening(buffer=2**20)
        tape.wire.pauseProducing()
        bench.resume(script, noise(60_000))
        wire = bench.resume(script, noise(60_000), prompt=False)
        tape.wire.write(b"last words")
        tape.wire.loseConnection()
        wire.feed(script.send(noise(100)))
        self.assertEqual([tape.wire.unread, tape.wire.session.read], [0, len(script.wrote)])
        wire.broken()
        again = bench.resume(script)
        self.assertEqual(bench.take(script, again), b"last words")
        self.assertEqual(tape.received, b"")

    def test_lost_unread(self) -> None:
        """What nobody read goes with the stream."""
        bench, tape, script, _ = self.listening()
        tape.wire.pauseProducing()
        for _ in range(3):
            self.come_back(bench, script, noise(60_000))
        stream = tape.wire
        stream.abortConnection()
        self.assertEqual([stream.unread, bench.snet.unread], [0, 0])


class CloseTests(BenchCase):
    """loseConnection and abortConnection in every state."""

    def test_lose(self) -> None:
        """A close half-closes behind what was written; the peer's close ends it at once."""
        bench, tape, script, wire = self.listening()
        tape.wire.write(b"bye")
        tape.wire.loseConnection()
        self.assertTrue(wire.fin)
        self.assertFalse(wire.closed)
        self.assertEqual(bench.take(script, wire), b"bye")
        bench.turn()
        self.assertEqual(tape.losses, [])
        wire.half_close()
        bench.turn()
        self.assertEqual(self.losses(tape), [ConnectionDone])
        self.assertEqual(bench.snet.stats.cut, 0)
        self.nothing_left(bench)

    def test_lose_from_a_peer_that_stays(self) -> None:
        """A peer that has all and does not close is given LINGER seconds, then it is dropped."""
        bench, tape, _, wire = self.listening()
        tape.wire.write(b"bye")
        tape.wire.loseConnection()
        bench.pass_time(LINGER - 0.5)
        self.assertEqual([tape.losses, wire.closed], [[], False])
        bench.pass_time(1.0)
        self.assertEqual(self.losses(tape), [ConnectionDone])
        self.nothing_left(bench)

    def test_lose_while_cut(self) -> None:
        """A close while cut, with bytes on their way, delivers after the resume, then closes."""
        bench, tape, script, wire = self.listening()
        wire.prompt = False
        tape.wire.write(b"lost ")
        wire.broken()
        tape.wire.write(b"waits")
        tape.wire.loseConnection()
        bench.pass_time(1.0)
        self.assertEqual(tape.losses, [])
        again = bench.resume(script)
        self.assertEqual(bench.take(script, again), b"lost waits")
        self.assertTrue(again.fin)
        again.half_close()
        bench.turn()
        self.assertEqual(self.losses(tape), [ConnectionDone])
        self.nothing_left(bench)

    def test_lose_while_cut_and_not_resumed(self) -> None:
        """A close while cut whose bytes were never sent ends with the loss when the time is up."""
        bench, tape, _, wire = self.listening(wait_timeout=2.0)
        wire.broken()
        tape.wire.write(b"waits")
        tape.wire.loseConnection()
        bench.pass_time(3.0)
        (loss,) = tape.losses
        self.assertIs(cast(StreamLost, loss.value).reason, Reason.NOT_RESUMED)
        self.nothing_left(bench)

    def test_lose_while_cut_with_all_settled(self) -> None:
        """A close while cut ends at once when the peer's host had all: FIN after the last ack."""
        bench, tape, _, wire = self.listening()
        tape.wire.write(b"all")
        wire.half_close()
        self.assertEqual(tape.losses, [])
        tape.within("loseConnection")
        bench.turn()
        self.assertEqual(self.losses(tape), [ConnectionDone])
        self.assertEqual(tape.faults, [])
        self.nothing_left(bench)

    def test_lose_while_cut_with_nothing_written(self) -> None:
        """A close while cut ends at once when nothing was ever written."""
        bench, tape, _, wire = self.listening()
        wire.broken()
        tape.wire.loseConnection()
        bench.turn()
        self.assertEqual(self.losses(tape), [ConnectionDone])
        self.nothing_left(bench)

    def test_lose_and_then_cut(self) -> None:
        """When the connection breaks before the tail was acknowledged, the close goes on over
        another one."""
        bench, tape, script, wire = self.listening()
        wire.prompt = False
        tape.wire.write(b"tail")
        tape.wire.loseConnection()
        wire.broken()
        self.assertEqual(tape.losses, [])
        bench.pass_time(1.0)
        again = bench.resume(script)
        self.assertEqual(bench.take(script, again), b"tail")
        self.assertTrue(again.fin)
        again.half_close()
        bench.turn()
        self.assertEqual(self.losses(tape), [ConnectionDone])
        self.nothing_left(bench)

    def test_lose_and_then_cut_for_good(self) -> None:
        """An unacknowledged tail waits LINGER seconds, not the wait timeout; then it is over."""
        bench, tape, _, wire = self.listening(wait_timeout=60.0)
        wire.prompt = False
        tape.wire.write(b"tail")
        tape.wire.loseConnection()
        wire.broken()
        bench.pass_time(LINGER - 0.5)
        self.assertEqual(tape.losses, [])
        bench.pass_time(1.0)
        self.assertEqual(self.losses(tape), [ConnectionDone])
        self.nothing_left(bench)

    def test_lose_and_cut_again_and_again(self) -> None:
        """A peer that comes back and breaks off again and again does not keep a closed stream."""
        bench, tape, script, wire = self.listening()
        wire.prompt = False
        tape.wire.write(b"tail")
        tape.wire.loseConnection()
        for _ in range(round(3 * LINGER)):
            if not tape.losses:
                wire.broken()
                bench.pass_time(1.0)
            if not tape.losses:
                wire = bench.resume(script, prompt=False)
        self.assertEqual(self.losses(tape), [ConnectionDone])
        wire.broken()
        self.nothing_left(bench)

    def test_lose_and_the_peer_takes_over(self) -> None:
        """A newcomer for a stream that has closed gets what it lacks and the close; the old
        connection is dropped."""
        bench, tape, script, wire = self.listening()
        tape.wire.write(b"tail")
        tape.wire.loseConnection()
        over = bench.resume(script)
        self.assertEqual(bench.take(script, over), b"tail")
        bench.turn()
        self.assertTrue(wire.closed)
        self.assertTrue(over.fin)
        over.half_close()
        bench.turn()
        self.assertEqual(self.losses(tape), [ConnectionDone])
        self.nothing_left(bench)

    def test_lose_waits_for_room(self) -> None:
        """A close waits for what the connection had no room for."""
        bench, tape, script, wire = self.listening()
        wire.fill()
        tape.wire.write(b"waits")
        tape.wire.loseConnection()
        self.assertFalse(wire.fin)
        wire.drain()
        self.assertEqual(bench.take(script, wire), b"waits")
        self.assertTrue(wire.fin)

    def test_lose_waits_for_a_producer_across_a_cut(self) -> None:
        """A close waits for the producer, across a cut, and delivers what it wrote."""
        bench, tape, script, wire = self.listening()
        producer = Told()
        tape.wire.registerProducer(producer, True)
        tape.wire.loseConnection()
        wire.broken()
        again = bench.resume(script, b"unheard")
        tape.wire.write(b"last")
        self.assertFalse(again.fin)
        tape.wire.unregisterProducer()
        self.assertTrue(again.fin)
        self.assertEqual(bench.take(script, again), b"last")
        self.assertEqual(tape.received, b"")

    def test_lose_in_events(self) -> None:
        """loseConnection within stream_cut and stream_resumed ends the stream."""
        for event in ("on_cut", "on_resumed"):
            bench, tape, script, wire = self.listening()
            setattr(tape, event, lambda tape=tape: tape.wire.loseConnection())
            tape.wire.write(b"bye")
            wire.prompt = False
            wire.acked = 0
            wire.broken()
            again = bench.resume(script)
            self.assertEqual(bench.take(script, again), b"bye", event)
            self.assertTrue(again.fin, event)

    def test_abort(self) -> None:
        """abortConnection ends a live, a paused, a full and a closing stream; nothing is left."""
        states: list[Callable[[Any, Wire], object]] = [
            lambda stream, wire: None,
            lambda stream, wire: stream.pauseProducing(),
            lambda stream, wire: (cast(Any, wire).fill(), stream.write(b"waits")),
            lambda stream, wire: (stream.write(b"x"), stream.loseConnection()),
        ]
        for number, state in enumerate(states):
            bench, tape, _, wire = self.listening()
            state(tape.wire, wire)
            tape.within("abortConnection")
            bench.turn()
            self.assertEqual(self.losses(tape), [ConnectionAborted], number)
            self.assertEqual([wire.closed, tape.faults], [True, []], number)
            self.nothing_left(bench)

    def test_abort_while_cut(self) -> None:
        """abortConnection ends a stream that is cut: idle, with bytes that wait, paused, closing,
        and closed before the cut."""
        states: list[tuple[Callable[[Any], object], Callable[[Any], object]]] = [
            (lambda stream: None, lambda stream: None),
            (lambda stream: None, lambda stream: stream.write(b"waits")),
            (lambda stream: stream.pauseProducing(), lambda stream: None),
            (lambda stream: stream.write(b"x"), lambda stream: stream.loseConnection()),
            (lambda stream: (stream.write(b"x"), stream.loseConnection()), lambda stream: None),
        ]
        for number, (before, after) in enumerate(states):
            bench, tape, script, wire = self.listening()
            wire.prompt = False
            before(tape.wire)
            wire.broken()
            after(tape.wire)
            self.assertEqual(list(bench.snet.waiting), [tape.wire], number)
            tape.within("abortConnection")
            bench.turn()
            self.assertEqual(self.losses(tape), [ConnectionAborted], number)
            late, answer = bench.asks(script)
            self.assertEqual(answer, bytes(24))
            late.half_close()
            self.nothing_left(bench)

    def test_abort_in_events(self) -> None:
        """abortConnection within stream_cut and stream_resumed ends the stream; nothing is
        left."""
        for event in ("on_cut", "on_resumed"):
            bench, tape, script, wire = self.listening()
            setattr(tape, event, lambda tape=tape: tape.within("abortConnection"))
            wire.broken()
            if event == "on_resumed":
                bench.resume(script)
            bench.turn()
            self.assertEqual(self.losses(tape), [ConnectionAborted], event)
            self.assertEqual(tape.faults, [])
            self.nothing_left(bench)

    def end_in_a_take_over(self, event: str, end: str) -> None:
        """The protocol ends its stream within an event of a take-over."""
        bench, tape, script, wire = self.listening()
        setattr(tape, event, lambda: tape.within(end))
        over = bench.resume(script, b"rest")
        bench.turn()
        if over.fin and not over.closed:
            over.half_close()
            bench.turn()
        self.assertEqual(len(tape.losses), 1)
        self.assertEqual([wire.closed, over.closed], [True, True], "a connection is left open")
        self.assertEqual([tape.received, tape.faults], [b"", []])
        self.nothing_left(bench)

    def test_abort_in_the_cut_of_a_take_over(self) -> None:
        """abortConnection within the stream_cut of a take-over closes both connections."""
        self.end_in_a_take_over("on_cut", "abortConnection")

    def test_lose_in_the_cut_of_a_take_over(self) -> None:
        """loseConnection within the stream_cut of a take-over closes both connections."""
        self.end_in_a_take_over("on_cut", "loseConnection")

    def test_abort_in_the_resume_of_a_take_over(self) -> None:
        """abortConnection within the stream_resumed of a take-over closes both connections."""
        self.end_in_a_take_over("on_resumed", "abortConnection")

    def test_lose_in_the_resume_of_a_take_over(self) -> None:
        """loseConnection within the stream_resumed of a take-over closes both connections."""
        self.end_in_a_take_over("on_resumed", "loseConnection")

    def test_abort_dialling(self) -> None:
        """abortConnection of the dialling side: live, cut, dialling, shaking hands."""
        for state in range(4):
            bench, tape, wire = self.dialling()
            again = None
            if state > 0:
                wire.broken()
            if state > 1:
                bench.pass_time(1.5)
            if state > 2:
                again = bench.reach()
            tape.within("abortConnection")
            bench.turn()
            self.assertEqual(self.losses(tape), [ConnectionAborted], state)
            self.assertEqual(bench.endpoint.waiting, [], state)
            self.assertEqual(bench.endpoint.cancelled, state == 2)
            self.assertTrue(again is None or again.closed)
            self.assertTrue(wire.closed)
            self.assertEqual(bench.calls, [], state)

    def test_lose_dialling(self) -> None:
        """A close of the dialling side that the peer answers with its own is no cut: nobody dials
        again."""
        bench, tape, wire = self.dialling()
        tape.wire.write(b"bye")
        tape.wire.loseConnection()
        self.assertTrue(wire.fin)
        wire.half_close()
        bench.turn()
        self.assertEqual(self.losses(tape), [ConnectionDone])
        bench.pass_time(linger())
        self.assertEqual([len(bench.endpoint.asked), bench.calls], [1, []])

    def test_the_peers_close_is_answered(self) -> None:
        """A peer that half-closes is answered with a close, not with a reset, which would hide
        from it that all has arrived."""
        bench, tape, _, wire = self.listening()
        wire.half_close()
        bench.turn()
        self.assertEqual([wire.closed, wire.aborted], [True, False])
        self.assertEqual(tape.events, ["cut"])


class FaultTests(BenchCase):
    """Protocols that raise end their own stream, and only it."""

    def faulty(self, *names: str) -> tuple[Listening, Resumable, Resumable]:
        """A bench whose first stream's protocol raises in those methods, the second does not."""

        class Faulty(Resumable):
            pass

        def fault(self: Any, *args: object) -> None:
            raise ZeroDivisionError("a fault of the protocol")

        for name in names:
            setattr(Faulty, name, fault)
        bad, good = Faulty(), Resumable()
        return Listening(bad, good), bad, good

    def one_fault(self, bench: Listening, bad: Resumable, good: Resumable) -> None:
        """It was logged once, ended its stream, and the other goes on."""
        bench.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.losses(bad), [ConnectionLost])
        self.assertIn("unhandled error in", str(bad.losses[0].value))
        script, wire = bench.new(b"good")
        self.assertEqual([good.received, good.losses], [b"good", []])
        self.assertEqual(list(bench.snet.streams), [script.conn_id])
        good.wire.abortConnection()
        bench.turn()
        self.assertTrue(wire.closed)
        self.nothing_left(bench)

    def test_in_data(self) -> None:
        """A fault in dataReceived."""
        bench, bad, good = self.faulty("dataReceived")
        script, wire = bench.new()
        wire.feed(script.send(b"x"))
        self.one_fault(bench, bad, good)

    def test_in_unread_data(self) -> None:
        """A fault in dataReceived for bytes that had waited."""
        bench, bad, good = self.faulty("dataReceived")
        script, wire = bench.new()
        bad.wire.pauseProducing()
        wire.broken()
        bench.resume(script, b"x")
        bad.wire.resumeProducing()
        self.one_fault(bench, bad, good)

    def test_in_connection_made(self) -> None:
        """A fault in connectionMade; what came with the handshake is dropped."""
        bench, bad, good = self.faulty("connectionMade")
        bench.new(b"rest")
        self.one_fault(bench, bad, good)
        self.assertEqual(bad.received, b"")

    def test_in_stream_cut(self) -> None:
        """A fault in stream_cut."""
        bench, bad, good = self.faulty("stream_cut")
        _, wire = bench.new()
        wire.broken()
        self.one_fault(bench, bad, good)

    def test_in_the_cut_of_a_take_over(self) -> None:
        """A fault in stream_cut when a newcomer takes over."""
        bench, bad, good = self.faulty("stream_cut")
        script, _ = bench.new()
        bench.resume(script)
        self.one_fault(bench, bad, good)

    def test_in_stream_resumed(self) -> None:
        """A fault in stream_resumed."""
        bench, bad, good = self.faulty("stream_resumed")
        script, wire = bench.new()
        wire.broken()
        bench.resume(script, b"rest")
        self.one_fault(bench, bad, good)
        self.assertEqual(bad.received, b"")

    def test_in_a_producer(self) -> None:
        """A fault of a producer, whatever it was asked for."""
        for name, streaming in (("pauseProducing", True), ("resumeProducing", False)):
            bad, good = Resumable(), Resumable()
            bench = Listening(bad, good)
            _, wire = bench.new()
            producer = Told()

            def fault() -> None:
                raise ZeroDivisionError("a fault of the producer")

            setattr(producer, name, fault)
            bad.wire.registerProducer(producer, streaming)
            wire.fill()
            wire.drain()
            self.one_fault(bench, bad, good)
            self.assertEqual(producer.calls, ["stop"])

    def test_in_build_protocol(self) -> None:
        """A dialling factory that raises fails connect() with its error, and the connection is
        not kept."""

        class Bad(OneOf):
            def buildProtocol(self, addr: Any) -> Any:
                raise ZeroDivisionError("a fault of the factory")

        factory = Bad()
        bench = Dialling(factory)
        wire = bench.new()
        bench.turn()
        self.failureResultOf(bench.connected, ZeroDivisionError)
        self.assertTrue(wire.closed)
        self.assertEqual(factory.numPorts, 0)
        self.assertEqual(bench.calls, [])


class LossTests(BenchCase):
    """The end of streams that cannot go on."""

    def test_not_resumed(self) -> None:
        """After the wait timeout the stream is lost, as a StreamLost and a ConnectionLost."""
        bench, tape, script, wire = self.listening(wait_timeout=3.0)
        wire.broken()
        bench.pass_time(2.5)
        self.assertEqual(tape.losses, [])
        bench.pass_time(0.875)
        (loss,) = tape.losses
        self.assertTrue(loss.check(StreamLost))
        self.assertTrue(loss.check(ConnectionLost))
        self.assertIs(cast(StreamLost, loss.value).reason, Reason.NOT_RESUMED)
        self.assertEqual(str(loss.value), Reason.NOT_RESUMED.value)
        late, answer = bench.asks(script)
        self.assertEqual(answer, bytes(24))
        self.assertEqual(bench.snet.stats.refused, {Fault.UNKNOWN_STREAM: 1})
        late.half_close()
        self.nothing_left(bench)

    def test_each_cut_has_the_whole_time(self) -> None:
        """The wait timeout counts from the last cut."""
        bench, tape, script, wire = self.listening(wait_timeout=3.0)
        for _ in range(4):
            wire.broken()
            bench.pass_time(2.5)
            wire = bench.resume(script)
        bench.pass_time(10.0)
        self.assertEqual(tape.losses, [])

    def test_refused(self) -> None:
        """A refusal loses the dialling side's stream at once."""
        bench, tape, wire = self.dialling()
        wire.broken()
        bench.pass_time(1.5)
        bench.reach().feed(bytes(24))
        bench.turn()
        (loss,) = tape.losses
        self.assertIs(cast(StreamLost, loss.value).reason, Reason.RESUME_REFUSED)
        self.assertTrue(loss.check(ConnectionLost))
        self.assertEqual(bench.calls, [])

    def test_impossible(self) -> None:
        """A listening side with counts that cannot be loses the stream; nothing is delivered."""
        for wrote, read in ((2**62, 0), (0, 2**62), (0, 0)):
            bench, tape, wire = self.dialling()
            wire.feed(bench.script.send(b"x"))
            wire.broken()
            bench.pass_time(1.5)
            counts = wrote.to_bytes(8, "little") + read.to_bytes(8, "little")
            again = bench.reach()
            again.feed(counts + b"schwerer" + b"more")
            bench.turn()
            (loss,) = tape.losses
            self.assertIs(cast(StreamLost, loss.value).reason, Reason.RESUME_IMPOSSIBLE)
            self.assertEqual(tape.received, b"x")
            self.assertEqual(bench.calls, [])
            again.broken()

    def test_more_than_the_window(self) -> None:
        """A gap of one byte over the replay buffer is refused; one of its size is filled."""
        for lost, goes_on in ((1000, True), (1001, False)):
            bench, tape, script, wire = self.listening(buffer=1000)
            wire.acked = None
            tape.wire.write(noise(lost))
            wire.broken()
            late, answer = bench.asks(script)
            self.assertEqual(answer != bytes(24), goes_on)
            self.assertEqual(bench.snet.stats.refused[Fault.GAP], not goes_on)
            late.broken()

    def test_late_proof(self) -> None:
        """A proof that comes when the stream is over meanwhile costs only its connection."""
        bench, tape, script, wire = self.listening()
        newcomer, answer = bench.asks(script)
        tape.wire.abortConnection()
        newcomer.feed(script.prove(answer[16:]))
        bench.turn()
        self.assertEqual([wire.closed, newcomer.closed], [True, True])
        self.nothing_left(bench)


class WindowTests(BenchCase):
    """No more is on its way than can be sent again, where the kernel tells."""

    def test_bound(self) -> None:
        """No more than `buffer` bytes are handed on unacknowledged; it goes on by the clock."""
        bench, tape, _, wire = self.listening(buffer=1000)
        wire.prompt = False
        wire.acked = wire.total
        data = noise(10_000)
        tape.wire.write(data)
        got = bytearray()
        for _ in range(200):
            got += wire.take()
            on_its_way = wire.total - (wire.acked or 0)
            self.assertLessEqual(on_its_way, 1000)
            self.assertLessEqual(on_its_way, tape.wire.replayable)
            wire.ack(400)
            bench.clock.advance(0.05)
        self.assertEqual(bytes(got), data)
        self.assertEqual(tape.wire.pending, 0)

    def test_small_writes(self) -> None:
        """The bound holds for many small writes too, and order is kept."""
        bench, tape, _, wire = self.listening(buffer=1000)
        wire.prompt = False
        wire.acked = wire.total
        for number in range(300):
            tape.wire.write(bytes([number & 255]) * 10)
        self.assertLessEqual(wire.total - (wire.acked or 0), 1000)
        got = wire.take()
        while len(got) < 3000:
            wire.ack()
            bench.clock.advance(0.05)
            piece = wire.take()
            self.assertTrue(0 < len(piece) <= 1000)
            got += piece
        self.assertEqual(got, b"".join(bytes([number & 255]) * 10 for number in range(300)))

    def test_nobody_asks_in_vain(self) -> None:
        """While nothing waits nothing is scheduled for the window."""
        bench, tape, _, wire = self.listening(buffer=1000)
        wire.prompt = False
        wire.acked = wire.total
        before = len(bench.calls)
        tape.wire.write(bytes(900))
        self.assertEqual(len(bench.calls), before)
        tape.wire.write(bytes(900))
        self.assertEqual(len(bench.calls), before + 1)
        wire.ack()
        bench.clock.advance(0.05)
        self.assertEqual(len(bench.calls), before)

    def test_producer(self) -> None:
        """A producer rests while the window is full."""
        bench, tape, _, wire = self.listening(buffer=1000)
        wire.prompt = False
        wire.acked = wire.total
        producer = Told()
        tape.wire.registerProducer(producer, True)
        tape.wire.write(bytes(1001))
        self.assertEqual(producer.calls, ["pause"])
        bench.pass_time(1.0)
        self.assertEqual(producer.calls, ["pause"])
        wire.ack()
        bench.clock.advance(0.05)
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_replay_counts(self) -> None:
        """What is sent again counts as on its way."""
        bench, tape, script, wire = self.listening(buffer=1000)
        wire.prompt = False
        wire.acked = wire.total
        tape.wire.write(noise(800))
        wire.broken()
        tape.wire.write(noise(900))
        again = bench.resume(script, prompt=False)
        self.assertLessEqual(len(again.sent), 1000)
        self.assertEqual(again.sent[:800], noise(800))
        again.broken()
        third = bench.resume(script)
        bench.pass_time(1.0)
        self.assertEqual(bench.take(script, third), noise(800) + noise(900))

    def test_cut_while_it_waits_for_room(self) -> None:
        """A cut, and a close, while the window is full leave no delayed call behind."""
        for end in ("abortConnection", "loseConnection"):
            bench, tape, script, wire = self.listening(buffer=1000)
            wire.prompt = False
            wire.acked = wire.total
            tape.wire.write(noise(3000))
            wire.broken()
            again = bench.resume(script)
            bench.pass_time(1.0)
            self.assertEqual(bench.take(script, again), noise(3000))
            again.prompt = False
            tape.wire.write(noise(3000))
            getattr(tape.wire, end)()
            if end == "loseConnection":
                self.assertFalse(again.fin)
                again.prompt = True
                again.ack()
                bench.pass_time(1.0)
                self.assertEqual(bench.take(script, again), noise(3000))
                self.assertTrue(again.fin)
                again.half_close()
            self.nothing_left(bench)

    def test_smallest_windows(self) -> None:
        """A full window of any size is waited for by the clock, not asked without end."""
        for buffer in (1, 2, 3, 4, 5):
            bench, tape, _, wire = self.listening(buffer=buffer)
            wire.prompt = False
            wire.acked = wire.total
            asked = 0

            def acked(transport: Any) -> int:
                nonlocal asked
                asked += 1
                if asked > 100:
                    raise AssertionError("asked without end")
                return cast(int, transport.acked)

            self.patch(carrier, "acked_bytes", acked)
            tape.wire.write(noise(20))
            got = bytearray(wire.take())
            for _ in range(200):
                self.assertLessEqual(len(got), (wire.acked or 0) + buffer)
                wire.ack()
                asked = 0
                bench.clock.advance(0.05)
                got += wire.take()
            self.assertEqual(bytes(got), noise(20), buffer)

    def test_nobody_tells(self) -> None:
        """Where the kernel does not tell, all is handed on."""
        bench, tape, _, wire = self.listening(buffer=1000)
        tape.wire.abortConnection()
        other = Resumable()
        bench.made.append(other)
        self.patch(carrier, "acked_bytes", lambda transport: None)
        _, wire = bench.new()
        other.wire.write(noise(50_000))
        self.assertEqual(wire.take(), noise(50_000))


class MemoryTests(BenchCase):
    """What is held, and for how long."""

    def test_bounded(self) -> None:
        """However much went over a stream, the replay buffer is all that is kept of it."""
        bench, tape, script, wire = self.listening(buffer=1000)
        for _ in range(100):
            tape.wire.write(noise(5000))
        self.assertEqual([bench.snet.replayable, bench.snet.pending], [1000, 0])
        bench.take(script, wire)
        wire.broken()
        tape.wire.write(b"waits")
        self.assertEqual(bench.snet.pending, 5)
        bench.resume(script)
        self.assertEqual([bench.snet.replayable, bench.snet.pending], [5, 0])

    def test_dropped(self) -> None:
        """What waits is dropped with the stream."""
        bench, tape, _, wire = self.listening(wait_timeout=1.0)
        wire.broken()
        tape.wire.write(bytes(10_000))
        bench.pass_time(2.0)
        self.assertEqual([tape.wire.pending, bench.snet.pending], [0, 0])

    def test_released(self) -> None:
        """Once a stream is over nothing of snet holds its protocol, its stream or its
        connections."""
        for end in range(3):
            bench, tape, script, wire = self.listening(wait_timeout=1.0)
            tape.wire.write(b"x")
            wire.broken()
            over = bench.resume(script)
            held = [weakref.ref(tape), weakref.ref(tape.wire), weakref.ref(over)]
            if end == 0:
                tape.wire.abortConnection()
            elif end == 1:
                tape.wire.loseConnection()
                over.half_close()
            else:
                over.broken()
                bench.pass_time(2.0)
            bench.turn()
            self.assertEqual(len(tape.losses), 1)
            bench.wires.clear()
            del tape, wire, over
            gc.collect()
            self.assertEqual([ref() for ref in held], [None] * 3, end)

    def test_old_connections_released(self) -> None:
        """A stream holds its connection in use and none of those before."""
        bench, _, script, wire = self.listening()
        old = weakref.ref(wire)
        bench.resume(script)
        bench.turn()
        bench.wires.clear()
        del wire
        gc.collect()
        self.assertIsNone(old())


class LogTests(BenchCase):
    def test_a_cut_is_no_alarm(self) -> None:
        """Cuts and resumes of the listening side log nothing above info, and no traceback."""
        with LogLines() as log:
            bench, _, script, wire = self.listening()
            wire.broken()
            bench.resume(script)
            bench.turn()
        self.assertEqual([line for line in log.events if "log_failure" in line], [])
        self.assertEqual({event["log_level"].name for event in log.events} - {"info"}, set())

"""What comes before a link may talk: the machines alone, and a port that has several."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import AuthFailed, BadCommand, Reason
from fastway.gateway import Facts, GatewayFactory, PortConfig
from fastway.gateway.facts import facts_of
from fastway.gateway.preface import SECURE_TIMEOUT, TIMEOUT, Chain, Done, KeyHandshake
from tests.support.core import DETERMINISTIC, cut
from tests.support.ends import Harness, LinkTransport
from tests.support.errors import raised
from tests.support.golden import KEY, PING, prove
from tests.support.logs import LogLines
from tests.support.tls import make_certificate


@dataclass
class Greeting:
    """Wants `word`, says `first`, and learns an identity."""

    word: bytes
    first: bytes = b""
    buffer: bytes = field(default=b"", init=False)
    seconds: float | None = None

    def begin(self) -> bytes:
        return self.first

    def feed(self, data: bytes) -> Done | bytes:
        self.buffer += data
        if not self.buffer.startswith(self.word[: len(self.buffer)]):
            raise BadCommand(None, 0)
        if len(self.buffer) < len(self.word):
            return b""
        return Done(self.buffer[len(self.word) :], {"identity": self.word.decode()})

    def refuse(self, reason: Reason) -> bytes:
        return b"no, " + reason.code.encode()

    def why(self, reason: Reason) -> Reason:
        return reason


class ChainTests(SynchronousTestCase):
    """Prefaces, one behind the other."""

    def test_none(self) -> None:
        """Without prefaces nothing is sent and all bytes are the link's."""
        chain = Chain(Facts("somebody"), ())
        self.assertEqual(chain.begin(), b"")
        self.assertEqual(chain.feed(b"abc"), (b"", b"abc"))

    @DETERMINISTIC
    @given(st.lists(st.integers(0, 100), max_size=6))
    def test_two(self, places: list[int]) -> None:
        """Each begins when the one before it is over, wherever the bytes are cut."""
        chain = Chain(
            Facts("somebody"),
            [lambda: Greeting(b"one", b"first"), lambda: Greeting(b"two!", b"second")],
        )
        self.assertEqual(chain.begin(), b"first")
        sent, rest = b"", None
        pieces = cut(b"onetwo!rest", places)
        for number, piece in enumerate(pieces):
            answer, rest = chain.feed(piece)
            sent += answer
            if rest is not None:
                self.assertEqual(rest + b"".join(pieces[number + 1 :]), b"rest")
                break
        self.assertEqual(sent, b"second")
        self.assertEqual(chain.facts, Facts("somebody", identity="two!"))

    def test_failure(self) -> None:
        """An error of one is the chain's."""
        chain = Chain(Facts("somebody"), [lambda: Greeting(b"one")])
        chain.begin()
        raised(BadCommand, chain.feed, b"no")

    def test_key_handshake(self) -> None:
        """The server's handshake learns its id, and gives back what is behind it."""
        preface = KeyHandshake(KEY)
        challenge = preface.begin()
        self.assertEqual(len(challenge), 8)
        answer = prove(challenge, 77)
        self.assertEqual(preface.feed(answer[:7]), b"")
        self.assertEqual(preface.feed(answer[7:] + PING), Done(PING, {"server_id": 77}))

    def test_wrong_key(self) -> None:
        """A wrong proof is an error."""
        preface = KeyHandshake(KEY)
        raised(AuthFailed, preface.feed, prove(preface.begin(), 77, b"guess"))


class FactsTests(SynchronousTestCase):
    """What a new connection's address tells."""

    def test_names(self) -> None:
        """Names are as operators write them, and a host is what neighbours share."""
        for address, name, host in (
            (IPv4Address("TCP", "192.0.2.1", 50), "192.0.2.1:50", "192.0.2.1"),
            (IPv6Address("TCP", "2001:db8::1", 50), "[2001:db8::1]:50", "2001:db8::1"),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 50), "192.0.2.1:50", "192.0.2.1"),
            (UNIXAddress("/run/x"), "/run/x", "/run/x"),
            (None, "?", "?"),
        ):
            with self.subTest(name=name):
                facts = facts_of(address)
                self.assertEqual((facts.name, facts.host), (name, host))


class PortTests(SynchronousTestCase):
    """A port's prefaces, and their bounds."""

    def test_two_on_a_port(self) -> None:
        """A client is known once all prefaces of its port are over; what is behind is packets."""
        harness = Harness()
        harness.clients.prefaces = (
            lambda: Greeting(b"hello", b"who?"),
            lambda: Greeting(b"again", b"who else?"),
        )
        client = harness.client()
        self.assertEqual(client.take(), b"who?")
        client.send(b"hel")
        self.assertFalse(client.link.known)
        client.send(b"loagain" + PING)
        self.assertEqual(client.take(), b"who else?" + PING)
        self.assertTrue(client.link.known)
        self.assertEqual(client.link.facts.identity, "again")

    def test_one_deadline(self) -> None:
        """All prefaces of a link share one deadline."""
        harness = Harness()
        harness.clients.prefaces = (lambda: Greeting(b"hello"), lambda: Greeting(b"again"))
        client = harness.client()
        harness.pass_time(TIMEOUT - 1)
        client.send(b"hello")
        harness.pass_time(1.25)
        self.assertIs(client.lost, Reason.HANDSHAKE_TIMEOUT)

    def test_own_deadline(self) -> None:
        """A preface may have a time of its own, and what follows has its time from then on."""
        for late, lost in ((2.5, False), (3.25, True)):
            harness = Harness()
            harness.clients.prefaces = (
                lambda: Greeting(b"hello", seconds=3),
                lambda: Greeting(b"again"),
                lambda: Greeting(b"last"),
            )
            client = harness.client()
            harness.pass_time(late)
            self.assertEqual(client.lost is not None, lost)
            if lost:
                continue
            client.send(b"hello")
            harness.pass_time(TIMEOUT - 1)
            client.send(b"again")
            self.assertIsNone(client.lost)
            harness.pass_time(1.25)
            self.assertIs(client.lost, Reason.HANDSHAKE_TIMEOUT)

    def test_too_many(self) -> None:
        """Past max_handshakes the oldest under way is dropped, and nobody who is in."""
        harness = Harness(server=PortConfig(max_handshakes=3))
        known = [harness.server(number) for number in range(5)]
        strangers = [harness.stranger() for _ in range(3)]
        self.assertEqual([end.lost for end in strangers], [None] * 3)
        with LogLines() as log:
            fourth = harness.stranger()
        self.assertIs(strangers[0].lost, Reason.TOO_MANY_HANDSHAKES)
        self.assertTrue(strangers[0].transport.aborted)
        self.assertIn("too many handshakes are under way", log.lines[0])
        fourth.send(prove(fourth.take(), 9))
        self.assertTrue(fourth.link.known)
        self.assertEqual([end.lost for end in [*known, *strangers[1:]]], [None] * 7)

    def test_who_went_takes_no_place(self) -> None:
        """Handshakes that ended, however they ended, count no more."""
        harness = Harness(server=PortConfig(max_handshakes=2))
        for _ in range(5):
            harness.stranger().gone()
            end = harness.stranger()
            end.send(bytes(20))
            end.gone()
            harness.server().gone()
        self.assertEqual(len(harness.servers.handshakes), 0)
        first, second = harness.stranger(), harness.stranger()
        self.assertEqual((first.lost, second.lost), (None, None))


class TcpTransport(LinkTransport):
    """What TLS stands on."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is delayed in memory."""


class TlsStranger:
    """A connection of a port behind Twisted's TLS, in memory.

    Attributes:
        ours: What TLS of the gateway's end stands on.
    """

    def __init__(self, harness: Harness, factory: GatewayFactory, own: Any) -> None:
        address = IPv4Address("TCP", "192.0.2.1", 50)
        before = set(harness.service.connected)
        self.harness = harness
        self.ours = TcpTransport(peerAddress=address)
        context = own.options()
        self.wire = cast(Any, TLSMemoryBIOFactory(context, False, factory, harness.clock))
        self.wire = self.wire.buildProtocol(address)
        self.wire.makeConnection(self.ours)
        (self.link,) = set(harness.service.connected) - before
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        self.end = trusting.wrap_bio(self.incoming, self.outgoing)

    def exchange(self) -> None:
        """Both ends read what the other wrote."""
        self.incoming.write(self.ours.value())
        self.ours.clear()
        said = self.outgoing.read()
        if said:
            self.wire.dataReceived(said)
            self.harness.clock.advance(0)

    def shake_hands(self) -> None:
        while True:
            try:
                self.end.do_handshake()
            except ssl.SSLWantReadError:
                self.exchange()
            else:
                self.exchange()
                return


class TlsTests(SynchronousTestCase):
    """A TLS handshake is one of the prefaces: late, or one too many, it is dropped."""

    def setUp(self) -> None:
        self.own = make_certificate()

    def test_known_when_it_is_over(self) -> None:
        """A client behind TLS has no id before that, and needs no byte of its own for it."""
        harness = Harness()
        stranger = TlsStranger(harness, harness.clients, self.own)
        self.assertFalse(stranger.link.known)
        self.assertEqual(len(harness.clients.handshakes), 1)
        stranger.shake_hands()
        self.assertTrue(stranger.link.known)
        self.assertEqual(len(harness.clients.handshakes), 0)
        harness.pass_time(SECURE_TIMEOUT + 1)
        self.assertIsNone(stranger.link.lost)

    def test_hello_that_never_ends(self) -> None:
        """Half a hello is dropped after ten seconds, without an idle timeout and in one line."""
        harness = Harness(client=PortConfig(idle_timeout=0))
        strangers = [TlsStranger(harness, harness.clients, self.own) for _ in range(3)]
        with pytest.raises(ssl.SSLWantReadError):
            strangers[0].end.do_handshake()
        strangers[0].wire.dataReceived(strangers[0].outgoing.read()[:20])
        harness.pass_time(SECURE_TIMEOUT - 0.5)
        self.assertEqual([one.link.lost for one in strangers], [None] * 3)
        with LogLines() as log:
            harness.pass_time(1)
        self.assertEqual([one.link.lost for one in strangers], [Reason.HANDSHAKE_TIMEOUT] * 3)
        self.assertTrue(all(one.ours.aborted for one in strangers))
        self.assertEqual([line for line in log.lines if "no complete handshake" not in line], [])
        self.assertLessEqual(len(log.lines), 1)

    def test_too_many(self) -> None:
        """Past max_handshakes the oldest under way goes, and nobody who is in."""
        harness = Harness(client=PortConfig(max_handshakes=2))
        known = TlsStranger(harness, harness.clients, self.own)
        known.shake_hands()
        strangers = [TlsStranger(harness, harness.clients, self.own) for _ in range(3)]
        self.assertIs(strangers[0].link.lost, Reason.TOO_MANY_HANDSHAKES)
        self.assertEqual([one.link.lost for one in [known, *strangers[1:]]], [None] * 3)

    def test_server(self) -> None:
        """A server's own handshake has its time once TLS is there, and no more."""
        harness = Harness()
        slow, silent = [TlsStranger(harness, harness.servers, self.own) for _ in range(2)]
        harness.pass_time(SECURE_TIMEOUT - 1)
        slow.shake_hands()
        silent.shake_hands()
        harness.pass_time(TIMEOUT - 1)
        slow.exchange()
        slow.end.write(prove(slow.end.read(8), 3))
        slow.exchange()
        self.assertTrue(slow.link.known)
        harness.pass_time(1.25)
        self.assertIsNone(slow.link.lost)
        self.assertIs(silent.link.lost, Reason.HANDSHAKE_TIMEOUT)

"""What comes before a link may talk: the machines alone, and a port that has several."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import AuthFailed, BadCommand, Reason
from fastway.gateway import Facts, PortConfig
from fastway.gateway.facts import facts_of
from fastway.gateway.preface import TIMEOUT, Chain, Done, KeyHandshake
from tests.support.core import DETERMINISTIC, cut
from tests.support.ends import Harness
from tests.support.errors import raised
from tests.support.golden import KEY, PING, prove
from tests.support.logs import LogLines


@dataclass
class Greeting:
    """Wants `word`, says `first`, and learns an identity."""

    word: bytes
    first: bytes = b""
    buffer: bytes = field(default=b"", init=False)

    def begin(self) -> bytes:
        return self.first

    def feed(self, data: bytes) -> Done | bytes:
        self.buffer += data
        if not self.buffer.startswith(self.word[: len(self.buffer)]):
            raise BadCommand(None, 0)
        if len(self.buffer) < len(self.word):
            return b""
        return Done(self.buffer[len(self.word) :], {"identity": self.word.decode()})


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

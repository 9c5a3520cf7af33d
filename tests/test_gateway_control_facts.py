"""Facts as servers are told them: of every way in, and of what others wrote."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from fastway.control import MAX_TEXT, TRANSPORTS, PlayerFacts
from fastway.gateway.facts import Facts, facts_of
from fastway.gateway.players import address_of, player_facts, transport_of
from tests.support.control import FACTS


class AddressTests(SynchronousTestCase):
    """Address and port."""

    def test_addresses(self) -> None:
        for name, wanted in (
            ("203.0.113.9:51123", ("203.0.113.9", 51123)),
            ("[2001:db8::1]:7", ("2001:db8::1", 7)),
            ("2001:db8::1", ("2001:db8::1", 0)),
            ("203.0.113.9", ("203.0.113.9", 0)),
            ("?", ("?", 0)),
        ):
            self.assertEqual(address_of(Facts(name)), wanted, name)
        self.assertEqual(address_of(facts_of(IPv4Address("TCP", "10.0.0.1", 5))), ("10.0.0.1", 5))
        self.assertEqual(address_of(Facts("/run/some.sock", "unix")), ("unix", 0))
        behind = Facts("203.0.113.9:5", "ws+unix", via="unix")
        self.assertEqual(address_of(behind), ("203.0.113.9", 5))


class TransportTests(SynchronousTestCase):
    """The spec's eight names."""

    def test_names(self) -> None:
        for transport, tls, wanted in (
            ("tcp", "", "tcp"),
            ("tls", "TLSv1.3", "tls"),
            ("unix", "", "tcp"),
            ("ws", "", "ws"),
            ("wss", "TLSv1.3", "wss"),
            ("ws+unix", "", "ws"),
            ("snet+tcp", "", "tcp+snet"),
            ("snet+tls", "TLSv1.3", "tls+snet"),
            ("ws+snet+tcp", "", "ws+snet"),
            ("ws+snet+tls", "TLSv1.3", "wss+snet"),
            ("direct+tcp", "", "tcp"),
            ("direct+tls", "TLSv1.3", "tls"),
            ("direct+wss", "TLSv1.3", "wss"),
            ("direct+snet+tcp", "", "tcp+snet"),
        ):
            name = transport_of(Facts("1.2.3.4:5", transport, tls=tls))
            self.assertEqual(name, wanted, transport)
            self.assertIn(name, TRANSPORTS)

    def test_what_others_wrote(self) -> None:
        """Whatever a certificate or a proxy says, a library can read it."""
        for text in ("a\x00b\x85", "\ud800", "x" * (2 * MAX_TEXT), "\u00e9" * MAX_TEXT):
            facts = Facts(
                "1.2.3.4:5", "tls", "10.0.0.2:7, [::1]:8", "TLSv1.3", text, text, "ab" * 32
            )
            told = player_facts(7, facts, "ann", 1.5)
            self.assertEqual(PlayerFacts.read(told.fields()), told)
            self.assertEqual(told.via, "10.0.0.2, ::1")

    def test_spec(self) -> None:
        """The example of the spec."""
        facts = Facts(
            "203.0.113.9:51123",
            "wss",
            "10.0.0.2:443",
            "TLSv1.3",
            "play.example",
            "spiffe://example/player",
            "ab" * 32,
        )
        self.assertEqual(player_facts(7, facts, None, 1763721600.5).fields(), FACTS)

"""Tests of fastway.websocket.forwarded: whom HTTP proxies say that a request is from."""

from __future__ import annotations

import ipaddress
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.config.values import parse_networks
from fastway.networks import Networks
from fastway.websocket import HandshakeRefused, Request, RequestReader, forwarded_for
from fastway.websocket.forwarded import forwarded_nodes
from tests.support.core import DETERMINISTIC
from tests.support.errors import raised
from tests.support.websocket import request

PROXIES = parse_networks("10.0.0.0/8, 2001:db8::/32, unix")
PROXY = "10.1.2.3"
TOKEN = st.text("!#$%&'*+.^_`|~09AZaz-", min_size=1, max_size=8)
TEXT = st.text([chr(number) for number in (9, *range(32, 127), *range(128, 256))], max_size=30)


def asked(**headers: str) -> Request:
    found = RequestReader().feed(request(**cast(Any, headers)))
    assert found is not None
    return found[0]


def old(header: str, peer: str = PROXY, proxies: Networks = PROXIES) -> str | None:
    """What X-Forwarded-For tells."""
    return forwarded_for(asked(x_forwarded_for=header), peer, proxies)


def new(header: str, peer: str = PROXY, proxies: Networks = PROXIES) -> str | None:
    """What Forwarded tells."""
    return forwarded_for(asked(forwarded=header), peer, proxies, "forwarded")


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class ForwardedTests(SynchronousTestCase):
    """Only a trusted peer is believed, in one header, and only the right-most who is no proxy."""

    def test_x_forwarded_for(self) -> None:
        """The header that everybody writes."""
        for peer, header, wanted in (
            (PROXY, "203.0.113.9", "203.0.113.9"),
            (PROXY, "6.6.6.6, 203.0.113.9,10.9.9.9", "203.0.113.9"),
            ("2001:db8::7", "[2001:db9::1]", "[2001:db9::1]"),
            ("2001:db8::7", "2001:db9::1", "[2001:db9::1]"),
            ("unix", "203.0.113.9", "203.0.113.9"),
            ("192.0.2.1", "203.0.113.9", None),
            (PROXY, "203.0.113.9, nonsense", None),
            (PROXY, "203.0.113.9:80", None),
            (PROXY, "[203.0.113.9", None),
            (PROXY, "fe80::1%eth0", None),
            (PROXY, "10.1.1.1", None),
            ("/run/x", "203.0.113.9", None),
        ):
            with self.subTest(peer=peer, header=header):
                self.assertEqual(old(header, peer), wanted)
                self.assertIsNone(old(header, peer, Networks()))
        self.assertIsNone(forwarded_for(asked(), PROXY, PROXIES))

    def test_forwarded(self) -> None:
        """That of the standard."""
        for peer, header, wanted in (
            (PROXY, "for=203.0.113.9", "203.0.113.9"),
            (PROXY, 'For="203.0.113.9:4711";proto=https;by=_gate', "203.0.113.9"),
            (PROXY, "for=6.6.6.6, for=203.0.113.9,for=10.9.9.9", "203.0.113.9"),
            (PROXY, "host=a;FOR=6.6.6.6 ,, proto=http ; for=203.0.113.9 ,", "203.0.113.9"),
            (PROXY, 'for="[2001:db9::1]"', "[2001:db9::1]"),
            (PROXY, 'for="[2001:db9::1]:4711"', "[2001:db9::1]"),
            (PROXY, 'for="[2001:DB9::1]:_port", for="[2001:db8::5]"', "[2001:db9::1]"),
            (PROXY, 'for="2\\03.0.113.9"', "203.0.113.9"),
            (PROXY, 'for=6.6.6.6;x=", for=7.7.7.7", for=203.0.113.9', "203.0.113.9"),
            ("unix", "for=203.0.113.9", "203.0.113.9"),
            ("192.0.2.1", "for=203.0.113.9", None),
            (PROXY, "for=203.0.113.9, for=unknown", None),
            (PROXY, "for=203.0.113.9, for=_hidden", None),
            (PROXY, "for=203.0.113.9, proto=https", None),
            (PROXY, 'for="2001:db9::1"', None),
            (PROXY, 'for="[203.0.113.9"', None),
            (PROXY, 'for="203.0.113.9:"', None),
            (PROXY, 'for="203.0.113.9:123456"', None),
            (PROXY, 'for="203.0.113.999"', None),
            (PROXY, 'for="[2001:db9::1%eth0]"', None),
            (PROXY, "for=10.1.1.1", None),
            (PROXY, ";,", None),
            (PROXY, 'for=""', None),
        ):
            with self.subTest(peer=peer, header=header):
                self.assertEqual(new(header, peer), wanted)
                self.assertIsNone(new(header, peer, Networks()))
        self.assertIsNone(forwarded_for(asked(), PROXY, PROXIES, "forwarded"))

    def test_never_both(self) -> None:
        """The header that no proxy writes says nothing, whoever sent it."""
        both = asked(x_forwarded_for="203.0.113.9", forwarded="for=198.51.100.7")
        self.assertEqual(forwarded_for(both, PROXY, PROXIES), "203.0.113.9")
        self.assertEqual(forwarded_for(both, PROXY, PROXIES, "forwarded"), "198.51.100.7")
        self.assertIsNone(old("203.0.113.9", "192.0.2.1"))
        other = asked(forwarded='for="203.0.113.9')
        self.assertIsNone(forwarded_for(other, PROXY, PROXIES))
        other = asked(x_forwarded_for="203.0.113.9")
        self.assertIsNone(forwarded_for(other, PROXY, PROXIES, "forwarded"))

    def test_malformed(self) -> None:
        """What can be read in two ways is refused; of a stranger it is not even looked at."""
        for header in (
            'for="6.6.6.6, for=203.0.113.9',
            'for=6.6.6.6;x=", for="[2001:db9::1]"',
            'x="\\", for=203.0.113.9',
            "for=a=b",
            "for=6.6.6.6;for=7.7.7.7",
            "for=6.6.6.6;For=7.7.7.7, for=203.0.113.9",
            "for",
            "for=",
            "=6.6.6.6",
            "for =6.6.6.6",
            "for=[2001:db9::1]",
            "for=203.0.113.9 proto=http",
            "203.0.113.9",
        ):
            with self.subTest(header=header):
                error = raised(HandshakeRefused, new, header)
                self.assertIn("its Forwarded header", str(error))
                self.assertTrue(error.answer.startswith(b"HTTP/1.1 400 "))
                self.assertIsNone(new(header, "192.0.2.1"))

    @DETERMINISTIC
    @given(
        st.lists(
            st.lists(st.tuples(TOKEN, TEXT), min_size=1, unique_by=lambda pair: pair[0].lower()),
            max_size=4,
        ),
        st.sampled_from([",", ", ", " ,\t, "]),
        st.sampled_from([";", " ; ", ";;"]),
    )
    def test_written(
        self, elements: list[list[tuple[str, str]]], comma: str, semicolon: str
    ) -> None:
        """Whatever is written by the standard is read as it was meant."""
        header = comma.join(
            semicolon.join(f"{name}={quoted(value)}" for name, value in pairs)
            for pairs in elements
        )
        meant = [
            next((value for name, value in pairs if name.lower() == "for"), "")
            for pairs in elements
        ]
        self.assertEqual(forwarded_nodes(header), meant)

    @DETERMINISTIC
    @given(
        st.one_of(TEXT, st.text('for=";,\\1.[]: ', max_size=30)),
        st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
        st.sampled_from(["", ";proto=https", ';by="_x";host="a.b:1"']),
    )
    def test_client_before(
        self, forged: str, client: ipaddress.IPv4Address | ipaddress.IPv6Address, more: str
    ) -> None:
        """Whatever a client sends, what the proxy adds behind it counts, or it is refused."""
        node = str(client) if client.version == 4 else f'"[{client}]:4711"'
        shown = str(client) if client.version == 4 else f"[{client}]"
        try:
            nodes = forwarded_nodes(f"{forged}, for={node}{more}")
        except HandshakeRefused:
            return
        self.assertEqual(nodes[-1], node.strip('"'))
        told = new(f'for="x", for={node}{more}', PROXY, parse_networks(f"{PROXY}/32"))
        self.assertEqual(told, None if str(client) == PROXY else shown)

    @DETERMINISTIC
    @given(TEXT, TEXT)
    def test_anything(self, left: str, right: str) -> None:
        """Whatever the headers are, there is an address, none, or a refusal."""
        for header in ("x-forwarded-for", "forwarded"):
            fields = {header.replace("-", "_"): f"{left},{right}"}
            try:
                found = forwarded_for(asked(**fields), PROXY, PROXIES, header)
            except HandshakeRefused:
                continue
            if found is not None:
                ipaddress.ip_address(found.strip("[]"))

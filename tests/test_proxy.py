"""The PROXY header: the parser alone, against bytes by hand and against the rules spelled out."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.config.values import parse_networks
from fastway.errors import Reason
from fastway.networks import Networks, packed_address
from fastway.proxy import Header, HeaderReader, HeaderRefused, Tls, crc32c
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised
from tests.support.proxy import (
    ADDRESSES,
    BLOCK,
    CHECK,
    CHECK_LINE,
    CLIENT,
    LINE,
    SIGNATURE,
    block,
    line,
    read,
    slow_sum,
    tls,
    value,
    with_sum,
)

HERE = "192.0.2.1:9010"
V6 = ipaddress.IPv6Address("2001:db8::7").packed + ipaddress.IPv6Address("2001:db8::1").packed
PORTS = bytes.fromhex("15b32332")
UNIX = b"/run/client".ljust(108, b"\0") + b"/run/game".ljust(108, b"\0")

GOOD = (
    (LINE, Header(CLIENT, HERE)),
    (
        b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
        Header("0.0.0.0:0", "255.255.255.255:65535"),
    ),
    (
        b"PROXY TCP6 2001:DB8::7 2001:db8:0:0:0:0:0:1 1 2\r\n",
        Header("[2001:db8::7]:1", "[2001:db8::1]:2"),
    ),
    (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 5555 2\r\n", Header(CLIENT, "[::1]:2")),
    (b"PROXY UNKNOWN\r\n", Header()),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Header()),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", Header()),
    (BLOCK, Header(CLIENT, HERE)),
    (block(V6 + PORTS, 0x21), Header("[2001:db8::7]:5555", "[2001:db8::1]:9010")),
    (block(UNIX, 0x31), Header("/run/client", "/run/game")),
    (block(bytes(216), 0x31), Header("unix", "unix")),
    (block((b"\0abstract".ljust(108, b"\0")) * 2, 0x31), Header("@abstract", "@abstract")),
    (CHECK, Header()),
    (block(b"\xff" * 2048, 0x99, 0x20), Header()),
    (block(b"", 0x00), Header()),
    (block(b"whatever", 0x00), Header()),
    (block(ADDRESSES + value(4, bytes(30)) + value(0xEE, b"x")), Header(CLIENT, HERE)),
    (block(ADDRESSES + value(4, bytes(2048 - 15))), Header(CLIENT, HERE)),
    (
        block(ADDRESSES + value(1, b"h2") + value(2, b"game.example") + value(5, b"\0" * 128)),
        Header(CLIENT, HERE, b"h2", "game.example", b"\0" * 128),
    ),
    (with_sum(ADDRESSES), Header(CLIENT, HERE)),
    (with_sum(ADDRESSES, behind=value(5, b"id")), Header(CLIENT, HERE, unique_id=b"id")),
    (block(ADDRESSES + tls()), Header(CLIENT, HERE, tls=Tls("TLSv1.3", "lobby", True))),
    (
        block(ADDRESSES + tls(client=1, name=b"")),
        Header(CLIENT, HERE, tls=Tls("TLSv1.3", "", False)),
    ),
    (
        block(ADDRESSES + tls(client=5, verify=0, more=value(0x23, b"AES") + value(0x77))),
        Header(CLIENT, HERE, tls=Tls("TLSv1.3", "lobby", True)),
    ),
    (
        block(ADDRESSES + tls(client=7, verify=1)),
        Header(CLIENT, HERE, tls=Tls("TLSv1.3", "lobby", False)),
    ),
    (
        block(ADDRESSES + tls(client=1)),
        Header(CLIENT, HERE, tls=Tls("TLSv1.3", "lobby", False)),
    ),
    (block(ADDRESSES + tls(client=6)), Header(CLIENT, HERE)),
)
"""What is accepted, and what it says."""

BAD = (
    b"PROXY TCP4  203.0.113.7 192.0.2.1 5555 9010\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 9010 \r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 5555\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 9010\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 9010\r\r\n",
    b"PROXY TCP4 203.0.113.7\t192.0.2.1 5555 9010\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 05555 9010\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 00\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 65536\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 99999\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 -1 9010\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 http 9010\r\n",
    "PROXY TCP4 203.0.113.7 192.0.2.1 ٣ 9010\r\n".encode(),
    b"PROXY TCP4 203.0.113.007 192.0.2.1 5555 9010\r\n",
    b"PROXY TCP4 203.0.113 192.0.2.1 5555 9010\r\n",
    b"PROXY TCP4 203.0.113.256 192.0.2.1 5555 9010\r\n",
    b"PROXY TCP4 not-an-address; 192.0.2.1 5555 9010\r\n",
    b"PROXY TCP4 ::1 ::1 5555 9010\r\n",
    b"PROXY TCP6 203.0.113.7 192.0.2.1 5555 9010\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 5555 9010\r\n",
    b"PROXY TCP6 [::1] ::1 5555 9010\r\n",
    b"PROXY TCP6 1::2::3 ::1 5555 9010\r\n",
    b"PROXY UDP4 203.0.113.7 192.0.2.1 5555 9010\r\n",
    b"PROXY tcp4 203.0.113.7 192.0.2.1 5555 9010\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY unknown\r\n",
    b"PROXY \r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * 3000,
    block(ADDRESSES, command=0x22),
    block(ADDRESSES, command=0x2F),
    block(ADDRESSES, command=0x11),
    block(ADDRESSES, command=0x31),
    block(ADDRESSES, 0x10),
    block(ADDRESSES, 0x12),
    block(ADDRESSES, 0x13),
    block(ADDRESSES, 0x01),
    block(ADDRESSES, 0x41),
    block(ADDRESSES[:-1]),
    block(ADDRESSES, 0x21),
    block(ADDRESSES, 0x31),
    block(b""),
    SIGNATURE + bytes.fromhex("21110801") + bytes(2049),
    block(ADDRESSES + b"\x04"),
    block(ADDRESSES + b"\x04\x00"),
    block(ADDRESSES + value(4, b"abc")[:-1]),
    block(ADDRESSES + value(4, b"abc") + b"\x00"),
    block(ADDRESSES + value(2, b"\xff")),
    block(ADDRESSES + value(2, b"a") + value(2, b"b")),
    block(ADDRESSES + value(5, bytes(129))),
    block(ADDRESSES + value(3, bytes(3))),
    block(ADDRESSES + value(3, bytes(4))),
    with_sum(ADDRESSES)[:-1] + b"\x00",
    block(ADDRESSES + value(0x20, bytes(4))),
    block(ADDRESSES + value(0x20, b"\x01" + bytes(4) + b"\x21\x00\x09TLSv1.3")),
    block(ADDRESSES + tls(version=b"\xff")),
    block(ADDRESSES + tls(name=b"\xff")),
    block(ADDRESSES + tls(more=value(0x22, b"admin"))),
    block(ADDRESSES + tls() + tls()),
)
"""What breaks the rules."""

NOT = (
    b"GET / HTTP/1.1\r\n",
    b"\x09\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x16\x03\x01",
    b"proxy TCP4 ",
    b"PROXY\r\n",
    b"PROXY\r TCP4 ",
    b" PROXY ",
    b"\r\n\r\n\x00\r\nQUIT\r",
    b"\r\nPROXY ",
)
"""What is no header at all."""


def feed(pieces: list[bytes]) -> tuple[Header, bytes] | None:
    """The header, and what stands behind it in the pieces."""
    reader = HeaderReader()
    for number, piece in enumerate(pieces):
        found = reader.feed(piece)
        if found is not None:
            return found[0], found[1] + b"".join(pieces[number + 1 :])
    return None


def bytes_of(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


class ReaderTests(SynchronousTestCase):
    """Headers by hand."""

    def test_good(self) -> None:
        """What the rules allow is read, whole and byte by byte, and what is behind it stays."""
        for data, header in GOOD:
            with self.subTest(data=data):
                self.assertEqual(feed([data]), (header, b""))
                self.assertEqual(feed([data + data]), (header, data))
                self.assertEqual(feed(bytes_of(data + b"rest")), (header, b"rest"))
                self.assertIsNone(feed(bytes_of(data[:-1])))

    def test_bad(self) -> None:
        """What they do not allow is refused, and nothing is waited for without need."""
        for data in BAD:
            with self.subTest(data=data):
                for pieces in ([data], [data + b"rest"], bytes_of(data)):
                    error = raised(HeaderRefused, feed, pieces)
                    self.assertIs(error.reason, Reason.PROXY_BAD_HEADER)
                    self.assertLess(len(str(error)), 200)

    def test_not(self) -> None:
        """What is none is seen with the first byte that cannot be."""
        for data in NOT:
            with self.subTest(data=data):
                for pieces in ([data], bytes_of(data)):
                    error = raised(HeaderRefused, feed, pieces)
                    self.assertIs(error.reason, Reason.PROXY_NOT_HEADER)
        self.assertIn("b'GET / HTTP/1.1", str(raised(HeaderRefused, feed, [NOT[0] * 99])))
        raised(HeaderRefused, feed, [b"G"])

    def test_early(self) -> None:
        """A wrong version or command, or a length over the bound, is refused at once."""
        raised(HeaderRefused, feed, [SIGNATURE + b"\x11"])
        raised(HeaderRefused, feed, [SIGNATURE + b"\x22"])
        raised(HeaderRefused, feed, [SIGNATURE + bytes.fromhex("21110801")])

    def test_began(self) -> None:
        """Whether any byte came is known: who says nothing is no broken proxy."""
        reader = HeaderReader()
        self.assertIsNone(reader.feed(b""))
        self.assertFalse(reader.began)
        reader.feed(b"\r")
        self.assertTrue(reader.began)

    def test_sum(self) -> None:
        """The checksum is that of RFC 3720, appendix B.4, and goes on where it stopped."""
        for data, wanted in (
            (b"123456789", 0xE3069283),
            (bytes(32), 0x8A9136AA),
            (b"\xff" * 32, 0x62A8AB43),
            (bytes(range(32)), 0x46DD794E),
            (b"", 0),
        ):
            self.assertEqual(crc32c(data), wanted)
            self.assertEqual(slow_sum(data), wanted)
            self.assertEqual(crc32c(data[5:], crc32c(data[:5])), wanted)

    def test_sum_by_hand(self) -> None:
        """A whole header with its checksum, of which no bit may change."""
        data = bytes.fromhex(
            "0d0a0d0a000d0a515549540a 21 11 0013 cb007107 c0000201 15b3 2332 03 0004 dd626db8"
        )
        self.assertEqual(feed([data]), (Header(CLIENT, HERE), b""))
        for place in range(8 * 16, 8 * len(data)):
            if place // 8 == 28:
                continue  # the type: it would be another value, and no checksum
            flipped = bytearray(data)
            flipped[place // 8] ^= 1 << place % 8
            raised(HeaderRefused, feed, [bytes(flipped)])


FAMILIES = st.ip_addresses(v=4), st.ip_addresses(v=6)
HOSTS = st.one_of(*FAMILIES)
NUMBERS = st.integers(0, 65535)
TEXTS = st.text(max_size=60)
VALUES = st.one_of(
    st.builds(value, st.just(1), st.binary(max_size=20)),
    st.builds(lambda text: value(2, text.encode("utf-8")), TEXTS),
    st.builds(value, st.just(5), st.binary(max_size=128)),
    st.builds(
        lambda client, verify, version, name, more: tls(
            client, verify, version.encode(), name.encode(), more
        ),
        st.integers(0, 255),
        st.sampled_from((0, 0, 1, 2**32 - 1)),
        TEXTS,
        TEXTS,
        st.builds(value, st.sampled_from((0x23, 0x24, 0x99)), st.binary(max_size=20)),
    ),
    st.builds(value, st.sampled_from((4, 0x30, 0xE0, 0xEF, 0x00)), st.binary(max_size=40)),
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A header of version 1."""
    hosts = draw(st.sampled_from(FAMILIES))
    one, two = draw(hosts), draw(hosts)
    shown = draw(
        st.sampled_from((str, lambda host: host.exploded, lambda host: str(host).upper()))
    )
    return line(shown(one), shown(two), draw(NUMBERS), draw(NUMBERS))


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """A header of version 2."""
    kind = draw(st.sampled_from((0x11, 0x21, 0x31)))
    if kind == 0x31:
        body = b"".join(draw(st.binary(min_size=108, max_size=108)) for _ in range(2))
    else:
        hosts = FAMILIES[kind == 0x21]
        body = draw(hosts).packed + draw(hosts).packed
        body += b"".join(draw(NUMBERS).to_bytes(2, "big") for _ in range(2))
    found = {data[0]: data for data in draw(st.lists(VALUES, max_size=5))}
    body += b"".join(found.values())
    if draw(st.booleans()):
        return with_sum(body, kind, value(0xEA, b"behind"))
    return block(body, kind)


HEADERS = st.one_of(lines(), blocks(), st.just(CHECK), st.just(CHECK_LINE))


def agree(data: bytes, pieces: list[bytes]) -> None:
    """The reader does what the rules say, however the bytes come."""
    wanted = read(data)
    try:
        found = feed(pieces)
    except HeaderRefused as error:
        reason = {"bad": Reason.PROXY_BAD_HEADER, "not": Reason.PROXY_NOT_HEADER}
        assert wanted.refused, (data, error)
        assert error.reason is reason[wanted.refused], (data, error)
        return
    assert not wanted.refused, data
    if found is None:
        assert wanted.size == 0, data
        return
    header, rest = found
    assert rest == data[wanted.size :]
    assert (header.source, header.destination) == (wanted.source, wanted.destination)
    told = wanted.told if wanted.source else {}
    assert header.alpn == told.get(0x01, b"")
    assert header.authority == told.get(0x02, b"").decode()
    assert header.unique_id == told.get(0x05, b"")
    info = told.get(0x20, bytes(5))
    if not info[0] & 1:
        assert header.tls is None
        return
    assert header.tls is not None
    assert header.tls.version == (told.get(0x21, b"").decode() or "TLS")
    assert header.tls.name == told.get(0x22, b"").decode()
    assert header.tls.verified == (bool(info[0] & 6) and info[1:5] == bytes(4))


class FuzzTests(SynchronousTestCase):
    """Headers by the hundred, and what is made of them, beside the rules."""

    @DETERMINISTIC
    @given(HEADERS, st.binary(max_size=30), st.lists(st.integers(0, 3000), max_size=6))
    def test_round_trip(self, data: bytes, rest: bytes, places: list[int]) -> None:
        """Every header is read for what was written, wherever it is cut."""
        self.assertEqual(read(data).size, len(data))
        agree(data + rest, cut(data + rest, places))

    @DETERMINISTIC
    @given(
        HEADERS,
        st.integers(0, 3000),
        st.integers(0, 6),
        st.one_of(
            st.binary(max_size=6),
            st.sampled_from((b" ", b"\r", b"\n", b"0", b"-", b"::", b".", b"\0", b"\x03\0\4")),
        ),
        st.lists(st.integers(0, 3000), max_size=4),
    )
    def test_mutations(
        self, data: bytes, place: int, removed: int, added: bytes, places: list[int]
    ) -> None:
        """A header with something wrong in it is refused exactly if the rules say so."""
        place %= len(data) + 1
        broken = data[:place] + added + data[place + removed :]
        agree(broken, cut(broken, places))

    @DETERMINISTIC
    @given(
        st.binary(max_size=300), st.sampled_from((b"", b"PROXY ", SIGNATURE, SIGNATURE + b"!\x11"))
    )
    def test_noise(self, noise: bytes, begin: bytes) -> None:
        """Noise is refused, or more is wanted, or it happens to be a header."""
        agree(begin + noise, [begin + noise])

    @DETERMINISTIC
    @given(st.integers(0, 216), st.integers(0, 255), st.integers(0, 2100))
    def test_lengths(self, size: int, family: int, told: int) -> None:
        """Any family with any length, right or wrong."""
        data = SIGNATURE + bytes((0x21, family)) + told.to_bytes(2, "big") + bytes(size)
        agree(data, [data])


class NetworksTests(SynchronousTestCase):
    """Lists of networks."""

    def test_who_is_in(self) -> None:
        """An address is in a list, by whichever family it came."""
        listed = parse_networks("10.0.0.0/8, 192.0.2.7, 2001:db8::/32 ::1, unix")
        for peer in (
            "10.0.0.0",
            "10.255.255.255",
            "192.0.2.7",
            "::ffff:10.1.2.3",
            "::ffff:a01:203",
            "2001:db8:ffff::1",
            "::1",
            "unix",
        ):
            self.assertIn(peer, listed)
        for peer in (
            "11.0.0.0",
            "9.255.255.255",
            "192.0.2.8",
            "2001:db9::",
            "::2",
            "::ffff:11.1.2.3",
            "",
            "?",
            "local",
            "10.0.0",
            "010.0.0.1",
            "10.0.0.1\0",
            "ü",
            "/run/x",
        ):
            self.assertNotIn(peer, listed)
        self.assertNotIn("unix", parse_networks("0.0.0.0/0"))
        self.assertIn("1.2.3.4", parse_networks("0.0.0.0/0"))
        self.assertNotIn("::1", parse_networks("0.0.0.0/0"))
        self.assertIn("fe80::1%eth0", parse_networks("fe80::/10"))
        self.assertIn("10.0.0.1", parse_networks("::ffff:10.0.0.0/104"))
        self.assertNotIn("11.0.0.1", parse_networks("::ffff:10.0.0.0/104"))
        self.assertNotIn("10.0.0.1", Networks())
        self.assertNotIn(7, listed)

    @DETERMINISTIC
    @given(st.lists(st.tuples(HOSTS, st.integers(0, 128)), max_size=8), HOSTS)
    def test_as_ipaddress(self, given: list[tuple[object, int]], peer: object) -> None:
        """It says what the objects of `ipaddress` say."""
        networks = []
        for host, length in given:
            length %= 33 if isinstance(host, ipaddress.IPv4Address) else 129
            networks.append(ipaddress.ip_network((str(host), length), strict=False))
        listed = Networks(tuple(networks))
        for network in networks[:]:
            mapped = getattr(network.network_address, "ipv4_mapped", None)
            if mapped is not None and network.prefixlen >= 96:
                networks.append(ipaddress.ip_network((str(mapped), network.prefixlen - 96)))
        for one in (peer, *(host for host, _ in given)):
            address = one
            if isinstance(one, ipaddress.IPv6Address) and one.ipv4_mapped is not None:
                address = one.ipv4_mapped
            self.assertEqual(str(one) in listed, any(address in network for network in networks))

    def test_packed(self) -> None:
        """An IPv4 address within IPv6 is one of 4 bytes."""
        self.assertEqual(packed_address("::ffff:1.2.3.4"), bytes((1, 2, 3, 4)))
        self.assertIsNone(packed_address("1.2.3"))

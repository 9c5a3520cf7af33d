"""PROXY headers for game servers: written as others read them, and first of all on both lanes."""

from __future__ import annotations

import socket
import ssl
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from fastway.control import MAX_TEXT
from fastway.errors import ConfigError
from fastway.gateway.facts import Facts
from fastway.gateway.introduce import Introductions
from fastway.gateway.link import GatewayLink
from fastway.proxy import MAX_BLOCK, MAX_HEADER, Header, HeaderReader, Tls, encode_header
from fastway.router import Link
from fastway.testing import LocalGateway, MemoryGateway
from fastway.wire import encode_dial, encode_packet
from tests.support.core import DETERMINISTIC
from tests.support.errors import raised
from tests.support.files import scratch
from tests.support.gateways import GatewayTestCase
from tests.support.golden import KEY
from tests.support.paths import on_both_paths
from tests.support.proxy import BLOCK, CLIENT, block, tls, value
from tests.support.sockets import Peer
from tests.support.tls import make
from tests.support.waits import SECONDS, reactor

HERE = "192.0.2.1:9010"


def read(data: bytes) -> Header:
    """What stands in bytes that are a header and nothing else."""
    found = HeaderReader().feed(data)
    assert found is not None and found[1] == b"", data
    return found[0]


def values(data: bytes) -> dict[int, bytes]:
    """The values behind the addresses of a header."""
    found = {}
    at = 16 + {0x11: 12, 0x21: 36, 0x31: 216, 0: 0}[data[13]]
    while at < len(data):
        end = at + 3 + int.from_bytes(data[at + 1 : at + 3], "big")
        found[data[at]] = data[at + 3 : end]
        at = end
    return found


PORTS = st.integers(0, 65535)
V4 = st.builds("{}:{}".format, st.ip_addresses(v=4), PORTS)
V6 = st.builds("[{}]:{}".format, st.ip_addresses(v=6), PORTS).filter(lambda it: "::ffff" not in it)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


class EncodeTests(SynchronousTestCase):
    """The bytes."""

    def test_golden(self) -> None:
        self.assertEqual(encode_header(Header(CLIENT, HERE)), BLOCK)
        with_all = Header(CLIENT, HERE, b"h2", "play", b"7", Tls("TLSv1.3", "lobby", True))
        self.assertEqual(
            encode_header(with_all, [(0xE1, b"9"), (0xE2, b"")]),
            block(
                BLOCK[16:]
                + value(1, b"h2")
                + value(2, b"play")
                + value(5, b"7")
                + tls()
                + value(0xE1, b"9")
                + value(0xE2)
            ),
        )
        without = Header(CLIENT, HERE, tls=Tls("TLSv1.3", "", False))
        self.assertEqual(
            encode_header(without), block(BLOCK[16:] + tls(client=1, verify=1, name=b""))
        )

    def test_ends(self) -> None:
        """Kinds that are mixed are IPv6; what is no address is a unix socket's, or unknown."""
        for source, destination, kind, wanted in (
            ("[2001:db8::7]:1", HERE, 0x21, Header("[2001:db8::7]:1", HERE)),
            (CLIENT, "[2001:db8::7]:1", 0x21, Header(CLIENT, "[2001:db8::7]:1")),
            ("[::ffff:203.0.113.7]:5555", HERE, 0x11, Header(CLIENT, HERE)),
            ("[fe80::1%eth0]:1", "[::1]:2", 0x21, Header("[fe80::1]:1", "[::1]:2")),
            (CLIENT, "", 0x11, Header(CLIENT, "0.0.0.0:0")),
            ("[::7]:1", "/run/x", 0x21, Header("[::7]:1", "[::]:0")),
            ("unix", "", 0x31, Header("unix", "unix")),
            ("/run/x", HERE, 0x31, Header("/run/x", "unix")),
            ("", HERE, 0, Header()),
        ):
            data = encode_header(Header(source, destination))
            self.assertEqual((data[13], read(data)), (kind, wanted), source)

    def test_too_long(self) -> None:
        room = MAX_BLOCK - 12 - 3
        self.assertEqual(
            len(encode_header(Header(CLIENT, HERE), [(0xE0, bytes(room))])), MAX_HEADER
        )
        raised(ValueError, encode_header, Header(CLIENT, HERE), [(0xE0, bytes(room + 1))])
        raised(ValueError, encode_header, Header(CLIENT, HERE, unique_id=bytes(129)))

    @DETERMINISTIC
    @given(
        st.one_of(st.tuples(V4, V4), st.tuples(V6, V6)),
        TEXT,
        st.binary(max_size=128),
        st.none() | st.builds(Tls, TEXT.filter(bool), TEXT, st.booleans()),
        st.lists(st.tuples(st.integers(0xE0, 0xEF), st.binary(max_size=40)), max_size=4),
    )
    def test_reads(
        self,
        ends: tuple[str, str],
        authority: str,
        unique_id: bytes,
        secured: Tls | None,
        more: list[tuple[int, bytes]],
    ) -> None:
        """Our own reader has what was written, and Twisted's the addresses."""
        header = Header(*ends, b"", authority, unique_id, secured)
        data = encode_header(header, more)
        self.assertEqual(read(data), header)
        for kind, said in dict(more).items():
            self.assertEqual(values(data)[kind], said)
        info = V2Parser.parse(data)
        for name, address in zip(ends, (info.source, info.destination), strict=True):
            self.assertEqual(read(encode_header(Header(name, name))).source, name)
            self.assertEqual(f"{name.rpartition(':')[2]}", str(cast(Any, address).port))


class FakeLane:
    def socket(self) -> Any:
        raise OSError


class MessageTests(SynchronousTestCase):
    """Whatever is known of a client, and whatever others wrote of it."""

    def say(self, facts: Facts, user: str | None = None, server_id: int = 5) -> bytes:
        link = GatewayLink.__new__(GatewayLink)
        link.link_id, link.facts, link.user = 7, facts, user
        link.lane = cast(Any, FakeLane())
        server = Link.__new__(Link)
        server.link_id = server_id
        return Introductions({5, 6}, "gw" * 200).message(link, server, 2**32 - 1)

    def test_chosen(self) -> None:
        """Only for those who were chosen."""
        self.assertEqual(self.say(Facts(CLIENT), server_id=7), b"")
        self.assertNotEqual(self.say(Facts(CLIENT), server_id=6), b"")

    def test_all(self) -> None:
        facts = Facts(
            CLIENT, "ws+snet+tls", "10.0.0.2:1", "TLSv1.3", "play.example", "spiffe://x", "ab" * 32
        )
        data = self.say(facts, "ann é")
        header = read(data)
        self.assertEqual((header.source, header.destination), (CLIENT, "0.0.0.0:0"))
        self.assertEqual(header.tls, Tls("TLSv1.3", "spiffe://x", True))
        self.assertEqual(header.authority, "play.example")
        self.assertEqual(len(header.unique_id), 96 + len(b":7:4294967295"))
        told = values(data)
        self.assertEqual((told[0xE0], told[0xE1]), (b"wss+snet", b"7"))
        self.assertEqual(told[0xE2].decode(), "ann é")

    def test_little(self) -> None:
        data = self.say(Facts("?", "unix"))
        self.assertEqual(read(data).source, "unix")
        self.assertEqual(set(values(data)), {5, 0xE0, 0xE1})

    def test_most(self) -> None:
        """The longest that can be told fits; what is longer is not told by half."""
        for text in ("x" * 1024, "x" * 1025, "é" * MAX_TEXT):
            facts = Facts("x" * 200, "wss", "", text, text, text, "ab" * 32)
            data = self.say(facts, "u" * 128)
            header = read(data)
            assert header.tls is not None
            told = text if len(text.encode()) <= 255 else ""
            self.assertEqual(header.authority, told)
            named = text if len(text.encode()) <= 1024 else ""
            self.assertEqual(header.tls, Tls("TLS", named, True))
            self.assertLessEqual(len(data), MAX_HEADER)


@on_both_paths
class OrderTests(GatewayTestCase):
    """Over sockets: before all that the client says, and nowhere else."""

    async def open(self, **options: Any) -> LocalGateway:
        gateway = LocalGateway(
            reactor, KEY, relay="on" if self.relay else "off", proxy_to_servers="1, 5-6", **options
        )
        self.addCleanup(gateway.stop)
        return await gateway.start()

    async def test_dialled(self) -> None:
        gateway = await self.open()
        server = await self.server(gateway)
        control = await server.when_control()
        assert control is not None
        peer = cast(Peer, await gateway.client.connect(cast(Any, Factory.forProtocol(Peer))))
        guessed = 1 + max(gateway.service.router.services)
        peer.send(encode_dial(1) + encode_packet(guessed, b"hello"))  # in one read
        visit = await server.accept()
        data = await visit.receive()
        self.assertEqual(await visit.receive(), b"hello")
        header = read(data)
        host = peer.wire.getHost()
        self.assertEqual(header.source, f"127.0.0.1:{host.port}")
        self.assertEqual(header.destination, f"127.0.0.1:{gateway.client_port}")
        assert visit.facts is not None
        self.assertEqual(header.source.rpartition(":")[2], str(visit.facts.port))
        self.assertEqual(values(data)[0xE1], str(visit.remote_id).encode())
        self.assertTrue(header.unique_id.endswith(b":%d:%d" % (visit.remote_id, visit.conn_id)))
        await control.user(visit, "ann")
        peer.send(encode_dial(1))
        again = await server.accept()
        self.assertEqual(values(await again.receive())[0xE2], b"ann")
        self.assertEqual((visit.unread, again.unread), (0, 0))

    async def test_others(self) -> None:
        """A server that was not chosen, and one that dials a client itself."""
        gateway = await self.open()
        chosen, other = await self.server(gateway), await self.server(gateway, server_id=2)
        client = await self.client(gateway)
        conn = await client.dial(2)
        conn.send(b"to the other")
        visit = await other.accept()
        self.assertEqual(await visit.receive(), b"to the other")
        mine = await chosen.dial(visit.remote_id)
        (await client.accept()).send(b"it was dialled")
        self.assertEqual(await mine.receive(), b"it was dialled")

    async def test_direct(self) -> None:
        """Whose server is dialled for it."""
        gateway = await self.open(direct="web=127.0.0.1:0->5")
        server = await self.server(gateway, server_id=5)
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", gateway.direct_ports["web"])
        peer = cast(Peer, await where.connect(cast(Any, Factory.forProtocol(Peer))))
        peer.send(b"GET / HTTP/1.0\r\n\r\n")
        visit = await server.accept()
        header = read(await visit.receive())
        self.assertEqual(header.destination, f"127.0.0.1:{gateway.direct_ports['web']}")
        self.assertEqual(await visit.receive(), b"GET / HTTP/1.0\r\n\r\n")
        visit.send(b"hello")
        await peer.expect(b"hello")

    async def test_tls(self) -> None:
        """What its client asked for, and whom its certificate names."""
        authority = make("authority")
        own = make("localhost", ["localhost"], signer=authority)
        mine = make("game", uri="spiffe://x/ann", signer=authority)
        directory = scratch(self)
        files = {
            name: f"{directory}/{name}.pem" for name in ("own", "own-key", "mine", "key", "ca")
        }
        own.write(files["own"], files["own-key"])
        mine.write(files["mine"], files["key"])
        authority.write(files["ca"], f"{directory}/ca-key.pem")
        gateway = await self.open(
            client_tls_cert=files["own"],
            client_tls_key=files["own-key"],
            client_tls_client_ca=files["ca"],
            client_tls_client_auth="require",
        )
        server = await self.server(gateway)
        context = ssl.create_default_context(cafile=files["ca"])
        context.load_cert_chain(files["mine"], files["key"])

        def come() -> ssl.SSLSocket:
            plain = socket.create_connection(("127.0.0.1", gateway.client_port), SECONDS)
            secured = context.wrap_socket(plain, server_hostname="localhost")
            secured.sendall(encode_dial(1))
            return secured

        secured = await deferToThread(come)
        self.addCleanup(secured.close)
        data = await (await server.accept()).receive()
        header = read(data)
        self.assertEqual(header.authority, "localhost")
        self.assertEqual(header.tls, Tls("TLSv1.3", "spiffe://x/ann", True))
        self.assertEqual(values(data)[0xE0], b"tls")


class OptionTests(SynchronousTestCase):
    def test_no_room(self) -> None:
        """Where a header may not fit a packet, the gateway does not start."""
        error = raised(ConfigError, MemoryGateway, proxy_to_servers="1", max_packet=MAX_HEADER + 3)
        self.assertIn("give --max-packet 2068 or more", str(error))
        with MemoryGateway(proxy_to_servers="1", max_packet=MAX_HEADER + 4) as gateway:
            self.assertIsNotNone(gateway.service.router.introduce)
        with MemoryGateway(max_packet=100) as gateway:
            self.assertIsNone(gateway.service.router.introduce)

"""What every lane promises inside of TLS.

Rule: all of `support.lanes` holds there too; here is what only TLS has. The peer is Python's own
ssl, over memory: what it sends may be cut, spoilt or left out.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from contextlib import suppress
from functools import partial
from typing import Any, cast

from fastway.certificates import CertificateStore, Places
from fastway.gateway import GatewayFactory
from fastway.gateway.lane import End
from fastway.gateway.tls import Contexts, TlsFactory
from fastway.wire import bare_messages
from tests.support import lanes
from tests.support.golden import packet
from tests.support.sockets import Peer
from tests.support.tls import make
from tests.support.waits import later, reactor, until


class TlsPeer(Peer):
    """A peer that speaks TLS.

    Attributes:
        up: Its handshake is over.
        told: What was wrong with TLS.
        over: The other side has ended TLS.
    """

    most = ssl.TLSVersion.MAXIMUM_SUPPORTED

    def __init__(self) -> None:
        super().__init__()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = self.most
        self._into, self._from = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._into, self._from)
        self._early = b""
        self.up = False
        self.over = False
        self.told = ""

    def connectionMade(self) -> None:
        self._go_on()

    def send(self, data: bytes) -> None:
        if self.up:
            self.sent += len(data)
            self.wire.write(self.seal(data))
        else:
            self._early += data

    def seal(self, data: bytes) -> bytes:
        """What these bytes are on their way."""
        sealed = b""
        for at in range(0, len(data), 1 << 14):
            self._tls.write(data[at : at + (1 << 14)])
            sealed += self._from.read()
        return sealed

    def farewell(self) -> bytes:
        """The end of TLS."""
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._from.read()

    def end(self) -> None:
        self.wire.write(self.farewell())
        super().end()

    def was_told(self) -> str:
        return self.told

    def is_over(self) -> bool:
        return self.over

    def dataReceived(self, data: bytes) -> None:
        self._into.write(data)
        self._go_on()

    def _go_on(self) -> None:
        try:
            if not self.up:
                self._tls.do_handshake()
                self.up = True
                # What is said at once goes with the last bytes of the handshake.
                early = self._from.read() + self.seal(self._early)
                self.sent += len(self._early)
                self.wire.write(early)
            while piece := self._tls.read(1 << 16):
                super().dataReceived(piece)
            self._ends()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ends()
        except ssl.SSLError as error:
            self.told = str(error.reason)
        if sealed := self._from.read():
            self.wire.write(sealed)

    def _ends(self) -> None:
        if not self.over:
            self.over = True
            self.wire.write(self.farewell())
            self.wire.loseConnection()


class OldPeer(TlsPeer):
    """TLS 1.2."""

    most = ssl.TLSVersion.TLSv1_2


class TlsLaneChecks(lanes.LaneChecks):
    """The checks, and those of TLS alone.

    Attributes:
        halves: TLS can be ended one way alone.
    """

    peer = TlsPeer
    halves = False

    def tls(self, factory: GatewayFactory) -> TlsFactory:
        """The layer of a port, with a certificate of its own."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "own.pem")
        make("localhost", ["localhost"]).write(path)
        contexts = Contexts()
        store = CertificateStore("client", Places(path), contexts)
        self.made = TlsFactory(cast(Any, factory), reactor, contexts, store)
        return self.made

    async def begun(self, holds: bool = False, **config: Any) -> tuple[Any, Any, TlsPeer]:
        lane, reports, made = await self.make(holds, **config)
        peer = cast(TlsPeer, made)
        await until("its handshake", lambda: peer.up)
        self.start(lane)
        return lane, reports, peer

    @staticmethod
    def got(reports: Any, packets: bytes) -> bool:
        return bool(reports.packets == packets)

    async def test_fin(self) -> None:
        """The peer's end is told after all that it sent; Twisted's TLS is then gone at once."""
        lane, reports, peer = await self.begun()
        data = packet(6, bytes(3000)) * 20
        peer.send(data)
        peer.end()
        await until("the end", lambda: reports.said)
        self.assertEqual(reports.packets, data)
        lane.close(End.CLOSE)
        await until("the end", lambda: reports.heard("gone"))
        self.assertEqual(reports.heard("gone"), [(None,)])

    async def test_direct_fin(self) -> None:
        """The same without packets. Twisted's TLS cannot be ended one way alone."""
        if self.halves:
            await super().test_direct_fin()
            return
        lane, reports, peer = await self.make()
        lane.direct(3)
        lane.start(b"")
        data = os.urandom(50_000)
        peer.send(data)
        peer.end()
        await until("the end", lambda: reports.said)
        self.assertEqual(bare_messages(reports.packets)[0], data)

    async def test_facts(self) -> None:
        """TLS tells its version."""
        for peer, version in ((TlsPeer, "TLSv1.3"), (OldPeer, "TLSv1.2")):
            self.peer = peer
            lane, _, _ = await self.begun()
            self.assertEqual(lane.secured(), {"tls": version})
            self.assertEqual(self.made.handshakes.done, {version: 1})
            self.assertEqual(self.made.handshakes.under_way, 0)

    async def test_both_ways_in_both_versions(self) -> None:
        """Large and small packets arrive whole, in both directions at once."""
        for kind in (TlsPeer, OldPeer):
            self.peer = kind
            lane, reports, peer = await self.begun(
                queue_bytes=1 << 30, queue_packets=1 << 20, idle_timeout=0
            )
            sizes = (0, 1, 100, 16383, 16384, 16385, 40_000, 300_000) * 3
            up = b"".join(packet(5, os.urandom(size)) for size in sizes)
            down = [packet(6, os.urandom(size)) for size in sizes]
            peer.send(up)
            for data in down:
                self.say(lane, data)
            await peer.expect(b"".join(down))
            await until("the packets", partial(self.got, reports, up))
            self.assertEqual(lane.counts().bytes_in, len(up))

    async def test_cut_records(self) -> None:
        """Records may be cut anywhere, or come many at once."""
        _, reports, peer = await self.begun()
        data = b"".join(packet(3, os.urandom(size)) for size in range(40))
        sealed = b"".join(peer.seal(data[at : at + 13]) for at in range(0, len(data), 13))
        for place in range(0, 200):
            peer.wire.write(sealed[place : place + 1])
            await later()
        peer.wire.write(sealed[200:])
        await until("the packets", lambda: reports.packets == data)

    async def test_packets_behind_the_handshake(self) -> None:
        """What a peer says in the same breath as its Finished is not lost."""
        said = packet(3, os.urandom(9000)) * 3

        class Eager(TlsPeer):
            def __init__(self) -> None:
                super().__init__()
                self.send(said)

        self.peer = Eager
        lane, reports, _ = await self.make()
        self.start(lane, reports.came)
        await until("the packets", lambda: reports.packets == said)

    async def test_said_and_gone(self) -> None:
        """Nor is it if the peer ends behind it, TLS and TCP, all in one breath."""
        said = packet(3, os.urandom(900)) * 3

        class Hasty(TlsPeer):
            def seal(self, data: bytes) -> bytes:
                return super().seal(said) + self.farewell()

            def _go_on(self) -> None:
                before = self.up
                super()._go_on()
                if self.up and not before:
                    self.wire.loseWriteConnection()

        self.peer = Hasty
        _, reports, _ = await self.make()
        await until("the end", lambda: reports.said)
        self.assertEqual(reports.came, said)

    async def test_ends_are_told(self) -> None:
        """A close tells the peer that TLS ends, behind all that waits; so does a half-close."""
        for how in (End.CLOSE, End.HALF):
            lane, _, peer = await self.begun()
            data = packet(8, os.urandom(100_000))
            self.say(lane, data)
            lane.close(how)
            await peer.expect(data)
            await until("the end of TLS", peer.is_over)

    async def test_end_without_goodbye(self) -> None:
        """TCP's end alone is a connection that broke, behind all that came."""
        _, reports, peer = await self.begun()
        data = packet(3, b"abc") * 3
        peer.wire.write(peer.seal(data) + peer.seal(data)[:-1])
        peer.wire.loseWriteConnection()
        await until("the end", lambda: reports.heard("gone"))
        ((error,),) = reports.heard("gone")
        self.assertEqual((reports.packets, type(error).__name__), (data, "ConnectionLost"))
        self.assertEqual(reports.heard("peer_ended"), [])

    async def test_end_of_tls_alone(self) -> None:
        """TLS's end is the peer's, though TCP stays open."""
        lane, reports, peer = await self.begun()
        data = packet(3, b"abc") * 3
        peer.wire.write(peer.seal(data) + peer.farewell())
        await until("the end", lambda: reports.said)
        self.assertEqual(reports.packets, data)
        lane.close(End.CLOSE)
        await until("the end", lambda: reports.heard("gone"))
        self.assertEqual(reports.heard("gone"), [(None,)])

    async def test_spoilt(self) -> None:
        """A record that cannot be opened breaks the connection, behind all that came, and says
        why; the peer is told."""
        for kind in (TlsPeer, OldPeer):
            self.peer = kind
            _, reports, peer = await self.begun()
            data = packet(3, b"abc") * 3
            spoilt = bytearray(peer.seal(data))
            spoilt[-1] ^= 1
            peer.wire.write(bytes(spoilt))
            await until("the end", partial(reports.heard, "gone"))
            ((error,),) = reports.heard("gone")
            self.assertEqual(reports.packets, b"")
            self.assertEqual(type(error).__name__, "Error")
            self.assertIn("decryption failed or bad record mac", str(error))
            await until("to be told", peer.was_told)
            self.assertIn("BAD_RECORD_MAC", peer.told)

    async def test_spoilt_behind(self) -> None:
        """What came before a bad record is delivered."""
        _, reports, peer = await self.begun()
        data = packet(3, b"abc") * 3
        peer.wire.write(peer.seal(data) + b"GET / HTTP/1.1\r\n\r\n")
        await until("the end", lambda: reports.heard("gone"))
        ((error,),) = reports.heard("gone")
        self.assertEqual((reports.packets, type(error).__name__), (data, "Error"))
        self.assertEqual(reports.heard("peer_ended"), [])

"""TLS by options, over sockets: the peers are asyncio's ssl and openssl's own client.

Rule: a peer runs in a thread of its own, blocks as it likes there, and has a deadline.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import clientFromString
from twisted.internet.threads import deferToThread

from fastway.certificates import CertificateStore
from fastway.cli.gateway import describe
from fastway.endpoint import connect_client
from fastway.errors import ConfigError, Reason
from fastway.gateway import GatewayLink
from fastway.gateway.identities import Identities
from fastway.gateway.native import NativeLane
from fastway.gateway.stream import StreamLane
from fastway.gateway.tls import TlsFactory, TlsFigures
from fastway.ops.snapshot import finish
from fastway.ops.status import link_row, status_rows
from fastway.relay import missing, openssl
from fastway.service import GatewayService
from fastway.snet.transport import SnetClientEndpoint
from fastway.watched import EVERY
from tests.support.ends import Harness
from tests.support.errors import raised
from tests.support.golden import KEY, PING, prove
from tests.support.logs import LogLines
from tests.support.options import LOOPBACK, settings
from tests.support.paths import on_both_paths
from tests.support.service import ServiceTestCase
from tests.support.tls import HOUR, UTC, KeyChanger, Made, make
from tests.support.waits import SECONDS, reactor, until

OPENSSL = shutil.which("openssl")
LEFT = b""
"""What a peer got of a gateway that let it go."""


@dataclass(frozen=True)
class Met:
    """What a peer saw.

    Attributes:
        answer: What came behind its Ping: a Ping, if it was taken.
        shown: The gateway's certificate, in DER.
    """

    answer: bytes
    shown: bytes
    version: str
    protocol: str | None


class TlsTestCase(ServiceTestCase):
    relay = False
    """Packets of its gateways take the native path."""

    def setUp(self) -> None:
        super().setUp()
        self.ca = make("authority")
        self.own = make("localhost", ["localhost"], signer=self.ca)
        self.own.write(self.path("own.pem"), self.path("own.key"))
        self.ca.save(self.directory, "ca.pem")

    def make(self, *arguments: str) -> GatewayService:
        if not any(argument.startswith("--relay=") for argument in arguments):
            arguments = (*arguments, f"--relay={'auto' if self.relay else 'off'}")
        return super().make(*arguments)

    def path(self, *names: str) -> str:
        return os.path.join(self.directory, *names)

    def tls(self, side: str = "client", **more: str) -> list[str]:
        """Options that make a port speak TLS with the certificate for localhost."""
        told = {"cert": self.path("own.pem"), "key": self.path("own.key"), **more}
        return [f"--{side}-tls-{name.replace('_', '-')}={value}" for name, value in told.items()]

    def asking(self, auth: str, side: str = "client") -> list[str]:
        """Options with which peers are asked for a certificate."""
        return self.tls(side, client_ca=self.path("ca.pem"), client_auth=auth)

    def port(self, service: GatewayService, name: str = "client") -> int:
        return cast(int, cast(Any, service.ports[name].getHost()).port)

    def context(self, mine: Made | None = None) -> ssl.SSLContext:
        """What a peer trusts, speaks, and shows."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.ca.pem.decode())
        context.check_hostname = False
        if mine is not None:
            mine.write(self.path("mine.pem"))
            context.load_cert_chain(self.path("mine.pem"))
        return context

    async def meet(
        self,
        service: GatewayService,
        context: ssl.SSLContext | None = None,
        host: str = "localhost",
        server_id: int | None = None,
        stays: Callable[[], object] | None = None,
    ) -> Met:
        """Come by asyncio, log in, send a Ping, wait for what comes, and go.

        Args:
            server_id: It is a server, with this id.
            stays: Runs, in its thread, before it goes.

        Raises:
            OSError: it did not get through TLS.
        """
        port = self.port(service, "client" if server_id is None else "server")
        context = context or self.context()

        async def come() -> Met:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname=host
            )
            try:
                if server_id is not None:
                    writer.write(prove(await reader.readexactly(8), server_id))
                writer.write(PING)
                try:
                    answer = await reader.readexactly(len(PING))
                except (asyncio.IncompleteReadError, ConnectionError):
                    answer = LEFT
                if stays is not None:
                    stays()
                met: ssl.SSLObject = writer.get_extra_info("ssl_object")
                shown = met.getpeercert(True)
                assert shown is not None
                return Met(answer, shown, met.version() or "", met.selected_alpn_protocol())
            finally:
                writer.transport.abort()

        async def within() -> Met:
            return await asyncio.wait_for(come(), 2 * SECONDS)

        return cast(Met, await deferToThread(asyncio.run, within()))

    async def refused(self, service: GatewayService, context: ssl.SSLContext, **more: Any) -> None:
        """It does not get in. In TLS 1.3 the peer is through before it hears what we think."""
        try:
            met = await self.meet(service, context, **more)
        except (OSError, asyncio.IncompleteReadError):
            return
        self.assertEqual(met.answer, LEFT)

    def der(self, made: Made) -> bytes:
        return ssl.PEM_cert_to_DER_cert(made.pem.decode())


@on_both_paths
class PortTests(TlsTestCase):
    """A port with a certificate."""

    async def test_client(self) -> None:
        """A client of asyncio's gets in; the port says that it speaks TLS."""
        with LogLines() as log:
            service = self.start(*self.tls())
        (line,) = (line for line in log.lines if line.startswith("client port listens"))
        self.assertTrue(line.endswith(", with tls"), line)
        context = self.context()
        context.set_alpn_protocols(["h2", "fastway/1"])
        links: list[GatewayLink] = []
        met = await self.meet(
            service, context, stays=lambda: links.extend(service.router_service.connected)
        )
        self.assertEqual(met, Met(PING, self.der(self.own), "TLSv1.3", "fastway/1"))
        (link,) = links
        self.assertIsInstance(link.lane, NativeLane if self.relay else StreamLane)
        self.assertEqual((link.facts.transport, link.facts.tls), ("tls", "TLSv1.3"))

    async def test_other_protocols(self) -> None:
        """Who offers nothing that is spoken here gets in, with nothing chosen."""
        service = self.start(*self.tls())
        context = self.context()
        context.set_alpn_protocols(["h2"])
        met = await self.meet(service, context)
        self.assertEqual((met.answer, met.protocol), (PING, None))

    async def test_named_protocols(self) -> None:
        """What an operator lists is chosen from, in that order; with an empty list nothing is."""
        for listed, chosen in (("mqtt, h2", "mqtt"), ("h2,mqtt", "h2"), ("", None)):
            service = self.start(*self.tls(alpn=listed))
            context = self.context()
            context.set_alpn_protocols(["fastway/1", "h2", "mqtt"])
            met = await self.meet(service, context)
            self.assertEqual((met.answer, met.protocol), (PING, chosen))
            await service.stopService()

    async def test_versions(self) -> None:
        """TLS 1.2 is spoken unless 1.3 is wanted; what is older is not."""
        old = self.context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        service = self.start(*self.tls())
        met = await self.meet(service, old)
        self.assertEqual((met.answer, met.version), (PING, "TLSv1.2"))
        await service.stopService()
        service = self.start(*self.tls(min_version="1.3"))
        await self.refused(service, old)
        self.assertEqual((await self.meet(service)).version, "TLSv1.3")

    async def test_over_snet(self) -> None:
        """With snet TLS is outside, and a link's facts are those of its connection."""
        service = self.start(*self.asking("require"), "--client-snet-enable")
        mine = make("game", uri="spiffe://x/game", signer=self.ca)
        mine.write(self.path("mine.pem"))
        trust = os.path.dirname(self.ca.save(self.path("trust")))
        string = f"tls:localhost:{self.port(service)}:trustRoots={trust}"
        tls = clientFromString(reactor, f"{string}:certificate={self.path('mine.pem')}")
        gateway = await connect_client(SnetClientEndpoint(tls, reactor))
        try:
            await until("its link", lambda: service.router_service.connected)
            (link,) = service.router_service.connected
            facts = link.facts
            ends: list[Any] = [link.lane, gateway.link.transport]
            delays = [not end.transport.carrier.transport.getTcpNoDelay() for end in ends]
        finally:
            gateway.close()
            await until("its end", lambda: gateway.link.gone)
        self.assertEqual((facts.transport, facts.tls), ("snet+tls", "TLSv1.3"))
        self.assertEqual(delays, [False, False])
        self.assertEqual((facts.sni, facts.identity), ("localhost", "spiffe://x/game"))

    async def test_plain_peer(self) -> None:
        """A peer that speaks no TLS is one line, and nobody else notices."""
        service = self.start(*self.tls())

        async def shout() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port(service))
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            try:
                return await asyncio.wait_for(reader.read(), SECONDS)
            except ConnectionError:
                return b""
            finally:
                writer.transport.abort()

        with LogLines() as log:
            await deferToThread(asyncio.run, shout())
            await until("its end", lambda: not service.router_service.connected)
        (line,) = log.lines
        self.assertIn("TLS: the other side does not talk TLS", line)
        self.assertEqual((await self.meet(service)).answer, PING)

    async def test_hangs_up(self) -> None:
        """A peer that goes within its handshake is no line, as one that never spoke."""
        service = self.start(*self.tls())
        with LogLines() as log:
            with socket.create_connection(("127.0.0.1", self.port(service)), SECONDS) as peer:
                peer.sendall(b"\x16\x03\x01\x01\x00")
                await until("its handshake", lambda: service.router_service.connected)
                (link,) = service.router_service.connected
            await until("its end", lambda: not service.router_service.connected)
        self.assertEqual((log.lines, link.lost), ([], Reason.CONNECTION_LOST))

    async def test_garbage_behind_the_handshake(self) -> None:
        """What cannot be opened is one line, and nobody else notices."""
        service = self.start(*self.tls())

        def shout() -> bytes:
            with (
                socket.create_connection(("127.0.0.1", self.port(service)), SECONDS) as plain,
                self.context().wrap_socket(plain, server_hostname="localhost") as wire,
            ):
                wire.sendall(PING)
                got = wire.recv(100)
                os.write(wire.fileno(), b"GET / HTTP/1.1\r\n\r\n")
                try:
                    got += wire.recv(100)
                except ssl.SSLError as error:
                    got += str(error.reason).encode()
                return got

        with LogLines() as log:
            got = await deferToThread(shout)
            await until("its end", lambda: not service.router_service.connected)
        self.assertEqual(got[: len(PING)], PING)
        self.assertIn(b"ALERT", got)
        (line,) = log.lines
        self.assertRegex(
            line,
            r"^client 1 127\.0\.0\.1:\d+ lost: the connection broke: TLS: "
            r"the other side does not talk TLS: is that the port for it\? \(after \d",
        )
        self.assertIn("; in 1 packets, 9 bytes; out 1 packets, 9 bytes)", line)
        self.assertEqual((await self.meet(service)).answer, PING)

    async def test_silent_peer(self) -> None:
        """Who connects and says nothing is at its handshake, which has a deadline."""
        service = self.start(*self.tls())
        silent = socket.create_connection(("127.0.0.1", self.port(service)), SECONDS)
        self.addCleanup(silent.close)
        (port,) = (one for one in service.router_service.ports if one.name == "client")
        await until("its handshake", lambda: port.factory.handshakes)
        (link,) = service.router_service.connected
        self.assertFalse(link.known)
        with LogLines() as log:
            link.check(0.0)  # as the wheel does, when its time has come
        self.assertIs(link.lost, Reason.HANDSHAKE_TIMEOUT)
        self.assertIn("no complete handshake in time", log.lines[0])

    async def test_no_sessions(self) -> None:
        """Nothing is resumed: no key that opens old connections is kept anywhere."""
        service = self.start(*self.tls())
        port = self.port(service)

        def come_twice(version: ssl.TLSVersion) -> list[bool]:
            context = self.context()
            context.maximum_version = version
            session, found = None, []
            for _ in range(2):
                with (
                    socket.create_connection(("127.0.0.1", port), SECONDS) as plain,
                    context.wrap_socket(
                        plain, server_hostname="localhost", session=session
                    ) as wire,
                ):
                    wire.sendall(PING)
                    wire.recv(100)
                    found.append(bool(wire.session_reused))
                    session = wire.session
            return found

        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.assertEqual(await deferToThread(come_twice, version), [False, False])

    def callbacks(self) -> list[str]:
        """Names that our callbacks of OpenSSL were asked for, from now on."""
        asked: list[str] = []

        def choose(store: CertificateStore, host: str) -> Any:
            asked.append(host)
            return store.default

        self.patch(CertificateStore, "choose", choose)
        return asked

    async def test_no_renegotiation(self) -> None:
        """A peer cannot have one handshake after the other on one connection."""
        if OPENSSL is None:
            return
        service = self.start(*self.tls())
        where = f"127.0.0.1:{self.port(service)}"
        command = [OPENSSL, "s_client", "-connect", where, "-servername", "localhost", "-tls1_2"]

        def ask_again() -> str:
            pipe = subprocess.PIPE
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
                # A line that begins so, once the session is shown, makes it ask.
                for line in cast(Any, process.stdout):
                    if b"Extended master secret" in line:
                        break
                cast(Any, process.stdin).write(b"R\n")
                cast(Any, process.stdin).flush()
                try:
                    process.wait(2 * SECONDS)
                finally:
                    process.kill()
                return cast(bytes, cast(Any, process.stderr).read()).decode()

        asked = self.callbacks()
        self.assertIn("no renegotiation", await deferToThread(ask_again))
        self.assertEqual(len(asked), 1)

    async def test_key_update(self) -> None:
        """A peer may change its keys, and ask us to, as often as packets come between."""
        if OPENSSL is None:
            return
        service = self.start(*self.tls())
        where = f"127.0.0.1:{self.port(service)}"
        command = [OPENSSL, "s_client", "-connect", where, "-servername", "localhost", "-tls1_3"]

        def change_keys() -> bytes:
            pipe = subprocess.PIPE
            got = b""
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
                said, wire, told = (
                    cast(Any, one) for one in (process.stdin, process.stdout, process.stderr)
                )
                kill = threading.Timer(2 * SECONDS, process.kill)
                kill.start()
                try:
                    for line in wire:
                        if b"Verify return code" in line:
                            break
                    wire.readline()
                    # A chunk that begins so is a command: k changes, K asks for the other's too.
                    for letter in b"kKKkK":
                        said.write(bytes((letter, 10)))
                        said.flush()
                        while b"KEYUPDATE" not in told.readline():
                            pass
                        said.write(PING)
                        said.flush()
                        while not got.endswith(PING):
                            got += wire.read(1)
                        got += b"|"
                finally:
                    process.kill()
                    kill.cancel()
            return got

        asked = self.callbacks()
        got = await deferToThread(change_keys)
        self.assertEqual(len(asked), 1)
        self.assertEqual([piece[-len(PING) :] for piece in got.split(b"|")], [PING] * 5 + [b""])

    async def test_only_new_keys(self) -> None:
        """A peer that changes its keys again and again is lost, also where data is between; one
        that does it now and then is not."""
        service = self.start(*self.tls())
        where = "127.0.0.1", self.port(service)

        def come(times: int) -> bytes:
            changer = KeyChanger()
            try:
                with socket.create_connection(where, SECONDS) as wire:
                    done, out = changer.shake()
                    while not done:
                        wire.sendall(out)
                        done, out = changer.shake(wire.recv(1 << 16))
                    change = b"".join(
                        changer.change(10) + changer.seal(PING) for _ in range(times // 10)
                    )
                    wire.sendall(out + change)
                    try:
                        return wire.recv(1 << 16)
                    except ConnectionError:
                        return LEFT
            finally:
                changer.free()

        with LogLines() as logged:
            self.assertNotEqual(await deferToThread(come, 20), LEFT)
            await until("its end", lambda: not service.router_service.connected)
            service.router_service.quiet.flush()  # of this address there were lines
            await deferToThread(come, 100)
            await until("it is lost", lambda: any("without data" in line for line in logged.lines))
        (line,) = [line for line in logged.lines if "without data" in line]
        self.assertIn("lost: ", line)
        self.assertIn("too many records without data", line)

    async def test_openssl_client(self) -> None:
        """openssl's own client gets the certificate for its name, and TLS as we want it."""
        if OPENSSL is None:
            return
        other = make("other", ["other.example"], signer=self.ca)
        os.mkdir(self.path("certs"))
        other.write(self.path("certs", "o.pem"), self.path("certs", "o.key"))
        service = self.start(*self.tls(dir=self.path("certs")))
        told = {}
        for name in ("other.example", "localhost", "nobody.example"):
            told[name] = await deferToThread(
                subprocess.run,
                [
                    OPENSSL,
                    *("s_client", "-connect", f"127.0.0.1:{self.port(service)}"),
                    *("-servername", name, "-alpn", "fastway/1"),
                    *("-CAfile", self.path("ca.pem"), "-verify_return_error"),
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=2 * SECONDS,
            )
        for name, subject in (
            ("other.example", "other"),
            ("localhost", "localhost"),
            ("nobody.example", "localhost"),
        ):
            said = told[name].stdout
            self.assertRegex(said, rf"subject=.*CN ?= ?{subject}\n", name)
            for wanted in (
                "ALPN protocol: fastway/1",
                "Verification: OK",
                "Compression: NONE",
                "TLSv1.3",
            ):
                self.assertIn(wanted, said)


class StartTests(TlsTestCase):
    """Options that do not go together, and files that cannot be used."""

    def problem(self, *arguments: str) -> str:
        text = str(raised(ConfigError, self.make, *arguments))
        self.assertNotIn("\n", text)
        return text

    def test_options(self) -> None:
        """Each mistake is one line that names what was given, and what else to give."""
        cert, ca = f"--client-tls-cert={self.path('own.pem')}", self.path("ca.pem")
        for arguments, expected in (
            (["--client-tls-key=k"], "--client-tls-key: whose key is it? Give --client-tls-cert"),
            (
                ["--client-tls-min-version=1.3"],
                "--client-tls-min-version: there is no TLS without a certificate; "
                "give --client-tls-cert or --client-tls-dir too",
            ),
            (
                [cert, "--client-tls-client-auth=require"],
                "--client-tls-client-auth: nobody would be trusted; give",
            ),
            (
                [cert, f"--client-tls-client-ca={ca}"],
                "--client-tls-client-ca: nobody would be asked for a certificate; "
                "give --client-tls-client-auth",
            ),
            (
                [*self.tls("server"), "--server-identities=x"],
                "--server-identities: without certificates no server could come",
            ),
            ([cert, "--client-tls-min-version=1.1"], "'1.1' is not one of 1.2, 1.3"),
            (
                ["--server-tls-alpn=h2"],
                "--server-tls-alpn: there is no TLS without a certificate; give --server-tls-cert",
            ),
            (
                [cert, "--client-tls-alpn=mqtt caf\u00e9"],
                "'caf\u00e9' is no protocol's name: give a list such as mqtt, http/1.1",
            ),
            (
                [cert, f"--client-tls-alpn={','.join(map(str, range(17)))}"],
                "--client-tls-alpn: there are too many: give up to 16",
            ),
            (
                [*self.tls(), "--client-addr=ssl:0"],
                "--client-addr: ssl: does not go with --client-tls-cert",
            ),
            (
                [*self.tls(), "--client-addr=snet:tcp\\:0"],
                "give host:port, and --client-snet-enable",
            ),
            (
                [*self.tls(), "--relay=on", "--client-snet-enable"],
                "--client-snet-enable makes the client port speak snet",
            ),
        ):
            with self.subTest(expected=expected):
                self.assertIn(expected, self.problem(*arguments))

    async def test_core_without_openssl(self) -> None:
        """Where the core cannot drive OpenSSL, Python does, and one line says why."""
        if missing():
            return
        self.patch(openssl, "problem", lambda: "its trial failed: so it is")
        with LogLines() as log:
            service = self.start(*self.tls(), "--relay=auto")
        lines = [line for line in log.lines if "its trial failed" in line]
        self.assertEqual(
            lines, ["packets of ports with TLS take the Python path: its trial failed: so it is"]
        )
        self.assertEqual((await self.meet(service)).answer, PING)
        self.assertIn(
            "--client-tls-cert makes the client port speak tls, and its trial failed",
            self.problem(*self.tls(), "--relay=on"),
        )

    def test_not_installed(self) -> None:
        """Without what TLS needs the line says what installs it; without TLS nothing is needed."""
        with mock.patch.dict(sys.modules, {"fastway.certificates": None}):
            problem = self.problem(*self.tls())
            self.make()
        self.assertTrue(problem.startswith("--client-tls-cert: not all of it is installed"))
        self.assertTrue(
            problem.endswith("pip install 'fastway[tls]', or '.[tls]' in a checkout"), problem
        )

    def test_files(self) -> None:
        """A certificate, authorities, or a table that cannot be used ends the start."""
        old = make("old", begins=self.now() - 3 * HOUR, ends=self.now() - HOUR)
        old.write(self.path("old.pem"))
        with open(self.path("junk"), "w") as file:
            file.write("junk")
        for arguments, expected in (
            ([f"--client-tls-cert={self.path('old.pem')}"], "expired on"),
            ([f"--client-tls-cert={self.path('none.pem')}"], "cannot read"),
            ([f"--server-tls-dir={self.path('none')}"], "--server-tls-dir: cannot read"),
            (
                self.tls(client_ca=self.path("junk"), client_auth="optional"),
                f"--client-tls-client-ca: {self.path('junk')} has no certificate in PEM",
            ),
            (
                [*self.asking("require", "server"), f"--server-identities={self.path('junk')}"],
                "--server-identities: ",
            ),
        ):
            with self.subTest(expected=expected):
                self.assertIn(expected, self.problem(*arguments))

    def now(self) -> Any:
        from datetime import datetime

        return datetime.now(UTC)

    def test_empty_key(self) -> None:
        """Where servers must show a certificate an empty key is no open door."""
        arguments = (*self.asking("require", "server"), "--server-addr=:0")
        self.make(*arguments)
        self.assertIn(
            "so anybody", self.problem(*self.asking("optional", "server"), "--server-addr=:0")
        )

    def test_sections(self) -> None:
        """Settings have TLS where a certificate is given."""
        told = settings(*LOOPBACK, *self.tls("server"))
        self.assertIsNone(told.client.tls)
        assert told.server.tls is not None
        self.assertEqual(told.server.tls.cert, self.path("own.pem"))

    def test_check(self) -> None:
        """`fastway check` says what a port's TLS would be."""
        rows = describe(self.make(*self.asking("optional", "server")))
        told = [text for _, text in rows if text.startswith("TLS")]
        self.assertEqual(
            told,
            [
                "TLS: 1 certificates (own: 0 days left); at least TLS 1.2, "
                "client certificates: optional"
            ],
        )


@on_both_paths
class ClientCertificateTests(TlsTestCase):
    """Peers that show certificates, or do not."""

    def setUp(self) -> None:
        super().setUp()
        self.good = make("good", uri="spiffe://x/good", signer=self.ca)
        self.foreign = make("foreign", uri="spiffe://x/good")

    def row(self, service: GatewayService) -> str:
        """The row of the only link."""
        (link,) = service.router_service.connected
        row = service.commands.source.row(link)
        assert row is not None
        return link_row(row)

    async def identity(self, service: GatewayService, mine: Made | None) -> str:
        """Whom the gateway thinks a peer to be that shows this."""
        links: list[GatewayLink] = []
        met = await self.meet(
            service,
            self.context(mine),
            stays=lambda: links.extend(service.router_service.connected),
        )
        self.assertEqual(met.answer, PING)
        (link,) = links
        self.assertEqual(link.facts.tls, "TLSv1.3")
        self.assertEqual(link.facts.sni, "localhost")
        self.assertEqual(bool(link.facts.sha256), bool(link.facts.identity))
        await until("its end", lambda: not service.router_service.connected)
        return link.facts.identity

    async def test_none(self) -> None:
        """Nobody is asked, so nobody is known."""
        service = self.start(*self.tls())
        self.assertEqual(await self.identity(service, self.good), "")

    async def test_optional(self) -> None:
        """Who shows nothing gets in, who shows a good one is known; a bad one is refused."""
        service = self.start(*self.asking("optional"))
        self.assertEqual(await self.identity(service, None), "")
        self.assertEqual(await self.identity(service, self.good), "spiffe://x/good")
        await self.refused(service, self.context(self.foreign))

    async def test_require(self) -> None:
        """Only who shows a good one gets in; an expired one is not."""
        service = self.start(*self.asking("require"))
        self.assertEqual(await self.identity(service, self.good), "spiffe://x/good")
        service.router_service.quiet.flush()  # of this address there were lines
        with LogLines() as log:
            await self.refused(service, self.context())
            await until("a line", lambda: log.lines)
        self.assertIn("TLS: the other side showed no certificate", log.lines[0])
        await self.refused(service, self.context(self.foreign))
        begins = self.ca.certificate.not_valid_before_utc - 2 * HOUR
        await self.refused(service, self.context(make("old", signer=self.ca, begins=begins)))

    async def test_tls_1_2(self) -> None:
        """The same in TLS 1.2."""
        service = self.start(*self.asking("require"))
        for mine, expected in ((self.good, PING), (None, LEFT), (self.foreign, LEFT)):
            context = self.context(mine)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            if expected:
                self.assertEqual((await self.meet(service, context)).answer, PING)
            else:
                await self.refused(service, context)

    async def test_another_name_same_rules(self) -> None:
        """A client that asks for another name is asked for the same certificate."""
        os.mkdir(self.path("certs"))
        other = make("other", ["other.example"], signer=self.ca)
        other.write(self.path("certs", "o.pem"), self.path("certs", "o.key"))
        service = self.start(*self.asking("require"), f"--client-tls-dir={self.path('certs')}")
        met = await self.meet(service, self.context(self.good), host="other.example")
        self.assertEqual((met.answer, met.shown), (PING, self.der(other)))
        await self.refused(service, self.context(), host="other.example")
        await self.refused(service, self.context(self.foreign), host="other.example")

    async def test_server_ids(self) -> None:
        """A server's certificate says which ids it may bring, whoever knows the key."""
        with open(self.path("ids"), "w") as file:
            file.write("spiffe://x/good 5, 7-8\n")
        service = self.start(
            *self.asking("require", "server"),
            f"--server-identities={self.path('ids')}",
            f"--server-auth-password={KEY.decode()}",
        )
        rows: list[str] = []
        with LogLines() as log:
            met = await self.meet(
                service,
                self.context(self.good),
                server_id=5,
                stays=lambda: rows.append(self.row(service)),
            )
            await until("its end", lambda: not service.router_service.connected)
        self.assertEqual(met.answer, PING)
        self.assertIn("\tTLSv1.3 for localhost, as spiffe://x/good", rows[0])
        login = next(event for event in log.events if "logged in" in str(event["log_format"]))
        self.assertTrue(log.lines[log.events.index(login)].endswith(", as spiffe://x/good"))
        self.assertEqual((login["tls"], login["sni"]), ("TLSv1.3", "localhost"))
        for server_id, mine, problem in (
            (6, self.good, "6: spiffe://x/good may not bring this id"),
            (5, make("stranger", signer=self.ca), "5: nobody knows stranger"),
        ):
            service.router_service.quiet.flush()
            with LogLines() as log:
                await self.refused(service, self.context(mine), server_id=server_id)
                await until("its end", lambda: not service.router_service.connected)
            self.assertIn(
                f"lost: its certificate does not allow its server id: {problem}", log.lines[0]
            )
        stats = service.router_service.router.stats
        self.assertEqual(stats.turned_away[Reason.NOT_ALLOWED], 2)

    async def test_come_back_as_another(self) -> None:
        """A stream that comes back over a connection of somebody else is lost."""
        with open(self.path("ids"), "w") as file:
            file.write("spiffe://x/good 5\nother 6\n")
        harness = Harness()
        harness.servers.identities = Identities(self.path("ids"), "--server-identities")
        end = harness.stranger()
        end.link._is_known_by({"tls": "TLSv1.3", "identity": "spiffe://x/good", "sha256": "ab"})
        end.send(prove(end.take(), 5))
        self.assertTrue(end.link.known)
        address = IPv4Address("TCP", "127.0.0.1", 7)
        told = {"tls": "TLSv1.3", "identity": "spiffe://x/good", "sha256": "cd"}
        self.patch(type(end.link.lane), "secured", lambda _: told)
        end.link.came_back(address, 1.0, 0)
        self.assertIsNone(end.link.lost)
        self.assertEqual(end.link.facts.sha256, "cd")
        self.assertEqual(end.link.facts.server_id, 5)
        told["identity"] = "other"
        end.link.came_back(address, 1.0, 0)
        self.assertIs(end.link.lost, Reason.NOT_ALLOWED)

    async def test_ids_that_are_taken_away(self) -> None:
        """A server that may not be here any more is lost when the new table is read."""
        for text in ("spiffe://x/good 5\n", "spiffe://x/good 6-600\n"):
            with open(self.path("ids.new"), "w") as file:
                file.write(text)
            if "6" not in text:
                os.rename(self.path("ids.new"), self.path("ids"))
        service = self.start(
            *self.asking("require", "server"),
            f"--server-identities={self.path('ids')}",
            f"--server-auth-password={KEY.decode()}",
        )
        port = self.port(service, "server")

        async def stay() -> bytes:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=self.context(self.good), server_hostname="localhost"
            )
            try:
                writer.write(prove(await reader.readexactly(8), 5))
                return await asyncio.wait_for(reader.read(), 2 * SECONDS)
            finally:
                writer.transport.abort()

        waiting = deferToThread(asyncio.run, stay())
        await until("the server", lambda: service.router_service.router.servers)
        os.rename(self.path("ids.new"), self.path("ids"))
        with LogLines() as log:
            service.reload()
            await until("its end", lambda: not service.router_service.router.servers)
        self.assertEqual(await waiting, b"")
        self.assertIn("does not allow its server id: 5: ", "\n".join(log.lines))


@on_both_paths
class RenewalTests(TlsTestCase):
    """Certificates that change while the gateway runs."""

    async def test_sighup(self) -> None:
        """SIGHUP takes a renewed certificate into use, and ends nothing; a bad one changes
        nothing."""
        service = self.start(*self.tls())
        self.assertEqual((await self.meet(service)).shown, self.der(self.own))
        new = make("localhost", ["localhost"], signer=self.ca)
        new.write(self.path("own.pem"), self.path("own.key"))
        (port,) = (one for one in service.router_service.ports if one.name == "client")
        store = cast(TlsFactory, port.wrapped[-1]).store
        os.kill(os.getpid(), signal.SIGHUP)
        await until("the new one", lambda: store.rereads)
        self.assertEqual((await self.meet(service)).shown, self.der(new))
        self.own.write(self.path("elsewhere"), self.path("own.key"))
        with LogLines() as log:
            os.kill(os.getpid(), signal.SIGHUP)
            await until("a failure", lambda: store.failures)
        self.assertIn("the old certificate own stays: --client-tls-cert: ", "\n".join(log.lines))
        self.assertEqual((await self.meet(service)).shown, self.der(new))

    async def test_new_authorities(self) -> None:
        """A file of authorities that changes is read too."""
        service = self.start(*self.asking("require"))
        other = make("other authority")
        mine = make("mine", signer=other)
        await self.refused(service, self.context(mine))
        with open(self.path("ca.pem"), "ab") as file:
            file.write(other.pem)
        service.reload()
        self.assertEqual((await self.meet(service, self.context(mine))).answer, PING)

    async def test_status(self) -> None:
        """`status` says which certificates there are and when they end."""
        service = self.start(*self.tls("server"))
        shot = finish(service.commands.source.snapshot())
        (layer,) = shot.layers
        self.assertEqual((layer.port, layer.name), ("server", "tls"))
        (expiry,) = layer.figures.certificates
        self.assertEqual((expiry.name, expiry.days), ("own", 0))
        self.assertIn(
            "tls of servers: 1 certificates (own: 0 days left); at least TLS 1.2, "
            "client certificates: none; read again: 0, failed: 0; "
            "handshakes: none, 0 under way, 0 failed",
            status_rows(shot),
        )

    async def test_handshakes(self) -> None:
        """`status` says how many handshakes there were, by version, and why others failed."""
        service = self.start(*self.tls())
        old = self.context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        for context in (None, None, old):
            await self.meet(service, context)
        port = self.port(service)
        silent = socket.create_connection(("127.0.0.1", port), SECONDS)
        self.addCleanup(silent.close)

        def figures() -> TlsFigures:
            (layer,) = finish(service.commands.source.snapshot()).layers
            return cast(TlsFigures, layer.figures)

        def ends() -> int:
            return sum(figures().failed.values())

        await until("a handshake", lambda: figures().under_way)

        async def come(data: bytes, after: int) -> None:
            with socket.create_connection(("127.0.0.1", port), SECONDS) as other:
                other.sendall(data)
                await until("its begin", lambda: figures().under_way + ends() == after + 2)
            await until("its end", lambda: ends() == after + 1)

        await come(b"GET / HTTP/1.1\r\n\r\n", 0)
        await come(b"\x16\x03\x01\x01\x00", 1)
        told = figures()
        self.assertEqual(told.under_way, 1)
        self.assertEqual(told.done, {"TLSv1.2": 1, "TLSv1.3": 2})
        self.assertEqual(told.failed, {"http request": 1, "closed": 1})
        self.assertTrue(
            str(told).endswith(
                "; handshakes: 1 TLSv1.2, 2 TLSv1.3, 1 under way, "
                "2 failed (1 closed, 1 http request)"
            ),
            str(told),
        )

    async def test_many(self) -> None:
        """Of many certificates the line of `status` tells of those that end first."""
        os.mkdir(self.path("certs"))
        for number in range(6):
            name = f"{number}.example"
            made = make(name, [name], ends=self.own.certificate.not_valid_after_utc)
            made.write(self.path("certs", f"{name}.pem"), self.path("certs", f"{name}.key"))
        service = self.start(f"--client-tls-dir={self.path('certs')}")
        (layer,) = finish(service.commands.source.snapshot()).layers
        self.assertIn("6 certificates (", str(layer.figures))
        self.assertIn(", and 2 that end later)", str(layer.figures))

    async def test_stops_clean(self) -> None:
        """A gateway that stopped looks at nothing any more."""
        service = self.start(*self.tls())
        (watcher,) = service.router_service.watchers
        due = [call for call in reactor.getDelayedCalls() if call.getTime() > EVERY / 2]
        self.assertTrue(due)
        await service.stopService()
        self.assertEqual(watcher._calls, [None, None])

"""Why a connection could not be made or was lost, over real TLS, by Twisted and by asyncio."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl as pyssl
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway import causes
from fastway.causes import cause_of, string_problem
from fastway.endpoint import connect_client, connect_server
from fastway.errors import ConnectionEnded, EndpointEnded, LoginFailed
from tests.support.files import CHECKOUT, scratch
from tests.support.processes import environment
from tests.support.tls import HOUR, UTC, Made, make
from tests.support.waits import SECONDS, reactor

AUTHORITY = make("Our CA")
GOOD = make("localhost", ["localhost"], signer=AUTHORITY)
LONG_AGO = datetime.datetime(2001, 2, 3, 4, 5, tzinfo=UTC)
FAR_OFF = datetime.datetime(2101, 2, 3, 4, 5, tzinfo=UTC)


class Loser(Protocol):
    """Notes why its connection is lost, while that still knows everything."""

    def __init__(self) -> None:
        self.cause: Deferred[str] = Deferred()

    def connectionMade(self) -> None:
        cast(Any, self.transport).write(b"\x09\0\0\0\0\0\0\0\0\1\0\0\0")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.cause.callback(cause_of(cast(Exception, reason.value), self.transport))


class Plain(Protocol):
    """Talks no TLS: greets, and closes when it is spoken to."""

    greeting = b""

    def connectionMade(self) -> None:
        cast(Any, self.transport).write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        cast(Any, self.transport).loseConnection()


class Challenging(Plain):
    greeting = b"\1\2\3\4\5\6\7\x08"


class SocketCase(TestCase):
    """Servers on 127.0.0.1 that a client of TLS does not get on with."""

    def setUp(self) -> None:
        self.directory = scratch(self)
        self.trust = os.path.join(self.directory, "trust")
        self.trusted = AUTHORITY.save(self.trust)

    def listen(self, options: Any, protocol: type[Protocol] = Protocol) -> int:
        """Listen with TLS, or without if `options` is None; the port's number."""
        factory = Factory.forProtocol(protocol)
        if options is None:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return cast(int, port.getHost().port)

    def serve(self, made: Made, **more: Any) -> int:
        private = made.private
        options = ssl.CertificateOptions(
            privateKey=private.privateKey.original, certificate=private.original, **more
        )
        return self.listen(options)

    async def twisted(self, gateway: str) -> str:
        endpoint = clientFromString(reactor, gateway)
        loser = cast(Loser, await endpoint.connect(Factory.forProtocol(Loser)))
        return await loser.cause.addTimeout(SECONDS, reactor)

    async def asyncio(self, host: str, port: int, context: pyssl.SSLContext) -> str:
        async def connect() -> str:
            try:
                reader, writer = await asyncio.open_connection(host, port, ssl=context)
                writer.write(b"?")
                data = await reader.read(1)
            except Exception as error:
                return cause_of(error)
            return f"no error, but {data!r}"

        return await deferToThread(lambda: asyncio.run(asyncio.wait_for(connect(), SECONDS)))

    async def both(
        self, port: int, *wanted: str, host: str = "localhost", trust: bool = True
    ) -> tuple[str, str]:
        """What both say when they connect; each `wanted` stands in either."""
        gateway = f"tls:{host}:{port}"
        context = pyssl.create_default_context(cafile=self.trusted if trust else None)
        first = await self.twisted(gateway + (f":trustRoots={self.trust}" if trust else ""))
        second = await self.asyncio(host, port, context)
        for line in (first, second):
            self.assertTrue(line.startswith("TLS: "), line)
            self.assertEqual(len(line.splitlines()), 1, line)
            for text in wanted:
                self.assertIn(text, line)
        return first, second


class CertificateTests(SocketCase):
    async def test_name(self) -> None:
        """A certificate for others: which name was asked, and which it has."""
        port = self.serve(make("x", ["game.example", "*.a.example"], signer=AUTHORITY))
        await self.both(port, "for game.example, *.a.example, not for localhost")

    async def test_many_names(self) -> None:
        """Of many names some are given, and of none that is said."""
        port = self.serve(make("x", [f"{n}.example" for n in range(9)], signer=AUTHORITY))
        await self.both(port, "3.example and 5 more, not for localhost")
        context = pyssl.create_default_context(cafile=self.trusted)
        port = self.serve(make("x", signer=AUTHORITY))
        line = await self.asyncio("localhost", port, context)
        self.assertIn("for no host at all, not for localhost", line)

    async def test_address(self) -> None:
        """The same of an address."""
        await self.both(self.serve(GOOD), "for localhost, not for 127.0.0.1", host="127.0.0.1")

    async def test_self_signed(self) -> None:
        """A certificate that signed itself, and what makes it trusted."""
        port = self.serve(make("localhost", ["localhost"]))
        first, second = await self.both(port, "self-signed", "not among those that are trusted")
        self.assertIn("trustRoots=DIRECTORY", first)
        self.assertIn("load_verify_locations", second)

    async def test_unknown_issuer(self) -> None:
        """A certificate that somebody unknown signed, and what makes that trusted."""
        first, second = await self.both(
            self.serve(GOOD), "nobody who is trusted signed its certificate (Our CA)", trust=False
        )
        self.assertIn("trustRoots=DIRECTORY", first)
        self.assertIn("load_verify_locations", second)

    async def test_expired(self) -> None:
        """One whose time is over, with the date."""
        made = make("x", ["localhost"], signer=AUTHORITY, begins=LONG_AGO, ends=LONG_AGO + HOUR)
        await self.both(self.serve(made), "its certificate expired on 2001-02-03 05:05 UTC")

    async def test_not_yet(self) -> None:
        """One whose time is to come, with the date."""
        made = make("x", ["localhost"], signer=AUTHORITY, begins=FAR_OFF)
        await self.both(
            self.serve(made),
            "its certificate is not valid before 2101-02-03 04:05 UTC; is this machine's clock",
        )

    async def test_expired_issuer(self) -> None:
        """It is said whose certificate is out of date, where it is not the other side's own."""
        old = make("Old CA", begins=LONG_AGO)
        os.unlink(self.trusted)
        self.trusted = old.save(self.trust)
        made = make("x", ["localhost"], signer=old)
        port = self.serve(made, extraCertChain=[ssl.Certificate.loadPEM(old.pem).original])
        await self.both(port, "the certificate of Old CA expired on 2001-02-03 05:05 UTC")


class HandshakeTests(SocketCase):
    async def test_version(self) -> None:
        """No version of TLS in common."""
        options = self.options(lambda context: context.set_options(0x08000000 | 0x20000000))
        await self.both(self.listen(options), "no version of TLS that both sides speak")

    async def test_cipher(self) -> None:
        """No cipher in common. Only the other side knows that it was that."""

        def few(context: Any) -> None:
            context.set_options(SSL.OP_NO_TLSv1_3)
            context.set_cipher_list(b"AES128-SHA")

        await self.both(self.listen(self.options(few)), "no cipher that both sides have")

    def options(self, change: Callable[[Any], object]) -> Any:
        private = GOOD.private
        options = ssl.CertificateOptions(
            privateKey=private.privateKey.original, certificate=private.original
        )
        change(options.getContext())
        return options

    async def test_client_certificate(self) -> None:
        """The other side wants a certificate, and does not take every one."""
        private = GOOD.private
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            options = ssl.CertificateOptions(
                privateKey=private.privateKey.original,
                certificate=private.original,
                trustRoot=ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(AUTHORITY.pem)]),
                lowerMaximumSecurityTo=version,
            )
            port = self.listen(options)
            await self.both(port, "wants a certificate", "certificate=FILE:privateKey=FILE")
            own = make("me", ["me"])
            path = own.save(os.path.join(self.directory, "own"))
            key = os.path.join(self.directory, "key.pem")
            with open(key, "wb") as file:
                file.write(own.key_pem)
            mine = f":certificate={path}:privateKey={key}"
            line = await self.twisted(f"tls:localhost:{port}:trustRoots={self.trust}{mine}")
            self.assertIn("does not trust the certificate that it was shown", line)

    async def test_no_tls(self) -> None:
        """The other side talks something else, or hangs up on what it does not understand."""
        no_tls = "does not talk TLS: is that the port"
        for protocol in (Plain, Challenging):
            port = self.listen(None, protocol)
            if sys.version_info >= (3, 11):
                await self.both(port, no_tls)
                continue
            # asyncio's error may come from the socket alone: nothing tells that it was to be TLS.
            said = await self.twisted(f"tls:localhost:{port}:trustRoots={self.trust}")
            self.assertIn(no_tls, said)

    async def failure(self, waiting: Deferred[Any]) -> Exception:
        try:
            result = await waiting.addTimeout(SECONDS, reactor)
        except EndpointEnded as error:
            return error
        raise AssertionError(f"no error, but {result!r}")

    async def test_endpoint(self) -> None:
        """The library's errors have the cause, for a client and for a server, over snet too."""
        port = self.serve(GOOD)
        gateway = clientFromString(reactor, f"tls:localhost:{port}")
        client = await connect_client(gateway)
        for waiting in (client.dial(1), connect_server(gateway, 1, b"")):
            text = str(await self.failure(cast(Any, waiting)))
            self.assertIn("the connection to the gateway broke: TLS: ", text)
            self.assertIn("(Our CA); trustRoots=", text)
        resumable = clientFromString(reactor, rf"snet:tls\:localhost\:{port}")
        try:
            await connect_client(resumable)
        except Exception as error:
            self.assertIn("(Our CA); trustRoots=", cause_of(error))
        else:
            self.fail("no error")


class PlainTests(SocketCase):
    async def test_sockets(self) -> None:
        """Nobody listens, in the words of Twisted, asyncio and the system."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            first, second = await self.refused(port)
        self.assertEqual(first, second)
        self.assertEqual(first, "connection refused; is one there?")

    async def refused(self, port: int) -> tuple[str, str]:
        try:
            await clientFromString(reactor, f"tcp:localhost:{port}").connect(Factory())
        except Exception as error:
            first = cause_of(error)
        context = pyssl.create_default_context()
        return first, await self.asyncio("localhost", port, context)


class ErrorTests(SynchronousTestCase):
    """Errors that cannot be had on every machine, made by hand."""

    def test_system(self) -> None:
        """Each has a line that names no class."""
        refused = "connection refused"
        for error, text in (
            (ConnectionRefusedError(111, "Connection refused"), refused),
            (
                OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] x"),
                refused,
            ),
            (TCPTimedOutError(110, "x"), "no answer in time"),
            (TimeoutError(), "no answer in time"),
            (TimeoutError(string="no answer within 3 s"), "no answer within 3 s"),
            (asyncio.TimeoutError(), "no answer in time"),
            (NoRouteError(113, "y"), "no route there"),
            (OSError(101, "Network is unreachable"), "no route there"),
            (
                DNSLookupError("no results for hostname lookup: nowhere"),
                "lookup: nowhere; is it r",
            ),
            (socket.gaierror(-2, "Name or service not known"), "service not known; is it right?"),
            (ConnectionResetError(), "reset by the other side or the network"),
            (BrokenPipeError(32, "Broken pipe"), "reset by the other side or the network"),
            (ConnectionLost("Connection lost"), "reset by the other side or the network"),
            (ConnectionDone(), "closed by the other side"),
            (ConnectionAborted(), "given up here"),
            (OSError("something\n odd."), "something odd"),
            (PermissionError(13, "x", "/a/key.pem"), "may not be read by this user: /a/key.pem"),
            (IsADirectoryError(21, "x", "/a"), "it is a directory, and must be a file: /a"),
        ):
            line = cause_of(error)
            self.assertIn(text, line)
            self.assertNotIn("Error", line)

    def test_own(self) -> None:
        """This package's errors have their causes in their text."""
        inner = EndpointEnded("the connection broke: no route.", ConnectionLost())
        outer = ConnectionEnded(f"its endpoint ended: {inner}", inner)
        self.assertEqual(cause_of(outer), "its endpoint ended: the connection broke: no route")
        self.assertEqual(cause_of(LoginFailed("no")), "no")

    def test_bug(self) -> None:
        """Of an error that nobody expects its class is told."""
        self.assertEqual(cause_of(ZeroDivisionError("x")), "ZeroDivisionError: x")
        self.assertEqual(cause_of(KeyError()), "KeyError")
        self.assertIn("NameError: ", cause_of(NameError("name 'x' is not defined")))

    def test_no_extra(self) -> None:
        """A missing package is said with what installs it."""
        for error in (
            ImportError("No module named 'OpenSSL'"),
            NameError("name 'optionsForClientTLS' is not defined"),
        ):
            self.assertIn("pip install 'fastway[tls]'", cause_of(error))
            self.assertIn("pip install 'fastway[tls]'", string_problem("tls:a:1", error))
            inside = string_problem(r"snet:tls\:a\:1", error)
            self.assertIn("pip install 'fastway[tls]'", inside)
        lacks = ImportError("No module named 'cryptography'")
        self.assertIn("pip install 'fastway[snet]'", string_problem("snet:tcp:1", lacks))

    def test_imports(self) -> None:
        """It loads neither Twisted nor OpenSSL nor ssl."""
        script = (
            "import sys, fastway.causes as c; c.cause_of(ConnectionResetError());"
            "print([m for m in ('twisted', 'OpenSSL', 'ssl') if m in sys.modules])"
        )
        run = subprocess.run(
            [sys.executable, "-c", script],
            cwd=CHECKOUT,
            env=environment({}),
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(run.stdout, "[]\n")


class FileTests(SynchronousTestCase):
    """Files that an endpoint string, or a context of ssl, names."""

    def setUp(self) -> None:
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(scratch(self))
        GOOD.save(".")
        AUTHORITY.save("trust")
        for name, data in (("key.pem", GOOD.key_pem), ("garbage.pem", b"hello\n")):
            with open(name, "wb") as file:
                file.write(data)

    def problem(self, text: str) -> str:
        try:
            clientFromString(reactor, text)
        except Exception as error:
            line = string_problem(text, error)
            self.assertEqual(len(line.splitlines()), 1)
            return line
        raise AssertionError(f"{text} is taken")

    def test_strings(self) -> None:
        """Which file it is, and what is wrong with it."""
        for rest, text in (
            ("trustRoots=cert.pem", "trustRoots=cert.pem: it is a file, and must be a directory"),
            ("trustRoots=nope", "trustRoots=nope: there is no such file: nope"),
            ("certificate=nope.pem", "certificate=nope.pem: there is no such file"),
            ("certificate=trust", "certificate=trust: it is a directory, and must be a file"),
            ("certificate=garbage.pem", "certificate=garbage.pem: it has no certificate in PEM"),
            ("certificate=cert.pem", "certificate=cert.pem: it has no private key, and private"),
            ("certificate=cert.pem:privateKey=no", "privateKey=no: there is no such file"),
            (
                "certificate=cert.pem:privateKey=garbage.pem",
                "privateKey=garbage.pem: it has no private key in PEM",
            ),
        ):
            line = self.problem(f"tls:localhost:1:{rest}")
            self.assertIn(text, line)
            self.assertNotIn("endpoint string", line)
            inner = f"tls:localhost:1:{rest}".replace(":", r"\:").replace("=", r"\=")
            self.assertIn(text, self.problem(f"snet:{inner}"))

    def test_not_a_string(self) -> None:
        """What is wrong with the string itself is said as such."""
        for text, words in (
            ("tls:localhost", "it lacks port; write tls:HOST:PORT"),
            ("tls:localhost:1:trustRoot=x", "it takes no trustRoot=; write tls:HOST:PORT"),
            ("nonsense", "neither host:port nor an endpoint string: it has no port; give host"),
            ("::1:9010", "with IPv6 it is [ADDRESS]:PORT; give host:port"),
            ("127.0.0.1:x", "'x' is not a port from 0 to 65535; give host:port"),
            ("gate:x", "there is no kind 'gate', and 'x' is no port; give host:port"),
        ):
            self.assertIn(words, self.problem(text))

    def test_contexts(self) -> None:
        """What ssl says of files."""
        other = make("other")
        with open("other.pem", "wb") as file:
            file.write(other.key_pem)
        context = pyssl.create_default_context()
        for load, text in (
            (lambda: context.load_cert_chain("nope.pem"), "there is no such file"),
            (lambda: context.load_cert_chain("garbage.pem"), causes.NOT_PEM),
            (lambda: context.load_verify_locations("garbage.pem"), causes.NOT_PEM),
            (
                lambda: context.load_cert_chain("cert.pem", "other.pem"),
                "the private key is not that of the certificate",
            ),
        ):
            try:
                load()
            except OSError as error:
                self.assertIn(text, cause_of(error))
            else:
                self.fail("it was taken")

"""Where ports listen: the forms of an address, what is wrong with one, and listening itself."""

from __future__ import annotations

import datetime
import errno
import ipaddress
import os
import socket
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway.address import Address, parse_address
from fastway.errors import ConfigError, StartError
from tests.support.errors import raised
from tests.support.files import scratch

reactor = cast(Any, _reactor)


def has_ipv6() -> bool:
    """This machine can listen on ::1."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


class FormTests(SynchronousTestCase):
    def test_host_and_port(self) -> None:
        """host:port, :port and [v6]:port are understood."""
        for text, host, port in (
            (":0", "", 0),
            (":9000", "", 9000),
            ("127.0.0.1:9000", "127.0.0.1", 9000),
            ("game1:9000", "game1", 9000),
            ("game1.example.com:65535", "game1.example.com", 65535),
            ("[::1]:9000", "::1", 9000),
            ("[fe80::1%lo]:9000", "fe80::1%lo", 9000),
            (" :9000 ", "", 9000),
        ):
            address = parse_address("--client-addr", text)
            self.assertEqual((address.host, address.port), (host, port), text)
            self.assertEqual(address.option, "--client-addr")

    def test_endpoint_strings(self) -> None:
        """Everything else with a word and a colon is left to Twisted."""
        for text in (
            "tcp:9000",
            "tcp:9000:interface=127.0.0.1",
            "tcp6:9000",
            "ssl:9000:privateKey=key.pem",
            "tls:9000",
            "unix:/run/fastway.sock",
            "systemd:domain=INET:index=0",
        ):
            address = parse_address("--client-addr", text)
            self.assertIsNone(address.host, text)
            self.assertEqual(address.text, text)

    def test_bad(self) -> None:
        """What is neither form is refused by the option's name, with the text."""
        for text in (
            "",
            "9000",
            "localhost",
            ":",
            ":port",
            ":-1",
            "::1:9000",
            "[::1]",
            "[game1]:9000",
            "[]:9000",
            "127.0.0.1:9000:1",
            "/run/fastway.sock",
        ):
            error = raised(ConfigError, parse_address, "--client-addr", text)
            self.assertEqual(error.option, "--client-addr")
            self.assertIn(repr(text), error.problem)

    def test_port_limit(self) -> None:
        """A port is at most 65535."""
        for port in (65534, 65535):
            self.assertEqual(parse_address("--client-addr", f":{port}").port, port)
        error = raised(ConfigError, parse_address, "--client-addr", ":65536")
        self.assertIn("at most 65535", error.problem)

    def test_loopback(self) -> None:
        """An address is loopback only if nobody else can reach it; in doubt it is not."""
        for text, loopback in (
            ("127.0.0.1:9000", True),
            ("127.8.8.8:9000", True),
            ("localhost:9000", True),
            ("[::1]:9000", True),
            (":9000", False),
            ("0.0.0.0:9000", False),
            ("[::]:9000", False),
            ("10.0.0.1:9000", False),
            ("game1:9000", False),
            ("localhost.example.com:9000", False),
            ("unix:/run/fastway.sock", True),
            ("tcp:9000", False),
            ("tcp:9000:interface=127.0.0.1", True),
            ("tcp:9000:interface=localhost", True),
            ("tcp:9000:interface=127.0.0.1:backlog=5", True),
            ("tcp:9000:interface=0.0.0.0", False),
            ("tcp6:9000:interface=\\:\\:1", True),
            ("tcp6:9000:interface=\\:\\:", False),
            ("ssl:9000:privateKey=interface=127.0.0.1", False),
            ("ssl:9000:interface=127.0.0.1:privateKey=key.pem", True),
        ):
            address = parse_address("--server-addr", text)
            self.assertIs(address.loopback, loopback, text)

    def test_last_interface_counts(self) -> None:
        """Given twice, the interface that Twisted listens on decides: the last one."""
        text = "tcp:9000:interface=127.0.0.1:interface=0.0.0.0"
        self.assertFalse(parse_address("--server-addr", text).loopback)


class CheckTests(SynchronousTestCase):
    def test_free_port(self) -> None:
        """A free port passes, and is free afterwards."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        for _ in range(2):
            parse_address("--client-addr", f"127.0.0.1:{port}").check(reactor, False)

    def test_in_use(self) -> None:
        """A port in use is said with option, address and mend."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            text = f"127.0.0.1:{sock.getsockname()[1]}"
            for given in (text, f":{sock.getsockname()[1]}"):
                address = parse_address("--client-addr", given)
                problem = str(raised(StartError, address.check, reactor, False))
                self.assertTrue(problem.startswith(f"--client-addr: cannot listen on {given}: "))
                self.assertIn("in use", problem)
                self.assertIn("choose another port", problem)
                self.assertNotIn("\n", problem)

    def test_not_ours(self) -> None:
        """An address of another machine is said to be one."""
        address = parse_address("--client-addr", "192.0.2.1:9000")
        problem = str(raised(StartError, address.check, reactor, False))
        self.assertIn("--client-addr", problem)
        self.assertIn("give an address of this machine", problem)

    def test_no_such_host(self) -> None:
        """A name that does not resolve, or cannot be a name, is one line with the option."""
        for host in ("a..b", "a" * 64 + ".example"):
            address = parse_address("--client-addr", f"{host}:9000")
            problem = str(raised(StartError, address.check, reactor, False))
            self.assertIn("--client-addr", problem)
            self.assertNotIn("\n", problem)

    def test_unresolved(self) -> None:
        """A host that the resolver does not know is one line with the option and the mend."""

        def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        self.patch(socket, "getaddrinfo", unknown)
        address = parse_address("--client-addr", "game1:9000")
        problem = str(raised(StartError, address.check, reactor, False))
        self.assertIn("--client-addr: game1:9000: Name or service not known", problem)
        self.assertIn("give an address of this machine", problem)

    def test_privileged(self) -> None:
        """A port that only root may have is said with the mend."""

        class Forbidden(Address):
            @staticmethod
            def _bind(family: int, where: Any, reuse_port: bool) -> socket.socket:
                raise PermissionError(errno.EACCES, "Permission denied")

        for host in ("", "127.0.0.1"):
            address = Forbidden("--client-addr", f"{host}:80", host, 80)
            problem = str(raised(StartError, address.check, reactor, False))
            self.assertIn("--client-addr", problem)
            self.assertIn("above 1023", problem)

    def test_bad_endpoint(self) -> None:
        """An endpoint string that Twisted does not take is one line with the option."""
        directory = scratch(self)
        for text in (
            "nonsense:9000:x",
            "tcp:port",
            "tcp:9000:colour=red",
            f"ssl:9000:privateKey={directory}/missing.pem",
        ):
            address = parse_address("--client-addr", text)
            error = raised(ConfigError, address.check, reactor, False)
            self.assertEqual(error.option, "--client-addr")
            self.assertIn(repr(text), error.problem)
            self.assertNotIn("\n", str(error))

    def test_what_to_write(self) -> None:
        """Whatever is wrong with an endpoint string, the line says how it is written."""
        tcp, ws = "write tcp:PORT:interface=ADDRESS", "write ws:PORT:path=/PATH:interface=ADDRESS"
        for text, problem, mend in (
            ("ws:abc", "'abc' is not a port from 0 to 65535", ws),
            ("ws:0:nonsense=1", "it takes no nonsense=", ws),
            ("ws://127.0.0.1:80/", "a URL says where to connect, not where to listen", ws),
            ("ws:0:backlog=x", "'x' is not a number", ws),
            ("tcp:", "it has no port", tcp),
            ("tcp:-1", "'-1' is not a port", tcp),
            ("tcp:65536:interface=127.0.0.1", "'65536' is not a port", tcp),
            ("tcp:0:1:2:3", r"a colon within a value is written \:", tcp),
            ("unix:", "it has no path", "write unix:PATH:mode=660"),
            ("unix:x:mode=9", "'9' is no mode, such as 660", "write unix:PATH:mode=660"),
            ("ssl:0", "there is no such file", "write ssl:PORT:privateKey=FILE:certKey=FILE"),
            ("tls:nowhere", "there is no directory 'nowhere'", "write tls:DIRECTORY:PORT"),
            (r"snet:tcp\:x", "'x' is not a port", r"write snet:tcp\:PORT"),
            ("snet:", "there is no kind '' of what is inside", r"write snet:tcp\:PORT"),
            (r"haproxy:tcp\:0", "there is no kind 'tcp:0' of", "write haproxy:tcp:PORT"),
            ("systemd:domain=INET:name=x", "systemd gave no such socket", "write systemd:NAME"),
            ("systemd:", "systemd gave no such socket", "write systemd:NAME"),
            ("localhost:http", "there is no kind 'localhost', and 'http' is no", "give host:port"),
        ):
            address = parse_address("--client-addr", text)
            error = raised(ConfigError, address.check, reactor, False, messages=True)
            self.assertIn(problem, str(error))
            self.assertIn(mend, str(error))

    def test_what_is_not_there(self) -> None:
        """An interface or a directory that is not there is told before anything listens."""
        for text, problem in (
            ("tcp:0:interface=256.1.1.1", "interface=256.1.1.1 is no address of this machine"),
            (r"ws:0:interface=\:\:zz", "interface=::zz is no address of this machine"),
            ("unix:/nowhere/x:mode=660", "there is no directory /nowhere; make it"),
        ):
            address = parse_address("--client-addr", text)
            error = raised(StartError, address.check, reactor, False, messages=True)
            self.assertIn(problem, str(error))
        for text in (r"snet:tcp\:0\:interface\=\\\:\\\:1", "tcp:0:interface=", "unix:x"):
            parse_address("--client-addr", text).check(reactor, False)

    def test_websockets(self) -> None:
        """What takes no messages does not listen on ws:, and the line says what does."""
        for text in ("ws:0", "wss:0:privateKey=x"):
            address = parse_address("--client-addr", text)
            error = raised(ConfigError, address.check, reactor, False)
            self.assertIn("only --client-ws-addr, with host:port", str(error))

    def test_no_reuse_for_endpoints(self) -> None:
        """reuse-port with an endpoint string is refused rather than ignored."""
        address = parse_address("--client-addr", "tcp:9000:interface=127.0.0.1")
        address.check(reactor, False)
        error = raised(ConfigError, address.check, reactor, True)
        self.assertIn("reuse-port", error.problem)


class Greeter(Protocol):
    """Says its name and hangs up."""

    factory: GreeterFactory

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.factory.name)
        self.transport.loseConnection()


class GreeterFactory(Factory):
    noisy = False
    protocol = Greeter  # type: ignore[assignment]

    def __init__(self, name: bytes) -> None:
        self.name = name


class Reader(Protocol):
    """Collects until the end."""

    def __init__(self) -> None:
        self.data = b""
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.done.callback(self.data)


class ReaderFactory(Factory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Reader:
        return Reader()


async def greeting(endpoint: Any) -> bytes:
    """What the port behind a client endpoint says."""
    reader = await endpoint.connect(ReaderFactory())
    return cast(bytes, await reader.done)


class ListenTests(TestCase):
    async def listen(
        self, text: str, name: bytes = b"hello", reuse_port: bool = False
    ) -> IListeningPort:
        """Listen on an address for the length of the test."""
        address = parse_address("--client-addr", text)
        port = await address.listen(reactor, GreeterFactory(name), reuse_port)
        self.addCleanup(port.stopListening)
        return port

    async def refused(self, text: str, reuse_port: bool = False) -> str:
        """Why an address cannot be listened on."""
        try:
            await self.listen(text, reuse_port=reuse_port)
        except StartError as error:
            return str(error)
        raise AssertionError("it listens")

    async def connect(self, host: str, port: IListeningPort) -> bytes:
        number = cast(Any, port.getHost()).port
        return await greeting(HostnameEndpoint(reactor, host, number))

    async def test_host_and_port(self) -> None:
        """A plain address listens where it says; port 0 is any free port."""
        port = await self.listen("127.0.0.1:0")
        self.assertGreater(cast(Any, port.getHost()).port, 0)
        self.assertEqual(cast(Any, port.getHost()).host, "127.0.0.1")
        self.assertEqual(await self.connect("127.0.0.1", port), b"hello")

    async def test_all_interfaces(self) -> None:
        """`:port` takes IPv4 in any case, and IPv6 where the machine has it."""
        port = await self.listen(":0")
        self.assertEqual(await self.connect("127.0.0.1", port), b"hello")
        if has_ipv6():
            self.assertEqual(await self.connect("::1", port), b"hello")

    async def test_without_ipv6(self) -> None:
        """`:port` is IPv4 alone on a machine without IPv6."""

        class Old(Address):
            @staticmethod
            def _bind(family: int, where: Any, reuse_port: bool) -> socket.socket:
                if family == socket.AF_INET6:
                    raise OSError(errno.EAFNOSUPPORT, "Address family not supported")
                return Address._bind(family, where, reuse_port)

        address = Old("--client-addr", ":0", "", 0)
        port = await address.listen(reactor, GreeterFactory(b"hello"), False)
        self.addCleanup(port.stopListening)
        self.assertEqual(cast(Any, port.getHost()).host, "0.0.0.0")
        self.assertEqual(await self.connect("127.0.0.1", port), b"hello")

    async def test_ipv6(self) -> None:
        """`[::1]:port` listens on IPv6."""
        port = await self.listen("[::1]:0")
        self.assertEqual(await self.connect("::1", port), b"hello")

    if not has_ipv6():
        test_ipv6.skip = "no IPv6 here"  # type: ignore[attr-defined]

    async def test_in_use(self) -> None:
        """A port in use fails with one line: option, address, mend; endpoint strings too."""
        number = cast(Any, (await self.listen("127.0.0.1:0")).getHost()).port
        for text in (f"127.0.0.1:{number}", f"tcp:{number}:interface=127.0.0.1"):
            problem = await self.refused(text)
            self.assertTrue(problem.startswith(f"--client-addr: cannot listen on {text}: "))
            self.assertIn("in use", problem)
            self.assertIn("choose another port", problem)
            self.assertNotIn("\n", problem)

    async def test_impossible_endpoint(self) -> None:
        """An endpoint string that fails only when it listens is one line with the option."""
        problem = await self.refused("tcp:0:interface=256.1.1.1")
        self.assertIn("cannot listen on tcp:0:interface=256.1.1.1: ", problem)
        self.assertNotIn("Unknown error", problem)
        self.assertNotIn("\n", problem)

    async def test_reuse_port(self) -> None:
        """With reuse-port two gateways listen on one port, and both get connections."""
        first = await self.listen("127.0.0.1:0", b"first", reuse_port=True)
        number = cast(Any, first.getHost()).port
        await self.listen(f"127.0.0.1:{number}", b"second", reuse_port=True)
        said = set()
        for _ in range(200):
            said.add(await self.connect("127.0.0.1", first))
            if len(said) == 2:
                break
        self.assertEqual(said, {b"first", b"second"})

    async def test_no_reuse_port(self) -> None:
        """The one that does not share keeps the port from those who would."""
        first = await self.listen("127.0.0.1:0")
        number = cast(Any, first.getHost()).port
        self.assertIn("in use", await self.refused(f"127.0.0.1:{number}", reuse_port=True))

    async def test_unix(self) -> None:
        """A unix endpoint string listens on its path."""
        path = os.path.join(scratch(self), "sock")
        await self.listen(f"unix:{path}")
        self.assertEqual(await greeting(UNIXClientEndpoint(reactor, path)), b"hello")

    async def test_tls(self) -> None:
        """An ssl endpoint string with key and certificate speaks TLS that a client verifies."""
        key_path, cert_path, certificate = make_certificate(scratch(self))
        text = f"ssl:0:privateKey={key_path}:certKey={cert_path}:interface=127.0.0.1"
        address = parse_address("--client-addr", text)
        address.check(reactor, False)
        self.assertTrue(address.loopback)
        port = await self.listen(text)
        number = cast(Any, port.getHost()).port
        trust = optionsForClientTLS("localhost", trustRoot=Certificate.loadPEM(certificate))
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", number)
        self.assertEqual(await greeting(wrapClientTLS(trust, endpoint)), b"hello")


def make_certificate(directory: str) -> tuple[str, str, bytes]:
    """A key and a self-signed certificate of localhost: their paths, and the latter as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    key_path, cert_path = os.path.join(directory, "key.pem"), os.path.join(directory, "cert.pem")
    with open(key_path, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    with open(cert_path, "wb") as file:
        file.write(certificate)
    return key_path, cert_path, certificate

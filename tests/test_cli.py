"""The tools `fastway client`, `play`, `ping` and `serve-echo`, as processes, over a gateway in
this."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import termios
from typing import Any, cast
from unittest import mock

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fastway.__main__ import main
from fastway.cli import tools
from fastway.cli.table import ClientOptions
from fastway.endpoint import VirtualConnection
from fastway.errors import ConfigError
from fastway.gateway.lane import End
from fastway.testing import LocalGateway
from tests.support import forks
from tests.support.errors import raised
from tests.support.files import scratch
from tests.support.gateways import GatewayTestCase
from tests.support.golden import KEY
from tests.support.processes import PATIENCE, environment
from tests.support.tls import make_certificate
from tests.support.waits import reactor, turns, until


class Tool(ProcessProtocol):
    """A running `python -m fastway NAME ...`.

    Attributes:
        out: Its standard output.
        err: Its standard error.
        ended: Fires with its exit status; -1 for a signal.
    """

    def __init__(self) -> None:
        self.out = b""
        self.err = b""
        self.ended: Deferred[int] = Deferred()
        self.over = False

    @property
    def process(self) -> Any:
        return self.transport

    @property
    def lines(self) -> list[str]:
        return self.out.decode().splitlines()

    @property
    def problem(self) -> str:
        """The one line of standard error."""
        (line,) = self.err.decode().splitlines()
        return line

    def outReceived(self, data: bytes) -> None:
        self.out += data

    def errReceived(self, data: bytes) -> None:
        self.err += data

    def processEnded(self, reason: Failure) -> None:
        self.over = True
        code = getattr(reason.value, "exitCode", None)
        self.ended.callback(-1 if code is None else code)

    async def says(self, word: bytes) -> None:
        """It comes to write this."""
        await until(
            f"{word!r}; {self.err!r}", lambda: word in self.out + self.err or self.over, PATIENCE
        )


class ToolTestCase(GatewayTestCase):
    def setUp(self) -> None:
        self.directory = scratch(self)

    def run_tool(self, *arguments: str, typed: bytes | None = b"", **settings: str) -> Tool:
        """Start a tool; `typed` is all of its standard input, None leaves that open."""
        tool = Tool()
        reactor.spawnProcess(
            tool,
            sys.executable,
            [*forks.python(), "-m", "fastway", *arguments],
            env=environment(settings),
            path=self.directory,
        )

        def end() -> Deferred[Any] | None:
            if tool.over:
                return None
            tool.process.signalProcess("KILL")
            return tool.ended

        self.addCleanup(end)
        if typed is not None:
            tool.process.write(typed)
            tool.process.closeStdin()
        return tool

    def gate(self, gateway: LocalGateway, side: str = "client") -> str:
        port = gateway.client_port if side == "client" else gateway.server_port
        return f"127.0.0.1:{port}"

    async def echo(self, gateway: LocalGateway, *others: LocalGateway) -> Tool:
        """`fastway serve-echo` with id 3, once it is logged in."""
        gates = [f"--gateway={self.gate(one, 'server')}" for one in (gateway, *others)]
        key = KEY.decode()
        tool = self.run_tool(
            "serve-echo", *gates, "--id=3", typed=None, FASTWAY_SERVER_AUTH_PASSWORD=key
        )
        await until(
            "the logins",
            lambda: tool.over or all(one.service.router.servers for one in (gateway, *others)),
            PATIENCE,
        )
        return tool

    def unread(self, tool: Tool) -> int:
        """Bytes of its standard output that wait in the pipe."""
        count = fcntl.ioctl(tool.process.pipes[1].fileno(), termios.FIONREAD, bytes(4))
        return int.from_bytes(count, sys.byteorder)

    async def statuses(self, *tools: Tool) -> list[int]:
        return list(await gatherResults([tool.ended for tool in tools]))


class ClientTests(ToolTestCase):
    async def test_messages(self) -> None:
        """Lines, hexadecimal and JSON go to `serve-echo` and come back; SIGTERM ends it."""
        gateway, other = self.gateway(), self.gateway()
        echo = await self.echo(gateway, other)
        dial = ("--gateway", self.gate(gateway), "--dial=3")
        lines = self.run_tool("client", *dial, typed="one\n\ngrüße 你\r\nno end".encode())
        play = self.run_tool("play", "-g", self.gate(other), "-d3", typed=b"x" * 300_000)
        hexa = self.run_tool("client", *dial, "--hex", typed=b"00ff\nDEAD beef\n")
        jsons = self.run_tool("client", *dial, "--json", typed=b'{"a" : "\xc3\xbc"}\n[1,\t2]\n')
        started = (lines, play, hexa, jsons)
        self.assertEqual(
            await self.statuses(*started), [0] * 4, b"".join(tool.err for tool in started)
        )
        self.assertEqual(lines.lines, ["one", "", "grüße 你", "no end"])
        self.assertEqual(lines.problem, f"connected to {self.gate(gateway)}, dialled server 3")
        self.assertEqual(play.lines, ["x" * 300_000])
        self.assertEqual(hexa.lines, ["00ff", "deadbeef"])
        self.assertEqual(jsons.lines, ['{"a": "ü"}', "[1, 2]"])
        echo.process.signalProcess("TERM")
        self.assertEqual(await echo.ended, 0)
        self.assertEqual(echo.out, b"")
        self.assertNotIn(b"Traceback", echo.err)
        await until(
            "its leaving",
            lambda: not any(one.service.router.servers for one in (gateway, other)),
        )

    async def test_slow_output(self) -> None:
        """Whoever reads the output late gets all of it."""
        gateway = self.gateway()
        await self.echo(gateway)
        tool = self.run_tool("client", "--gateway", self.gate(gateway), "--dial=3", typed=None)
        await tool.says(b"dialled")
        tool.process.pauseProducing()
        typed = b"".join(b"%d" % number * 10_000 + b"\n" for number in range(40))
        tool.process.write(typed)
        tool.process.closeStdin()
        (link,) = cast(Any, gateway.service.router.clients).values()
        await until(
            "the answers", lambda: link.counts().bytes_out > len(typed) or tool.over, PATIENCE
        )
        await until("a full pipe", lambda: self.unread(tool) > 55_000 or tool.over, PATIENCE)
        await turns(200)
        tool.process.resumeProducing()
        self.assertEqual(await tool.ended, 0, tool.err)
        self.assertEqual(len(tool.out), len(typed), tool.err)
        self.assertEqual(tool.out, typed)

    async def test_problems(self) -> None:
        """A refused dial, a gateway that is not there, a bad line, a server that closes: a line
        that says so, and status 1."""
        gateway = self.gateway()
        server = await self.server(gateway)

        def close_at_once(conn: VirtualConnection[Any]) -> None:
            conn.receive().addBoth(lambda _: conn.close())

        server.listen(close_at_once)
        gate = ("--gateway", self.gate(gateway))
        cases = {
            "refused": self.run_tool("client", *gate, "--dial=9"),
            "is one there?": self.run_tool("client", "--gateway=127.0.0.1:1"),
            "line 2: ": self.run_tool("client", *gate, "--hex", typed=b"\nzz\n00\n"),
            "line 1: ": self.run_tool("client", *gate, "--json", typed=b"{nope\n"),
            "closed by the server": self.run_tool("client", *gate, typed=None),
        }
        closing = cases["closed by the server"]
        await closing.says(b"dialled")
        closing.process.write(b"anything\n")
        self.assertEqual(await self.statuses(*cases.values()), [1] * 5)
        for words, tool in cases.items():
            last = tool.err.decode().splitlines()[-1]
            self.assertTrue(last.startswith("fastway client: "), tool.err)
            self.assertIn(words, last)
            self.assertLessEqual(len(tool.err.splitlines()), 2, tool.err)
            self.assertEqual(tool.out, b"")


class PlayTests(ToolTestCase):
    async def test_quit(self) -> None:
        """That the server closes the connection, as the demo does on /quit, ends `play` with
        status 0, and the loss of the gateway with status 1."""
        gateway, other = self.gateway(), self.gateway()
        for one in (gateway, other):
            server = await self.server(one)
            server.listen(lambda conn: conn.receive().addBoth(lambda _: conn.close()))
        play = self.run_tool("play", "--gateway", self.gate(gateway), typed=None)
        cut = self.run_tool("play", "--gateway", self.gate(other), typed=None)
        for tool in (play, cut):
            await tool.says(b"dialled")
        play.process.write(b"/quit\n")
        (link,) = other.service.router.clients.values()
        cast(Any, link).lane.close(End.ABORT)
        self.assertEqual(await self.statuses(play, cut), [0, 1])
        self.assertEqual(play.err.decode().splitlines()[-1], "closed by the server")
        self.assertIn("broke", cut.err.decode().splitlines()[-1])


class EchoTests(ToolTestCase):
    async def test_login(self) -> None:
        """It says that it echoes once it is logged in, and again when a gateway is back."""
        gateway = self.gateway()
        echo = await self.echo(gateway)
        line = f"server 3 echoes over {self.gate(gateway, 'server')}\n".encode()
        await echo.says(line)
        self.assertEqual(echo.err, line)
        ((link,),) = gateway.service.router.servers.values()
        cast(Any, link).lane.close(End.ABORT)
        await until("the second login", lambda: echo.err.count(line) == 2 or echo.over, PATIENCE)
        gone = b"is gone; it is tried again"
        self.assertEqual(echo.err.count(gone), 1)
        echo.process.signalProcess("INT")
        self.assertEqual(await echo.ended, 0)
        self.assertEqual(echo.err.count(gone), 1)  # it is not: we are

    async def test_never_in(self) -> None:
        """A wrong key and a gateway that is not there are said once each, whatever the number of
        attempts, and a signal ends it with status 1."""
        gateway = self.gateway()
        gates = [f"--gateway={self.gate(gateway, 'server')}", "--gateway=127.0.0.1:1"]
        echo = self.run_tool("serve-echo", *gates, "--key=wrong", typed=None)
        refused = gateway.service.router.stats.strangers
        await until("two attempts", lambda: sum(refused.values()) > 1 or echo.over, PATIENCE)
        await echo.says(b"is one there?")
        await echo.says(b"is the key right")
        echo.process.signalProcess("TERM")
        self.assertEqual(await echo.ended, 1)
        lines = sorted(echo.err.decode().splitlines())
        self.assertEqual(len(lines), 2, lines)
        self.assertIn("127.0.0.1:1: connection refused; is one there?", lines[0])
        self.assertIn(f"{self.gate(gateway, 'server')}: the gateway did not take", lines[1])


class TlsTests(ToolTestCase):
    async def test_causes(self) -> None:
        """Over TLS a certificate that is not trusted, or is for another name, is said so."""
        certificate = make_certificate()
        factory = Factory.forProtocol(Protocol)
        port = reactor.listenSSL(0, factory, certificate.options(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        with open(os.path.join(self.directory, "ca.pem"), "wb") as file:
            file.write(certificate.dumpPEM())
        number = port.getHost().port
        cases = {
            f"tls:localhost:{number}": "TLS: its certificate is self-signed",
            f"tls:127.0.0.1:{number}:trustRoots={self.directory}": "not for 127.0.0.1",
            "tls:localhost:1:trustRoots=ca.pem": "it is a file, and must be a directory",
            "tls:localhost:1": "cannot reach the gateway tls:localhost:1: connection refused; ",
        }
        started = [self.run_tool("ping", "--gateway", gate) for gate in cases]
        echo = self.run_tool("serve-echo", f"--gateway=tls:localhost:{number}", typed=None)
        self.assertEqual(await self.statuses(*started), [1] * 4)
        for tool, words in zip(started, cases.values(), strict=True):
            self.assertIn(words, tool.problem)
        await echo.says(b"self-signed")
        self.assertNotIn(b"key", echo.err)

    async def test_end(self) -> None:
        """A tool that is done ends the connection in good order, over TLS too."""
        certificate = make_certificate()
        with open(os.path.join(self.directory, "ca.pem"), "wb") as file:
            file.write(certificate.dumpPEM())
        lost: list[Failure] = []

        class Answers(Protocol):
            def dataReceived(self, data: bytes) -> None:
                cast(Any, self.transport).write(data)  # a ping is its own answer

            def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
                lost.append(reason)

        factory = Factory.forProtocol(Answers)
        port = reactor.listenSSL(0, factory, certificate.options(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        gate = f"tls:localhost:{port.getHost().port}:trustRoots={self.directory}"
        tool = self.run_tool("ping", "--gateway", gate, "--count=1")
        self.assertEqual(await self.statuses(tool), [0])
        await until("the end", lambda: bool(lost), PATIENCE)
        self.assertTrue(lost[0].check(ConnectionDone), lost)


class WebTests(ToolTestCase):
    async def test_tools(self) -> None:
        """By WebSocket: a client, pings, and what is wrong in one line and status 1."""
        gateway = LocalGateway(reactor, KEY, ws=True, client_ws_path="/game", relay="off")
        self.addCleanup(gateway.stop)
        await gateway.start()
        await self.echo(gateway)
        url, number = gateway.web_url, gateway.web_port
        text = f"ws:127.0.0.1:{number}:path=/game"
        told = self.run_tool("client", "--gateway", url, "--dial=3", typed=b"hello\nthere\n")
        pinged = self.run_tool("ping", "--gateway", text, "--count=2", "--interval=1ms")
        cases = {
            f"ws://127.0.0.1:{number}/": "refused with HTTP status 404",
            f"{text}:origin=https\\://evil.example": "refused with HTTP status 403",
            f"ws://127.0.0.1:{gateway.client_port}/game": "closed within the handshake",
            f"wss://127.0.0.1:{number}/game": "TLS: ",
            "ws://127.0.0.1:1/": "cannot reach the gateway ws://127.0.0.1:1/: connection refused",
            "ws://127.0.0.1:0/": "a port is 1 to 65535",
            "ws:127.0.0.1:1:pth=/": "no argument 'pth'",
        }
        started = [self.run_tool("ping", "--gateway", gate) for gate in cases]
        self.assertEqual(await self.statuses(told, pinged), [0, 0], told.err)
        self.assertEqual(told.lines, ["hello", "there"])
        self.assertEqual(len(pinged.lines), 3)
        self.assertEqual(await self.statuses(*started), [1] * len(cases))
        for tool, words in zip(started, cases.values(), strict=True):
            self.assertIn(words, tool.problem)
        await until("no client", lambda: not gateway.service.router.clients)

    async def test_secure(self) -> None:
        """Over TLS, with a file of who is trusted."""
        certificate = make_certificate()
        with open(os.path.join(self.directory, "ca.pem"), "wb") as file:
            file.write(certificate.dumpPEM())
        with open(os.path.join(self.directory, "key.pem"), "wb") as file:
            file.write(certificate.privateKey.dump(1))
        paths = {
            name: quoteStringArgument(os.path.join(self.directory, f"{name}.pem"))
            for name in ("ca", "key")
        }
        where = f"ssl:0:interface=127.0.0.1:privateKey={paths['key']}:certKey={paths['ca']}"
        gateway = LocalGateway(reactor, KEY, client_ws_addr=where, relay="off")
        self.addCleanup(gateway.stop)
        await gateway.start()
        self.assertEqual(gateway.web_url, f"wss://127.0.0.1:{gateway.web_port}/")
        gate = f"wss:localhost:{gateway.web_port}"
        fine = self.run_tool("ping", f"--gateway={gate}:trustRoots=ca.pem", "--count=1")
        cases = {
            f"wss://localhost:{gateway.web_port}": "TLS: its certificate is self-signed",
            f"wss:127.0.0.1:{gateway.web_port}:trustRoots=ca.pem": "not for 127.0.0.1",
            f"{gate}:trustRoots=nope.pem": "trustRoots=nope.pem: there is no such file",
            f"{gate}:trustRoots=key.pem": "no certificate in PEM is there",
        }
        started = [self.run_tool("ping", "--gateway", gate) for gate in cases]
        self.assertEqual(await self.statuses(fine, *started), [0, *[1] * len(cases)])
        for tool, words in zip(started, cases.values(), strict=True):
            self.assertIn(words, tool.problem)


WITHOUT_TLS = """
import sys
sys.modules["OpenSSL"] = sys.modules["service_identity"] = None
from fastway.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


class NotInstalledTests(SynchronousTestCase):
    def test_tls(self) -> None:
        """Without OpenSSL the tools, and `check`, say what to install, and no Python name."""
        strings = (
            ("ping", "--gateway=tls:localhost:1"),
            ("ping", "--gateway=wss://localhost:1/"),
            ("ping", "--gateway=wss:localhost:1"),
            ("client", r"--gateway=snet:tls\:localhost\:1"),
            ("check", "--server-addr=127.0.0.1:1", "--client-addr=ssl:1:privateKey=key.pem"),
        )
        started = [
            subprocess.Popen(
                [sys.executable, "-c", WITHOUT_TLS, *arguments],
                env=environment({}),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for arguments in strings
        ]
        for process in started:
            _, said = process.communicate(timeout=PATIENCE)
            self.assertEqual(process.returncode, 1)
            (line,) = said.splitlines()
            self.assertIn("pip install 'fastway[tls]'", line)
            self.assertNotIn("is not defined", line)


class PingTests(ToolTestCase):
    async def test_ping(self) -> None:
        """--count pings and a summary; without it until Ctrl-C, which ends it with the summary;
        a gateway that is not there, or a bad number, is one line and status 1."""
        gateway = self.gateway()
        gate = f"--gateway={self.gate(gateway)}"
        counted = self.run_tool("ping", gate, "--count=3", "--interval=1ms")
        endless = self.run_tool("ping", gate, "-i", "1ms")
        nobody = self.run_tool("ping", "--gateway=127.0.0.1:1")
        number = self.run_tool("ping", gate, "--count=x")
        place = self.run_tool("serve-echo", "--gateway=nonsense")
        await endless.says(b"ping 5: ")
        endless.process.signalProcess(signal.SIGINT)
        started = (counted, endless, nobody, number, place)
        self.assertEqual(await self.statuses(*started), [0, 0, 1, 1, 1])
        for tool in (counted, endless):
            *pings, summary = tool.lines
            for place_in_row, line in enumerate(pings, 1):
                self.assertTrue(re.fullmatch(rf"ping {place_in_row}: \d+\.\d+ ms", line), line)
            self.assertIn(f"{len(pings)} pings of {self.gate(gateway)}: min ", summary)
            for name in ("avg", "p50", "p90", "p99", "max"):
                self.assertIn(f", {name} ", summary)
            self.assertEqual(tool.err, b"")
        self.assertEqual(len(counted.lines), 4)
        self.assertIn("is one there?", nobody.problem)
        self.assertIn("--count: 'x'", number.problem)
        self.assertIn("--gateway: 'nonsense'", place.problem)


class FunctionTests(SynchronousTestCase):
    def test_percentile(self) -> None:
        """The value at a percentage of ordered values, whatever their number."""
        hundred = list(range(100))
        for percent, value in ((0, 0), (50, 50), (90, 90), (99, 99), (100, 99)):
            self.assertEqual(tools.percentile(hundred, percent), value)
            self.assertEqual(tools.percentile([7.0], percent), 7.0)

    def test_gateway(self) -> None:
        """A gateway is host:port, with IPv6 in brackets, or an endpoint string."""
        for text in ("127.0.0.1:9010", "localhost:1", "[::1]:9010", ":9010", "tcp:a:1", "unix:/a"):
            tools.gateway_endpoint(reactor, "--gateway", text)
        for text in ("", "localhost", "localhost:", "localhost:http", ":-1", "a:65536", "::1:1"):
            error = raised(ConfigError, tools.gateway_endpoint, reactor, "--gateway", text)
            self.assertIn(f"--gateway: {text!r}", str(error))
            self.assertEqual(len(str(error).splitlines()), 1)

    def test_gateway_to_write(self) -> None:
        """Whatever is wrong with one, the line says how it is written."""
        for text, problem, mend in (
            ("tcp:9010", "it has no port", "write tcp:HOST:PORT"),
            ("tcp:", "it has no host", "write tcp:HOST:PORT"),
            ("tcp:a:x", "'x' is not a port from 1 to 65535", "write tcp:HOST:PORT"),
            ("tcp:a:1:x=1", "it takes no x=", "write tcp:HOST:PORT"),
            ("tls:host=a", "it has no port", "write tls:HOST:PORT"),
            ("unix:", "it has no path", "write unix:PATH"),
            ("ws:", "it has no host", "write ws:HOST:PORT:path=/PATH"),
            ("ws:a:b", "'b' is not a port", "write ws:HOST:PORT:path=/PATH"),
            (r"snet:tcp\:a", "it has no port", r"write snet:tcp\:HOST\:PORT"),
            ("systemd:web", "there is no kind 'systemd'", "give host:port, ws://host:port/path"),
            ("127.0.0.1", "it has no port", "give host:port"),
            ("[zz]:1", "[zz] is not an IPv6 address", ""),
        ):
            error = raised(ConfigError, tools.gateway_endpoint, reactor, "--gateway", text)
            self.assertIn(f"{text!r}", str(error))
            self.assertIn(problem, str(error))
            self.assertIn(mend, str(error))

    def test_options(self) -> None:
        """What is wrong on a command line is one line with the tool's name, and status 1."""
        for name, arguments, word in (
            ("client", ["--nope"], "--nope"),
            ("client", ["--dial"], "--dial"),
            ("play", ["extra"], "'extra'"),
            ("ping", ["--cuont=1"], "--cuont"),
            ("serve-echo", ["--gateway"], "--gateway"),
            ("client", ["-Dial", "1"], "-Dial: no such option (did you mean --dial?)"),
            ("client", ["-dial", "1"], "-dial: no such option (did you mean --dial?)"),
            ("client", ["--dial=4294967296"], "--dial: '4294967296' is too large"),
            ("ping", ["-c", "-1"], "-c: '-1' is too small"),
        ):
            said = io.StringIO()
            with contextlib.redirect_stderr(said):
                self.assertEqual(main([name, *arguments]), 1)
            (line,) = said.getvalue().splitlines()
            self.assertTrue(line.startswith(f"fastway {name}: "), line)
            self.assertIn(word.lstrip("-"), line)

    def test_help(self) -> None:
        """Every tool has --help, with each option in it, and status 0."""
        for name, word in (("client", "--json"), ("ping", "--count"), ("serve-echo", "--key")):
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                self.assertEqual(raised(SystemExit, main, [name, "--help"]).code, 0)
            self.assertIn(word, said.getvalue())

    def test_one_write(self) -> None:
        """A line is whole in one write, beside a log whose thread writes to the same file."""
        writes: list[str] = []
        error = mock.Mock(write=writes.append)
        with contextlib.redirect_stderr(error):
            tools.say("here")
            self.assertEqual(main(["nobody"]), 1)
        self.assertEqual(len(writes), 2, writes)
        self.assertEqual(writes[0], "here\n")
        self.assertTrue(writes[1].endswith("\n"))

    def test_json_line(self) -> None:
        """A JSON line goes out as JSON, and what is none is a ValueError with the place."""
        options = ClientOptions()
        options.parseOptions(["--json"])
        client = tools.LineClient(reactor, options)
        self.assertEqual(json.loads(client._message(b' {"a": [1] } ')), {"a": [1]})
        raised(ValueError, client._message, b"{")
        raised(ValueError, client._message, b"\xff")


class SilenceTests(SynchronousTestCase):
    def test_blocked_output_is_no_silence(self) -> None:
        """The end of the input ends the client after a silence, not while its output waits."""
        clock = Clock()
        client = tools.LineClient(clock, ClientOptions())
        client._blocked = True
        client._input_over("")
        clock.advance(tools.QUIET)
        clock.advance(tools.QUIET)
        self.assertNoResult(client._done)
        client._blocked = False
        clock.advance(tools.QUIET)
        self.assertEqual(self.successResultOf(client._done), "")

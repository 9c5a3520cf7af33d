"""`fastway serve` and `fastway talk`: what is wrong with a command, and some as processes."""

from __future__ import annotations

import io
import os
import re
import runpy
import socket
import sys
from collections.abc import Coroutine
from contextlib import redirect_stdout
from typing import Any
from unittest import mock

from twisted.internet import asyncioreactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, RaisingMemoryReactor, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastway.__main__ import main
from fastway.app import App, Request
from fastway.app.testing import Player
from fastway.cli import app as tools
from fastway.cli.table import ServeOptions, TalkOptions
from fastway.dialect.pomelo import PomeloJson
from fastway.errors import ConfigError, FastwayError, NotInstalled
from fastway.formats import MessagePack
from fastway.ops import process as ops_process
from tests.support import forks, inherited
from tests.support.errors import raised
from tests.support.files import CHECKOUT, scratch
from tests.support.processes import PATIENCE, environment
from tests.support.waits import reactor, until

GAME = """
from twisted.internet.task import deferLater
from fastway.app import App, Refused, Session
from fastway.dialect.pomelo import Pomelo

app = App()
pomelo = Pomelo(refusals="reply", heartbeat=7)
pitaya = Pomelo(profile="pitaya")
number = 3

@app.handshake
def login(session: Session, user):
    if user == "eve":
        raise Refused(401, "not you")

@app.handler("echo")
def echo(session: Session, message):
    session.send("on", message)
    return message

@app.handler("slow")
async def slow():
    from twisted.internet import reactor
    print("slow begins", flush=True)
    await deferLater(reactor, 0.3)
    return "done"
"""


CLUSTER = """
from fastway.app import App
from fastway.cluster import NanoMaster, NanoMember

app = App()
node = NanoMember(app, "127.0.0.1:34571", master="127.0.0.1:34570")
master = NanoMaster(App(), "127.0.0.1:0")
"""


BAD_HANDLER = """
from fastway.app import App

app = App()

@app.handler("one.two")
def take(one: int, two: int) -> None: ...
"""


class Files(SynchronousTestCase):
    """A directory with modules, which is where commands are given."""

    def setUp(self) -> None:
        self.directory = scratch(self)
        for name, text in (
            ("cli_game", GAME),
            ("cli_broken", "1 / 0\n"),
            ("cli_twice", BAD_HANDLER),
            ("cli_proto", "raise ModuleNotFoundError('', name='google')\n"),
            ("cli_lacks", "import nobody_has_this\n"),
            ("cli_cluster", CLUSTER),
        ):
            with open(os.path.join(self.directory, f"{name}.py"), "w", encoding="utf-8") as file:
                file.write(text)
        self.patch(os, "getcwd", lambda: self.directory)
        self.patch(sys, "path", [self.directory, "", *sys.path])
        self.addCleanup(lambda: [sys.modules.pop(name, None) for name in self.modules()])

    def modules(self) -> list[str]:
        return [name for name in sys.modules if name.startswith("cli_")]

    def problem(self, running: Coroutine[Any, Any, int]) -> str:
        """What a command fails with, in one line."""
        text = str(self.failureResultOf(ensureDeferred(running), FastwayError).value)
        self.assertNotIn("\n", text)
        return text


class Mistakes(Files):
    """Each is one line, before anything listens."""

    def serve(self, *arguments: str) -> str:
        options = ServeOptions()
        options.parseOptions(list(arguments))
        memory: Any = MemoryReactorClock()
        text = self.problem(tools.serve_app(memory, options))
        self.assertEqual((memory.tcpServers, memory.tcpClients), ([], []))
        return text

    def talk(self, *arguments: str) -> str:
        options = TalkOptions()
        options.parseOptions(list(arguments))
        return self.problem(tools.Talk(MemoryReactorClock(), options).run())

    def test_app(self) -> None:
        """An application that cannot be had."""
        listen = ("--listen", "pomelo=:3250")
        for app, problem in (
            ("", "is not MODULE:NAME"),
            ("cli_game", "is not MODULE:NAME"),
            ("cli_nobody:app", "there is no module 'cli_nobody' here"),
            ("cli_game.inner:app", "there is no module 'cli_game.inner' here"),
            ("cli_nobody.py:app", "'cli_nobody.py' here; write cli_nobody:app"),
            ("cli_game.py:app", "'cli_game.py' here; write cli_game:app"),
            (
                "cli_broken:app",
                "cli_broken cannot be imported: ZeroDivisionError: division by zero "
                "(cli_broken.py, line 1)",
            ),
            ("cli_twice:app", "annotate one as Session, one as Request, and one as the type"),
            ("cli_twice:app", "(cli_twice.py, line 6)"),
            ("cli_proto:app", "pip install 'fastway[protobuf]'"),
            ("cli_lacks:app", "cli_lacks imports 'nobody_has_this', which is not installed"),
            ("cli_game:ap", "cli_game has no ap"),
            ("cli_game:number", "cli_game:number is no App of fastway.app"),
        ):
            with self.subTest(app):
                told = self.serve(app, *listen)
                self.assertIn(problem, told)
                self.assertTrue(told.startswith("APP: "), told)
        self.assertIn("give MODULE:APP", self.serve(*listen))

    def test_cluster(self) -> None:
        """A node that is none, or another's."""
        for node, problem in (
            ("cli_game", "is not MODULE:NAME"),
            ("cli_game:number", "cli_game:number is no node, such as a NanoMember"),
            ("cli_cluster:node", "cli_cluster:node is a node of another App"),
        ):
            told = self.serve("cli_game:app", f"--cluster={node}")
            self.assertTrue(told.startswith("--cluster: "), told)
            self.assertIn(problem, told)

    def test_listen(self) -> None:
        """A port that cannot be."""
        for listen, problem in (
            (":3250", "is not DIALECT=ADDRESS"),
            ("ws:3250:path=/nano", "is not DIALECT=ADDRESS"),
            ("pomelo=", "is not DIALECT=ADDRESS"),
            ("morse=:3250", "no dialect 'morse'; there is pomelo"),
            ("cli_game:nobody=:3250", "cli_game has no nobody"),
            ("cli_game:number=:3250", "cli_game:number is no dialect"),
            ("cli_game:login=:3250", "cli_game:login is no dialect"),
            ("cli_game:Refused=:3250", "cli_game:Refused cannot be made: TypeError: "),
            ("pomelo=3250", "3250"),
            ("pomelo=:99999", "99999"),
            ("pomelo=ws:3250:paht=/x", "paht"),
            ("pomelo=ws:3250:path=x", "does not begin with /"),
            ("pomelo=ws:3250:origins=game.example", "give same, *, or https://HOST"),
            ("pomelo=fastway:tcp\\:127.0.0.1\\:9020", "id"),
            ("pomelo=systemd:nope", "systemd:nope: "),
        ):
            with self.subTest(listen):
                told = self.serve("cli_game:app", "--listen", listen)
                self.assertIn(problem, told)
                self.assertTrue(told.startswith("--listen: "), told)
        self.assertIn("--listen: give it", self.serve("cli_game:app"))
        raised(ConfigError, ServeOptions().parseOptions, ["cli_game:app", "--log-level=loud"])

    def test_push(self) -> None:
        """A port for pushes without a token would be anybody's."""
        self.patch(os, "environ", {})
        push = ("cli_game:app", "--listen=pomelo=127.0.0.1:0", "--push-addr=127.0.0.1:0")
        self.assertIn("--push-token: it is empty", self.serve(*push))
        self.assertIn("set FASTWAY_PUSH_TOKEN", self.serve(*push))
        for option in ("--push-addr=x:y", "--metrics-addr=x:y", "--push-addr=ws:0"):
            told = self.serve(*push[:2], "--push-token=x", option)
            self.assertTrue(told.startswith(f"{option.partition('=')[0]}: "), told)

    def test_talk(self) -> None:
        """A peer that cannot be."""
        for arguments, problem in (
            ((), "give DIALECT=ADDRESS"),
            (("127.0.0.1:3250",), "is not DIALECT=ADDRESS"),
            (("morse=:3250",), "no dialect 'morse'"),
            (("pomelo=3250",), "3250"),
            (("pomelo=:3250", "--user", "{"), "--user: it is no JSON"),
            (("hotpot=:3250", "--user", "1"), "--user: hotpot has no place for it"),
            (("pomelo=ws:127.0.0.1:3250:paht=/",), "paht"),
            (("pomelo=127.0.0.1:http",), "'http' is not a port"),
            (("pomelo=tcp:3250",), "it has no port; write tcp:HOST:PORT"),
            (("pomelo=systemd:game",), "give host:port, ws://host:port/path, or tcp:..., tls:..."),
        ):
            with self.subTest(arguments):
                self.assertIn(problem, self.talk(*arguments))

    def test_taken(self) -> None:
        """A port that somebody has, and a peer that is not there."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            free = "127.0.0.1:0"
            memory: Any = RaisingMemoryReactor(None, ConnectionRefusedError())
            memory.callLater = Clock().callLater
            serve, talk = ServeOptions(), TalkOptions()
            serve.parseOptions(["cli_game:app", f"--listen=pomelo={address}"])
            talk.parseOptions(["pomelo=127.0.0.1:3250"])
            told = self.problem(tools.serve_app(memory, serve))
            for option in ("--push-addr", "--metrics-addr"):
                more = [f"--listen=pomelo={free}", f"{option}={address}", "--push-token=x"]
                wanted = ServeOptions()
                wanted.parseOptions(["cli_game:app", *more])
                line = self.problem(tools.serve_app(memory, wanted))
                self.assertTrue(line.startswith(f"{option}: cannot listen on {address}: "), line)
        self.assertIn(f"--listen: cannot listen on {address}: Address already in use", told)
        told = self.problem(tools.Talk(memory, talk).run())
        self.assertIn("cannot reach 127.0.0.1:3250: ", told)

    def test_closed(self) -> None:
        """A peer that closes instead of letting anybody in may speak another dialect."""
        memory: Any = MemoryReactorClock()
        options = TalkOptions()
        options.parseOptions(["pomelo=127.0.0.1:3250"])
        running = tools.Talk(memory, options).run()
        done = ensureDeferred(running)
        protocol = memory.tcpClients[0][2].buildProtocol(None)
        protocol.makeConnection(StringTransport())
        protocol.connectionLost(Failure(ConnectionDone()))
        memory.advance(1)
        told = str(self.failureResultOf(done, FastwayError).value)
        self.assertIn("does 127.0.0.1:3250 speak pomelo, and let this client in?", told)

    def test_user(self) -> None:
        """Who says who it is speaks the dialect as it was given all the same."""
        memory: Any = MemoryReactorClock()
        options = TalkOptions()
        options.parseOptions(["cli_game:pitaya=127.0.0.1:3250", "--user", '"ann"'])
        talking = ensureDeferred(tools.Talk(memory, options).run())
        transport = StringTransport()
        protocol = memory.tcpClients[0][2].buildProtocol(None)
        protocol.makeConnection(transport)
        self.assertIn(b'"user":"ann"', transport.value())
        link = protocol._wrappedProtocol
        self.assertEqual(link.wire._settings.pitaya, True)
        talking.cancel()
        self.failureResultOf(talking)

    def test_no_message(self) -> None:
        """What the format cannot say is told, and the next line is typed."""

        class Deaf:
            def send(self, route: str, message: object) -> None:
                raise TypeError(f"a message is Message here, not {type(message).__name__}")

        talk = tools.Talk(MemoryReactorClock(), TalkOptions())
        talk._session = Deaf()
        told: list[str] = []
        self.patch(tools, "say", told.append)
        talk._line(b"!join 1")
        talk._line(b"!join")
        self.assertEqual(
            told,
            [f"TypeError: a message is Message here, not {one}" for one in ("int", "NoneType")],
        )

    def talk_at(self, peer: str, typed: bytes) -> tuple[Any, Any, Any]:
        """`fastway talk` once it is connected and lines were typed: what it comes to, the
        connection, and its clock."""
        memory: Any = MemoryReactorClock()

        def stdio(lines: Any, reactor: Any) -> None:
            transport: Any = StringTransport()
            transport.loseConnection = lines.connectionLost
            lines.makeConnection(transport)
            lines.dataReceived(typed)
            lines.readConnectionLost()

        self.said: list[str] = []
        self.patch(tools, "say", self.said.append)
        self.patch(tools, "StandardIO", stdio)
        options = TalkOptions()
        options.parseOptions([peer, "--timeout=5"])
        running = ensureDeferred(tools.Talk(memory, options).run())
        protocol = memory.tcpClients[0][2].buildProtocol(None)
        protocol.makeConnection(StringTransport())
        memory.advance(0)
        return running, protocol, memory

    def test_another_dialect(self) -> None:
        """Where a dialect begins without a handshake, the first answer shows whether it is that:
        until then talk asks, as it does where there is one."""
        for dialect in ("teleport", "teleport2"):
            asked = f"does 127.0.0.1:3250 speak {dialect}, and let this client in?"
            done, protocol, memory = self.talk_at(f"{dialect}=127.0.0.1:3250", b"/a/b {}\n")
            protocol.connectionLost(Failure(ConnectionDone()))
            memory.advance(1)
            error = self.failureResultOf(done, FastwayError).value
            self.assertEqual(str(error), f"the peer closed; {asked}")

            done, protocol, memory = self.talk_at(f"{dialect}=127.0.0.1:3250", b"/a/b {}\n")
            memory.pump([1] * 8)
            self.assertEqual(self.successResultOf(done), 0)
            self.assertEqual(
                self.said[-2:], ["! /a/b: no answer within 5 s", f"nothing came back; {asked}"]
            )

    def test_another_dialect_without_requests(self) -> None:
        """The same where nothing can be asked; but not where nothing is expected."""
        asked = "does 127.0.0.1:3250 speak hotpot, and let this client in?"
        done, protocol, memory = self.talk_at("hotpot=127.0.0.1:3250", b"Echo {}\n")
        protocol.connectionLost(Failure(ConnectionDone()))
        memory.advance(1)
        self.assertEqual(self.successResultOf(done), 0)
        self.assertEqual(self.said[-1], f"the peer closed; {asked}")
        for typed in (b"", b"!Echo {}\n"):
            done, protocol, memory = self.talk_at("hotpot=127.0.0.1:3250", typed)
            memory.pump([1] * 3)
            self.assertEqual(self.successResultOf(done), 0)
            self.assertNotIn(asked, " ".join(self.said))

    def test_no_handshake(self) -> None:
        """A peer that says nothing at all at the handshake may speak another dialect, too."""
        memory: Any = MemoryReactorClock()
        options = TalkOptions()
        options.parseOptions(["pomelo=127.0.0.1:3250", "--timeout=5"])
        done = ensureDeferred(tools.Talk(memory, options).run())
        memory.tcpClients[0][2].buildProtocol(None).makeConnection(StringTransport())
        memory.pump([1] * 6)
        told = str(self.failureResultOf(done, FastwayError).value)
        self.assertIn("no answer within 5 s; does 127.0.0.1:3250 speak pomelo, and", told)

    def test_terminal(self) -> None:
        """What a server says is one line each, without a word to the terminal; answers that are
        no JSON are shown too."""
        talk = tools.Talk(MemoryReactorClock(), TalkOptions())
        out = StringTransport()
        talk._lines.makeConnection(out)
        talk._print("< on\x1b[31m", "\x1b]0;owned\x07\nend\x9b \ud800 ü")
        for answer in ({"ü": "\x7f"}, b"\x1b\xfe\n", {1, 2}):
            talk._asked = 1
            talk._answered(answer, "ask")
        self.assertEqual(
            out.value().decode().splitlines(),
            [
                r"< on\x1b[31m \x1b]0;owned\x07\nend\x9b \ud800 ü",
                r'= ask {"ü": "\x7f"}',
                r"= ask \x1b\xfe\n",
                "= ask {1, 2}",
            ],
        )

    def test_bodies(self) -> None:
        """Text is shown as it came, MessagePack in JSON, and what is neither spelt out."""
        app = App(clock=Clock())
        told: list[str] = []

        @app.unknown
        def heard(request: Request) -> None:
            told.append(tools._told_message(request))

        for form, bodies in (
            (PomeloJson(), (b'{"a": 1}', b"\xff[1]")),
            (MessagePack(Any), (b"\x81\xa1a\xc3", b"\xc1\xfe")),
        ):
            for body in bodies:
                Player(app, format=form).send("on", body)
        self.assertEqual(told, ['{"a": 1}', r"\xff[1]", '{"a": true}', r"\xc1\xfe"])

    def test_listed(self) -> None:
        """The help of all commands and the completions know them."""
        for arguments, words in (
            (["--help"], ("serve MODULE:APP", "talk PEER", "describe MODULE:APP")),
            (["help", "serve"], ("--listen", "--push-addr", "--push-token", "--log-level")),
            (["help", "talk"], ("--user", "--timeout", "ROUTE JSON")),
            (["help", "describe"], ("--dialect", "--types", "--output", "AsyncAPI")),
            (["completion", "bash"], ("serve", "talk", "--push-addr")),
            (["completion", "zsh"], ("serve", "talk", "--push-addr")),
        ):
            out = io.StringIO()
            with redirect_stdout(out):
                self.assertEqual(main(arguments), 0)
            for word in words:
                self.assertIn(word, out.getvalue(), arguments)

    def test_asyncio(self) -> None:
        """Its reactor is installed before a tool asks for one; and there may be as many players as
        files may be open."""
        done: list[str] = []
        self.patch(ops_process, "raise_file_limit", lambda: done.append("raised"))
        self.patch(asyncioreactor, "install", lambda: done.append("installed"))

        def run(*_: object) -> int:
            done.append("runs")
            return 0

        self.patch(tools, "run_tool", run)
        for arguments in (["cli_game:app"], ["cli_game:app", "--asyncio"]):
            options = ServeOptions()
            options.parseOptions(arguments)
            tools.serve(options)
        self.assertEqual(done, ["raised", "runs", "installed", "raised", "runs"])

    def test_no_msgspec(self) -> None:
        """Without the extra an import says what installs it."""
        place = os.path.join(CHECKOUT, "fastway", "app", "__init__.py")
        with mock.patch.dict(sys.modules, {"msgspec": None}):
            error = raised(NotInstalled, runpy.run_path, place)
        self.assertIsInstance(error, ImportError)
        self.assertIn("fastway.app needs msgspec: pip install 'fastway[app]'", str(error))


class Tool(ProcessProtocol):
    """A command that runs."""

    def __init__(self) -> None:
        self.out = b""
        self.ended: Deferred[int] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.out += data

    def errReceived(self, data: bytes) -> None:
        self.out += data

    def processEnded(self, reason: Failure) -> None:
        code = getattr(reason.value, "exitCode", None)
        self.ended.callback(-1 if code is None else code)

    @property
    def lines(self) -> list[str]:
        return self.out.decode().splitlines()


class Sockets(TestCase):
    timeout = 60

    async def test_systemd(self) -> None:
        """All ports of `fastway serve` can be sockets of systemd's."""
        inherited.give(self, game=inherited.tcp(self), push=inherited.tcp(self))
        options = ServeOptions()
        ports = ["--listen=pomelo=systemd:game", "--push-addr=systemd:push", "--push-token=x"]
        options.parseOptions(["game:app", *ports])
        said: list[str] = []
        self.patch(tools, "say", said.append)
        self.patch(tools, "app_at", lambda _: App())
        running = ensureDeferred(tools.serve_app(reactor, options))
        await until("both ports", lambda: len(said) > 1 or running.called, PATIENCE)
        running.cancel()
        await self.assertFailure(running, CancelledError)
        kinds = [line.partition(" on 127.0.0.1:")[0] for line in said]
        self.assertEqual(kinds, ["pomelo listens", "pushes are taken"])


class Processes(TestCase):
    def setUp(self) -> None:
        self.directory = scratch(self)
        with open(os.path.join(self.directory, "game.py"), "w", encoding="utf-8") as file:
            file.write(GAME)

    def start(self, *arguments: str, typed: str | None = None) -> Tool:
        tool = Tool()
        process: Any = reactor.spawnProcess(
            tool,
            sys.executable,
            [*forks.python(), "-m", "fastway", *arguments],
            env=environment({}),
            path=self.directory,
        )
        tool.process = process  # type: ignore

        def end() -> Any:
            if not tool.ended.called:
                process.signalProcess("KILL")
                return tool.ended
            return None

        self.addCleanup(end)
        if typed is not None:
            process.write(typed.encode())
            process.closeStdin()
        return tool

    async def test_without_requests(self) -> None:
        """Where a dialect has none, what is typed is said, and messages come back."""
        listen = ("--listen", "hotpot=127.0.0.1:0", "--log-level=info", "--asyncio")
        server = self.start("serve", "game:app", *listen)
        told = re.compile(rb"(?m)^hotpot listens on (\S+)\n")
        await until("the port", lambda: told.search(server.out) or server.ended.called, PATIENCE)
        address = f"hotpot={told.findall(server.out)[0].decode()}"
        talk = self.start("talk", address, typed='Echo {"a": 1}\n!Echo 2\nPing\n')
        self.assertEqual(await talk.ended, 0, talk.out)
        for line in ('< Echo {"a":1}', '< On {"a":1}', "< Echo 2", "< On 2"):
            self.assertIn(line, talk.lines)
        self.assertIn("! Ping: Ping is Ping in hotpot, which is its own", talk.lines)
        self.assertNotIn("speak hotpot", talk.out.decode())
        server.process.signalProcess("TERM")  # type: ignore
        self.assertEqual(await server.ended, 0, server.out)
        self.assertIn(b"[fastway.app#info] hotpot port listens on ", server.out)

    async def test_serve_and_talk(self) -> None:
        """A server, peers by hand, of whom one is refused; SIGTERM lets what runs end."""
        listen = ("--listen", "game:pomelo=127.0.0.1:0")
        web = ("--listen", "game:pomelo=ws:0:interface=127.0.0.1:path=/game")
        server = self.start("serve", "game:app", *listen, *web)
        await until("both ports", lambda: len(server.lines) > 1 or server.ended.called, PATIENCE)
        ports = [line.rpartition(":")[2] for line in server.lines]
        tcp, by_web = (
            f"game:pomelo=127.0.0.1:{ports[0]}",
            f"game:pomelo=ws:127.0.0.1:{ports[1]}:path=/game",
        )
        typed = 'echo {"ü": 1}\n!echo 2\nnobody\nno json\necho {\n\n'
        talk = self.start("talk", by_web, "--timeout=20", typed=typed)
        refused = self.start("talk", tcp, "--user", '"eve"', typed="")
        slow = self.start("talk", tcp, typed="slow\n")
        self.assertEqual(await talk.ended, 0, talk.out)
        self.assertEqual(sum(line.startswith("that is no JSON: ") for line in talk.lines), 2)
        for line in (
            '< on {"\\u00fc":1}',
            '= echo {"ü": 1}',
            "< on 2",
            '= nobody {"code": 404, "msg": "not found"}',
        ):
            self.assertIn(line, talk.lines)
        self.assertEqual(await refused.ended, 1)
        self.assertIn(b"fastway talk: 401: not you", refused.out)
        await until("the slow one", lambda: b"slow begins" in server.out, PATIENCE)
        server.process.signalProcess("TERM")  # type: ignore
        self.assertEqual(await slow.ended, 0, slow.out)
        self.assertIn('= slow "done"', slow.lines)
        self.assertEqual(await server.ended, 0, server.out)
        self.assertNotIn(b"Traceback", server.out)

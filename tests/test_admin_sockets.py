"""The admin API of a whole gateway: where it listens, and the console that asks it there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import ssl
import stat
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from fastway.__main__ import main
from fastway.cli import remote
from fastway.cli.gateway import describe
from fastway.cli.top import picture, short, span
from fastway.errors import CommandError, ConfigError, StartError
from fastway.ops.turns import BoundedPoller, TimedPoller
from fastway.service import GatewayService
from tests.support.errors import raised
from tests.support.golden import KEY, prove
from tests.support.inherited import give
from tests.support.logs import LogLines
from tests.support.service import ServiceTestCase
from tests.support.tls import make
from tests.support.visits import Answer, parsed
from tests.support.waits import reactor, until

TOKEN = "0123456789abcdef"
SOCKET = "--admin-addr=unix:fastway.admin"
TCP = ("--admin-addr=127.0.0.1:0", f"--admin-token={TOKEN}")


def asked(sock: socket.socket, request: str, *headers: str) -> bytes:
    """All that comes back; in a thread."""
    rows = [f"{request} HTTP/1.1", "Host: localhost", *headers, "", ""]
    with sock:
        sock.settimeout(20)
        sock.sendall("\r\n".join(rows).encode())
        pieces = []
        while piece := sock.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


class PortTests(ServiceTestCase):
    @property
    def path(self) -> str:
        return os.path.join(self.directory, "fastway.admin")

    async def by_unix(self, request: str, *headers: str) -> Answer:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        return parsed(await deferToThread(asked, sock, request, *headers))

    async def by_tcp(self, service: GatewayService, request: str, *headers: str) -> Answer:
        port = cast(Any, service.ports["admin"].getHost()).port
        sock = socket.create_connection(("127.0.0.1", port))
        return parsed(await deferToThread(asked, sock, request, *headers))

    async def test_unix(self) -> None:
        """Its user's alone, from its first moment; nothing is left of it."""
        self.addCleanup(os.umask, os.umask(0))
        modes: list[int] = []
        listen = socket.socket.listen

        def looked(sock: socket.socket, backlog: int) -> None:
            if sock.family == socket.AF_UNIX:
                modes.append(stat.S_IMODE(os.stat(self.path).st_mode))
            listen(sock, backlog)

        self.patch(socket.socket, "listen", looked)
        service = self.start(SOCKET)
        self.assertEqual(modes, [0o600])
        self.assertTrue(stat.S_ISSOCK(os.stat(self.path).st_mode))
        status, _, body = await self.by_unix("GET /v1/status")
        self.assertEqual((status, json.loads(body)["state"]), (200, "running"))
        self.assertEqual((await self.by_unix("GET /v1/status", "Host: evil"))[0], 421)
        with LogLines() as log:
            status, _, _ = await self.by_unix(
                "POST /v1/undrain", "Content-Type: application/json", "Content-Length: 0"
            )
            self.assertEqual(status, 400)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(self.path)
                head = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
                await deferToThread(asked, sock, "POST /v1/undrain", head)
        texts = [formatEvent(event) for event in log.events]
        who = f"admin: uid {os.geteuid()}, process {os.getpid()}"
        self.assertEqual(texts, [f"{who}: undrain: refused: it does not drain"])
        await service.stopService()
        self.assertFalse(os.path.exists(self.path))

    async def test_left_over(self) -> None:
        """The socket of one that was killed is replaced; whoever listens keeps his, and what is
        no socket stays."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(self.path)
        service = self.start(SOCKET)
        self.assertEqual((await self.by_unix("GET /v1/links"))[0], 200)
        other = self.make(SOCKET, "--pid-file=")
        for start in (other.check, other.privilegedStartService):
            self.assertIn("another gateway listens on", str(raised(StartError, start)))
        self.assertEqual(other.ports, {})
        self.assertEqual((await self.by_unix("GET /v1/links"))[0], 200)
        await service.stopService()
        with open(self.path, "w", encoding="utf-8") as file:
            file.write("mine")
        for start in (other.check, other.privilegedStartService):
            self.assertIn("is no socket; remove it", str(raised(StartError, start)))
        self.assertTrue(os.path.exists(self.path))
        nowhere = self.make("--admin-addr=unix:nowhere/here", "--pid-file=")
        error = str(raised(StartError, nowhere.privilegedStartService))
        self.assertTrue(error.endswith("nowhere is not a directory; make it"), error)

    async def test_tcp(self) -> None:
        """By TCP with the token, given or in a file; both ports at once."""
        file = os.path.join(self.directory, "token")
        with open(file, "w", encoding="utf-8") as out:
            out.write(f"{TOKEN}\n")
        both = "--admin-addr=127.0.0.1:0, unix:fastway.admin"
        service = self.start(both, f"--admin-token-file={file}")
        assert service.admin is not None
        self.assertEqual(service.admin.token, TOKEN)
        bearer = f"Authorization: Bearer {TOKEN}"
        self.assertEqual((await self.by_tcp(service, "GET /v1/status"))[0], 401)
        self.assertEqual((await self.by_tcp(service, "GET /v1/status", bearer))[0], 200)
        self.assertEqual((await self.by_unix("GET /v1/status"))[0], 200)
        config = (await self.by_unix("GET /v1/config"))[2]
        self.assertNotIn(TOKEN.encode(), config)
        another = TOKEN[::-1]
        for text in (another, another, "short"):
            with open(file, "w", encoding="utf-8") as out:
                out.write(text)
            with LogLines() as log:
                if text == another:
                    service.reload()
                else:
                    error = str(raised(CommandError, service.reload))
                    self.assertIn("the old admin token stays in use: --admin-token-file: a", error)
                    self.assertEqual(log.lines, [f"reload: {error}"])
            self.assertEqual(service.admin.token, another)
            self.assertNotIn(another, " ".join(log.lines))
            self.assertEqual((await self.by_tcp(service, "GET /v1/status", bearer))[0], 401)
            new = f"Authorization: Bearer {another}"
            self.assertEqual((await self.by_tcp(service, "GET /v1/status", new))[0], 200)
        self.assertEqual(
            sorted(name for name in service.ports if "admin" in name), ["admin", "admin 2"]
        )
        rows = dict(describe(service))
        self.assertEqual(rows["admin"], "127.0.0.1:0, unix:fastway.admin; a token by TCP")

    async def test_tls(self) -> None:
        """Beyond loopback it may be inside TLS."""
        cert = os.path.join(self.directory, "cert.pem")
        make("admin.example").write(cert)
        address = f"ssl:0:interface=127.0.0.1:privateKey={cert}:certKey={cert}"
        more = (f"--admin-token={TOKEN}", "--admin-hosts=admin.example")
        service = self.start(f"--admin-addr={address}", *more)
        port = cast(Any, service.ports["admin"].getHost()).port
        context = ssl.create_default_context(cafile=cert)

        def ask() -> bytes:
            sock = socket.create_connection(("127.0.0.1", port))
            wrapped = context.wrap_socket(sock, server_hostname="admin.example")
            return asked(wrapped, "GET /v1/status", f"Authorization: Bearer {TOKEN}")

        self.assertEqual(parsed(await deferToThread(ask))[0], 200)

    async def test_systemd(self) -> None:
        """A socket of systemd needs the token, whatever kind it is; and loopback."""
        with socket.socket(socket.AF_UNIX) as sock, socket.create_server(("0.0.0.0", 0)) as wide:
            sock.bind(self.path)
            sock.listen()
            give(self, admin=sock, wide=wide)
            for name, more, said in (
                ("admin", (), "everybody on this machine"),
                ("wide", (f"--admin-token={TOKEN}",), "can be reached from other machines"),
            ):
                at = f"--admin-addr=systemd:{name}"
                error = raised(ConfigError, lambda at=at, more=more: self.make(at, *more))
                self.assertIn(said, str(error))
            service = self.start("--admin-addr=systemd:admin", f"--admin-token={TOKEN}")
            self.assertEqual((await self.by_unix("GET /v1/status"))[0], 401)
            bearer = f"Authorization: Bearer {TOKEN}"
            self.assertEqual((await self.by_unix("GET /v1/status", bearer))[0], 200)
            await service.stopService()
            self.assertTrue(os.path.exists(self.path))

    def test_refusals(self) -> None:
        """What would let strangers in does not start, and says so in one line."""
        token = f"--admin-token={TOKEN}"
        missing = os.path.join(self.directory, "missing")
        empty = os.path.join(self.directory, "empty")
        with open(empty, "wb") as file:
            file.write(b"\xff" * 20)
        with open(os.path.join(self.directory, "none"), "wb") as file:
            file.write(b" \n")
        none = f"--admin-token-file={self.directory}/none"
        for arguments, said in (
            (["--admin-addr=127.0.0.1:0"], "everybody on this machine can connect there"),
            (["--admin-addr=localhost:0"], "everybody on this machine"),
            (["--admin-addr=tcp:0:interface=127.0.0.1"], "everybody on this machine"),
            (["--admin-addr=unix:a,[::1]:0"], "everybody on this machine"),
            (["--admin-addr=:0", token], "it can be reached from other machines"),
            (["--admin-addr=0.0.0.0:0", token], "it can be reached from other machines"),
            (["--admin-addr=[::]:0", token], "it can be reached from other machines"),
            (["--admin-addr=10.0.0.5:0", token], "it can be reached from other machines"),
            (["--admin-addr=tcp:0", token], "it can be reached from other machines"),
            (["--admin-addr=ssl:0:privateKey=x"], "everybody on this machine"),
            (["--admin-addr=unix:"], "give unix:PATH alone"),
            (["--admin-addr=unix:a:mode=666"], "its mode is 0600 and stays so"),
            (["--admin-addr=haproxy:tcp\\:0", token], "give unix:fastway.admin"),
            (["--admin-addr=nonsense", token], "is not an address"),
            ([f"--admin-addr=unix:{'x' * 120}"], "over 107 bytes"),
            ([SOCKET, "--admin-token=short"], "16 characters or more"),
            ([SOCKET, f"--admin-token={TOKEN} x"], "no space"),
            ([SOCKET, f"--admin-token={TOKEN}\xe9"], "of ASCII"),
            ([SOCKET, f"--admin-token-file={missing}"], "cannot read"),
            ([SOCKET, f"--admin-token-file={empty}"], "has no token"),
            ([SOCKET, none], "/none has no token: openssl rand -hex 16 > "),
            ([SOCKET, token, "--admin-token-file=x"], "leave one out"),
            ([token], "give that too"),
            (["--admin-hosts=x"], "give that too"),
            ([SOCKET, "--admin-hosts=http://x"], "is no host's name"),
            ([SOCKET, "--admin-hosts=x:80"], "is no host's name"),
            (["--admin-addr=127.0.0.1:9", token, "--server-addr=127.0.0.1:9"], "server-addr too"),
            (
                ["--admin-addr=127.0.0.1:9", token, "--metrics-addr=127.0.0.1:9"],
                "metrics-addr too",
            ),
        ):
            error = str(raised(ConfigError, lambda told=arguments: self.make(*told)))
            self.assertIn(said, error, arguments)
            self.assertTrue(error.startswith("--admin-"), error)
            self.assertNotIn("\n", error)
            self.assertNotIn(TOKEN, error)

    async def test_life(self) -> None:
        """It answers until the gateway is gone; who watches measures its turns, and is told."""
        service = self.start(SOCKET, f"--server-auth-password={KEY.decode()}")
        poller = getattr(reactor, "_poller", None)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.path)
            sock.setblocking(False)
            sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            came = b""

            def said(text: bytes) -> bool:
                nonlocal came
                with contextlib.suppress(BlockingIOError):
                    came += sock.recv(1 << 20)
                return text in came

            await until("the status", lambda: said(b"event: status"))
            if isinstance(poller, BoundedPoller):
                self.assertIsInstance(cast(Any, reactor)._poller, TimedPoller)
            port = cast(Any, service.ports["server"].getHost()).port
            with socket.create_connection(("127.0.0.1", port)) as server:
                challenge = await deferToThread(server.recv, 8)
                server.sendall(prove(challenge, 5))
                await until("the server", lambda: service.router_service.router.servers)
            await until("its end", lambda: said(b"event: closed"))
            self.assertTrue(said(b'"reason":"peer_closed"'))
            self.assertTrue(said(b"logged in"))
            await service.stopService()
            await until("the end of the stream", lambda: said(b"\r\n0\r\n\r\n"))
        self.assertNotIsInstance(getattr(reactor, "_poller", None), TimedPoller)
        self.assertEqual(service.router_service.enders, [])

    def test_off(self) -> None:
        """Without the option there is none, and nothing is kept."""
        service = self.start()
        self.assertIsNone(service.admin)
        self.assertEqual(service.router_service.enders, [])
        self.assertNotIn("admin", dict(describe(service)))

    async def test_again(self) -> None:
        """A gateway that is started a second time has it again."""
        service = self.start(SOCKET)
        await service.stopService()
        service.startService()
        self.assertEqual((await self.by_unix("GET /v1/status"))[0], 200)


class ConsoleTests(ServiceTestCase):
    """The console, over a real gateway's admin port."""

    def setUp(self) -> None:
        super().setUp()
        for variable in [name for name in os.environ if name.startswith("FASTWAY_")]:
            self.addCleanup(os.environ.__setitem__, variable, os.environ.pop(variable))

    def says(self, *arguments: str, status: int = 0) -> Deferred[str]:
        """What a command prints, on standard output, or the one line of its error."""

        def run() -> str:
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                found = main([*arguments, f"--run-dir={self.directory}"])
            self.assertEqual(found, status, err.getvalue())
            self.assertEqual(len(err.getvalue().splitlines()), 1 if status else 0)
            return (err if status else out).getvalue()

        return deferToThread(run)

    def clients(self, service: GatewayService, count: int) -> None:
        port = cast(Any, service.ports["client"].getHost()).port
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port))
            self.addCleanup(sock.close)

    async def test_console(self) -> None:
        """All that the console asks goes over the socket that it finds; what only looks leaves no
        line in the log."""
        service = self.start(SOCKET)
        self.clients(service, 3)
        await until("the clients", lambda: len(service.router_service.router.clients) == 3)
        with LogLines() as log:
            text = await self.says("status")
            self.assertIn("clients: 3 connected, 3 since start\n", text)
            told = json.loads(await self.says("status", "--json"))
            self.assertEqual(told["clients"]["connected"], 3)
            rows = (await self.says("links")).splitlines()
            self.assertEqual([row.split("\t")[:2] for row in rows],
                             [["client", "1"], ["client", "2"], ["client", "3"]])  # fmt: skip
            rows = (await self.says("links", "--json")).splitlines()
            self.assertEqual([json.loads(row)["link_id"] for row in rows], [1, 2, 3])
            picture = await self.says("top", "--once", "--interval=0.5")
            self.assertEqual(picture.count("\n client "), 3)
            self.assertNotIn("\x1b", picture)
        self.assertEqual(log.lines, [])
        with LogLines() as log:
            self.assertEqual(await self.says("kick", "client", "1"), "1 kicked\n")
            more = ("--code=4501", "--reason=bye")
            self.assertEqual(await self.says("kick", "client", "2", *more), "1 kicked\n")
            self.assertIn("limit-rate=7\n", await self.says("limits", "rate=7"))
            self.assertIn("debug\n", await self.says("loglevel", "debug"))
            await self.says("loglevel", "info")
            self.assertIn("nothing to read anew", await self.says("reload"))
            self.assertIn("ports are closed in", await self.says("drain"))
            self.assertIn("taken back", await self.says("undrain"))
        self.assertEqual(sum("admin: uid" in line for line in log.lines), 8)
        for arguments, said in (
            (("kick", "client", "1"), "no client 1 is connected"),
            (("limits", "burst=1"), "give NAME=VALUE with one of limit-connections"),
            (("limits", "rate"), "'rate': give NAME=VALUE"),
            (("limits", "rate=1", "rate=2"), "twice"),
            (("loglevel", "loud"), "level must be one of debug"),
            (("undrain",), "it does not drain"),
            (("drain", "now"), "is not again"),
        ):
            self.assertIn(said, await self.says(*arguments, status=1))
        self.assertEqual(sorted(os.listdir(self.directory)), ["fastway.admin", "fastway.pid"])

    async def test_many_links(self) -> None:
        """More links than an answer has."""
        service = self.start(SOCKET)
        self.clients(service, 20)
        await until("the clients", lambda: len(service.router_service.router.clients) == 20)
        self.patch(remote, "PAGE", 6)
        self.assertEqual(len((await self.says("links")).splitlines()), 20)

    async def test_strangers(self) -> None:
        """What somebody else says there moves no cursor, and nonsense is one line."""
        answers = {
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\na\tb\n\x1b[2J": (
                0,
                "a\tb\n\\x1b[2J\n",
            ),
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\nx": (1, "is no JSON"),
            b"HTTP/1.1 500 x\r\nContent-Type: text/html\r\n\r\nx": (1, "answered 500"),
            b'HTTP/1.1 409 x\r\nContent-Type: application/json\r\n\r\n{"error": "a\\u001b\\nb"}': (
                1,
                "a\\x1b\\nb",
            ),
            b"SSH-2.0-x\r\n": (1, "gave no answer"),
            b"": (1, "gave no answer"),
        }
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(os.path.join(self.directory, "fastway.admin"))
            sock.listen()
            for answer, (status, said) in answers.items():
                text = self.says("status", status=status)
                conn, _ = await deferToThread(sock.accept)
                with conn:
                    conn.recv(1000)
                    conn.sendall(answer)
                self.assertIn(said, await text)

    async def test_tcp(self) -> None:
        """By TCP, where its address and token are told."""
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        at = f"--admin-addr=127.0.0.1:{port}"
        self.start(at, f"--admin-token={TOKEN}")
        text = await self.says("status", at, f"--admin-token={TOKEN}")
        self.assertIn("version: ", text)
        said = await self.says("status", at, f"--admin-token={TOKEN}x", status=1)
        self.assertIn("give it with --admin-token-file", said)

    async def test_command_file(self) -> None:
        """A gateway without an admin port, or whose socket is left over, is asked by its command
        file; with --pid each is."""
        service = self.start()
        self.assertIn("version: ", await self.says("status"))
        self.assertIn("limit-rate=9\n", await self.says("limits", "rate=9"))
        self.assertIn("the log level is info", await self.says("loglevel", "info"))
        self.assertIn("nothing to read anew", await self.says("reload"))
        self.assertEqual(await self.says("links"), "")
        for command in ("status", "links"):
            said = await self.says(command, "--json", status=1)
            self.assertIn("has no admin port", said)
        self.assertIn("no admin port", await self.says("top", status=1))
        more = ("--reason=bye",)
        self.assertIn("no admin port", await self.says("kick", "client", "1", *more, status=1))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(os.path.join(self.directory, "fastway.admin"))
        self.assertIn("version: ", await self.says("status"))
        self.assertIn("cannot be reached", await self.says("status", "--json", status=1))
        self.assertIn("version: ", await self.says("status", f"--pid={os.getpid()}"))
        await service.stopService()
        self.assertIn("no gateway runs here", await self.says("status", status=1))


class PictureTests(SynchronousTestCase):
    """What `fastway top` shows."""

    def look(self, **more: Any) -> dict[str, Any]:
        return {
            "time": 100.0,
            "pid": 7,
            "version": "1",
            "uptime": 3700.0,
            "state": "running",
            "ready": {"ok": True, "why": ""},
            "ports": [{"name": "client", "addr": "127.0.0.1:1", "links": 2}],
            "clients": {"connected": 2, "since_start": 10},
            "servers": {"connected": 1},
            "server_ids": 1,
            "turned_away": 0,
            "lost": [{"count": 1}],
            "router": {"open": 2, "dials": 5, "pings": 0, "packets": 1000, "bytes": 10_000},
            "queues": {"bytes": 2048, "input": 0, "packets": 2, "held": 0},
            "process": {"cpu": 1.0, "memory": 2**20, "files": 9, "max_files": 99},
            "relay": None,
            "drain": None,
            "links": [],
            **more,
        }

    def test_rates(self) -> None:
        """Rates are of the time between two looks; the busiest links come first."""

        def link(link_id: int, came: int) -> dict[str, Any]:
            return {"side": "client", "link_id": link_id, "addr": f"192.0.2.{link_id}:5",
                    "conns": 1, "bytes_in": came, "bytes_out": 0, "waiting_bytes": 0,
                    "seconds": 61.0, "user": "Anna", "lost": None, "cut": None}  # fmt: skip

        before = self.look(links=[link(1, 0), link(2, 0)])
        router = {"open": 2, "dials": 15, "pings": 0, "packets": 21_000, "bytes": 10_000}
        now = self.look(time=102.0, router=router, links=[link(1, 10), link(2, 4096), link(3, 9)])
        text = "\n".join(picture(before, now, 2))
        self.assertIn("10.0K packets/s", text)
        self.assertIn("dials 5.0/s", text)
        self.assertIn("up 1h01m  running", text)
        rows = text.splitlines()[-2:]
        self.assertRegex(rows[0], r"client +2 192\.0\.2\.2:5 +1 +2\.0K +0 +0 +1m01s  Anna")
        self.assertRegex(rows[1], r"client +1 ")
        drain = {"state": "spread", "left": 9, "seconds": 70.0}
        text = picture(before, self.look(state="draining", drain=drain), 1)[0]
        self.assertIn("draining (spread), 9 clients left, 70 s", text)
        odd = self.look(links=[{**link(1, 0), "user": "\x1b[2J"}])
        self.assertTrue(picture(before, odd, 1)[-1].endswith("  \\x1b[2J"))
        again = "\n".join(picture(self.look(pid=6), now, 5))
        self.assertIn(" 0 packets/s", again)

    def test_numbers(self) -> None:
        """Short enough for their columns."""
        for number, text in ((0, "0"), (999, "999"), (1000, "1.0K"), (123_456, "123K"),
                             (9_990_000, "10.0M"), (5e15, "5000T")):  # fmt: skip
            self.assertEqual(short(number), text)
        self.assertEqual(short(2048, 1024), "2.0K")
        for seconds, text in ((0, "0s"), (59.9, "59s"), (61, "1m01s"), (90_000, "1d01h")):
            self.assertEqual(span(seconds), text)

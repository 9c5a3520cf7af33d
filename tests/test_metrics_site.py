"""The web server of metrics and health: what it answers, to whom, and what it bears."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.utils import getProcessValue
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fastway import relay
from fastway.cli.gateway import describe
from fastway.errors import ConfigError, StartError
from fastway.ops.site import Pages
from fastway.ops.snapshot import Snapshot, Source, finish
from fastway.ops.turns import BoundedPoller, TimedPoller
from fastway.prometheus import CONTENT_TYPE
from fastway.service import GatewayService
from fastway.web import MAX_HEAD, MAX_OPEN, SECONDS, BoundedSite
from tests.support.ends import Harness
from tests.support.errors import raised
from tests.support.files import CHECKOUT
from tests.support.golden import KEY, dial, packet, prove
from tests.support.metrics import names, read, total
from tests.support.options import settings as settings_of
from tests.support.service import ServiceTestCase
from tests.support.tls import make
from tests.support.visits import Answer, Visitor, parsed
from tests.support.waits import reactor, until


class SiteTests(SynchronousTestCase):
    """In memory, on a clock."""

    def setUp(self) -> None:
        self.harness = Harness()
        self.source = Source(self.harness.service)
        self.shots = 0
        self.clock = Clock()
        self.site = BoundedSite(Pages(self.snapshot), self.clock)
        self.site.doStart()
        self.visitors: list[Visitor] = []

    def snapshot(self) -> Snapshot:
        self.shots += 1
        return finish(self.source.snapshot(brief=True))

    def visit(self, *pieces: bytes) -> Visitor:
        visitor = Visitor(self.site)
        self.visitors.append(visitor)
        for piece in pieces:
            visitor.send(piece)
        return visitor

    def ask(self, request: str, *headers: str) -> Answer:
        head = "\r\n".join([f"{request} HTTP/1.1", "Host: x", *headers, "", ""])
        visitor = self.visit(head.encode("latin-1"))
        self.assertTrue(visitor.transport.disconnecting, request)
        answer = parsed(visitor.transport.value())
        visitor.gone()
        return answer

    def test_pages(self) -> None:
        """Three pages, made when they are asked for."""
        status, headers, body = self.ask("GET /metrics")
        self.assertEqual((status, headers["Content-Type"]), (200, CONTENT_TYPE))
        self.assertEqual(headers["Content-Length"], str(len(body)))
        self.assertEqual(read(body)["fastway_ready",], 1)
        self.assertEqual(headers["Connection"], "close")
        self.assertEqual(headers["Cache-Control"], "no-store")
        self.assertNotIn("Server", headers)
        self.assertEqual(self.shots, 1)
        self.assertEqual(self.ask("GET /live")[::2], (200, b"live\n"))
        self.assertEqual(self.shots, 1)
        self.assertEqual(self.ask("GET /ready?x=y")[::2], (200, b"ready\n"))
        self.source.needs_server = True
        status, _, body = self.ask("GET /ready")
        self.assertEqual((status, body), (503, b"no game server is connected\n"))
        self.assertEqual(read(self.ask("GET /metrics")[2])["fastway_ready",], 0)

    def test_head(self) -> None:
        """HEAD is GET without the body, and no line of the log."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for path, status in (("/metrics", 200), ("/live", 200), ("/ready", 200), ("/x", 404)):
            told = self.ask(f"HEAD {path}")
            self.assertEqual(told[::2], (status, b""), path)
            self.assertGreater(int(told[1]["Content-Length"]), 4, path)
        self.assertEqual(events, [])

    def test_others(self) -> None:
        """Nothing else is there, and nothing else can be done."""
        for path in (
            "/",
            "/metrics/",
            "//metrics",
            "/Metrics",
            "/ready/x",
            "/%6detrics",
            "x",
        ):
            self.assertEqual(self.ask(f"GET {path}")[0], 404, path)
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
            status, headers, _ = self.ask(f"{method} /metrics")
            self.assertEqual((status, headers["Allow"]), (405, "GET, HEAD"), method)
        self.assertEqual(self.shots, 0)

    def test_old(self) -> None:
        """HTTP/1.0 without a Host too."""
        visitor = self.visit(b"GET /live HTTP/1.0\r\n\r\n")
        self.assertEqual(parsed(visitor.transport.value())[::2], (200, b"live\n"))

    def test_one_request(self) -> None:
        """A connection has one request, whatever it asks for: no more are read."""
        request = b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
        for pieces in ((request * 50,), (request,) * 50, (request + request[:20],)):
            visitor = self.visit(*pieces)
            self.assertEqual(visitor.transport.value().count(b"HTTP/1.1 200"), 1)
            self.assertTrue(visitor.ended)

    def test_bodies(self) -> None:
        """A request with a body is cut off, before any of it is read."""
        for head in (
            b"GET /metrics HTTP/1.1\r\nContent-Length: 9",
            b"POST /metrics HTTP/1.1\r\nContent-Length: 1073741824",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked",
            b"POST / HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue",
        ):
            visitor = self.visit(head + b"\r\n\r\n")
            self.assertTrue(visitor.aborted, head)
            self.assertNotIn(b"200", visitor.transport.value())
        self.assertEqual(self.shots, 0)

    def test_long(self) -> None:
        """A head over its bound is no request: in one line, in many, in many headers."""
        for head in (
            b"GET /" + bytes(b"x" * MAX_HEAD),
            b"GET / HTTP/1.1\r\nX: " + b"y" * MAX_HEAD,
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * MAX_HEAD,
            b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: %s\r\n" % (n, b"y" * 900) for n in range(10)),
            b"GET / HTTP/1.1\r\nX: y\r\n" + b" more\r\n" * MAX_HEAD,
        ):
            whole = self.visit(head + b"\r\n\r\n")
            pieces = self.visit(
                *(head[at : at + 700] for at in range(0, len(head), 700)), b"\r\n\r\n"
            )
            for visitor in (whole, pieces):
                self.assertTrue(visitor.ended, head[:40])
                self.assertNotIn(b"HTTP/1.1 200", visitor.transport.value())
                self.assertLess(len(visitor.transport.value()), 500)
        self.assertEqual(self.shots, 0)

    def test_deadline(self) -> None:
        """A request, and the reading of its answer, have one time together; a drop starts no
        other."""
        silent = self.visit()
        dripping = self.visit(b"GET ")
        asked = self.visit(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")  # and does not read
        for _ in range(round(4 * SECONDS) - 1):
            self.clock.advance(0.25)
            dripping.send(b"/")
            self.assertFalse(silent.aborted or dripping.aborted or asked.aborted)
        self.clock.advance(0.25)
        self.assertTrue(silent.aborted and dripping.aborted and asked.aborted)
        for visitor in self.visitors:
            visitor.gone()
        self.assertEqual((self.clock.getDelayedCalls(), self.site.open), ([], {}))

    def test_crowd(self) -> None:
        """Past the bound the oldest goes, so whoever asks at once is answered."""
        crowd = [self.visit() for _ in range(MAX_OPEN)]
        self.assertFalse(any(visitor.aborted for visitor in crowd))
        for number in range(5):
            late = self.visit(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(parsed(late.transport.value())[0], 200)
            self.assertEqual([one.aborted for one in crowd].count(True), number + 1)
            self.assertTrue(crowd[number].aborted)
            crowd[number].gone()
        self.assertLessEqual(len(self.site.open), MAX_OPEN)

    def test_idle(self) -> None:
        """No timer while nobody is there; who is there at the end is sent away."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.ask("GET /metrics")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        visitor = self.visit()
        self.site.doStop()
        self.assertTrue(visitor.aborted)
        visitor.gone()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
    def test_garbage(self, pieces: list[bytes], sense: bool) -> None:
        """Whatever comes: an answer, an end, or a wait that has its end."""
        visitor = Visitor(self.site)
        for piece in [b"GET /live HTTP/1.1\r\n", *pieces] if sense else pieces:
            visitor.send(piece)
        self.assertLess(len(visitor.transport.value()), 1000)
        visitor.gone()
        self.assertEqual((self.clock.getDelayedCalls(), self.site.open), ([], {}))
        self.flushLoggedErrors(UnicodeDecodeError)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_fault(self) -> None:
        """A fault of ours is a 500 without a word about it, and a line in the log."""
        self.source.memory = lambda: 1 // 0
        status, _, body = self.ask("GET /metrics")
        self.assertEqual(status, 500)
        self.assertNotIn(b"Zero", body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Wire(Protocol):
    """What came over a real connection."""

    def __init__(self) -> None:
        self.data = b""
        self.over: Deferred[bytes] = Deferred()
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self.over.callback(self.data)


class MetricsTests(ServiceTestCase):
    """A whole gateway on sockets."""

    async def connect(self, service: GatewayService, name: str) -> Wire:
        host = cast(Any, service.ports[name].getHost())
        if hasattr(host, "port"):
            endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", host.port)
        else:
            endpoint = UNIXClientEndpoint(reactor, host.name)
        wire: Wire = await endpoint.connect(Factory.forProtocol(Wire))
        return wire

    async def ask(self, service: GatewayService, path: str) -> Answer:
        wire = await self.connect(service, "metrics")
        cast(Any, wire.transport).write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return parsed(await wire.over)

    async def day(self, *options: str) -> None:
        """A client, a server, packets between them, and all that is told of it."""
        service = self.start(
            f"--server-auth-password={KEY.decode()}", "--metrics-addr=127.0.0.1:0", *options
        )
        client = await self.connect(service, "client")
        server = await self.connect(service, "server")
        await until("the challenge", lambda: len(server.data) == 8)
        cast(Any, server.transport).write(prove(server.data, 5))
        router = service.router_service.router
        await until("the login", lambda: 5 in router.servers)
        await until("the client", lambda: router.clients)
        cast(Any, client.transport).write(dial(5))
        await until("the connection", lambda: router.conn_ids)
        (conn_id,) = router.conn_ids
        cast(Any, client.transport).write(packet(conn_id, b"hello") * 100)
        await until("all of it", lambda: server.data.count(b"hello") == 100)
        status, _, body = await self.ask(service, "/metrics")
        self.assertEqual(status, 200)
        samples = read(body)
        for value, *key in (
            (1, "connections", "side=client", "transport=tcp"),
            (1, "connections", "side=server", "transport=tcp"),
            (1, "dials_total", "side=client", "result=accepted"),
            (100, "packets_total"),
            (1300, "bytes_total"),
            (1, "virtual_connections"),
            (1, "port_open", "port=client"),
            (0, "handshakes", "side=server", "kind=link"),
        ):
            name, *labels = key
            told = (f"fastway_{name}", *labels)
            self.assertEqual(samples[told], value, key)
        stats = router.stats
        self.assertEqual((stats.packets, stats.bytes), (100, 1300))
        native = service.router_service.native is not None
        self.assertEqual(
            total(samples, "fastway_build_info", f"path={'native' if native else 'python'}"), 1
        )
        self.assertEqual(native, "fastway_pool_bytes" in names(samples))
        if isinstance(getattr(reactor, "_poller", None), BoundedPoller):
            self.assertGreater(samples["fastway_reactor_turn_seconds_count",], 0)
        cast(Any, client.transport).loseConnection()
        await until("its end", lambda: not router.clients)
        samples = read((await self.ask(service, "/metrics"))[2])
        self.assertEqual(samples["fastway_connections", "side=client", "transport=tcp"], 0)
        self.assertEqual(
            samples["fastway_disconnects_total", "side=client", "reason=peer_closed"], 1
        )
        await service.stopService()
        self.assertNotIsInstance(getattr(reactor, "_poller", None), TimedPoller)

    async def test_day(self) -> None:
        """On the path of Python."""
        await self.day("--relay=off")

    async def test_native_day(self) -> None:
        """And on the native one."""
        if relay.missing():
            self.skipTest(relay.missing())
        await self.day("--relay=on")

    async def test_layers(self) -> None:
        """Ports with TLS, WebSocket and snet: their handshakes and certificates."""
        cert = os.path.join(self.directory, "cert.pem")
        make("gateway.test").write(cert)
        service = self.start(
            "--metrics-addr=127.0.0.1:0",
            f"--client-tls-cert={cert}",
            "--client-ws-addr=127.0.0.1:0",
            "--server-snet-enable",
            "--direct=web=127.0.0.1:0->7",
        )
        wire = await self.connect(service, "client")
        cast(Any, wire.transport).write(b"GET / HTTP/1.1\r\n\r\n" * 10)
        await wire.over
        wire = await self.connect(service, "web client")
        cast(Any, wire.transport).write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await wire.over
        wire = await self.connect(service, "server")
        cast(Any, wire.transport).write(b"no snet")
        await wire.over
        wire = await self.connect(service, "direct web")
        await wire.over  # there is no server 7
        samples = read((await self.ask(service, "/metrics"))[2])
        told = {key for key in samples if key[0] == "fastway_handshake_failures_total"}
        self.assertEqual({key[2] for key in told}, {"kind=tls", "kind=ws", "kind=snet"})
        self.assertEqual({samples[key] for key in told}, {1})
        ends = samples["fastway_tls_certificate_not_after_timestamp_seconds", "name=cert"]
        self.assertGreater(ends, samples["process_start_time_seconds",])
        for what in ("certificates", "options"):
            for result in ("done", "failed"):
                key = "fastway_reloads_total", f"what={what}", f"result={result}"
                self.assertEqual(samples[key], 0)
        self.assertEqual(samples["fastway_snet_cut", "side=server"], 0)
        self.assertEqual(
            samples["fastway_connections_total", "side=client", "transport=direct+tcp"], 1
        )
        lost = "fastway_disconnects_total", "side=client", "reason=no_server"
        self.assertEqual(samples[lost], 1)
        self.assertEqual(total(samples, "fastway_port_open"), 4)

    async def test_health(self) -> None:
        """Ready from the start on, with a server if that is asked for, until it stops."""
        service = self.make("--metrics-addr=127.0.0.1:0", "--ready-needs-server")
        service.privilegedStartService()
        status, _, body = await self.ask(service, "/ready")
        self.assertEqual((status, body), (503, b"the gateway is starting\n"))
        self.assertEqual((await self.ask(service, "/live"))[0], 200)
        service.startService()
        self.assertEqual((await self.ask(service, "/ready"))[2], b"no game server is connected\n")
        server = await self.connect(service, "server")
        await until("the challenge", lambda: len(server.data) == 8)
        cast(Any, server.transport).write(prove(server.data, 5, b""))
        await until("the login", lambda: service.router_service.router.servers)
        self.assertEqual((await self.ask(service, "/ready"))[0], 200)
        client_port = service.router_service.ports[0]
        await client_port.close()
        self.assertEqual(
            (await self.ask(service, "/ready"))[2], b"ports that are not open: client\n"
        )
        # It reads nothing, so its end takes a while.
        cast(Any, server.transport).pauseProducing()
        done = service.stopService()
        metrics = service.metrics
        assert metrics is not None
        self.assertIsNotNone(metrics.listening)
        status, _, body = await self.ask(service, "/ready")
        self.assertEqual((status, body), (503, b"the gateway is stopping\n"))
        service.hurry()
        await done
        self.assertNotIn("metrics", service.ports)

    async def test_unix(self) -> None:
        """On a unix socket."""
        path = os.path.join(self.directory, "metrics")
        service = self.start(f"--metrics-addr=unix:{path}")
        self.assertTrue(stat.S_ISSOCK(os.stat(path).st_mode))
        self.assertEqual((await self.ask(service, "/ready"))[::2], (200, b"ready\n"))
        await service.stopService()
        self.assertFalse(os.path.exists(path))

    def test_addresses(self) -> None:
        """An address that cannot be is one line, before anything starts."""
        error = raised(ConfigError, lambda: self.make("--metrics-addr=nonsense"))
        self.assertIn("metrics-addr", str(error))
        twice = ("--metrics-addr=127.0.0.1:9", "--server-addr=127.0.0.1:9")
        self.assertIn(
            "is the server-addr too", str(raised(ConfigError, lambda: self.make(*twice)))
        )
        alone = raised(ConfigError, lambda: self.make("--ready-needs-server"))
        self.assertIn("give that too", str(alone))
        service = self.start("--metrics-addr=127.0.0.1:0")
        taken = cast(Any, service.ports["metrics"].getHost()).port
        other = self.make(f"--metrics-addr=127.0.0.1:{taken}", "--pid-file=")
        self.assertIn("in use", str(raised(StartError, other.check)))
        self.assertIn("in use", str(raised(StartError, other.privilegedStartService)))
        self.assertEqual(other.ports, {})

    def test_off(self) -> None:
        """Without the option there is none, and no turn is measured."""
        service = self.start()
        self.assertIsNone(service.metrics)
        self.assertNotIn("metrics", service.ports)
        self.assertNotIsInstance(getattr(reactor, "_poller", None), TimedPoller)

    def test_check(self) -> None:
        """`fastway check` tells of it."""
        service = self.make("--metrics-addr=127.0.0.1:0", "--ready-needs-server")
        rows = dict(describe(service))
        self.assertEqual(
            rows["metrics"],
            "127.0.0.1:0 (any free port); /metrics, /live and /ready by HTTP, which says no "
            "without a game server",
        )
        self.assertNotIn("metrics", dict(describe(self.make())))

    async def test_image(self) -> None:
        """The health check of the image, as Docker runs it: 0 while the gateway lives."""
        with open(os.path.join(CHECKOUT, "deploy", "Dockerfile"), encoding="utf-8") as file:
            text = file.read().replace("\\\n", "")
        (line,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.M)
        (address,) = re.findall(r"^ENV FASTWAY_METRICS_ADDR=(\S+)$", text, re.M)
        self.assertTrue(address.startswith("127.0.0.1:"))
        python, *arguments = json.loads(line)
        self.assertEqual(python, "python")
        service = self.start("--metrics-addr=127.0.0.1:0")
        port = cast(Any, service.ports["metrics"].getHost()).port
        environment = {**os.environ, "FASTWAY_METRICS_ADDR": f":{port}"}
        self.assertEqual(await getProcessValue(sys.executable, arguments, environment), 0)
        await service.stopService()
        self.assertEqual(await getProcessValue(sys.executable, arguments, environment), 1)

    def test_probes(self) -> None:
        """The probes of the Kubernetes example ask what there is."""
        with open(os.path.join(CHECKOUT, "deploy", "kubernetes.yaml"), encoding="utf-8") as file:
            text = file.read()
        probes = re.findall(r"(\w+)Probe:\n\s+httpGet: \{path: (\S+), port: metrics\}", text)
        self.assertEqual(probes, [("readiness", "/ready"), ("liveness", "/live")])
        (block,) = re.findall(r"args:\n((?: +- .*\n)+)", text)
        told = settings_of(*re.findall(r"- (--\S+)", block), "--server-auth-password=x")
        self.assertTrue(told.metrics.needs_server)
        self.assertIn(f"containerPort: {told.metrics.address[1:]}}}", text)

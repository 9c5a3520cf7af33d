"""What an application tells a monitor."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Bounds, Refused
from fastway.app.metrics import METRICS, metrics_site
from fastway.app.testing import Player
from fastway.prometheus import page
from tests.support.metrics import Samples, read, total


class MetricsTests(SynchronousTestCase):
    """The page, and health."""

    def setUp(self) -> None:
        self.app = App(clock=Clock(), bounds=Bounds(sessions=2))
        self.gate: Deferred[None] = Deferred()
        self.app.route("echo", lambda message=None: message)

        @self.app.handler("no")
        def no() -> None:
            raise Refused(403)

        @self.app.handler("bad")
        def bad() -> None:
            raise ValueError

        @self.app.handler("wait")
        async def wait() -> None:
            await self.gate

    def figures(self) -> Samples:
        return read(page(self.app, METRICS))

    def test_figures(self) -> None:
        """They are those of the App, as Prometheus reads them."""
        ann, bob = Player(self.app), Player(self.app)
        ann.request("echo", 1)
        for route in ("no", "bad", "none", "wait"):
            ann.ask(route).addErrback(lambda _: None)
        bob.session.send("on", 1)
        bob.leave()
        self.flushLoggedErrors(ValueError)
        found = self.figures()
        for name, value in (
            ("fastway_connections", 1),
            ("fastway_connections_total", 2),
            ("fastway_messages_total", 5),
            ("fastway_requests_pending", 1),
            ("fastway_handlers_running", 1),
            ("fastway_sent_total", 1),
            ("fastway_handler_failures_total", 1),
            ("fastway_unknown_routes_total", 1),
        ):
            self.assertEqual(total(found, name), value, name)
        self.assertEqual(total(found, "fastway_requests_total", "result=answered"), 1)
        self.assertEqual(total(found, "fastway_requests_total", "result=refused"), 3)
        self.gate.callback(None)
        self.assertEqual(total(self.figures(), "fastway_requests_pending"), 0)

    def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        channel = metrics_site(self.app).buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head, _, content = transport.value().partition(b"\r\n\r\n")
        return int(head.split()[1]), content.decode()

    def test_health(self) -> None:
        """It is ready while it runs and has room."""
        self.assertEqual(self.ask("/ready"), (503, "it is new\n"))
        self.app.start()
        self.assertEqual(self.ask("/ready"), (200, "ready\n"))
        Player(self.app)
        Player(self.app)
        self.assertEqual(self.ask("/ready"), (503, "it is full\n"))
        self.assertEqual(self.ask("/live"), (200, "live\n"))
        self.app.stop()
        self.assertEqual(self.ask("/ready"), (503, "it is stopped\n"))

    def test_pages(self) -> None:
        """There are three, and they are only read."""
        self.assertEqual(self.ask("/metrics")[0], 200)
        self.assertEqual(self.ask("/metrics", "POST")[0], 405)
        self.assertEqual(self.ask("/other")[0], 404)

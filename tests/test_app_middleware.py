"""Middleware that comes along, and the age of a session."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from fastway import logs
from fastway.app import App, Bounds, Refused, Request
from fastway.app.middleware import at_most, timed, within
from fastway.app.testing import Player
from tests.support.app_links import Links, NativeLinks
from tests.support.errors import raised
from tests.support.logs import LogLines
from tests.support.words import Words


class Times(SynchronousTestCase):
    """`within`."""

    def setUp(self) -> None:
        self.app = App(clock=Clock())
        self.waits: Deferred[Any] = Deferred()
        self.app.middleware(within(2.0))

    def test_late(self) -> None:
        """What it waits for is cancelled, its clean-up runs, and who asked is told."""
        ends: list[type[BaseException]] = []

        @self.app.handler("wait")
        async def wait() -> Any:
            try:
                return await self.waits
            except CancelledError as error:
                ends.append(type(error))
                raise

        player = Player(self.app)
        asked = player.ask("wait")
        self.app.clock.advance(1.9)
        self.assertNoResult(asked)
        self.app.clock.advance(0.1)
        refused = self.failureResultOf(asked, Refused).value
        self.assertEqual((refused.code, refused.text), (408, "Handle Timeout"))
        self.assertEqual((ends, self.app.running), ([CancelledError], 0))

    def test_who_does_not_end(self) -> None:
        """One that hears of it and goes on has no answer that counts."""

        @self.app.handler("stubborn")
        async def stubborn() -> str:
            try:
                await self.waits
            except CancelledError:
                return "done all the same"
            return ""

        asked = Player(self.app).ask("stubborn")
        self.app.clock.advance(2.0)
        self.failureResultOf(asked, Refused)

    def test_in_time(self) -> None:
        """Answers and errors in time are as they were; no timer stays."""

        @self.app.handler("wait")
        async def wait() -> Any:
            return await self.waits

        player = Player(self.app)
        asked = player.ask("wait")
        self.waits.callback("late")
        self.assertEqual(self.successResultOf(asked), "late")
        self.app.route("no", lambda: Deferred().addCallback(len))
        self.app.route("now", lambda: 1)
        self.assertEqual(player.request("now"), 1)
        self.assertEqual(self.app.clock.getDelayedCalls(), [])

    def test_tasks(self) -> None:
        """As asyncio tasks."""
        limit = within(0.01)
        player = Player(App(clock=Clock()))
        player.app.tasks = True
        ends: list[str] = []

        async def wait(request: Request) -> Any:
            try:
                await asyncio.sleep(30)
            finally:
                ends.append("cancelled")

        async def now(request: Request) -> Any:
            raise TimeoutError("its own")

        request: Any = type("Request", (), {"session": player.session})()

        async def main() -> None:
            error: BaseException | None = None
            for call in (wait, now):
                try:
                    await limit(request, call)
                except (Refused, TimeoutError) as caught:
                    error = caught
                ends.append(type(error).__name__)

        asyncio.run(main())
        self.assertEqual(ends, ["Refused", "cancelled", "TimeoutError"])

    def test_settings(self) -> None:
        raised(ValueError, within, 0)
        raised(ValueError, timed, 0)
        for settings in ({"total": -1}, {"routes": {"a": 0}}, {"seconds": 0}):
            raised(ValueError, at_most, **settings)


class Lines(SynchronousTestCase):
    """`timed`."""

    def told(self, details: bool) -> list[str]:
        app = App(clock=Clock())
        app.middleware(timed(0.5, details=details))
        waits: list[Deferred[Any]] = [Deferred(), Deferred()]

        @app.handler("wait")
        async def wait() -> None:
            await waits.pop()

        player, left = Player(app, address="192.0.2.7:4711"), list(waits)
        with LogLines() as log:
            for seconds, send in ((0.4, player.ask), (0.6, player.send)):
                send("wait", "a\nb" + "x" * 600, meta=[("k", "v")])
                app.clock.advance(seconds)
                left.pop().callback(None)
        return [
            f"{event['log_level'].name} {line}"
            for event, line in zip(log.events, log.lines, strict=True)
        ]

    def test_levels(self) -> None:
        """Slow ones are a warning; with what came where that is wanted."""
        quick = "request 'wait' of 192.0.2.7:4711 took 0.400000 s"
        slow = "message 'wait' of 192.0.2.7:4711 took 0.600000 s"
        self.patch(logs.threshold, "level", LogLevel.debug)
        self.assertEqual(self.told(False), [f"debug {quick}", f"warn {slow}"])
        body = ': k=v "a\\nb' + "x" * 495 + "..."
        self.assertEqual(self.told(True), [f"debug {quick}{body}", f"warn {slow}{body}"])

    def test_failures(self) -> None:
        """One that fails has its line too."""
        app = App(clock=Clock())
        app.middleware(timed(0.5))

        @app.handler("no")
        async def no() -> None:
            app.clock.advance(1.0)
            raise Refused(1, "no")

        with LogLines() as log:
            raised(Refused, Player(app).request, "no")
        self.assertIn("took 1.0", log.lines[0])


class Rates(SynchronousTestCase):
    """`at_most`."""

    def test_limits(self) -> None:
        """All sessions together, and one route; in the next time it is as before."""
        app = App(clock=Clock())
        app.middleware(at_most(4, {"b": 1}, seconds=2.0))
        app.route("a", lambda: 1)
        app.route("b", lambda: 2)
        ann, bob = Player(app), Player(app)
        for _ in range(2):
            self.assertEqual((ann.request("a"), bob.request("b")), (1, 2))
            no = raised(Refused, ann.request, "b")
            self.assertEqual((no.code, no.text), (500, "qps overload, handler_limit=1"))
            bob.request("a")
            no = raised(Refused, bob.request, "a")
            self.assertEqual(no.text, "qps overload, total_limit=4")
            app.clock.advance(2.0)


class Ages(Links):
    """`Bounds.age`."""

    def test_age(self) -> None:
        """It ends behind what it was told, however lively it is; others go on."""
        app = self.app_with(bounds=Bounds(age=5.0))
        older = self.connect()
        self.clock.pump([0.5] * 6)
        younger = self.connect()
        self.assertEqual(self.tell(older, "ask 1 echo 1"), ["ok 1 1"])
        self.clock.pump([0.5] * 5)
        self.assertFalse(older.connected)
        self.assertTrue(younger.connected)
        self.assertEqual(app.counts.lost, {"too_old": 1})
        self.clock.pump([0.5] * 6)
        self.assertEqual((len(app.sessions), self.connect(Words()).connected), (0, True))


class NativeAges(NativeLinks, Ages):
    """The same on the relay."""

"""Passing on: bodies and what is beside them, both ways, and a far end that is gone."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Body, Refused, Request, Session
from fastway.app.proxy import pass_on
from fastway.dialect import Dialect
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport2 import Teleport2
from tests.support.app_memory import Memory
from tests.support.errors import raised


class Proxies(SynchronousTestCase):
    """A client, a proxy and a backend."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = App(clock=self.clock)
        self.heard: list[Any] = []

        @self.backend.handler("echo.body")
        def echo(request: Request, body: Body) -> Body:
            request.answer_meta.append(("seen", dict(request.meta).get("k", "")))
            self.heard.append((body.codec, bytes(body), dict(request.meta)))
            return body

        @self.backend.handler("no")
        def no(code: int) -> None:
            raise Refused(code, "no", "why", [("k", "v")])

        self.middle = App(clock=self.clock)
        self.middle.route("own", lambda: "mine")
        self.app = App(clock=self.clock)

    def join(self, front: Dialect, back: Dialect | None = None, **settings: Any) -> Session:
        """A client of the proxy, whose own session is `self.behind`."""
        self.behind = self.connect(self.middle, self.backend, back or Teleport())
        pass_on(self.middle, lambda request: self.behind, **settings)
        return self.connect(self.app, self.middle, front)

    def connect(self, app: App, server: App, dialect: Dialect) -> Session:
        connecting = app.connect(Memory(server, dialect, self.clock), dialect)
        self.turn()
        session = self.successResultOf(connecting)
        assert isinstance(session, Session)
        return session

    def turn(self) -> None:
        self.clock.pump([0] * 20)

    def asked(self, asking: Deferred[Any]) -> Any:
        self.turn()
        return self.successResultOf(asking)

    def refused(self, asking: Deferred[Any]) -> tuple[int, str, Any]:
        self.turn()
        refused = self.failureResultOf(asking, Refused).value
        return refused.code, refused.text, refused.data

    def test_both_ways(self) -> None:
        """Codecs, even those that nobody knows, and meta, of calls and of pushes."""
        session = self.join(Teleport())
        for codec, data in (("j", b'{"a": 1}'), ("s", b"text"), ("t", b"\0\1\xff"), ("f", b"")):
            heard: list[tuple[str, str]] = []
            body = self.asked(
                session.request(
                    "echo.body",
                    Body(data, codec),
                    into=Body,
                    meta=[("k", "v"), ("k2", "")],
                    answer_meta=heard,
                )
            )
            self.assertEqual((body, body.codec), (data, codec))
            self.assertEqual(heard, [("seen", "v")])
            said = self.heard.pop()
            [there] = self.middle.sessions.keys() - {self.behind.session_id}
            real_ip = self.middle.sessions[there].peer
            self.assertEqual(said, (codec, data, {"k": "v", "k2": "", "X-Real-IP": real_ip}))
        session.send("echo.body", "pushed", meta=[("X-Real-IP", "192.0.2.7")])
        self.turn()
        self.assertEqual(self.heard, [("j", b'"pushed"', {"X-Real-IP": "192.0.2.7"})])
        self.assertEqual(self.asked(session.request("own")), "mine")

    def test_refusals(self) -> None:
        """What the backend says is what is told; but for what says that it is gone."""
        session = self.join(Teleport())
        heard: list[tuple[str, str]] = []
        asking = session.request("no", 1001, answer_meta=heard)
        self.assertEqual(self.refused(asking), (1001, "no", "why"))
        self.assertEqual(heard, [("k", "v")])
        self.assertEqual(self.refused(session.request("/no/such")), (404, "Not Found", ""))
        self.assertEqual(self.refused(session.request("no", 102)), (502, "Bad Gateway", None))
        self.behind.close()
        self.turn()
        for _ in range(2):
            self.assertEqual(self.refused(session.request("no", 1)), (502, "Bad Gateway", None))
        session.send("no", 1)
        self.turn()
        self.assertIsNone(session.ended)

    def test_lookups(self) -> None:
        """Whose a message is may be looked up, and that may fail."""
        fates: list[Any] = [ConnectionRefusedError(), Refused(401, "who?"), ZeroDivisionError()]

        async def to(request: Request) -> Session:
            raise fates.pop(0)

        pass_on(self.middle, to)
        session = self.connect(self.app, self.middle, Teleport())
        for code in (502, 401, 500):
            self.assertEqual(self.refused(session.request("echo.body"))[0], code)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_mute(self) -> None:
        """A backend that says nothing is gone, after so long."""
        self.backend.route("never", lambda: Deferred())
        session = self.join(Teleport(), timeout=5.0)
        asking = session.request("never")
        self.turn()
        self.clock.advance(5.0)
        self.assertEqual(self.refused(asking), (502, "Bad Gateway", None))

    def test_dialects(self) -> None:
        """From one dialect to another; one without a place for meta gets none."""
        session = self.join(Pomelo(profile="pitaya"), meta=None)
        self.assertEqual(self.asked(session.request("echo.body", [1])), [1])
        session = self.join(Teleport2(), Teleport2(header="p"))
        self.assertEqual(self.asked(session.request("echo.body", Body(b"hi", "s"))), "hi")
        self.assertEqual(self.heard[-1][:2], ("s", b"hi"))


class Bodies(SynchronousTestCase):
    """`Body`."""

    def test_letters(self) -> None:
        self.assertEqual((Body(b"a"), Body(b"a").codec, Body(b"", "s").codec), (b"a", "", "s"))
        for letter in ("ab", "λ"):
            raised(ValueError, Body, b"", letter)

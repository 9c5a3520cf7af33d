"""Pushes from outside, over HTTP in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Struct
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App
from fastway.app.http import MAX_BODY, PushApi, push_site
from fastway.app.testing import Player

GOOD = {"group": "lobby", "route": "on", "message": {"text": "hi"}}


class Notice(Struct):
    text: str
    urgent: bool = False


class Pushes(SynchronousTestCase):
    """Requests to a PushApi."""

    def setUp(self) -> None:
        self.app = App(clock=Clock())
        self.ann, self.bob = Player(self.app), Player(self.app)
        self.app.group("lobby").add(self.ann.session)
        self.bob.session.bind("bob")

    def ask(
        self,
        body: Any,
        *,
        method: str = "POST",
        token: str = "secret",
        kind: str = "application/json",
    ) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = (
            f"{method} /push HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return self.raw(head.encode() + data)

    def raw(self, data: bytes) -> tuple[int, Any]:
        site = push_site(self.app, "secret")
        channel = site.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(data)
        head, _, content = transport.value().partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(content) if content else None

    def test_whom(self) -> None:
        """A group, a user, or all are told, and how many is answered."""
        self.assertEqual(self.ask(GOOD), (200, {"sent": 1}))
        self.assertEqual(
            self.ask({"user": "bob", "route": "on", "message": 1}), (200, {"sent": 1})
        )
        self.assertEqual(self.ask({"user": "eve", "route": "on"}), (200, {"sent": 0}))
        self.assertEqual(self.ask({"all": True, "route": "on"}), (200, {"sent": 2}))
        self.assertEqual(self.ann.heard, [("on", {"text": "hi"}), ("on", None)])
        self.assertEqual(self.bob.heard, [("on", 1), ("on", None)])

    def test_declared(self) -> None:
        """What is declared of a route holds for who pushes from outside: members get that type,
        and of another one nothing."""
        self.app.sends("on", Notice)
        self.app.sends("tick", None)
        self.assertEqual(self.ask(GOOD), (200, {"sent": 1}))
        self.assertEqual(self.ann.heard, [("on", {"text": "hi", "urgent": False})])
        self.assertEqual(self.ask({"all": True, "route": "tick"}), (200, {"sent": 2}))
        for asked, problem in (
            ({**GOOD, "message": {"txt": "hi"}}, "missing required field `text`"),
            ({**GOOD, "message": None}, "Expected `object`, got `null`"),
            ({**GOOD, "route": "tick"}, "Expected `null`, got `object`"),
        ):
            status, answer = self.ask(asked)
            self.assertEqual(status, 400)
            self.assertIn(f"no message of {asked['route']!r}: ValidationError: ", answer["error"])
            self.assertIn(problem, answer["error"])
        self.assertEqual(len(self.ann.heard), 2)

    def test_refused(self) -> None:
        """Whatever is wrong is a status and a line, and nobody is told."""
        for status, problem, answer in (
            (401, "token", self.ask(GOOD, token="wrong")),
            (405, "POST", self.ask(GOOD, method="PUT")),
            (415, "application/json", self.ask(GOOD, kind="text/plain")),
            (400, "no JSON", self.ask(b"{")),
            (400, "no JSON", self.ask(b"[" * 60_000)),
            (400, "no JSON object", self.ask([1])),
            (400, "route", self.ask({"group": "lobby"})),
            (400, "'grup'", self.ask({"grup": "lobby", "route": "on"})),
            (400, "a group, a user", self.ask({"route": "on"})),
            (400, "a group, a user", self.ask({**GOOD, "user": 1})),
            (400, "all is true", self.ask({"all": 1, "route": "on"})),
            (400, "is a name", self.ask({"user": [1], "route": "on"})),
            (404, "no group 'hall'", self.ask({**GOOD, "group": "hall"})),
        ):
            with self.subTest(problem):
                self.assertEqual(answer[0], status)
                self.assertIn(problem, answer[1]["error"])
        self.assertEqual((self.ann.heard, self.bob.heard), ([], []))

    def test_large(self) -> None:
        """A large body, and one of unknown length, are cut off before they are read."""
        head = b"POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret\r\n"
        length = b"Content-Length: %d\r\n\r\n"
        self.assertEqual(self.raw(head + length % (MAX_BODY + 1))[0], 413)
        self.assertEqual(self.raw(head + b"Transfer-Encoding: chunked\r\n\r\n")[0], 411)
        self.assertEqual(self.ann.heard, [])
        whole = {**GOOD, "message": "x" * 60_000}
        self.assertEqual(self.ask(whole), (200, {"sent": 1}))

    def test_empty_token(self) -> None:
        """A port that anybody could use is not made."""
        with pytest.raises(ValueError, match="empty"):
            PushApi(self.app, "")

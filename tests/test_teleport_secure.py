"""Tests of bodies under a key; what is compared was recorded from unmodified Go peers."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Body, FrameRefused, Refused, Request, Session
from fastway.dialect import Meta
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport_fields import read_meta
from fastway.dialect.teleport_frames import FRAMINGS
from fastway.dialect.teleport_secure import ACCEPT_SECURE, SECURE, Secure
from tests.support.errors import raised
from tests.support.teleport import KNOWN, LIMIT, Memory

KEY = "cipherkey1234567"
VERSION = "1ba49884c59b16619f411c7c80343c9c"
RECORDED = (
    (b'{"A":10,"B":2}', "fe7b3fcbf0514f72a3156b8b85acf646"),
    (b'{"C":12}', "e8dfe85ef45b1cd3aeda9e941e4ee0b4"),
)


class Keys(SynchronousTestCase):
    """`Secure`."""

    def test_recorded(self) -> None:
        """Go's bytes, in both codecs."""
        secure = Secure(KEY)
        for body, text in RECORDED:
            said = json.loads(secure.seal(body, ord("j")))
            self.assertEqual(said, {"cipherversion": VERSION, "ciphertext": text})
            fields = b"\x0a\x20" + VERSION.encode() + b"\x12\x20" + text.encode()
            self.assertEqual(secure.seal(body, ord("p")), fields)
            for codec in b"jp":
                self.assertEqual(secure.open(secure.seal(body, codec), codec), body)
        self.assertEqual(secure.open(secure.seal(b"", ord("j")), ord("j")), b"")
        self.assertEqual(secure.open(b"{}", ord("j")), b"")

    def test_all_that_is_wrong_is_one_word(self) -> None:
        secure = Secure(KEY, 1007)
        good = secure.seal(b"x" * 20, ord("j"))
        said = {refused.args for refused in self.refusals(secure, good)}
        self.assertEqual(said, {("1007: decrypt ciphertext error",)})

    def refusals(self, secure: Secure, good: bytes) -> list[Refused]:
        other = Secure("cipherkey7654321").seal(b"x" * 20, ord("j"))
        text = json.loads(good)["ciphertext"]
        bad = [
            other,
            b"[1]",
            b'{"cipherversion":1}',
            b"\xff",
            good.replace(text.encode(), b""),
            good.replace(text.encode(), text[:-2].encode()),
            good.replace(text.encode(), b"zz" * 16),
            good.replace(text[-1:].encode(), b"0" if text[-1] != "0" else b"1"),
        ]
        refusals = [raised(Refused, secure.open, one, ord("j")) for one in bad]
        refusals += [raised(Refused, secure.open, b"\xff\xff", ord("p"))]
        return [*refusals, raised(Refused, secure.open, good, ord("s"))]

    def test_keys(self) -> None:
        for key in ("", "short", b"x" * 33):
            raised(ValueError, Secure, key)
        raised(FrameRefused, Secure(b"x" * 32).seal, b"", ord("s"))


class Talks(SynchronousTestCase):
    """Two of ours; what goes between them is looked at."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = App(clock=self.clock)
        self.app = App(clock=self.clock)
        self.heard: list[Any] = []
        self.server.route("note", self.heard.append)
        self.server.route("text", lambda: Body(b"plain", "s"))

        @self.server.handler("echo")
        def echo(message: dict[str, int]) -> dict[str, int]:
            return message

        @self.server.handler("hide")
        def hide(request: Request) -> str:
            request.answer_meta.append(SECURE)
            return "secret"

        @self.server.handler("fails")
        def fails() -> None:
            raise Refused(1001, "no", "why")

    def connect(self, ours: Secure | None = None, theirs: Secure | None = None) -> Session:
        near, far = Teleport(secure=theirs or Secure(KEY)), Teleport(secure=ours or Secure(KEY))
        endpoint = Memory(self.server, near, self.clock)
        connecting = self.app.connect(endpoint, far)
        self.clock.pump([0] * 10)
        half = endpoint.halves[0]
        self.asked, self.answered = [], []  # type: list[bytes], list[bytes]
        for end, seen in ((half.other, self.asked), (half, self.answered)):
            end.protocol.dataReceived = self.seeing(end.protocol.dataReceived, seen)
        session = self.successResultOf(connecting)
        assert isinstance(session, Session)
        return session

    def seeing(self, receives: Any, seen: list[bytes]) -> Any:
        def received(data: bytes) -> None:
            seen.append(data)
            receives(data)

        return received

    def ask(self, session: Session, route: str, message: Any, meta: Meta = ()) -> Any:
        asking = session.request(route, message, meta=meta)
        self.clock.pump([0] * 10)
        return self.successResultOf(asking)

    def sealed(self, data: list[bytes]) -> bool:
        """The one frame there is, and has the mark if it is."""
        frame = FRAMINGS["raw"][0].read(data.pop(), KNOWN, LIMIT)
        sealed = VERSION.encode() in frame.body
        self.assertEqual(SECURE in read_meta(frame.meta), sealed)
        return sealed

    def test_what_is_sealed(self) -> None:
        """The question by its mark; the answer by the question's, or as it is asked for."""
        session = self.connect()
        for meta, asked, answered in (
            ((), False, False),
            ((SECURE,), True, True),
            (((ACCEPT_SECURE, "true"),), False, True),
            ((SECURE, (ACCEPT_SECURE, "false")), True, False),
            ((("X-Secure", "yes"),), False, False),
        ):
            self.assertEqual(self.ask(session, "echo", {"A": 10}, meta), {"A": 10})
            both = self.sealed(self.asked), self.sealed(self.answered)
            self.assertEqual(both, (asked, answered), meta)
        self.assertEqual(self.ask(session, "hide", None), "secret")
        self.assertTrue(self.sealed(self.answered))

    def test_pushes(self) -> None:
        session = self.connect()
        session.send("note", "hidden", meta=[SECURE])
        self.clock.pump([0] * 10)
        self.assertTrue(self.sealed(self.asked))
        self.assertEqual(self.heard, ["hidden"])

    def test_errors_are_clear(self) -> None:
        session = self.connect()
        asking = session.request("fails", {}, meta=[SECURE])
        self.clock.pump([0] * 10)
        self.assertEqual(self.failureResultOf(asking, Refused).value.data, "why")
        self.assertIn(b"1001", self.answered[0])

    def test_wrong_keys(self) -> None:
        """The handler is not called; an answer under another key is no answer."""
        session = self.connect(Secure("cipherkey7654321", 9), Secure(KEY, 1007))
        asking = session.request("echo", {}, meta=[SECURE])
        answer = session.request("hide")
        session.send("note", "x", meta=[SECURE])
        self.clock.pump([0] * 10)
        self.assertEqual(self.failureResultOf(asking, Refused).value.code, 1007)
        self.assertEqual(self.failureResultOf(answer, Refused).value.code, 9)
        self.assertEqual(self.heard, [])
        self.assertIsNone(session.ended)

    def test_who_wants_what_cannot_be(self) -> None:
        """An answer under the key in a codec without a place: he is told, and nothing is run."""
        session = self.connect()
        for meta in ([(ACCEPT_SECURE, "true")], [SECURE]):
            asking = session.request("note", Body(b"x", "s"), meta=meta[:1])
            self.clock.pump([0] * 10)
            if meta[0] is SECURE:
                self.failureResultOf(asking, FrameRefused)
                continue
            refused = self.failureResultOf(asking, Refused).value
            self.assertIn("JSON and Protocol Buffers", refused.text)
        self.assertEqual(self.heard, [])

    def test_codecs_without_a_place(self) -> None:
        """What cannot be sealed is not sent in the clear instead."""
        session = self.connect()
        raised(FrameRefused, session.send, "note", Body(b"plain", "s"), meta=[SECURE])
        asking = session.request("text", None, meta=[SECURE])
        self.clock.pump([0] * 10)
        self.assertEqual(self.failureResultOf(asking, Refused).value.code, 500)
        self.assertNotIn(b"plain", b"".join(self.answered))
        self.flushLoggedErrors(FrameRefused)

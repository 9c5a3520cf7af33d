"""Hostile peers of an application, in memory: what each of them gets, and that nobody notices.

Each row is what a peer may send. It is told something or nothing, and its connection lives, or
ends with a reason in the log; another session is served before and after, no traceback is logged,
and memory stays within a bound.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from typing import Any, NamedTuple

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Bounds, Session
from fastway.app.ports import LinkFactory
from fastway.dialect import Dialect
from fastway.websocket.request import Policy
from tests.support.app_links import Wireless
from tests.support.logs import LogLines

MEMORY = 4 << 20
"""Bytes that one row may take while it is handled."""

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


class Row(NamedTuple):
    """One peer.

    Attributes:
        said: What it sends, in so many reads.
        ends: What the log says of why it was lost; "": it was not.
        why: And what is counted.
        answers: What is in what it is told.
        code: Of the Close that it gets by WebSocket.
    """

    what: str
    said: bytes | Iterable[bytes]
    ends: str = ""
    why: str = "bad_frame"
    answers: bytes = b""
    code: int = 0


def masked(kind: int, payload: bytes, last: bool = True) -> bytes:
    """A frame of a WebSocket's client, whose mask changes nothing."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | size,))
    elif size < 1 << 16:
        head = b"\xfe" + size.to_bytes(2, "big")
    else:
        head = b"\xff" + size.to_bytes(8, "big")
    return bytes((0x80 * last | kind,)) + head + bytes(4) + payload


class Hostile(SynchronousTestCase):
    """An App with a few handlers, and rows of what peers may send it."""

    def app_with(self, bounds: Bounds | None = None) -> App:
        self.clock = Clock()
        self.app = app = App(clock=self.clock, bounds=bounds)
        app.route("echo", lambda message: message)
        app.route("sum", _sum)
        return app

    def join(self, dialect: Dialect, websocket: bool = False) -> Any:
        """A new connection's far end."""
        factory: Any = LinkFactory(self.app, dialect)
        if websocket:
            factory = factory.over_websocket(Policy("", (), ""))
        far = Wireless(factory.buildProtocol(None))
        if websocket:
            far.say(UPGRADE)
            self.assertTrue(b"".join(far.take()).startswith(b"HTTP/1.1 101 "))
        return far

    def rows(
        self,
        dialect: Dialect,
        rows: Iterable[Row],
        *,
        begins: bytes,
        asks: tuple[bytes, bytes],
        websocket: bool = False,
    ) -> None:
        """Each row does what it says, and the bystander is served.

        Args:
            begins: What a peer says first that is in order.
            asks: What the bystander says, and what he is told then; so may each whose connection
                lives.
        """
        app = self.app
        bystander = self.join(dialect)
        bystander.say(begins)
        bystander.take()
        for row in rows:
            with self.subTest(row=row.what), LogLines() as log:
                lost = app.counts.lost.copy()
                peer = self.join(dialect, websocket)
                pieces = [row.said] if isinstance(row.said, bytes) else row.said
                tracemalloc.start()
                try:
                    before = tracemalloc.get_traced_memory()[0]
                    for piece in pieces:
                        if peer.connected:
                            peer.say(piece)
                    self.clock.advance(0)
                    used = tracemalloc.get_traced_memory()[1] - before
                finally:
                    tracemalloc.stop()
                self.assertLess(used, MEMORY, row.what)
                told = b"".join(peer.take())
                self.assertIn(row.answers, told, row.what)
                self.assertEqual(peer.connected, not row.ends, (row.what, told[-200:], log.lines))
                lost = app.counts.lost - lost
                if row.ends:
                    self.assertEqual(lost, {row.why: 1})
                    [line] = [line for line in log.lines if " lost" in line]
                    self.assertIn(row.ends, line, row.what)
                    self.assertLess(len(line), 400)
                    if row.code:
                        self.assertEqual(
                            told[told.rindex(b"\x88") + 2 :][:2], row.code.to_bytes(2, "big")
                        )
                else:
                    self.assertEqual(lost, {})
                    if not websocket:
                        peer.say(asks[0])
                        self.assertIn(asks[1], b"".join(peer.take()))
                    peer.end(ConnectionDone())
                self.assertEqual(self.flushLoggedErrors(), [])
                bystander.say(asks[0])
                self.assertEqual(b"".join(bystander.take()), asks[1])
                self.assertEqual((len(app.sessions), len(app.links.links)), (1, 1))
                self.assertEqual((app.counts.pending, app.running), (0, 0))
                app.quiet.flush()  # each row has its own line


def _sum(session: Session, numbers: list[int]) -> int:
    return sum(numbers)

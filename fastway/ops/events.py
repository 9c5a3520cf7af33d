"""Who watches the gateway: a stream of Server-Sent Events for each, made once for all.

Rule: what is sent is encoded once a second, however many watch, and not at all while nobody does:
then there is no timer. Who does not read misses what is said meanwhile, and is cut off in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from fastway.logs import make_logger
from fastway.ops.closed import Closed
from fastway.ops.schema import as_text
from fastway.ops.shapes import LogLines, NewEnds, Status
from fastway.ops.tail import Tail

log = make_logger(__name__)

MOST = 8
"""Who may watch at a time."""

EVERY = 1.0
"""Seconds between one status and the next."""

COMMENT = 15
"""Statuses between two comments."""

STUCK = 60.0
"""Seconds for which one may read nothing."""

BATCH = 100
"""Lines, and ends, that are sent at once."""


def event(name: str, data: Any) -> bytes:
    """One event."""
    return f"event: {name}\ndata: {as_text(data)}\n\n".encode()


@implementer(IPushProducer)
class Viewer:
    """One who watches.

    Attributes:
        missed: What was said and not sent to it.
        full: Since when it has read nothing, though something waits for it; None: it reads.
    """

    def __init__(self, viewers: Viewers, request: Any) -> None:
        self.request = request
        self.full: float | None = None
        self.missed = 0
        self._viewers = viewers

    def send(self, data: bytes, now: float) -> None:
        """Send it, unless it reads nothing."""
        if self.full is None:
            self.request.write(data)
            return
        self.missed += 1
        if now - self.full >= STUCK:
            self.request.channel.abort()

    def pauseProducing(self) -> None:
        if self.full is None:
            self.full = self._viewers.clock.seconds()

    def resumeProducing(self) -> None:
        self.full = None

    def stopProducing(self) -> None:
        """It is gone; the request says so too."""


class Viewers:
    """All who watch.

    Args:
        clock: The reactor, or a test's.
        status: What they are told.
        closed: The last ends,
        tail: and the last lines of the log, of which they get the new ones.
        watched: Called with True when the first comes, and with False when the last is gone.
    """

    def __init__(
        self,
        clock: IReactorTime,
        status: Callable[[], Status],
        closed: Closed,
        tail: Tail,
        watched: Callable[[bool], object] = lambda _: None,
    ) -> None:
        self.clock = clock
        self._status = status
        self._closed = closed
        self._tail = tail
        self._watched = watched
        self._viewers: dict[Viewer, None] = {}
        self._call: IDelayedCall | None = None
        self._said = 0
        self._lines = 0
        """Lines that were said,"""
        self._ends = 0
        """and ends."""

    def __len__(self) -> int:
        return len(self._viewers)

    def add(self, request: Any) -> None:
        """Answer that request for as long as it is there; its headers are set.

        There may be MOST; who asks has to see to that.
        """
        viewer = Viewer(self, request)
        if not self._viewers:
            self._watched(True)
            self._lines, self._ends = self._tail.ring.count, self._closed.ring.count
            self._said = 0
        self._viewers[viewer] = None
        request.channel.stays()
        request.notifyFinish().addBoth(lambda _: self._remove(viewer))
        cast(IConsumer, request).registerProducer(viewer, True)
        viewer.send(b"retry: 3000\n\n" + event("status", self._status()), 0)
        if self._call is None:
            self._call = self.clock.callLater(EVERY, self._tell)

    def stop(self) -> None:
        """End all streams."""
        for viewer in list(self._viewers):
            viewer.request.unregisterProducer()
            viewer.request.finish()

    def _remove(self, viewer: Viewer) -> None:
        del self._viewers[viewer]
        if not self._viewers:
            self._watched(False)
            if self._call is not None:
                self._call.cancel()
                self._call = None

    def _tell(self) -> None:
        self._call = self.clock.callLater(EVERY, self._tell)
        said = [event("status", self._status())]
        lines, ends = self._tail.ring, self._closed.ring
        if ends.count > self._ends:
            new = tuple(ends.since(self._ends, BATCH))
            said.append(event("closed", NewEnds(new, ends.count - self._ends - len(new))))
            self._ends = ends.count
        if lines.count > self._lines:
            told = tuple(lines.since(self._lines, BATCH))
            said.append(event("log", LogLines(told, lines.count - self._lines - len(told))))
            self._lines = lines.count
        self._said += 1
        if self._said % COMMENT == 0:
            said.append(b":\n\n")
        data = b"".join(said)
        now = self.clock.seconds()
        for viewer in list(self._viewers):
            viewer.send(data, now)

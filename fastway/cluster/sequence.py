"""Calls of one session to one peer: in order, one at a time.

Rule: the next is made when the one before has ended, because a peer may do what comes side by side
in any order (Go's gRPC does). So a session's calls keep their order, and wait for nobody else's.
What a peer has no room for now is said again a little later, before all else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from fastway.cluster.channel import Channel, Heard
from fastway.cluster.grpc import CallFailed

PAUSE, MAX_PAUSE = 0.01, 0.5
"""Seconds until a call is made again that there was no room for: at first, and at most."""

FULL = "session send buffer exceed"
"""What nano's gates say when more than 16 messages wait for a client: this one was not taken."""


def _is_full(failure: CallFailed) -> bool:
    return failure.heard and failure.text == FULL


class Sequence:
    """Calls of one session to one peer.

    Args:
        later: Calls something so many seconds later, of a clock.

    Attributes:
        waiting: Bytes of those that are not over.
    """

    __slots__ = ("_busy", "_channel", "_later", "_over", "_queue", "_running", "waiting")

    def __init__(self, channel: Channel, later: Callable[..., Any]) -> None:
        self.waiting = 0
        self._later = later
        self._over = False
        self._channel = channel
        self._busy = False
        self._running = False
        self._queue: deque[tuple[bytes, bytes, Heard | None]] | None = None

    @property
    def is_idle(self) -> bool:
        return not self._busy and not self._queue

    def start(self, path: bytes, message: bytes, heard: Heard | None = None) -> None:
        """Call, when those before are over. `heard` may be called before this returns."""
        self.waiting += len(message)
        if self._busy or self._running:
            if self._queue is None:
                self._queue = deque()
            self._queue.append((path, message, heard))
            return
        self._send(path, message, heard)
        self._run()

    def hurry(self) -> None:
        """What there is no room for is not said again from now on."""
        self._over = True

    def end(self) -> None:
        """There is nobody any more whom it is about: as `clear`, and nothing is said again."""
        self.hurry()
        self.clear()

    def clear(self) -> None:
        """Forget what waits; who hears of it is told nothing."""
        for _, message, _ in self._queue or ():
            self.waiting -= len(message)
        self._queue = None

    def _send(
        self, path: bytes, message: bytes, heard: Heard | None, pause: float = PAUSE
    ) -> None:
        self._busy = True

        def ended(result: bytes | CallFailed) -> None:
            if isinstance(result, CallFailed) and _is_full(result) and not self._over:
                self._later(pause, self._send, path, message, heard, min(2 * pause, MAX_PAUSE))
                return
            self._busy = False
            self.waiting -= len(message)
            if heard is not None:
                heard(result)
            self._run()

        self._channel.start(path, message, ended)

    def _run(self) -> None:
        """In a loop: where nobody can be reached, calls end at once."""
        if self._running:
            return
        self._running = True
        while self._queue and not self._busy:
            self._send(*self._queue.popleft())
        self._running = False

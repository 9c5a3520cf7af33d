"""Calls of one session to one peer: in order, one at a time.

Rule: the next is made when the one before has ended, because a peer may do what comes side by side
in any order (Go's gRPC does). So a session's calls keep their order, and wait for nobody else's.
"""

from __future__ import annotations

from collections import deque

from fastway.cluster.channel import Channel, Heard
from fastway.cluster.grpc import CallFailed


class Sequence:
    """Calls of one session to one peer.

    Attributes:
        waiting: Bytes of those that are not over.
    """

    __slots__ = ("_busy", "_channel", "_queue", "_running", "waiting")

    def __init__(self, channel: Channel) -> None:
        self.waiting = 0
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

    def clear(self) -> None:
        """Forget what waits; who hears of it is told nothing."""
        for _, message, _ in self._queue or ():
            self.waiting -= len(message)
        self._queue = None

    def _send(self, path: bytes, message: bytes, heard: Heard | None) -> None:
        self._busy = True
        size = len(message)

        def ended(result: bytes | CallFailed) -> None:
            self._busy = False
            self.waiting -= size
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

"""What a stream has still to write, and how much of it may be on its way.

Rule: order is kept, and what is handed on goes through the session, so that it can be sent again.
Where the kernel tells what the peer's host lacks (plain TCP on Linux) that never grows over the
session's buffer; the rest waits here.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from fastway.snet.session import Session

PIECE = 64 * 1024
"""Bytes handed to a carrier at once from what waits."""

NO_LIMIT = sys.maxsize

CallLater = Callable[..., Any]
"""Seconds, a function and its arguments -> what can be cancelled before that is called."""


class Way(Protocol):
    """The connection in use: a carrier."""

    @property
    def full(self) -> bool:
        """Its transport's buffer is."""

    def unacked(self) -> int | None:
        """Bytes that the peer's host has not acknowledged; None where nobody tells."""

    def round_trip(self) -> float | None:
        """Seconds, where the kernel tells."""

    def write(self, data: bytes) -> None: ...


class Outbox:
    """Bytes that wait for a connection, or for room in it.

    Attributes:
        size: How many wait.
        room: How many may be handed on before it has to be asked again what the peer's host lacks.
    """

    __slots__ = ("_call", "_delay", "_session", "_waiting", "room", "size")

    def __init__(self, session: Session) -> None:
        self.size = 0
        self.room = 0
        self._session = session
        self._waiting: deque[bytes] | None = None
        self._call: Any = None
        self._delay = 0.0

    def begin(self, carrier: Way) -> None:
        """There is a new connection."""
        self.room = NO_LIMIT if carrier.unacked() is None else self._session.buffer

    def end(self) -> None:
        """The connection is over."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def add(self, data: bytes) -> None:
        """Let it wait behind what waits."""
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(data)
        self.size += len(data)

    def drop(self) -> None:
        """Forget what waits."""
        self._waiting = None
        self.size = 0

    def flow(self, carrier: Way, call_later: CallLater, again: Callable[[], None]) -> bool:
        """Hand on what goes.

        Args:
            again: Called when there may be more room, if only the clock can tell.

        Returns:
            Whether nothing waits any more, and the connection has room.
        """
        while self.size and not carrier.full:
            wanted = min(self.size, PIECE)
            if self.room < wanted and not self._find_room(carrier, call_later, again):
                return False
            piece = self._take(min(self.room, wanted))
            self.room -= len(piece)
            carrier.write(self._session.send(piece))
        return not carrier.full

    def _take(self, most: int) -> bytes:
        waiting = self._waiting
        assert waiting is not None
        pieces = []
        size = 0
        while waiting and size < most:
            piece = waiting.popleft()
            if len(piece) > most - size:
                waiting.appendleft(piece[most - size :])
                piece = piece[: most - size]
            pieces.append(piece)
            size += len(piece)
        self.size -= size
        if not waiting:
            self._waiting = None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _find_room(self, carrier: Way, call_later: CallLater, again: Callable[[], None]) -> bool:
        """Ask how much the peer's host lacks; without room, ask again soon."""
        unacked = carrier.unacked()
        if unacked is None:
            self.room = NO_LIMIT
            return True
        buffer = self._session.buffer
        self.room = buffer - unacked
        if self.room >= min(self.size, max(1, buffer // 4)):
            self._delay = 0.0
            return True
        self.room = 0
        if self._call is None:
            # Nobody tells when there is room. A peer that takes nothing is asked ever less often.
            if self._delay:
                self._delay = min(2 * self._delay, 0.5)
            else:
                trip = carrier.round_trip() or 0.0
                self._delay = min(max(trip / 2, 0.001), 0.05)
            self._call = call_later(self._delay, self._ask_again, again)
        return False

    def _ask_again(self, again: Callable[[], None]) -> None:
        self._call = None
        again()

"""What came for a stream that is not read from, in order and bounded.

Rule: what counts as read is kept until it is handed over; what does not goes with its connection,
and the peer sends it again.
"""

from __future__ import annotations

from fastway.snet.session import Session

MOST_UNREAD = 64 * 1024
"""Bytes that a paused stream takes from its connections. What comes beyond them, with the end of
a handshake, is at most one read of the connection in use."""


class Inbox:
    """Bytes that wait for the protocol to read on.

    Attributes:
        size: How many: at most MOST_UNREAD, and one read of a connection.
    """

    __slots__ = ("_ahead", "_session", "_taken", "size")

    def __init__(self, session: Session) -> None:
        self.size = 0
        self._session = session
        self._taken: bytearray | None = None
        """Counts as read."""
        self._ahead: bytearray | None = None
        """Came behind it over the connection in use, and does not."""

    def add(self, data: bytes) -> None:
        """Keep what came over the connection in use."""
        if self._ahead is None:
            taken = self._taken
            if taken is None:
                taken = self._taken = bytearray()
            if len(taken) + len(data) <= MOST_UNREAD:
                data = self._session.receive(data)
                taken += data
                self.size += len(data)
                return
            self._ahead = bytearray()
        self._ahead += data
        self.size += len(data)

    def take(self) -> bytes:
        """All of it, which counts as read now."""
        data = bytes(self._taken or b"")
        if self._ahead is not None:
            data += self._session.receive(bytes(self._ahead))
        self._taken = self._ahead = None
        self.size = 0
        return data

    def end(self) -> None:
        """The connection is over."""
        if self._ahead is not None:
            self.size -= len(self._ahead)
            self._ahead = None

"""What waits unread on the virtual connections of one gateway, and its bounds.

Rule: past a bound somebody pays, and at once: what closed connections left unread goes first, then
the connection that holds most is closed, or the gateway is not read from until it has been read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol
from weakref import WeakSet

from fastway.endpoint.channel import Channel
from fastway.endpoint.config import EndpointConfig, Overflow
from fastway.errors import FastwayError, ReceiveQueueFull
from fastway.waiting import TURNS, Loop, Timer

OVERHEAD = 64
"""Bytes that a message takes besides its own: the empty ones count too."""


class Paused(Protocol):
    """A transport that may be told not to read."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Source(Protocol):
    """Where messages come from: a `link.Link`."""

    config: EndpointConfig
    loop: Loop

    @property
    def ended(self) -> Exception | None: ...

    @property
    def transport(self) -> Paused | None: ...

    @property
    def conns(self) -> Mapping[int, Channel[Any]]: ...

    def close(self, conn: Channel[Any], reason: FastwayError) -> None: ...


class Unread:
    """Counts unread messages, and sees to the bounds.

    Attributes:
        size: Bytes of them, with OVERHEAD for each, on all virtual connections, open and closed.
        reading_since: When the gateway was last read from again.
    """

    def __init__(self, source: Source) -> None:
        self.size = 0
        self.reading_since = -math.inf
        self._source = source
        self._config = source.config
        self._left: WeakSet[Channel[Any]] = WeakSet()
        """Closed connections that hold something."""
        self._overfull: dict[Channel[Any], float] = {}
        """Which keep the gateway from being read, and since when nobody has read them."""
        self._timer: Timer | None = None

    @property
    def paused(self) -> bool:
        """The gateway is not read from."""
        return bool(self._overfull)

    def more(self, conn: Channel[Any], size: int, count: int, messages: int) -> None:
        """So many bytes more, in `count` messages, wait; the connection has `messages` now."""
        config = self._config
        was_over = self.size > config.receive_total
        self.size += size + OVERHEAD * count
        if self._is_over(conn, messages):
            self._overflow(conn)
        # Once the gateway is not read from, only the rest of this read comes.
        if self.size > config.receive_total and not (was_over and self._overfull):
            self._trim()

    def less(self, conn: Channel[Any], size: int, count: int) -> None:
        """So many have been read, or are not wanted."""
        was_over = self.size > self._config.receive_total
        self.size -= size + OVERHEAD * count
        if conn.ended is not None and not conn.unread:
            self._left.discard(conn)
        if self._overfull:
            self._drained(conn, was_over)

    def _drained(self, conn: Channel[Any], was_over: bool) -> None:
        if conn in self._overfull:
            self._overfull[conn] = self._source.loop.seconds()
        if self.size > self._config.receive_total:
            return
        for one in list(self._overfull) if was_over else [conn]:
            if self._is_half_empty(one):
                self._release(one)

    def closed(self, conn: Channel[Any]) -> None:
        """A connection has ended, and whoever waited for that was told."""
        if conn.unread:
            self._left.add(conn)
        self._release(conn)

    def stop(self) -> None:
        """Nothing comes any more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _trim(self) -> None:
        """All together hold too much."""
        for conn in list(self._left):
            conn.drop_rest()
        conns = self._source.conns
        if conns and self.size > self._config.receive_total:
            self._overflow(max(conns.values(), key=_held))

    def _is_over(self, conn: Channel[Any], messages: int) -> bool:
        config = self._config
        if conn.is_stream:
            return conn.held > config.stream_buffer
        return messages > 1 and (
            messages > config.receive_queue or conn.held > config.receive_buffer
        )

    def _is_half_empty(self, conn: Channel[Any]) -> bool:
        config = self._config
        if conn.is_stream:
            return 2 * conn.held <= config.stream_buffer
        return 2 * conn.unread <= config.receive_queue and (
            2 * conn.held <= config.receive_buffer or conn.unread <= 1
        )

    def _overflow(self, conn: Channel[Any]) -> None:
        closes = self._config.overflow is Overflow.CLOSE and not conn.is_stream
        if closes and not self._source.loop.turns:
            self._close(conn)
        elif conn not in self._overfull:
            self._overfull[conn] = self._source.loop.seconds()
            transport = self._source.transport
            if len(self._overfull) == 1 and transport is not None:
                transport.pause()
                self._watch(self._config.pause_timeout)
            if closes:  # who reads as fast as can be has had no turn yet
                self._source.loop.call_later(0, self._judge, conn, TURNS)

    def _judge(self, conn: Channel[Any], turns: int) -> None:
        if conn not in self._overfull:
            return
        if turns:
            self._source.loop.call_later(0, self._judge, conn, turns - 1)
        elif self._is_over(conn, conn.unread) or self.size > self._config.receive_total:
            self._close(conn)
        else:
            self._release(conn)

    def _close(self, conn: Channel[Any]) -> None:
        self._source.close(conn, ReceiveQueueFull(conn.unread, conn.held))

    def _watch(self, seconds: float) -> None:
        self._timer = self._source.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        """Whoever has not read for too long does not keep the others waiting any longer."""
        self._timer = None
        now = self._source.loop.seconds()
        timeout = self._config.pause_timeout
        for conn in [conn for conn, since in self._overfull.items() if since + timeout <= now]:
            self._close(conn)
        if self._overfull and self._timer is None and self._source.ended is None:
            self._watch(min(self._overfull.values()) + timeout - now)

    def _release(self, conn: Channel[Any]) -> None:
        """A connection does not keep the gateway from being read any more."""
        if self._overfull.pop(conn, None) is None or self._overfull:
            return
        self.stop()
        transport = self._source.transport
        if self._source.ended is None and transport is not None:
            self.reading_since = self._source.loop.seconds()
            transport.resume()


def _held(conn: Channel[Any]) -> int:
    return conn.held + OVERHEAD * conn.unread

"""WebSockets to a gateway on asyncio.

Rule: what runs over one sees a transport of bytes once the handshake is done, and no frames. Its
buffers are those of the connection below.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from fastway.causes import cause_of
from fastway.errors import NO_CLOSE, NoWebSocket, WebSocketClosed
from fastway.websocket.client import HANDSHAKE_TIMEOUT, ClientMachine

LINGER = 5.0
"""Seconds that the gateway gets to answer a Close, and to end its connection."""


class Stream(asyncio.Protocol):
    """The bytes in a WebSocket's messages: a protocol to the connection below, and a transport to
    what runs over it. Messages have no borders here.

    `connection_lost` there is told None after one's own close and after a Close with 1000;
    otherwise a WebSocketClosed, a BadFrame, or what the connection below met.

    Args:
        factory: Makes what runs over it, when the handshake is done.

    Attributes:
        opened: Done with that then; fails with NoWebSocket.
    """

    def __init__(
        self,
        machine: ClientMachine,
        factory: Callable[[], asyncio.Protocol],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.opened: asyncio.Future[asyncio.Protocol] = loop.create_future()
        self._machine = machine
        self._factory = factory
        self._loop = loop
        self._below: Any = None
        self._rider: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._full = False
        self._paused = False
        self._held = b""
        """What came with the read in which it was paused."""
        self._disconnecting = False
        self._leaving = False
        self._gone = False
        self._lost: list[Exception | None] = []
        """How it was lost, where what is held is to be told first."""

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below = transport
        if self.opened.done():  # given up
            self._below.abort()
            return
        self._timer = self._loop.call_later(HANDSHAKE_TIMEOUT, self._too_late)
        self._below.write(self._machine.begin())

    def data_received(self, data: bytes) -> None:
        machine = self._machine
        payload = machine.receive(data)
        if self._rider is None:
            if self.opened.done():
                return
            if machine.up:
                self._stop_timer()
                self._rider = self._factory()
                self.opened.set_result(self._rider)
                self._rider.connection_made(self)
            elif machine.ended is not None:
                self._fail(cast(NoWebSocket, machine.ended))
                return
            else:
                return
        self._answer()
        if payload and not self._disconnecting:
            if self._paused or self._held:
                self._held += payload
            else:
                self._rider.data_received(payload)
        if machine.ended is not None:
            self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._stop_timer()
        ended = self._machine.ended
        self._machine.receive_eof()
        if self._rider is None:
            told = cast(NoWebSocket, self._machine.ended)
            self._fail(told if exc is None else NoWebSocket(cause_of(exc), exc))
            return
        error: Exception | None
        if isinstance(ended, WebSocketClosed):
            # What came behind it is only how the connection went.
            error = None if ended.code == 1000 or self._disconnecting else ended
        elif ended is not None:
            error = ended
        elif exc is None and not self._disconnecting:
            error = WebSocketClosed(NO_CLOSE)
        else:
            error = exc
        if self._held:
            self._lost.append(error)
        else:
            self._rider.connection_lost(error)

    def pause_writing(self) -> None:
        self._full = True
        if self._rider is not None:
            self._rider.pause_writing()

    def resume_writing(self) -> None:
        self._full = False
        self._answer()
        if self._rider is not None:
            self._rider.resume_writing()

    # What runs over it calls, as of asyncio's transports.

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if data and not self._machine.closing and not self._gone:
            self._below.write(self._machine.wrap(data))

    def close(self) -> None:
        """Close it after what was written: this side's Close, and the other's ends it."""
        if self._disconnecting or self._gone:
            return
        self._disconnecting = True
        self._held = b""
        said = self._machine.close()
        if said and not self._below.is_closing():
            self._below.write(said)
            self._below.resume_reading()  # the answer is to be read
            self._wait()

    def abort(self) -> None:
        """Close it now; should it not be connected yet, then."""
        self._disconnecting = True
        self._held = b""
        self._stop_timer()
        self.opened.cancel()
        if self._below is not None:
            self._below.abort()

    def is_closing(self) -> bool:
        """It is closed, or about to be."""
        return self._disconnecting or self._leaving or self._below.is_closing()

    def pause_reading(self) -> None:
        """Read nothing for now."""
        self._paused = True
        if not (self._disconnecting or self._below.is_closing()):
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._paused = False
        if self._held:
            # Never within the call that resumed: that may be the rider's, amid its last data.
            self._loop.call_soon(self._hand_over)
        elif not self._below.is_closing():
            self._below.resume_reading()

    def can_write_eof(self) -> bool:
        """WebSocket has no half-close."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Of the connection below: frames count with their heads."""
        self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Of the connection below."""
        return cast(int, self._below.get_write_buffer_size())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of the connection below; but the socket, whose bytes are not those of this."""
        return default if name == "socket" else self._below.get_extra_info(name, default)

    # Inside.

    def _hand_over(self) -> None:
        if self._paused:
            return
        held, self._held = self._held, b""
        if held:
            self._rider.data_received(held)
        if self._lost:
            self._rider.connection_lost(self._lost.pop())
        elif not self._paused and not self._below.is_closing():
            self._below.resume_reading()

    def _fail(self, error: NoWebSocket) -> None:
        self._stop_timer()
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()  # who waited may be cancelled in this very turn
        if not self._gone:
            self._below.abort()

    def _too_late(self) -> None:
        self._timer = None
        self._fail(NoWebSocket(f"no answer within {HANDSHAKE_TIMEOUT:g} s"))

    def _answer(self) -> None:
        out = self._machine.data_to_send(not self._full)
        if out and not self._gone and not self._below.is_closing():
            self._below.write(out)

    def _leave(self) -> None:
        """Nothing more comes that means something: end the connection, behind what waits."""
        if not self._leaving and not self._gone:
            self._leaving = True
            self._below.close()
            self._wait()

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(LINGER, self._waited)

    def _waited(self) -> None:
        self._timer = None
        if self._full and not self._leaving:
            self._wait()  # as TCP alone, which waits for who takes something at all
        elif not self._gone:
            self._below.abort()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

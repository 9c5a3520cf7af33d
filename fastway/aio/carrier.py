"""One connection under an snet stream on asyncio, and the attempt to make it.

Rule: a `Carrier` knows only what it has to tell its attempt and then its stream; it is over when
its connection is, and the stream goes on to the next one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastway import kernel
from fastway.errors import GatewayUnreachable
from fastway.snet.config import LINGER, MOST_DROPPED, SnetConfig
from fastway.snet.flow import Flow
from fastway.snet.session import DialHandshake, Fault, HandshakeFailed, Made, Resumed, Session

if TYPE_CHECKING:
    from fastway.aio.connect import Gateway


class Carrier(asyncio.Protocol):
    """One connection under a stream: first its handshake, then the stream's bytes.

    Attributes:
        stream: The stream that it carries; None before and after.
        full: The transport's buffer is full.
    """

    def __init__(self, attempt: Attempt, handshake: DialHandshake) -> None:
        self.stream: Flow | None = None
        self.full = False
        self.transport: Any = None
        self._attempt = attempt
        self._handshake: DialHandshake | None = handshake
        self._socket: Any = None
        self._plain = True
        self._wrote = 0
        self._dropped = 0
        self._acked_before: int | None = None
        self._unwanted = False
        self._linger: asyncio.TimerHandle | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if self._unwanted or self._handshake is None:
            self.transport.abort()
            return
        sock = transport.get_extra_info("socket")
        tcp = sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)
        self._plain = transport.get_extra_info("ssl_object") is None
        if tcp and self._plain:
            self._socket = sock
            kernel.notice_death(sock, self._attempt.config.dead_after)
            # Not of the stream: a dialled connection's SYN counts as a byte.
            self._acked_before = kernel.acked_bytes(sock)
        self.write(self._handshake.begin())

    def data_received(self, data: bytes) -> None:
        stream = self.stream
        if stream is not None:
            stream.carried(data)
            return
        handshake = self._handshake
        if handshake is None:
            self._dropped += len(data)
            if self._dropped > MOST_DROPPED:
                self.abort()
            return
        try:
            answer, result = handshake.feed(data)
        except HandshakeFailed as error:
            self._fail(error)
            return
        if answer:
            self.write(answer)
        if result is not None:
            self._handshake = None
            self._attempt.shaken(self, result)

    def eof_received(self) -> bool:
        # A cut, unless this side has closed already. What is written still goes out.
        stream = self.stream
        if stream is not None:
            stream.carrier_ended(self, self.unacked(), True)
        if self._handshake is not None:
            self._fail(HandshakeFailed(Fault.CLOSED))
        self._attempt.leaving.add(self)
        self._linger = asyncio.get_running_loop().call_later(LINGER, self.abort)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwanted = True
        self._attempt.leaving.discard(self)
        if self._linger is not None:
            self._linger.cancel()
        if self._handshake is not None:
            self._handshake = None
            detail = "" if exc is None or isinstance(exc, ConnectionError) else str(exc)
            self._attempt.failed(HandshakeFailed(Fault.CLOSED, detail=detail))
        stream = self.stream
        if stream is not None:
            stream.carrier_ended(self, None, exc is None)

    def pause_writing(self) -> None:
        self.full = True
        if self.stream is not None:
            self.stream.tell_full()

    def resume_writing(self) -> None:
        self.full = False
        if self.stream is not None:
            self.stream.pump()

    # What the attempt and the stream call.

    def write(self, data: bytes) -> None:
        self._wrote += len(data)
        # Once it broke, asyncio would log every write until it tells; the resume sends it again.
        # (TLS says nothing, and cannot be asked while it goes: Python 3.10.)
        if not self._plain or not self.transport.is_closing():
            self.transport.write(data)

    def unacked(self) -> int | None:
        """Bytes that the peer's host has not acknowledged; None where nobody tells."""
        if self._acked_before is None:
            return None
        acked = kernel.acked_bytes(self._socket)
        return None if acked is None else self._wrote - (acked - self._acked_before)

    def round_trip(self) -> float | None:
        """Seconds, where the kernel tells."""
        return kernel.round_trip(self._socket)

    def _fail(self, error: HandshakeFailed) -> None:
        self._handshake = None
        self.abort()
        self._attempt.failed(error)

    def half_close(self) -> None:
        """Disconnect once the peer has taken all and closed too; the stream sets the time."""
        if self._unwanted or self.transport.is_closing():
            return
        # Read on, into nothing: unread bytes would make the close a reset, which drops what is on
        # its way.
        self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def abort(self) -> None:
        """Disconnect now; should it not be connected yet, then."""
        self._handshake = None
        if not self._unwanted:
            self._unwanted = True
            if self.transport is not None:
                self.transport.abort()


class Attempt:
    """One connection, up to the end of its handshake.

    Args:
        leaving: Where its connection stands while it closes in good order.
        done: Called with the carrier and the handshake's result.
        failed: Called with what went wrong. Of both, one is called, once, unless it is cancelled.
        session: The stream to resume; None: a new one.
    """

    def __init__(
        self,
        gateway: Gateway,
        config: SnetConfig,
        leaving: set[Carrier],
        done: Callable[[Carrier, Made | Resumed], None],
        failed: Callable[[Exception], None],
        session: Session | None = None,
    ) -> None:
        self.config = config
        self.leaving = leaving
        self._gateway = gateway
        self._done = done
        self._failed = failed
        self._over = False
        handshake = DialHandshake(config.buffer, config.encrypt, session)
        self._carrier = Carrier(self, handshake)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(config.init_timeout, self._too_late)
        self._task = loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._gateway.open(lambda: self._carrier)
        except Exception as error:
            self.failed(error)

    def _too_late(self) -> None:
        seconds = self.config.init_timeout
        error = GatewayUnreachable(
            str(self._gateway), f"no answer within {seconds:g} s", TimeoutError()
        )
        self.failed(error)
        self.cancel()

    def shaken(self, carrier: Carrier, result: Made | Resumed) -> None:
        """The handshake is done."""
        if self._over:
            carrier.abort()
        else:
            self._end()
            self._done(carrier, result)

    def failed(self, error: Exception) -> None:
        """It came to nothing."""
        if not self._over:
            self._end()
            self._failed(error)

    def _end(self) -> None:
        self._over = True
        self._timer.cancel()

    def cancel(self) -> asyncio.Task[None]:
        """Give it up. The task ends soon."""
        self._end()
        self._task.cancel()
        self._carrier.abort()
        return self._task

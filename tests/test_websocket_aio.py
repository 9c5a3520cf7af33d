"""WebSockets on asyncio, on a loop that the test steps and a transport in memory.

Rule: nothing here sleeps; what takes a kernel is in test_websocket_library.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastway.aio.websocket import LINGER, Stream
from fastway.errors import NoWebSocket, WebSocketClosed, WebSocketRefused
from fastway.websocket import ClientMachine, WebSocket
from fastway.websocket.client import HANDSHAKE_TIMEOUT
from tests.support.aio_cases import AioCase
from tests.support.web import answer_to
from tests.support.websocket import client_frames, closing, frame, unmasked


class Below:
    """asyncio's transport, as far as a WebSocket asks."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = self.aborted = False
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return f"the {name}"

    def get_write_buffer_size(self) -> int:
        return len(self.written)


class Rider(asyncio.Protocol):
    """What runs over it: notes what it is told."""

    def __init__(self, pauses: bool = False) -> None:
        self.told: list[Any] = []
        self.transport: Any = None
        self._pauses = pauses

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self._pauses:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(exc)

    def pause_writing(self) -> None:
        self.told.append("full")

    def resume_writing(self) -> None:
        self.told.append("room")


class StreamTests(AioCase):
    def begin(self, pauses: bool = False) -> None:
        self.rider = Rider(pauses)
        self.below = Below()
        machine = ClientMachine(WebSocket(), "h")
        self.stream = Stream(machine, lambda: self.rider, self.turns.loop)
        self.stream.connection_made(self.below)  # type: ignore[arg-type]

    def heard(self) -> bytes:
        data, self.below.written = self.below.written, b""
        return data

    def up(self, behind: bytes = b"", pauses: bool = False) -> None:
        self.begin(pauses)
        self.stream.data_received(answer_to(self.heard()) + behind)
        self.assertIs(self.stream.opened.result(), self.rider)

    def later(self, seconds: float) -> None:
        self.turns.loop.now += seconds  # type: ignore[attr-defined]
        self.turns.turn()

    def gone(self, error: Exception | None = None) -> Any:
        """How its rider hears of its loss."""
        self.below.closed = True
        self.stream.connection_lost(error)
        return self.rider.told[-1]

    def test_open(self) -> None:
        """What came behind the answer is delivered; the socket below is nobody's here."""
        self.up(frame(b"hello", mask=None))
        self.assertEqual(self.rider.told, [b"hello"])
        self.assertIsNone(self.stream.get_extra_info("socket"))
        self.assertEqual(self.stream.get_extra_info("peername"), "the peername")
        self.assertFalse(self.stream.can_write_eof())
        self.later(HANDSHAKE_TIMEOUT)
        self.assertFalse(self.below.closed)

    def test_not_opened(self) -> None:
        """A status, silence, an end: each is an error, and the connection goes."""
        self.begin()
        self.stream.data_received(b"HTTP/1.1 429 x\r\nRetry-After: 2\r\n\r\n")
        self.assertIsInstance(self.stream.opened.exception(), WebSocketRefused)
        self.assertTrue(self.below.aborted)
        self.begin()
        self.stream.data_received(b"HTTP/1.1 101")
        self.later(HANDSHAKE_TIMEOUT - 0.1)
        self.assertFalse(self.stream.opened.done())
        self.later(0.2)
        self.assertIn("no answer within 10 s", str(self.stream.opened.exception()))
        self.assertTrue(self.below.aborted)
        for error, said in ((None, "within the handshake"), (ConnectionResetError(), "reset")):
            self.begin()
            self.stream.connection_lost(error)
            problem = self.stream.opened.exception()
            self.assertIsInstance(problem, NoWebSocket)
            self.assertIn(said, str(problem))

    def test_given_up(self) -> None:
        """Who is given up before there is a connection takes none."""
        stream = Stream(ClientMachine(WebSocket(), "h"), Rider, self.turns.loop)
        stream.abort()
        self.assertTrue(stream.opened.cancelled())
        below = Below()
        stream.connection_made(below)  # type: ignore[arg-type]
        self.assertTrue(below.aborted)
        self.assertEqual(below.written, b"")

    def test_pings(self) -> None:
        """While the transport is full Pings wait, and the last is answered."""
        self.up()
        self.stream.pause_writing()
        for number in range(1000):
            self.stream.data_received(frame(b"%d" % number, 9, mask=None))
        self.assertEqual(self.heard(), b"")
        self.stream.resume_writing()
        self.assertEqual(client_frames(self.heard()), [(10, b"999")])
        self.assertEqual(self.rider.told, ["full", "room"])

    def test_close(self) -> None:
        """Its own close waits for the answer, and drops what comes before that."""
        self.up()
        self.stream.pause_reading()
        self.stream.write(b"last")
        self.stream.close()
        self.stream.write(b"late")
        self.assertEqual(client_frames(self.heard()), [(2, b"last"), (8, b"\x03\xe8")])
        self.assertTrue(self.below.reading)
        self.assertTrue(self.stream.is_closing())
        self.stream.data_received(frame(b"unheard", mask=None) + unmasked(closing(1000)))
        self.assertTrue(self.below.closed)
        self.assertIsNone(self.gone())
        self.assertEqual(self.rider.told, [None])

    def test_close_unanswered(self) -> None:
        """Who does not answer is left after LINGER seconds; who takes what was written is not."""
        self.up()
        self.stream.pause_writing()
        self.stream.close()
        for _ in range(3):
            self.later(LINGER + 0.1)
        self.assertFalse(self.below.aborted)
        self.stream.resume_writing()
        self.later(LINGER + 0.1)
        self.assertTrue(self.below.aborted)
        self.assertIsNone(self.gone())

    def test_closed(self) -> None:
        """The gateway's code is the reason, whatever comes of the connection; 1000 is none."""
        for code, error in ((1000, None), (1001, None), (4403, ConnectionResetError())):
            self.up()
            self.stream.data_received(unmasked(closing(code, b"why")))
            self.assertEqual(client_frames(self.heard()), [(8, code.to_bytes(2, "big"))])
            self.assertTrue(self.below.closed)
            self.assertFalse(self.below.aborted)
            self.later(LINGER + 0.1)
            self.assertTrue(self.below.aborted)
            told = self.gone(error)
            if code == 1000:
                self.assertIsNone(told)
            else:
                self.assertIsInstance(told, WebSocketClosed)
                self.assertEqual(told.code, code)

    def test_cut(self) -> None:
        """An end without a Close is 1006, and a reset is what it is."""
        self.up()
        self.assertEqual(self.gone().code, 1006)
        self.up()
        self.assertIsInstance(self.gone(ConnectionResetError()), ConnectionResetError)
        self.up()
        self.stream.abort()
        self.assertIsNone(self.gone())

    def test_paused(self) -> None:
        """What came with the read in which it was paused waits, and so does the loss."""
        self.up(frame(b"hello", mask=None) + unmasked(closing(1001)), pauses=True)
        self.stream.connection_lost(None)
        self.assertEqual(self.rider.told, [])
        self.stream.resume_reading()
        self.assertEqual(self.rider.told, [])
        self.turns.turn()
        data, error = self.rider.told
        self.assertEqual((data, error.code), (b"hello", 1001))

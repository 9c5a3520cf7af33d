"""One WebSocket from its connection to its end, as either side has it.

Rule: bytes in, bytes out; no clock and no socket, time linear in the bytes, and never more is kept
than the head of a handshake. How the handshake goes is each side's (`client`, `server`).
"""

from __future__ import annotations

from fastway.errors import NO_CLOSE, NoWebSocket, RemoteError, WebSocketClosed
from fastway.websocket.frames import BadFrame, Frames


class Machine:
    """One WebSocket.

    Args:
        frames: Those behind its handshake, as this side sees them.

    Attributes:
        up: The handshake is over.
        ended: Why nothing more comes; None while it may. A WebSocketClosed, also one with 1000;
            what was wrong with the handshake before it was up; a BadFrame.
        closing: This side has said its Close: nothing more may be sent.
    """

    _CUT_SHORT = "closed within the handshake"

    def __init__(self, frames: Frames) -> None:
        self.up = False
        self.ended: RemoteError | None = None
        self.closing = False
        self._frames = frames
        self._out = b""

    def begin(self) -> bytes:
        """What is sent before anything came."""
        return b""

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the peer; returns the payload in them, and never raises."""
        if not self.up:
            if self.ended is not None:
                return b""
            try:
                behind = self._shake(data)
            except RemoteError as error:
                self.ended = error
                return b""
            if behind is None:
                return b""
            self.up = True
            data = behind
        frames = self._frames
        payload = frames.receive(data)
        if self.ended is None:
            if frames.error is not None:
                reason = frames.error.reason
                self._say_close(reason.close_code, reason.value)
                self.ended = BadFrame(f"WebSocket: {frames.error}", reason)
            elif frames.closed:
                self._say_close(1000, "")  # its own code
                self.ended = WebSocketClosed(frames.code, frames.text)
        return payload

    def receive_eof(self) -> None:
        """Nothing more comes."""
        if self.ended is None:
            self.ended = WebSocketClosed(NO_CLOSE) if self.up else NoWebSocket(self._CUT_SHORT)

    def data_to_send(self, room: bool = True) -> bytes:
        """What must be written because of what came: an answer, a Pong, a Close.

        Args:
            room: More than the last can be written without waiting: of Pings that came
                meanwhile, the last is answered.
        """
        out, self._out = self._out, b""
        frames = self._frames
        if frames.pong and (room or self.closing):
            pong, frames.pong = frames.pong, b""
            return out if self.closing else out + pong
        return out

    def wrap(self, data: bytes) -> bytes:
        """Payload as frames."""
        return self._frames.wrap(data)

    def close(self, code: int = 1000, text: str = "") -> bytes:
        """The Close of this side, behind which nothing may be sent; a second time nothing."""
        self._say_close(code, text)
        out, self._out = self._out, b""
        return out

    def _say_close(self, code: int, text: str) -> None:
        if not self.closing and self.up:
            self.closing = True
            self._out += self._frames.close(code, text)

    def _shake(self, data: bytes) -> bytes | None:
        """Take bytes of the handshake: those behind it; None: more is wanted.

        Raises:
            RemoteError: it came to nothing.
        """
        raise NotImplementedError

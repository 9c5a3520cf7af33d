"""The frames of a WebSocket, the server's side.

    frames = Frames()
    payload = frames.receive(data)  # then look at pong, closed and error
    data = frames.wrap(payload)

Rule: bytes in, bytes out; time is linear in the bytes that come, however they are cut, and never
more is kept than a control frame.

Binary messages are one stream of bytes, whose packets need not begin or end where a message or a
frame does: so nothing is ever put together again. Extensions are never agreed to.
"""

from __future__ import annotations

from fastway.errors import Reason, RemoteError

MAX_FRAME = 16 * 1024 * 1024
"""Bytes that a frame of the peer may announce. None is kept, so this only tells sense from not."""

PIECE = 16 * 1024 - 4
"""Bytes of payload in a frame that is sent: with its head it fills one TLS record."""

MAX_CONTROL = 125
"""Bytes of payload in a control frame."""


class BadFrame(RemoteError):
    """The peer sent what is no frame, or none for here; `reason` tells which."""

    def __init__(self, problem: str, reason: Reason = Reason.BAD_FRAME) -> None:
        super().__init__(problem)
        self.reason = reason


_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FIN = 0x80
_SHORT = [bytes((_FIN | _BINARY, size)) for size in range(126)]
"""Heads of frames so short."""


class Frames:
    """The frames of one connection, from its handshake on.

    Args:
        limit: Bytes that a frame of the peer may announce.

    Attributes:
        pong: The answer to the last Ping, a whole frame; whoever sends it sets it to b"".
        closed: The peer's Close came.
        error: Why the rest of what comes is not understood. After it, or a Close, nothing is.
    """

    __slots__ = (
        "_head",
        "_inside",
        "_left",
        "_limit",
        "_mask",
        "_peer_code",
        "closed",
        "error",
        "pong",
    )

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.pong = b""
        self.closed = False
        self.error: BadFrame | None = None
        self._limit = limit
        self._head = b""
        """A frame's head, or a control frame, that is not whole."""
        self._left = 0
        """Bytes of a data frame that are still to come,"""
        self._mask = b""
        """and their mask, turned so that the next byte is its first's."""
        self._inside = False
        """A message has begun and not ended."""
        self._peer_code = b""

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the peer; returns the payload in them, and never raises."""
        if self.closed or self.error is not None:
            return b""
        if self._head:
            data = self._head + data
            self._head = b""
        pieces: list[bytes] = []
        masks: list[bytes] = []
        try:
            self._split(data, pieces, masks)
        except BadFrame as error:
            self.error = error
        if not pieces:
            return b""
        # All of one call at once: the arithmetic costs more by the call than by the byte.
        payload = b"".join(pieces)
        return _xor(payload, b"".join(masks))

    def _split(self, data: bytes, pieces: list[bytes], masks: list[bytes]) -> None:
        """Note the payload in `data` with a mask of the same length."""
        at, size = 0, len(data)
        if self._left:
            at = self._payload(data, 0, self._left, self._mask, pieces, masks)
        while size - at >= 2:
            first, length = data[at], data[at + 1] - 0x80
            plain = first == 0x82 and not self._inside
            control = not plain and self._look_at(first)
            if length < 0:
                raise BadFrame("a frame is not masked")
            if control:
                self._control(data, at, first, length)
                if self._head or self.closed:
                    return
                at += 6 + length
                continue
            body = at + 2
            if length > 125:
                wide = 2 if length == 126 else 8
                body += wide
                if size < body:
                    break
                length = int.from_bytes(data[at + 2 : body], "big")
                if length < 126 or (wide == 8 and length < 0x10000) or length >> 63:
                    raise BadFrame("a frame's length is not in its shortest form")
                if length > self._limit:
                    raise BadFrame(
                        f"a frame of {length} bytes is over {self._limit}", Reason.FRAME_TOO_LARGE
                    )
            if size < body + 4:
                break
            if not plain:
                self._inside = first < _FIN
            at = self._payload(data, body + 4, length, data[body : body + 4], pieces, masks)
        self._head = data[at:]
        if len(self._head) == 1:
            self._look_at(self._head[0])

    def _payload(
        self,
        data: bytes,
        at: int,
        length: int,
        mask: bytes,
        pieces: list[bytes],
        masks: list[bytes],
    ) -> int:
        """Note a data frame's payload as far as it is there; returns where it ends."""
        piece = data[at : at + length]
        there = len(piece)
        if there:
            pieces.append(piece)
            masks.append((mask * ((there + 3) >> 2))[:there])
        if there < length:
            turn = there & 3
            self._mask = mask[turn:] + mask[:turn]
        self._left = length - there
        return at + there

    def _look_at(self, first: int) -> bool:
        """See that a frame may begin so, now; returns whether it is a control frame."""
        kind = first & 0x0F
        if first & 0x70:
            raise BadFrame("a frame has a reserved bit, of an extension that was not agreed to")
        if kind >= _CLOSE:
            if kind > _PONG:
                raise BadFrame(f"a frame has the reserved opcode {kind}")
            if first < _FIN:
                raise BadFrame("a control frame is in fragments")
            return True
        if kind > _BINARY:
            raise BadFrame(f"a frame has the reserved opcode {kind}")
        if (kind == _CONTINUATION) is not self._inside:
            raise BadFrame(
                "a message begins inside another" if kind else "a frame continues no message"
            )
        if kind == _TEXT:
            raise BadFrame("text came", Reason.NOT_BINARY)
        return False

    def _control(self, data: bytes, at: int, first: int, length: int) -> None:
        """Do what a control frame says, if it is whole; otherwise keep it."""
        if length > MAX_CONTROL:
            raise BadFrame(f"a control frame has over {MAX_CONTROL} bytes")
        end = at + 6 + length
        if len(data) < end:
            self._head = data[at:]
            return
        mask = data[at + 2 : at + 6]
        payload = _xor(data[at + 6 : end], (mask * 32)[:length])
        if first & 0x0F == _PING:
            self.pong = bytes((_FIN | _PONG, length)) + payload
        elif first & 0x0F == _CLOSE:
            self._check_close(payload)
            self._peer_code = payload[:2]
            self.closed = True

    @staticmethod
    def _check_close(payload: bytes) -> None:
        if not payload:
            return
        code = int.from_bytes(payload[:2], "big")
        if len(payload) == 1 or not (
            code in (1000, 1001, 1002, 1003) or 1007 <= code <= 1014 or 3000 <= code <= 4999
        ):
            raise BadFrame("a Close has no code that may be sent")
        try:
            payload[2:].decode("utf-8")
        except UnicodeDecodeError:
            raise BadFrame("the text of a Close is not UTF-8", Reason.NOT_UTF8) from None

    @staticmethod
    def wrap(data: bytes) -> bytes:
        """Payload as frames of at most PIECE bytes each; it is copied once."""
        size = len(data)
        if size < 126:
            return _SHORT[size] + data
        if size <= PIECE:
            return b"".join((b"\x82\x7e", size.to_bytes(2, "big"), data))
        parts: list[bytes | memoryview] = []
        view = memoryview(data)
        for at in range(0, size, PIECE):
            part = view[at : at + PIECE]
            parts.append(
                b"\x82\x7e" + len(part).to_bytes(2, "big")
                if len(part) > 125
                else _SHORT[len(part)]
            )
            parts.append(part)
        return b"".join(parts)

    def close(self, code: int, text: str = "") -> bytes:
        """A Close, after which nothing may be sent. A peer that sent one gets its own code.

        Args:
            code: As RFC 6455, section 7.4 has them, or 4000 to 4999.
            text: At most 123 bytes of it are sent.
        """
        if self.closed:
            payload = self._peer_code
        else:
            told = text.encode("utf-8")[:123].decode("utf-8", "ignore").encode("utf-8")
            payload = code.to_bytes(2, "big") + told
        return bytes((_FIN | _CLOSE, len(payload))) + payload


def _xor(data: bytes, mask: bytes) -> bytes:
    from_bytes = int.from_bytes
    made = from_bytes(data, "little") ^ from_bytes(mask, "little")
    return made.to_bytes(len(data), "little")

"""The frames of a WebSocket: `Frames` is the server's side, `ClientFrames` the client's.

    frames = Frames()
    payload = frames.receive(data)  # then look at pong, closed and error
    data = frames.wrap(payload)

A client's frames are masked and a server's are not; all else is the same on both sides.

Rule: bytes in, bytes out; time is linear in the bytes that come, however they are cut, and never
more is kept than a control frame.

Binary messages are one stream of bytes, whose packets need not begin or end where a message or a
frame does: so nothing is ever put together again. Extensions are never agreed to.
"""

from __future__ import annotations

import os
from enum import IntEnum

from fastway.errors import Reason, RemoteError

MAX_FRAME = 16 * 1024 * 1024
"""Bytes that a frame of the peer may announce. None is kept, so this only tells sense from not."""

PIECE = 16 * 1024 - 4
"""Bytes of payload in a frame that is sent: with its head it fills one TLS record."""

MAX_CONTROL = 125
"""Bytes of payload in a control frame."""

CHANCE = 512
"""Bytes of chance that are asked for at once."""


class BadFrame(RemoteError):
    """The peer sent what is no frame, or none for here; `reason` tells which."""

    def __init__(self, problem: str, reason: Reason = Reason.BAD_FRAME) -> None:
        super().__init__(problem)
        self.reason = reason


class Rule(IntEnum):
    """Rules that a client can break, by the numbers of the native core (`enum relay_rule`)."""

    RESERVED_BIT = 1
    RESERVED_OPCODE = 2
    CONTROL_IN_FRAGMENTS = 3
    MESSAGE_INSIDE = 4
    NOTHING_TO_CONTINUE = 5
    TEXT = 6
    NO_MASK = 7
    LONG_CONTROL = 8
    LENGTH_FORM = 9
    CLOSE_CODE = 10
    CLOSE_TEXT = 11


_BROKEN = {
    Rule.RESERVED_BIT: "a frame has a reserved bit, of an extension that was not agreed to",
    Rule.RESERVED_OPCODE: "a frame has the reserved opcode {}",
    Rule.CONTROL_IN_FRAGMENTS: "a control frame is in fragments",
    Rule.MESSAGE_INSIDE: "a message begins inside another",
    Rule.NOTHING_TO_CONTINUE: "a frame continues no message",
    Rule.TEXT: "text came",
    Rule.NO_MASK: "a frame is not masked",
    Rule.LONG_CONTROL: f"a control frame has over {MAX_CONTROL} bytes",
    Rule.LENGTH_FORM: "a frame's length is not in its shortest form",
    Rule.CLOSE_CODE: "a Close has no code that may be sent",
    Rule.CLOSE_TEXT: "the text of a Close is not UTF-8",
}
_REASONS = {Rule.TEXT: Reason.NOT_BINARY, Rule.CLOSE_TEXT: Reason.NOT_UTF8}


def broken(rule: Rule, opcode: int = 0) -> BadFrame:
    """The error of a broken rule; `opcode` is the reserved one."""
    return BadFrame(_BROKEN[rule].format(opcode), _REASONS.get(rule, Reason.BAD_FRAME))


def too_large(length: int, limit: int) -> BadFrame:
    """The error of a frame that announces more bytes than it may."""
    return BadFrame(f"a frame of {length} bytes is over {limit}", Reason.FRAME_TOO_LARGE)


_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FIN = 0x80
_SHORT = [bytes((_FIN | _BINARY, size)) for size in range(126)]
"""Heads of frames so short,"""
_MASKED_SHORT = [bytes((_FIN | _BINARY, 0x80 | size)) for size in range(126)]
"""and of those that are masked."""

NO_CODE = 1005
"""The code of a Close that has none (RFC 6455, section 7.1.5)."""


def frame_head(first: int, size: int, bit: int = 0) -> bytes:
    """The head of a frame, without its mask.

    Args:
        first: Its first byte.
        bit: The mask bit.
    """
    if size < 126:
        return bytes((first, bit | size))
    if size < 0x10000:
        return bytes((first, bit | 126)) + size.to_bytes(2, "big")
    return bytes((first, bit | 127)) + size.to_bytes(8, "big")


class Frames:
    """The frames of one connection, from its handshake on, as the server sees them.

    Args:
        limit: Bytes that a frame of the peer may announce.

    Attributes:
        pong: The answer to the last Ping, a whole frame; whoever sends it sets it to b"".
        closed: The peer's Close came.
        code, text: What that said; NO_CODE and "" where it said nothing.
        error: Why the rest of what comes is not understood. After it, or a Close, nothing is.
    """

    __slots__ = (
        "_head",
        "_inside",
        "_left",
        "_limit",
        "_mask",
        "closed",
        "code",
        "error",
        "pong",
        "text",
    )

    _bit = 0x80
    """The mask bit of the peer's frames,"""
    _key = 4
    """the bytes of its mask,"""
    _wrong = _BROKEN[Rule.NO_MASK]
    """and what is wrong with others."""
    _kinds = frozenset({_BINARY})
    """Opcodes that a message may begin with,"""
    _other = _BROKEN[Rule.TEXT]
    """what is said of others,"""
    _usual = _FIN | _BINARY
    """and the first byte of most frames."""

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
        self.code = NO_CODE
        self.text = ""

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
        return _xor(payload, b"".join(masks)) if masks else payload

    def _split(self, data: bytes, pieces: list[bytes], masks: list[bytes]) -> None:
        """Note the payload in `data` with a mask of the same length."""
        at, size, bit, key, usual = 0, len(data), self._bit, self._key, self._usual
        if self._left:
            at = self._payload(data, 0, self._left, self._mask, pieces, masks)
        while size - at >= 2:
            first, length = data[at], data[at + 1] ^ bit
            plain = first == usual and not self._inside
            control = not plain and self._look_at(first)
            if length > 127:
                raise BadFrame(self._wrong)
            if control:
                self._control(data, at, first, length)
                if self._head or self.closed:
                    return
                at += 2 + key + length
                continue
            body = at + 2
            if length > 125:
                wide = 2 if length == 126 else 8
                body += wide
                if size < body:
                    break
                length = int.from_bytes(data[at + 2 : body], "big")
                if length < 126 or (wide == 8 and length < 0x10000) or length >> 63:
                    raise broken(Rule.LENGTH_FORM)
                if length > self._limit:
                    raise too_large(length, self._limit)
            end = body + key
            if size < end:
                break
            if not plain:
                self._inside = first < _FIN
            at = self._payload(data, end, length, data[body:end], pieces, masks)
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
        if there and mask:
            masks.append((mask * ((there + 3) >> 2))[:there])
        if there < length:
            turn = there & 3
            self._mask = mask[turn:] + mask[:turn]
        self._left = length - there
        if not self._left and not self._inside:
            self._ended(pieces)
        return at + there

    def _ended(self, pieces: list[bytes]) -> None:
        """A message ends behind these pieces, which is nothing to a stream."""

    def _look_at(self, first: int) -> bool:
        """See that a frame may begin so, now; returns whether it is a control frame."""
        kind = first & 0x0F
        if first & 0x70:
            raise broken(Rule.RESERVED_BIT)
        if kind >= _CLOSE:
            if kind > _PONG:
                raise broken(Rule.RESERVED_OPCODE, kind)
            if first < _FIN:
                raise broken(Rule.CONTROL_IN_FRAGMENTS)
            return True
        if kind > _BINARY:
            raise broken(Rule.RESERVED_OPCODE, kind)
        if (kind == _CONTINUATION) is not self._inside:
            raise broken(Rule.MESSAGE_INSIDE if kind else Rule.NOTHING_TO_CONTINUE)
        if kind and kind not in self._kinds:
            raise BadFrame(self._other, _REASONS[Rule.TEXT])
        return False

    def _control(self, data: bytes, at: int, first: int, length: int) -> None:
        """Do what a control frame says, if it is whole; otherwise keep it."""
        if length > MAX_CONTROL:
            raise broken(Rule.LONG_CONTROL)
        begin = at + 2 + self._key
        end = begin + length
        if len(data) < end:
            self._head = data[at:]
            return
        payload = data[begin:end]
        if begin > at + 2:
            payload = _xor(payload, (data[at + 2 : begin] * 32)[:length])
        if first & 0x0F == _PING:
            self.pong = self._control_frame(_PONG, payload)
        elif first & 0x0F == _CLOSE:
            self._told_close(payload)
            self.closed = True

    def _told_close(self, payload: bytes) -> None:
        if not payload:
            return
        code = int.from_bytes(payload[:2], "big")
        if len(payload) == 1 or not (
            code in (1000, 1001, 1002, 1003) or 1007 <= code <= 1014 or 3000 <= code <= 4999
        ):
            raise broken(Rule.CLOSE_CODE)
        try:
            self.text = payload[2:].decode("utf-8")
        except UnicodeDecodeError:
            raise broken(Rule.CLOSE_TEXT) from None
        self.code = code

    def wrap(self, data: bytes) -> bytes:
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

    def wrap_whole(self, data: bytes) -> bytes:
        """Payload as one frame, of whatever size."""
        return frame_head(_FIN | _BINARY, len(data)) + data

    def close(self, code: int, text: str = "") -> bytes:
        """A Close, after which nothing may be sent. A peer that sent one gets its own code.

        Args:
            code: As RFC 6455, section 7.4 has them, or 4000 to 4999.
            text: At most 123 bytes of it are sent.
        """
        if self.closed:
            payload = b"" if self.code == NO_CODE else self.code.to_bytes(2, "big")
        else:
            told = text.encode("utf-8")[:123].decode("utf-8", "ignore").encode("utf-8")
            payload = code.to_bytes(2, "big") + told
        return self._control_frame(_CLOSE, payload)

    def _control_frame(self, kind: int, payload: bytes) -> bytes:
        return bytes((_FIN | kind, len(payload))) + payload


class ClientFrames(Frames):
    """The same as the client sees them: what it sends is masked, each frame by its own chance."""

    __slots__ = ("_chance", "_used")

    _bit = 0
    _key = 0
    _wrong = "a frame is masked"

    def __init__(self, limit: int = MAX_FRAME) -> None:
        super().__init__(limit)
        self._chance = b""
        """Masks to come: the system's source costs more by the call than by the byte,"""
        self._used = 0
        """and how far they are used up."""

    def _next_mask(self) -> bytes:
        at = self._used
        if at == len(self._chance):
            self._chance = os.urandom(CHANCE)
            at = 0
        self._used = at + 4
        return self._chance[at : at + 4]

    def wrap(self, data: bytes) -> bytes:
        size = len(data)
        mask = self._next_mask()
        if size < 126:
            return b"".join((_MASKED_SHORT[size], mask, _xor(data, (mask * 32)[:size])))
        if size <= PIECE:
            return b"".join((b"\x82\xfe", size.to_bytes(2, "big"), mask, masked(data, mask)))
        parts = []
        view = memoryview(data)
        for at in range(0, size, PIECE):
            part = view[at : at + PIECE]
            length = len(part)
            parts.append(
                b"\x82\xfe" + length.to_bytes(2, "big") if length > 125 else _MASKED_SHORT[length]
            )
            parts.append(mask)
            parts.append(masked(part, mask))
            mask = self._next_mask()
        return b"".join(parts)

    def _control_frame(self, kind: int, payload: bytes) -> bytes:
        mask = self._next_mask()
        head = bytes((_FIN | kind, 0x80 | len(payload)))
        return b"".join((head, mask, masked(payload, mask)))


def masked(data: bytes | memoryview, mask: bytes) -> bytes:
    """Payload as a mask turns it, in either direction."""
    size = len(data)
    return _xor(data, (mask * ((size + 3) >> 2))[:size])


def _xor(data: bytes | memoryview, mask: bytes) -> bytes:
    from_bytes = int.from_bytes
    made = from_bytes(data, "little") ^ from_bytes(mask, "little")
    return made.to_bytes(len(data), "little")

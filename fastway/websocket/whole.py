"""Frames whose messages stay whole: for wires of which one message is one unit.

    frames = WholeFrames(65536)
    frames.receive(data)  # then look at pong, closed and error
    for message in frames.take(): ...
    data = frames.wrap(packet)

Rule: as `frames`, but a message is put together from its fragments, up to a bound that holds for
the whole of it; the time is linear all the same. Text is bytes here; what is not UTF-8 is refused
as soon as it shows (RFC 6455, section 8.1).
"""

from __future__ import annotations

import codecs

from fastway.errors import Reason
from fastway.websocket.frames import BadFrame, ClientFrames, Frames, frame_head, masked, too_large

KINDS = {"text": 0x1, "binary": 0x2}
ALL = frozenset(KINDS)

_FIN = 0x80

_decoder = codecs.getincrementaldecoder("utf-8")


class _Whole(Frames):
    """What both sides have.

    Args:
        limit: Bytes of a message of the peer.
        takes: Kinds of messages that are taken: `text`, `binary`.
        text: What is sent are text messages.
        whole: False: messages are pieces of one stream, told as they come; then `limit` is that
            of a frame.
    """

    _usual = -1  # the kind of each is looked at
    _other = "a message of the other kind came"

    def __init__(
        self,
        limit: int,
        takes: frozenset[str] = ALL,
        text: bool = False,
        whole: bool = True,
    ) -> None:
        super().__init__(limit)
        self._whole = whole
        self._kinds = frozenset(KINDS[one] for one in takes)
        self._first = _FIN | KINDS["text" if text else "binary"]
        self._messages: list[bytes] = []
        self._parts: list[bytes] = []
        """Of the message that has not ended,"""
        self._size = 0
        """and their size."""
        self._borders: list[tuple[int, bool]] = []
        """Where messages end in the payload of one call, and which are text,"""
        self._counted = 0
        """for which so many pieces were counted,"""
        self._count = 0
        """and so many bytes."""
        self._is_text = False
        """The message that has begun last is one of text;"""
        self._text: codecs.IncrementalDecoder | None = None
        """what reads it, once it is more than ASCII."""

    def take(self) -> list[bytes]:
        """The messages that came since this was asked."""
        messages, self._messages = self._messages, []
        return messages

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the peer; what they say is in `take`."""
        self._borders.clear()
        self._counted = self._count = 0
        payload = self._read(super().receive(data))
        if not self._whole:
            if payload:
                self._messages.append(payload)
            return b""
        start = 0
        for border, _ in self._borders:
            if not self._fits(payload[start:border]):
                return b""
            parts, self._parts = self._parts, []
            self._size = 0
            self._messages.append(parts[0] if len(parts) == 1 else b"".join(parts))
            start = border
        self._fits(payload[start:])
        return b""

    def _read(self, payload: bytes) -> bytes:
        """The payload of one call, as far as text in it is some."""
        start = 0
        for number, (border, is_text) in enumerate(self._borders):
            if is_text and not self._is_utf8(payload[start:border], True):
                del self._borders[number:]
                return payload[:start]
            start = border
        rest = payload[start:]
        if rest and self._is_text and not self._is_utf8(rest, False):
            return payload[:start]
        return payload

    def _look_at(self, first: int) -> bool:
        control = super()._look_at(first)
        if not control and first & 0x0F:
            self._is_text = first & 0x0F == KINDS["text"]
        return control

    def _is_utf8(self, piece: bytes, ends: bool) -> bool:
        """Whether a text message may go on so, or end; what is cut within a character may."""
        if self._text is None:
            if piece.isascii():
                return True
            self._text = _decoder()
        try:
            self._text.decode(piece, ends)
        except UnicodeDecodeError:
            self.error = BadFrame("a text message is not UTF-8", Reason.NOT_UTF8)
            return False
        if ends:
            self._text = None
        return True

    def wrap(self, data: bytes) -> bytes:
        """One message, as one frame."""
        head = frame_head(self._first, len(data), 0 if self._bit else 0x80)
        return head + self._body(data)

    def _body(self, data: bytes) -> bytes:
        return data

    def _fits(self, piece: bytes) -> bool:
        """Note a piece of the message that has not ended; False: that is too large."""
        if piece or not self._parts:
            self._parts.append(piece)
            self._size += len(piece)
        if self._size > self._limit:
            self.error = too_large(self._size, self._limit)
            return False
        return True

    def _ended(self, pieces: list[bytes]) -> None:
        while self._counted < len(pieces):
            self._count += len(pieces[self._counted])
            self._counted += 1
        self._borders.append((self._count, self._is_text))


class WholeFrames(_Whole):
    """As the server sees them."""


class ClientWholeFrames(_Whole, ClientFrames):
    """As the client sees them."""

    def _body(self, data: bytes) -> bytes:
        mask = self._next_mask()
        return mask + masked(data, mask)

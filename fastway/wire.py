"""Packets, commands and the frame reader: the bytes of spec section 1.

Rule: this module knows formats, not meaning. It never learns which side a peer is on, who
owns a connection id, or what a command does.

    packet  = length:u32  conn_id:u32  message      length = 4 + len(message), little-endian
    command = a packet with conn_id 0; message = type:u8 args
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from fastway.errors import BadCommand, FrameTooLarge, FrameTooShort, RemoteError

MAX_PACKET = 512 * 1024
"""The default bound on a length field, in bytes; a message holds four bytes less."""

MIN_LENGTH = 4
"""The smallest legal length field: a connection id and an empty message."""

HEAD = 8
"""Bytes of a packet before its message: length and connection id."""

MAX_ID = 0xFFFFFFFF

CONNECT_SIZE = HEAD + 9
CLOSE_SIZE = HEAD + 5
"""Bytes of these commands, as packets; what stands behind may tell more of them."""

_HEAD = Struct("<II")
_COMMAND = Struct("<IIB")
_COMMAND_1 = Struct("<IIBI")
_COMMAND_2 = Struct("<IIBII")
_ID = Struct("<I")


class CommandType(IntEnum):
    """The type byte of a command (spec section 1)."""

    DIAL = 0
    ACCEPT = 1
    CONNECT = 2
    REFUSE = 3
    CLOSE = 4
    PING = 5


_DIAL, _ACCEPT, _CONNECT, _REFUSE, _CLOSE, _PING = map(int, CommandType)
"""Not looked up in the class for each command."""


def encode_packet(conn_id: int, message: bytes) -> bytes:
    """A packet that carries `message` over the virtual connection `conn_id`."""
    return _HEAD.pack(4 + len(message), conn_id) + message


def packet_head(conn_id: int, size: int) -> bytes:
    """What stands before a message of `size` bytes."""
    return _HEAD.pack(4 + size, conn_id)


def encode_dial(remote_id: int) -> bytes:
    return _COMMAND_1.pack(9, 0, _DIAL, remote_id)


def encode_accept(conn_id: int, remote_id: int) -> bytes:
    return _COMMAND_2.pack(13, 0, _ACCEPT, conn_id, remote_id)


def encode_connect(conn_id: int, remote_id: int, extra: bytes = b"") -> bytes:
    """A Connect, with `extra` behind its arguments for who asked for it."""
    return _COMMAND_2.pack(13 + len(extra), 0, _CONNECT, conn_id, remote_id) + extra


def encode_refuse(remote_id: int) -> bytes:
    return _COMMAND_1.pack(9, 0, _REFUSE, remote_id)


def encode_close(conn_id: int, extra: bytes = b"") -> bytes:
    """A Close, with `extra` behind its arguments for who asked for it."""
    return _COMMAND_1.pack(9 + len(extra), 0, _CLOSE, conn_id) + extra


PING = _COMMAND.pack(5, 0, _PING)


class Command(NamedTuple):
    """A decoded command. Ids that its type does not carry are 0."""

    kind: CommandType
    conn_id: int = 0
    remote_id: int = 0


_LAYOUTS = {
    int(kind): (kind, HEAD + 1 + 4 * (conn + remote), conn, remote)
    for kind, conn, remote in (
        (CommandType.DIAL, False, True),
        (CommandType.ACCEPT, True, True),
        (CommandType.CONNECT, True, True),
        (CommandType.REFUSE, False, True),
        (CommandType.CLOSE, True, False),
        (CommandType.PING, False, False),
    )
}
"""Type byte -> the type, how many bytes its packet has at least, and which ids it carries."""

_make = tuple.__new__
"""A Command in half the time of the call of a NamedTuple."""


def decode_command(frame: bytes) -> Command:
    """Decode one whole packet whose connection id is 0.

    Bytes behind the arguments are ignored, as the original does.

    Raises:
        BadCommand: no type byte, an unknown type, or arguments cut short.
    """
    size = len(frame)
    if size <= HEAD:
        raise BadCommand(None, size - HEAD)
    layout = _LAYOUTS.get(frame[HEAD])
    if layout is None or size < layout[1]:
        raise BadCommand(frame[HEAD], size - HEAD)
    kind, _, conn, remote = layout
    if not remote:
        return _make(Command, (kind, _ID.unpack_from(frame, HEAD + 1)[0] if conn else 0, 0))
    if not conn:
        return _make(Command, (kind, 0, _ID.unpack_from(frame, HEAD + 1)[0]))
    return _make(Command, (kind, *_HEAD.unpack_from(frame, HEAD + 1)))


def split_packets(frames: bytes) -> list[bytes]:
    """The messages of consecutive whole packets, as a FrameReader returns them."""
    messages = []
    position, end = 0, len(frames)
    while position < end:
        (length,) = _ID.unpack_from(frames, position)
        following = position + 4 + length
        messages.append(frames[position + HEAD : following])
        position = following
    return messages


def bare_messages(frames: bytes) -> tuple[bytes, int]:
    """The bytes of all messages of consecutive whole packets, and how many are not empty."""
    messages = [message for message in split_packets(frames) if message]
    return b"".join(messages), len(messages)


Run = tuple[int, bytes, int]
"""Consecutive whole packets of one connection id: (conn_id, their bytes, how many).

A command (conn_id 0) is always a run of its own.
"""


class StreamCutter:
    """Makes packets of a stream that has none; in place of a FrameReader.

    Args:
        conn_id: The virtual connection over which they go.
        size: Bytes of a message, at most; each read is one message if it is not longer.
    """

    __slots__ = ("_conn_id", "_size")

    pending = 0
    error = None

    def __init__(self, conn_id: int, size: int) -> None:
        self._conn_id = conn_id
        self._size = size

    def feed(self, data: bytes) -> list[Run]:
        """Packets of these bytes, as one run; none of no bytes."""
        size = self._size
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        if not pieces:
            return []
        packets = b"".join([encode_packet(self._conn_id, piece) for piece in pieces])
        return [(self._conn_id, packets, len(pieces))]


class FrameReader:
    """Cuts a byte stream into runs of packets.

    A packet that arrives in pieces is collected in one growing buffer, so each of its bytes is
    copied a bounded number of times however small the pieces are, and what a peer announces
    allocates nothing.

    Args:
        max_packet: The largest legal length field, in bytes.

    Attributes:
        pending: Bytes held of a packet that is not whole yet; at most max_packet + 3.
        error: Why the stream is broken, or None. Once set it stays: `feed` returns nothing more
            and the link must be lost.
    """

    __slots__ = ("_buffer", "_max_packet", "_need", "error")

    def __init__(self, max_packet: int = MAX_PACKET) -> None:
        self._max_packet = max_packet
        self._buffer: bytearray | None = None
        self._need = 0
        self.error: RemoteError | None = None

    @property
    def pending(self) -> int:
        return 0 if self._buffer is None else len(self._buffer)

    def take_pending(self) -> bytes:
        """The bytes of a packet that is not whole yet; another reader goes on with them."""
        data = b"" if self._buffer is None else bytes(self._buffer)
        self._buffer = None
        return data

    def feed(self, data: bytes) -> list[Run]:
        """Take bytes of the stream and return the packets that they complete, in order.

        Raises nothing: look at `error` afterwards. The packets before the broken one are
        returned by the call that meets it. A length is checked as soon as its four bytes are
        there.
        """
        if self.error is not None:
            return []
        buffer = self._buffer
        if buffer is not None:
            buffer += data
            if len(buffer) < self._need:
                return []
            data = bytes(buffer)
            self._buffer = None

        # Hot loop: about 0.15 us for a packet inside a run (bench/split.py), so the checks are
        # ordered by how often they decide, and names are local.
        unpack = _HEAD.unpack_from
        limit = self._max_packet
        runs: list[Run] = []
        end = len(data)
        last_head = end - HEAD
        position = start = count = 0
        current = -1
        while position <= last_head:
            length, conn_id = unpack(data, position)
            if not MIN_LENGTH <= length <= limit:
                break
            following = position + 4 + length
            if following > end:
                break
            if conn_id == current and conn_id:
                count += 1
            else:
                if count:
                    runs.append((current, data[start:position], count))
                start = position
                current = conn_id
                count = 1
            position = following
        if count:
            runs.append((current, data[start:position], count))

        rest = end - position
        if rest:
            need = 4
            if rest >= 4:
                (length,) = _ID.unpack_from(data, position)
                if length > limit:
                    self.error = FrameTooLarge(length, limit)
                    return runs
                if length < MIN_LENGTH:
                    self.error = FrameTooShort(length)
                    return runs
                need = 4 + length
            self._buffer = bytearray(data[position:] if position else data)
            self._need = need
        return runs

"""The wire of spec section 1, written down a second time.

Rule: nothing here knows fastway, so that a mistake in its encoders cannot hide itself.
"""

from __future__ import annotations

import hashlib
import struct

KEY = b"secret"
MAX_PACKET = 512 * 1024


def packet(conn_id: int, message: bytes = b"") -> bytes:
    return struct.pack("<II", 4 + len(message), conn_id) + message


def command(kind: int, *args: int) -> bytes:
    return packet(0, struct.pack(f"<B{len(args)}I", kind, *args))


def dial(remote_id: int) -> bytes:
    return command(0, remote_id)


def accept(conn_id: int, remote_id: int) -> bytes:
    return command(1, conn_id, remote_id)


def connect(conn_id: int, remote_id: int) -> bytes:
    return command(2, conn_id, remote_id)


def refuse(remote_id: int) -> bytes:
    return command(3, remote_id)


def close(conn_id: int) -> bytes:
    return command(4, conn_id)


PING = command(5)
FIRST = 9527
"""The id of the first virtual connection in every test: the one of the spec's vectors."""


def prove(challenge: bytes, server_id: int, key: bytes = KEY) -> bytes:
    """A server's answer to the challenge (spec section 3)."""
    return hashlib.md5(challenge + key).digest() + struct.pack("<I", server_id)


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Whole packets as (conn_id, message)."""
    packets = []
    while data:
        length, conn_id = struct.unpack_from("<II", data)
        assert len(data) >= 4 + length, f"{data!r} is no whole packet"
        packets.append((conn_id, data[8 : 4 + length]))
        data = data[4 + length :]
    return packets


def whole_packets(data: bytes) -> list[bytes]:
    """Whole packets, cut apart without the code under test; AssertionError if one is not whole."""
    packets = []
    position = 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "little")
        following = position + 4 + length
        if length < 4 or following > len(data):
            raise AssertionError(f"no whole packet at {position} of {data.hex()}")
        packets.append(data[position:following])
        position = following
    return packets

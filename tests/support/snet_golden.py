"""The wire of snet, written down a second time, with the spec's vectors.

Rule: nothing here uses fastway's own crypto or handshakes, so that a mistake in them cannot hide
itself.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

PRIME = 0xFFFFFFFFFFFFFFC5
REFUSED = bytes(24)

# The spec's vectors: private keys, what is public, and what both ends make of it.
A = 0x0123456789ABCDEF
A_PUBLIC = 0x445FEA74F4A7A181
B = 0xFEDCBA9876543210
B_PUBLIC = 0x8DDF32664B4A7109
KEY = bytes.fromhex("e8ea37e5ecc7b6ee")
STREAM = bytes.fromhex("dce0c3d2dad4a135da326bdeffe6d4c5e085069caef8306b")
CHALLENGE = bytes.fromhex("0001020304050607")
PROOF = bytes.fromhex("d14fda6770b5f5e01e973b75e6f72918")

CLAIM = struct.pack("<QQQ", 1, 100, 40)
CLAIM_DIGEST = bytes.fromhex("92ad9710417f0211eceaa3c1a58f9773")

DEGENERATE = [0, 1, PRIME - 1, PRIME, PRIME + 1, PRIME + 2, 2**64 - 2, 2**64 - 1]
"""Public keys of 64 bits that keep no secret."""


def u64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def md5(data: bytes) -> bytes:
    return hashlib.md5(data).digest()


def rc4(key: bytes) -> Iterator[int]:
    """RC4's keystream, without an end."""
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) & 255
        state[i], state[j] = state[j], state[i]
    i = j = 0
    while True:
        i = (i + 1) & 255
        j = (j + state[i]) & 255
        state[i], state[j] = state[j], state[i]
        yield state[(state[i] + state[j]) & 255]


def keystream(key: bytes, size: int) -> bytes:
    """The first bytes of RC4's keystream, made without the code under test and its library."""
    return bytes(islice(rc4(key), size))


class Script:
    """One end of a stream as the spec has it, without transport: what it would say.

    Attributes:
        wrote: All bytes of the stream that it wrote, as they went on the wire.
        read: All bytes of the stream that it read, decrypted.
    """

    def __init__(self, encrypt: bool = False, private: int = 0x0123456789ABCDEF) -> None:
        self.encrypt = encrypt
        self.private = private
        self.key = b""
        self.conn_id = 0
        self.wrote = bytearray()
        self.read = bytearray()
        self._out: Iterator[int] | None = None
        self._in: Iterator[int] | None = None

    @property
    def public(self) -> bytes:
        return u64(pow(5, self.private, PRIME))

    def agree(self, public: bytes) -> None:
        (number,) = struct.unpack("<Q", public)
        self.key = u64(pow(number, self.private, PRIME))
        self._out, self._in = rc4(self.key), rc4(self.key)

    def prove(self, challenge: bytes) -> bytes:
        return md5(challenge + self.key)

    def send(self, data: bytes) -> bytes:
        """Bytes for the wire, which count as written."""
        if self.encrypt:
            data = bytes(byte ^ next(cast(Any, self._out)) for byte in data)
        self.wrote += data
        return data

    def take(self, data: bytes) -> bytes:
        """The stream's bytes of what came."""
        if self.encrypt:
            data = bytes(byte ^ next(cast(Any, self._in)) for byte in data)
        self.read += data
        return data

    # As the dialling end.

    def hello(self) -> bytes:
        return b"\0" + self.public

    def accept(self, answer: bytes) -> bytes:
        """The proof that follows the 24 bytes that answer `hello`."""
        assert len(answer) == 24, answer
        self.agree(answer[:8])
        stream = rc4(self.key)
        pairs = zip(answer[8:16], stream, strict=False)
        self.conn_id = int.from_bytes(bytes(byte ^ pad for byte, pad in pairs), "little")
        for _ in range(8):
            next(cast(Any, self._in))
        return self.prove(answer[16:])

    def claim(self, wrote: int | None = None, read: int | None = None) -> bytes:
        """A request to resume, by default with true counts."""
        counts = u64(
            self.conn_id,
            len(self.wrote) if wrote is None else wrote,
            len(self.read) if read is None else read,
        )
        return b"\xff" + counts + md5(counts + self.key)

    # As the listening end.

    def answer(self, hello: bytes, conn_id: int = 1, challenge: bytes = b"schwierg") -> bytes:
        """What answers the 9 bytes of a new stream."""
        assert hello[:1] == b"\0" and len(hello) == 9, hello
        self.agree(hello[1:])
        self.conn_id = conn_id
        pairs = zip(u64(conn_id), cast(Any, self._out), strict=False)
        return self.public + bytes(byte ^ pad for byte, pad in pairs) + challenge

"""The server handshake, both sides (spec section 3).

    gateway -> server   challenge: 8 random bytes
    server  -> gateway  md5(challenge + key):16  server_id:u32

Rule: bytes in, bytes out; no clock (the 5 seconds are the caller's) and no socket. MD5 is the
wire's choice, not ours: whoever can listen may guess the key offline, so the server port belongs
on a private network or behind TLS.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from struct import Struct

from fastway.errors import AuthFailed

CHALLENGE_SIZE = 8
ANSWER_SIZE = 20
HANDSHAKE_TIMEOUT = 5.0
"""Seconds within which the whole handshake must be done."""

_ANSWER = Struct("<16sI")


def prove(challenge: bytes, key: bytes) -> bytes:
    """md5(challenge + key): 16 bytes."""
    return hashlib.md5(challenge + key, usedforsecurity=False).digest()


def answer_challenge(challenge: bytes, key: bytes, server_id: int) -> bytes:
    """What a server sends for the gateway's challenge: 20 bytes."""
    return _ANSWER.pack(prove(challenge, key), server_id)


class Handshake:
    """The gateway's side of one server's handshake.

    Send `challenge`, then `feed` what comes back until it returns a server id.
    """

    __slots__ = ("_buffer", "_key", "challenge")

    def __init__(self, key: bytes, challenge: bytes | None = None) -> None:
        self._key = key
        self._buffer = b""
        self.challenge = os.urandom(CHALLENGE_SIZE) if challenge is None else challenge

    def feed(self, data: bytes) -> tuple[int, bytes] | None:
        """Take bytes from the server.

        Returns:
            None while the answer is incomplete; then the server id and the bytes behind the
            answer, which are packets already.

        Raises:
            AuthFailed: the proof is wrong; the link must be lost.
        """
        data = self._buffer + data
        if len(data) < ANSWER_SIZE:
            self._buffer = data
            return None
        proof, server_id = _ANSWER.unpack_from(data)
        if not hmac.compare_digest(proof, prove(self.challenge, self._key)):
            raise AuthFailed
        return server_id, data[ANSWER_SIZE:]

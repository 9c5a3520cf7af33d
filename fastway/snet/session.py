"""One snet stream without transport and clock: handshakes, counts, replay (spec snet.md).

Rule: bytes in, bytes and decisions out. A stream's bytes come out exactly as they went in, or it
is lost with a `Fault`; there is no third thing. Whatever a peer claims is compared with what is
here before anything is done about it.

A `Session` outlives its connections. Each connection begins with a handshake, `ListenHandshake`
on the side that listens and `DialHandshake` on the side that dials, which ends in `Made` or in
`Resumed`.

A resume while the old connection still looks alive: between this side's answer, which tells
counts, and the newcomer's proof the old connection goes on. What comes over it in that time is
what the newcomer sends again, so as many bytes are skipped; what is written over it is sent again
with the rest. So nothing changes for the live connection until the proof is right.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from fastway.errors import RemoteError
from fastway.snet.crypto import (
    CHALLENGE_SIZE,
    KEY_SIZE,
    PROOF_SIZE,
    Crypt,
    digest,
    is_degenerate,
    is_digest,
    private_key,
    public_key,
    rc4,
    shared_key,
    stream_cipher,
)

NEW = 0x00
RESUME = 0xFF

_COUNTS = struct.Struct("<QQ")
_CLAIM = struct.Struct("<QQQ")
_KEY = struct.Struct("<Q")

REFUSED = bytes(24)
"""The answer to a resume that cannot be."""


class Fault(Enum):
    """What was wrong with a handshake. The value is the sentence that an operator reads."""

    FIRST_BYTE = "began with neither a new stream nor a resume"
    DEGENERATE_KEY = "sent a public key that keeps no secret"
    BAD_PROOF = "did not prove the stream's key"
    BAD_DIGEST = "asked for a resume with a wrong digest"
    UNKNOWN_STREAM = "asked for a stream that is not here"
    BAD_COUNTS = "claimed counts that cannot be"
    GAP = "lacks more than the replay buffer holds"
    STALE = "was overtaken by a newer resume"
    REFUSED = "the peer refused the resume"
    TIMEOUT = "no complete handshake in time"
    CLOSED = "closed in the middle of its handshake"
    CROWDED_OUT = "dropped as the oldest of too many handshakes"


class HandshakeFailed(RemoteError):
    """The peer's handshake cannot be gone on with.

    Attributes:
        fault: What was wrong.
        answer: Bytes that it is still sent, then it is disconnected.
    """

    def __init__(self, fault: Fault, answer: bytes = b"", detail: str = "") -> None:
        super().__init__(f"{fault.value}: {detail}" if detail else fault.value)
        self.fault = fault
        self.answer = answer


class Session:
    """The state of one stream: counts, the replay window, the ciphers.

    Args:
        conn_id: Its number, the listening side's.
        key: 8 bytes that both sides share.
        buffer: Bytes written last that are kept, to be sent again.
        encrypt: Data is encrypted.
        listens: This is the listening side, whose keystream the handshake has begun.

    Attributes:
        wrote: Bytes of the stream given to connections so far.
        read: Bytes of the stream that came so far.
        peer_read: Bytes that the peer is known to have read, from its last resume.
        requests: Resumes that were answered so far.
        resumed: The number of the request that was resumed last.
    """

    __slots__ = (
        "_crypt_in",
        "_crypt_out",
        "_encrypt",
        "_listens",
        "_skip",
        "_window",
        "buffer",
        "conn_id",
        "key",
        "peer_read",
        "read",
        "requests",
        "resumed",
        "wrote",
    )

    def __init__(
        self, conn_id: int, key: bytes, buffer: int, encrypt: bool, listens: bool
    ) -> None:
        self.conn_id = conn_id
        self.key = key
        self.buffer = buffer
        self.wrote = 0
        self.read = 0
        self.peer_read = 0
        self.requests = 0
        self.resumed = 0
        self._encrypt = encrypt
        self._listens = listens
        # Made when data flows: each is over 1 KB.
        self._crypt_out: Crypt | None = None
        self._crypt_in: Crypt | None = None
        self._window = bytearray()
        self._skip = 0

    @property
    def replayable(self) -> int:
        """Bytes that are kept, to be sent again."""
        return len(self._window)

    def send(self, data: bytes) -> bytes:
        """The bytes for the wire; from now on they count as written."""
        if self._encrypt:
            crypt = self._crypt_out
            if crypt is None:
                crypt = self._crypt_out = stream_cipher(self.key, KEY_SIZE if self._listens else 0)
            data = crypt(data)
        self.wrote += len(data)
        window = self._window
        window += data
        over = len(window) - self.buffer
        if over > 0:
            del window[:over]
        return data

    def receive(self, data: bytes) -> bytes:
        """The stream's bytes of what came over the connection now in use."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self.read += len(data)
        if self._encrypt and data:
            crypt = self._crypt_in
            if crypt is None:
                crypt = self._crypt_in = stream_cipher(self.key, 0 if self._listens else KEY_SIZE)
            data = crypt(data)
        return data

    def check(self, wrote: int, read: int) -> None:
        """Compare a peer's claim with what is here.

        Args:
            wrote: Bytes that it says to have written.
            read: Bytes that it says to have read.

        Raises:
            HandshakeFailed: BAD_COUNTS or GAP.
        """
        if read > self.wrote or read < self.peer_read or wrote < self.read:
            raise HandshakeFailed(
                Fault.BAD_COUNTS,
                detail=f"wrote {wrote} and read {read}; here it is read {self.read}, "
                f"wrote {self.wrote}, known to be read {self.peer_read}",
            )
        for gap, held in (
            (self.wrote - read, len(self._window)),
            (wrote - self.read, self.buffer),
        ):
            if gap > held:
                raise HandshakeFailed(Fault.GAP, detail=f"{gap} bytes of at most {held}")

    def resume(self, resumed: Resumed) -> bytes:
        """Go on over a new connection.

        Returns:
            The bytes to begin the connection with, as they went over the wire before.

        Raises:
            HandshakeFailed: a newer request came first, or meanwhile the claim cannot be any
                more; nothing has changed.
        """
        if resumed.number < self.resumed:
            raise HandshakeFailed(Fault.STALE)
        self.check(resumed.wrote, resumed.read)
        self.resumed = resumed.number
        self._skip = self.read - resumed.told_read
        self.peer_read = resumed.read
        # All that is before it has been read.
        del self._window[: len(self._window) - (self.wrote - resumed.read)]
        return bytes(self._window)


@dataclass(frozen=True, slots=True)
class Made:
    """A new stream.

    Attributes:
        rest: Bytes of it that came with the end of the handshake.
    """

    session: Session
    rest: bytes


@dataclass(frozen=True, slots=True)
class Resumed:
    """The peer has proved that it is the one: this connection takes over.

    Attributes:
        wrote: What the peer claims to have written.
        read: What the peer claims to have read.
        told_read: What it was told that this side has read; that may have grown since.
        number: The request's number among the session's; 0 on the dialling side.
        rest: Bytes of the stream that came with the end of the handshake.
    """

    session: Session
    wrote: int
    read: int
    told_read: int
    number: int
    rest: bytes


class ListenHandshake:
    """The listening side's handshake of one connection.

    Args:
        find: conn_id -> the session of a stream that may be resumed, or None.
        new_id: Gives the number of a new stream.
        buffer: Replay buffer of a new stream, in bytes.
        encrypt: New streams are encrypted.
    """

    __slots__ = (
        "_buffer",
        "_challenge",
        "_claim",
        "_data",
        "_encrypt",
        "_find",
        "_new_id",
        "_session",
    )

    def __init__(
        self,
        find: Callable[[int], Session | None],
        new_id: Callable[[], int],
        buffer: int,
        encrypt: bool,
    ) -> None:
        self._find = find
        self._new_id = new_id
        self._buffer = buffer
        self._encrypt = encrypt
        self._data = b""
        self._session: Session | None = None
        self._challenge = b""
        self._claim: tuple[int, int, int, int] | None = None

    def feed(self, data: bytes) -> tuple[bytes, Made | Resumed | None]:
        """Take what came.

        Returns:
            What to answer, and how it ended once it has.

        Raises:
            HandshakeFailed: disconnect it, after `answer`.
        """
        self._data += data
        answer = b""
        if self._session is None:
            answer = self._request()
        if self._session is None or len(self._data) < PROOF_SIZE:
            return answer, None
        proof, rest = self._data[:PROOF_SIZE], self._data[PROOF_SIZE:]
        session = self._session
        if not is_digest(proof, self._challenge, session.key):
            raise HandshakeFailed(Fault.BAD_PROOF)
        self._data = b""
        if self._claim is None:
            return answer, Made(session, rest)
        return answer, Resumed(session, *self._claim, rest)

    def _request(self) -> bytes:
        data = self._data
        if not data:
            return b""
        if data[0] == NEW:
            if len(data) < 1 + KEY_SIZE:
                return b""
            self._data = data[1 + KEY_SIZE :]
            return self._new(_KEY.unpack_from(data, 1)[0])
        if data[0] == RESUME:
            size = 1 + _CLAIM.size + PROOF_SIZE
            if len(data) < size:
                return b""
            self._data = data[size:]
            return self._resume(data[1 : 1 + _CLAIM.size], data[1 + _CLAIM.size : size])
        raise HandshakeFailed(Fault.FIRST_BYTE, detail=f"{data[0]:#04x}")

    def _new(self, public: int) -> bytes:
        if is_degenerate(public):
            raise HandshakeFailed(Fault.DEGENERATE_KEY)
        private = private_key()
        key = shared_key(private, public)
        session = Session(self._new_id(), key, self._buffer, self._encrypt, True)
        self._session = session
        self._challenge = os.urandom(CHALLENGE_SIZE)
        # Encrypted whether the data is or not (spec "New connection").
        conn_id = rc4(key)(_KEY.pack(session.conn_id))
        return _KEY.pack(public_key(private)) + conn_id + self._challenge

    def _resume(self, claim: bytes, proof: bytes) -> bytes:
        conn_id, wrote, read = _CLAIM.unpack(claim)
        session = self._find(conn_id)
        if session is None:
            raise HandshakeFailed(Fault.UNKNOWN_STREAM, REFUSED)
        if not is_digest(proof, claim, session.key):
            raise HandshakeFailed(Fault.BAD_DIGEST, REFUSED)
        try:
            session.check(wrote, read)
        except HandshakeFailed as error:
            error.answer = REFUSED
            raise
        session.requests += 1
        self._session = session
        self._claim = (wrote, read, session.read, session.requests)
        self._challenge = os.urandom(CHALLENGE_SIZE)
        return _COUNTS.pack(session.wrote, session.read) + self._challenge


class DialHandshake:
    """The dialling side's handshake of one connection.

    Args:
        buffer: Replay buffer of a new stream, in bytes.
        encrypt: A new stream is encrypted.
        session: The stream to resume; None: a new one. It must not change until this has ended.
    """

    __slots__ = ("_buffer", "_data", "_encrypt", "_private", "_session")

    def __init__(self, buffer: int, encrypt: bool, session: Session | None = None) -> None:
        self._buffer = buffer
        self._encrypt = encrypt
        self._session = session
        self._private = 0
        self._data = b""

    def begin(self) -> bytes:
        """What the connection begins with."""
        session = self._session
        if session is None:
            self._private = private_key()
            return bytes([NEW]) + _KEY.pack(public_key(self._private))
        claim = _CLAIM.pack(session.conn_id, session.wrote, session.read)
        return bytes([RESUME]) + claim + digest(claim, session.key)

    def feed(self, data: bytes) -> tuple[bytes, Made | Resumed | None]:
        """Take what came.

        Returns:
            What to answer, and how it ended once it has.

        Raises:
            HandshakeFailed: disconnect; a Fault.REFUSED means that the stream is lost.
        """
        self._data += data
        if len(self._data) < len(REFUSED):
            return b"", None
        head, rest = self._data[: len(REFUSED)], self._data[len(REFUSED) :]
        challenge = head[-CHALLENGE_SIZE:]
        session = self._session
        if session is None:
            public = _KEY.unpack_from(head)[0]
            if is_degenerate(public):
                raise HandshakeFailed(Fault.DEGENERATE_KEY)
            key = shared_key(self._private, public)
            conn_id = _KEY.unpack(rc4(key)(head[KEY_SIZE : 2 * KEY_SIZE]))[0]
            session = Session(conn_id, key, self._buffer, self._encrypt, False)
            return digest(challenge, key), Made(session, rest)
        if head == REFUSED:
            raise HandshakeFailed(Fault.REFUSED)
        wrote, read = _COUNTS.unpack_from(head)
        session.check(wrote, read)
        return digest(challenge, session.key), Resumed(session, wrote, read, session.read, 0, rest)

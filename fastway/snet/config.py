"""How streams behave: the numbers of both sides, those that are set and those that are fixed.

Rule: what cannot be is refused here, before a port listens or a stream is dialled, and nothing is
changed later.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastway.snet.crypto import check_stream_cipher

LINGER = 5.0
"""Seconds that the peer of a closed stream gets to take what was written to it."""

MOST_DROPPED = 64 * 1024
"""Bytes that are read into nothing from a connection that was refused, or is closing."""

FIRST_DELAY = 0.1
MOST_DELAY = 5.0
"""Seconds before the first attempt that is not made at once, and in the end before every one."""

STEADY = 1.0
"""Seconds that a connection must have lasted, or else have got something across, for the next
attempt to be made at once."""

HURRY = 1.0
"""Seconds between attempts that somebody asked for, however often he does. What hangs for less may
yet come through."""


@dataclass(frozen=True, slots=True)
class SnetConfig:
    """How streams behave. Both sides should have the same `encrypt` and `buffer`.

    Attributes:
        encrypt: RC4 with a key that whoever recorded the handshake can find; see `crypto`.
        buffer: Bytes written last that are kept to be sent again, for each stream; also how many
            may be on their way.
        init_timeout: Seconds that a handshake may take.
        wait_timeout: Seconds that a cut stream may take to come back.
        max_waiting: Streams that may be cut at a time; past that the one cut longest is lost.
        max_handshakes: Handshakes under way at a time; past that the oldest is dropped.
        dead_after: Seconds without a sign of life from the peer's host after which a connection
            is taken for broken, so that the stream is cut and can be resumed (plain TCP on
            Linux).

    Raises:
        ValueError: a number is out of bounds, or data cannot be encrypted here.
    """

    encrypt: bool = False
    buffer: int = 32 * 1024
    init_timeout: float = 10.0
    wait_timeout: float = 60.0
    max_waiting: int = 10_000
    max_handshakes: int = 1000
    dead_after: float = 20.0

    def __post_init__(self) -> None:
        if self.buffer < 1 or self.max_waiting < 1 or self.max_handshakes < 1:
            raise ValueError("buffer, max_waiting and max_handshakes are at least 1")
        if self.init_timeout <= 0 or self.wait_timeout <= 0 or self.dead_after <= 0:
            raise ValueError("init_timeout, wait_timeout and dead_after must be over 0 seconds")
        if self.encrypt:
            check_stream_cipher()

"""Every bound of the gateway's links, and the numbers that both lanes must know.

Rule: a number that the C core needs too is written here and handed to it; nothing here acts.

What one link can make the gateway hold, in bytes: `queue_bytes` for it, and past that one run
more (a read, or one packet); of a packet that is not whole yet `max_packet`; and one read that
waits to be handled, two in the Python lane; of a request for a WebSocket 8 KiB. What a sender may
have in the queue of a server that does not keep up is his share (`share_of`), and past it one
read.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastway.websocket import MAX_FRAME
from fastway.wire import MAX_PACKET, MIN_LENGTH

TURN_SECONDS = 0.004
"""Seconds that the native core reads and forwards before the reactor goes on with other work."""

EVENTS_TURN = 64
"""What the native core may ask the gateway in one turn: commands, ends, deadlines."""

OPENINGS_TURN = 1
"""And besides of links that do not talk yet: a hello of TLS costs 150 µs, and who is in is served
between two turns."""

COMMANDS_EACH = 16
"""Commands and strays of one link that are carried out in one turn."""

COMMANDS_TURN = 64
"""Commands and strays of all links that are carried out in one turn."""

CLOSES_TURN = 256
"""Ends of virtual connections of lost links that are told in one turn."""

ACCEPT_SECONDS = 0.00005
"""Seconds that a port accepts in one turn, mostly one connection: those who are in come first."""

ACCEPTS = 1
"""Connections that a port of the Python lane accepts in one turn: each costs some 100 µs, and what
those that came together say is heard in one turn too, a TLS handshake in 0.5 ms."""

SHARES = 1024 * 1024
"""Bytes that the senders to a blocked server together may have in its queue,"""

SHARE_LEAST = 4 * 1024
"""each at least so many,"""

SHARE_MOST = 64 * 1024
"""and at most so many."""

WRITE_PIECE = 256 * 1024
"""Bytes handed to a transport at once from a queue: several servers' reads of one turn."""

LINGER = 5.0
"""Seconds that a lost link gets to take what was already on its way to it."""

PATIENCE = 0.25
"""Seconds in which a client over its bounds must take something, over a transport that hands on
little at a time (snet)."""

UNSENT = 512 * 1024
"""Bytes that the kernel keeps for a link that holds its senders, beyond what is on its way."""

KEEP_FILES = 64
"""Descriptors kept back from clients, for servers and for the operator."""

MAX_HANDSHAKES = 1000
"""Connections of one port that may be at what comes before a link may talk."""


@dataclass(slots=True)
class PortConfig:
    """The bounds of the links of one port.

    Attributes:
        max_links: Connections at a time; further ones are closed at once. 0: no limit.
        max_packet: The largest legal length field, in bytes.
        read_size: Bytes taken from a socket in one read.
        idle_timeout: Seconds without a complete packet until a link is lost. 0: never.
        queue_packets: Packets that may wait for one link.
        queue_bytes: Bytes that may wait for one link.
        write_timeout: Seconds that a link with a full transport may take nothing. 0: for ever.
        max_handshakes: Links that may be at what comes before they talk; past that the oldest of
            them is dropped.
        packet_rate: Packets a second of one link; over it, it is held. 0: no limit.
        byte_rate: The same in bytes.
        dial_rate: Dials a second of one link; those over it are refused. 0: no limit.
    """

    max_links: int = 0
    max_packet: int = MAX_PACKET
    read_size: int = 2 * 1024
    idle_timeout: float = 30.0
    queue_packets: int = 1000
    queue_bytes: int = 4 * 1024 * 1024
    write_timeout: float = 30.0
    max_handshakes: int = MAX_HANDSHAKES
    packet_rate: float = 0.0
    byte_rate: int = 0
    dial_rate: float = 0.0

    @property
    def piece(self) -> int:
        """Bytes of a message that is made of a stream, at most."""
        return max(1, min(self.read_size, self.max_packet - MIN_LENGTH))

    @property
    def frame_limit(self) -> int:
        """Bytes that a WebSocket frame may announce: a packet fits, whatever `max_packet` is."""
        return max(MAX_FRAME, self.max_packet + 4)

    def below_half(self, packets: int, size: int) -> bool:
        """So little waits for a link that those whom it holds may go on."""
        return 2 * packets < self.queue_packets and 2 * size < self.queue_bytes


def server_port_config() -> PortConfig:
    """The defaults of the server port (spec sections 5 and 8)."""
    return PortConfig(
        read_size=64 * 1024,
        queue_packets=100_000,
        queue_bytes=64 * 1024 * 1024,
    )


def share_of(senders: int) -> int:
    """Bytes that one of so many senders may have in the queue of a blocked server."""
    return min(SHARE_MOST, max(SHARE_LEAST, SHARES // max(1, senders)))

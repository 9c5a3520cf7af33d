"""The wire state of one endpoint: what a client or a game server says to its gateway.

Rule: bytes and calls in, bytes and events out; no transport, no clock, and nothing of the gateway
but the formats of `wire` and `auth`. After an error it stays broken and says so.

The four verbs: `receive_data` takes what the gateway sent and returns events; `receive_eof` says
that nothing more comes; every request (`dial`, `send`, `close`, `ping`) returns the bytes to
write; `error` tells why the link must be lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from operator import index

from fastway.auth import CHALLENGE_SIZE, answer_challenge
from fastway.errors import (
    BadCommand,
    LocalError,
    MessageTooLarge,
    NotOpen,
    RemoteError,
    Truncated,
    Unexpected,
)
from fastway.wire import (
    CLOSE_SIZE,
    CONNECT_SIZE,
    HEAD,
    MAX_ID,
    MAX_PACKET,
    PING,
    CommandType,
    FrameReader,
    decode_command,
    encode_close,
    encode_dial,
    encode_packet,
    split_packets,
)

MAX_CONNS = 1 << 20
"""Virtual connections of one link that are open, or not yet said to be closed."""

MAX_DIALS = 1 << 16
"""Dials of one link that are not answered, given up or not."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A virtual connection is open.

    Attributes:
        dial: The dial that this answers; None when the other end dialled.
        extra: What followed the Connect's arguments, where that is asked for (`inline`).
    """

    conn_id: int
    remote_id: int
    dial: Dial | None
    extra: bytes = b""


@dataclass(frozen=True, slots=True)
class Refused:
    """The gateway refused a dial."""

    dial: Dial


@dataclass(frozen=True, slots=True)
class Message:
    """A message came over a virtual connection that is open."""

    conn_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """A virtual connection is closed, by the other end or because this one asked.

    Attributes:
        extra: What followed the Close's arguments, where that is asked for (`inline`).
    """

    conn_id: int
    extra: bytes = b""


@dataclass(frozen=True, slots=True)
class Pong:
    """The gateway answered a ping."""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A server answered the gateway's challenge; the gateway says nothing when it agrees."""


Event = Opened | Refused | Message | Closed | Pong | LoggedIn


class Dial:
    """A dial that is not answered yet. Compared by identity."""

    __slots__ = ("abandoned", "remote_id")

    def __init__(self, remote_id: int) -> None:
        self.remote_id = remote_id
        self.abandoned = False
        """Nobody waits for it any more: the connection is closed as soon as it is open."""


class ConnState(Enum):
    OPEN = "open"
    REOPENED = "reopened"  # its number was another's, whose end is in the same read: not told yet
    CLOSING = "closing"  # this end asked; what still comes is dropped until the gateway agrees


class EndpointCore:
    """One endpoint's side of the protocol.

    Args:
        max_packet: The largest legal length field, both ways, in bytes.
        server_id: A server's id; None for a client, which has no handshake.
        key: The server key; text is UTF-8.

    Attributes:
        error: Why the gateway cannot be understood any more, or None.
        conns: conn_id -> state of each virtual connection.
        inline: The control connection asked for what follows the arguments of Connect and Close;
            set it when that leaves. Until then these bytes are ignored.
    """

    def __init__(
        self, max_packet: int = MAX_PACKET, server_id: int | None = None, key: bytes | str = b""
    ) -> None:
        if server_id is not None:
            server_id = checked_server_id(server_id)
        self.max_message = max_packet - 4
        self.error: RemoteError | None = None
        self.conns: dict[int, ConnState] = {}
        self.inline = False
        self._reader = FrameReader(max_packet)
        self.server_id = server_id
        self._key = checked_key(key)
        self._challenge: bytes | None = None if server_id is None else b""
        self._dials: list[Dial] = []
        self._pings = 0
        self._highest = 0
        """The highest connection id seen; ids below may be of connections long closed."""
        self._out: list[bytes] = []
        self._closed_now: set[int] = set()
        """Ids that were closed in the read that is being handled."""

    @property
    def is_server(self) -> bool:
        return self.server_id is not None

    @property
    def logged_in(self) -> bool:
        """It may speak: a client at once, a server when it has answered the challenge."""
        return self._challenge is None

    @property
    def pinging(self) -> bool:
        """A ping is not answered yet."""
        return self._pings > 0

    @property
    def silent(self) -> bool:
        """The gateway has opened no virtual connection yet."""
        return self._highest == 0

    # What the gateway said.

    def receive_data(self, data: bytes) -> list[Event]:
        """Feed bytes from the gateway. Afterwards write `data_to_send` and look at `error`.

        Raises nothing; the events before an error are returned by the call that meets it.
        """
        events: list[Event] = []
        if self.error is not None:
            return events
        if self._challenge is not None:
            self._challenge += data
            if len(self._challenge) < CHALLENGE_SIZE:
                return events
            challenge, data = self._challenge[:CHALLENGE_SIZE], self._challenge[CHALLENGE_SIZE:]
            self._challenge = None
            assert self.server_id is not None
            self._out.append(answer_challenge(challenge, self._key, self.server_id))
            events.append(LoggedIn())
        conns = self.conns
        if self._closed_now:
            self._closed_now.clear()
        try:
            for conn_id, frames, count in self._reader.feed(data):
                if conn_id:
                    state = conns.get(conn_id)
                    if state is ConnState.OPEN or state is ConnState.REOPENED:
                        if count == 1:
                            events.append(Message(conn_id, frames[HEAD:]))
                        else:
                            for message in split_packets(frames):
                                events.append(Message(conn_id, message))
                    elif state is None:
                        self._stranger("a packet", conn_id)
                else:
                    self._command(frames, events)
        except RemoteError as error:
            self.error = error
        if self.error is None:
            self.error = self._reader.error
        return events

    def receive_eof(self) -> None:
        """Nothing more comes: an error if that cuts a packet or the challenge in two."""
        if self.error is None and (self._reader.pending or self._challenge):
            self.error = Truncated(self._reader.pending or len(self._challenge or b""))

    def data_to_send(self) -> bytes:
        """What must be written because of what was received."""
        out, self._out = b"".join(self._out), []
        return out

    def _command(self, frame: bytes, events: list[Event]) -> None:
        command = decode_command(frame)
        kind, conn_id, remote_id = command
        if kind is CommandType.ACCEPT:
            dial = self._answered("an Accept", remote_id)
            self._open(conn_id)
            if dial.abandoned:
                self.conns[conn_id] = ConnState.OPEN
                self._out.append(self.close(conn_id))
            else:
                events.append(Opened(conn_id, remote_id, dial))
        elif kind is CommandType.REFUSE:
            dial = self._answered("a Refuse", remote_id)
            if not dial.abandoned:
                events.append(Refused(dial))
        elif kind is CommandType.CONNECT:
            self._open(conn_id)
            extra = frame[CONNECT_SIZE:] if self.inline else b""
            events.append(Opened(conn_id, remote_id, None, extra))
        elif kind is CommandType.CLOSE:
            state = self.conns.pop(conn_id, None)
            if state is None:
                self._stranger("a Close", conn_id)
            else:
                self._closed_now.add(conn_id)
                events.append(Closed(conn_id, frame[CLOSE_SIZE:] if self.inline else b""))
        elif kind is CommandType.PING:
            if self._pings:
                self._pings -= 1
                events.append(Pong())
        else:
            raise BadCommand(kind, len(frame) - HEAD)

    def _open(self, conn_id: int) -> None:
        if len(self.conns) >= MAX_CONNS:
            raise Unexpected(f"more than {MAX_CONNS} virtual connections at once")
        if conn_id == 0 or conn_id in self.conns:
            raise Unexpected(f"virtual connection {conn_id} opened, which is open or reserved")
        namesake = conn_id in self._closed_now
        self.conns[conn_id] = ConnState.REOPENED if namesake else ConnState.OPEN
        # A counter that fell back has wrapped: from then on any id may be an old one.
        wrapped = conn_id < self._highest // 2
        self._highest = MAX_ID if wrapped else max(self._highest, conn_id)

    def _answered(self, what: str, remote_id: int) -> Dial:
        # In order; the remote id tells them apart should a gateway answer out of order.
        for position, dial in enumerate(self._dials):
            if dial.remote_id == remote_id:
                del self._dials[position]
                return dial
        raise Unexpected(f"{what} of {remote_id}, which was not dialled")

    def _stranger(self, what: str, conn_id: int) -> None:
        # A gateway may still speak of a connection that is closed here: packets crossed.
        if conn_id > self._highest:
            raise Unexpected(f"{what} for virtual connection {conn_id}, which never was here")

    @property
    def all_told(self) -> bool:
        """Each Closed has been handled (`told_closed`)."""
        return not self._closed_now

    def told_closed(self, conn_id: int) -> None:
        """A Closed is handled: what is sent from now on is its namesake's, if there is one."""
        self._closed_now.discard(conn_id)
        if self.conns.get(conn_id) is ConnState.REOPENED:
            self.conns[conn_id] = ConnState.OPEN

    # Requests: each returns the bytes to write.

    def dial(self, remote_id: int) -> tuple[Dial, bytes]:
        """Ask for a virtual connection to `remote_id`.

        Raises:
            ValueError: that is no id.
            TypeError: that is no number at all.
            LocalError: MAX_DIALS are not answered yet.
        """
        data = encode_dial(_checked_id(remote_id))
        if len(self._dials) >= MAX_DIALS:
            raise LocalError(f"{MAX_DIALS} dials are not answered yet")
        dial = Dial(remote_id)
        self._dials.append(dial)
        return dial, data

    def send(self, conn_id: int, message: bytes) -> bytes:
        """Send a message over an open virtual connection.

        Raises:
            NotOpen: it is not open.
            MessageTooLarge: the message does not fit a packet.
        """
        if self.conns.get(conn_id) is not ConnState.OPEN:
            raise NotOpen(conn_id)
        if len(message) > self.max_message:
            raise MessageTooLarge(len(message), self.max_message)
        return encode_packet(conn_id, message)

    def close(self, conn_id: int) -> bytes:
        """Close a virtual connection; a second time, nothing is to be written."""
        if self.conns.get(conn_id) is not ConnState.OPEN:
            return b""
        self.conns[conn_id] = ConnState.CLOSING
        return encode_close(conn_id)

    def ping(self) -> bytes:
        """Ask the gateway for a sign of life."""
        self._pings += 1
        return PING


def checked_server_id(number: int) -> int:
    """
    Raises:
        TypeError, ValueError: it is no server id.
    """
    return _checked_id(number, "a server id")


def checked_key(key: bytes | str) -> bytes:
    """
    Raises:
        TypeError: it is no server key.
    """
    if isinstance(key, str):
        return key.encode("utf-8")
    if not isinstance(key, (bytes, bytearray)):
        raise TypeError(f"the key is bytes or text, not {key!r}")
    return bytes(key)


def _checked_id(number: int, what: str = "an id") -> int:
    try:
        number = index(number)
    except TypeError:
        raise TypeError(f"{what} is a whole number, not {number!r}") from None
    if not 0 <= number <= MAX_ID:
        raise ValueError(f"{what} is 0 to {MAX_ID}, not {number}")
    return number

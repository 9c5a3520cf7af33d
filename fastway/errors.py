"""The error tree, and the reasons for which a link is lost.

Rule: what a caller did wrong here (`LocalError`) and what a peer sent (`RemoteError`) are
different classes; an error carries its values, not only a text.

    FastwayError
     +-- LocalError             the caller or the operator asked for nonsense
     |    +-- ConfigError       an option has a value that cannot be used
     |    +-- StartError        the gateway cannot start: a port, a file
     |    +-- CommandError      an operator's command cannot be carried out
     +-- RemoteError            the peer broke the protocol; its link must be lost
          +-- FrameTooLarge
          +-- FrameTooShort
          +-- BadCommand
          +-- AuthFailed
"""

from __future__ import annotations

from enum import Enum

__all__ = [
    "AuthFailed",
    "BadCommand",
    "CommandError",
    "ConfigError",
    "FastwayError",
    "FrameTooLarge",
    "FrameTooShort",
    "LocalError",
    "Reason",
    "RemoteError",
    "StartError",
]


class Reason(Enum):
    """Why a link was lost. The value is the sentence that an operator reads."""

    PEER_CLOSED = "closed by the peer"
    CONNECTION_LOST = "the connection broke"
    IDLE_TIMEOUT = "no complete packet within the idle timeout"
    HANDSHAKE_TIMEOUT = "no complete handshake in time"
    WRITE_TIMEOUT = "took nothing that waits for it within the write timeout"
    SLOW_READER = "more waits for it than its bounds allow"
    FRAME_TOO_LARGE = "announced a packet over the limit"
    FRAME_TOO_SHORT = "announced a packet too short to be one"
    BAD_COMMAND = "sent a command that an end must not send"
    NOT_OWNER = "wrote to a virtual connection of others"
    AUTH_FAILED = "did not prove the server key"
    ID_IN_USE = "its server id is in use"
    EVICTED = "a newer server took its id"
    KICKED = "kicked by the operator"
    SHUTDOWN = "the gateway stops"


class FastwayError(Exception):
    """The root of all errors of this package."""


class LocalError(FastwayError):
    """The caller asked for something that cannot be; nothing went over the wire."""


class ConfigError(LocalError):
    """An option cannot be used as given.

    Args:
        option: The option's name, as the operator wrote it or would write it.
        problem: What is wrong and how to mend it, one line.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option
        self.problem = problem


class StartError(LocalError):
    """The gateway cannot start. The text is one line for the operator."""


class CommandError(LocalError):
    """An operator's command cannot be carried out. The text is one line."""


class RemoteError(FastwayError):
    """The peer broke the protocol. `reason` is why its link must be lost."""

    reason = Reason.BAD_COMMAND


class FrameTooLarge(RemoteError):
    """A length field is over `limit` (bytes, as the field counts them)."""

    reason = Reason.FRAME_TOO_LARGE

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"length {length} is over {limit}")
        self.length = length
        self.limit = limit


class FrameTooShort(RemoteError):
    """A length field is below 4: it does not even cover the connection id."""

    reason = Reason.FRAME_TOO_SHORT

    def __init__(self, length: int) -> None:
        super().__init__(f"length {length} is below 4")
        self.length = length


class BadCommand(RemoteError):
    """A command without a type, with short arguments, or of a type that is not allowed."""

    def __init__(self, kind: int | None, size: int) -> None:
        what = "no type" if kind is None else f"type {kind}"
        super().__init__(f"command with {what} in {size} bytes")
        self.kind = kind
        self.size = size


class AuthFailed(RemoteError):
    """The proof in a server's handshake is wrong."""

    reason = Reason.AUTH_FAILED

    def __init__(self) -> None:
        super().__init__("wrong proof of the server key")

"""What a unary call of gRPC is, without a connection: statuses, frames, headers.

Rule: text and bytes in, text and bytes out. A call and its answer are one message each, in one
frame: a byte that says whether it is compressed, which nothing is here, four of its length, and
itself. An answer has its frame even when the message is empty. (spec nano.md 5.1)
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from urllib.parse import quote, unquote

from fastway.errors import RemoteError

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes of a message, as gRPC's peers have it."""

HEAD = 5
"""Bytes before the message."""

MAX_TEXT = 500
"""Characters of what a peer says why a call failed that are kept."""

CONTENT = b"application/grpc"


class Status(IntEnum):
    """How a call ended, in gRPC's numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class CallFailed(RemoteError):
    """A call came to nothing, or its callee says no.

    Attributes:
        status: In gRPC's numbers.
        text: Why, never empty; a peer's own words, where it has said them.
        heard: The peer itself said so; otherwise nobody knows whether it was done.
    """

    def __init__(self, status: int, text: str, heard: bool = False) -> None:
        name = _name(status)
        super().__init__(f"{text} ({name})" if text else name)
        self.status = status
        self.text = text or name
        self.heard = heard


def _name(status: int) -> str:
    try:
        return Status(status).name
    except ValueError:
        return f"status {status}"


def frame(message: bytes) -> bytes:
    """A message as it goes over the wire.

    Raises:
        ValueError: it is too large.
    """
    if len(message) > MAX_MESSAGE:
        raise ValueError(f"{len(message)} bytes; a message has {MAX_MESSAGE} at most")
    return b"\0" + len(message).to_bytes(4, "big") + message


def unframe(data: bytes) -> bytes:
    """The one message in what came.

    Raises:
        CallFailed: there is none, or more.
    """
    if len(data) < HEAD:
        raise CallFailed(Status.INTERNAL, "no whole message came")
    if data[0]:
        raise CallFailed(Status.UNIMPLEMENTED, "the message is compressed")
    if int.from_bytes(data[1:HEAD], "big") != len(data) - HEAD:
        raise CallFailed(Status.INTERNAL, "its frame is not what came")
    return data[HEAD:]


def failure_trailers(status: int, text: str) -> list[tuple[bytes, bytes]]:
    """What stands behind an answer that is none."""
    said = quote(text[:MAX_TEXT], safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    return [(b"grpc-status", b"%d" % status), (b"grpc-message", said.encode())]


def ended(headers: Iterable[tuple[bytes, bytes]]) -> CallFailed | None:
    """How a call ended, by what stood behind its answer; None: well."""
    status, text = None, ""
    for name, value in headers:
        if name == b"grpc-status":
            digits = value.decode("ascii", "replace")
            status = int(digits) if digits.isdecimal() and len(digits) < 10 else Status.UNKNOWN
        elif name == b"grpc-message":
            text = unquote(value.decode("utf-8", "replace"))[:MAX_TEXT]
    if status == Status.OK:
        return None
    if status is None:
        return CallFailed(Status.INTERNAL, "it ended without a status")
    return CallFailed(status, text, True)

"""How a connection to a gateway behaves, and what an application is told of it.

Rule: every queue has a bound in bytes and in messages, of one virtual connection and of all
together; a value that makes no sense is refused where it is given.

What unread messages can take: `receive_total` bytes and one message more, over all virtual
connections of one gateway, open or closed, whatever it sends; where it is paused, what comes with
the read that goes past it too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from operator import index
from typing import Any

from fastway.formats import Bytes, MessageFormat
from fastway.wire import MAX_PACKET

MAX_LENGTH = 0xFFFFFFFF
"""What a packet's length field can say."""

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class NetworkCut:
    """The connection to the gateway broke; snet tries to resume it. What is sent waits."""


@dataclass(frozen=True, slots=True)
class NetworkResumed:
    """The connection was resumed, and nothing is missing.

    Attributes:
        seconds: How long there was none.
        replayed: Bytes that were sent again.
    """

    seconds: float
    replayed: int


@dataclass(frozen=True, slots=True)
class NetworkLost:
    """The connection could not be resumed: it ends.

    Attributes:
        cause: Why.
    """

    cause: Exception


NetworkEvent = NetworkCut | NetworkResumed | NetworkLost


class Overflow(Enum):
    """What happens when a virtual connection's unread messages are over a bound."""

    CLOSE = "close"
    """That connection is closed, as the original does; nothing else notices."""
    PAUSE = "pause"
    """The gateway is not read from until half of them are read: nothing is lost, but every other
    virtual connection waits too. One that is not read at all for `pause_timeout` is closed."""


@dataclass(slots=True)
class EndpointConfig:
    """How a connection to a gateway behaves.

    Attributes:
        max_packet: The largest legal length field, in bytes, as the gateway's.
        message_format: What messages are to the application, where a connection has none of its
            own.
        receive_queue: Messages that may wait unread on one virtual connection.
        receive_buffer: Bytes of them; one message may always wait.
        stream_buffer: Bytes that may wait on one that is a byte stream and is paused.
        receive_total: Bytes that may wait unread on all of them. Past it what is left on closed
            ones is dropped (`receive` says so), then the one that holds most pays.
        overflow: What happens past these; a stream always pauses.
        pause_timeout: Seconds for which one that is not read at all may keep the others waiting.
        accept_queue: Virtual connections that may wait to be accepted; further ones are closed,
            unless one that waits has ended: that is dropped.
        send_buffer: Bytes that may be sent without waiting for `send` while the transport is full.
        ping_interval: Seconds between pings; 0: none. The gateway loses who says nothing for its
            idle timeout (30 s by default).
        ping_timeout: Seconds within which a ping must be answered.
        timeout_callback: Called with the gateway's connection when it was not; returns whether to
            go on. None: it ends with PingTimeout. Over snet a resume is tried first.
        network_callback: Called with the gateway's connection and what happened to its network,
            where that is one that can be resumed (snet).
        control: A game server asks the gateway for a control connection; one that has none says
            so, and all goes on without.
    """

    max_packet: int = MAX_PACKET
    message_format: MessageFormat[Any] = field(default_factory=Bytes)
    receive_queue: int = 1000
    receive_buffer: int = MIB
    stream_buffer: int = 256 * KIB
    receive_total: int = 64 * MIB
    overflow: Overflow = Overflow.CLOSE
    pause_timeout: float = 20.0
    accept_queue: int = 1000
    send_buffer: int = 16 * MIB
    ping_interval: float = 10.0
    ping_timeout: float = 10.0
    timeout_callback: Callable[[Any], bool] | None = None
    network_callback: Callable[[Any, NetworkEvent], object] | None = None
    control: bool = True

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            try:
                number = index(value)
            except TypeError:
                raise ValueError(f"{name} is a whole number, not {value!r}") from None
            if number < least:
                raise ValueError(f"{name} is at least {least}, not {number}")
        if self.max_packet > MAX_LENGTH:
            raise ValueError(f"max_packet is at most {MAX_LENGTH}, not {self.max_packet}")
        if isinstance(self.message_format, type):
            raise ValueError(
                f"message_format is a {self.message_format.__name__}(), not the class"
            )
        if not isinstance(self.overflow, Overflow):
            raise ValueError(f"overflow is an Overflow, not {self.overflow!r}")
        _check_seconds("ping_interval", self.ping_interval, 0, 1800)
        _check_seconds("pause_timeout", self.pause_timeout, 0.1, 86400)
        if self.ping_interval:
            _check_seconds("ping_timeout", self.ping_timeout, 0.001, 86400)


_LEAST = {
    "max_packet": 13,  # a command must fit
    "receive_queue": 1,
    "receive_buffer": 1,
    "stream_buffer": 1,
    "receive_total": 1,
    "accept_queue": 1,
    "send_buffer": 0,
}


def _check_seconds(name: str, value: float, least: float, most: float) -> None:
    if not isinstance(value, (int, float)) or math.isnan(value) or not least <= value <= most:
        raise ValueError(f"{name} is {least:g} to {most:g} seconds, not {value!r}")

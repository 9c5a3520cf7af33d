"""What an application may be told, and what it tells of itself: bounds, states, counts.

Rule: values only; who keeps to them is the App's and its links'.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum


class Users(Enum):
    """What becomes of a user's earlier session when another is bound to him."""

    KICK = "kick"
    REFUSE = "refuse"
    ALLOW = "allow"


class State(Enum):
    """Where an App is in its life."""

    NEW = "new"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection may cost; 0 is no bound.

    Attributes:
        handshake_timeout: Seconds from the connection to Ready, the application's part included.
        age: Seconds from there to the end of the connection, whatever goes on.
        requests: Of a session, unanswered; past that it is not read from.
        asked: Requests to a session, unanswered; past that `request` fails.
        waiting: Bytes that wait for a session; past that it is ended, as a slow reader.
        enough: Bytes that wait from which on `await session.send()` waits.
        messages: A second, of a session; past that it is not read from for a while.
        bytes: Likewise.
        sessions: Of one App.
        strand: Messages that wait for one strand.
        queued: Bytes of a session's messages that wait; past that it is not read from.
    """

    handshake_timeout: float = 10.0
    age: float = 0.0
    requests: int = 64
    asked: int = 1000
    waiting: int = 1024 * 1024
    enough: int = 64 * 1024
    messages: float = 0.0
    bytes: float = 0.0
    sessions: int = 0
    strand: int = 1000
    queued: int = 256 * 1024


@dataclass(slots=True)
class Counts:
    """What an App did; all only grow.

    Attributes:
        opened, closed: Sessions.
        messages, requests: That came; requests are messages too.
        sent: Packets to sessions.
        refused: Requests that were answered with a Refused.
        failed: Messages whose handler raised something else.
        unknown: Messages to routes without a handler.
        bad: Messages that did not decode.
        lost: Why connections were lost -> how many; those that closed in order are not here.
        came: The name of a dialect -> its sessions that were opened.
        here: And those that are open now.
        pending: Requests that are not answered.
    """

    opened: int = 0
    closed: int = 0
    messages: int = 0
    requests: int = 0
    sent: int = 0
    refused: int = 0
    failed: int = 0
    unknown: int = 0
    bad: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    came: Counter[str] = field(default_factory=Counter)
    here: Counter[str] = field(default_factory=Counter)
    pending: int = 0

"""What comes before a link may talk: small machines, one behind the other.

Rule: bytes in; then either more is wanted, or it failed, or it is done with the rest and with
what it learnt. No clock (the link has it) and no socket, so that any lane can carry it.

A port names its prefaces in the order in which their bytes come. Those that exist are a proxy's
header (`fastway.gateway.proxied`), TLS where its lane leaves it to us (`fastway.gateway.tls`), the
request for a WebSocket (`fastway.gateway.websocket`), and the server's key handshake (spec
section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from fastway.auth import HANDSHAKE_TIMEOUT, Handshake
from fastway.errors import Reason, RemoteError
from fastway.gateway.facts import Facts
from fastway.gateway.lane import Framing

TIMEOUT = HANDSHAKE_TIMEOUT
"""Seconds that all prefaces of a link together may take, but those with a time of their own."""

SECURE_TIMEOUT = 10.0
"""Seconds that a TLS handshake before them may take; it needs round trips and a slow phone's
arithmetic."""


@dataclass(frozen=True, slots=True)
class Done:
    """A preface is over.

    Attributes:
        rest: The bytes behind it.
        learnt: Attributes of `Facts` that are known now.
        answer: What is sent now.
        framing: How bytes look from now on, in both directions; None: as they did.
        secure: A TLS connection, by which bytes are sealed and opened from now on; the rest is not
            opened yet.
    """

    rest: bytes = b""
    learnt: Mapping[str, Any] = field(default_factory=dict)
    answer: bytes = b""
    framing: Framing | None = None
    secure: Any = None

    def told(self, facts: Facts) -> Facts:
        """The facts with what was learnt."""
        return replace(facts, **self.learnt)


class Preface(Protocol):
    """One machine. After `feed` returned Done, or raised, it is never called again.

    Attributes:
        seconds: How long it may take by itself; those behind it have their own time. None: it is
            one of those that together may take TIMEOUT.
    """

    @property
    def seconds(self) -> float | None: ...

    def begin(self) -> bytes:
        """What is sent before anything came."""

    def feed(self, data: bytes) -> Done | bytes:
        """Take bytes of the peer.

        Returns:
            Bytes to send while more is wanted (mostly none), or Done.

        Raises:
            RemoteError: the peer broke the rules; it is sent the error's `answer`, and the link
                must be lost.
        """

    def refuse(self, reason: Reason) -> bytes:
        """The link is lost before this is over: what the peer is told, if it can be."""

    def why(self, reason: Reason) -> Reason:
        """The same with what the log says: the preface may have a closer reason."""


PrefaceFactory = Callable[[], Preface]


class ToldRefused(RemoteError):
    """A proxy told whom a connection is from, and they may not come in.

    Args:
        reason: Why.
        answer: What they are told.
    """

    def __init__(self, reason: Reason, answer: bytes) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.answer = answer


class KeyHandshake:
    """A server proves that it holds the key, and brings its id."""

    __slots__ = ("_handshake",)

    seconds = None

    def __init__(self, key: bytes) -> None:
        self._handshake = Handshake(key)

    def begin(self) -> bytes:
        return self._handshake.challenge

    def feed(self, data: bytes) -> Done | bytes:
        done = self._handshake.feed(data)
        if done is None:
            return b""
        server_id, rest = done
        return Done(rest, {"server_id": server_id})

    def refuse(self, reason: Reason) -> bytes:
        return b""

    def why(self, reason: Reason) -> Reason:
        return reason


class Chain:
    """The prefaces of one link, one behind the other, as one preface.

    Args:
        facts: What is known of the link.
        prefaces: Made when their turn comes.
        told: Asked when a proxy has told whom it is from: why those may not come in, if so.

    Attributes:
        facts: What is known of the link by now.
        framing: How its bytes look behind the prefaces; None: they are packets.
        secure: A TLS connection that its lane has to take over before the chain goes on.
    """

    __slots__ = ("_current", "_told", "_waiting", "facts", "framing", "secure")

    def __init__(
        self,
        facts: Facts,
        prefaces: Sequence[PrefaceFactory],
        told: Callable[[Facts], Reason | None] = lambda _: None,
    ) -> None:
        self.facts = facts
        self.framing: Framing | None = None
        self.secure: Any = None
        self._told = told
        self._waiting = list(prefaces)
        self._current: Preface | None = None

    @property
    def over(self) -> bool:
        """None is under way, and none follows."""
        return self._current is None and not self._waiting

    def begin(self) -> bytes:
        """What is sent first; each preface begins when the one before it is over."""
        if not self._waiting:
            return b""
        self._current = self._waiting.pop(0)()
        return self._current.begin()

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take bytes.

        Returns:
            What is to be sent, and the bytes behind the last preface once all are over, or behind
            the one that made `secure`; then the lane brings them again.

        Raises:
            RemoteError: see `Preface.feed`; ToldRefused: they may not come in.
        """
        answers = []
        while self._current is not None:
            result = self._current.feed(data)
            if isinstance(result, bytes):
                answers.append(result)
                return b"".join(answers), None
            via = self.facts.via
            self.facts = result.told(self.facts)
            if self.facts.via != via:
                reason = self._told(self.facts)
                if reason is not None:
                    raise ToldRefused(reason, self._current.refuse(reason))
            self.framing = result.framing or self.framing
            data = result.rest
            self._current = None
            answers.append(result.answer)
            self.secure = result.secure
            if result.secure is not None:
                break  # what follows is said inside of it
            answers.append(self.begin())
        return b"".join(answers), data

    @property
    def timed(self) -> Preface | None:
        """The preface whose own time runs now; None: the time that the others share."""
        current = self._current
        return None if current is None or current.seconds is None else current

    @property
    def seconds(self) -> float:
        """How much time that is."""
        timed = self.timed
        return TIMEOUT if timed is None else cast(float, timed.seconds)

    def refuse(self, reason: Reason) -> bytes:
        """The link is lost now: what its peer is told."""
        return b"" if self._current is None else self._current.refuse(reason)

    def why(self, reason: Reason) -> Reason:
        """The link is lost now: the reason as the preface that is under way knows it."""
        return reason if self._current is None else self._current.why(reason)

"""What stands between a byte-stream transport and whoever produces for it.

Rule: a producer is told once that there is no room, and once that there is room again; one that is
to be asked is asked for a piece a turn. What it raises ends its transport, and nobody else's. The
transport says when there is room; this module knows neither bytes nor connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import Protocol as TypingProtocol

from twisted.internet.interfaces import IProducer, IReactorTime

from fastway.logs import make_logger

log = make_logger(__name__)


class Consumer(TypingProtocol):
    """A transport, as its membrane knows it."""

    def has_room(self) -> bool:
        """Whether what is written now would be handed on at once."""

    def producer_done(self) -> None:
        """Its producer was unregistered: if it only waits for that, it may close."""

    def failed(self, culprit: object) -> None:
        """What it runs has raised, and the exception is being handled: log it, and end."""


class Membrane:
    """The registered producer of one transport, push or pull, or none.

    A transport owns one for all its life. Its `registerProducer` and `unregisterProducer` are
    `register` and `unregister`; it calls `full` and `drained` whenever its room may have changed,
    as often as it likes, and `stop` when it is over.

    It stands in for what Twisted does in private (twisted.internet._producer_helpers), which asks
    pull producers by the global reactor.

    Args:
        owner: The transport. It is let go of by `stop`, so that the two are no cycle.
        clock: What the turns are of.
    """

    __slots__ = ("_clock", "_owner", "_paused", "_producer", "_pulling", "_streaming")

    def __init__(self, owner: Consumer, clock: IReactorTime) -> None:
        self._owner: Consumer | None = owner
        self._clock = clock
        self._producer: Any = None
        self._streaming = False
        self._paused = False
        self._pulling = False
        """It is to be asked in the next turn."""

    @property
    def producing(self) -> bool:
        """There is a producer."""
        return self._producer is not None

    # What the application calls through its transport.

    def register(self, producer: IProducer, streaming: bool) -> None:
        """Let a producer write from now on; after `stop` it is told to stop at once.

        Args:
            streaming: It writes by itself until it is paused (IPushProducer); otherwise it is
                asked (IPullProducer).

        Raises:
            RuntimeError: there is one.
        """
        if self._producer is not None:
            raise RuntimeError(f"{self._producer!r} is registered already")
        if self._owner is None:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._paused = False
        if not streaming:
            self._pull()
        elif not self._owner.has_room():
            self.full()

    def unregister(self) -> None:
        """The producer has written all it has."""
        self._producer = None
        if self._owner is not None:
            self._owner.producer_done()

    # What the transport calls.

    def full(self) -> None:
        """What is written from now on has to wait."""
        # Once only: a producer may count (twisted.web's do).
        if self._producer is not None and self._streaming and not self._paused:
            self._paused = True
            self._ask(self._producer.pauseProducing)

    def drained(self) -> None:
        """There is room, and nothing waits."""
        if self._producer is None:
            return
        if not self._streaming:
            self._pull()
        elif self._paused:
            self._paused = False
            self._ask(self._producer.resumeProducing)

    def stop(self) -> None:
        """The transport is over. A second time does nothing."""
        self._owner = None
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                producer.stopProducing()
            except Exception:
                log.failure("unhandled error in {culprit}", culprit=producer)

    # Inside.

    def _pull(self) -> None:
        if not self._pulling:
            self._pulling = True
            self._clock.callLater(0, self._pull_one)

    def _pull_one(self) -> None:
        self._pulling = False
        owner = self._owner
        if self._producer is None or self._streaming or owner is None or not owner.has_room():
            return
        self._ask(self._producer.resumeProducing)
        if self._producer is not None and not self._streaming:
            self._pull()

    def _ask(self, call: Callable[[], object]) -> None:
        producer = self._producer
        try:
            call()
        except Exception:
            if self._owner is not None:
                self._owner.failed(producer)
            else:
                log.failure("unhandled error in {culprit}", culprit=producer)

"""A protocol that keeps what came, and producers for its transport.

Rule: nothing here knows more than Twisted's interfaces; a `Tape` notes every broken promise.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.support.waits import SECONDS, reactor, until


class Tape(Protocol):
    """Keeps what came, and holds its transport to the promises about calls.

    Attributes:
        received: All bytes, in order.
        reads: Calls of dataReceived.
        losses: Why the connection was lost; one entry is right.
        faults: Broken promises.
        on_data: Called with each piece, within dataReceived.
        told: What it is told when its peer closes.
    """

    def __init__(self, told: type[Exception] = ConnectionDone) -> None:
        self.received = bytearray()
        self.reads = 0
        self.losses: list[Failure] = []
        self.faults: list[str] = []
        self.on_data: Callable[[bytes], object] | None = None
        self.told = told
        self._within = ""

    @property
    def wire(self) -> Any:
        return self.transport

    def is_connected(self) -> bool:
        return self.transport is not None

    def within(self, name: str, *args: object) -> None:
        """Call a method of the transport; nothing may come back before it returns."""
        self._within, before = name, self._within
        try:
            getattr(self.transport, name)(*args)
        finally:
            self._within = before

    def dataReceived(self, data: bytes) -> None:
        if self._within:
            self.faults.append(f"data within {self._within}")
        if self.losses:
            self.faults.append("data after the loss")
        self.received += data
        self.reads += 1
        self._within = "dataReceived"
        try:
            if self.on_data is not None:
                self.on_data(data)
        finally:
            self._within = ""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._within:
            self.faults.append(f"connectionLost within {self._within}")
        self.losses.append(reason)


@implementer(IPushProducer)
class Push:
    """Writes a piece a turn unless it is told to pause, then is done.

    Attributes:
        stopped: Calls of stopProducing.
        pauses: Calls of pauseProducing.
        doubled: Calls of pauseProducing while it was paused, and of resumeProducing while not.
    """

    def __init__(self, consumer: Any, pieces: list[bytes]) -> None:
        self.consumer = consumer
        self.pieces = pieces
        self.stopped = 0
        self.pauses = 0
        self._paused = False

    def start(self) -> None:
        self.consumer.registerProducer(self, True)
        self._turn()

    def finish(self) -> None:
        """There is nothing more."""
        self.consumer.unregisterProducer()

    def _turn(self) -> None:
        if self._paused or self.stopped:
            return
        if not self.pieces:
            self.finish()
            return
        self.consumer.write(self.pieces.pop(0))
        reactor.callLater(0, self._turn)

    def pauseProducing(self) -> None:
        self.pauses += 1
        self._paused = True

    def resumeProducing(self) -> None:
        if self._paused:
            self._paused = False
            reactor.callLater(0, self._turn)

    def stopProducing(self) -> None:
        self.stopped += 1


@implementer(IPullProducer)
class Pull:
    """Writes a piece whenever it is asked, and is done after the last."""

    def __init__(self, consumer: Any, pieces: list[bytes]) -> None:
        self.consumer = consumer
        self.pieces = pieces
        self.stopped = 0

    def is_done(self) -> bool:
        return not self.pieces

    def resumeProducing(self) -> None:
        if self.pieces:
            self.consumer.write(self.pieces.pop(0))
        else:
            self.consumer.unregisterProducer()

    def stopProducing(self) -> None:
        self.stopped += 1


def noise(size: int) -> bytes:
    """Bytes in which no piece is like another, the same in every run."""
    return random.Random(size).randbytes(size)


async def arrival(tape: Tape, data: bytes) -> None:
    """Exactly `data` comes."""
    await until(
        f"{len(data)} bytes", lambda: len(tape.received) >= len(data) or tape.losses, SECONDS
    )
    if bytes(tape.received) != data:
        raise AssertionError(f"{len(tape.received)} bytes came, other than the {len(data)} sent")


async def ends(*tapes: Tape) -> None:
    await until("connectionLost", lambda: all(tape.losses for tape in tapes), SECONDS)

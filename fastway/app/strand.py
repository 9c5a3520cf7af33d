"""What may run at the same time: nothing, in one strand.

    strand = Strand()
    room.strand = strand
    session.strand = strand  # its messages wait for those of all others in the room

Rule: jobs of a strand run one at a time, in order, their awaits included; at most `limit` wait,
and past that those who bring them are not heard until there is room. A job's fault is its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

LIMIT = 1000
"""Jobs that wait for one strand."""

Job: TypeAlias = Callable[[], "Coroutine[Any, Any, None] | None"]
"""Raises nothing, nor does its coroutine."""


class Feeder(Protocol):
    """Who brings jobs."""

    def strand_has_room(self) -> None:
        """It may go on. Called once for each job that found none."""


class Strand:
    """One thing at a time.

    Args:
        limit: Jobs that may wait; 0 is no bound.
        width: Jobs that may run at the same time; 1 keeps their order.

    Attributes:
        waiting: Jobs that wait now.
        running, queue: Jobs that run, and those that wait. A link begins and ends a job here by
            itself, as `run` does: calls for what is over at once are a tenth of a message.
    """

    __slots__ = ("_feeders", "limit", "queue", "running", "width")

    def __init__(self, limit: int = LIMIT, width: int = 1) -> None:
        self.limit = limit
        self.width = width
        self.running = 0
        self.queue: deque[Job] | None = None
        self._feeders: dict[Feeder, None] | None = None

    @property
    def waiting(self) -> int:
        return len(self.queue) if self.queue else 0

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self.running and not self.queue

    def has_room(self, feeder: Feeder) -> bool:
        """Whether one more job is taken; if not, that feeder is told when there is room."""
        if self.queue is None or not 0 < self.limit <= len(self.queue):
            return True
        if self._feeders is None:
            self._feeders = {}
        self._feeders[feeder] = None
        return False

    def forget(self, feeder: Feeder) -> None:
        """It brings nothing more, and is not told."""
        if self._feeders is not None:
            self._feeders.pop(feeder, None)

    def run(self, job: Job) -> None:
        """Run a job, now or when those before it are done."""
        if self.begins():
            self.goes_on(job())
            return
        if self.queue is None:
            self.queue = deque()
        self.queue.append(job)

    def run_alone(self, job: Job) -> None:
        """Run a job behind all that came before, and before all that comes, however wide."""
        if self.width == 1:
            self.run(job)
            return
        if self.queue is None:
            self.queue = deque()
        self.queue.append(_Alone(job))
        if not self.running and len(self.queue) == 1:
            self.running = 1
            self._done()

    def _done_alone(self) -> None:
        self.running = 1
        self._done()

    def begins(self) -> bool:
        """Whether a job may run now: it does, by whoever asks, who calls `goes_on` next."""
        if self.running >= self.width or self.queue:
            return False
        self.running += 1
        return True

    def goes_on(self, coroutine: Coroutine[Any, Any, None] | None) -> None:
        """What the job has given; None: it has ended."""
        if coroutine is None or drive(coroutine, self._done):
            self._done()

    def _done(self) -> None:
        """A job has ended."""
        self.running -= 1
        if self.queue:
            self.go_on()

    def go_on(self) -> None:
        """Begin those that wait, in a loop, for most end at once."""
        queue = self.queue
        if not queue:
            return
        while queue and self.running < self.width:
            alone = type(queue[0]) is _Alone
            if alone and self.running:
                break
            job = queue.popleft()
            if not queue:
                self.queue = None
            if alone:
                self.running = self.width
                coroutine = job()
                if coroutine is None or drive(coroutine, self._done_alone):
                    self.running = 0
            else:
                self.running += 1
                coroutine = job()
                if coroutine is None or drive(coroutine, self._done):
                    self.running -= 1
            queue = self.queue
        self._wake()

    def _wake(self) -> None:
        """Let feeders go on, in turn: who finds no room again is behind the others."""
        if not self._feeders or self.waiting > self.limit // 2:
            return
        for _ in range(len(self._feeders)):
            if not self._feeders or self.waiting >= self.limit:
                return
            feeder = next(iter(self._feeders))
            del self._feeders[feeder]
            feeder.strand_has_room()


class OwnStrand(Strand):
    """A session's own, which its App gave it: nobody else's messages wait here."""

    __slots__ = ()


class _Alone:
    """A job that waits, and that nothing may run beside."""

    __slots__ = ("_job",)

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self) -> Coroutine[Any, Any, None] | None:
        return self._job()


def drive(coroutine: Coroutine[Any, Any, Any], done: Callable[[], object]) -> bool:
    """Run a coroutine that raises nothing and awaits Deferreds.

    It runs in a context of its own, as a task does. Its first step costs a third of a
    microsecond here, and ten times that as a Deferred of its own; most handlers never wait.

    Returns:
        True: it has ended. False: it waits, and `done` is called when it ends.
    """
    context = copy_context()
    try:
        waits = context.run(coroutine.send, None)
    except StopIteration:
        return True
    _wait(waits, coroutine, done, context)
    return False


def _wait(
    waits: Any,
    coroutine: Coroutine[Any, Any, Any],
    done: Callable[[], object],
    context: Context,
) -> None:
    while not isinstance(waits, Deferred):
        wrong = TypeError(
            f"only Deferreds can be awaited here, not {type(waits).__name__}: see App(tasks=True)"
        )
        try:
            waits = context.run(coroutine.throw, wrong)
        except StopIteration:
            done()
            return
    waits.addBoth(_resume, coroutine, done, context)


def _resume(
    result: object,
    coroutine: Coroutine[Any, Any, Any],
    done: Callable[[], object],
    context: Context,
) -> None:
    try:
        if isinstance(result, Failure):
            waits = context.run(result.throwExceptionIntoGenerator, coroutine)
        else:  # the Deferred gives it to the coroutine itself
            waits = context.run(coroutine.send, None)
    except StopIteration:
        done()
    else:
        _wait(waits, coroutine, done, context)

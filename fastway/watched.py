"""Files that may change while the gateway runs: looked at now and then, read again on change.

Rule: to look costs a stat for each file; to read is done in steps, one in a turn of the reactor.
A change is read when two looks in a row saw the same: whoever renews files writes one after
the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fastway.errors import ConfigError

EVERY = 10.0
"""Seconds between two looks."""

Stamp = tuple[Any, ...]
"""What a file was when it was looked at; to be compared only."""


def stamp_of(path: str) -> Stamp:
    """When a file was written, how long it is, and which one it is; links are followed."""
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno,)
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_bounded(path: str, most: int, where: str) -> bytes:
    """The bytes of a regular file.

    Args:
        most: Bytes that it may have.
        where: The option that names it.

    Raises:
        ConfigError: it cannot be read, or is too long.
    """
    try:
        # Without waiting: it could be a pipe to which nobody writes.
        with open(
            path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
        ) as file:
            data = file.read(most + 1) or b""
    except OSError as error:
        raise ConfigError(
            where,
            f"cannot read {path}: {error.strerror}; give a file that this user may read",
        ) from None
    if len(data) > most:
        raise ConfigError(where, f"{path} has over {most} bytes")
    return data


class Readable(Protocol):
    """What is made of files."""

    def look(self) -> Stamp:
        """What the files are; it changes when one of them does. Never raises."""

    def reread(self) -> Iterator[None]:
        """Read what changed, in steps. Never raises: what cannot be used is a line in the log."""

    def age(self) -> None:
        """Time went by."""


class Watcher:
    """Looks after what is made of files, while it is started.

    Args:
        clock: The reactor, or a test's.
        watched: What it looks after.
    """

    def __init__(self, clock: IReactorTime, watched: Readable) -> None:
        self.watched = watched
        self._clock = clock
        self._seen: Stamp = ()
        self._new: Stamp | None = None
        """What the last look saw, if that was not read yet."""
        self._steps: Iterator[None] | None = None
        self._calls: list[IDelayedCall | None] = [None, None]

    def start(self) -> None:
        """Look now and then."""
        if self._calls[0] is None:
            self._calls[0] = self._clock.callLater(EVERY, self._look)
            self.watched.age()
            self.refresh()  # it was read a while ago

    def stop(self) -> None:
        """Look no more; what was half read is forgotten."""
        for call in self._calls:
            if call is not None:
                call.cancel()
        self._calls = [None, None]
        self._steps = None

    def refresh(self) -> None:
        """Read what changed, now: somebody asks for it."""
        self._new = None
        self._seen = self.watched.look()
        self._begin()

    def _look(self) -> None:
        self._calls[0] = self._clock.callLater(EVERY, self._look)
        now = self.watched.look()
        if now == self._seen:
            self._new = None
        elif now == self._new:
            self._new, self._seen = None, now
            self._begin()
        else:
            self._new = now
        self.watched.age()

    def _begin(self) -> None:
        """Read from the beginning, also what was half read."""
        self._steps = self.watched.reread()
        if self._calls[1] is None:
            self._step()

    def _step(self) -> None:
        self._calls[1] = None
        if self._steps is None:
            return
        try:
            next(self._steps)
        except StopIteration:
            self._steps = None
            self.watched.age()
        else:
            self._calls[1] = self._clock.callLater(0, self._step)

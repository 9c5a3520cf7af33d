"""Waiting for things on the real reactor.

Rule: a test waits for what must come, with a bound on how long that may take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

reactor = cast(Any, _reactor)

SECONDS = 60.0
"""Within which anything must happen; it takes milliseconds on an idle machine."""

TURNS = 20
"""Reactor turns after which what has not come does not come."""


def later(seconds: float = 0.001) -> Deferred[None]:
    """Let the reactor run for a while."""
    return deferLater(reactor, seconds, lambda: None)


async def until(what: str, condition: Callable[[], object], timeout: float = SECONDS) -> None:
    """Let the reactor run until `condition` holds.

    Raises:
        AssertionError: it did not hold within `timeout` seconds.
    """
    deadline = reactor.seconds() + timeout
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        await later()


async def turns(count: int = TURNS) -> None:
    for _ in range(count):
        await later(0)

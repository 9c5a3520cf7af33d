"""What a peer is asked, and waited for: answers by their keys, messages by their routes.

Rule: who waits is told once: the answer, that it is too late, or that the peer is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fastway.app.messages import decode
from fastway.dialect import Answer, Message, Refused
from fastway.errors import RequestTimeout


@dataclass(slots=True)
class _Ask:
    """What is not answered yet."""

    done: Deferred[Any]
    route: str
    into: Any
    timer: Any
    heard: list[tuple[str, str]] | None = None


class Asks:
    """Those of one link; as many as wait are its length.

    Args:
        clock: What goes by seconds.
        forgotten: Called with the key of each that is waited for no more.
    """

    __slots__ = ("_asks", "_clock", "_forgotten", "_last", "_nexts")

    def __init__(self, clock: Any, forgotten: Callable[[int], object]) -> None:
        self._clock = clock
        self._forgotten = forgotten
        self._asks: dict[int, _Ask] = {}
        self._nexts: dict[str, list[int]] = {}
        """Routes -> keys of who waits for them; all below 0."""
        self._last = 0

    def __len__(self) -> int:
        return len(self._asks)

    def ask(
        self,
        key: int,
        route: str,
        into: Any,
        timeout: float | None,
        heard: list[tuple[str, str]] | None = None,
    ) -> Deferred[Any]:
        """Wait for an answer.

        Args:
            key: The wire's, over 0.
            into: The type that it is to have; Any: as it comes.
            timeout: Seconds; None: without end.
            heard: Takes what comes beside the answer.
        """
        done: Deferred[Any] = Deferred(lambda _: self._give_up(key))
        timer = None
        if timeout is not None:
            timer = self._clock.callLater(timeout, self._too_late, key, timeout)
        self._asks[key] = _Ask(done, route, into, timer, heard)
        return done

    def wait_for(self, route: str, into: Any, timeout: float | None) -> Deferred[Any]:
        """Wait for a message of a route, behind who waits for it already."""
        self._last -= 1
        self._nexts.setdefault(route, []).append(self._last)
        return self.ask(self._last, route, into, timeout)

    def answers(self, event: Message) -> Answer | None:
        """What somebody waits for, as his answer; None: nobody does."""
        if not self._nexts:
            return None
        keys = self._nexts.get(event.route)
        if keys is not None:
            return Answer(keys[0], event.body, event.format)
        if event.refused is None:
            return None
        key = max(keys[0] for keys in self._nexts.values())
        return Answer(key, event.body, event.format, event.refused)

    def answered(self, event: Answer) -> None:
        """It has come; one that nobody waits for is none of our business."""
        ask = self._forget(event.key)
        if ask is None:
            return
        if ask.heard is not None:
            ask.heard += event.meta
        result: Any = event.refused
        if result is None:
            try:
                result = decode(event.body, event.format, ask.into)
            except Refused as error:
                result = error
            else:
                _settle(ask, result)
                return
        _settle(ask, Failure(result))

    def end(self, why: Callable[[], Exception]) -> None:
        """None will come; each who waits has a reason of his own, for a traceback grows."""
        asks, self._asks, self._nexts = self._asks, {}, {}
        for ask in asks.values():
            _settle(ask, Failure(why()))

    def _forget(self, key: int) -> _Ask | None:
        ask = self._asks.pop(key, None)
        if ask is None:
            return None
        if key < 0:
            keys = self._nexts[ask.route]
            keys.remove(key)
            if not keys:
                del self._nexts[ask.route]
        _rest(ask)
        self._forgotten(key)
        return ask

    def _give_up(self, key: int) -> None:
        self._forget(key)

    def _too_late(self, key: int, seconds: float) -> None:
        ask = self._forget(key)
        if ask is not None:
            _settle(ask, Failure(RequestTimeout(ask.route, seconds)))


def _rest(ask: _Ask) -> None:
    if ask.timer is not None and ask.timer.active():
        ask.timer.cancel()


def _settle(ask: _Ask, result: Any) -> None:
    _rest(ask)
    if not ask.done.called:
        ask.done.callback(result)

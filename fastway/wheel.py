"""One timer for very many deadlines that nearly always move before they are due.

Rule: an item is touched once when its slot comes up, never when its deadline moves. Its `check`
tells whether it is really due, or when to ask again; so a packet costs a link no timer work, only
the writing down of a time.

The wheel's time stands still while the process is kept from running (a stopped process or virtual
machine, a long turn): nobody is called idle for a time in which nobody was listened to.
"""

from __future__ import annotations

import time
from math import ceil
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fastway.logs import make_logger

log = make_logger(__name__)

TICK = 0.1
"""Seconds between slots: deadlines are kept to within one tick, never early."""

STALL = 1.0
"""A turn of the wheel that comes later than this many seconds makes its time stand still."""


def make_monotonic(reactor: Any) -> None:
    """Let a reactor's time be one that nobody sets.

    Twisted's reactors go by the wall clock (twisted.internet.base, 24.7 to 26.10): a step back of
    an hour would freeze all that is scheduled for as long. To be called before anything is
    scheduled, by whoever owns the process.
    """
    reactor.seconds = time.monotonic


SLICE = 0.002
"""Seconds of one turn of the wheel; who is not asked by then is asked in the next one."""

LOOKS = 16
"""Items that are asked between two looks at the clock."""


class Watched(Protocol):
    """What a wheel holds."""

    slot: int
    """The wheel's own note of where the item is; -1 when it is in no slot."""

    def check(self, now: float) -> float | None:
        """Act if something is due at `now` (seconds); return the next time to ask, or None."""


class _Slot(set[Watched]):
    """The items of one slot. They share its number; each would keep one of its own otherwise."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Wheel:
    """Deadlines of `Watched` items on one clock.

    Adding, moving and removing take constant time. Nothing is scheduled while it is empty.
    """

    def __init__(self, clock: IReactorTime, tick: float = TICK) -> None:
        self._clock = clock
        self._tick = tick
        self._slots: dict[int, _Slot] = {}
        self._reached = 0
        """The last slot whose items were asked."""
        self._stalled = 0.0
        self._expected = 0.0
        """When it turns next, on the clock,"""
        self._stalls = 0.0
        """and when it must have, lest its time stand still."""
        self._turning = False
        self._call: IDelayedCall | None = None

    def seconds(self) -> float:
        """Now, in the wheel's time."""
        now = self._clock.seconds()
        if now > self._stalls and self._call is not None:
            # Read after a stop, before the wheel has turned: its time has not gone on.
            now = self._expected - self._tick
        return now - self._stalled

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def watch(self, item: Watched, when: float) -> None:
        """Ask the item at `when` (in the wheel's time), or earlier if it is watched for that."""
        slot = ceil(when / self._tick)
        if item.slot >= 0:
            if item.slot <= slot:
                return
            self.forget(item)
        if self._call is None and not self._turning:
            self._reached = int(self.seconds() / self._tick)
            self._schedule()
        slot = max(slot, self._reached + 1)
        items = self._slots.get(slot)
        if items is None:
            items = self._slots[slot] = _Slot(slot)
        items.add(item)
        item.slot = items.number

    def forget(self, item: Watched) -> None:
        """The item is gone: never ask it again."""
        if item.slot >= 0:
            items = self._slots[item.slot]
            items.discard(item)
            if not items:
                del self._slots[item.slot]
            item.slot = -1

    def stop(self) -> None:
        """Forget everything."""
        for items in self._slots.values():
            for item in items:
                item.slot = -1
        self._slots.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self) -> None:
        # At the edge of the next slot, so that an item waits one tick too long at the most.
        now = self._clock.seconds()
        edge = (self._reached + 1) * self._tick + self._stalled
        delay = max(edge - now, self._tick / 64)
        self._expect(delay)

    def _expect(self, delay: float) -> None:
        self._expected = self._clock.seconds() + delay
        self._stalls = self._expected + STALL
        self._call = self._clock.callLater(delay, self._turn)

    def _turn(self) -> None:
        began = self._clock.seconds()
        self._call = None
        if began > self._stalls:
            # One tick less: what came meanwhile is read before anybody is called idle.
            self._stalled += began - self._expected + self._tick
        now = self.seconds()
        reached = int(now / self._tick)
        if reached - self._reached > len(self._slots):
            due = sorted(slot for slot in self._slots if slot <= reached)
        else:
            due = [slot for slot in range(self._reached + 1, reached + 1) if slot in self._slots]
        self._reached = max(reached, self._reached)
        self._turning = True
        asked = 0
        late = -1
        for slot in due:
            # Looked up anew each time: a check may forget any item, or stop the wheel.
            while late < 0 and (items := self._slots.get(slot)):
                asked += 1
                if asked % LOOKS == 0 and SLICE < self._clock.seconds() - began < STALL:
                    late = slot
                    break
                item = items.pop()
                if not items:
                    del self._slots[slot]
                item.slot = -1
                try:
                    again = item.check(now)
                except Exception:  # a bug, and no reason to stop everybody's time
                    log.failure("the check of {item!r} failed", item=item)
                    continue
                if again is not None:
                    self.watch(item, again)
        self._turning = False
        took = self._clock.seconds() - began
        if took > STALL:
            self._stalled += took
        if late >= 0 and self._slots:
            # Thousands are due at once: others are served in between.
            self._reached = late - 1
            self._expect(0)
        elif self._slots:
            self._schedule()

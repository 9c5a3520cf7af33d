"""One timer for very many deadlines that nearly always move before they are due.

Rule: an item is touched once when its slot comes up, never when its deadline moves. Its `check`
tells whether it is really due, or when to ask again; so a packet costs a link no timer work, only
the writing down of a time.

The wheel's time stands still while the process is kept from running (a stopped virtual machine, a
stepped clock, a long turn): nobody is called idle for a time in which nobody was listened to.
"""

from __future__ import annotations

from math import ceil
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fastway.logs import make_logger

log = make_logger(__name__)

TICK = 0.1
"""Seconds between slots: deadlines are kept to within one tick, never early."""

STALL = 1.0
"""A turn of the wheel that comes later than this many seconds makes its time stand still."""


class Watched(Protocol):
    """What a wheel holds."""

    slot: int
    """The wheel's own note of where the item is; -1 when it is in no slot."""

    def check(self, now: float) -> float | None:
        """Act if something is due at `now` (seconds); return the next time to ask, or None."""


class Wheel:
    """Deadlines of `Watched` items on one clock.

    Adding, moving and removing take constant time. Nothing is scheduled while it is empty.
    """

    def __init__(self, clock: IReactorTime, tick: float = TICK) -> None:
        self._clock = clock
        self._tick = tick
        self._slots: dict[int, set[Watched]] = {}
        self._reached = 0
        """The last slot whose items were asked."""
        self._stalled = 0.0
        self._expected = 0.0
        self._turning = False
        self._call: IDelayedCall | None = None

    def seconds(self) -> float:
        """Now, in the wheel's time."""
        return self._clock.seconds() - self._stalled

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
        item.slot = slot
        self._slots.setdefault(slot, set()).add(item)

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
        self._expected = now + delay
        self._call = self._clock.callLater(delay, self._turn)

    def _turn(self) -> None:
        began = self._clock.seconds()
        if began - self._expected > STALL:
            self._stalled += began - self._expected
        now = self.seconds()
        reached = int(now / self._tick)
        if reached - self._reached > len(self._slots):
            due = sorted(slot for slot in self._slots if slot <= reached)
        else:
            due = [slot for slot in range(self._reached + 1, reached + 1) if slot in self._slots]
        self._reached = max(reached, self._reached)
        self._call = None
        self._turning = True
        for slot in due:
            # Looked up anew each time: a check may forget any item, or stop the wheel.
            while items := self._slots.get(slot):
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
        if self._slots:
            self._schedule()

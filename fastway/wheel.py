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
        self._stalled = 0.0
        self._expected = 0.0
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
        if self._call is None:
            self._reached = int(self.seconds() / self._tick)
            self._schedule()
        slot = max(slot, self._reached + 1)
        item.slot = slot
        self._slots.setdefault(slot, set()).add(item)

    def forget(self, item: Watched) -> None:
        """The item is gone: never ask it again."""
        if item.slot >= 0:
            items = self._slots.get(item.slot)
            if items is not None:
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
        self._expected = self._clock.seconds() + self._tick
        self._call = self._clock.callLater(self._tick, self._turn)

    def _turn(self) -> None:
        late = self._clock.seconds() - self._expected
        if late > STALL:
            self._stalled += late
        now = self.seconds()
        reached = int(now / self._tick)
        if reached - self._reached > len(self._slots):
            due = sorted(slot for slot in self._slots if slot <= reached)
        else:
            due = [slot for slot in range(self._reached + 1, reached + 1) if slot in self._slots]
        self._reached = reached
        self._call = None
        for slot in due:
            for item in self._slots.pop(slot, ()):
                if item.slot != slot:
                    continue  # an earlier item's check removed it
                item.slot = -1
                again = item.check(now)
                if again is not None:
                    self.watch(item, again)
        if self._slots and self._call is None:
            self._schedule()

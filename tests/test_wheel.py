"""Tests of fastway.wheel: deadlines on a task.Clock that is turned in small steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.wheel import LOOKS, SLICE, STALL, TICK, Wheel
from tests.support.core import DETERMINISTIC

STEP = 1 / 64
"""Seconds by which the clock is turned: exact in binary, and far below a tick."""

EXACT_TICK = 1 / 8
"""A tick that is a whole number of steps, so that limits can be tested to the step."""


class Item:
    """A thing with a deadline that may move.

    Attributes:
        due: Its deadline, in the wheel's time; None when there is none.
        asked: When its check was called.
        fired: When a check found it due.
        then: What it does when it fires; the result is its check's.
    """

    def __init__(self, due: float | None, then: Callable[[], float | None] | None = None) -> None:
        self.slot = -1
        self.due = due
        self.asked: list[float] = []
        self.fired: list[float] = []
        self.then = then

    def check(self, now: float) -> float | None:
        self.asked.append(now)
        if self.due is None or now < self.due:
            return self.due
        self.fired.append(now)
        return None if self.then is None else self.then()


class WheelCase(SynchronousTestCase):
    tick = EXACT_TICK

    def setUp(self) -> None:
        self.clock = Clock()
        self.wheel = Wheel(self.clock, self.tick)

    def turn(self, seconds: float) -> None:
        """Let the time go on, as it does for a process that is never kept from running."""
        self.clock.pump([STEP] * round(seconds / STEP))

    def watch(self, due: float, then: Callable[[], float | None] | None = None) -> Item:
        item = Item(due, then)
        self.wheel.watch(item, due)
        return item


class DeadlineTests(WheelCase):
    def test_fires(self) -> None:
        """An item is asked when its deadline has passed, once, with the wheel's time."""
        item = self.watch(1.0)
        self.turn(1.0 - STEP)
        self.assertEqual(item.asked, [])
        self.turn(STEP)
        self.assertEqual(item.asked, [1.0])
        self.turn(2.0)
        self.assertEqual(item.fired, [1.0])
        self.assertEqual(item.slot, -1)

    def test_default_tick(self) -> None:
        """Without a tick given, deadlines are kept to within a tenth of a second."""
        wheel = Wheel(self.clock)
        self.assertEqual((TICK, STALL), (0.1, 1.0))
        item = Item(0.5)
        wheel.watch(item, 0.5)
        self.turn(1.0)
        (when,) = item.fired
        self.assertGreaterEqual(when, 0.5)
        self.assertLessEqual(when, 0.5 + TICK + STEP)

    def test_around_a_slot(self) -> None:
        """A deadline just before, on, and just after the edge of a slot is not fired early."""
        before, on, after = (self.watch(1.0 + offset) for offset in (-STEP, 0.0, STEP))
        self.turn(2.0)
        self.assertEqual(before.fired, [1.0])
        self.assertEqual(on.fired, [1.0])
        self.assertEqual(after.fired, [1.0 + EXACT_TICK])

    def test_passed_already(self) -> None:
        """A deadline that has passed is asked for at the next slot, never from within watch."""
        self.turn(5.0)
        items = [self.watch(due) for due in (0.0, 1.0, 5.0)]
        self.assertEqual([item.asked for item in items], [[], [], []])
        self.turn(EXACT_TICK)
        self.assertEqual([item.fired for item in items], [[5.0 + EXACT_TICK]] * 3)

    def test_many(self) -> None:
        """Each of many items is asked at its own time, whatever the order of watching."""
        items = [self.watch(number % 40 / 8 + 1) for number in range(0, 4000, 7)]
        self.assertEqual(len(self.wheel), len(items))
        self.turn(7.0)
        for item in items:
            self.assertEqual(item.fired, [item.due])
        self.assertEqual(len(self.wheel), 0)

    def test_time(self) -> None:
        """The wheel's time is the clock's while nothing stalls."""
        self.turn(3.0)
        self.watch(5.0)
        self.turn(1.0)
        self.assertEqual(self.wheel.seconds(), 4.0)

    @DETERMINISTIC
    @given(
        start=st.integers(0, 63),
        dues=st.lists(st.integers(0, 400), min_size=1, max_size=8),
        pauses=st.lists(st.integers(0, 20), min_size=8, max_size=8),
    )
    def test_never_early_and_a_tick_late(
        self, start: int, dues: list[int], pauses: list[int]
    ) -> None:
        """No deadline fires early, nor later than one tick after it, whenever it was watched."""
        clock = Clock()
        wheel = Wheel(clock, EXACT_TICK)
        clock.pump([STEP] * start)
        items = []
        for due, pause in zip(dues, pauses, strict=False):
            when = clock.seconds() + due * STEP
            item = Item(when)
            wheel.watch(item, when)
            items.append((item, when))
            clock.pump([STEP] * pause)
        clock.pump([STEP] * 420)
        for item, when in items:
            (asked,) = item.asked
            self.assertGreaterEqual(asked, when)
            self.assertLessEqual(asked, when + EXACT_TICK + STEP)

    @DETERMINISTIC
    @given(
        start=st.floats(0, 1e6, allow_subnormal=False),
        dues=st.lists(st.floats(0, 3, allow_subnormal=False), min_size=1, max_size=8),
    )
    def test_any_time(self, start: float, dues: list[float]) -> None:
        """The same holds for any times, and for a tick that no binary number equals."""
        clock = Clock()
        clock.advance(start)
        wheel = Wheel(clock)
        items = [(Item(None), start + due) for due in dues]
        for item, when in items:
            wheel.watch(item, when)
        clock.pump([0.01] * 330)
        for item, when in items:
            (asked,) = item.asked
            self.assertGreater(asked, when - 1e-6)  # a clock at 1e6 is no finer than that
            self.assertLess(asked, when + TICK + 0.01 + 1e-6)

    def test_turned_exactly(self) -> None:
        """A clock that never passes a scheduled time, rounding included, misses no deadline."""
        wheel = Wheel(self.clock)
        items = [Item(None) for _ in range(2000)]
        for number, item in enumerate(items):
            wheel.watch(item, number * TICK)
        turns = 0
        while calls := self.clock.getDelayedCalls():
            self.clock.advance(calls[0].getTime() - self.clock.seconds())
            turns += 1
        self.assertLess(turns, 2 * 2000)  # a second turn where rounding makes the first early
        for number, item in enumerate(items):
            (asked,) = item.asked
            self.assertGreater(asked, number * TICK - 1e-9)
            self.assertLess(asked, (number + 2) * TICK + 1e-9)


class MoveTests(WheelCase):
    def test_moved_later(self) -> None:
        """A deadline that moved later fires at its new time only."""
        item = self.watch(1.0)
        self.turn(0.5)
        item.due = 1.75
        self.turn(3.0)
        self.assertEqual(item.fired, [1.75])

    def test_moving_costs_nothing(self) -> None:
        """However often a deadline moves, the item is asked once for each time it was due."""
        item = self.watch(1.0)
        for _ in range(64 * 4):
            item.due = self.clock.seconds() + 1.0
            self.turn(STEP)
        self.assertLessEqual(len(item.asked), 5)
        self.assertEqual(item.fired, [])
        self.turn(1.0 + EXACT_TICK)
        self.assertEqual(len(item.fired), 1)

    def test_watch_later(self) -> None:
        """Watching for a later time than before keeps the earlier one."""
        item = self.watch(1.0)
        self.wheel.watch(item, 2.0)
        self.assertEqual(len(self.wheel), 1)
        self.turn(1.0)
        self.assertEqual(item.asked, [1.0])

    def test_watch_earlier(self) -> None:
        """Watching for an earlier time than before brings the item forward, once."""
        item = self.watch(2.0)
        item.due = 1.0
        self.wheel.watch(item, 1.0)
        self.assertEqual(len(self.wheel), 1)
        self.turn(4.0)
        self.assertEqual(item.asked, [1.0])

    def test_watch_again_for_the_same(self) -> None:
        """Watching twice for one time asks once."""
        item = self.watch(1.0)
        self.wheel.watch(item, 1.0)
        self.turn(2.0)
        self.assertEqual(item.asked, [1.0])


class ForgetTests(WheelCase):
    def test_forget(self) -> None:
        """A forgotten item is not asked again, and its neighbours are."""
        gone, neighbour = self.watch(1.0), self.watch(1.0)
        self.wheel.forget(gone)
        self.assertEqual((gone.slot, len(self.wheel)), (-1, 1))
        self.turn(2.0)
        self.assertEqual(gone.asked, [])
        self.assertEqual(neighbour.fired, [1.0])

    def test_forget_twice(self) -> None:
        """Forgetting what is not watched, or no more, changes nothing."""
        never, item = Item(1.0), self.watch(1.0)
        self.wheel.forget(never)
        self.wheel.forget(item)
        self.wheel.forget(item)
        self.assertEqual(len(self.wheel), 0)

    def test_watch_after_forget(self) -> None:
        """A forgotten item may be watched again, for a later time too."""
        item = self.watch(1.0)
        self.wheel.forget(item)
        item.due = 2.0
        self.wheel.watch(item, 2.0)
        self.turn(3.0)
        self.assertEqual(item.asked, [2.0])

    def test_from_a_check_in_the_same_slot(self) -> None:
        """An item that another's check forgets is not asked, though its slot is being served."""
        items: list[Item] = []

        def forget_the_others() -> None:
            for other in items:
                self.wheel.forget(other)

        items += [self.watch(1.0, forget_the_others) for _ in range(5)]
        self.turn(2.0)
        self.assertEqual(sum(len(item.asked) for item in items), 1)
        self.assertEqual(len(self.wheel), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_from_a_check_in_a_later_slot(self) -> None:
        """An item whose slot comes next in the same late turn can still be forgotten."""
        later = self.watch(1.25)
        self.watch(1.0, lambda: self.wheel.forget(later))
        self.turn(1.0 - STEP)
        self.clock.advance(0.5)
        self.turn(1.0)
        self.assertEqual(later.asked, [])

    def test_itself(self) -> None:
        """An item may forget itself in its check."""
        item = self.watch(1.0)
        item.then = lambda: self.wheel.forget(item)
        self.turn(2.0)
        self.assertEqual(item.fired, [1.0])
        self.assertEqual(len(self.wheel), 0)

    def test_moved_from_a_check_in_the_same_slot(self) -> None:
        """An item that another's check forgets and watches anew is asked at its new time only."""
        items: list[Item] = []

        def move_the_others() -> None:
            for other in items:
                if not other.fired:
                    self.wheel.forget(other)
                    other.due = 2.0
                    self.wheel.watch(other, 2.0)

        items += [self.watch(1.0, move_the_others) for _ in range(2)]
        self.turn(3.0)
        self.assertEqual(sorted(item.asked for item in items), [[1.0], [2.0]])


class CheckTests(WheelCase):
    def test_watch_again_by_result(self) -> None:
        """The time that a check returns is when it is asked next."""
        times = iter([2.0, 2.5, None])
        item = self.watch(1.0, lambda: next(times))
        self.turn(5.0)
        self.assertEqual(item.fired, [1.0, 2.0, 2.5])

    def test_again_at_once(self) -> None:
        """A check that asks for a time that has passed is asked at the next slot, not for ever."""
        item = self.watch(1.0, lambda: 0.0)
        self.turn(1.0 + 2 * EXACT_TICK)
        self.assertEqual(item.fired, [1.0, 1.0 + EXACT_TICK, 1.0 + 2 * EXACT_TICK])

    def test_watch_others(self) -> None:
        """A check may watch other items."""
        other = Item(1.5)
        self.watch(1.0, lambda: self.wheel.watch(other, 1.5))
        self.turn(3.0)
        self.assertEqual(other.fired, [1.5])

    def test_slow_check(self) -> None:
        """A check that takes longer than a tick costs no other item its turn."""

        def work() -> float:
            self.clock.rightNow += 3 * EXACT_TICK
            return 10.0

        self.watch(1.0, work)
        others = [self.watch(1.0 + number * EXACT_TICK) for number in range(1, 8)]
        self.turn(4.0)
        for item in others:
            with self.subTest(due=item.due):
                self.assertEqual(len(item.fired), 1)

    def test_raising_check(self) -> None:
        """A check that raises costs no other item its turn, in its slot or in a later one."""

        def fail() -> None:
            raise RuntimeError("a bug in a check")

        self.watch(1.0, fail)
        others = [self.watch(due) for due in (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 2.0)]
        for _ in range(round(3.0 / STEP)):
            with contextlib.suppress(RuntimeError):  # a reactor logs it and goes on
                self.turn(STEP)
        late = self.watch(4.0)
        self.turn(2.0)
        self.assertEqual([len(item.fired) for item in [*others, late]], [1] * 10)
        self.flushLoggedErrors(RuntimeError)

    def test_check_over_the_edge_of_a_slot(self) -> None:
        """A check during which the clock passes into the next slot does not skip that slot."""
        self.turn(EXACT_TICK - STEP)
        # From here on the wheel may turn off the edges of slots, where a check can cross one.

        def work() -> float:
            self.clock.rightNow += 2 * STEP
            return 10.0

        self.watch(1.0, work)
        following = self.watch(1.0 + EXACT_TICK)
        self.turn(4.0)
        self.assertEqual(len(following.fired), 1)

    def test_every_check_takes_long(self) -> None:
        """Items that are asked for ever, slowly, keep nobody from being asked."""

        def work() -> float:
            self.clock.rightNow += STEP
            return self.wheel.seconds() + EXACT_TICK

        busy = [self.watch(number * STEP, work) for number in range(7)]
        others = [self.watch(number * EXACT_TICK) for number in range(8, 40)]
        self.turn(10.0)
        self.assertEqual([len(item.fired) for item in others], [1] * 32)
        self.assertTrue(all(len(item.fired) > 10 for item in busy))


class EmptyTests(WheelCase):
    def test_nothing_scheduled(self) -> None:
        """A new wheel schedules nothing."""
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_call(self) -> None:
        """However many items are watched, one call is scheduled."""
        for number in range(100):
            self.watch(number / 10)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_after_the_last(self) -> None:
        """Nothing is scheduled once the last item has fired."""
        self.watch(1.0)
        self.turn(1.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_forgetting_the_last(self) -> None:
        """Nothing is scheduled a tick after the last item was forgotten."""
        item = self.watch(10.0)
        self.turn(0.5)
        self.wheel.forget(item)
        self.turn(EXACT_TICK)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_begin_anew(self) -> None:
        """After a long time in which it was empty the wheel keeps deadlines as before."""
        self.watch(1.0)
        self.turn(2.0)
        self.clock.advance(1000.0)
        self.assertEqual(self.wheel.seconds(), 1002.0)
        item = self.watch(1003.0)
        self.turn(2.0)
        self.assertEqual(item.fired, [1003.0])

    def test_stop(self) -> None:
        """Stopping forgets every item and leaves nothing scheduled."""
        items = [self.watch(1.0), self.watch(2.0)]
        self.wheel.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.wheel), 0)
        self.turn(3.0)
        self.assertEqual([(item.slot, item.asked) for item in items], [(-1, [])] * 2)

    def test_stop_while_empty(self) -> None:
        """Stopping an empty wheel, or twice, changes nothing."""
        self.wheel.stop()
        self.wheel.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_stop(self) -> None:
        """A stopped wheel can be used again, with the same items."""
        item = self.watch(1.0)
        self.wheel.stop()
        self.wheel.watch(item, 1.0)
        self.turn(1.0)
        self.assertEqual(item.fired, [1.0])

    def test_stop_from_a_check(self) -> None:
        """Stopping from within a check forgets the rest of that turn, too."""

        def stop_and_go_on() -> None:
            self.wheel.stop()

        items = [self.watch(1.0, stop_and_go_on) for _ in range(5)]
        later = [self.watch(1.25) for _ in range(2)]
        self.turn(1.0 - STEP)
        self.clock.advance(0.5)
        self.turn(1.0)
        self.assertEqual(sum(len(item.asked) for item in items), 1)
        self.assertEqual([item.slot for item in items + later], [-1] * 7)
        self.assertEqual([item.asked for item in later], [[], []])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SliceTests(WheelCase):
    """Thousands who are due at once."""

    def test_in_slices(self) -> None:
        """When their checks take long the reactor goes on in between; all are asked, in order."""
        order: list[int] = []
        seen: list[int] = []
        many = 10 * LOOKS

        def work(number: int) -> None:
            order.append(number)
            self.clock.rightNow += SLICE / LOOKS

        for number in range(many):
            self.watch(1.0 + number // many, partial(work, 0))
            self.watch(2.0, partial(work, 1))
        self.clock.callLater(1.0 + SLICE, lambda: seen.append(len(order)))
        self.turn(1.0 + 4 * STEP)
        self.assertEqual(order, [0] * many)
        self.assertLessEqual(seen[0], 3 * LOOKS)
        self.turn(1.0 + 4 * STEP)
        self.assertEqual(order, [0] * many + [1] * many)


class StallTests(WheelCase):
    def late_by(self, seconds: float) -> None:
        """The turn that is next comes late."""
        (call,) = self.clock.getDelayedCalls()
        self.clock.advance(call.getTime() - self.clock.seconds() + seconds)

    def test_time_stands_still(self) -> None:
        """The wheel's time stands still while the process is kept from running."""
        self.watch(100.0)
        self.turn(1.0)
        self.late_by(60.0)
        self.assertEqual(self.wheel.seconds(), 1.0)
        self.turn(1.0)
        self.assertEqual(self.wheel.seconds(), 2.0)

    def test_read_before_its_turn(self) -> None:
        """Who asks for the time after a stall, before the wheel has turned, is told no other."""
        self.watch(100.0)
        self.turn(1.0)
        (call,) = self.clock.getDelayedCalls()
        self.clock.rightNow = call.getTime() + 60.0
        self.assertEqual(self.wheel.seconds(), 1.0)
        self.clock.advance(0)
        self.assertEqual(self.wheel.seconds(), 1.0)

    def test_nobody_is_due(self) -> None:
        """A deadline that passed during a stall gets the time that it still had before it."""
        item = self.watch(3.0)
        self.turn(1.0)
        self.late_by(60.0)
        self.assertEqual(item.asked, [])
        self.turn(2.0 - STEP)
        self.assertEqual(item.asked, [])
        self.turn(STEP)
        self.assertEqual(item.fired, [3.0])

    def test_nobody_is_due_at_once(self) -> None:
        """Who was due in the tick of the stall gets one more: what came is read before."""
        item = self.watch(1.0 + EXACT_TICK)
        self.turn(1.0)
        self.late_by(60.0)
        self.assertEqual(item.fired, [])
        self.turn(EXACT_TICK)
        self.assertEqual(item.fired, [1.0 + EXACT_TICK])

    def test_twice(self) -> None:
        """Stalls add up."""
        item = self.watch(3.0)
        for _ in range(2):
            self.turn(0.5)
            self.late_by(10.0)
        self.assertEqual(self.wheel.seconds(), self.clock.seconds() - 20.0 - 2 * EXACT_TICK)
        self.assertEqual(item.asked, [])
        self.turn(2.0)
        self.assertEqual(item.fired, [3.0])

    def test_in_a_check(self) -> None:
        """The wheel's time stands still, too, when it is a check that keeps the process."""

        def work() -> float:
            self.clock.rightNow += 60.0
            return 100.0

        self.watch(1.0, work)
        item = self.watch(3.0)
        self.turn(2.0)
        self.assertEqual(item.asked, [])
        self.turn(1.0 + EXACT_TICK)
        self.assertEqual(len(item.fired), 1)

    def test_in_a_short_check(self) -> None:
        """A check that takes less than STALL is work, and the wheel's time goes on."""

        def work() -> None:
            self.clock.rightNow += STALL / 2

        self.watch(1.0, work)
        self.watch(100.0)
        self.turn(2.0)
        self.assertEqual(self.wheel.seconds(), self.clock.seconds())

    def test_around_the_limit(self) -> None:
        """A turn that is late by STALL is only late; one that is later is a stall."""
        for late, stands_still in (
            (STALL - STEP, 0.0),
            (STALL, 0.0),
            (STALL + STEP, STALL + STEP + EXACT_TICK),
        ):
            with self.subTest(late=late):
                self.setUp()
                self.watch(100.0)
                self.late_by(late)
                self.assertEqual(self.clock.seconds() - self.wheel.seconds(), stands_still)

    def test_late_turn_catches_up(self) -> None:
        """A turn that is only late asks everybody who is due by then, and nobody else."""
        dues = [number * EXACT_TICK for number in range(1, 17)]
        items = [self.watch(due) for due in dues]
        self.late_by(STALL)
        for due, item in zip(dues, items, strict=True):
            with self.subTest(due=due):
                now = EXACT_TICK + STALL
                self.assertEqual(item.fired, [now] if due <= now else [])
        self.turn(2.0)
        self.assertEqual([len(item.fired) for item in items], [1] * 16)

    def test_late_turn_catches_up_in_order(self) -> None:
        """A late turn over few items asks them by their slots' age, the slot of now included."""
        order: list[str] = []
        self.watch(EXACT_TICK + STALL, lambda: order.append("third"))
        self.watch(0.75, lambda: order.append("second"))
        self.watch(0.25, lambda: order.append("first"))
        self.watch(3.0)
        self.late_by(STALL)
        self.assertEqual(order, ["first", "second", "third"])

    def test_no_stall_while_empty(self) -> None:
        """Time in which nothing was watched is no stall, however long."""
        self.clock.advance(50.0)
        item = self.watch(51.0)
        self.assertEqual(self.wheel.seconds(), 50.0)
        self.turn(2.0)
        self.assertEqual(item.fired, [51.0])

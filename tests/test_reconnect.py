"""The one back-off of all that reconnects: numbers in, numbers out."""

from __future__ import annotations

import math
import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.reconnect import STEADY, Reconnect, growing
from tests.support.errors import raised


def count(failures: int) -> float:
    """A backoff whose delays tell what it was asked."""
    return float(failures)


class GrowingTests(SynchronousTestCase):
    def test_growth(self) -> None:
        """Without chance each failure makes the delay half as long again, up to half of most."""
        delay = growing(0.5, 30.0, random=lambda: 0.0)
        wanted = [0.5, 0.5, 0.75, 1.125, 1.6875]
        self.assertEqual([delay(failures) for failures in range(5)], wanted)
        self.assertEqual([delay(failures) for failures in (10, 20, 10**9)], [15.0] * 3)

    @given(
        first=st.floats(0.001, 100),
        more=st.floats(2, 1000),
        factor=st.floats(1, 10),
        failures=st.integers(0, 10**6),
        chance=st.floats(0, 1, exclude_max=True),
    )
    def test_bounds(
        self, first: float, more: float, factor: float, failures: int, chance: float
    ) -> None:
        """Whatever chance does, no delay is less than the first or more than the most."""
        delay = growing(first, first * more, factor, lambda: chance)(failures)
        self.assertLessEqual(first, delay)
        self.assertLessEqual(delay, first * more)

    def test_crowd(self) -> None:
        """A thousand peers that were lost in one instant are spread over the whole first delay,
        and over more with each attempt: no tenth of the time has more than its share and a
        half."""
        chance = random.Random(1)
        delays = [growing(0.5, 30.0, random=chance.random) for _ in range(1000)]
        times = [0.0] * 1000
        begin = 0.0
        for failures in range(5):
            step = 0.5 * 1.5 ** max(failures - 1, 0)
            times = [time + delay(failures) for time, delay in zip(times, delays, strict=True)]
            begin += step
            self.assertTrue(all(begin <= time <= 2 * begin for time in times))
            self.assertGreater(max(times) - min(times), 0.6 * begin)
        tenths = Counter(int((delay(0) - 0.5) / 0.05) for delay in delays)
        self.assertLess(max(tenths.values()), 150, tenths)
        self.assertEqual(len(tenths), 10)

    def test_nonsense(self) -> None:
        """Delays that cannot be are refused at once."""
        for first, most, factor in (
            (0, 1, 1.5),
            (-1, 1, 1.5),
            (1, 1.9, 1.5),
            (1, math.inf, 1.5),
            (1, math.nan, 1.5),
            (math.nan, 1, 1.5),
            (1, 2, 0.9),
            (1, 2, math.inf),
        ):
            raised(ValueError, growing, first, most, factor)


class ReconnectTests(SynchronousTestCase):
    def test_failures(self) -> None:
        """Each attempt without a connection is one more failure."""
        reconnect = Reconnect(count)
        self.assertEqual([reconnect.failed() for _ in range(4)], [1, 2, 3, 4])
        self.assertEqual(reconnect.failures, 4)

    def test_short_lived(self) -> None:
        """Who is let in and turned away at once waits ever longer: over an hour of it a peer
        connects some hundred times, not thousands."""
        reconnect = Reconnect(growing(0.5, 30.0, random=lambda: 0.5))
        now, connects = 0.0, 0
        pauses = []
        while now < 3600:
            connects += 1
            reconnect.began(now)
            now += 0.01
            pauses.append(reconnect.ended(now))
            now += pauses[-1]
        self.assertEqual(pauses, sorted(pauses))
        self.assertEqual([pauses[0], pauses[-1]], [0.75, 22.5])
        self.assertLess(connects, 200)
        self.assertEqual(reconnect.failures, connects)

    def test_connected_is_not_steady(self) -> None:
        """A connection as such makes up for nothing, whatever comes between."""
        reconnect = Reconnect(count, steady=5.0)
        pauses = []
        for _ in range(3):
            pauses.append(reconnect.failed())
            reconnect.began(100.0)
            pauses.append(reconnect.ended(104.9))
        self.assertEqual(pauses, [1, 2, 3, 4, 5, 6])

    def test_steady(self) -> None:
        """One that lasted makes up for all failures: the next attempt is as after none."""
        reconnect = Reconnect(lambda failures: 7.0 + failures)
        for _ in range(9):
            reconnect.failed()
        reconnect.began(50.0)
        self.assertEqual(reconnect.failures, 9)
        self.assertEqual(reconnect.ended(50.0 + STEADY), 7.0)
        self.assertEqual(reconnect.failures, 0)
        self.assertEqual(reconnect.failed(), 8.0)

    def test_at_once(self) -> None:
        """If it is said so, a steady one is followed by an attempt at once; a short one is not."""
        reconnect = Reconnect(lambda failures: 7.0 + failures, steady=1.0, at_once=True)
        reconnect.began(0.0)
        self.assertEqual(reconnect.ended(1.0), 0.0)
        reconnect.began(1.0)
        self.assertEqual(reconnect.ended(1.5), 8.0)

    def test_got_something(self) -> None:
        """A short one that was of use counts as steady."""
        reconnect = Reconnect(count, at_once=True)
        reconnect.failed()
        reconnect.began(0.0)
        self.assertEqual(reconnect.ended(0.0, got_something=True), 0.0)
        self.assertEqual(reconnect.failures, 0)

    def test_ended_without_a_beginning(self) -> None:
        """An end without a beginning, and a second end, are of nothing steady."""
        reconnect = Reconnect(count)
        self.assertEqual(reconnect.ended(1e9), 1)
        reconnect.began(0.0)
        self.assertEqual([reconnect.ended(1e9), reconnect.ended(2e9)], [0, 1])

    def test_wrong_backoff(self) -> None:
        """A function that gives no seconds is named, at once."""
        for pause in (-1.0, math.nan, math.inf):
            wrong = dict.fromkeys(range(9), pause).__getitem__
            error = raised(ValueError, Reconnect(wrong).failed)
            self.assertIn(str(pause), str(error))

"""Fair shares of a blocked lane's queue, alone."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.gateway.bounds import SHARE_LEAST, SHARE_MOST, SHARES, share_of
from fastway.gateway.lane import Shares
from tests.support.core import DETERMINISTIC


class Sender:
    """A lane that can be paused."""

    def __init__(self) -> None:
        self.counted_at: set[Any] | None = None
        self.holds = 0
        self.paused = False

    def pause(self) -> None:
        assert not self.paused
        self.paused = True

    def resume(self) -> None:
        assert self.paused
        self.paused = False


class Queue:
    """A blocked lane: what was queued and what was taken."""

    def __init__(self) -> None:
        self.shares = Shares(cast(Any, self))
        self.queued = self.taken = 0
        self.of: list[tuple[Sender, int]] = []

    def add(self, sender: Sender, size: int, full: bool = False) -> None:
        self.queued += size
        self.of.append((sender, size))
        self.shares.sent(cast(Any, sender), size, self.queued, self.taken, full)

    def take(self, size: int, half: bool = False) -> None:
        self.taken = min(self.queued, self.taken + size)
        self.shares.moved(self.taken, half)

    def waiting(self, sender: Sender) -> int:
        """Bytes of this sender that are not taken."""
        at = total = 0
        for who, size in self.of:
            at += size
            if who is sender:
                total += max(0, min(size, at - self.taken))
        return total


class SharesTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        """One sender may have SHARE_MOST, many together SHARES, each at least SHARE_LEAST."""
        self.assertEqual(share_of(0), SHARE_MOST)
        self.assertEqual(share_of(1), SHARE_MOST)
        self.assertEqual(share_of(SHARES // SHARE_MOST), SHARE_MOST)
        self.assertEqual(share_of(100), SHARES // 100)
        self.assertEqual(share_of(1_000_000), SHARE_LEAST)

    def test_a_flooder_is_held(self) -> None:
        """Who floods is held at about his share; who says little is not."""
        queue, flooder, quiet = Queue(), Sender(), Sender()
        while not flooder.paused:
            queue.add(flooder, 1000)
            queue.add(quiet, 10)
            self.assertLess(queue.waiting(flooder), SHARE_MOST + 1000)
        self.assertFalse(quiet.paused)
        self.assertEqual(flooder.counted_at, {queue})

    def test_let_go(self) -> None:
        """He goes on when his older bytes were taken, and has more on its way then."""
        queue, flooder = Queue(), Sender()
        for _ in range(10):
            while not flooder.paused:
                queue.add(flooder, 1000)
            until = queue.shares.next
            assert until is not None
            queue.take(until - queue.taken - 1)
            self.assertTrue(flooder.paused)
            queue.take(1)
            self.assertFalse(flooder.paused)
            self.assertGreater(queue.waiting(flooder), SHARE_MOST // 3)

    def test_full(self) -> None:
        """Over the whole bound whoever sends is held, until below half of it."""
        queue, quiet = Queue(), Sender()
        queue.add(Sender(), 500)
        queue.add(quiet, 10, full=True)
        self.assertTrue(quiet.paused)
        queue.take(100)
        self.assertTrue(quiet.paused)
        queue.take(0, half=True)
        self.assertFalse(quiet.paused)

    def test_two_lanes(self) -> None:
        """Who is held for two goes on when both let him go."""
        one, two, flooder = Queue(), Queue(), Sender()
        one.add(flooder, 10, full=True)
        two.add(flooder, 10, full=True)
        self.assertEqual(flooder.holds, 2)
        one.shares.clear()
        self.assertTrue(flooder.paused)
        two.shares.clear()
        self.assertFalse(flooder.paused)
        self.assertEqual(flooder.counted_at, set())

    def test_gone(self) -> None:
        """A sender that is gone is neither counted nor resumed."""
        queue, flooder = Queue(), Sender()
        queue.add(flooder, 10, full=True)
        queue.shares.forget(cast(Any, flooder))
        self.assertEqual((queue.shares.senders, flooder.holds), ({}, 0))
        queue.take(10, half=True)
        self.assertTrue(flooder.paused)

    @DETERMINISTIC
    @given(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(1, 20_000), st.integers(0, 30_000)),
            max_size=80,
        )
    )
    def test_anything(self, steps: list[tuple[int, int, int]]) -> None:
        """Nobody has more than his share and one read waiting, or waits for nothing."""
        queue = Queue()
        senders = [Sender() for _ in range(4)]
        for who, size, taken in steps:
            if not senders[who].paused:
                queue.add(senders[who], size)
            queue.take(taken)
            for sender in senders:
                self.assertLessEqual(queue.waiting(sender), SHARE_MOST + 2 * 20_000)
                self.assertEqual(sender.paused, sender.holds == 1)
        queue.take(queue.queued)
        self.assertFalse(any(sender.paused for sender in senders))

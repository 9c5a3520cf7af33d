"""What is watched on request: where the reactor spends long turns, and where threads are made.

Rule: nothing is watched until somebody asks, and then for a stated time: a gateway without links
must not wake, and nobody's function is replaced behind his back for good.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import Counter
from types import FrameType
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

MAX_STACKS = 256
"""Different stacks kept; further ones are only counted."""


class Watch(Protocol):
    """What can be switched on and off."""

    def start(self) -> None:
        """Begin; a second time it does nothing."""

    def stop(self) -> None:
        """End; what was found stays."""


class Timed:
    """A watch that ends by itself.

    Args:
        watch: What is switched on.
        seconds: How long it stays so.
    """

    def __init__(self, clock: IReactorTime, watch: Watch, seconds: float) -> None:
        self._clock = clock
        self._watch = watch
        self._seconds = seconds
        self._call: IDelayedCall | None = None

    def ask(self) -> str:
        """Watch from now on, or on; returns a sentence that says so."""
        if self._call is None:
            self._watch.start()
            self._call = self._clock.callLater(self._seconds, self._over)
            return f"watching for {self._seconds:.0f} s from now: ask again for what was found"
        self._call.reset(self._seconds)
        return f"watching for {self._seconds:.0f} s more"

    def stop(self) -> None:
        """End now."""
        if self._call is not None:
            self._call.cancel()
            self._over()

    def _over(self) -> None:
        self._call = None
        self._watch.stop()


class TurnWatch:
    """Finds where the reactor spends long turns.

    A thread asks the reactor for a sign of life every INTERVAL seconds. While the answer is
    overdue by LONG seconds it notes the stack of the reactor's thread, every INTERVAL, and counts
    equal stacks together.
    """

    INTERVAL = 0.05
    LONG = 0.1

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._stacks: Counter[str] = Counter()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self.long_turns = 0
        self.longest = 0.0
        self.dropped = 0

    def start(self) -> None:
        """Begin; call it in the reactor's thread."""
        if self._thread is not None:
            return
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._watch,
            args=(self._ended, threading.get_ident()),
            name="fastway-turns",
            daemon=True,
        )
        self._thread.start()

    @property
    def on(self) -> bool:
        """It watches."""
        return self._thread is not None

    def stop(self) -> None:
        """End; the thread goes within INTERVAL + LONG, and is not waited for."""
        self._ended.set()
        self._thread = None

    def report(self, rows: int) -> str:
        """What was found, the most frequent stacks first."""
        samples = sum(self._stacks.values())
        out = [
            f"turns longer than {self.LONG:g} s: {self.long_turns}, "
            f"the longest {self.longest:.3f} s\n"
            f"samples: {samples} (one every {self.INTERVAL:g} s), dropped: {self.dropped}\n"
        ]
        for stack, count in self._stacks.most_common(rows):
            out.append(f"\n{count * self.INTERVAL:.2f} s here:\n{stack}")
        return "".join(out)

    def _watch(self, ended: threading.Event, watched: int) -> None:
        while not ended.wait(self.INTERVAL):
            answered = threading.Event()
            asked = time.monotonic()
            self._reactor.callFromThread(answered.set)
            if answered.wait(self.LONG):
                continue
            while not ended.is_set() and not answered.is_set():
                frame = sys._current_frames().get(watched)
                if frame is not None:
                    self._note(frame)
                answered.wait(self.INTERVAL)
            if answered.is_set():
                self.long_turns += 1
                self.longest = max(self.longest, time.monotonic() - asked)

    def _note(self, frame: FrameType) -> None:
        stack = "".join(traceback.format_stack(frame))
        if stack in self._stacks or len(self._stacks) < MAX_STACKS:
            self._stacks[stack] += 1
        else:
            self.dropped += 1


class ThreadWatch:
    """Notes where threads are made: it stands in front of `threading.Thread.start`.

    However many watch at a time, there is one in front, which goes with the last of them; unless
    somebody else has put his own before it meanwhile: then it stays behind that, and does nothing.
    """

    def __init__(self) -> None:
        self.sites: Counter[str] = Counter()
        """Stack -> threads made there; MAX_STACKS different ones at most."""

    def start(self) -> None:
        """Begin; a second time it does nothing."""
        if self not in _FRONT.watching:
            _FRONT.watching.append(self)
            _FRONT.step_up()

    def stop(self) -> None:
        """End; what was found stays."""
        if self in _FRONT.watching:
            _FRONT.watching.remove(self)
            _FRONT.step_back()

    def report(self, rows: int) -> str:
        """Where threads were made, the most frequent places first."""
        out = [f"made while watched: {sum(self.sites.values())}\n"]
        for site, count in self.sites.most_common(rows):
            out.append(f"\n{count} made here:\n{site}")
        return "".join(out)

    def note(self, stack: str) -> None:
        if stack in self.sites or len(self.sites) < MAX_STACKS:
            self.sites[stack] += 1


class _Front:
    """What stands in front of `Thread.start` while anybody watches; one for the process."""

    def __init__(self) -> None:
        self.watching: list[ThreadWatch] = []
        self._ours: Any = None
        self._original: Any = None

    def step_up(self) -> None:
        if self._ours is not None:
            return
        original = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if self.watching:
                stack = "".join(traceback.format_stack(sys._getframe(1), 12))
                for watch in self.watching:
                    watch.note(stack)
            original(thread)

        self._ours, self._original = start, original
        threading.Thread.start = start  # type: ignore[assignment, method-assign]

    def step_back(self) -> None:
        if not self.watching and threading.Thread.start is self._ours:
            threading.Thread.start = self._original  # type: ignore[method-assign]
            self._ours = self._original = None


_FRONT = _Front()

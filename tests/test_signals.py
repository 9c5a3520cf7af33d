"""What signals do: caught, handed on, put back, and how often a stop is asked for."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from fastway.ops.signals import STOPS, Signals, shield


class StoppableReactor(MemoryReactorClock):
    """A reactor whose handlers are in place, as when it runs.

    Attributes:
        stops: Signals that it got.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stops: list[int] = []
        self.queue: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def stop_signal(self, number: int, frame: object) -> None:
        self.stops.append(number)

    def callFromThread(self, call: Callable[..., object], *args: Any) -> None:
        self.queue.append((call, args))

    def run(self) -> None:
        """It runs, and does what it was told to do."""
        for call, args, kwargs in self.whenRunningHooks:
            call(*args, **kwargs)
        self.whenRunningHooks.clear()
        while self.queue:
            call, args = self.queue.pop(0)
            call(*args)


class SignalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = StoppableReactor()
        self.hurried = 0
        self.signals = Signals(self.reactor, self.hurry)
        for number in (*STOPS, signal.SIGUSR1, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def hurry(self) -> None:
        self.hurried += 1

    def handlers(self) -> list[Any]:
        return [signal.getsignal(number) for number in (*STOPS, signal.SIGUSR1, signal.SIGHUP)]

    def kill(self, number: int) -> None:
        os.kill(os.getpid(), number)
        self.reactor.run()

    def reactor_handles(self) -> None:
        for number in STOPS:
            signal.signal(number, self.reactor.stop_signal)

    def test_actions(self) -> None:
        """A signal's action is run by the reactor, not by the handler."""
        before = self.handlers()
        done: list[int] = []
        self.signals.catch({signal.SIGUSR1: lambda: done.append(1)})
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual(done, [])
        self.reactor.run()
        self.assertEqual(done, [1])
        self.signals.release()
        self.assertEqual(self.handlers(), before)

    def test_many_are_one(self) -> None:
        """Signals that come before the reactor turns are one, and none is lost."""
        done: list[int] = []
        self.signals.catch(
            {signal.SIGUSR1: lambda: done.append(1), signal.SIGHUP: lambda: done.append(2)}
        )
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGHUP)
        self.reactor.run()
        self.assertEqual(sorted(done), [1, 2])
        self.kill(signal.SIGUSR1)
        self.assertEqual(sorted(done), [1, 1, 2])

    def test_full_waker(self) -> None:
        """When signals come faster than the reactor reads, Python has nothing to say about it."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer)
        self.addCleanup(signal.set_wakeup_fd, before)
        said: list[object] = []
        self.patch(sys, "unraisablehook", said.append)
        self.signals.catch({signal.SIGUSR1: int})
        self.reactor.run()
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(65536))
        self.kill(signal.SIGUSR1)
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
        self.assertEqual(said, [])

    def test_stops(self) -> None:
        """The first signal is the reactor's, the second hurries, any further one does nothing."""
        self.reactor_handles()
        self.signals.catch({})
        self.reactor.run()
        self.kill(signal.SIGTERM)
        self.assertEqual((self.reactor.stops, self.hurried), ([signal.SIGTERM], 0))
        self.kill(signal.SIGINT)
        self.assertEqual((self.reactor.stops, self.hurried), ([signal.SIGTERM], 1))
        for _ in range(5):
            self.kill(signal.SIGTERM)
        self.assertEqual((self.reactor.stops, self.hurried), ([signal.SIGTERM], 1))

    def test_drain(self) -> None:
        """A SIGTERM that drains is no stop; SIGINT never drains, and nothing does in a stop."""
        self.reactor_handles()
        drains = [True, False]
        signals = Signals(self.reactor, self.hurry, lambda: drains.pop(0))
        signals.catch({})
        self.reactor.run()
        self.kill(signal.SIGTERM)
        self.assertEqual((self.reactor.stops, self.hurried, drains), ([], 0, [False]))
        self.kill(signal.SIGTERM)
        self.assertEqual((self.reactor.stops, self.hurried, drains), ([signal.SIGTERM], 0, []))
        self.kill(signal.SIGTERM)
        self.assertEqual((self.reactor.stops, self.hurried), ([signal.SIGTERM], 1))
        signals.release()

    def test_interrupt_does_not_drain(self) -> None:
        """Ctrl-C stops, also in a drain."""
        self.reactor_handles()
        signals = Signals(self.reactor, self.hurry, lambda: True)
        signals.catch({})
        self.reactor.run()
        self.kill(signal.SIGTERM)
        self.kill(signal.SIGINT)
        self.assertEqual(self.reactor.stops, [signal.SIGINT])
        signals.release()

    def test_after_the_end(self) -> None:
        """After a stop that a signal asked for others are ignored: the reactor would fail."""
        self.reactor_handles()
        self.signals.catch({})
        self.reactor.run()
        self.kill(signal.SIGTERM)
        self.signals.release()
        for number in STOPS:
            self.kill(number)
        self.assertEqual(self.reactor.stops, [signal.SIGTERM])
        # The interpreter puts any other handler to the default when it ends, and that kills.
        self.assertEqual(self.handlers()[:2], [signal.SIG_IGN] * 2)

    def test_stop_of_the_program(self) -> None:
        """A stop without a signal puts the reactor's handlers back."""
        self.reactor_handles()
        before = self.handlers()
        self.signals.catch({})
        self.reactor.run()
        self.assertNotEqual(self.handlers(), before)
        self.signals.release()
        self.assertEqual(self.handlers(), before)

    def test_signal_during_a_stop_of_the_program(self) -> None:
        """The first signal hurries a stop that the program itself began."""
        self.reactor_handles()
        self.signals.catch({})
        self.reactor.run()
        self.signals.stopping = True
        self.kill(signal.SIGTERM)
        self.assertEqual((self.reactor.stops, self.hurried), ([], 1))

    def test_handlers_of_others(self) -> None:
        """Handlers that are not the reactor's stay: an embedding program has its own, or none."""
        for handler in (signal.SIG_IGN, signal.SIG_DFL, lambda *_: None):
            signal.signal(signal.SIGINT, handler)
            before = self.handlers()
            self.signals.catch({})
            self.reactor.run()
            self.assertEqual(self.handlers(), before)
            self.signals.release()

    def test_released_before_it_runs(self) -> None:
        """A gateway that was stopped before the reactor ran catches nothing afterwards."""
        self.reactor_handles()
        before = self.handlers()
        self.signals.catch({})
        self.signals.release()
        self.reactor.run()
        self.assertEqual(self.handlers(), before)

    def test_shield(self) -> None:
        """SIGUSR1 is ignored where it would kill; who has a handler keeps it."""
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        shield()
        self.assertIs(signal.getsignal(signal.SIGUSR1), signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, self.reactor.stop_signal)
        shield()
        self.assertEqual(signal.getsignal(signal.SIGUSR1), self.reactor.stop_signal)

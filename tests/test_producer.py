"""The membrane between a transport and its producer, on a clock."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from fastway.producer import Membrane
from tests.support.errors import raised
from tests.support.logs import LogLines


class Turns:
    """A clock that knows nothing but turns: what is scheduled in one is called in the next."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def callLater(self, delay: float, call: Callable[[], object]) -> None:
        assert delay == 0
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Owner:
    """A transport that has room when the test says so, and keeps what it is told."""

    def __init__(self) -> None:
        self.clock = Turns()
        self.room = True
        self.calls: list[object] = []
        self.membrane = Membrane(self, cast(Any, self.clock))

    def has_room(self) -> bool:
        return self.room

    def producer_done(self) -> None:
        self.calls.append("done")

    def failed(self, culprit: object) -> None:
        self.calls.append(culprit)
        self.membrane.stop()

    def turn(self) -> None:
        self.clock.turn()

    def fill(self) -> None:
        self.room = False
        self.membrane.full()

    def drain(self) -> None:
        self.room = True
        self.membrane.drained()


class Producer:
    """Keeps what it is told; a test may let it do more."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.also: dict[str, Callable[[], object]] = {}

    def _told(self, what: str) -> None:
        self.told.append(what)
        self.also.get(what, lambda: None)()

    def pauseProducing(self) -> None:
        self._told("pause")

    def resumeProducing(self) -> None:
        self._told("resume")

    def stopProducing(self) -> None:
        self._told("stop")


def fault() -> None:
    raise ZeroDivisionError("a fault of the producer")


class MembraneTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.owner = Owner()
        self.membrane = self.owner.membrane
        self.producer = Producer()

    def register(self, streaming: bool) -> Producer:
        producer = Producer()
        self.membrane.register(cast(Any, producer), streaming)
        return producer

    def idle(self) -> None:
        """Nobody is asked for anything."""
        self.owner.turn()
        self.assertEqual(self.owner.clock.calls, [])

    def test_push(self) -> None:
        """A push producer hears once that there is no room, and once that there is again,
        however often the transport says so."""
        producer = self.register(True)
        self.idle()
        self.owner.drain()
        self.assertEqual(producer.told, [])
        for _ in range(3):
            self.owner.fill()
            self.owner.fill()
            self.owner.drain()
            self.owner.drain()
        self.assertEqual(producer.told, ["pause", "resume"] * 3)
        self.idle()

    def test_push_without_room(self) -> None:
        """One that comes when there is no room is paused at once."""
        self.owner.room = False
        producer = self.register(True)
        self.assertEqual(producer.told, ["pause"])
        self.owner.drain()
        self.assertEqual(producer.told, ["pause", "resume"])

    def test_push_after_another(self) -> None:
        """The pause of one is none of the next one's."""
        self.register(True)
        self.owner.fill()
        self.membrane.unregister()
        self.owner.drain()
        second = self.register(True)
        self.owner.drain()
        self.assertEqual(second.told, [])

    def test_pull(self) -> None:
        """A pull producer is asked for a piece a turn while there is room, and never within a
        call."""
        producer = self.register(False)
        self.assertEqual(producer.told, [])
        for number in range(1, 4):
            self.owner.turn()
            self.assertEqual(producer.told, ["resume"] * number)
        self.owner.fill()
        for _ in range(3):
            self.owner.turn()
        self.assertEqual(producer.told, ["resume"] * 3)
        self.idle()
        self.owner.drain()
        self.owner.drain()
        self.assertEqual(len(producer.told), 3)
        self.owner.turn()
        self.assertEqual(len(producer.told), 4)

    def test_pull_that_fills(self) -> None:
        """One whose piece fills the transport is not asked again before there is room."""
        producer = self.register(False)
        producer.also["resume"] = self.owner.fill
        self.owner.turn()
        self.idle()
        self.assertEqual(producer.told, ["resume"])
        self.owner.drain()
        self.owner.turn()
        self.assertEqual(producer.told, ["resume"] * 2)

    def test_pull_until_done(self) -> None:
        """One that is done is asked no more, and the transport is told; the next one that comes
        in the same turn is asked once a turn, too."""
        producer = self.register(False)
        producer.also["resume"] = self.membrane.unregister
        self.owner.turn()
        self.assertEqual([producer.told, self.owner.calls], [["resume"], ["done"]])
        self.idle()
        third: list[Producer] = []

        def next_one() -> None:
            self.membrane.unregister()
            third.append(self.register(False))

        self.register(False).also["resume"] = next_one
        self.owner.turn()
        self.owner.turn()
        self.owner.turn()
        self.assertEqual(third[0].told, ["resume"] * 2)

    def test_pull_then_push(self) -> None:
        """A push producer that follows a pull producer is not asked."""
        self.register(False)
        self.membrane.unregister()
        push = self.register(True)
        self.idle()
        self.assertEqual(push.told, [])

    def test_one_at_a_time(self) -> None:
        """A second producer is refused, and the first one stays."""
        self.assertFalse(self.membrane.producing)
        first = self.register(True)
        raised(RuntimeError, self.register, True)
        raised(RuntimeError, self.register, False)
        self.assertTrue(self.membrane.producing)
        self.owner.fill()
        self.assertEqual(first.told, ["pause"])
        self.membrane.unregister()
        self.assertFalse(self.membrane.producing)
        self.register(False)

    def test_stop(self) -> None:
        """The end of the transport stops the producer, once; later ones are stopped at once."""
        for streaming in (True, False):
            owner = Owner()
            producer, late = Producer(), Producer()
            owner.membrane.register(cast(Any, producer), streaming)
            owner.membrane.stop()
            owner.membrane.stop()
            owner.turn()
            owner.drain()
            owner.fill()
            self.assertEqual(producer.told, ["stop"])
            owner.membrane.register(cast(Any, late), streaming)
            owner.turn()
            self.assertEqual([late.told, owner.membrane.producing], [["stop"], False])
            owner.membrane.unregister()
            self.assertEqual([owner.calls, owner.clock.calls], [[], []])

    def test_faults(self) -> None:
        """What a producer raises ends its transport, whatever it was asked for."""
        for what, streaming in (("pause", True), ("resume", True), ("resume", False)):
            owner, producer = Owner(), Producer()
            owner.membrane.register(cast(Any, producer), streaming)
            producer.also[what] = fault
            owner.fill()
            owner.drain()
            owner.turn()
            owner.turn()
            self.assertEqual(owner.calls, [producer])
            self.assertEqual([producer.told.count(what), producer.told[-1]], [1, "stop"])
            self.assertEqual(owner.clock.calls, [])

    def test_faults_at_the_end(self) -> None:
        """What it raises when it is stopped, or when what it did has ended the transport, is
        logged only."""
        producer = self.register(True)

        def end() -> None:
            self.membrane.stop()
            fault()

        producer.also["pause"] = end
        producer.also["stop"] = fault
        with LogLines() as log:
            self.owner.fill()
        self.assertEqual(len(log.events), 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual([producer.told, self.owner.calls], [["pause", "stop"], []])

    def test_released(self) -> None:
        """A transport that is over is held by nothing here, without a collection."""
        owner, producer = Owner(), Producer()
        owner.membrane.register(cast(Any, producer), True)
        owner.membrane.stop()
        held: list[Any] = [weakref.ref(owner), weakref.ref(producer)]
        del owner, producer
        self.assertEqual([ref() for ref in held], [None, None])

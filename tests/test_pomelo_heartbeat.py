"""Tests of the heartbeats of fastway.dialect.pomelo (spec nano.md 2.5)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fastway.dialect import (
    PeerSilent,
)
from fastway.dialect.pomelo_packets import (
    KICK,
    packet,
)
from tests.support.pomelo import (
    BEAT,
    SHAKE,
    Wire,
    client,
    data,
    raw,
    server,
)


class StarxClient:
    """The rules of the JavaScript client's heartbeats, in our words."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.send_at = self.check_at = self.lost_at = float("inf")
        self.sent: list[float] = []
        self.lost = False

    def heard(self, now: float) -> None:
        self.check_at = float("inf")
        if self.send_at == float("inf"):
            self.send_at = now + self.interval
        self.lost_at = now + 2 * self.interval

    def tick(self, now: float) -> bool:
        """Whether it sends."""
        if now >= self.check_at:
            self.lost = self.lost_at - now <= 0.1
            self.check_at = self.lost_at
        if now < self.send_at:
            return False
        self.send_at = float("inf")
        self.lost_at = self.check_at = now + 2 * self.interval
        self.sent.append(now)
        return True


class HeartbeatTests(SynchronousTestCase):
    """Spec nano.md 2.5."""

    def ticks(self, wire: Wire, until: float, start: float = 0.0) -> list[float]:
        """The times of heartbeats, where nothing comes."""
        beats = []
        while wire.deadline is not None and wire.deadline <= until:
            now = wire.deadline
            wire.tick(now)
            beats += [now - start for unit in wire.data_to_send() if unit == BEAT]
        return beats

    def test_idle_client(self) -> None:
        """It is told at H and 2 H, and ends at 3 H, whatever its state."""
        for interval in (0.1, 0.5, 1.0, 30.0):
            for begun in (0.0, 1234.5):
                waiting = raw(heartbeat=interval).server()
                waiting.begin(begun)
                ready = server(raw(heartbeat=interval), now=begun)
                for wire in (waiting, ready):
                    beats = self.ticks(wire, begun + 99 * interval, begun)
                    self.assertEqual(len(beats), 2)
                    self.assertAlmostEqual(beats[0], interval)
                    self.assertAlmostEqual(beats[1], 2 * interval)
                    assert isinstance(wire.error, PeerSilent)
                    self.assertAlmostEqual(wire.error.seconds, 3 * interval)
                    self.assertIsNone(wire.deadline)

    def test_two_intervals(self) -> None:
        """A client that beats every 2 H lives; one that takes 3 H does not."""
        for every, alive in ((1, True), (2, True), (3, False)):
            wire = server(raw(heartbeat=30))
            for tick in range(1, 41):
                wire.tick(tick * 30.0)
                if tick % every == 0:
                    wire.receive(BEAT, tick * 30.0)
            self.assertEqual(wire.error is None, alive)

    def test_just_before_and_behind(self) -> None:
        for silence, alive in ((74.9, True), (75.1, False)):
            wire = server(raw(heartbeat=30))
            wire.receive(BEAT, 90.0 - silence)
            for tick in (30.0, 60.0, 90.0):
                wire.tick(tick)
            self.assertEqual(wire.error is None, alive)

    def test_what_counts(self) -> None:
        """Any packet; not a part of one."""
        for said, alive in (
            (BEAT, True),
            (packet(KICK), True),
            (data("0001016178"), True),
            (b"\x03\x00\x00", False),
        ):
            wire = server(raw(heartbeat=30))
            for tick in (30.0, 60.0, 90.0):
                wire.tick(tick)
                if tick == 60.0:
                    wire.receive(said, 61.0)
            self.assertEqual(wire.error is None, alive, said)

    def test_not_while_it_is_decided(self) -> None:
        """Whoever waits to be let in is not read from, so it cannot give a sign."""
        wire = raw(heartbeat=1).server()
        wire.begin(0.0)
        wire.receive(SHAKE, 0.0)
        self.assertEqual(len(self.ticks(wire, 10.0)), 10)
        wire.accept()
        wire.receive(b"", 10.0)
        self.assertEqual(len(self.ticks(wire, 20.0)), 2)
        self.assertIsInstance(wire.error, PeerSilent)

    def test_late_tick(self) -> None:
        """Ticks that nobody made are left out; the next one is where it would be."""
        wire = server(raw(heartbeat=1))
        wire.tick(0.5)
        self.assertEqual(wire.data_to_send(), [])
        wire.receive(BEAT, 1.5)
        wire.tick(2.25)
        self.assertEqual(wire.data_to_send(), [BEAT])
        self.assertEqual(wire.deadline, 3.0)

    def test_none(self) -> None:
        wire = server(raw(heartbeat=0))
        self.assertIsNone(wire.deadline)
        wire.tick(1e9)
        self.assertEqual(wire.data_to_send(), [])
        self.assertIsNone(client(heartbeat=0).deadline)
        quiet = client()
        self.assertEqual(quiet.receive(BEAT, 1.0), [])
        self.assertIsNone(quiet.deadline)

    def test_client_answers(self) -> None:
        """An interval later, once for all that came meanwhile."""
        wire = client(heartbeat=1)
        wire.receive(BEAT, 0.25)
        wire.receive(BEAT, 0.75)
        self.assertEqual(wire.deadline, 1.25)
        wire.tick(1.0)
        self.assertEqual(wire.data_to_send(), [])
        wire.tick(1.25)
        self.assertEqual(wire.data_to_send(), [BEAT])
        self.assertEqual(wire.deadline, 3.25)

    def test_silent_server(self) -> None:
        """Two intervals behind the last packet, of whatever type."""
        wire = client(heartbeat=1)
        self.assertEqual(wire.deadline, 2.0)
        wire.receive(data("060161"), 1.5)
        self.assertEqual(wire.deadline, 2.0)
        wire.tick(2.0)
        self.assertIsNone(wire.error)
        self.assertEqual(wire.deadline, 3.5)
        wire.tick(3.5)
        assert isinstance(wire.error, PeerSilent)
        self.assertEqual(wire.error.seconds, 2.0)
        self.assertIsNone(wire.deadline)

    def test_both(self) -> None:
        """Our two ends keep each other for 20 intervals, and neither sends more than one each."""
        for interval in (0.1, 1.0, 30.0):
            near, far = server(raw(heartbeat=interval)), client(heartbeat=interval)
            beats: dict[str, int] = {"near": 0, "far": 0}
            while True:
                now = min(near.deadline or 1e9, far.deadline or 1e9)
                if now > 20.5 * interval:
                    break
                for name, wire, other in (("near", near, far), ("far", far, near)):
                    if wire.deadline is not None and wire.deadline <= now:
                        wire.tick(now)
                    for unit in wire.data_to_send():
                        beats[name] += 1
                        other.receive(unit, now)
                self.assertEqual((near.error, far.error), (None, None))
            self.assertEqual(beats["near"], 20)
            self.assertIn(beats["far"], range(9, 21))

    def test_with_starx(self) -> None:
        """The JavaScript client lives with our server, whatever its clock is behind."""
        for shift in (0.0, 0.3, 0.95):
            near, peer = server(raw(heartbeat=1)), StarxClient(1.0)
            for step in range(20 * 20):
                now = step / 20
                near.tick(now)
                for _ in near.data_to_send():
                    peer.heard(now + shift)
                if peer.tick(now):
                    near.receive(BEAT, now)
                self.assertIsNone(near.error)
                self.assertFalse(peer.lost)
            self.assertGreaterEqual(len(peer.sent), 9)

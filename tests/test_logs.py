"""Which lines are logged: the level, the throttle, and nothing in them that moves a cursor."""

from __future__ import annotations

from typing import cast

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from fastway import logs
from fastway.logs import OTHERS, Throttle, escaped, source_of
from tests.support.errors import raised
from tests.support.logs import LogLines


class LogTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(logs.threshold, "level", LogLevel.info)
        self.log = logs.make_logger("fastway.test")

    def watch(self) -> list[LogEvent]:
        """Every event of this module's loggers from now on, before any observer's choice."""
        events: list[LogEvent] = []

        def observer(event: LogEvent) -> None:
            if event.get("log_namespace") == "fastway.test":
                events.append(event)

        globalLogPublisher.addObserver(cast(ILogObserver, observer))
        self.addCleanup(globalLogPublisher.removeObserver, cast(ILogObserver, observer))
        return events


class ThresholdTests(LogTestCase):
    LEVELS = ("debug", "info", "warn", "error", "critical")

    def test_every_level(self) -> None:
        """At each level it and what is above is emitted, and what is below is not."""
        events = self.watch()
        for least, level in enumerate(self.LEVELS):
            logs.threshold.set(level)
            for name in self.LEVELS:
                getattr(self.log, name)(name)
            self.assertEqual([e["log_format"] for e in events], list(self.LEVELS[least:]))
            events.clear()

    def test_dropped_before_emission(self) -> None:
        """What is below the level reaches no observer at all."""
        events = self.watch()
        logs.threshold.set("warn")
        self.log.info("not seen")
        self.assertEqual(events, [])

    def test_unknown_level(self) -> None:
        """A level that is none changes nothing."""
        raised(ValueError, logs.threshold.set, "loud")
        self.assertIs(logs.threshold.level, LogLevel.info)

    def test_tells_info(self) -> None:
        """A logger says whether a line at info would be dropped."""
        for name in self.LEVELS:
            logs.threshold.set(name)
            self.assertEqual(self.log.tells_info, name in ("debug", "info"))


class EscapedTests(SynchronousTestCase):
    def test_controls(self) -> None:
        """What breaks a line, moves a cursor or turns the writing is spelt out."""
        for code in (*range(32), *range(127, 160), 0x61C, 0x200E, 0x200F, 0x2028, 0x2029):
            self.check(chr(code))
        for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xD800, 0xDFFF):
            self.check(chr(code))

    def check(self, character: str) -> None:
        text = escaped(f"a{character}b")
        self.assertTrue(text.isprintable(), hex(ord(character)))
        self.assertEqual(text.encode().decode("unicode_escape"), f"a{character}b")

    def test_the_rest(self) -> None:
        """What people write stays as it is."""
        for text in (
            "",
            "plain",
            "gr\u00fc\u00dfe \u4f60\u597d",
            "no\u00a0break \u200b\u200d \U0001f600 \\x1b",
        ):
            self.assertEqual(escaped(text), text)


class ThrottleTests(LogTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.quiet = Throttle(self.clock)
        self.events = self.watch()

    def hit(self, host: str = "192.0.2.1", kind: str = "client connected", times: int = 1) -> None:
        for number in range(times):
            self.quiet.info(self.log, kind, host, "{n} from {addr}", n=number, addr=f"{host}:9")

    def said(self) -> list[str]:
        """What was logged since the last call."""
        lines = [formatEvent(event) for event in self.events]
        self.events.clear()
        return lines

    def test_first_at_once(self) -> None:
        """The first of a kind and address is said at once, with its own fields."""
        self.hit()
        self.hit("192.0.2.2")
        self.hit(kind="client lost")
        self.assertEqual(
            self.said(), ["0 from 192.0.2.1:9", "0 from 192.0.2.2:9", "0 from 192.0.2.1:9"]
        )

    def test_sum(self) -> None:
        """Those that follow are one line for each ten seconds, kind and address."""
        self.hit(times=813)
        self.hit("192.0.2.2", times=3)
        self.assertEqual(len(self.said()), 2)
        self.clock.advance(9.9)
        self.assertEqual(self.said(), [])
        self.clock.advance(0.1)
        self.assertEqual(
            self.said(),
            [
                "client connected: 812 more from 192.0.2.1 in 10 s",
                "client connected: 2 more from 192.0.2.2 in 10 s",
            ],
        )
        self.hit(times=5)
        self.assertEqual(self.said(), [])
        self.clock.advance(10)
        self.assertEqual(self.said(), ["client connected: 5 more from 192.0.2.1 in 10 s"])

    def test_only_counted(self) -> None:
        """Who asks first makes no line that would not be said; it is counted all the same."""

        def hit() -> bool:
            counted = self.quiet.counts("client connected", "192.0.2.1")
            if not counted:
                self.hit()
            return counted

        self.assertEqual([hit(), hit(), hit()], [False, True, True])
        self.assertEqual(len(self.said()), 1)
        self.assertFalse(self.quiet.counts("client lost", "192.0.2.1"))
        self.clock.advance(10)
        self.assertEqual(self.said(), ["client connected: 2 more from 192.0.2.1 in 10 s"])
        self.clock.advance(30)
        self.assertFalse(hit())
        self.assertEqual(len(self.said()), 1)

    def test_quiet_again(self) -> None:
        """Who was quiet for a window is said at once the next time."""
        self.hit(times=2)
        self.clock.advance(10)
        self.said()
        self.clock.advance(9.9)
        self.hit()
        self.assertEqual(self.said(), [])
        self.clock.advance(0.2)
        self.assertEqual(self.said(), ["client connected: 1 more from 192.0.2.1 in 10 s"])
        self.clock.advance(10)
        self.hit()
        self.assertEqual(self.said(), ["0 from 192.0.2.1:9"])

    def test_timer_only_while_there_is_a_sum(self) -> None:
        """Nothing is scheduled for a line that was said, nor after its sum."""
        self.hit()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.hit()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(10)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_level(self) -> None:
        """What the level drops is neither said nor counted, and a sum has its line's level."""
        logs.threshold.set("warn")
        self.hit(times=5)
        self.quiet.warn(self.log, "turned away", "192.0.2.1", "away")
        self.quiet.warn(self.log, "turned away", "192.0.2.1", "away")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(10)
        self.assertEqual([event["log_level"] for event in self.events], [LogLevel.warn] * 2)
        self.assertEqual(self.said()[1], "turned away: 1 more from 192.0.2.1 in 10 s")
        logs.threshold.set("info")
        self.hit()
        self.assertEqual(self.said(), ["0 from 192.0.2.1:9"])

    def test_fields(self) -> None:
        """A sum has its parts as fields."""
        self.hit(times=3)
        self.clock.advance(10)
        event = self.events[-1]
        self.assertEqual(
            [event[name] for name in ("kind", "count", "addr", "seconds")],
            ["client connected", 2, "192.0.2.1", 10.0],
        )

    def test_many_addresses(self) -> None:
        """The table is bounded; those that it does not hold share one entry for each kind."""
        for number in range(Throttle.ADDRESSES + 500):
            self.hit(f"host{number}")
        self.assertEqual(len(self.said()), Throttle.ADDRESSES + 1)
        self.hit("one more", kind="client lost")
        self.assertEqual(len(self.said()), 1)
        self.assertEqual(len(self.quiet._heard), Throttle.ADDRESSES + 2)
        self.hit("host0")
        self.clock.advance(10)
        self.assertEqual(
            self.said(),
            [
                "client connected: 1 more from host0 in 10 s",
                f"client connected: 499 more from {OTHERS} in 10 s",
            ],
        )

    def test_room_again(self) -> None:
        """Who was quiet for a window makes room for others."""
        for number in range(Throttle.ADDRESSES):
            self.hit(f"old{number}")
        self.hit("new")
        self.clock.advance(10)
        self.said()
        self.hit("new")
        self.hit("newer")
        self.assertEqual(self.said(), ["0 from new:9", "0 from newer:9"])
        self.assertLess(len(self.quiet._heard), 5)

    def test_many_sums(self) -> None:
        """Very many sums do not come in one turn, and none is left out."""
        for number in range(300):
            self.hit(f"host{number}", times=2)
        self.said()
        most = 0
        self.clock.advance(10)
        total = len(self.said())
        for _ in range(300):
            self.clock.advance(0.01)
            sums = len(self.said())
            most = max(most, sums)
            total += sums
        self.assertEqual(total, 300)
        self.assertLessEqual(most, Throttle.LINES)

    def test_clock_steps(self) -> None:
        """A clock that goes back does not keep anybody quiet."""
        self.clock.advance(1000)
        self.hit()
        self.clock.rightNow = 10.0
        self.hit()
        self.assertEqual(len(self.said()), 2)

    def test_flush(self) -> None:
        """A stop says what was counted, and leaves no call to come."""
        self.hit(times=3)
        self.hit("192.0.2.2")
        self.clock.advance(4)
        self.said()
        self.quiet.flush()
        self.assertEqual(self.said(), ["client connected: 2 more from 192.0.2.1 in 4 s"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.quiet.flush()
        self.assertEqual(self.said(), [])

    def test_cheap(self) -> None:
        """A line that is only counted is not made: its values are not even looked at."""

        class Costly:
            def __format__(self, spec: str) -> str:
                raise AssertionError("it was formatted")

        self.hit()
        self.said()
        self.quiet.info(self.log, "client connected", "192.0.2.1", "{thing}", thing=Costly())
        self.assertEqual(self.said(), [])

    def test_sources(self) -> None:
        """An IPv6 network of the usual size is one stranger, an IPv4 address is one."""
        for host, source in (
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("?", "?"),
            ("unix:/tmp/x", "unix:/tmp/x"),
        ):
            self.assertEqual(source_of(host), source)


class AddressTests(SynchronousTestCase):
    """What of players' addresses stands in lines."""

    def setUp(self) -> None:
        self.patch(logs.addresses, "kept", "full")

    def test_shown(self) -> None:
        """An address, with or without a port, becomes its network, or nothing."""
        for name, prefix in (
            ("192.0.2.7:50312", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.0/24"),
            ("[2001:db8:1:2::3]:50312", "2001:db8:1::/48"),
            ("2001:db8:1:2::3", "2001:db8:1::/48"),
            ("2001:db8:1:2::/64", "2001:db8:1::/48"),
            ("fe80::1%eth0", "fe80::/48"),
            ("[::ffff:192.0.2.7]:1", "192.0.2.0/24"),
            ("::1", "::/48"),
            ("/run/fastway.sock", "/run/fastway.sock"),
            ("?", "?"),
            (OTHERS, OTHERS),
        ):
            for kept, shown in (("full", name), ("prefix", prefix), ("none", "-")):
                logs.addresses.kept = kept
                self.assertEqual(logs.addresses.shown(name), shown)

    def test_hidden(self) -> None:
        """Whatever has an address is a player's, but what says that it is a server's; nothing else
        of an event changes, and it is nobody's but the writer's that does."""
        logs.addresses.kept = "prefix"
        player = {"side": "client", "addr": "192.0.2.7:1", "via": "10.0.0.2:2", "id": 7}
        self.assertEqual(logs.addresses.hidden(player), {**player, "addr": "192.0.2.0/24"})
        self.assertEqual(player["addr"], "192.0.2.7:1")
        self.assertEqual(logs.addresses.hidden({"addr": "192.0.2.7"}), {"addr": "192.0.2.0/24"})
        server = {**player, "side": "server"}
        self.assertIs(logs.addresses.hidden(server), server)
        other = {"at": "127.0.0.1:9010"}
        self.assertIs(logs.addresses.hidden(other), other)
        # Twisted's line about one for whom it had no descriptor.
        for address in (("192.0.2.7", 38976), "192.0.2.7"):
            found = logs.addresses.hidden({"address": address})
            self.assertEqual(found, {"address": "192.0.2.0/24"})
        logs.addresses.kept = "full"
        self.assertIs(logs.addresses.hidden(player), player)

    def test_sums(self) -> None:
        """A sum of lines says whose they were, so that a server's address stays whole."""
        clock = Clock()
        quiet = Throttle(clock)
        log = logs.make_logger("fastway.test")
        with LogLines() as lines:
            for side in ("client", "server"):
                for _ in range(3):
                    quiet.info(
                        log, f"{side} lost", "192.0.2.7", "{side} {addr}", side=side, addr=""
                    )
            quiet.info(log, "failed", "192.0.2.7", "{addr}", addr="")
            quiet.info(log, "failed", "192.0.2.7", "{addr}", addr="")
            quiet.flush()
        logs.addresses.kept = "prefix"
        sums = [event for event in lines.events if "count" in event]
        self.assertEqual(
            [(event["side"], logs.addresses.hidden(event)["addr"]) for event in sums],
            [("client", "192.0.2.0/24"), ("server", "192.0.2.7"), (None, "192.0.2.0/24")],
        )

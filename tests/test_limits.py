"""The table of who may connect, alone; it has no clock and no socket."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import Reason
from fastway.gateway.limits import Bucket, Entry, LimitValues, Most, Ranges, Table
from fastway.networks import Networks
from fastway.networks import packed_address as packed_or_none
from tests.support.core import DETERMINISTIC

FULL, FAST = Reason.ADDRESS_CONNECTIONS, Reason.ADDRESS_RATE


def net(text: str) -> Any:
    return ipaddress.ip_network(text)


def packed_address(host: str) -> bytes:
    return packed_or_none(host) or b""


def table(**values: Any) -> Table:
    return Table(LimitValues(**values))


class AdmitTests(SynchronousTestCase):
    def come(self, table: Table, host: str, times: int = 1, now: float = 0.0) -> list[Any]:
        return [table.admit(packed_address(host), now) for _ in range(times)]

    def let_in(self, table: Table, host: str, times: int, now: float = 0.0) -> int:
        """How many of so many were let in."""
        return sum(not isinstance(one, Reason) for one in self.come(table, host, times, now))

    def test_nothing_is_limited(self) -> None:
        """Without values everybody comes in, and nobody is remembered."""
        all_in = table()
        self.assertEqual(self.let_in(all_in, "192.0.2.1", 1000), 1000)
        self.assertEqual((all_in.every.count, all_in.entries), (1000, {}))

    def test_connections(self) -> None:
        """In all, and then again when one is over."""
        few = table(connections=3)
        entries = self.come(few, "192.0.2.1", 3)
        self.assertEqual(self.come(few, "192.0.2.2"), [Reason.TOO_MANY_LINKS])
        few.leave(entries[0])
        self.assertEqual(self.let_in(few, "192.0.2.2", 2), 1)

    def test_address_connections(self) -> None:
        """Of one address; others do not notice."""
        few = table(address_connections=2)
        entries = self.come(few, "192.0.2.1", 2)
        self.assertEqual(self.come(few, "192.0.2.1", 2), [FULL, FULL])
        self.assertEqual(self.let_in(few, "192.0.2.2", 3), 2)
        few.leave(entries[1])
        self.assertEqual(self.let_in(few, "192.0.2.1", 3), 1)
        self.assertEqual(few.every.count, 4)

    def test_address_rate(self) -> None:
        """A burst, then so many a second, and a burst again after a rest."""
        slow = table(address_rate=2.0, address_burst=4)
        self.assertEqual(self.let_in(slow, "192.0.2.1", 9), 4)
        self.assertEqual(self.come(slow, "192.0.2.1", 1, 0.4), [FAST])
        self.assertEqual(self.let_in(slow, "192.0.2.1", 9, 0.5), 1)
        self.assertEqual(self.let_in(slow, "192.0.2.1", 9, 1.6), 2)
        self.assertEqual(self.let_in(slow, "192.0.2.1", 9, 100), 4)

    def test_rate_of_all(self) -> None:
        """It refuses nobody, and tells how long to wait: a second's worth may come at once."""
        slow = table(rate=10.0)
        came = 0
        while slow.wait(5.0) <= 0:
            self.come(slow, "192.0.2.1", 1, 5.0)
            came += 1
        self.assertEqual(came, 10)
        self.assertAlmostEqual(slow.wait(5.0), 0.1)
        self.assertLessEqual(slow.wait(5.1001), 0)

    def test_slow_rate_of_all(self) -> None:
        """Less than one a second lets one in at once."""
        slow = table(rate=0.5)
        self.assertLessEqual(slow.wait(5.0), 0)
        self.come(slow, "192.0.2.1", 1, 5.0)
        self.assertAlmostEqual(slow.wait(5.0), 2.0)
        self.assertLessEqual(slow.wait(7.0), 0)

    def test_ipv4_inside_of_ipv6(self) -> None:
        """It is the same address by either port."""
        few = table(address_connections=2)
        self.assertEqual(self.let_in(few, "::ffff:192.0.2.1", 1), 1)
        self.assertEqual(self.let_in(few, "192.0.2.1", 2), 1)

    def test_ipv6(self) -> None:
        """A /64 is one address; a /48 may have 8 times as much, whatever networks it has."""
        few = table(address_connections=2)
        self.assertEqual(self.let_in(few, "2001:db8:1:1::1", 3), 2)
        self.assertEqual(self.let_in(few, "2001:db8:1:1:ffff::2", 1), 0)
        for number in range(2, 20):
            self.let_in(few, f"2001:db8:1:{number:x}::1", 3)
        self.assertEqual(few.every.count, 16)
        self.assertEqual(self.come(few, "2001:db8:1:ffff::1"), [FULL])
        self.assertEqual(self.let_in(few, "2001:db8:2:1::1", 3), 2)
        self.assertEqual(len(few.entries), 8 + 1 + 2)

    def test_ipv6_rate(self) -> None:
        """The rate of a /48 is 8 times that of a /64, and who is refused by it leaves nothing."""
        slow = table(address_rate=1.0, address_burst=2)
        for number in range(100):
            self.let_in(slow, f"2001:db8:1:{number:x}::1", 1)
        self.assertEqual(slow.every.count, 16)
        self.assertEqual(len(slow.entries), 17)
        self.assertEqual(self.let_in(slow, "2001:db8:1:ff::1", 1, 0.125), 1)
        self.assertEqual(self.come(slow, "2001:db8:1:fe::1", 1, 0.125), [FAST])

    def test_ipv6_prefix(self) -> None:
        """It may be another; up to /48 there is nothing wider."""
        whole = table(address_connections=2, ipv6_prefix=128)
        self.assertEqual(self.let_in(whole, "2001:db8::1", 3), 2)
        self.assertEqual(self.let_in(whole, "2001:db8::2", 3), 2)
        site = table(address_connections=2, ipv6_prefix=48)
        self.assertEqual(self.let_in(site, "2001:db8:1:1::1", 1), 1)
        self.assertEqual(self.let_in(site, "2001:db8:1:2::1", 3), 1)
        self.assertEqual(len(site.entries), 1)

    def test_exempt(self) -> None:
        """Who is exempt is not counted, not even in all."""
        few = table(
            connections=1,
            address_connections=1,
            exempt=Networks((net("192.0.2.0/24"), net("2001:db8::/32"), "unix")),
        )
        for host in ("192.0.2.7", "::ffff:192.0.2.8", "2001:db8:5::1", ""):
            self.assertEqual(self.come(few, host, 3), [None] * 3, host)
        self.assertEqual(few.every.count, 0)
        few.leave(None)
        self.assertEqual(self.let_in(few, "192.0.3.1", 2), 1)

    def test_allow(self) -> None:
        """A network's addresses have values of their own, which may be none."""
        few = table(
            address_connections=1,
            allow=(
                (net("192.0.2.0/24"), 3, 0.0, 1),
                (net("192.0.2.64/26"), 5, 0.0, 1),
                (net("198.51.100.0/24"), 0, 0.0, 1),
            ),
        )
        self.assertEqual(self.let_in(few, "192.0.2.1", 9), 3)
        self.assertEqual(self.let_in(few, "192.0.2.65", 9), 5)
        self.assertEqual(self.let_in(few, "198.51.100.1", 99), 99)
        self.assertEqual(self.let_in(few, "203.0.113.1", 9), 1)

    def test_mapped(self) -> None:
        """Networks of IPv4 may be written as IPv6 has them."""
        few = table(
            address_connections=1,
            exempt=Networks((net("::ffff:10.0.0.0/104"),)),
            allow=((net("::ffff:192.0.2.0/120"), 3, 0.0, 1),),
        )
        self.assertEqual(self.let_in(few, "10.1.2.3", 99), 99)
        self.assertEqual(self.let_in(few, "192.0.2.1", 9), 3)
        self.assertEqual(self.let_in(few, "203.0.113.1", 9), 1)

    def test_allow_alone(self) -> None:
        """Values of a network hold also where all others have none."""
        few = table(allow=((net("192.0.2.0/24"), 0, 1.0, 2),))
        self.assertEqual(self.let_in(few, "192.0.2.1", 9), 2)
        self.assertEqual(self.let_in(few, "192.0.3.1", 9), 9)

    def test_no_address(self) -> None:
        """A unix socket has none: it counts in all only."""
        few = table(connections=5, address_connections=1)
        self.assertEqual(self.let_in(few, "", 9), 5)
        self.assertEqual(few.entries, {})

    def test_forgets(self) -> None:
        """Who has nothing open and a full bucket; nobody else."""
        slow = table(address_connections=5, address_rate=1.0, address_burst=2)
        (open_one,) = self.come(slow, "192.0.2.1")
        for entry in self.come(slow, "192.0.2.2", 2):
            slow.leave(entry)
        (site,) = self.come(slow, "2001:db8::1")
        for _ in range(3):
            slow.sweep(1.9)
        self.assertEqual(len(slow.entries), 4)
        slow.leave(site)
        for _ in range(3):
            slow.sweep(2.0)
        self.assertEqual(list(slow.entries), [packed_address("192.0.2.1")])
        slow.leave(open_one)
        slow.sweep(2.0)
        slow.sweep(2.0)
        self.assertEqual(slow.entries, {})
        self.assertEqual(slow.every.count, 0)

    def test_full_of_those_who_left(self) -> None:
        """A stranger finds room where somebody can be forgotten."""
        small = table(address_connections=1, table=10)
        for number in range(100):
            (entry,) = self.come(small, f"192.0.2.{number}", 1, float(number))
            small.leave(entry)
        self.assertEqual(small.overflowed, 0)
        self.assertLessEqual(len(small.entries), 10)

    def test_full_of_live_ones(self) -> None:
        """Strangers share one entry, with 8 times the values of one address."""
        small = table(address_connections=2, table=10)
        for number in range(10):
            self.assertEqual(self.let_in(small, f"192.0.2.{number}", 1), 1)
        others = [self.come(small, f"198.51.100.{number}")[0] for number in range(30)]
        self.assertEqual(others, [small.others] * 16 + [FULL] * 14)
        self.assertEqual((small.overflowed, len(small.entries)), (30, 10))
        self.assertEqual(self.let_in(small, "192.0.2.3", 2), 1, "he has his own")
        small.leave(others[0])
        self.assertEqual(self.let_in(small, "2001:db8::1", 2), 1)
        self.assertEqual(small.every.count, 10 + 1 + 16)

    def test_clock_that_is_set(self) -> None:
        """Back: nobody waits for longer than his bucket takes. Ahead: it is full, no more."""
        slow = table(rate=5.0, address_rate=1.0, address_burst=3)
        self.assertEqual(self.let_in(slow, "192.0.2.1", 9, 10_000.0), 3)
        self.assertEqual(self.let_in(slow, "192.0.2.1", 9, 5.0), 0)
        self.assertLessEqual(slow.wait(5.0), 2.0)
        self.assertEqual(self.let_in(slow, "192.0.2.1", 9, 8.0), 3)
        self.assertEqual(self.let_in(slow, "192.0.2.1", 9, 1e9), 3)

    def test_other_values(self) -> None:
        """Values that change hold at once, for those who are counted too."""
        some = table(address_connections=5)
        entries = self.come(some, "192.0.2.1", 5)
        some.values = LimitValues(address_connections=2)
        self.assertEqual(self.come(some, "192.0.2.1"), [FULL])
        for entry in entries[:4]:
            some.leave(entry)
        self.assertEqual(self.let_in(some, "192.0.2.1", 3), 1)
        some.values = LimitValues()
        self.assertEqual(self.let_in(some, "192.0.2.1", 3), 3)
        self.assertEqual(some.every.count, 5)


class RangesTests(SynchronousTestCase):
    @DETERMINISTIC
    @given(st.data())
    def test_smallest(self, data: st.DataObject) -> None:
        """An address is in the smallest of its networks, as `ipaddress` has it."""
        networks = st.one_of(
            st.builds(
                lambda number, bits: ipaddress.ip_network((number, bits), strict=False),
                st.integers(0, 2**16).map(lambda low: (10 << 24) + low),
                st.integers(8, 32),
            ),
            st.builds(
                lambda number, bits: ipaddress.ip_network((number, bits), strict=False),
                st.integers(0, 2**16).map(lambda low: (0x2001 << 112) + low),
                st.integers(96, 128),
            ),
        )
        given_networks: list[Any] = data.draw(st.lists(networks, unique=True, max_size=6))
        number = data.draw(st.integers(0, 2**16))
        rows = [(network, Most(index + 1)) for index, network in enumerate(given_networks)]
        ranges = Ranges(rows)
        for host in (
            ipaddress.ip_address((10 << 24) + number),
            ipaddress.ip_address((0x2001 << 112) + number),
        ):
            found = ranges.find(host.packed)
            inside = [row for row in rows if host in row[0]]
            wanted = max(inside, key=lambda row: row[0].prefixlen)[1] if inside else None
            self.assertIs(found, wanted)


class BucketTests(SynchronousTestCase):
    @DETERMINISTIC
    @given(
        st.floats(0.1, 1000),
        st.lists(st.tuples(st.floats(0, 3), st.integers(1, 50)), max_size=60),
    )
    def test_never_more(self, rate: float, steps: list[tuple[float, int]]) -> None:
        """Whoever waits as he is told takes, up to any time, no more than a second's worth, the
        rate since, and the last that he took; and he is not made to wait for longer."""
        bucket = Bucket()
        now = first = 100.0
        until = 0.0
        took = last = 0
        for pause, count in steps:
            now = max(now + pause, until)
            took += count
            last = count
            until = bucket.take(rate, count, now)
            before = took - last
            self.assertLessEqual(before, max(1.0, rate) + rate * (now - first) + 1e-6)
            self.assertLessEqual(until - now, max(1 / rate, (took + 1) / rate) + 1e-6)


class Connections(RuleBasedStateMachine):
    """A model of the table that keeps everything for ever."""

    CONNECTIONS, ADDRESS, RATE, BURST, TABLE = 30, 3, 2.0, 4, 12

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(
            LimitValues(
                connections=self.CONNECTIONS,
                address_connections=self.ADDRESS,
                address_rate=self.RATE,
                address_burst=self.BURST,
                table=self.TABLE,
                exempt=Networks((net("203.0.113.0/24"),)),
            )
        )
        self.now = 1000.0
        self.open: list[tuple[str, Entry | None]] = []
        self.times: dict[str, list[float]] = defaultdict(list)

    def names(self, host: str, entry: Entry | None) -> list[tuple[str, int]]:
        """In what it counts, and how many times what one address may that may have."""
        if entry is None:
            return []
        if entry is self.table.others:
            return [("others", 8)]
        if ":" in host:
            return [(host.rpartition("::")[0], 1), (":".join(host.split(":")[:3]), 8)]
        return [(host, 1)]

    @rule(
        host=st.one_of(
            st.integers(0, 15).map("192.0.2.{}".format),
            st.builds(
                "2001:db8:{:x}:{:x}::{:x}".format, *[st.integers(1, 4)] * 2, st.integers(1, 2)
            ),
            st.just("203.0.113.1"),
        ),
        times=st.integers(1, 5),
    )
    def come(self, host: str, times: int) -> None:
        for _ in range(times):
            counted = sum(entry is not None for _, entry in self.open)
            entry = self.table.admit(packed_address(host), self.now)
            if host.startswith("203."):
                assert entry is None
            elif counted >= self.CONNECTIONS:
                assert entry is Reason.TOO_MANY_LINKS
            if isinstance(entry, Reason):
                continue
            self.open.append((host, entry))
            for name, factor in self.names(host, entry):
                times_of = self.times[name]
                times_of.append(self.now)
                for index, time in enumerate(times_of):
                    most = factor * (self.BURST + (self.now - time) * self.RATE)
                    assert len(times_of) - index <= most + 1e-6, name

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 100))
    def leave(self, which: int) -> None:
        _, entry = self.open.pop(which % len(self.open))
        self.table.leave(entry)

    @rule(seconds=st.floats(0, 3))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(steps=st.integers(1, 8))
    def sweep(self, steps: int) -> None:
        self.table.sweep(self.now, steps)

    @invariant()
    def counts(self) -> None:
        """The counts are those of the open connections; nobody has more than he may."""
        found: dict[str, int] = defaultdict(int)
        for host, entry in self.open:
            for name, factor in self.names(host, entry):
                found[name] += 1
                assert found[name] <= factor * self.ADDRESS, name
        table = self.table
        assert len(table.entries) <= self.TABLE
        assert table.every.count == sum(entry is not None for _, entry in self.open)
        assert table.others.count == found["others"]
        live = {id(entry) for entry in table.entries.values()}
        for _, entry in self.open:
            while entry is not None and entry is not table.every and entry is not table.others:
                assert id(entry) in live and entry.count > 0  # nobody live is forgotten
                entry = entry.wide

    def teardown(self) -> None:
        for _, entry in self.open:
            self.table.leave(entry)
        assert self.table.every.count == self.table.others.count == 0
        for _ in range(4):
            self.table.sweep(self.now + 1000)
        assert not self.table.entries


class MachineTests(SynchronousTestCase):
    def test_connections(self) -> None:
        """Whatever comes and goes: never more than is allowed, and nobody live is forgotten."""
        run_state_machine_as_test(Connections, settings=DETERMINISTIC)

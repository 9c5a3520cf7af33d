"""Who may connect: how many connections and how often, in all and from each address.

Rule: one table, with no clock and no socket of its own; who asks says what time it is. It never
grows past its bound, and it never forgets an address that it would treat differently: a stranger
who finds no room shares one entry with all others like him, and is never without a limit.

    table = Table(LimitValues(address_connections=50, address_rate=10.0))
    entry = table.admit(packed_address("192.0.2.1"), now)  # or the Reason why not
    table.leave(entry)  # when the connection is over

A rate is kept by one number for each entry, the time at which its bucket is full again: who comes
at `now` takes 1/rate of a second, and no more than burst/rate seconds can be taken ahead. So in
any time `t` there are at most `burst + t * rate`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from fastway.config.values import Allowance
from fastway.errors import Reason
from fastway.networks import Network, Networks, unmapped

WIDE: Final = 48
"""Bits of an IPv6 address that one site has, with all its networks;"""

WIDER: Final = 8
"""it may have so many times what one of them may."""

SWEEP: Final = 256
"""Entries that are looked at in one slice."""

ROUNDING: Final = 1e-9
"""Seconds that sums of fractions may be wrong."""

ROOM: Final = 16
"""Entries that are looked at for a stranger when the table is full."""


@dataclass(frozen=True, slots=True)
class LimitValues:
    """What an operator allows; 0 is no limit.

    Attributes:
        connections: Client connections at a time, in all.
        rate: A second, in all.
        tls_rate: TLS handshakes a second, of each port.
        handshakes: Connections of a client port that may be at what comes before they talk.
        address_connections: At a time, of one address.
        address_rate: A second, of one address,
        address_burst: of which so many may come at once.
        ipv6_prefix: Bits of an IPv6 address that are one address.
        exempt: Networks that are not counted.
        allow: Networks whose addresses have values of their own.
        table: Addresses that are told apart, at least 2.
        dry_run: Count and log, and refuse nothing.
        client_packet_rate: Packets a second of one client,
        client_byte_rate: and bytes.
        client_dial_rate: Dials a second of one client.
    """

    connections: int = 0
    rate: float = 0.0
    tls_rate: float = 300.0
    handshakes: int = 1000
    address_connections: int = 0
    address_rate: float = 0.0
    address_burst: int = 40
    ipv6_prefix: int = 64
    exempt: Networks = Networks()
    allow: tuple[Allowance, ...] = ()
    table: int = 100_000
    dry_run: bool = False
    client_packet_rate: float = 0.0
    client_byte_rate: int = 0
    client_dial_rate: float = 0.0


class Most:
    """What one entry may.

    Attributes:
        connections: At a time.
        each: Seconds of its bucket that a connection takes,
        slack: seconds that it may be behind for one to be let in,
        full: and never more than that.
        wide: What a site of such addresses may.
    """

    __slots__ = ("connections", "each", "full", "limited", "slack", "wide")

    def __init__(
        self, connections: int = 0, rate: float = 0.0, burst: float = 1, wide: bool = False
    ) -> None:
        burst = max(1, burst)
        self.connections = connections or sys.maxsize
        self.each = 1 / rate if rate else 0.0
        self.slack = (burst - 1) * self.each + ROUNDING if rate else inf
        self.full = burst * self.each
        self.limited = bool(connections or rate)
        self.wide = self if wide else Most(connections * WIDER, rate * WIDER, burst * WIDER, True)


EXEMPT: Final = Most()
"""Is not counted."""


class Bucket:
    """So many a second, and at the most a second's worth at once.

    Attributes:
        due: When it is full again.
    """

    __slots__ = ("due",)

    def __init__(self) -> None:
        self.due = -inf

    def take(self, rate: float, count: float, now: float) -> float:
        """Take `count`, though it may not be there; returns the time from which more may be
        taken, `now` or earlier if that is at once. One may always be taken from a full bucket."""
        self.due = max(self.due, now) + count / rate
        return self.due - max(1.0 - 1 / rate, 0.0) - ROUNDING

    def wait(self, rate: float, now: float) -> float:
        """Seconds until one may be taken; 0 or less: now."""
        # Never so far ahead as a clock that was set back would make it.
        self.due = min(self.due, now + 2.0 + 1 / rate)
        return self.due - now - max(1.0 - 1 / rate, 0.0) - ROUNDING


class Rate:
    """What one link may send: packets a second, and bytes."""

    __slots__ = ("_bytes", "_packets")

    def __init__(self) -> None:
        self._packets = Bucket()
        self._bytes = Bucket()

    def take(
        self, packets: int, size: int, packet_rate: float, byte_rate: float, now: float
    ) -> float:
        """It sent so much, though it may be more than it might; a rate of 0 is no limit.

        Returns:
            The time from which it may send more.
        """
        until = now
        if packet_rate:
            until = self._packets.take(packet_rate, packets, now)
        if byte_rate:
            until = max(until, self._bytes.take(byte_rate, size, now))
        return until


class Entry:
    """What is known of an address, of a site, or of all.

    Attributes:
        count: Connections that are open.
        due: When its bucket is full again.
        wide: The entry in which it counts too.
    """

    __slots__ = ("count", "due", "wide")

    def __init__(self, wide: Entry | None) -> None:
        self.count = 0
        self.due = -inf
        self.wide = wide


class Table:
    """Who is connected and how often they came.

    Args:
        values: What is allowed; another one may be set at any time, with the same ipv6_prefix.

    Attributes:
        every: All connections that count.
        entries: Those of one address, by its name.
        others: Those of strangers for whom there was no room.
        overflowed: How often one shared that entry.
    """

    def __init__(self, values: LimitValues | None = None) -> None:
        self.every = Entry(None)
        self.every_rate = Bucket()
        self.others = Entry(self.every)
        self.entries: dict[bytes | int, Entry] = {}
        self.overflowed = 0
        self._round: list[bytes | int] = []
        self.values = LimitValues() if values is None else values

    @property
    def values(self) -> LimitValues:
        return self._values

    @values.setter
    def values(self, values: LimitValues) -> None:
        self._values = values
        self._shift = 128 - values.ipv6_prefix
        self._connections = values.connections or sys.maxsize
        self._address = Most(values.address_connections, values.address_rate, values.address_burst)
        allowed: list[tuple[Network, Most]] = [
            (network, Most(connections, rate, burst))
            for network, connections, rate, burst in values.allow
        ]
        self._networks = Ranges([*((network, EXEMPT) for network in values.exempt), *allowed])

    def wait(self, now: float) -> float:
        """Seconds for which nobody is to be accepted, because of the rate of all; 0 or less: one
        may be."""
        rate = self._values.rate
        return self.every_rate.wait(rate, now) if rate else 0.0

    def admit(self, address: bytes, now: float) -> Entry | Reason | None:
        """Somebody connects.

        The rate of all refuses nobody: that is what `wait` is for.

        Args:
            address: In 4 or 16 bytes; empty: it has none (a unix socket).

        Returns:
            What is to be given to `leave` when the connection is over, None if it does not count,
            or why it is refused; nothing is counted then.
        """
        most = self._address
        if self._networks.any:
            found = self._networks.find(address)
            if found is EXEMPT:
                return None
            most = found or most
        every = self.every
        if every.count >= self._connections:
            return Reason.TOO_MANY_LINKS
        if not (most.limited and address):
            every.count += 1
            self._take(now)
            return every
        name: bytes | int = address
        site: Entry | None = None
        site_name = 0
        if len(address) == 16:
            number = int.from_bytes(address, "big")
            name = number >> self._shift
            if self._shift < 128 - WIDE:
                site_name = ~(number >> (128 - WIDE))
                site = self.entries.get(site_name)
        entry = self.entries.get(name)
        if entry is None:
            wanted = 2 if site_name and site is None else 1
            if not self._room(wanted, now):
                return self._admit_other(most.wide, now)
            entry = Entry(every)
        if site_name and site is None:
            site = Entry(every)
        if site is not None:
            why = _refusal(site, most.wide, now)
            if why is not None:
                return why
        why = _refusal(entry, most, now)
        if why is not None:
            return why
        if site is not None:
            self.entries[site_name] = site
            site.count += 1
            site.due = max(site.due, now) + most.wide.each
            # It was another object perhaps, which was forgotten since: then this one has nothing.
            entry.wide = site
        self.entries[name] = entry
        entry.count += 1
        entry.due = max(entry.due, now) + most.each
        every.count += 1
        self._take(now)
        return entry

    def leave(self, entry: Entry | None) -> None:
        """A connection is over."""
        while entry is not None:
            entry.count -= 1
            entry = entry.wide

    def sweep(self, now: float, steps: int = SWEEP) -> None:
        """Forget some of those who would be treated as strangers are: who have nothing open, and
        a full bucket."""
        entries = self.entries
        if not self._round:
            self._round = list(reversed(entries))  # the oldest are popped first
        for _ in range(min(steps, len(self._round))):
            name = self._round.pop()
            entry = entries.get(name)
            if entry is not None and not entry.count and entry.due <= now:
                del entries[name]

    def _take(self, now: float) -> None:
        rate = self._values.rate
        if rate:
            self.every_rate.take(rate, 1, now)

    def _room(self, wanted: int, now: float) -> bool:
        """There is room for so many more."""
        if len(self.entries) + wanted <= self._values.table:
            return True
        self.sweep(now, ROOM)
        return len(self.entries) + wanted <= self._values.table

    def _admit_other(self, most: Most, now: float) -> Entry | Reason:
        """A stranger comes for whom there is no room."""
        self.overflowed += 1
        others = self.others
        why = _refusal(others, most, now)
        if why is not None:
            return why
        others.count += 1
        others.due = max(others.due, now) + most.each
        self.every.count += 1
        self._take(now)
        return others


def _refusal(entry: Entry, most: Most, now: float) -> Reason | None:
    if entry.count >= most.connections:
        return Reason.ADDRESS_CONNECTIONS
    if entry.due - now > most.slack:
        if entry.due - now > most.full:
            # Not by what it did: the clock was set back, or less is allowed since.
            entry.due = now + most.full
        return Reason.ADDRESS_RATE
    return None


class Ranges:
    """Networks with what their addresses may. An address in several has that of the smallest, and
    of one that was given twice the first."""

    def __init__(self, rows: Iterable[tuple[Network, Most]]) -> None:
        of: dict[int, dict[int, dict[int, Most]]] = {4: {}, 16: {}}
        self._unix: Most | None = None
        self.any = False
        for network, most in rows:
            self.any = True
            if network == "unix":
                self._unix = self._unix or most
                continue
            network = unmapped(network)
            shift = network.max_prefixlen - network.prefixlen
            under = of[network.max_prefixlen // 8].setdefault(shift, {})
            under.setdefault(int(network.network_address) >> shift, most)
        self._of = {size: sorted(under.items()) for size, under in of.items()}

    def find(self, address: bytes) -> Most | None:
        """What an address in 4 or 16 bytes may, or one that is empty: a unix socket; None: it is
        in no network."""
        if not address:
            return self._unix
        number = int.from_bytes(address, "big")
        for shift, under in self._of[len(address)]:
            found = under.get(number >> shift)
            if found is not None:
                return found
        return None

"""The way in: who may connect, asked by whoever accepts before anything is made for a comer.

Rule: `limits.Table` decides; here are its clock, its counts, its lines in the log, and the ports
that rest. There is one Gate for all ports, and a Door for each.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fastway.errors import Reason
from fastway.gateway.limits import Bucket, Entry, LimitValues, Table
from fastway.logs import Throttle, make_logger
from fastway.networks import Networks, packed_address
from fastway.router import Router, Side
from fastway.wheel import TICK, Wheel

log = make_logger("fastway.gateway")

MINUTE = 60.0
"""Seconds that the line about all addresses sums up."""

REFUSALS = 64
"""Connections that a port of the Python lane refuses in one turn."""

PAUSE = 0.001
"""Seconds that a port rests at the least: who waited comes in one turn or two, and a tick's worth
of handshakes at once would keep those who are in waiting."""

CROWD_PAUSE = 0.01
"""Seconds that it rests while those at their handshakes are all that may be."""

ADDRESSES = 1024
"""Addresses of which it is known how often they were refused."""

OPTIONS = {
    Reason.TOO_MANY_LINKS: "limit-connections",
    Reason.ADDRESS_CONNECTIONS: "limit-address-connections",
    Reason.ADDRESS_RATE: "limit-address-rate",
}
"""What an operator set, for all whose network has no values of its own."""

_RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: close with a reset, so that nothing is left of the connection."""


@dataclass(frozen=True, slots=True)
class LimitFigures:
    """The limits at one moment.

    Attributes:
        connections: Of clients, that count.
        entries: Addresses and sites that are told apart, of
        table: so many.
        overflowed: Connections that found no room among those.
        refused: Connections that were refused, by reason.
        rests: How often a port let those wait who came.
        dry_run: Nothing is refused, and nobody waits;
        dry: what would have been refused,
        dry_rests: and how many would have waited.
    """

    connections: int
    entries: int
    table: int
    overflowed: int
    refused: Mapping[Reason, int]
    rests: int
    dry_run: bool
    dry: Mapping[Reason, int]
    dry_rests: int


class GateService(Protocol):
    """What a gate needs of the service that all ports share (`service.RouterService`)."""

    clock: IReactorTime
    wheel: Wheel
    router: Router
    quiet: Throttle
    turned_away: int


class Gate:
    """Who may connect, for all ports.

    Attributes:
        table: Who is there.
        slot: The wheel's note.
        paced: All together have a rate.
        refusals: The last addresses that were refused, in 4 or 16 bytes (of IPv6 only what tells
            them apart), the latest at the end, and how often each was.
    """

    def __init__(self, service: GateService) -> None:
        self.service = service
        self.table = Table()
        self.slot = -1
        self.paced = False
        self.rests = 0
        self.dry_rests = 0
        self.refusals: dict[bytes, int] = {}
        self._refused: Counter[Reason] = Counter()
        self._dry: Counter[Reason] = Counter()
        self._minute = 0
        """Of this minute,"""
        self._since = 0.0
        """which began then."""

    @property
    def values(self) -> LimitValues:
        return self.table.values

    @values.setter
    def values(self, values: LimitValues) -> None:
        if values.dry_run != self.table.values.dry_run:
            self._sum_up(self.service.wheel.seconds())  # what was done until now
        self.table.values = values
        self.paced = bool(values.rate)

    def figures(self) -> LimitFigures:
        """What there is, and what there was since the start."""
        table = self.table
        return LimitFigures(
            table.every.count,
            len(table.entries),
            table.values.table,
            table.overflowed,
            dict(self._refused),
            self.rests,
            table.values.dry_run,
            dict(self._dry),
            self.dry_rests,
        )

    def admit(self, address: bytes) -> Entry | Reason | None:
        """Somebody connects; see `Table.admit`. Who is refused is counted."""
        now = self.service.wheel.seconds()
        entry = self.table.admit(address, now)
        if entry is None or entry is self.table.every:
            return entry
        if isinstance(entry, Reason):
            if not self._minute:
                self._since = now
            self._minute += 1
            dry = self.table.values.dry_run
            (self._dry if dry else self._refused)[entry] += 1
            self._remember(address)
        if self.slot < 0:
            self.service.wheel.watch(self, now + TICK)
        return entry

    def _remember(self, address: bytes) -> None:
        """That address was refused."""
        if len(address) == 16:
            shift = 128 - self.table.values.ipv6_prefix
            address = (int.from_bytes(address, "big") >> shift << shift).to_bytes(16, "big")
        refusals = self.refusals
        refusals[address] = refusals.pop(address, 0) + 1
        if len(refusals) > ADDRESSES:
            del refusals[next(iter(refusals))]

    def leave(self, entry: Entry | None) -> None:
        """A connection that `admit` let in is over."""
        self.table.leave(entry)

    def check(self, now: float) -> float | None:
        """Forget whom it can, and sum up the minute."""
        table = self.table
        table.sweep(now)
        if now - self._since >= MINUTE:
            self._sum_up(now)
        return now + TICK if table.entries or self._minute else None

    def _sum_up(self, now: float) -> None:
        if not self._minute:
            return
        count, self._minute = self._minute, 0
        table = self.table
        done = "would be turned away" if table.values.dry_run else "turned away"
        log.warn(
            f"{{count}} connections {done} for the limits in {{seconds:.0f}} s; "
            "{entries} addresses of {table} are told apart",
            count=count,
            seconds=now - self._since,
            entries=len(table.entries),
            table=table.values.table,
        )


class DoorPort(Protocol):
    """What a door needs of its port (`factories.GatewayFactory`)."""

    side: Side

    def turned_away(self, reason: Reason, host: str, name: str, problem: str) -> None:
        """Count and log a connection that is closed at once."""

    def crowded(self, now: float) -> bool:
        """One more would take the place of one who had no time for his handshake."""


class Door:
    """The way in by one port. Those of servers are asked nothing but for TLS.

    Args:
        gate: All ports'.
        port: Whose it is.

    Attributes:
        tls: A TLS handshake comes first.
        at_accept: Whoever accepts asks; otherwise the factory of links does.
        listening: What rests, if it can.
        proxies: Whose connections begin with whom they are from,
        tellers: or tell it in their request: they do not count, and those are asked then.
    """

    def __init__(self, gate: Gate, port: DoorPort) -> None:
        self.gate = gate
        self.tls = False
        self.at_accept = False
        self.listening: Any = None
        self._port = port
        self._counts = port.side is Side.CLIENT
        self._handshakes = Bucket()
        self.proxies = Networks()
        self.tellers = Networks()
        self._resting: IDelayedCall | None = None

    def admit(self, address: bytes) -> Entry | Reason | None:
        """Somebody is accepted, and who it is known.

        Args:
            address: In 4 or 16 bytes; empty: it has none.

        Returns:
            What is to be given to `Gate.leave` at its end, or why it is refused; then there is a
            line about it.
        """
        gate = self.gate
        entry: Entry | Reason | None = None
        if self._counts and not self._will_tell(address):
            entry = gate.admit(address)
            if isinstance(entry, Reason):
                entry = self._refuse(entry, address)
        if self.tls and gate.values.tls_rate and not isinstance(entry, Reason):
            now = gate.service.wheel.seconds()
            self._handshakes.take(gate.values.tls_rate, 1, now)
        return entry

    def admit_told(self, host: str) -> Entry | Reason | None:
        """A proxy told whom a connection is from; its own address did not count. Who refuses it
        has to say so."""
        address = packed_address(host) or b""
        if not self._counts or (self.tellers and self.tellers.has(address)):
            return None
        entry = self.gate.admit(address)
        if isinstance(entry, Reason) and self.gate.values.dry_run:
            self._would_refuse(entry, address)
            return None
        return entry

    def _will_tell(self, address: bytes) -> bool:
        return bool(
            (self.proxies and self.proxies.has(address))
            or (self.tellers and self.tellers.has(address))
        )

    def rests(self) -> bool:
        """Nobody is to be accepted now: the port rests for a little, and those who come wait in
        its backlog."""
        gate = self.gate
        if not (self.tls or (gate.paced and self._counts)):
            return False
        values = gate.values
        now = gate.service.wheel.seconds()
        wait = gate.table.wait(now) if self._counts else 0.0
        if self.tls and values.tls_rate:
            wait = max(wait, self._handshakes.wait(values.tls_rate, now))
        crowded = self.tls and self._port.crowded(now)
        if values.dry_run and wait > 0:
            gate.dry_rests += 1
            wait = 0.0
        if crowded:
            wait = max(wait, CROWD_PAUSE)
        if wait <= 0 or self.listening is None:
            return False
        self.listening.stopReading()
        if self._resting is None:
            gate.rests += 1
            self._resting = gate.service.clock.callLater(max(wait, PAUSE), self._go_on)
        return True

    def close(self) -> None:
        """The port listens no more."""
        self.listening = None
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _go_on(self) -> None:
        self._resting = None
        if self.listening is not None and not getattr(self.listening, "disconnecting", False):
            self.listening.startReading()

    def _refuse(self, reason: Reason, address: bytes) -> Reason | None:
        if self.gate.values.dry_run:
            self._would_refuse(reason, address)
            return None
        host = name_of(address)
        self._port.turned_away(reason, host, host, f"{reason.value}: {OPTIONS[reason]}")
        return reason

    def _would_refuse(self, reason: Reason, address: bytes) -> None:
        host = name_of(address)
        self.gate.service.quiet.warn(
            log,
            f"{self._port.side.value} that would be turned away",
            host,
            "{side} ? {addr} would be turned away: {problem}",
            side=self._port.side.value,
            addr=host,
            problem=reason.value,
        )


def name_of(address: bytes) -> str:
    """An address of 4 or 16 bytes as text."""
    if not address:
        return "?"
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


class DoorSocket(socket.socket):
    """A listening socket of which only those can be accepted whom a door lets in.

    Attributes:
        admitted: What the door gave for the last one, until somebody takes it over.
    """

    __slots__ = ("_door", "admitted")

    def __init__(self, listening: socket.socket, door: Door) -> None:
        super().__init__(fileno=listening.detach())
        self.setblocking(False)
        self._door = door
        self.admitted: Entry | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        """One who may come in and his address.

        Raises:
            OSError: EAGAIN: there is none now; all others of `accept`.
        """
        door = self._door
        self.give_back()
        for _ in range(REFUSALS):
            if door.rests():
                break
            accepted, address = super().accept()
            entry = door.admit((packed_address(address[0]) or b"") if address else b"")
            if not isinstance(entry, Reason):
                self.admitted = entry
                return accepted, address
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            accepted.close()
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def give_back(self) -> None:
        """If nobody took the last one over, no connection was made."""
        self._door.gate.leave(self.take_over())

    def take_over(self) -> Entry | None:
        """What the door gave for the last one; whoever has it gives it back."""
        entry, self.admitted = self.admitted, None
        return entry

"""Lists of networks, and who is in one: the one definition of whom an operator names.

Rule: a list is made once and asked for each connection, by masks on integers (some 0.5 µs, where
the objects of `ipaddress` take 10). An IPv4 address that came by an IPv6 socket is IPv4.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Network = ipaddress.IPv4Network | ipaddress.IPv6Network | Literal["unix"]
"""Peers that belong together: an address range, or whoever comes by a unix socket."""

_MAPPED = bytes(10) + b"\xff\xff"
"""What IPv6 puts before an IPv4 address."""


@dataclass(frozen=True, slots=True)
class Networks:
    """Some networks.

    Attributes:
        networks: As the operator gave them.
    """

    networks: tuple[Network, ...] = ()
    _ranges: dict[int, tuple[tuple[int, frozenset[int]], ...]] = field(
        init=False, repr=False, compare=False
    )
    """Bytes of an address -> masks, and what is left under each."""

    def __post_init__(self) -> None:
        found: dict[int, dict[int, set[int]]] = {4: {}, 16: {}}
        for network in self.networks:
            if network == "unix":
                continue
            network = unmapped(network)
            low, mask = network.network_address.packed, network.netmask.packed
            ranges = found[len(low)]
            ranges.setdefault(int.from_bytes(mask, "big"), set()).add(int.from_bytes(low, "big"))
        made = {
            size: tuple((mask, frozenset(lows)) for mask, lows in ranges.items())
            for size, ranges in found.items()
        }
        object.__setattr__(self, "_ranges", made)

    def __bool__(self) -> bool:
        return bool(self.networks)

    def __iter__(self) -> Iterator[Network]:
        return iter(self.networks)

    def __contains__(self, peer: object) -> bool:
        """Whether a peer is in one of them: an address as text, or `unix`."""
        if not isinstance(peer, str) or not self.networks:
            return False
        if peer == "unix":
            return "unix" in self.networks
        packed = packed_address(peer)
        return packed is not None and self.has(packed)

    def has(self, packed: bytes) -> bool:
        """The same of an address in 4 or 16 bytes; of empty ones: whether `unix` is in them."""
        if not packed:
            return "unix" in self.networks
        number = int.from_bytes(packed, "big")
        return any(number & mask in lows for mask, lows in self._ranges[len(packed)])


def unmapped(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A network of IPv4 that was written as one of IPv6 (`::ffff:10.0.0.0/104`) as what it is."""
    low = network.network_address.packed
    if low.startswith(_MAPPED) and network.prefixlen >= 96:
        return ipaddress.IPv4Network((low[12:], network.prefixlen - 96))
    return network


def packed_address(text: str) -> bytes | None:
    """An address in 4 or 16 bytes, or None: it is none. A zone (`fe80::1%eth0`) does not count."""
    try:
        if ":" not in text:
            return socket.inet_pton(socket.AF_INET, text)
        packed = socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def peer_of(address: object) -> str:
    """A peer as lists of networks know it: its address, `unix`, or nothing that is in any."""
    host = getattr(address, "host", None)
    if host is not None:
        return str(host)
    return "unix" if hasattr(address, "name") else ""

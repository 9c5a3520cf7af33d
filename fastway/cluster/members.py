"""Who is in the cluster, and who serves what.

Rule: a member has one record, by its address; a new one takes the place of the old one, services
and all. No calls, no clock.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from fastway.cluster.grpc import CallFailed, Status
from fastway.cluster.messages import DecodeError, message_class

MAX_MEMBERS = 1000
"""Members of a cluster that are kept."""

MAX_INFO = 64 * 1024
"""Bytes of a member's record, its services among them."""

MAX_ADDRESS = 255
"""Characters of an address."""

INVALID = "invalid register request"
"""What nano says to a record that is none."""

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([A-Za-z0-9._-]*)):([0-9]{1,5})")

_Info: Any = message_class("MemberInfo")


class MemberInfo(NamedTuple):
    """A member, as it says of itself.

    Attributes:
        label: A word of its operator's.
        address: Where it takes calls: host:port.
        services: What it serves: what stands before the last dot of routes.
    """

    label: str
    address: str
    services: tuple[str, ...]

    def message(self) -> Any:
        return _Info(label=self.label, serviceAddr=self.address, services=self.services)


def member_info(message: Any) -> MemberInfo:
    """A member out of its message.

    Raises:
        CallFailed: it has no address, or too much of all else.
    """
    if not message.serviceAddr or message.ByteSize() > MAX_INFO:
        raise CallFailed(Status.UNKNOWN, INVALID)
    host_and_port(message.serviceAddr)
    return MemberInfo(message.label, message.serviceAddr, tuple(dict.fromkeys(message.services)))


def host_and_port(address: str) -> tuple[str, int]:
    """Where an address leads; without a host, which Go's nodes may announce, here.

    Raises:
        CallFailed: nowhere.
    """
    found = _ADDRESS.fullmatch(address) if len(address) <= MAX_ADDRESS else None
    if found is None or not 0 < int(found[3]) < 65536:
        raise CallFailed(Status.UNKNOWN, f"{address[:100]!r} is no address")
    return found[1] or found[2] or "127.0.0.1", int(found[3])


def is_routable(address: str) -> bool:
    """Whether other machines can use an address."""
    try:
        host_and_port(address)
    except CallFailed:
        return False
    host = address.rpartition(":")[0].strip("[]")
    try:
        return not ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host != ""


def parsed(name: str, data: bytes) -> Any:
    """The message in what came.

    Raises:
        CallFailed: there is none.
    """
    try:
        return message_class(name).FromString(data)
    except DecodeError:
        raise CallFailed(Status.INTERNAL, f"that is no {name}") from None


class Members:
    """Other members, as this one knows them.

    Attributes:
        known: Address -> member, in the order in which they came.
        services: Service -> who serves it.
    """

    def __init__(self) -> None:
        self.known: dict[str, MemberInfo] = {}
        self.services: dict[str, list[MemberInfo]] = {}

    def put(self, info: MemberInfo) -> bool:
        """Take a member in, or take what it says now; False: there are too many."""
        if info.address not in self.known and len(self.known) >= MAX_MEMBERS:
            return False
        self.remove(info.address)
        self.known[info.address] = info
        for service in info.services:
            self.services.setdefault(service, []).append(info)
        return True

    def remove(self, address: str) -> bool:
        """Leave a member out, if it is in."""
        gone = self.known.pop(address, None)
        if gone is None:
            return False
        for service in gone.services:
            left = [one for one in self.services[service] if one.address != address]
            if left:
                self.services[service] = left
            else:
                del self.services[service]
        return True

    def serves(self, address: str, service: str) -> bool:
        """Whether that member is in, and serves it."""
        info = self.known.get(address)
        return info is not None and service in info.services


def services_of(routes: Iterable[str]) -> tuple[str, ...]:
    """What a node serves whose handlers have these routes, sorted."""
    return tuple(sorted({service for route in routes if (service := service_of(route))}))


def service_of(route: str) -> str:
    """What stands before the last dot; empty: there is none, and nobody serves it."""
    return route.rpartition(".")[0]

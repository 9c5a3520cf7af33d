"""Who is in the cluster, and who serves what.

Rule: a member has one record, by its address; a new one takes the place of the old one, services
and all. No calls, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from fastway.cluster.grpc import CallFailed, Status
from fastway.cluster.messages import DecodeError, message_class

MAX_MEMBERS = 1000
"""Members of a cluster that are kept."""

MAX_SERVICES = 10_000
"""Services of one member."""

INVALID = "invalid register request"
"""What nano says to a record that is none."""

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
    if not message.serviceAddr or len(message.services) > MAX_SERVICES:
        raise CallFailed(Status.UNKNOWN, INVALID)
    return MemberInfo(message.label, message.serviceAddr, tuple(dict.fromkeys(message.services)))


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

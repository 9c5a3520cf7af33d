"""How a node reaches others, for its sessions: who serves them, and calls in their order.

Rule: a session stays with who serves it as long as that member is there and does; what is said for
a session to one node is in order. (spec nano.md 5.4)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping
from collections.abc import Sequence as Several
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from fastway.app.app import App
from fastway.app.messages import encode
from fastway.app.session import Session, SessionEnded
from fastway.cluster import messages as on
from fastway.cluster.channel import Channel
from fastway.cluster.grpc import CallFailed, Status
from fastway.cluster.http2 import Turn
from fastway.cluster.members import MAX_MEMBERS, MemberInfo, Members, host_and_port, service_of
from fastway.cluster.messages import message_class
from fastway.cluster.sequence import Sequence
from fastway.dialect import BodyFormat
from fastway.errors import LocalError

Chooses: TypeAlias = "Callable[[str, Session, Several[MemberInfo]], MemberInfo | None]"
"""Who serves a session: takes the service, the session, and those that offer it. None: nobody."""

_Notify: Any = message_class("NotifyMessage")


class NoService(LocalError):
    """Nobody in the cluster serves that route."""


class Lines(Protocol):
    """What a session has to do with other nodes.

    Attributes:
        sticky: Service -> address of who serves it for this session.
        sequences: Address -> its calls there.
    """

    sticky: dict[str, str]
    sequences: dict[str, Sequence]


class Roads:
    """What a node has of others.

    Attributes:
        address: Where others reach it.
    """

    _turn: Turn

    def __init__(
        self,
        app: App,
        format: BodyFormat,
        deadline: float,
        route: Chooses | None,
        dial: Callable[[str], IStreamClientEndpoint] | None,
    ) -> None:
        self.app = app
        self.format = format
        self.address = ""
        self._deadline = float(deadline)
        self._choose = route
        self._dial = dial
        self._others = Members()
        self._channels: dict[str, Channel] = {}

    @property
    def members(self) -> Mapping[str, MemberInfo]:
        """The others, by their addresses."""
        return self._others.known

    @property
    def services(self) -> Mapping[str, Several[MemberInfo]]:
        """What others serve, and who."""
        return self._others.services

    def channel(self, address: str) -> Channel:
        """Calls to a node.

        Raises:
            CallFailed: that is no address, or there are too many.
        """
        found = self._channels.get(address)
        if found is not None:
            return found
        if len(self._channels) >= 2 * MAX_MEMBERS:
            raise CallFailed(Status.RESOURCE_EXHAUSTED, "too many nodes")
        if self._dial is not None:
            endpoint = self._dial(address)
        else:
            host, port = host_and_port(address)
            endpoint = HostnameEndpoint(self.app.clock, host, port, timeout=self._deadline)
        found = Channel(address, endpoint, self._turn, self._deadline)
        self._channels[address] = found
        return found

    def sweep(self, needed: Container[str]) -> None:
        """Forget how to reach who is no member, and whom nobody needs."""
        for address, channel in list(self._channels.items()):
            if not (address in self._others.known or address in needed) and channel.is_idle:
                channel.close()
                del self._channels[address]

    def pick(self, lines: Lines, session: Session, service: str) -> str | None:
        """The address of who serves a session; the same, as long as he does. None: nobody."""
        address = lines.sticky.get(service)
        if address is not None and self._others.serves(address, service):
            return address
        offers = self._others.services.get(service)
        if not offers:
            return None
        if self._choose is None:
            chosen = random.choice(offers)
        else:
            chosen = self._choose(service, session, tuple(offers))  # type: ignore[assignment]
            if chosen is None:
                return None
        lines.sticky[service] = chosen.address
        return chosen.address

    def sequence(self, lines: Lines, address: str) -> Sequence:
        """A session's calls to a node.

        Raises:
            CallFailed: as `channel`.
        """
        found = lines.sequences.get(address)
        if found is None:
            found = Sequence(self.channel(address), self.app.clock.callLater)
            lines.sequences[address] = found
        return found

    def lines(self, session: Session) -> tuple[Lines, str, int]:
        """What a session has to do with other nodes; its gate, and its number there.

        Raises:
            LocalError: it is none of this cluster.
        """
        raise LocalError(f"{session!r} is no session of this cluster")

    def rpc(self, session: Session, route: str, message: Any = None) -> Deferred[None]:
        """Say something to another node for a session, as its client would.

        There it is a session of the same client, to which that node can push. Nothing comes back.

        Returns:
            Fires when it is there. Fails with CallFailed: it is not, or nobody knows.

        Raises:
            NoService: nobody else serves that route.
            SessionEnded, LocalError: the session is over, or is none of this cluster.
        """
        if session.ended is not None:
            raise SessionEnded(str(session.ended), session.ended.cause)
        lines, gate, session_id = self.lines(session)
        address = self.pick(lines, session, service_of(route))
        if address is None:
            raise NoService(f"nobody else in the cluster serves {route!r}")
        body = encode(message, self.format)
        said = _Notify(gateAddr=gate, sessionId=session_id, route=route, data=body)
        done: Deferred[None] = Deferred()

        def heard(result: bytes | CallFailed) -> None:
            if isinstance(result, CallFailed):
                done.errback(result)
            else:
                done.callback(None)

        self.sequence(lines, address).start(on.NOTIFY, said.SerializeToString(), heard)
        return done

    def bind(self, session: Session, service: str, address: str) -> None:
        """Have a member serve a session from now on, as long as it does serve that."""
        self.lines(session)[0].sticky[service] = address

    def unbind(self, session: Session, service: str) -> None:
        """Choose anew who serves a session."""
        self.lines(session)[0].sticky.pop(service, None)

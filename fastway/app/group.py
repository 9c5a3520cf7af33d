"""Sessions that are told the same: a room, a party, everybody.

Rule: telling never waits, and one member's state is never another's trouble. A message is encoded
once for each shape of wire among its members, whatever they speak, and checked before anybody gets
it. Who ends has left before anybody is told.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

from fastway.app.session import Home, Lane, Session
from fastway.dialect import Meta, Refused


class Batch(NamedTuple):
    """Members that are told the same bytes in the same way."""

    lane: Lane | None
    shape: Hashable
    carriers: list[Any]


def _batches(members: Iterable[Session]) -> list[Batch]:
    found: dict[tuple[Lane | None, Hashable], list[Any]] = {}
    for session in members:
        carrier = session.carrier
        found.setdefault((carrier.lane, carrier.shape), []).append(carrier)
    return [Batch(lane, shape, carriers) for (lane, shape), carriers in found.items()]


class Group:
    """An ordered set of sessions, of whatever dialects and ports.

    It may be changed while it is iterated over or told: what `send` began with is what it tells.

    Args:
        app: Whose sessions they are.
        name: What operators and `PushApi` call it.
        left: Called with each member that leaves because it ended.
    """

    def __init__(
        self, app: Home, name: str = "", left: Callable[[Session], object] | None = None
    ) -> None:
        self.app = app
        self.name = name
        self._left = left
        self._members: dict[Session, None] = {}
        self._batches: list[Batch] | None = None
        """All members, by what they are told; None: somebody came or went."""

    def add(self, session: Session) -> bool:
        """Take a session in, at the end; False when it has ended. Twice is once."""
        if session.ended is not None:
            return False
        if session not in self._members:
            self._members[session] = None
            self._batches = None
            session.enter(self)
        return True

    def discard(self, session: Session) -> None:
        """Leave a session out, if it is in."""
        if self._members.pop(session, self) is None:
            self._batches = None
            session.leave(self)

    def clear(self) -> None:
        """Leave all out; nobody is closed."""
        for session in self:
            self.discard(session)

    def close(self) -> None:
        """Close all members."""
        for session in self:
            session.close()

    def let_in(self) -> None:
        """A member is ready, and may be told with others: the session says so."""
        self._batches = None

    def forget(self, session: Session) -> None:
        """It has ended: the session says so."""
        self._members.pop(session, None)
        self._batches = None
        if self._left is not None:
            try:
                self._left(session)
            except Exception:  # the others are told all the same
                what = f"what hears who left {self!r}"
                self.app.log_failure("what hears who left a group", f"{what} failed")

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, session: object) -> bool:
        return session in self._members

    def __iter__(self) -> Iterator[Session]:
        """The members of now, in the order in which they came."""
        return iter(tuple(self._members))

    def __repr__(self) -> str:
        return f"<Group {self.name} of {len(self)}>" if self.name else f"<Group of {len(self)}>"

    def send(
        self,
        route: str,
        message: Any = None,
        *,
        to: Iterable[Session] | None = None,
        but: Session | Iterable[Session] | None = None,
        meta: Meta = (),
    ) -> int:
        """Say something to all members, and never wait.

        Args:
            to: Only these, as far as they are members.
            but: Who is not told.
            meta: What goes beside it, where dialects have that.

        Returns:
            How many are told. One who lets more wait than he may is ended, as always.

        Raises:
            FrameRefused, NotInDialect: it cannot be sent to one of them; nobody is told.
            whatever the format raises: it is no message for one of them; nobody is told.
        """
        if self.app.has_outgoing:
            return self._send_each(self._chosen(to, but), route, message, meta)
        if to is None and but is None:
            if self._batches is None:
                self._batches = _batches(self._members)
            batches = self._batches
        else:
            batches = _batches(self._chosen(to, but))
        packets: dict[Hashable, Any] = {}
        for batch in batches:
            if batch.shape not in packets:
                packets[batch.shape] = batch.carriers[0].pack(route, message, meta)
        told = 0
        for batch in batches:
            packet, carriers = packets[batch.shape], batch.carriers
            told += len(carriers)
            if batch.lane is not None:
                batch.lane.multicast(carriers, packet, self)
                continue
            for carrier in carriers:
                carrier.tell(packet)
        return told

    def _send_each(self, members: list[Session], route: str, message: Any, meta: Meta) -> int:
        """What is told may differ from one to the next: hooks look at each."""
        packed = []
        for session in members:
            try:
                out = self.app.outgoing_message(session, route, message, meta)
            except Refused:
                continue
            carrier = session.carrier
            packed.append((carrier, carrier.pack(out.route, out.message, out.meta)))
        for carrier, packet in packed:
            carrier.tell(packet)
        return len(packed)

    def _chosen(
        self, to: Iterable[Session] | None, but: Session | Iterable[Session] | None
    ) -> list[Session]:
        members = self._members
        chosen = members if to is None else {one: None for one in to if one in members}
        if but is None:
            return list(chosen)
        out = {but} if isinstance(but, Session) else set(but)
        return [one for one in chosen if one not in out]

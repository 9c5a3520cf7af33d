"""A Group's copy at a gateway that keeps groups, so that one message goes there once.

Rule: whoever the gateway has not yet said to be in the copy is told singly, on the same link, so
each member gets everything once and in order. When the gateway will not, all are told singly; what
it says that it refuses to push comes once too, but late.

Of a copy that is whole it is asked rarely what came of a push: it has said that all are in, and
there is nothing for which it could refuse them one. An answer would cost both ends a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice
from typing import Any, TypeVar

from fastway.endpoint.channel import Carrier, Channel
from fastway.endpoint.control import Control
from fastway.errors import FastwayError, RequestRefused
from fastway.waiting import watch

C = TypeVar("C", bound=Channel[Any])

LEAST = 50
"""Members of one gateway for which a push is worth it: it costs both ends a turn. For as many the
server spends three quarters of what as many packets cost it; for half as many, more than these."""

ASK = 1.0
"""Seconds after which a push to a whole copy is to be answered again."""

_numbers = count(1)


class Mirror:
    """The copy of one Group at one gateway.

    Attributes:
        over: The gateway would not have it, or not all of it, or the Group is no more.
    """

    def __init__(self, link: Carrier, control: Control) -> None:
        self.over = False
        self._link = link
        self._control = control
        self._name = f"fastway-{next(_numbers)}"
        self._asked: set[Channel[Any]] = set()
        """Who was asked to be let in, and not to leave since."""
        self._members: set[Channel[Any]] = set()
        """Who of them is in, as the gateway said."""
        self._ask_at = float("-inf")
        """From then on a push is to be answered."""

    def push(
        self,
        data: bytes,
        to: Sequence[C],
        members: Iterable[C],
        missed: Callable[[list[C]], object],
    ) -> list[C]:
        """Tell those of `to` that are in the copy.

        Args:
            members: Who should be in it.
            missed: Called with those that could not take it when the gateway had refused.

        Returns:
            Who was told; the others are to be told singly.
        """
        if self.over or not self._control.can_push(3):
            return []
        self._members = {conn for conn in self._members if conn.ended is None}
        self._asked = {conn for conn in self._asked if conn.ended is None}
        wanted = dict.fromkeys(members)
        try:
            self._join(conn for conn in wanted if conn not in self._asked)
            self._leave(conn for conn in self._members if conn not in wanted)
            there = [conn for conn in to if conn in self._members]
            # Whose join is not answered is in as well when the push comes, unless it was refused.
            left_out = self._asked.difference(there)
            if len(there) < LEAST or len(left_out) > self._control.names_at_most:
                return []
            # What waits would be overtaken by what is sent singly.
            if not self._control.can_push(1):
                return []
            pushed = self._control.push(data, group=self._name, but=left_out)
        except FastwayError:  # too large with what stands before it; or what was written ended it
            return []
        watch(pushed, lambda _: None, lambda error: self._not_pushed(error, data, there, missed))
        return there

    def is_whole(self, conns: Sequence[Channel[Any]]) -> bool:
        """These are in the copy, as the gateway said, and nobody else is or will be."""
        if self.over or not len(conns) == len(self._members) == len(self._asked):
            return False
        return self._asked.issuperset(conns)

    def can_push_whole(self, but: Sequence[Channel[Any]]) -> bool:
        """Now; all of a copy that is known to be whole, except these."""
        control = self._control
        return (
            not self.over
            and self._link.all_told
            and len(self._members) - len(but) >= LEAST
            and len(but) <= control.names_at_most
            and control.can_push(1)
        )

    def push_whole(
        self,
        data: bytes,
        members: Sequence[C],
        but: Sequence[C],
        missed: Callable[[list[C]], object],
    ) -> bool:
        """Tell all members, except `but`; False: they are to be told singly."""
        now = self._link.loop.seconds()
        try:
            if now < self._ask_at:
                self._control.push_unanswered(data, self._name, but)
                return True
            pushed = self._control.push(data, group=self._name, but=but)
        except FastwayError:  # as above
            return False
        self._ask_at = now + ASK

        def not_pushed(error: Exception) -> None:
            left_out = set(but)
            there = [conn for conn in members if conn not in left_out]
            self._not_pushed(error, data, there, missed)

        watch(pushed, lambda _: None, not_pushed)
        return True

    def end(self) -> None:
        """The Group is no more. It sends nothing: see Control.forget."""
        self.over = True
        asked, self._asked = self._asked, set()
        self._members = set()
        if asked:
            self._control.forget(self._name, [one.conn_id for one in asked if one.ended is None])

    def close(self) -> None:
        """All leave, as soon as there is room for it."""
        self.end()
        self._control.pump()

    def _join(self, conns: Iterable[Channel[Any]]) -> None:
        some = list(islice(conns, self._control.names_at_most))
        if some:
            joined = self._control.join(self._name, some)
            self._asked.update(some)
            watch(joined, lambda _: self._joined(some), self._not_changed)

    def _leave(self, conns: Iterable[Channel[Any]]) -> None:
        some = list(islice(conns, self._control.names_at_most))
        if some:
            left = self._control.leave(self._name, some)
            self._asked.difference_update(some)
            self._members.difference_update(some)
            watch(left, lambda _: None, self._not_changed)

    def _joined(self, conns: list[Channel[Any]]) -> None:
        self._members.update(self._asked.intersection(conns))

    def _not_changed(self, _: Exception) -> None:
        self.close()

    def _not_pushed(
        self,
        error: Exception,
        data: bytes,
        to: Sequence[C],
        missed: Callable[[list[C]], object],
    ) -> None:
        if isinstance(error, RequestRefused):  # else it may have been carried out
            link = self._link
            missed([one for one in to if link.is_open(one) and not link.post(one, data)])
        self.close()

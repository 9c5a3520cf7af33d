"""A Group's copy at a gateway that keeps groups, so that one message goes there once.

Rule: whoever the gateway has not yet said to be in the copy is told singly, on the same link, so
each member gets everything once and in order. When the gateway will not, all are told singly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count, islice
from typing import Any, TypeVar

from fastway.endpoint.channel import Carrier, Channel
from fastway.endpoint.control import Control
from fastway.errors import FastwayError, RequestRefused
from fastway.waiting import watch

C = TypeVar("C", bound=Channel[Any])

LEAST = 16
"""Members of one gateway for which a push is worth it: it costs both sides more than a packet."""

MOST_AT_ONCE = 1000
"""Connections that one request names: the object of a request has its bound."""

_numbers = count(1)


class Mirror:
    """The copy of one Group at one gateway.

    Attributes:
        refused: The gateway would not have it, or not all of it.
    """

    def __init__(self, link: Carrier, control: Control) -> None:
        self.refused = False
        self._link = link
        self._control = control
        self._name = f"fastway-{next(_numbers)}"
        self._asked: set[Channel[Any]] = set()
        """Who was asked to be let in."""
        self._members: set[Channel[Any]] = set()
        """Who is in, as the gateway said."""

    def push(self, data: bytes, to: Sequence[C], members: Iterable[C]) -> Sequence[C]:
        """Tell those of `to` that are in the copy.

        Args:
            members: Who should be in it.

        Returns:
            Who is to be told singly.
        """
        if self.refused or not self._control.can_push(4):
            return to
        self._members = {conn for conn in self._members if conn.ended is None}
        self._asked = {conn for conn in self._asked if conn.ended is None}
        wanted = dict.fromkeys(members)
        self._join(conn for conn in wanted if conn not in self._asked)
        self._leave(conn for conn in self._members if conn not in wanted)
        there = [conn for conn in to if conn in self._members]
        left_out = self._members.difference(there)
        if len(there) < LEAST or len(left_out) > MOST_AT_ONCE:
            return to
        if not self._link.has_room(len(data)):
            return to
        try:
            pushed = self._control.push(data, group=self._name, but=left_out)
        except FastwayError:  # it does not fit with what stands before it
            return to
        watch(pushed, lambda _: None, lambda error: self._not_pushed(error, data, there))
        return [conn for conn in to if conn not in self._members]

    def end(self) -> None:
        """The Group is no more."""
        self.refused = True
        if self._control.can_push(1) and self._members:
            self._leave(self._members)

    def _join(self, conns: Iterable[Channel[Any]]) -> None:
        some = list(islice(conns, MOST_AT_ONCE))
        if some:
            self._asked.update(some)
            joined = self._control.join(self._name, some)
            watch(joined, lambda _: self._members.update(some), self._not_joined)

    def _leave(self, conns: Iterable[Channel[Any]]) -> None:
        some = list(islice(conns, MOST_AT_ONCE))
        if some:
            self._asked.difference_update(some)
            self._members.difference_update(some)
            watch(self._control.leave(self._name, some), lambda _: None, self._not_joined)

    def _not_joined(self, _: Exception) -> None:
        self.refused = True

    def _not_pushed(self, error: Exception, data: bytes, to: Sequence[Channel[Any]]) -> None:
        self.refused = True
        if isinstance(error, RequestRefused):  # else it may have been carried out
            for conn in to:
                self._link.post(conn, data)

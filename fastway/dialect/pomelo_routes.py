"""Routes in pomelo's dialect: names of the application, names of the wire, codes of a dictionary.

Rule: what is looked up for each message is made before; what a peer sends is never kept.
(spec nano.md 3.3 and 3.4)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fastway.dialect.pomelo_packets import CODED, NOTIFY, PUSH, route_field

MAX_HEADS = 1000
"""Routes whose heads are kept: an application may make routes up."""


class Head(NamedTuple):
    """What stands before the payload, of one route."""

    push: bytes
    notify: bytes
    request: int  # the flag
    field: bytes  # what comes behind the mid of a request


class Routes:
    """Routes of a connection, both ways.

    Args:
        wire_names: How the wire calls what the application calls otherwise.
        dictionary: Codes of names of the wire.
    """

    def __init__(self, wire_names: Mapping[str, str], dictionary: Mapping[str, int]) -> None:
        self._wire_names = wire_names
        self._app_names = {name: route for route, name in wire_names.items()}
        self._fields = {name: code.to_bytes(2, "big") for name, code in dictionary.items()}
        self.codes = {code: self.app_name(name) for name, code in self._fields.items()}
        self.names = {name.encode(): self.app_name(name) for name in dictionary}
        self.names.update((name.encode(), route) for name, route in self._app_names.items())
        self.heads: dict[str, Head] = {}

    def wire_name(self, route: str) -> str:
        return self._wire_names.get(route, route)

    def app_name(self, name: str) -> str:
        return self._app_names.get(name, name)

    def head(self, route: str) -> Head:
        """Raises FrameRefused: the wire cannot name it."""
        name = self.wire_name(route)
        field, bit = self._fields.get(name), CODED
        if field is None:
            field, bit = route_field(name), 0
        head = Head(bytes((PUSH | bit,)) + field, bytes((NOTIFY | bit,)) + field, bit, field)
        if len(self.heads) < MAX_HEADS:
            self.heads[route] = head
        return head

    def known(self, route: str) -> str:
        """The application has that route: its name of the wire. Raises FrameRefused as `head`."""
        self.head(route)
        name = self.wire_name(route)
        self.names.setdefault(name.encode(), route)
        return name

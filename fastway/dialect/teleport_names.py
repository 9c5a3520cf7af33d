"""Routes in teleport's dialect: "room.join" is /room/join, or Room.Join. (spec teleport.md, 6)

A part of a route that has capitals is named as Go names a type or method of that name; one that
has none is written as it is (http), or as Go would write it (rpc): `join_all` is /join_all, and
JoinAll. What begins with a slash is a name already.

Rule: what is looked up for each message is made before; what a peer sends is never kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from fastway.dialect import FrameRefused

MAX_NAME = 255
"""Bytes of a name."""

MAX_KEPT = 1000
"""Routes whose names are kept: an application may make routes up."""

_BESIDE = re.compile("[%?]")
_CAPITAL = re.compile("(?<=.)([A-Z])")
_UPPER = re.compile("[A-Z]")
_WORD = re.compile("(?<=[^A-Z_/.])([A-Z])")


def http_part(part: str) -> str:
    """Go's name of a type or method, as its HTTP mapper has it: AaBb -> aa_bb, Aa_Bb -> aa/bb."""
    return _WORD.sub(r"_\1", _split(part, "/")).lower()


def rpc_part(part: str) -> str:
    """The same, as its RPC mapper has it: AaBb -> AaBb, Aa_Bb -> Aa.Bb."""
    return _split(part, ".")


def _split(part: str, between: str) -> str:
    # A pair of underscores is one; a single one parts names, unless nothing is behind it.
    pieces = part.replace("__", "\0")
    head, tail = (pieces[:-1], "_") if pieces.endswith("_") else (pieces, "")
    return (head.replace("_", between) + tail).replace("\0", "_")


def _http(route: str) -> str:
    parts = [http_part(one) if _UPPER.search(one) else one for one in route.split(".")]
    return "/" + "/".join(parts)


def _rpc(route: str) -> str:
    return ".".join(
        rpc_part(one) if _UPPER.search(one) else _capitals(one) for one in route.split(".")
    )


def _capitals(part: str) -> str:
    return "".join(one[:1].upper() + one[1:] for one in part.split("_"))


def _from_http(name: str) -> str:
    return name[1:].replace("/", ".")


def _from_rpc(name: str) -> str:
    return ".".join(_WORD.sub(r"_\1", part).lower() for part in name.split("."))


def _old(route: str) -> str:
    return "/" + "/".join(_CAPITAL.sub(r"_\1", one).lower() for one in route.split("."))


MAPPERS: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "http": (_http, _from_http),
    "rpc": (_rpc, _from_rpc),
    "v2": (_old, _from_http),
}


class Names:
    """Names of one port, or of one client, both ways.

    Args:
        mapper: "http", "rpc", or "v2": an underscore before every capital.
        names: How the wire calls what the mapper would name otherwise.
        ignore_case: Of names that come.

    Attributes:
        fields: Names that the application has -> its routes; to look here before `route` is asked.
        texts: The same as text, of those that are no more than a path.
    """

    def __init__(self, mapper: str, names: Mapping[str, str], ignore_case: bool) -> None:
        self._to_wire, self._from_wire = MAPPERS[mapper]
        self._names = names
        self._ignore_case = ignore_case
        self._routes = {self._key(name): route for route, name in names.items()}
        self._fields: dict[str, bytes] = {}
        self.fields: dict[bytes, str] = {}
        self.texts: dict[str, str] = {}

    def _key(self, name: str) -> str:
        return name.lower() if self._ignore_case else name

    def field(self, route: str) -> bytes:
        """The name of a route. Raises FrameRefused: the wire cannot have it."""
        field = self._fields.get(route)
        if field is None:
            name = self._names.get(route)
            if name is None:
                name = route if route.startswith("/") else self._to_wire(route)
            field = name_field(name)
            if len(self._fields) < MAX_KEPT:
                self._fields[route] = field
        return field

    def known(self, route: str) -> str:
        """The application has that route: its name, as names are told apart.

        Raises FrameRefused as `field`.
        """
        field = self.field(route)
        name = field.decode()
        self._routes.setdefault(self._key(name), route)
        self.fields[field] = self._routes[self._key(name)]
        if not _BESIDE.search(name):
            self.texts[name] = self.fields[field]
        return self._key(name)

    def route(self, name: str) -> str:
        """What the application calls a name; one that it cannot mean stays as it is."""
        key = self._key(name)
        found = self._routes.get(key)
        if found is not None:
            return found
        route = self._from_wire(key)
        wants = route and not route.startswith("/") and self._to_wire(route) == key
        return route if wants else name


def name_field(name: str) -> bytes:
    """Raises FrameRefused: it is empty, too long, or no text."""
    try:
        field = name.encode()
    except UnicodeEncodeError:
        raise FrameRefused(f"{name!r} is no text") from None
    if not 0 < len(field) <= MAX_NAME:
        raise FrameRefused(f"{name[:50]!r} is {len(field)} bytes long: a name has 1 to {MAX_NAME}")
    return field


def check_names(names: Mapping[str, str], ignore_case: bool) -> None:
    """Raises ValueError: two of them are one, or the wire cannot have one."""
    taken: dict[str, str] = {}
    for route, name in names.items():
        key = name.lower() if ignore_case else name
        if taken.setdefault(key, route) != route:
            raise ValueError(f"names: {taken[key]!r} and {route!r} are both {name!r}")
        try:
            name_field(name)
        except FrameRefused as error:
            raise ValueError(f"names: {error}") from None

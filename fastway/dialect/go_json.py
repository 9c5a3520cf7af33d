"""JSON of Go programs: a list, a map or bytes that are empty may be null there.

Rule: only what does not decode otherwise is looked at again; a type that has a place for null gets
None, as everywhere.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

from fastway.formats import Json


class GoJson(Json[Any]):
    """Messages are plain JSON, or what msgspec makes of it: `pip install 'fastway[app]'`."""

    def __init__(self) -> None:
        super().__init__(Any)

    def decode(self, data: bytes, into: Any = None) -> Any:
        try:
            return super().decode(data, into)
        except ValueError:
            if into is None or b"null" not in data:
                raise
            message = super().decode(data)
        return super().decode(self.encode(_fill(message, _kind(into))), into)


@lru_cache(maxsize=1000)
def _kind(into: Any) -> Any:
    return importlib.import_module("msgspec.inspect").type_info(into)


def _fill(message: Any, kind: Any) -> Any:
    """The message with what Go means by null, where that type wants something else.

    Of a union only the one type beside None counts. No deeper than JSON may be.
    """
    types = getattr(kind, "types", None)
    if types is not None:
        others = [one for one in types if type(one).__name__ != "NoneType"]
        if len(others) != 1 or (message is None and len(others) < len(types)):
            return message
        (kind,) = others
    if message is None:
        return _EMPTY.get(type(kind).__name__, _nothing)()
    if type(message) is list:
        item = getattr(kind, "item_type", None)
        return message if item is None else [_fill(one, item) for one in message]
    if type(message) is dict:
        value = getattr(kind, "value_type", None)
        if value is not None:
            return {key: _fill(one, value) for key, one in message.items()}
        for field in getattr(kind, "fields", ()):
            if field.encode_name in message:
                name = field.encode_name
                message[name] = _fill(message[name], field.type)
    return message


def _nothing() -> None:
    return None


_EMPTY: dict[str, Any] = {
    "ListType": list,
    "VarTupleType": list,
    "SetType": list,
    "FrozenSetType": list,
    "DictType": dict,
    "FrozenDictType": dict,
    "BytesType": str,
    "ByteArrayType": str,
}

"""Dataclasses as JSON: their values, their schemas (JSON Schema 2020-12), and bodies read as them.

Rule: the class says it all. Fields are properties, what `Attributes:` says of them is their
description, an Enum is its code, a class is described once, under its name.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fastway.ops.snapshot import Slices, in_slices

T = TypeVar("T")

Schema = dict[str, Any]

_PLAIN = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
}

_encode = json.JSONEncoder(separators=(",", ":")).encode

_ATTRIBUTE = re.compile(r" {4}(\w+): (.*)")


class BadBody(Exception):
    """It is not what it has to be; the text says why in one line."""


def plain(value: Any) -> Any:
    """What `json.dumps` takes in its place."""
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, Enum):
        return code_of(value)
    names = getattr(value, "__dataclass_fields__", None)
    if names is not None:
        made = {}
        for name in names:
            told = getattr(value, name)
            made[name] = told if told is None or type(told) in _PLAIN else plain(told)
        return made
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value]


def as_text(value: Any) -> str:
    """The same as one line, in ASCII."""
    return _encode(plain(value))


def encoded(value: Any) -> Slices[bytes]:
    """An object of a class as JSON, with a line's end; its long rows in slices."""
    parts = []
    for name in value.__dataclass_fields__:
        told = getattr(value, name)
        if isinstance(told, tuple):
            rows = []
            for pause, one in in_slices(told):
                rows.append(as_text(one))
                if pause:
                    yield
            text = f"[{','.join(rows)}]"
        else:
            text = as_text(told)
        parts.append(f'"{name}":{text}')
    return f"{{{','.join(parts)}}}\n".encode("ascii")


def code_of(value: Enum) -> str:
    """How programs name it."""
    return str(getattr(value, "code", value.value))


def schema_of(kind: Any, known: dict[str, Schema]) -> Schema:
    """The schema of a type.

    Args:
        known: Those of classes by name; what is missing is added.
    """
    if kind is None or kind is type(None):
        return {"type": "null"}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"type": "string", "enum": [code_of(one) for one in kind]}
    if is_dataclass(kind):
        assert isinstance(kind, type)
        if kind.__name__ not in known:
            known[kind.__name__] = {}  # it may have itself inside
            known[kind.__name__] = _class_schema(kind, known)
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"type": "string", "enum": list(inside)}
    if origin in (Union, UnionType):
        return {"anyOf": [schema_of(one, known) for one in inside]}
    if origin is tuple:
        return {"type": "array", "items": schema_of(inside[0], known)}
    assert isinstance(origin, type) and issubclass(origin, Mapping), kind
    return {"type": "object", "additionalProperties": schema_of(inside[1], known)}


def _class_schema(kind: type, known: dict[str, Schema]) -> Schema:
    text, meanings = described(kind)
    hints = get_type_hints(kind)
    properties: dict[str, Schema] = {}
    required = []
    for field in fields(kind):
        properties[field.name] = told = schema_of(hints[field.name], known)
        if field.name in meanings:
            told["description"] = meanings[field.name]
        if field.default is MISSING:
            required.append(field.name)
    made: Schema = {"type": "object", "description": text, "properties": properties}
    if required:
        made["required"] = required
    return made


def described(kind: type) -> tuple[str, dict[str, str]]:
    """What a class says of itself, and of its fields; empty where docstrings are stripped."""
    text, _, rest = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in rest.split("\n"):
        match = _ATTRIBUTE.fullmatch(line)
        if match is not None:
            name = match[1]
            found[name] = match[2]
        elif name and line.startswith(" " * 8):
            found[name] += " " + line.strip()
    return " ".join(text.split()), found


def read(kind: type[T], data: Any) -> T:
    """A body as an object of a class.

    Raises:
        BadBody: it is not one: no object, an unknown field, one that is missing or of another
            type.
    """
    if not isinstance(data, dict):
        raise BadBody("the body must be a JSON object")
    hints = get_type_hints(kind)
    names = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for name in data:
        if name not in names:
            known = ", ".join(names) or "there are none"
            raise BadBody(f"there is no field {str(name)[:40]!r}; fields: {known}")
    for name, field in names.items():
        if name not in data:
            if field.default is MISSING:
                raise BadBody(f"{name} is missing")
        else:
            check(name, hints[name], data[name])
    return kind(**data)


def check(name: str, kind: Any, value: Any) -> None:
    """See that a value is of a type.

    Raises:
        BadBody: it is not.
    """
    if get_origin(kind) is Literal:
        words = [word for word in get_args(kind) if word]
        if value not in get_args(kind):
            raise BadBody(f"{name} must be one of {', '.join(words)}")
    elif get_origin(kind) is UnionType:
        if not isinstance(value, get_args(kind)):
            raise BadBody(f"{name} must be text, a number, true or false")
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadBody(f"{name} must be {_NAMES[kind]}")


_NAMES = {str: "text", int: "a whole number", bool: "true or false"}

"""What the types of messages are in JSON Schema: msgspec's, in the words of draft 07.

That is the draft of AsyncAPI 3, and what generators of other languages read: the `prefixItems` of
later ones is nothing to them.

Rule: a type that peers could not be told of is an error that names its handler, never a guess.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, get_origin

import msgspec

from fastway.dialect import Body
from fastway.errors import LocalError
from fastway.formats import Encoded

DRAFT = "http://json-schema.org/draft-07/schema#"

RAW = "application/octet-stream"
PROTOBUF = "application/protobuf"
THRIFT = "application/vnd.apache.thrift.binary"

_RAW_OR_NONE = (bytes | None, Body | None, Encoded | None)

_ONE = ("additionalItems", "additionalProperties", "contains", "not", "propertyNames")
_LISTS = ("allOf", "anyOf", "oneOf")
_MAPS = ("$defs", "definitions", "patternProperties", "properties")


class NoSchema(LocalError):
    """A type of messages has no JSON Schema. The text is one line, and names its handler."""


class Proto(NamedTuple):
    """Where a message of Protocol Buffers is defined.

    Attributes:
        file: As it is imported.
        message: Its full name.
        version: Of the language: 2, 3, or the year of an edition.
    """

    file: str
    message: str
    version: str


@dataclass(slots=True)
class Sort:
    """What a message is.

    Attributes:
        kind: Its type.
        name: What people call it; empty: nothing in particular.
        schema: In JSON Schema, with references; {} may be anything.
        content: Its content type, where that is not the wire's; empty: it is.
        proto: Where it is defined, if that is not here.
        typed: msgspec knows its schema.
    """

    kind: Any
    name: str = ""
    schema: dict[str, Any] = field(default_factory=dict)
    content: str = ""
    proto: Proto | None = None
    typed: bool = False


def sort_of(where: str, kind: Any) -> Sort:
    """What a message of that type is; `settle` then makes its schema.

    Args:
        where: Which message it is, for whoever reads an error.

    Raises:
        NoSchema: the type has none.
    """
    if kind is None:
        return Sort(kind, schema={"type": "null"})
    if kind is Any or kind is object:
        return Sort(kind)
    if kind in (bytes, Body, Encoded) or kind in _RAW_OR_NONE:
        return Sort(kind, content=RAW)
    proto = _proto(kind)
    if proto is not None:
        return Sort(kind, kind.__name__, content=PROTOBUF, proto=proto)
    if isinstance(kind, type) and hasattr(kind, "thrift_spec"):
        text = f"{kind.__module__}.{kind.__name__}, as its .thrift defines it"
        return Sort(kind, kind.__name__, {"description": text}, THRIFT)
    try:
        msgspec.json.schema_components([kind], schema_hook=_anything)
    except Exception as error:  # a type's own hooks raise what they like
        problem = (str(error).splitlines() or [type(error).__name__])[-1]
        raise NoSchema(
            f"{where}: {problem}; make it a msgspec Struct, a dataclass or a "
            "TypedDict of such, or annotate Any"
        ) from None
    return Sort(kind, type_name(kind), typed=True)


def settle(sorts: Iterable[Sort], place: str) -> dict[str, Any]:
    """Make the schemas, all at once: types of one name are told apart by their modules.

    Args:
        place: Where definitions will stand: `#/definitions/`.

    Returns:
        Those, of the types that have a name.
    """
    typed = [sort for sort in sorts if sort.typed]
    schemas, found = msgspec.json.schema_components(
        [sort.kind for sort in typed], schema_hook=_anything, ref_template=f"{place}{{name}}"
    )
    for sort, schema in zip(typed, schemas, strict=True):
        sort.schema = draft_07(schema)
    return {name: draft_07(found[name]) for name in sorted(found)}


def type_name(kind: Any) -> str:
    """What people call a type; empty: it is none of theirs."""
    own = isinstance(kind, type) and get_origin(kind) is None
    return kind.__name__ if own and kind.__module__ not in ("builtins", "typing") else ""


def draft_07(schema: Any) -> Any:
    """A schema of draft 2020-12, as msgspec makes them, in the words of draft 07.

    The `discriminator` of OpenAPI goes: a tag is a field that can only have its one value.
    """
    if not isinstance(schema, Mapping):
        return schema  # true or false
    made = dict(schema)
    made.pop("discriminator", None)
    if "prefixItems" in made:
        rest = made.pop("items", None)
        made["items"] = made.pop("prefixItems")
        if rest is not None:
            made["additionalItems"] = rest
    if isinstance(made.get("items"), list):
        made["items"] = [draft_07(one) for one in made["items"]]
    elif "items" in made:
        made["items"] = draft_07(made["items"])
    if isinstance(made.get("description"), str):
        made["description"] = inspect.cleandoc(made["description"])
    for word in _ONE:
        if word in made:
            made[word] = draft_07(made[word])
    for word in _LISTS:
        if word in made:
            made[word] = [draft_07(one) for one in made[word]]
    for word in _MAPS:
        if word in made:
            made[word] = {name: draft_07(one) for name, one in made[word].items()}
    return made


def _anything(kind: Any) -> dict[str, Any]:
    if kind is object:
        return {}
    raise NotImplementedError


def _proto(kind: Any) -> Proto | None:
    """Where a class of Protocol Buffers messages is defined; None: it is none."""
    descriptor = getattr(kind, "DESCRIPTOR", None)
    if not (isinstance(kind, type) and hasattr(kind, "FromString") and descriptor is not None):
        return None
    told = import_module("google.protobuf.descriptor_pb2").FileDescriptorProto()
    descriptor.file.CopyToProto(told)
    edition = str(told.edition - 1000 + 2023) if told.syntax == "editions" else ""
    return Proto(descriptor.file.name, descriptor.full_name, edition or told.syntax[-1:] or "2")

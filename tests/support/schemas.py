"""JSON held against a schema of an OpenAPI document, as far as the admin API uses them.

Rule: what is in an answer and not in its schema is a fault too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def fault(value: Any, schema: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """What does not fit, and where; empty: all does."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        return fault(value, document["components"]["schemas"][name], document)
    if "anyOf" in schema:
        faults = [fault(value, one, document) for one in schema["anyOf"]]
        return "" if "" in faults else " and ".join(faults)
    kind = schema["type"]
    if kind == "array":
        if not isinstance(value, list):
            return f"{value!r} is no array"
        found = (fault(one, schema["items"], document) for one in value)
        return next(filter(None, found), "")
    if kind == "object":
        if not isinstance(value, dict):
            return f"{value!r} is no object"
        if set(schema.get("required", ())) - set(value):
            return f"{value!r} has not all of {schema['required']}"
        known = schema.get("properties", {})
        more = schema.get("additionalProperties")
        for name, one in value.items():
            if name not in known and more is None:
                return f"{name} is not known"
            told = fault(one, known.get(name, more), document)
            if told:
                return f"{name}: {told}"
        return ""
    if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return f"{value!r} is no {kind}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{value!r} is none of {schema['enum']}"
    return ""

"""The admin API as an OpenAPI 3.1 document, made of its table of paths and its shapes.

Rule: nothing is written here that the table or a shape says. `python -m fastway.ops.openapi`
prints it; docs/openapi.json is that.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from fastway import __version__
from fastway.ops.api import ROUTES, Param, Route
from fastway.ops.schema import Schema, schema_of
from fastway.ops.shapes import LogLines, NewEnds, Problem, Status

JSON = "application/json"

PROBLEMS = {
    400: "a parameter or the body cannot be used",
    401: "the token is missing or wrong",
    403: "another page asks for it",
    404: "it is not there",
    405: "another method",
    409: "it cannot be done now",
    411: "the body has no length",
    413: "the body is over 16 KiB",
    415: "the body is not application/json",
    421: "Host is none of this gateway's",
    503: "as many watch as may",
}

_EVERY = (401, 403, 405, 421)


@cache
def document() -> bytes:
    """The document."""
    known: dict[str, Schema] = {}
    problem = schema_of(Problem, known)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, known)
    for shape in (LogLines, NewEnds, Status):  # events have them
        schema_of(shape, known)
    answers = {
        str(status): {"description": text, "content": {JSON: {"schema": problem}}}
        for status, text in PROBLEMS.items()
    }
    made = {
        "openapi": "3.1.0",
        "info": {
            "title": "fastway admin API",
            "version": __version__,
            "description": "What a running gateway tells its operator, and does for him.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "http://localhost"}],
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(known.items())),
            "responses": answers,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "admin-token; by a unix socket none is needed",
                }
            },
        },
    }
    return (json.dumps(made, indent=2) + "\n").encode()


def _operation(route: Route, known: dict[str, Schema]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if route.answer is not None:
        content[JSON] = {"schema": schema_of(route.answer, known)}
    if route.name == "events":
        content["text/event-stream"] = {"schema": {"type": "string"}}
    if route.name == "openapi":
        content[JSON] = {"schema": {"type": "object"}}
    if route.name == "status":
        content["text/plain"] = {"schema": {"type": "string"}}
    answers: dict[str, Any] = {"200": {"description": "done", "content": content}}
    for status in sorted({*_EVERY, *_problems(route)}):
        answers[str(status)] = {"$ref": f"#/components/responses/{status}"}
    made: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.words,
        "responses": answers,
    }
    if route.params:
        made["parameters"] = [_param(route, param) for param in route.params]
    if route.body is not None:
        made["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schema_of(route.body, known)}},
        }
    return made


def _problems(route: Route) -> set[int]:
    found = {400, 411, 413, 415, route.failed} if route.method == "POST" else set()
    if route.params:
        found.add(400)
    if "{" in route.path or route.name == "kick":
        found.add(404)
    if route.name == "events":
        found.add(503)
    return found


def _param(route: Route, param: Param) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if param.high:
        schema = {"type": "integer", "minimum": param.low, "maximum": param.high}
    elif param.words:
        schema["enum"] = [word for word in param.words if word]
    if param.default:
        schema["default"] = int(param.default) if param.high else param.default
    made: dict[str, Any] = {
        "name": param.name,
        "in": "path" if f"{{{param.name}}}" in route.path else "query",
        "description": param.meaning,
        "schema": schema,
    }
    if made["in"] == "path":
        made["required"] = True
    return made


if __name__ == "__main__":
    print(document().decode(), end="")

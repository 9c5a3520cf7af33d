"""What an application takes and sends, told once for other languages (`fastway describe`).

    asyncapi(app)            # AsyncAPI 3: every route, its messages, its answers, its refusals
    asyncapi(app, Pomelo())  # with the names and codes that this dialect has on the wire
    schema(app)              # the types alone, as one JSON Schema: what generators read

Rule: all of it is read off the application: its handlers' annotations and docstrings, and what it
has declared with `App.sends` and `App.refusal`. Nothing runs, and there is no generator here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fastway.app.app import App
from fastway.app.messages import check_kind
from fastway.app.ports import check_names
from fastway.app.schemas import DRAFT, PROTOBUF, RAW, Proto, Sort, settle, sort_of, type_name
from fastway.dialect import BodyFormat, Dialect, NotInDialect, Traits
from fastway.formats import Bytes, Json, MessagePack, ProtocolBuffers, Text

ASYNCAPI = "3.0.0"

HANDSHAKE = "@handshake"
"""Stands for a route in a description: what peers say of themselves."""

OTHERS = "@unknown"
"""Stands for all routes without a handler of their own, where `App.unknown` has one for them."""

_CONTENTS: Sequence[tuple[type, str]] = (
    (Json, "application/json"),
    (MessagePack, "application/vnd.msgpack"),
    (ProtocolBuffers, PROTOBUF),
    (Text, "text/plain"),
    (Bytes, RAW),
)
_PROTO = "application/vnd.google.protobuf"
"""Without a version, which its text tells: what reads it with one wants the whole .proto there."""


@dataclass(slots=True)
class _Talk:
    """One thing that is said, in one direction.

    Attributes:
        name: What the wire calls it; None: that is no one route's.
        taken: By the application; False: it says so by itself.
        answer: None: nothing is answered.
        answer_name: What the wire calls that, where it is a message of its own.
        says_no: An answer may be one that says no, which has a form of its own.
    """

    route: str
    taken: bool
    message: Sort
    answer: Sort | None
    summary: str = ""
    text: str = ""
    refusals: dict[int, str] = field(default_factory=dict)
    name: str | None = None
    code: int | None = None
    answer_name: str = ""
    says_no: bool = False


def asyncapi(
    app: App, dialect: Dialect | None = None, *, title: str = "", version: str = "0"
) -> dict[str, Any]:
    """An application as a document of AsyncAPI 3, which `json.dumps` can write.

    Args:
        dialect: Whose names and codes it has; None: the application's own, for any of them. It
            learns the application's routes, so a running port's had better not be given.
        title, version: Of the document.

    Raises:
        NoSchema: a type of message cannot be described; the text names the route.
        BadHandler, NotInDialect: as `App.listen`.
    """
    told = _Told(app, dialect, "#/components/schemas/")
    document: dict[str, Any] = {
        "asyncapi": ASYNCAPI,
        "info": {"title": title or "an application of fastway.app", "version": version},
        "defaultContentType": told.content,
        "channels": {},
        "operations": {},
        "components": {"schemas": told.definitions},
    }
    if not told.content:
        del document["defaultContentType"]
    if dialect is not None:
        document["x-dialect"] = {"name": dialect.name, **told.traits.settings}
    if told.left_out:
        document["x-left-out"] = told.left_out
    if told.traits.refused is not None:
        refused = {"title": "Refused", **told.traits.refused}
        document["components"]["schemas"].setdefault("refused", refused)
    channels = document["channels"]
    for talk in told.talks:
        channel = channels.setdefault(talk.route, {"address": talk.name, "messages": {}})
        if talk.route == OTHERS:
            about = "Any that is the address of no other channel here."
            channel.update(address="{route}", parameters={"route": {"description": about}})
        if talk.code is not None:
            channel["x-code"] = talk.code
        said = "message" if talk.taken else "sent"
        channel["messages"][said] = _message(talk.message)
        action = "receive" if talk.taken else "send"
        operation: dict[str, Any] = {"action": action, "channel": _ref(talk.route)}
        if talk.summary:
            operation["summary"] = talk.summary
        if talk.text:
            operation["description"] = talk.text
        operation["messages"] = [_ref(talk.route, said)]
        if talk.answer is not None:
            operation["reply"] = _reply(channels, talk)
        if talk.refusals:
            operation["x-refusals"] = [
                {"code": code, "text": text} for code, text in sorted(talk.refusals.items())
            ]
        document["operations"][f"{action}.{talk.route}"] = operation
    return document


def schema(app: App, dialect: Dialect | None = None) -> dict[str, Any]:
    """The types of an application's messages, as one JSON Schema of draft 07.

    Its definitions are the types. The schema itself is that of an object which nobody sends: its
    `takes` and `sends` have a property for each route, with those of its `message` and `answer`,
    so that what a generator makes of it knows the routes too. `handshake`, if there is one, is as
    a route. That any other route is taken (`App.unknown`) is not said: a type that has any
    property would let through those that are misspelt.

    Args, Raises: as `asyncapi`.
    """
    told = _Told(app, dialect, "#/definitions/")
    ways: dict[str, dict[str, Any]] = {"takes": {}, "sends": {}}
    whole: dict[str, Any] = {}
    for talk in told.talks:
        if talk.route == OTHERS:
            continue
        answer = {"type": "null"} if talk.answer is None else _plain(talk.answer)
        both = {"message": _plain(talk.message), "answer": answer}
        about = {"description": talk.summary} if talk.summary else {}
        if talk.name is None:
            whole["handshake"] = {**about, **_object(both)}
        else:
            ways["takes" if talk.taken else "sends"][talk.name] = {**about, **_object(both)}
    whole.update((name, _object(routes)) for name, routes in ways.items())
    return {
        "$schema": DRAFT,
        "title": "Routes",
        **_object(whole),
        "definitions": told.definitions,
    }


class _Told:
    """What there is to be told.

    Attributes:
        content: The content type of bodies; empty: nobody knows.
        definitions: Schemas of the types that have a name.
        left_out: Routes that the dialect cannot have, and why.
    """

    def __init__(self, app: App, dialect: Dialect | None, place: str) -> None:
        self.left_out: dict[str, str] = {}
        self.content = "application/json"
        self.traits: Traits = getattr(dialect, "traits", Traits())
        self.talks = list(_talks(app))
        if dialect is not None:
            check_names(app, dialect)  # handlers before all else: a name is theirs first
            form = dialect.server().format
            self.content = _content(form)
            self.talks = [talk for talk in self.talks if self._has(dialect, form, talk)]
        sorts = [sort for talk in self.talks for sort in (talk.message, talk.answer) if sort]
        self.definitions = settle(sorts, place)

    def _has(self, dialect: Dialect, form: BodyFormat, talk: _Talk) -> bool:
        """Whether the dialect can have it; then it has its name there."""
        try:
            if talk.route == HANDSHAKE:
                self._greet(dialect, talk)
            else:
                self._name(dialect, form, talk)
        except (NotInDialect, TypeError) as error:
            self.left_out[talk.route] = str(error)
            return False
        return True

    def _greet(self, dialect: Dialect, talk: _Talk) -> None:
        form = self.traits.handshake
        if form is None:
            raise NotInDialect(f"{dialect.name} has no handshake here")
        if _content(form) != self.content:
            for sort in (talk.message, talk.answer):
                if sort is not None:
                    sort.content = _content(form)

    def _name(self, dialect: Dialect, form: BodyFormat, talk: _Talk) -> None:
        traits = self.traits
        for sort in (talk.message, talk.answer):
            if sort is not None and sort.content != RAW:
                check_kind(form, sort.kind)
        if talk.answer is not None and not talk.taken and "client" not in traits.asks:
            raise NotInDialect(f"a server cannot ask its clients in {dialect.name}")
        if talk.route != OTHERS:
            talk.name = dialect.wire_name(talk.route)
            talk.code = traits.codes.get(talk.name)
        talk.says_no = talk.taken and traits.refused is not None
        if traits.by_type and talk.answer is not None:
            talk.answer_name = type_name(talk.answer.kind)


def _talks(app: App) -> Iterator[_Talk]:
    """All that an application takes and sends, in order of the routes."""
    common = app.refusals.get("", {})
    handled = dict(app.routes)
    if app.greets is not None:
        handled[HANDSHAKE] = app.greets
    if app.others is not None:
        handled[OTHERS] = app.others
    for route, how in sorted(handled.items()):
        call = getattr(how.call, "__qualname__", repr(how.call))
        summary, text = _words(how.call)
        reads = how.kind is None and "request" in how.order  # it may, by `request.decode`
        kind = Any if reads else how.kind
        yield _Talk(
            route,
            True,
            sort_of(f"{route}: {call} takes what has no schema", kind),
            _answer(f"{route}: {call} answers what has no schema", how.answer),
            summary,
            text,
            {**common, **app.refusals.get(route, {})},
            None if route in (HANDSHAKE, OTHERS) else route,
        )
    for route, sent in sorted(app.sent.items()):
        message = sort_of(f"{route}: what is sent has no schema", sent.kind)
        answer = _answer(f"{route}: what is answered has no schema", sent.answer)
        yield _Talk(route, False, message, answer, sent.text, name=route)


def _answer(where: str, kind: Any) -> Sort | None:
    return None if kind is None else sort_of(where, kind)


def _words(call: Callable[..., Any]) -> tuple[str, str]:
    """The first paragraph of its docstring, in one line; and the others."""
    text = (inspect.getdoc(call) if inspect.isroutine(call) else None) or ""
    first, _, rest = text.partition("\n\n")
    return " ".join(first.split()), rest.strip()


def _content(form: BodyFormat) -> str:
    for kind, content in _CONTENTS:
        if isinstance(form, kind):
            return content
    return ""


def _message(sort: Sort) -> dict[str, Any]:
    message: dict[str, Any] = {"name": sort.name} if sort.name else {}
    if sort.content:
        message["contentType"] = sort.content
    message["payload"] = sort.schema if sort.proto is None else _reference(sort.proto)
    return message


def _reference(proto: Proto) -> dict[str, Any]:
    """What is not JSON stands as text: a .proto that imports the one which is taken as it is."""
    year = len(proto.version) > 1
    first = f'edition = "{proto.version}";' if year else f'syntax = "proto{proto.version}";'
    return {
        "schemaFormat": _PROTO,
        "schema": f'{first}\nimport "{proto.file}";\n// The message is {proto.message}.\n',
    }


def _reply(channels: dict[str, Any], talk: _Talk) -> dict[str, Any]:
    """How it is answered; the messages are added to the channel of the answer."""
    assert talk.answer is not None
    place, said = talk.route, "answer" if talk.taken else "sent.answer"
    if talk.answer_name:
        place = f"@{talk.answer_name}"
        channels.setdefault(place, {"address": talk.answer_name, "messages": {}})
    messages = channels[place]["messages"]
    messages[said] = _message(talk.answer)
    refs = [_ref(place, said)]
    if talk.says_no:
        messages["refused"] = {"name": "refused", "payload": _REFUSED}
        refs.append(_ref(place, "refused"))
    return {"channel": _ref(place), "messages": refs}


_REFUSED = {"$ref": "#/components/schemas/refused"}  # no class is called so


def _ref(channel: str, message: str = "") -> dict[str, str]:
    parts = ["channels", channel, *(["messages", message] if message else [])]
    escaped = (quote(one.replace("~", "~0").replace("/", "~1"), safe="@~") for one in parts)
    return {"$ref": "#/" + "/".join(escaped)}


def _plain(sort: Sort) -> dict[str, Any]:
    """Its schema, which cannot say what is no JSON."""
    if sort.proto is not None:
        return {"description": f"{sort.proto.message} of {sort.proto.file}"}
    return {"description": "bytes, as they are"} if sort.content == RAW else sort.schema


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }

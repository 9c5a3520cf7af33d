"""What a handler wants of a message, settled when the handler is registered.

Rule: an annotation becomes a `Wanted` once; a message then costs its decoder and nothing else.
What a peer sent becomes a message of that type, or a BadBody that says where it is wrong.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

import msgspec

from fastway.dialect import Body, BodyFormat, Refused
from fastway.errors import LocalError
from fastway.formats import Bytes, Encoded, Json, ProtocolBuffers, Text

BAD = 400
"""The code of a Refused whose peer sent what does not decode."""


class BadHandler(LocalError):
    """A handler cannot be called as it is written. The text is one line, and names it."""


class BadBody(Refused):
    """A body is not the message that is wanted; its peer is told that, the log what is wrong.

    Attributes:
        detail: Where it is wrong: for the developer.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(BAD, "bad message")
        self.args = (f"{BAD}: bad message: {detail}",)  # peers are told code and text alone
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a handler is called.

    Attributes:
        call: The handler.
        order: What its parameters are, in order: `session`, `request`, `message`.
        kind: The type of its message; Any: as the format has it; None: it takes none.
        answer: The type of what it returns, for descriptions; Any: it does not say; None: nothing.
    """

    call: Callable[..., Any]
    order: tuple[str, ...]
    kind: Any
    answer: Any = Any


@dataclass(frozen=True, slots=True)
class Sent:
    """What an application says by itself of one route (`App.sends`).

    Attributes:
        kind: The type of its message; None: it has none.
        answer: The type of what is answered; None: nothing is asked.
        text: A sentence for people.
    """

    kind: Any
    answer: Any = None
    text: str = ""


def wanted(call: Callable[..., Any], session: type, request: type) -> Wanted:
    """Look at a handler.

    Args:
        call: Its parameters are annotated: one `session`, one `request` and one message, each or
            none of them, in any order. What has no annotation is the message, as it comes.

    Raises:
        BadHandler: it has others.
    """
    name = getattr(call, "__qualname__", repr(call))
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise BadHandler(f"{name}: a handler returns its answer; it does not yield")
    hints = hints_of(call)
    order: list[str] = []
    names: list[str] = []
    kind: Any = None
    for parameter in inspect.signature(call).parameters.values():
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            if parameter.default is parameter.empty and parameter.kind is parameter.KEYWORD_ONLY:
                raise BadHandler(f"{name}: nobody gives it {parameter.name} by name")
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise BadHandler(f"{name}: what would *{parameter.name} be?")
        hint = hints.get(parameter.name, Any)
        what = "session" if hint is session else "request" if hint is request else "message"
        if what in order:
            if parameter.default is not parameter.empty:
                continue
            both = f"{names[order.index(what)]} and {parameter.name}"
            raise BadHandler(
                f"{name}: {both} would both be the {what}; annotate one as Session, one as "
                "Request, and one as the type of the message"
            )
        order.append(what)
        names.append(parameter.name)
        if what == "message":
            kind = hint
    return Wanted(call, tuple(order), kind, answer_kind(hints))


def hints_of(call: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a callable.

    Raises:
        BadHandler: one is of nothing that is there.
    """
    try:
        hints = typing.get_type_hints(
            call if inspect.isroutine(call) else type(call).__call__, include_extras=True
        )
    except NameError as error:
        name = getattr(call, "__qualname__", repr(call))
        raise BadHandler(
            f"{name}: {error}; annotate with what is defined at the top of its module"
        ) from None
    return {name: _without_remarks(hint) for name, hint in hints.items()}


def _without_remarks(hint: Any) -> Any:
    """Bounds of a message stay; whatever stands beside what is no message of a type goes."""
    if get_origin(hint) is not Annotated:
        return hint
    told = get_args(hint)[0]
    is_message = any(isinstance(remark, msgspec.Meta) for remark in get_args(hint)[1:])
    return hint if is_message and told not in (Any, bytes) else told


def greeting(call: Callable[..., Any]) -> Wanted:
    """Look at a handshake hook: `(session, user)`.

    Raises:
        BadHandler: no peer can say anything of the type that its user is annotated with.
    """
    hints = hints_of(call)
    names = list(inspect.signature(call).parameters)[1:2]
    kind = hints.get(names[0], Any) if names else Any
    if kind is object:
        kind = Any
    try:
        Json(kind)
    except TypeError as error:
        name = getattr(call, "__qualname__", repr(call))
        raise BadHandler(f"{name}: {' '.join(str(error).split())}") from None
    return Wanted(call, ("session", "message"), kind, answer_kind(hints))


def check_call(call: Callable[..., Any], *values: str) -> None:
    """See that a hook can be called with these values.

    Raises:
        BadHandler: it cannot.
    """
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return  # one of Python's own, which does not say
    try:
        signature.bind(*values)
    except TypeError as error:
        name = getattr(call, "__qualname__", repr(call))
        given = " and ".join(values) or "nothing"
        raise BadHandler(f"{name} is called with {given}: {error}") from None


def convert(message: Any, kind: Any) -> Any:
    """Plain values as a type. Raises BadBody: they are none of it."""
    try:
        return msgspec.convert(message, kind)
    except msgspec.ValidationError as error:
        raise BadBody(f"ValidationError: {error}") from None


def answer_kind(hints: dict[str, Any]) -> Any:
    """The type of what a callable returns, or of what that fires with."""
    kind = hints.get("return", Any)
    made = get_origin(kind) or kind
    if isinstance(made, type) and issubclass(made, Awaitable):
        kind = get_args(kind)[-1] if get_args(kind) else Any
    return None if kind in (type(None), typing.NoReturn) else kind


def check_kind(form: BodyFormat, kind: Any) -> None:
    """See that a format can make messages of that type.

    Raises:
        TypeError: it cannot, whatever it is given.
    """
    if kind is None or kind is Any or kind is bytes or kind is Body:
        return
    try:
        form.decode(b"", kind)
    except TypeError:
        raise
    except Exception:
        return  # only these bytes are none


def decode(data: bytes, form: BodyFormat, kind: Any) -> Any:
    """The message in a body.

    Raises:
        BadBody: there is none of that type.
    """
    if kind is None:
        return None
    if kind is bytes:
        return data
    if kind is Body:
        return Body(data, getattr(form, "codec", ""))
    try:
        if kind is Any:
            return form.decode(data)
        if data == b"null" and _is_list(kind):
            return []  # Go's empty list
        return form.decode(data, kind)
    except Exception as error:  # formats raise anything
        raise BadBody(f"{type(error).__name__}: {error}") from None


def _is_list(kind: Any) -> bool:
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return (get_origin(kind) or kind) is list


def encode(message: Any, form: BodyFormat) -> bytes:
    """The body of a message; bytes are one already, as a Body and an Encoded are.

    Raises what the format raises: whoever sends it made a mistake.
    """
    if isinstance(message, bytes):
        return message
    if isinstance(message, Encoded):
        return message.data
    if message is None and isinstance(form, (Bytes, ProtocolBuffers, Text)):
        return b""
    return form.encode(message)

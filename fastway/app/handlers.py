"""A message on its way to its handler: what stands for it, what is called with it, who answers.

Rule: what can be settled when a handler is registered is settled then (`ready`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, TypeAlias

from fastway.app.messages import Wanted, decode, wanted
from fastway.app.session import Session
from fastway.dialect import Body, BodyFormat, Message, Meta, Refused
from fastway.formats import MAX_DEPTH, is_shallow_json

Handler: TypeAlias = "Callable[[Request], Awaitable[Any]]"
Middleware: TypeAlias = "Callable[[Request, Handler], Awaitable[Any]]"


class Request:
    """One message on its way to its handler, for middleware and for handlers that want more.

    Attributes:
        session: Whose it is.
        route: What it is about.
        body: Its bytes; middleware may give others.
        meta: What came beside it.
        asked: An answer is waited for.
        answer_meta: What goes beside the answer, where the dialect has that; a list to add to.
    """

    __slots__ = ("_event", "_message", "answer_meta", "body", "session")

    def __init__(self, session: Session, event: Message) -> None:
        self.session = session
        self.body = event.body
        self.answer_meta: list[tuple[str, str]] = []
        self._event = event

    @property
    def route(self) -> str:
        return self._event.route

    @property
    def meta(self) -> Meta:
        return self._event.meta

    @property
    def asked(self) -> bool:
        return self._event.token is not None

    def decode(self, into: Any = Any) -> Any:
        """The message in its body.

        Raises:
            BadBody: there is none of that type.
        """
        return decode(self.body, self._event.format, into)

    def __repr__(self) -> str:
        return f"<Request {self.route} of {self.session!r}>"


@dataclass(slots=True)
class Outgoing:
    """A message to a session, as `outgoing` hooks see it; they may change it.

    Attributes:
        meta: What goes beside it, where the dialect has that.
    """

    session: Session
    route: str
    message: Any
    meta: Meta = ()


@dataclass(slots=True)
class Route:
    """A handler, ready to be called.

    Attributes:
        within: Middleware that stands around it alone, the outermost first: that of the App with
            which it was included.
        lone, plain: To be called with the message, or with session and message; both None:
            `invoke` is to be.
        form: What its last message was written in,
        short: bytes of such a message for which `quick` stands in, as for more that are shallow,
        quick: and decodes it, or raises anything: then `messages.decode` says what is wrong.
    """

    wanted: Wanted
    invoke: Callable[[Session, Any, Any], Any]
    needs_request: bool
    within: tuple[Middleware, ...] = ()
    lone: Callable[[Any], Any] | None = None
    plain: Callable[[Session, Any], Any] | None = None
    form: Any = None
    short: int = -1
    quick: Callable[[bytes], Any] = bytes

    def decode(self, body: bytes, form: BodyFormat) -> Any:
        """Its message.

        Raises:
            BadBody: there is none of its type.
        """
        kind = self.wanted.kind
        if form is not self.form:
            make = None if kind in (None, bytes, Body) else getattr(form, "quick", None)
            quick = None if make is None else make(kind)
            self.form = form
            self.short = -1 if quick is None else MAX_DEPTH
            self.quick = quick or bytes
        if self.short > 0 and is_shallow_json(body):
            with suppress(Exception):
                return self.quick(body)
        return decode(body, form, kind)


class Answering:
    """Who sends answers: a carrier."""

    def reply(self, event: Message, result: Any, meta: Meta) -> None:
        """Answer it, if an answer is waited for; raises what is wrong with the result."""
        raise NotImplementedError

    def refuse(self, event: Message, refused: Refused) -> None:
        """Say that it is not done, if an answer is waited for."""
        raise NotImplementedError

    def let_on(self, event: Message, on: bool) -> None:
        """A request that is not answered is done elsewhere, so that its session need not be held
        to answer it first; off again: it is about to be answered."""


async def onion(call: Middleware, inner: Handler, request: Request) -> Any:
    made = call(request, inner)
    return await made if isawaitable(made) else made


def ready(call: Callable[..., Any]) -> Route:
    """A handler, looked at and bound to the order of its parameters."""
    how = wanted(call, Session, Request)
    invokes: dict[tuple[str, ...], Callable[[Any, Any, Any], Any]] = {
        (): lambda _session, _request, _message: call(),
        ("session",): lambda session, _request, _message: call(session),
        ("message",): lambda _session, _request, message: call(message),
        ("request",): lambda _session, request, _message: call(request),
        ("session", "message"): lambda session, _request, message: call(session, message),
    }

    def by_order(session: Any, request: Any, message: Any) -> Any:
        values = {"session": session, "request": request, "message": message}
        return call(*[values[one] for one in how.order])

    return Route(
        how,
        invokes.get(how.order, by_order),
        "request" in how.order,
        lone=call if how.order == ("message",) else None,
        plain=call if how.order == ("session", "message") else None,
    )

"""A session whose client is connected to another node, its gate: what a node has of it.

Rule: it is a session like all others, but its transport is calls: what comes is a message with a
place in its strand, what it is told is a call to the gate, in order. Where a call is lost, so that
nobody knows what the client has heard, the session is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail

from fastway.app.app import App
from fastway.app.asks import Asks
from fastway.app.handlers import Answering
from fastway.app.messages import encode
from fastway.app.session import Lane, Rooms, Session, SessionEnded
from fastway.cluster.grpc import MAX_MESSAGE, CallFailed, Status
from fastway.cluster.messages import (
    CLOSE_SESSION,
    NOTHING,
    PUSH,
    RESPONSE,
    message_class,
)
from fastway.cluster.sequence import Sequence
from fastway.dialect import BodyFormat, FrameRefused, Message, Meta, NotInDialect, Refused
from fastway.dialect.pomelo_json import write_refusal
from fastway.dialect.pomelo_packets import route_field
from fastway.errors import RequestsFull
from fastway.formats import Json
from fastway.logs import escaped, make_logger

log = make_logger("fastway.cluster")

NOT_FOUND = "session not found"
"""How nano's gates begin what they say to calls for a session that they do not have,"""
BROKEN = "broken low-level pipe"
"""and for one whose client has just left."""

_Push: Any = message_class("PushMessage")
_Response: Any = message_class("ResponseMessage")
_Close: Any = message_class("CloseSessionRequest")

GOODBYE = 5.0
"""Seconds that a gate has to take what a session was told before it was closed."""

HEADROOM = 1024
"""Bytes of a message that are not its body, at most; routes are shorter."""


class Home(Protocol):
    """What mirrors need of their node."""

    @property
    def app(self) -> App: ...

    @property
    def format(self) -> BodyFormat: ...

    @property
    def replies(self) -> bool:
        """Who is refused is told so."""

    @property
    def keeps_clients(self) -> bool:
        """Clients whose sessions end here are asked to go; not when it is the node that goes."""

    def mirror_ended(self, mirror: Mirror, closing: bool) -> None:
        """It is over. `closing`: its client is asked to go, too."""

    def mirror_closed(self, mirror: Mirror) -> None:
        """And has been."""


class Mirror(Answering):
    """What carries a session that is at a gate.

    Attributes:
        gate: The address of that,
        id: and the session's number there.
        sticky: Service -> address of who serves it for this session.
        sequences: Address -> its calls there.
    """

    __slots__ = (
        "_asks",
        "_backlog",
        "_head",
        "_kept",
        "_queued",
        "_rooms",
        "_told",
        "_unanswered",
        "gate",
        "home",
        "id",
        "sequences",
        "session",
        "sticky",
    )  # fmt: skip

    dialect = "nano"
    lane: Lane | None = None

    def __init__(self, home: Home, gate: str, session_id: int, told: Sequence) -> None:
        self.home = home
        self.gate = gate
        self.id = session_id
        self.sticky: dict[str, str] = {}
        self.sequences: dict[str, Sequence] = {}
        self._told = told
        self._head = _Push(sessionId=session_id).SerializeToString()
        self._backlog: deque[tuple[Message, Deferred[bytes]]] = deque()
        self._kept = 0
        self._queued = 0
        self._unanswered = 0
        self._rooms = Rooms()
        self._asks: Asks | None = None
        self.session: Session = home.app.new_session(self)

    @property
    def address(self) -> str:
        return f"{self.gate}/{self.id}"

    @property
    def shape(self) -> Hashable:
        return "nano", id(self.home.format)

    # What comes.

    def take(self, event: Message) -> bytes | Deferred[bytes]:
        """Handle a message, or keep it until there is room: then the caller waits, and with it
        what it has of this session.

        Raises:
            CallFailed: too much waits already.
        """
        if self._asks is not None and event.token is None:
            answer = self._asks.answers(event)
            if answer is not None:
                self.home.app.counts.messages += 1
                self._asks.answered(answer)
                return NOTHING
        if not self._backlog and self._has_room():
            self._handle(event)
            return NOTHING
        bounds = self.home.app.bounds
        if 0 < bounds.strand <= len(self._backlog) or 0 < 2 * bounds.queued < self._kept:
            raise CallFailed(Status.RESOURCE_EXHAUSTED, "too many messages of this session wait")
        kept: Deferred[bytes] = Deferred()
        self._backlog.append((event, kept))
        self._kept += len(event.body)
        return kept

    def _has_room(self) -> bool:
        bounds = self.home.app.bounds
        return (
            not 0 < bounds.requests <= self._unanswered
            and not 0 < bounds.queued < self._queued
            and self.session.strand.has_room(self)
        )

    def _handle(self, event: Message) -> None:
        app, session = self.home.app, self.session
        counts = app.counts
        counts.messages += 1
        if event.token is not None:
            counts.requests += 1
            counts.pending += 1
            self._unanswered += 1
        strand = session.strand
        if strand.begins():
            strand.goes_on(app.handle(session, event, self))
            return
        self._queued += len(event.body)
        strand.run(partial(self._late, event))

    def _late(self, event: Message) -> Any:
        """Handle what waited for its strand."""
        self._queued -= len(event.body)
        made = self.home.app.handle(self.session, event, self)
        if self._backlog:
            self._go_on()
        return made

    def strand_has_room(self) -> None:
        self._go_on()

    def _go_on(self) -> None:
        while self._backlog and self.session.ended is None and self._has_room():
            event, kept = self._backlog.popleft()
            self._kept -= len(event.body)
            self._handle(event)
            kept.callback(NOTHING)

    # What it is told.

    def pack(self, route: str, message: Any, meta: Meta = ()) -> bytes:
        if meta:
            raise NotInDialect("nothing goes beside a message in a nano cluster")
        route_field(route)  # what its client could not be told is refused here
        body = encode(message, self.home.format)
        if len(body) + len(route) > MAX_MESSAGE - HEADROOM:
            raise FrameRefused(f"{len(body)} bytes; a call of the cluster has {MAX_MESSAGE}")
        packed: bytes = _Push(route=route, data=body).SerializeToString()
        return packed

    def tell(self, packet: bytes) -> None:
        if self.session.ended is None:
            self.home.app.counts.sent += 1
            self._say(PUSH, self._head + packet)

    def _say(self, path: bytes, message: bytes) -> None:
        told, bounds = self._told, self.home.app.bounds
        told.start(path, message, self._was_told)
        if 0 < bounds.waiting < told.waiting and not told.is_idle:
            self.lose("slow_reader", "its gate does not take what it is told")

    def _was_told(self, result: bytes | CallFailed) -> None:
        if isinstance(result, CallFailed):
            self._not_told(result)
        elif self._rooms and self._told.waiting <= self.home.app.bounds.enough:
            self._rooms.fire()

    def _not_told(self, failure: CallFailed) -> None:
        if self.session.ended is not None:
            return
        if not failure.heard:
            self.lose("gate", f"its gate cannot be told: {failure.text}", failure)
        elif failure.text.startswith((NOT_FOUND, BROKEN)):
            self.left("the client has left its gate")
        else:
            gate = self.gate
            self.home.app.quiet.warn(
                log,
                "calls to gates",
                gate,
                "{gate} does not take what {peer} is told: {problem}",
                gate=gate,
                peer=self.address,
                problem=escaped(failure.text),
            )

    def room(self) -> Deferred[None] | None:
        if self._told.waiting <= self.home.app.bounds.enough or self.session.ended is not None:
            return None
        return self._rooms.wait()

    # Answers.

    def reply(self, event: Message, result: Any, meta: Meta = ()) -> None:
        if event.token is not None:
            form = self.home.format
            body = encode(result, form)
            if not body and isinstance(form, Json):
                body = b"null"  # clients in Go and JavaScript take no empty answer
            self._answer(event.token, body)

    def refuse(self, event: Message, refused: Refused) -> None:
        if event.token is None:
            return
        self.home.app.counts.refused += 1
        says = self.home.replies and isinstance(self.home.format, Json)
        self._answer(event.token, write_refusal(refused) if says else None)

    def _answer(self, token: int, body: bytes | None) -> None:
        self._unanswered -= 1
        self.home.app.counts.pending -= 1
        if body is not None and self.session.ended is None:
            if len(body) > MAX_MESSAGE - HEADROOM:
                log.warn("{size} bytes are no answer to {peer}", size=len(body), peer=self.address)
            else:
                said = _Response(sessionId=self.id, id=token, data=body).SerializeToString()
                self._say(RESPONSE, said)
        if self._backlog:
            self._go_on()

    def request(
        self,
        route: str,
        message: Any,
        into: Any,
        timeout: float | None,
        meta: Meta,
        heard: list[tuple[str, str]] | None = None,
    ) -> Deferred[Any]:
        return fail(NotInDialect("clients of a nano cluster cannot be asked"))

    def next(self, route: str, into: Any, timeout: float | None) -> Deferred[Any]:
        app = self.home.app
        if self._asks is None:
            self._asks = Asks(app.clock, lambda _: None)
        limit, count = app.bounds.asked, len(self._asks)
        if 0 < limit <= count:
            return fail(RequestsFull(count, limit))
        return self._asks.wait_for(route, into, timeout)

    # The end.

    def lose(self, code: str, problem: str, cause: Exception | None = None) -> None:
        """End it for a reason; its client is asked to go."""
        if self.session.ended is not None:
            return
        app = self.home.app
        app.counts.lost[code] += 1
        app.quiet.warn(
            log,
            "sessions at gates",
            self.gate,
            "{peer} lost: {problem}",
            peer=self.address,
            problem=escaped(problem),
        )
        self._told.clear()
        self._close(SessionEnded(problem, cause or SessionEnded(problem)))

    def close(self) -> None:
        if self.session.ended is None:
            self._close(SessionEnded("closed here"))

    def abort(self) -> None:
        self._told.clear()
        self.close()

    def kick(self, reason: Any = None) -> None:
        if self.session.ended is None:
            why = "kicked" if reason is None else f"kicked: {reason}"
            self._close(SessionEnded(why))

    def _close(self, why: SessionEnded) -> None:
        """End it here, and at its gate behind what it was told."""
        if not self.home.keeps_clients:
            self.end(why)
            return
        close = _Close(sessionId=self.id).SerializeToString()
        self.end(why, True)
        told = self._told
        told.start(CLOSE_SESSION, close, self._closed_there)
        if not told.is_idle:
            self.home.app.clock.callLater(GOODBYE, told.hurry)

    def _closed_there(self, _: object) -> None:
        self.home.mirror_closed(self)

    def left(self, why: str) -> None:
        """Its client is gone, and hears nothing more."""
        self._told.end()
        self.end(SessionEnded(why))

    def end(self, why: SessionEnded, closing: bool = False) -> None:
        """It is over."""
        session = self.session
        if session.ended is not None:
            return
        home = self.home
        home.mirror_ended(self, closing)
        session.strand.forget(self)
        home.app.close(session, why)
        backlog, self._backlog = self._backlog, deque()
        for _, kept in backlog:
            kept.errback(CallFailed(Status.UNKNOWN, f"{NOT_FOUND}: {self.id}"))
        if self._asks is not None:
            self._asks.end(lambda: SessionEnded(str(why), why.cause))
        self._rooms.fire()

"""One connection of an application: a transport, a dialect's wire and a session.

Rule: every queue has a bound, and who is over one is not read from or is lost, with a reason; a
peer's bytes never become a traceback. Answers to what is asked here never wait for anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from fastway.address import host_of
from fastway.app.app import App
from fastway.app.asks import Asks
from fastway.app.handling import BUSY, FAILED, KICKED
from fastway.app.messages import encode
from fastway.app.rate import Rate
from fastway.app.session import NotReady, Session, SessionEnded
from fastway.app.telling import (
    HOLD_DRAIN,
    HOLD_HELLO,
    HOLD_QUEUED,
    HOLD_RATE,
    HOLD_REQUESTS,
    HOLD_STRAND,
    Telling,
)
from fastway.dialect import (
    Answer,
    Dialect,
    Event,
    Hello,
    Kicked,
    Message,
    Meta,
    NotLetIn,
    Refused,
    Wire,
)
from fastway.dialect import (
    Ready as ReadyEvent,
)
from fastway.errors import LocalError, RemoteError, RequestsFull
from fastway.logs import escaped, make_logger

log = make_logger("fastway.app")

_ORDERLY = (ConnectionDone,)

Ready: TypeAlias = Callable[[Any], object]
"""Who waits for a session: called with it once it is ready, or with a Failure."""

GOODBYE = 5.0
"""Seconds that a peer has to take what it was told before it is closed."""


def kick_text(reason: Any) -> str:
    """Why somebody is kicked, as a sentence."""
    said = reason.get("reason", "") if isinstance(reason, dict) else reason
    return "" if said is None else str(said)


class Link(Telling):
    """One connection.

    Args:
        app, dialect, wire: As `Telling` has them.
        ready: Called with the session once it is, or with a Failure; None: nobody waits.

    Attributes:
        keeper: Whose its session is, that outlives it (`redial`); None: nobody's.
    """

    __slots__ = (
        "_asks",
        "_backlog",
        "_beats",
        "_deadline",
        "_handling",
        "_kept",
        "_paused",
        "_queued",
        "_rate",
        "_ready",
        "_why",
        "keeper",
    )

    def __init__(
        self,
        app: App,
        dialect: Dialect,
        wire: Wire,
        ready: Ready | None = None,
    ) -> None:
        super().__init__(app, dialect, wire)
        self.keeper: Any = None
        bounds = self._bounds
        self._rate = Rate(bounds) if bounds.messages or bounds.bytes else None
        self._beats: float | None = None
        self._ready = ready
        self._backlog: deque[Message] | None = None
        self._handling = False
        self._paused = False
        self._kept = 0
        self._queued = 0
        self._asks: Asks | None = None
        self._deadline: float | None = None
        self._why: SessionEnded | None = None

    # The connection.

    def connectionMade(self) -> None:
        self._met()
        self._begin()

    def _met(self) -> None:
        """There is a connection; its dialect has not begun."""
        transport = cast(Any, self.transport)
        self.channel = getattr(transport, "conn", None)
        transport.registerProducer(self, True)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        self._shared.links.add(self)
        self._deadline = self._shared.wheel.seconds() + self._bounds.handshake_timeout
        self._shared.wheel.watch(self, self._deadline)

    def _begin(self) -> None:
        now = self._shared.wheel.seconds()
        self._shared.writes.begin()
        try:
            self.wire.begin(now)
            self._took(self.wire.receive(b"", now))
        except Exception as error:  # what this side was to say of itself
            self._failed("a greeting", "nothing can be said to {peer}")
            self.lose("failed", f"it cannot be greeted: {type(error).__name__}")
        finally:
            self._shared.writes.end()

    def dataReceived(self, data: bytes) -> None:
        if self._gone or self._closing:
            return
        rate = self._rate
        if rate is not None:
            self._pay(rate.bytes(len(data), self._shared.wheel.seconds()))
        shared = self._shared
        writes = shared.writes
        writes.begin()
        try:
            self._took(self.wire.receive(data, shared.wheel.seconds()))
        finally:
            writes.end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._gone:
            return
        self._address = self.address
        self._gone = True
        shared = self._shared
        shared.links.discard(self)
        shared.wheel.forget(self)
        why = self._why or SessionEnded(
            "the peer closed",
            None if reason.check(*_ORDERLY) else cast(Exception, reason.value),
        )
        self._backlog = self._out = self._early = None
        rooms, self._rooms = self._rooms, None
        asks, self._asks = self._asks, None
        rate = self._rate
        if rate is not None and rate.timer is not None and rate.timer.active():
            rate.timer.cancel()
        session, self.session = self.session, None  # no cycle
        shared.writes.begin()
        try:
            if session is not None:
                session.strand.forget(self)
                if self.keeper is None or not self.keeper.keeps(self, why):
                    self.app.close(session, why)
            if asks is not None:
                asks.end(lambda: SessionEnded(str(why), why.cause))
            if rooms is not None:
                rooms.fire()
            # A client that was not let in fails with what its server said.
            self._tell_ready(Failure(why.cause if isinstance(why.cause, Refused) else why))
        finally:
            shared.writes.end()

    def lose(
        self, code: str, problem: str, *, answer: bool = False, cause: Exception | None = None
    ) -> None:
        if self._gone or self._why is not None:
            return
        self._why = SessionEnded(problem, cause or SessionEnded(problem))
        self.app.counts.lost[code] += 1
        self.app.quiet.info(
            log,
            f"lost ({code})",
            host_of(self.address),
            "{peer} lost: {problem}",
            peer=self.address,
            problem=escaped(problem),
        )
        if answer:
            self.close()
        else:
            self._closing = True
            cast(Any, self.transport).abortConnection()

    # What came.

    def _took(self, events: list[Event]) -> None:
        wire = self.wire
        said = wire.data_to_send()
        if said:
            for data in said:
                self._write(self._unit(data))
        for event in events:
            if self._gone or self._closing:
                break
            if type(event) is not Message:
                self._handle(event)
            elif not (self._holds or self._backlog):
                self._message(event)
            elif self._asks is None or not self._next_came(event):
                self._keep(event)  # what is waited for, and the end, do not wait
        if wire.error is not None:
            self._has_failed(wire.error)
        if wire.deadline != self._beats:
            self._watch()

    def _has_failed(self, error: RemoteError) -> None:
        """The wire understands nothing more."""
        if isinstance(error, NotLetIn):
            self.lose("not_let_in", str(error), answer=True, cause=error.refused)
        else:
            self.lose("bad_frame", str(error), answer=True)

    def _keep(self, event: Message) -> None:
        """What cannot be handled now waits."""
        if self._backlog is None:
            self._backlog = deque()
        self._backlog.append(event)
        self._kept += len(event.body)
        if not self._asks:
            return
        # It is read from all the same, because it may be answering.
        bounds = self._bounds
        most = 2 * (bounds.queued + self._dialect.max_frame) if bounds.queued else 0
        if 0 < bounds.strand < len(self._backlog) or 0 < most < self._kept:
            self.lose("flood", "too many messages wait for it to answer")

    def _handle(self, event: Event) -> None:
        kind = type(event)
        if kind is Message:
            self._message(event)  # type: ignore[arg-type]
        elif kind is Answer:
            if self._asks is not None:
                self._asks.answered(cast(Answer, event))
        elif kind is ReadyEvent:
            self._is_ready(cast(ReadyEvent, event).user)
        elif kind is Hello:
            self._hello(cast(Hello, event))
        else:
            self._kicked(cast(Kicked, event))

    def _message(self, event: Message) -> None:
        session, app = self.session, self.app
        if session is None or (self._asks is not None and self._next_came(event)):
            return
        strand = session.strand
        now = strand.running < strand.width and not strand.queue
        if not now and not strand.has_room(self):
            self._hold(HOLD_STRAND)
            if self._backlog is None:
                self._backlog = deque()
            self._backlog.appendleft(event)
            self._kept += len(event.body)
            return
        if self._rate is not None:
            self._pay(self._rate.message(self._shared.wheel.seconds()))
        counts = app.counts
        counts.messages += 1
        if event.token is not None:
            counts.requests += 1
            counts.pending += 1
            self._unanswered += 1
            if 0 < self._bounds.requests <= self._unanswered:
                self._holds |= HOLD_REQUESTS
        if now:
            strand.running += 1
            made = app.handle(session, event, self)
            if made is not None:
                strand.goes_on(made)
            else:
                strand.running -= 1
                if strand.queue:
                    strand.go_on()
        else:
            self._queued += len(event.body)
            if 0 < self._bounds.queued < self._queued:
                self._holds |= HOLD_QUEUED
            strand.run(partial(self._late, session, event))
        if self._holds:
            self._flow()

    def _late(self, session: Session, event: Message) -> Coroutine[Any, Any, None] | None:
        """Handle what waited for its strand."""
        self._queued -= len(event.body)
        made = self.app.handle(session, event, self)
        if self._holds & HOLD_QUEUED and self._queued <= self._bounds.queued // 2:
            self._release(HOLD_QUEUED)
        return made

    def _hello(self, hello: Hello) -> None:
        session = self._new_session()
        problem = self.app.refuses(session)
        if problem:
            self._let_in(Failure(Refused(BUSY, problem)))
            return
        asked = self.app.hello(session, hello)
        if asked is None:
            self._let_in(None)
            return
        self._holds |= HOLD_HELLO
        asked.addBoth(self._let_in)
        self._flow()

    def _let_in(self, result: Any) -> None:
        if self._gone or self._closing:
            if isinstance(result, Failure) and not result.check(Refused, SessionEnded):
                self._failed("a handshake", "the handshake with {peer} failed", result)
            return
        wire = self.wire
        writes = self._shared.writes
        writes.begin()
        try:
            if not isinstance(result, Failure):
                try:
                    wire.accept(result)
                except Exception:  # what the hook wants it told cannot be said
                    result = Failure()
            if isinstance(result, Failure):
                self._reject(result)
                return
            self._release(HOLD_HELLO)
            self._took(wire.receive(b"", self._shared.wheel.seconds()))
        finally:
            writes.end()

    def _reject(self, failure: Failure) -> None:
        refused = failure.value
        if not isinstance(refused, Refused):
            self._failed("a handshake", "the handshake with {peer} failed", failure)
            refused = Refused(FAILED, "internal error")
        try:
            self.wire.reject(refused)
        except Exception:  # its text is too long, or nothing that can be said
            self._failed("a refusal", "{peer} was refused with what cannot be said")
            self.wire.reject(Refused(FAILED, "internal error"))
        self._send_data()
        self.lose("refused", f"refused: {str(refused)[:200]}", answer=True)

    def _send_data(self) -> None:
        for data in self.wire.data_to_send():
            self._write(self._unit(data))

    def _new_session(self) -> Session:
        if self.session is None:
            keeper = self.keeper
            if keeper is None:
                self.session = self.app.new_session(self, self._dialect.concurrent)
            else:
                self.session = keeper.session_of(self)
        return self.session

    def _is_ready(self, user: Any) -> None:
        session = self._new_session()
        known = session.session_id in self.app.sessions
        if known and self._ready is None:
            return
        problem = self.app.refuses(session)
        if problem:
            self.lose("full", f"it comes while the application is {problem}", answer=True)
            return
        age = self._bounds.age
        self._deadline = self._shared.wheel.seconds() + age if age else None
        if age:
            self._watch()
        self._tell_early()
        session.let_in()
        if self.keeper is not None:
            self.keeper.is_up(self)
        if not known:
            self.app.open(session)
        self._tell_ready(session)

    def _tell_ready(self, result: Any) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready(result)

    def _kicked(self, event: Kicked) -> None:
        reason = "" if event.reason is None else f": {str(event.reason)[:200]}"
        problem = f"the peer ended it{escaped(reason)}"
        self._ends(problem, Refused(0, problem, event.reason))

    def _ends(self, problem: str, cause: Exception | None = None, closes: bool = True) -> None:
        """The peer said that it ends."""
        if self._why is None:
            self._why = SessionEnded(problem, cause)
        if closes:
            self.close()

    # Not to read from it, and to go on.

    def _hold(self, why: int) -> None:
        self._holds |= why
        self._flow()

    def _release(self, why: int) -> None:
        if not self._holds & why:
            return
        self._holds &= ~why
        if self._gone:
            return
        if self._holds:
            self._flow()
        else:
            self._go_on()

    def _flow(self) -> None:
        """Read from it, or do not: who is asked something is, unless he says too much."""
        holds = self._holds
        pauses = bool(holds) and (holds & HOLD_RATE != 0 or not self._asks)
        if pauses is self._paused or self._gone or self._closing:
            return
        self._paused = pauses
        transport = cast(Any, self.transport)
        if pauses:
            transport.pauseProducing()
        else:
            transport.resumeProducing()

    def _go_on(self) -> None:
        """Handle what waits, then read on."""
        if self._handling:
            return
        self._handling = True
        writes = self._shared.writes
        writes.begin()
        try:
            while self._backlog and not self._holds and not self._gone:
                event = self._backlog.popleft()
                self._kept -= len(event.body)
                self._handle(event)
            if not self._backlog:
                self._backlog = None
        finally:
            self._handling = False
            writes.end()
        self._flow()

    def drain(self) -> None:
        """Take no more messages."""
        self._hold(HOLD_DRAIN)

    def strand_has_room(self) -> None:
        self._release(HOLD_STRAND)

    def _pay(self, late: float) -> None:
        """It has said too much for so many seconds."""
        rate = self._rate
        if late > 0 and rate is not None and not self._holds & HOLD_RATE:
            self._hold(HOLD_RATE)
            rate.timer = self.app.clock.callLater(late, self._release, HOLD_RATE)

    # What it is asked, and waited for.

    def request(
        self,
        route: str,
        message: Any,
        into: Any,
        timeout: float | None,
        meta: Meta,
        heard: list[tuple[str, str]] | None = None,
    ) -> Deferred[Any]:
        asks = self._asking()
        if isinstance(asks, Deferred):
            return asks
        session = cast(Session, self.session)
        try:
            out = self.app.outgoing_message(session, route, message, meta)
            body = encode(out.message, self.wire.format)
            key, data = self.wire.request(out.route, body, out.meta)
        except Exception:
            return fail()
        done = asks.ask(key, route, into, timeout, heard)
        self._listen()
        self.tell(self._unit(data))
        return done

    def next(self, route: str, into: Any, timeout: float | None) -> Deferred[Any]:
        asks = self._asking()
        if isinstance(asks, Deferred):
            return asks
        try:  # by whichever name it is asked for, it comes by one
            route = self._dialect.app_name(self._dialect.wire_name(route))
        except LocalError:
            return fail()
        done = asks.wait_for(route, into, timeout)
        self._listen()
        return done

    def _asking(self) -> Asks | Deferred[Any]:
        """What waits for the peer; or what a request fails with when it is too early, or as many
        wait as may."""
        if not self.wire.ready:
            return fail(NotReady())
        asks = self._asks
        if asks is None:
            asks = self._asks = Asks(self.app.clock, self._forgot)
        limit = self._bounds.asked
        return fail(RequestsFull(len(asks), limit)) if 0 < limit <= len(asks) else asks

    def _forgot(self, key: int) -> None:
        """Somebody waits no more."""
        if key > 0:
            self.wire.forget(key)
        self._listen()

    def _listen(self) -> None:
        """Who is asked something is read from, and who is asked nothing as his holds say."""
        if self._holds:
            self._flow()

    def _next_came(self, event: Message) -> bool:
        """Give a message to who waits for it; False: nobody does."""
        asks = cast(Asks, self._asks)
        answer = asks.answers(event)
        if answer is None:
            return False
        self.app.counts.messages += 1
        if self._rate is not None:
            self._pay(self._rate.message(self._shared.wheel.seconds()))
        asks.answered(answer)
        return True

    # The end.

    def close(self) -> None:
        if self._gone or self._closing:
            return
        self._closing = True
        if self._why is None:
            self._why = SessionEnded("closed here")
        self._backlog = None
        self._deadline = self._shared.wheel.seconds() + GOODBYE
        self._watch()
        if not self._full:
            self.flush()
            if not self._full:
                self._leave()

    def abort(self) -> None:
        if self._gone:
            return
        self._closing = True
        if self._why is None:
            self._why = SessionEnded("closed here")
        cast(Any, self.transport).abortConnection()

    def kick(self, reason: Any = None) -> None:
        if self._gone or self._closing:
            return
        if not self.wire.ready and self._holds & HOLD_HELLO:
            self._reject(Failure(Refused(KICKED, kick_text(reason), reason)))
            return
        try:
            data = self.wire.kick(reason)
        except Exception:  # that is its sender's error; it ends all the same
            self.close()
            raise
        if data:
            self._write(self._unit(data))
        if self._why is None:
            self._why = SessionEnded(f"kicked: {reason}" if reason is not None else "kicked")
        self.close()

    def _leave(self) -> None:
        transport = cast(Any, self.transport)
        if self._paused:  # TLS hears of its end by what it reads
            transport.resumeProducing()
        transport.unregisterProducer()  # else some would wait for more of it
        transport.loseConnection()

    # Time.

    def _watch(self) -> None:
        self._beats = self.wire.deadline
        due = self._due()
        if due is not None and not self._gone:
            self._shared.wheel.watch(self, due)

    def _due(self) -> float | None:
        mine, wires = self._deadline, None if self._closing else self.wire.deadline
        if mine is None or wires is None:
            return wires if mine is None else mine
        return min(mine, wires)

    def check(self, now: float) -> float | None:
        """The wheel asks."""
        if self._gone:
            return None
        if self._deadline is not None and now >= self._deadline:
            if self._closing:
                cast(Any, self.transport).abortConnection()
            elif self.session is not None and self.session.session_id in self.app.sessions:
                self.lose("too_old", "it has lived as long as it may", answer=True)
                return self._due()
            else:
                self.lose("handshake_timeout", "it was not ready in time")
            return None
        wire = self.wire
        if not self._closing and wire.deadline is not None and now >= wire.deadline:
            wire.tick(now, self._paused)
            self._send_data()
            if wire.error is not None:
                self.lose("silent", str(wire.error), answer=True)
        return self._due()

"""The gateway itself, as a game server asks and hears it: its control connection put to work.

Rule: what is said is `control_core`'s; this has the link, the clock, and who waits. Where a
gateway has no such thing nothing is missed: `control` stays None. (spec control.md)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

from fastway.control import SERVICE_ID, Bye, ClosedWhy, Draining, Facts, LostEvents, Moved
from fastway.endpoint.channel import Channel
from fastway.endpoint.control_core import ControlCore, ControlState, Event
from fastway.endpoint.core import ConnState, Dial, EndpointCore
from fastway.endpoint.requests import Answered, Request, Welcome
from fastway.errors import EndpointEnded, FastwayError, NoControl, RequestsFull
from fastway.waiting import Loop, Timer, Waiters

GROUPS = "groups"
"""The feature of a gateway that has groups and pushes."""

KICKED = 4000
"""The close code that a WebSocket client is told, if nobody says another."""


MOST_NAMED = 1000
"""Connections that one request names at most: the object of a request has its bound."""


class ControlLink(Protocol):
    """What a control connection runs over: a `link.Link`."""

    core: EndpointCore
    loop: Loop
    conns: dict[int, Channel[Any]]
    full: bool

    def write(self, data: bytes) -> None: ...


class Control:
    """What a game server may ask of its gateway.

    What the verbs return can be awaited: a Deferred on Twisted, a future on asyncio. It fails with
    RequestRefused when the gateway says no, with RequestTimeout when it says nothing within 10 s,
    with NoControl when the control connection ends first. The verbs raise NoControl when it has
    ended, RequestsFull when too many are unanswered, and ValueError for what cannot be. On Twisted
    what is not awaited wants an errback, or its failure is logged.

    Attributes:
        draining: What the gateway said of its own end; None while it goes on.
        bye: What it said before it ended this connection, if it did.
        lost: Events that it dropped because this server did not read.
    """

    def __init__(self, link: ControlLink) -> None:
        self.draining: Draining | None = None
        self.bye: Bye | None = None
        self.lost = 0
        self.dial: Dial | None = None
        self._link = link
        self._core = ControlCore(link.core.conns, max_message=link.core.max_message)
        self._waiters: dict[Request, Any] = {}
        self._drainers = Waiters(link.loop)
        self._offers = Waiters(link.loop)
        self._timer: Timer | None = None
        self._over: FastwayError | None = None
        """Why nothing more will be told."""
        self._forgotten: deque[tuple[str, list[int]]] = deque()
        """Groups that nobody has any more, and who is to leave them."""

    def __repr__(self) -> str:
        return f"<Control, {self._core.state.value}>"

    # What the application asks for.

    @property
    def up(self) -> bool:
        """The gateway has one, and has greeted."""
        return self._core.state is ControlState.OPEN

    @property
    def welcome(self) -> Welcome | None:
        """What the gateway said of itself."""
        return self._core.welcome

    def who(self, who: Channel[Any] | int) -> Any:
        """The PlayerFacts of the client of a connection, or of a client's id."""
        if isinstance(who, Channel):
            return self._ask(self._core.who(self._now, conn=self._id(who)))
        return self._ask(self._core.who(self._now, client=who))

    def kick(self, who: Channel[Any] | int, text: str = "", code: int = KICKED) -> Any:
        """End a client's link to the gateway: that of a connection, or with this id.

        Args:
            text: Why, for people.
            code: What a WebSocket client is told, 1000 to 4999.
        """
        if isinstance(who, Channel):
            self._id(who)
            client = who.remote_id
        else:
            client = who
        return self._ask(self._core.kick(self._now, client, code, text))

    def user(self, conn: Channel[Any], user: str) -> Any:
        """Name the player behind a connection, for the gateway's log, metrics and operator.

        Args:
            user: 1 to 128 bytes of UTF-8 without control characters.
        """
        return self._ask(self._core.user(self._now, self._id(conn), user))

    def join(self, group: str, conns: Iterable[Channel[Any]]) -> Any:
        """Let connections join a group that the gateway keeps; the number of its members."""
        return self._ask(self._core.join(self._now, group, self._ids(conns)))

    def leave(self, group: str, conns: Iterable[Channel[Any]]) -> Any:
        """Let connections leave a group; the number of its members."""
        return self._ask(self._core.leave(self._now, group, self._ids(conns)))

    def push(
        self,
        message: bytes,
        *,
        group: str | None = None,
        conns: Iterable[Channel[Any]] | None = None,
        everyone: bool = False,
        but: Iterable[Channel[Any]] = (),
    ) -> Any:
        """Send encoded bytes to a group, to connections, or to all: one copy to the gateway.

        `Group` does this by itself; this is for groups of one's own.

        Returns:
            What can be awaited for Pushed: to how many it went, and who was not there.
        """
        some = None if conns is None else self._ids(conns)
        asked = self._core.push(
            self._now, message, group=group, conns=some, everyone=everyone, but=self._ids(but)
        )
        return self._ask(asked)

    def time(self) -> Any:
        """The gateway's time, in seconds since 1970."""
        return self._ask(self._core.time(self._now))

    def when_draining(self) -> Any:
        """What can be awaited until the gateway says that it will close: Draining.

        Fails with EndpointEnded when the link ends first, with NoControl when only the control
        connection does.
        """
        waiter = self._drainers.wait()
        if self.draining is not None:
            self._drainers.callback(self.draining)
        elif self._over is not None:
            self._drainers.errback(self._over)
        return waiter

    # What a Group asks for.

    def can_push(self, requests: int) -> bool:
        """So many requests would go out at once, in order with what is sent otherwise."""
        core = self._core
        welcome = core.welcome
        if not self.up or welcome is None or GROUPS not in welcome.features:
            return False
        return not self._link.full and core.can_send(requests, self._now)

    def push_unanswered(
        self, message: bytes, group: str, but: Iterable[Channel[Any]] = ()
    ) -> None:
        """Push to a group without being told what came of it: only when it `can_push`.

        Raises:
            MessageTooLarge: with what stands before it, it does not fit a packet.
        """
        link, core = self._link, self._core
        request = core.push_unanswered(self._now, message, group, self._ids(but))
        link.write(link.core.send(core.conn_id, request))

    @property
    def names_at_most(self) -> int:
        """Connections that one request may name; 0 where a packet has no room for any."""
        welcome = self._core.welcome
        size = self._link.core.max_message
        if welcome is not None:
            size = min(size, welcome.max_packet - 4)
        # 200 bytes are for the rest of the request, 11 for the longest id and its comma.
        return max(0, min(MOST_NAMED, (size - 200) // 11))

    def forget(self, group: str, conns: list[int]) -> None:
        """Let connections leave a group that nobody has any more, with the next `pump`.

        Nothing is sent here: the collector may call it, anywhere and in any thread.
        """
        if conns and self.up:
            self._forgotten.append((group, conns))

    # What the link calls.

    @property
    def conn_id(self) -> int:
        """The number of its virtual connection; 0 while there is none."""
        return self._core.conn_id

    def begin(self) -> None:
        """The server is logged in: ask for a control connection."""
        self.dial, data = self._link.core.dial(SERVICE_ID)
        self._link.write(data)

    def opened(self, conn_id: int) -> None:
        """The gateway has one."""
        self._core.opened(conn_id, self._now)
        self._link.core.inline = self._core.inline
        self.pump()

    def refused(self) -> None:
        """The gateway has none."""
        self._tell(self._core.refused())
        self._finish(NoControl("drain"))

    def received(self, message: bytes) -> None:
        """A message came over it."""
        self._tell(self._core.receive_message(message))
        self.pump()

    def closed(self) -> None:
        """Its virtual connection is closed."""
        self._tell(self._core.ended())
        self._finish(NoControl("drain"))

    def conn_opened(self, conn_id: int, extra: bytes) -> None:
        """Another virtual connection opened, and is in the link's `conns`."""
        self._tell(self._core.conn_opened(conn_id, extra))
        self._check()

    def conn_closed(self, conn_id: int, extra: bytes) -> str:
        """Another virtual connection closed. The reason, if the gateway tells it, or ''."""
        events = self._core.conn_closed(conn_id, extra)
        self._check()
        for event in events:
            if isinstance(event, ClosedWhy):
                return event.reason
        self._tell(events)
        return ""

    def link_ended(self, reason: EndpointEnded) -> None:
        """Nothing comes any more."""
        self._tell(self._core.ended(reason))
        self._finish(reason)

    def pump(self) -> None:
        """Send what may be sent, close it if it broke, and see when there is more to do."""
        link, core = self._link, self._core
        while self._can_write and (messages := self._next_messages()):
            for message in messages:
                link.write(link.core.send(core.conn_id, message))
        self._check()
        self._stop_timer()
        wakes_at = core.wakes_at(sending=self._can_write)
        if wakes_at is not None:
            self._timer = link.loop.call_later(max(0.0, wakes_at - self._now), self._woken)

    # Inside.

    @property
    def _now(self) -> float:
        return self._link.loop.seconds()

    @property
    def _can_write(self) -> bool:
        # Its Close may have come in the read that is being handled, and is about to be told.
        link = self._link
        return not link.full and link.core.conns.get(self.conn_id) is ConnState.OPEN

    def _next_messages(self) -> list[bytes]:
        core = self._core
        if self._forgotten and self.up and not core.waiting:
            group, conns = self._forgotten.popleft()
            most = self.names_at_most
            try:
                core.leave(self._now, group, conns[:most]).abandoned = True
            except RequestsFull:  # an answer makes room
                most = 0
            if conns[most:]:
                self._forgotten.appendleft((group, conns[most:]))
        return core.messages_to_send(self._now)

    def _ask(self, request: Request) -> Any:
        def forget(_: Any) -> None:
            request.abandoned = True
            self._waiters.pop(request, None)

        waiter = self._waiters[request] = self._link.loop.waiter(forget)
        self.pump()
        return waiter

    def _id(self, conn: Channel[Any]) -> int:
        link: object = conn.link
        if link is not self._link:  # here its number is another player's
            raise ValueError(f"{conn!r} is a connection of another gateway")
        return conn.conn_id

    def _ids(self, conns: Iterable[Channel[Any]]) -> list[int]:
        return [self._id(conn) for conn in conns]

    def _woken(self) -> None:
        self._timer = None
        self._tell(self._core.expire(self._now))
        self.pump()

    def _check(self) -> None:
        """Close it if the gateway broke it; nothing else ends."""
        core = self._core
        if core.error is not None and self._over is None:
            self._link.write(self._link.core.close(core.conn_id))
            self._link.core.inline = False
            self._finish(NoControl("drain", core.error))

    def _finish(self, error: FastwayError) -> None:
        """Nothing more will be told, and nobody waits for it."""
        self._stop_timer()
        if self._over is None:
            self._over = error
            self._forgotten.clear()
            self._offers.callback(None)
            self._drainers.errback(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Answered):
                self._answer(event)
            elif isinstance(event, Facts):
                conn = self._link.conns.get(event.conn_id)
                if conn is not None:
                    conn.facts = event.facts
            elif isinstance(event, Moved):
                for conn in self._link.conns.values():
                    if conn.facts is not None and conn.facts.client == event.client:
                        conn.facts = replace(conn.facts, addr=event.addr, port=0)
            elif isinstance(event, Draining):
                self.draining = event
                self._drainers.callback(event)
            elif isinstance(event, Bye):
                self.bye = event
            elif isinstance(event, LostEvents):
                self.lost += event.events
                self._link.loop.log_warn(f"the gateway dropped {event.events} events")
            elif isinstance(event, Welcome):
                self._offers.callback(self)

    def _answer(self, event: Answered) -> None:
        waiter = self._waiters.pop(event.request, None)
        if waiter is None or waiter.called:
            return
        if event.error is None:
            waiter.callback(event.result)
        else:
            waiter.errback(event.error)

    def when_offered(self) -> Any:
        """What can be awaited until it is known whether the gateway has one: this, or None."""
        waiter = self._offers.wait()
        if self.up:
            self._offers.callback(self)
        elif self._core.state in (ControlState.ABSENT, ControlState.ENDED):
            self._offers.callback(None)
        return waiter

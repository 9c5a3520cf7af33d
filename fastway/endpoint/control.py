"""The gateway itself, as a game server asks and hears it: its control connection put to work.

Rule: what is said is `control_core`'s; this has the link, the clock, and who waits. Where a
gateway has no such thing nothing is missed: `control` stays None. (spec control.md)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

from fastway.control import SERVICE_ID, Bye, ClosedWhy, Draining, Facts, LostEvents, Moved
from fastway.endpoint.channel import Channel
from fastway.endpoint.control_core import ControlCore, ControlState, Event
from fastway.endpoint.core import Dial, EndpointCore
from fastway.endpoint.requests import Answered, Request, Welcome
from fastway.errors import EndpointEnded
from fastway.waiting import Loop, Timer, Waiters

GROUPS = "groups"
"""The feature of a gateway that has groups and pushes."""

KICKED = 4000
"""The close code that a WebSocket client is told, if nobody says another."""


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
            return self._ask(self._core.who(self._now, conn=who.conn_id))
        return self._ask(self._core.who(self._now, client=who))

    def kick(self, who: Channel[Any] | int, text: str = "", code: int = KICKED) -> Any:
        """End a client's link to the gateway: that of a connection, or with this id.

        Args:
            text: Why, for people.
            code: What a WebSocket client is told, 1000 to 4999.
        """
        client = who.remote_id if isinstance(who, Channel) else who
        return self._ask(self._core.kick(self._now, client, code, text))

    def user(self, conn: Channel[Any], user: str) -> Any:
        """Name the player behind a connection, for the gateway's log, metrics and operator.

        Args:
            user: 1 to 128 bytes of UTF-8 without control characters.
        """
        return self._ask(self._core.user(self._now, conn.conn_id, user))

    def join(self, group: str, conns: Iterable[Channel[Any]]) -> Any:
        """Let connections join a group that the gateway keeps; the number of its members."""
        return self._ask(self._core.join(self._now, group, _ids(conns)))

    def leave(self, group: str, conns: Iterable[Channel[Any]]) -> Any:
        """Let connections leave a group; the number of its members."""
        return self._ask(self._core.leave(self._now, group, _ids(conns)))

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
        some = None if conns is None else _ids(conns)
        asked = self._core.push(
            self._now, message, group=group, conns=some, everyone=everyone, but=_ids(but)
        )
        return self._ask(asked)

    def time(self) -> Any:
        """The gateway's time, in seconds since 1970."""
        return self._ask(self._core.time(self._now))

    def when_draining(self) -> Any:
        """What can be awaited until the gateway says that it will close: Draining.

        Fails with EndpointEnded when the connection ends first.
        """
        waiter = self._drainers.wait()
        if self.draining is not None:
            self._drainers.callback(self.draining)
        return waiter

    # What a Group asks for.

    def can_push(self, requests: int) -> bool:
        """So many requests would go out at once, in order with what is sent otherwise."""
        core = self._core
        welcome = core.welcome
        if not self.up or welcome is None or GROUPS not in welcome.features:
            return False
        return not self._link.full and core.can_send(requests, self._now)

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
        self._offers.callback(None)

    def received(self, message: bytes) -> None:
        """A message came over it."""
        self._tell(self._core.receive_message(message))
        self.pump()

    def closed(self) -> None:
        """Its virtual connection is closed."""
        self._over(None)

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
        self._over(reason)
        self._drainers.errback(reason)

    def pump(self) -> None:
        """Send what may be sent, close it if it broke, and see when there is more to do."""
        link, core = self._link, self._core
        if not link.full:
            for message in core.messages_to_send(self._now):
                link.write(link.core.send(core.conn_id, message))
        self._check()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wakes_at = core.wakes_at(sending=not link.full)
        if wakes_at is not None:
            self._timer = link.loop.call_later(max(0.0, wakes_at - self._now), self._woken)

    # Inside.

    @property
    def _now(self) -> float:
        return self._link.loop.seconds()

    def _ask(self, request: Request) -> Any:
        def forget(_: Any) -> None:
            request.abandoned = True
            self._waiters.pop(request, None)

        waiter = self._waiters[request] = self._link.loop.waiter(forget)
        self.pump()
        return waiter

    def _woken(self) -> None:
        self._timer = None
        self._tell(self._core.expire(self._now))
        self.pump()

    def _check(self) -> None:
        """Close it if the gateway broke it; nothing else ends."""
        core = self._core
        if core.error is not None and core.conn_id:
            self._link.write(self._link.core.close(core.conn_id))
            self._link.core.inline = False

    def _over(self, cause: Exception | None) -> None:
        self._tell(self._core.ended(cause))
        self._offers.callback(None)
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
                        conn.facts = replace(conn.facts, addr=event.addr)
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


def _ids(conns: Iterable[Channel[Any]]) -> list[int]:
    return [conn.conn_id for conn in conns]

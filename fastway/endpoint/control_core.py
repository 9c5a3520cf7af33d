"""A game server's side of the control connection: what it asks the gateway, and what it hears.

Rule: messages and calls in, messages and events out; no transport, and no clock but the times that
are given in. After an error the control connection is over, and nothing else is. (spec control.md)

Whoever drives it dials SERVICE_ID and says what came of it (`opened`, `refused`, later `ended`);
hands in the messages of that virtual connection, and which other ones opened and closed; sends
what `messages_to_send` returns; looks at `error`, which asks for a Close of `conn_id`; and comes
back to `expire` and `messages_to_send` at `wakes_at`. Times are seconds of any clock that goes
forward only.

A push is in order with other packets as it is sent: while requests are `waiting`, because they are
too many at once or the gateway has not greeted yet, packets that are sent otherwise overtake it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Mapping
from enum import Enum
from typing import Any

from fastway.control import (
    MAX_COUNT,
    SERVICE_ID,
    VERSION,
    Bye,
    ClosedWhy,
    Code,
    Draining,
    Facts,
    GatewayEvent,
    LostEvents,
    Moved,
    PlayerFacts,
    Verb,
    Want,
    check_name,
    encode,
    parse,
    parse_inline,
    read_event,
    read_flag,
    read_int,
    read_text,
)
from fastway.endpoint.members import Groups
from fastway.endpoint.requests import (
    RESULTS,
    Answered,
    Pushed,
    Request,
    Result,
    Welcome,
    checked_id,
    checked_ids,
)
from fastway.errors import (
    BadControl,
    ConnectionEnded,
    MessageTooLarge,
    NoControl,
    RequestRefused,
    RequestsFull,
    RequestTimeout,
)
from fastway.wire import MAX_PACKET

__all__ = [
    "SERVICE_ID",
    "Answered",
    "Bye",
    "ClosedWhy",
    "ControlCore",
    "ControlState",
    "Draining",
    "Event",
    "Facts",
    "LostEvents",
    "Moved",
    "PlayerFacts",
    "Pushed",
    "Request",
    "Want",
    "Welcome",
]

RATE = 900
BURST = 90
"""Requests a second, and at once: within any second at most 990; the gateway allows 1000."""

MAX_EARLY = 1000
"""Connections of which the gateway may tell before it opens or closes them."""


class ControlState(Enum):
    DIALLING = "dialling"  # the dial is not answered; requests wait
    GREETING = "greeting"  # hello is not answered; requests wait
    OPEN = "open"
    ABSENT = "absent"  # the gateway has no such thing: it refused the dial
    ENDED = "ended"


Event = GatewayEvent | Answered | Welcome


class ControlCore:
    """One control connection.

    Args:
        conns: The virtual connections that are open: EndpointCore's `conns`, or what tells the
            same.
        want: What the gateway is to tell of.
        max_message: The largest message, in bytes.
        timeout: How long a request may take, the time in which it waits included.
        max_requests: How many may be unanswered, and how many may have gone unanswered.
        max_waiting: How many bytes of requests may wait to be sent.

    Attributes:
        state: How far it is.
        conn_id: Its virtual connection; 0 while there is none.
        error: Why it must be closed, or None. The link and all other connections live on.
        welcome: What the gateway said of itself; None before.
        groups: This server's groups at the gateway.
    """

    def __init__(
        self,
        conns: Container[int],
        want: Iterable[Want] = Want,
        *,
        max_message: int = MAX_PACKET - 4,
        timeout: float = 10.0,
        max_requests: int = 1000,
        max_waiting: int = 4 << 20,
    ) -> None:
        self.state = ControlState.DIALLING
        self.conn_id = 0
        self.error: ConnectionEnded | None = None
        self.welcome: Welcome | None = None
        self.groups = Groups(conns)
        self._want = frozenset(want)
        self._max_message = max_message
        self._timeout = timeout
        self._max_requests = max_requests
        self._max_waiting = max_waiting
        self._pending: dict[int, Request] = {}
        """By number: those that are not answered, in the order of their deadlines."""
        self._late: set[int] = set()
        """Those that were sent and timed out: their answers may still come."""
        self._queue: deque[Request] = deque()
        """Those that are not sent."""
        self._queued = 0
        self._last = 0
        self._slot = float("-inf")
        """When the next request was due if they came evenly; it may run ahead by a burst."""
        self._facts: dict[int, Facts] = {}
        self._reasons: dict[int, ClosedWhy] = {}
        """What was told of connections that are about to open, and to close."""

    @property
    def inline(self) -> bool:
        """What follows the arguments of Connect and Close is for this one: EndpointCore.inline.

        True from the moment in which hello is made.
        """
        live = self.state in (ControlState.GREETING, ControlState.OPEN)
        return live and Want.INLINE in self._want

    @property
    def waiting(self) -> int:
        """Requests that are not sent yet."""
        return len(self._queue)

    def wakes_at(self, sending: bool = True) -> float | None:
        """When `expire` or `messages_to_send` has something to do; None while there is nothing.

        Args:
            sending: The link takes data, so that `messages_to_send` would be called.
        """
        times = []
        if self._pending:
            times.append(next(iter(self._pending.values())).deadline)
        if sending and self._sendable:
            times.append(self._next_slot)
        return min(times, default=None)

    # What came of the dial.

    def opened(self, conn_id: int, now: float) -> None:
        """The gateway accepted: hello is the first to be sent over `conn_id`."""
        assert self.state is ControlState.DIALLING, self.state
        self.conn_id = conn_id
        self.state = ControlState.GREETING
        want = sorted(one.value for one in self._want)
        self._last += 1
        message = encode({"op": Verb.HELLO.value, "id": self._last, "v": VERSION, "want": want})
        hello = Request(Verb.HELLO, self._last, now + self._timeout, message)
        self._pending[hello.number] = hello
        self._queue.appendleft(hello)
        self._queued += len(message)

    def refused(self) -> list[Event]:
        """The gateway has no control connection; what waited for it fails."""
        assert self.state is ControlState.DIALLING, self.state
        return self._stop(ControlState.ABSENT, None)

    def ended(self, cause: Exception | None = None) -> list[Event]:
        """The control connection is closed, by whomever, or its link is lost for `cause`.

        Its number may be another's from now on.
        """
        self.conn_id = 0
        if self.state in (ControlState.ABSENT, ControlState.ENDED):
            return []
        return self._stop(ControlState.ENDED, cause)

    def _stop(self, state: ControlState, cause: Exception | None) -> list[Event]:
        self.state = state
        unanswered = [one for one in self._pending.values() if not one.abandoned]
        self._pending.clear()
        self._late.clear()
        self._queue.clear()
        self._queued = 0
        self._facts.clear()
        self._reasons.clear()
        self.groups.clear()
        return [
            Answered(one, error=NoControl(one.verb.value, cause))
            for one in unanswered
            if one.verb is not Verb.HELLO
        ]

    def _break(self, error: ConnectionEnded) -> list[Event]:
        self.error = error
        return self._stop(ControlState.ENDED, error)

    # What the gateway said.

    def receive_message(self, message: bytes) -> list[Event]:
        """Take a message of the control connection. Afterwards look at `error`.

        Raises nothing.
        """
        if self.state not in (ControlState.GREETING, ControlState.OPEN):
            return []
        try:
            fields, payload = parse(message)
            if payload is not None:
                raise BadControl("bytes follow a message of the gateway")
            if "op" in fields:
                return self._told(fields)
            return self._answer(fields)
        except ConnectionEnded as error:
            return self._break(error)

    def conn_opened(self, conn_id: int, extra: bytes = b"") -> list[Event]:
        """Another virtual connection opened, in the order of the wire: its Facts, if told.

        Args:
            extra: What followed the arguments of its Connect.
        """
        return self._tell(Facts, self._facts, conn_id, extra)

    def conn_closed(self, conn_id: int, extra: bytes = b"") -> list[Event]:
        """Another virtual connection closed: ClosedWhy, if told. It leaves its groups.

        Args:
            extra: What followed the arguments of its Close.
        """
        self.groups.conn_closed(conn_id)
        self._facts.pop(conn_id, None)
        return self._tell(ClosedWhy, self._reasons, conn_id, extra)

    def _tell(self, kind: Any, told: dict[int, Any], conn_id: int, extra: bytes) -> list[Event]:
        event = told.pop(conn_id, None)
        if extra and self.inline:
            try:
                if self.welcome is None:
                    raise BadControl("an event before hello was answered")
                event = parse_inline(kind, extra, conn_id)
            except BadControl as error:
                return self._break(error)
        return [] if event is None else [event]

    def _told(self, fields: Mapping[str, Any]) -> list[Event]:
        if self.welcome is None:
            raise BadControl("an event before hello was answered")
        event = read_event(fields)
        if event is None:
            return []
        if not isinstance(event, (Bye, LostEvents)) and Want(event.NAME) not in self._want:
            raise BadControl(f"an event {event.NAME!r}, which was not wanted")
        if isinstance(event, Facts):
            return self._keep(self._facts, event)
        if isinstance(event, ClosedWhy):
            return self._keep(self._reasons, event)
        return [event]

    def _keep(self, told: dict[int, Any], event: Facts | ClosedWhy) -> list[Event]:
        told[event.conn_id] = event
        if len(told) > MAX_EARLY:
            raise BadControl(
                f"{event.NAME!r} of more than {MAX_EARLY} connections of which nothing followed"
            )
        return []

    def _answer(self, fields: Mapping[str, Any]) -> list[Event]:
        number = read_int(fields, "id", 0, MAX_COUNT)
        ok = read_flag(fields, "ok")
        request = self._pending.get(number)
        if number in self._late:
            self._late.remove(number)
            return []
        if request is None or request.message is not None:
            raise BadControl(f"an answer to {number}, which was not asked")
        if ok:
            result = RESULTS[request.verb](fields)
            error = None
        else:
            result = None
            code = read_text(fields, "error")
            error = RequestRefused(request.verb.value, code, read_text(fields, "text", ""))
            # Who is not in a group that is not there has left it.
            ok = request.verb is Verb.LEAVE and code == Code.GONE.value
        del self._pending[number]
        if request.verb is Verb.HELLO:
            return self._greeted(result, error)
        self.groups.settled(number, ok)
        return [] if request.abandoned else [Answered(request, result, error)]

    def _greeted(self, result: Result, error: RequestRefused | None) -> list[Event]:
        if error is not None:
            raise ConnectionEnded(f"the gateway refused the control connection: {error}", error)
        assert isinstance(result, Welcome)
        self.welcome = result
        self.state = ControlState.OPEN
        events: list[Event] = [result]
        if result.max_packet - 4 < self._max_message:
            # What is too large for it would cost the link, and with it every player.
            self._max_message = result.max_packet - 4
            for one in [one for one in self._queue if self._too_large(one)]:
                size = self._forget(one)
                if not one.abandoned:
                    too_large = MessageTooLarge(size, self._max_message)
                    events.append(Answered(one, error=too_large))
        return events

    def _too_large(self, request: Request) -> bool:
        return request.message is not None and len(request.message) > self._max_message

    # What time brings.

    def expire(self, now: float) -> list[Event]:
        """End the requests whose time is over. Afterwards look at `error`."""
        events: list[Event] = []
        error: Exception | None = None
        while self._pending:
            request = next(iter(self._pending.values()))
            if request.deadline > now:
                break
            error = RequestTimeout(request.verb.value, self._timeout)
            if request.verb is Verb.HELLO:
                problem = f"the gateway accepted the control connection and was silent: {error}"
                return events + self._break(ConnectionEnded(problem, error))
            if request.message is not None:
                self._forget(request)
            else:
                del self._pending[request.number]
                self._late.add(request.number)
                self.groups.settled(request.number, True)
            if not request.abandoned:
                events.append(Answered(request, error=error))
        if len(self._late) > self._max_requests:
            problem = f"the gateway left more than {self._max_requests} requests unanswered"
            return events + self._break(ConnectionEnded(problem, error))
        return events

    def _forget(self, request: Request) -> int:
        # It was not sent: nobody will answer it.
        assert request.message is not None
        size = len(request.message)
        del self._pending[request.number]
        self._queue.remove(request)
        self._queued -= size
        self.groups.settled(request.number, False)
        return size

    @property
    def _sendable(self) -> bool:
        if self.state is ControlState.GREETING:
            return bool(self._queue) and self._queue[0].verb is Verb.HELLO
        return bool(self._queue) and self.state is ControlState.OPEN

    @property
    def _next_slot(self) -> float:
        return self._slot - (BURST - 1) / RATE

    def can_send(self, count: int, now: float) -> bool:
        """So many requests more would all be sent at once, behind nothing that waits."""
        if self.state is not ControlState.OPEN or self._queue:
            return False
        if len(self._pending) + count > self._max_requests:
            return False
        return max(self._slot, now) + (count - BURST) / RATE <= now

    def messages_to_send(self, now: float) -> list[bytes]:
        """What may be sent over `conn_id` now, in order; the rest waits for `wakes_at`.

        Call it while the link takes data: what it returned is the gateway's to answer.
        """
        messages: list[bytes] = []
        while self._sendable and now >= self._next_slot:
            self._slot = max(self._slot, now) + 1 / RATE
            request = self._queue.popleft()
            assert request.message is not None
            messages.append(request.message)
            self._queued -= len(request.message)
            request.message = None
        return messages

    # Requests. All of them may raise:
    #     NoControl: there is no control connection, or no more.
    #     RequestsFull: too many are unanswered, or too many bytes wait.
    #     MessageTooLarge: its object is over 64 KiB, or it does not fit a packet.
    #     ValueError, TypeError: that is no id, no name, no text.

    def who(self, now: float, *, conn: int | None = None, client: int | None = None) -> Request:
        """Ask for the facts of the client of a connection, or with this id."""
        if (conn is None) == (client is None):
            raise ValueError("who wants either a connection or a client")
        if conn is not None:
            return self._ask(now, Verb.WHO, {"conn": checked_id(conn)})
        return self._ask(now, Verb.WHO, {"client": checked_id(client)})

    def kick(self, now: float, client: int, code: int, text: str = "") -> Request:
        """End a client's link.

        Args:
            code: What a WebSocket client is told: 1000 to 4999.
            text: Why, for people.
        """
        if not 1000 <= code <= 4999:
            raise ValueError(f"a close code is 1000 to 4999, not {code}")
        fields = {"client": checked_id(client), "code": code, "text": text}
        return self._ask(now, Verb.KICK, fields)

    def user(self, now: float, conn: int, user: str) -> Request:
        """Name the player behind a connection, for the gateway's log and metrics."""
        return self._ask(now, Verb.USER, {"conn": checked_id(conn), "user": check_name(user)})

    def join(self, now: float, group: str, conns: Iterable[int]) -> Request:
        """Let connections of this server join a group, which so begins to be."""
        return self._change(now, Verb.JOIN, group, conns)

    def leave(self, now: float, group: str, conns: Iterable[int]) -> Request:
        """Let connections leave a group; with its last member it ends."""
        return self._change(now, Verb.LEAVE, group, conns)

    def push(
        self,
        now: float,
        message: bytes,
        *,
        group: str | None = None,
        conns: Iterable[int] | None = None,
        everyone: bool = False,
        but: Iterable[int] = (),
    ) -> Request:
        """Send one message to a group, to some connections, or to all of this server's.

        Args:
            but: Connections that do not get it.
        """
        if (group is not None) + (conns is not None) + everyone != 1:
            raise ValueError("push wants a group, or connections, or everyone")
        fields: dict[str, Any] = {"all": True}
        if group is not None:
            fields = {"group": check_name(group)}
        elif conns is not None:
            fields = {"conns": checked_ids(conns)}
        if left_out := checked_ids(but):
            fields["but"] = left_out
        return self._ask(now, Verb.PUSH, fields, message)

    def push_unanswered(
        self, now: float, message: bytes, group: str, but: Iterable[int] = ()
    ) -> bytes:
        """The same to a group, when it `can_send`: what to send at once. Nobody answers it.

        Raises:
            MessageTooLarge: as above.
        """
        fields: dict[str, Any] = {"op": Verb.PUSH.value, "group": group}
        if left_out := checked_ids(but):
            fields["but"] = left_out
        request = encode(fields, message)
        if len(request) > self._max_message:
            raise MessageTooLarge(len(request), self._max_message)
        self._slot = max(self._slot, now) + 1 / RATE
        return request

    def time(self, now: float) -> Request:
        """Ask for the gateway's time: a sign of its life."""
        return self._ask(now, Verb.TIME, {})

    def _change(self, now: float, verb: Verb, group: str, conns: Iterable[int]) -> Request:
        members = checked_ids(conns)
        request = self._ask(now, verb, {"group": check_name(group), "conns": members})
        self.groups.asked(request.number, group, members, verb is Verb.JOIN)
        return request

    def _ask(
        self, now: float, verb: Verb, arguments: dict[str, Any], payload: bytes | None = None
    ) -> Request:
        if self.state in (ControlState.ABSENT, ControlState.ENDED):
            raise NoControl(verb.value, self.error)
        if len(self._pending) >= self._max_requests:
            raise RequestsFull(len(self._pending), self._max_requests)
        number = self._last + 1
        message = encode({"op": verb.value, "id": number, **arguments}, payload)
        if len(message) > self._max_message:
            raise MessageTooLarge(len(message), self._max_message)
        if self._queued + len(message) > self._max_waiting:
            raise RequestsFull(self._queued, self._max_waiting, "bytes of requests")
        self._last = number
        self._queued += len(message)
        request = Request(verb, number, now + self._timeout, message)
        self._pending[number] = request
        self._queue.append(request)
        return request

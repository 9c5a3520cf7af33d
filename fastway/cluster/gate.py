"""A node of nano's cluster that clients connect to.

    gate = NanoGate(app, "10.0.0.2:34572", master="10.0.0.1:34570")
    await gate.join()
    await app.listen(":3250", Pomelo())

Rule: a message whose route the App does not handle goes to who serves it, in the order of its
session, and the session waits for no more than that it is taken. The answer comes when it comes,
or the request is refused in time. (spec nano.md 5.4 and 5.5)
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Coroutine, Iterator
from itertools import chain
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred

from fastway.app.app import App
from fastway.app.handlers import Answering
from fastway.app.session import Session, SessionEnded
from fastway.app.strand import OwnStrand
from fastway.cluster import messages as on
from fastway.cluster.grpc import CallFailed, Status
from fastway.cluster.member import NanoMember
from fastway.cluster.members import parsed, service_of
from fastway.cluster.messages import NOTHING, message_class
from fastway.cluster.mirror import BROKEN, NOT_FOUND, Mirror
from fastway.cluster.roads import Lines
from fastway.cluster.sequence import Sequence
from fastway.cluster.server import Served
from fastway.dialect import Message, Refused
from fastway.errors import ConfigError, FastwayError
from fastway.formats import Encoded
from fastway.logs import escaped, make_logger

log = make_logger("fastway.cluster")

NODES = 1024
"""Gates whose sessions are told apart."""

EPOCH = 1_288_834_974_657
"""Milliseconds of Unix time when numbers of sessions begin, as nano has it."""

MAX_ASKED = 1000
"""Requests of a session that were handed on, and are not answered; nano's handlers say no by never
answering, so that one more is no reason to hold a client: the oldest is refused."""

UNAVAILABLE = 503
TIMEOUT = 504

_Request: Any = message_class("RequestMessage")
_Notify: Any = message_class("NotifyMessage")
_Closed: Any = message_class("SessionClosedRequest")

Job: TypeAlias = "Callable[[], Coroutine[Any, Any, None] | None]"


class Numbers:
    """Numbers of sessions, which no two gates give: the time, the node, and a count.

    Args:
        epoch: Tells Unix time, in seconds.
    """

    def __init__(self, node: int, epoch: Callable[[], float]) -> None:
        self._node = node << 12
        self._epoch = epoch
        self._last = 0
        self._step = 0

    def __next__(self) -> int:
        """A number; they only grow."""
        now = max(int(self._epoch() * 1000) - EPOCH, self._last)
        if now == self._last:
            self._step += 1
            if self._step == 4096:  # as many a millisecond as there are: go ahead of the time
                now, self._step = now + 1, 0
        else:
            self._step = 0
        self._last = now
        return now << 22 | self._node | self._step


class _Asked:
    """A request that was handed on.

    Attributes:
        taken: By who does it: its client may go on.
    """

    __slots__ = ("_answer", "_event", "_taken")

    def __init__(self, event: Message, answer: Answering) -> None:
        self._event = event
        self._answer = answer
        self._taken = False

    def take(self) -> None:
        """Who does it has it: its client may go on asking."""
        self._taken = True
        self._answer.let_on(self._event, True)

    def reply(self, data: bytes) -> None:
        """Raises FastwayError: that cannot be said to this client; then it is refused."""
        self._back()
        try:
            self._answer.reply(self._event, Encoded(data), ())
        except FastwayError:
            self._answer.refuse(self._event, Refused(500, "internal error"))
            raise

    def refuse(self, code: int, text: str) -> None:
        self._back()
        self._answer.refuse(self._event, Refused(code, text))

    def _back(self) -> None:
        if self._taken:
            self._answer.let_on(self._event, False)


class _Client:
    """A session of this gate, as other nodes know it.

    Attributes:
        id: Its number in the cluster.
        asked: Number of a request -> it, and who answers.
        holds: Who waits until a call is taken.
    """

    __slots__ = ("asked", "holds", "id", "sequences", "session", "sticky")

    def __init__(self, session: Session, number: int) -> None:
        self.session = session
        self.id = number
        self.sticky: dict[str, str] = {}
        self.sequences: dict[str, Sequence] = {}
        self.asked: dict[int, _Asked] = {}
        self.holds: list[Deferred[None]] = []

    def release(self) -> None:
        """Nobody waits any more."""
        holds, self.holds = self.holds, []
        for hold in holds:
            if not hold.called:
                hold.callback(None)


class NanoGate(NanoMember):
    """A node that hands on what its clients send. It serves, too, what its App handles.

    Args:
        node_id: Which of 1024 gates it is, so that no two give one number to two sessions; None:
            by its address.
        answer_timeout: Seconds until a request that was handed on, and is not answered, is
            refused: the session may have only so many.

    All others are those of NanoMember.
    """

    def __init__(
        self,
        app: App,
        listen: Any,
        *,
        node_id: int | None = None,
        answer_timeout: float = 30.0,
        **settings: Any,
    ) -> None:
        super().__init__(app, listen, **settings)
        if node_id is not None and not 0 <= node_id < NODES:
            raise ConfigError("node_id", f"it is 0 to {NODES - 1}, not {node_id!r}")
        if not 0 < answer_timeout <= 3600:
            raise ConfigError("answer_timeout", f"{answer_timeout!r} s; give 0 to an hour")
        if app.elsewhere is not None:
            raise ConfigError("app", "it has a gate already")
        self.slot = -1
        self._node_id = node_id
        self._numbers: Numbers | None = None
        self._answer_timeout = float(answer_timeout)
        self._clients: dict[int, _Client] = {}
        """Numbers in the cluster -> clients."""
        self._by_session: dict[int, _Client] = {}
        self._late: dict[tuple[int, int], float] = {}
        """(client, request) -> when it is refused, the first first."""
        app.elsewhere = self._elsewhere

    # What clients send.

    def _elsewhere(self, session: Session, event: Message, answer: Answering) -> Job | None:
        """Who does what this App does not; None: nobody."""
        if session.ended is not None or self._server is None or self._leaving is not None:
            return None
        if isinstance(session.carrier, Mirror):
            return None
        service = service_of(event.route)
        if service not in self._others.services:
            return None
        return lambda: self._hand_on(session, service, event, answer)

    def _hand_on(
        self, session: Session, service: str, event: Message, answer: Answering
    ) -> Coroutine[Any, Any, None] | None:
        client = self._client(session)
        try:
            address = self.pick(client, session, service)
            if address is None:
                raise CallFailed(Status.UNAVAILABLE, "nobody was chosen")
            sequence = self.sequence(client, address)
        except Exception as error:
            if not isinstance(error, CallFailed):  # of who chooses
                log.failure("what chooses who serves {service} failed", service=service)
            answer.refuse(event, Refused(UNAVAILABLE, "unavailable"))
            return None
        self.counts["handed on"] += 1
        number = 0
        if event.token is None:
            path = on.NOTIFY
            call = _Notify(
                gateAddr=self.address, sessionId=client.id, route=event.route, data=event.body
            )
        else:
            path = on.REQUEST
            number = self._ask(client, event, answer)
            call = _Request(
                gateAddr=self.address,
                sessionId=client.id,
                id=number,
                route=event.route,
                data=event.body,
            )
        holds: Deferred[None] | None = None
        if type(session.strand) is OwnStrand:
            holds = Deferred()
            client.holds.append(holds)

        def heard(result: bytes | CallFailed) -> None:
            if isinstance(result, CallFailed):
                self._not_taken(client, number, event, result)
            elif number in client.asked:
                client.asked[number].take()
            if holds is not None:
                if holds in client.holds:
                    client.holds.remove(holds)
                if not holds.called:
                    holds.callback(None)

        sequence.start(path, call.SerializeToString(), heard)
        if holds is None or holds.called:
            return None
        return _until(holds)

    def _client(self, session: Session) -> _Client:
        client = self._by_session.get(session.session_id)
        if client is None:
            client = _Client(session, self._next_number())
            self._clients[client.id] = self._by_session[session.session_id] = client
            session.when_ended().addCallback(self._client_left, client)
        return client

    def _next_number(self) -> int:
        if self._numbers is None:
            node = self._node_id
            if node is None:
                node = zlib.crc32(self.address.encode()) % NODES
            self._numbers = Numbers(node, time.time)
        return next(self._numbers)

    def _ask(self, client: _Client, event: Message, answer: Answering) -> int:
        """A number under which the answer comes: the client's own, where it is one."""
        number = event.token if type(event.token) is int else 0
        if not 0 < number < 2**63 or number in client.asked:
            number = 2**63
            while number in client.asked:
                number += 1
        if len(client.asked) >= MAX_ASKED:
            self._refuse(
                client, next(iter(client.asked)), UNAVAILABLE, "too many are not answered"
            )
        client.asked[number] = _Asked(event, answer)
        wheel = self._turn.wheel
        due = wheel.seconds() + self._answer_timeout
        if not self._late:
            wheel.watch(self, due)
        self._late[client.id, number] = due
        return number

    def _not_taken(
        self, client: _Client, number: int, event: Message, failure: CallFailed
    ) -> None:
        self.counts["not taken"] += 1
        self.app.quiet.warn(
            log,
            "messages not taken elsewhere",
            client.session.peer.rpartition(":")[0],
            "{route!r} of {peer} is not taken: {problem}",
            route=event.route[:100],
            peer=client.session.peer,
            problem=escaped(failure.text),
        )
        code = TIMEOUT if failure.status == Status.DEADLINE_EXCEEDED else UNAVAILABLE
        self._refuse(client, number, code, "unavailable")

    def _forget(self, client: _Client, number: int) -> _Asked | None:
        self._late.pop((client.id, number), None)
        return client.asked.pop(number, None)

    def _refuse(self, client: _Client, number: int, code: int, text: str) -> None:
        asked = self._forget(client, number)
        if asked is not None:
            asked.refuse(code, text)

    def check(self, now: float) -> float | None:
        """The wheel asks: requests that nobody answers are refused."""
        writes = self._turn.writes
        writes.begin()
        try:
            while self._late:
                (client_id, number), due = next(iter(self._late.items()))
                if due > now:
                    return due
                self.counts["not answered"] += 1
                self._refuse(self._clients[client_id], number, TIMEOUT, "no answer")
        finally:
            writes.end()
        return None

    # What other nodes say to clients.

    def _of(self, session_id: int) -> _Client:
        client = self._clients.get(session_id)
        if client is None:
            raise CallFailed(Status.UNKNOWN, f"{NOT_FOUND}: {session_id}")
        return client

    def _push_came(self, data: bytes, served: Served) -> bytes:
        message = parsed("PushMessage", data)
        client = self._of(message.sessionId)
        self.counts["pushes"] += 1
        try:
            client.session.send(message.route, message.data)
        except SessionEnded:
            raise CallFailed(Status.UNKNOWN, BROKEN) from None
        except FastwayError as error:
            raise CallFailed(Status.UNKNOWN, str(error)) from None
        return NOTHING

    def _response_came(self, data: bytes, served: Served) -> bytes:
        message = parsed("ResponseMessage", data)
        client = self._of(message.sessionId)
        if not message.id:
            raise CallFailed(Status.UNKNOWN, "current session working on notify mode")
        self.counts["answers"] += 1
        asked = self._forget(client, message.id)
        if asked is None:  # it was answered, or not asked, or too long ago
            self.counts["stray answers"] += 1
            return NOTHING
        try:
            asked.reply(message.data)
        except FastwayError as error:
            raise CallFailed(Status.UNKNOWN, str(error)) from None
        return NOTHING

    def _close_session_came(self, data: bytes, served: Served) -> bytes:
        client = self._clients.get(parsed("CloseSessionRequest", data).sessionId)
        if client is not None:
            client.session.close()
        return NOTHING

    def _came_home(self, session_id: int, event: Message) -> bytes:
        client = self._of(session_id)
        if event.token is not None:
            raise CallFailed(Status.UNKNOWN, "a client of this node asks it by itself")
        session, app = client.session, self.app
        if session.strand.waiting >= app.bounds.strand > 0:
            raise CallFailed(Status.RESOURCE_EXHAUSTED, "too many messages of this session wait")
        app.counts.messages += 1
        session.strand.run(lambda: app.handle(session, event, _NOBODY))
        return NOTHING

    # The end of a client.

    def _client_left(self, _: object, client: _Client) -> None:
        """All other nodes are told, behind what each was told of it, and at the same time."""
        if self._clients.pop(client.id, None) is None:
            return
        del self._by_session[client.session.session_id]
        for number in client.asked:
            self._late.pop((client.id, number), None)
        # Its link counts what is not answered; it is not sent.
        asked, client.asked = client.asked, {}
        for one in asked.values():
            one.refuse(0, "gone")
        client.release()
        closed = _Closed(sessionId=client.id).SerializeToString()
        for address in self._others.known:
            sequence = client.sequences.get(address)
            if sequence is None:
                self.channel(address).start(on.SESSION_CLOSED, closed, _not_heard)
            else:
                sequence.clear()
                sequence.start(on.SESSION_CLOSED, closed)

    def _say_goodbye(self) -> None:
        super()._say_goodbye()
        for client in list(self._clients.values()):
            self._client_left(None, client)
        self._turn.wheel.forget(self)

    def _all_lines(self) -> Iterator[Lines]:
        return chain(super()._all_lines(), self._clients.values())

    def lines(self, session: Session) -> tuple[Lines, str, int]:
        if isinstance(session.carrier, Mirror):
            return super().lines(session)
        client = self._client(session)
        return client, self.address, client.id


def _not_heard(_: object) -> None:
    """Who cannot be told that a client has left is gone, or forgets it with its gate."""


class _Nobody(Answering):
    """Answers what nobody waits for."""

    def reply(self, event: Message, result: Any, meta: Any) -> None:
        pass

    def refuse(self, event: Message, refused: Refused) -> None:
        pass


_NOBODY = _Nobody()


async def _until(holds: Deferred[None]) -> None:
    """The session's next message waits for it."""
    await holds

"""The control connection against a model: random days of a server and a gateway that may lie.

Rule: the gateway carries out what it hears in order, and answers when chance wants it: in any
order, late, never, or wrongly. What the server believes is compared after each step.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fastway.control import Facts
from fastway.endpoint.control_core import (
    Answered,
    ClosedWhy,
    ControlCore,
    ControlState,
    Event,
    Pushed,
    Request,
    Want,
    Welcome,
)
from fastway.errors import NoControl, RequestRefused, RequestsFull, RequestTimeout
from tests.support.control import ControlEnd, done, told
from tests.support.core import DETERMINISTIC

CONTROL = 1
"""The id of the control connection."""

TIMEOUT = 10.0
MAX_REQUESTS = 6

NAMES = st.sampled_from(["a", "b"])
PICKS = st.integers(0, 11)
"""Which of the things that there are; counted round and round."""

SOME = st.lists(PICKS, max_size=3)

LIES = [
    done(1000, members=1),  # nobody asked
    done(0),
    b"\xff",
    b"[" * 1000,
    b"{}",
    told("closed", conn="x", reason="y"),
    told("lost"),
    told("bye", code=1001, reason="shutdown") + b"\n",
]


@dataclass
class Change:
    """A join or a leave, as the model keeps it."""

    request: Request
    name: str
    conns: set[int]
    joins: bool
    undone: bool = False


class ControlMachine(RuleBasedStateMachine):
    """A control connection, its model, and the gateway at its other end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.conns: dict[int, int] = {}
        self.end = ControlEnd(group_members=2)
        self.inline = False
        self.last = CONTROL
        self.number = 0
        self.pending: dict[int, Request] = {}
        """Those that are not answered, by number."""
        self.sent: set[int] = set()
        self.late: set[int] = set()
        self.changes: list[Change] = []
        self.unheard: set[int] = set()
        """Requests that the gateway refused, which the core may never hear."""
        self.over = False
        self.core: ControlCore

    def pick(self, number: int) -> int:
        """A connection that is open, or one that never was."""
        ids = [*self.conns, 999]
        return ids[number % len(ids)]

    # The core must say exactly this.

    def ends(self, events: list[Event]) -> None:
        """The control connection is over: who waited hears it, in order, and nobody else."""
        waited = [one for one in self.pending.values() if not one.abandoned]
        waited = [one for one in waited if one.verb.value != "hello"]
        assert [event.request for event in events if isinstance(event, Answered)] == waited
        for event in events:
            assert isinstance(event, Answered) and isinstance(event.error, NoControl)
        assert self.core.state in (ControlState.ENDED, ControlState.ABSENT)
        self.over = True
        self.pending.clear()
        self.sent.clear()
        self.late.clear()
        self.changes.clear()
        self.end.groups.clear()

    # The server.

    @initialize(inline=st.booleans(), early=st.integers(0, 2), accepted=PICKS, greeted=PICKS)
    def dial(self, inline: bool, early: int, accepted: int, greeted: int) -> None:
        self.inline = inline
        want = set(Want) if inline else set(Want) - {Want.INLINE}
        self.core = ControlCore(self.conns, want, timeout=TIMEOUT, max_requests=MAX_REQUESTS)
        for _ in range(early):
            self.ask(self.core.time)
        if not accepted:
            self.ends(self.core.refused())
            return
        self.core.opened(CONTROL, self.now)
        self.number += 1
        self.sent.add(self.number)
        (message,) = self.core.messages_to_send(self.now)
        self.end.hear(message)
        self.pending[self.number] = self.core._pending[self.number]
        if greeted:
            self.answer(0)
            for client in (2, 3, 3):
                self.open(client)

    def ask(self, verb: Callable[..., Request], *args: Any, **kw: Any) -> Request | None:
        try:
            request = verb(self.now, *args, **kw)
        except NoControl:
            assert self.over
            return None
        except RequestsFull:
            assert len(self.pending) >= MAX_REQUESTS
            return None
        assert not self.over and len(self.pending) < MAX_REQUESTS
        self.number += 1
        assert request.number == self.number
        self.pending[self.number] = request
        return request

    @rule(pick=PICKS, by_client=st.booleans())
    def who(self, pick: int, by_client: bool) -> None:
        conn = self.pick(pick)
        if by_client:
            self.ask(self.core.who, client=conn)
        else:
            self.ask(self.core.who, conn=conn)

    @rule(pick=PICKS)
    def user(self, pick: int) -> None:
        self.ask(self.core.user, self.pick(pick), "zoe")

    @rule(pick=PICKS)
    def kick(self, pick: int) -> None:
        self.ask(self.core.kick, self.pick(pick), 4403)

    @rule()
    def time(self) -> None:
        self.ask(self.core.time)

    @rule(
        name=NAMES,
        picks=st.lists(PICKS, min_size=1, max_size=3),
        joins=st.booleans(),
        sends=st.booleans(),
    )
    def change(self, name: str, picks: list[int], joins: bool, sends: bool) -> None:
        conns = {self.pick(pick) for pick in picks}
        verb = self.core.join if joins else self.core.leave
        request = self.ask(verb, name, conns)
        if request is not None:
            self.changes.append(Change(request, name, conns, joins))
        if sends:
            self.send()

    @rule(name=NAMES, picks=SOME, how=st.sampled_from(["group", "conns", "everyone"]))
    def push(self, name: str, picks: list[int], how: str) -> None:
        conns = [self.pick(pick) for pick in picks]
        if how == "conns":
            self.ask(self.core.push, b"\n{x", conns=conns)
        elif how == "group":
            self.ask(self.core.push, b"", group=name, but=conns)
        else:
            self.ask(self.core.push, b"all", everyone=True)

    @precondition(lambda self: self.pending)
    @rule(pick=PICKS)
    def abandon(self, pick: int) -> None:
        requests = [one for one in self.pending.values() if one.verb.value != "hello"]
        if requests:
            requests[pick % len(requests)].abandoned = True

    @rule()
    def send(self) -> None:
        """What may be sent reaches the gateway; nothing may before its greeting."""
        messages = self.core.messages_to_send(self.now)
        waiting = [number for number in self.pending if number not in self.sent]
        if self.over or self.core.welcome is None:
            assert messages == []
            return
        assert len(messages) == len(waiting), "so few are never held back"
        for number, message in zip(waiting, messages, strict=True):
            self.end.hear(message)
            assert number in self.end.answers
            self.sent.add(number)
            if json.loads(self.end.answers[number])["ok"] is False:
                self.unheard.add(number)

    @rule(seconds=st.sampled_from([0.5, 3.0, TIMEOUT]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        overdue = [number for number, one in self.pending.items() if one.deadline <= self.now]
        events = self.core.expire(self.now)
        expected: list[Request] = []
        for number in overdue:
            request = self.pending[number]
            if request.verb.value == "hello":
                self.timed_out(events[: len(expected)], expected)
                self.ends(events[len(expected) :])
                return
            del self.pending[number]
            if not request.abandoned:
                expected.append(request)
            if number in self.sent:
                self.sent.discard(number)
                self.late.add(number)
            else:
                self.undo(request)
        self.timed_out(events[: len(expected)], expected)
        if len(self.late) > MAX_REQUESTS:
            self.ends(events[len(expected) :])
        else:
            assert events[len(expected) :] == []

    def timed_out(self, events: list[Event], expected: list[Request]) -> None:
        for event, request in zip(events, expected, strict=True):
            assert isinstance(event, Answered) and event.request is request
            assert isinstance(event.error, RequestTimeout)

    def undo(self, request: Request) -> None:
        for change in self.changes:
            if change.request is request:
                change.undone = True

    # The gateway.

    @rule(client=st.integers(2, 5))
    def open(self, client: int) -> None:
        self.last += 1
        event = self.end.open(self.last, client)
        self.conns[self.last] = client
        events = self.tell(event, self.last, self.core.conn_opened)
        if events:
            (facts,) = events
            assert isinstance(facts, Facts)
            assert (facts.conn_id, facts.facts.client) == (self.last, client)

    @precondition(lambda self: self.conns)
    @rule(pick=PICKS)
    def close(self, pick: int) -> None:
        conn_id = self.pick(pick % len(self.conns))
        event = self.end.close(conn_id, "kicked")
        del self.conns[conn_id]
        events = self.tell(event, conn_id, self.core.conn_closed)
        assert events in ([], [ClosedWhy(conn_id, "kicked")])

    def tell(
        self, event: bytes, conn_id: int, command: Callable[[int, bytes], list[Event]]
    ) -> list[Event]:
        """The command comes, with or behind the event where the gateway may tell."""
        greeted = not self.over and self.core.welcome is not None
        if greeted and not self.inline:
            assert self.core.receive_message(event) == []
        events = command(conn_id, event if greeted and self.inline else b"")
        assert len(events) == greeted
        return events

    @precondition(lambda self: self.end.answers)
    @rule(pick=PICKS)
    def answer(self, pick: int) -> None:
        """One of the answers comes, in any order."""
        number = [*self.end.answers][pick % len(self.end.answers)]
        message = self.end.answers.pop(number)
        fields = json.loads(message)
        events = self.core.receive_message(message)
        if self.over or number in self.late:
            self.late.discard(number)
            assert events == []
            return
        request = self.pending.pop(number)
        self.sent.discard(number)
        self.unheard.discard(number)
        if request.verb.value == "hello":
            (event,) = events
            assert isinstance(event, Welcome) and event is self.core.welcome
            return
        if not fields["ok"] and request.verb.value == "join":
            self.undo(request)
        if request.abandoned:
            assert events == []
            return
        (event,) = events
        assert isinstance(event, Answered) and event.request is request
        if not fields["ok"]:
            assert isinstance(event.error, RequestRefused) and event.result is None
            assert event.error.code == fields["error"]
            return
        assert event.error is None
        if isinstance(event.result, Pushed):
            assert event.result == Pushed(fields["sent"], tuple(fields["missing"]))
        elif request.verb.value == "who":
            assert getattr(event.result, "client", None) == fields["client"]
        else:
            assert event.result == fields.get("members", fields.get("unix"))

    @precondition(lambda self: self.end.answers)
    @rule(pick=PICKS)
    def drop(self, pick: int) -> None:
        """An answer never comes."""
        del self.end.answers[[*self.end.answers][pick % len(self.end.answers)]]

    @precondition(lambda self: not self.over)
    @rule(chance=PICKS, pick=PICKS)
    def lie(self, chance: int, pick: int) -> None:
        """Seldom, so that days are long."""
        if chance:
            return
        events = self.core.receive_message(LIES[pick % len(LIES)])
        assert self.core.error is not None
        self.ends(events)

    @precondition(lambda self: not self.over)
    @rule(chance=PICKS)
    def lose(self, chance: int) -> None:
        """Its connection is closed."""
        if not chance:
            self.ends(self.core.ended())
            assert self.core.error is None

    # Always.

    @invariant()
    def agree(self) -> None:
        """The groups are those of all changes that were not undone, in order."""
        if not hasattr(self, "core"):
            return
        groups: dict[str, set[int]] = {}
        for change in self.changes:
            if not change.undone:
                members = groups.setdefault(change.name, set())
                if change.joins:
                    members |= change.conns & self.conns.keys()
                else:
                    members -= change.conns
        believed = {name: members & self.conns.keys() for name, members in groups.items()}
        believed = {name: members for name, members in believed.items() if members}
        found = {name: self.core.groups.members(name) for name in self.core.groups.names()}
        assert found == believed
        if not self.core.waiting and not self.unheard:
            assert found == self.end.groups

    @invariant()
    def bounded(self) -> None:
        """Nothing is kept of what is over."""
        if not hasattr(self, "core"):
            return
        assert {*self.core._pending} == {*self.pending}
        assert self.core._late == self.late and len(self.late) <= MAX_REQUESTS
        assert self.core.waiting == len(self.pending.keys() - self.sent)
        assert not self.core._facts and not self.core._reasons
        assert (self.core.wakes_at() is None) == (not self.pending)
        assert set(self.core.groups._changes) <= self.pending.keys()
        assert self.core.groups._groups.keys() <= self.conns.keys()


class ControlMachineTests(SynchronousTestCase):
    def test_machine(self) -> None:
        """Random days, checked after each step."""
        run_state_machine_as_test(
            ControlMachine,
            settings=settings(DETERMINISTIC, max_examples=200, stateful_step_count=50),
        )

"""A group and its gateway against a model: random days of a room, over a line that may lag.

Rule: the gateway carries out in order what it hears; each got what `tell` promised, once and in
order, as far as it has come, and all of it when nothing is under way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from fastway.endpoint import EndpointConfig, Group, VirtualConnection
from tests.support.beds import LateMemory
from tests.support.controlled import ControlledGateway
from tests.support.core import DETERMINISTIC
from tests.support.golden import FIRST

Conn = VirtualConnection[Any]


class LateGateway(ControlledGateway):
    """What it says may be on its way for a while.

    Attributes:
        late: It is.
    """

    late = False
    _under_way = b""

    def say(self, data: bytes) -> None:
        self._under_way += data
        if not self.late:
            data, self._under_way = self._under_way, b""
            super().say(data)

    @property
    def under_way(self) -> bool:
        """Something is not carried out, or not answered."""
        return bool(self.transport.value() or self.end.answers or self._under_way)

    @property
    def open(self) -> Container[int]:
        """The connections that clients have."""
        return self.end.conns

    def check_nothing_is_left(self) -> None:
        """Of groups that are cleared."""
        assert self.end.groups == {}, self.end.groups
        assert self.clock.getDelayedCalls() == []


PICKS = st.integers(0, 23)
SOME = st.lists(PICKS, max_size=4)
RARELY = st.integers(0, 5).map(lambda number: number == 5)


class GroupMachine(RuleBasedStateMachine):
    """A group, its gateway, and what was promised to whom."""

    denying = False
    ask = 3.0

    def __init__(self) -> None:
        super().__init__()
        self.patches: list[Any] = [
            patch(f"fastway.endpoint.{name}", least)
            for name, least in (("mirror.LEAST", 2), ("group.LEAST", 2), ("control.MOST_NAMED", 3))
        ]
        self.patches.append(patch("fastway.endpoint.mirror.ASK", self.ask))
        for one in self.patches:
            one.start()
        config = EndpointConfig(ping_interval=0, accept_queue=100_000)
        self.gateway = self.make(config)
        self.group: Group[Conn] = Group()
        self.all: list[Conn] = []
        self.promised: defaultdict[Conn, list[bytes]] = defaultdict(list)
        self.last = 0
        for _ in range(3):
            self.dials(True)

    def make(self, config: EndpointConfig) -> Any:
        """The gateway, which has greeted."""
        return LateGateway(config, group_members=8).greet()

    def teardown(self) -> None:
        self.gateway.late = False
        self.gateway.denies.clear()
        self.gateway.transport.drain()
        self.gateway.settle()
        self.compare()
        self.group.clear()
        self.gateway.settle()
        self.gateway.clock.advance(20)
        self.gateway.settle()
        assert self.gateway.endpoint.ended is None
        self.gateway.check_nothing_is_left()
        for one in self.patches:
            one.stop()

    def some(self, picks: list[int]) -> list[Conn]:
        return [self.all[pick % len(self.all)] for pick in picks if self.all]

    def message(self) -> bytes:
        self.last += 1
        return str(self.last).encode()

    @rule(enters=st.booleans())
    def dials(self, enters: bool) -> None:
        late, self.gateway.late = self.gateway.late, False
        (conn,) = self.gateway.guests(1, FIRST + len(self.all))
        self.gateway.late = late
        self.all.append(conn)
        if enters:
            self.group.add(conn)

    @rule(pick=PICKS)
    def enters(self, pick: int) -> None:
        for conn in self.some([pick]):
            self.group.add(conn)

    @rule(pick=PICKS)
    def steps_out(self, pick: int) -> None:
        for conn in self.some([pick]):
            self.group.discard(conn)

    @rule(pick=PICKS, really=RARELY)
    def client_closes(self, pick: int, really: bool) -> None:
        for conn in self.some([pick]):
            if really and conn.conn_id in self.gateway.open:
                self.gateway.leaves(conn.conn_id)

    @rule(pick=PICKS, really=RARELY)
    def server_closes(self, pick: int, really: bool) -> None:
        for conn in self.some([pick]):
            if really:
                conn.close()

    @rule(but=SOME, times=st.integers(1, 3))
    def tell(self, but: list[int], times: int) -> None:
        for _ in range(times):
            self.tell_all(but)

    def tell_all(self, but: list[int]) -> None:
        left_out = self.some(but)
        told_to = [conn for conn in self.group if conn not in left_out]
        message = self.message()
        assert self.group.tell(message, but=left_out) == len(told_to)
        for conn in told_to:
            self.promised[conn].append(message)

    @rule(but=SOME, settles=st.booleans())
    def chat(self, but: list[int], settles: bool) -> None:
        """Messages between which the gateway answers: by the second one there is a copy."""
        for _ in range(3):
            self.tell_all(but)
            if settles:
                self.gateway.settle()

    @rule(to=SOME)
    def tell_some(self, to: list[int]) -> None:
        told_to = [conn for conn in self.group if conn in self.some(to)]
        message = self.message()
        assert self.group.tell(message, to=self.some(to)) == len(told_to)
        for conn in told_to:
            self.promised[conn].append(message)

    @rule(pick=PICKS)
    def tell_one(self, pick: int) -> None:
        for conn in self.some([pick]):
            message = self.message()
            if conn.tell(message):
                self.promised[conn].append(message)

    @rule(really=RARELY)
    def clear(self, really: bool) -> None:
        if really:
            self.group.clear()

    @rule(late=RARELY)
    def delays(self, late: bool) -> None:
        self.gateway.late = late
        self.gateway.say(b"")

    @rule()
    def carries_out(self) -> None:
        self.gateway.carry_out()

    @rule(count=st.integers(1, 3))
    def answers(self, count: int) -> None:
        self.gateway.reply(count)

    @rule()
    def settles(self) -> None:
        self.gateway.settle()

    @rule()
    def narrows(self) -> None:
        """The next write fills the transport."""
        self.gateway.transport.stuck = True

    @rule(full=RARELY)
    def fills(self, full: bool) -> None:
        if full:
            self.gateway.transport.fill()
        else:
            self.gateway.transport.drain()

    @rule(seconds=st.sampled_from([0.125, 1, 6]))
    def passes(self, seconds: float) -> None:
        self.gateway.clock.advance(seconds)

    @rule(denies=RARELY)
    def denies(self, denies: bool) -> None:
        if self.denying:
            self.gateway.denies = {"push"} if denies else set()

    @invariant()
    def compare(self) -> None:
        """What was carried out is what was promised, as far as it has come."""
        settled = self.settled
        for conn in self.all:
            got, promised = self.gateway.got[conn.conn_id], self.promised[conn]
            if self.denying:  # what was refused comes later
                assert len(set(got)) == len(got) and set(got) <= set(promised), (got, promised)
            else:
                assert got == promised[: len(got)], (conn, got, promised)
            if conn.ended is None and conn.conn_id in self.gateway.open and settled:
                assert sorted(got) == sorted(promised), (conn, got, promised)

    @property
    def settled(self) -> bool:
        """All was carried out and answered."""
        return not self.gateway.under_way


class RealMachine(GroupMachine):
    """The same over the real gateway."""

    def make(self, config: EndpointConfig) -> Any:
        return LateMemory(config, group_members=8)

    def teardown(self) -> None:
        super().teardown()
        self.gateway.stop()


class DenyingMachine(GroupMachine):
    """The same over a gateway that may refuse pushes, and is always asked whether it did: once
    each, though not in order."""

    denying = True
    ask = 0.0


class MachineTests(SynchronousTestCase):
    steps = settings(DETERMINISTIC, max_examples=150, stateful_step_count=40)

    def test_once_and_in_order(self) -> None:
        run_state_machine_as_test(GroupMachine, settings=self.steps)

    def test_once_and_in_order_at_the_real_one(self) -> None:
        few = settings(self.steps, max_examples=40)
        run_state_machine_as_test(RealMachine, settings=few)

    def test_once(self) -> None:
        run_state_machine_as_test(DenyingMachine, settings=self.steps)

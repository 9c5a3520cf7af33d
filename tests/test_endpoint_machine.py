"""A game server on a gateway in memory, for days: its callbacks do whatever they like, whenever.

Rule: only golden bytes come in, and after every step every law holds: each wait fires once, each
end is told once, what is written is whole and of what is open, what is counted is what is there.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from fastway.endpoint import EndpointConfig, Group, Overflow, Slow, Text, VirtualConnection
from fastway.endpoint.core import ConnState
from fastway.endpoint.unread import OVERHEAD
from fastway.errors import FastwayError, SendQueueFull
from tests.support.core import DETERMINISTIC
from tests.support.golden import FIRST, PING, accept, close, connect, packet, refuse, split
from tests.support.logs import LogLines
from tests.support.scripted import ScriptedGateway

Conn = VirtualConnection[Any]
RAISED = (ZeroDivisionError, SendQueueFull)


class EndpointMachine(RuleBasedStateMachine):
    """A server on a gateway that is honest, late, and sometimes not; its callbacks do what was
    planned for them."""

    def __init__(self) -> None:
        super().__init__()
        self.log = LogLines()
        self.log.__enter__()
        self.watched: list[tuple[str, list[Any], Deferred[Any]]] = []
        self.plan: deque[tuple[int, int]] = deque()
        self.begin(0)

    def begin(self, kind: int) -> None:
        """A new connection to a gateway."""
        self.config = EndpointConfig(
            control=False,
            message_format=Text(),
            receive_queue=4,
            receive_buffer=60,
            receive_total=150 + 4 * OVERHEAD,
            accept_queue=3,
            send_buffer=60,
            ping_interval=5 if kind & 1 else 0,
            overflow=Overflow.PAUSE if kind & 2 else Overflow.CLOSE,
            pause_timeout=7,
            max_packet=44,
        )
        self.gateway = ScriptedGateway(self.config, 7)
        self.gateway.log_in()
        self.endpoint = self.gateway.endpoint
        self.serving: Any = None
        self.group: Group[Conn] = Group(slow=Slow.CLOSE if kind & 4 else Slow.SKIP)
        self.conns: list[Conn] = []
        self.ends: Counter[int] = Counter()
        self.next_id = FIRST
        self.incoming = b""
        self.dialled: list[int] = []
        """What the gateway was asked for and has not answered."""
        self.open: set[int] = set()
        """What is open as the gateway sees it."""
        self.closed_here: set[int] = set()
        """What the endpoint closed: it must not speak of that again."""
        self.pings = 0
        self.watch("when_gone", self.endpoint.when_gone())
        self.watch("when_ended", self.endpoint.when_ended())

    # Callbacks.

    def watch(self, name: str, waiting: Any) -> None:
        fired: list[Any] = []

        def called(result: Any) -> Any:
            fired.append(None)
            if isinstance(result, VirtualConnection):
                self.know(result)
            self.act()

        self.watched.append((name, fired, waiting))
        waiting.addBoth(called)
        waiting.addErrback(lambda failure: failure.trap(ZeroDivisionError))

    def know(self, conn: Conn) -> None:
        if all(conn is not one for one in self.conns):
            self.conns.append(conn)
            place = len(self.conns) - 1

            def ended(conn: Conn) -> None:
                self.ends[place] += 1
                self.act()

            conn.on_end(ended)

    async def handler(self, conn: Conn) -> None:
        self.know(conn)
        self.act()
        async for message in conn:
            self.act()
            await conn.send(message)

    def listener(self, conn: Conn) -> None:
        self.know(conn)
        self.act()

    def act(self) -> None:
        """The next thing that is planned."""
        if self.plan:
            self.do(*self.plan.popleft())

    def do(self, verb: int, pick: int) -> None:
        endpoint, group = self.endpoint, self.group
        conn = self.conns[pick % len(self.conns)] if self.conns else None
        try:
            if verb == 0 and conn is not None:
                conn.close()
            elif verb == 1 and conn is not None:
                self.watch("send", conn.send("x" * (pick % 41)))
            elif verb == 2 and conn is not None:
                conn.tell("x" * (pick % 41))
            elif verb == 3 and conn is not None:
                self.watch("receive", conn.receive())
            elif verb == 4 and conn is not None:
                self.watch("conn.when_ended", conn.when_ended())
            elif verb == 5 and conn is not None:
                group.add(conn)
            elif verb == 6 and conn is not None:
                group.discard(conn)
            elif verb == 7:
                group.tell("y" * (pick % 41), but=conn)
            elif verb == 8:
                group.close()
            elif verb == 9:
                self.watch("dial", endpoint.dial(pick % 3 + 1, (None, 3)[pick % 2]))
            elif verb == 10:
                self.watch("accept", endpoint.accept())
            elif verb == 11:
                self.watch("ping", endpoint.ping())
            elif verb == 12:
                waiting = [one for _, fired, one in self.watched if not fired]
                if waiting:
                    waiting[pick % len(waiting)].cancel()
            elif verb == 13 and pick % 5 == 0:
                self.watch("close", endpoint.close())
            elif verb == 14:
                if self.serving is None or self.serving.stopped:
                    self.serving = endpoint.serve(self.handler, limit=2, grace=3)
            elif verb == 15 and self.serving is not None:
                self.watch("stop", self.serving.stop(pick % 3))
            elif verb == 16:
                endpoint.listen((None, self.listener)[pick % 2])
            elif verb == 17 and conn is not None:
                self.watch("receive", conn.receive())
                self.watch("receive", conn.receive())
            elif verb == 18:
                raise ZeroDivisionError
        except FastwayError:
            pass

    # What happens.

    verbs = st.tuples(st.integers(0, 18), st.integers(0, 60))

    @rule(verbs=st.lists(verbs, min_size=1, max_size=6))
    def plan_more(self, verbs: list[tuple[int, int]]) -> None:
        self.plan.extend(verbs)

    @rule(verb=verbs)
    def call(self, verb: tuple[int, int]) -> None:
        if verb[0] != 18:
            self.do(*verb)

    @rule(pick=st.integers(0, 5))
    def guest_comes(self, pick: int) -> None:
        self.incoming += connect(self.next_id, pick)
        self.open.add(self.next_id)
        self.next_id += 1

    @precondition(lambda self: self.open)
    @rule(pick=st.integers(0, 50), size=st.integers(0, 40), bad=st.integers(0, 9))
    def guest_says(self, pick: int, size: int, bad: int) -> None:
        conn_id = sorted(self.open)[pick % len(self.open)]
        self.incoming += packet(conn_id, (b"z" if bad else b"\xff") * size)

    @precondition(lambda self: self.open)
    @rule(pick=st.integers(0, 50))
    def guest_leaves(self, pick: int) -> None:
        conn_id = sorted(self.open)[pick % len(self.open)]
        self.open.discard(conn_id)
        self.incoming += close(conn_id)

    @precondition(lambda self: self.dialled)
    @rule(pick=st.integers(0, 50), good=st.booleans())
    def answer_dial(self, pick: int, good: bool) -> None:
        remote_id = self.dialled.pop(pick % len(self.dialled))
        if good:
            self.incoming += accept(self.next_id, remote_id)
            self.open.add(self.next_id)
            self.next_id += 1
        else:
            self.incoming += refuse(remote_id)

    @precondition(lambda self: self.pings)
    @rule()
    def answer_ping(self) -> None:
        self.pings -= 1
        self.incoming += PING

    @rule(cut=st.sampled_from((0, 1, 5, 17)))
    def read(self, cut: int) -> None:
        """The endpoint reads what has come, whole or in pieces."""
        data, self.incoming = self.incoming, b""
        for start in range(0, len(data), cut or len(data) or 1):
            self.gateway.say(data[start : start + (cut or len(data))])
        self.gateway.say(b"")

    @rule(seconds=st.sampled_from((0, 0, 1, 3, 8)))
    def pass_time(self, seconds: int) -> None:
        self.gateway.clock.advance(seconds)
        self.gateway.say(b"")

    @rule(how=st.integers(0, 2))
    def buffer(self, how: int) -> None:
        if self.endpoint.ended is None:
            transport = self.gateway.transport
            (transport.fill, transport.drain, transport.drain_once)[how]()

    @rule(kind=st.integers(0, 7), lie=st.integers(0, 4), error=st.booleans())
    def gateway_goes(self, kind: int, lie: int, error: bool) -> None:
        """It breaks, ends, or lies; all is told, and a new one is there."""
        if lie == 0 and self.open:
            self.gateway.say(connect(min(self.open), 1))
        elif lie == 1:
            self.gateway.say(accept(self.next_id, 50))
        self.finish(ConnectionLost() if error else None)
        self.begin(kind)

    def finish(self, error: Exception | None) -> None:
        if self.gateway.transport.connected:
            self.gateway.gone(error)
        for _ in range(8):
            self.gateway.clock.advance(5)
        assert self.gateway.clock.getDelayedCalls() == []
        assert self.endpoint.connections == []
        assert self.endpoint.ended is not None
        for name, fired, _ in self.watched:
            assert len(fired) == 1, f"{name} fired {len(fired)} times"
        self.watched.clear()
        for place, conn in enumerate(self.conns):
            assert conn.ended is not None
            assert self.ends[place] == 1, (conn, self.ends[place])
        assert len(self.group) == 0
        assert self.serving is None or self.serving.running == 0

    # Laws.

    @invariant()
    def words(self) -> None:
        """What was written is whole, and of what is open."""
        for conn_id, message in split(self.gateway.heard()):
            if conn_id:
                assert FIRST <= conn_id < self.next_id
                assert conn_id not in self.closed_here, "it was closed"
                continue
            number = int.from_bytes(message[1:], "little")
            if message[0] == 0:
                self.dialled.append(number)
            elif message[0] == 4:
                assert number not in self.closed_here, "closed twice"
                self.closed_here.add(number)
                if number in self.open:
                    self.open.discard(number)
                    self.incoming += close(number)
            else:
                assert message == b"\5", message
                self.pings += 1

    @invariant()
    def books(self) -> None:
        """What is counted is what is there, and within its bounds."""
        for conn in [*self.endpoint.connections, *self.endpoint._waiting]:
            self.know(conn)
        link = self.endpoint.link
        held = sum(conn.held + OVERHEAD * conn.unread for conn in self.conns)
        assert link.unread.size == held, (link.unread.size, held)
        if self.config.overflow is Overflow.CLOSE:
            assert held <= self.config.receive_total + 40 + OVERHEAD
            assert not link.paused
        for place, conn in enumerate(self.conns):
            assert self.ends[place] == (conn.ended is not None)
            assert (link.conns.get(conn.conn_id) is conn) == (conn.ended is None)
            assert conn.ended is None or conn not in self.group
        if link.ended is None:
            opened = [key for key, state in link.core.conns.items() if state is ConnState.OPEN]
            assert sorted(opened) == sorted(link.conns)
            assert self.gateway.paused == link.paused
        assert len(self.endpoint._waiting) <= self.config.accept_queue

    @invariant()
    def logged(self) -> None:
        """Nothing is logged but what callbacks were told to raise, and a handler's full buffer."""
        for event in self.log.events:
            failure = event.get("log_failure")
            assert failure is None or failure.check(*RAISED), failure

    def teardown(self) -> None:
        self.plan.clear()
        try:
            self.finish(None)
            self.logged()
        finally:
            self.log.__exit__()


class MachineTests(SynchronousTestCase):
    """The machine as a trial case; trial does not collect hypothesis's own TestCase."""

    def test_days(self) -> None:
        """Whatever peers say and callbacks do, every law holds after every step."""
        options = settings(DETERMINISTIC, max_examples=150, stateful_step_count=40)
        run_state_machine_as_test(EndpointMachine, settings=options)
        self.flushLoggedErrors(*RAISED)

"""What all ports of a gateway share: the Router, its wheel, and the end of each batch and turn.

Rule: it decides nothing about links; it keeps work of one turn within its bounds, whoever asks.
"""

from __future__ import annotations

import resource
import sys
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fastway.errors import Reason
from fastway.gateway.bounds import CLOSES_TURN, COMMANDS_EACH, COMMANDS_TURN, KEEP_FILES
from fastway.gateway.control import Controls
from fastway.gateway.ends import Ender
from fastway.gateway.gate import Gate
from fastway.gateway.lane import End, Lane, LaneOwner, Turned, Waiter
from fastway.gateway.limits import LimitValues
from fastway.gateway.link import GatewayLink
from fastway.gateway.memory import CROWD, EVERY, LINKS, Tide, give_back
from fastway.gateway.ports import Native, Port
from fastway.gateway.tally import Tally
from fastway.logs import Throttle, make_logger
from fastway.router import Limits, Router, Side
from fastway.watched import Watcher
from fastway.wheel import Wheel
from fastway.wire import Run

log = make_logger("fastway.gateway")


class Waiting(NamedTuple):
    """What waits for all links: packets and their bytes, bytes of what came and is not handled,
    and links that are not read from; and what of it is game servers'."""

    packets: int
    bytes: int
    input: int
    held: int
    server_packets: int
    server_bytes: int
    server_input: int


class RouterService(Service):
    """The Router that all ports share, its timer wheel, and the end of each batch.

    Args:
        clock: The reactor, or a test's `task.Clock`.
        limits: What the router allows.
        memory_limit: Bytes that may wait for all links together. 0: no limit.
        keep_files: Descriptors that clients leave to servers and to the operator.

    Attributes:
        touched: Lanes with a collected batch, in the order in which they were first sent to.
        turned: Direct links whose dial was answered, or whose connection was closed.
        connected: Links whose lane is not gone yet, handshaking and lingering ones included.
        holds: How often a link was not read from because another had to drain,
        held: and how many are not now, of the Python lane.
        slows: The same of those who sent more than their rates allow,
        slowed: of the Python lane.
        turned_away: Connections closed at once at the door.
        tally: Links that got their ids, and went.
        gate: Who may connect.
        enders: Who is told of links that are lost: the access log, the list of the last ends.
        waiting_packets: Packets that wait in the Python lane, of all links.
        waiting_bytes: Their bytes, and those of packets that are not whole,
        input_bytes: of which so many are the latter.
        server_waiting: The same three of game servers.
        native: The fast path, if there is one.
        ports: All ports, in the order in which they are opened.
        control: The control connections.
        watchers: What looks after files that may change while it runs.
        path: What packets between plain TCP links take, and why, for operators.
        draining: Nobody should be sent here any more (`fastway.ops.drain`).
        drain_begins: Called as that begins, with the seconds since 1970 at which clients begin to
            be lost and at which all is over at the latest, and whether a successor listens at the
            same addresses; with a successor once more, when the ports are closed.
        drain_is_undone: Called when it goes on after all.
        failed: Called with one line when the gateway cannot go on.
    """

    name = "router"

    def __init__(
        self,
        clock: IReactorTime,
        limits: Limits | None = None,
        memory_limit: int = 0,
        keep_files: int = KEEP_FILES,
    ) -> None:
        self.clock = clock
        self.router = Router(limits)
        self.wheel = Wheel(clock)
        self.quiet = Throttle(clock)
        self.control = Controls(self)
        self.memory_limit = memory_limit or sys.maxsize
        self.keep_files = keep_files
        self.touched: list[Lane] = []
        self.turned: list[Turned] = []
        self.connected: set[GatewayLink] = set()
        self.holds = 0
        self.held = 0
        self.slows = 0
        self.slowed = 0
        self.turned_away = 0
        self.tally = Tally()
        self.gate = Gate(self)
        self.enders: list[Ender] = []
        self.waiting_packets = 0
        self.waiting_bytes = 0
        self.input_bytes = 0
        self.server_waiting = [0, 0, 0]
        self.native: Native | None = None
        self.ports: list[Port] = []
        self.watchers: list[Watcher] = []
        self.path = "Python"
        self.started = clock.seconds()
        self.stopping = False
        self.draining = False
        self.drain_begins: list[Callable[[float, float | None, bool], object]] = [
            self.control.tell_drain
        ]
        self.drain_is_undone: list[Callable[[], object]] = [self.control.drain_is_over]
        self.failed: Callable[[str], None] = lambda _: None
        self._stopped: Deferred[None] | None = None
        self._tides = Tide(CROWD), Tide(LINKS)
        self._giving_back: IDelayedCall | None = None
        self._commands = COMMANDS_TURN
        """Commands that this turn still has room for."""
        self._queue: deque[Waiter] = deque()
        """Lanes that wait for a turn."""
        self._turn: IDelayedCall | None = None

    # Batches.

    def flush(self, source: Lane | None = None) -> None:
        """End a batch: one write for each lane that was sent to."""
        while self.turned:
            self.turned.pop(0).catch_up()
        touched = self.touched
        if touched:
            if source is not None and source.link.lost is not None:
                source = None  # nobody who is held, and nothing more will come of it
            for lane in touched:
                lane.settle(source)
            touched.clear()
        if self.waiting_bytes > self.memory_limit:
            self._shed()
        if self.router.jobs and self._turn is None:
            self._ask_for_turn()

    def receive(self, link: LaneOwner, runs: list[Run]) -> list[Run]:
        """Packets of a link whose lane forwards nothing by itself.

        Returns:
            What is left for another turn.
        """
        router = self.router
        before = router.commands
        room = self._commands
        rest = link.packets_came(runs, room if room < COMMANDS_EACH else COMMANDS_EACH)
        if router.commands != before:
            self._commands = room - (router.commands - before)
            if 2 * self._commands < COMMANDS_TURN and self._turn is None:
                self._ask_for_turn()
        return rest

    def wait_for_turn(self, lane: Waiter) -> None:
        """`lane.go_on` is to be called in another turn: one after the other, in order."""
        self._queue.append(lane)
        if self._turn is None:
            self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        self._turn = self.clock.callLater(0, self.turn)

    @property
    def turn_due(self) -> bool:
        """There is work left for the next turn."""
        return self._turn is not None

    def turn(self) -> None:
        """Do what was left, as much as one turn allows."""
        turn, self._turn = self._turn, None
        if turn is not None and turn.active():
            turn.cancel()
        self._commands = COMMANDS_TURN
        for _ in range(len(self._queue)):
            if self._commands <= 0:
                break
            lane = self._queue.popleft()
            if lane.costs:
                self._commands -= lane.costs
            lane.go_on()
        if self.router.unfinished:
            self.router.work(CLOSES_TURN)
            self.flush()
        if self._turn is None and (self._queue or self.router.unfinished):
            self._ask_for_turn()

    # Limits.

    def set_limits(self, values: LimitValues) -> None:
        """From now on these hold, for those who are there too.

        What is connected is not looked at again: an address that has more than it may have now
        keeps it, and who came while nothing was limited by address is not counted there.
        """
        self.gate.values = values
        for port in self.ports:
            port.factory.set_limits(values)
            if self.native is not None:
                self.native.set_rates(port.factory)
        for link in self.connected:
            link.lane.rates_changed()

    # Memory.

    def waiting(self) -> Waiting:
        """What waits for all links together, on both lanes; all counters, nothing is summed up."""
        packets, size, coming = self.server_waiting
        mine = Waiting(
            self.waiting_packets,
            self.waiting_bytes - self.input_bytes,
            self.input_bytes,
            self.held,
            packets,
            size - coming,
            coming,
        )
        if self.native is None:
            return mine
        core = self.native.totals()
        return Waiting(
            mine.packets + core.waiting_packets,
            mine.bytes + core.waiting_bytes,
            mine.input + core.input_bytes,
            mine.held + core.held,
            mine.server_packets + core.holding_packets,
            mine.server_bytes + core.holding_bytes,
            mine.server_input + core.holding_input,
        )

    def count(self, server: bool, packets: int, size: int, coming: int = 0) -> None:
        """So much more waits in the Python lane, for a game server or for a client; `coming` bytes
        of it came and are not whole."""
        self.waiting_packets += packets
        self.waiting_bytes += size
        self.input_bytes += coming
        if server:
            waiting = self.server_waiting
            waiting[0] += packets
            waiting[1] += size
            waiting[2] += coming
        if self._tides[0].fell(self.waiting_bytes):
            self._give_back()

    def _give_back(self) -> None:
        if self._giving_back is None and not self.stopping:
            self._giving_back = self.clock.callLater(EVERY, self._crowd_is_gone)

    def _crowd_is_gone(self) -> None:
        self._giving_back = None
        give_back()

    def _shed(self) -> None:
        """Too much waits for all together: those who have the most waiting go, clients first."""
        enough = self.memory_limit - self.memory_limit // 16

        def holds(link: GatewayLink) -> tuple[bool, int]:
            counts = link.lane.counts()
            return link.side is Side.CLIENT, counts.waiting_bytes + counts.input_bytes

        while self.waiting_bytes > enough:
            links = [one for one in self.connected if not one.lane.native and holds(one)[1]]
            if not links:
                return
            most = max(links, key=holds)
            if most.lost is None:
                self.router.lose(most, Reason.NO_MEMORY)
            else:  # it was to take what is left, and takes its time
                most.lane.close(End.ABORT)

    # Start and stop.

    @property
    def state(self) -> str:
        """What an operator calls it: starting, running, draining or stopping."""
        if self.stopping:
            return "stopping"
        if self.draining:
            return "draining"
        return "running" if self.running else "starting"

    def startService(self) -> None:
        super().startService()
        self.stopping = self.draining = False
        self.started = self.clock.seconds()
        for watcher in self.watchers:
            watcher.start()

    def refresh(self) -> None:
        """Read again what changed in the files that are looked after."""
        for watcher in self.watchers:
            watcher.refresh()

    def stopService(self) -> Deferred[None] | None:
        """Lose every link. Fires when all transports are gone: within LINGER seconds."""
        super().stopService()
        self.stopping = True
        for watcher in self.watchers:
            watcher.stop()
        for link in list(self.connected):
            self.router.lose(link, Reason.SHUTDOWN)
        while self.router.unfinished:
            self.router.work(CLOSES_TURN)
        self.flush()
        if not self.connected:
            self._over()
            return None
        if self._stopped is None:
            self._stopped = Deferred()
        return self._stopped

    def abort(self) -> None:
        """In the middle of a stop: do not wait for anybody."""
        for link in list(self.connected):
            link.lane.close(End.ABORT)

    def link_gone(self) -> None:
        """A lane is gone."""
        if self._tides[1].fell(len(self.connected)):
            self._give_back()
        if self._stopped is not None and not self.connected:
            stopped, self._stopped = self._stopped, None
            self._over()
            stopped.callback(None)

    def _over(self) -> None:
        if self.native is not None:
            self.native.stop()
        self.wheel.stop()
        self.quiet.flush()
        for call in (self._turn, self._giving_back):
            if call is not None:
                call.cancel()
        self._turn = self._giving_back = None

    def most_files(self) -> int:
        """The largest number of a descriptor that may be a client's."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(soft // 2, soft - self.keep_files - 1) if self.keep_files else soft

    def lane_failed(self, problem: str) -> None:
        """A lane cannot go on: better no gateway than one that lives and does not forward."""
        self.failed(problem)

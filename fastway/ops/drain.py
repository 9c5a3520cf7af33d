"""The end of a gateway without an outage, in four steps on a clock.

Rule: it says when and in which order; what is done, the gateway does (`Draining`).

    delay    whoever asks is told that nobody should be sent here; all else goes on
    grace    the ports are closed; who is connected keeps everything, dials included
    spread   clients are lost one by one, those without virtual connections first
    servers  no client is left, or the time is over: all others are lost
    done     nobody is left: the process may stop
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fastway.errors import CommandError, Reason
from fastway.gateway.bounds import LINGER
from fastway.logs import make_logger
from fastway.router import Side

if TYPE_CHECKING:
    from fastway.gateway import GatewayLink, RouterService

log = make_logger(__name__)

LEAST = 30.0
"""Seconds over which clients are spread at least, where nobody said,"""

EACH = 0.003
"""and for each of them: to come back by TLS costs the next gateway a millisecond of CPU."""

SETTLE = LINGER + 1.0
"""Seconds that links may take for their goodbyes: a spread ends so much before the timeout."""

BATCH = 64
"""Clients that are lost in one turn of the reactor, if so many are due."""

LOOK = 0.1
"""Seconds between two looks whether the last are gone."""

STEPS = 10
"""Lines that the log has of a spread, a second apart at least."""

AnyLink = TypeVar("AnyLink")


class State(Enum):
    """How far it is."""

    OFF = "off"
    DELAY = "delay"
    GRACE = "grace"
    SPREAD = "spread"
    SERVERS = "servers"
    DONE = "done"


class Draining(Protocol[AnyLink]):
    """What a drain has the gateway do."""

    def tell(self, seconds: float, until: float, again: bool) -> None:
        """Nobody should be sent here.

        Args:
            seconds: In which its clients begin to be lost.
            until: In which it is over, at the latest.
            again: A successor listens at the same addresses.
        """

    def untell(self) -> None:
        """It goes on after all."""

    def close_ports(self) -> None:
        """Listen no more; links go on."""

    def clients(self) -> int:
        """Connections of clients that are there: lost ones too that still linger."""

    def links(self) -> Iterable[AnyLink]:
        """Clients that are not lost."""

    def is_idle(self, link: AnyLink) -> bool:
        """It has no virtual connection."""

    def lose(self, link: AnyLink) -> None:
        """Lose that client, if it is not."""

    def lose_rest(self) -> None:
        """Lose everybody else, servers above all."""

    def is_empty(self) -> bool:
        """Nobody is connected any more."""

    def stop(self) -> None:
        """The process may stop."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the steps take, in seconds.

    Attributes:
        delay: Before the ports are closed.
        grace: Between that and the first client that is lost.
        spread: From the first client that is lost to the last; 0: by their number.
        timeout: From the beginning to the loss of all, at the latest.
    """

    delay: float = 5.0
    grace: float = 10.0
    spread: float = 0.0
    timeout: float = 120.0


@dataclass(frozen=True, slots=True)
class DrainFigures:
    """How far a drain is.

    Attributes:
        state: The step.
        clients: Connections of clients that were there when the spread began; before it, now.
        left: Those that are there now.
        seconds: In which it is over, at the latest.
        until: The same in seconds since 1970.
    """

    state: State
    clients: int
    left: int
    seconds: float
    until: float


class Drain(Generic[AnyLink]):
    """One gateway's drain.

    Args:
        clock: The reactor, or a test's.
        plan: How long it takes.
        gateway: What it has do.
        chance: What chooses among clients, and when in its share of the time each is lost.

    Attributes:
        state: How far it is.
    """

    def __init__(
        self,
        clock: IReactorTime,
        plan: Plan,
        gateway: Draining[AnyLink],
        chance: Random | None = None,
    ) -> None:
        self.plan = plan
        self.state = State.OFF
        self._clock = clock
        self._gateway = gateway
        self._chance = Random() if chance is None else chance
        self._began = 0.0
        self._ends = 0.0
        self._again = False
        self._clients = 0
        self._idle: list[AnyLink] = []
        self._busy: list[AnyLink] = []
        self._first = 0.0
        """When the spread began,"""
        self._share = 0.0
        """the seconds of each client in it,"""
        self._lost = 0
        """and how many had theirs."""
        self._due = 0.0
        self._told = 0.0
        """When the log said how far it is."""
        self._next: IDelayedCall | None = None
        self._deadline: IDelayedCall | None = None

    def figures(self) -> DrainFigures | None:
        """How far it is; None: there is none."""
        if self.state is State.OFF:
            return None
        left = self._gateway.clients()
        seconds = max(0.0, self._ends - self._clock.seconds())
        before = self.state in (State.DELAY, State.GRACE)
        clients = left if before else self._clients
        return DrainFigures(self.state, clients, left, seconds, time.time() + seconds)

    def begin(self, again: bool = False) -> None:
        """Begin.

        Args:
            again: A successor listens at the same addresses.

        Raises:
            CommandError: it has begun.
        """
        if self.state is not State.OFF:
            raise CommandError(f"it drains already; it is at {self.state.value}")
        plan = self.plan
        self.state = State.DELAY
        self._began = self._clock.seconds()
        self._ends = self._began + plan.timeout
        self._deadline = self._clock.callLater(plan.timeout, self._too_late)
        log.info(
            "drain: nobody should be sent here any more; ports are closed in {delay:g} s, clients "
            "from {begins:g} s on, all is over within {seconds:g} s",
            delay=plan.delay,
            begins=plan.delay + plan.grace,
            seconds=plan.timeout,
        )
        self._again = again
        self._after(plan.delay, self._close_ports)
        self._gateway.tell(plan.delay + plan.grace, plan.timeout, again=False)

    def undo(self) -> None:
        """Go on as before.

        Raises:
            CommandError: there is no drain, or the ports are closed.
        """
        if self.state is State.OFF:
            raise CommandError("it does not drain")
        if self.state is not State.DELAY:
            raise CommandError("it is too late: the ports are closed, and the drain goes on")
        self.stop()
        log.info("drain: taken back, all goes on")
        self._gateway.untell()

    def stop(self) -> None:
        """The gateway stops by itself: do nothing more."""
        for call in (self._next, self._deadline):
            if call is not None:
                call.cancel()
        self._next = self._deadline = None
        self._idle, self._busy = [], []
        self.state = State.OFF

    def _after(self, seconds: float, step: Callable[[], None]) -> None:
        def now() -> None:
            self._next = None
            step()

        self._next = self._clock.callLater(max(0.0, seconds), now)

    def _close_ports(self) -> None:
        self.state = State.GRACE
        self._gateway.close_ports()
        log.info("drain: ports are closed; {clients} clients", clients=self._gateway.clients())
        self._after(self.plan.grace, self._spread)
        if self._again:
            # Not before: who dials the same address at once would be here again.
            left = self._ends - self._clock.seconds()
            self._gateway.tell(self.plan.grace, left, again=True)

    def _spread(self) -> None:
        self.state = State.SPREAD
        for link in self._gateway.links():
            (self._idle if self._gateway.is_idle(link) else self._busy).append(link)
        self._clients = count = len(self._idle) + len(self._busy)
        self._first = self._clock.seconds()
        seconds = self.plan.spread or max(LEAST, EACH * count)
        seconds = min(seconds, max(0.0, self._ends - SETTLE - self._first))
        self._share = seconds / max(1, count)
        self._lost = 0
        self._told = self._first
        if count:
            log.info(
                "drain: {clients} clients are lost over {seconds:.1f} s, {idle} without virtual "
                "connections first",
                clients=count,
                seconds=seconds,
                idle=len(self._idle),
            )
        self._set_due()
        self._go_on()

    def _set_due(self) -> None:
        """Somewhere in the share of the next client."""
        self._due = self._first + self._share * (self._lost + self._chance.random())

    def _go_on(self) -> None:
        """Lose the clients that are due."""
        now = self._clock.seconds()
        for _ in range(BATCH):
            if not (self._idle or self._busy):
                self._wait_for_clients()
                return
            if self._due > now:
                break
            self._lost += 1
            self._gateway.lose(self._take())
            self._set_due()
        if now - self._told >= max(1.0, self._share * self._clients / STEPS):
            self._told = now
            log.info(
                "drain: {clients} clients have their turn within {seconds:.1f} s",
                clients=len(self._idle) + len(self._busy),
                seconds=round(self._first + self._share * self._clients - now, 3),
            )
        self._after(self._due - now, self._go_on)

    def _take(self) -> AnyLink:
        """Any of those without virtual connections, then any of the others."""
        while self._idle:
            link = self._pick(self._idle)
            if self._gateway.is_idle(link) or not self._busy:
                return link
            self._busy.append(link)  # it has got one meanwhile
        return self._pick(self._busy)

    def _pick(self, links: list[AnyLink]) -> AnyLink:
        place = self._chance.randrange(len(links))
        links[place], links[-1] = links[-1], links[place]
        return links.pop()

    def _wait_for_clients(self) -> None:
        # Who was at a handshake when the spread began, below the link.
        for link in list(self._gateway.links())[:BATCH]:
            self._gateway.lose(link)
        if self._gateway.clients():
            self._after(LOOK, self._wait_for_clients)
        else:
            self._lose_rest("no client is left")

    def _too_late(self) -> None:
        self._deadline = None
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self.state is State.DELAY:
            self._gateway.close_ports()
        self._lose_rest("the time is over")

    def _lose_rest(self, why: str) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()
        self.state = State.SERVERS
        self._idle, self._busy = [], []
        left = self._gateway.clients()
        log.info("drain: {why}, {clients} clients left; servers are lost", why=why, clients=left)
        self._ends = self._clock.seconds() + SETTLE
        self._gateway.lose_rest()
        self._wait_for_all()

    def _wait_for_all(self) -> None:
        now = self._clock.seconds()
        if not self._gateway.is_empty() and now < self._ends:
            self._after(LOOK, self._wait_for_all)
            return
        self.state = State.DONE
        log.info("drain: over after {seconds:.1f} s", seconds=now - self._began)
        self._gateway.stop()


@dataclass(slots=True)
class DrainedService:
    """A gateway as a drain has it do things.

    Attributes:
        service: What all its ports share.
        listen_no_more: Closes its ports.
        over: Called at the end.
    """

    service: RouterService
    listen_no_more: Callable[[], object]
    over: Callable[[], object]

    def tell(self, seconds: float, until: float, again: bool) -> None:
        service = self.service
        service.draining = True
        now = time.time()
        for told in service.drain_begins:
            told(now + seconds, now + until, again)

    def untell(self) -> None:
        self.service.draining = False
        for told in self.service.drain_is_undone:
            told()

    def close_ports(self) -> None:
        self.listen_no_more()

    def clients(self) -> int:
        ports = self.service.ports
        return sum(port.factory.links for port in ports if port.factory.side is Side.CLIENT)

    def links(self) -> Iterable[GatewayLink]:
        return (
            link
            for link in self.service.connected
            if link.side is Side.CLIENT and link.lost is None
        )

    def is_idle(self, link: GatewayLink) -> bool:
        return not link.peers

    def lose(self, link: GatewayLink) -> None:
        self.service.router.lose(link, Reason.DRAIN)
        self.service.flush()

    def lose_rest(self) -> None:
        for link in sorted(self.service.connected, key=lambda link: link.side is Side.SERVER):
            self.service.router.lose(link, Reason.DRAIN)
        self.service.flush()

    def is_empty(self) -> bool:
        return not self.service.connected

    def stop(self) -> None:
        self.over()

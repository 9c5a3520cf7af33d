"""What carries a link's bytes: one interface, two implementations (`stream`, `native`).

Rule: a link decides, a lane carries. A lane forwards, counts, queues, holds senders, and watches
the deadlines of its bytes; it never learns what a link is, and it loses nobody: it reports.

A lane is made un-started: what comes are bytes, for the prefaces. After `start` it is packets.
`tests/support/lanes.py` has the checks that every lane passes.
"""

from __future__ import annotations

import socket
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from fastway.errors import Reason, RemoteError
from fastway.gateway.bounds import share_of

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable

    from twisted.internet.interfaces import IAddress, IReactorTime

    from fastway.gateway.bounds import PortConfig
    from fastway.gateway.gate import Gate
    from fastway.gateway.limits import Entry
    from fastway.wheel import Wheel
    from fastway.wire import Run


class End(IntEnum):
    """How a lane ends. The core knows the same numbers."""

    ABORT = 0  # write nothing more, and reset
    CLOSE = 1  # read no more; close when all is written
    HALF = 2  # send a FIN when all is written, and read on, into nothing, until the peer's


class Framing(Protocol):
    """What a link's bytes stand in, in both directions (`fastway.websocket.Frames`).

    Attributes:
        pong: A frame that should be sent; whoever sends it sets it to b"".
        closed: The peer said that nothing more comes.
        error: What came is not understood, and nothing more is.
    """

    pong: bytes
    closed: bool

    @property
    def error(self) -> RemoteError | None: ...

    def receive(self, data: bytes) -> bytes:
        """The bytes that are inside of those that came."""

    def wrap(self, data: bytes) -> bytes:
        """Bytes as they are sent."""

    def wrap_whole(self, data: bytes) -> bytes:
        """The same, and whatever their number in one piece."""

    def close(self, code: int, text: str) -> bytes:
        """What is sent last; `code` is that of a WebSocket."""


class Counts(NamedTuple):
    """What a lane has counted. All but `waiting_*`, `input_bytes` and `held`
    only grow.

    Attributes:
        packets_in: Whole packets that came and that the lane dealt with by itself.
        bytes_in: All bytes that came.
        packets_out: Packets that were queued for the peer.
        bytes_out: Their bytes.
        waiting_packets: Packets that wait for the peer to take them.
        waiting_bytes: Bytes that wait.
        input_bytes: Bytes that came and wait here: of a packet that is not whole, or unhandled.
        held: It is not read from, because one that it sends to has to drain first, or it sent
            more than its rates allow.
        most_waiting: The most bytes that ever waited because the peer took no more.
    """

    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    waiting_packets: int = 0
    waiting_bytes: int = 0
    input_bytes: int = 0
    held: int = 0
    most_waiting: int = 0


class Told(Protocol):
    """What a peer is told at the end, as a `Reason` has it: a WebSocket's code, and a text."""

    @property
    def close_code(self) -> int: ...

    @property
    def value(self) -> Any: ...


class LaneOwner(Protocol):
    """What a lane reports to: its link.

    Attributes:
        lost: Why it was lost; None while it lives.
    """

    lost: Reason | None

    def bytes_came(self, data: bytes) -> None:
        """Before `start`."""

    def is_secure(self) -> None:
        """The TLS handshake of a lane that was `securing` is over."""

    def packets_came(self, runs: Iterable[Run], most: int) -> list[Run]:
        """After it: packets that the lane did not forward by itself.

        Args:
            most: Commands and strays that may be carried out now.

        Returns:
            The runs that are left.
        """

    def parks(self, lane: Waiter) -> bool:
        """What is left has to wait for the gateway itself, which calls `lane.go_on` then."""

    def comes_from(self, address: IAddress) -> None:
        """The first bytes came, and with them perhaps another address: a proxy told it."""

    def peer_ended(self) -> None:
        """The peer's FIN; all that came before has been handled."""

    def broke(self, length: int) -> None:
        """A length field is not legal; nothing more is read."""

    def misframed(self, error: RemoteError) -> None:
        """The framing of its bytes is broken; nothing more is read."""

    def went_idle(self) -> None:
        """No complete packet within the idle timeout."""

    def got_stuck(self) -> None:
        """It took nothing for the write timeout."""

    def went_over(self, packets: int, size: int) -> None:
        """More waits for it than its port allows (a port that does not hold senders)."""

    def had_no_memory(self) -> None:
        """There is no memory for what it needs, or it holds the most where all hold too much."""

    def was_cut(self) -> None:
        """Its resumable transport lost its connection, and may come back."""

    def came_back(self, address: IAddress, seconds: float, replayed: int) -> None:
        """It is there again after so many seconds, from this address."""

    def gone(self, error: Exception | None) -> None:
        """Nothing is left of it; None: it ended in order. The last report."""


class Nobody:
    """The owner of a lane that has none: one that was turned away, or whose link is over."""

    lost = Reason.PEER_CLOSED

    def ignore(self, *_: object) -> list[Run]:
        return []

    bytes_came = is_secure = packets_came = parks = comes_from = peer_ended = ignore
    broke = misframed = went_idle = got_stuck = went_over = had_no_memory = ignore
    was_cut = came_back = gone = ignore


NOBODY = cast(LaneOwner, Nobody())


class LaneService(Protocol):
    """What the Python lane needs of the service that all ports share (`service.RouterService`).

    Attributes:
        clock: The reactor, or a test's.
        wheel: Deadlines.
        gate: Who may connect.
        touched: Lanes that were sent to in this batch.
        holds: How often a lane began to be held, and
        held: how many are now.
        slows: The same of those who sent more than their rates allow,
        slowed: now.
    """

    clock: IReactorTime
    wheel: Wheel
    gate: Gate
    touched: list[Lane]
    holds: int
    held: int
    slows: int
    slowed: int

    def flush(self, source: Lane | None = None) -> None:
        """End a batch that `source` made."""

    def receive(self, link: LaneOwner, runs: list[Run]) -> list[Run]:
        """Hand on packets as far as the turn's commands suffice; returns what is left."""

    def wait_for_turn(self, lane: Waiter) -> None:
        """`lane.go_on` is to be called in another turn."""

    def count(self, server: bool, packets: int, size: int, coming: int = 0) -> None:
        """So much more waits, for a server or a client; `coming` bytes of it on the way in."""


class Waiter(Protocol):
    """A lane that waits for its turn, or what else does.

    Attributes:
        costs: Commands of a turn for which its own work counts.
    """

    @property
    def costs(self) -> int: ...

    def go_on(self) -> None:
        """It has it."""


class Turned(Protocol):
    """A link that has something to do at the end of a batch, when the router may be called."""

    def catch_up(self) -> None:
        """Do it."""


class LanePort(Protocol):
    """What a lane needs of its port (`factories.GatewayFactory`).

    Attributes:
        config: The bounds of its links.
        holds: Over its bounds a lane holds those who send to it.
    """

    config: PortConfig
    holds: bool

    @property
    def service(self) -> LaneService: ...

    def connected(self, lane: Any, addr: IAddress, transport: str) -> None:
        """A lane is connected: it gets its link."""


class Lane(Protocol):
    """The verbs of a lane.

    Attributes:
        link: Whom it reports to.
        counted_at: Lanes whose `Shares` count it; None: none.
        holds: How many of them hold it.
        native: What waits for it is the C core's to count and to bound.
        admitted: What the gate is given back when it is gone.
    """

    native: bool
    admitted: Entry | None
    counted_at: set[Lane] | None
    holds: int

    @property
    def link(self) -> LaneOwner: ...

    @property
    def away(self) -> bool:
        """A step of its TLS handshake is done elsewhere: its peer waits for it."""

    @property
    def securing(self) -> bool:
        """Asked when it is connected: a TLS handshake is under way, whose end it reports; or it is
        that of `prefaces`."""

    @property
    def prefaces(self) -> tuple[Any, ...]:
        """What comes before those of its port: TLS, where it does not speak that by itself."""

    def secure(self, connection: Any, data: bytes) -> None:
        """Take over TLS from its preface: seal what is sent from now on, open what comes.

        Args:
            data: What came behind the handshake, not opened.
        """

    @property
    def descriptor(self) -> int:
        """The number of its socket; -1 where nobody tells, or it was looked at before."""

    def secured(self) -> dict[str, str]:
        """What its TLS told, once the handshake is over, as attributes of `Facts`; nothing
        without TLS."""

    def write(self, data: bytes) -> None:
        """Send bytes before it is started."""

    def wait(self) -> None:
        """Read nothing before `start`."""

    def direct(self, conn_id: int) -> None:
        """Before `start`: its peer knows no packets. What comes after it is messages over that
        virtual connection, one for each read; of what is sent to it only the messages are written,
        bare, one behind the other. Empty ones are nothing. It is idle when it neither said nor
        took anything.
        """

    def start(self, data: bytes, framing: Framing | None = None) -> None:
        """From now on what comes is packets; `data` came already.

        Args:
            framing: What they stand in, if anything.
        """

    def send(self, data: bytes, packets: int) -> None:
        """Queue whole packets; they are written at the end of the turn, or of the batch."""

    def multicast(self, conn_ids: array[int], message: bytes) -> array[int]:
        """Forward a message of this lane's peer over many virtual connections, in order with all
        else; returns those over which this lane could not by itself."""

    def progress(self) -> tuple[int, int]:
        """Bytes that were ever sent to it, and those of them that left its queue."""

    def settle(self, source: Lane | None) -> None:
        """The end of a batch, which `source` made if one lane did: write, look at the bounds."""

    def pair(self, conn_id: int, other: Lane) -> None:
        """Packets of `conn_id` may be exchanged with `other` directly."""

    def unpair(self, conn_id: int) -> None:
        """No longer."""

    def pause(self) -> None:
        """Do not read from it: somebody that it sends to has to drain."""

    def resume(self) -> None:
        """Read again. Its idle time begins anew: it could not be heard."""

    def close(self, how: End, reason: Told | None = None) -> None:
        """End it; `gone` follows. If its framing can, and it does not abort, it tells why."""

    def rates_changed(self) -> None:
        """Its port has other rates: it may go on earlier, perhaps."""

    def saturated(self) -> bool:
        """Twice as much waits for it as its port allows."""

    def counts(self) -> Counts:
        """What it has counted; stays when it is gone."""

    def socket(self) -> socket.socket:
        """A duplicate of its socket, the caller's to close.

        Raises:
            OSError: the connection is gone, or its transport has no socket.
        """


class Share:
    """What one sender has in the queue of one blocked lane; positions count bytes ever queued.

    Attributes:
        mark: Up to here the sender's older bytes reach.
        since: Bytes it sent behind that.
        last: Where its last byte lies.
        held: It is not read from,
        until: before so much was taken.
    """

    __slots__ = ("held", "last", "mark", "since", "until")

    def __init__(self, mark: int) -> None:
        self.mark = self.last = self.until = mark
        self.since = 0
        self.held = False


class Shares:
    """Who sends to a lane that is blocked, so that a flooder waits for himself.

    A sender who has half of his share behind bytes of his that are not taken yet is held until
    those are. The core does the same for senders within it.
    """

    __slots__ = ("_lane", "senders")

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.senders: dict[Lane, Share] = {}

    def sent(self, source: Lane, size: int, queued: int, taken: int, full: bool) -> bool:
        """`source` had `size` bytes queued.

        Args:
            queued: All bytes ever queued for the lane, these included.
            taken: Those of them that left the queue.
            full: The lane is over its bounds: hold whoever sends.

        Returns:
            Whether the source is held by this.
        """
        share = self.senders.get(source)
        if share is None:
            share = self.senders[source] = Share(queued - size)
            if source.counted_at is None:
                source.counted_at = set()
            source.counted_at.add(self._lane)
        share.since += size
        share.last = queued
        if full:
            share.until = queued
        elif 2 * share.since < share_of(len(self.senders)):
            return False
        elif taken >= share.mark:
            share.mark, share.since = queued, 0
            return False
        else:
            share.until = share.mark
        if not share.held:
            share.held = True
            source.holds += 1
            if source.holds == 1:
                source.pause()
        return True

    def moved(self, taken: int, half: bool) -> None:
        """The lane has taken up to `taken`; let go whom that lets go.

        Args:
            half: Less than half of the bounds is left in the queue: nobody waits for more.
        """
        for source, share in list(self.senders.items()):
            if share.held and (half or taken >= share.until):
                share.mark, share.since = share.last, 0
                self._let_go(source, share)

    @property
    def next(self) -> int | None:
        """The position that the first who is held waits for; None: nobody is."""
        return min((share.until for share in self.senders.values() if share.held), default=None)

    def clear(self) -> None:
        """Nothing waits for the lane any more, or it is over: nobody is held, nobody counted."""
        senders, self.senders = self.senders, {}
        for source, share in senders.items():
            if source.counted_at is not None:
                source.counted_at.discard(self._lane)
            if share.held:
                self._let_go(source, share)

    def forget(self, source: Lane) -> None:
        """That sender is over."""
        share = self.senders.pop(source, None)
        if share is not None and share.held:
            source.holds -= 1

    @staticmethod
    def _let_go(source: Lane, share: Share) -> None:
        share.held = False
        source.holds -= 1
        if not source.holds:
            source.resume()

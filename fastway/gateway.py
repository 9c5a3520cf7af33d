"""The two ports: Protocol and Factory for clients and for servers, over one `RouterService`.

Rule: what a link may do is the router's to decide; this module moves bytes, measures time, and
keeps every queue bounded.

One read's way: `dataReceived` -> runs -> `Router.receive` -> `send` of the touched links, which
only collect -> `RouterService.flush`: one write for each touched link. A link whose transport
says that its buffer is full (pauseProducing) keeps what comes next in its own queue, where
packets and bytes are counted. Over the bounds

* a client is lost (`Reason.SLOW_READER`), unless within the next two turns it fell below them, or
  its transport ran empty and only the packets are over: neither a burst nor several fast servers
  cost a client that reads;
* for a server, those who send to it are not read from until it has drained below half of both
  bounds; it is lost only when it takes nothing at all for the write timeout.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.address import address_name
from fastway.auth import HANDSHAKE_TIMEOUT, Handshake
from fastway.errors import AuthFailed, Reason, StreamLost
from fastway.logs import make_logger
from fastway.router import Limits, Link, Router, Side
from fastway.snet.interfaces import IBounded, IResumableProtocol, IResumableTransport
from fastway.tcp import acked_bytes, is_plain_tcp, renew_producer
from fastway.wheel import Wheel
from fastway.wire import MAX_PACKET, FrameReader

if TYPE_CHECKING:
    from fastway.snet.transport import SnetFactory

log = make_logger(__name__)

WRITE_PIECE = 256 * 1024
"""Bytes handed to a transport at once from a queue: several servers' reads of one turn."""

LINGER = 5.0
"""Seconds that a lost link gets to take what was already on its way to it."""

PATIENCE = 0.25
"""Seconds in which a client over its bounds must take something, over a transport that hands on
little at a time (snet)."""


@dataclass(slots=True)
class PortConfig:
    """The bounds of the links of one port.

    Attributes:
        max_links: Connections at a time; further ones are closed at once. 0: no limit.
        max_packet: The largest legal length field, in bytes.
        read_size: Bytes taken from a socket in one read.
        idle_timeout: Seconds without a complete packet until a link is lost. 0: never.
        queue_packets: Packets that may wait for one link.
        queue_bytes: Bytes that may wait for one link.
        write_timeout: Seconds that a link with a full transport may take nothing. 0: for ever.
    """

    max_links: int = 0
    max_packet: int = MAX_PACKET
    read_size: int = 2 * 1024
    idle_timeout: float = 30.0
    queue_packets: int = 1000
    queue_bytes: int = 4 * 1024 * 1024
    write_timeout: float = 30.0


def server_port_config() -> PortConfig:
    """The defaults of the server port (spec sections 5 and 8)."""
    return PortConfig(
        read_size=64 * 1024,
        queue_packets=100_000,
        queue_bytes=64 * 1024 * 1024,
    )


@implementer(IHalfCloseableProtocol, IPushProducer, IResumableProtocol)
class GatewayLink(Protocol, Link):
    """One physical connection: Twisted's protocol and the router's link in one object.

    States: made (a server only: its handshake is under way) -> known -> lost, in which it gets
    up to LINGER seconds to take what is on its way -> gone.
    """

    factory: GatewayFactory

    def __init__(self, factory: GatewayFactory) -> None:
        super().__init__()
        self.factory = factory
        self.service = factory.service
        self.config = factory.config
        self.reader = FrameReader(factory.config.max_packet)
        self.slot = -1
        self.bytes_in = 0
        self.bytes_out = 0
        self.packets_out = 0
        self.since = 0.0
        """When it connected, in the wheel's time."""
        self.last_packet = 0.0
        self.waiting_packets = 0
        self.waiting_bytes = 0
        self._batch: list[bytes] | None = None
        self._batch_packets = 0
        self._queue: deque[tuple[bytes, int]] | None = None
        self._full_since: float | None = None
        self._taken: int | None = None
        self._judgement: IDelayedCall | None = None
        self._drained = False
        """The transport ran empty since the last judgement."""
        self._held_by: set[GatewayLink] | None = None
        self._holding: set[GatewayLink] | None = None
        self._gone = False
        self.cut_since: float | None = None
        """When its resumable transport was cut, in the wheel's time; time stands still since."""

    # What Twisted calls.

    def connectionMade(self) -> None:
        transport = cast(Any, self.transport)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        # Twisted's TCP transport reads this many bytes at once and calls its buffer full above
        # as many; others (TLS) have sizes of their own.
        if hasattr(transport, "bufferSize"):
            transport.bufferSize = self.config.read_size
        transport.registerProducer(self, True)
        self.since = self.last_packet = self.service.wheel.seconds()
        self.service.connected.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self.lost is not None:
            return
        self.bytes_in += len(data)
        runs = self.reader.feed(data)
        router = self.service.router
        if runs:
            self.last_packet = self.service.wheel.seconds()
            router.receive(self, runs)
        error = self.reader.error
        if error is not None:
            router.lose(self, error.reason, str(error))
        self.service.flush(self)

    def readConnectionLost(self) -> None:
        """The peer sent its FIN: all that came before has been forwarded."""
        if self.lost is not None:
            cast(Any, self.transport).loseConnection()
            return
        self.service.router.lose(self, Reason.PEER_CLOSED)
        self.service.flush()

    def writeConnectionLost(self) -> None:
        """Never asked for: this side does not half-close."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        service = self.service
        self._gone = True
        service.wheel.forget(self)
        service.connected.discard(self)
        self.factory.links -= 1
        error = reason.value
        if isinstance(error, StreamLost):
            service.router.lose(self, error.reason, error.detail)
        elif reason.check(ConnectionDone):
            service.router.lose(self, Reason.PEER_CLOSED)
        else:
            detail = "" if reason.check(ConnectionLost) else reason.getErrorMessage()
            service.router.lose(self, Reason.CONNECTION_LOST, detail)
        service.flush()
        service.link_gone()

    # What the router calls.

    def send(self, data: bytes, packets: int) -> None:
        batch = self._batch
        if batch is None:
            self._batch = [data]
            self._batch_packets = packets
            self.service.touched.append(self)
        else:
            batch.append(data)
            self._batch_packets += packets

    def disconnect(self, reason: Reason, detail: str) -> None:
        self._log_lost(reason, detail)
        if self._judgement is not None:
            self._judgement.cancel()
            self._judgement = None
        self._release_held()
        if self._held_by:
            for holder in self._held_by:
                if holder._holding is not None:
                    holder._holding.discard(self)
            self._held_by = None
            if not self._gone:
                # TLS reads the peer's close_notify before it closes.
                cast(Any, self.transport).resumeProducing()
        transport = cast(Any, self.transport)
        # Also of a transport that is gone: a TLS one would keep this link in a cycle.
        transport.unregisterProducer()
        if self._gone:
            self._drop_queue()
            return
        if reason.aborts:
            self._drop_queue()
            transport.abortConnection()
            return
        # What was sent to it before is still delivered, if it takes it within LINGER.
        waiting = [data for data, _ in self._queue or ()] + (self._batch or [])
        self._drop_queue()
        if waiting:
            transport.write(b"".join(waiting))
        self.service.wheel.forget(self)
        self.service.wheel.watch(self, self.service.wheel.seconds() + LINGER)
        if reason.ours and is_plain_tcp(self.transport):
            # Its bytes that nobody read would make close() a reset, which drops what is on its
            # way to it: read on, into nothing, until its FIN.
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    @property
    def saturated(self) -> bool:
        config = self.config
        return (
            self.waiting_packets > 2 * config.queue_packets
            or self.waiting_bytes > 2 * config.queue_bytes
        )

    # What the service calls at the end of a batch.

    def flush(self, source: GatewayLink | None) -> None:
        """Write what was collected, or queue it; then look at the bounds.

        Args:
            source: The link whose packets made this batch, if one did.
        """
        batch, packets = self._batch, self._batch_packets
        self._batch = None
        if batch is None or self.lost is not None:
            return
        data = batch[0] if len(batch) == 1 else b"".join(batch)
        self.packets_out += packets
        self.bytes_out += len(data)
        if self._full_since is None:
            cast(Any, self.transport).write(data)
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append((data, packets))
        self.waiting_packets += packets
        self.waiting_bytes += len(data)
        if self._over_bounds():
            self.went_over_bounds(source)

    def went_over_bounds(self, source: GatewayLink | None) -> None:
        """More waits for this link than its port allows."""
        raise NotImplementedError

    def _over_bounds(self) -> bool:
        config = self.config
        return (
            self.waiting_packets > config.queue_packets or self.waiting_bytes > config.queue_bytes
        )

    def _drop_queue(self) -> None:
        self._queue = None
        self._batch = None
        self.waiting_packets = self.waiting_bytes = 0

    # The transport's buffer, as IPushProducer.

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        if self._full_since is None:
            wheel = self.service.wheel
            self._full_since = wheel.seconds()
            self._taken = self._bytes_taken()
            if self.config.write_timeout and self.lost is None:
                wheel.watch(self, self._full_since + self.config.write_timeout)

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self._full_since = None
        renew_producer(self.transport, self)
        self._drained = True
        if self.lost is not None:
            return
        queue = self._queue
        while queue and self._full_since is None:
            pieces: list[bytes] = []
            size = packets = 0
            while queue and size < WRITE_PIECE:
                data, count = queue.popleft()
                pieces.append(data)
                size += len(data)
                packets += count
            self.waiting_packets -= packets
            self.waiting_bytes -= size
            cast(Any, self.transport).write(b"".join(pieces))
        if not queue:
            self._queue = None
        if self._holding and self._below_half():
            self._release_held()

    def stopProducing(self) -> None:
        """The connection is gone, or TLS is over; connectionLost follows."""

    def _below_half(self) -> bool:
        config = self.config
        return (
            2 * self.waiting_packets < config.queue_packets
            and 2 * self.waiting_bytes < config.queue_bytes
        )

    # Not reading from those who send to a link that is over its bounds.

    def hold(self, source: GatewayLink) -> None:
        """Stop reading from `source` until this link has drained."""
        if source.lost is not None:
            return
        if self._holding is None:
            self._holding = set()
        if source in self._holding:
            return
        self._holding.add(source)
        if not source._held_by:
            source._held_by = set()
            cast(Any, source.transport).pauseProducing()
            self.service.holds += 1
        source._held_by.add(self)

    @property
    def held(self) -> bool:
        """It is not read from, because a link that it sends to has to drain first."""
        return bool(self._held_by)

    def _release_held(self) -> None:
        holding, self._holding = self._holding, None
        for source in holding or ():
            if source._held_by is None:
                continue
            source._held_by.discard(self)
            if not source._held_by:
                source._held_by = None
                # It could not be heard: its idle time begins anew.
                source.last_packet = self.service.wheel.seconds()
                if source.lost is None:
                    cast(Any, source.transport).resumeProducing()

    # A resumable transport, as IResumableProtocol.

    def stream_cut(self) -> None:
        if self.lost is not None:
            return  # what is on its way to it may still be taken
        if not self.known:
            # Who has proved nothing does not take the place of one who may come back.
            self.service.router.lose(self, Reason.CONNECTION_LOST)
            cast(Any, self.transport).abortConnection()
            return
        self.cut_since = self.service.wheel.seconds()
        log.info(
            "{side} {id} {addr} cut: it may come back",
            side=self.side.value,
            id=self.link_id,
            addr=self.peer_name(),
        )

    def stream_resumed(self, seconds: float, replayed: int) -> None:
        if self.cut_since is None or self.lost is not None:
            return
        wheel = self.service.wheel
        cut = wheel.seconds() - self.cut_since
        self.cut_since = None
        # Only the transport's wait timeout counts this time; every other goes on where it was.
        self.last_packet += cut
        if self._full_since is not None:
            self._full_since += cut
        wheel.watch(self, wheel.seconds())
        log.info(
            "{side} {id} {addr} resumed after {seconds:.1f} s, {replayed} bytes sent again",
            side=self.side.value,
            id=self.link_id,
            addr=self.peer_name(),
            seconds=seconds,
            replayed=replayed,
        )

    # Time.

    def check(self, now: float) -> float | None:
        """Lose the link if a deadline has passed; otherwise return the next one."""
        router = self.service.router
        if self.lost is not None:
            cast(Any, self.transport).abortConnection()
            return None
        if self.cut_since is not None:
            return None  # stream_resumed asks again
        deadlines = []
        if self._full_since is not None and self.config.write_timeout:
            taken = self._bytes_taken()
            if taken != self._taken:
                self._taken = taken
                self._full_since = now
            due = self._full_since + self.config.write_timeout
            if due <= now:
                router.lose(self, Reason.WRITE_TIMEOUT)
                self.service.flush()
                return None
            deadlines.append(due)
        silent = self.silence_deadline()
        if silent is not None:
            due, reason = silent
            if self.held:
                due = now + self.config.idle_timeout
            elif due <= now:
                router.lose(self, reason)
                self.service.flush()
                return None
            deadlines.append(due)
        return min(deadlines, default=None)

    def silence_deadline(self) -> tuple[float, Reason] | None:
        """When the peer must have been heard of, and what it is lost for otherwise."""
        if not self.config.idle_timeout:
            return None
        return self.last_packet + self.config.idle_timeout, Reason.IDLE_TIMEOUT

    def _bytes_taken(self) -> int | None:
        transport = self.transport
        if IResumableTransport.providedBy(transport):
            return cast("int | None", cast(Any, transport).acked)
        return acked_bytes(transport)

    # The log.

    def peer_name(self) -> str:
        """The peer's address as operators write it."""
        return address_name(cast(Any, self.transport).getPeer())

    def _log_lost(self, reason: Reason, detail: str) -> None:
        if not log.tells_info:
            return
        log.info(
            "{side} {id} {addr} lost: {reason}{colon}{detail} "
            "(after {seconds:.1f} s; in {packets_in} packets, {bytes_in} bytes; "
            "out {packets_out} packets, {bytes_out} bytes)",
            side=self.side.value,
            id=self.link_id if self.known else "?",
            addr=self.peer_name(),
            reason=reason.value,
            reason_code=reason.code,
            colon=": " if detail else "",
            detail=detail,
            seconds=round(self.service.wheel.seconds() - self.since, 3),
            packets_in=self.packets_in,
            bytes_in=self.bytes_in,
            packets_out=self.packets_out,
            bytes_out=self.bytes_out,
        )


class ClientLink(GatewayLink):
    """A client: known at once, lost when it does not read."""

    side = Side.CLIENT

    def connectionMade(self) -> None:
        super().connectionMade()
        service = self.service
        service.router.add_client(self)
        if self.config.idle_timeout:
            service.wheel.watch(self, self.since + self.config.idle_timeout)
        if log.tells_info:
            log.info(
                "{side} {id} {addr} connected",
                side=self.side.value,
                id=self.link_id,
                addr=self.peer_name(),
            )

    def went_over_bounds(self, source: GatewayLink | None) -> None:
        if self._judgement is not None:
            if self.waiting_bytes > self.config.queue_bytes:
                self._judgement.reset(0)
            return
        self._drained = False
        later = self.service.clock.callLater
        taken = self._bytes_taken() if IResumableTransport.providedBy(self.transport) else None
        if taken is None:
            # Two turns: the first begins before the socket is offered what waits, the second
            # after it.
            self._judgement = later(0, self._judge_next_turn)
        else:
            # Little is on its way at a time: it takes round trips to see that it reads.
            self._judgement = later(PATIENCE, self._judge, taken)

    def _judge_next_turn(self) -> None:
        self._judgement = self.service.clock.callLater(0, self._judge)

    def _judge(self, taken: int | None = None) -> None:
        self._judgement = None
        if self.lost is None and self._over_bounds():
            reads = self._drained or (taken is not None and self._bytes_taken() != taken)
            if reads and self.waiting_bytes <= self.config.queue_bytes:
                self.went_over_bounds(None)  # what waits came since: judge again
                return
            detail = f"{self.waiting_packets} packets, {self.waiting_bytes} bytes"
            self.service.router.lose(self, Reason.SLOW_READER, detail)
            self.service.flush()


class ServerLink(GatewayLink):
    """A game server: proves the key, brings its id, and is never lost for others' flooding."""

    side = Side.SERVER

    def __init__(self, factory: ServerFactory) -> None:
        super().__init__(factory)
        self._handshake: Handshake | None = Handshake(factory.key)

    def connectionMade(self) -> None:
        super().connectionMade()
        assert self._handshake is not None
        cast(Any, self.transport).write(self._handshake.challenge)
        self.service.wheel.watch(self, self.since + HANDSHAKE_TIMEOUT)
        log.info("{side} ? {addr} connected", side=self.side.value, addr=self.peer_name())

    def dataReceived(self, data: bytes) -> None:
        if self._handshake is None:
            super().dataReceived(data)
            return
        if self.lost is not None:
            return
        self.bytes_in += len(data)
        service = self.service
        try:
            done = self._handshake.feed(data)
        except AuthFailed as error:
            service.router.lose(self, error.reason)
            return
        if done is None:
            return
        self._handshake = None
        server_id, rest = done
        self.last_packet = service.wheel.seconds()
        if self.config.idle_timeout:
            service.wheel.watch(self, self.last_packet + self.config.idle_timeout)
        log.info(
            "{side} {id} {addr} logged in",
            side=self.side.value,
            id=server_id,
            addr=self.peer_name(),
        )
        service.router.add_server(self, server_id)
        self.bytes_in -= len(rest)
        super().dataReceived(rest)

    def silence_deadline(self) -> tuple[float, Reason] | None:
        if self._handshake is not None:
            return self.since + HANDSHAKE_TIMEOUT, Reason.HANDSHAKE_TIMEOUT
        return super().silence_deadline()

    def went_over_bounds(self, source: GatewayLink | None) -> None:
        if source is not None:
            self.hold(source)


class TurnedAway(Protocol):
    """A connection over max_links: closed at once. Not None, which wrapping factories choke on."""

    def connectionMade(self) -> None:
        cast(Any, self.transport).abortConnection()


class GatewayFactory(Factory):
    """Makes the links of one port.

    Args:
        service: The router service that both ports share.
        config: The port's bounds.
    """

    noisy = False
    side: Side

    def __init__(self, service: RouterService, config: PortConfig) -> None:
        self.service = service
        self.config = config
        self.links = 0
        """Connections that are open, handshakes included."""

    link_class: type[GatewayLink]
    """What it makes; on a port of the relay a class of `fastway.relay.link`."""

    def make_link(self) -> GatewayLink:
        raise NotImplementedError

    @property
    def full(self) -> bool:
        """Whether max_links connections are open, cut ones included."""
        return 0 < self.config.max_links <= self.links

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        if self.service.stopping:
            return TurnedAway()
        if self.full:
            self.service.turned_away += 1
            log.warn(
                "{side} ? {addr} turned away: "
                "{links} connections are open, max-{side}s is {limit}",
                side=self.side.value,
                addr="?" if addr is None else address_name(addr),
                links=self.links,
                limit=self.config.max_links,
            )
            return TurnedAway()
        self.links += 1
        return self.make_link()


@implementer(IBounded)
class ClientFactory(GatewayFactory):
    """The client port. On the server port no newcomer takes the place of a cut server: it has
    proved nothing yet."""

    side = Side.CLIENT
    link_class = ClientLink

    def __init__(self, service: RouterService, config: PortConfig | None = None) -> None:
        super().__init__(service, PortConfig() if config is None else config)

    def make_link(self) -> GatewayLink:
        return self.link_class(self)


class ServerFactory(GatewayFactory):
    """The server port.

    Args:
        key: What servers must prove to hold.
    """

    side = Side.SERVER
    link_class = ServerLink

    def __init__(
        self, service: RouterService, key: bytes, config: PortConfig | None = None
    ) -> None:
        super().__init__(service, server_port_config() if config is None else config)
        self.key = key

    def make_link(self) -> GatewayLink:
        return self.link_class(self)


class RouterService(Service):
    """The Router that both ports share, its timer wheel, and the end of each batch.

    Args:
        clock: The reactor, or a test's `task.Clock`.
        limits: What the router allows.
    """

    name = "router"

    def __init__(self, clock: IReactorTime, limits: Limits | None = None) -> None:
        self.clock = clock
        self.router = Router(limits)
        self.wheel = Wheel(clock)
        self.touched: list[GatewayLink] = []
        """Links with a collected batch, in the order in which they were first sent to."""
        self.connected: set[GatewayLink] = set()
        """Links whose transport is not gone yet, handshaking and lingering ones included."""
        self.holds = 0
        """How often a link was not read from because a server had to drain."""
        self.turned_away = 0
        """Connections closed at once because of max_links."""
        self.snet: dict[str, SnetFactory] = {}
        """side -> the streams of its port, where it speaks snet."""
        self.relay: Any = None
        """The native fast path (`fastway.relay.link.GatewayRelay`), if there is one."""
        self.started = clock.seconds()
        self.stopping = False
        self._stopped: Deferred[None] | None = None

    def flush(self, source: GatewayLink | None = None) -> None:
        """End a batch: one write for each link that was sent to."""
        while self.router.work():
            pass
        touched = self.touched
        if touched:
            for link in touched:
                link.flush(source)
            touched.clear()

    def startService(self) -> None:
        super().startService()
        self.stopping = False
        self.started = self.clock.seconds()

    def stopService(self) -> Deferred[None] | None:
        """Lose every link. Fires when all transports are gone: within LINGER seconds."""
        super().stopService()
        self.stopping = True
        for link in list(self.connected):
            self.router.lose(link, Reason.SHUTDOWN)
        self.flush()
        if not self.connected:
            self.wheel.stop()
            return None
        if self._stopped is None:
            self._stopped = Deferred()
        return self._stopped

    def link_gone(self) -> None:
        """A transport is gone."""
        if self._stopped is not None and not self.connected:
            stopped, self._stopped = self._stopped, None
            self.wheel.stop()
            stopped.callback(None)

"""The native lane: links whose sockets are the C core's (`fastway.relay`).

Rule: this translates between the core, Twisted and the gateway, and decides nothing. Packets
between two links of the core never come here; commands, strays, packets for links elsewhere, and
ends do. One reader brings all of its sockets into whatever reactor runs.
"""

from __future__ import annotations

import errno
import os
import socket
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress, IDelayedCall, IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.errors import Reason, TlsFailed
from fastway.gateway.bounds import (
    ACCEPT_SECONDS,
    COMMANDS_EACH,
    COMMANDS_TURN,
    EVENTS_TURN,
    OPENINGS_TURN,
    SHARE_LEAST,
    SHARE_MOST,
    SHARES,
    TURN_SECONDS,
)
from fastway.gateway.factories import GatewayFactory
from fastway.gateway.framings import FRAMINGS, broken_rule
from fastway.gateway.identities import told_by
from fastway.gateway.lane import NOBODY, Counts, End, Framing, Lane, LaneOwner, Shares, Told
from fastway.gateway.limits import Entry
from fastway.gateway.preface import PrefaceFactory
from fastway.gateway.service import RouterService
from fastway.logs import make_logger
from fastway.relay import POOL_TYPES, PoolConfig, Totals, _core, openssl
from fastway.wheel import TICK
from fastway.wire import Run

if TYPE_CHECKING:
    from fastway.gateway.shaking import Shaking
    from fastway.gateway.tls import TlsFactory, TlsHandshake

log = make_logger("fastway.gateway")

PACKETS = _core.PACKETS

ANY = 1 << 30
"""Whatever the number of a descriptor."""

ALL = 1 << 30
"""Commands of one event: the core keeps to the bounds of a turn."""

REST = 0.5
"""Seconds that a port rests when it can neither accept nor refuse."""

FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Comer(NamedTuple):
    """Who connects: what is read of an IPv4Address, for a third of the time."""

    host: str
    port: int


class NativeLane:
    """A link's lane whose socket is the core's; see `lane.Lane` for its verbs."""

    __slots__ = (
        "_config",
        "_connection",
        "_core",
        "_ended",
        "_handle",
        "_handshake",
        "_native",
        "_rest",
        "_sent",
        "_tls",
        "_waits",
        "admitted",
        "counted_at",
        "holds",
        "link",
        "shares",
    )

    link: LaneOwner
    native = True
    costs = 0

    def __init__(
        self,
        native: NativeCore,
        handle: int,
        port: GatewayFactory,
        tls: TlsFactory | None = None,
        admitted: Entry | None = None,
    ) -> None:
        self.link = NOBODY
        self.admitted = admitted
        self._native = native
        self._core = native.core
        self._handle = handle
        self._config = port.config
        self._waits = False
        self._rest: list[Run] | None = None
        """What the gateway has no time for yet; it is held until then."""
        self._ended: Counts | None = None
        """The last counts of one that is gone."""
        self._sent = 0
        """Bytes sent since the last `settle`, where senders are held and much waits."""
        self._tls = tls
        self._handshake: TlsHandshake | None = None
        """What is under way."""
        self._connection: Any = None
        """OpenSSL's, which the core uses; it must live until the link is gone."""
        self.shares: Shares | None = Shares(cast(Lane, self)) if port.holds else None
        self.counted_at: set[Lane] | None = None
        self.holds = 0

    @property
    def away(self) -> bool:
        return self._handshake is not None and self._handshake.away

    @property
    def securing(self) -> bool:
        return self._tls is not None

    @property
    def prefaces(self) -> tuple[PrefaceFactory, ...]:
        return () if self._tls is None else (self._shake_hands,)

    def _shake_hands(self) -> TlsHandshake:
        assert self._tls is not None
        self._handshake = self._tls.handshake(self._native.shaking, self._shaken)
        return self._handshake

    def secure(self, connection: Any, data: bytes) -> None:
        self._handshake = None
        self._connection = connection
        self._core.tls(self._handle, *openssl.hand_over(connection), data)

    def secured(self) -> dict[str, str]:
        if self._connection is None:
            return {}
        told = told_by(self._connection)
        self._connection = openssl.kept(self._connection)
        return told

    @property
    def descriptor(self) -> int:
        return -1  # the core has looked

    def write(self, data: bytes) -> None:
        self._core.send(self._handle, data, 0)

    def wait(self) -> None:
        self._waits = True
        self._core.pause(self._handle)

    def direct(self, conn_id: int) -> None:
        self._core.direct(self._handle, conn_id)

    def start(self, data: bytes, framing: Framing | None = None) -> None:
        self._core.start(self._handle, data, FRAMINGS[type(framing)], self._native.now())
        if self._waits:
            self._waits = False
            self._core.resume(self._handle, self._native.now())

    def send(self, data: bytes, packets: int) -> None:
        crowded = self._core.send(self._handle, data, packets)
        if crowded and self.shares is not None:
            if not self._sent:
                self._native.service.touched.append(cast(Lane, self))
            self._sent += len(data)

    def multicast(self, conn_ids: array[int], message: bytes) -> array[int]:
        left = array("I")
        left.frombytes(self._core.multicast(self._handle, conn_ids.tobytes(), message))
        return left

    def progress(self) -> tuple[int, int]:
        return self._core.added(self._handle), self._core.taken(self._handle)

    def settle(self, source: Lane | None) -> None:
        """The core writes at the end of its turn, and holds those who send within it."""
        sent, self._sent = self._sent, 0
        shares = self.shares
        if shares is None or source is None or self._ended is not None:
            return
        core, handle = self._core, self._handle
        if shares.sent(source, sent, core.added(handle), core.taken(handle), core.over(handle)):
            self._native.service.holds += 1
            self._ask(shares)

    def _ask(self, shares: Shares) -> None:
        position = shares.next
        if position is not None:
            self._core.tell_taken(self._handle, position)

    def pair(self, conn_id: int, other: Lane) -> None:
        if isinstance(other, NativeLane) and other._native is self._native:
            self._core.pair(conn_id, self._handle, other._handle)

    def unpair(self, conn_id: int) -> None:
        self._core.unpair(conn_id)

    def pause(self) -> None:
        self._core.pause(self._handle)

    def resume(self) -> None:
        self._core.resume(self._handle, self._native.now())

    def packets_came(self, runs: list[Run]) -> None:
        """Packets that the core did not forward; what has to wait keeps all that follows."""
        left = self.link.packets_came(runs, ALL)
        held = self._rest is not None
        waits = bool(self.link.parks(self))
        if left and not waits:
            waits = True
            self._native.service.wait_for_turn(self)
        self._rest = left if waits else None
        if held is not waits:
            self.holds += 1 if waits else -1
            if waits and self.holds == 1:
                self.pause()
            elif not (waits or self.holds):
                self.resume()

    def go_on(self) -> None:
        """It has its turn."""
        if self._rest is not None and self._ended is None:
            self.packets_came(self._rest)
            self._native.service.flush(cast(Lane, self))

    def close(self, how: End, reason: Told | None = None) -> None:
        if self.shares is not None:
            self.shares.clear()
        counted_at, self.counted_at = self.counted_at, None
        for lane in counted_at or ():
            cast(Any, lane).shares.forget(self)
        if reason is not None and how is not End.ABORT:
            self._core.farewell(self._handle, reason.close_code, reason.value)
        self._core.close(self._handle, how)

    def rates_changed(self) -> None:
        """The core knows."""

    def saturated(self) -> bool:
        return self._core.saturated(self._handle)

    def counts(self) -> Counts:
        if self._ended is not None:
            return self._ended
        counts = Counts._make(self._core.counts(self._handle))
        if self._handshake is not None:
            counts = counts._replace(bytes_in=0)  # nothing of the peer's own came
        return counts._replace(held=1) if self.holds else counts

    def socket(self) -> socket.socket:
        """A duplicate of the socket, the caller's to close.

        Raises:
            OSError: the connection is gone.
        """
        return socket.socket(fileno=os.dup(self._core.socket(self._handle)))

    # What the core reports.

    def _taken(self, position: int) -> None:
        shares = self.shares
        if shares is not None:
            counts = self.counts()
            half = self._config.below_half(counts.waiting_packets, counts.waiting_bytes)
            shares.moved(self._core.taken(self._handle), half)
            self._ask(shares)

    def _bytes(self, data: bytes) -> None:
        self.link.bytes_came(data)
        handshake = self._handshake
        if handshake is not None and handshake.away:
            self._core.defer(self._handle)

    def _shaken(self) -> None:
        """A step of its handshake was done elsewhere."""
        if self._ended is not None:
            return
        self._core.handled(self._handle)
        try:
            self._bytes(b"")
        except Exception:  # a bug, and no reason to stop the others
            log.failure("an event of a link failed")
            self.close(End.ABORT)

    def _over(self, _: int) -> None:
        counts = self.counts()
        self.link.went_over(counts.waiting_packets, counts.waiting_bytes)

    def _fin(self, _: int) -> None:
        if self._handshake is None:
            self.link.peer_ended()
        else:
            self.link.misframed(TlsFailed())

    def _misframed(self, detail: int) -> None:
        self.link.misframed(broken_rule(detail, self._config.frame_limit))

    def _gone(self, error: int) -> None:
        """Its socket is closed: tell the link, then forget it."""
        core, handle = self._core, self._handle
        self._ended = self.counts()._replace(held=0)
        self._native.service.gate.leave(self.admitted)
        cause = _cause(error, core.tls_errors(handle))
        handshake, self._handshake, self._connection = self._handshake, None, None
        if handshake is not None:
            handshake.lost()
        link, self.link = self.link, NOBODY  # no cycle
        try:
            link.gone(cause)
        finally:
            core.release(handle)


def _cause(error: int, tls: list[int]) -> Exception | None:
    """Why a link is gone, by the numbers of the system and of OpenSSL; None: in order."""
    if error == errno.EPROTO and tls:
        return openssl.error_of(tls)
    return ConnectionLost() if error else None


@implementer(IReadDescriptor)
class NativeCore:
    """The C core of one RouterService. It is in the reactor, and on the wheel, while it has links.

    Args:
        reactor: Any with readers.
        service: Whose links it carries.
        pool: Where all queues come from.

    Raises:
        OSError: no descriptors, or a pool that cannot be.
    """

    def __init__(
        self, reactor: Any, service: RouterService, pool: PoolConfig | None = None
    ) -> None:
        self.pool = pool = PoolConfig() if pool is None else pool
        self.core = _core.Core(
            pool_type=POOL_TYPES.index(pool.type),
            factor=pool.factor,
            min_chunk=pool.min_chunk,
            max_chunk=pool.max_chunk,
            page_size=pool.page_size,
            limit=pool.limit,
            commands_each=COMMANDS_EACH,
            commands_turn=COMMANDS_TURN,
            events_turn=EVENTS_TURN,
            openings_turn=OPENINGS_TURN,
            share_least=SHARE_LEAST,
            share_most=SHARE_MOST,
            shares=SHARES,
            turn_seconds=TURN_SECONDS,
        )
        self.reactor = reactor
        self.service = service
        self.now = service.wheel.seconds
        self.slot = -1
        self.shaking: Shaking | None = None
        """Where handshakes are done, if any port has TLS."""
        self._reading = False
        self._counted = Totals(*[0] * len(Totals._fields))
        self._ports: dict[tuple[Any, ...], int] = {}
        """Those of the core, by their bounds and rates: it has room for a few."""
        self._rated: dict[GatewayFactory, int] = {}
        """The same, by whose links they are."""
        self._limit()

    def listen(
        self, fd: int, family: int, factory: GatewayFactory, tls: TlsFactory | None = None
    ) -> NativePort:
        """Listen with a bound, listening socket, of which a duplicate is taken.

        Args:
            tls: Its connections speak TLS as this says. Where the core cannot
                (`openssl.problem`) there must be none.
        """
        if tls is not None:
            from fastway.gateway.shaking import Shaking

            self.core.library(*openssl.library())
            if self.shaking is None:
                self.shaking = Shaking(self.reactor, self._settle)
        config = factory.config
        bounds: dict[str, Any] = {
            "max_packet": config.max_packet,
            "read_size": config.read_size,
            "idle_timeout": config.idle_timeout,
            "queue_packets": config.queue_packets,
            "queue_bytes": config.queue_bytes,
            "write_timeout": config.write_timeout,
            "holds": factory.holds,
            "frame_limit": config.frame_limit,
        }
        key = (*bounds.values(), config.packet_rate, config.byte_rate)
        if key not in self._ports:
            self._ports[key] = self.core.port(**bounds)
        self._rated[factory] = self._ports[key]
        self.set_rates(factory)
        port = NativePort.adopt(self, fd, family, factory, self._ports[key])
        port.tls = tls
        port.startListening()
        port.socket.setblocking(False)
        return port

    def set_rates(self, factory: GatewayFactory) -> None:
        """What each link of a port may send in a second has changed."""
        if factory in self._rated:
            config = factory.config
            self.core.rate(self._rated[factory], config.packet_rate, config.byte_rate)

    def accept(self, port: NativePort, most: int) -> tuple[NativeLane, Comer] | int | None:
        """One connection of a port that waits and its address, or -errno; None: it was refused."""
        taken = self.core.take(port.fileno(), most)
        if isinstance(taken, int):
            return taken
        fd, address, host, number = taken
        entry = port.gateway.door.admit(address)
        if isinstance(entry, Reason):
            self.core.refuse(fd)
            return None
        now = self.now()
        try:
            handle = self.core.adopt(fd, port.core_port, now)
        except OSError as error:
            self.core.refuse(fd)
            self.service.gate.leave(entry)
            return -(error.errno or errno.EIO)
        lane = NativeLane(self, handle, port.gateway, port.tls, entry)
        self.core.own(handle, lane)
        if not self._reading:
            self._reading = True
            self.reactor.addReader(self)
            self.service.wheel.watch(self, now + TICK)
        return lane, Comer(host, number)

    def stop(self) -> None:
        """No link is left, and none will come for now."""
        if self.shaking is not None:
            self.shaking.stop()

    def totals(self) -> Totals:
        """What was counted in all."""
        return Totals._make(self.core.totals())

    # What the reactor and the wheel call.

    def fileno(self) -> int:
        return self.core.fileno()

    def logPrefix(self) -> str:
        return "fastway.relay"

    def doRead(self) -> None:
        try:
            self._handle(self.core.run(self.now()))
        except Exception as error:
            self._fail(error)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends; the links' own ends come first."""

    def check(self, now: float) -> float | None:
        """The core's own deadlines, and its memory."""
        try:
            self._limit()
            events = self.core.sweep(now)
            self._handle(events)
        except Exception as error:
            self._fail(error)
            return None
        # Without links it goes on until the pool has given back what it does not need.
        return now + TICK if self._reading or events is not None else None

    def _limit(self) -> None:
        """What all may hold together is shared with the Python lane."""
        limit = max(1, self.service.memory_limit - self.service.waiting_bytes)
        own = self.pool.limit
        limit = min(limit, own) if own else limit
        self.core.limit(min(limit, 1 << 62))

    def _fail(self, error: Exception) -> None:
        # Twisted would take the only reader away: a process that lives and does not forward.
        if self._reading:
            self._reading = False
            self.reactor.removeReader(self)
            self.service.wheel.forget(self)
        self.service.lane_failed(f"the native relay cannot go on: {error!r}")

    def _handle(self, events: list[_core.Event] | None) -> None:
        service = self.service
        for kind, lane, payload in events or ():
            try:
                if kind == PACKETS:
                    lane.packets_came(payload)
                else:
                    _REPORTS[kind](lane, payload)
                if service.touched or service.turned:
                    service.flush(cast(Lane, lane))
            except MemoryError:
                raise
            except Exception:  # a bug, and no reason to stop the others
                log.failure("an event of a link failed")
                lane.close(End.ABORT)
        if events:
            self._settle()
        self._count()
        if self._reading and not self._counted.links:
            self._reading = False
            self.reactor.removeReader(self)

    def _settle(self) -> None:
        """Some events were handled."""
        self.service.flush()
        self.core.go_on(self.now())

    def _count(self) -> None:
        totals, before = self.totals(), self._counted
        service = self.service
        stats = service.router.stats
        stats.packets += totals.packets - before.packets
        stats.bytes += totals.bytes - before.bytes
        stats.pings += totals.pings - before.pings
        service.holds += totals.holds - before.holds
        self._counted = totals


_REPORTS: dict[int, Any] = {
    _core.BYTES: NativeLane._bytes,
    _core.FIN: NativeLane._fin,
    _core.GONE: NativeLane._gone,
    _core.BROKEN: lambda lane, length: lane.link.broke(length),
    _core.IDLE: lambda lane, _: lane.link.went_idle(),
    _core.STUCK: lambda lane, _: lane.link.got_stuck(),
    _core.OVER: NativeLane._over,
    _core.TAKEN: NativeLane._taken,
    _core.NO_MEMORY: lambda lane, _: lane.link.had_no_memory(),
    _core.MISFRAMED: NativeLane._misframed,
}


class NativePort(Port):
    """A listening port whose connections are the core's."""

    native: NativeCore
    gateway: GatewayFactory
    core_port: int
    tls: TlsFactory | None = None

    _spare = -1
    """A descriptor to give up when there are no others, so that a connection can be refused."""

    _resting: IDelayedCall | None = None

    @classmethod
    def adopt(
        cls, native: NativeCore, fd: int, family: int, factory: GatewayFactory, core_port: int
    ) -> NativePort:
        """A port for a bound socket, of which a duplicate is taken."""
        port = cast(
            NativePort,
            cls._fromListeningDescriptor(
                native.reactor, fd, cast(Any, family), cast(Factory, factory)
            ),
        )
        port.native = native
        port.gateway = factory
        port.core_port = core_port
        factory.door.listening = port
        factory.door.at_accept = True
        port._keep_spare()
        return port

    def doRead(self) -> None:
        clock = self.native.reactor.seconds
        until = clock() + ACCEPT_SECONDS
        most = ANY if self.gateway.holds else self.native.service.most_files()
        rests = self.gateway.door.rests
        while self.connected and not self.disconnecting and not rests():
            accepted = self.native.accept(self, most)
            if accepted is None:
                pass  # the door has said so
            elif not isinstance(accepted, int):
                self._made(*accepted)
            elif -accepted in (errno.EAGAIN, errno.EWOULDBLOCK):
                break
            elif -accepted == errno.EUSERS:
                self.gateway.out_of_files(None)
            elif -accepted in FULL:
                self._refuse(-accepted)
                break
            elif -accepted in (errno.ECONNABORTED, errno.EINTR, errno.EPROTO):
                pass  # it went before it was accepted
            else:
                self._say("could not be taken in", os.strerror(-accepted))
            if clock() >= until:
                break

    def _made(self, lane: NativeLane, comer: Comer) -> None:
        address = cast(IAddress, comer)
        if not self.gateway.admits(address):
            lane.close(End.ABORT)
            return
        try:
            name = "tcp" if self.tls is None else "tls"
            self.gateway.connected(cast(Lane, lane), address, name)
        except Exception:
            log.failure("a connection could not be made")
            lane.close(End.ABORT)

    def _refuse(self, error: int) -> None:
        """Close one connection, so that it does not wait for ever and is not asked for again."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        try:
            refused, address = self.socket.accept()
            refused.close()
            self._say("was closed: no descriptor", os.strerror(error), address[0])
        except OSError:
            # Not even that: let it wait, and the others go on.
            self.stopReading()
            self._resting = self.native.service.clock.callLater(REST, self._rested)
        self._keep_spare()

    def _rested(self) -> None:
        self._resting = None
        self._keep_spare()
        self.startReading()

    def _keep_spare(self) -> None:
        if self._spare < 0:
            try:
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._spare = -1  # tried again at the next need

    def _say(self, what: str, problem: str, host: str = "?") -> None:
        side = self.gateway.side.value
        self.gateway.quiet.warn(
            log,
            f"{side} connection {what}",
            host,
            f"{{side}} ? {{addr}}: a connection {what}: {{problem}}",
            side=side,
            addr=host,
            problem=problem,
        )

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self.gateway.door.close()
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

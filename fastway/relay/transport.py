"""The core in a Twisted reactor: one reader for all its sockets, its ports and its transports.

Rule: this module translates between the core and Twisted, and knows nothing of the gateway but
the wheel's time. Each connection is one small object here and one struct in the core.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IReadDescriptor, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.logs import make_logger
from fastway.relay import POOL_TYPES, IRelayTransport, PoolConfig, _core
from fastway.wheel import TICK, Wheel

log = make_logger(__name__)

ACCEPTS = 100
"""Connections that a port accepts in one turn."""

_DONE = Failure(ConnectionDone())
_LOST = Failure(ConnectionLost())


@implementer(IRelayTransport, ITCPTransport)
class RelayTransport:
    """A connection whose socket is the core's."""

    __slots__ = ("__weakref__", "_ended", "handle", "port", "protocol", "relay", "started")

    disconnecting = False

    def __init__(self, relay: Relay, port: RelayPort, handle: int) -> None:
        self.relay = relay
        self.port = port
        self.handle = handle
        self.protocol: Any = None
        self.started = False
        self._ended: tuple[tuple[int, ...], IPv4Address | IPv6Address] | None = None
        """The last counts, and the peer's address, of one that is gone."""

    # IRelayTransport.

    def start(self, data: bytes) -> None:
        self.started = True
        self.relay.core.start(self.handle, data, self.relay.now())

    def pair(self, conn_id: int, other: RelayTransport) -> None:
        if other.relay is self.relay and self.started and other.started:
            self.relay.core.pair(conn_id, self.handle, other.handle)

    def unpair(self, conn_id: int) -> None:
        self.relay.core.unpair(conn_id)

    def send(self, data: bytes, packets: int) -> bool:
        self.relay.core.send(self.handle, data, packets)
        return self.over_bounds()

    # What the gateway's links also ask.

    @property
    def counts(self) -> tuple[int, ...]:
        """packets_in, bytes_in, packets_out, bytes_out, waiting_packets, waiting_bytes,
        input_bytes, held; see struct relay_counts."""
        if self._ended is not None:
            return self._ended[0]
        return self.relay.core.counts(self.handle)

    def count(self, place: int) -> int:
        """One of `counts`."""
        return self.counts[place]

    def over_bounds(self) -> bool:
        """More waits for it than its port allows."""
        return self.relay.core.over(self.handle)

    def saturated(self) -> bool:
        """More waits for it than twice that."""
        return self.relay.core.saturated(self.handle)

    def tell_taken(self, size: int) -> None:
        """Have the protocol's `taken` called once so much of what waits was taken."""
        core = self.relay.core
        core.tell_taken(self.handle, core.taken(self.handle) + size)

    # ITCPTransport.

    def write(self, data: bytes) -> None:
        self.relay.core.send(self.handle, data, 0)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.relay.core.close(self.handle, _core.CLOSE)

    def loseWriteConnection(self) -> None:
        self.relay.core.close(self.handle, _core.HALF)

    def abortConnection(self) -> None:
        self.relay.core.close(self.handle, _core.ABORT)

    def pauseProducing(self) -> None:
        self.relay.core.pause(self.handle)

    def resumeProducing(self) -> None:
        self.relay.core.resume(self.handle, self.relay.now())

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """The core's queue is bounded by the core; it asks no producer."""

    def unregisterProducer(self) -> None:
        pass

    def getPeer(self) -> IPv4Address | IPv6Address:
        if self._ended is not None:
            return self._ended[1]
        return self._address(*self.relay.core.peer(self.handle))

    def getHost(self) -> IPv4Address | IPv6Address:
        try:
            with self.getHandle() as handle:
                return self._address(*handle.getsockname()[:2])
        except OSError:
            return cast(IPv4Address, self.port.getHost())

    def getHandle(self) -> socket.socket:
        """A duplicate of the socket, the caller's to close.

        Raises:
            OSError: the connection is gone.
        """
        return socket.socket(fileno=os.dup(self.relay.core.socket(self.handle)))

    def getTcpNoDelay(self) -> bool:
        with self.getHandle() as handle:
            return bool(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        if not enabled:  # the core sets it
            with self.getHandle() as handle:
                handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)

    def getTcpKeepAlive(self) -> bool:
        with self.getHandle() as handle:
            return bool(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        with self.getHandle() as handle:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, bool(enabled))

    def _address(self, host: str, port: int) -> IPv4Address | IPv6Address:
        kind = IPv6Address if self.port.addressFamily == socket.AF_INET6 else IPv4Address
        return kind("TCP", host, port)

    # What the relay calls.

    def peer_ended(self) -> None:
        """Its FIN came."""
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
        else:
            self.loseConnection()

    def gone(self, error: int) -> None:
        """Its socket is closed: tell the protocol, then forget the link."""
        core, handle = self.relay.core, self.handle
        protocol, self.protocol = self.protocol, None
        try:
            if protocol is not None:
                protocol.connectionLost(_LOST if error else _DONE)
        finally:
            self._ended = core.counts(handle), self.getPeer()
            core.release(handle)


@implementer(IReadDescriptor)
class Relay:
    """One core in one reactor. It is in the reactor, and on the wheel, while it has links.

    Args:
        reactor: Any with readers.
        wheel: Whose time the links' deadlines are in.
        pool: Where all queues come from.

    Raises:
        OSError: no descriptors, or a pool that cannot be.
    """

    def __init__(self, reactor: Any, wheel: Wheel, pool: PoolConfig | None = None) -> None:
        pool = PoolConfig() if pool is None else pool
        self.pool = pool
        self.core = _core.Core(
            pool_type=POOL_TYPES.index(pool.type),
            factor=pool.factor,
            min_chunk=pool.min_chunk,
            max_chunk=pool.max_chunk,
            page_size=pool.page_size,
            limit=pool.limit,
            commands_each=16,
            commands_turn=64,
            events_turn=64,
            share_least=4096,
            share_most=64 * 1024,
            shares=1024 * 1024,
            turn_seconds=0.004,
        )
        self.reactor = reactor
        self.wheel = wheel
        self.now = wheel.seconds
        self.slot = -1
        self.turned: Any = None
        """Called after each turn with what the core has counted; see struct relay_totals."""
        self._watching = False
        self._actions = {
            _core.PACKETS: lambda transport, runs: transport.protocol.packets_came(runs),
            _core.BYTES: lambda transport, data: transport.protocol.dataReceived(data),
            _core.FIN: lambda transport, _: transport.peer_ended(),
            _core.GONE: lambda transport, error: transport.gone(error),
            _core.BROKEN: lambda transport, length: transport.protocol.bad_length(length),
            _core.IDLE: lambda transport, _: transport.protocol.went_idle(),
            _core.STUCK: lambda transport, _: transport.protocol.got_stuck(),
            _core.OVER: lambda transport, _: transport.protocol.lost_for_bounds(),
            _core.TAKEN: lambda transport, _: transport.protocol.taken(),
            _core.NO_MEMORY: lambda transport, _: transport.protocol.no_memory(),
        }

    def adopt_port(self, fd: int, family: int, factory: Factory, port: int) -> RelayPort:
        """Listen with a bound, listening socket, of which a duplicate is taken.

        Args:
            port: What `core.port` returned: the bounds of its links.
        """
        listening = RelayPort.adopt(self, fd, family, factory)
        listening.core_port = port
        listening.startListening()
        listening.socket.setblocking(False)
        return listening

    def accept(self, port: RelayPort) -> RelayTransport | int:
        """One connection of a port that waits, or -errno."""
        accepted = self.core.accept(port.fileno(), port.core_port, self.now(), 1 << 30)
        if isinstance(accepted, int):
            return accepted
        handle = accepted[0]
        transport = RelayTransport(self, port, handle)
        self.core.own(handle, transport)
        if not self._watching:
            self._watching = True
            self.reactor.addReader(self)
            self.wheel.watch(self, self.now() + TICK)
        return transport

    # What the reactor and the wheel call.

    def fileno(self) -> int:
        return self.core.fileno()

    def logPrefix(self) -> str:
        return "Relay"

    def doRead(self) -> None:
        self._handle(self.core.run(self.now()))

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends; the links' own ends come first."""

    def check(self, now: float) -> float | None:
        """The core's own deadlines."""
        self._handle(self.core.sweep(now))
        return now + TICK if self._watching else None

    def _handle(self, events: list[_core.Event] | None) -> None:
        if events:
            for kind, transport, payload in events:
                if transport.protocol is None and kind != _core.GONE:
                    continue
                try:
                    self._actions[kind](transport, payload)
                except Exception:  # a bug, and no reason to stop the others
                    log.failure("an event of {transport!r} failed", transport=transport)
                    transport.abortConnection()
            self.core.go_on(self.now())
        totals = self.core.totals()
        if self.turned is not None:
            self.turned(totals)
        if totals[4] == 0 and self._watching:
            self._watching = False
            self.reactor.removeReader(self)
            self.wheel.forget(self)


class RelayPort(Port):
    """A listening port whose connections are the core's."""

    relay: Relay
    core_port: int

    @classmethod
    def adopt(cls, relay: Relay, fd: int, family: int, factory: Factory) -> RelayPort:
        """A port for a bound socket, of which a duplicate is taken."""
        port = cast(
            RelayPort,
            cls._fromListeningDescriptor(relay.reactor, fd, cast(Any, family), factory),
        )
        port.relay = relay
        port._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return port

    _spare = -1
    """A descriptor to give up when there are no others, so that a connection can be refused."""

    def doRead(self) -> None:
        if self._accept():
            # What they say first has often come by now: that saves a turn.
            self.relay.doRead()

    def _accept(self) -> bool:
        """Take those that wait; returns whether there is one that may talk now."""
        talks = False
        for _ in range(ACCEPTS):
            if self.disconnecting or not self.connected:
                break
            transport = self.relay.accept(self)
            if isinstance(transport, RelayTransport):
                self._made(transport)
                talks = talks or transport.started
            elif -transport in (errno.EAGAIN, errno.EWOULDBLOCK):
                break
            elif -transport in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._refuse(-transport)
                break
            # Any other: one that went before it was accepted.
        return talks

    def _made(self, transport: RelayTransport) -> None:
        try:
            protocol = cast(Factory, self.factory).buildProtocol(transport.getPeer())
            if protocol is None:
                transport.abortConnection()
                return
            transport.protocol = protocol
            protocol.makeConnection(cast(Any, transport))
        except Exception:
            log.failure("a connection could not be made")
            transport.abortConnection()

    def _refuse(self, error: int) -> None:
        """Close one connection, so that it does not wait for ever and is not asked for again."""
        if self._spare >= 0:
            os.close(self._spare)
        try:
            refused, address = self.socket.accept()
            refused.close()
            log.warn(
                "no descriptor for a connection from {addr}: {error}; it was closed",
                addr=address[0],
                error=os.strerror(error),
            )
        except OSError:
            pass  # it went, or another thread was faster
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

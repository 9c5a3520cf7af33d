"""Ports of an application on the transports of the C relay: a third of the system calls.

    app.listen("tcp:3250", Pomelo())  # takes one by itself where the relay is built

Rule: a link here is the same Link with the same behaviour; only its socket, and what waits for
it, are the core's. One reader brings all sockets of an App into whatever reactor runs; what all
handlers of a turn told goes out at its end, in one write for each peer.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReadDescriptor, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from fastway.address import address_name
from fastway.app.app import App
from fastway.app.bounds import State
from fastway.app.link import GOODBYE, Link
from fastway.app.ports import LinkFactory
from fastway.app.session import Lane
from fastway.app.telling import HOLD_REQUESTS
from fastway.app.turn import shared
from fastway.app.websocket import WebSocketFactory, WebSocketLink
from fastway.dialect import Message, Meta
from fastway.formats import Encoded
from fastway.logs import make_logger
from fastway.relay import POOL_TYPES, PoolConfig, _core

log = make_logger("fastway.app")

EVENTS_TURN = 256
"""What the core may ask in one turn: each is a read of a peer, and its handlers."""

ACCEPTS = 16
"""Connections that a port accepts in one turn."""

READ_SIZE = 64 * 1024
"""Bytes of one read."""

TURN_SECONDS = 0.004
"""Seconds that the core reads before the reactor goes on with other work."""

SWEEP = 1.0
"""Seconds between looks at memory that nobody uses."""

NO_BOUND = 1 << 62

BYTES = _core.BYTES

_READY = (bytes, Encoded, type(None))
"""Types of answers that no format, or not every one, is asked to write."""

MAX_WRITTEN = 1000
"""Types that are kept, of those that every format is asked to write."""

_written: set[type] = set()


class NativeLink(Link):
    """A link whose output waits in the core: there it is bounded, and written once a turn."""

    __slots__ = ()

    def _met(self) -> None:
        super()._met()
        transport = cast(NativeTransport, self.transport)
        self._address = address_name(transport.getPeer())
        transport.peer = None  # its name is known

    @property
    def address(self) -> str:
        return self._address

    def dataReceived(self, data: bytes) -> None:
        """As any link's; the relay has begun the turn, and knows the time of it."""
        if self._gone or self._closing:
            return
        transport: NativeTransport = self.transport  # type: ignore[assignment]
        now = transport.relay.time
        if self._rate is not None:
            self._pay(self._rate.bytes(len(data), now))
        self._took(self.wire.receive(data, now))

    def _write(self, data: bytes) -> None:
        if not self._gone:
            transport: NativeTransport = self.transport  # type: ignore[assignment]
            transport.core.send(transport.handle, data, 0)

    def _lane_now(self) -> Lane:
        return cast(NativeTransport, self.transport).relay

    def reply(self, event: Message, result: Any, meta: Meta = ()) -> None:
        """As any link's: what most answers need is found here, with few calls between."""
        token, wire, kind = event.token, self.wire, type(result)
        form = event.answer_format or event.format
        if token is None or form is not wire.format or kind not in _written:
            super().reply(event, result, meta)
            if not isinstance(result, _READY) and len(_written) < MAX_WRITTEN:
                _written.add(kind)
            return
        self._answer(wire.reply(token, form.encode(result), meta, kind))

    def _answer(self, data: bytes) -> None:
        """As any link's; those of WebSocket have their own."""
        self._unanswered -= 1
        self.app.counts.pending -= 1
        if data and not (self._closing or self._gone):
            transport: NativeTransport = self.transport  # type: ignore[assignment]
            transport.core.send(transport.handle, data, 0)
        if self._holds & HOLD_REQUESTS and self._unanswered < self._bounds.requests:
            self._release(HOLD_REQUESTS)

    def room(self) -> Deferred[None] | None:
        transport = cast(NativeTransport, self.transport)
        core, handle, enough = transport.core, transport.handle, self._bounds.enough
        if self._gone or core.waiting(handle) <= enough:
            return None
        room = self._wait_for_room()
        core.tell_taken(handle, core.added(handle) - enough)
        return room


class NativeWebSocketLink(NativeLink, WebSocketLink):
    """The same over WebSocket: its frames are made here."""

    __slots__ = ()

    dataReceived = WebSocketLink.dataReceived  # NativeLink's are of what is no frame
    reply = WebSocketLink.reply
    _answer = WebSocketLink._answer

    def _is_from(self, client: str) -> None:
        self._address = client


class NativeFactory(LinkFactory):
    """Links of one native port."""

    link = NativeLink

    def over_websocket(self, policy: Any, trusted: Any = None) -> Factory:
        factory = WebSocketFactory(self.app, self.dialect, policy, trusted)
        factory.link = NativeWebSocketLink
        return factory


@implementer(ITCPTransport)
class NativeTransport:
    """The transport of one link; the core holds it while the socket lives.

    Attributes:
        link: Whose it is; None: it was told its end.
        handle: What the core knows it by; 0: the core could not have it.
    """

    __slots__ = ("core", "handle", "link", "peer", "relay", "slot")

    disconnecting = False

    def __init__(self, relay: Relay, handle: int, link: Link, peer: tuple[Any, ...]) -> None:
        self.relay = relay
        self.core = relay.core
        self.handle = handle
        self.link: Link | None = link
        self.peer: tuple[Any, ...] | None = peer
        self.slot = -1

    def write(self, data: bytes) -> None:
        self.core.send(self.handle, data, 0)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def pauseProducing(self) -> None:
        self.core.pause(self.handle)

    def resumeProducing(self) -> None:
        self.core.resume(self.handle, self.relay.now())

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """What waits is the core's: nobody is told to stop."""

    def unregisterProducer(self) -> None:
        """See there."""

    def loseConnection(self) -> None:
        self.core.close(self.handle, _core.CLOSE)

    def loseWriteConnection(self) -> None:
        self.core.close(self.handle, _core.HALF)

    def abortConnection(self) -> None:
        self.core.close(self.handle, _core.ABORT)

    def getPeer(self) -> IPv4Address | IPv6Address:
        return _address(self.peer or self._socket_call("getpeername"))

    def getHost(self) -> IPv4Address | IPv6Address:
        return _address(self._socket_call("getsockname"))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """The core has done so."""

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._socket_call("setsockopt", socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(enabled))

    def getTcpKeepAlive(self) -> bool:
        return bool(self._socket_call("getsockopt", socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def _socket_call(self, name: str, *args: Any) -> Any:
        """Raises OSError: the connection is gone."""
        fd = self.core.socket(self.handle)
        if fd < 0:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        own = socket.socket(fileno=fd)
        try:
            return getattr(own, name)(*args)
        finally:
            own.detach()

    def check(self, now: float) -> float | None:
        """Its peer has ended, and does not take what it was told."""
        self.abortConnection()
        return None

    # What the core reports.

    def fin(self, _: int) -> None:
        """The peer has ended, which is the session's end; what it was told still goes out."""
        core, handle = self.core, self.handle
        core.close(handle, _core.CLOSE)
        if core.waiting(handle):
            wheel = self.relay.wheel
            wheel.watch(self, wheel.seconds() + GOODBYE)
        self.end(ConnectionDone())

    def gone(self, error: int) -> None:
        self.relay.left(self)
        self.end(ConnectionLost() if error else ConnectionDone())

    def end(self, why: Exception) -> None:
        """Tell the link, once."""
        link, self.link = self.link, None
        if link is not None:
            link.connectionLost(Failure(why))

    def over(self, _: int) -> None:
        if self.link is not None:
            self.link.lose("slow_reader", "it does not read: too much waits for it")

    def taken(self, _: int) -> None:
        if self.link is not None:
            self.link.resumeProducing()

    def had_no_memory(self, _: int) -> None:
        if self.link is not None:
            self.link.lose("no_memory", "there was no memory for it")


_REPORTS: dict[int, Any] = {
    _core.FIN: NativeTransport.fin,
    _core.GONE: NativeTransport.gone,
    _core.OVER: NativeTransport.over,
    _core.TAKEN: NativeTransport.taken,
    _core.NO_MEMORY: NativeTransport.had_no_memory,
}


def _address(name: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    host, port = name[:2]
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)


@implementer(IReadDescriptor)
class Relay:
    """The C core of one App. It is in the reactor, and on the wheel, while it has links.

    Args:
        reactor: Any with readers.

    Raises:
        OSError: no descriptors.
    """

    def __init__(self, app: App, reactor: Any) -> None:
        self.reactor = reactor
        self._app = app
        self._shared = shared(app)
        self.wheel = self._shared.wheel
        self.now = self.wheel.seconds
        self.time = 0.0
        """When this turn began."""
        self.slot = -1
        pool = PoolConfig()
        self.core = _core.Core(
            pool_type=POOL_TYPES.index(pool.type),
            factor=pool.factor,
            min_chunk=pool.min_chunk,
            max_chunk=pool.max_chunk,
            page_size=pool.page_size,
            limit=pool.limit,
            commands_each=1,
            commands_turn=1,
            events_turn=EVENTS_TURN,
            openings_turn=EVENTS_TURN,
            share_least=1,
            share_most=1,
            shares=1,
            turn_seconds=TURN_SECONDS,
        )
        self._ports: dict[int, int] = {}
        """What the core calls ports of links, by the bytes that may wait for one."""
        self._port_for(app.bounds.waiting)
        self._links = 0
        self._handles: WeakKeyDictionary[Any, tuple[list[Any], list[int]]] = WeakKeyDictionary()
        """Of the members of groups who came last."""

    def _port_for(self, waiting: int) -> int:
        """Raises OSError: there were too many others."""
        port = self._ports.get(waiting)
        if port is None:
            port = self._ports[waiting] = self.core.port(
                max_packet=READ_SIZE,
                read_size=READ_SIZE,
                idle_timeout=0.0,
                queue_packets=NO_BOUND,
                queue_bytes=waiting or NO_BOUND,
                write_timeout=0.0,
                holds=False,
                frame_limit=0,
                answers=True,
            )
        return port

    def adopt(self, skt: socket.socket, link: Link, peer: tuple[Any, ...]) -> NativeTransport:
        """The transport of a connection, whose socket is the core's from now on."""
        fd = skt.detach()
        try:
            handle = self.core.adopt(fd, self._port_for(self._app.bounds.waiting), self.now())
        except OSError as error:
            socket.close(fd)
            log.warn("a connection could not be taken in: {problem}", problem=error.strerror)
            nowhere = NativeTransport(self, 0, link, peer)
            self.reactor.callLater(0, nowhere.end, ConnectionLost())
            return nowhere
        transport = NativeTransport(self, handle, link, peer)
        self.core.own(handle, transport)
        if not self._links:
            self.reactor.addReader(self)
            self.wheel.watch(self, self.now() + SWEEP)
        self._links += 1
        return transport

    def left(self, transport: NativeTransport) -> None:
        """A link is gone."""
        self.core.release(transport.handle)
        self._handles.clear()  # and what they keep
        self.wheel.forget(transport)
        self._links -= 1
        if not self._links:
            self.reactor.removeReader(self)
            if self._app.state is State.STOPPED:
                self.stop()

    def stop(self) -> None:
        """The App has stopped: nothing is watched any more once there is no link."""
        if not self._links:
            self.wheel.forget(self)

    def multicast(self, carriers: list[Any], packet: bytes, group: object) -> None:
        """Tell it to each, in one call of the core (`session.Lane`)."""
        known, handles = self._handles.get(group, (None, []))
        if known is not carriers:
            handles = [link.transport.handle for link in carriers]
            self._handles[group] = carriers, handles
        self._app.counts.sent += self.core.send_each(handles, packet)

    # What the reactor and the wheel call.

    def fileno(self) -> int:
        return self.core.fileno()

    def logPrefix(self) -> str:
        return "fastway.app"

    def doRead(self) -> None:
        self._turn(self.core.run, self.now())

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends; the links' own ends come first."""

    def check(self, now: float) -> float | None:
        """Memory that nobody uses goes back; until then, and with links, there is a next time."""
        rests = self._turn(self.core.sweep, now) is None
        return None if rests and not self._links else now + SWEEP

    def _turn(self, step: Callable[[float], list[_core.Event] | None], now: float) -> Any:
        try:
            events = step(now)
        except MemoryError:
            # What has come is lost: it is nobody's stream any more.
            for link in tuple(self._shared.links):
                if isinstance(link, NativeLink):
                    link.lose("no_memory", "there was no memory for what came")
            return []
        if events:
            self._handle(events)
        return events

    def _handle(self, events: list[tuple[int, Any, Any]]) -> None:
        writes = self._shared.writes
        self.time = self.now()
        writes.begin()
        try:
            for kind, transport, payload in events:
                try:
                    if kind == BYTES:
                        if transport.link is not None:
                            transport.link.dataReceived(payload)
                    else:
                        _REPORTS[kind](transport, payload)
                except Exception:  # a bug, and no reason to stop the others
                    log.failure("an event of a link failed")
                    transport.abortConnection()
        finally:
            writes.end()
        self.core.go_on(self.now())


def relay_of(app: App, reactor: Any) -> Relay:
    """The core of an App; made when the first port comes."""
    mine = shared(app)
    if mine.relay is None:
        mine.relay = Relay(app, reactor)
    return cast(Relay, mine.relay)


class NativePort(Port):
    """A listening port whose connections are the core's."""

    relay: Relay

    @property
    def numberAccepts(self) -> int:
        return ACCEPTS

    @numberAccepts.setter
    def numberAccepts(self, _: int) -> None:
        """Twisted would accept ever more in one turn; here those who are in come first."""

    def transport(  # type: ignore[override]
        self, skt: socket.socket, link: Any, peer: Any, port: Any, number: int, reactor: Any
    ) -> NativeTransport:
        return self.relay.adopt(skt, link, peer)


class NativeReactor:
    """A reactor whose TCP ports are native; all else is the reactor's own."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        directlyProvides(self, providedBy(relay.reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._relay.reactor, name)

    def listenTCP(
        self, port: int, factory: Factory, backlog: int = 50, interface: str = ""
    ) -> NativePort:
        made = NativePort(port, factory, backlog, interface, self._relay.reactor)
        made.relay = self._relay
        made.startListening()
        return made

    def adoptStreamPort(self, fd: int, family: Any, factory: Factory) -> NativePort:
        """A port for a bound, listening socket, of which a duplicate is taken."""
        made = cast(
            NativePort,
            NativePort._fromListeningDescriptor(self._relay.reactor, fd, family, factory),
        )
        made.relay = self._relay
        made.startListening()
        made.socket.setblocking(False)
        return made

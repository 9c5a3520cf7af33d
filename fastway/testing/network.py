"""Connections in memory: Twisted's own TCP transport over sockets that are objects.

Rule: what a transport does is Twisted's code; here is only what a kernel and a reactor do for it.
Nothing moves within a call: all does in a turn of the clock, in an order that is always the same.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionRefusedError,
    NoProtocol,
)
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableDescriptor,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.testing.options import HOST

ROOM = 64 * 1024
"""Bytes that a link holds on their way, in each direction; a kernel holds some more."""

FIRST_PORT = 50_000
"""The port of the first who connects."""

RESET_AT_CLOSE = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""The option with which `close` is a reset: Twisted's abortConnection sets it."""

log = Logger()


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class MemorySocket:
    """One end of a link: what Twisted asks of a socket.

    Attributes:
        peer: The other end.
        connection: The transport that has it.
        stalled: Nothing arrives; both ends of a link have the same.
        broken: The network broke: neither end can do anything with it.
    """

    peer: MemorySocket
    connection: MemoryConnection | None = None

    def __init__(self, network: Network) -> None:
        self._network = network
        self._came = bytearray()
        self._options: dict[tuple[int, int], Any] = {}
        self._ended = False
        """The peer's FIN is behind what came."""
        self._reset = False
        self.stalled = False
        self.broken = False
        self.closed = False

    @classmethod
    def pair(cls, network: Network) -> tuple[MemorySocket, MemorySocket]:
        """Two ends."""
        one, other = cls(network), cls(network)
        one.peer, other.peer = other, one
        return one, other

    # What a reactor asks.

    @property
    def readable(self) -> bool:
        """`recv` has something to tell."""
        return self.broken or (not self.stalled and bool(self._came or self._ended or self._reset))

    @property
    def writable(self) -> bool:
        """`send` takes some, or has something to tell. A kernel asks for room, too."""
        return self._dead or 2 * len(self.peer._came) <= self._network.room

    @property
    def _dead(self) -> bool:
        return self.broken or (self._reset and not self.stalled)

    def wake(self) -> None:
        """Something changed: both ends are looked at in the next turn."""
        for connection in (self.connection, self.peer.connection):
            if connection is not None:
                self._network.wake(connection)

    # What Twisted's transport calls.

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""

    def fileno(self) -> int:
        return -1

    def recv(self, size: int) -> bytes:
        if not self.broken:
            if self._came:
                data = bytes(self._came[:size])
                del self._came[:size]
                self.wake()
                return data
            if self._ended:
                return b""
        raise _error(errno.ECONNRESET if self._dead else errno.EWOULDBLOCK)

    def send(self, data: bytes | memoryview) -> int:
        if self._dead:
            raise _error(errno.EPIPE)
        if self.peer.closed:
            self._reset = True
            self.wake()
            return len(data)
        taken = min(len(data), self._network.room - len(self.peer._came))
        if taken <= 0:
            raise _error(errno.EWOULDBLOCK)
        self.peer._came += data[:taken]
        self.wake()
        return taken

    def shutdown(self, how: int) -> None:
        if self.broken:
            raise _error(errno.ENOTCONN)
        self.peer._ended = True
        self.wake()

    def close(self) -> None:
        if self._options.get(RESET_AT_CLOSE[:2]) == RESET_AT_CLOSE[2]:
            self.peer._reset = True
        else:
            self.peer._ended = True
        self.closed = True
        self._came.clear()
        self.wake()

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._options[level, option] = value

    def getsockopt(self, level: int, option: int) -> Any:
        return self._options.get((level, option), 0)


class MemoryConnection(Connection):
    """One end of a link as a Twisted transport.

    Args:
        gone: Called when it is.
    """

    def __init__(
        self,
        handle: MemorySocket,
        protocol: IProtocol,
        here: IAddress,
        there: IAddress,
        gone: Callable[[], object],
    ) -> None:
        super().__init__(cast(Any, handle), protocol, cast(Any, handle._network))
        self.handle = handle
        self.logstr = f"{type(protocol).__name__},memory"
        self.connected = 1
        self._here = here
        self._there = there
        self._tell_gone: Callable[[], object] | None = gone
        handle.connection = self

    def getHost(self) -> IAddress:
        return self._here

    def getPeer(self) -> IAddress:
        return self._there

    def begin(self) -> None:
        """Let its protocol speak."""
        self.startReading()
        self.protocol.makeConnection(self)

    def connectionLost(self, reason: Failure) -> None:
        tell, self._tell_gone = self._tell_gone, None
        if tell is not None:
            super().connectionLost(reason)
            self.handle.connection = None
            tell()


class MemoryLink:
    """A connection between an endpoint and a gateway in memory.

    Attributes:
        near: The endpoint's transport.
        far: The gateway's.
    """

    def __init__(self, near: MemoryConnection, far: MemoryConnection) -> None:
        self.near = near
        self.far = far

    def __repr__(self) -> str:
        return f"<MemoryLink {self.near.getHost()} to {self.near.getPeer()}>"

    @property
    def stalled(self) -> bool:
        """Nothing arrives at either end."""
        return self.near.handle.stalled

    def cut(self) -> None:
        """Break it: both ends lose it, and what was on its way."""
        for end in (self.near, self.far):
            end.handle.broken = True
            end.handle.wake()

    def stall(self) -> None:
        """Let nothing arrive at either end, no close either, until `resume`."""
        self._stall(True)

    def resume(self) -> None:
        """Let all arrive that was sent meanwhile."""
        self._stall(False)

    def _stall(self, stalled: bool) -> None:
        for end in (self.near, self.far):
            end.handle.stalled = stalled
            end.handle.wake()


class Network:
    """The reactor of connections in memory, on a clock.

    Args:
        room: Bytes that a link holds on their way, in each direction.

    Attributes:
        links: Those whose ends are not both gone, the oldest first, each with who connected.
    """

    def __init__(self, clock: IReactorTime, room: int = ROOM) -> None:
        self.clock = clock
        self.room = room
        self.links: dict[MemoryLink, MemoryEndpoint] = {}
        self.callLater = clock.callLater
        self.seconds = clock.seconds
        self._readers: set[MemoryConnection] = set()
        self._writers: set[MemoryConnection] = set()
        self._awake: dict[MemoryConnection, None] = {}
        self._turn_is_due = False
        self._turns_left: int | None = None
        """None: any number."""
        self._last_port = FIRST_PORT - 1

    # What Twisted's transport calls.

    def addReader(self, connection: MemoryConnection) -> None:
        self._readers.add(connection)
        self.wake(connection)

    def removeReader(self, connection: MemoryConnection) -> None:
        self._readers.discard(connection)

    def addWriter(self, connection: MemoryConnection) -> None:
        self._writers.add(connection)
        self.wake(connection)

    def removeWriter(self, connection: MemoryConnection) -> None:
        self._writers.discard(connection)

    # Turns.

    def wake(self, connection: MemoryConnection) -> None:
        """Look at a connection in the next turn."""
        self._awake[connection] = None
        self._ask_for_turn()

    @contextmanager
    def bounded(self, turns: int) -> Iterator[None]:
        """Within this, so many turns are enough for all to become quiet.

        Raises:
            AssertionError: they are not.
        """
        self._turns_left = turns
        self._ask_for_turn()
        try:
            yield
            if not self._turns_left:
                raise AssertionError(f"{turns} turns of the network, and it is not quiet")
        finally:
            self._turns_left = None

    def _ask_for_turn(self) -> None:
        if self._awake and not self._turn_is_due and self._turns_left != 0:
            self._turn_is_due = True
            self.clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        if self._turns_left:
            self._turns_left -= 1
        awake, self._awake = self._awake, {}
        for connection in awake:
            handle = connection.handle
            if connection in self._readers and handle.readable:
                self._do(connection, connection.doRead, True)
            if connection in self._writers and handle.writable:
                self._do(connection, connection.doWrite, False)

    def _do(self, connection: MemoryConnection, do: Callable[[], Any], reads: bool) -> None:
        """As twisted.internet.posixbase does it."""
        try:
            why = do()
        except Exception as error:
            log.failure("the protocol of a connection failed")
            why = error
        if not why:
            return
        self.removeReader(connection)
        failure = Failure(why)
        if (
            reads
            and isinstance(why, ConnectionDone)
            and IHalfCloseableDescriptor.providedBy(connection)
        ):
            connection.readConnectionLost(failure)
        else:
            self.removeWriter(connection)
            connection.connectionLost(failure)

    # Links.

    def address(self) -> IPv4Address:
        """The address of one more who connects."""
        self._last_port += 1
        return IPv4Address("TCP", HOST, self._last_port)

    def forget(self, link: MemoryLink) -> None:
        """One of its ends is gone: it goes with the other."""
        if not (link.near.connected or link.far.connected):
            self.links.pop(link, None)


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """Connects to one port of a gateway in memory.

    Args:
        there: The port's address.

    Attributes:
        factory: Makes the gateway's ends; None: nobody listens.
    """

    def __init__(self, network: Network, there: IAddress) -> None:
        self._network = network
        self._there = there
        self.factory: IProtocolFactory | None = None

    @property
    def links(self) -> list[MemoryLink]:
        """Those that were made through it, the oldest first."""
        return [link for link, maker in self._network.links.items() if maker is self]

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol in a later turn; fails with ConnectionRefusedError when nobody
        listens, and with NoProtocol. Can be cancelled."""
        protocolFactory.doStart()

        def cancel(connecting: Deferred[IProtocol]) -> None:
            call.cancel()
            protocolFactory.doStop()
            connecting.errback(ConnectingCancelledError(self._there))

        connecting: Deferred[IProtocol] = Deferred(cancel)
        call = self._network.clock.callLater(0, self._connect, protocolFactory, connecting)
        return connecting

    def _connect(self, factory: IProtocolFactory, connecting: Deferred[IProtocol]) -> None:
        try:
            if self.factory is None:
                raise ConnectionRefusedError("nobody listens")
            protocol = cast(Any, factory.buildProtocol(self._there))
            if protocol is None:
                raise NoProtocol()
            here = self._network.address()
            far_protocol = cast(Any, self.factory.buildProtocol(here))
            if far_protocol is None:
                raise ConnectionRefusedError("turned away")
        except Exception as error:
            factory.doStop()
            connecting.errback(Failure(error))
            return
        near_handle, far_handle = MemorySocket.pair(self._network)

        def near_gone() -> None:
            factory.doStop()
            self._network.forget(link)

        def far_gone() -> None:
            self._network.forget(link)

        near = MemoryConnection(near_handle, protocol, here, self._there, near_gone)
        far = MemoryConnection(far_handle, far_protocol, self._there, here, far_gone)
        link = MemoryLink(near, far)
        self._network.links[link] = self
        near.begin()
        far.begin()
        connecting.callback(protocol)

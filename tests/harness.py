"""What the gateway's tests share: ends on fake transports, ends on real sockets, and the table
of spec sections 3 and 4 as rows that both kinds of test run.

Rule: nothing here uses fastway's own encoders, so that a mistake in them cannot hide itself.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar, cast

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from fastway.errors import Reason
from fastway.gateway import (
    ClientFactory,
    ClientLink,
    GatewayLink,
    PortConfig,
    RouterService,
    ServerFactory,
    ServerLink,
)
from fastway.relay import PoolConfig, missing
from fastway.router import Limits

reactor = cast(Any, _reactor)

KEY = b"secret"
MAX_PACKET = 512 * 1024

# The wire, written down a second time (spec section 1).


def packet(conn_id: int, message: bytes = b"") -> bytes:
    return struct.pack("<II", 4 + len(message), conn_id) + message


def command(kind: int, *args: int) -> bytes:
    return packet(0, struct.pack(f"<B{len(args)}I", kind, *args))


def dial(remote_id: int) -> bytes:
    return command(0, remote_id)


def accept(conn_id: int, remote_id: int) -> bytes:
    return command(1, conn_id, remote_id)


def connect(conn_id: int, remote_id: int) -> bytes:
    return command(2, conn_id, remote_id)


def refuse(remote_id: int) -> bytes:
    return command(3, remote_id)


def close(conn_id: int) -> bytes:
    return command(4, conn_id)


PING = command(5)
FIRST = 9527
"""The id of the first virtual connection in every test: the one of the spec's vectors."""


def prove(challenge: bytes, server_id: int, key: bytes = KEY) -> bytes:
    """A server's answer to the challenge (spec section 3)."""
    return hashlib.md5(challenge + key).digest() + struct.pack("<I", server_id)


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Whole packets as (conn_id, message)."""
    packets = []
    while data:
        length, conn_id = struct.unpack_from("<II", data)
        assert len(data) >= 4 + length, f"{data!r} is no whole packet"
        packets.append((conn_id, data[8 : 4 + length]))
        data = data[4 + length :]
    return packets


# Ends on fake transports.


class LinkTransport(StringTransport):
    """A StringTransport that counts writes and knows when it is full.

    Attributes:
        writes: How often it was written to since `clear`.
        stuck: It takes one write and then says that it is full, as a peer who does not read
            makes a real one do.
    """

    writes = 0
    stuck = False

    def write(self, data: bytes) -> None:
        super().write(data)
        self.writes += 1
        if self.stuck and self.producer is not None:
            cast(Any, self.producer).pauseProducing()

    def clear(self) -> None:
        super().clear()
        self.writes = 0

    @property
    def aborted(self) -> bool:
        return self.disconnected

    def fill(self) -> None:
        """From now on the peer takes nothing."""
        self.stuck = True
        cast(Any, self.producer).pauseProducing()

    def drain_once(self) -> None:
        """The peer takes what the transport holds, and no more."""
        cast(Any, self.producer).resumeProducing()

    def drain(self) -> None:
        """The peer takes everything from now on."""
        self.stuck = False
        cast(Any, self.producer).resumeProducing()


AnyLink = TypeVar("AnyLink", bound=GatewayLink)


class End(Generic[AnyLink]):
    """A peer as the gateway sees it: a link on a LinkTransport."""

    def __init__(self, link: AnyLink, port: int) -> None:
        self.link = link
        self.transport = LinkTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", port))
        link.makeConnection(cast(Any, self.transport))

    def send(self, data: bytes) -> None:
        """The gateway reads `data` from it in one read."""
        assert not self.paused, "a transport that is paused reads nothing"
        assert self.transport.connected
        self.link.dataReceived(data)

    def drip(self, data: bytes) -> None:
        """The gateway reads `data` byte by byte."""
        for position in range(len(data)):
            if self.transport.disconnecting:
                return
            self.send(data[position : position + 1])

    def take(self) -> bytes:
        """What was written to it since the last call."""
        data = cast(bytes, self.transport.value())
        self.transport.clear()
        return data

    @property
    def paused(self) -> bool:
        return self.transport.producerState == "paused"

    @property
    def lost(self) -> Reason | None:
        return self.link.lost

    def half_close(self) -> None:
        """Its FIN came; it still reads."""
        self.link.readConnectionLost()

    def gone(self, error: Exception | None = None) -> None:
        """Its transport is gone: `error` tells how, an orderly close when it is None."""
        self.transport.connected = False
        self.link.connectionLost(Failure(ConnectionDone() if error is None else error))


class Harness:
    """A RouterService on a Clock, with both ports, and ends on fake transports.

    Args:
        limits: The router's; None: its defaults.
        client: The client port's bounds; None: their defaults.
        server: The server port's bounds; None: their defaults.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        client: PortConfig | None = None,
        server: PortConfig | None = None,
        key: bytes = KEY,
    ) -> None:
        self.clock = Clock()
        self.service = RouterService(self.clock, limits)
        self.service.startService()
        self.router = self.service.router
        self.router._last_conn_id = FIRST - 1
        self.clients = ClientFactory(self.service, client)
        self.servers = ServerFactory(self.service, key, server)
        self._last_port = 50000

    def _port(self) -> int:
        self._last_port += 1
        return self._last_port

    def client(self) -> End[ClientLink]:
        """A client connects. The first one of a harness has id 1."""
        port = self._port()
        link = self.clients.buildProtocol(IPv4Address("TCP", "192.0.2.1", port))
        assert isinstance(link, ClientLink)
        return End(link, port)

    def stranger(self) -> End[ServerLink]:
        """Somebody connects to the server port and has not answered the challenge."""
        port = self._port()
        link = self.servers.buildProtocol(IPv4Address("TCP", "192.0.2.1", port))
        assert isinstance(link, ServerLink)
        return End(link, port)

    def server(self, server_id: int = 1) -> End[ServerLink]:
        """A server connects and logs in."""
        end = self.stranger()
        end.send(prove(end.take(), server_id, self.servers.key))
        return end

    def pair(self, dialler: End[Any], remote: End[Any]) -> int:
        """Open a virtual connection; both ends have taken its Accept and Connect."""
        before = set(self.router.conn_ids)
        dialler.send(dial(remote.link.link_id))
        dialler.take()
        remote.take()
        (conn_id,) = self.router.conn_ids - before
        return conn_id

    def pass_time(self, seconds: float) -> None:
        """Turn the clock in steps that the wheel does not take for a stall (exact in binary)."""
        self.clock.pump([0.25] * round(seconds * 4))

    def turn(self) -> None:
        """Let a few reactor turns go by."""
        for _ in range(4):
            self.clock.advance(0)


@implementer(ILogObserver)
class LogLines:
    """What fastway logs while it is used as a context manager."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __enter__(self) -> LogLines:
        globalLogPublisher.addObserver(cast(ILogObserver, self))
        return self

    def __exit__(self, *exc: object) -> None:
        globalLogPublisher.removeObserver(cast(ILogObserver, self))

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("fastway") or "log_failure" in event:
            self.events.append(event)

    @property
    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]


# Ends on real sockets.


def later(seconds: float = 0.001) -> Deferred[None]:
    """Let the reactor run for a while."""
    return deferLater(reactor, seconds, lambda: None)


async def until(what: str, condition: Callable[[], object], timeout: float = 1.8) -> None:
    """Let the reactor run until `condition` holds.

    Raises:
        AssertionError: it did not hold within `timeout` seconds.
    """
    deadline = reactor.seconds() + timeout
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        await later()


class Peer(Protocol):
    """A client or a server over a real socket, that only knows bytes."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.total = 0
        self.sent = 0
        self.ended: Failure | None = None
        self.link: GatewayLink = cast(GatewayLink, None)

    @property
    def wire(self) -> Any:
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.total += len(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = reason

    def send(self, data: bytes) -> None:
        self.sent += len(data)
        self.wire.write(data)

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        await until(
            f"{size} bytes; got {bytes(self.received[:80])!r} of {len(self.received)}",
            lambda: len(self.received) >= size or self.ended,
        )
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    async def expect(self, data: bytes) -> None:
        """These bytes come next."""
        got = await self.read(len(data))
        if got != data:
            raise AssertionError(f"expected {data[:80]!r}, got {got[:80]!r}")

    async def expect_end(self) -> None:
        """The gateway closes, and nothing came before that was not expected."""
        await until("the end of the connection", lambda: self.ended)
        if self.received:
            raise AssertionError(f"left over: {bytes(self.received[:80])!r}")

    async def expect_alive(self) -> None:
        """Nothing waits, and the gateway answers."""
        self.send(PING)
        await self.expect(PING)

    async def was_read(self) -> None:
        """The gateway has handled all that was sent."""
        await until(
            "the gateway to read",
            lambda: self.link.bytes_in >= self.sent or self.link.lost or self.ended,
        )


def listen_by_relay(
    service: RouterService, pool: PoolConfig | None = None, on: Any = reactor
) -> Callable[[Any], Any]:
    """What opens ports on 127.0.0.1 whose links are the native core's."""
    from fastway.relay.link import GatewayRelay

    service.relay = GatewayRelay(on, service, pool)

    def listen(factory: Any) -> Any:
        with socket.socket() as bound:
            bound.setblocking(False)
            bound.bind(("127.0.0.1", 0))
            bound.listen(1024)
            return service.relay.listen(bound.fileno(), bound.family, factory)

    return listen


class Sockets:
    """Both ports on 127.0.0.1, and the peers that were connected to them.

    `stop` must be among the test's cleanups.

    Args:
        relay: Links are the native core's, unless `listen` makes other ports.
        pool: The core's.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        client: PortConfig | None = None,
        server: PortConfig | None = None,
        listen: Callable[[Factory], Any] | None = None,
        connect: Callable[[Any, int], Awaitable[Peer]] | None = None,
        relay: bool = False,
        pool: PoolConfig | None = None,
    ) -> None:
        self.service = RouterService(reactor, limits)
        self.service.startService()
        self.service.router._last_conn_id = FIRST - 1
        self.clients = ClientFactory(self.service, client)
        self.servers = ServerFactory(self.service, KEY, server)
        if relay:
            listen = listen or listen_by_relay(self.service, pool)
        listen = listen or (lambda factory: reactor.listenTCP(0, factory, interface="127.0.0.1"))
        self._connect = connect or self._connect_tcp
        self.client_port = listen(self.clients)
        self.server_port = listen(self.servers)
        self.peers: list[Peer] = []

    async def _connect_tcp(self, peers: Any, port: int) -> Peer:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        return cast(Peer, await endpoint.connect(peers))

    async def dial_port(self, port: Any) -> Peer:
        """Connect a peer; its `link` is not known yet."""
        peer = await self._connect(Factory.forProtocol(Peer), port.getHost().port)
        self.peers.append(peer)
        return peer

    async def _find_link(self, peer: Peer) -> None:
        # Both ports: the two ends of two connections may share one of them.
        ends = (peer.wire.getHost().port, peer.wire.getPeer().port)

        def links() -> list[GatewayLink]:
            wires = [(one, cast(Any, one.transport)) for one in self.service.connected]
            return [
                one for one, wire in wires if (wire.getPeer().port, wire.getHost().port) == ends
            ]

        await until("the gateway to accept", links)
        (peer.link,) = links()

    async def client(self) -> Peer:
        peer = await self.dial_port(self.client_port)
        await self._find_link(peer)
        return peer

    async def stranger(self) -> Peer:
        peer = await self.dial_port(self.server_port)
        await self._find_link(peer)
        return peer

    async def server(self, server_id: int = 1) -> Peer:
        peer = await self.stranger()
        peer.send(prove(await peer.read(8), server_id))
        await peer.was_read()
        return peer

    async def pair(self, dialler: Peer, remote: Peer) -> int:
        """Open a virtual connection; both ends have taken its Accept and Connect."""
        before = set(self.service.router.conn_ids)
        dialler.send(dial(remote.link.link_id))
        await dialler.read(17)
        await remote.read(17)
        (conn_id,) = self.service.router.conn_ids - before
        return conn_id

    async def stop(self) -> None:
        for port in (self.client_port, self.server_port):
            await maybeDeferred(port.stopListening)
        for peer in self.peers:
            if peer.ended is None:
                peer.wire.abortConnection()
        await maybeDeferred(self.service.stopService)
        await until("all peers to be gone", lambda: all(peer.ended for peer in self.peers))


# Spec sections 3 and 4 as a table.


class Act(Enum):
    """What an end can do besides sending bytes."""

    LOG_IN = "connect to the server port and prove the key, with id 1"
    FAIL = "connect to the server port and prove a wrong key, with id 1"
    FIN = "close the sending half"
    RESET = "break the connection"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    The ends: `client` has client id 1, `other` client id 2, `server` server id 1, all three are
    connected from the start; `newer` is there once it acts, a server with id 1.

    Attributes:
        name: The test's.
        promise: The test's docstring.
        steps: Who does what, each carried out before the next.
        gets: The bytes that each end gets, those that are not named nothing.
        lost: Which ends the gateway loses, and why.
    """

    name: str
    promise: str
    steps: tuple[tuple[str, bytes | Act], ...]
    gets: Mapping[str, bytes] = field(default_factory=dict)
    lost: Mapping[str, Reason] = field(default_factory=dict)


OPEN = ("client", dial(1))
ACCEPTED = accept(FIRST, 1)
CONNECTED = connect(FIRST, 1)
HELLO = bytes.fromhex("090000003725000048656c6c6f")
CLOSED = bytes.fromhex("09000000000000000437250000")


def _breaks(name: str, data: bytes, reason: Reason) -> list[Row]:
    """Rows in which `data` costs a client, or a server, its connection and nobody else's."""
    return [
        Row(
            f"client_sends_{name}",
            f"A client that sends {name} is disconnected, and its server only gets a Close.",
            (OPEN, ("client", data)),
            {"client": ACCEPTED, "server": CONNECTED + CLOSED},
            {"client": reason},
        ),
        Row(
            f"server_sends_{name}",
            f"A server that sends {name} is disconnected, and its client only gets a Close.",
            (OPEN, ("server", data)),
            {"client": ACCEPTED + CLOSED, "server": CONNECTED},
            {"server": reason},
        ),
    ]


ROWS = [
    Row(
        "dial_by_client",
        "A client's Dial gives it an Accept and the server a Connect with the same conn_id.",
        (("client", bytes.fromhex("09000000000000000001000000")),),
        {
            "client": bytes.fromhex("0d00000000000000013725000001000000"),
            "server": bytes.fromhex("0d00000000000000023725000001000000"),
        },
    ),
    Row(
        "dial_by_server",
        "A server's Dial names a client, who gets the Connect.",
        (("server", dial(2)),),
        {"server": accept(FIRST, 2), "other": connect(FIRST, 1)},
    ),
    Row(
        "dial_unknown_server",
        "A Dial of an unknown server is refused; client ids are no server ids.",
        (("client", dial(2)), ("client", dial(0))),
        {"client": refuse(2) + refuse(0)},
    ),
    Row(
        "dial_unknown_client",
        "A Dial of an unknown client is refused.",
        (("server", dial(3)), ("server", dial(0xFFFFFFFF))),
        {"server": refuse(3) + refuse(0xFFFFFFFF)},
    ),
    Row(
        "dial_gone_server",
        "A Dial of a server that went is refused.",
        (("server", Act.FIN), ("client", bytes.fromhex("09000000000000000001000000"))),
        {"client": bytes.fromhex("09000000000000000301000000")},
        {"server": Reason.PEER_CLOSED},
    ),
    Row(
        "dial_gone_client",
        "A Dial of a client that went is refused.",
        (("client", Act.FIN), ("server", dial(1))),
        {"server": refuse(1)},
        {"client": Reason.PEER_CLOSED},
    ),
    Row(
        "dial_with_more_behind",
        "What stands behind a command's arguments is ignored.",
        (("client", packet(0, b"\0\1\0\0\0behind")),),
        {"client": ACCEPTED, "server": CONNECTED},
    ),
    Row(
        "sixteen_dials",
        "A client's 17th Dial is refused, and a Close makes room for one more.",
        (
            ("client", dial(1) * 16),
            ("client", dial(1)),
            ("client", close(FIRST)),
            ("client", dial(1)),
            ("client", dial(1)),
        ),
        {
            "client": b"".join(accept(FIRST + n, 1) for n in range(16))
            + refuse(1)
            + close(FIRST)
            + accept(FIRST + 16, 1)
            + refuse(1),
            "server": b"".join(connect(FIRST + n, 1) for n in range(16))
            + close(FIRST)
            + connect(FIRST + 16, 1),
        },
    ),
    Row(
        "limit_counts_dials_of_servers",
        "The client limit counts what servers dialled, but refuses the client's dials only.",
        (("server", dial(1) * 16), ("client", dial(1)), ("server", dial(1))),
        {
            "server": b"".join(accept(FIRST + n, 1) for n in range(17)),
            "client": b"".join(connect(FIRST + n, 1) for n in range(16))
            + refuse(1)
            + connect(FIRST + 16, 1),
        },
    ),
    Row(
        "message_to_server",
        "A client's message reaches the server unchanged.",
        (OPEN, ("client", HELLO)),
        {"client": ACCEPTED, "server": CONNECTED + HELLO},
    ),
    Row(
        "message_to_client",
        "A server's message reaches the client unchanged.",
        (OPEN, ("server", HELLO)),
        {"client": ACCEPTED + HELLO, "server": CONNECTED},
    ),
    Row(
        "messages_in_order",
        "Messages over several virtual connections arrive in the order in which they were sent.",
        (
            OPEN,
            ("client", dial(1)),
            ("client", b"".join(packet(FIRST + n % 2, bytes([n]) * n) for n in range(40))),
        ),
        {
            "client": ACCEPTED + accept(FIRST + 1, 1),
            "server": CONNECTED
            + connect(FIRST + 1, 1)
            + b"".join(packet(FIRST + n % 2, bytes([n]) * n) for n in range(40)),
        },
    ),
    Row(
        "empty_message",
        "An empty message is forwarded, both ways.",
        (OPEN, ("client", packet(FIRST)), ("server", packet(FIRST) * 2)),
        {"client": ACCEPTED + packet(FIRST) * 2, "server": CONNECTED + packet(FIRST)},
    ),
    Row(
        "stray_message",
        "A message on an unknown conn_id is answered with a Close, and its sender stays.",
        (("client", HELLO), ("server", packet(1) + packet(2, b"x")), ("client", HELLO * 2)),
        {"client": CLOSED * 3, "server": close(1) + close(2)},
    ),
    Row(
        "message_after_close",
        "A message that crosses a Close is answered with another Close.",
        (OPEN, ("client", CLOSED), ("server", HELLO)),
        {"client": ACCEPTED + CLOSED, "server": CONNECTED + CLOSED * 2},
    ),
    Row(
        "message_of_others_by_client",
        "A client that writes to others' virtual connection is lost; they notice nothing.",
        (OPEN, ("other", HELLO), ("client", HELLO)),
        {"client": ACCEPTED, "server": CONNECTED + HELLO},
        {"other": Reason.NOT_OWNER},
    ),
    Row(
        "message_of_others_by_server",
        "A server that writes to others' virtual connection is lost; they notice nothing.",
        (OPEN, ("newer", Act.LOG_IN), ("newer", HELLO), ("server", HELLO)),
        {"client": ACCEPTED + HELLO, "server": CONNECTED},
        {"newer": Reason.NOT_OWNER},
    ),
    Row(
        "nothing_behind_message_of_others",
        "What comes behind a message to others' virtual connection is not carried out.",
        (OPEN, ("other", dial(1) + HELLO + dial(1) + packet(FIRST + 1, b"late"))),
        {
            "client": ACCEPTED,
            "other": accept(FIRST + 1, 1),
            "server": CONNECTED + connect(FIRST + 1, 2) + close(FIRST + 1),
        },
        {"other": Reason.NOT_OWNER},
    ),
    Row(
        "close_by_client",
        "A client's Close is sent to both ends, the client included.",
        (OPEN, ("client", bytes.fromhex("09000000000000000437250000"))),
        {
            "client": ACCEPTED + bytes.fromhex("09000000000000000437250000"),
            "server": CONNECTED + bytes.fromhex("09000000000000000437250000"),
        },
    ),
    Row(
        "close_by_server",
        "A server's Close is sent to both ends, the server included.",
        (OPEN, ("server", CLOSED)),
        {"client": ACCEPTED + CLOSED, "server": CONNECTED + CLOSED},
    ),
    Row(
        "close_unknown",
        "A Close of an unknown conn_id is ignored.",
        (OPEN, ("client", close(1) + close(0)), ("server", close(FIRST + 1)), ("client", HELLO)),
        {"client": ACCEPTED, "server": CONNECTED + HELLO},
    ),
    Row(
        "close_twice",
        "The second Close of a virtual connection is ignored.",
        (OPEN, ("client", CLOSED), ("client", CLOSED), ("server", CLOSED)),
        {"client": ACCEPTED + CLOSED, "server": CONNECTED + CLOSED},
    ),
    Row(
        "close_of_others",
        "A Close of somebody else's conn_id has no effect on its owners or its sender.",
        (
            OPEN,
            ("newer", Act.LOG_IN),
            ("other", CLOSED),
            ("newer", CLOSED),
            ("client", HELLO),
            ("server", HELLO),
        ),
        {"client": ACCEPTED + HELLO, "server": CONNECTED + HELLO},
    ),
    Row(
        "ping",
        "A Ping comes back, from either side.",
        (("client", bytes.fromhex("050000000000000005")), ("server", PING * 2)),
        {"client": bytes.fromhex("050000000000000005"), "server": PING * 2},
    ),
    Row(
        "client_ends",
        "What a client sent before its FIN arrives, then a Close for each virtual connection.",
        (OPEN, ("client", dial(1)), ("client", HELLO * 3), ("client", Act.FIN)),
        {
            "client": ACCEPTED + accept(FIRST + 1, 1),
            "server": CONNECTED + connect(FIRST + 1, 1) + HELLO * 3 + CLOSED + close(FIRST + 1),
        },
        {"client": Reason.PEER_CLOSED},
    ),
    Row(
        "server_ends",
        "What a server sent before its FIN arrives, then a Close for each virtual connection.",
        (OPEN, ("other", dial(1)), ("server", HELLO), ("server", Act.FIN)),
        {
            "client": ACCEPTED + HELLO + CLOSED,
            "other": accept(FIRST + 1, 1) + close(FIRST + 1),
            "server": CONNECTED + connect(FIRST + 1, 2),
        },
        {"server": Reason.PEER_CLOSED},
    ),
    Row(
        "client_breaks_off",
        "A client whose connection breaks leaves a Close, and others go on.",
        (OPEN, ("other", dial(1)), ("client", Act.RESET), ("other", packet(FIRST + 1, b"on"))),
        {
            "client": ACCEPTED,
            "other": accept(FIRST + 1, 1),
            "server": CONNECTED + connect(FIRST + 1, 2) + CLOSED + packet(FIRST + 1, b"on"),
        },
        {"client": Reason.CONNECTION_LOST},
    ),
    Row(
        "server_breaks_off",
        "A server whose connection breaks leaves a Close.",
        (OPEN, ("server", Act.RESET), ("client", dial(1))),
        {"client": ACCEPTED + CLOSED + refuse(1), "server": CONNECTED},
        {"server": Reason.CONNECTION_LOST},
    ),
    Row(
        "ends_in_the_middle_of_a_packet",
        "A packet that was cut off by the end of its sender is not forwarded in part.",
        (OPEN, ("client", HELLO + HELLO[:-1]), ("client", Act.FIN)),
        {"client": ACCEPTED, "server": CONNECTED + HELLO + CLOSED},
        {"client": Reason.PEER_CLOSED},
    ),
    Row(
        "second_server_with_the_id",
        "The newest server of an id gets new dials, the older keeps what it has.",
        (
            OPEN,
            ("newer", Act.LOG_IN),
            ("other", dial(1)),
            ("client", HELLO),
            ("other", packet(FIRST + 1, b"new")),
        ),
        {
            "client": ACCEPTED,
            "server": CONNECTED + HELLO,
            "other": accept(FIRST + 1, 1),
            "newer": connect(FIRST + 1, 2) + packet(FIRST + 1, b"new"),
        },
    ),
    Row(
        "older_server_of_the_id_goes",
        "When the older server of an id goes, the newer loses nothing.",
        (
            OPEN,
            ("newer", Act.LOG_IN),
            ("other", dial(1)),
            ("server", Act.FIN),
            ("newer", packet(FIRST + 1, b"new")),
            ("client", dial(1)),
        ),
        {
            "client": ACCEPTED + CLOSED + accept(FIRST + 2, 1),
            "server": CONNECTED,
            "other": accept(FIRST + 1, 1) + packet(FIRST + 1, b"new"),
            "newer": connect(FIRST + 1, 2) + connect(FIRST + 2, 1),
        },
        {"server": Reason.PEER_CLOSED},
    ),
    Row(
        "newer_server_of_the_id_goes",
        "When the newer server of an id goes, the older gets the dials again.",
        (OPEN, ("newer", Act.LOG_IN), ("newer", Act.FIN), ("client", dial(1) + HELLO)),
        {
            "client": ACCEPTED + accept(FIRST + 1, 1),
            "server": CONNECTED + connect(FIRST + 1, 1) + HELLO,
        },
        {"newer": Reason.PEER_CLOSED},
    ),
    Row(
        "failed_handshake_with_the_id",
        "A wrong proof for an id in use costs only the one who sent it.",
        (OPEN, ("newer", Act.FAIL), ("client", HELLO + dial(1))),
        {
            "client": ACCEPTED + accept(FIRST + 1, 1),
            "server": CONNECTED + HELLO + connect(FIRST + 1, 1),
        },
        {"newer": Reason.AUTH_FAILED},
    ),
    Row(
        "packets_before_a_broken_one",
        "The packets before a broken one are delivered and carried out.",
        (OPEN, ("client", dial(1) + HELLO + b"\0\0\0\0" + HELLO)),
        {
            "client": ACCEPTED + accept(FIRST + 1, 1),
            "server": CONNECTED + connect(FIRST + 1, 1) + HELLO + CLOSED + close(FIRST + 1),
        },
        {"client": Reason.FRAME_TOO_SHORT},
    ),
    Row(
        "packets_before_a_bad_command",
        "The packets before a bad command are delivered, those behind it are not.",
        (OPEN, ("server", HELLO + command(6) + HELLO)),
        {"client": ACCEPTED + HELLO + CLOSED, "server": CONNECTED},
        {"server": Reason.BAD_COMMAND},
    ),
    *_breaks(
        "a_length_over_the_limit", (MAX_PACKET + 1).to_bytes(4, "little"), Reason.FRAME_TOO_LARGE
    ),
    *_breaks("the_largest_length", b"\xff\xff\xff\xff", Reason.FRAME_TOO_LARGE),
    *_breaks("length_0", b"\0\0\0\0", Reason.FRAME_TOO_SHORT),
    *_breaks("length_1", b"\1\0\0\0", Reason.FRAME_TOO_SHORT),
    *_breaks("length_2", b"\2\0\0\0", Reason.FRAME_TOO_SHORT),
    *_breaks("length_3", b"\3\0\0\0", Reason.FRAME_TOO_SHORT),
    *_breaks("a_command_without_a_type", packet(0), Reason.BAD_COMMAND),
    *_breaks("a_dial_without_an_id", command(0), Reason.BAD_COMMAND),
    *_breaks("a_dial_with_3_bytes", packet(0, b"\0\1\0\0"), Reason.BAD_COMMAND),
    *_breaks("a_close_without_an_id", command(4), Reason.BAD_COMMAND),
    *_breaks("a_close_with_3_bytes", packet(0, b"\4\1\0\0"), Reason.BAD_COMMAND),
    *_breaks("an_accept", accept(FIRST, 1), Reason.BAD_COMMAND),
    *_breaks("a_connect", connect(FIRST, 1), Reason.BAD_COMMAND),
    *_breaks("a_refuse", refuse(1), Reason.BAD_COMMAND),
    *_breaks("a_short_accept", packet(0, b"\1\0\0"), Reason.BAD_COMMAND),
    *_breaks("type_6", command(6, 1, 1), Reason.BAD_COMMAND),
    *_breaks("type_255", command(255), Reason.BAD_COMMAND),
]

TestClass = TypeVar("TestClass", bound=type[SynchronousTestCase])


def on_both_paths(cls: TestClass) -> TestClass:
    """Have a test case run a second time, as `...Relay`, with its `relay` True."""
    names = {"__module__": cls.__module__, "__doc__": cls.__doc__, "relay": True}
    if missing():
        names["skip"] = missing()
    twin = type(f"{cls.__name__}Relay", (cls,), names)
    setattr(sys.modules[cls.__module__], twin.__name__, twin)
    return cls


def rows_as_tests(cls: TestClass) -> TestClass:
    """Give a test case one test for each row; its `run_row` runs them."""

    def add(row: Row) -> None:
        def test(self: Any) -> Any:
            return self.run_row(row)

        test.__name__ = f"test_{row.name}"
        test.__doc__ = row.promise
        setattr(cls, test.__name__, test)

    for row in ROWS:
        add(row)
    return cls

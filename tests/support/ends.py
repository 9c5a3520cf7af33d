"""Ends on fake transports, and both ports of a gateway on a clock.

Rule: an end only knows bytes, and time passes when a test turns the clock.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from fastway.errors import Reason
from fastway.gateway import (
    ClientFactory,
    GatewayFactory,
    GatewayLink,
    PortConfig,
    RouterService,
    ServerFactory,
)
from fastway.gateway.stream import StreamLane
from fastway.router import Limits
from tests.support.golden import FIRST, KEY, dial, prove


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


class End:
    """A peer as the gateway sees it: a link whose lane is on a LinkTransport."""

    def __init__(self, lane: StreamLane, port: int) -> None:
        self.lane = lane
        self.transport = LinkTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", port))
        lane.makeConnection(cast(Any, self.transport))
        self.link = cast(GatewayLink, lane.link)

    def send(self, data: bytes) -> None:
        """The gateway reads `data` from it in one read."""
        assert not self.paused, "a transport that is paused reads nothing"
        assert self.transport.connected
        self.lane.dataReceived(data)
        service = cast(RouterService, self.lane.service)
        while service.turn_due:
            service.turn()

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
        self.lane.readConnectionLost()

    def gone(self, error: Exception | None = None) -> None:
        """Its transport is gone: `error` tells how, an orderly close when it is None."""
        self.transport.connected = False
        self.lane.connectionLost(Failure(ConnectionDone() if error is None else error))


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
        self.router.conn_range.last = FIRST - 1
        self.clients = ClientFactory(self.service, client)
        self.servers = ServerFactory(self.service, key, server)
        self._last_port = 50000

    def _port(self) -> int:
        self._last_port += 1
        return self._last_port

    def _connect(self, factory: GatewayFactory) -> End:
        port = self._port()
        lane = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", port))
        assert isinstance(lane, StreamLane)
        return End(lane, port)

    def client(self) -> End:
        """A client connects. The first one of a harness has id 1."""
        return self._connect(self.clients)

    def stranger(self) -> End:
        """Somebody connects to the server port and has not answered the challenge."""
        return self._connect(self.servers)

    def server(self, server_id: int = 1) -> End:
        """A server connects and logs in."""
        end = self.stranger()
        end.send(prove(end.take(), server_id, self.servers.key))
        return end

    def pair(self, dialler: End, remote: End) -> int:
        """Open a virtual connection; both ends have taken its Accept and Connect."""
        before = set(self.router.conn_ids)
        dialler.send(dial(remote.link.link_id))
        dialler.take()
        remote.take()
        (conn_id,) = self.router.conn_ids - before
        return conn_id

    def check_books(self) -> None:
        """Every byte that is held for a link is counted, for it and for all together."""
        packets = size = 0
        for link in self.service.connected:
            lane = cast(StreamLane, link.lane)
            queue = lane._queue or ()
            counts = lane.counts()
            assert counts.waiting_packets == sum(count for _, count in queue)
            assert counts.waiting_bytes == sum(len(data) for data, _ in queue)
            pending = 0 if lane._reader is None else lane._reader.pending
            pending += sum(len(data) for _, data, _ in lane._rest or ())
            assert link.lost is not None or counts.input_bytes == pending
            assert link.lost is None or lane._goodbye or counts[4:7] == (0, 0, 0), counts
            packets += counts.waiting_packets
            size += counts.waiting_bytes + counts.input_bytes
            held = [
                one for one in lane.counted_at or () if cast(Any, one).shares.senders[lane].held
            ]
            assert lane.holds == len(held)
        assert (self.service.waiting_packets, self.service.waiting_bytes) == (packets, size)

    def pass_time(self, seconds: float) -> None:
        """Turn the clock in steps that the wheel does not take for a stall (exact in binary)."""
        self.clock.pump([0.25] * round(seconds * 4))

    def turn(self) -> None:
        """Let a few reactor turns go by."""
        for _ in range(4):
            self.clock.advance(0)

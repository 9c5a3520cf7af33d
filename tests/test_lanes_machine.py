"""Both paths side by side: random days over real sockets, one gateway in Python, one in the core.

Rule: nothing here says what is right; whatever peers get and the router counts must be the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import socket
import struct
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import Reason
from fastway.gateway import (
    ClientFactory,
    GatewayLink,
    PortConfig,
    RouterService,
    ServerFactory,
    WebSocketFactory,
    server_port_config,
)
from fastway.relay import PoolConfig, missing
from fastway.router import IdConflict, Limits, Side
from tests.support.core import DETERMINISTIC, cut
from tests.support.golden import FIRST, KEY, close, command, dial, packet, prove
from tests.support.sockets import listen_by_relay
from tests.support.waits import SECONDS
from tests.support.websocket import closing, frame, request, server_frames

PICKS = st.integers(0, 7)
MAX_PACKET = 3000
WEB, DIRECT = 2, 3
VERBS = st.sampled_from(
    ["own", "own", "own", "own", "foreign", "unknown", "dial", "dial", "close", "ping", "break"]
)
BROKEN = [b"\3\0\0\0", (MAX_PACKET + 1).to_bytes(4, "little"), command(9), command(1, 1, 1)]


class PeerSocket:
    """One end that connected, and what it got."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.sent = 0
        self.ended = False
        self.link: GatewayLink = cast(GatewayLink, None)

    def send(self, data: bytes) -> None:
        self.sent += len(data)
        with contextlib.suppress(OSError):  # the gateway has closed it
            self.sock.sendall(data)

    def drain(self) -> None:
        """Take what is there."""
        while not self.ended:
            try:
                data = self.sock.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self.ended = not data
            self.received += data


class WebPeerSocket(PeerSocket):
    """A web page: what it says stands in frames, and what it got stood in them.

    Attributes:
        told: The Close that it was told.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.told: bytes | None = None
        self.raw = b""
        super().send(request())

    def send(self, data: bytes) -> None:
        half = len(data) // 3
        ping = frame(data[:100], 9) if len(data) % 2 else b""
        super().send(frame(data[:half], fin=False) + ping + frame(data[half:], 0))

    def say(self, data: bytes) -> None:
        """These very bytes."""
        super().send(data)

    def drain(self) -> None:
        before, self.received = self.received, self.raw
        super().drain()
        self.raw, self.received = self.received, before
        if self.raw.startswith(b"HTTP"):
            _, _, self.raw = self.raw.partition(b"\r\n\r\n")  # it came in one piece
        whole = 0
        while (size := frame_size(self.raw[whole:])) is not None:
            whole += size
        for opcode, payload in server_frames(self.raw[:whole]):
            assert self.told is None
            if opcode == 2:
                self.received += payload
            elif opcode == 8:
                self.told = payload
        self.raw = self.raw[whole:]


def frame_size(data: bytes) -> int | None:
    """Bytes of a server's frame at the front; None: it is not whole."""
    size = len(data)
    if size < 2 or (data[1] == 126 and size < 4):
        return None
    wanted = 4 + int.from_bytes(data[2:4], "big") if data[1] == 126 else 2 + data[1]
    return wanted if wanted <= size else None


class GatewayPath:
    """One gateway, and its peers in the order in which they came."""

    def __init__(self, reactor: Any, limits: Limits, relay: bool, pool: PoolConfig) -> None:
        self.reactor = reactor
        self.service = RouterService(reactor, limits)
        self.service.startService()
        self.service.router.conn_range.last = FIRST - 1
        client = PortConfig(max_packet=MAX_PACKET, read_size=256)
        server = server_port_config()
        server.max_packet = MAX_PACKET
        direct = ClientFactory(self.service, dataclasses.replace(client, queue_packets=1 << 31))
        direct.leads_to("direct", 0)
        factories = (
            ClientFactory(self.service, client),
            ServerFactory(self.service, KEY, server),
            WebSocketFactory(self.service, client),
            direct,
        )
        if relay:
            listen = listen_by_relay(self.service, pool, reactor)
        else:

            def listen(factory: Any) -> Any:
                return reactor.listenTCP(0, factory, interface="127.0.0.1")

        self.ports = [listen(factory) for factory in factories]
        self.peers: list[PeerSocket] = []

    def connect(self, side: int) -> PeerSocket:
        sock = socket.create_connection(("127.0.0.1", self.ports[side].getHost().port))
        known = set(self.service.connected)
        peer = WebPeerSocket(sock) if side == WEB else PeerSocket(sock)
        while not (made := self.service.connected - known):
            self.reactor.iterate(0)
        (peer.link,) = made
        while side == WEB and not peer.link.known:
            self.reactor.iterate(0)
        self.peers.append(peer)
        return peer

    def login(self, server_id: int, key: bytes) -> None:
        peer = self.connect(1)
        while len(peer.received) < 8:
            self.reactor.iterate(0)
            peer.drain()
        challenge, peer.received = peer.received[:8], peer.received[8:]
        peer.send(prove(challenge, server_id, key))

    def snapshot(self) -> dict[str, Any]:
        """All that must be the same on both paths."""
        router = self.service.router
        for peer in self.peers:
            peer.drain()
        return {
            "stats": dataclasses.asdict(router.stats),
            "conns": sorted(router.conn_ids),
            "read": all(
                peer.link.lost is not None or peer.link.counts().bytes_in == peer.sent
                for peer in self.peers
            ),
            "peers": [
                (
                    # A reset takes along what had not left yet.
                    None if peer.link.lost is Reason.SERVER_LOST else peer.received,
                    peer.ended,
                    peer.link.lost,
                    sorted(peer.link.peers),
                    getattr(peer, "told", None),
                )
                for peer in self.peers
            ],
            "links": [
                None
                if peer.link.lost
                else (
                    peer.link.link_id,
                    peer.link.counts().packets_in,
                    peer.link.counts().packets_out,
                    peer.link.counts().bytes_out,
                    peer.link.counts().waiting_bytes,
                    peer.link.counts().held,
                )
                for peer in self.peers
            ],
        }

    def check_books(self) -> None:
        """Every byte that is held for a link is in its counts and in those of all."""
        counts = [link.lane.counts() for link in self.service.connected]
        packets = sum(count.waiting_packets for count in counts)
        waiting = sum(count.waiting_bytes for count in counts)
        coming = sum(count.input_bytes for count in counts)
        native = self.service.native
        servers = [
            link.lane.counts() for link in self.service.connected if link.side is Side.SERVER
        ]
        of_servers = (
            sum(count.waiting_packets for count in servers),
            sum(count.waiting_bytes for count in servers),
            sum(count.input_bytes for count in servers),
        )
        assert self.service.waiting()[4:] == of_servers
        if native is None:
            assert coming == sum(unhandled(link.lane) for link in self.service.connected)
            assert self.service.input_bytes == coming
            assert self.service.waiting_packets == packets
            assert self.service.waiting_bytes == waiting + coming
            return
        totals = native.totals()
        assert (totals.waiting_packets, totals.waiting_bytes) == (packets, waiting)
        assert totals.input_bytes == coming
        heads = 8 * len(counts)  # of packets that are not whole, beside the pool
        assert native.core.pool()[0] >= waiting + coming - heads

    def stop(self) -> None:
        for port in self.ports:
            port.stopListening()
        for peer in self.peers:
            peer.sock.close()
        self.service.stopService()
        while self.service.connected:
            self.reactor.iterate(0)


def unhandled(lane: Any) -> int:
    """Bytes that came to a Python lane and wait: of half a packet, and commands."""
    pending = 0 if lane._reader is None or lane._closing else lane._reader.pending
    return pending + sum(len(data) for _, data, _ in lane._rest or ())


class PathsMachine(RuleBasedStateMachine):
    """Every step is done to both gateways; then they must have come to the same."""

    def __init__(self) -> None:
        super().__init__()
        from twisted.internet.epollreactor import EPollReactor

        self.reactor: Any = EPollReactor()
        self.paths: list[GatewayPath] = []

    @initialize(
        policy=st.sampled_from(IdConflict),
        limit=st.sampled_from([0, 2, 16]),
        pool=st.sampled_from(["atom", "chan", "sync"]),
    )
    def start(self, policy: IdConflict, limit: int, pool: str) -> None:
        for relay in (False, True):
            limits = Limits(client_max_conn=limit, server_id_conflict=policy)
            pools = PoolConfig(pool, factor=3, min_chunk=32, max_chunk=1024, page_size=4096)
            self.paths.append(GatewayPath(self.reactor, limits, relay, pools))
        for side in (0, WEB, 1, DIRECT):
            if side == 1:
                self.login(0, True)
            else:
                self.connect(side)
        for which in (0, 1, 2):
            self.talk(which, [("dial", 0, b"")], [])

    def agree(self) -> None:
        """Let the reactor run until both have read all, and compare."""
        deadline = self.reactor.seconds() + SECONDS
        while True:
            for _ in range(3):
                self.reactor.iterate(0)
                for path in self.paths:
                    path.check_books()
            python, core = (path.snapshot() for path in self.paths)
            if python["read"] and python == core:
                return
            if self.reactor.seconds() > deadline:
                for name, value in python.items():
                    assert value == core[name], name
                raise AssertionError("not all was read")

    @rule(side=st.sampled_from((0, WEB, DIRECT)))
    def connect(self, side: int) -> None:
        for path in self.paths:
            path.connect(side)
        self.agree()

    @rule(which=PICKS, how=st.sampled_from((frame(b"text", 1), closing(4321), closing(1))))
    def say_frame(self, which: int, how: bytes) -> None:
        """A web page breaks a rule, or says that it closes; nothing is heard of what follows."""
        which %= len(self.paths[0].peers)
        for path in self.paths:
            peer = path.peers[which]
            if isinstance(peer, WebPeerSocket) and peer.link.lost is None:
                peer.say(how)
                peer.say(frame(b"late", 9))
        self.agree()

    @rule(server_id=st.integers(0, 1), knows=st.sampled_from([True, True, True, False]))
    def login(self, server_id: int, knows: bool) -> None:
        for path in self.paths:
            path.login(server_id, KEY if knows else b"guess")
        self.agree()

    def bytes_of(self, which: int, verb: str, pick: int, message: bytes) -> bytes:
        """What a peer sends; ids are those of the Python path, and so of both."""
        path = self.paths[0]
        link = path.peers[which].link
        own = sorted(link.peers)
        foreign = sorted(path.service.router.conn_ids - set(own))
        if verb == "dial":
            remotes = [
                peer.link.link_id
                for peer in path.peers
                if peer.link.side is not link.side and peer.link.known
            ]
            return dial(remotes[pick % len(remotes)] if remotes else pick)
        if verb == "ping":
            return packet(0, b"\5" + message)
        if verb == "break":
            return BROKEN[pick % len(BROKEN)]
        if verb == "foreign" and foreign:
            return packet(foreign[pick % len(foreign)], message)
        if verb == "unknown" or not own:
            return packet(FIRST + 1000 + pick, message)
        conn_id = own[pick % len(own)]
        return close(conn_id) if verb == "close" else packet(conn_id, message)

    @precondition(lambda self: self.paths)
    @rule(
        which=PICKS,
        acts=st.lists(
            st.tuples(VERBS, PICKS, st.binary(max_size=40) | st.just(bytes(2900))),
            min_size=1,
            max_size=12,
        ),
        places=st.lists(st.integers(0, 4000), max_size=3),
    )
    def talk(self, which: int, acts: list[tuple[str, int, bytes]], places: list[int]) -> None:
        which %= len(self.paths[0].peers)
        data = b"".join(self.bytes_of(which, *act) for act in acts)
        for piece in cut(data, places):
            for path in self.paths:
                path.peers[which].send(piece)
            self.agree()

    @precondition(lambda self: self.paths)
    @rule(which=PICKS, count=st.integers(17, 150), halves=st.booleans())
    def flood(self, which: int, count: int, halves: bool) -> None:
        """More commands than one turn has room for, in one read or in two."""
        which %= len(self.paths[0].peers)
        if self.paths[0].peers[which].link.facts.port:
            return  # how its bytes are cut depends on when they are read
        data = b"".join(self.bytes_of(which, "unknown", n, b"flood") for n in range(count))
        for piece in cut(data, [len(data) // 2] if halves else []):
            for path in self.paths:
                path.peers[which].send(piece)
                self.reactor.iterate(0)
        self.agree()

    @rule(which=PICKS, reset=st.booleans(), pick=PICKS)
    def leave(self, which: int, reset: bool, pick: int) -> None:
        """A peer ends, with a last message on its way or none."""
        which %= len(self.paths[0].peers)
        data = self.bytes_of(which, "own", pick, b"last") if pick % 2 else b""
        for path in self.paths:
            peer = path.peers[which]
            if data and not reset:
                peer.send(data)
            with contextlib.suppress(OSError):
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    peer.sock.close()
                    peer.ended = True
                else:
                    peer.sock.shutdown(socket.SHUT_WR)
        for path in self.paths:
            deadline = self.reactor.seconds() + SECONDS
            while path.peers[which].link.lost is None and self.reactor.seconds() < deadline:
                self.reactor.iterate(0)
        self.agree()

    @rule(which=PICKS)
    def kick(self, which: int) -> None:
        which %= len(self.paths[0].peers)
        for path in self.paths:
            path.service.router.lose(path.peers[which].link, Reason.KICKED)
            path.service.flush()
        self.agree()

    def teardown(self) -> None:
        for path in self.paths:
            path.stop()
        if self.paths:
            native = self.paths[1].service.native
            assert native is not None
            used, plain, _, _ = native.core.pool()
            assert (used, plain) == (0, 0)
            assert native.totals()[4:] == (0,) * 12
        for reader in self.reactor.removeAll():
            reader.connectionLost(None)
        for reader in list(self.reactor._internalReaders):
            reader.connectionLost(None)
        self.reactor._poller.close()
        gc.collect()


class MachineTests(SynchronousTestCase):
    settings = settings(DETERMINISTIC, max_examples=30, stateful_step_count=25)
    if missing():
        skip = missing()

    def test_days(self) -> None:
        """Whatever peers do, both paths send them the same bytes and count the same."""
        run_state_machine_as_test(PathsMachine, settings=self.settings)

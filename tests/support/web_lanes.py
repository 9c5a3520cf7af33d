"""What every lane promises where packets stand in the frames of a WebSocket.

Rule: all of `support.lanes` holds there too; here is what only frames have. The peer reads and
writes them by the book (`support.websocket`).
"""

from __future__ import annotations

from typing import Any, cast

from fastway.errors import Reason
from fastway.gateway.lane import End
from fastway.websocket import Frames
from tests.support import lanes
from tests.support.golden import packet
from tests.support.sockets import Peer
from tests.support.waits import later, until
from tests.support.websocket import VECTORS, closing, frame

SENT = 3000
"""Bytes of a frame that a peer writes, at most: what is large is a message of several."""


def framed(data: bytes) -> bytes:
    """Bytes as a peer sends them: one message."""
    pieces = [data[at : at + SENT] for at in range(0, len(data), SENT)] or [b""]
    return b"".join(
        frame(piece, 0 if number else 2, fin=number == len(pieces) - 1)
        for number, piece in enumerate(pieces)
    )


class WebPeer(Peer):
    """A peer behind its handshake.

    Attributes:
        framed: It is; what `send` is given are the bytes in its messages then, and `received` has
            those that it was sent.
        controls: Opcode and payload of control frames.
    """

    def __init__(self) -> None:
        super().__init__()
        self.framed = False
        self.controls: list[tuple[int, bytes]] = []
        self._buffer = b""
        self._left = 0

    def send(self, data: bytes) -> None:
        self.write(framed(data) if self.framed else data)

    def write(self, data: bytes) -> None:
        """Send these very bytes."""
        super().send(data)

    async def told(self) -> None:
        """A control frame came."""
        await until("a control frame", lambda: self.controls)

    def dataReceived(self, data: bytes) -> None:
        if not self.framed:
            super().dataReceived(data)
            return
        data = self._buffer + data
        while True:
            piece, data = data[: self._left], data[self._left :]
            self._left -= len(piece)
            super().dataReceived(piece)
            if self._left or len(data) < 2 or (data[1] == 126 and len(data) < 4):
                break
            first, size, at = data[0], data[1], 2
            assert not self.controls or self.controls[-1][0] != 8, "a frame behind a Close"
            if size == 126:
                size, at = int.from_bytes(data[2:4], "big"), 4
            assert size <= 16 * 1024 - 4
            if first == 0x82:
                self._left, data = size, data[at:]
                continue
            assert first in (0x88, 0x8A), first
            if len(data) < at + size:
                break
            self.controls.append((first & 15, data[at : at + size]))
            data = data[at + size :]
        self._buffer = data


class WebLaneChecks(lanes.LaneChecks):
    """The checks of lanes, and those of frames."""

    peer = WebPeer

    def start(self, lane: Any, data: bytes = b"") -> None:
        self.peers[lane].framed = True
        lane.start(framed(data), Frames(self.limit(lane)))

    @staticmethod
    def limit(lane: Any) -> int:
        """Bytes that a frame may announce."""
        config = getattr(lane, "config", None) or lane._config
        return cast(int, config.frame_limit)

    async def begun(self, **config: Any) -> tuple[Any, lanes.Reports, WebPeer]:
        """A lane that is started, and so on."""
        lane, reports, peer = await self.make(**config)
        self.start(lane)
        return lane, reports, cast(WebPeer, peer)

    async def test_what_was_written_before(self) -> None:
        """What was sent before the start is in no frame, what comes behind it is."""
        lane, _, peer = await self.make()
        lane.write(b"answer")
        lane.start(b"", Frames())
        self.say(lane, packet(7, b"seven"))
        await peer.expect(b"answer\x82\x0d" + packet(7, b"seven"))

    async def test_misframed(self) -> None:
        """What is no frame is told once, behind what came before it; nothing more is read."""
        for vector in VECTORS:
            if vector.broken is None or vector.broken is Reason.FRAME_TOO_LARGE:
                continue
            with self.subTest(vector=vector.name):
                lane, reports, peer = await self.begun()
                mirror = Frames(self.limit(lane))
                bad = vector.sent[len(frame(b"before")) :]
                peer.write(framed(packet(9, b"nine")) + bad)
                mirror.receive(bad)
                await reports.any()
                await later()
                ((error,),) = reports.heard("misframed")
                self.assertIs(error.reason, vector.broken)
                self.assertEqual(str(error), str(mirror.error))
                self.assertEqual(len(reports.said), 1)
                self.assertEqual(reports.packets, packet(9, b"nine"))
                lane.close(End.CLOSE, error.reason)
                await peer.told()
                code = error.reason.close_code.to_bytes(2, "big")
                told = (8, code + error.reason.value.encode())
                self.assertEqual(peer.controls[-1], told)
                lane.close(End.ABORT)

    async def test_too_large(self) -> None:
        """A frame may be so large that a packet fits; over that it is told with its length."""
        lane, reports, peer = await self.begun()
        limit = self.limit(lane)
        peer.write(frame(b"\0\0", length=limit + 1))
        await reports.any()
        ((error,),) = reports.heard("misframed")
        self.assertEqual(str(error), f"a frame of {limit + 1} bytes is over {limit}")
        self.assertIs(error.reason, Reason.FRAME_TOO_LARGE)

    async def test_peer_closes(self) -> None:
        """A Close is the peer's end, behind all that came before, and is answered by its code."""
        for sent, answer in ((closing(4321, b"bye"), b"\x10\xe1"), (frame(b"", 8), b"")):
            lane, reports, peer = await self.begun()
            data = packet(9, bytes(2000)) * 20
            peer.write(framed(data) + sent + b"\xff\xff")
            await reports.any()
            self.assertEqual(reports.said, [("peer_ended", ())])
            self.assertEqual(reports.packets, data)
            lane.close(End.CLOSE, Reason.PEER_CLOSED)
            await peer.told()
            self.assertEqual(peer.controls, [(8, answer)])
            await peer.expect_end()

    async def test_close_with_a_reason(self) -> None:
        """A close tells its code behind what was sent; the peer that goes on talking reads it."""
        lane, reports, peer = await self.begun()
        data = packet(8, bytes(300_000))
        self.say(lane, data)
        lane.close(End.CLOSE, Reason.KICKED)
        peer.send(packet(9, bytes(50_000)) * 10)
        await peer.expect(data)
        await peer.told()
        self.assertEqual(peer.controls, [(8, b"\x11\x33" + Reason.KICKED.value.encode())])
        await peer.expect_end()
        self.assertEqual(reports.packets, b"")

    async def test_ping(self) -> None:
        """A Ping is answered, amid a message too, and is no packet."""
        _, reports, peer = await self.begun(idle_timeout=0.5)
        data = packet(5, b"five")
        peer.write(frame(data[:3], fin=False) + frame(b"there?", 9) + frame(data[3:], 0))
        await until("the packet", lambda: reports.packets == data)
        await peer.told()
        self.assertEqual(peer.controls, [(10, b"there?")])
        for _ in range(100):
            if reports.said:
                break
            peer.write(frame(b"", 9) + frame(b""))
            await later(0.02)
        await until("the report", lambda: reports.said)
        self.assertEqual(reports.said, [("went_idle", ())])

    async def test_pings_of_who_does_not_read(self) -> None:
        """However many Pings come while nothing is taken: little waits, the last is answered."""
        lane, reports, peer = await self.begun(queue_bytes=1 << 40, idle_timeout=0)
        peer.wire.pauseProducing()
        data = packet(5, bytes(30_000_000))
        self.say(lane, data)
        await later()
        waiting = lane.counts().waiting_bytes
        for number in range(2000):
            peer.write(frame(b"%d" % number, 9))
        await until("them", lambda: lane.counts().bytes_in == peer.sent)
        self.assertLessEqual(lane.counts().waiting_bytes, waiting)
        peer.wire.resumeProducing()
        await until("all", lambda: peer.total == len(data) and peer.controls)
        self.assertLess(len(peer.controls), 3)
        self.assertEqual(peer.controls[-1], (10, b"1999"))
        self.assertEqual(reports.said, [])

    async def test_nothing_is_kept(self) -> None:
        """A packet in frames of a byte; only what came of it waits."""
        lane, reports, peer = await self.begun()
        data = packet(3, bytes(200))
        for byte in data[:-1]:
            peer.write(frame(bytes((byte,)), fin=False) + frame(b"", 0))
        await until("them", lambda: lane.counts().bytes_in == peer.sent)
        self.assertEqual(lane.counts().input_bytes, len(data) - 1)
        peer.write(frame(data[-1:]))
        await until("the packet", lambda: reports.packets == data)
        self.assertEqual(lane.counts().input_bytes, 0)

"""The frames of the native core against those of fastway.websocket: the same bytes, in any pieces,
are the same payload and the same verdict.

The core hands up packets, so the payload is made one: a head that announces as much comes first.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import RemoteError
from fastway.relay import missing
from fastway.websocket import Frames
from tests.support.core import DETERMINISTIC, cut
from tests.support.websocket import LIMIT, VECTORS, closing, frame, server_frames

NOW = 1000.0
HEAD = 8
CLOSING = 4408, "text" + "caf\xe9" * 30


class CoreFrames:
    """One connection of the core, as its peer sees it.

    Args:
        core: Whose it is.
        port: With which bounds.
        size: Bytes of payload that will come.

    Attributes:
        heard: Bytes that the core sent.
        closed, error: As those of `Frames`.
    """

    def __init__(self, core: Any, port: int, size: int) -> None:
        from fastway.relay import _core

        ours, self.peer = socket.socketpair()
        for end in (ours, self.peer):
            end.setblocking(False)
        self.core, self.relay = core, _core
        self.handle = core.adopt(ours.detach(), port, NOW)
        core.own(self.handle, self)
        core.start(self.handle, b"", _core.WEBSOCKET, NOW)
        self.size = size
        self.whole: bytes | None = None
        self.heard = b""
        self.closed = self.gone = False
        self.error: RemoteError | None = None
        self.sent = 0
        self.send(frame((4 + size).to_bytes(4, "little") + bytes((1, 0, 0, 0))))

    @property
    def over(self) -> bool:
        return self.closed or self.error is not None

    def send(self, data: bytes) -> int:
        """Have the core read bytes; returns how much payload came until now."""
        while data and not self.over:
            taken = self.peer.send(data)
            self.sent += taken
            data = data[taken:]
            while not self.over and self.counts[1] < self.sent:
                self.turn()
            for _ in range(4):  # what it says to that
                self.turn()
        return self.size if self.whole is not None else self.counts[6] - HEAD

    @property
    def counts(self) -> Any:
        return self.core.counts(self.handle)

    def turn(self) -> None:
        from fastway.gateway.framings import broken_rule

        relay = self.relay
        for kind, owner, payload in self.core.run(NOW) or ():
            assert owner is self
            if kind == relay.PACKETS:
                ((_, data, _),) = payload
                assert self.whole is None
                self.whole = data[HEAD:]
            elif kind == relay.FIN:
                self.closed = True
            elif kind == relay.MISFRAMED:
                self.error = broken_rule(payload, LIMIT)
            else:
                assert kind == relay.GONE, kind
                self.gone = True
        self.core.go_on(NOW)
        with contextlib.suppress(OSError):  # nothing more is there, or will be
            self.heard += self.peer.recv(1 << 16)

    def end(self) -> None:
        """Have it say its Close, and end it."""
        self.core.farewell(self.handle, *CLOSING)
        self.core.close(self.handle, self.relay.CLOSE)
        for _ in range(4):
            self.turn()
        self.peer.close()
        while not self.gone:
            self.turn()
        self.core.release(self.handle)


class CoreTests(SynchronousTestCase):
    if missing():
        skip = missing()

    def setUp(self) -> None:
        from fastway.relay import _core

        self.core: Any = _core.Core(
            pool_type=0, factor=2, min_chunk=64, max_chunk=1 << 16, page_size=1 << 20, limit=0,
            commands_each=4, commands_turn=16, events_turn=16, openings_turn=16, share_least=4096,
            share_most=65536, shares=1 << 20, turn_seconds=1.0,
        )  # fmt: skip
        self.ports = [
            self.core.port(
                max_packet=1 << 20,
                read_size=read_size,
                idle_timeout=0,
                queue_packets=100,
                queue_bytes=1 << 20,
                write_timeout=0,
                holds=False,
                frame_limit=LIMIT,
            )
            for read_size in (1 << 16, 700, 5)
        ]

    def check(self, pieces: list[bytes], port: int = 0, name: str = "") -> None:
        """Both say the same of all pieces, and after each."""
        whole = Frames(LIMIT)
        payload = whole.receive(b"".join(pieces))
        frames, core = Frames(LIMIT), CoreFrames(self.core, self.ports[port], len(payload))
        came, pong = 0, b""
        for piece in pieces:
            came += len(frames.receive(piece))
            pong, frames.pong = frames.pong or pong, b""
            self.assertEqual(core.send(piece), came, name)
            self.assertEqual((core.closed, str(core.error)), (frames.closed, str(frames.error)))
        self.assertEqual(core.whole or b"", payload, name)
        if frames.error is not None:
            assert core.error is not None
            self.assertIs(core.error.reason, frames.error.reason, name)
        said = server_frames(core.heard)
        if frames.error is None:  # with one, it may be what comes behind the Pong that is not told
            self.assertEqual(said[-1:], server_frames(pong), name)
        core.end()
        self.assertEqual(server_frames(core.heard)[-1:], server_frames(frames.close(*CLOSING)))
        self.assertEqual(self.core.pool()[0], 0)

    def test_vectors(self) -> None:
        """Whole, and read in small pieces."""
        for vector in VECTORS:
            self.check([vector.sent], 0, vector.name)
            self.check([vector.sent], 1, vector.name)
            if len(vector.sent) < 2000:
                self.check([vector.sent], 2, vector.name)

    def test_byte_by_byte(self) -> None:
        """One byte at a time."""
        for vector in VECTORS:
            if len(vector.sent) < 2000:
                pieces = [vector.sent[at : at + 1] for at in range(len(vector.sent))]
                self.check(pieces, 0, vector.name)

    @settings(DETERMINISTIC, max_examples=300)
    @given(
        st.sampled_from(VECTORS),
        st.lists(st.integers(0, 100_000), max_size=6),
        st.integers(0, 1),
    )
    def test_cuts(self, vector: Any, places: list[int], port: int) -> None:
        """In pieces."""
        self.check(cut(vector.sent, places), port, vector.name)

    @settings(DETERMINISTIC, max_examples=600)
    @given(
        st.lists(
            st.one_of(
                st.builds(
                    frame,
                    st.binary(max_size=300),
                    st.sampled_from((2, 2, 2, 0, 0, 9, 10)),
                    fin=st.booleans(),
                    mask=st.binary(min_size=4, max_size=4),
                ),
                st.builds(
                    frame,
                    st.binary(max_size=140),
                    st.integers(0, 15),
                    fin=st.booleans(),
                    mask=st.one_of(st.none(), st.binary(min_size=4, max_size=4)),
                    bits=st.sampled_from((0, 0, 0, 0, 4)),
                    width=st.sampled_from((None, 2, 8)),
                    length=st.sampled_from((None, None, 1, 125, 126, 65535)),
                ),
                st.builds(
                    frame, width=st.just(8), length=st.sampled_from((LIMIT, LIMIT + 1, 1 << 40))
                ),
                st.builds(closing, st.integers(990, 5010), st.binary(max_size=12)),
                st.binary(max_size=20),
            ),
            max_size=8,
        ),
        st.lists(st.integers(0, 3000), max_size=6),
        st.integers(0, 2),
    )
    def test_anything(self, sent: list[bytes], places: list[int], port: int) -> None:
        """Frames good and bad, and noise."""
        self.check(cut(b"".join(sent), places), port)

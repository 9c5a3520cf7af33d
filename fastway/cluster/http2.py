"""One HTTP/2 connection over TCP, as calls use it: either end, over h2.

    a turn: bytes come -> h2 -> what they mean -> calls, answers -> one write

Rule: h2 knows the protocol; here is what a peer may cost. Whatever it sends becomes a reason to
lose that connection, never a traceback; what a turn has to say is one write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes
from hpack import Decoder, Encoder
from hyperframe.frame import Frame, GoAwayFrame
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.address import address_name
from fastway.logs import Throttle, escaped, make_logger
from fastway.wheel import Wheel

log = make_logger("fastway.cluster")

STREAMS = 100
"""Calls of one connection that may be under way, each way; what gRPC's peers begin with too."""

MAX_HEADERS = 16 * 1024
"""Bytes of the headers of one call."""

MAX_FRAME = 16 * 1024
"""Bytes of a frame, as HTTP/2 has it where nobody says otherwise."""

PATIENCE = 2000
"""Frames that say nothing, which a peer may send at once,"""
PATIENCE_RATE = 1000.0
"""and in each second; one more for each that begins or ends a call, or has much of its body;"""
EARNED = 4
"""and for each thing that it is told: gRPC's Go peers answer data with windows and pings."""

LITTLE = 1024
"""Bytes of a body below which a frame says nothing, unless it is the last."""

MAX_KEPT = 1024 * 1024
"""Bytes that wait for a peer which does not read: answers, and what HTTP/2 itself has to say."""

GOODBYE = 5.0
"""Seconds that a peer has to take what it was told before its connection is cut."""

_MEMO = 64
"""Blocks of headers that are known by their bytes."""


class Writes(Protocol):
    """Who has something to write by the end of a turn (`fastway.app.turn`)."""

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def add(self, link: Any) -> None: ...


class Turn(NamedTuple):
    """What all connections of an App have in common: deadlines, one write a turn, and a log that
    strangers cannot fill."""

    wheel: Wheel
    writes: Writes
    quiet: Throttle


def _is_indexed(block: bytes) -> bool:
    """All fields of a block of headers are known by one byte: it means the same the next time."""
    return len(block) <= 64 and min(block, default=0) > 0x80 and 0xFF not in block


class _Reads(Decoder):
    """A decoder that knows what it has seen: nearly all calls have the same few headers.

    A block of indexed fields changes no table, and means the same until a block does.
    """

    def __init__(self) -> None:
        super().__init__(MAX_HEADERS)
        self._known: dict[bytes, list[Any]] = {}

    def decode(self, data: bytes, raw: bool = False) -> Any:
        known = self._known.get(data)
        if known is not None:
            return known
        made = list(super().decode(data, raw))
        if not _is_indexed(data):
            self._known.clear()
        elif len(self._known) < _MEMO:
            self._known[data] = made
        return made


class _Says(Encoder):
    """An encoder that knows what it has said, likewise."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[Any, ...], bytes] = {}

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        key = tuple(headers)
        if not self.header_table.resized:
            known = self._known.get(key)
            if known is not None:
                return known
        made = super().encode(key, huffman)
        if not _is_indexed(made):
            self._known.clear()
        elif len(self._known) < _MEMO:
            self._known[key] = made
        return made


class _Frames(FrameBuffer):
    """What is no whole frame yet; h2 looks at a frame's length when all of it is there.

    Attributes:
        count: Frames that came.
    """

    def __init__(self, server: bool) -> None:
        super().__init__(server)
        self.count = 0

    def __next__(self) -> Frame:
        frame = super().__next__()
        self.count += 1
        return frame

    @property
    def is_too_long(self) -> bool:
        data = self._data
        return len(data) >= 3 and int.from_bytes(data[:3], "big") > MAX_FRAME


class _H2(H2Connection):
    """h2 as it is, but for four things: what it remembers, and what it does not bear."""

    MAX_CLOSED_STREAMS = 1000

    def __init__(self, client_side: bool) -> None:
        super().__init__(
            H2Configuration(
                client_side,
                None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self.encoder, self.decoder = _Says(), _Reads()
        self.incoming_buffer = self.frames = _Frames(server=not client_side)
        settings: dict[SettingCodes | int, int] = {
            SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADERS,
        }
        if client_side:
            settings[SettingCodes.ENABLE_PUSH] = 0
        self.local_settings.update(settings)
        self.local_settings.acknowledge()

    def _open_streams(self, remainder: int) -> int:
        """h2 looks at all streams for each new one. Here those of calls that are over are swept
        out now and then; of ours no more are begun than may be, and of a peer's they are counted
        once there could be too many."""
        most = 4 * STREAMS if self.config.client_side else STREAMS
        return 0 if len(self.streams) < most else super()._open_streams(remainder)

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Any], list[Event]]:
        """Who goes away finishes what it has begun; h2 would hear nothing more of it."""
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]


@dataclass(slots=True)
class _Body:
    """What is left to be said in a stream, for which the peer has given no window yet."""

    data: memoryview
    trailers: list[tuple[bytes, bytes]] | None


@implementer(IPushProducer)
class Http2(TwistedProtocol):
    """One end of a connection.

    Attributes:
        heard: When bytes came last, in the wheel's time.
    """

    client_side: bool

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.h2 = _H2(self.client_side)
        self.address = "?"
        self.heard = 0.0
        self.slot = -1
        self.gone = False
        self._closing = False
        self._dirty = False
        self._full = False
        self._kept: list[bytes] = []
        self._kept_size = 0
        self._patience: float = PATIENCE
        self._bodies: dict[int, _Body] = {}
        self._owed = 0
        """Bytes that came and that the peer was not told of."""
        self._takes: dict[type[Event], Callable[[Any], object]] = {
            RequestReceived: self._request_came,
            ResponseReceived: self._response_came,
            TrailersReceived: self._trailers_came,
            DataReceived: self._data_came,
            StreamReset: self._reset_came,
            WindowUpdated: self._window_came,
            RemoteSettingsChanged: self._settings_came,
            ConnectionTerminated: self._goodbye_came,
        }

    # The connection.

    def connectionMade(self) -> None:
        transport = cast(Any, self.transport)
        self.address = address_name(transport.getPeer())
        self.heard = self.turn.wheel.seconds()
        transport.registerProducer(self, True)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        self.h2.initiate_connection()
        self.touch()

    def dataReceived(self, data: bytes) -> None:
        if self._closing or self.gone:
            return
        turn = self.turn
        now = turn.wheel.seconds()
        patience = min(self._patience + (now - self.heard) * PATIENCE_RATE, PATIENCE)
        self.heard = now
        frames = self.h2.frames
        before = frames.count
        writes = turn.writes
        writes.begin()
        try:
            try:
                events = self.h2.receive_data(data)
            except Exception as error:  # h2's own, and what of hpack's and hyperframe's slips by
                self.lose("bad_frame", f"{type(error).__name__}: {str(error)[:200]}", told=True)
                return
            self._patience = patience + before - frames.count
            takes = self._takes
            for event in events:
                take = takes.get(type(event))
                if take is not None:
                    take(event)
                    if self._closing:
                        return
            self.touch()
            if self._patience < 0:
                self.lose("flood", "too many frames that say nothing")
            if frames.is_too_long:
                self.lose("bad_frame", f"a frame of more than {MAX_FRAME} bytes")
        finally:
            writes.end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = self._closing = True
        self._bodies.clear()
        self._kept.clear()
        self.turn.wheel.forget(self)

    def lose(self, code: str, problem: str, *, told: bool = False) -> None:
        """End the connection for a reason.

        Args:
            code: A word for counts.
            told: What h2 has to say of it is still said.
        """
        if self._closing or self.gone:
            return
        self._closing = True
        self.turn.quiet.info(
            log,
            "connections of the cluster lost",
            self.address.rpartition(":")[0].strip("[]"),
            "{peer} lost: {problem}",
            peer=self.address,
            problem=escaped(problem),
        )
        transport = cast(Any, self.transport)
        if not told or self._full:
            transport.abortConnection()
            return
        transport.write(self.h2.data_to_send())
        self._leave()

    def close(self) -> None:
        """End it in order."""
        if self._closing or self.gone:
            return
        self.flush()
        self._closing = True
        self._leave()

    def _leave(self) -> None:
        wheel = self.turn.wheel
        wheel.watch(self, wheel.seconds() + GOODBYE)
        transport = cast(Any, self.transport)
        transport.unregisterProducer()
        transport.loseConnection()

    # What is said.

    def touch(self) -> None:
        """There may be something to write: it is, when the turn ends."""
        if not self._dirty:
            self._dirty = True
            self.turn.writes.add(self)

    def flush(self) -> None:
        self._dirty = False
        if self.gone or self._closing:
            return
        data = self.h2.data_to_send()
        if not data:
            return
        if not self._full:
            cast(Any, self.transport).write(data)
            return
        self._kept.append(data)
        self._kept_size += len(data)
        if self._kept_size > MAX_KEPT:
            self.lose("slow_reader", "it does not read: too much waits for it")

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        kept, self._kept, self._kept_size = self._kept, [], 0
        if kept:
            cast(Any, self.transport).write(b"".join(kept))
        if not self._full:
            self._pump()
            self.went_on()

    def went_on(self) -> None:
        """It takes more."""

    def stopProducing(self) -> None:
        """The transport has gone; it says so itself."""

    def say(self, stream_id: int, data: bytes, trailers: list[tuple[bytes, bytes]] | None) -> None:
        """Say a body, and what stands behind it, as the peer's windows allow.

        Raises:
            ProtocolError: the stream is closed.
        """
        h2 = self.h2
        size = len(data)
        if (
            self._bodies
            or size > h2.max_outbound_frame_size
            or size > h2.local_flow_control_window(stream_id)
        ):
            self._bodies[stream_id] = _Body(memoryview(data), trailers)
            self._pump()
            return
        self.earn(EARNED)
        h2.send_data(stream_id, data, trailers is None)
        if trailers is not None:
            h2.send_headers(stream_id, trailers, True)

    def _pump(self) -> None:
        """Say more of what is left, in turn."""
        if not self._bodies or self.gone or self._closing:
            return
        for stream_id, body in list(self._bodies.items()):
            if self._full:
                break
            try:
                over = self._say_more(stream_id, body)
            except ProtocolError:  # the peer has closed that stream
                over = True
            if over:
                self._bodies.pop(stream_id, None)
        self.touch()

    def _say_more(self, stream_id: int, body: _Body) -> bool:
        """Whether that was all."""
        h2, data = self.h2, body.data
        while True:
            room = min(h2.local_flow_control_window(stream_id), h2.max_outbound_frame_size)
            if room <= 0 and data:
                body.data = data
                return False
            part, data = data[:room], data[room:]
            last = not data
            h2.send_data(stream_id, bytes(part), last and body.trailers is None)
            self.earn(EARNED)
            if last:
                if body.trailers is not None:
                    h2.send_headers(stream_id, body.trailers, True)
                return True

    def cancel(self, stream_id: int, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Nothing more is said or heard in that stream."""
        self._bodies.pop(stream_id, None)
        try:
            self.h2.reset_stream(stream_id, code)
        except ProtocolError:
            return  # it is over already
        self.touch()

    def heard_data(self, event: DataReceived) -> None:
        """These bytes are taken: the peer may send as many more, in a while."""
        self._owed += event.flow_controlled_length
        if self._owed >= MAX_FRAME or (event.stream_ended is None and self._owed):
            owed, self._owed = self._owed, 0
            self.h2.acknowledge_received_data(owed, event.stream_id)

    # What came.

    def earn(self, frames: int) -> None:
        """A peer said something, or was told so: it may have sent so many frames for that."""
        self._patience += frames

    def _settings_came(self, event: RemoteSettingsChanged) -> None:
        self._pump()
        self.went_on()

    def _window_came(self, event: WindowUpdated) -> None:
        self._pump()

    def _reset_came(self, event: StreamReset) -> None:
        self._bodies.pop(event.stream_id, None)

    def _request_came(self, event: RequestReceived) -> None:
        """Of servers."""

    def _response_came(self, event: ResponseReceived) -> None:
        """Of clients."""

    def _trailers_came(self, event: TrailersReceived) -> None:
        """Both may."""

    def _data_came(self, event: DataReceived) -> None:
        self.heard_data(event)
        if event.stream_ended is not None or len(event.data) >= LITTLE:
            self.earn(2)

    def _goodbye_came(self, event: ConnectionTerminated) -> None:
        """The peer begins nothing more."""

    def check(self, now: float) -> float | None:
        """The wheel asks."""
        if self._closing and not self.gone:
            cast(Any, self.transport).abortConnection()
        return None

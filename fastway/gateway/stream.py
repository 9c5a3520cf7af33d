"""The Python lane: packets over any Twisted transport, TLS and snet included.

Rule: it moves bytes, measures time and keeps every queue bounded; what a link may do is above.
It is one file, a little long: all of it is the state of one object.

One read's way: `dataReceived` -> runs -> the link's router -> `send` of the lanes that get
something, which only collect -> `RouterService.flush`: one write for each. A lane whose transport
says that its buffer is full (pauseProducing) keeps what comes next in its own queue, where packets
and bytes are counted. Over the bounds

* a client is over, unless within the next two turns it fell below them, or its transport ran
  empty and only the packets are over: neither a burst nor several fast servers cost a client that
  reads;
* for a server, those who send to it are not read from until it has drained below half of both
  bounds; and long before that each only as long as he has more than his share in the queue.
"""

from __future__ import annotations

import errno
import os
import socket
from array import array
from collections import deque
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.errors import FrameTooLarge, FrameTooShort, RemoteError
from fastway.gateway.bounds import PATIENCE, UNSENT, WRITE_PIECE
from fastway.gateway.identities import secured
from fastway.gateway.lane import (
    NOBODY,
    Counts,
    End,
    Framing,
    Lane,
    LaneOwner,
    LanePort,
    Shares,
    Told,
)
from fastway.gateway.limits import Entry, Rate
from fastway.snet.interfaces import IResumableProtocol, IResumableTransport
from fastway.tcp import (
    acked_bytes,
    descriptor,
    is_plain_tcp,
    keep_unsent,
    renew_producer,
    tell_why,
    transport_name,
)
from fastway.wire import FrameReader, Run, StreamCutter, bare_messages

Reader = FrameReader | StreamCutter

SMALL = 4 * 1024
"""Pieces that wait for a peer which knows no packets are put together below so many bytes."""


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer, IResumableProtocol)
class StreamLane(Protocol):
    """One connection: Twisted's protocol, and the lane of one link."""

    # Half of the memory of an idle link: Twisted's own attributes keep a small dict.
    __slots__ = (
        "_batch",
        "_batch_packets",
        "_bytes_in",
        "_bytes_out",
        "_closing",
        "_conn_id",
        "_crowded",
        "_drained",
        "_ended",
        "_framing",
        "_full_since",
        "_gone",
        "_goodbye",
        "_idle_taken",
        "_input",
        "_judgement",
        "_last_packet",
        "_most_waiting",
        "_packets_out",
        "_paused",
        "_queue",
        "_rate",
        "_reader",
        "_rest",
        "_slow_until",
        "_taken",
        "_waiting_bytes",
        "_waiting_packets",
        "admitted",
        "config",
        "counted_at",
        "cut_since",
        "holds",
        "link",
        "resumes",
        "service",
        "shares",
        "slot",
    )

    link: LaneOwner
    native = False
    away = False
    costs = 0

    def __init__(self, factory: LanePort) -> None:
        super().__init__()
        self.link = NOBODY
        self.factory = factory
        self.service = factory.service
        self.config = factory.config
        self.shares = Shares(cast(Lane, self)) if factory.holds else None
        self.counted_at: set[Lane] | None = None
        self.holds = 0
        self.admitted: Entry | None = None
        self.slot = -1
        self.cut_since: float | None = None
        """When its resumable transport was cut, in the wheel's time; time stands still since."""
        self.resumes = 0
        """How often that came back."""
        self._conn_id = 0
        """Over which its bytes go, if its peer knows no packets."""
        self._reader: Reader | None = None
        self._framing: Framing | None = None
        self._rest: list[Run] | None = None
        """What its turn's commands did not suffice for,"""
        self._crowded = False
        """and more came: it is not read from until that is done."""
        self._bytes_in = self._bytes_out = self._packets_out = 0
        self._waiting_packets = self._waiting_bytes = self._most_waiting = 0
        self._input = 0
        self._last_packet = 0.0
        self._batch: list[bytes] | None = None
        self._batch_packets = 0
        self._queue: deque[tuple[bytes, int]] | None = None
        self._full_since: float | None = None
        self._taken: int | None = None
        self._idle_taken: int | None = None
        """What a peer that knows no packets had taken when it was last judged."""
        self._judgement: IDelayedCall | None = None
        self._drained = False
        """The transport ran empty since the last judgement."""
        self._paused = False
        self._rate: Rate | None = None
        """What it may still send, where that is limited,"""
        self._slow_until: float | None = None
        """and until when it is not read from, because it sent more."""
        self._ended = False
        """The peer's FIN came, and what came before it waits its turn."""
        self._closing = False
        self._goodbye: tuple[End, Told | None] | None = None
        """How it ends once its queue is written."""
        self._gone = False

    # What Twisted calls.

    def connectionMade(self) -> None:
        transport = cast(Any, self.transport)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            if self.factory.holds:
                keep_unsent(transport, UNSENT)
        # Twisted's TCP transport reads this many bytes at once and calls its buffer full above
        # as many; others (TLS) have sizes of their own.
        if hasattr(transport, "bufferSize"):
            transport.bufferSize = self.config.read_size
        transport.registerProducer(self, True)
        self.factory.connected(self, transport.getPeer(), transport_name(transport))

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._bytes_in:
            self.link.comes_from(cast(Any, self.transport).getPeer())
        self._bytes_in += len(data)
        if self._reader is None:
            self.link.bytes_came(data)
        else:
            self._read(self._reader, data)
        self.service.flush(self)

    def handshakeCompleted(self) -> None:
        """Of TLS, as IHandshakeListener."""
        if not self._closing:
            self.link.is_secure()
            self.service.flush(self)

    def readConnectionLost(self) -> None:
        """The peer sent its FIN: all that came before has been forwarded, or waits its turn."""
        if self._closing:
            cast(Any, self.transport).loseConnection()
            return
        self._ended = True
        if not (self._rest or self.link.parks(self)):
            self.link.peer_ended()

    def writeConnectionLost(self) -> None:
        """Never asked for: this side does not half-close while the link lives."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        if self._rest and not self._closing:
            # It came before the end, so it is handled before it.
            rest, self._rest = self._rest, None
            self.link.packets_came(rest, len(rest))
        self._drop()
        self.service.gate.leave(self.admitted)
        link, self.link = self.link, NOBODY  # no cycle
        link.gone(None if reason.check(ConnectionDone) else cast(Exception, reason.value))

    # Lane.

    def write(self, data: bytes) -> None:
        cast(Any, self.transport).write(data)

    def wait(self) -> None:
        self._crowded = True
        self._read_or_not()

    def direct(self, conn_id: int) -> None:
        self._conn_id = conn_id

    def start(self, data: bytes, framing: Framing | None = None) -> None:
        self._framing = framing
        if self._conn_id:
            self._reader = StreamCutter(self._conn_id, self.config.piece)
            self._idle_taken = self._progress()
        else:
            self._reader = FrameReader(self.config.max_packet)
        self._last_packet = self.service.wheel.seconds()
        self._watch_idle()
        if self._crowded:
            self._crowded = False
            self._read_or_not()
        if data:
            self._read(self._reader, data)

    def send(self, data: bytes, packets: int) -> None:
        if self._conn_id:
            data, packets = bare_messages(data)
            if not packets:
                return
        batch = self._batch
        if batch is None:
            self._batch = [data]
            self._batch_packets = packets
            self.service.touched.append(self)
        else:
            batch.append(data)
            self._batch_packets += packets

    def multicast(self, conn_ids: array[int], message: bytes) -> array[int]:
        return conn_ids

    def progress(self) -> tuple[int, int]:
        added = self._bytes_out + sum(map(len, self._batch or ()))
        return added, self._bytes_out - self._waiting_bytes

    def settle(self, source: Lane | None) -> None:
        batch, packets = self._batch, self._batch_packets
        self._batch = None
        if batch is None or self._closing:
            return
        data = batch[0] if len(batch) == 1 else b"".join(batch)
        self._packets_out += packets
        self._bytes_out += len(data)
        if self._full_since is None:
            self._put(data)
            return
        if self._queue is None:
            self._queue = deque()
        self._count(packets, len(data))
        if self._conn_id and self._queue and len(self._queue[-1][0]) < SMALL:
            # Only its bytes are bounded.
            before, count = self._queue.pop()
            self._queue.append((before + data, count + packets))
        else:
            self._queue.append((data, packets))
        if self.shares is None:
            if self._over():
                self._went_over()
        elif source is not None:
            taken = self._bytes_out - self._waiting_bytes
            if self.shares.sent(source, len(data), self._bytes_out, taken, self._over()):
                self.service.holds += 1

    def pair(self, conn_id: int, other: Lane) -> None:
        """All packets of this lane go through the router."""

    def unpair(self, conn_id: int) -> None:
        pass

    def pause(self) -> None:
        self.service.held += 1
        self._read_or_not()

    def resume(self) -> None:
        self.service.held -= 1
        self._last_packet = self.service.wheel.seconds()
        self._read_or_not()

    def close(self, how: End, reason: Told | None = None) -> None:
        if self._closing:
            if how is End.ABORT and not self._gone:
                self._drop()
                cast(Any, self.transport).abortConnection()
            return
        self._closing = True
        if self._judgement is not None:
            self._judgement.cancel()
            self._judgement = None
        transport = cast(Any, self.transport)
        self.service.wheel.forget(self)
        if self._conn_id and self._queue and how is not End.ABORT and not self._gone:
            # Much may wait, and for long: it stays where it is counted.
            self._goodbye = how, reason
            batch = b"".join(self._batch or ())
            self._queue.append((batch, self._batch_packets))
            self._count(self._batch_packets, len(batch))
            self._batch = None
            self._drop_input()
            self._hear()
            return
        waiting = [data for data, _ in self._queue or ()] + (self._batch or [])
        self._drop()
        # Also of a transport that is gone: a TLS one would keep this lane in a cycle.
        transport.unregisterProducer()
        if self._gone:
            return
        if how is End.ABORT:
            transport.abortConnection()
            return
        self._hear()
        if waiting:
            self._put(b"".join(waiting))
        self._end(how, reason)

    def _hear(self) -> None:
        """TLS reads the peer's close_notify before it closes."""
        if self._paused:
            self._paused = False
            cast(Any, self.transport).resumeProducing()

    def _end(self, how: End, reason: Told | None) -> None:
        """All that waited is the transport's."""
        transport = cast(Any, self.transport)
        framing = self._framing
        if framing is not None and reason is not None:
            transport.write(framing.close(reason.close_code, reason.value))
            if not (framing.closed or self._ended):
                how = End.HALF  # so that it gets to read why, and answers
        elif reason is not None:
            tell_why(transport, reason.close_code, reason.value)
        if how is End.HALF and is_plain_tcp(transport):
            # Its bytes that nobody read would make close() a reset, which drops what is on its
            # way to it: read on, into nothing, until its FIN.
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def saturated(self) -> bool:
        config = self.config
        return (
            self._waiting_packets > 2 * config.queue_packets
            or self._waiting_bytes > 2 * config.queue_bytes
        )

    def counts(self) -> Counts:
        return Counts(
            packets_out=self._packets_out,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            waiting_packets=self._waiting_packets,
            waiting_bytes=self._waiting_bytes,
            input_bytes=self._input,
            held=self.holds > 0 or self._slow_until is not None,
            most_waiting=self._most_waiting,
        )

    prefaces = ()

    def secure(self, connection: Any, data: bytes) -> None:
        """Its transport does that."""

    @property
    def securing(self) -> bool:
        # Twisted's TLS, and nothing in between: then it calls handshakeCompleted.
        transport = self.transport
        return (
            ISSLTransport.providedBy(transport)
            and getattr(transport, "wrappedProtocol", None) is self
        )

    def secured(self) -> dict[str, str]:
        return secured(self.transport)

    @property
    def descriptor(self) -> int:
        return descriptor(self.transport)

    def socket(self) -> socket.socket:
        """A duplicate of the socket, the caller's to close.

        Raises:
            OSError: the connection is gone, or its transport has no socket.
        """
        number = self.descriptor
        if number < 0:
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
        return socket.socket(fileno=os.dup(number))

    # What comes in.

    def _read(self, reader: Reader, data: bytes) -> None:
        framing = self._framing
        if framing is None:
            self._cut(reader, data)
            return
        if framing.closed or framing.error is not None:
            return  # nothing more is understood, and that was told, or is when its turn comes
        payload = framing.receive(data)
        if framing.pong and self._full_since is None:
            self._answer(framing)
        if self.config.byte_rate:
            self._spend(0, len(data) - len(payload))
        self._ended = self._ended or framing.closed
        if payload:
            self._cut(reader, payload)
        if not (self._rest or self._closing):
            self._see_end()

    def _see_end(self) -> None:
        """All that came is handled: if nothing more can come, that is the link's end."""
        error = None if self._framing is None else self._framing.error
        if error is not None:
            self.link.misframed(error)
        elif self._ended:
            self.link.peer_ended()

    def _answer(self, framing: Framing) -> None:
        pong, framing.pong = framing.pong, b""
        cast(Any, self.transport).write(pong)

    def _put(self, data: bytes) -> None:
        """Write packets, in their framing if there is one."""
        framing = self._framing
        if framing is not None:
            # Of one that knows no packets these are whole messages, which some need in one.
            data = framing.wrap_whole(data) if self._conn_id else framing.wrap(data)
        cast(Any, self.transport).write(data)

    def _cut(self, reader: Reader, data: bytes) -> None:
        before = reader.pending
        runs = reader.feed(data)
        if reader.pending != before:
            self._count_input(reader.pending - before)
        if self.config.packet_rate or self.config.byte_rate:
            self._spend(sum(count for _, _, count in runs), len(data))
        if runs:
            self._last_packet = self.service.wheel.seconds()
            if self._rest:
                # It may have one read more: to stop reading costs more than most have to say.
                self._rest += runs
                self._count_input(_size(runs))
                self._crowded = True
                self._read_or_not()
                return
            rest = self.service.receive(self.link, runs)
            if rest:
                self._rest = rest
                self._count_input(_size(rest))
                self._wait()
                return
        if reader.error is not None and not self._rest:
            self._broke(reader.error)

    def _spend(self, packets: int, size: int) -> None:
        """It sent so much: over its rates it is not read from for a while."""
        if self._rate is None:
            self._rate = Rate()
        wheel = self.service.wheel
        now = wheel.seconds()
        config = self.config
        until = self._rate.take(packets, size, config.packet_rate, config.byte_rate, now)
        if until <= now or self._closing:
            return
        if self._slow_until is None:
            self.service.slowed += 1
            self.service.slows += 1
        self._slow_until = until
        self._read_or_not()
        wheel.watch(self, until)

    def rates_changed(self) -> None:
        if self._slow_until is not None:
            self.service.wheel.watch(self, self.service.wheel.seconds())

    def _speed_up(self) -> None:
        if self._slow_until is not None:
            self._slow_until = None
            self.service.slowed -= 1

    def go_on(self) -> None:
        """It has its turn: what waits for it is handled as far as the turn's commands suffice."""
        rest, self._rest = self._rest, None
        if self._closing:
            return
        if rest:
            left = self.service.receive(self.link, rest)
            if not self._closing:
                self._rest = left
                self._count_input(_size(left) - _size(rest))
            self.service.flush(self)
        if self._rest:
            self._wait()
            return
        error = cast(Reader, self._reader).error
        if error is not None:
            self._broke(error)
        self._crowded = False
        self._read_or_not()
        if not self._closing:
            self._see_end()

    def _wait(self) -> None:
        if not self.link.parks(self):
            self.service.wait_for_turn(self)

    def _broke(self, error: RemoteError) -> None:
        if isinstance(error, (FrameTooLarge, FrameTooShort)) and not self._closing:
            self.link.broke(error.length)

    def _read_or_not(self) -> None:
        pause = bool(self.holds or self._crowded or self._slow_until is not None)
        if pause is self._paused or self._closing or self._gone:
            return
        self._paused = pause
        transport = cast(Any, self.transport)
        if pause:
            transport.pauseProducing()
        else:
            transport.resumeProducing()

    # What goes out. One place counts.

    def _count(self, packets: int, size: int) -> None:
        self._waiting_packets += packets
        self._waiting_bytes += size
        if self._waiting_bytes > self._most_waiting:
            self._most_waiting = self._waiting_bytes
        self.service.count(self.factory.holds, packets, size)

    def _count_input(self, more: int) -> None:
        self._input += more
        self.service.count(self.factory.holds, 0, more, more)

    def _over(self) -> bool:
        config = self.config
        return (
            self._waiting_packets > config.queue_packets
            or self._waiting_bytes > config.queue_bytes
        )

    def _drop(self) -> None:
        """Hold nothing for it any more, nor anybody."""
        self._queue = self._batch = self._goodbye = None
        self._speed_up()
        self._count(-self._waiting_packets, -self._waiting_bytes)
        self._drop_input()

    def _drop_input(self) -> None:
        """Nothing more is heard of it."""
        self._rest = None
        self._count_input(-self._input)
        if self.shares is not None:
            self.shares.clear()
        counted_at, self.counted_at = self.counted_at, None
        if self.holds:
            self.service.held -= 1
        for lane in counted_at or ():
            cast(Any, lane).shares.forget(self)

    def _went_over(self) -> None:
        if self._judgement is not None:
            if self._waiting_bytes > self.config.queue_bytes:
                self._judgement.reset(0)
            return
        self._drained = False
        later = self.service.clock.callLater
        taken = self._bytes_taken() if IResumableTransport.providedBy(self.transport) else None
        if taken is None:
            # Two turns: the first begins before the socket is offered what waits, the second
            # after it.
            self._judgement = later(0, self._judge_next_turn)
        else:
            # Little is on its way at a time: it takes round trips to see that it reads.
            self._judgement = later(PATIENCE, self._judge, taken)

    def _judge_next_turn(self) -> None:
        self._judgement = self.service.clock.callLater(0, self._judge)

    def _judge(self, taken: int | None = None) -> None:
        self._judgement = None
        if self._closing or not self._over():
            return
        reads = self._drained or (taken is not None and self._bytes_taken() != taken)
        if reads and self._waiting_bytes <= self.config.queue_bytes:
            self._went_over()  # what waits came since: judge again
        else:
            self.link.went_over(self._waiting_packets, self._waiting_bytes)

    # The transport's buffer, as IPushProducer.

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        if self._full_since is None:
            wheel = self.service.wheel
            self._full_since = wheel.seconds()
            self._taken = self._bytes_taken()
            if self.config.write_timeout and not self._closing:
                wheel.watch(self, self._full_since + self.config.write_timeout)

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self._full_since = None
        renew_producer(self.transport, self)
        self._drained = True
        if self._closing and self._goodbye is None:
            return
        queue = self._queue
        while queue and self._full_since is None:
            pieces: list[bytes] = []
            size = packets = 0
            while queue and size < WRITE_PIECE:
                data, count = queue.popleft()
                pieces.append(data)
                size += len(data)
                packets += count
            self._count(-packets, -size)
            self._put(b"".join(pieces))
        if not queue:
            self._queue = None
            if self._goodbye is not None:
                goodbye, self._goodbye = self._goodbye, None
                cast(Any, self.transport).unregisterProducer()
                self._end(*goodbye)
                return
        if self._framing is not None and self._framing.pong and self._full_since is None:
            self._answer(self._framing)
        if self.shares is not None and self.shares.senders:
            if self._full_since is None:
                self.shares.clear()
            else:
                half = self.config.below_half(self._waiting_packets, self._waiting_bytes)
                self.shares.moved(self._bytes_out - self._waiting_bytes, half)

    def stopProducing(self) -> None:
        """The connection is gone, or TLS is over; connectionLost follows."""

    # A resumable transport, as IResumableProtocol.

    def stream_cut(self) -> None:
        if self._closing:
            return  # what is on its way to it may still be taken
        self.cut_since = self.service.wheel.seconds()
        self.link.was_cut()

    def stream_resumed(self, seconds: float, replayed: int) -> None:
        if self.cut_since is None or self._closing:
            return
        wheel = self.service.wheel
        cut = wheel.seconds() - self.cut_since
        self.cut_since = None
        self.resumes += 1
        # Only the transport's wait timeout counts this time; every other goes on where it was.
        self._last_packet += cut
        if self._full_since is not None:
            self._full_since += cut
        wheel.watch(self, wheel.seconds())
        self.link.came_back(cast(Any, self.transport).getPeer(), seconds, replayed)

    # Time.

    def _watch_idle(self) -> None:
        if self.config.idle_timeout:
            self.service.wheel.watch(self, self._last_packet + self.config.idle_timeout)

    def check(self, now: float) -> float | None:
        """Report a deadline that has passed; otherwise return the next one."""
        if self._closing or self.cut_since is not None:
            return None  # stream_resumed asks again
        deadlines = []
        if self._slow_until is not None:
            rate, config = cast(Rate, self._rate), self.config
            self._slow_until = rate.take(0, 0, config.packet_rate, config.byte_rate, now)
            if self._slow_until > now:
                deadlines.append(self._slow_until)
            else:
                self._speed_up()
                self._last_packet = now  # it could not be heard
                self._read_or_not()
        if self._full_since is not None and self.config.write_timeout:
            taken = self._bytes_taken()
            if taken != self._taken:
                self._taken = taken
                self._full_since = now
            due = self._full_since + self.config.write_timeout
            if due <= now:
                self.link.got_stuck()
                return None
            deadlines.append(due)
        if self._reader is not None and self.config.idle_timeout:
            heard = now if self._paused else self._last_packet
            if self._conn_id and heard + self.config.idle_timeout <= now:
                taken = self._progress()
                if taken != self._idle_taken:
                    self._idle_taken = taken
                    heard = self._last_packet = now
            due = heard + self.config.idle_timeout
            if due <= now:
                self.link.went_idle()
                return None
            deadlines.append(due)
        return min(deadlines, default=None)

    def _bytes_taken(self) -> int | None:
        transport = self.transport
        if IResumableTransport.providedBy(transport):
            return cast("int | None", cast(Any, transport).acked)
        return acked_bytes(transport)

    def _progress(self) -> int:
        """A number that grows while its peer takes what it is sent."""
        taken = self._bytes_taken()
        return self._bytes_out - self._waiting_bytes if taken is None else taken


def _size(runs: list[Run]) -> int:
    return sum(len(data) for _, data, _ in runs)

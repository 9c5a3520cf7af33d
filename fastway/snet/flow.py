"""What a stream is in every framework: bytes that go on over one carrier after the other, until
the peer's host has all that was written.

Rule: no framework here. When a stream is cut, resumed, settled and over is decided once; who is
told of it, and what a carrier's transport and the clock are called, is `stream`'s (Twisted) and
`fastway.aio.snet`'s.
"""

from __future__ import annotations

from typing import Any

from fastway.snet.inbox import Inbox
from fastway.snet.outbox import CallLater, Outbox
from fastway.snet.session import Resumed, Session


class Flow:
    """A stream over its carriers.

    Attributes:
        session: Its counts and what is kept to be sent again.
        carrier: The connection in use; None while it is cut.
        cut_since: When its carrier went, in its clock's seconds; None while it has one.
        disconnecting: It is closed here, and what was written may still go out.
        lost: It is over, if this is true.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_handing_over",
        "_in",
        "_out",
        "_paused",
        "_settled",
        "carrier",
        "cut_since",
        "disconnecting",
        "lost",
        "session",
    )

    session: Session
    lost: Any

    def __init__(self) -> None:
        self.carrier: Any = None
        self.cut_since: float | None = None
        self.disconnecting = False
        self._closing = False
        """This side has closed its half of the carrier, and waits for the peer to do so."""
        self._settled = False
        """The peer's host had all that was written when the carrier went."""
        self._paused = False
        self._handing_over = False

    def _begin(self, session: Session) -> None:
        self.session = session
        self._in = Inbox(session)
        self._out = Outbox(session)

    @property
    def replayable(self) -> int:
        """Bytes kept to be sent again."""
        return self.session.replayable

    @property
    def acked(self) -> int | None:
        """Bytes of the stream that the peer's host has; None where nobody tells."""
        unacked = None if self.carrier is None else self.carrier.unacked()
        return None if unacked is None else self.session.wrote - unacked

    @property
    def pending(self) -> int:
        """Bytes that wait for a connection, or for room in it."""
        return self._out.size

    @property
    def unread(self) -> int:
        """Bytes that came and wait for who runs over it to read on."""
        return self._in.size

    # What a carrier calls.

    def carried(self, data: bytes) -> None:
        """Bytes came over the carrier in use."""
        if self.disconnecting or self.lost:
            self.session.receive(data)
        elif self._paused or self._in.size:
            self._in.add(data)
        else:
            data = self.session.receive(data)
            if data:
                self._hand_over(data)

    def carrier_ended(self, carrier: Any, unacked: int | None, orderly: bool) -> None:
        """The carrier's connection is over.

        Args:
            unacked: Bytes that its peer's host had not acknowledged; None where nobody tells.
            orderly: The peer closed it.
        """
        if carrier is not self.carrier:
            return
        if unacked is None:
            self._settled = orderly and self._closing
        else:
            self._settled = unacked <= 0  # an acknowledged FIN counts as a byte
        self._drop_carrier(abort=False)
        if self.disconnecting and self._settled and not self._out.size:
            self._finish(None)
        else:
            self._now_cut()

    def pump(self) -> None:
        """Hand what waits to the carrier as far as it goes: its buffer may have room."""
        carrier = self.carrier
        if carrier is None or not self._out.flow(carrier, self._call_later, self.pump):
            return
        if not self.lost:
            self._drained()
            if self.disconnecting:
                self._close_if_done()

    # What runs over it calls, by the names of its framework.

    def write(self, data: bytes) -> None:
        """Send bytes; while it is cut they wait here."""
        if not isinstance(data, bytes):
            if not isinstance(data, (bytearray, memoryview)):
                raise TypeError(f"data must be bytes, not {type(data).__name__}")
            data = bytes(data)
        if not data or self._closing or self.lost:
            return
        carrier = self.carrier
        out = self._out
        size = len(data)
        if not out.size and carrier is not None and size <= out.room and not carrier.full:
            out.room -= size
            carrier.write(self.session.send(data))
            return
        out.add(data)
        self.pump()
        if out.size:
            self.tell_full()

    def resume_now(self) -> None:
        """Give up the connection in use, which may be dead, and get a new one at once.

        The dialling side only.
        """
        if self.lost:
            return
        if self.carrier is not None:
            self._drop_carrier()
            self._now_cut()
        self._hurry()

    def _leave(self) -> None:
        """Close it after what was written."""
        if not self.disconnecting and not self.lost:
            self.disconnecting = True
            # Nothing is delivered any more; but it counts as read.
            self._in.take()
            self._close_if_done()

    def _pause_reading(self) -> None:
        self._paused = True
        if self.carrier is not None and not self.disconnecting:
            self._hold_back(self.carrier)

    def _resume_reading(self) -> None:
        self._paused = False
        if not self._in.size:
            self._read_on()
        elif not self._handing_over:
            # Never within the call that resumed: that may be the reader's, amid its last data.
            self._handing_over = True
            self._call_later(0, self._hand_over_unread)

    # Inside.

    def _read_on(self) -> None:
        if self.carrier is not None and not self._closing:
            self._read_from(self.carrier)

    def _hand_over_unread(self) -> None:
        self._handing_over = False
        if self._paused or not self._in.size or self.lost:
            return
        unread = self._in.take()
        if unread:
            self._hand_over(unread)
        if not self._paused and not self.lost:
            self._read_on()

    def _use(self, carrier: Any) -> None:
        self.carrier = carrier
        carrier.stream = self
        self._out.begin(carrier)
        if self._paused and not self.disconnecting:
            self._hold_back(carrier)

    def _drop_carrier(self, abort: bool = True) -> None:
        carrier, self.carrier = self.carrier, None
        self._out.end()
        self._in.end()
        if carrier is not None:
            carrier.stream = None
            if abort:
                carrier.abort()

    def _go_on(self, carrier: Any, resumed: Resumed, replay: bytes, now: float) -> None:
        """The session has been resumed over another carrier: send again what is missing."""
        seconds = 0.0 if self.cut_since is None else now - self.cut_since
        self.cut_since = None
        self._closing = False
        if not self._lingers:
            self._no_deadline()
        elif resumed.read == self.session.wrote:  # the peer has all
            carrier.abort()
            self._finish(None)
            return
        self._use(carrier)
        if replay:
            self._out.room -= len(replay)
            carrier.write(replay)
        self._tell_resumed(seconds, len(replay))
        if resumed.rest and self.carrier is carrier:
            self.carried(resumed.rest)
        self.pump()

    @property
    def _delivers(self) -> bool:
        """It was closed, and all that was written before has been handed on: what ends it now is
        an orderly end."""
        return self.disconnecting and not self._out.size

    def _close_if_done(self) -> None:
        if self._closing or self.lost or self._out.size:
            return
        carrier = self.carrier
        if carrier is None:
            # Cut: with nothing to send again there is nothing to wait for.
            if self._settled or self.session.replayable == 0:
                self._finish(None)
            return
        self._closing = True
        if not self._lingers:
            self._linger()
        carrier.half_close()

    # What each framework does in its way.

    @property
    def _call_later(self) -> CallLater:
        raise NotImplementedError

    def _hand_over(self, data: bytes) -> None:
        """Give bytes to who runs over it."""
        raise NotImplementedError

    def tell_full(self) -> None:
        """Let who runs over it write no more: the carrier's buffer is full, or bytes wait."""
        raise NotImplementedError

    def _drained(self) -> None:
        """Let him write on."""
        raise NotImplementedError

    def _hold_back(self, carrier: Any) -> None:
        """Read nothing from a carrier for now."""
        raise NotImplementedError

    def _read_from(self, carrier: Any) -> None:
        """Read on."""
        raise NotImplementedError

    def _now_cut(self) -> None:
        """There is no carrier any more."""
        raise NotImplementedError

    def _hurry(self) -> None:
        """Do not wait for the next one."""
        raise NotImplementedError

    def _tell_resumed(self, seconds: float, replayed: int) -> None:
        """There is one again."""
        raise NotImplementedError

    @property
    def _lingers(self) -> bool:
        """It waits for the peer to take what was written before a close, for LINGER seconds."""
        raise NotImplementedError

    def _linger(self) -> None:
        """It does so from now on."""
        raise NotImplementedError

    def _no_deadline(self) -> None:
        """It need not be resumed by any time."""
        raise NotImplementedError

    def _finish(self, error: Exception | None) -> None:
        """It is over; None: in good order. A second time does nothing."""
        raise NotImplementedError

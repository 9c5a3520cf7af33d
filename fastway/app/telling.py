"""What a link tells its peer: packets, and answers to what the peer asked.

Rule: what is told in one turn is one write. What waits has a bound, and whoever is over it is
lost; nothing here waits for the peer.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.address import address_name
from fastway.app.app import App
from fastway.app.handlers import Answering
from fastway.app.handling import FAILED
from fastway.app.messages import BadBody, encode
from fastway.app.session import Lane, Rooms, Session
from fastway.app.turn import shared
from fastway.dialect import Dialect, Message, Meta, Refused, Wire
from fastway.logs import make_logger

log = make_logger("fastway.app")

# Why a link is not read from: bits, which cost a tenth of what flags of `enum` do.
HOLD_STRAND = 1
HOLD_REQUESTS = 2
HOLD_RATE = 4
HOLD_HELLO = 8
HOLD_QUEUED = 16
HOLD_DRAIN = 32


@implementer(IPushProducer)
class Telling(Protocol, Answering):
    """The half of a link that speaks.

    Args:
        app: Who handles its messages.
        dialect: What it speaks.
        wire: Its state.

    Attributes:
        channel: Its virtual connection, behind a gateway.
    """

    __slots__ = (  # there are very many; nor may a dict of attributes come to be
        "_address",
        "_bounds",
        "_closing",
        "_dialect",
        "_early",
        "_full",
        "_gone",
        "_holds",
        "_out",
        "_rooms",
        "_shared",
        "_unanswered",
        "_waiting",
        "app",
        "channel",
        "connected",
        "lane",
        "session",
        "slot",
        "transport",
        "wire",
    )

    def __init__(self, app: App, dialect: Dialect, wire: Wire) -> None:
        self.transport = None
        self.connected = 0
        self.slot = -1
        self.lane: Lane | None = None
        self.channel: Any = None
        self.app = app
        self.wire = wire
        self._address = "?"
        self.session: Session | None = None
        self._bounds = app.bounds
        self._dialect = dialect
        self._shared = shared(app)
        self._out: list[bytes] | None = None
        self._early: bytearray | None = None
        """What it is to be told once it is ready."""
        self._waiting = 0
        self._full = False
        self._holds = 0
        self._unanswered = 0
        self._rooms: Rooms | None = None
        self._closing = False
        self._gone = False

    # What the other half does.

    def lose(
        self, code: str, problem: str, *, answer: bool = False, cause: Exception | None = None
    ) -> None:
        """End the connection for a reason; what waits is not sent unless `answer`.

        Args:
            code: A word for counts.
            problem: One line of ours.
            cause: What went wrong; None: no more than that line.
        """
        raise NotImplementedError

    def _release(self, why: int) -> None:
        """It may be read from again, as far as that goes."""
        raise NotImplementedError

    def _leave(self) -> None:
        """All that it was told is written: it may go."""
        raise NotImplementedError

    def _failed(
        self, what: str, form: str, failure: Failure | None = None, **fields: object
    ) -> None:
        """Log a failure, or count it."""
        self.app.quiet.failure(log, what, form, failure, peer=self.address, **fields)

    # Packets.

    @property
    def address(self) -> str:
        """Of the peer, as it is known by now: proxies and gateways may tell late who that is."""
        transport = cast(Any, self.transport)
        if self._gone or transport is None:
            return self._address
        return address_name(transport.getPeer())

    @property
    def dialect(self) -> str:
        return self._dialect.name

    @property
    def shape(self) -> Hashable:
        return self.wire.shape

    def pack(self, route: str, message: Any, meta: Meta = ()) -> bytes:
        wire = self.wire
        return wire.send(route, encode(message, wire.format), meta)

    def tell(self, packet: bytes) -> None:
        if self._closing or not packet:
            return
        self.app.counts.sent += 1
        if self.wire.ready:
            self._write(packet)
        else:
            self._tell_later(packet)

    def _tell_later(self, packet: bytes) -> None:
        """Nothing goes out before the answer to its handshake."""
        if self._early is None:
            self._early = bytearray()
        self._early += packet
        if 0 < self._bounds.waiting < len(self._early):
            self.lose("slow_reader", "it is not ready: too much waits for it")

    def _tell_early(self) -> None:
        """It is ready: what was kept back goes out, and with others it is told as they are."""
        self.lane = self._lane_now()
        early, self._early = self._early, None
        if early:
            self._write(bytes(early))

    def _lane_now(self) -> Lane | None:
        return None if self.channel is None else self._shared.behind

    def _write(self, data: bytes) -> None:
        if self._gone:
            return
        out = self._out
        if out is None:
            self._out = [data]
            self._shared.writes.add(self)
        else:
            out.append(data)
        self._waiting += len(data)
        if 0 < self._bounds.waiting < self._waiting and self._full:
            self.lose("slow_reader", "it does not read: too much waits for it")

    def flush(self) -> None:
        """Write what there is, if the transport takes it."""
        out = self._out
        if out is None or self._full or self._gone:
            return
        self._out = None
        self._waiting = 0
        cast(Any, self.transport).write(out[0] if len(out) == 1 else b"".join(out))

    def _unit(self, data: bytes) -> bytes:
        """What a unit of the wire is on this transport."""
        return data

    def room(self) -> Deferred[None] | None:
        if not (self._full and self._waiting > self._bounds.enough) or self._gone:
            return None
        return self._wait_for_room()

    def _wait_for_room(self) -> Deferred[None]:
        if self._rooms is None:
            self._rooms = Rooms()
        return self._rooms.wait()

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        self.flush()
        if self._full:
            return
        rooms, self._rooms = self._rooms, None
        self._shared.writes.begin()
        if rooms is not None:
            rooms.fire()
        self._shared.writes.end()
        if self._closing:
            self._leave()

    def stopProducing(self) -> None:
        """The transport has gone; it says so itself."""

    # Answers.

    def reply(self, event: Message, result: Any, meta: Meta = ()) -> None:
        token = event.token
        if token is None:
            return
        form = event.answer_format or event.format
        try:
            body = encode(result, form)
        except Exception as error:
            if form is self.wire.format or isinstance(error, Refused):
                raise
            # The peer chose that format, so it is no fault of the handler's.
            detail = f"its answer, {type(result).__name__}, is none in its format: {error}"
            raise BadBody(detail) from None
        self._answer(self.wire.reply(token, body, meta, type(result)))

    def refuse(self, event: Message, refused: Refused) -> None:
        if event.token is None:
            return
        self.app.counts.refused += 1
        if self._gone:  # nobody hears it; Python itself may be at its end
            self._answer(b"")
            return
        try:
            data = self.wire.refuse(event.token, refused)
        except Exception:  # its text is too long, or nothing that can be said
            form = "{route!r} was refused with what cannot be said"
            self._failed("a refusal", form, route=event.route)
            data = self.wire.refuse(event.token, Refused(FAILED, "internal error"))
        self._answer(data)

    def let_on(self, event: Message, on: bool) -> None:
        self._unanswered += -1 if on else 1
        if self._holds & HOLD_REQUESTS and self._unanswered < self._bounds.requests:
            self._release(HOLD_REQUESTS)

    def _answer(self, data: bytes) -> None:
        self._unanswered -= 1
        self.app.counts.pending -= 1
        if data and not self._closing:
            self._write(self._unit(data))
        if self._holds & HOLD_REQUESTS and self._unanswered < self._bounds.requests:
            self._release(HOLD_REQUESTS)

"""One virtual connection, as the application has it: messages in a bounded queue, and its end.

Rule: no transport and no clock, those are `link`'s. What came waits as bytes: it is decoded where
it is received, so a connection's format may be chosen, or a byte stream made of it, after it came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from fastway.control import PlayerFacts
from fastway.endpoint.config import EndpointConfig
from fastway.errors import BadMessage, ConnectionEnded, FastwayError, ReceiveQueueFull
from fastway.formats import Encoded, MessageFormat
from fastway.waiting import Loop, Waiters

T = TypeVar("T")


class Stream(Protocol):
    """What takes the raw messages of a connection that is a byte stream."""

    def received(self, data: bytes) -> bool:
        """Bytes came; False: let them wait."""

    def dropped(self) -> None:
        """What waited when it ended had to go, for all together held too much: `ended` tells."""


class Drained(Protocol):
    """A byte stream that wants to know when what it runs over fills and drains."""

    def endpoint_full(self) -> None: ...

    def endpoint_drained(self) -> None: ...


class Circle(Protocol):
    """A group, that a connection leaves when it ends."""

    def reformatted(self) -> None:
        """The format of a member is another one."""

    def forget(self, conn: Any) -> None:
        """It has ended, or is about to be told so."""


class Bounds(Protocol):
    """Counts what waits unread."""

    def more(self, conn: Channel[Any], size: int, count: int, messages: int) -> None:
        """So many bytes more, in `count` messages, wait to be read; there are `messages` now."""

    def less(self, conn: Channel[Any], size: int, count: int) -> None:
        """So many bytes and messages have been read, or are not wanted."""


class Carrier(Protocol):
    """What virtual connections run over: a `link.Link`.

    Attributes:
        face: What the application has of it.
        full: Its transport's buffer is full: what is sent now has to wait.
        max_message: Bytes of the largest message.
        streams: Who wants to know when it fills and drains.
        control: The gateway's control connection, where one was asked for.
    """

    config: EndpointConfig
    loop: Loop
    full: bool
    streams: set[Drained]

    @property
    def face(self) -> Any: ...

    @property
    def control(self) -> Any: ...

    @property
    def unread(self) -> Bounds: ...

    @property
    def max_message(self) -> int: ...

    def send(self, conn: Channel[Any], data: bytes) -> Any:
        """Send a message; a Waiter until there is room again, or None while there is."""

    def post(self, conn: Channel[Any], data: bytes) -> bool:
        """Send a message if there is room."""

    def write_message(self, conn: Channel[Any], data: bytes) -> None:
        """Send bytes as one message, whatever the format, and however much waits already.

        Nothing is sent if it is closed: a transport does not tell its writers.
        """

    def has_room(self, size: int) -> bool:
        """So many bytes may be sent without waiting; they count from now on."""

    def check_size(self, size: int) -> None:
        """
        Raises:
            MessageTooLarge: a message of `size` bytes does not fit a packet.
        """

    def is_open(self, conn: Channel[Any]) -> bool:
        """It can be sent to: it has not ended, and its end is not about to be told."""

    @property
    def all_told(self) -> bool:
        """No connection's end is about to be told."""

    def write_packets(self, packets: Iterable[bytes]) -> None:
        """Write whole packets, of connections that are open."""

    def close(self, conn: Channel[Any], reason: FastwayError) -> None:
        """Close a virtual connection; a second time does nothing."""

    def mark_closed(self, conn: Channel[Any], reason: FastwayError) -> bool:
        """Close it and tell nobody here yet; False when it is closed already."""

    def tell_closed(self, conn: Channel[Any]) -> None:
        """Tell who waits for the end of one that was marked."""


class Channel(Generic[T]):
    """A message channel to the far end of a virtual connection.

    Attributes:
        conn_id: The gateway's number for it.
        remote_id: The id of the far end: a server's for a client, a client's for a server.
        link: What it runs over.
        state: The application's own; nothing here looks at it.
        ended: Why it is closed; None while it is open.
        facts: What the gateway tells of the player (`control`); None where it does not.
        message_format: What its messages are; may be set before the first is received.
        held: Bytes that wait unread.
    """

    __slots__ = (
        "__weakref__",
        "_circles",
        "_enders",
        "_message_format",
        "_queue",
        "_readers",
        "_stream",
        "conn_id",
        "ended",
        "facts",
        "held",
        "link",
        "remote_id",
        "state",
    )

    def __init__(self, link: Carrier, conn_id: int, remote_id: int) -> None:
        self.link = link
        self.conn_id = conn_id
        self.remote_id = remote_id
        self.state: Any = None
        self.ended: FastwayError | None = None
        self.facts: PlayerFacts | None = None
        self._message_format: MessageFormat[T] = link.config.message_format
        self.held = 0
        self._queue: deque[bytes | bytearray] | None = None
        self._readers: Waiters | None = None
        self._enders: dict[Callable[[Any], object], None] | None = None
        self._circles: list[Circle] | None = None
        self._stream: Stream | None = None

    def __repr__(self) -> str:
        state = "open" if self.ended is None else "closed"
        return f"<VirtualConnection {self.conn_id} to {self.remote_id}, {state}>"

    def __del__(self) -> None:
        # Closed, unread and forgotten: what waited is gone too.
        self.drop_unread()

    @property
    def message_format(self) -> MessageFormat[T]:
        """What its messages are; may be set before the first is received."""
        return self._message_format

    @message_format.setter
    def message_format(self, message_format: MessageFormat[T]) -> None:
        self._message_format = message_format
        for circle in self._circles or ():
            circle.reformatted()

    @property
    def unread(self) -> int:
        """Messages that wait."""
        return 0 if self._queue is None else len(self._queue)

    @property
    def is_stream(self) -> bool:
        """A transport has taken it over."""
        return self._stream is not None

    def tell(self, message: T | Encoded) -> bool:
        """Send a message without ever waiting; for where nobody waits, and for broadcasts.

        Returns:
            Whether it was taken: False when the connection has ended, or when `send_buffer`
            bytes wait already.

        Raises:
            MessageTooLarge: it does not fit `max_packet`.
            Whatever the message format raises for a message that it cannot encode.
        """
        if self.ended is not None:
            return False
        return self.link.post(self, self.encode(message))

    def encode(self, message: T | Encoded) -> bytes:
        """The bytes of a message in this connection's format."""
        if isinstance(message, Encoded):
            return message.data
        return self._message_format.encode(message)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except ConnectionEnded as ended:
            ended.with_traceback(None)  # its frames have this connection: they were a cycle
            raise StopAsyncIteration from None

    def close(self) -> None:
        """Close it; both ends are told by the gateway. A second time does nothing."""
        self.link.close(self, ConnectionEnded("closed here"))

    def on_end(self, call: Callable[[Any], object]) -> None:
        """Call it once, with this connection, when that has ended; at once if it has.

        The same one is called once however often it was given. What it raises is logged.
        """
        if self.ended is not None:
            self._call_ender(call)
            return
        if self._enders is None:
            self._enders = {}
        self._enders[call] = None

    def not_on_end(self, call: Callable[[Any], object]) -> None:
        """Do not call it any more."""
        if self._enders is not None:
            self._enders.pop(call, None)

    # What a group calls.

    def enter(self, circle: Circle) -> None:
        """Be forgotten by a group when this ends, before anybody is told of any end."""
        if self._circles is None:
            self._circles = []
        self._circles.append(circle)

    def leave(self, circle: Circle) -> None:
        """That group has forgotten it."""
        if self._circles is not None:
            self._circles.remove(circle)

    # What the two libraries do each in its way, and what they build it from.

    def receive(self) -> Awaitable[T]:
        """The next message."""
        raise NotImplementedError

    def take(self) -> T:
        """The message that waits longest; there must be one.

        Raises:
            BadMessage: it did not decode: the connection is closed, and what came after is void.
        """
        queue = self._queue
        assert queue
        data = queue.popleft()
        if not queue:
            self._queue = None
        self.held -= len(data)
        self.link.unread.less(self, len(data), 1)
        return self.decode(bytes(data))

    def decode(self, data: bytes) -> T:
        """As `take`, of a message that never waited."""
        try:
            return self._message_format.decode(data)
        except Exception as error:
            failure = BadMessage(error)
            self.link.close(self, failure)
            self.drop_unread()
            raise failure from None

    def drop_unread(self) -> None:
        """What waits is not wanted any more."""
        queue, self._queue = self._queue, None
        held, self.held = self.held, 0
        if queue:
            self.link.unread.less(self, held, len(queue))

    def wait_to_read(self) -> Any:
        """A Waiter of whoever wants the next message: `hand_over` is what fires it."""
        if self._readers is None:
            self._readers = Waiters(self.link.loop)
        return self._readers.wait()

    def next_reader(self) -> Any:
        """The Waiter that waits longest, or None."""
        return None if self._readers is None else self._readers.first()

    def hand_over(self, data: bytes) -> bool:
        """Give a message to who waits for one; False: it has to wait in the queue."""
        raise NotImplementedError

    # What a transport over it calls.

    def take_over(self, stream: Stream) -> None:
        """From now on it is a byte stream: messages go to `stream`, or wait as raw bytes."""
        self._stream = stream

    def let_go(self) -> None:
        """It has ended, and the stream is over too: the two are no cycle any more."""
        self._stream = None

    def take_all_raw(self) -> bytes:
        """All that waits, in order, without the borders of its messages."""
        data = b"".join(self._queue or ())
        self.drop_unread()
        return data

    # What the link calls.

    def deliver(self, data: bytes) -> None:
        """A message came."""
        stream = self._stream
        if stream is not None:
            if stream.received(data):
                return
        elif self._readers is not None and self.hand_over(data):
            return
        pieces = 1
        queue = self._queue
        if queue is None:
            queue = self._queue = deque()
        if stream is None:
            queue.append(data)
        elif queue and isinstance(queue[-1], bytearray):
            queue[-1] += data  # however small the pieces are, they take their bytes
            pieces = 0
        else:
            queue.append(bytearray(data))
        self.held += len(data)
        self.link.unread.more(self, len(data), pieces, len(queue))

    def drop_rest(self) -> None:
        """It has ended, and what is left unread has to go: its reader must not take what it got
        for all there was."""
        self.ended = ReceiveQueueFull(self.unread, self.held)
        self.drop_unread()
        if self._stream is not None:
            self._stream.dropped()

    def mark_ended(self, reason: FastwayError) -> None:
        """It has ended: groups know it no more. `tell_ended` follows."""
        self.ended = reason
        circles, self._circles = self._circles, None
        for circle in circles or ():
            circle.forget(self)

    def tell_ended(self) -> None:
        """`ended` is set: tell whoever waits for that."""
        reason = self.ended
        assert reason is not None
        readers, self._readers = self._readers, None
        if readers is not None:
            readers.errback(reason)
        enders = self._enders
        for call in list(enders or ()):
            if enders is not None and enders.pop(call, self) is None:  # else taken back just now
                self._call_ender(call)

    def _call_ender(self, call: Callable[[Any], object]) -> None:
        try:
            call(self)
        except Exception:
            self.link.loop.log_failure(f"on_end failed with {self!r}: {call!r}")


def close_all(conns: Iterable[Channel[Any]], problem: str) -> None:
    """Close virtual connections: all are closed before anybody is told, as when a link ends."""
    closed = [conn for conn in conns if conn.link.mark_closed(conn, ConnectionEnded(problem))]
    for conn in closed:
        conn.link.tell_closed(conn)

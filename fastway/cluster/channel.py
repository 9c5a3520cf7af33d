"""Unary calls to one peer, over one connection that is made when it is needed.

    channel = Channel("10.0.0.7:34570", endpoint, turn, timeout=5.0)
    channel.start(b"/clusterpb.Member/HandlePush", message, heard)

Rule: each call is told its end once, and no later than its deadline; what is not known to be
undone is never sent twice. What waits has a bound. A peer that says nothing holds its own callers
alone, for as long as that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from fastway.causes import cause_of
from fastway.cluster.grpc import (
    CONTENT,
    HEAD,
    MAX_MESSAGE,
    CallFailed,
    Status,
    ended,
    frame,
    joined,
    unframe,
)
from fastway.cluster.http2 import STREAMS, Http2, Turn
from fastway.logs import make_logger
from fastway.reconnect import Reconnect, growing

log = make_logger("fastway.cluster")

Heard: TypeAlias = "Callable[[bytes | CallFailed], object]"
"""Told how a call ended: the message that answers, or why there is none."""

MAX_CALLS = 10_000
"""Calls to one peer that may be under way or wait,"""
MAX_WAITING = 16 * 1024 * 1024
"""and bytes of theirs."""

LAST_STREAM = 2**30
"""Streams of a connection after which another is made."""


class _Call:
    """One call.

    Attributes:
        due: When it has failed, in the wheel's time.
        on: What carries it; None: it waits.
        began: When it was sent.
        data: What came of its answer.
        again: It was sent, and the peer said that it was not looked at.
    """

    __slots__ = (
        "again",
        "began",
        "body",
        "data",
        "due",
        "heard",
        "on",
        "over",
        "path",
        "stream_id",
    )  # fmt: skip

    def __init__(self, path: bytes, body: bytes, heard: Heard, due: float) -> None:
        self.path = path
        self.body = body
        self.heard = heard
        self.due = due
        self.began = 0.0
        self.on: _Calls | None = None
        self.stream_id = 0
        self.data: bytes | bytearray = b""
        self.over = False
        self.again = False


class _Calls(Http2):
    """One connection to a peer."""

    client_side = True

    def __init__(self, channel: Channel, turn: Turn) -> None:
        super().__init__(turn)
        self.calls: dict[int, _Call] = {}
        self.answered = False
        self.leaving = False
        self._channel = channel

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.turn.writes.begin()
        try:
            self._channel.lost(self, reason)
        finally:
            self.turn.writes.end()

    @property
    def has_room(self) -> bool:
        most = min(STREAMS, self.h2.remote_settings.max_concurrent_streams)
        return not (self._full or self.leaving or self._closing) and len(self.calls) < most

    def begin(self, call: _Call, headers: list[tuple[bytes, bytes]]) -> None:
        """Send a call."""
        h2 = self.h2
        stream_id = h2.get_next_available_stream_id()
        call.on, call.stream_id, call.began = self, stream_id, self.turn.wheel.seconds()
        self.calls[stream_id] = call
        h2.send_headers(stream_id, headers)
        self.say(stream_id, call.body, None)
        self.touch()
        if stream_id > LAST_STREAM:
            self.leaving = True
            self._channel.leaves(self)

    def finish(self, call: _Call, result: bytes | CallFailed) -> None:
        """A call is over."""
        self.calls.pop(call.stream_id, None)
        self._channel.finish(call, result)
        if self.leaving and not self.calls:
            self.close()

    def give_up(self, call: _Call, failure: CallFailed) -> None:
        """Hear nothing more of a call."""
        self.cancel(call.stream_id)
        self.finish(call, failure)

    def went_on(self) -> None:
        self._channel.go_on()

    def _of(self, event: Any) -> _Call | None:
        return self.calls.get(event.stream_id)

    def _response_came(self, event: ResponseReceived) -> None:
        self.earn(2)
        call = self._of(event)
        if call is None:
            return
        headers = event.headers
        status = content = b""
        for name, value in headers:
            if name == b":status":
                status = value
            elif name == b"content-type":
                content = value
        if status != b"200" or not content.startswith(CONTENT):
            what = f"HTTP status {status[:10].decode('ascii', 'replace')}"
            self.give_up(call, CallFailed(Status.UNKNOWN, f"no answer of gRPC: {what}"))
        elif event.stream_ended is not None:
            failure = ended(headers)
            self._ended(call, failure or CallFailed(Status.INTERNAL, "no message came"))

    def _data_came(self, event: DataReceived) -> None:
        super()._data_came(event)
        call = self._of(event)
        if call is None:
            return
        call.data = joined(call.data, event.data)
        if len(call.data) > HEAD + MAX_MESSAGE:
            self.give_up(call, CallFailed(Status.RESOURCE_EXHAUSTED, "the answer is too large"))
            return
        if event.stream_ended is not None:
            self._ended(call, CallFailed(Status.INTERNAL, "it ended without a status"))

    def _trailers_came(self, event: TrailersReceived) -> None:
        self.earn(1)
        call = self._of(event)
        if call is None:
            return
        failure = ended(event.headers)
        if failure is not None:
            self._ended(call, failure)
            return
        try:
            result = unframe(call.data)
        except CallFailed as error:
            self._ended(call, error)
        else:
            self._ended(call, result)

    def _ended(self, call: _Call, result: bytes | CallFailed) -> None:
        self.answered = True
        if call.stream_id in self._bodies:  # it was not even heard to its end
            self.cancel(call.stream_id, ErrorCodes.NO_ERROR)
        self.finish(call, result)

    def _reset_came(self, event: StreamReset) -> None:
        super()._reset_came(event)
        call = self._of(event)
        if call is None:
            return
        if event.error_code == ErrorCodes.REFUSED_STREAM and not call.again:
            del self.calls[call.stream_id]
            self._channel.once_more([call])
            return
        self.finish(call, CallFailed(Status.UNAVAILABLE, "the peer broke it off"))

    def _goodbye_came(self, event: ConnectionTerminated) -> None:
        self.leaving = True
        self._channel.leaves(self)
        last = event.last_stream_id or 0
        unheard = [call for stream_id, call in self.calls.items() if stream_id > last]
        for call in unheard:
            del self.calls[call.stream_id]
            self._bodies.pop(call.stream_id, None)
        self._channel.once_more(unheard)
        if not self.calls:
            self.close()


class Channel:
    """Calls to one peer.

    Args:
        address: Of the peer, for headers and for the log.
        endpoint: Where it is.
        timeout: Seconds until a call has failed, whatever became of it.
    """

    def __init__(
        self, address: str, endpoint: IStreamClientEndpoint, turn: Turn, timeout: float
    ) -> None:
        self.address = address
        self.slot = -1
        self._endpoint = endpoint
        self._turn = turn
        self._timeout = timeout
        self._reconnect = Reconnect(growing(0.1, 2.0), at_once=True)
        self._not_before = 0.0
        self._problem = ""
        self._connection: _Calls | None = None
        self._others: set[_Calls] = set()
        self._connecting: Deferred[Any] | None = None
        self._calls: dict[_Call, None] = {}
        """All that are not over, those that fail first first."""
        self._waiting: deque[_Call] = deque()
        self._size = 0
        self._closed = False
        self._headers: dict[bytes, list[tuple[bytes, bytes]]] = {}

    @property
    def is_idle(self) -> bool:
        """Nothing is under way, nothing waits."""
        return not self._calls

    def call(self, path: bytes, message: bytes) -> Deferred[bytes]:
        """As `start`: fires with the message that answers, or fails with CallFailed."""
        done: Deferred[bytes] = Deferred()

        def heard(result: bytes | CallFailed) -> None:
            if isinstance(result, CallFailed):
                done.errback(result)
            else:
                done.callback(result)

        self.start(path, message, heard)
        return done

    def start(self, path: bytes, message: bytes, heard: Heard) -> None:
        """Call.

        Args:
            heard: Called once, perhaps before this returns.
        """
        now = self._turn.wheel.seconds()
        problem = self._refusal(message, now)
        if problem is not None:
            heard(problem)
            return
        call = _Call(path, frame(message), heard, now + self._timeout)
        if not self._calls:
            self._turn.wheel.watch(self, call.due)
        self._calls[call] = None
        self._size += len(call.body)
        connection = self._connection
        if connection is not None and not self._waiting and connection.has_room:
            self._begin(connection, call)
            return
        self._waiting.append(call)
        if connection is None:
            self._connect()

    def _refusal(self, message: bytes, now: float) -> CallFailed | None:
        """Why a call cannot be."""
        if self._closed:
            return CallFailed(Status.UNAVAILABLE, "this node has left")
        if len(message) > MAX_MESSAGE:
            return CallFailed(Status.RESOURCE_EXHAUSTED, f"{len(message)} bytes are too many")
        if len(self._calls) >= MAX_CALLS or self._size + len(message) > MAX_WAITING:
            return CallFailed(Status.RESOURCE_EXHAUSTED, "too many calls wait for this peer")
        if self._connection is None and self._connecting is None and now < self._not_before:
            return CallFailed(Status.UNAVAILABLE, self._problem)
        return None

    def _begin(self, connection: _Calls, call: _Call) -> None:
        headers = self._headers.get(call.path)
        if headers is None:
            headers = self._headers[call.path] = [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", call.path),
                (b":authority", self.address.encode()),
                (b"content-type", CONTENT),
                (b"te", b"trailers"),
                (b"user-agent", b"fastway"),
                (b"grpc-timeout", b"%dm" % (self._timeout * 1000)),
            ]
        try:
            connection.begin(call, headers)
        except ProtocolError as error:  # what the peer has done to the connection meanwhile
            connection.lose("bad_frame", f"nothing can be sent: {error}")

    def finish(self, call: _Call, result: bytes | CallFailed) -> None:
        """A call is over: it is told so."""
        if call.over:
            return
        call.over = True
        del self._calls[call]
        self._size -= len(call.body)
        if self._waiting:
            self.go_on()
        try:
            call.heard(result)
        except Exception:
            log.failure("what hears of a call of {path} failed", path=call.path)

    def go_on(self) -> None:
        """Send what waits, as far as the connection takes it."""
        connection, waiting = self._connection, self._waiting
        while waiting and waiting[0].over:
            waiting.popleft()
        while waiting and connection is not None and connection.has_room:
            call = waiting.popleft()
            if not call.over:
                self._begin(connection, call)
        if waiting and connection is None:
            self._connect()

    # The connection.

    def _connect(self) -> None:
        if self._connecting is not None or self._closed:
            return
        made = Factory.forProtocol(lambda: _Calls(self, self._turn))
        made.noisy = False
        connecting = self._connecting = self._endpoint.connect(made)
        connecting.addCallbacks(self._connected, self._not_connected)

    def _connected(self, connection: Any) -> None:
        self._connecting = None
        if self._closed:
            connection.close()
            return
        self._connection = connection
        self._reconnect.began(self._turn.wheel.seconds())
        self.go_on()

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if self._closed:
            return
        self._problem = (
            f"{self.address} cannot be reached: {cause_of(cast(Exception, failure.value))}"
        )
        self._not_before = self._turn.wheel.seconds() + self._reconnect.failed()
        self._fail(self._waiting, CallFailed(Status.UNAVAILABLE, self._problem))

    def leaves(self, connection: _Calls) -> None:
        """It takes no more calls."""
        if self._connection is connection:
            self._connection = None
            self._others.add(connection)

    def lost(self, connection: _Calls, reason: Failure) -> None:
        """It is gone, and what it carried has failed."""
        self._others.discard(connection)
        if self._connection is connection:
            self._connection = None
            now = self._turn.wheel.seconds()
            self._problem = f"{self.address} closes its connections"
            self._not_before = now + self._reconnect.ended(now, connection.answered)
        calls, connection.calls = connection.calls, {}
        self._fail(calls.values(), CallFailed(Status.UNAVAILABLE, "the connection is lost"))
        if self._waiting and self._connection is None:
            self._connect()

    def _fail(self, calls: Any, failure: CallFailed) -> None:
        failed = list(calls)
        if calls is self._waiting:
            self._waiting = deque()
        for call in failed:
            self.finish(call, CallFailed(failure.status, failure.text))

    def once_more(self, calls: list[_Call]) -> None:
        """The peer did not look at these."""
        for call in reversed(calls):
            call.on = None
            if call.again:
                self.finish(call, CallFailed(Status.UNAVAILABLE, "the peer takes no calls"))
                continue
            call.again = True
            call.data = b""
            self._waiting.appendleft(call)
        self.go_on()

    def reset(self) -> None:
        """The peer is said to be there: connect at once if need be."""
        self._not_before = 0.0

    def close(self) -> None:
        """Call nobody any more."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        self._fail(list(self._calls), CallFailed(Status.CANCELLED, "this node has left"))
        connection, self._connection = self._connection, None
        for one in (*self._others, *(() if connection is None else (connection,))):
            one.close()
        self._turn.wheel.forget(self)

    # Time.

    def check(self, now: float) -> float | None:
        """The wheel asks: calls that are late have failed."""
        writes = self._turn.writes
        writes.begin()
        try:
            while self._calls:
                call = next(iter(self._calls))
                if call.due > now:
                    return call.due
                self._expire(call)
        finally:
            writes.end()
        return None

    def _expire(self, call: _Call) -> None:
        late = CallFailed(Status.DEADLINE_EXCEEDED, f"no answer in {self._timeout:g} s")
        connection = call.on
        if connection is None:
            self.finish(call, late)
        elif connection.heard <= call.began:  # a line that is dead, or a peer that is
            connection.calls.pop(call.stream_id, None)
            connection.lose("silent", f"no sign of life in {self._timeout:g} s")
            self.finish(call, late)
        else:
            connection.give_up(call, late)

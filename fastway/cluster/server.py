"""The port of a node: unary calls that peers make.

Rule: a call is answered once, with a message or with a status that says why there is none. Nothing
of it is looked at before all of it is there; what peers may leave unfinished has bounds in bytes,
in number and in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from fastway.app.bounds import Bounds
from fastway.app.rate import Rate
from fastway.cluster.grpc import (
    CONTENT,
    HEAD,
    MAX_MESSAGE,
    CallFailed,
    Status,
    failure_trailers,
    frame,
    joined,
    unframe,
)
from fastway.cluster.http2 import EARNED, Http2, Turn
from fastway.logs import make_logger

log = make_logger("fastway.cluster")

Method: TypeAlias = "Callable[[bytes, Served], bytes | Deferred[bytes]]"
"""What does a call: takes its message and the connection, gives the message that answers. What it
raises, or fails with, is told as a status: a CallFailed as it is."""

MAX_CONNECTIONS = 1000
"""Connections to one node; a Go peer makes ten;"""

MAX_HOST = 500
"""and from one host;"""
IDLE = 60.0
"""and seconds without a call after which one has to go, where there is no room for another."""

BROKEN_OFF = 1000
"""Calls that a peer may break off at once, and in each second: what is over waits, unread."""

MAX_UNFINISHED = 8 * MAX_MESSAGE
"""Bytes of calls of one connection that are not whole yet,"""
MAX_ALL_UNFINISHED = 64 * 1024 * 1024
"""and of all connections of a node."""

CALL_TIME = 30.0
"""Seconds until a call that has begun must be whole, and a connection must have begun."""

_HEADERS = [(b":status", b"200"), (b"content-type", CONTENT)]
_OK = [(b"grpc-status", b"0")]
_STATUS_ONLY = ((b":status", b"200"), (b"content-type", CONTENT))


class _Coming:
    """A call that is not whole."""

    __slots__ = ("data", "due", "method")

    def __init__(self, method: Method, due: float) -> None:
        self.method = method
        self.due = due
        self.data: bytes | bytearray = b""


class Served(Http2):
    """One connection of a peer.

    Attributes:
        knows: What methods remember of it.
        host: Where it comes from.
        called: When it called last, or came, in the wheel's time.
    """

    client_side = False

    def __init__(self, server: Server, turn: Turn, host: str) -> None:
        super().__init__(turn)
        self.host = host
        self.knows: Any = None
        self._server = server
        self._methods = server.methods
        self._coming: dict[int, _Coming] = {}
        self._unfinished = 0
        self._deadline: float | None = None
        self.called = turn.wheel.seconds()
        self._answering = 0
        self._broken_off = Rate(Bounds(messages=BROKEN_OFF))
        self._unread_until: float | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self._deadline = self.heard + CALL_TIME
        self.turn.wheel.watch(self, self._deadline)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._coming.clear()
        self._hold(-self._unfinished)
        self._server.forget(self)

    def _settings_came(self, event: RemoteSettingsChanged) -> None:
        self._deadline = None
        super()._settings_came(event)

    @property
    def is_idle(self) -> bool:
        """No call is under way."""
        return not (self._coming or self._answering or self._bodies)

    def make_room(self) -> None:
        """Go, as another one comes: what is called meanwhile is called elsewhere."""
        self.h2.close_connection(last_stream_id=self.h2.highest_inbound_stream_id)
        self.lose("idle", f"another takes its place: no call in {IDLE:g} s", told=True)

    def _request_came(self, event: RequestReceived) -> None:
        self.earn(2)
        stream_id = event.stream_id
        verb = path = content = b""
        for name, value in event.headers:
            if name == b":method":
                verb = value
            elif name == b":path":
                path = value
            elif name == b"content-type":
                content = value
        if verb != b"POST" or not content.startswith(CONTENT):
            wrong = b"405" if verb != b"POST" else b"415"
            self._turn_down(event, [(b":status", wrong)])
            return
        method = self._methods.get(path)
        if method is None:
            unknown = f"unknown method {path[:100].decode('ascii', 'replace')}"
            said = failure_trailers(Status.UNIMPLEMENTED, unknown)
            self._turn_down(event, [*_STATUS_ONLY, *said])
            return
        coming = _Coming(method, self.turn.wheel.seconds() + CALL_TIME)
        if event.stream_ended is not None:
            self._whole(stream_id, coming)
            return
        if not self._coming:
            self.turn.wheel.watch(self, coming.due)
        self._coming[stream_id] = coming

    def _turn_down(self, event: RequestReceived, headers: list[tuple[bytes, bytes]]) -> None:
        """Answer what is no call of ours, and hear nothing more of it."""
        try:
            self.h2.send_headers(event.stream_id, headers, True)
        except ProtocolError:  # it has broken it off
            return
        if event.stream_ended is None:
            self.cancel(event.stream_id, ErrorCodes.NO_ERROR)

    def _data_came(self, event: DataReceived) -> None:
        super()._data_came(event)
        stream_id = event.stream_id
        coming = self._coming.get(stream_id)
        if coming is None:
            return
        self._hold(len(event.data))
        coming.data = joined(coming.data, event.data)
        if (
            len(coming.data) > HEAD + MAX_MESSAGE
            or self._unfinished > MAX_UNFINISHED
            or self._server.unfinished > MAX_ALL_UNFINISHED
        ):
            self._drop(stream_id, Status.RESOURCE_EXHAUSTED, "too many bytes")
            return
        if event.stream_ended is not None:
            del self._coming[stream_id]
            self._hold(-len(coming.data))
            self._whole(stream_id, coming)

    def _hold(self, size: int) -> None:
        """So many bytes more, or fewer, of calls that are not whole."""
        self._unfinished += size
        self._server.unfinished += size

    def _trailers_came(self, event: TrailersReceived) -> None:
        """gRPC's clients have none; it is the end of the call all the same."""
        self.earn(1)
        coming = self._coming.pop(event.stream_id, None)
        if coming is not None:
            self._hold(-len(coming.data))
            self._whole(event.stream_id, coming)

    def _reset_came(self, event: StreamReset) -> None:
        super()._reset_came(event)
        coming = self._coming.pop(event.stream_id, None)
        if coming is not None:
            self._hold(-len(coming.data))
        now = self.turn.wheel.seconds()
        late = self._broken_off.message(now)
        if late > 0:
            if self._unread_until is None:
                cast(Any, self.transport).pauseProducing()
            self._unread_until = now + late
            self.turn.wheel.watch(self, self._unread_until)

    def _goodbye_came(self, event: ConnectionTerminated) -> None:
        """It calls no more, and closes when it is answered."""

    def _drop(self, stream_id: int, status: Status, problem: str) -> None:
        """A call that is not whole, and will not be."""
        self._hold(-len(self._coming.pop(stream_id).data))
        self._fail(stream_id, status, problem)
        self.cancel(stream_id, ErrorCodes.NO_ERROR)

    def _whole(self, stream_id: int, coming: _Coming) -> None:
        """A call is there: have it done."""
        self._server.called(self)
        try:
            message = unframe(coming.data)
            made = coming.method(message, self)
        except CallFailed as error:
            self._fail(stream_id, error.status, error.text)
        except Exception:
            self._broke(stream_id, Failure())
        else:
            if isinstance(made, bytes):
                self._answer(stream_id, made)
            else:
                self._answering += 1
                made.addCallbacks(
                    lambda result: self._answer(stream_id, result),
                    lambda failure: self._failed(stream_id, failure),
                ).addCallback(lambda _: self._answered())

    def _answer(self, stream_id: int, message: bytes) -> None:
        if self.gone or self._closing:
            return
        try:
            self.h2.send_headers(stream_id, _HEADERS)
            self.say(stream_id, frame(message), _OK)
        except ProtocolError:
            return  # it does not wait for it any more
        self.touch()

    def _answered(self) -> None:
        self._answering -= 1

    def _failed(self, stream_id: int, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CallFailed):
            self._fail(stream_id, error.status, error.text)
        else:
            self._broke(stream_id, failure)

    def _broke(self, stream_id: int, failure: Failure) -> None:
        log.failure("a call of {peer} failed", failure, peer=self.address)
        self._fail(stream_id, Status.INTERNAL, "internal error")

    def _fail(self, stream_id: int, status: int, text: str) -> None:
        if self.gone or self._closing:
            return
        self.earn(EARNED)
        try:
            self.h2.send_headers(stream_id, [*_STATUS_ONLY, *failure_trailers(status, text)], True)
        except ProtocolError:
            return
        self.touch()

    def check(self, now: float) -> float | None:
        """The wheel asks: calls that do not become whole are dropped."""
        if self.gone or self._closing:
            return super().check(now)
        if self._deadline is not None and now >= self._deadline:
            self.lose("handshake_timeout", "it did not begin in time")
            return None
        if self._unread_until is not None:
            if now < self._unread_until:
                return self._unread_until
            self._unread_until = None
            cast(Any, self.transport).resumeProducing()
        while self._coming:
            stream_id, coming = next(iter(self._coming.items()))
            if coming.due > now:
                return coming.due
            self._drop(stream_id, Status.DEADLINE_EXCEEDED, "the call did not come in time")
        return self._deadline


class Server(Factory):
    """Connections of one node's port.

    Args:
        methods: `/package.Service/Method` -> what does such a call.

    Attributes:
        unfinished: Bytes of calls that are not whole yet.
    """

    noisy = False

    def __init__(self, methods: Mapping[bytes, Method], turn: Turn) -> None:
        self.methods = dict(methods)
        self.connections: set[Served] = set()
        self._hosts: dict[str, dict[Served, None]] = {}
        """Host -> its connections, that which has not called for longest first."""
        self.unfinished = 0
        self._turn = turn

    def buildProtocol(self, addr: IAddress | None) -> Served | None:
        host = getattr(addr, "host", "")
        if not self._has_room(host):
            self._turn.quiet.warn(
                log,
                "connections refused",
                host,
                "a connection from {peer} is one too many",
                peer=host,
            )
            return None
        served = Served(self, self._turn, host)
        self.connections.add(served)
        self._hosts.setdefault(host, {})[served] = None
        return served

    def _has_room(self, host: str) -> bool:
        """Whether there is room for one more of a host: if need be, one that is idle goes, of the
        same host or of that which has most."""
        its_own = self._hosts.get(host, {})
        if len(its_own) >= MAX_HOST:
            return self._make_room(its_own)
        if len(self.connections) >= MAX_CONNECTIONS:
            return self._make_room(max(self._hosts.values(), key=len))
        return True

    def _make_room(self, of_host: dict[Served, None]) -> bool:
        long_ago = self._turn.wheel.seconds() - IDLE
        for served in of_host:
            if served.called > long_ago:
                break
            if served.is_idle:
                self.forget(served)
                served.make_room()
                return True
        return False

    def called(self, served: Served) -> None:
        """It is the last that has called."""
        served.called = self._turn.wheel.seconds()
        its_own = self._hosts.get(served.host, {})
        if served in its_own:  # it may have been forgotten
            del its_own[served]
            its_own[served] = None

    def forget(self, served: Served) -> None:
        """It is gone."""
        if served in self.connections:
            self.connections.discard(served)
            its_own = self._hosts[served.host]
            del its_own[served]
            if not its_own:
                del self._hosts[served.host]

    def close(self) -> None:
        """End all connections."""
        for served in tuple(self.connections):
            served.close()

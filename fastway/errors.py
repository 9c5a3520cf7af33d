"""The error tree, and the reasons for which a link is lost.

Rule: what a caller did wrong here (`LocalError`) and what a peer sent (`RemoteError`) are
different classes; an error carries its values, not only a text.

    FastwayError
     +-- LocalError             the caller or the operator asked for nonsense
     |    +-- ConfigError       an option has a value that cannot be used
     |    +-- StartError        the gateway cannot start: a port, a file
     |    +-- GatewayDied       the gateway beside a test is gone (fastway.testing)
     |    +-- CommandError      an operator's command cannot be carried out
     |    +-- NotOpen           that virtual connection is not open
     |    +-- MessageTooLarge   a message does not fit a packet
     |    +-- SendQueueFull     a sender that does not wait
     |    +-- GatewayDown       that gateway is not connected
     |    +-- GatewayUnreachable  no connection to a gateway is to be had
     |    +-- RequestsFull      more requests wait than may
     |    +-- AlreadyListening  somebody takes what is dialled there
     +-- RemoteError            the peer broke the protocol; its link must be lost
     |    +-- FrameTooLarge
     |    +-- FrameTooShort
     |    +-- BadCommand
     |    +-- AuthFailed
     |    +-- Unexpected        an answer to nothing, a packet for a stranger
     |    +-- Truncated         the stream ends inside a packet
     |    +-- HandshakeFailed   of snet (fastway.snet.session)
     |    +-- HandshakeRefused  of WebSocket (fastway.websocket.request)
     |    +-- HeaderRefused     of a proxy (fastway.proxy)
     |    +-- NoTls             closed before TLS was up
    |    +-- TlsFailed         a TLS handshake with a link of the gateway failed
     |    +-- UnnamedCertificate  a TLS server shows one that has no name
     |    +-- NoWebSocket       a gateway's answer that begins no WebSocket
     |    |    +-- WebSocketRefused  an HTTP status in its place
     |    +-- WebSocketClosed   a WebSocket ended; `code` says why
     |    +-- StreamLost        a resumable stream could not be resumed
     +-- DialFailed             a dial got no connection
     |    +-- DialRefused       also a ConnectionRefusedError
     |    +-- DialTimeout       also a TimeoutError
     +-- ConnectionEnded        a virtual connection is closed; `cause` is None if orderly
     |    +-- BadMessage        a message did not decode
     |    +-- ReceiveQueueFull  too many messages unread
     |    +-- BadControl        a control message cannot be understood
     +-- RequestFailed          the gateway did not carry out a request
     |    +-- RequestRefused    it said no
     |    +-- RequestTimeout    also a TimeoutError
     |    +-- NoControl         there is no control connection to it, or no more
     +-- EndpointEnded          an endpoint is over; `cause` is None if orderly
          +-- PingTimeout
          +-- LoginFailed
"""

from __future__ import annotations

from enum import Enum

__all__ = [
    "AlreadyListening",
    "AuthFailed",
    "BadCommand",
    "BadControl",
    "BadMessage",
    "Cause",
    "CommandError",
    "ConfigError",
    "ConnectionEnded",
    "DialFailed",
    "DialRefused",
    "DialTimeout",
    "EndpointEnded",
    "FastwayError",
    "FrameTooLarge",
    "FrameTooShort",
    "GatewayDied",
    "GatewayDown",
    "GatewayUnreachable",
    "LocalError",
    "LoginFailed",
    "MessageTooLarge",
    "NoControl",
    "NoTls",
    "NoWebSocket",
    "NotOpen",
    "PingTimeout",
    "Reason",
    "ReceiveQueueFull",
    "RemoteError",
    "RequestFailed",
    "RequestRefused",
    "RequestTimeout",
    "RequestsFull",
    "SendQueueFull",
    "StartError",
    "StreamLost",
    "TlsFailed",
    "Truncated",
    "Unexpected",
    "UnnamedCertificate",
    "WebSocketClosed",
    "WebSocketRefused",
]


class Cause(Enum):
    """Who is to blame that a link was lost."""

    GATEWAY = "gateway"  # it had no room, or its operator wanted it
    PEER = "peer"  # what it did, or did not do in time
    NETWORK = "network"  # nobody


class Reason(Enum):
    """Why a link was lost: the one table of reasons.

    A row has the sentence that an operator reads (it is the `value`), who caused it, a WebSocket
    close code, and whether the link `aborts`. The close codes are those of RFC 6455, section
    7.4.1 (1000 normal, 1001 going away, 1002 protocol error, 1003 unsupported data, 1007 invalid
    payload, 1008 policy violation, 1009 message too big, 1011 unexpected condition), and IANA's
    1012 (service restart) and 1013 (try again later); where none of these fits, 4000 and the HTTP
    status that says the same.

    Attributes:
        cause: Who is to blame.
        close_code: What a WebSocket peer is told, if it can still be told something.
        aborts: The link gets nothing more: it took too little, or nothing is on its way to it.
    """

    _value_: str
    cause: Cause
    close_code: int
    aborts: bool

    def __new__(cls, text: str, cause: Cause, close_code: int, aborts: bool = False) -> Reason:
        reason = object.__new__(cls)
        reason._value_ = text
        reason.cause = cause
        reason.close_code = close_code
        reason.aborts = aborts
        return reason

    PEER_CLOSED = "closed by the peer", Cause.PEER, 1000
    CONNECTION_LOST = "the connection broke", Cause.NETWORK, 1001
    IDLE_TIMEOUT = "no complete packet within the idle timeout", Cause.PEER, 4408
    HANDSHAKE_TIMEOUT = "no complete handshake in time", Cause.PEER, 4408, True
    WRITE_TIMEOUT = (
        "took nothing that waits for it within the write timeout",
        Cause.PEER,
        4408,
        True,
    )
    SLOW_READER = "more waits for it than its bounds allow", Cause.PEER, 1008, True
    NO_MEMORY = "the memory pool has no room for it", Cause.GATEWAY, 1013, True
    NO_DESCRIPTOR = "no descriptor is free for it", Cause.GATEWAY, 1013, True
    NO_ID = "no id is free for it", Cause.GATEWAY, 1013, True
    TOO_MANY_LINKS = "as many connections are open as may be", Cause.GATEWAY, 1013
    ADDRESS_CONNECTIONS = (
        "its address has as many connections as one may have",
        Cause.GATEWAY,
        4429,
    )
    ADDRESS_RATE = "its address connects more often than one may", Cause.GATEWAY, 4429
    TOO_MANY_HANDSHAKES = "too many handshakes are under way", Cause.GATEWAY, 1013, True
    TOO_MANY_DIALS = "dialled on while too many of its dials waited", Cause.PEER, 1008
    FRAME_TOO_LARGE = "announced a packet over the limit", Cause.PEER, 1009
    FRAME_TOO_SHORT = "announced a packet too short to be one", Cause.PEER, 1002
    PROXY_TIMEOUT = "sent no whole PROXY header in time", Cause.PEER, 4408, True
    PROXY_TRUNCATED = "ended inside its PROXY header", Cause.PEER, 1002, True
    PROXY_NOT_HEADER = "did not begin with a PROXY header", Cause.PEER, 1002, True
    PROXY_BAD_HEADER = "its PROXY header breaks the rules", Cause.PEER, 1002, True
    PROXY_UNTRUSTED = "it is no proxy whose PROXY header is read", Cause.PEER, 4403, True
    HANDSHAKE_REFUSED = "its WebSocket handshake was refused", Cause.PEER, 4400
    BAD_FRAME = "broke the rules of WebSocket frames", Cause.PEER, 1002
    NOT_BINARY = "sent text, where only binary messages may be", Cause.PEER, 1003
    NOT_UTF8 = "sent WebSocket text with broken characters", Cause.PEER, 1007
    BAD_COMMAND = "sent a command that an end must not send", Cause.PEER, 1002
    NOT_OWNER = "wrote to a virtual connection of others", Cause.PEER, 1008
    AUTH_FAILED = "did not prove the server key", Cause.PEER, 4401
    NOT_ALLOWED = "its certificate does not allow its server id", Cause.PEER, 4403
    ID_IN_USE = "its server id is in use", Cause.GATEWAY, 4409
    EVICTED = "a newer server took its id", Cause.GATEWAY, 4409
    KICKED = "kicked by the operator", Cause.GATEWAY, 4403
    KICKED_BY_SERVER = "kicked by a game server", Cause.GATEWAY, 4403
    SHUTDOWN = "the gateway stops", Cause.GATEWAY, 1001
    DRAIN = "the gateway is drained before it stops", Cause.GATEWAY, 1012
    SERVER_CLOSED = "its game server closed the connection", Cause.GATEWAY, 1000
    SERVER_LOST = "its game server was lost", Cause.GATEWAY, 1013, True
    NO_SERVER = "its game server could not be dialled", Cause.GATEWAY, 1013, True
    NOT_RESUMED = "its snet stream was cut, and did not come back in time", Cause.NETWORK, 4408
    RESUME_REFUSED = (
        "its snet stream was cut, and the peer refused to resume it",
        Cause.PEER,
        4410,
    )
    RESUME_IMPOSSIBLE = (
        "its snet stream was cut, and what was lost cannot be sent again",
        Cause.NETWORK,
        4410,
    )
    CROWDED_OUT = (
        "its snet stream was cut longest when too many were",
        Cause.GATEWAY,
        1013,
        True,
    )

    @property
    def code(self) -> str:
        """How logs and programs name it."""
        return self.name.lower()

    @property
    def ours(self) -> bool:
        """The gateway's own wish: the peer did no wrong, may be sending, and may still be told."""
        return self.cause is Cause.GATEWAY and not self.aborts


class FastwayError(Exception):
    """The root of all errors of this package."""


class LocalError(FastwayError):
    """The caller asked for something that cannot be; nothing went over the wire."""


class NotInstalled(LocalError, ImportError):
    """A part of fastway lacks what it stands on; the text says what installs it."""

    def __init__(self, part: str, lacks: str, extra: str) -> None:
        how = f"pip install 'fastway[{extra}]', or '.[{extra}]' in a checkout"
        super().__init__(f"{part} needs {lacks}: {how}")


class ConfigError(LocalError):
    """An option cannot be used as given.

    Args:
        option: The option's name, as the operator wrote it or would write it.
        problem: What is wrong and how to mend it, one line.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option
        self.problem = problem


class StartError(LocalError):
    """The gateway cannot start. The text is one line for the operator."""


class CommandError(LocalError):
    """An operator's command cannot be carried out. The text is one line."""


class NotOpen(LocalError):
    """A virtual connection that is not open was written to."""

    def __init__(self, conn_id: int) -> None:
        super().__init__(f"virtual connection {conn_id} is not open")
        self.conn_id = conn_id


class MessageTooLarge(LocalError):
    """A message of `size` bytes does not fit a packet; `limit` would."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a message of {size} bytes is over {limit}")
        self.size = size
        self.limit = limit


class SendQueueFull(LocalError):
    """`waiting` bytes wait to be sent, and `limit` may; wait for what `send` returns."""

    def __init__(self, waiting: int, limit: int) -> None:
        super().__init__(f"{waiting} bytes wait to be sent, over {limit} may not")
        self.waiting = waiting
        self.limit = limit


class GatewayDied(LocalError):
    """The gateway beside a test ended, though nobody had stopped it.

    Attributes:
        log: The last lines of its log.
    """

    def __init__(self, problem: str, log: str) -> None:
        super().__init__(f"{problem}; its log:\n{log}")
        self.log = log


class GatewayDown(LocalError):
    """There is no connection to that gateway now."""

    def __init__(self, name: str) -> None:
        super().__init__(f"gateway {name} is not connected")
        self.name = name


class GatewayUnreachable(LocalError):
    """There is no connection to a gateway to be had.

    Attributes:
        gateway: Where it should be.
        cause: What the attempt met.
    """

    def __init__(self, gateway: str, problem: str, cause: Exception) -> None:
        super().__init__(f"{gateway}: {problem}")
        self.gateway = gateway
        self.cause = cause


class RequestsFull(LocalError):
    """`waiting` requests, or bytes of requests (`unit` tells), wait, and over `limit` may not."""

    def __init__(self, waiting: int, limit: int, unit: str = "requests") -> None:
        super().__init__(f"{waiting} {unit} wait for the gateway, over {limit} may not")
        self.waiting = waiting
        self.limit = limit
        self.unit = unit


class AlreadyListening(LocalError):
    """Somebody listens on `source` (an endpoint, a pool) already: only one can."""

    def __init__(self, source: object) -> None:
        super().__init__(
            f"somebody listens on {source!r} already: close that port, or listen(None), first"
        )
        self.source = source


class RemoteError(FastwayError):
    """The peer broke the protocol.

    Attributes:
        reason: Why its link must be lost.
        answer: What it is told before, as bytes of what it speaks.
    """

    reason = Reason.BAD_COMMAND
    answer = b""


class FrameTooLarge(RemoteError):
    """A length field is over `limit` (bytes, as the field counts them)."""

    reason = Reason.FRAME_TOO_LARGE

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"length {length} is over {limit}")
        self.length = length
        self.limit = limit


class FrameTooShort(RemoteError):
    """A length field is below 4: it does not even cover the connection id."""

    reason = Reason.FRAME_TOO_SHORT

    def __init__(self, length: int) -> None:
        super().__init__(f"length {length} is below 4")
        self.length = length


class BadCommand(RemoteError):
    """A command without a type, with short arguments, or of a type that is not allowed."""

    def __init__(self, kind: int | None, size: int) -> None:
        what = "no type" if kind is None else f"type {kind}"
        super().__init__(f"command with {what} in {size} bytes")
        self.kind = kind
        self.size = size


class AuthFailed(RemoteError):
    """The proof in a server's handshake is wrong."""

    reason = Reason.AUTH_FAILED

    def __init__(self) -> None:
        super().__init__("wrong proof of the server key")


class Unexpected(RemoteError):
    """Something that a peer in its senses does not say at this point."""


class Truncated(RemoteError):
    """The stream ended with `size` bytes of a packet that is not whole."""

    reason = Reason.CONNECTION_LOST

    def __init__(self, size: int) -> None:
        super().__init__(f"the stream ended {size} bytes into a packet")
        self.size = size


class NoTls(RemoteError):
    """A connection that should speak TLS was closed before that was up."""

    def __init__(self) -> None:
        super().__init__("TLS: closed before TLS was up; does that port speak it?")


class TlsFailed(RemoteError):
    """A TLS handshake failed.

    Args:
        detail: Why; empty: the connection ended within it.
        answer: OpenSSL's last words.
    """

    reason = Reason.CONNECTION_LOST

    def __init__(self, detail: str = "", answer: bytes = b"") -> None:
        super().__init__(detail)
        self.answer = answer


class UnnamedCertificate(RemoteError):
    """A server's TLS certificate has no name that could be the right one."""

    def __init__(self) -> None:
        super().__init__(
            "TLS: its certificate names nobody (it has no subjectAltName), so anybody's could "
            "stand there; make one with the name that is connected to"
        )


class NoWebSocket(RemoteError):
    """What was connected to does not begin a WebSocket as a gateway does. The text is one line.

    Attributes:
        cause: What a connection met that broke before; None otherwise.
    """

    reason = Reason.HANDSHAKE_REFUSED

    def __init__(self, problem: str, cause: Exception | None = None) -> None:
        super().__init__(f"no WebSocket: {problem}")
        self.cause = cause


_REFUSED = {
    400: "it does not take such a request; is that a gateway?",
    401: "it wants a proof of who this is; give the header that it asks for",
    403: "whoever is there does not let this in; is the origin right?",
    404: "nothing is there; is the path right?",
    405: "nothing there can be asked so; is that a gateway?",
    407: "a proxy wants a proof of who this is",
    426: "it takes no WebSocket of this kind; is that a gateway's port for web pages?",
    429: "too many come from here; try again later",
    500: "whoever is there failed",
    502: "a proxy reaches no gateway behind it; try again later",
    503: "it takes nobody now; try again later",
    504: "a proxy gets no answer of the gateway behind it; try again later",
}


class WebSocketRefused(NoWebSocket):
    """A gateway, or a proxy before it, answered with an HTTP status in place of a WebSocket.

    Attributes:
        status: It, 200 to 599.
        retry_after: Seconds after which to come again, where it says so in seconds.
        location: Where it redirects to; "": nowhere. Nobody goes there by himself: what is sent
            along, such as a token, is for whom it was meant.
    """

    def __init__(self, status: int, retry_after: int | None = None, location: str = "") -> None:
        what = _REFUSED.get(status, "whoever is there does not want it")
        if 300 <= status < 400:
            what = "it redirects, which is not followed"
            if location:
                what += f"; if {location!r} is right, connect there"
        wait = "" if retry_after is None else f" in {retry_after} s"
        super().__init__(
            f"refused with HTTP status {status}: {what}"
            + (wait if what.endswith("later") else wait and f"; try again{wait}")
        )
        self.status = status
        self.retry_after = retry_after
        self.location = location


NO_CLOSE = 1006
"""The code of a WebSocket that ended without a Close (RFC 6455, section 7.1.5)."""

_CODES = {
    1000: "closed",
    1001: "it goes away",
    1002: "it says that this end broke the protocol",
    1003: "it takes no such data",
    1005: "without a word",
    NO_CLOSE: "the WebSocket ended without a Close, as when the network breaks",
    1007: "it says that a text was none",
    1008: "it says that this is against its rules",
    1009: "something was too large for it",
    1011: "it failed",
    1012: "it restarts; come again",
    1013: "it has no room; try again later",
    1014: "a proxy lost the gateway behind it",
    4403: "kicked, or not allowed",
    4408: "nothing came for too long",
    4429: "too many come from here; try again later",
    4501: "replaced by a newer connection",
}


class WebSocketClosed(RemoteError):
    """A WebSocket is over.

    Attributes:
        code: Its close code: docs/websocket.md has those of a gateway; NO_CLOSE: it just ended.
        text: What was said with it, printable, at most 123 characters; mostly the sentence of a
            `Reason`.
    """

    def __init__(self, code: int, text: str = "") -> None:
        text = "".join(one if one.isprintable() else "?" for one in text)
        super().__init__(f"{text or _CODES.get(code, 'without a word')} ({code})")
        self.code = code
        self.text = text


class StreamLost(RemoteError):
    """A resumable stream is over: bytes may be missing, in either direction.

    Args:
        reason: Why it could not go on.
        detail: More about it, one line.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class DialFailed(FastwayError):
    """A dial got no virtual connection."""

    def __init__(self, remote_id: int, problem: str) -> None:
        super().__init__(f"dial of {remote_id}: {problem}")
        self.remote_id = remote_id


class DialRefused(DialFailed, ConnectionRefusedError):
    """The gateway refused: nobody has that id, or a limit is reached."""

    def __init__(self, remote_id: int) -> None:
        super().__init__(remote_id, "refused by the gateway")


class DialTimeout(DialFailed, TimeoutError):
    """The gateway did not answer in time."""

    def __init__(self, remote_id: int, seconds: float) -> None:
        super().__init__(remote_id, f"no answer within {seconds:g} s")
        self.seconds = seconds


class ConnectionEnded(FastwayError):
    """A virtual connection is closed.

    Attributes:
        cause: What went wrong; None for an orderly close, by either end.
    """

    def __init__(self, problem: str, cause: Exception | None = None) -> None:
        super().__init__(problem)
        self.cause = cause


class BadMessage(ConnectionEnded):
    """A message did not decode; `cause` is what the message format raised, without the frames
    that it came through: they have the connection and the message."""

    def __init__(self, cause: Exception) -> None:
        one: BaseException | None = cause
        while one is not None:
            one.__traceback__ = None
            one = one.__context__
        super().__init__(f"a message did not decode: {type(cause).__name__}: {cause}", cause)


class ReceiveQueueFull(ConnectionEnded):
    """Too much was unread: `messages` messages of `size` bytes together."""

    def __init__(self, messages: int, size: int) -> None:
        super().__init__(f"too much was unread: {messages} messages, {size} bytes", self)
        self.messages = messages
        self.size = size


class BadControl(ConnectionEnded):
    """A control message that cannot be understood: its connection is closed, and no other."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"control connection: {problem}", self)
        self.problem = problem


class RequestFailed(FastwayError):
    """The gateway did not carry out a request that was made over the control connection.

    Args:
        verb: What was asked.
    """

    def __init__(self, verb: str, problem: str) -> None:
        super().__init__(f"{verb}: {problem}")
        self.verb = verb


class RequestRefused(RequestFailed):
    """The gateway said no: `code` is for programs, `text` for people."""

    def __init__(self, verb: str, code: str, text: str = "") -> None:
        super().__init__(verb, f"{code}: {text}" if text else code)
        self.code = code
        self.text = text


class RequestTimeout(RequestFailed, TimeoutError):
    """The gateway did not answer in time; it may have carried out the request, or still do."""

    def __init__(self, verb: str, seconds: float) -> None:
        super().__init__(verb, f"no answer within {seconds:g} s")
        self.seconds = seconds


class NoControl(RequestFailed):
    """There is no control connection, or it ended before the answer; what was sent may be done.

    Attributes:
        cause: Why it ended; None where the gateway has none, or after an orderly close.
    """

    def __init__(self, verb: str, cause: Exception | None = None) -> None:
        problem = "no control connection to the gateway"
        super().__init__(verb, problem if cause is None else f"{problem}: {cause}")
        self.cause = cause


class EndpointEnded(FastwayError):
    """An endpoint is over: its connection to the gateway is gone.

    Attributes:
        cause: What went wrong; None when it was closed, by either end.
    """

    def __init__(self, problem: str, cause: Exception | None = None) -> None:
        super().__init__(problem)
        self.cause = cause


class PingTimeout(EndpointEnded):
    """The gateway did not answer a ping within `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the gateway did not answer a ping within {seconds:g} s", self)
        self.seconds = seconds


class LoginFailed(EndpointEnded):
    """The gateway did not take a server's login."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, self)

"""The seam between a game server and the wires of its peers: what a dialect is.

    wire = Pomelo().server()
    for event in wire.receive(data, now): ...  # Hello, Ready, Message, Answer, Kicked
    write(*wire.data_to_send())                # then look at wire.error
    write(wire.reply(message.token, body))

A dialect holds the settings of one port, or of one client; its wires hold one connection's state
each. Nothing here knows what a handler is, nor what a body says: that is a format's.

Rule: bytes and calls in, events and bytes out: no clock, no transport, nothing of `fastway.app`.
Whatever a peer sends, a wire raises nothing: its `error` says why the connection must go.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from fastway.errors import FastwayError, LocalError, RemoteError

__all__ = [
    "Answer",
    "BadFrame",
    "Body",
    "BodyFormat",
    "Dialect",
    "Event",
    "FrameRefused",
    "Hello",
    "Kicked",
    "Message",
    "Meta",
    "NotInDialect",
    "NotLetIn",
    "PeerSilent",
    "Ready",
    "Refused",
    "Traits",
    "WebSocketRules",
    "Wire",
]

Meta: TypeAlias = Sequence[tuple[str, str]]
"""What goes beside a message, in order; a name may come twice. Most dialects have none."""


class BodyFormat(Protocol):
    """How the bodies of a wire are written; `fastway.formats` has what is used."""

    def encode(self, message: Any, /) -> bytes:
        """The bytes of a message. What it raises is a mistake of whoever sends it."""

    def decode(self, data: bytes, into: Any = None, /) -> Any:
        """The message in these bytes, as that type. Raises any exception when there is none."""


class Body(bytes):
    """The bytes of a message as they are on the wire, and how they are written.

    What is sent as one is not encoded; what is wanted as one comes as it came. So is passed on
    what nobody has to understand, and said in another codec what a dialect has several for.

    Args:
        codec: Its letter; "": that of the port.

    Raises:
        ValueError: that is no letter of 8 bits.
    """

    codec: str

    def __new__(cls, data: bytes, codec: str = "") -> Body:
        if len(codec) > 1 or codec > "\xff":
            raise ValueError(f"{codec!r} is no letter of 8 bits")
        body = super().__new__(cls, data)
        body.codec = codec
        return body


class Refused(FastwayError):
    """A request is not done: what its caller is told, as far as its dialect can say it.

    Args:
        code: A number; 1 to 999 are those of HTTP and of dialects, others are the application's.
        text: A sentence for people.
        data: More, where the dialect has a place for it.
        meta: What goes beside it, or came beside it, where the dialect has that.
    """

    def __init__(self, code: int, text: str = "", data: Any = None, meta: Meta = ()) -> None:
        super().__init__(f"{code}: {text}" if text else str(code))
        self.code = code
        self.text = text
        self.data = data
        self.meta = meta


class NotInDialect(LocalError):
    """A dialect has no way to say that. The text is one line."""


class FrameRefused(LocalError):
    """What is to be sent does not fit the wire: too large, or a name that it cannot carry."""


class BadFrame(RemoteError):
    """A peer sent what its dialect does not know. The text is one line, and of ours."""


class NotLetIn(RemoteError):
    """A peer does not let this end in.

    Attributes:
        refused: What it says why; its words are those of the peer.
    """

    def __init__(self, refused: Refused) -> None:
        super().__init__(f"not let in: {refused.code}")
        self.refused = refused


class PeerSilent(RemoteError):
    """A peer gave no sign of life for `seconds`, longer than its dialect has it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"silent for {seconds:.1f} s")
        self.seconds = seconds


class Hello(NamedTuple):
    """A peer asks to be let in. Nothing more is told before `accept` or `reject`.

    In pomelo it may come again, of a peer that is ready; it is to be decided then as before.

    Attributes:
        user: What it says of itself, decoded; None: nothing.
        data: That as it came, for who wants to look himself.
    """

    user: Any
    data: bytes


class Ready(NamedTuple):
    """The peer may be talked to from now on.

    Attributes:
        user: What a server said along with it, for clients; None otherwise.
    """

    user: Any = None


class Message(NamedTuple):
    """Something is said, or asked if `token` is there.

    Attributes:
        route: What the application calls it.
        body: Its bytes, a copy.
        format: How they are written.
        token: What `reply` and `refuse` want; None: nobody waits for an answer.
        answer_format: How the answer is to be written; None: as the body.
        meta: What came beside it.
        refused: It says that something is not done, and cannot say what; None: it does not.
    """

    route: str
    body: bytes
    format: BodyFormat
    token: Any = None
    answer_format: BodyFormat | None = None
    meta: Meta = ()
    refused: Refused | None = None


class Answer(NamedTuple):
    """What was asked here is answered.

    Attributes:
        key: Which, as `request` told.
        refused: It was not done; then the body says nothing.
        meta: What came beside it.
    """

    key: int
    body: bytes
    format: BodyFormat
    refused: Refused | None = None
    meta: Meta = ()


class Kicked(NamedTuple):
    """The peer says that it ends this.

    Attributes:
        reason: What it says why, decoded; None: nothing.
    """

    reason: Any = None


Event: TypeAlias = "Hello | Ready | Message | Answer | Kicked"


class Wire(Protocol):
    """One connection's state.

    What is sent is one whole unit of the wire in each bytes: one packet, one WebSocket message.
    `now` is in seconds, on a clock of the caller's that never goes back.

    Attributes:
        ready: `Ready` was told: `request` may be called. What `send` gave before goes out then.
        error: What the peer did wrong; nothing more is understood.
        deadline: When `tick` is to be called next; None: never. To be read after each call.
        shape: Where it is equal, `send` gives equal bytes for equal arguments.
        format: How bodies of `send` and `request` are written, but for one that is a Body.
    """

    @property
    def ready(self) -> bool: ...

    @property
    def error(self) -> RemoteError | None: ...

    @property
    def deadline(self) -> float | None: ...

    @property
    def shape(self) -> Hashable: ...

    @property
    def format(self) -> BodyFormat: ...

    def begin(self, now: float) -> None:
        """The connection is made: once, before all else."""

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes of the peer, or b"" to go on after `accept`.

        After a Hello nothing more is told until that is accepted: what came behind it is kept, so
        nothing should be read meanwhile.
        """

    def accept(self, user: Any = None) -> None:
        """Let a peer that said Hello in; `user` is told it, where the dialect has a place.

        Raises:
            FrameRefused: that does not fit.
        """

    def reject(self, refused: Refused) -> None:
        """Do not; the connection is to be closed behind what is to be sent."""

    def send(self, route: str, body: bytes, meta: Meta = ()) -> bytes:
        """Say something.

        Raises:
            FrameRefused: it does not fit.
            NotInDialect: nothing like it can be said this way.
        """

    def request(self, route: str, body: bytes, meta: Meta = ()) -> tuple[int, bytes]:
        """Ask something: its key, under which the Answer comes, 1 or more; and the bytes.

        Raises:
            FrameRefused, NotInDialect: as `send`.
        """

    def forget(self, key: int) -> None:
        """Nobody waits for that answer any more; it is no error if it comes."""

    def reply(self, token: Any, body: bytes, meta: Meta = (), kind: type = bytes) -> bytes:
        """Answer a Message. b"": the dialect says nothing then.

        Args:
            kind: Of what type the answer was; some dialects name it so.

        Raises:
            FrameRefused, NotInDialect: as `send`.
        """

    def refuse(self, token: Any, refused: Refused) -> bytes:
        """Answer a Message that is not done. b"": the dialect has no word for it."""

    def kick(self, reason: Any = None) -> bytes:
        """Say that the connection is to end, and why; b"" where there is no word for it."""

    def tick(self, now: float, deaf: bool = False) -> None:
        """The deadline has come: a heartbeat, or the end of who gave no sign of life.

        Args:
            deaf: The peer is not read from now, so that its silence says nothing.
        """

    def data_to_send(self) -> list[bytes]:
        """What must be written because of what came, or of the time: once, in order."""


@dataclass(frozen=True)
class WebSocketRules:
    """How a dialect goes over WebSocket.

    Attributes:
        text: What is sent are text messages; False: binary ones.
        takes: Kinds of messages that are taken.
        whole: A message that comes is one unit; False: messages are one stream of bytes.
        subprotocols: Names that are agreed to where they are offered.
    """

    text: bool = False
    takes: frozenset[str] = frozenset({"text", "binary"})
    whole: bool = True
    subprotocols: tuple[str, ...] = ()


@dataclass(frozen=True)
class Traits:
    """What a description of an application says of a dialect (`fastway.app.describe`).

    A dialect that has some says so in an attribute `traits`; without it these are the defaults.

    Attributes:
        settings: What both ends have to be set alike in, in JSON.
        codes: Numbers that may stand for names of the wire.
        handshake: How what a peer says of itself is written; None: it says nothing.
        asks: Whom one can ask something: `server`, `client`.
        refused: JSON Schema of an answer that says no; None: the wire says it elsewhere, or not.
        by_type: An answer has the name of its type, if that is none of Python's own.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    codes: Mapping[str, int] = field(default_factory=dict)
    handshake: BodyFormat | None = None
    asks: frozenset[str] = frozenset({"server"})
    refused: Mapping[str, Any] | None = None
    by_type: bool = False


class Dialect(Protocol):
    """What one port, or one client, speaks: its settings.

    Attributes:
        name: What operators call it: `pomelo`.
        websocket: How it goes over WebSocket; None: not at all.
        concurrent: Requests of one session that may run at the same time; 1: in order.
        max_frame: Bytes of a unit that is taken.
    """

    @property
    def name(self) -> str: ...

    @property
    def websocket(self) -> WebSocketRules | None: ...

    @property
    def concurrent(self) -> int: ...

    @property
    def max_frame(self) -> int: ...

    def server(self, *, whole: bool = False) -> Wire:
        """A new wire of who is connected to. `whole`: its transport keeps units apart."""

    def client(self, *, whole: bool = False) -> Wire:
        """A new wire of who connects."""

    def wire_name(self, route: str) -> str:
        """How the wire names a route of the application: "room.join" may be "/room/join".

        Whoever listens or connects asks for all its routes, before anything comes; then `app_name`
        of the name is the route again.

        Raises:
            NotInDialect: it cannot be named there.
        """

    def app_name(self, name: str) -> str:
        """What the application calls a name of the wire: the same for all its spellings."""

"""A WebSocket of a client, the gateway's side: what its request is answered, and the frames
behind it.

    machine = ServerMachine(Policy("/game"))
    payload = machine.receive(data)  # then write data_to_send(), and look at `up` and `ended`
    write(machine.wrap(payload))
    write(machine.close())

Rule: as `machine`; a request is answered here and nowhere else, how long it may take is the
caller's.
"""

from __future__ import annotations

from collections.abc import Callable

from fastway.errors import RemoteError
from fastway.websocket.frames import MAX_FRAME, Frames
from fastway.websocket.machine import Machine
from fastway.websocket.request import HandshakeRefused, Policy, Request, RequestReader, accept


class ServerHandshake:
    """A request until it is answered."""

    __slots__ = ("_policy", "_reader")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._reader = RequestReader()

    def feed(self, data: bytes) -> tuple[Request, bytes] | None:
        """Take bytes of the peer: the request and its answer; None: more is wanted.

        Raises:
            HandshakeRefused: its `answer` is to be sent. Nothing more may be fed.
        """
        found = self._reader.feed(data)
        if found is None:
            return None
        request, rest = found
        answer = accept(request, self._policy)
        if rest:
            raise HandshakeRefused(400, "bytes came behind it before it was answered")
        return request, answer


class ServerMachine(Machine):
    """One WebSocket, from the connection on. One that is refused is sent why.

    Args:
        policy: What requests must ask for.
        limit: Bytes that a frame of the peer may announce.
        asked: Called with a good request before it is answered; it may raise a RemoteError, whose
            `answer` is sent instead.
        frames: Those behind its handshake, if others than streams have; `limit` is theirs then.

    Attributes:
        request: What asked for it, once it is up.
    """

    def __init__(
        self,
        policy: Policy,
        limit: int = MAX_FRAME,
        asked: Callable[[Request], object] | None = None,
        frames: Frames | None = None,
    ) -> None:
        super().__init__(frames or Frames(limit))
        self.request: Request | None = None
        self._handshake = ServerHandshake(policy)
        self._asked = asked

    def _shake(self, data: bytes) -> bytes | None:
        try:
            found = self._handshake.feed(data)
            if found is None:
                return None
            asked, self._asked = self._asked, None  # no cycle
            if asked is not None:
                asked(found[0])
        except RemoteError as error:
            self._out = error.answer
            raise
        self.request, self._out = found
        return b""

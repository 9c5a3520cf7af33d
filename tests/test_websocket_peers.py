"""fastway.websocket beside machines that others wrote: `websockets` and `wsproto` as clients."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, State
from websockets.protocol import Protocol as Websockets
from websockets.uri import parse_uri
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection as Wsproto
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
)
from wsproto.events import Request as WsprotoRequest

from fastway.errors import Reason
from fastway.websocket import Frames, HandshakeRefused, Policy, Request, RequestReader, accept
from tests.support.core import DETERMINISTIC, cut


def found(data: bytes) -> Request:
    """The request in some bytes."""
    result = RequestReader().feed(data)
    assert result is not None
    return result[0]


class Peers(RuleBasedStateMachine):
    """A client of `wsproto` and one of `websockets` send the same to a machine each; both must
    understand whatever that answers."""

    over = True

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    @precondition(lambda self: self.over)
    @rule()
    def begin(self) -> None:
        """New connections, all of them open."""
        self.wsproto = Wsproto(ConnectionType.CLIENT)
        self.websockets = Websockets(CLIENT, state=State.OPEN, max_size=None)
        self.servers = [Frames(), Frames()]
        self.sent = b""
        self.payloads = [b"", b""]
        self.came = [b"", b""]
        self.pushed = b""
        self.pongs: list[list[bytes]] = [[], []]
        self.inside = False
        self.over = False

    def _deliver(self, ours: bytes, theirs: bytes, places: list[int]) -> None:
        for number, data in enumerate((ours, theirs)):
            for piece in cut(data, places):
                frames = self.servers[number]
                self.payloads[number] += frames.receive(piece)
                if frames.pong:
                    pong, frames.pong = frames.pong, b""
                    self._answer(number, pong)

    def _answer(self, number: int, data: bytes) -> None:
        if number == 0:
            self.wsproto.receive_data(data)
            for event in self.wsproto.events():
                if isinstance(event, BytesMessage):
                    self.came[0] += event.data
                elif isinstance(event, Pong):
                    self.pongs[0].append(bytes(event.payload))
        else:
            self.websockets.receive_data(data)
            for read in self.websockets.events_received():
                assert isinstance(read, Frame)
                if read.opcode == Opcode.BINARY:
                    self.came[1] += read.data
                elif read.opcode is Opcode.PONG:
                    self.pongs[1].append(bytes(read.data))

    def _written(self) -> bytes:
        return b"".join(self.websockets.data_to_send())

    @precondition(lambda self: not self.over)
    @rule(data=st.binary(max_size=300), end=st.booleans(), places=st.lists(st.integers(0, 999)))
    def message(self, data: bytes, end: bool, places: list[int]) -> None:
        """A message, or a fragment of one."""
        if self.inside:
            self.websockets.send_continuation(data, fin=end)
        else:
            self.websockets.send_binary(data, fin=end)
        ours = self.wsproto.send(BytesMessage(data=data, message_finished=end))
        self.inside = not end
        self.sent += data
        self._deliver(ours, self._written(), places)

    @precondition(lambda self: not self.over)
    @rule(data=st.binary(max_size=125), places=st.lists(st.integers(0, 999), max_size=2))
    def ping(self, data: bytes, places: list[int]) -> None:
        """A Ping is answered by its own bytes."""
        self.websockets.send_ping(data)
        self._deliver(self.wsproto.send(Ping(payload=data)), self._written(), places)
        for pongs in self.pongs:
            assert pongs.pop() == data and not pongs

    @precondition(lambda self: not self.over)
    @rule(data=st.binary(min_size=1, max_size=70_000))
    def push(self, data: bytes) -> None:
        """What is sent arrives, whatever its size."""
        self.pushed += data
        for number, frames in enumerate(self.servers):
            self._answer(number, frames.wrap(data))

    @precondition(lambda self: not self.over)
    @rule(code=st.sampled_from([1000, 1001, 3000, 4999]), text=st.text(max_size=30))
    def end(self, code: int, text: str) -> None:
        """The clients close, and hear their own code."""
        self.over = True
        self.websockets.send_close(code, text)
        self._deliver(self.wsproto.send(CloseConnection(code, text)), self._written(), [])
        for frames in self.servers:
            assert frames.closed
        self._answer(1, self.servers[1].close(1000))
        assert self.websockets.close_rcvd is not None
        assert self.websockets.close_rcvd.code == code
        self.wsproto.receive_data(self.servers[0].close(1000))
        assert [
            event.code for event in self.wsproto.events() if isinstance(event, CloseConnection)
        ] == [code]

    @precondition(lambda self: not self.over)
    @rule(reason=st.sampled_from(Reason))
    def lose(self, reason: Reason) -> None:
        """The gateway closes, and both read why."""
        self.over = True
        sent = self.servers[0].close(reason.close_code, reason.value)
        self.wsproto.receive_data(sent)
        (event,) = self.wsproto.events()
        assert isinstance(event, CloseConnection)
        assert (event.code, event.reason) == (reason.close_code, reason.value)
        self.websockets.receive_data(sent)
        assert self.websockets.close_rcvd is not None
        assert self.websockets.close_rcvd.reason == reason.value

    @invariant()
    def same(self) -> None:
        """All bytes arrive, in order, in both directions."""
        assert self.payloads == [self.sent, self.sent]
        assert self.came == [self.pushed, self.pushed]
        for frames in self.servers:
            assert frames.error is None


class PeerTests(SynchronousTestCase):
    """Handshakes with machines that others wrote, and then frames."""

    def test_frames(self) -> None:
        """A state machine of hypothesis; see `Peers`."""
        case: Any = Peers.TestCase
        case.settings = settings(DETERMINISTIC, max_examples=60, stateful_step_count=25)
        case("runTest").debug()

    def test_wsproto(self) -> None:
        """wsproto takes the answer."""
        client = WSConnection(ConnectionType.CLIENT)
        asked = client.send(
            WsprotoRequest(host="game.example", target="/ws?x", subprotocols=["fastway"])
        )
        client.receive_data(accept(found(asked), Policy("/ws")))
        (event,) = client.events()
        assert isinstance(event, AcceptConnection)
        self.assertEqual((event.subprotocol, event.extensions), ("fastway", []))

    def test_websockets(self) -> None:
        """websockets takes the answer, and the refusals."""
        for path, state in (("/", State.OPEN), ("/other", State.CONNECTING)):
            client = ClientProtocol(parse_uri(f"ws://game.example{path}"))
            client.send_request(client.connect())
            try:
                answer = accept(found(b"".join(client.data_to_send())), Policy())
            except HandshakeRefused as error:
                answer = error.answer
            client.receive_data(answer)
            client.receive_eof()
            if path == "/":
                self.assertIs(client.handshake_exc, None)
            else:
                self.assertIn("404", str(client.handshake_exc))
            self.assertIs(state is State.OPEN, client.handshake_exc is None)

"""A game server to try a gateway with, and a line client to talk to it: `fastway demo`, `play`.

Rule: both are real peers. They reach the gateway over TCP only and share nothing with it but the
formats of `wire` and `auth`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar, cast

from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.python.usage import Options, UsageError

from fastway.auth import CHALLENGE_SIZE, answer_challenge
from fastway.logs import make_logger
from fastway.wire import (
    HEAD,
    PING,
    Command,
    CommandType,
    FrameReader,
    decode_command,
    encode_close,
    encode_dial,
    encode_packet,
)

log = make_logger(__name__)

CLIENT_ADDR = "127.0.0.1:9010"
SERVER_ADDR = "127.0.0.1:9020"
SERVER_ID = 1
PING_INTERVAL = 10.0
"""Seconds; well below the gateway's idle timeout."""

HELP = (
    "type a line and it comes back; /join NAME enters the chat room, /who lists it, /quit leaves"
)


class Peer(Protocol):
    """One end of the wire: packets in, commands in, a ping now and then."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._pings = LoopingCall(self.transmit, PING)

    def transmit(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def begin(self) -> None:
        """Packets follow from here on."""
        self._pings.start(PING_INTERVAL, now=False)

    def dataReceived(self, data: bytes) -> None:
        for conn_id, frames, count in self._reader.feed(data):
            if not conn_id:
                self.command_received(decode_command(frames))
                continue
            position = 0
            for _ in range(count):
                end = position + 4 + int.from_bytes(frames[position : position + 4], "little")
                self.message_received(conn_id, frames[position + HEAD : end])
                position = end
        if self._reader.error is not None:
            raise self._reader.error

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._pings.running:
            self._pings.stop()

    def command_received(self, command: Command) -> None:
        raise NotImplementedError

    def message_received(self, conn_id: int, message: bytes) -> None:
        raise NotImplementedError


class DemoServer(Peer):
    """Echoes every message; who joins the room talks to all who did."""

    def __init__(self, key: bytes, server_id: int) -> None:
        super().__init__()
        self._key = key
        self._server_id = server_id
        self._challenge: bytes | None = b""
        self._clients: dict[int, int] = {}
        """conn_id -> client id."""
        self._room: dict[int, str] = {}
        """conn_id -> name."""

    def dataReceived(self, data: bytes) -> None:
        if self._challenge is not None:
            self._challenge += data
            if len(self._challenge) < CHALLENGE_SIZE:
                return
            challenge, data = self._challenge[:CHALLENGE_SIZE], self._challenge[CHALLENGE_SIZE:]
            self._challenge = None
            self.transmit(answer_challenge(challenge, self._key, self._server_id))
            self.begin()
        super().dataReceived(data)

    def command_received(self, command: Command) -> None:
        if command.kind is CommandType.CONNECT:
            self._clients[command.conn_id] = command.remote_id
            self._say(command.conn_id, f"welcome, client {command.remote_id}: {HELP}")
        elif command.kind is CommandType.CLOSE:
            self._clients.pop(command.conn_id, None)
            name = self._room.pop(command.conn_id, None)
            if name is not None:
                self._say_all(f"* {name} left")

    def message_received(self, conn_id: int, message: bytes) -> None:
        text = message.decode("utf-8", "replace").strip()
        word, _, rest = text.partition(" ")
        if word == "/join" and rest:
            self._room[conn_id] = rest[:32]
            self._say_all(f"* {rest[:32]} joined")
        elif word == "/who":
            self._say(conn_id, f"* in the room: {', '.join(self._room.values()) or 'nobody'}")
        elif word == "/quit":
            self.transmit(encode_close(conn_id))
        elif conn_id in self._room:
            self._say_all(f"<{self._room[conn_id]}> {text}")
        else:
            self.transmit(encode_packet(conn_id, message))

    def _say(self, conn_id: int, text: str) -> None:
        self.transmit(encode_packet(conn_id, text.encode()))

    def _say_all(self, text: str) -> None:
        for conn_id in self._room:
            self._say(conn_id, text)


class DemoServerFactory(Factory):
    noisy = False

    def __init__(self, key: bytes, server_id: int = SERVER_ID) -> None:
        self.key = key
        self.server_id = server_id

    def buildProtocol(self, addr: IAddress | None) -> DemoServer:
        return DemoServer(self.key, self.server_id)


def demo_server(reactor: Any, host: str, port: int, key: bytes) -> ClientService:
    """The demo game server as a service: connects, and connects again."""
    endpoint = HostnameEndpoint(reactor, host, port)
    return ClientService(endpoint, DemoServerFactory(key), clock=reactor)


class PlayClient(Peer):
    """Dials one server; lines typed are messages, messages are printed.

    Attributes:
        done: Fires with the exit status when it is over.
    """

    QUIET = 1.0
    """Seconds without an answer after which the end of the input ends the client."""

    def __init__(self, reactor: Any, server_id: int) -> None:
        super().__init__()
        self._reactor = reactor
        self._server_id = server_id
        self._conn_id = 0
        self._input_over = False
        self._quiet: Any = None
        self.done: Deferred[int] = Deferred()

    def connectionMade(self) -> None:
        self.begin()
        self.transmit(encode_dial(self._server_id))

    def command_received(self, command: Command) -> None:
        if command.kind is CommandType.ACCEPT:
            self._conn_id = command.conn_id
            StandardIO(LineInput(self), reactor=self._reactor)
        elif command.kind is CommandType.REFUSE:
            self.end(1, f"the gateway refused: no server {self._server_id} there")
        elif command.kind is CommandType.CLOSE and command.conn_id == self._conn_id:
            self.end(0, "closed by the server")

    def message_received(self, conn_id: int, message: bytes) -> None:
        print(message.decode("utf-8", "replace"), flush=True)
        self._rest()

    def line_typed(self, line: bytes) -> None:
        self.transmit(encode_packet(self._conn_id, line))

    def input_over(self) -> None:
        self._input_over = True
        self._rest()

    def _rest(self) -> None:
        if self._input_over:
            if self._quiet is not None and self._quiet.active():
                self._quiet.cancel()
            self._quiet = self._reactor.callLater(self.QUIET, self.end, 0)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.end(1, "the gateway closed the connection")

    def end(self, status: int, why: str = "") -> None:
        if not self.done.called:
            if why:
                print(f"fastway play: {why}", file=sys.stderr)
            self.done.callback(status)


class LineInput(LineReceiver):
    """Standard input, line by line."""

    delimiter = b"\n"

    def __init__(self, client: PlayClient) -> None:
        self._client = client

    def lineReceived(self, line: bytes) -> None:
        self._client.line_typed(line.rstrip(b"\r"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._client.input_over()


class PlayFactory(Factory):
    noisy = False

    def __init__(self, reactor: Any, server_id: int) -> None:
        self._arguments = reactor, server_id

    def buildProtocol(self, addr: IAddress | None) -> PlayClient:
        return PlayClient(*self._arguments)


class PlayOptions(Options):
    synopsis = "[--gateway host:port] [--dial ID]"
    longdesc = "Lines typed are sent to a game server through a gateway; what it says is printed."
    optParameters: ClassVar[list[list[Any]]] = [
        ["gateway", "g", CLIENT_ADDR, "the gateway's client port"],
        ["dial", "d", str(SERVER_ID), "the server id to dial"],
    ]


def play(arguments: Sequence[str]) -> int:
    """`fastway play`; returns the exit status."""
    options = PlayOptions()
    try:
        options.parseOptions(list(arguments))
        host, _, port = options["gateway"].rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise UsageError(f"--gateway: {options['gateway']!r} is not host:port")
        if not options["dial"].isdecimal() or int(options["dial"]) > 0xFFFFFFFF:
            raise UsageError(f"--dial: {options['dial']!r} is not a server id")
    except UsageError as error:
        print(f"fastway play: {error}", file=sys.stderr)
        return 1
    from twisted.internet import reactor

    status = [1]

    def connected(client: PlayClient) -> Deferred[int]:
        print(f"connected to {options['gateway']}, dialled server {options['dial']}", flush=True)
        return client.done

    def failed(failure: Failure) -> int:
        problem = failure.getErrorMessage().rstrip(".")
        print(
            f"fastway play: cannot reach {options['gateway']}: {problem}; is a gateway there?",
            file=sys.stderr,
        )
        return 1

    def over(result: int) -> None:
        status[0] = result
        if getattr(reactor, "running", False):
            reactor.stop()

    endpoint = HostnameEndpoint(reactor, host.strip("[]") or "127.0.0.1", int(port))

    def start() -> None:
        connecting = endpoint.connect(PlayFactory(reactor, int(options["dial"])))
        cast("Deferred[PlayClient]", connecting).addCallbacks(connected, failed).addCallback(over)

    reactor.callWhenRunning(start)
    reactor.run()
    return status[0]

"""Links of an application over WebSocket: each message is one unit of the dialect, or a part of
its stream, as the dialect has it.

Rule: what a link is does not change; here are its handshake, its frames and its close codes.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.interfaces import IAddress, IHandshakeListener, ISSLTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.app.app import App
from fastway.app.bounds import State
from fastway.app.link import Link, Ready
from fastway.dialect import Dialect, WebSocketRules
from fastway.errors import LocalError, NoWebSocket, WebSocketClosed
from fastway.verify import names_nobody
from fastway.websocket.client import ClientMachine, WebSocket
from fastway.websocket.frames import MAX_FRAME
from fastway.websocket.machine import Machine
from fastway.websocket.request import Policy
from fastway.websocket.server import ServerMachine
from fastway.websocket.whole import ClientWholeFrames, WholeFrames

CODES = {"bad_frame": 1002, "failed": 1011, "full": 1013, "silent": 4408}
"""Why a connection is lost -> what its Close says (RFC 6455, section 7.4.1); others say 1008."""

_STOPS = (State.DRAINING, State.STOPPED)


class NoWebSocketDialect(LocalError):
    """A dialect does not go over WebSocket."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(f"{dialect.name} does not go over WebSocket; give tcp: or ssl:")


def rules_of(dialect: Dialect) -> WebSocketRules:
    """How a dialect goes over WebSocket.

    Raises:
        NoWebSocketDialect: it does not.
    """
    rules = dialect.websocket
    if rules is None:
        raise NoWebSocketDialect(dialect)
    return rules


@implementer(IHandshakeListener)
class WebSocketLink(Link):
    """One connection.

    Args:
        machine: Its WebSocket, whose frames are whole ones.
        is_client: This side asks.
    """

    __slots__ = ("_code", "_frames", "_is_client", "_machine")

    def __init__(
        self,
        app: App,
        dialect: Dialect,
        machine: Machine,
        frames: WholeFrames | ClientWholeFrames,
        *,
        is_client: bool = False,
        ready: Ready | None = None,
    ) -> None:
        make = dialect.client if is_client else dialect.server
        super().__init__(app, dialect, make(whole=rules_of(dialect).whole), ready)
        self._machine = machine
        self._frames = frames
        self._is_client = is_client
        self._code = 1000, ""

    def connectionMade(self) -> None:
        self._met()
        if self._is_client and not ISSLTransport.providedBy(self.transport):
            cast(Any, self.transport).write(self._machine.begin())

    def handshakeCompleted(self) -> None:
        """TLS is up; nothing was written before, so nobody has seen what is asked."""
        if not self._is_client:
            return
        if names_nobody(self.transport):
            self.lose("no_websocket", "the server's certificate names nobody")
        else:
            cast(Any, self.transport).write(self._machine.begin())

    def dataReceived(self, data: bytes) -> None:
        machine = self._machine
        if self._gone:
            return
        was_up = machine.up
        machine.receive(data)
        if not was_up:
            self._answer_frames()
            if machine.up:
                self._begin()
        if machine.up:
            for message in self._frames.take():
                super().dataReceived(message)
            if machine.ended is None:
                self._answer_frames(not self._full)
        if machine.ended is not None and not self._gone:
            self._over(machine.ended)  # whose Close goes out behind all else

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if self._machine.up and not self._closing:
            self._answer_frames(not self._full)

    def _answer_frames(self, room: bool = True) -> None:
        """What the WebSocket itself says; the Pong of who does not read waits."""
        answer = self._machine.data_to_send(room)
        if answer and not self._gone:
            cast(Any, self.transport).write(answer)

    def _over(self, ended: Exception) -> None:
        if isinstance(ended, WebSocketClosed):
            self._ends(str(ended))
        elif isinstance(ended, NoWebSocket) or not self._machine.up:
            # Somebody who asked for something else; his answer is on its way.
            self.lose("no_websocket", str(ended), answer=True)
        else:
            self.lose("bad_frame", str(ended), answer=True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._machine.up and self._why is None:
            self._machine.receive_eof()
            self._ends(str(self._machine.ended or reason.getErrorMessage()), closes=False)
        super().connectionLost(reason)

    def lose(
        self, code: str, problem: str, *, answer: bool = False, cause: Exception | None = None
    ) -> None:
        self._code = CODES.get(code, 1008), problem
        super().lose(code, problem, answer=answer, cause=cause)

    def _unit(self, data: bytes) -> bytes:
        return self._machine.wrap(data)

    def pack(self, route: str, message: Any, meta: Any = ()) -> bytes:
        return self._unit(super().pack(route, message, meta))

    @property
    def shape(self) -> Any:
        # What a client sends is masked by chance: no two are the same.
        return (self, None) if self._is_client else ("ws", self.wire.shape)

    def _leave(self) -> None:
        if self._machine.up:
            code, text = self._code
            if code == 1000 and not self._is_client and self.app.state in _STOPS:
                code = 1001  # the server goes away
            said = self._machine.close(code, text)
            if said:
                cast(Any, self.transport).write(said)
        super()._leave()


class WebSocketFactory(Factory):
    """Links of one port.

    Args:
        policy: What a request must ask for.
    """

    noisy = False
    link: type[WebSocketLink] = WebSocketLink

    def __init__(self, app: App, dialect: Dialect, policy: Policy) -> None:
        self.app = app
        self.dialect = dialect
        self.policy = policy
        self._rules = rules_of(dialect)

    def buildProtocol(self, addr: IAddress | None) -> WebSocketLink:
        rules, dialect = self._rules, self.dialect
        limit = dialect.max_frame if rules.whole else MAX_FRAME
        frames = WholeFrames(limit, rules.takes, rules.text, rules.whole)
        machine = ServerMachine(self.policy, frames=frames)
        return self.link(self.app, dialect, machine, frames)


def client_link(
    app: App, dialect: Dialect, wanted: WebSocket, host: str, ready: Ready
) -> WebSocketLink:
    """The link of a client.

    Raises:
        NoWebSocketDialect: the dialect does not go over WebSocket.
        ValueError: that is no host.
    """
    rules = rules_of(dialect)
    limit = dialect.max_frame if rules.whole else MAX_FRAME
    frames = ClientWholeFrames(limit, rules.takes, rules.text, rules.whole)
    machine = ClientMachine(wanted, host, frames=frames)
    return WebSocketLink(app, dialect, machine, frames, is_client=True, ready=ready)

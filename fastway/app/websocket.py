"""Links of an application over WebSocket: each message is one unit of the dialect, or a part of
its stream, as the dialect has it.

Rule: what a link is does not change; here are its handshake, its frames and its close codes.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IProtocolNegotiationFactory,
    ISSLTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.address import host_of
from fastway.app.app import App
from fastway.app.bounds import State
from fastway.app.link import Link, Ready
from fastway.dialect import Dialect, WebSocketRules
from fastway.errors import LocalError, NoWebSocket, WebSocketClosed
from fastway.logs import make_logger
from fastway.networks import peer_of
from fastway.proxy import HeaderReader, HeaderRefused
from fastway.verify import names_nobody
from fastway.websocket.client import ClientMachine, WebSocket
from fastway.websocket.forwarded import ADDRESS_HEADERS, Trusted, forwarded_for
from fastway.websocket.frames import MAX_FRAME
from fastway.websocket.machine import Machine
from fastway.websocket.request import HTTP, Policy, Request
from fastway.websocket.server import ServerMachine
from fastway.websocket.whole import ClientWholeFrames, WholeFrames

log = make_logger("fastway.app")

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


class _Sender:
    """Who a connection is from, where proxies are believed.

    Attributes:
        peer: Who sends its request, as lists of networks know it.
        header: Reads the PROXY header that comes first; None: there is none, or it has come.
        client: Whom a proxy named; empty: nobody, yet.
    """

    __slots__ = ("client", "header", "peer", "trusted")

    def __init__(self, trusted: Trusted, peer: str) -> None:
        self.trusted = trusted
        self.peer = peer
        self.header = HeaderReader() if peer in trusted.senders else None
        self.client = ""

    def read(self, data: bytes) -> bytes:
        """Take bytes from the connection's begin on: those behind a PROXY header.

        Raises:
            HeaderRefused: there is none.
        """
        if self.header is None:
            return data
        found = self.header.feed(data)
        if found is None:
            return b""
        self.header = None
        header, data = found
        if header.source:  # else the proxy speaks for itself
            self.client = header.source
            self.peer = host_of(header.source)
        return data

    def asked(self, request: Request) -> None:
        """Raises HandshakeRefused: what a proxy says can be read in two ways."""
        trusted = self.trusted
        found = forwarded_for(request, self.peer, trusted.proxies, trusted.header)
        self.client = found or self.client

    @property
    def names_nobody(self) -> bool:
        """An HTTP proxy is believed, and has named nobody."""
        return self.peer in self.trusted.proxies and host_of(self.client) in ("", self.peer)


@implementer(IHandshakeListener)
class WebSocketLink(Link):
    """One connection.

    Args:
        machine: Its WebSocket, whose frames are whole ones.
        is_client: This side asks.
        sender: Learns who it is from; None: from the peer itself.
    """

    __slots__ = ("_client", "_code", "_frames", "_is_client", "_machine", "_sender")

    def __init__(
        self,
        app: App,
        dialect: Dialect,
        machine: Machine,
        frames: WholeFrames | ClientWholeFrames,
        *,
        is_client: bool = False,
        ready: Ready | None = None,
        sender: _Sender | None = None,
    ) -> None:
        make = dialect.client if is_client else dialect.server
        super().__init__(app, dialect, make(whole=rules_of(dialect).whole), ready)
        self._machine = machine
        self._frames = frames
        self._is_client = is_client
        self._code = 1000, ""
        self._client = ""
        self._sender = sender

    @property
    def address(self) -> str:
        """As any link's; once it is up that of the client whom a trusted proxy has named."""
        return self._client or super().address

    def _is_from(self, client: str) -> None:
        """A proxy has named the client."""
        self._client = client

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
        if self._sender is not None:
            data = self._learn(self._sender, data)
            if self._gone or self._closing:
                return
        machine.receive(data)
        if not was_up:
            if self._sender is not None:
                self._learned(self._sender)
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

    def _learn(self, sender: _Sender, data: bytes) -> bytes:
        """The bytes behind what a proxy sends first."""
        try:
            return sender.read(data)
        except HeaderRefused as error:
            self.lose("bad_proxy", f"no PROXY header of a proxy of proxyFrom: {error}")
            return b""

    def _learned(self, sender: _Sender) -> None:
        """More is known of who it is from."""
        if sender.client:
            self._is_from(sender.client)
        if not self._machine.up:
            return
        self._sender = None
        if sender.names_nobody:
            self.app.quiet.warn(
                log,
                "proxies that name nobody",
                sender.peer,
                "{via} is one of trustedProxies, and names no client in {header}: sessions have "
                "its own address. It must write that header (trustedProxiesHeader)",
                via=self.address,
                header=ADDRESS_HEADERS[sender.trusted.header],
            )

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


@implementer(IProtocolNegotiationFactory)
class WebSocketFactory(Factory):
    """Links of one port.

    Args:
        policy: What a request must ask for.
        trusted: The proxies that are believed whom a request is from; None: none is.
    """

    noisy = False
    link: type[WebSocketLink] = WebSocketLink

    def __init__(
        self, app: App, dialect: Dialect, policy: Policy, trusted: Trusted | None = None
    ) -> None:
        self.app = app
        self.dialect = dialect
        self.policy = policy
        self.trusted = trusted or Trusted()
        self._rules = rules_of(dialect)

    def acceptableProtocols(self) -> list[bytes]:
        """Inside TLS. Twisted ends a handshake that offers something and finds nothing of it, and
        browsers offer HTTP."""
        return [HTTP]

    def buildProtocol(self, addr: IAddress | None) -> WebSocketLink | None:
        if self._refuses(addr):
            return None
        rules, dialect = self._rules, self.dialect
        limit = dialect.max_frame if rules.whole else MAX_FRAME
        frames = WholeFrames(limit, rules.takes, rules.text, rules.whole)
        sender = None
        if self.trusted.proxies or self.trusted.senders:
            sender = _Sender(self.trusted, peer_of(addr))
        asked = None if sender is None else sender.asked
        machine = ServerMachine(self.policy, asked=asked, frames=frames)
        return self.link(self.app, dialect, machine, frames, sender=sender)

    def _refuses(self, addr: IAddress | None) -> bool:
        """Somebody who is no proxy came, and only these may."""
        trusted = self.trusted
        peer = peer_of(addr)
        if not trusted.senders or trusted.direct or peer in trusted.senders:
            return False
        self.app.counts.lost["bad_proxy"] += 1
        self.app.quiet.info(
            log, "lost (bad_proxy)", peer, "{peer} lost: proxyFrom does not name it", peer=peer
        )
        return True


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

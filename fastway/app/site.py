"""WebSockets and a web server on one port: hotpot's HTTPHandlers, and pages beside their sockets.

    await app.listen("ws:3251", Hotpot(text=True), site=Site(root))

Rule: here is only looked which of both a connection's first request is for, and then it is theirs
alone, bytes and bounds and all: nothing of HTTP is done here.
"""

from __future__ import annotations

import re
from typing import Any, cast

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IProtocolNegotiationFactory,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.app.app import App
from fastway.websocket.request import HTTP, MAX_REQUEST

_UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*\bwebsocket\b", re.IGNORECASE)


@implementer(IProtocolNegotiationFactory)
class SiteFactory(Factory):
    """Connections of such a port.

    Args:
        sockets: Makes protocols for those that ask for a WebSocket,
        site: and for all others.
    """

    noisy = False

    def __init__(self, app: App, sockets: IProtocolFactory, site: IProtocolFactory) -> None:
        self.app = app
        self.sockets = sockets
        self.site = site
        self.undecided: set[_First] = set()

    def startFactory(self) -> None:
        self.site.doStart()

    def stopFactory(self) -> None:
        for one in list(self.undecided):
            cast(Any, one.transport).abortConnection()
        self.site.doStop()

    def acceptableProtocols(self) -> list[bytes]:
        """As a port without a site."""
        return [HTTP]

    def buildProtocol(self, addr: IAddress | None) -> _First:
        return _First(self, addr)


class _First(Protocol):
    """One connection, which is its own until its first request is there, and then another's."""

    def __init__(self, factory: SiteFactory, addr: IAddress | None) -> None:
        self._factory = factory
        self._addr = addr
        self._data = bytearray()
        self._then: IProtocol | None = None
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        factory = self._factory
        factory.undecided.add(self)
        seconds = factory.app.bounds.handshake_timeout
        if seconds:
            abort = cast(Any, self.transport).abortConnection
            self._deadline = factory.app.clock.callLater(seconds, abort)

    def dataReceived(self, data: bytes) -> None:
        if self._then is not None:
            self._then.dataReceived(data)
            return
        searched = max(0, len(self._data) - 3)
        self._data += data
        end = self._data.find(b"\r\n\r\n", searched)
        if end < 0 and len(self._data) < MAX_REQUEST:
            return
        asks = 0 <= end < MAX_REQUEST and _UPGRADE.search(self._data, 0, end) is not None
        self._decide(self._factory.sockets if asks else self._factory.site)

    def _decide(self, whose: IProtocolFactory) -> None:
        self._done()
        data, self._data = bytes(self._data), bytearray()
        then = whose.buildProtocol(cast(IAddress, self._addr))
        if then is None:
            cast(Any, self.transport).abortConnection()
            return
        self._then = then
        then.makeConnection(cast(Any, self.transport))
        then.dataReceived(data)

    def _done(self) -> None:
        self._factory.undecided.discard(self)
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._done()
        if self._then is not None:
            self._then.connectionLost(reason)

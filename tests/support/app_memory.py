"""Connections between two Apps in memory: what is written is there in the next turn of a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from fastway.app import App
from fastway.app.ports import LinkFactory
from fastway.dialect import Dialect


class Half(StringTransport):
    """One end of a connection in memory: what is written is there in the next turn."""

    other: Half
    protocol: Any
    clock: Clock
    ends: type[Exception]

    def write(self, data: bytes) -> None:
        self.clock.callLater(0, self.other.arrives, data)

    def arrives(self, data: bytes) -> None:
        if self.connected:
            self.protocol.dataReceived(data)

    def loseConnection(self) -> None:
        self.clock.callLater(0, self.both_end)

    def abortConnection(self) -> None:
        self.both_end()

    def both_end(self) -> None:
        """The connection is over."""
        for half in (self, self.other):
            if half.connected:
                half.connected = False
                half.protocol.connectionLost(Failure(self.ends()))


@implementer(IStreamClientEndpoint)
class Memory:
    """An endpoint that leads to a port of an App in memory.

    Attributes:
        broken: Attempts are refused.
        ends: What both hear of when a connection is over.
        halves: The clients' ends of the connections that were made.
    """

    def __init__(self, server: App, dialect: Dialect, clock: Clock) -> None:
        self.broken = False
        self.ends: type[Exception] = ConnectionLost
        self.halves: list[Half] = []
        self._factory = LinkFactory(server, dialect)
        self._clock = clock

    def connect(self, factory: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        if self.broken:
            done.errback(ConnectionRefusedError())
            return done
        ours, theirs = Half(), Half()
        ours.other, theirs.other = theirs, ours
        ours.clock = theirs.clock = self._clock
        ours.ends = theirs.ends = self.ends
        ours.protocol = factory.buildProtocol(None)
        theirs.protocol = self._factory.buildProtocol(None)
        theirs.protocol.makeConnection(theirs)
        ours.protocol.makeConnection(ours)
        self.halves.append(ours)
        done.callback(ours.protocol)
        return done

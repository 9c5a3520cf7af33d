"""Connections to a small web server, in memory.

Rule: what came back is read as bytes, by nothing of the program's own.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.protocol import connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from fastway.web import BoundedSite, Channel

Answer = tuple[int, dict[str, str], bytes]


def parsed(data: bytes) -> Answer:
    """An HTTP answer: status, headers, body."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in rest)
    return int(first.split(" ")[1]), headers, body


class Visitor:
    """A connection to the web server, in memory."""

    def __init__(self, site: BoundedSite) -> None:
        self.transport = StringTransport()
        self.channel = cast(Channel, cast(Any, site.buildProtocol(None)))
        self.channel.makeConnection(cast(Any, self.transport))

    @property
    def ended(self) -> bool:
        return self.transport.disconnecting or self.aborted

    @property
    def aborted(self) -> bool:
        return self.transport.disconnected

    def send(self, data: bytes) -> None:
        if not self.ended:
            self.channel.dataReceived(data)

    def gone(self) -> None:
        self.channel.connectionLost(Failure(connectionDone.value))

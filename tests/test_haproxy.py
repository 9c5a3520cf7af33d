"""A proxy in front of a client port: what the page on operations says of HAProxy."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory

from tests.support.golden import PING
from tests.support.logs import LogLines
from tests.support.service import ServiceTestCase
from tests.support.sockets import Peer
from tests.support.waits import reactor, until

HEADER = b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 9010\r\n"


class ProxyTests(ServiceTestCase):
    async def test_address(self) -> None:
        """Over a `haproxy:` port a client goes by the address that the proxy tells."""
        service = self.start("--client-addr", "haproxy:tcp:0:interface=127.0.0.1")
        port: Any = service.ports["client"]
        gateway = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        with LogLines() as log:
            peer: Any = await gateway.connect(Factory.forProtocol(Peer))
            peer.send(HEADER + PING)
            await peer.expect(PING)
            peer.wire.loseConnection()
            await until("its loss", lambda: any(" lost: " in line for line in log.lines))
        (lost,) = [line for line in log.lines if " lost: " in line]
        self.assertIn(" 203.0.113.7:5555 lost: closed by the peer", lost)

"""The gateway's side of an endpoint in memory, on a Clock, in golden bytes.

Rule: it shares no code with fastway; a test either speaks for the gateway itself (`say`, `heard`)
or lets it answer as spec section 4 says (`answer`), with one far end that only knows bytes.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fastway.endpoint import EndpointConfig, GatewayConnection, GatewayFactory, VirtualConnection
from tests.support.ends import LinkTransport
from tests.support.golden import (
    FIRST,
    KEY,
    PING,
    accept,
    close,
    connect,
    packet,
    prove,
    refuse,
    split,
)

AnyError = TypeVar("AnyError")

CHALLENGE = bytes.fromhex("0102030405060708")
"""The challenge of the spec's vectors."""

SERVER_ID = 7
"""The id of an endpoint under test that is a server."""

FAR = 1
"""The id of the one far end that there is."""


class ScriptedFar:
    """The far end: what it got, and what it says."""

    def __init__(self, gateway: ScriptedGateway) -> None:
        self._gateway = gateway
        self.received = bytearray()

    def send(self, data: bytes) -> None:
        for conn_id, message in split(data):
            self._gateway.far_said(conn_id, message)

    async def expect(self, data: bytes) -> None:
        """These bytes come next."""
        self._gateway.answer()
        got = bytes(self.received[: len(data)])
        del self.received[: len(data)]
        if got != data:
            raise AssertionError(f"expected {data[:80]!r}, got {got[:80]!r}")


class ScriptedGateway:
    """An endpoint on a fake transport, and the gateway that it talks to.

    Args:
        config: The endpoint's.
        server_id: The endpoint's, if it is a server; the challenge is not sent yet.

    Attributes:
        endpoint: The endpoint under test, connected.
        clock: What its timers run on.
        far: The one end that can be dialled.
    """

    def __init__(
        self,
        config: EndpointConfig | None = None,
        server_id: int | None = None,
        key: bytes | str = KEY,
    ) -> None:
        self.far = ScriptedFar(self)
        self._me = 1 if server_id is None else server_id
        self._last = FIRST - 1
        self._open: set[int] = set()
        self._held = b""
        self.connect(EndpointConfig() if config is None else config, server_id, key)

    def connect(self, config: EndpointConfig, server_id: int | None, key: bytes | str) -> None:
        """Make the endpoint and connect it."""
        self.clock = Clock()
        self.transport = LinkTransport(peerAddress=IPv4Address("TCP", "192.0.2.9", 9010))
        self.wire = GatewayFactory(config, server_id, key, self.clock).buildProtocol(None)
        self.endpoint: GatewayConnection = self.wire.gateway
        self.wire.makeConnection(cast(Any, self.transport))

    # Speaking for it.

    @property
    def paused(self) -> bool:
        return self.transport.producerState == "paused"

    def say(self, data: bytes) -> None:
        """The endpoint reads `data` in one read, as soon as it reads at all."""
        self._held += data
        if self._held and not self.paused and self.transport.connected:
            data, self._held = self._held, b""
            self.wire.dataReceived(data)

    def heard(self) -> bytes:
        """What the endpoint wrote since the last call."""
        data = cast(bytes, self.transport.value())
        self.transport.clear()
        return data

    def log_in(self) -> None:
        """Challenge a server and take its answer; it takes the ping behind it too."""
        self.say(CHALLENGE)
        heard = self.heard()
        expected = prove(CHALLENGE, self._me) + PING
        if heard != expected:
            raise AssertionError(f"expected {expected.hex()}, got {heard.hex()}")
        self.say(PING)

    def gone(self, error: Exception | None = None) -> None:
        """Its connection is gone: `error` tells how, an orderly close when it is None."""
        self.transport.connected = False
        self.wire.connectionLost(Failure(ConnectionDone() if error is None else error))

    # Letting it answer.

    def answer(self) -> None:
        """Answer all that was heard, as spec section 4 says."""
        while True:
            self.say(b"")
            heard = self.heard()
            if not heard:
                return
            for conn_id, message in split(heard):
                self._endpoint_said(conn_id, message)

    def _both(self, data: bytes) -> None:
        self.far.received += data
        self.say(data)

    def _next(self) -> int:
        self._last += 1
        self._open.add(self._last)
        return self._last

    def _endpoint_said(self, conn_id: int, message: bytes) -> None:
        if conn_id:
            if conn_id in self._open:
                self.far.received += packet(conn_id, message)
            else:
                self.say(close(conn_id))
            return
        number = int.from_bytes(message[1:], "little")
        if message[0] == 0 and number == FAR:
            opened = self._next()
            self.far.received += connect(opened, self._me)
            self.say(accept(opened, FAR))
        elif message[0] == 0:
            self.say(refuse(number))
        elif message[0] == 4:
            self._close(number)
        elif message == b"\5":
            self.say(PING)
        else:
            raise AssertionError(f"an endpoint never sends {message.hex()}")

    def _close(self, conn_id: int) -> None:
        if conn_id in self._open:
            self._open.discard(conn_id)
            self._both(close(conn_id))

    def far_said(self, conn_id: int, message: bytes) -> None:
        """The far end sent a packet: a message, a Close, or a Dial of the endpoint."""
        self.answer()
        if conn_id:
            if conn_id in self._open:
                self.say(packet(conn_id, message))
        elif message[0] == 4:
            self._close(int.from_bytes(message[1:], "little"))
        else:
            opened = self._next()
            self.far.received += accept(opened, self._me)
            self.say(connect(opened, FAR))


class ClockTestCase(SynchronousTestCase):
    """A test case that speaks for the gateway, in golden bytes, on a Clock."""

    def client(self, **config: Any) -> ScriptedGateway:
        config.setdefault("ping_interval", 0)
        return ScriptedGateway(EndpointConfig(**config))

    def server(self, **config: Any) -> ScriptedGateway:
        config.setdefault("ping_interval", 0)
        config.setdefault("control", False)
        return ScriptedGateway(EndpointConfig(**config), SERVER_ID)

    def connected(self, gateway: ScriptedGateway) -> VirtualConnection[Any]:
        gateway.endpoint.dial(1)
        gateway.heard()
        gateway.say(accept(FIRST, 1))
        (conn,) = gateway.endpoint.connections
        return conn

    def assertEnded(
        self, gateway: ScriptedGateway, kind: type[AnyError], abort: bool = False
    ) -> AnyError:
        """The endpoint ended for that reason, leaves no timer, and lets go of its transport."""
        ended = gateway.endpoint.ended
        self.assertIs(type(ended), kind)
        calls = [cast(Any, call).func.__name__ for call in gateway.clock.getDelayedCalls()]
        self.assertIn(calls, ([], ["_lingered"]))  # should the gateway not take the rest
        if gateway.transport.connected:
            self.assertTrue(gateway.transport.disconnecting)
            self.assertEqual(gateway.transport.aborted, abort)
        return cast(AnyError, ended)

"""The endpoint on Twisted: the body of tests against a gateway in memory and against the real one
over TCP, as a client and as a server; then what takes a clock, and what takes a kernel.

Rule: the far end only knows bytes, so both directions are held to the spec.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

import fastway.endpoint as endpoint_library
from fastway.endpoint import (
    EndpointConfig,
    GatewayClient,
    GatewayConnection,
    GatewayFactory,
    GatewayPool,
    Json,
    Overflow,
    Text,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.endpoint.core import EndpointCore
from fastway.errors import (
    ConnectionEnded,
    DialRefused,
    DialTimeout,
    EndpointEnded,
    FastwayError,
    FrameTooLarge,
    LocalError,
    LoginFailed,
    PingTimeout,
    SendQueueFull,
    Truncated,
    Unexpected,
)
from fastway.gateway import PortConfig
from tests.support.endpoint import (
    EndpointBody,
    MemoryWorld,
    ScriptedWorld,
    SocketWorld,
    World,
    many,
)
from tests.support.errors import raised
from tests.support.golden import (
    FIRST,
    KEY,
    PING,
    accept,
    close,
    connect,
    dial,
    packet,
    prove,
    refuse,
)
from tests.support.paths import on_both_paths
from tests.support.rows import ACCEPTED, CLOSED, CONNECTED, HELLO
from tests.support.scripted import (
    CHALLENGE,
    FAR,
    SERVER_ID,
    ClockTestCase,
    ScriptedGateway,
)
from tests.support.sockets import Sockets
from tests.support.waits import reactor, until


class ScriptedClientTests(EndpointBody, TestCase):
    """A client, in memory."""

    async def open(self, **config: Any) -> World:
        return ScriptedWorld(ScriptedGateway(EndpointConfig(**config)), 1)


class ScriptedServerTests(EndpointBody, TestCase):
    """A server, in memory."""

    async def open(self, **config: Any) -> World:
        gateway = ScriptedGateway(EndpointConfig(**config), SERVER_ID)
        gateway.log_in()
        return ScriptedWorld(gateway, SERVER_ID)


class MemoryClientTests(EndpointBody, TestCase):
    """A client of the real gateway without sockets."""

    async def open(self, **config: Any) -> World:
        world = MemoryWorld(False, EndpointConfig(**config))
        self.addCleanup(world.gateway.stop)
        return world


class MemoryServerTests(EndpointBody, TestCase):
    """A server of the real gateway without sockets."""

    async def open(self, **config: Any) -> World:
        # The body's ids are those of a gateway that nobody asks for anything.
        world = MemoryWorld(True, EndpointConfig(**{"control": False, **config}))
        self.addCleanup(world.gateway.stop)
        return world


class SocketTestCase(TestCase):
    """A test case with a real gateway, at whose end every endpoint is gone."""

    relay = False

    def listen(self, **config: Any) -> Sockets:
        sockets = Sockets(relay=self.relay, **config)
        self.addCleanup(sockets.stop)
        return sockets

    async def _gone(self, endpoint: GatewayConnection) -> None:
        endpoint.close()
        await until("the endpoint to be gone", lambda: endpoint.link.gone)

    async def client(self, sockets: Sockets, **config: Any) -> GatewayConnection:
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", sockets.client_port.getHost().port)
        endpoint = await connect_client(where, EndpointConfig(**config))
        self.addCleanup(self._gone, endpoint)
        return endpoint

    async def server(self, sockets: Sockets, key: bytes = KEY, **config: Any) -> GatewayConnection:
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", sockets.server_port.getHost().port)
        config = {"control": False, **config}
        endpoint = await connect_server(where, SERVER_ID, key, EndpointConfig(**config))
        self.addCleanup(self._gone, endpoint)
        return endpoint


@on_both_paths
class SocketClientTests(EndpointBody, SocketTestCase):
    """A client of a real gateway."""

    async def open(self, **config: Any) -> World:
        sockets = self.listen(limits=many())
        endpoint = await self.client(sockets, **config)
        return SocketWorld(sockets, endpoint, await sockets.server(FAR), 1)


@on_both_paths
class SocketServerTests(EndpointBody, SocketTestCase):
    """A server of a real gateway."""

    async def open(self, **config: Any) -> World:
        sockets = self.listen(limits=many())
        far = await sockets.client()
        endpoint = await self.server(sockets, **config)
        return SocketWorld(sockets, endpoint, far, SERVER_ID)


class LoginTests(ClockTestCase):
    """A server's login as the endpoint sees it."""

    def test_golden(self) -> None:
        """The challenge is answered with the proof, the id and a ping, whose answer counts."""
        gateway = self.server()
        ready = gateway.endpoint.when_up()
        gateway.say(CHALLENGE[:5])
        self.assertEqual(gateway.heard(), b"")
        gateway.say(CHALLENGE[5:])
        proof = bytes.fromhex("adcfa1211693e4374b111406c62170c5")
        ping = bytes.fromhex("050000000000000005")
        self.assertEqual(gateway.heard(), proof + b"\7\0\0\0" + ping)
        self.assertNoResult(ready)
        gateway.say(ping)
        self.assertIs(self.successResultOf(ready), gateway.endpoint)
        self.assertIs(self.successResultOf(gateway.endpoint.when_up()), gateway.endpoint)
        self.assertEqual(gateway.endpoint.server_id, SERVER_ID)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_key_as_text(self) -> None:
        """The key may be text, as with asyncio."""
        gateway = ScriptedGateway(EndpointConfig(ping_interval=0), SERVER_ID, KEY.decode())
        gateway.log_in()
        self.assertTrue(gateway.endpoint.up)

    def test_packets_behind_the_challenge(self) -> None:
        """Who dials at once is not lost, and the proof is written before any answer to him."""
        gateway = self.server()
        waiting = gateway.endpoint.accept()
        gateway.say(CHALLENGE + CONNECTED + HELLO)
        conn = self.successResultOf(waiting)
        self.assertEqual(self.successResultOf(conn.receive()), b"Hello")
        conn.send(b"Hello")
        self.assertEqual(gateway.heard(), prove(CHALLENGE, SERVER_ID) + PING + HELLO)

    def test_client_is_ready(self) -> None:
        """A client is ready at once, has no id of its own, and writes nothing unasked."""
        gateway = self.client()
        self.assertIs(self.successResultOf(gateway.endpoint.when_up()), gateway.endpoint)
        self.assertIsNone(gateway.endpoint.server_id)
        self.assertEqual(gateway.heard(), b"")

    def test_no_challenge(self) -> None:
        """A gateway that never sends a challenge fails the login after 5 s."""
        gateway = self.server()
        ready = gateway.endpoint.when_up()
        gateway.clock.advance(4.875)
        self.assertNoResult(ready)
        gateway.clock.advance(0.125)
        error = self.assertEnded(gateway, LoginFailed, abort=True)
        self.assertIn("is that its server port?", str(error))
        self.assertIs(self.failureResultOf(ready).value, error)
        self.assertEqual(gateway.heard(), b"")

    def test_wrong_port(self) -> None:
        """A client that hears a challenge is asked whether it is at the right port; one that has
        heard the gateway is not."""
        challenge = bytes.fromhex("1122334455667788")
        for before, hint in ((b"", True), (CONNECTED, False)):
            gateway = self.client()
            gateway.say(before)
            gateway.say(challenge)
            ended = self.assertEnded(gateway, EndpointEnded, abort=True)
            self.assertEqual("is that its client port?" in str(ended), hint)

    def test_no_answer(self) -> None:
        """A gateway that never answers the proof fails the login, whatever the callback."""
        asked: list[GatewayConnection] = []

        def go_on(endpoint: GatewayConnection) -> bool:
            asked.append(endpoint)
            return True

        gateway = self.server(timeout_callback=go_on)
        gateway.say(CHALLENGE)
        gateway.clock.advance(5)
        self.assertEnded(gateway, LoginFailed, abort=True)
        self.assertEqual(asked, [])

    def test_wrong_key(self) -> None:
        """A gateway that closes after the proof, in whatever way, did not take the login."""
        for error in (None, ConnectionLost()):
            gateway = self.server()
            ready = gateway.endpoint.when_up()
            gateway.say(CHALLENGE)
            gateway.gone(error)
            ended = self.assertEnded(gateway, LoginFailed)
            self.assertIn("is the key right, and the id free?", str(ended))
            self.assertIs(self.failureResultOf(ready).value, ended)
            self.failureResultOf(gateway.endpoint.when_up(), LoginFailed)

    def test_no_handshake(self) -> None:
        """A connection that never came about, over TLS say, is not blamed on the key."""
        gateway = self.server()
        cause = OSError("certificate verify failed")
        gateway.gone(cause)
        ended = self.assertEnded(gateway, EndpointEnded, abort=True)
        self.assertNotIsInstance(ended, LoginFailed)
        self.assertIs(ended.cause, cause)

    def test_cut_challenge(self) -> None:
        """A stream that ends inside the challenge is told as such."""
        gateway = self.server()
        gateway.say(CHALLENGE[:3])
        gateway.gone()
        self.assertIsInstance(self.assertEnded(gateway, EndpointEnded).cause, Truncated)

    def test_given_up(self) -> None:
        """Cancelling the wait for the login ends the endpoint."""
        gateway = self.server()
        ready = gateway.endpoint.when_up()
        ready.cancel()
        self.failureResultOf(ready, CancelledError)
        self.assertEnded(gateway, EndpointEnded)

    def test_too_early(self) -> None:
        """What would be taken for the login's answer is refused, and nothing is written."""
        gateway = self.server()
        raised(LocalError, gateway.endpoint.dial, 1)
        raised(LocalError, gateway.endpoint.ping)
        gateway.log_in()
        gateway.endpoint.dial(1)
        self.assertEqual(gateway.heard(), dial(1))
        unconnected = GatewayFactory(clock=gateway.clock).buildProtocol(None).gateway
        raised(LocalError, unconnected.dial, 1)
        raised(LocalError, unconnected.ping)

    def test_closed_while_connecting(self) -> None:
        """An endpoint that is closed before it is connected lets go of the connection."""
        made: list[GatewayConnection] = []
        for server_id in (None, 1):
            clock = ScriptedGateway().clock
            factory = GatewayFactory(server_id=server_id, clock=clock, made=made.append)
            wire = factory.buildProtocol(None)
            endpoint = wire.gateway
            self.assertIs(made.pop(), endpoint)
            endpoint.close()
            transport = ScriptedGateway().transport
            wire.makeConnection(cast(Any, transport))
            self.assertTrue(transport.aborted)
            self.failureResultOf(endpoint.when_up(), EndpointEnded)


class DialClockTests(ClockTestCase):
    """Dials against the clock, and against what comes in the same read."""

    def test_timeout(self) -> None:
        """A dial that is not answered in time fails; accepted later, it is closed at once."""
        gateway = self.client()
        waiting = gateway.endpoint.dial(1, timeout=2)
        patient = gateway.endpoint.dial(1)
        self.assertEqual(gateway.heard(), dial(1) * 2)
        gateway.clock.advance(1.875)
        self.assertNoResult(waiting)
        gateway.clock.advance(0.125)
        error = self.failureResultOf(waiting, DialTimeout).value
        self.assertIsInstance(error, TimeoutError)
        self.assertEqual((error.remote_id, error.seconds), (1, 2))
        gateway.say(ACCEPTED + HELLO)
        self.assertEqual(gateway.heard(), CLOSED)
        self.assertEqual(gateway.endpoint.connections, [])
        gateway.say(CLOSED + accept(FIRST + 1, 1))
        self.assertEqual(self.successResultOf(patient).conn_id, FIRST + 1)
        self.assertIsNone(gateway.endpoint.ended)

    def test_timer_goes(self) -> None:
        """An answer, a cancel and the endpoint's end each stop a dial's timer."""
        gateway = self.client()
        for answer in (accept(FIRST, 1), refuse(1)):
            waiting = gateway.endpoint.dial(1, timeout=2)
            gateway.say(answer)
            waiting.addErrback(lambda failure: failure.trap(DialRefused))
            self.assertEqual(gateway.clock.getDelayedCalls(), [])
        waiting = gateway.endpoint.dial(1, timeout=2)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])
        waiting = gateway.endpoint.dial(1, timeout=2)
        gateway.endpoint.close()
        self.failureResultOf(waiting, EndpointEnded)
        self.assertEnded(gateway, EndpointEnded)

    def test_given_up_in_the_same_read(self) -> None:
        """A dial given up by what came just before its Accept leaves no connection behind."""
        gateway = self.client()
        first, second = gateway.endpoint.dial(1), gateway.endpoint.dial(2)
        first.addErrback(lambda failure: second.cancel())
        gateway.heard()
        gateway.say(refuse(1) + accept(FIRST, 2))
        self.failureResultOf(second, CancelledError)
        self.assertEqual(gateway.heard(), CLOSED)
        self.assertEqual(gateway.endpoint.connections, [])

    def test_reply_to_one_who_left(self) -> None:
        """Replying to a message whose sender closed in the same read is ConnectionEnded."""
        gateway = self.client()
        conn = self.connected(gateway)
        replied = conn.receive().addCallback(conn.send)
        gateway.say(HELLO + CLOSED)
        self.failureResultOf(replied, ConnectionEnded)
        self.assertEqual(gateway.heard(), b"")
        self.assertIsNone(gateway.endpoint.ended)

    def test_closed_in_the_same_read(self) -> None:
        """Closing the endpoint in a callback drops the rest of the read."""
        gateway = self.client()
        conn = self.connected(gateway)
        conn.receive().addCallback(lambda _: gateway.endpoint.close())
        gateway.say(HELLO * 2 + connect(FIRST + 1, 1) + b"\0\0\0\0")
        self.assertIsNone(self.assertEnded(gateway, EndpointEnded).cause)
        self.assertEqual(gateway.endpoint.connections, [])
        gateway.say(HELLO)
        self.failureResultOf(conn.receive(), ConnectionEnded)

    def test_wrong_ids(self) -> None:
        """What is no id is refused here, and nothing is written or waited for."""
        gateway = self.client()
        for number in (-1, 2**32):
            raised(ValueError, gateway.endpoint.dial, number)
        for wrong in ("1", None, 1.5):
            raised(TypeError, gateway.endpoint.dial, wrong)
        self.assertEqual(gateway.heard(), b"")
        gateway.endpoint.close()
        self.assertEnded(gateway, EndpointEnded)


class EndTests(ClockTestCase):
    """How an endpoint ends."""

    def test_broken_protocol(self) -> None:
        """A gateway that breaks the protocol is aborted; what it said before still counts."""
        broken: list[tuple[bytes, type[FastwayError]]] = [
            (b"\xff\xff\xff\xff", FrameTooLarge),
            (close(FIRST + 1), Unexpected),
            (refuse(1), Unexpected),
        ]
        for data, kind in broken:
            gateway = self.client()
            conn = self.connected(gateway)
            over = gateway.endpoint.when_ended()
            gateway.say(HELLO + data + HELLO)
            error = self.assertEnded(gateway, EndpointEnded, abort=True)
            self.assertIsInstance(error.cause, kind)
            self.assertIs(self.successResultOf(over), error)
            self.assertEqual(self.successResultOf(conn.receive()), b"Hello")
            failed = self.failureResultOf(conn.receive(), ConnectionEnded).value
            self.assertIs(failed.cause, error)

    def test_connection_lost(self) -> None:
        """A connection that breaks is the cause, an orderly end has none, a cut packet has."""
        lost = ConnectionLost()
        for error, data in ((lost, b""), (None, b""), (None, HELLO[:5])):
            gateway = self.client()
            self.connected(gateway)
            gateway.say(data)
            gateway.gone(error)
            cause = self.assertEnded(gateway, EndpointEnded).cause
            if data:
                self.assertIsInstance(cause, Truncated)
            else:
                self.assertIs(cause, error)

    def test_close_writes_what_was_sent(self) -> None:
        """Closing is orderly: what was sent is written before."""
        gateway = self.client()
        conn = self.connected(gateway)
        conn.send(b"Hello")
        gateway.endpoint.close()
        self.assertEnded(gateway, EndpointEnded)
        self.assertEqual(gateway.heard(), HELLO)
        gateway.gone()
        self.assertIn("closed here", str(gateway.endpoint.ended))

    def test_frames(self) -> None:
        """A reason that is told again and again, or to many, does not gather their frames."""
        gateway = self.server(accept_queue=3)
        gateway.log_in()
        gateway.say(connect(FIRST, 1) + connect(FIRST + 1, 1))
        endpoint = gateway.endpoint
        conn, other = (self.successResultOf(endpoint.accept()) for _ in range(2))
        told: list[FastwayError] = []

        async def hears(wait: Callable[[], Any]) -> None:
            try:
                await wait()
            except FastwayError as error:
                told.append(error)

        def length(error: FastwayError) -> int:
            return len(traceback.extract_tb(error.__traceback__))

        for wait in (endpoint.ping, endpoint.accept, conn.receive, lambda: endpoint.dial(1)):
            for _ in range(20):
                ensureDeferred(hears(wait))
        gateway.gone()
        self.assertEqual(len(told), 80)
        for wait in (endpoint.accept, other.receive, endpoint.ping, lambda: endpoint.dial(1)):
            for _ in range(20):
                ensureDeferred(hears(wait))
        self.assertEqual(len(told), 160)
        self.assertLess(max(map(length, told)), 15)


class BackpressureTests(ClockTestCase):
    """Sending while the transport is full."""

    def test_waits(self) -> None:
        """`send` fires at once until the transport is full, then when it has drained."""
        gateway = self.client()
        conn = self.connected(gateway)
        self.successResultOf(conn.send(b"a"))
        gateway.transport.stuck = True
        filling = conn.send(b"b")
        waiting = conn.send(b"c")
        self.assertNoResult(filling)
        self.assertNoResult(waiting)
        gateway.transport.drain()
        self.assertIsNone(self.successResultOf(filling))
        self.assertIsNone(self.successResultOf(waiting))
        self.successResultOf(conn.send(b"d"))
        self.assertEqual(
            gateway.heard(),
            b"".join(packet(FIRST, message) for message in (b"a", b"b", b"c", b"d")),
        )

    def test_queue_full(self) -> None:
        """`send_buffer` bytes may be sent without waiting, one more raises and sends nothing."""
        for size, fits in ((41, True), (42, True), (43, False)):
            gateway = self.client(send_buffer=100)
            conn = self.connected(gateway)
            gateway.transport.fill()
            waiting = [conn.send(bytes(42))]
            if fits:
                waiting.append(conn.send(bytes(size)))
            else:
                error = raised(SendQueueFull, conn.send, bytes(size))
                self.assertEqual((error.waiting, error.limit), (50, 100))
            gateway.heard()
            gateway.transport.drain()
            for one in waiting:
                self.successResultOf(one)
            gateway.transport.fill()
            waiting = [conn.send(bytes(92))]
            raised(SendQueueFull, conn.send, b"")
            gateway.transport.drain()
            self.successResultOf(waiting[0])
            self.assertIsNone(conn.ended)

    def test_one_at_a_time(self) -> None:
        """A sender who waits never has more than one message queued."""
        gateway = self.client(send_buffer=100)
        conn = self.connected(gateway)
        gateway.transport.fill()

        async def sender() -> None:
            for number in range(20):
                await conn.send(bytes([number]) * 90)

        sending = ensureDeferred(sender())
        for number in range(20):
            self.assertEqual(gateway.heard(), packet(FIRST, bytes([number]) * 90))
            self.assertNoResult(sending)
            gateway.transport.drain_once()
        self.successResultOf(sending)

    def test_end(self) -> None:
        """Who waits to send when the endpoint ends is told why."""
        gateway = self.client()
        conn = self.connected(gateway)
        gateway.transport.fill()
        waiting = conn.send(b"x")
        gateway.gone(ConnectionLost())
        error = self.failureResultOf(waiting, EndpointEnded).value
        self.assertIs(error, self.assertEnded(gateway, EndpointEnded))

    def test_control_is_not_bounded(self) -> None:
        """A dial, a close and a ping go out however much waits."""
        gateway = self.client(send_buffer=0)
        conn = self.connected(gateway)
        gateway.transport.fill()
        raised(SendQueueFull, conn.send, b"")
        gateway.endpoint.dial(2)
        gateway.endpoint.ping()
        conn.close()
        self.assertEqual(gateway.heard(), dial(2) + PING + CLOSED)


class PingTests(ClockTestCase):
    """Pings against the clock."""

    def test_interval(self) -> None:
        """A ping goes out each interval after the last answer, for a client and a server."""
        for make in (self.client, self.server):
            gateway = make(ping_interval=8, ping_timeout=2)
            if make == self.server:
                gateway.log_in()
            for _ in range(3):
                gateway.clock.advance(7.875)
                self.assertEqual(gateway.heard(), b"")
                gateway.clock.advance(0.125)
                self.assertEqual(gateway.heard(), PING)
                gateway.clock.advance(1.5)
                gateway.say(PING)
                self.assertEqual(gateway.endpoint.round_trip, 1.5)
            self.assertIsNone(gateway.endpoint.ended)

    def test_none(self) -> None:
        """Without an interval nothing is sent unasked; an asked one has 5 s to be answered."""
        gateway = self.client()
        gateway.clock.advance(10000)
        self.assertEqual(gateway.heard(), b"")
        asked = gateway.endpoint.ping()
        self.assertEqual(gateway.heard(), PING)
        gateway.clock.advance(4.5)
        gateway.say(PING)
        self.assertEqual(self.successResultOf(asked), 4.5)
        asked = gateway.endpoint.ping()
        gateway.clock.advance(5)
        self.failureResultOf(asked, PingTimeout)

    def test_timeout(self) -> None:
        """A ping that is not answered ends the endpoint; messages are no answer."""
        gateway = self.client(ping_interval=8, ping_timeout=2)
        conn = self.connected(gateway)
        waiting = conn.receive()
        gateway.clock.advance(8)
        gateway.say(HELLO)
        self.successResultOf(waiting)
        gateway.clock.advance(1.875)
        self.assertIsNone(gateway.endpoint.ended)
        gateway.clock.advance(0.125)
        error = self.assertEnded(gateway, PingTimeout, abort=True)
        self.assertEqual(error.seconds, 2)
        self.assertIs(self.failureResultOf(conn.receive()).value.cause, error)

    def test_callback(self) -> None:
        """The callback is asked with the endpoint: True goes on pinging, False ends it."""
        answers = [True, True, False]
        asked: list[GatewayConnection] = []

        def callback(endpoint: GatewayConnection) -> bool:
            asked.append(endpoint)
            return answers[len(asked) - 1]

        gateway = self.client(ping_interval=8, ping_timeout=2, timeout_callback=callback)
        for times in (1, 2):
            gateway.clock.advance(8)
            self.assertEqual(gateway.heard(), PING)
            gateway.clock.advance(2)
            self.assertEqual(asked, [gateway.endpoint] * times)
            self.assertIsNone(gateway.endpoint.ended)
        gateway.clock.advance(8)
        gateway.clock.advance(2)
        self.assertEqual(len(asked), 3)
        self.assertEnded(gateway, PingTimeout, abort=True)

    def test_callback_closes(self) -> None:
        """A callback may close the endpoint, whatever it returns."""
        for answer in (True, False):

            def callback(endpoint: GatewayConnection, answer: bool = answer) -> bool:
                endpoint.close()
                return answer

            gateway = self.client(ping_interval=8, ping_timeout=2, timeout_callback=callback)
            gateway.clock.advance(8)
            gateway.clock.advance(2)
            self.assertEnded(gateway, EndpointEnded)

    def test_late_answer(self) -> None:
        """A late answer belongs to the ping that it answers."""
        gateway = self.client(ping_interval=8, ping_timeout=2, timeout_callback=lambda _: True)
        gateway.clock.advance(8)
        gateway.clock.advance(2)
        gateway.clock.advance(8)
        self.assertEqual(gateway.heard(), PING * 2)
        gateway.clock.advance(1)
        gateway.say(PING)
        self.assertEqual(gateway.endpoint.round_trip, 11)
        gateway.say(PING)
        self.assertEqual(gateway.endpoint.round_trip, 1)

    def test_unasked(self) -> None:
        """An answer to no ping changes nothing."""
        gateway = self.client(ping_interval=8)
        gateway.say(PING)
        self.assertIsNone(gateway.endpoint.round_trip)
        gateway.clock.advance(8)
        self.assertEqual(gateway.heard(), PING)

    def test_paused(self) -> None:
        """While this end does not read, pings go on and no timeout is raised; later it is."""
        gateway = self.client(
            ping_interval=8,
            ping_timeout=2,
            receive_queue=1,
            overflow=Overflow.PAUSE,
            pause_timeout=60,
        )
        conn = self.connected(gateway)
        gateway.say(HELLO * 2)
        self.assertTrue(gateway.paused)
        for _ in range(3):
            gateway.clock.advance(8)
            self.assertEqual(gateway.heard(), PING)
            gateway.say(PING)
            gateway.clock.advance(2)
            self.assertIsNone(gateway.endpoint.ended)
        for _ in range(2):
            self.successResultOf(conn.receive())
        self.assertFalse(gateway.paused)
        gateway.say(b"")
        self.assertEqual(gateway.endpoint.round_trip, 2)
        gateway.clock.advance(8)
        gateway.clock.advance(2)
        self.assertEnded(gateway, PingTimeout, abort=True)

    def test_just_resumed(self) -> None:
        """The answer may be behind what was not read: reading again gives it time."""
        gateway = self.client(
            ping_interval=8, ping_timeout=2, receive_queue=1, overflow=Overflow.PAUSE
        )
        conn = self.connected(gateway)
        gateway.clock.advance(8)
        gateway.say(HELLO * 2)
        gateway.clock.advance(1.5)
        for _ in range(2):
            self.successResultOf(conn.receive())
        gateway.clock.advance(0.5)
        self.assertIsNone(gateway.endpoint.ended)
        gateway.say(PING)
        self.assertEqual(gateway.endpoint.round_trip, 2)


class PauseTests(ClockTestCase):
    """Overflow.PAUSE, where the kernel cannot blur it."""

    def test_bounds(self) -> None:
        """It pauses past the bound, not at it, and reads again at half of it."""
        for limit in (1, 2, 3, 4):
            gateway = self.client(receive_queue=limit, overflow=Overflow.PAUSE)
            conn = self.connected(gateway)
            gateway.say(HELLO * limit)
            self.assertFalse(gateway.paused)
            gateway.say(HELLO)
            self.assertTrue(gateway.paused)
            left = limit + 1
            while gateway.paused:
                self.successResultOf(conn.receive())
                left -= 1
            self.assertEqual(left, limit // 2)

    def test_two(self) -> None:
        """It reads again only when no connection has too many."""
        gateway = self.client(receive_queue=1, overflow=Overflow.PAUSE)
        gateway.say(CONNECTED + connect(FIRST + 1, 1) + HELLO * 2 + packet(FIRST + 1) * 2)
        one, two = gateway.endpoint.connections
        for _ in range(2):
            self.successResultOf(one.receive())
        self.assertTrue(gateway.paused)
        two.close()
        self.assertFalse(gateway.paused)
        self.assertEqual(gateway.heard(), close(FIRST + 1))

    def test_end_while_paused(self) -> None:
        """An endpoint may end while it is paused; what it had is still received."""
        gateway = self.client(receive_queue=1, overflow=Overflow.PAUSE)
        conn = self.connected(gateway)
        gateway.say(HELLO * 2)
        gateway.endpoint.close()
        self.assertEnded(gateway, EndpointEnded)
        for _ in range(2):
            self.successResultOf(conn.receive())
        self.failureResultOf(conn.receive(), ConnectionEnded)


class NamesTests(ClockTestCase):
    """Names from before 0.2 mean what they meant."""

    def test_classes(self) -> None:
        """The module has the old names; what is none is told."""
        self.assertIs(cast(Any, endpoint_library).Endpoint, GatewayConnection)
        self.assertIs(cast(Any, endpoint_library).EndpointFactory, GatewayFactory)
        for name in endpoint_library.__all__:
            self.assertIsNotNone(getattr(endpoint_library, name))
        raised(AttributeError, getattr, endpoint_library, "Endpoints")

    def test_members(self) -> None:
        """when_closed, when_ready, ready, gateway and conn.endpoint."""
        gateway = self.server()
        endpoint = gateway.endpoint
        self.assertFalse(endpoint.ready)
        ready, over = endpoint.when_ready(), endpoint.when_closed()
        gateway.log_in()
        self.assertTrue(endpoint.ready)
        self.assertIs(self.successResultOf(ready), endpoint)
        self.assertEqual(endpoint.gateway, endpoint.address)
        self.assertEqual(endpoint.address.host, "192.0.2.9")
        conn = self.connected(gateway)
        self.assertIs(conn.endpoint, conn.gateway)
        self.assertIs(conn.gateway, endpoint)
        gone = conn.when_closed()
        gateway.gone()
        self.assertIs(self.successResultOf(over), endpoint.ended)
        self.assertIs(self.successResultOf(gone), conn.ended)
        self.assertTrue(endpoint.up)
        self.assertIn("as server 7, ended", repr(endpoint))


class OwnFormatTests(ClockTestCase):
    """A message format of a connection's own."""

    def test_dialled(self) -> None:
        """`dial` chooses it before anything is received, also for what came in the same read."""
        gateway = self.client(message_format=Text())
        with_own: Deferred[VirtualConnection[Any]] = gateway.endpoint.dial(
            1, message_format=Json()
        )
        without = gateway.endpoint.dial(1)
        gateway.heard()
        gateway.say(ACCEPTED + packet(FIRST, b"[1]") + accept(FIRST + 1, 1))
        gateway.say(packet(FIRST + 1, b"[1]"))
        one, two = self.successResultOf(with_own), self.successResultOf(without)
        self.assertEqual(self.successResultOf(one.receive()), [1])
        self.assertEqual(self.successResultOf(two.receive()), "[1]")
        one.send({"a": 2})
        two.send("b")
        self.assertEqual(gateway.heard(), packet(FIRST, b'{"a":2}') + packet(FIRST + 1, b"b"))
        failed: Deferred[VirtualConnection[Any]] = gateway.endpoint.dial(2, message_format=Json())
        gateway.say(refuse(2))
        self.failureResultOf(failed, DialRefused)

    def test_chosen_later(self) -> None:
        """What waited is decoded in the format that the connection has when it is received."""
        gateway = self.server(message_format=Text())
        gateway.log_in()
        gateway.say(CONNECTED + packet(FIRST, b"[1]") + packet(FIRST, b"[2]"))
        conn = self.successResultOf(gateway.endpoint.accept())
        conn.message_format = Json()
        self.assertEqual(self.successResultOf(conn.receive()), [1])
        conn.message_format = Text()
        self.assertEqual(self.successResultOf(conn.receive()), "[2]")
        waiting = conn.receive()
        conn.message_format = Json()
        gateway.say(packet(FIRST, b"[3]"))
        self.assertEqual(self.successResultOf(waiting), [3])

    def test_cancelled(self) -> None:
        """A dial with a format can be given up like any other."""
        gateway = self.client()
        dialling: Deferred[VirtualConnection[Any]] = gateway.endpoint.dial(
            1, timeout=5, message_format=Json()
        )
        dialling.cancel()
        self.failureResultOf(dialling, CancelledError)
        gateway.heard()
        gateway.say(ACCEPTED)
        self.assertEqual(gateway.heard(), CLOSED)
        self.assertEqual(gateway.clock.getDelayedCalls(), [])


class ConfigTests(ClockTestCase):
    """What cannot be asked for."""

    def test_values(self) -> None:
        """A value that cannot work is refused with the option's name; the bounds are allowed."""
        bad: list[tuple[str, Any]] = [
            ("ping_interval", -1),
            ("ping_interval", 1800.5),
            ("ping_timeout", 0),
            ("ping_timeout", -1),
            ("receive_queue", 0),
            ("accept_queue", 0),
            ("max_packet", 12),
            ("overflow", "pause"),
        ]
        for name, value in bad:
            error = raised(ValueError, lambda: EndpointConfig(**{name: value}))  # noqa: B023
            self.assertIn(name, str(error))
        EndpointConfig(ping_interval=1800, receive_queue=1, accept_queue=1, max_packet=13)
        EndpointConfig(ping_interval=0, ping_timeout=0)

    def test_server_id(self) -> None:
        """A server id that is none is refused when the endpoint is made."""
        raised(ValueError, GatewayFactory, server_id=2**32)
        raised(ValueError, GatewayPool, {}, -1)

    def test_kinds(self) -> None:
        """What is of another kind is refused where it is given, by an error that says so."""
        gateways: Any = []
        where: Any = "127.0.0.1:9010"
        conn = self.client().endpoint
        coroutine = asyncio.sleep(0)
        calls: list[tuple[str, Callable[[], object]]] = [
            ("the key is bytes or text", lambda: GatewayFactory(server_id=1, key=cast(Any, None))),
            ("the key is bytes or text", lambda: GatewayPool({}, 1, cast(Any, 1))),
            ("a server id is a whole number", lambda: GatewayFactory(server_id=cast(Any, "1"))),
            ("a gateway is a client endpoint", lambda: connect_client(where)),
            ("a gateway is a client endpoint", lambda: connect_server(where, 1)),
            ("a gateway is a client endpoint", lambda: GatewayPool({"a": where}, 1)),
            ("a gateway is a client endpoint", lambda: GatewayPool({}, 1).add("a", where)),
            ("a gateway is a client endpoint", lambda: GatewayClient([where])),
            ("gateways is a list of them", lambda: GatewayClient(where)),
            ("gateways is a dict of names", lambda: GatewayPool(gateways, 1)),
            ("gateways is a dict of names", lambda: GatewayPool({}, 1).set_gateways(gateways)),
            ("an id is a whole number", lambda: conn.dial(cast(Any, "1"))),
            ("a handler is a function", lambda: conn.serve(cast(Any, None))),
            ("a handler is a function", lambda: conn.serve(cast(Any, coroutine))),
        ]
        for words, call in calls:
            self.assertIn(words, str(raised(TypeError, call)))
        coroutine.close()
        self.assertIsNone(conn.ended)

    def test_text_key(self) -> None:
        """A key may be text here too."""
        proofs = []
        for key in ("grün", "grün".encode()):
            core = EndpointCore(server_id=1, key=key)
            core.receive_data(CHALLENGE)
            proofs.append(core.data_to_send())
        self.assertEqual(proofs[0], proofs[1])


@on_both_paths
class SocketTests(SocketTestCase):
    """What takes a real gateway and a kernel."""

    async def test_wrong_key(self) -> None:
        """A wrong key is LoginFailed, not a lost connection."""
        sockets = self.listen()
        try:
            await self.server(sockets, b"guess")
        except LoginFailed as error:
            self.assertIn("key", str(error))
        else:
            self.fail("it logged in")

    async def test_nobody_listens(self) -> None:
        """Without a gateway, connecting fails as the Twisted endpoint does."""
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await port.stopListening()
        for connecting in (connect_client(where), connect_server(where, 1)):
            try:
                await connecting
            except ConnectionRefusedError:
                continue
            self.fail("it connected")

    async def test_cancelled_login(self) -> None:
        """Giving up a login that is under way closes its connection."""
        ends: list[Silent] = []

        class Silent(Protocol):
            over = False

            def connectionMade(self) -> None:
                ends.append(self)

            def connectionLost(self, reason: Any = None) -> None:
                self.over = True

        listening = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await listening.listen(Factory.forProtocol(Silent))
        self.addCleanup(cast(Any, port).stopListening)
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", cast(Any, port).getHost().port)
        connecting = connect_server(where, 1)
        await until("the connection", lambda: ends)
        connecting.cancel()
        try:
            await connecting
        except (CancelledError, EndpointEnded):
            pass
        else:
            self.fail("it logged in")
        await until("the end", lambda: ends[0].over)

    async def test_gateway_stops(self) -> None:
        """When the gateway stops, both ends are told."""
        sockets = self.listen()
        client, server = await self.client(sockets), await self.server(sockets)
        ends = [client.when_ended(), server.when_ended()]
        await sockets.stop()
        for end in ends:
            self.assertIsInstance(await end.addTimeout(2, reactor), EndpointEnded)

    async def test_backpressure(self) -> None:
        """A far end that does not read makes `send` wait, and loses nothing when it reads."""
        sockets = self.listen(server=PortConfig(queue_bytes=256 * 1024))
        far = await sockets.server(FAR)
        endpoint = await self.client(sockets, send_buffer=128 * 1024)
        conn = await endpoint.dial(FAR)
        await far.expect(CONNECTED)
        far.wire.pauseProducing()
        message = bytes(32 * 1024)
        sent, waiting = 0, None
        while waiting is None or waiting.called:
            if waiting is not None:
                await waiting
            waiting = conn.send(message)
            sent += 1
            if sent % 8 == 0 and not endpoint.link.full:
                await until("a turn", lambda: True)
        unsent = [waiting]
        try:
            while True:
                unsent.append(conn.send(message))
                sent += 1
        except SendQueueFull as error:
            self.assertLessEqual(error.waiting, 128 * 1024)
        far.wire.resumeProducing()
        await gatherResults(unsent).addTimeout(5, reactor)
        await far.expect(packet(FIRST, message) * sent)

    async def test_both_ends(self) -> None:
        """50 virtual connections at once, both ends endpoints, 2000 random messages each way."""
        sockets = self.listen(limits=many())
        client, server = await self.client(sockets), await self.server(sockets)
        chance = random.Random(2)
        sent: dict[int, list[bytes]] = defaultdict(list)

        async def echo(conn: VirtualConnection[Any]) -> None:
            async for message in conn:
                await conn.send(message)

        def accepted(conn: VirtualConnection[Any]) -> None:
            echoes.append(ensureDeferred(echo(conn)))

        echoes: list[Deferred[None]] = []
        server.listen(accepted)
        conns = await gatherResults([client.dial(SERVER_ID) for _ in range(25)])
        back = [await server.dial(1) for _ in range(25)]
        for conn in back:
            conn.state = "ours"
        client.listen(None)
        theirs = [await client.accept() for _ in range(25)]
        for conn in theirs:
            accepted(conn)
        ours = conns + back
        self.assertEqual(len({conn.conn_id for conn in ours}), 50)
        for _ in range(2000):
            conn = chance.choice(ours)
            message = chance.randbytes(chance.choice((0, 3, 60, 2000)))
            sent[conn.conn_id].append(message)
            await conn.send(message)
        for conn in ours:
            got = [await conn.receive().addTimeout(2, reactor) for _ in sent[conn.conn_id]]
            self.assertEqual(got, sent[conn.conn_id])
            conn.close()
        await gatherResults(echoes).addTimeout(2, reactor)
        self.assertEqual((client.connections, server.connections), ([], []))

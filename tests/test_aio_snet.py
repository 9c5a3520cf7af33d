"""snet on asyncio: the stream's promises across cuts, the list of checks of any transport,
attempts against a listening side that fails them, and the library over it.

Rule: the listening side and the proxy are Twisted's, in this process; the loop turns with the
reactor. A test waits for what must come, never for a time to pass.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
from typing import Any, cast

from twisted.internet import ssl as twisted_ssl
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from fastway import kernel
from fastway.aio import (
    EndpointConfig,
    Gateway,
    NetworkCut,
    NetworkLost,
    NetworkResumed,
    SnetConfig,
    connect_client,
    connect_server,
)
from fastway.aio import snet as aio_snet
from fastway.aio.snet import Stream, open_stream
from fastway.errors import EndpointEnded, GatewayUnreachable, Reason, StreamLost
from fastway.snet import stream as stream_module
from fastway.snet.listen import SnetServerEndpoint
from fastway.snet.stream import StreamConnectionLost
from fastway.wheel import Wheel
from tests.support import checks
from tests.support.aio import Turns
from tests.support.aio_cases import new_uvloop, uvloop
from tests.support.checks import check_transport
from tests.support.files import scratch
from tests.support.gateways import OneOf
from tests.support.golden import KEY
from tests.support.snet import Resumable
from tests.support.snet_sockets import Proxy
from tests.support.snet_streams import SnetCase, StreamBody, reason_of
from tests.support.sockets import Sockets
from tests.support.tapes import Tape, arrival, ends, noise
from tests.support.tls import make_certificate
from tests.support.waits import SECONDS, later, reactor, turns, until


class ShownStream:
    """A stream as Twisted's protocols know their transport, as far as the checks ask."""

    def __init__(self, raw: Stream) -> None:
        self.raw = raw
        self.aborted = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def loseConnection(self) -> None:
        self.raw.close()

    def abortConnection(self) -> None:
        if not self.raw.is_closing():
            self.aborted = True
        self.raw.abort()

    def pauseProducing(self) -> None:
        self.raw.pause_reading()

    def resumeProducing(self) -> None:
        self.raw.resume_reading()


class TapeRider:
    """Lets a Tape run over an asyncio stream."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.full = False

    def connection_made(self, transport: Any) -> None:
        self.tape.makeConnection(cast(Any, ShownStream(transport)))

    def data_received(self, data: bytes) -> None:
        self.tape.dataReceived(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            exc = ConnectionAborted() if self.tape.wire.aborted else ConnectionDone()
        elif isinstance(exc, StreamLost):  # as the listening side, Twisted's, says it
            exc = StreamConnectionLost(exc.reason, exc.detail)
        self.tape.connectionLost(Failure(exc))

    def pause_writing(self) -> None:
        assert not self.full
        self.full = True

    def resume_writing(self) -> None:
        assert self.full
        self.full = False

    def stream_cut(self) -> None:
        if isinstance(self.tape, Resumable):
            self.tape.stream_cut()

    def stream_resumed(self, seconds: float, replayed: int) -> None:
        if isinstance(self.tape, Resumable):
            self.tape.stream_resumed(seconds, replayed)


def soon(failures: int) -> float:
    return min(0.002 * failures, 0.02)


class AioSnetCase(SnetCase):
    """A listening side of Twisted's, dialled by asyncio's."""

    def setUp(self) -> None:
        self.turns = Turns(self.make_loop())
        self.addCleanup(self._close_loop)
        self.turns.drive()

    def make_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def _close_loop(self) -> None:
        self.assertEqual(self.turns.stop(), [])

    async def open(self, gateway: Gateway, tape: Tape, **config: Any) -> Stream:
        opening = open_stream(gateway, SnetConfig(**config), TapeRider(tape), soon)
        return await self.turns.start(opening).addTimeout(SECONDS, reactor)

    async def dial(self, port: int | None = None, **config: Any) -> Resumable:
        tape = Resumable()
        await self.open(Gateway("127.0.0.1", port or self.port), tape, **config)

        async def leave() -> None:
            tape.wire.abortConnection()
            await ends(tape)

        self.addCleanup(lambda: Deferred.fromCoroutine(leave()))
        await until("the other end", lambda: len(self.served.tapes) > 0)
        return tape


class AioBodyTests(StreamBody, AioSnetCase):
    """Cuts, with asyncio's dialling side."""

    async def test_chaos(self) -> None:
        """100 cuts under load both ways, in every way, change no byte."""
        await self.cuts(True, 3, 100, 1_500_000)


class UvloopBodyTests(AioBodyTests):
    """The same on uvloop."""

    if uvloop is None:
        skip = "uvloop is missing"

    def make_loop(self) -> asyncio.AbstractEventLoop:
        return new_uvloop()


class CheckTests(AioSnetCase):
    """The list of checks, over connections that hold."""

    async def check(self, server: Any, client: Any, encrypt: bool, listening_first: bool) -> None:
        # A close is no word of snet: the listening side waits for the peer to come back.
        config = SnetConfig(encrypt=encrypt, wait_timeout=0.03)
        self.patch(stream_module, "LINGER", 1.0)
        self.patch(aio_snet, "LINGER", 1.0)
        ports: list[Any] = []

        async def stop() -> None:
            for port in ports:
                await maybeDeferred(port.stopListening)

        async def make_pair(one: Protocol, two: Protocol) -> None:
            await stop()
            ports.clear()
            dials, listens = (two, one) if listening_first else (one, two)
            port = await SnetServerEndpoint(server, reactor, config).listen(OneOf(listens))
            ports.append(port)
            cast(Any, port).snet.wheel = Wheel(reactor, 0.01)
            opening = open_stream(
                client(port.getHost()),
                config,
                TapeRider(cast(Tape, dials)),
                lambda failures: 0.005,
            )
            await self.turns.start(opening)
            await until("the other end", lambda: listens.transport is not None)

        try:
            await check_transport(
                self, make_pair, checks.NOT_ON_ASYNCIO, told=StreamConnectionLost
            )
        finally:
            await stop()

    async def test_tcp(self) -> None:
        """Over TCP, plain, a stream passes the checks."""
        server = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        await self.check(server, lambda host: Gateway("127.0.0.1", host.port), False, False)

    async def test_tcp_encrypted_listening_end_first(self) -> None:
        """The checks hold with the listening end in the other role, encrypted."""
        server = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        await self.check(server, lambda host: Gateway("127.0.0.1", host.port), True, True)

    async def test_unix(self) -> None:
        """Over a unix socket a stream passes the checks."""
        path = os.path.join(scratch(self), "s")
        await self.check(
            UNIXServerEndpoint(reactor, path), lambda host: Gateway(path=path), False, False
        )

    async def test_tls(self) -> None:
        """Over TLS a stream passes the checks."""
        own = make_certificate()
        server = SSL4ServerEndpoint(reactor, 0, own.options(), interface="127.0.0.1")
        context = ssl.create_default_context(
            cadata=twisted_ssl.Certificate.loadPEM(own.dumpPEM()).dumpPEM().decode()
        )

        def client(host: Any) -> Gateway:
            return Gateway("127.0.0.1", host.port, tls=context, server_name="localhost")

        await self.check(server, client, False, False)


class AttemptTests(AioSnetCase):
    """The first connection, and what else can go wrong with one."""

    async def fails(self, opening: Any) -> GatewayUnreachable:
        try:
            await self.turns.start(opening).addTimeout(SECONDS, reactor)
        except GatewayUnreachable as error:
            self.assertNotIn("\n", str(error))
            return error
        raise AssertionError("it connected")

    async def test_nobody_listens(self) -> None:
        """Without a listener it is GatewayUnreachable, with the address."""
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        gateway = Gateway("127.0.0.1", number, snet=SnetConfig())
        error = await self.fails(open_stream(gateway, SnetConfig(), TapeRider(Resumable())))
        self.assertIn(f"snet://127.0.0.1:{number}: ", str(error))
        self.assertIsInstance(error.cause, ConnectionRefusedError)

    async def test_no_snet(self) -> None:
        """A peer that closes, or that says nothing in time, speaks no snet."""

        class Closing(Protocol):
            def connectionMade(self) -> None:
                cast(Any, self.transport).loseConnection()

        for protocol, word in ((Closing, "closed in the middle"), (Protocol, "no answer within")):
            factory = Factory.forProtocol(protocol)
            factory.noisy = False
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            config = SnetConfig(init_timeout=0.2)
            gateway = Gateway("127.0.0.1", port.getHost().port)
            error = await self.fails(open_stream(gateway, config, TapeRider(Resumable())))
            self.assertIn(word, str(error))

    async def test_cancelled(self) -> None:
        """A dial that is cancelled leaves no stream, whenever it is."""
        await self.listen()
        for count in range(12):
            tape = Resumable()
            gateway = Gateway("127.0.0.1", self.port)
            opening = open_stream(gateway, SnetConfig(), TapeRider(tape))
            task = self.turns.loop.create_task(opening)
            for _ in range(count):
                self.turns.turn(1)
                await later(0)
            if task.done():
                task.result().abort()
            task.cancel()
            await until("its end", task.done)
            if tape.transport is not None:
                await ends(tape)
        await until("nobody", lambda: not self.snet.handshakes)
        live = [one for one in self.snet.streams.values() if one.cut_since is None]
        await until("all cut", lambda: all(one.cut_since is not None for one in live))

    async def test_not_resumed(self) -> None:
        """Past its wait timeout a stream is lost, on this side too; attempts end with it."""
        await self.listen()
        proxy = self.proxy()
        tape = await self.dial(proxy.port, wait_timeout=0.3)
        proxy.down = True
        proxy.cut()
        await ends(tape)
        self.assertIs(reason_of(tape), Reason.NOT_RESUMED)
        self.assertEqual(tape.events, ["cut"])
        total = proxy.total
        proxy.down = False
        await turns()
        self.assertEqual(proxy.total, total)

    async def test_unread_is_bounded(self) -> None:
        """While it is not read from, it holds 64 KiB and a read, and later all comes in order."""
        await self.listen(echo=False, buffer=1 << 20)
        proxy = self.proxy()
        tape = await self.dial(proxy.port, buffer=1 << 20)
        (two,) = self.served.tapes
        tape.wire.pauseProducing()
        two.wire.write(noise(500_000))
        for number in range(6):
            await turns()
            tape.wire.resume_now()
            await until("it", lambda: len(tape.events) >= 2 * number + 2)  # noqa: B023
            self.assertLessEqual(tape.wire.unread, 64 * 1024 + 256 * 1024)
        self.assertEqual(tape.received, b"")
        tape.wire.resumeProducing()
        await arrival(tape, noise(500_000))

    async def test_bounded_on_its_way(self) -> None:
        """Never more than `buffer` bytes are unacknowledged, and a slow peer makes it full."""
        await self.listen(echo=False)
        tape = await self.dial()
        (two,) = self.served.tapes
        stream = tape.wire.raw
        two.wire.pauseProducing()
        most = 0
        for _ in range(300):
            tape.wire.write(noise(10_000))
            await later(0)
            acked = stream.acked
            assert acked is not None
            most = max(most, stream.session.wrote - acked)
        self.assertGreater(most, 0)
        self.assertLessEqual(most, 32 * 1024)
        self.assertGreater(stream.pending, 0)
        two.wire.resumeProducing()
        await arrival(two, noise(10_000) * 300)

    async def test_writes_behind_a_break(self) -> None:
        """What is written before the break is told goes with the resume; asyncio logs nothing."""
        await self.listen()
        tape = await self.dial()
        tape.wire.get_extra_info("socket").shutdown(socket.SHUT_WR)
        with self.assertNoLogs("asyncio"):
            for _ in range(20):
                tape.wire.write(b"0123456789")
        await arrival(tape, b"0123456789" * 20)
        self.assertIn("cut", tape.events)

    async def test_replay_is_on_its_way(self) -> None:
        """What is sent again counts as on its way: with it, no more than `buffer` bytes are."""
        self.patch(kernel, "acked_bytes", lambda sock: 0)
        await self.listen(echo=False)
        proxy = self.proxy()
        tape = await self.dial(proxy.port)
        (two,) = self.served.tapes
        proxy.freeze()
        tape.wire.write(noise(20_000))
        await turns()
        tape.wire.write(noise(22_000))
        tape.wire.resume_now()
        await until("a bufferful", lambda: len(two.received) >= 32_000)
        await turns()
        self.assertLessEqual(len(two.received), 32 * 1024)
        self.assertTrue((noise(20_000) + noise(22_000)).startswith(two.received))

    async def test_a_faulty_rider(self) -> None:
        """What a rider raises ends its stream, and is logged; nothing else notices."""
        await self.listen()
        faulty, well = await self.dial(), await self.dial()

        def fault(data: bytes) -> None:
            raise RuntimeError("a fault")

        faulty.on_data = fault
        with self.assertLogs("fastway", "ERROR") as logs:
            faulty.wire.write(b"x")
            await ends(faulty)
        self.assertIn("a fault", logs.output[0])
        await self.echoes(well, b"still here")


WIDE = SnetConfig(buffer=1 << 20)
"""The proxy acknowledges for itself: what is on its way is more than the kernel knows."""


class LibraryTests(AioSnetCase):
    """The library over snet, with a gateway whose client port speaks it."""

    async def listen_gateway(self) -> tuple[Sockets, Proxy]:
        sockets = Sockets()
        self.addCleanup(sockets.stop)
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port: Any = await SnetServerEndpoint(endpoint, reactor, WIDE).listen(sockets.clients)

        async def stop() -> None:
            await maybeDeferred(port.stopListening)
            for stream in list(port.snet.streams.values()):
                stream.abortConnection()
            await until("no stream", lambda: not port.snet.streams and not port.snet.handshakes)

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        proxy = Proxy(port.getHost().port)
        self.addCleanup(lambda: Deferred.fromCoroutine(proxy.stop()))
        return sockets, proxy

    async def run_aio(self, coroutine: Any) -> Any:
        return await self.turns.start(coroutine).addTimeout(SECONDS, reactor)

    async def test_cuts(self) -> None:
        """Messages come once and in order through cuts, and the application is told of them."""
        sockets, proxy = await self.listen_gateway()
        events: list[Any] = []

        async def echo(conn: Any) -> None:
            async for message in conn:
                await conn.send(message)

        async def main() -> list[bytes]:
            server_port = sockets.server_port.getHost().port
            config = EndpointConfig(network_callback=lambda _, event: events.append(event))
            async with (
                connect_server(f"127.0.0.1:{server_port}", 1, KEY) as server,
                connect_client(Gateway("127.0.0.1", proxy.port, snet=WIDE), config) as client,
            ):
                server.serve(echo)
                self.assertIn("127.0.0.1", str(client.address))
                conn = await client.dial(1)
                chance = random.Random(4)
                sent = [chance.randbytes(chance.choice((1, 100, 5000))) for _ in range(300)]

                async def write() -> None:
                    for message in sent:
                        await conn.send(message)

                writing = asyncio.create_task(write())
                got = []
                for number in range(len(sent)):
                    got.append(await conn.receive())
                    if number % 30 == 15:
                        proxy.cut(number // 30)
                        while len(events) < 2 * (number // 30 + 1):
                            await asyncio.sleep(0)
                await writing
                self.assertEqual(got, sent)
            return got

        await self.run_aio(main())
        self.assertEqual([type(event) for event in events], [NetworkCut, NetworkResumed] * 10)

    async def test_lost(self) -> None:
        """When it cannot be resumed the connection ends with the StreamLost."""
        _, proxy = await self.listen_gateway()
        events: list[Any] = []

        async def main() -> EndpointEnded:
            gateway = Gateway("127.0.0.1", proxy.port, snet=SnetConfig(wait_timeout=0.2))
            config = EndpointConfig(network_callback=lambda _, event: events.append(event))
            async with connect_client(gateway, config) as client:
                proxy.down = True
                proxy.cut()
                return cast(EndpointEnded, await client.when_ended())

        reason = await self.run_aio(main())
        assert isinstance(reason.cause, StreamLost)
        self.assertIs(reason.cause.reason, Reason.NOT_RESUMED)
        self.assertEqual([type(event) for event in events], [NetworkCut, NetworkLost])

    async def test_dead_network(self) -> None:
        """A ping that is not answered in time makes it resume; the connection lives on."""
        _, proxy = await self.listen_gateway()
        events: list[Any] = []

        async def main() -> None:
            config = EndpointConfig(
                network_callback=lambda _, event: events.append(event),
                ping_interval=0.2,
                ping_timeout=0.2,
            )
            async with connect_client(f"snet://127.0.0.1:{proxy.port}", config) as client:
                await client.ping()
                proxy.freeze()
                while len(events) < 2:
                    await asyncio.sleep(0.01)
                self.assertGreaterEqual(await client.ping(), 0)

        await self.run_aio(main())
        self.assertEqual([type(event) for event in events], [NetworkCut, NetworkResumed])

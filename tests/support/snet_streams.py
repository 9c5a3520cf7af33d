"""What a stream promises across cuts, whoever dials it: tests over real sockets, with a listening
side and a proxy that cuts.

Rule: a test waits for what must come, never for a time to pass.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from fastway.errors import Reason, StreamLost
from fastway.snet.config import LINGER, SnetConfig
from fastway.snet.dial import SnetClientEndpoint
from fastway.snet.listen import SnetFactory, SnetPort, SnetServerEndpoint
from fastway.snet.session import Fault
from tests.support.gateways import OneOf
from tests.support.snet import Resumable
from tests.support.snet_sockets import Proxy, RawClient, raw_client
from tests.support.tapes import Tape, arrival, ends, noise
from tests.support.waits import SECONDS, later, reactor, turns, until


def reason_of(tape: Tape) -> Reason:
    """Why its stream was lost."""
    (loss,) = tape.losses
    assert isinstance(loss.value, StreamLost), loss
    return loss.value.reason


class Served(Factory):
    """Makes Resumables, which echo if they are to.

    Attributes:
        tapes: All that it made.
    """

    noisy = False

    def __init__(self, echo: bool) -> None:
        self.echo = echo
        self.tapes: list[Resumable] = []

    def buildProtocol(self, addr: Any) -> Resumable:
        tape = Resumable()
        if self.echo:
            tape.on_data = lambda data: tape.wire.write(data)
        self.tapes.append(tape)
        return tape


class SnetCase(TestCase):
    """A listening side on a real port, and all that connects to it, gone at the end."""

    async def listen(self, echo: bool = True, **config: Any) -> Served:
        self.served = Served(echo)
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        server = SnetServerEndpoint(endpoint, reactor, SnetConfig(**config))
        self.listening = cast(SnetPort, await server.listen(self.served))
        self.snet: SnetFactory = self.listening.snet
        self.addCleanup(lambda: Deferred.fromCoroutine(self.leave()))
        return self.served

    @property
    def port(self) -> int:
        return cast(int, cast(Any, self.listening.getHost()).port)

    async def leave(self) -> None:
        await maybeDeferred(self.listening.stopListening)
        for stream in list(self.snet.streams.values()):
            stream.abortConnection()
        await until(
            "all connections to be gone",
            lambda: not self.snet.handshakes and not self.snet.streams,
            SECONDS,
        )
        await turns(5)

    def proxy(self) -> Proxy:
        proxy = Proxy(self.port)
        self.addCleanup(lambda: Deferred.fromCoroutine(proxy.stop()))
        return proxy

    async def dial(self, port: int | None = None, **config: Any) -> Resumable:
        """A stream of the dialling side."""
        tape = Resumable()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port if port is None else port)
        client = SnetClientEndpoint(
            endpoint, reactor, SnetConfig(**config), lambda failures: min(0.002 * failures, 0.02)
        )
        await client.connect(OneOf(tape))

        async def leave() -> None:
            tape.wire.abortConnection()
            await ends(tape)

        self.addCleanup(lambda: Deferred.fromCoroutine(leave()))
        await until("the other end", lambda: len(self.served.tapes) > 0)
        return tape

    async def raw(self) -> RawClient:
        client = await raw_client(self.port)

        async def leave() -> None:
            if client.ended is None:
                client.wire.abortConnection()
            await until("its end", lambda: client.ended, SECONDS)

        self.addCleanup(lambda: Deferred.fromCoroutine(leave()))
        return client

    async def says(self, client: RawClient, data: bytes) -> None:
        """The raw client's stream is alive: its words come back."""
        client.send(client.script.send(data))
        self.assertEqual(await client.take(len(data)), data)

    async def echoes(self, tape: Resumable, data: bytes) -> None:
        """The stream is alive: its words come back."""
        tape.received.clear()
        tape.wire.write(data)
        await arrival(tape, data)


if TYPE_CHECKING:
    Body = SnetCase
else:
    Body = object


class StreamBody(Body):
    """Cuts in the middle of everything, and how streams end; spec "Where this project does better
    than the original", 3."""

    async def cuts(self, encrypt: bool, seed: int, count: int = 40, amount: int = 400_000) -> None:
        """Both sides write `amount` bytes, never more ahead than the window, over `count` cuts."""
        buffer = 16 * 1024
        await self.listen(echo=False, encrypt=encrypt, buffer=buffer)
        proxy = self.proxy()
        one = await self.dial(proxy.port, encrypt=encrypt, buffer=buffer)
        (two,) = self.served.tapes
        rng = random.Random(seed)
        sent = {tape: bytearray() for tape in (one, two)}
        pairs = ((one, two), (two, one))
        cuts = 0
        deadline = reactor.seconds() + SECONDS
        while any(len(there.received) < amount for _, there in pairs):
            self.assertEqual([one.losses, two.losses], [[], []], f"after {cuts} cuts")
            self.assertLess(reactor.seconds(), deadline, f"after {cuts} cuts")
            for here, there in pairs:
                ahead = len(sent[here]) - len(there.received)
                size = min(rng.choice((1, 100, 3000, 9000)), amount - len(sent[here]))
                if size and ahead + size <= buffer:
                    piece = rng.randbytes(size)
                    sent[here] += piece
                    here.wire.write(piece)
            done = min(len(there.received) for _, there in pairs)
            if cuts < count and done >= cuts * amount // (count + 5) and proxy.pairs:
                proxy.cut(rng.randrange(3))
                cuts += 1
                if cuts % 8 == 0:
                    one.wire.resume_now()
            await later(rng.choice((0.0, 0.0, 0.001)))
        self.assertEqual(two.received, sent[one])
        self.assertEqual(one.received, sent[two])
        stats = self.snet.stats
        self.assertEqual(cuts, count)
        self.assertGreater(stats.resumed, count // 2)
        self.assertGreater(stats.replayed, 0)
        self.assertEqual(stats.made, 1)

    async def test_3_many_cuts(self) -> None:
        """Many cuts in a row while both sides write lose and duplicate nothing."""
        await self.cuts(False, 1)

    async def test_3_many_cuts_encrypted(self) -> None:
        """Many cuts in a row while both sides write encrypted lose and duplicate nothing."""
        await self.cuts(True, 2)

    async def test_3_much_on_its_way(self) -> None:
        """A burst far over the replay buffer survives a cut in its middle, whoever made it."""
        for who in range(3):
            await self.listen(echo=False)
            one = await self.dial()
            (two,) = self.served.tapes
            data = noise(2_000_000)
            one.wire.write(data)
            two.wire.write(data[::-1])
            for count in (200_000, 700_000):
                while len(two.received) < count and not two.losses:
                    await later(0)
                if who == 0:
                    one.wire.resume_now()
                else:
                    for stream in self.snet.streams.values():
                        assert stream.carrier is not None
                        transport = cast(Any, stream.carrier.transport)
                        transport.abortConnection() if who == 1 else transport.loseConnection()
            await arrival(two, data)
            await arrival(one, data[::-1])
            await self.leave()

    async def test_refused_when_late(self) -> None:
        """Who comes back after the wait timeout is refused: NOT_RESUMED on the listening side,
        RESUME_REFUSED on the dialling one."""
        await self.listen(wait_timeout=0.1)
        proxy = self.proxy()
        one = await self.dial(proxy.port)
        (two,) = self.served.tapes
        proxy.down = True
        proxy.cut()
        await ends(two)
        self.assertIs(reason_of(two), Reason.NOT_RESUMED)
        self.assertEqual(one.losses, [])
        proxy.down = False
        await ends(one)
        self.assertIs(reason_of(one), Reason.RESUME_REFUSED)
        self.assertEqual(self.snet.stats.refused, {Fault.UNKNOWN_STREAM: 1})
        self.assertEqual(self.snet.stats.ended, 1)

    async def test_outage(self) -> None:
        """After an outage shorter than the wait timeout both sides get what was written in it."""
        await self.listen(echo=False, encrypt=True)
        proxy = self.proxy()
        one = await self.dial(proxy.port, encrypt=True)
        (two,) = self.served.tapes
        proxy.down = True
        proxy.cut(1)
        await until("the cuts", lambda: one.events and two.events)
        one.wire.write(noise(100_000))
        two.wire.write(noise(200_000))
        taken = proxy.total
        await turns()
        proxy.down = False
        await arrival(two, noise(100_000))
        await arrival(one, noise(200_000))
        self.assertGreaterEqual(proxy.total, taken)
        self.assertEqual([len(one.events), len(two.events)], [2, 2])
        self.assertEqual(
            two.wire.getPeer().port, cast(Any, proxy.pairs[-1].far).transport.getHost().port
        )

    async def close(self, listening_first: bool) -> None:
        """One end closes while the other one writes without end."""
        await self.listen(echo=False)
        one = await self.dial()
        (two,) = self.served.tapes
        closes, other = (two, one) if listening_first else (one, two)
        other.wire.write(b"x" * 1000)
        await arrival(closes, b"x" * 1000)
        other.on_data = lambda data: other.wire.write(b"answer")
        closes.wire.write(b"goodbye")
        other.wire.write(b"y" * 10)
        closes.wire.loseConnection()
        before = reactor.seconds()
        await ends(closes)
        self.assertLess(reactor.seconds() - before, LINGER)
        self.assertEqual([loss.type for loss in closes.losses], [ConnectionDone])
        await arrival(other, b"goodbye")
        self.assertEqual(self.snet.stats.resumed, 0)
        self.assertEqual([closes.events, other.events], [[], ["cut"]])

    async def test_close_by_the_listening_side(self) -> None:
        """A close of the listening side whose bytes have arrived is over at once, though the other
        end was writing: it is no cut here, and nobody comes back for it."""
        await self.close(True)

    async def test_close_by_the_dialling_side(self) -> None:
        """A close of the dialling side whose bytes have arrived is over at once, though the other
        end was writing: it is no cut here, and nobody comes back for it."""
        await self.close(False)

    async def test_close_delivers_across_a_cut(self) -> None:
        """What was written before a close arrives though the connection breaks on its way."""
        await self.listen(echo=False)
        proxy = self.proxy()
        one = await self.dial(proxy.port)
        (two,) = self.served.tapes
        proxy.freeze()
        one.wire.write(noise(20_000))
        two.wire.write(noise(10_000))
        await turns()
        one.wire.resume_now()
        two.wire.loseConnection()
        await arrival(one, noise(10_000))
        await ends(two)
        self.assertEqual([loss.type for loss in two.losses], [ConnectionDone])

    async def test_paused_reader(self) -> None:
        """A reader who pauses across many cuts gets all, in order, once it reads."""
        await self.listen(echo=False)
        proxy = self.proxy()
        one = await self.dial(proxy.port)
        (two,) = self.served.tapes
        two.wire.pauseProducing()
        sent = b""
        for number in range(5):
            piece = noise(3000 + number)
            sent += piece
            one.wire.write(piece)
            await turns(5)
            one.wire.resume_now()
            while self.snet.stats.resumed == number and not two.losses:
                await later(0)
        self.assertEqual(two.received, b"")
        two.wire.resumeProducing()
        await arrival(two, sent)

    async def test_stop_listening(self) -> None:
        """After stopListening live streams go on; one that is cut, or was, is lost at once, as
        nobody can come back."""
        await self.listen(wait_timeout=60.0)
        proxy = self.proxy()
        live, cut = await self.dial(), await self.dial(proxy.port)
        await until("both", lambda: len(self.served.tapes) == 2)
        other, gone = self.served.tapes
        half_done = await self.raw()
        half_done.send(b"\0")
        await until("it", lambda: len(self.snet.handshakes) == 1)
        proxy.down = True
        proxy.cut()
        await until("the cut", lambda: self.snet.waiting)
        await maybeDeferred(self.listening.stopListening)
        await ends(gone)
        self.assertIs(reason_of(gone), Reason.NOT_RESUMED)
        await until("its end", lambda: half_done.ended)
        await self.echoes(live, b"still here")
        live.wire.resume_now()
        await ends(other)
        self.assertIs(reason_of(other), Reason.NOT_RESUMED)
        self.assertEqual([live.losses, cut.losses], [[], []])
        self.assertEqual([self.snet.streams, self.snet.waiting], [{}, {}])

    async def test_many_streams(self) -> None:
        """Each of many streams over one cut proxy gets its own bytes."""
        await self.listen(encrypt=True)
        proxy = self.proxy()
        tapes = [await self.dial(proxy.port, encrypt=True) for _ in range(15)]
        await until("all", lambda: len(self.served.tapes) == 15)
        for number, tape in enumerate(tapes):
            tape.wire.write(noise(1000 + number))
        proxy.cut()
        for number, tape in enumerate(tapes):
            tape.wire.write(noise(2000 + number))
        for number, tape in enumerate(tapes):
            await arrival(tape, noise(1000 + number) + noise(2000 + number))
        self.assertEqual(self.snet.stats.made, 15)

"""snet over real sockets: what it promises beyond the original, cuts in the middle of everything,
bounds and abuse; and the same on a clock where time is the point.

Rule: a test waits for what must come, never for a time to pass, except where a time is the point.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import Reason
from fastway.snet import carrier
from fastway.snet.config import HURRY, LINGER, SnetConfig
from fastway.snet.crypto import private_key
from fastway.snet.dial import SnetClientEndpoint
from fastway.snet.session import Fault, HandshakeFailed
from tests.support.errors import failure_of, raised
from tests.support.gateways import OneOf
from tests.support.snet import Dialling, Listening, Resumable, Wire, acked_of
from tests.support.snet_golden import PRIME, REFUSED, Script, u64
from tests.support.snet_streams import SnetCase, StreamBody, reason_of
from tests.support.tapes import Tape, arrival, ends
from tests.support.waits import SECONDS, reactor, turns, until

DEGENERATE = (0, 1, PRIME - 1, PRIME, PRIME + 1, 2**64 - 1)


class BetterTests(SnetCase):
    """Spec "Where this project does better than the original", by its numbers."""

    async def test_1_comes_back_while_the_old_connection_looks_alive(self) -> None:
        """A client whose old connection still looks alive takes over at once; the old socket is
        closed, and what was lost on its way is sent again."""
        await self.listen(echo=False)
        proxy = self.proxy()
        one = await self.dial(proxy.port)
        (two,) = self.served.tapes
        one.wire.write(b"before ")
        two.wire.write(b"vorher ")
        await arrival(two, b"before ")
        await arrival(one, b"vorher ")
        proxy.freeze()
        (frozen,) = proxy.frozen
        one.wire.write(b"lost ")
        two.wire.write(b"verloren ")
        await turns()
        self.assertEqual(two.received, b"before ")
        self.assertIsNone(two.wire.cut_since)
        one.wire.resume_now()
        await arrival(two, b"before lost ")
        await arrival(one, b"vorher verloren ")
        await until("the old socket to be closed", lambda: frozen.far is None)
        self.assertEqual(two.events, ["cut", (0.0, 9)])
        stats = self.snet.stats
        self.assertEqual((stats.cut, stats.resumed, stats.taken_over), (1, 1, 1))
        one.wire.write(b"on")
        await arrival(two, b"before lost on")
        self.assertEqual([one.losses, two.losses], [[], []])

    async def test_1_takes_over_at_once(self) -> None:
        """The take-over waits for nothing but the proof; what came over the old connection between
        the answer and the proof is skipped, not delivered twice."""
        await self.listen()
        old = await self.raw()
        script = await old.new()
        await self.says(old, b"one")
        late = script.send(b"two!")
        newcomer = await self.raw()
        answer = await newcomer.ask(script)
        self.assertEqual(answer[:16], u64(3, 3))
        old.send(late)
        await old.expect(b"two!")
        newcomer.send(script.prove(answer[16:]) + late)
        # It had not read the echo of "two!" when it asked.
        self.assertEqual(await newcomer.take(4), b"two!")
        await old.expect_end()
        await self.says(newcomer, b"three")
        (two,) = self.served.tapes
        self.assertEqual(two.received, b"onetwo!three")

    async def test_2_a_failed_proof_leaves_the_live_connection_untouched(self) -> None:
        """A newcomer whose proof is wrong is disconnected; the live connection goes on before,
        meanwhile and after, and is told nothing."""
        await self.listen()
        live = await self.raw()
        script = await live.new()
        await self.says(live, b"before")
        newcomer = await self.raw()
        answer = await newcomer.ask(script)
        await self.says(live, b"meanwhile")
        newcomer.send(bytes(16) + b"data of a stranger")
        await newcomer.expect_end()
        await self.says(live, b"after")
        (two,) = self.served.tapes
        self.assertEqual(two.received, b"beforemeanwhileafter")
        self.assertEqual([two.events, two.losses, live.ended], [[], [], None])
        self.assertNotEqual(answer, REFUSED)
        self.assertEqual(self.snet.stats.refused, {Fault.BAD_PROOF: 1})
        self.assertEqual(self.snet.stats.cut, 0)

    async def test_2_a_failed_proof_leaves_a_cut_stream_waiting(self) -> None:
        """A newcomer whose proof is wrong does not spoil the resume of a stream that is cut."""
        await self.listen()
        live = await self.raw()
        script = await live.new()
        await self.says(live, b"before")
        live.wire.abortConnection()
        await until("the cut", lambda: self.snet.waiting)
        newcomer = await self.raw()
        await newcomer.ask(script)
        newcomer.send(bytes(16))
        await newcomer.expect_end()
        again = await self.raw()
        await again.resume(script)
        await self.says(again, b"after")

    async def test_4_absurd_counts(self) -> None:
        """Counts that cannot be are refused with 24 zero bytes, whether the stream is live or cut;
        it goes on, and nothing was allocated."""
        await self.listen(buffer=1000)
        live = await self.raw()
        script = await live.new()
        await self.says(live, b"hello")
        absurd = [
            {"wrote": 2**62},
            {"read": 2**62},
            {"wrote": 2**62, "read": 2**62},
            {"wrote": 2**64 - 1, "read": 2**64 - 1},
            {"wrote": 2**63, "read": 0},
            {"wrote": 4},
            {"read": 6},
            {"wrote": 5 + 1001},
        ]
        for cut in (False, True):
            if cut:
                await self.says(live, b" again")
                live.wire.abortConnection()
                await until("the cut", lambda: self.snet.waiting)
            for counts in absurd:
                newcomer = await self.raw()
                if cut:
                    counts = {
                        name: count if count > 2**60 else count + 6
                        for name, count in counts.items()
                    }
                self.assertEqual(await newcomer.ask(script, **counts), REFUSED, counts)
                await newcomer.expect_end()
            if not cut:
                await self.says(live, b", world")
                script.wrote, script.read = bytearray(b"12345"), bytearray(b"12345")
                self.assertEqual(self.snet.stats.cut, 0)
                script.wrote, script.read = bytearray(12), bytearray(12)
                absurd = [
                    {name: count if count > 2**60 else count + 7 for name, count in one.items()}
                    for one in absurd
                ]
        again = await self.raw()
        await again.resume(script)
        await self.says(again, b"!")
        refused = self.snet.stats.refused
        self.assertEqual(refused[Fault.BAD_COUNTS] + refused[Fault.GAP], 16)
        self.assertLessEqual(self.snet.replayable, 1000)

    async def test_5_degenerate_keys_of_clients(self) -> None:
        """A client's public key that keeps no secret is answered with a close, without a byte."""
        await self.listen()
        for number in DEGENERATE:
            client = await self.raw()
            client.send(b"\0" + u64(number))
            await client.expect_end()
        self.assertEqual(self.snet.stats.refused, {Fault.DEGENERATE_KEY: len(DEGENERATE)})
        for number in (2, PRIME - 2):
            client = await self.raw()
            client.send(b"\0" + u64(number))
            self.assertEqual(len(await client.read(24)), 24)

    def test_5_degenerate_keys_of_servers(self) -> None:
        """A server's public key that keeps no secret fails connect(), without a proof."""
        for number in DEGENERATE:
            bench = Dialling(OneOf(Tape()))
            wire = bench.reach()
            wire.take()
            wire.feed(u64(number) + bytes(16))
            bench.turn()
            error = self.failureResultOf(bench.connected, HandshakeFailed).value
            self.assertIs(cast(HandshakeFailed, error).fault, Fault.DEGENERATE_KEY)
            self.assertEqual(wire.sent, b"")
            self.assertTrue(wire.closed)
            self.assertEqual(bench.calls, [])

    def test_5_private_keys(self) -> None:
        """A private key is the operating system's randomness, and another one if its public key
        keeps no secret."""
        numbers = [0, 1, PRIME - 1, (PRIME - 1) // 2, 0x0123456789ABCDEF]
        asked = []

        def urandom(size: int) -> bytes:
            asked.append(size)
            return u64(numbers[len(asked) - 1])

        self.patch(os, "urandom", urandom)
        self.assertEqual(private_key(), 0x0123456789ABCDEF)
        self.assertEqual(asked, [8] * 5)

    def test_5_constant_time(self) -> None:
        """Every proof and digest of a peer is compared in constant time."""
        compared = []

        def compare(one: bytes, two: bytes) -> bool:
            compared.append((one, two))
            return one == two

        self.patch(hmac, "compare_digest", compare)
        bench = Listening(Resumable())
        script, _ = bench.new()
        self.assertEqual(len(compared), 1)
        bench.resume(script)
        self.assertEqual(len(compared), 3)
        bench.snet.doStop()

    async def test_6_half_done_resumes(self) -> None:
        """Half-done resumes neither block nor slow the live connection, are bounded in number, and
        are gone after the init timeout."""
        await self.listen(init_timeout=0.3, max_handshakes=20)
        live = await self.raw()
        script = await live.new()
        half_done = [await self.raw() for _ in range(30)]
        for number, newcomer in enumerate(half_done):
            newcomer.send(script.claim()[: 1 + number * 2])
            await self.says(live, b"%d" % number)
            self.assertLessEqual(len(self.snet.handshakes), 20)
        for _ in range(30):
            newcomer = await self.raw()
            half_done.append(newcomer)
            self.assertNotEqual(await newcomer.ask(script), REFUSED)
            await self.says(live, b"on")
            self.assertLessEqual(len(self.snet.handshakes), 20)
        await until("their end", lambda: not self.snet.handshakes)
        await until("their ends", lambda: all(client.ended for client in half_done))
        refused = self.snet.stats.refused
        self.assertEqual(refused[Fault.CROWDED_OUT] + refused[Fault.TIMEOUT], 60)
        self.assertGreaterEqual(refused[Fault.TIMEOUT], 1)
        await self.says(live, b"still here")
        (two,) = self.served.tapes
        self.assertEqual([two.events, live.ended], [[], None])


class BodyTests(StreamBody, SnetCase):
    """Cuts, with Twisted's dialling side."""


class AbuseTests(SnetCase):
    """Strangers do what they like; the stream that is alive goes on."""

    async def test_abuse(self) -> None:
        """Floods of resumes with bad digests, unknown ids, absurd counts and wrong proofs,
        half-open handshakes, degenerate keys and rubbish: each is counted by its fault, nothing
        grows, and the live stream is untouched."""
        await self.listen(max_handshakes=25, max_waiting=5)
        live = await self.raw()
        script = await live.new()
        await self.says(live, b"hello")
        stranger = Script()
        stranger.key, stranger.conn_id = bytes(8), script.conn_id
        nobody = Script()
        nobody.key, nobody.conn_id = script.key, 2**40
        openings: list[tuple[Fault | None, Callable[[], bytes]]] = [
            (Fault.BAD_DIGEST, stranger.claim),
            (Fault.UNKNOWN_STREAM, nobody.claim),
            (Fault.BAD_COUNTS, lambda: script.claim(2**62, 2**62)),
            (Fault.GAP, lambda: script.claim(wrote=2**62)),
            (Fault.BAD_PROOF, lambda: script.claim() + bytes(16)),
            (Fault.BAD_PROOF, lambda: script.hello() + bytes(16)),
            (Fault.DEGENERATE_KEY, lambda: b"\0" + u64(PRIME - 1)),
            (Fault.FIRST_BYTE, lambda: b"GET / HTTP/1.1\r\n"),
            (None, lambda: b"\0half"),
            (None, lambda: script.claim()),
        ]
        rounds = 8
        strangers = []
        for number in range(rounds):
            for _, opening in openings:
                client = await self.raw()
                strangers.append(client)
                client.send(opening())
                self.assertLessEqual(len(self.snet.handshakes), 25)
                self.assertEqual(list(self.snet.streams), [script.conn_id])
                self.assertEqual(len(self.snet.waiting), 0)
            await self.says(live, b"round %d" % number)
        halves = [client for client in strangers if client.ended is None]
        expected = {
            fault: rounds * sum(other is fault for other, _ in openings)
            for fault, _ in openings
            if fault is not None
        }

        def counts() -> dict[Fault, int]:
            refused = self.snet.stats.refused
            return {fault: refused[fault] for fault in expected}

        await until("all to be counted", lambda: counts() == expected)
        for client in halves:
            client.wire.abortConnection()
        await until("no handshake", lambda: not self.snet.handshakes, SECONDS)
        others = set(self.snet.stats.refused) - set(expected)
        self.assertLessEqual(others, {Fault.CROWDED_OUT, Fault.CLOSED})
        self.assertEqual(sum(self.snet.stats.refused.values()), rounds * len(openings))
        await self.says(live, b"still here")
        (two,) = self.served.tapes
        self.assertEqual([two.events, two.losses, live.ended], [[], [], None])
        self.assertEqual((self.snet.stats.made, self.snet.stats.cut), (1, 0))

    async def test_takeover_needs_the_key(self) -> None:
        """Who saw a resume on the wire cannot repeat it: each has a challenge of its own."""
        await self.listen()
        live = await self.raw()
        script = await live.new()
        second = await self.raw()
        answer = await second.ask(script)
        proof = script.prove(answer[16:])
        claim = script.claim()
        second.send(proof)
        await live.expect_end()
        await self.says(second, b"on")
        thief = await self.raw()
        thief.send(claim + proof)
        await until("its end", lambda: thief.ended)
        self.assertIsNone(second.ended)
        await self.says(second, b"still mine")

    async def test_an_old_request(self) -> None:
        """A request that was overtaken by a newer one is too late, even with a right proof."""
        await self.listen()
        live = await self.raw()
        script = await live.new()
        first, second = await self.raw(), await self.raw()
        early = await first.ask(script)
        await second.resume(script)
        await self.says(second, b"on")
        first.send(script.prove(early[16:]))
        await first.expect_end()
        self.assertEqual(self.snet.stats.refused, {Fault.STALE: 1})
        await self.says(second, b"still here")


class ClockCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(carrier, "acked_bytes", acked_of)
        self.patch(carrier, "round_trip", lambda transport: 0.002)


def nobody() -> Script:
    """Somebody whose stream is not here."""
    script = Script()
    script.conn_id, script.key = 99, b"k" * 8
    return script


class TimeTests(ClockCase):
    """Deadlines and bounds of the listening side, on a clock."""

    def test_init_timeout(self) -> None:
        """The first byte, the rest of a request, and the proof must come in time; bytes that
        trickle in earn no more of it."""
        for stage in range(6):
            live = Resumable()
            bench = Listening(live, config=SnetConfig(init_timeout=2.0))
            script, wire = bench.new()
            late = bench.dial()
            if stage == 1:
                late.feed(b"\0")
            elif stage == 2:
                late.feed(script.claim()[:30])
            elif stage == 3:
                late.feed(Script().hello())
            elif stage == 4:
                late.feed(script.claim())
            if stage == 5:
                for byte in script.claim()[:14]:
                    late.feed(bytes([byte]))
                    bench.pass_time(0.125)
            else:
                bench.pass_time(1.75)
            self.assertFalse(late.closed, stage)
            bench.pass_time(0.5)
            self.assertTrue(late.closed, stage)
            self.assertEqual(bench.snet.stats.refused, {Fault.TIMEOUT: 1}, stage)
            self.assertEqual([wire.closed, live.events, bench.snet.handshakes], [False, [], {}])
            live.wire.abortConnection()
            bench.turn()
            bench.snet.doStop()
            self.assertEqual(bench.calls, [])

    def test_closed_in_the_handshake(self) -> None:
        """Who goes in the middle of its handshake is counted, and forgotten at once."""
        bench = Listening()
        for end in ("broken", "half_close"):
            wire = bench.dial()
            wire.feed(Script().hello())
            getattr(wire, end)()
            bench.turn()
            self.assertEqual(bench.snet.handshakes, {}, end)
        self.assertEqual(bench.snet.stats.refused, {Fault.CLOSED: 2})
        bench.snet.doStop()
        self.assertEqual(bench.calls, [])

    def test_refused_and_staying(self) -> None:
        """One that is refused and does not close is dropped after LINGER seconds, and counts among
        the handshakes until then."""
        bench = Listening()
        wire, answer = bench.asks(nobody())
        self.assertEqual(answer, REFUSED)
        self.assertTrue(wire.fin)
        self.assertEqual(len(bench.snet.handshakes), 1)
        wire.feed(b"more" * 100)
        bench.pass_time(LINGER - 0.5)
        self.assertFalse(wire.closed)
        bench.pass_time(1.0)
        self.assertEqual([wire.closed, bench.snet.handshakes], [True, {}])
        self.assertEqual(bench.snet.stats.refused, {Fault.UNKNOWN_STREAM: 1})
        bench.snet.doStop()
        self.assertEqual(bench.calls, [])

    def test_refused_and_pushing(self) -> None:
        """One that is refused is not read from without end; without an answer not at all."""
        bench = Listening()
        wire, _ = bench.asks(nobody())
        wire.feed(bytes(60_000))
        self.assertFalse(wire.closed)
        wire.feed(bytes(6000))
        self.assertTrue(wire.aborted)
        wire = bench.dial()
        wire.feed(b"x")
        self.assertTrue(wire.aborted)
        bench.turn()
        self.assertEqual(bench.snet.handshakes, {})

    def test_max_handshakes(self) -> None:
        """Past the bound the oldest handshake is dropped, and the newcomer is served."""
        bench = Listening(Resumable(), config=SnetConfig(max_handshakes=3))
        early = [bench.dial() for _ in range(3)]
        self.assertEqual([wire.closed for wire in early], [False] * 3)
        script, wire = bench.new(b"served")
        self.assertEqual([wire.closed for wire in early], [True, False, False])
        self.assertEqual(bench.snet.stats.refused, {Fault.CROWDED_OUT: 1})
        self.assertEqual(list(bench.snet.streams), [script.conn_id])
        self.assertEqual(len(bench.snet.handshakes), 2)
        bench.dial()
        self.assertEqual([wire.closed for wire in early], [True, False, False])
        bench.dial()
        self.assertEqual([wire.closed for wire in early], [True, True, False])
        self.assertFalse(wire.closed)
        bench.turn()
        self.assertEqual(len(bench.snet.handshakes), 3)

    def test_max_waiting(self) -> None:
        """Past the bound the stream that was cut longest is lost, and the others wait on."""
        tapes = [Resumable() for _ in range(4)]
        bench = Listening(*tapes, config=SnetConfig(max_waiting=2))
        streams = [bench.new() for _ in range(4)]
        for number in (2, 0, 1):
            streams[number][1].broken()
            bench.pass_time(0.125)
        self.assertIs(reason_of(tapes[2]), Reason.CROWDED_OUT)
        self.assertEqual(len(bench.snet.waiting), 2)
        self.assertEqual([tape.losses for tape in (tapes[0], tapes[1], tapes[3])], [[], [], []])
        bench.resume(streams[0][0], b"back")
        streams[3][1].broken()
        self.assertEqual(len(bench.snet.waiting), 2)
        self.assertEqual([tapes[0].received, tapes[1].losses], [b"back", []])
        _, answer = bench.asks(streams[2][0])
        self.assertEqual(answer, REFUSED)

    def test_ids(self) -> None:
        """Numbers count from 1, and are not given again."""
        bench = Listening(*[Resumable() for _ in range(3)])
        first, wire = bench.new()
        second, _ = bench.new()
        bench.snet.streams[2].abortConnection()
        third, _ = bench.new()
        self.assertEqual([first.conn_id, second.conn_id, third.conn_id], [1, 2, 3])
        self.assertFalse(wire.closed)

    def test_no_protocol(self) -> None:
        """A factory that declines costs only the connection."""
        bench = Listening()
        _, wire = bench.new(b"rest")
        bench.turn()
        self.assertTrue(wire.closed)
        self.assertEqual([bench.snet.streams, bench.snet.stats.made], [{}, 0])
        bench.snet.doStop()
        self.assertEqual([bench.stopped, bench.calls], [True, []])

    def test_config(self) -> None:
        """Bounds below 1 and times of 0 are refused."""
        for name in ("buffer", "max_waiting", "max_handshakes", "init_timeout", "wait_timeout"):
            raised(ValueError, partial(cast(Any, SnetConfig), **{name: 0}))


class DiallerTests(ClockCase):
    """The dialling side on a clock."""

    def bench(self, **config: Any) -> tuple[Dialling, Resumable]:
        tape = Resumable()
        return Dialling(OneOf(tape), SnetConfig(**config), float), tape

    def test_backoff(self) -> None:
        """After a steady connection it dials at once, then waits longer after each failure."""
        bench, tape = self.bench()
        wire = bench.new()
        bench.pass_time(2.0)
        wire.broken()
        for _ in range(4):
            bench.turn()
            while not bench.endpoint.waiting:
                bench.pass_time(0.125)
            bench.endpoint.fail(ConnectError())
        self.assertEqual(bench.endpoint.asked, [0.0, 2.0, 3.0, 5.0, 8.0])
        self.assertEqual([tape.losses, tape.events], [[], ["cut"]])
        bench.pass_time(4.0)
        again = bench.resume(b"back")
        self.assertEqual([tape.received, tape.events[1:]], [b"back", [(10.0, 0)]])
        bench.pass_time(2.0)
        again.broken()
        bench.turn()
        self.assertEqual(bench.endpoint.asked[5:], [12.0, 14.0])

    def test_hurry(self) -> None:
        """resume_now of a stream that is cut already ends the pause before the next attempt."""
        bench, tape = self.bench()
        wire = bench.new()
        bench.pass_time(2.0)
        wire.broken()
        bench.turn()
        bench.endpoint.fail(ConnectError())
        bench.turn()
        self.assertEqual(bench.endpoint.asked, [0.0, 2.0])
        tape.wire.resume_now()
        bench.turn()
        self.assertEqual(bench.endpoint.asked, [0.0, 2.0, 2.0])
        bench.resume(b"back")
        self.assertEqual(tape.received, b"back")

    def hanging(self, shakes_hands: bool = False) -> tuple[Dialling, Resumable, list[Wire]]:
        """A stream that was cut at 2 s, and whose attempt to resume gets no answer."""
        bench, tape = self.bench()
        wire = bench.new()
        bench.pass_time(2.0)
        wire.broken()
        bench.turn()
        reached = [bench.reach()] if shakes_hands else []
        self.assertEqual(bench.endpoint.asked, [0.0, 2.0])
        return bench, tape, reached

    def test_hurry_while_an_attempt_hangs(self) -> None:
        """resume_now gives up an attempt that gets no answer, or half of one, for another that
        is made at once, and counts it as no failure."""
        for shakes_hands in (False, True):
            bench, tape, reached = self.hanging(shakes_hands)
            bench.pass_time(1.5)
            tape.within("resume_now")
            bench.turn()
            self.assertEqual(bench.endpoint.asked, [0.0, 2.0, 3.5])
            self.assertEqual(
                [len(bench.endpoint.waiting), len(bench.wires)], [1, 1 + shakes_hands]
            )
            self.assertEqual([wire.closed for wire in reached], [True] * shakes_hands)
            self.assertEqual(bench.endpoint.cancelled, not shakes_hands)
            bench.endpoint.fail(ConnectError())
            bench.pass_time(1.0)
            self.assertEqual(bench.endpoint.asked[3:], [4.5])
            bench.resume(b"back")
            self.assertEqual([tape.received, tape.events[1:]], [b"back", [(2.5, 0)]])
            self.assertEqual(tape.faults, [])
            bench.pass_time(20.0)
            self.assertEqual(len(bench.endpoint.asked), 4)

    def test_hurry_is_bounded(self) -> None:
        """However often resume_now is called, attempts begin HURRY seconds apart, one at a time,
        and the last call is not forgotten."""
        bench, tape, _ = self.hanging()
        for _ in range(round(5 * HURRY * 8)):
            for _ in range(3):
                tape.wire.resume_now()
            bench.turn()
            self.assertEqual(len(bench.endpoint.waiting), 1)
            bench.clock.advance(0.125)
        wanted = [0.0, 2.0, *(2.0 + HURRY * number for number in range(6))]
        self.assertEqual(bench.endpoint.asked, wanted)
        bench.pass_time(5.0)
        self.assertEqual(bench.endpoint.asked, wanted)

    def test_hurry_in_vain(self) -> None:
        """An attempt that comes through by itself leaves nothing of a resume_now that had to
        wait."""
        bench, tape, _ = self.hanging()
        tape.wire.resume_now()
        bench.turn()
        tape.wire.resume_now()
        bench.resume(b"back")
        bench.pass_time(2 * HURRY)
        self.assertEqual([len(bench.endpoint.asked), tape.received], [3, b"back"])
        self.assertEqual([tape.events[0], len(tape.events)], ["cut", 2])

    def test_hurry_of_one_that_flaps(self) -> None:
        """resume_now of streams that live drops no more connections than it may make."""
        bench, tape = self.bench()
        bench.new()
        for _ in range(80):
            tape.wire.resume_now()
            bench.turn()
            if bench.endpoint.waiting:
                bench.resume()
            bench.clock.advance(0.125)
        self.assertLessEqual(len(bench.endpoint.asked), 2 + 10 / HURRY)
        self.assertEqual(tape.losses, [])

    def test_stop_in_an_attempt(self) -> None:
        """Whatever an attempt is at, the end of its stream leaves no connection and nothing
        scheduled."""
        for end in ("abortConnection", "loseConnection"):
            for shakes_hands in (False, True):
                for hurried in (0, 1, 2):
                    bench, tape, _ = self.hanging(shakes_hands)
                    for _ in range(hurried):
                        tape.wire.resume_now()
                        bench.turn()
                    tape.within(end)
                    bench.turn()
                    self.assertEqual(len(tape.losses), 1)
                    self.assertEqual([bench.endpoint.waiting, bench.calls], [[], []])
                    self.assertEqual(
                        [wire.told for wire in bench.wires], [True] * len(bench.wires)
                    )
                    tape.wire.resume_now()
                    bench.turn()
                    self.assertEqual([bench.endpoint.waiting, bench.calls], [[], []])

    def test_abort_with_an_old_connection(self) -> None:
        """An abort leaves none of the connections that take their time to close, either."""
        bench, tape = self.bench()
        slow = bench.new()
        bench.pass_time(2.0)
        slow.loseConnection = lambda: None  # type: ignore[method-assign]
        slow.half_close()
        bench.turn()
        self.assertEqual([slow.closed, len(bench.endpoint.waiting)], [False, 1])
        tape.wire.abortConnection()
        bench.turn()
        self.assertEqual([slow.closed, bench.endpoint.waiting, bench.calls], [True, [], []])

    def test_backoff_of_one_that_flaps(self) -> None:
        """Connections that do not last are no reason to dial without a pause."""
        bench, _ = self.bench()
        wire = bench.new()
        for number in range(1, 5):
            wire.broken()
            bench.turn()
            self.assertEqual(bench.endpoint.waiting, [])
            bench.pass_time(float(number))
            wire = bench.resume()
        self.assertEqual(bench.endpoint.asked, [0.0, 1.0, 3.0, 6.0, 10.0])

    def test_default_backoff(self) -> None:
        """Without a backoff of one's own the delays begin with 0.1 s and grow to 5 s, each by
        chance up to twice as long."""
        tape = Resumable()
        bench = Dialling(OneOf(tape), SnetConfig(wait_timeout=1000.0))
        wire = bench.new()
        wire.broken()
        delays = []
        for _ in range(20):
            cut = bench.clock.seconds()
            while not bench.endpoint.waiting:
                bench.clock.advance(1 / 64)
            delays.append(bench.clock.seconds() - cut)
            bench.endpoint.fail(ConnectError())
        self.assertTrue(0.1 <= delays[0] <= 0.22, delays)
        self.assertTrue(0.15 <= delays[2] <= 0.47, delays)
        self.assertTrue(all(2.5 <= delay <= 5.02 for delay in delays[15:]), delays)
        self.assertGreater(len(set(delays[15:])), 1)
        tape.wire.abortConnection()

    def test_got_across(self) -> None:
        """A connection that did not last and took bytes either way is followed by an attempt at
        once."""
        bench, tape = self.bench()
        wire = bench.new(b"for it")
        wire.broken()
        bench.turn()
        wire = bench.resume()
        tape.wire.write(b"for the peer")
        bench.script.take(wire.take())
        wire.broken()
        bench.turn()
        self.assertEqual(bench.endpoint.waiting, [])  # nobody knows yet that it got across
        bench.pass_time(1.0)
        bench.resume().broken()
        bench.turn()
        self.assertEqual(bench.endpoint.asked, [0.0, 0.0, 1.0, 1.0])
        bench.resume().broken()
        bench.turn()
        self.assertEqual(bench.endpoint.waiting, [])
        tape.wire.abortConnection()

    def test_one_attempt_at_a_time(self) -> None:
        """While an attempt is under way there is no other one."""
        bench, _ = self.bench(init_timeout=5.0)
        bench.new().broken()
        bench.pass_time(4.0)
        self.assertEqual(len(bench.endpoint.asked), 2)
        self.assertEqual(len(bench.endpoint.waiting), 1)

    def test_retried(self) -> None:
        """A connection that is refused, hangs, or goes in the middle of its handshake is tried
        again, until the wait timeout."""
        bench, tape = self.bench(wait_timeout=30.0, init_timeout=2.0)
        bench.new().broken()
        bench.pass_time(1.0)
        bench.endpoint.fail(CancelledError())  # which is not this side's doing
        bench.pass_time(2.0)  # the second pause
        self.assertEqual(len(bench.endpoint.waiting), 1)
        bench.pass_time(2.0)  # it hangs
        self.assertEqual(bench.endpoint.cancelled, 1)
        bench.pass_time(3.0)
        wire = bench.reach()
        wire.feed(bytes(10))
        wire.half_close()
        bench.turn()
        self.assertTrue(wire.closed)
        bench.pass_time(4.0)
        silent = bench.reach()
        bench.pass_time(2.0)
        self.assertTrue(silent.closed)
        self.assertEqual(tape.losses, [])
        bench.pass_time(5.0)
        bench.resume(b"back")
        self.assertEqual([tape.received, tape.losses], [b"back", []])

    def test_gives_up(self) -> None:
        """After the wait timeout the stream is lost, and an attempt under way is cancelled."""
        bench, tape = self.bench(wait_timeout=5.0)
        bench.new().broken()
        bench.pass_time(1.0)
        bench.endpoint.fail(ConnectionRefusedError())
        bench.pass_time(4.5)
        self.assertIs(reason_of(tape), Reason.NOT_RESUMED)
        self.assertEqual((bench.endpoint.waiting, bench.endpoint.cancelled), ([], 1))
        self.assertEqual(bench.calls, [])

    def test_lose_while_dialling(self) -> None:
        """A close while cut, with nothing to deliver, cancels the attempt or the pause."""
        for dialling in (False, True):
            bench, tape = self.bench()
            bench.new().broken()
            if dialling:
                bench.pass_time(1.0)
            self.assertEqual(len(bench.endpoint.waiting), dialling)
            tape.wire.loseConnection()
            bench.turn()
            self.assertEqual([loss.type for loss in tape.losses], [ConnectionDone])
            self.assertEqual(bench.endpoint.waiting, [])
            self.assertEqual(bench.calls, [])

    def test_lose_with_a_tail(self) -> None:
        """A close while cut, with bytes on their way, goes on dialling until they are there."""
        bench, tape = self.bench()
        wire = bench.new()
        tape.wire.write(b"tail")
        wire.broken()
        tape.wire.loseConnection()
        bench.pass_time(1.0)
        again = bench.resume()
        self.assertEqual(bench.script.take(again.take()), b"tail")
        self.assertTrue(again.fin)
        again.half_close()
        bench.turn()
        self.assertEqual([loss.type for loss in tape.losses], [ConnectionDone])
        self.assertEqual(bench.calls, [])

    def test_connect_refused(self) -> None:
        """connect() fails as the endpoint does."""
        bench, _ = self.bench()
        bench.endpoint.fail(ConnectionRefusedError())
        self.failureResultOf(bench.connected, ConnectionRefusedError)
        self.assertEqual(bench.calls, [])

    def test_connect_timeout(self) -> None:
        """connect() fails with TimeoutError when the connection, or the handshake, takes longer
        than the init timeout."""
        for connected in (False, True):
            bench, tape = self.bench(init_timeout=2.0)
            wire = bench.reach() if connected else None
            bench.pass_time(1.75)
            self.assertNoResult(bench.connected)
            bench.pass_time(0.5)
            self.failureResultOf(bench.connected, TimeoutError)
            self.assertTrue(wire is None or wire.closed)
            self.assertEqual(bench.endpoint.waiting, [])
            self.assertIsNone(tape.transport)
            self.assertEqual(bench.calls, [])

    def test_connect_and_closed(self) -> None:
        """connect() fails with HandshakeFailed when the other side closes in its middle."""
        for end in ("half_close", "broken"):
            bench, _ = self.bench()
            wire = bench.reach()
            wire.feed(bytes(10))
            getattr(wire, end)()
            bench.turn()
            error = self.failureResultOf(bench.connected, HandshakeFailed).value
            self.assertIs(cast(HandshakeFailed, error).fault, Fault.CLOSED)
            self.assertEqual(bench.calls, [])

    def test_cancel(self) -> None:
        """connect() can be cancelled while it connects and while it shakes hands."""
        for connected in (False, True):
            bench, tape = self.bench()
            wire = bench.reach() if connected else None
            bench.connected.cancel()
            self.failureResultOf(bench.connected, CancelledError)
            bench.turn()
            self.assertTrue(wire is None or wire.closed)
            self.assertEqual(bench.endpoint.cancelled, not connected)
            self.assertEqual([bench.endpoint.waiting, bench.calls], [[], []])
            self.assertIsNone(tape.transport)

    def test_no_protocol(self) -> None:
        """connect() with a factory that declines fails, and keeps no connection."""
        factory = OneOf()
        bench = Dialling(factory)
        wire = bench.new(b"rest")
        bench.turn()
        self.failureResultOf(bench.connected, ConnectionAborted)
        self.assertTrue(wire.closed)
        self.assertEqual([factory.numPorts, bench.calls], [0, []])

    def test_factory(self) -> None:
        """The factory runs for as long as its stream lives, and is told once that it ended."""
        factory = OneOf(Tape())
        bench = Dialling(factory, backoff=float)
        bench.new().broken()
        bench.pass_time(1.0)
        wire = bench.resume()
        self.assertEqual([factory.numPorts, factory.given], [1, 1])
        tape = cast(Tape, self.successResultOf(bench.connected))
        tape.wire.abortConnection()
        bench.turn()
        self.assertEqual([factory.numPorts, wire.closed], [0, True])

    def test_silent_peer_data_in_one_piece(self) -> None:
        """An answer that comes byte by byte, and one with data behind it, are both right."""
        for size in (1, 7, 24, 100):
            bench, tape = self.bench(encrypt=True)
            wire = bench.reach()
            answer = bench.script.answer(wire.take())
            answer += bench.script.send(b"data right behind")
            for start in range(0, len(answer), size):
                wire.feed(answer[start : start + size])
            self.assertEqual(tape.received, b"data right behind")
            self.assertEqual(wire.take(), bench.script.prove(b"schwierg"))


class ConnectTests(SnetCase):
    """connect() over real sockets."""

    def endpoint(self, port: int, **config: Any) -> SnetClientEndpoint:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        return SnetClientEndpoint(endpoint, reactor, SnetConfig(**config))

    async def test_nobody_listens(self) -> None:
        """connect() to a port that is closed fails with ConnectionRefusedError."""
        port = reactor.listenTCP(0, OneOf(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        await failure_of(ConnectionRefusedError, self.endpoint(number).connect(OneOf(Tape())))

    async def test_somebody_else_listens(self) -> None:
        """connect() to what speaks something else fails with HandshakeFailed or TimeoutError, and
        the connection is closed."""
        tapes = [Tape(), Tape()]
        tapes[0].on_data = lambda data: tapes[0].wire.loseConnection()
        port = reactor.listenTCP(0, OneOf(*tapes), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        error = await failure_of(HandshakeFailed, self.endpoint(number).connect(OneOf(Tape())))
        self.assertIs(error.fault, Fault.CLOSED)
        silent = self.endpoint(number, init_timeout=0.05)
        await failure_of(TimeoutError, silent.connect(OneOf(Tape())))
        await ends(*tapes)

    async def test_cancel(self) -> None:
        """A connect() that is cancelled leaves nothing on either side."""
        await self.listen()
        connecting = self.endpoint(self.port).connect(OneOf(Tape()))
        connecting.cancel()
        await failure_of(CancelledError, connecting)
        await turns()
        self.assertEqual(self.snet.streams, {})

    async def test_mixed_encryption(self) -> None:
        """Two sides that differ in `encrypt` shake hands, and understand nothing: the setting is
        not negotiated."""
        await self.listen(echo=False, encrypt=True)
        one = await self.dial(encrypt=False)
        (two,) = self.served.tapes
        one.wire.write(b"clear")
        await until("5 bytes", lambda: len(two.received) == 5)
        self.assertNotEqual(two.received, b"clear")

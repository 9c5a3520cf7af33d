"""Unary calls of gRPC: channel and server over a network in memory, and what peers may do."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated as Gone
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from fastway.cluster import channel as channels
from fastway.cluster import http2, server
from fastway.cluster.channel import Channel
from fastway.cluster.grpc import MAX_MESSAGE, CallFailed, Status, ended, frame, unframe
from fastway.cluster.server import Served, Server
from tests.support.clusters import Town

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HERE, THERE = "10.0.0.1:1", "10.0.0.1:2"
ECHO = b"/test.Test/Echo"
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", ECHO.decode()),
    (":authority", "there"),
    ("content-type", "application/grpc+proto"),
    ("te", "trailers"),
]


class Messages(SynchronousTestCase):
    """Frames and statuses."""

    def test_frames(self) -> None:
        """A message comes out as it went in; all else is refused."""
        for message in (b"", b"x", b"y" * 70_000):
            self.assertEqual(unframe(frame(message)), message)
        self.assertEqual(frame(b""), bytes(5))
        with pytest.raises(ValueError, match="at most"):
            frame(bytes(MAX_MESSAGE + 1))
        wrong = b"", b"\0\0\0", b"\1" + bytes(4), frame(b"a") + frame(b"b"), frame(b"abc")[:-1]
        for data in wrong:
            with pytest.raises(CallFailed):
                unframe(data)

    def test_statuses(self) -> None:
        """What stands behind an answer says how it ended; whatever it is, that is an end."""
        self.assertIsNone(ended([(b"grpc-status", b"0"), (b"grpc-message", b"")]))
        cases: list[tuple[list[tuple[bytes, bytes]], int, str]] = [
            ([], Status.INTERNAL, "it ended without a status"),
            ([(b"grpc-status", b"2"), (b"grpc-message", b"a%20b%")], 2, "a b%"),
            ([(b"grpc-status", b"99"), (b"grpc-message", b"\xff")], 99, "�"),
            ([(b"grpc-status", b"-1")], Status.UNKNOWN, "UNKNOWN"),
            ([(b"grpc-status", b"9" * 4400)], Status.UNKNOWN, "UNKNOWN"),
        ]
        for headers, status, text in cases:
            failure = ended(headers)
            assert failure is not None
            self.assertEqual((failure.status, failure.text), (status, text))


class Ends(SynchronousTestCase):
    """A channel and a server."""

    def setUp(self) -> None:
        self.town = Town()
        self.held: list[Deferred[bytes]] = []
        self.server = self.listen()
        self.channel = self.connect()

    def listen(self) -> Server:
        methods = {
            ECHO: lambda data, _: data,
            b"/test.Test/Hold": self._hold,
            b"/test.Test/Refuse": self._refuse,
            b"/test.Test/Break": lambda data, _: 1 // 0,
        }
        made = Server(methods, self.town.turn_of(THERE))
        self.town.ports[THERE] = made
        return made

    def connect(self, timeout: float = 2.0) -> Channel:
        way = self.way = self.town.way(HERE, THERE)
        return Channel(THERE, way, self.town.turn_of(HERE), timeout)

    def _hold(self, data: bytes, _: Served) -> Deferred[bytes]:
        held: Deferred[bytes] = Deferred()
        self.held.append(held)
        return held

    def _refuse(self, data: bytes, _: Served) -> bytes:
        raise CallFailed(Status.UNKNOWN, "session not found: 5 é%\n")

    def call(self, data: bytes = b"hi", method: str = "Echo") -> Deferred[bytes]:
        calling = self.channel.call(f"/test.Test/{method}".encode(), data)
        self.town.pump()
        return calling

    def fails(self, calling: Deferred[bytes], status: int, text: str) -> CallFailed:
        error: CallFailed = self.failureResultOf(calling, CallFailed).value
        self.assertEqual(error.status, status, error)
        self.assertIn(text, error.text)
        return error


class Calls(Ends):
    """Calls and answers."""

    def test_echo(self) -> None:
        """One connection carries all, and nothing is left of calls that are over."""
        for data in (b"", b"hi", bytes(100_000)):
            self.assertEqual(self.successResultOf(self.call(data)), data)
        self.assertEqual(len(self.way.links), 1)
        self.assertTrue(self.channel.is_idle)
        self.assertEqual(self.channel._size, 0)

    def test_large(self) -> None:
        """Windows of both ends let the largest message through, beside small ones."""
        largest = bytes(range(256)) * (MAX_MESSAGE // 256)
        large, small = self.channel.call(ECHO, largest), self.channel.call(ECHO, b"small")
        self.assertEqual(self.town.run(large), largest)
        self.assertEqual(self.successResultOf(small), b"small")
        self.fails(self.call(largest + b"x"), Status.RESOURCE_EXHAUSTED, "too many")

    def test_no(self) -> None:
        """What the other end says is told; what breaks there is its own business."""
        refused = self.fails(self.call(method="Refuse"), Status.UNKNOWN, "not found: 5 é%\n")
        self.assertTrue(refused.heard)
        self.fails(self.call(method="What"), Status.UNIMPLEMENTED, "unknown method")
        self.fails(self.call(method="Break"), Status.INTERNAL, "internal error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.successResultOf(self.call()), b"hi")

    def test_many(self) -> None:
        """More calls than streams may be wait for each other; all are answered, in order."""
        ended: list[bytes] = []
        count = 3 * http2.STREAMS + 7
        for number in range(count):
            self.channel.call(ECHO, b"%d" % number).addCallback(ended.append)
        self.town.pump(60)
        self.assertEqual(ended, [b"%d" % number for number in range(count)])
        held = [self.call(method="Hold") for _ in range(http2.STREAMS + 1)]
        self.assertEqual(len(self.held), http2.STREAMS)
        for one in self.held:
            one.callback(b"done")
        self.town.pump()
        self.held[-1].callback(b"done")
        self.town.pump()
        self.assertEqual([self.successResultOf(one) for one in held], [b"done"] * len(held))

    def test_one_write(self) -> None:
        """What is called in one turn goes out at once."""
        self.call()
        [link] = self.way.links
        writes: list[bytes] = []
        write = link.near.write
        self.patch(link.near, "write", lambda data: writes.append(data) or write(data))  # type: ignore
        turn = self.channel._turn.writes
        turn.begin()
        calls = [self.channel.call(ECHO, b"x") for _ in range(20)]
        turn.end()
        self.assertEqual(len(writes), 1)
        self.town.pump()
        for one in calls:
            self.successResultOf(one)

    def test_nobody(self) -> None:
        """Who cannot be reached fails calls at once, and is not tried again for each of them."""
        del self.town.ports[THERE]
        self.fails(self.call(), Status.UNAVAILABLE, "refused")
        self.listen()
        self.fails(self.channel.call(ECHO, b""), Status.UNAVAILABLE, "cannot be reached")
        self.town.advance(0.5)
        self.assertEqual(self.successResultOf(self.call()), b"hi")

    def test_cut(self) -> None:
        """What was under way when the connection broke has failed; the next call has another."""
        self.call()
        held = self.call(method="Hold")
        self.way.links[0].cut()
        self.town.pump()
        self.fails(held, Status.UNAVAILABLE, "lost")
        self.assertEqual(self.successResultOf(self.call()), b"hi")
        self.assertEqual(self.server.connections.__len__(), 1)

    def test_deadline(self) -> None:
        """A call that is not answered fails in time, alone."""
        held = self.call(method="Hold")
        self.town.advance(1.5)
        self.successResultOf(self.call())
        self.assertNoResult(held)
        self.town.advance(0.8)
        self.fails(held, Status.DEADLINE_EXCEEDED, "2 s")
        self.assertEqual(len(self.way.links), 1)
        self.held[0].callback(b"late")
        self.assertEqual(self.successResultOf(self.call()), b"hi")

    def test_silence(self) -> None:
        """A line that is dead is left for another."""
        self.call()
        self.way.links[0].stall()
        lost = self.call()
        self.town.advance(2.3)
        self.fails(lost, Status.DEADLINE_EXCEEDED, "no answer")
        self.assertEqual(self.successResultOf(self.call()), b"hi")

    def test_bounds(self) -> None:
        """A peer that is silent lets only so much wait for it."""
        self.patch(channels, "MAX_CALLS", 5)
        self.town.freeze(THERE)
        calls = [self.call() for _ in range(5)]
        self.fails(self.call(), Status.RESOURCE_EXHAUSTED, "too many calls")
        self.patch(channels, "MAX_CALLS", 1000)
        self.patch(channels, "MAX_WAITING", 1000)
        self.fails(self.call(bytes(1000)), Status.RESOURCE_EXHAUSTED, "too many calls")
        self.town.advance(2.3)
        for one in calls:
            self.failureResultOf(one, CallFailed)

    def test_close(self) -> None:
        """Who closes fails what is under way, and calls nobody any more."""
        held, waits = self.call(method="Hold"), Channel(THERE, self.way, self.channel._turn, 2.0)
        connecting = waits.call(ECHO, b"")
        self.channel.close()
        waits.close()
        self.fails(held, Status.CANCELLED, "left")
        self.fails(connecting, Status.CANCELLED, "left")
        self.fails(self.call(), Status.UNAVAILABLE, "left")
        self.town.pump()
        self.assertEqual(self.server.connections, set())
        self.assertEqual(len(self.channel._turn.wheel), 0)

    def test_fault_of_who_hears(self) -> None:
        """It is logged; other calls go on."""
        self.channel.start(ECHO, b"", lambda _: 1 // 0)
        self.assertEqual(self.successResultOf(self.call()), b"hi")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_repeats_are_known(self) -> None:
        """Headers that are known by their bytes mean what they did, through other headers too."""
        for round_ in range(3):
            for method in ("Echo", "Refuse", "What"):
                calls = [self.call(b"%d" % round_, method) for _ in range(3)]
                for one in calls:
                    if method == "Echo":
                        self.assertEqual(self.successResultOf(one), b"%d" % round_)
                    else:
                        self.failureResultOf(one, CallFailed)


class _Scripted(Protocol):
    """A server that h2 plays, as the test says."""

    def connectionMade(self) -> None:
        self.h2 = H2Connection(H2Configuration(False))
        self.h2.initiate_connection()
        self.events: list[Any] = []
        self.flush()

    def flush(self, *frames: Frame) -> None:
        data = self.h2.data_to_send() + b"".join(one.serialize() for one in frames)
        self.transport.write(data)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.events += self.h2.receive_data(data)
        self.flush()


class Odd(Ends):
    """Servers that answer as they should not, or go."""

    def listen(self) -> Server:
        self.made: list[_Scripted] = []

        def build() -> _Scripted:
            self.made.append(_Scripted())
            return self.made[-1]

        self.town.ports[THERE] = ServerFactory.forProtocol(build)
        return self.town.ports[THERE]  # type: ignore[no-any-return]

    def answer(self, stream: int, body: bytes | None, status: str = "200", **more: str) -> None:
        peer = self.made[-1]
        headers = [(":status", status), ("content-type", more.pop("content", "application/grpc"))]
        peer.h2.send_headers(stream, headers)
        if body is not None:
            peer.h2.send_data(stream, body)
        trailers = [(name.replace("_", "-"), value) for name, value in more.items()]
        if trailers:
            peer.h2.send_headers(stream, trailers, True)
        else:
            peer.h2.end_stream(stream)
        peer.flush()
        self.town.pump()

    def test_answers(self) -> None:
        """Answers that are none fail their call, and no other."""
        cases: list[tuple[bytes | None, dict[str, str], int, str]] = [
            (None, {"grpc_status": "0"}, Status.INTERNAL, "no whole message"),
            (b"\1\0\0\0\0", {"grpc_status": "0"}, Status.UNIMPLEMENTED, "compressed"),
            (frame(b"a") * 2, {"grpc_status": "0"}, Status.INTERNAL, "not what came"),
            (frame(b"a"), {}, Status.INTERNAL, "without a status"),
            (frame(b"a"), {"grpc_message": "x"}, Status.INTERNAL, "without a status"),
            (b"<html>", {"content": "text/html"}, Status.UNKNOWN, "no answer of gRPC"),
            (b"", {"status": "502"}, Status.UNKNOWN, "HTTP status 502"),
        ]
        for number, (body, more, status, text) in enumerate(cases):
            calling = self.call()
            self.answer(2 * number + 1, body, **more)
            self.fails(calling, status, text)
        calling = self.call()
        self.answer(2 * len(cases) + 1, frame(b"a"), grpc_status="0")
        self.assertEqual(self.successResultOf(calling), b"a")
        self.assertEqual(len(self.made), 1)

    def test_too_large(self) -> None:
        """An answer without an end is broken off."""
        self.patch(channels, "MAX_MESSAGE", 1000)
        calling = self.call()
        self.made[0].h2.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
        self.made[0].h2.send_data(1, bytes(2000))
        self.made[0].flush()
        self.town.pump()
        self.fails(calling, Status.RESOURCE_EXHAUSTED, "too large")

    def test_reset(self) -> None:
        """What a peer did not look at is said once more; what it broke off is not."""
        calling = self.call()
        self.made[0].h2.reset_stream(1, 7)
        self.made[0].flush()
        self.town.pump()
        self.assertNoResult(calling)
        self.made[0].h2.reset_stream(3, 7)
        self.made[0].flush()
        self.town.pump()
        self.fails(calling, Status.UNAVAILABLE, "broke it off")
        calling = self.call()
        self.made[0].h2.reset_stream(5, 8)
        self.made[0].flush()
        self.town.pump()
        self.fails(calling, Status.UNAVAILABLE, "broke it off")

    def test_goodbye(self) -> None:
        """Who goes finishes what it looked at; the rest is said to who comes after it."""
        first, second = self.call(), self.call()
        peer = self.made[0]
        peer.flush(GoAwayFrame(0, 1, 0), PingFrame(0, b"12345678"))
        self.town.pump()
        self.assertEqual(len(self.made), 2)
        peer.h2.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
        peer.h2.send_data(1, frame(b"first"))
        peer.h2.send_headers(1, [("grpc-status", "0")], True)
        peer.flush()
        self.town.pump()
        self.assertEqual(self.successResultOf(first), b"first")
        self.answer(1, frame(b"second"), grpc_status="0")
        self.assertEqual(self.successResultOf(second), b"second")
        self.assertEqual(len(self.way.links), 1)

    def test_fewer_streams(self) -> None:
        """A peer that takes few calls at a time is given few."""
        self.call()
        self.made[0].h2.update_settings({3: 2})
        self.made[0].flush()
        self.town.pump()
        calls = [self.call() for _ in range(3)]
        self.assertEqual(self.made[0].h2.open_inbound_streams, 2)
        self.answer(1, frame(b"a"), grpc_status="0")
        self.answer(3, frame(b"b"), grpc_status="0")
        self.answer(5, frame(b"c"), grpc_status="0")
        self.assertEqual([self.successResultOf(one) for one in calls[:2]], [b"b", b"c"])

    def test_junk(self) -> None:
        """A peer that is no HTTP/2 fails calls, and is tried again later only."""
        calling = self.call()
        self.made[0].transport.write(b"HTTP/1.1 400 Bad Request" + bytes(17000))  # type: ignore
        self.town.pump()
        self.fails(calling, Status.UNAVAILABLE, "lost")
        self.fails(self.call(), Status.UNAVAILABLE, "closes its connections")


class Hostile(Ends):
    """What a peer does to a server ends its own connection, or its own call."""

    def setUp(self) -> None:
        super().setUp()
        self.h2 = H2Connection(H2Configuration(True))
        self.h2.initiate_connection()
        self.wire = StringTransport()
        self.clock = self.town.clocks[THERE]
        self.served = self.meet()

    def meet(self) -> Served:
        made = self.server.buildProtocol(None)
        assert made is not None
        self.wire = StringTransport()
        made.makeConnection(self.wire)
        return made

    def send(self, *frames: Frame) -> None:
        data = self.h2.data_to_send() + b"".join(one.serialize() for one in frames)
        self.served.dataReceived(data)
        self.clock.advance(0)

    def begin(self, headers: Any = HEADERS, end: bool = False) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, headers, end)
        return stream

    def answers(self) -> dict[int, dict[str, str]]:
        """Stream -> headers and trailers that came."""
        found: dict[int, dict[str, str]] = {}
        data = self.wire.value()
        self.wire.clear()
        event: Any
        for event in self.h2.receive_data(data):
            for name, value in getattr(event, "headers", ()):
                found.setdefault(event.stream_id, {})[name.decode()] = value.decode()
        return found

    def is_lost(self) -> bool:
        return self.wire.disconnecting or self.wire.disconnected

    def test_wrong(self) -> None:
        """Calls that are none get a status, and the connection goes on."""
        cases: list[tuple[dict[str, str], bytes, dict[str, str]]] = [
            ({":method": "GET"}, b"", {":status": "405"}),
            ({"content-type": "text/html"}, b"", {":status": "415"}),
            ({":path": "/x"}, b"", {"grpc-status": "12"}),
            ({}, b"", {"grpc-status": "13"}),
            ({}, b"\1" + frame(b"a")[1:], {"grpc-status": "12"}),
            ({}, frame(b"abc") + b"x", {"grpc-status": "13"}),
        ]
        for changes, body, expected in cases:
            stream = self.begin([(name, changes.get(name, value)) for name, value in HEADERS])
            self.h2.send_data(stream, body, True)
            self.send()
            got = self.answers()[stream]
            self.assertEqual({name: got.get(name) for name in expected}, expected)
        stream = self.begin()
        self.h2.send_data(stream, frame(b"hi"), True)
        self.send()
        self.assertEqual(self.answers()[stream]["grpc-status"], "0")
        self.assertFalse(self.is_lost())
        self.assertEqual(self.server.unfinished, 0)

    def test_unfinished(self) -> None:
        """Calls without an end are dropped in time; bytes of them are bounded before."""
        self.patch(server, "MAX_MESSAGE", 20_000)
        self.patch(server, "MAX_UNFINISHED", 30_000)
        first, second, third = self.begin(), self.begin(), self.begin()
        self.h2.send_data(first, bytes(16_000))
        self.h2.send_data(second, bytes(16_000))
        self.send()
        got = self.answers()
        self.assertEqual(got[second]["grpc-status"], "8")
        self.assertNotIn(first, got)
        self.h2.send_data(third, bytes(10_000))
        self.send()
        self.h2.send_data(first, bytes(4_100))
        self.send()
        self.assertEqual(self.answers()[first]["grpc-status"], "8")
        self.clock.advance(0.5)
        for _ in range(60):
            self.clock.advance(0.5)
        self.assertEqual(self.answers()[third]["grpc-status"], "4")
        self.assertEqual((self.server.unfinished, self.served._coming), (0, {}))
        self.assertFalse(self.is_lost())

    def test_unfinished_of_all(self) -> None:
        """All connections of a node share one bound; who is gone holds nothing."""
        self.patch(server, "MAX_ALL_UNFINISHED", 20_000)
        stream = self.begin()
        self.h2.send_data(stream, bytes(15_000))
        self.send()
        first, h2 = self.served, self.h2
        self.h2 = H2Connection(H2Configuration(True))
        self.h2.initiate_connection()
        self.served = self.meet()
        stream = self.begin()
        self.h2.send_data(stream, bytes(15_000))
        self.send()
        self.assertEqual(self.answers()[stream]["grpc-status"], "8")
        self.assertEqual(self.server.unfinished, 15_000)
        del h2
        first.connectionLost()
        self.assertEqual(self.server.unfinished, 0)

    def test_floods(self) -> None:
        """Frames that say nothing are borne for a while; then the connection is lost."""
        floods: dict[str, list[Any]] = {
            "pings": [PingFrame(0, b"12345678")] * 3000,
            "settings": [SettingsFrame(0)] * 3000,
            "empty": [DataFrame(1, b"")] * 3000,
            "crumbs": [DataFrame(1, b"ab")] * 3000,
            "resets of one": [RstStreamFrame(1, 8)] * 3000,
            "answers to no ping": [PingFrame(0, b"12345678", flags=["ACK"])] * 3000,
        }
        for name, frames in floods.items():
            self.h2 = H2Connection(H2Configuration(True))
            self.h2.initiate_connection()
            self.served = self.meet()
            self.begin()
            self.send()
            self.send(*frames)
            self.assertTrue(self.is_lost(), name)
            self.served.connectionLost()
            self.assertEqual(self.server.unfinished, 0)

    def _broken_off(self, streams: range) -> list[Frame]:
        """Calls that are broken off before their bodies came, as gRPC's clients do it too."""
        return [
            one
            for stream in streams
            for one in (
                HeadersFrame(stream, b"\x83\x86\x84", flags=["END_HEADERS"]),
                RstStreamFrame(stream, 8),
            )
        ]

    def test_broken_off(self) -> None:
        """Many calls that are broken off at once are no reason to lose who did it: the connection
        is not read for a while, and then it is."""
        self.send()
        self.send(*self._broken_off(range(1, 1801, 2)))
        self.assertEqual(self.wire.producerState, "producing")
        self.send(*self._broken_off(range(1801, 6001, 2)))
        self.assertFalse(self.is_lost())
        self.assertEqual(self.wire.producerState, "paused")
        for _ in range(18):
            self.clock.advance(0.1)
        self.assertEqual(self.wire.producerState, "paused")
        for _ in range(5):
            self.clock.advance(0.1)
        self.assertEqual(self.wire.producerState, "producing")
        for start in range(6001, 26001, 1000):
            self.send(*self._broken_off(range(start, start + 1000, 2)))
            for _ in range(5):
                self.clock.advance(0.1)
            self.assertEqual(self.wire.producerState, "producing")
        self.h2.highest_outbound_stream_id = 26001
        stream = self.begin()
        self.h2.send_data(stream, frame(b"hi"), True)
        self.wire.clear()
        self.send()
        self.assertEqual(self.answers()[stream]["grpc-status"], "0")

    def test_gone_while_unread(self) -> None:
        """Who is not read, and goes, is not waited for."""
        self.send()
        self.send(*self._broken_off(range(1, 6001, 2)))
        self.assertEqual(self.wire.producerState, "paused")
        self.served.connectionLost()
        for _ in range(40):
            self.clock.advance(0.1)
        self.assertEqual(self.wire.producerState, "paused")
        self.assertFalse(self.served.turn.wheel)

    def test_broken_off_late(self) -> None:
        """A call may be broken off when its answer is on the way."""
        for _ in range(300):
            stream = self.begin()
            self.h2.send_data(stream, frame(b"hi"), True)
            self.send()
            self.answers()
        self.send(RstStreamFrame(1, 8), RstStreamFrame(stream, 8))
        self.assertFalse(self.is_lost())
        stream = self.begin()
        self.h2.send_data(stream, frame(b"hi"), True)
        self.send()
        self.assertEqual(self.answers()[stream]["grpc-status"], "0")

    def test_chatter(self) -> None:
        """gRPC's Go peers ping at nearly each answer, and give windows: they are borne."""
        for _ in range(1000):
            stream = self.begin()
            self.h2.send_data(stream, frame(b"hi"), True)
            self.send(PingFrame(0, b"12345678"), PingFrame(0, b"12345678"))
            self.h2.receive_data(self.wire.value())
            self.wire.clear()
            self.h2.increment_flow_control_window(1)
        self.assertFalse(self.is_lost())

    def test_bombs(self) -> None:
        """Headers have a bound, whatever they are packed in."""
        many = HeadersFrame(1, b"\x40\x01a\x7f\x81\x1e" + b"a" * 4000 + b"\xbe" * 4000)
        endless = [ContinuationFrame(1, b"\0") for _ in range(100)]
        many.flags.add("END_HEADERS")
        for frames in ([many], [HeadersFrame(1, b"\0"), *endless], [DataFrame(8, b"x")]):
            self.h2 = H2Connection(H2Configuration(True))
            self.h2.initiate_connection()
            self.served = self.meet()
            self.send()
            self.send(*frames)
            self.assertTrue(self.is_lost())
            self.served.connectionLost()

    def test_deaf(self) -> None:
        """A peer that reads nothing has only so much kept for it."""
        self.patch(http2, "MAX_KEPT", 20_000)
        self.send()
        self.served.pauseProducing()
        for _ in range(100):
            for _ in range(10):
                stream = self.begin()
                self.h2.send_data(stream, frame(b""), True)
            self.send()
            if self.is_lost():
                break
            self.h2.streams.clear()  # it takes itself for answered
        self.assertTrue(self.is_lost())

    def test_never_begins(self) -> None:
        """A connection on which nothing comes is lost in time; so is half a preface."""
        for data in (b"", PREFACE[:10]):
            self.served = self.meet()
            self.served.dataReceived(data)
            for _ in range(62):
                self.clock.advance(0.5)
            self.assertTrue(self.is_lost())
            self.served.connectionLost()

    def test_too_many(self) -> None:
        """Connections have a bound; a place that is left is free."""
        for bound in ("MAX_CONNECTIONS", "MAX_HOST"):
            with mock.patch.object(server, bound, 2):
                other = self.meet()
                self.assertIsNone(self.server.buildProtocol(None))
                other.connectionLost()
                self.assertIsNotNone(self.meet())
                self.server.forget(next(iter(self.server.connections - {self.served})))

    def test_idle_makes_room(self) -> None:
        """Where there is no room, who has not called for longest goes, after a minute; who calls
        stays, and so does who waits for an answer."""
        self.patch(server, "MAX_HOST", 3)
        self.patch(server, "CALL_TIME", 1000.0)
        met: dict[str, tuple[Served, StringTransport, H2Connection]] = {}
        for name in ("idle", "calls", "waits"):
            if name != "idle":
                self.h2 = H2Connection(H2Configuration(True))
                self.h2.initiate_connection()
                self.served = self.meet()
            met[name] = self.served, self.wire, self.h2
            path = ECHO if name == "calls" else b"/test.Test/Hold"
            if name != "idle":
                stream = self.begin([(":path", path.decode()), *HEADERS[:2], *HEADERS[3:]])
                self.h2.send_data(stream, frame(b"hi"), True)
            self.send()
        self.clock.advance(0)
        for _ in range(130):
            self.clock.advance(0.5)
        self.served, self.wire, self.h2 = met["calls"]
        stream = self.begin()
        self.h2.send_data(stream, frame(b"hi"), True)
        self.send()
        new = self.meet()
        self.assertIn(new, self.server.connections)
        self.assertIsNone(self.server.buildProtocol(None))
        left = {name for name, (served, *_) in met.items() if served in self.server.connections}
        self.assertEqual(left, {"calls", "waits"})
        _, wire, h2 = met["idle"]
        self.assertTrue(wire.disconnecting)
        said: Any = h2.receive_data(wire.value())[-1]
        self.assertEqual((type(said), said.error_code, said.last_stream_id), (Gone, 0, 0))
        met["idle"][0].connectionLost()
        self.held[0].callback(b"")
        self.assertEqual(len(self.server.connections), 3)

    def test_room_for_others(self) -> None:
        """A node that is full of one host's idle connections has room for another's."""
        self.patch(server, "MAX_CONNECTIONS", 3)
        self.patch(server, "CALL_TIME", 1000.0)
        for _ in range(2):
            self.meet()
        for _ in range(130):
            self.clock.advance(0.5)
        there = IPv4Address("TCP", "10.0.0.7", 1)
        self.assertIsNotNone(self.server.buildProtocol(there))
        self.assertEqual(len(self.server.connections), 3)
        self.assertIsNotNone(self.server.buildProtocol(there))
        self.assertIsNone(self.server.buildProtocol(there))

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_any_bytes(self, data: st.DataObject) -> None:
        """Whatever comes, in whatever pieces: a reason, or nothing; never a traceback."""
        h2 = H2Connection(H2Configuration(True))
        h2.initiate_connection()
        h2.send_headers(1, HEADERS)
        h2.send_data(1, frame(b"hello"), True)
        raw = bytearray(h2.data_to_send())
        if data.draw(st.booleans()):
            raw += data.draw(st.binary(max_size=200))
        for _ in range(data.draw(st.integers(0, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        self.served = self.meet()
        while raw:
            size = data.draw(st.integers(1, len(raw)))
            self.served.dataReceived(bytes(raw[:size]))
            del raw[:size]
        self.served.connectionLost()
        self.assertEqual(self.server.unfinished, 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cuts(self) -> None:
        """Byte by byte it is the same."""
        for number in range(3):
            stream = self.begin()
            self.h2.send_data(stream, frame(b"%d" % number), True)
        for byte in self.h2.data_to_send():
            self.served.dataReceived(bytes((byte,)))
        self.clock.advance(0)
        self.assertEqual([got["grpc-status"] for got in self.answers().values()], ["0"] * 3)

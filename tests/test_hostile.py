"""Hostile peers of the library, and callbacks that do everything at the worst moment.

Rule: whatever a gateway or a guest says, and whatever is called from within a callback, nothing
breaks: each wait fires once, each end is told once, what is written is whole and in order, and
what is held stays within its bounds.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost

from fastway.endpoint import (
    Group,
    Json,
    Slow,
    VirtualConnection,
)
from fastway.endpoint.unread import OVERHEAD
from fastway.errors import BadMessage, ConnectionEnded, EndpointEnded, FastwayError
from tests.support.golden import (
    FIRST,
    PING,
    accept,
    close,
    command,
    connect,
    dial,
    packet,
    refuse,
    split,
)
from tests.support.logs import LogLines
from tests.support.rows import ACCEPTED, CLOSED, CONNECTED, HELLO
from tests.support.scripted import ClockTestCase, ScriptedGateway

Conn = VirtualConnection[Any]


class LyingGatewayTests(ClockTestCase):
    """A gateway that says what one in its senses does not."""

    def test_lies(self) -> None:
        """Each lie ends the connection with its reason; what was said before counts."""
        lies = {
            "opens what is open": connect(FIRST, 1),
            "accepts what nobody dialled": accept(FIRST + 1, 1),
            "accepts another id than was dialled": accept(FIRST + 1, 99),
            "refuses what nobody dialled": refuse(99),
            "closes a stranger": close(FIRST + 1),
            "speaks for a stranger": packet(FIRST + 1, b"x"),
            "opens number 0": connect(0, 1),
            "says what only an end says": dial(1),
            "knows other commands": command(6),
            "cuts a command": packet(0, b"\2\1\0"),
            "says nothing at all": packet(0),
            "gives a length below the least": struct.pack("<I", 3) + bytes(8),
            "gives a length above the largest": struct.pack("<I", 2**32 - 1),
        }
        for what, lie in lies.items():
            for cut in (0, 1):
                gateway = self.client()
                conn = self.connected(gateway)
                gateway.endpoint.dial(1).addErrback(lambda _: None)
                over, reading = gateway.endpoint.when_ended(), conn.receive()
                data = HELLO + (refuse(1) + accept(FIRST, 1) if "nobody" in what else lie) + HELLO
                for piece in [data[n : n + 1] for n in range(len(data))] if cut else [data]:
                    gateway.say(piece)
                error = self.assertEnded(gateway, EndpointEnded, abort=True)
                self.assertIsNotNone(error.cause, what)
                self.assertIn("broke the protocol", str(error))
                self.assertIs(self.successResultOf(over), error)
                self.assertEqual(self.successResultOf(reading), b"Hello")
                self.assertEqual(gateway.endpoint.connections, [])

    def test_pongs(self) -> None:
        """Answers to pings that nobody sent change nothing, however many."""
        gateway = self.client(ping_interval=8)
        gateway.say(PING * 10_000)
        self.assertIsNone(gateway.endpoint.ended)
        self.assertIsNone(gateway.endpoint.round_trip)
        asked = gateway.endpoint.ping()
        gateway.clock.advance(1)
        gateway.say(PING * 10_000)
        self.assertEqual(self.successResultOf(asked), 1.0)
        self.assertEqual(len(gateway.clock.getDelayedCalls()), 1)

    def test_opens(self) -> None:
        """A flood of opens leaves no more than may wait; each further one is closed."""
        gateway = self.server(accept_queue=10)
        gateway.log_in()
        count = 5000
        gateway.say(
            b"".join(connect(FIRST + n, 1) + packet(FIRST + n, b"x") for n in range(count))
        )
        self.assertEqual(len(gateway.endpoint.connections), 10)
        self.assertEqual(gateway.heard(), b"".join(close(FIRST + n) for n in range(10, count)))
        self.assertEqual(gateway.endpoint.link.unread.size, 10 * (1 + OVERHEAD))
        # Agreed to, nothing is left of them.
        gateway.say(b"".join(close(FIRST + n) for n in range(10, count)))
        self.assertEqual(len(gateway.endpoint.link.core.conns), 10)

    def test_opens_and_closes(self) -> None:
        """Opened, spoken to and closed at once, many times over: nothing is left behind."""
        gateway = self.server()
        gateway.log_in()
        got: list[bytes] = []

        async def handler(conn: Conn) -> None:
            async for message in conn:
                got.append(message)
                await conn.send(message)

        gateway.endpoint.serve(handler)
        with LogLines() as log:
            for n in range(500):
                gateway.say(
                    connect(FIRST + n, 1) + packet(FIRST + n, b"%d" % n) + close(FIRST + n)
                )
        self.assertEqual(got, [b"%d" % n for n in range(500)])
        self.assertEqual(log.lines, [])
        self.assertEqual((gateway.heard(), gateway.clock.getDelayedCalls()), (b"", []))
        link = gateway.endpoint.link
        self.assertEqual((link.conns, link.core.conns, link.unread.size), ({}, {}, 0))

    def test_same_id_again(self) -> None:
        """An id that is closed and opened in one read is another connection."""
        gateway = self.server()
        gateway.log_in()
        gateway.say(CONNECTED + HELLO + CLOSED + connect(FIRST, 2) + packet(FIRST, b"new"))
        old = self.successResultOf(gateway.endpoint.accept())
        new = self.successResultOf(gateway.endpoint.accept())
        self.assertEqual((old.remote_id, new.remote_id), (1, 2))
        self.assertEqual(self.successResultOf(old.receive()), b"Hello")
        self.assertEqual(self.successResultOf(new.receive()), b"new")
        self.assertEqual((old.ended is None, new.ended), (False, None))
        old.close()
        self.assertEqual(gateway.heard(), b"")
        self.assertFalse(old.tell(b"x"))

    def test_same_id_in_one_read(self) -> None:
        """What the old one's owner does before he is told of its end does not touch the new."""
        for how in range(4):
            gateway = self.server()
            gateway.log_in()
            gateway.say(CONNECTED)
            old = self.successResultOf(gateway.endpoint.accept())
            group = Group([old])
            given_up = gateway.endpoint.dial(3)
            gateway.heard()

            def said(_: Any, how: int = how, old: Conn = old, group: Group[Conn] = group) -> None:
                if how == 0:
                    self.assertFalse(old.tell(b"for the old"))
                elif how == 1:
                    old.close()
                elif how == 2:
                    self.assertEqual(group.tell(b"for the old"), 0)
                else:
                    old.send(b"for the old")

            said_by = old.receive().addCallback(said)
            if how == 3:
                given_up.cancel()
                self.failureResultOf(given_up, CancelledError)
                gateway.say(HELLO + CLOSED + accept(FIRST, 3) + packet(FIRST, b"x"))
                self.failureResultOf(said_by, ConnectionEnded)
                self.assertEqual(gateway.heard(), CLOSED)
                self.assertEqual(gateway.endpoint.connections, [])
                continue
            gateway.say(HELLO + CLOSED + connect(FIRST, 2) + packet(FIRST, b"new"))
            self.successResultOf(said_by)
            self.assertEqual(gateway.heard(), b"")
            new = self.successResultOf(gateway.endpoint.accept())
            self.assertEqual(self.successResultOf(new.receive()), b"new")
            self.assertTrue(new.tell(b"Hello"))
            self.assertEqual(gateway.heard(), HELLO)
            new.close()
            self.assertEqual(gateway.heard(), CLOSED)

    def test_never_answers(self) -> None:
        """A gateway that answers nothing: dials fail in their time, nothing grows."""
        gateway = self.client(ping_interval=8, ping_timeout=2, timeout_callback=lambda _: True)
        failed: list[Any] = []
        for _ in range(100):
            gateway.endpoint.dial(1, timeout=1).addErrback(failed.append)
            gateway.clock.advance(1)
        self.assertEqual(len(failed), 100)
        self.assertEqual(len(gateway.clock.getDelayedCalls()), 1)
        self.assertEqual(gateway.endpoint.link._dials, {})

    def test_dribble(self) -> None:
        """Byte by byte, all is as in one read."""
        data = ACCEPTED + HELLO + connect(FIRST + 1, 2) + packet(FIRST + 1, bytes(300)) + PING
        data += close(FIRST + 1) + packet(FIRST) + CLOSED
        seen: list[Any] = []
        for size in (1, 2, 7, len(data)):
            gateway = self.client()
            heard: list[Any] = []
            dialled, accepted = gateway.endpoint.dial(1), gateway.endpoint.accept()
            asked = gateway.endpoint.ping()
            for start in range(0, len(data), size):
                gateway.say(data[start : start + size])
            for conn in (self.successResultOf(dialled), self.successResultOf(accepted)):
                while conn.unread:
                    heard.append((conn.conn_id, self.successResultOf(conn.receive())))
                heard.append(str(conn.ended))
            self.successResultOf(asked)
            seen.append(heard)
        self.assertEqual(len(seen[0]), 5)
        self.assertEqual(seen, [seen[0]] * 4)


class HostileGuestTests(ClockTestCase):
    """A guest who means harm to a game server."""

    def room(self, count: int, **config: Any) -> tuple[ScriptedGateway, list[Conn]]:
        config.setdefault("accept_queue", count)
        gateway = self.server(**config)
        gateway.log_in()
        gateway.say(b"".join(connect(FIRST + n, 1 + n) for n in range(count)))
        gateway.heard()
        return gateway, gateway.endpoint.connections

    def test_floods(self) -> None:
        """Who floods unread messages is closed; nobody else is, and what he left is bounded."""
        gateway, conns = self.room(20, receive_buffer=10_000, receive_total=50_000)
        for conn in conns[1:]:
            gateway.say(packet(conn.conn_id, bytes(1000)))
        for size in (0, 1, 5000):
            for n in range(1000):
                if n % 50 == 0:
                    gateway.say(connect(FIRST + 1000 + 1000 * size + n, 1))
                gateway.say(packet(FIRST + 1000 + 1000 * size + n // 50 * 50, bytes(size)))
                self.assertLessEqual(gateway.endpoint.link.unread.size, 55_000 + OVERHEAD)
        gateway.say(packet(FIRST, bytes(5000)) * 100)
        self.assertEqual([conn.ended for conn in conns[1:]], [None] * 19)

    def test_deep_and_odd(self) -> None:
        """Deep JSON, lone surrogates, no JSON at all: that guest is closed, or what came in can
        go out again to the room."""
        bad = [
            b"[" * 200_000,
            b'{"a":' * 100_000,
            b'"\xed\xa0\x80"',
            b"\xff\xfe[\x00]\x00",
            b"NaN",
            b"1e999",
            b"9" * 10_000,
            b"",
        ]
        for data in bad:
            gateway, (conn, other) = self.room(2, message_format=Json())
            reading = conn.receive()
            gateway.say(packet(FIRST, data) + packet(FIRST + 1, b"1"))
            self.failureResultOf(reading, BadMessage)
            self.assertIsInstance(conn.ended, BadMessage)
            self.assertLess(len(str(conn.ended)), 1000)
            self.assertEqual(self.successResultOf(other.receive()), 1)
            self.assertIsNone(other.ended)

    def test_a_handler_each(self) -> None:
        """What a guest does to his handler is his own trouble: the others are served."""
        gateway = self.server(message_format=Json())
        gateway.log_in()
        room: Group[Conn] = Group()

        async def handler(conn: Conn) -> None:
            room.add(conn)
            async for message in conn:
                room.tell({"said": message["text"]})

        gateway.endpoint.serve(handler)
        gateway.say(b"".join(connect(FIRST + n, 1) for n in range(6)))
        gateway.say(packet(FIRST, b"1") + packet(FIRST + 1, b"{") + packet(FIRST + 2, b"{}"))
        gateway.say(packet(FIRST + 3, b'{"text": "' + b"x" * 524_262 + b'"}'))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        too_large = self.flushLoggedErrors(FastwayError)
        gateway.heard()
        gateway.say(packet(FIRST + 5, b'{"text": "hi"}'))
        told = split(gateway.heard())
        self.assertEqual(len(told), 3 - len(too_large))
        self.assertEqual({message for _, message in told}, {b'{"said":"hi"}'})

    def test_two_thousand_guests(self) -> None:
        """A lost gateway with 2000 guests: each is told once, nobody can send to a neighbour
        after the first was told, and calls grow no more than linearly."""
        count = 2000
        gateway, conns = self.room(count)
        room = Group(conns)
        told: Counter[int] = Counter()
        sent: list[Any] = []
        chance = random.Random(1)

        def ended(conn: Conn) -> None:
            told[conn.conn_id] += 1
            neighbour = conns[chance.randrange(count)]
            sent.append(neighbour.tell(b"left"))
            try:
                neighbour.send(b"left")
            except FastwayError:
                pass
            else:
                sent.append(True)
            sent.append(room.tell(b"left"))

        waits: list[Deferred[Any]] = []
        for conn in conns:
            conn.on_end(ended)
            waits += [conn.receive().addErrback(lambda _: None), conn.when_ended()]
        calls: Counter[str] = Counter()
        link = gateway.endpoint.link
        for name in ("is_open", "post", "tell_closed", "write"):
            self.patch(link, name, counting(calls, name, getattr(link, name)))
        over = gateway.endpoint.when_ended()
        gateway.gone()
        self.assertEqual(told, Counter(conn.conn_id for conn in conns))
        self.assertFalse(any(sent))
        self.assertTrue(all(wait.called for wait in waits))
        self.successResultOf(over)
        self.assertEqual(gateway.heard(), b"")
        self.assertEqual(len(room), 0)
        self.assertLessEqual(sum(calls.values()), 4 * count)


class CallbackTests(ClockTestCase):
    """Every verb from within every kind of callback, at the connection's every end."""

    where: str
    verb: Callable[[CallbackTests], Any]
    done: bool

    def setUp(self) -> None:
        self.watched: list[list[Any]] = []

    def watch(self, waiting: Deferred[Any]) -> Deferred[Any]:
        """Note what it fires with."""
        fired: list[Any] = []
        self.watched.append(fired)
        return waiting.addBoth(fired.append)

    def start(self) -> None:
        """A server with three guests in a group, and everything that one can wait for."""
        gateway = self.gateway = self.server(
            send_buffer=500,
            timeout_callback=lambda _: self.acted("timeout_callback"),
            network_callback=lambda *_: self.act("network_callback"),
        )
        gateway.log_in()
        endpoint = gateway.endpoint
        gateway.say(b"".join(connect(FIRST + n, 1) for n in range(3)))
        self.conns = [self.successResultOf(endpoint.accept()) for _ in range(3)]
        self.group = Group(self.conns, slow=Slow.CLOSE)
        self.watched.clear()
        self.ends: Counter[int] = Counter()
        for conn in self.conns:
            conn.on_end(self.ended)
        self.siblings: list[Deferred[Any]] = [
            endpoint.dial(1),
            endpoint.dial(1, timeout=2),
            endpoint.accept(),
            endpoint.ping(),
            endpoint.when_ended(),
            endpoint.when_gone(),
            *(conn.receive() for conn in self.conns),
            *(conn.when_ended() for conn in self.conns),
        ]
        for name, one in zip(NAMES, self.siblings, strict=False):
            self.watch(one.addBoth(self.called, name))
        gateway.transport.fill()
        for conn in self.conns:
            sending = conn.send(b"x")
            self.siblings.append(sending)
            self.watch(sending.addBoth(self.called, "send"))

    def called(self, result: Any, name: str) -> None:
        self.act(name)

    def ended(self, conn: Conn) -> None:
        self.ends[conn.conn_id] += 1
        self.act("on_end")

    def acted(self, name: str) -> bool:
        """As a timeout_callback that does not want to go on."""
        self.act(name)
        return False

    def act(self, name: str) -> None:
        """Every verb once, if this is the callback to do it in."""
        if name == self.where and not self.done:
            self.done = True
            self.verb(self)

    def check(self, what: str) -> None:
        """Each wait fired once; each end was told once; the books are right."""
        gateway = self.gateway
        gateway.transport.stuck = False
        if gateway.endpoint.ended is None:
            gateway.say(HELLO)
            gateway.transport.drain()
        if gateway.transport.connected:
            gateway.gone(ConnectionLost())
        gateway.clock.advance(100)
        self.assertEqual([len(fired) for fired in self.watched], [1] * len(self.watched), what)
        self.assertEqual(self.ends, Counter(conn.conn_id for conn in self.conns), what)
        self.assertEqual(gateway.clock.getDelayedCalls(), [], what)
        self.assertEqual(len(self.group), 0, what)
        self.assertEqual(gateway.endpoint.connections, [], what)
        self.assertEqual(self.flushLoggedErrors(FastwayError, CancelledError), [], what)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_every_verb(self) -> None:
        """Nothing breaks, and no wait fires twice or never."""
        for where, happens in HAPPENINGS:
            for name, verb in VERBS.items():
                self.where, self.verb, self.done = where, verb, False
                self.start()
                happens(self.gateway)
                what = f"{name} within {where}"
                self.assertTrue(self.done, what)
                self.check(what)


NAMES = (
    "dial",
    "dial",
    "accept",
    "ping",
    "when_ended",
    "when_gone",
    *["receive"] * 3,
    *["conn.when_ended"] * 3,
)


def attempted(case: CallbackTests, *calls: Callable[[], Any]) -> None:
    """What may be refused with one of our own errors; what waits is watched."""
    for call in calls:
        try:
            result = call()
        except FastwayError:
            continue
        if isinstance(result, Deferred):
            case.watch(result)


def each(call: Callable[[Any], object]) -> Callable[[CallbackTests], None]:
    """A verb that does something with each connection."""

    def verb(case: CallbackTests) -> None:
        for conn in case.conns:
            call(conn)

    return verb


def cancel(case: CallbackTests, step: int) -> None:
    for one in case.siblings[::step]:
        one.cancel()


def leave_group(case: CallbackTests) -> None:
    for conn in case.conns:
        case.group.discard(conn)


def raises(case: CallbackTests) -> None:
    raise ZeroDivisionError


def serve_and_stop(case: CallbackTests) -> None:
    async def handler(conn: Conn) -> None:
        await conn.receive()

    def both() -> Any:
        return case.gateway.endpoint.serve(handler).stop(0)

    attempted(case, both)


VERBS: dict[str, Callable[[CallbackTests], Any]] = {
    "close one": lambda case: case.conns[1].close(),
    "close all": each(lambda conn: conn.close()),
    "close the gateway": lambda case: attempted(case, case.gateway.endpoint.close),
    "cancel all": lambda case: cancel(case, 1),
    "cancel the last first": lambda case: cancel(case, -1),
    "dial": lambda case: attempted(
        case,
        lambda: case.gateway.endpoint.dial(1),
        lambda: case.gateway.endpoint.dial(1, timeout=1),
    ),
    "send": lambda case: attempted(
        case, *(lambda conn=conn: conn.send(bytes(100)) for conn in case.conns)
    ),
    "tell": each(lambda conn: conn.tell(bytes(100))),
    "receive": lambda case: attempted(case, *(conn.receive for conn in case.conns)),
    "wait": lambda case: attempted(
        case,
        case.gateway.endpoint.accept,
        case.gateway.endpoint.ping,
        case.gateway.endpoint.when_ended,
        case.gateway.endpoint.when_up,
        *(conn.when_ended for conn in case.conns),
    ),
    "tell the group": lambda case: [case.group.tell(bytes(200)) for _ in range(3)],
    "close the group": lambda case: case.group.close(),
    "leave the group": leave_group,
    "join the group": lambda case: [case.group.add(conn) for conn in case.conns],
    "clear the group": lambda case: case.group.clear(),
    "listen": lambda case: attempted(
        case, lambda: case.gateway.endpoint.listen(lambda conn: conn.close())
    ),
    "serve and stop": serve_and_stop,
    "lose the connection": lambda case: case.gateway.gone(),
    "raise": raises,
}

HAPPENINGS: list[tuple[str, Callable[[ScriptedGateway], Any]]] = [
    ("on_end", lambda gateway: gateway.say(close(FIRST) + close(FIRST + 1) + HELLO)),
    ("on_end", lambda gateway: gateway.gone(ConnectionLost())),
    ("on_end", lambda gateway: gateway.say(b"\0\0\0\0")),
    ("conn.when_ended", lambda gateway: gateway.say(CLOSED + connect(FIRST, 1))),
    ("conn.when_ended", lambda gateway: gateway.gone()),
    ("dial", lambda gateway: gateway.say(accept(FIRST + 5, 1) + refuse(1))),
    ("dial", lambda gateway: gateway.say(refuse(1) + accept(FIRST + 5, 1))),
    ("dial", lambda gateway: gateway.clock.advance(2)),
    ("dial", lambda gateway: gateway.gone()),
    ("accept", lambda gateway: gateway.say(connect(FIRST + 5, 1) + connect(FIRST + 6, 1))),
    ("accept", lambda gateway: gateway.gone()),
    ("receive", lambda gateway: gateway.say(HELLO * 3 + packet(FIRST + 1, b"x") + CLOSED)),
    ("receive", lambda gateway: gateway.say(CLOSED)),
    ("receive", lambda gateway: gateway.gone()),
    ("send", lambda gateway: gateway.transport.drain()),
    ("send", lambda gateway: gateway.transport.drain_once()),
    ("send", lambda gateway: gateway.gone()),
    ("ping", lambda gateway: gateway.say(PING)),
    ("ping", lambda gateway: gateway.gone()),
    ("timeout_callback", lambda gateway: gateway.clock.advance(5)),
    ("network_callback", lambda gateway: gateway.wire.stream_cut()),
    ("when_ended", lambda gateway: gateway.gone()),
    ("when_gone", lambda gateway: gateway.gone()),
]


def counting(calls: Counter[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **kw: Any) -> Any:
        calls[name] += 1
        return call(*args, **kw)

    return counted

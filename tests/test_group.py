"""Groups: telling many the same, at once and without waiting.

Rule: one member's state is never another's trouble, and what members do when they are told of an
end costs no more than a linear number of calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastway.endpoint import (
    Bytes,
    EndpointConfig,
    GatewayConnection,
    Group,
    Json,
    Slow,
    Text,
    VirtualConnection,
)
from fastway.errors import ConnectionEnded, MessageTooLarge
from fastway.formats import Encoded
from tests.support.errors import raised
from tests.support.golden import FIRST, close, connect, packet, split
from tests.support.scripted import ClockTestCase, ScriptedGateway

Conn = VirtualConnection[Any]


class Counting(Text):
    """Counts what it encodes, and may do something first."""

    def __init__(self, first: Callable[[], object] | None = None) -> None:
        self.encoded = 0
        self.first = first

    def encode(self, message: Any) -> bytes:
        self.encoded += 1
        if self.first is not None:
            self.first()
        return super().encode(message)


class GroupTestCase(ClockTestCase):
    def room(
        self, count: int, slow: Slow = Slow.SKIP, **config: Any
    ) -> tuple[ScriptedGateway, Group[Conn], list[Conn]]:
        """A server with so many who dialled it, all in one group."""
        config.setdefault("accept_queue", count)
        gateway = self.server(**config)
        gateway.log_in()
        gateway.say(b"".join(connect(FIRST + n, 1 + n) for n in range(count)))
        conns = gateway.endpoint.connections
        return gateway, Group(conns, slow=slow), conns


class MembersTests(GroupTestCase):
    def test_set(self) -> None:
        """An ordered set: twice is once, who has ended does not come in."""
        _, group, (one, two, three) = self.room(3)
        self.assertEqual((len(group), list(group)), (3, [one, two, three]))
        self.assertTrue(group.add(one))
        self.assertEqual(len(group), 3)
        group.discard(one)
        group.discard(one)
        self.assertNotIn(one, group)
        self.assertTrue(group.add(one))
        self.assertEqual(list(group), [two, three, one])
        two.close()
        self.assertFalse(group.add(two))
        self.assertEqual((list(group), repr(group)), ([three, one], "<Group of 2>"))
        self.assertNotIn(object(), group)
        group.clear()
        self.assertEqual((len(group), one.ended), (0, None))
        self.assertNotIn(group, one._circles or ())

    def test_forgets(self) -> None:
        """Who ends is forgotten, whatever way: closed by either end, a lost gateway."""
        gateway, group, conns = self.room(4)
        other = Group(conns)
        gateway.say(close(FIRST))
        conns[1].close()
        self.assertEqual((list(group), list(other)), (conns[2:], conns[2:]))
        gateway.gone()
        self.assertEqual((len(group), len(other)), (0, 0))

    def test_changed_amid(self) -> None:
        """It may be changed while it is iterated over."""
        _, group, conns = self.room(4)
        seen = []
        for conn in group:
            seen.append(conn)
            group.clear()
        self.assertEqual(seen, conns)

    def test_close(self) -> None:
        """All members are closed before anybody hears of it; a second time does nothing."""
        gateway, group, conns = self.room(3)
        told: list[int] = []
        for conn in conns:
            conn.on_end(lambda conn: told.append(group.tell(b"left")))
        group.close()
        self.assertEqual(told, [0, 0, 0])
        self.assertEqual(gateway.heard(), b"".join(close(FIRST + n) for n in range(3)))
        group.close()
        self.assertEqual((gateway.heard(), len(group)), (b"", 0))


class TellTests(GroupTestCase):
    def test_all(self) -> None:
        """All members get it in one write, in order."""
        gateway, group, _ = self.room(3)
        gateway.heard()
        self.assertEqual(group.tell(b"hello"), 3)
        self.assertEqual(gateway.transport.writes, 1)
        self.assertEqual(gateway.heard(), b"".join(packet(FIRST + n, b"hello") for n in range(3)))
        self.assertEqual(Group[Conn]().tell(b"x"), 0)
        self.assertEqual(group.missed, 0)

    def test_but_and_to(self) -> None:
        """All but one, but several, but a group, but what a generator gives; only some."""
        gateway, group, conns = self.room(4)
        one, two, three, four = conns
        stranger = self.room(1)[2][0]
        cases: list[tuple[dict[str, Any], list[Conn]]] = [
            ({"but": two}, [one, three, four]),
            ({"but": [one, four, stranger]}, [two, three]),
            ({"but": Group([one])}, [two, three, four]),
            ({"but": (conn for conn in (three, one))}, [two, four]),
            ({"but": ()}, conns),
            ({"to": [three, stranger, one, three]}, [three, one]),
            ({"to": (conn for conn in conns)}, conns),
            ({"to": [one, two], "but": one}, [two]),
            ({"to": []}, []),
        ]
        for kw, expected in cases:
            self.assertEqual(group.tell(b"x", **kw), len(expected))
            self.assertEqual(
                [conn_id for conn_id, _ in split(gateway.heard())],
                [conn.conn_id for conn in expected],
            )

    def test_encoded_once(self) -> None:
        """The message is encoded once for each format, however many have it."""
        gateway, group, conns = self.room(4)
        first, second = Counting(), Counting()
        for conn in conns[:2]:
            conn.message_format = first
        conns[2].message_format = second
        conns[3].message_format = Json()
        self.assertEqual(group.tell("é"), 4)
        self.assertEqual((first.encoded, second.encoded), (1, 1))
        self.assertEqual(
            [message for _, message in split(gateway.heard())],
            ["é".encode()] * 3 + ['"é"'.encode()],
        )
        self.assertEqual(group.tell(Encoded(b"raw")), 4)
        self.assertEqual((first.encoded, second.encoded), (1, 1))
        self.assertEqual([message for _, message in split(gateway.heard())], [b"raw"] * 4)

    def test_all_or_nobody(self) -> None:
        """What is too large, or cannot be encoded for one of them, nobody gets; nobody is lost."""
        gateway, group, conns = self.room(3, max_packet=100)
        error = raised(MessageTooLarge, group.tell, bytes(97))
        self.assertEqual((error.size, error.limit), (97, 96))
        conns[2].message_format = Json()
        raised(TypeError, group.tell, b"no JSON")
        conns[2].message_format = Text()
        raised(TypeError, group.tell, b"no text")
        self.assertEqual((gateway.heard(), len(group)), (b"", 3))
        conns[2].message_format = Bytes()
        self.assertEqual(group.tell(bytes(96)), 3)

    def test_largest_by_gateway(self) -> None:
        """Each gateway's own bound counts, for what its own members get."""
        small, _, (one,) = self.room(1, max_packet=20, message_format=Text())
        large, _, (two,) = self.room(1, max_packet=2000, message_format=Json())
        group = Group([one, two])
        raised(MessageTooLarge, group.tell, "x" * 17)
        self.assertEqual((small.heard(), large.heard()), (b"", b""))
        self.assertEqual(group.tell("x" * 16), 2)  # 18 bytes of JSON, where they fit
        self.assertEqual(split(large.heard())[0][1], b'"' + b"x" * 16 + b'"')
        both, group, conns = self.room(2, max_packet=20, message_format=Text())
        conns[1].message_format = Json()
        raised(MessageTooLarge, group.tell, "x" * 16)  # for the second's format only
        self.assertEqual(both.heard(), b"")

    def test_closing_in_the_same_read(self) -> None:
        """Who has left, which is about to be told, gets nothing, and nobody else notices."""
        gateway, group, conns = self.room(3)
        told: list[int] = []
        conns[0].receive().addCallback(lambda _: told.append(group.tell(b"x")))
        gateway.say(packet(FIRST, b"go") + close(FIRST + 1))
        self.assertEqual(told, [2])
        self.assertEqual([conn_id for conn_id, _ in split(gateway.heard())], [FIRST, FIRST + 2])

    def test_format_closes_members(self) -> None:
        """A member that is closed while the message is encoded gets none."""
        gateway, group, conns = self.room(3)
        for conn in conns:
            conn.message_format = Counting(conns[1].close)
        conns[0].message_format = conns[1].message_format = conns[2].message_format
        self.assertEqual(group.tell("x"), 2)
        self.assertEqual(
            gateway.heard(), close(FIRST + 1) + packet(FIRST, b"x") + packet(FIRST + 2, b"x")
        )

    def test_pieces(self) -> None:
        """A large broadcast is written in pieces, so that each sees whether there is room."""
        gateway, group, _ = self.room(40, send_buffer=100_000)
        gateway.heard()
        gateway.transport.stuck = True
        got = group.tell(bytes(50_000))
        # One piece fills the buffer, then one more packet may wait.
        self.assertEqual((got, group.missed), (6 + 1, 40 - 7))
        self.assertEqual(len(split(gateway.heard())), 7)

    def test_one_gateway_is_full(self) -> None:
        """Members of another gateway get it when one can take no more."""
        full, _, slow = self.room(2, send_buffer=0)
        free, _, fast = self.room(2)
        full.transport.fill()
        group = Group([slow[0], fast[0], slow[1], fast[1]])
        self.assertEqual((group.tell(b"x"), group.missed), (2, 2))
        self.assertEqual((full.heard(), len(split(free.heard()))), (b"", 2))
        self.assertEqual(len(group), 4)
        full.transport.drain()
        self.assertEqual((group.tell(b"x"), group.missed), (4, 2))

    def test_tell_in_tell(self) -> None:
        """Telling from within what telling calls: a member hears each once, none breaks."""
        gateway, group, conns = self.room(3)
        conns[0].message_format = Counting(lambda: group.tell(Encoded(b"in")))
        self.assertEqual(group.tell(Encoded(b"out")), 3)
        for conn in conns[1:]:
            conn.message_format = conns[0].message_format
        gateway.heard()
        self.assertEqual(group.tell("out"), 3)
        self.assertEqual(
            [message for _, message in split(gateway.heard())], [b"in"] * 3 + [b"out"] * 3
        )


class SlowTests(GroupTestCase):
    def test_close(self) -> None:
        """With CLOSE those who cannot take it are closed, all of them before any is told."""
        gateway, group, conns = self.room(3, Slow.CLOSE, send_buffer=20)
        gateway.transport.fill()
        told: list[int] = []
        for conn in conns:
            conn.on_end(lambda conn: told.append(group.tell(b"left")))
        self.assertEqual(group.tell(b"x" * 12), 1)
        self.assertEqual(list(group), [])  # what was told of the end was too much for the first
        self.assertEqual((told[-1], group.missed), (0, 3))
        for conn in conns[1:]:
            self.assertIn("slow", str(conn.ended))
        gateway.transport.drain()
        self.assertIsNone(gateway.endpoint.ended)

    def test_a_crowd_is_slow(self) -> None:
        """Five hundred slow ones whose ends are told to the rest: no recursion, few calls."""
        calls = 0

        def left(conn: Conn) -> None:
            nonlocal calls
            calls += 1
            group.tell(b"one left")

        gateway, group, conns = self.room(500, Slow.CLOSE, send_buffer=0)
        for conn in conns:
            conn.on_end(left)
        gateway.heard()
        gateway.transport.fill()
        self.assertEqual(group.tell(b"x"), 0)
        self.assertEqual((calls, len(group), group.missed), (500, 0, 500))
        self.assertEqual(gateway.heard(), b"".join(close(FIRST + n) for n in range(500)))
        self.assertEqual(self.flushLoggedErrors(), [])


class GuestTests(GroupTestCase):
    """What one guest can do to a room."""

    def test_largest_message(self) -> None:
        """A message of just the largest size, that grows by a prefix, costs nobody his place."""
        gateway, group, conns = self.room(5, max_packet=1000)
        said: list[bytes] = []
        conns[0].receive().addCallback(said.append)
        gateway.say(packet(FIRST, bytes(996)))
        error = raised(MessageTooLarge, group.tell, b"1: " + said[0])
        self.assertEqual((error.size, len(group)), (999, 5))
        self.assertEqual(group.tell(said[0]), 5)

    def test_leaving_in_a_crowd(self) -> None:
        """A gateway is lost with all its guests, whose leaving is told to the room: linear."""
        tells: list[int] = []

        def left(conn: Conn) -> None:
            tells.append(group.tell(b"one left"))

        gateway, group, conns = self.room(300)
        other, _, (stranger,) = self.room(1)
        group.add(stranger)
        for conn in conns:
            conn.on_end(left)
        gateway.gone()
        self.assertEqual(tells, [1] * 300)  # the guest at the other gateway hears each
        self.assertEqual(list(group), [stranger])
        self.assertEqual(len(split(other.heard())), 300)


class OneConnectionTests(GroupTestCase):
    """`tell` of a virtual connection."""

    def test_tell(self) -> None:
        """It is sent, or it is not: never a Deferred, never an error for one who has left."""
        gateway, _, (conn, *_) = self.room(2, send_buffer=30, max_packet=100)
        self.assertIs(conn.tell(b"x"), True)
        self.assertEqual(gateway.heard(), packet(FIRST, b"x"))
        raised(MessageTooLarge, conn.tell, bytes(97))
        raised(TypeError, conn.tell, "text")
        gateway.transport.fill()
        self.assertEqual([conn.tell(b"1234567"), conn.tell(b"1234567")], [True, True])
        self.assertIs(conn.tell(b""), False)
        self.assertEqual(len(split(gateway.heard())), 2)
        gateway.transport.drain()
        self.assertIs(conn.tell(b""), True)
        told: list[bool] = []
        conn.receive().addCallback(lambda _: told.append(conn.tell(b"x")))
        gateway.say(packet(FIRST) + close(FIRST))
        self.assertEqual((told, conn.tell(b"x")), ([False], False))
        self.assertIsInstance(conn.ended, ConnectionEnded)

    def test_counts_with_send(self) -> None:
        """What is told and what is sent share one bound, and draining frees both."""
        gateway, group, (one, two) = self.room(2, send_buffer=40)
        gateway.transport.fill()
        waiting = one.send(bytes(12))
        self.assertTrue(two.tell(bytes(12)))
        self.assertFalse(two.tell(b""))
        self.assertEqual((group.tell(b""), group.missed), (0, 2))
        gateway.transport.drain()
        self.successResultOf(waiting)
        self.assertEqual(group.tell(b""), 2)

    def test_typed(self) -> None:
        """`GatewayConnection.dial` with a format; what is Encoded goes as it is."""
        gateway = self.client()
        endpoint: GatewayConnection = gateway.endpoint
        self.assertIsInstance(endpoint.config, EndpointConfig)
        conn = self.connected(gateway)
        conn.message_format = Json()
        self.assertTrue(conn.tell({"a": 1}))
        self.assertTrue(conn.tell(Encoded(b"\0")))
        self.successResultOf(conn.send(Encoded(b"\1")))
        self.assertEqual(
            [message for _, message in split(gateway.heard())[-3:]], [b'{"a":1}', b"\0", b"\1"]
        )

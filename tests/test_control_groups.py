"""Groups whose gateway keeps a copy: whatever happens, each gets all that it was told, once.

Rule: the gateway carries out what it hears in order; what members got there is compared with what
`tell` said that they got.
"""

from __future__ import annotations

import gc
from typing import Any
from unittest.mock import patch
from weakref import ref

from fastway.endpoint import Group, Json, Slow, Text, VirtualConnection
from fastway.endpoint.mirror import LEAST
from fastway.errors import MessageTooLarge
from tests.support.control import asked
from tests.support.controlled import CONTROL, ControlledGateway, ControlTestCase
from tests.support.errors import raised
from tests.support.golden import FIRST, close, connect, split

Conn = VirtualConnection[Any]

CROWD = 2 * LEAST


class CopyTestCase(ControlTestCase):
    def crowd(
        self, count: int = CROWD, slow: Slow = Slow.SKIP, **config: Any
    ) -> tuple[ControlledGateway, Group[Conn], list[Conn]]:
        """A group whose gateway has a copy of it."""
        config.setdefault("accept_queue", count + 10)
        gateway = self.greeted(**config)
        conns: list[Conn] = gateway.guests(count)
        group = Group(conns, slow=slow)
        group.tell(b"first")
        gateway.settle()
        self.got(gateway, conns, b"first")
        return gateway, group, conns

    def got(self, gateway: ControlledGateway, conns: list[Conn], *messages: bytes) -> None:
        """This is what each of them got since the last call, and nobody else got anything."""
        gateway.carry_out()
        got = {conn_id: said for conn_id, said in gateway.got.items() if said}
        expected = {conn.conn_id: list(messages) for conn in conns} if messages else {}
        self.assertEqual(got, expected)
        gateway.got.clear()

    def verbs(self, data: bytes) -> list[str]:
        """What was asked, in bytes that were heard; "packet" for each other one."""
        return [
            asked(message)[0]["op"] if conn_id == CONTROL else "packet"
            for conn_id, message in split(data)
        ]


class CopyTests(CopyTestCase):
    """What goes over the link."""

    def test_one_copy(self) -> None:
        """Five hundred members, ten messages of 2.4 KB: each goes over the link once."""
        gateway = self.greeted(accept_queue=500)
        conns: list[Conn] = gateway.guests(500)
        group = Group(conns)
        gateway.heard()
        gateway.sent = 0
        message = bytes(2400)
        self.assertEqual(group.tell(message), 500)
        gateway.settle()
        singly = gateway.sent
        self.assertGreater(singly, 500 * 2400)
        gateway.sent = 0
        for _ in range(10):
            self.assertEqual(group.tell(message), 500)
            gateway.settle()
        self.assertLess(gateway.sent, 10 * (2400 + 100))
        self.got(gateway, conns, *[message] * 11)
        self.assertEqual(len(gateway.end.groups), 1)

    def test_small(self) -> None:
        """Few members, few of them, or two formats: singly, and the gateway hears of no group."""
        gateway = self.greeted(accept_queue=CROWD + 10)
        conns: list[Conn] = gateway.guests(CROWD)
        few = Group(conns[: LEAST - 1])
        self.assertEqual(few.tell(b"x"), LEAST - 1)
        self.assertEqual(set(self.verbs(gateway.heard())), {"packet"})
        mixed = Group(conns)
        conns[0].message_format = Json()
        self.assertEqual(mixed.tell([1], to=conns[:1]), 1)
        for conn in conns[1:]:
            conn.message_format = Text()
        self.assertEqual(mixed.tell("x"), CROWD)
        self.assertEqual(set(self.verbs(gateway.heard())), {"packet"})
        self.assertEqual(gateway.end.groups, {})

    def test_some(self) -> None:
        """`but` and `to`: those that are meant, by one copy where they are many."""
        gateway, group, conns = self.crowd()
        self.assertEqual(group.tell(b"x", but=conns[3]), CROWD - 1)
        self.assertEqual(self.verbs(gateway.transport.value()), ["push"])
        self.got(gateway, conns[:3] + conns[4:], b"x")
        self.assertEqual(group.tell(b"y", to=conns[:LEAST]), LEAST)
        self.assertEqual(self.verbs(gateway.transport.value()), ["push"])
        self.got(gateway, conns[:LEAST], b"y")
        self.assertEqual(group.tell(b"z", to=conns[:2]), 2)
        self.assertEqual(self.verbs(gateway.transport.value()), ["packet"] * 2)
        self.got(gateway, conns[:2], b"z")

    def test_whole(self) -> None:
        """As long as nobody comes or goes no member is looked at; `but` is left out."""
        gateway, group, conns = self.crowd()
        (stranger,) = gateway.guests(1, FIRST + 500)
        group.tell(b"1")
        with patch.object(type(gateway.endpoint.link), "is_open", side_effect=AssertionError):
            self.assertEqual(group.tell(b"2"), CROWD)
            self.got(gateway, conns, b"1", b"2")
            self.assertEqual(group.tell(b"3", but=[conns[0], stranger, conns[0]]), CROWD - 1)
            raised(MessageTooLarge, group.tell, bytes(gateway.endpoint.max_message + 1))
            group.discard(conns[0])
            raised(AssertionError, group.tell, b"x")
        self.assertEqual(group.tell(b"4"), CROWD - 1)
        self.got(gateway, conns[1:], b"3", b"4")

    def test_whole_but_few(self) -> None:
        """Where few are left that are meant, they are told singly."""
        gateway, group, conns = self.crowd()
        group.tell(b"1")
        self.assertEqual(group.tell(b"2", but=conns[LEAST - 1 :]), LEAST - 1)
        gateway.carry_out()
        self.assertEqual(gateway.got[conns[0].conn_id], [b"1", b"2"])
        self.assertEqual(gateway.got[conns[-1].conn_id], [b"1"])

    def test_whole_until_a_format_changes(self) -> None:
        gateway, group, conns = self.crowd()
        for conn in conns:
            conn.message_format = Text()
        group.tell("é")
        conns[0].message_format = Json()
        self.assertEqual(group.tell("é"), CROWD)
        gateway.carry_out()
        self.assertEqual(gateway.got[conns[0].conn_id], ["é".encode(), b'"\xc3\xa9"'])
        self.assertEqual(gateway.got[conns[1].conn_id], ["é".encode()] * 2)

    def test_whole_until_one_leaves(self) -> None:
        """Its Close came with another's, of which the room is told: it did not get that."""
        gateway, group, conns = self.crowd()
        group.tell(b"1")
        told: list[int] = []
        conns[0].on_end(lambda _: told.append(group.tell(b"2")))
        said = b"".join(close(conn.conn_id) for conn in conns[:2])
        for conn in conns[:2]:
            gateway.end.close(conn.conn_id, "peer_closed")
        gateway.say(said)
        self.assertEqual(told, [CROWD - 2])
        self.got(gateway, conns[2:], b"1", b"2")

    def test_as_many_others(self) -> None:
        """A copy with as many members as the group, which are not the same, is not whole."""
        gateway = self.greeted(accept_queue=5000)
        conns: list[Conn] = gateway.guests(3000)
        group = Group(conns[:1000])
        group.tell(b"1")
        gateway.settle()
        for conn in conns[1000:2000]:
            group.add(conn)
        group.tell(b"2")
        gateway.settle()
        for conn in conns[:2000]:
            group.discard(conn)
        for conn in conns[1000:]:
            group.add(conn)
        for message in (b"3", b"4", b"5", b"6", b"7"):
            self.assertEqual(group.tell(message), 2000)
            gateway.settle()
        self.assertEqual(gateway.got[conns[0].conn_id], [b"1", b"2"])
        self.assertEqual(gateway.got[conns[1999].conn_id], [b"2", b"3", b"4", b"5", b"6", b"7"])
        self.assertEqual(gateway.got[conns[2999].conn_id], [b"3", b"4", b"5", b"6", b"7"])

    def test_whole_and_refused(self) -> None:
        """All who were meant are told singly, late but once."""
        gateway, group, conns = self.crowd()
        group.tell(b"1")
        gateway.settle()
        gateway.denies.add("push")
        self.assertEqual(group.tell(b"2", but=conns[0]), CROWD - 1)
        gateway.settle()
        gateway.carry_out()
        self.assertEqual(gateway.got[conns[0].conn_id], [b"1"])
        self.assertEqual(gateway.got[conns[1].conn_id], [b"1", b"2"])

    def test_whole_and_unanswered(self) -> None:
        """Once all are in, one push a second is to be answered, and the others cost no answer."""
        gateway, group, conns = self.crowd()
        group.tell(b"0")
        gateway.settle()
        answered: list[int] = []
        for number, seconds in enumerate((0, 0.5, 0.4, 0.2, 0.1, 0)):
            gateway.clock.advance(seconds)
            self.assertEqual(group.tell(b"%d" % number, but=conns[:1]), CROWD - 1)
            gateway.carry_out()
            answered.append(len(gateway.end.answers))
            gateway.settle()
        self.assertEqual(answered, [1, 0, 0, 1, 0, 0])
        self.assertEqual(gateway.got.pop(conns[0].conn_id), [b"0"])
        self.got(gateway, conns[1:], b"0", *[b"%d" % number for number in range(6)])

    def test_whole_and_too_large(self) -> None:
        """What fits no packet with its request before it is told singly, answered or not."""
        gateway, group, conns = self.crowd()
        group.tell(b"0")
        gateway.settle()
        large = bytes(gateway.endpoint.max_message)
        for message in (large, b"1", large):
            self.assertEqual(group.tell(message), CROWD)
            gateway.settle()
        self.got(gateway, conns, b"0", large, b"1", large)

    def test_in_order_with_singles(self) -> None:
        """What is sent to one member before and after stands before and after."""
        gateway, group, conns = self.crowd()
        conns[0].tell(b"1")
        group.tell(b"2")
        conns[0].send(b"3")
        group.tell(b"4")
        gateway.carry_out()
        self.assertEqual(gateway.got[conns[0].conn_id], [b"1", b"2", b"3", b"4"])
        self.assertEqual(gateway.got[conns[1].conn_id], [b"2", b"4"])

    def test_joining(self) -> None:
        """Who joins while others are in the copy gets each message once."""
        gateway, group, conns = self.crowd()
        late: list[Conn] = gateway.guests(2, FIRST + 500)
        for conn in late:
            group.add(conn)
        for message in (b"1", b"2"):  # the join is not answered
            self.assertEqual(group.tell(message), CROWD + 2)
        self.got(gateway, conns + late, b"1", b"2")
        gateway.settle()
        self.assertEqual(group.tell(b"3"), CROWD + 2)
        self.assertEqual(self.verbs(gateway.transport.value()), ["push"])
        self.got(gateway, conns + late, b"3")

    def test_leaving(self) -> None:
        """Who left gets nothing more, who comes back does; who ended is gone."""
        gateway, group, conns = self.crowd()
        group.discard(conns[0])
        conns[1].close()
        self.assertEqual(group.tell(b"1"), CROWD - 2)
        self.got(gateway, conns[2:], b"1")
        group.add(conns[0])
        self.assertEqual(group.tell(b"2"), CROWD - 1)
        self.got(gateway, [conns[0], *conns[2:]], b"2")
        gateway.settle()
        gateway.leaves(conns[2].conn_id)
        self.assertEqual(group.tell(b"3"), CROWD - 2)
        self.assertEqual(self.verbs(gateway.transport.value()), ["push"])
        self.got(gateway, [conns[0], *conns[3:]], b"3")
        group.discard(conns[0])
        group.tell(b"4")
        self.assertEqual(self.verbs(gateway.transport.value()), ["leave", "push"])
        gateway.settle()
        (members,) = gateway.end.groups.values()
        self.assertEqual(members, {conn.conn_id for conn in conns[3:]})

    def test_join_fills_the_transport(self) -> None:
        """A push that would have to wait is not made: what is sent singly would overtake it."""
        gateway, group, conns = self.crowd()
        (late,) = gateway.guests(1, FIRST + 500)
        group.add(late)
        gateway.transport.stuck = True
        group.tell(b"1")
        group.tell(b"2")
        self.got(gateway, [*conns, late], b"1", b"2")
        gateway.transport.drain()
        gateway.settle()
        self.got(gateway, [])

    def test_join_ends_the_link(self) -> None:
        """What the full transport tells closes the link: `tell` still tells the others."""
        gateway, group, conns = self.crowd()
        (late,) = gateway.guests(1, FIRST + 500)
        group.add(late)
        group.discard(conns[0])

        class Stream:
            def endpoint_full(self) -> None:
                gateway.endpoint.close()

            def endpoint_drained(self) -> None:
                pass

        gateway.endpoint.link.streams.add(Stream())
        gateway.transport.stuck = True
        other = self.greeted()
        (stranger,) = other.guests(1)
        group.add(stranger)
        self.assertEqual(group.tell(b"x"), 1)
        self.got(other, [stranger], b"x")

    def test_small_packets(self) -> None:
        """Where a packet holds few numbers, several requests name the members; or none does."""
        gateway = self.greeted(accept_queue=CROWD, max_packet=400)
        conns: list[Conn] = []
        for number in range(CROWD):  # the facts of the tests are larger
            gateway.end.open(FIRST + number, 1 + number)
            gateway.say(connect(FIRST + number, 1 + number))
        conns = gateway.endpoint.connections
        group = Group(conns)
        for message in (b"1", b"2", b"3", b"4"):
            self.assertEqual(group.tell(message), CROWD)
            gateway.settle()
        self.got(gateway, conns, b"1", b"2", b"3", b"4")
        largest = bytes(gateway.endpoint.max_message)
        self.assertEqual(group.tell(largest), CROWD)
        self.got(gateway, conns, largest)

    def test_many_left_out(self) -> None:
        """More than a request may name are left out, or leave: singly."""
        count = 1000 + CROWD
        gateway, group, conns = self.crowd(count)
        group.tell(b"again")
        gateway.settle()
        gateway.got.clear()
        self.assertEqual(group.tell(b"x", to=conns[:LEAST]), LEAST)
        self.got(gateway, conns[:LEAST], b"x")
        for conn in conns[LEAST:]:
            group.discard(conn)
        for message in (b"y", b"z"):
            self.assertEqual(group.tell(message), LEAST)
            gateway.settle()
        self.got(gateway, conns[:LEAST], b"y", b"z")

    def test_pace(self) -> None:
        """More messages in a moment than requests are let through: all come, in order."""
        gateway, group, conns = self.crowd()
        messages = [str(number).encode() for number in range(300)]
        for message in messages:
            self.assertEqual(group.tell(message), CROWD)
        self.got(gateway, conns, *messages)
        gateway.settle()
        gateway.clock.advance(1)
        self.got(gateway, [])


class RefusalTests(CopyTestCase):
    """A gateway that will not, or has no such thing."""

    def test_join_refused(self) -> None:
        """The group is full there: all are told singly, and nothing is asked again."""
        gateway = self.greeted(accept_queue=CROWD + 10)
        gateway.end.group_members = 3
        conns: list[Conn] = gateway.guests(CROWD)
        group = Group(conns)
        for message in (b"1", b"2", b"3"):
            self.assertEqual(group.tell(message), CROWD)
            gateway.settle()
        self.got(gateway, conns, b"1", b"2", b"3")
        group.tell(b"4")
        self.assertEqual(self.verbs(gateway.heard()), ["packet"] * CROWD)

    def test_later_join_refused(self) -> None:
        """It was not full before: those who are in stay told, and the copy is given up."""
        gateway, group, conns = self.crowd()
        gateway.end.group_members = CROWD
        late: list[Conn] = gateway.guests(1, FIRST + 500)
        group.add(late[0])
        for message in (b"1", b"2", b"3"):
            self.assertEqual(group.tell(message), CROWD + 1)
            gateway.settle()
        self.got(gateway, conns + late, b"1", b"2", b"3")
        gateway.control.time()  # the next who asks for something sends what is to be left
        gateway.settle()
        self.assertEqual(gateway.end.groups, {})

    def test_push_refused(self) -> None:
        """Those who were to get it are told singly, late but once."""
        gateway, group, conns = self.crowd()
        gateway.denies.add("push")
        self.assertEqual(group.tell(b"1"), CROWD)
        self.assertEqual(group.tell(b"2"), CROWD)
        conns[0].close()
        gateway.settle()
        self.got(gateway, conns[1:], b"1", b"2")
        gateway.denies.clear()
        self.assertEqual(group.tell(b"3"), CROWD - 1)
        self.got(gateway, conns[1:], b"3")

    def test_push_refused_and_full(self) -> None:
        """Who cannot take it then has missed it, as any slow member."""
        for slow in (Slow.SKIP, Slow.CLOSE):
            gateway, group, conns = self.crowd(slow=slow, send_buffer=20)
            gateway.denies.add("push")
            self.assertEqual(group.tell(b"x"), CROWD)
            gateway.carry_out()
            gateway.transport.fill()
            gateway.reply()
            self.assertEqual(group.missed, CROWD - 2)
            self.assertEqual(len(group), CROWD if slow is Slow.SKIP else 2)
            gateway.transport.drain()
            self.got(gateway, conns[:2], b"x")

    def test_slow_to_answer(self) -> None:
        """No answer in time: nobody gets anything twice, and all is told singly from then on."""
        gateway, group, conns = self.crowd()
        self.assertEqual(group.tell(b"1"), CROWD)
        gateway.carry_out()
        gateway.clock.advance(10)
        self.assertEqual(group.tell(b"2"), CROWD)
        gateway.settle()
        self.got(gateway, conns, b"1", b"2")

    def test_only_the_control_connection_ends(self) -> None:
        """The gateway closes it, or breaks it: singly from then on."""
        for ends in (close(CONTROL), b"\5\0\0\0" + CONTROL.to_bytes(4, "little") + b"x"):
            gateway, group, conns = self.crowd()
            gateway.say(ends)
            gateway.carry_out()
            for message in (b"1", b"2"):
                self.assertEqual(group.tell(message), CROWD)
            self.got(gateway, conns, b"1", b"2")

    def test_without_groups(self) -> None:
        """A gateway whose features do not name them is asked for none."""
        gateway = self.greeted(accept_queue=CROWD + 10)
        gateway.guests(CROWD)
        control = gateway.control
        assert control.welcome is not None
        self.assertTrue(control.can_push(1))
        with patch.object(type(control.welcome), "features", frozenset()):
            self.assertFalse(control.can_push(1))

    def test_two_gateways(self) -> None:
        """One keeps groups, one has no control connection: each gets it as it can."""
        one = self.greeted(accept_queue=CROWD + 10)
        other = self.server(accept_queue=CROWD)
        other.log_in()
        other.say(b"".join(connect(FIRST + n, 1 + n) for n in range(CROWD)))
        here: list[Conn] = one.guests(CROWD)
        group = Group([*here, *other.endpoint.connections])
        group.tell(b"1")
        one.settle()
        other.heard()
        self.assertEqual(group.tell(b"2"), 2 * CROWD)
        self.assertEqual(self.verbs(one.transport.value()), ["push"])
        self.assertEqual(len(split(other.heard())), CROWD)
        self.got(one, here, b"1", b"2")
        one.gone()
        self.assertEqual(group.tell(b"3"), CROWD)
        self.assertEqual(len(split(other.heard())), CROWD)
        self.assertEqual(group.missed, 0)


class EndTests(CopyTestCase):
    """A group that is no more."""

    def test_cleared(self) -> None:
        """All leave, however many, also those whose join is not answered; it may begin anew."""
        for settles in (True, False):
            gateway = self.greeted(accept_queue=2500)
            conns: list[Conn] = gateway.guests(2500)
            group = Group(conns)
            for _ in range(3):
                group.tell(b"x")
                if settles:
                    gateway.settle()
            group.clear()
            gateway.settle()
            self.assertEqual(gateway.end.groups, {})
            gateway.got.clear()
            for conn in conns[:CROWD]:
                group.add(conn)
            for message in (b"1", b"2"):
                self.assertEqual(group.tell(message), CROWD)
                gateway.settle()
            self.got(gateway, conns[:CROWD], b"1", b"2")
            self.assertEqual(len(gateway.end.groups), 1)

    def test_cleared_when_full(self) -> None:
        """They leave when there is room."""
        gateway, group, _ = self.crowd()
        gateway.transport.fill()
        group.clear()
        gateway.settle()
        self.assertEqual(len(gateway.end.groups), 1)
        gateway.transport.drain()
        gateway.settle()
        self.assertEqual(gateway.end.groups, {})

    def test_dropped(self) -> None:
        """Nobody has it any more: nothing is kept of it here, and all leave with the next word."""
        gateway, group, conns = self.crowd()
        gone = ref(group)
        del group
        gc.collect()
        self.assertIsNone(gone())
        self.assertFalse(any(conn._enders for conn in conns))
        gateway.carry_out()
        gateway.control.time()
        gateway.settle()
        self.assertEqual(gateway.end.groups, {})
        self.assertEqual(gateway.clock.getDelayedCalls(), [])

    def test_dropped_sends_nothing(self) -> None:
        """The collector runs anywhere, in any thread: nothing is written by it."""
        gateway, group, _ = self.crowd()
        gateway.heard()
        del group
        gc.collect()
        self.assertEqual(gateway.transport.writes, 0)

    def test_never_made(self) -> None:
        """A group that could not be made is dropped without a word."""
        lost: list[Any] = []
        with patch("sys.unraisablehook", lost.append):
            raised(TypeError, Group, nonsense=1)
            gc.collect()
        self.assertEqual(lost, [])

    def test_gateways_come_and_go(self) -> None:
        """A group that lives long keeps nothing of gateways that are gone."""
        group: Group[Conn] = Group()
        links = []
        for _ in range(5):
            gateway = self.greeted(accept_queue=CROWD + 10)
            for conn in gateway.guests(CROWD):
                group.add(conn)
            group.tell(b"x")
            gateway.settle()
            links.append(ref(gateway.endpoint.link))
            gateway.gone()
        del gateway, conn
        gc.collect()
        self.assertLessEqual(len([link for link in links if link() is not None]), 1)

"""What a game server has of its control connection: one body for every gateway there is.

Rule: only what the contract says; what a test wants to know it asks the players and the server.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from fastway.endpoint import Group
from fastway.endpoint.mirror import LEAST
from fastway.errors import RequestRefused
from tests.support.beds import Bed

CROWD = LEAST + 4


class ControlChecks(TestCase):
    """Give it `open`."""

    async def open(self, group_members: int = 1000) -> Bed:
        """A server that is greeted, and its gateway."""
        raise NotImplementedError

    async def refused(self, waiting: Any) -> str:
        """The code with which the gateway says no."""
        try:
            result = await waiting
        except RequestRefused as error:
            return error.code
        raise AssertionError(f"it was not refused: {result!r}")

    async def answer(self, bed: Bed, waiting: Any) -> Any:
        """The answer to a request."""
        await bed.settle()
        return await waiting

    async def expect(self, bed: Bed, conns: list[Any], *messages: bytes) -> None:
        """Each gets these next, and nothing else before a last word."""
        for conn in conns:
            conn.tell(b"the last word")
        for conn in conns:
            got = await bed.got(conn, len(messages) + 1)
            self.assertEqual(got, [*messages, b"the last word"], conn)

    async def test_welcome(self) -> None:
        bed = await self.open()
        welcome = bed.control.welcome
        assert welcome is not None
        self.assertIn("groups", welcome.features)
        self.assertEqual(welcome.max_packet, 512 * 1024)
        self.assertGreater(await self.answer(bed, bed.control.time()), 1_600_000_000)

    async def test_facts(self) -> None:
        """They are there with the connection; a name is in those of the next one who asks."""
        bed = await self.open()
        one, two = await bed.guests(2)
        self.assertNotEqual(one.remote_id, two.remote_id)
        for conn in (one, two):
            assert conn.facts is not None
            self.assertEqual((conn.facts.client, conn.facts.user), (conn.remote_id, None))
        self.assertIsNone(await self.answer(bed, bed.control.user(one, "ann \u00e9")))
        for who in (one, one.remote_id):
            facts = await self.answer(bed, bed.control.who(who))
            self.assertEqual((facts.client, facts.user), (one.remote_id, "ann \u00e9"))
        self.assertIsNone((await self.answer(bed, bed.control.who(two))).user)

    async def test_reasons(self) -> None:
        """Who closes a connection is told apart."""
        bed = await self.open()
        (conn,) = await bed.guests(1)
        await bed.leaves(conn)
        self.assertEqual(str(conn.ended), "closed by the far end: peer_closed")

    async def test_kick(self) -> None:
        bed = await self.open()
        one, two = await bed.guests(2)
        self.assertIsNone(await self.answer(bed, bed.control.kick(one, "out", 4001)))
        if bed.kicks:
            await one.when_ended()
            self.assertEqual(str(one.ended), "closed by the far end: kicked_by_server")
        self.assertIsNone(two.ended)
        await self.expect(bed, [two])

    async def test_refusals(self) -> None:
        """Nobody there, no such group, and one that is full: each with its code."""
        bed = await self.open(group_members=2)
        conns = await bed.guests(3)
        control = bed.control
        for waiting, code in (
            (control.who(999_999), "gone"),
            (control.kick(999_999), "denied"),
            (control.push(b"x", group="nobody"), "gone"),
            (control.join("room", conns), "full"),
        ):
            await bed.settle()
            self.assertEqual(await self.refused(waiting), code)
        self.assertEqual(await self.answer(bed, control.join("room", conns[:2])), 2)
        await self.expect(bed, conns)

    async def test_pushes(self) -> None:
        """To a group, to connections, to all, but to some; empty and large; once each."""
        bed = await self.open()
        conns = await bed.guests(4)
        control = bed.control
        large = bytes(range(256)) * 1000
        self.assertEqual(await self.answer(bed, control.join("room", conns[:3])), 3)
        self.assertEqual(await self.answer(bed, control.leave("room", conns[2:])), 2)
        for ask, sent in (
            (control.push(b"room", group="room"), 2),
            (control.push(b"but", group="room", but=conns[1:]), 1),
            (control.push(large, conns=[conns[3], conns[0], conns[3]]), 2),
            (control.push(b"", everyone=True), 4),
            (control.push(b"\n{}", everyone=True, but=conns[:3]), 1),
        ):
            self.assertEqual((await self.answer(bed, ask)).sent, sent)
        await self.expect(bed, conns[:1], b"room", b"but", large, b"")
        await self.expect(bed, conns[1:2], b"room", b"")
        await self.expect(bed, conns[2:3], b"")
        await self.expect(bed, conns[3:], large, b"", b"\n{}")

    async def test_in_order(self) -> None:
        """What is pushed stands between what is sent before and after."""
        bed = await self.open()
        conns = await bed.guests(3)
        control = bed.control
        waits = []
        for number in range(0, 60, 3):
            for conn in conns:
                conn.tell(b"%d" % number)
            waits.append(control.push(b"%d" % (number + 1), everyone=True))
            waits.append(control.push(b"%d" % (number + 2), conns=conns))
        await bed.settle()
        self.assertEqual({(await one).sent for one in waits}, {3})
        await self.expect(bed, conns, *[b"%d" % number for number in range(60)])

    async def test_group(self) -> None:
        """A room in which people come and go: each hears what is said while he is in it."""
        bed = await self.open()
        conns = await bed.guests(CROWD)
        group = Group(conns)
        self.assertEqual(group.tell(b"1"), CROWD)
        await bed.settle()
        self.assertEqual(group.tell(b"2"), CROWD)
        self.assertEqual(group.tell(b"3", but=conns[0]), CROWD - 1)
        late = await bed.guests(2)
        for conn in late:
            group.add(conn)
        group.discard(conns[1])
        self.assertEqual(group.tell(b"4"), CROWD + 1)
        await bed.leaves(conns[2])
        conns[3].close()
        self.assertEqual(group.tell(b"5"), CROWD - 1)
        await bed.settle()
        self.assertEqual(group.tell(b"6"), CROWD - 1)
        self.assertEqual(bed.groups(), 1)
        await self.expect(bed, conns[:1], b"1", b"2", b"4", b"5", b"6")
        await self.expect(bed, conns[1:2], b"1", b"2", b"3")
        await self.expect(bed, conns[4:], b"1", b"2", b"3", b"4", b"5", b"6")
        await self.expect(bed, late, b"4", b"5", b"6")
        group.clear()
        await bed.settle()
        self.assertEqual(bed.groups(), 0)

    async def test_group_that_is_full_there(self) -> None:
        """All are told singly, and the gateway keeps nothing."""
        bed = await self.open(group_members=CROWD - 1)
        conns = await bed.guests(CROWD)
        group = Group(conns)
        for message in (b"1", b"2", b"3"):
            self.assertEqual(group.tell(message), CROWD)
            await bed.settle()
        await self.expect(bed, conns, b"1", b"2", b"3")
        self.assertEqual(bed.groups(), 0)

    async def test_group_of_many(self) -> None:
        """More members than a request may name, and than are told in one slice."""
        bed = await self.open(group_members=2000)
        conns = await bed.guests(1)
        conns += await bed.guests(CROWD)
        group = Group(conns)
        for number in range(300):
            self.assertEqual(group.tell(b"%d" % number), CROWD + 1)
            if number % 50 == 0:
                await bed.settle()
        await self.expect(bed, conns, *[b"%d" % number for number in range(300)])

    async def test_draining(self) -> None:
        """It is told, and why the link ends."""
        bed = await self.open()
        waits = bed.control.when_draining()
        await bed.drains(1.5, 61.5, True)
        draining = await waits
        self.assertEqual((draining.at, draining.until, draining.again), (1.5, 61.5, True))
        control = bed.control
        await bed.stop()
        self.assertEqual(str(bed.endpoint.ended), "closed by the gateway: shutdown")
        assert control.bye is not None
        self.assertEqual(control.bye.reason, "shutdown")

"""The control connection in asyncio, over real sockets to a gateway that is a script.

Rule: the logic has its own tests; here is what asyncio makes of it: futures, tasks, cancelling.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fastway.aio.connect import connect_server
from fastway.aio.connection import GatewayConnection
from fastway.control import Bye, Draining, PlayerFacts
from fastway.endpoint import EndpointConfig, Group
from fastway.endpoint.mirror import LEAST
from fastway.errors import (
    ConnectionEnded,
    EndpointEnded,
    FastwayError,
    NoControl,
    RequestRefused,
)
from tests.support.control import FACTS, UNIX, ControlEnd, told
from tests.support.controlled import CONTROL, inline
from tests.support.golden import FIRST, KEY, PING, accept, close, connect, dial, packet, refuse
from tests.support.scripted import CHALLENGE, SERVER_ID

SECONDS = 60.0
"""Within which anything must happen."""

Story = Callable[["ScriptedServer", GatewayConnection], Awaitable[None]]


class ScriptedServer:
    """A gateway's server port for one server.

    Attributes:
        end: The control connection's other end; None: it has none.
        got: conn_id -> what it was sent, singly and by pushes.
        packets: Those that came singly.
        answers: It answers requests at once.
    """

    def __init__(self, controlled: bool) -> None:
        self.end = ControlEnd() if controlled else None
        self.got: defaultdict[int, list[bytes]] = defaultdict(list)
        self.packets = 0
        self.answers = True
        self._changed = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.say = writer.write
        self.stop = writer.close
        writer.write(CHALLENGE)
        await reader.readexactly(20 + len(PING))
        writer.write(PING)
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "little")
                data = await reader.readexactly(size)
                self._heard(int.from_bytes(data[:4], "little"), data[4:])
                self._changed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _heard(self, conn_id: int, message: bytes) -> None:
        end = self.end
        if packet(conn_id, message) == dial(0):
            self.say(refuse(0) if end is None else accept(CONTROL, 0))
        elif conn_id == CONTROL:
            assert end is not None
            before = len(end.pushed)
            end.hear(message)
            for one, data in end.pushed[before:]:
                self.got[one].append(data)
            if self.answers:
                for number in list(end.answers):
                    self.say(packet(CONTROL, end.answers.pop(number)))
        elif conn_id:
            self.packets += 1
            self.got[conn_id].append(message)

    def opens(self, number: int, client: int) -> None:
        """A client dials the server."""
        assert self.end is not None
        self.say(inline(connect(number, client), self.end.open(number, client)))

    async def until(self, condition: Callable[[], object]) -> None:
        """Something that was heard makes it so."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()


class AioTests(SynchronousTestCase):
    """A server on asyncio."""

    def play(self, story: Story, controlled: bool = True) -> None:
        async def main() -> None:
            script = ScriptedServer(controlled)
            server = await asyncio.start_server(script.talk, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            config = EndpointConfig(ping_interval=0)
            problems: list[Any] = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: problems.append(context))
            try:
                async with connect_server(f"127.0.0.1:{port}", SERVER_ID, KEY, config) as gateway:
                    await story(script, gateway)
            finally:
                server.close()
            self.assertEqual(problems, [])

        asyncio.run(asyncio.wait_for(main(), SECONDS))

    async def fails(self, kind: type[FastwayError], waiting: Any) -> Any:
        try:
            result = await waiting
        except kind as error:
            return error
        raise AssertionError(f"no {kind.__name__}, but {result!r}")

    def test_none(self) -> None:
        """A gateway that has none: None, at once and later."""

        async def story(script: ScriptedServer, gateway: GatewayConnection) -> None:
            self.assertIsNone(await gateway.when_control())
            self.assertIsNone(await gateway.when_control())
            self.assertIsNone(gateway.control)
            script.say(connect(FIRST, 1) + packet(FIRST, b"hello"))
            conn = await gateway.accept()
            self.assertEqual((await conn.receive(), conn.facts), (b"hello", None))

        self.play(story, False)

    def test_asked_and_told(self) -> None:
        """Facts come with the connection, answers to who asked, and reasons with the end."""

        async def story(script: ScriptedServer, gateway: GatewayConnection) -> None:
            control = await gateway.when_control()
            assert control is not None
            self.assertIs(gateway.control, control)
            script.opens(FIRST, 7)
            conn = await gateway.accept()
            self.assertEqual(conn.facts, PlayerFacts.read(FACTS))
            await control.user(conn, "ann")
            self.assertEqual((await control.who(conn)).user, "ann")
            self.assertEqual(await control.time(), UNIX)
            self.assertEqual(await control.join("room", [conn]), 1)
            self.assertEqual((await control.push(b"x", group="room")).sent, 1)
            error = await self.fails(RequestRefused, control.who(99))
            self.assertEqual(error.code, "gone")
            await control.kick(conn)
            script.say(packet(CONTROL, told("moved", client=7, addr="::1")))
            script.say(inline(close(FIRST), told("closed", conn=FIRST, reason="kicked")))
            self.assertEqual(
                str(await self.fails(ConnectionEnded, conn.receive())),
                "closed by the far end: kicked",
            )
            self.assertEqual(conn.facts and conn.facts.addr, "::1")
            draining = control.when_draining()
            script.say(packet(CONTROL, told("drain", at=1, until=2, again=True)))
            self.assertEqual(await draining, Draining(1.0, 2.0, True))
            self.assertEqual(await control.when_draining(), Draining(1.0, 2.0, True))
            script.say(packet(CONTROL, told("bye", code=1001, reason="shutdown")))
            script.stop()
            ended = await gateway.when_ended()
            self.assertEqual(str(ended), "closed by the gateway: shutdown")
            self.assertEqual(control.bye, Bye(1001, "shutdown"))
            self.assertIsNone(await gateway.when_control())

        self.play(story)

    def test_given_up(self) -> None:
        """A task that is cancelled while it waits; the others go on."""

        async def story(script: ScriptedServer, gateway: GatewayConnection) -> None:
            control = await gateway.when_control()
            assert control is not None and script.end is not None
            end = script.end
            script.answers = False

            async def ask() -> float:
                return float(await control.time())

            tasks = [asyncio.create_task(ask()) for _ in range(3)]
            await script.until(lambda: len(end.answers) == 3)
            tasks[1].cancel()
            for number in list(end.answers):
                script.say(packet(CONTROL, end.answers.pop(number)))
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self.assertEqual((results[0], results[2]), (UNIX, UNIX))
            self.assertIsInstance(results[1], asyncio.CancelledError)
            self.assertFalse(control._waiters)

        self.play(story)

    def test_ends(self) -> None:
        """Only the control connection ends: who waits is told, players notice nothing."""

        async def story(script: ScriptedServer, gateway: GatewayConnection) -> None:
            control = await gateway.when_control()
            assert control is not None
            script.answers = False
            waits = [control.time(), control.when_draining()]
            script.say(packet(CONTROL, b"garbage"))
            for one in waits:
                await self.fails(NoControl, one)
            self.assertIsNone(gateway.control)
            self.assertIsNone(await gateway.when_control())
            script.say(connect(FIRST, 1) + packet(FIRST, b"hello"))
            self.assertEqual(await (await gateway.accept()).receive(), b"hello")

        self.play(story)

    def test_link_ends(self) -> None:
        """The link is closed here: so do all who wait, and nobody looks at some of them."""

        async def story(script: ScriptedServer, gateway: GatewayConnection) -> None:
            control = await gateway.when_control()
            assert control is not None
            script.answers = False
            asked, drains, _ = control.time(), control.when_draining(), control.time()
            await gateway.close()
            await self.fails(NoControl, asked)
            await self.fails(EndpointEnded, drains)

        self.play(story)

    def test_group(self) -> None:
        """One copy for all, in order with what is sent singly; those who come late too."""

        async def story(script: ScriptedServer, gateway: GatewayConnection) -> None:
            control = await gateway.when_control()
            assert control is not None and script.end is not None
            end = script.end
            count = 2 * LEAST
            group: Group[Any] = Group()
            for number in range(FIRST, FIRST + count):
                script.opens(number, number)
                group.add(await gateway.accept())
            (first, *_) = group
            group.tell(b"1")
            while not end.groups or end.answers:
                await control.time()
            await control.time()
            singly = script.packets
            await first.send(b"2")
            self.assertEqual(group.tell(b"3"), count)
            first.tell(b"4")
            script.opens(FIRST + count, 1)
            group.add(await gateway.accept())
            self.assertEqual(group.tell(b"5"), count + 1)
            await control.time()
            self.assertEqual(script.got.pop(FIRST), [b"1", b"2", b"3", b"4", b"5"])
            self.assertEqual(script.got.pop(FIRST + count), [b"5"])
            self.assertEqual(list(script.got.values()), [[b"1", b"3", b"5"]] * (count - 1))
            self.assertEqual(script.packets, singly + 3)
            group.clear()
            await control.time()
            self.assertEqual(end.groups, {})

        self.play(story)

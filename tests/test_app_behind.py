"""Applications behind a gateway, in memory: sessions over virtual connections, groups."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Group, Session
from fastway.control import PlayerFacts
from fastway.endpoint.endpoints import GatewayDialEndpoint, PoolEndpoint
from fastway.endpoint.mirror import LEAST, Mirror
from fastway.endpoint.pool import GatewayPool
from fastway.testing import MemoryGateway
from tests.support.words import Words


class BehindTests(SynchronousTestCase):
    """An App that is game server 1 of a gateway."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.gateway = MemoryGateway(self.clock)
        self.addCleanup(self.gateway.stop)
        self.app = App(clock=self.clock)
        self.room: Group = self.app.group("room")
        self.app.opened(self.room.add)
        self.app.route("echo", lambda message=None: message)
        pool = GatewayPool({"gw": self.gateway.server}, 1, self.gateway.key, clock=self.clock)
        self.successResultOf(self.app.listen(PoolEndpoint(pool), Words()))
        self.gateway.pump()
        self.pushes = 0
        for name in ("push", "push_whole"):
            self.patch(Mirror, name, self.counted(getattr(Mirror, name)))

    def counted(self, push: Any) -> Any:
        def counting(*args: Any) -> Any:
            told = push(*args)
            self.pushes += bool(told)
            return told

        return counting

    def players(self, number: int) -> tuple[list[Session], list[list[Any]]]:
        sessions, heard = [], []
        for _ in range(number):
            lines: list[Any] = []
            app = App(clock=self.clock)
            app.route("on", lines.append)
            endpoint = GatewayDialEndpoint(self.gateway.client, 1, clock=self.clock)
            connecting = app.connect(endpoint, Words(user=1))
            self.gateway.pump()
            sessions.append(self.successResultOf(connecting))
            heard.append(lines)
        return sessions, heard

    def test_sessions(self) -> None:
        """Requests and answers go through; a player's address is the player's."""
        [session], _ = self.players(1)
        asked = session.request("echo", 5)
        self.gateway.pump()
        self.assertEqual(self.successResultOf(asked), 5)
        [other] = self.app.sessions.values()
        self.assertEqual(other.dialect, "words")
        session.close()
        self.gateway.pump()
        self.assertEqual((self.app.sessions, len(self.room)), ({}, 0))

    def test_address_told_late(self) -> None:
        """What the gateway tells of a player is his address from then on, and after his end."""
        [session], _ = self.players(1)
        [mine] = self.app.sessions.values()
        self.assertTrue(mine.peer.startswith("127.0.0.1:"), mine.peer)
        channel: Any = mine.carrier
        for port, name in ((4711, "[2001:db8::1]:4711"), (0, "[2001:db8::1]:0")):
            channel.channel.facts = PlayerFacts(1, "2001:db8::1", port)
            self.assertEqual(mine.peer, name)
        session.close()
        self.gateway.pump()
        self.assertEqual((mine.ended is None, mine.peer), (False, "[2001:db8::1]:0"))

    def test_group(self) -> None:
        """All hear all, once and in order, whatever was told singly before and after; once the
        gateway has its copy a message goes there once."""
        _, heard = self.players(LEAST)
        for number in range(5):
            for session in self.room:
                session.send("on", f"before {number}")
            self.assertEqual(self.room.send("on", number), LEAST)
            self.gateway.pump()
        expected = [text for number in range(5) for text in (f"before {number}", number)]
        self.assertEqual(heard, [expected] * LEAST)
        self.assertGreaterEqual(self.pushes, 4)

    def test_who_leaves_and_comes(self) -> None:
        """A copy follows its group: who left hears nothing, who came all."""
        _, heard = self.players(LEAST)
        for number in range(2):
            self.room.send("on", number)
            self.gateway.pump()
        first = next(iter(self.room))
        self.room.discard(first)
        _, more = self.players(1)
        for number in range(2, 5):
            self.room.send("on", number)
            self.gateway.pump()
        self.assertEqual(heard, [[0, 1], *[[0, 1, 2, 3, 4]] * (LEAST - 1)])
        self.assertEqual(more, [[2, 3, 4]])
        self.room.send("on", 5, but=next(iter(self.room)))
        self.gateway.pump()
        self.assertEqual([lines[-1] for lines in heard], [1, 4, *[5] * (LEAST - 2)])

    def test_large(self) -> None:
        """A packet that is too large for one message goes as a stream, to each."""
        dialect = Words(max_frame=3_000_000)
        pool = GatewayPool({"gw": self.gateway.server}, 2, self.gateway.key, clock=self.clock)
        self.successResultOf(self.app.listen(PoolEndpoint(pool), dialect))
        self.gateway.pump()
        lines: list[Any] = []
        app = App(clock=self.clock)
        app.route("on", lines.append)
        for _ in range(LEAST + 1):
            endpoint = GatewayDialEndpoint(self.gateway.client, 2, clock=self.clock)
            connecting = app.connect(endpoint, Words(max_frame=3_000_000))
            self.gateway.pump()
            self.successResultOf(connecting)
        self.room.send("on", "x" * 600_000)
        self.gateway.pump()
        self.assertEqual([len(line) for line in lines], [600_000] * (LEAST + 1))

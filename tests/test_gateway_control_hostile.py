"""Servers and clients that ask the gateway too much, or nonsense, and those that do not read.

Rule: they dial 0 by hand, as an unmodified library can; at worst the control connection ends, and
nobody else notices.
"""

from __future__ import annotations

import json
from typing import Any

from fastway.control import Draining, Want
from fastway.endpoint import EndpointConfig
from fastway.errors import DialRefused, Reason
from fastway.gateway.control import RATE
from fastway.wire import encode_close, encode_packet
from tests.support.control import said
from tests.support.gateways import GatewayTestCase
from tests.support.paths import on_both_paths
from tests.support.waits import SECONDS, until

BARE = EndpointConfig(control=False, accept_queue=100)
HELLO = {"op": "hello", "id": 0, "v": 1}
ALL = ["open", "closed", "moved", "drain"]


@on_both_paths
class ByHandTests(GatewayTestCase):
    """A server without a library for it."""

    async def setUpAsync(self) -> None:
        self.place = self.gateway()
        self.asker = await self.server(self.place, BARE)
        self.conn: Any = await self.asker.dial(0)

    async def ask(self, fields: dict[str, Any]) -> Any:
        """The answer to a request; events before it are `events`."""
        self.conn.tell(said(fields))
        return await self.answer()

    async def answer(self) -> Any:
        self.events = []
        while True:
            told = json.loads(await self.conn.receive())
            if "id" in told:
                return told
            self.events.append(told)

    async def lives(self) -> None:
        """The link does, and players are served."""
        client = await self.client(self.place)
        conn = await client.dial(1)
        visit: Any = await self.asker.accept()
        conn.tell(b"x")
        self.assertEqual(await visit.receive(), b"x")
        client.close()
        await visit.when_ended()

    async def test_one_each(self) -> None:
        """A second is refused while the first is open, and answered afterwards."""
        await self.setUpAsync()
        await self.fails(DialRefused, self.asker.dial(0))
        self.assertTrue((await self.ask({**HELLO, "want": []}))["ok"])
        router = self.place.service.router
        self.assertEqual((router.conn_ids, sum(router.stats.refused.values())), (set(), 0))
        self.conn.close()
        await until("its end", lambda: not router.services, SECONDS)
        self.conn = await self.asker.dial(0)
        self.assertTrue((await self.ask(HELLO))["ok"])
        await self.lives()

    async def test_events(self) -> None:
        """Events are messages of their own, before the commands; none before hello."""
        await self.setUpAsync()
        await self.lives()
        await self.ask({**HELLO, "want": ALL})
        client = await self.client(self.place)
        conn = await client.dial(1)
        visit = await self.asker.accept()
        conn.close()
        await visit.when_ended()
        await self.ask({"op": "time", "id": 1})
        opened, closed = self.events
        self.assertEqual((opened["op"], opened["conn"]), ("open", visit.conn_id))
        self.assertEqual((opened["client"], opened["transport"]), (visit.remote_id, "tcp"))
        self.assertNotIn("tls", opened)
        self.assertEqual(closed, {"op": "closed", "conn": visit.conn_id, "reason": "peer_closed"})

    async def test_groups_end_with_it(self) -> None:
        """Close ends groups and wishes, and no connection."""
        await self.setUpAsync()
        await self.ask({**HELLO, "want": ALL})
        client = await self.client(self.place)
        conn = await client.dial(1)
        visit = await self.asker.accept()
        join = {"op": "join", "id": 1, "group": "g", "conns": [visit.conn_id]}
        self.assertEqual((await self.ask(join))["members"], 1)
        self.conn.close()
        self.conn = await self.asker.dial(0)
        await self.ask(HELLO)
        self.conn.tell(b'{"op":"push","id":2,"group":"g"}\nx')
        self.assertEqual((await self.answer())["error"], "gone")
        conn.tell(b"still there")
        self.assertEqual(await visit.receive(), b"still there")

    async def test_nonsense(self) -> None:
        """A message that cannot be understood closes it, and only it."""
        await self.setUpAsync()
        for message in (b"\xff", b"[" * 60_000, b"{}", b"x" * 70_000, b'{"op":"time","id":[]}'):
            self.conn.tell(said(HELLO) + b"\n")
            self.conn.tell(message)
            self.conn.tell(said({"op": "time", "id": 1}))
            await self.conn.when_ended()
            self.conn = await self.asker.dial(0)
        await self.lives()

    async def test_flood(self) -> None:
        """More than a second's requests wait for the next second; none is lost."""
        await self.setUpAsync()
        await self.ask(HELLO)
        for number in range(1, RATE + 10):
            self.conn.tell(said({"op": "time", "id": number}))
        link = self.place.service.router.servers[1][0]
        await until("the flood is held", lambda: link.service and link.service.busy, SECONDS)
        others: Any = await self.server(self.place, BARE, 2)
        await (await self.client(self.place)).dial(2)
        await others.accept()
        numbers = [(await self.answer())["id"] for _ in range(1, RATE + 10)]
        self.assertEqual(numbers, list(range(1, RATE + 10)))
        await self.lives()

    async def test_flood_and_end(self) -> None:
        """Who leaves while it is held leaves nothing."""
        await self.setUpAsync()
        await self.ask(HELLO)
        for number in range(1, RATE + 10):
            self.conn.tell(said({"op": "time", "id": number}))
        router = self.place.service.router
        link = router.servers[1][0]
        await until("the flood is held", lambda: link.service and link.service.busy, SECONDS)
        router.lose(link, Reason.KICKED)
        self.place.service.flush()
        await self.asker.when_ended()
        self.assertEqual(router.services, {})

    async def test_lost_events(self) -> None:
        """Who does not read loses events, and is told how many."""
        await self.setUpAsync()
        await self.ask({**HELLO, "want": ALL})
        control = self.place.service.control
        control.config.queue = 10
        (end,) = control.ends()
        progress = type(end.link.lane).progress
        self.patch(type(end.link.lane), "progress", lambda lane: (progress(lane)[0], 0))
        for _ in range(30):
            end.tell(Want.DRAIN, Draining(1.0, None, False))
        self.place.service.flush()
        self.assertGreater(control.lost, 15)
        self.patch(type(end.link.lane), "progress", progress)
        got = 0
        while True:
            told = json.loads(await self.conn.receive())
            if told["op"] == "lost":
                break
            got += told["op"] == "drain"
        self.assertEqual(got + told["events"], 30)
        self.assertEqual(told["events"], control.lost)

    async def test_clients(self) -> None:
        """Clients have none, unless the operator gives them a number."""
        await self.setUpAsync()
        client = await self.client(self.place)
        await self.fails(DialRefused, client.dial(0))
        self.place.service.router.client_service_id = 99
        self.place.service.router.limits.client_max_conn = 1
        await self.fails(DialRefused, self.asker.dial(99))
        self.conn = await client.dial(99)
        await client.dial(1)
        welcome = await self.ask({**HELLO, "want": [*ALL, "inline"]})
        self.assertEqual((welcome["features"], welcome["gateway"]), ([], "fastway"))
        self.assertTrue((await self.ask({"op": "time", "id": 1}))["ok"])
        for verb in ("who", "kick", "user", "join", "leave", "push"):
            self.assertEqual((await self.ask({"op": verb, "id": 2}))["error"], "unknown")
        self.place.service.control.tell_drain(1, 2)
        told = json.loads(await self.conn.receive())
        self.assertEqual(told, {"op": "drain", "at": 1, "until": 2, "again": False})
        link = self.place.service.router.clients[1]
        self.place.service.router.lose(link, Reason.KICKED)
        self.place.service.flush()
        told = json.loads(await self.conn.receive())
        self.assertEqual(told, {"op": "bye", "code": 4403, "reason": "kicked"})

    async def test_foreign(self) -> None:
        """Another's control connection is nobody's: writing to it costs the link."""
        await self.setUpAsync()
        other = await self.server(self.place, BARE, 2)
        (number,) = self.place.service.router.services
        other.link.write(encode_close(number))
        other.link.write(encode_packet(number, said(HELLO)))
        await other.when_ended()
        lost = self.place.service.router.stats.lost
        await until("its loss", lambda: Reason.NOT_OWNER in {one for _, one in lost}, SECONDS)
        self.assertTrue((await self.ask(HELLO))["ok"])

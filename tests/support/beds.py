"""A game server that the gateway has greeted, and its gateway: scripted, or the real one.

Rule: one face for all, so that one body of tests holds for the script and for what it stands for.
What players got is theirs, over their own connections.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred

from fastway.endpoint import (
    EndpointConfig,
    GatewayConnection,
    VirtualConnection,
    connect_client,
    connect_server,
)
from fastway.endpoint.control import Control
from fastway.testing import LocalGateway, MemoryGateway
from tests.support.control import told
from tests.support.controlled import ControlledGateway
from tests.support.golden import FIRST, KEY
from tests.support.waits import SECONDS, reactor, until

Conn = VirtualConnection[Any]

CONFIG: dict[str, Any] = {"ping_interval": 0, "accept_queue": 10_000, "receive_queue": 10_000}


class Bed(Protocol):
    """What a body of tests has.

    Attributes:
        endpoint: The server.
        kicks: Whether a client that is kicked is really gone.
    """

    endpoint: GatewayConnection
    kicks: bool

    @property
    def control(self) -> Control: ...

    async def guests(self, count: int) -> list[Conn]:
        """So many clients dial; the server's ends of their connections."""

    async def leaves(self, conn: Conn) -> None:
        """Its client closes it, and the server knows."""

    async def got(self, conn: Conn, count: int) -> list[bytes]:
        """The next messages that its client gets."""

    async def settle(self) -> None:
        """All that the server has said is done, and answered."""

    async def drains(self, at: float, until: float, again: bool) -> None:
        """The gateway will close."""

    async def stop(self) -> None:
        """It closes."""

    def groups(self) -> int:
        """How many it keeps."""


class Scripted:
    """The script of `controlled`."""

    kicks = False

    def __init__(self, group_members: int = 1000) -> None:
        self._gateway = ControlledGateway(EndpointConfig(**CONFIG), group_members).greet()
        self.endpoint = self._gateway.endpoint
        self._next = FIRST

    @property
    def control(self) -> Control:
        return self._gateway.control

    async def guests(self, count: int) -> list[Conn]:
        first, self._next = self._next, self._next + count
        return cast("list[Conn]", self._gateway.guests(count, first))

    async def leaves(self, conn: Conn) -> None:
        self._gateway.carry_out()
        self._gateway.leaves(conn.conn_id)

    async def got(self, conn: Conn, count: int) -> list[bytes]:
        self._gateway.settle()
        messages = self._gateway.got[conn.conn_id]
        some, messages[:count] = messages[:count], []
        return some

    async def settle(self) -> None:
        self._gateway.settle()

    async def drains(self, at: float, until: float, again: bool) -> None:
        self._gateway.tells(told("drain", at=at, until=until, again=again))

    async def stop(self) -> None:
        self._gateway.tells(told("bye", code=1001, reason="shutdown"))
        self._gateway.gone()

    def groups(self) -> int:
        return len(self._gateway.end.groups)


class _Real:
    """What both real ones share: clients of the library, each with a link of its own."""

    kicks = True
    endpoint: GatewayConnection
    service: Any

    def __init__(self) -> None:
        self._far: dict[int, Conn] = {}
        """The clients' ends."""

    @property
    def control(self) -> Control:
        control = self.endpoint.control
        assert control is not None
        return control

    async def client(self) -> GatewayConnection:
        raise NotImplementedError

    async def guests(self, count: int) -> list[Conn]:
        made = []
        for _ in range(count):
            far = await (await self.client()).dial(1)
            self._far[far.conn_id] = far
            made.append(await self.endpoint.accept())
        return made

    async def leaves(self, conn: Conn) -> None:
        self._far[conn.conn_id].close()
        await conn.when_ended()

    async def got(self, conn: Conn, count: int) -> list[bytes]:
        far = self._far[conn.conn_id]
        return [await far.receive() for _ in range(count)]

    async def settle(self) -> None:
        await self.control.time()

    async def drains(self, at: float, until: float, again: bool) -> None:
        self.service.control.tell_drain(at, until, again)
        await self.control.when_draining()

    def groups(self) -> int:
        return sum(len(end._requests.groups) for end in self.service.control.ends())


class InMemory(_Real):
    """The real gateway without sockets, on a clock."""

    def __init__(self, group_members: int = 1000, **options: Any) -> None:
        super().__init__()
        self.gateway = MemoryGateway(key=KEY, group_members=group_members, **options)
        self.service = self.gateway.service

    async def begin(self) -> InMemory:
        clock, config = self.gateway.clock, EndpointConfig(**CONFIG)
        self.endpoint = self.wait(
            connect_server(self.gateway.server, 1, KEY, config, cast(Any, clock))
        )
        self.wait(self.endpoint.when_control())
        return self

    def wait(self, waiting: Any) -> Any:
        return self.gateway.run(waiting, 10)

    async def client(self) -> GatewayConnection:
        clock, config = cast(Any, self.gateway.clock), EndpointConfig(**CONFIG)
        return await connect_client(self.gateway.client, config, clock)

    async def guests(self, count: int) -> list[Conn]:
        return cast("list[Conn]", self.wait(super().guests(count)))

    async def leaves(self, conn: Conn) -> None:
        self.wait(super().leaves(conn))

    async def got(self, conn: Conn, count: int) -> list[bytes]:
        return cast("list[bytes]", self.wait(super().got(conn, count)))

    async def settle(self) -> None:
        self.gateway.pump()

    async def drains(self, at: float, until: float, again: bool) -> None:
        self.wait(super().drains(at, until, again))

    async def stop(self) -> None:
        self.gateway.stop()


class OnSockets(_Real):
    """The real gateway on 127.0.0.1."""

    def __init__(self, relay: bool, group_members: int = 1000) -> None:
        super().__init__()
        lane = "on" if relay else "off"
        self.gateway = LocalGateway(reactor, KEY, relay=lane, group_members=group_members)
        self._clients: list[GatewayConnection] = []

    async def begin(self) -> OnSockets:
        await self.gateway.start()
        self.service = self.gateway.service
        self.endpoint = await connect_server(self.gateway.server, 1, KEY, EndpointConfig(**CONFIG))
        await self.endpoint.when_control()
        return self

    async def client(self) -> GatewayConnection:
        client = await connect_client(self.gateway.client, EndpointConfig(**CONFIG))
        self._clients.append(client)
        return client

    async def stop(self) -> None:
        await self.gateway.stop()
        await self.endpoint.when_ended()

    def stop_all(self) -> Any:
        """What a test leaves goes with it."""
        return Deferred.fromCoroutine(self._stop_all())

    async def _stop_all(self) -> None:
        ends = [self.endpoint, *self._clients]
        for one in ends:
            one.close()
        await until("their ends", lambda: all(one.link.gone for one in ends), SECONDS)
        await self.gateway.stop()


class _Transport:
    """The server's, as far as a random day knows it: the network may stand still."""

    stuck = False

    def __init__(self, real: LateMemory) -> None:
        self._real = real

    def fill(self) -> None:
        self._real.late = True

    def drain(self) -> None:
        self._real.late = False
        self._real.settle()

    def value(self) -> bytes:
        return b""


class LateMemory:
    """The real gateway for random days: the face of `ControlledGateway`, as far as they need it.

    Attributes:
        got: conn_id -> what its client got.
        late: Nothing arrives from the server, nor at it.
    """

    denies: set[str]

    def __init__(self, config: EndpointConfig, group_members: int) -> None:
        self.gateway = MemoryGateway(
            key=KEY,
            group_members=group_members,
            client_max_conn=0,
            client_idle_timeout=0,
            server_idle_timeout=0,
        )
        self.clock = self.gateway.clock
        clock = cast(Any, self.clock)
        run = self.gateway.run
        self.endpoint = run(connect_server(self.gateway.server, 1, KEY, config, clock))
        run(self.endpoint.when_control())
        self._client = run(connect_client(self.gateway.client, config, clock))
        self._far: dict[int, Conn] = {}
        self._got: defaultdict[int, list[bytes]] = defaultdict(list)
        self._late = False
        self.denies = set()
        self.transport = _Transport(self)

    @property
    def late(self) -> bool:
        return self._late

    @late.setter
    def late(self, late: bool) -> None:
        self._late = late
        if late:
            self.gateway.stall(self.endpoint)
        else:
            self.gateway.resume(self.endpoint)

    @property
    def got(self) -> defaultdict[int, list[bytes]]:
        for conn_id, far in self._far.items():
            while far.unread:
                self._got[conn_id].append(cast(bytes, far.take()))
        return self._got

    @property
    def open(self) -> Iterable[int]:
        """The connections that clients have."""
        return [conn_id for conn_id, far in self._far.items() if far.ended is None]

    def guests(self, count: int, _: int = 0) -> list[Conn]:
        made = []
        for _ in range(count):
            far = self.gateway.run(self._client.dial(1))
            self._far[far.conn_id] = far
            made.append(self.gateway.run(self.endpoint.accept()))
        return made

    def leaves(self, conn_id: int) -> None:
        self._far[conn_id].close()
        self.settle()

    def say(self, _: bytes) -> None:
        self.settle()

    def settle(self) -> None:
        self.gateway.pump()

    carry_out = settle

    def reply(self, _: int = 0) -> None:
        self.settle()

    @property
    def under_way(self) -> bool:
        """Something has not arrived, perhaps."""
        if not self._late:
            self.settle()
        return self._late

    def check_nothing_is_left(self) -> None:
        """Of groups that are cleared."""
        for end in self.gateway.service.control.ends():
            assert len(end._requests.groups) == end._requests.groups.memberships == 0

    def stop(self) -> None:
        self.gateway.stop()

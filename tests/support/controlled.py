"""A scripted gateway that has a control connection, and tells what reached whom.

Rule: it carries out what it hears in the order of the wire, and answers when it is told to.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fastway.endpoint import EndpointConfig
from fastway.endpoint.control import Control
from tests.support.control import ControlEnd
from tests.support.golden import FIRST, accept, close, connect, dial, packet, split
from tests.support.scripted import SERVER_ID, ClockTestCase, ScriptedGateway

CONTROL = FIRST - 1
"""The id of the control connection."""


def inline(command: bytes, event: bytes) -> bytes:
    """A command with an event behind its arguments."""
    return packet(0, command[8:] + event)


class ControlledGateway(ScriptedGateway):
    """A gateway for a server on a Clock.

    Attributes:
        end: The other end of the control connection.
        got: conn_id -> what was sent to it, singly and by pushes, in order.
        denies: The verbs that it does not carry out.
        sent: Bytes of all that it heard.
        over: The server closed the control connection.
    """

    def __init__(self, config: EndpointConfig | None = None, group_members: int = 1000) -> None:
        self.end = ControlEnd(group_members)
        self.got: defaultdict[int, list[bytes]] = defaultdict(list)
        self.denies: set[str] = set()
        self.sent = 0
        self.over = False
        super().__init__(config or EndpointConfig(ping_interval=0), SERVER_ID)

    @property
    def control(self) -> Control:
        control = self.endpoint.control
        assert control is not None, "it has not greeted"
        return control

    def greet(self) -> ControlledGateway:
        """Log the server in, and greet it."""
        self.log_in()
        heard = self.heard()
        assert heard == dial(0), heard
        self.say(accept(CONTROL, 0))
        self.settle()
        assert self.endpoint.control is not None
        return self

    def tells(self, message: bytes) -> None:
        """A message over the control connection."""
        self.say(packet(CONTROL, message))

    def guests(self, count: int, first: int = FIRST) -> list[Any]:
        """So many clients dial, with ids from 1 on; their connections."""
        for number in range(first, first + count):
            self.tells(self.end.open(number, number - FIRST + 1))
            self.say(connect(number, number - FIRST + 1))
        return [self.endpoint.connection(first + number) for number in range(count)]

    def leaves(self, conn_id: int, reason: str = "peer_closed") -> None:
        """A client closes its connection."""
        self.tells(self.end.close(conn_id, reason))
        self.say(close(conn_id))

    def carry_out(self) -> None:
        """Do what was heard, and answer no request."""
        while heard := self.heard():
            self.sent += len(heard)
            for conn_id, message in split(heard):
                self._carry_out(conn_id, message)

    def _carry_out(self, conn_id: int, message: bytes) -> None:
        if conn_id == CONTROL:
            before = len(self.end.pushed)
            self.end.hear(message, self.denies)
            for one, data in self.end.pushed[before:]:
                self.got[one].append(data)
        elif conn_id:
            if conn_id in self.end.conns:
                self.got[conn_id].append(message)
        else:
            number = int.from_bytes(message[1:], "little")
            assert message[0] == 4, message
            if number == CONTROL:
                self.over = True
                self.end.groups.clear()
                self.say(close(number))
            elif number in self.end.conns:
                self.end.close(number)
                self.say(close(number))

    def reply(self, most: int = 1_000_000) -> None:
        """Answer so many of the requests that are not answered."""
        for number in list(self.end.answers)[:most]:
            self.tells(self.end.answers.pop(number))

    def settle(self) -> None:
        """Carry out and answer until nothing is left."""
        self.carry_out()
        while self.end.answers:
            self.reply()
            self.carry_out()


class ControlTestCase(ClockTestCase):
    """A test case of servers that have a control connection, or ask for one."""

    def greeted(self, **config: Any) -> ControlledGateway:
        """A server that the gateway has greeted."""
        config.setdefault("ping_interval", 0)
        return ControlledGateway(EndpointConfig(**config)).greet()

    def dialled(self) -> ScriptedGateway:
        """A server that has logged in, and asked for a control connection."""
        gateway = self.server(control=True)
        gateway.log_in()
        self.assertEqual(gateway.heard(), dial(0))
        return gateway

    def fails(self, kind: type[Exception], waiter: Any) -> Any:
        """The error of that kind with which a Deferred has failed."""
        return self.failureResultOf(waiter, kind).value

    def alone_over(self, gateway: ScriptedGateway) -> None:
        """The control connection is over; the link lives, and leaves nothing to do."""
        self.assertIsNone(gateway.endpoint.ended)
        self.assertIsNone(gateway.endpoint.control)
        self.assertIsNone(self.successResultOf(gateway.endpoint.when_control()))
        self.assertEqual(gateway.clock.getDelayedCalls(), [])
        before = {conn.conn_id for conn in gateway.endpoint.connections}
        gateway.say(connect(FIRST + 900, 77) + packet(FIRST + 900, b"still here"))
        conn = gateway.endpoint.connection(FIRST + 900)
        assert conn is not None
        self.assertEqual(self.successResultOf(conn.receive()), b"still here")
        conn.close()
        gateway.say(close(FIRST + 900))
        self.assertEqual({conn.conn_id for conn in gateway.endpoint.connections}, before)

"""What the user of a connection to a gateway sees of it, in Twisted and in asyncio alike.

Rule: no waiting here: what waits is typed as each framework's programs know it, in `connection`
and in `fastway.aio`.
"""

from __future__ import annotations

from typing import Any, TypeVar

from fastway.endpoint.accept import Acceptor
from fastway.endpoint.channel import Channel
from fastway.endpoint.config import EndpointConfig
from fastway.endpoint.control import Control
from fastway.endpoint.core import EndpointCore
from fastway.endpoint.link import Link
from fastway.errors import EndpointEnded
from fastway.waiting import Loop

C = TypeVar("C", bound=Channel[Any])


class Face(Acceptor[C]):
    """One connection to a gateway.

    Attributes:
        config: How it behaves.
        link: Its inside.
        name: What its owner calls the gateway.
    """

    def __init__(self, core: EndpointCore, config: EndpointConfig, loop: Loop) -> None:
        super().__init__(loop, config.accept_queue)
        self.config = config
        self.link = Link(core, config, loop, self)
        self.name = ""

    def __repr__(self) -> str:
        who = "client" if self.server_id is None else f"server {self.server_id}"
        state = "ended" if self.ended is not None else "up" if self.up else "connecting"
        name = f" to {self.name}" if self.name else ""
        return f"<{type(self).__name__}{name} as {who}, {state}>"

    @property
    def ended(self) -> EndpointEnded | None:
        """Why it ended; None while it lives."""
        return self.link.ended

    @property
    def up(self) -> bool:
        """It is logged in; a client is at once. It stays true when it has ended."""
        return self.link.up

    @property
    def round_trip(self) -> float | None:
        """Seconds that the last answered ping took; None before."""
        return self.link.heart.round_trip

    @property
    def server_id(self) -> int | None:
        """Its id as a server; None for a client."""
        return self.link.core.server_id

    @property
    def max_message(self) -> int:
        """Bytes of the largest message."""
        return self.link.core.max_message

    @property
    def address(self) -> Any:
        """The gateway's address; None before there is a connection."""
        transport = self.link.transport
        return None if transport is None else transport.address

    @property
    def control(self) -> Control | None:
        """What the gateway may be asked, once it has greeted; None where it has no such thing."""
        control = self.link.control
        return control if control is not None and control.up else None

    def connection(self, conn_id: int) -> C | None:
        """The open virtual connection with that number, or None."""
        return self.link.conns.get(conn_id)  # type: ignore[return-value]

    @property
    def connections(self) -> list[C]:
        """All open virtual connections."""
        return list(self.link.conns.values())  # type: ignore[arg-type]

    # What the link calls.

    def make_connection(self, conn_id: int, remote_id: int) -> C:
        """A virtual connection opened."""
        raise NotImplementedError

"""Direct ports: connections that know no packets, each dialled to one game server.

Rule: a direct link is a client whose dial, Close and end are made here, so that its lane sees
bytes only; all else, bounds and limits and who may talk to whom, is that of any client.

    its bytes             messages to the server, one for each read
    the server's messages its bytes, bare
    its FIN or its loss   Close, behind all that it said
    the server's Close    a FIN, behind all that the server sent
    a proxy's own check   dialled once it says something, or has stayed for TIMEOUT: one that
                          only connects is no news to a server
    no such server, and a server that is lost: a reset. An end in order would be an answer, an
    empty or a short one, and a link that lingers would cost something.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from fastway.errors import Reason
from fastway.gateway.bounds import LINGER
from fastway.gateway.facts import Facts
from fastway.gateway.lane import Framing, Lane
from fastway.gateway.link import ClientLink, LinkPort
from fastway.gateway.preface import TIMEOUT, Chain, Done
from fastway.kernel import acked_bytes
from fastway.router import Link, Side
from fastway.wire import HEAD, CommandType, decode_command

_COMMAND = bytes(4)
"""The connection id of a command."""


class FirstBytes:
    """A preface that is over with the first bytes, which stand behind it."""

    __slots__ = ()

    seconds = None

    def begin(self) -> bytes:
        return b""

    def feed(self, data: bytes) -> Done | bytes:
        return Done(data) if data else b""

    def refuse(self, reason: Reason) -> bytes:
        return b""

    def why(self, reason: Reason) -> Reason:
        return reason


class DirectLink(ClientLink):
    """One connection of a direct port.

    It dials as soon as it may talk. Nothing is read of it before the answer.
    """

    __slots__ = (
        "_acked",
        "_acked_at",
        "_begun",
        "_conn_id",
        "_end",
        "_rest",
        "_silent",
        "_waits",
    )

    dialable = False

    def __init__(self, factory: LinkPort, lane: Lane, facts: Facts) -> None:
        assert factory.direct is not None
        super().__init__(factory, lane, replace(facts, port=factory.direct.name))
        self._conn_id = 0
        self._begun = False
        self._waits = False
        self._silent = False
        """It may be no more than a proxy's check."""
        self._end: Reason | None = None
        """Why it has to be lost as soon as the router may be called."""
        self._rest: tuple[bytes, Framing | None] = b"", None
        """What came behind its prefaces."""
        self._acked: int | None = None
        self._acked_at = 0.0

    def _admit(self, rest: bytes, framing: Framing | None = None) -> None:
        service = self.factory.service
        direct = self.factory.direct
        assert direct is not None
        if self._silent:
            self._silent = False
        elif self.facts.probe and not rest:
            self._wait_for_bytes(direct.server_id, framing)
            return
        self.facts = replace(self.facts, transport=f"direct+{self.facts.transport}")
        self._rest = rest, framing
        service.router.add_client(self)
        self._came_in()
        if self.lost is not None:
            return
        service.router.dial(self, direct.server_id)
        if not (self._conn_id or self._end):
            # The answer has to be waited for.
            self._waits = True
            self.lane.wait()
            service.wheel.watch(self, service.wheel.seconds() + TIMEOUT)
        service.flush()

    def _wait_for_bytes(self, server_id: int, framing: Framing | None) -> None:
        """A proxy speaks for itself. Without a server it is lost, as its clients would be."""
        if self.factory.service.router.find(Side.SERVER, server_id) is None:
            self._lose(Reason.NO_SERVER, f"server {server_id}")
            return
        self._silent = True
        self._chain = chain = Chain(self.facts, (FirstBytes,))
        chain.framing = framing
        chain.begin()
        self._watch(TIMEOUT)
        self.factory.handshake_begins(self)

    # What the router calls.

    def pair(self, conn_id: int, peer: Link) -> None:
        self._conn_id = conn_id
        self.lane.direct(conn_id)
        super().pair(conn_id, peer)

    def unpair(self, conn_id: int) -> None:
        gone = self.peers[conn_id].lost is not None
        self._end = Reason.SERVER_LOST if gone else Reason.SERVER_CLOSED
        super().unpair(conn_id)

    def send(self, data: bytes, packets: int) -> None:
        if data[4:HEAD] != _COMMAND:
            self.lane.send(data, packets)
            return
        kind, conn_id, _ = decode_command(data)
        if kind is CommandType.REFUSE:
            self._end = Reason.NO_SERVER
        elif kind is CommandType.CLOSE and conn_id != self._conn_id:
            return
        self.factory.service.turned.append(self)

    def catch_up(self) -> None:
        """Its dial was answered, or its connection was closed: begin, or be lost."""
        service = self.factory.service
        if self.lost is not None:
            return
        if self._waits:
            self._waits = False
            service.wheel.forget(self)
        if self._end is not None:
            direct = self.factory.direct
            assert direct is not None
            service.router.lose(self, self._end, f"server {direct.server_id}")
        elif not self._begun:
            self._begun = True
            rest, self._rest = self._rest, (b"", None)
            self.lane.start(*rest)

    # Its end.

    def disconnect(self, reason: Reason, detail: str) -> None:
        super().disconnect(reason, detail)
        self._acked_at = self.factory.service.wheel.seconds()

    def check(self, now: float) -> float | None:
        if self.lost is None and self._silent:
            chain, self._chain = self._chain, None
            assert chain is not None
            self.factory.handshakes.pop(self, None)
            self._admit(b"", chain.framing)
            return None
        if self.lost is None and self._waits:
            self._lose(Reason.NO_SERVER, f"no answer within {TIMEOUT:g} s")
            return None
        if self.lost is Reason.SERVER_CLOSED and self._takes(now):
            return now + LINGER
        return super().check(now)

    def _takes(self, now: float) -> bool:
        """Whether its peer still takes what is left for it, however long that lasts."""
        if self.factory.service.stopping:
            return False
        try:
            with closing(self.lane.socket()) as sock:
                acked = acked_bytes(sock)
        except OSError:
            return False
        if acked != self._acked:
            self._acked, self._acked_at = acked, now
        return now - self._acked_at < max(LINGER, self.factory.config.write_timeout)

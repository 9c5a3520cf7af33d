"""Who is at the other end of a link, and how it came: known before the link is.

Rule: one frozen object, made by the port and completed by the prefaces; the log, `links`, limits
and whoever asks later read the same one. Nothing in it changes while the link lives but the
address of a stream that came back over another connection, and that is a new object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from fastway.address import address_name


class Direct(NamedTuple):
    """Where the connections of a direct port lead.

    Attributes:
        name: What the operator calls it.
        server_id: The game server that is dialled for each.
    """

    name: str
    server_id: int


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a link.

    Attributes:
        name: The peer's address as operators write it: `host:port`, `[v6]:port`, a socket's path.
        transport: What carries it: tcp, tls, unix, ws, wss, and `snet+` or `ws+` before it where
            streams survive or WebSocket runs over another, `direct+` where its bytes are no
            packets.
        via: The address of the proxy that it came through; empty without one.
        tls: The TLS version, as OpenSSL names it; empty without TLS.
        sni: The host name that a TLS client asked for.
        identity: Whom its certificate names, which was verified; empty: nobody.
        sha256: The fingerprint of that certificate, in hex; empty: it showed none.
        server_id: The id that a server proved to bring; None for clients.
        probe: A proxy speaks for itself, as its health checks do: the address is its own, limits
            by address do not hold, and that it goes is worth no line.
        port: The name of the direct port that it came in by; empty: it is none.
    """

    name: str
    transport: str = "tcp"
    via: str = ""
    tls: str = ""
    sni: str = ""
    identity: str = ""
    sha256: str = ""
    server_id: int | None = None
    probe: bool = False
    port: str = ""

    @property
    def host(self) -> str:
        """The address without its port: what belongs to one neighbour."""
        if self.name.startswith("["):
            return self.name[1:].partition("]")[0]
        host, colon, _ = self.name.rpartition(":")
        return host if colon else self.name

    @property
    def fields(self) -> dict[str, str]:
        """What TLS told, for lines of the log; nothing without TLS."""
        if not self.tls:
            return {}
        told = {"tls": self.tls, "sni": self.sni, "identity": self.identity, "sha256": self.sha256}
        return {name: value for name, value in told.items() if value}


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class ToldAddress:
    """The address of a connection whose proxy told whom it is from, and all else that it told.

    It passes through the layers of a port as any address, so that what is inside of them knows.
    """

    facts: Facts

    @property
    def text(self) -> str:
        """As `address_name` gives it."""
        return self.facts.name

    @property
    def host(self) -> str:
        return self.facts.host

    @property
    def probe(self) -> bool:
        """The proxy speaks for itself."""
        return self.facts.probe


def facts_of(address: IAddress | None, transport: str = "tcp") -> Facts:
    """The facts that a new connection's address tells."""
    if isinstance(address, ToldAddress):
        return replace(address.facts, transport=transport)
    return Facts("?" if address is None else address_name(address), transport)

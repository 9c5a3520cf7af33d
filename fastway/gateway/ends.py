"""The end of a connection, for all who keep or write it.

Rule: one row is made of each, and only if somebody is told; whoever shows it takes from it what he
shows, and nothing is looked up a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class End:
    """The end of one connection. All texts are fit for a line of text.

    Attributes:
        time: When it was lost, in seconds since 1970.
        side: client or server.
        id: By which the other side dials it; 0 too where it never had one.
        addr: The peer's address.
        via: The proxy that it came through; empty without one.
        transport: What carried it.
        port: The direct port that it came in by; empty: it was none.
        user: The name of the player, if a game server told it.
        identity: Whom its certificate named.
        tls: The version of TLS; empty without.
        sni: The host name that it asked for by TLS.
        seconds: For which it was connected.
        reason: Why, as programs name it (docs/reasons.md).
        text: The same as a sentence.
        detail: What more is known of why.
        packets_in: Whole packets that came; of a direct port, what was read at once.
        bytes_in: All that came.
        packets_out: Packets that were meant for it,
        bytes_out: and their bytes.
        most_waiting: The most bytes that waited because it took no more.
        dials: Virtual connections that it asked for,
        refused_dials: and how many of them it was refused.
        resumes: How often its snet stream came back.
    """

    time: float
    side: str
    id: int
    addr: str
    via: str
    transport: str
    port: str
    user: str
    identity: str
    tls: str
    sni: str
    seconds: float
    reason: str
    text: str
    detail: str
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    most_waiting: int
    dials: int
    refused_dials: int
    resumes: int


class Ender(Protocol):
    """Is told of connections that end.

    Attributes:
        logs: It writes a line of each that had its id, was no proxy's own, and said or was told
            something: the log needs none. It is told of no others.
    """

    logs: bool

    def ended(self, end: End) -> None:
        """One has."""

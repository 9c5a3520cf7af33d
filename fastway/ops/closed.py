"""The last connections that ended, for who asks why somebody went.

Rule: an end costs one small object, kept while it is among the last. Who never said anything is
not among them: balancers' checks would leave room for nobody else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastway.errors import Reason
from fastway.logs import escaped
from fastway.ops.ring import Ring

if TYPE_CHECKING:
    from fastway.gateway import GatewayLink

ROOM = 1000
"""Ends that are kept."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of one connection. All texts are fit for a line of text.

    Attributes:
        time: When it was lost, in seconds since 1970.
        side: client or server.
        id: 0: it never had one.
        addr: The peer's address.
        via: The proxy that it came through; empty without one.
        transport: What carried it.
        port: The direct port that it came in by; empty: it was none.
        user: The name of the player, if a game server told it.
        identity: Whom its certificate named.
        seconds: For which it was connected.
        reason: Why, as programs name it (docs/reasons.md).
        text: The same as a sentence.
        detail: What more is known of why.
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
    seconds: float
    reason: str
    text: str
    detail: str
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int


class Closed:
    """The last ends.

    Attributes:
        ring: They, the oldest first.
    """

    def __init__(self) -> None:
        self.ring: Ring[End] = Ring(ROOM)

    def ended(self, link: GatewayLink, reason: Reason, detail: str) -> None:
        """A link is lost."""
        counts, facts = link.counts(), link.facts
        if not (link.known or counts.bytes_in):
            return
        self.ring.add(
            End(
                time=time.time(),
                side=link.side.value,
                id=link.link_id if link.known else 0,
                addr=escaped(facts.name),
                via=escaped(facts.via),
                transport=facts.transport,
                port=facts.port,
                user=escaped(link.user or ""),
                identity=escaped(facts.identity),
                seconds=round(link.factory.service.wheel.seconds() - link.since, 3),
                reason=reason.code,
                text=reason.value,
                detail=escaped(detail),
                packets_in=counts.packets_in,
                bytes_in=counts.bytes_in,
                packets_out=counts.packets_out,
                bytes_out=counts.bytes_out,
            )
        )

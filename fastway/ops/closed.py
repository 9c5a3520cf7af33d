"""The last connections that ended, for who asks why somebody went.

Rule: an end is kept while it is among the last. Who never said anything is not among them:
balancers' checks would leave room for nobody else.
"""

from __future__ import annotations

from fastway.gateway.ends import End
from fastway.ops.ring import Ring

ROOM = 1000
"""Ends that are kept."""


class Closed:
    """The last ends.

    Attributes:
        ring: They, the oldest first.
    """

    logs = False

    def __init__(self) -> None:
        self.ring: Ring[End] = Ring(ROOM)

    def ended(self, end: End) -> None:
        """A link is lost."""
        self.ring.add(end)

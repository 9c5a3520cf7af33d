"""What the tests of the core share: a link that is a list, cutting bytes, and steady examples.

Rule: a fake holds the code to its promises. A `ListLink` fails the test when something is sent to
it after it was lost, when the packet count of a send is wrong, or when it is disconnected twice.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import HealthCheck, settings

from fastway.errors import Reason
from fastway.router import Link, Side
from tests.support.golden import whole_packets

DETERMINISTIC = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow],
)
"""Hypothesis with the same examples in every run, whatever the machine's speed."""


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces; `places` are any numbers, so pieces may be empty."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[left:right] for left, right in pairwise(edges)]


class ListLink(Link):
    """A link that is a list.

    Attributes:
        sent: What the router sent, one entry for each packet.
        disconnected: The calls of `disconnect`.
        full: What `saturated` says.
    """

    def __init__(self, side: Side) -> None:
        super().__init__()
        self.side = side
        self.sent: list[bytes] = []
        self.disconnected: list[tuple[Reason, str]] = []
        self.full = False

    def send(self, data: bytes, packets: int) -> None:
        frames = whole_packets(data)
        if self.lost is not None:
            raise AssertionError(f"sent to a lost link: {data.hex()}")
        if len(frames) != packets:
            raise AssertionError(f"{len(frames)} packets sent as {packets}")
        self.sent += frames

    def disconnect(self, reason: Reason, detail: str) -> None:
        if self.disconnected:
            raise AssertionError("disconnected twice")
        if self.lost is not reason:
            raise AssertionError(f"disconnected for {reason}, lost for {self.lost}")
        self.disconnected.append((reason, detail))

    @property
    def saturated(self) -> bool:
        return self.full

    def frames(self) -> list[bytes]:
        """The packets that were sent since the last call."""
        frames, self.sent = self.sent, []
        return frames

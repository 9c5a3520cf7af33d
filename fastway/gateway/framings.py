"""What packets stand in on the native lane: the core's numbers, and its verdicts as errors.

Rule: the core says the same of the same bytes as the framing that the Python lane uses.
"""

from __future__ import annotations

from fastway.relay import _core
from fastway.websocket import BadFrame, Frames
from fastway.websocket.frames import Rule, broken, too_large

FRAMINGS: dict[type, int] = {type(None): _core.PLAIN, Frames: _core.WEBSOCKET}
"""As the core numbers them."""


def broken_rule(detail: int, limit: int) -> BadFrame:
    """What the core says of a peer that broke the rules of its framing.

    Args:
        detail: As RELAY_MISFRAMED has it.
        limit: Bytes that a frame may announce.
    """
    if detail >> 63:
        return too_large(detail & ~(1 << 63), limit)
    return broken(Rule(detail & 0xFF), detail >> 8)

"""What packets stand in on the native lane: the core's numbers, and its verdicts as errors.

Rule: the core says the same of the same bytes as the framing that the Python lane uses.
"""

from __future__ import annotations

from fastway.errors import Reason
from fastway.relay import _core
from fastway.websocket import BadFrame, Frames

FRAMINGS: dict[type, int] = {type(None): _core.PLAIN, Frames: _core.WEBSOCKET}
"""As the core numbers them."""

_RULES = (
    ("", Reason.BAD_FRAME),
    ("a frame has a reserved bit, of an extension that was not agreed to", Reason.BAD_FRAME),
    ("a frame has the reserved opcode {}", Reason.BAD_FRAME),
    ("a control frame is in fragments", Reason.BAD_FRAME),
    ("a message begins inside another", Reason.BAD_FRAME),
    ("a frame continues no message", Reason.BAD_FRAME),
    ("text came", Reason.NOT_BINARY),
    ("a frame is not masked", Reason.BAD_FRAME),
    ("a control frame has over 125 bytes", Reason.BAD_FRAME),
    ("a frame's length is not in its shortest form", Reason.BAD_FRAME),
    ("a Close has no code that may be sent", Reason.BAD_FRAME),
    ("the text of a Close is not UTF-8", Reason.NOT_UTF8),
)
"""enum relay_rule of relay.h."""


def broken_rule(detail: int, limit: int) -> BadFrame:
    """What the core says of a peer that broke the rules of its framing.

    Args:
        detail: As RELAY_MISFRAMED has it.
        limit: Bytes that a frame may announce.
    """
    if detail >> 63:
        length = detail & ~(1 << 63)
        return BadFrame(f"a frame of {length} bytes is over {limit}", Reason.FRAME_TOO_LARGE)
    problem, reason = _RULES[detail & 0xFF]
    return BadFrame(problem.format(detail >> 8), reason)

"""What of the dialects is done in C, where the relay is built: the frames that most are.

    read = IN_C.get("read_requests", read_requests)

Rule: what is here does what Python does; it takes less of what comes, and gives None for what it
does not write. Nothing needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastway.dialect import Message
from fastway.relay import missing


def _in_c() -> Mapping[str, Callable[..., Any]]:
    if missing():
        return {}
    from fastway.relay import _core

    return _core.frames(Message)


IN_C: Mapping[str, Callable[..., Any]] = _in_c()
"""Functions, by the names that they have in Python."""

"""Python's collector of garbage, in a process with many objects that stay.

Rule: an object is looked through with a few thousand others that came when it did, and if it is
then still there it is left out from then on. To look through all of them is one long turn: 25 ms
with 10 000 links on the Python path.

What is left out and dies is freed as ever, by its counts. Only cycles of it would stay: links
leave none. When there is far more than there was when all was looked through last, all is looked
through again: so whatever stays is bound.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

THRESHOLDS = (700, 10, 1)
"""As Python's, but for the last: what may have come since is some 15 000 objects, so that to look
through them takes 5 ms. By its own it was all that there are, once a quarter more had come."""

MARGIN = 1_000_000
"""Blocks of memory that may come to twice as many as there were, before all is looked through:
those of 60 000 links on the Python path. To count the objects would take as long as a look."""

_blocks = 0
"""Blocks of memory that were in use when all had been looked through; 0: the next look is it."""


def keep_collections_short() -> None:
    """Look through all that is there, and from now on only through what comes. Once a process."""
    gc.set_threshold(*THRESHOLDS)
    gc.callbacks.append(_leave_out)
    gc.collect()


def all_objects() -> list[Any]:
    """All objects that the collector knows, those that it leaves out included."""
    if _leave_out not in gc.callbacks:
        return gc.get_objects()
    gc.unfreeze()
    try:
        return gc.get_objects()
    finally:
        gc.freeze()


def _leave_out(phase: str, info: dict[str, int]) -> None:
    global _blocks
    if phase != "stop" or info["generation"] != len(THRESHOLDS) - 1:
        return
    blocks = sys.getallocatedblocks()
    if _blocks and blocks > 2 * _blocks + MARGIN:
        _blocks = 0
        gc.unfreeze()
        return
    _blocks = _blocks or blocks
    gc.freeze()

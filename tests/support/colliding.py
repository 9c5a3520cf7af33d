"""Keys that a hostile peer would choose."""

from __future__ import annotations


def colliding(count: int) -> list[int]:
    """Keys below 2**61 of which the later half walks over all of the first half in a dict.

    They are laid out for the dict's last size: first the steps `5 * slot + 1` from slot 0, then
    keys which come to slot 0 when nothing of their high bits is left.
    """
    size = 8
    while size * 2 // 3 < count:
        size *= 2
    keys, slot = [], 0
    for _ in range(count // 2):
        keys.append(slot)
        slot = (5 * slot + 1) % size
    return keys + [number * size for number in range(1, count - len(keys) + 1)]

"""Transfer filters of teleport: what bytes of a message go through. (spec teleport.md, 3)

Rule: pure functions of bytes. What a peer packed costs no more than the limit of a frame for each
filter, and there are few of these.
"""

from __future__ import annotations

import gzip
import hmac
import zlib
from collections.abc import Mapping
from hashlib import md5
from typing import Protocol

from fastway.dialect import BadFrame

MAX_FILTERS = 8
"""Filters of one message: each may make it as long as a frame may be."""


class Filter(Protocol):
    """One's own filter has these two methods."""

    def pack(self, data: bytes, /) -> bytes: ...

    def unpack(self, data: bytes, limit: int, /) -> bytes:
        """At most `limit` bytes. Raises BadFrame: they are none of this filter's, or more."""


class Gzip:
    """Members of gzip; what is empty stays so.

    Args:
        level: 1 to 9; 5 as Go's examples.
    """

    def __init__(self, level: int = 5) -> None:
        self._level = level

    def pack(self, data: bytes) -> bytes:
        return gzip.compress(data, self._level, mtime=0)

    def unpack(self, data: bytes, limit: int) -> bytes:
        if not data:
            return data
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            out = stream.decompress(data, limit + 1)
        except zlib.error:
            raise BadFrame("a message that is said to be gzip, and is not") from None
        if len(out) > limit:
            raise BadFrame(f"a compressed message of more than {limit} bytes")
        if not stream.eof or stream.unused_data:
            raise BadFrame("a compressed message that is cut off, or has more behind it")
        return out


class Md5:
    """The digest behind the bytes: it finds what was broken, not what was forged."""

    def pack(self, data: bytes) -> bytes:
        return data + md5(data, usedforsecurity=False).digest()

    def unpack(self, data: bytes, limit: int) -> bytes:
        body, digest = data[:-16], data[-16:]
        if not hmac.compare_digest(md5(body, usedforsecurity=False).digest(), digest):
            raise BadFrame("a message whose md5 is another")
        return body


FILTERS: Mapping[str, Filter] = {"g": Gzip(), "m": Md5()}
"""As Go's tests and examples name them."""


def pack(filters: Mapping[int, Filter], ids: bytes, data: bytes) -> bytes:
    """The last is innermost."""
    for one in reversed(ids):
        data = filters[one].pack(data)
    return data


def unpack(filters: Mapping[int, Filter], ids: bytes, data: bytes, limit: int) -> bytes:
    """Raises BadFrame: a filter is not known here, or does not take it."""
    if len(ids) > MAX_FILTERS:
        raise BadFrame(f"{len(ids)} filters: at most {MAX_FILTERS} are taken")
    for one in ids:
        known = filters.get(one)
        if known is None:
            raise BadFrame(f"filter {one}, which is not among those of this port")
        data = known.unpack(data, limit)
    return data

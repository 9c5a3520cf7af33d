"""Fields of teleport's messages that are text: numbers, status and meta. (spec teleport.md, 3)

Rule: pure functions. What a peer sends costs time in proportion to its length, and is at most so
many pairs; what it got wrong is a BadFrame, what this side got wrong a FrameRefused.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from fastway.dialect import BadFrame, FrameRefused, Meta, Refused

MAX_FIELD = 0xFFFF
"""Bytes of a status or of meta."""

MAX_PAIRS = 1000
"""Pairs of meta that are taken."""

MAX_TEXT = 1000
"""Characters of a status' text, and of its cause, that are sent."""

MAX_SEQ = 2**31 - 1
OK_STATUS = b"code=0"
UNKNOWN_ERROR = -1

_SEQ = re.compile(rb"[+-]?[0-9A-Za-z]{1,255}")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS = [(high + low).encode() for high in _DIGITS for low in _DIGITS]
_SHORT = [pair.lstrip(b"0") or b"0" for pair in _PAIRS]

_WORDS = {
    (400, "bad message"): "Bad Message",
    (404, "not found"): "Not Found",
    (500, "internal error"): "Internal Server Error",
}
"""What fastway says -> what teleport says; those have a cause, which is empty."""


def write_seq(seq: int) -> bytes:
    """A number to the base 36, of 32 bits."""
    if 0 <= seq < 1296:
        return _SHORT[seq]
    if seq < 0:
        return b"-" + write_seq(-seq)
    return _long(seq // 1296) + _PAIRS[seq % 1296]


_long = lru_cache(maxsize=1024)(write_seq)
"""What does not change for 1296 numbers, which is most of what they cost."""


def read_seq(text: bytes) -> int:
    """Raises BadFrame: it is none of 32 bits."""
    if len(text) < 6 and text.isalnum():
        return int(text, 36)
    seq = int(text, 36) if _SEQ.fullmatch(text) else MAX_SEQ + 1
    if not -MAX_SEQ - 1 <= seq <= MAX_SEQ:
        raise BadFrame("a seq that is no number of 32 bits to the base 36")
    return seq


def _quoted(text: str) -> str:
    return quote(text, safe="*").replace("~", "%7E")


def write_meta(meta: Meta) -> bytes:
    """Raises FrameRefused: it is too long, or no text."""
    try:
        pairs = [_quoted(key) + ("=" + _quoted(value) if value else "") for key, value in meta]
    except (TypeError, ValueError):
        raise FrameRefused("meta is pairs of text") from None
    data = "&".join(pairs).encode()
    if len(data) > MAX_FIELD:
        raise FrameRefused(f"meta of {len(data)} bytes: at most {MAX_FIELD} fit")
    return data


def read_meta(data: bytes) -> list[tuple[str, str]]:
    """Raises BadFrame: there is too much."""
    if not data:
        return []
    if len(data) > MAX_FIELD or data.count(b"&") >= MAX_PAIRS:
        raise BadFrame(f"more than {MAX_PAIRS} pairs, or {MAX_FIELD} bytes, of meta")
    pairs = []
    for pair in data.split(b"&"):
        key, _, value = pair.partition(b"=")
        if pair:
            pairs.append((unquoted(key), unquoted(value)))
    return pairs


def _byte(found: re.Match[bytes]) -> bytes:
    return bytes((int(found[1], 16),))


def unquoted(data: bytes, errors: str = "replace") -> str:
    """Text of a query. What stands behind a % and is no number stays as it is.

    `urllib.parse.unquote` takes 180 times the length of what is nothing but %.
    """
    if b"+" in data:
        data = data.replace(b"+", b" ")
    if b"%" in data:
        data = _ESCAPED.sub(_byte, data)
    return data.decode("utf-8", errors)


def word_of(refused: Refused) -> str:
    """Its text, in Go's words where it is of fastway."""
    return _WORDS.get((refused.code, refused.text), refused.text)


def write_status(refused: Refused) -> bytes:
    """What says that something was not done; never that it was."""
    code, text, cause = refused.code, refused.text, refused.data
    if not (0 < abs(code) <= MAX_SEQ):
        code = UNKNOWN_ERROR
    word = word_of(refused)
    if word != text:
        text, cause = word, "" if cause is None else cause
    status = f"code={code}"
    if text:
        status += f"&msg={_cut(text)}"
    if cause is not None:
        status += f"&cause={_cut(cause if isinstance(cause, str) else _said(cause))}"
    return status.encode()


def _said(cause: Any) -> str:
    try:
        return json.dumps(cause, ensure_ascii=False)
    except (TypeError, ValueError):
        return ""


def _cut(text: str) -> str:
    return _quoted(text[:MAX_TEXT].encode("utf-8", "replace").decode())


def read_status(data: bytes) -> Refused | None:
    """None: it is done. Raises BadFrame as `read_meta`."""
    if data in (b"", OK_STATUS):
        return None
    said: dict[str, str] = {}
    for key, value in read_meta(data):
        said.setdefault(key, value)
    code = said.get("code", "0")
    try:
        number = int(code) if code.lstrip("+-").isascii() and len(code) < 12 else UNKNOWN_ERROR
    except ValueError:
        number = UNKNOWN_ERROR
    return Refused(number, said.get("msg", ""), said.get("cause")) if number else None

"""Frames of teleport v6 in the words of HTTP: Go's httproto. (spec teleport.md, 4)

    POST /math/add HTTP/1.1        HTTP/1.1 200 OK         HTTP/1.1 299 Business Error
    X-Seq: 1                       X-Seq: 1                X-Seq: 1
    X-Mtype: 1                     X-Mtype: 2              X-Mtype: 2
    Content-Type: application/json;charset=utf-8

It is a connection of teleport: both ends may call, answers overtake each other, and there is no
PUSH. A plain HTTP client can call too, one question at a time.

Rule: as that of `teleport_frames`. Names of headers are told apart as HTTP has it; those that the
frame does not have itself are meta.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from fastway.dialect import BadFrame, FrameRefused, NotInDialect, Refused
from fastway.dialect.teleport_codecs import TeleportJson
from fastway.dialect.teleport_fields import (
    MAX_FIELD,
    MAX_SEQ,
    OK_STATUS,
    read_meta,
    read_status,
    write_meta,
    write_status,
)
from fastway.dialect.teleport_filters import Filter, Gzip, pack, unpack
from fastway.dialect.teleport_frames import AUTH_CALL, AUTH_REPLY, CALL, REPLY, Frame

MAX_HEAD = 16 * 1024
"""Bytes of what stands before a body."""

TYPES = {
    "p": "application/x-protobuf",
    "j": "application/json",
    "f": "application/x-www-form-urlencoded",
    "s": "text/plain",
    "x": "text/xml",
}
"""Codecs that have a name in HTTP."""

_CODECS = {name: ord(letter) for letter, name in TYPES.items()}
_BLANK = re.compile(rb"\r?\n\r?\n")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DIGITS = re.compile(rb"[0-9]{1,10}")
_NUMBER = re.compile(rb"-?[0-9]{1,10}")
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_PATH = "/-._~!$&'()*+,;=:@"
_OWN = frozenset(
    (
        b"accept-encoding",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"origin",
        b"transfer-encoding",
        b"user-agent",
        b"x-content-encoding",
        b"x-mtype",
        b"x-seq",
    )
)
"""Headers that are the frame's, or HTTP's: no meta."""

Headers: TypeAlias = "list[tuple[bytes, bytes]]"


class HttpFrames:
    """Go's httproto: on a stream alone."""

    streamed = True

    def size(self, data: bytes, at: int) -> int:
        found = _BLANK.search(data, at, at + MAX_HEAD)
        if found is None:
            if len(data) - at >= MAX_HEAD:
                raise BadFrame(f"a head of more than {MAX_HEAD} bytes")
            return len(data) - at + 1  # more of it
        _, headers = _head(data[at : found.start()])
        return found.end() - at + _length(headers)

    def read(self, data: bytes, filters: Mapping[int, Filter], limit: int) -> Frame:
        found = _BLANK.search(data)
        assert found is not None
        line, headers = _head(data[: found.start()])
        body = data[found.end() :]
        seq, mtype, codec, ids = _fields(headers, filters)
        if ids and body:
            body = unpack(filters, ids, body, limit)
        meta = write_pairs([one for one in headers if one[0].lower() not in _OWN])
        if line.startswith(b"HTTP/"):
            status = _status(line, body)
            if status is not None:
                codec, body = 0, b""
            return Frame(mtype or REPLY, seq, b"", status or OK_STATUS, meta, codec, body, ids)
        method, query = _target(line)
        meta = b"&".join(one for one in (query, meta) if one)
        if len(meta) > MAX_FIELD:
            raise BadFrame(f"more than {MAX_FIELD} bytes of meta")
        return Frame(mtype or CALL, seq, method, OK_STATUS, meta, codec, body, ids)

    def write(self, frame: Frame, filters: Mapping[int, Filter], limit: int) -> bytes:
        mtype, seq, method, status, meta, codec, body, ids = frame
        refused: Refused | None = None
        head = [b"X-Seq: %d" % seq, b"X-Mtype: %d" % mtype]
        if mtype in (CALL, AUTH_CALL):
            path = quote(method, safe=_PATH) or "/"
            line = f"POST {path} HTTP/1.1".encode()
            head += [b"User-Agent: erpc-httproto/1.1", b"Accept-Encoding: gzip"]
        elif mtype in (REPLY, AUTH_REPLY):
            line = b"HTTP/1.1 200 OK"
            refused = read_status(status)
            if refused is not None:
                line = b"HTTP/1.1 299 Business Error"
                body = _said(refused)
        else:
            raise NotInDialect("httproto has no PUSH")
        if ids:
            check_filters(filters, ids)
            body = pack(filters, ids, body)
            head += [b"Content-Encoding: gzip", b"X-Content-Encoding: gzip"]
        if refused is not None:
            head.append(b"Content-Type: application/json")
        elif codec:
            name = TYPES.get(chr(codec))
            if name is None:
                raise FrameRefused(f"codec {chr(codec)!r} has no name in HTTP")
            head.append(f"Content-Type: {name};charset=utf-8".encode())
        head.append(b"Content-Length: %d" % len(body))
        head = sorted(head + _headers(meta, line.startswith(b"POST")))  # as Go's
        data = b"\r\n".join((line, *head, b"", body))
        if len(data) > limit or len(data) - len(body) > MAX_HEAD:
            raise FrameRefused(f"a frame of {len(data)} bytes: at most {limit} are sent")
        return data


def check_filters(filters: Mapping[int, Filter], ids: bytes) -> None:
    """Raises FrameRefused: HTTP has a word for one gzip, and for nothing else."""
    if len(ids) > 1 or any(not isinstance(filters[one], Gzip) for one in ids):
        raise FrameRefused("httproto has one filter, which is gzip")


def write_pairs(headers: Headers) -> bytes:
    """Headers, as meta is written. Raises BadFrame: there is too much."""
    return write_meta(
        [(name.decode("latin-1"), value.decode("utf-8", "replace")) for name, value in headers]
    )


def _head(head: bytes) -> tuple[bytes, Headers]:
    """Its first line, and its headers."""
    line, *lines = head.split(b"\n")
    headers = []
    for one in lines:
        name, colon, value = one.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            raise BadFrame("a header that is none")
        headers.append((name, value.strip()))
    return line.rstrip(b"\r"), headers


def _length(headers: Headers) -> int:
    said = {value for name, value in headers if name.lower() == b"content-length"}
    for name, _ in headers:
        if name.lower() == b"transfer-encoding":
            raise BadFrame("a body in chunks, which are not taken")
        if name.lower() == b"origin":
            raise BadFrame("a request of a page in a browser")
    if not said:
        return 0
    if len(said) > 1 or not _DIGITS.fullmatch(min(said)):
        raise BadFrame("a Content-Length that is none")
    return int(min(said))


def _fields(headers: Headers, filters: Mapping[int, Filter]) -> tuple[int, int, int, bytes]:
    """seq, type, codec and filters that headers tell of."""
    seq = mtype = codec = 0
    ids = b""
    for name, value in headers:
        name = name.lower()
        if name in (b"x-seq", b"x-mtype"):
            number = int(value) if _NUMBER.fullmatch(value) else MAX_SEQ + 1
            most = MAX_SEQ if name == b"x-seq" else 255
            if not (-MAX_SEQ - 1 if name == b"x-seq" else 0) <= number <= most:
                raise BadFrame(f"{name.decode()} is no number that it can be")
            seq, mtype = (number, mtype) if name == b"x-seq" else (seq, number)
        elif name == b"content-type":
            kind = value.partition(b";")[0].strip().lower().decode("latin-1")
            codec = _CODECS.get(kind, 0)
        elif name == b"x-content-encoding":
            known = [one for one, made in filters.items() if isinstance(made, Gzip)]
            if value != b"gzip" or not known or ids:
                raise BadFrame("a filter that is not the one gzip")
            ids = bytes(known[:1])
    return seq, mtype, codec, ids


def _target(line: bytes) -> tuple[bytes, bytes]:
    """The path and the query of a request."""
    words = line.split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        raise BadFrame("a line that begins no request of HTTP")
    if words[0] != b"POST":  # a page in a browser may have any other asked, and say no Origin
        raise BadFrame("a request that is no POST")
    try:
        target = urlsplit(words[1].decode("ascii"))
    except ValueError:
        raise BadFrame("a target that is none") from None
    return unquote(target.path, errors="replace").encode(), target.query.encode()


def _status(line: bytes, body: bytes) -> bytes | None:
    """None: it is done."""
    words = line.split(b" ", 2)
    if words[1:2] == [b"200"]:
        return None
    if words[1:2] != [b"299"]:
        raise BadFrame("an answer that is neither 200 nor 299")
    try:
        said: dict[str, Any] = TeleportJson().decode(body, dict[str, Any])
        code, text, cause = said.get("code", -1), said.get("msg", ""), said.get("cause")
        return write_status(Refused(int(code), str(text), None if cause is None else str(cause)))
    except Exception:
        raise BadFrame("an error that is no status in JSON") from None


def _said(refused: Refused) -> bytes:
    said = {"code": refused.code, "msg": refused.text}
    if refused.data is not None:
        said["cause"] = refused.data
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


def _headers(meta: bytes, asks: bool) -> list[bytes]:
    """Meta as headers; what a frame says itself is left out, and of an answer what is no name."""
    lines = []
    for name, value in read_meta(meta):
        key = name.encode()
        if key.lower() in _OWN:
            continue
        if _TOKEN.fullmatch(key):
            lines.append(b"%b: %b" % (key, _CONTROL.sub(" ", value).encode()))
        elif asks:
            raise FrameRefused(f"meta {name[:50]!r} is no header")
    return lines

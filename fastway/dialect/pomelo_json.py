"""JSON in pomelo: bodies as the JavaScript clients read and write them, handshakes and kicks.

Rule: nothing of packets, and no state. What is written is ASCII, and never nothing at all; what is
read may have the mistakes of those clients. (spec nano.md 2.1, 2.2, 2.6, 3.5; UTF-8 as RFC 3629)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fastway.dialect import BadFrame, NotLetIn, Refused
from fastway.dialect.go_json import GoJson
from fastway.formats import is_plain_json

MAX_BEAT = 24 * 3600.0
"""The longest interval of heartbeats, in seconds, whatever a server says."""

OK, FAILED, OLD_CLIENT, PITAYA_FAILED = 200, 500, 501, 400
"""Codes of the answer to a handshake that clients know."""


class PomeloJson(GoJson):
    """Messages are plain JSON, or what msgspec makes of it: `pip install 'fastway[app]'`.

    Those clients take the UTF-8 of characters beyond U+FFFF for something else, so all that is no
    ASCII is sent in escapes. They send such a character as the UTF-8 of two surrogates, which is
    none: this is mended, once the bytes turn out not to be JSON. No bytes at all, which nano
    sends for an empty answer, are null; and null, of a Go peer, is an empty list where one is
    wanted.
    """

    def encode(self, message: Any) -> bytes:
        data: bytes = self._write(message)
        if is_plain_json(data, False):
            return data
        self._look(message, data)
        return data if data.isascii() else _NOT_ASCII.sub(_escape, data.decode()).encode()

    def decode(self, data: bytes, into: Any = None) -> Any:
        try:
            return super().decode(data or b"null", into)
        except ValueError:
            if not _SURROGATES.search(data):
                raise
        return super().decode(_SURROGATES.sub(_character, data), into)

    def quick(self, into: Any) -> Callable[[bytes], Any] | None:
        return self._decoder(into) if type(self).decode is PomeloJson.decode else None


_NOT_ASCII = re.compile("[^\0-\x7f]+")
_SURROGATES = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex(" ", 2)
    return "\\u" + units.replace(" ", "\\u")


def _character(found: re.Match[bytes]) -> bytes:
    pair = found[0].decode("utf-8", "surrogatepass").encode("utf-16-be", "surrogatepass")
    return pair.decode("utf-16-be").encode()


_json = PomeloJson()


def _read_object(data: bytes) -> dict[str, Any] | None:
    try:
        said = _json.decode(data)
    except Exception:
        return None
    return said if isinstance(said, dict) else None


# Handshakes.


def write_greeting(client: Mapping[str, str], user: Any) -> bytes:
    """What a client says to be let in. Raises what JSON does: the user cannot be said in it."""
    return _json.encode({"sys": client} if user is None else {"sys": client, "user": user})


def read_greeting(data: bytes) -> Any:
    """What a client says of itself. nano looks at nothing of it, so that nothing is wrong."""
    said = _read_object(data)
    return said.get("user") if said else None


def welcome_head(dictionary: Mapping[str, int], beat: float, serializer: str) -> str:
    """What a server says to who is let in, up to the time.

    Args:
        beat: Seconds.
        serializer: A name that pitaya's clients look at; "" for nano.
    """
    facts: dict[str, Any] = {"dict": dictionary} if dictionary else {}
    facts["heartbeat"] = int(beat) if beat.is_integer() else beat
    if serializer:
        facts["serializer"] = serializer
    written = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return f'{{"code":{OK},"sys":{written[:-1]},"servertime":'


def write_welcome(head: str, unix_time: float, user: Any) -> bytes:
    """All of it; keys are in order, as Go has them."""
    start = f"{head}{int(unix_time)}}}".encode()
    return start + (b"}" if user is None else b',"user":' + _json.encode(user) + b"}")


def write_farewell(code: int, refused: Refused) -> bytes:
    """What a server says to who is not let in; clients look at the code alone."""
    return _json.encode({"code": code, "error": {"code": refused.code, "msg": refused.text}})


class Welcome(NamedTuple):
    """What a server says to who is let in.

    Attributes:
        beat: Seconds between heartbeats; 0: none.
        dictionary: Codes of routes; None: it says nothing of them.
        user: What the application has for it.
    """

    beat: float
    dictionary: dict[str, int] | None
    user: Any


def read_welcome(data: bytes) -> Welcome:
    """Raises:
    BadFrame: it is none.
    NotLetIn: it says so.
    """
    said = _read_object(data)
    if said is None:
        raise BadFrame("an answer to the handshake that is no JSON object")
    code = said.get("code")
    if code != OK:
        raise _not_let_in(code, said.get("error"))
    facts = said.get("sys")
    if not isinstance(facts, dict):
        facts = {}
    beat: Any = facts.get("heartbeat")
    if isinstance(beat, bool) or not isinstance(beat, (int, float)):
        beat = 0.0
    dictionary = facts.get("dict")
    return Welcome(
        min(max(beat, 0.0), MAX_BEAT),
        None if dictionary is None else _read_dictionary(dictionary),
        said.get("user"),
    )


def _read_dictionary(said: Any) -> dict[str, int]:
    if not isinstance(said, dict):
        raise BadFrame("a dictionary that is no JSON object")
    for code in said.values():
        if type(code) is not int or not 0 <= code <= 0xFFFF:
            raise BadFrame("a dictionary with something that is no code")
    return said


def _not_let_in(code: Any, error: Any) -> NotLetIn:
    number = code if type(code) is int else 0
    text = "this client is too old for it" if number == OLD_CLIENT else ""
    if isinstance(error, dict):
        own, said = error.get("code"), error.get("msg")
        number = own if type(own) is int else number
        text = said if isinstance(said, str) else text
    return NotLetIn(Refused(number, text))


# Kicks, and requests that are not done.


def write_refusal(refused: Refused) -> bytes:
    """What is answered in place of what was asked, where there is no bit that says so."""
    return _json.encode({"code": refused.code, "msg": refused.text})


def write_kick(reason: Any) -> bytes:
    """Why a client is kicked. The JavaScript clients throw when it is empty."""
    return _json.encode(reason if isinstance(reason, dict) else {"reason": reason})


def read_kick(data: bytes) -> Any:
    """Why; what `write_kick` makes of a reason that is no object is undone."""
    if not data:
        return None
    try:
        said = _json.decode(data)
    except Exception:
        return data.decode("utf-8", "replace")
    return said["reason"] if isinstance(said, dict) and said.keys() == {"reason"} else said

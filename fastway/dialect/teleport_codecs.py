"""Body codecs of teleport: JSON, plain text, forms and Protocol Buffers. (spec teleport.md, 3)

Rule: each is a format. No bytes at all are what Go calls the zero value, where the type that is
wanted has one: None, an empty list, an empty text, 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from fastway.dialect import Body, BodyFormat, FrameRefused, Refused
from fastway.dialect.go_json import GoJson
from fastway.dialect.teleport_fields import unquoted
from fastway.formats import Text, is_plain_json

MAX_FIELDS = 1000
"""Fields of a form that are taken."""

_ZEROS = (b"null", b"{}", b"[]", b'""', b"0", b"false")
_LESS, _MORE, _AND = b"<>&"
_ESCAPES = (
    (b"<", rb"\u003c"),
    (b">", rb"\u003e"),
    (b"&", rb"\u0026"),
    ("\u2028".encode(), rb"\u2028"),
    ("\u2029".encode(), rb"\u2029"),
)


class TeleportJson(GoJson):
    """JSON in the bytes that Go's encoder writes; nothing is no bytes."""

    codec = "j"

    def encode(self, message: Any) -> bytes:
        if message is None:
            return b""
        data: bytes = self._write(message)
        if is_plain_json(data, True):
            return data
        self._look(message, data)
        if _LESS in data or _MORE in data or _AND in data or not data.isascii():
            for plain, escape in _ESCAPES:  # only strings have these
                data = data.replace(plain, escape)
        return data

    def decode(self, data: bytes, into: Any = None) -> Any:
        if data:
            return super().decode(data, into)
        if into is None:
            return None
        for zero in _ZEROS:
            try:
                return super().decode(zero, into)
            except ValueError:
                continue
        raise ValueError(f"no body at all, and {into} has no zero value")

    def quick(self, into: Any) -> Callable[[bytes], Any] | None:
        return self._decoder(into) if type(self).decode is TeleportJson.decode else None


class Plain(Text):
    """Text as it is, numbers in decimals, `true` and `false`."""

    codec = "s"

    def encode(self, message: Any) -> bytes:
        if message is None:
            return b""
        if isinstance(message, bool):
            return b"true" if message else b"false"
        if isinstance(message, (int, float)):
            return repr(message).encode()
        if isinstance(message, (bytes, bytearray, memoryview)):
            return bytes(message)
        return super().encode(message)

    def decode(self, data: bytes, into: Any = None) -> Any:
        text = super().decode(data)
        if into in (None, Any, str):
            return text
        if into is bool:
            return {"true": True, "false": False, "": False}[text]
        if into in (int, float):
            if len(text) > 400:
                raise ValueError("a number of over 400 digits")
            return into(text or "0")
        raise TypeError(f"plain text makes no {getattr(into, '__name__', into)}")


class Form:
    """Names and texts, as browsers send them: sorted, and a list is a name that comes again."""

    codec = "f"

    def encode(self, message: Any) -> bytes:
        if message is None:
            return b""
        if not isinstance(message, Mapping):
            message = importlib.import_module("msgspec").to_builtins(message)
        if not isinstance(message, Mapping):
            raise TypeError(f"a form has names, and {type(message).__name__} has none")
        said = {
            name: [_word(one) for one in (value if isinstance(value, (list, tuple)) else [value])]
            for name, value in message.items()
        }
        return urlencode(sorted(said.items()), doseq=True).encode()

    def decode(self, data: bytes, into: Any = None) -> Any:
        if data.count(b"&") >= MAX_FIELDS:
            raise ValueError(f"more than {MAX_FIELDS} fields")
        said: dict[str, Any] = {}
        for pair in data.split(b"&"):
            name, _, value = pair.partition(b"=")
            if pair:
                said.setdefault(unquoted(name, "strict"), []).append(unquoted(value, "strict"))
        if into is None or into is Any:
            return {name: v[0] if len(v) == 1 else v for name, v in said.items()}
        lists = _lists(into)
        plain = {
            name: v if lists.get(name, lists.get("", len(v) > 1)) else v[0]
            for name, v in said.items()
        }
        return importlib.import_module("msgspec").convert(plain, into, strict=False)


def _word(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _lists(into: Any) -> dict[str, bool]:
    """Which fields of a type are lists; "": all others, where they are said to be something."""
    inspect = importlib.import_module("msgspec.inspect")
    info = inspect.type_info(into)
    kinds = {one.encode_name: one.type for one in getattr(info, "fields", ())}
    if hasattr(info, "value_type"):
        kinds[""] = info.value_type
    return {
        name: hasattr(kind, "item_type")
        for name, kind in kinds.items()
        if not isinstance(kind, inspect.AnyType)
    }


class Proto:
    """Messages of generated classes; where no class is wanted, bytes: `fastway[protobuf]`."""

    codec = "p"

    def encode(self, message: Any) -> bytes:
        if message is None:
            return b""
        data: bytes = self._of(type(message)).encode(message)
        return data

    def decode(self, data: bytes, into: Any = None) -> Any:
        return data if into is None or into is Any else self._of(into).decode(data)

    def _of(self, kind: Any) -> Any:
        return importlib.import_module("fastway.formats").ProtocolBuffers(kind)


class NoCodec:
    """A codec that this port does not have; nothing can be said in it but bytes.

    Args:
        number: Its id; 0: the message has none.
    """

    def __init__(self, number: int) -> None:
        self.codec = chr(number)
        self._number = number

    def encode(self, message: Any) -> bytes:
        if message is None:
            return b""
        raise Refused(500, f"unsupported codec id: {self._number}")

    def decode(self, data: bytes, into: Any = None) -> Any:
        if data:
            raise ValueError(f"unsupported codec id: {self._number}")
        return TeleportJson().decode(data, into)


class Lettered:
    """A format that does not say its letter itself."""

    def __init__(self, form: BodyFormat, codec: str) -> None:
        self.codec = codec
        self._form = form

    def encode(self, message: Any) -> bytes:
        return self._form.encode(message)

    def decode(self, data: bytes, into: Any = None) -> Any:
        return self._form.decode(data, into)


def by_id(formats: Mapping[str, BodyFormat]) -> dict[int, BodyFormat]:
    """Formats by the ids of their codecs; each says its letter, for `Body`.

    Raises:
        ValueError: one has no letter of 8 bits.
    """
    known: dict[int, BodyFormat] = {}
    for letter, form in formats.items():
        if len(letter) != 1 or not 0 < ord(letter) < 256:
            raise ValueError(f"codecs: {letter!r} is no letter of 8 bits")
        says = getattr(form, "codec", None) == letter
        known[ord(letter)] = form if says else Lettered(form, letter)
    return known


def codec_of(body: bytes, codec: int) -> int:
    """The id of what a body is written in, which is `codec` where it does not say.

    Raises:
        FrameRefused: it has a body and no codec.
    """
    if not isinstance(body, Body) or not body.codec:
        return codec
    said = ord(body.codec)
    if body and not said:
        raise FrameRefused("a body without a codec")
    return said


CODECS: Mapping[str, BodyFormat] = {"p": Proto(), "s": Plain(), "f": Form()}
"""Those that need nothing; JSON needs msgspec."""

NO_CODECS = [NoCodec(number) for number in range(256)]

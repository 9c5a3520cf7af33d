"""What a message is to the application: bytes, text, JSON, MessagePack, Protocol Buffers, or its
own.

Rule: a format is two methods. Whatever `decode` raises closes that virtual connection with a
clear reason, and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol


class MessageFormat(Protocol):
    """How messages become bytes and back; one's own format has these two methods."""

    def encode(self, message: Any) -> bytes:
        """The bytes of a message. What it raises, the sender sees."""

    def decode(self, data: bytes) -> Any:
        """The message in these bytes. Raises anything when there is none."""


class Bytes:
    """Messages are bytes: what is sent is what comes out. The default."""

    def encode(self, message: Any) -> bytes:
        if not isinstance(message, (bytes, bytearray, memoryview)):
            raise TypeError(f"a message is bytes here, not {type(message).__name__}")
        return bytes(message)

    def decode(self, data: bytes) -> bytes:
        return data


class Text:
    """Messages are strings, UTF-8 on the wire."""

    def encode(self, message: Any) -> bytes:
        if not isinstance(message, str):
            raise TypeError(f"a message is text here, not {type(message).__name__}")
        return message.encode("utf-8")

    def decode(self, data: bytes) -> str:
        return data.decode("utf-8")


class Json:
    """Messages are what JSON can say; compact UTF-8 on the wire. No NaN, no infinity."""

    def encode(self, message: Any) -> bytes:
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode("utf-8")

    def decode(self, data: bytes) -> Any:
        # Decoded here: `json` would guess at UTF-16, and let lone surrogates pass.
        text = data.decode("utf-8")
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is too large for a number")
    return number


class MessagePack:
    """Messages are what MessagePack can say: `pip install 'fastway[msgpack]'`."""

    def __init__(self) -> None:
        import msgpack

        self._pack: Callable[[Any], bytes] = msgpack.packb
        # Maps may have numbers as keys: what can be sent can be received.
        self._unpack: Callable[[bytes], Any] = partial(msgpack.unpackb, strict_map_key=False)

    def encode(self, message: Any) -> bytes:
        return self._pack(message)

    def decode(self, data: bytes) -> Any:
        return self._unpack(data)


class ProtocolBuffers:
    """Messages of one generated class: `pip install 'fastway[protobuf]'`.

    Args:
        message_class: What `protoc` generated. For several kinds, wrap them in a `oneof`.
    """

    def __init__(self, message_class: type[Any]) -> None:
        self._class = message_class

    def encode(self, message: Any) -> bytes:
        if not isinstance(message, self._class):
            raise TypeError(
                f"a message is {self._class.__name__} here, not {type(message).__name__}"
            )
        data: bytes = message.SerializeToString()
        return data

    def decode(self, data: bytes) -> Any:
        return self._class.FromString(data)

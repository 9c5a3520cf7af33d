"""What a message is to the application: bytes, text, JSON, MessagePack, Protocol Buffers, or its
own.

Rule: no I/O, no Twisted. A format is two methods. What a peer sends costs time in proportion to
its length, and either becomes a message that can be sent again or raises an ordinary exception,
which closes that virtual connection with a clear reason, and nothing else.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, overload

from fastway.relay import missing

MAX_DEPTH = 100
"""Lists and maps within one another in JSON and MessagePack; as Protocol Buffers have it."""

MAX_NUMBER_KEYS = 1000
"""Keys of one map that are not text or bytes, such as numbers.

Python salts the hashes of text and bytes only. A peer can choose numbers that all meet in one
chain of a dict, which then costs their number squared: 1000 such keys take half a millisecond.
"""

MAX_DIGITS = 4300
"""Digits of a whole number in JSON, as Python and msgspec have it; `int` takes their square."""

M = TypeVar("M")
T = TypeVar("T")
Into = TypeVar("Into")


class MessageFormat(Protocol[M]):
    """How messages become bytes and back; one's own format has these two methods."""

    def encode(self, message: M, /) -> bytes:
        """The bytes of a message. What it raises, the sender sees."""

    def decode(self, data: bytes, /) -> M:
        """The message in these bytes. Raises anything when there is none.

        The formats below have a second argument, `into`: the type wanted instead of their own.
        """


@dataclass(frozen=True)
class Encoded:
    """Bytes that are an encoded message already: sent as they are, whatever the format.

    To send one message to many, encode it once. Nothing is checked: the bytes must be what the
    far end's format takes.
    """

    data: bytes


class Bytes:
    """Messages are bytes: what is sent is what comes out. The default."""

    def encode(self, message: bytes | bytearray | memoryview) -> bytes:
        if not isinstance(message, (bytes, bytearray, memoryview)):
            raise TypeError(f"a message is bytes here, not {type(message).__name__}")
        return bytes(message)

    def decode(self, data: bytes, into: type[bytes] | None = None) -> bytes:
        _only(bytes, into)
        return data


class Text:
    """Messages are strings, UTF-8 on the wire."""

    def encode(self, message: str) -> bytes:
        if not isinstance(message, str):
            raise TypeError(f"a message is text here, not {type(message).__name__}")
        return message.encode("utf-8")

    def decode(self, data: bytes, into: type[str] | None = None) -> str:
        _only(str, into)
        return data.decode("utf-8")


def _only(made: object, into: object) -> None:
    if into is not None and into is not made:
        raise TypeError(f"this format makes {_name(made)}, not {_name(into)}")


def _name(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


MAX_SHALLOW = len('"0":0,') * MAX_NUMBER_KEYS
"""Bytes of JSON in which there is no room for more keys than one map may have."""


def is_shallow(data: bytes) -> bool:
    """JSON in which there is nothing to be bounded; False: it is to be looked at."""
    size = len(data)
    return size <= MAX_DEPTH or (
        size <= MAX_SHALLOW and data.count(b"[") + data.count(b"{") <= MAX_DEPTH
    )


def is_plain(data: bytes, html: bool) -> bool:
    """The same that is ASCII without null; and without < > &, if `html`."""
    return (
        is_shallow(data)
        and data.find(b"null") < 0  # `in` costs twice as much
        and data.isascii()
        and not (html and (b"<" in data or b">" in data or b"&" in data))
    )


is_shallow_json: Callable[[bytes], bool] = is_shallow
is_plain_json: Callable[[bytes, bool], bool] = is_plain
if not missing():
    from fastway.relay import _core

    is_shallow_json, is_plain_json = _core.is_shallow_json, _core.is_plain_json


class _Typed(Generic[M]):
    """What `Json` and `MessagePack` have in common: a type, or none."""

    def __init__(self, message_type: Any = None) -> None:
        self._type = message_type
        if message_type is not None:
            _shape(message_type)  # what is wrong with it is said now

    @overload
    def decode(self, data: bytes, into: None = None) -> M: ...
    @overload
    def decode(self, data: bytes, into: type[Into]) -> Into: ...
    @overload
    def decode(self, data: bytes, into: Any) -> Any: ...
    def decode(self, data: bytes, into: Any = None) -> Any:
        if self._type is None:
            if into is not None:
                own = type(self).__name__
                raise TypeError(f"{own}() makes no {_name(into)}; {own}(Any) makes what is asked")
            return self._plain(data)
        wanted = self._type if into is None else into
        if not self._is_small(data):
            self._bound(data, _shape(wanted))
        try:
            return self._decoder(wanted)(data)
        except RecursionError:  # in what the type has no place for
            raise ValueError(f"nested more than {MAX_DEPTH} deep") from None

    def _plain(self, data: bytes) -> Any:
        raise NotImplementedError

    def _is_small(self, data: bytes) -> bool:
        """There is nothing to be bounded."""
        return False

    def _bound(self, data: bytes, shape: _Shape) -> None:
        raise NotImplementedError

    def _decoder(self, wanted: Any) -> Callable[[bytes], Any]:
        raise NotImplementedError


class Json(_Typed[M]):
    """Messages are what JSON can say, in compact UTF-8; no NaN, no infinity.

    Args:
        message_type: A msgspec struct, a dataclass, a `TypedDict`, a list, a union of these ...:
            messages are checked, and come out as that. `Any`: as plain JSON, but structs may be
            sent, and `decode` takes other types. It needs `pip install 'fastway[msgspec]'`. None:
            plain JSON, which needs nothing.

    Raises:
        ImportError: a type is given, and msgspec is not installed.
        TypeError: it is no type of messages, or a set or map whose keys a peer could choose to
            collide: keys are text, bytes, numbers, or enumerations.
    """

    @overload
    def __init__(self: Json[Any]) -> None: ...
    @overload
    def __init__(self, message_type: type[M]) -> None: ...
    @overload
    def __init__(self: Json[Any], message_type: Any) -> None: ...
    def __init__(self, message_type: Any = None) -> None:
        super().__init__(message_type)
        msgspec: Any = None if message_type is None else _extra("msgspec")
        self._msgspec = msgspec
        self._write = msgspec and msgspec.json.encode

    def encode(self, message: M) -> bytes:
        if self._type is None:
            return _write_json(message)
        data: bytes = self._write(message)
        if not is_plain_json(data, False):
            self._look(message, data)
        return data

    def _look(self, message: Any, data: bytes) -> None:
        """Raises ValueError: what was written of a message is not to be sent."""
        if b"null" in data:  # msgspec writes it for NaN too
            _write_json(self._msgspec.to_builtins(message, str_keys=True, enc_hook=_nothing))
        if not is_shallow_json(data):
            self._bound(data, _shape(self._type))

    def quick(self, into: Any) -> Callable[[bytes], Any] | None:
        """Decodes what `is_shallow_json` says of as `decode` does, or raises anything, and then
        that is to say; None: there is nothing quicker than that."""
        if self._type is None or type(self).decode is not _Typed.decode:
            return None
        return self._decoder(into)

    def _is_small(self, data: bytes) -> bool:
        return is_shallow_json(data)

    def _plain(self, data: bytes) -> Any:
        _check_depth(data)
        # Decoded here: `json` would guess at UTF-16, and let lone surrogates pass.
        message = _read_json(data.decode("utf-8"))
        if b"\\ud" in data or b"\\uD" in data:
            _write_json(message)  # refuses lone surrogates that came in escapes
        return message

    def _bound(self, data: bytes, shape: _Shape) -> None:
        _check_depth(data)
        if shape.number_keys and len(data) > MAX_SHALLOW:
            _count_json(data.decode("utf-8"))

    def _decoder(self, wanted: Any) -> Callable[[bytes], Any]:
        return _decoder("json", wanted)


def _write_json(message: Any) -> bytes:
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    data = text.encode("utf-8")
    _check_depth(data)
    return data


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]} is too large for a number")
    return number


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _few_names(pairs: list[tuple[str, Any]]) -> None:
    # Who mixes text and numbers as keys has names that start with a letter.
    if sum(not key[:1].isalpha() for key, _ in pairs) > MAX_NUMBER_KEYS:
        raise ValueError(f"a map with more than {MAX_NUMBER_KEYS} numbers as keys")


_read_json = json.JSONDecoder(
    parse_constant=_no_constant,
    parse_float=_finite,
    # Before 3.10.7, and where the limit was lifted, Python's own has none.
    parse_int=None if 0 < getattr(sys, "get_int_max_str_digits", int)() <= MAX_DIGITS else _whole,
).decode
_count_json = json.JSONDecoder(object_pairs_hook=_few_names, parse_float=str, parse_int=str).decode

_BRACKETS = bytes.maketrans(b"{}", b"[]")
_STEPS = {ord("["): 1, ord("]"): -1}
_LEVELS = 3
_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))


def _check_depth(data: bytes) -> None:
    """Refuse JSON that is nested too deeply; what is no JSON may be refused or not.

    Strings are taken out, and all that is no bracket. No pattern does it: this is as fast as C
    copies, and linear.
    """
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    data = data.translate(_BRACKETS, _NO_BRACKETS).replace(b'""', b"")
    data = b"".join(data.split(b'"')[::2])
    for _ in range(_LEVELS):
        data = data.replace(b"[]", b"")  # the innermost level
    if data and max(accumulate(map(_STEPS.__getitem__, data))) > MAX_DEPTH - _LEVELS:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")


class MessagePack(_Typed[M]):
    """Messages are what MessagePack can say: `pip install 'fastway[msgpack]'`.

    msgpack decodes where there is no type, since it shows the pairs of a map before they are
    hashed; with a type it looks first where a peer has a choice, and msgspec decodes.

    Args:
        message_type: As with `Json`; it needs `pip install 'fastway[msgpack,msgspec]'`.

    Raises:
        ImportError: msgpack, or msgspec for a type, is not installed.
        TypeError: as with `Json`.
    """

    @overload
    def __init__(self: MessagePack[Any]) -> None: ...
    @overload
    def __init__(self, message_type: type[M]) -> None: ...
    @overload
    def __init__(self: MessagePack[Any], message_type: Any) -> None: ...
    def __init__(self, message_type: Any = None) -> None:
        msgpack = _extra("msgpack")
        super().__init__(message_type)
        plain = message_type is None
        self._pack: Callable[[Any], bytes] = (
            msgpack.packb if plain else _extra("msgspec").msgpack.encode
        )
        self._unpack: Callable[[bytes], Any] = msgpack.unpackb
        self._unpack_numbers: Callable[[bytes], Any] = partial(
            msgpack.unpackb, strict_map_key=False, object_pairs_hook=_few_numbers
        )
        shape = None if plain else _shape(message_type)
        self._number_keys = shape is None or shape.open or shape.number_keys

    def encode(self, message: M) -> bytes:
        data = self._pack(message)
        if self._number_keys and _may_be_wide(data):
            self._plain(data)  # what nobody would take is not sent
        return data

    def _plain(self, data: bytes) -> Any:
        try:
            message = self._unpack(data)
        except ValueError:  # maybe for the keys of a map, which may be numbers
            message = self._unpack_numbers(data)
        if _may_be_deep(data):
            _check_levels(message)
        return message

    def _bound(self, data: bytes, shape: _Shape) -> None:
        if (
            shape.open
            or (shape.endless and _may_be_deep(data))
            or (shape.number_keys and _may_be_wide(data))
        ):
            self._plain(data)

    def _decoder(self, wanted: Any) -> Callable[[bytes], Any]:
        return _decoder("msgpack", wanted)


_KEYS = (int, float, bool, type(None))
_WIDE = re.compile(rb"\xde(?=([\x03-\xff].))|\xdf(?=(....))", re.DOTALL)
_HEADS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])  # the first bytes of lists and maps


def _few_numbers(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    others = [key for key, _ in pairs if type(key) not in (str, bytes)]
    if len(others) > MAX_NUMBER_KEYS:
        raise ValueError(f"a map with more than {MAX_NUMBER_KEYS} numbers as keys")
    for key in others:
        if type(key) not in _KEYS:
            raise ValueError(f"a map with a {type(key).__name__} as a key")
    return dict(pairs)


def _may_be_wide(data: bytes) -> bool:
    """Whether there may be a map with more keys than `MAX_NUMBER_KEYS`: its head, and room."""
    most = len(data) // 2
    return most > MAX_NUMBER_KEYS and any(
        MAX_NUMBER_KEYS < int.from_bytes(head[head.lastindex or 0], "big") <= most
        for head in _WIDE.finditer(data)
    )


def _may_be_deep(data: bytes) -> bool:
    return len(data) > MAX_DEPTH and len(data) - len(data.translate(None, _HEADS)) > MAX_DEPTH


def _check_levels(message: Any) -> None:
    level = [message]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if type(outer) in (list, dict)
            for inner in (outer.values() if type(outer) is dict else outer)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


class ProtocolBuffers(Generic[M]):
    """Messages of one generated class: `pip install 'fastway[protobuf]'`.

    Args:
        message_class: What `protoc` generated. For several kinds, wrap them in a `oneof`; or give
            `google.protobuf.message.Message` and decode `into` what is wanted.

    Raises:
        TypeError: it is no such class.
    """

    def __init__(self, message_class: type[M]) -> None:
        self._class = message_class
        _descriptor(message_class)

    def encode(self, message: M) -> bytes:
        if not isinstance(message, self._class):
            raise TypeError(
                f"a message is {self._class.__name__} here, not {type(message).__name__}"
            )
        known: Any = message
        data: bytes = known.SerializeToString()
        _count_entries(data, type(message))
        return data

    @overload
    def decode(self, data: bytes, into: None = None) -> M: ...
    @overload
    def decode(self, data: bytes, into: type[Into]) -> Into: ...
    def decode(self, data: bytes, into: Any = None) -> Any:
        wanted: Any = self._class if into is None else into
        _count_entries(data, wanted)
        return wanted.FromString(data)


def _descriptor(message_class: Any) -> Any:
    if not (isinstance(message_class, type) and hasattr(message_class, "FromString")):
        raise TypeError(f"{_name(message_class)} is no class of Protocol Buffers messages")
    return getattr(message_class, "DESCRIPTOR", None)


def _count_entries(data: bytes, message_class: Any) -> None:
    """Refuse more numbers as keys of one map than `MAX_NUMBER_KEYS`: they may all collide."""
    descriptor = _descriptor(message_class)
    if len(data) <= len(b"\x0a\x02\x08\x01") * MAX_NUMBER_KEYS:
        return
    twin, numbered = _twin(descriptor)
    if twin is None:
        return
    waiting = [twin.FromString(data)]
    while waiting:
        for field, value in waiting.pop().ListFields():
            if field.message_type is None:
                continue
            if field.message_type.full_name in numbered and len(value) > MAX_NUMBER_KEYS:
                raise ValueError(f"a map with more than {MAX_NUMBER_KEYS} numbers as keys")
            # One message, or a list of them.
            waiting.extend([value] if hasattr(value, "ListFields") else value)


@lru_cache(maxsize=1000)
def _twin(descriptor: Any) -> tuple[Any, frozenset[str]]:
    """A class with the same bytes where maps are lists of entries, and which have numbers as keys.

    None, if no map within has.
    """
    numbered = set()
    seen = {descriptor.full_name: descriptor}
    waiting = [descriptor]
    while waiting:
        for field in waiting.pop().fields:
            inner = field.message_type
            if inner is None or inner.full_name in seen:
                continue
            seen[inner.full_name] = inner
            waiting.append(inner)
            if inner.GetOptions().map_entry:
                key = inner.fields_by_name["key"]
                if key.type not in (key.TYPE_STRING, key.TYPE_BOOL):
                    numbered.add(inner.full_name)
    if not numbered:
        return None, frozenset()
    pool = importlib.import_module("google.protobuf.descriptor_pool").DescriptorPool()
    proto = importlib.import_module("google.protobuf.descriptor_pb2").FileDescriptorProto
    added: set[str] = set()

    def add(file: Any) -> None:
        if file.name in added:
            return
        added.add(file.name)
        for needed in file.dependencies:
            add(needed)
        copy = proto()
        file.CopyToProto(copy)
        kinds = list(copy.message_type)
        while kinds:
            kind = kinds.pop()
            kind.options.ClearField("map_entry")
            kinds.extend(kind.nested_type)
        pool.Add(copy)

    add(descriptor.file)
    factory = importlib.import_module("google.protobuf.message_factory")
    found = pool.FindMessageTypeByName(descriptor.full_name)
    return factory.GetMessageClass(found), frozenset(numbered)


# What types have to do with msgspec.


class _Shape(NamedTuple):
    """What a peer may choose in messages of a type."""

    number_keys: bool  # numbers as keys of a map
    open: bool  # anything, somewhere
    endless: bool  # how deep it is nested


@lru_cache(maxsize=1000)
def _shape(message_type: Any) -> _Shape:
    """Look at all that a type is made of.

    Raises:
        ImportError: msgspec is not installed.
        TypeError: it is no type of messages, or has keys that a peer could choose to collide.
    """
    _extra("msgspec")
    inspect = _extra("msgspec.inspect")
    number_keys = is_open = endless = False
    seen: dict[int, Any] = {}
    waiting = [inspect.type_info(message_type)]
    while waiting:
        info = waiting.pop()
        if id(info) in seen:
            endless = True  # or only used twice
            continue
        seen[id(info)] = info
        if isinstance(info, inspect.CustomType) and info.cls is not object:
            raise TypeError(f"{_name(info.cls)} is no type of messages")
        is_open |= isinstance(info, (inspect.AnyType, inspect.CustomType))
        keys = getattr(info, "key_type", None)
        if isinstance(info, (inspect.SetType, inspect.FrozenSetType)):
            item = info.item_type
            if isinstance(item, inspect.AnyType) or _number_keys(inspect, item):
                raise TypeError(f"{_name(message_type)} has a set of numbers: make it a list")
        elif keys is not None:
            number_keys |= _number_keys(inspect, keys)
        inner = [keys, *(getattr(info, name, None) for name in ("value_type", "item_type"))]
        inner += [*getattr(info, "item_types", ()), *getattr(info, "types", ())]
        inner += [field.type for field in getattr(info, "fields", ())]
        waiting += [one for one in inner if one is not None]
    return _Shape(number_keys, is_open, endless or is_open)


def _number_keys(inspect: Any, keys: Any) -> bool:
    """Whether keys may be numbers. Text, bytes, and what is one of a few values are safe."""
    safe = (
        inspect.StrType,
        inspect.BytesType,
        inspect.BoolType,
        inspect.NoneType,
        inspect.EnumType,
        inspect.LiteralType,
        inspect.AnyType,  # text in JSON; in MessagePack it is looked at
    )
    numbers = False
    for kind in getattr(keys, "types", (keys,)):
        if isinstance(kind, (inspect.IntType, inspect.FloatType)):
            numbers = True
        elif not isinstance(kind, safe):
            name = type(kind).__name__.removesuffix("Type")
            raise TypeError(f"keys are text, bytes, numbers or enumerations, not {name}")
    return numbers


@lru_cache(maxsize=1000)
def _decoder(codec: str, message_type: Any) -> Callable[[bytes], Any]:
    _shape(message_type)  # may refuse it
    decoder = getattr(_extra("msgspec"), codec).Decoder(message_type)
    decode: Callable[[bytes], Any] = decoder.decode
    return decode


def _nothing(raw: Any) -> None:
    """What `msgspec.Raw` counts for where only numbers are looked for."""


def _extra(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        extra = name.partition(".")[0]
        raise ImportError(f"this message format needs pip install 'fastway[{extra}]'") from None

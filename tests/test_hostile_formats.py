"""Hostile messages to a game server that serves with a real format, on both faces.

Rule: whatever the bytes of one guest are, his connection ends with BadMessage, nobody else notices
anything, and it takes no time that anybody would notice either.
"""

from __future__ import annotations

import importlib
import json
import time
import weakref
from collections.abc import Callable
from typing import Any

import msgpack

from fastway.endpoint import Json, MessagePack, ProtocolBuffers, Text
from fastway.errors import BadMessage
from fastway.formats import MAX_NUMBER_KEYS
from tests.support.aio_cases import MemoryCase
from tests.support.colliding import colliding
from tests.support.golden import FIRST, close, connect, packet
from tests.support.logs import LogLines
from tests.support.memory import no_collector
from tests.support.scripted import ClockTestCase, ScriptedGateway

Value: Any = importlib.import_module("google.protobuf.struct_pb2").Value

LARGEST = 512 * 1024 - 100
"""Bytes of the largest hostile message: it still fits a packet."""

PATIENCE = 5.0
"""Seconds of the processor for one message: none takes a tenth of one."""


def collisions() -> bytes:
    """A map with colliding keys: as many as fill a dict."""
    keys = colliding(43_690)
    data = bytearray(b"\xdf" + len(keys).to_bytes(4, "big"))
    for key in keys:
        data += msgpack.packb(key) + b"\0"
    return bytes(data)


def timestamps() -> bytes:
    """A map with times as keys, whose hashes a peer can choose."""
    keys = [b"\xd6\xff" + number.to_bytes(4, "big") + b"\0" for number in range(LARGEST // 8)]
    return b"\xdf" + len(keys).to_bytes(4, "big") + b"".join(keys)


def nested(depth: int) -> bytes:
    """Protocol Buffers: a list in a list and so on."""
    value = Value(null_value=0)
    data: bytes = value.SerializeToString()
    for _ in range(depth):
        for tag in (b"\x0a", b"\x32"):
            size = len(data)
            length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
            data = tag + length + data
    return data


number_keys = b"{" + b",".join(b'"%d":0' % key for key in colliding(21_845)) + b"}"

FORMATS: dict[str, tuple[Callable[[], Any], Any, dict[str, bytes]]] = {
    # name -> the format, a message that is one, and those that are none.
    "msgpack": (
        MessagePack,
        {"move": [1, 2]},
        {
            "colliding keys": collisions(),
            "times as keys": timestamps(),
            "a list as a key": b"\x81\x90\0",
            "deep lists": b"\x91" * LARGEST,
            "deep maps": b"\x81\xa0" * (LARGEST // 2),
            "deep enough": b"\x91" * 101 + b"\0",
            "no such many": b"\xdf\xff\xff\xff\xff",
            "no UTF-8": b"\xa2\xed\xa0",
            "more behind it": b"\0" * LARGEST,
            "nothing": b"",
        },
    ),
    "msgpack of anything": (
        lambda: MessagePack(Any),
        {"move": [1, 2]},
        {
            "colliding keys": collisions(),
            "times as keys": timestamps(),
            "deep lists": b"\x91" * LARGEST,
            "no UTF-8": b"\xa2\xed\xa0",
        },
    ),
    "msgpack of numbers": (
        lambda: MessagePack(dict[int, int]),
        {1: 2},
        {"colliding keys": collisions(), "deep lists": b"\x91" * LARGEST, "text": b"\xa1x"},
    ),
    "json": (
        Json,
        {"move": [1, 2]},
        {
            "deep lists": b"[" * LARGEST,
            "deep lists that end": b"[" * (LARGEST // 2) + b"]" * (LARGEST // 2),
            "deep maps": b'{"":' * (LARGEST // 4),
            "deep behind a string": b'["\\"[[\\\\",' + b"[" * 101 + b"]" * 102,
            "half a pair in an escape": b'"\\ud800"',
            "the other half, as a key": b'{"x\\uDfff": 1}',
            "half a pair in UTF-8": b'"\xed\xa0\x80"',
            "a huge whole number": b"9" * LARGEST,
            "a huge negative one": b'{"n": -' + b"9" * (LARGEST - 10) + b"}",
            "a huge exponent": b"1e" + b"9" * (LARGEST - 2),
            "no number": b"NaN",
            "infinity": b"[-Infinity]",
            "UTF-16": '"hello"'.encode("utf-16"),
            "more behind it": b"1" + b" " * (LARGEST - 2) + b"1",
            "nothing": b"",
        },
    ),
    "json of anything": (
        lambda: Json(Any),
        {"move": [1, 2]},
        {
            "deep lists": b"[" * LARGEST,
            "half a pair in an escape": b'"\\ud800"',
            "a huge exponent": b"1e999",
            "nothing": b"",
        },
    ),
    "json of numbers": (
        lambda: Json(dict[int, int]),
        {1: 2},
        {
            "colliding keys": number_keys,
            "a huge whole number": b'{"1": ' + b"9" * (LARGEST - 10) + b"}",
            "deep lists": b"[" * LARGEST,
        },
    ),
    "text": (Text, "hello", {"half a pair": b"\xed\xa0\x80", "cut": "é".encode()[:1] * LARGEST}),
    "protobuf": (
        lambda: ProtocolBuffers(Value),
        Value(string_value="hello"),
        {
            "deep lists": nested(150),
            "no such length": b"\x1a\xff\xff\xff\x7f",
            "no UTF-8": b"\x1a\x02\xed\xa0",
        },
    ),
}


class GuestBody:
    """One hostile message in the midst of others, with handlers that say it all again."""

    def test_constants(self) -> None:
        """The messages are what they are meant to be."""
        case: Any = self
        keys = len(json.loads(number_keys))
        case.assertGreater(keys, 10 * MAX_NUMBER_KEYS)
        for _, _, messages in FORMATS.values():
            for data in messages.values():
                case.assertLessEqual(len(data), LARGEST, data[:20])

    def test_all(self) -> None:
        """The hostile guest is closed with BadMessage; the others are served before and after."""
        case: Any = self
        for name, (make, message, messages) in FORMATS.items():
            for what, data in messages.items():
                with LogLines() as log:
                    self.check(make(), message, data, f"{name}: {what}")
                case.assertEqual(log.lines, [])

    def check(self, message_format: Any, message: Any, data: bytes, what: str) -> None:
        case: Any = self
        gateway: ScriptedGateway = case.server(message_format=message_format, control=False)
        gateway.log_in()
        good = message_format.encode(message)
        reasons: list[Any] = []

        async def handler(conn: Any) -> None:
            conn.on_end(lambda conn: reasons.append(conn.ended))
            async for message in conn:
                await conn.send(message)

        serving = self.raw(gateway).serve(handler)
        gateway.say(b"".join(connect(FIRST + number, 1) for number in range(3)))
        self.turn()
        with no_collector():  # a frame that is kept has the message, which may be large
            guest = weakref.ref(self.raw(gateway).connection(FIRST + 1))
            began = time.process_time()
            gateway.say(
                packet(FIRST, good)
                + packet(FIRST + 1, good)
                + packet(FIRST + 1, data)
                + packet(FIRST + 1, good)
                + packet(FIRST + 2, good)
            )
            self.turn()
            case.assertLess(time.process_time() - began, PATIENCE, what)
            heard = gateway.heard()
            reason = reasons.pop()
            case.assertIs(type(reason), BadMessage, what)
            case.assertIsNotNone(reason.cause, what)
            case.assertEqual(reasons, [], what)
            case.assertIsNone(guest(), what)
        case.assertEqual(heard.count(close(FIRST + 1)), 1, what)
        for number in range(3):
            case.assertEqual(heard.count(packet(FIRST + number, good)), 1, what)
        gateway.say(packet(FIRST + 2, good) + packet(FIRST, good))
        self.turn()
        case.assertEqual(gateway.heard(), packet(FIRST + 2, good) + packet(FIRST, good), what)
        case.assertEqual((serving.running, self.raw(gateway).ended), (2, None), what)
        case.assertEqual(self.raw(gateway).link.unread.size, 0, what)
        self.raw(gateway).link.shut()
        self.turn()

    def raw(self, gateway: Any) -> Any:
        """The connection under test itself."""
        raise NotImplementedError

    def turn(self) -> None:
        """Let happen what can."""
        raise NotImplementedError


class TwistedGuestTests(GuestBody, ClockTestCase):
    def raw(self, gateway: Any) -> Any:
        return gateway.endpoint

    def turn(self) -> None:
        """All has happened."""


class AioGuestTests(GuestBody, MemoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.turns.loop.set_debug(False)  # which keeps where each task was made

    def raw(self, gateway: Any) -> Any:
        return gateway.raw

    def turn(self) -> None:
        self.turns.turn()

"""Tests of thrift as a codec of teleport, with a class as `thrift --gen py` writes it."""

from __future__ import annotations

import contextlib
from struct import pack
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from thrift.Thrift import TType
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Refused, Session
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport_thrift import Thrift
from tests.support.core import DETERMINISTIC
from tests.support.errors import raised
from tests.support.teleport import Memory


class Pair:
    """struct Pair { 1: i32 a, 2: list<string> names }"""

    def __init__(self, a: int | None = None, names: list[str] | None = None) -> None:
        self.a, self.names = a, names

    def read(self, iprot: Any) -> None:
        iprot.readStructBegin()
        while True:
            _, kind, number = iprot.readFieldBegin()
            if kind == TType.STOP:
                break
            if number == 1 and kind == TType.I32:
                self.a = iprot.readI32()
            elif number == 2 and kind == TType.LIST:
                _, size = iprot.readListBegin()
                self.names = [iprot.readString() for _ in range(size)]
                iprot.readListEnd()
            else:
                iprot.skip(kind)
            iprot.readFieldEnd()
        iprot.readStructEnd()

    def write(self, oprot: Any) -> None:
        oprot.writeStructBegin("Pair")
        if self.a is not None:
            oprot.writeFieldBegin("a", TType.I32, 1)
            oprot.writeI32(self.a)
            oprot.writeFieldEnd()
        if self.names is not None:
            oprot.writeFieldBegin("names", TType.LIST, 2)
            oprot.writeListBegin(TType.STRING, len(self.names))
            for name in self.names:
                oprot.writeString(name)
            oprot.writeListEnd()
            oprot.writeFieldEnd()
        oprot.writeFieldStop()
        oprot.writeStructEnd()


GO = bytes.fromhex("08000100000007" + "0f00020b00000001" + "00000003616e6e" + "00")
"""Pair(7, ["ann"]) as a Go peer wrote it."""


class Codecs(SynchronousTestCase):
    """`Thrift`."""

    def test_recorded(self) -> None:
        thrift = Thrift()
        self.assertEqual(thrift.encode(Pair(7, ["ann"])), GO)
        pair = thrift.decode(GO, Pair)
        self.assertEqual((pair.a, pair.names), (7, ["ann"]))
        self.assertEqual((thrift.encode(None), thrift.decode(GO)), (b"\0", GO))
        for nothing in (b"", b"\0"):
            self.assertIsNone(thrift.decode(nothing, Pair).a)
        raised(TypeError, thrift.encode, 1)
        raised(TypeError, thrift.decode, GO, int)

    def test_lies(self) -> None:
        """Lengths that are more than there is, what is deep, and what is of no kind."""
        thrift = Thrift()
        huge = pack(">I", 2**31 - 1)
        for what, data in (
            ("a long list", b"\x0f\0\2\x0b" + huge),
            ("a long text", b"\x0f\0\2\x0b\0\0\0\1" + huge),
            ("a list to skip", b"\x0f\0\3\2" + huge),
            ("a list of nothing to skip", b"\x0f\0\3\0\0\0\0\5" + b"\0" * 9),
            ("a list of nothing, of a kind there is not", b"\x0f\0\3\1\0\0\0\5" + b"\0" * 9),
            ("a long map", b"\x0d\0\3\2\2" + huge),
            ("a text below 0", b"\x0b\0\3\xff\xff\xff\xff"),
            ("a deep struct", b"\x0c\0\3" * 5000),
            ("a deep list", b"\x0f\0\3" + b"\x0f\0\0\0\1" * 5000),
            ("half", GO[:-1]),
            ("more", GO + b"\0"),
            ("no kind", b"\x7f\0\1"),
        ):
            with self.subTest(what):
                raised(Exception, thrift.decode, data, Pair)

    @given(st.binary(max_size=200))
    @DETERMINISTIC
    def test_anything(self, data: bytes) -> None:
        """It decodes, or raises; it takes neither time nor memory beyond its length."""
        with contextlib.suppress(Exception):
            Thrift().decode(data, Pair)

    def test_talks(self) -> None:
        """Beside JSON, on one port; what does not decode is told 400."""
        clock = Clock()
        server = App(clock=clock)

        @server.handler("turn")
        def turn(pair: Pair) -> Pair:
            return Pair(-(pair.a or 0), pair.names)

        server.route("sum", lambda numbers: sum(numbers))
        near = Teleport(codecs={"t": Thrift()})
        far = Teleport(codec="t", codecs={"t": Thrift()})
        sessions: list[Session] = []
        for dialect in (near, far):
            connecting = App(clock=clock).connect(Memory(server, near, clock), dialect)
            clock.pump([0] * 8)
            sessions.append(self.successResultOf(connecting))
        asked = [
            sessions[1].request("turn", Pair(3, ["é"]), into=Pair),
            sessions[0].request("sum", [1, 2]),
            sessions[1].request("turn", b"\x0f\0\2\x0b\x7f\xff\xff\xff", into=Pair),
        ]
        clock.pump([0] * 8)
        pair = self.successResultOf(asked[0])
        self.assertEqual((pair.a, pair.names), (-3, ["é"]))
        self.assertEqual(self.successResultOf(asked[1]), 3)
        self.assertEqual(self.failureResultOf(asked[2], Refused).value.code, 400)

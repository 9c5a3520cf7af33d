"""Tests of what pitaya adds in fastway.dialect.pomelo."""

from __future__ import annotations

import importlib
import json
import tracemalloc
import zlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fastway.dialect import (
    Answer,
    BadFrame,
    NotLetIn,
    Ready,
    Refused,
)
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.pomelo_packets import (
    DATA,
    GZIP,
    HANDSHAKE,
    NOTIFY,
    PUSH,
    REQUEST,
    RESPONSE,
    packet,
)
from fastway.dialect.pomelo_wires import (
    PomeloClient,
    PomeloServer,
)
from fastway.formats import Bytes, ProtocolBuffers
from tests.support.pomelo import (
    SHAKE,
    client,
    data,
    server,
)

ProtoMessage: Any = importlib.import_module("google.protobuf.message").Message


class PitayaTests(SynchronousTestCase):
    def pair(self, **settings: Any) -> tuple[PomeloServer, PomeloClient]:
        ours = Pomelo(profile="pitaya", **settings)
        return server(ours), client(ours)

    def refused(self, wire: PomeloClient, said: bytes) -> Refused:
        wire._asked.add(1)
        (answer,) = wire.receive(said, 0.0)
        assert isinstance(answer, Answer) and answer.refused is not None
        self.assertEqual(answer.key, 1)
        return answer.refused

    def test_handshake(self) -> None:
        formats: tuple[tuple[Any, bytes], ...] = (
            (None, b"json"),
            (ProtocolBuffers(ProtoMessage), b"protobuf"),
        )
        for form, name in formats:
            wire = Pomelo(profile="pitaya", format=form, epoch=lambda: 5).server()
            wire.receive(SHAKE, 0.0)
            wire.accept()
            self.assertEqual(
                wire.data_to_send()[0][4:],
                b'{"code":200,"sys":{"heartbeat":30,"serializer":"%b","servertime":5}}' % name,
            )

    def test_compressed_handshake(self) -> None:
        """pitaya compresses its answer and says so nowhere."""
        said = b'{"code":200,"sys":{"dict":{"a":1},"heartbeat":30}}'
        for packed in (zlib.compress(said), _gzip(said)):
            wire = Pomelo(profile="pitaya").client()
            self.assertEqual(wire.receive(packet(HANDSHAKE, packed), 0.0), [Ready()])
            self.assertEqual(wire.send("a", b"1"), data("03000131"))
            nano = Pomelo().client()
            nano.receive(packet(HANDSHAKE, packed), 0.0)
            self.assertIsInstance(nano.error, BadFrame)

    def test_errors(self) -> None:
        formats: tuple[Any, ...] = (None, Bytes(), ProtocolBuffers(ProtoMessage))
        for form in formats:
            near, far = self.pair(format=form)
            for code, text in ((403, "nö"), (7, ""), (1001, "own"), (500, "x" * 300)):
                said = near.refuse(1, Refused(code, text))
                self.assertEqual(said[4], RESPONSE | 0x20)
                refused = self.refused(far, said)
                self.assertEqual((refused.code, refused.text), (code, text))
        self.assertEqual(
            near.refuse(1, Refused(404, "no")), data("2401" + "0a075049542d343034" + "12026e6f")
        )
        self.assertEqual(
            self.pair()[0].refuse(300, Refused(404, "no")),
            data("24ac02" + b'{"code":"PIT-404","msg":"no"}'.hex()),
        )

    def test_errors_of_others(self) -> None:
        """Whatever is in an answer that is an error, it is one."""
        cases = (
            (b'{"code":"PIT-000","msg":"m"}', 0, "m"),
            (b'{"code":"ROOM-FULL","msg":"m"}', 500, "ROOM-FULL: m"),
            (b'{"code":404,"msg":"m","metadata":{"a":"b"}}', 404, "m"),
            (b"", 500, "an error that is not understood"),
            (b"\xff", 500, "an error that is not understood"),
            (b"[]", 500, "an error that is not understood"),
        )
        for body, code, text in cases:
            refused = self.refused(self.pair()[1], packet(DATA, b"\x24\x01" + body))
            self.assertEqual((refused.code, refused.text), (code, text))
        far = self.pair(format=ProtocolBuffers(ProtoMessage))[1]
        whole = bytes.fromhex("0a075049542d34303412026e6f")
        more = whole + bytes.fromhex("1a060a0161120162")
        self.assertEqual(self.refused(far, packet(DATA, b"\x24\x01" + more)).code, 404)
        for bad in [whole[:at] for at in (1, 2, 5, 10, 11)] + [b"\x0a" + b"\xff" * 9, b"\x08\x01"]:
            self.assertEqual(self.refused(far, packet(DATA, b"\x24\x01" + bad)).code, 500)

    def test_nano_has_no_such_bits(self) -> None:
        far = client()
        far.request("a", b"")
        self.assertEqual(far.receive(data("34017878"), 0.0), [Answer(1, b"xx", far.format)])
        self.assertEqual(server().receive(data("3201617878"), 0.0)[0][:2], ("a", b"xx"))

    def test_compressed(self) -> None:
        near, far = self.pair(compress=True)
        long, short = b'"' + b"x" * 5000 + b'"', b'"x"'
        for body, packed in ((long, GZIP), (short, 0)):
            said = near.send("on", body)
            self.assertEqual(said[4], PUSH | packed)
            self.assertEqual(far.receive(said, 0.0)[0][:2], ("on", body))
            _, said = far.request("ask", body)
            self.assertEqual(said[4], REQUEST | packed)
            self.assertEqual(near.receive(said, 0.0)[0][:2], ("ask", body))
        self.assertLess(len(near.send("on", long)), 200)
        self.assertEqual(near.reply(1, b"")[6:], b"null")
        gzipped = packet(DATA, bytes((NOTIFY | GZIP, 1)) + b"a" + _gzip(long))
        self.assertEqual(near.receive(gzipped, 0.0)[0][:2], ("a", long))

    def test_compressed_refusal(self) -> None:
        near, far = self.pair(compress=True)
        said = near.refuse(1, Refused(400, "x" * 1000))
        self.assertEqual(said[4], RESPONSE | 0x30)
        self.assertEqual(self.refused(far, said).text, "x" * 1000)

    def test_bombs(self) -> None:
        """They are errors, and never in memory."""
        bomb = zlib.compress(b"x" * 50_000_000)
        self.assertLess(len(bomb), 65000)
        head = bytes((NOTIFY | GZIP, 1)) + b"a"
        good = zlib.compress(b"hello" * 100)
        for what in (bomb, good[:-1], good[:9], b"", b"hello", good[:10] + b"\0\0\0" + good[13:]):
            near = self.pair()[0]
            tracemalloc.start()
            try:
                self.assertEqual(near.receive(packet(DATA, head + what), 0.0), [])
                self.assertLess(tracemalloc.get_traced_memory()[1], 1_000_000)
            finally:
                tracemalloc.stop()
            self.assertIsInstance(near.error, BadFrame)
        near = server(Pomelo(profile="pitaya", max_packet=500))
        self.assertEqual(len(near.receive(packet(DATA, head + good), 0.0)), 1)
        near = server(Pomelo(profile="pitaya", max_packet=499))
        self.assertEqual(near.receive(packet(DATA, head + good), 0.0), [])

    def test_not_for_us(self) -> None:
        """What is of the wrong direction is not even inflated."""
        near, far = self.pair()
        self.assertEqual(near.receive(packet(DATA, b"\x16\x01axx"), 0.0), [])
        self.assertIsNone(near.error)
        self.assertEqual(far.receive(packet(DATA, b"\x12\x01axx"), 0.0), [])
        self.assertIsNone(far.error)

    def test_reject(self) -> None:
        near, far = Pomelo(profile="pitaya").server(), Pomelo(profile="pitaya").client()
        near.receive(SHAKE, 0.0)
        near.reject(Refused(403, "no"))
        (said,) = near.data_to_send()
        self.assertEqual(json.loads(said[4:])["code"], 400)
        far.receive(said, 0.0)
        assert isinstance(far.error, NotLetIn)
        self.assertEqual(far.error.refused.code, 403)
        silent = Pomelo(profile="pitaya", refusals="silent")
        self.assertEqual(server(silent).refuse(1, Refused(1)), b"")


def _gzip(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=31)
    return stream.compress(body) + stream.flush()

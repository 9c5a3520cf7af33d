"""Tests of fastway.websocket: the handshake and the frames alone."""

from __future__ import annotations

import os
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import Reason
from fastway.websocket import (
    Frames,
    HandshakeRefused,
    Policy,
    Request,
    RequestReader,
    accept,
    origin_of,
    refusal,
)
from fastway.websocket.frames import PIECE
from fastway.websocket.request import MAX_REQUEST, accept_key
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised
from tests.support.websocket import (
    ACCEPT,
    BROWSER,
    KEY,
    LIMIT,
    VECTORS,
    Vector,
    closing,
    frame,
    request,
    server_frames,
)


def parse(data: bytes) -> Request:
    found = RequestReader().feed(data)
    assert found is not None
    return found[0]


ROOT = Policy()


def status_of(data: bytes, policy: Policy = ROOT) -> int:
    """101, or the status by which a request is refused."""
    try:
        answer = accept(parse(data), policy)
    except HandshakeRefused as error:
        assert error.reason is Reason.HANDSHAKE_REFUSED
        assert error.answer.startswith(f"HTTP/1.1 {error.status} ".encode())
        assert len(str(error)) < 200 and str(error).isprintable()
        return error.status
    assert answer.startswith(b"HTTP/1.1 101 ")
    return 101


class RequestTests(SynchronousTestCase):
    """The handshake."""

    def test_book(self) -> None:
        """The key of the book is answered as the book does."""
        self.assertEqual(accept_key(KEY), ACCEPT)
        answer = accept(parse(request()), Policy())
        self.assertEqual(
            answer,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n\r\n",
        )

    def test_browser(self) -> None:
        """A browser gets its subprotocol, and no extension."""
        answer = accept(parse(request(headers=BROWSER)), Policy())
        self.assertIn(b"Sec-WebSocket-Protocol: fastway\r\n", answer)
        self.assertNotIn(b"Extensions", answer)

    @DETERMINISTIC
    @given(st.lists(st.integers(0, 1000), max_size=8))
    def test_cuts(self, places: list[int]) -> None:
        """Wherever it is cut, it is the same request, and what is behind it is told."""
        reader = RequestReader()
        pieces = cut(request(headers=BROWSER) + b"behind", places)
        found = None
        while found is None:
            found = reader.feed(pieces.pop(0))
        self.assertEqual(found[0], parse(request(headers=BROWSER)))
        self.assertEqual(found[1] + b"".join(pieces), b"behind")

    def test_byte_by_byte(self) -> None:
        """One byte at a time."""
        reader = RequestReader()
        *most, last = request()
        for byte in most:
            self.assertIsNone(reader.feed(bytes((byte,))))
        self.assertEqual(reader.feed(bytes((last,))), (parse(request()), b""))

    def test_good(self) -> None:
        """What is asked for in other words is answered too."""
        for data in (
            request(upgrade="WebSocket", connection="foo ,UPGRADE"),
            request(upgrade="h2c, websocket"),
            request("GET /?token=%20a?b HTTP/1.1"),
            request(content_length="0"),
            request(sec_websocket_protocol="fastway"),
            request(host="GAME.example:443"),
            request(host="[::1]:80"),
        ):
            with self.subTest(data=data):
                self.assertEqual(status_of(data), 101)

    def test_refused(self) -> None:
        """What is wrong has its status."""
        key = "Sec-WebSocket-Key: " + KEY + "\r\n"
        for status, data in (
            (400, b"\x16\x03\x01\x00"),
            (400, b"\x0c\x00\x00\x00" * 4),
            (400, b"get / HTTP/1.1\r\n\r\n"),
            (400, b"GET / HTTP/2.0\r\n\r\n"),
            (400, b"GET  / HTTP/1.1\r\n\r\n"),
            (400, b"GET / HTTP/1.1 \r\n\r\n"),
            (400, b"GET\r\n\r\n"),
            (400, b"G\xc4T / HTTP/1.1\r\n\r\n"),
            (400, request("GET game HTTP/1.1")),
            (400, request("GET http://game.example/ HTTP/1.1")),
            (400, request("GET /#x HTTP/1.1")),
            (400, request("GET /\x01 HTTP/1.1")),
            (400, request("GET / HTTP/1.0")),
            (400, request(host=None)),
            (400, request(host="")),
            (400, request(host="a b")),
            (400, request(host="a@b")),
            (400, request(content_length="5")),
            (400, request(content_length="+0")),
            (400, request(transfer_encoding="chunked")),
            (400, request(sec_websocket_key=None)),
            (400, request(sec_websocket_key="short")),
            (400, request(sec_websocket_key="A" * 24)),
            (400, request(sec_websocket_key="!" + KEY[1:])),
            (400, request(sec_websocket_protocol="chat, mqtt")),
            (400, request().replace(b"host: ", b"host : ")),
            (400, request().replace(b"host: ", b" host: ")),
            (400, request().replace(b"host: ", b"nothing\r\nhost: ")),
            (400, request().replace(b"host: ", b": x\r\nhost: ")),
            (400, request(x="a\x00b")),
            (400, request(x="a\rb")),
            (400, request(x="a\nb")),
            (400, request(headers={**BROWSER, "x" * 65: "a"})),
            (400, request(x="a" * 4097)),
            (400, request(headers={**BROWSER, **{f"x{number}": "a" for number in range(51)}})),
            (400, request().replace(b"\r\n\r\n", b"\r\n" + key.encode() + b"\r\n")),
            (400, request().replace(b"\r\n\r\n", b"\r\nHOST: game.example\r\n\r\n")),
            (400, request(x="a" * 4000, y="a" * 4000, z="a" * 4000)),
            (404, request("GET /other HTTP/1.1")),
            (405, request("POST / HTTP/1.1")),
            (405, request("OPTIONS / HTTP/1.1")),
            (426, request(upgrade=None)),
            (426, request(connection="keep-alive")),
            (426, request(upgrade="h2c")),
            (426, request(sec_websocket_version="8")),
            (426, request(sec_websocket_version=None)),
            (403, request(origin="https://evil.example")),
            (403, request(origin="null")),
            (403, request(origin="")),
            (403, request(origin="game.example")),
        ):
            with self.subTest(data=data):
                self.assertEqual(status_of(data), status)

    def test_one_message_per_status(self) -> None:
        """Each refusal is whole HTTP, and closes."""
        for status in (400, 403, 404, 405, 426, 429, 503):
            head, _, body = refusal(status).partition(b"\r\n\r\n")
            self.assertIn(b"\r\nContent-Length: %d\r\n" % len(body), head + b"\r\n")
            self.assertRegex(head, rb"\r\nConnection: (Upgrade, )?close\r\n")
        self.assertIn(b"\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", refusal(426))
        self.assertIn(b"\r\nAllow: GET\r\n", refusal(405))
        self.assertIn(b"\r\nRetry-After: ", refusal(503))

    def test_too_long(self) -> None:
        """A head that never ends is refused at its bound, in linear time."""
        for piece in (b"A", b"a: b\r\n", b"\r\n" + b"x" * 61, b"A" * 100_000):
            with self.subTest(piece=piece[:9]):
                reader = RequestReader()
                reader.feed(b"GET ")
                taken = 0
                with pytest.raises(HandshakeRefused):
                    while taken < 3 * MAX_REQUEST:
                        taken += len(piece)
                        reader.feed(piece)
                self.assertLessEqual(taken, MAX_REQUEST + len(piece))

    def test_origins(self) -> None:
        """Whose pages may connect."""
        same, listed = Policy(), Policy(origins=("https://a.example", "http://b:81", "null"))
        for origin, host, policy, fine in (
            ("https://game.example", "game.example", same, True),
            ("https://GAME.example", "game.example:443", same, True),
            ("http://game.example:80", "game.example", same, True),
            ("http://game.example:81", "game.example:81", same, True),
            ("http://[::1]:81", "[::1]:81", same, True),
            ("http://game.example:81", "game.example", same, False),
            ("https://game.example", "game.example:444", same, False),
            ("https://game.example.evil", "game.example", same, False),
            ("https://evil/game.example", "game.example", same, False),
            ("https://game.example", "game.example", listed, False),
            ("https://A.example:443", "game.example", listed, True),
            ("http://a.example", "game.example", listed, False),
            ("http://b:81", "game.example", listed, True),
            ("http://b", "game.example", listed, False),
            ("null", "game.example", listed, True),
            ("anything", "game.example", Policy(origins=("*",)), True),
        ):
            with self.subTest(origin=origin, host=host):
                found = status_of(request(origin=origin, host=host), policy)
                self.assertEqual(found, 101 if fine else 403)

    def test_origin_of(self) -> None:
        """Origins have one form."""
        for text, wanted in (
            ("HTTPS://A.b:443", "https://a.b"),
            ("http://a:443", "http://a:443"),
            ("null", "null"),
            ("https://a/", None),
            ("a", None),
            ("https://a:b", None),
            ("https://", None),
        ):
            self.assertEqual(origin_of(text), wanted)

    def test_path(self) -> None:
        """Another path may be wanted; a query never counts."""
        policy = Policy(path="/ws")
        self.assertEqual(status_of(request("GET /ws?a=/ HTTP/1.1"), policy), 101)
        self.assertEqual(status_of(request("GET / HTTP/1.1"), policy), 404)
        self.assertEqual(status_of(request("GET /ws/ HTTP/1.1"), policy), 404)

    def test_query_is_not_told(self) -> None:
        """Tokens travel in queries: no error shows one."""
        asked = parse(request("GET /x?token=secret HTTP/1.1"))
        self.assertNotIn("secret", str(raised(HandshakeRefused, accept, asked, Policy())))

    @DETERMINISTIC
    @given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 10))
    def test_fuzz(self, noise: bytes, place: int, removed: int) -> None:
        """Whatever comes is a request or is refused."""
        whole = request(headers=BROWSER)
        data = whole[:place] + noise + whole[place + removed :]
        try:
            found = RequestReader().feed(data)
            if found is not None:
                accept(found[0], Policy())
        except HandshakeRefused:
            pass


def check(vector: Vector, pieces: list[bytes]) -> None:
    frames = Frames(LIMIT)
    payload = b"".join(frames.receive(piece) for piece in pieces)
    assert payload == vector.payload, vector.name
    pong = None if not frames.pong else server_frames(frames.pong)
    assert pong == (None if vector.pong is None else [(10, vector.pong)]), vector.name
    assert frames.closed is vector.closed, vector.name
    assert (frames.error and frames.error.reason) is vector.broken, vector.name
    assert frames.receive(frame(b"more")) == b"" or not (vector.closed or vector.broken)


class FrameTests(SynchronousTestCase):
    """What comes, and what is sent."""

    def test_names(self) -> None:
        self.assertEqual(len({vector.name for vector in VECTORS}), len(VECTORS))

    def test_whole(self) -> None:
        """All at once."""
        for vector in VECTORS:
            check(vector, [vector.sent])

    def test_byte_by_byte(self) -> None:
        """One byte at a time."""
        for vector in VECTORS:
            check(vector, [vector.sent[at : at + 1] for at in range(len(vector.sent))])

    @settings(DETERMINISTIC, max_examples=1000)
    @given(st.sampled_from(VECTORS), st.lists(st.integers(0, 100_000), max_size=6))
    def test_cuts(self, vector: Vector, places: list[int]) -> None:
        """In pieces."""
        check(vector, cut(vector.sent, places))

    @DETERMINISTIC
    @given(st.binary(max_size=200), st.integers(0, 2**32))
    def test_fuzz(self, data: bytes, seed: int) -> None:
        """Whatever comes: nothing is raised, little is kept, and cuts change nothing."""
        chance = random.Random(seed)
        whole = Frames(LIMIT)
        payload = whole.receive(data)
        parts = Frames(LIMIT)
        pieces, at = [], 0
        while at < len(data):
            size = chance.randint(1, 20)
            pieces.append(parts.receive(data[at : at + size]))
            at += size
        self.assertEqual(b"".join(pieces), payload)
        self.assertEqual(str(parts.error), str(whole.error))
        self.assertEqual((parts.pong, parts.closed), (whole.pong, whole.closed))
        self.assertLess(len(parts._head), 132)

    def test_wrap(self) -> None:
        """Payload of any size comes as frames of at most 16 KiB, of which each is whole."""
        data = os.urandom(3 * PIECE + 200)
        for size in (0, 1, 125, 126, 127, PIECE - 1, PIECE, PIECE + 1, PIECE + 126, len(data)):
            sent = Frames().wrap(data[:size])
            frames = server_frames(sent)
            self.assertEqual(b"".join(payload for _, payload in frames), data[:size])
            self.assertEqual({opcode for opcode, _ in frames}, {2})
            self.assertTrue(all(len(payload) + 4 <= 16 * 1024 for _, payload in frames))

    def test_close(self) -> None:
        """A Close has a code and a text that fit; one that answers has the peer's code."""
        self.assertEqual(
            server_frames(Frames().close(4408, "late")), [(8, (4408).to_bytes(2, "big") + b"late")]
        )
        ((_, payload),) = server_frames(Frames().close(1000, "\xfc" * 100))
        self.assertEqual(payload[2:].decode(), "\xfc" * 61)
        for said, answer in ((closing(4000, b"bye"), b"\x0f\xa0"), (frame(b"", 8), b"")):
            frames = Frames()
            frames.receive(said)
            self.assertEqual(server_frames(frames.close(1000, "x")), [(8, answer)])

    def test_reasons_fit(self) -> None:
        """Every reason can be told by a Close that a peer may be sent."""
        for reason in Reason:
            text = reason.value
            sent = Frames().close(reason.close_code, text)
            self.assertTrue(sent.endswith(text.encode()), reason)
            reader = Frames(LIMIT)
            reader.receive(closing(reason.close_code, text.encode()))
            self.assertTrue(reader.closed, reason)

    def test_linear(self) -> None:
        """Frames and fragments without an end, tiny or torn: the time is that of their bytes."""

        def cost(sent: bytes, step: int) -> float:
            frames, begun = Frames(), time.process_time()
            for at in range(0, len(sent), step):
                frames.receive(sent[at : at + step])
            self.assertIsNone(frames.error)
            return time.process_time() - begun

        many = 40_000
        for name, sent, step in (
            ("fragments", frame(b"", fin=False) + frame(bytes(64), 0, fin=False) * many, 65536),
            ("tiny frames", frame(b"") * many, 2048),
            ("pings", frame(bytes(125), 9) * (many // 4), 100),
            ("one frame, torn", frame(bytes(many)), 1),
            ("pings, torn", frame(bytes(125), 9) * (many // 132), 1),
        ):
            self.assertLess(cost(sent, step), 5, name)

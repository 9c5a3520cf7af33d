"""Tests of fastway.websocket.client and of the client's frames: bytes in, bytes out."""

from __future__ import annotations

import base64
import os
import random
import time
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import NO_CLOSE, NoWebSocket, Reason, WebSocketClosed, WebSocketRefused
from fastway.websocket import (
    ClientFrames,
    ClientMachine,
    Frames,
    Policy,
    ServerMachine,
    Url,
    WebSocket,
)
from fastway.websocket.client import HANDSHAKE_TIMEOUT, host_header, is_url
from fastway.websocket.frames import CHANCE, PIECE
from fastway.websocket.request import MAX_REQUEST
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised
from tests.support.web import answer_to
from tests.support.websocket import (
    ACCEPT,
    KEY,
    LIMIT,
    SERVER_VECTORS,
    Vector,
    client_frames,
    closing,
    frame,
    unmasked,
)

BOOK_KEY = base64.b64decode(KEY)
BOOK_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n"
    b"Sec-WebSocket-Protocol: fastway\r\n\r\n"
)


def machine(wanted: WebSocket | None = None) -> ClientMachine:
    """One with the key of the book."""
    return ClientMachine(wanted or WebSocket(), "game.example", BOOK_KEY)


def opened() -> ClientMachine:
    made = machine()
    assert made.receive(BOOK_ANSWER) == b"" and made.up
    return made


def refused(answer: bytes, pieces: int = 1) -> NoWebSocket:
    """How it ends because of an answer."""
    made = machine()
    step = -(-len(answer) // pieces)
    for at in range(0, len(answer), step):
        assert made.receive(answer[at : at + step]) == b""
    made.receive_eof()
    assert isinstance(made.ended, NoWebSocket) and not made.up
    assert made.receive(BOOK_ANSWER) == made.data_to_send() == made.close() == b""
    text = str(made.ended)
    assert text.isprintable() and len(text) < 400, text
    return made.ended


class RequestTests(SynchronousTestCase):
    """What is asked."""

    def test_golden(self) -> None:
        """The request's bytes."""
        self.assertEqual(
            machine(
                WebSocket("/game?token=x", "https://game.example", {"X-Token": "a b"})
            ).begin(),
            b"GET /game?token=x HTTP/1.1\r\nHost: game.example\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: " + KEY.encode() + b"\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: fastway\r\n"
            b"Origin: https://game.example\r\nX-Token: a b\r\n\r\n",
        )

    def test_keys(self) -> None:
        """Each has a key of its own, by chance."""
        asked = {ClientMachine(WebSocket(), "h").begin() for _ in range(50)}
        self.assertEqual(len(asked), 50)

    def test_wrong(self) -> None:
        """What cannot be asked for is said when it is given."""
        for wanted in (
            {"path": "game"},
            {"path": ""},
            {"path": "/a b"},
            {"path": "/a#b"},
            {"path": "/\xfc"},
            {"path": "/a\r\nX: y"},
            {"path": "/" + "x" * MAX_REQUEST},
            {"origin": "game.example"},
            {"headers": {"X": "a\r\nY: b"}},
            {"headers": {"X\r\n": "a"}},
            {"headers": {"X": "\xfc"}},
            {"headers": {"": "x"}},
            {"headers": {"host": "x"}},
            {"headers": {"Sec-WebSocket-Extensions": "x"}},
            {"headers": {"Content-Length": "5"}},
            {"headers": {"Transfer-Encoding": "chunked"}},
            {"headers": {f"X-{number}": "" for number in range(60)}},
        ):
            with self.subTest(wanted=wanted):
                self.assertNotIn("\n", str(raised(ValueError, WebSocket, **wanted)))

    def test_hosts(self) -> None:
        """A host that would be more than one line is none; a name of other letters is IDNA's."""
        for host in ("", "a b", "a\r\nX: y", "a/b", "h" * 400):
            raised(ValueError, ClientMachine, WebSocket(), host)
            raised(ValueError, host_header, host, 80, False)
        self.assertEqual(host_header("b\xfccher.example", 81, False), "xn--bcher-kva.example:81")
        raised(ValueError, host_header, "\xfc" * 80, 80, False)

    def test_urls(self) -> None:
        """What a URL leads to."""
        for text, url, host in (
            ("ws://game.example", Url(False, "game.example", 80, "/"), "game.example"),
            ("WSS://game.example/a/b", Url(True, "game.example", 443, "/a/b"), "game.example"),
            ("ws://h:9080/?t=a:b@c", Url(False, "h", 9080, "/?t=a:b@c"), "h:9080"),
            ("wss://h:443?t=1", Url(True, "h", 443, "/?t=1"), "h"),
            ("wss://h:80/", Url(True, "h", 80, "/"), "h:80"),
            ("ws://h:/", Url(False, "h", 80, "/"), "h"),
            ("ws://[::1]:9080/x", Url(False, "::1", 9080, "/x"), "[::1]:9080"),
            ("ws://127.0.0.1", Url(False, "127.0.0.1", 80, "/"), "127.0.0.1"),
        ):
            with self.subTest(text=text):
                found = Url.parse(text)
                self.assertEqual(found, url)
                self.assertEqual(host_header(url.host, url.port, url.secure), host)
                self.assertEqual(Url.parse(str(found)), url)
                self.assertTrue(is_url(text))

    def test_no_urls(self) -> None:
        """What leads nowhere, in one line."""
        for text in (
            "ws://",
            "ws:///x",
            "http://h/",
            "ws:h:80",
            "ws://h:0/",
            "ws://h:65536/",
            "ws://h:x/",
            "ws://user:pass@h/",
            "ws://h/#x",
            "ws://h\n/",
            "ws://h/\n",
            "ws://h/\xfc",
            "ws://\xfc/",
            "ws://h h/",
            "ws://::1/",
            "ws://[::g]/",
            "ws://[1:2]/",
        ):
            with self.subTest(text=text):
                self.assertNotIn("\n", str(raised(ValueError, Url.parse, text)))


class AnswerTests(SynchronousTestCase):
    """What is answered."""

    def test_book(self) -> None:
        """The answer of the book, and bytes behind it."""
        made = machine()
        self.assertEqual(made.receive(BOOK_ANSWER + frame(b"hi", mask=None)), b"hi")
        self.assertTrue(made.up)
        self.assertIsNone(made.ended)
        self.assertEqual(made.data_to_send(), b"")

    @DETERMINISTIC
    @given(st.lists(st.integers(0, 1000), max_size=6))
    def test_cuts(self, places: list[int]) -> None:
        """In pieces, with frames behind it."""
        sent = BOOK_ANSWER + frame(b"one", mask=None) + frame(b"p", 9, mask=None)
        made = machine()
        self.assertEqual(b"".join(made.receive(piece) for piece in cut(sent, places)), b"one")
        self.assertEqual(client_frames(made.data_to_send()), [(10, b"p")])

    def test_byte_by_byte(self) -> None:
        made = machine()
        for byte in BOOK_ANSWER:
            self.assertFalse(made.up)
            made.receive(bytes((byte,)))
        self.assertTrue(made.up)

    def test_tolerated(self) -> None:
        """Other headers, other cases of what has none."""
        request = machine().begin()
        for answer in (
            answer_to(request, upgrade="WebSocket", connection="keep-alive, UPGRADE"),
            answer_to(request, set_cookie="a", server="x", date="then"),
            answer_to(request, first="HTTP/1.1 101"),
            answer_to(request, first="HTTP/1.1 101 Fine \xe9"),
        ):
            made = machine()
            made.receive(answer)
            self.assertTrue(made.up, (made.ended, answer))

    def test_strict(self) -> None:
        """Whatever is not the answer to this request is none."""
        request = machine().begin()
        for answer, said in (
            (answer_to(request, upgrade=None), "something else"),
            (answer_to(request, upgrade="websocket, h2c"), "something else"),
            (answer_to(request, connection=None), "Connection: Upgrade"),
            (answer_to(request, connection="close"), "Connection: Upgrade"),
            (answer_to(request, sec_websocket_accept=None), "prove"),
            (answer_to(request, sec_websocket_accept=ACCEPT.lower()), "prove"),
            (answer_to(request, sec_websocket_accept=KEY), "prove"),
            (answer_to(request, sec_websocket_protocol=None), "subprotocol fastway"),
            (answer_to(request, sec_websocket_protocol="chat"), "subprotocol fastway"),
            (answer_to(request, sec_websocket_protocol="fastway, chat"), "subprotocol fastway"),
            (answer_to(request, sec_websocket_extensions="permessage-deflate"), "extensions"),
            (answer_to(request, sec_websocket_extensions=""), "extensions"),
            (answer_to(request, first="HTTP/1.0 101 x"), "HTTP/1.0 101"),
            (answer_to(request, first="HTTP/1.1 100 Continue"), "HTTP/1.1 100"),
            (answer_to(request, first="HTTP/1.1 1010 x"), "first line"),
            (answer_to(request, first="HTTP/1.1  101 x"), "first line"),
            (BOOK_ANSWER[:-2] + b"upgrade: websocket\r\n\r\n", "two upgrade"),
            (BOOK_ANSWER[:-2] + b"no colon\r\n\r\n", "proper name"),
            (BOOK_ANSWER[:-2] + b" folded: x\r\n\r\n", "proper name"),
            (BOOK_ANSWER[:-2] + b"X: \x00\r\n\r\n", "proper value"),
            (BOOK_ANSWER[:-2] + b"X: y\r\n" * 70 + b"\r\n", "over 64"),
            (BOOK_ANSWER[:-2] + b"X: " + b"y" * 5000 + b"\r\n\r\n", "proper value"),
            (BOOK_ANSWER[:-2] + b"X: y\r\n" * 2000 + b"\r\n", "over 8192 bytes"),
            (b"HTTP/1.1 101 x\r\n" + b"X: y\r\n" * 5000, "over 8192 bytes"),
            (b"HTTP/2 101\r\n\r\n", "HTTP"),
            (b"\x16\x03\x01\x00\x05", "HTTP"),
            (bytes(8), "HTTP"),
            (b"SSH-2.0-x\r\n", "HTTP"),
            (BOOK_ANSWER[:-3], "closed within the handshake"),
            (b"", "closed within the handshake"),
        ):
            for pieces in (1, 7):
                with self.subTest(answer=answer[:200], pieces=pieces):
                    self.assertIn(said, str(refused(answer or b"H", pieces)))

    def test_endless(self) -> None:
        """A head without an end is given up at its bound, however it is cut."""
        for size in (1, 100, 5000):
            made = machine()
            made.receive(b"HTTP/1.1 101 ")
            taken = 13
            while made.ended is None:
                made.receive(b"x" * size)
                taken += size
                self.assertLessEqual(taken, MAX_REQUEST + size)
            self.assertIn("over 8192 bytes", str(made.ended))

    def test_refusals(self) -> None:
        """A status is an error that says what to do, and has it as a number."""
        for head, status, wait, said in (
            ("403 Forbidden", 403, None, "origin"),
            ("404 Not Found", 404, None, "path"),
            ("426 Upgrade Required", 426, None, "port for web pages"),
            ("429 x\r\nRetry-After: 7", 429, 7, "try again later in 7 s"),
            ("503 x\r\nRetry-After: 30", 503, 30, "try again later in 30 s"),
            ("503 x\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT", 503, None, "later"),
            ("503 x\r\nRetry-After: 99999999999999999999", 503, None, "later"),
            ("503 x\r\nRetry-After: 100000", 503, None, "later"),
            ("503 x\r\nRetry-After: -1", 503, None, "later"),
            ("500 x\r\nRetry-After: 5", 500, 5, "; try again in 5 s"),
            ("200 OK", 200, None, "200"),
            ("418", 418, None, "418"),
            ("599 x", 599, None, "599"),
        ):
            error = refused(f"HTTP/1.1 {head}\r\n\r\n<html>".encode())
            assert isinstance(error, WebSocketRefused), error
            self.assertEqual((error.status, error.retry_after), (status, wait))
            self.assertIn(said, str(error))
            self.assertIn(str(status), str(error))
        self.assertEqual(error.reason, Reason.HANDSHAKE_REFUSED)

    def test_redirect(self) -> None:
        """Nobody goes there, and it is told where that is."""
        for where in ("wss://other.example/", "x" * 3000, "\x7f\xff"):
            head = f"HTTP/1.1 302 Found\r\nLocation: {where}\r\n\r\n"
            if where[0] == "\x7f":
                self.assertIn("proper value", str(refused(head.encode("latin-1"))))
                continue
            error = refused(head.encode("latin-1"))
            assert isinstance(error, WebSocketRefused)
            self.assertIn("not followed", str(error))
            self.assertIn(where[:100], str(error))
        self.assertGreater(HANDSHAKE_TIMEOUT, 0)

    @DETERMINISTIC
    @given(st.binary(max_size=300), st.integers(0, 200), st.integers(0, 10))
    def test_fuzz(self, noise: bytes, place: int, removed: int) -> None:
        """Whatever comes: nothing is raised."""
        made = machine()
        made.receive(BOOK_ANSWER[:place] + noise + BOOK_ANSWER[place + removed :])
        made.data_to_send()
        made.receive_eof()
        self.assertIsNotNone(made.ended)


def check(vector: Vector, pieces: list[bytes]) -> None:
    frames = ClientFrames(LIMIT)
    payload = b"".join(frames.receive(piece) for piece in pieces)
    assert payload == vector.payload, vector.name
    pong = None if not frames.pong else client_frames(frames.pong)
    assert pong == (None if vector.pong is None else [(10, vector.pong)]), vector.name
    assert frames.closed is vector.closed, vector.name
    assert (frames.error and frames.error.reason) is vector.broken, vector.name
    more = frames.receive(frame(b"more", mask=None))
    assert more == b"" or not (vector.closed or vector.broken)


class FrameTests(SynchronousTestCase):
    """The client's frames."""

    def test_vectors(self) -> None:
        """All at once, and one byte at a time."""
        self.assertGreater(len(SERVER_VECTORS), 80)
        for vector in SERVER_VECTORS:
            check(vector, [vector.sent])
            check(vector, [vector.sent[at : at + 1] for at in range(len(vector.sent))])

    @settings(DETERMINISTIC, max_examples=500)
    @given(st.sampled_from(SERVER_VECTORS), st.lists(st.integers(0, 100_000), max_size=6))
    def test_cuts(self, vector: Vector, places: list[int]) -> None:
        """In pieces."""
        check(vector, cut(vector.sent, places))

    @DETERMINISTIC
    @given(st.binary(max_size=200), st.integers(0, 2**32))
    def test_fuzz(self, data: bytes, seed: int) -> None:
        """Whatever comes: nothing is raised, little is kept, and cuts change nothing."""
        chance = random.Random(seed)
        whole, parts = ClientFrames(LIMIT), ClientFrames(LIMIT)
        payload = whole.receive(data)
        pieces, at = [], 0
        while at < len(data):
            size = chance.randint(1, 20)
            pieces.append(parts.receive(data[at : at + size]))
            at += size
        self.assertEqual(b"".join(pieces), payload)
        self.assertEqual(str(parts.error), str(whole.error))
        self.assertEqual((parts.code, parts.text), (whole.code, whole.text))
        self.assertLess(len(parts._head), 132)

    def test_wrap(self) -> None:
        """Payload of any size comes as frames of at most 16 KiB, masked."""
        data = os.urandom(3 * PIECE + 200)
        for size in (0, 1, 125, 126, 127, PIECE - 1, PIECE, PIECE + 1, PIECE + 126, len(data)):
            frames = client_frames(ClientFrames().wrap(data[:size]))
            self.assertEqual(b"".join(payload for _, payload in frames), data[:size])
            self.assertEqual({opcode for opcode, _ in frames}, {2})
            self.assertTrue(all(len(payload) + 4 <= 16 * 1024 for _, payload in frames))
        for kind in (bytearray, memoryview):
            for size in (5, 200, 40_000):
                made = client_frames(ClientFrames().wrap(cast(bytes, kind(data[:size]))))
                self.assertEqual(b"".join(payload for _, payload in made), data[:size])

    def test_masks(self) -> None:
        """Each frame has a mask of its own, by chance, and also behind what was asked for."""
        frames = ClientFrames()
        masks = [frames.wrap(b"")[2:6] for _ in range(CHANCE)]
        self.assertGreater(len(set(masks)), CHANCE - 5)
        sent = frames.wrap(bytes(2 * PIECE))
        self.assertNotEqual(sent[4:8], sent[8 + PIECE + 4 : 8 + PIECE + 8])
        self.assertNotEqual(frames.close(1000)[2:6], ClientFrames().close(1000)[2:6])

    def test_linear(self) -> None:
        """Fragments without an end, tiny or torn frames: the time is that of their bytes."""
        many = 40_000
        for name, sent, step in (
            ("fragments", frame(b"", fin=False) + frame(bytes(64), 0, fin=False) * many, 65536),
            ("empty fragments", frame(b"", fin=False) + frame(b"", 0, fin=False) * many, 65536),
            ("pings", frame(bytes(125), 9) * (many // 4), 100),
            ("one frame, torn", frame(bytes(many)), 1),
        ):
            frames, begun = ClientFrames(), time.process_time()
            data = unmasked(sent[:100_000]) if name != "one frame, torn" else b"\x82\x7e\x9c\x40"
            for at in range(0, len(data), step):
                frames.receive(data[at : at + step])
            self.assertIsNone(frames.error)
            self.assertLess(time.process_time() - begun, 5, name)


class EndTests(SynchronousTestCase):
    """The verbs, once it is up."""

    def test_pings(self) -> None:
        """Of many Pings the last is answered, when there is room; none behind a Close."""
        made = opened()
        for text in (b"one", b"two"):
            made.receive(frame(text, 9, mask=None))
            self.assertEqual(made.data_to_send(room=False), b"")
        self.assertEqual(client_frames(made.data_to_send()), [(10, b"two")])
        self.assertEqual(made.data_to_send(), b"")
        made.receive(frame(b"three", 9, mask=None))
        made.close()
        self.assertEqual(made.data_to_send(), b"")

    def test_closed_by_peer(self) -> None:
        """Its code and text are the reason, and its code is the answer."""
        for code, text, line in (
            (1001, "the gateway stops", "the gateway stops (1001)"),
            (1012, "", "it restarts; come again (1012)"),
            (1013, "", "it has no room; try again later (1013)"),
            (4501, "", "replaced by a newer connection (4501)"),
            (4999, "", "without a word (4999)"),
            (1000, "a\nb\x1b[0m", "a?b?[0m (1000)"),
        ):
            made = opened()
            sent = unmasked(closing(code, text.encode()))
            self.assertEqual(made.receive(frame(b"x", mask=None) + sent + b"\xff"), b"x")
            assert isinstance(made.ended, WebSocketClosed)
            self.assertEqual((made.ended.code, str(made.ended)), (code, line))
            self.assertEqual(
                client_frames(made.data_to_send(room=False)), [(8, code.to_bytes(2, "big"))]
            )
            self.assertTrue(made.closing)
            self.assertEqual(made.close(), b"")
            made.receive_eof()
            self.assertEqual(made.ended.code, code)

    def test_closed_without_code(self) -> None:
        made = opened()
        made.receive(frame(b"", 8, mask=None))
        assert isinstance(made.ended, WebSocketClosed)
        self.assertEqual(made.ended.code, 1005)
        self.assertEqual(client_frames(made.data_to_send()), [(8, b"")])

    def test_closed_here(self) -> None:
        """The Close of this side is said once, and the other's is not answered again."""
        made = opened()
        self.assertEqual(client_frames(made.close()), [(8, b"\x03\xe8")])
        self.assertEqual(made.close(), b"")
        self.assertEqual(made.receive(frame(b"late", mask=None)), b"late")
        self.assertIsNone(made.ended)
        made.receive(unmasked(closing(1000)))
        self.assertIsInstance(made.ended, WebSocketClosed)
        self.assertEqual(made.data_to_send(), b"")

    def test_cut(self) -> None:
        """Without a Close it ends with 1006, also amid a frame."""
        made = opened()
        made.receive(frame(b"whole", mask=None)[:4])
        made.receive_eof()
        assert isinstance(made.ended, WebSocketClosed)
        self.assertEqual(made.ended.code, NO_CLOSE)

    def test_broken(self) -> None:
        """Who breaks the rules is told so by a Close, and it is over."""
        for sent, code in (
            (frame(b"x"), 1002),
            (frame(b"x", 1, mask=None), 1003),
            (frame(b"x", mask=None, length=1 << 40), 1009),
        ):
            made = opened()
            self.assertEqual(made.receive(frame(b"a", mask=None) + sent), b"a")
            assert made.ended is not None
            self.assertTrue(str(made.ended).startswith("WebSocket: "), made.ended)
            ((opcode, payload),) = client_frames(made.data_to_send())
            self.assertEqual((opcode, payload[:2]), (8, code.to_bytes(2, "big")))
            self.assertEqual(made.receive(frame(b"b", mask=None)), b"")


class BothTests(SynchronousTestCase):
    """The client against the server's side of this package."""

    @settings(DETERMINISTIC, max_examples=60)
    @given(
        st.lists(
            st.tuples(st.booleans(), st.binary(max_size=70_000), st.lists(st.integers(0, 9999))),
            max_size=8,
        ),
        st.booleans(),
    )
    def test_talk(self, said: list[tuple[bool, bytes, list[int]]], client_ends: bool) -> None:
        """What one says the other hears, however it is cut; both ends hear of the end."""
        client, server = ClientMachine(WebSocket(), "game.example"), ServerMachine(Policy())
        server.receive(client.begin())
        client.receive(server.data_to_send())
        self.assertTrue(client.up and server.up)
        for by_client, data, places in said:
            speaker, hearer = (client, server) if by_client else (server, client)
            pieces = cut(speaker.wrap(data), places)
            self.assertEqual(b"".join(hearer.receive(piece) for piece in pieces), data)
        ender, other = (client, server) if client_ends else (server, client)
        other.receive(ender.close(1001))
        ender.receive(other.data_to_send())
        for one in (client, server):
            assert isinstance(one.ended, WebSocketClosed)
            self.assertEqual(one.ended.code, 1001)

    def test_server_frames_are_not_a_clients(self) -> None:
        """Neither side takes its own kind of frames."""
        client, server = ClientFrames(), Frames()
        client.receive(ClientFrames().wrap(b"x"))
        server.receive(Frames().wrap(b"x"))
        self.assertEqual(str(client.error), "a frame is masked")
        self.assertEqual(str(server.error), "a frame is not masked")

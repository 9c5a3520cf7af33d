"""Tests of fastway.dialect.teleport: recorded frames, both ends, and what must not be taken."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fastway.dialect import (
    Answer,
    BadFrame,
    FrameRefused,
    Message,
    Refused,
)
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport_fields import MAX_SEQ, read_meta, read_status
from fastway.dialect.teleport_frames import (
    AUTH_CALL,
    AUTH_REPLY,
    CALL,
    FRAMINGS,
    PUSH,
    REPLY,
    Frame,
)
from fastway.dialect.teleport_wires import TeleportWire, Token
from fastway.formats import Bytes
from tests.support.errors import raised
from tests.support.teleport import (
    BYTES,
    KNOWN,
    VECTORS,
    client,
    heard,
    read,
    server,
    written,
)

PROTOS = ("raw", "json", "pb")


def proto_of(name: str) -> str:
    return {"J": "json", "P": "pb", "T": "thrift"}.get(name[0], "raw")


def singly(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


class VectorTests(SynchronousTestCase):
    """What Go said, byte by byte."""

    def test_frames(self) -> None:
        """Each is read, and written in the same bytes, but for those of gzip."""
        streams = [name for name in BYTES if name[0] != "W"]
        self.assertEqual(len(streams), 25)
        for name in streams:
            frame = read(BYTES[name], proto_of(name))
            if b"g" not in frame.filters:
                self.assertEqual(written(frame, proto_of(name)), BYTES[name], name)

    def test_some_by_hand(self) -> None:
        """Two readings of the specification that the code could not have had from itself."""
        self.assertEqual(
            read(BYTES["V6-9"]),
            Frame(CALL, 1, b"/math/add", codec=106, body=b"[1,2]", filters=b"gm"),
        )
        second = read(BYTES["V6-2"])
        self.assertEqual((second.seq, second.codec), (36, 106))
        meta = [("author", "henry lee"), ("k", ""), ("k", "a/b~é")]
        self.assertEqual(read_meta(second.meta), meta)
        self.assertEqual(read(BYTES["V6-3"]).seq, -1)
        self.assertEqual(read(BYTES["V6-4"]).seq, MAX_SEQ)
        panic = read_status(read(BYTES["V6-12"]).status)
        assert panic is not None
        self.assertEqual(
            (panic.code, panic.text, panic.data), (500, "Internal Server Error", "boom")
        )

    def test_said_by_us(self) -> None:
        """Our verbs give the bytes that Go's gave."""
        for proto, first, second in (("raw", "V6-1", "V6-6"), ("json", "J-1", "J-2")):
            near, far = server(Teleport(proto=proto)), client(Teleport(proto=proto))
            meta = [] if proto == "raw" else [("a", "b")]
            key, asked = far.request("math.add", b"[1,2]", meta)
            self.assertEqual((key, asked), (1, BYTES[first]))
            (event,) = near.receive(asked, 0.0)
            assert isinstance(event, Message)
            self.assertEqual(
                (event.route, event.body, list(event.meta)), ("math.add", b"[1,2]", meta)
            )
            self.assertEqual(near.reply(event.token, b"3"), BYTES[second])
        not_found = Refused(404, "not found")
        self.assertEqual(server().refuse(Token(1, 106, b""), not_found), BYTES["V6-7"])
        pb = server(Teleport(proto="pb"))
        self.assertEqual(pb.refuse(Token(1, 106, b""), not_found), BYTES["P-2"])
        far = client(Teleport(codec="s"))
        far.request("a", b"")
        self.assertEqual(far.send("push.status", b"hi"), BYTES["V6-5"])
        self.assertEqual(
            client(Teleport(pipe="m")).request("math.add", b"[1,2]")[1], BYTES["V6-8"]
        )
        dialect = Teleport(codec="f")
        body = dialect.client().format.encode({"b": "x&y", "a": "1 2"})
        self.assertEqual(client(dialect).request("a", body)[1], BYTES["V6-10"])
        body = Teleport().client().format.encode("<a&b>")
        self.assertEqual(client().request("a", body)[1], BYTES["V6-13"])
        far = client()
        for _ in range(2):
            far.request("a", b"")
        asked = far.request("math.add", b"[1]", [("X-Accept-Body-Codec", "115")])[1]
        self.assertEqual(asked, BYTES["V6-11"])

    def test_websocket(self) -> None:
        """Messages have no status and no length; that of an error is added where none looks."""
        self.assertEqual(
            read(BYTES["W-1"][2:], "json", message=True),
            Frame(REPLY, 1, b"", b"", b"", 106, b'{"C":3}'),
        )
        frame = Frame(REPLY, 1, codec=106, body=b'{"C":3}')
        self.assertEqual(written(frame, "json", message=True), BYTES["W-1"][2:])
        self.assertEqual(read(BYTES["W-2"][2:], "pb", message=True)[:2], (REPLY, 1))
        error = read(BYTES["W-3"][2:], "pb", message=True)
        self.assertEqual((error.mtype, error.status, error.body), (REPLY, b"", b""))
        for proto in ("json", "pb"):
            ours = Frame(REPLY, 7, status=b"code=404&msg=no", filters=b"gm")
            self.assertEqual(read(written(ours, proto, message=True), proto, message=True), ours)

    def sides(self) -> list[tuple[Any, str, bytes, list[bytes]]]:
        """What one side said on one connection, for each."""
        found = []
        for talk in VECTORS["talks"]:
            for key in sorted({(one[0], one[1]) for one in talk["frames"]}):
                units = [bytes.fromhex(u) for n, who, u in talk["frames"] if (n, who) == key]
                found.append((talk, key[1], b"".join(units), units))
        return found

    def test_talks(self) -> None:
        """What the peers said is understood; and said again, it is understood alike."""
        for talk, _, _, units in self.sides():
            for unit in units:
                frame = read(unit, talk["proto"], message=talk["websocket"])
                self.assertIn(frame.mtype, (CALL, REPLY, PUSH, AUTH_CALL, AUTH_REPLY))
                again = written(frame, talk["proto"], message=talk["websocket"])
                self.assertEqual(read(again, talk["proto"], message=talk["websocket"]), frame)
                unescaped = talk["proto"] == "json" and b"\\u" in again + unit
                if not (unescaped or b"g" in frame.filters):
                    self.assertEqual(again, unit)

    def test_talks_in_pieces(self) -> None:
        """Byte by byte, and in thirds: the same events."""
        for talk, who, said, _ in self.sides():
            if talk["websocket"]:
                continue
            auth = "auth" in talk["title"]
            dialect = Teleport(proto=talk["proto"], auth=auth, user="tok" if auth else None)

            def new(who: str = who, dialect: Teleport = dialect) -> TeleportWire:
                wire = dialect.server() if who == "C" else dialect.client()
                wire.begin(0.0)
                wire._asked.update(range(1, 50))
                return wire

            whole = heard(new(), [b"", said])
            thirds = [said[at : at + 3] for at in range(0, len(said), 3)]
            for pieces in (singly(said), thirds):
                again = heard(new(), [b"", *pieces])
                self.assertEqual([str(one) for one in again], [str(one) for one in whole])


class BadInputTests(SynchronousTestCase):
    """Rows of spec teleport.md, 3.2."""

    def of(self, frame: Frame) -> tuple[TeleportWire, list[Any]]:
        wire = server()
        return wire, wire.receive(written(frame), 0.0)

    def reply_to(self, frame: Frame) -> Refused | None:
        wire, events = self.of(frame)
        self.assertEqual((events, wire.error), ([], None))
        (said,) = wire.data_to_send()
        answer = read(said)
        self.assertEqual((answer.mtype, answer.seq), (REPLY, frame.seq))
        self.assertEqual((answer.codec, answer.body), (0, b""))
        return read_status(answer.status)

    def test_closed(self) -> None:
        good = written(Frame(CALL, 1, b"/a", codec=106))
        size = int.from_bytes(good[:4], "big")
        rows: dict[str, bytes] = {
            "version byte": good[:4] + b"\x06" + good[4:],
            "size 0": bytes(4) + good[4:],
            "size 4": b"\0\0\0\4" + good[4:],
            "size 5": b"\0\0\0\5" + good[4:],
            "over the limit": (1 << 21).to_bytes(4, "big"),
            "1 GiB": (1 << 30).to_bytes(4, "big"),
            "all ones": b"\xff" * 4,
            "unknown filter": b"\0\0\0\x09\1x123",
            "filters beyond the end": b"\0\0\0\x06\xffa",
            "bad md5": BYTES["V6-8"][:-1] + b"\0",
            "no md5 at all": b"\0\0\0\x09\1m123",
            "no gzip": b"\0\0\0\x09\1g123",
            "bad seq": good.replace(b"\x011\x01", b"\x01!\x01"),
            "seq with a bar": good.replace(b"\x011\x01", b"\x031_1\x01"),
            "a codec 0 with a body": written(Frame(CALL, 1, b"/a", codec=0, body=b"1")),
            "a reply so": written(Frame(REPLY, 1, b"", codec=0, body=b"1")),
            "seq of 33 bits": good.replace(b"\x011\x01", b"\x07zzzzzzz\x01"),
            "no seq": good.replace(b"\x011\x01", b"\x00\x01"),
        }
        for mtype in (0, 4, 5, 6, 255):
            rows[f"type {mtype}"] = written(Frame(mtype, 1, b"/a", codec=106))
        for cut in range(9, size - 4):
            rows[f"cut at {cut}"] = (size - cut).to_bytes(4, "big") + good[4 : size - cut]
        for what, data in rows.items():
            wire = server()
            if "bad seq" in what or "seq " in what:
                data = len(data).to_bytes(4, "big") + data[4:]
            self.assertEqual(wire.receive(data + good, 0.0), [], what)
            self.assertIsInstance(wire.error, BadFrame, what)
            self.assertNotIn("\n", str(wire.error))
            self.assertEqual(wire.data_to_send(), [], what)
            self.assertEqual(wire.receive(good, 0.0), [], what)
            self.assertIsNone(wire.deadline)

    def test_what_came_before_counts(self) -> None:
        wire = server()
        events = wire.receive(written(Frame(PUSH, 1, b"/a", codec=106)) + b"\0" * 4, 0.0)
        self.assertEqual([type(one) for one in events], [Message])
        self.assertIsInstance(wire.error, BadFrame)

    def test_no_method(self) -> None:
        said = self.reply_to(Frame(CALL, 5, b"", codec=106))
        assert said is not None
        self.assertEqual((said.code, said.text), (400, "Bad Message"))
        self.assertEqual(said.data, "invalid service method for message")
        wire, events = self.of(Frame(PUSH, 5, b"", codec=106))
        self.assertEqual((events, wire.data_to_send(), wire.error), ([], [], None))

    def test_unknown_codec(self) -> None:
        """It is the decoder that says so; bytes may be had all the same."""
        for codec in (0x78, 255):
            _, (event,) = self.of(Frame(CALL, 1, b"/a", codec=codec, body=b"1"))
            self.assertIn(str(codec), str(raised(ValueError, event.format.decode, b"1")))
            self.assertEqual(raised(Refused, event.format.encode, 1).code, 500)
            self.assertIsNone(event.format.decode(b""))
        _, (event,) = self.of(Frame(CALL, 1, b"/a"))
        self.assertEqual(raised(Refused, event.format.encode, 1).text, "unsupported codec id: 0")

    def test_codec_0_has_no_body(self) -> None:
        """Never: a Go peer would hang."""
        wire = server()
        self.assertEqual(raised(Refused, wire.reply, Token(1, 0, b""), b"x").code, 500)
        self.assertEqual(read(wire.reply(Token(1, 0, b""), b"")).body, b"")

    def test_error_status_of_a_call(self) -> None:
        _, (event,) = self.of(Frame(CALL, 1, b"/a", b"code=500", codec=106))
        self.assertEqual(event.route, "a")

    def test_status_that_is_nothing(self) -> None:
        for status, code in ((b"", None), (b"code=0", None), (b"x", None), (b"code=x", -1)):
            wire = client()
            key, _ = wire.request("a", b"")
            (event,) = wire.receive(written(Frame(REPLY, key, status=status)), 0.0)
            assert isinstance(event, Answer)
            self.assertEqual(event.refused and event.refused.code, code, status)

    def test_reply_to_nobody(self) -> None:
        for wire in (server(), client()):
            key, _ = wire.request("a", b"")
            other = written(Frame(REPLY, key + 1, codec=106, body=b"1"))
            self.assertEqual(wire.receive(other, 0.0), [])
            answer = written(Frame(REPLY, key, codec=106, body=b"1"))
            self.assertEqual([type(one) for one in wire.receive(answer, 0.0)], [Answer])
            self.assertEqual(wire.receive(answer, 0.0), [])
            wire.forget(wire.request("a", b"")[0])
            late = written(Frame(REPLY, 2, codec=106, body=b"1"))
            self.assertEqual((wire.receive(late, 0.0), wire.error), ([], None))

    def test_limit(self) -> None:
        """Equal is allowed, both ways; one more is not."""
        dialect = Teleport(max_frame=1024)
        room = 1024 - len(client(dialect).send("a", b""))
        data = client(dialect).send("a", b"x" * room)
        self.assertEqual((len(data), len(server(dialect).receive(data, 0.0))), (1024, 1))
        raised(FrameRefused, client(dialect).send, "a", b"x" * (room + 1))
        wire = server(dialect)
        wire.receive(written(Frame(PUSH, 1, b"/a", codec=106, body=b"x" * (room + 1))), 0.0)
        self.assertIn("1025", str(wire.error))

    def test_refused_request_has_no_seq(self) -> None:
        wire = client(Teleport(max_frame=1024))
        raised(FrameRefused, wire.request, "a", b"x" * 2000)
        raised(FrameRefused, wire.request, "a", b"", [("k", "\ud800")])
        raised(FrameRefused, wire.request, "a" * 256, b"")
        raised(FrameRefused, wire.request, "a", b"", [("k", "x" * 70000)])
        self.assertEqual(wire.request("a", b"")[0], 1)

    def test_bombs(self) -> None:
        """A filter's bytes are never more than a frame may have, however often it is nested."""
        inner = Frame(CALL, 1, b"/a", codec=115, body=b"x" * 5_000_000)
        for pipe in (b"g", b"gg", b"ggm"):
            data = FRAMINGS["raw"][0].write(inner._replace(filters=pipe), KNOWN, 1 << 30)
            self.assertLess(len(data), 50_000)
            wire = server()
            self.assertEqual(wire.receive(data, 0.0), [])
            self.assertIn("more than 1048576 bytes", str(wire.error))
        wire = server()
        wire.receive(written(Frame(CALL, 1, b"/a", codec=115, filters=b"m" * 9)), 0.0)
        self.assertIn("9 filters", str(wire.error))


class SeqTests(SynchronousTestCase):
    def test_one_counter(self) -> None:
        wire = client()
        self.assertEqual(wire.request("a", b"")[0], 1)
        self.assertEqual(read(wire.send("a", b"")).seq, 2)
        self.assertEqual(wire.request("a", b"")[0], 3)

    def test_pushes_of_a_server(self) -> None:
        """They have no seq, so that one frame is told to a whole group."""
        dialect = Teleport()
        one, other = server(dialect), server(dialect)
        one.request("a", b"")
        self.assertEqual(one.shape, other.shape)
        self.assertEqual(one.send("a", b"1"), other.send("a", b"1"))
        self.assertNotEqual(client(dialect).shape, client(dialect).shape)
        self.assertNotEqual(server(Teleport(pipe="m")).shape, one.shape)

    def test_it_begins_anew(self) -> None:
        """Behind the last number; one that waits for its answer is left out."""
        wire = client()
        self.assertEqual(wire.request("a", b"")[0], 1)
        wire._seq = MAX_SEQ - 1
        self.assertEqual([wire.request("a", b"")[0] for _ in range(2)], [MAX_SEQ, 2])

    def test_answers_overtake(self) -> None:
        near, far = server(), client()
        asked = b"".join(far.request("a", b"%d" % number)[1] for number in range(1000))
        events = near.receive(asked, 0.0)
        replies = [near.reply(one.token, one.body) for one in reversed(events)]
        answers = far.receive(b"".join(replies), 0.0)
        self.assertEqual([one.key for one in answers], list(range(1000, 0, -1)))  # type: ignore
        self.assertEqual([int(one.body) for one in answers], list(range(999, -1, -1)))  # type: ignore

    def test_replies_echo_filters(self) -> None:
        near = server()
        for pipe in ("", "g", "m", "gm", "mg", "gg"):
            far = client(Teleport(pipe=pipe))
            (event,) = near.receive(far.request("a", b"1")[1], 0.0)
            assert isinstance(event, Message)
            for said in (near.reply(event.token, b"2"), near.refuse(event.token, Refused(404))):
                self.assertEqual(read(said).filters, pipe.encode())
            (answer,) = far.receive(near.reply(event.token, b"2"), 0.0)
            assert isinstance(answer, Answer)
            self.assertEqual(answer.body, b"2")

    def test_codec_of_the_answer(self) -> None:
        """What was asked for, if it is known here; else the question's."""
        for wanted, codec in ((None, 106), ("115", 115), ("1", 106), ("x", 106), ("9" * 50, 106)):
            near, far = server(), client()
            meta = [] if wanted is None else [("X-Accept-Body-Codec", wanted)]
            (event,) = near.receive(far.request("a", b"1", meta)[1], 0.0)
            assert isinstance(event, Message)
            said = (event.answer_format or event.format).encode(2)
            reply = near.reply(event.token, said, [("k", "v")])
            self.assertEqual(read(reply).codec, codec)
            (answer,) = far.receive(reply, 0.0)
            assert isinstance(answer, Answer)
            self.assertEqual(answer.format.decode(answer.body), "2" if codec == 115 else 2)
            self.assertEqual(answer.meta, [("k", "v")])

    def test_refusals(self) -> None:
        """Code, text and cause come back; an error is never told as none."""
        near, far = server(), client()
        for refused, code, text, data in (
            (Refused(1001, "division by zero", "B is 0"), 1001, "division by zero", "B is 0"),
            (Refused(1001, "é & ~"), 1001, "é & ~", None),
            (Refused(0, "no"), -1, "no", None),
            (Refused(2**40, "no"), -1, "no", None),
            (Refused(5, "x", {"a": [1]}), 5, "x", '{"a": [1]}'),
            (Refused(5, "x", object()), 5, "x", ""),
            (Refused(5, "x" * 100_000), 5, "x" * 1000, None),
            (Refused(5, "\ud800"), 5, "?", None),
            (Refused(500, "internal error"), 500, "Internal Server Error", ""),
        ):
            key, asked = far.request("a", b"")
            (event,) = near.receive(asked, 0.0)
            assert isinstance(event, Message)
            (answer,) = far.receive(near.refuse(event.token, refused), 0.0)
            assert isinstance(answer, Answer)
            assert answer.refused is not None
            said = answer.refused
            self.assertEqual(
                (answer.key, said.code, said.text, said.data), (key, code, text, data)
            )

    def test_refusals_always_fit(self) -> None:
        near = server(Teleport(max_frame=1024))
        said = near.refuse(Token(1, 106, b""), Refused(1001, "é" * 1000, "x" * 1000))
        refused = read_status(read(said).status)
        assert refused is not None
        self.assertEqual((refused.code, refused.text), (1001, ""))


class SettingsTests(SynchronousTestCase):
    def test_wrong_ones(self) -> None:
        for given in (
            {"proto": "avro"},
            {"mapper": "grpc"},
            {"heartbeat": 2},
            {"heartbeat": 3.5},
            {"heartbeat": 10**6},
            {"max_frame": 100},
            {"max_frame": 2**31},
            {"concurrent": 0},
            {"codec": "x"},
            {"codecs": {"xy": Bytes()}},
            {"codecs": {"é€": Bytes()}},
            {"pipe": "z"},
            {"pipe": "m" * 9},
            {"names": {"a": "/x", "b": "/x"}},
            {"names": {"a": ""}},
            {"names": {"a": "/x", "b": "/X"}, "ignore_case": True},
        ):
            self.assertNotIn("\n", str(raised(ValueError, Teleport, **given)))

    def test_own_codec_and_filter(self) -> None:
        class Turned:
            def pack(self, data: bytes) -> bytes:
                return data[::-1]

            def unpack(self, data: bytes, limit: int) -> bytes:
                return data[::-1]

        dialect = Teleport(codecs={"x": Bytes()}, codec="x", filters={"r": Turned()}, pipe="r")
        data = client(dialect).request("a", b"<x/>")[1]
        self.assertIn(b">/x<", data)
        (event,) = server(dialect).receive(data, 0.0)
        assert isinstance(event, Message)
        self.assertEqual(event.format.decode(event.body), b"<x/>")

"""Tests of fastway.dialect.pomelo: both ends with each other, settings, JSON, any bytes."""

from __future__ import annotations

import importlib
import json
import time
import tracemalloc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from twisted.trial.unittest import SynchronousTestCase

from fastway.dialect import (
    Answer,
    BadFrame,
    Dialect,
    Event,
    FrameRefused,
    Hello,
    Kicked,
    Message,
    NotInDialect,
    NotLetIn,
    Ready,
    Refused,
)
from fastway.dialect import Wire as AnyWire
from fastway.dialect.pomelo import Pomelo, PomeloJson
from fastway.dialect.pomelo_packets import (
    CODED,
    DATA,
    HANDSHAKE,
    KICK,
    packet,
)
from fastway.dialect.pomelo_wires import (
    MAX_EARLY,
    PomeloClient,
    PomeloServer,
)
from fastway.formats import Bytes, Json, ProtocolBuffers
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised
from tests.support.pomelo import (
    ACKED,
    BEAT,
    SHAKE,
    VECTORS,
    Wire,
    client,
    data,
    heard,
    raw,
    server,
    singly,
    welcome,
)

StringValue: Any = importlib.import_module("google.protobuf.wrappers_pb2").StringValue


class Inner(Struct):
    ids: list[int]


class Outer(Struct):
    members: list[int]
    names: dict[str, str]
    key: bytes
    inner: list[Inner]
    of: dict[str, Inner]
    some: list[int] | None
    maybe: Inner | None
    other: int = 1


class DialogueTests(SynchronousTestCase):
    """Our client and our server."""

    def pair(self, ours: Pomelo, theirs: Pomelo) -> tuple[PomeloServer, PomeloClient]:
        near, far = ours.server(), theirs.client()
        near.begin(0.0)
        far.begin(0.0)
        self.events: list[Event] = []
        for wire, other in ((far, near), (near, far), (far, near)):
            for unit in wire.data_to_send():
                self.events += heard(other, singly(unit))
        return near, far

    def test_all(self) -> None:
        for dictionary in ({}, {"join": 1, "on": 2}):
            user = {"name": "é😀", "n": [1]}
            ours = Pomelo(dictionary=dictionary, epoch=lambda: 1.9)
            near, far = self.pair(ours, Pomelo(user=user, client_version="1"))
            hello, ready, also = self.events
            assert isinstance(hello, Hello)
            self.assertEqual(hello.user, user)
            said = {"sys": {"type": "fastway", "version": "1"}, "user": user}
            self.assertEqual(json.loads(hello.data), said)
            self.assertEqual([ready, also], [Ready(), Ready()])
            self.assertTrue(near.ready and far.ready)

            key, asked = far.request("join", b"1")
            (event,) = near.receive(asked, 0.0)
            assert isinstance(event, Message)
            self.assertEqual(event[:2], ("join", b"1"))
            self.assertEqual(asked[4] & CODED, bool(dictionary))
            reply = near.reply(event.token, b"2")
            self.assertEqual(far.receive(reply, 0.0), [Answer(key, b"2", far.format)])
            # A second answer is to nothing.
            self.assertEqual(far.receive(reply, 0.0), [])

            (event,) = near.receive(far.send("say", b"3"), 0.0)
            assert isinstance(event, Message)
            self.assertEqual(event[:2], ("say", b"3"))
            self.assertIsNone(event.token)
            (event,) = far.receive(near.send("on", b"4"), 0.0)
            assert isinstance(event, Message)
            self.assertEqual(event[:2], ("on", b"4"))
            self.assertIsNone(event.token)

    def test_forget(self) -> None:
        near, far = self.pair(Pomelo(), Pomelo())
        key, _ = far.request("a", b"1")
        far.forget(key)
        far.forget(key)
        self.assertEqual(far.receive(near.reply(key, b"2"), 0.0), [])
        self.assertIsNone(far.error)

    def test_user_back(self) -> None:
        ours = Pomelo(epoch=lambda: 1700000000.5)
        near, far = ours.server(), Pomelo(user=lambda: "later").client()
        near.begin(0.0)
        far.begin(0.0)
        (hello,) = near.receive(b"".join(far.data_to_send()), 0.0)
        assert isinstance(hello, Hello)
        self.assertEqual(hello.user, "later")
        near.accept({"name": "é"})
        (reply,) = near.data_to_send()
        self.assertEqual(
            reply[4:],
            b'{"code":200,"sys":{"heartbeat":30,"servertime":1700000000},'
            b'"user":{"name":"\\u00e9"}}',
        )
        self.assertEqual(far.receive(reply, 0.0), [Ready({"name": "é"})])

    def test_user_too_large(self) -> None:
        wire = Pomelo(max_packet=128).server()
        wire.receive(SHAKE, 0.0)
        raised(FrameRefused, wire.accept, "x" * 100)
        far = Pomelo(max_packet=128, user="x" * 100).client()
        raised(FrameRefused, far.begin, 0.0)

    def test_heartbeat_is_told(self) -> None:
        for seconds, said in ((30.0, b'"heartbeat":30,'), (0.5, b'"heartbeat":0.5,')):
            wire = Pomelo(heartbeat=seconds).server()
            wire.receive(SHAKE, 0.0)
            wire.accept()
            self.assertIn(said, wire.data_to_send()[0])

    def test_kick(self) -> None:
        reasons: list[Any] = [None, "dup", "é", 3, ["a"], {"code": 1}, {"reason": 1, "more": 2}]
        near, far = self.pair(Pomelo(), Pomelo())
        for reason in reasons:
            said = near.kick(reason)
            self.assertIsInstance(json.loads(said[4:]), dict)
            self.assertTrue(said.isascii())
            self.assertEqual(far.receive(said, 0.0), [Kicked(reason)])
        self.assertEqual(near.kick("dup").hex(), VECTORS["packets"][6]["bytes"])
        # Others kick without a word, or not in JSON.
        self.assertEqual(far.receive(packet(KICK), 0.0), [Kicked()])
        self.assertEqual(far.receive(packet(KICK, b"b\xff"), 0.0), [Kicked("b\ufffd")])

    def test_names(self) -> None:
        names = {"room.join": "Join"}
        ours, theirs = raw(names=names, dictionary={"Join": 7}), raw(names=names)
        near, far = self.pair(ours, theirs)
        _, asked = far.request("room.join", b"x")
        self.assertEqual(asked, data("0101000778"))
        self.assertEqual(near.receive(asked, 0.0)[0][0], "room.join")
        plain = server(theirs)
        self.assertEqual(plain.receive(data("02044a6f696e"), 0.0)[0][0], "room.join")
        self.assertEqual(plain.send("room.join", b"x"), data("06044a6f696e78"))
        self.assertEqual(
            (ours.wire_name("room.join"), ours.app_name("Join")), ("Join", "room.join")
        )
        self.assertEqual((ours.wire_name("a"), ours.app_name("a")), ("a", "a"))
        self.assertEqual(near.receive(data("02016178"), 0.0)[0][:2], ("a", b"x"))
        raised(NotInDialect, ours.wire_name, "é" * 128)

    def test_silent_refusals(self) -> None:
        self.assertEqual(server(Pomelo()).refuse(1, Refused(403, "no")), b"")

    def test_told_refusals(self) -> None:
        wire = server(Pomelo(refusals="reply"))
        self.assertEqual(wire.refuse(1, Refused(403, "nö"))[6:], b'{"code":403,"msg":"n\\u00f6"}')
        # There is no message for it in other formats.
        self.assertEqual(server(raw(refusals="reply")).refuse(1, Refused(403, "no")), b"")

    def test_told_rejections(self) -> None:
        for code, told in ((403, 500), (501, 501)):
            near, far = Pomelo(refusals="reply").server(), Pomelo().client()
            near.receive(SHAKE, 0.0)
            near.reject(Refused(code, "no"))
            (said,) = near.data_to_send()
            self.assertEqual(json.loads(said[4:])["code"], told)
            far.begin(0.0)
            self.assertEqual(far.receive(said, 0.0), [])
            assert isinstance(far.error, NotLetIn)
            self.assertEqual((far.error.refused.code, far.error.refused.text), (code, "no"))

    def test_empty_in_json(self) -> None:
        """It is null: the JavaScript clients cannot take nothing at all, and Go drops it."""
        near, far = self.pair(Pomelo(), Pomelo())
        self.assertEqual(near.reply(1, b"")[6:], b"null")
        self.assertTrue(near.send("on", b"").endswith(b"null"))
        key, asked = far.request("a", b"")
        self.assertTrue(asked.endswith(b"null"))
        # nano's own is taken.
        (answer,) = far.receive(data("0401"), 0.0)
        self.assertEqual(answer, Answer(key, b"", far.format))
        self.assertIsNone(far.format.decode(b""))
        self.assertEqual(server().reply(1, b""), data("0401"))

    def test_memory(self) -> None:
        """An idle wire takes little."""
        dialect = Pomelo()
        server(dialect)
        tracemalloc.start()
        try:
            wires = [server(dialect) for _ in range(100)]
            size = tracemalloc.get_traced_memory()[0] / len(wires)
        finally:
            tracemalloc.stop()
        self.assertLess(size, 400)


class ClientTests(SynchronousTestCase):
    def test_greeting(self) -> None:
        wire = Pomelo(client_type="js-websocket", client_version="0.0.1").client()
        wire.begin(0.0)
        (said,) = wire.data_to_send()
        self.assertEqual(
            json.loads(said[4:]), {"sys": {"type": "js-websocket", "version": "0.0.1"}}
        )
        self.assertFalse(wire.ready)
        self.assertIsNone(wire.deadline)

    def test_old_server(self) -> None:
        """nano 0.5.0 tells no dictionary, and uses one: so does a client that has it."""
        ours = raw(dictionary={"on": 2})
        wire = client(ours, heartbeat=30)
        self.assertEqual(wire.receive(data("07000278"), 0.0)[0][:2], ("on", b"x"))
        self.assertEqual(wire.send("on", b""), data("030002"))
        # What a server tells is all that there is.
        told = client(ours, heartbeat=30, dict={})
        self.assertEqual(told.send("on", b""), data("02026f6e"))

    def test_early_pushes(self) -> None:
        """nano does not wait for the handshake."""
        wire = raw().client()
        wire.begin(0.0)
        self.assertEqual(wire.receive(BEAT + data("06016178"), 0.0), [])
        self.assertIsNone(wire.deadline)
        events = wire.receive(welcome() + data("060162"), 0.0)
        self.assertEqual(
            [(type(e), *e[:1]) for e in events], [(Ready, None), (Message, "a"), (Message, "b")]
        )
        self.assertEqual(wire.data_to_send()[1:], [ACKED])

    def test_early_pushes_are_few(self) -> None:
        wire = raw().client()
        wire.receive(data("060161") * MAX_EARLY, 0.0)
        self.assertIsNone(wire.error)
        wire.receive(data("060161"), 0.0)
        self.assertIsInstance(wire.error, BadFrame)

    def test_handshake_again(self) -> None:
        """What it says counts; it is ready only once."""
        wire = client()
        self.assertEqual(wire.receive(welcome(dict={"a": 1}), 0.0), [])
        self.assertEqual(wire.data_to_send(), [ACKED])
        self.assertEqual(wire.send("a", b""), data("030001"))

    def test_not_let_in(self) -> None:
        cases = ((500, 500, ""), (501, 501, "this client is too old for it"), (None, 0, ""))
        for code, told, text in cases:
            wire = raw().client()
            said = packet(HANDSHAKE, json.dumps({"code": code}).encode())
            self.assertEqual(wire.receive(said, 0.0), [])
            assert isinstance(wire.error, NotLetIn)
            self.assertEqual((wire.error.refused.code, wire.error.refused.text), (told, text))

    def test_lies(self) -> None:
        bodies: list[Any] = [
            b"",
            b"{",
            b"[]",
            b'"a"',
            b"\xff",
            b"[" * 60000,
            {"code": 200, "sys": {"dict": []}},
            {"code": 200, "sys": {"dict": "a"}},
            {"code": 200, "sys": {"dict": {"a": -1}}},
            {"code": 200, "sys": {"dict": {"a": 65536}}},
            {"code": 200, "sys": {"dict": {"a": 10**400}}},
            {"code": 200, "sys": {"dict": {"a": "1"}}},
            {"code": 200, "sys": {"dict": {"a": True}}},
        ]
        for body in bodies:
            said = body if isinstance(body, bytes) else json.dumps(body).encode()
            wire = raw().client()
            self.assertEqual(wire.receive(packet(HANDSHAKE, said), 0.0), [], body)
            self.assertIsInstance(wire.error, BadFrame)

    def test_odd_but_understood(self) -> None:
        """What cannot be used is as if it were not there."""
        odd: list[Any] = [[], None, *({"heartbeat": beat} for beat in ("x", -1, True))]
        for facts in odd:
            wire = raw().client()
            said = packet(HANDSHAKE, json.dumps({"code": 200, "sys": facts}).encode())
            self.assertEqual(wire.receive(said, 5.0), [Ready()])
            self.assertIsNone(wire.deadline)
        wire = client(heartbeat=10**300)
        assert wire.deadline is not None
        self.assertLess(wire.deadline, 1e6)


class JsonTests(SynchronousTestCase):
    def test_ascii(self) -> None:
        form = PomeloJson()
        for text in ("é", "消息", "😀", "a😀b\U0010ffffc", "<&>", '"\\\n', "\x7f\u2028"):
            written = form.encode({text: [text]})
            self.assertTrue(written.isascii())
            self.assertEqual(json.loads(written), {text: [text]})
            self.assertEqual(form.decode(written), {text: [text]})
        self.assertEqual(form.encode("😀é"), b'"\\ud83d\\ude00\\u00e9"')

    @DETERMINISTIC
    @given(st.text())
    def test_any_text(self, text: str) -> None:
        form = PomeloJson()
        self.assertEqual(form.decode(form.encode(text)), text)
        # As the JavaScript client writes it: each unit of UTF-16 by itself.
        units = text.encode("utf-16-le")
        pairs = (units[at : at + 2] for at in range(0, len(units), 2))
        single = b"".join(
            unit.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")
            for unit in pairs
        )
        if not set(text) & set('"\\') and all(one >= " " for one in text):
            self.assertEqual(form.decode(b'"' + single + b'"'), text)

    def test_not_mended(self) -> None:
        """Half a pair is no character, nor are other broken bytes."""
        form = PomeloJson()
        for bad in (b'"\xed\xa0\xbd"', b'"\xed\xb8\x80\xed\xa0\xbd"', b'"\xff"', b"{", b"nul"):
            raised(ValueError, form.decode, bad)

    def test_types(self) -> None:
        class Line(Struct):
            name: str

        form = PomeloJson()
        self.assertEqual(form.decode(form.encode(Line("é")), Line), Line("é"))
        broken = b'{"name":"\xed\xa0\xbd\xed\xb8\x80"}'
        self.assertEqual(form.decode(broken, Line), Line("😀"))
        raised(ValueError, form.decode, b'{"name":1}', Line)
        self.assertIsNone(form.decode(b""))

    def test_null_of_go(self) -> None:
        """An empty list, map or bytes, where one is wanted; None where that has a place."""

        form = PomeloJson()
        said = (
            b'{"members":null,"names":null,"key":null,"inner":[{"ids":null},{"ids":[1]}],'
            b'"of":{"a":{"ids":null}},"some":null,"maybe":{"ids":null},"unknown":null}'
        )
        empty = Inner([])
        self.assertEqual(
            form.decode(said, Outer),
            Outer([], {}, b"", [empty, Inner([1])], {"a": empty}, None, empty),
        )
        self.assertEqual(form.decode(b"null", list[int]), [])
        self.assertEqual(form.decode(b"", list[int]), [])
        self.assertIsNone(form.decode(b"null", list[int] | None))
        self.assertIsNone(form.decode(b"null"))
        for bad in (b'{"ids":[null]}', b'{"ids":0,"null":1}', b"{}", b"null", b'{"ids":null'):
            raised(ValueError, form.decode, bad, Inner)
        raised(ValueError, form.decode, b'{"ids":' + b"[" * 200 + b"null", Inner)


class SettingsTests(SynchronousTestCase):
    def test_wrong(self) -> None:
        cases: list[tuple[str, dict[str, Any]]] = [
            ("profile", {"profile": "x"}),
            ("refusals", {"refusals": "x"}),
            ("compress", {"compress": True}),
            ("heartbeat", {"heartbeat": -1}),
            ("heartbeat", {"heartbeat": float("nan")}),
            ("heartbeat", {"heartbeat": float("inf")}),
            ("max_packet", {"max_packet": 127}),
            ("max_packet", {"max_packet": 1 << 24}),
            ("dictionary", {"dictionary": {"a": -1}}),
            ("dictionary", {"dictionary": {"a": 65536}}),
            ("dictionary", {"dictionary": {"a": "1"}}),
            ("dictionary", {"dictionary": {"a": True}}),
            ("dictionary", {"dictionary": {"a": 1, "b": 1}}),
            ("dictionary", {"dictionary": {"": 1}}),
            ("dictionary", {"dictionary": {" a": 1}}),
            ("dictionary", {"dictionary": {"a" * 256: 1}}),
            ("dictionary", {"dictionary": {f"route.{n}": n for n in range(5000)}}),
            ("names", {"names": {"a": "x", "b": "x"}}),
            ("names", {"names": {"a": "x" * 256}}),
        ]
        for name, settings in cases:
            self.assertTrue(str(raised(ValueError, Pomelo, **settings)).startswith(name), settings)

    def test_facts(self) -> None:
        dialect: Dialect = Pomelo(max_packet=200)
        wires: list[AnyWire] = [dialect.server(whole=True), dialect.client()]
        self.assertEqual([wire.ready for wire in wires], [False, False])
        self.assertEqual((dialect.name, dialect.max_frame, dialect.concurrent), ("pomelo", 204, 1))
        rules = dialect.websocket
        assert rules is not None
        self.assertEqual((rules.text, rules.whole), (False, False))
        self.assertEqual(rules.takes, {"text", "binary"})

    def test_formats(self) -> None:
        body = ProtocolBuffers(StringValue)
        wire = server(Pomelo(format=body))
        (event,) = wire.receive(data("020161" + "0a026869"), 0.0)
        assert isinstance(event, Message)
        self.assertEqual(event.format.decode(event.body).value, "hi")
        self.assertIs(wire.format, body)
        self.assertEqual(wire.reply(1, b""), data("0401"))
        self.assertEqual(server(Pomelo(format=Json())).reply(1, b""), data("04016e756c6c"))


def packets() -> st.SearchStrategy[bytes]:
    """Packets that are right, nearly right, or nothing."""
    body = st.binary(max_size=12)
    flags = st.integers(0, 255).map(lambda flag: bytes((flag,)))
    message = st.tuples(flags, body).map(b"".join)
    right = st.sampled_from([data("0001016178"), data("02016178"), data("06016178")])
    return st.one_of(
        st.sampled_from([SHAKE, ACKED, BEAT, packet(KICK), welcome(heartbeat=1, dict={"a": 1})]),
        right,
        message.map(lambda one: packet(DATA, one)),
        st.tuples(st.integers(1, 5), body).map(lambda one: packet(*one)),
        st.binary(max_size=6),
    )


class AnyBytesTests(SynchronousTestCase):
    def new(self, at_server: bool, profile: str) -> Wire:
        ours = Pomelo(profile=profile, dictionary={"a": 1})
        wire = ours.server() if at_server else ours.client()
        wire.begin(0.0)
        if isinstance(wire, PomeloClient):
            wire._asked.update(range(200))
        return wire

    @DETERMINISTIC
    @given(
        st.lists(packets(), max_size=12).map(b"".join),
        st.lists(st.integers(0, 1000), max_size=6),
        st.booleans(),
        st.sampled_from(["nano", "pitaya"]),
    )
    def test_any(self, said: bytes, places: list[int], at_server: bool, profile: str) -> None:
        """Nothing but `error`, and the same in any pieces."""
        results = []
        for pieces in ([said], cut(said, places), singly(said)):
            wire = self.new(at_server, profile)
            events = heard(wire, pieces)
            wire.tick(1.0)
            results.append(
                (
                    [(type(event), _plain(event)) for event in events],
                    str(wire.error),
                    wire.ready,
                    [unit for unit in wire.data_to_send() if unit[:1] != b"\x01"],
                )
            )
            if wire.error is not None:
                self.assertIsInstance(wire.error, BadFrame | NotLetIn)
        self.assertEqual(results[0], results[1])
        self.assertEqual(results[0], results[2])

    @DETERMINISTIC
    @given(st.binary(max_size=300))
    def test_noise(self, said: bytes) -> None:
        for wire in (server(), client(), server(Pomelo(profile="pitaya"))):
            heard(wire, [said])

    verbs = st.lists(
        st.tuples(
            st.sampled_from(["send", "request", "push"]),
            st.sampled_from(["a", "room.join", "消息", "x" * 255, ""]),
            st.binary(max_size=40),
        ),
        max_size=12,
    )

    @DETERMINISTIC
    @given(verbs, st.lists(st.integers(0, 4000), max_size=8), st.booleans(), st.booleans())
    def test_both_ends(
        self, verbs: list[Any], places: list[int], coded: bool, packed: bool
    ) -> None:
        """What one end says is what the other one hears, in order, however it is cut."""
        ours = Pomelo(
            format=Bytes(),
            dictionary={"a": 1, "room.join": 2} if coded else {},
            profile="pitaya" if packed else "nano",
            compress=packed,
        )
        near, far = server(ours), client(ours, dict={"a": 1, "room.join": 2} if coded else {})
        up, down = b"", b""
        asked: list[Any] = []
        pushed: list[Any] = []
        for verb, route, body in verbs:
            if verb == "push":
                down += near.send(route, body)
                pushed.append((route, body))
            elif verb == "send":
                up += far.send(route, body)
                asked.append((route, body, None))
            else:
                key, said = far.request(route, body)
                up += said
                asked.append((route, body, key))
        events = heard(near, cut(up, places))
        self.assertEqual([(e.route, e.body, e.token) for e in events], asked)  # type: ignore[union-attr]
        for event in events:
            if isinstance(event, Message) and event.token is not None:
                down += near.reply(event.token, event.body)
                pushed.append((event.token, event.body))
        self.assertEqual([e[:2] for e in heard(far, cut(down, places))], pushed)
        self.assertEqual((near.error, far.error), (None, None))

    def test_linear(self) -> None:
        """Many packets in a read, and one packet in many reads."""
        started = time.process_time()
        wire = server()
        self.assertEqual(wire.receive(BEAT * 250_000, 0.0), [])
        long = packet(DATA, b"\x02\x01a" + b"x" * 65533)
        self.assertEqual(len(heard(wire, singly(long))), 1)
        held = raw().server()
        heard(held, [SHAKE])
        held.receive(SHAKE, 0.0)
        for _ in range(20_000):
            held.receive(b"\0" * 10, 0.0)
        self.assertIsNone(held.error)
        self.assertLess(time.process_time() - started, 5)


def _plain(event: Event) -> Any:
    """What can be compared: a Refused only by what it says."""
    if isinstance(event, Answer):
        return event.key, event.body, str(event.refused)
    return event[:2]

"""Messages of the control connection: the spec's lines, and whatever else may be written.

Rule: any bytes parse, or raise the one documented error.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.control import (
    MAX_DEPTH,
    MAX_HEAD,
    MAX_TEXT,
    TRANSPORTS,
    Bye,
    ClosedWhy,
    Draining,
    Facts,
    GatewayEvent,
    LostEvents,
    Moved,
    PlayerFacts,
    TlsFacts,
    Want,
    check_name,
    encode,
    parse,
    parse_inline,
    read_event,
    read_flag,
    read_ids,
    read_int,
    read_name,
    read_number,
    read_text,
)
from fastway.errors import BadControl, ConnectionEnded, MessageTooLarge
from tests.support.control import FACTS, FACTS_LINE, said, told
from tests.support.core import DETERMINISTIC
from tests.support.errors import raised

SPEC_FACTS = PlayerFacts(
    7,
    "203.0.113.9",
    51123,
    "10.0.0.2",
    "wss",
    TlsFacts("TLSv1.3", "play.example", "spiffe://example/player", "ab" * 32),
    None,
    1763721600.5,
)


class MessageTests(SynchronousTestCase):
    """An object, and bytes behind it."""

    def breaks(self, message: bytes, word: str) -> None:
        """A message cannot be understood, and the error says why in a short line."""
        error = raised(BadControl, parse, message)
        self.assertIn(word, str(error))
        self.assertLess(len(str(error)), 200)
        self.assertIs(error.cause, error)
        self.assertIsInstance(error, ConnectionEnded)

    def test_object(self) -> None:
        """An object alone has no payload; one is written without spaces, as UTF-8."""
        fields = {"op": "user", "id": 1, "conn": 5, "user": "Zoë\n"}
        data = '{"op":"user","id":1,"conn":5,"user":"Zoë\\n"}'.encode()
        self.assertEqual(encode(fields), data)
        self.assertEqual(parse(data), (fields, None))

    def test_payload(self) -> None:
        """What is behind the first newline is the payload, whatever it is, and is not copied."""
        for payload in (b"", b"\n", b'{"a":\n1}', bytes(range(256)), b"\xff" * 400_000):
            data = encode({"op": "push"}, payload)
            self.assertEqual(data, b'{"op":"push"}\n' + payload)
            view = parse(data).payload
            assert view is not None
            self.assertEqual(view, payload)
            self.assertIs(view.obj, data)

    def test_size(self) -> None:
        """An object has at most 64 KiB, on both sides; what is behind it does not count."""
        fits = {"a": "x" * (MAX_HEAD - 8)}
        data = encode(fits)
        self.assertEqual(len(data), MAX_HEAD)
        for message in (data, data + b"\n", data + b"\n" + bytes(MAX_HEAD)):
            self.assertEqual(parse(message).fields, fits)
        error = raised(MessageTooLarge, encode, {"a": fits["a"] + "x"})
        self.assertEqual((error.size, error.limit), (MAX_HEAD + 1, MAX_HEAD))
        larger = said({"a": fits["a"] + "x"})
        for message in (larger, larger + b"\n", b" " * MAX_HEAD + b" {}", bytes(1 << 20)):
            self.breaks(message, "65536")

    def test_no_object(self) -> None:
        """What is no object says what it is."""
        for message, word in (
            (b"[]", "a list"),
            (b'"x"', "a text"),
            (b"1", "a number"),
            (b"1.5", "a number"),
            (b"null", "null"),
            (b"true", "a boolean"),
        ):
            self.breaks(message, word)

    def test_no_json(self) -> None:
        """What is no JSON, or more than one value, is told as that."""
        for message in (
            b"",
            b"\n{}",
            b"{",
            b"{}{}",
            b"{'a':1}",
            b'{"a":01}',
            b'{"a":"\t"}',
            b'{"a":\n1}',
            b'{"a":NaN}',
            b'{"a":Infinity}',
            b'{"a":-Infinity}',
            b"\x00",
        ):
            self.breaks(message, "JSON")

    def test_no_utf8(self) -> None:
        """What is no UTF-8 is told with its place."""
        for message in (b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc3"}'):
            self.breaks(message, "UTF-8 at byte 6")
        self.breaks("\ufeff{}".encode(), "JSON")

    def test_depth(self) -> None:
        """Nesting has a bound, however the brackets are hidden; those in texts do not count."""
        inside = MAX_DEPTH - 1
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            nested = opening * inside + b"1" + closing * inside
            parse(b'{"a":' + nested + b"}")
            for deeper in (
                b'{"a":' + opening + nested + closing + b"}",
                b'{"[]]]":"\\"]]]]]]]]]]","a":' + opening + nested + closing + b"}",
                b'{"a":' + opening * 10_000,
                opening * 10_000,
            ):
                self.breaks(deeper, "deep")
        fields = {"a": "[{" * 1000 + '"[\\', "b": [[]] * 1000, "[": {}}
        self.assertEqual(parse(said(fields)).fields, fields)

    def test_unfinished_text(self) -> None:
        """A text that does not end, with a bracket behind each of many escapes, takes no time."""
        self.breaks(b'{"' + b'\\"[' * 20_000, "JSON")
        self.breaks(b'[[[[[[[[["' + b"\\", "deep")

    def test_unencodable(self) -> None:
        """What JSON or UTF-8 has no way to write is the caller's error."""
        for value in ("\ud800", float("nan"), float("inf")):
            raised(ValueError, encode, {"a": value})

    @DETERMINISTIC
    @given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
    def test_any_bytes(self, message: bytes) -> None:
        """Any bytes parse, or raise BadControl; so does what an event is read from."""
        try:
            fields, _ = parse(message)
            read_event(fields)
        except BadControl:
            pass

    @DETERMINISTIC
    @given(
        st.dictionaries(
            st.text(max_size=5),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
                max_leaves=12,
            ),
            max_size=5,
        ),
        st.none() | st.binary(max_size=20),
    )
    def test_any_object(self, fields: dict[str, Any], payload: bytes | None) -> None:
        """What can be written is read back the same, as the standard library reads it."""
        try:
            data = encode(fields, payload)
        except ValueError:  # inf
            return
        head, newline, rest = data.partition(b"\n")
        self.assertEqual(json.loads(head), fields)
        try:
            parsed = parse(data)
        except BadControl as error:
            self.assertIn("deep", str(error))
            self.assertGreater(_depth(fields), MAX_DEPTH)
            return
        self.assertLessEqual(_depth(fields), MAX_DEPTH)
        self.assertEqual(parsed.fields, fields)
        self.assertEqual(parsed.payload, payload)
        self.assertEqual(rest if newline else None, payload)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def each(*values: Any) -> tuple[Any, ...]:
    """Values of any types."""
    return values


ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(0, 9), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


class FieldTests(SynchronousTestCase):
    """One field of an object."""

    def wrong(self, read: Any, value: Any, *args: Any) -> None:
        error = raised(BadControl, read, {"field": value}, "field", *args)
        self.assertIn("field", str(error))

    def test_int(self) -> None:
        """A whole number within bounds; true is none, and neither is 1.0."""
        for value in (0, 1, 2**32 - 1):
            self.assertEqual(read_int({"field": value}, "field"), value)
        for value in each(-1, 2**32, 10**400, 1.0, True, "1", None, [], {}):
            self.wrong(read_int, value)
        self.wrong(read_int, 0, 1)
        self.wrong(read_int, 10, 0, 9)
        raised(BadControl, read_int, {}, "field")

    def test_number(self) -> None:
        """A number of seconds: finite, not below 0, made a float."""
        for value in (0, 1, 1.5, 2**53):
            number = read_number({"field": value}, "field")
            self.assertEqual(number, value)
            self.assertIs(type(number), float)
        for value in each(
            -1, -0.5, 2**53 + 2, 10**400, float("inf"), float("nan"), True, "1", None
        ):
            self.wrong(read_number, value)

    def test_text(self) -> None:
        """A text that a log can have in a line."""
        for value in ("", "a b", "Zoë", "x" * MAX_TEXT, "é" * (MAX_TEXT // 2)):
            self.assertEqual(read_text({"field": value}, "field"), value)
        for value in ("x" * (MAX_TEXT + 1), "é" * MAX_TEXT, "a\nb", "\x1b[2J", "\x85", "\ud800"):
            self.wrong(read_text, value)
        for value in each(1, None, [], {}, True):
            self.wrong(read_text, value)
        self.assertEqual(read_text({}, "field", "x"), "x")
        raised(BadControl, read_text, {}, "field")

    def test_flag(self) -> None:
        """true or false, and nothing that Python takes for one."""
        self.assertIs(read_flag({"field": True}, "field"), True)
        self.assertIs(read_flag({"field": False}, "field", True), False)
        self.assertIs(read_flag({}, "field", True), True)
        for value in each(0, 1, "true", None, []):
            self.wrong(read_flag, value)

    def test_ids(self) -> None:
        """A list of ids."""
        self.assertEqual(read_ids({"field": []}, "field"), ())
        self.assertEqual(read_ids({"field": [1, 2**32 - 1]}, "field"), (1, 2**32 - 1))
        self.assertEqual(read_ids({}, "field", ()), ())
        for value in each(
            [0], [2**32], [-1], [True], [1.0], ["1"], [[1]], [None], 1, None, {}, "12"
        ):
            self.wrong(read_ids, value)
        raised(BadControl, read_ids, {}, "field")

    def test_names(self) -> None:
        """A name has 1 to 128 bytes of UTF-8 and no control characters."""
        for name in ("a", "room:7", "Zoë 😀", "x" * 128, "é" * 64, "😀" * 32, " "):
            self.assertEqual(check_name(name), name)
            self.assertEqual(read_name({"field": name}, "field"), name)
        for name in (
            "",
            "x" * 129,
            "é" * 65,
            "a\0",
            "\n",
            "a\tb",
            "\x7f",
            "\x80",
            "\x9f",
            "\ud800",
        ):
            raised(ValueError, check_name, name)
            self.wrong(read_name, name)
        for wrong in (None, 1, b"a", ["a"]):
            raised(TypeError, check_name, wrong)
            self.wrong(read_name, wrong)

    @DETERMINISTIC
    @given(ANY)
    def test_any(self, value: Any) -> None:
        """Any value is read, or raises BadControl."""
        for read in (read_int, read_number, read_text, read_flag, read_ids, read_name):
            try:
                read({"field": value}, "field")
            except BadControl as error:
                self.assertIn("field", str(error))


class FactsTests(SynchronousTestCase):
    """Who a player is."""

    def test_spec(self) -> None:
        """The spec's line, both ways."""
        self.assertEqual(PlayerFacts.read(parse(FACTS_LINE).fields), SPEC_FACTS)
        self.assertEqual(encode(SPEC_FACTS.fields()), FACTS_LINE)

    def test_missing(self) -> None:
        """via and tls may be missing, and are left out where there is none."""
        plain = replace(SPEC_FACTS, via="", transport="tcp+snet", tls=None, user="Zoë")
        fields = {**FACTS, "transport": "tcp+snet", "user": "Zoë"}
        del fields["via"], fields["tls"]
        self.assertEqual(PlayerFacts.read(fields), plain)
        self.assertEqual(encode(plain.fields()), said(fields))
        for one in ("version", "sni", "identity", "sha256"):
            facts = PlayerFacts.read({**FACTS, "tls": {one: "x"}})
            self.assertEqual(facts.tls, TlsFacts(**{one: "x"}))
            self.assertEqual(facts.fields()["tls"], {one: "x"})
        self.assertEqual(PlayerFacts.read({**FACTS, "tls": {}}).tls, TlsFacts())

    def test_more(self) -> None:
        """Fields of a later gateway are ignored, in tls too."""
        fields = {**FACTS, "country": "CH", "tls": {**FACTS["tls"], "alpn": ["h2"]}}
        self.assertEqual(PlayerFacts.read(fields), SPEC_FACTS)

    def test_transports(self) -> None:
        """tcp, tls, ws, wss, each with a stream or not."""
        for transport in ("tcp", "tls", "ws", "wss"):
            for name in (transport, transport + "+snet"):
                facts = PlayerFacts.read({**FACTS, "transport": name})
                self.assertEqual(facts.transport, name)
        self.assertEqual(len(TRANSPORTS), 8)

    def test_wrong(self) -> None:
        """Each field is looked at, and named."""
        wrong: dict[str, tuple[Any, ...]] = {
            "client": (None, 0, -1, 2**32, "7", 7.0, True),
            "addr": (None, 7, "a\n", ["::1"], "x" * 5000),
            "port": (None, -1, 65536, "80", 1.5),
            "via": (7, "\x1b"),
            "transport": (None, "udp", "", "TCP", "tcp+", 7, ["tcp"], {}),
            "tls": (7, "TLSv1.3", [], True),
            "user": (7, "", "x" * 129, "a\n", []),
            "since": (None, -1, "now", True, 10**400),
        }
        for name, values in wrong.items():
            for value in values:
                error = raised(BadControl, PlayerFacts.read, {**FACTS, name: value})
                self.assertIn(name, str(error))
        for name in ("client", "addr", "port", "transport", "since"):
            fields = {**FACTS}
            del fields[name]
            self.assertIn(name, str(raised(BadControl, PlayerFacts.read, fields)))
        for name in ("version", "sni", "identity", "sha256"):
            for value in (7, None, "\0"):
                error = raised(BadControl, PlayerFacts.read, {**FACTS, "tls": {name: value}})
                self.assertIn(name, str(error))

    @DETERMINISTIC
    @given(st.dictionaries(st.sampled_from([*FACTS]), ANY, max_size=4))
    def test_any(self, changed: dict[str, Any]) -> None:
        """Facts with anything in them are read, and then written back the same, or refused."""
        try:
            facts = PlayerFacts.read({**FACTS, **changed})
        except BadControl:
            return
        self.assertEqual(PlayerFacts.read(parse(encode(facts.fields())).fields), facts)


EVENTS: list[tuple[GatewayEvent, bytes]] = [
    (Facts(5, SPEC_FACTS), b'{"op":"open","conn":5,' + FACTS_LINE[1:]),
    (ClosedWhy(5, "kicked"), b'{"op":"closed","conn":5,"reason":"kicked"}'),
    (Moved(7, "2001:db8::9"), b'{"op":"moved","client":7,"addr":"2001:db8::9"}'),
    (Draining(10.5, 70.5, True), b'{"op":"drain","at":10.5,"until":70.5,"again":true}'),
    (Draining(10.0, None, False), b'{"op":"drain","at":10.0,"until":null,"again":false}'),
    (Bye(4403, "kicked"), b'{"op":"bye","code":4403,"reason":"kicked"}'),
    (LostEvents(12), b'{"op":"lost","events":12}'),
]


class EventTests(SynchronousTestCase):
    """What a gateway tells."""

    def test_events(self) -> None:
        """Each event, both ways, with fields of later gateways ignored."""
        for event, data in EVENTS:
            self.assertEqual(encode(event.fields()), data)
            fields = parse(data).fields
            self.assertEqual(read_event(fields), event)
            self.assertEqual(read_event({**fields, "more": [1]}), event)

    def test_named(self) -> None:
        """The events that can be wished for have the names of the wishes."""
        names = {event.NAME for event, _ in EVENTS}
        self.assertEqual({one.value for one in Want} - names, {"inline"})
        self.assertEqual(names - {one.value for one in Want}, {"bye", "lost"})

    def test_unknown(self) -> None:
        """An event of a later gateway is none; what is not named is wrong."""
        self.assertIsNone(read_event({"op": "rain", "conn": "x"}))
        for op in each(None, 7, [], {}, "\n"):
            raised(BadControl, read_event, {"op": op})

    def test_wrong(self) -> None:
        """An event without one of its fields, or with one of another type, is named."""
        optional = {("drain", "until"), ("drain", "again"), ("open", "via"), ("open", "tls")}
        for _, data in EVENTS:
            fields = parse(data).fields
            for name in fields.keys() - {"op"}:
                error = raised(BadControl, read_event, {**fields, name: "\n"})
                self.assertIn(name, str(error))
                if (fields["op"], name) not in optional | {("open", "user")}:
                    less = {key: value for key, value in fields.items() if key != name}
                    self.assertIn(name, str(raised(BadControl, read_event, less)))

    def test_inline(self) -> None:
        """The object behind a Connect's arguments, and that behind a Close's."""
        (opened, connect), (closed, close) = EVENTS[0], EVENTS[1]
        self.assertEqual(parse_inline(Facts, connect, 5), opened)
        self.assertEqual(parse_inline(ClosedWhy, close, 5), closed)

    def test_wrong_inline(self) -> None:
        """An object of another connection or kind, one with bytes behind, and none at all."""
        connect, close = EVENTS[0][1], EVENTS[1][1]
        raised(BadControl, parse_inline, Facts, connect, 6)
        raised(BadControl, parse_inline, ClosedWhy, close, 6)
        raised(BadControl, parse_inline, Facts, close, 5)
        raised(BadControl, parse_inline, ClosedWhy, connect, 5)
        for extra in (connect + b"\n", connect + b"x", FACTS_LINE, b"x", b"\0\0", told("rain")):
            raised(BadControl, parse_inline, Facts, extra, 5)

"""What `fastway describe` tells of an application, and that messages are as it says."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Annotated, Any, NoReturn
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from msgspec import Meta, Struct
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.__main__ import main
from fastway.app import App, BadHandler, Body, Refused, Request, Session
from fastway.app.describe import asyncapi, schema
from fastway.app.messages import answer_kind
from fastway.app.proxy import pass_on
from fastway.app.schemas import NoSchema, draft_07, settle, sort_of
from fastway.app.testing import NotAsDeclared, Player
from fastway.dialect import Dialect
from fastway.dialect.hotpot import Hotpot
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.teleport import Teleport
from fastway.dialect.teleport2 import Teleport2
from fastway.formats import Json, MessagePack, ProtocolBuffers, Text
from tests.support import described
from tests.support.described import Cat, Dog, Join, Joined, Move, Spot, StringValue, everything
from tests.support.errors import raised
from tests.support.files import scratch

DETERMINISTIC = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)

SMALL = st.integers(-(2**53), 2**53)
PETS = st.builds(Cat, st.text()) | st.builds(Dog, SMALL)
MOVES: st.SearchStrategy[Any] = st.deferred(
    lambda: st.builds(
        Move,
        to_spot=st.builds(
            Spot, st.integers(0, 99), st.integers(0, 99), st.none() | st.datetimes()
        ),
        pet=PETS,
        pair=st.tuples(SMALL, st.text()),
        any_tail=st.lists(SMALL, max_size=3).map(tuple),
        by_name=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
        raw=st.binary(),
        row=st.builds(described.Row, SMALL, st.text(), SMALL),
        box=st.builds(described.Box, SMALL),
        colour=st.sampled_from(described.Colour),
        whatever=st.none() | SMALL | st.lists(st.text(), max_size=2),
        named=st.fixed_dictionaries({}, optional={"name": st.text()}),
        pace=st.sampled_from(["walk", "run"]),
        tags=st.sets(st.text(), max_size=3),
        then=st.lists(MOVES, max_size=1),
        maybe=st.just(msgspec.UNSET) | SMALL,
    )
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 200) | st.sampled_from(["walk", "Cat", "dog", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "name", "age", "x", "y", "number", "item", "pet"]), inner
        )
    ),
    max_leaves=6,
)


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


class Documents(SynchronousTestCase):
    def test_whole(self) -> None:
        """All of a small document."""
        app = App()
        app.sends("onJoin", Join, text="Somebody came in.")
        app.refusal(409, "that name is taken", "room.join")

        @app.handler("room.join")
        async def join(session: Session, message: Join) -> Joined:
            """Come
            in.

            Everybody is told.
            """
            return Joined([])

        here = "#/channels/room.join"
        text = {"type": "string"}
        self.assertEqual(
            asyncapi(app, title="chat", version="2"),
            {
                "asyncapi": "3.0.0",
                "info": {"title": "chat", "version": "2"},
                "defaultContentType": "application/json",
                "channels": {
                    "room.join": {
                        "address": "room.join",
                        "messages": {
                            "message": {"name": "Join", "payload": ref("Join")},
                            "answer": {"name": "Joined", "payload": ref("Joined")},
                        },
                    },
                    "onJoin": {
                        "address": "onJoin",
                        "messages": {"sent": {"name": "Join", "payload": ref("Join")}},
                    },
                },
                "operations": {
                    "receive.room.join": {
                        "action": "receive",
                        "channel": {"$ref": here},
                        "summary": "Come in.",
                        "description": "Everybody is told.",
                        "messages": [{"$ref": f"{here}/messages/message"}],
                        "reply": {
                            "channel": {"$ref": here},
                            "messages": [{"$ref": f"{here}/messages/answer"}],
                        },
                        "x-refusals": [{"code": 409, "text": "that name is taken"}],
                    },
                    "send.onJoin": {
                        "action": "send",
                        "channel": {"$ref": "#/channels/onJoin"},
                        "summary": "Somebody came in.",
                        "messages": [{"$ref": "#/channels/onJoin/messages/sent"}],
                    },
                },
                "components": {
                    "schemas": {
                        "Join": {
                            "title": "Join",
                            "type": "object",
                            "properties": {"name": text},
                            "required": ["name"],
                        },
                        "Joined": {
                            "title": "Joined",
                            "type": "object",
                            "properties": {"members": {"type": "array", "items": text}},
                            "required": ["members"],
                        },
                    }
                },
            },
        )

    def test_types(self) -> None:
        """The types alone: a property for each route, both ways."""
        told = schema(everything())
        Draft7Validator.check_schema(told)
        takes, sends = (told["properties"][one]["properties"] for one in ("takes", "sends"))
        self.assertEqual(told["properties"]["takes"]["required"], list(takes))
        self.assertNotIn("@handshake", takes)
        hello = told["properties"]["handshake"]["properties"]
        self.assertEqual(hello["message"], {"$ref": "#/definitions/Ticket"})
        self.assertNotIn("handshake", schema(App())["properties"])
        join = takes["room.join"]
        self.assertEqual(join["description"], "Come in.")
        self.assertEqual(join["properties"]["message"], {"$ref": "#/definitions/Join"})
        self.assertEqual(join["properties"]["answer"], {"$ref": "#/definitions/Joined"})
        self.assertEqual(takes["room.say"]["properties"]["answer"], {"type": "null"})
        self.assertEqual(takes["file/raw"]["properties"]["message"]["description"][:5], "bytes")
        self.assertEqual(
            takes["proto"]["properties"]["answer"]["description"],
            "google.protobuf.StringValue of google/protobuf/wrappers.proto",
        )
        self.assertEqual(sends["ask.name"]["properties"]["answer"], {"$ref": "#/definitions/Join"})
        self.assertLessEqual({"Cat", "Dog", "Move", "Spot", "Ticket"}, set(told["definitions"]))

    def test_kinds(self) -> None:
        """What is any message, none, bytes, or defined in a .proto says so."""
        told = asyncapi(everything())
        messages = {route: one["messages"] for route, one in told["channels"].items()}
        self.assertEqual(messages["any"], {"message": {"payload": {}}, "answer": {"payload": {}}})
        self.assertEqual(messages["room.later"]["message"]["payload"], {"type": "null"})
        self.assertEqual(messages["room.later"]["answer"]["payload"], {"type": "integer"})
        self.assertEqual(messages["onTick"]["sent"]["payload"], {"type": "null"})
        raw = {"contentType": "application/octet-stream", "payload": {}}
        self.assertEqual(messages["file/raw"], {"message": raw, "answer": raw})
        passes = App()

        @passes.handler("pass")
        def same(body: Body) -> Body:
            return body

        self.assertEqual(asyncapi(passes)["channels"]["pass"]["messages"], messages["file/raw"])
        proto = messages["proto"]["message"]
        self.assertEqual(proto["contentType"], "application/protobuf")
        self.assertEqual(proto["payload"]["schemaFormat"], "application/vnd.google.protobuf")
        self.assertEqual(
            proto["payload"]["schema"],
            'syntax = "proto3";\nimport "google/protobuf/wrappers.proto";\n'
            "// The message is google.protobuf.StringValue.\n",
        )

    def test_thrift(self) -> None:
        """So does what `thrift --gen py` has made."""
        pair = type("Pair", (), {"thrift_spec": (), "__module__": "math.ttypes"})
        app = App()
        app.sends("onPair", pair)
        self.assertEqual(
            asyncapi(app)["channels"]["onPair"]["messages"]["sent"],
            {
                "name": "Pair",
                "contentType": "application/vnd.apache.thrift.binary",
                "payload": {"description": "math.ttypes.Pair, as its .thrift defines it"},
            },
        )

    def test_references(self) -> None:
        """Whatever a route is called, what refers to it finds it."""
        app = App()
        for route in ("a/b~c", "a b%20", "ä.#?", "@x"):
            app.route(route, lambda message: message)
        told = asyncapi(app)
        for operation in told["operations"].values():
            for found in (operation["channel"], *operation["messages"]):
                at: Any = told
                for part in found["$ref"].removeprefix("#/").split("/"):
                    at = at[unquote(part).replace("~1", "/").replace("~0", "~")]
                self.assertTrue(at)

    def test_handshake(self) -> None:
        """What a peer says of itself, and is told; who may refuse is told of it too."""
        told = asyncapi(everything())
        hello = told["channels"]["@handshake"]
        self.assertIsNone(hello["address"])
        self.assertEqual(hello["messages"]["message"]["payload"], ref("Ticket"))
        self.assertEqual(hello["messages"]["answer"]["payload"]["type"], "object")
        refusals = {
            name: [one["code"] for one in operation.get("x-refusals", ())]
            for name, operation in told["operations"].items()
        }
        self.assertEqual(refusals["receive.@handshake"], [429])
        self.assertEqual(refusals["receive.room.say"], [403, 429])
        self.assertEqual(refusals["send.onJoin"], [])

    def test_others(self) -> None:
        """Who takes all other routes is one channel, of an address that may be anything; types do
        not know it, nor does a dialect name it."""
        app = App()
        app.refusal(9, "not there", "@unknown")
        app.route("a.b", lambda: None)

        @app.unknown
        def others(session: Session, message: Join) -> Joined | None:
            """Whatever else."""

        for dialect in (None, Pomelo(), Teleport(), Hotpot()):
            told = asyncapi(app, dialect)
            self.assertEqual(next(iter(told["channels"])), "@unknown")
            channel = told["channels"]["@unknown"]
            self.assertEqual(
                (channel["address"], list(channel["parameters"])), ("{route}", ["route"])
            )
            self.assertEqual(channel["messages"]["message"]["payload"], ref("Join"))
            operation = told["operations"]["receive.@unknown"]
            self.assertEqual(
                (operation["action"], operation["summary"]), ("receive", "Whatever else.")
            )
            self.assertEqual(operation["x-refusals"], [{"code": 9, "text": "not there"}])
            self.assertNotIn("x-left-out", told)
            types = schema(app, dialect)["properties"]
            self.assertEqual(len(types["takes"]["properties"]), 1)
            self.assertNotIn("handshake", types)
        self.assertNotIn("@unknown", asyncapi(everything())["channels"])

    def test_passed_on(self) -> None:
        """What is passed on is bytes, either way; who takes a request alone may read anything."""
        app = App()
        pass_on(app, lambda request: None)  # type: ignore[arg-type, return-value]

        @app.handler("read")
        def read(request: Request) -> int:
            return len(request.decode(str))

        told = asyncapi(app)["channels"]
        raw = {"contentType": "application/octet-stream", "payload": {}}
        self.assertEqual(told["@unknown"]["messages"], {"message": raw, "answer": raw})
        self.assertEqual(told["read"]["messages"]["message"], {"payload": {}})

    def test_included(self) -> None:
        """What other Apps and Components declare: routes with their prefix, pushes as they are."""
        part = App()
        part.sends("onPart", int)
        part.refusal(1, "all of them")
        part.refusal(2, "one", "a")
        part.route("a", lambda: None)
        part.route("b", lambda: None)
        app = App()
        app.route("c", lambda: None)
        app.include(part, "part")
        app.include(described.Chess(), "board")
        self.assertEqual(set(app.sent), {"onPart", "onChess"})
        told = asyncapi(app)["operations"]
        codes = {
            name: [one["code"] for one in told[f"receive.{name}"].get("x-refusals", ())]
            for name in ("part.a", "part.b", "board.open", "c")
        }
        self.assertEqual(codes, {"part.a": [1, 2], "part.b": [1], "board.open": [], "c": []})


class Dialects(SynchronousTestCase):
    def told(self, dialect: Dialect) -> dict[str, Any]:
        told = asyncapi(everything(), dialect)
        types = schema(everything(), dialect)
        names = {one["address"] for one in told["channels"].values() if one["address"]}
        known = [*types["properties"]["takes"]["required"]]
        known += types["properties"]["sends"]["required"]
        self.assertLessEqual(set(known), names)
        return told

    def test_pomelo(self) -> None:
        """Codes of the dictionary, refusals that are answers, and no questions to clients."""
        codes = {"Room.Join": 3, "onJoin": 1, "onNothing": 2}
        told = self.told(
            Pomelo(refusals="reply", dictionary=codes, names={"room.join": "Room.Join"})
        )
        self.assertEqual(
            told["x-dialect"], {"name": "pomelo", "profile": "nano", "refusals": "reply"}
        )
        join = told["channels"]["room.join"]
        self.assertEqual((join["address"], join["x-code"]), ("Room.Join", 3))
        self.assertEqual(told["channels"]["onJoin"]["x-code"], 1)
        self.assertEqual(join["messages"]["refused"]["payload"], ref("refused"))
        refused = told["components"]["schemas"]["refused"]
        self.assertEqual(refused["properties"]["code"], {"type": "integer"})
        replies = told["operations"]["receive.room.join"]["reply"]["messages"]
        self.assertEqual([one["$ref"][-7:] for one in replies], ["/answer", "refused"])
        self.assertEqual(
            told["x-left-out"],
            {
                "ask.name": "a server cannot ask its clients in pomelo",
                "proto": "StringValue is no type of messages",
            },
        )
        silent = self.told(Pomelo())
        self.assertNotIn("refused", silent["components"]["schemas"])
        pitaya = self.told(Pomelo(profile="pitaya"))["components"]["schemas"]["refused"]
        self.assertEqual(pitaya["properties"]["code"], {"type": "string"})

    def test_teleport(self) -> None:
        """Names of services, and questions both ways."""
        told = self.told(Teleport(mapper="rpc", auth=True, pipe="g"))
        self.assertEqual(
            told["x-dialect"], {"name": "teleport", "proto": "raw", "codec": "j", "pipe": "g"}
        )
        self.assertEqual(told["channels"]["room.join"]["address"], "Room.Join")
        self.assertIn("reply", told["operations"]["send.ask.name"])
        self.assertEqual(list(told["x-left-out"]), ["proto"])
        older = self.told(Teleport2())
        self.assertEqual(older["x-dialect"], {"name": "teleport2", "header": "j", "codec": "j"})
        self.assertEqual(older["channels"]["room.join"]["address"], "/room/join")
        self.assertEqual(list(older["x-left-out"]), ["@handshake", "proto"])

    def test_hotpot(self) -> None:
        """An answer is a message of its own, by the name of its type."""
        told = self.told(Hotpot(length_bytes=4))
        self.assertEqual(
            told["x-dialect"], {"name": "hotpot", "format": "json", "length_bytes": 4}
        )
        self.assertEqual(told["channels"]["room.join"]["address"], "Join")
        self.assertEqual(told["channels"]["@Joined"]["address"], "Joined")
        reply = told["operations"]["receive.room.join"]["reply"]
        self.assertEqual(reply["channel"], {"$ref": "#/channels/@Joined"})
        later = told["operations"]["receive.room.later"]["reply"]  # int: by the route's name
        self.assertEqual(later["channel"], {"$ref": "#/channels/room.later"})
        self.assertEqual(list(told["x-left-out"]), ["@handshake", "proto", "ask.name"])

    def test_formats(self) -> None:
        """What bodies are written in; types that the format does not make are left out."""
        for form, content in (
            (None, "application/json"),
            (MessagePack(Any), "application/vnd.msgpack"),
            (ProtocolBuffers(StringValue), "application/protobuf"),
            (Text(), "text/plain"),
        ):
            told = asyncapi(everything(), Pomelo(format=form))
            self.assertEqual(told["defaultContentType"], content)
            hello = told["channels"]["@handshake"]["messages"]["message"]
            self.assertEqual(hello.get("contentType", content), "application/json")
        told = asyncapi(everything(), Pomelo(format=ProtocolBuffers(StringValue)))
        self.assertIn("proto", told["channels"])
        self.assertIn("room.join", told["x-left-out"])
        self.assertNotIn("Join", told["components"]["schemas"])

    def test_foreign(self) -> None:
        """A dialect of somebody's own, of which nothing more is known, and a format of his."""

        class Form:
            def encode(self, message: Any, /) -> bytes:
                return b""

            def decode(self, data: bytes, into: Any = None, /) -> Any:
                return None

        class Plain:
            def __init__(self) -> None:
                self._pomelo = Pomelo(format=Form())

            def __getattr__(self, name: str) -> Any:
                if name == "traits":
                    raise AttributeError(name)
                return getattr(self._pomelo, name)

        plain: Any = Plain()
        told = asyncapi(everything(), plain)
        self.assertEqual(told["x-dialect"], {"name": "pomelo"})
        self.assertNotIn("defaultContentType", told)

    def test_clash(self) -> None:
        """Two routes of one name are refused as by a port."""
        app = App()
        app.route("a.join", lambda: None)
        app.route("b.join", lambda: None)
        error = raised(BadHandler, asyncapi, app, Hotpot())
        self.assertIn("a.join and b.join are both Join in hotpot", str(error))


class Complex:
    """A class that no format knows."""


class Other(Struct):
    name: int


class Schemas(SynchronousTestCase):
    """JSON Schema of types, beside validators that others wrote."""

    def setUp(self) -> None:
        self.validator = Draft7Validator(self.of(Move))

    def of(self, kind: Any) -> dict[str, Any]:
        sort = sort_of("here", kind)
        definitions = settle([sort], "#/definitions/")
        return {**sort.schema, "definitions": definitions}

    def test_refused(self) -> None:
        """A type without a schema is one line that names its route, the handler, and the mend."""

        def takes(message: list[Complex]) -> None: ...

        def answers() -> Complex: ...  # type: ignore[empty-body]

        def both(message: Join | Other) -> None: ...

        for handler, place in (
            (takes, "room.x: Schemas.test_refused.<locals>.takes takes what has no schema: type "),
            (answers, "answers answers what has no schema: type "),
            (
                both,
                "both takes what has no schema: If a type union contains multiple Struct types, ",
            ),
        ):
            app = App()
            app.route("room.x", handler)
            error = str(raised(NoSchema, asyncapi, app))
            self.assertIn(place, error)
            self.assertIn("annotate Any", error)
            self.assertNotIn("\n", error)
        for kind, answer in ((Complex, None), (int, Complex)):
            app = App()
            app.sends("onX", kind, answer=answer)
            self.assertIn("onX: what is ", str(raised(NoSchema, schema, app)))

    def test_same_names(self) -> None:
        """Two classes of one name are told apart; so are they in what refers to them."""
        app = App()
        inner = msgspec.defstruct("Join", [("number", int)], module="elsewhere")
        app.sends("a", Join)
        app.sends("b", inner)
        told = asyncapi(app)
        names = [told["channels"][one]["messages"]["sent"]["payload"]["$ref"] for one in "ab"]
        self.assertEqual(len(set(names)), 2)
        for name in names:
            self.assertIn(name.rpartition("/")[2], told["components"]["schemas"])

    @settings(DETERMINISTIC, max_examples=25)
    @given(MOVES)
    def test_encoded(self, message: Any) -> None:
        """What is encoded is as its schema says, and without one of its fields it is not."""
        validator = self.validator
        sent = json.loads(Json(Any).encode(message))
        self.assertEqual([one.message for one in validator.iter_errors(sent)], [])
        for name in ("toSpot", "pet", "raw"):
            less = {key: value for key, value in sent.items() if key != name}
            self.assertFalse(validator.is_valid(less))
        self.assertFalse(validator.is_valid({**sent, "pair": [1, "two", 3]}))
        self.assertFalse(validator.is_valid({**sent, "row": ["1", "two"]}))
        self.assertFalse(validator.is_valid({**sent, "toSpot": {"x": 100, "y": 0}}))
        self.assertFalse(validator.is_valid({**sent, "pet": {"type": "cow", "name": ""}}))

    @DETERMINISTIC
    @given(
        VALUES,
        st.sampled_from(
            [Cat | Dog, Spot, described.Row, described.Box[int], tuple[int, str], list[Spot], Move]
        ),
    )
    def test_drafts(self, value: Any, kind: Any) -> None:
        """In the words of draft 07 a schema says what msgspec's says in those of 2020-12; and what
        it lets pass is decoded."""
        [newer], found = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
        older = self.of(kind)
        Draft7Validator.check_schema(older)
        fits = Draft7Validator(older).is_valid(value)
        self.assertEqual(fits, Draft202012Validator({**newer, "$defs": found}).is_valid(value))
        if fits:
            Json(kind).decode(json.dumps(value).encode())

    def test_words(self) -> None:
        """Only words of schemas are changed: fields and values may be called so too."""
        told = {
            "description": "one\n\n    two",
            "properties": {
                "prefixItems": {"prefixItems": [{"type": "null"}], "items": False},
                "discriminator": {"anyOf": [{"discriminator": {}, "type": "null"}]},
                "description": {"default": {"prefixItems": 1}},
            },
            "additionalProperties": {"items": {"prefixItems": [True]}},
        }
        self.assertEqual(
            draft_07(told),
            {
                "description": "one\n\ntwo",
                "properties": {
                    "prefixItems": {"items": [{"type": "null"}], "additionalItems": False},
                    "discriminator": {"anyOf": [{"type": "null"}]},
                    "description": {"default": {"prefixItems": 1}},
                },
                "additionalProperties": {"items": {"items": [True]}},
            },
        )

    def test_answers(self) -> None:
        """What a return annotation says."""
        for hint, kind in (
            (int, int),
            (type(None), None),
            (NoReturn, None),
            (Deferred, Any),
            (Deferred[int], int),
            (Deferred[None], None),
            (int | None, int | None),
            (object, object),
        ):
            self.assertEqual(answer_kind({"return": hint}), kind)
        self.assertIs(answer_kind({}), Any)


class Declared(SynchronousTestCase):
    """What is declared, and annotated, also holds."""

    def test_declared_twice(self) -> None:
        """The same again is nothing new, another type is a mistake."""
        app = App()
        app.sends("on", int)
        app.sends("on", int)
        self.assertIn("on is declared", str(raised(BadHandler, app.sends, "on", str)))
        raised(BadHandler, app.sends, "", int)

    def test_player(self) -> None:
        """A Player finds what is sent and is not as declared; nobody has got it then."""
        app = App(clock=Clock())
        app.sends("onJoin", Join)
        app.sends("onTick", None)
        app.sends("onText", bytes)
        app.sends("ask", int, answer=int)
        player = Player(app)
        player.answers["ask"] = lambda number: number
        send = player.session.send
        send("onJoin", Join("ann"))
        send("onJoin", {"name": "bob", "more": 1})
        send("onTick")
        send("onText", b'"x"')
        send("undeclared", [1])
        self.assertEqual(len(player.heard), 5)
        error = raised(NotAsDeclared, send, "onJoin", {"nam": "x"})
        self.assertIn(
            "onJoin is declared as Join, and this is none: ValidationError: ", str(error)
        )
        app.group("all").add(player.session)
        error = raised(NotAsDeclared, app.group("all").send, "onTick", 1)
        self.assertIn("it has no message", str(error))
        self.assertEqual(len(player.heard), 5)
        self.assertEqual(self.successResultOf(player.session.request("ask", 7, into=int)), 7)
        raised(NotAsDeclared, player.session.request, "ask", "x")

    def test_greeting(self) -> None:
        """A handshake gets the type that it asks for, or its peer is refused."""
        app = everything()
        app.use_clock(Clock())
        self.assertEqual(Player(app, {"token": "t", "more": 1}).welcome, {"number": 7})
        for user in (None, {"token": 1}, "t"):
            with pytest.raises(Refused, match="400: bad message"):
                Player(app, user)
        with pytest.raises(Refused, match="401"):
            Player(app, {"token": "x"})

    def test_bad_greeting(self) -> None:
        """A type that no peer can be of is refused when the hook is registered."""
        app = App()

        def hello(session: Session, user: Complex) -> None: ...

        self.assertIn("hello: Complex is no type", str(raised(BadHandler, app.handshake, hello)))
        for call in (lambda session, user: None, lambda *both: None):
            app.handshake(call)

    def test_bounds(self) -> None:
        """Bounds of a parameter hold as those of a field, and Go's null is a list still."""
        app = App(clock=Clock())

        @app.handler("few")
        def few(
            request: Annotated[Request, "which"],
            numbers: Annotated[list[int], Meta(max_length=2)],
        ) -> int:
            return len(numbers)

        @app.handler("raw")
        def raw(data: Annotated[bytes, "as it is"]) -> int:
            return len(data)

        player = Player(app)
        self.assertEqual(player.request("few", [1, 2]), 2)
        self.assertEqual(player.request("few", None), 0)
        self.assertEqual(player.request("raw", [1, 2]), 5)
        with pytest.raises(Refused, match="400"):
            player.request("few", [1, 2, 3])
        told = asyncapi(app)["channels"]["few"]["messages"]["message"]["payload"]
        self.assertEqual(told, {"type": "array", "items": {"type": "integer"}, "maxItems": 2})


GAME = """
from fastway.app import App
from fastway.dialect.hotpot import Hotpot

hotpot = Hotpot()

def make():
    app = App()
    app.sends("ask", str, answer=str)
    app.route("room.join", lambda name: name)
    return app

def broken():
    return 1 / 0

def wants(what): ...

class Thing: ...

def takes(thing: Thing): ...

app = make()
bad = App()
bad.route("thing.take", takes)
"""


class Commands(SynchronousTestCase):
    """`fastway describe`."""

    def setUp(self) -> None:
        self.directory = scratch(self)
        with open(os.path.join(self.directory, "describe_game.py"), "w", encoding="utf-8") as file:
            file.write(GAME)
        self.patch(sys, "path", [self.directory, "", *sys.path])
        self.addCleanup(sys.modules.pop, "describe_game", None)

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        out, error = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(error):
            status = main(["describe", *arguments])
        return status, out.getvalue(), error.getvalue()

    def test_output(self) -> None:
        """To standard output, and nothing else there."""
        status, out, error = self.run_command("describe_game:app", "--api-version=3")
        self.assertEqual((status, error), (0, ""))
        told = json.loads(out)
        self.assertEqual(told["info"], {"title": "describe_game:app", "version": "3"})
        self.assertEqual(list(told["operations"]), ["receive.room.join", "send.ask"])
        status, out, error = self.run_command("describe_game:make()", "--types")
        self.assertEqual((status, error), (0, ""))
        self.assertEqual(json.loads(out)["title"], "Routes")

    def test_file(self) -> None:
        """To a file; what a dialect cannot have is said."""
        path = os.path.join(self.directory, "x.json")
        for name in ("hotpot", "describe_game:hotpot"):
            status, out, error = self.run_command("describe_game:app", "-d", name, "-o", path)
            self.assertEqual((status, out), (0, ""))
            self.assertEqual(
                error,
                "ask is left out: a server cannot ask its clients in hotpot\n"
                f"{path} has messages: 1 taken, 0 sent\n",
            )
            with open(path, encoding="utf-8") as file:
                self.assertEqual(json.load(file)["x-dialect"]["name"], "hotpot")

    def test_mistakes(self) -> None:
        """Each is one line, and status 1."""
        for arguments, problem in (
            ((), "APP: give MODULE:APP"),
            (("describe_game",), "'describe_game' is not MODULE:NAME"),
            (("describe_nobody:app",), "there is no module 'describe_nobody' here"),
            (("describe_game:hotpot",), "describe_game:hotpot is no App of fastway.app"),
            (
                ("describe_game:make",),
                "no App of fastway.app; what it makes is ",
            ),
            (("describe_game:broken()",), "cannot be made: ZeroDivisionError: "),
            (("describe_game:wants()",), "cannot be made: TypeError: "),
            (("describe_game:hotpot()",), "cannot be made: TypeError: "),
            (("describe_game:bad",), "thing.take: takes takes what has no schema: type <class "),
            (("describe_game:app", "-d", "morse"), "--dialect: no dialect 'morse'; there is "),
            (("describe_game:app", "-o", self.directory), "Is a directory"),
        ):
            with self.subTest(arguments):
                status, out, error = self.run_command(*arguments)
                self.assertEqual((status, out, error.count("\n")), (1, "", 1))
                self.assertTrue(error.startswith("fastway describe: "), error)
                self.assertIn(problem, error)

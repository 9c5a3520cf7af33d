"""An application with a bit of everything to describe, and what is needed to look at that.

Rule: types stand at the top of a module, as those of applications do.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import importlib
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar

import msgspec
from msgspec import Meta, Struct
from twisted.internet.defer import Deferred, succeed

from fastway.app import App, Component, Refused, Session, handles

StringValue: Any = importlib.import_module("google.protobuf.wrappers_pb2").StringValue

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Cat(Struct, tag=True):
    """A cat.

    It meows.
    """

    name: str


class Dog(Struct, tag="dog"):
    age: int = 3


@dataclasses.dataclass
class Spot:
    x: Annotated[int, Meta(ge=0, lt=100, description="To the east.")]
    y: Annotated[int, Meta(ge=0, lt=100)]
    seen: datetime.datetime | None = None


class Row(Struct, array_like=True):
    number: int
    word: str
    more: int = 1


class Box(Struct, Generic[T]):
    item: T


class Named(TypedDict, total=False):
    name: str


class Move(Struct, rename="camel", forbid_unknown_fields=True):
    to_spot: Spot
    pet: Cat | Dog
    pair: tuple[int, str]
    any_tail: tuple[int, ...]
    by_name: dict[str, float]
    raw: bytes
    row: Row
    box: Box[int]
    colour: Colour
    whatever: Any
    named: Named
    pace: Literal["walk", "run"] = "walk"
    tags: set[str] = set()
    then: list[Move] = []
    maybe: int | msgspec.UnsetType = msgspec.UNSET


class Join(Struct):
    name: str


class Joined(Struct):
    members: list[str]


class Ticket(Struct):
    token: str


class Chess(Component):
    name = "chess"
    sends = {"onChess": Spot}

    @handles("open")
    def open(self) -> None: ...


def everything() -> App:
    """A handler for each kind of annotation."""
    app = App()
    app.sends("onJoin", Join, text="Somebody came in.")
    app.sends("onTick", None)
    app.sends("ask.name", str, answer=Join)
    app.refusal(403, "join first", "room.say")
    app.refusal(429, "too often")

    @app.handshake
    def hello(session: Session, user: Ticket) -> dict[str, int]:
        if user.token != "t":
            raise Refused(401)
        return {"number": 7}

    @app.handler("room.join")
    async def join(session: Session, message: Join) -> Joined:
        """Come
        in.

        Everybody is told.
        """
        app.group("room").add(session)
        app.group("room").send("onJoin", message)
        return Joined([message.name])

    @app.handler("room.say")
    def say(session: Session, text: str) -> None: ...

    @app.handler("room.later")
    def later() -> Deferred[int]:
        return succeed(1)

    @app.handler("hero.move")
    def move(message: Move) -> Cat | Dog | None:
        return None

    @app.handler("file/raw")
    def raw(data: bytes) -> bytes:
        return data

    @app.handler("any")
    def whatever(message):  # type: ignore[no-untyped-def]
        return message

    @app.handler("proto")
    def proto(message: StringValue) -> StringValue:
        return message

    app.include(Chess())
    return app

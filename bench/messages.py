"""What it costs to encode and decode messages: typed, plain, and beside Protocol Buffers and Go.

    python -m bench.messages [--runs N] [--seconds S] [--build DIRECTORY]

A line of a chat, and a room of 20 players. Typed messages go through `fastway.formats` as a
handler's do, with its bounds on depth and keys; `json` is Python's own, which makes dictionaries,
and of these classes by hand. Go is measured where there is one (`messages.go`).

Law: figures are compared within one run only. Who takes part takes turns, all on one core; CPU is
all that its process spends.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct

from bench.gateways import FIRST_CORE, ROOT, Failure, run, say_how
from bench.table import Case, Figure, Result, Table
from fastway.formats import Json, MessagePack, ProtocolBuffers

BASE = "json, dict"
FIGURES = (
    Figure("encode, µs", "encode"),
    Figure("decode, µs", "decode"),
    Figure("bytes", "bytes"),
)
CASES = [Case("line", "line", FIGURES), Case("room of 20", "room", FIGURES)]
ROUND = 50
"""Calls between two looks at the clock."""


class Line(Struct):
    name: str
    content: str


class Player(Struct):
    id: int
    name: str
    x: float
    y: float
    items: list[int]


class Room(Struct):
    name: str
    players: list[Player]


@dataclass
class PlainLine:
    name: str
    content: str


@dataclass
class PlainPlayer:
    id: int
    name: str
    x: float
    y: float
    items: list[int]


@dataclass
class PlainRoom:
    name: str
    players: list[PlainPlayer]


class Way(NamedTuple):
    """How a message becomes bytes and back."""

    message: Any
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def classes() -> tuple[Any, Any, Any]:
    """Protocol Buffers' classes of the same messages, without a compiler."""
    descriptor = importlib.import_module("google.protobuf.descriptor_pb2")
    file = descriptor.FileDescriptorProto(
        name="bench/messages.proto", package="bench", syntax="proto3"
    )
    text, number, real, inner = 9, 3, 1, 11  # the types of descriptor.proto
    for name, fields in (
        ("Line", [("name", text, 1), ("content", text, 1)]),
        (
            "Player",
            [
                ("id", number, 1),
                ("name", text, 1),
                ("x", real, 1),
                ("y", real, 1),
                ("items", number, 3),
            ],
        ),
        ("Room", [("name", text, 1), ("players", inner, 3)]),
    ):
        kind = file.message_type.add(name=name)
        for place, (field, what, label) in enumerate(fields, 1):
            made = kind.field.add(name=field, number=place, type=what, label=label)
            if what == inner:
                made.type_name = ".bench.Player"
    pool = importlib.import_module("google.protobuf.descriptor_pool").DescriptorPool()
    pool.Add(file)
    make = importlib.import_module("google.protobuf.message_factory").GetMessageClass
    line, player, room = (
        make(pool.FindMessageTypeByName(f"bench.{name}")) for name in ("Line", "Player", "Room")
    )
    return line, player, room


def line_ways() -> dict[str, Way]:
    values = {
        "name": "ann",
        "content": "hello, everybody: who comes along to the old mill tonight?",
    }
    proto = classes()[0]

    def by_hand(data: bytes) -> PlainLine:
        told = json.loads(data)
        return PlainLine(told["name"], told["content"])

    return ways(Line(**values), PlainLine(**values), by_hand, values, proto(**values))


def room_ways() -> dict[str, Way]:
    players: list[dict[str, Any]] = [
        {
            "id": 1000 + i,
            "name": f"player {i}",
            "x": i + 0.25,
            "y": 100 - i / 2,
            "items": [i * 10 + j for j in range(5)],
        }
        for i in range(20)
    ]
    name = "the old mill"
    _, player, room = classes()

    def by_hand(data: bytes) -> PlainRoom:
        told = json.loads(data)
        inner = [
            PlainPlayer(one["id"], one["name"], one["x"], one["y"], one["items"])
            for one in told["players"]
        ]
        return PlainRoom(told["name"], inner)

    return ways(
        Room(name, [Player(**one) for one in players]),
        PlainRoom(name, [PlainPlayer(**one) for one in players]),
        by_hand,
        {"name": name, "players": players},
        room(name=name, players=[player(**one) for one in players]),
    )


def ways(
    typed: Any, plain: Any, by_hand: Callable[[bytes], Any], values: Any, proto: Any
) -> dict[str, Way]:
    """All ways in Python, of one message."""
    kind = type(typed)
    text, packed = Json(Any), MessagePack(Any)
    buffers: ProtocolBuffers[Any] = ProtocolBuffers(type(proto))

    def dump(message: Any) -> bytes:
        return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()

    return {
        "typed, JSON": Way(typed, text.encode, lambda data: text.decode(data, kind)),
        "typed, MessagePack": Way(typed, packed.encode, lambda data: packed.decode(data, kind)),
        BASE: Way(values, dump, json.loads),
        "json, dataclasses": Way(plain, lambda one: dump(asdict(one)), by_hand),
        "Protocol Buffers": Way(proto, buffers.encode, buffers.decode),
    }


WAYS = {"line": line_ways, "room": room_ways}
GO = ("Go, JSON", "Go, generated binary")


def each(seconds: float, call: Callable[[], object]) -> float:
    """Microseconds of CPU that a call takes."""
    count, begun = 0, time.process_time()
    while (spent := time.process_time() - begun) < seconds:
        for _ in range(ROUND):
            call()
        count += ROUND
    return spent / max(1, count) * 1e6


def measure(way: Way, seconds: float) -> Result:
    """Raises Failure: what is decoded is not what was encoded."""
    data = way.encode(way.message)
    if way.decode(data) != way.message:
        raise Failure(f"{way.message!r} comes back otherwise")
    return {
        "encode": each(seconds, lambda: way.encode(way.message)),
        "decode": each(seconds, lambda: way.decode(data)),
        "bytes": len(data),
    }


def build_go(directory: Path) -> Path | None:
    """The program of messages.go; None: there is no Go here. Raises Failure: it does not build."""
    go = shutil.which("go")
    if go is None:
        return None
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "messages"
    done = subprocess.run(
        [go, "build", "-o", str(program), str(ROOT / "bench" / "messages.go")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GO111MODULE": "off", "GOFLAGS": ""},
    )
    if done.returncode:
        raise Failure(f"messages.go: {done.stderr.strip()}")
    return program


def measure_go(program: Path, load: str, seconds: float) -> dict[str, Result]:
    """What Go says of one message."""
    done = subprocess.run(
        [str(program), load, str(max(1, int(seconds * 1000)))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOMAXPROCS": "1"},
    )
    if done.returncode:
        raise Failure(f"messages.go: {done.stderr.strip()[:200]}")
    results = {}
    for row in done.stdout.splitlines():
        name, encode, decode, size = row.split("\t")
        results[name] = {
            "encode": float(encode) / 1000,
            "decode": float(decode) / 1000,
            "bytes": int(size),
        }
    return results


def compare(arguments: argparse.Namespace) -> None:
    """Measure, and print the table."""
    os.sched_setaffinity(0, {FIRST_CORE})
    program = build_go(arguments.build)
    made = {case.load: WAYS[case.load]() for case in CASES}
    table = Table(CASES, [*made["line"], *(GO if program else ())], BASE)
    say_how(arguments, "for each figure")
    for _ in range(arguments.runs):
        for case in CASES:
            for name, way in made[case.load].items():
                table.results[case.name, name].append(measure(way, arguments.seconds))
            if program:
                for name, result in measure_go(program, case.load, arguments.seconds).items():
                    table.results[case.name, name].append(result)
    for line in table.lines():
        print(line)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--runs", type=int, default=5)
    add("--seconds", type=float, default=0.2)
    add("--build", type=Path, default=ROOT / "build" / "bench-messages")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    run(lambda: compare(arguments))


if __name__ == "__main__":
    main()

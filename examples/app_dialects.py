"""One application, three dialects: clients of nano, of teleport and of hotpot in one chat room.

python examples/app_dialects.py
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from twisted.internet.defer import DeferredQueue
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react

from fastway.app import App, Session
from fastway.dialect import Dialect
from fastway.dialect.hotpot import Hotpot
from fastway.dialect.pomelo import Pomelo
from fastway.dialect.teleport import Teleport

DIALECTS: dict[str, Dialect] = {"Ann": Pomelo(), "Bob": Teleport(), "Eve": Hotpot()}


class Join(Struct):
    name: str


class Joined(Struct):
    members: list[str]


class Line(Struct):
    name: str
    content: str


def chat() -> App:
    """The server: nano asks "room.join", teleport CALLs /room/join, hotpot says Join."""
    app = App()
    room = app.group("lobby")
    app.sends("on.line", Line)  # `fastway describe -d hotpot 'app_dialects:chat()'` says OnLine

    @app.handler("room.join")
    def join(session: Session, message: Join) -> Joined:
        session.state = message.name
        room.add(session)
        return Joined([member.state for member in room])

    @app.handler("room.message")
    def say(session: Session, text: str) -> None:
        if session in room:
            room.send("on.line", Line(session.state, text))

    return app


async def visit(
    reactor: Any, name: str, dialect: Dialect, port: int, heard: DeferredQueue[str]
) -> tuple[Session, Joined]:
    """A client of one of them."""
    app = App()

    @app.handler("on.line")
    def said(line: Line) -> None:
        heard.put(f"{name} hears by {dialect.name}: <{line.name}> {line.content}")

    where = clientFromString(reactor, f"tcp:127.0.0.1:{port}")
    session = await app.connect(where, dialect)
    if dialect.name == "hotpot":  # it knows no requests: what is answered is a message
        session.send("room.join", Join(name))
        return session, await session.next("Joined", into=Joined)
    return session, await session.request("room.join", Join(name), into=Joined)


async def main(reactor: Any) -> None:
    app = chat()
    heard: DeferredQueue[str] = DeferredQueue()
    guests: list[Session] = []
    for name, dialect in DIALECTS.items():
        port = await app.listen("tcp:0:interface=127.0.0.1", dialect)
        session, joined = await visit(reactor, name, dialect, port.getHost().port, heard)
        print(f"{name} joined: {', '.join(joined.members)}")
        guests.append(session)
    guests[1].send("room.message", "hello, everybody")
    for line in sorted([await heard.get() for _ in guests]):
        print(line)
    for session in guests:
        session.close()
        await session.when_closed()
    await app.drain()


if __name__ == "__main__":
    react(main)

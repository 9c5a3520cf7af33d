"""A chat room of `fastway.app`: one application, and clients over TCP and over WebSocket in it.

python examples/app_chat.py
cd examples && fastway describe 'app_chat:chat()'    # its messages, for other languages
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from twisted.internet.defer import DeferredQueue
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react

from fastway.app import App, Refused, Session
from fastway.dialect.pomelo import Pomelo

POMELO = Pomelo(profile="pitaya")  # nano's wire, and refusals are seen as such


class Join(Struct):
    name: str


class Joined(Struct):
    members: list[str]


class Line(Struct):
    name: str
    content: str


def chat() -> App:
    """The server: it knows neither ports nor wires."""
    app = App()
    room = app.group("lobby")
    app.sends("onNewUser", Join)  # for `fastway describe`
    app.sends("onMessage", Line)
    app.sends("onLeave", Join)
    app.refusal(403, "join first", "room.say")

    @app.handler("room.join")
    async def join(session: Session, message: Join) -> Joined:
        session.state = message.name
        room.send("onNewUser", message)
        room.add(session)  # it leaves by itself when the session ends
        return Joined([member.state for member in room])

    @app.handler("room.say")
    def say(session: Session, text: str) -> None:
        if session not in room:
            raise Refused(403, "join first")
        room.send("onMessage", Line(session.state, text))

    @app.closed
    def left(session: Session) -> None:
        if session.state is not None:
            room.send("onLeave", Join(session.state))

    return app


async def visit(reactor: Any, name: str, where: str, heard: DeferredQueue[str]) -> Session:
    """A client: the same App, with handlers for what it is told."""
    app = App()

    @app.handler("onNewUser")
    def came(message: Join) -> None:
        heard.put(f"{name} hears: * {message.name} is here")

    @app.handler("onLeave")
    def left(message: Join) -> None:
        heard.put(f"{name} hears: * {message.name} left")

    @app.handler("onMessage")
    def said(line: Line) -> None:
        heard.put(f"{name} hears: <{line.name}> {line.content}")

    return await app.connect(clientFromString(reactor, where), POMELO)


async def main(reactor: Any) -> None:
    app = chat()
    tcp = await app.listen("tcp:0:interface=127.0.0.1", POMELO)
    web = await app.listen("ws:0:interface=127.0.0.1", POMELO)
    by_tcp = f"tcp:127.0.0.1:{tcp.getHost().port}"
    by_web = f"ws:127.0.0.1:{web.getHost().port}"

    heard: DeferredQueue[str] = DeferredQueue()
    ann = await visit(reactor, "Ann", by_tcp, heard)
    bob = await visit(reactor, "Bob", by_web, heard)
    try:
        await bob.request("room.say", "hello")
    except Refused as error:
        print(f"Bob is told: {error}")
    for name, guest in (("Ann", ann), ("Bob", bob)):
        joined = await guest.request("room.join", Join(name), into=Joined)
        print(f"{name} joined: {', '.join(joined.members)}")
    print(await heard.get())
    ann.send("room.say", "hello")
    for line in sorted([await heard.get(), await heard.get()]):
        print(line)
    bob.close()
    print(await heard.get())

    ann.close()
    await ann.when_ended()
    await app.drain()


if __name__ == "__main__":
    react(main)

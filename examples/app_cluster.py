"""nano's cluster: a master, a backend and a gate, all in Python; any of them may be Go's.

python examples/app_cluster.py

A client of the gate talks to handlers of the backend, which do not know that it is elsewhere. It
needs the extra `cluster`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from twisted.internet.defer import DeferredQueue
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react

from fastway.app import App, Session
from fastway.cluster import NanoGate, NanoMaster, NanoMember
from fastway.dialect.pomelo import Pomelo

FREE = (
    "127.0.0.1:0"  # where a node takes calls; in a cluster of machines, an address of the inside
)


class Line(Struct):
    name: str
    content: str


def rooms() -> App:
    """What the backend serves: all that is called Room.…"""
    app = App()
    room = app.group("room")

    @app.handler("Room.Join")
    def join(session: Session, name: str) -> list[str]:
        session.state = name
        room.add(session)  # it leaves by itself when the client leaves its gate
        return [member.state for member in room]

    @app.handler("Room.Say")
    def say(session: Session, text: str) -> None:
        room.send("onMessage", Line(session.state, text))

    return app


async def visit(reactor: Any, name: str, port: int, heard: DeferredQueue[str]) -> Session:
    """A client: one of nano's own would do as well."""
    app = App()

    @app.handler("onMessage")
    def show(line: Line) -> None:
        heard.put(f"{name} hears: <{line.name}> {line.content}")

    endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{port}")
    session = await app.connect(endpoint, Pomelo())
    print(f"{name} joined:", ", ".join(await session.request("Room.Join", name)))
    return session


async def main(reactor: Any) -> None:
    master = NanoMaster(App(), FREE)
    await master.join()
    backend = NanoMember(rooms(), FREE, master=master.address, label="rooms")
    await backend.join()
    front = App()
    gate = NanoGate(front, FREE, master=master.address, label="gate")
    await gate.join()
    port = await front.listen(FREE, Pomelo())
    print("the gate sends to others:", ", ".join(gate.services))

    heard: DeferredQueue[str] = DeferredQueue()
    ann = await visit(reactor, "Ann", port.getHost().port, heard)
    bob = await visit(reactor, "Bob", port.getHost().port, heard)
    ann.send("Room.Say", "hello")
    for line in sorted([await heard.get(), await heard.get()]):
        print(line)

    bob.close()
    await bob.when_ended()
    print("Ann asks:", ", ".join(await ann.request("Room.Join", "Ann")))
    for node in (gate, backend, master):
        await node.app.drain()
        await node.leave()
    print("the backend's sessions at the end:", len(backend.app.sessions))


if __name__ == "__main__":
    react(main)

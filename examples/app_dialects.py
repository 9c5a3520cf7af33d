"""One application, three dialects: clients of nano, of teleport and of hotpot in one chat room.

python examples/app_dialects.py         three clients of ours talk, each in its dialect
python examples/app_dialects.py 8080    they stay, with a page for browsers at that port, until
                                        Ctrl-C; and whoever else comes to the ports that are named
"""

from __future__ import annotations

import sys
from typing import Any

from browser_chat.server import POMELO, Join, Line, People, chat, serve_page
from twisted.internet.defer import DeferredQueue
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react

from fastway.app import App, Session
from fastway.dialect import Dialect
from fastway.dialect.hotpot import Hotpot
from fastway.dialect.teleport import Teleport

# The chat of browser_chat, as it is: nano asks "chat.join", teleport CALLs /chat/join, hotpot
# says Join.
DIALECTS: dict[str, Dialect] = {"Ann": POMELO, "Bob": Teleport(), "Eve": Hotpot()}


async def visit(
    reactor: Any, name: str, dialect: Dialect, port: int, heard: DeferredQueue[str]
) -> Session:
    """A client of one of them."""
    app = App()

    @app.handler("onLine")
    def said(line: Line) -> None:
        heard.put(f"{name} hears by {dialect.name}: <{line.name}> {line.text}")

    @app.handler("onPeople")
    def people(message: People) -> None:
        """Who is here: it is told to each when somebody comes or goes."""

    session = await app.connect(clientFromString(reactor, f"tcp:127.0.0.1:{port}"), dialect)
    session.send("chat.join", Join(name))
    joined = await session.next("onPeople", into=People)
    print(f"{name} joined: {', '.join(joined.names)}", flush=True)
    return session


async def main(reactor: Any, page: str = "") -> None:
    app = chat()
    heard: DeferredQueue[str] = DeferredQueue()
    guests: list[Session] = []
    ports = []
    for name, dialect in DIALECTS.items():
        port = await app.listen("tcp:0:interface=127.0.0.1", dialect)
        ports.append(f"{dialect.name} at 127.0.0.1:{port.getHost().port}")
        guests.append(await visit(reactor, name, dialect, port.getHost().port, heard))
    guests[1].send("chat.say", "hello, everybody")
    for line in sorted([await heard.get() for _ in guests]):
        print(line)
    if page:
        where = await serve_page(reactor, app, page)
        print(f"the chat is at {where}, {', '.join(ports)}", flush=True)
        reactor.addSystemEventTrigger("before", "shutdown", app.drain, 5)
        while True:
            print(await heard.get(), flush=True)
    for session in guests:
        session.close()
        await session.when_ended()
    await app.drain()


if __name__ == "__main__":
    react(main, sys.argv[1:])

"""A chat in browsers, on pomelo's protocol: the application, its port, and the page's web server.

python examples/browser_chat/server.py [PORT OF THE PAGE [PORT OF THE CHAT]]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from twisted.web.static import Data

from fastway.app import App, Bounds, Refused, Session
from fastway.dialect.pomelo import Pomelo

HERE = Path(__file__).parent
FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "chat.css": ("chat.css", "text/css; charset=utf-8"),
    "chat.js": ("chat.js", "text/javascript; charset=utf-8"),
    "pomelo.js": ("pomelo.js", "text/javascript; charset=utf-8"),
}

# nano's wire, on which refusals are seen as such. Routes in the dictionary travel as two bytes.
POMELO = Pomelo(profile="pitaya", heartbeat=10, dictionary={"onLine": 1, "onPeople": 2})

Name = Annotated[str, Meta(min_length=1, max_length=20)]
Text = Annotated[str, Meta(min_length=1, max_length=2000)]


class Join(Struct):
    name: Name


class Line(Struct):
    name: str
    text: str


class People(Struct):
    names: list[str]


def chat() -> App:
    """The application: it knows neither ports nor pages."""
    app = App(bounds=Bounds(messages=20))  # a second, of one page; past that it is read later
    room = app.group("room")
    app.sends("onPeople", People)  # these are for `fastway describe`
    app.sends("onLine", Line)
    app.refusal(403, "join first", "chat.say")
    app.refusal(409, "that name is taken", "chat.join")

    def tell_people() -> None:
        room.send("onPeople", People([member.state for member in room]))

    @app.handler("chat.join")
    def join(session: Session, message: Join) -> None:
        if any(member.state == message.name for member in room):
            raise Refused(409, "that name is taken")
        session.state = message.name
        room.add(session)
        tell_people()

    @app.handler("chat.say")
    def say(session: Session, text: Text) -> None:
        if session not in room:
            raise Refused(403, "join first")
        room.send("onLine", Line(session.state, text))

    @app.closed
    def left(session: Session) -> None:
        if session.state is not None:
            tell_people()

    return app


class Where(Resource):
    """Tells the page where the chat is."""

    isLeaf = True

    def __init__(self, port: int) -> None:
        super().__init__()
        self._content = json.dumps({"port": port}).encode()

    def render_GET(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        return self._content


async def serve_page(reactor: Any, app: App, page: str, chat_port: str = "0") -> str:
    """Serve the page, and what it talks to; where it is."""
    root = Resource()
    for path, (name, kind) in FILES.items():
        root.putChild(path.encode(), Data((HERE / name).read_bytes(), kind))
    web = serverFromString(reactor, f"tcp:{page}:interface=127.0.0.1")
    port = (await web.listen(Site(root))).getHost().port
    # Only this page may come, wherever else its reader surfs.
    pages = quoteStringArgument(f"http://127.0.0.1:{port},http://localhost:{port}")
    where = f"ws:{chat_port}:interface=127.0.0.1:origins={pages}"
    listening = await app.listen(serverFromString(reactor, where), POMELO)
    root.putChild(b"where.json", Where(listening.getHost().port))
    return f"http://127.0.0.1:{port}/"


async def main(reactor: Any, page: str = "8080", chat_port: str = "0") -> None:
    app = chat()
    where = await serve_page(reactor, app, page, chat_port)
    print(f"the chat is at {where}, in as many windows as you like", flush=True)
    reactor.addSystemEventTrigger("before", "shutdown", app.drain, 5)
    await Deferred()  # until Ctrl-C


if __name__ == "__main__":
    react(main, sys.argv[1:])

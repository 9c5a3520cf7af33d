"""Pushes from outside: another program tells a group and a user of an application, by HTTP.

python examples/app_push.py
"""

from __future__ import annotations

import json
import warnings
from io import BytesIO
from typing import Any

from msgspec import Struct
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.task import react
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers

from fastway.app import App, Session
from fastway.app.http import push_site
from fastway.dialect.pomelo import Pomelo

TOKEN = "a long random one, from the environment"
ANYWHERE = "tcp:0:interface=127.0.0.1"


class Notice(Struct):
    text: str


def game() -> App:
    app = App()
    lobby = app.group("lobby")
    app.sends("onNotice", Notice)  # a push of another type is refused

    @app.handler("enter")
    def enter(session: Session, name: str) -> None:
        session.bind(name)
        lobby.add(session)

    return app


async def player(reactor: Any, name: str, port: int) -> Session:
    app = App()

    @app.handler("onNotice")
    def heard(notice: Notice) -> None:
        print(f"{name} hears: {notice.text}")

    server = clientFromString(reactor, f"tcp:127.0.0.1:{port}")
    session = await app.connect(server, Pomelo())
    await session.request("enter", name)
    return session


async def push(reactor: Any, port: int, token: str, asked: Any) -> str:
    """What `curl -H 'Authorization: Bearer …' -H 'Content-Type: application/json' -d …` does."""
    headers = {"Authorization": [f"Bearer {token}"], "Content-Type": ["application/json"]}
    body = FileBodyProducer(BytesIO(json.dumps(asked).encode()))
    url = f"http://127.0.0.1:{port}/push".encode()
    response = await Agent(reactor).request(b"POST", url, Headers(headers), body)
    return f"{response.code} {(await readBody(response)).decode().strip()}"


async def main(reactor: Any) -> None:
    app = game()
    port = await app.listen(ANYWHERE, Pomelo())
    inside = await serverFromString(reactor, ANYWHERE).listen(push_site(app, TOKEN))
    http = inside.getHost().port
    guests = [await player(reactor, name, port.getHost().port) for name in ("Ann", "Bob")]

    notice = {"route": "onNotice", "message": {"text": "maintenance at 9"}}
    print(await push(reactor, http, TOKEN, {"group": "lobby", **notice}))
    personal = {"user": "Bob", "route": "onNotice", "message": {"text": "you have won"}}
    print(await push(reactor, http, TOKEN, personal))
    print(await push(reactor, http, TOKEN, {"user": "Cem", **notice}))
    print(await push(reactor, http, TOKEN, {"group": "hall", **notice}))
    print(await push(reactor, http, "guessed", {"all": True, **notice}))

    for guest in guests:
        await guest.request("enter", "done")  # behind what it was told
        guest.close()
        await guest.when_ended()
    await inside.stopListening()
    await app.drain()


if __name__ == "__main__":
    # Twisted's readBody warns so over plain TCP too.
    warnings.filterwarnings("ignore", "Using readBody with a transport")
    react(main)

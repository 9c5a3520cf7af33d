"""One application on its own port and behind a gateway, there in two ways; one room for all.

* Clients of other protocols, such as nano's, reach it by a direct port of the gateway.
* Clients that speak fastway dial its server id, by a `fastway:` string.

python examples/app_behind_gateway.py
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import DeferredQueue
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString
from twisted.internet.task import deferLater, react

from fastway.app import App, Session
from fastway.dialect.pomelo import Pomelo
from fastway.errors import ConnectionEnded, DialRefused
from fastway.testing import LocalGateway

SERVER_ID = 7


def echo_room() -> App:
    app = App()
    room = app.group("room")
    app.sends("onEnter", str)  # for `fastway describe`

    @app.handler("enter")
    def enter(session: Session, name: str) -> str:
        session.state = name
        room.add(session)
        room.send("onEnter", name)
        return f"{len(room)} are here"

    return app


async def visit(reactor: Any, name: str, where: str, heard: DeferredQueue[str]) -> Session:
    app = App()
    app.route("onEnter", lambda who: heard.put(f"{name} hears: {who} is here"))
    while True:
        try:
            session = await app.connect(clientFromString(reactor, where), Pomelo())
            break
        except (ConnectionEnded, DialRefused):  # the server has not logged in yet
            await deferLater(reactor, 0.05)
    print(f"{name} is let in: {await session.request('enter', name)}")
    return session


async def main(reactor: Any) -> None:
    app = echo_room()
    direct = f"nano=127.0.0.1:0->{SERVER_ID}"
    async with LocalGateway(reactor, key="secret", direct=direct) as gateway:
        servers, clients = map(quoteStringArgument, (gateway.server_string, gateway.client_string))
        own = await app.listen("tcp:0:interface=127.0.0.1", Pomelo())
        behind = serverFromString(reactor, f"fastway:{servers}:id={SERVER_ID}:key=secret")
        await app.listen(behind, Pomelo())

        heard: DeferredQueue[str] = DeferredQueue()
        guests = []
        for name, where in (
            ("Ann", f"tcp:127.0.0.1:{own.getHost().port}"),
            ("Bob", f"tcp:127.0.0.1:{gateway.direct_ports['nano']}"),
            ("Cem", f"fastway:{clients}:server={SERVER_ID}"),
        ):
            guests.append(await visit(reactor, name, where, heard))
            for line in sorted([await heard.get() for _ in guests]):
                print(line)
        for guest in guests:
            guest.close()
            await guest.when_ended()
        await app.drain()


if __name__ == "__main__":
    react(main)

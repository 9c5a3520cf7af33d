"""Who may come in, and what he may do: handshake, users, and middleware of `fastway.app`.

python examples/app_auth.py
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from msgspec import Struct
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import react

from fastway.app import App, Refused, Request, Session
from fastway.dialect.pomelo import Pomelo

SECRET = b"what only the login service and this server know"
STAFF = {"ann"}


def sign(name: str) -> str:
    """What the login service gives out. A real token also runs out."""
    return hmac.new(SECRET, name.encode(), hashlib.sha256).hexdigest()


class Ticket(Struct):
    """What a client says of itself."""

    name: str
    token: str


class Notice(Struct):
    text: str


def guarded() -> App:
    app = App(users="kick")  # who comes twice loses the first session; "refuse" and "allow" too
    everybody = app.group("everybody")
    app.sends("onNotice", Notice)  # these two are for `fastway describe`
    app.refusal(403, "for staff only", "admin.tell")

    @app.handshake
    async def login(session: Session, user: Ticket) -> dict[str, str]:
        """`user` is what the client says of itself: nothing is true of it until it is checked."""
        if not hmac.compare_digest(user.token.encode(), sign(user.name).encode()):
            raise Refused(401, "that is no token of yours")
        session.bind(user.name)
        return {"welcome": user.name}

    @app.middleware
    async def staff_only(request: Request, call_next: Any) -> Any:
        if request.route.startswith("admin.") and request.session.user not in STAFF:
            raise Refused(403, "for staff only")
        return await call_next(request)

    app.opened(everybody.add)

    @app.handler("admin.tell")
    def tell(notice: Notice) -> int:
        return everybody.send("onNotice", notice)

    @app.handler("who")
    def who(session: Session) -> str:
        return str(session.user)

    return app


async def enter(server: IStreamClientEndpoint, name: str, token: str) -> Session:
    app = App()

    @app.handler("onNotice")
    def heard(notice: Notice) -> None:
        print(f"{name} hears: {notice.text}")

    return await app.connect(server, Pomelo(profile="pitaya", user={"name": name, "token": token}))


async def main(reactor: Any) -> None:
    app = guarded()
    pomelo = Pomelo(profile="pitaya")  # nano's wire, and refusals are seen as such
    port = await app.listen(serverFromString(reactor, "tcp:0:interface=127.0.0.1"), pomelo)
    server = clientFromString(reactor, f"tcp:127.0.0.1:{port.getHost().port}")
    try:
        await enter(server, "bob", "made up")
    except Refused as error:
        print(f"without a token: {error}")
    bob = await enter(server, "bob", sign("bob"))
    print("I am", await bob.request("who", into=str))
    try:
        await bob.request("admin.tell", Notice("free beer"))
    except Refused as error:
        print(f"bob: {error}")
    ann = await enter(server, "ann", sign("ann"))
    print("told:", await ann.request("admin.tell", Notice("maintenance at 9")))

    again = await enter(server, "bob", sign("bob"))
    await bob.when_ended()
    print(f"bob's first session: {bob.ended}")
    print("sessions of bob:", len(app.user("bob")))
    for session in (ann, again):
        session.close()
        await session.when_ended()
    await app.drain()


if __name__ == "__main__":
    react(main)

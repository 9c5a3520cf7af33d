"""A nano cluster in memory: a master, and backends and gates as a test wants them."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Session
from fastway.app.testing import Player
from fastway.cluster import NanoGate, NanoMaster, NanoMember
from tests.support.clusters import Town

MASTER, BACK, GATE = "10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"


class Cluster(SynchronousTestCase):
    """A master, a gate and a backend; and peers."""

    def setUp(self) -> None:
        self.town = Town()
        self.left: list[str] = []
        self.master = self.town.node(
            NanoMaster, 1, left=lambda info: self.left.append(info.address)
        )
        self.town.run(self.master.join())
        self.app = App()
        self.log: list[Any] = []

    def back(self, number: int = 2, app: App | None = None, **settings: Any) -> NanoMember:
        """A backend of these handlers."""
        app = self.app if app is None else app

        @app.handler("Room.Join")
        def join(session: Session, name: str) -> list[str]:
            session.state = name
            app.group("room").add(session)
            return [member.state for member in app.group("room")]

        @app.handler("Room.Say")
        def say(session: Session, text: str) -> None:
            app.group("room").send("onSay", [session.state, text])

        @app.handler("Room.Close")
        def close(session: Session) -> None:
            session.send("onBye", "bye")
            session.close()

        @app.closed
        def closed(session: Session) -> None:
            self.log.append(("closed", session.state))

        node = self.town.node(NanoMember, number, app, master=MASTER, **settings)
        self.town.run(node.join())
        return node

    def gate(self, number: int = 3, app: App | None = None, **settings: Any) -> NanoGate:
        node = self.town.node(NanoGate, number, app, master=MASTER, **settings)
        self.town.run(node.join())
        self.town.pump()
        return node

    def ask(self, player: Player, route: str, message: Any = None, **more: Any) -> Any:
        return self.town.run(player.ask(route, message, **more))

    def known(self, node: NanoMember) -> list[str]:
        return sorted(node.members)

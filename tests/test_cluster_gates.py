"""What gates say to a backend of nano's cluster: room, refusals, silence.

(spec nano.md 5)
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from fastway.app import App, Bounds
from fastway.cluster import CallFailed, NanoMember
from fastway.errors import LocalError
from fastway.formats import ProtocolBuffers
from tests.support.cluster_case import BACK, MASTER, Cluster
from tests.support.clusters import made, read


class Gates(Cluster):
    """What a gate says to a backend's calls."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.back()
        self.peer = self.town.peer(9)

    def join(self, number: int, name: str) -> None:
        self.peer.ask(BACK, number, "Room.Join", f'"{name}"'.encode(), 1)
        self.town.pump()

    def test_in_order(self) -> None:
        """One call at a time for each session; sessions do not wait for each other."""
        waits: list[Deferred[bytes]] = []

        def push(data: bytes) -> Any:
            if read("PushMessage", data).sessionId == 1:
                waits.append(Deferred())
                return waits[-1]
            return b""

        self.peer.answers["HandlePush"] = push
        self.join(1, "ann")
        self.join(2, "bob")
        for number in range(3):
            self.app.group("room").send("onSay", number)
        self.town.pump(40)
        told = [read("PushMessage", data) for data in self.peer.told("HandlePush")]
        self.assertEqual([one.data for one in told if one.sessionId == 2], [b"0", b"1", b"2"])
        self.assertEqual([one.data for one in told if one.sessionId == 1], [b"0"])
        for _ in range(3):
            waits[-1].callback(b"")
            self.town.pump()
        told = [read("PushMessage", data) for data in self.peer.told("HandlePush")]
        self.assertEqual([one.data for one in told if one.sessionId == 1], [b"0", b"1", b"2"])
        self.assertEqual(told[0].route, "onSay")

    def test_full(self) -> None:
        """What a gate has no room for is said again, in its place."""
        taken: list[bytes] = []

        def push(data: bytes) -> bytes:
            if self.town.clock.seconds() < 3:
                raise CallFailed(2, "session send buffer exceed")
            taken.append(read("PushMessage", data).data)
            return b""

        self.peer.answers["HandlePush"] = push
        self.join(1, "ann")
        for number in range(3):
            self.app.group("room").send("onSay", number)
        self.peer.ask(BACK, 1, "Room.Close", b"null", 0)
        self.town.advance(4)
        self.assertEqual(taken, [b"0", b"1", b"2", b'"bye"'])
        self.assertEqual(self.peer.told("CloseSession"), [bytes.fromhex("0801")])

    def test_gone(self) -> None:
        """A gate that does not know the session ends it."""
        for number, text in enumerate(("session not found: 1", "broken low-level pipe")):

            def push(_: bytes, text: str = text) -> bytes:
                raise CallFailed(2, text)

            self.peer.answers["HandlePush"] = push
            self.join(number, "ann")
            self.app.group("room").send("onSay", 1)
            self.app.group("room").send("onSay", 2)
            self.town.pump()
            self.assertEqual(self.log, [("closed", "ann")] * (number + 1))
            self.assertEqual(len(self.peer.told("HandlePush")), number + 1)
        self.assertEqual(self.peer.told("CloseSession"), [])

    def test_other_refusals(self) -> None:
        """What a gate refuses for other reasons is logged; the session goes on."""
        answers = [CallFailed(2, "too large"), None]

        def push(_: bytes) -> bytes:
            answer = answers.pop(0)
            if answer is not None:
                raise answer
            return b""

        self.peer.answers["HandlePush"] = push
        self.join(1, "ann")
        self.app.group("room").send("onSay", 1)
        self.app.group("room").send("onSay", 2)
        self.town.pump()
        self.assertEqual((answers, self.log), ([], []))

    def test_lost(self) -> None:
        """Where nobody knows what a client has heard, its session is over, and it is to go."""
        self.join(1, "ann")
        self.peer.answers["HandlePush"] = lambda _: Deferred()
        self.app.group("room").send("onSay", 1)
        self.app.group("room").send("onSay", 2)
        self.town.advance(2.5)
        self.assertEqual(self.log, [("closed", "ann")])
        self.assertEqual(len(self.peer.told("HandlePush")), 1)
        self.assertEqual(self.peer.told("CloseSession"), [bytes.fromhex("0801")])
        with pytest.raises(CallFailed, match="session not found"):
            self.peer.ask(BACK, 1, "Room.Say", b'"x"', 0)
        self.town.advance(3)
        self.assertEqual(self.node._closing, {})

    def test_slow(self) -> None:
        """A gate that takes nothing has only so much kept for each session."""
        self.app.bounds = Bounds(waiting=1000, enough=100)
        self.join(1, "ann")
        self.peer.answers["HandlePush"] = lambda _: Deferred()
        [session] = self.app.sessions.values()
        self.assertFalse(isinstance(session.send("x", "y"), Deferred))
        room = session.send("x", "y" * 200)
        self.assertNoResult(room)
        session.send("x", "y" * 1000)
        self.assertEqual(self.app.counts.lost["slow_reader"], 1)
        self.successResultOf(room)
        self.assertIn("does not take", str(session.ended))

    def test_room(self) -> None:
        """Who sends much may wait until it is taken."""
        self.app.bounds = Bounds(enough=100)
        self.join(1, "ann")
        [session] = self.app.sessions.values()
        session.send("x", "y" * 200)
        room = session.send("x", "y" * 200)
        self.assertNoResult(room)
        self.town.pump(20)
        self.successResultOf(room)

    def test_full_node(self) -> None:
        """A node takes only so many sessions; one that goes takes no new ones."""
        self.app.bounds = Bounds(sessions=1)
        self.join(1, "ann")
        with pytest.raises(CallFailed, match="full"):
            self.join(2, "bob")
        self.app.drain(5)
        with pytest.raises(CallFailed, match="going"):
            self.join(3, "eve")

    def test_bodies(self) -> None:
        """What is too large for a call is the sender's error."""
        self.join(1, "ann")
        [session] = self.app.sessions.values()
        with pytest.raises(LocalError, match="4194304"):
            session.send("x", bytes(5_000_000))
        with pytest.raises(LocalError):
            session.send("x" * 256, 1)
        self.app.route("Room.Empty", lambda: b"")
        self.peer.ask(BACK, 1, "Room.Empty", b"", 9)
        self.town.pump()
        answer = read("ResponseMessage", self.peer.told("HandleResponse")[-1])
        self.assertEqual((answer.id, answer.data), (9, b"null"))

    def test_no_address(self) -> None:
        """A gate without an address cannot have sessions."""
        self.node._dial = None
        self.peer.address = "nowhere"
        with pytest.raises(CallFailed, match="is no address"):
            self.join(1, "ann")
        self.assertEqual(self.app.sessions, {})

    def test_refusals_that_are_told(self) -> None:
        """Where that is wished, a refusal is an answer."""
        app = App()
        app.route("Bad.Go", lambda: 1 // 0)
        node = self.town.node(NanoMember, 4, app, master=MASTER, refusals="reply")
        self.town.run(node.join())
        self.peer.ask(node.address, 1, "Bad.Go", b"", 7)
        self.town.pump()
        answer = read("ResponseMessage", self.peer.told("HandleResponse")[0])
        self.assertEqual(answer.data, b'{"code":500,"msg":"internal error"}')
        self.flushLoggedErrors(ZeroDivisionError)

    def test_protobuf(self) -> None:
        """Bodies may be protobuf, as nano's are by default."""
        from fastway.cluster.messages import message_class

        push = message_class("PushMessage")
        app = App()
        app.route("Pb.Echo", lambda message: message)
        node = self.town.node(NanoMember, 4, app, master=MASTER, format=ProtocolBuffers(push))
        self.town.run(node.join())
        body = made("PushMessage", sessionId=3, route="x")
        self.peer.ask(node.address, 1, "Pb.Echo", body, 7)
        self.town.pump()
        answer = read("ResponseMessage", self.peer.told("HandleResponse")[0])
        self.assertEqual(answer.data, body)

"""Who is in nano's cluster: joining, leaving, dying, freezing, and a master that restarts.

(spec nano.md 5)
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from fastway.app import App, Refused
from fastway.app.testing import Player
from fastway.cluster import CallFailed, MemberInfo, NanoMaster, NanoMember, roads
from fastway.errors import LocalError
from tests.support.cluster_case import BACK, GATE, MASTER, Cluster
from tests.support.clusters import made, read


class Membership(Cluster):
    """Who is in, and who knows it."""

    def test_register(self) -> None:
        """Who comes is told of those before, the master first; those are told of it."""
        one, two = self.town.peer(7), self.town.peer(8)
        self.assertEqual(one.register(MASTER, "A"), [MASTER])
        self.assertEqual(two.register(MASTER, "B", "A"), [MASTER, one.address])
        self.town.pump()
        self.assertEqual(two.heard, [])
        [(method, data)] = one.heard
        self.assertEqual(method, "NewMember")
        info = read("NewMemberRequest", data).memberInfo
        self.assertEqual((info.label, list(info.services)), ("go", ["B", "A"]))
        self.assertEqual(list(self.master.services), ["A", "B"])
        node = self.back()
        self.assertEqual(self.known(node), [MASTER, one.address, two.address])

    def test_errors(self) -> None:
        """What nano says to registrations that are none."""
        peer = self.town.peer(7)
        cases: list[tuple[str, bytes, str]] = [
            *[
                ("Register", made("RegisterRequest", memberInfo={"serviceAddr": one}), text)
                for one, text in (
                    ("127.0.0.1:1\nFAKE", "is no address"),
                    ("x" * 60_000, "is no address"),
                    ("x", "is no address"),
                    ("x:70000", "is no address"),
                    (":80", "others cannot reach ':80'"),
                    ("0.0.0.0:80", "others cannot reach"),
                )
            ],
            (
                "Register",
                made("RegisterRequest", memberInfo={"serviceAddr": "x:1", "label": "x" * 70_000}),
                "invalid register request",
            ),
            ("Register", b"", "invalid register request"),
            ("Register", made("RegisterRequest", memberInfo={}), "invalid register request"),
            ("Register", made("RegisterRequest", memberInfo={"serviceAddr": MASTER}), "master"),
            ("Unregister", b"", "invalid register request"),
            ("Unregister", made("UnregisterRequest", serviceAddr="x:1"), "x:1 has not registered"),
        ]
        for method, data, text in cases:
            with pytest.raises(CallFailed, match=text):
                self.town.run(peer.call(MASTER, f"Master/{method}", data))
        self.assertEqual(peer.register(MASTER), [MASTER])

    def test_leave(self) -> None:
        """Others are told, and the callback."""
        peer, node, gate = self.town.peer(7), self.back(), self.gate()
        peer.register(MASTER)
        self.ask(Player(gate.app), "Room.Join", "ann")
        self.town.run(node.leave())
        self.town.pump()
        self.assertEqual(self.left, [BACK])
        self.assertEqual(peer.told("DelMember"), [made("DelMemberRequest", serviceAddr=BACK)])
        self.assertEqual(self.known(gate), [MASTER, peer.address])
        self.assertEqual(self.log, [("closed", "ann")])
        self.assertNotIn(BACK, self.town.ports)
        self.successResultOf(node.leave())
        self.failureResultOf(node.join(), LocalError)

    def test_services_are_replaced(self) -> None:
        """A member that starts anew offers what it offers now, to all, once."""
        gate = self.gate()
        peer, other = self.town.peer(7), self.town.peer(8)
        other.register(MASTER)
        peer.register(MASTER, "A", "B")
        self.town.pump()
        other.heard.clear()
        peer.register(MASTER, "B", "C")
        self.town.pump()
        for node in (gate, self.master):
            self.assertEqual(sorted(node.services), ["B", "C"])
            self.assertEqual([len(node.services[one]) for one in "BC"], [1, 1])
        self.assertEqual([name for name, _ in other.heard], ["DelMember", "NewMember"])

    def test_two_die(self) -> None:
        """Both are struck, others are told, and a third can join at once."""
        gate = self.gate()
        peers = [self.town.peer(number) for number in (7, 8)]
        for peer in peers:
            peer.register(MASTER, "A")
        watcher = self.town.peer(9)
        self.town.pump()
        for peer in peers:
            self.town.kill(peer.address)
        self.town.advance(3.5)
        self.assertEqual(self.left, [])
        third = self.back()
        watcher.register(MASTER)
        self.assertIn(GATE, third.members)
        self.town.advance(2)
        self.assertEqual(sorted(self.left), ["10.0.0.1:7", "10.0.0.1:8"])
        self.assertEqual(self.known(gate), [MASTER, BACK, "10.0.0.1:9"])
        self.assertEqual(gate.services.keys(), {"Room"})
        self.assertEqual(len(watcher.told("DelMember")), 2)

    def test_frozen_member(self) -> None:
        """One that does nothing, but whose kernel still takes all, holds nobody."""
        frozen, other, gate = self.back(4, App()), self.back(), self.gate()
        ann, bob = Player(gate.app), Player(gate.app)
        gate.bind(ann.session, "Room", frozen.address)
        gate.bind(bob.session, "Room", other.address)
        self.ask(ann, "Room.Join", "ann")
        self.ask(bob, "Room.Join", "bob")
        closed: list[float] = []
        gate.app.closed(lambda _: closed.append(self.town.clock.seconds()))
        self.town.freeze(frozen.address)
        late = ann.ask("Room.Join", "ann")
        self.assertEqual(self.ask(bob, "Room.Join", "bob"), ["bob"])
        now = self.town.clock.seconds()
        bob.leave()
        self.town.pump()
        self.assertEqual(closed, [now])
        self.assertEqual(other.app.sessions, {})
        self.town.run(self.town.node(NanoMember, 5, App(), master=MASTER).join())
        self.assertEqual(self.town.clock.seconds(), now)
        self.assertIn("10.0.0.1:5", gate.members)
        self.town.advance(2.3)
        self.assertEqual(self.failureResultOf(late, Refused).value.code, 504)
        ann.leave()
        self.town.pump()
        self.assertEqual(len(closed), 2)
        self.town.advance(3.5)
        self.assertEqual(self.left, [frozen.address])
        self.town.thaw(frozen.address)
        self.town.advance(3)
        self.assertIn(frozen.address, self.master.members)
        self.assertIn(frozen.address, gate.members)
        self.assertEqual(frozen.app.sessions, {})

    def test_frozen_gate(self) -> None:
        """Clients of other gates are served as before."""
        self.back()
        one, two = self.gate(), self.gate(4)
        ann, bob = Player(one.app), Player(two.app)
        self.ask(ann, "Room.Join", "ann")
        self.ask(bob, "Room.Join", "bob")
        self.town.freeze(one.address)
        now = self.town.clock.seconds()
        for number in range(20):
            self.ask(bob, "Room.Say", str(number))
        self.assertEqual(self.town.clock.seconds(), now)
        self.assertEqual(len(bob.heard), 20)
        self.town.advance(6)
        self.assertEqual(self.log, [("closed", "ann")])
        self.assertEqual(self.left, [one.address])

    def test_gate_dies(self) -> None:
        """Its sessions end at the backends when it is taken for dead."""
        self.back()
        gate = self.gate()
        self.ask(Player(gate.app), "Room.Join", "ann")
        self.town.kill(GATE)
        self.town.advance(6)
        self.assertEqual(self.log, [("closed", "ann")])
        self.assertEqual(self.app.sessions, {})

    def test_gate_starts_anew(self) -> None:
        """Its earlier sessions end."""
        self.back()
        peer = self.town.peer(9)
        peer.register(MASTER)
        peer.ask(BACK, 1, "Room.Join", b'"ann"', 1)
        self.town.pump()
        peer.register(MASTER)
        self.town.pump()
        self.assertEqual(self.log, [("closed", "ann")])

    def test_app_stops(self) -> None:
        """A backend that stops closes nobody's connection; another serves them."""
        first = self.back(4, App())
        gate = self.gate()
        ann = Player(gate.app)
        self.ask(ann, "Room.Join", "ann")
        self.back()
        self.town.run(first.app.drain(5))
        self.town.run(first.leave())
        self.town.pump()
        self.assertEqual(self.left, [first.address])
        self.assertIsNone(ann.session.ended)
        self.assertEqual(self.ask(ann, "Room.Join", "ann"), ["ann"])

    def test_drain(self) -> None:
        """What runs when an App drains still answers."""
        node, gate = self.back(), self.gate()
        waits: Deferred[str] = Deferred()
        self.app.route("Room.Wait", lambda: waits)
        asked = Player(gate.app).ask("Room.Wait")
        self.town.pump()
        drained = self.app.drain(5)
        self.town.advance(1)
        self.assertEqual(self.left, [BACK])
        waits.callback("done")
        self.town.run(drained)
        self.town.run(node.leave())
        self.assertEqual(self.successResultOf(asked), "done")

    def test_gate_leaves(self) -> None:
        """Backends hear of each of its sessions."""
        self.back()
        gate = self.gate()
        players = [Player(gate.app) for _ in range(3)]
        for player in players:
            self.ask(player, "Room.Join", "x")
        watcher = self.town.peer(9)
        watcher.register(MASTER)
        self.town.run(gate.leave())
        self.assertEqual(self.log, [("closed", "x")] * 3)
        self.assertEqual(self.left, [GATE])
        self.assertEqual(len(watcher.told("SessionClosed")), 3)
        gate.app.stop()

    def test_master_is_a_gate(self) -> None:
        """A master has clients and handlers too; its own are told nothing twice."""
        self.master.app.route("Master.Ping", lambda: "pong")
        self.back()
        self.town.pump()
        ann = Player(self.master.app)
        closed: list[Any] = []
        self.master.app.closed(closed.append)
        self.assertEqual(self.ask(ann, "Room.Join", "ann"), ["ann"])
        self.assertEqual(self.ask(ann, "Master.Ping"), "pong")
        ann.leave()
        self.town.pump()
        self.assertEqual((closed, self.log), ([ann.session], [("closed", "ann")]))

    def test_waits_for_the_master(self) -> None:
        """A member asks until it is taken; who leaves meanwhile asks no more."""
        self.town.kill(MASTER)
        node = self.town.node(NanoMember, 2, self.app, master=MASTER)
        other = self.town.node(NanoMember, 4, App(), master=MASTER)
        joining, failing = node.join(), other.join()
        self.town.advance(5)
        self.assertNoResult(joining)
        self.town.run(other.leave())
        self.failureResultOf(failing, LocalError)
        self.master = self.town.node(NanoMaster, 1)
        self.town.run(self.master.join())
        self.town.run(joining)
        self.assertEqual(self.known(self.master), [BACK])

    def test_master_restarts(self) -> None:
        """It finds members again by their heartbeats; who came first is told of them, and they
        of it, once; nobody's sessions end."""
        old, gate = self.town.peer(7), self.gate()
        self.back()
        old.register(MASTER, "Old")
        self.ask(Player(gate.app), "Room.Join", "ann")
        self.town.pump()
        old.heard.clear()
        self.town.kill(MASTER)
        self.town.advance(1.2)
        self.master = self.town.node(NanoMaster, 1)
        self.town.run(self.master.join())
        new = self.town.peer(8)
        self.assertEqual(new.register(MASTER, "New"), [MASTER])
        self.town.advance(2)
        beat = made("HeartbeatRequest", memberInfo=MemberInfo("", old.address, ("Old",)).message())
        self.town.run(old.call(MASTER, "Master/Heartbeat", beat))
        self.town.pump()
        everybody = [BACK, GATE, old.address, new.address]
        self.assertEqual(self.known(self.master), everybody)
        self.assertEqual(self.known(gate), [MASTER, BACK, old.address, new.address])
        told = [read("NewMemberRequest", data) for data in new.told("NewMember")]
        self.assertEqual(
            sorted(one.memberInfo.serviceAddr for one in told), [BACK, GATE, old.address]
        )
        self.assertEqual([name for name, _ in old.heard], ["NewMember"])
        self.assertEqual(self.log, [])

    def test_cannot_be_told(self) -> None:
        """Who was not told of a member is told with its next heartbeat."""
        peer = self.town.peer(7, NewMember=lambda _: Deferred())
        peer.register(MASTER)
        self.back()
        self.town.advance(2.5)
        self.assertEqual(len(peer.told("NewMember")), 1)
        peer.answers.clear()
        beat = made("HeartbeatRequest", memberInfo=MemberInfo("go", peer.address, ()).message())
        self.town.run(peer.call(MASTER, "Master/Heartbeat", beat))
        self.town.pump()
        self.assertEqual([name for name, _ in peer.heard], ["NewMember", "DelMember", "NewMember"])

    def test_master_is_stopped_for_a_while(self) -> None:
        """Time in which it could hear nobody counts for nobody's silence."""
        self.gate()
        self.town.freeze(MASTER)
        self.town.advance(10)
        self.town.thaw(MASTER)
        self.town.advance(3)
        self.assertEqual(self.left, [])

    def test_master_is_frozen(self) -> None:
        """Whatever it hears when it goes on, late and of callers that are gone, all know all."""
        nodes = [self.back(), self.gate(), self.gate(4)]
        self.ask(Player(nodes[1].app), "Room.Join", "ann")
        for _ in range(2):
            self.town.freeze(MASTER)
            self.town.advance(10)
            self.town.thaw(MASTER)
            self.town.advance(4)
            for node in nodes:
                others = [MASTER, *(one.address for one in nodes if one is not node)]
                self.assertEqual(self.known(node), others)
        self.assertEqual((self.left, self.log), ([], []))

    def test_lost_registration(self) -> None:
        """Who registers twice, because he did not hear the answer, is told of all once more."""
        self.back()
        peer = self.town.peer(7)
        peer.register(MASTER)
        peer.register(MASTER)
        self.town.pump()
        self.assertEqual([name for name, _ in peer.heard], ["DelMember", "NewMember"])

    def test_go_master(self) -> None:
        """A master that is none of ours: what is asked of it, and how often."""
        info = MemberInfo("", "10.0.0.1:8", ("Far",)).message()
        unreachable = MemberInfo("", "what is this", ("Far",)).message()
        reply = made("RegisterResponse", members=[unreachable, info])
        master = self.town.peer(6, Register=reply)
        node = self.town.node(NanoMember, 4, self.app, master=master.address, label="py")
        self.app.route("Room.Go", lambda: None)
        self.town.run(node.join())
        self.assertEqual(self.known(node), ["10.0.0.1:8"])
        self.assertEqual(master.heard.pop(0)[0], "Unregister")
        said = read("RegisterRequest", master.heard[0][1]).memberInfo
        self.assertEqual((said.label, said.serviceAddr), ("py", "10.0.0.1:4"))
        self.assertEqual(list(said.services), ["Room"])
        self.town.advance(3.5)
        self.assertEqual([name for name, _ in master.heard], ["Register", *["Heartbeat"] * 3])
        self.assertEqual(master.heard[0][1], master.heard[1][1])
        self.town.freeze(node.address)
        self.town.advance(6)
        self.town.thaw(node.address)
        self.town.advance(0.5)
        self.assertEqual(
            [name for name, _ in master.heard[-3:]], ["Heartbeat", "Unregister", "Register"]
        )
        self.town.ports.pop(master.address)
        for link in self.town.links(master.address):
            link.cut()
        self.town.advance(6)
        self.town.ports[master.address] = master.server
        self.town.advance(3)
        self.assertEqual(master.heard[-1][0], "Heartbeat")
        self.town.run(node.leave())
        self.assertEqual(
            master.heard[-1], ("Unregister", made("UnregisterRequest", serviceAddr=node.address))
        )

    def test_nodes_that_are_needed_no_more(self) -> None:
        """Connections to gates that are no members go when their sessions have."""
        node = self.back()
        peer = self.town.peer(9)
        peer.ask(BACK, 1, "Room.Join", b'"ann"', 1)
        self.town.advance(1.5)
        self.assertIn(peer.address, node._channels)
        self.town.run(
            peer.call(BACK, "Member/SessionClosed", made("SessionClosedRequest", sessionId=1))
        )
        self.town.advance(1.5)
        self.assertNotIn(peer.address, node._channels)

    def test_too_many(self) -> None:
        """Members have a bound."""
        self.patch(roads, "MAX_MEMBERS", 0)
        with pytest.raises(CallFailed, match="too many nodes"):
            self.master.channel("10.0.0.1:99")

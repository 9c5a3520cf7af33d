"""Sessions of nano's cluster in memory: a client at a gate, its mirror at a backend, roads.

(spec nano.md 5)
"""

from __future__ import annotations

import os
import runpy
import sys
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastway.app import App, Bounds, Refused, Session
from fastway.app.session import SessionEnded
from fastway.app.strand import Strand
from fastway.app.testing import Player
from fastway.cluster import CallFailed, MemberInfo, NanoGate, NanoMember, NoService
from fastway.cluster import gate as gates
from fastway.cluster.gate import Numbers
from fastway.cluster.members import Members, services_of
from fastway.dialect import NotInDialect
from fastway.dialect.pomelo import Pomelo
from fastway.errors import ConfigError, LocalError, NotInstalled, RequestTimeout
from tests.support.app_memory import Memory
from tests.support.cluster_case import BACK, GATE, MASTER, Cluster
from tests.support.clusters import made, read
from tests.support.files import CHECKOUT

VECTORS: dict[str, tuple[str, dict[str, Any], str]] = {
    "C1": (
        "MemberInfo",
        {"label": "gate-1", "serviceAddr": "127.0.0.1:34570", "services": ["BindService"]},
        "0a06676174652d31120f3132372e302e302e313a33343537301a0b42696e6453657276696365",
    ),
    "C3": (
        "RequestMessage",
        {
            "gateAddr": "127.0.0.1:34570",
            "sessionId": 1234567890123456789,
            "id": 300,
            "route": "RoomService.Join",
            "data": b"{}",
        },
        "0a0f3132372e302e302e313a3334353730109582a6efc79e84911118ac022210526f6f6d53657276696365"
        "2e4a6f696e2a027b7d",
    ),
    "C4": (
        "NotifyMessage",
        {
            "gateAddr": "127.0.0.1:34570",
            "sessionId": 5,
            "route": "RoomService.SyncMessage",
            "data": b"{}",
        },
        "0a0f3132372e302e302e313a333435373010051a17526f6f6d536572766963652e53796e634d6573736167"
        "6522027b7d",
    ),
    "C5": ("ResponseMessage", {"sessionId": 5, "id": 300, "data": b"{}"}, "080510ac021a027b7d"),
    "C6": (
        "PushMessage",
        {"sessionId": 5, "route": "onMessage", "data": b"{}"},
        "080512096f6e4d6573736167651a027b7d",
    ),
    "C7": ("SessionClosedRequest", {"sessionId": 5}, "0805"),
}


class Parts(SynchronousTestCase):
    """What needs no cluster."""

    def test_vectors(self) -> None:
        """C1 to C7, both ways."""
        for kind, fields, expected in VECTORS.values():
            self.assertEqual(made(kind, **fields).hex(), expected)
            message = read(kind, bytes.fromhex(expected))
            self.assertEqual({name: getattr(message, name) for name in fields}, fields)
        info = MemberInfo("gate-1", "127.0.0.1:34570", ("BindService",)).message()
        for kind in ("RegisterRequest", "HeartbeatRequest", "NewMemberRequest"):
            self.assertEqual(made(kind, memberInfo=info).hex(), "0a26" + VECTORS["C1"][2])

    def test_services(self) -> None:
        """What stands before the last dot; a record takes the place of that before it."""
        self.assertEqual(services_of(["b.c", "a.b.d", "b.e", "plain"]), ("a.b", "b"))
        known = Members()
        known.put(MemberInfo("", "x:1", ("a", "b")))
        known.put(MemberInfo("", "x:2", ("b",)))
        known.put(MemberInfo("", "x:1", ("b", "c")))
        self.assertEqual(list(known.services), ["b", "c"])
        self.assertEqual([one.address for one in known.services["b"]], ["x:2", "x:1"])
        self.assertTrue(known.remove("x:1"))
        self.assertFalse(known.remove("x:1"))
        self.assertEqual(list(known.services), ["b"])

    def test_numbers(self) -> None:
        """They only grow, never come twice, and say which gate."""
        times = iter([5.0, 5.0, 4.0, *[6.0] * 10_000])
        numbers = Numbers(7, lambda: next(times) + 1_700_000_000)
        got = [next(numbers) for _ in range(10_000)]
        self.assertEqual(got, sorted(set(got)))
        self.assertEqual({number >> 12 & 1023 for number in got}, {7})
        self.assertLess(got[-1], 2**63)

    def test_not_installed(self) -> None:
        """Without the extra an import names the package, not its module."""
        place = os.path.join(CHECKOUT, "fastway", "cluster", "__init__.py")
        for module, package in (("google.protobuf", "protobuf"), ("h2", "h2")):
            lacks = pytest.raises(NotInstalled, match=f"fastway.cluster needs {package}: ")
            with mock.patch.dict(sys.modules, {module: None}), lacks:
                runpy.run_path(place)

    def test_settings(self) -> None:
        """What others could not use, and what makes no sense, is refused."""
        wrong: list[tuple[str, dict[str, Any], str]] = [
            (":34570", {}, "others cannot reach ':34570'"),
            ("0.0.0.0:34570", {}, "give advertise=host:port"),
            (":0", {}, "others cannot reach ':0'; give advertise=host:port"),
            ("127.0.0.1:3", {"advertise": "me"}, "others cannot reach 'me'; give host:port"),
            ("127.0.0.1:3", {"advertise": "10.0.0.1:0"}, "0 is a free port for listen alone"),
            ("127.0.0.1:3", {"master": "nowhere"}, "master: nobody can reach 'nowhere'"),
            ("127.0.0.1:3", {"heartbeat": 0}, "heartbeat: 0 s"),
            ("127.0.0.1:3", {"refusals": "loud"}, "silent or reply"),
            ("127.0.0.1:3", {"node_id": 1024}, "it is 0 to 1023"),
            ("127.0.0.1:3", {"answer_timeout": 0}, "answer_timeout"),
        ]
        for listen, settings, problem in wrong:
            with pytest.raises(ConfigError, match=problem.replace("(", r"\(")):
                NanoGate(App(), listen, **{"master": MASTER, **settings})
        NanoMember(App(), ":34570", master=MASTER, advertise="[::1]:34570")
        NanoMember(App(), "[::1]:34570", master="master.example:1")
        app = App()
        NanoGate(app, "127.0.0.1:1", master=MASTER)
        with pytest.raises(ConfigError, match="it has a gate"):
            NanoGate(app, "127.0.0.1:1", master=MASTER)

    def test_listens_where_it_is_told(self) -> None:
        """An endpoint without an address of use needs `advertise`."""
        clock = Clock()
        app = App(clock=clock)
        node = NanoMember(app, TCP4ServerEndpoint(clock, 0), master=MASTER)
        self.failureResultOf(node.join())


class Sessions(Cluster):
    """A client at a gate and its mirror at a backend."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.back()
        self.front = self.gate()
        self.players = [Player(self.front.app) for _ in range(2)]

    def test_talk(self) -> None:
        """Requests, answers, notifies, pushes to a group; each in order."""
        ann, bob = self.players
        self.assertEqual(self.ask(ann, "Room.Join", "ann"), ["ann"])
        self.assertEqual(self.ask(bob, "Room.Join", "bob"), ["ann", "bob"])
        for number in range(30):
            ann.send("Room.Say", str(number))
        self.town.pump(100)
        self.assertEqual(bob.heard, [("onSay", ["ann", str(number)]) for number in range(30)])
        self.assertEqual(ann.heard, bob.heard)
        [one, _] = self.app.sessions.values()
        self.assertEqual((one.dialect, one.user), ("nano", None))
        self.assertTrue(one.peer.startswith(f"{GATE}/"))
        self.assertEqual(self.app.counts.pending, 0)
        self.assertEqual(self.front.app.counts.pending, 0)

    def test_pipelined(self) -> None:
        """A client that does not wait is answered in order, and its messages keep theirs."""
        ann = self.players[0]
        ended: list[Any] = []
        for number in range(100):
            ann.ask("Room.Join", str(number)).addCallback(lambda got: ended.append(got[-1]))
        self.town.pump(400)
        self.assertEqual(ended, [str(number) for number in range(100)])

    def test_client_leaves(self) -> None:
        """Closed hooks run once, and nothing is left of it anywhere."""
        ann, bob = self.players
        self.ask(ann, "Room.Join", "ann")
        self.ask(bob, "Room.Join", "bob")
        ann.leave()
        self.town.pump()
        self.assertEqual(self.log, [("closed", "ann")])
        self.assertEqual(len(self.app.sessions), 1)
        self.assertEqual(len(self.front._clients), 1)
        self.ask(bob, "Room.Say", "hello")
        self.assertEqual(bob.heard, [("onSay", ["bob", "hello"])])

    def test_backend_closes(self) -> None:
        """Behind what was told; what the client had sent by then is nobody's."""
        ann = self.players[0]
        self.ask(ann, "Room.Join", "ann")
        ann.send("Room.Close")
        ann.send("Room.Say", "too late")
        self.town.pump(40)
        self.assertEqual(ann.heard, [("onBye", "bye")])
        self.assertIsNotNone(ann.session.ended)
        self.assertEqual(self.log, [("closed", "ann")])
        self.assertEqual((self.app.sessions, self.node._closing), ({}, {}))

    def test_refused(self) -> None:
        """nano says nothing of refusals; a request that nobody answers is refused in time."""
        ann = self.players[0]

        @self.app.handler("Room.Never")
        def never() -> None:
            raise Refused(400, "never")

        asked = ann.ask("Room.Never")
        self.town.advance(29)
        self.assertNoResult(asked)
        self.town.advance(2)
        self.assertEqual(self.failureResultOf(asked, Refused).value.code, 504)
        with pytest.raises(Refused, match="404"):
            self.ask(ann, "Nobody.There")
        with pytest.raises(Refused, match="404"):
            self.ask(ann, "plain")
        with pytest.raises(Refused, match="503"):
            self.ask(ann, "Room.Unknown")
        self.assertEqual(self.app.counts.unknown, 1)
        self.assertEqual((self.front._late, self.front.app.counts.pending), ({}, 0))

    def test_requests_that_are_never_answered(self) -> None:
        """nano's handlers say no by saying nothing: their client asks on; of too many the oldest
        are refused."""
        self.patch(gates, "MAX_ASKED", 100)

        @self.app.handler("Room.Fail")
        def fail() -> None:
            raise Refused(400, "no")

        client = App()
        endpoint = Memory(self.front.app, Pomelo(refusals="reply"), self.town.clock)
        client.use_clock(self.town.clock)
        session = self.town.run(client.connect(endpoint, Pomelo()))
        failed = [session.request("Room.Fail") for _ in range(150)]
        self.assertEqual(self.town.run(session.request("Room.Join", "ann")), ["ann"])
        refused = [self.successResultOf(one)["code"] for one in failed[:51]]
        self.assertEqual(refused, [503] * 51)
        self.assertNoResult(failed[51])
        self.assertEqual(self.front.app.counts.pending, 99)
        session.close()
        self.town.pump()
        for one in failed[51:]:
            self.failureResultOf(one, SessionEnded)
        self.assertEqual((self.front.app.counts.pending, self.front._late), (0, {}))

    def test_late_answer(self) -> None:
        """An answer that comes too late, or twice, or to nothing, is nobody's."""
        ann = self.players[0]
        self.ask(ann, "Room.Join", "ann")
        [client] = self.front._clients.values()
        peer = self.town.peer(9)
        for number in (1, 77):
            answer = made("ResponseMessage", sessionId=client.id, id=number, data=b"1")
            self.assertEqual(self.town.run(peer.call(GATE, "Member/HandleResponse", answer)), b"")
        self.assertEqual(self.front.counts["stray answers"], 2)
        with pytest.raises(CallFailed, match="notify mode"):
            answer = made("ResponseMessage", sessionId=client.id, id=0, data=b"1")
            self.town.run(peer.call(GATE, "Member/HandleResponse", answer))

    def test_no_such_session(self) -> None:
        """What is said to nobody is an error with nano's words; closing nobody is none."""
        peer = self.town.peer(9)
        for there in (GATE, BACK):
            for method, kind in (("HandlePush", "PushMessage"), ("HandleResponse", "Response")):
                kind = kind if kind.endswith("Message") else "ResponseMessage"
                with pytest.raises(CallFailed, match="session not found: 5"):
                    self.town.run(peer.call(there, f"Member/{method}", made(kind, sessionId=5)))
            for method in ("SessionClosed", "CloseSession"):
                data = made(f"{method}Request", sessionId=5)
                self.assertEqual(self.town.run(peer.call(there, f"Member/{method}", data)), b"")

    def test_junk(self) -> None:
        """What is no message of the cluster is refused; nothing else happens."""
        peer = self.town.peer(9)
        for method in ("Register", "Unregister", "Heartbeat"):
            with pytest.raises(CallFailed):
                self.town.run(peer.call(MASTER, f"Master/{method}", b"\xff\xff"))
            with pytest.raises(CallFailed):
                self.town.run(peer.call(MASTER, f"Master/{method}", b""))
            with pytest.raises(CallFailed, match="unknown method"):
                self.town.run(peer.call(BACK, f"Master/{method}", b""))
        for method in ("HandleRequest", "NewMember", "HandlePush", "SessionClosed"):
            with pytest.raises(CallFailed):
                self.town.run(peer.call(BACK, f"Member/{method}", b"\x0a\x05abc"))
        with pytest.raises(CallFailed, match="invalid register request"):
            self.town.run(peer.call(BACK, "Member/NewMember", b""))
        with pytest.raises(CallFailed, match=r"service not found in current node: No\.One"):
            peer.ask(BACK, 5, "No.One", b"", 1)
        self.assertEqual(self.app.sessions, {})
        self.assertEqual(self.ask(self.players[0], "Room.Join", "ann"), ["ann"])

    def test_hooks(self) -> None:
        """Middleware and hooks are those of the node that handles; outgoing ones also see what
        comes through a gate."""
        seen: list[str] = []

        @self.app.middleware
        async def around(request: Any, call_next: Any) -> Any:
            seen.append(request.route)
            return await call_next(request)

        self.app.opened(lambda session: seen.append("opened"))
        self.front.app.outgoing(lambda out: seen.append(f"out {out.route}"))
        self.ask(self.players[0], "Room.Join", "ann")
        self.ask(self.players[0], "Room.Say", "hi")
        self.assertEqual(seen, ["opened", "Room.Join", "Room.Say", "out onSay"])

    def test_what_a_mirror_cannot(self) -> None:
        """A client of nano cannot be asked, nor told beside a message."""
        self.ask(self.players[0], "Room.Join", "ann")
        [session] = self.app.sessions.values()
        self.failureResultOf(session.request("x"), NotInDialect)
        with pytest.raises(NotInDialect):
            session.send("x", meta=[("a", "b")])
        session.abort()
        self.town.pump()
        self.assertIsNotNone(self.players[0].session.ended)

    def test_next(self) -> None:
        """Who waits for what a client says next is told it, in place of a handler."""
        ann = self.players[0]
        self.ask(ann, "Room.Join", "ann")
        [session] = self.app.sessions.values()
        first, second = session.next("Room.Say", into=str), session.next("Room.Say", timeout=1)
        ann.send("Room.Say", "one")
        self.town.pump()
        self.assertEqual(self.successResultOf(first), "one")
        self.town.advance(1.2)
        self.failureResultOf(second, RequestTimeout)
        third = session.next("Room.Say", into=int)
        ann.send("Room.Say", "three")
        self.town.pump()
        self.failureResultOf(third, Refused)
        fourth = session.next("Room.Say")
        ann.leave()
        self.town.pump()
        self.failureResultOf(fourth, SessionEnded)
        self.assertEqual(ann.heard, [])

    def test_back_pressure(self) -> None:
        """Who waits for a handler is not handed more than that; when it ends, all comes."""
        self.app.bounds = Bounds(strand=4, requests=0)
        waits: Deferred[None] = Deferred()

        @self.app.handler("Room.Wait")
        async def wait(number: int) -> None:
            self.log.append(number)
            await waits

        ann = self.players[0]
        for number in range(20):
            ann.send("Room.Wait", number)
        self.town.pump(60)
        [mirror] = self.node._all_mirrors()
        self.assertEqual((len(mirror._backlog), self.log), (1, [0]))
        waits.callback(None)
        self.town.pump(100)
        self.assertEqual(self.log, list(range(20)))

    def test_backlog_is_bounded(self) -> None:
        """A peer that does not wait for its calls is refused past a bound."""
        self.app.bounds = Bounds(strand=2)

        @self.app.handler("Room.Wait")
        async def wait() -> None:
            await Deferred()

        peer = self.town.peer(9)
        call = made("NotifyMessage", gateAddr=peer.address, sessionId=1, route="Room.Wait")
        calls = [peer.call(BACK, "Member/HandleNotify", call) for _ in range(10)]
        self.town.pump()
        refused = self.failureResultOf(calls[-1], CallFailed)
        self.assertIn("too many messages", str(refused.value))
        [mirror] = self.node._all_mirrors()
        mirror.session.close()
        self.town.pump()
        for one in calls[3:-1]:
            self.failureResultOf(one, CallFailed)


class Roads(Cluster):
    """Who serves a session, and other nodes."""

    def serve(self, number: int, service: str = "Room") -> NanoMember:
        app = App()
        app.route(f"{service}.Where", lambda: number)
        node = self.town.node(NanoMember, number, app, master=MASTER)
        self.town.run(node.join())
        return node

    def test_sticky(self) -> None:
        """Who serves a session goes on to; when it leaves, another does."""
        nodes = {number: self.serve(number) for number in (4, 5, 6)}
        gate = self.gate()
        players = [Player(gate.app) for _ in range(20)]
        first = [self.ask(player, "Room.Where") for player in players]
        self.assertEqual(first, [self.ask(player, "Room.Where") for player in players])
        self.assertGreater(len(set(first)), 1)
        self.town.run(nodes[4].leave())
        self.town.pump()
        after = [self.ask(player, "Room.Where") for player in players]
        for was, now in zip(first, after, strict=True):
            self.assertEqual(now, now if was == 4 else was)
            self.assertNotEqual(now, 4)
        gate.unbind(players[0].session, "Room")
        gate.bind(players[0].session, "Room", "10.0.0.1:6")
        self.assertEqual(self.ask(players[0], "Room.Where"), 6)
        for number in (5, 6):
            self.town.run(nodes[number].leave())
        self.town.pump()
        with pytest.raises(Refused, match="404"):
            self.ask(players[0], "Room.Where")

    def test_route(self) -> None:
        """A function chooses who serves whom; nobody is a choice, and its fault is logged."""
        self.serve(4)
        self.serve(5)
        answers: list[Any] = []

        def choose(service: str, session: Session, offers: Any) -> Any:
            self.assertEqual(service, "Room")
            answer = answers.pop(0)
            return answer and next(one for one in offers if one.address == answer)

        gate = self.gate(route=choose)
        player = Player(gate.app)
        answers[:] = [None, "10.0.0.1:5", "nowhere"]
        with pytest.raises(Refused, match="503"):
            self.ask(player, "Room.Where")
        self.assertEqual(self.ask(player, "Room.Where"), 5)
        gate.unbind(player.session, "Room")
        with pytest.raises(Refused, match="503"):
            self.ask(player, "Room.Where")
        self.assertEqual(len(self.flushLoggedErrors(StopIteration)), 1)

    def test_rpc(self) -> None:
        """A backend says something to a third node, which pushes to the client itself."""
        back, third, gate = self.back(), App(), self.gate()

        @third.handler("Topic.Add")
        def add(session: Session, topic: str) -> None:
            session.send("onTopic", topic)

        @self.app.handler("Room.Topic")
        async def topic(session: Session, topic: str) -> str:
            await back.rpc(session, "Topic.Add", topic)
            return "added"

        self.town.run(self.town.node(NanoMember, 4, third, master=MASTER).join())
        self.town.pump()
        ann = Player(gate.app)
        self.assertEqual(self.ask(ann, "Room.Topic", "x"), "added")
        self.town.pump()
        self.assertEqual(ann.heard, [("onTopic", "x")])
        with pytest.raises(NoService, match=r"nobody else in the cluster serves 'Room.Join'"):
            back.rpc(next(iter(self.app.sessions.values())), "Room.Join", "x")
        self.town.run(gate.rpc(ann.session, "Topic.Add", "y"))
        self.town.pump()
        self.assertEqual(ann.heard[-1], ("onTopic", "y"))
        ann.leave()
        self.town.pump()
        self.assertEqual(third.sessions, {})
        with pytest.raises(SessionEnded):
            gate.rpc(ann.session, "Topic.Add", "z")
        with pytest.raises(LocalError, match="no session of this cluster"):
            back.rpc(Player(App()).session, "Topic.Add")

    def test_rpc_home(self) -> None:
        """A node says something to the gate itself: it is a message of the gate's own session."""
        back, front = self.back(), App()
        heard: list[Any] = []

        @front.handler("Gate.Note")
        def note(session: Session, text: str) -> None:
            heard.append((session.state, text))

        gate = self.gate(app=front)

        @self.app.handler("Room.Note")
        async def relay(session: Session) -> None:
            await back.rpc(session, "Gate.Note", "hi")

        ann = Player(front)
        ann.session.state = "ann"
        self.ask(ann, "Room.Note")
        self.assertEqual(heard, [("ann", "hi")])
        self.assertEqual(list(gate.app.sessions.values()), [ann.session])

    def test_same_number_at_two_gates(self) -> None:
        """Two gates give one number to two sessions: they are two."""
        self.back()
        one, two = self.town.peer(8), self.town.peer(9)
        for gate in (one, two):
            gate.ask(BACK, 5, "Room.Join", f'"{gate.address}"'.encode(), 1)
        self.town.pump()
        self.assertEqual(len(self.app.sessions), 2)
        self.assertEqual(len(one.told("HandleResponse")), 1)
        answer = read("ResponseMessage", two.told("HandleResponse")[0])
        self.assertEqual((answer.sessionId, answer.id), (5, 1))
        self.town.run(
            two.call(BACK, "Member/SessionClosed", made("SessionClosedRequest", sessionId=5))
        )
        self.assertEqual([session.state for session in self.app.sessions.values()], [one.address])

    def test_strand_of_all(self) -> None:
        """Where all sessions share a strand, nobody waits for another's call."""
        self.back()
        frozen = self.town.peer(7, HandleNotify=lambda _: Deferred())
        frozen.register(MASTER, "Frozen")
        gate = self.gate(app=App(strand=Strand()))
        ann, bob = Player(gate.app), Player(gate.app)
        ann.send("Frozen.Go")
        self.assertEqual(self.ask(bob, "Room.Join", "bob"), ["bob"])

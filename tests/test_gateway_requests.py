"""What the gateway answers to requests, without a gateway: the spec's words, and a model.

Rule: the model is the gateway's end that was written a second time from the spec; both carry out
the same days, and must answer alike.
"""

from __future__ import annotations

import contextlib
import json
from array import array
from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fastway.control import Want
from fastway.errors import BadControl
from fastway.gateway.groups import TIMES
from fastway.gateway.requests import (
    CLIENT_VERBS,
    CLIENT_WANTS,
    IDS,
    SLICE,
    SLICE_BYTES,
    Requests,
    Terms,
)
from tests.support.control import FACTS, FACTS_LINE, UNIX, ControlEnd, said
from tests.support.core import DETERMINISTIC
from tests.support.errors import raised


class ToyWorld:
    """What can be done, written down.

    Attributes:
        own: The server's connections -> the client's id.
        clients: All clients.
        said: What was answered.
        pushed: What was delivered: (conn_id, message).
    """

    def __init__(self) -> None:
        self.own: dict[int, int] = {}
        self.clients = {7}
        self.said: list[bytes] = []
        self.pushed: list[tuple[int, bytes]] = []
        self.kicked: list[tuple[int, int, str]] = []
        self.users: dict[int, str] = {}
        self.greetings = 0

    def say(self, message: bytes) -> None:
        self.said.append(message)

    def greeted(self) -> None:
        self.greetings += 1

    def unix(self) -> float:
        return UNIX

    def conns(self) -> dict[int, int]:
        return self.own

    def client(self, conn_id: int) -> int:
        return self.own[conn_id]

    def facts(self, client: int) -> bytes | None:
        there = client in self.clients or client in self.own.values()
        facts = {**FACTS, "client": client, "user": self.users.get(client)}
        return said(facts) if there else None

    def may_kick(self, client: int) -> bool:
        return client in self.own.values()

    def kick(self, client: int, code: int, text: str) -> None:
        self.kicked.append((client, code, text))

    def name(self, client: int, user: str) -> None:
        self.users[client] = user

    def multicast(self, conn_ids: array[int], message: bytes) -> Iterable[int]:
        self.pushed += [(one, message) for one in conn_ids if one in self.own]
        return [one for one in conn_ids if one not in self.own]


class RequestsCase(SynchronousTestCase):
    """A server that has been greeted."""

    def setUp(self) -> None:
        self.world = ToyWorld()
        self.requests = Requests(self.world, Terms("gw1", "0.1.0"))
        self.ask({"op": "hello", "id": 0, "v": 1, "want": ["open", "later"]})

    def ask(self, fields: dict[str, Any], payload: bytes | None = None) -> Any:
        """A request that is carried out to its end; the answer."""
        message = said(fields) + (b"" if payload is None else b"\n" + payload)
        self.steps = 1
        job = self.requests.receive(message)
        while job is not None:
            self.steps += 1
            job = None if next(job, job) is job else job
        answers, self.world.said = self.world.said, []
        assert len(answers) <= 1
        return json.loads(answers[0]) if answers else None

    def no(self, error: str, **fields: Any) -> None:
        """It is answered by that error."""
        payload = fields.pop("payload", None)
        answer = self.ask({"id": 9, **fields}, payload)
        self.assertEqual((answer["id"], answer["ok"], answer["error"]), (9, False, error), fields)
        self.assertEqual(set(answer), {"id", "ok", "error", "text"})


class AnswerTests(RequestsCase):
    """Each verb."""

    def test_hello(self) -> None:
        """It comes first, and once; wishes that are not known are none."""
        fresh = Requests(self.world, Terms("gw1", "0.1.0", max_packet=4096))
        self.assertEqual(self.requests.want, {Want.OPEN})
        self.requests = fresh
        self.no("invalid", op="time")
        self.no("invalid", op="hello")
        self.no("invalid", op="hello", v=2)
        self.no("invalid", op="hello", v=1, want="open")
        self.assertEqual((fresh.want, self.world.greetings), (None, 1))
        answer = self.ask({"op": "hello", "id": 3, "v": 1})
        self.assertEqual(
            answer,
            {
                "id": 3,
                "ok": True,
                "v": 1,
                "gateway": "gw1",
                "version": "0.1.0",
                "features": ["groups"],
                "max_packet": 4096,
            },
        )
        self.assertEqual((fresh.want, self.world.greetings), (frozenset(), 2))
        self.no("invalid", op="hello", v=1)

    def test_who(self) -> None:
        """The facts are as the spec prints them."""
        self.requests.receive(b'{"op":"who","id":1,"client":7}')
        self.assertEqual(self.world.said.pop(), b'{"id":1,"ok":true,' + FACTS_LINE[1:])
        self.world.own[5] = 8
        self.assertEqual(self.ask({"op": "who", "id": 2, "conn": 5})["client"], 8)
        self.no("gone", op="who", client=9)
        self.no("gone", op="who", conn=7)
        self.no("invalid", op="who")
        self.no("invalid", op="who", client=0)

    def test_kick(self) -> None:
        """Code and text arrive."""
        self.world.own[5] = 8
        self.assertEqual(self.ask({"op": "kick", "id": 1, "client": 8}), {"id": 1, "ok": True})
        self.ask({"op": "kick", "id": 1, "client": 8, "code": 4321, "text": "no \u00fc"})
        self.assertEqual(self.world.kicked, [(8, 4000, ""), (8, 4321, "no \u00fc")])
        self.no("denied", op="kick", client=7)
        for code in (999, 5000, 1005, 1006, "x"):
            self.no("invalid", op="kick", client=8, code=code)
        self.no("invalid", op="kick", client=8, text="a\nb")
        self.assertEqual(len(self.world.kicked), 2)

    def test_user(self) -> None:
        """A name is bound to the client of a connection of its own."""
        self.world.own[5] = 8
        self.assertEqual(self.ask({"op": "user", "id": 1, "conn": 5, "user": "ann"})["ok"], True)
        self.assertEqual(self.world.users, {8: "ann"})
        self.no("gone", op="user", conn=6, user="ann")
        for user in ("", "x" * 129, "a\x7f", 7, None):
            self.no("invalid", op="user", conn=5, user=user)

    def test_time(self) -> None:
        self.assertEqual(self.ask({"op": "time", "id": 1}), {"id": 1, "ok": True, "unix": UNIX})

    def test_no_number(self) -> None:
        """Without an id it is carried out, and nothing is answered."""
        self.world.own[5] = 8
        self.assertIsNone(self.ask({"op": "user", "conn": 5, "user": "ann"}))
        self.assertIsNone(self.ask({"op": "user", "conn": 6, "user": "ann"}))
        self.assertEqual(self.world.users, {8: "ann"})

    def test_unknown(self) -> None:
        """Unknown verbs have an answer, unknown fields none; no verb has bytes but push."""
        self.no("unknown", op="dance")
        self.assertTrue(self.ask({"op": "time", "id": 1, "more": [1, {}]})["ok"])
        self.assertTrue(self.ask({"op": "time", "id": 1}, b"")["ok"])
        self.no("invalid", op="time", payload=b"x")
        self.no("invalid", op="push", all=True)

    def test_client(self) -> None:
        """A client may greet and ask for the time."""
        self.requests = Requests(self.world, Terms(), CLIENT_VERBS, CLIENT_WANTS)
        answer = self.ask({"op": "hello", "id": 1, "v": 1, "want": ["open", "drain", "inline"]})
        self.assertEqual((answer["features"], self.requests.want), ([], {Want.DRAIN}))
        self.assertTrue(self.ask({"op": "time", "id": 1})["ok"])
        for verb in ("who", "kick", "user", "join", "leave", "push"):
            self.no("unknown", op=verb, client=7, conn=1, group="g", conns=[], payload=b"")

    def test_not_understood(self) -> None:
        """What is no object, has no verb, or a number that is none."""
        for message in (
            b"",
            b"\xff",
            b"[]",
            b"{",
            b"[" * 100_000,
            b"{}",
            b'{"op":1}',
            b'{"op":"time","id":-1}',
            b'{"op":"time","id":"1"}',
            b'{"op":"time","id":NaN}',
            b'{"a":' * 60 + b"1" + b"}" * 60,
            b" " * (64 * 1024 + 1),
        ):
            raised(BadControl, self.requests.receive, message)
        self.assertEqual(self.world.said, [])

    @settings(DETERMINISTIC, max_examples=300)
    @given(st.binary(max_size=80))
    def test_any_bytes(self, message: bytes) -> None:
        """BadControl, or it is answered; never anything else."""
        with contextlib.suppress(BadControl):
            self.requests.receive(message)

    @settings(DETERMINISTIC, max_examples=300)
    @given(
        st.fixed_dictionaries(
            {"op": st.sampled_from(["who", "kick", "user", "join", "leave", "push", "time"])},
            optional={
                name: st.one_of(
                    st.none(),
                    st.booleans(),
                    st.integers(-1, 2**32),
                    st.floats(),
                    st.text(max_size=4),
                    st.lists(st.integers(-1, 9), max_size=4),
                    st.dictionaries(st.text(max_size=2), st.none(), max_size=2),
                )
                for name in (
                    "client",
                    "conn",
                    "conns",
                    "group",
                    "user",
                    "code",
                    "text",
                    "all",
                    "but",
                )
            },
        ),
        st.one_of(st.none(), st.binary(max_size=4)),
    )
    def test_any_fields(self, fields: dict[str, Any], payload: bytes | None) -> None:
        """Wrong types are answered, and nothing is left half done."""
        self.world.own = {1: 7, 2: 8}
        try:
            message = json.dumps({**fields, "id": 1}, allow_nan=False).encode()
        except ValueError:
            return
        job = self.requests.receive(message + (b"" if payload is None else b"\n" + payload))
        self.assertIsNone(job)
        answer = json.loads(self.world.said.pop())
        self.assertEqual(answer["id"], 1)
        self.assertIn(answer.get("error"), (None, "invalid", "gone", "denied", "full"))


class GroupTests(RequestsCase):
    """Groups, pushes, and their bounds."""

    def setUp(self) -> None:
        super().setUp()
        self.requests = Requests(self.world, Terms(groups=3, group_members=4))
        self.ask({"op": "hello", "id": 0, "v": 1})
        self.world.own = {number: number + 100 for number in range(1, 7)}

    def join(self, group: str, *conns: int) -> Any:
        return self.ask({"op": "join", "id": 1, "group": group, "conns": conns})

    def leave(self, group: str, *conns: int) -> Any:
        return self.ask({"op": "leave", "id": 1, "group": group, "conns": conns})

    def push(self, **fields: Any) -> tuple[int, list[int], list[int]]:
        """How many, who was missing, who got it."""
        self.world.pushed.clear()
        answer = self.ask({"op": "push", "id": 1, **fields}, b"m")
        self.assertTrue(all(message == b"m" for _, message in self.world.pushed))
        return answer["sent"], answer["missing"], [one for one, _ in self.world.pushed]

    def test_members(self) -> None:
        """Joining twice is joining once; who is not there does not count, nor who has left."""
        self.assertEqual(self.join("g", 1, 2, 2, 99)["members"], 2)
        self.assertEqual(self.join("g", 2, 3)["members"], 3)
        self.assertEqual(self.push(group="g"), (3, [], [1, 2, 3]))
        self.assertEqual(self.leave("g", 2, 99)["members"], 2)
        self.assertEqual(self.push(group="g", but=[3, 98]), (1, [], [1]))
        self.assertEqual(self.leave("g", 1, 3)["members"], 0)
        self.no("gone", op="leave", group="g", conns=[1])
        self.no("gone", op="push", group="g", payload=b"")
        self.assertEqual(self.join("g", 98)["members"], 0)
        self.no("gone", op="leave", group="g", conns=[])

    def test_closed(self) -> None:
        """A connection that closes is in no group; its number may be another's."""
        self.join("g", 1, 2)
        self.join("h", 1)
        del self.world.own[1]
        self.requests.groups.conn_closed(1)
        self.no("gone", op="push", group="h", payload=b"")
        self.world.own[1] = 55
        self.assertEqual(self.push(group="g"), (1, [], [2]))
        self.assertEqual(self.requests.groups.memberships, 1)

    def test_bounds(self) -> None:
        """Members, groups, and members of all groups; what is refused changes nothing."""
        self.assertEqual(self.join("g", 1, 2, 3, 4)["members"], 4)
        self.no("full", op="join", group="g", conns=[5])
        self.assertTrue(self.join("g", 1)["ok"])
        self.join("h", 1)
        self.join("i", 1)
        self.no("full", op="join", group="j", conns=[1])
        self.assertEqual(self.join("j")["members"], 0)
        self.assertEqual(len(self.requests.groups), 3)
        self.requests.groups.memberships = TIMES * 4
        self.no("full", op="join", group="h", conns=[2])

    def test_push(self) -> None:
        """To some, to all, and to those left; one of the three."""
        self.assertEqual(self.push(conns=[3, 99, 1, 3]), (2, [99], [3, 1]))
        self.assertEqual(self.push(all=True, but=[2, 3, 4]), (3, [], [1, 5, 6]))
        self.assertEqual(self.push(conns=[]), (0, [], []))
        for fields in (
            {},
            {"all": False},
            {"all": 1},
            {"all": True, "group": "g"},
            {"conns": [1], "group": "g"},
            {"conns": [0]},
            {"conns": [2**32]},
            {"all": True, "but": 7},
        ):
            self.no("invalid", op="push", payload=b"", **fields)

    def test_slices(self) -> None:
        """A long push and a long join are done in steps, and see who closed meanwhile."""
        count = 2 * SLICE + 1
        self.requests = Requests(self.world, Terms())
        self.ask({"op": "hello", "id": 0, "v": 1})
        self.world.own = dict.fromkeys(range(1, count + 1), 7)
        self.assertEqual(self.push(all=True)[0], count)
        self.assertEqual(self.steps, 3)
        large = b"x" * (SLICE_BYTES // 2)
        self.ask({"op": "push", "id": 1, "conns": [1, 2, 3]}, large)
        self.assertEqual(self.steps, 3)
        job = self.requests.receive(said({"op": "push", "id": 1, "all": True}) + b"\n")
        assert job is not None
        del self.world.own[count]
        while next(job, job) is not job:
            pass
        answer = json.loads(self.world.said.pop())
        self.assertEqual((answer["sent"], answer["missing"]), (count - 1, [count]))
        self.world.own = dict.fromkeys(range(1, 10_000), 7)
        some = list(range(1, IDS + 2))
        self.assertEqual(self.join("g", *some)["members"], IDS + 1)
        self.assertEqual(self.steps, 3)
        self.assertEqual(self.leave("g", *some)["members"], 0)

    def test_over(self) -> None:
        """What ends in the middle of a push is not answered."""
        self.world.own = dict.fromkeys(range(1, SLICE + 2), 7)
        job = self.requests.receive(said({"op": "push", "id": 1, "all": True}) + b"\n")
        assert job is not None
        self.requests.over = True
        while next(job, job) is not job:
            pass
        self.assertEqual((self.world.said, len(self.world.pushed)), ([], SLICE))

    def test_many_missing(self) -> None:
        """The answer fits a message, however many are missing."""
        conns = list(range(4_000_000_000, 4_000_000_000 + 5900))
        answer = self.ask({"op": "push", "id": 1, "conns": conns}, b"")
        self.assertEqual((answer["sent"], answer["missing"]), (0, conns))


CONNS = st.lists(st.integers(1, 6), max_size=4)
GROUPS = st.sampled_from(["a", "b", "c"])


class GroupMachine(RuleBasedStateMachine):
    """Random days of groups: the same answers, and the same deliveries, as the model's."""

    @initialize()
    def begin(self) -> None:
        self.number = 0
        self.model = ControlEnd(group_members=3)
        self.world = ToyWorld()
        self.world.own = self.model.conns
        self.requests = Requests(self.world, Terms("gw1", "0.1.0", groups=3, group_members=3))
        self.ask({"op": "hello", "v": 1, "want": []})

    def ask(self, fields: dict[str, Any], payload: bytes | None = None) -> None:
        self.number += 1
        message = said({**fields, "id": self.number})
        message += b"" if payload is None else b"\n" + payload
        assert self.requests.receive(message) is None
        before = len(self.model.pushed)
        self.model.hear(message)
        mine, theirs = (
            json.loads(one) for one in (self.world.said.pop(), self.model.answers.pop(self.number))
        )
        if theirs["ok"]:
            assert mine == theirs, (message, mine, theirs)
        else:
            assert (mine["ok"], mine["error"]) == (False, theirs["error"]), (message, mine)
        assert sorted(self.world.pushed) == sorted(self.model.pushed[before:])
        self.world.pushed.clear()

    @rule(conn_id=st.integers(1, 6))
    def open_or_close(self, conn_id: int) -> None:
        if conn_id in self.model.conns:
            self.model.close(conn_id)
            self.requests.groups.conn_closed(conn_id)
        else:
            self.model.open(conn_id, conn_id + 10)

    @rule(group=GROUPS, conns=CONNS)
    def join(self, group: str, conns: list[int]) -> None:
        self.ask({"op": "join", "group": group, "conns": conns})

    @rule(group=GROUPS, conns=CONNS)
    def leave(self, group: str, conns: list[int]) -> None:
        self.ask({"op": "leave", "group": group, "conns": conns})

    @rule(
        to=st.one_of(
            GROUPS.map(lambda one: {"group": one}),
            st.just({"all": True}),
            st.lists(st.integers(1, 6), max_size=4, unique=True).map(lambda one: {"conns": one}),
        ),
        but=CONNS,
        payload=st.binary(max_size=3),
    )
    def push(self, to: dict[str, Any], but: list[int], payload: bytes) -> None:
        self.ask({"op": "push", **to, **({"but": but} if but else {})}, payload)

    @rule(conn=st.integers(1, 6))
    def name(self, conn: int) -> None:
        self.ask({"op": "user", "conn": conn, "user": f"user {conn}"})

    @invariant()
    def groups_are_alike(self) -> None:
        if not hasattr(self, "model"):
            return
        groups = self.requests.groups
        assert len(groups) == len(self.model.groups)
        for name, members in self.model.groups.items():
            group = groups.get(name)
            assert group is not None and set(group.ids) == set(group.members) == members
        assert groups.memberships == sum(map(len, self.model.groups.values()))


class MachineTests(SynchronousTestCase):
    def test_days(self) -> None:
        run_state_machine_as_test(
            GroupMachine,
            settings=settings(DETERMINISTIC, max_examples=60, stateful_step_count=40),
        )

"""Tests of fastway.router against a model: random days of a gateway, checked after each step.

Rule: the model keeps one flat table of virtual connections and looks everything up the slow way,
so that it shares no mistake with the router's dictionaries. What the router leaves for later the
model leaves for later too, step by step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fastway import router as router_module
from fastway.errors import Reason
from fastway.router import IdConflict, IdRange, Limits, Link, Pending, Refusal, Router, Side
from fastway.wire import (
    MAX_ID,
    FrameReader,
    encode_accept,
    encode_close,
    encode_connect,
    encode_dial,
    encode_packet,
    encode_refuse,
)
from tests.support.core import DETERMINISTIC, ListLink, cut

SERVER_IDS = st.integers(0, 2)
PICKS = st.integers(0, 11)
"""Which of the things that there are; counted round and round."""

GARBAGE = [
    b"",  # no type
    b"\x00\x01\x00",  # short args
    b"\x04",
    b"\x01" + bytes(8),  # types that an end must not send
    b"\x02" + bytes(8),
    b"\x03" + bytes(4),
    b"\x06",  # no such type
    b"\xff" * 9,
]

LATER, NOW = 0x40000000, 0x50000000
"""Remote ids from here on are looked up by a Pending: resolved later, or before it is returned."""

SLICE = 1
"""Steps that are done at once, so that little makes them many."""

WHOLE = (1, MAX_ID)

OFTEN = ["dial", "dial later", "send", "send", "close"]
SELDOM = ["dial now", "ping", "dial unknown", "send unknown", "close unknown", "close foreign"]
FATAL = ["send foreign", "garbage"]

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(OFTEN + OFTEN + SELDOM + FATAL),
        PICKS,
        st.binary(max_size=3),
    ),
    min_size=2,
    max_size=8,
)


@dataclass
class Conn:
    """A virtual connection, as the model keeps it."""

    conn_id: int
    ends: tuple[ListLink, ListLink]

    def other(self, end: ListLink) -> ListLink:
        return self.ends[1] if end is self.ends[0] else self.ends[0]


@dataclass
class Waiting:
    """A dial that was not answered, as the model keeps it."""

    remote_id: int
    known: bool
    remote: ListLink | None = None
    refusal: Refusal | None = None


class RouterMachine(RuleBasedStateMachine):
    """A router and its model, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits()
        self.router = Router(self.limits)
        self.live: list[ListLink] = []
        self.gone: list[ListLink] = []
        self.conns: list[Conn] = []
        self.wanted: dict[ListLink, list[bytes]] = {}
        self.reasons: dict[ListLink, Reason] = {}
        self.conn_range = self.client_range = WHOLE
        self.last_client_id = 0
        self.last_conn_id = 0
        self.looks_up = False
        self.expected: list[tuple[ListLink, Waiting]] = []
        """Dials that the model has seen and the router will ask the look-up for."""
        self.promises: list[tuple[Pending, ListLink, Waiting]] = []
        self.waiting: dict[ListLink, list[Waiting]] = {}
        self.jobs: list[Callable[[], bool]] = []
        self.gained: Counter[Side] = Counter()
        self.lost: Counter[tuple[Side, Reason]] = Counter()
        self.refused: Counter[Refusal] = Counter()
        self.count: Counter[str] = Counter()

    # The model.

    def new_id(self, last: int, within: tuple[int, int], taken: set[int]) -> int:
        """0 when all are taken; no range here is both small and larger than 15."""
        low, high = within
        if len(taken) > high - low:
            return 0
        following = last + 1 if last < high else low
        return self.new_id(following, within, taken) if following in taken else following

    def newest(self, side: Side, link_id: int) -> ListLink | None:
        for link in reversed(self.live):
            if link.side is side and link.link_id == link_id:
                return link
        return None

    def conns_of(self, link: ListLink) -> list[Conn]:
        return [conn for conn in self.conns if link in conn.ends]

    def foreign_to(self, link: ListLink) -> list[Conn]:
        return [conn for conn in self.conns if link not in conn.ends]

    def unknown_id(self, pick: int) -> int:
        """A connection id that is not in use; low ones and 2**32 - 1 first, closed or never."""
        used = {conn.conn_id for conn in self.conns}
        candidates: list[int] = [MAX_ID, *range(1, 60)]
        return [conn_id for conn_id in candidates if conn_id not in used][pick]

    def model_add(self, link: ListLink) -> None:
        self.live.append(link)
        self.wanted[link] = []
        self.waiting[link] = []
        self.gained[link.side] += 1

    def tell(self, link: ListLink, packet: bytes) -> None:
        if link in self.live:
            self.wanted[link].append(packet)

    def model_lose(self, link: ListLink, reason: Reason) -> None:
        self.live.remove(link)
        self.gone.append(link)
        self.reasons[link] = reason
        self.lost[link.side, reason] += 1
        self.refused[Refusal.GONE] += len(self.waiting[link])
        self.waiting[link].clear()
        ends = self.conns_of(link)

        def tell_next() -> bool:
            if not ends:
                return False
            conn = ends.pop(0)
            if conn in self.conns:
                self.conns.remove(conn)
                self.count["closed"] += 1
                self.tell(conn.other(link), encode_close(conn.conn_id))
            return True

        self.model_begin(tell_next)

    def model_begin(self, step: Callable[[], bool]) -> None:
        if all(step() for _ in range(SLICE)):
            self.jobs.append(step)

    def model_work(self, steps: int) -> None:
        while self.jobs and steps:
            if self.jobs[0]():
                steps -= 1
            else:
                del self.jobs[0]

    def model_dial(self, link: ListLink, remote_id: int) -> None:
        self.count["dials"] += 1
        waiting = self.waiting[link]
        client = link.side is Side.CLIENT
        limits = self.limits
        if self.looks_up and len(waiting) >= (
            limits.client_max_dials if client else limits.server_max_dials
        ):
            self.model_lose(link, Reason.TOO_MANY_DIALS)
            self.refused[Refusal.GONE] += 1
            return
        side = Side.SERVER if client else Side.CLIENT
        dial = Waiting(remote_id, True)
        promised = False
        open_or_asked = len(self.conns_of(link)) + len(waiting)
        if self.looks_up and client and 0 < limits.client_max_conn <= open_or_asked:
            dial.refusal = Refusal.LIMIT
        elif self.looks_up and LATER <= remote_id < NOW:
            promised = True
            dial.known = False
            # The router makes its Pending when it gets there; `look_up` brings the two together.
            self.expected.append((link, dial))
        elif self.looks_up and NOW <= remote_id < 0x60000000:
            promised = True
            dial.remote = self.newest(side, remote_id - NOW)
        else:
            dial.remote = self.newest(side, remote_id)
        if not waiting and not promised:
            self.model_answer(link, dial)
            return
        waiting.append(dial)
        if waiting[0] is dial:
            self.model_resolved(link)

    def model_resolved(self, link: ListLink) -> None:
        def answer_next() -> bool:
            waiting = self.waiting[link]
            if not waiting or not waiting[0].known:
                return False
            self.model_answer(link, waiting.pop(0))
            return True

        self.model_begin(answer_next)

    def model_answer(self, link: ListLink, dial: Waiting) -> None:
        remote, refusal = dial.remote, dial.refusal
        taken = {conn.conn_id for conn in self.conns}
        conn_id = self.new_id(self.last_conn_id, self.conn_range, taken)
        if refusal is not None:
            pass
        elif remote not in self.live or remote is None:
            refusal = Refusal.UNKNOWN
        elif remote.side is Side.SERVER and 0 < self.limits.client_max_conn <= len(
            self.conns_of(link)
        ):
            refusal = Refusal.LIMIT
        elif remote.side is Side.CLIENT and 0 < self.limits.client_max_total <= len(
            self.conns_of(remote)
        ):
            refusal = Refusal.REMOTE_LIMIT
        elif remote.full:
            refusal = Refusal.BUSY
        elif not conn_id:
            refusal = Refusal.NO_ID
        if remote is None or refusal is not None:
            assert refusal is not None
            self.refused[refusal] += 1
            self.wanted[link].append(encode_refuse(dial.remote_id))
            return
        self.last_conn_id = conn_id
        self.conns.append(Conn(conn_id, (link, remote)))
        self.count["accepted"] += 1
        self.wanted[link].append(encode_accept(conn_id, dial.remote_id))
        self.wanted[remote].append(encode_connect(conn_id, link.link_id))

    def model_send(self, link: ListLink, conn_id: int, packet: bytes) -> None:
        for conn in self.conns:
            if conn.conn_id == conn_id:
                if link in conn.ends:
                    other = conn.other(link)
                    self.tell(other, packet)
                    self.count["packets"] += other in self.live
                    self.count["bytes"] += len(packet) * (other in self.live)
                else:
                    self.model_lose(link, Reason.NOT_OWNER)
                return
        self.wanted[link].append(encode_close(conn_id))
        self.count["strays"] += 1

    def model_close(self, link: ListLink, conn_id: int) -> None:
        for conn in self.conns:
            if conn.conn_id == conn_id:
                if link in conn.ends:
                    self.conns.remove(conn)
                    self.count["closed"] += 1
                    for end in conn.ends:
                        self.tell(end, encode_close(conn_id))
                else:
                    self.count["foreign"] += 1
                return

    def act(self, link: ListLink, action: str, pick: int, message: bytes) -> bytes:
        """Let the model do what the link does; returns the bytes that ask the router for it."""
        verb, _, whose = action.partition(" ")
        if verb == "ping":
            packet = encode_packet(0, b"\x05" + message)
            self.wanted[link].append(packet)
            self.count["pings"] += 1
            return packet
        if verb == "garbage":
            self.model_lose(link, Reason.BAD_COMMAND)
            return encode_packet(0, GARBAGE[pick % len(GARBAGE)])
        if verb == "dial":
            remotes = [other for other in self.live if other.side is not link.side]
            if whose == "later":
                remote_id = LATER + pick
            elif whose == "unknown" or not remotes:
                remote_id = 0x7FFFFF00 + pick
            else:
                remote_id = remotes[pick % len(remotes)].link_id
                if whose == "now" and remote_id < 0x60000000 - NOW:  # not those that wrap
                    remote_id += NOW
            self.model_dial(link, remote_id)
            return encode_dial(remote_id)
        choice = self.foreign_to(link) if whose == "foreign" else self.conns_of(link)
        if whose == "unknown" or not choice:
            conn_id = self.unknown_id(pick)
        else:
            conn_id = choice[pick % len(choice)].conn_id
        if verb == "close":
            self.model_close(link, conn_id)
            return encode_close(conn_id)
        packet = encode_packet(conn_id, message)
        self.model_send(link, conn_id, packet)
        return packet

    def look_up(self, link: Link, remote_id: int) -> Link | Pending | None:
        side = Side.SERVER if link.side is Side.CLIENT else Side.CLIENT
        if not LATER <= remote_id < 0x60000000:
            return self.router.find(side, remote_id)
        pending = Pending()
        if remote_id >= NOW:
            pending.resolve(self.router.find(side, remote_id - NOW))
        else:
            dialler, dial = self.expected.pop(0)
            assert (dialler, dial.remote_id) == (link, remote_id)
            self.promises.append((pending, dialler, dial))
        return pending

    # What happens.

    @initialize(
        policy=st.sampled_from(IdConflict),
        max_conn=st.sampled_from([4, 2, 0]),
        max_total=st.sampled_from([5, 3, 0]),
        conn_range=st.sampled_from([WHOLE, (5, 11)]),
        client_range=st.sampled_from([WHOLE, (3, 8)]),
        max_dials=st.sampled_from([None, (3, 5)]),
        dials=st.lists(st.tuples(PICKS, PICKS), min_size=3, max_size=10),
    )
    def start(
        self,
        policy: IdConflict,
        max_conn: int,
        max_total: int,
        conn_range: tuple[int, int],
        client_range: tuple[int, int],
        max_dials: tuple[int, int] | None,
        dials: list[tuple[int, int]],
    ) -> None:
        """A few links that talk already: from nothing, a random day seldom gets that far."""
        self.limits.server_id_conflict = policy
        self.limits.client_max_conn = max_conn
        self.limits.client_max_total = max_total
        self.conn_range, self.client_range = conn_range, client_range
        self.router.conn_range = IdRange(*conn_range)
        self.router.client_range = IdRange(*client_range)
        self.last_conn_id, self.last_client_id = conn_range[0] - 1, client_range[0] - 1
        if max_dials is not None:
            self.limits.client_max_dials, self.limits.server_max_dials = max_dials
            self.looks_up = True
            self.router.look_up = self.look_up
        for server_id in (0, 1):
            self.connect()
            self.connect()
            self.login(server_id)
        for pick, other_pick in dials:
            self.dial(pick, other_pick)

    @rule()
    def connect(self) -> None:
        link = ListLink(Side.CLIENT)
        taken = {other.link_id for other in self.live if other.side is Side.CLIENT}
        link_id = self.new_id(self.last_client_id, self.client_range, taken)
        self.router.add_client(link)
        if not link_id:
            assert link.disconnected == [(Reason.NO_ID, "")]
            self.count["turned away"] += 1
            return
        self.last_client_id = link_id
        self.model_add(link)
        assert link.link_id == link_id

    @rule(server_id=SERVER_IDS)
    def login(self, server_id: int) -> None:
        link = ListLink(Side.SERVER)
        older = [
            other
            for other in self.live
            if other.side is Side.SERVER and other.link_id == server_id
        ]
        self.router.add_server(link, server_id)
        self.model_add(link)
        policy = self.limits.server_id_conflict
        if older and policy is IdConflict.REJECT:
            self.model_lose(link, Reason.ID_IN_USE)
        elif policy is IdConflict.EVICT:
            for other in older:
                self.model_lose(other, Reason.EVICTED)

    @precondition(lambda self: self.live)
    @rule(pick=PICKS, other_pick=PICKS)
    def dial(self, pick: int, other_pick: int) -> None:
        link = self.live[pick % len(self.live)]
        data = self.act(link, "dial", other_pick, b"")
        self.router.receive(link, FrameReader().feed(data))

    @precondition(lambda self: self.live)
    @rule(pick=PICKS, actions=ACTIONS, places=st.lists(st.integers(0, 60), max_size=3))
    def talk(self, pick: int, actions: list[tuple[str, int, bytes]], places: list[int]) -> None:
        """A link sends several packets, in one read or in a few."""
        link = self.live[pick % len(self.live)]
        data = b""
        for action, other_pick, message in actions:
            if link in self.live:
                data += self.act(link, action, other_pick, message)
            else:  # The model has lost it: what follows must have no effect.
                data += encode_packet(0, b"\x05") + encode_dial(other_pick % 3)
        reader = FrameReader()
        for piece in cut(data, places):
            if link.lost is None:  # the shell's duty
                self.router.receive(link, reader.feed(piece))

    @precondition(lambda self: self.conns)
    @rule(pick=PICKS, count=st.integers(2, 5))
    def stream(self, pick: int, count: int) -> None:
        """An end sends a run of packets over one virtual connection."""
        conn = self.conns[pick % len(self.conns)]
        packet = encode_packet(conn.conn_id, bytes([count]))
        if conn.ends[0] in self.live:
            for _ in range(count):
                self.model_send(conn.ends[0], conn.conn_id, packet)
        self.router.receive(conn.ends[0], FrameReader().feed(packet * count))

    @precondition(lambda self: self.conns)
    @rule(pick=PICKS, end=st.integers(0, 1))
    def close(self, pick: int, end: int) -> None:
        """The router's own close, as an operator's command would call it."""
        conn = self.conns[pick % len(self.conns)]
        self.router.close(conn.ends[end], conn.conn_id)
        self.model_close(conn.ends[end], conn.conn_id)

    @precondition(lambda self: self.live)
    @rule(pick=PICKS, reason=st.sampled_from(Reason))
    def vanish(self, pick: int, reason: Reason) -> None:
        link = self.live[pick % len(self.live)]
        self.router.lose(link, reason)
        self.model_lose(link, reason)

    @precondition(lambda self: self.promises)
    @rule(pick=PICKS, other_pick=PICKS, found=st.sampled_from([True, True, False]))
    def answer(self, pick: int, other_pick: int, found: bool) -> None:
        """A look-up knows: a link that lives or has gone, or nobody. It may say so twice."""
        pending, link, dial = self.promises[pick % len(self.promises)]
        remotes = [
            other for other in self.live + self.gone if other.side is not link.side and other.known
        ]
        remote = remotes[other_pick % len(remotes)] if remotes and found else None
        pending.resolve(remote)
        if not dial.known:
            dial.known, dial.remote = True, remote
            if self.waiting[link] and self.waiting[link][0] is dial:
                self.model_resolved(link)

    @precondition(lambda self: self.jobs)
    @rule(steps=st.integers(0, 7))
    def work(self, steps: int) -> None:
        """The shell has time for what was left."""
        assert self.router.work(steps) == self.router.unfinished
        self.model_work(steps)

    @precondition(lambda self: self.gone)
    @rule(pick=PICKS, reason=st.sampled_from(Reason))
    def vanish_again(self, pick: int, reason: Reason) -> None:
        self.router.lose(self.gone[pick % len(self.gone)], reason)

    @rule(reason=st.sampled_from(Reason), side=st.sampled_from(Side))
    def turn_away(self, reason: Reason, side: Side) -> None:
        """A connection that never got an id goes."""
        self.router.lose(ListLink(side), reason)
        self.count["turned away"] += 1

    @precondition(lambda self: self.live)
    @rule(pick=PICKS)
    def fill_or_drain(self, pick: int) -> None:
        link = self.live[pick % len(self.live)]
        link.full = not link.full

    # What must hold.

    @invariant()
    def delivered(self) -> None:
        """Each link got what the model expects, in order, and a lost one nothing since."""
        for link, wanted in self.wanted.items():
            assert link.sent == wanted

    @invariant()
    def ends_agree(self) -> None:
        """a.peers[c] is b exactly when b.peers[c] is a, and they are the model's pairs."""
        pairs = set()
        for link in self.live + self.gone:
            for conn_id, peer in link.peers.items():
                assert peer.peers[conn_id] is link
                assert peer is not link
                assert peer.side is not link.side
                pairs.add((conn_id, frozenset((link, peer))))
        assert pairs == {(conn.conn_id, frozenset(conn.ends)) for conn in self.conns}

    @invariant()
    def conn_ids_are_the_peers_keys(self) -> None:
        """The ids in use are those of the links' connections, each at two ends, in the range."""
        keys = Counter(conn_id for link in self.live + self.gone for conn_id in link.peers)
        assert set(keys) == self.router.conn_ids
        assert set(keys.values()) <= {2}
        assert all(self.conn_range[0] <= conn_id <= self.conn_range[1] for conn_id in keys)
        assert len(self.conns) == len(keys)

    @invariant()
    def links_are_found(self) -> None:
        """The router lists the live links, and a dial finds the newest with an id."""
        assert set(self.router.links()) == set(self.live)
        assert len(list(self.router.links())) == len(self.live)
        assert all(self.router.servers.values())
        for link in self.live:
            assert self.router.find(link.side, link.link_id) is self.newest(
                link.side, link.link_id
            )
        clients = [link.link_id for link in self.live if link.side is Side.CLIENT]
        assert len(set(clients)) == len(clients)
        assert all(self.client_range[0] <= link_id <= self.client_range[1] for link_id in clients)

    @invariant()
    def nothing_leaks(self) -> None:
        """A link that went holds nothing once all is told, and was disconnected once, rightly."""
        assert self.router.unfinished == bool(self.jobs)
        assert self.expected == []
        for link in self.gone:
            assert link.peers == {} or self.jobs
            assert link.dials is None
            assert link.lost is self.reasons[link]
            assert [reason for reason, _ in link.disconnected] == [self.reasons[link]]
        for link in self.live:
            assert link.lost is None
            assert link.disconnected == []
            assert len(link.dials or ()) == len(self.waiting[link])
            assert link.dials is None or link.dials

    @invariant()
    def counters_add_up(self) -> None:
        stats = self.router.stats
        assert stats.gained == self.gained
        assert stats.lost == self.lost
        assert stats.refused == self.refused
        for side in Side:
            live = sum(link.side is side for link in self.live)
            lost = sum(count for (where, _), count in stats.lost.items() if where is side)
            assert stats.gained[side] == live + lost
        waiting = self.router.dials_waiting
        assert waiting == sum(map(len, self.waiting.values()))
        assert stats.dials == stats.accepted + sum(stats.refused.values()) + waiting
        assert stats.accepted == len(self.router.conn_ids) + stats.closed
        assert sum(stats.turned_away.values()) == self.count["turned away"]
        assert stats.dials == self.count["dials"]
        assert stats.accepted == self.count["accepted"]
        assert stats.closed == self.count["closed"]
        assert stats.packets == self.count["packets"]
        assert stats.bytes == self.count["bytes"]
        assert stats.strays == self.count["strays"]
        assert stats.foreign_closes == self.count["foreign"]
        assert stats.pings == self.count["pings"]


class WrappingMachine(RouterMachine):
    """The same, with the counters near the end of their ranges again and again."""

    @rule(conn_steps=st.integers(0, 2), client_steps=st.integers(0, 2))
    def four_billion_later(self, conn_steps: int, client_steps: int) -> None:
        self.last_conn_id = self.router.conn_range.last = self.conn_range[1] - conn_steps
        self.last_client_id = self.router.client_range.last = self.client_range[1] - client_steps


class MachineTests(SynchronousTestCase):
    """The state machines as trial cases; trial does not collect hypothesis's own TestCase."""

    settings = settings(DETERMINISTIC, max_examples=120, stateful_step_count=50)

    def setUp(self) -> None:
        self.patch(router_module, "SLICE", SLICE)

    def test_days(self) -> None:
        """Whatever ends do, the router does what the model says and its invariants hold."""
        run_state_machine_as_test(RouterMachine, settings=self.settings)

    def test_wrapping_ids(self) -> None:
        """The same holds while ids wrap into those that are in use."""
        run_state_machine_as_test(WrappingMachine, settings=self.settings)

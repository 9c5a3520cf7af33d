"""Tests of fastway.router against a model: random days of a gateway, checked after each step.

Rule: the model keeps one flat table of virtual connections and looks everything up the slow way,
so that it shares no mistake with the router's dictionaries.
"""

from __future__ import annotations

from collections import Counter
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

from fastway.errors import Reason
from fastway.router import IdConflict, Limits, Refusal, Router, Side
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

OFTEN = ["dial", "send", "send", "close"]
SELDOM = ["ping", "dial unknown", "send unknown", "close unknown", "close foreign"]
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
        self.last_client_id = 0
        self.last_conn_id = 0
        self.gained: Counter[Side] = Counter()
        self.lost: Counter[tuple[Side, Reason]] = Counter()
        self.refused: Counter[Refusal] = Counter()
        self.count: Counter[str] = Counter()

    # The model.

    def new_id(self, last: int, taken: set[int]) -> int:
        following = 1 if last == MAX_ID else last + 1
        return self.new_id(following, taken) if following in taken else following

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
        self.gained[link.side] += 1

    def model_lose(self, link: ListLink, reason: Reason) -> None:
        self.live.remove(link)
        self.gone.append(link)
        self.reasons[link] = reason
        self.lost[link.side, reason] += 1
        for conn in self.conns_of(link):
            self.conns.remove(conn)
            self.count["closed"] += 1
            self.wanted[conn.other(link)].append(encode_close(conn.conn_id))

    def model_dial(self, link: ListLink, remote_id: int) -> None:
        self.count["dials"] += 1
        side = Side.SERVER if link.side is Side.CLIENT else Side.CLIENT
        remote = self.newest(side, remote_id)
        refusal = None
        if remote is None:
            refusal = Refusal.UNKNOWN
        elif side is Side.SERVER and 0 < self.limits.client_max_conn <= len(self.conns_of(link)):
            refusal = Refusal.LIMIT
        elif side is Side.CLIENT and 0 < self.limits.client_max_total <= len(
            self.conns_of(remote)
        ):
            refusal = Refusal.REMOTE_LIMIT
        elif remote.full:
            refusal = Refusal.BUSY
        if remote is None or refusal is not None:
            self.refused[refusal or Refusal.UNKNOWN] += 1
            self.wanted[link].append(encode_refuse(remote_id))
            return
        taken = {conn.conn_id for conn in self.conns}
        conn_id = self.last_conn_id = self.new_id(self.last_conn_id, taken)
        self.conns.append(Conn(conn_id, (link, remote)))
        self.count["accepted"] += 1
        self.wanted[link].append(encode_accept(conn_id, remote_id))
        self.wanted[remote].append(encode_connect(conn_id, link.link_id))

    def model_send(self, link: ListLink, conn_id: int, packet: bytes) -> None:
        for conn in self.conns:
            if conn.conn_id == conn_id:
                if link in conn.ends:
                    self.wanted[conn.other(link)].append(packet)
                    self.count["packets"] += 1
                    self.count["bytes"] += len(packet)
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
                        self.wanted[end].append(encode_close(conn_id))
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
            if whose or not remotes:
                remote_id = 0x7FFFFF00 + pick
            else:
                remote_id = remotes[pick % len(remotes)].link_id
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

    # What happens.

    @initialize(
        policy=st.sampled_from(IdConflict),
        max_conn=st.sampled_from([4, 2, 0]),
        max_total=st.sampled_from([5, 3, 0]),
        dials=st.lists(st.tuples(PICKS, PICKS), min_size=3, max_size=10),
    )
    def start(
        self,
        policy: IdConflict,
        max_conn: int,
        max_total: int,
        dials: list[tuple[int, int]],
    ) -> None:
        """A few links that talk already: from nothing, a random day seldom gets that far."""
        self.limits.server_id_conflict = policy
        self.limits.client_max_conn = max_conn
        self.limits.client_max_total = max_total
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
        self.last_client_id = self.new_id(self.last_client_id, taken)
        self.router.add_client(link)
        self.model_add(link)
        assert link.link_id == self.last_client_id

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
        for link in self.live:
            for conn_id, peer in link.peers.items():
                assert peer.peers[conn_id] is link
                assert peer is not link
                assert peer.side is not link.side
                pairs.add((conn_id, frozenset((link, peer))))
        assert pairs == {(conn.conn_id, frozenset(conn.ends)) for conn in self.conns}

    @invariant()
    def conn_ids_are_the_peers_keys(self) -> None:
        """The ids in use are those of the links' connections, each at two ends, never 0."""
        keys = Counter(conn_id for link in self.live for conn_id in link.peers)
        assert set(keys) == self.router.conn_ids
        assert set(keys.values()) <= {2}
        assert all(1 <= conn_id <= MAX_ID for conn_id in keys)
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
        assert 0 not in clients

    @invariant()
    def nothing_leaks(self) -> None:
        """A link that went holds nothing, was disconnected once, and for the right reason."""
        for link in self.gone:
            assert link.peers == {}
            assert link.lost is self.reasons[link]
            assert [reason for reason, _ in link.disconnected] == [self.reasons[link]]
        for link in self.live:
            assert link.lost is None
            assert link.disconnected == []

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
        assert stats.dials == stats.accepted + sum(stats.refused.values())
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
    """The same, with the counters near 2**32 again and again."""

    @rule(conn_steps=st.integers(0, 2), client_steps=st.integers(0, 2))
    def four_billion_later(self, conn_steps: int, client_steps: int) -> None:
        self.last_conn_id = self.router.conn_range.last = MAX_ID - conn_steps
        self.last_client_id = self.router.client_range.last = MAX_ID - client_steps


class MachineTests(SynchronousTestCase):
    """The state machines as trial cases; trial does not collect hypothesis's own TestCase."""

    settings = settings(DETERMINISTIC, max_examples=120, stateful_step_count=50)

    def test_days(self) -> None:
        """Whatever ends do, the router does what the model says and its invariants hold."""
        run_state_machine_as_test(RouterMachine, settings=self.settings)

    def test_wrapping_ids(self) -> None:
        """The same holds while ids wrap into those that are in use."""
        run_state_machine_as_test(WrappingMachine, settings=self.settings)

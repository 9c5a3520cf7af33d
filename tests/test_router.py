"""Tests of fastway.router: every row of spec section 4 that the router decides, over ListLinks."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import Reason
from fastway.router import (
    SLICE,
    IdConflict,
    IdRange,
    Limits,
    Link,
    Pending,
    Refusal,
    Router,
    Side,
)
from fastway.wire import (
    MAX_ID,
    PING,
    FrameReader,
    encode_accept,
    encode_close,
    encode_connect,
    encode_dial,
    encode_packet,
    encode_refuse,
)
from tests.support.core import ListLink
from tests.support.errors import raised

# Spec section 1, so that our encoders and the router cannot agree on a mistake.
DIAL_1 = bytes.fromhex("09000000000000000001000000")
ACCEPT_1_1 = bytes.fromhex("0d00000000000000010100000001000000")
CONNECT_1_1 = bytes.fromhex("0d00000000000000020100000001000000")
REFUSE_1 = bytes.fromhex("09000000000000000301000000")
CLOSE_1 = bytes.fromhex("09000000000000000401000000")
HELLO_1 = bytes.fromhex("090000000100000048656c6c6f")
EMPTY_1 = bytes.fromhex("0400000001000000")


class RouterCase(SynchronousTestCase):
    """A router, and verbs for what ends do with it."""

    def setUp(self) -> None:
        self.limits = Limits()
        self.router = Router(self.limits)
        self.stats = self.router.stats

    def client(self) -> ListLink:
        link = ListLink(Side.CLIENT)
        self.router.add_client(link)
        return link

    def server(self, server_id: int) -> ListLink:
        link = ListLink(Side.SERVER)
        self.router.add_server(link, server_id)
        return link

    def say(self, link: ListLink, *packets: bytes) -> None:
        """The link sends packets, which arrive in one read."""
        self.router.receive(link, FrameReader().feed(b"".join(packets)))

    def dial(self, link: ListLink, remote: ListLink) -> int:
        """The link dials the remote; returns the id of the virtual connection."""
        before = set(link.peers)
        self.say(link, encode_dial(remote.link_id))
        (conn_id,) = set(link.peers) - before
        self.assertEqual(link.frames(), [encode_accept(conn_id, remote.link_id)])
        self.assertEqual(remote.frames(), [encode_connect(conn_id, link.link_id)])
        return conn_id

    def refuse(self, link: ListLink, remote_id: int) -> None:
        """The link dials and is refused; nothing else comes of it."""
        before = dict(link.peers)
        self.say(link, encode_dial(remote_id))
        self.assertEqual(link.frames(), [encode_refuse(remote_id)])
        self.assertEqual(link.peers, before)

    def pair(self) -> tuple[ListLink, ListLink, int]:
        """A client, server 1, and a virtual connection between them."""
        client, server = self.client(), self.server(1)
        return client, server, self.dial(client, server)

    def assertLost(self, link: ListLink, reason: Reason, detail: str = "") -> None:
        self.assertIs(link.lost, reason)
        self.assertEqual(link.disconnected, [(reason, detail)])
        self.assertEqual(link.peers, {})
        self.assertNotIn(link, list(self.router.links()))

    def assertQuiet(self, *links: ListLink) -> None:
        """Nothing was sent to these links, and they are still there."""
        for link in links:
            self.assertEqual(link.frames(), [])
            self.assertEqual(link.disconnected, [])


class VectorTests(RouterCase):
    def test_dial(self) -> None:
        """A Dial, its Accept and its Connect are the bytes of the spec."""
        client, server = self.client(), self.server(1)
        self.say(client, DIAL_1)
        self.assertEqual(client.frames(), [ACCEPT_1_1])
        self.assertEqual(server.frames(), [CONNECT_1_1])

    def test_refuse(self) -> None:
        """A Refuse is the bytes of the spec."""
        client = self.client()
        self.say(client, DIAL_1)
        self.assertEqual(client.frames(), [REFUSE_1])

    def test_hello_and_close(self) -> None:
        """A message and a Close are the bytes of the spec."""
        client, server, _ = self.pair()
        self.say(client, HELLO_1, CLOSE_1)
        self.assertEqual(client.frames(), [CLOSE_1])
        self.assertEqual(server.frames(), [HELLO_1, CLOSE_1])


class IdTests(RouterCase):
    def test_client_ids(self) -> None:
        """Client ids count up from 1 and are not used again for the next client."""
        first, second = self.client(), self.client()
        self.router.lose(second, Reason.PEER_CLOSED)
        third = self.client()
        self.assertEqual([first.link_id, second.link_id, third.link_id], [1, 2, 3])

    def test_two_id_spaces(self) -> None:
        """Client 1 and server 1 are different things, and each dials the other as 1."""
        client, server = self.client(), self.server(1)
        self.assertIs(self.router.find(Side.CLIENT, 1), client)
        self.assertIs(self.router.find(Side.SERVER, 1), server)
        self.assertEqual(self.dial(client, server), 1)
        self.assertEqual(self.dial(server, client), 2)

    def test_own_side(self) -> None:
        """An end never reaches its own side by a dial."""
        client, server = self.client(), self.server(7)
        self.client()
        self.refuse(client, 2)
        self.refuse(server, 7)

    def test_any_server_id(self) -> None:
        """A server may bring any id, 0 and the largest included."""
        client = self.client()
        for server_id in (0, MAX_ID):
            self.dial(client, self.server(server_id))

    def test_conn_ids(self) -> None:
        """Virtual connections have one counter for all, and a closed one's id is not next."""
        one, two, server = self.client(), self.client(), self.server(1)
        self.assertEqual(self.dial(one, server), 1)
        self.assertEqual(self.dial(two, server), 2)
        self.router.close(two, 2)
        two.frames()
        server.frames()
        self.assertEqual(self.dial(server, one), 3)

    def test_conn_ids_wrap(self) -> None:
        """After 2**32 - 1 the ids of virtual connections skip 0 and those in use."""
        client, server = self.client(), self.server(1)
        self.assertEqual([self.dial(client, server) for _ in range(3)], [1, 2, 3])
        self.router.close(client, 2)
        client.frames()
        server.frames()
        self.router.conn_range.last = MAX_ID - 1
        self.assertEqual([self.dial(client, server) for _ in range(3)], [MAX_ID, 2, 4])
        self.assertEqual(self.router.conn_ids, {1, 2, 3, 4, MAX_ID})

    def test_wrapped_id_is_the_new_ones(self) -> None:
        """An id that is used again belongs to its new owners only."""
        old, server, conn_id = self.pair()
        self.router.close(old, conn_id)
        self.router.conn_range.last = MAX_ID
        new = self.client()
        server.frames()
        self.assertEqual(self.dial(new, server), conn_id)
        self.say(old, encode_packet(conn_id, b"x"))
        self.assertLost(old, Reason.NOT_OWNER, f"virtual connection {conn_id}")
        self.assertQuiet(new, server)

    def test_client_ids_wrap(self) -> None:
        """After 2**32 - 1 client ids skip 0 and those in use."""
        one, two, three = self.client(), self.client(), self.client()
        self.router.lose(two, Reason.PEER_CLOSED)
        self.router.client_range.last = MAX_ID - 1
        ids = [self.client().link_id for _ in range(3)]
        self.assertEqual(ids, [MAX_ID, 2, 4])
        self.assertIs(self.router.find(Side.CLIENT, 1), one)
        self.assertIs(self.router.find(Side.CLIENT, 3), three)

    def test_going_client_leaves_the_next_owner_of_its_id(self) -> None:
        """A client whose id was given again takes nothing from the new one when lost again."""
        old = self.client()
        self.router.lose(old, Reason.PEER_CLOSED)
        self.router.client_range.last = MAX_ID
        new = self.client()
        self.assertEqual(new.link_id, old.link_id)
        self.router.lose(old, Reason.CONNECTION_LOST)
        self.assertIs(self.router.find(Side.CLIENT, new.link_id), new)

    def test_range(self) -> None:
        """A router with ranges gives ids out of them alone, and wraps within them."""
        router = self.router = Router(conn_range=IdRange(7, 9), client_range=IdRange(40, 41))
        server = self.server(1)
        one, two = self.client(), self.client()
        self.assertEqual([one.link_id, two.link_id], [40, 41])
        self.assertEqual([self.dial(one, server) for _ in range(2)], [7, 8])
        router.close(one, 7)
        router.lose(two, Reason.PEER_CLOSED)
        one.frames()
        server.frames()
        self.assertEqual([self.dial(one, server) for _ in range(2)], [9, 7])
        self.assertEqual(self.client().link_id, 41)

    def test_no_conn_id(self) -> None:
        """A dial is refused while no connection id is free, and takes nothing."""
        router = self.router = Router(conn_range=IdRange(1, 2))
        client, server = self.client(), self.server(1)
        for _ in range(2):
            self.dial(client, server)
        self.refuse(client, 1)
        self.refuse(server, 1)
        self.assertQuiet(client, server)
        self.assertEqual(router.stats.refused, {Refusal.NO_ID: 2})
        self.assertEqual((router.stats.dials, router.stats.accepted), (4, 2))
        self.say(client, encode_close(2))
        client.frames()
        server.frames()
        self.assertEqual(self.dial(server, client), 2)

    def test_no_client_id(self) -> None:
        """A client for whom no id is free is turned away, and nobody else notices."""
        router = self.router = Router(client_range=IdRange(5, 5))
        client = self.client()
        stranger = self.client()
        self.assertLost(stranger, Reason.NO_ID)
        self.assertFalse(stranger.known)
        self.assertIs(router.find(Side.CLIENT, 5), client)
        self.assertEqual(router.stats.turned_away, {Reason.NO_ID: 1})
        self.assertEqual((router.stats.gained, router.stats.lost), ({Side.CLIENT: 1}, {}))
        router.lose(client, Reason.PEER_CLOSED)
        self.assertEqual(self.client().link_id, 5)


class CountedLooks(set[int]):
    """Ids in use that count how often they were looked into."""

    looks = 0

    def __contains__(self, conn_id: object) -> bool:
        self.looks += 1
        return super().__contains__(conn_id)


class IdRangeTests(SynchronousTestCase):
    def test_following(self) -> None:
        """The next id is the one after the last that is not in use, never 0."""
        cases: list[tuple[int, set[int], int]] = [
            (0, set(), 1),
            (1, set(), 2),
            (0, {1, 2}, 3),
            (MAX_ID - 2, set(), MAX_ID - 1),
            (MAX_ID - 1, set(), MAX_ID),
            (MAX_ID, set(), 1),
            (MAX_ID - 1, {MAX_ID}, 1),
            (MAX_ID - 1, {MAX_ID, 1}, 2),
        ]
        for last, live, following in cases:
            with self.subTest(last=last, live=live):
                ids = IdRange()
                ids.last = last
                self.assertEqual(ids.take(live), following)

    def test_a_few(self) -> None:
        """A small range is used up to its last id, then gives 0, and heals."""
        ids = IdRange(5, 7)
        live: set[int] = set()
        for conn_id in (5, 6, 7):
            self.assertEqual(ids.take(live), conn_id)
            live.add(conn_id)
        self.assertEqual([ids.take(live), ids.take(live)], [0, 0])
        live.remove(6)
        self.assertEqual(ids.take(live), 6)

    def test_one(self) -> None:
        """A range may be one id."""
        ids = IdRange(MAX_ID, MAX_ID)
        self.assertEqual(
            [ids.take(set()), ids.take(set()), ids.take({MAX_ID})], [MAX_ID] * 2 + [0]
        )

    def test_a_sixteenth_stays_free(self) -> None:
        """Of 15 ids all may be in use, of 16 one stays free, of 48 three."""
        for size, usable in ((15, 15), (16, 15), (17, 16), (31, 30), (32, 30), (48, 45)):
            with self.subTest(size=size):
                ids = IdRange(100, 99 + size)
                live: set[int] = set()
                while conn_id := ids.take(live):
                    live.add(conn_id)
                self.assertEqual(len(live), usable)

    def test_a_lap_is_cheap(self) -> None:
        """In a range as full as it gets, one lap costs 16 looks an id, wherever the ids lie."""
        ids = IdRange(1, 1600)
        live = CountedLooks(range(1, 1500))
        taken = []
        for _ in range(101):  # all 101 that are free; each goes again before the next
            taken.append(ids.take(live))
        self.assertEqual(taken, [*range(1500, 1601)])
        self.assertLessEqual(live.looks, 1600)
        self.assertEqual(ids.take(live), 1500)
        self.assertLessEqual(live.looks, 1600 + 1500)

    def test_no_range(self) -> None:
        """0, what has 33 bits, and an end before the start are no ranges of ids."""
        for low, high in ((0, 5), (1, MAX_ID + 1), (6, 5), (-1, 1)):
            with self.subTest(low=low, high=high):
                raised(ValueError, IdRange, low, high)


class DialTests(RouterCase):
    def test_client_dials(self) -> None:
        """Accept carries the server's id to the client, Connect the client's to the server."""
        self.client()
        client, server = self.client(), self.server(9527)
        self.say(client, encode_dial(9527))
        self.assertEqual(client.frames(), [encode_accept(1, 9527)])
        self.assertEqual(server.frames(), [encode_connect(1, 2)])
        self.assertIs(client.peers[1], server)
        self.assertIs(server.peers[1], client)

    def test_server_dials(self) -> None:
        """A server dials a client in the same way."""
        self.client()
        client, server = self.client(), self.server(9527)
        self.say(server, encode_dial(2))
        self.assertEqual(server.frames(), [encode_accept(1, 2)])
        self.assertEqual(client.frames(), [encode_connect(1, 9527)])

    def test_dial_twice(self) -> None:
        """Two ends may have several virtual connections, each with its own id."""
        client, server, first = self.pair()
        second = self.dial(client, server)
        third = self.dial(server, client)
        self.assertEqual(sorted(client.peers), [first, second, third])

    def test_unknown(self) -> None:
        """A dial of an unknown id is refused, from either side, and takes no slot."""
        self.limits.client_max_conn = 1
        client, server = self.client(), self.server(1)
        for _ in range(3):
            self.refuse(client, 2)
            self.refuse(server, 2)
        self.refuse(server, 0)
        self.dial(client, server)

    def test_gone(self) -> None:
        """A dial of a remote that went is refused, and takes no slot."""
        self.limits.client_max_conn = 1
        client, server, other = self.client(), self.server(1), self.server(2)
        self.router.lose(server, Reason.PEER_CLOSED)
        self.refuse(client, 1)
        self.dial(client, other)

    def test_gone_client(self) -> None:
        """A server's dial of a client that went is refused."""
        client, server = self.client(), self.server(1)
        self.router.lose(client, Reason.PEER_CLOSED)
        self.refuse(server, 1)

    def test_order(self) -> None:
        """Dials in one read are answered in their order."""
        client, server = self.client(), self.server(1)
        self.say(client, *map(encode_dial, (5, 1, 6, 1)))
        self.assertEqual(
            client.frames(),
            [encode_refuse(5), encode_accept(1, 1), encode_refuse(6), encode_accept(2, 1)],
        )
        self.assertEqual(server.frames(), [encode_connect(1, 1), encode_connect(2, 1)])

    def test_dial_and_send(self) -> None:
        """What follows a Dial in the same read already travels over the new connection."""
        client, server = self.client(), self.server(1)
        self.say(client, encode_dial(1), encode_packet(1, b"x"))
        self.assertEqual(server.frames(), [encode_connect(1, 1), encode_packet(1, b"x")])

    def test_trailing_bytes(self) -> None:
        """Bytes behind a Dial's argument are ignored."""
        client, _server = self.client(), self.server(1)
        self.say(client, encode_packet(0, bytes.fromhex("0001000000ffff")))
        self.assertEqual(client.frames(), [encode_accept(1, 1)])


class LimitTests(RouterCase):
    def test_default(self) -> None:
        """A client may dial 16 virtual connections, and its 17th is refused."""
        client, server = self.client(), self.server(1)
        for _ in range(16):
            self.dial(client, server)
        self.refuse(client, 1)
        self.assertEqual(self.stats.refused, {Refusal.LIMIT: 1})
        self.assertQuiet(server)

    def test_around_the_limit(self) -> None:
        """The limit lets n - 1 and n through, not n + 1."""
        for limit in (1, 2, 3):
            with self.subTest(limit=limit):
                self.limits.client_max_conn = limit
                client, server = self.client(), self.server(1)
                for _ in range(limit):
                    self.dial(client, server)
                self.refuse(client, 1)

    def test_close_makes_room(self) -> None:
        """Closing one makes room for one, whichever end closes."""
        self.limits.client_max_conn = 2
        client, server = self.client(), self.server(1)
        one, two = self.dial(client, server), self.dial(client, server)
        for closer, conn_id in ((client, one), (server, two)):
            self.refuse(client, 1)
            self.say(closer, encode_close(conn_id))
            client.frames()
            server.frames()
            self.dial(client, server)
        self.refuse(client, 1)

    def test_going_makes_room(self) -> None:
        """A server that goes makes room for as many as it had."""
        self.limits.client_max_conn = 2
        client, server, other = self.client(), self.server(1), self.server(2)
        self.dial(client, server)
        self.dial(client, server)
        self.refuse(client, 2)
        self.router.lose(server, Reason.PEER_CLOSED)
        client.frames()
        self.dial(client, other)
        self.dial(client, other)
        self.refuse(client, 2)

    def test_servers_dials_count(self) -> None:
        """What a server dialled fills the client's limit, too: the limit cannot be got around."""
        self.limits.client_max_conn = 2
        client, server = self.client(), self.server(1)
        self.dial(server, client)
        self.dial(client, server)
        self.refuse(client, 1)

    def test_servers_dials_are_not_limited(self) -> None:
        """The limit does not apply to a server's dials of a client that is full."""
        self.limits.client_max_conn = 1
        client, server = self.client(), self.server(1)
        for _ in range(3):
            self.dial(server, client)
        self.refuse(client, 1)
        self.dial(server, client)

    def test_per_client(self) -> None:
        """One client's virtual connections take nothing from another's limit."""
        self.limits.client_max_conn = 1
        one, two, server = self.client(), self.client(), self.server(1)
        self.dial(one, server)
        self.dial(two, server)
        self.refuse(one, 1)
        self.refuse(two, 1)

    def test_no_limit(self) -> None:
        """0 means that a client may dial any number."""
        self.limits.client_max_conn = 0
        client, server = self.client(), self.server(1)
        for _ in range(100):
            self.dial(client, server)

    def test_limits_change_while_running(self) -> None:
        """A lower limit closes nothing, and holds for the next dial."""
        client, server = self.client(), self.server(1)
        self.dial(client, server)
        self.dial(client, server)
        self.limits.client_max_conn = 1
        self.refuse(client, 1)
        self.assertEqual(len(client.peers), 2)

    def test_total(self) -> None:
        """A server's dial is refused while the client has client_max_total connections."""
        self.limits.client_max_total = 2
        client, server = self.client(), self.server(1)
        one = self.dial(client, server)
        self.dial(server, client)
        self.refuse(server, 1)
        self.assertQuiet(client)
        self.assertEqual(self.stats.refused, {Refusal.REMOTE_LIMIT: 1})
        self.router.close(client, one)
        client.frames()
        server.frames()
        self.dial(server, client)
        self.refuse(server, 1)

    def test_total_is_for_servers_dials(self) -> None:
        """client_max_total does not refuse the client's own dials."""
        self.limits.client_max_total = 1
        client, server = self.client(), self.server(1)
        self.dial(client, server)
        self.dial(client, server)
        self.refuse(server, 1)

    def test_default_total(self) -> None:
        """A client may have 1024 virtual connections by servers' dials, and no 1025th."""
        client, server = self.client(), self.server(1)
        self.say(server, encode_dial(1) * 1024)
        self.assertEqual(len(client.peers), 1024)
        client.frames()
        server.frames()
        self.refuse(server, 1)

    def test_no_total(self) -> None:
        """0 means that servers may dial a client any number of times."""
        self.limits.client_max_total = 0
        client, server = self.client(), self.server(1)
        self.say(server, encode_dial(1) * 1100)
        self.assertEqual(len(client.peers), 1100)

    def test_saturated_remote(self) -> None:
        """A remote for which too much waits is dialled in vain, from either side."""
        client, server = self.client(), self.server(1)
        client.full = server.full = True
        self.refuse(client, 1)
        self.refuse(server, 1)
        self.assertQuiet(client, server)
        self.assertEqual(self.stats.refused, {Refusal.BUSY: 2})

    def test_saturated_dialler(self) -> None:
        """How much waits for the dialler itself does not matter."""
        client, server = self.client(), self.server(1)
        client.full = True
        self.dial(client, server)

    def test_real_links_are_not_saturated(self) -> None:
        """A link that says nothing of it is not saturated, and supplies send and disconnect."""
        link = Link()
        self.assertFalse(link.saturated)
        raised(NotImplementedError, link.send, b"", 0)
        raised(NotImplementedError, link.disconnect, Reason.SHUTDOWN, "")


class ForwardTests(RouterCase):
    def test_both_ways(self) -> None:
        """A packet reaches the other end unchanged, and nobody else."""
        client, server, conn_id = self.pair()
        other = self.client()
        packet = encode_packet(conn_id, b"\0\xff" * 9)
        self.say(client, packet)
        self.assertEqual(server.frames(), [packet])
        self.assertQuiet(client, other)
        self.say(server, packet)
        self.assertEqual(client.frames(), [packet])
        self.assertQuiet(server, other)

    def test_order(self) -> None:
        """Packets over several virtual connections arrive in the order of the sender."""
        client, server, one = self.pair()
        two = self.dial(server, client)
        packets = [encode_packet((one, two)[i // 2 % 2], bytes([i])) for i in range(9)]
        self.say(client, *packets)
        self.assertEqual(server.frames(), packets)

    def test_to_several(self) -> None:
        """Each packet of a read goes to the end of its own virtual connection."""
        one, two, server = self.client(), self.client(), self.server(1)
        first, second = self.dial(one, server), self.dial(two, server)
        self.say(
            server,
            encode_packet(first, b"a"),
            encode_packet(second, b"b"),
            encode_packet(first, b"c"),
        )
        self.assertEqual(one.frames(), [encode_packet(first, b"a"), encode_packet(first, b"c")])
        self.assertEqual(two.frames(), [encode_packet(second, b"b")])

    def test_empty_message(self) -> None:
        """An empty message is forwarded."""
        client, server, _ = self.pair()
        self.say(client, EMPTY_1)
        self.assertEqual(server.frames(), [EMPTY_1])

    def test_command_in_a_message(self) -> None:
        """What looks like a command inside a message is a message."""
        client, server, conn_id = self.pair()
        packet = encode_packet(conn_id, b"\x04" + conn_id.to_bytes(4, "little"))
        self.say(client, packet)
        self.assertEqual(server.frames(), [packet])
        self.assertIn(conn_id, client.peers)

    def test_unknown(self) -> None:
        """A packet on an unknown connection id is answered by a Close; its sender stays."""
        client, server = self.client(), self.server(1)
        for link in (client, server):
            self.say(link, encode_packet(77, b"x"))
            self.assertEqual(link.frames(), [encode_close(77)])
        self.assertQuiet(client, server)

    def test_one_close_per_stray(self) -> None:
        """Each packet on an unknown connection id is answered by a Close of its own."""
        client = self.client()
        self.say(client, *[encode_packet(77, b"")] * 3, encode_packet(78, b"x"))
        self.assertEqual(client.frames(), [encode_close(77)] * 3 + [encode_close(78)])
        self.assertEqual(self.stats.strays, 4)

    def test_after_close(self) -> None:
        """A packet on a connection that was just closed is a stray, for either end."""
        client, server, conn_id = self.pair()
        self.say(client, encode_close(conn_id))
        client.frames()
        server.frames()
        for link in (client, server):
            self.say(link, encode_packet(conn_id, b"late"))
            self.assertEqual(link.frames(), [encode_close(conn_id)])
        self.assertQuiet(client, server)

    def test_foreign(self) -> None:
        """Who writes to a connection of others is lost; its owners notice nothing."""
        for side in Side:
            with self.subTest(side=side):
                client, server, conn_id = self.pair()
                intruder = self.client() if side is Side.CLIENT else self.server(66)
                self.say(intruder, encode_packet(conn_id, b"x"))
                self.assertLost(intruder, Reason.NOT_OWNER, f"virtual connection {conn_id}")
                self.assertEqual(intruder.frames(), [])
                self.assertQuiet(client, server)
                self.say(client, encode_packet(conn_id, b"still here"))
                self.assertEqual(server.frames(), [encode_packet(conn_id, b"still here")])

    def test_foreign_of_the_same_server(self) -> None:
        """A client may not write to another client's connection with the server they share."""
        one, server, conn_id = self.pair()
        two = self.client()
        mine = self.dial(two, server)
        self.say(two, encode_packet(mine, b"a"), encode_packet(conn_id, b"b"))
        self.assertLost(two, Reason.NOT_OWNER, f"virtual connection {conn_id}")
        self.assertEqual(server.frames(), [encode_packet(mine, b"a"), encode_close(mine)])
        self.assertQuiet(one)


class CloseTests(RouterCase):
    def test_both_ends_are_told(self) -> None:
        """A Close from either end reaches both, the closer included."""
        client, server, _ = self.pair()
        for closer in (client, server):
            conn_id = self.dial(client, server)
            self.say(closer, encode_close(conn_id))
            self.assertEqual(client.frames(), [encode_close(conn_id)])
            self.assertEqual(server.frames(), [encode_close(conn_id)])
            self.assertNotIn(conn_id, self.router.conn_ids)
        self.assertEqual(len(client.peers), 1)

    def test_what_came_before(self) -> None:
        """What was sent before a Close arrives before it."""
        client, server, conn_id = self.pair()
        self.say(client, encode_packet(conn_id, b"last"), encode_close(conn_id))
        self.assertEqual(
            server.frames(),
            [encode_packet(conn_id, b"last"), encode_close(conn_id)],
        )

    def test_unknown(self) -> None:
        """A Close of an unknown connection id is ignored, 0 and a second Close included."""
        client, server, conn_id = self.pair()
        self.say(client, encode_close(77), encode_close(0))
        self.say(server, encode_close(77))
        self.assertQuiet(client, server)
        self.say(client, encode_close(conn_id), encode_close(conn_id))
        self.assertEqual(client.frames(), [encode_close(conn_id)])
        self.assertEqual(server.frames(), [encode_close(conn_id)])
        self.assertEqual(self.stats.foreign_closes, 0)

    def test_foreign(self) -> None:
        """A Close for a connection you do not own changes nothing."""
        client, server, conn_id = self.pair()
        intruders = [self.client(), self.server(2), self.server(1)]
        for intruder in intruders:
            self.say(intruder, encode_close(conn_id))
        self.assertQuiet(client, server, *intruders)
        self.assertEqual(self.stats.foreign_closes, 3)
        self.say(server, encode_packet(conn_id, b"x"))
        self.assertEqual(client.frames(), [encode_packet(conn_id, b"x")])

    def test_others_stay(self) -> None:
        """A Close closes the one connection that it names."""
        client, server, first = self.pair()
        second = self.dial(client, server)
        self.say(client, encode_close(first))
        self.assertEqual(list(client.peers), [second])
        self.assertEqual(list(server.peers), [second])


class CommandTests(RouterCase):
    def test_ping(self) -> None:
        """A Ping comes back to its sender as it was."""
        client, server, _ = self.pair()
        for link in (client, server):
            self.say(link, PING)
            self.assertEqual(link.frames(), [bytes.fromhex("050000000000000005")])
        self.assertQuiet(client, server)

    def test_readme_close(self) -> None:
        """The README's example of a Close is a Ping: it comes back whole and closes nothing."""
        client, server, conn_id = self.pair()
        packet = encode_packet(0, b"\x05" + conn_id.to_bytes(4, "little"))
        self.say(client, packet)
        self.assertEqual(client.frames(), [packet])
        self.assertQuiet(client, server)
        self.assertIn(conn_id, client.peers)

    def test_not_an_ends(self) -> None:
        """An end that sends Accept, Connect or Refuse is lost."""
        for packet, kind in (
            (encode_accept(1, 1), 1),
            (encode_connect(1, 1), 2),
            (encode_refuse(1), 3),
        ):
            for make in (self.client, lambda: self.server(5)):
                with self.subTest(packet=packet.hex()):
                    link = make()
                    self.say(link, packet)
                    self.assertLost(
                        link,
                        Reason.BAD_COMMAND,
                        f"command with type {kind} in {len(packet) - 8} bytes",
                    )

    def test_broken(self) -> None:
        """An end that sends a command without type, of unknown type, or cut short is lost."""
        for message, what in (
            (b"", "no type in 0"),
            (b"\x06", "type 6 in 1"),
            (b"\xff" * 9, "type 255 in 9"),
            (b"\x00\x01\x00\x00", "type 0 in 4"),
            (b"\x04\x01\x00\x00", "type 4 in 4"),
            (b"\x01", "type 1 in 1"),
        ):
            for make in (self.client, lambda: self.server(5)):
                with self.subTest(message=message):
                    link = make()
                    self.say(link, encode_packet(0, message))
                    self.assertLost(link, Reason.BAD_COMMAND, f"command with {what} bytes")
                    self.assertEqual(link.frames(), [])

    def test_harmless_to_others(self) -> None:
        """A broken command takes its sender's connections, and no others."""
        bad, server, conn_id = self.pair()
        good = self.client()
        kept = self.dial(good, server)
        self.say(bad, encode_packet(0, b""))
        self.assertEqual(server.frames(), [encode_close(conn_id)])
        self.assertQuiet(good)
        self.assertEqual(list(server.peers), [kept])


class ReceiveTests(RouterCase):
    def test_lost_on_the_way(self) -> None:
        """The packets behind one that costs the sender its link are ignored."""
        client, server, conn_id = self.pair()
        other = self.server(2)
        self.say(
            client,
            encode_packet(conn_id, b"before"),
            encode_packet(0, b"\xee"),
            encode_packet(conn_id, b"after"),
            encode_packet(99, b"after"),
            PING,
            encode_dial(2),
        )
        self.assertLost(client, Reason.BAD_COMMAND, "command with type 238 in 1 bytes")
        self.assertEqual(client.frames(), [])
        self.assertEqual(server.frames(), [encode_packet(conn_id, b"before"), encode_close(1)])
        self.assertQuiet(other)
        self.assertEqual(client.packets_in, 1 + 2)  # its Dial, and the two that counted
        self.assertEqual((self.stats.packets, self.stats.pings, self.stats.strays), (1, 0, 0))

    def test_foreign_on_the_way(self) -> None:
        """The packets behind one on a foreign connection are ignored."""
        client, server, conn_id = self.pair()
        intruder = self.client()
        self.say(intruder, encode_packet(conn_id, b"x"), encode_dial(1), PING)
        self.assertEqual(intruder.frames(), [])
        self.assertQuiet(client, server)

    def test_already_lost(self) -> None:
        """What still comes from a link that is lost changes nothing and is not answered."""
        client, server, conn_id = self.pair()
        self.router.lose(client, Reason.KICKED)
        server.frames()
        for packet in (
            PING,
            encode_dial(1),
            encode_packet(conn_id, b"x"),
            encode_close(conn_id),
            encode_packet(0, b""),
        ):
            self.say(client, packet)
        self.assertEqual(client.frames(), [])
        self.assertQuiet(server)
        self.assertEqual(self.router.conn_ids, set())
        self.assertLost(client, Reason.KICKED)

    def test_packets_in(self) -> None:
        """Every whole packet counts as heard from its sender, commands included."""
        client, _server, conn_id = self.pair()
        self.say(client, encode_packet(conn_id, b"x") * 3, PING, encode_packet(99, b""))
        self.assertEqual(client.packets_in, 6)

    def test_nothing(self) -> None:
        """A read that completed no packet changes nothing."""
        client, server, _ = self.pair()
        self.router.receive(client, [])
        self.assertQuiet(client, server)


class AllowanceTests(RouterCase):
    """`receive` with a number of commands that it may carry out."""

    def test_what_is_left(self) -> None:
        """Past the allowance everything waits, from the first command or stray on."""
        client, server = self.client(), self.server(7)
        conn_id = self.dial(client, server)
        message = encode_packet(conn_id, b"x")
        stray = encode_packet(999, b"y")
        runs = FrameReader().feed(message * 2 + PING + message + stray * 3 + PING + message)
        left = self.router.receive(client, runs, 2)
        self.assertEqual(client.frames(), [PING, *[encode_close(999)] * 3])
        self.assertEqual(server.frames(), [message] * 3)
        self.assertEqual(left, [(0, PING, 1), (conn_id, message, 1)])
        self.assertEqual((self.router.commands, client.routed), (3, 8))
        self.assertEqual(self.router.receive(client, left, 0), left)
        self.assertEqual((client.frames(), server.frames()), ([], []))
        self.assertEqual(self.router.receive(client, left, 1), [])
        self.assertEqual((client.frames(), server.frames()), ([PING], [message]))
        self.assertEqual((self.router.commands, client.routed), (4, 10))
        self.assertEqual(self.stats.packets, 4)

    def test_messages_need_none(self) -> None:
        """Messages pass without an allowance."""
        client, server = self.client(), self.server(7)
        conn_id = self.dial(client, server)
        message = encode_packet(conn_id, b"x")
        self.assertEqual(self.router.receive(client, FrameReader().feed(message * 9), 0), [])
        self.assertEqual(server.frames(), [message] * 9)

    def test_nothing_is_left_of_who_is_lost(self) -> None:
        """Who is lost in the middle leaves nothing for later."""
        client = self.client()
        bad = encode_accept(1, 1)
        runs = FrameReader().feed(bad + PING * 5)
        self.assertEqual(self.router.receive(client, runs, 3), [])
        self.assertIs(client.lost, Reason.BAD_COMMAND)


class LoseTests(RouterCase):
    def test_other_ends_are_told(self) -> None:
        """The other end of each virtual connection of a lost link gets a Close for it."""
        client, one, two = self.client(), self.server(1), self.server(2)
        first, second = self.dial(client, one), self.dial(two, client)
        third = self.dial(client, one)
        self.router.lose(client, Reason.PEER_CLOSED)
        self.assertEqual(one.frames(), [encode_close(first), encode_close(third)])
        self.assertEqual(two.frames(), [encode_close(second)])
        self.assertEqual(client.frames(), [])
        self.assertLost(client, Reason.PEER_CLOSED)
        self.assertEqual(self.router.conn_ids, set())
        self.assertQuiet(one, two)

    def test_server(self) -> None:
        """A lost server closes its clients' connections with it, and not their others."""
        client, one, two = self.client(), self.server(1), self.server(2)
        first, second = self.dial(client, one), self.dial(client, two)
        self.router.lose(one, Reason.CONNECTION_LOST, "reset")
        self.assertEqual(client.frames(), [encode_close(first)])
        self.assertLost(one, Reason.CONNECTION_LOST, "reset")
        self.assertEqual(list(client.peers), [second])
        self.assertQuiet(client, two)

    def test_twice(self) -> None:
        """A link is lost once, for the first reason."""
        client, server, conn_id = self.pair()
        self.router.lose(client, Reason.SLOW_READER, "first")
        self.router.lose(client, Reason.PEER_CLOSED, "second")
        self.assertLost(client, Reason.SLOW_READER, "first")
        self.assertEqual(server.frames(), [encode_close(conn_id)])
        self.assertEqual(self.stats.lost, {(Side.CLIENT, Reason.SLOW_READER): 1})

    def test_from_disconnect(self) -> None:
        """A shell that reports the end from within disconnect does no harm."""
        router = self.router

        class Eager(ListLink):
            def disconnect(self, reason: Reason, detail: str) -> None:
                super().disconnect(reason, detail)
                router.lose(self, Reason.CONNECTION_LOST)

        client, server = Eager(Side.CLIENT), self.server(1)
        router.add_client(client)
        conn_id = self.dial(client, server)
        router.lose(client, Reason.KICKED)
        self.assertLost(client, Reason.KICKED)
        self.assertEqual(server.frames(), [encode_close(conn_id)])

    def test_disconnected_last(self) -> None:
        """When a link is disconnected, the router has forgotten it already."""
        router = self.router
        seen: list[tuple[list[Link], set[int]]] = []

        class Watching(ListLink):
            def disconnect(self, reason: Reason, detail: str) -> None:
                super().disconnect(reason, detail)
                seen.append((list(router.links()), set(router.conn_ids)))

        client, server = Watching(Side.CLIENT), self.server(1)
        router.add_client(client)
        self.dial(client, server)
        router.lose(client, Reason.KICKED)
        self.assertEqual(seen, [([server], set())])

    def test_before_the_login(self) -> None:
        """A server that goes during its handshake takes nothing from those with an id."""
        server = self.server(0)
        stranger = ListLink(Side.SERVER)
        self.router.lose(stranger, Reason.AUTH_FAILED)
        self.assertEqual(stranger.disconnected, [(Reason.AUTH_FAILED, "")])
        self.assertIs(self.router.find(Side.SERVER, 0), server)
        self.assertQuiet(server)
        self.assertEqual(self.stats.turned_away, {Reason.AUTH_FAILED: 1})
        self.assertEqual(self.stats.lost, {})

    def test_client_before_its_id(self) -> None:
        """A client that goes before it has an id is turned away, not lost."""
        client, stranger = self.client(), ListLink(Side.CLIENT)
        self.router.lose(stranger, Reason.SHUTDOWN)
        self.assertEqual(self.stats.turned_away, {Reason.SHUTDOWN: 1})
        self.assertEqual(list(self.router.links()), [client])

    def test_every_reason(self) -> None:
        """Every reason is counted under its own name."""
        for reason in Reason:
            self.router.lose(self.client(), reason)
        self.assertEqual(self.stats.lost, {(Side.CLIENT, reason): 1 for reason in Reason})
        self.assertEqual(self.router.clients, {})


class SliceTests(RouterCase):
    """Losing a link with many virtual connections."""

    def setUp(self) -> None:
        super().setUp()
        self.limits.client_max_conn = 0

    def crowd(self, count: int) -> tuple[ListLink, list[ListLink]]:
        """A server, and so many clients with one virtual connection each; their ids are equal."""
        server = self.server(1)
        clients = [self.client() for _ in range(count)]
        for client in clients:
            self.dial(client, server)
        return server, clients

    def told(self, clients: list[ListLink]) -> int:
        """How many know that their connection is closed; they are the first."""
        frames = [client.sent for client in clients]
        count = sum(map(bool, frames))
        self.assertEqual(
            frames,
            [[encode_close(n + 1)] if n < count else [] for n in range(len(clients))],
        )
        return count

    def assertAddsUp(self) -> None:
        stats = self.stats
        self.assertEqual(stats.accepted, stats.closed + len(self.router.conn_ids))
        refused = sum(stats.refused.values())
        self.assertEqual(stats.dials, stats.accepted + refused + self.router.dials_waiting)

    def test_around_a_slice(self) -> None:
        """Up to 64 ends are told at once; the others when the shell asks for it."""
        self.assertEqual(SLICE, 64)
        for count, at_once in ((63, 63), (64, 64), (65, 64), (1000, 64)):
            with self.subTest(count=count):
                self.setUp()
                server, clients = self.crowd(count)
                self.assertFalse(self.router.unfinished)
                self.router.lose(server, Reason.PEER_CLOSED)
                self.assertEqual(self.told(clients), at_once)
                self.assertEqual(server.disconnected, [(Reason.PEER_CLOSED, "")])
                self.assertTrue(self.router.unfinished or count == at_once)
                self.assertAddsUp()
                while self.router.work():
                    self.assertAddsUp()
                self.assertEqual(self.told(clients), count)
                self.assertFalse(self.router.unfinished)
                self.assertLost(server, Reason.PEER_CLOSED)
                self.assertEqual(self.router.conn_ids, set())

    def test_steps(self) -> None:
        """`work` tells as many ends as it was asked for, and says whether there are more."""
        server, clients = self.crowd(SLICE + 10)
        self.assertFalse(self.router.work())
        self.router.lose(server, Reason.PEER_CLOSED)
        for steps, told, more in ((0, 0, True), (1, 1, True), (5, 6, True), (64, 10, False)):
            self.assertIs(self.router.work(steps), more)
            self.assertEqual(self.told(clients), SLICE + told)
        self.assertFalse(self.router.work())

    def test_several(self) -> None:
        """Links that go one after the other are all finished, each end told once."""
        servers = [self.server(n) for n in range(3)]
        client = self.client()
        conn_ids = [self.dial(client, server) for server in servers for _ in range(SLICE + 20)]
        for server in servers:
            self.router.lose(server, Reason.KICKED)
        self.assertEqual(len(client.sent), 3 * SLICE)
        self.assertTrue(self.router.work(30))
        self.assertEqual(len(client.sent), 3 * SLICE + 30)
        self.assertFalse(self.router.work(31))
        self.assertEqual(sorted(client.frames()), sorted(map(encode_close, conn_ids)))
        self.assertEqual(client.peers, {})

    def test_what_an_end_sends_meanwhile(self) -> None:
        """Packets of an end that was not told yet are dropped: no stray, not forwarded."""
        server, clients = self.crowd(SLICE + 2)
        last = clients[-1]
        self.router.lose(server, Reason.PEER_CLOSED)
        self.say(last, encode_packet(len(clients), b"x") * 3, PING)
        self.assertEqual(last.frames(), [PING])
        self.assertEqual(last.packets_in, 1 + 3 + 1)
        stats = self.stats
        self.assertEqual((stats.packets, stats.bytes, stats.strays), (0, 0, 0))
        self.router.work()
        self.assertEqual(last.frames(), [encode_close(len(clients))])
        self.say(last, encode_packet(len(clients), b"x"))
        self.assertEqual(stats.strays, 1)

    def test_among_others(self) -> None:
        """What the same read has for live ends is forwarded, before and behind."""
        server, clients = self.crowd(SLICE + 2)
        last, conn_id = clients[-1], len(clients)
        other = self.server(2)
        live = self.dial(last, other)
        self.router.lose(server, Reason.PEER_CLOSED)
        packets = [encode_packet(live, b"a"), encode_packet(live, b"b")]
        self.say(last, packets[0], encode_packet(conn_id, b"x"), packets[1])
        self.assertEqual(other.frames(), packets)
        self.assertEqual((self.stats.packets, self.stats.bytes), (2, 18))
        self.assertQuiet(last)

    def test_close_meanwhile(self) -> None:
        """An end that was not told yet may close, is told then, and not again."""
        server, clients = self.crowd(SLICE + 3)
        last, conn_id = clients[-1], len(clients)
        self.router.lose(server, Reason.PEER_CLOSED)
        self.say(last, encode_close(conn_id))
        self.assertEqual(last.frames(), [encode_close(conn_id)])
        self.assertNotIn(conn_id, self.router.conn_ids)
        self.assertAddsUp()
        while self.router.work():
            pass
        self.assertQuiet(last)
        self.assertEqual(self.stats.closed, len(clients))

    def test_operators_close_meanwhile(self) -> None:
        """A connection may be closed from the lost side too: the live end is told."""
        server, clients = self.crowd(SLICE + 1)
        self.router.lose(server, Reason.PEER_CLOSED)
        self.router.close(server, SLICE + 1)
        self.assertEqual(clients[-1].frames(), [encode_close(SLICE + 1)])
        self.assertEqual(server.peers, {})

    def test_foreign_meanwhile(self) -> None:
        """A connection whose end is to be told yet still belongs to it alone."""
        server, clients = self.crowd(SLICE + 2)
        self.router.lose(server, Reason.PEER_CLOSED)
        intruder = self.client()
        self.say(intruder, encode_close(len(clients)))
        self.assertEqual(self.stats.foreign_closes, 1)
        self.say(intruder, encode_packet(len(clients), b""))
        self.assertLost(intruder, Reason.NOT_OWNER, f"virtual connection {len(clients)}")
        self.assertQuiet(clients[-1])

    def test_the_other_end_goes_meanwhile(self) -> None:
        """Of a connection of which both ends are lost nobody is told."""
        server, clients = self.crowd(SLICE + 2)
        self.router.lose(server, Reason.PEER_CLOSED)
        self.router.lose(clients[-1], Reason.PEER_CLOSED)
        self.assertLost(clients[-1], Reason.PEER_CLOSED)
        while self.router.work():
            pass
        self.assertEqual(clients[-1].frames(), [])
        self.assertEqual(self.stats.closed, len(clients))
        self.assertAddsUp()

    def test_ids_meanwhile(self) -> None:
        """The id of a connection is not given again before its end has been told."""
        self.router = Router(self.limits, conn_range=IdRange(1, SLICE + 1))
        self.router.conn_range.capacity = SLICE + 1
        server, clients = self.crowd(SLICE + 1)
        self.router.lose(server, Reason.PEER_CLOSED)
        other = self.server(2)
        self.router.conn_range.last = SLICE
        self.assertEqual(self.dial(clients[-1], other), 1)
        self.router.work()
        self.assertEqual(clients[-1].frames(), [encode_close(SLICE + 1)])
        self.router.conn_range.last = SLICE
        self.assertEqual(self.dial(clients[-1], other), SLICE + 1)

    def test_dialled_meanwhile(self) -> None:
        """A lost server cannot be dialled, and its clients' places are free once they are told."""
        server, clients = self.crowd(SLICE + 1)
        self.router.lose(server, Reason.PEER_CLOSED)
        self.refuse(clients[-1], 1)
        self.limits.client_max_conn = 1
        other = self.server(2)
        self.refuse(clients[-1], 2)
        self.router.work()
        clients[-1].frames()
        self.dial(clients[-1], other)

    def test_order(self) -> None:
        """The Close of a connection comes behind all that the lost link had sent over it."""
        server, clients = self.crowd(SLICE + 1)
        packet = encode_packet(SLICE + 1, b"last words")
        self.say(server, packet, encode_packet(0, b""))
        self.assertEqual(clients[-1].sent, [packet])
        self.router.work()
        self.assertEqual(clients[-1].frames(), [packet, encode_close(SLICE + 1)])


class PendingTests(RouterCase):
    """Dials whose look-up is given in: of 100 and above it answers later."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[tuple[ListLink, int]] = []
        self.pending: list[Pending] = []
        self.router.look_up = self.look_up

    def look_up(self, link: Link, remote_id: int) -> Link | Pending | None:
        assert isinstance(link, ListLink)
        self.asked.append((link, remote_id))
        if remote_id < 100:
            return self.router.find(
                Side.SERVER if link.side is Side.CLIENT else Side.CLIENT, remote_id
            )
        self.pending.append(Pending())
        return self.pending[-1]

    def assertWaiting(self, count: int) -> None:
        stats = self.stats
        self.assertEqual(self.router.dials_waiting, count)
        self.assertEqual(stats.dials, stats.accepted + sum(stats.refused.values()) + count)

    def test_answered_at_once(self) -> None:
        """A look-up that knows is as the router's own tables, and nothing is kept."""
        client, server = self.client(), self.server(1)
        self.dial(client, server)
        self.refuse(client, 2)
        self.dial(server, client)
        self.assertEqual(self.asked, [(client, 1), (client, 2), (server, 1)])
        self.assertIs(client.dials, None)
        self.assertWaiting(0)

    def test_accepted_later(self) -> None:
        """A dial is accepted when its look-up finds a link, and not answered before."""
        client, server = self.client(), self.server(1)
        self.say(client, encode_dial(100))
        self.assertQuiet(client, server)
        self.assertWaiting(1)
        self.pending[0].resolve(server)
        self.assertEqual(client.frames(), [encode_accept(1, 100)])
        self.assertEqual(server.frames(), [encode_connect(1, 1)])
        self.assertIs(client.peers[1], server)
        self.assertIs(client.dials, None)
        self.assertWaiting(0)

    def test_refused_later(self) -> None:
        """A dial is refused when its look-up finds nobody."""
        server = self.server(1)
        self.say(server, encode_dial(100))
        self.pending[0].resolve(None)
        self.assertEqual(server.frames(), [encode_refuse(100)])
        self.assertEqual(self.stats.refused, {Refusal.UNKNOWN: 1})
        self.assertWaiting(0)

    def test_resolved_before_it_returns(self) -> None:
        """A look-up may know before it returns what it promised."""
        client, server = self.client(), self.server(1)

        def at_once(link: Link, remote_id: int) -> Pending:
            pending = Pending()
            pending.resolve(server if remote_id == 100 else None)
            return pending

        self.router.look_up = at_once
        self.say(client, encode_dial(100), encode_dial(101))
        self.assertEqual(client.frames(), [encode_accept(1, 100), encode_refuse(101)])
        self.assertWaiting(0)

    def test_resolved_twice(self) -> None:
        """The first answer counts."""
        client, server = self.client(), self.server(1)
        self.say(client, encode_dial(100))
        self.pending[0].resolve(None)
        self.pending[0].resolve(server)
        self.assertEqual(client.frames(), [encode_refuse(100)])
        self.say(client, encode_dial(101), encode_dial(102))
        self.pending[2].resolve(server)
        self.pending[2].resolve(None)
        self.pending[1].resolve(None)
        self.assertEqual(client.frames(), [encode_refuse(101), encode_accept(1, 102)])

    def test_only_dials_wait(self) -> None:
        """Pings, Closes, packets and strays are not kept behind a dial that waits."""
        client, server, conn_id = self.pair()
        other = self.dial(client, server)
        self.say(
            client,
            encode_dial(100),
            PING,
            encode_packet(conn_id, b"x"),
            encode_packet(77, b""),
            encode_close(other),
        )
        self.assertEqual(client.frames(), [PING, encode_close(77), encode_close(other)])
        self.assertEqual(server.frames(), [encode_packet(conn_id, b"x"), encode_close(other)])
        self.say(server, encode_packet(conn_id, b"y"))
        self.assertEqual(client.frames(), [encode_packet(conn_id, b"y")])

    def test_order(self) -> None:
        """Answers keep the order of the dials, in whatever order they are known."""
        client, server = self.client(), self.server(1)
        self.say(client, *map(encode_dial, (100, 1, 101, 2, 102)))
        self.assertQuiet(client, server)
        self.pending[2].resolve(server)
        self.pending[1].resolve(None)
        self.assertQuiet(client, server)
        self.assertWaiting(5)
        self.pending[0].resolve(server)
        self.assertEqual(
            client.frames(),
            [
                encode_accept(1, 100),
                encode_accept(2, 1),
                encode_refuse(101),
                encode_refuse(2),
                encode_accept(3, 102),
            ],
        )
        self.assertEqual(server.frames(), [encode_connect(n, 1) for n in (1, 2, 3)])

    def test_in_part(self) -> None:
        """What is known is answered up to the first dial that is not."""
        client, server = self.client(), self.server(1)
        self.say(client, *map(encode_dial, (100, 1, 101, 1)))
        self.pending[0].resolve(None)
        self.assertEqual(client.frames(), [encode_refuse(100), encode_accept(1, 1)])
        self.assertWaiting(2)
        self.say(client, encode_dial(1))
        self.assertQuiet(client)
        self.pending[1].resolve(server)
        accepts = [encode_accept(2, 101), encode_accept(3, 1), encode_accept(4, 1)]
        self.assertEqual(client.frames(), accepts)

    def test_others_do_not_wait(self) -> None:
        """A dial waits for dials of its own link only; the dialled one is free as well."""
        client, other, server = self.client(), self.client(), self.server(1)
        self.say(client, encode_dial(100))
        self.dial(other, server)
        self.dial(server, client)
        self.pending[0].resolve(server)
        self.assertEqual(client.frames(), [encode_accept(3, 100)])

    def test_look_up_taken_away(self) -> None:
        """Behind a dial that waits even the router's own tables answer in turn."""
        client, server = self.client(), self.server(1)
        self.say(client, encode_dial(100))
        self.router.look_up = None
        self.say(client, encode_dial(1))
        self.assertQuiet(client, server)
        self.pending[0].resolve(None)
        self.assertEqual(client.frames(), [encode_refuse(100), encode_accept(1, 1)])

    def test_remote_goes_meanwhile(self) -> None:
        """A dial that finds a link which has gone is refused."""
        client, server = self.client(), self.server(1)
        self.say(client, encode_dial(100), encode_dial(1))
        self.router.lose(server, Reason.PEER_CLOSED)
        self.pending[0].resolve(server)
        self.assertEqual(client.frames(), [encode_refuse(100), encode_refuse(1)])
        self.assertEqual(self.stats.refused, {Refusal.UNKNOWN: 2})

    def test_dialler_goes_meanwhile(self) -> None:
        """The dials of a link that goes count as refused, and their answers reach nobody."""
        client, server = self.client(), self.server(1)
        self.say(client, *map(encode_dial, (100, 1, 101)))
        self.router.lose(client, Reason.PEER_CLOSED)
        self.assertLost(client, Reason.PEER_CLOSED)
        self.assertWaiting(0)
        self.assertEqual(self.stats.refused, {Refusal.GONE: 3})
        for pending in self.pending:
            pending.resolve(server)
        self.assertEqual(client.frames(), [])
        self.assertQuiet(server)
        self.assertEqual(self.router.conn_ids, set())

    def test_dialler_goes_within(self) -> None:
        """A look-up during which the dialler goes is not answered, whatever it says."""
        server = self.server(1)

        for pends in (False, True):
            client = self.client()

            def lose(link: Link, remote_id: int, pends: bool = pends) -> Link | Pending | None:
                self.router.lose(link, Reason.KICKED)
                return Pending() if pends else server

            self.router.look_up = lose
            self.say(client, encode_dial(1), PING)
            self.assertLost(client, Reason.KICKED)
            self.assertEqual(client.frames(), [])
            self.assertQuiet(server)
            self.assertWaiting(0)
        self.assertEqual(self.stats.refused, {Refusal.GONE: 2})

    def test_answered_from_within(self) -> None:
        """A look-up may answer earlier dials before it returns; they keep their turn."""
        client, server = self.client(), self.server(1)
        self.say(client, encode_dial(100))

        def now_all(link: Link, remote_id: int) -> Link:
            for pending in self.pending:
                pending.resolve(server)
            return server

        self.router.look_up = now_all
        self.say(client, encode_dial(1))
        self.assertEqual(client.frames(), [encode_accept(1, 100), encode_accept(2, 1)])
        self.assertWaiting(0)

    def test_limit(self) -> None:
        """A client has no more look-ups under way than it may have connections."""
        self.limits.client_max_conn = 3
        client, server = self.client(), self.server(1)
        self.dial(client, server)
        self.asked.clear()
        self.say(client, *map(encode_dial, (100, 101, 102, 1)))
        self.assertEqual(self.asked, [(client, 100), (client, 101)])
        self.assertQuiet(client, server)
        for pending in self.pending:
            pending.resolve(server)
        self.assertEqual(
            client.frames(),
            [encode_accept(2, 100), encode_accept(3, 101), encode_refuse(102), encode_refuse(1)],
        )
        self.assertEqual(self.stats.refused, {Refusal.LIMIT: 2})

    def test_full_client(self) -> None:
        """The dial of a client that is full is refused at once, without a look-up."""
        self.limits.client_max_conn = 1
        client, _, _ = self.pair()
        self.asked.clear()
        self.refuse(client, 100)
        self.assertEqual(self.asked, [])

    def test_limits_are_those_of_the_answer(self) -> None:
        """Whether there is room is looked at when the answer is given."""
        self.limits.client_max_conn = 1
        client, server = self.client(), self.server(1)
        self.say(client, encode_dial(100))
        self.dial(server, client)
        self.pending[0].resolve(server)
        self.assertEqual(client.frames(), [encode_refuse(100)])
        self.limits.client_max_total = 2
        self.say(server, encode_dial(101), encode_dial(102), encode_dial(103))
        for pending in self.pending:
            pending.resolve(client)
        self.assertEqual(
            server.frames(), [encode_accept(2, 101), encode_refuse(102), encode_refuse(103)]
        )
        self.assertEqual(self.stats.refused, {Refusal.LIMIT: 1, Refusal.REMOTE_LIMIT: 2})
        self.limits.client_max_total = 0
        self.say(server, encode_dial(104))
        client.full = True
        self.pending[-1].resolve(client)
        self.assertEqual(server.frames(), [encode_refuse(104)])
        self.assertEqual(self.stats.refused[Refusal.BUSY], 1)

    def test_no_id(self) -> None:
        """A dial that waited is refused as well when no connection id is free."""
        self.router = Router(conn_range=IdRange(1, 1), look_up=self.look_up)
        self.stats = self.router.stats
        client, server = self.client(), self.server(1)
        self.say(client, encode_dial(100), encode_dial(1))
        self.pending[0].resolve(server)
        self.assertEqual(client.frames(), [encode_accept(1, 100), encode_refuse(1)])
        self.assertEqual(self.stats.refused, {Refusal.NO_ID: 1})
        self.assertWaiting(0)

    def test_too_many(self) -> None:
        """A link that dials on while as many of its dials wait as may is lost."""
        self.limits.client_max_dials, self.limits.server_max_dials = 3, 4
        client, server, other = self.client(), self.server(1), self.client()
        for link, count in ((client, 3), (server, 4)):
            self.say(link, encode_dial(100) * count)
            self.assertQuiet(link)
            self.say(link, encode_dial(100), PING)
            self.assertLost(link, Reason.TOO_MANY_DIALS, f"{count} dials")
            self.assertEqual(link.frames(), [])
            self.assertWaiting(0)
        self.assertEqual(self.stats.refused, {Refusal.GONE: 4 + 5})
        self.assertQuiet(other)

    def test_default_bounds(self) -> None:
        """1024 dials of a client may wait, and 65536 of a server."""
        limits = Limits()
        self.assertEqual((limits.client_max_dials, limits.server_max_dials), (1024, 65536))

    def test_slices(self) -> None:
        """When many answers are due at once, 64 are given and the rest is left to `work`."""
        self.limits.client_max_total = 0
        client, server = self.client(), self.server(1)
        self.say(server, encode_dial(100), encode_dial(1) * (SLICE + 5))
        self.pending[0].resolve(client)
        self.assertEqual(len(server.sent), SLICE)
        self.assertTrue(self.router.unfinished)
        self.assertWaiting(6)
        self.say(server, encode_dial(2))
        self.assertEqual(len(server.sent), SLICE)
        self.assertTrue(self.router.work(6))
        self.assertWaiting(1)
        self.assertFalse(self.router.work())
        self.assertWaiting(0)
        accepts = [encode_accept(n, 100 if n == 1 else 1) for n in range(1, SLICE + 7)]
        self.assertEqual(server.frames(), [*accepts, encode_refuse(2)])

    def test_lost_between_slices(self) -> None:
        """The answers that are left of a link that goes are not given."""
        self.limits.client_max_total = 0
        client, server = self.client(), self.server(1)
        self.say(server, encode_dial(100), encode_dial(1) * (SLICE + 5))
        self.pending[0].resolve(client)
        self.router.lose(server, Reason.PEER_CLOSED)
        while self.router.work():
            pass
        self.assertEqual(self.stats.refused, {Refusal.GONE: 6})
        self.assertWaiting(0)
        self.assertLost(server, Reason.PEER_CLOSED)
        self.assertEqual(len(client.sent), 2 * SLICE)


class IdConflictTests(RouterCase):
    def test_replace(self) -> None:
        """By default the newer gets the dials, and the older keeps what it has."""
        client, older, kept = self.pair()
        newer = self.server(1)
        self.assertQuiet(client, older, newer)
        self.dial(client, newer)
        self.say(older, encode_packet(kept, b"still"))
        self.assertEqual(client.frames(), [encode_packet(kept, b"still")])

    def test_replaced_server_dials(self) -> None:
        """The older may still dial clients under its id."""
        client, older = self.client(), self.server(1)
        self.server(1)
        self.dial(older, client)

    def test_older_goes(self) -> None:
        """The older one's going takes nothing from the newer."""
        client, older, kept = self.pair()
        newer = self.server(1)
        conn_id = self.dial(client, newer)
        self.router.lose(older, Reason.PEER_CLOSED)
        self.assertEqual(client.frames(), [encode_close(kept)])
        self.assertQuiet(newer)
        self.assertEqual(list(newer.peers), [conn_id])
        self.dial(client, newer)

    def test_newer_goes(self) -> None:
        """When the newer goes, the older gets the dials again."""
        client, older, kept = self.pair()
        newer = self.server(1)
        conn_id = self.dial(client, newer)
        self.router.lose(newer, Reason.PEER_CLOSED)
        self.assertEqual(client.frames(), [encode_close(conn_id)])
        self.assertEqual(list(client.peers), [kept])
        self.dial(client, older)

    def test_middle_goes(self) -> None:
        """Of three with one id the newest gets the dials, whoever of the others goes."""
        client = self.client()
        first, second, third = self.server(1), self.server(1), self.server(1)
        self.router.lose(second, Reason.PEER_CLOSED)
        self.dial(client, third)
        self.router.lose(third, Reason.PEER_CLOSED)
        client.frames()
        self.dial(client, first)
        self.router.lose(first, Reason.PEER_CLOSED)
        client.frames()
        self.refuse(client, 1)
        self.assertEqual(self.router.servers, {})

    def test_evict(self) -> None:
        """With `evict` the older is lost, and all others with its id."""
        client, first, kept = self.pair()
        second = self.server(1)
        self.limits.server_id_conflict = IdConflict.EVICT
        newest = self.server(1)
        for older in (first, second):
            self.assertLost(older, Reason.EVICTED)
        self.assertEqual(client.frames(), [encode_close(kept)])
        self.assertQuiet(newest)
        self.dial(client, newest)
        self.assertEqual(self.stats.lost, {(Side.SERVER, Reason.EVICTED): 2})

    def test_evict_only_the_same_id(self) -> None:
        """With `evict` a server of another id, and a client of the same, stay."""
        self.limits.server_id_conflict = IdConflict.EVICT
        client, server, other = self.client(), self.server(2), self.server(1)
        self.assertQuiet(client, server, other)

    def test_reject(self) -> None:
        """With `reject` the newer is lost, and the older notices nothing."""
        self.limits.server_id_conflict = IdConflict.REJECT
        client, older, kept = self.pair()
        newer = self.server(1)
        self.assertLost(newer, Reason.ID_IN_USE)
        self.assertEqual(newer.frames(), [])
        self.assertQuiet(client, older)
        self.assertEqual(list(older.peers), [kept])
        self.dial(client, older)

    def test_reject_only_while_in_use(self) -> None:
        """With `reject` an id is free again when its server has gone."""
        self.limits.server_id_conflict = IdConflict.REJECT
        client, older = self.client(), self.server(1)
        self.router.lose(older, Reason.PEER_CLOSED)
        newer = self.server(1)
        self.assertQuiet(newer)
        self.dial(client, newer)

    def test_links(self) -> None:
        """All links that are logged in are listed: clients first, then servers."""
        one, server, two = self.client(), self.server(9), self.client()
        newer = self.server(9)
        self.assertEqual(list(self.router.links()), [one, two, server, newer])


class StatsTests(RouterCase):
    def test_nothing_yet(self) -> None:
        """A new router has counted nothing, and has the limits of the spec."""
        router = Router()
        self.assertEqual((router.stats.dials, router.stats.packets), (0, 0))
        self.assertEqual(router.limits.client_max_conn, 16)
        self.assertIs(router.limits.server_id_conflict, IdConflict.REPLACE)

    def test_sums(self) -> None:
        """The counters of a mixed day add up."""
        self.limits.server_id_conflict = IdConflict.REJECT
        client, server, one = self.pair()
        gone = self.client()
        self.dial(gone, server)
        self.server(1)
        self.say(client, encode_dial(5), encode_packet(one, b"xyz") * 2, encode_packet(one, b""))
        self.say(client, encode_packet(99, b""), encode_close(2), encode_close(one), PING)
        self.router.lose(gone, Reason.IDLE_TIMEOUT)
        stats = self.stats
        self.assertEqual(stats.gained, {Side.CLIENT: 2, Side.SERVER: 2})
        self.assertEqual(
            stats.lost,
            {(Side.CLIENT, Reason.IDLE_TIMEOUT): 1, (Side.SERVER, Reason.ID_IN_USE): 1},
        )
        self.assertEqual((stats.dials, stats.accepted, stats.closed), (3, 2, 2))
        self.assertEqual(stats.refused, {Refusal.UNKNOWN: 1})
        self.assertEqual((stats.packets, stats.bytes), (3, 2 * 11 + 8))
        self.assertEqual((stats.strays, stats.foreign_closes, stats.pings), (1, 1, 1))

    def test_bytes(self) -> None:
        """Bytes count what was forwarded, heads included, and nothing else."""
        client, _server, conn_id = self.pair()
        self.say(client, PING, encode_packet(99, b"stray"))
        self.assertEqual((self.stats.packets, self.stats.bytes), (0, 0))
        self.say(client, encode_packet(conn_id, b""))
        self.assertEqual((self.stats.packets, self.stats.bytes), (1, 8))

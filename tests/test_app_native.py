"""Ports of an application on the relay: what only they have, and how they are asked for.

That a link there is as any is test_app_link's and test_app_websocket's to show.
"""

from __future__ import annotations

import os
import socket
from typing import Any, cast
from unittest import SkipTest
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from fastway import relay
from fastway.app import App, Bounds, Session
from fastway.app.link import GOODBYE
from fastway.app.listen import NoNative
from fastway.app.ports import LinkFactory
from fastway.errors import ConfigError, StartError
from tests.support.app_links import NativeLinks, Turns, Wireless
from tests.support.files import scratch
from tests.support.logs import LogLines
from tests.support.tls import make
from tests.support.words import Words


class Groups(NativeLinks):
    """What is told to many."""

    def test_one_call(self) -> None:
        """A message goes to all native members in one call, and to the others; each has it in
        order with all else that he is told."""
        app = self.app_with()
        room = app.group("room")
        app.opened(room.add)
        native = [self.connect(Words(max_frame=9000)) for _ in range(5)]
        other = Wireless(LinkFactory(app, Words(max_frame=9000)).buildProtocol(None))
        other.say(b'hi "bob"\n')
        other.lines()
        first, *_ = app.sessions.values()
        with patch.object(type(app.links.relay), "multicast", autospec=True) as multicast:
            room.send("on", 1)
            self.assertEqual([len(call.args[1]) for call in multicast.mock_calls], [5])
        large = "x" * 5000  # of which there is one copy
        first.send("on", 1)
        self.assertEqual(room.send("on", large), 6)
        first.send("on", 2)
        self.assertTrue(app.links.relay.core.pool()[0] < 5 * 5000)
        self.assertEqual(room.send("on", 3, but=first), 5)
        self.clock.advance(0)
        told = [f'say on "{large}"', "say on 3"]
        for member in (*native[1:], other):
            lines = [line for line in member.lines() if line != "say on 1"]
            self.assertEqual(lines, told)
        self.assertEqual(native[0].lines(), ["say on 1", told[0], "say on 2"])
        self.assertEqual(app.counts.sent, 1 + 6 + 1 + 5 + 1 + 1 - 1)

    def test_bad_members(self) -> None:
        """One floods, one does not read, one lies: the others have all that they are told, in
        order, and soon; what waits is bounded, and each of the three goes for his own reason."""
        bounds = Bounds(waiting=20_000, requests=4, strand=10)
        app = self.app_with(bounds=bounds)
        room = app.group("room")
        app.opened(room.add)
        count = 300
        members = [self.connect() for _ in range(count)]
        flood, frozen, liar = (self.connect(Words(concurrent=9)) for _ in range(3))
        frozen.stop_reading()
        largest = 0
        for number in range(60):
            room.send("on", f"{number:03}" + "x" * 500)
            if flood.connected:
                flood.say(b"ask 1 wait 1\n" * 20)
            if number == 10:
                liar.say(b"\xff" * 500 + b"\n")
            self.clock.advance(0.01)
            flood.lines(), liar.lines()
            largest = max(largest, app.links.relay.core.pool()[0])
            for member in members:
                [line] = member.lines()
                self.assertTrue(line.startswith(f'say on "{number:03}x'))
        self.assertTrue(largest < 300_000, largest)
        self.assertEqual(app.counts.lost, {"bad_frame": 1, "slow_reader": 1})
        self.assertEqual((flood.producerState, len(room)), ("paused", count + 1))
        self.assertEqual(len(self.gates), bounds.requests)


class Crowd(NativeLinks):
    """As test_app_machine's, on the relay: a group in which one floods, one does not read, one
    lies."""

    def test_nobody_notices(self) -> None:
        members = int(os.environ.get("FASTWAY_MEMBERS", "60"))
        app = self.app_with(bounds=Bounds(waiting=20_000, queued=4000, strand=50))
        room = app.group("room")
        app.opened(room.add)
        app.route("tell", lambda number: room.send("on", number))
        dialect = Words(max_frame=3000)
        flooding, frozen, lying, *others = (self.connect(dialect) for _ in range(members))
        frozen.stop_reading()
        flooding.say(b"say wait 0\n")
        offered = 0
        for number in range(20):
            while flooding.producerState == "producing" and offered < 100:
                flooding.say(b'say echo "%s"\n' % (b"x" * 1000))
                offered += 1
            lying.say(b"ok %d 1\nno 7 1 x\nask -1 echo 1\n" % number)
            if number == 9:
                lying.say(b"\xff\xfe\0 nonsense\n")
                lying.take()
            others[0].say(b"say tell %d\n" % number)
            self.clock.advance(0.1)
            for one in others:
                self.assertEqual(one.lines(), [f"say on {number}"])
        self.assertLess(offered, 20)
        self.assertLess(flooding.link._queued + flooding.link._kept, 10_000)
        self.assertEqual(app.counts.lost, {"bad_frame": 1})
        flooding.take()
        told = 0
        while frozen.connected and told < 100:
            room.send("on", "x" * 500)
            told += 1
            self.clock.advance(0.01)
            for one in (flooding, *others):
                self.assertEqual(len(one.lines()), 1)
        self.assertLess(told, 100)
        self.assertEqual(app.counts.lost, {"bad_frame": 1, "slow_reader": 1})
        self.assertEqual(len(room), members - 2)
        self.assertEqual(app.links.relay.core.totals()[7], 0)  # nothing waits for anybody


class HalfOpen(NativeLinks):
    """Peers that end one direction."""

    def test_answered_before_the_end(self) -> None:
        """Who asks and ends at once is answered all the same; then it is over, in order."""
        app = self.app_with()
        far = self.connect()
        [session] = app.sessions.values()
        far.say(b"ask 1 echo 1\n", ends=True)
        self.assertEqual(far.lines(), ["ok 1 1"])
        assert session.ended is not None
        self.assertIsNone(session.ended.cause)
        self.assertFalse(far.connected)

    def test_held_until_handled(self) -> None:
        """What came before the end is handled first, also by one that is not read from."""
        app = self.app_with(bounds=Bounds(requests=1))
        seen: list[Any] = []
        app.route("note", seen.append)
        app.closed(lambda session: seen.append("closed"))
        far = self.connect()
        self.tell(far, "ask 1 wait 1", "say note 1")
        far.say(b"say note 2\n", ends=True)
        self.assertEqual((seen, far.producerState), ([], "paused"))
        self.gates[0].callback(None)
        self.clock.advance(0)
        self.assertEqual((seen, far.lines()), ([1, 2, "closed"], ["ok 1 1"]))

    def test_takes_nothing(self) -> None:
        """Who ends and does not read what he was told is forgotten after a while."""
        app = self.app_with()
        far = self.connect()
        [session] = app.sessions.values()
        far.stop_reading()
        for _ in range(40):
            session.send("on", "x" * 500)
        self.clock.advance(0)
        far.say(b"", ends=True)
        self.assertIsNotNone(session.ended)
        self.assertEqual(app.links.relay.core.totals()[4], 1)
        self.clock.pump([0.1] * int(GOODBYE * 10 + 3))
        self.assertEqual(app.links.relay.core.totals()[4], 0)


class Refused(NativeLinks):
    """Connections that cannot be the relay's."""

    def test_not_taken_in(self) -> None:
        """The system refuses: one line, and nobody hears of a session."""
        app = self.app_with()
        self.connect()
        # A number that the core refuses, as it would without memory.
        app.links.relay._ports[app.bounds.waiting] = 99
        with LogLines() as log:
            far = self.connect(welcome=False)
            self.clock.advance(0)
        self.assertEqual(
            [line for line in log.lines if "could not" in line],
            ["a connection could not be taken in: Invalid argument"],
        )
        self.assertFalse(far.connected)
        self.assertEqual((len(app.sessions), len(app.links.links)), (1, 1))

    def test_nothing_stays(self) -> None:
        """When the last link is gone the relay is in no reactor, and on no wheel."""
        app = self.app_with()
        far = self.connect()
        far.end(ConnectionDone())
        self.clock.pump([0.5] * 12)
        self.assertEqual((app.links.links, self.clock.getDelayedCalls()), (set(), []))
        self.assertEqual(
            (app.links.relay.core.totals()[4], cast(Turns, self.clock).readers), (0, set())
        )
        self.assertEqual(self.tell(self.connect(), "ask 1 echo 1"), ["ok 1 1"])

    def test_no_memory(self) -> None:
        """What came cannot be handed on: all links are lost, and new ones are served."""
        app = self.app_with()
        other = Wireless(LinkFactory(app, Words()).buildProtocol(None))
        far = self.connect()
        with patch.object(app.links.relay, "core") as core:
            core.run.side_effect = MemoryError
            app.links.relay.doRead()
        self.assertFalse(far.connected)
        self.assertEqual((app.counts.lost, other.connected), ({"no_memory": 1}, True))
        self.assertEqual(self.tell(self.connect(), "ask 1 echo 1"), ["ok 1 1"])

    def test_fault_of_ours(self) -> None:
        """A bug is logged, and costs that link alone."""
        self.app_with()
        first, second = self.connect(), self.connect()
        self.patch(first.link.wire, "receive", lambda data, now: 1 // 0)
        first.say(b"say echo 1\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertFalse(first.connected)
        self.assertEqual(self.tell(second, "ask 1 echo 1"), ["ok 1 1"])


class Listening(TestCase):
    """How ports are asked for, on sockets."""

    def setUp(self) -> None:
        self.app = App()
        self.app.route("echo", lambda message: message)
        self.addCleanup(self.over, self.app)

    @inlineCallbacks
    def over(self, app: App) -> Any:
        """Stop, and wait for what still ends."""
        yield app.stop()
        while app.links is not None and len(app.links.wheel):
            yield deferLater(reactor, 0.01)
        if app.links is not None:
            app.links.wheel.stop()

    @inlineCallbacks
    def talk(self, where: Any, native: bool | None, client: str) -> Any:
        """Ask once; returns which way the port went."""
        with LogLines() as log:
            port = yield self.app.listen(where, Words(), native=native)
        [line] = [line for line in log.lines if "words port listens" in line]
        number = port.getHost().port
        peers = App()
        self.addCleanup(self.over, peers)
        endpoint = clientFromString(reactor, client.format(number))
        session: Session = yield peers.connect(endpoint, Words())
        answer = yield session.request("echo", "x" * 900)
        self.assertEqual(answer, "x" * 900)
        self.assertIn(f"words port listens on 127.0.0.1:{number}", line)
        [mine] = self.app.sessions.values()
        self.assertTrue(mine.peer.startswith("127.0.0.1:"))
        session.close()
        yield mine.when_ended()
        self.assertEqual(self.app.counts.lost, {})
        yield port.stopListening()
        return line.partition(", ")[2]

    @inlineCallbacks
    def test_text(self) -> Any:
        """Text is native by itself, an address, a string, and WebSockets; or not, by a word."""
        if relay.missing():
            raise SkipTest(relay.missing())
        tcp, ws = "tcp:127.0.0.1:{}", "ws:127.0.0.1:{}:path=/"
        for where, client in (
            ("127.0.0.1:0", tcp),
            ("tcp:0:interface=127.0.0.1", tcp),
            ("ws:0:interface=127.0.0.1", ws),
        ):
            way = yield self.talk(where, None, client)
            self.assertEqual(way, "native")
            way = yield self.talk(where, False, client)
            self.assertEqual(way, "on Twisted's transports: it was not asked for")

    @inlineCallbacks
    def test_others(self) -> Any:
        """An endpoint, a reactor or a machine without the relay: Twisted's transports, and why."""
        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        way = yield self.talk(endpoint, None, "tcp:127.0.0.1:{}")
        self.assertIn("an endpoint was given", way)
        self.patch(relay, "missing", lambda: "the native relay is not built")
        way = yield self.talk("127.0.0.1:0", None, "tcp:127.0.0.1:{}")
        self.assertIn("not built", way)

    @inlineCallbacks
    def test_strings(self) -> Any:
        """Endpoint strings of all that is not plain TCP: an App listens and connects by them."""
        place = scratch(self)
        made = make("localhost", ("localhost", "127.0.0.1"))
        cert, key = os.path.join(place, "cert.pem"), os.path.join(place, "key")
        made.write(cert, key)
        tls = f"privateKey={key}:certKey={cert}"
        for where, client in (
            (f"ssl:0:interface=127.0.0.1:{tls}", f"tls:localhost:{{}}:trustRoots={place}"),
            (
                f"wss:0:interface=127.0.0.1:{tls}:path=/g",
                f"wss:localhost:{{}}:path=/g:trustRoots={cert}",
            ),
            (r"snet:tcp\:0\:interface=127.0.0.1:waitTimeout=100ms", r"snet:tcp\:127.0.0.1\:{}"),
        ):
            way = yield self.talk(where, None, client)
            self.assertIn("on Twisted's transports: only those of TCP", way)

    def test_wrong(self) -> None:
        """What cannot be is said in a line, before anything is opened."""
        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        for where, native, problem in (
            (endpoint, True, NoNative),
            ("ssl:0:privateKey=x.pem", True, NoNative),
            ("nonsense", None, ConfigError),
            ("tcp:eighty", None, ConfigError),
        ):
            self.failureResultOf(self.app.listen(where, Words(), native=native), problem)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = f"127.0.0.1:{taken.getsockname()[1]}"
            failure = self.failureResultOf(self.app.listen(where, Words()), StartError)
        self.assertIn("in use", str(failure.value))

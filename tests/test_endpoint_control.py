"""A server's side of the control connection: golden messages in, events and golden messages out.

Rule: whatever the gateway says, the control connection ends at worst, and says why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.control import PlayerFacts
from fastway.endpoint.control_core import (
    BURST,
    MAX_EARLY,
    Answered,
    Bye,
    ClosedWhy,
    ControlCore,
    ControlState,
    Draining,
    Event,
    Facts,
    LostEvents,
    Moved,
    Pushed,
    Request,
    Want,
    Welcome,
)
from fastway.errors import (
    BadControl,
    ConnectionEnded,
    MessageTooLarge,
    NoControl,
    RequestRefused,
    RequestsFull,
    RequestTimeout,
)
from tests.support.control import (
    FACTS,
    FACTS_LINE,
    UNIX,
    ControlEnd,
    denied,
    done,
    said,
    told,
    welcome,
)
from tests.support.core import DETERMINISTIC
from tests.support.errors import raised

CONN = 4000
"""The id of the control connection."""

HELLO = b'{"op":"hello","id":1,"v":1,"want":["closed","drain","inline","moved","open"]}'
WELCOME = Welcome("gw1", "0.1.0", frozenset({"groups"}), 512 * 1024)


class ControlTestCase(SynchronousTestCase):
    """A core, the connections of its server, and the time."""

    def setUp(self) -> None:
        self.conns = {5, 6, 7}
        self.now = 100.0

    def dialling(self, want: Any = Want, **kw: Any) -> ControlCore:
        return ControlCore(self.conns, want, **kw)

    def open(self, want: Any = Want, **kw: Any) -> ControlCore:
        """A core that was greeted; its next request is number 2."""
        core = self.dialling(want, **kw)
        core.opened(CONN, self.now)
        self.assertEqual(len(core.messages_to_send(self.now)), 1)
        events = core.receive_message(welcome(1))
        self.assertEqual(events, [WELCOME])
        return core

    def answered(self, core: ControlCore, request: Request, answer: bytes) -> Answered:
        """What a request, which is sent, comes to by this answer."""
        core.messages_to_send(self.now)
        (event,) = core.receive_message(answer)
        assert isinstance(event, Answered)
        self.assertIs(event.request, request)
        self.assertIsNone(core.error)
        return event

    def over(self, core: ControlCore, events: list[Event], *waited: Request) -> None:
        """The control connection is over, and who waited was told."""
        self.assertIs(core.state, ControlState.ENDED)
        self.assertEqual([getattr(event, "request", None) for event in events], list(waited))
        for event in events:
            assert isinstance(event, Answered)
            assert isinstance(event.error, NoControl)
            self.assertIs(event.error.cause, core.error)
            self.assertEqual(event.error.verb, event.request.verb.value)
        self.assertEqual(core.messages_to_send(self.now), [])
        self.assertIsNone(core.wakes_at())
        self.assertFalse(core.inline)
        self.assertEqual(core.receive_message(told("bye", code=1001, reason="x")), [])
        self.assertEqual(core.conn_opened(8, b"garbage"), [])
        self.assertEqual(core.conn_closed(8, b"garbage"), [])
        self.assertEqual(core.expire(self.now + 1e6), [])
        self.assertEqual(core.ended(), [])
        self.assertEqual(core.groups.names(), set())
        self.assertIs(raised(NoControl, core.time, self.now).cause, core.error)

    def breaks(self, core: ControlCore, message: bytes, word: str, *waited: Request) -> None:
        """The gateway says `message`, and only its control connection ends for it."""
        events = core.receive_message(message)
        self.assertIsInstance(core.error, BadControl)
        self.assertIn(word, str(core.error))
        self.over(core, events, *waited)


class OpeningTests(ControlTestCase):
    """From the dial to the greeting."""

    def test_hello(self) -> None:
        """hello is first, and what was asked before waits for its answer."""
        core = self.dialling()
        early = core.time(self.now)
        self.assertEqual(core.messages_to_send(self.now), [])
        self.assertEqual(core.wakes_at(), early.deadline)
        self.assertFalse(core.inline)
        core.opened(CONN, self.now)
        self.assertTrue(core.inline)
        self.assertEqual((core.conn_id, core.state), (CONN, ControlState.GREETING))
        hello = HELLO.replace(b'"id":1', b'"id":2')
        self.assertEqual(core.messages_to_send(self.now), [hello])
        self.assertEqual(core.messages_to_send(self.now), [])
        self.assertEqual(core.waiting, 1)
        self.assertEqual(core.receive_message(welcome(2)), [WELCOME])
        wakes = core.wakes_at()
        assert wakes is not None and wakes <= self.now
        self.assertEqual(core.wakes_at(sending=False), early.deadline)
        self.assertEqual((core.state, core.welcome), (ControlState.OPEN, WELCOME))
        self.assertEqual(core.messages_to_send(self.now), [b'{"op":"time","id":1}'])
        self.assertEqual(core.receive_message(done(1, unix=UNIX)), [Answered(early, UNIX)])

    def test_want(self) -> None:
        """Only what is wanted is asked for."""
        core = self.dialling({Want.DRAIN})
        core.opened(CONN, self.now)
        (message,) = core.messages_to_send(self.now)
        self.assertEqual(message, b'{"op":"hello","id":1,"v":1,"want":["drain"]}')
        self.assertFalse(core.inline)

    def test_refused(self) -> None:
        """A gateway without one is no error; who waited is told, and who asks later, too."""
        core = self.dialling()
        one, two = core.time(self.now), core.join(self.now, "a", [5])
        two.abandoned = True
        (event,) = core.refused()
        assert isinstance(event, Answered)
        self.assertIs(event.request, one)
        assert isinstance(event.error, NoControl)
        self.assertIsNone(event.error.cause)
        self.assertIs(core.state, ControlState.ABSENT)
        self.assertIsNone(core.error)
        self.assertIsNone(core.wakes_at())
        self.assertEqual(core.groups.names(), set())
        raised(NoControl, core.time, self.now)
        self.assertEqual(core.ended(), [])
        self.assertIs(core.state, ControlState.ABSENT)
        self.assertEqual(core.conn_opened(8, b"more"), [])
        self.assertEqual(core.messages_to_send(self.now), [])

    def test_hello_denied(self) -> None:
        """A gateway that refuses hello ends the control connection, with its reason."""
        core = self.dialling()
        core.opened(CONN, self.now)
        core.messages_to_send(self.now)
        waits = core.time(self.now)
        events = core.receive_message(denied(1, "denied", "not you"))
        assert isinstance(core.error, ConnectionEnded)
        self.assertIsInstance(core.error.cause, RequestRefused)
        self.assertIn("not you", str(core.error))
        self.over(core, events, waits)

    def test_silence(self) -> None:
        """A gateway that accepts and is silent ends it, when hello's time is over."""
        core = self.dialling(timeout=3)
        core.opened(CONN, self.now)
        core.messages_to_send(self.now)
        waits = core.time(self.now + 1)
        self.assertEqual(core.wakes_at(), self.now + 3)
        self.assertEqual(core.expire(self.now + 2.9), [])
        events = core.expire(self.now + 3)
        assert isinstance(core.error, ConnectionEnded)
        self.assertIsInstance(core.error.cause, RequestTimeout)
        self.over(core, events, waits)

    def test_wrong_welcome(self) -> None:
        """Another version, and each field of a welcome that is wrong, are told."""
        fields: dict[str, Any] = {
            "v": 2,
            "gateway": None,
            "version": 1,
            "features": "groups",
            "max_packet": "1M",
        }
        for name, value in fields.items():
            core = self.dialling()
            core.opened(CONN, self.now)
            core.messages_to_send(self.now)
            self.breaks(core, welcome(1, **{name: value}), name)
        core = self.dialling()
        core.opened(CONN, self.now)
        core.messages_to_send(self.now)
        self.breaks(core, welcome(1, features=["a", 1]), "features")

    def test_events_before(self) -> None:
        """An event before the answer to hello is a lie, an unknown one and one inline too."""
        for name in ("open", "bye", "lost", "rain"):
            core = self.dialling()
            core.opened(CONN, self.now)
            self.breaks(core, told(name), "before hello")
        core = self.dialling()
        core.opened(CONN, self.now)
        events = core.conn_opened(5, told("open", conn=5, **FACTS))
        self.assertIn("before hello", str(core.error))
        self.over(core, events)

    def test_smaller_gateway(self) -> None:
        """What is too large for the gateway is not sent: it would cost the link."""
        core = self.dialling()
        small, large = core.push(self.now, bytes(10), everyone=True), None
        large = core.push(self.now, bytes(1000), everyone=True)
        core.opened(CONN, self.now)
        core.messages_to_send(self.now)
        first, event = core.receive_message(welcome(3, max_packet=504))
        self.assertIsInstance(first, Welcome)
        assert isinstance(event, Answered)
        self.assertIs(event.request, large)
        assert isinstance(event.error, MessageTooLarge)
        self.assertEqual(event.error.limit, 500)
        (message,) = core.messages_to_send(self.now)
        self.assertEqual(message, b'{"op":"push","id":1,"all":true}\n' + bytes(10))
        raised(MessageTooLarge, core.push, self.now, bytes(500), everyone=True)
        self.answered(core, small, done(1, sent=0, missing=[]))

    def test_ended(self) -> None:
        """A control connection that is closed is no error; its groups end."""
        core = self.open()
        self.answered(core, core.join(self.now, "a", [5]), done(2, members=1))
        waits = core.time(self.now)
        cause = ConnectionError("cut")
        (event,) = core.ended(cause)
        assert isinstance(event, Answered) and isinstance(event.error, NoControl)
        self.assertIs(event.request, waits)
        self.assertIs(event.error.cause, cause)
        self.assertIn("cut", str(event.error))
        self.over(core, [])


class RequestTests(ControlTestCase):
    """What a server may ask: golden messages out, results in."""

    def exchange(
        self, ask: Callable[[ControlCore], Request], message: bytes, answer: bytes
    ) -> object:
        core = self.open()
        request = ask(core)
        self.assertEqual(core.messages_to_send(self.now), [message])
        event = self.answered(core, request, answer)
        self.assertIsNone(event.error)
        return event.result

    def test_who(self) -> None:
        """The facts of a connection's client, or of a client."""
        facts = PlayerFacts.read(FACTS)
        answer = b'{"id":2,"ok":true,' + FACTS_LINE[1:]
        for ask, key in (
            (lambda core: core.who(self.now, conn=5), b'"conn":5'),
            (lambda core: core.who(self.now, client=5), b'"client":5'),
        ):
            message = b'{"op":"who","id":2,' + key + b"}"
            self.assertEqual(self.exchange(ask, message, answer), facts)

    def test_kick(self) -> None:
        """A client goes, with a code and a text."""
        self.assertIsNone(
            self.exchange(
                lambda core: core.kick(self.now, 7, 4403, "enough"),
                b'{"op":"kick","id":2,"client":7,"code":4403,"text":"enough"}',
                done(2),
            )
        )

    def test_user(self) -> None:
        """A name goes as it is."""
        self.assertIsNone(
            self.exchange(
                lambda core: core.user(self.now, 5, "Zoë"),
                '{"op":"user","id":2,"conn":5,"user":"Zoë"}'.encode(),
                done(2),
            )
        )

    def test_join_and_leave(self) -> None:
        """How many are in the group then."""
        for verb, ask in (
            (b"join", lambda core: core.join(self.now, "room:7", [5, 6])),
            (b"leave", lambda core: core.leave(self.now, "room:7", (5, 6))),
        ):
            message = b'{"op":"' + verb + b'","id":2,"group":"room:7","conns":[5,6]}'
            self.assertEqual(self.exchange(ask, message, done(2, members=12)), 12)

    def test_push(self) -> None:
        """The message stands behind the object as it is."""
        payload = b'\n{"raw":\xff}\n'
        for arguments, key in (
            ({"group": "room:7"}, b'"group":"room:7"'),
            ({"conns": [5, 9]}, b'"conns":[5,9]'),
            ({"everyone": True}, b'"all":true'),
            ({"group": "room:7", "but": [5]}, b'"group":"room:7","but":[5]'),
        ):
            result = self.exchange(
                lambda core, arguments=arguments: core.push(  # type: ignore[misc]
                    self.now, payload, **arguments
                ),
                b'{"op":"push","id":2,' + key + b"}\n" + payload,
                done(2, sent=1, missing=[9]),
            )
            self.assertEqual(result, Pushed(1, (9,)))

    def test_empty_push(self) -> None:
        """An empty message is one."""
        core = self.open()
        core.push(self.now, b"", everyone=True)
        self.assertEqual(core.messages_to_send(self.now), [b'{"op":"push","id":2,"all":true}\n'])

    def test_time(self) -> None:
        """The gateway's time."""
        result = self.exchange(
            lambda core: core.time(self.now), b'{"op":"time","id":2}', done(2, unix=UNIX)
        )
        self.assertEqual(result, UNIX)

    def test_nonsense(self) -> None:
        """What cannot be asked costs nothing, not even a number."""
        core = self.open()
        now = self.now
        for error, ask in (
            (ValueError, lambda: core.who(now)),
            (ValueError, lambda: core.who(now, conn=5, client=5)),
            (ValueError, lambda: core.who(now, conn=0)),
            (ValueError, lambda: core.who(now, client=2**32)),
            (TypeError, lambda: core.who(now, client="7")),  # type: ignore[arg-type]
            (ValueError, lambda: core.kick(now, 7, 999)),
            (ValueError, lambda: core.kick(now, 7, 5000)),
            (ValueError, lambda: core.kick(now, 7, 4403, "\ud800")),
            (ValueError, lambda: core.user(now, 5, "")),
            (ValueError, lambda: core.user(now, 5, "a\n")),
            (ValueError, lambda: core.join(now, "x" * 129, [5])),
            (ValueError, lambda: core.join(now, "a", [0])),
            (TypeError, lambda: core.join(now, "a", [5.0])),  # type: ignore[list-item]
            (TypeError, lambda: core.leave(now, b"a", [5])),  # type: ignore[arg-type]
            (ValueError, lambda: core.push(now, b"")),
            (ValueError, lambda: core.push(now, b"", group="a", conns=[5])),
            (ValueError, lambda: core.push(now, b"", group="a", everyone=True)),
            (MessageTooLarge, lambda: core.push(now, bytes(512 * 1024), everyone=True)),
            (MessageTooLarge, lambda: core.join(now, "a", range(1_000_000, 1_010_000))),
        ):
            raised(error, ask)
        self.assertEqual(core.messages_to_send(now), [])
        self.assertEqual(core.groups.names(), set())
        core.time(now)
        self.assertEqual(core.messages_to_send(now), [b'{"op":"time","id":2}'])

    def test_no(self) -> None:
        """A refusal has a code for programs and a text for people, and the next goes on."""
        core = self.open()
        error = self.answered(
            core, core.who(self.now, client=9), denied(2, "gone", "nobody has that id")
        ).error
        assert isinstance(error, RequestRefused)
        self.assertEqual(
            (error.verb, error.code, error.text), ("who", "gone", "nobody has that id")
        )
        self.assertEqual(str(error), "who: gone: nobody has that id")
        error = self.answered(
            core, core.time(self.now), said({"id": 3, "ok": False, "error": "unknown"})
        ).error
        self.assertEqual(str(error), "time: unknown")
        self.assertEqual(self.answered(core, core.time(self.now), done(4, unix=1)).result, 1.0)

    def test_any_order(self) -> None:
        """Answers find their requests in any order."""
        core = self.open()
        requests = [core.time(self.now) for _ in range(50)]
        core.messages_to_send(self.now)
        for place in [*range(1, 50, 2), *range(48, -1, -2)]:
            self.assertEqual(
                core.receive_message(done(2 + place, unix=place)),
                [Answered(requests[place], float(place))],
            )
        self.assertIsNone(core.wakes_at())

    def test_abandoned(self) -> None:
        """Nobody hears of a request that was abandoned, whatever comes of it."""
        core = self.open(timeout=5)
        one, two, three = (core.time(self.now) for _ in range(3))
        one.abandoned = two.abandoned = three.abandoned = True
        core.messages_to_send(self.now)
        self.assertEqual(core.receive_message(done(2, unix=1)), [])
        self.assertEqual(core.receive_message(denied(3, "gone")), [])
        self.assertEqual(core.expire(self.now + 5), [])
        core.time(self.now).abandoned = True
        self.assertEqual(core.ended(), [])


class BoundTests(ControlTestCase):
    """How many, how much, how fast, how long."""

    def test_count(self) -> None:
        """So many may be unanswered; an answer makes room."""
        core = self.open(max_requests=3)
        for _ in range(3):
            core.time(self.now)
        error = raised(RequestsFull, core.time, self.now)
        self.assertEqual((error.waiting, error.limit, error.unit), (3, 3, "requests"))
        core.messages_to_send(self.now)
        raised(RequestsFull, core.time, self.now)
        core.receive_message(done(3, unix=1))
        core.time(self.now)
        raised(RequestsFull, core.time, self.now)

    def test_bytes(self) -> None:
        """So many bytes may wait; what is sent waits no more."""
        core = self.open(max_waiting=2000)
        core.push(self.now, bytes(1900), everyone=True)
        error = raised(RequestsFull, core.push, self.now, bytes(100), everyone=True)
        self.assertEqual((error.limit, error.unit), (2000, "bytes of requests"))
        self.assertIn("bytes", str(error))
        core.messages_to_send(self.now)
        core.push(self.now, bytes(1900), everyone=True)
        self.assertEqual(core.waiting, 1)

    def test_bytes_of_expired(self) -> None:
        """What expires unsent makes room, and is not sent later."""
        core = self.dialling(max_waiting=2000, timeout=5)
        request = core.push(self.now, bytes(1900), everyone=True)
        (event,) = core.expire(self.now + 5)
        assert isinstance(event, Answered)
        self.assertIs(event.request, request)
        core.push(self.now + 5, bytes(1900), everyone=True)
        core.opened(CONN, self.now + 5)
        core.messages_to_send(self.now + 5)
        core.receive_message(welcome(3))
        (message,) = core.messages_to_send(self.now + 5)
        self.assertIn(b'"id":2,', message)
        self.breaks(core, done(1, sent=0, missing=[]), "not asked", *core._pending.values())

    def test_pace(self) -> None:
        """A crowd of requests is spread, in order, below the gateway's bound."""
        core = self.open(max_requests=3000, timeout=60)
        start = self.now
        for _ in range(2500):
            core.time(start)
        sent: list[float] = [start]
        messages: list[bytes] = []
        while core.waiting:
            some = core.messages_to_send(self.now)
            self.assertTrue(some)
            messages += some
            sent += [self.now] * len(some)
            self.assertEqual(core.messages_to_send(self.now), [])
            if core.waiting:
                wakes = core.wakes_at()
                assert wakes is not None and wakes > self.now
                self.now = wakes
        self.assertEqual(
            messages, [b'{"op":"time","id":%d}' % number for number in range(2, 2502)]
        )
        self.assertIn(sent.count(start), (BURST - 1, BURST))
        for place in range(len(sent) - 1000):
            self.assertGreater(sent[place + 1000] - sent[place], 1)
        self.assertLess(sent[-1] - start, 3)

    @DETERMINISTIC
    @given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 400)), max_size=12))
    def test_any_pace(self, days: list[tuple[float, int]]) -> None:
        """However requests come, no second has more than 1000."""
        now = 0.0
        core = ControlCore((), max_requests=5000, timeout=1e6)
        core.opened(CONN, now)
        sent = [now] * len(core.messages_to_send(now))
        core.receive_message(welcome(1))
        for wait, count in days:
            now += wait
            for _ in range(count):
                core.time(now)
            sent += [now] * len(core.messages_to_send(now))
        for place in range(len(sent) - 1000):
            self.assertGreater(sent[place + 1000] - sent[place], 1)

    def test_deadline(self) -> None:
        """Each request has its time; its answer may come late, and is not believed twice."""
        core = self.open(timeout=10)
        one = core.time(self.now)
        two = core.time(self.now + 4)
        core.messages_to_send(self.now + 4)
        self.assertEqual(core.wakes_at(), self.now + 10)
        self.assertEqual(core.expire(self.now + 9.9), [])
        (event,) = core.expire(self.now + 10)
        assert isinstance(event, Answered) and isinstance(event.error, RequestTimeout)
        self.assertIs(event.request, one)
        self.assertEqual((event.error.verb, event.error.seconds), ("time", 10))
        self.assertIsInstance(event.error, TimeoutError)
        self.assertEqual(core.wakes_at(), self.now + 14)
        self.assertEqual(core.receive_message(done(2, unix=1)), [])
        self.assertIsNone(core.error)
        self.breaks(core, done(2, unix=1), "2", two)

    def test_never_answers(self) -> None:
        """A gateway that leaves more and more unanswered is left."""
        core = self.open(timeout=1, max_requests=5)
        for _turn in range(2):
            for _ in range(3):
                core.time(self.now)
            core.messages_to_send(self.now)
            self.now += 1
            self.assertIsNone(core.error)
            events = core.expire(self.now)
            self.assertEqual(len(events), 3)
        self.assertIn("unanswered", str(core.error))
        self.over(core, [])


class LieTests(ControlTestCase):
    """What a gateway in its senses does not say."""

    def test_unasked(self) -> None:
        """Answers that nobody asked for: to nothing, again, too early, of hello again."""
        for number in (0, 1, 2, 2**53):
            self.breaks(self.open(), done(number, unix=1), "not asked")
        core = self.open()
        self.answered(core, core.time(self.now), done(2, unix=1))
        self.breaks(core, done(2, unix=1), "not asked")
        core = self.open()
        unsent = core.time(self.now)
        self.breaks(core, done(2, unix=1), "not asked", unsent)

    def test_no_answer(self) -> None:
        """What is neither an answer nor an event, and answers with wrong fields."""
        for fields, word in (
            ({}, "id"),
            ({"id": "2", "ok": True}, "id"),
            ({"id": True, "ok": True}, "id"),
            ({"id": None, "ok": False, "error": "gone"}, "id"),
            ({"id": -1, "ok": True}, "id"),
            ({"id": 2}, "ok"),
            ({"id": 2, "ok": 1}, "ok"),
            ({"id": 2, "ok": False}, "error"),
            ({"id": 2, "ok": False, "error": 7}, "error"),
            ({"id": 2, "ok": False, "error": "gone", "text": "\n"}, "text"),
            ({"id": 2, "ok": True}, "unix"),
            ({"id": 2, "ok": True, "unix": "now"}, "unix"),
        ):
            core = self.open()
            waits = core.time(self.now)
            core.messages_to_send(self.now)
            self.breaks(core, said(fields), word, waits)

    def test_wrong_results(self) -> None:
        """The results of each verb are looked at."""
        for ask, fields, word in (
            (lambda core: core.who(self.now, conn=5), {**FACTS, "client": 0}, "client"),
            (lambda core: core.join(self.now, "a", [5]), {"members": -1}, "members"),
            (lambda core: core.leave(self.now, "a", [5]), {}, "members"),
            (lambda core: core.push(self.now, b"", group="a"), {"missing": []}, "sent"),
            (lambda core: core.push(self.now, b"", group="a"), {"sent": 1}, "missing"),
            (
                lambda core: core.push(self.now, b"", group="a"),
                {"sent": 1, "missing": ["x"]},
                "missing",
            ),
        ):
            core = self.open()
            waits = ask(core)
            core.messages_to_send(self.now)
            self.breaks(core, done(2, **fields), word, waits)

    def test_messages(self) -> None:
        """What is no message at all, what is too large, and what is too deep."""
        for message, word in (
            (b"", "JSON"),
            (b"\xff", "UTF-8"),
            (b"[]", "a list"),
            (b"{}\n", "bytes follow"),
            (told("bye", code=1001, reason="shutdown") + b"\nx", "bytes follow"),
            (said({"op": "rain", "x": "x" * 65536}), "65536"),
            (b"[" * 60_000, "deep"),
            (told("drain", at="soon"), "at"),
            (told("closed", conn=5), "reason"),
            (told("open", conn=5, **{**FACTS, "addr": None}), "addr"),
        ):
            core = self.open()
            waits = core.time(self.now)
            self.breaks(core, message, word, waits)

    def test_unwanted(self) -> None:
        """An event that was not wanted; bye and lost are for everybody."""
        for name, fields in (
            ("open", {"conn": 5, **FACTS}),
            ("closed", {"conn": 5, "reason": "kicked"}),
            ("moved", {"client": 7, "addr": "::1"}),
            ("drain", {"at": 1, "until": 2, "again": False}),
        ):
            want = set(Want) - {Want(name)}
            self.breaks(self.open(want), told(name, **fields), "not wanted")
            core = self.open({Want(name)})
            core.receive_message(told(name, **fields))
            self.assertIsNone(core.error)
        core = self.open(())
        self.assertEqual(
            core.receive_message(told("bye", code=4403, reason="kicked")), [Bye(4403, "kicked")]
        )
        self.assertEqual(core.receive_message(told("lost", events=3)), [LostEvents(3)])

    @DETERMINISTIC
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=20),
                st.builds(
                    lambda fields: said(fields),
                    st.fixed_dictionaries(
                        {},
                        optional={
                            "op": st.sampled_from(["open", "closed", "bye", "x", 1]),
                            "id": st.integers(0, 9) | st.none(),
                            "ok": st.booleans() | st.integers(0, 1),
                            "error": st.sampled_from(["gone", 7]),
                            "unix": st.floats() | st.none(),
                            "members": st.integers(-1, 3),
                            "conn": st.integers(0, 9),
                            "reason": st.text(max_size=3),
                            "code": st.integers(),
                        },
                    ),
                ),
                st.integers(2, 6).map(lambda number: done(number, unix=1, members=1)),
            ),
            max_size=8,
        )
    )
    def test_anything(self, messages: list[bytes]) -> None:
        """Whatever is said, nothing is raised, and each request is told of once at most."""
        core = self.open()
        asked = [core.time(self.now), core.join(self.now, "a", [5]), core.time(self.now)]
        core.messages_to_send(self.now)
        told_of: list[Request] = []
        for message in messages:
            for event in core.receive_message(message):
                if isinstance(event, Answered):
                    told_of.append(event.request)
        self.assertEqual(core.error is not None, core.state is ControlState.ENDED)
        told_of += [event.request for event in core.ended() if isinstance(event, Answered)]
        self.assertEqual(len(told_of), 3)
        self.assertEqual(set(told_of), set(asked))


class EventTests(ControlTestCase):
    """What the gateway tells."""

    facts = PlayerFacts.read(FACTS)

    def test_plain(self) -> None:
        """Events that speak of no connection come as they are; those of later gateways do not."""
        core = self.open()
        for message, event in (
            (told("moved", client=7, addr="::1", port=9), Moved(7, "::1")),
            (told("drain", at=1, until=61.5, again=True), Draining(1.0, 61.5, True)),
            (told("drain", at=1, until=None, again=False), Draining(1.0, None, False)),
            (told("bye", code=1001, reason="shutdown"), Bye(1001, "shutdown")),
            (told("lost", events=12), LostEvents(12)),
        ):
            self.assertEqual(core.receive_message(message), [event])
        self.assertEqual(core.receive_message(told("rain", id=5, conn="x")), [])
        self.assertIsNone(core.error)

    def test_own_events(self) -> None:
        """open and closed as events of their own are told with the commands that follow."""
        core = self.open({Want.OPEN, Want.CLOSED})
        self.assertEqual(core.receive_message(told("open", conn=8, **FACTS)), [])
        self.assertEqual(core.conn_opened(9), [])
        self.assertEqual(core.conn_opened(8), [Facts(8, self.facts)])
        self.assertEqual(core.receive_message(told("closed", conn=8, reason="kicked")), [])
        self.assertEqual(core.conn_closed(9), [])
        self.assertEqual(core.conn_closed(8), [ClosedWhy(8, "kicked")])
        self.assertEqual(core.conn_opened(8), [])
        self.assertEqual(core.conn_closed(8), [])

    def test_told_too_late(self) -> None:
        """Facts that come behind the connection's Connect are not another connection's."""
        core = self.open({Want.OPEN})
        core.conn_opened(8)
        core.receive_message(told("open", conn=8, **FACTS))
        self.assertEqual(core.conn_closed(8), [])
        self.assertEqual(core.conn_opened(8), [])

    def test_inline(self) -> None:
        """With inline they stand behind the arguments; a command without one tells nothing."""
        core = self.open()
        extra = b'{"op":"open","conn":8,' + FACTS_LINE[1:]
        self.assertEqual(core.conn_opened(8, extra), [Facts(8, self.facts)])
        closed = told("closed", conn=8, reason="idle_timeout")
        self.assertEqual(core.conn_closed(8, closed), [ClosedWhy(8, "idle_timeout")])
        self.assertEqual(core.conn_opened(9), [])
        self.assertEqual(core.conn_closed(9), [])

    def test_not_inline(self) -> None:
        """Where inline was not asked for, bytes there are ignored."""
        core = self.open({Want.OPEN})
        self.assertEqual(core.conn_opened(8, b"garbage"), [])
        self.assertEqual(core.conn_closed(8, b"garbage"), [])
        self.assertIsNone(core.error)

    def test_wrong_inline(self) -> None:
        """Garbage behind the arguments ends the control connection, not the connection."""
        for extra in (
            b"garbage",
            told("open", conn=9, **FACTS),
            told("closed", conn=8, reason="x"),
            told("open", conn=8),
        ):
            core = self.open()
            waits = core.time(self.now)
            events = core.conn_opened(8, extra)
            self.assertIsInstance(core.error, BadControl)
            self.over(core, events, waits)
        core = self.open()
        self.over(core, core.conn_closed(8, told("open", conn=8, **FACTS)))
        self.assertIsInstance(core.error, BadControl)

    def test_told_of_nothing(self) -> None:
        """A gateway that tells of connections that never open, or close, has a bound."""
        for name, fields in (("open", FACTS), ("closed", {"reason": "kicked"})):
            core = self.open()
            for conn_id in range(1, MAX_EARLY + 1):
                for _ in range(2):
                    core.receive_message(told(name, conn=conn_id, **fields))
            self.assertIsNone(core.error)
            self.breaks(core, told(name, conn=MAX_EARLY + 1, **fields), name)


class GroupTests(ControlTestCase):
    """Which groups there are at the gateway, beside a gateway."""

    def setUp(self) -> None:
        super().setUp()
        self.end = ControlEnd(group_members=2)
        for conn_id in self.conns:
            self.end.open(conn_id, conn_id)

    def tell(self, core: ControlCore) -> None:
        """Requests reach the gateway."""
        for message in core.messages_to_send(self.now):
            self.end.hear(message)

    def greeted(self) -> ControlCore:
        core = self.dialling()
        core.opened(CONN, self.now)
        self.tell(core)
        core.receive_message(self.end.answers.pop(1))
        return core

    def agree(self, core: ControlCore) -> None:
        """Both have the same groups, after all answers."""
        self.tell(core)
        self.same(core)
        for number in list(self.end.answers):
            core.receive_message(self.end.answers.pop(number))
        self.assertIsNone(core.error)
        self.same(core)

    def same(self, core: ControlCore) -> None:
        self.assertEqual(
            {name: core.groups.members(name) for name in core.groups.names()}, self.end.groups
        )

    def close(self, core: ControlCore, conn_id: int) -> None:
        self.conns.discard(conn_id)
        core.conn_closed(conn_id, self.end.close(conn_id))

    def test_join_and_leave(self) -> None:
        """Members come and go; a group without any is none."""
        core = self.greeted()
        core.join(self.now, "a", [5, 6])
        core.join(self.now, "b", [6])
        self.agree(core)
        self.assertEqual(core.groups.names(), {"a", "b"})
        self.assertEqual(core.groups.members("a"), {5, 6})
        self.assertEqual(core.groups.members("c"), set())
        core.leave(self.now, "a", [5, 7])
        core.leave(self.now, "b", [6])
        self.agree(core)
        self.assertEqual(core.groups.names(), {"a"})

    def test_at_once(self) -> None:
        """What is asked counts at once, so that a push behind a join finds its group."""
        core = self.greeted()
        core.join(self.now, "a", [5])
        self.assertEqual(core.groups.members("a"), {5})
        self.assertEqual(core.groups.names(), {"a"})
        core.push(self.now, b"x", group="a")
        self.agree(core)
        self.assertEqual(self.end.pushed, [(5, b"x")])

    def test_refused(self) -> None:
        """What the gateway refuses was not asked, and what stands behind it counts."""
        core = self.greeted()
        core.join(self.now, "a", [5, 6, 7])
        core.join(self.now, "a", [5])
        self.assertEqual(core.groups.members("a"), {5, 6, 7})
        self.tell(core)
        core.receive_message(self.end.answers.pop(3))
        core.receive_message(self.end.answers.pop(2))
        self.assertEqual(core.groups.members("a"), {5})
        self.agree(core)

    def test_out_of_order(self) -> None:
        """An answer that overtakes another does not undo what was asked later."""
        core = self.greeted()
        core.join(self.now, "a", [5])
        core.leave(self.now, "a", [5])
        self.tell(core)
        self.assertEqual(core.groups.names(), set())
        core.receive_message(self.end.answers.pop(3))
        core.receive_message(self.end.answers.pop(2))
        self.agree(core)

    def test_gone(self) -> None:
        """Who leaves a group that is not there is not in it."""
        core = self.greeted()
        core.leave(self.now, "a", [5])
        self.agree(core)
        self.assertEqual(core.groups.names(), set())
        core.join(self.now, "a", [5])
        self.agree(core)
        self.end.groups.clear()
        core.leave(self.now, "a", [5])
        self.agree(core)

    def test_closed(self) -> None:
        """A connection that ends leaves its groups, and those that it was to join."""
        core = self.greeted()
        core.join(self.now, "a", [5, 6])
        core.join(self.now, "b", [5])
        self.agree(core)
        core.join(self.now, "c", [5])
        self.tell(core)
        self.close(core, 5)
        self.same(core)
        self.assertEqual(core.groups.names(), {"a"})
        self.agree(core)
        self.assertEqual(core.groups.members("a"), {6})

    def test_expired(self) -> None:
        """A join that was not answered in time counts; one that was not even sent does not."""
        core = self.greeted()
        core.join(self.now, "a", [5])
        self.tell(core)
        core.join(self.now, "b", [5])
        core.expire(self.now + 10)
        self.assertEqual(core.groups.names(), {"a"})
        self.assertEqual(core.groups._changes, {})
        self.agree(core)

    def test_nothing_kept(self) -> None:
        """When all have left, nothing is kept of them."""
        core = self.greeted()
        for name in ("a", "b"):
            core.join(self.now, name, [5, 6])
        self.agree(core)
        core.leave(self.now, "a", [5, 6])
        self.agree(core)
        self.close(core, 5)
        self.close(core, 6)
        groups = core.groups
        self.assertEqual(
            (groups._members, groups._groups, groups._asked, groups._changes), ({}, {}, {}, {})
        )

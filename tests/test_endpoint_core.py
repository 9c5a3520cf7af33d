"""The endpoint's wire state: golden bytes in, events and golden bytes out.

Rule: however the bytes are cut, the events are the same; whatever they are, nothing is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import fastway.endpoint.core as core_module
from fastway.endpoint.core import (
    Closed,
    EndpointCore,
    Event,
    LoggedIn,
    Message,
    Opened,
    Pong,
    Refused,
)
from fastway.errors import (
    BadCommand,
    FrameTooLarge,
    FrameTooShort,
    LocalError,
    MessageTooLarge,
    NotOpen,
    RemoteError,
    Truncated,
    Unexpected,
)
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised
from tests.support.golden import (
    FIRST,
    PING,
    accept,
    close,
    command,
    connect,
    dial,
    packet,
    prove,
    refuse,
)

# Spec section 1, as it is printed there.
DIAL = bytes.fromhex("09000000000000000001000000")
ACCEPT = bytes.fromhex("0d00000000000000013725000001000000")
CONNECT = bytes.fromhex("0d00000000000000023725000001000000")
REFUSE = bytes.fromhex("09000000000000000301000000")
CLOSE = bytes.fromhex("09000000000000000437250000")
HELLO = bytes.fromhex("090000003725000048656c6c6f")

# Spec section 3.
CHALLENGE = bytes.fromhex("0102030405060708")
PROOF = bytes.fromhex("adcfa1211693e4374b111406c62170c5")
EMPTY_KEY_PROOF = bytes.fromhex("0ee0646c1c77d8131cc8f4ee65c7673b")

Cut = Callable[[bytes], list[bytes]]


def whole(data: bytes) -> list[bytes]:
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


def feed(core: EndpointCore, data: bytes, cutting: Cut = whole) -> list[Event]:
    return [event for piece in cutting(data) for event in core.receive_data(piece)]


class CoreTestCase(SynchronousTestCase):
    """A core that holds its promises."""

    def breaks(
        self, data: bytes, kind: type[RemoteError], core: EndpointCore | None = None
    ) -> Any:
        """The gateway says `data`, and from then on cannot be understood, for good."""
        core = EndpointCore() if core is None else core
        core.receive_data(data)
        error = core.error
        self.assertIsInstance(error, kind)
        self.assertEqual(core.receive_data(CONNECT + HELLO), [])
        core.receive_eof()
        self.assertIs(core.error, error)
        return error

    def opened(self, *conn_ids: int) -> EndpointCore:
        """A core with virtual connections that the other side dialled."""
        core = EndpointCore()
        core.receive_data(b"".join(connect(conn_id, 1) for conn_id in conn_ids))
        return core


class GoldenTests(CoreTestCase):
    """The spec's vectors, whole and in pieces."""

    def session(self, cutting: Cut) -> None:
        core = EndpointCore()
        one, data = core.dial(1)
        self.assertEqual(data, DIAL)
        two, _ = core.dial(1)
        self.assertEqual(core.ping(), PING)
        self.assertEqual(
            feed(core, ACCEPT + HELLO + packet(FIRST) + REFUSE + PING, cutting),
            [
                Opened(9527, 1, one),
                Message(9527, b"Hello"),
                Message(9527, b""),
                Refused(two),
                Pong(),
            ],
        )
        self.assertEqual(core.send(9527, b"Hello"), HELLO)
        self.assertEqual(core.close(9527), CLOSE)
        self.assertEqual(feed(core, CLOSE, cutting), [Closed(9527)])
        self.assertEqual(
            feed(core, CONNECT + HELLO * 3 + CLOSE, cutting),
            [Opened(9527, 1, None), *[Message(9527, b"Hello")] * 3, Closed(9527)],
        )
        core.receive_eof()
        self.assertIsNone(core.error)
        self.assertEqual(core.data_to_send(), b"")
        self.assertEqual(core.conns, {})

    def test_whole(self) -> None:
        """A client's session in the spec's bytes, each side in one piece."""
        self.session(whole)

    def test_byte_by_byte(self) -> None:
        """A client's session in the spec's bytes, byte by byte."""
        self.session(bytewise)

    @DETERMINISTIC
    @given(st.lists(st.integers(0, 500), max_size=12))
    def test_cuts(self, places: list[int]) -> None:
        """A client's session in the spec's bytes, cut anywhere."""
        self.session(lambda data: cut(data, places))

    def test_extra_bytes_of_a_command(self) -> None:
        """Bytes behind a command's arguments are ignored, as both originals do."""
        core = EndpointCore()
        long_connect = packet(0, connect(7, 1)[8:] + b"more")
        self.assertEqual(core.receive_data(long_connect), [Opened(7, 1, None)])


class InlineTests(CoreTestCase):
    """What follows the arguments of Connect and Close, once the control connection wants it."""

    CONNECT = packet(0, CONNECT[8:] + b'{"op":"open"}')
    CLOSE = packet(0, CLOSE[8:] + b"\n")

    def both(self, cutting: Cut) -> None:
        core = EndpointCore()
        core.inline = True
        self.assertEqual(
            feed(core, self.CONNECT + HELLO + self.CLOSE, cutting),
            [
                Opened(9527, 1, None, b'{"op":"open"}'),
                Message(9527, b"Hello"),
                Closed(9527, b"\n"),
            ],
        )
        self.assertEqual(
            feed(core, CONNECT + CLOSE, cutting),
            [Opened(9527, 1, None, b""), Closed(9527, b"")],
        )
        self.assertIsNone(core.error)

    def test_inline(self) -> None:
        """The bytes come with the events, whole and byte by byte; without any, none come."""
        self.both(whole)
        self.both(bytewise)

    def test_from_then_on(self) -> None:
        """Before it is wanted they are ignored."""
        core = EndpointCore()
        self.assertEqual(
            core.receive_data(self.CONNECT + self.CLOSE), [Opened(9527, 1, None), Closed(9527)]
        )
        core.inline = True
        (event,) = core.receive_data(self.CONNECT)
        self.assertEqual(event, Opened(9527, 1, None, b'{"op":"open"}'))

    def test_others(self) -> None:
        """Bytes behind the arguments of other commands are ignored as ever."""
        core = EndpointCore()
        core.inline = True
        dials = [core.dial(1)[0] for _ in range(2)]
        self.assertEqual(
            core.receive_data(packet(0, ACCEPT[8:] + b"x") + packet(0, REFUSE[8:] + b"x")),
            [Opened(9527, 1, dials[0]), Refused(dials[1])],
        )
        self.assertIsNone(core.error)


class ControlDialTests(CoreTestCase):
    """Dial(0): the gateway itself, where it has a control connection."""

    def test_accepted(self) -> None:
        """The gateway answers our Dial(0), and its messages come as any."""
        core = EndpointCore()
        asked, data = core.dial(0)
        self.assertEqual(data, dial(0))
        self.assertEqual(
            core.receive_data(accept(FIRST, 0) + HELLO),
            [Opened(FIRST, 0, asked), Message(FIRST, b"Hello")],
        )

    def test_refused(self) -> None:
        """Older gateways refuse it, and go on."""
        core = EndpointCore()
        asked, _ = core.dial(0)
        self.assertEqual(core.receive_data(refuse(0)), [Refused(asked)])
        self.assertIsNone(core.error)

    def test_unasked(self) -> None:
        """An Accept of id 0 that answers no Dial(0) is an error, whatever else was dialled."""
        self.breaks(accept(FIRST, 0), Unexpected)
        core = EndpointCore()
        core.dial(1)
        self.breaks(accept(FIRST, 0), Unexpected, core)
        core = EndpointCore()
        core.dial(0)
        core.receive_data(accept(FIRST, 0))
        self.breaks(accept(FIRST + 1, 0), Unexpected, core)


class HandshakeTests(CoreTestCase):
    """Spec section 3, from the server's side."""

    def log_in(self, key: bytes, server_id: int, cutting: Cut) -> tuple[bytes, list[Event]]:
        core = EndpointCore(server_id=server_id, key=key)
        self.assertEqual(core.data_to_send(), b"")
        events = feed(core, CHALLENGE + CONNECT + HELLO, cutting)
        self.assertIsNone(core.error)
        return core.data_to_send(), events

    def test_vectors(self) -> None:
        """The challenge is answered as the spec's vectors say, the id behind it."""
        for key, proof in ((b"secret", PROOF), (b"", EMPTY_KEY_PROOF)):
            answer, _ = self.log_in(key, 0x01020304, whole)
            self.assertEqual(answer, proof + b"\4\3\2\1")

    def test_pieces(self) -> None:
        """The challenge in pieces and packets right behind it lose nothing."""
        for place in range(1, 40):
            answer, events = self.log_in(
                b"secret",
                7,
                lambda data, place=place: cut(data, [place]),  # type: ignore[misc]
            )
            self.assertEqual(answer, prove(CHALLENGE, 7))
            self.assertEqual(events, [LoggedIn(), Opened(9527, 1, None), Message(9527, b"Hello")])

    def test_byte_by_byte(self) -> None:
        """The answer is written once, as soon as the eighth byte is there."""
        core = EndpointCore(server_id=7, key=b"secret")
        for piece in bytewise(CHALLENGE[:-1]):
            self.assertEqual(core.receive_data(piece), [])
            self.assertEqual(core.data_to_send(), b"")
        self.assertEqual(core.receive_data(CHALLENGE[-1:]), [LoggedIn()])
        self.assertEqual(core.data_to_send(), PROOF + b"\7\0\0\0")
        self.assertEqual(core.data_to_send(), b"")

    def test_client_has_none(self) -> None:
        """A client says nothing first and takes the first bytes for packets."""
        core = EndpointCore()
        self.assertFalse(core.is_server)
        self.assertEqual(core.data_to_send(), b"")
        self.assertEqual(core.receive_data(CONNECT), [Opened(9527, 1, None)])

    def test_server_ids(self) -> None:
        """A server's id is 0 to 2**32 - 1."""
        for server_id in (0, 2**32 - 1):
            core = EndpointCore(server_id=server_id)
            core.receive_data(CHALLENGE)
            self.assertEqual(core.data_to_send()[16:], server_id.to_bytes(4, "little"))
        for server_id in (-1, 2**32):
            self.assertIn(str(server_id), str(raised(ValueError, self._server, server_id)))

    def _server(self, server_id: int) -> EndpointCore:
        return EndpointCore(server_id=server_id)

    def test_cut_challenge(self) -> None:
        """A stream that ends inside the challenge is truncated; before it, it is not."""
        core = EndpointCore(server_id=1)
        core.receive_data(CHALLENGE[:3])
        core.receive_eof()
        error = core.error
        assert isinstance(error, Truncated)
        self.assertEqual(error.size, 3)
        core = EndpointCore(server_id=1)
        core.receive_eof()
        self.assertIsNone(core.error)


class DialTests(CoreTestCase):
    """Which answer belongs to which dial."""

    def test_same_id_in_order(self) -> None:
        """Dials of one id are answered in the order in which they were asked."""
        core = EndpointCore()
        one, two, three = (core.dial(5)[0] for _ in range(3))
        self.assertEqual(
            core.receive_data(accept(10, 5) + refuse(5) + accept(11, 5)),
            [Opened(10, 5, one), Refused(two), Opened(11, 5, three)],
        )
        self.assertIsNone(core.error)

    def test_different_ids(self) -> None:
        """Dials of different ids are told apart by the id, even out of order."""
        core = EndpointCore()
        one, two, three, four = (core.dial(remote_id)[0] for remote_id in (1, 2, 1, 2))
        self.assertEqual(
            core.receive_data(accept(10, 2) + refuse(1) + refuse(2) + accept(11, 1)),
            [Opened(10, 2, two), Refused(one), Refused(four), Opened(11, 1, three)],
        )

    def test_connect_is_no_answer(self) -> None:
        """A Connect from the id that is being dialled answers no dial."""
        core = EndpointCore()
        asked, _ = core.dial(1)
        self.assertEqual(
            core.receive_data(connect(10, 1) + accept(11, 1)),
            [Opened(10, 1, None), Opened(11, 1, asked)],
        )

    def test_abandoned_accepted(self) -> None:
        """An abandoned dial's connection is closed at once, and none of it is seen."""
        core = EndpointCore()
        one, _ = core.dial(1)
        two, _ = core.dial(1)
        one.abandoned = True
        self.assertEqual(
            core.receive_data(accept(10, 1) + packet(10, b"early") + accept(11, 1)),
            [Opened(11, 1, two)],
        )
        self.assertEqual(core.data_to_send(), close(10))
        core.receive_data(close(10))
        self.assertEqual(list(core.conns), [11])
        self.assertIsNone(core.error)

    def test_abandoned_refused(self) -> None:
        """The refusal of an abandoned dial is dropped, and the next dial gets its own."""
        core = EndpointCore()
        one, _ = core.dial(1)
        two, _ = core.dial(1)
        one.abandoned = True
        self.assertEqual(core.receive_data(refuse(1)), [])
        self.assertEqual(core.receive_data(refuse(1)), [Refused(two)])
        self.assertEqual(core.data_to_send(), b"")

    def test_ids(self) -> None:
        """Ids are 0 to 2**32 - 1; anything else is refused, and nothing is waited for."""
        core = EndpointCore()
        for remote_id in (0, 1, 2**32 - 1):
            self.assertEqual(core.dial(remote_id)[1], dial(remote_id))
        for number in (-1, 2**32, 2**64):
            self.assertIn(str(number), str(raised(ValueError, core.dial, number)))
        for wrong in (1.5, 1.0, "1", None):
            raised(TypeError, core.dial, wrong)
        core.receive_data(refuse(0) + refuse(1) + refuse(2**32 - 1))
        self.assertIsNone(core.error)
        core.receive_data(refuse(2**32 - 1))
        self.assertIsInstance(core.error, Unexpected)

    @DETERMINISTIC
    @given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=30))
    def test_any_dials(self, dials: list[tuple[int, bool, bool]]) -> None:
        """Each dial gets its own answer, in order, whoever was abandoned between."""
        core = EndpointCore()
        data, expected, to_close = b"", [], b""
        for conn_id, (remote_id, accepted, abandoned) in enumerate(dials, 1):
            asked, _ = core.dial(remote_id)
            asked.abandoned = abandoned
            data += accept(conn_id, remote_id) if accepted else refuse(remote_id)
            if abandoned:
                to_close += close(conn_id) if accepted else b""
            else:
                event = Opened(conn_id, remote_id, asked) if accepted else Refused(asked)
                expected.append(event)
        self.assertEqual(core.receive_data(data), expected)
        self.assertEqual(core.data_to_send(), to_close)
        self.assertIsNone(core.error)


class ClosingTests(CoreTestCase):
    """Packets that cross a Close."""

    def test_crossing(self) -> None:
        """What comes between this end's Close and the gateway's is dropped."""
        core = self.opened(FIRST)
        self.assertEqual(core.close(FIRST), CLOSE)
        self.assertEqual(core.receive_data(HELLO * 2), [])
        self.assertEqual(core.receive_data(CLOSE), [Closed(FIRST)])
        self.assertIsNone(core.error)

    def test_twice(self) -> None:
        """Closing twice, or what is not open, writes nothing."""
        core = self.opened(FIRST)
        core.close(FIRST)
        self.assertEqual(core.close(FIRST), b"")
        core.receive_data(CLOSE)
        self.assertEqual(core.close(FIRST), b"")
        self.assertEqual(core.close(1), b"")

    def test_late_close_and_packet(self) -> None:
        """A Close or a packet of a connection that is gone is ignored."""
        core = self.opened(FIRST)
        core.receive_data(CLOSE)
        for late in (CLOSE, HELLO, close(1), packet(FIRST - 1, b"x"), close(0)):
            self.assertEqual(core.receive_data(late), [])
            self.assertIsNone(core.error)
            self.assertEqual(core.data_to_send(), b"")

    def test_stranger(self) -> None:
        """A Close or a packet of an id above all that were ever here is an error."""
        for data in (close(FIRST + 1), packet(FIRST + 1, b"x")):
            error = self.breaks(data, Unexpected, self.opened(FIRST))
            self.assertIn(str(FIRST + 1), str(error))
        for data in (close(1), packet(1)):
            self.breaks(data, Unexpected)

    def test_stranger_after_wrap(self) -> None:
        """After the gateway's counter wrapped, any id may be an old one."""
        core = self.opened(2**32 - 1, 1)
        self.assertEqual(core.receive_data(close(2**32 - 2) + packet(9, b"x")), [])
        self.assertIsNone(core.error)

    def test_reopened(self) -> None:
        """An id that is free again may open again."""
        core = self.opened(FIRST)
        events = core.receive_data(CLOSE + CONNECT + HELLO)
        self.assertEqual(events[1:], [Opened(FIRST, 1, None), Message(FIRST, b"Hello")])

    def test_send_when_not_open(self) -> None:
        """Sending on what is not open is the caller's error, and names the id."""
        core = self.opened(FIRST)
        self.assertEqual(raised(NotOpen, core.send, 1, b"").conn_id, 1)
        core.close(FIRST)
        self.assertEqual(raised(NotOpen, core.send, FIRST, b"").conn_id, FIRST)
        core.receive_data(CLOSE)
        raised(NotOpen, core.send, FIRST, b"")


class BreakTests(CoreTestCase):
    """What a gateway in its senses does not say."""

    def test_unasked_answers(self) -> None:
        """An Accept or a Refuse that nobody asked for is an error, another id's too."""
        self.breaks(ACCEPT, Unexpected)
        self.breaks(REFUSE, Unexpected)
        for data in (accept(1, 2), refuse(2)):
            core = EndpointCore()
            core.dial(1)
            self.assertIn("2", str(self.breaks(data, Unexpected, core)))

    def test_answered_twice(self) -> None:
        """One dial gets one answer."""
        for first in (ACCEPT, REFUSE):
            core = EndpointCore()
            core.dial(1)
            self.breaks(first + accept(FIRST + 1, 1), Unexpected, core)

    def test_duplicate_id(self) -> None:
        """An id that is open does not open again, nor one that is closing."""
        self.breaks(connect(FIRST, 2), Unexpected, self.opened(FIRST))
        core = self.opened(FIRST)
        core.dial(1)
        core.close(FIRST)
        self.breaks(ACCEPT, Unexpected, core)

    def test_id_0(self) -> None:
        """Id 0 is for commands; no connection has it."""
        self.breaks(connect(0, 1), Unexpected)
        core = EndpointCore()
        core.dial(1)
        self.breaks(accept(0, 1), Unexpected, core)

    def test_bad_commands(self) -> None:
        """A Dial, no type, an unknown type and cut arguments are bad commands."""
        self.assertEqual(self.breaks(DIAL, BadCommand).kind, 0)
        self.assertIsNone(self.breaks(packet(0), BadCommand).kind)
        for kind in (6, 255):
            self.assertEqual(self.breaks(command(kind, 1, 1), BadCommand).kind, kind)
        for whole_command in (ACCEPT, CONNECT, REFUSE, CLOSE, DIAL):
            self.breaks(packet(0, whole_command[8:-1]), BadCommand)

    def test_lengths(self) -> None:
        """A length is judged by its four bytes alone, at the limit and past it."""
        for limit in (13, 100, 512 * 1024):
            core = EndpointCore(limit)
            core.receive_data(limit.to_bytes(4, "little"))
            self.assertIsNone(core.error)
            error = self.breaks(
                (limit + 1).to_bytes(4, "little"), FrameTooLarge, EndpointCore(limit)
            )
            self.assertEqual((error.length, error.limit), (limit + 1, limit))
        self.breaks(b"\xff\xff\xff\xff", FrameTooLarge)
        for length in range(4):
            self.assertEqual(self.breaks(bytes([length, 0, 0, 0]), FrameTooShort).length, length)

    def test_events_before(self) -> None:
        """What came before the error is still told, what is behind it is not."""
        for bad in (DIAL, b"\0\0\0\0", close(FIRST + 9), ACCEPT):
            core = EndpointCore()
            self.assertEqual(
                core.receive_data(CONNECT + HELLO + bad + HELLO),
                [Opened(FIRST, 1, None), Message(FIRST, b"Hello")],
            )
            self.assertIsNotNone(core.error)

    def test_truncated(self) -> None:
        """A stream that ends inside a packet is truncated, at any place in it."""
        for place in range(1, len(HELLO)):
            core = self.opened(FIRST)
            core.receive_data(HELLO + HELLO[:place])
            self.assertIsNone(core.error)
            core.receive_eof()
            error = core.error
            assert isinstance(error, Truncated)
            self.assertEqual(error.size, place)

    def test_unasked_pong(self) -> None:
        """A Ping that answers nothing is ignored, and answers no later one."""
        core = EndpointCore()
        self.assertEqual(core.receive_data(PING * 3), [])
        core.ping()
        self.assertTrue(core.pinging)
        self.assertEqual(core.receive_data(PING * 2), [Pong()])
        self.assertFalse(core.pinging)
        self.assertIsNone(core.error)


class LimitTests(CoreTestCase):
    """The largest message."""

    def test_send(self) -> None:
        """A message of max_packet - 4 bytes fits, one more does not and writes nothing."""
        for limit in (13, 1000):
            core = EndpointCore(limit)
            core.receive_data(CONNECT)
            self.assertEqual(core.max_message, limit - 4)
            for size in (limit - 5, limit - 4):
                self.assertEqual(core.send(FIRST, bytes(size)), packet(FIRST, bytes(size)))
            error = raised(MessageTooLarge, core.send, FIRST, bytes(limit - 3))
            self.assertEqual((error.size, error.limit), (limit - 3, limit - 4))

    def test_receive(self) -> None:
        """A message of max_packet - 4 bytes is taken, one more is not."""
        for size, taken in ((995, True), (996, True), (997, False)):
            core = EndpointCore(1000)
            events = core.receive_data(CONNECT + packet(FIRST, bytes(size)))
            self.assertEqual(len(events), 2 if taken else 1)
            self.assertEqual(core.error is None, taken)


messages = st.binary(max_size=12)
ids = st.sampled_from([0, 1, 2, FIRST, FIRST + 1, 2**32 - 1]) | st.integers(0, 2**32 - 1)
pieces = st.one_of(
    st.binary(max_size=30),
    st.builds(packet, ids, messages),
    st.builds(accept, ids, ids),
    st.builds(connect, ids, ids),
    st.builds(refuse, ids),
    st.builds(close, ids),
    st.just(PING),
    st.builds(dial, ids),
    st.builds(lambda kind, data: packet(0, bytes([kind]) + data), st.integers(0, 255), messages),
)


class ManyTests(CoreTestCase):
    """A gateway that opens connections without end, or answers no dial."""

    def test_dials(self) -> None:
        """MAX_DIALS may be unanswered, those that were given up too; an answer makes room."""
        self.patch(core_module, "MAX_DIALS", 3)
        core = EndpointCore()
        for _ in range(3):
            core.dial(1)[0].abandoned = True
        raised(LocalError, core.dial, 1)
        core.receive_data(refuse(1))
        core.dial(2)
        raised(LocalError, core.dial, 2)
        self.assertIsNone(core.error)

    def test_too_many(self) -> None:
        """One more than MAX_CONNS breaks the link; one in place of a closed one does not."""
        self.patch(core_module, "MAX_CONNS", 3)
        core = EndpointCore()
        core.receive_data(b"".join(connect(conn_id, 5) for conn_id in (1, 2, 3)))
        core.receive_data(close(2) + connect(4, 5))
        self.assertIsNone(core.error)
        core.receive_data(connect(5, 5))
        self.assertIsInstance(core.error, Unexpected)


class FuzzTests(CoreTestCase):
    """Any bytes at all."""

    @DETERMINISTIC
    @given(
        st.lists(pieces, max_size=20),
        st.lists(st.integers(0, 999)),
        st.booleans(),
        st.booleans(),
    )
    def test_any_bytes(
        self, said: list[bytes], places: list[int], server: bool, inline: bool
    ) -> None:
        """Any bytes raise nothing, and cut in any way they say the same."""
        results = []
        for cutting in (whole, bytewise, lambda data: cut(data, places)):
            core = EndpointCore(64, 1 if server else None, b"secret")
            core.inline = inline
            core.ping()
            events: list[object] = []
            dials = [core.dial(remote_id)[0] for remote_id in (1, 2, 1)]
            dials[1].abandoned = True
            for event in feed(core, b"".join(said), cutting):
                answered = getattr(event, "dial", None)
                events.append((type(event), dials.index(answered) if answered else None))
                events.append((getattr(event, "conn_id", None), getattr(event, "data", None)))
                events.append(getattr(event, "extra", None))
            core.receive_eof()
            out = core.data_to_send()
            results.append((events, out, core.conns, repr(core.error), type(core.error)))
            self.assertEqual(core.receive_data(CONNECT) if core.error else [], [])
        self.assertEqual(results[0], results[1])
        self.assertEqual(results[0], results[2])

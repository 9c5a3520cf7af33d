"""Tests of fastway.snet.session against a model: two ends, and a network that loses and delays.

Rule: the model counts what was written and what came out in plain lists of bytes, and decides
from them alone which resumes must be refused and why. The two sessions are driven as the
transports drive them: the dialling end has one connection in use or one resume under way, and
leaves older ones for good; the listening end uses its old connection until a newcomer's proof.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from typing import Any

from hypothesis import Phase, Verbosity, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.snet import crypto
from fastway.snet import session as module
from fastway.snet.crypto import stream_cipher
from fastway.snet.session import (
    DialHandshake,
    Fault,
    HandshakeFailed,
    ListenHandshake,
    Made,
    Resumed,
    Session,
)
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised

RANDOM = random.Random()
"""What the operating system's random bytes and the data are; begun anew for each day."""

ALL = 10**9

SLICES = [1, 3, 16, 17, 20, 24, 41, ALL]

ACTIONS = [
    action
    for action, often in {
        "dialler writes": 6,
        "listener writes": 6,
        "up": 6,
        "down": 3,
        "newest up": 6,
        "newest down": 6,
        "exchange": 2,
        "dials again": 2,
        "moves": 2,
        "cut": 1,
        "cut up": 1,
        "cut down": 1,
        "listener notices": 1,
        "onlooker": 1,
    }.items()
    for _ in range(often)
]
"""What may happen, as often as it does."""

DAYS = st.binary(min_size=160, max_size=320)
"""Of each two bytes the first is what happens, the second how."""

BUFFER = st.sampled_from([1, 2, 7, 30, 100, 200])
BUFFERS = st.one_of(BUFFER.map(lambda size: (size, size)), st.tuples(BUFFER, BUFFER))

WRONG_BYTES = "what came out is not what went in"


class Connection:
    """A TCP connection between the two: the bytes on their way.

    Attributes:
        dial: The dialling end's handshake.
        listen: The listening end's handshake; None once it is over.
        claim: What the dialling end had written and read when it began; None: a new stream.
        told: What the listening end had, when it answered.
        number: Of the answered resumes, which.
        refused: Why the listening end refused it.
        conn_id: The number that a new stream was given.
        up: Bytes on their way to the listening end.
        down: Bytes on their way to the dialling end.
        up_broken: What is written in that direction from now on does not arrive.
        sent: All that the dialling end sent; an onlooker has seen it.
    """

    def __init__(
        self,
        dial: DialHandshake,
        listen: ListenHandshake,
        claim: tuple[int, int] | None,
    ) -> None:
        self.dial = dial
        self.listen: ListenHandshake | None = listen
        self.claim = claim
        self.told: tuple[int, int] | None = None
        self.number = 0
        self.refused: Fault | None = None
        self.conn_id = 0
        self.up = bytearray()
        self.down = bytearray()
        self.up_broken = False
        self.down_broken = False
        self.sent = b""

    def send_up(self, data: bytes) -> None:
        self.sent += data
        if not self.up_broken:
            self.up += data

    def send_down(self, data: bytes) -> None:
        if not self.down_broken:
            self.down += data

    def take_up(self, size: int) -> bytes:
        data = bytes(self.up[:size])
        del self.up[:size]
        return data

    def take_down(self, size: int) -> bytes:
        data = bytes(self.down[:size])
        del self.down[:size]
        return data

    def break_up(self, keep: int) -> None:
        """The next `keep` bytes still arrive, and no more."""
        del self.up[keep:]
        self.up_broken = True

    def break_down(self, keep: int) -> None:
        del self.down[keep:]
        self.down_broken = True


class Direction:
    """The stream's bytes of one direction.

    Attributes:
        written: What the layer above wrote.
        waiting: How many of them have not been given to the session yet.
        came: What came out at the other end.
        known: How many are known to have come, from the last resume.
    """

    def __init__(self) -> None:
        self.written = bytearray()
        self.waiting = 0
        self.came = bytearray()
        self.known = 0

    @property
    def sent(self) -> int:
        return len(self.written) - self.waiting

    def take(self, size: int) -> bytes:
        """The next bytes for the session, up to `size`."""
        begin = self.sent
        data = bytes(self.written[begin : begin + size])
        self.waiting -= len(data)
        return data

    def check(self) -> None:
        assert self.written.startswith(self.came), WRONG_BYTES


class Network:
    """Two ends, the connections between them, and the model.

    Args:
        buffers: The listening and the dialling end's replay buffers.
        patient: No end hands more to its connections than the other can lack, so that nothing
            can ever be lost.

    Attributes:
        made: The stream, as the listening end has it; None: not yet.
        carrier: The connection that the listening end uses.
        dialled: The stream, as the dialling end has it.
        using: The connection that the dialling end uses.
        attempt: The connection over which it asks for a resume, or for a new stream.
        happened: How often what happened, so that a test can tell that it does.
    """

    def __init__(self, buffers: tuple[int, int], encrypt: bool, patient: bool) -> None:
        self.listen_buffer, self.dial_buffer = buffers
        self.encrypt = encrypt
        self.patient = patient
        self.streams: dict[int, Session] = {}
        self.last_id = 0
        self.lost = 0
        self.happened: Counter[str] = Counter()
        self.begin()

    def begin(self) -> None:
        """A new stream."""
        self.up = Direction()
        self.down = Direction()
        self.streams.clear()
        self.connections: list[Connection] = []
        self.made: Session | None = None
        self.dialled: Session | None = None
        self.carrier: Connection | None = None
        self.using: Connection | None = None
        self.attempt: Connection | None = None
        self.answered = 0
        self.resumed = 0
        self.dial_again()
        if RANDOM.random() < 0.7:
            self.exchange()

    # The dialling end.

    def dial_again(self) -> None:
        """Leave the connection in use, or the attempt under way, and begin another."""
        for old in (self.using, self.attempt):
            if old is not None:
                old.break_down(0)
        self.using = None
        dial = DialHandshake(self.dial_buffer, self.encrypt, self.dialled)
        claim = None if self.dialled is None else (self.up.sent, len(self.down.came))
        connection = Connection(dial, self.handshake(), claim)
        self.attempt = connection
        self.connections.append(connection)
        connection.send_up(dial.begin())

    def dialler_gets(self, connection: Connection, data: bytes) -> None:
        if connection is self.using:
            assert self.dialled is not None
            self.down.came += self.dialled.receive(data)
        elif connection is self.attempt:
            try:
                answer, result = connection.dial.feed(data)
            except HandshakeFailed as error:
                self.lose(connection, error.fault)
                return
            connection.send_up(answer)
            if result is not None:
                self.dialler_uses(connection, result)

    def dialler_uses(self, connection: Connection, result: Made | Resumed) -> None:
        self.attempt = None
        self.using = connection
        if isinstance(result, Made):
            assert connection.claim is None
            assert result.session.conn_id == connection.conn_id
            self.dialled = result.session
        else:
            assert connection.told is not None
            assert self.dialled is result.session
            assert self.wrong(connection.told, self.down, self.up, self.dial_buffer) is None
            connection.send_up(self.dialled.resume(result))
            self.up.known = connection.told[1]
        self.down.came += self.dialled.receive(result.rest)
        self.pump()

    def lose(self, connection: Connection, fault: Fault) -> None:
        """The dialling end gives up the stream: the model must know why."""
        if fault is Fault.REFUSED:
            wanted = connection.refused
            assert wanted in (Fault.GAP, Fault.UNKNOWN_STREAM), f"refused, {wanted}"
        else:
            assert connection.told is not None
            wanted = self.wrong(connection.told, self.down, self.up, self.dial_buffer)
            assert fault is wanted is Fault.GAP, f"{fault}, {wanted}"
        if self.patient:
            assert wanted is Fault.UNKNOWN_STREAM, "lost, though all could be sent again"
        self.lost += 1
        self.happened[f"lost: {wanted.name}"] += 1
        self.check()
        self.begin()

    # The listening end.

    def handshake(self) -> ListenHandshake:
        return ListenHandshake(self.streams.get, self.new_id, self.listen_buffer, self.encrypt)

    def new_id(self) -> int:
        self.last_id += 1
        return self.last_id

    def listener_gets(self, connection: Connection, data: bytes) -> None:
        if connection not in self.connections:
            return  # of a stream that was lost
        if connection is self.carrier:
            assert self.made is not None
            self.up.came += self.made.receive(data)
        elif connection.listen is not None:
            # The answer must be what the model says before the bytes came.
            wanted = self.refusal(connection)
            counts = self.down.sent, len(self.up.came)
            try:
                answer, result = connection.listen.feed(data)
            except HandshakeFailed as error:
                assert error.fault is wanted, f"{error.fault}, {wanted}"
                connection.refused = error.fault
                self.happened[f"refused: {error.fault.name}"] += 1
                connection.send_down(error.answer)
                self.hang_up(connection)
                return
            if answer and connection.claim is None:
                connection.conn_id = self.last_id
            elif answer:
                assert wanted is None, f"answered, {wanted}"
                self.answered += 1
                connection.number = self.answered
                connection.told = counts
                assert struct.unpack("<QQ", answer[:16]) == counts
            connection.send_down(answer)
            if result is not None:
                connection.listen = None
                self.listener_uses(connection, result)

    def listener_uses(self, connection: Connection, result: Made | Resumed) -> None:
        if isinstance(result, Made):
            assert connection.claim is None
            assert result.session.conn_id == connection.conn_id
            self.made = self.streams[connection.conn_id] = result.session
        else:
            assert connection.claim is not None
            assert self.made is result.session
            wanted = self.refusal(connection)
            if connection.number < self.resumed:
                wanted = Fault.STALE
            try:
                again = self.made.resume(result)
            except HandshakeFailed as error:
                assert error.fault is wanted, f"{error.fault}, {wanted}"
                self.happened[f"refused at the proof: {error.fault.name}"] += 1
                self.hang_up(connection)
                return
            assert wanted is None, f"resumed, {wanted}"
            self.resumed = connection.number
            self.happened["resumed" if self.carrier is None else "taken over"] += 1
            assert connection.told is not None
            self.happened["an older one took over"] += connection is not self.connections[-1]
            self.happened["wrote before the proof"] += self.down.sent > connection.told[0]
            self.happened["read before the proof"] += len(self.up.came) > connection.told[1]
            if self.carrier is not None:
                self.hang_up(self.carrier)
            self.down.known = connection.claim[1]
            connection.send_down(again)
        self.carrier = connection
        self.up.came += self.made.receive(result.rest)
        self.pump()

    def hang_up(self, connection: Connection) -> None:
        """The listening end closes; what it has sent still arrives."""
        connection.listen = None
        connection.up_broken = connection.down_broken = True
        connection.up.clear()
        if connection is self.carrier:
            self.carrier = None

    # The model of a resume.

    def refusal(self, connection: Connection) -> Fault | None:
        """Why the listening end must refuse this connection's resume now, if it must."""
        if connection.claim is None:
            return None
        if self.made is None:
            return Fault.UNKNOWN_STREAM
        return self.wrong(connection.claim, self.up, self.down, self.listen_buffer)

    def wrong(
        self, claim: tuple[int, int], back: Direction, out: Direction, buffer: int
    ) -> Fault | None:
        """What is wrong with a peer's counts: it writes `back`, and reads `out`."""
        wrote, read = claim
        if not (out.known <= read <= out.sent and len(back.came) <= wrote):
            return Fault.BAD_COUNTS
        if out.sent - read > buffer or wrote - len(back.came) > buffer:
            return Fault.GAP
        return None

    # Both ends.

    def pump(self) -> None:
        """Give what waits to the connections in use."""
        if self.using is not None and self.dialled is not None and self.up.waiting:
            self.using.send_up(self.dialled.send(self.take(self.up)))
        if self.carrier is not None and self.made is not None and self.down.waiting:
            self.carrier.send_down(self.made.send(self.take(self.down)))

    def take(self, direction: Direction) -> bytes:
        """What may be sent now of what waits."""
        if not self.patient:
            return direction.take(ALL)
        return direction.take(self.buffer - (direction.sent - len(direction.came)))

    @property
    def buffer(self) -> int:
        """What either end can send again for sure."""
        return min(self.listen_buffer, self.dial_buffer)

    def write(self, direction: Direction, number: int) -> None:
        size = 1 + number % 8 * self.buffer // 16
        direction.written += RANDOM.randbytes(size)
        direction.waiting += size

    def pick(self, number: int) -> Connection:
        """One of the last few connections, rather one on which something is on its way."""
        last = self.connections[-4:]
        older = [connection for connection in last[:-1] if connection.up or connection.down]
        choice = older or last
        return choice[number % len(choice)]

    # What happens.

    def step(self, action: str, number: int) -> None:
        connection, size = self.pick(number // 8), SLICES[number % 8]
        if "newest" in action:
            connection, size = self.connections[-1], ALL if number >= 128 else size
        if action == "dialler writes":
            self.write(self.up, number)
        elif action == "listener writes":
            self.write(self.down, number)
        elif action in ("up", "newest up"):
            self.listener_gets(connection, connection.take_up(size))
        elif action in ("down", "newest down"):
            self.dialler_gets(connection, connection.take_down(size))
        elif action == "exchange":
            self.exchange()
        elif action == "dials again":
            self.dial_again()
        elif action == "moves":
            self.move(number, size)
        elif action == "listener notices":
            if self.carrier is not None:
                self.hang_up(self.carrier)
        elif action == "onlooker":
            self.onlook(number)
        else:
            if action != "cut down":
                connection.break_up(number % 64)
            if action != "cut up":
                connection.break_down(number % 64)
        self.pump()
        self.check()

    def exchange(self) -> None:
        """All that is on its way on the dialling end's connection arrives, to and fro."""
        for _ in range(3):
            connection = self.connections[-1]
            self.listener_gets(connection, connection.take_up(ALL))
            self.dialler_gets(connection, connection.take_down(ALL))
            self.pump()

    def move(self, number: int, size: int) -> None:
        """The dialling end comes back while its old connection delivers, up to the answer."""
        self.write(self.up, number)
        self.pump()
        old = self.connections[-1]
        self.dial_again()
        self.listener_gets(self.connections[-1], self.connections[-1].take_up(ALL))
        self.listener_gets(old, old.take_up(size))

    def onlook(self, number: int) -> None:
        """Somebody without the key sends again what an earlier connection began with."""
        recorded = self.connections[number % len(self.connections)]
        data = recorded.sent[: 41 + number]
        handshake = self.handshake()
        before = self.attributes()
        wanted = self.refusal(recorded) or Fault.BAD_PROOF
        try:
            for piece in cut(data, [number, 41]):
                _, result = handshake.feed(piece)
                assert result is None, "a recorded handshake was taken"
            self.happened["onlooker waits"] += 1
        except HandshakeFailed as error:
            assert error.fault is wanted, f"{error.fault}, {wanted}"
            self.happened[f"onlooker: {wanted.name}"] += 1
        assert self.attributes() == before

    def attributes(self) -> dict[str, object]:
        """All of the listening end's stream, but the number of its requests."""
        return {
            name: bytes(value) if isinstance(value, bytearray) else value
            for name in Session.__slots__
            if name != "requests"
            for value in [getattr(self.made, name, None)]
        }

    def settle(self) -> None:
        """No more cuts: all arrives, over a new connection where it must."""
        lost = self.lost
        for connection in list(self.connections):
            self.listener_gets(connection, connection.take_up(ALL))
            self.dialler_gets(connection, connection.take_down(ALL))
        rounds = 20 + (self.up.waiting + self.down.waiting) // self.buffer
        while self.lost == lost and not self.settled():
            assert rounds, "bytes are missing"
            rounds -= 1
            connection = self.connections[-1]
            if connection.up_broken or connection.down_broken:
                self.dial_again()
            self.exchange()
            self.check()
        self.happened["settled"] += self.lost == lost

    def settled(self) -> bool:
        """All that was written has come, over a connection that both ends use."""
        return (
            self.using is self.carrier is not None
            and self.up.came == self.up.written
            and self.down.came == self.down.written
        )

    # What must hold.

    def check(self) -> None:
        for direction in (self.up, self.down):
            direction.check()
        for session, out, back, buffer in (
            (self.dialled, self.up, self.down, self.dial_buffer),
            (self.made, self.down, self.up, self.listen_buffer),
        ):
            if session is not None:
                assert session.wrote == out.sent, "counts wrong what it wrote"
                assert session.read == len(back.came), "counts wrong what it read"
                assert session.peer_read == out.known, "counts wrong what its peer read"
                kept = min(buffer, out.sent - out.known)
                assert session.replayable == kept, "keeps too little or too much"


class NoSkip(Session):
    """Takes what it read already for new."""

    __slots__ = ()

    def resume(self, resumed: Resumed) -> bytes:
        again = super().resume(resumed)
        self._skip = 0
        return again


class SkippedCounted(Session):
    """Counts what it skips as read."""

    __slots__ = ()

    def receive(self, data: bytes) -> bytes:
        skipped = min(self._skip, len(data))
        data = super().receive(data)
        self.read += skipped
        return data


class OnePieceSkip(Session):
    """Skips within one piece only."""

    __slots__ = ()

    def receive(self, data: bytes) -> bytes:
        came = super().receive(data)
        if data:
            self._skip = 0
        return came


class EncryptedAgain(Session):
    """Encrypts what it sends again with the keystream's next bytes."""

    __slots__ = ()

    def resume(self, resumed: Resumed) -> bytes:
        again = super().resume(resumed)
        crypt = self._crypt_out
        return again if crypt is None else crypt(again)


class AllAgain(Session):
    """Sends all that it keeps again, though the peer has read some of it."""

    __slots__ = ()

    def resume(self, resumed: Resumed) -> bytes:
        kept = bytes(self._window)
        super().resume(resumed)
        return kept


class NothingAgain(Session):
    """Goes on without what the peer lacks."""

    __slots__ = ()

    def resume(self, resumed: Resumed) -> bytes:
        super().resume(resumed)
        return b""


class NoSecondCheck(Session):
    """Takes the claim at the proof as it was when it was answered."""

    __slots__ = ("_proven",)

    def check(self, wrote: int, read: int) -> None:
        if not getattr(self, "_proven", False):
            super().check(wrote, read)

    def resume(self, resumed: Resumed) -> bytes:
        self._proven = True
        try:
            return super().resume(resumed)
        finally:
            self._proven = False


class OneLess(Session):
    """Keeps a byte less than its buffer."""

    __slots__ = ()

    def send(self, data: bytes) -> bytes:
        wire = super().send(data)
        del self._window[: len(self._window) - self.buffer + 1]
        return wire


class NeverStale(Session):
    """Lets an earlier resume take over from a later one."""

    __slots__ = ()

    def resume(self, resumed: Resumed) -> bytes:
        self.resumed = 0
        return super().resume(resumed)


class FromZero(Session):
    """Begins its keystream at 0 on both sides."""

    __slots__ = ()

    def send(self, data: bytes) -> bytes:
        if self._crypt_out is None:
            self._crypt_out = stream_cipher(self.key)
        return super().send(data)


class SeededOs:
    """Random bytes that are not the system's: that a day fails or not must not be chance."""

    @staticmethod
    def urandom(size: int) -> bytes:
        return RANDOM.randbytes(size)


class MachineTests(SynchronousTestCase):
    """Days of a network, with the sessions as they are and with broken ones."""

    def setUp(self) -> None:
        self.patch(crypto, "os", SeededOs)
        self.patch(module, "os", SeededOs)
        self.happened: Counter[str] = Counter()

    def live(self, days: int, patience: st.SearchStrategy[bool], **options: Any) -> None:
        """Let networks live through as many days."""

        @settings(DETERMINISTIC, max_examples=days, **options)
        @given(BUFFERS, st.booleans(), patience, DAYS)
        def live(buffers: tuple[int, int], encrypt: bool, patient: bool, day: bytes) -> None:
            RANDOM.seed(0)
            network = Network(buffers, encrypt, patient)
            for place in range(0, len(day) - 1, 2):
                network.step(ACTIONS[day[place] % len(ACTIONS)], day[place + 1])
            network.settle()
            self.happened += network.happened

        live()

    def check_happened(self, *events: str) -> None:
        """The days were not dull."""
        self.assertEqual([event for event in events if not self.happened[event]], [])

    def test_days(self) -> None:
        """Whatever the network does, what comes out is what went in; or the stream is lost, for
        a reason that the model knows."""
        self.live(150, st.just(False))
        self.check_happened(
            "settled",
            "resumed",
            "taken over",
            "an older one took over",
            "wrote before the proof",
            "read before the proof",
            "refused: GAP",
            "refused: BAD_COUNTS",
            "refused: UNKNOWN_STREAM",
            "refused at the proof: GAP",
            "refused at the proof: STALE",
            "lost: GAP",
            "onlooker: BAD_PROOF",
            "onlooker: BAD_COUNTS",
            "onlooker waits",
        )

    def test_patient_days(self) -> None:
        """Nothing is lost, ever, when no more is on its way than can be sent again."""
        self.live(100, st.just(True))
        self.check_happened(
            "settled",
            "resumed",
            "taken over",
            "wrote before the proof",
            "read before the proof",
            "refused at the proof: STALE",
        )
        self.assertEqual(self.happened["lost: GAP"], 0)

    def check_seen(self, broken: type[Session], *wanted: str) -> None:
        """The model sees that the session is broken, in one of these ways."""
        self.patch(module, "Session", broken)
        error = raised(AssertionError, self.live_broken)
        # pytest says more, in more lines.
        self.assertIn(str(error).partition("\n")[0], wanted)

    def live_broken(self) -> None:
        self.live(
            200,
            st.booleans(),
            phases=[Phase.generate],
            verbosity=Verbosity.quiet,
            report_multiple_bugs=False,
        )

    def test_no_skip(self) -> None:
        """A session that takes what it has read already for new is seen."""
        self.check_seen(NoSkip, WRONG_BYTES, "refused, Fault.BAD_COUNTS")

    def test_one_piece_skip(self) -> None:
        """A session that skips within one piece only is seen."""
        self.check_seen(OnePieceSkip, WRONG_BYTES, "refused, Fault.BAD_COUNTS")

    def test_skipped_counted(self) -> None:
        """A session that counts what it skips is seen."""
        self.check_seen(SkippedCounted, "counts wrong what it read", "Fault.BAD_COUNTS, None")

    def test_encrypted_again(self) -> None:
        """A session that encrypts a replay again is seen."""
        self.check_seen(EncryptedAgain, WRONG_BYTES)

    def test_all_again(self) -> None:
        """A session that sends all again that it keeps is seen."""
        self.check_seen(AllAgain, WRONG_BYTES)

    def test_nothing_again(self) -> None:
        """A session that sends nothing again is seen."""
        self.check_seen(NothingAgain, WRONG_BYTES, "bytes are missing")

    def test_no_second_check(self) -> None:
        """A session that does not look again when the proof comes is seen."""
        self.check_seen(NoSecondCheck, "resumed, Fault.GAP")

    def test_one_less(self) -> None:
        """A session that keeps a byte less than its buffer is seen."""
        self.check_seen(OneLess, "keeps too little or too much")

    def test_never_stale(self) -> None:
        """A session that lets an earlier resume take over from a later one is seen."""
        self.check_seen(NeverStale, "Fault.BAD_COUNTS, Fault.STALE", "resumed, Fault.STALE")

    def test_from_zero(self) -> None:
        """A session whose keystream begins at the wrong place is seen."""
        self.check_seen(FromZero, WRONG_BYTES)

"""Tests of fastway.snet.session: handshakes, counts and replay of one stream.

Rule: what goes over the wire is put together here by hand, with hashlib and the tests' own RC4,
so that the two ends under test cannot agree on a mistake.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import tracemalloc
from collections.abc import Callable, Iterable
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.errors import RemoteError
from fastway.snet import crypto
from fastway.snet import session as module
from fastway.snet.session import (
    NEW,
    REFUSED,
    RESUME,
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
from tests.support.snet_golden import (
    A_PUBLIC,
    B_PUBLIC,
    CHALLENGE,
    CLAIM_DIGEST,
    DEGENERATE,
    KEY,
    PROOF,
    A,
    B,
    keystream,
)

STREAM = keystream(KEY, 5000)

FEWER = settings(DETERMINISTIC, max_examples=60)

PLACES = st.lists(st.integers(0, 200), max_size=6)

ABSURD = [2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]

HELLO = b"\x00" + A_PUBLIC.to_bytes(8, "little")
"""What a dialling side with the private key A begins with."""

TAIL = bytes(range(200, 240))
"""Data that follows a handshake at once."""


def xor(data: bytes, offset: int) -> bytes:
    """The data encrypted, or decrypted, with the keystream from the offset on."""
    stream = STREAM[offset : offset + len(data)]
    return bytes(left ^ right for left, right in zip(data, stream, strict=True))


def welcome(conn_id: int, challenge: bytes = CHALLENGE) -> bytes:
    """The answer of a listening side with the private key B to HELLO."""
    return B_PUBLIC.to_bytes(8, "little") + xor(conn_id.to_bytes(8, "little"), 0) + challenge


def prove(data: bytes) -> bytes:
    return hashlib.md5(data + KEY).digest()


def claim(wrote: int, read: int, conn_id: int = 1) -> bytes:
    """A resume's request."""
    counts = struct.pack("<QQQ", conn_id, wrote, read)
    return b"\xff" + counts + prove(counts)


def told(wrote: int, read: int, challenge: bytes = CHALLENGE) -> bytes:
    """The answer to a resume's request."""
    return struct.pack("<QQ", wrote, read) + challenge


def single(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


def text(size: int, salt: int = 0) -> bytes:
    """Data in which each byte is at a place of its own, for a while."""
    return bytes((salt + 7 * place + place // 256) % 256 for place in range(size))


def state(session: Session) -> dict[str, object]:
    """All attributes of the session, but the number of requests that were answered."""
    values = {name: getattr(session, name) for name in Session.__slots__ if name != "requests"}
    return {
        name: bytes(value) if isinstance(value, bytearray) else value
        for name, value in values.items()
    }


def repeat(make: Callable[[], Session]) -> list[Session]:
    return [make() for _ in range(100)]


def listening(buffer: int = 100, encrypt: bool = False) -> Session:
    return Session(1, KEY, buffer, encrypt, True)


def dialling(buffer: int = 100, encrypt: bool = False) -> Session:
    return Session(1, KEY, buffer, encrypt, False)


def feed(
    handshake: ListenHandshake | DialHandshake, pieces: Iterable[bytes]
) -> tuple[bytes, Made | Resumed | None, bytes]:
    """Feed pieces up to the handshake's end.

    Returns:
        All that it answered, how it ended, and the stream's first bytes: those that it left,
        and the pieces behind.
    """
    answers, result, behind = b"", None, b""
    for piece in pieces:
        if result is not None:
            behind += piece
            continue
        answer, result = handshake.feed(piece)
        answers += answer
    return answers, result, b"" if result is None else result.rest + behind


class Script:
    """The operating system's random bytes, as the test wants them."""

    def __init__(self, *draws: bytes) -> None:
        self.draws = list(draws)

    def urandom(self, size: int) -> bytes:
        draw = self.draws.pop(0)
        if len(draw) != size:
            raise AssertionError(f"{size} random bytes, where the test has {draw.hex()}")
        return draw


class SessionTestCase(SynchronousTestCase):
    def script(self, *draws: bytes) -> None:
        """Let the next random bytes be these, and no more be drawn."""
        script = Script(*draws)
        self.patch(crypto, "os", script)
        self.patch(module, "os", script)
        self.addCleanup(lambda: self.assertEqual(script.draws, []))

    def listen(
        self, *sessions: Session, buffer: int = 100, encrypt: bool = False
    ) -> ListenHandshake:
        """A connection's handshake where these streams are; a new one is 7."""
        streams = {session.conn_id: session for session in sessions}
        self.numbers = iter([7])
        return ListenHandshake(streams.get, self.numbers.__next__, buffer, encrypt)

    def answered(self, session: Session, wrote: int, read: int) -> tuple[ListenHandshake, bytes]:
        """A resume that has been answered; returns it and its challenge."""
        handshake = self.listen(session)
        answer, result = handshake.feed(claim(wrote, read))
        self.assertIsNone(result)
        self.assertEqual(answer[:16], told(session.wrote, session.read)[:16])
        return handshake, answer[16:]

    def proven(self, handshake: ListenHandshake, challenge: bytes, rest: bytes = b"") -> Resumed:
        answer, result = handshake.feed(prove(challenge) + rest)
        self.assertEqual(answer, b"")
        assert isinstance(result, Resumed)
        self.assertEqual(result.rest, rest)
        return result

    def take_over(self, session: Session, wrote: int, read: int) -> bytes:
        """A whole resume; returns what is sent again."""
        return session.resume(self.proven(*self.answered(session, wrote, read)))

    def refuse(
        self, fault: Fault, answer: bytes, call: Callable[..., object], *args: object
    ) -> None:
        error = raised(HandshakeFailed, call, *args)
        self.assertEqual((error.fault, error.answer), (fault, answer))

    def refuse_fed(
        self,
        fault: Fault,
        answer: bytes,
        make: Callable[[], ListenHandshake | DialHandshake],
        data: bytes,
    ) -> None:
        """The same fault with the data whole and byte by byte, with its last byte only."""
        self.refuse(fault, answer, make().feed, data)
        handshake = make()
        for byte in single(data[:-1]):
            self.assertIsNone(handshake.feed(byte)[1])
        self.refuse(fault, answer, handshake.feed, data[-1:])


class NewStreamListenTests(SessionTestCase):
    """The listening side of "New connection"."""

    randoms = (B.to_bytes(8, "little"), CHALLENGE)

    def check_made(self, made: Made | Resumed | None, encrypt: bool) -> Session:
        assert isinstance(made, Made)
        session = made.session
        self.assertEqual((session.conn_id, session.key), (7, KEY))
        self.assertEqual((session.wrote, session.read, session.replayable), (0, 0, 0))
        # The handshake has used 8 bytes of its keystream for the number.
        self.assertEqual(session.send(b"hello"), xor(b"hello", 8) if encrypt else b"hello")
        self.assertEqual(session.receive(b"hello"), xor(b"hello", 0) if encrypt else b"hello")
        return session

    def test_constants(self) -> None:
        """First bytes and the refusal are those of the spec."""
        self.assertEqual((NEW, RESUME, REFUSED), (0x00, 0xFF, bytes(24)))

    def test_step_by_step(self) -> None:
        """A new stream, byte for byte; its number is encrypted whether its data is or not."""
        for encrypt in (False, True):
            with self.subTest(encrypt=encrypt):
                self.script(*self.randoms)
                handshake = self.listen(encrypt=encrypt)
                self.assertEqual(handshake.feed(HELLO), (welcome(7), None))
                answer, made = handshake.feed(PROOF)
                self.assertEqual(answer, b"")
                self.assertEqual(self.check_made(made, encrypt).buffer, 100)

    def test_number_not_in_clear(self) -> None:
        """The vector itself: number 7 as it goes over the wire."""
        self.script(*self.randoms)
        answer, _ = self.listen().feed(HELLO)
        wanted = "09714a4b6632df8d" + "dbe0c3d2dad4a135" + "0001020304050607"
        self.assertEqual(answer.hex(), wanted)

    def test_byte_by_byte(self) -> None:
        """The answer comes with the request's last byte, the stream with the proof's."""
        self.script(*self.randoms)
        handshake = self.listen()
        for byte in single(HELLO[:-1]):
            self.assertEqual(handshake.feed(byte), (b"", None))
        self.assertEqual(handshake.feed(HELLO[-1:]), (welcome(7), None))
        for byte in single(PROOF[:-1]):
            self.assertEqual(handshake.feed(byte), (b"", None))
        answer, made = handshake.feed(PROOF[-1:])
        self.assertEqual(answer, b"")
        self.check_made(made, False)

    def test_nothing(self) -> None:
        """No bytes change nothing, at any point."""
        self.script(*self.randoms)
        handshake = self.listen()
        for piece, answer in ((HELLO[:4], b""), (HELLO[4:], welcome(7)), (PROOF[:9], b"")):
            self.assertEqual(handshake.feed(b""), (b"", None))
            self.assertEqual(handshake.feed(piece), (answer, None))
        self.assertEqual(handshake.feed(b""), (b"", None))
        self.check_made(handshake.feed(PROOF[9:])[1], False)

    @FEWER
    @given(places=PLACES, size=st.integers(0, len(TAIL)), encrypt=st.booleans())
    def test_cuts(self, places: list[int], size: int, encrypt: bool) -> None:
        """The same however it is cut, with data right behind the proof."""
        self.script(*self.randoms)
        pieces = cut(HELLO + PROOF + TAIL[:size], places)
        answer, made, rest = feed(self.listen(encrypt=encrypt), pieces)
        self.assertEqual((answer, rest), (welcome(7), TAIL[:size]))
        self.check_made(made, encrypt)

    def test_random(self) -> None:
        """Keys and challenges are new for each connection."""
        answers = [self.listen().feed(HELLO)[0] for _ in range(200)]
        self.assertEqual(len({answer[:8] for answer in answers}), 200)
        self.assertEqual(len({answer[16:] for answer in answers}), 200)

    def test_replayed_proof(self) -> None:
        """A recorded new connection makes no second stream."""
        handshake = self.listen()
        handshake.feed(HELLO)
        self.refuse(Fault.BAD_PROOF, b"", handshake.feed, PROOF)

    def test_first_byte(self) -> None:
        """Any other first byte is refused at once, without an answer."""
        for first in range(1, 255):
            with self.subTest(first=first):
                begin = bytes([first])
                self.refuse(Fault.FIRST_BYTE, b"", self.listen().feed, begin)
                whole = begin + HELLO[1:] + PROOF
                self.refuse(Fault.FIRST_BYTE, b"", self.listen().feed, whole)

    def test_degenerate_keys(self) -> None:
        """Public keys that keep no secret are refused without an answer, and cost no number."""
        for public in DEGENERATE:
            with self.subTest(public=hex(public)):
                hello = b"\0" + public.to_bytes(8, "little")
                self.refuse_fed(Fault.DEGENERATE_KEY, b"", self.listen, hello)
                self.assertEqual(next(self.numbers), 7)

    def test_wrong_proof(self) -> None:
        """One wrong bit anywhere in the proof fails it with its last byte, without an answer."""
        for bit in range(128):
            with self.subTest(bit=bit):
                wrong = bytearray(PROOF)
                wrong[bit // 8] ^= 1 << bit % 8
                self.script(*self.randoms, *self.randoms)
                self.refuse_fed(Fault.BAD_PROOF, b"", self.listen, HELLO + bytes(wrong))

    def test_error(self) -> None:
        """The error is a RemoteError that says what was wrong, and shows no key."""
        handshake = self.listen()
        handshake.feed(HELLO)
        error = raised(HandshakeFailed, handshake.feed, bytes(16))
        self.assertIsInstance(error, RemoteError)
        self.assertEqual(str(error), Fault.BAD_PROOF.value)
        error = raised(HandshakeFailed, self.listen().feed, b"G")
        self.assertEqual(str(error), f"{Fault.FIRST_BYTE.value}: 0x47")


class NewStreamDialTests(SessionTestCase):
    """The dialling side of "New connection"."""

    def dial(self, encrypt: bool = False) -> DialHandshake:
        self.script(A.to_bytes(8, "little"))
        handshake = DialHandshake(100, encrypt)
        self.assertEqual(handshake.begin(), HELLO)
        return handshake

    def check_made(self, made: Made | Resumed | None, encrypt: bool) -> None:
        assert isinstance(made, Made)
        session = made.session
        self.assertEqual((session.conn_id, session.key, session.buffer), (7, KEY, 100))
        self.assertEqual((session.wrote, session.read, session.replayable), (0, 0, 0))
        self.assertEqual(session.send(b"hello"), xor(b"hello", 0) if encrypt else b"hello")
        # The listening side's handshake has used 8 bytes of its keystream.
        self.assertEqual(session.receive(b"hello"), xor(b"hello", 8) if encrypt else b"hello")

    def test_whole(self) -> None:
        """A new stream, byte for byte."""
        for encrypt in (False, True):
            with self.subTest(encrypt=encrypt):
                answer, made = self.dial(encrypt).feed(welcome(7))
                self.assertEqual(answer, PROOF)
                self.check_made(made, encrypt)

    def test_byte_by_byte(self) -> None:
        """The proof goes with the answer's last byte."""
        handshake = self.dial()
        for byte in single(welcome(7)[:-1]):
            self.assertEqual(handshake.feed(byte), (b"", None))
        self.assertEqual(handshake.feed(b""), (b"", None))
        answer, made = handshake.feed(welcome(7)[-1:])
        self.assertEqual(answer, PROOF)
        self.check_made(made, False)

    @FEWER
    @given(places=PLACES, size=st.integers(0, len(TAIL)), encrypt=st.booleans())
    def test_cuts(self, places: list[int], size: int, encrypt: bool) -> None:
        """The same however it is cut, with data right behind it."""
        pieces = cut(welcome(7) + TAIL[:size], places)
        answer, made, rest = feed(self.dial(encrypt), pieces)
        self.assertEqual((answer, rest), (PROOF, TAIL[:size]))
        self.check_made(made, encrypt)

    def test_large_number(self) -> None:
        """A stream's number takes all of its 8 bytes."""
        for conn_id in (1, 2**32, 2**64 - 1):
            with self.subTest(conn_id=conn_id):
                _, made = self.dial().feed(welcome(conn_id))
                assert isinstance(made, Made)
                self.assertEqual(made.session.conn_id, conn_id)

    def test_degenerate_keys(self) -> None:
        """A listening side whose public key keeps no secret is given nothing."""
        for public in DEGENERATE:
            with self.subTest(public=hex(public)):
                answer = public.to_bytes(8, "little") + bytes(16)
                self.refuse_fed(Fault.DEGENERATE_KEY, b"", self.dial, answer)

    def test_random(self) -> None:
        """Each new stream has a key of its own."""
        self.assertEqual(len({DialHandshake(100, False).begin() for _ in range(200)}), 200)


class ResumeListenTests(SessionTestCase):
    """The listening side of "Resuming"."""

    def cut_session(self, encrypt: bool = False) -> Session:
        """A stream that wrote 70 bytes and read 90."""
        session = listening(encrypt=encrypt)
        session.send(text(70))
        session.receive(text(90))
        return session

    def test_vector(self) -> None:
        """The spec's own request is taken."""
        session = listening()
        session.send(text(40))
        session.receive(text(100))
        request = b"\xff" + struct.pack("<QQQ", 1, 100, 40) + CLAIM_DIGEST
        self.assertEqual(claim(100, 40), request)
        self.script(CHALLENGE)
        wanted = bytes.fromhex("2800000000000000" + "6400000000000000" + "0001020304050607")
        self.assertEqual(self.listen(session).feed(request), (wanted, None))

    @FEWER
    @given(places=PLACES, size=st.integers(0, len(TAIL)), encrypt=st.booleans())
    def test_cuts(self, places: list[int], size: int, encrypt: bool) -> None:
        """A resume byte for byte, however it is cut, with its replay right behind the proof."""
        self.script(CHALLENGE)
        session = self.cut_session(encrypt)
        pieces = cut(claim(110, 60) + PROOF + TAIL[:size], places)
        answer, resumed, rest = feed(self.listen(session), pieces)
        self.assertEqual((answer, rest), (told(70, 90), TAIL[:size]))
        assert isinstance(resumed, Resumed)
        self.assertIs(resumed.session, session)
        self.assertEqual((resumed.wrote, resumed.read, resumed.told_read), (110, 60, 90))
        again = text(70)[60:]
        self.assertEqual(session.resume(resumed), xor(again, 68) if encrypt else again)
        self.assertEqual(session.receive(rest), xor(rest, 90) if encrypt else rest)
        self.assertEqual(session.send(b"hello"), xor(b"hello", 78) if encrypt else b"hello")

    def test_byte_by_byte(self) -> None:
        """The answer comes with the request's last byte, the end with the proof's."""
        self.script(CHALLENGE)
        handshake = self.listen(self.cut_session())
        for byte in single(claim(90, 70)[:-1]):
            self.assertEqual(handshake.feed(byte), (b"", None))
        self.assertEqual(handshake.feed(claim(90, 70)[-1:]), (told(70, 90), None))
        for byte in single(PROOF[:-1]):
            self.assertEqual(handshake.feed(byte), (b"", None))
        self.assertIsInstance(handshake.feed(PROOF[-1:])[1], Resumed)

    def test_nothing_written(self) -> None:
        """A stream over which nothing went resumes too."""
        session = listening()
        self.assertEqual(self.take_over(session, 0, 0), b"")
        self.assertEqual((session.wrote, session.read), (0, 0))

    def test_challenges_differ(self) -> None:
        """Each resume has a challenge of its own."""
        session = self.cut_session()
        challenges = {self.answered(session, 90, 70)[1] for _ in range(200)}
        self.assertEqual(len(challenges), 200)

    def check_refused(self, session: Session, fault: Fault, request: bytes) -> None:
        before = state(session), session.requests
        self.refuse_fed(fault, bytes(24), lambda: self.listen(session), request)
        # A proof along with it makes no difference.
        self.refuse(fault, bytes(24), self.listen(session).feed, request + PROOF)
        self.assertEqual((state(session), session.requests), before)

    def test_unknown(self) -> None:
        """A stream that is not here is refused, whatever the rest says."""
        for conn_id in (0, 2, 2**32 + 1, 2**64 - 1):
            with self.subTest(conn_id=conn_id):
                request = claim(90, 70, conn_id)
                self.check_refused(self.cut_session(), Fault.UNKNOWN_STREAM, request)
        request = claim(2**62, 70, 2)[:-1] + b"\0"
        self.check_refused(self.cut_session(), Fault.UNKNOWN_STREAM, request)

    def test_wrong_digest(self) -> None:
        """One wrong bit anywhere in counts or digest is refused."""
        right = claim(90, 70)
        for bit in range(8 * 9, 8 * 41):
            with self.subTest(bit=bit):
                wrong = bytearray(right)
                wrong[bit // 8] ^= 1 << bit % 8
                self.check_refused(self.cut_session(), Fault.BAD_DIGEST, bytes(wrong))

    def test_digest_first(self) -> None:
        """Whoever does not know the key does not learn of the counts."""
        for wrote, read in ((2**62, 0), (0, 2**62), (89, 70), (300, 70)):
            with self.subTest(wrote=wrote, read=read):
                request = claim(wrote, read)[:25] + bytes(16)
                self.check_refused(self.cut_session(), Fault.BAD_DIGEST, request)

    def test_constant_time(self) -> None:
        """Digest and proof are compared by hmac.compare_digest, whole against whole."""
        compared: list[set[bytes]] = []
        real = hmac.compare_digest

        def compare(left: bytes, right: bytes) -> bool:
            compared.append({left, right})
            return real(left, right)

        self.patch(vars(crypto)["hmac"], "compare_digest", compare)
        self.script(CHALLENGE, *NewStreamListenTests.randoms)
        self.listen(self.cut_session()).feed(claim(90, 70) + PROOF)
        request = claim(90, 70)[25:]
        self.assertEqual(compared, [{request}, {PROOF}])
        compared.clear()
        self.refuse(Fault.BAD_PROOF, b"", self.listen().feed, HELLO + bytes(16))
        self.assertEqual(compared, [{PROOF, bytes(16)}])

    def test_impossible_counts(self) -> None:
        """To have read more than was written, or written less than was read, is refused."""
        for wrote, read in ((90, 71), (89, 70), (0, 70), (89, 71), (0, 2**64 - 1)):
            with self.subTest(wrote=wrote, read=read):
                self.check_refused(self.cut_session(), Fault.BAD_COUNTS, claim(wrote, read))

    def test_absurd_counts(self) -> None:
        """Counts without measure are refused."""
        for count in ABSURD:
            with self.subTest(count=count):
                self.check_refused(self.cut_session(), Fault.GAP, claim(count, 70))
                self.check_refused(self.cut_session(), Fault.BAD_COUNTS, claim(90, count))
                self.check_refused(self.cut_session(), Fault.BAD_COUNTS, claim(count, count))

    def test_own_gap(self) -> None:
        """As much as the buffer holds can be sent again, and not a byte more."""
        session = listening(buffer=100)
        session.send(text(350))
        self.check_refused(session, Fault.GAP, claim(0, 249))
        self.check_refused(session, Fault.GAP, claim(0, 0))
        self.assertEqual(self.take_over(session, 0, 250), text(350)[250:])

    def test_peers_gap(self) -> None:
        """The peer may have to send again what a buffer holds, and not a byte more."""
        session = listening(buffer=100)
        session.receive(text(50))
        self.check_refused(session, Fault.GAP, claim(151, 0))
        self.assertEqual(self.take_over(session, 150, 0), b"")
        self.assertEqual(session.receive(text(150)[50:]), text(150)[50:])

    def test_claim_goes_back(self) -> None:
        """A claim to have read less than an earlier one is refused, though it is in reach."""
        session = self.cut_session()
        self.take_over(session, 90, 50)
        session.send(text(5))
        self.check_refused(session, Fault.BAD_COUNTS, claim(90, 49))
        self.assertEqual(self.take_over(session, 90, 50), text(70)[50:] + text(5))

    def test_wrong_proof(self) -> None:
        """A newcomer whose proof fails changes nothing for the stream."""
        for encrypt in (False, True):
            with self.subTest(encrypt=encrypt):
                session = self.cut_session(encrypt)
                before = state(session)
                handshake, challenge = self.answered(session, 110, 60)
                self.assertEqual(state(session), before)
                for wrong in (bytes(16), prove(CHALLENGE), prove(challenge)[::-1]):
                    self.refuse(Fault.BAD_PROOF, b"", handshake.feed, wrong)
                    handshake, challenge = self.answered(session, 110, 60)
                self.assertEqual(state(session), before)
                # The ciphers' own state too.
                self.assertEqual(session.send(b"hi"), xor(b"hi", 78) if encrypt else b"hi")
                self.assertEqual(session.receive(b"hi"), xor(b"hi", 90) if encrypt else b"hi")
                self.assertEqual(session.replayable, 72)

    def test_wrong_proof_each_bit(self) -> None:
        """One wrong bit anywhere in the proof fails it with its last byte, without an answer."""
        request = claim(110, 60)
        for bit in range(128):
            with self.subTest(bit=bit):
                wrong = bytearray(PROOF)
                wrong[bit // 8] ^= 1 << bit % 8
                session = self.cut_session()
                self.script(CHALLENGE, CHALLENGE)
                make = partial(self.listen, session)
                self.refuse_fed(Fault.BAD_PROOF, b"", make, request + bytes(wrong))

    def test_replayed_request(self) -> None:
        """A recorded resume, sent again by somebody else, gets nowhere."""
        session = self.cut_session()
        handshake, challenge = self.answered(session, 90, 60)
        session.resume(self.proven(handshake, challenge))
        before = state(session)
        onlooker, other = self.answered(session, 90, 60)
        self.assertNotEqual(other, challenge)
        self.refuse(Fault.BAD_PROOF, b"", onlooker.feed, prove(challenge))
        self.assertEqual(state(session), before)
        # Once the stream has gone on, not even an answer.
        session.receive(b"more")
        self.check_refused(session, Fault.BAD_COUNTS, claim(90, 60))

    def test_request_alone(self) -> None:
        """Requests without a proof, as many as there are, do not stand in the way of a resume."""
        session = self.cut_session()
        for _ in range(50):
            self.answered(session, 90, 60)
        handshake, challenge = self.answered(session, 90, 60)
        for _ in range(50):
            self.answered(session, 90, 60)
        self.assertEqual(session.resume(self.proven(handshake, challenge)), text(70)[60:])


class ResumeDialTests(SessionTestCase):
    """The dialling side of "Resuming"."""

    def cut_session(self, encrypt: bool = False) -> Session:
        """A stream that wrote 70 bytes and read 90."""
        session = dialling(encrypt=encrypt)
        session.send(text(70))
        session.receive(text(90))
        return session

    def dial(self, session: Session) -> DialHandshake:
        handshake = DialHandshake(5, not session._encrypt, session)
        self.assertEqual(handshake.begin(), claim(session.wrote, session.read))
        return handshake

    def test_vector(self) -> None:
        """The request is the spec's own."""
        session = dialling()
        session.send(text(100))
        session.receive(text(40))
        request = b"\xff" + struct.pack("<QQQ", 1, 100, 40) + CLAIM_DIGEST
        self.assertEqual(DialHandshake(100, False, session).begin(), request)

    @FEWER
    @given(places=PLACES, size=st.integers(0, len(TAIL)), encrypt=st.booleans())
    def test_cuts(self, places: list[int], size: int, encrypt: bool) -> None:
        """A resume byte for byte, however it is cut, with its replay right behind the answer."""
        session = self.cut_session(encrypt)
        pieces = cut(told(110, 60) + TAIL[:size], places)
        answer, resumed, rest = feed(self.dial(session), pieces)
        self.assertEqual((answer, rest), (PROOF, TAIL[:size]))
        assert isinstance(resumed, Resumed)
        self.assertIs(resumed.session, session)
        again = text(70)[60:]
        self.assertEqual(session.resume(resumed), xor(again, 60) if encrypt else again)
        self.assertEqual(session.receive(rest), xor(rest, 98) if encrypt else rest)
        self.assertEqual(session.send(b"hello"), xor(b"hello", 70) if encrypt else b"hello")

    def test_byte_by_byte(self) -> None:
        """The proof goes with the answer's last byte."""
        handshake = self.dial(self.cut_session())
        for byte in single(told(90, 70)[:-1]):
            self.assertEqual(handshake.feed(byte), (b"", None))
        answer, resumed = handshake.feed(told(90, 70)[-1:])
        self.assertEqual(answer, PROOF)
        self.assertIsInstance(resumed, Resumed)

    def check_refused(self, session: Session, fault: Fault, answer: bytes) -> None:
        before = state(session)
        self.refuse_fed(fault, b"", lambda: self.dial(session), answer)
        self.assertEqual(state(session), before)

    def test_refused(self) -> None:
        """24 zero bytes are a refusal."""
        self.check_refused(self.cut_session(), Fault.REFUSED, bytes(24))

    def test_zero_counts(self) -> None:
        """Zero counts with a challenge are an answer like any other."""
        answer, resumed = self.dial(dialling()).feed(told(0, 0))
        self.assertEqual(answer, PROOF)
        self.assertIsInstance(resumed, Resumed)

    def test_impossible_counts(self) -> None:
        """A peer that has read more than was written, or wrote less than was read, is left."""
        for wrote, read in ((90, 71), (89, 70), (0, 70), (89, 71), (0, 2**64 - 1)):
            with self.subTest(wrote=wrote, read=read):
                self.check_refused(self.cut_session(), Fault.BAD_COUNTS, told(wrote, read))

    def test_absurd_counts(self) -> None:
        """Counts without measure are refused here too."""
        for count in ABSURD:
            with self.subTest(count=count):
                self.check_refused(self.cut_session(), Fault.GAP, told(count, 70))
                self.check_refused(self.cut_session(), Fault.BAD_COUNTS, told(90, count))
                self.check_refused(self.cut_session(), Fault.BAD_COUNTS, told(count, count))

    def test_own_gap(self) -> None:
        """As much as the buffer holds can be sent again, and not a byte more."""
        session = dialling(buffer=100)
        session.send(text(350))
        self.check_refused(session, Fault.GAP, told(0, 249))
        _, resumed = self.dial(session).feed(told(0, 250))
        assert isinstance(resumed, Resumed)
        self.assertEqual(session.resume(resumed), text(350)[250:])

    def test_peers_gap(self) -> None:
        """The peer may have to send again what a buffer holds, and not a byte more."""
        session = dialling(buffer=100)
        session.receive(text(50))
        self.check_refused(session, Fault.GAP, told(151, 0))
        _, resumed = self.dial(session).feed(told(150, 0))
        self.assertIsInstance(resumed, Resumed)

    def test_claim_goes_back(self) -> None:
        """A peer that says to have read less than before is left."""
        session = self.cut_session()
        _, resumed = self.dial(session).feed(told(90, 50))
        assert isinstance(resumed, Resumed)
        session.resume(resumed)
        self.check_refused(session, Fault.BAD_COUNTS, told(90, 49))


class TakeOverTests(SessionTestCase):
    """A resume while the old connection goes on."""

    def test_old_delivers(self) -> None:
        """What the old connection delivers before the proof is skipped on the new one."""
        for encrypt in (False, True):
            sent = text(100)
            wire = xor(sent, 0) if encrypt else sent
            for late in range(41):
                with self.subTest(encrypt=encrypt, late=late):
                    session = listening(encrypt=encrypt)
                    came = session.receive(wire[:60])
                    handshake, challenge = self.answered(session, 100, 0)
                    came += session.receive(wire[60 : 60 + late])
                    session.resume(self.proven(handshake, challenge))
                    self.assertEqual(session.read, 60 + late)
                    # The peer was told 60, and sends the rest again.
                    for piece in cut(wire[60:], [3, 17]):
                        came += session.receive(piece)
                    self.assertEqual(came, sent)
                    self.assertEqual(session.read, 100)

    def test_old_writes(self) -> None:
        """What is written to the old connection before the proof is sent again with the rest."""
        for encrypt in (False, True):
            with self.subTest(encrypt=encrypt):
                session = listening(encrypt=encrypt)
                sent = text(80)
                wire = session.send(sent[:50])
                handshake, challenge = self.answered(session, 0, 30)
                wire += session.send(sent[50:])
                self.assertEqual(wire, xor(sent, 8) if encrypt else sent)
                again = session.resume(self.proven(handshake, challenge))
                self.assertEqual(again, wire[30:])
                self.assertEqual(session.wrote, 80)

    def test_skips_with_rest(self) -> None:
        """The replay that comes along with the proof is skipped as well."""
        session = listening()
        session.receive(text(10))
        handshake, challenge = self.answered(session, 40, 0)
        session.receive(text(40)[10:25])
        resumed = self.proven(handshake, challenge, text(40)[10:30])
        session.resume(resumed)
        self.assertEqual(session.receive(resumed.rest), text(40)[25:30])
        self.assertEqual(session.receive(text(40)[30:]), text(40)[30:])

    def test_cut_while_skipping(self) -> None:
        """A resume in the middle of skipping begins anew: what it was told is what counts."""
        session = listening()
        session.receive(text(10))
        handshake, challenge = self.answered(session, 40, 0)
        session.receive(text(40)[10:30])
        session.resume(self.proven(handshake, challenge))
        self.assertEqual(session.receive(text(40)[10:15]), b"")
        self.assertEqual(session.read, 30)
        self.take_over(session, 40, 0)
        self.assertEqual(session.receive(text(40)[30:]), text(40)[30:])

    def test_gap_grows(self) -> None:
        """A gap within the buffer at the answer may be over it at the proof: refused then."""
        session = listening(buffer=100)
        session.send(text(100))
        handshake, challenge = self.answered(session, 0, 0)
        session.send(b"x")
        resumed = self.proven(handshake, challenge)
        before = state(session)
        self.refuse(Fault.GAP, b"", session.resume, resumed)
        self.assertEqual(state(session), before)

    def test_gap_grows_up_to_buffer(self) -> None:
        """A gap that grows up to the buffer is sent again."""
        session = listening(buffer=100)
        session.send(text(60))
        handshake, challenge = self.answered(session, 0, 0)
        session.send(text(100)[60:])
        self.assertEqual(session.resume(self.proven(handshake, challenge)), text(100))

    def test_wrote_more_than_claimed(self) -> None:
        """An old connection that brings more than the claim says: refused at the proof."""
        session = listening()
        handshake, challenge = self.answered(session, 20, 0)
        session.receive(text(21))
        resumed = self.proven(handshake, challenge)
        before = state(session)
        self.refuse(Fault.BAD_COUNTS, b"", session.resume, resumed)
        self.assertEqual(state(session), before)

    def test_later_wins(self) -> None:
        """Of two resumes under way the one that asked later wins; the earlier is stale."""
        session = listening()
        session.send(text(50))
        earlier, earlier_challenge = self.answered(session, 0, 10)
        later, later_challenge = self.answered(session, 0, 20)
        self.assertNotEqual(earlier_challenge, later_challenge)
        stale = self.proven(earlier, earlier_challenge)
        self.assertEqual(session.resume(self.proven(later, later_challenge)), text(50)[20:])
        before = state(session)
        self.refuse(Fault.STALE, b"", session.resume, stale)
        self.assertEqual(state(session), before)

    def test_earlier_first(self) -> None:
        """An earlier resume that is proven first goes on until the later is proven too."""
        session = listening()
        session.send(text(50))
        session.receive(text(10))
        earlier, earlier_challenge = self.answered(session, 30, 10)
        later, later_challenge = self.answered(session, 30, 20)
        again = session.resume(self.proven(earlier, earlier_challenge))
        self.assertEqual(again, text(50)[10:])
        self.assertEqual(session.receive(text(30)[10:25]), text(30)[10:25])
        again = session.resume(self.proven(later, later_challenge))
        self.assertEqual(again, text(50)[20:])
        self.assertEqual(session.receive(text(30)[10:]), text(30)[25:])

    def test_proof_of_the_other(self) -> None:
        """The proof of one resume does not prove another of the same stream."""
        session = listening()
        _, first = self.answered(session, 0, 0)
        second, _ = self.answered(session, 0, 0)
        self.refuse(Fault.BAD_PROOF, b"", second.feed, prove(first))


class CipherStateTests(SessionTestCase):
    """Where each direction's keystream is."""

    @FEWER
    @given(
        st.lists(st.integers(0, 60), max_size=8),
        st.lists(st.integers(0, 60), max_size=8),
        st.booleans(),
    )
    def test_offsets(self, out: list[int], back: list[int], listens: bool) -> None:
        """The listening side's stream begins at keystream offset 8, the other's at 0."""
        session = Session(1, KEY, 10, True, listens)
        offset = 8 if listens else 0
        for size in out:
            self.assertEqual(session.send(text(size)), xor(text(size), offset))
            offset += size
        offset = 0 if listens else 8
        for size in back:
            self.assertEqual(session.receive(text(size)), xor(text(size), offset))
            offset += size
        self.assertEqual((session.wrote, session.read), (sum(out), sum(back)))

    def test_clear(self) -> None:
        """Without encryption bytes go as they are."""
        for session in (listening(), dialling()):
            self.assertEqual(session.send(text(300)), text(300))
            self.assertEqual(session.receive(text(300)), text(300))

    def test_replay_is_not_encrypted_again(self) -> None:
        """The same bytes go over the wire again, as often as it takes; then the stream goes on."""
        session = listening(encrypt=True)
        wire = session.send(text(90))
        for read in (0, 0, 40, 89, 90):
            self.assertEqual(self.take_over(session, 0, read), wire[read:])
        self.assertEqual(session.send(text(5)), xor(text(5), 98))


class WindowTests(SessionTestCase):
    """What is kept to be sent again."""

    def test_grows_up_to_buffer(self) -> None:
        """What is kept grows with what is written, up to the buffer."""
        for encrypt in (False, True):
            session = listening(buffer=100, encrypt=encrypt)
            for wrote, kept in ((0, 0), (30, 30), (99, 99), (100, 100), (101, 100), (450, 100)):
                with self.subTest(encrypt=encrypt, wrote=wrote):
                    session.send(bytes(wrote - session.wrote))
                    self.assertEqual((session.wrote, session.replayable), (wrote, kept))

    def test_resume_trims(self) -> None:
        """What the peer has read is kept no longer."""
        session = listening(buffer=100)
        session.send(text(80))
        for read, kept in ((0, 80), (30, 50), (30, 50), (79, 1), (80, 0), (80, 0)):
            with self.subTest(read=read):
                self.assertEqual(self.take_over(session, 0, read), text(80)[read:])
                self.assertEqual((session.replayable, session.peer_read), (kept, read))

    def test_keeps_the_last(self) -> None:
        """What is kept is the end of what was written, however it was written."""
        for sizes in ([300], [100] * 3, [1] * 300, [60, 101, 139], [299, 1]):
            with self.subTest(sizes=sizes[:3]):
                session = listening(buffer=100)
                sent = text(300)
                for size in sizes:
                    session.send(sent[session.wrote : session.wrote + size])
                self.assertEqual(self.take_over(session, 0, 200), sent[200:])

    def test_one_byte(self) -> None:
        """A buffer of one byte is one."""
        session = listening(buffer=1)
        session.send(b"abc")
        self.assertEqual(self.take_over(session, 0, 2), b"c")

    def test_reading_keeps_nothing(self) -> None:
        """What is read is not kept."""
        session = listening()
        session.receive(text(1000))
        self.assertEqual(session.replayable, 0)


class MemoryTests(SessionTestCase):
    """Memory, measured."""

    def measure(self, call: Callable[[], object]) -> tuple[int, int]:
        """Bytes more that are in use after the call, what it returns included, and at its peak."""
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            result = call()
            after, peak = tracemalloc.get_traced_memory()
            del result
        finally:
            tracemalloc.stop()
        return after - before, peak - before

    def test_fresh(self) -> None:
        """A fresh stream keeps no buffer and no cipher, however large its buffer may become."""
        for encrypt in (False, True):
            fresh = partial(Session, 1, KEY, 2**40, encrypt, True)
            used, _ = self.measure(partial(repeat, fresh))
            self.assertLess(used, 100 * 600)

    def test_fills(self) -> None:
        """The buffer takes memory as it fills."""
        session = listening(buffer=2**40)
        used, peak = self.measure(lambda: session.send(bytes(1000)))
        self.assertLess(peak, 10_000)
        self.assertGreater(used, 1000)

    def test_full(self) -> None:
        """A full buffer stays at its size, whatever is written."""
        session = listening(buffer=10_000)

        def write() -> None:
            for _ in range(100):
                session.send(bytes(3000))
            session.send(bytes(1_000_000))
            session.send(bytes(100))

        used, _ = self.measure(write)
        self.assertLess(used, 30_000)

    def test_absurd_claims(self) -> None:
        """A claim of absurd counts takes no memory, in the request and in the answer."""
        session, other = listening(buffer=2**20), dialling(buffer=2**20)

        def claims() -> None:
            for count in ABSURD:
                for wrote, read in ((count, 0), (0, count), (count, count)):
                    raised(HandshakeFailed, self.listen(session).feed, claim(wrote, read))
                    dial = DialHandshake(100, False, other)
                    dial.begin()
                    raised(HandshakeFailed, dial.feed, told(wrote, read))

        claims()
        _, peak = self.measure(claims)
        self.assertLess(peak, 50_000)

"""Tests of fastway.auth: the server handshake, both sides, with the vectors of spec section 3."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway import auth
from fastway.auth import (
    ANSWER_SIZE,
    CHALLENGE_SIZE,
    HANDSHAKE_TIMEOUT,
    Handshake,
    answer_challenge,
    prove,
)
from fastway.errors import AuthFailed, Reason
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised

CHALLENGE = bytes.fromhex("0102030405060708")
PROOF = bytes.fromhex("adcfa1211693e4374b111406c62170c5")
PROOF_OF_EMPTY = bytes.fromhex("0ee0646c1c77d8131cc8f4ee65c7673b")
ANSWER = PROOF + bytes.fromhex("37250000")  # server id 9527
PACKETS = bytes.fromhex("05000000000000000509000000000000000001000000")


class VectorTests(SynchronousTestCase):
    def test_proof(self) -> None:
        """The proof for the key `secret` is the one of the spec."""
        self.assertEqual(prove(CHALLENGE, b"secret"), PROOF)

    def test_empty_key(self) -> None:
        """The proof for an empty key is the one of the spec."""
        self.assertEqual(prove(CHALLENGE, b""), PROOF_OF_EMPTY)

    def test_answer(self) -> None:
        """An answer is the proof and the server id, little-endian."""
        self.assertEqual(answer_challenge(CHALLENGE, b"secret", 9527), ANSWER)

    def test_largest_id(self) -> None:
        """A server id takes all four of its bytes."""
        answer = answer_challenge(CHALLENGE, b"", 0xFFFFFFFE)
        self.assertEqual(answer, PROOF_OF_EMPTY + bytes.fromhex("feffffff"))

    def test_sizes(self) -> None:
        """Sizes and the time limit are those of the spec."""
        self.assertEqual((CHALLENGE_SIZE, ANSWER_SIZE, HANDSHAKE_TIMEOUT), (8, 20, 5.0))


class ChallengeTests(SynchronousTestCase):
    def test_size(self) -> None:
        """A challenge has eight bytes."""
        self.assertEqual(len(Handshake(b"").challenge), 8)

    def test_random(self) -> None:
        """No two handshakes share a challenge."""
        challenges = {Handshake(b"secret").challenge for _ in range(1000)}
        self.assertEqual(len(challenges), 1000)

    def test_given(self) -> None:
        """A challenge that is given is the one that is used."""
        self.assertEqual(Handshake(b"", CHALLENGE).challenge, CHALLENGE)

    def test_replayed_answer(self) -> None:
        """The answer to one challenge does not open another handshake."""
        raised(AuthFailed, Handshake(b"secret").feed, ANSWER)


class HandshakeTests(SynchronousTestCase):
    def test_whole(self) -> None:
        """A right answer gives the server id, and nothing is left behind it."""
        self.assertEqual(Handshake(b"secret", CHALLENGE).feed(ANSWER), (9527, b""))

    def test_empty_key(self) -> None:
        """An empty key is a key like any other here."""
        handshake = Handshake(b"", CHALLENGE)
        self.assertEqual(handshake.feed(PROOF_OF_EMPTY + bytes(4)), (0, b""))

    def test_byte_by_byte(self) -> None:
        """The answer may come one byte at a time, and is taken with its last one only."""
        handshake = Handshake(b"secret", CHALLENGE)
        for byte in ANSWER[:-1]:
            self.assertIsNone(handshake.feed(bytes([byte])))
        self.assertEqual(handshake.feed(ANSWER[-1:]), (9527, b""))

    def test_nothing(self) -> None:
        """No bytes change nothing."""
        handshake = Handshake(b"secret", CHALLENGE)
        self.assertIsNone(handshake.feed(b""))
        self.assertEqual(handshake.feed(ANSWER), (9527, b""))

    def test_packets_behind(self) -> None:
        """Packets right behind the answer are handed back, to the byte."""
        for size in range(len(PACKETS) + 1):
            with self.subTest(size=size):
                handshake = Handshake(b"secret", CHALLENGE)
                behind = PACKETS[:size]
                self.assertEqual(handshake.feed(ANSWER + behind), (9527, behind))

    @DETERMINISTIC
    @given(
        challenge=st.binary(min_size=8, max_size=8),
        key=st.binary(max_size=70),
        server_id=st.integers(0, 0xFFFFFFFF),
        behind=st.binary(max_size=30),
        places=st.lists(st.integers(0, 60), max_size=6),
    )
    def test_cuts(
        self, challenge: bytes, key: bytes, server_id: int, behind: bytes, places: list[int]
    ) -> None:
        """Both sides agree on any key and id, however the bytes are cut."""
        handshake = Handshake(key, challenge)
        stream = answer_challenge(challenge, key, server_id) + behind
        pieces = cut(stream, places)
        result = None
        while result is None:
            result = handshake.feed(pieces.pop(0))
        got_id, rest = result
        self.assertEqual(got_id, server_id)
        self.assertEqual(rest + b"".join(pieces), behind)


class WrongProofTests(SynchronousTestCase):
    def test_each_bit(self) -> None:
        """One wrong bit anywhere in the proof fails the handshake."""
        for bit in range(128):
            with self.subTest(bit=bit):
                wrong = bytearray(ANSWER)
                wrong[bit // 8] ^= 1 << bit % 8
                handshake = Handshake(b"secret", CHALLENGE)
                raised(AuthFailed, handshake.feed, bytes(wrong))

    def test_byte_by_byte(self) -> None:
        """A wrong proof in pieces is judged when the answer is whole, not before."""
        wrong = bytes(16) + ANSWER[16:]
        handshake = Handshake(b"secret", CHALLENGE)
        for byte in wrong[:-1]:
            self.assertIsNone(handshake.feed(bytes([byte])))
        raised(AuthFailed, handshake.feed, wrong[-1:])

    def test_with_packets_behind(self) -> None:
        """Packets behind a wrong answer do not make it right."""
        handshake = Handshake(b"secret", CHALLENGE)
        raised(AuthFailed, handshake.feed, bytes(20) + PACKETS)

    def test_other_key(self) -> None:
        """The proof of another key fails, the empty one and longer ones included."""
        for key in (b"", b"Secret", b"secret\0", b"secre"):
            with self.subTest(key=key):
                answer = answer_challenge(CHALLENGE, key, 9527)
                raised(AuthFailed, Handshake(b"secret", CHALLENGE).feed, answer)

    def test_reason(self) -> None:
        """The error says why the link must be lost, and does not show the key."""
        handshake = Handshake(b"secret", CHALLENGE)
        error = raised(AuthFailed, handshake.feed, bytes(20))
        self.assertIs(error.reason, Reason.AUTH_FAILED)
        self.assertNotIn("secret", str(error))

    def test_constant_time(self) -> None:
        """Right and wrong proofs are compared by hmac.compare_digest, whole against whole."""
        compared: list[set[bytes]] = []
        real = hmac.compare_digest

        def compare(left: bytes, right: bytes) -> bool:
            compared.append({left, right})
            return real(left, right)

        # The module object that fastway.auth looks it up in.
        self.patch(vars(auth)["hmac"], "compare_digest", compare)
        Handshake(b"secret", CHALLENGE).feed(ANSWER)
        wrong = bytes(20)
        raised(AuthFailed, Handshake(b"secret", CHALLENGE).feed, wrong)
        self.assertEqual(compared, [{PROOF}, {PROOF, bytes(16)}])

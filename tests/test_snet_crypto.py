"""Tests of fastway.snet.crypto: the key agreement, the cipher and the proofs of snet.

The vectors are those of the spec. RC4 is compared with one of the tests' own besides.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.snet import crypto
from fastway.snet.config import SnetConfig
from fastway.snet.crypto import (
    CHALLENGE_SIZE,
    GENERATOR,
    KEY_SIZE,
    PRIME,
    PROOF_SIZE,
    check_stream_cipher,
    digest,
    is_degenerate,
    is_digest,
    private_key,
    public_key,
    rc4,
    shared_key,
    stream_cipher,
)
from tests.support.core import DETERMINISTIC, cut
from tests.support.errors import raised
from tests.support.gateways import OneOf
from tests.support.snet import Dialling, Listening, Resumable
from tests.support.snet_golden import (
    A_PUBLIC,
    B_PUBLIC,
    CHALLENGE,
    CLAIM,
    CLAIM_DIGEST,
    DEGENERATE,
    KEY,
    PROOF,
    STREAM,
    A,
    B,
    keystream,
)

C = 3
C_PUBLIC = 0x7D
D = 0x8000000000000001
D_PUBLIC = 0x9083BFBA7EDD2F64
OTHER_KEY = bytes.fromhex("df3f88f3d068ac1b")
OTHER_STREAM = bytes.fromhex("ee1b161b91d784b04e71cb5571fba02fb12d452679787955")


PRIVATE = st.integers(2, 2**64 - 1)


class VectorTests(SynchronousTestCase):
    def test_parameters(self) -> None:
        """The prime, the generator and the sizes are those of the spec."""
        self.assertEqual((PRIME, GENERATOR), (0xFFFFFFFFFFFFFFC5, 5))
        self.assertEqual((KEY_SIZE, CHALLENGE_SIZE, PROOF_SIZE), (8, 8, 16))

    def test_public_keys(self) -> None:
        """The public keys of the spec's private ones."""
        for private, public in ((A, A_PUBLIC), (B, B_PUBLIC), (C, C_PUBLIC), (D, D_PUBLIC)):
            with self.subTest(private=hex(private)):
                self.assertEqual(public_key(private), public)

    def test_shared_keys(self) -> None:
        """Both sides come to the spec's key, the secret's bytes from the lowest on."""
        self.assertEqual(shared_key(A, B_PUBLIC), KEY)
        self.assertEqual(shared_key(B, A_PUBLIC), KEY)
        self.assertEqual(int.from_bytes(KEY, "little"), 0xEEB6C7ECE537EAE8)
        self.assertEqual(shared_key(C, D_PUBLIC), OTHER_KEY)
        self.assertEqual(shared_key(D, C_PUBLIC), OTHER_KEY)
        self.assertEqual(int.from_bytes(OTHER_KEY, "little"), 0x1BAC68D0F3883FDF)

    def test_keystreams(self) -> None:
        """The spec's keys give its keystreams, by either cipher."""
        for cipher in (rc4, stream_cipher):
            self.assertEqual(cipher(KEY)(bytes(24)), STREAM)
            self.assertEqual(cipher(OTHER_KEY)(bytes(24)), OTHER_STREAM)

    def test_own_keystream(self) -> None:
        """The RC4 that the tests compare with keeps to the vectors itself."""
        self.assertEqual(keystream(KEY, 24), STREAM)
        self.assertEqual(keystream(OTHER_KEY, 24), OTHER_STREAM)

    def test_proof(self) -> None:
        """The proof of a challenge is the spec's, md5 of the challenge and the key."""
        self.assertEqual(digest(CHALLENGE, KEY), PROOF)
        self.assertEqual(hashlib.md5(CHALLENGE + KEY).digest(), PROOF)

    def test_resume_digest(self) -> None:
        """The digest of a resume's claim is the spec's."""
        self.assertEqual(digest(CLAIM, KEY), CLAIM_DIGEST)


class KeyTests(SynchronousTestCase):
    @DETERMINISTIC
    @given(PRIVATE, PRIVATE)
    def test_agreement(self, one: int, other: int) -> None:
        """Any two private keys come to the same 8 bytes on both sides."""
        key = shared_key(one, public_key(other))
        self.assertEqual(len(key), 8)
        self.assertEqual(shared_key(other, public_key(one)), key)

    def test_small_secret(self) -> None:
        """A secret with leading zeros makes a key of 8 bytes all the same."""
        self.assertEqual(shared_key(3, 5), bytes([125, 0, 0, 0, 0, 0, 0, 0]))

    def test_degenerate(self) -> None:
        """0, 1, p-1, p and all above keep no secret."""
        for public in DEGENERATE:
            with self.subTest(public=hex(public)):
                self.assertTrue(is_degenerate(public))
        for public in range(PRIME - 1, 2**64):
            self.assertTrue(is_degenerate(public))

    def test_not_degenerate(self) -> None:
        """All from 2 to p-2 may be."""
        for public in (2, 3, GENERATOR, A_PUBLIC, B_PUBLIC, C_PUBLIC, D_PUBLIC, PRIME - 2):
            with self.subTest(public=hex(public)):
                self.assertFalse(is_degenerate(public))


class PrivateKeyTests(SynchronousTestCase):
    def draw(self, *privates: int) -> int:
        """A private key when the operating system's random bytes are these numbers, in turn."""
        draws = list(privates)

        def urandom(size: int) -> bytes:
            self.assertEqual(size, 8)
            return draws.pop(0).to_bytes(size, "little")

        # The module object that crypto looks it up in.
        patch = self.patch(vars(crypto)["os"], "urandom", urandom)
        try:
            private = private_key()
        finally:
            patch.restore()
        self.assertEqual(draws, [])
        return private

    def test_source(self) -> None:
        """A private key is 64 bits of the operating system's randomness, as they are."""
        for private in (A, B, 3, 0x8000000000000001, 2**64 - 1):
            self.assertEqual(self.draw(private), private)

    def test_drawn_again(self) -> None:
        """A private key whose public one is degenerate, or that is 0 or 1, is drawn again."""
        half = (PRIME - 1) // 2
        self.assertEqual(public_key(0), 1)
        self.assertEqual(public_key(PRIME - 1), 1)
        self.assertEqual(public_key(half), PRIME - 1)
        for bad in (0, 1, half, PRIME - 1):
            self.assertEqual(self.draw(bad, A), A)
        self.assertEqual(self.draw(0, 1, 1, half, PRIME - 1, 0, B), B)

    def test_differ(self) -> None:
        """No two private keys are the same, and none is degenerate."""
        privates = {private_key() for _ in range(1000)}
        self.assertEqual(len(privates), 1000)
        self.assertTrue(all(1 < private < 2**64 for private in privates))
        self.assertFalse(any(is_degenerate(public_key(private)) for private in privates))


class CipherTests(SynchronousTestCase):
    @settings(DETERMINISTIC, max_examples=60)
    @given(
        key=st.binary(min_size=8, max_size=8),
        skip=st.integers(0, 600),
        data=st.binary(max_size=100),
        places=st.lists(st.integers(0, 100), max_size=4),
    )
    def test_keystream(self, key: bytes, skip: int, data: bytes, places: list[int]) -> None:
        """Data is mixed with the keystream from `skip` on, however it is cut, by either cipher."""
        stream = keystream(key, skip + len(data))[skip:]
        wanted = bytes(left ^ right for left, right in zip(data, stream, strict=True))
        own = rc4(key)
        own(bytes(skip))
        for crypt in (own, stream_cipher(key, skip)):
            self.assertEqual(b"".join(crypt(piece) for piece in cut(data, places)), wanted)

    def test_skip(self) -> None:
        """A cipher that skips goes on where one that was used is."""
        for skip in (0, 1, 7, 8, 23):
            with self.subTest(skip=skip):
                self.assertEqual(stream_cipher(KEY, skip)(bytes(24 - skip)), STREAM[skip:])

    def test_inverse(self) -> None:
        """What one side encrypts the other decrypts with a cipher of its own."""
        self.assertEqual(stream_cipher(KEY, 8)(stream_cipher(KEY, 8)(b"hello")), b"hello")

    def test_apart(self) -> None:
        """Each cipher has a state of its own, of the same key too."""
        for cipher in (rc4, stream_cipher):
            first, second = cipher(KEY), cipher(KEY)
            self.assertEqual(first(bytes(10)), STREAM[:10])
            self.assertEqual(second(bytes(24)), STREAM)
            self.assertEqual(first(bytes(14)), STREAM[10:])


class LackTests(SynchronousTestCase):
    """Where data cannot be encrypted: no cryptography package, or an OpenSSL without RC4."""

    def test_here(self) -> None:
        """Where the cipher works nothing is said."""
        check_stream_cipher()

    def test_no_package(self) -> None:
        """Without the package its name and what to install are said in one line."""
        check_stream_cipher()  # so that the module is there to be taken away
        name = "cryptography.hazmat.primitives.ciphers"
        self.addCleanup(sys.modules.__setitem__, name, sys.modules[name])
        sys.modules[name] = cast(Any, None)
        text = str(raised(ValueError, check_stream_cipher))
        self.assertIn("pip install 'fastway[snet]'", text)
        self.assertNotIn("\n", text)

    def test_both_sides(self) -> None:
        """Without it each side makes, cuts and resumes streams that are not encrypted; neither
        side's configuration can come to ask for encryption unseen."""
        check_stream_cipher()  # so that the module is there to be taken away
        name = "cryptography.hazmat.primitives.ciphers"
        self.addCleanup(sys.modules.__setitem__, name, sys.modules[name])
        sys.modules[name] = cast(Any, None)
        listens, dials = Resumable(), Resumable()
        listening, dialling = Listening(listens), Dialling(OneOf(dials), backoff=float)
        script, wire = listening.new(b"made ")
        wire.broken()
        listening.resume(script, b"resumed")
        dialling.new(b"made ").broken()
        dialling.turn()
        dialling.resume(b"resumed")
        self.assertEqual([listens.received, dials.received], [b"made resumed"] * 2)
        raised(ValueError, SnetConfig, encrypt=True)
        raised(ValueError, replace, SnetConfig(), encrypt=True)
        raised(FrozenInstanceError, setattr, SnetConfig(), "encrypt", True)

    def test_wrong_cipher(self) -> None:
        """A cipher that is not RC4 is found out."""
        self.patch(crypto, "stream_cipher", lambda key: lambda data: data)
        self.assertIn("its RC4 is not RC4", str(raised(ValueError, check_stream_cipher)))

    def test_no_legacy_provider(self) -> None:
        """An OpenSSL without RC4 is found when encryption is asked for, in one line; unencrypted
        streams need none, to the vector of the number that every handshake encrypts."""
        script = (
            "from fastway.snet import SnetConfig\n"
            "from fastway.snet.crypto import rc4\n"
            "SnetConfig()\n"
            f"print(rc4(bytes.fromhex('{KEY.hex()}'))(bytes(24)).hex())\n"
            "try:\n"
            "    SnetConfig(encrypt=True)\n"
            "except ValueError as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "CRYPTOGRAPHY_OPENSSL_NO_LEGACY": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        keystream, problem = done.stdout.splitlines()
        self.assertEqual(keystream, STREAM.hex())
        self.assertIn("needs RC4", problem)
        self.assertIn("leave encryption off", problem)


class DigestTests(SynchronousTestCase):
    def test_right(self) -> None:
        """The digest of the data with the key is one."""
        self.assertTrue(is_digest(PROOF, CHALLENGE, KEY))
        self.assertTrue(is_digest(CLAIM_DIGEST, CLAIM, KEY))

    def test_each_bit(self) -> None:
        """One wrong bit anywhere, in proof, data or key, makes it wrong."""
        whole = PROOF + CHALLENGE + KEY
        for bit in range(8 * len(whole)):
            with self.subTest(bit=bit):
                wrong = bytearray(whole)
                wrong[bit // 8] ^= 1 << bit % 8
                parts = bytes(wrong[:16]), bytes(wrong[16:24]), bytes(wrong[24:])
                self.assertFalse(is_digest(*parts))

    def test_length(self) -> None:
        """A part of a proof, or one with something behind it, is wrong."""
        for proof in (b"", PROOF[:-1], PROOF + b"\0"):
            with self.subTest(size=len(proof)):
                self.assertFalse(is_digest(proof, CHALLENGE, KEY))

    def test_constant_time(self) -> None:
        """Right and wrong ones are compared by hmac.compare_digest, whole against whole."""
        compared: list[set[bytes]] = []
        real = hmac.compare_digest

        def compare(left: bytes, right: bytes) -> bool:
            compared.append({left, right})
            return real(left, right)

        # The module object that crypto looks it up in.
        self.patch(vars(crypto)["hmac"], "compare_digest", compare)
        self.assertTrue(is_digest(PROOF, CHALLENGE, KEY))
        self.assertFalse(is_digest(bytes(16), CHALLENGE, KEY))
        self.assertEqual(compared, [{PROOF}, {PROOF, bytes(16)}])

    def test_answer_decides(self) -> None:
        """What compare_digest says is what holds: nothing is compared besides."""
        self.patch(vars(crypto)["hmac"], "compare_digest", lambda left, right: True)
        self.assertTrue(is_digest(bytes(16), CHALLENGE, KEY))

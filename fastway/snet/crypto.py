"""The key agreement and the cipher of snet (spec snet.md, "Key agreement").

Rule: numbers and bytes in, bytes out. A 64-bit Diffie-Hellman key is found within hours by whoever
recorded a handshake, and RC4 is broken: this keeps casual readers out, nobody else. It is spoken
because existing clients speak it; whoever needs secrecy runs snet over TLS.

The eight bytes that every handshake encrypts are done here. Streams of data are done by OpenSSL,
through the `cryptography` package, which therefore only encrypted streams need.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

PRIME = 0xFFFFFFFFFFFFFFC5
GENERATOR = 5

KEY_SIZE = 8
"""Bytes of a public key, and of the key that both sides come to share."""

CHALLENGE_SIZE = 8
PROOF_SIZE = 16

Crypt = Callable[[bytes], bytes]
"""Encrypts or decrypts the next bytes of one direction; RC4 is its own inverse."""


def private_key() -> int:
    """A new private key, 64 bits of the operating system's randomness, never degenerate."""
    while True:
        private = int.from_bytes(os.urandom(KEY_SIZE), "little")
        if private > 1 and not is_degenerate(public_key(private)):
            return private


def public_key(private: int) -> int:
    """What the peer is sent."""
    return pow(GENERATOR, private, PRIME)


def is_degenerate(public: int) -> bool:
    """A public key with which the secret would be known to all: 0, 1, p-1, or one not below p."""
    return not 1 < public < PRIME - 1


def shared_key(private: int, other_public: int) -> bytes:
    """The key that both sides have now, 8 bytes."""
    return pow(other_public, private, PRIME).to_bytes(KEY_SIZE, "little")


def rc4(key: bytes) -> Crypt:
    """A cipher of one direction for a few bytes: it needs no package, and makes some MB/s."""
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) & 255
        state[i], state[j] = state[j], state[i]
    i = j = 0

    def crypt(data: bytes) -> bytes:
        nonlocal i, j
        out = bytearray(data)
        for place, byte in enumerate(data):
            i = (i + 1) & 255
            one = state[i]
            j = (j + one) & 255
            other = state[i] = state[j]
            state[j] = one
            out[place] = byte ^ state[(one + other) & 255]
        return bytes(out)

    return crypt


def stream_cipher(key: bytes, skip: int = 0) -> Crypt:
    """A cipher of one direction for a stream's data: OpenSSL's RC4.

    Args:
        skip: Bytes of the keystream that have been used already.

    `check_stream_cipher` says beforehand whether there is one here.
    """
    from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4
    from cryptography.hazmat.primitives.ciphers import Cipher

    crypt = Cipher(ARC4(key), mode=None).encryptor().update
    if skip:
        crypt(bytes(skip))
    return crypt


def check_stream_cipher() -> None:
    """Find out before a stream needs it whether data can be encrypted here.

    Raises:
        ValueError: it cannot; one line, with what to do.
    """
    key, zeros = b"fast way", bytes(8)
    try:
        works = stream_cipher(key)(zeros) == rc4(key)(zeros)
    except ImportError as error:
        raise ValueError(
            f"encryption needs the cryptography package ({error}): pip install 'fastway[snet]'"
        ) from None
    except Exception as error:  # each OpenSSL without RC4 says so with an error of its own
        problem = " ".join(str(error).split())
    else:
        problem = "" if works else "its RC4 is not RC4"
    if problem:
        raise ValueError(
            f"encryption needs RC4, and the OpenSSL of the cryptography package has none "
            f"({problem}): let it load its legacy provider, or leave encryption off"
        )


def digest(data: bytes, key: bytes) -> bytes:
    """md5(data + key): a proof of a challenge, or of a resume's counts; 16 bytes."""
    return hashlib.md5(data + key, usedforsecurity=False).digest()


def is_digest(proof: bytes, data: bytes, key: bytes) -> bool:
    """Whether `proof` is `digest(data, key)`, in a time that does not tell how far it is right."""
    return hmac.compare_digest(proof, digest(data, key))

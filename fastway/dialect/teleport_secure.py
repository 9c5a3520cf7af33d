"""Bodies under a key, as teleport's plug-in `secure` has them. (spec teleport.md, 7)

    Teleport(secure=Secure("cipherkey1234567"))
    session.send("room.say", "hello", meta=[SECURE])  # this one's body; its answer is too

**What it is worth: little.** It is AES in ECB mode, because that is what the wire has: equal
blocks of 16 bytes are equal on the wire, nothing says that a message was changed, repeated or
swapped for another, and routes, meta, errors and lengths are in the clear. Whoever is in the
middle takes the mark off and sends what he likes. It is here for peers that have it and cannot be
changed; what keeps secrets is TLS.

Rule: pure functions of bytes. Whatever is wrong with a body that comes, its sender hears one and
the same word, so that trying tells him nothing.
"""

from __future__ import annotations

from hashlib import md5

try:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.padding import PKCS7
except ModuleNotFoundError:
    from fastway.errors import NotInstalled

    raise NotInstalled("fastway.dialect.teleport_secure", "cryptography", "snet") from None

from fastway.dialect import FrameRefused, Meta, Refused
from fastway.dialect.teleport_codecs import TeleportJson
from fastway.dialect.teleport_frames import read_fields, write_field

__all__ = ["ACCEPT_SECURE", "SECURE", "Secure"]

SECURE = ("X-Secure", "true")
"""What marks a message whose body is under the key."""

ACCEPT_SECURE = "X-Accept-Secure"
"""Whether an answer is to be: "true" of a question in the clear, "false" of one that is not."""

_BITS = 128
_ONLY = "secure goes with JSON and Protocol Buffers alone"
_JSON, _PROTO = ord("j"), ord("p")


class Secure:
    """A key.

    Args:
        key: 16, 24 or 32 bytes, or text of so many.
        code: Of the Refused that a sender gets whose body cannot be opened.

    Raises:
        ValueError: it is of another length.
    """

    def __init__(self, key: bytes | str, code: int = 1) -> None:
        data = key.encode() if isinstance(key, str) else key
        if len(data) not in (16, 24, 32):
            raise ValueError(f"a key has 16, 24 or 32 bytes, not {len(data)}")
        self._cipher = Cipher(algorithms.AES(data), modes.ECB())
        self._version = md5(data, usedforsecurity=False).hexdigest()
        self._code = code

    def marks(self, meta: Meta) -> bool:
        """The body beside it is under the key."""
        return SECURE in meta

    def answers(self, meta: Meta) -> bool:
        """The answer to a question with this beside it is to be."""
        said = next((value for name, value in meta if name == ACCEPT_SECURE), "")
        return said == "true" or (said != "false" and self.marks(meta))

    def takes(self, codec: int) -> bool:
        """It has a place for bodies under a key."""
        return codec in (_JSON, _PROTO)

    def no_place(self) -> Refused:
        """What is told who wants an answer under the key, in a codec without a place for it."""
        return Refused(self._code, _ONLY)

    def seal(self, body: bytes, codec: int) -> bytes:
        """The body under the key, in the same codec.

        Raises:
            FrameRefused: that has no place for it.
        """
        pad, turn = PKCS7(_BITS).padder(), self._cipher.encryptor()
        text = turn.update(pad.update(body) + pad.finalize()).hex()
        if codec == _JSON:
            return b'{"cipherversion":"%b","ciphertext":"%b"}' % (
                self._version.encode(),
                text.encode(),
            )
        if codec == _PROTO:
            return write_field(1, self._version.encode()) + write_field(2, text.encode())
        raise FrameRefused(_ONLY)

    def open(self, body: bytes, codec: int) -> bytes:
        """What was sealed.

        Raises:
            Refused: it was not, or under another key.
        """
        try:
            version, text = self._read(body, codec)
            if not version:
                return b""
            if version != self._version:
                raise ValueError
            unpad, turn = PKCS7(_BITS).unpadder(), self._cipher.decryptor()
            return unpad.update(turn.update(bytes.fromhex(text))) + unpad.finalize()
        except Exception:
            raise Refused(self._code, "decrypt ciphertext error") from None

    def _read(self, body: bytes, codec: int) -> tuple[str, str]:
        if codec == _JSON:
            said = TeleportJson().decode(body, dict[str, str])
            return said.get("cipherversion", ""), said.get("ciphertext", "")
        if codec == _PROTO:
            fields = read_fields(body)
            version, text = fields.get(1, b""), fields.get(2, b"")
            return bytes(version).decode(), bytes(text).decode()
        raise ValueError

"""What all wires of one port in teleport's dialect, or of one client, have in common.

Rule: values that never change, and what needs nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastway.dialect import Body, BodyFormat, Meta
from fastway.dialect.teleport_codecs import NO_CODECS, codec_of
from fastway.dialect.teleport_filters import Filter
from fastway.dialect.teleport_frames import Frame, Framing
from fastway.dialect.teleport_names import Names

if TYPE_CHECKING:
    from fastway.dialect.teleport_secure import Secure


@dataclass(frozen=True, eq=False)
class Settings:
    """What the wires of one port, or of one client, have in common; `Teleport` says what each is.

    Attributes:
        raw: Frames are those of `Raw`,
        bare: and bodies are under no key.
        codecs: Ids of formats.
        codec: That of what is begun here.
        pipe: Filters of that, the outermost first.
        beat: Seconds between heartbeats that are sent; 0: none.
        beat_asks: They are CALLs, and a peer that answers none is silent.
        pong: Heartbeats that come are answered, and their end watched.
        secure: The key of bodies that are marked so.
    """

    framing: Framing
    raw: bool
    bare: bool
    codecs: Mapping[int, BodyFormat]
    codec: int
    filters: Mapping[int, Filter]
    pipe: bytes
    names: Names
    limit: int
    auth: bool
    user: Any
    beat: int
    beat_asks: bool
    pong: bool
    secure: Secure | None

    def format_of(self, codec: int) -> BodyFormat:
        return self.codecs.get(codec) or NO_CODECS[codec]

    def pack(self, frame: Frame) -> bytes:
        """Raises FrameRefused: it is too long."""
        return self.framing.write(frame, self.filters, self.limit)

    def sealed(self, body: bytes, meta: Meta) -> bytes:
        """A body under the key, where what is beside it says so.

        Raises:
            FrameRefused: its codec has no place for it.
        """
        if self.secure is None or not self.secure.marks(meta):
            return body
        codec = codec_of(body, self.codec)
        return Body(self.secure.seal(body, codec), chr(codec))

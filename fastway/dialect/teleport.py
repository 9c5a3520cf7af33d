"""The dialect of teleport v6, which is eRPC as well. (spec teleport.md, 3 to 8)

    CALL  1  /room/join  {"name":"ann"}     ->
                                            <-     REPLY  1  {"members":["ann"]}
                                            <-     PUSH      /room/joined  {"name":"ann"}

Both ends may call, push and answer, and answers come in any order. There is no handshake, but for
one that `auth` asks for; both ends must be set alike.

Rule: settings, and what is wrong with them; what is done with them is the wires'.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from fastway.dialect import BodyFormat, FrameRefused, NotInDialect, Traits, WebSocketRules
from fastway.dialect.teleport_codecs import CODECS, TeleportJson, by_id
from fastway.dialect.teleport_filters import FILTERS, MAX_FILTERS, Filter
from fastway.dialect.teleport_frames import FRAMINGS, Framing, Raw
from fastway.dialect.teleport_http import TYPES, HttpFrames, check_filters
from fastway.dialect.teleport_names import Names, check_names
from fastway.dialect.teleport_settings import Settings
from fastway.dialect.teleport_theader import ThriftFrames
from fastway.dialect.teleport_wires import MAX_RATE, TeleportWire

if TYPE_CHECKING:
    from fastway.dialect.teleport_secure import Secure

__all__ = ["MAX_FRAME", "Teleport", "TeleportJson"]

MAX_FRAME = 1024 * 1024
"""Bytes of a frame that is taken; Go's own limit is a thousand times that."""

MIN_FRAME = 1024
MIN_BEAT = 3

PROTOS: Mapping[str, tuple[Framing, ...]] = {
    **FRAMINGS,
    "http": (HttpFrames(),),
    "thrift": (ThriftFrames(),),
}


class Teleport:
    """What one port, or one client, speaks.

    Args:
        proto: How frames are written: "raw" as Go's default, "json", "pb", "http" or
            "thrift".
        codec: The letter of how bodies are written that are begun here: "j" JSON, "s" plain text,
            "f" forms, "p" Protocol Buffers, or one of `codecs`.
        codecs: More of these, by their letters; they may stand in for those.
        filters: Those that a peer may use, by their letters; gzip "g" and md5 "m" if not told.
        pipe: Letters of those that what is begun here goes through, the outermost first: "gm".
            Answers go through those of their questions.
        mapper: How routes are named: "http", room.join is /room/join, or "rpc": Room.Join.
        names: What the wire calls routes of the application, where that is not the same.
        ignore_case: Of names that come.
        auth: Peers of a server have to say who they are, and are asked for in `handshake`; a
            client says it.
        user: What a client says of itself then: text, or what `codec` can say; or a function
            that tells, called for each connection. It makes a client say it, `auth` or not.
        heartbeat: Seconds, whole ones and 3 at least, between heartbeats that this end sends; 0:
            none.
        heartbeat_call: They are CALLs; a peer that answers two of them no more is silent.
        pong: Heartbeats that come are taken, and who sent some is silent after two intervals
            without any, nor other calls or pushes. False: they are messages as others.
        secure: The key of bodies that are marked as under one (`teleport_secure`, which says what
            that is worth); None: there is none.
        concurrent: Messages of one session that may run at the same time.
        max_frame: Bytes of a frame that is taken, or sent, before and behind its filters.

    Raises:
        ValueError: a setting makes no sense; it says which.
    """

    name: ClassVar[str] = "teleport"

    def __init__(
        self,
        *,
        proto: str = "raw",
        codec: str = "j",
        codecs: Mapping[str, BodyFormat] | None = None,
        filters: Mapping[str, Filter] | None = None,
        pipe: str = "",
        mapper: str = "http",
        names: Mapping[str, str] | None = None,
        ignore_case: bool = False,
        auth: bool = False,
        user: Any = None,
        heartbeat: int = 0,
        heartbeat_call: bool = False,
        pong: bool = True,
        secure: Secure | None = None,
        concurrent: int = 64,
        max_frame: int = MAX_FRAME,
    ) -> None:
        if proto not in PROTOS:
            raise ValueError(f"proto is {', '.join(PROTOS)}, not {proto!r}")
        if mapper not in ("http", "rpc"):
            raise ValueError(f"mapper is http or rpc, not {mapper!r}")
        if heartbeat and not (heartbeat == int(heartbeat) and MIN_BEAT <= heartbeat <= MAX_RATE):
            raise ValueError(f"heartbeat is {MIN_BEAT} to {MAX_RATE} whole s, not {heartbeat!r}")
        if not MIN_FRAME <= max_frame < 2**31:
            raise ValueError(f"max_frame is {MIN_FRAME} bytes to 2 GiB, not {max_frame!r}")
        if concurrent < 1:
            raise ValueError(f"concurrent is 1 at least, not {concurrent!r}")
        formats = {"j": TeleportJson(), **CODECS, **(codecs or {})}
        known = FILTERS if filters is None else filters
        codec_ids = by_id(formats)
        for letter in known:
            if len(letter) != 1 or not 0 < ord(letter) < 256:
                raise ValueError(f"filters: {letter!r} is no letter of 8 bits")
        if codec not in formats:
            raise ValueError(f"codec is one of {', '.join(formats)}, not {codec!r}")
        if len(pipe) > MAX_FILTERS or any(letter not in known for letter in pipe):
            raise ValueError(
                f"pipe is at most {MAX_FILTERS} letters of {', '.join(known)}, not {pipe!r}"
            )
        if proto == "http":
            _check_http(formats, mapper, pipe, known, heartbeat, heartbeat_call)
        if proto == "thrift" and (auth or user is not None):
            raise ValueError("proto thrift has no AUTH: nobody can say who he is, first of all")
        names = dict(names or {})
        check_names(names, ignore_case)
        self.concurrent = concurrent
        self._limit = max_frame
        self._proto, self._streams = proto, proto == "raw"
        self._names = Names(mapper, names, ignore_case)
        made = [
            Settings(
                framing=framing,
                raw=type(framing) is Raw,
                bare=type(framing) is Raw and secure is None,
                codecs=codec_ids,
                codec=ord(codec),
                filters={ord(letter): one for letter, one in known.items()},
                pipe=pipe.encode("latin-1"),
                names=self._names,
                limit=max_frame,
                auth=auth or (is_client and user is not None),
                user=user,
                beat=int(heartbeat),
                beat_asks=heartbeat_call,
                pong=pong,
                secure=secure,
            )
            for is_client in (False, True)
            for framing in PROTOS[proto]
        ]
        half = len(made) // 2
        self._servers, self._clients = made[:half], made[half:]

    def with_user(self, user: Any) -> Teleport:
        """The same dialect, of a client that says this of itself."""
        other = copy(self)
        other._clients = [replace(one, auth=True, user=user) for one in self._clients]
        return other

    @property
    def websocket(self) -> WebSocketRules | None:
        # Raw frames have a size, so messages need not keep them apart; nor does Go look at that.
        if self._proto in ("http", "thrift"):
            return None
        return WebSocketRules(whole=self._proto != "raw")

    @property
    def max_frame(self) -> int:
        return self._limit

    @property
    def traits(self) -> Traits:
        settings = self._servers[0]
        return Traits(
            settings={
                "proto": self._proto,
                "codec": chr(settings.codec),
                "pipe": settings.pipe.decode("latin-1"),
            },
            handshake=settings.codecs[settings.codec] if settings.auth else None,
            asks=frozenset({"server", "client"}),
        )

    def server(self, *, whole: bool = False) -> TeleportWire:
        return TeleportWire(self._servers[whole], True)

    def client(self, *, whole: bool = False) -> TeleportWire:
        return TeleportWire(self._clients[whole], False)

    def wire_name(self, route: str) -> str:
        try:
            return self._names.known(route)
        except FrameRefused as error:
            raise NotInDialect(str(error)) from None

    def app_name(self, name: str) -> str:
        return self._names.route(name)


def _check_http(
    codecs: Mapping[str, object],
    mapper: str,
    pipe: str,
    filters: Mapping[str, Filter],
    beat: int,
    beat_asks: bool,
) -> None:
    """Raises ValueError: httproto has no place for that."""
    for letter in codecs:
        if letter not in TYPES:
            raise ValueError(f"codecs: {letter!r} has no name where proto is http")
    if mapper != "http":
        raise ValueError(f"mapper is http where proto is, not {mapper!r}")
    if beat and not beat_asks:
        raise ValueError("proto http has no PUSH: its heartbeats want heartbeat_call")
    try:
        ids = pipe.encode("latin-1")
        check_filters({ord(letter): one for letter, one in filters.items()}, ids)
    except FrameRefused as error:
        raise ValueError(f"pipe {pipe!r}: {error}") from None

"""The dialect of pomelo's clients: what nano and pitaya speak. (spec nano.md, 1 to 3 and 6)

    client  handshake {"sys":…,"user":…}                               ack  request, notify …
    server                               {"code":200,"sys":…,"user":…}      response, push …

Both send heartbeats; a server may kick. Where the Go code leaves holes, they are closed: an ack
without a handshake, a mid that does not end and half a code are errors of the peer.

Rule: settings, and what is wrong with them; what is done with them is the wires'.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

from fastway import __version__
from fastway.dialect import BodyFormat, FrameRefused, NotInDialect, Traits, WebSocketRules
from fastway.dialect.pomelo_json import MAX_BEAT, PomeloJson, welcome_head
from fastway.dialect.pomelo_packets import ERROR, GZIP, HEAD, MAX_BODY, MAX_CODE, route_field
from fastway.dialect.pomelo_pitaya import serializer
from fastway.dialect.pomelo_routes import Routes
from fastway.dialect.pomelo_wires import PomeloClient, PomeloServer, Settings
from fastway.formats import Json

__all__ = ["MAX_PACKET", "Pomelo", "PomeloJson"]

MAX_PACKET = 64 * 1024
"""The largest body of a packet that nano's peers take, in bytes."""

MIN_PACKET = 128
"""The least `max_packet`: handshakes have to fit."""


class Pomelo:
    """What one port, or one client, speaks; the dialect of nano, of pitaya, and of their clients.

    Args:
        format: How bodies are written; None: JSON, as the JavaScript clients need it.
        heartbeat: Seconds between heartbeats of a server; 0: none, and nobody is too silent.
            A client does as its server says. pitaya's Go client takes whole seconds only.
        dictionary: Codes of routes, 0 to 65535, as the wire has these; a server tells its
            clients, and both then send the codes. The JavaScript clients never send code 0. A
            client's own counts where its server tells none, as nano 0.5.0 does.
        names: What the wire calls routes of the application, where that is not the same.
        profile: "nano", or "pitaya": answers may say that they are errors, and be compressed.
        refusals: What becomes of a request that is refused: "silent" as nano, no answer at all;
            "reply": an answer {"code": …, "msg": …}; and whoever is not let in is told so. None:
            "silent" for nano, "reply" for pitaya.
        compress: Whether to compress what that makes shorter; for pitaya only.
        max_packet: Bytes of a packet's body that is taken, or sent. nano's clients take 64 KiB.
        user: What a client says of itself, for JSON; or a function that tells, called for each
            connection. None: nothing.
        client_type, client_version: What a client says that it is.
        epoch: Tells the Unix time, which a server tells its clients.

    Raises:
        ValueError: a setting makes no sense; it says which.
    """

    name: ClassVar[str] = "pomelo"
    concurrent: ClassVar[int] = 1
    websocket: ClassVar[WebSocketRules] = WebSocketRules(whole=False)

    def __init__(
        self,
        *,
        format: BodyFormat | None = None,
        heartbeat: float = 30.0,
        dictionary: Mapping[str, int] | None = None,
        names: Mapping[str, str] | None = None,
        profile: str = "nano",
        refusals: str | None = None,
        compress: bool = False,
        max_packet: int = MAX_PACKET,
        user: Any = None,
        client_type: str = "fastway",
        client_version: str = __version__,
        epoch: Callable[[], float] = time.time,
    ) -> None:
        if profile not in ("nano", "pitaya"):
            raise ValueError(f"profile is nano or pitaya, not {profile!r}")
        if refusals not in (None, "silent", "reply"):
            raise ValueError(f"refusals is silent or reply, not {refusals!r}")
        if compress and profile != "pitaya":
            raise ValueError("compress needs the profile pitaya: others cannot say it")
        if not 0 <= heartbeat <= MAX_BEAT:
            raise ValueError(f"heartbeat is 0 to {MAX_BEAT:g} s, not {heartbeat!r}")
        if not MIN_PACKET <= max_packet <= MAX_BODY:
            raise ValueError(f"max_packet is {MIN_PACKET} to {MAX_BODY} bytes, not {max_packet!r}")
        names, dictionary = dict(names or {}), dict(dictionary or {})
        _check_names(names)
        _check_dictionary(dictionary)
        self._dictionary = dictionary
        body = PomeloJson() if format is None else format
        pitaya = profile == "pitaya"
        self._settings = Settings(
            format=body,
            beat=float(heartbeat),
            limit=max_packet,
            routes=Routes(names, dictionary),
            names=names,
            nothing=b"null" if isinstance(body, Json) else b"",
            bits=GZIP | ERROR if pitaya else 0,
            pitaya=pitaya,
            replies=pitaya if refusals is None else refusals == "reply",
            compress=compress,
            welcome=welcome_head(dictionary, float(heartbeat), serializer(body) if pitaya else ""),
            epoch=epoch,
            client={"type": client_type, "version": client_version},
            user=user,
        )
        try:
            self._settings.welcome_packet(None)
        except FrameRefused as error:
            raise ValueError(f"dictionary: {error}, and it goes with the handshake") from None

    def with_user(self, user: Any) -> Pomelo:
        """The same dialect, of a client that says this of itself."""
        other = copy(self)
        other._settings = replace(self._settings, user=user)
        return other

    @property
    def max_frame(self) -> int:
        return self._settings.limit + HEAD

    @property
    def traits(self) -> Traits:
        settings = self._settings
        refused = None
        if settings.replies and settings.nothing:
            code = "string" if settings.pitaya else "integer"
            refused = {
                "type": "object",
                "properties": {"code": {"type": code}, "msg": {"type": "string"}},
                "required": ["code", "msg"],
            }
        return Traits(
            settings={
                "profile": "pitaya" if settings.pitaya else "nano",
                "refusals": "reply" if settings.replies else "silent",
            },
            codes=self._dictionary,
            handshake=PomeloJson(),
            refused=refused,
        )

    def server(self, *, whole: bool = False) -> PomeloServer:
        return PomeloServer(self._settings)

    def client(self, *, whole: bool = False) -> PomeloClient:
        return PomeloClient(self._settings)

    def wire_name(self, route: str) -> str:
        try:
            return self._settings.routes.known(route)
        except FrameRefused as error:
            raise NotInDialect(str(error)) from None

    def app_name(self, name: str) -> str:
        return self._settings.routes.app_name(name)


def _check_names(names: Mapping[str, str]) -> None:
    taken: dict[str, str] = {}
    for route, name in names.items():
        if taken.setdefault(name, route) != route:
            raise ValueError(f"names: {taken[name]!r} and {route!r} are both {name!r}")
        try:
            route_field(name)
        except FrameRefused as error:
            raise ValueError(f"names: {error}") from None


def _check_dictionary(dictionary: Mapping[str, int]) -> None:
    taken: dict[int, str] = {}
    for name, code in dictionary.items():
        if type(code) is not int or not 0 <= code <= MAX_CODE:
            raise ValueError(f"dictionary: a code is 0 to {MAX_CODE}, not {code!r} ({name!r})")
        if taken.setdefault(code, name) != name:
            raise ValueError(f"dictionary: {taken[code]!r} and {name!r} both have {code}")
        if not name or name != name.strip():
            raise ValueError(
                f"dictionary: {name!r} is no route: it is empty, or has spaces around"
            )
        try:
            route_field(name)
        except FrameRefused as error:
            raise ValueError(f"dictionary: {error}") from None

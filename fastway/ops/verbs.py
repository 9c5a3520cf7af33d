"""What an operator can have the gateway do, once for all who ask: SIGUSR1's commands and the API.

Rule: a verb takes values, changes the gateway, and returns what it did as text; or it raises a
CommandError of one line and has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from fastway.errors import CommandError, Reason
from fastway.gateway.link import Farewell
from fastway.gateway.requests import UNSENDABLE
from fastway.logs import threshold
from fastway.ops.limits import change_limits
from fastway.ops.profiles import Profiles
from fastway.ops.snapshot import Slices, Source
from fastway.ops.status import limit_figures

if TYPE_CHECKING:
    from fastway.gateway import RouterService

MAX_TEXT = 123
"""Bytes of text that a WebSocket's Close has room for."""


class NobodyThere(CommandError):
    """Whom it is about is not connected."""


class Gateway(Protocol):
    """What only a whole gateway does (`fastway.service.GatewayService`)."""

    def drain(self, again: bool = False) -> str: ...

    def undrain(self) -> str: ...

    def reload(self, said: bool = True) -> list[str]: ...


class Verbs:
    """The verbs.

    Args:
        service: The running gateway's router service.
        source: Its figures.
        profiles: What can be looked into.

    Attributes:
        gateway: What they are for as a whole; None: only for what its ports share.
    """

    def __init__(self, service: RouterService, source: Source, profiles: Profiles) -> None:
        self.service = service
        self.source = source
        self.profiles = profiles
        self.gateway: Gateway | None = None

    def kick(self, side: str, link_id: int, code: int = 0, text: str = "") -> str:
        """Lose a client, or all game servers of an id.

        Args:
            code: The close code that a WebSocket client is told; 0: that of the reason.
            text: What it is told; empty: the reason.
        """
        if code and (not 1000 <= code <= 4999 or code in UNSENDABLE):
            raise CommandError(f"{code} is no close code: give one from 1000 to 4999")
        if len(text.encode("utf-8", "replace")) > MAX_TEXT:
            raise CommandError(f"the reason is over {MAX_TEXT} bytes")
        router = self.service.router
        if side == "client":
            client = router.clients.get(link_id)
            links = [] if client is None else [client]
        else:
            links = list(router.servers.get(link_id, ()))
        if not links:
            raise NobodyThere(f"no {side} {link_id} is connected")
        for link in links:
            if code or text:
                farewell = Farewell(code or Reason.KICKED.close_code, text or Reason.KICKED.value)
                link.farewell = farewell  # type: ignore[attr-defined]
            router.lose(link, Reason.KICKED, text)
        return f"{len(links)} kicked"

    def limits(self, changes: Iterable[tuple[str, str]]) -> str:
        """Use limits from now on, until the next start, and tell all that are in use.

        Args:
            changes: Names of options, also without their `limit-`, and values.
        """
        rows = change_limits(self.service, changes)
        return "\n".join([*rows, *limit_figures(self.source.limits())])

    def loglevel(self, level: str) -> str:
        """Log what has at least that level."""
        try:
            threshold.set(level)
        except ValueError:
            raise CommandError(f"no level {level!r}") from None
        return f"the log level is {level}"

    def drain(self, again: bool = False) -> str:
        """Empty the gateway, then stop it; again: a successor listens there."""
        return self._gateway().drain(again)

    def undrain(self) -> str:
        """Take that back."""
        return self._gateway().undrain()

    def reload(self, said: bool = False) -> str:
        """Read again what may change while it runs.

        Args:
            said: The log has the rows as well.
        """
        return "\n".join(self._gateway().reload(said))

    def profile(self, kind: str, action: str = "", rows: int | None = None) -> str | Slices[str]:
        """Look into the process: `cpuprof` start or stop, or one of the lookups."""
        if kind == "cpuprof":
            if action not in ("start", "stop"):
                raise CommandError("cpuprof needs start or stop")
            return self.profiles.cpuprof(action)
        if action:
            raise CommandError(f"{kind} has no {action}")
        return self.profiles.lookup(kind, rows)

    def _gateway(self) -> Gateway:
        if self.gateway is None:
            raise CommandError("there is no whole gateway here")
        return self.gateway

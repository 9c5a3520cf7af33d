"""Options that changed in the file: what a running gateway can use at once, and what it cannot.

Rule: the file is read as at a start, and as a whole: while anything in it cannot be used, all that
is in use stays. What is not in LIVE is named, and waits for the next start.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from fastway import logs
from fastway.assemble import check_key, websocket_config
from fastway.config import Settings
from fastway.config.settings import (
    ServerPortSettings,
    Values,
    WebSocketPortSettings,
    make_settings,
)
from fastway.config.table import BY_NAME
from fastway.errors import ConfigError
from fastway.gateway import ServerFactory, WebSocketFactory
from fastway.gateway.weblayer import WebLayer
from fastway.ops.limits import FIXED, OPTIONS

if TYPE_CHECKING:
    from fastway.gateway import RouterService
    from fastway.gateway.factories import GatewayFactory

KEY = "server-auth-password"

PROXIES = ("client-proxy-from", "server-proxy-from")
"""Live while there are some: the first one makes a port another one."""

LIVE = frozenset(
    {
        *(name for name in OPTIONS if name not in FIXED),
        *PROXIES,
        "client-proxy-others",
        "server-proxy-others",
        "client-ws-origins",
        "client-ws-path",
        "trusted-proxies",
        "trusted-proxies-header",
        "log-level",
        "log-address",
        KEY,
    }
)
"""What is used without a restart."""

SHOWN = 200
"""Characters of a value that are shown."""


def changes(used: Settings, new: Settings) -> tuple[list[str], list[str]]:
    """The options that changed: those that can be used at once, and those that cannot."""
    before, now = used.values.values, new.values.values
    names = [name for name in BY_NAME if before[name] != now[name]]
    live = [
        name
        for name in names
        if name in LIVE and (name not in PROXIES or (before[name] and now[name]))
    ]
    return live, [name for name in names if name not in live]


def put_together(used: Settings, new: Settings, live: Collection[str]) -> Settings:
    """What is in use with the live options of the new.

    Raises:
        ConfigError: they do not go together.
    """
    given = {name: told for name, told in used.values.given.items() if name not in live}
    given.update((name, told) for name, told in new.values.given.items() if name in live)
    return make_settings(Values(given))


def use(service: RouterService, settings: Settings, names: Collection[str]) -> None:
    """Use these options from now on.

    Raises:
        ConfigError: the server port would be open to everybody; nothing has changed.
    """
    check_key(settings, service.ports[1].address)
    limits = {OPTIONS[name] for name in OPTIONS if name in names}
    if limits:
        # Not all of them: others may have been changed by the command.
        now = {field: getattr(settings.door, field) for field in limits}
        service.set_limits(replace(service.gate.values, **now))
    if "log-level" in names:
        logs.threshold.set(settings.log.level)
    if "log-address" in names:
        logs.addresses.kept = settings.log.address
    for told, port in zip(settings.ports, service.ports, strict=True):
        factory: GatewayFactory = port.factory  # type: ignore[assignment]
        factory.door.proxies = told.proxy_from
        if factory.proxies is not None:
            factory.proxies.sources = told.proxy_from
            factory.proxies.direct = told.proxy_others == "direct"
        if isinstance(told, ServerPortSettings) and isinstance(factory, ServerFactory):
            factory.key = told.key
        if isinstance(told, WebSocketPortSettings):
            factory.door.tellers = told.proxies
            for one in (factory, port.layer("ws")):
                if isinstance(one, (WebSocketFactory, WebLayer)):
                    one.websocket = websocket_config(told)


def row(name: str, used: Settings, new: Settings) -> str:
    """What became of an option, for the operator."""
    if name == KEY:
        return f"{name}: another one; servers that are connected stay"
    was, now = (shown(name, settings.values) for settings in (used, new))
    return f"{name}: {now}, was {was}"


def shown(name: str, values: Values) -> str:
    """The text of an option's value."""
    text = values.given[name].text if name in values.given else BY_NAME[name].default
    return text[:SHOWN] or "empty"


class Reload:
    """One reading of the options anew.

    Args:
        service: What runs.
        used: What it uses.
        new: What the file says now.

    Attributes:
        settings: What is in use afterwards.
        rows: What is used from now on, a row for each option.
        waits: What is used after a restart.

    Raises:
        ConfigError: it cannot be used, and nothing has changed.
    """

    def __init__(self, service: RouterService, used: Settings, new: Settings) -> None:
        live, waits = changes(used, new)
        try:
            self.settings = put_together(used, new, live)
        except ConfigError:
            # Good in the file, and not with what is in use: a path of WebSocket without a port.
            live, waits = [], [*live, *waits]
            self.settings = used
        use(service, self.settings, live)
        self.rows = [row(name, used, new) for name in live]
        self.waits = waits

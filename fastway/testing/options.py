"""What a gateway for tests is told: the gateway's own options as keyword arguments.

Rule: an option means what it means in production, and what is wrong with one is said as there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from twisted.internet.endpoints import quoteStringArgument

from fastway.config import Settings
from fastway.config.settings import Given, PortSettings, SnetSettings, Values, make_settings
from fastway.config.sources import closest
from fastway.config.table import BY_NAME, resolve_name
from fastway.errors import ConfigError
from fastway.snet.config import SnetConfig

HOST = "127.0.0.1"

OURS = {
    "client-addr": "client_port",
    "server-addr": "server_port",
    "server-auth-password": "key",
    "run-dir": "",
    "pid-file": "",
    "command-file": "",
    "logfile": "",
    "metrics-addr": "",
    "ready-needs-server": "",
    "admin-addr": "",
    "admin-token": "",
    "admin-token-file": "",
    "admin-hosts": "",
}
"""Options that a gateway for tests sets itself, and the argument to give instead, if there is
one."""


class GatewayOptions:
    """The options of one gateway for tests.

    Args:
        key: What game servers prove to hold.
        snet: Speak snet on the client port.
        ws: Have a port for web pages, on any free one.
        options: Options of the gateway, by their names with `_` for `-`: `client_max_conn=3`,
            `client_idle_timeout=2.5`, `memory_limit="1M"`, `server_snet_enable=True`.

    Raises:
        ConfigError: one is none, cannot be used, or does not go with another.

    Attributes:
        key: The key as bytes, as `connect_server` takes it.
        settings: What the gateway is told, with any free ports.
    """

    def __init__(
        self, key: str | bytes, snet: bool, ws: bool, options: Mapping[str, object]
    ) -> None:
        self.key = os.fsencode(key)
        self._given = {"server-auth-password": Given("key", os.fsdecode(key))}
        if snet:
            self._given["client-snet-enable"] = Given("snet", "true")
        if ws:
            self._given["client-ws-addr"] = Given("ws", f"{HOST}:0")
        for where, value in options.items():
            option = resolve_name(where)
            if option is None:
                names = [name.replace("-", "_") for name in BY_NAME]
                raise ConfigError(where, f"no such option{closest(where, names)}")
            if option.name in OURS:
                instead = OURS[option.name]
                mend = f"; give {instead}" if instead else ""
                raise ConfigError(where, f"a gateway for tests sets it itself{mend}")
            text = str(value).lower() if isinstance(value, bool) else str(value)
            self._given[option.name] = Given(where, text)
        self.settings = self.at(0, 0)

    def at(self, client_port: int, server_port: int, web_port: int = 0) -> Settings:
        """The settings of a gateway on these ports of 127.0.0.1; 0: any free one."""
        web = self._given.get("client-ws-addr")
        if web is not None and web.where == "ws":
            self._given["client-ws-addr"] = Given("ws", f"{HOST}:{web_port}")
        for name, number in (("client-addr", client_port), ("server-addr", server_port)):
            self._given[name] = Given(OURS[name], f"{HOST}:{number}")
        return make_settings(Values(self._given))

    def arguments(self) -> list[str]:
        """The command line of such a gateway; the key is not in it."""
        return [
            f"--{name}={given.text}"
            for name, given in self._given.items()
            if name != "server-auth-password"
        ]


def client_string(port: PortSettings, number: int) -> str:
    """The endpoint string by which a gateway's port is reached."""
    plain = f"tcp:{HOST}:{number}"
    if port.snet is None:
        return plain
    more = ":encrypt=true" if port.snet.encrypt else ""
    return f"snet:{quoteStringArgument(plain)}:buffer={port.snet.buffer}{more}"


def web_url(settings: Settings, number: int) -> str:
    """The URL of the first port for web pages, `snet+ws:` where it speaks snet; "" if there is
    none, or none with a number."""
    if not settings.websockets or not number:
        return ""
    port = settings.websockets[0]
    secure = port.tls is not None or port.address.startswith("ssl:")
    way = "snet+" if port.snet is not None else ""
    return f"{way}{'wss' if secure else 'ws'}://{HOST}:{number}{port.path}"


def snet_config(snet: SnetSettings) -> SnetConfig:
    """How who dials a port that speaks snet should speak it."""
    return SnetConfig(
        encrypt=snet.encrypt,
        buffer=snet.buffer,
        init_timeout=snet.init_timeout,
        wait_timeout=snet.wait_timeout,
        dead_after=snet.dead_after,
    )

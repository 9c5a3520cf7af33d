"""What the gateway is told: all options as one frozen tree of values with types.

Rule: a field is made from one option, which its metadata names; the rest of the gateway knows
fields only. `where` gives back how the operator wrote the option, for messages.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

from fastway.config.memory import memory_size
from fastway.config.table import BY_NAME, COUNT
from fastway.config.values import (
    Allowance,
    DirectPort,
    Ids,
    Share,
    show_duration,
    show_size,
)
from fastway.errors import ConfigError
from fastway.networks import Networks
from fastway.proxy import MAX_HEADER
from fastway.wire import MIN_LENGTH

AnySection = TypeVar("AnySection", bound="Section")

DEAD_AFTER = 20.0
"""Seconds without a sign of life after which a connection under snet counts as cut, at most."""


DRAIN_LIMIT = 120.0
"""Seconds of a drain that was asked for where SIGTERM makes none."""

WEB = "client-ws-addr", "client-wss-addr"
"""The options with addresses of ports that speak WebSocket,"""

WEB_TERMS = "client-ws-path", "client-ws-origins", "trusted-proxies", "trusted-proxies-header"
"""those that hold for these ports alone,"""

PLAIN = "plain+"
"""What stands before client-addr where client-tls-* are for the other ports of clients,"""

INSIDE = "snet+"
"""and what stands before an address where streams survive inside of it."""


class Given(NamedTuple):
    """What an option was set to: the place as the operator wrote it, and the text there."""

    where: str
    text: str


class Values:
    """The value of every option, and where it is from.

    Args:
        given: Option name -> what it was set to; what is missing has its default.

    Raises:
        ConfigError: a text cannot be used.
    """

    def __init__(self, given: Mapping[str, Given]) -> None:
        self.given = given
        self.values: dict[str, Any] = {}
        for name, option in BY_NAME.items():
            text = given[name].text if name in given else option.default
            try:
                if "\0" in text:
                    raise ValueError("there is a NUL in it")
                self.values[name] = option.parse(text)
            except ValueError as error:
                raise ConfigError(self.where(name), str(error)) from None

    def where(self, name: str) -> str:
        """How the operator spelled an option, or would."""
        return self.given[name].where if name in self.given else f"--{name}"


def of(option: str) -> Any:
    """A field whose value is an option's; `{side}` in the name is client or server."""
    return field(metadata={"option": option})


@dataclass(frozen=True, kw_only=True)
class Section:
    """Some options that belong together."""

    origins: Mapping[str, str] = field(repr=False, compare=False, default_factory=dict)
    """Field -> how its option was spelled."""

    def where(self, name: str) -> str:
        """How the operator spelled the option of a field, or would.

        Raises:
            KeyError: no option makes that field.
        """
        return self.origins[name]


def _make(section: type[AnySection], values: Values, side: str = "", **more: Any) -> AnySection:
    """A section whose fields are their options' values, and `more`."""
    made = dict(more)
    origins = {}
    for item in dataclasses.fields(section):
        if item.name == "side":
            made["side"] = side
        if "option" in item.metadata:
            name = item.metadata["option"].format(side=side)
            origins[item.name] = values.where(name)
            made.setdefault(item.name, values.values[name])
    return section(origins=origins, **made)


@dataclass(frozen=True, kw_only=True)
class SnetSettings(Section):
    """How a port's snet streams behave; sizes are bytes, times seconds.

    Attributes:
        dead_after: Seconds without a sign of life after which a connection counts as cut.
    """

    enable: bool = of("{side}-snet-enable")
    encrypt: bool = of("{side}-snet-encrypt")
    buffer: int = of("{side}-snet-buffer")
    init_timeout: float = of("{side}-snet-init-timeout")
    wait_timeout: float = of("{side}-snet-wait-timeout")
    max_waiting: int = of("{side}-snet-max-waiting")
    max_handshakes: int = of("{side}-snet-max-handshakes")
    dead_after: float = DEAD_AFTER


@dataclass(frozen=True, kw_only=True)
class TlsSettings(Section):
    """How a port speaks TLS; paths are as the operator wrote them.

    Attributes:
        cert: Empty: none.
        key: Empty: it is in the same file.
        directory: Empty: none. There is this, or `cert`, or both.
        client_ca: Empty: no client is asked for a certificate.
        protocols: What is spoken inside, but for WebSocket, the first choice first.
    """

    cert: str = of("{side}-tls-cert")
    key: str = of("{side}-tls-key")
    directory: str = of("{side}-tls-dir")
    client_ca: str = of("{side}-tls-client-ca")
    client_auth: Literal["none", "optional", "require"] = of("{side}-tls-client-auth")
    min_version: Literal["1.2", "1.3"] = of("{side}-tls-min-version")
    protocols: tuple[bytes, ...] = of("{side}-tls-alpn")

    def check(self) -> None:
        """See that they go together.

        Raises:
            ConfigError: they do not.
        """
        if self.key and not self.cert:
            raise ConfigError(self.where("key"), f"whose key is it? Give {self.where('cert')} too")
        if self.client_auth != "none" and not self.client_ca:
            raise ConfigError(
                self.where("client_auth"),
                "nobody would be trusted; give a file with the authorities of these "
                f"certificates too: {self.where('client_ca')}",
            )
        if self.client_ca and self.client_auth == "none":
            raise ConfigError(
                self.where("client_ca"),
                "nobody would be asked for a certificate; "
                f"give {self.where('client_auth')} optional or require too",
            )


@dataclass(frozen=True, kw_only=True)
class PortSettings(Section):
    """One port and the bounds of its links; sizes are bytes, times seconds.

    Attributes:
        side: client or server.
        address: As the operator wrote it.
        max_links: Connections at a time; 0: no limit.
        max_packet: The largest legal length field.
        idle_timeout: 0: never.
        write_timeout: 0: for ever.
        snet: How it speaks snet, inside of WebSocket where it speaks that too; None: it does not.
        tls: How it speaks TLS, outside of both; None: it does not, or its address has it.
        proxy_from: Who must send a PROXY header before all that; empty: none is read.
        proxy_others: What becomes of everybody else.
    """

    side: Literal["client", "server"]
    address: str = of("{side}-addr")
    reuse_port: bool = of("reuse-port")
    max_links: int = of("max-{side}s")
    max_packet: int = of("max-packet")
    read_size: int = of("{side}-buffer-size")
    idle_timeout: float = of("{side}-idle-timeout")
    write_timeout: float = of("write-timeout")
    queue_packets: int = of("{side}-send-chan-size")
    queue_bytes: int = of("{side}-send-buffer")
    proxy_from: Networks = of("{side}-proxy-from")
    proxy_others: Literal["refuse", "direct"] = of("{side}-proxy-others")
    snet: SnetSettings | None
    tls: TlsSettings | None

    @property
    def name(self) -> str:
        """What operators call it."""
        return self.side


@dataclass(frozen=True, kw_only=True)
class WebSocketPortSettings(PortSettings):
    """Another client port, which speaks WebSocket.

    Attributes:
        number: Which of them it is, from 1.
        path: What requests must ask for.
        allowed: Origins whose pages may connect.
        proxies: Peers that are believed whom a request is from.
        header: Where they say so.
    """

    address: str = of("client-ws-addr")
    number: int
    path: str = of("client-ws-path")
    allowed: tuple[str, ...] = of("client-ws-origins")
    proxies: Networks = of("trusted-proxies")
    header: str = of("trusted-proxies-header")

    @property
    def name(self) -> str:
        return f"web client {self.number}" if self.number > 1 else "web client"


@dataclass(frozen=True, kw_only=True)
class SecureWebSocketPortSettings(WebSocketPortSettings):
    """The same inside TLS."""

    address: str = of("client-wss-addr")


@dataclass(frozen=True, kw_only=True)
class DirectPortSettings(PortSettings):
    """A client port whose connections know no packets, and lead to one game server."""

    direct: DirectPort = field(metadata={"option": "direct"})
    address: str = field()
    queue_packets: int = COUNT
    queue_bytes: int = of("direct-send-buffer")

    @property
    def name(self) -> str:
        return f"direct {self.direct.name}"


@dataclass(frozen=True, kw_only=True)
class DirectWebSocketPortSettings(DirectPortSettings, WebSocketPortSettings):
    """The same of web pages' connections."""

    number: int = 0


@dataclass(frozen=True, kw_only=True)
class ServerPortSettings(PortSettings):
    """The server port.

    Attributes:
        key: What servers prove to hold; empty: none.
        max_handshakes: Servers that have not proved it yet; past that the oldest is dropped.
        identities: A file that says which ids a certificate allows; empty: any.
    """

    key: bytes = field(repr=False, metadata={"option": "server-auth-password"})
    allow_empty_key: bool = of("allow-empty-key")
    max_handshakes: int = of("server-max-handshakes")
    identities: str = of("server-identities")


@dataclass(frozen=True, kw_only=True)
class LimitSettings(Section):
    """What holds for all links together, and for each in the router.

    Attributes:
        client_max_conn: 0: no limit.
        client_max_total: 0: no limit.
        memory_limit: Bytes that may wait for all links together; 0: no limit.
        memory_share: The part of the machine's memory that this is, if it was given so.
        keep_files: Descriptors kept back from clients.
    """

    client_max_conn: int = of("client-max-conn")
    client_max_total: int = of("client-max-total")
    server_id_conflict: Literal["replace", "evict", "reject"] = of("server-id-conflict")
    memory_limit: int = of("memory-limit")
    memory_share: float | None
    keep_files: int = of("keep-files")


@dataclass(frozen=True, kw_only=True)
class DoorSettings(Section):
    """Who may connect and how often, and what one client may do a second; 0 is no limit. The
    fields are those of `fastway.gateway.limits.LimitValues`."""

    connections: int = of("limit-connections")
    rate: float = of("limit-rate")
    tls_rate: float = of("limit-tls-rate")
    handshakes: int = of("limit-handshakes")
    address_connections: int = of("limit-address-connections")
    address_rate: float = of("limit-address-rate")
    address_burst: int = of("limit-address-burst")
    ipv6_prefix: int = of("limit-ipv6-prefix")
    exempt: Networks = of("limit-exempt")
    allow: tuple[Allowance, ...] = of("limit-allow")
    table: int = of("limit-table")
    dry_run: bool = of("limit-dry-run")
    client_packet_rate: float = of("client-packet-rate")
    client_byte_rate: int = of("client-byte-rate")
    client_dial_rate: float = of("client-dial-rate")


@dataclass(frozen=True, kw_only=True)
class ControlSettings(Section):
    """Control connections.

    Attributes:
        kick_servers: Servers that may kick any client.
        client_service_id: What clients dial for theirs; None: they have none.
        groups: Groups of one server.
        group_members: Members of one group.
        queue: Messages that may wait for one end.
        proxy_to_servers: Servers whose connections begin with a PROXY header.
    """

    kick_servers: Ids = of("kick-servers")
    client_service_id: int | None = of("client-service-id")
    groups: int = of("groups")
    group_members: int = of("group-members")
    queue: int = of("control-queue")
    proxy_to_servers: Ids = of("proxy-to-servers")


@dataclass(frozen=True, kw_only=True)
class RelaySettings(Section):
    """Whether packets are forwarded in native code."""

    mode: Literal["auto", "on", "off"] = of("relay")


@dataclass(frozen=True, kw_only=True)
class PoolSettings(Section):
    """The slab pool of the relay's queues; sizes are bytes.

    Attributes:
        limit: Bytes of chunks in use; 0: no limit.
    """

    type: Literal["sync", "atom", "chan"] = of("mem-pool-type")
    factor: int = of("mem-pool-factor")
    min_chunk: int = of("mem-pool-min-chunk")
    max_chunk: int = of("mem-pool-max-chunk")
    page_size: int = of("mem-pool-page-size")
    limit: int = of("mem-pool-limit")

    def check(self) -> None:
        """See that the sizes fit together.

        Raises:
            ConfigError: they do not.
        """
        largest = f"mem-pool-max-chunk, {self.max_chunk}"
        if self.min_chunk > self.max_chunk:
            raise ConfigError(self.where("min_chunk"), f"{self.min_chunk} is over {largest}")
        if self.page_size < self.max_chunk:
            raise ConfigError(
                self.where("page_size"),
                f"{self.page_size} is below {largest}: a page has chunks",
            )
        if 0 < self.limit < self.max_chunk:
            raise ConfigError(
                self.where("limit"), f"{self.limit} is below {largest}; 0 is no limit"
            )


@dataclass(frozen=True, kw_only=True)
class LogSettings(Section):
    """The log, and the access log.

    Attributes:
        file: Empty: the console.
        access: Where the access log is; empty: there is none.
        address: What of players' addresses both have.
    """

    file: str = of("logfile")
    format: Literal["text", "json"] = of("log-format")
    level: Literal["debug", "info", "warn", "error", "critical"] = of("log-level")
    access: str = of("access-log")
    access_format: Literal["text", "json"] = of("access-log-format")
    address: Literal["full", "prefix", "none"] = of("log-address")

    def check(self) -> None:
        """See that they go together.

        Raises:
            ConfigError: they do not.
        """
        if self.access_format != "text" and not self.access:
            raise ConfigError(
                self.where("access_format"),
                "there is no access log without --access-log; give that too",
            )
        if self.access and self.file and _same_file(self.access, self.file):
            raise ConfigError(
                self.where("access"),
                f"{self.access} is the file of --logfile too; give another",
            )


def _same_file(one: str, other: str) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)


@dataclass(frozen=True, kw_only=True)
class OpsSettings(Section):
    """Where a running gateway is met: its files and its commands."""

    run_dir: str = of("run-dir")
    pid_file: str = of("pid-file")
    command_file: str = of("command-file")
    commands_module: str = of("commands-module")

    def path(self, name: str) -> str:
        """A file's path from the working directory: relative ones start at run_dir."""
        return os.path.normpath(os.path.join(self.run_dir, name))

    @property
    def pid_path(self) -> str:
        """Empty: there is none."""
        return self.path(self.pid_file) if self.pid_file else ""

    @property
    def command_path(self) -> str:
        """Empty: there is none."""
        return self.path(self.command_file) if self.command_file else ""

    @property
    def answer_path(self) -> str:
        """Where the answer to the last command is."""
        return self.path("fastway.answer")


@dataclass(frozen=True, kw_only=True)
class DrainSettings(Section):
    """How a gateway is emptied before it stops, in seconds.

    Attributes:
        delay: Before its ports are closed.
        grace: After that, before the first client is lost.
        spread: Over which the clients are lost; 0: by their number.
        timeout: In which all is over; 0: SIGTERM stops at once, and a drain that is asked for has
            `limit`.
    """

    delay: float = of("drain-delay")
    grace: float = of("drain-grace")
    spread: float = of("drain-spread")
    timeout: float = of("drain-timeout")

    @property
    def limit(self) -> float:
        """Seconds in which all is over."""
        return self.timeout or DRAIN_LIMIT

    def check(self) -> None:
        """See that the steps fit into the whole.

        Raises:
            ConfigError: they do not.
        """
        steps = self.delay + self.grace + self.spread
        if steps > self.limit:
            mend = "give more" if self.timeout else "give that more than the default"
            raise ConfigError(
                self.where("timeout"),
                f"drain-delay, drain-grace and drain-spread are {show_duration(steps)} together, "
                f"and it is {show_duration(self.limit)}; {mend}, or less of them",
            )


@dataclass(frozen=True, kw_only=True)
class MetricsSettings(Section):
    """Where figures and health are told by HTTP.

    Attributes:
        address: As the operator wrote it; empty: nowhere.
        needs_server: Nobody should be sent here while no game server is connected.
    """

    address: str = of("metrics-addr")
    needs_server: bool = of("ready-needs-server")

    def check(self) -> None:
        """See that they go together.

        Raises:
            ConfigError: they do not.
        """
        if self.needs_server and not self.address:
            raise ConfigError(
                self.where("needs_server"),
                "there is no /ready without --metrics-addr; give that too",
            )


@dataclass(frozen=True, kw_only=True)
class AdminSettings(Section):
    """Where operators see and steer it by HTTP.

    Attributes:
        addresses: As the operator wrote them; none: nowhere.
        token: What whoever asks by TCP must know; empty: it is in the file.
        hosts: Names by which it may be asked for, besides those of this machine.
    """

    addresses: tuple[str, ...] = of("admin-addr")
    token: str = field(repr=False, metadata={"option": "admin-token"})
    token_file: str = of("admin-token-file")
    hosts: tuple[str, ...] = of("admin-hosts")

    def check(self) -> None:
        """See that they go together.

        Raises:
            ConfigError: they do not.
        """
        for name in ("token", "token_file", "hosts"):
            if getattr(self, name) and not self.addresses:
                raise ConfigError(
                    self.where(name), "there is nothing to ask without --admin-addr; give that too"
                )
        if self.token and self.token_file:
            raise ConfigError(
                self.where("token"), f"{self.where('token_file')} has one too; leave one out"
            )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a gateway is told.

    Attributes:
        values: What all the others are made of.
    """

    values: Values = field(repr=False, compare=False)
    client: PortSettings
    server: ServerPortSettings
    websockets: tuple[WebSocketPortSettings, ...]
    direct: tuple[DirectPortSettings, ...]
    limits: LimitSettings
    door: DoorSettings
    control: ControlSettings
    relay: RelaySettings
    pool: PoolSettings
    drain: DrainSettings
    log: LogSettings
    ops: OpsSettings
    metrics: MetricsSettings
    admin: AdminSettings

    @property
    def ports(self) -> tuple[PortSettings, ...]:
        """All ports, in the order in which they are opened."""
        return self.client, self.server, *self.websockets, *self.direct


def make_settings(values: Values) -> Settings:
    """The settings of all values.

    Raises:
        ConfigError: two of them do not go together.
    """
    pool = _make(PoolSettings, values)
    pool.check()
    drain = _make(DrainSettings, values)
    drain.check()
    metrics = _make(MetricsSettings, values)
    metrics.check()
    admin = _make(AdminSettings, values)
    admin.check()
    log = _make(LogSettings, values)
    log.check()
    share, limit = _memory_limit(values)
    key = os.fsencode(values.values["server-auth-password"])
    server = _make(ServerPortSettings, values, "server", key=key, **_layers(values, "server"))
    if values.values["proxy-to-servers"] != Ids() and server.max_packet < MAX_HEADER + MIN_LENGTH:
        raise ConfigError(
            values.where("proxy-to-servers"),
            f"a header may not fit a packet; give --max-packet {MAX_HEADER + MIN_LENGTH} or more",
        )
    if server.identities and (server.tls is None or server.tls.client_auth != "require"):
        raise ConfigError(
            server.where("identities"),
            "without certificates no server could come; "
            "give --server-tls-client-auth require, and what goes with it, too",
        )
    client = _make(PortSettings, values, "client", **_layers(values, "client"))
    tls = client.tls
    if client.address.startswith(PLAIN):
        client = _make_plain(values, client)
    return Settings(
        values=values,
        client=client,
        server=server,
        websockets=tuple(_make_websockets(values, tls)),
        direct=tuple(_make_direct(values, port, tls) for port in values.values["direct"]),
        limits=_make(LimitSettings, values, memory_limit=limit, memory_share=share),
        door=_make(DoorSettings, values),
        control=_make(ControlSettings, values),
        relay=_make(RelaySettings, values),
        pool=pool,
        drain=drain,
        log=log,
        ops=_make(OpsSettings, values),
        metrics=metrics,
        admin=admin,
    )


def _make_plain(values: Values, client: PortSettings) -> PortSettings:
    """The client port without the TLS that other ports have."""
    secure = values.values["client-wss-addr"] or any(one.tls for one in values.values["direct"])
    if client.tls is not None and not secure:
        raise ConfigError(
            client.where("address"),
            f"{PLAIN} leaves nothing that speaks TLS; give --client-wss-addr or a direct port "
            "with tls+ too, or no certificate",
        )
    return dataclasses.replace(client, address=client.address[len(PLAIN) :], tls=None)


def _layers(values: Values, side: str) -> dict[str, Any]:
    """What a port speaks around its packets.

    Raises:
        ConfigError: two options of it do not go together.
    """
    others = f"{side}-proxy-others"
    if not values.values[f"{side}-proxy-from"] and values.values[others] != "refuse":
        raise ConfigError(
            values.where(others), f"there are no others without --{side}-proxy-from; give that too"
        )
    return {"snet": _make_snet(values, side), "tls": _make_tls(values, side)}


def _make_tls(values: Values, side: str) -> TlsSettings | None:
    """How that port speaks TLS, if its options make it."""
    tls = _make(TlsSettings, values, side)
    tls.check()
    if tls.cert or tls.directory:
        return tls
    for name, given in values.given.items():
        if name.startswith(f"{side}-tls-") and given.text != BY_NAME[name].default:
            raise ConfigError(
                given.where,
                f"there is no TLS without a certificate; give --{side}-tls-cert "
                f"or --{side}-tls-dir too",
            )
    return None


def _make_snet(values: Values, side: str) -> SnetSettings | None:
    """How that port speaks snet, if its options make it."""
    of_web = side == "client" and any(
        address.startswith(INSIDE) for name in WEB for address in values.values[name]
    )
    if values.values[f"{side}-addr"].strip().removeprefix(PLAIN).startswith("snet:"):
        for name, given in values.given.items():
            if name.startswith(f"{side}-snet-") and not (of_web and not name.endswith("-enable")):
                raise ConfigError(
                    given.where, f"--{side}-addr has snet's settings itself; give it there"
                )
        return None
    snet = _make_numbers(values, side)
    if not (snet.enable or of_web) and snet.encrypt:
        raise ConfigError(
            snet.where("encrypt"),
            f"nothing would be encrypted without --{side}-snet-enable; give that too",
        )
    return snet if snet.enable else None


def _make_numbers(values: Values, side: str, **more: Any) -> SnetSettings:
    """How streams behave on ports of that side that speak snet."""
    idle = values.values[f"{side}-idle-timeout"]
    # A dead connection is to be noticed as a cut before its client counts as idle.
    dead_after = min(DEAD_AFTER, idle * 2 / 3) if idle else DEAD_AFTER
    return _make(SnetSettings, values, side, dead_after=dead_after, **more)


def _make_snet_inside(values: Values, where: str, address: str) -> SnetSettings:
    """How a port for WebSocket speaks snet inside of it."""
    if address.startswith("snet:"):
        raise ConfigError(where, f"{INSIDE}snet: is snet inside and outside; give one of them")
    snet = _make_numbers(values, "client", enable=True)
    origins = {**snet.origins, "enable": f"{where} {INSIDE}{address}"}
    return dataclasses.replace(snet, origins=origins)


def _make_websockets(values: Values, tls: TlsSettings | None) -> tuple[WebSocketPortSettings, ...]:
    """The ports for web pages, those inside TLS last."""
    secure = values.values["client-wss-addr"]
    if secure and tls is None:
        raise ConfigError(
            values.where("client-wss-addr"),
            "there is no TLS without a certificate; "
            "give --client-tls-cert or --client-tls-dir too",
        )
    wanted: list[tuple[type[WebSocketPortSettings], str, TlsSettings | None]]
    wanted = [
        (WebSocketPortSettings, address, None) for address in values.values["client-ws-addr"]
    ]
    wanted += [(SecureWebSocketPortSettings, address, tls) for address in secure]
    if not (wanted or any(port.ws for port in values.values["direct"])):
        _check_no_websocket(values)
    _check_believed(values)
    return tuple(
        _make_web(kind, values, address, number, around)
        for number, (kind, address, around) in enumerate(wanted, 1)
    )


def _make_web(
    kind: type[WebSocketPortSettings],
    values: Values,
    address: str,
    number: int,
    tls: TlsSettings | None,
) -> WebSocketPortSettings:
    """One of them."""
    snet = None
    if address.startswith(INSIDE):
        address = address[len(INSIDE) :]
        where = values.where("client-ws-addr" if tls is None else "client-wss-addr")
        snet = _make_snet_inside(values, where, address)
    return _make(kind, values, "client", address=address, number=number, snet=snet, tls=tls)


def _check_no_websocket(values: Values) -> None:
    """See that nothing was asked for that only ports for web pages do."""
    for name in WEB_TERMS:
        option = BY_NAME[name]
        if values.values[name] != option.parse(option.default):
            raise ConfigError(
                values.where(name),
                "nothing speaks WebSocket without --client-ws-addr or --client-wss-addr; "
                "give one of them",
            )


def _check_believed(values: Values) -> None:
    """See that a header which is to be read is somebody's."""
    name = "trusted-proxies-header"
    if values.values[name] != BY_NAME[name].default and not values.values["trusted-proxies"]:
        raise ConfigError(
            values.where(name), "no proxy is believed without --trusted-proxies; give that too"
        )


def _make_direct(
    values: Values, direct: DirectPort, tls: TlsSettings | None
) -> DirectPortSettings:
    """A direct port. Of a stream only the bytes are bounded that wait."""
    where = f"{values.where('direct')}: {direct.name}"
    if direct.tls and tls is None:
        raise ConfigError(
            where,
            "there is no TLS without a certificate; "
            "give --client-tls-cert or --client-tls-dir too",
        )
    port = _make(
        DirectWebSocketPortSettings if direct.ws else DirectPortSettings,
        values,
        "client",
        address=direct.address,
        snet=None,
        tls=tls if direct.tls else None,
        direct=direct,
    )
    return dataclasses.replace(port, origins={**port.origins, "address": where})


def _memory_limit(values: Values) -> tuple[float | None, int]:
    """The share that was asked for, if it was one, and the limit in bytes."""
    limit = values.values["memory-limit"]
    if not isinstance(limit, Share):
        return None, limit
    memory = memory_size()
    if not memory and "memory-limit" in values.given:
        raise ConfigError(
            values.where("memory-limit"),
            "this system does not tell how much memory there is; give a size such as "
            f"{show_size(2**30)}, or 0 for no limit",
        )
    return limit.part, int(memory * limit.part)

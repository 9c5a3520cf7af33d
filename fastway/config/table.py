"""Every option once: its name, default, unit and meaning, in the order of a manual.

Rule: what an option is called stands here and nowhere else; help, completion, the three sources
and `Settings` are made from this table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fastway.config.values import (
    MOST_RATE,
    Parser,
    duration,
    number,
    one_of,
    parse_addresses,
    parse_allowances,
    parse_bool,
    parse_direct,
    parse_hosts,
    parse_id,
    parse_ids,
    parse_networks,
    parse_origins,
    parse_path,
    parse_protocols,
    rate,
    share_or,
    size,
)

BYTES = 2**40
"""Bytes that a queue may be allowed to hold, at most."""

COUNT = 2**31
"""Packets, connections and the like of which there may be, at most."""

GIB = 2**30


@dataclass(frozen=True)
class Option:
    """One row of the manual.

    Attributes:
        default: As an operator would write it.
        parse: Text to value; a ValueError's text tells the operator what would be right.
        unit: What the text is: size, duration, number, flag, address, path, or the words that are
            possible.
        topic: The heading under which help lists it.
        short: A letter that is another name of it.
        words: All that it may be, if that can be listed.
        many: It may be given several times; a gateway's are put together with commas.
    """

    name: str
    default: str
    parse: Parser
    unit: str
    help: str
    topic: str = "Options"
    short: str = ""
    words: tuple[str, ...] = ()
    many: bool = False

    @property
    def is_flag(self) -> bool:
        return self.parse is parse_bool

    @property
    def is_list(self) -> bool:
        """Several values, which a TOML file may give as an array."""
        return self.unit.startswith("list of ")


def flag(name: str, help: str, topic: str = "Options") -> Option:
    """An option that is off until it is named."""
    return Option(name, "false", parse_bool, "flag", help, topic)


def choice(name: str, default: str, words: tuple[str, ...], help: str, topic: str) -> Option:
    """An option that is one of some words."""
    unit = f"{', '.join(words[:-1])} or {words[-1]}"
    return Option(name, default, one_of(*words), unit, help, topic, words=words)


def _addresses() -> Iterator[Option]:
    topic = "Ports"
    where = "port 0 = any free port"
    yield Option("client-addr", ":0", str, "address", f"where clients connect; {where}", topic)
    yield Option(
        "server-addr", ":0", str, "address", f"where game servers connect; {where}", topic
    )
    yield Option(
        "server-auth-password",
        "",
        str,
        "text",
        "the key that servers prove to hold (also --server-auth-key)",
        topic,
    )
    yield flag(
        "allow-empty-key",
        "accept servers without a key although their port is not on loopback only",
        topic,
    )
    yield flag("reuse-port", "SO_REUSEPORT: several gateways may share the ports", topic)


def _side(side: str, topic: str, read: str, packets: str, queue: str) -> Iterator[Option]:
    """What clients and game servers have alike."""
    yield Option(
        f"max-{side}s",
        "0",
        number(0, COUNT),
        "number",
        f"connections on the {side} port at a time; 0 = as many as files may be open",
        topic,
    )
    yield Option(
        f"{side}-idle-timeout",
        "30s",
        duration(0.1, zero="never"),
        "duration",
        f"a {side} that sends no complete packet for this long is lost; 0 = never",
        topic,
    )
    yield Option(
        f"{side}-send-chan-size",
        packets,
        number(1, COUNT),
        "number",
        f"packets that may wait for one {side}",
        topic,
    )
    yield Option(
        f"{side}-send-buffer",
        queue,
        size(1, BYTES),
        "size",
        f"bytes that may wait for one {side}",
        topic,
    )
    yield Option(
        f"{side}-buffer-size",
        read,
        size(64, 16 * 2**20),
        "size",
        f"bytes taken from a {side}'s socket in one read",
        topic,
    )


def _clients() -> Iterator[Option]:
    topic = "Clients"
    yield Option(
        "client-max-conn",
        "16",
        number(0, COUNT),
        "number",
        "virtual connections with which a client may still dial another; 0 = no limit",
        topic,
    )
    yield Option(
        "client-max-total",
        "1024",
        number(0, COUNT),
        "number",
        "virtual connections with which a client may still be dialled; 0 = no limit",
        topic,
    )
    yield from _side("client", topic, read="2K", packets="1000", queue="4M")
    no_more = "; over it the client is not read from for a while; 0 = no limit"
    yield Option(
        "client-packet-rate",
        "0",
        rate(0.01, MOST_RATE, zero="no limit"),
        "rate",
        "packets a second of one client" + no_more,
        topic,
    )
    yield Option(
        "client-byte-rate",
        "0",
        size(64, BYTES, zero="no limit"),
        "size",
        "bytes a second of one client" + no_more,
        topic,
    )
    yield Option(
        "client-dial-rate",
        "0",
        rate(0.01, MOST_RATE, zero="no limit"),
        "rate",
        "dials a second of one client; over it a dial is refused; 0 = no limit",
        topic,
    )


def _servers() -> Iterator[Option]:
    topic = "Game servers"
    yield choice(
        "server-id-conflict",
        "replace",
        ("replace", "evict", "reject"),
        "a second server with an id in use: it gets the new dials, the older is lost, "
        "or it is lost",
        topic,
    )
    yield from _side("server", topic, read="64K", packets="100000", queue="64M")
    yield Option(
        "server-max-handshakes",
        "1000",
        number(1, COUNT),
        "number",
        "servers that have not proved the key yet; past that the oldest is dropped",
        topic,
    )


def _both() -> Iterator[Option]:
    topic = "Packets and limits"
    yield Option(
        "max-packet",
        "512K",
        size(16, GIB),
        "size",
        "the largest length field of a packet: 4 bytes of id and the message",
        topic,
    )
    yield Option(
        "write-timeout",
        "30s",
        duration(0.1, zero="never"),
        "duration",
        "an end that takes nothing for this long while data waits is lost; 0 = never",
        topic,
    )
    yield Option(
        "memory-limit",
        "25%",
        share_or(size(2**20, BYTES, zero="no limit")),
        "size or share",
        "bytes that may wait for all links together, or a share of the machine's or container's "
        "memory; over it the client that holds most is lost; 0 = no limit",
        topic,
    )
    yield Option(
        "keep-files",
        "64",
        number(0, 2**20),
        "number",
        "open files kept back from clients, for game servers and the operator",
        topic,
    )
    yield choice(
        "relay",
        "auto",
        ("auto", "on", "off"),
        "forward packets in native code; auto: where it is built and runs",
        topic,
    )


def _limits() -> Iterator[Option]:
    topic = "Limits: who may connect, and how often (docs/edge.md)"
    yield Option(
        "limit-connections",
        "0",
        number(0, COUNT),
        "number",
        "connections of clients at a time, on all ports; 0 = no limit",
        topic,
    )
    yield Option(
        "limit-rate",
        "0",
        rate(0.01, MOST_RATE, zero="no limit"),
        "rate",
        "connections of clients a second, on all ports; over it those who come wait; 0 = no limit",
        topic,
    )
    yield Option(
        "limit-tls-rate",
        "300",
        rate(0.01, MOST_RATE, zero="no limit"),
        "rate",
        "TLS handshakes a second on each port; over it those who come wait; 0 = no limit",
        topic,
    )
    yield Option(
        "limit-handshakes",
        "1000",
        number(1, COUNT),
        "number",
        "connections on a client port that may be at what comes before they talk; past that the "
        "oldest of them is dropped",
        topic,
    )
    yield Option(
        "limit-address-connections",
        "0",
        number(0, COUNT),
        "number",
        "connections at a time of one address; 0 = no limit",
        topic,
    )
    yield Option(
        "limit-address-rate",
        "0",
        rate(0.01, MOST_RATE, zero="no limit"),
        "rate",
        "connections a second of one address; 0 = no limit",
        topic,
    )
    yield Option(
        "limit-address-burst",
        "40",
        number(1, int(MOST_RATE)),
        "number",
        "connections of one address that may come at once",
        topic,
    )
    yield Option(
        "limit-ipv6-prefix",
        "64",
        number(16, 128),
        "number",
        "bits of an IPv6 address that are one address; a /48 may have 8 times as much as one",
        topic,
    )
    yield Option(
        "limit-exempt",
        "",
        parse_networks,
        "list of networks",
        "networks (or unix) that are not counted",
        topic,
    )
    yield Option(
        "limit-allow",
        "",
        parse_allowances,
        "list of networks with values",
        "networks whose addresses have values of their own, as 100.64.0.0/10=2000:200:400: "
        "connections, rate and burst of one address",
        topic,
    )
    yield Option(
        "limit-table",
        "100000",
        number(16, 1_000_000),
        "number",
        "addresses that are told apart; when all are in use, others share one entry",
        topic,
    )
    yield flag(
        "limit-dry-run", "count and log what limits would refuse, and refuse nothing", topic
    )


def _snet() -> Iterator[Option]:
    topic = "snet: connections that survive broken networks (docs/snet.md)"
    for side, buffer, waiting in (("client", "32K", "10000"), ("server", "1M", "1000")):
        yield flag(f"{side}-snet-enable", f"speak snet on the {side} port", topic)
        yield flag(
            f"{side}-snet-encrypt",
            f"encrypt snet on the {side} port; weak, see docs/snet.md",
            topic,
        )
        yield Option(
            f"{side}-snet-buffer",
            buffer,
            size(1, GIB),
            "size",
            "bytes kept for one connection, to be sent again",
            topic,
        )
        yield Option(
            f"{side}-snet-init-timeout",
            "10s",
            duration(0.1),
            "duration",
            "how long an snet handshake may take",
            topic,
        )
        yield Option(
            f"{side}-snet-wait-timeout",
            "60s",
            duration(0.1),
            "duration",
            "how long a cut connection may take to come back",
            topic,
        )
        yield Option(
            f"{side}-snet-max-waiting",
            waiting,
            number(1, COUNT),
            "number",
            "connections that may be cut at a time; past that the one cut longest is lost",
            topic,
        )
        yield Option(
            f"{side}-snet-max-handshakes",
            "1000",
            number(1, COUNT),
            "number",
            "snet handshakes at a time; past that the oldest is dropped",
            topic,
        )


def _tls() -> Iterator[Option]:
    topic = "TLS: encryption, and certificates of both sides (docs/tls.md)"
    for side in ("client", "server"):
        yield Option(
            f"{side}-tls-cert",
            "",
            str,
            "path",
            f"speak TLS on the {side} port: a PEM file with a certificate and those behind it",
            topic,
        )
        yield Option(
            f"{side}-tls-key",
            "",
            str,
            "path",
            "its private key in PEM; empty = in the same file",
            topic,
        )
        yield Option(
            f"{side}-tls-dir",
            "",
            str,
            "path",
            f"speak TLS on the {side} port: a directory with a certificate for each name, as "
            "NAME/fullchain.pem and NAME/privkey.pem, or NAME.pem and NAME.key",
            topic,
        )
        yield Option(
            f"{side}-tls-client-ca",
            "",
            str,
            "path",
            f"a PEM file with the authorities that {side}s' certificates must be of",
            topic,
        )
        yield choice(
            f"{side}-tls-client-auth",
            "none",
            ("none", "optional", "require"),
            f"whether {side}s show a certificate: not asked, may, or must",
            topic,
        )
        yield choice(
            f"{side}-tls-min-version", "1.2", ("1.2", "1.3"), "the least version of TLS", topic
        )
        yield Option(
            f"{side}-tls-alpn",
            "fastway/1",
            parse_protocols,
            "list of protocols",
            "what is spoken inside (ALPN), the first choice first"
            + ("; by WebSocket always http/1.1" if side == "client" else ""),
            topic,
        )
    yield Option(
        "server-identities",
        "",
        str,
        "path",
        "a file that says which server ids each server's certificate allows; empty = any",
        topic,
    )


def _proxies() -> Iterator[Option]:
    topic = "Proxies: PROXY headers tell who is behind one (docs/edge.md)"
    for side in ("client", "server"):
        yield Option(
            f"{side}-proxy-from",
            "",
            parse_networks,
            "list of networks",
            f"networks (or unix) of the proxies that must send a PROXY header to {side} ports; "
            "empty = none is read",
            topic,
        )
        yield choice(
            f"{side}-proxy-others",
            "refuse",
            ("refuse", "direct"),
            f"who comes to {side} ports from elsewhere is refused, or needs no header",
            topic,
        )


def _websocket() -> Iterator[Option]:
    topic = "WebSocket: clients that are web pages (docs/websocket.md)"
    yield Option(
        "client-ws-addr",
        "",
        parse_addresses,
        "list of addresses",
        "where clients connect by WebSocket; snet+ before one: with snet inside; empty = nowhere",
        topic,
    )
    yield Option(
        "client-wss-addr",
        "",
        parse_addresses,
        "list of addresses",
        "where they connect by WebSocket inside TLS, with client-tls-*; empty = nowhere",
        topic,
    )
    yield Option(
        "client-ws-path", "/", parse_path, "path of a URL", "what they must ask for", topic
    )
    yield Option(
        "client-ws-origins",
        "same",
        parse_origins,
        "list of origins",
        "whose pages may connect: origins such as https://game.example, same = pages of the host "
        "that they connect to, * = all",
        topic,
    )
    yield Option(
        "trusted-proxies",
        "",
        parse_networks,
        "list of networks",
        "networks (or unix) of the HTTP proxies that are believed whom a request is from",
        topic,
    )
    yield choice(
        "trusted-proxies-header",
        "x-forwarded-for",
        ("x-forwarded-for", "forwarded"),
        "the header in which they say so; the other one is not read",
        topic,
    )


def _direct() -> Iterator[Option]:
    topic = "Direct ports: clients that speak another protocol (docs/edge.md)"
    yield Option(
        "direct",
        "",
        parse_direct,
        "list of ports",
        "NAME=ADDRESS->SERVER_ID, any number of them: what connects there is dialled to that "
        "server, and its bytes travel as messages; tls+, ws+ or wss+ before ADDRESS",
        topic,
        many=True,
    )
    yield Option(
        "direct-send-buffer",
        "64M",
        size(1, BYTES),
        "size",
        "bytes that may wait for one connection of a direct port",
        topic,
    )


def _control() -> Iterator[Option]:
    topic = "Control connections: what servers ask the gateway itself (docs/control.md)"
    yield Option(
        "kick-servers",
        "",
        parse_ids,
        "list of ids",
        "ids and ranges of servers that may kick any client, not only those that they serve",
        topic,
    )
    yield Option(
        "client-service-id",
        "",
        parse_id,
        "id",
        "what clients dial to be told that the gateway will close; empty = nothing",
        topic,
    )
    yield Option(
        "groups", "10000", number(1, COUNT), "number", "groups that one server may have", topic
    )
    yield Option(
        "group-members",
        "100000",
        number(1, COUNT),
        "number",
        "virtual connections that one group may have; all of a server four times as many",
        topic,
    )
    yield Option(
        "proxy-to-servers",
        "",
        parse_ids,
        "list of ids",
        "ids and ranges of servers whose connections from clients begin with a PROXY header",
        topic,
    )
    yield Option(
        "control-queue",
        "1000",
        number(2, COUNT),
        "number",
        "messages of the gateway's own that may wait for one end; past that it is not told all",
        topic,
    )


def _pool() -> Iterator[Option]:
    topic = "The relay's memory pool"
    yield choice(
        "mem-pool-type",
        "atom",
        ("sync", "atom", "chan"),
        "kind of slab pool from which the relay's queues are made",
        topic,
    )
    yield Option(
        "mem-pool-factor",
        "2",
        number(2, 1024),
        "number",
        "growth from one chunk size to the next",
        topic,
    )
    for name, default, help in (
        ("min-chunk", "64B", "smallest chunk"),
        ("max-chunk", "64K", "largest chunk"),
        ("page-size", "1M", "bytes of one slab"),
    ):
        yield Option(f"mem-pool-{name}", default, size(1, GIB), "size", help, topic)
    yield Option(
        "mem-pool-limit",
        "0",
        size(1, BYTES, zero="no limit"),
        "size",
        "bytes of chunks in use; over it an end that needs one is lost; 0 = no limit",
        topic,
    )


def _drain() -> Iterator[Option]:
    topic = "Drain: a stop without an outage (docs/operations.md)"
    yield Option(
        "drain-timeout",
        "0",
        duration(1, zero="a stop at once"),
        "duration",
        "SIGTERM empties the gateway first, within this time; 0 = it stops at once, and the "
        "command drain has 2m",
        topic,
    )
    yield Option(
        "drain-delay",
        "5s",
        duration(0),
        "duration",
        "how long it goes on listening, so that balancers notice",
        topic,
    )
    yield Option(
        "drain-grace",
        "10s",
        duration(0),
        "duration",
        "how long clients are left alone after that",
        topic,
    )
    yield Option(
        "drain-spread",
        "0",
        duration(0.1, zero="by their number"),
        "duration",
        "over how long they are lost then, one by one; 0 = 30s, or 3ms for each if that is more",
        topic,
    )


def _files() -> Iterator[Option]:
    topic = "Files and commands"
    yield Option(
        "run-dir", ".", str, "path", "where the pid file, command file and reports are", topic
    )
    yield Option(
        "pid-file", "fastway.pid", str, "path", "holds the process id; empty = none", topic
    )
    yield Option(
        "command-file", "fastway.cmd", str, "path", "what SIGUSR1 reads; empty = none", topic
    )
    yield Option(
        "commands-module",
        "",
        str,
        "python module",
        "its register(commands) adds commands of your own",
        topic,
    )


def _log() -> Iterator[Option]:
    topic = "Log"
    yield Option(
        "logfile",
        "",
        str,
        "path",
        "log there instead of the console; SIGHUP reopens it (also --log-file)",
        topic,
    )
    yield choice("log-format", "text", ("text", "json"), "one line an event", topic)
    yield choice(
        "log-level",
        "info",
        ("debug", "info", "warn", "error", "critical"),
        "the least level that is logged",
        topic,
    )
    yield Option(
        "access-log",
        "",
        str,
        "path",
        "write one line there at the end of each connection (docs/logs.md); SIGHUP reopens it; "
        "empty = none",
        topic,
    )
    yield choice("access-log-format", "text", ("text", "json"), "how those lines look", topic)
    yield choice(
        "log-address",
        "full",
        ("full", "prefix", "none"),
        "players' addresses in both logs: whole, as /24 (IPv4) and /48 (IPv6), or not at all",
        topic,
    )


def _metrics() -> Iterator[Option]:
    topic = "Metrics and health: for Prometheus, probes and balancers (docs/metrics.md)"
    yield Option(
        "metrics-addr",
        "",
        str,
        "address",
        "where /metrics, /live and /ready are, by HTTP; empty = nowhere",
        topic,
    )
    yield flag("ready-needs-server", "/ready says no while no game server is connected", topic)


def _admin() -> Iterator[Option]:
    topic = "Admin: a page and an API to see and steer it (docs/admin.md)"
    yield Option(
        "admin-addr",
        "",
        parse_addresses,
        "list of addresses",
        "where they are, by HTTP: unix:fastway.admin, a path in run-dir for its user alone, or "
        "host:port on loopback, with admin-token; empty = nowhere",
        topic,
    )
    yield Option(
        "admin-token",
        "",
        str,
        "text",
        "what whoever asks by host:port must know, 16 characters or more; better in a file",
        topic,
    )
    yield Option("admin-token-file", "", str, "path", "a file with that", topic)
    yield Option(
        "admin-hosts",
        "",
        parse_hosts,
        "list of hosts",
        "names by which it is asked, besides localhost, 127.0.0.1 and [::1]; others are refused",
        topic,
    )


OPTIONS: list[Option] = [
    *_addresses(),
    *_clients(),
    *_servers(),
    *_both(),
    *_limits(),
    *_snet(),
    *_tls(),
    *_websocket(),
    *_proxies(),
    *_direct(),
    *_control(),
    *_pool(),
    *_drain(),
    *_files(),
    *_log(),
    *_metrics(),
    *_admin(),
]

CONFIG = Option("config", "", str, "path", "a TOML file with options", "Configuration", short="c")
"""Not an option of its own: where options are."""

ALIASES = {"server-auth-key": "server-auth-password", "log-file": "logfile"}

BY_NAME = {option.name: option for option in OPTIONS}

SECRETS = ("server-auth-password", "admin-token")
"""Options whose values are shown to nobody."""


def resolve_name(name: str, options: Iterable[Option] = OPTIONS) -> Option | None:
    """The option called `name`: kebab-case or snake_case, in any case, aliases too."""
    name = name.strip().replace("_", "-").lower()
    name = ALIASES.get(name, name)
    return next((option for option in options if option.name == name), None)

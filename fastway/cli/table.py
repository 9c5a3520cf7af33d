"""Every subcommand once: its name, a few words, its options, and where its code is.

Rule: help, completion and the dispatch are made from this table. Nothing that runs is imported
here: `fastway --help` is quick.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import ClassVar, cast

from fastway.config.settings import Given
from fastway.config.sources import GatewayOptions, TableOptions
from fastway.config.table import BY_NAME, CONFIG, COUNT, Option, choice, flag
from fastway.config.values import duration, number
from fastway.errors import ConfigError

CLIENT_ADDR = "127.0.0.1:9010"
SERVER_ADDR = "127.0.0.1:9020"
WEB_ADDR = "127.0.0.1:9080"
PAGE_ADDR = "127.0.0.1:9081"
ADMIN_ADDR = "127.0.0.1:9082"
ADMIN_SOCKET = "unix:fastway.admin"

MAX_ID = 0xFFFFFFFF

GATEWAY = Option(
    "gateway",
    CLIENT_ADDR,
    str,
    "address",
    "the gateway's client port: host:port, ws://host:port/path, wss://host/path, or an endpoint "
    "string",
    short="g",
)


class RunOptions(GatewayOptions):
    """`fastway run`, and `fastway` alone."""


class DemoOptions(GatewayOptions):
    """`fastway demo`: on loopback if not told otherwise."""

    defaults_here: ClassVar[Mapping[str, str]] = {
        "client-addr": CLIENT_ADDR,
        "server-addr": SERVER_ADDR,
        "client-ws-addr": WEB_ADDR,
        "admin-addr": f"{ADMIN_SOCKET},{ADMIN_ADDR}",
    }
    table = (
        *GatewayOptions.table,
        Option(
            "page-addr",
            PAGE_ADDR,
            str,
            "address",
            "where browsers get the page, host:port; empty = nowhere",
            "The demo",
        ),
    )
    longdesc = (
        "Runs a gateway and, behind it, a game server with an echo and a small chat room. "
        "fastway play, in another terminal, talks to it, and so does its page, in a browser."
    )

    def evaluate(self) -> None:
        super().evaluate()
        admin = self.settings.admin
        if not (admin.token or admin.token_file):
            # Of no use to anybody else, and gone with it.
            told = replace(admin, token=secrets.token_hex(16))
            self.settings = replace(self.settings, admin=told)


class CheckOptions(GatewayOptions):
    """`fastway check`: the file is an operand too."""

    max_operands = 1
    longdesc = (
        "Reads a configuration as fastway run would, and says what a gateway would do with it: "
        "its ports, the path of packets, its limits, where files go, and what is in its way "
        "today. Nothing is started. FILE is what run is given as --config; without it the options "
        "and the environment count alone. fastway help run says how values are written."
    )

    def evaluate(self) -> None:
        if self.operands:
            self.given[CONFIG.name] = Given("FILE", self.operands[0])
        super().evaluate()


class RemoteOptions(GatewayOptions):
    """What finds a running gateway: its own options say where its files are."""

    table = (
        CONFIG,
        *(BY_NAME[name] for name in ("run-dir", "pid-file", "command-file")),
        *(BY_NAME[name] for name in ("admin-addr", "admin-token", "admin-token-file")),
        Option(
            "pid",
            "0",
            number(0, COUNT),
            "number",
            "the gateway's process id, where it has no pid file (1 in a container): it is asked "
            "by the command file then; 0 = find it",
            "The gateway",
        ),
        Option(
            "timeout",
            "10s",
            duration(0.1),
            "duration",
            "how long to wait for the answer",
            "The gateway",
            short="t",
        ),
    )
    longdesc = (
        "Asks a running gateway over its admin port, unix:fastway.admin in run-dir if no other is "
        "given; one that has none by its command file and SIGUSR1. Run it where the gateway was "
        "started, or say where its files are; as the gateway's user or as root."
    )


class ShowOptions(RemoteOptions):
    """`fastway status` and `links`."""

    table = (*RemoteOptions.table, flag("json", "as JSON, as the admin API has it"))


class TopOptions(RemoteOptions):
    """`fastway top`."""

    table = (
        *RemoteOptions.table,
        Option("interval", "2s", duration(0.5), "duration", "between one look and the next"),
        flag("once", "one picture, without colours, and no more"),
    )
    longdesc = (
        "Shows what a gateway does, live: rates, who is connected, the busiest links. q or Ctrl-C "
        "ends it. It needs the admin port."
    )


class LimitsOptions(RemoteOptions):
    """`fastway limits [NAME=VALUE...]`."""

    max_operands = 32
    longdesc = (
        "Changes limits until the next start, and shows all that hold; names as in "
        f"docs/options.md, also without their limit-. {RemoteOptions.longdesc}"
    )


class LevelOptions(RemoteOptions):
    """`fastway loglevel LEVEL`."""

    max_operands = 1
    longdesc = f"Changes what is logged, until the next start. {RemoteOptions.longdesc}"


class KickOptions(RemoteOptions):
    """`fastway kick client|server ID`."""

    max_operands = 2
    table = (
        *RemoteOptions.table,
        Option("code", "0", number(0, 4999), "number", "close code for a WebSocket client"),
        Option("reason", "", str, "text", "what it is told, and the log"),
    )
    longdesc = f"Loses a client, or all servers of an id. {RemoteOptions.longdesc}"


class DrainOptions(RemoteOptions):
    """`fastway drain [again]`."""

    max_operands = 1
    longdesc = (
        "Empties a gateway step by step, then stops it; status says how far it is. With again, "
        f"game servers are told that a successor listens there. {RemoteOptions.longdesc}"
    )


class ClientOptions(TableOptions):
    """`fastway client` and `fastway play`."""

    table = (
        GATEWAY,
        Option("dial", "1", number(0, MAX_ID), "id", "the server id to dial", short="d"),
        Option(
            "timeout", "10s", duration(0.001), "duration", "how long the dial may take", short="t"
        ),
        flag("hex", "lines are hexadecimal bytes, both ways"),
        flag("json", "lines are JSON: what is typed is checked, what comes is one line each"),
    )
    longdesc = (
        "Dials a game server through a gateway. Each line typed is a message; each message that "
        "comes is a line. At the end of the input it waits until nothing came for a second."
    )


class PingOptions(TableOptions):
    """`fastway ping`."""

    table = (
        GATEWAY,
        Option("count", "0", number(0, COUNT), "number", "how many; 0 = until Ctrl-C", short="c"),
        Option("interval", "1s", duration(0), "duration", "between one and the next", short="i"),
    )
    longdesc = "Measures round trips to a gateway; Ctrl-C ends it with a summary."


class EchoOptions(TableOptions):
    """`fastway serve-echo`."""

    table = (
        Option(
            "gateway",
            SERVER_ADDR,
            str,
            "address",
            "a gateway's server port: host:port, a ws:// or wss:// URL, or an endpoint string; "
            "may be given several times",
            short="g",
            many=True,
        ),
        Option("id", "1", number(0, MAX_ID), "id", "the server id"),
        Option(
            "key",
            "",
            str,
            "text",
            "the server key; better in FASTWAY_SERVER_AUTH_PASSWORD",
            short="k",
        ),
    )
    longdesc = (
        "A game server that sends every message back, over one or several gateways. It connects "
        "again when a gateway goes, until a signal stops it; the exit status is then 0 if it was "
        "ever logged in, and 1 if not."
    )


class ServeOptions(TableOptions):
    """`fastway serve`."""

    max_operands = 1
    table = (
        Option(
            "listen",
            "",
            str,
            "DIALECT=address",
            "what to speak and where: pomelo=:3250, pomelo=ws:3251:path=/nano; may be given "
            "several times",
            short="l",
            many=True,
        ),
        Option(
            "cluster",
            "",
            str,
            "MODULE:NAME",
            "the node of nano's cluster to join with, before anything listens: a NanoMember, "
            "NanoGate or NanoMaster of this application",
        ),
        Option(
            "metrics-addr",
            "",
            str,
            "address",
            "/metrics, /live and /ready by HTTP; empty: nowhere",
        ),
        Option("push-addr", "", str, "address", "where pushes are taken by HTTP; empty: nowhere"),
        Option(
            "push-token",
            "",
            str,
            "text",
            "what they must prove; better in FASTWAY_PUSH_TOKEN",
        ),
        Option(
            "drain",
            "30s",
            duration(0),
            "duration",
            "how long handlers that run may take at the end",
        ),
        flag("asyncio", "run on Twisted's asyncio reactor, as App(tasks=True) needs"),
        choice(
            "log-level",
            "warn",
            ("debug", "info", "warn", "error", "critical"),
            "the least level that is logged; info says who is lost, and why",
            "Options",
        ),
    )
    longdesc = (
        "Runs an application of fastway.app until a signal stops it: then it takes nobody new, "
        "lets what runs come to its end, and closes all sessions; a second Ctrl-C ends it at "
        "once. APP is an App of that module, which may lie in the working directory; "
        "MODULE:NAME() is what a function makes. "
        "DIALECT is pomelo, hotpot, teleport, teleport2, or one of yours as MODULE:NAME. "
        "Addresses: host:port, :port, [v6]:port, systemd:NAME for a socket that systemd opened, "
        "or an endpoint string such as ws:3251:path=/nano."
    )


class TalkOptions(TableOptions):
    """`fastway talk`."""

    max_operands = 1
    table = (
        Option("user", "", str, "JSON", "what to say of oneself at the handshake", short="u"),
        Option("timeout", "10s", duration(0.001), "duration", "how long an answer may take"),
    )
    longdesc = (
        "Is a client of a game server, by hand. Each line typed is ROUTE JSON, which asks, or "
        "!ROUTE JSON, which only says, as both do in a dialect without requests; what comes is a "
        "line each: = is an answer, < a message. "
        "PEER is DIALECT=ADDRESS: pomelo=127.0.0.1:3250, pomelo=ws://127.0.0.1:3251/nano. "
        "DIALECT is pomelo, hotpot, teleport, teleport2, or one of yours as MODULE:NAME."
    )


class DescribeOptions(TableOptions):
    """`fastway describe`."""

    max_operands = 1
    table = (
        Option(
            "dialect",
            "",
            str,
            "DIALECT",
            "whose names and codes to write: pomelo, teleport, teleport2, hotpot, or MODULE:NAME; "
            "empty: the application's own",
            short="d",
        ),
        flag("types", "the types alone, as one JSON Schema, which generators read"),
        Option("output", "", str, "path", "the file; empty: standard output", short="o"),
        Option("title", "", str, "text", "of the document; empty: MODULE:APP"),
        Option("api-version", "0", str, "text", "of the document"),
    )
    longdesc = (
        "Writes what an application of fastway.app takes and sends as AsyncAPI 3, with a JSON "
        "Schema of every message, so that clients in other languages have its types. Nothing "
        "runs. APP is an App of that module; MODULE:NAME() is what a function makes."
    )


class CompletionOptions(TableOptions):
    """`fastway completion bash|zsh`."""

    max_operands = 1
    longdesc = (
        "Prints a script that lets a shell complete fastway's commands and options. "
        'bash: eval "$(fastway completion bash)" in ~/.bashrc. '
        "zsh: fastway completion zsh > _fastway, in a directory of $fpath."
    )


class HelpOptions(TableOptions):
    """`fastway help [COMMAND]`."""

    max_operands = 1
    longdesc = "Prints what a command does and its options; without one, what commands there are."


class VersionOptions(TableOptions):
    """`fastway version`."""

    longdesc = "Prints the version."


Run = Callable[[TableOptions], int]


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        words: What it does, in a few words.
        options: The class of its options.
        place: `module:function`; called with the parsed options, it returns the exit status.
        topic: The heading under which the overview lists it.
        operands: As help shows them.
        choices: What each operand may be, if that can be listed.
    """

    name: str
    words: str
    options: type[TableOptions]
    place: str
    topic: str
    operands: str = ""
    choices: tuple[tuple[str, ...], ...] = ()

    @property
    def title(self) -> str:
        return f"fastway {self.name}"

    def make_options(self) -> TableOptions:
        options = self.options()
        options.title = self.title
        synopsis = f"Usage: {self.title} {self.operands} [options]"
        options.synopsis = " ".join(synopsis.split())  # type: ignore[attr-defined]
        return options

    def load(self) -> Run:
        """The function behind it."""
        module, _, function = self.place.partition(":")
        return cast(Run, getattr(import_module(module), function))


_GATEWAY = "A gateway"
_RUNNING = "A running gateway"
_TOOLS = "Clients and game servers to try one with"
_APPS = "Game servers written with fastway.app"
_MORE = "More"

COMMANDS = [
    Command("run", "run a gateway, until Ctrl-C", RunOptions, "fastway.cli.gateway:run", _GATEWAY),
    Command(
        "check",
        "say what a gateway would do with a configuration",
        CheckOptions,
        "fastway.cli.gateway:check",
        _GATEWAY,
        "[FILE]",
    ),
    Command(
        "demo",
        "run a gateway on loopback with a demo game server behind it",
        DemoOptions,
        "fastway.cli.gateway:demo",
        _GATEWAY,
    ),
    Command(
        "status",
        "print what it does: links, counters, memory",
        ShowOptions,
        "fastway.cli.remote:status",
        _RUNNING,
    ),
    Command("top", "watch it, live", TopOptions, "fastway.cli.top:top", _RUNNING),
    Command("links", "print every link of it", ShowOptions, "fastway.cli.remote:links", _RUNNING),
    Command(
        "kick",
        "make it lose a link",
        KickOptions,
        "fastway.cli.remote:kick",
        _RUNNING,
        "client|server ID",
        (("client", "server"),),
    ),
    Command(
        "drain",
        "empty it without an outage, then stop it",
        DrainOptions,
        "fastway.cli.remote:drain",
        _RUNNING,
        "[again]",
        (("again",),),
    ),
    Command(
        "undrain",
        "take that back, while its ports are open",
        RemoteOptions,
        "fastway.cli.remote:undrain",
        _RUNNING,
    ),
    Command(
        "limits",
        "change limits while it runs, and show them",
        LimitsOptions,
        "fastway.cli.remote:limits",
        _RUNNING,
        "[NAME=VALUE ...]",
    ),
    Command(
        "loglevel",
        "change what it logs",
        LevelOptions,
        "fastway.cli.remote:loglevel",
        _RUNNING,
        "LEVEL",
        (("debug", "info", "warn", "error", "critical"),),
    ),
    Command(
        "reload",
        "have it read its files again, as SIGHUP does",
        RemoteOptions,
        "fastway.cli.remote:reload",
        _RUNNING,
    ),
    Command(
        "play",
        "type lines to the demo's game server",
        ClientOptions,
        "fastway.cli.tools:play",
        _TOOLS,
    ),
    Command(
        "client",
        "type lines to a game server, for scripts too",
        ClientOptions,
        "fastway.cli.tools:client",
        _TOOLS,
    ),
    Command(
        "ping", "measure round trips to a gateway", PingOptions, "fastway.cli.tools:ping", _TOOLS
    ),
    Command(
        "serve-echo",
        "be a game server that sends everything back",
        EchoOptions,
        "fastway.cli.tools:serve_echo",
        _TOOLS,
    ),
    Command(
        "serve", "run an application", ServeOptions, "fastway.cli.app:serve", _APPS, "MODULE:APP"
    ),
    Command(
        "talk", "be a client of one, by hand", TalkOptions, "fastway.cli.app:talk", _APPS, "PEER"
    ),
    Command(
        "describe",
        "write down its messages, for other languages",
        DescribeOptions,
        "fastway.cli.app:describe",
        _APPS,
        "MODULE:APP",
    ),
    Command(
        "completion",
        "print a completion script for a shell",
        CompletionOptions,
        "fastway.cli.completion:completion",
        _MORE,
        "bash|zsh",
        (("bash", "zsh"),),
    ),
    Command("help", "print this, or the help of a command", HelpOptions, "", _MORE, "[COMMAND]"),
    Command("version", "print the version", VersionOptions, "", _MORE),
]

BY_COMMAND = {command.name: command for command in COMMANDS}


def operand(options: TableOptions, place: int, name: str) -> str:
    """An operand that must be there.

    Raises:
        ConfigError: it is not.
    """
    if len(options.operands) <= place:
        raise ConfigError(name, "it is missing; --help shows how")
    return options.operands[place]

"""Every option: its name, unit, default and meaning, and the three places it can come from.

Rule: the command line wins, then the environment (`FASTWAY_CLIENT_ADDR`), then the TOML file.
Whatever cannot be used ends in a `ConfigError` that names the option as it was written there.
Nothing of the gateway is imported here: `twistd --help` reads this module.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from twisted.python.usage import Options, UsageError

from fastway.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

_SIZE = re.compile(r"(\d+)\s*([KMG]?)i?B?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|us|h|m|s)")
_DURATION_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 0.000001}
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def parse_size(text: str) -> int:
    """Bytes: `512K`, `1M`, `64B` or plain bytes (spec section 5).

    Raises:
        ValueError: it is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: give bytes, or a number with K, M or G")
    return int(match[1]) * _SIZE_UNITS[match[2].upper()]


def parse_duration(text: str) -> float:
    """Seconds: `30s`, `1m30s`, `500ms` or plain seconds (spec section 5).

    Raises:
        ValueError: it is not a duration.
    """
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
        text += "s"
    pieces = _DURATION.findall(text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        raise ValueError(f"{text!r} is not a duration: give seconds, or 30s, 1m30s, 500ms")
    seconds = float(sum(float(number) * _DURATION_UNITS[unit] for number, unit in pieces))
    if seconds == float("inf"):
        raise ValueError(f"{text[:20]!r}... is too long a duration")
    return seconds


def parse_bool(text: str) -> bool:
    """`true`, `yes`, `on`, `1`, or their opposites.

    Raises:
        ValueError: it is neither.
    """
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def parse_int(text: str) -> int:
    """A whole number.

    Raises:
        ValueError: it is not one.
    """
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def at_least(parse: Callable[[str], Any], low: float, zero: str = "") -> Callable[[str], Any]:
    """A parser that also wants a value of at least `low`, or 0 where `zero` says what 0 means."""

    def checked(text: str) -> Any:
        value = parse(text)
        if value < low and not (zero and value == 0):
            also = f", or 0 for {zero}" if zero else ""
            raise ValueError(f"{text!r} is too small: it must be at least {low:g}{also}")
        return value

    return checked


def one_of(*words: str) -> Callable[[str], str]:
    """A parser that takes one of `words`."""

    def checked(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(words)}")
        return text

    return checked


@dataclass(frozen=True)
class Option:
    """One row of the manual.

    Attributes:
        default: As an operator would write it.
        parse: Text to value; a ValueError's text tells the operator what would be right.
        unit: What the text is: size, duration, number, flag, or the words that are possible.
    """

    name: str
    default: str
    parse: Callable[[str], Any]
    unit: str
    help: str

    @property
    def is_flag(self) -> bool:
        return self.parse is parse_bool


def _port_options(side: str, queue: str, read: str, queue_bytes: str) -> list[Option]:
    snet_buffer = "32K" if side == "client" else "1M"
    count = at_least(parse_int, 1)
    size = at_least(parse_size, 1)
    return [
        Option(
            f"{side}-buffer-size",
            read,
            at_least(parse_size, 64),
            "size",
            f"bytes taken from a {side}'s socket in one read",
        ),
        Option(
            f"{side}-idle-timeout",
            "30s",
            at_least(parse_duration, 0.1, "never"),
            "duration",
            f"a {side} that sends no complete packet for this long is lost; 0 = never",
        ),
        Option(
            f"{side}-send-chan-size",
            queue,
            count,
            "number",
            f"packets that may wait for one {side}",
        ),
        Option(
            f"{side}-send-buffer",
            queue_bytes,
            size,
            "size",
            f"bytes that may wait for one {side}",
        ),
        Option(
            f"{side}-snet-enable",
            "false",
            parse_bool,
            "flag",
            f"speak snet on the {side} port: connections that survive broken networks",
        ),
        Option(
            f"{side}-snet-encrypt",
            "false",
            parse_bool,
            "flag",
            f"encrypt snet on the {side} port; weak, see docs/snet.md",
        ),
        Option(
            f"{side}-snet-buffer",
            snet_buffer,
            size,
            "size",
            "bytes kept for one connection, to be sent again",
        ),
        Option(
            f"{side}-snet-init-timeout",
            "10s",
            at_least(parse_duration, 0.1),
            "duration",
            "how long an snet handshake may take",
        ),
        Option(
            f"{side}-snet-wait-timeout",
            "60s",
            at_least(parse_duration, 0.1),
            "duration",
            "how long a cut connection may take to come back",
        ),
        Option(
            f"{side}-snet-max-waiting",
            "10000" if side == "client" else "1000",
            count,
            "number",
            "connections that may be cut at a time; past that the one cut longest is lost",
        ),
        Option(
            f"{side}-snet-max-handshakes",
            "1000",
            count,
            "number",
            "snet handshakes at a time; past that the oldest is dropped",
        ),
    ]


OPTIONS: list[Option] = [
    Option("client-addr", ":0", str, "address", "where clients connect; port 0 = any free port"),
    Option(
        "client-max-conn",
        "16",
        at_least(parse_int, 0),
        "number",
        "virtual connections with which a client may still dial another; 0 = no limit",
    ),
    Option(
        "client-max-total",
        "1024",
        at_least(parse_int, 0),
        "number",
        "virtual connections with which a client may still be dialled; 0 = no limit",
    ),
    Option(
        "max-clients",
        "0",
        at_least(parse_int, 0),
        "number",
        "connections on the client port at a time; 0 = as many as files may be open",
    ),
    *_port_options("client", "1000", "2K", "4M"),
    Option(
        "server-addr", ":0", str, "address", "where game servers connect; port 0 = any free port"
    ),
    Option(
        "server-auth-password",
        "",
        str,
        "text",
        "the key that servers prove to hold (also --server-auth-key)",
    ),
    Option(
        "allow-empty-key",
        "false",
        parse_bool,
        "flag",
        "accept servers without a key although their port is not on loopback only",
    ),
    Option(
        "server-id-conflict",
        "replace",
        one_of("replace", "evict", "reject"),
        "replace, evict or reject",
        "a second server with an id in use: "
        "it gets the new dials, the older is lost, or it is lost",
    ),
    Option(
        "max-servers",
        "0",
        at_least(parse_int, 0),
        "number",
        "connections on the server port at a time; 0 = as many as files may be open",
    ),
    *_port_options("server", "100000", "64K", "64M"),
    Option(
        "reuse-port",
        "false",
        parse_bool,
        "flag",
        "SO_REUSEPORT: several gateways may share the ports",
    ),
    Option(
        "max-packet",
        "512K",
        at_least(parse_size, 16),
        "size",
        "the largest length field of a packet: 4 bytes of id and the message",
    ),
    Option(
        "write-timeout",
        "30s",
        at_least(parse_duration, 0.1, "for ever"),
        "duration",
        "an end that takes nothing for this long while data waits is lost; 0 = never",
    ),
    Option(
        "relay",
        "auto",
        one_of("auto", "on", "off"),
        "auto, on or off",
        "forward packets in native code; auto: where it is built and runs",
    ),
    Option(
        "mem-pool-type",
        "atom",
        one_of("sync", "atom", "chan"),
        "sync, atom or chan",
        "kind of slab pool from which the relay's queues are made",
    ),
    Option(
        "mem-pool-factor",
        "2",
        at_least(parse_int, 2),
        "number",
        "growth from one chunk size to the next",
    ),
    Option("mem-pool-min-chunk", "64B", at_least(parse_size, 1), "size", "smallest chunk"),
    Option("mem-pool-max-chunk", "64K", at_least(parse_size, 1), "size", "largest chunk"),
    Option("mem-pool-page-size", "1M", at_least(parse_size, 1), "size", "bytes of one slab"),
    Option(
        "mem-pool-limit",
        "0",
        at_least(parse_size, 1, "no limit"),
        "size",
        "bytes of chunks in use; over it an end that needs one is lost; 0 = no limit",
    ),
    Option("run-dir", ".", str, "path", "where the pid file, command file and reports are"),
    Option("pid-file", "fastway.pid", str, "path", "holds the process id; empty = none"),
    Option("command-file", "fastway.cmd", str, "path", "what SIGUSR1 reads; empty = none"),
    Option(
        "commands-module",
        "",
        str,
        "python module",
        "its register(commands) adds commands of your own",
    ),
    Option("logfile", "", str, "path", "log there instead of the console; SIGHUP reopens it"),
    Option("log-format", "text", one_of("text", "json"), "text or json", "one line an event"),
    Option(
        "log-level",
        "info",
        one_of("debug", "info", "warn", "error", "critical"),
        "debug, info, warn, error or critical",
        "the least level that is logged",
    ),
]

BY_NAME = {option.name: option for option in OPTIONS}
ALIASES = {"server-auth-key": "server-auth-password", "log-file": "logfile"}


def resolve_name(name: str) -> Option | None:
    """The option called `name`: kebab-case or snake_case, aliases too."""
    name = name.strip().replace("_", "-").lower()
    return BY_NAME.get(ALIASES.get(name, name))


_ORIGINAL = re.compile(r"--?([A-Z][A-Za-z]*)(?:=(.*))?", re.DOTALL)


def kebab(name: str) -> str:
    """`ClientMaxConn` -> `client-max-conn`, for those who come from the original."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def normalise(arguments: Iterable[str]) -> tuple[list[str], set[str]]:
    """Rewrite the original's spelling: `-ClientAddr=:9000` to `--client-addr=:9000`.

    Returns:
        The arguments for the parser, which knows flags only without a value, and the names of
        the flags that were set to false (`-ReusePort=false`, `--reuse-port=no`).

    Raises:
        ConfigError: a flag's value is neither true nor false.
    """
    result: list[str] = []
    off: set[str] = set()
    value_of: Option | None = None
    """The option whose value the argument is, whatever it looks like."""
    for argument in arguments:
        if value_of is not None:
            value_of = None
            result.append(argument)
            continue
        original = _ORIGINAL.fullmatch(argument)
        if original is not None and resolve_name(kebab(original[1])) is not None:
            value = "" if original[2] is None else f"={original[2]}"
            argument = f"--{kebab(original[1])}{value}"
        elif original is not None and argument[1] != "-" and len(original[1]) > 1:
            # Not a heap of short flags: say it as it was typed.
            near = closest(kebab(original[1]), BY_NAME)
            raise ConfigError(f"-{original[1]}", f"no such option{near}; --help lists them")
        name, equals, value = argument[2:].partition("=")
        option = resolve_name(name) if argument.startswith("--") and equals else None
        if option is not None and option.is_flag:
            if not _flag(f"--{name}", value):
                off.add(option.name)
                result = [other for other in result if other != f"--{option.name}"]
                continue
            off.discard(option.name)
            argument = f"--{option.name}"
        elif argument.startswith("--") and not equals:
            named = resolve_name(name)
            value_of = named if named is not None and not named.is_flag else None
        result.append(argument)
    return result, off


def _flag(origin: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError as error:
        raise ConfigError(origin, str(error)) from None


def closest(name: str, names: Iterable[str]) -> str:
    """` (did you mean x?)`, or nothing."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def from_environment(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The settings in `FASTWAY_*` variables: option name -> (where it stands, text).

    Raises:
        ConfigError: no option goes by that name.
    """
    settings = {}
    for variable, text in environment.items():
        if not variable.startswith("FASTWAY_") or variable == "FASTWAY_CONFIG":
            continue
        option = resolve_name(variable[len("FASTWAY_") :])
        if option is None:
            known = ["FASTWAY_" + name.replace("-", "_").upper() for name in BY_NAME]
            raise ConfigError(variable, f"no such option{closest(variable, known)}")
        settings[option.name] = (variable, text)
    return settings


def from_file(path: str) -> dict[str, tuple[str, str]]:
    """The settings in a TOML file: option name -> (where it stands, text).

    `client-addr = ":9000"` at the top and `addr = ":9000"` under `[client]` are the same.

    Raises:
        ConfigError: it cannot be read, is not TOML, or names an option that is none.
    """
    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise ConfigError("--config", f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("--config", f"{path} is not TOML: {error}") from None
    settings: dict[str, tuple[str, str]] = {}

    def walk(prefix: str, table: Mapping[str, Any]) -> None:
        for key, value in table.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict):
                walk(f"{name}-", value)
                continue
            where = f"{path}: {name}"
            option = resolve_name(name)
            if option is None:
                raise ConfigError(where, f"no such option{closest(name, BY_NAME)}")
            if isinstance(value, bool):
                value = str(value).lower()
            elif not isinstance(value, (str, int, float)):
                raise ConfigError(where, f"must be one value, not {type(value).__name__}")
            settings[option.name] = (where, str(value))

    walk("", tables)
    return settings


class CommandOptions(Options):
    """What all commands of this package have in common: a version, and options only."""

    def opt_version(self) -> None:
        """print the version and exit"""
        from fastway import __version__

        print(f"fastway {__version__}")
        raise SystemExit(0)

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise UsageError(f"{arguments[0]!r} is not an option")


class GatewayOptions(CommandOptions):
    """The options of `twistd fastway` and of the console command.

    After parsing, `options["client-idle-timeout"]` and so on are values (bytes, seconds, ...).
    Parsing raises ConfigError; what twistd uses is `service.Options`, which turns that into one
    line and exit status 1.
    """

    longdesc = (
        "A game gateway: clients connect to one port, game servers to the other, and either "
        "dials the other by id. Sizes: 512K, 1M or bytes. Durations: 30s, 1m30s, 500ms or "
        "seconds. Addresses: host:port, :port, [v6]:port, or a Twisted endpoint string such as "
        "ssl:9000:privateKey=key.pem:certKey=cert.pem. Every option can also stand in the "
        "--config file, or in the environment as FASTWAY_CLIENT_ADDR and so on."
    )
    environment: Mapping[str, str] = os.environ
    daemon = False
    """There may be no terminal: SIGHUP is then never the end of one."""

    optParameters: ClassVar[list[list[Any]]] = [
        [option.name, None, None, f"{option.help} [{option.default or 'empty'}; {option.unit}]"]
        for option in OPTIONS
        if not option.is_flag
    ] + [["config", "c", None, "a TOML file with options"]]

    optFlags: ClassVar[list[list[Any]]] = [
        [option.name, None, f"{option.help} [{option.default}]"]
        for option in OPTIONS
        if option.is_flag
    ]

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, tuple[str, str]] = {}
        """What was set at all: option name -> (where it stands, text)."""

    def opt_server_auth_key(self, text: str) -> None:
        """another name of --server-auth-password"""
        self.opts["server-auth-password"] = text

    def opt_log_file(self, text: str) -> None:
        """another name of --logfile"""
        self.opts["logfile"] = text

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse a command line, then the environment and the file behind it.

        Raises:
            ConfigError: something cannot be used.
        """
        arguments, off = normalise(sys.argv[1:] if options is None else options)
        try:
            super().parseOptions(arguments)
        except UsageError as error:
            raise self._unknown(error) from None
        config = self.opts.pop("config", None) or self.environment.get("FASTWAY_CONFIG")
        given = from_file(config) if config else {}
        given.update(from_environment(self.environment))
        for option in OPTIONS:
            text = self.opts.get(option.name)
            if option.is_flag and text:
                text = "true"
            elif option.name in off:
                text = "false"
            if text or (text is not None and not option.is_flag):
                given[option.name] = (f"--{option.name}", text)
        self.given = given
        for option in OPTIONS:
            where, text = given.get(option.name, (f"--{option.name}", option.default))
            try:
                value = option.parse(text)
            except ValueError as error:
                raise ConfigError(where, str(error)) from None
            self.opts[option.name] = value

    @staticmethod
    def _unknown(error: UsageError) -> ConfigError:
        text = str(error)
        unknown = re.search(r"option (--?\S+) not recognized", text)
        if unknown is not None:
            name = unknown[1]
            near = closest(name, [f"--{name}" for name in [*BY_NAME, *ALIASES, "config"]])
            return ConfigError(name, f"no such option{near}; --help lists them")
        needs = re.search(r"option (--?\S+) requires argument", text)
        if needs is not None:
            return ConfigError(needs[1], "needs a value")
        return ConfigError("command line", text)

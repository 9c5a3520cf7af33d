"""The places that options come from: the command line, the environment, a TOML file.

Rule: the command line wins, then the environment (`FASTWAY_CLIENT_ADDR`), then the TOML file.
Whatever cannot be used ends in a `ConfigError` that names the option as it was written there.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from twisted.python.usage import Options

from fastway.config.manual import describe
from fastway.config.settings import Given, Settings, Values, make_settings
from fastway.config.table import (
    ALIASES,
    BY_NAME,
    CONFIG,
    OPTIONS,
    SECRETS,
    Option,
    resolve_name,
)
from fastway.config.values import quoted
from fastway.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

_ORIGINAL = re.compile(r"--?([A-Z][A-Za-z]+)")

_IP = r"[0-9a-fA-F.:]+"
_URL = r"(tcp|udp|sctp)://\S+"
_SERVICE_LINKS = [
    (re.compile(rf"FASTWAY(_[A-Z0-9_]+)?_{name}"), re.compile(value))
    for name, value in (
        ("SERVICE_HOST", _IP),
        (r"SERVICE_PORT(_[A-Z0-9_]+)?", r"\d+"),
        ("PORT", _URL),
        (r"PORT_\d+_(TCP|UDP|SCTP)", _URL),
        (r"PORT_\d+_(TCP|UDP|SCTP)_PROTO", "tcp|udp|sctp"),
        (r"PORT_\d+_(TCP|UDP|SCTP)_PORT", r"\d+"),
        (r"PORT_\d+_(TCP|UDP|SCTP)_ADDR", _IP),
    )
]
"""What Kubernetes puts into every pod for a Service whose name begins with fastway."""

_NO_OPTIONS = ("FASTWAY_CONFIG", "FASTWAY_PURE")
"""Where the file is, and a switch of the build: setup.py reads it."""


def read(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a command line, an environment, and the file that either names.

    Raises:
        ConfigError: something cannot be used.
    """
    options = GatewayOptions()
    options.environment = environment
    options.parseOptions(arguments)
    return options.settings


def kebab(name: str) -> str:
    """`ClientMaxConn` -> `client-max-conn`, for those who come from the original."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def closest(name: str, names: Iterable[str]) -> str:
    """` (did you mean x?)`, or nothing."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def variable_of(option: Option) -> str:
    """`FASTWAY_CLIENT_ADDR` of `client-addr`."""
    return "FASTWAY_" + option.name.replace("-", "_").upper()


class CommandLine:
    """A command line, read by a table of options.

    Args:
        original: The original's spelling is understood too: `-ClientAddr=:9000`.

    Attributes:
        found: Each option that was given, in order. A flag's text is its value.
        operands: The arguments that are no options.
        wants: "help" or "version", if that was asked for; what follows is not read.

    Raises:
        ConfigError: something is no option, or lacks its value.
    """

    def __init__(
        self, arguments: Iterable[str], table: Sequence[Option], original: bool = False
    ) -> None:
        self.table = table
        self.found: list[tuple[Option, Given]] = []
        self.operands: list[str] = []
        self.wants = ""
        self._original = original
        self._left = list(arguments)
        while self._left and not self.wants:
            argument = self._left.pop(0)
            if argument == "--":
                self.operands += self._left
                break
            if argument.startswith("-") and argument != "-":
                self._read(argument)
            else:
                self.operands.append(argument)

    def _read(self, argument: str) -> None:
        typed, equals, text = argument.partition("=")
        spelled = _ORIGINAL.fullmatch(typed)
        if typed in ("-h", "--help", "-V", "--version"):
            self.wants = "help" if typed in ("-h", "--help") else "version"
        elif spelled is not None:
            option = resolve_name(kebab(spelled[1]), self.table)
            if option is None or not self._original:
                raise self._unknown(typed, kebab(spelled[1]))
            self._take(option, typed, text if equals else None)
        elif typed.startswith("--"):
            self._take(self._named(typed), typed, text if equals else None)
        elif resolve_name(typed[1:], self.table) is not None or typed[1:] in ("help", "version"):
            # Not a heap of short options: one dash too few.
            raise self._unknown(typed, typed[1:])
        else:
            self._read_short(argument)

    def _named(self, typed: str) -> Option:
        """The option of a name that may be cut short."""
        name = typed[2:]
        if name == name.lower() and "_" not in name:
            option = resolve_name(name, self.table)
            if option is not None:
                return option
            long = [known for known in self._names() if name and known.startswith(name)]
            meant = {
                found.name: found for known in long if (found := resolve_name(known, self.table))
            }
            if len(meant) == 1:
                return meant.popitem()[1]
            if meant:
                several = ", ".join(f"--{name}" for name in meant)
                raise ConfigError(typed, f"it is short for several options: {several}")
        raise self._unknown(typed, name.replace("_", "-"))

    def _names(self) -> list[str]:
        """All long names, aliases too."""
        names = [option.name for option in self.table]
        return [*names, *(alias for alias, real in ALIASES.items() if real in names)]

    def _read_short(self, argument: str) -> None:
        letter = argument[1]
        option = next((option for option in self.table if option.short == letter), None)
        if option is None:
            raise self._unknown(argument.partition("=")[0], argument[1:])
        text = argument[2:].removeprefix("=") if len(argument) > 2 else None
        self._take(option, f"-{letter}", text)

    def _take(self, option: Option, typed: str, text: str | None) -> None:
        if option.is_flag:
            text = "true" if text is None else text
        elif text is None:
            if not self._left:
                raise ConfigError(typed, "needs a value")
            text = self._left.pop(0)
        self.found.append((option, Given(typed, text)))

    def _unknown(self, typed: str, name: str) -> ConfigError:
        known = [*self._names(), "help", "version"]
        near = closest(f"--{name}", [f"--{name}" for name in known])
        return ConfigError(typed, f"no such option{near}; --help lists them")


def is_service_link(variable: str, text: str) -> bool:
    """Kubernetes put it there for a Service."""
    return any(
        name.fullmatch(variable) and value.fullmatch(text) for name, value in _SERVICE_LINKS
    )


def from_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    """The settings in `FASTWAY_*` variables: option name -> what it was set to.

    Raises:
        ConfigError: no option goes by that name, or one is set in two ways.
    """
    settings: dict[str, Given] = {}
    for variable, text in environment.items():
        if not variable.startswith("FASTWAY_") or variable in _NO_OPTIONS:
            continue
        if any(
            name.fullmatch(variable) and value.fullmatch(text) for name, value in _SERVICE_LINKS
        ):
            continue
        option = resolve_name(variable[len("FASTWAY_") :])
        if option is None:
            known = [variable_of(option) for option in OPTIONS]
            raise ConfigError(variable, f"no such option{closest(variable, known)}")
        _set_once(settings, option, Given(variable, text))
    return settings


def exposed(values: Values) -> list[str]:
    """A line for each file with a key or a token that everybody on this machine can read."""
    files: dict[str, str] = {}
    for name in SECRETS:
        path, colon, _ = values.where(name).rpartition(": ")
        if colon:
            files[path] = name
    if values.values["admin-token-file"]:
        files[values.values["admin-token-file"]] = "admin-token"
    found = []
    for path, name in files.items():
        with suppress(OSError):
            if os.stat(path).st_mode & stat.S_IROTH:
                found.append(
                    f"everybody on this machine can read {path}, which has the {name}: "
                    f"chmod o-r {path}"
                )
    return found


def from_file(path: str) -> dict[str, Given]:
    """The settings in a TOML file: option name -> what it was set to.

    `client-addr = ":9000"` at the top and `addr = ":9000"` under `[client]` are the same. What
    is a list may be an array.

    Raises:
        ConfigError: it cannot be read, is not TOML, names an option that is none, or sets one in
            two ways.
    """
    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise ConfigError("--config", f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("--config", f"{path} is not TOML: {error}") from None
    settings: dict[str, Given] = {}

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
            elif option.is_list and isinstance(value, list):
                value = ", ".join(map(str, value))
            elif not isinstance(value, (str, int, float)):
                raise ConfigError(where, f"must be one value, not {type(value).__name__}")
            _set_once(settings, option, Given(where, str(value)))

    walk("", tables)
    return settings


def _set_once(settings: dict[str, Given], option: Option, given: Given) -> None:
    """Set an option in one source, where no spelling counts more than another."""
    other = settings.setdefault(option.name, given)
    if other.text != given.text:
        problem = f"{other.where} sets the same option to another value; leave one out"
        raise ConfigError(given.where, problem)


class TableOptions(Options):
    """Options of one table, as `twisted.python.usage` knows them.

    Attributes:
        table: What the command line may have.
        original: The original's spelling is understood too.
        defaults_here: Option name -> the default, where it is not the table's.
        given: Option name -> what it was set to on the command line; the last of several.
        lists: Option name -> all that it was set to, in order.
        operands: The arguments that are no options; how many there may be says `max_operands`.
        title: What a line about a problem begins with.
    """

    table: ClassVar[Sequence[Option]] = ()
    original: ClassVar[bool] = False
    max_operands: ClassVar[int] = 0
    defaults_here: ClassVar[Mapping[str, str]] = {}

    optParameters: ClassVar[list[list[Any]]] = []
    optFlags: ClassVar[list[list[Any]]] = []

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # For Twisted's own shell completion of `twistd fastway`.
        cls.optParameters, cls.optFlags = [], []
        if "table" in cls.__dict__:
            for option in cls.table:
                name, short = option.name, option.short or None
                if option.is_flag:
                    cls.optFlags.append([name, short, option.help])
                else:
                    cls.optParameters.append([name, short, None, option.help])

    def __init__(self) -> None:
        super().__init__()
        self.title = "fastway"
        self.given: dict[str, Given] = {}
        self.lists: dict[str, list[Given]] = {}
        self.operands: list[str] = []

    def default(self, option: Option) -> str:
        """What an option is without being given."""
        return self.defaults_here.get(option.name, option.default)

    def getUsage(self, width: int | None = None) -> str:
        """The help below the synopsis: what it is, and the options by topic."""
        return describe(str(getattr(self, "longdesc", "")), self.table, self.default, width)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse a command line; afterwards `self["name"]` is a value.

        Raises:
            ConfigError: something cannot be used.
            SystemExit: help or the version was asked for, and printed.
        """
        line = CommandLine(sys.argv[1:] if options is None else options, self.table, self.original)
        if line.wants == "help":
            print(self)
            raise SystemExit(0)
        if line.wants == "version":
            print_version()
            raise SystemExit(0)
        for option, given in line.found:
            self.given[option.name] = given
            self.lists.setdefault(option.name, []).append(given)
        if len(line.operands) > self.max_operands:
            stray = line.operands[self.max_operands]
            raise ConfigError("command line", f"{quoted(stray)} is not an option")
        self.operands = line.operands
        self.evaluate()

    def evaluate(self) -> None:
        """Make values of the texts."""
        for option in self.table:
            texts = self.lists.get(option.name, [Given(f"--{option.name}", self.default(option))])
            values = []
            for where, text in texts if option.many else texts[-1:]:
                try:
                    values.append(option.parse(text))
                except ValueError as error:
                    raise ConfigError(where, str(error)) from None
            self.opts[option.name] = values if option.many else values[-1]


def print_version() -> None:
    """`fastway 1.0`"""
    from fastway import __version__

    print(f"fastway {__version__}")


class GatewayOptions(TableOptions):
    """The options of `twistd fastway` and of the console command.

    After parsing, `settings` has them all. Parsing raises ConfigError; what twistd uses is
    `service.Options`, which turns that into one line and exit status 1.
    """

    table = (*OPTIONS, CONFIG)
    original = True
    longdesc = (
        "A game gateway: clients connect to one port, game servers to the other, and either "
        "dials the other by id. Sizes: 512K, 1M or bytes. Durations: 30s, 1m30s, 500ms or "
        "seconds. Rates: so many a second. Lists: with commas. "
        "Addresses: host:port, :port, [v6]:port, systemd:NAME for a socket that systemd "
        "opened, or a Twisted endpoint string such as unix:/run/fastway.sock. Every option can "
        "also stand in the --config file, or in the environment as FASTWAY_CLIENT_ADDR and so on; "
        "the original's spelling, -ClientAddr=:9000, is understood."
    )
    environment: Mapping[str, str] = os.environ
    settings: Settings
    file = ""
    """The TOML file that was read."""

    def evaluate(self) -> None:
        """The environment and the file behind the command line; then Settings of all."""
        super().evaluate()
        self._line = line = self.given
        config = line.pop(CONFIG.name, Given("", "")).text
        self.file = config or self.environment.get("FASTWAY_CONFIG", "")
        # Absolute, because twistd changes to another directory later.
        self._path = os.path.abspath(self.file)
        for option in self.table:
            if option.many and option.name in line:
                texts = [one.text for one in self.lists[option.name]]
                line[option.name] = Given(line[option.name].where, ",".join(texts))
        values = self._read(self.file)
        self.given = dict(values.given)
        self.opts.update(values.values)
        self.settings = make_settings(values)

    def reread(self) -> Settings:
        """The settings as they would be of the same command line and environment now.

        Raises:
            ConfigError: something in the file cannot be used.
        """
        return make_settings(self._read(self._path))

    def _read(self, path: str) -> Values:
        given = {name: Given(f"--{name}", text) for name, text in self.defaults_here.items()}
        given.update(from_file(path) if self.file else {})
        given.update(from_environment(self.environment))
        given.update(self._line)
        return Values(given)

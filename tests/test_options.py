"""Every option, its units, and the places it comes from."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastway.config.sources import (
    CommandLine,
    GatewayOptions,
    closest,
    from_environment,
    from_file,
    is_service_link,
    kebab,
    read,
    variable_of,
)
from fastway.config.table import BY_NAME, CONFIG, OPTIONS, Option, resolve_name
from fastway.config.values import (
    Ids,
    Share,
    duration,
    number,
    one_of,
    parse_bool,
    parse_duration,
    parse_int,
    parse_size,
    share_or,
    show_duration,
    show_size,
    size,
)
from fastway.errors import ConfigError
from fastway.networks import Networks
from tests.support.errors import raised
from tests.support.files import CHECKOUT, scratch
from tests.support.options import parsed

# Spec sections 5 and 8, and what the project adds beyond them: name -> value without any setting.
ORIGINAL: dict[str, tuple[str, Any]] = {
    "ReusePort": ("reuse-port", False),
    "MaxPacket": ("max-packet", 512 * 1024),
    "MemPoolType": ("mem-pool-type", "atom"),
    "MemPoolFactor": ("mem-pool-factor", 2),
    "MemPoolMinChunk": ("mem-pool-min-chunk", 64),
    "MemPoolMaxChunk": ("mem-pool-max-chunk", 64 * 1024),
    "MemPoolPageSize": ("mem-pool-page-size", 1024 * 1024),
    "ClientAddr": ("client-addr", ":0"),
    "ServerAddr": ("server-addr", ":0"),
    "ClientMaxConn": ("client-max-conn", 16),
    "ClientBufferSize": ("client-buffer-size", 2 * 1024),
    "ServerBufferSize": ("server-buffer-size", 64 * 1024),
    "ClientIdleTimeout": ("client-idle-timeout", 30.0),
    "ServerIdleTimeout": ("server-idle-timeout", 30.0),
    "ClientSendChanSize": ("client-send-chan-size", 1000),
    "ServerSendChanSize": ("server-send-chan-size", 100_000),
    "ClientSnetEnable": ("client-snet-enable", False),
    "ServerSnetEnable": ("server-snet-enable", False),
    "ClientSnetEncrypt": ("client-snet-encrypt", False),
    "ServerSnetEncrypt": ("server-snet-encrypt", False),
    "ClientSnetBuffer": ("client-snet-buffer", 32 * 1024),
    "ServerSnetBuffer": ("server-snet-buffer", 1024 * 1024),
    "ClientSnetInitTimeout": ("client-snet-init-timeout", 10.0),
    "ServerSnetInitTimeout": ("server-snet-init-timeout", 10.0),
    "ClientSnetWaitTimeout": ("client-snet-wait-timeout", 60.0),
    "ServerSnetWaitTimeout": ("server-snet-wait-timeout", 60.0),
    "ServerAuthPassword": ("server-auth-password", ""),
}
ADDED: dict[str, Any] = {
    "client-send-buffer": 4 * 1024 * 1024,
    "server-send-buffer": 64 * 1024 * 1024,
    "write-timeout": 30.0,
    "server-id-conflict": "replace",
    "allow-empty-key": False,
    "pid-file": "fastway.pid",
    "command-file": "fastway.cmd",
    "run-dir": ".",
}


class SizeTests(SynchronousTestCase):
    def test_units(self) -> None:
        """A size is bytes, or a number with K, M or G, each 1024 of the one before."""
        for text, expected in (
            ("0", 0),
            ("64", 64),
            ("64B", 64),
            ("512K", 524288),
            ("512k", 524288),
            ("1M", 1048576),
            ("1 MiB", 1048576),
            ("2G", 2147483648),
            (" 7KB ", 7168),
        ):
            self.assertEqual(parse_size(text), expected, text)

    def test_bad(self) -> None:
        """What is no size is refused with its text and what would be right."""
        for text in ("", "K", "-1", "1.5M", "1T", "1K1", "1 2", "0x10", "ten", "9" * 5000):
            raised(ValueError, parse_size, text)
        problem = str(raised(ValueError, parse_size, "ten"))
        self.assertIn("'ten'", problem)
        self.assertIn("K, M or G", problem)

    @given(st.integers(0, 2**40), st.sampled_from([("", 0), ("K", 10), ("M", 20), ("G", 30)]))
    def test_round_trip(self, number: int, unit: tuple[str, int]) -> None:
        """Every number with every unit is understood as that many bytes."""
        name, shift = unit
        self.assertEqual(parse_size(f"{number}{name}"), number << shift)

    @given(st.text(max_size=12))
    def test_any_text(self, text: str) -> None:
        """Any text is a size of at least 0 or a ValueError."""
        with contextlib.suppress(ValueError):
            self.assertGreaterEqual(parse_size(text), 0)


class DurationTests(SynchronousTestCase):
    def test_units(self) -> None:
        """A duration is seconds, or a chain of numbers with h, m, s, ms and us."""
        for text, seconds in (
            ("0", 0.0),
            ("30", 30.0),
            ("2.5", 2.5),
            (".5", 0.5),
            ("30s", 30.0),
            ("1m30s", 90.0),
            ("1h1m1s", 3661.0),
            ("500ms", 0.5),
            ("1.5s", 1.5),
            ("250us", 0.00025),
            (" 10s ", 10.0),
        ):
            self.assertAlmostEqual(parse_duration(text), seconds, msg=text)

    def test_bad(self) -> None:
        """What is no duration is refused with its text and what would be right."""
        for text in ("", "s", "-1", "-1s", "30x", "30 s", "s30", "1m30", "1e3", "inf", "nan"):
            raised(ValueError, parse_duration, text)
        problem = str(raised(ValueError, parse_duration, "soon"))
        self.assertIn("'soon'", problem)
        self.assertIn("1m30s", problem)

    def test_finite(self) -> None:
        """A number too large to be a time is refused, not taken for infinity."""
        for text in ("9" * 400, "9" * 400 + "s"):
            raised(ValueError, parse_duration, text)

    @given(st.integers(0, 999), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
    def test_round_trip(self, hours: int, minutes: int, seconds: int, millis: int) -> None:
        """What is written with all units is understood as their sum."""
        self.assertAlmostEqual(
            parse_duration(f"{hours}h{minutes}m{seconds}s{millis}ms"),
            hours * 3600 + minutes * 60 + seconds + millis / 1000,
        )

    @given(st.text(alphabet="0123456789.hmsu ", max_size=12))
    def test_any_text(self, text: str) -> None:
        """Any text is a duration of at least 0 or a ValueError."""
        with contextlib.suppress(ValueError):
            self.assertGreaterEqual(parse_duration(text), 0)


class OtherUnitTests(SynchronousTestCase):
    def test_flags(self) -> None:
        """true, yes, on, 1 and their opposites, in any case; nothing else."""
        for text in ("true", "Yes", "ON", "1", " true "):
            self.assertIs(parse_bool(text), True)
        for text in ("false", "No", "OFF", "0"):
            self.assertIs(parse_bool(text), False)
        for text in ("", "2", "maybe", "tru"):
            raised(ValueError, parse_bool, text)

    def test_numbers(self) -> None:
        """A whole number, and nothing else."""
        self.assertEqual(parse_int("100000"), 100_000)
        for text in ("", "1.5", "many", "1K"):
            self.assertIn("whole number", str(raised(ValueError, parse_int, text)))

    def test_ends(self) -> None:
        """Both ends are accepted, one beyond is not, and 0 only where it has a meaning."""
        for bounded, inside, below, above, low, high in (
            (number(5, 9), ("5", "9"), "4", "10", "at least 5", "at most 9"),
            (size(64, 2**24), ("64", "16M"), "63", "16777217", "at least 64", "at most 16M"),
            (duration(0.1, 60), ("100ms", "1m"), "99ms", "60.001", "at least 0.1s", "at most 1m"),
        ):
            for text in inside:
                bounded(text)
            self.assertIn(low, str(raised(ValueError, bounded, below)))
            self.assertIn(high, str(raised(ValueError, bounded, above)))
            self.assertIn(repr(above), str(raised(ValueError, bounded, above)))
            raised(ValueError, bounded, "0")
        with_zero = number(5, 9, "never")
        self.assertEqual(with_zero("0"), 0)
        self.assertIn("0 for never", str(raised(ValueError, with_zero, "4")))

    def test_shares(self) -> None:
        """A share of something is over 0 and at most all of it; anything else is left alone."""
        parse = share_or(size(1, 9))
        for text, part in (("25%", 0.25), ("100 %", 1.0), (" 12.5%", 0.125)):
            self.assertEqual(parse(text), Share(part))
        self.assertEqual(parse("7"), 7)
        for text in ("0%", "101%", "-1%", "%", "10", "x%"):
            raised(ValueError, parse, text)

    @given(st.integers(0, 2**41))
    def test_show_size(self, number: int) -> None:
        """A size is shown as text that means the same."""
        self.assertEqual(parse_size(show_size(number)), number)

    def test_show_duration(self) -> None:
        """A duration is shown as text that means the same."""
        for seconds in (0.0, 0.1, 1.0, 59.0, 60.0, 90.0, 3600.0, 315360000.0):
            self.assertEqual(parse_duration(show_duration(seconds)), seconds)

    def test_long_texts(self) -> None:
        """A text of any length is quoted in a message that fits a line."""
        for parse in (parse_int, parse_size, parse_duration, parse_bool, one_of("a")):
            self.assertLess(len(str(raised(ValueError, parse, "x" * 5000))), 200)

    def test_one_of(self) -> None:
        """One of the words; the refusal lists them."""
        choose = one_of("replace", "evict")
        self.assertEqual(choose("evict"), "evict")
        problem = str(raised(ValueError, choose, "Evict"))
        self.assertIn("'Evict'", problem)
        self.assertIn("replace, evict", problem)


class TableTests(SynchronousTestCase):
    def test_spec_options(self) -> None:
        """Every option of the original is there in kebab-case, with the original's default."""
        options = parsed()
        for original, (name, default) in ORIGINAL.items():
            self.assertEqual(kebab(original), name)
            self.assertEqual(options[name], default, name)
            self.assertIs(type(options[name]), type(default), name)

    def test_added_options(self) -> None:
        """Every option that this project adds is there with its default."""
        options = parsed()
        for name, default in ADDED.items():
            self.assertEqual(options[name], default, name)
            self.assertIs(type(options[name]), type(default), name)

    def test_project_options(self) -> None:
        """The options of process and log default to text at info on the console, without bounds
        on connections beyond the spec's."""
        options = parsed()
        expected = {
            "client-max-total": 1024,
            "client-snet-max-waiting": 10_000,
            "server-snet-max-waiting": 1000,
            "client-snet-max-handshakes": 1000,
            "server-snet-max-handshakes": 1000,
            "max-clients": 0,
            "max-servers": 0,
            "commands-module": "",
            "logfile": "",
            "log-format": "text",
            "log-level": "info",
            "access-log": "",
            "access-log-format": "text",
            "log-address": "full",
            "metrics-addr": "",
            "ready-needs-server": False,
            "admin-addr": (),
            "admin-token": "",
            "admin-token-file": "",
            "admin-hosts": (),
            "relay": "auto",
            "mem-pool-limit": 0,
            "memory-limit": Share(0.25),
            "server-max-handshakes": 1000,
            "client-packet-rate": 0.0,
            "client-byte-rate": 0,
            "client-dial-rate": 0.0,
            "limit-connections": 0,
            "limit-rate": 0.0,
            "limit-tls-rate": 300.0,
            "limit-handshakes": 1000,
            "limit-address-connections": 0,
            "limit-address-rate": 0.0,
            "limit-address-burst": 40,
            "limit-ipv6-prefix": 64,
            "limit-exempt": Networks(),
            "limit-allow": (),
            "limit-table": 100_000,
            "limit-dry-run": False,
            "keep-files": 64,
            "server-identities": "",
            "client-ws-addr": (),
            "client-wss-addr": (),
            "direct": (),
            "direct-send-buffer": 64 * 2**20,
            "client-ws-path": "/",
            "client-ws-origins": ("same",),
            "trusted-proxies": Networks(),
            "trusted-proxies-header": "x-forwarded-for",
            "drain-timeout": 0,
            "drain-delay": 5,
            "drain-grace": 10,
            "drain-spread": 0,
            "kick-servers": Ids(),
            "client-service-id": None,
            "groups": 10_000,
            "group-members": 100_000,
            "proxy-to-servers": Ids(),
            "control-queue": 1000,
        }
        for side in ("client", "server"):
            for name in ("cert", "key", "dir", "client-ca"):
                expected[f"{side}-tls-{name}"] = ""
            expected[f"{side}-tls-client-auth"] = "none"
            expected[f"{side}-tls-min-version"] = "1.2"
            expected[f"{side}-tls-alpn"] = (b"fastway/1",)
            expected[f"{side}-proxy-from"] = Networks()
            expected[f"{side}-proxy-others"] = "refuse"
        for name, default in expected.items():
            self.assertEqual(options[name], default, name)
        known = {name for name, _ in ORIGINAL.values()} | set(ADDED) | set(expected)
        self.assertEqual({option.name for option in OPTIONS}, known)

    def test_help_names_everything(self) -> None:
        """--help lists every option with its default and its unit, and --config."""
        text = " ".join(str(GatewayOptions()).split())
        for option in OPTIONS:
            self.assertIn(f"--{option.name}", text)
            if not option.is_flag:
                self.assertIn(option.default or "empty", text)
        self.assertIn("--config", text)
        self.assertIn("--server-auth-key", text)
        self.assertEqual(len(BY_NAME), len(OPTIONS))

    def test_limits(self) -> None:
        """The least legal value of each bounded option is accepted, one less is refused."""
        for name, low, below in (
            ("max-packet", "16", "15"),
            ("client-buffer-size", "64", "63"),
            ("server-buffer-size", "64", "63"),
            ("client-send-chan-size", "1", "0"),
            ("server-send-chan-size", "1", "0"),
            ("client-send-buffer", "1", "0"),
            ("server-send-buffer", "1", "0"),
            ("client-idle-timeout", "100ms", "99ms"),
            ("server-idle-timeout", "100ms", "99ms"),
            ("write-timeout", "0.1", "0.09"),
            ("client-max-conn", "0", "-1"),
            ("client-max-total", "0", "-1"),
            ("max-clients", "0", "-1"),
            ("max-servers", "0", "-1"),
            ("memory-limit", "1M", "1023K"),
            ("server-max-handshakes", "1", "0"),
            ("keep-files", "0", "-1"),
            ("mem-pool-factor", "2", "1"),
        ):
            parsed(f"--{name}={low}")
            error = raised(ConfigError, parsed, f"--{name}={below}")
            self.assertEqual(error.option, f"--{name}")
            self.assertIn("too small", error.problem)

    def test_upper_limits(self) -> None:
        """The greatest legal value of each number is accepted, one more is refused."""
        for name, high, above in (
            ("max-packet", "1G", "1073741825"),
            ("client-buffer-size", "16M", "4G"),
            ("server-buffer-size", "16M", "16777217"),
            ("client-send-chan-size", "2147483648", "2147483649"),
            ("server-send-chan-size", "2147483648", "2147483649"),
            ("client-send-buffer", "1024G", "1025G"),
            ("server-send-buffer", "1024G", "1099511627777"),
            ("client-idle-timeout", "87600h", "87600h1ms"),
            ("write-timeout", "87600h", "1" + "0" * 20),
            ("client-max-conn", "2147483648", "4294967296"),
            ("max-servers", "2147483648", "4294967296"),
            ("server-max-handshakes", "2147483648", "2147483649"),
            ("keep-files", "1048576", "1048577"),
            ("memory-limit", "1024G", "1025G"),
            ("memory-limit", "100%", "101%"),
            ("mem-pool-factor", "1024", "4294967296"),
            ("client-snet-buffer", "1G", "4G"),
        ):
            parsed(f"--{name}={high}")
            error = raised(ConfigError, parsed, f"--{name}={above}")
            self.assertEqual(error.option, f"--{name}")
            self.assertIn("at most", error.problem)

    def test_every_number_has_an_end(self) -> None:
        """No number of any option may be so great that it wraps in 64 bits."""
        for option in OPTIONS:
            if option.unit in ("size", "number", "duration", "size or share"):
                with self.subTest(option=option.name):
                    self.assertIn("at most", str(raised(ValueError, option.parse, str(2**63))))

    def test_topics(self) -> None:
        """Options of one topic stand together, so that help has each heading once."""
        headings = [option.topic for option in OPTIONS]
        changes = [one for one, next in pairwise(headings) if one != next]
        self.assertEqual(len(changes), len(set(headings)) - 1)

    def test_example(self) -> None:
        """deploy/fastway.toml has every option with its default, addresses aside, and works."""
        path = os.path.join(CHECKOUT, "deploy", "fastway.toml")
        read(["--config", path], {})
        with open(path, encoding="utf-8") as file:
            everything = re.sub("^#(?=[a-z0-9-]+ = )", "", file.read(), flags=re.MULTILINE)
        copy = os.path.join(scratch(self), "fastway.toml")
        with open(copy, "w", encoding="utf-8") as file:
            file.write(everything)
        given = from_file(copy)
        self.assertEqual(set(given), set(BY_NAME))
        for name, (_, text) in given.items():
            option = BY_NAME[name]
            if "address" not in option.unit:
                self.assertEqual(option.parse(text), option.parse(option.default), name)

    def test_zero_timeouts(self) -> None:
        """0 turns a timeout off."""
        for name in ("client-idle-timeout", "server-idle-timeout", "write-timeout"):
            self.assertEqual(parsed(f"--{name}=0")[name], 0.0)

    def test_words(self) -> None:
        """Each word of a choice is accepted, another is refused with the list."""
        for name, words in (
            ("server-id-conflict", ("replace", "evict", "reject")),
            ("log-format", ("text", "json")),
            ("log-level", ("debug", "info", "warn", "error", "critical")),
            ("log-address", ("full", "prefix", "none")),
        ):
            for word in words:
                self.assertEqual(parsed(f"--{name}", word)[name], word)
            error = raised(ConfigError, parsed, f"--{name}", "other")
            self.assertIn(", ".join(words), error.problem)


class CommandLineTests(SynchronousTestCase):
    def refused(self, *arguments: str) -> ConfigError:
        """The refusal of a command line: one line that says what option it is about."""
        error = raised(ConfigError, parsed, *arguments)
        self.assertNotIn("\n", str(error))
        self.assertTrue(str(error).startswith(f"{error.option}: "), str(error))
        return error

    def test_values(self) -> None:
        """`--name value` and `--name=value` are the same, and units are understood."""
        for arguments in (
            ("--client-idle-timeout", "1m30s", "--max-packet", "1M"),
            ("--client-idle-timeout=1m30s", "--max-packet=1M"),
        ):
            options = parsed(*arguments)
            self.assertEqual(options["client-idle-timeout"], 90.0)
            self.assertEqual(options["max-packet"], 1048576)

    def test_last_wins(self) -> None:
        """Of the same option given twice the last counts."""
        self.assertEqual(parsed("--max-packet=1K", "--max-packet=2K")["max-packet"], 2048)

    def test_key_alias(self) -> None:
        """--server-auth-key is another name of --server-auth-password, everywhere."""
        self.assertEqual(parsed("--server-auth-key", "k")["server-auth-password"], "k")
        self.assertEqual(parsed("--server-auth-key=k")["server-auth-password"], "k")
        self.assertEqual(parsed("-ServerAuthKey=k")["server-auth-password"], "k")
        self.assertEqual(parsed("-ServerAuthPassword=k")["server-auth-password"], "k")
        options = parsed(environment={"FASTWAY_SERVER_AUTH_KEY": "k"})
        self.assertEqual(options["server-auth-password"], "k")

    def test_logfile_alias(self) -> None:
        """--log-file is another name of --logfile, on the command line as in the environment."""
        options = parsed(environment={"FASTWAY_LOG_FILE": "a.log"})
        self.assertEqual(options["logfile"], "a.log")
        self.assertEqual(parsed("--log-file", "a.log")["logfile"], "a.log")

    def test_flags(self) -> None:
        """A flag is on when named, and takes =true and =false."""
        for arguments, value in (
            ((), False),
            (("--reuse-port",), True),
            (("--reuse-port=true",), True),
            (("--reuse-port=yes",), True),
            (("--reuse-port=false",), False),
            (("--reuse-port=0",), False),
            (("--reuse-port=false", "--reuse-port=true"), True),
            (("--reuse-port=false", "--reuse-port"), True),
            (("--reuse-port=true", "--reuse-port=false"), False),
            (("--reuse-port", "--reuse-port=false"), False),
        ):
            self.assertIs(parsed(*arguments)["reuse-port"], value, str(arguments))
        self.assertEqual(self.refused("--reuse-port=maybe").option, "--reuse-port")

    def test_original_spelling(self) -> None:
        """A command line of the original works as it is."""
        options = parsed(
            "-ClientAddr=:9000",
            "--ServerAddr=127.0.0.1:9001",
            "-ClientMaxConn=8",
            "-ServerAuthPassword=a=b",
            "-ReusePort=true",
            "-ClientIdleTimeout",
            "1m",
        )
        self.assertEqual(options["client-addr"], ":9000")
        self.assertEqual(options["server-addr"], "127.0.0.1:9001")
        self.assertEqual(options["client-max-conn"], 8)
        self.assertEqual(options["server-auth-password"], "a=b")
        self.assertIs(options["reuse-port"], True)
        self.assertEqual(options["client-idle-timeout"], 60.0)
        self.assertIs(parsed("-ReusePort")["reuse-port"], True)
        self.assertIs(parsed("-ReusePort=false")["reuse-port"], False)

    def test_every_original_name(self) -> None:
        """Each of the original's names is rewritten to ours, with its value untouched."""
        for original, (name, default) in ORIGINAL.items():
            if default is False:
                continue
            line = CommandLine([f"-{original}=A b=c"], OPTIONS, original=True)
            self.assertEqual(line.found, [(BY_NAME[name], (f"-{original}", "A b=c"))])

    def test_unknown_original(self) -> None:
        """A misspelt option in the original's spelling is refused by the name that was typed."""
        error = self.refused("-ClientAdr=:9000")
        self.assertEqual(error.option, "-ClientAdr")
        self.assertIn("did you mean --client-addr?", error.problem)
        self.assertIn("did you mean --client-addr?", self.refused("-HttpAddr=:9000").problem)

    def test_named_as_typed(self) -> None:
        """A bad value is refused by the option as it was typed, in whatever spelling."""
        for typed in ("-MaxPacket", "--MaxPacket", "--max-packet", "--max-pack"):
            self.assertEqual(self.refused(f"{typed}=big").option, typed)

    def test_one_dash_too_few(self) -> None:
        """An option's name after one dash is no heap of short options."""
        for typed in ("-config=x", "-config", "-client-addr=:1", "-help"):
            error = self.refused(typed)
            self.assertEqual(error.option, typed.partition("=")[0])
            self.assertIn(f"did you mean -{error.option}?", error.problem)

    def test_short(self) -> None:
        """A short option takes its value in the same argument or the next."""
        path = os.path.join(scratch(self), "a.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("max-packet = 1000")
        for arguments in (("-c", path), (f"-c{path}",), (f"-c={path}",)):
            self.assertEqual(parsed(*arguments)["max-packet"], 1000)
        self.assertEqual(self.refused("-c").problem, "needs a value")

    def test_end_of_options(self) -> None:
        """What stands behind -- is no option."""
        self.assertIn("'--reuse-port'", str(self.refused("--", "--reuse-port")))

    def test_value_is_no_option(self) -> None:
        """A value that looks like an option is left alone, with `=` and without."""
        for arguments in (
            ("--server-auth-key=-ReusePort=true",),
            ("--server-auth-key", "-ReusePort=true"),
            ("-ServerAuthKey", "-ReusePort=true"),
        ):
            self.assertEqual(parsed(*arguments)["server-auth-password"], "-ReusePort=true")
        self.assertEqual(
            parsed("--server-auth-password", "-Secret")["server-auth-password"], "-Secret"
        )

    def test_unknown(self) -> None:
        """An unknown option is refused by name, with the nearest that exists."""
        error = self.refused("--client-adr", ":9000")
        self.assertEqual(error.option, "--client-adr")
        self.assertIn("did you mean --client-addr?", error.problem)
        self.assertNotIn("did you mean", self.refused("--xyzzy").problem)
        self.assertEqual(self.refused("-z").option, "-z")

    def test_suggestion_works(self) -> None:
        """What a refusal suggests is accepted when it is typed."""
        for typo in ("--client-addrr", "--log-fle", "--logfil", "--server-auth-kei", "--confg"):
            error: Exception | None = None
            try:
                parsed(typo, "x")
            except ConfigError as refused:
                error = refused
            if error is None:
                continue  # an abbreviation
            near = str(error).partition("did you mean ")[2].partition("?")[0]
            with self.subTest(suggested=near):
                try:
                    parsed(near, "x")
                except ConfigError as refused:
                    self.assertNotIn("no such option", str(refused))

    def test_missing_value(self) -> None:
        """An option at the end without its value is refused by name."""
        error = self.refused("--client-addr")
        self.assertEqual((error.option, error.problem), ("--client-addr", "needs a value"))

    def test_stray_argument(self) -> None:
        """A word that is no option is refused."""
        self.assertIn("'start'", str(self.refused("start")))

    def test_ambiguous(self) -> None:
        """An abbreviation of several options is refused."""
        error = self.refused("--client-max", "1")
        self.assertEqual(error.option, "--client-max")
        self.assertIn("--client-max-conn, --client-max-total", error.problem)
        self.assertEqual(parsed("--server-auth", "k")["server-auth-password"], "k")

    def test_bad_value(self) -> None:
        """A value that cannot be used is refused by the option's name and with the value."""
        for name, text in (
            ("max-packet", "big"),
            ("client-idle-timeout", "soon"),
            ("client-max-conn", "many"),
        ):
            error = self.refused(f"--{name}", text)
            self.assertEqual(error.option, f"--{name}")
            self.assertIn(repr(text), error.problem)

    def test_given(self) -> None:
        """`given` holds what was set, and where."""
        options = parsed("--client-addr=:1", environment={"FASTWAY_SERVER_ADDR": ":2"})
        self.assertEqual(
            options.given,
            {"client-addr": ("--client-addr", ":1"), "server-addr": ("FASTWAY_SERVER_ADDR", ":2")},
        )

    def test_argv(self) -> None:
        """Without arguments it reads the process's."""
        self.patch(sys, "argv", ["fastway", "--max-packet=1K"])
        options = GatewayOptions()
        options.environment = {}
        options.parseOptions()
        self.assertEqual(options["max-packet"], 1024)


class ListTests(SynchronousTestCase):
    def test_many(self) -> None:
        """Every value of an option that is given several times is there, in order."""
        many = Option("gate", "d", str, "text", "", short="g", many=True)
        line = CommandLine(["-ga", "--gate=b", "x", "-g", "c"], [many])
        self.assertEqual([given.text for _, given in line.found], ["a", "b", "c"])
        self.assertEqual(line.operands, ["x"])


class PoolTests(SynchronousTestCase):
    def test_bad_values(self) -> None:
        """A value that cannot be is refused by name."""
        for name, bad in (("mem-pool-type", "slab"), ("mem-pool-factor", "1")):
            error = raised(ConfigError, parsed, f"--{name}={bad}")
            self.assertEqual(error.option, f"--{name}")


class SnetTests(SynchronousTestCase):
    def test_bad_values(self) -> None:
        """A value that cannot be is refused by name."""
        for name, bad in (
            ("client-snet-buffer", "0"),
            ("client-snet-max-waiting", "0"),
            ("server-snet-init-timeout", "soon"),
            ("server-snet-wait-timeout", "0"),
            ("server-snet-enable", "maybe"),
        ):
            error = raised(ConfigError, parsed, f"--{name}={bad}")
            self.assertEqual(error.option, f"--{name}")

    def test_on(self) -> None:
        """The original's spelling of all ten is understood."""
        options = parsed(
            "-ClientSnetEnable",
            "-ClientSnetEncrypt=true",
            "-ClientSnetBuffer=64K",
            "-ClientSnetInitTimeout=5s",
            "-ClientSnetWaitTimeout=2m",
        )
        names = ("enable", "encrypt", "buffer", "init-timeout", "wait-timeout")
        values = [options[f"client-snet-{name}"] for name in names]
        self.assertEqual(values, [True, True, 65536, 5.0, 120.0])

    def test_off_is_accepted(self) -> None:
        """Saying that snet is off is accepted in every spelling and place."""
        for side in ("client", "server"):
            for what in ("enable", "encrypt"):
                name = f"{side}-snet-{what}"
                original = f"-{side.title()}Snet{what.title()}=false"
                variable = f"FASTWAY_{name.replace('-', '_').upper()}"
                for options in (
                    parsed(f"--{name}=false"),
                    parsed(original),
                    parsed(environment={variable: "false"}),
                ):
                    self.assertIs(options[name], False)


class EnvironmentTests(SynchronousTestCase):
    def test_every_option(self) -> None:
        """Every option has a FASTWAY_ variable."""
        environment = {variable_of(option): "x" for option in OPTIONS}
        self.assertEqual(set(from_environment(environment)), set(BY_NAME))

    def test_values(self) -> None:
        """A variable sets its option; other variables are none of ours."""
        options = parsed(
            environment={
                "FASTWAY_CLIENT_ADDR": ":9000",
                "FASTWAY_REUSE_PORT": "yes",
                "FASTWAYS": "1",
                "PATH": "/bin",
            }
        )
        self.assertEqual(options["client-addr"], ":9000")
        self.assertIs(options["reuse-port"], True)

    def test_unknown(self) -> None:
        """An unknown FASTWAY_ variable is refused by name, with the nearest that exists."""
        error = raised(ConfigError, parsed, environment={"FASTWAY_CLIENT_ADR": ":9000"})
        self.assertEqual(error.option, "FASTWAY_CLIENT_ADR")
        self.assertIn("did you mean FASTWAY_CLIENT_ADDR?", error.problem)

    def test_bad_value(self) -> None:
        """A bad value is refused by the variable's name."""
        for variable in ("FASTWAY_MAX_PACKET", "FASTWAY_REUSE_PORT"):
            error = raised(ConfigError, parsed, environment={variable: "big"})
            self.assertEqual(error.option, variable)

    def test_service_links(self) -> None:
        """What Kubernetes sets for a Service called fastway, or fastway-..., is none of ours."""
        address = "tcp://10.3.240.17:9010"
        links = {
            "SERVICE_HOST": "10.3.240.17",
            "SERVICE_PORT": "9010",
            "SERVICE_PORT_CLIENTS": "9010",
            "PORT": address,
            "PORT_9010_TCP": address,
            "PORT_9010_TCP_PROTO": "tcp",
            "PORT_9010_TCP_PORT": "9010",
            "PORT_9010_TCP_ADDR": "10.3.240.17",
            "PORT_53_UDP_ADDR": "fd00::17",
        }
        for service in ("FASTWAY", "FASTWAY_CLIENT", "FASTWAY_REUSE", "FASTWAY_A_B"):
            for name, text in links.items():
                self.assertTrue(is_service_link(f"{service}_{name}", text), name)
        options = parsed(environment={f"FASTWAY_{name}": text for name, text in links.items()})
        self.assertEqual(options.given, {})
        self.assertIs(parsed(environment={"FASTWAY_REUSE_PORT": address})["reuse-port"], False)
        for variable, text in (
            ("FASTWAY_PORT", "9010"),
            ("FASTWAY_CLIENT_PORT", "9010"),
            ("FASTWAY_SERVICE_HOST", "example.org"),
            ("FASTWAY_SERVICE", "10.3.240.17"),
            ("FASTWAY_PORT_9010", address),
            ("FASTWAY_PORT_9010_TCP_NAME", "x"),
            ("FASTWAY_PORTS", address),
        ):
            error = raised(ConfigError, parsed, environment={variable: text})
            self.assertEqual(error.option, variable)

    def test_build_switch(self) -> None:
        """FASTWAY_PURE is for the build; a gateway starts with it."""
        self.assertEqual(parsed(environment={"FASTWAY_PURE": "1"}).given, {})

    def test_twice(self) -> None:
        """Two names of one option that say different things are refused; the same is fine."""
        environment = {"FASTWAY_SERVER_AUTH_KEY": "a", "FASTWAY_SERVER_AUTH_PASSWORD": "b"}
        error = raised(ConfigError, parsed, environment=environment)
        self.assertIn("FASTWAY_SERVER_AUTH_KEY", str(error))
        self.assertIn("FASTWAY_SERVER_AUTH_PASSWORD", str(error))
        environment["FASTWAY_SERVER_AUTH_KEY"] = "b"
        self.assertEqual(parsed(environment=environment)["server-auth-password"], "b")

    def test_process_environment(self) -> None:
        """Unless told otherwise, the environment is the process's."""
        self.assertIs(GatewayOptions.environment, os.environ)


class FileTests(SynchronousTestCase):
    def write(self, text: str) -> str:
        """A TOML file with `text`; its path."""
        path = os.path.join(scratch(self), "fastway.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def of(self, text: str) -> GatewayOptions:
        """Options of a file with `text`."""
        return parsed("--config", self.write(text))

    def refused(self, text: str) -> ConfigError:
        """The refusal of a file with `text`: one line that names the file."""
        path = self.write(text)
        error = raised(ConfigError, parsed, "--config", path)
        self.assertIn(path, str(error))
        self.assertNotIn("\n", str(error))
        return error

    def test_arrays(self) -> None:
        """A list may be an array, which nothing else may be."""
        for text in ('":80, :81"', '":80 :81"', '[":80", ":81"]'):
            self.assertEqual(self.of(f"client-ws-addr = {text}")["client-ws-addr"], (":80", ":81"))
        self.assertEqual(self.of("client-ws-addr = []")["client-ws-addr"], ())
        error = self.refused('client-addr = [":80"]')
        self.assertIn("must be one value, not list", error.problem)

    def test_spellings(self) -> None:
        """kebab-case, snake_case and tables name the same options."""
        for text in (
            'client-addr = ":9000"\nclient-max-conn = 8\nclient-snet-enable = false\n',
            'client_addr = ":9000"\nclient_max_conn = 8\nclient_snet_enable = false\n',
            '[client]\naddr = ":9000"\nmax-conn = 8\n[client.snet]\nenable = false\n',
            'client.addr = ":9000"\nclient.max_conn = "8"\nclient.snet.enable = "off"\n',
        ):
            options = self.of(text)
            self.assertEqual(options["client-addr"], ":9000")
            self.assertEqual(options["client-max-conn"], 8)
            self.assertIs(options["client-snet-enable"], False)

    def test_types(self) -> None:
        """Strings, numbers and booleans are all understood."""
        options = self.of(
            'max-packet = "1M"\nserver-buffer-size = 4096\nwrite-timeout = 2.5\n'
            "reuse-port = true\nserver-auth-key = 12345\n"
        )
        self.assertEqual(options["max-packet"], 1048576)
        self.assertEqual(options["server-buffer-size"], 4096)
        self.assertEqual(options["write-timeout"], 2.5)
        self.assertIs(options["reuse-port"], True)
        self.assertEqual(options["server-auth-password"], "12345")

    def test_unknown(self) -> None:
        """An unknown name is refused with the nearest that exists, in tables too."""
        self.assertIn("client-adr: no such option", str(self.refused('client-adr = ":9000"')))
        self.assertIn("did you mean client-addr?", str(self.refused('client-adr = ":9000"')))
        self.assertIn("did you mean client-addr?", str(self.refused('[client]\nadr = ":9000"')))

    def test_twice(self) -> None:
        """An option that a file sets in two ways, differently, is refused by both names."""
        error = self.refused('client-addr = ":1"\n[client]\naddr = ":2"')
        self.assertIn("client-addr sets the same option", str(error))
        self.assertTrue(str(error).endswith("to another value; leave one out"), error)
        same = self.of('client-addr = ":1"\n[client]\naddr = ":1"')
        self.assertEqual(same["client-addr"], ":1")

    def test_not_one_value(self) -> None:
        """A list or a date is refused by the option's name."""
        for text in ("max-packet = [1, 2]", "max-packet = 2026-01-01"):
            error = self.refused(text)
            self.assertIn("max-packet", error.option)
            self.assertIn("must be one value", error.problem)

    def test_bad_value(self) -> None:
        """A bad value is refused by file and name."""
        self.assertIn("client-max-conn: 'true'", str(self.refused("client-max-conn = true")))
        self.assertIn("max-packet: '1.5' is not a size", str(self.refused("max-packet = 1.5")))
        self.assertIn("run-dir: there is a NUL in it", str(self.refused('run-dir = "a\\u0000b"')))

    def test_not_toml(self) -> None:
        """A file that is not TOML is refused as that, with the place."""
        error = self.refused("client-addr: 9000")
        self.assertEqual(error.option, "--config")
        self.assertIn("is not TOML", error.problem)
        self.assertIn("line 1", error.problem)

    def test_not_text(self) -> None:
        """A file that is not UTF-8 is refused as not TOML."""
        path = os.path.join(scratch(self), "fastway.toml")
        with open(path, "wb") as file:
            file.write(b'client-addr = "\xff"\n')
        self.assertIn("is not TOML", str(raised(ConfigError, parsed, "-c", path)))

    def test_unreadable(self) -> None:
        """A missing file and a directory are refused by path with the system's reason."""
        missing = os.path.join(scratch(self), "fastway.toml")
        directory = os.path.join(scratch(self), "fastway.toml")
        os.mkdir(directory)
        for path, why in ((missing, "No such file"), (directory, "Is a directory")):
            error = raised(ConfigError, parsed, "--config", path)
            self.assertEqual(error.option, "--config")
            self.assertIn(f"cannot read {path}: {why}", error.problem)

    def test_forbidden(self) -> None:
        """A file that this user may not read is refused with the system's reason."""
        path = self.write("")
        os.chmod(path, 0)
        error = raised(ConfigError, parsed, "--config", path)
        self.assertIn("Permission denied", error.problem)

    if os.geteuid() == 0:
        test_forbidden.skip = "root may read everything"  # type: ignore[attr-defined]

    def test_from_the_environment(self) -> None:
        """FASTWAY_CONFIG names a file; --config wins over it."""
        one, other = self.write("max-packet = 1000"), self.write("max-packet = 2000")
        environment = {"FASTWAY_CONFIG": one}
        self.assertEqual(parsed(environment=environment)["max-packet"], 1000)
        options = parsed("--config", other, environment=environment)
        self.assertEqual(options["max-packet"], 2000)


class PrecedenceTests(SynchronousTestCase):
    def check(self, name: str, texts: tuple[str, str, str], value: Callable[[str], Any]) -> None:
        """The command line wins over the environment, that over the file."""
        path = os.path.join(scratch(self), "fastway.toml")
        in_file, in_environment, on_line = texts
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'{name} = "{in_file}"\n')
        environment = {f"FASTWAY_{name.replace('-', '_').upper()}": in_environment}
        self.assertEqual(parsed("-c", path)[name], value(in_file))
        self.assertEqual(parsed("-c", path, environment=environment)[name], value(in_environment))
        self.assertEqual(
            parsed("-c", path, f"--{name}={on_line}", environment=environment)[name],
            value(on_line),
        )

    def test_value(self) -> None:
        """A number from all three places: the line wins, then the environment."""
        self.check("client-max-conn", ("1", "2", "3"), int)

    def test_flag(self) -> None:
        """A flag can be turned off again by a stronger place."""
        self.check("reuse-port", ("true", "false", "true"), parse_bool)
        self.check("reuse-port", ("false", "true", "false"), parse_bool)

    def test_empty(self) -> None:
        """An empty text on the command line is a setting: it turns the pid file off."""
        self.check("pid-file", ("a.pid", "b.pid", ""), str)

    def test_alias(self) -> None:
        """An alias in one place meets the real name in another."""
        options = parsed("--server-auth-key=a", environment={"FASTWAY_SERVER_AUTH_PASSWORD": "b"})
        self.assertEqual(options["server-auth-password"], "a")

    def test_weaker_is_still_checked_for_names_only(self) -> None:
        """A bad value that a stronger place replaces harms nothing."""
        options = parsed("--max-packet=1K", environment={"FASTWAY_MAX_PACKET": "big"})
        self.assertEqual(options["max-packet"], 1024)


class NameTests(SynchronousTestCase):
    def test_resolve(self) -> None:
        """kebab-case, snake_case, any case and aliases find the option."""
        for name in ("client-addr", "client_addr", "CLIENT_ADDR", " client-addr "):
            option = resolve_name(name)
            self.assertEqual(option and option.name, "client-addr")
        self.assertIsNone(resolve_name("nope"))
        self.assertIsNone(resolve_name("client-addr", [CONFIG]))
        self.assertIsNone(resolve_name(""))

    def test_closest(self) -> None:
        """The nearest name is suggested, or nothing."""
        self.assertEqual(closest("ab", ["abc", "xyz"]), " (did you mean abc?)")
        self.assertEqual(closest("q", ["abc"]), "")
